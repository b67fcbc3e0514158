//! Walking over a table in either direction, reading ahead.
//!
//! An iterator holds a *window*: the adjacent blocks of its latest read. While
//! it goes on in one direction each read is twice as long as the one before,
//! up to a bound; after a seek, or a turn, it starts with one block again, or as
//! many as are likely to be wanted. A block in the window is not read again; each is
//! verified when it is entered.
//!
//! It is in one *partition* of the table at a time, which it holds unless all are
//! pinned, and no window reaches over the end of one.
//!
//! Blocks that are cached are looked at there, and held for so long; those of the
//! first reads after a seek or a turn go there: short scans live in the cache,
//! long ones pass it by. When one is entered, the processor is told to fetch the
//! next: memory takes as long for the first lines of a block as the walk does for
//! some of its entries.

use std::ops::Range;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::limits::UNIT;
use crate::base::seq::Tag;
use crate::format::block::{BLOCK_BYTES_MAX, Block, BlockCursor, BlockShape};
use crate::format::header::DecodeError;
use crate::format::table::Partition;
use crate::io::{Io, IoBuf};
use crate::sst::blocks::{BlockPlace, Content};
use crate::sst::{REQUEST_BYTES_MAX, Table};

/// Blocks of windows up to this length go into the cache.
const KEPT_WINDOW_BYTES: usize = 4 * UNIT;

// The longest request has room for any block.
const _: () = assert!(BLOCK_BYTES_MAX <= REQUEST_BYTES_MAX);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// A position in a table.
///
/// A call that fails, or whose future is dropped, leaves the iterator off all
/// entries; a seek makes it usable again.
pub(crate) struct TableIter {
    table: Arc<Table>,
    /// The partition of the current block, and of what is sought; `None` before
    /// the first seek.
    partition: Option<(usize, Source)>,
    loaded: Loaded,
    cursor: BlockCursor,
    /// The bound of the latest read since the latest seek or turn, in bytes.
    ahead_bytes: usize,
    /// The bound of all of them, but that a block is read whole.
    ahead_bytes_max: usize,
    /// The bound of the first read after a seek.
    first_bytes: usize,
    /// Where it is going.
    direction: Direction,
    /// It neither looks into the cache nor puts anything there, and reads long
    /// windows from the start.
    is_bypassing: bool,
    /// How long it read, since somebody asked.
    read_ns: u64,
    /// The current block was in use in the cache when a walk that bypasses it came there.
    is_hot: bool,
}

/// Where a partition is in memory.
enum Source {
    /// Among those that the table has pinned.
    Pinned,
    Held(Arc<Partition>),
}

/// What is in memory.
#[derive(Default)]
struct Loaded {
    window: Option<Window>,
    /// The block the cursor is in, which is in the window and verified.
    current: Option<Current>,
    /// What the current block decompressed to, or its content gathered from
    /// several frames of the cache.
    plain: Vec<u8>,
}

struct Window {
    blocks: Range<usize>,
    /// Where in the file the window starts.
    offset: u64,
    buf: IoBuf,
}

struct Current {
    block: BlockPlace,
    lies: Lies,
    shape: BlockShape,
}

/// Where the current block is.
enum Lies {
    /// In the window, at this place.
    InWindow(Range<usize>),
    /// In `Loaded::plain`.
    InPlain,
    /// In memory of the cache, or of its own.
    Held(Content),
}

impl Loaded {
    /// The current block.
    fn block(&self) -> Block<'_> {
        let current = self.current.as_ref().expect("a block was entered");
        let bytes = match (&current.lies, &self.window) {
            (Lies::InWindow(place), Some(window)) => &window.buf[place.clone()],
            (Lies::Held(content), _) => content.whole().expect("it lies in one piece"),
            _ => &self.plain,
        };
        Block::verified(bytes, current.shape)
    }

    /// Makes the block current that has this content.
    fn enter_content(&mut self, block: BlockPlace, content: Content) -> Result<(), DecodeError> {
        let (lies, bytes) = match content.whole() {
            Some(whole) => (true, whole),
            None => {
                content.copy(&mut self.plain);
                (false, &self.plain[..])
            }
        };
        let shape = Block::of_verified(bytes)?.shape();
        let lies = if lies { Lies::Held(content) } else { Lies::InPlain };
        self.current = Some(Current { block, lies, shape });
        Ok(())
    }
}

