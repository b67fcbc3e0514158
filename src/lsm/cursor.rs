//! Walks over one shard in key order, forward or backward, at one moment: all
//! sources merged, one visible version of each key, tombstones left out, and
//! what range tombstones cover ([`deletions`]).
//!
//! The mutable memtable can only be looked at under the shard's lock. It takes
//! part as a buffer of copied entries, which the floor above refills whenever
//! [`Cursor::step`] asks for it.

mod deletions;

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::error::Result;
use crate::base::keys::KeyBounds;
use crate::base::ranges::RangeTombstones;
use crate::base::seq::{Kind, SeqNo, Tag, compare_internal};
use crate::io::Io;
use crate::lsm::run::{RunIter, ahead_bytes};
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

/// A key and its value, or the reference to it, as the kind says; where only
/// keys are wanted, no value.
pub(crate) struct Row {
    pub(crate) key: Box<[u8]>,
    pub(crate) kind: Kind,
    pub(crate) value: Box<[u8]>,
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
    fn copy(&self) -> Box<[u8]> {
        match self {
            Self::Short(value) => value.clone(),
            Self::Shared(value) => Box::from(&value[..]),
        }
    }
}

enum Source {
    Mutable(Mutable),
    Frozen(Arc<Frozen>, Position),
    Run(Box<RunIter>),
}

impl Source {
    fn current(&self) -> Option<(&[u8], Tag)> {
        match self {
            Self::Mutable(mutable) => mutable.entries.front().map(|(key, tag, _)| (&key[..], *tag)),
            Self::Frozen(frozen, at) => frozen.memtable.entry(*at).map(|e| (e.key, e.tag)),
            Self::Run(iter) => iter.current(),
        }
    }

    fn copy_value(&self) -> Box<[u8]> {
        match self {
            Self::Mutable(mutable) => {
                mutable.entries.front().map(|(_, _, value)| value.copy()).unwrap_or_default()
            }
            Self::Frozen(frozen, at) => {
                frozen.memtable.entry(*at).map(|e| Box::from(&e.value[..])).unwrap_or_default()
            }
            Self::Run(iter) => iter.value().into(),
        }
    }

