//! Which writes of a stream are not visible yet, and what they wait for.
//!
//! Writes become visible in the order of the stream: each stands in a queue
//! entry behind those that must become visible before it. An entry is *ready*
//! when its fence is passed and its records are filled; whoever finds the first
//! entries ready takes them and publishes them. One at a time does, so that
//! nothing is published before what precedes it.
//!
//! A stream of writes that wait for nothing never has an entry.

use std::collections::VecDeque;

use crate::base::ids::ShardId;
use crate::base::planted::{Bug, planted};
use crate::base::seq::SeqNo;

/// What must have happened to a record before its write is visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    /// It was copied to where it survives the process.
    Copied,
    /// This group, and all before it, were written.
    Written(u64),
    /// This group, and all before it, are durable.
    Durable(u64),
}

impl Fence {
    /// Whether passing it means that `other` is passed.
    fn implies(self, other: Self) -> bool {
        match (self, other) {
            (_, Self::Copied) => true,
            (Self::Durable(a) | Self::Written(a), Self::Written(b))
            | (Self::Durable(a), Self::Durable(b)) => a >= b,
            _ => false,
        }
    }
}

/// How far groups have come: those below the numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frontier {
    pub(super) written: u64,
    pub(super) durable: u64,
}

struct Entry {
    fence: Fence,
    /// Its record is still being filled.
    filling: bool,
    /// The stream position of the end of its last record.
    end: u64,
    writes: Writes,
}

/// For each shard written to, its highest sequence number, in ascending order
/// of shards.
type Writes = Vec<(ShardId, SeqNo)>;

/// The queue.
#[derive(Default)]
pub(super) struct Pending {
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    first: u64,
    /// Entries below this number are visible.
    published: u64,
    publishing: bool,
    /// Emptied lists, to be used again.
    spare: Vec<Writes>,
}

/// Writes that are to be made visible now, all at one moment, by whoever has
/// this.
#[must_use = "the stream's writes become visible only when this is carried out"]
pub(crate) struct Publication {
    writes: Writes,
    through: u64,
    end: u64,
}

impl Publication {
    /// For each shard, in ascending order, the last sequence number that
    /// becomes visible.
    pub(crate) fn writes(&self) -> &[(ShardId, SeqNo)] {
        &self.writes
    }
}

impl Pending {
    /// Whether everything is visible.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.publishing
    }

    /// Adds a record that ends at `end`. Returns the number of its entry, or `None` when it may
    /// become visible at once.
    pub(super) fn add(
        &mut self,
        fence: Fence,
        filling: bool,
        end: u64,
        writes: impl Iterator<Item = (ShardId, SeqNo)>,
    ) -> Option<u64> {
        if fence == Fence::Copied && !filling && self.is_empty() {
            return None;
        }
        let joins = !filling && self.entries.back().is_some_and(|last| last.fence.implies(fence));
        if !joins {
            let list = self.spare.pop().unwrap_or_default();
            self.entries.push_back(Entry { fence, filling, end, writes: list });
        }
        let last = self.entries.back_mut().expect("there is one now");
        last.end = end;
        for (shard, seq) in writes {
            raise(&mut last.writes, shard, seq);
        }
        Some(self.first + self.entries.len() as u64 - 1)
    }

    /// The record of this entry is filled.
    pub(super) fn filled(&mut self, number: u64) {
        let entry = &mut self.entries[(number - self.first) as usize];
        assert!(entry.filling, "a record is filled once");
        entry.filling = false;
    }

    /// Whether the entry is visible.
    pub(super) fn is_published(&self, number: u64) -> bool {
        number < self.published
    }

    /// What has to be done before the entry can be visible.
    pub(super) fn needs(&self, number: u64) -> Frontier {
        let mut needs = Frontier { written: 0, durable: 0 };
        let Some(index) = number.checked_sub(self.first) else {
            return needs;
        };
        for entry in self.entries.range(..=index as usize) {
            match entry.fence {
                Fence::Copied => {}
                Fence::Written(group) => needs.written = needs.written.max(group + 1),
                Fence::Durable(group) => {
                    needs.written = needs.written.max(group + 1);
                    needs.durable = needs.durable.max(group + 1);
                }
            }
        }
        needs
    }

    /// Takes the entries that are ready, unless somebody is publishing: who
    /// will take them, too.
    pub(super) fn take_ready(&mut self, at: Frontier) -> Option<Publication> {
        if self.publishing {
            return None;
        }
        let ready = self.entries.iter().take_while(|entry| entry.is_ready(at)).count();
        let mut taken = self.entries.drain(..ready);
        let Entry { mut writes, mut end, .. } = taken.next()?;
        for entry in taken {
            end = entry.end;
            let mut list = entry.writes;
            for (shard, seq) in list.drain(..) {
                raise(&mut writes, shard, seq);
            }
            self.spare.push(list);
        }
        self.first += ready as u64;
        self.publishing = true;
        Some(Publication { writes, through: self.first, end })
    }

    /// The publication was carried out. Returns the stream position up to which
    /// everything is visible.
    pub(super) fn published(&mut self, publication: Publication) -> u64 {
        assert!(self.publishing, "one at a time publishes");
        self.publishing = false;
        self.published = publication.through;
        let mut list = publication.writes;
        list.clear();
        self.spare.push(list);
        publication.end
    }
}

