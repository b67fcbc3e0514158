//! The command line: flags, their defaults, and how their values are read.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::device::DeviceArgs;
use crate::distribution::KeyChoice;
use crate::find_max::Promise;
use crate::keys::KeySizes;
use crate::schedule::{Arrivals, Rate};
use crate::size::parse_size;
use crate::sizes::Sizes;
use crate::steady::STEADY_MIN;
use crate::values::COMPRESSIBLE;
use crate::workload::{OpKind, Workload, WorkloadParser};
use ourodb::{Compression, Durability};

/// Of a key, unless `load` is told otherwise.
pub const KEY_BYTES: usize = 24;
/// Of a value, unless `load` is told otherwise.
pub const VALUE_BYTES: usize = 400;

const EXAMPLES: &str = "\
Examples:
  ouro-bench
      Loads a million records into ./ouro-bench-data with one client, then runs
      YCSB B on them. Ends within a minute. Takes --io, and no other flag.
  ouro-bench load --dir data --records 4000000 --clients 16
      Makes a database to measure.
  ouro-bench run --dir data --workload get-uniform --seconds 30 --clients 8
      How fast can 8 clients read from it?
  ouro-bench run --dir data --workload a --seconds 30 --clients 8 --rate 10000
      How long do operations take, at 10,000 a second?
  ouro-bench device --dir data --json device.json
      What can the disk do? With --device device.json, load and run then say what
      share of that the engine made use of.

Without --rate (closed loop) a client sends its next operation when the last one
has ended: that shows how fast the database can be. With --rate (open loop)
operations are due at fixed instants, and latency counts from then: that is what
the users of a service would see.

Kinds of clients: a thread waits for its operation to end. A task of a runtime
awaits --depth operations at one time. So does an owner client, but it runs
beside the data, on the thread of one of the engine's owners: clients are dealt
out to the owners in turn, and each draws from the workload's distribution until
it draws a key of its owner's. So the keys of one owner are as popular, compared
with each other, as for other clients; how much each owner gets follows from its
clients' speed, or equal rates. Loads, and the writer of read-while-writing,
have at least one such client on every owner.

Exit codes: 0 done, 1 worse (compare --fail-if worse) or no rate that keeps the
promise, 2 usage, 3 corruption, 4 locked, 5 no space, 6 unsupported,
7 other failures and wrong values read, 130 Ctrl-C, 143 SIGTERM (a partial result
is printed for both).";

/// Measures OuroDB: loads a database, runs a workload on it, reports latencies
///
/// Without a command: one client loads a million records into ./ouro-bench-data,
/// every write safe from the death of the process, and runs a read-mostly
/// workload on them. Every value read is checked.
#[derive(Parser, Debug)]
#[command(
    name = "ouro-bench",
    version,
    args_conflicts_with_subcommands = true,
    after_help = EXAMPLES,
    after_long_help = EXAMPLES
)]
pub struct Cli {
    /// How the engine's owners reach the disk, without a command
    #[arg(long, value_name = "IO", default_value = "ring")]
    pub io: Io,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Subcommand, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one, once")]
pub enum Command {
    /// Make a database of so many records and measure how long that takes
    Load(LoadArgs),
    /// Run a workload on a database that `load` made
    Run(RunArgs),
    /// Write, delete, read and scan at full speed for long, reopen now and then,
    /// and check every value that is read
    Soak(SoakArgs),
    /// Measure what the disk can do, through the engine's own I/O
    Device(DeviceArgs),
    /// Put results side by side (files of --json), and say what is better or worse
    Compare(CompareArgs),
}

/// The flags of `compare`.
#[derive(Args, Debug, Clone)]
pub struct CompareArgs {
    /// Results: each is compared with the first
    #[arg(value_name = "RESULT.json", required = true, num_args = 2..)]
    pub files: Vec<PathBuf>,
    /// How sure to be before something is called better or worse
    #[arg(long, value_name = "P", default_value = "0.99", value_parser = parse_confidence)]
    pub confidence: f64,
    /// Exit with 1 if something is
    #[arg(long, value_name = "WHAT")]
    pub fail_if: Option<FailIf>,
    /// Write the comparison as JSON to this file too; - is stdout
    #[arg(long, value_name = "F")]
    pub json: Option<PathBuf>,
}

/// What makes a comparison fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailIf {
    /// Some figure is worse than that of the first result
    Worse,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a number from 0 to 1 is needed".to_owned())
}

