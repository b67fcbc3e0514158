//! Who inserts which record, and how many records are there for readers.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Hands out the numbers of new records, and knows up to which of them all are
/// inserted: readers may only expect those.
#[derive(Debug)]
pub struct RecordCounter {
    next: AtomicU64,
    capacity: u64,
    /// All records below this are acknowledged.
    acknowledged: AtomicU64,
    /// Those acknowledged above it. One for each operation in flight at most, as
    /// long as every client inserts what it took.
    ahead: Mutex<BTreeSet<u64>>,
}

impl RecordCounter {
    /// Begins after `records` records that are there, in a key space with room
    /// for `capacity`.
    #[must_use]
    pub fn new(records: u64, capacity: u64) -> Self {
        Self {
            next: AtomicU64::new(records),
            capacity,
            acknowledged: AtomicU64::new(records),
            ahead: Mutex::default(),
        }
    }

    /// The number of a new record; `None` when the key space is full.
    pub fn take(&self) -> Option<u64> {
        let record = self.next.fetch_add(1, Ordering::Relaxed);
        (record < self.capacity).then_some(record)
    }

    /// Says that `record` is in the database.
    pub fn acknowledge(&self, record: u64) {
        let mut ahead = self.ahead.lock().expect("nothing panics under this lock");
        let mut end = self.acknowledged.load(Ordering::Relaxed);
        assert!(record >= end, "record {record} was acknowledged twice");
        ahead.insert(record);
        while ahead.first() == Some(&end) {
            ahead.pop_first();
            end += 1;
        }
        // Whoever reads the new bound must find the records below it.
        self.acknowledged.store(end, Ordering::Release);
    }

    /// All records below this number are in the database.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }
}

/// Where a client takes its new records from.
#[derive(Debug)]
pub enum Inserts {
    /// Every n-th record, so that the clients of a load share nothing.
    Strided(Strided),
    /// The next one that nobody has taken.
    Shared(Arc<RecordCounter>),
}

/// Every n-th record.
#[derive(Debug)]
pub struct Strided {
    next: u64,
    step: u64,
    end: u64,
    /// Those taken and not yet in the database, in ascending order: as many as
    /// the client has operations in flight.
    taken: VecDeque<u64>,
}

impl Strided {
    fn take(&mut self) -> Option<u64> {
        let record = self.next;
        if record >= self.end {
            return None;
        }
        self.next = record.saturating_add(self.step);
        self.taken.push_back(record);
        Some(record)
    }

    fn acknowledge(&mut self, record: u64) {
        let place = self.taken.binary_search(&record);
        let place = place.expect("a client acknowledges what it took, once");
        self.taken.remove(place);
    }
}

impl Inserts {
    /// The records `first`, `first + step` and so on, below `end`.
    #[must_use]
    pub fn strided(first: u64, step: u64, end: u64) -> Self {
        Self::Strided(Strided { next: first, step, end, taken: VecDeque::new() })
    }

    /// The record to insert next; `None` when there is none left.
    pub fn take(&mut self) -> Option<u64> {
        match self {
            Self::Strided(strided) => strided.take(),
            Self::Shared(counter) => counter.take(),
        }
    }

    /// Says that a record that was taken is in the database, or no business of
    /// this client's.
    pub fn acknowledge(&mut self, record: u64) {
        match self {
            Self::Strided(strided) => strided.acknowledge(record),
            Self::Shared(counter) => counter.acknowledge(record),
        }
    }

    /// All records below this number are there, as far as this client is
    /// concerned.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        match self {
            Self::Strided(Strided { next, end, taken, .. }) => {
                *taken.front().unwrap_or(next.min(end))
            }
            Self::Shared(counter) => counter.acknowledged(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_no_further_than_the_first_gap() {
        let counter = RecordCounter::new(100, 1000);
        let taken: Vec<_> = (0..4).filter_map(|_| counter.take()).collect();
        assert_eq!(taken, [100, 101, 102, 103]);
        counter.acknowledge(102);
        counter.acknowledge(101);
        assert_eq!(counter.acknowledged(), 100);
        counter.acknowledge(100);
        assert_eq!(counter.acknowledged(), 103);
        counter.acknowledge(103);
        assert_eq!(counter.acknowledged(), 104);
    }

    #[test]
    fn a_full_key_space_ends_the_inserts() {
        let counter = RecordCounter::new(9_999, 10_000);
        assert_eq!(counter.take(), Some(9_999));
        assert_eq!(counter.take(), None);
        assert_eq!(counter.take(), None);
    }

    #[test]
    fn concurrent_inserts_are_all_acknowledged_in_the_end() {
        let counter = RecordCounter::new(0, 4000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(record) = counter.take() {
                        assert!(counter.acknowledged() <= record);
                        counter.acknowledge(record);
                    }
                });
            }
        });
        assert_eq!(counter.acknowledged(), 4000);
    }

    #[test]
    fn strided_clients_load_every_record_once() {
        let mut all = Vec::new();
        for client in 0..3 {
            let mut inserts = Inserts::strided(client, 3, 10);
            while let Some(record) = inserts.take() {
                assert_eq!(inserts.acknowledged(), record);
                all.push(record);
                inserts.acknowledge(record);
            }
            assert_eq!(inserts.acknowledged(), 10);
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(0..10));
    }

    #[test]
    fn a_strided_client_with_several_in_flight_is_as_far_as_the_slowest() {
        let mut inserts = Inserts::strided(1, 2, 10);
        let taken: Vec<_> = std::iter::from_fn(|| inserts.take()).take(4).collect();
        assert_eq!(taken, [1, 3, 5, 7]);
        for (acknowledged, all_below) in [(3, 1), (7, 1), (1, 5), (5, 9)] {
            inserts.acknowledge(acknowledged);
            assert_eq!(inserts.acknowledged(), all_below);
        }
        assert_eq!((inserts.take(), inserts.take()), (Some(9), None));
        assert_eq!(inserts.acknowledged(), 9);
        inserts.acknowledge(9);
        assert_eq!(inserts.acknowledged(), 10);
    }
}