impl Entry {
    fn is_ready(&self, at: Frontier) -> bool {
        let passed = match self.fence {
            Fence::Copied => true,
            Fence::Written(group) => group < at.written,
            Fence::Durable(group) if planted(Bug::AcknowledgedBeforeSync) => group < at.written,
            Fence::Durable(group) => group < at.durable,
        };
        passed && !self.filling
    }
}

/// Notes that `shard` has writes up to `seq`.
fn raise(writes: &mut Writes, shard: ShardId, seq: SeqNo) {
    match writes.binary_search_by_key(&shard, |w| w.0) {
        Ok(i) => writes[i].1 = writes[i].1.max(seq),
        Err(i) => writes.insert(i, (shard, seq)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(written: u64, durable: u64) -> Frontier {
        Frontier { written, durable }
    }

    fn one(seq: SeqNo) -> impl Iterator<Item = (ShardId, SeqNo)> {
        std::iter::once((0, seq))
    }

    #[test]
    fn what_waits_for_nothing_has_no_entry() {
        let mut pending = Pending::default();
        assert_eq!(pending.add(Fence::Copied, false, 10, one(1)), None);
        assert!(pending.is_empty());
    }

    #[test]
    fn process_safe_writes_wait_behind_durable_ones() {
        let mut pending = Pending::default();
        let durable = pending.add(Fence::Durable(0), false, 10, one(1)).expect("waits");
        let behind = pending.add(Fence::Copied, false, 20, one(2)).expect("waits");
        let next = pending.add(Fence::Durable(1), false, 30, one(3)).expect("waits");
        assert_eq!((durable, behind, next), (0, 0, 1));
        assert!(pending.take_ready(at(1, 0)).is_none(), "written is not durable");
        let publication = pending.take_ready(at(2, 1)).expect("group 0 is durable");
        assert_eq!(publication.writes(), [(0, 2)]);
        // Somebody else completes the next group meanwhile.
        assert!(pending.take_ready(at(2, 2)).is_none());
        assert!(!pending.is_published(0));
        assert_eq!(pending.published(publication), 20);
        assert!(pending.is_published(0) && !pending.is_published(1));
        let publication = pending.take_ready(at(2, 2)).expect("group 1 is durable");
        assert_eq!(publication.writes(), [(0, 3)]);
        assert!(!pending.is_empty());
        assert_eq!(pending.add(Fence::Copied, false, 40, one(4)), Some(2), "it may not overtake");
        pending.published(publication);
        let publication = pending.take_ready(at(2, 2)).expect("nothing is in the way");
        pending.published(publication);
        assert!(pending.is_empty());
    }

    #[test]
    fn a_long_record_holds_up_those_behind_it_until_it_is_filled() {
        let mut pending = Pending::default();
        let long = pending.add(Fence::Copied, true, 10, one(1)).expect("waits");
        let behind = pending.add(Fence::Copied, false, 20, one(2)).expect("waits");
        let durable = pending.add(Fence::Durable(0), false, 30, one(3)).expect("waits");
        assert_eq!((long, behind, durable), (0, 0, 1));
        assert!(pending.take_ready(at(0, 0)).is_none());
        pending.filled(long);
        let publication = pending.take_ready(at(0, 0)).expect("filled");
        assert_eq!(publication.writes(), [(0, 2)]);
        pending.published(publication);
        let needs = pending.needs(durable);
        assert_eq!((needs.written, needs.durable), (1, 1));
    }

    #[test]
    fn an_entry_needs_what_those_before_it_need() {
        let mut pending = Pending::default();
        pending.add(Fence::Durable(3), false, 10, one(1));
        let written = pending.add(Fence::Written(4), false, 20, one(2)).expect("waits");
        let long = pending.add(Fence::Copied, true, 30, one(3)).expect("waits");
        for entry in [written, long] {
            let needs = pending.needs(entry);
            assert_eq!((needs.written, needs.durable), (5, 4));
        }
    }
}
