//! An interval log has a line for each operation and interval, which its readers read.

mod common;

use std::time::Duration;

use common::tiny;
use ourodb::hdrhistogram::Histogram;
use ourodb::hdrhistogram::serialization::Deserializer;
use ourodb::hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use ourodb::sim::Sim;
use ourodb::{Db, IntervalLog, Operation};

/// Of each line: its tag, when it began, how long it is, and what it holds.
fn read(log: &[u8]) -> Vec<(String, Duration, Duration, Histogram<u64>)> {
    let mut lines = Vec::new();
    let (mut starts, mut bases) = (0, 0);
    for entry in IntervalLogIterator::new(log) {
        match entry.expect("a line") {
            LogEntry::StartTime(_) => starts += 1,
            LogEntry::BaseTime(_) => bases += 1,
            LogEntry::Interval(line) => {
                let base64 = line.encoded_histogram();
                let bytes = decode_base64(base64);
                let histogram = Deserializer::new().deserialize(&mut &bytes[..]).expect("V2");
                let tag = line.tag().expect("a tag").as_str().to_owned();
                lines.push((tag, line.start_timestamp(), line.duration(), histogram));
            }
        }
    }
    assert_eq!((starts, bases), (1, 1));
    lines
}

/// RFC 4648, section 4.
fn decode_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    for quad in text.trim_end_matches('=').as_bytes().chunks(4) {
        let digit = |c: &u8| ALPHABET.iter().position(|a| a == c).expect("a digit") as u32;
        let bits = quad.iter().fold(0, |bits, c| bits << 6 | digit(c)) << (6 * (4 - quad.len()));
        bytes.extend(&bits.to_be_bytes()[1..quad.len()]);
    }
    bytes
}

#[test]
fn intervals_follow_each_other_and_hold_what_was_done_in_them() {
    let sim = Sim::new(1);
    let db = Db::open("/db", tiny(&sim).shards(1).owners(1)).unwrap();
    db.put(b"before", b"the log").wait().unwrap();
    let mut log = IntervalLog::begin(&db, Vec::new()).unwrap();
    for interval in 0..3u8 {
        for i in 0..=interval {
            db.put(&[i], b"value").wait().unwrap();
        }
        sim.run_for(1_000_000_000);
        log.write().unwrap();
    }
    let latencies = db.latencies();
    let lines = read(&log.into_inner());
    assert_eq!(lines.len(), 3 * Operation::ALL.len());
    let mut at = Duration::ZERO;
    for (interval, lines) in lines.chunks(Operation::ALL.len()).enumerate() {
        for ((tag, start, duration, histogram), operation) in lines.iter().zip(Operation::ALL) {
            assert_eq!(tag, operation.name());
            // Both are rounded to milliseconds.
            assert!(start.abs_diff(at) <= Duration::from_millis(2), "{start:?}");
            assert!(duration.as_secs() == 1, "{duration:?}");
            let expected = if operation == Operation::Put { interval as u64 + 1 } else { 0 };
            assert_eq!(histogram.len(), expected);
            assert!(histogram.max() <= latencies.whole(operation).max());
        }
        at += lines[0].2;
    }
}

#[test]
fn a_log_that_cannot_be_written_says_so() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let sim = Sim::new(1);
    let db = Db::open("/db", tiny(&sim).shards(1).owners(1)).unwrap();
    let error = IntervalLog::begin(&db, Full).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}
