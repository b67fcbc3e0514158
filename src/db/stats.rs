//! Counts for people and programs.

use std::fmt;

use crate::db::open::Inner;
use crate::lsm::LEVELS;

/// What is on one level of the tree, over all shards; see [`Stats::levels`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.put(b"key", b"value").wait()?;
/// db.flush().wait()?;
/// let entries: u64 = db.stats().levels.iter().map(|level| level.entries).sum();
/// assert_eq!(entries, 1);
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelStats {
    /// Tables.
    pub tables: u64,
    /// Sorted runs, over all shards: below level 0 one for each shard with tables
    /// there. A lookup asks at most one table of each run of its shard.
    pub runs: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Entries: versions of keys.
    pub entries: u64,
    /// Entries that are deletes; those of damaged tables are not known.
    pub tombstones: u64,
}

/// What a database did since it was opened, and what it holds; see
/// [`Db::stats`](crate::Db::stats). Bytes are bytes, the rest are counts.
///
/// Printing it gives one `name: value` a line.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.put(b"key", b"value").wait()?;
/// assert_eq!(db.stats().puts, 1);
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Shards of the keyspace.
    pub shards: usize,
    /// Owners: threads for background work, each with a WAL stream.
    pub owners: usize,
    /// Tables.
    pub tables: u64,
    /// Bytes of their files.
    pub table_bytes: u64,
    /// Tables that could not be opened because they are damaged; keys in their
    /// ranges are answered with `Corruption`.
    pub damaged_tables: u64,
    /// The levels of the tree, from level 0, where tables come as they are
    /// flushed.
    pub levels: [LevelStats; LEVELS],
    /// Files with values above 64 KiB.
    pub value_files: u64,
    /// Bytes of them that are in use: by values that are there, or were replaced
    /// and may still be read; rounded up to 4,096 for each.
    pub value_bytes: u64,
    /// Bytes of tables that hold what nobody can read any more: deleted and
    /// overwritten entries, and the deletes themselves. An estimate, from what each
    /// table says of itself since it was written, so that it is there right after
    /// an opening: who writes a table looks for a sample of its keys in the filters
    /// of older ones. What was deleted by ranges is not in it.
    pub garbage_bytes: u64,
    /// Bytes of table files that nobody reads any more. New tables are written
    /// over them; those that are not used for ten seconds are removed.
    pub spare_bytes: u64,
    /// Bytes of tables that compaction will merge next, once writes have
    /// paused for a second; 0 when it has nothing left to do.
    pub compaction_debt_bytes: u64,
    /// Bytes of memory that tables take for good: filters and indexes that stay
    /// there, what leads to the others, and to cached blocks.
    pub pinned_bytes: u64,
    /// Tables whose filters and indexes do not stay in memory, as they would take
    /// more than their share of it: a lookup may have to read a part of them, a
    /// *partition*, before it reads a block.
    pub partitioned_tables: u64,
    /// Log segments of this opening. Free ones that wait to be used again are not
    /// among them: two an owner, and more for ten seconds after the log was longer.
    pub wal_segments: u64,
    /// Bytes of their files.
    pub wal_bytes: u64,
    /// Bytes of mapped buffers of the log; they are made when the first write
    /// comes that is not [`Durable`](crate::Durability::Durable).
    pub wal_map_bytes: u64,
    /// Bytes of memory that memtables hold, mutable and immutable ones.
    pub memtable_bytes: u64,
    /// Bytes at which a shard's memtable is flushed now; fewer than at first
    /// while filters and indexes need more than their share of the memory, and while
    /// some of it is lent to the block caches. Of several owners', the least.
    pub memtable_bytes_max: u64,
    /// Bytes of memory kept for memtables to come.
    pub recycled_bytes: u64,
    /// Memtables on their way into tables.
    pub immutable_memtables: u64,
    /// Read requests to the device.
    pub device_reads: u64,
    /// Bytes they asked for.
    pub device_read_bytes: u64,
    /// Write requests to the device.
    pub device_writes: u64,
    /// Bytes they wrote, padding and the preparation of segments included.
    pub device_write_bytes: u64,
    /// Syncs of files and directories; a durable write is not one of them.
    pub device_syncs: u64,
    /// Files opened, created, renamed, removed; directories listed.
    pub metadata_ops: u64,
    /// Writes: puts and deletes, also those of batches.
    pub puts: u64,
    /// Bytes of their keys and values.
    pub put_bytes: u64,
    /// Groups of log records: each was one write.
    pub wal_groups: u64,
    /// Those that their own write made durable.
    pub wal_durable_groups: u64,
    /// Syncs of groups that were written before.
    pub wal_syncs: u64,
    /// Log records: a write or a batch each.
    pub wal_records: u64,
    /// Bytes of log records.
    pub wal_record_bytes: u64,
    /// Bytes of groups as written: records and padding.
    pub wal_written_bytes: u64,
    /// Groups that only prove that the last one was durable.
    pub wal_marks: u64,
    /// Memtables that became tables.
    pub flushes: u64,
    /// Bytes of those tables.
    pub flushed_bytes: u64,
    /// Compactions: tables were merged, moved to a deeper level, or dropped.
    pub compactions: u64,
    /// Bytes of tables that were merged.
    pub compaction_read_bytes: u64,
    /// Bytes of the tables that came of it.
    pub compaction_written_bytes: u64,
    /// Tables that were moved as they were.
    pub tables_moved: u64,
    /// Tables that were written over files that nobody read any more.
    pub files_reused: u64,
    /// Times a write waited because memtables were full.
    pub write_stalls: u64,
    /// Writes that waited a little because flushes or compactions were behind,
    /// so that others need not wait long.
    pub writes_delayed: u64,
    /// How long all of them waited for that, in nanoseconds.
    pub write_delay_ns: u64,
    /// Writes that took longer than 20 ms, most of it because memtables were
    /// full.
    pub slow_writes_memtable: u64,
    /// The same, because they were delayed.
    pub slow_writes_delayed: u64,
    /// The same, because the log had no room.
    pub slow_writes_log: u64,
    /// The same, because the log, or a file of long values, was being written or synced.
    pub slow_writes_device: u64,
    /// Messages that futures sent to owners.
    pub owner_messages: u64,
    /// System calls made to wake a sleeping owner.
    pub owner_wakeups: u64,
    /// Times an owner went to sleep.
    pub owner_sleeps: u64,
    /// Slices of work on owners that took longer than a millisecond: each held
    /// up what else that owner had to do.
    pub owner_slices_long: u64,
    /// The longest slice of work on an owner, in nanoseconds.
    pub owner_slice_ns_max: u64,
    /// The longest time for which the lock of a shard was held, in nanoseconds;
    /// 0 unless the engine was built with `debug_assertions`.
    pub shard_hold_ns_max: u64,
    /// Requests of futures that are outstanding now.
    pub requests_outstanding: u64,
    /// Slices of background work done by threads of the class `SCHED_IDLE`,
    /// with what everybody else leaves of the cores.
    pub background_worker_slices: u64,
    /// Slices of background work done by the owners, because it was behind or
    /// there is no such thread.
    pub background_owner_slices: u64,
    /// Times that background work passed from one to the other.
    pub background_moves: u64,
    /// Bytes of background requests that waited until the device had less to
    /// do.
    pub background_waited_bytes: u64,
    /// Blocks of tables that lookups and scans found in the caches.
    pub cache_hits: u64,
    /// Blocks that they looked for there, and did not find.
    pub cache_misses: u64,
    /// Blocks that were put into the caches.
    pub cache_inserted: u64,
    /// Blocks that left the caches to make room for others.
    pub cache_evicted: u64,
    /// Blocks that were not cached, because they are too long or all that could
    /// make room was in use.
    pub cache_refused: u64,
    /// Blocks that are cached now.
    pub cache_blocks: u64,
    /// Bytes of cached blocks.
    pub cache_bytes: u64,
    /// Bytes of blocks that the caches have room for now: more than at first while
    /// memtables and filters leave memory to them.
    pub cache_capacity_bytes: u64,
    /// Partitions (parts of filters and indexes that do not stay in memory) that
    /// lookups and scans found in the caches for them.
    pub partition_hits: u64,
    /// Partitions that they looked for there, and did not find.
    pub partition_misses: u64,
    /// Partitions that were read and put into the caches.
    pub partition_inserted: u64,
    /// Partitions that left the caches to make room for others.
    pub partition_evicted: u64,
    /// Partitions that were not cached, because they are larger than a cache.
    pub partition_refused: u64,
    /// Bytes of memory that cached partitions take.
    pub partition_cache_bytes: u64,
    /// Bytes of memory that they may take.
    pub partition_cache_capacity_bytes: u64,
    /// Lookups that asked a table's filter.
    pub filter_probes: u64,
    /// Those it answered with "certainly not here".
    pub filter_negatives: u64,
    /// Those it answered with "maybe", and the key was not there.
    pub filter_false_positives: u64,
}

