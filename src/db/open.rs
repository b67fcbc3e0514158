//! Opening and closing; what stands behind a [`Db`](crate::Db).

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::base::durability::Durability;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::latency::Operation;
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::db::backend::{Backend, OwnerKind, OwnerThread, Owners, wait_on};
use crate::db::options::{Derived, IoBackend, Options};
use crate::io::blocking::Blocking;
use crate::io::{BufferPool, File, Io, IoCounters};
use crate::manifest::{IDENTITY, Identity};
use crate::memtable::ArenaPool;
#[cfg(feature = "sim")]
use crate::runtime::Mailbox;
use crate::runtime::{
    AsyncMutex, Remote, RuntimeCounters, RuntimeCounts, block_on, is_owner_thread,
};
use crate::shard::{Engine, Found, Now, Opening, Scanner, WriteOp, recover};
use crate::value::PIECE_BYTES;
use crate::wal::Role;

/// The lock's file.
pub(super) const LOCK: &str = "LOCK";

/// How often a lock that somebody else has is tried again.
const LOCK_RETRY_NS: u64 = 5_000_000;

/// Bytes of the buffers that tables and segments are written with.
const BUFFER_BYTES: usize = 256 << 10;

const _: () = assert!(BUFFER_BYTES <= crate::runtime::PIECE_BYTES_MAX);

/// Buffers an owner keeps; its ring registers them.
const OWNER_BUFFERS: usize = 4;

/// An open database.
pub(super) struct Inner {
    pub(super) engine: Arc<Engine>,
    pub(super) backend: Backend,
    /// The way to each owner.
    pub(super) remotes: Vec<Remote>,
    /// All owners have rings, and so many reads at a time in flight.
    have_rings: bool,
    /// What the owners' threads do.
    counters: Vec<Arc<RuntimeCounters>>,
    /// Some runtime polls futures of this database: dropping it must not block.
    is_awaited: AtomicBool,
    /// `None` once it is closed.
    running: Mutex<Option<Running>>,
    /// Whose turn it is to close.
    closing: AsyncMutex<()>,
}

struct Running {
    owners: Owners,
    lock: File,
}

impl Inner {
    fn new(
        engine: Arc<Engine>,
        backend: Backend,
        links: (Vec<Remote>, Vec<Arc<RuntimeCounters>>),
        running: Running,
        have_rings: bool,
    ) -> Self {
        let (remotes, counters) = links;
        Self {
            engine,
            backend,
            remotes,
            have_rings,
            counters,
            is_awaited: AtomicBool::new(false),
            running: Mutex::new(Some(running)),
            closing: AsyncMutex::new(()),
        }
    }
}

pub(super) fn open(dir: &Path, options: &Options) -> Result<Inner> {
    check_may_wait()?;
    check_path(dir)?;
    options.map_dir_text()?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let derived = options.derive(cores)?;
    let owner_kind = match options.io_backend() {
        IoBackend::Ring => OwnerKind::Ring,
        IoBackend::Blocking => OwnerKind::Blocking,
        #[cfg(feature = "sim")]
        IoBackend::Sim(sim) => return open_simulated(dir, options, derived, sim),
    };
    let io = Blocking::new(Arc::<IoCounters>::default());
    let lock = block_on(take_lock(&io, dir, options))?;
    match open_locked(dir, options, derived, owner_kind, &io, &lock) {
        Ok((engine, threads, links, have_rings)) => {
            let running = Running { owners: Owners::Threads(threads), lock };
            Ok(Inner::new(engine, Backend::Os(io), links, running, have_rings))
        }
        Err(error) => {
            // The rings that knew the lock's file are gone only after a while.
            if let Err(error) = io.unlock(&lock) {
                tracing::warn!(%error, "the lock stays until the owners' rings are gone");
            }
            Err(error)
        }
    }
}