fn parse_confidence(text: &str) -> Result<f64, String> {
    let confidence = text.parse::<f64>().ok().filter(|p| (0.5..=0.999).contains(p));
    confidence.ok_or_else(|| "a number from 0.5 to 0.999 is needed".to_owned())
}

/// The flags of `soak`.
#[derive(Args, Debug, Clone)]
pub struct SoakArgs {
    /// An empty directory, or one that is not there yet
    #[arg(long, value_name = "D")]
    pub dir: PathBuf,
    /// How long
    #[arg(long, value_name = "S", default_value = "3600", value_parser = parse_seconds)]
    #[arg(allow_negative_numbers = true)]
    pub seconds: Duration,
    /// How many keys there are; each takes eight bytes of memory here
    #[arg(long, value_name = "N", default_value = "2000000", value_parser = clap::value_parser!(u32).range(1000..))]
    pub keys: u32,
    /// Bytes of every value
    #[arg(long, value_name = "BYTES", default_value_t = VALUE_BYTES, value_parser = parse_value_bytes)]
    pub value_bytes: usize,
    /// Threads that put and delete
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub writers: u32,
    /// Threads that get
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(0..=64))]
    pub readers: u32,
    /// Threads that scan
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(0..=64))]
    pub scanners: u32,
    /// The database is closed and opened again after so many seconds
    #[arg(long, value_name = "S", default_value = "300", value_parser = parse_seconds)]
    #[arg(allow_negative_numbers = true)]
    pub reopen: Duration,
    /// The engine's memory budget
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    pub memory: u64,
    /// What an acknowledged write survives, as with load
    #[arg(long, value_name = "D", default_value = "process-safe")]
    pub durability: Durability,
    /// Write the result as JSON to this file too; - is stdout
    #[arg(long, value_name = "F")]
    pub json: Option<PathBuf>,
}

/// The flags of `load`.
#[derive(Args, Debug, Clone)]
pub struct LoadArgs {
    /// How many records to insert, in random key order
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = parse_records)]
    #[arg(allow_negative_numbers = true)]
    pub records: u64,
    /// Bytes of every key, or lengths between two: 24..64
    #[arg(long, value_name = "BYTES", default_value = "24")]
    pub key_bytes: KeySizes,
    /// Bytes of every value, at most a quarter of --memory; lengths that differ are 100..4000
    /// (all alike), exponential:400 (the mean), or 90%:400,10%:100KiB
    #[arg(long, value_name = "BYTES", default_value = "400")]
    pub value_bytes: Sizes,
    /// The share of each value that can be compressed, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = COMPRESSIBLE, value_parser = parse_share)]
    pub compressible: f64,
    /// Replace what an earlier load left in the directory
    #[arg(long)]
    pub overwrite: bool,
    /// Shards of the new database [default: the engine's choice]
    #[arg(long, value_name = "N", value_parser = parse_count, allow_negative_numbers = true)]
    pub shards: Option<usize>,
    /// How tables are compressed, also by each run on them: none, lz4, or zstd
    /// (which a build with --features zstd has)
    #[arg(long, value_name = "C", default_value_t)]
    pub compression: Compression,
    /// Flags that `run` has too.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The flags of `run`.
