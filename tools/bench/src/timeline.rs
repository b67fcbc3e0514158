//! A phase second by second: what its operations took, and what engine and process did
//! meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::hlog;
use crate::intervals::INTERVAL_NS;
use crate::machine::{cpu_time, resident_bytes};
use crate::output::Bar;
use crate::recorder::Recorder;
use crate::report::Latency;
use crate::runner::{Progress, Watch};
use crate::target::{Activity, Device, Status, Target};
use crate::workload::OpKind;

/// What is shorter than this many seconds is a part of the interval before it.
const SECONDS_MIN: f64 = 0.1;

/// One second of a phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// When it began, from the start of the phase on.
    pub start_s: f64,
    /// How long it lasted: a second, but for the last one.
    pub seconds: f64,
    /// Operations that ended in it.
    pub ops: u64,
    /// The same for each second.
    pub ops_per_s: f64,
    /// By kind of operation; those of which none ended are missing.
    pub operations: BTreeMap<OpKind, IntervalOf>,
    /// What engine and process did meanwhile. Absent when nobody came to look, as the machine
    /// was busy.
    pub system: Option<System>,
}

/// One kind of operation in an interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IntervalOf {
    /// How many ended.
    pub ops: u64,
    /// How long they took, as [`Operation::latency_ns`](crate::report::Operation::latency_ns).
    pub latency_ns: Latency,
    /// The same, all of it: an HDR histogram, compressed (V2) and in base64.
    pub histogram: String,
    /// How long they took from when they were sent, in an open loop; only for the log.
    #[serde(skip)]
    pub service_histogram: Option<String>,
}

/// What was done in about the time of an interval: looked at shortly after its end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct System {
    /// How long that was.
    pub seconds: f64,
    /// CPU time of the whole process.
    pub cpu_ns: u64,
    /// Memory of the process that was there at the end.
    pub resident_bytes: Option<u64>,
    /// What share of the blocks that reads looked for the engine's cache had.
    pub cache_hit_rate: Option<f64>,
    /// What the engine submitted to the device.
    pub device: Option<Device>,
    /// What else it did.
    pub activity: Option<Activity>,
}

/// Says what an engine is doing.
pub trait Look {
    /// What it says of itself now.
    fn look(&self) -> Status;
}

impl<T: Target> Look for T {
    fn look(&self) -> Status {
        self.status()
    }
}

/// Watches a phase.
pub struct Timeline<'a, T> {
    target: &'a T,
    bar: &'a Bar,
    intervals: BTreeMap<u64, Interval>,
    systems: BTreeMap<u64, System>,
    /// When it was last looked at engine and process, and how they were.
    last: (Duration, Duration, Status),
}

impl<'a, T: Look> Timeline<'a, T> {
    /// The phase begins now, or soon.
    #[must_use]
    pub fn new(target: &'a T, bar: &'a Bar) -> Self {
        let last = (Duration::ZERO, cpu_time(), target.look());
        Self { target, bar, intervals: BTreeMap::new(), systems: BTreeMap::new(), last }
    }

    /// Looks at engine and process, `elapsed` after the start; interval `number` is over.
    fn look(&mut self, elapsed: Duration, number: u64) {
        let (cpu, status) = (cpu_time(), self.target.look());
        let (then, cpu_then, before) = std::mem::replace(&mut self.last, (elapsed, cpu, status));
        let activity = status.activity.zip(before.activity).map(|(now, then)| now.since(then));
        let system = System {
            seconds: (elapsed - then).as_secs_f64(),
            cpu_ns: cpu.saturating_sub(cpu_then).as_nanos() as u64,
            resident_bytes: resident_bytes(),
            cache_hit_rate: activity.and_then(hit_rate),
            device: status.device.zip(before.device).map(|(now, then)| now.since(then)),
            activity,
        };
        self.systems.insert(number, system);
    }

    /// The last so many intervals that are complete.
    #[must_use]
    pub fn recent(&self, count: usize) -> Vec<Interval> {
        let recent = self.intervals.iter().rev().take(count).map(|(number, interval)| Interval {
            system: self.systems.get(number).copied(),
            ..interval.clone()
        });
        let mut recent: Vec<_> = recent.collect();
        recent.reverse();
        recent
    }

    /// The phase is over, after `elapsed`.
    #[must_use]
    pub fn finish(mut self, elapsed: Duration) -> Vec<Interval> {
        if elapsed.is_zero() && self.intervals.is_empty() {
            return Vec::new();
        }
        let elapsed_ns = elapsed.as_nanos() as u64;
        let last = elapsed_ns.saturating_sub(1) / INTERVAL_NS;
        if elapsed > self.last.0 && !self.systems.contains_key(&last) {
            self.look(elapsed, last);
        }
        let count = self.intervals.last_key_value().map_or(0, |(number, _)| number + 1);
        let mut all: Vec<Interval> = (0..count.max(last + 1))
            .map(|number| {
                let interval = self.intervals.remove(&number);
                let mut interval =
                    interval.unwrap_or_else(|| Interval::new(number, &Recorder::empty()));
                let seconds = elapsed.as_secs_f64() - interval.start_s;
                if number == last && seconds > 0.0 {
                    interval.seconds = seconds.min(1.0);
                    interval.ops_per_s = interval.ops as f64 / interval.seconds;
                }
                interval.system = self.systems.remove(&number);
                interval
            })
            .collect();
        // The last operations end a little after the time is up: no interval of its own.
        if all.len() > 1 && all.last().is_some_and(|last| last.seconds < SECONDS_MIN) {
            let tail = all.split_off(all.len() - 2);
            all.push(joined(&tail).expect("what was encoded is decoded"));
        }
        all
    }
}

