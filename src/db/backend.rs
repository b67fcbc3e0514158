//! Who runs the owners' jobs, and how callers wait: threads of the operating
//! system, or the simulated machine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::base::error::{Error, ErrorKind, Result};
use crate::io::blocking::{Blocking, Parking};
use crate::io::{BufferPool, Driver, File, Io, IoCounters, device, uring};
use crate::runtime::{
    Background, Budget, Executor, LocalIo, Mailbox, Message, OwnerConfig, RuntimeCounters, serve,
};
use crate::shard::{Engine, Job};

/// Runs `$future` to its end on the backend, with `$io` as its I/O.
macro_rules! wait_on {
    ($backend:expr, |$io:ident| $future:expr) => {
        match $backend {
            $crate::db::backend::Backend::Os($io) => $crate::runtime::block_on($future),
            #[cfg(feature = "sim")]
            $crate::db::backend::Backend::Sim($io) => $io.block_on($future),
        }
    };
}
pub(super) use wait_on;

/// What callers that wait do their I/O with.
#[derive(Clone)]
pub(super) enum Backend {
    Os(Blocking),
    #[cfg(feature = "sim")]
    Sim(crate::io::sim::Sim),
}

impl Backend {
    /// The clock of [`Io::now_ns`].
    pub(super) fn now_ns(&self) -> u64 {
        match self {
            Self::Os(io) => io.now_ns(),
            #[cfg(feature = "sim")]
            Self::Sim(sim) => sim.now_ns(),
        }
    }

    /// That of [`Io::calendar_s`].
    #[cfg(feature = "interval-log")]
    pub(super) fn calendar_s(&self) -> u64 {
        match self {
            Self::Os(io) => io.calendar_s(),
            #[cfg(feature = "sim")]
            Self::Sim(sim) => sim.calendar_s(),
        }
    }
}

/// How an owner's thread does its I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerKind {
    Ring,
    Blocking,
}

/// An owner's thread that waits for its engine.
pub(super) struct OwnerThread {
    thread: JoinHandle<()>,
    pub(super) mailbox: Arc<Mailbox<Message>>,
    engine: Sender<(Arc<Engine>, usize)>,
    /// What the user should know of how the thread does its I/O.
    pub(super) warning: Option<Error>,
    pub(super) has_ring: bool,
    pub(super) counters: Arc<RuntimeCounters>,
}

/// What an owner's thread says when it has started.
struct Started {
    warning: Option<Error>,
    has_ring: bool,
    counters: Arc<RuntimeCounters>,
}

/// The owners at work.
pub(super) enum Owners {
    Threads(Vec<JoinHandle<()>>),
    #[cfg(feature = "sim")]
    Tasks(Arc<Left>),
}

/// The system starts no more threads.
fn no_thread(error: &std::io::Error) -> Error {
    let message = format!(
        "cannot start an owner's thread: {error}; allow more threads (ulimit -u, or TasksMax of \
         the service), or open the database with fewer owners (Options::owners, --owners)"
    );
    Error::new(ErrorKind::Busy, message)
}

impl OwnerThread {
    /// Starts a thread and its ring. Fails when it cannot have one.
    pub(super) fn start(
        number: usize,
        kind: OwnerKind,
        counters: &Arc<IoCounters>,
        pool: &Arc<BufferPool>,
        lock: &File,
        config: OwnerConfig,
        requests_max: usize,
    ) -> Result<Self> {
        let mailbox = Mailbox::new(requests_max);
        let served = Arc::clone(&mailbox);
        let (started, has_started) = channel();
        let (engine, gets_engine) = channel();
        let (counters, pool, lock) = (Arc::clone(counters), Arc::clone(pool), lock.clone());
        let thread = std::thread::Builder::new()
            .name(format!("ouro-owner-{number}"))
            .spawn(move || {
                if config.is_pinned
                    && let Err(error) = crate::runtime::pin(number)
                {
                    tracing::warn!("{}", error.message());
                }
                let ring = match kind {
                    OwnerKind::Ring => Some(uring::start(Arc::clone(&counters), pool, &lock)),
                    OwnerKind::Blocking => None,
                };
                drop(lock);
                let without_ring = |served, warning| {
                    let (driver, io) = Parking::new(counters);
                    let local = LocalIo::from(io.clone());
                    let start = Start { config, served, local, warning, has_ring: false };
                    run(driver, &io, start, &started, &gets_engine);
                };
                match ring {
                    Some(Ok((driver, io, warning))) => {
                        let local = LocalIo::from(io.clone());
                        let start = Start { config, served, local, warning, has_ring: true };
                        run(driver, &io, start, &started, &gets_engine);
                    }
                    None => without_ring(served, None),
                    // It works without, and the user is told.
                    Some(Err(error)) if error.kind() == ErrorKind::Busy => {
                        without_ring(served, Some(error));
                    }
                    Some(Err(error)) => drop(started.send(Err(error))),
                }
            })
            .map_err(|error| no_thread(&error))?;
        let Started { warning, has_ring, counters } = has_started.recv().unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Io, "an owner's thread ended while it was starting"))
        })?;
        Ok(Self { thread, mailbox, engine, warning, has_ring, counters })
    }

    /// Ends the thread: there is no engine for it.
    pub(super) fn dismiss(self) {
        drop(self.engine);
        if self.thread.join().is_err() {
            tracing::error!("an owner's thread panicked while the opening failed");
        }
    }

    /// Gives the thread its engine and its number there. The thread of a number
    /// the engine does not have ends.
    pub(super) fn employ(self, engine: &Arc<Engine>, number: usize) -> JoinHandle<()> {
        if number < engine.owners.len() {
            // A thread that died is noticed by its guard.
            drop(self.engine.send((Arc::clone(engine), number)));
        }
        self.thread
    }
}