/// What [`Stats::fields`] calls the counts of each level.
const LEVEL_NAMES: [[&str; 5]; LEVELS] = [
    ["level_0_tables", "level_0_runs", "level_0_bytes", "level_0_entries", "level_0_tombstones"],
    ["level_1_tables", "level_1_runs", "level_1_bytes", "level_1_entries", "level_1_tombstones"],
    ["level_2_tables", "level_2_runs", "level_2_bytes", "level_2_entries", "level_2_tombstones"],
    ["level_3_tables", "level_3_runs", "level_3_bytes", "level_3_entries", "level_3_tombstones"],
    ["level_4_tables", "level_4_runs", "level_4_bytes", "level_4_entries", "level_4_tombstones"],
    ["level_5_tables", "level_5_runs", "level_5_bytes", "level_5_entries", "level_5_tombstones"],
    ["level_6_tables", "level_6_runs", "level_6_bytes", "level_6_entries", "level_6_tombstones"],
];

/// `None` for nothing in relation to nothing.
fn ratio(a: u64, b: u64) -> Option<f64> {
    (b > 0).then(|| a as f64 / b as f64)
}

impl Stats {
    pub(super) fn of(inner: &Inner) -> Self {
        let engine = &inner.engine;
        let stats = engine.stats();
        let (runtime, outstanding) = inner.runtime_counts();
        Self {
            shards: engine.shards.len(),
            owners: engine.owners.len(),
            tables: stats.tables,
            table_bytes: stats.table_bytes,
            damaged_tables: stats.damaged_tables,
            levels: stats.levels.map(|level| LevelStats {
                tables: level.tables,
                runs: level.runs,
                bytes: level.bytes,
                entries: level.entries,
                tombstones: level.tombstones,
            }),
            value_files: stats.value_files,
            value_bytes: stats.value_bytes,
            garbage_bytes: stats.garbage_bytes,
            spare_bytes: stats.spare_bytes,
            compaction_debt_bytes: stats.compaction_debt_bytes,
            pinned_bytes: stats.pinned_bytes,
            partitioned_tables: stats.partitioned_tables,
            wal_segments: stats.wal_segments,
            wal_bytes: stats.wal_bytes,
            wal_map_bytes: stats.wal_map_bytes,
            memtable_bytes: stats.memtable_bytes,
            memtable_bytes_max: stats.memtable_bytes_max,
            recycled_bytes: stats.recycled_bytes,
            immutable_memtables: stats.immutable_memtables,
            device_reads: stats.io.reads,
            device_read_bytes: stats.io.read_bytes,
            device_writes: stats.io.writes,
            device_write_bytes: stats.io.write_bytes,
            device_syncs: stats.io.syncs,
            metadata_ops: stats.io.metadata,
            puts: stats.shard.writes,
            put_bytes: stats.shard.write_bytes,
            wal_groups: stats.stream.groups,
            wal_durable_groups: stats.stream.durable_groups,
            wal_syncs: stats.stream.syncs,
            wal_records: stats.stream.records,
            wal_record_bytes: stats.stream.record_bytes,
            wal_written_bytes: stats.stream.written_bytes,
            wal_marks: stats.stream.marks,
            flushes: stats.shard.flushes,
            flushed_bytes: stats.shard.flushed_bytes,
            compactions: stats.shard.compactions,
            compaction_read_bytes: stats.shard.compaction_read_bytes,
            compaction_written_bytes: stats.shard.compaction_written_bytes,
            tables_moved: stats.shard.tables_moved,
            files_reused: stats.shard.files_reused,
            write_stalls: stats.shard.stalls,
            writes_delayed: stats.slow_writes.delayed,
            write_delay_ns: stats.slow_writes.delayed_ns,
            slow_writes_memtable: stats.slow_writes.memtable,
            slow_writes_delayed: stats.slow_writes.pace,
            slow_writes_log: stats.slow_writes.log,
            slow_writes_device: stats.slow_writes.device,
            owner_messages: runtime.messages,
            owner_wakeups: runtime.unparks,
            owner_sleeps: runtime.sleeps,
            owner_slices_long: runtime.slices_long,
            owner_slice_ns_max: runtime.slice_ns_max,
            shard_hold_ns_max: stats.shard_hold_ns_max,
            requests_outstanding: outstanding as u64,
            background_worker_slices: runtime.worker_slices,
            background_owner_slices: runtime.owner_slices,
            background_moves: runtime.moves,
            background_waited_bytes: runtime.budget_waited_bytes,
            cache_hits: stats.cache.hits,
            cache_misses: stats.cache.misses,
            cache_inserted: stats.cache.inserted,
            cache_evicted: stats.cache.evicted,
            cache_refused: stats.cache.refused,
            cache_blocks: stats.cache.blocks,
            cache_bytes: stats.cache.bytes,
            cache_capacity_bytes: stats.cache.capacity_bytes,
            partition_hits: stats.partitions.hits,
            partition_misses: stats.partitions.misses,
            partition_inserted: stats.partitions.inserted,
            partition_evicted: stats.partitions.evicted,
            partition_refused: stats.partitions.refused,
            partition_cache_bytes: stats.partitions.bytes,
            partition_cache_capacity_bytes: stats.partitions.capacity_bytes,
            filter_probes: stats.filters.probes,
            filter_negatives: stats.filters.negatives,
            filter_false_positives: stats.filters.false_positives,
        }
    }

