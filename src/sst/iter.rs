//! Walking over a table in either direction, reading ahead.
//!
//! An iterator holds a *window*: the adjacent blocks of its latest read. While
//! it goes on in one direction each read is twice as long as the one before,
//! up to a bound; after a seek, or a turn, it starts with one block again. A
//! block in the window is not read again; each is verified when it is entered.
//!
//! Blocks that are cached are taken from there, and those of the first reads
//! after a seek or a turn go there: short scans live in the cache, long ones
//! pass it by.

use std::ops::Range;
use std::sync::Arc;

use crate::base::error::Result;
use crate::base::limits::UNIT;
use crate::base::seq::Tag;
use crate::format::block::{BLOCK_BYTES_MAX, Block, BlockCursor, BlockShape};
use crate::format::header::DecodeError;
use crate::io::{Io, IoBuf};
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
    loaded: Loaded,
    cursor: BlockCursor,
    /// The bound of the latest read since the latest seek or turn, in bytes.
    ahead_bytes: usize,
    /// The bound of all of them, but that a block is read whole.
    ahead_bytes_max: usize,
    /// Where the reads are going; `None` since the latest seek.
    direction: Option<Direction>,
    /// It neither looks into the cache nor puts anything there, and reads long
    /// windows from the start.
    is_bypassing: bool,
}

/// What is in memory.
#[derive(Default)]
struct Loaded {
    window: Option<Window>,
    /// The block the cursor is in, which is in the window and verified.
    current: Option<Current>,
    /// The content of the current block, if it is not as it was read: what it
    /// decompressed to, or what was copied out of the cache. Else empty.
    plain: Vec<u8>,
}

struct Window {
    blocks: Range<usize>,
    /// Where in the file the window starts.
    offset: u64,
    buf: IoBuf,
}

struct Current {
    block: usize,
    /// Where in the window the block is, if it was entered there.
    place: Range<usize>,
    shape: BlockShape,
}

impl Loaded {
    /// The current block.
    fn block(&self) -> Block<'_> {
        let current = self.current.as_ref().expect("a block was entered");
        let block = match &self.window {
            Some(window) if self.plain.is_empty() => &window.buf[current.place.clone()],
            _ => &self.plain,
        };
        Block::verified(block, current.shape)
    }

    /// Makes the block current whose content is in `plain`.
    fn enter_plain(&mut self, block: usize) -> Result<(), DecodeError> {
        let shape = Block::of_verified(&self.plain)?.shape();
        self.current = Some(Current { block, place: 0..0, shape });
        Ok(())
    }
}

impl TableIter {
    /// An iterator that reads at most so many bytes at once, but that it reads
    /// blocks whole.
    pub(crate) fn new(table: Arc<Table>, ahead_bytes_max: usize) -> Self {
        Self {
            table,
            loaded: Loaded::default(),
            cursor: BlockCursor::new(),
            ahead_bytes: 0,
            ahead_bytes_max: ahead_bytes_max.min(REQUEST_BYTES_MAX),
            direction: None,
            is_bypassing: false,
        }
    }

    /// An iterator for those who walk over whole tables, and for threads of the
    /// idle class: it has nothing to do with the cache. The table itself may not
    /// be dropped by such a thread.
    pub(crate) fn bypassing(table: Arc<Table>, ahead_bytes_max: usize) -> Self {
        let mut iter = Self::new(table, ahead_bytes_max);
        iter.is_bypassing = true;
        iter.start_over();
        iter
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
        self.start_over();
        let Some(block) = self.table.index().find(key, tag) else {
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
        self.start_over();
        let Some(block) = self.table.index().find(key, tag) else {
            return self.seek_to_last(io).await;
        };
        self.enter(io, block).await?;
        self.place(|cursor, block| cursor.seek_before(block, key, tag))?;
        if self.valid() { Ok(()) } else { self.enter_before(io, block).await }
    }

    /// Moves to the first entry.
    pub(crate) async fn seek_to_first<I: Io>(&mut self, io: &I) -> Result<()> {
        self.start_over();
        self.enter(io, 0).await?;
        self.place(BlockCursor::seek_to_first)
    }

    /// Moves to the last entry.
    pub(crate) async fn seek_to_last<I: Io>(&mut self, io: &I) -> Result<()> {
        self.start_over();
        self.enter(io, self.table.index().blocks() - 1).await?;
        self.place(BlockCursor::seek_to_last)
    }

    /// Moves to the next entry, if that is in the same block; false, and nothing
    /// has moved, if it is not.
    #[inline]
    pub(crate) fn next_in_block(&mut self) -> Result<bool> {
        if self.cursor.is_last(self.loaded.block()) {
            return Ok(false);
        }
        self.place(BlockCursor::next).map(|()| true)
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
            Some(current) if !self.valid() => self.enter_after(io, current.block).await,
            _ => Ok(()),
        }
    }

    /// Moves to the entry before, or off the start.
    pub(crate) async fn prev<I: Io>(&mut self, io: &I) -> Result<()> {
        self.place(BlockCursor::prev)?;
        match &self.loaded.current {
            Some(current) if !self.valid() => self.enter_before(io, current.block).await,
            _ => Ok(()),
        }
    }

