//! Opening and closing; what stands behind a [`Db`](crate::Db).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::base::durability::Durability;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::Mutex;
use crate::db::backend::{Backend, OwnerKind, OwnerThread, Owners, wait_on};
use crate::db::options::{Derived, IoBackend, Options};
use crate::io::blocking::Blocking;
use crate::io::{BufferPool, File, Io, IoCounters};
use crate::lsm::Row;
use crate::manifest::IDENTITY;
use crate::memtable::ArenaPool;
use crate::runtime::AsyncMutex;
use crate::runtime::block_on;
use crate::shard::{Engine, Found, Opening, Scanner, WriteOp, recover};
use crate::wal::Role;

/// The lock's file.
const LOCK: &str = "LOCK";

/// How often a lock that somebody else has is tried again.
const LOCK_RETRY_NS: u64 = 5_000_000;

/// Bytes of the buffers that tables and segments are written with.
const BUFFER_BYTES: usize = 256 << 10;

/// Buffers an owner keeps; its ring registers them.
const OWNER_BUFFERS: usize = 4;

/// An open database.
pub(super) struct Inner {
    pub(super) engine: Arc<Engine>,
    backend: Backend,
    /// `None` once it is closed.
    running: Mutex<Option<Running>>,
    /// Whose turn it is to close.
    closing: AsyncMutex<()>,
}

struct Running {
    owners: Owners,
    lock: File,
}

pub(super) fn open(dir: &Path, options: &Options) -> Result<Inner> {
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
        Ok((engine, threads)) => {
            let running = Running { owners: Owners::Threads(threads), lock };
            Ok(Inner {
                engine,
                backend: Backend::Os(io),
                running: Mutex::new(Some(running)),
                closing: AsyncMutex::new(()),
            })
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
) -> Result<(Arc<Engine>, Vec<JoinHandle<()>>)> {
    // Before anything is written: a machine that forbids io_uring refuses here.
    let pools: Vec<Arc<BufferPool>> =
        (0..derived.owners).map(|_| BufferPool::new(BUFFER_BYTES, OWNER_BUFFERS)).collect();
    let mut threads = Vec::with_capacity(pools.len());
    for (number, pool) in pools.iter().enumerate() {
        match OwnerThread::start(number, owner_kind, io.counters(), pool, lock) {
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

    let opening = opening(dir, options, derived, pools);
    let engine = match block_on(recover(io, opening)) {
        Ok(engine) => Arc::new(engine),
        Err(error) => {
            threads.into_iter().for_each(OwnerThread::dismiss);
            return Err(error);
        }
    };
    let employed = threads.into_iter().enumerate();
    let threads = employed.map(|(number, thread)| thread.employ(&engine, number)).collect();
    Ok((engine, threads))
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
    let pools = (0..derived.owners).map(|_| BufferPool::new(BUFFER_BYTES, OWNER_BUFFERS));
    let opening = opening(dir, options, derived, pools.collect());
    let engine = Arc::new(sim.block_on(recover(sim, opening))?);
    let left = crate::db::backend::spawn_owners(sim, &engine);
    let running = Running { owners: Owners::Tasks(left), lock };
    let backend = Backend::Sim(sim.clone());
    Ok(Inner { engine, backend, running: Mutex::new(Some(running)), closing: AsyncMutex::new(()) })
}

fn opening(
    dir: &Path,
    options: &Options,
    derived: Derived,
    owner_pools: Vec<Arc<BufferPool>>,
) -> Opening {
    Opening {
        dir: dir.to_owned(),
        create: options.creates(),
        shards: derived.shards,
        limits: Box::new(move |shards| derived.limits(shards)),
        segments: derived.segments,
        pool: BufferPool::new(BUFFER_BYTES, 1),
        owner_pools,
        arenas: ArenaPool::new(derived.arena_bytes()),
    }
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
    let path = dir.join(LOCK);
    let deadline = io.now_ns().saturating_add(options.lock_wait_ns());
    loop {
        if let Some(lock) = io.try_lock(&path).await? {
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
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let parent = match at.parent() {
                    Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
                    Some(parent) => parent.to_owned(),
                    None => return Err(error),
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
    for dir in missing.iter().rev() {
        io.create_dir(dir).await?;
        io.sync_dir(&at).await?;
        at.clone_from(dir);
    }
    Ok(())
}

impl Inner {
    pub(super) fn write(&self, ops: &[WriteOp<'_>], durability: Durability) -> Result<()> {
        wait_on!(&self.backend, |io| self.engine.write(io, Role::Leader, ops, durability))
    }

    pub(super) fn get<R>(
        &self,
        key: &[u8],
        visit: impl FnOnce(Found<'_>) -> R,
    ) -> Result<Option<R>> {
        wait_on!(&self.backend, |io| self.engine.get(io, key, visit))
    }

    pub(super) fn next_row(&self, scanner: &mut Scanner) -> Result<Option<Row>> {
        wait_on!(&self.backend, |io| scanner.next(io))
    }

    pub(super) fn flush(&self) -> Result<()> {
        wait_on!(&self.backend, |_io| self.engine.flush_all())
    }

    pub(super) fn close(&self) -> Result<()> {
        // Who closes at the same time waits until it is done.
        let _turn = wait_on!(&self.backend, |_io| self.closing.lock());
        let Some(running) = self.running.lock().take() else {
            return Ok(());
        };
        self.engine.close();
        for owner in &self.engine.owners {
            owner.stop();
        }
        let joined = running.owners.join(&self.backend);
        let finished = wait_on!(&self.backend, |io| self.engine.finish(io));
        let unlocked = match &self.backend {
            Backend::Os(io) => io.unlock(&running.lock),
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.unlock(&running.lock),
        };
        joined.and(finished).and(unlocked)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "closing the database failed; nothing acknowledged is lost");
        }
    }
}