impl TableIter {
    /// An iterator that reads at most so many bytes at once, but that it reads
    /// blocks whole.
    pub(crate) fn new(table: Arc<Table>, ahead_bytes_max: usize) -> Self {
        Self {
            table,
            partition: None,
            loaded: Loaded::default(),
            cursor: BlockCursor::new(),
            ahead_bytes: 0,
            ahead_bytes_max: ahead_bytes_max.min(REQUEST_BYTES_MAX),
            first_bytes: 0,
            direction: Direction::Forward,
            is_bypassing: false,
            read_ns: 0,
            is_hot: false,
        }
    }

    /// The same, that is likely to be asked for `wanted_bytes` from where it is sent to:
    /// they are read at once, as far as they are for the cache.
    pub(crate) fn wanting(table: Arc<Table>, ahead_bytes_max: usize, wanted_bytes: u64) -> Self {
        let wanted_bytes = wanted_bytes.min(KEPT_WINDOW_BYTES as u64) as usize;
        let mut iter = Self::new(table, ahead_bytes_max);
        // The first of them may be anywhere in its block.
        let first_bytes = (wanted_bytes + UNIT / 2).next_multiple_of(UNIT);
        iter.first_bytes = first_bytes.min(KEPT_WINDOW_BYTES).min(iter.ahead_bytes_max);
        iter
    }

    /// An iterator for those who walk over whole tables, and for threads of the
    /// idle class: of the cache it knows no more than whether blocks are in use there. The table
    /// itself may not be dropped by such a thread.
    pub(crate) fn bypassing(table: Arc<Table>, ahead_bytes_max: usize) -> Self {
        let mut iter = Self::new(table, ahead_bytes_max);
        iter.is_bypassing = true;
        iter.first_bytes = iter.ahead_bytes_max;
        iter.start_over(Direction::Forward);
        iter
    }

    /// How long it has read since it was asked last, or waited for others to read.
    pub(crate) fn take_read_ns(&mut self) -> u64 {
        std::mem::take(&mut self.read_ns)
    }

    /// As if it had read for so long, too.
    pub(crate) fn add_read_ns(&mut self, ns: u64) {
        self.read_ns += ns;
    }

    /// Whether the current block was in use in the cache when the iterator came there; false for
    /// one that does not bypass it.
    pub(crate) fn is_hot(&self) -> bool {
        self.is_hot
    }

    /// Whether the iterator is on an entry.
    pub(crate) fn valid(&self) -> bool {
        self.cursor.is_valid()
    }

    /// The entry's key.
    pub(crate) fn key(&self) -> &[u8] {
        assert!(self.valid());
        self.cursor.key()
    }

    /// The entry's tag.
    pub(crate) fn tag(&self) -> Tag {
        self.cursor.tag()
    }

    /// The entry's value.
    pub(crate) fn value(&self) -> &[u8] {
        assert!(self.valid());
        self.loaded.block().bytes(self.cursor.value())
    }

    /// Moves to the first entry at or after (key, tag).
    pub(crate) async fn seek<I: Io>(&mut self, io: &I, key: &[u8], tag: Tag) -> Result<()> {
        self.start_over(Direction::Forward);
        self.enter_partition(io, self.table.top.partition_of(key, tag)).await?;
        let Some(block) = self.partition().find(key, tag) else {
            return Ok(());
        };
        self.enter(io, block).await?;
        self.place(|cursor, block| cursor.seek(block, key, tag))?;
        if self.valid() { Ok(()) } else { self.enter_after(io, block).await }
    }

    /// Moves to the last entry before (key, tag).
    pub(crate) async fn seek_for_prev<I: Io>(
        &mut self,
        io: &I,
        key: &[u8],
        tag: Tag,
    ) -> Result<()> {
        self.start_over(Direction::Backward);
        self.enter_partition(io, self.table.top.partition_of(key, tag)).await?;
        let Some(block) = self.partition().find(key, tag) else {
            return self.seek_to_last(io).await;
        };
        self.enter(io, block).await?;
        self.place(|cursor, block| cursor.seek_before(block, key, tag))?;
        if self.valid() { Ok(()) } else { self.enter_before(io, block).await }
    }

    /// Moves to the first entry.
    pub(crate) async fn seek_to_first<I: Io>(&mut self, io: &I) -> Result<()> {
        self.start_over(Direction::Forward);
        self.enter_partition(io, 0).await?;
        self.enter(io, 0).await?;
        self.place(BlockCursor::seek_to_first)
    }

    /// Moves to the last entry.
    pub(crate) async fn seek_to_last<I: Io>(&mut self, io: &I) -> Result<()> {
        self.start_over(Direction::Backward);
        self.enter_partition(io, self.table.top.partitions() - 1).await?;
        self.enter(io, self.table.top.blocks() - 1).await?;
        self.place(BlockCursor::seek_to_last)
    }