/// Opens a directory whose lock is taken. When it fails, all it started has
/// ended.
fn open_locked(
    dir: &Path,
    options: &Options,
    derived: Derived,
    owner_kind: OwnerKind,
    io: &Blocking,
    lock: &File,
) -> Result<(Arc<Engine>, Vec<JoinHandle<()>>, (Vec<Remote>, Vec<Arc<RuntimeCounters>>), bool)> {
    let derived = derived.for_shards(block_on(shards_there(io, dir)));
    // Before anything is written: a machine that forbids io_uring refuses here.
    let pools: Vec<Arc<BufferPool>> =
        (0..derived.owners).map(|_| BufferPool::new(BUFFER_BYTES, OWNER_BUFFERS)).collect();
    let mut threads = Vec::with_capacity(pools.len());
    for (number, pool) in pools.iter().enumerate() {
        let config = derived.owner_config();
        let started = OwnerThread::start(
            number,
            owner_kind,
            io.counters(),
            pool,
            lock,
            config,
            derived.requests_max,
        );
        match started {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                threads.into_iter().for_each(OwnerThread::dismiss);
                return Err(error);
            }
        }
    }
    if let Some(reason) = threads.iter().find_map(|thread| thread.warning.as_ref()) {
        tracing::warn!("{}", reason.message());
    }

    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let opening = opening(dir, options, derived, pools, io.file_id(lock)?, cores)?;
    let engine = match block_on(recover(io, opening)) {
        Ok(engine) => Arc::new(engine),
        Err(error) => {
            threads.into_iter().for_each(OwnerThread::dismiss);
            return Err(error);
        }
    };
    let links = threads.iter().take(engine.owners.len()).map(|thread| {
        let remote = Remote::new(Arc::clone(&thread.mailbox), Arc::clone(io.counters()));
        (remote, Arc::clone(&thread.counters))
    });
    let links = links.unzip();
    let have_rings = threads.iter().all(|thread| thread.has_ring);
    let employed = threads.into_iter().enumerate();
    let threads = employed.map(|(number, thread)| thread.employ(&engine, number)).collect();
    Ok((engine, threads, links, have_rings))
}

#[cfg(feature = "sim")]
fn open_simulated(
    dir: &Path,
    options: &Options,
    derived: Derived,
    sim: &crate::io::sim::Sim,
) -> Result<Inner> {
    let sim = &sim.process();
    let lock = sim.block_on(take_lock(sim, dir, options))?;
    let derived = derived.for_shards(sim.block_on(shards_there(sim, dir)));
    let pools = (0..derived.owners).map(|_| BufferPool::new(BUFFER_BYTES, OWNER_BUFFERS));
    let place = sim.file_id(&lock)?;
    // The machine runs one thing at a time.
    let opening = opening(dir, options, derived, pools.collect(), place, 1)?;
    let engine = Arc::new(sim.block_on(recover(sim, opening))?);
    let mailboxes: Vec<_> =
        engine.owners.iter().map(|_| Mailbox::new(derived.requests_max)).collect();
    let (left, counters) = crate::db::backend::spawn_owners(sim, &engine, &mailboxes);
    let remotes = mailboxes.into_iter().map(|mailbox| Remote::simulated(mailbox, sim.clone()));
    let running = Running { owners: Owners::Tasks(left), lock };
    Ok(Inner::new(engine, Backend::Sim(sim.clone()), (remotes.collect(), counters), running, true))
}

fn opening(
    dir: &Path,
    options: &Options,
    derived: Derived,
    owner_pools: Vec<Arc<BufferPool>>,
    place: [u8; 16],
    cores: usize,
) -> Result<Opening> {
    Ok(Opening {
        dir: dir.to_owned(),
        create: options.creates(),
        shards: derived.shards,
        limits: Box::new(move |shards| derived.limits(shards)),
        segments: derived.segments,
        pool: BufferPool::new(BUFFER_BYTES, 1),
        owner_pools,
        arenas: ArenaPool::new(derived.memtable_pool_bytes() as usize),
        value_pool: BufferPool::new(PIECE_BYTES, derived.value_pool_bytes() as usize / PIECE_BYTES),
        place,
        map_dir: options.map_dir_text()?,
        lock_wait_ns: options.lock_wait_ns(),
        cores,
    })
}

/// The shards of the database that is in the directory. None is for recovery to
/// create, or to judge.
async fn shards_there<I: Io>(io: &I, dir: &Path) -> Option<usize> {
    Identity::load(io, dir).await.ok().map(|identity| identity.shards)
}

/// Creates the directory if that is wanted, and locks it.
async fn take_lock<I: Io>(io: &I, dir: &Path, options: &Options) -> Result<File> {
    if !options.creates() {
        let not_found = || {
            let dir = dir.display();
            Error::new(ErrorKind::NotFound, format!("there is no database in {dir}"))
        };
        let names = io.list(dir).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => not_found(),
            _ => error,
        })?;
        // A directory that lost its identity is for recovery to judge.
        if !names.iter().any(|name| name == IDENTITY || name == LOCK) {
            return Err(not_found());
        }
    }
    create_dirs(io, dir).await?;
    wait_for_lock(io, dir, options).await
}

