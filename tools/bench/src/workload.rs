//! What a workload is: how its operations are mixed and which records they go
//! to.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::{EnumValueParser, PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::distribution::{KeyChoice, THETA};
use crate::table::counted;
use crate::trace::Trace;

/// A kind of operation. Each has its own row in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpKind {
    /// A get.
    Read,
    /// A put over a record that is there, or was deleted.
    Update,
    /// A put of a new record.
    Insert,
    /// A short scan from a record's key on.
    Scan,
    /// A get, then a put of the same record.
    ReadModifyWrite,
    /// A delete of one key.
    Delete,
    /// A delete of all keys of a short range.
    DeleteRange,
    /// Gets of several keys at once.
    MultiGet,
}

impl OpKind {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 8] = [
        Self::Read,
        Self::Update,
        Self::Insert,
        Self::Scan,
        Self::ReadModifyWrite,
        Self::Delete,
        Self::DeleteRange,
        Self::MultiGet,
    ];

    /// The name in tables and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Update => "update",
            Self::Insert => "insert",
            Self::Scan => "scan",
            Self::ReadModifyWrite => "read_modify_write",
            Self::Delete => "delete",
            Self::DeleteRange => "delete_range",
            Self::MultiGet => "multi_get",
        }
    }

    /// Whether it puts a value.
    #[must_use]
    pub fn puts(self) -> bool {
        matches!(self, Self::Update | Self::Insert | Self::ReadModifyWrite)
    }

    /// Whether it gets one value by its key.
    #[must_use]
    pub fn gets(self) -> bool {
        matches!(self, Self::Read | Self::ReadModifyWrite)
    }

    /// Whether it reads several values.
    #[must_use]
    pub fn reads_many(self) -> bool {
        matches!(self, Self::Scan | Self::MultiGet)
    }

    /// Whether it removes what a load put there.
    #[must_use]
    pub fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::DeleteRange)
    }
}

/// A client's operations: how often each kind, and how records are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// Parts of [`WHOLE`], in the order of [`OpKind::ALL`].
    shares: [u32; OpKind::ALL.len()],
    choice: KeyChoice,
    scan_rows_max: u32,
    multi_get_keys: u32,
    delete_range_rows: u32,
}

/// All of a mix: a hundredth of a percent is told apart.
const WHOLE: u32 = 10_000;

impl Mix {
    /// Nothing but inserts: the mix of a load.
    pub const LOAD: Self = Self::new(&[(OpKind::Insert, 100)], KeyChoice::Uniform);

    const fn new(percent: &[(OpKind, u32)], choice: KeyChoice) -> Self {
        let mut shares = [0; OpKind::ALL.len()];
        let (mut at, mut sum) = (0, 0);
        while at < percent.len() {
            let (kind, share) = percent[at];
            shares[kind as usize] += share * (WHOLE / 100);
            sum += share;
            at += 1;
        }
        assert!(sum == 100);
        Self { shares, choice, scan_rows_max: 100, multi_get_keys: 16, delete_range_rows: 20 }
    }

    /// The kind of the next operation, drawn with `rng`.
    #[must_use]
    pub fn sample(&self, rng: &mut fastrand::Rng) -> OpKind {
        let mut point = rng.u32(0..WHOLE);
        for (kind, share) in OpKind::ALL.into_iter().zip(self.shares) {
            if point < share {
                return kind;
            }
            point -= share;
        }
        unreachable!("the shares are all of it together")
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

    /// A scan asks for 1 to this many rows, all alike, as in YCSB E.
    #[must_use]
    pub fn scan_rows_max(&self) -> usize {
        self.scan_rows_max as usize
    }

    /// Keys that are read at once.
    #[must_use]
    pub fn multi_get_keys(&self) -> usize {
        self.multi_get_keys as usize
    }

    /// A deleted range has 1 to this many records, all alike, as far as they are there.
    #[must_use]
    pub fn delete_range_rows(&self) -> u64 {
        u64::from(self.delete_range_rows)
    }

    /// By how many percent each kind occurs.
    #[must_use]
    pub fn percent(&self) -> std::collections::BTreeMap<OpKind, f64> {
        let percent = |share| f64::from(share) * 100.0 / f64::from(WHOLE);
        let all = OpKind::ALL.into_iter().zip(self.shares);
        all.filter(|(_, share)| *share > 0).map(|(kind, share)| (kind, percent(share))).collect()
    }
}

/// What the clients of a run do.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// As on the command line; of a file, what it says.
    pub name: String,
    /// In words.
    pub description: String,
    /// What each of the clients does.
    pub mix: Mix,
    /// What one more client does beside them, or with clients on owners one more on each,
    /// never throttled.
    pub background: Option<Mix>,
    /// It is about values of at least so many bytes.
    pub value_bytes_min: usize,
    /// What is done, if that was recorded; then `mix` only says how often.
    pub trace: Option<Arc<Trace>>,
    /// Where that was read, if not from the command line.
    pub file: Option<PathBuf>,
}

