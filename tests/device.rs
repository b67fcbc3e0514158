//! What `ouro-bench device` measures with: requests of one kind on a file without a name.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::fs;

use ourodb::ErrorKind;
use ourodb::device::{Request, Requests, TestFile};

const BYTES: usize = 4096;

/// So many places, one after the other.
#[derive(Default)]
struct Places {
    next: u64,
    end: u64,
    ended: u64,
    in_flight: u64,
    in_flight_max: u64,
}

impl Requests for Places {
    fn next(&mut self, now_ns: u64) -> Option<u64> {
        assert!(now_ns > 0);
        if self.next == self.end {
            return None;
        }
        self.in_flight += 1;
        self.in_flight_max = self.in_flight_max.max(self.in_flight);
        self.next += 1;
        Some((self.next - 1) * BYTES as u64)
    }

    fn ended(&mut self, began_ns: u64, ended_ns: u64) {
        assert!(began_ns < ended_ns);
        self.in_flight -= 1;
        self.ended += 1;
    }
}

fn places(end: u64) -> Places {
    Places { end, ..Places::default() }
}

#[test]
fn requests_are_sent_by_threads_and_rings_until_there_are_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = TestFile::create(&path).unwrap();
    assert!(!path.exists());
    let mut written = places(64);
    file.blocking(Request::Write, BYTES, &mut written).unwrap();
    file.sync().unwrap();
    assert_eq!((written.ended, written.in_flight_max), (64, 1));
    for request in [Request::Read, Request::Write, Request::DurableWrite] {
        for depth in [1, 8] {
            let (sent, _) = file.ring(request, BYTES, depth, places(64)).unwrap();
            assert_eq!((sent.ended, sent.in_flight_max), (64, depth as u64), "{request:?}");
        }
        let mut sent = places(64);
        file.blocking(request, BYTES, &mut sent).unwrap();
        assert_eq!(sent.ended, 64, "{request:?}");
    }
}

#[test]
fn the_first_failure_ends_all() {
    let dir = tempfile::tempdir().unwrap();
    let file = TestFile::create(&dir.path().join("file")).unwrap();
    file.blocking(Request::Write, BYTES, &mut places(8)).unwrap();
    // There is nothing behind the end of the file.
    let error = file.blocking(Request::Read, BYTES, &mut places(16)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    let error = file.ring(Request::Read, BYTES, 4, places(u64::MAX)).err().unwrap();
    assert!(error.to_string().contains("at offset"), "{error}");
}

#[test]
fn a_file_that_is_there_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "precious").unwrap();
    TestFile::create(&path).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}