impl<T: Look> Watch for Timeline<'_, T> {
    fn progress(&mut self, progress: Progress) {
        self.bar.update(progress);
        let over = progress.elapsed.as_nanos() as u64 / INTERVAL_NS;
        if over > self.last.0.as_nanos() as u64 / INTERVAL_NS {
            self.look(progress.elapsed, over - 1);
        }
    }

    fn interval(&mut self, number: u64, latencies: &Recorder) {
        self.intervals.insert(number, Interval::new(number, latencies));
    }
}

impl Interval {
    fn new(number: u64, latencies: &Recorder) -> Self {
        let nothing = |histogram: &&Histogram<u64>| !histogram.is_empty();
        let operations = OpKind::ALL.into_iter().filter_map(|kind| {
            let histogram = latencies.histogram(kind).filter(nothing)?;
            let of = IntervalOf {
                ops: histogram.len(),
                latency_ns: Latency::new(histogram),
                histogram: hlog::encode(histogram),
                service_histogram: latencies.service(kind).filter(nothing).map(hlog::encode),
            };
            Some((kind, of))
        });
        Self {
            start_s: (number * INTERVAL_NS) as f64 / 1e9,
            seconds: INTERVAL_NS as f64 / 1e9,
            ops: latencies.total(),
            ops_per_s: latencies.total() as f64,
            operations: operations.collect(),
            system: None,
        }
    }
}

/// The same in at most `count_max` intervals, each of as many seconds as the others.
pub fn coarsened(intervals: &[Interval], count_max: usize) -> Result<Vec<Interval>, String> {
    let each = intervals.len().div_ceil(count_max).max(1);
    intervals.chunks(each).map(joined).collect()
}

/// Intervals that follow each other, as one.
fn joined(parts: &[Interval]) -> Result<Interval, String> {
    let [first, rest @ ..] = parts else { return Err("no interval is none".to_owned()) };
    if rest.is_empty() {
        return Ok(first.clone());
    }
    let seconds: f64 = parts.iter().map(|part| part.seconds).sum();
    let ops = parts.iter().map(|part| part.ops).sum();
    let mut operations = BTreeMap::new();
    for kind in OpKind::ALL {
        let of = || parts.iter().filter_map(|part| part.operations.get(&kind));
        let Some(all) = sum(of().map(|of| &*of.histogram))? else { continue };
        let service = sum(of().filter_map(|of| of.service_histogram.as_deref()))?;
        let of = IntervalOf {
            ops: all.len(),
            latency_ns: Latency::new(&all),
            histogram: hlog::encode(&all),
            service_histogram: service.as_ref().map(hlog::encode),
        };
        operations.insert(kind, of);
    }
    let systems = parts.iter().filter_map(|part| part.system);
    let system = systems.reduce(|one, next| System {
        seconds: one.seconds + next.seconds,
        cpu_ns: one.cpu_ns + next.cpu_ns,
        device: one.device.zip(next.device).map(|(one, next)| one.and(next)),
        activity: one.activity.zip(next.activity).map(|(one, next)| one.and(next)),
        ..next
    });
    let system = system.map(|system| System {
        cache_hit_rate: system.activity.and_then(hit_rate).or(system.cache_hit_rate),
        ..system
    });
    let (start_s, ops_per_s) = (first.start_s, ops as f64 / seconds);
    Ok(Interval { start_s, seconds, ops, ops_per_s, operations, system })
}

/// Encoded histograms, as one.
fn sum<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Option<Histogram<u64>>, String> {
    let mut all: Option<Histogram<u64>> = None;
    for text in texts {
        let histogram = hlog::decode(text)?;
        match &mut all {
            None => all = Some(histogram),
            Some(all) => all.add(&histogram).map_err(|error| error.to_string())?,
        }
    }
    Ok(all)
}

