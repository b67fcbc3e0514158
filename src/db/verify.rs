//! Verifying a database without opening it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::fault::{Finding, Verified};
use crate::db::backend::{Backend, wait_on};
use crate::db::open::{LOCK, check_may_wait, check_path, wait_for_lock};
use crate::db::options::{IoBackend, Options};
use crate::io::blocking::Blocking;
use crate::io::{File, Halt, Inspection, Io, IoCounters};
use crate::shard;

/// Reads every byte of the database in `dir` and says what is wrong with it.
///
/// It looks at all there is, also behind damage: identity, manifests, log,
/// tables, and all values that have files of their own; that checksums match, and
/// that what is said in one place agrees with what is in another: filters, indexes
/// and counts with the entries, the tables, the log and the value files with the
/// manifests, keys with their shards. Of a value file only what something refers
/// to counts. What `report` is told
/// is a [`Finding`]; it is asked often, and ends the verification by
/// `ControlFlow::Break`.
///
/// Nothing is written. Nobody else may have the database open: its lock is
/// taken, and [`Options::lock_wait`] says how long to wait for it; of the other
/// options only [`Options::io`] counts. A torn end of the log, which the next
/// opening will cut, is no fault; how long it is, is among the counts. Memory is
/// that of one log segment, of what a shard's manifest says of its tables, and of
/// what all of them say of value files.
///
/// # Errors
/// `Locked` when somebody else has it open, `NotFound` when there is no
/// database, and what keeps this process from reading a file that may be sound,
/// such as `PermissionDenied`. What is wrong with the database is not an error
/// here, but a finding.
///
/// ```
/// use ourodb::{Db, Finding, Options};
/// use std::ops::ControlFlow;
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Db::open(dir.path(), Options::default())?;
/// db.put(b"key", b"value").wait()?;
/// db.flush().wait()?;
/// db.close()?;
/// let verified = ourodb::verify(dir.path(), &Options::default(), |finding| {
///     if let Finding::Fault(fault) = finding {
///         println!("{fault}");
///     }
///     ControlFlow::Continue(())
/// })?;
/// assert!(verified.is_complete);
/// assert_eq!((verified.faults, verified.tables, verified.entries), (0, 1, 1));
/// # Ok::<(), ourodb::Error>(())
/// ```
pub fn verify(
    dir: impl AsRef<Path>,
    options: &Options,
    mut report: impl FnMut(Finding<'_>) -> ControlFlow<()>,
) -> Result<Verified> {
    check_may_wait()?;
    let dir = dir.as_ref();
    check_path(dir)?;
    let backend = backend(options);
    wait_on!(&backend, |io| verify_on(io, dir, options, &mut report))
}

/// What somebody who opens no database does its I/O with.
pub(super) fn backend(options: &Options) -> Backend {
    match options.io_backend() {
        IoBackend::Ring | IoBackend::Blocking => {
            Backend::Os(Blocking::new(Arc::<IoCounters>::default()))
        }
        #[cfg(feature = "sim")]
        IoBackend::Sim(sim) => Backend::Sim(sim.process()),
    }
}

async fn verify_on<I: Io>(
    io: &I,
    dir: &Path,
    options: &Options,
    report: &mut dyn FnMut(Finding<'_>) -> ControlFlow<()>,
) -> Result<Verified> {
    let lock = lock_to_read(io, dir, options).await?;
    let place = place_of(io, lock.as_ref())?;
    let mut inspection = Inspection::new(io, report);
    let halted = shard::verify(&mut inspection, dir, place).await;
    let mut verified = inspection.counts;
    unlock(io, dir, lock, "verified").await?;
    match halted {
        Ok(()) => verified.is_complete = true,
        Err(Halt::Stopped) => {}
        Err(Halt::Failed(error)) => return Err(error),
    }
    Ok(verified)
}

/// Takes the lock of a database that is not to be written to; `None` when it has no
/// file for it: then no other opening can hold it, and to make one would be to write.
pub(super) async fn lock_to_read<I: Io>(
    io: &I,
    dir: &Path,
    options: &Options,
) -> Result<Option<File>> {
    let not_found = |error: Error| match error.kind() {
        ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, format!("there is no database in {}", dir.display()))
        }
        _ => error,
    };
    match has_lock(&io.list(dir).await.map_err(not_found)?) {
        true => wait_for_lock(io, dir, options).await.map(Some),
        false => Ok(None),
    }
}

/// What tells the directory of this lock from its copies.
pub(super) fn place_of<I: Io>(io: &I, lock: Option<&File>) -> Result<Option<[u8; 16]>> {
    lock.map(|lock| io.file_id(lock)).transpose()
}

/// Gives up the lock that [`lock_to_read`] took. Fails when there was none, and
/// somebody opened the database meanwhile: it was `what` as it changed.
pub(super) async fn unlock<I: Io>(
    io: &I,
    dir: &Path,
    lock: Option<File>,
    what: &str,
) -> Result<()> {
    match lock {
        Some(lock) => io.unlock(&lock),
        None if has_lock(&io.list(dir).await?) => {
            let message = format!("{} was opened while it was {what}", dir.display());
            Err(Error::new(ErrorKind::Locked, message))
        }
        None => Ok(()),
    }
}

fn has_lock(names: &[String]) -> bool {
    names.iter().any(|name| name == LOCK)
}
