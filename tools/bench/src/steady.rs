//! Whether a phase is in a steady state: what it does goes on as it is.
//!
//! The first third is held against the last one. A cache that fills, compaction that falls
//! behind, or clients that get slower show in that, and mean that a longer phase would have
//! measured something else.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::recorder::Recorder;
use crate::runner::{Progress, Watch};
use crate::size::format_size;
use crate::table::{duration, grouped};
use crate::timeline::{Interval, Look, Timeline};
use crate::workload::OpKind;

/// Seconds below which nothing is said.
pub const SECONDS_MIN: usize = 9;
/// By how much the throughput of a closed loop may differ.
const THROUGHPUT: f64 = 0.1;
/// How many times longer or shorter the median latency of an open loop may be.
const LATENCY: f64 = 1.5;
/// What is shorter than this differs for other reasons.
const LATENCY_NS_MIN: f64 = 10_000.0;
/// By how much the cache's hit rate may differ.
const HIT_RATE: f64 = 0.03;
/// By how many bytes what waits for compaction may grow, and how many times.
const DEBT_BYTES: f64 = (64 << 20) as f64;
const DEBT: f64 = 1.5;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Steady {
    /// Whether it was steady.
    pub is_steady: bool,
    /// What changed, if anything.
    pub reason: Option<String>,
}

/// Judges seconds that follow each other; `None` if they are too few. Of the kinds of operations
/// that are `paced`, which are due at instants of their own, the throughput is what was asked for,
/// and says nothing: of each its median latency counts, and of all others their throughput.
#[must_use]
pub fn judge(intervals: &[Interval], paced: &[OpKind]) -> Option<Steady> {
    let whole: Vec<&Interval> = intervals.iter().filter(|one| one.seconds > 0.5).collect();
    if whole.len() < SECONDS_MIN {
        return None;
    }
    let third = whole.len() / 3;
    let (first, last) = (&whole[..third], &whole[whole.len() - third..]);
    let both = |value: &dyn Fn(&Interval) -> Option<f64>| -> Option<(f64, f64)> {
        Some((mean(first, value)?, mean(last, value)?))
    };
    let mut found = Vec::new();
    let mut tell = |what: &str, (first, last), show: &dyn Fn(f64) -> String| {
        found.push(format!("{what} went from {} to {}", show(first), show(last)));
    };
    let unpaced = |one: &Interval| {
        if paced.is_empty() {
            return Some(one.ops_per_s);
        }
        let of = one.operations.iter().filter(|(kind, _)| !paced.contains(kind));
        of.map(|(_, of)| of.ops as f64 / one.seconds).reduce(|one, other| one + other)
    };
    if let Some(change) = both(&unpaced)
        && differs(change, THROUGHPUT)
    {
        tell("throughput", change, &|value| format!("{}/s", grouped(value.round() as u64)));
    }
    for kind in paced {
        let median = |one: &Interval| {
            let of = one.operations.get(kind).filter(|of| of.ops > 0)?;
            Some((of.latency_ns.p50 as f64).max(LATENCY_NS_MIN).ln())
        };
        if let Some((first, last)) = both(&median)
            && (last - first).abs() > LATENCY.ln()
        {
            let what = format!("the median latency ({})", kind.name());
            tell(&what, (first.exp(), last.exp()), &duration);
        }
    }
    let hit_rate = both(&|one| one.system?.cache_hit_rate);
    if let Some((first, last)) = hit_rate
        && (last - first).abs() > HIT_RATE
    {
        tell("the cache's hit rate", (first, last), &|value| format!("{:.0} %", value * 100.0));
    }
    let debt = both(&|one| Some(one.system?.activity?.compaction_debt_bytes as f64));
    if let Some((first, last)) = debt
        && last - first > DEBT_BYTES
        && last > DEBT * first
    {
        tell("what waits for compaction", (first, last), &|bytes| format_size(bytes as u64));
    }
    let reason = (!found.is_empty()).then(|| found.join("; "));
    Some(Steady { is_steady: reason.is_none(), reason })
}

/// The mean of what is known.
fn mean(of: &[&Interval], value: &dyn Fn(&Interval) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = of.iter().filter_map(|one| value(one)).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn differs((first, last): (f64, f64), by: f64) -> bool {
    (last - first).abs() > by * first.max(last)
}

/// Watches a warm-up, and says when it is enough.
pub struct UntilSteady<'a, T> {
    timeline: Timeline<'a, T>,
    paced: Vec<OpKind>,
    /// Set then; never, if the warm-up is to take its time.
    enough: Option<&'a AtomicBool>,
    last: Option<Steady>,
}

/// Seconds that are looked at.
const RECENT: usize = 12;
/// Nothing can be told before.
pub const STEADY_MIN: Duration = Duration::from_secs(RECENT as u64 + 1);

impl<'a, T: Look> UntilSteady<'a, T> {
    /// For a warm-up of which these kinds of operations are due at instants of their own.
    #[must_use]
    pub fn new(
        timeline: Timeline<'a, T>,
        paced: Vec<OpKind>,
        enough: Option<&'a AtomicBool>,
    ) -> Self {
        Self { timeline, paced, enough, last: None }
    }

    /// What was found last.
    #[must_use]
    pub fn last(&self) -> Option<&Steady> {
        self.last.as_ref()
    }
}