    /// What share of the blocks that were looked for in the caches was there, 0
    /// to 1; `None` when none was looked for.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// assert_eq!(db.stats().cache_hit_ratio(), None);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn cache_hit_ratio(&self) -> Option<f64> {
        ratio(self.cache_hits, self.cache_hits + self.cache_misses)
    }

    /// Bytes written to the device for each byte of keys and values that was put
    /// since the database was opened: the log with its padding and the preparation
    /// of its segments, flushes, compactions, value files, manifests. `None` when
    /// nothing was put. It is what a workload costs once that has run for a
    /// while: right after an opening the log's preparation is most of it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// assert_eq!(db.stats().write_amplification(), None);
    /// db.put(b"key", b"value").wait()?;
    /// assert!(db.stats().write_amplification() > Some(1.0));
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn write_amplification(&self) -> Option<f64> {
        ratio(self.device_write_bytes, self.put_bytes)
    }

    /// How many sorted runs a lookup may have to ask, in the mean over all
    /// shards; `None` without tables. Memtables are not counted.
    ///
    /// That bounds the tables asked, of which filters let hardly any be read in
    /// vain: a lookup takes as many blocks of tables as
    /// [`filter_false_positives`](Self::filter_false_positives), and one for a key
    /// that is there. Of those blocks as many are reads of the device as are not
    /// cached: 1 less [`cache_hit_ratio`](Self::cache_hit_ratio). A scan reads all
    /// runs that have keys of its range.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), ourodb::Options::default().shards(1))?;
    /// db.put(b"key", b"value").wait()?;
    /// assert_eq!(db.stats().read_amplification(), None);
    /// db.flush().wait()?;
    /// assert_eq!(db.stats().read_amplification(), Some(1.0));
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn read_amplification(&self) -> Option<f64> {
        let runs = self.levels.iter().map(|level| level.runs).sum();
        ratio(runs, self.shards as u64).filter(|_| runs > 0)
    }

    /// Bytes of tables and value files for each byte of them that holds what can
    /// be read: 1 where there is no garbage; `None` where nothing is. It is as
    /// good an estimate as [`garbage_bytes`](Self::garbage_bytes). Long
    /// values count as readable for as long as a table refers to them. The log is
    /// not counted: it is bounded by the memory budget.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// db.flush().wait()?;
    /// assert_eq!(db.stats().space_amplification(), Some(1.0));
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn space_amplification(&self) -> Option<f64> {
        let bytes = self.table_bytes + self.value_bytes;
        ratio(bytes, bytes.saturating_sub(self.garbage_bytes))
    }

    /// Names and values of what is no count: those that there are.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// let names: Vec<_> = db.stats().ratios().into_iter().map(|(name, _)| name).collect();
    /// assert_eq!(names, ["write_amplification"]);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn ratios(&self) -> Vec<(&'static str, f64)> {
        let ratios = [
            ("read_amplification", self.read_amplification()),
            ("space_amplification", self.space_amplification()),
            ("write_amplification", self.write_amplification()),
            ("cache_hit_ratio", self.cache_hit_ratio()),
        ];
        ratios.into_iter().filter_map(|(name, ratio)| Some((name, ratio?))).collect()
    }

    /// Names and values: what the database holds first, its levels down to the
    /// lowest with a table, then what it did since it was opened.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// for (name, value) in db.stats().fields() {
    ///     println!("{name} {value}");
    /// }
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, u64)> {
        let mut fields = vec![
            ("shards", self.shards as u64),
            ("owners", self.owners as u64),
            ("tables", self.tables),
            ("table_bytes", self.table_bytes),
            ("damaged_tables", self.damaged_tables),
            ("value_files", self.value_files),
            ("value_bytes", self.value_bytes),
            ("garbage_bytes", self.garbage_bytes),
            ("spare_bytes", self.spare_bytes),
            ("compaction_debt_bytes", self.compaction_debt_bytes),
        ];
        let lowest = self.levels.iter().rposition(|level| level.tables > 0).unwrap_or(0);
        for (names, level) in LEVEL_NAMES.iter().zip(&self.levels[..=lowest]) {
            let LevelStats { tables, runs, bytes, entries, tombstones } = *level;
            fields.extend(names.iter().copied().zip([tables, runs, bytes, entries, tombstones]));
        }
        fields.extend([
            ("pinned_bytes", self.pinned_bytes),
            ("partitioned_tables", self.partitioned_tables),
            ("wal_segments", self.wal_segments),
            ("wal_bytes", self.wal_bytes),
            ("wal_map_bytes", self.wal_map_bytes),
            ("memtable_bytes", self.memtable_bytes),
            ("memtable_bytes_max", self.memtable_bytes_max),
            ("recycled_bytes", self.recycled_bytes),
            ("immutable_memtables", self.immutable_memtables),
            ("device_reads", self.device_reads),
            ("device_read_bytes", self.device_read_bytes),
            ("device_writes", self.device_writes),
            ("device_write_bytes", self.device_write_bytes),
            ("device_syncs", self.device_syncs),
            ("metadata_ops", self.metadata_ops),
            ("puts", self.puts),
            ("put_bytes", self.put_bytes),
            ("wal_groups", self.wal_groups),
            ("wal_durable_groups", self.wal_durable_groups),
            ("wal_syncs", self.wal_syncs),
            ("wal_records", self.wal_records),
            ("wal_record_bytes", self.wal_record_bytes),
            ("wal_written_bytes", self.wal_written_bytes),
            ("wal_marks", self.wal_marks),
            ("flushes", self.flushes),
            ("flushed_bytes", self.flushed_bytes),
            ("compactions", self.compactions),
            ("compaction_read_bytes", self.compaction_read_bytes),
            ("compaction_written_bytes", self.compaction_written_bytes),
            ("tables_moved", self.tables_moved),
            ("files_reused", self.files_reused),
            ("write_stalls", self.write_stalls),
            ("writes_delayed", self.writes_delayed),
            ("write_delay_ns", self.write_delay_ns),
            ("slow_writes_memtable", self.slow_writes_memtable),
            ("slow_writes_delayed", self.slow_writes_delayed),
            ("slow_writes_log", self.slow_writes_log),
            ("slow_writes_device", self.slow_writes_device),
            ("owner_messages", self.owner_messages),
            ("owner_wakeups", self.owner_wakeups),
            ("owner_sleeps", self.owner_sleeps),
            ("owner_slices_long", self.owner_slices_long),
            ("owner_slice_ns_max", self.owner_slice_ns_max),
            ("shard_hold_ns_max", self.shard_hold_ns_max),
            ("requests_outstanding", self.requests_outstanding),
            ("background_worker_slices", self.background_worker_slices),
            ("background_owner_slices", self.background_owner_slices),
            ("background_moves", self.background_moves),
            ("background_waited_bytes", self.background_waited_bytes),
            ("cache_hits", self.cache_hits),
            ("cache_misses", self.cache_misses),
            ("cache_inserted", self.cache_inserted),
            ("cache_evicted", self.cache_evicted),
            ("cache_refused", self.cache_refused),
            ("cache_blocks", self.cache_blocks),
            ("cache_bytes", self.cache_bytes),
            ("cache_capacity_bytes", self.cache_capacity_bytes),
            ("partition_hits", self.partition_hits),
            ("partition_misses", self.partition_misses),
            ("partition_inserted", self.partition_inserted),
            ("partition_evicted", self.partition_evicted),
            ("partition_refused", self.partition_refused),
            ("partition_cache_bytes", self.partition_cache_bytes),
            ("partition_cache_capacity_bytes", self.partition_cache_capacity_bytes),
            ("filter_probes", self.filter_probes),
            ("filter_negatives", self.filter_negatives),
            ("filter_false_positives", self.filter_false_positives),
        ]);
        fields
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratios = self.ratios();
        for (i, (name, value)) in self.fields().into_iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{name}: {value}")?;
            // Each behind what it is made of.
            let behind: &[&str] = match name {
                "compaction_debt_bytes" => &["read_amplification", "space_amplification"],
                "put_bytes" => &["write_amplification"],
                "cache_misses" => &["cache_hit_ratio"],
                _ => &[],
            };
            for (name, ratio) in ratios.iter().filter(|(name, _)| behind.contains(name)) {
                write!(f, "\n{name}: {ratio:.4}")?;
            }
        }
        Ok(())
    }
}