#[derive(Args, Debug, Clone)]
#[command(group = ArgGroup::new("open").multiple(true))]
pub struct RunArgs {
    /// What the clients do
    #[arg(long, value_name = "W", value_parser = WorkloadParser)]
    pub workload: Workload,
    /// Which records that is done to, in place of what the workload says: uniform, zipfian:0.99
    /// (the popular ones scattered), scrambled:0.99 (the same as YCSB draws it, less skewed),
    /// ranked:0.99 (the first ones popular), latest,
    /// hotspot:0.2,0.8 (of the records, of the operations), exponential:0.95,0.857 (of the
    /// operations, of the newest records), sequential, absent
    #[arg(long, value_name = "D")]
    pub distribution: Option<KeyChoice>,
    /// How long [default: 10, or as long as a trace]
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    #[arg(allow_negative_numbers = true)]
    pub seconds: Option<Duration>,
    /// A trace is replayed so many times faster than it was; max: each client sends its next
    /// operation when the last one has ended
    #[arg(long, value_name = "TIMES", default_value = "1")]
    pub speed: Speed,
    /// The same clients work for so many seconds before, with other choices, so that caches fill;
    /// steady:120 warms up until what happens goes on as it is, for 120 s at most
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub warm_up: Option<WarmUp>,
    /// Every record is read once before that, so that what fits in memory is there: processes
    /// begin with empty caches
    #[arg(long)]
    pub read_first: bool,
    /// Operations a second of all clients together, due at instants of their own
    /// (open loop); with read-while-writing the readers'. 10000, or a rate that changes:
    /// ramp:1000..50000, steps:1000,5000,20000, sine:10000+-5000/30s (mean, swing, period),
    /// bursts:1000..20000/2s/30s (base, burst, its length, period)
    #[arg(long, value_name = "R", allow_negative_numbers = true, group = "open")]
    pub rate: Option<Rate>,
    /// Look for the highest rate at which a promise is kept, by runs of --seconds each, the first
    /// at --rate: "p99.9<2ms" of each kind of operation, "read p99<500us" of one. Before, the
    /// clients warm up in a closed loop, for --warm-up or 5 s. A rate is broken if it breaks the
    /// promise twice in succession, and found if it keeps it twice; 60 runs at most, none at a rate
    /// at which a run has less than ten operations beyond the percentile
    #[arg(long, value_name = "PROMISE", group = "open")]
    pub find_max: Option<Promise>,
    /// How operations follow each other at a rate
    #[arg(long, value_name = "A", default_value = "constant", requires = "open")]
    pub arrivals: Arrivals,
    /// Load so many records right before, in place of an earlier load, and run
    /// on them as they are then: in memory, if they are few
    #[arg(long, value_name = "N", value_parser = parse_records, allow_negative_numbers = true)]
    pub fresh: Option<u64>,
    /// Flags that `load` has too.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl RunArgs {
    /// Those that `ouro-bench` without a command runs with.
    #[must_use]
    pub fn new(workload: Workload, seconds: Duration, common: CommonArgs) -> Self {
        Self {
            workload,
            distribution: None,
            seconds: Some(seconds),
            speed: Speed::Times(1.0),
            warm_up: None,
            read_first: false,
            rate: None,
            find_max: None,
            arrivals: Arrivals::Constant,
            fresh: None,
            common,
        }
    }

    /// How long the run takes.
    #[must_use]
    pub fn duration(&self) -> Duration {
        let default = || match (&self.workload.trace, self.speed) {
            (Some(trace), Speed::Times(speed)) => {
                // The last operation is due before the end.
                Duration::from_nanos((trace.last_ns() as f64 / speed) as u64 + 1)
            }
            (Some(_), Speed::Max) => TRACE_MAX,
            (None, _) => Duration::from_secs(10),
        };
        self.seconds.unwrap_or_else(default)
    }

    /// How long the clients work before they are measured: those of a search do in any case, as
    /// its first runs would else be of an empty cache.
    #[must_use]
    pub fn warm_up(&self) -> Option<WarmUp> {
        let of_search = self.find_max.as_ref().map(|_| WarmUp::Time(SEARCH_WARM_UP));
        self.warm_up.or(of_search)
    }