/// Takes the lock of a directory.
pub(super) async fn wait_for_lock<I: Io>(io: &I, dir: &Path, options: &Options) -> Result<File> {
    let path = dir.join(LOCK);
    let deadline = io.now_ns().saturating_add(options.lock_wait_ns());
    loop {
        if let Some(lock) = io.try_lock(&path, true).await? {
            return Ok(lock);
        }
        if io.now_ns() >= deadline {
            return Err(Error::new(
                ErrorKind::Locked,
                format!(
                    "{} is open elsewhere: close the other handle or process (a process that was \
                     killed keeps the lock until its I/O has ended), or wait longer \
                     (Options::lock_wait, --lock-wait)",
                    dir.display()
                ),
            ));
        }
        io.sleep(LOCK_RETRY_NS).await;
    }
}

/// Creates the directory and those above it that are missing, durably.
async fn create_dirs<I: Io>(io: &I, dir: &Path) -> Result<()> {
    let mut missing: Vec<PathBuf> = Vec::new();
    let mut at = dir.to_owned();
    loop {
        match io.list(&at).await {
            // An identity is there only once all above it is durable.
            Ok(names) if missing.is_empty() && names.iter().any(|name| name == IDENTITY) => {
                return Ok(());
            }
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let Some(parent) = parent_of(&at) else {
                    return Err(error);
                };
                missing.push(std::mem::replace(&mut at, parent));
            }
            // Something that is no directory, or may not be listed: creating
            // says which.
            Err(error) => {
                io.create_dir(&at).await?;
                return Err(error);
            }
        }
    }
    sync_above(io, &at).await?;
    for dir in missing.iter().rev() {
        io.create_dir(dir).await?;
        io.sync_dir(&at).await?;
        at.clone_from(dir);
    }
    Ok(())
}

/// Makes the names of a directory that is there, and of those above it, durable:
/// an opening that was killed may have made them. Directories that this user may not
/// sync, or whose file system cannot, were not made so.
async fn sync_above<I: Io>(io: &I, dir: &Path) -> Result<()> {
    let mut at = dir.to_owned();
    while let Some(parent) = parent_of(&at) {
        match io.sync_dir(&parent).await {
            Err(error) if !is_refusal(&error) => return Err(error),
            _ => at = parent,
        }
    }
    Ok(())
}

/// Whether a sync was not even tried.
fn is_refusal(error: &Error) -> bool {
    use std::io::ErrorKind as Os;
    let source = std::error::Error::source(error);
    let os = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    error.kind() == ErrorKind::PermissionDenied
        || os.is_some_and(|os| matches!(os.kind(), Os::InvalidInput | Os::Unsupported))
}

/// The directory that a path's last name is in; `None` at the end of the path.
fn parent_of(path: &Path) -> Option<PathBuf> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => (path != ".").then(|| ".".into()),
        parent => parent.map(Path::to_owned),
    }
}

/// Refuses an empty path, of which the system's messages would show nothing.
pub(super) fn check_path(path: &Path) -> Result<()> {
    match path.as_os_str().is_empty() {
        true => Err(Error::invalid(
            "the path given is empty; name a directory (`.` is the current one)",
        )),
        false => Ok(()),
    }
}

/// Refuses to block an owner's thread, on which everything else would wait.
pub(super) fn check_may_wait() -> Result<()> {
    if is_owner_thread() {
        return Err(Error::invalid(
            "this would block an owner's thread, which all else waits for; use .await in the \
             closure given to on_shard, or do it on another thread",
        ));
    }
    Ok(())
}

