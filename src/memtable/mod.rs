//! The memtable: an ordered multi-version map from internal keys (key, tag) to
//! values, for the writes that no table holds yet.
//!
//! While it is mutable it stands behind its shard's lock; once full it is
//! immutable and read through an `Arc` without a lock. Entries are written once
//! into an [`arena`] and never move or change; a B+-tree ([`tree`], [`node`])
//! orders their addresses. The memory of both comes from an [`ArenaPool`] and
//! goes back to it, because first touches of fresh pages cost more than the
//! insertion itself. Range tombstones are kept beside the entries, fragmented
//! ([`RangeTombstones`]).
//!
//! It relies on `base` alone: no I/O, no clock, no lock but the pool's.
#![allow(
    unreachable_pub,
    reason = "public only under the feature `bench-internals`, for benches/memtable.rs"
)]

mod arena;
mod node;
mod pool;
mod tree;

#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::sync::Arc;

use crate::base::ranges::RangeTombstones;
use crate::base::seq::{Kind, SeqNo, Tag};
use crate::format::value::Reference;

use arena::Arena;
pub use pool::ArenaPool;
use tree::Tree;

/// A value on its way into the memtable.
pub enum Payload<'a> {
    /// Copied into the arena.
    Inline(&'a [u8]),
    /// A long value that the caller allocated before it took the shard's lock,
    /// so that no long copy happens under the lock.
    Shared(Arc<[u8]>),
}

impl Payload<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline(value) => value,
            Self::Shared(value) => value,
        }
    }
}

/// A value in the memtable.
pub enum ValueRef<'a> {
    /// It lies in the arena.
    Inline(&'a [u8]),
    /// It can outlive the memtable: clone the `Arc` instead of the bytes.
    Shared(&'a Arc<[u8]>),
}

impl Deref for ValueRef<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// One version of one key.
pub struct Entry<'a> {
    /// The user's key.
    pub key: &'a [u8],
    /// Sequence number and kind.
    pub tag: Tag,
    /// The value; empty for a tombstone.
    pub value: ValueRef<'a>,
}

/// A place in a memtable, for scans: an entry, before the first, or past the
/// last. Using one after a later insert is a bug, and panics: seek again.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    place: tree::Place,
    /// How many entries the memtable had when the position was made.
    entries: u32,
}

/// Fragments of range tombstones with which a memtable is full: a copy of them
/// takes tens of microseconds.
const RANGES_MAX: usize = 512;

/// The same of their sequence numbers: the same range may be deleted again and
/// again, and each time all of them are copied.
const RANGE_NUMBERS_MAX: usize = 8192;

/// The ordered map; see the module's text.
pub struct Memtable {
    pool: Arc<ArenaPool>,
    arena: Arena,
    tree: Tree,
    entries: u32,
    light: u32,
    referenced_bytes: u64,
    seq_range: Option<(SeqNo, SeqNo)>,
    /// Shared with scans: who changes them while one goes on changes a copy.
    ranges: Arc<RangeTombstones>,
}

impl Memtable {
    /// An empty memtable. It takes memory from the pool at the first insert.
    pub fn new(pool: &Arc<ArenaPool>) -> Self {
        Self {
            pool: Arc::clone(pool),
            arena: Arena::default(),
            tree: Tree::default(),
            entries: 0,
            light: 0,
            referenced_bytes: 0,
            seq_range: None,
            ranges: Arc::default(),
        }
    }

    /// Adds one version of a key, or a range tombstone, whose key is the start
    /// and whose value is the end of its range. No two inserts may have the same
    /// key and tag; sequence numbers may come in any order.
    ///
    /// # Panics
    ///
    /// When the key is longer than `KEY_BYTES_MAX`, or an inline value longer
    /// than `INLINE_VALUE_BYTES_MAX`.
    pub fn insert(&mut self, key: &[u8], tag: Tag, value: Payload<'_>) {
        let seq = tag.seq();
        if tag.kind() == Some(Kind::RangeDelete) {
            Arc::make_mut(&mut self.ranges).insert(key, value.bytes(), seq);
        } else {
            match tag.kind() {
                Some(Kind::Delete) => self.light += 1,
                Some(Kind::Indirect) => {
                    self.light += 1;
                    let reference = Reference::decode(value.bytes());
                    self.referenced_bytes += reference.map_or(0, |to| to.len as u64);
                }
                _ => {}
            }
            let address = self.arena.push(&self.pool, key, tag, value);
            self.tree.insert(&self.pool, &self.arena, address, key, tag);
            self.entries += 1;
        }
        self.seq_range = Some(match self.seq_range {
            None => (seq, seq),
            Some((least, most)) => (least.min(seq), most.max(seq)),
        });
    }

