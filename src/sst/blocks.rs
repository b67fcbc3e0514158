//! Bringing a table's blocks into memory: out of the cache, or from the device
//! with a read that all who miss the block at once share.
//!
//! What is cached is a block's *content*, verified and decompressed once. A
//! block of one unit lands in the frame in which it stays; a longer one, and one
//! that was compressed, is copied into its frames. A block that finds no room
//! in the cache, or is too long for it, is read to memory of its own.

use std::sync::Arc;

use super::Table;
use super::shared_read::read_shared;
use crate::base::error::{Error, Result};
use crate::base::limits::UNIT;
use crate::base::seq::Tag;
use crate::cache::{BLOCK_BYTES_MAX, Cache, CachedTable, Flights, Held, Lead};
use crate::format::block::Block;
use crate::format::table::Partition;
use crate::io::{DetachedRead, Io, IoBuf};

/// A table's share in the cache.
pub(super) struct Cached {
    pub(super) table: CachedTable,
    flights: Arc<Flights<Content>>,
}

impl Cached {
    pub(super) fn new(cache: &Arc<Cache>, table: u64, blocks: usize) -> Self {
        let blocks = u32::try_from(blocks).expect("a table is far shorter than 16 TiB");
        Self { table: cache.register(table, blocks), flights: Flights::new() }
    }
}

/// A block of a table: its number, and where in the file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockPlace {
    pub(super) block: usize,
    pub(super) offset: u64,
    pub(super) len: usize,
}

impl BlockPlace {
    /// Of a block of the partition.
    pub(super) fn of(partition: &Partition, block: usize) -> Self {
        let (offset, len) = partition.extent(block);
        Self { block, offset, len }
    }
}

/// A block's content in memory, for as long as it is wanted. Clones share it.
#[derive(Clone)]
pub(super) enum Content {
    /// In frames of the cache.
    Held(Held),
    /// In memory of its own.
    Own(Arc<Own>),
}

pub(super) enum Own {
    /// The block as it was read, which begins with so many bytes of content.
    Read(IoBuf, usize),
    Decompressed(Vec<u8>),
}

impl Own {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Read(buf, bytes) => &buf[..*bytes],
            Self::Decompressed(plain) => plain,
        }
    }
}

impl Content {
    /// The content; gathered in `scratch` if it lies in pieces.
    pub(super) fn bytes<'a>(&'a self, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match self.whole() {
            Some(whole) => whole,
            None => {
                self.copy(scratch);
                scratch
            }
        }
    }

    /// The content in place, unless it lies in pieces.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Own(own) => Some(own.bytes()),
            Self::Held(held) => held.whole(),
        }
    }

    /// Copies the content.
    pub(super) fn copy(&self, into: &mut Vec<u8>) {
        match self {
            Self::Held(held) => held.gather(into),
            Self::Own(own) => {
                into.clear();
                into.extend_from_slice(own.bytes());
            }
        }
    }
}

impl Table {
    /// The table's share in the cache, if a block of `len` bytes may go there.
    fn cached_for(&self, len: usize) -> Option<&Cached> {
        self.cached().filter(|_| len <= BLOCK_BYTES_MAX)
    }

    /// Whether a block of `len` bytes may go into the cache.
    pub(super) fn is_cacheable(&self, len: usize) -> bool {
        self.cached_for(len).is_some()
    }

    /// Whether a block is in the cache at this moment.
    pub(super) fn is_cached(&self, block: usize) -> bool {
        self.cached().is_some_and(|Cached { table, .. }| table.contains(block as u32))
    }

    /// Whether a block is in the cache at this moment, and was used since it came there, or since
    /// the cache last looked.
    pub(super) fn is_hot(&self, block: usize) -> bool {
        self.cached().is_some_and(|Cached { table, .. }| table.is_used(block as u32))
    }

    /// A block's content, if it is in the cache.
    pub(super) fn hold_cached(&self, place: BlockPlace) -> Option<Content> {
        let Cached { table, .. } = self.cached_for(place.len)?;
        let guard = table.cache().epochs().pin();
        let hit = table.get(&guard, place.block as u32);
        hit.map(|hit| Content::Held(hit.hold()))
    }

    /// Has the processor fetch the block that (key, tag) belongs to, if it and the
    /// index that tells are in memory.
    pub(crate) fn prefetch_entry(&self, key: &[u8], tag: Tag) {
        let Some(all) = self.pinned() else { return };
        if let Some(block) = all[self.top.partition_of(key, tag)].find(key, tag) {
            self.prefetch(block);
        }
    }

