//! What a soak expects of every key, so that each read can be judged while
//! others write.
//!
//! Each key belongs to one writer, which writes versions 1, 2, 3 …; some of them
//! are deletions. Two numbers a key say all: the version that was begun last,
//! and the one that was acknowledged last. What a read finds must lie between
//! what was acknowledged before it and what was begun when it ended.

use std::sync::atomic::{AtomicU32, Ordering};

/// Of all versions of all keys, one in so many is a deletion.
const DELETED: u64 = 4;

const VALUE_HEAD_BYTES: usize = 16;

/// The keys, and what became of them.
pub(super) struct Model {
    begun: Box<[AtomicU32]>,
    acknowledged: Box<[AtomicU32]>,
    value_bytes: usize,
}

/// Scrambles a number (SplitMix64's finaliser, G. Steele et al., 2014).
fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Model {
    /// So many keys, of which none was written yet.
    pub(super) fn new(keys: u32, value_bytes: usize) -> Self {
        let zeroes = || (0..keys).map(|_| AtomicU32::new(0)).collect();
        let value_bytes = value_bytes.max(VALUE_HEAD_BYTES);
        Self { begun: zeroes(), acknowledged: zeroes(), value_bytes }
    }

    /// How many keys there are.
    pub(super) fn keys(&self) -> u32 {
        self.begun.len() as u32
    }

    /// A key: 24 bytes, neighbours of which have nothing to do with each other.
    pub(super) fn key(number: u32) -> Vec<u8> {
        format!("{:016x}{number:08x}", mixed(u64::from(number))).into_bytes()
    }

    /// The number of a key; `None` if it is none of these.
    pub(super) fn number(&self, key: &[u8]) -> Option<u32> {
        let text = std::str::from_utf8(key.get(16..)?).ok()?;
        let number = u32::from_str_radix(text, 16).ok()?;
        (number < self.keys() && Self::key(number) == key).then_some(number)
    }

    /// The value of a version; `None` for a deletion.
    pub(super) fn value(&self, number: u32, version: u32) -> Option<Vec<u8>> {
        let seed = u64::from(number) << 32 | u64::from(version);
        if version == 0 || mixed(seed).is_multiple_of(DELETED) {
            return None;
        }
        let mut value = Vec::with_capacity(self.value_bytes);
        value.extend(seed.to_le_bytes());
        value.extend((self.value_bytes as u64).to_le_bytes());
        // Half of it is random.
        while value.len() < self.value_bytes / 2 {
            value.extend(mixed(seed ^ (value.len() as u64) << 17).to_le_bytes());
        }
        value.resize(self.value_bytes, b'.');
        Some(value)
    }

    /// The version that the key's writer begins now.
    pub(super) fn begin(&self, number: u32) -> u32 {
        self.begun[number as usize].fetch_add(1, Ordering::SeqCst) + 1
    }

    /// It was acknowledged.
    pub(super) fn acknowledge(&self, number: u32, version: u32) {
        self.acknowledged[number as usize].store(version, Ordering::SeqCst);
    }

    /// To be taken before a read of the key.
    pub(super) fn before(&self, number: u32) -> u32 {
        self.acknowledged[number as usize].load(Ordering::SeqCst)
    }

    /// Judges what a read found, which began at `before`. What is wrong with it,
    /// if anything.
    pub(super) fn judge(
        &self,
        number: u32,
        before: u32,
        found: Option<&[u8]>,
    ) -> Result<(), String> {
        let after = self.begun[number as usize].load(Ordering::SeqCst);
        let wrong = |what: String| {
            let range = format!("versions {before} to {after} are possible");
            Err(format!(
                "key {number} ({}): {what}; {range}",
                String::from_utf8_lossy(&Self::key(number))
            ))
        };
        let Some(found) = found else {
            let may_be_absent =
                (before..=after).any(|version| self.value(number, version).is_none());
            return if may_be_absent { Ok(()) } else { wrong("it is not there".to_owned()) };
        };
        let Some(head) = found.first_chunk::<8>() else {
            return wrong(format!("a value of {} bytes", found.len()));
        };
        let version = u64::from_le_bytes(*head) as u32;
        if self.value(number, version).as_deref() != Some(found) {
            return wrong("its value was never written".to_owned());
        }
        if (before..=after).contains(&version) {
            Ok(())
        } else {
            wrong(format!("it has version {version}"))
        }
    }

    /// Bytes of the keys and values that are there now, when nobody writes.
    pub(super) fn live_bytes(&self) -> u64 {
        let live = (0..self.keys()).filter_map(|number| self.value(number, self.before(number)));
        live.map(|value| 24 + value.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_judged_by_what_may_be_there() {
        let model = Model::new(10, 100);
        assert_eq!(model.number(&Model::key(7)), Some(7));
        assert_eq!(model.number(&Model::key(10)), None);
        assert!(model.judge(3, 0, None).is_ok());
        let mut version = 0;
        while model.value(3, version).is_none() {
            version = model.begin(3);
            model.acknowledge(3, version);
        }
        let value = model.value(3, version).expect("a value");
        assert!(model.judge(3, version, Some(&value)).is_ok());
        assert!(model.judge(3, version, None).is_err());
        assert!(model.judge(4, 0, Some(&value)).is_err(), "another key's");
        let mut damaged = value.clone();
        damaged[50] ^= 1;
        assert!(model.judge(3, version, Some(&damaged)).is_err());
        // One that is begun may be there or not.
        let next = model.begin(3);
        assert!(model.judge(3, version, Some(&value)).is_ok());
        assert!(model.judge(3, version, model.value(3, next).as_deref()).is_ok());
        model.acknowledge(3, next);
        assert!(model.judge(3, next, Some(&value)).is_err(), "an old version");
        assert_eq!(value.len(), 100);
    }
}
