//! Floor 2: the one seam between the engine and the world.
//!
//! Everything nondeterministic (files, clock, randomness) reaches the engine
//! through the trait [`Io`]. Its implementations:
//!
//! * [`blocking`]: positioned `O_DIRECT` I/O of the calling thread. Its futures
//!   are ready at their first poll. Threads in `.wait()` use it, and owners
//!   where io_uring is not to be had.
//! * [`uring`]: one ring per owner thread.
//! * `sim` (feature `sim`): a simulated disk, clock and scheduler under a seed.
//!
//! Rules that hold for all of them:
//!
//! * A request owns its buffer and its file until it completes. Dropping a
//!   future frees nothing that the kernel holds; the request still completes.
//! * Offsets and lengths are multiples of [`UNIT`]; buffers are aligned to it.
//! * Short transfers are continued, `EINTR` and `EAGAIN` retried. Every other
//!   failure is an [`Error`] that names file and offset. Nothing is retried
//!   after a failed write or sync: that decision is the caller's.
//! * A completed write is **not** durable, unless it was made `Durable`; and
//!   then it has hardened its own bytes only.

pub(crate) mod blocking;
mod buffer;
mod counters;
mod dump;
mod file;
mod inspect;
mod mapping;
mod os;
mod pages;
#[cfg(feature = "sim")]
pub(crate) mod sim;
pub(crate) mod uring;

pub(crate) use buffer::{BufferPool, Claim, GroupBuf, IoBuf, Lender, WriteBuf};
pub(crate) use counters::{IoCounters, IoCounts};
pub(crate) use dump::{Dump, Listener};
pub(crate) use file::{File, Handle, WeakFile};
pub(crate) use inspect::{Halt, Inspection};
pub(crate) use mapping::{MappedWord, Mapping};
pub(crate) use os::device;
pub(crate) use pages::Pages;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::limits::UNIT;

/// How [`Io::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// The same, to be written over: it must have no other name (hard link),
    /// under which somebody keeps what it holds, or opening it is `Busy`.
    Reuse,
    /// A file that must not exist yet, for reading and writing.
    CreateNew,
}

/// Whether a write is durable when it completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harden {
    /// Durable only after a later [`Io::sync`] of the file.
    Later,
    /// The bytes of this very write survive power loss when it completes
    /// (`RWF_DSYNC`). It says nothing about earlier unsynced writes.
    Now,
}

/// A read that somebody is to be told of; see [`Io::read_detached`].
pub(crate) struct DetachedRead<D> {
    pub(crate) file: File,
    pub(crate) offset: u64,
    pub(crate) buf: IoBuf,
    /// Gets the buffer, and the answer of [`Io::read`].
    pub(crate) done: D,
}

