//! The tables of a shard, in levels.
//!
//! Level 0 holds tables as they were flushed, or merged with others of level 0:
//! of two that have keys in common, all of one is newer than all of the other.
//! On every other level tables have no keys in common, and are in their order:
//! a key is in one of them at most. All of a level is newer than all of the
//! next, for any one key.

use std::sync::Arc;

use crate::base::error::Result;
use crate::base::hash::KeyHash;
use crate::base::ids::FileId;
use crate::base::keys::KeyBounds;
use crate::base::ranges::{is_before, successor};
use crate::base::seq::Tag;
use crate::format::edit::TableMeta;
use crate::io::Io;
use crate::lsm::member::Member;
use crate::lsm::run::Run;
use crate::sst::{Holds, Looked, Lookup, Missing, Table, TableEntry};

/// How many levels there are.
pub(crate) const LEVELS: usize = 7;

/// Where, among tables in the order of their keys, a table belongs; `None` if it
/// has keys in common with one.
fn gap<'a>(
    tables: impl ExactSizeIterator<Item = &'a TableMeta> + Clone,
    table: &TableMeta,
) -> Option<usize> {
    let at = tables.clone().take_while(|other| other.smallest <= table.smallest).count();
    let mut around = tables.skip(at.saturating_sub(1));
    let before = if at > 0 { around.next() } else { None };
    let is_free = before.is_none_or(|before| before.largest < table.smallest)
        && around.next().is_none_or(|next| table.largest < next.smallest);
    is_free.then_some(at)
}

/// Tables that are older than some others: what those may hide.
#[derive(Clone, Default)]
pub(crate) struct Older {
    /// In no order of keys.
    newest: Arc<[Member]>,
    levels: Vec<Arc<[Member]>>,
}

/// What older tables say of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Whether one of them has a version of it.
    pub(crate) holds: Holds,
    /// How many filters were asked. Each says yes by mistake now and then.
    pub(crate) asked: u64,
}

impl Older {
    /// Those that may have a version of the key by their range.
    fn covering<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Member> {
        let on_level = move |level: &'a Arc<[Member]>| {
            let at = level.partition_point(|member| *member.meta().largest < *key);
            level.get(at)
        };
        let newest = self.newest.iter().chain(self.levels.iter().filter_map(on_level));
        newest.filter(move |member| member.covers(key))
    }

    /// Whether one of them may have a version of the key. Where that is not known
    /// without reading, it may.
    pub(crate) fn may_hold(&self, key: &[u8], hash: KeyHash) -> bool {
        self.covering(key).any(|member| member.holds(key, hash) != Holds::No)
    }

    /// The same, what is not known being told, and how many filters were asked.
    pub(crate) fn ask(&self, key: &[u8], hash: KeyHash) -> Answer {
        let mut answer = Answer { holds: Holds::No, asked: 0 };
        for member in self.covering(key) {
            match member.holds(key, hash) {
                Holds::Unknown => answer.holds = Holds::Unknown,
                Holds::No => answer.asked += 1,
                Holds::Maybe => {
                    return Answer { holds: Holds::Maybe, asked: answer.asked + 1 };
                }
            }
        }
        answer
    }

    /// The same, what is not known being read, past all caches: a filter of each
    /// table of which it is not.
    pub(crate) async fn ask_reading<I: Io>(
        &self,
        io: &I,
        key: &[u8],
        hash: KeyHash,
    ) -> Result<Answer> {
        let mut answer = Answer { holds: Holds::No, asked: 0 };
        for member in self.covering(key) {
            answer.asked += 1;
            let holds = match (member.holds(key, hash), member) {
                (Holds::Unknown, Member::Sound(table)) => {
                    table.holds_by_reading(io, key, hash).await?
                }
                (holds, _) => holds != Holds::No,
            };
            if holds {
                answer.holds = Holds::Maybe;
                break;
            }
        }
        Ok(answer)
    }

    /// The smallest key from `start` on and the largest one before `end` that
    /// they may have versions of, going by their ranges: as start and end.
    pub(crate) fn span(&self, start: &[u8], end: &[u8]) -> Option<(Box<[u8]>, Box<[u8]>)> {
        let all = self.newest.iter().chain(self.levels.iter().flat_map(|level| level.iter()));
        let within = |meta: &&TableMeta| *meta.largest >= *start && is_before(&meta.smallest, end);
        let within = || all.clone().map(Member::meta).filter(within);
        let smallest = &within().map(|meta| &meta.smallest).min()?[..];
        let largest = within().map(|meta| &meta.largest).max()?;
        // Whether the last of the keys is within `end` makes no difference there.
        let last = successor(largest).unwrap_or_default();
        let end =
            if last.is_empty() || !end.is_empty() && end < &last[..] { end.into() } else { last };
        Some((smallest.max(start).into(), end))
    }

    /// Whether one of them has keys in the table's range.
    pub(crate) fn overlaps(&self, table: &TableMeta) -> bool {
        let all = self.newest.iter().chain(self.levels.iter().flat_map(|level| level.iter()));
        all.map(Member::meta)
            .any(|other| other.smallest <= table.largest && table.smallest <= other.largest)
    }
}

