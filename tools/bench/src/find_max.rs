//! `--find-max`: the highest rate at which a promise is kept.
//!
//! Runs of one rate each: first by larger steps until one keeps the promise and another does
//! not, then in the middle of the two, until they are close to each other. A single run may have
//! been lucky, or had a bad moment: a rate is broken if it breaks the promise twice in
//! succession, and what was found is measured once more. In the end the lowest rate that was
//! broken is tried again, as what is bad for two runs may pass; if it is kept then, the search
//! goes on above it.
//!
//! It does not go below the rate at which a run has ten operations beyond the percentile that is
//! promised: of fewer, the percentile is what the slowest of them happened to meet.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::report::{Latency, Measured};
use crate::table::{counted, grouped};
use crate::workload::OpKind;

/// What is promised of an operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Promise {
    /// Of this kind; without, of each.
    kind: Option<OpKind>,
    statistic: Statistic,
    below_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistic {
    Mean,
    P50,
    P90,
    P99,
    P99_9,
    P99_99,
    Max,
}

impl Statistic {
    const ALL: [(&'static str, Self); 7] = [
        ("mean", Self::Mean),
        ("p50", Self::P50),
        ("p90", Self::P90),
        ("p99", Self::P99),
        ("p99.9", Self::P99_9),
        ("p99.99", Self::P99_99),
        ("max", Self::Max),
    ];

    fn of(self, latency: &Latency) -> u64 {
        match self {
            Self::Mean => latency.mean as u64,
            Self::P50 => latency.p50,
            Self::P90 => latency.p90,
            Self::P99 => latency.p99,
            Self::P99_9 => latency.p99_9,
            Self::P99_99 => latency.p99_99,
            Self::Max => latency.max,
        }
    }
}

/// How many operations beyond a percentile tell it.
const BEYOND_MIN: u64 = 10;

impl Statistic {
    /// How many operations a run has at least that tells it.
    fn ops_min(self) -> u64 {
        match self {
            Self::Max => 0,
            Self::Mean | Self::P50 => 2 * BEYOND_MIN,
            Self::P90 => 10 * BEYOND_MIN,
            Self::P99 => 100 * BEYOND_MIN,
            Self::P99_9 => 1000 * BEYOND_MIN,
            Self::P99_99 => 10_000 * BEYOND_MIN,
        }
    }
}

impl FromStr for Promise {
    type Err = String;

    /// `p99.9<2ms`, or of one kind of operation: `read p99.9<2ms`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "a promise such as \"p99.9<2ms\" or \"read p99<500us\" is needed, of mean, p50, p90, \
             p99, p99.9, p99.99 or max"
                .to_owned()
        };
        let (left, right) = text.split_once('<').ok_or_else(wrong)?;
        let (kind, name) = match left.trim().rsplit_once(' ') {
            Some((kind, name)) => {
                let named = |one: &OpKind| one.name() == kind.trim();
                let unknown = || {
                    let all = OpKind::ALL.map(OpKind::name).join(", ");
                    format!("{} is no operation: there are {all}", kind.trim())
                };
                (Some(OpKind::ALL.into_iter().find(named).ok_or_else(unknown)?), name)
            }
            None => (None, left.trim()),
        };
        let statistic = Statistic::ALL.into_iter().find(|(one, _)| *one == name);
        let (_, statistic) = statistic.ok_or_else(wrong)?;
        let below = humantime::parse_duration(right.trim()).map_err(|_| wrong())?;
        if below.is_zero() || below > Duration::from_secs(3600) {
            return Err("a promise is of a time up to an hour".to_owned());
        }
        Ok(Self { kind, statistic, below_ns: below.as_nanos() as u64 })
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kind) = self.kind {
            write!(f, "{} ", kind.name())?;
        }
        let name = Statistic::ALL.iter().find(|(_, one)| *one == self.statistic);
        let below = humantime::format_duration(Duration::from_nanos(self.below_ns));
        write!(f, "{}<{below}", name.map_or("", |(name, _)| name))
    }
}

