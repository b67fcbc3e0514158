//! Walks over one shard in key order, forward or backward, at one moment: all
//! sources merged, one visible version of each key, tombstones left out, and
//! what range tombstones cover ([`deletions`]).
//!
//! The mutable memtable can only be looked at under the shard's lock. It takes
//! part as a buffer of copied entries, which the floor above refills whenever
//! [`Cursor::step`] asks for it.
//!
//! A row is looked at where it lies: going forward, its source moves on only when
//! the next row is asked for. Most steps stay within blocks that are in memory,
//! so [`Cursor::step`] is no future; where a source has to read, it says so, and
//! [`Cursor::settle`] does it. That is the first thing to do, as it is what brings
//! the sources to where the walk begins: who makes several cursors makes all of
//! them first, so that the processor fetches for one what it needs while another
//! begins.

mod deletions;

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use crate::base::error::Result;
use crate::base::keys::{KeyBounds, head};
use crate::base::ranges::RangeTombstones;
use crate::base::seq::{Kind, SeqNo, Tag, compare_internal};
use crate::io::Io;
use crate::lsm::run::{Run, RunIter, ahead_bytes};
use crate::lsm::view::{Frozen, View};
use crate::memtable::{Entry, Position, ValueRef};

use deletions::Deletions;

/// Bytes that a walk over one shard may have read ahead, over all its runs.
const AHEAD_BYTES: usize = 1 << 20;

/// Entries of one source that are passed over one by one, before a range
/// tombstone that covers them is jumped over. A jump is a seek, and ends reading
/// ahead: short stretches are not worth it.
const PASSED_MAX: u32 = 16;

/// The lowest internal key of a key's versions sorts as if it had this tag.
const BEFORE_ALL: Tag = Tag::from_u64(u64::MAX);

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Keys ascend.
    Forward,
    /// Keys descend.
    Backward,
}

/// Whether `key` lies beyond the far end of a range that is walked over.
pub(crate) fn is_past(range: &KeyBounds, direction: Direction, key: &[u8]) -> bool {
    let (start, end) = range;
    match (direction, start, end) {
        (Direction::Forward, _, Bound::Included(end)) => key > &end[..],
        (Direction::Forward, _, Bound::Excluded(end)) => key >= &end[..],
        (Direction::Backward, Bound::Included(start), _) => key < &start[..],
        (Direction::Backward, Bound::Excluded(start), _) => key <= &start[..],
        _ => false,
    }
}

/// Copied entries of the mutable memtable, in the scan's direction.
#[derive(Default)]
pub(crate) struct Mutable {
    entries: VecDeque<(Box<[u8]>, Tag, Copied)>,
    /// Nothing follows the entries.
    end: bool,
    /// The memtable's range tombstones. Later ones are not for this scan.
    ranges: Arc<RangeTombstones>,
    /// Nobody wants values: neither these nor those of other sources are copied.
    keys_only: bool,
}

/// A value taken out of a memtable under the lock: long ones are shared.
enum Copied {
    Short(Box<[u8]>),
    Shared(Arc<[u8]>),
}

impl Mutable {
    /// An empty buffer, of a walk that copies no values if these are not wanted.
    pub(crate) fn new(keys_only: bool) -> Self {
        Self { keys_only, ..Self::default() }
    }

    /// Adds an entry behind those that are there.
    pub(crate) fn push(&mut self, entry: &Entry<'_>) {
        let value = match &entry.value {
            _ if self.keys_only => Copied::Short(Box::default()),
            ValueRef::Inline(value) => Copied::Short((*value).into()),
            ValueRef::Shared(value) => Copied::Shared(Arc::clone(value)),
        };
        self.entries.push_back((entry.key.into(), entry.tag, value));
    }

    /// Says what was deleted, as far as the scan may see it.
    pub(crate) fn delete(&mut self, ranges: &Arc<RangeTombstones>) {
        self.ranges = Arc::clone(ranges);
    }

    /// No entries follow.
    pub(crate) fn finish(&mut self) {
        self.end = true;
    }
}

impl Copied {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(value) => value,
            Self::Shared(value) => value,
        }
    }
}