    /// Moves to the first entry behind `block`, or off the end.
    async fn enter_after<I: Io>(&mut self, io: &I, block: usize) -> Result<()> {
        if block + 1 == self.table.index().blocks() {
            return Ok(());
        }
        self.heading(Direction::Forward);
        self.enter(io, block + 1).await?;
        self.place(BlockCursor::seek_to_first)
    }

    /// Moves to the last entry ahead of `block`, or off the start.
    async fn enter_before<I: Io>(&mut self, io: &I, block: usize) -> Result<()> {
        let Some(before) = block.checked_sub(1) else {
            return Ok(());
        };
        self.heading(Direction::Backward);
        self.enter(io, before).await?;
        self.place(BlockCursor::seek_to_last)
    }

    /// Moves the cursor within the current block.
    fn place(
        &mut self,
        step: impl FnOnce(&mut BlockCursor, Block<'_>) -> Result<(), DecodeError>,
    ) -> Result<()> {
        let Self { table, loaded, cursor, .. } = self;
        step(cursor, loaded.block()).map_err(|error| {
            let offset = loaded.current.as_ref().map_or(0, |c| table.index().extent(c.block).0);
            table.damage(offset, &error)
        })
    }

    fn start_over(&mut self) {
        self.cursor.clear();
        self.ahead_bytes = self.ahead_bytes_first();
        self.direction = None;
    }

    fn ahead_bytes_first(&self) -> usize {
        if self.is_bypassing { self.ahead_bytes_max } else { 0 }
    }

    /// Says where the iterator is going. A turn starts with short reads again.
    fn heading(&mut self, direction: Direction) {
        if self.direction.is_some_and(|before| before != direction) {
            self.ahead_bytes = self.ahead_bytes_first();
        }
        self.direction = Some(direction);
    }

    /// Makes `block` the current one.
    async fn enter<I: Io>(&mut self, io: &I, block: usize) -> Result<()> {
        self.cursor.clear();
        if self.loaded.current.as_ref().is_some_and(|current| current.block == block) {
            return Ok(());
        }
        self.loaded.current = None;
        let held = self.loaded.window.as_ref().is_some_and(|w| w.blocks.contains(&block));
        if !held {
            if !self.is_bypassing && self.table.copy_cached(block, &mut self.loaded.plain) {
                return self.enter_plain(block);
            }
            self.fill(io, block).await?;
            if self.loaded.current.is_some() {
                return Ok(());
            }
        }
        let Some(window) = &self.loaded.window else { panic!("the window was filled") };
        let (offset, len) = self.table.index().extent(block);
        let start = (offset - window.offset) as usize;
        let place = start..start + len;
        let is_kept = !self.is_bypassing && window.buf.len() <= KEPT_WINDOW_BYTES;
        let extent = &window.buf[place.clone()];
        let shape = self.table.enter(block, extent, &mut self.loaded.plain, is_kept)?.shape();
        self.loaded.current = Some(Current { block, place, shape });
        Ok(())
    }

    /// Makes the block current whose content was copied.
    fn enter_plain(&mut self, block: usize) -> Result<()> {
        self.loaded.enter_plain(block).map_err(|error| {
            let (offset, _) = self.table.index().extent(block);
            self.table.damage(offset, &error)
        })
    }

    /// Reads a window with `block` at its near end. A single block that may go
    /// into the cache is made current instead.
    async fn fill<I: Io>(&mut self, io: &I, block: usize) -> Result<()> {
        self.ahead_bytes = (2 * self.ahead_bytes).min(self.ahead_bytes_max);
        let blocks = self.ahead(block);
        let index = self.table.index();
        let (offset, _) = index.extent(blocks.start);
        let (last_offset, last_len) = index.extent(blocks.end - 1);
        let len = (last_offset - offset) as usize + last_len;
        self.ahead_bytes = self.ahead_bytes.max(index.extent(block).1);
        if blocks.len() == 1 && !self.is_bypassing && self.table.is_cacheable(block) {
            loop {
                if let Some(content) = self.table.bring(io, block).await? {
                    content.copy(&mut self.loaded.plain);
                    return self.enter_plain(block);
                }
                if self.table.copy_cached(block, &mut self.loaded.plain) {
                    return self.enter_plain(block);
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
    /// `ahead_bytes` have room for; at least that one.
    fn ahead(&self, block: usize) -> Range<usize> {
        let index = self.table.index();
        let mut blocks = block..block + 1;
        let mut bytes = index.extent(block).1;
        loop {
            let next = match self.direction {
                Some(Direction::Backward) => blocks.start.checked_sub(1),
                _ => Some(blocks.end).filter(|&next| next < index.blocks()),
            };
            let Some(next) = next else { return blocks };
            bytes += index.extent(next).1;
            if bytes > self.ahead_bytes {
                return blocks;
            }
            blocks = blocks.start.min(next)..blocks.end.max(next + 1);
        }
    }
}