impl Promise {
    /// The worst of what it is of; `None` if none of that was done.
    #[must_use]
    pub fn worst_ns(&self, result: &Measured) -> Option<u64> {
        let of = result
            .operations
            .iter()
            .filter(|(kind, of)| of.ops > 0 && self.kind.is_none_or(|only| only == **kind));
        of.map(|(_, of)| self.statistic.of(&of.latency_ns)).max()
    }

    /// Whether a run of such a length kept it, could send all that was due, and had no
    /// backlog in the end: at a rate that is too high by little, operations wait ever longer,
    /// and a short run is over before the promise is broken.
    #[must_use]
    pub fn is_kept(&self, result: &Measured) -> bool {
        result.unsent_ops == 0
            && result.behind_s.is_none()
            && self.worst_ns(result).is_some_and(|ns| self.allows(ns))
    }

    /// Whether a latency is as promised.
    #[must_use]
    pub fn allows(&self, latency_ns: u64) -> bool {
        latency_ns < self.below_ns
    }

    /// The lowest rate, of operations a second, of which runs of such a length can tell whether it
    /// is kept.
    #[must_use]
    pub fn lowest_rate(&self, length: Duration) -> u64 {
        let rate = self.statistic.ops_min() as f64 / length.as_secs_f64();
        (rate.ceil() as u64).max(1)
    }

    /// The kind it is of, if it is of one alone.
    #[must_use]
    pub fn kind(&self) -> Option<OpKind> {
        self.kind
    }
}

/// How much longer than it should a run may take for its last operations: the larger of so
/// many seconds, and such a share of it.
const BACKLOG_MAX: f64 = 0.02;
const BACKLOG_SHARE_MAX: f64 = 0.01;

/// How many seconds after the end of a run of such a length its last operations ended, if that
/// is more than they take by themselves.
#[must_use]
pub fn behind_s(elapsed_s: f64, length_s: f64) -> Option<f64> {
    let behind_s = elapsed_s - length_s;
    (behind_s > BACKLOG_MAX.max(length_s * BACKLOG_SHARE_MAX)).then_some(behind_s)
}

/// What a search came to, for the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// What was to be kept.
    pub promise: String,
    /// The highest rate that kept it, twice; of a search that ended early, until then. 0 if none
    /// did.
    pub rate_ops_per_s: u64,
    /// How many runs at that rate kept it.
    pub times_kept: u32,
    /// Whether it ended by itself. If not, everything else in the report is of the run that it
    /// ended in.
    pub is_complete: bool,
    /// All runs that came to their end.
    pub steps: Vec<Step>,
}

impl Found {
    /// Of a search that ended before it was done, with its best rate and how often that was
    /// kept.
    #[must_use]
    pub fn early(promise: &Promise, best: (u64, u32), steps: Vec<Step>) -> Self {
        let (rate_ops_per_s, times_kept) = best;
        let promise = promise.to_string();
        Self { promise, rate_ops_per_s, times_kept, is_complete: false, steps }
    }

    /// What there is to say, where the report shows a run at the rate `shown`, or in a closed
    /// loop.
    #[must_use]
    pub fn words(&self, shown: Option<u64>) -> String {
        let Self { promise, rate_ops_per_s, times_kept, is_complete, steps } = self;
        let (runs, rate) = (counted(steps.len() as u64, "run"), grouped(*rate_ops_per_s));
        let pace =
            shown.map_or("in a closed loop".to_owned(), |at| format!("at {}/s", grouped(at)));
        let times = match times_kept {
            1 => "once".to_owned(),
            2 => "twice".to_owned(),
            times => format!("{times} times"),
        };
        match (is_complete, rate_ops_per_s) {
            (true, 0) => {
                let lowest = steps.iter().map(|step| step.rate_ops_per_s).min().unwrap_or(0);
                let lowest = grouped(lowest);
                format!(
                    "Of {runs}, down to {lowest}/s, none kept {promise}; all else is of the last \
                     one, {pace}."
                )
            }
            // There were no more runs to be sure.
            (true, _) if *times_kept < 2 => format!(
                "Of {runs}, the highest rate that kept {promise} is {rate}/s, {times}; all else is of \
                 that run."
            ),
            (true, _) => format!(
                "Of {runs}, the highest rate that keeps {promise} is {rate}/s; all else is of a run \
                 at that rate."
            ),
            (false, best) => {
                let best = match best {
                    0 => "no rate has kept it so far".to_owned(),
                    _ => format!("the best rate so far is {rate}/s, which kept it {times}"),
                };
                format!(
                    "The search for the highest rate that keeps {promise} ended early, after \
                     {runs}: {best}; all else is of the run that it ended in, {pace}."
                )
            }
        }
    }
}

