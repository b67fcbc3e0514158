//! Bugs that can be planted, one at a time, to see that the simulator catches them:
//! a checker that misses one is broken itself. Only builds with the feature
//! `planted` can have one.

/// A bug, each at the one place in the engine that asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "planted"), allow(unreachable_pub, reason = "planted only there"))]
pub enum Bug {
    /// A log segment is used before its name is durable.
    SegmentNameUnsynced,
    /// A table is named by a manifest before its own name is durable.
    TableNameUnsynced,
    /// A table is named by a manifest before its contents are durable.
    TableUnsynced,
    /// A record refers to a long value that is not durable.
    ValueUnsynced,
    /// An edit of a manifest is relied on before it is durable.
    EditUnsynced,
    /// A durable write is acknowledged when it is written.
    AcknowledgedBeforeSync,
    /// A group that makes itself durable takes the one before it for durable, too.
    HardenedOverUnsynced,
    /// A buffer of the mapping takes other records before its group was written.
    MappedBufferReusedEarly,
    /// A group is acknowledged before the one ahead of it is written.
    GroupsOutOfOrder,
    /// An opening syncs what it found of a log, and does not write it again.
    FoundLogOnlySynced,
    /// Log of an old epoch, which a loss of power brought back, is replayed although it was
    /// freed.
    OldEpochReplayed,
    /// A short write counts as a whole one. It is the simulated machine that asks: each way to
    /// do I/O goes on with what is left by itself, and the simulator runs none of the others.
    #[cfg_attr(
        not(feature = "sim"),
        allow(dead_code, reason = "the simulated machine asks for it")
    )]
    ShortWriteIgnored,
    /// A sync that failed is tried again.
    SyncRetried,
    /// A table gets the id of a file that there was before.
    FileIdReused,
    /// A memtable is flushed before its log is durable, and so perhaps before its writes are
    /// visible.
    FlushedBeforeLog,
    /// Log is freed that a memtable still needs.
    LogFreedEarly,
    /// A snapshot sees one publication less than there was.
    SnapshotOffByOne,
    /// Compactions and flushes drop what snapshots see.
    SnapshotNotRetained,
    /// A tombstone is dropped although there is something older.
    TombstoneDropped,
    /// A range tombstone is dropped although there is something older.
    RangeTombstoneDropped,
    /// A get finds writes that are not visible yet.
    ReadAhead,
    /// Nobody wakes the writers that wait for a flush.
    StalledForgotten,
    /// A table that a compaction replaced is not removed.
    TableLeft,
    /// What a snapshot saw is kept after it was dropped.
    SnapshotLeft,
    /// The place of a long value that nobody sees is not given back.
    ValueLeft,
}

/// Whether this bug is planted.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use chosen::plant;
#[cfg(feature = "planted")]
pub(crate) use chosen::planted;

#[cfg(feature = "planted")]
mod chosen {
    use super::Bug;
    use crate::base::sync::atomic::{AtomicU8, Ordering};

    /// One more than its number; 0 for none.
    static PLANTED: AtomicU8 = AtomicU8::new(0);

    impl Bug {
        /// All of them.
        pub const ALL: [Self; 25] = [
            Self::SegmentNameUnsynced,
            Self::TableNameUnsynced,
            Self::TableUnsynced,
            Self::ValueUnsynced,
            Self::EditUnsynced,
            Self::AcknowledgedBeforeSync,
            Self::HardenedOverUnsynced,
            Self::MappedBufferReusedEarly,
            Self::GroupsOutOfOrder,
            Self::FoundLogOnlySynced,
            Self::OldEpochReplayed,
            Self::ShortWriteIgnored,
            Self::SyncRetried,
            Self::FileIdReused,
            Self::FlushedBeforeLog,
            Self::LogFreedEarly,
            Self::SnapshotOffByOne,
            Self::SnapshotNotRetained,
            Self::TombstoneDropped,
            Self::RangeTombstoneDropped,
            Self::ReadAhead,
            Self::StalledForgotten,
            Self::TableLeft,
            Self::SnapshotLeft,
            Self::ValueLeft,
        ];
    }

    /// Whether this bug is planted.
    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == 1 + bug as u8
    }

    /// Plants a bug in the whole process, in the place of any other.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.store(bug.map_or(0, |bug| 1 + bug as u8), Ordering::Relaxed);
    }
}
