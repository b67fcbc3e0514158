//! A simulated machine: disk, clock, scheduler and randomness under one seed.
//!
//! The engine runs on it unchanged. One thread steps everything: in
//! [`Sim::block_on`] and [`Sim::run_for`] the machine chooses, by its seed,
//! which task to poll and which request to complete next, and lets time pass
//! when nothing is ready. The same seed and the same calls give the same run,
//! as [`Sim::trace_hash`] shows.
//!
//! What the disk promises is what real ones do, and no more:
//!
//! * A completed write is visible, and pending. A sync makes durable what had
//!   completed before it was submitted, and the file's length. A write with
//!   [`Harden::Now`] makes durable its own bytes, and a length that covers
//!   them; not what was pending before.
//! * Names are pending until their directory is synced.
//! * A power cut keeps any subset of what is pending: see
//!   [`Sim::power_cut`]. Bytes that were lost in a file whose length was kept
//!   read as zeroes.
//! * After a failed sync, part of what it covered is lost for good, even if a
//!   second sync succeeds.
//! * Stores into a mapped file are visible at once, and pending, page by page.
//!   A sync makes durable those made before it was submitted.
//!
//! Requests start when the trait's method is called, not at the first poll.
//! Files opened before a crash are void after it: requests on them fail.
//!
//! Owns: `machine` (the state behind the one lock), `scheduler` (tasks and the
//! loops that step), `request` and `perform` (what is asked, and what it does),
//! `disk` and `inode` (the model of the disk), `mapped` (files in memory),
//! `faults`, `control` (what tests do to the machine). No lock is held while
//! something of the engine's is polled, woken or dropped.

mod control;
mod disk;
mod faults;
mod inode;
mod machine;
mod mapped;
mod perform;
mod request;
mod rng;
mod scheduler;
#[cfg(test)]
mod tests;

pub use control::DiskImage;
pub use faults::{FaultKind, Faults, Injected};
pub(crate) use mapped::Mapped;

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use self::machine::Machine;
use self::request::{Answer, Change, Op, Reply, answer, node, restarted};
use crate::base::error::Result;
use crate::base::limits::UNIT;
use crate::base::sync::{Mutex, assert_unlocked};
use crate::io::{File, Harden, Io, IoBuf, IoCounters, Mapping, OpenMode, WriteBuf};

/// What the calendar says when a machine is made.
const CALENDAR_START_S: u64 = 1_700_000_000;

/// What a read's buffer holds until the read has filled it: nobody may rely on
/// what was there.
const JUNK: u8 = 0xdb;

/// A simulated machine. Clones are handles of the same one.
///
/// Only one thread at a time may make it go, or look at it: runs are repeatable
/// only then, and only then is what the engine stores into mapped files seen
/// whole.
///
/// ```
/// use ourodb::sim::Sim;
/// let sim = Sim::new(42);
/// assert!(sim.paths().is_empty());
/// assert_eq!(sim.trace_hash(), Sim::new(42).trace_hash());
/// ```
#[derive(Clone)]
pub struct Sim {
    shared: Arc<Shared>,
    /// The boot this handle is a process of; `None` is the world outside.
    process: Option<u64>,
}

struct Shared {
    seed: u64,
    counters: Arc<IoCounters>,
    machine: Mutex<Machine>,
}

/// What stands behind an open file of the simulated disk.
pub(crate) struct Node {
    /// Weak, since requests in flight hold files.
    shared: Weak<Shared>,
    boot: u64,
    inode: u64,
    writable: bool,
    /// The number it holds the file's lock by.
    lock: Option<u64>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.machine.lock().close(self);
        }
    }
}

impl Sim {
    /// A machine with an empty disk on which nothing goes wrong; see
    /// [`Sim::set_faults`].
    ///
    /// Only the roots `/` and the empty path exist. Directories below are
    /// made one by one.
    ///
    /// ```
    /// let sim = ourodb::sim::Sim::new(42);
    /// ```
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let shared = Arc::new_cyclic(|shared| Shared {
            seed,
            counters: Arc::default(),
            machine: Mutex::new(Machine::new(seed, shared)),
        });
        Self { shared, process: None }
    }

    /// A handle for a process that starts now: after the next crash all its
    /// requests fail, and whatever still holds it does no more harm.
    pub(crate) fn process(&self) -> Self {
        let boot = self.shared.machine.lock().boot;
        Self { shared: Arc::clone(&self.shared), process: Some(boot) }
    }

    /// Starts a request.
    fn submit<T>(&self, op: impl FnOnce(Reply<T>) -> Op) -> Answer<T> {
        assert_unlocked("a simulated request");
        let (reply, answer) = answer();
        let op = op(reply);
        if let Some(file) = op.file() {
            let own = Weak::as_ptr(&node(file).shared) == Arc::as_ptr(&self.shared);
            assert!(own, "{} is a file of another machine", file.path().display());
        }
        let misuse = self.shared.machine.lock().misuse(&op);
        if let (Some(misuse), Some(file)) = (misuse, op.file()) {
            panic!("{} {misuse}", file.path().display());
        }
        let refused = {
            let mut machine = self.shared.machine.lock();
            match self.process {
                Some(boot) if boot != machine.boot => Some(op),
                _ => machine.submit(op),
            }
        };
        if let Some(op) = refused {
            let error = op.restarted();
            op.fail(error);
        }
        answer
    }

    fn change(&self, change: Change) -> Answer<Result<()>> {
        self.submit(|reply| Op::Change(change, reply))
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sim(seed {})", self.shared.seed)
    }
}

