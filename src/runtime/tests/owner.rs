//! An owner's thread for tests, on a ring or on positioned I/O.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tempfile::TempDir;

use crate::io::blocking::{Blocking, Parking};
use crate::io::{BufferPool, Driver, File, Io, IoCounters, OpenMode, uring};
use crate::runtime::{
    Executor, Job, LocalIo, Mailbox, Message, OwnerConfig, Remote, RuntimeCounters, RuntimeCounts,
    block_on, serve,
};

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Ring,
    Parking,
}

pub(super) const KINDS: [Kind; 2] = [Kind::Ring, Kind::Parking];

/// An owner that serves a mailbox until it is closed.
pub(super) struct Owner {
    pub(super) mailbox: Arc<Mailbox<Message>>,
    pub(super) remote: Remote,
    counters: Arc<RuntimeCounters>,
    thread: Option<JoinHandle<()>>,
    dir: TempDir,
}

/// What runs an owner's tasks on the calling thread.
pub(super) fn executor(
    kind: Kind,
    dir: &Path,
    counters: &Arc<IoCounters>,
    spin_ns: u64,
) -> (Executor, LocalIo) {
    fn over(driver: impl Driver + 'static, spin_ns: u64) -> Executor {
        Executor::new(driver, OwnerConfig { spin_ns, logs_stalls: false, is_pinned: false })
    }
    let counters = Arc::clone(counters);
    match kind {
        Kind::Ring => {
            let outside = Blocking::new(Arc::default());
            let lock = block_on(outside.open(&dir.join("ring"), OpenMode::CreateNew)).unwrap();
            let pool = BufferPool::new(4096, 4);
            let (driver, ring, _) = uring::start(counters, pool, &lock).unwrap();
            (over(driver, spin_ns), LocalIo::from(ring))
        }
        Kind::Parking => {
            let (driver, io) = Parking::new(counters);
            (over(driver, spin_ns), LocalIo::from(io))
        }
    }
}

impl Owner {
    pub(super) fn start(kind: Kind, slots: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let io_counters = Arc::<IoCounters>::default();
        let mailbox = Mailbox::new(slots);
        let (tell, told) = mpsc::channel();
        let path = dir.path().to_owned();
        let (served, counts) = (Arc::clone(&mailbox), Arc::clone(&io_counters));
        let thread = std::thread::Builder::new()
            .spawn(move || {
                let (mut executor, io) = executor(kind, &path, &counts, 0);
                tell.send(Arc::clone(executor.counters())).unwrap();
                let serve = serve(served, io, executor.spawner());
                executor.run(vec![Job::new("serve", serve)]).unwrap();
            })
            .unwrap();
        let remote = Remote::new(Arc::clone(&mailbox), io_counters);
        let counters = told.recv().expect("the owner has started");
        Self { mailbox, remote, counters, thread: Some(thread), dir }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn create(&self, name: &str) -> File {
        block_on(self.remote.open(&self.path(name), OpenMode::CreateNew)).unwrap()
    }

    pub(super) fn counts(&self) -> RuntimeCounts {
        self.counters.counts()
    }

    /// Waits until it has gone to sleep this often.
    pub(super) fn asleep(&self, sleeps: u64) {
        while self.counts().sleeps < sleeps {
            std::thread::yield_now();
        }
    }

    /// Waits until no request is outstanding.
    pub(super) fn is_done(&self) {
        while self.mailbox.outstanding() > 0 {
            std::thread::yield_now();
        }
    }

    /// Ends the owner; false when it panicked.
    pub(super) fn end(&mut self) -> bool {
        self.mailbox.close();
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let ended_well = self.end();
        assert!(ended_well || std::thread::panicking(), "the owner panicked");
    }
}
