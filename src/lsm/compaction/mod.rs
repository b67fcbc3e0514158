//! Compaction: which tables of a shard are merged, moved or dropped, and the
//! merging.
//!
//! A *picker* looks at the levels and says what is to be done next, if
//! anything: [`leveled`], [`tiered`] or [`fifo`]. It sees two moods. While
//! writes come in it does what keeps reads and debt bounded, and no more, since
//! each byte written is taken from somebody. When they pause it also cleans up:
//! garbage, tombstones, and runs that reads have to ask one by one.
//!
//! What is garbage is *estimated*. Whoever writes a table looks for a sample of
//! its keys in the filters of older tables (`Contents::hidden`), so that data
//! which nothing was written over is not rewritten to find that out.

mod fifo;
mod job;
mod leveled;
mod plan;
#[cfg(test)]
mod tests;
mod tiered;

pub(crate) use job::compact;
pub(crate) use plan::Plan;

use std::ops::Bound;

use crate::base::error::Result;
use crate::base::keys::KeyBounds;
use crate::lsm::keep::Retain;
use crate::lsm::levels::{LEVELS, Levels};
use crate::lsm::member::Member;
use crate::sst::{Compression, Table, TableMeta};

/// How the tables of each shard are arranged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hierarchy {
    pub(crate) strategy: Strategy,
    /// Levels in use, level 0 included.
    pub(crate) levels: u8,
    /// How many times a level is as large as the one above it.
    pub(crate) size_ratio: u64,
    /// What tables are split at.
    pub(crate) table_bytes: u64,
    /// About what a flush writes.
    pub(crate) memtable_bytes: u64,
    pub(crate) compression: [Compression; LEVELS],
}

#[cfg(test)]
impl Hierarchy {
    /// Leveled, for memtables of this size.
    pub(crate) fn leveled(memtable_bytes: u64) -> Self {
        Self {
            strategy: Strategy::Leveled,
            levels: LEVELS as u8,
            size_ratio: 10,
            table_bytes: 4 * memtable_bytes,
            memtable_bytes,
            compression: [Compression::None; LEVELS],
        }
    }
}

/// Which tables are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Each level below the first is one sorted run of a bounded size: few runs
    /// to ask, little space wasted.
    Leveled,
    /// Runs of similar size are merged into longer ones: fewer bytes written,
    /// more runs to ask.
    Tiered,
    /// Nothing is merged; the oldest tables are dropped once there are more
    /// bytes than this in the shard, or their newest entry is older than this.
    Fifo { bytes_max: Option<u64>, age_s_max: Option<u64> },
}

/// What else a picker goes by.
pub(crate) struct Situation {
    /// Writes have paused.
    pub(crate) is_idle: bool,
    /// Which old versions snapshots may ask for.
    pub(crate) retain: Retain,
    /// Seconds since 1970.
    pub(crate) calendar_s: u64,
}

/// What is to be done next, if anything.
pub(crate) fn pick(levels: &Levels, hierarchy: &Hierarchy, situation: &Situation) -> Option<Plan> {
    let covered = drop_covered(levels, &situation.retain);
    let picked = covered.or_else(|| match hierarchy.strategy {
        Strategy::Leveled => leveled::pick(levels, hierarchy, situation),
        Strategy::Tiered => tiered::pick(levels, hierarchy, situation),
        Strategy::Fifo { bytes_max, age_s_max } => fifo::pick(
            levels,
            bytes_max,
            age_s_max.map(|age| situation.calendar_s.saturating_sub(age)),
        ),
    });
    let clear = || clear_ranges(levels, hierarchy, &situation.retain);
    picked.or_else(|| if situation.is_idle { clear() } else { None })
}

/// What is to be done next so that all entries in `range` come to the deepest
/// level, without what nobody sees any more; `None` when they have.
pub(crate) fn pick_within(
    levels: &Levels,
    hierarchy: &Hierarchy,
    situation: &Situation,
    range: &KeyBounds,
) -> Option<Plan> {
    let covered = drop_covered(levels, &situation.retain);
    let picked = covered.or_else(|| match hierarchy.strategy {
        Strategy::Leveled => leveled::pick_within(levels, hierarchy, situation, range),
        Strategy::Tiered => tiered::pick_within(levels, hierarchy, range),
        Strategy::Fifo { .. } => None,
    });
    picked.or_else(|| clear_ranges(levels, hierarchy, &situation.retain))
}

/// Why entries in `range` stay where they are although [`pick_within`] has no plan, if
/// some do.
///
/// # Errors
/// `Corruption`: a damaged table takes part in no plan, nor does what overlaps it.
pub(crate) fn check_within(
    levels: &Levels,
    hierarchy: &Hierarchy,
    range: &KeyBounds,
) -> Result<()> {
    if let Strategy::Fifo { .. } = hierarchy.strategy {
        return Ok(());
    }
    let last = deepest(levels).unwrap_or(0).max(hierarchy.levels - 1);
    let mut above = levels.tables().filter(|(level, _)| *level < last);
    if above.all(|(_, member)| !member.overlaps(range)) {
        return Ok(());
    }
    levels.check_sound(&(Bound::Unbounded, Bound::Unbounded))
}

