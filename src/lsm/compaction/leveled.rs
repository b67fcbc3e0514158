//! Leveled compaction with dynamic level sizes, and a lazy level 0.
//!
//! The deepest level that has tables says how large the others may be: each is
//! a `size_ratio`-th of the one below it, up to the *base* level, into which
//! level 0 is merged. A small shard has level 0 and one level. (The idea of
//! sizes that follow from the deepest level is RocksDB's
//! `level_compaction_dynamic_level_bytes`.)
//!
//! **Level 0 is merged when it pays**: all of it at once, when it has come to
//! half of what it is merged with, or when there are too many runs to ask. So
//! each byte is rewritten about three times per level 0, not once per flush.
//!
//! A level that is too large hands down the table that takes the least
//! rewriting for what it brings. When writes have paused, tables that hide
//! garbage go down until hardly any is left, and young runs of level 0 are
//! merged with one another.

use crate::base::keys::KeyBounds;
use crate::base::seq::SeqNo;
use crate::lsm::compaction::plan::Plan;
use crate::lsm::compaction::{
    GARBAGE_SHARE, Garbage, Hierarchy, Situation, bytes, deepest, first_below, outlived,
    rewrite_outlived,
};
use crate::lsm::garbage::covered_in;
use crate::lsm::levels::{LEVELS, Levels};
use crate::lsm::member::Member;
use crate::sst::Table;

/// Runs of level 0 with which it is merged, if it is large enough for that.
const NEWEST_RUNS: usize = 12;

/// Runs, and tables, of level 0 with which it is merged in any case.
const NEWEST_RUNS_MAX: usize = 20;
const NEWEST_TABLES_MAX: usize = 48;

/// Runs of level 0 with which it is merged if that costs next to nothing, as no
/// more is written than a memtable takes: references to long values are short, and
/// what was replaced takes their space until then.
const NEWEST_RUNS_SMALL: usize = 4;

/// Runs of level 0 that may stay when writes have paused.
const NEWEST_RUNS_IDLE: usize = 4;

/// The same while one of them is full of tombstones.
const NEWEST_RUNS_DENSE: usize = 4;

/// The base level holds as many bytes as so many memtables before there is
/// another one above it.
const BASE_MEMTABLES: u64 = 2 * NEWEST_RUNS_MAX as u64;

/// Garbage below this is not worth it.
const GARBAGE_BYTES_MIN: u64 = 16 << 10;

/// Sizes of levels.
struct Targets {
    /// Where level 0 goes.
    base: u8,
    deepest: u8,
    /// Bytes; 0 above the base level.
    bytes: [u64; LEVELS],
}

impl Targets {
    fn of(levels: &Levels, hierarchy: &Hierarchy) -> Self {
        let last = hierarchy.levels - 1;
        let deepest = deepest(levels).unwrap_or(0).max(last);
        let mut targets = [0; LEVELS];
        targets[usize::from(deepest)] = u64::MAX;
        let base_bytes_max = BASE_MEMTABLES * hierarchy.memtable_bytes;
        let base_bytes_min = NEWEST_RUNS as u64 * hierarchy.memtable_bytes;
        let mut below = bytes(levels.level(deepest));
        let mut base = deepest;
        while base > 1 && below > base_bytes_max {
            base -= 1;
            below = (below / hierarchy.size_ratio).max(base_bytes_min);
            targets[usize::from(base)] = below;
        }
        // Nothing passes over a level that has older entries.
        let base = first_below(levels).unwrap_or(base).min(base);
        Self { base, deepest, bytes: targets }
    }
}

pub(super) fn pick(levels: &Levels, hierarchy: &Hierarchy, situation: &Situation) -> Option<Plan> {
    let picker = Picker::new(levels, hierarchy);
    let urgent = picker.urgent();
    if urgent.is_some() || !situation.is_idle { urgent } else { picker.tidy(situation) }
}

struct Picker<'a> {
    levels: &'a Levels,
    hierarchy: &'a Hierarchy,
    targets: Targets,
    garbage: Garbage,
    /// Range tombstones cover more than may be left when writes have paused.
    ranges_cover_much: bool,
}

/// A table, and what merging it with the level below takes.
struct Descent<'a> {
    level: u8,
    member: &'a Member,
    overlap_bytes: u64,
}

/// The uppermost level that has some of it goes down a level, table by table.
pub(super) fn pick_within(
    levels: &Levels,
    hierarchy: &Hierarchy,
    situation: &Situation,
    range: &KeyBounds,
) -> Option<Plan> {
    let picker = Picker::new(levels, hierarchy);
    let within = |level: u8| levels.level(level).iter().filter(|member| member.overlaps(range));
    if within(0).next().is_some() {
        return picker.all_newest();
    }
    let deepest = picker.targets.deepest;
    if let Some((level, member)) =
        (1..deepest).find_map(|level| within(level).next().map(|member| (level, member)))
    {
        return picker.merge_down(&Descent { level, member, overlap_bytes: 0 });
    }
    let outlived = within(deepest).find_map(|member| match member {
        Member::Sound(table) => (outlived(table, &situation.retain) > 0).then_some(table),
        Member::Damaged { .. } => None,
    });
    outlived.map(|table| Plan::rewrite(levels, hierarchy, deepest, table))
}

