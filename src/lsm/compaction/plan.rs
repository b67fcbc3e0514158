//! What a compaction does.

use std::sync::Arc;

use crate::base::ids::FileId;
use crate::lsm::compaction::Hierarchy;
use crate::lsm::levels::{LEVELS, Levels, Older};
use crate::lsm::member::Member;
use crate::lsm::run::Run;
use crate::sst::{Compression, Table};

/// One compaction: what it merges, moves and drops. Nothing else changes these
/// tables meanwhile; flushes may add newer ones to level 0.
pub(crate) struct Plan {
    /// The tables to merge, and the levels they are on.
    pub(crate) inputs: Vec<(u8, Arc<Table>)>,
    /// Tables that change their level as they are.
    pub(crate) moves: Vec<(u8, Member)>,
    /// Tables that go.
    pub(crate) drops: Vec<(u8, Member)>,
    /// Where all that is merged or moved goes.
    pub(crate) output_level: u8,
    /// What is older than the output, and not in it.
    pub(super) older: Older,
    /// The tables of the level below the output, which one table of the output
    /// had better not reach too many of.
    pub(super) below: Vec<(Box<[u8]>, u64)>,
    /// The smallest keys of tables that will be on the output's level between
    /// its tables: none of the output may reach over one.
    pub(super) between: Vec<Box<[u8]>>,
    pub(crate) compression: Compression,
}

impl Plan {
    /// Merges these tables, which are all sound, into `output_level`. Those that
    /// have no keys in common with another one are moved, if that is as good.
    /// `None` when nothing is left to do, or one of them is damaged.
    pub(super) fn merge<'a>(
        levels: &Levels,
        hierarchy: &Hierarchy,
        tables: impl IntoIterator<Item = (u8, &'a Member)>,
        output_level: u8,
        older: Older,
    ) -> Option<Self> {
        let compression = hierarchy.compression[usize::from(output_level)];
        let mut sound = Vec::new();
        for (level, member) in tables {
            match member {
                Member::Sound(table) => sound.push((level, Arc::clone(table))),
                Member::Damaged { .. } => return None,
            }
        }
        sound.sort_by(|(_, a), (_, b)| a.meta().smallest.cmp(&b.meta().smallest));
        let mut plan = Self {
            inputs: Vec::new(),
            moves: Vec::new(),
            drops: Vec::new(),
            output_level,
            older,
            below: below(levels, output_level),
            between: Vec::new(),
            compression,
        };
        for group in groups(sound) {
            match &group[..] {
                [(level, table)] if *level == output_level => {
                    plan.between.push(table.meta().smallest.clone());
                }
                [(level, table)] if plan.may_move(table) => {
                    plan.between.push(table.meta().smallest.clone());
                    plan.moves.push((*level, Member::Sound(Arc::clone(table))));
                }
                _ => plan.inputs.extend(group),
            }
        }
        let is_something = !plan.inputs.is_empty() || !plan.moves.is_empty();
        is_something.then_some(plan)
    }

    /// Writes one table anew where it is, without what nobody sees any more.
    pub(super) fn rewrite(
        levels: &Levels,
        hierarchy: &Hierarchy,
        level: u8,
        table: &Arc<Table>,
    ) -> Self {
        Self {
            inputs: vec![(level, Arc::clone(table))],
            moves: Vec::new(),
            drops: Vec::new(),
            output_level: level,
            older: levels.older_than(level, table),
            below: below(levels, level),
            between: Vec::new(),
            compression: hierarchy.compression[usize::from(level)],
        }
    }

    pub(super) fn drop_tables(drops: Vec<(u8, Member)>) -> Self {
        Self {
            inputs: Vec::new(),
            moves: Vec::new(),
            drops,
            output_level: 0,
            older: Older::default(),
            below: Vec::new(),
            between: Vec::new(),
            compression: Compression::None,
        }
    }

