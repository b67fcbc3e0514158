//! Which record an operation goes to: uniform, zipfian, latest, absent.

use crate::permutation::Permutation;

/// The skew that YCSB uses.
pub const THETA: f64 = 0.99;

/// Ranks 1 to n with probability proportional to 1 / rank^theta, exactly, in
/// constant time and space.
///
/// Rejection-inversion: W. Hörmann, G. Derflinger, *Rejection-inversion to
/// generate variates from monotone discrete distributions*, ACM TOMACS 6.3
/// (1996). YCSB's generator (Gray et al., *Quickly generating billion-record
/// synthetic databases*, SIGMOD 1994) approximates the same distribution, and
/// needs a sum over all ranks first.
#[derive(Clone, Copy, Debug)]
pub struct Zipfian {
    n: f64,
    theta: f64,
    /// The integral of the density from 1 to n + 1/2, and where rank 1 begins.
    integral_n: f64,
    integral_1: f64,
    /// A rank this little below the drawn point needs no closer look.
    squeeze: f64,
}

impl Zipfian {
    /// Ranks `1..=n`; `n` is at least 1, and theta is positive and not 1.
    #[must_use]
    pub fn new(n: u64, theta: f64) -> Self {
        assert!(n > 0 && theta > 0.0 && theta != 1.0, "no zipfian({n}, {theta})");
        let mut zipfian =
            Self { n: n as f64, theta, integral_n: 0.0, integral_1: 0.0, squeeze: 0.0 };
        zipfian.integral_n = zipfian.integral(zipfian.n + 0.5);
        zipfian.integral_1 = zipfian.integral(1.5) - 1.0;
        zipfian.squeeze =
            2.0 - zipfian.integral_inverse(zipfian.integral(2.5) - zipfian.density(2.0));
        zipfian
    }

    /// A rank, drawn with `rng`.
    #[must_use]
    pub fn sample(&self, rng: &mut fastrand::Rng) -> u64 {
        loop {
            let u = self.integral_n + rng.f64() * (self.integral_1 - self.integral_n);
            let x = self.integral_inverse(u);
            let rank = (x + 0.5).floor().clamp(1.0, self.n);
            if rank - x <= self.squeeze || u >= self.integral(rank + 0.5) - self.density(rank) {
                return rank as u64;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        x.powf(-self.theta)
    }

    fn integral(&self, x: f64) -> f64 {
        (x.powf(1.0 - self.theta) - 1.0) / (1.0 - self.theta)
    }

    fn integral_inverse(&self, y: f64) -> f64 {
        (1.0 + y * (1.0 - self.theta)).powf(1.0 / (1.0 - self.theta))
    }
}

/// The distributions on offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChoice {
    /// Every record alike.
    Uniform,
    /// Zipfian, and the popular records scattered over all of them.
    Zipfian,
    /// Zipfian over age: the record inserted last is the most popular.
    Latest,
    /// Keys that no record has, scattered among those that some have.
    Absent,
}

/// Draws records from one of the distributions.
#[derive(Clone, Copy, Debug)]
pub enum RecordChooser {
    /// See [`KeyChoice::Uniform`].
    Uniform {
        /// How many records there are.
        records: u64,
    },
    /// See [`KeyChoice::Zipfian`].
    Zipfian {
        /// Draws the rank.
        ranks: Zipfian,
        /// Which record has it.
        scatter: Permutation,
    },
    /// See [`KeyChoice::Latest`].
    Latest {
        /// Draws the age.
        ages: Zipfian,
        /// For how many records `ages` was made.
        records: u64,
    },
    /// See [`KeyChoice::Absent`].
    Absent {
        /// The lowest number drawn.
        first: u64,
        /// One above the highest.
        end: u64,
    },
}

impl RecordChooser {
    /// A chooser among `records` records, at least one, of a key space with
    /// room for `capacity`. `None` where every key is taken and an absent one
    /// was asked for. Databases of one `seed` have the same popular records.
    #[must_use]
    pub fn new(choice: KeyChoice, records: u64, capacity: u64, seed: u64) -> Option<Self> {
        Some(match choice {
            KeyChoice::Uniform => Self::Uniform { records },
            KeyChoice::Zipfian => Self::Zipfian {
                ranks: Zipfian::new(records, THETA),
                // Another seed than the keys' own scattering has.
                scatter: Permutation::new(records, !seed),
            },
            KeyChoice::Latest => Self::Latest { ages: Zipfian::new(records, THETA), records },
            // Well above what later runs insert, where there is room for it.
            KeyChoice::Absent => {
                Self::Absent { first: records.max(capacity / 2), end: capacity }.non_empty()?
            }
        })
    }

    fn non_empty(self) -> Option<Self> {
        match self {
            Self::Absent { first, end } if first >= end => None,
            chooser => Some(chooser),
        }
    }

