//! The result of one command, as JSON has it.
//!
//! Names end with their units. A field that does not apply is `null`. What a
//! reader may rely on is `"format": 1`: fields may be added to it, and none
//! changes its meaning.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::{ClientKind, CommonArgs, Io};
use crate::device_share::DeviceShare;
use crate::failure::Failure;
use crate::find_max::Found;
use crate::machine::{Machine, cpu_time};
use crate::runner::Outcome;
use crate::schedule::Arrivals;
use crate::shape::{Shape, by_name};
use crate::steady::Steady;
use crate::target::{Device, Status, Target};
use crate::timeline::Interval;
use crate::workload::OpKind;
use ourodb::{Compression, Durability, Latencies};

/// Points of a curve of quantiles between 0 and 0.5, between that and 0.75, and so on.
const QUANTILES_PER_HALVING: u32 = 10;

/// The format of result files.
pub const RESULT_FORMAT: u32 = 1;

/// A whole result: of a load or a run, unless said otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Report<C = Config, M = Measured> {
    /// Always [`RESULT_FORMAT`].
    pub format: u32,
    /// `load`, `run` or `device`.
    pub command: &'static str,
    /// Whether it was cut short; then `result` covers what was done.
    pub partial: bool,
    /// The failure that cut it short, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// In which phase before the measurement of a run, or after that of a load, it was cut
    /// short, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_short_in: Option<&'static str>,
    /// When it began, in UTC.
    pub started: String,
    /// The same, in seconds since 1970.
    pub started_unix_s: u64,
    /// What was measured with.
    pub versions: Versions,
    /// What was asked for.
    pub config: C,
    /// Where it ran.
    pub machine: Machine,
    /// What was measured.
    pub result: M,
}

impl<C, M> Report<C, M> {
    /// Of a command that began then, on the disk of this directory.
    #[must_use]
    pub fn new(
        command: &'static str,
        partial: bool,
        started: SystemTime,
        dir: &Path,
        config: C,
        result: M,
    ) -> Self {
        Self {
            format: RESULT_FORMAT,
            command,
            partial,
            failure: None,
            cut_short_in: None,
            started: humantime::format_rfc3339_seconds(started).to_string(),
            started_unix_s: started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            versions: Versions::THIS,
            config,
            machine: Machine::look(dir),
            result,
        }
    }
}

/// Why a result is partial, in words; `command` is that of the result.
#[must_use]
pub fn why_partial(
    command: &str,
    partial: bool,
    failed: bool,
    cut_short_in: Option<&str>,
) -> Option<String> {
    // A load is measured by then.
    let unmeasured = if command == "load" { "" } else { ", and nothing was measured" };
    match (failed, cut_short_in) {
        (true, Some(phase)) => Some(format!("it failed while {phase}{unmeasured}")),
        (true, None) => Some("it failed".to_owned()),
        (false, Some(phase)) => Some(format!("it was cut short while {phase}{unmeasured}")),
        (false, None) => partial.then(|| "it was cut short".to_owned()),
    }
}

/// What the binary was made of.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Versions {
    /// This tool and the engine in it have one version.
    pub ourodb: &'static str,
    /// The commit it was built from.
    pub commit: Option<&'static str>,
    /// The compiler it was built with.
    pub rustc: Option<&'static str>,
    /// Whether debug assertions are on: then the figures say little.
    pub debug_build: bool,
}

impl Versions {
    /// Those of this binary.
    pub const THIS: Self = Self {
        ourodb: env!("CARGO_PKG_VERSION"),
        commit: option_env!("OURO_COMMIT"),
        rustc: option_env!("OURO_RUSTC"),
        debug_build: cfg!(debug_assertions),
    };
}

