//! What options come to: everything that they leave open, and whether they can be.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::limits::{SHARDS_MAX, UNIT, UNIT_U64, VALUE_BYTES_MAX, round_up_u64};
use crate::cache::Cache;
use crate::lsm::{Hierarchy, LEVELS, Strategy};
use crate::runtime::OwnerConfig;
use crate::shard::Limits;
use crate::sst::{Compression, PinLimits};
use crate::value::PIECE_BYTES;
use crate::wal::{MapSizes, SEGMENT_BYTES_MAX, SegmentSizes};

use super::{Chosen, Compaction, MIB, Options};

/// The smallest memory budget.
const MEMORY_MIN: u64 = 4 * MIB;

/// An owner has buffers and a cache that do not get smaller with the budget: by
/// default there is one for so many bytes of it, and never more than one for so many.
const OWNER_BYTES: u64 = 2 * MIB;
const OWNER_BYTES_MIN: u64 = MIB / 2;

/// One segment of the log takes so many parts of the budget at most: a replay has all
/// of its records in memory.
const SEGMENT_SHARE: u64 = 4;

/// The first segment of a stream, unless segments are smaller anyway.
const SEGMENT_FIRST_BYTES: u64 = MIB;

/// Immutable memtables a shard may have before its writers wait, unless the user
/// says otherwise, and at most.
const FROZEN: usize = 1;
const FROZEN_MAX: usize = 16;

/// Buffers of a stream's mapping: while one is written, others fill up.
const MAP_SLOTS: usize = 8;

/// Bytes of such a buffer at most: what a device writes in a fraction of a
/// millisecond.
const MAP_SLOT_BYTES: usize = 256 << 10;

/// The shares of the memory budget, in percent: memtables; block caches; filters
/// and indexes, before they take from memtables; what compactions read ahead.
/// Mappings and memory kept for memtables to come have a sixteenth each.
const MEMTABLES_PERCENT: u64 = 40;
const CACHE_PERCENT: u64 = 25;
const PINNED_PERCENT: u64 = 12;
const COMPACTION_PERCENT: u64 = 4;

const _: () = assert!(
    MEMTABLES_PERCENT + CACHE_PERCENT + PINNED_PERCENT + COMPACTION_PERCENT + 2 * 100 / 16 <= 97
);

/// What filters and indexes take at most, most of it from memtables: those that
/// stay in memory, and those that are cached.
const PINNED_MAX_PERCENT: u64 = 24;
const PARTITION_CACHE_PERCENT: u64 = 6;

/// Of what may stay in memory, those of the oldest data may have two of three
/// parts, so that those of young tables, which all lookups ask, find room.
const OLDEST_PARTS: u64 = 2;
const PINNED_PARTS: u64 = 3;

/// What a cache of filters and indexes has at least: room for one or two.
const PARTITION_CACHE_BYTES_MIN: u64 = 128 << 10;

const _: () = assert!(
    PINNED_MAX_PERCENT + PARTITION_CACHE_PERCENT - PINNED_PERCENT <= MEMTABLES_PERCENT * 3 / 4,
    "memtables give no more than three quarters"
);

/// What compactions of one owner read ahead, at least and at most.
const COMPACTION_BYTES_MIN: u64 = 128 << 10;
const COMPACTION_BYTES_MAX: u64 = 8 << 20;
/// The most that the user may choose.
const COMPACTION_BYTES_LIMIT: u64 = 64 << 20;

/// The share of the memory budget that is kept of flushed memtables: one in so
/// many.
const ARENAS_SHARE: u64 = 16;

/// The share of the memory budget that mappings may take: one in so many.
const MAP_SHARE: u64 = 16;

/// The share of the memory budget that one value may take: one in so many.
const VALUE_SHARE: u64 = 4;

/// The share of the memory budget that idle buffers for long values may take:
/// one in so many.
const VALUE_BUFFERS_SHARE: u64 = 64;

/// Such buffers at most.
const VALUE_BUFFERS_MAX: u64 = 16;

/// Requests of futures at one owner.
const REQUESTS_LIMIT: usize = 1 << 16;

/// Where merged tables may be split.
const TABLE_BYTES_MIN: u64 = 64 << 10;
const TABLE_BYTES_MAX: u64 = 1 << 30;

/// With so many tables on level 0, compaction is behind.
const NEWEST_TABLES_BEHIND: usize = 24;

/// Nobody waits for more than so many.
const TABLES_LIMIT: usize = 10_000;

