//! How far figures of a run may be off, as its seconds are not independent of each other: a
//! compaction, or a full cache, lasts for many of them.
//!
//! The run is put together again from blocks of its own seconds, many times, and the figures are
//! taken of each: the circular block bootstrap (D. N. Politis, J. P. Romano, *A circular
//! block-resampling procedure for stationary data*, 1992). Blocks are twice as long as seconds
//! are seen to depend on each other. How long that is follows the rule for it in D. N. Politis,
//! H. White, *Automatic block-length selection for the dependent bootstrap*, Econometric Reviews
//! 23.1 (2004), whose own blocks are shorter.
//!
//! Few blocks know little of how much blocks vary: intervals are made longer by what Student's
//! distribution is wider than the normal one, and by what is lost at the ends of blocks. Where
//! more confidence is wanted than so many resampled runs can tell of, it is that distribution, too, that
//! says how much longer.

use std::collections::{BTreeMap, BTreeSet};

use hdrhistogram::Histogram;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Runs that are put together.
pub(super) const RESAMPLES: usize = 2000;
/// Seconds of a run that count on their own; of a longer one several are put together.
const STEPS_MAX: usize = 240;
/// With fewer nothing is said.
pub(super) const STEPS_MIN: usize = 8;

/// A figure of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    /// Operations a second.
    Throughput,
    /// Latencies of a kind of operation, in nanoseconds.
    Latency(String, Statistic),
}

/// What of the latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Statistic {
    Mean,
    /// That within which so many of 10,000 operations ended.
    Quantile(u64),
}

/// The quantiles that runs are compared by, of 10,000.
const QUANTILES: [u64; 3] = [5_000, 9_900, 9_990];
/// So many operations must be beyond a quantile.
const BEYOND_MIN: u64 = 10;

/// What ended in a step.
#[derive(Debug, Default)]
struct Step {
    seconds: f64,
    ops: u64,
    /// By kind: indices into the run's values, and how many operations had each.
    kinds: BTreeMap<String, Vec<(usize, u64)>>,
}

/// A run, step by step.
#[derive(Debug, Default)]
pub(super) struct Run {
    steps: Vec<Step>,
    /// Latencies that occur, ascending.
    values: Vec<u64>,
}

/// A second of a run: how long it lasted, and latencies by kind.
pub(super) type Second = (f64, BTreeMap<String, Histogram<u64>>);

impl Run {
    pub(super) fn new(seconds: &[Second]) -> Self {
        // The end of the last one came at any time.
        let whole = seconds.iter().filter(|(seconds, _)| *seconds > 0.5);
        let whole: Vec<&Second> = whole.collect();
        let of = |(_, kinds): &&Second| {
            let all = kinds.values().flat_map(Histogram::iter_recorded);
            all.map(|cell| cell.value_iterated_to()).collect::<Vec<_>>()
        };
        let values: BTreeSet<u64> = whole.iter().flat_map(of).collect();
        let values: Vec<u64> = values.into_iter().collect();
        let each = whole.len().div_ceil(STEPS_MAX).max(1);
        let steps = whole.chunks(each).map(|seconds| Step::new(seconds, &values)).collect();
        Self { steps, values }
    }

    /// How many steps there are.
    pub(super) fn steps(&self) -> usize {
        self.steps.len()
    }

    /// How many operations of each kind ended in it.
    pub(super) fn counts(&self) -> BTreeMap<&str, u64> {
        let mut counts = BTreeMap::new();
        for (kind, cells) in self.steps.iter().flat_map(|step| &step.kinds) {
            *counts.entry(&**kind).or_default() +=
                cells.iter().map(|(_, count)| count).sum::<u64>();
        }
        counts
    }

    /// The figures of the whole run.
    pub(super) fn figures(&self) -> BTreeMap<Figure, f64> {
        self.figures_of(&(0..self.steps.len()).collect::<Vec<_>>())
    }

