//! Keys: `user` and the decimal digits of a scattered record number, as many for each, as YCSB
//! has them; if keys are to differ in length, dots behind that.
//!
//! Like the values, they are part of the format of `ouro-bench.json`.

use std::fmt;
use std::str::FromStr;

use crate::permutation::{Permutation, mix64};

/// What longer keys end with.
const MORE: u8 = b'.';
/// What every key begins with.
const PREFIX: &[u8] = b"user";
/// 10^19 is the largest power of ten in 64 bits; longer keys have leading zeros.
const DIGITS_MAX: usize = 19;
/// The shortest keys on offer: room for 10,000 records.
pub const KEY_BYTES_MIN: usize = 8;

const _: () = assert!(KEY_BYTES_MIN > PREFIX.len());

/// How long keys are: all alike, or any length between two alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySizes {
    /// The shortest.
    pub min: usize,
    /// The longest.
    pub max: usize,
}

impl KeySizes {
    /// All keys have as many bytes.
    #[must_use]
    pub const fn fixed(bytes: usize) -> Self {
        Self { min: bytes, max: bytes }
    }
}

impl FromStr for KeySizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a length such as 24, or lengths between two, such as 24..64".to_owned();
        let bytes = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
        match text.split_once("..") {
            None => bytes(text).map(Self::fixed),
            Some((min, max)) => {
                let sizes = Self { min: bytes(min)?, max: bytes(max)? };
                if sizes.max < sizes.min { Err(wrong()) } else { Ok(sizes) }
            }
        }
    }
}

impl fmt::Display for KeySizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min == self.max {
            true => write!(f, "{}", self.min),
            false => write!(f, "{}..{}", self.min, self.max),
        }
    }
}

/// How many records have a key of `key_bytes` bytes.
#[must_use]
pub const fn capacity(key_bytes: usize) -> u64 {
    let digits = key_bytes.saturating_sub(PREFIX.len());
    10_u64.pow(if digits < DIGITS_MAX { digits as u32 } else { DIGITS_MAX as u32 })
}

/// The keys of one database: a bijection between record numbers and keys.
#[derive(Clone, Debug)]
pub struct KeySpace {
    /// Of prefix and digits.
    key_bytes: usize,
    /// Bytes that a key may be longer.
    more_bytes_max: usize,
    seed: u64,
    capacity: u64,
    scatter: Permutation,
}

impl KeySpace {
    /// Keys of these lengths, at least [`KEY_BYTES_MIN`], in the order that `seed` chooses.
    #[must_use]
    pub fn new(sizes: KeySizes, seed: u64) -> Self {
        let (key_bytes, more_bytes_max) = (sizes.min, sizes.max - sizes.min);
        assert!(key_bytes >= KEY_BYTES_MIN, "keys of {key_bytes} bytes are too short");
        let capacity = capacity(key_bytes);
        let scatter = Permutation::new(capacity, seed);
        Self { key_bytes, more_bytes_max, seed, capacity, scatter }
    }

    /// Record numbers below this have a key.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Puts the key of `record` into `key`, in place of what it held.
    pub fn write(&self, record: u64, key: &mut Vec<u8>) {
        self.write_number(self.scatter.apply(record), key);
    }

    fn write_number(&self, mut number: u64, key: &mut Vec<u8>) {
        let more_bytes = self.more_bytes(number);
        key.truncate(self.key_bytes);
        if key.len() != self.key_bytes {
            key.clear();
            key.extend_from_slice(PREFIX);
            key.resize(self.key_bytes, b'0');
        }
        let first = self.key_bytes - DIGITS_MAX.min(self.key_bytes - PREFIX.len());
        for digit in key[first..].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        key.resize(self.key_bytes + more_bytes, MORE);
    }

    /// Bytes behind the digits.
    fn more_bytes(&self, number: u64) -> usize {
        if self.more_bytes_max == 0 {
            return 0;
        }
        let count = self.more_bytes_max as u128 + 1;
        ((u128::from(mix64(number ^ mix64(self.seed))) * count) >> 64) as usize
    }

    /// Puts the key into `end` behind which about `rows` of `records` records follow `key`, which
    /// [`KeySpace::write`] wrote.
    pub fn write_after(&self, key: &[u8], rows: u64, records: u64, end: &mut Vec<u8>) {
        let number = self.record(key).map_or(0, |record| self.scatter.apply(record));
        // Keys are spread evenly over all numbers.
        let gap = u128::from(rows) * u128::from(self.capacity) / u128::from(records.max(1));
        let last = u128::from(self.capacity - 1);
        let after = (u128::from(number) + gap.max(1)).min(last);
        self.write_number(u64::try_from(after).unwrap_or(u64::MAX), end);
    }