impl Workload {
    /// Whether an operation of this kind occurs.
    #[must_use]
    pub fn has(&self, wanted: impl Fn(OpKind) -> bool) -> bool {
        std::iter::once(&self.mix).chain(&self.background).any(|mix| mix.kinds().any(&wanted))
    }

    /// The most rows that a scan of it may return.
    #[must_use]
    pub fn scan_rows_max(&self) -> usize {
        let mixes = std::iter::once(&self.mix).chain(&self.background);
        mixes.map(Mix::scan_rows_max).max().unwrap_or_default()
    }

    /// The same, with records chosen in another way.
    #[must_use]
    pub fn with_choice(mut self, choice: Option<KeyChoice>) -> Self {
        if let Some(choice) = choice {
            self.mix.choice = choice;
            self.description += &format!(" (--distribution {choice})");
        }
        self
    }

    /// Refuses writes where records are to be absent: none may come.
    ///
    /// # Errors
    /// What cannot be, in words.
    pub fn check(&self) -> Result<(), String> {
        let writes = |kind: OpKind| kind.puts() || kind.deletes();
        match self.mix.choice {
            KeyChoice::Absent if self.has(writes) => Err(format!(
                "the workload {} writes, and with the distribution absent there are none of the \
                 records that it chooses, and none may come",
                self.name
            )),
            _ => Ok(()),
        }
    }

    /// What a trace says.
    fn from_trace(path: &Path) -> Result<Self, String> {
        let trace = Trace::read(path)?;
        let mut counts = [0; OpKind::ALL.len()];
        trace.kinds().for_each(|kind| counts[kind as usize] += 1_u64);
        let ops = trace.ops() as u64;
        // Rounded up, so that what occurs does.
        let shares = counts.map(|count| (count * u64::from(WHOLE)).div_ceil(ops) as u32);
        let seconds = trace.last_ns() as f64 / 1e9;
        Ok(Self {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            description: format!("a trace of {} in {seconds:.1} s", counted(ops, "operation")),
            mix: Mix { shares, ..Mix::LOAD },
            background: None,
            value_bytes_min: 0,
            trace: Some(Arc::new(trace)),
            file: Some(path.to_owned()),
        })
    }

    /// Reads a file that says what a workload is.
    fn from_file(path: &Path) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("cannot read it: {error}"))?;
        let file: File = toml::from_str(&text).map_err(|error| error.to_string())?;
        let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { file: Some(path.to_owned()), ..file.workload(stem)? })
    }
}

/// The workloads on offer: YCSB's core workloads (Cooper et al., *Benchmarking
/// cloud serving systems with YCSB*, SoCC 2010), and single operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BuiltIn {
    /// YCSB A: 50 % reads, 50 % updates, scrambled zipfian
    A,
    /// YCSB B: 95 % reads, 5 % updates, scrambled zipfian
    B,
    /// YCSB C: reads only, scrambled zipfian
    C,
    /// YCSB D: 95 % reads of the latest records, 5 % inserts
    D,
    /// YCSB E: 95 % scans of 1 to 100 rows, scrambled zipfian, 5 % inserts
    E,
    /// YCSB F: 50 % reads, 50 % read-modify-writes, scrambled zipfian
    F,
    /// Gets of records, uniform
    GetUniform,
    /// Gets of records, zipfian
    GetZipfian,
    /// Gets of keys that are not there
    GetAbsent,
    /// Gets of 16 records at once, uniform
    MultiGet,
    /// Scans of 1 to 100 rows from a record's key on, uniform
    Scan,
    /// 40 % reads, 40 % updates, 20 % scans of 1 to 100 rows, zipfian
    ScanMixed,
    /// Updates of records, uniform
    Update,
    /// Puts of new records
    InsertOnly,
    /// 25 % reads, 40 % puts, 35 % deletes of records, uniform
    DeleteHeavy,
    /// 45 % reads, 50 % puts, 5 % deletes of ranges of 1 to 20 records, uniform
    RangeDelete,
    /// 50 % reads, 50 % updates of values above 64 KiB (load --value-bytes), uniform
    LargeValue,
    /// Gets, uniform, beside one more client that updates as fast as it can
    ReadWhileWriting,
}

