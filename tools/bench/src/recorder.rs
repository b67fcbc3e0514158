//! Latency histograms, one for each kind of operation: of its *response* time, from
//! when it was due in an open loop, and of its *service* time, from when it was sent.
//!
//! Each client records into its own; they are merged when all have ended.

use hdrhistogram::Histogram;

use crate::pacing::Pace;
use crate::workload::OpKind;

/// The longest latency told apart; what lasts longer counts as this long, and
/// is counted apart.
pub const LATENCY_NS_MAX: u64 = 3600 * 1_000_000_000;
/// Percentiles are right to one part in a thousand.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Records latencies by kind of operation.
#[derive(Clone, Debug)]
pub struct Recorder {
    histograms: Histograms,
    /// In an open loop; in a closed one it is the same.
    service: Option<Histograms>,
    saturated: u64,
}

type Histograms = [Option<Histogram<u64>>; OpKind::ALL.len()];

fn histograms(kinds: impl IntoIterator<Item = OpKind>) -> Histograms {
    let mut histograms = [const { None }; OpKind::ALL.len()];
    for kind in kinds {
        histograms[kind as usize] = Some(
            Histogram::new_with_max(LATENCY_NS_MAX, SIGNIFICANT_DIGITS)
                .expect("an hour in nanoseconds and three digits are valid bounds"),
        );
    }
    histograms
}

fn record(histograms: &mut Histograms, kind: OpKind, ns: u64) {
    histograms[kind as usize]
        .as_mut()
        .expect("there is room for every kind of the client's mix")
        .saturating_record(ns);
}

fn merge(mine: &mut Histograms, theirs: &Histograms) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        match (mine, theirs) {
            (_, None) => {}
            (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
            (Some(mine), Some(theirs)) => {
                mine.add(theirs).expect("all histograms have the same bounds");
            }
        }
    }
}

impl Recorder {
    /// Room for the given kinds, in an open or a closed loop. Memory is taken now, not
    /// while measuring.
    pub fn new(kinds: impl IntoIterator<Item = OpKind>, pace: &Pace) -> Self {
        let histograms = histograms(kinds);
        let service = matches!(pace, Pace::Open(_)).then(|| histograms.clone());
        Self { histograms, service, saturated: 0 }
    }

    /// Nothing, to which others are added.
    #[must_use]
    pub fn empty() -> Self {
        Self { histograms: histograms([]), service: None, saturated: 0 }
    }

    /// Records one operation of a kind that [`Recorder::new`] was told of: how long it took
    /// from when it was due, or in a closed loop was sent, and from when it was sent.
    pub fn record(&mut self, kind: OpKind, response_ns: u64, service_ns: u64) {
        self.saturated += u64::from(response_ns > LATENCY_NS_MAX);
        record(&mut self.histograms, kind, response_ns);
        if let Some(service) = &mut self.service {
            record(service, kind, service_ns);
        }
    }

    /// Adds what `other` recorded.
    pub fn merge(&mut self, other: &Self) {
        self.saturated += other.saturated;
        merge(&mut self.histograms, &other.histograms);
        if let Some(theirs) = &other.service {
            merge(self.service.get_or_insert_with(|| histograms([])), theirs);
        }
    }

    /// The service times of one kind in nanoseconds; `None` in a closed loop.
    #[must_use]
    pub fn service(&self, kind: OpKind) -> Option<&Histogram<u64>> {
        self.service.as_ref()?[kind as usize].as_ref()
    }

    /// The latencies of one kind in nanoseconds; `None` if it was not asked for.
    #[must_use]
    pub fn histogram(&self, kind: OpKind) -> Option<&Histogram<u64>> {
        self.histograms[kind as usize].as_ref()
    }

    /// How many operations of one kind were recorded.
    #[must_use]
    pub fn count(&self, kind: OpKind) -> u64 {
        self.histogram(kind).map_or(0, Histogram::len)
    }

    /// How many operations were recorded.
    #[must_use]
    pub fn total(&self) -> u64 {
        OpKind::ALL.into_iter().map(|kind| self.count(kind)).sum()
    }

    /// How many lasted longer than [`LATENCY_NS_MAX`].
    #[must_use]
    pub fn saturated(&self) -> u64 {
        self.saturated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_is_recording_into_one() {
        let mut whole = Recorder::new([OpKind::Read, OpKind::Update], &Pace::Closed);
        let mut parts = [
            Recorder::new([OpKind::Read], &Pace::Closed),
            Recorder::new([OpKind::Read, OpKind::Update], &Pace::Closed),
        ];
        let mut rng = fastrand::Rng::with_seed(1);
        for i in 0..10_000 {
            let latency_ns = 1 << rng.u32(0..36);
            let kind = if i % 7 == 0 { OpKind::Update } else { OpKind::Read };
            whole.record(kind, latency_ns, latency_ns);
            parts[usize::from(kind == OpKind::Update || i % 2 == 0)]
                .record(kind, latency_ns, latency_ns);
        }
        let mut merged = Recorder::empty();
        parts.iter().for_each(|part| merged.merge(part));
        assert_eq!(merged.total(), 10_000);
        for kind in OpKind::ALL {
            assert_eq!(merged.histogram(kind), whole.histogram(kind));
            assert_eq!(merged.count(kind), whole.count(kind));
        }
    }

    #[test]
    fn percentiles_have_three_digits() {
        let mut recorder = Recorder::new([OpKind::Read], &Pace::Closed);
        for latency_us in 1..=100_000 {
            recorder.record(OpKind::Read, latency_us * 1000, latency_us * 1000);
        }
        let histogram = recorder.histogram(OpKind::Read).unwrap();
        for quantile in [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0] {
            let exact = quantile * 1e8;
            let found = histogram.value_at_quantile(quantile) as f64;
            assert!((found / exact - 1.0).abs() < 1e-3, "{quantile}: {found}");
        }
    }

    #[test]
    fn what_lasts_longer_than_an_hour_is_counted() {
        let mut recorder = Recorder::new([OpKind::Scan], &Pace::Closed);
        recorder.record(OpKind::Scan, LATENCY_NS_MAX, LATENCY_NS_MAX);
        assert_eq!(recorder.saturated(), 0);
        recorder.record(OpKind::Scan, LATENCY_NS_MAX + 1, LATENCY_NS_MAX + 1);
        recorder.record(OpKind::Scan, u64::MAX, u64::MAX);
        assert_eq!(recorder.saturated(), 2);
        assert_eq!(recorder.total(), 3);
        let mut merged = Recorder::empty();
        merged.merge(&recorder);
        assert_eq!(merged.saturated(), 2);
    }
}