/// The whole configuration of a command.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// The engine.
    pub engine: &'static str,
    /// What only this engine can be asked for.
    pub settings: serde_json::Value,
    /// The database's directory, as given.
    pub dir: String,
    /// The workload of a run.
    pub workload: Option<String>,
    /// The same, in words.
    pub description: Option<String>,
    /// By how many percent each kind of operation occurs.
    pub percent: BTreeMap<OpKind, f64>,
    /// The same of what one more client does beside them.
    pub background: Option<BTreeMap<OpKind, f64>>,
    /// The most rows that a scan asks for, if there are any.
    pub scan_rows_max: Option<usize>,
    /// Keys that are read at once, if some are.
    pub multi_get_keys: Option<usize>,
    /// The most records of a range that is deleted, if some are.
    pub delete_range_rows: Option<u64>,
    /// Which records they go to.
    pub distribution: Option<String>,
    /// Records asked for by a load, or there before a run.
    pub records: u64,
    /// Bytes of each key, or of the shortest.
    pub key_bytes: usize,
    /// How long keys are, as `--key-bytes` has it.
    pub key_sizes: String,
    /// Bytes of each value, or of one on average.
    pub value_bytes: usize,
    /// How long values are, as `--value-bytes` has it.
    pub value_sizes: String,
    /// The share of each value that can be compressed.
    pub compressible: f64,
    /// What the data follows from.
    pub data_seed: u64,
    /// What a run's choice of operations follows from.
    pub seed: u64,
    /// How many clients there were, without those that read-while-writing adds.
    pub clients: usize,
    /// What they were.
    pub client_kind: ClientKind,
    /// Operations each had in flight.
    pub depth: usize,
    /// `open` or `closed`.
    pub r#loop: &'static str,
    /// Operations due a second, in an open loop whose rate stays as it is.
    pub rate_ops_per_s: Option<u64>,
    /// How the rate of an open loop changes, as `--rate` has it.
    pub rate: Option<String>,
    /// How operations follow each other at it.
    pub arrivals: Option<Arrivals>,
    /// How long the run was to be.
    pub seconds: Option<f64>,
    /// Every record was read once before.
    pub read_first: bool,
    /// How long the clients worked before, uncounted.
    pub warm_up_s: Option<f64>,
    /// Owner threads of the engine.
    pub owners: Option<usize>,
    /// How long those looked out for work before they slept, if it was asked
    /// for.
    pub spin_ns: Option<u64>,
    /// Requests that futures could have outstanding at each of them, if it was
    /// asked for.
    pub requests_max: Option<usize>,
    /// Shards of the database.
    pub shards: Option<usize>,
    /// The engine's memory budget.
    pub memory_bytes: u64,
    /// What an acknowledged write survives.
    #[serde(serialize_with = "by_name")]
    pub durability: Durability,
    /// How the owners did I/O.
    pub io: Option<Io>,
    /// How tables were compressed.
    #[serde(serialize_with = "by_name")]
    pub compression: Compression,
}