    /// Whether operations are due at instants of their own.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match &self.workload.trace {
            Some(_) => self.speed != Speed::Max,
            None => self.rate.is_some(),
        }
    }

    /// The kinds of operations that are due at instants of their own.
    #[must_use]
    pub fn paced_kinds(&self) -> Vec<OpKind> {
        match self.is_open() {
            true => self.workload.mix.kinds().collect(),
            false => Vec::new(),
        }
    }

    /// What the clients do, to the records that were asked for.
    #[must_use]
    pub fn chosen_workload(&self) -> Workload {
        self.workload.clone().with_choice(self.distribution)
    }
}

/// Before the first run of a search, unless `--warm-up` says otherwise.
const SEARCH_WARM_UP: Duration = Duration::from_secs(5);

/// A trace that is replayed as fast as can be ends by itself, or then.
const TRACE_MAX: Duration = Duration::from_secs(86_400);

/// How fast a trace is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times faster than it was.
    Times(f64),
    /// As fast as the clients can.
    Max,
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let speed = text.parse::<f64>().ok().filter(|speed| (0.001..=1e6).contains(speed));
        speed.map(Self::Times).ok_or_else(|| "a number from 0.001 to 1000000, or max".to_owned())
    }
}

/// How long clients work before they are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmUp {
    /// So long.
    Time(Duration),
    /// Until what happens is steady, so long at most.
    Steady(Duration),
}

impl WarmUp {
    /// How long at most.
    #[must_use]
    pub fn at_most(self) -> Duration {
        match self {
            Self::Time(time) | Self::Steady(time) => time,
        }
    }
}

impl FromStr for WarmUp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("steady:") {
            Some(seconds) => match parse_seconds(seconds)? {
                time if time < STEADY_MIN => Err(format!(
                    "whether it is steady can be told after {} s at the earliest",
                    STEADY_MIN.as_secs()
                )),
                time => Ok(Self::Steady(time)),
            },
            None => parse_seconds(text)
                .map(Self::Time)
                .map_err(|error| format!("{error}, or steady:120")),
        }
    }
}

/// The flags that all commands share.
#[derive(Args, Debug, Clone)]
pub struct CommonArgs {
    /// The directory of the database
    #[arg(long, value_name = "D")]
    pub dir: PathBuf,
    /// How many clients there are
    #[arg(long, value_name = "C", default_value = "1", value_parser = parse_clients)]
    #[arg(allow_negative_numbers = true)]
    pub clients: usize,
    /// What a client is
    #[arg(long, value_name = "KIND", default_value = "thread")]
    pub client_kind: ClientKind,
    /// Operations that a client has in flight: 1 for a thread
    #[arg(long, value_name = "Q", default_value = "1", value_parser = parse_depth)]
    pub depth: usize,
    /// Owner threads of the engine [default: the engine's choice]
    #[arg(long, value_name = "N", value_parser = parse_count, allow_negative_numbers = true)]
    pub owners: Option<usize>,
    /// How long an owner looks out for work before it sleeps [default: the
    /// engine's choice]
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_negative_numbers = true)]
    pub spin: Option<Duration>,
    /// Requests that futures may have outstanding at each owner [default: the
    /// engine's choice]
    #[arg(long, value_name = "N", value_parser = parse_count, allow_negative_numbers = true)]
    pub requests_max: Option<usize>,
    /// The engine's memory budget
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    pub memory: u64,
    /// What an acknowledged write survives: durable, the loss of power;
    /// process-safe, the death of the process; relaxed:100ms, the loss of power
    /// after that time
    #[arg(long, value_name = "D", default_value = "process-safe")]
    pub durability: Durability,
    /// How the engine's owners reach the disk
    #[arg(long, value_name = "IO", default_value = "ring")]
    pub io: Io,
    /// How long to wait for a database that another process has open
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time, allow_negative_numbers = true)]
    pub lock_wait: Duration,
    /// A result of `ouro-bench device --json F` for this disk: the report then says how much
    /// of what that can do the engine made use of
    #[arg(long, value_name = "F", env = DEVICE_VARIABLE, value_parser = may_be_empty())]
    pub device: Option<PathBuf>,
    /// Where the result goes besides.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Seeds the data (load), or the choice of operations (run)
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
}