/// The world, as the engine sees it. Cheap to clone.
///
/// Completions hand the buffer back, so that it can be used again.
pub(crate) trait Io: Clone + 'static {
    /// Fills `buf` from `offset`. Returns the number of bytes read, which is
    /// less than the buffer's length only at the end of the file.
    fn read(
        &self,
        file: &File,
        offset: u64,
        buf: IoBuf,
    ) -> impl Future<Output = (IoBuf, Result<usize>)>;

    /// A read for others, too, who wait for `done` to be called.
    ///
    /// `begin` says what is to be read, if anything, once the request can be
    /// sent; it is sent right then. From there on nobody depends on this future
    /// any more, which may be dropped or never polled again: whoever completes
    /// the request calls `done`. If that is not possible (the owner ended), `done`
    /// is dropped.
    ///
    /// As it stands here it is for those whose futures are polled until they are
    /// ready: threads that wait, and jobs.
    ///
    /// # Errors
    /// When nothing can be sent any more; `begin` was not called then.
    fn read_detached<D: FnOnce(IoBuf, Result<usize>) + Send + 'static>(
        &self,
        begin: impl FnOnce() -> Option<DetachedRead<D>>,
    ) -> impl Future<Output = Result<()>> {
        async move {
            if let Some(DetachedRead { file, offset, buf, done }) = begin() {
                let (buf, result) = self.read(&file, offset, buf).await;
                done(buf, result);
            }
            Ok(())
        }
    }

    /// Writes all of `buf` at `offset`, extending the file where it ends
    /// before.
    fn write(
        &self,
        file: &File,
        offset: u64,
        buf: WriteBuf,
        harden: Harden,
    ) -> impl Future<Output = (WriteBuf, Result<()>)>;

    /// Makes durable every write of `file` that had completed before the call,
    /// and the file's length (`fdatasync`).
    fn sync(&self, file: &File) -> impl Future<Output = Result<()>>;

    /// Opens a file with `O_DIRECT`; creates it with mode 0600.
    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = Result<File>>;

    /// Gives the space of whole units of a file back to the file system. They
    /// read as zeroes then; the file's length stays. Whether that survives a
    /// power cut is open until a [`Io::sync`].
    ///
    /// # Errors
    /// `Unsupported` where the file system cannot do it.
    fn punch(&self, file: &File, offset: u64, bytes: u64) -> impl Future<Output = Result<()>>;

    /// Cuts a file to so many bytes, whole units, at most as many as it has.
    /// Durable after a [`Io::sync`].
    fn cut(&self, file: &File, bytes: u64) -> impl Future<Output = Result<()>>;

    /// The file's length in bytes.
    fn len(&self, file: &File) -> impl Future<Output = Result<u64>>;

    /// Maps a whole file into memory, shared, for reading and writing: what is
    /// stored there is in the file at once for everybody who reads it, also
    /// after the process died, and survives power loss after a [`Io::sync`]
    /// that was called later.
    ///
    /// The file was opened for writing, is `bytes` long, a positive multiple
    /// of [`UNIT`], and all of it was written before: a store into a hole ends
    /// the process when the disk is full. As long as it is mapped, it is
    /// neither mapped again, nor cut, nor written in another way.
    ///
    /// # Errors
    /// `Corruption` when the file is not `bytes` long; `Unsupported` where
    /// files cannot be mapped.
    fn map(&self, file: &File, bytes: usize) -> impl Future<Output = Result<Mapping>>;

    /// The names of the directory's entries, in no particular order.
    fn list(&self, dir: &Path) -> impl Future<Output = Result<Vec<String>>>;

    /// Creates a directory with mode 0700; one that exists is fine.
    fn create_dir(&self, dir: &Path) -> impl Future<Output = Result<()>>;

    /// Removes a file. Durable after a [`Io::sync_dir`].
    fn remove(&self, path: &Path) -> impl Future<Output = Result<()>>;

    /// Renames a file over another. Durable after a [`Io::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = Result<()>>;

    /// Makes the directory's entries durable.
    fn sync_dir(&self, dir: &Path) -> impl Future<Output = Result<()>>;

    /// Opens a file, which it may `create` if it is missing, and takes its lock.
    /// `None` when somebody else holds it. Ends when the last clone of the
    /// returned file, and every ring that knows it, is gone.
    fn try_lock(&self, path: &Path, create: bool) -> impl Future<Output = Result<Option<File>>>;

    /// Gives up the lock that [`Io::try_lock`] took, although rings still know
    /// the file.
    fn unlock(&self, file: &File) -> Result<()>;

    /// Tells a file from its copies, for as long as there is one of them: by its number and
    /// when it was created.
    fn file_id(&self, file: &File) -> Result<[u8; 16]>;

    /// Sleeps this many nanoseconds, or a little longer.
    fn sleep(&self, nanos: u64) -> impl Future<Output = ()>;

    /// A clock that never goes back, in nanoseconds since some instant.
    fn now_ns(&self) -> u64;

    /// Seconds since 1970, by the machine's calendar, which may be set back.
    fn calendar_s(&self) -> u64;

    /// Tells the time since the machine started from every other such time:
    /// another one after a power cut, the same after the process died.
    fn boot_id(&self) -> Result<[u8; 16]>;

    /// Fills `bytes` with unpredictable bytes.
    fn random(&self, bytes: &mut [u8]);

    /// What has gone through this seam, in all implementations that share the
    /// counters.
    fn counters(&self) -> &Arc<IoCounters>;
}

/// What an owner's executor stands on: it moves I/O along, sleeps, and has the
/// time. Belongs to the owner's thread.
pub(crate) trait Driver {
    /// Submits what waits to be submitted and wakes the tasks whose requests
    /// completed. With `may_sleep` it sleeps until there is such a task, or
    /// until it is unparked; it may also return for no reason. Calls `awake`
    /// when it will not sleep any more, before it wakes tasks: they need no
    /// unparking.
    fn turn(&self, may_sleep: bool, awake: &dyn Fn()) -> Result<()>;

    /// Whether a turn has something to do at this time, by [`Driver::now_ns`]:
    /// to submit, or to wake. Cheap, without a system call.
    fn has_work(&self, now_ns: u64) -> bool;

    /// The clock of [`Io::now_ns`].
    fn now_ns(&self) -> u64;

    /// What other threads wake this driver by.
    fn unparker(&self) -> Arc<dyn Unpark>;
}

/// Wakes a sleeping driver from any thread. An unpark before the sleep makes
/// the next sleep return at once.
pub(crate) trait Unpark: Send + Sync {
    /// See the trait.
    fn unpark(&self);
}

/// Where a short write of `done` bytes goes on: direct I/O restarts at a unit,
/// which writes a part of it again.
fn whole_units(done: usize) -> usize {
    done / UNIT * UNIT
}

fn no_progress(file: &File, offset: u64) -> Error {
    let nothing = std::io::Error::from(std::io::ErrorKind::WriteZero);
    Error::os_at("write", file.path(), Some(offset), nothing)
}
