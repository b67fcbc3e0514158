//! Everything that the shards of one open database share.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::hash::{KeyHash, KeyHasher};
use crate::base::ids::{DbId, Epoch, FileId, KEYSPACE_DEFAULT, ShardId};
use crate::base::latency::Recorder;
use crate::base::limits::UNIT;
use crate::base::planted::{Bug, planted};
use crate::base::seq::SeqNo;
use crate::base::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::base::sync::{LongestHold, Mutex};
use crate::cache::{Cache, CacheStats, PartitionCache, PartitionCacheStats};
use crate::format::edit::{Edit, MapDir, MapPlace, StreamKey};
use crate::io::{File, IoCounters, IoCounts};
use crate::lsm::{FileIds, Hierarchy, LEVELS, Levels, Member, Situation, garbage_bytes, pick};
use crate::manifest::Manifest;
use crate::memtable::ArenaPool;
use crate::runtime::{AsyncMutex, Event};
use crate::shard::clock::Clock;
use crate::shard::pace::{SlowWriteCounts, SlowWrites};
use crate::shard::state::{Shard, ShardCounts};
use crate::sst::{FilterCounts, Partition, PinLimits, Pins, ReadCounters, Retired, Table};
use crate::value::{ValueCounts, ValueWork};
use crate::wal::{MapSizes, SegmentMaker, Stream, StreamCounts};

/// The bounds one database works within.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The budget from which the others followed.
    pub(crate) memory: u64,
    /// A memtable is rotated when it would exceed this many bytes, while what
    /// is pinned keeps within its share.
    pub(crate) memtable_bytes: usize,
    /// Bytes that filters and indexes may take before memtables get smaller;
    /// `None` when memtables have a fixed length.
    pub(crate) pinned_bytes_free: Option<u64>,
    /// Bytes that they may take before those of further tables do not stay in
    /// memory.
    pub(crate) pins: PinLimits,
    /// Memory for filters and indexes that do not stay there, of each owner.
    pub(crate) partition_cache_bytes: usize,
    /// Bytes that a compaction may read ahead.
    pub(crate) compaction_read_bytes: usize,
    /// Memory of flushed memtables, and of buffers for long values, that is kept.
    pub(crate) memtable_pool_bytes: u64,
    pub(crate) value_pool_bytes: u64,
    /// Immutable memtables a shard may have before its writers wait.
    pub(crate) frozen_max: usize,
    /// Live log one stream may have before memtables are flushed to free it.
    pub(crate) wal_bytes_max: u64,
    /// The longest value.
    pub(crate) value_bytes_max: usize,
    /// The longest record: header, sections and entries of one batch.
    pub(crate) group_bytes_max: usize,
    /// A stream without writes for this long proves its last group durable.
    pub(crate) idle_ns: u64,
    /// A failed flush or segment is tried again after this long.
    pub(crate) retry_ns: u64,
    /// The mapping of a stream.
    pub(crate) map: MapSizes,
    /// What writes are acknowledged by that do not say.
    pub(crate) durability: Durability,
    /// Memory for the block cache of each owner; 0 for none.
    pub(crate) cache_bytes: usize,
    /// Bytes of blocks for which it may borrow memory from memtables, and from the
    /// share of filters and indexes.
    pub(crate) cache_lent_bytes: usize,
    /// How the tables of each shard are arranged.
    pub(crate) hierarchy: Hierarchy,
    /// With so many tables on level 0, compaction is behind; with so many,
    /// writers wait.
    pub(crate) newest_tables_behind: usize,
    pub(crate) newest_tables_max: usize,
}