    /// The figures of runs that are put together from this one's steps.
    pub(super) fn resampled(&self, seed: u64) -> Vec<BTreeMap<Figure, f64>> {
        let (count, block) = (self.steps.len(), self.block());
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut one = || {
            let mut steps = Vec::with_capacity(count);
            while steps.len() < count {
                let begin = rng.usize(..count);
                let left = count - steps.len();
                steps.extend((begin..begin + block.min(left)).map(|step| step % count));
            }
            self.figures_of(&steps)
        };
        (0..RESAMPLES).map(|_| one()).collect()
    }

    fn figures_of(&self, steps: &[usize]) -> BTreeMap<Figure, f64> {
        let chosen = || steps.iter().map(|step| &self.steps[*step]);
        let seconds: f64 = chosen().map(|step| step.seconds).sum();
        let ops: u64 = chosen().map(|step| step.ops).sum();
        let mut figures = BTreeMap::from([(Figure::Throughput, ops as f64 / seconds)]);
        let kinds: BTreeSet<&String> =
            self.steps.iter().flat_map(|step| step.kinds.keys()).collect();
        let mut counts = vec![0; self.values.len()];
        for kind in kinds {
            counts.fill(0);
            for (value, count) in chosen().filter_map(|step| step.kinds.get(kind)).flatten() {
                counts[*value] += count;
            }
            let total: u64 = counts.iter().sum();
            if total == 0 {
                continue;
            }
            let sum: f64 =
                counts.iter().zip(&self.values).map(|(n, ns)| *n as f64 * *ns as f64).sum();
            figures.insert(Figure::Latency(kind.clone(), Statistic::Mean), sum / total as f64);
            for quantile in QUANTILES {
                if total * (10_000 - quantile) / 10_000 < BEYOND_MIN {
                    continue;
                }
                let wanted = (total * quantile).div_ceil(10_000);
                let mut below = 0;
                let at = counts.iter().position(|count| {
                    below += count;
                    below >= wanted
                });
                let ns = self.values[at.expect("all of them are not fewer than a share of them")];
                let figure = Figure::Latency(kind.clone(), Statistic::Quantile(quantile));
                figures.insert(figure, ns as f64);
            }
        }
        figures
    }

    /// How much longer the interval that holds the share `held` of the resampled figures is to be
    /// made, so that one may have this confidence in it.
    pub(super) fn widening(&self, held: f64, confidence: f64) -> f64 {
        let (steps, block) = (self.steps.len() as f64, self.block() as f64);
        let freedom = (steps / block - 1.0).max(1.0);
        let outside = |share: f64| 0.5 + share / 2.0;
        let student = StudentsT::new(0.0, 1.0, freedom).expect("freedom is positive");
        let normal = Normal::standard().inverse_cdf(outside(held));
        let wider = student.inverse_cdf(outside(confidence)) / normal;
        wider * (steps / (steps - block).max(1.0)).sqrt()
    }

    /// How many steps make a block.
    fn block(&self) -> usize {
        let count = self.steps.len();
        let single = (0..count).map(|step| self.figures_of(&[step]));
        let mut series: BTreeMap<Figure, Vec<f64>> = BTreeMap::new();
        for (figure, value) in single.flatten() {
            series.entry(figure).or_default().push(value);
        }
        let whole = series.into_values().filter(|values| values.len() == count);
        let depends = whole.map(|values| dependence(&values)).max().unwrap_or(0);
        let least = (count as f64).cbrt().ceil() as usize;
        (2 * depends).clamp(least, (count / 4).max(least))
    }
}

impl Step {
    fn new(seconds: &[&Second], values: &[u64]) -> Self {
        let mut step = Self::default();
        for (length, kinds) in seconds {
            step.seconds += length;
            for (kind, histogram) in kinds {
                step.ops += histogram.len();
                let cells = histogram.iter_recorded().map(|cell| {
                    let at = values.binary_search(&cell.value_iterated_to());
                    (at.expect("all values are among them"), cell.count_at_value())
                });
                step.kinds.entry(kind.clone()).or_default().extend(cells);
            }
        }
        step
    }
}

