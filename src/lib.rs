#![doc = include_str!("ARCHITECTURE.md")]
#![deny(clippy::disallowed_methods)]

mod base;
mod cache;
mod db;
mod format;
mod io;
mod lsm;
mod manifest;
mod memtable;
mod runtime;
mod shard;
mod sst;
mod value;
mod wal;

pub use base::dumped::{DumpDetail, Dumped};
pub use base::durability::Durability;
pub use base::error::{Error, ErrorKind, Result};
pub use base::fault::{Fault, Finding, Verified};
pub use base::keys::KeyBounds;
pub use base::latency::{Operation, OperationPart};
pub use base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use base::salvaged::{Loss, Salvaged, Salvaging};
#[cfg(feature = "interval-log")]
pub use db::IntervalLog;
pub use db::{
    Batch, Compact, Compaction, Db, Delete, DeleteRange, Flush, Get, GetFuture, GetWith,
    GetWithFuture, IoBackend, KeyIter, KeyRange, KeyStream, Latencies, LevelStats, MultiGet,
    MultiGetFuture, OnShard, Options, Put, Scan, ScanIter, ScanKeys, ScanStream, Settings, Shard,
    Stats, Value, Write, WriteFuture, dump, salvage, verify,
};
pub use format::block::Compression;
/// Whose histograms [`Latencies`] gives.
pub use hdrhistogram;

/// A simulated machine to run databases on: disk, clock and scheduler under
/// one seed, with faults, kills and power cuts. For tests of the engine, and of
/// programs that embed it.
///
/// ```
/// use ourodb::{Db, IoBackend, Options, sim::Sim};
/// let sim = Sim::new(42);
/// let options = || Options::default().io(IoBackend::Sim(sim.clone()));
/// let db = Db::open("/data", options())?;
/// db.put(b"key", b"value").wait()?;
/// sim.power_cut();
/// drop(db);
/// let db = Db::open("/data", options())?;
/// assert_eq!(db.get(b"key").wait()?.as_deref(), Some(&b"value"[..]));
/// # Ok::<(), ourodb::Error>(())
/// ```
#[cfg(feature = "sim")]
pub mod sim {
    pub use crate::io::sim::{DiskImage, FaultKind, Faults, Injected, Sim};
}

/// Bugs to be planted, for tests of the simulator only. No promise of any kind.
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted {
    pub use crate::base::planted::{Bug, plant};
}

/// What decodes bytes of files, each as a fuzz target. No promise of any kind.
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;

/// Parts of the engine, for its benches only. No promise of any kind.
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub mod bench;

/// The engine's I/O on a file of its own, for `ouro-bench device` only. No promise of any kind.
#[cfg(feature = "device")]
#[doc(hidden)]
pub mod device;