/// The runs of level 0, of which these are the tables: neighbours in age that
/// have no keys in common make one, as they do when keys are written in order.
fn newest_runs(members: &[Member]) -> Arc<[Run]> {
    let mut runs: Vec<Vec<&Member>> = Vec::new();
    for member in members {
        let place = runs.last().and_then(|run| gap(run.iter().map(|m| m.meta()), member.meta()));
        match (place, runs.last_mut()) {
            (Some(at), Some(run)) => run.insert(at, member),
            _ => runs.push(vec![member]),
        }
    }
    runs.into_iter().map(|run| Run::new(run.into_iter().cloned().collect())).collect()
}

/// What a look into what is in memory of the tables came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InLevels {
    /// The version that was sought; its value was copied.
    Found(Tag),
    /// There is none, or a range tombstone is newer.
    Absent,
    /// It depends on something that is not in memory.
    Missing(Place),
}

/// A partition or a block of one of the tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    level: usize,
    at: usize,
    missing: Missing,
}

/// The levels. Never changed: flushes and compactions make new ones, which share
/// what stays as it is.
#[derive(Clone)]
pub(crate) struct Levels {
    /// Those of level 0 newest first, of all others in the order of their keys.
    members: [Arc<[Member]>; LEVELS],
    /// The same tables as sorted runs, newest first: level 0 has several, each
    /// other level one, if it has tables.
    runs: [Arc<[Run]>; LEVELS],
}

impl Default for Levels {
    fn default() -> Self {
        let members = std::array::from_fn(|_| Arc::default());
        Self { members, runs: std::array::from_fn(|_| Arc::default()) }
    }
}

impl Levels {
    /// Looks for the newest version of a key, from the newest table on, or the
    /// one behind `after`, as far as that goes without reading. A value that is
    /// found is copied into `value`.
    pub(crate) fn look(
        &self,
        lookup: &Lookup<'_>,
        after: Option<Place>,
        value: &mut Vec<u8>,
    ) -> Result<InLevels> {
        let first = after.map_or(0, |place| place.level);
        for (level, members) in self.members.iter().enumerate().skip(first) {
            let of_key = match level {
                0 => after.map_or(0, |place| place.at + 1)..members.len(),
                _ if after.is_some_and(|place| place.level == level) => continue,
                _ => {
                    let key = lookup.key;
                    let at = members.partition_point(|member| *member.meta().largest < *key);
                    at..members.len().min(at + 1)
                }
            };
            for at in of_key {
                let member = &members[at];
                let deleted = member.deleted(lookup);
                if deleted == Some(member.meta().seq_max) {
                    return Ok(InLevels::Absent);
                }
                match member.look(lookup, value)? {
                    Looked::Found(tag) if Some(tag.seq()) < deleted => return Ok(InLevels::Absent),
                    Looked::Found(tag) => return Ok(InLevels::Found(tag)),
                    Looked::Absent if deleted.is_some() => return Ok(InLevels::Absent),
                    Looked::Absent => {}
                    Looked::Missing(missing) => {
                        return Ok(InLevels::Missing(Place { level, at, missing }));
                    }
                }
            }
        }
        Ok(InLevels::Absent)
    }

    /// Goes on looking where [`Levels::look`] missed something.
    pub(crate) async fn get<I: Io>(
        &self,
        io: &I,
        lookup: &Lookup<'_>,
        missing: Place,
    ) -> Result<Option<TableEntry>> {
        let mut missing = missing;
        loop {
            let member = &self.members[missing.level][missing.at];
            let Member::Sound(table) = member else {
                unreachable!("nothing of a damaged table is missed");
            };
            let deleted = member.deleted(lookup);
            let entry = table.get(io, missing.missing, lookup).await?;
            if entry.is_some() || deleted.is_some() {
                return Ok(entry.filter(|entry| Some(entry.tag.seq()) >= deleted));
            }
            let mut value = Vec::new();
            match self.look(lookup, Some(missing), &mut value)? {
                InLevels::Found(tag) => {
                    return Ok(Some(TableEntry { tag, value: value.into() }));
                }
                InLevels::Absent => return Ok(None),
                InLevels::Missing(next) => missing = next,
            }
        }
    }

