//! `soak`: everything at once, for a long time, at full speed, with reopenings;
//! and each read judged.

mod model;
mod workers;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ourodb::{Db, Options, Stats};
use serde::Serialize;

use self::model::Model;
use self::workers::{Counts, Workers};
use crate::cli::{OutputArgs, SoakArgs};
use crate::engine::settle;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::grouped;

const SECTION: Duration = Duration::from_secs(60);

/// A write that takes longer is counted.
const SLOW: Duration = Duration::from_millis(20);

/// The result, as JSON has it.
#[derive(Debug, Serialize)]
struct Report {
    format: u32,
    command: &'static str,
    keys: u32,
    memory_bytes: u64,
    seconds: f64,
    openings: u32,
    sections: Vec<Section>,
    writes: u64,
    reads: u64,
    rows: u64,
    write_latency_ns: Percentiles,
    slow_writes: u64,
    slow_writes_memtable: u64,
    slow_writes_delayed: u64,
    slow_writes_log: u64,
    slow_writes_device: u64,
    live_bytes: u64,
    bytes_at_rest: u64,
    settle_seconds: f64,
    resident_bytes_max: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Percentiles {
    p50: u64,
    p99: u64,
    p99_99: u64,
    max: u64,
}

/// A minute, or what is left of it until the database is opened anew.
#[derive(Clone, Debug, Serialize)]
struct Section {
    seconds: f64,
    writes_per_s: f64,
    reads_per_s: f64,
    rows_per_s: f64,
    write_latency_ns: Percentiles,
    slow_writes: u64,
    table_bytes: u64,
    resident_bytes: u64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self { p50: at(0.5), p99: at(0.99), p99_99: at(0.9999), max: histogram.max() }
    }
}

/// Runs a soak in a directory that is empty, or was used by one.
pub fn soak(args: &SoakArgs, interrupt: &AtomicBool) -> Result<(), Failure> {
    let output = Output::new(&OutputArgs { json: args.json.clone(), ..OutputArgs::default() })?;
    let model = Model::new(args.keys, args.value_bytes);
    let began = Instant::now();
    let mut report = Report {
        format: 1,
        command: "soak",
        keys: args.keys,
        memory_bytes: args.memory,
        seconds: 0.0,
        openings: 0,
        sections: Vec::new(),
        writes: 0,
        reads: 0,
        rows: 0,
        write_latency_ns: Percentiles { p50: 0, p99: 0, p99_99: 0, max: 0 },
        slow_writes: 0,
        slow_writes_memtable: 0,
        slow_writes_delayed: 0,
        slow_writes_log: 0,
        slow_writes_device: 0,
        live_bytes: 0,
        bytes_at_rest: 0,
        settle_seconds: 0.0,
        resident_bytes_max: 0,
    };
    make_room(&args.dir)?;
    output.say("  time    writes/s   reads/s    rows/s  write p99  p99.99     max  slow   tables  resident\n")?;
    let mut all = Counts::default();
    let mut left = args.seconds;
    while left > Duration::ZERO && !interrupt.load(Ordering::Relaxed) {
        let db = open(args)?;
        report.openings += 1;
        let spell = left.min(args.reopen);
        let begun = Instant::now();
        let mut ended = Duration::ZERO;
        while ended < spell && !interrupt.load(Ordering::Relaxed) {
            let section = SECTION.min(spell - ended);
            let counts = Workers { db: &db, model: &model, args }.run(section, interrupt)?;
            let took = begun.elapsed() - ended;
            ended = begun.elapsed();
            let section = describe(&counts, &db.stats(), took);
            report.resident_bytes_max = report.resident_bytes_max.max(section.resident_bytes);
            output.say(&line(began.elapsed(), &section))?;
            report.sections.push(section);
            all.add(&counts);
        }
        left = left.saturating_sub(ended.max(Duration::from_millis(1)));
        add_causes(&mut report, &db.stats());
        db.close().map_err(Failure::engine("cannot close the database"))?;
    }
    let db = open(args)?;
    let settled = Instant::now();
    settle(&db, interrupt)?;
    report.settle_seconds = settled.elapsed().as_secs_f64();
    workers::check_all(&db, &model)?;
    report.live_bytes = model.live_bytes();
    db.close().map_err(Failure::engine("cannot close the database"))?;
    report.bytes_at_rest = bytes_at_rest(&args.dir)?;
    report.seconds = began.elapsed().as_secs_f64();
    (report.writes, report.reads, report.rows) = (all.writes, all.reads, all.rows);
    report.write_latency_ns = Percentiles::of(&all.write_ns);
    report.slow_writes = all.slow_writes;
    output.result(&summary(&report), &report)?;
    if interrupt.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { Ok(()) }
}