enum Source {
    Mutable(Mutable),
    Frozen(Arc<Frozen>, Position),
    Run(Box<RunIter>),
}

impl Source {
    #[inline]
    fn current(&self) -> Option<(&[u8], Tag)> {
        match self {
            Self::Mutable(mutable) => mutable.entries.front().map(|(key, tag, _)| (&key[..], *tag)),
            Self::Frozen(frozen, at) => frozen.memtable.entry(*at).map(|e| (e.key, e.tag)),
            Self::Run(iter) => iter.current(),
        }
    }

    /// The value of the entry that it is at.
    fn value(&self) -> &[u8] {
        match self {
            Self::Mutable(mutable) => {
                mutable.entries.front().map(|(_, _, value)| value.bytes()).unwrap_or_default()
            }
            Self::Frozen(frozen, at) => match frozen.memtable.entry(*at).map(|e| e.value) {
                Some(ValueRef::Inline(value)) => value,
                Some(ValueRef::Shared(value)) => value,
                None => &[],
            },
            Self::Run(iter) => iter.value(),
        }
    }

    /// Moves to the next entry, as far as that is in memory; false, and nothing
    /// has moved, if it is not.
    #[inline]
    fn advance_in_memory(&mut self, direction: Direction) -> Result<bool> {
        match (self, direction) {
            (Self::Mutable(mutable), _) => drop(mutable.entries.pop_front()),
            (Self::Frozen(frozen, at), Direction::Forward) => *at = frozen.memtable.next(*at),
            (Self::Frozen(frozen, at), Direction::Backward) => *at = frozen.memtable.prev(*at),
            (Self::Run(iter), Direction::Forward) => return iter.next_in_block(),
            (Self::Run(iter), Direction::Backward) => return iter.prev_in_block(),
        }
        Ok(true)
    }

    async fn advance<I: Io>(&mut self, io: &I, direction: Direction) -> Result<()> {
        match (self, direction) {
            (Self::Run(iter), Direction::Forward) => iter.next(io).await,
            (Self::Run(iter), Direction::Backward) => iter.prev(io).await,
            (source, _) => source.advance_in_memory(direction).map(drop),
        }
    }

    /// Goes on at the first entry from `edge` on, or the last one before it.
    async fn jump<I: Io>(&mut self, io: &I, edge: &[u8], direction: Direction) -> Result<()> {
        match (self, direction) {
            (Self::Mutable(_), _) => unreachable!("nothing is newer than the mutable memtable"),
            (Self::Frozen(frozen, at), Direction::Forward) => {
                *at = frozen.memtable.lower_bound(edge, BEFORE_ALL);
            }
            (Self::Frozen(frozen, at), Direction::Backward) => {
                let memtable = &frozen.memtable;
                *at = memtable.prev(memtable.lower_bound(edge, BEFORE_ALL));
            }
            (Self::Run(iter), Direction::Forward) => iter.seek(io, edge, BEFORE_ALL).await?,
            (Self::Run(iter), Direction::Backward) => {
                iter.seek_for_prev(io, edge, BEFORE_ALL).await?;
            }
        }
        Ok(())
    }
}

/// What [`Cursor::step`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is at the next row.
    Row,
    /// The buffer of the mutable memtable is empty: refill it, or finish it.
    Refill,
    /// A source has to read: [`Cursor::settle`] comes next.
    Read,
    /// There are no more rows.
    End,
}

/// A walk over one shard.
pub(crate) struct Cursor {
    direction: Direction,
    bound: SeqNo,
    keys_only: bool,
    /// Newest first: for any one key, all of one is newer than all of the next.
    sources: Vec<Source>,
    deletions: Deletions,
    /// How many entries of each source that a newer one deletes were passed over
    /// in a row.
    passed: Vec<u32>,
    /// The sources that have an entry, the one whose turn it is **last**. The
    /// mutable one, at index 0, is among them only while its buffer is not
    /// empty; one that is to move is not.
    order: Vec<Turn>,
    /// Where the row is that it is at.
    row: RowPlace,
    /// What takes reading, and is to be done before the next step.
    owed: Option<Owed>,
    /// The key whose versions are being passed over, or collected (backward), which
    /// forward is that of the row; before the first one that where the walk begins.
    key: Vec<u8>,
    has_key: bool,
    /// Backward only: the newest visible version so far of that key, unless it is
    /// deleted: its kind, and its value, which counts only then.
    found: Option<Kind>,
    value: Vec<u8>,
    /// Backward only: the row.
    collected: Collected,
}