/// One open database, without its threads.
pub(crate) struct Engine {
    pub(crate) db: DbId,
    pub(crate) dir: PathBuf,
    pub(crate) epoch: Epoch,
    /// Files made in this opening.
    pub(crate) files: AtomicU32,
    /// Where mappings go, if not into the log's directory.
    pub(crate) map_dir: Option<MapDir>,
    pub(crate) hasher: KeyHasher,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) shards: Vec<Shard>,
    /// Of any of their locks.
    pub(crate) longest_hold: Arc<LongestHold>,
    pub(crate) owners: Vec<Owner>,
    pub(crate) root: AsyncMutex<Root>,
    pub(crate) arenas: Arc<ArenaPool>,
    pub(crate) io_counters: Arc<IoCounters>,
    pub(crate) read_counters: ReadCounters,
    /// What open tables take in memory.
    pub(crate) pins: Arc<Pins>,
    pub(crate) slow_writes: SlowWrites,
    /// How long operations take.
    pub(crate) latencies: Recorder,
    /// What filters and indexes take, as of the last [`Engine::share_memory`].
    pub(crate) pinned_bytes: AtomicU64,
}

/// The root manifest, and what only its holder changes.
pub(crate) struct Root {
    pub(crate) manifest: Manifest,
    /// Streams of earlier openings whose log is still needed.
    pub(crate) old_streams: Vec<OldStream>,
    /// Where mappings may be, of this opening and of earlier ones.
    pub(crate) map_dirs: Vec<MapDir>,
}

/// A stream of an earlier opening that is still needed.
pub(crate) struct OldStream {
    pub(crate) key: StreamKey,
    pub(crate) start: u64,
    pub(crate) cut: u64,
    pub(crate) paths: Vec<PathBuf>,
    /// For each shard, the last sequence number that was replayed from it.
    pub(crate) needed: Vec<(ShardId, SeqNo)>,
}

/// One owner: a WAL stream, and the shards whose writes go there.
pub(crate) struct Owner {
    pub(crate) stream: Stream,
    pub(crate) shards: Vec<ShardId>,
    pub(crate) maker: SegmentMaker,
    /// Blocks of its shards' tables.
    pub(crate) cache: Option<Arc<Cache>>,
    /// What each of its shards' memtables may have now, see [`Engine::share_memory`].
    pub(crate) memtable_bytes: AtomicUsize,
    /// A memtable was full since the job that lends looked last.
    pub(crate) was_full: AtomicBool,
    /// Their partitions, as far as they do not stay in memory.
    pub(crate) partitions: Arc<PartitionCache<Partition>>,
    /// The stream's mapping, once it has one.
    pub(crate) map: Mutex<Option<MapPlace>>,
    /// Held for as long as there is the mapping.
    pub(crate) map_lock: Mutex<Option<File>>,
    /// The manifest of each of `shards`.
    pub(crate) manifests: Vec<AsyncMutex<Manifest>>,
    /// Set when a memtable became immutable, or visible, or the owner is to
    /// stop.
    pub(crate) flush_work: Event,
    /// Files that nobody reads any more, and the event of the job that compacts
    /// and removes them: set when a table was flushed, too.
    pub(crate) retired: Arc<Retired>,
    /// Set when there is something to do for the value files of its shards.
    pub(crate) value_work: ValueWork,
    pub(crate) stopping: AtomicBool,
}

impl Limits {
    /// What a memtable is left with in any case.
    fn memtable_bytes_min(&self) -> usize {
        (self.memtable_bytes / 4).max(UNIT)
    }
}

impl Owner {
    /// Memtables that its shards may have.
    fn memtables(&self, limits: &Limits) -> usize {
        self.shards.len() * (1 + limits.frozen_max)
    }

    /// From now on what is read of the table, which is one of its shards', is
    /// cached.
    pub(crate) fn cache(&self, table: &Table) {
        table.cache_in(self.cache.as_ref(), &self.partitions);
    }
}