fn open(args: &SoakArgs) -> Result<Db, Failure> {
    let options = Options::default().memory(args.memory).durability(args.durability);
    Db::open(&args.dir, options).map_err(Failure::engine("cannot open the database"))
}

/// Refuses a directory that holds anything; an earlier soak is not gone on with,
/// as nobody remembers what it wrote.
fn make_room(dir: &Path) -> Result<(), Failure> {
    let not_empty = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    if not_empty {
        return Err(Failure::Usage(format!(
            "{} is not empty; give another directory",
            dir.display()
        )));
    }
    Ok(())
}

fn describe(counts: &Counts, stats: &Stats, took: Duration) -> Section {
    let per_s = |count: u64| count as f64 / took.as_secs_f64();
    Section {
        seconds: took.as_secs_f64(),
        writes_per_s: per_s(counts.writes),
        reads_per_s: per_s(counts.reads),
        rows_per_s: per_s(counts.rows),
        write_latency_ns: Percentiles::of(&counts.write_ns),
        slow_writes: counts.slow_writes,
        table_bytes: stats.table_bytes,
        resident_bytes: resident_bytes(),
    }
}

/// What the system has given the process, in bytes; 0 if it does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = kib.and_then(|rest| rest.trim().strip_suffix(" kB"));
    kib.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) << 10
}

fn bytes_at_rest(dir: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    let entries = std::fs::read_dir(dir).map_err(Failure::os(dir.display().to_string()))?;
    for entry in entries {
        let entry = entry.map_err(Failure::os(dir.display().to_string()))?;
        let metadata = entry.metadata().map_err(Failure::os(dir.display().to_string()))?;
        bytes += if metadata.is_dir() {
            bytes_at_rest(&entry.path())?
        } else {
            std::os::unix::fs::MetadataExt::blocks(&metadata) * 512
        };
    }
    Ok(bytes)
}

fn add_causes(report: &mut Report, stats: &Stats) {
    report.slow_writes_memtable += stats.slow_writes_memtable;
    report.slow_writes_delayed += stats.slow_writes_delayed;
    report.slow_writes_log += stats.slow_writes_log;
    report.slow_writes_device += stats.slow_writes_device;
}

fn ms(ns: u64) -> String {
    format!("{:.2}ms", ns as f64 / 1e6)
}

/// A section in one line; it ended after `time`.
fn line(time: Duration, section: &Section) -> String {
    let Section { writes_per_s, reads_per_s, rows_per_s, write_latency_ns: write, .. } = section;
    format!(
        "{:>6} {:>11} {:>9} {:>9} {:>10} {:>7} {:>7} {:>5} {:>5} MiB {:>5} MiB\n",
        minutes(time),
        grouped(*writes_per_s as u64),
        grouped(*reads_per_s as u64),
        grouped(*rows_per_s as u64),
        ms(write.p99),
        ms(write.p99_99),
        ms(write.max),
        section.slow_writes,
        section.table_bytes >> 20,
        section.resident_bytes >> 20,
    )
}

/// Minutes and seconds, such as `1:05`.
fn minutes(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

fn summary(report: &Report) -> String {
    let mut rates: Vec<f64> = report.sections.iter().map(|s| s.writes_per_s).collect();
    rates.sort_by(f64::total_cmp);
    let median = rates.get(rates.len() / 2).copied().unwrap_or_default();
    let least = rates.first().copied().unwrap_or_default();
    let write = report.write_latency_ns;
    format!(
        "\n{} writes, {} reads, {} rows of scans, all right; {} openings\n\
         writes a second, line by line: median {}, least {} ({:.0} % of it)\n\
         write latency: p50 {}, p99 {}, p99.99 {} ({:.1} times p99), max {}\n\
         writes above {} ms: {}; the engine's causes: memtables full {}, delayed {}, log {}, device {}\n\
         settled in {:.1} s: {} bytes at rest for {} live ({:.3} times); resident {} MiB at most\n",
        grouped(report.writes),
        grouped(report.reads),
        grouped(report.rows),
        report.openings,
        grouped(median as u64),
        grouped(least as u64),
        100.0 * least / median.max(1.0),
        ms(write.p50),
        ms(write.p99),
        ms(write.p99_99),
        write.p99_99 as f64 / write.p99.max(1) as f64,
        ms(write.max),
        SLOW.as_millis(),
        report.slow_writes,
        report.slow_writes_memtable,
        report.slow_writes_delayed,
        report.slow_writes_log,
        report.slow_writes_device,
        report.settle_seconds,
        grouped(report.bytes_at_rest),
        grouped(report.live_bytes),
        report.bytes_at_rest as f64 / report.live_bytes.max(1) as f64,
        report.resident_bytes_max >> 20,
    )
}