/// A source that has an entry.
#[derive(Clone, Copy)]
struct Turn {
    /// Of the entry's key: most comparisons end with it.
    head: u64,
    source: usize,
}

/// What a cursor owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    /// All sources are to go to where the walk begins: `Cursor::key` with this tag,
    /// or the very beginning or end.
    Seek(Option<Tag>),
    /// This source is to move on.
    Move(usize),
    /// It is to jump over what a range tombstone covers.
    Jump(usize),
}

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowPlace {
    /// There is none.
    Nowhere,
    /// It is what this source is at.
    Source(usize, Kind),
    /// It was collected.
    Collected(Kind),
}

/// A row of a walk backward, whose source has moved on.
#[derive(Default)]
struct Collected {
    key: Vec<u8>,
    value: Vec<u8>,
    /// There was one.
    is_row: bool,
}

/// The kind of a version that has a value.
fn value_kind(tag: Tag) -> Option<Kind> {
    tag.kind().filter(|kind| *kind != Kind::Delete)
}

impl Cursor {
    /// A walk over `view` and a mutable memtable's buffer, from the first entry
    /// at or after (forward), or the last one strictly before (backward), the
    /// internal key `from`; `None` is the very beginning or end. Memtables and tables
    /// without keys in `range` are left out. There are values unless the buffer says
    /// otherwise. It is likely to be asked for so many `rows` of tables; 0 where nobody
    /// knows.
    pub(crate) fn new(
        view: &View,
        mutable: Mutable,
        direction: Direction,
        bound: SeqNo,
        range: &KeyBounds,
        from: Option<(&[u8], Tag)>,
        rows: u64,
    ) -> Self {
        let runs = view.levels.runs();
        let count = runs.clone().count();
        let keys_only = mutable.keys_only;
        let mut sources = Vec::with_capacity(1 + view.frozen.len() + count);
        let mut deletions = Deletions::new(direction, bound);
        deletions.add(0, [&mutable.ranges]);
        sources.push(Source::Mutable(mutable));
        for frozen in &view.frozen {
            let memtable = &frozen.memtable;
            let at = match (direction, from) {
                (Direction::Forward, None) => memtable.first(),
                (Direction::Forward, Some((key, tag))) => memtable.lower_bound(key, tag),
                (Direction::Backward, None) => memtable.last(),
                (Direction::Backward, Some((key, tag))) => {
                    memtable.prev(memtable.lower_bound(key, tag))
                }
            };
            let entry = memtable.entry(at);
            if entry.is_none_or(|entry| is_past(range, direction, entry.key)) {
                // The memtable may go before the walk does. As to its range tombstones,
                // all sources that follow are older than those.
                deletions.add(sources.len() - 1, [memtable.ranges()]);
                continue;
            }
            deletions.add(sources.len(), [memtable.ranges()]);
            sources.push(Source::Frozen(Arc::clone(frozen), at));
        }
        let ahead_bytes_max = ahead_bytes(AHEAD_BYTES, count);
        let entries = runs.clone().map(Run::entries).sum::<u64>().max(1);
        for run in runs {
            // Each has its part of the rows.
            let wanted = (u128::from(rows) * u128::from(run.entries())).div_ceil(entries.into());
            let wanted_bytes = run.bytes_of(u64::try_from(wanted).unwrap_or(u64::MAX));
            let Some(iter) = RunIter::within(run, range, ahead_bytes_max, wanted_bytes) else {
                continue;
            };
            deletions.add(sources.len(), run.ranges());
            if let (Direction::Forward, Some((key, tag))) = (direction, from) {
                iter.prefetch(key, tag);
            }
            sources.push(Source::Run(Box::new(iter)));
        }
        let order = Vec::with_capacity(sources.len());
        let passed = vec![0; sources.len()];
        Self {
            direction,
            bound,
            keys_only,
            sources,
            deletions,
            passed,
            order,
            row: RowPlace::Nowhere,
            owed: Some(Owed::Seek(from.map(|(_, tag)| tag))),
            key: from.map_or_else(Vec::new, |(key, _)| key.to_vec()),
            has_key: false,
            found: None,
            value: Vec::new(),
            collected: Collected::default(),
        }
    }