impl<'a> Picker<'a> {
    fn new(levels: &'a Levels, hierarchy: &'a Hierarchy) -> Self {
        let targets = Targets::of(levels, hierarchy);
        let garbage = Garbage::of(levels);
        let ranges_cover_much = ranges_cover_much(levels, hierarchy);
        Self { levels, hierarchy, targets, garbage, ranges_cover_much }
    }

    /// Whether there are long stretches of tombstones in it, or range tombstones,
    /// with those of others, that cover much.
    fn is_dense(&self, member: &Member) -> bool {
        let is_dense = |table: &Table| {
            table.contents().dense_windows > 0
                || (self.ranges_cover_much && table.ranges().is_some())
        };
        matches!(member, Member::Sound(table) if is_dense(table))
    }

    /// What is due however many writes come in: the level furthest beyond what
    /// it may have.
    fn urgent(&self) -> Option<Plan> {
        let mut due: Vec<(f64, u8)> = Vec::new();
        if let Some(score) = self.newest_score() {
            due.push((score, 0));
        }
        for level in 1..self.targets.deepest {
            let target = self.targets.bytes[usize::from(level)];
            let bytes = bytes(self.levels.level(level));
            let score = bytes as f64 / target.max(1) as f64;
            if bytes > 0 && score > 1.0 {
                due.push((score, level));
            } else if self.levels.level(level).iter().any(|member| self.is_dense(member)) {
                due.push((1.0, level));
            }
        }
        due.sort_by(|a, b| b.0.total_cmp(&a.0));
        due.into_iter().find_map(|(_, level)| match level {
            0 => self.all_newest(),
            _ => self.hand_down(level),
        })
    }

    /// How urgent the merging of level 0 is, if it is due.
    fn newest_score(&self) -> Option<f64> {
        let newest = self.levels.level(0);
        if newest.len() < NEWEST_RUNS_DENSE {
            return None;
        }
        let runs = self.levels.newest_run_count();
        let is_large = self.newest_is_large();
        let is_due = (newest.len() >= NEWEST_RUNS && is_large)
            || runs >= NEWEST_RUNS_MAX
            || newest.len() >= NEWEST_TABLES_MAX
            || (runs >= NEWEST_RUNS_DENSE && newest.iter().any(|member| self.is_dense(member)))
            || (runs >= NEWEST_RUNS_SMALL && self.newest_costs_little());
        is_due.then(|| (runs as f64 / NEWEST_RUNS as f64).max(1.0))
    }

    /// Whether all that the merging of level 0 would write is less than a memtable.
    fn newest_costs_little(&self) -> bool {
        let base = self.levels.level(self.targets.base);
        bytes(self.levels.level(0)) + bytes(base) <= self.hierarchy.memtable_bytes
    }

    /// Whether level 0 has come to half of what it is merged with.
    fn newest_is_large(&self) -> bool {
        2 * bytes(self.levels.level(0)) >= bytes(self.levels.level(self.targets.base))
    }

    /// All of level 0 into the base level.
    fn all_newest(&self) -> Option<Plan> {
        let base = self.targets.base;
        let all = |level| self.levels.level(level).iter().map(move |member| (level, member));
        // What nothing new reaches stays where it is.
        let inputs = all(0).chain(all(base));
        Plan::merge(self.levels, self.hierarchy, inputs, base, self.levels.below(base))
    }

    /// The table of a level that is the best to merge with the next level.
    fn hand_down(&self, level: u8) -> Option<Plan> {
        let mut descents = self.descents(level);
        descents.sort_by_key(|descent| {
            let bytes = descent.member.meta().file_bytes.max(1);
            let freed = self.freed(descent.member);
            // Rewritten for each byte that leaves the level, in thousandths.
            let rewritten = descent.overlap_bytes.saturating_mul(1000);
            (!self.is_dense(descent.member), rewritten / bytes.saturating_add(freed))
        });
        descents.into_iter().find_map(|descent| self.merge_down(&descent))
    }