impl<T: Look> Watch for UntilSteady<'_, T> {
    fn progress(&mut self, progress: Progress) {
        self.timeline.progress(progress);
    }

    fn interval(&mut self, number: u64, latencies: &Recorder) {
        self.timeline.interval(number, latencies);
        let recent = self.timeline.recent(RECENT);
        if recent.len() == RECENT {
            self.last = judge(&recent, &self.paced);
        }
        if let (Some(enough), Some(Steady { is_steady: true, .. })) = (self.enough, &self.last) {
            enough.store(true, Ordering::Relaxed);
        }
    }
}

impl fmt::Display for Steady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            None => f.write_str("steady"),
            Some(reason) => write!(f, "not steady: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Record;
    use crate::target::Activity;
    use crate::timeline::System;
    use crate::timeline::tests::intervals;

    fn changed(change: impl Fn(f64, &mut Interval)) -> Vec<Interval> {
        let mut all = intervals(12);
        for (i, one) in all.iter_mut().enumerate() {
            one.system = Some(System {
                seconds: 1.0,
                cpu_ns: 1,
                resident_bytes: None,
                cache_hit_rate: Some(0.5),
                device: None,
                activity: Some(Activity::default()),
            });
            change(i as f64 / 11.0, one);
        }
        all
    }

    /// Those that `intervals` have, all of them.
    const ALL: &[OpKind] = &OpKind::ALL;

    fn reason(intervals: &[Interval], paced: &[OpKind]) -> String {
        judge(intervals, paced).unwrap().reason.unwrap_or_default()
    }

    #[test]
    fn what_goes_on_as_it_is_is_steady() {
        assert_eq!(judge(&intervals(8), &[]), None);
        let steady = Some(Steady { is_steady: true, reason: None });
        assert_eq!(judge(&intervals(9), &[]), steady);
        let noise = changed(|at, one| one.ops_per_s *= 1.0 + 0.3 * (at * 40.0).sin());
        assert_eq!(judge(&noise, &[]), steady);
        let no_ops = changed(|_, one| one.operations.clear());
        assert_eq!(judge(&no_ops, ALL), steady);
    }

    struct Idle;

    impl Look for Idle {
        fn look(&self) -> crate::target::Status {
            crate::target::Status::default()
        }
    }

    #[test]
    fn a_warm_up_is_enough_once_it_is_steady() {
        let bar = crate::output::Bar::new(String::new(), None, 1);
        let enough = AtomicBool::new(false);
        let mut watch = UntilSteady::new(Timeline::new(&Idle, &bar), Vec::new(), Some(&enough));
        let second = |ops: u64| {
            let mut client = Recorder::<u32>::new([OpKind::Read], &crate::pacing::Pace::Closed);
            (0..ops).for_each(|_| client.record(OpKind::Read, 0, 100, 100));
            let mut all = Recorder::empty();
            all.merge(&client);
            all
        };
        // It gets faster, and then stays so.
        for number in 0..40 {
            assert!(!enough.load(Ordering::Relaxed), "{number}");
            watch.interval(number, &second(if number < 20 { 100 + 20 * number } else { 500 }));
            if watch.last().is_some_and(|last| last.is_steady) {
                assert!((25..32).contains(&number), "{number}");
                assert!(enough.load(Ordering::Relaxed));
                return;
            }
        }
        panic!("it is steady");
    }

    /// Reads at a rate, beside a client that writes as fast as it can.
    #[test]
    fn kinds_are_judged_each_by_itself() {
        let with = |change: fn(f64, &mut u64, &mut u64)| {
            changed(|at, one| {
                let mut read = one.operations[&OpKind::Read].clone();
                let mut update = read.clone();
                (read.ops, update.ops) = (4000, 200_000);
                change(at, &mut read.latency_ns.p50, &mut update.ops);
                one.operations = [(OpKind::Read, read), (OpKind::Update, update)].into();
            })
        };
        let reads = with(|at, p50, _| *p50 = 100_000 << (at * 3.0) as u32);
        let told = "the median latency (read) went from 100us to 476us";
        assert_eq!(reason(&reads, &[OpKind::Read]), told);
        let writes = with(|at, _, ops| *ops = 200_000 - (at * 60_000.0) as u64);
        let told = "throughput went from 191,819/s to 148,182/s";
        assert_eq!(reason(&writes, &[OpKind::Read]), told);
        assert_eq!(reason(&writes, &[OpKind::Read, OpKind::Update]), "");
    }

    #[test]
    fn what_changes_is_told() {
        let slower = changed(|at, one| one.ops_per_s = 1000.0 - 300.0 * at);
        assert_eq!(reason(&slower, &[]), "throughput went from 959/s to 741/s");
        assert_eq!(reason(&slower, ALL), "");
        let longer = changed(|at, one| {
            one.operations
                .values_mut()
                .for_each(|of| of.latency_ns.p50 = 1_000_000 << (at * 3.0) as u32);
        });
        assert_eq!(reason(&longer, ALL), "the median latency (read) went from 1.00ms to 4.76ms");
        assert_eq!(reason(&longer, &[]), "");
        let fills = changed(|at, one| one.system.as_mut().unwrap().cache_hit_rate = Some(at / 2.0));
        assert_eq!(reason(&fills, ALL), "the cache's hit rate went from 7 % to 43 %");
        let debt = changed(|at, one| {
            let activity = one.system.as_mut().unwrap().activity.as_mut().unwrap();
            activity.compaction_debt_bytes = (at * 11.0) as u64 * (44 << 20);
        });
        assert_eq!(reason(&debt, &[]), "what waits for compaction went from 66 MiB to 418 MiB");
    }
}