    /// Moves to the next entry, if that is in the same block; false, and nothing
    /// has moved, if it is not.
    #[inline]
    pub(crate) fn next_in_block(&mut self) -> Result<bool> {
        let block = self.loaded.block();
        if self.cursor.is_last(block) {
            return Ok(false);
        }
        match self.cursor.next(block) {
            Ok(()) => Ok(true),
            Err(error) => Err(self.damaged(&error)),
        }
    }

    /// The same for the entry before.
    pub(crate) fn prev_in_block(&mut self) -> Result<bool> {
        if self.cursor.is_first() {
            return Ok(false);
        }
        self.place(BlockCursor::prev).map(|()| true)
    }

    /// Moves to the next entry, or off the end.
    pub(crate) async fn next<I: Io>(&mut self, io: &I) -> Result<()> {
        self.place(BlockCursor::next)?;
        match &self.loaded.current {
            Some(current) if !self.valid() => self.enter_after(io, current.block.block).await,
            _ => Ok(()),
        }
    }

    /// Moves to the entry before, or off the start.
    pub(crate) async fn prev<I: Io>(&mut self, io: &I) -> Result<()> {
        self.place(BlockCursor::prev)?;
        match &self.loaded.current {
            Some(current) if !self.valid() => self.enter_before(io, current.block.block).await,
            _ => Ok(()),
        }
    }

    /// Moves to the first entry behind `block`, or off the end.
    async fn enter_after<I: Io>(&mut self, io: &I, block: usize) -> Result<()> {
        if block + 1 == self.table.top.blocks() {
            return Ok(());
        }
        self.heading(Direction::Forward);
        self.enter_beside(io, block + 1).await?;
        self.place(BlockCursor::seek_to_first)
    }

    /// Moves to the last entry ahead of `block`, or off the start.
    async fn enter_before<I: Io>(&mut self, io: &I, block: usize) -> Result<()> {
        let Some(before) = block.checked_sub(1) else {
            return Ok(());
        };
        self.heading(Direction::Backward);
        self.enter_beside(io, before).await?;
        self.place(BlockCursor::seek_to_last)
    }

    /// Makes a block the current one that may be in the partition beside this
    /// one.
    async fn enter_beside<I: Io>(&mut self, io: &I, block: usize) -> Result<()> {
        if !self.partition().blocks().contains(&block) {
            self.cursor.clear();
            self.enter_partition(io, self.table.top.partition_with(block)).await?;
        }
        self.enter(io, block).await
    }