/// One run of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Operations due a second.
    pub rate_ops_per_s: u64,
    /// What the promise is of, in nanoseconds.
    pub latency_ns: Option<u64>,
    /// Operations that were due and never sent.
    pub unsent_ops: u64,
    /// Whether the promise was kept.
    pub is_kept: bool,
}

/// By how much a rate is changed while only one side is known; each time by more.
const FACTOR: f64 = 1.6;
const FACTOR_MAX: f64 = 16.0;
/// How close to each other the two sides are in the end.
const CLOSE: f64 = 1.03;
/// No higher rate is tried.
const RATE_MAX: f64 = 1e9;
/// Runs at most: machines that change their mind would be searched for ever.
const RUNS_MAX: usize = 60;

/// Which rate is next.
#[derive(Debug)]
pub struct Search {
    /// The highest rate that kept the promise, and how often in succession.
    kept: Option<(f64, u32)>,
    /// The lowest that did not, twice in succession, of those above.
    broken: Option<f64>,
    /// That was tried again in the end, and did not either.
    is_checked: bool,
    /// The next rate did not, once.
    is_in_doubt: bool,
    next: f64,
    /// No lower one is tried.
    lowest: f64,
    factor: f64,
    runs: usize,
}

/// How a search goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// With a run at this rate.
    Run(u64),
    /// It does not: this is the rate.
    Found(u64),
    /// It does not: no rate keeps the promise.
    Nothing,
}

impl Search {
    /// Begins with this rate, or with the lowest that is tried, if that is higher.
    #[must_use]
    pub fn new(rate: u64, lowest: u64) -> Self {
        let lowest = lowest.max(1) as f64;
        Self {
            kept: None,
            broken: None,
            is_checked: false,
            is_in_doubt: false,
            next: (rate as f64).max(lowest),
            lowest,
            factor: FACTOR,
            runs: 0,
        }
    }

