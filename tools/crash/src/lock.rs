//! The lock of a database, seen from outside.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The lock's file.
pub(crate) const LOCK: &str = "LOCK";

const PAUSE: Duration = Duration::from_millis(1);

/// The lock, taken; it is let go of when dropped.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// None if somebody has it.
    pub(crate) fn try_take(database: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).open(database.join(LOCK))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until whoever has it is gone for good.
    pub(crate) fn take(database: &Path, patience: Duration) -> io::Result<Option<Self>> {
        let deadline = Instant::now() + patience;
        loop {
            let taken = Self::try_take(database)?;
            if taken.is_some() || Instant::now() > deadline {
                return Ok(taken);
            }
            thread::sleep(PAUSE);
        }
    }
}
