//! A group: records that become durable with one write.

use std::sync::Arc;

use crate::base::ids::ShardId;
use crate::base::limits::round_up;
use crate::base::seq::SeqNo;
use crate::io::GroupBuf;
use crate::wal::Segment;

/// Records that are written together.
pub(crate) struct Group {
    /// Groups of a stream are numbered from 0.
    pub(crate) number: u64,
    pub(crate) buf: Arc<GroupBuf>,
    pub(crate) segment: Arc<Segment>,
    /// Where in the stream the group starts: a multiple of the unit.
    pub(crate) position: u64,
    /// For each shard written to, its highest sequence number in the group, in
    /// ascending order of shards.
    pub(crate) published: Vec<(ShardId, SeqNo)>,
    /// Records of the group, marks not counted.
    pub(crate) records: u64,
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

    /// Notes that the group holds writes of `shard` up to `seq`.
    pub(super) fn publish(&mut self, shard: ShardId, seq: SeqNo) {
        match self.published.binary_search_by_key(&shard, |p| p.0) {
            Ok(i) => {
                debug_assert!(self.published[i].1 < seq);
                self.published[i].1 = seq;
            }
            Err(i) => self.published.insert(i, (shard, seq)),
        }
    }
}