fn check_units(offset: u64, len: usize) {
    assert!(
        offset.is_multiple_of(UNIT as u64) && len > 0 && len.is_multiple_of(UNIT),
        "direct I/O of {len} bytes at {offset} is not in whole units"
    );
}

impl Io for Sim {
    fn read(
        &self,
        file: &File,
        offset: u64,
        mut buf: IoBuf,
    ) -> impl Future<Output = (IoBuf, Result<usize>)> {
        check_units(offset, buf.len());
        self.shared.counters.read(buf.len());
        buf.fill(JUNK);
        let file = file.clone();
        self.submit(|reply| Op::Read { file, offset, buf, done: 0, reply })
    }

    fn write(
        &self,
        file: &File,
        offset: u64,
        buf: WriteBuf,
        harden: Harden,
    ) -> impl Future<Output = (WriteBuf, Result<()>)> {
        let data: Arc<[u8]> = buf.bytes().into();
        check_units(offset, data.len());
        self.shared.counters.write(data.len());
        let file = file.clone();
        self.submit(|reply| Op::Write { file, offset, data, done: 0, harden, buf, reply })
    }

    fn sync(&self, file: &File) -> impl Future<Output = Result<()>> {
        self.shared.counters.sync();
        self.change(Change::Sync(file.clone()))
    }

    fn punch(&self, file: &File, offset: u64, bytes: u64) -> impl Future<Output = Result<()>> {
        check_units(offset, bytes as usize);
        self.shared.counters.metadata();
        self.change(Change::Punch(file.clone(), offset, bytes))
    }

    fn cut(&self, file: &File, bytes: u64) -> impl Future<Output = Result<()>> {
        check_units(bytes, UNIT);
        self.shared.counters.metadata();
        self.change(Change::Cut(file.clone(), bytes))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = Result<File>> {
        self.shared.counters.metadata();
        self.submit(|reply| Op::Open(path.to_owned(), mode, reply))
    }

    fn len(&self, file: &File) -> impl Future<Output = Result<u64>> {
        self.submit(|reply| Op::Len(file.clone(), reply))
    }

    fn map(&self, file: &File, bytes: usize) -> impl Future<Output = Result<Mapping>> {
        check_units(0, bytes);
        self.shared.counters.metadata();
        self.submit(|reply| Op::Map(file.clone(), bytes, reply))
    }

    fn list(&self, dir: &Path) -> impl Future<Output = Result<Vec<String>>> {
        self.shared.counters.metadata();
        self.submit(|reply| Op::List(dir.to_owned(), reply))
    }

    fn create_dir(&self, dir: &Path) -> impl Future<Output = Result<()>> {
        self.shared.counters.metadata();
        self.change(Change::CreateDir(dir.to_owned()))
    }

    fn remove(&self, path: &Path) -> impl Future<Output = Result<()>> {
        self.shared.counters.metadata();
        self.change(Change::Remove(path.to_owned()))
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = Result<()>> {
        self.shared.counters.metadata();
        self.change(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn sync_dir(&self, dir: &Path) -> impl Future<Output = Result<()>> {
        self.shared.counters.sync();
        self.change(Change::SyncDir(dir.to_owned()))
    }

    fn try_lock(&self, path: &Path, create: bool) -> impl Future<Output = Result<Option<File>>> {
        self.submit(|reply| Op::TryLock(path.to_owned(), create, reply))
    }

    fn unlock(&self, file: &File) -> Result<()> {
        let node = node(file);
        let mut machine = self.shared.machine.lock();
        if node.boot != machine.boot {
            return Err(restarted("unlock", file.path()));
        }
        machine.unlock(node);
        Ok(())
    }

    fn file_id(&self, file: &File) -> Result<[u8; 16]> {
        let node = node(file);
        if node.boot != self.shared.machine.lock().boot {
            return Err(restarted("look at", file.path()));
        }
        Ok(u128::from(node.inode).to_be_bytes())
    }

    fn sleep(&self, nanos: u64) -> impl Future<Output = ()> {
        Self::sleep(self, nanos)
    }

    fn now_ns(&self) -> u64 {
        Self::now_ns(self)
    }

    fn calendar_s(&self) -> u64 {
        CALENDAR_START_S + Self::now_ns(self) / 1_000_000_000
    }

    fn boot_id(&self) -> Result<[u8; 16]> {
        let machine = self.shared.machine.lock();
        match self.process {
            Some(boot) if boot != machine.boot => Err(restarted("read", Path::new("the boot id"))),
            _ => Ok(machine.boot_id),
        }
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut machine = self.shared.machine.lock();
        for chunk in bytes.chunks_mut(8) {
            let drawn = machine.rng.next().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }

    fn counters(&self) -> &Arc<IoCounters> {
        &self.shared.counters
    }
}

/// A timer. Its key is the deadline, and a number that tells it from others.
struct Sleep {
    shared: Arc<Shared>,
    key: (u64, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let (polled, former) = {
            let mut machine = self.shared.machine.lock();
            if machine.now_ns >= self.key.0 {
                (Poll::Ready(()), machine.clear_timer(self.key))
            } else {
                (Poll::Pending, machine.set_timer(self.key, waker))
            }
        };
        drop(former);
        polled
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let former = self.shared.machine.lock().clear_timer(self.key);
        drop(former);
    }
}