    /// What is newest with a sequence number of at most `bound`: a version of the
    /// key, or a range tombstone that covers it, whose key is where its fragment
    /// starts.
    pub fn get(&self, key: &[u8], bound: SeqNo) -> Option<Entry<'_>> {
        let address = self.tree.find(&self.arena, key, Tag::visible_at(bound));
        let address = address.filter(|&address| self.arena.key(address) == key);
        let entry = address.map(|address| self.arena.entry(address));
        if self.ranges.is_empty() {
            return entry;
        }
        let deleted = self.ranges.covering(key).and_then(|fragment| {
            let tag = Tag::new(fragment.visible(bound)?, Kind::RangeDelete);
            Some(Entry { key: &fragment.start, tag, value: ValueRef::Inline(b"") })
        });
        match (entry, deleted) {
            (Some(entry), Some(deleted)) if entry.tag < deleted.tag => Some(deleted),
            (None, deleted) => deleted,
            (entry, _) => entry,
        }
    }

    /// Whether it has so many range tombstones that it had better be replaced:
    /// while a scan holds them, the next one is added to a copy.
    pub(crate) fn has_many_ranges(&self) -> bool {
        self.ranges.len() >= RANGES_MAX || self.ranges.numbers() >= RANGE_NUMBERS_MAX
    }

    /// How many entries hide more than they take themselves: tombstones, and
    /// references to long values.
    pub(crate) fn light_entries(&self) -> u32 {
        self.light
    }

    /// The bytes of the long values that its entries refer to, overwritten ones
    /// included.
    pub(crate) fn referenced_bytes(&self) -> u64 {
        self.referenced_bytes
    }

    /// The range tombstones.
    pub(crate) fn ranges(&self) -> &Arc<RangeTombstones> {
        &self.ranges
    }

    /// The memory held, in bytes: chunks, nodes, shared values and
    /// bookkeeping, used or not.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.arena.held_bytes() + self.tree.held_bytes() + self.ranges.bytes()
    }

    /// The bytes of entries, nodes and range tombstones in use: what is compared
    /// with the memtable's size limit. An empty memtable uses none.
    pub fn used_bytes(&self) -> usize {
        self.arena.used_bytes() + self.tree.used_bytes() + self.ranges.bytes()
    }

    /// What [`Self::used_bytes`] grows by for such an entry, at most, whether
    /// the value is inline or shared. Nodes come several entries at a time:
    /// the bound holds for the sum over all entries plus a constant for the
    /// first nodes. Not for range tombstones: each may split all others.
    pub fn entry_bytes(key_len: usize, value_len: usize) -> usize {
        arena::entry_bytes_max(key_len, value_len) + tree::BYTES_PER_ENTRY
    }

    /// The constant that [`Self::entry_bytes`] speaks of.
    #[cfg(test)]
    pub const USED_BYTES_BASE: usize = tree::BYTES_BASE;

    /// How many entries there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries as usize
    }

    /// Whether nothing was inserted yet.
    pub fn is_empty(&self) -> bool {
        self.entries == 0 && self.ranges.is_empty()
    }

    /// The smallest and the largest sequence number inserted.
    pub fn seq_range(&self) -> Option<(SeqNo, SeqNo)> {
        self.seq_range
    }

    /// The first entry at or after (key, tag) in internal order.
    pub fn lower_bound(&self, key: &[u8], tag: Tag) -> Position {
        self.position(self.tree.lower_bound(&self.arena, key, tag))
    }

    /// The first entry.
    pub fn first(&self) -> Position {
        self.position(self.tree.first())
    }

    /// The last entry.
    pub fn last(&self) -> Position {
        self.position(self.tree.last())
    }

    /// The entry there; `None` before the first and past the last.
    pub fn entry(&self, at: Position) -> Option<Entry<'_>> {
        let address = self.tree.address(self.place(at))?;
        Some(self.arena.entry(address))
    }

    /// One further; past the last, the same position again.
    pub fn next(&self, at: Position) -> Position {
        self.position(self.tree.next(self.place(at)))
    }

    /// One back; before the first, the same position again.
    pub fn prev(&self, at: Position) -> Position {
        self.position(self.tree.prev(self.place(at)))
    }

    fn position(&self, place: tree::Place) -> Position {
        Position { place, entries: self.entries }
    }

    fn place(&self, at: Position) -> tree::Place {
        assert_eq!(at.entries, self.entries, "a memtable position outlived an insert");
        at.place
    }
}

impl Drop for Memtable {
    fn drop(&mut self) {
        let chunks = self.arena.take_chunks();
        let (leaves, inners) = self.tree.take_slabs();
        self.pool.give(chunks, leaves, inners);
    }
}
