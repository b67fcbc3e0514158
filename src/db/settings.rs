//! What the options of an open database came to.

use std::fmt;

use crate::base::durability::Durability;
use crate::db::open::Inner;
use crate::db::options::Compaction;
use crate::lsm::Strategy;
use crate::sst::Compression;

/// What the options of an open database came to: what was asked for, and what
/// followed from the memory budget and the machine; see
/// [`Db::options`](crate::Db::options). Each can be set by the method of
/// [`Options`](crate::Options) with the name of the field, unless it says
/// otherwise. Bytes are bytes.
///
/// Printing it gives one `name: value` a line.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// assert_eq!(db.options().memory, 256 << 20);
/// println!("{}", db.options());
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// The memory budget.
    pub memory: u64,
    /// Shards; fixed when the database was created.
    pub shards: usize,
    /// Owners: not more than shards.
    pub owners: usize,
    /// What writes survive that do not say.
    pub durability: Durability,
    /// At which length a shard's memtable is flushed, as long as filters and
    /// indexes keep within their share of the memory.
    pub memtable_bytes: usize,
    /// Immutable memtables a shard may have before its writers wait.
    pub immutable_memtables_max: usize,
    /// Block caches of all owners.
    pub cache_bytes: usize,
    /// The same with what may be lent to them, at most.
    pub cache_bytes_max: usize,
    /// What filters and indexes may take for good.
    pub pinned_bytes: u64,
    /// What they may take before memtables get smaller; `None` when the length of
    /// memtables was set.
    pub pinned_bytes_free: Option<u64>,
    /// What those of tables with nothing older beneath them may take for good.
    pub pinned_bytes_oldest: u64,
    /// Memory of flushed memtables that is kept for the next ones.
    pub memtable_pool_bytes: u64,
    /// Buffers for long values that are kept for the next ones.
    pub value_pool_bytes: u64,
    /// Caches of all owners for filters and indexes that do not stay in memory.
    pub partition_cache_bytes: usize,
    /// What compactions of all owners may read ahead.
    pub compaction_read_bytes: usize,
    /// The largest log segment.
    pub wal_segment_bytes: u64,
    /// The log that each owner may keep before memtables are flushed to free
    /// it; it bounds the time to open.
    pub wal_bytes_max: u64,
    /// The mapping of each owner's log.
    pub wal_map_bytes: u64,
    /// The longest value.
    pub value_bytes_max: usize,
    /// Which tables are merged.
    pub compaction: Compaction,
    /// Levels in use, level 0 included.
    pub levels: u8,
    /// How many times a level is as large as the one above it.
    pub size_ratio: u32,
    /// At which length merged tables are split.
    pub table_bytes: u64,
    /// How tables of each level are compressed; set by
    /// [`Options::compression`](crate::Options::compression) and
    /// [`Options::compression_from`](crate::Options::compression_from).
    pub compression: Vec<Compression>,
    /// Tables on level 0 of a shard beyond which writers are slowed down.
    pub level_0_tables_slow: usize,
    /// Those at which they wait.
    pub level_0_tables_max: usize,
}

impl Settings {
    pub(super) fn of(inner: &Inner) -> Self {
        let engine = &inner.engine;
        let (limits, owners) = (&engine.limits, engine.owners.len());
        let hierarchy = &limits.hierarchy;
        let shards = engine.shards.len() as u64;
        Self {
            memory: limits.memory,
            shards: engine.shards.len(),
            owners,
            durability: limits.durability,
            memtable_bytes: limits.memtable_bytes,
            immutable_memtables_max: limits.frozen_max,
            cache_bytes: limits.cache_bytes * owners,
            cache_bytes_max: (limits.cache_bytes + limits.cache_lent_bytes) * owners,
            pinned_bytes: limits.pins.bytes_max,
            pinned_bytes_free: limits.pinned_bytes_free,
            pinned_bytes_oldest: limits.pins.oldest_bytes_max,
            memtable_pool_bytes: limits.memtable_pool_bytes,
            value_pool_bytes: limits.value_pool_bytes,
            partition_cache_bytes: limits.partition_cache_bytes * owners,
            compaction_read_bytes: limits.compaction_read_bytes * owners,
            wal_segment_bytes: engine.owners[0].maker.sizes.max_bytes,
            wal_bytes_max: limits.wal_bytes_max,
            wal_map_bytes: u64::from(limits.map.slot_bytes) * u64::from(limits.map.slots),
            value_bytes_max: limits.value_bytes_max,
            compaction: match hierarchy.strategy {
                Strategy::Leveled => Compaction::Leveled,
                Strategy::Tiered => Compaction::Tiered,
                Strategy::Fifo { bytes_max, age_s_max } => Compaction::Fifo {
                    max_bytes: bytes_max.map(|bytes| bytes * shards),
                    max_age: age_s_max.map(std::time::Duration::from_secs),
                },
            },
            levels: hierarchy.levels,
            size_ratio: hierarchy.size_ratio as u32,
            table_bytes: hierarchy.table_bytes,
            compression: hierarchy.compression.to_vec(),
            level_0_tables_slow: limits.newest_tables_behind,
            level_0_tables_max: limits.newest_tables_max,
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "memory: {}", self.memory)?;
        writeln!(f, "shards: {}", self.shards)?;
        writeln!(f, "owners: {}", self.owners)?;
        writeln!(f, "durability: {}", self.durability)?;
        writeln!(f, "memtable_bytes: {}", self.memtable_bytes)?;
        writeln!(f, "immutable_memtables_max: {}", self.immutable_memtables_max)?;
        writeln!(f, "cache_bytes: {}", self.cache_bytes)?;
        writeln!(f, "cache_bytes_max: {}", self.cache_bytes_max)?;
        writeln!(f, "pinned_bytes: {}", self.pinned_bytes)?;
        match self.pinned_bytes_free {
            Some(bytes) => writeln!(f, "pinned_bytes_free: {bytes}")?,
            None => writeln!(f, "pinned_bytes_free: all")?,
        }
        writeln!(f, "pinned_bytes_oldest: {}", self.pinned_bytes_oldest)?;
        writeln!(f, "memtable_pool_bytes: {}", self.memtable_pool_bytes)?;
        writeln!(f, "value_pool_bytes: {}", self.value_pool_bytes)?;
        writeln!(f, "partition_cache_bytes: {}", self.partition_cache_bytes)?;
        writeln!(f, "compaction_read_bytes: {}", self.compaction_read_bytes)?;
        writeln!(f, "wal_segment_bytes: {}", self.wal_segment_bytes)?;
        writeln!(f, "wal_bytes_max: {}", self.wal_bytes_max)?;
        writeln!(f, "wal_map_bytes: {}", self.wal_map_bytes)?;
        writeln!(f, "value_bytes_max: {}", self.value_bytes_max)?;
        writeln!(f, "compaction: {:?}", self.compaction)?;
        writeln!(f, "levels: {}", self.levels)?;
        writeln!(f, "size_ratio: {}", self.size_ratio)?;
        writeln!(f, "table_bytes: {}", self.table_bytes)?;
        writeln!(f, "compression: {:?}", self.compression)?;
        writeln!(f, "level_0_tables_slow: {}", self.level_0_tables_slow)?;
        write!(f, "level_0_tables_max: {}", self.level_0_tables_max)
    }
}