impl BuiltIn {
    /// What each of the clients does.
    #[must_use]
    pub const fn mix(self) -> Mix {
        use KeyChoice::{Absent, Latest, Uniform};
        use OpKind::{Delete, DeleteRange, Insert, MultiGet, Read, ReadModifyWrite, Scan, Update};
        let zipfian = KeyChoice::Zipfian { theta: THETA };
        let scrambled = KeyChoice::Scrambled { theta: THETA };
        match self {
            Self::A => Mix::new(&[(Read, 50), (Update, 50)], scrambled),
            Self::B => Mix::new(&[(Read, 95), (Update, 5)], scrambled),
            Self::C => Mix::new(&[(Read, 100)], scrambled),
            Self::D => Mix::new(&[(Read, 95), (Insert, 5)], Latest),
            Self::E => Mix::new(&[(Scan, 95), (Insert, 5)], scrambled),
            Self::F => Mix::new(&[(Read, 50), (ReadModifyWrite, 50)], scrambled),
            Self::GetZipfian => Mix::new(&[(Read, 100)], zipfian),
            Self::GetUniform | Self::ReadWhileWriting => Mix::new(&[(Read, 100)], Uniform),
            Self::GetAbsent => Mix::new(&[(Read, 100)], Absent),
            Self::MultiGet => Mix::new(&[(MultiGet, 100)], Uniform),
            Self::Scan => Mix::new(&[(Scan, 100)], Uniform),
            Self::ScanMixed => Mix::new(&[(Read, 40), (Update, 40), (Scan, 20)], zipfian),
            Self::Update => Mix::new(&[(Update, 100)], Uniform),
            Self::InsertOnly => Mix::new(&[(Insert, 100)], Uniform),
            Self::DeleteHeavy => Mix::new(&[(Read, 25), (Update, 40), (Delete, 35)], Uniform),
            Self::RangeDelete => Mix::new(&[(Read, 45), (Update, 50), (DeleteRange, 5)], Uniform),
            Self::LargeValue => Mix::new(&[(Read, 50), (Update, 50)], Uniform),
        }
    }

    const fn background(self) -> Option<Mix> {
        match self {
            Self::ReadWhileWriting => Some(Self::Update.mix()),
            _ => None,
        }
    }
}

impl From<BuiltIn> for Workload {
    fn from(of: BuiltIn) -> Self {
        let value = of.to_possible_value();
        let help = value.as_ref().and_then(|value| value.get_help().map(ToString::to_string));
        Self {
            name: value.map(|value| value.get_name().to_owned()).unwrap_or_default(),
            description: help.unwrap_or_default(),
            mix: of.mix(),
            background: of.background(),
            value_bytes_min: if of == BuiltIn::LargeValue { LARGE_VALUE_BYTES } else { 0 },
            trace: None,
            file: None,
        }
    }
}

/// Longer values are in files of their own.
const LARGE_VALUE_BYTES: usize = (64 << 10) + 1;

/// Reads a workload on the command line: the name of one, or a file that ends in `.toml` or, a
/// trace, in `.csv`.
#[derive(Clone, Debug)]
pub struct WorkloadParser;

