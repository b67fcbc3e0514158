//! What a workload is: how its operations are mixed and which records they go
//! to.

use clap::ValueEnum;
use serde::Serialize;

use crate::distribution::KeyChoice;

/// A kind of operation. Each has its own row in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpKind {
    /// A get.
    Read,
    /// A put over a record that is there.
    Update,
    /// A put of a new record.
    Insert,
    /// A short scan from a record's key on.
    Scan,
    /// A get, then a put of the same record.
    ReadModifyWrite,
}

impl OpKind {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 5] =
        [Self::Read, Self::Update, Self::Insert, Self::Scan, Self::ReadModifyWrite];

    /// The name in tables and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Update => "update",
            Self::Insert => "insert",
            Self::Scan => "scan",
            Self::ReadModifyWrite => "read_modify_write",
        }
    }

    /// Whether it puts a value.
    #[must_use]
    pub fn puts(self) -> bool {
        matches!(self, Self::Update | Self::Insert | Self::ReadModifyWrite)
    }

    /// Whether it gets a value by its key.
    #[must_use]
    pub fn gets(self) -> bool {
        matches!(self, Self::Read | Self::ReadModifyWrite)
    }
}

/// A client's operations: per cent of each kind, and how records are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Per cent, in the order of [`OpKind::ALL`]; 100 together.
    shares: [u8; 5],
    choice: KeyChoice,
}

impl Mix {
    /// Nothing but inserts: the mix of a load.
    pub const LOAD: Self = Self::new([0, 0, 100, 0, 0], KeyChoice::Uniform);

    const fn new(shares: [u8; 5], choice: KeyChoice) -> Self {
        assert!(shares[0] + shares[1] + shares[2] + shares[3] + shares[4] == 100);
        Self { shares, choice }
    }

    /// The kind of the next operation, drawn with `rng`.
    #[must_use]
    pub fn sample(&self, rng: &mut fastrand::Rng) -> OpKind {
        let mut point = rng.u8(0..100);
        for (kind, share) in OpKind::ALL.into_iter().zip(self.shares) {
            if point < share {
                return kind;
            }
            point -= share;
        }
        unreachable!("the shares are 100 together")
    }

    /// The kinds that occur.
    pub fn kinds(&self) -> impl Iterator<Item = OpKind> {
        OpKind::ALL.into_iter().zip(self.shares).filter(|(_, share)| *share > 0).map(|(k, _)| k)
    }

    /// How records are chosen.
    #[must_use]
    pub fn choice(&self) -> KeyChoice {
        self.choice
    }
}

/// The workloads on offer: YCSB's core workloads (Cooper et al., *Benchmarking
/// cloud serving systems with YCSB*, SoCC 2010), and single operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// YCSB A: 50 % reads, 50 % updates, zipfian
    A,
    /// YCSB B: 95 % reads, 5 % updates, zipfian
    B,
    /// YCSB C: reads only, zipfian
    C,
    /// YCSB D: 95 % reads of the latest records, 5 % inserts
    D,
    /// YCSB E: 95 % scans of 1 to 100 rows, zipfian, 5 % inserts
    E,
    /// YCSB F: 50 % reads, 50 % read-modify-writes, zipfian
    F,
    /// Gets of records, uniform
    GetUniform,
    /// Gets of records, zipfian
    GetZipfian,
    /// Gets of keys that are not there
    GetAbsent,
    /// Scans of 1 to 100 rows from a record's key on, uniform
    Scan,
    /// Updates of records, uniform
    Update,
    /// Gets, uniform, by --clients clients, beside one more that updates as fast as it can
    ReadWhileWriting,
}

impl Workload {
    /// What each of the clients does.
    #[must_use]
    pub const fn mix(self) -> Mix {
        use KeyChoice::{Absent, Latest, Uniform, Zipfian};
        match self {
            Self::A => Mix::new([50, 50, 0, 0, 0], Zipfian),
            Self::B => Mix::new([95, 5, 0, 0, 0], Zipfian),
            Self::C | Self::GetZipfian => Mix::new([100, 0, 0, 0, 0], Zipfian),
            Self::D => Mix::new([95, 0, 5, 0, 0], Latest),
            Self::E => Mix::new([0, 0, 5, 95, 0], Zipfian),
            Self::F => Mix::new([50, 0, 0, 0, 50], Zipfian),
            Self::GetUniform | Self::ReadWhileWriting => Mix::new([100, 0, 0, 0, 0], Uniform),
            Self::GetAbsent => Mix::new([100, 0, 0, 0, 0], Absent),
            Self::Scan => Mix::new([0, 0, 0, 100, 0], Uniform),
            Self::Update => Mix::new([0, 100, 0, 0, 0], Uniform),
        }
    }

    /// What one more client does beside them, or with clients on owners one more
    /// on each, never throttled.
    #[must_use]
    pub const fn background(self) -> Option<Mix> {
        match self {
            Self::ReadWhileWriting => Some(Self::Update.mix()),
            _ => None,
        }
    }

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it does, in words.
    #[must_use]
    pub fn description(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the paper (and of `workloads/workload[a-f]` in YCSB).
    #[test]
    fn ycsb_mixes_have_their_proportions() {
        use Workload::{A, B, C, D, E, F};
        let table = [
            (A, [0.5, 0.5, 0.0, 0.0, 0.0], KeyChoice::Zipfian),
            (B, [0.95, 0.05, 0.0, 0.0, 0.0], KeyChoice::Zipfian),
            (C, [1.0, 0.0, 0.0, 0.0, 0.0], KeyChoice::Zipfian),
            (D, [0.95, 0.0, 0.05, 0.0, 0.0], KeyChoice::Latest),
            (E, [0.0, 0.0, 0.05, 0.95, 0.0], KeyChoice::Zipfian),
            (F, [0.5, 0.0, 0.0, 0.0, 0.5], KeyChoice::Zipfian),
        ];
        for (workload, expected, choice) in table {
            let mix = workload.mix();
            assert_eq!(mix.choice(), choice);
            let mut rng = fastrand::Rng::with_seed(8);
            let mut counts = [0_u32; 5];
            for _ in 0..100_000 {
                counts[mix.sample(&mut rng) as usize] += 1;
            }
            for (count, share) in counts.into_iter().zip(expected) {
                let sigma = (100_000.0_f64 * share * (1.0 - share)).sqrt();
                let difference = f64::from(count) - 100_000.0 * share;
                assert!(difference.abs() <= 4.0 * sigma, "{workload:?}: {counts:?}");
            }
            let kinds: Vec<_> = mix.kinds().collect();
            assert!(OpKind::ALL.iter().all(|k| kinds.contains(k) == (counts[*k as usize] > 0)));
        }
    }

    #[test]
    fn every_workload_has_a_name_and_a_description() {
        for workload in Workload::value_variants() {
            assert!(!workload.name().is_empty() && !workload.description().is_empty());
            assert_eq!(
                serde_json::to_value(workload).unwrap(),
                serde_json::Value::String(workload.name())
            );
        }
    }

    #[test]
    fn only_read_while_writing_has_a_background_client() {
        for workload in Workload::value_variants() {
            let expected = (*workload == Workload::ReadWhileWriting).then_some(Workload::Update);
            assert_eq!(workload.background(), expected.map(Workload::mix));
        }
    }
}
