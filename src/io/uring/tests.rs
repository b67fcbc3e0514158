//! What a ring does beside its requests.

use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{TURNS_PER_RELEASE, retry, start};
use crate::base::limits::UNIT;
use crate::io::blocking::Blocking;
use crate::io::{BufferPool, Driver, Harden, Io, IoBuf, OpenMode};
use crate::runtime::block_on;

/// An owner that never sleeps lets go of files that were closed, as one that does:
/// removed ones keep their space for as long.
#[test]
fn closed_files_are_let_go_without_sleep() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let outside = Blocking::new(Arc::default());
    let lock = block_on(outside.open(&dir.path().join("LOCK"), OpenMode::CreateNew)).unwrap();
    let (driver, ring, _) = start(Arc::default(), BufferPool::new(UNIT, 1), &lock).unwrap();
    let file = block_on(outside.open(&path, OpenMode::CreateNew)).unwrap();
    let mut write = Box::pin(async {
        ring.write(&file, 0, IoBuf::zeroed(UNIT).into(), Harden::Later).await.1.unwrap();
    });
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    while write.as_mut().poll(&mut cx).is_pending() {
        driver.turn(false, &|| ()).unwrap();
    }
    drop(write);
    // Such a lock ends with the last who has the file open.
    flock(file.fd(), FlockOperation::NonBlockingLockExclusive).unwrap();
    let other = block_on(outside.open(&path, OpenMode::Read)).unwrap();
    let is_let_go = || flock(other.fd(), FlockOperation::NonBlockingLockExclusive).is_ok();
    drop(file);
    assert!(!is_let_go(), "the ring has it open");
    for _ in 0..TURNS_PER_RELEASE {
        driver.turn(false, &|| ()).unwrap();
    }
    assert!(is_let_go());
}

#[test]
fn what_was_interrupted_or_refused_for_now_is_sent_again() {
    let answer = |errno: Errno| retry(-errno.raw_os_error());
    for errno in [Errno::INTR, Errno::AGAIN] {
        assert!(matches!(answer(errno), Ok(None)), "{errno}");
    }
    assert!(matches!(retry(0), Ok(Some(0))));
    assert!(matches!(retry(4096), Ok(Some(4096))));
    for errno in [Errno::IO, Errno::NOSPC] {
        assert_eq!(answer(errno).unwrap_err().raw_os_error(), Some(errno.raw_os_error()));
    }
}
