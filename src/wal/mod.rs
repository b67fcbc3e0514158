//! Floor 5: the write-ahead log. One [`Stream`] per owner, for all its shards.
//!
//! A stream is a sequence of segments of the opening that made it. Records are
//! collected in groups; each group starts on a fresh unit. This module owns
//! segments (`segment`), records on their way into groups (`stream`), the
//! buffers these are collected in (`buffers`, `map`), groups on their way to
//! the device (`commit`), and the order in which writes become visible
//! (`pending`); how they do is the business of the floor above, which is handed
//! each [`Publication`]. `scan` reads the streams of earlier openings.

mod buffers;
mod commit;
mod dump;
mod group;
mod map;
mod pending;
mod scan;
mod segment;
#[cfg(all(test, feature = "shuttle"))]
mod shuttle_tests;
mod stream;
mod verify;

pub(crate) use commit::{Goal, Role, Turn, Wait};
pub(crate) use dump::{dump_map, dump_segment};
pub(crate) use group::Group;
pub(crate) use map::{FoundMap, Map, MapSizes};
#[cfg(feature = "fuzz")]
pub(crate) use map::{MapUse, group as slot_group};
pub(crate) use map::{
    create as create_map, in_use as map_in_use, list_elsewhere, lock_to_read as lock_map_to_read,
    path as map_path,
};
pub(crate) use pending::Publication;
pub(crate) use scan::{Found, FoundStream, Stop, find_streams};
#[cfg(feature = "fuzz")]
pub(crate) use segment::SegmentUse;
pub(crate) use segment::{SEGMENT_BYTES_MAX, Segment, SegmentMaker, SegmentSizes, discard};
pub(crate) use stream::{Append, Appended, Calls, NoRoom, Stream, StreamCounts, Unfilled};
pub(crate) use verify::{
    Follow, Log, MapContent, RecordPlace, SegmentFile, StreamCheck, has_gap, place_segment,
    stream_of_map, verify_files, verify_map, verify_stream,
};