    /// Brings all sources to where the walk begins.
    async fn seek<I: Io>(&mut self, io: &I, tag: Option<Tag>) -> Result<()> {
        let Self { direction, key, sources, .. } = self;
        for source in sources {
            let Source::Run(iter) = source else { continue };
            match (*direction, tag) {
                (Direction::Forward, None) => iter.seek_to_first(io).await?,
                (Direction::Forward, Some(tag)) => iter.seek(io, key, tag).await?,
                (Direction::Backward, None) => iter.seek_to_last(io).await?,
                (Direction::Backward, Some(tag)) => iter.seek_for_prev(io, key, tag).await?,
            }
        }
        for source in 0..self.sources.len() {
            self.enqueue(source);
        }
        Ok(())
    }

    /// How long its sources have read since it was asked last.
    pub(crate) fn take_read_ns(&mut self) -> u64 {
        let read_ns = |source: &mut Source| match source {
            Source::Run(iter) => iter.take_read_ns(),
            Source::Mutable(_) | Source::Frozen(..) => 0,
        };
        self.sources.iter_mut().map(read_ns).sum()
    }

    /// The buffer of the mutable memtable.
    pub(crate) fn mutable(&mut self) -> &mut Mutable {
        match &mut self.sources[0] {
            Source::Mutable(mutable) => mutable,
            _ => unreachable!("the mutable memtable is the first source"),
        }
    }

    /// After the buffer was refilled.
    pub(crate) fn refilled(&mut self) {
        self.enqueue(0);
    }

    /// Puts a source that has an entry in its place.
    fn enqueue(&mut self, source: usize) {
        let Some((key, tag)) = self.sources[source].current() else {
            return;
        };
        let head = head(key);
        let is_before = |turn: &Turn| {
            let order = head.cmp(&turn.head).then_with(|| {
                let other = self.sources[turn.source].current().expect("it has an entry");
                compare_internal((key, tag), other)
            });
            match self.direction {
                Direction::Forward => order.is_lt(),
                Direction::Backward => order.is_gt(),
            }
        };
        // From the end: a source that was just advanced tends to stay near it.
        let at = self.order.iter().rposition(is_before).map_or(0, |at| at + 1);
        self.order.insert(at, Turn { head, source });
    }

