//! Floor 6: one shard's tree, as far as it does not change: immutable
//! memtables and tables, how a key is found in them, how they are walked over
//! in order, and how a memtable becomes a table.

mod compaction;
mod cursor;
mod flush;
mod garbage;
mod hidden;
mod keep;
mod levels;
mod member;
mod merge;
mod output;
mod run;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use compaction::{
    Hierarchy, Plan, Situation, Strategy, check_within, compact, due_in_s, pick, pick_within,
};
pub(crate) use cursor::{Cursor, Direction, Mutable, Step, is_past};
pub(crate) use flush::write_table;
pub(crate) use garbage::{covered_bytes, garbage_bytes};
pub(crate) use keep::Retain;
pub(crate) use levels::{InLevels, LEVELS, Levels, Place};
pub(crate) use member::Member;
pub(crate) use output::{FileIds, Made, TablePlace};
pub(crate) use view::{Frozen, View};

pub(crate) use crate::sst::Lookup;