    /// The record whose key this is; `None` for what [`KeySpace::write`] never
    /// writes.
    #[must_use]
    pub fn record(&self, key: &[u8]) -> Option<u64> {
        let (digits, more) = key.split_at_checked(self.key_bytes)?;
        let digits = digits.strip_prefix(PREFIX)?;
        let mut number = 0_u64;
        for digit in digits {
            let digit = Some(digit).filter(|digit| digit.is_ascii_digit())? - b'0';
            number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
        }
        let is_whole =
            more.len() == self.more_bytes(number) && more.iter().all(|byte| *byte == MORE);
        (number < self.capacity && is_whole).then(|| self.scatter.invert(number))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key(keys: &KeySpace, record: u64) -> Vec<u8> {
        let mut key = Vec::new();
        keys.write(record, &mut key);
        key
    }

    #[test]
    fn a_range_has_about_as_many_records_as_it_is_asked_for() {
        let (records, keys) = (10_000, KeySpace::new(KeySizes::fixed(24), 5));
        let mut all: Vec<_> = (0..records).map(|record| key(&keys, record)).collect();
        all.sort_unstable();
        let mut end = Vec::new();
        let mut found = 0;
        for begin in all[..9000].iter().step_by(30) {
            keys.write_after(begin, 20, records, &mut end);
            assert!(&end > begin);
            found += all.iter().filter(|key| (begin..&end).contains(key)).count();
        }
        assert!((300 * 19..300 * 22).contains(&found), "{found}");
        // The last key of all has nothing behind it.
        keys.write_after(&[&b"user"[..], &[b'9'; 20]].concat(), 20, records, &mut end);
        let smallest = KeySpace::new(KeySizes::fixed(8), 5);
        let last = (0..10_000).map(|record| key(&smallest, record)).max().unwrap();
        smallest.write_after(&last, 5, 10_000, &mut end);
        assert_eq!(end, last);
    }

    #[test]
    fn every_record_of_the_smallest_key_space_has_its_own_key() {
        let keys = KeySpace::new(KeySizes::fixed(8), 1);
        assert_eq!(keys.capacity(), 10_000);
        let all: HashSet<_> = (0..10_000).map(|record| key(&keys, record)).collect();
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().all(|key| key.len() == 8 && key.starts_with(b"user")));
    }

    #[test]
    fn records_are_read_back_from_keys() {
        for key_bytes in [8, 9, 16, 22, 23, 24, 100] {
            let keys = KeySpace::new(KeySizes::fixed(key_bytes), 5);
            for record in [0, 1, 9999, keys.capacity() / 2, keys.capacity() - 1] {
                let key = key(&keys, record);
                assert_eq!(key.len(), key_bytes);
                assert_eq!(keys.record(&key), Some(record), "{key_bytes}");
            }
        }
    }

    /// The keys of format 1 are what they always were.
    #[test]
    fn the_bytes_are_stable() {
        assert_eq!(key(&KeySpace::new(KeySizes::fixed(24), 1), 0), b"user06939569710379120216");
        assert_eq!(key(&KeySpace::new(KeySizes::fixed(24), 1), 1), b"user05028525130213628389");
        assert_eq!(key(&KeySpace::new(KeySizes::fixed(8), 1), 7), b"user9979");
    }

    #[test]
    fn keys_of_lengths_that_differ_are_read_back() {
        let keys = KeySpace::new(KeySizes { min: 12, max: 40 }, 5);
        let mut lengths = HashSet::new();
        let mut buffer = Vec::new();
        for record in 0..1000 {
            keys.write(record, &mut buffer);
            assert_eq!(buffer, key(&keys, record));
            assert!((12..=40).contains(&buffer.len()));
            assert_eq!(keys.record(&buffer), Some(record));
            lengths.insert(buffer.len());
            buffer.push(b'.');
            assert_eq!(keys.record(&buffer), None);
        }
        assert_eq!(lengths.len(), 29);
        for text in ["24", "24..64"] {
            assert_eq!(text.parse::<KeySizes>().unwrap().to_string(), text);
        }
        for text in ["", "24..", "64..24", "-1", "24...64"] {
            assert!(text.parse::<KeySizes>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_used_buffer_is_overwritten() {
        let keys = KeySpace::new(KeySizes::fixed(24), 5);
        let mut buffer = key(&keys, 1);
        keys.write(2, &mut buffer);
        assert_eq!(buffer, key(&keys, 2));
        assert_ne!(buffer, key(&keys, 1));
    }

    #[test]
    fn what_is_no_key_has_no_record() {
        let keys = KeySpace::new(KeySizes::fixed(24), 1);
        for key in [
            &b""[..],
            b"user",
            b"usar00000000000000000000",
            b"user0000000000000000000",
            b"user0000000000000000000x",
            b"user10000000000000000000",
            b"user99999999999999999999",
        ] {
            assert_eq!(keys.record(key), None);
        }
    }
}