impl Engine {
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        self.hasher.hash(key)
    }

    /// The shard a key belongs to.
    pub(crate) fn shard_of(&self, hash: KeyHash) -> ShardId {
        hash.shard(self.shards.len()) as ShardId
    }

    pub(crate) fn shard(&self, id: ShardId) -> &Shard {
        &self.shards[usize::from(id)]
    }

    /// The number of the owner of a shard.
    pub(crate) fn owner_of(&self, shard: ShardId) -> usize {
        usize::from(shard) % self.owners.len()
    }

    /// An id no file ever had.
    pub(crate) fn new_file_id(&self) -> FileId {
        let counter = self.files.fetch_add(1, Ordering::Relaxed);
        assert!(counter < u32::MAX, "four billion files in one opening");
        FileId::new(self.epoch, counter)
    }

    /// So many such ids.
    pub(crate) fn new_file_ids(&self, count: u32) -> FileIds {
        let is_old = planted(Bug::FileIdReused) && self.epoch > 1;
        let epoch = if is_old { self.epoch - 1 } else { self.epoch };
        FileIds::new(epoch, self.files.fetch_add(count, Ordering::Relaxed), count)
    }

    /// Takes from memtables what filters and indexes need beyond their share,
    /// up to three quarters. To be called when tables have come or gone.
    pub(crate) fn share_memory(&self) {
        self.note_pinned();
        for owner in &self.owners {
            self.bound_memtables(owner);
            if let Some(cache) = &owner.cache
                && cache.lendable_bytes() > 0
            {
                // Perhaps it has to give some back.
                cache.growth().set();
            }
        }
    }

    /// Looks what filters and indexes take now.
    pub(crate) fn note_pinned(&self) {
        let pinned = |shard: &Shard| {
            let view = Arc::clone(&shard.lock().view);
            let sound = view.levels.tables().filter_map(|(_, member)| match member {
                Member::Sound(table) => Some(table.pinned_bytes()),
                Member::Damaged { .. } => None,
            });
            sound.sum::<u64>()
        };
        let cached = |owner: &Owner| owner.partitions.stats().bytes;
        let all = self.shards.iter().map(pinned).chain(self.owners.iter().map(cached));
        self.pinned_bytes.store(all.sum(), Ordering::Relaxed);
    }

    /// Says how large memtables of the owner's shards may be, as it is now: less what
    /// filters and indexes need beyond their share, and what is lent to the cache.
    pub(crate) fn bound_memtables(&self, owner: &Owner) {
        let lent = owner.cache.as_ref().map_or(0, |cache| cache.lent_bytes());
        let bytes = self.memtable_bytes_beside(owner, lent);
        owner.memtable_bytes.store(bytes, Ordering::Relaxed);
    }

    /// What each memtable of the owner's shards may have while so many bytes are lent
    /// to its cache.
    pub(crate) fn memtable_bytes_beside(&self, owner: &Owner, lent: usize) -> usize {
        let limits = &self.limits;
        let lent = lent.saturating_sub(self.pinned_bytes_spare());
        let taken = self.memtable_bytes_taken() + lent / owner.memtables(limits);
        limits.memtable_bytes.saturating_sub(taken).max(limits.memtable_bytes_min())
    }

    /// What each memtable of the engine gives to filters and indexes.
    fn memtable_bytes_taken(&self) -> usize {
        let Some(free) = self.limits.pinned_bytes_free else { return 0 };
        let beyond = self.pinned_bytes.load(Ordering::Relaxed).saturating_sub(free);
        let memtables = (self.shards.len() * (1 + self.limits.frozen_max)) as u64;
        usize::try_from(beyond / memtables).unwrap_or(usize::MAX)
    }

    /// Of the share of filters and indexes, what each owner may lend: not all that
    /// they leave, as they may need it again.
    fn pinned_bytes_spare(&self) -> usize {
        let Some(free) = self.limits.pinned_bytes_free else { return 0 };
        let left = free.saturating_sub(self.pinned_bytes.load(Ordering::Relaxed));
        (left / 4 * 3) as usize / self.owners.len()
    }

    /// What may be lent to the owner's cache while each memtable of its shards is to
    /// have `memtable_bytes`.
    pub(crate) fn lendable_beside(&self, owner: &Owner, memtable_bytes: usize) -> usize {
        let least = memtable_bytes.max(self.limits.memtable_bytes_min());
        let taken = self.memtable_bytes_taken().saturating_add(least);
        let spare = self.limits.memtable_bytes.saturating_sub(taken);
        spare * owner.memtables(&self.limits) + self.pinned_bytes_spare()
    }

    pub(crate) fn shard_dir(&self, shard: ShardId) -> PathBuf {
        shard_dir(&self.dir, shard)
    }

    /// Bytes of blocks that all caches have room for, for good.
    pub(crate) fn cache_bytes(&self) -> usize {
        let caches = self.owners.iter().filter_map(|owner| owner.cache.as_ref());
        caches.map(|cache| cache.lasting_bytes() as usize).sum()
    }

    /// Takes no more operations.
    pub(crate) fn close(&self) {
        for shard in &self.shards {
            shard.lock().closed = true;
            shard.wake_stalled();
        }
        for owner in &self.owners {
            owner.stream.close();
        }
    }

    /// Fails every write of an owner that does no work any more.
    pub(crate) fn fail_owner(&self, number: usize, cause: &Error) {
        let owner = &self.owners[number];
        owner.stream.poison(cause);
        for &shard in &owner.shards {
            let shard = self.shard(shard);
            shard.lock().flush_error = Some(cause.clone());
            shard.wake_stalled();
            shard.values.fail(cause);
        }
    }

    /// Why a shard's flushes or compactions do not go on, if one's do not.
    pub(crate) fn background_error(&self) -> Option<Error> {
        self.shards.iter().find_map(|shard| {
            let state = shard.lock();
            state.flush_error.clone().or_else(|| state.compaction_error.clone())
        })
    }

    /// Fails when the database was closed.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.shards[0].lock().closed { Err(Error::closed()) } else { Ok(()) }
    }

    pub(crate) fn stats(&self) -> EngineStats {
        let mut stats = EngineStats {
            io: self.io_counters.counts(),
            filters: self.read_counters.counts(),
            slow_writes: self.slow_writes.counts(),
            shard_hold_ns_max: self.longest_hold.ns(),
            ..EngineStats::default()
        };
        for shard in &self.shards {
            let (counts, view, retain) = {
                let state = shard.lock();
                stats.memtable_bytes += state.mutable.memory_bytes() as u64;
                let retain = state.published.retain(&self.clock);
                (state.counts, Arc::clone(&state.view), retain)
            };
            stats.shard.add(&counts);
            // A table that is past its age is not waited for.
            let situation = Situation { is_idle: true, retain, calendar_s: 0 };
            let next = pick(&view.levels, &self.limits.hierarchy, &situation);
            stats.compaction_debt_bytes += next.map_or(0, |plan| plan.input_bytes());
            stats.garbage_bytes += garbage_bytes(&view.levels);
            stats.levels[0].runs += view.levels.newest_run_count() as u64;
            for (number, level) in stats.levels.iter_mut().enumerate().skip(1) {
                level.runs += u64::from(!view.levels.level(number as u8).is_empty());
            }
            let ValueCounts { files, bytes } = shard.values.counts();
            stats.value_files += files;
            stats.value_bytes += bytes;
            stats.immutable_memtables += view.frozen.len() as u64;
            for frozen in &view.frozen {
                stats.memtable_bytes += frozen.memtable.memory_bytes() as u64;
            }
            for (level, table) in view.levels.tables() {
                stats.tables += 1;
                stats.table_bytes += table.meta().file_bytes;
                let level = &mut stats.levels[usize::from(level)];
                level.tables += 1;
                level.bytes += table.meta().file_bytes;
                level.entries += table.meta().entries;
                match table {
                    Member::Sound(table) => {
                        stats.pinned_bytes += table.pinned_bytes();
                        stats.partitioned_tables += u64::from(!table.is_pinned());
                        level.tombstones += table.contents().tombstones;
                    }
                    Member::Damaged { .. } => stats.damaged_tables += 1,
                }
            }
        }
        let bounds = self.owners.iter().map(|owner| owner.memtable_bytes.load(Ordering::Relaxed));
        stats.memtable_bytes_max = bounds.min().unwrap_or(0) as u64;
        stats.recycled_bytes = self.arenas.kept_bytes() as u64;
        for owner in &self.owners {
            let (segments, bytes) = owner.stream.segment_counts();
            stats.wal_segments += segments as u64;
            stats.wal_bytes += bytes;
            stats.wal_map_bytes += owner.stream.map_bytes();
            stats.stream.add(&owner.stream.counts());
            if let Some(cache) = &owner.cache {
                stats.cache.add(&cache.stats());
            }
            stats.partitions.add(&owner.partitions.stats());
            stats.spare_bytes += owner.retired.bytes();
        }
        stats
    }
}

