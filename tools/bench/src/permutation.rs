//! A bijection of 0..n that scatters neighbours, and the 64-bit mixer used
//! wherever this crate needs a hash.
//!
//! Keys are made from scattered record numbers, so that loading in record order
//! inserts in random key order and yet no key comes twice; zipfian ranks are
//! scattered over the records, so that hot records are not neighbours.

/// Mixes all bits of `x`: the finalizer of SplitMix64 (Steele, Lea, Flood: *Fast
/// splittable pseudorandom number generators*, OOPSLA 2014). A bijection.
#[must_use]
pub const fn mix64(x: u64) -> u64 {
    let x = x.wrapping_add(GOLDEN);
    let x = (x ^ (x >> 30)).wrapping_mul(MULTIPLIERS[0]);
    let x = (x ^ (x >> 27)).wrapping_mul(MULTIPLIERS[1]);
    x ^ (x >> 31)
}

/// 2^64 divided by the golden ratio: the step of SplitMix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Odd, so that they can be inverted modulo every power of two.
const MULTIPLIERS: [u64; 2] = [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];
const INVERSES: [u64; 2] = [inverse(MULTIPLIERS[0]), inverse(MULTIPLIERS[1])];

/// The inverse of an odd number modulo 2^64, by Newton's iteration: each step
/// doubles the number of right bits, and `odd` itself has three.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut step = 0;
    while step < 5 {
        x = x.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(x)));
        step += 1;
    }
    assert!(odd.wrapping_mul(x) == 1);
    x
}

/// A seeded bijection of `0..n` onto itself, in constant time and space.
///
/// The numbers below the next power of two are mixed by steps that can each be
/// undone; a result of `n` or more is mixed again until it falls below `n`
/// (cycle walking: Black and Rogaway, *Ciphers with arbitrary finite domains*,
/// CT-RSA 2002), which takes two rounds at most on average.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    n: u64,
    mask: u64,
    /// At least half of the bits: then `x ^ (x >> shift)` is its own inverse.
    shift: u32,
    salt: u64,
}

impl Permutation {
    /// The permutation of `0..n` that `seed` chooses. `n` is at least 1.
    #[must_use]
    pub fn new(n: u64, seed: u64) -> Self {
        assert!(n > 0, "there is no permutation of nothing");
        let bits = u64::BITS - (n - 1).leading_zeros();
        let mask = u64::MAX.checked_shr(u64::BITS - bits).unwrap_or(0);
        Self { n, mask, shift: bits.div_ceil(2), salt: mix64(seed) }
    }

    /// Where `x` goes. `x` is below n.
    #[must_use]
    pub fn apply(&self, mut x: u64) -> u64 {
        assert!(x < self.n, "{x} is outside of 0..{}", self.n);
        loop {
            x = x.wrapping_add(self.salt) & self.mask;
            for multiplier in MULTIPLIERS {
                x ^= x >> self.shift;
                x = x.wrapping_mul(multiplier) & self.mask;
            }
            x ^= x >> self.shift;
            if x < self.n {
                return x;
            }
        }
    }

    /// The number that [`Permutation::apply`] takes to `x`. `x` is below n.
    #[must_use]
    pub fn invert(&self, mut x: u64) -> u64 {
        assert!(x < self.n, "{x} is outside of 0..{}", self.n);
        loop {
            for multiplier in INVERSES.into_iter().rev() {
                x ^= x >> self.shift;
                x = x.wrapping_mul(multiplier) & self.mask;
            }
            x ^= x >> self.shift;
            x = x.wrapping_sub(self.salt) & self.mask;
            if x < self.n {
                return x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_domains_are_permuted_whole() {
        for n in (1..70).chain([255, 256, 257, 1000, 4096, 10_000]) {
            for seed in 0..3 {
                let permutation = Permutation::new(n, seed);
                let mut seen = vec![false; usize::try_from(n).unwrap()];
                for x in 0..n {
                    let y = permutation.apply(x);
                    assert!(!std::mem::replace(&mut seen[usize::try_from(y).unwrap()], true));
                    assert_eq!(permutation.invert(y), x);
                }
            }
        }
    }

    #[test]
    fn large_domains_invert() {
        for n in [1 << 40, 10_u64.pow(19), (1 << 63) + 1, u64::MAX] {
            let permutation = Permutation::new(n, 7);
            for i in 0..2000 {
                let x = mix64(i) % n;
                assert_eq!(permutation.invert(permutation.apply(x)), x);
            }
            assert_eq!(permutation.invert(permutation.apply(n - 1)), n - 1);
        }
    }

    /// Consecutive numbers land evenly: chi-square over 100 cells with 100,000
    /// numbers, against the 99.99 % quantile for 99 degrees of freedom (161).
    /// A scattering may well be more even than chance, never less.
    #[test]
    fn neighbours_are_scattered() {
        for n in [1_000_000_u64, 10_u64.pow(19)] {
            let permutation = Permutation::new(n, 3);
            let mut cells = [0_u32; 100];
            for x in 0..100_000 {
                let cell = u128::from(permutation.apply(x)) * 100 / u128::from(n);
                cells[usize::try_from(cell).unwrap()] += 1;
            }
            let chi_square: f64 =
                cells.iter().map(|count| (f64::from(*count) - 1000.0).powi(2) / 1000.0).sum();
            assert!(chi_square < 161.0, "n {n}: {chi_square}");
            let ascents =
                (0..100_000).filter(|x| permutation.apply(*x) < permutation.apply(x + 1)).count();
            assert!((48_000..52_000).contains(&ascents), "n {n}: {ascents}");
        }
    }

    #[test]
    fn the_seed_chooses_the_permutation() {
        let images = |seed| (0..50).map(move |x| Permutation::new(1 << 20, seed).apply(x));
        assert!(images(1).eq(images(1)));
        assert!(images(1).ne(images(2)));
    }
}