    /// Moves the cursor within the current block.
    fn place(
        &mut self,
        step: impl FnOnce(&mut BlockCursor, Block<'_>) -> Result<(), DecodeError>,
    ) -> Result<()> {
        let stepped = step(&mut self.cursor, self.loaded.block());
        stepped.map_err(|error| self.damaged(&error))
    }

    /// The current block is damaged.
    #[cold]
    fn damaged(&self, error: &DecodeError) -> Error {
        let offset = self.loaded.current.as_ref().map_or(0, |current| current.block.offset);
        self.table.damage(offset, error)
    }

    fn start_over(&mut self, direction: Direction) {
        self.cursor.clear();
        self.ahead_bytes = self.first_bytes / 2;
        self.direction = direction;
    }

    /// Says where the iterator is going. A turn starts with short reads again.
    fn heading(&mut self, direction: Direction) {
        if self.direction != direction {
            self.ahead_bytes = self.first_bytes / 2;
        }
        self.direction = direction;
    }

    /// The partition that it is in.
    fn partition(&self) -> &Partition {
        match &self.partition {
            Some((number, Source::Pinned)) => {
                &self.table.pinned().expect("what is pinned stays so")[*number]
            }
            Some((_, Source::Held(partition))) => partition,
            None => unreachable!("every move begins in a partition"),
        }
    }

    /// Sees to it that the partition is in memory.
    async fn enter_partition<I: Io>(&mut self, io: &I, number: usize) -> Result<()> {
        if self.partition.as_ref().is_some_and(|(current, _)| *current == number) {
            return Ok(());
        }
        // It is not here before it is read, whatever becomes of that.
        self.partition = None;
        self.loaded.current = None;
        let source = if self.table.is_pinned() {
            Source::Pinned
        } else {
            let began_ns = io.now_ns();
            let partition = if self.is_bypassing {
                self.table.read_partition(io, number).await.map(Arc::new)
            } else {
                self.table.partition(io, number).await
            };
            self.read_ns += io.now_ns() - began_ns;
            Source::Held(partition?)
        };
        self.partition = Some((number, source));
        Ok(())
    }

    /// Makes `block` the current one. It is in the current partition.
    async fn enter<I: Io>(&mut self, io: &I, block: usize) -> Result<()> {
        self.cursor.clear();
        if self.loaded.current.as_ref().is_some_and(|current| current.block.block == block) {
            return Ok(());
        }
        self.loaded.current = None;
        let place = BlockPlace::of(self.partition(), block);
        let held = self.loaded.window.as_ref().is_some_and(|w| w.blocks.contains(&block));
        if !held {
            if !self.is_bypassing
                && let Some(content) = self.table.hold_cached(place)
            {
                self.prefetch_beside(block);
                return self.enter_content(place, content);
            }
            let began_ns = io.now_ns();
            let filled = self.fill(io, place).await;
            self.read_ns += io.now_ns() - began_ns;
            filled?;
            if self.loaded.current.is_some() {
                return Ok(());
            }
        }
        let Some(window) = &self.loaded.window else { panic!("the window was filled") };
        let start = (place.offset - window.offset) as usize;
        let within = start..start + place.len;
        let is_kept = !self.is_bypassing && window.buf.len() <= KEPT_WINDOW_BYTES;
        let extent = &window.buf[within.clone()];
        let shape = self.table.enter(place, extent, &mut self.loaded.plain, is_kept)?.shape();
        let is_plain = !self.loaded.plain.is_empty();
        let lies = if is_plain { Lies::InPlain } else { Lies::InWindow(within) };
        self.loaded.current = Some(Current { block: place, lies, shape });
        self.is_hot = self.is_bypassing && self.table.is_hot(block);
        Ok(())
    }

    /// Has the processor fetch the block that comes next in the direction of travel.
    fn prefetch_beside(&self, block: usize) {
        let next = match self.direction {
            Direction::Forward => Some(block + 1).filter(|&next| next < self.table.top.blocks()),
            Direction::Backward => block.checked_sub(1),
        };
        if let Some(next) = next {
            self.table.prefetch(next);
        }
    }

    /// Makes the block current that has this content.
    fn enter_content(&mut self, block: BlockPlace, content: Content) -> Result<()> {
        let entered = self.loaded.enter_content(block, content);
        entered.map_err(|error| self.table.damage(block.offset, &error))
    }

    /// Reads a window with `block` at its near end. A single block that may go
    /// into the cache is made current instead.
    async fn fill<I: Io>(&mut self, io: &I, block: BlockPlace) -> Result<()> {
        self.ahead_bytes = (2 * self.ahead_bytes).min(self.ahead_bytes_max);
        let blocks = self.ahead(block);
        let partition = self.partition();
        let (offset, _) = partition.extent(blocks.start);
        let (last_offset, last_len) = partition.extent(blocks.end - 1);
        let len = (last_offset - offset) as usize + last_len;
        self.ahead_bytes = self.ahead_bytes.max(block.len);
        if blocks.len() == 1 && !self.is_bypassing && self.table.is_cacheable(block.len) {
            loop {
                if let Some(content) = self.table.bring(io, block).await? {
                    return self.enter_content(block, content);
                }
                if let Some(content) = self.table.hold_cached(block) {
                    return self.enter_content(block, content);
                }
            }
        }
        let old = self.loaded.window.take();
        let buf = match old {
            Some(window) if window.buf.len() == len => window.buf,
            _ => IoBuf::zeroed(len),
        };
        let buf = self.table.read(io, offset, buf).await?;
        self.loaded.window = Some(Window { blocks, offset, buf });
        Ok(())
    }

    /// As many blocks from `block` on, in the direction of travel, as
    /// `ahead_bytes` and the partition have room for; at least that one. Short reads
    /// end before what is cached.
    fn ahead(&self, block: BlockPlace) -> Range<usize> {
        let is_short = !self.is_bypassing && self.ahead_bytes <= KEPT_WINDOW_BYTES;
        let partition = self.partition();
        let all = partition.blocks();
        let mut blocks = block.block..block.block + 1;
        let mut bytes = block.len;
        loop {
            let next = match self.direction {
                Direction::Backward => blocks.start.checked_sub(1),
                Direction::Forward => Some(blocks.end),
            };
            let Some(next) = next.filter(|next| all.contains(next)) else { return blocks };
            bytes += partition.extent(next).1;
            if bytes > self.ahead_bytes || is_short && self.table.is_cached(next) {
                return blocks;
            }
            blocks = blocks.start.min(next)..blocks.end.max(next + 1);
        }
    }
}