/// The directory of a shard.
pub(crate) fn shard_dir(dir: &std::path::Path, shard: ShardId) -> PathBuf {
    dir.join(format!("shard-{shard:03}"))
}

/// What the root manifest keeps of a stream of an earlier opening.
pub(crate) struct StreamState {
    pub(crate) key: StreamKey,
    pub(crate) start: u64,
    pub(crate) cut: u64,
}

/// The edits that a root manifest starts with: the streams of earlier openings
/// that are still needed, and where mappings may be.
pub(crate) fn root_snapshot(
    old: impl Iterator<Item = StreamState>,
    map_dirs: &[MapDir],
) -> Vec<Edit> {
    let mut edits = vec![Edit::Keyspace { id: KEYSPACE_DEFAULT, name: "default".to_owned() }];
    edits.extend(map_dirs.iter().cloned().map(Edit::MapDir));
    for StreamState { key: stream, start, cut } in old {
        edits.push(Edit::StreamStart { stream, start, flushed: Vec::new() });
        edits.push(Edit::StreamCut { stream, cut });
    }
    edits
}

/// The edits that say what a shard consists of.
pub(crate) fn shard_snapshot(levels: &Levels, flushed: SeqNo, values: Vec<Edit>) -> Vec<Edit> {
    let edit = |(level, table): (u8, &Member)| Edit::Table { level, meta: table.meta().clone() };
    let mut edits: Vec<Edit> = levels.tables().map(edit).collect();
    // Of level 0 the newest comes last.
    edits.reverse();
    edits.push(Edit::Flushed { seq: flushed });
    edits.extend(values);
    edits
}

