//! The tables of a shard, in levels.
//!
//! Level 0 holds tables as they were flushed: each is newer than the next. On
//! every other level tables have no keys in common, and are in their order: a
//! key is in one of them at most. All of a level is newer than all of the next,
//! for any one key.

use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::hash::KeyHash;
use crate::base::ids::FileId;
use crate::base::keys::KeyBounds;
use crate::base::seq::SeqNo;
use crate::format::edit::TableMeta;
use crate::io::Io;
use crate::sst::{ReadCounters, Table, TableEntry};

/// How many levels there are.
const LEVELS: usize = 7;

/// A table of the tree. One that is damaged stays a member, so that the keys
/// it may hold are answered with `Corruption` rather than with older values,
/// and all others go on being readable.
#[derive(Clone)]
pub(crate) enum Member {
    Sound(Arc<Table>),
    Damaged { meta: TableMeta, error: Error },
}

impl Member {
    pub(crate) fn meta(&self) -> &TableMeta {
        match self {
            Self::Sound(table) => table.meta(),
            Self::Damaged { meta, .. } => meta,
        }
    }

    fn may_hold(&self, key: &[u8]) -> bool {
        *self.meta().smallest <= *key && *key <= *self.meta().largest
    }

    /// Whether the table's range of keys reaches into the given one.
    fn overlaps(&self, (start, end): &KeyBounds) -> bool {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let meta = self.meta();
        let below = match end {
            Included(end) => meta.smallest <= *end,
            Excluded(end) => meta.smallest < *end,
            Unbounded => true,
        };
        let above = match start {
            Included(start) => meta.largest >= *start,
            Excluded(start) => meta.largest > *start,
            Unbounded => true,
        };
        below && above
    }

    async fn get<I: Io>(&self, io: &I, lookup: &Lookup<'_>) -> Result<Option<TableEntry>> {
        let Lookup { counters, key, hash, bound } = *lookup;
        match self {
            Self::Sound(table) => table.get(io, counters, key, hash, bound).await,
            Self::Damaged { error, .. } if self.may_hold(key) => Err(error.clone()),
            Self::Damaged { .. } => Ok(None),
        }
    }
}

/// What is looked for.
pub(crate) struct Lookup<'a> {
    pub(crate) counters: &'a ReadCounters,
    pub(crate) key: &'a [u8],
    pub(crate) hash: KeyHash,
    /// The newest version at or below this number.
    pub(crate) bound: SeqNo,
}

/// The levels. Never changed: flushes and compactions make new ones, which share
/// what stays as it is.
#[derive(Clone)]
pub(crate) struct Levels([Arc<[Member]>; LEVELS]);

impl Default for Levels {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Arc::default()))
    }
}

impl Levels {
    /// The newest version of a key.
    pub(crate) async fn get<I: Io>(
        &self,
        io: &I,
        lookup: &Lookup<'_>,
    ) -> Result<Option<TableEntry>> {
        let (newest, ordered) = self.0.split_first().expect("there is a level 0");
        for member in newest.iter() {
            if let Some(entry) = member.get(io, lookup).await? {
                return Ok(Some(entry));
            }
        }
        for level in ordered {
            let at = level.partition_point(|member| *member.meta().largest < *lookup.key);
            if let Some(member) = level.get(at)
                && let Some(entry) = member.get(io, lookup).await?
            {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// All tables, level by level.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (u8, &Member)> {
        let levels = self.0.iter().enumerate();
        levels.flat_map(|(number, level)| level.iter().map(move |member| (number as u8, member)))
    }

    /// Sorted runs with keys in `range`, newest first, each of tables without
    /// common keys in their order.
    ///
    /// # Errors
    /// When one of the tables is damaged.
    pub(crate) fn runs(&self, range: &KeyBounds) -> Result<Vec<Vec<Arc<Table>>>> {
        let sound = |member: &Member| match member {
            Member::Sound(table) => Ok(Arc::clone(table)),
            Member::Damaged { error, .. } => Err(error.clone()),
        };
        let (newest, ordered) = self.0.split_first().expect("there is a level 0");
        let mut runs = Vec::new();
        for member in newest.iter().filter(|member| member.overlaps(range)) {
            runs.push(vec![sound(member)?]);
        }
        for level in ordered {
            let run = level.iter().filter(|member| member.overlaps(range)).map(sound);
            let run = run.collect::<Result<Vec<_>>>()?;
            if !run.is_empty() {
                runs.push(run);
            }
        }
        Ok(runs)
    }

    /// The levels after a table was flushed.
    pub(crate) fn flushed(&self, table: Arc<Table>) -> Self {
        let mut levels = self.clone();
        let newest = std::iter::once(Member::Sound(table));
        levels.0[0] = newest.chain(self.0[0].iter().cloned()).collect();
        levels
    }

    /// Adds a table as a manifest has them: on level 0 each is newer than those
    /// before it. Why it cannot be so, if it cannot.
    pub(crate) fn add(&mut self, level: u8, member: Member) -> Result<(), String> {
        let tables = self.0.get_mut(usize::from(level));
        let tables = tables.ok_or_else(|| format!("there is no level {level}"))?;
        let at = match level {
            0 => 0,
            _ => {
                let at = tables
                    .partition_point(|other| *other.meta().smallest <= *member.meta().smallest);
                let before = at.checked_sub(1).map(|before| &tables[before]);
                if before.is_some_and(|before| *before.meta().largest >= *member.meta().smallest)
                    || tables
                        .get(at)
                        .is_some_and(|next| *next.meta().smallest <= *member.meta().largest)
                {
                    let id = member.meta().id;
                    return Err(format!("table {id} and another of level {level} share keys"));
                }
                at
            }
        };
        let mut list = tables.to_vec();
        list.insert(at, member);
        *tables = list.into();
        Ok(())
    }

    /// Takes a table out. Why that cannot be, if it cannot.
    pub(crate) fn remove(&mut self, level: u8, id: FileId) -> Result<Member, String> {
        let missing = || format!("table {id} is removed from level {level}, and is not there");
        let tables = self.0.get_mut(usize::from(level)).ok_or_else(missing)?;
        let at = tables.iter().position(|member| member.meta().id == id).ok_or_else(missing)?;
        let mut list = tables.to_vec();
        let removed = list.remove(at);
        *tables = list.into();
        Ok(removed)
    }
}