    /// The key of the row that it is at.
    ///
    /// # Panics
    /// Unless [`Cursor::step`] just came to a row; as the two below.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        match self.row {
            RowPlace::Source(..) => &self.key,
            RowPlace::Collected(_) => &self.collected.key,
            RowPlace::Nowhere => panic!("the cursor is at no row"),
        }
    }

    /// Behind which key the walk has no more rows to show: that of its last row, or one
    /// that has none; `None` before the first.
    pub(crate) fn last_key(&self) -> Option<&[u8]> {
        match self.direction {
            Direction::Forward => self.has_key.then_some(&self.key[..]),
            Direction::Backward => self.collected.is_row.then_some(&self.collected.key[..]),
        }
    }

    /// Whether the row has its value, or a reference to it.
    pub(crate) fn kind(&self) -> Kind {
        match self.row {
            RowPlace::Source(_, kind) | RowPlace::Collected(kind) => kind,
            RowPlace::Nowhere => panic!("the cursor is at no row"),
        }
    }

    /// The row's value, or the reference to it; nothing where only keys are
    /// wanted.
    pub(crate) fn value(&self) -> &[u8] {
        match self.row {
            _ if self.keys_only => &[],
            RowPlace::Source(source, _) => self.sources[source].value(),
            RowPlace::Collected(_) => &self.collected.value,
            RowPlace::Nowhere => panic!("the cursor is at no row"),
        }
    }

    /// Does what takes reading.
    pub(crate) async fn settle<I: Io>(&mut self, io: &I) -> Result<()> {
        let Some(owed) = self.owed else {
            return Ok(());
        };
        match owed {
            Owed::Seek(tag) => self.seek(io, tag).await?,
            Owed::Move(source) => {
                self.sources[source].advance(io, self.direction).await?;
                self.enqueue(source);
            }
            Owed::Jump(source) => {
                let edge = self.deletions.edge().expect("a jump has an end");
                self.sources[source].jump(io, &edge, self.direction).await?;
                self.enqueue(source);
            }
        }
        self.owed = None;
        Ok(())
    }

    /// Moves a source on, if that is in memory; whether it was.
    #[inline]
    fn move_on(&mut self, source: usize) -> Result<bool> {
        let has_moved = self.sources[source].advance_in_memory(self.direction)?;
        if has_moved {
            self.enqueue(source);
        } else {
            self.owed = Some(Owed::Move(source));
        }
        Ok(has_moved)
    }

    /// Moves on to the next row.
    pub(crate) fn step(&mut self) -> Result<Step> {
        if self.owed.is_some() {
            return Ok(Step::Read);
        }
        if let RowPlace::Source(source, _) = std::mem::replace(&mut self.row, RowPlace::Nowhere)
            && !self.move_on(source)?
        {
            return Ok(Step::Read);
        }
        loop {
            let mutable = self.mutable();
            if mutable.entries.is_empty() && !mutable.end {
                return Ok(Step::Refill);
            }
            let Some(Turn { source, .. }) = self.order.pop() else {
                self.has_key = false;
                self.collect();
                let is_row = self.row != RowPlace::Nowhere;
                return Ok(if is_row { Step::Row } else { Step::End });
            };
            let (key, tag) = self.sources[source].current().expect("it has an entry");
            let is_same_key = self.has_key && self.key == key;
            let is_visible = tag.seq() <= self.bound;
            let deletion = self.deletions.of(key).filter(|deletion| tag.seq() < deletion.seq);
            let kind = value_kind(tag).filter(|_| deletion.is_none());
            // What is older than the range tombstone is so wherever that reaches.
            let is_older = deletion.is_some_and(|deletion| deletion.source < source);
            self.passed[source] = if is_older { self.passed[source] + 1 } else { 0 };
            match self.direction {
                Direction::Forward if is_visible && !is_same_key => {
                    self.key.clear();
                    self.key.extend_from_slice(key);
                    self.has_key = true;
                    if let Some(kind) = kind {
                        self.row = RowPlace::Source(source, kind);
                        return Ok(Step::Row);
                    }
                }
                Direction::Forward => {}
                Direction::Backward => {
                    if !is_same_key {
                        self.collect();
                        let (key, _) = self.sources[source].current().expect("it has an entry");
                        self.key.clear();
                        self.key.extend_from_slice(key);
                        self.has_key = true;
                    }
                    if is_visible {
                        self.found = kind;
                        self.value.clear();
                        if kind.is_some() && !self.keys_only {
                            self.value.extend_from_slice(self.sources[source].value());
                        }
                    }
                }
            }
            let has_moved = if self.passed[source] > PASSED_MAX && self.deletions.edge().is_some() {
                self.owed = Some(Owed::Jump(source));
                false
            } else if self.passed[source] > PASSED_MAX {
                // It is deleted to its end.
                true
            } else {
                self.move_on(source)?
            };
            if self.row != RowPlace::Nowhere {
                return Ok(Step::Row);
            }
            if !has_moved {
                return Ok(Step::Read);
            }
        }
    }

    /// Backward: the key that was passed completely becomes the row, if it has a
    /// visible value.
    fn collect(&mut self) {
        if let Some(kind) = self.found.take() {
            std::mem::swap(&mut self.collected.key, &mut self.key);
            std::mem::swap(&mut self.collected.value, &mut self.value);
            self.collected.is_row = true;
            self.row = RowPlace::Collected(kind);
        }
    }
}