    /// Whether a table may stay as it is: nothing in it could be left out.
    fn may_move(&self, table: &Table) -> bool {
        let contents = table.contents();
        contents.compression == self.compression
            && contents.old_versions == 0
            && ((contents.tombstones == 0 && table.ranges().is_none())
                || self.older.overlaps(table.meta()))
    }

    /// Bytes of the files to merge.
    pub(crate) fn input_bytes(&self) -> u64 {
        self.inputs.iter().map(|(_, table)| table.meta().file_bytes).sum()
    }

    /// How many tables merging may make, if they are split at so many bytes
    /// each.
    pub(crate) fn outputs_max(&self, table_bytes: u64) -> u32 {
        let tables = 8 + 2 * self.input_bytes() / table_bytes + self.between.len() as u64;
        u32::try_from(tables).unwrap_or(u32::MAX / 2)
    }

    /// The lengths of as many tables as merging fills, if nothing is dropped.
    pub(crate) fn full_outputs(&self, table_bytes: u64) -> impl Iterator<Item = u64> {
        (0..self.input_bytes() / table_bytes).map(move |_| table_bytes)
    }

    /// The tables to merge, as few sorted runs.
    pub(super) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Vec<Arc<Table>>> = Vec::new();
        // In the order of their smallest keys: each goes to a run that has ended.
        let mut tables: Vec<_> = self.inputs.iter().map(|(_, table)| table).collect();
        tables.sort_by(|a, b| a.meta().smallest.cmp(&b.meta().smallest));
        for table in tables {
            let has_ended = |run: &&mut Vec<Arc<Table>>| {
                run.last().is_some_and(|last| last.meta().largest < table.meta().smallest)
            };
            match runs.iter_mut().find(has_ended) {
                Some(run) => run.push(Arc::clone(table)),
                None => runs.push(vec![Arc::clone(table)]),
            }
        }
        runs.into_iter().map(Run::of_tables).collect()
    }

    /// The levels after the plan was carried out, and merging made `outputs`.
    pub(crate) fn applied(
        &self,
        levels: &Levels,
        outputs: &[Arc<Table>],
    ) -> Result<Levels, String> {
        let mut levels = levels.clone();
        for (level, id) in self.removed() {
            levels.remove(level, id)?;
        }
        for member in self.moves.iter().map(|(_, member)| member.clone()) {
            levels.add(self.output_level, member)?;
        }
        for table in outputs {
            levels.add(self.output_level, Member::Sound(Arc::clone(table)))?;
        }
        Ok(levels)
    }

    /// What leaves its level.
    pub(crate) fn removed(&self) -> impl Iterator<Item = (u8, FileId)> {
        let inputs = self.inputs.iter().map(|(level, table)| (*level, table.meta().id));
        let moves = self.moves.iter().map(|(level, member)| (*level, member.meta().id));
        let drops = self.drops.iter().map(|(level, member)| (*level, member.meta().id));
        inputs.chain(moves).chain(drops)
    }
}

/// The ends and bytes of the tables below a level.
fn below(levels: &Levels, level: u8) -> Vec<(Box<[u8]>, u64)> {
    if usize::from(level) + 1 >= LEVELS {
        return Vec::new();
    }
    let members = levels.level(level + 1).iter().map(Member::meta);
    members.map(|meta| (meta.largest.clone(), meta.file_bytes)).collect()
}

/// Tables, sorted by their smallest keys, in groups that have no keys in
/// common.
fn groups(sorted: Vec<(u8, Arc<Table>)>) -> Vec<Vec<(u8, Arc<Table>)>> {
    let mut groups: Vec<Vec<(u8, Arc<Table>)>> = Vec::new();
    let mut end: Box<[u8]> = Box::default();
    for (level, table) in sorted {
        let (smallest, largest) = (&table.meta().smallest, &table.meta().largest);
        let is_apart = *end < **smallest;
        if groups.is_empty() || is_apart || *end < **largest {
            end = largest.clone().max(end);
        }
        match groups.last_mut() {
            Some(group) if !is_apart => group.push((level, table)),
            _ => groups.push(vec![(level, table)]),
        }
    }
    groups
}
