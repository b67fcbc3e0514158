//! HDR histograms in the forms that other tools read: the compressed encoding (V2), and the
//! interval log of HdrHistogram's `HistogramLogWriter`.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use crate::timeline::Interval;

/// A histogram as text: base64 of its compressed encoding, as interval logs have it.
#[must_use]
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .expect("memory takes any histogram of an hour");
    BASE64_STANDARD.encode(bytes)
}

/// The histogram that [`encode`] made a text of.
pub fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?;
    Deserializer::new().deserialize(&mut &bytes[..]).map_err(|error| error.to_string())
}

/// Writes the log of a phase that began at `started`. Each kind of operation has a tag of its
/// own, and in an open loop another one with `-service` at its end. Values are nanoseconds.
pub fn write(
    to: &mut impl Write,
    what: &str,
    started: SystemTime,
    intervals: &[Interval],
) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new();
    log.add_comment(what).add_comment("values are nanoseconds; maxima in this log are ms");
    log.with_start_time(started).with_base_time(started).with_max_value_divisor(1e6);
    let mut log = log.begin_log_with(to, &mut serializer)?;
    for interval in intervals {
        let (start, duration) = (seconds(interval.start_s), seconds(interval.seconds));
        for (kind, operation) in &interval.operations {
            let service = operation.service_histogram.as_ref();
            let both = [(kind.name().to_owned(), Some(&operation.histogram))];
            let both = both.into_iter().chain([(format!("{}-service", kind.name()), service)]);
            for (name, text) in both {
                let Some(text) = text else { continue };
                let histogram = decode(text).map_err(io::Error::other)?;
                let tag = Tag::new(&name);
                log.write_histogram(&histogram, start, duration, tag).map_err(|error| {
                    io::Error::other(format!("cannot write an interval: {error:?}"))
                })?;
            }
        }
    }
    Ok(())
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::UNIX_EPOCH;

    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::pacing::Pace;
    use crate::recorder::{Record, Recorder};
    use crate::report::Latency;
    use crate::timeline::IntervalOf;
    use crate::workload::OpKind;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut client = Recorder::<u32>::new([OpKind::Read], &Pace::Closed);
        values.into_iter().for_each(|ns| client.record(OpKind::Read, 0, ns, ns));
        let mut all = Recorder::empty();
        all.merge(&client);
        all.histogram(OpKind::Read).unwrap().clone()
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for values in [vec![], vec![1], vec![0, 3600 * 1_000_000_000], (1..5000).collect()] {
            let before = histogram(values);
            let after = decode(&encode(&before)).unwrap();
            assert!(before.iter_recorded().eq(after.iter_recorded()));
            assert_eq!((before.len(), before.max()), (after.len(), after.max()));
        }
        assert!(decode("no base64").is_err());
        assert!(decode("AAAA").is_err());
    }

    #[test]
    fn a_log_has_a_line_for_each_kind_and_interval() {
        let of = |values: std::ops::Range<u64>| {
            let histogram = histogram(values);
            IntervalOf {
                ops: histogram.len(),
                latency_ns: Latency::new(&histogram),
                histogram: encode(&histogram),
                service_histogram: Some(encode(&histogram)),
            }
        };
        let interval = |start_s, operations| Interval {
            start_s,
            seconds: 1.0,
            ops: 0,
            ops_per_s: 0.0,
            operations,
            system: None,
        };
        let intervals = [
            interval(0.0, BTreeMap::from([(OpKind::Read, of(1..2_000_000))])),
            interval(1.0, BTreeMap::new()),
            interval(2.0, BTreeMap::from([(OpKind::Update, of(5..10))])),
        ];
        let mut log = Vec::new();
        write(&mut log, "a test", UNIX_EPOCH + seconds(1e9), &intervals).unwrap();
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            match entry.unwrap() {
                LogEntry::Interval(line) => {
                    let histogram = decode(line.encoded_histogram()).unwrap();
                    let tag = line.tag().unwrap().as_str().to_owned();
                    found.push((
                        tag,
                        line.start_timestamp().as_secs(),
                        histogram.len(),
                        line.max(),
                    ));
                }
                LogEntry::StartTime(at) | LogEntry::BaseTime(at) => {
                    assert_eq!(at.as_secs(), 1_000_000_000);
                }
            }
        }
        let line = |tag: &str, at, ops, max| (tag.to_owned(), at, ops, max);
        // The maximum is in milliseconds, and the end of its cell.
        assert_eq!(
            found,
            [
                line("read", 0, 1_999_999, 2.001),
                line("read-service", 0, 1_999_999, 2.001),
                line("update", 2, 5, 0.0),
                line("update-service", 2, 5, 0.0),
            ]
        );
    }
}