    /// A record. `acknowledged` is the number of records that are there now,
    /// never less than at the start; only [`KeyChoice::Latest`] looks at it.
    #[must_use]
    pub fn sample(&mut self, rng: &mut fastrand::Rng, acknowledged: u64) -> u64 {
        match self {
            Self::Uniform { records } => rng.u64(0..*records),
            Self::Zipfian { ranks, scatter } => scatter.apply(ranks.sample(rng) - 1),
            Self::Latest { ages, records } => {
                // Following every single insert would cost more than it shows.
                if acknowledged - *records > *records >> 10 {
                    *records = acknowledged;
                    *ages = Zipfian::new(acknowledged, THETA);
                }
                acknowledged - ages.sample(rng)
            }
            Self::Absent { first, end } => rng.u64(*first..*end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chi-square of drawn ranks against 1 / rank^theta / sum. Ranks with fewer
    /// than 50 expected draws are pooled. Returns it as a multiple of its
    /// standard deviation above its mean.
    fn excess(n: u64, theta: f64, draws: u32, seed: u64) -> f64 {
        let zipfian = Zipfian::new(n, theta);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut counts = vec![0_u32; usize::try_from(n).unwrap()];
        for _ in 0..draws {
            counts[usize::try_from(zipfian.sample(&mut rng) - 1).unwrap()] += 1;
        }
        let weight = |rank: usize| (rank as f64).powf(-theta);
        let sum: f64 = (1..=counts.len()).map(weight).sum();
        let (mut chi_square, mut cells, mut pooled) = (0.0, 0.0, (0.0, 0.0));
        for (i, count) in counts.iter().enumerate() {
            pooled.0 += f64::from(draws) * weight(i + 1) / sum;
            pooled.1 += f64::from(*count);
            if pooled.0 >= 50.0 {
                chi_square += (pooled.1 - pooled.0) * (pooled.1 - pooled.0) / pooled.0;
                cells += 1.0;
                pooled = (0.0, 0.0);
            }
        }
        (chi_square - (cells - 1.0)) / (2.0 * (cells - 1.0_f64)).sqrt()
    }

    #[test]
    fn zipfian_frequencies_follow_the_formula() {
        for (n, theta) in [(2, 0.99), (10, 0.99), (1000, 0.99), (100_000, 0.99), (1000, 0.5)] {
            let excess = excess(n, theta, 400_000, 11);
            assert!(excess.abs() < 4.0, "n {n}, theta {theta}: {excess} standard deviations");
        }
        assert_eq!(Zipfian::new(1, THETA).sample(&mut fastrand::Rng::with_seed(1)), 1);
    }

    /// For a billion ranks the sum is taken by Euler and Maclaurin.
    #[test]
    fn the_first_ranks_of_a_billion_have_their_share() {
        let n = 1e9_f64;
        let head: f64 = (1..1000).map(|rank| f64::from(rank).powf(-THETA)).sum();
        let tail = (n.powf(1.0 - THETA) - 1000_f64.powf(1.0 - THETA)) / (1.0 - THETA)
            + (n.powf(-THETA) + 1000_f64.powf(-THETA)) / 2.0;
        let sum = head + tail;
        let zipfian = Zipfian::new(1_000_000_000, THETA);
        let mut rng = fastrand::Rng::with_seed(5);
        let draws = 1_000_000;
        let mut counts = [0_u32; 4];
        for _ in 0..draws {
            if let Some(count) = counts.get_mut(usize::try_from(zipfian.sample(&mut rng)).unwrap())
            {
                *count += 1;
            }
        }
        for rank in 1..=3_u32 {
            let expected = f64::from(draws) * f64::from(rank).powf(-THETA) / sum;
            let found = f64::from(counts[rank as usize]);
            assert!((found - expected).abs() < 4.0 * expected.sqrt(), "{rank}: {found} {expected}");
        }
        assert_eq!(counts[0], 0);
    }

    #[test]
    fn the_most_popular_records_are_scattered() {
        let mut chooser = RecordChooser::new(KeyChoice::Zipfian, 10_000, 1 << 40, 1).unwrap();
        let mut rng = fastrand::Rng::with_seed(2);
        let mut counts = vec![0_u32; 10_000];
        for _ in 0..200_000 {
            counts[usize::try_from(chooser.sample(&mut rng, 10_000)).unwrap()] += 1;
        }
        let mut order: Vec<_> = (0..10_000_usize).collect();
        order.sort_by_key(|record| std::cmp::Reverse(counts[*record]));
        let sum: f64 = (1..=10_000).map(|rank| f64::from(rank).powf(-THETA)).sum();
        let expected = 200_000.0 / sum;
        assert!((f64::from(counts[order[0]]) - expected).abs() < 5.0 * expected.sqrt());
        let near = order[..10].windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 100).count();
        assert!(near <= 1, "{:?}", &order[..10]);
    }

    #[test]
    fn latest_prefers_the_newest_and_follows_inserts() {
        let mut chooser = RecordChooser::new(KeyChoice::Latest, 1000, 1 << 40, 1).unwrap();
        let mut rng = fastrand::Rng::with_seed(3);
        for acknowledged in [1000, 1001, 1500, 100_000] {
            let mut newest = 0;
            for _ in 0..20_000 {
                let record = chooser.sample(&mut rng, acknowledged);
                assert!(record < acknowledged);
                newest += u32::from(record == acknowledged - 1);
            }
            let sum: f64 = (1..=u32::try_from(acknowledged).unwrap())
                .map(|rank| f64::from(rank).powf(-THETA))
                .sum();
            let expected = 20_000.0 / sum;
            assert!((f64::from(newest) - expected).abs() < 5.0 * expected.sqrt(), "{newest}");
        }
    }

    #[test]
    fn absent_records_are_never_those_that_are_there() {
        let mut rng = fastrand::Rng::with_seed(4);
        for (records, capacity) in [(10, 10_000), (9_999, 10_000), (1_000_000, 10_u64.pow(19))] {
            let mut chooser = RecordChooser::new(KeyChoice::Absent, records, capacity, 1).unwrap();
            for _ in 0..1000 {
                let record = chooser.sample(&mut rng, records);
                assert!((records..capacity).contains(&record));
            }
        }
        assert!(RecordChooser::new(KeyChoice::Absent, 10_000, 10_000, 1).is_none());
    }

    #[test]
    fn uniform_reaches_every_record_alike() {
        let mut chooser = RecordChooser::new(KeyChoice::Uniform, 100, 1000, 1).unwrap();
        let mut rng = fastrand::Rng::with_seed(6);
        let mut counts = [0_u32; 100];
        for _ in 0..100_000 {
            counts[usize::try_from(chooser.sample(&mut rng, 100)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
