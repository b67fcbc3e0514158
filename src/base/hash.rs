//! The stable key hash: SipHash-1-3 with 128-bit output, keyed per database.
//!
//! The key is drawn when the database is created and kept in its identity
//! file, so that nobody outside can choose keys that all fall on one shard.
//! (J.-P. Aumasson, D. J. Bernstein: "SipHash: a fast short-input PRF", 2012;
//! 1-3 is the variant with one compression and three finalisation rounds.)

use siphasher::sip128::SipHasher13;

/// The hash of one key, computed once per operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHash {
    /// The low half: chooses the shard.
    pub(crate) route: u64,
    /// The high half: feeds the tables' filters.
    pub(crate) filter: u64,
}

/// Hashes keys for one database.
#[derive(Clone)]
pub(crate) struct KeyHasher {
    sip: SipHasher13,
}

impl KeyHasher {
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self { sip: SipHasher13::new_with_key(key) }
    }

    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        let hash = self.sip.hash(key);
        KeyHash { route: hash.h1, filter: hash.h2 }
    }
}

impl KeyHash {
    /// The shard out of `shards` that this key belongs to: the multiply-shift
    /// reduction of D. Lemire, "Fast Random Integer Generation in an
    /// Interval", 2019.
    pub(crate) fn shard(self, shards: usize) -> usize {
        ((u128::from(self.route) * shards as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash is on disk, in effect: it decides which shard holds a key.
    /// These answers, computed by another implementation, must never change.
    #[test]
    fn known_answers() {
        let hasher = KeyHasher::new(&std::array::from_fn(|i| i as u8));
        let empty = hasher.hash(b"");
        let key = hasher.hash(b"ourodb");
        assert_eq!((empty.route, empty.filter), (0xbea5_8827_b2bc_7ee7, 0x0130_30dd_6adb_62fd));
        assert_eq!((key.route, key.filter), (0x7e36_0a4f_ce59_a346, 0x2eb7_a78d_bc0a_3ab8));
    }

    #[test]
    fn shards_are_all_used() {
        let hasher = KeyHasher::new(&[7; 16]);
        let mut counts = [0; 5];
        for i in 0..5000u32 {
            counts[hasher.hash(&i.to_le_bytes()).shard(5)] += 1;
        }
        assert!(counts.iter().all(|&count| (800..1200).contains(&count)), "{counts:?}");
    }
}
