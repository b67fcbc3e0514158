//! The memory of a process and what it has on the disk, looked at all the time.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::space::usage::Usage;

const PAUSE: Duration = Duration::from_millis(20);

/// Files are counted only each so many times.
const DISK_EVERY: u64 = 25;

/// Bytes of memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// The most that was resident, as the kernel counts it.
    pub(super) resident: u64,
    /// The most that was no page of a file, as was seen.
    pub(super) anonymous: u64,
}

/// What was seen.
pub(super) struct Watch<'a> {
    pid: Pid,
    database: &'a Path,
    resident_max: AtomicU64,
    resident_since_last: AtomicU64,
    anonymous_max: AtomicU64,
    disk_max: AtomicU64,
}

impl<'a> Watch<'a> {
    /// Of a process that is not waited for while it is watched.
    pub(super) fn new(process: &Child, database: &'a Path) -> Self {
        Self {
            pid: Pid::from_child(process),
            database,
            resident_max: AtomicU64::new(0),
            resident_since_last: AtomicU64::new(0),
            anonymous_max: AtomicU64::new(0),
            disk_max: AtomicU64::new(0),
        }
    }

    /// Watches while `work` is done, and kills the process on an interrupt.
    pub(super) fn during<T>(&self, interrupted: &AtomicBool, work: impl FnOnce() -> T) -> T {
        // Disconnected when `work` ends, however it does.
        let (working, ended) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut number: u64 = 0;
                while ended.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                    if interrupted.load(Ordering::Relaxed) {
                        // It may have ended.
                        let _ = kill_process(self.pid, Signal::KILL);
                    }
                    self.look();
                    if number.is_multiple_of(DISK_EVERY)
                        && let Ok(usage) = Usage::of(self.database)
                    {
                        self.disk_max.fetch_max(usage.all_bytes, Ordering::Relaxed);
                    }
                    number += 1;
                }
            });
            let _working = working;
            work()
        })
    }

    /// The most that was resident since the last call, if it was looked at.
    pub(super) fn resident_since_last(&self) -> Option<u64> {
        self.look();
        Some(self.resident_since_last.swap(0, Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    pub(super) fn memory(&self) -> Memory {
        Memory {
            resident: self.resident_max.load(Ordering::Relaxed),
            anonymous: self.anonymous_max.load(Ordering::Relaxed),
        }
    }

    pub(super) fn disk_bytes_max(&self) -> u64 {
        self.disk_max.load(Ordering::Relaxed)
    }

    fn look(&self) {
        let path = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        // Not there any more, or (without any memory) not for long.
        let Ok(status) = fs::read_to_string(path) else { return };
        for (name, max) in [
            ("VmHWM:", &self.resident_max),
            ("VmRSS:", &self.resident_since_last),
            ("RssAnon:", &self.anonymous_max),
        ] {
            if let Some(bytes) = bytes_of(&status, name) {
                max.fetch_max(bytes, Ordering::Relaxed);
            }
        }
    }
}

/// The field of this name: KiB, as the kernel writes them.
fn bytes_of(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let status = "Name:\tx\nVmHWM:\t   5124 kB\nVmRSS:\t    128 kB\nThreads:\t1\n";
        assert_eq!(bytes_of(status, "VmHWM:"), Some(5124 << 10));
        assert_eq!(bytes_of(status, "VmRSS:"), Some(128 << 10));
        assert_eq!(bytes_of(status, "RssAnon:"), None);
    }
}