/// Ages are counted in seconds.
const AGE_MIN: Duration = Duration::from_secs(1);

const IDLE: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_millis(500);

/// Refuses a value of the option `name` that is not in `range`.
fn check<T: PartialOrd + Display>(name: &str, value: T, range: RangeInclusive<T>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(Error::invalid(format!("Options::{name} is {value}; {least} to {most} is allowed")))
}

/// The same for an option that may be left out.
fn check_chosen<T: PartialOrd + Display>(
    name: &str,
    value: Option<T>,
    range: RangeInclusive<T>,
) -> Result<()> {
    value.map_or(Ok(()), |value| check(name, value, range))
}

impl Options {
    /// What these options come to on a machine with `cores` cores.
    pub(in crate::db) fn derive(&self, cores: usize) -> Result<Derived> {
        let Self { memory_bytes: memory, chosen, .. } = *self;
        if memory < MEMORY_MIN {
            return Err(Error::invalid(format!(
                "a memory budget of {memory} bytes is too small to work with; give at least \
                 {MEMORY_MIN}"
            )));
        }
        let shards = self.shards.unwrap_or_else(|| cores.next_power_of_two().max(4));
        let owners = self.owners.unwrap_or_else(|| cores.min((memory / OWNER_BYTES) as usize));
        check("shards", shards, 1..=SHARDS_MAX)?;
        check("owners", owners, 1..=SHARDS_MAX)?;
        if owners as u64 > memory / OWNER_BYTES_MIN {
            return Err(Error::invalid(format!(
                "Options::owners is {owners}, with a memory budget of {memory} bytes: each takes \
                 at least {OWNER_BYTES_MIN} of it; raise Options::memory (--memory), or have \
                 fewer owners"
            )));
        }
        check("requests_max", self.requests_max, 1..=REQUESTS_LIMIT)?;
        check("levels", usize::from(self.levels), 2..=LEVELS)?;
        check("size_ratio", self.size_ratio, 2..=100)?;
        check_chosen("table_bytes", chosen.table_bytes, TABLE_BYTES_MIN..=TABLE_BYTES_MAX)?;
        check_chosen("immutable_memtables_max", chosen.immutable_memtables_max, 1..=FROZEN_MAX)?;
        check_chosen("value_bytes_max", chosen.value_bytes_max, 1..=VALUE_BYTES_MAX)?;
        check_chosen("pinned_bytes", chosen.pinned_bytes, 0..=memory)?;
        check_chosen("memtable_pool_bytes", chosen.memtable_pool_bytes, 0..=memory)?;
        check_chosen("value_pool_bytes", chosen.value_pool_bytes, 0..=memory)?;
        check("compression_from", usize::from(self.compression_level_max), 0..=LEVELS - 1)?;
        for compression in self.compression {
            compression.check().map_err(Error::unsupported)?;
        }
        let segments = self.segments()?;
        self.check_caches(owners.min(shards) as u64)?;
        self.check_log(segments)?;
        self.check_level_0()?;
        self.check_fifo()?;
        Ok(Derived {
            memory,
            chosen,
            shards,
            owners,
            segments,
            durability: self.durability,
            requests_max: self.requests_max,
            spin_ns: u64::try_from(self.spin.as_nanos()).unwrap_or(u64::MAX),
            is_pinned: self.is_pinned,
            compaction: self.compaction,
            levels: self.levels,
            size_ratio: self.size_ratio,
            compression: self.compression,
        })
    }

    fn segments(&self) -> Result<SegmentSizes> {
        let segment_bytes_max = SEGMENT_BYTES_MAX.min(self.memory_bytes / SEGMENT_SHARE);
        let max_bytes = match self.chosen.wal_segment_bytes {
            None => round_up_u64((self.memory_bytes / 64).clamp(MIB, 64 * MIB)),
            Some(bytes)
                if bytes.is_multiple_of(UNIT_U64)
                    && (2 * UNIT_U64..=segment_bytes_max).contains(&bytes) =>
            {
                bytes
            }
            Some(bytes) => {
                return Err(Error::invalid(format!(
                    "log segments of {bytes} bytes; a multiple of {UNIT} from {} to \
                     {segment_bytes_max} is allowed: a quarter of the memory budget, or 1 GiB",
                    2 * UNIT_U64
                )));
            }
        };
        Ok(SegmentSizes { first_bytes: max_bytes.min(SEGMENT_FIRST_BYTES), max_bytes })
    }

