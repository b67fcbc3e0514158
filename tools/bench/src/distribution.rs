//! Which record an operation goes to.

use std::fmt;
use std::str::FromStr;

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
    /// Ranks `1..=n`; `n` is at least 1, and theta is positive.
    #[must_use]
    pub fn new(n: u64, theta: f64) -> Self {
        assert!(n > 0 && theta > 0.0, "no zipfian({n}, {theta})");
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
        match self.is_harmonic() {
            true => x.ln(),
            false => (x.powf(1.0 - self.theta) - 1.0) / (1.0 - self.theta),
        }
    }

    fn integral_inverse(&self, y: f64) -> f64 {
        match self.is_harmonic() {
            true => y.exp(),
            false => (1.0 + y * (1.0 - self.theta)).powf(1.0 / (1.0 - self.theta)),
        }
    }

    /// Whether theta is so close to 1 that the other formula would be lost in rounding.
    fn is_harmonic(&self) -> bool {
        (1.0 - self.theta).abs() < 1e-7
    }
}

/// The distributions on offer, as `--distribution` has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeyChoice {
    /// `uniform`: every record alike.
    Uniform,
    /// `zipfian:0.99`: zipfian, and the popular records scattered over all of them.
    Zipfian {
        /// The skew.
        theta: f64,
    },
    /// `scrambled:0.99`: what YCSB's workloads get when they ask for `zipfian`, its
    /// *scrambled zipfian*. Ranks are drawn of ten billion, however many records there are,
    /// and hashed to records. It is less skewed than `zipfian`: of a million records the most
    /// popular gets 3.8 % of the operations, and not 6.5 %.
    Scrambled {
        /// The skew.
        theta: f64,
    },
    /// `ranked:0.99`: zipfian over the numbers of records: what was loaded first is the most
    /// popular.
    Ranked {
        /// The skew.
        theta: f64,
    },
    /// `latest`: zipfian over age: the record inserted last is the most popular.
    Latest,
    /// `hotspot:0.2,0.8`: a share of the records gets a share of the operations, and all others
    /// the rest, both uniform. Those that are hot are scattered over all.
    Hotspot {
        /// The share of the records.
        records: f64,
        /// The share of the operations.
        operations: f64,
    },
    /// `exponential:0.95,0.857`: over age, so that a share of the operations goes to a share of
    /// the records, those inserted last.
    Exponential {
        /// The share of the operations.
        operations: f64,
        /// The share of the records.
        records: f64,
    },
    /// `sequential`: one record after the other, in the order of their numbers; each client
    /// begins at another.
    Sequential,
    /// `absent`: keys that no record has, scattered among those that some have.
    Absent,
}