fn hit_rate(activity: Activity) -> Option<f64> {
    let looked = activity.cache_hits + activity.cache_misses;
    (looked > 0).then(|| activity.cache_hits as f64 / looked as f64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::pacing::Pace;
    use crate::recorder::Record;

    fn latencies(values: &[u64]) -> Recorder {
        let mut client = Recorder::<u32>::new([OpKind::Read, OpKind::Scan], &Pace::Closed);
        values.iter().for_each(|ns| client.record(OpKind::Read, 0, *ns, *ns));
        let mut all = Recorder::empty();
        all.merge(&client);
        all
    }

    /// So many seconds, each with two reads.
    pub(crate) fn intervals(count: u64) -> Vec<Interval> {
        let all = latencies(&[1000, 20_000]);
        let one = Interval::new(0, &all);
        (0..count).map(|second| Interval { start_s: second as f64, ..one.clone() }).collect()
    }

    /// Has a shape of activity that changes as it says.
    struct Engine(std::sync::atomic::AtomicU64);

    fn status(done: u64) -> Status {
        let activity = Activity {
            cache_hits: 3 * done,
            cache_misses: done,
            flushes: done,
            level_0_tables: 7 * done,
            ..Activity::default()
        };
        let device = Device {
            reads: Some(done),
            bytes_read: 10 * done,
            writes: None,
            bytes_written: 0,
            syncs: None,
            durable_writes: None,
        };
        Status { activity: Some(activity), device: Some(device), ..Status::default() }
    }

    impl Look for Engine {
        fn look(&self) -> Status {
            status(self.0.load(std::sync::atomic::Ordering::Relaxed))
        }
    }

    #[test]
    fn seconds_have_what_was_done_in_them() {
        let engine = Engine(5.into());
        let bar = Bar::new(String::new(), Some(1), 0);
        let mut timeline = Timeline::new(&engine, &bar);
        let at = |timeline: &mut Timeline<'_, Engine>, millis, done| {
            engine.0.store(done, std::sync::atomic::Ordering::Relaxed);
            timeline.progress(Progress { elapsed: Duration::from_millis(millis), ops: 0 });
        };
        at(&mut timeline, 400, 6);
        at(&mut timeline, 1050, 8);
        timeline.interval(0, &latencies(&[10, 20]));
        // Nobody looked for two seconds.
        at(&mut timeline, 3010, 20);
        timeline.interval(1, &latencies(&[]));
        timeline.interval(2, &latencies(&[30]));
        timeline.interval(3, &latencies(&[40, 50, 60]));
        let rows = timeline.finish(Duration::from_millis(3500));
        let ops: Vec<_> = rows.iter().map(|row| (row.start_s, row.seconds, row.ops)).collect();
        assert_eq!(ops, [(0.0, 1.0, 2), (1.0, 1.0, 0), (2.0, 1.0, 1), (3.0, 0.5, 3)]);
        assert_eq!(rows[3].ops_per_s, 6.0);
        assert!(rows[1].operations.is_empty() && rows[1].system.is_none());
        assert_eq!(rows[2].operations.keys().collect::<Vec<_>>(), [&OpKind::Read]);
        let system = |row: &Interval| row.system.unwrap();
        let (first, third) = (system(&rows[0]), system(&rows[2]));
        assert_eq!((first.seconds, third.seconds), (1.05, 1.96));
        assert_eq!(first.cache_hit_rate, Some(0.75));
        assert_eq!(first.activity.unwrap().flushes, 3);
        assert_eq!(third.activity.unwrap().flushes, 12);
        assert_eq!(third.activity.unwrap().level_0_tables, 140);
        assert_eq!(third.device.unwrap().reads, Some(12));
        assert_eq!(third.device.unwrap().writes, None);
        // Nothing was looked for.
        assert_eq!(system(&rows[3]).cache_hit_rate, None);
    }

    #[test]
    fn a_last_moment_is_a_part_of_the_second_before() {
        let engine = Engine(0.into());
        let bar = Bar::new(String::new(), Some(1), 0);
        let mut timeline = Timeline::new(&engine, &bar);
        timeline.interval(0, &latencies(&[10]));
        timeline.interval(1, &latencies(&[20, 30]));
        let rows = timeline.finish(Duration::from_micros(1_000_050));
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].seconds, rows[0].ops), (1.00005, 3));
        assert_eq!(rows[0].operations[&OpKind::Read].latency_ns.max, 30);
    }

    #[test]
    fn a_phase_without_operations_has_empty_seconds() {
        let engine = Engine(0.into());
        let bar = Bar::new(String::new(), Some(1), 0);
        let rows = Timeline::new(&engine, &bar).finish(Duration::from_millis(2300));
        assert_eq!(rows.iter().map(|row| row.ops).collect::<Vec<_>>(), [0, 0, 0]);
    }

    #[test]
    fn a_phase_that_did_not_last_has_no_seconds() {
        let engine = Engine(0.into());
        let bar = Bar::new(String::new(), Some(1), 0);
        assert_eq!(Timeline::new(&engine, &bar).finish(Duration::ZERO), []);
    }

    #[test]
    fn coarser_intervals_have_all_there_is() {
        assert_eq!(coarsened(&[], 10).unwrap(), []);
        let fine = intervals(10);
        assert_eq!(coarsened(&fine, 10).unwrap(), fine);
        let coarse = coarsened(&fine, 4).unwrap();
        let found: Vec<_> = coarse.iter().map(|row| (row.start_s, row.seconds, row.ops)).collect();
        assert_eq!(found, [(0.0, 3.0, 6), (3.0, 3.0, 6), (6.0, 3.0, 6), (9.0, 1.0, 2)]);
        let reads = &coarse[0].operations[&OpKind::Read];
        assert_eq!((reads.ops, coarse[0].ops_per_s), (6, 2.0));
        assert_eq!(hlog::decode(&reads.histogram).unwrap().len(), 6);
    }
}