    /// `owners` share them.
    fn check_caches(&self, owners: u64) -> Result<()> {
        let Chosen { cache_bytes, partition_cache_bytes, compaction_read_bytes, .. } = self.chosen;
        if let Some(bytes) = cache_bytes {
            let least = owners * Cache::FRAME_BYTES as u64;
            if 0 < bytes && bytes < least {
                return Err(Error::invalid(format!(
                    "block caches of {bytes} bytes; give them 0, or at least {least}"
                )));
            }
        }
        let partitions = owners * PARTITION_CACHE_BYTES_MIN..=u64::MAX;
        check_chosen("partition_cache_bytes", partition_cache_bytes, partitions)?;
        let ahead = owners * COMPACTION_BYTES_MIN..=owners * COMPACTION_BYTES_LIMIT;
        check_chosen("compaction_read_bytes", compaction_read_bytes, ahead)?;
        if self.chosen.memtable_bytes.is_some() && self.chosen.pinned_bytes_free.is_some() {
            return Err(Error::invalid(
                "Options::pinned_bytes_free says when memtables get smaller, and \
                 Options::memtable_bytes that they do not: give one of them"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn check_log(&self, segments: SegmentSizes) -> Result<()> {
        let Chosen { wal_bytes_max, wal_map_bytes, .. } = self.chosen;
        check_chosen("wal_bytes_max", wal_bytes_max, 4 * segments.max_bytes..=u64::MAX)?;
        let Some(bytes) = wal_map_bytes else { return Ok(()) };
        let slots = MAP_SLOTS as u64;
        let slot_max = (MAP_SLOT_BYTES as u64).min(group_bytes_max(segments) as u64);
        check("wal_map_bytes", bytes, slots * UNIT_U64..=slots * slot_max)?;
        if !bytes.is_multiple_of(slots * UNIT_U64) {
            return Err(Error::invalid(format!(
                "Options::wal_map_bytes is {bytes}; it must be a multiple of {}",
                slots * UNIT_U64
            )));
        }
        Ok(())
    }

    fn check_fifo(&self) -> Result<()> {
        let Compaction::Fifo { max_bytes, max_age } = self.compaction else { return Ok(()) };
        if max_bytes.is_none() && max_age.is_none() {
            return Err(Error::invalid(
                "compaction first in, first out drops nothing without a bound: give it a number \
                 of bytes, an age, or both"
                    .to_owned(),
            ));
        }
        if max_age.is_some_and(|age| age < AGE_MIN) {
            return Err(Error::invalid(format!(
                "compaction first in, first out drops what is older than {max_age:?}; give it at \
                 least {AGE_MIN:?}"
            )));
        }
        Ok(())
    }

    fn check_level_0(&self) -> Result<()> {
        let Chosen { level_0_tables_slow: slow, level_0_tables_max: max, .. } = self.chosen;
        if slow.is_none() && max.is_none() {
            return Ok(());
        }
        if matches!(self.compaction, Compaction::Fifo { .. }) {
            return Err(Error::invalid(
                "with compaction first in, first out all tables are on level 0: \
                 Options::level_0_tables_slow and level_0_tables_max do not go with it"
                    .to_owned(),
            ));
        }
        let least = newest_tables_behind(self.compaction, self.size_ratio);
        let slow = slow.unwrap_or(least);
        check("level_0_tables_slow", slow, least..=TABLES_LIMIT)?;
        let max_least = (2 * least).max(slow + 1);
        check_chosen("level_0_tables_max", max, max_least..=2 * TABLES_LIMIT)
    }
}

/// So many tables may be on level 0 before writers are slowed down.
fn newest_tables_behind(compaction: Compaction, size_ratio: u32) -> usize {
    match compaction {
        Compaction::Leveled => NEWEST_TABLES_BEHIND,
        Compaction::Tiered => NEWEST_TABLES_BEHIND.max(2 * size_ratio as usize),
        // They are all there.
        Compaction::Fifo { .. } => usize::MAX / 2,
    }
}

/// The longest record: it fits into the first segment.
fn group_bytes_max(segments: SegmentSizes) -> usize {
    (segments.first_bytes - UNIT_U64) as usize
}

fn sum<const N: usize>(bytes: [u64; N]) -> u64 {
    bytes.into_iter().fold(0, u64::saturating_add)
}

/// Everything that options leave open, decided.
#[derive(Clone, Copy, Debug)]
pub(in crate::db) struct Derived {
    memory: u64,
    chosen: Chosen,
    pub(in crate::db) shards: usize,
    pub(in crate::db) owners: usize,
    pub(in crate::db) segments: SegmentSizes,
    durability: Durability,
    pub(in crate::db) requests_max: usize,
    spin_ns: u64,
    is_pinned: bool,
    compaction: Compaction,
    levels: u8,
    size_ratio: u32,
    compression: [Compression; LEVELS],
}

impl Derived {
    /// For the shards of a database that is there, or those of a new one: more owners
    /// would have nothing to do.
    pub(in crate::db) fn for_shards(self, there: Option<usize>) -> Self {
        Self { owners: self.owners.min(there.unwrap_or(self.shards)), ..self }
    }

    /// How owners behave.
    pub(in crate::db) fn owner_config(&self) -> OwnerConfig {
        OwnerConfig { spin_ns: self.spin_ns, logs_stalls: true, is_pinned: self.is_pinned }
    }

    /// The bounds of a database with this many shards.
    ///
    /// # Errors
    /// When what was chosen does not go into the memory budget.
    pub(in crate::db) fn limits(&self, shards: usize) -> Result<Limits> {
        let Chosen { memtable_bytes, pinned_bytes_free, .. } = self.chosen;
        let owners = self.owners.min(shards);
        let frozen_max = self.chosen.immutable_memtables_max.unwrap_or(FROZEN);
        let share = self.percent(MEMTABLES_PERCENT) as usize;
        let derived = share / (shards * (1 + frozen_max));
        if memtable_bytes.is_none() && derived < UNIT {
            return Err(Error::invalid(format!(
                "{shards} shards, and a memory budget of {} bytes, of which each of their \
                 memtables would get {derived}: raise Options::memory (--memory) to {} at least",
                self.memory,
                (UNIT * shards * (1 + frozen_max)) as u64 * 100 / MEMTABLES_PERCENT + 100,
            )));
        }
        let memtable_bytes_each = memtable_bytes.unwrap_or(derived).max(UNIT);
        let newest_tables_behind = newest_tables_behind(self.compaction, self.size_ratio);
        let newest_tables_behind = self.chosen.level_0_tables_slow.unwrap_or(newest_tables_behind);
        let newest_tables_max = self.chosen.level_0_tables_max;
        let value_bytes_max = (self.memory / VALUE_SHARE).min(VALUE_BYTES_MAX as u64) as usize;
        let wal_bytes_max = (self.memory / owners as u64).max(4 * self.segments.max_bytes);
        let mut limits = Limits {
            memory: self.memory,
            memtable_bytes: memtable_bytes_each,
            frozen_max,
            wal_bytes_max: self.chosen.wal_bytes_max.unwrap_or(wal_bytes_max),
            value_bytes_max: self.chosen.value_bytes_max.unwrap_or(value_bytes_max),
            group_bytes_max: group_bytes_max(self.segments),
            map: self.map(owners),
            durability: self.durability,
            cache_bytes: self.cache_bytes(owners),
            cache_lent_bytes: 0,
            idle_ns: IDLE.as_nanos() as u64,
            retry_ns: RETRY.as_nanos() as u64,
            hierarchy: self.hierarchy(shards, memtable_bytes_each),
            newest_tables_behind,
            newest_tables_max: newest_tables_max
                .unwrap_or_else(|| newest_tables_behind.saturating_mul(2)),
            pinned_bytes_free: match memtable_bytes {
                None => Some(pinned_bytes_free.unwrap_or_else(|| self.percent(PINNED_PERCENT))),
                Some(_) => None,
            },
            pins: PinLimits::default(),
            partition_cache_bytes: self.partition_cache_bytes(owners),
            compaction_read_bytes: self.compaction_read_bytes(owners),
            memtable_pool_bytes: self.memtable_pool_bytes(),
            value_pool_bytes: self.value_pool_bytes(),
        };
        limits.pins = self.pins(&limits, shards, owners)?;
        limits.cache_lent_bytes = self.cache_lent_bytes(&limits, shards, owners)?;
        let Strategy::Fifo { bytes_max: Some(bytes), .. } = limits.hierarchy.strategy else {
            return Ok(limits);
        };
        if bytes < limits.memtable_bytes as u64 {
            return Err(Error::invalid(format!(
                "compaction first in, first out with {bytes} bytes for each of {shards} shards, \
                 and memtables of {}: everything would be dropped as soon as it is flushed; give \
                 it at least {} bytes, or choose a smaller Options::memtable_bytes",
                limits.memtable_bytes,
                (limits.memtable_bytes * shards) as u64,
            )));
        }
        Ok(limits)
    }

    fn percent(&self, percent: u64) -> u64 {
        self.memory / 100 * percent
    }

    /// What filters and indexes may take for good: with everything else, they stay
    /// within the budget.
    fn pins(&self, limits: &Limits, shards: usize, owners: usize) -> Result<PinLimits> {
        let Chosen { memtable_bytes, pinned_bytes, .. } = self.chosen;
        let of = |bytes: usize, count: usize| (bytes as u64).saturating_mul(count as u64);
        let memtables = of(limits.memtable_bytes, shards * (1 + limits.frozen_max));
        // Those of derived length give up to three quarters.
        let memtables_least = if memtable_bytes.is_some() { memtables } else { memtables / 4 };
        let caches = of(limits.cache_bytes, owners);
        let partition_caches = of(limits.partition_cache_bytes, owners);
        let map_bytes = limits.map.slot_bytes as usize * usize::from(limits.map.slots);
        let buffers = sum([
            of(limits.compaction_read_bytes + map_bytes, owners),
            limits.memtable_pool_bytes,
            limits.value_pool_bytes,
        ]);
        let free = limits.pinned_bytes_free.unwrap_or(0);
        let pinned = pinned_bytes.unwrap_or(0);
        let beyond = sum([memtables_least, partition_caches, pinned]);
        let all = sum([caches, buffers, beyond.max(sum([memtables, free]))]);
        if self.is_chosen() && all > self.memory {
            return Err(Error::invalid(format!(
                "what was chosen comes to {all} bytes, more than the memory budget of {}: \
                 {memtables} for memtables ({} for each of {shards} shards, with {} immutable \
                 ones), {caches} for block caches, {} for filters and indexes, {partition_caches} \
                 for those that do not stay in memory, {buffers} for buffers; raise \
                 Options::memory (--memory) or choose less of these",
                self.memory,
                limits.memtable_bytes,
                limits.frozen_max,
                pinned.max(free),
            )));
        }
        let others = sum([caches, buffers, memtables_least, partition_caches]);
        let left = self.memory.saturating_sub(others);
        let share = self.percent(PINNED_MAX_PERCENT);
        let share = if self.is_chosen() { share.min(left) } else { share };
        let bytes_max = pinned_bytes.unwrap_or(share);
        let oldest = self.chosen.pinned_bytes_oldest;
        let oldest_bytes_max = oldest.unwrap_or(bytes_max / PINNED_PARTS * OLDEST_PARTS);
        if oldest_bytes_max > bytes_max {
            return Err(Error::invalid(format!(
                "Options::pinned_bytes_oldest is {oldest_bytes_max}, more than the {bytes_max} of \
                 Options::pinned_bytes"
            )));
        }
        Ok(PinLimits { bytes_max, oldest_bytes_max })
    }

    /// Whether any part of the budget was.
    fn is_chosen(&self) -> bool {
        let chosen = &self.chosen;
        chosen.memtable_bytes.is_some()
            || chosen.cache_bytes.is_some()
            || chosen.pinned_bytes.is_some()
            || chosen.pinned_bytes_free.is_some()
            || chosen.partition_cache_bytes.is_some()
            || chosen.compaction_read_bytes.is_some()
            || chosen.wal_map_bytes.is_some()
            || chosen.memtable_pool_bytes.is_some()
            || chosen.value_pool_bytes.is_some()
    }

    fn hierarchy(&self, shards: usize, memtable_bytes: usize) -> Hierarchy {
        let memtable_bytes = memtable_bytes as u64;
        let derived_bytes = || memtable_bytes.saturating_mul(4).clamp(MIB, 64 * MIB);
        let strategy = match self.compaction {
            Compaction::Leveled => Strategy::Leveled,
            Compaction::Tiered => Strategy::Tiered,
            Compaction::Fifo { max_bytes, max_age } => Strategy::Fifo {
                bytes_max: max_bytes.map(|bytes| bytes / shards as u64),
                age_s_max: max_age.map(|age| age.as_secs()),
            },
        };
        Hierarchy {
            strategy,
            levels: self.levels,
            size_ratio: u64::from(self.size_ratio),
            table_bytes: self.chosen.table_bytes.unwrap_or_else(derived_bytes),
            memtable_bytes,
            compression: self.compression,
        }
    }

    /// The mapping of each of so many owners' logs.
    fn map(&self, owners: usize) -> MapSizes {
        let share = round_up_u64(self.memory / MAP_SHARE / owners as u64);
        let bytes = self.chosen.wal_map_bytes.unwrap_or(share) as usize;
        let slot_bytes = (bytes / MAP_SLOTS).clamp(UNIT, MAP_SLOT_BYTES) / UNIT * UNIT;
        let slot_bytes = slot_bytes.min(group_bytes_max(self.segments)) as u32;
        MapSizes { slot_bytes, slots: MAP_SLOTS as u16 }
    }

    /// The cache of each of so many owners.
    fn cache_bytes(&self, owners: usize) -> usize {
        let owners = owners as u64;
        let bytes = match self.chosen.cache_bytes {
            // Never none: what is too little for more owners than there were to
            // be is refused.
            Some(bytes) => bytes.div_ceil(owners),
            None => self.percent(CACHE_PERCENT) / owners,
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// What may be lent to the cache of each of so many owners.
    fn cache_lent_bytes(&self, limits: &Limits, shards: usize, owners: usize) -> Result<usize> {
        let Chosen { memtable_bytes, cache_bytes, cache_bytes_max, .. } = self.chosen;
        let memtables = limits.memtable_bytes * shards * (1 + limits.frozen_max) / owners;
        // Not all that they may have, see `Engine::pinned_bytes_spare`.
        let pinned = limits.pinned_bytes_free.map_or(0, |bytes| bytes as usize / 4 * 3 / owners);
        let lendable = memtables / 4 * 3 + pinned;
        let Some(bytes_max) = cache_bytes_max else {
            let is_chosen = memtable_bytes.is_some() || cache_bytes.is_some();
            return Ok(if is_chosen { 0 } else { lendable });
        };
        let caches = cache_bytes.unwrap_or_else(|| self.percent(CACHE_PERCENT));
        let Some(more) = bytes_max.checked_sub(caches) else {
            return Err(Error::invalid(format!(
                "Options::cache_bytes_max is {bytes_max}, less than the {caches} that block \
                 caches have for good"
            )));
        };
        Ok(lendable.min(usize::try_from(more).unwrap_or(usize::MAX) / owners))
    }

    /// The same for filters and indexes.
    fn partition_cache_bytes(&self, owners: usize) -> usize {
        let share = self.percent(PARTITION_CACHE_PERCENT);
        let bytes = self.chosen.partition_cache_bytes.unwrap_or(share) / owners as u64;
        bytes.max(PARTITION_CACHE_BYTES_MIN) as usize
    }

    /// What compactions of each of so many owners read ahead.
    fn compaction_read_bytes(&self, owners: usize) -> usize {
        let share = self.percent(COMPACTION_PERCENT) / owners as u64;
        let share = share.clamp(COMPACTION_BYTES_MIN, COMPACTION_BYTES_MAX);
        let chosen = self.chosen.compaction_read_bytes;
        chosen.map_or(share, |bytes| bytes / owners as u64) as usize
    }

    /// Memory of flushed memtables that is kept for the next ones.
    pub(in crate::db) fn memtable_pool_bytes(&self) -> u64 {
        self.chosen.memtable_pool_bytes.unwrap_or(self.memory / ARENAS_SHARE)
    }

    /// Memory of buffers that long values are written and read with, and that are kept.
    pub(in crate::db) fn value_pool_bytes(&self) -> u64 {
        let piece = PIECE_BYTES as u64;
        let share = (self.memory / VALUE_BUFFERS_SHARE / piece).clamp(1, VALUE_BUFFERS_MAX) * piece;
        self.chosen.value_pool_bytes.unwrap_or(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_stay_within_the_budget() {
        let small = Options::default().memory(MEMORY_MIN).derive(100).expect("possible");
        assert_eq!(small.owners, 2);
        for cores in [1, 2, 16, 100] {
            let derived = Options::default().derive(cores).expect("defaults are possible");
            assert!(derived.shards.is_power_of_two() && derived.shards >= 4);
            let limits = derived.limits(derived.shards).expect("it fits");
            let memtables = limits.memtable_bytes * derived.shards * (1 + FROZEN);
            assert!(memtables as u64 <= derived.memory * 4 / 10);
            let caches = limits.cache_bytes * derived.owners.min(derived.shards);
            assert!(caches as u64 <= derived.memory / 4 && caches > 60 << 20);
            let partitions = limits.partition_cache_bytes * derived.owners.min(derived.shards);
            assert!(limits.pins.bytes_max + partitions as u64 <= derived.memory * 3 / 10);
            assert!(limits.pins.oldest_bytes_max < limits.pins.bytes_max);
        }
    }

    #[test]
    fn caches_may_be_set_and_left_out() {
        let cache_bytes = |options: Options| {
            let derived = options.owners(4).derive(4).expect("possible");
            derived.limits(derived.shards).expect("it fits").cache_bytes
        };
        assert_eq!(cache_bytes(Options::default().cache_bytes(1 << 20)), 256 << 10);
        assert_eq!(cache_bytes(Options::default().cache_bytes(0)), 0);
        // Of itself there are some for as many owners as there may be.
        let many = Options::default().memory(MEMORY_MIN).shards(8).owners(8);
        let derived = many.derive(1).expect("possible");
        assert!(derived.limits(8).expect("it fits").cache_bytes > 30 * Cache::FRAME_BYTES);
    }

    #[test]
    fn what_is_chosen_fits_into_the_budget_or_is_refused() {
        let memory = 64 << 20;
        let options = || Options::default().memory(memory).shards(4).owners(2);
        let limits = |options: Options| options.derive(2).expect("possible").limits(4);
        let refused = |options: Options| {
            let error = limits(options).expect_err("too much");
            assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument);
            let text = error.to_string();
            assert!(text.contains("--memory") && text.contains("block caches"), "{text}");
        };
        refused(options().memtable_bytes(9 << 20));
        refused(options().memtable_bytes(4 << 20).immutable_memtables_max(4));
        refused(options().memtable_bytes(usize::MAX));
        refused(options().cache_bytes(memory));
        refused(options().cache_bytes(u64::MAX));
        refused(options().pinned_bytes(memory));
        refused(options().pinned_bytes_free(memory / 2));
        refused(options().partition_cache_bytes(memory));
        refused(options().compaction_read_bytes(60 << 20));
        refused(options().memtable_pool_bytes(memory));
        refused(options().value_pool_bytes(memory));
        // What filters and indexes may take follows from what is left.
        let pinned = |memtable_bytes| {
            let limits = limits(options().memtable_bytes(memtable_bytes)).expect("it fits");
            limits.pins.bytes_max
        };
        assert_eq!(pinned(1 << 20), memory / 100 * PINNED_MAX_PERCENT);
        let (some, less) = (pinned(3 << 20), pinned(4 << 20));
        assert_eq!(some - less, 8 << 20);
        assert!(some < memory / 100 * PINNED_MAX_PERCENT);
    }

    #[test]
    fn everything_derived_can_be_chosen() {
        let options = Options::default()
            .shards(4)
            .owners(2)
            .immutable_memtables_max(2)
            .cache_bytes(10 << 20)
            .pinned_bytes(11 << 20)
            .pinned_bytes_free(12 << 20)
            .partition_cache_bytes(2 << 20)
            .compaction_read_bytes(4 << 20)
            .wal_segment_bytes(2 << 20)
            .wal_bytes_max(9 << 20)
            .wal_map_bytes(1 << 20)
            .value_bytes_max(1000)
            .table_bytes(5 << 20)
            .level_0_tables_slow(30)
            .level_0_tables_max(50)
            .pinned_bytes_oldest(3 << 20)
            .memtable_pool_bytes(5 << 20)
            .value_pool_bytes(0);
        let limits = options.clone().derive(2).expect("possible").limits(4).expect("it fits");
        assert_eq!(limits.frozen_max, 2);
        assert_eq!(limits.memtable_bytes, (256 << 20) / 100 * 40 / 12);
        assert_eq!(limits.cache_bytes, 5 << 20);
        assert_eq!((limits.pins.bytes_max, limits.pins.oldest_bytes_max), (11 << 20, 3 << 20));
        assert_eq!((limits.memtable_pool_bytes, limits.value_pool_bytes), (5 << 20, 0));
        assert_eq!(limits.pinned_bytes_free, Some(12 << 20));
        assert_eq!(limits.partition_cache_bytes, 1 << 20);
        assert_eq!(limits.compaction_read_bytes, 2 << 20);
        assert_eq!(limits.wal_bytes_max, 9 << 20);
        assert_eq!(limits.map, MapSizes { slot_bytes: 128 << 10, slots: 8 });
        assert_eq!(limits.value_bytes_max, 1000);
        assert_eq!(limits.hierarchy.table_bytes, 5 << 20);
        assert_eq!((limits.newest_tables_behind, limits.newest_tables_max), (30, 50));
        let slow = Options::default().level_0_tables_slow(40).derive(2).expect("possible");
        assert_eq!(slow.limits(4).expect("it fits").newest_tables_max, 80);
    }

    #[test]
    fn impossible_options_are_refused() {
        let refused = |options: Options| {
            let error = options.derive(2).expect_err("impossible");
            assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument);
        };
        refused(Options::default().memory(0));
        refused(Options::default().shards(0));
        refused(Options::default().shards(5000));
        refused(Options::default().owners(0));
        refused(Options::default().requests_max(0));
        refused(Options::default().cache_bytes(4096));
        refused(Options::default().owners(4).cache_bytes(16 << 10));
        refused(Options::default().memory(4 << 20).pinned_bytes((4 << 20) + 1));
        refused(Options::default().wal_segment_bytes(4096));
        refused(Options::default().wal_segment_bytes(10_000));
        refused(Options::default().immutable_memtables_max(0));
        refused(Options::default().immutable_memtables_max(17));
        refused(Options::default().memtable_bytes(1 << 20).pinned_bytes_free(1 << 20));
        refused(Options::default().owners(4).partition_cache_bytes((512 << 10) - 1));
        refused(Options::default().compaction_read_bytes(1 << 40));
        refused(Options::default().wal_segment_bytes(4 << 20).wal_bytes_max((16 << 20) - 1));
        refused(Options::default().wal_map_bytes(0));
        refused(Options::default().wal_map_bytes(40_000));
        refused(Options::default().wal_map_bytes(4 << 20));
        refused(Options::default().wal_segment_bytes(16 << 10).wal_map_bytes(1 << 20));
        refused(Options::default().value_bytes_max(0));
        refused(Options::default().value_bytes_max(VALUE_BYTES_MAX + 1));
        refused(Options::default().level_0_tables_slow(23));
        refused(Options::default().level_0_tables_max(47));
        refused(Options::default().level_0_tables_slow(60).level_0_tables_max(60));
        let tiered = Options::default().compaction(Compaction::Tiered).size_ratio(20);
        refused(tiered.level_0_tables_slow(39));
        let fifo = Compaction::Fifo { max_bytes: Some(1 << 30), max_age: None };
        refused(Options::default().compaction(fifo).level_0_tables_max(100));
        let fifo = Compaction::Fifo { max_bytes: None, max_age: Some(AGE_MIN / 2) };
        refused(Options::default().compaction(fifo));
        refused(Options::default().memory(4 << 20).owners(9));
        refused(Options::default().memory(4 << 20).wal_segment_bytes((1 << 20) + 4096));
        refused(Options::default().compression_from(LEVELS as u8, Compression::Lz4));
        let many = Options::default().compression_from(LEVELS as u8, Compression::Lz4);
        refused(many.compression_from(0, Compression::None));
    }

    #[test]
    fn what_does_not_go_with_the_number_of_shards_is_refused() {
        let limits = |options: Options, shards| options.derive(1).expect("possible").limits(shards);
        let refused = |options: Options, shards, says: &str| {
            let text = limits(options, shards).expect_err("impossible").to_string();
            assert!(text.contains(says), "{text}");
        };
        let small = || Options::default().memory(MEMORY_MIN);
        refused(small(), 4096, "--memory) to 83886180 at least");
        limits(small(), 128).expect("it fits");
        limits(Options::default().memory(83_886_180), 4096).expect("it fits");
        let fifo = |bytes| Compaction::Fifo { max_bytes: Some(bytes), max_age: None };
        for bytes in [0, 3, (64 << 20) - 1] {
            let options = Options::default().memtable_bytes(16 << 20).compaction(fifo(bytes));
            refused(options, 4, "at least 67108864 bytes");
        }
        let options = Options::default().memtable_bytes(16 << 20).compaction(fifo(64 << 20));
        limits(options, 4).expect("it fits");
        let more = Options::default().pinned_bytes(1 << 20).pinned_bytes_oldest((1 << 20) + 1);
        refused(more, 4, "pinned_bytes_oldest is 1048577, more than the 1048576");
    }

    #[test]
    fn zstd_is_refused_unless_it_was_built_in() {
        for level in [0, LEVELS as u8 - 1] {
            let options = Options::default().compression_from(level, Compression::Zstd);
            let refused = options.derive(2).err();
            assert_eq!(refused.is_none(), cfg!(feature = "zstd"));
            if let Some(error) = refused {
                assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
                assert!(error.to_string().contains("feature `zstd`"), "{error}");
            }
        }
    }
}
