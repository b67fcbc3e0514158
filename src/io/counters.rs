//! Counts of what went through the I/O seam.

use crate::base::sync::tally::{AtomicU64, Ordering};

/// Counters shared by every implementation of `Io` that one database uses.
#[derive(Debug, Default)]
pub(crate) struct IoCounters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    write_bytes: AtomicU64,
    syncs: AtomicU64,
    metadata: AtomicU64,
}

/// A reading of [`IoCounters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IoCounts {
    /// Read requests.
    pub(crate) reads: u64,
    /// Bytes asked for by read requests.
    pub(crate) read_bytes: u64,
    /// Write requests, durable or not.
    pub(crate) writes: u64,
    /// Bytes of write requests.
    pub(crate) write_bytes: u64,
    /// `fdatasync` of files and `fsync` of directories.
    pub(crate) syncs: u64,
    /// Opens, creations, removals, renames, listings, mappings.
    pub(crate) metadata: u64,
}

impl IoCounters {
    pub(crate) fn read(&self, bytes: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn write(&self, bytes: usize) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.write_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sync(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn metadata(&self) {
        self.metadata.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> IoCounts {
        IoCounts {
            reads: self.reads.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            write_bytes: self.write_bytes.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            metadata: self.metadata.load(Ordering::Relaxed),
        }
    }
}
