//! Scans: all shards, merged in key order, at one moment.
//!
//! A scan holds a snapshot for as long as it lives. For each shard it holds a
//! cursor over a view of immutable things, and copies a few entries of the
//! mutable memtable at a time. When that memtable was rotated meanwhile, the
//! cursor is made anew behind the last key returned: the snapshot sees to it
//! that everything it may see is still there.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Bound;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::ids::ShardId;
use crate::base::seq::{Kind, SeqNo, Tag};
use crate::io::Io;
use crate::lsm::{Cursor, Direction, Mutable, Row as Unread, Step, View};
use crate::memtable::{Memtable, ValueRef};
use crate::shard::clock::Snapshot;
use crate::shard::engine::Engine;
use crate::shard::state::State;
use crate::value::{Loaded, Pin};

/// Entries copied under one hold of a shard's lock: few at first, as most
/// scans are short.
const COPIES_MIN: usize = 4;
/// The same, of a scan that goes on.
const COPIES_MAX: usize = 32;
/// Bytes copied under one hold at most, but for the last entry.
const COPY_BYTES_MAX: usize = 8 << 10;

/// The lowest internal key of a key's versions sorts as if it had this tag.
const BEFORE_ALL: Tag = Tag::from_u64(u64::MAX);
/// The highest one.
const AFTER_ALL: Tag = Tag::from_u64(0);

/// What to scan.
#[derive(Clone, Debug)]
pub(crate) struct ScanRange {
    pub(crate) start: Bound<Box<[u8]>>,
    pub(crate) end: Bound<Box<[u8]>>,
    pub(crate) direction: Direction,
    /// Rows come without their values, which are neither copied nor read from
    /// value files.
    pub(crate) keys_only: bool,
}

impl ScanRange {
    /// The internal key to start at.
    fn from(&self) -> Option<(&[u8], Tag)> {
        let (bound, included, excluded) = match self.direction {
            Direction::Forward => (&self.start, BEFORE_ALL, AFTER_ALL),
            Direction::Backward => (&self.end, AFTER_ALL, BEFORE_ALL),
        };
        match bound {
            Bound::Included(key) => Some((key, included)),
            Bound::Excluded(key) => Some((key, excluded)),
            Bound::Unbounded => None,
        }
    }

    /// Where to go on after `key`.
    fn after<'a>(&self, key: &'a [u8]) -> (&'a [u8], Tag) {
        match self.direction {
            Direction::Forward => (key, AFTER_ALL),
            Direction::Backward => (key, BEFORE_ALL),
        }
    }

    /// Whether `key` lies beyond the range's far end.
    fn is_past(&self, key: &[u8]) -> bool {
        match (self.direction, &self.start, &self.end) {
            (Direction::Forward, _, Bound::Included(end)) => key > &end[..],
            (Direction::Forward, _, Bound::Excluded(end)) => key >= &end[..],
            (Direction::Backward, Bound::Included(start), _) => key < &start[..],
            (Direction::Backward, Bound::Excluded(start), _) => key <= &start[..],
            _ => false,
        }
    }
}

/// A key and its value; none where only keys are wanted.
pub(crate) type Row = (Box<[u8]>, Loaded);

/// A scan under way.
pub(crate) struct Scanner {
    engine: Arc<Engine>,
    snapshot: Snapshot,
    range: ScanRange,
    shards: Vec<ShardScan>,
    /// The next row of each shard that has one.
    heads: BinaryHeap<Head>,
    started: bool,
    ended: bool,
}

struct ShardScan {
    shard: ShardId,
    bound: SeqNo,
    generation: u64,
    /// `None` before the first row.
    cursor: Option<Cursor>,
    /// Keeps the long values that the cursor comes by.
    values: Option<Arc<Pin>>,
    /// The last key this shard returned.
    last: Option<Box<[u8]>>,
    /// The last entry copied out of the mutable memtable.
    copied: Option<(Box<[u8]>, Tag)>,
    copies: usize,
}