impl Config {
    /// The part that both commands have. `status` knows what the engine chose.
    pub fn new<T: Target>(
        common: &CommonArgs,
        settings: &T::Settings,
        shape: &Shape,
        status: &Status,
    ) -> Result<Self, Failure> {
        let settings = serde_json::to_value(settings)
            .map_err(|error| Failure::Other(format!("cannot write the settings: {error}")))?;
        Ok(Self {
            engine: T::NAME,
            settings,
            dir: common.dir.display().to_string(),
            workload: None,
            description: None,
            percent: BTreeMap::new(),
            background: None,
            scan_rows_max: None,
            multi_get_keys: None,
            delete_range_rows: None,
            distribution: None,
            records: shape.records,
            key_bytes: shape.key_bytes,
            key_sizes: shape.keys().to_string(),
            value_bytes: shape.value_bytes,
            value_sizes: shape.values().to_string(),
            compressible: shape.compressible,
            data_seed: shape.seed,
            seed: common.seed,
            clients: common.clients,
            client_kind: common.client_kind,
            depth: common.depth,
            r#loop: "closed",
            rate_ops_per_s: None,
            rate: None,
            arrivals: None,
            seconds: None,
            read_first: false,
            warm_up_s: None,
            owners: status.owners,
            spin_ns: common.spin.map(|spin| u64::try_from(spin.as_nanos()).unwrap_or(u64::MAX)),
            requests_max: common.requests_max,
            shards: status.shards,
            memory_bytes: common.memory,
            durability: common.durability,
            io: status.io,
            compression: shape.compression,
        })
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// From the start to the end of the last operation, or to the end of the run
    /// if that is later. Background work afterwards is not included.
    pub elapsed_s: f64,
    /// How long a load then waited until everything was in tables.
    pub settle_s: Option<f64>,
    /// Operations that ended.
    pub ops: u64,
    /// Operations a second.
    pub ops_per_s: f64,
    /// Operations of an open loop that were due and never sent, for the
    /// database could not keep up.
    pub unsent_ops: u64,
    /// How long after the end of its schedule an open loop still had operations to do, if that
    /// was long: the rate was not kept up with, and the longer the run, the longer they wait.
    pub behind_s: Option<f64>,
    /// Operations that took longer than an hour and count as an hour.
    pub saturated_ops: u64,
    /// Reads that returned something wrong.
    pub wrong_reads: u64,
    /// The first of them, in words.
    pub first_wrong_read: Option<String>,
    /// Records in the database afterwards.
    pub records: u64,
    /// CPU time of the whole process: background work and settling included, and
    /// in an open loop what clients spin before an operation is due.
    pub cpu_ns: u64,
    /// The same for each operation.
    pub cpu_ns_per_op: Option<f64>,
    /// Bytes of keys and values that were put.
    pub put_bytes: u64,
    /// Bytes written to the device for each of them, padding and pre-writing
    /// included.
    pub bytes_written_per_byte_put: Option<f64>,
    /// Reads of the device for each get by key, if there was no scan.
    pub device_reads_per_get: Option<f64>,
    /// Reads of the device for each scan, if there was no get.
    pub device_reads_per_scan: Option<f64>,
    /// What the engine submitted to the device meanwhile.
    pub device: Option<Device>,
    /// How much of what the device can do that was, if `--device` says what it can do.
    pub device_share: Option<DeviceShare>,
    /// By kind of operation.
    pub operations: BTreeMap<OpKind, Operation>,
    /// What the engine measured itself, by its own names of operations.
    pub engine: BTreeMap<&'static str, EngineOperation>,
    /// Whether a run was in a steady state; absent where it was too short to tell.
    pub steady: Option<Steady>,
    /// The same of a warm-up that was to last until then.
    pub warm_up_steady: Option<Steady>,
    /// What a search for the highest rate came to; everything else is then of its run at that
    /// rate, or of the one in which it ended early.
    pub find_max: Option<Found>,
    /// Second by second.
    pub intervals: Vec<Interval>,
}

/// One kind of operation.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    /// How many ended.
    pub ops: u64,
    /// How many a second.
    pub ops_per_s: f64,
    /// How long they took: in an open loop from the instant each was due, its response time.
    pub latency_ns: Latency,
    /// In an open loop, how long they took from when they were sent.
    pub service_ns: Option<Latency>,
    /// The curve of `latency_ns`: quantiles, and the nanoseconds within which that share of
    /// the operations ended.
    pub quantiles: Vec<(f64, u64)>,
    /// That of `service_ns`.
    pub service_quantiles: Option<Vec<(f64, u64)>>,
}

/// What the engine says of a kind of operation: from the call on, whenever that was due.
#[derive(Clone, Debug, Serialize)]
pub struct EngineOperation {
    /// How many there were: an estimate, where only a sample of the fast ones is timed.
    pub ops: u64,
    /// How long they took.
    pub latency_ns: Latency,
    /// What they waited for.
    pub parts: BTreeMap<&'static str, EnginePart>,
}

/// What operations waited for.
#[derive(Clone, Debug, Serialize)]
pub struct EnginePart {
    /// How many did.
    pub ops: u64,
    /// How long.
    pub latency_ns: Latency,
    /// The share of the time of all operations of the kind.
    pub share: f64,
}

/// What an engine measured meanwhile; operations and parts that did not occur are missing.
#[must_use]
pub fn engine_operations(latencies: &Latencies) -> BTreeMap<&'static str, EngineOperation> {
    let time = |histogram: &Histogram<u64>| histogram.mean() * histogram.len() as f64;
    let mut found = BTreeMap::new();
    for operation in ourodb::Operation::ALL {
        let whole = latencies.whole(operation);
        if whole.is_empty() {
            continue;
        }
        let parts = operation.parts().iter().map(|part| (part, latencies.part(operation, *part)));
        let parts =
            parts.filter(|(_, histogram)| !histogram.is_empty()).map(|(part, histogram)| {
                let (ops, latency_ns) = (histogram.len(), Latency::new(histogram));
                (part.name(), EnginePart { ops, latency_ns, share: time(histogram) / time(whole) })
            });
        let (ops, latency_ns) = (whole.len(), Latency::new(whole));
        let operation_of = EngineOperation { ops, latency_ns, parts: parts.collect() };
        found.insert(operation.name(), operation_of);
    }
    found
}

