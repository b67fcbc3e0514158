//! A group: records that are written together.

use std::sync::Arc;

use crate::base::limits::round_up;
use crate::io::GroupBuf;
use crate::wal::Segment;

/// Records that are written with one write.
pub(crate) struct Group {
    pub(crate) buf: Arc<GroupBuf>,
    pub(crate) segment: Arc<Segment>,
    /// Where in the stream the group starts: a multiple of the unit.
    pub(crate) position: u64,
    /// Records of the group, marks not counted.
    pub(crate) records: u64,
    /// Some of its records are acknowledged only when they are durable.
    pub(crate) wants_durable: bool,
    /// It takes no more records.
    pub(crate) sealed: bool,
}

impl Group {
    /// Bytes of records so far.
    pub(crate) fn bytes(&self) -> usize {
        self.buf.claimed()
    }

    /// Where the last record ends.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.bytes() as u64
    }

    /// Bytes that are written: whole units.
    pub(crate) fn written_bytes(&self) -> usize {
        round_up(self.bytes())
    }

    /// Whether a record of `len` bytes still goes into it.
    pub(super) fn has_room(&self, len: usize) -> bool {
        let in_segment = self.segment.end() - self.position;
        let room = in_segment.min(self.buf.capacity() as u64);
        !self.sealed && (self.bytes() + len) as u64 <= room
    }
}
