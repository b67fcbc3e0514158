//! Floor 5: the write-ahead log. One [`Stream`] per owner, for all its shards.
//!
//! A stream is a sequence of segments of the opening that made it. Records are
//! collected in groups; each group starts on a fresh unit and is written with
//! one durable write by whoever leads it. This module owns segments, groups
//! and the order of commits; what a commit makes visible is the business of
//! the floor above, which is handed each group that became durable.

mod group;
mod scan;
mod segment;
mod stream;

pub(crate) use group::Group;
pub(crate) use scan::{FoundStream, Stop, find_streams};
pub(crate) use segment::{SEGMENT_BYTES_MAX, Segment, SegmentMaker, SegmentSizes, discard};
pub(crate) use stream::{Lead, NoRoom, Reservation, Stream, StreamCounts, Turn};