impl TypedValueParser for WorkloadParser {
    type Value = Workload;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Workload, clap::Error> {
        let path = Path::new(value);
        let workload = match path.extension().and_then(OsStr::to_str) {
            Some("toml") => Workload::from_file(path),
            Some("csv") => Workload::from_trace(path),
            _ => {
                let parser = EnumValueParser::<BuiltIn>::new();
                let built_in = parser.parse_ref(command, arg, value).map(Workload::from);
                return built_in.map_err(|mut error| {
                    let all = self.possible_values().into_iter().flatten();
                    let names = all.map(|value| value.get_name().to_owned()).collect();
                    error.insert(ContextKind::ValidValue, ContextValue::Strings(names));
                    error
                });
            }
        };
        workload.map_err(|why| {
            let message = format!("{} says no workload that can be run: {why}\n", path.display());
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let file = PossibleValue::new("FILE.toml").help("What a file says: README.md");
        let known = BuiltIn::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let trace = PossibleValue::new("TRACE.csv");
        let trace = trace.help("What was done once: time in seconds, operation, key, size");
        Some(Box::new(known.chain([file, trace])))
    }
}

/// What a file says of a workload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    description: Option<String>,
    #[serde(default)]
    operations: Percent,
    background: Option<Percent>,
    /// As `--distribution` has it.
    distribution: Option<String>,
    scan_rows_max: Option<u32>,
    multi_get_keys: Option<u32>,
    delete_range_rows: Option<u32>,
}

/// Percent of each kind of operation.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Percent {
    read: f64,
    update: f64,
    insert: f64,
    scan: f64,
    read_modify_write: f64,
    delete: f64,
    delete_range: f64,
    multi_get: f64,
}

impl Percent {
    fn shares(self) -> Result<[u32; OpKind::ALL.len()], String> {
        let percent = OpKind::ALL.map(|kind| match kind {
            OpKind::Read => self.read,
            OpKind::Update => self.update,
            OpKind::Insert => self.insert,
            OpKind::Scan => self.scan,
            OpKind::ReadModifyWrite => self.read_modify_write,
            OpKind::Delete => self.delete,
            OpKind::DeleteRange => self.delete_range,
            OpKind::MultiGet => self.multi_get,
        });
        if let Some(wrong) = percent.into_iter().find(|one| !(0.0..=100.0).contains(one)) {
            return Err(format!("an operation cannot be {wrong} % of all"));
        }
        let shares = percent.map(|one| (one * f64::from(WHOLE) / 100.0).round() as u32);
        if percent.iter().zip(shares).any(|(one, share)| *one > 0.0 && share == 0) {
            return Err("an operation is a hundredth of a percent at least".to_owned());
        }
        let sum: u32 = shares.iter().sum();
        if sum != WHOLE {
            // As near as it counts.
            let sum = (percent.iter().sum::<f64>() * 100.0).round() / 100.0;
            return Err(format!("its operations are {sum} % together, and must be 100 %"));
        }
        Ok(shares)
    }
}