impl FromStr for KeyChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is no distribution: there are uniform, zipfian (zipfian:0.9), scrambled, \
                 ranked, latest, hotspot:0.2,0.8 (of the records, of the operations), exponential:0.95,0.857 \
                 (of the operations, of the records), sequential and absent"
            )
        };
        let (name, numbers) = text.split_once(':').unwrap_or((text, ""));
        let given = numbers.split(',').filter(|number| !number.is_empty());
        let given: Option<Vec<f64>> = given.map(|number| number.trim().parse().ok()).collect();
        let given = given.ok_or_else(wrong)?;
        let theta = || match given[..] {
            [] => Ok(THETA),
            [theta] if theta > 0.0 && theta <= 10.0 => Ok(theta),
            [_] => Err("the skew of zipfian is above 0, and at most 10".to_owned()),
            _ => Err(wrong()),
        };
        let shares = |default: (f64, f64)| match given[..] {
            [] => Ok(default),
            [one, other] if [one, other].iter().all(|share| *share > 0.0 && *share < 1.0) => {
                Ok((one, other))
            }
            [_, _] => Err(format!("the shares of {name} are above 0 and below 1")),
            _ => Err(wrong()),
        };
        let plain = |choice| if text == name { Ok(choice) } else { Err(wrong()) };
        match name {
            "uniform" => plain(Self::Uniform),
            "latest" => plain(Self::Latest),
            "sequential" => plain(Self::Sequential),
            "absent" => plain(Self::Absent),
            "zipfian" => Ok(Self::Zipfian { theta: theta()? }),
            "scrambled" => Ok(Self::Scrambled { theta: theta()? }),
            "ranked" => Ok(Self::Ranked { theta: theta()? }),
            "hotspot" => {
                let (records, operations) = shares((0.2, 0.8))?;
                Ok(Self::Hotspot { records, operations })
            }
            "exponential" => {
                let (operations, records) = shares((0.95, 0.857_142_857_1))?;
                Ok(Self::Exponential { operations, records })
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for KeyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipfian { theta } => write!(f, "zipfian:{theta}"),
            Self::Scrambled { theta } => write!(f, "scrambled:{theta}"),
            Self::Ranked { theta } => write!(f, "ranked:{theta}"),
            Self::Latest => f.write_str("latest"),
            Self::Hotspot { records, operations } => write!(f, "hotspot:{records},{operations}"),
            Self::Exponential { operations, records } => {
                write!(f, "exponential:{operations},{records}")
            }
            Self::Sequential => f.write_str("sequential"),
            Self::Absent => f.write_str("absent"),
        }
    }
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
    /// See [`KeyChoice::Scrambled`].
    Scrambled {
        /// Draws what is hashed.
        ranks: Zipfian,
        /// The records that there are to be: those that are not there yet are not drawn.
        expected: u64,
    },
    /// See [`KeyChoice::Ranked`].
    Ranked {
        /// Draws the record.
        ranks: Zipfian,
    },
    /// See [`KeyChoice::Latest`].
    Latest {
        /// Draws the age.
        ages: Zipfian,
        /// For how many records `ages` was made.
        records: u64,
    },
    /// See [`KeyChoice::Hotspot`].
    Hotspot {
        /// How many records there are.
        records: u64,
        /// How many of them are hot.
        hot: u64,
        /// The share of the operations that goes to those.
        operations: f64,
        /// Which they are.
        scatter: Permutation,
    },
    /// See [`KeyChoice::Exponential`].
    Exponential {
        /// The mean age, as a share of all records.
        mean: f64,
        /// The share of the distribution that is younger than the oldest record.
        within: f64,
    },
    /// See [`KeyChoice::Sequential`].
    Sequential {
        /// How many records there are.
        records: u64,
        /// The next one, once the first was drawn.
        next: Option<u64>,
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
    /// `inserts` says whether there will be more records.
    #[must_use]
    pub fn new(
        choice: KeyChoice,
        records: u64,
        inserts: bool,
        capacity: u64,
        seed: u64,
    ) -> Option<Self> {
        // Another seed than the keys' own scattering has.
        let scatter = || Permutation::new(records, !seed);
        Some(match choice {
            KeyChoice::Uniform => Self::Uniform { records },
            KeyChoice::Zipfian { theta } => {
                Self::Zipfian { ranks: Zipfian::new(records, theta), scatter: scatter() }
            }
            KeyChoice::Scrambled { theta } => {
                // What YCSB expects where it is asked for as many operations as records.
                let expected = if inserts { records + records.div_ceil(10) } else { records };
                let expected = expected.min(capacity).max(records);
                Self::Scrambled { ranks: Zipfian::new(SCRAMBLED_RANKS, theta), expected }
            }
            KeyChoice::Ranked { theta } => Self::Ranked { ranks: Zipfian::new(records, theta) },
            KeyChoice::Latest => Self::Latest { ages: Zipfian::new(records, THETA), records },
            KeyChoice::Hotspot { records: share, operations } => {
                let hot = ((records as f64 * share) as u64).clamp(1, records);
                Self::Hotspot { records, hot, operations, scatter: scatter() }
            }
            KeyChoice::Exponential { operations, records: share } => {
                let mean = -share / (1.0 - operations).ln();
                Self::Exponential { mean, within: -(-1.0 / mean).exp_m1() }
            }
            KeyChoice::Sequential => Self::Sequential { records, next: None },
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
    /// never less than at the start; only distributions over age look at it.
    #[must_use]
    pub fn sample(&mut self, rng: &mut fastrand::Rng, acknowledged: u64) -> u64 {
        match self {
            Self::Uniform { records } => rng.u64(0..*records),
            Self::Zipfian { ranks, scatter } => scatter.apply(ranks.sample(rng) - 1),
            Self::Scrambled { ranks, expected } => loop {
                let record = scramble(ranks.sample(rng) - 1) % *expected;
                if record < acknowledged {
                    return record;
                }
            },
            Self::Ranked { ranks } => ranks.sample(rng) - 1,
            Self::Latest { ages, records } => {
                // Following every single insert would cost more than it shows.
                if acknowledged - *records > *records >> 10 {
                    *records = acknowledged;
                    *ages = Zipfian::new(acknowledged, THETA);
                }
                acknowledged - ages.sample(rng)
            }
            Self::Hotspot { records, hot, operations, scatter } => {
                let is_hot = *hot == *records || rng.f64() < *operations;
                scatter.apply(if is_hot { rng.u64(0..*hot) } else { rng.u64(*hot..*records) })
            }
            Self::Exponential { mean, within } => {
                // Nothing is drawn of the tail beyond the oldest record.
                let age = -*mean * (-rng.f64() * *within).ln_1p();
                let older = (age * acknowledged as f64) as u64;
                acknowledged - 1 - older.min(acknowledged - 1)
            }
            Self::Sequential { records, next } => {
                let record = next.unwrap_or_else(|| rng.u64(0..*records));
                *next = Some((record + 1) % *records);
                record
            }
            Self::Absent { first, end } => rng.u64(*first..*end),
        }
    }
}

/// The ranks of YCSB's scrambled zipfian.
const SCRAMBLED_RANKS: u64 = 10_000_000_000;

/// Where YCSB has a rank: 64-bit FNV-1a of its bytes, lowest first, as a number without its
/// sign (G. Fowler, L. C. Noll, K.-P. Vo).
fn scramble(rank: u64) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    (rank.to_le_bytes().into_iter().fold(BASIS, step) as i64).unsigned_abs()
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
        for (n, theta) in [
            (2, 0.99),
            (10, 0.99),
            (1000, 0.99),
            (100_000, 0.99),
            (1000, 0.5),
            (1000, 1.0),
            (1000, 1.0 + 1e-6),
        ] {
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
        let mut chooser =
            RecordChooser::new(KeyChoice::Zipfian { theta: THETA }, 10_000, false, 1 << 40, 1)
                .unwrap();
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

    /// The sum of 1 / rank^0.99 over ten billion ranks is YCSB's constant ZETAN.
    #[test]
    fn scrambled_is_as_ycsb_has_it() {
        // FNV-1a of eight zero bytes, and of a one and seven zeroes, without the sign.
        assert_eq!(
            (scramble(0), scramble(1)),
            (6_284_781_860_667_377_211, 8_517_097_267_634_966_620)
        );
        let choice = KeyChoice::Scrambled { theta: THETA };
        let records = 1_000_000;
        for (rank, zetan_share) in [(0, 1.0), (1, 2_f64.powf(-THETA))] {
            let popular = scramble(rank) % records;
            let found = share(choice, records, |record| record == popular);
            let expected = zetan_share / 26.469_028_201_783_02;
            assert!((found - expected).abs() < 0.003, "{found} {expected}");
        }
    }

    /// Of the records to come none is drawn before it is there, and then it is.
    #[test]
    fn scrambled_reaches_records_that_are_inserted() {
        let choice = KeyChoice::Scrambled { theta: THETA };
        let mut chooser = RecordChooser::new(choice, 1000, true, 1 << 40, 1).unwrap();
        let mut rng = fastrand::Rng::with_seed(7);
        for acknowledged in [1000, 1050, 1100, 5000] {
            let drawn: Vec<u64> =
                (0..20_000).map(|_| chooser.sample(&mut rng, acknowledged)).collect();
            assert!(drawn.iter().all(|record| *record < acknowledged.min(1100)));
            let newer = drawn.iter().filter(|record| **record >= 1000).count();
            assert_eq!(newer > 0, acknowledged > 1000, "{newer}");
        }
    }

    #[test]
    fn latest_prefers_the_newest_and_follows_inserts() {
        let mut chooser = RecordChooser::new(KeyChoice::Latest, 1000, false, 1 << 40, 1).unwrap();
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
            let mut chooser =
                RecordChooser::new(KeyChoice::Absent, records, false, capacity, 1).unwrap();
            for _ in 0..1000 {
                let record = chooser.sample(&mut rng, records);
                assert!((records..capacity).contains(&record));
            }
        }
        assert!(RecordChooser::new(KeyChoice::Absent, 10_000, false, 10_000, 1).is_none());
    }

    #[test]
    fn uniform_reaches_every_record_alike() {
        let mut chooser = RecordChooser::new(KeyChoice::Uniform, 100, false, 1000, 1).unwrap();
        let mut rng = fastrand::Rng::with_seed(6);
        let mut counts = [0_u32; 100];
        for _ in 0..100_000 {
            counts[usize::try_from(chooser.sample(&mut rng, 100)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    /// How many of `draws` records fulfil a condition.
    fn share(choice: KeyChoice, records: u64, wanted: impl Fn(u64) -> bool) -> f64 {
        let mut chooser = RecordChooser::new(choice, records, false, 1 << 40, 1).unwrap();
        let mut rng = fastrand::Rng::with_seed(9);
        let draws = 100_000;
        let found = (0..draws).filter(|_| {
            let record = chooser.sample(&mut rng, records);
            assert!(record < records);
            wanted(record)
        });
        found.count() as f64 / f64::from(draws)
    }

    #[test]
    fn a_hot_spot_gets_its_share() {
        let scatter = Permutation::new(10_000, !1);
        let hot: std::collections::HashSet<u64> = (0..1000).map(|at| scatter.apply(at)).collect();
        let choice = KeyChoice::Hotspot { records: 0.1, operations: 0.75 };
        let found = share(choice, 10_000, |record| hot.contains(&record));
        assert!((found - 0.75).abs() < 0.006, "{found}");
        assert_eq!(share(choice, 1, |record| record == 0), 1.0);
    }

    /// The tail that is drawn again makes it a little more.
    #[test]
    fn an_exponential_distribution_has_its_percentile() {
        let choice = KeyChoice::Exponential { operations: 0.95, records: 0.3 };
        let found = share(choice, 10_000, |record| record >= 7000);
        let mean = -0.3 / 0.05_f64.ln();
        let expected = 0.95 / (1.0 - (-1.0 / mean).exp());
        assert!((found - expected).abs() < 0.004, "{found} {expected}");
        let newest = share(choice, 10_000, |record| record >= 9500);
        let expected = (1.0 - (-0.05 / mean).exp()) / (1.0 - (-1.0 / mean).exp());
        assert!((newest - expected).abs() < 0.007, "{newest} {expected}");
    }

    #[test]
    fn ranks_are_the_numbers_of_records() {
        let sum: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-0.7)).sum();
        let found = share(KeyChoice::Ranked { theta: 0.7 }, 1000, |record| record == 0);
        assert!((found - 1.0 / sum).abs() < 0.003, "{found}");
    }

    #[test]
    fn a_sequence_goes_round() {
        let mut chooser = RecordChooser::new(KeyChoice::Sequential, 7, false, 10, 1).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let first = chooser.sample(&mut rng, 7);
        for i in 1..20 {
            assert_eq!(chooser.sample(&mut rng, 7), (first + i) % 7);
        }
    }

    #[test]
    fn distributions_are_read_and_written() {
        for text in [
            "uniform",
            "zipfian:0.5",
            "zipfian:1",
            "scrambled:0.99",
            "ranked:1.2",
            "latest",
            "hotspot:0.2,0.8",
            "exponential:0.9,0.1",
            "sequential",
            "absent",
        ] {
            assert_eq!(text.parse::<KeyChoice>().unwrap().to_string(), text);
        }
        assert_eq!("zipfian".parse(), Ok(KeyChoice::Zipfian { theta: THETA }));
        assert!(
            "hotspot".parse::<KeyChoice>().is_ok() && "exponential".parse::<KeyChoice>().is_ok()
        );
        for text in [
            "",
            "normal",
            "uniform:1",
            "zipfian:0",
            "scrambled:11",
            "zipfian:-1",
            "zipfian:x",
            "zipfian:0.5,0.5",
            "hotspot:0.2",
            "hotspot:0,1",
            "exponential:0.9,1.0",
            "latest:",
        ] {
            assert!(text.parse::<KeyChoice>().is_err(), "{text}");
        }
    }
}