/// Says what the disk can do, where `--device` does not.
pub(crate) const DEVICE_VARIABLE: &str = "OURO_BENCH_DEVICE";

/// A path. A variable that is set to nothing is as good as none.
fn may_be_empty() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Where a result goes besides the terminal.
#[derive(Args, Debug, Clone, Default)]
pub struct OutputArgs {
    /// Write the result as JSON to this file too; - is stdout (tables then go to stderr)
    #[arg(long, value_name = "F")]
    pub json: Option<PathBuf>,
    /// Write the latencies of each second to this file, as HdrHistogram's interval logs
    #[arg(long, value_name = "F")]
    pub hlog: Option<PathBuf>,
    /// Write the result to this file as a page with charts, which needs nothing else
    #[arg(long, value_name = "F")]
    pub html: Option<PathBuf>,
}

/// What a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientKind {
    /// A thread that waits for each operation
    Thread,
    /// A task of a runtime that awaits its operations
    Task,
    /// A closure on the thread of one of the engine's owners
    Owner,
}

impl ClientKind {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Thread => "thread",
            Self::Task => "task",
            Self::Owner => "owner",
        }
    }
}

/// How the engine's owners do I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Io {
    /// io_uring
    Ring,
    /// Positioned reads and writes, where io_uring is forbidden
    Blocking,
}

impl Io {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Blocking => "blocking",
        }
    }
}

impl From<Io> for ourodb::IoBackend {
    fn from(io: Io) -> Self {
        match io {
            Io::Ring => Self::Ring,
            Io::Blocking => Self::Blocking,
        }
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "a time such as 10s or 500ms is needed".to_owned())
}

fn parse_depth(text: &str) -> Result<usize, String> {
    let depth = text.parse().ok().filter(|depth| (1..=4096).contains(depth));
    depth.ok_or_else(|| "at least 1 operation, at most 4096".to_owned())
}

fn parse_records(text: &str) -> Result<u64, String> {
    let records = text.parse().ok().filter(|records| *records > 0);
    records.ok_or_else(|| format!("a whole number from 1 to {} is needed", u64::MAX))
}

/// A number of clients.
pub fn parse_clients(text: &str) -> Result<usize, String> {
    let clients = text.parse().ok().filter(|clients| (1..=4096).contains(clients));
    clients.ok_or_else(|| "a number from 1 to 4096 is needed".to_owned())
}

fn parse_count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "at least 1 is needed".to_owned())
}

fn parse_value_bytes(text: &str) -> Result<usize, String> {
    usize::try_from(parse_size(text)?).map_err(|error| error.to_string())
}

/// Seconds, with a fraction if need be; a day at most.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.001..=86_400.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "a number of seconds from 0.001 to 86400 is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_warms_up_in_any_case() {
        let warm_up = |more: &[&str]| {
            let run = ["ouro-bench", "run", "--dir", "d", "--workload", "c"];
            let cli = Cli::parse_from(run.iter().chain(more));
            let Some(Command::Run(args)) = cli.command else { panic!("a run") };
            args.warm_up()
        };
        let seconds = |seconds| Some(WarmUp::Time(Duration::from_secs(seconds)));
        assert_eq!(warm_up(&[]), None);
        assert_eq!(warm_up(&["--warm-up", "3"]), seconds(3));
        let search = ["--find-max", "p99<1ms", "--warm-up", "30"];
        assert_eq!(warm_up(&search[..2]), seconds(5));
        assert_eq!(warm_up(&search), seconds(30));
    }
}