/// Sorts the row that is next in the scan's direction highest.
struct Head {
    row: Unread,
    direction: Direction,
    index: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.direction {
            Direction::Forward => other.row.key.cmp(&self.row.key),
            Direction::Backward => self.row.key.cmp(&other.row.key),
        }
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl Scanner {
    /// A scan of this moment.
    pub(crate) fn new(engine: &Arc<Engine>, range: ScanRange) -> Self {
        let snapshot = engine.clock.snapshot();
        let shards = engine.shards.iter().map(|shard| ShardScan {
            shard: shard.id,
            bound: 0,
            generation: 0,
            cursor: None,
            values: None,
            last: None,
            copied: None,
            copies: COPIES_MIN,
        });
        Self {
            engine: Arc::clone(engine),
            snapshot,
            range,
            shards: shards.collect(),
            heads: BinaryHeap::new(),
            started: false,
            ended: false,
        }
    }

    /// The next row. After an error the scan is over. `ios` are those of the
    /// owners, whose number they come by, or one for all.
    pub(crate) async fn next<I: Io>(&mut self, ios: &[I]) -> Result<Option<Row>> {
        if self.ended {
            return Ok(None);
        }
        let next = self.advance(ios).await;
        self.ended = !matches!(next, Ok(Some(_)));
        next
    }

    async fn advance<I: Io>(&mut self, ios: &[I]) -> Result<Option<Row>> {
        if !std::mem::replace(&mut self.started, true) {
            for index in 0..self.shards.len() {
                self.pull(ios, index).await?;
            }
        }
        let Some(head) = self.heads.pop() else {
            return Ok(None);
        };
        // Before the shard's cursor, and what it keeps, may be exchanged.
        let row = self.read(ios, head.index, head.row).await?;
        self.pull(ios, head.index).await?;
        Ok(Some(row))
    }

    /// The row with its value.
    async fn read<I: Io>(&self, ios: &[I], index: usize, row: Unread) -> Result<Row> {
        let Unread { key, kind, value } = row;
        if kind != Kind::Indirect || self.range.keys_only {
            return Ok((key, Loaded::Own(value)));
        }
        let shard = self.engine.shard(self.shards[index].shard);
        let io = &ios[self.engine.owner_of(shard.id) % ios.len()];
        Ok((key, shard.values.load(io, &value).await?))
    }

    /// Takes the next row of a shard into the heads.
    async fn pull<I: Io>(&mut self, ios: &[I], index: usize) -> Result<()> {
        let (engine, range) = (&self.engine, &self.range);
        let scan = &mut self.shards[index];
        let io = &ios[engine.owner_of(scan.shard) % ios.len()];
        if let Some(row) = scan.next(io, engine, range, self.snapshot.at).await? {
            self.heads.push(Head { row, direction: range.direction, index });
        }
        Ok(())
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        self.engine.clock.close(&self.snapshot);
    }
}

impl ShardScan {
    async fn next<I: Io>(
        &mut self,
        io: &I,
        engine: &Engine,
        range: &ScanRange,
        at: u64,
    ) -> Result<Option<Unread>> {
        loop {
            let Some(cursor) = &mut self.cursor else {
                self.open(io, engine, range, at).await?;
                continue;
            };
            match cursor.step(io).await? {
                Step::End => return Ok(None),
                Step::Row(row) if range.is_past(&row.key) => {
                    self.cursor = None;
                    return Ok(None);
                }
                Step::Row(row) => {
                    self.last = Some(row.key.clone());
                    return Ok(Some(row));
                }
                Step::Refill => self.refill(engine, range)?,
            }
        }
    }

    /// Makes a cursor behind the last row, on the shard's present view.
    async fn open<I: Io>(
        &mut self,
        io: &I,
        engine: &Engine,
        range: &ScanRange,
        at: u64,
    ) -> Result<()> {
        let last = self.last.clone();
        let from = match &last {
            Some(key) => Some(range.after(key)),
            None => range.from(),
        };
        let mut mutable = Mutable::new(range.keys_only);
        let view: Arc<View> = {
            let state = engine.shard(self.shard).lock();
            if state.closed {
                return Err(Error::closed());
            }
            self.bound = state.published.bound(at);
            self.generation = state.generation;
            self.copied = None;
            mutable.delete(state.mutable.ranges());
            self.copy(&state, range, from, &mut mutable);
            Arc::clone(&state.view)
        };
        self.values = Some(Arc::clone(&view.values));
        let keys = (range.start.clone(), range.end.clone());
        let (direction, bound) = (range.direction, self.bound);
        let cursor = Cursor::new(io, &view, mutable, direction, bound, &keys, from).await?;
        self.cursor = Some(cursor);
        Ok(())
    }

    /// Copies the next entries of the mutable memtable into the cursor; drops
    /// the cursor when that memtable is gone.
    fn refill(&mut self, engine: &Engine, range: &ScanRange) -> Result<()> {
        let Some(mut cursor) = self.cursor.take() else {
            return Ok(());
        };
        let state = engine.shard(self.shard).lock();
        if state.closed {
            return Err(Error::closed());
        }
        if state.generation != self.generation {
            return Ok(());
        }
        self.copies = (self.copies * 2).min(COPIES_MAX);
        let copied = self.copied.take();
        let from = copied.as_ref().map(|(key, tag)| (&key[..], *tag));
        self.copy(&state, range, from, cursor.mutable());
        drop(state);
        cursor.refilled();
        self.cursor = Some(cursor);
        Ok(())
    }

    /// Copies entries that follow `from`: the last copied entry, or (when none
    /// was copied yet) where the scan starts.
    fn copy(
        &mut self,
        state: &State,
        range: &ScanRange,
        from: Option<(&[u8], Tag)>,
        out: &mut Mutable,
    ) {
        let memtable: &Memtable = &state.mutable;
        let mut at = match (range.direction, from) {
            (Direction::Forward, None) => memtable.first(),
            (Direction::Forward, Some((key, tag))) => {
                let at = memtable.lower_bound(key, tag);
                // The last copied entry itself is not copied again.
                let same = memtable.entry(at).is_some_and(|e| e.key == key && e.tag == tag);
                if same { memtable.next(at) } else { at }
            }
            (Direction::Backward, None) => memtable.last(),
            (Direction::Backward, Some((key, tag))) => {
                memtable.prev(memtable.lower_bound(key, tag))
            }
        };
        let mut bytes = 0;
        let mut looked = 0;
        let mut last = None;
        while looked < self.copies && bytes < COPY_BYTES_MAX {
            let Some(entry) = memtable.entry(at).filter(|entry| !range.is_past(entry.key)) else {
                out.finish();
                return;
            };
            looked += 1;
            if entry.tag.seq() <= self.bound {
                bytes += entry.key.len();
                if let ValueRef::Inline(value) = &entry.value
                    && !range.keys_only
                {
                    bytes += value.len();
                }
                out.push(&entry);
            }
            last = Some(at);
            at = match range.direction {
                Direction::Forward => memtable.next(at),
                Direction::Backward => memtable.prev(at),
            };
        }
        self.copied =
            last.and_then(|at| memtable.entry(at)).map(|entry| (entry.key.into(), entry.tag));
    }
}
