//! The buffers that groups are collected in: parts of the stream's mapping, or
//! memory of the process.
//!
//! A record in a mapped buffer survives the death of the process as soon as it
//! is copied there. A buffer is used again only when its group was written.

use std::sync::Arc;

use crate::io::{GroupBuf, MappedWord};
use crate::wal::map::Map;

/// Groups in memory of the process that exist at one time: those in flight,
/// and others that fill up.
const HEAP_MAX: usize = 4;

/// The buffers of one stream.
pub(super) struct Buffers {
    heap_bytes: usize,
    heap_idle: Vec<Arc<GroupBuf>>,
    heap_out: usize,
    mapped_bytes: usize,
    map_bytes: u64,
    watermark: Option<MappedWord>,
    /// What the watermark says.
    acknowledged_end: u64,
    mapped_idle: Vec<Arc<GroupBuf>>,
    /// Given back while somebody still had a hand on it, who has let go by now.
    returning: Vec<Arc<GroupBuf>>,
}

impl Buffers {
    /// No buffer yet; those of the process will have `heap_bytes`.
    pub(super) fn new(heap_bytes: usize) -> Self {
        Self {
            heap_bytes,
            heap_idle: Vec::with_capacity(HEAP_MAX),
            heap_out: 0,
            mapped_bytes: 0,
            map_bytes: 0,
            watermark: None,
            acknowledged_end: 0,
            mapped_idle: Vec::new(),
            returning: Vec::new(),
        }
    }

    /// A mapping, for all groups from now on but those it is too short for.
    pub(super) fn add_map(&mut self, map: Map) {
        self.mapped_bytes = map.slots.first().map_or(0, GroupBuf::capacity);
        self.map_bytes = map.slots.iter().map(|slot| slot.capacity() as u64).sum();
        self.mapped_idle = map.slots.into_iter().map(Arc::new).collect();
        self.watermark = Some(map.watermark);
    }

    /// Records up to this position are about to be acknowledged.
    pub(super) fn acknowledge(&mut self, end: u64) {
        if let Some(watermark) = &self.watermark
            && end > self.acknowledged_end
        {
            self.acknowledged_end = end;
            watermark.store(end);
        }
    }

    /// Bytes of the mapped buffers.
    pub(super) fn map_bytes(&self) -> u64 {
        self.map_bytes
    }

    pub(super) fn has_map(&self) -> bool {
        self.mapped_bytes > 0
    }

    /// A buffer for a group that begins with a record of `len` bytes; `None`
    /// when one must be given back first.
    pub(super) fn take(&mut self, len: usize) -> Option<Arc<GroupBuf>> {
        self.take_back();
        if len <= self.mapped_bytes {
            return self.mapped_idle.pop();
        }
        if self.heap_out == HEAP_MAX {
            return None;
        }
        self.heap_out += 1;
        let idle = self.heap_idle.pop();
        Some(idle.unwrap_or_else(|| Arc::new(GroupBuf::new(self.heap_bytes))))
    }

    /// Takes what its last user has let go of by now. Whether there was any.
    pub(super) fn take_back(&mut self) -> bool {
        let before = self.returning.len();
        for buf in std::mem::take(&mut self.returning) {
            self.give_back(buf);
        }
        self.returning.len() < before
    }

    /// Gives back a mapped buffer whose group is still to be written, in place of which a copy
    /// is: a bug that can be planted.
    pub(super) fn give_back_early(&mut self, buf: &mut Arc<GroupBuf>) {
        let copy = GroupBuf::new(self.heap_bytes);
        let len = buf.claimed();
        let filled =
            copy.fill(len, |_, bytes| bytes.copy_from_slice(&buf.filled_bytes(len)[..len]));
        filled.expect("what fits into the mapping fits into memory of the process");
        copy.seal();
        self.heap_out += 1;
        let early = std::mem::replace(buf, Arc::new(copy));
        self.give_back(early);
    }

    /// The group in the buffer was written, or never will be.
    pub(super) fn give_back(&mut self, mut buf: Arc<GroupBuf>) {
        let Some(exclusive) = Arc::get_mut(&mut buf) else {
            self.returning.push(buf);
            return;
        };
        exclusive.reset();
        if buf.is_mapped() {
            self.mapped_idle.push(buf);
        } else {
            self.heap_out -= 1;
            self.heap_idle.push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_too_early_is_taken_back() {
        let mut buffers = Buffers::new(4096);
        let last_user = buffers.take(100).expect("a first buffer");
        buffers.give_back(Arc::clone(&last_user));
        assert!(!buffers.take_back(), "somebody has a hand on it");
        drop(last_user);
        assert!(buffers.take_back());
        assert!(!buffers.take_back(), "it is there already");
        for _ in 0..HEAP_MAX {
            assert!(buffers.take(100).is_some());
        }
        assert!(buffers.take(100).is_none());
    }
}