    fn descents(&self, level: u8) -> Vec<Descent<'a>> {
        let members = self.levels.level(level).iter();
        let descent = |member: &'a Member| {
            let overlap_bytes = bytes(self.levels.overlapping(level + 1, member));
            Descent { level, member, overlap_bytes }
        };
        members.map(descent).collect()
    }

    fn merge_down(&self, descent: &Descent<'a>) -> Option<Plan> {
        let below = descent.level + 1;
        let overlapping = self.levels.overlapping(below, descent.member).iter();
        let inputs = std::iter::once((descent.level, descent.member))
            .chain(overlapping.map(|member| (below, member)));
        Plan::merge(self.levels, self.hierarchy, inputs, below, self.levels.below(below))
    }

    fn freed(&self, member: &Member) -> u64 {
        match member {
            Member::Sound(table) => self.garbage.below(table),
            Member::Damaged { .. } => 0,
        }
    }

    /// What is worth doing when writes have paused.
    fn tidy(&self, situation: &Situation) -> Option<Plan> {
        self.clear_tombstones()
            .or_else(|| self.collect_garbage())
            .or_else(|| rewrite_outlived(self.levels, self.hierarchy, &situation.retain))
            .or_else(|| self.merge_young())
    }

    /// Tombstones that a scan would have to pass over in great numbers.
    fn clear_tombstones(&self) -> Option<Plan> {
        if self.levels.level(0).iter().any(|member| self.is_dense(member)) {
            return self.all_newest();
        }
        let levels = 1..self.targets.deepest;
        let mut dense = levels
            .filter(|&level| self.levels.level(level).iter().any(|member| self.is_dense(member)));
        dense.find_map(|level| self.hand_down(level))
    }

    /// The merging that frees the most for what it rewrites, if there is too
    /// much garbage.
    fn collect_garbage(&self) -> Option<Plan> {
        let above_deepest = self.levels.tables().filter(|(level, _)| *level < self.targets.deepest);
        let freed = above_deepest.map(|(_, member)| self.freed(member));
        let garbage = freed.fold(0, u64::saturating_add);
        let all: u64 = bytes(self.levels.tables().map(|(_, member)| member));
        if garbage < GARBAGE_BYTES_MIN || garbage <= all / GARBAGE_SHARE {
            return None;
        }
        // (freed per mebibyte rewritten, what)
        let mut choices: Vec<(u64, Option<Descent<'a>>)> = Vec::new();
        let gain = |freed: u64, rewritten: u64| freed.saturating_mul(1 << 20) / rewritten.max(1);
        let newest = self.levels.level(0);
        let freed = newest.iter().map(|member| self.freed(member));
        let freed = freed.fold(0, u64::saturating_add);
        if freed > 0 {
            let rewritten = bytes(newest) + bytes(self.levels.level(self.targets.base));
            choices.push((gain(freed, rewritten), None));
        }
        for level in 1..self.targets.deepest {
            for descent in self.descents(level) {
                let freed = self.freed(descent.member);
                if freed > 0 {
                    let rewritten = descent.member.meta().file_bytes + descent.overlap_bytes;
                    choices.push((gain(freed, rewritten), Some(descent)));
                }
            }
        }
        choices.sort_by_key(|(gain, _)| std::cmp::Reverse(*gain));
        choices.into_iter().find_map(|(_, choice)| match choice {
            None => self.all_newest(),
            Some(descent) => self.merge_down(&descent),
        })
    }

    /// Runs of level 0: into the base level, if that is not much larger;
    /// otherwise the youngest ones, which are small, with one another.
    fn merge_young(&self) -> Option<Plan> {
        if self.levels.newest_run_count() <= NEWEST_RUNS_IDLE {
            return None;
        }
        if self.newest_is_large()
            && let Some(plan) = self.all_newest()
        {
            return Some(plan);
        }
        let newest = self.levels.level(0);
        let mut taken = 0;
        let mut taken_bytes = 0;
        for member in newest {
            let bytes = member.meta().file_bytes;
            if taken >= NEWEST_RUNS_IDLE && bytes > 2 * taken_bytes {
                break;
            }
            taken += 1;
            taken_bytes += bytes;
        }
        let (young, _) = newest.split_at(taken);
        let oldest = young.iter().map(|member| member.meta().seq_min).min().unwrap_or(SeqNo::MAX);
        // A run is never torn: all of its tables have numbers of one range.
        if newest[taken..].iter().any(|member| member.meta().seq_max >= oldest) {
            return None;
        }
        let older = self.levels.older_than_newest(taken);
        let inputs = young.iter().map(|member| (0, member));
        Plan::merge(self.levels, self.hierarchy, inputs, 0, older)
    }
}

/// Whether range tombstones cover more of older tables than may be left, or there is
/// hardly anything to rewrite. Otherwise it is not worth it: what is rewritten for
/// little is as much as for more.
fn ranges_cover_much(levels: &Levels, hierarchy: &Hierarchy) -> bool {
    if levels.tables().all(|(_, member)| member.ranges().is_none()) {
        return false;
    }
    let covered = covered_in(levels);
    let all = bytes(levels.tables().map(|(_, member)| member));
    (covered >= GARBAGE_BYTES_MIN && covered > all / GARBAGE_SHARE)
        || all <= hierarchy.memtable_bytes
}
