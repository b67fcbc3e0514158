//! What the database is to hold: every key and value follows from a seed and
//! numbers, so that nobody has to remember it.

use ouro_bench::permutation::{Permutation, mix64};
use ouro_bench::values::ValueSource;

use crate::script::random;
use crate::space::worker::Arguments;

pub(super) const KEY_BYTES: usize = 24;

/// Times that each record is put: loaded, and overwritten twice.
pub(super) const ROUNDS: u32 = 3;

/// Records, their keys, their values in each round, and which are deleted.
pub(super) struct Data {
    seed: u64,
    records: u64,
    keys: Permutation,
    values: ValueSource,
    deletes: Permutation,
}

impl Data {
    pub(super) fn new(arguments: &Arguments) -> Self {
        let Arguments { seed, records, value_bytes, .. } = *arguments;
        Self {
            seed,
            records,
            keys: Permutation::new(u64::MAX, mix64(seed)),
            values: ValueSource::new(value_bytes, seed),
            deletes: Permutation::new(records, seed),
        }
    }

    /// All records, in the order of the walk of this number: a random one.
    pub(super) fn order(&self, walk: u64) -> Permutation {
        Permutation::new(self.records, mix64(self.seed) ^ walk)
    }

    /// Random bytes, of which those of neighbours in key order hardly share any.
    pub(super) fn key(&self, record: u64) -> [u8; KEY_BYTES] {
        let number = self.keys.apply(record);
        let mut key = [0; KEY_BYTES];
        let (head, tail) = key.split_at_mut(size_of::<u64>());
        head.copy_from_slice(&number.to_be_bytes());
        random(&[self.seed, number]).fill(tail);
        key
    }

    /// The record with this key, if there is one.
    pub(super) fn record(&self, key: &[u8]) -> Option<u64> {
        let number = u64::from_be_bytes(*key.first_chunk()?);
        let record = (number < u64::MAX).then(|| self.keys.invert(number))?;
        (record < self.records && self.key(record) == key).then_some(record)
    }

    /// Puts what `record` holds after `round` into `value`.
    pub(super) fn value(&self, record: u64, round: u32, value: &mut Vec<u8>) {
        self.values.write(record, round, value);
    }

    /// The record that is the `number`-th to be deleted.
    pub(super) fn delete(&self, number: u64) -> u64 {
        self.deletes.apply(number)
    }

    /// How many are deleted: half of them.
    pub(super) fn deletes(&self) -> u64 {
        self.records / 2
    }

    pub(super) fn is_deleted(&self, record: u64) -> bool {
        self.deletes.invert(record) < self.deletes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn data(records: u64) -> Data {
        let mut arguments = crate::space::worker::arguments_for_tests();
        arguments.records = records;
        Data::new(&arguments)
    }

    #[test]
    fn records_and_their_keys_find_each_other() {
        let data = data(1000);
        let keys: BTreeSet<_> = (0..1000).map(|record| data.key(record)).collect();
        assert_eq!(keys.len(), 1000);
        assert!(keys.iter().all(|key| data.record(key).is_some_and(|r| data.key(r) == *key)));
        assert_eq!(data.record(&data.key(1000)), None);
        assert_eq!(data.record(&[0xff; KEY_BYTES]), None);
        assert_eq!(data.record(b"short"), None);
    }

    #[test]
    fn half_of_the_records_are_deleted() {
        let data = data(1001);
        let deleted: BTreeSet<u64> = (0..data.deletes()).map(|n| data.delete(n)).collect();
        assert_eq!(deleted.len(), 500);
        assert!((0..1001).all(|record| data.is_deleted(record) == deleted.contains(&record)));
    }

    #[test]
    fn rounds_have_values_of_their_own() {
        let data = data(10);
        let value = |record, round| {
            let mut value = Vec::new();
            data.value(record, round, &mut value);
            value
        };
        let values: BTreeSet<_> =
            (0..10).flat_map(|record| (0..ROUNDS).map(move |round| value(record, round))).collect();
        assert_eq!(values.len(), 30);
    }
}
