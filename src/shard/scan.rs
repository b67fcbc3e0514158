//! Scans: all shards, merged in key order, at one moment.
//!
//! A scan holds a snapshot for as long as it lives. For each shard it holds a
//! cursor over a view of immutable things, and copies a few entries of the
//! mutable memtable at a time. When that memtable was rotated meanwhile, the
//! cursor is made anew behind the last key returned, or one that has no row: the snapshot sees to it
//! that everything it may see is still there.
//!
//! A scan begins in all shards at once: each has its part of the rows, and somewhere
//! else on the device.
//!
//! Each cursor stays at its next row until the row after it is asked for: the scan
//! hands out rows where they lie.

use std::ops::Bound;
use std::sync::Arc;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::ShardId;
use crate::base::keys::KeyBounds;
use crate::base::latency::{Operation, Timer, Wait, Waited};
use crate::base::seq::{Kind, SeqNo, Tag};
use crate::io::Io;
use crate::lsm::{Cursor, Direction, Mutable, Step, View, is_past};
use crate::memtable::{Memtable, ValueRef};
use crate::runtime::join_all;
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

/// Shards that are begun at once.
const BEGUN_AT_ONCE: usize = 16;

/// The lowest internal key of a key's versions sorts as if it had this tag.
const BEFORE_ALL: Tag = Tag::from_u64(u64::MAX);
/// The highest one.
const AFTER_ALL: Tag = Tag::from_u64(0);

/// What to scan.
#[derive(Clone, Debug)]
pub(crate) struct ScanRange {
    pub(crate) bounds: KeyBounds,
    pub(crate) direction: Direction,
    /// Rows come without their values, which are neither copied nor read from
    /// value files.
    pub(crate) keys_only: bool,
    /// Rows that are asked for at most; `usize::MAX` where nobody knows.
    pub(crate) rows_max: usize,
}