impl File {
    fn workload(self, name: impl FnOnce() -> String) -> Result<Workload, String> {
        let choice = match &self.distribution {
            None => KeyChoice::Uniform,
            Some(text) => text.parse()?,
        };
        let count = |name: &str, value: Option<u32>, default: u32| match value.unwrap_or(default) {
            0 | 100_001.. => Err(format!("{name} must be 1 to 100000")),
            count => Ok(count),
        };
        let scan_rows_max = count("scan_rows_max", self.scan_rows_max, 100)?;
        let multi_get_keys = count("multi_get_keys", self.multi_get_keys, 16)?;
        let delete_range_rows = count("delete_range_rows", self.delete_range_rows, 20)?;
        let mix = |percent: Percent, choice| {
            let shares = percent.shares()?;
            Ok::<_, String>(Mix {
                shares,
                choice,
                scan_rows_max,
                multi_get_keys,
                delete_range_rows,
            })
        };
        let mixed = mix(self.operations, choice)?;
        let background = self.background.map(|of| mix(of, KeyChoice::Uniform)).transpose()?;
        let described = || {
            let parts = mixed.percent().into_iter();
            let parts = parts.map(|(kind, percent)| format!("{percent} % {}", kind.name()));
            format!("{}, {choice}", parts.collect::<Vec<_>>().join(", "))
        };
        Ok(Workload {
            name: self.name.unwrap_or_else(name),
            description: self.description.unwrap_or_else(described),
            mix: mixed,
            background,
            value_bytes_min: 0,
            trace: None,
            file: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the paper (and of `workloads/workload[a-f]` in YCSB).
    #[test]
    fn ycsb_mixes_have_their_proportions() {
        use BuiltIn::{A, B, C, D, E, F};
        use OpKind::{Insert, Read, ReadModifyWrite, Scan, Update};
        let zipfian = KeyChoice::Scrambled { theta: 0.99 };
        let table: [(BuiltIn, &[(OpKind, f64)], KeyChoice); 6] = [
            (A, &[(Read, 0.5), (Update, 0.5)], zipfian),
            (B, &[(Read, 0.95), (Update, 0.05)], zipfian),
            (C, &[(Read, 1.0)], zipfian),
            (D, &[(Read, 0.95), (Insert, 0.05)], KeyChoice::Latest),
            (E, &[(Insert, 0.05), (Scan, 0.95)], zipfian),
            (F, &[(Read, 0.5), (ReadModifyWrite, 0.5)], zipfian),
        ];
        for (workload, expected, choice) in table {
            let mix = workload.mix();
            assert_eq!(mix.choice(), choice);
            let mut rng = fastrand::Rng::with_seed(8);
            let mut counts = [0_u32; OpKind::ALL.len()];
            for _ in 0..100_000 {
                counts[mix.sample(&mut rng) as usize] += 1;
            }
            for (kind, share) in expected {
                let count = std::mem::take(&mut counts[*kind as usize]);
                let sigma = (100_000.0_f64 * share * (1.0 - share)).sqrt();
                let difference = f64::from(count) - 100_000.0 * share;
                assert!(difference.abs() <= 4.0 * sigma, "{workload:?}: {kind:?} {count}");
            }
            assert_eq!(counts, [0; OpKind::ALL.len()], "{workload:?}");
            assert!(mix.kinds().eq(expected.iter().map(|(kind, _)| *kind)));
            assert_eq!(mix.scan_rows_max(), 100);
        }
    }

    #[test]
    fn a_file_says_what_a_workload_is() {
        let text = "
            distribution = \"hotspot:0.1,0.9\"
            multi_get_keys = 3
            [operations]
            read = 60.5
            multi_get = 29.5
            delete_range = 10
            [background]
            update = 100
        ";
        let file: File = toml::from_str(text).unwrap();
        let workload = file.workload(|| "mine".to_owned()).unwrap();
        assert_eq!(workload.name, "mine");
        let words = "60.5 % read, 10 % delete_range, 29.5 % multi_get, hotspot:0.1,0.9";
        assert_eq!(workload.description, words);
        assert_eq!(workload.mix.choice(), KeyChoice::Hotspot { records: 0.1, operations: 0.9 });
        assert_eq!((workload.mix.multi_get_keys(), workload.mix.scan_rows_max()), (3, 100));
        assert!(workload.has(OpKind::deletes) && workload.has(OpKind::puts));
        assert!(!workload.has(|kind| kind == OpKind::Scan));
    }

    #[test]
    fn files_that_make_no_sense_are_refused() {
        let refused = [
            ("", "0 % together"),
            ("[operations]\nread = 50", "50 % together"),
            ("[operations]\nread = 101", "101 %"),
            ("[operations]\nread = 150\nscan = -50", "150 %"),
            ("[operations]\nread = 99.999\nscan = 0.001", "a hundredth"),
            ("distribution = \"gauss\"\n[operations]\nread = 100", "zipfian"),
            ("scan_rows_max = 0\n[operations]\nscan = 100", "scan_rows_max"),
        ];
        for (text, words) in refused {
            let file: File = toml::from_str(text).unwrap();
            let error = file.workload(String::new).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        for text in ["reads = 5", "[operations]\nget = 5", "[operations]\nread = \"all\"", "]"] {
            assert!(toml::from_str::<File>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_workload_has_a_name_and_a_description() {
        for of in BuiltIn::value_variants() {
            let workload = Workload::from(*of);
            assert!(!workload.name.is_empty() && !workload.description.is_empty());
            let is_beside = *of == BuiltIn::ReadWhileWriting;
            assert_eq!(workload.background, is_beside.then_some(BuiltIn::Update.mix()));
        }
    }
}