    /// The highest rate that kept the promise until now, and how often; 0 if none did.
    #[must_use]
    pub fn best(&self) -> (u64, u32) {
        self.kept.map_or((0, 0), |(kept, times)| (kept.round() as u64, times))
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> Next {
        let rate = |rate: f64| rate.round().max(1.0) as u64;
        match (self.kept, self.broken) {
            (Some((kept, times)), Some(broken))
                if times >= 2 && is_close(kept, broken) && self.is_checked =>
            {
                Next::Found(rate(kept))
            }
            (Some((kept, _)), _) if self.runs >= RUNS_MAX => Next::Found(rate(kept)),
            (None, _) if self.runs >= RUNS_MAX => Next::Nothing,
            (Some((kept, _)), None) if kept >= RATE_MAX => Next::Found(rate(kept)),
            (None, Some(broken)) if broken <= self.lowest => Next::Nothing,
            _ => Next::Run(rate(self.next)),
        }
    }

    /// A run at the rate of [`Search::next`] kept the promise, or not.
    pub fn tell(&mut self, is_kept: bool) {
        self.runs += 1;
        let rate = self.next;
        if is_kept {
            let again = self.kept.is_some_and(|(kept, _)| kept == rate);
            let times = self.kept.map_or(0, |(_, times)| times);
            self.kept = Some((rate, if again { times + 1 } else { 1 }));
            // It had been unlucky.
            self.broken = self.broken.filter(|broken| *broken > rate);
        } else if self.broken == Some(rate) {
            self.is_checked = true;
        } else if !self.is_in_doubt {
            self.is_in_doubt = true;
            return;
        } else {
            (self.broken, self.is_checked) = (Some(rate), false);
            // It had been lucky.
            self.kept = self.kept.filter(|(kept, _)| *kept < rate);
        }
        self.is_in_doubt = false;
        let factor = self.factor;
        self.factor = match (self.kept, self.broken) {
            (Some(_), Some(_)) => FACTOR,
            _ => (factor * FACTOR).min(FACTOR_MAX),
        };
        self.next = match (self.kept, self.broken) {
            (Some((kept, times)), Some(broken)) if is_close(kept, broken) => {
                if times >= 2 {
                    broken
                } else {
                    kept
                }
            }
            (Some((kept, _)), Some(broken)) => (kept * broken).sqrt(),
            (Some((kept, _)), None) => (kept * factor).min(RATE_MAX),
            (None, Some(broken)) => (broken / factor).max(self.lowest),
            (None, None) => rate,
        };
    }
}

fn is_close(kept: f64, broken: f64) -> bool {
    broken <= kept * CLOSE || broken - kept <= 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(start: u64, keeps: impl Fn(u64) -> bool) -> (Next, usize) {
        let mut search = Search::new(start, 1);
        loop {
            match search.next() {
                Next::Run(rate) => search.tell(keeps(rate)),
                end => return (end, search.runs),
            }
        }
    }

    #[test]
    fn the_highest_rate_is_found_from_wherever_the_search_begins() {
        for highest in [1, 2, 17, 1000, 123_456, 40_000_000] {
            for start in [1, 100, 50_000, 600_000_000] {
                let (end, runs) = search(start, |rate| rate <= highest);
                let Next::Found(found) = end else { panic!("{start} {highest}: {end:?}") };
                let low = (highest as f64 / CLOSE).floor() as u64;
                assert!((low.min(highest - 1)..=highest).contains(&found), "{found} {highest}");
                assert!(runs <= RUNS_MAX, "{runs}");
            }
        }
    }

    /// A cold cache, a neighbour's compiler: bad for a run or two, whichever those are.
    #[test]
    fn a_bad_moment_is_not_the_ceiling() {
        let highest = 1_100_000;
        for length in [1, 2] {
            for bad in 0..RUNS_MAX {
                let runs = std::cell::Cell::new(0);
                let (end, _) = search(30_000, |rate| {
                    let run = runs.replace(runs.get() + 1);
                    rate <= highest && !(bad..bad + length).contains(&run)
                });
                let Next::Found(found) = end else { panic!("{bad}: {end:?}") };
                let low = (highest as f64 / CLOSE / CLOSE) as u64;
                assert!((low..=highest).contains(&found), "{length} from {bad} on: {found}");
            }
        }
    }

    #[test]
    fn a_broken_rate_is_tried_again_at_once() {
        let mut search = Search::new(1000, 1);
        search.tell(false);
        assert_eq!(search.next(), Next::Run(1000));
        search.tell(true);
        assert_eq!((search.next(), search.best()), (Next::Run(1600), (1000, 1)));
        search.tell(false);
        search.tell(false);
        assert_eq!(search.next(), Next::Run(1265));
        assert_eq!(search.best(), (1000, 1));
    }

    #[test]
    fn what_a_search_came_to_is_said_as_it_is() {
        let step = Step { rate_ops_per_s: 5, latency_ns: None, unsent_ops: 0, is_kept: true };
        let found = |rate_ops_per_s, times_kept, is_complete| Found {
            promise: "p99<2ms".to_owned(),
            rate_ops_per_s,
            times_kept,
            is_complete,
            steps: vec![step; 3],
        };
        for (found, shown, words) in [
            (
                found(1234, 2, true),
                Some(1234),
                "Of 3 runs, the highest rate that keeps p99<2ms is 1,234/s; all else is of a run at \
                 that rate.",
            ),
            (
                found(1234, 1, true),
                Some(1234),
                "Of 3 runs, the highest rate that kept p99<2ms is 1,234/s, once; all else is of that \
                 run.",
            ),
            (
                found(0, 0, true),
                Some(7),
                "Of 3 runs, down to 5/s, none kept p99<2ms; all else is of the last one, at 7/s.",
            ),
            (
                found(1234, 1, false),
                Some(2000),
                "The search for the highest rate that keeps p99<2ms ended early, after 3 runs: the \
                 best rate so far is 1,234/s, which kept it once; all else is of the run that it \
                 ended in, at 2,000/s.",
            ),
            (
                found(0, 0, false),
                None,
                "The search for the highest rate that keeps p99<2ms ended early, after 3 runs: no \
                 rate has kept it so far; all else is of the run that it ended in, in a closed \
                 loop.",
            ),
        ] {
            assert_eq!(found.words(shown), words);
        }
    }

    /// 5 % too much for ten seconds are half a second of work.
    #[test]
    fn what_is_not_done_in_time_is_a_backlog() {
        for (elapsed_s, length_s, expected) in
            [(10.0, 10.0, false), (10.09, 10.0, false), (10.5, 10.0, true), (0.019, 0.01, false)]
        {
            let found = behind_s(elapsed_s, length_s).is_some();
            assert_eq!(found, expected, "{elapsed_s} of {length_s}");
        }
        let mut result = crate::table::tests::large("run", None).result;
        (result.unsent_ops, result.behind_s) = (0, None);
        let promise: Promise = "max<1h".parse().unwrap();
        assert!(promise.is_kept(&result));
        result.behind_s = Some(1.0);
        assert!(!promise.is_kept(&result));
        (result.unsent_ops, result.behind_s) = (1, None);
        assert!(!promise.is_kept(&result));
    }

    #[test]
    fn a_promise_that_every_rate_keeps_ends_the_search() {
        assert!(matches!(search(1000, |_| true), (Next::Found(1_000_000_000), _)));
    }

    #[test]
    fn a_promise_that_no_rate_keeps_is_told() {
        assert_eq!(search(50_000, |_| false).0, Next::Nothing);
    }

    /// One slow operation of a hundred would be their p99.9.
    #[test]
    fn no_rate_is_tried_that_tells_nothing() {
        let lowest = |promise: &str, seconds| {
            let promise: Promise = promise.parse().unwrap();
            promise.lowest_rate(Duration::from_secs_f64(seconds))
        };
        assert_eq!(lowest("p99.9<2ms", 5.0), 2000);
        assert_eq!(lowest("p99<2ms", 0.3), 3334);
        assert_eq!(lowest("max<2ms", 60.0), 1);
        let mut search = Search::new(100, 2000);
        let mut rates = Vec::new();
        while let Next::Run(rate) = search.next() {
            rates.push(rate);
            search.tell(false);
        }
        assert_eq!((search.next(), &rates[..]), (Next::Nothing, &[2000, 2000][..]));
        let mut search = Search::new(50_000, 2000);
        while let Next::Run(rate) = search.next() {
            assert!(rate >= 2000, "{rate}");
            search.tell(rate <= 2100);
        }
        let Next::Found(found) = search.next() else { panic!("{search:?}") };
        assert!((2039..=2100).contains(&found), "{found}");
    }

    #[test]
    fn a_rate_that_was_lucky_once_is_not_found() {
        let luck = std::cell::Cell::new(true);
        let (end, _) =
            search(10_000, |rate| rate <= 5000 || (rate == 10_000 && luck.replace(false)));
        let Next::Found(found) = end else { panic!("{end:?}") };
        assert!((4800..=5000).contains(&found), "{found}");
    }

    #[test]
    fn promises_are_read_and_written() {
        for text in
            ["p99.9<2ms", "read p99<500us", "max<1s", "mean<100ns", "read_modify_write p50<1ms"]
        {
            assert_eq!(text.parse::<Promise>().unwrap().to_string(), text);
        }
        assert_eq!("p99 < 2ms".parse::<Promise>(), "p99<2ms".parse());
        for text in ["", "p99", "p99>2ms", "p98<2ms", "write p99<2ms", "p99<2", "p99<0ms", "p99<2h"]
        {
            assert!(text.parse::<Promise>().is_err(), "{text}");
        }
    }
}
