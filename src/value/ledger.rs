//! What a shard's manifest knows of value files: how many bytes of each tables
//! refer to, and which were dropped and not given back yet.
//!
//! It changes by edits alone, so that it is the same in memory as after a
//! reopening.

use std::collections::{BTreeMap, VecDeque};

use crate::base::ids::FileId;
use crate::format::edit::Edit;
use crate::format::value::Extent;
use crate::value::pin::Garbage;

/// Dropped places that a new manifest takes over at most. They are more only
/// while somebody reads for very long; those beyond, the oldest, come back with
/// their files if this opening does not get to it.
const PENDING_MAX: usize = 8192;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    files: BTreeMap<FileId, u64>,
    /// Dropped, with their numbers, which ascend; not given back.
    pending: VecDeque<(u64, Extent)>,
    next_number: u64,
    /// Those with numbers below were given back, and no edit has said so.
    reclaimed_below: Option<u64>,
}

impl Ledger {
    /// Applies an edit; others than those on value files are passed over. Why
    /// it cannot be so, if it cannot.
    pub(crate) fn apply(&mut self, edit: &Edit) -> Result<(), String> {
        match edit {
            Edit::ValueFile { id, bytes } => {
                let known = self.files.entry(*id).or_default();
                *known = known
                    .checked_add(*bytes)
                    .ok_or_else(|| format!("value file {id} is impossibly long"))?;
            }
            Edit::ValuesDropped { first, extents } => {
                if *first < self.next_number {
                    return Err("dropped values have numbers of earlier ones".to_owned());
                }
                for (number, extent) in (*first..).zip(extents) {
                    self.drop_one(number, *extent)?;
                }
                self.next_number = first + extents.len() as u64;
            }
            Edit::ValuesReclaimed { below } => {
                self.forget(*below);
                if self.reclaimed_below.is_some_and(|noted| noted <= *below) {
                    self.reclaimed_below = None;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn drop_one(&mut self, number: u64, extent: Extent) -> Result<(), String> {
        let Extent { file, bytes, .. } = extent;
        let left = self.files.get(&file).copied().unwrap_or(0).checked_sub(bytes);
        match left {
            None => return Err(format!("more of value file {file} is dropped than was there")),
            Some(0) => drop(self.files.remove(&file)),
            Some(left) => drop(self.files.insert(file, left)),
        }
        self.pending.push_back((number, extent));
        Ok(())
    }

    fn forget(&mut self, below: u64) {
        let count = self.pending.partition_point(|(number, _)| *number < below);
        self.pending.drain(..count);
    }

    /// Dropped places with numbers below this were given back.
    pub(super) fn note_reclaimed(&mut self, below: u64) {
        let had = self.pending.len();
        self.forget(below);
        if self.pending.len() < had {
            self.reclaimed_below = Some(below);
        }
    }

    /// What the manifest is to be told about that.
    pub(super) fn reclaimed(&self) -> Option<Edit> {
        self.reclaimed_below.map(|below| Edit::ValuesReclaimed { below })
    }

    /// The number of the next place that is dropped.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The files that tables refer to, and how many bytes of each.
    pub(super) fn files(&self) -> impl Iterator<Item = (FileId, u64)> {
        self.files.iter().map(|(id, bytes)| (*id, *bytes))
    }

    /// What was dropped and not given back.
    pub(super) fn pending(&self) -> Option<Garbage> {
        let (last, _) = self.pending.back()?;
        let extents = self.pending.iter().map(|(_, extent)| *extent).collect();
        Some(Garbage { extents, below: last + 1 })
    }

    /// The edits that give an empty ledger what this one has.
    pub(crate) fn snapshot(&self) -> Vec<Edit> {
        let skipped = self.pending.len().saturating_sub(PENDING_MAX);
        let pending = || self.pending.iter().skip(skipped);
        let mut files = self.files.clone();
        for (_, extent) in pending() {
            *files.entry(extent.file).or_default() += extent.bytes;
        }
        let mut edits: Vec<Edit> =
            files.into_iter().map(|(id, bytes)| Edit::ValueFile { id, bytes }).collect();
        if let Some((first, _)) = pending().next() {
            // Numbers of those that follow each other have no gaps: they are
            // given up from the front only.
            let extents = pending().map(|(_, extent)| *extent).collect();
            edits.push(Edit::ValuesDropped { first: *first, extents });
        }
        edits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(counter: u32) -> FileId {
        FileId::new(1, counter)
    }

    fn extent(counter: u32, units: u64) -> Extent {
        Extent { file: file(counter), offset: 4096, bytes: units * 4096 }
    }

    fn reopened(ledger: &Ledger) -> Ledger {
        let mut copy = Ledger::default();
        for edit in ledger.snapshot() {
            copy.apply(&edit).unwrap();
        }
        copy
    }

    #[test]
    fn a_snapshot_says_all_there_is() {
        let mut ledger = Ledger::default();
        ledger.apply(&Edit::ValueFile { id: file(1), bytes: 10 * 4096 }).unwrap();
        ledger.apply(&Edit::ValueFile { id: file(2), bytes: 4096 }).unwrap();
        let extents = vec![extent(1, 3), extent(2, 1)];
        ledger.apply(&Edit::ValuesDropped { first: 0, extents }).unwrap();
        let extents = vec![extent(1, 2)];
        ledger.apply(&Edit::ValuesDropped { first: 2, extents }).unwrap();
        for copy in [&reopened(&ledger), &ledger] {
            assert!(copy.files().eq([(file(1), 5 * 4096)]));
            let garbage = copy.pending().unwrap();
            assert_eq!(garbage.extents, [extent(1, 3), extent(2, 1), extent(1, 2)]);
            assert_eq!((garbage.below, copy.next_number()), (3, 3));
        }
        ledger.note_reclaimed(2);
        assert_eq!(ledger.reclaimed(), Some(Edit::ValuesReclaimed { below: 2 }));
        ledger.apply(&Edit::ValuesReclaimed { below: 2 }).unwrap();
        assert_eq!(ledger.reclaimed(), None);
        for copy in [&reopened(&ledger), &ledger] {
            assert_eq!(copy.pending().unwrap().extents, [extent(1, 2)]);
            assert_eq!(copy.next_number(), 3);
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let mut ledger = Ledger::default();
        ledger.apply(&Edit::ValueFile { id: file(1), bytes: 2 * 4096 }).unwrap();
        let dropped = |first, units| Edit::ValuesDropped { first, extents: vec![extent(1, units)] };
        assert!(ledger.apply(&dropped(0, 3)).is_err());
        ledger.apply(&dropped(0, 1)).unwrap();
        assert!(ledger.apply(&dropped(0, 1)).is_err(), "the number was given before");
        ledger.apply(&dropped(1, 1)).unwrap();
        assert!(ledger.apply(&dropped(2, 1)).is_err(), "nothing is left");
        assert!(ledger.apply(&Edit::ValueFile { id: file(2), bytes: u64::MAX }).is_ok());
        assert!(ledger.apply(&Edit::ValueFile { id: file(2), bytes: 1 }).is_err());
    }

    #[test]
    fn a_snapshot_takes_over_a_bounded_number_of_dropped_places() {
        let mut ledger = Ledger::default();
        let count = PENDING_MAX as u64 + 10;
        ledger.apply(&Edit::ValueFile { id: file(1), bytes: count * 4096 }).unwrap();
        let extents = vec![extent(1, 1); count as usize];
        ledger.apply(&Edit::ValuesDropped { first: 0, extents }).unwrap();
        let copy = reopened(&ledger);
        assert_eq!(copy.pending().unwrap().extents.len(), PENDING_MAX);
        assert_eq!((copy.files().count(), copy.next_number()), (0, count));
    }
}
