//! What an owner does in the background: it keeps its stream in segments,
//! frees log that is not needed, marks idle streams, flushes memtables, and
//! compacts tables, and takes care of value files.
//!
//! The jobs run on the owner's thread. What flushes and compactions have to
//! compute and write does not have to: it is background work, which the owner
//! leaves to its worker as long as that keeps up with the writers.

mod close;
mod compact;
mod flush;
mod lend;
mod log;
mod reclaim;
mod root;
mod values;

use std::sync::Arc;

use crate::base::sync::atomic::Ordering;
use crate::io::Io;
use crate::runtime::Background;
use crate::shard::engine::{Engine, Owner};

/// What an owner does. Each job ends soon after [`Owner::stop`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Job {
    /// Keeps the stream in segments, and marks it when it falls idle.
    Log,
    /// Sees to it that the stream is durable in time.
    Sync,
    /// Flushes memtables.
    Flush,
    /// Merges, moves and drops tables.
    Compact,
    /// Writes groups of the stream, and syncs it, for those who do not do it
    /// themselves.
    Lead,
    /// Syncs value files for those who do not do it themselves.
    SyncValues,
    /// Gives back the space of long values that nobody can read any more.
    CleanUp,
    /// Gives back that of tables that nobody reads any more.
    Reclaim,
    /// Gives memory to the block cache before it is used, and lends it what memtables
    /// do not use.
    Lend,
}

impl Job {
    /// The jobs of one owner: with two that lead, one syncs while the other
    /// writes.
    pub(crate) const ALL: [Self; 10] = [
        Self::Log,
        Self::Sync,
        Self::Flush,
        Self::Compact,
        Self::Lead,
        Self::Lead,
        Self::SyncValues,
        Self::CleanUp,
        Self::Reclaim,
        Self::Lend,
    ];

    /// For reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Sync => "sync",
            Self::Flush => "flush",
            Self::Compact => "compaction",
            Self::Lead => "lead",
            Self::SyncValues => "sync of values",
            Self::CleanUp => "clean-up of values",
            Self::Reclaim => "clean-up of tables",
            Self::Lend => "memory of the cache",
        }
    }

    /// Does the job of an owner.
    pub(crate) async fn run<I: Io>(
        self,
        engine: Arc<Engine>,
        owner: usize,
        io: I,
        background: Background,
    ) {
        match self {
            Self::Log => engine.log_job(owner, &io, &background).await,
            Self::Sync => engine.sync_job(owner, &io).await,
            Self::Flush => engine.flush_job(owner, &io, &background).await,
            Self::Compact => engine.compact_job(owner, &io, &background).await,
            Self::Lead => engine.lead_job(owner, &io).await,
            Self::SyncValues => engine.sync_values_job(owner, &io).await,
            Self::CleanUp => engine.clean_up_job(owner, &io).await,
            Self::Reclaim => engine.reclaim_job(owner, &io).await,
            Self::Lend => engine.lend_job(owner, &io).await,
        }
    }
}

impl Owner {
    /// Ends the owner's jobs.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.flush_work.set();
        self.retired.work.set();
        self.retired.changed.set();
        if let Some(cache) = &self.cache {
            cache.growth().set();
        }
        self.stream.work.set();
        self.stream.sync_work.set();
        self.stream.lead_work.set_one();
        self.value_work.syncs.set();
        self.value_work.waste.set();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}