/// What an owner's thread starts with.
struct Start {
    config: OwnerConfig,
    served: Arc<Mailbox<Message>>,
    local: LocalIo,
    warning: Option<Error>,
    has_ring: bool,
}

fn run<D: Driver + 'static, I: Io>(
    driver: D,
    io: &I,
    start: Start,
    started: &Sender<Result<Started>>,
    engine: &Receiver<(Arc<Engine>, usize)>,
) {
    let mut executor = Executor::new(driver, start.config);
    let counters = Arc::clone(executor.counters());
    let Start { warning, has_ring, .. } = start;
    if started.send(Ok(Started { warning, has_ring, counters })).is_err() {
        return;
    }
    // The opening failed, or this owner is not needed.
    let Ok((engine, number)) = engine.recv() else {
        return;
    };
    let guard = Guard { engine: &engine, number };
    if let Some(cache) = &engine.owners[number].cache {
        start.local.know(cache.lender(), engine.cache_bytes());
    }
    let (budget, worker) = (budget(&engine.dir), format!("ouro-worker-{number}"));
    let local = start.local.clone();
    let background = Background::start(&executor.spawner(), local, budget, &worker);
    let jobs = Job::ALL.map(|job| {
        let work = job.run(Arc::clone(&engine), number, io.clone(), background.clone());
        crate::runtime::Job::new(job.name(), work)
    });
    drop(background);
    let serve = serve(start.served, start.local, executor.spawner());
    let serve = crate::runtime::Job::new("serve", serve);
    let ran = executor.run(jobs.into_iter().chain([serve]).collect());
    if let Err(error) = ran {
        tracing::error!(%error, "an owner stopped");
        engine.fail_owner(number, &error);
    }
    std::mem::forget(guard);
}

/// The budget of the device that the database is on.
fn budget(dir: &Path) -> Arc<Budget> {
    match device(dir) {
        Ok(device) => Budget::of_device(device),
        Err(error) => {
            tracing::warn!(%error, "background I/O of this owner has a budget of its own");
            Budget::new()
        }
    }
}

/// Fails the writes of an owner whose thread panicked, rather than let them
/// wait for ever.
struct Guard<'a> {
    engine: &'a Engine,
    number: usize,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let error = Error::new(
            ErrorKind::Poisoned,
            "an owner's thread panicked; open the database again, and please report this",
        );
        // The panic may have left a lock of the engine behind it: whoever
        // takes that panics too, which must not end the whole process here.
        let fail = AssertUnwindSafe(|| self.engine.fail_owner(self.number, &error));
        if catch_unwind(fail).is_err() {
            tracing::error!("an owner's thread panicked with a lock held");
        }
    }
}

impl Owners {
    /// Waits until the owners, who were told to stop, have stopped.
    pub(super) fn join(self, backend: &Backend) -> Result<()> {
        match self {
            Self::Threads(threads) => {
                let mut result = Ok(());
                for thread in threads {
                    if thread.join().is_err() {
                        result = Err(Error::new(
                            ErrorKind::Poisoned,
                            "an owner's thread panicked; what was acknowledged is safe",
                        ));
                    }
                }
                let _ = backend;
                result
            }
            #[cfg(feature = "sim")]
            Self::Tasks(left) => {
                if let Backend::Sim(sim) = backend {
                    sim.block_on(left.wait());
                }
                Ok(())
            }
        }
    }
}

#[cfg(feature = "sim")]
pub(super) use simulated::{Left, spawn_owners};

#[cfg(feature = "sim")]
mod simulated {
    use super::{Arc, Engine, Job};
    use crate::base::sync::Mutex;
    use crate::io::sim::Sim;
    use crate::runtime::{
        Background, Budget, Event, LocalIo, Mailbox, Message, RuntimeCounters, Spawner, serve,
    };

    /// Counts the jobs that have not ended, nor were dropped in a crash.
    #[derive(Default)]
    pub(in crate::db) struct Left {
        jobs: Mutex<usize>,
        changed: Event,
    }

    impl Left {
        pub(in crate::db) async fn wait(&self) {
            while *self.jobs.lock() > 0 {
                self.changed.wait().await;
            }
        }
    }

    struct Token(Arc<Left>);

    impl Drop for Token {
        fn drop(&mut self) {
            *self.0.jobs.lock() -= 1;
            self.0.changed.set();
        }
    }

    /// Runs the owners' jobs on the simulated machine.
    pub(in crate::db) fn spawn_owners(
        sim: &Sim,
        engine: &Arc<Engine>,
        mailboxes: &[Arc<Mailbox<Message>>],
    ) -> (Arc<Left>, Vec<Arc<RuntimeCounters>>) {
        let mut counters = Vec::new();
        let left = Arc::<Left>::default();
        let token = || {
            *left.jobs.lock() += 1;
            Token(Arc::clone(&left))
        };
        let budget = Budget::new();
        for (number, mailbox) in mailboxes.iter().enumerate() {
            let spawner = Spawner::simulated(sim);
            counters.push(Arc::clone(spawner.counters()));
            let serve = serve(Arc::clone(mailbox), LocalIo::from(sim.clone()), spawner.clone());
            let serve_token = token();
            spawner.spawn("serve", async move {
                let _token = serve_token;
                serve.await;
            });
            let background = Background::simulated(sim, Arc::clone(&budget));
            for job in Job::ALL {
                let token = token();
                let job = job.run(Arc::clone(engine), number, sim.clone(), background.clone());
                sim.spawn(async move {
                    let _token = token;
                    job.await;
                });
            }
        }
        (left, counters)
    }
}
