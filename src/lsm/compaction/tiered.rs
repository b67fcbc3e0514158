//! Tiered compaction: runs of similar size are merged into a longer one.
//!
//! Runs are the tables of level 0, and each level below it. Once level 0 has
//! `size_ratio` runs, all of it is merged, together with as many of the runs
//! that follow as are not longer than what has come together by then. The
//! output goes to the level above the first run that stays. So runs get longer
//! from level to level, at least twice each, and an entry is rewritten about
//! once for each. (As "universal compaction" in RocksDB, but for where the output
//! may be.) All runs are merged into one when there is too much garbage, and when
//! writes have paused and scans have to pass over long stretches of tombstones.
//! Tables of the last run are written anew then, if they kept much for snapshots that
//! are gone.

use crate::base::keys::KeyBounds;
use crate::lsm::compaction::plan::Plan;
use crate::lsm::compaction::{Garbage, Hierarchy, Situation, bytes, deepest, rewrite_outlived};
use crate::lsm::garbage::covered_in;
use crate::lsm::levels::Levels;
use crate::lsm::member::Member;

/// Bytes of garbage in a hundred of all that a shard may have when writes have
/// paused; merging everything frees it.
const GARBAGE_PERCENT_IDLE: u64 = 25;

/// The same while writes come in.
const GARBAGE_PERCENT_BUSY: u64 = 100;

/// Tables of level 0 with which it is merged, however few runs they are; a few
/// more hold up writers.
const NEWEST_TABLES_MAX: u64 = 24;

pub(super) fn pick(levels: &Levels, hierarchy: &Hierarchy, situation: &Situation) -> Option<Plan> {
    let last = deepest(levels).unwrap_or(0).max(hierarchy.levels - 1);
    let newest_runs = levels.newest_run_count() as u64;
    // Keys that come in order make many tables and one run.
    let newest_tables = levels.level(0).len() as u64;
    let is_due = newest_runs >= hierarchy.size_ratio
        || newest_tables >= NEWEST_TABLES_MAX.max(2 * hierarchy.size_ratio);
    let percent = if situation.is_idle { GARBAGE_PERCENT_IDLE } else { GARBAGE_PERCENT_BUSY };
    let garbage = garbage_bytes(levels, last);
    let all = bytes(levels.tables().map(|(_, member)| member));
    let wastes = 100 * garbage > percent * all.saturating_sub(garbage);
    if (wastes || (situation.is_idle && is_dense(levels, last)))
        && let Some(plan) = merge_from_newest(levels, hierarchy, last, u64::MAX)
    {
        return Some(plan);
    }
    let due = is_due.then(|| merge_from_newest(levels, hierarchy, last, 1)).flatten();
    due.or_else(|| {
        let outlived = || rewrite_outlived(levels, hierarchy, &situation.retain);
        situation.is_idle.then(outlived).flatten()
    })
}

/// Everything at once, if some of it is not in the last run.
pub(super) fn pick_within(
    levels: &Levels,
    hierarchy: &Hierarchy,
    range: &KeyBounds,
) -> Option<Plan> {
    let last = deepest(levels).unwrap_or(0).max(hierarchy.levels - 1);
    above(levels, last).any(|member| member.overlaps(range)).then_some(())?;
    merge_from_newest(levels, hierarchy, last, u64::MAX)
}

/// What merging everything would free.
fn garbage_bytes(levels: &Levels, last: u8) -> u64 {
    let garbage = Garbage::of(levels);
    let freed = above(levels, last).map(|member| match member {
        Member::Sound(table) => garbage.below(table),
        Member::Damaged { .. } => 0,
    });
    freed.sum::<u64>() + covered_in(levels)
}

/// Whether there are long stretches of tombstones, over which scans crawl.
fn is_dense(levels: &Levels, last: u8) -> bool {
    above(levels, last).any(|member| match member {
        Member::Sound(table) => table.contents().dense_windows > 0,
        Member::Damaged { .. } => false,
    })
}

/// All that the last run does not have.
fn above(levels: &Levels, last: u8) -> impl Iterator<Item = &Member> {
    levels.tables().filter(move |(level, _)| *level < last).map(|(_, member)| member)
}

/// Merges level 0 and the runs that follow, as long as each is no longer than
/// `longer` times what was taken before it.
fn merge_from_newest(
    levels: &Levels,
    hierarchy: &Hierarchy,
    last: u8,
    longer: u64,
) -> Option<Plan> {
    let mut taken_bytes = bytes(levels.level(0));
    let mut output_level = last;
    let mut taken = 0;
    for level in 1..=last {
        let run_bytes = bytes(levels.level(level));
        if run_bytes == 0 {
            continue;
        }
        // There must be a level for the output above the run that stays.
        if level > 1 && run_bytes > taken_bytes.saturating_mul(longer) {
            output_level = level - 1;
            break;
        }
        taken_bytes += run_bytes;
        taken = level;
    }
    let inputs =
        (0..=taken).flat_map(|level| levels.level(level).iter().map(move |member| (level, member)));
    Plan::merge(levels, hierarchy, inputs, output_level, levels.below(output_level))
}