impl ScanRange {
    /// The internal key to start at.
    fn from(&self) -> Option<(&[u8], Tag)> {
        let (bound, included, excluded) = match self.direction {
            Direction::Forward => (&self.bounds.0, BEFORE_ALL, AFTER_ALL),
            Direction::Backward => (&self.bounds.1, AFTER_ALL, BEFORE_ALL),
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

    /// Rows that each of so many shards is likely to be asked for; 0 where nobody knows.
    fn rows_of_each(&self, shards: usize) -> u64 {
        if self.rows_max == usize::MAX { 0 } else { self.rows_max.div_ceil(shards) as u64 }
    }

    /// Whether `key` lies beyond the range's far end.
    fn is_past(&self, key: &[u8]) -> bool {
        is_past(&self.bounds, self.direction, key)
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
    /// All of them are at their first row.
    has_begun: bool,
    /// Those that are at a row, the one whose turn it is **last**.
    order: Vec<usize>,
    /// The one whose row the scan is at, and that is to move on.
    behind: Option<usize>,
    /// The value of that row, if it was in a value file.
    loaded: Option<Box<Loaded>>,
    ended: bool,
}

struct ShardScan {
    shard: ShardId,
    bound: SeqNo,
    generation: u64,
    /// `None` before the first row.
    cursor: Option<Cursor>,
    /// Once it has begun: whether there is a row.
    begun: Option<bool>,
    /// Keeps the long values that the cursor comes by, as long as it is there.
    values: Option<Arc<Pin>>,
    /// Behind which key a new cursor goes on, where one was dropped.
    last: Option<Vec<u8>>,
    /// The last entry copied out of the mutable memtable.
    copied: Option<(Box<[u8]>, Tag)>,
    copies: usize,
}

/// What a move of a scan came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Now {
    /// It is at the next row: [`Scanner::row`].
    Row,
    /// There are no more.
    End,
    /// Something has to be read first.
    Read,
}

impl Scanner {
    /// A scan of this moment.
    pub(crate) fn new(engine: &Arc<Engine>, range: ScanRange) -> Self {
        let snapshot = engine.clock.snapshot();
        let shards = engine.shards.iter().map(|shard| ShardScan {
            shard: shard.id,
            bound: 0,
            generation: 0,
            cursor: None,
            begun: None,
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
            has_begun: false,
            order: Vec::new(),
            behind: None,
            loaded: None,
            ended: false,
        }
    }

    /// Moves to the next row; whether there is one. After an error the scan is
    /// over. `ios` are those of the owners, whose number they come by, or one for
    /// all.
    pub(crate) async fn next<I: Io>(&mut self, ios: &[I]) -> Result<bool> {
        let timer = self.timer(|| ios[0].now_ns());
        match self.next_in_memory()? {
            Now::Read => self.next_reading(ios, ios, timer).await,
            now => {
                self.engine.latencies.record_in_memory(timer, 0, || ios[0].now_ns());
                Ok(now == Now::Row)
            }
        }
    }

    /// The timer of the step that comes next. The first one has much to do.
    pub(crate) fn timer(&self, now_ns: impl FnOnce() -> u64) -> Timer {
        if self.ended {
            return Timer::none(Operation::ScanNext);
        }
        match self.has_begun {
            false => Timer::timed(Operation::Scan, now_ns()),
            true => Timer::sampled(Operation::ScanNext, now_ns),
        }
    }

    /// Moves to the next row, when [`Scanner::next_in_memory`] could not. `many` are
    /// for reads that may go on at the same time; others follow one another.
    pub(crate) async fn next_reading<I: Io, M: Io>(
        &mut self,
        ios: &[I],
        many: &[M],
        timer: Timer,
    ) -> Result<bool> {
        let mut waited = Waited::default();
        if !self.has_begun {
            let begun = match self.begin(many, &mut waited).await {
                // An owner that has ended reads nothing for others.
                Err(error) if error.kind() == ErrorKind::Closed => {
                    self.begin(ios, &mut waited).await
                }
                begun => begun,
            };
            if let Err(error) = begun {
                self.ended = true;
                return Err(error);
            }
        }
        let is_at_row = loop {
            match self.next_in_memory()? {
                Now::Row => break true,
                Now::End => break false,
                Now::Read => {}
            }
            match self.read(ios, &mut waited).await {
                Ok(false) => {}
                Ok(true) => break true,
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        };
        self.engine.latencies.record(timer, &waited, || ios[0].now_ns());
        Ok(is_at_row)
    }

    /// Moves to the next row, as far as that goes without reading: if it does not,
    /// [`Scanner::next_reading`] goes on. After an error the scan is over.
    pub(crate) fn next_in_memory(&mut self) -> Result<Now> {
        if self.ended {
            return Ok(Now::End);
        }
        self.loaded = None;
        let now = self.advance();
        self.ended = !matches!(now, Ok(Now::Row | Now::Read));
        now
    }

    /// The row that it is at: its key, and its value, which is empty where only
    /// keys are wanted.
    ///
    /// # Panics
    /// Unless a move just came to a row; as the one below.
    pub(crate) fn row(&self) -> (&[u8], &[u8]) {
        let index = self.behind.expect("the scan is at a row");
        let cursor = self.shards[index].at_row();
        let value = match &self.loaded {
            Some(loaded) => &loaded[..],
            None => cursor.value(),
        };
        (cursor.key(), value)
    }

    /// The same, to be kept.
    pub(crate) fn take_row(&mut self) -> Row {
        let loaded = self.loaded.take();
        let (key, value) = self.row();
        (key.into(), loaded.map_or_else(|| Loaded::Own(value.into()), |loaded| *loaded))
    }

    fn advance(&mut self) -> Result<Now> {
        if !self.has_begun {
            return Ok(Now::Read);
        }
        if let Some(index) = self.behind {
            let Some(is_at_row) = self.shards[index].advance(&self.engine, &self.range)? else {
                return Ok(Now::Read);
            };
            self.moved(index, is_at_row);
        }
        let Some(&index) = self.order.last() else {
            return Ok(Now::End);
        };
        let cursor = self.shards[index].at_row();
        if cursor.kind() == Kind::Indirect && !self.range.keys_only {
            return Ok(Now::Read);
        }
        self.order.pop();
        self.behind = Some(index);
        Ok(Now::Row)
    }

    /// Moves all shards to their first rows. Those that are there stay so if this fails,
    /// or is dropped; the others begin anew, as a walk that failed is nowhere.
    async fn begin<I: Io>(&mut self, ios: &[I], waited: &mut Waited) -> Result<()> {
        let Self { engine, range, snapshot, shards, .. } = self;
        let (engine, range, at) = (&**engine, &*range, snapshot.at);
        // All of them before any is sought: see `lsm/cursor.rs`.
        for scan in shards.iter_mut().filter(|scan| scan.begun.is_none()) {
            scan.open(engine, range, at)?;
        }
        let began_ns = ios[0].now_ns();
        let mut has_read = false;
        for scans in shards.chunks_mut(BEGUN_AT_ONCE) {
            let begun = scans.iter_mut().map(|scan| {
                let io = &ios[engine.owner_of(scan.shard) % ios.len()];
                scan.begin(io, engine, range, at)
            });
            for begun in join_all(begun).await {
                has_read |= begun?.ns(Wait::Read) > 0;
            }
        }
        if has_read {
            waited.add(Wait::Read, ios[0].now_ns() - began_ns);
        }
        self.has_begun = true;
        for index in 0..self.shards.len() {
            let is_at_row = self.shards[index].begun.expect("it has begun");
            self.moved(index, is_at_row);
        }
        Ok(())
    }

    /// Reads what the next row depends on. Whether that was its value, and it is
    /// at the row now.
    async fn read<I: Io>(&mut self, ios: &[I], waited: &mut Waited) -> Result<bool> {
        let Self { engine, range, snapshot, shards, .. } = self;
        let io_of = |shard: ShardId| &ios[engine.owner_of(shard) % ios.len()];
        if let Some(index) = self.behind {
            let scan = &mut shards[index];
            scan.read(io_of(scan.shard), engine, range, snapshot.at, waited).await?;
            return Ok(false);
        }
        let &index = self.order.last().expect("without a row there is nothing to read");
        let (scan, cursor) = (&shards[index], shards[index].at_row());
        let values = &engine.shard(scan.shard).values;
        let io = io_of(scan.shard);
        let began_ns = io.now_ns();
        let value = values.load(io, cursor.value()).await?;
        waited.add(Wait::Read, io.now_ns() - began_ns);
        self.loaded = Some(Box::new(value));
        self.order.pop();
        self.behind = Some(index);
        Ok(true)
    }

    /// A shard that was behind is at its next row, or has none.
    fn moved(&mut self, index: usize, is_at_row: bool) {
        self.behind = None;
        if !is_at_row {
            return;
        }
        let key = self.shards[index].at_row().key();
        let direction = self.range.direction;
        let is_later = |&other: &usize| {
            let other = self.shards[other].at_row().key();
            match direction {
                Direction::Forward => other > key,
                Direction::Backward => other < key,
            }
        };
        let at = self.order.iter().rposition(is_later).map_or(0, |at| at + 1);
        self.order.insert(at, index);
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        self.engine.clock.close(&self.snapshot);
    }
}

impl ShardScan {
    /// The cursor, which is at a row.
    fn at_row(&self) -> &Cursor {
        self.cursor.as_ref().expect("a shard at a row has a cursor")
    }

    /// Moves to the first row, unless it is there.
    async fn begin<I: Io>(
        &mut self,
        io: &I,
        engine: &Engine,
        range: &ScanRange,
        at: u64,
    ) -> Result<Waited> {
        let mut waited = Waited::default();
        while self.begun.is_none() {
            self.begun = self.advance(engine, range)?;
            if self.begun.is_none() {
                self.read(io, engine, range, at, &mut waited).await?;
            }
        }
        Ok(waited)
    }

    /// Moves to the next row; whether there is one. `None` when something has to
    /// be read first.
    fn advance(&mut self, engine: &Engine, range: &ScanRange) -> Result<Option<bool>> {
        loop {
            let Some(cursor) = &mut self.cursor else {
                return Ok(None);
            };
            match cursor.step()? {
                Step::Read => return Ok(None),
                Step::Row if !range.is_past(cursor.key()) => return Ok(Some(true)),
                Step::Refill => self.refill(engine, range)?,
                Step::Row | Step::End => {
                    self.cursor = None;
                    self.values = None;
                    return Ok(Some(false));
                }
            }
        }
    }

    /// Reads what the next row depends on.
    async fn read<I: Io>(
        &mut self,
        io: &I,
        engine: &Engine,
        range: &ScanRange,
        at: u64,
        waited: &mut Waited,
    ) -> Result<()> {
        match &mut self.cursor {
            Some(cursor) => {
                cursor.settle(io).await?;
                waited.add(Wait::Read, cursor.take_read_ns());
                Ok(())
            }
            None => self.open(engine, range, at),
        }
    }

    /// Makes a cursor behind what was passed, on the shard's present view.
    fn open(&mut self, engine: &Engine, range: &ScanRange, at: u64) -> Result<()> {
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
        self.values = (!range.keys_only).then(|| Arc::clone(&view.values));
        let (direction, bound) = (range.direction, self.bound);
        let rows = range.rows_of_each(engine.shards.len());
        let bounds = &range.bounds;
        self.cursor = Some(Cursor::new(&view, mutable, direction, bound, bounds, from, rows));
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
            drop(state);
            if let Some(last) = cursor.last_key() {
                self.last = Some(last.to_vec());
            }
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