/// Up to which distance values of a series are seen to depend on each other: behind it, five
/// autocorrelations that noise could be.
fn dependence(values: &[f64]) -> usize {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let around: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let variance: f64 = around.iter().map(|value| value * value).sum();
    if variance <= 0.0 {
        return 0;
    }
    let correlation = |lag: usize| {
        let pairs = around.iter().zip(&around[lag.min(around.len())..]);
        pairs.map(|(one, other)| one * other).sum::<f64>() / variance
    };
    let noise = 2.0 * (count.log10() / count).sqrt();
    let is_noise = |lag: usize| correlation(lag).abs() < noise;
    (0..values.len() / 2)
        .find(|at| (1..=5).all(|more| is_noise(at + more)))
        .unwrap_or(values.len() / 2)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Seconds whose latencies and throughput change slowly: each is `memory` of the one
    /// before, and noise.
    pub(crate) fn seconds(count: usize, memory: f64, latency_ns: f64, seed: u64) -> Vec<Second> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut gauss = move || (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
        let mut level = gauss();
        (0..count)
            .map(|_| {
                level = memory * level + (1.0 - memory * memory).sqrt() * gauss();
                let mut histogram = Histogram::new_with_max(3_600_000_000_000, 3).unwrap();
                for _ in 0..200 {
                    let ns = latency_ns * (0.1 * level + 0.3 * gauss()).exp();
                    histogram.record(ns as u64).unwrap();
                }
                (1.0, BTreeMap::from([("read".to_owned(), histogram)]))
            })
            .collect()
    }

    #[test]
    fn figures_are_those_of_the_merged_histograms() {
        let seconds = seconds(40, 0.5, 1e5, 1);
        let mut all = Histogram::<u64>::new(3).unwrap();
        seconds.iter().for_each(|(_, kinds)| all.add(&kinds["read"]).unwrap());
        let figures = Run::new(&seconds).figures();
        assert_eq!(figures[&Figure::Throughput], 200.0);
        let read = |of| Figure::Latency("read".to_owned(), of);
        for quantile in [5_000, 9_900] {
            let expected = all.value_at_quantile(quantile as f64 / 1e4);
            assert_eq!(figures[&read(Statistic::Quantile(quantile))], expected as f64);
        }
        let mean = figures[&read(Statistic::Mean)];
        assert!((mean / all.mean() - 1.0).abs() < 1e-3, "{mean} {}", all.mean());
        // 8,000 operations are too few: 8 are beyond it.
        assert!(!figures.contains_key(&read(Statistic::Quantile(9_990))));
    }

    #[test]
    fn blocks_are_longer_where_seconds_depend_on_each_other() {
        let block = |memory| {
            let blocks = (0..9).map(|seed| Run::new(&seconds(120, memory, 1e5, seed)).block());
            let mut blocks: Vec<usize> = blocks.collect();
            blocks.sort_unstable();
            blocks[4]
        };
        assert_eq!(block(0.0), 5, "the third root of 120");
        assert!(block(0.9) > 12, "{}", block(0.9));
    }

    /// Ten seconds are three blocks and a bit: Student's distribution with 2.3 degrees of freedom,
    /// of which 99 % are within 7.86 and 99.8 % within 15.8, where the normal one has 2.58.
    #[test]
    fn more_confidence_takes_longer_intervals() {
        let run = Run::new(&seconds(10, 0.0, 1e5, 3));
        let ends = (10.0_f64 / 7.0).sqrt();
        for (confidence, student) in [(0.99, 7.86), (0.998, 15.8)] {
            let expected = student / 2.576 * ends;
            let found = run.widening(0.99, confidence);
            assert!((found / expected - 1.0).abs() < 0.02, "{found} {expected}");
        }
    }

    #[test]
    fn a_long_run_has_as_many_steps_as_there_may_be() {
        let run = Run::new(&seconds(1000, 0.0, 1e5, 3));
        assert_eq!(run.steps(), 200);
        assert_eq!(run.figures()[&Figure::Throughput], 200.0);
    }
}