    async fn advance<I: Io>(&mut self, io: &I, direction: Direction) -> Result<()> {
        match (self, direction) {
            (Self::Mutable(mutable), _) => drop(mutable.entries.pop_front()),
            (Self::Frozen(frozen, at), Direction::Forward) => *at = frozen.memtable.next(*at),
            (Self::Frozen(frozen, at), Direction::Backward) => *at = frozen.memtable.prev(*at),
            (Self::Run(iter), Direction::Forward) => iter.next(io).await?,
            (Self::Run(iter), Direction::Backward) => iter.prev(io).await?,
        }
        Ok(())
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
pub(crate) enum Step {
    /// The next row.
    Row(Row),
    /// The buffer of the mutable memtable is empty: refill it, or finish it.
    Refill,
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
    /// empty.
    order: Vec<usize>,
    /// The key whose versions are being passed over (forward), or the newest
    /// visible version found so far of the current key (backward).
    pending: Option<Pending>,
}

struct Pending {
    key: Box<[u8]>,
    /// Backward only: the newest visible version so far, unless it is a
    /// tombstone.
    found: Option<(Kind, Box<[u8]>)>,
}

/// The kind of a version that has a value.
fn value_kind(tag: Tag) -> Option<Kind> {
    tag.kind().filter(|kind| *kind != Kind::Delete)
}

impl Cursor {
    /// A walk over `view` and a mutable memtable's buffer, from the first entry
    /// at or after (forward), or the last one strictly before (backward), the
    /// internal key `from`; `None` is the very beginning or end. Tables without
    /// keys in `range` are left out. Values are copied unless the buffer says
    /// otherwise.
    pub(crate) async fn new<I: Io>(
        io: &I,
        view: &View,
        mutable: Mutable,
        direction: Direction,
        bound: SeqNo,
        range: &KeyBounds,
        from: Option<(&[u8], Tag)>,
    ) -> Result<Self> {
        let runs = view.levels.runs(range)?;
        let keys_only = mutable.keys_only;
        let mut sources = Vec::with_capacity(1 + view.frozen.len() + runs.len());
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
            deletions.add(sources.len(), [memtable.ranges()]);
            sources.push(Source::Frozen(Arc::clone(frozen), at));
        }
        let ahead_bytes_max = ahead_bytes(AHEAD_BYTES, runs.len());
        for run in runs {
            deletions.add(sources.len(), run.iter().filter_map(|table| table.ranges()));
            let mut iter = RunIter::new(run, ahead_bytes_max);
            match (direction, from) {
                (Direction::Forward, None) => iter.seek_to_first(io).await?,
                (Direction::Forward, Some((key, tag))) => iter.seek(io, key, tag).await?,
                (Direction::Backward, None) => iter.seek_to_last(io).await?,
                (Direction::Backward, Some((key, tag))) => {
                    iter.seek_for_prev(io, key, tag).await?;
                }
            }
            sources.push(Source::Run(Box::new(iter)));
        }
        let order = Vec::with_capacity(sources.len());
        let passed = vec![0; sources.len()];
        let mut cursor =
            Self { direction, bound, keys_only, sources, deletions, passed, order, pending: None };
        for source in 0..cursor.sources.len() {
            cursor.enqueue(source);
        }
        Ok(cursor)
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

    /// The order in which sources take their turns.
    fn compare(&self, a: (&[u8], Tag), b: (&[u8], Tag)) -> Ordering {
        match self.direction {
            Direction::Forward => compare_internal(a, b),
            Direction::Backward => compare_internal(b, a),
        }
    }

    /// Puts a source that has an entry in its place.
    fn enqueue(&mut self, source: usize) {
        let Some(current) = self.sources[source].current() else {
            return;
        };
        // From the end: a source that was just advanced tends to stay near it.
        let mut at = self.order.len();
        while at > 0 {
            let other = self.sources[self.order[at - 1]].current().expect("it has an entry");
            if self.compare(current, other).is_lt() {
                break;
            }
            at -= 1;
        }
        self.order.insert(at, source);
    }

    /// Moves on to the next row.
    pub(crate) async fn step<I: Io>(&mut self, io: &I) -> Result<Step> {
        loop {
            let mutable = self.mutable();
            if mutable.entries.is_empty() && !mutable.end {
                return Ok(Step::Refill);
            }
            let Some(source) = self.order.pop() else {
                return Ok(self.take_pending().map_or(Step::End, Step::Row));
            };
            let (key, tag) = self.sources[source].current().expect("it has an entry");
            let same_key = self.pending.as_ref().is_some_and(|p| *p.key == *key);
            let visible = tag.seq() <= self.bound;
            let deletion = self.deletions.of(key).filter(|deletion| tag.seq() < deletion.seq);
            let kind = value_kind(tag).filter(|_| deletion.is_none());
            // What is older than the range tombstone is so wherever that reaches.
            let is_older = deletion.is_some_and(|deletion| deletion.source < source);
            let mut row = None;
            match self.direction {
                Direction::Forward if visible && !same_key => {
                    self.pending = Some(Pending { key: key.into(), found: None });
                    if let Some(kind) = kind {
                        let value = self.copy_value(source);
                        row = Some(Row { key: Box::from(key), kind, value });
                    }
                }
                Direction::Forward => {}
                Direction::Backward => {
                    let key = (!same_key).then(|| Box::from(key));
                    if let Some(key) = key {
                        row = self.take_pending();
                        self.pending = Some(Pending { key, found: None });
                    }
                    if visible {
                        let found = kind.map(|kind| (kind, self.copy_value(source)));
                        if let Some(pending) = &mut self.pending {
                            pending.found = found;
                        }
                    }
                }
            }
            self.passed[source] = if is_older { self.passed[source] + 1 } else { 0 };
            if self.passed[source] <= PASSED_MAX {
                self.sources[source].advance(io, self.direction).await?;
                self.enqueue(source);
            } else if let Some(edge) = self.deletions.edge() {
                self.sources[source].jump(io, &edge, self.direction).await?;
                self.enqueue(source);
            }
            if let Some(row) = row {
                return Ok(Step::Row(row));
            }
        }
    }

    /// The value that a source is at, if anybody wants it.
    fn copy_value(&self, source: usize) -> Box<[u8]> {
        if self.keys_only { Box::default() } else { self.sources[source].copy_value() }
    }

    /// Backward: the row of the key that was passed completely.
    fn take_pending(&mut self) -> Option<Row> {
        let pending = self.pending.take()?;
        let (kind, value) = pending.found?;
        Some(Row { key: pending.key, kind, value })
    }
}