/// What is on one level, over all shards.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LevelCounts {
    pub(crate) tables: u64,
    /// Sorted runs.
    pub(crate) runs: u64,
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    /// Of the tables that are not damaged.
    pub(crate) tombstones: u64,
}

/// What an engine has done and holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EngineStats {
    pub(crate) io: IoCounts,
    pub(crate) filters: FilterCounts,
    pub(crate) slow_writes: SlowWriteCounts,
    pub(crate) cache: CacheStats,
    pub(crate) partitions: PartitionCacheStats,
    pub(crate) shard: ShardCounts,
    pub(crate) stream: StreamCounts,
    pub(crate) memtable_bytes: u64,
    pub(crate) recycled_bytes: u64,
    pub(crate) memtable_bytes_max: u64,
    pub(crate) immutable_memtables: u64,
    pub(crate) levels: [LevelCounts; LEVELS],
    pub(crate) tables: u64,
    pub(crate) table_bytes: u64,
    pub(crate) damaged_tables: u64,
    pub(crate) compaction_debt_bytes: u64,
    pub(crate) garbage_bytes: u64,
    /// Of files that wait to be written over.
    pub(crate) spare_bytes: u64,
    pub(crate) value_files: u64,
    pub(crate) value_bytes: u64,
    pub(crate) pinned_bytes: u64,
    pub(crate) partitioned_tables: u64,
    pub(crate) wal_segments: u64,
    pub(crate) wal_bytes: u64,
    pub(crate) wal_map_bytes: u64,
    pub(crate) shard_hold_ns_max: u64,
}

impl ShardCounts {
    fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.write_bytes += other.write_bytes;
        self.flushes += other.flushes;
        self.flushed_bytes += other.flushed_bytes;
        self.compactions += other.compactions;
        self.compaction_read_bytes += other.compaction_read_bytes;
        self.compaction_written_bytes += other.compaction_written_bytes;
        self.tables_moved += other.tables_moved;
        self.files_reused += other.files_reused;
        self.stalls += other.stalls;
    }
}

impl StreamCounts {
    fn add(&mut self, other: &Self) {
        self.groups += other.groups;
        self.records += other.records;
        self.record_bytes += other.record_bytes;
        self.written_bytes += other.written_bytes;
        self.marks += other.marks;
        self.durable_groups += other.durable_groups;
        self.syncs += other.syncs;
    }
}