impl Inner {
    pub(super) fn write(
        &self,
        operation: Operation,
        ops: &[WriteOp<'_>],
        durability: Durability,
    ) -> Result<()> {
        check_may_wait()?;
        let (engine, role) = (&self.engine, Role::Leader);
        wait_on!(&self.backend, |io| engine.write(operation, io, role, ops, durability))
    }

    pub(super) fn get<R>(
        &self,
        key: &[u8],
        visit: impl FnOnce(Found<'_>) -> R,
    ) -> Result<Option<R>> {
        check_may_wait()?;
        wait_on!(&self.backend, |io| self.engine.get(io, key, visit))
    }

    /// Moves a scan to its next row; whether there is one.
    pub(super) fn next_row(&self, scanner: &mut Scanner) -> Result<bool> {
        check_may_wait()?;
        let now_ns = || self.backend.now_ns();
        let timer = scanner.timer(now_ns);
        match scanner.next_in_memory()? {
            Now::Read => {
                // One's own reads follow one another; owners without rings would let
                // those of all threads do so.
                let has_many = self.engine.shards.len() > 1 && self.have_rings;
                wait_on!(&self.backend, |io| async {
                    let own = std::slice::from_ref(io);
                    match has_many {
                        true => scanner.next_reading(own, &self.remotes, timer).await,
                        false => scanner.next_reading(own, own, timer).await,
                    }
                })
            }
            now => {
                self.engine.latencies.record_in_memory(timer, 0, now_ns);
                Ok(now == Now::Row)
            }
        }
    }

    /// What the owners' threads did, all together; and the requests that
    /// futures have outstanding.
    pub(super) fn runtime_counts(&self) -> (RuntimeCounts, usize) {
        let mut counts = RuntimeCounts::default();
        for counters in &self.counters {
            counts.add(&counters.counts());
        }
        (counts, self.remotes.iter().map(|remote| remote.mailbox().outstanding()).sum())
    }

    /// Runs a future that does its I/O by way of the owners.
    pub(super) fn wait_for<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        check_may_wait()?;
        wait_on!(&self.backend, |_io| future)
    }

    /// The way to the owner of a key's shard.
    pub(super) fn remote(&self, key: &[u8]) -> &Remote {
        let engine = &self.engine;
        &self.remotes[engine.owner_of(engine.shard_of(engine.hash(key)))]
    }

    /// Some runtime polls futures of this database.
    pub(super) fn note_awaited(&self) {
        if !self.is_awaited.load(Ordering::Relaxed) {
            self.is_awaited.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn close(&self) -> Result<()> {
        check_may_wait()?;
        // Who closes at the same time waits until it is done.
        let _turn = wait_on!(&self.backend, |_io| self.closing.lock());
        match self.begin_close() {
            Some(running) => finish_close(&self.engine, &self.backend, running),
            None => Ok(()),
        }
    }

    /// Takes no more operations, and tells the owners to end. `None` when that
    /// was done before.
    fn begin_close(&self) -> Option<Running> {
        let running = self.running.lock().take()?;
        self.engine.close();
        for remote in &self.remotes {
            remote.mailbox().close();
        }
        for owner in &self.engine.owners {
            owner.stop();
        }
        Some(running)
    }

    /// Closes without blocking the calling thread.
    fn close_behind(&self) {
        let Some(running) = self.begin_close() else {
            return;
        };
        let (engine, backend) = (Arc::clone(&self.engine), self.backend.clone());
        #[cfg(feature = "sim")]
        if let Backend::Sim(sim) = &backend {
            let sim = sim.clone();
            sim.clone().spawn(async move {
                if let Owners::Tasks(left) = &running.owners {
                    left.wait().await;
                }
                let finished = engine.finish(&sim).await;
                report_close(finished.and(sim.unlock(&running.lock)));
            });
            return;
        }
        let close = move || report_close(finish_close(&engine, &backend, running));
        let thread = std::thread::Builder::new().name("ouro-close".to_owned()).spawn(close);
        if let Err(error) = thread {
            tracing::error!(%error, "the database ends without a mark in its log");
        }
    }
}

/// Waits until the owners have ended, leaves the last marks, and gives up the
/// lock.
fn finish_close(engine: &Arc<Engine>, backend: &Backend, running: Running) -> Result<()> {
    let joined = running.owners.join(backend);
    let finished = wait_on!(backend, |io| engine.finish(io));
    let unlocked = match backend {
        Backend::Os(io) => io.unlock(&running.lock),
        #[cfg(feature = "sim")]
        Backend::Sim(sim) => sim.unlock(&running.lock),
    };
    joined.and(finished).and(unlocked)
}

fn report_close(closed: Result<()>) {
    if let Err(error) = closed {
        tracing::error!(%error, "closing the database failed; nothing acknowledged is lost");
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.is_awaited.load(Ordering::Relaxed) || is_owner_thread() {
            self.close_behind();
        } else {
            report_close(self.close());
        }
    }
}
