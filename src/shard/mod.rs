//! Floor 7: the shards of a database at work: state behind a short lock,
//! writes, reads, scans, flushes, recovery.
//!
//! Lock order, outermost first: shards in ascending order; a stream; the
//! clock's registry. None of them is held across an await, a system call, or a
//! copy of more than a few kilobytes.

mod clock;
mod commit;
mod engine;
mod held_up;
mod maintain;
mod pace;
mod read;
mod recover;
mod salvage;
mod scan;
#[cfg(all(test, feature = "shuttle"))]
mod shuttle_tests;
mod state;
#[cfg(all(test, feature = "sim"))]
mod tests;
mod verify;
mod write;

pub(crate) use engine::{Engine, Limits};
pub(crate) use maintain::Job;
pub(crate) use read::{Fetched, Found, InMemory};
pub(crate) use recover::{Opening, recover};
pub(crate) use salvage::{Damaged, Reporter, SharedReporter, Sink, identify, salvage};
pub(crate) use scan::{Now, Row, ScanRange, Scanner};
pub(crate) use verify::verify;
pub(crate) use write::{Staged, WriteOp, is_long, log_bytes, write_timer};