/// Percentiles of latency. In an open loop it counts from the instant the
/// operation was due.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names say it all")]
pub struct Latency {
    pub mean: f64,
    pub min: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub p99_99: u64,
    pub max: u64,
}

impl Operation {
    fn new(
        histogram: &Histogram<u64>,
        service: Option<&Histogram<u64>>,
        elapsed: Duration,
    ) -> Self {
        Self {
            ops: histogram.len(),
            ops_per_s: per_second(histogram.len(), elapsed),
            latency_ns: Latency::new(histogram),
            service_ns: service.map(Latency::new),
            quantiles: quantiles(histogram),
            service_quantiles: service.map(quantiles),
        }
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    let steps = histogram.iter_quantiles(QUANTILES_PER_HALVING);
    steps.map(|step| (step.quantile(), step.value_iterated_to())).collect()
}

impl Latency {
    /// Of what was recorded.
    #[must_use]
    pub fn new(histogram: &Histogram<u64>) -> Self {
        Self {
            mean: histogram.mean(),
            min: histogram.min(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            p99_99: histogram.value_at_quantile(0.9999),
            max: histogram.max(),
        }
    }
}

/// Reads the counters of process and engine before and after a phase.
pub struct Meter {
    cpu: Duration,
    device: Option<Device>,
    started: SystemTime,
}

impl Meter {
    /// Begins now.
    #[must_use]
    pub fn start(status: &Status) -> Self {
        Self { cpu: cpu_time(), device: status.device, started: SystemTime::now() }
    }

    /// When that was.
    #[must_use]
    pub fn began(&self) -> SystemTime {
        self.started
    }

    /// Ends now, and puts everything together.
    #[must_use]
    pub fn finish(
        &self,
        outcome: &Outcome,
        status: &Status,
        settle: Option<Duration>,
        intervals: Vec<Interval>,
    ) -> Measured {
        let cpu_ns = (cpu_time() - self.cpu).as_nanos() as u64;
        let recorder = &outcome.recorder;
        let count = |wanted: fn(OpKind) -> bool| -> u64 {
            OpKind::ALL.into_iter().filter(|k| wanted(*k)).map(|kind| recorder.count(kind)).sum()
        };
        let (gets, scans) = (count(OpKind::gets), recorder.count(OpKind::Scan));
        let many = count(OpKind::reads_many);
        let put_bytes = outcome.put_bytes;
        let device = status.device.zip(self.device).map(|(now, then)| now.since(then));
        let reads = device.and_then(|device| device.reads);
        let ops = recorder.total();
        let operations = OpKind::ALL
            .into_iter()
            .filter_map(|kind| {
                let (histogram, service) = (recorder.histogram(kind)?, recorder.service(kind));
                let elapsed = match service {
                    Some(_) => outcome.elapsed_paced,
                    None => outcome.elapsed_unpaced,
                };
                Some((kind, Operation::new(histogram, service, elapsed)))
            })
            .collect();
        Measured {
            elapsed_s: outcome.elapsed.as_secs_f64(),
            settle_s: settle.map(|settle| settle.as_secs_f64()),
            ops,
            ops_per_s: per_second(ops, outcome.elapsed),
            unsent_ops: outcome.unsent,
            behind_s: None,
            saturated_ops: recorder.saturated(),
            wrong_reads: outcome.faults.count,
            first_wrong_read: outcome.faults.first.clone(),
            records: outcome.acknowledged,
            cpu_ns,
            cpu_ns_per_op: ratio(cpu_ns, ops),
            put_bytes,
            bytes_written_per_byte_put: device.and_then(|d| ratio(d.bytes_written, put_bytes)),
            device_reads_per_get: reads.filter(|_| many == 0).and_then(|n| ratio(n, gets)),
            device_reads_per_scan: reads
                .filter(|_| gets == 0 && many == scans)
                .and_then(|n| ratio(n, scans)),
            device,
            device_share: None,
            operations,
            engine: BTreeMap::new(),
            steady: None,
            warm_up_steady: None,
            find_max: None,
            intervals,
        }
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn per_second(ops: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { ops as f64 / elapsed.as_secs_f64() }
}
