//! The simulator's randomness: small, and the same for ever.
//!
//! A replayed seed must take the same decisions in every later version of
//! every dependency, so the generator is part of this crate. It is
//! xoshiro256** seeded through SplitMix64 (D. Blackman, S. Vigna: "Scrambled
//! Linear Pseudorandom Number Generators", 2018; G. Steele, D. Lea, C. Flood:
//! "Fast Splittable Pseudorandom Number Generators", 2014).

use crate::base::checksum::Seed;

/// A xoshiro256** generator.
pub(super) struct Rng([u64; 4]);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        }))
    }

    pub(super) fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`, which is not zero. (The bias of the
    /// multiply-shift reduction does not matter here.)
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below zero");
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Like [`Rng::below`], for indexes.
    pub(super) fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    pub(super) fn flip(&mut self) -> bool {
        self.below(2) == 0
    }

    /// True with this many chances in a million. Draws nothing when it cannot
    /// be true.
    pub(super) fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    /// Puts the elements into a random order (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, elements: &mut [T]) {
        for i in (1..elements.len()).rev() {
            elements.swap(i, self.index(i + 1));
        }
    }
}

/// The output function of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A running hash over everything the simulator decided.
pub(super) struct Trace(u64);

impl Trace {
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    pub(super) fn fold(&mut self, words: &[u64]) {
        for word in words {
            self.0 = mix(self.0.rotate_left(7) ^ word);
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.0
    }

    /// An identifier of this moment, without drawing from anybody's numbers.
    pub(super) fn id(&self) -> [u8; 16] {
        let mut rng = Rng::new(self.0);
        let id = u128::from(rng.next()) << 64 | u128::from(rng.next());
        id.to_le_bytes()
    }
}

/// Bytes as a word of the trace.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    u64::from(Seed::of(b"").checksum(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with the authors' public reference code. Replays of recorded
    /// seeds depend on these answers.
    #[test]
    fn known_answers() {
        let mut rng = Rng([1, 2, 3, 4]);
        let drawn: [u64; 5] = std::array::from_fn(|_| rng.next());
        let expected =
            [11520, 0, 1_509_978_240, 1_215_971_899_390_074_240, 1_216_172_134_540_287_360];
        assert_eq!(drawn, expected);
        assert_eq!(Rng::new(0).0[..2], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn bounds_and_chances_hold() {
        let mut rng = Rng::new(7);
        let mut seen = [0; 5];
        for _ in 0..5000 {
            seen[rng.index(5)] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
        assert!((0..1000).all(|_| !rng.chance(0) && rng.chance(1_000_000)));
        let mut deck: Vec<u32> = (0..100).collect();
        rng.shuffle(&mut deck);
        assert!(!deck.is_sorted());
        deck.sort_unstable();
        assert!(deck.iter().copied().eq(0..100));
    }
}