    /// All tables, level by level.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (u8, &Member)> {
        let levels = self.members.iter().enumerate();
        levels.flat_map(|(number, level)| level.iter().map(move |member| (number as u8, member)))
    }

    /// The tables of one level: of level 0 the newest first, of all others in
    /// the order of their keys.
    pub(crate) fn level(&self, level: u8) -> &[Member] {
        &self.members[usize::from(level)]
    }

    /// The tables of a level below 0 whose range shares keys with the member's.
    pub(crate) fn overlapping(&self, level: u8, member: &Member) -> &[Member] {
        assert!(level > 0, "the tables of level 0 are not in the order of their keys");
        let (tables, meta) = (self.level(level), member.meta());
        let start = tables.partition_point(|other| other.meta().largest < meta.smallest);
        let end = tables.partition_point(|other| other.meta().smallest <= meta.largest);
        &tables[start..end.max(start)]
    }

    /// Sorted runs, newest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> + Clone {
        self.runs.iter().flat_map(|runs| runs.iter())
    }

    /// Fails when a table with keys in the range is damaged.
    pub(crate) fn check_sound(&self, range: &KeyBounds) -> Result<()> {
        let mut within = self.tables().filter(|(_, member)| member.overlaps(range));
        within.try_for_each(|(_, member)| member.sound().map(drop))
    }

    /// How many runs level 0 has.
    pub(crate) fn newest_run_count(&self) -> usize {
        self.runs[0].len()
    }

    /// Exchanges the tables of a level.
    fn set(&mut self, level: usize, members: Vec<Member>) {
        let members: Arc<[Member]> = members.into();
        self.runs[level] = match level {
            0 => newest_runs(&members),
            _ if members.is_empty() => Arc::default(),
            _ => Arc::new([Run::new(Arc::clone(&members))]),
        };
        self.members[level] = members;
    }

    /// All that is older than a memtable.
    pub(crate) fn older_than_memtables(&self) -> Older {
        Older { newest: Arc::clone(&self.members[0]), levels: self.members[1..].to_vec() }
    }

    /// All that is older than the first `newest` tables of level 0.
    pub(crate) fn older_than_newest(&self, newest: usize) -> Older {
        Older { newest: self.members[0][newest..].into(), levels: self.members[1..].to_vec() }
    }

    /// All that is older than a table of this level, as far as they have keys in
    /// common.
    pub(crate) fn older_than(&self, level: u8, table: &Table) -> Older {
        let is_it = |member: &Member| member.meta().id == table.meta().id;
        match self.members[0].iter().position(is_it).filter(|_| level == 0) {
            Some(at) => self.older_than_newest(at + 1),
            None => self.below(level),
        }
    }

    /// All on levels below this one.
    pub(crate) fn below(&self, level: u8) -> Older {
        Older { newest: Arc::default(), levels: self.members[usize::from(level) + 1..].to_vec() }
    }

    /// The levels after a table was flushed.
    pub(crate) fn flushed(&self, table: Arc<Table>) -> Self {
        let mut levels = self.clone();
        levels.add(0, Member::Sound(table)).expect("a memtable is newer than all tables");
        levels
    }

    /// Adds a table. Why it cannot be so, if it cannot.
    pub(crate) fn add(&mut self, level: u8, member: Member) -> Result<(), String> {
        let tables = self.members.get(usize::from(level));
        let tables = tables.ok_or_else(|| format!("there is no level {level}"))?;
        let meta = member.meta();
        let at = if level == 0 {
            // Numbers that overlap are those of one run, which has no key twice.
            let is_torn = |other: &&Member| {
                let other = other.meta();
                other.smallest <= meta.largest
                    && meta.smallest <= other.largest
                    && other.seq_min <= meta.seq_max
                    && meta.seq_min <= other.seq_max
            };
            if let Some(other) = tables.iter().find(is_torn) {
                let other = other.meta().id;
                return Err(format!("neither of tables {} and {other} is the newer one", meta.id));
            }
            tables.partition_point(|other| other.meta().seq_max > meta.seq_max)
        } else {
            gap(tables.iter().map(Member::meta), meta).ok_or_else(|| {
                format!("table {} and another of level {level} share keys", meta.id)
            })?
        };
        let mut list = tables.to_vec();
        list.insert(at, member);
        self.set(usize::from(level), list);
        Ok(())
    }

    /// Takes a table out. Why that cannot be, if it cannot.
    pub(crate) fn remove(&mut self, level: u8, id: FileId) -> Result<Member, String> {
        let missing = || format!("table {id} is removed from level {level}, and is not there");
        let tables = self.members.get(usize::from(level)).ok_or_else(missing)?;
        let at = tables.iter().position(|member| member.meta().id == id).ok_or_else(missing)?;
        let mut list = tables.to_vec();
        let removed = list.remove(at);
        self.set(usize::from(level), list);
        Ok(removed)
    }
}