/// Drops the tables of which nothing is left: newer range tombstones cover all
/// of them, and no snapshot sees anything in them. Nothing is read for that.
fn drop_covered(levels: &Levels, retain: &Retain) -> Option<Plan> {
    let covers: Vec<_> = levels.tables().filter_map(|(_, member)| member.ranges()).collect();
    if covers.is_empty() {
        return None;
    }
    // Also what a table in it covers is covered by the newest of them.
    let is_covered = |meta: &TableMeta| {
        covers
            .iter()
            .filter_map(|ranges| ranges.covers(&meta.smallest, &meta.largest, meta.seq_max))
            .any(|deleted| !retain.wants(meta.seq_min, deleted))
    };
    let sound = levels.tables().filter(|(_, member)| matches!(member, Member::Sound(_)));
    let covered = sound.filter(|(_, member)| is_covered(member.meta()));
    let drops: Vec<_> = covered.map(|(level, member)| (level, member.clone())).collect();
    (!drops.is_empty()).then(|| Plan::drop_tables(drops))
}

/// Writes a table anew whose range tombstones have nothing left to hide.
fn clear_ranges(levels: &Levels, hierarchy: &Hierarchy, retain: &Retain) -> Option<Plan> {
    levels.tables().find_map(|(level, member)| {
        let Member::Sound(table) = member else {
            return None;
        };
        let is_over = table.ranges().is_some()
            && !retain.reaches(table.meta().seq_max)
            && !levels.older_than(level, table).overlaps(table.meta());
        is_over.then(|| Plan::rewrite(levels, hierarchy, level, table))
    })
}

/// In how many seconds something will be due by itself.
pub(crate) fn due_in_s(levels: &Levels, hierarchy: &Hierarchy, calendar_s: u64) -> Option<u64> {
    match hierarchy.strategy {
        Strategy::Fifo { age_s_max: Some(age), .. } => {
            let oldest = fifo::oldest_written_s(levels)?;
            Some(oldest.saturating_add(age).saturating_add(1).saturating_sub(calendar_s))
        }
        _ => None,
    }
}

/// Bytes of files.
fn bytes<'a>(members: impl IntoIterator<Item = &'a Member>) -> u64 {
    members.into_iter().map(|member| member.meta().file_bytes).sum()
}

/// The deepest level that has tables.
fn deepest(levels: &Levels) -> Option<u8> {
    (0..LEVELS as u8).rev().find(|&level| !levels.level(level).is_empty())
}

/// The first level below 0 that has tables.
fn first_below(levels: &Levels) -> Option<u8> {
    (1..LEVELS as u8).find(|&level| !levels.level(level).is_empty())
}

/// What a table's merging would free, about, in bytes.
struct Garbage {
    /// Bytes of an average entry of the shard.
    entry_bytes: u64,
}

impl Garbage {
    fn of(levels: &Levels) -> Self {
        let (mut bytes, mut entries) = (0, 0);
        for (_, member) in levels.tables() {
            if let Member::Sound(table) = member {
                bytes += table.contents().bytes;
                entries += table.meta().entries;
            }
        }
        Self { entry_bytes: bytes.checked_div(entries).unwrap_or(0) }
    }

    /// In older tables, and its own tombstones.
    fn below(&self, table: &Table) -> u64 {
        let contents = table.contents();
        let own_bytes = contents.bytes.checked_div(table.meta().entries).unwrap_or(0);
        // Each tombstone is there since it hides something.
        let hidden = contents.hidden.max(contents.tombstones);
        let hidden_bytes = hidden.saturating_mul(self.entry_bytes);
        hidden_bytes.saturating_add(contents.tombstones.saturating_mul(own_bytes))
    }
}

/// Of the bytes of a shard, or the entries of a table, one in so many may be
/// garbage when writes have paused.
const GARBAGE_SHARE: u64 = 64;

/// Writes a table of the deepest level anew that kept much for snapshots which are
/// gone.
fn rewrite_outlived(levels: &Levels, hierarchy: &Hierarchy, retain: &Retain) -> Option<Plan> {
    let level = deepest(levels).unwrap_or(0).max(hierarchy.levels - 1);
    let outlived = levels.level(level).iter().find_map(|member| match member {
        Member::Sound(table) => {
            let entries = outlived(table, retain);
            (entries * GARBAGE_SHARE > table.meta().entries).then_some(table)
        }
        Member::Damaged { .. } => None,
    });
    outlived.map(|table| Plan::rewrite(levels, hierarchy, level, table))
}

/// What a table with nothing older below it keeps for snapshots that are gone,
/// as a number of entries.
fn outlived(table: &Table, retain: &Retain) -> u64 {
    let contents = table.contents();
    if retain.reaches(table.meta().seq_max) {
        0
    } else {
        let garbage = contents.old_versions + contents.tombstones;
        // Nobody counts what range tombstones cover: it may be all of it.
        if table.ranges().is_some() { table.meta().entries } else { garbage }
    }
}