    /// Has the processor fetch a block that is wanted soon, if it is in the cache.
    pub(super) fn prefetch(&self, block: usize) {
        if let Some(Cached { table, .. }) = self.cached() {
            table.prefetch(block as u32);
        }
    }

    /// Reads a block that was not cached when the caller looked; `None` when it
    /// is now. All who miss it at once share its read. A read that fails is tried
    /// once more.
    pub(super) async fn bring<I: Io>(
        self: &Arc<Self>,
        io: &I,
        place: BlockPlace,
    ) -> Result<Option<Content>> {
        let BlockPlace { block, offset, len } = place;
        let Some(Cached { table, flights }) = self.cached_for(len) else {
            let buf = self.read(io, offset, IoBuf::zeroed(len)).await?;
            return self.verified(place, buf).map(Some);
        };
        let request = |lead: Lead<Content>| {
            let this = Arc::clone(self);
            let frame = if len == UNIT { table.frame() } else { None };
            DetachedRead {
                file: self.file().clone(),
                offset,
                buf: frame.unwrap_or_else(|| IoBuf::zeroed(len)),
                done: move |buf, result| lead.land(this.take_in(place, buf, result)),
            }
        };
        let is_there = || table.contains(block as u32);
        read_shared(io, flights, block as u32, is_there, request).await
    }

    /// Verifies a block that was read, and puts it into the cache.
    fn take_in(&self, place: BlockPlace, buf: IoBuf, result: Result<usize>) -> Result<Content> {
        let bytes = result?;
        if bytes < buf.len() {
            return Err(self.cut(place.offset + bytes as u64));
        }
        self.verified(place, buf)
    }

    /// Verifies a block that was read, and puts it into the cache, if it may go
    /// there.
    fn verified(&self, place: BlockPlace, buf: IoBuf) -> Result<Content> {
        let BlockPlace { block, offset, len } = place;
        let mut plain = Vec::new();
        let bytes = self
            .decode(&buf, offset, &mut plain)
            .map(|block| block.content().len())
            .map_err(|error| self.damage(offset, &error))?;
        let cached = self.cached_for(len);
        let is_lent = buf.is_lent();
        let own = match cached {
            Some(Cached { table, .. }) if is_lent && plain.is_empty() => {
                return Ok(Content::Held(table.insert_frame(block as u32, buf, bytes)));
            }
            _ if plain.is_empty() => Own::Read(buf, bytes),
            _ => {
                // The frame may be wanted for what it decompressed to.
                drop(buf);
                Own::Decompressed(plain)
            }
        };
        // One of one unit that got no frame to be read into gets none now.
        if let Some(Cached { table, .. }) = cached
            && (is_lent || len > UNIT)
            && let Some(held) = table.insert_copy(block as u32, own.bytes())
        {
            return Ok(Content::Held(held));
        }
        Ok(Content::Own(Arc::new(own)))
    }

    /// The block at `place` in a window of a walk, verified; its content goes
    /// into the cache if `is_kept`.
    pub(super) fn enter<'a>(
        &self,
        place: BlockPlace,
        extent: &'a [u8],
        plain: &'a mut Vec<u8>,
        is_kept: bool,
    ) -> Result<Block<'a>> {
        let entered = self.decode(extent, place.offset, plain);
        let entered = entered.map_err(|error| self.damage(place.offset, &error))?;
        if let Some(Cached { table, .. }) = self.cached_for(place.len)
            && is_kept
        {
            table.insert(place.block as u32, entered.content());
        }
        Ok(entered)
    }

    /// Puts the block at `place`, of which this is the extent, into the cache, if it may go there,
    /// as one that was used. How many bytes it has there.
    pub(super) fn enter_proven(
        &self,
        place: BlockPlace,
        extent: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<usize> {
        let entered = self.decode(extent, place.offset, plain);
        let entered = entered.map_err(|error| self.damage(place.offset, &error))?;
        let content = entered.content();
        let is_there = self
            .cached_for(place.len)
            .is_some_and(|Cached { table, .. }| table.insert_proven(place.block as u32, content));
        Ok(if is_there { content.len() } else { 0 })
    }

    /// The error for a file that ends at `offset`, within a block.
    fn cut(&self, offset: u64) -> Error {
        let reason = "the file ends before the end of a data block";
        Error::corruption(self.file().path(), offset, reason)
    }
}
