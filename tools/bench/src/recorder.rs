//! Latency histograms, one for each kind of operation: of its *response* time, from
//! when it was due in an open loop, and of its *service* time, from when it was sent.
//!
//! Each client records into its own, a second's worth at a time, and hands that over to be
//! merged: [`intervals`](crate::intervals).

use hdrhistogram::{Counter, Histogram};

use crate::pacing::Pace;
use crate::workload::OpKind;

/// The longest latency told apart; what lasts longer counts as this long, and
/// is counted apart.
pub const LATENCY_NS_MAX: u64 = 3600 * 1_000_000_000;
/// Percentiles are right to one part in a thousand.
pub(crate) const SIGNIFICANT_DIGITS: u8 = 3;

/// Where the loop of a client puts what it measures.
pub trait Record {
    /// One operation: how long it took from when it was due, or in a closed loop was sent, and
    /// from when it was sent. It ended at `at_ns`, on the clock.
    fn record(&mut self, kind: OpKind, at_ns: u64, response_ns: u64, service_ns: u64);
}

/// Latencies by kind of operation.
#[derive(Clone, Debug)]
pub struct Recorder<T: Counter = u64> {
    histograms: Histograms<T>,
    /// In an open loop; in a closed one it is the same.
    service: Option<Histograms<T>>,
    saturated: u64,
}

type Histograms<T> = [Option<Histogram<T>>; OpKind::ALL.len()];

fn merge<T: Counter>(mine: &mut Histograms<u64>, theirs: &Histograms<T>) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        let Some(theirs) = theirs else { continue };
        let mine = mine.get_or_insert_with(|| {
            Histogram::new_with_max(LATENCY_NS_MAX, SIGNIFICANT_DIGITS)
                .expect("an hour in nanoseconds and three digits are valid bounds")
        });
        for cell in theirs.iter_recorded() {
            mine.saturating_record_n(cell.value_iterated_to(), cell.count_at_value().as_u64());
        }
    }
}

impl<T: Counter> Recorder<T> {
    /// Room for the given kinds, in an open or a closed loop.
    #[must_use]
    pub fn new(kinds: impl IntoIterator<Item = OpKind>, pace: &Pace) -> Self {
        let mut histograms = [const { None }; OpKind::ALL.len()];
        for kind in kinds {
            // They grow with the longest latency: an hour takes three times the memory of a
            // millisecond.
            let histogram = Histogram::new(SIGNIFICANT_DIGITS).expect("three digits are valid");
            histograms[kind as usize] = Some(histogram);
        }
        let service = pace.is_open().then(|| histograms.clone());
        Self { histograms, service, saturated: 0 }
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        let all = self.histograms.iter_mut().chain(self.service.iter_mut().flatten());
        all.flatten().for_each(Histogram::reset);
        self.saturated = 0;
    }

    /// The service times of one kind in nanoseconds; `None` in a closed loop.
    #[must_use]
    pub fn service(&self, kind: OpKind) -> Option<&Histogram<T>> {
        self.service.as_ref()?[kind as usize].as_ref()
    }

    /// The latencies of one kind in nanoseconds; `None` if it was not asked for.
    #[must_use]
    pub fn histogram(&self, kind: OpKind) -> Option<&Histogram<T>> {
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

impl<T: Counter> Record for Recorder<T> {
    /// Of a kind that [`Recorder::new`] was told of.
    fn record(&mut self, kind: OpKind, _at_ns: u64, response_ns: u64, service_ns: u64) {
        self.saturated += u64::from(response_ns > LATENCY_NS_MAX);
        let record = |histograms: &mut Histograms<T>, ns: u64| {
            let histogram = histograms[kind as usize].as_mut();
            let histogram = histogram.expect("there is room for every kind of the client's mix");
            histogram.record(ns.min(LATENCY_NS_MAX)).expect("a histogram grows up to an hour");
        };
        record(&mut self.histograms, response_ns);
        if let Some(service) = &mut self.service {
            record(service, service_ns);
        }
    }
}

impl Recorder {
    /// Nothing, to which others are added.
    #[must_use]
    pub fn empty() -> Self {
        Self { histograms: [const { None }; OpKind::ALL.len()], service: None, saturated: 0 }
    }

    /// Adds what `other` recorded.
    pub fn merge<T: Counter>(&mut self, other: &Recorder<T>) {
        self.saturated += other.saturated;
        merge(&mut self.histograms, &other.histograms);
        if let Some(theirs) = &other.service {
            merge(self.service.get_or_insert([const { None }; OpKind::ALL.len()]), theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its values, and how often they occur.
    fn cells<T: Counter>(histogram: Option<&Histogram<T>>) -> Vec<(u64, u64)> {
        let recorded = histogram.into_iter().flat_map(Histogram::iter_recorded);
        recorded.map(|cell| (cell.value_iterated_to(), cell.count_at_value().as_u64())).collect()
    }

    #[test]
    fn merging_is_recording_into_one() {
        let mut whole = Recorder::<u32>::new([OpKind::Read, OpKind::Update], &Pace::Closed);
        let mut parts = [
            Recorder::<u32>::new([OpKind::Read], &Pace::Closed),
            Recorder::<u32>::new([OpKind::Read, OpKind::Update], &Pace::Closed),
        ];
        let mut rng = fastrand::Rng::with_seed(1);
        for i in 0..10_000 {
            let latency_ns = 1 << rng.u32(0..36);
            let kind = if i % 7 == 0 { OpKind::Update } else { OpKind::Read };
            whole.record(kind, 0, latency_ns, latency_ns);
            parts[usize::from(kind == OpKind::Update || i % 2 == 0)]
                .record(kind, 0, latency_ns, latency_ns);
        }
        let mut merged = Recorder::empty();
        parts.iter().for_each(|part| merged.merge(part));
        assert_eq!(merged.total(), 10_000);
        for kind in OpKind::ALL {
            assert_eq!(cells(merged.histogram(kind)), cells(whole.histogram(kind)));
            assert_eq!(merged.count(kind), whole.count(kind));
        }
    }

    #[test]
    fn percentiles_have_three_digits() {
        let mut recorder = Recorder::<u32>::new([OpKind::Read], &Pace::Closed);
        for latency_us in 1..=100_000 {
            recorder.record(OpKind::Read, 0, latency_us * 1000, latency_us * 1000);
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
        let mut recorder = Recorder::<u32>::new([OpKind::Scan], &Pace::Closed);
        recorder.record(OpKind::Scan, 0, LATENCY_NS_MAX, LATENCY_NS_MAX);
        assert_eq!(recorder.saturated(), 0);
        recorder.record(OpKind::Scan, 0, LATENCY_NS_MAX + 1, LATENCY_NS_MAX + 1);
        recorder.record(OpKind::Scan, 0, u64::MAX, u64::MAX);
        assert_eq!(recorder.saturated(), 2);
        assert_eq!(recorder.total(), 3);
        let mut merged = Recorder::empty();
        merged.merge(&recorder);
        assert_eq!(merged.saturated(), 2);
    }
}
