//! The nodes of the tree, and how a key finds its place within one.
//!
//! A node orders addresses of entries. So that a search seldom has to look at
//! the entries themselves, which lie scattered over the arena, the node keeps
//! the *head* of each key in an array: the eight bytes that follow a prefix
//! which all its keys share, as one big-endian number, padded with zeros.
//! Heads order like the keys, but two keys may have the same head: they are
//! then compared in full. (A zero-padded head of a short key may be equal to
//! that of a longer one; that too is "the same head".)
//!
//! A node also has *fences*: the separators in its ancestors on its left and
//! right. Whatever key a search brings here lies between them, hence starts
//! with what they have in common, without a look at any entry. Only when the
//! node's own keys have much more in common than its fences (a run of keys
//! beside another table's, or a node at the edge of the tree, without a fence)
//! is its prefix longer than that and checked, against its first entry.

use std::cmp::Ordering;

use crate::base::keys::head;
use crate::base::seq::{Tag, compare_internal};

use super::arena::{Address, Arena};

/// Entries in a leaf.
pub(super) const LEAF_KEYS: usize = 64;

/// Separators in an inner node.
pub(super) const INNER_KEYS: usize = 64;

/// Heads in a cache line: the two steps of a search.
const BLOCK: usize = 8;

/// A longer prefix must save this many bytes of the head, else it is not
/// worth reading every key again for new heads, or an entry for the check.
const PREFIX_GAIN_MIN: usize = 4;

/// What a head slot holds that is not in use: no head is larger.
const HEAD_UNUSED: u64 = u64::MAX;

/// A head, and the entry that it belongs to: on one cache line or two that
/// lie side by side, because an array of addresses beside one of heads costs a
/// search another miss. The halves of the head keep it at 12 bytes.
#[derive(Clone, Copy)]
struct Slot {
    head: [u32; 2],
    address: Address,
}

impl Slot {
    fn new(head: u64, address: Address) -> Self {
        Self { head: [head as u32, (head >> 32) as u32], address }
    }

    #[inline]
    fn head(&self) -> u64 {
        u64::from(self.head[1]) << 32 | u64::from(self.head[0])
    }
}

/// An ordered array of at most `N` internal keys.
#[derive(Clone)]
#[repr(C)]
pub(super) struct Keys<const N: usize> {
    /// Those that are not in use have the head [`HEAD_UNUSED`].
    slots: [Slot; N],
    len: u16,
    /// All keys share this many bytes; the heads follow them.
    prefix_len: u16,
    /// At most what the fences share: every key searched for here has these
    /// bytes too. 0 without a fence on either side.
    fence_len: u16,
}

impl<const N: usize> Keys<N> {
    pub(super) fn new() -> Self {
        const { assert!(N.is_multiple_of(BLOCK) && N <= u16::MAX as usize) };
        Self {
            slots: [Slot::new(HEAD_UNUSED, Address::default()); N],
            len: 0,
            prefix_len: 0,
            fence_len: 0,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == N
    }

    #[inline]
    pub(super) fn address(&self, slot: usize) -> Address {
        debug_assert!(slot < self.len());
        self.slots[slot].address
    }

    /// The entry in `slot`, if it may be of this key: if the heads are equal.
    #[inline]
    pub(super) fn address_of(&self, slot: usize, key: &[u8]) -> Option<Address> {
        let prefix_len = usize::from(self.prefix_len);
        let slot = &self.slots[slot];
        let same = key.len() >= prefix_len && head(&key[prefix_len..]) == slot.head();
        same.then_some(slot.address)
    }

    /// How many keys of the node are below (key, tag).
    #[inline]
    pub(super) fn count_below(&self, arena: &Arena, key: &[u8], tag: Tag) -> usize {
        match self.compare_prefix(arena, key) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.len(),
            Ordering::Equal => {}
        }
        let prefix_len = usize::from(self.prefix_len);
        let head = head(&key[prefix_len..]);
        let slot = self.count_heads_below(head);
        if slot >= self.len() || self.slots[slot].head() != head {
            return slot;
        }
        let (mut low, mut high) = (slot, self.end_of_head(slot));
        while low < high {
            let middle = low.midpoint(high);
            let (other, other_tag) = arena.key_and_tag(self.slots[middle].address);
            let other = (&other[prefix_len..], other_tag);
            if compare_internal(other, (&key[prefix_len..], tag)).is_lt() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// How many heads are below `head`: whole blocks by their last head, then
    /// within one block. The loads of a step do not wait for one another, so
    /// that a cold node costs two waits for memory, not the six of a binary
    /// search; and there is no branch to mispredict.
    #[inline]
    fn count_heads_below(&self, head: u64) -> usize {
        let (blocks, _) = self.slots.as_chunks::<BLOCK>();
        let mut full = 0;
        for block in blocks {
            full += usize::from(block[BLOCK - 1].head() < head);
        }
        let Some(block) = blocks.get(full) else {
            return N;
        };
        let mut below = full * BLOCK;
        for slot in block {
            below += usize::from(slot.head() < head);
        }
        below
    }

    /// The slot after the last with the same head as `slot`: mostly the next.
    #[inline]
    fn end_of_head(&self, slot: usize) -> usize {
        let head = self.slots[slot].head();
        match self.slots[..self.len()].get(slot + 1) {
            Some(next) if next.head() == head => match head.checked_add(1) {
                Some(above) => self.count_heads_below(above),
                None => self.len(),
            },
            _ => slot + 1,
        }
    }

    /// Where the key lies against the prefix of the node: `Equal` when it
    /// shares it, otherwise on that side of all keys.
    #[inline]
    fn compare_prefix(&self, arena: &Arena, key: &[u8]) -> Ordering {
        debug_assert!(key.len() >= usize::from(self.fence_len));
        if self.prefix_len <= self.fence_len {
            return Ordering::Equal;
        }
        let (from, to) = (usize::from(self.fence_len), usize::from(self.prefix_len));
        let prefix = &arena.key(self.slots[0].address)[from..to];
        key[from..to.min(key.len())].cmp(prefix)
    }

    /// Puts the key of the entry at `address` into `slot`.
    pub(super) fn insert(&mut self, arena: &Arena, slot: usize, address: Address, key: &[u8]) {
        let len = self.len();
        assert!(len < N && slot <= len);
        if len == 0 {
            self.prefix_len = self.best_prefix_len(key.len());
        } else if self.compare_prefix(arena, key).is_ne() {
            let shared_len = common_prefix(key, arena.key(self.slots[0].address));
            self.set_prefix(arena, self.best_prefix_len(shared_len));
        }
        self.slots.copy_within(slot..len, slot + 1);
        self.slots[slot] = Slot::new(head(&key[usize::from(self.prefix_len)..]), address);
        self.len += 1;
    }

    /// Moves the keys from slot `at` on to a new node.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let moved = self.len() - at;
        let mut right = Self::new();
        right.slots[..moved].copy_from_slice(&self.slots[at..][..moved]);
        right.len = moved as u16;
        right.prefix_len = self.prefix_len;
        right.fence_len = self.fence_len;
        self.truncate(at);
        right
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.slots[len..].fill(Slot::new(HEAD_UNUSED, Address::default()));
        self.len = len as u16;
    }

    /// Takes note of the node's fences after a split: they may allow for a
    /// longer prefix, and for a prefix that needs no check.
    pub(super) fn set_fences(
        &mut self,
        arena: &Arena,
        low: Option<Address>,
        high: Option<Address>,
    ) {
        let checked = self.prefix_len > self.fence_len;
        let len = self.len();
        let heads_differ_early = len > 0
            && (self.slots[0].head() ^ self.slots[len - 1].head()).leading_zeros()
                < 8 * PREFIX_GAIN_MIN as u32;
        if heads_differ_early && !checked {
            return;
        }
        if let (Some(low), Some(high)) = (low, high) {
            let fence_len = common_prefix(arena.key(low), arena.key(high));
            debug_assert!(fence_len >= usize::from(self.fence_len));
            self.fence_len = fence_len as u16;
        }
        if len == 0 {
            self.prefix_len = self.fence_len;
        } else if !heads_differ_early {
            let (first, last) = (self.slots[0].address, self.slots[len - 1].address);
            let shared_len = common_prefix(arena.key(first), arena.key(last));
            let prefix_len = self.best_prefix_len(shared_len);
            if usize::from(prefix_len) >= usize::from(self.prefix_len) + PREFIX_GAIN_MIN {
                self.set_prefix(arena, prefix_len);
            }
        }
    }

    /// The prefix for keys that share `shared_len` bytes: what the fences
    /// share, unless more pays for the check.
    fn best_prefix_len(&self, shared_len: usize) -> u16 {
        if shared_len >= usize::from(self.fence_len) + PREFIX_GAIN_MIN {
            shared_len as u16
        } else {
            self.fence_len
        }
    }

    fn set_prefix(&mut self, arena: &Arena, prefix_len: u16) {
        self.prefix_len = prefix_len;
        let len = self.len();
        for slot in &mut self.slots[..len] {
            let key = arena.key(slot.address);
            *slot = Slot::new(head(&key[usize::from(prefix_len)..]), slot.address);
        }
    }
}

/// A leaf: entries, and the neighbours on both sides.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct Leaf {
    pub(super) keys: Keys<LEAF_KEYS>,
    /// [`Leaf::NONE`] at the ends.
    pub(super) next: u32,
    pub(super) prev: u32,
    /// The slot after that of the last insert, when nothing was split since:
    /// the next insert of an ascending run goes there.
    run_slot: u16,
}

impl Leaf {
    /// No leaf.
    pub(super) const NONE: u32 = u32::MAX;
    const NO_RUN: u16 = u16::MAX;

    pub(super) fn new() -> Self {
        Self { keys: Keys::new(), next: Self::NONE, prev: Self::NONE, run_slot: Self::NO_RUN }
    }

    pub(super) fn insert(&mut self, arena: &Arena, slot: usize, address: Address, key: &[u8]) {
        self.keys.insert(arena, slot, address, key);
        self.run_slot = slot as u16 + 1;
    }

    /// Whether an insert at `slot` continues an ascending run at the leaf's end.
    pub(super) fn is_run(&self, slot: usize) -> bool {
        slot == self.keys.len() && slot == usize::from(self.run_slot)
    }

    /// Moves the keys from slot `at` on to a new leaf.
    ///
    /// It forgets the run: an insert at the end of a leaf that stayed full
    /// must now split it in the middle. Otherwise a *descending* run, all of
    /// which ends up there, would make a leaf for every entry.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        self.run_slot = Self::NO_RUN;
        Self { keys: self.keys.split_off(at), ..Self::new() }
    }
}

/// An inner node: separators and one child more. Child `i` holds what is at or
/// above separator `i - 1` and below separator `i`.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct Inner {
    pub(super) separators: Keys<INNER_KEYS>,
    pub(super) children: [u32; INNER_KEYS + 1],
}

impl Inner {
    pub(super) fn new(first_child: u32) -> Self {
        let mut children = [0; INNER_KEYS + 1];
        children[0] = first_child;
        Self { separators: Keys::new(), children }
    }

    /// Puts a separator into `slot` and the child on its right after it.
    pub(super) fn insert(&mut self, arena: &Arena, slot: usize, separator: Address, child: u32) {
        let children = self.separators.len() + 1;
        self.separators.insert(arena, slot, separator, arena.key(separator));
        self.children.copy_within(slot + 1..children, slot + 2);
        self.children[slot + 1] = child;
    }

    /// Takes the separator in slot `at` out and moves what is on its right to
    /// a new node.
    pub(super) fn split_off(&mut self, at: usize) -> (Address, Self) {
        let separator = self.separators.address(at);
        let mut right = Self::new(0);
        let moved = self.separators.len() - at;
        right.separators = self.separators.split_off(at + 1);
        right.children[..moved].copy_from_slice(&self.children[at + 1..][..moved]);
        self.separators.truncate(at);
        (separator, right)
    }
}

/// How many bytes the two keys have in common at their start.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 16;
    let steps = a.chunks_exact(STEP).zip(b.chunks_exact(STEP));
    let start = STEP * steps.take_while(|(a, b)| a == b).count();
    start + a[start..].iter().zip(&b[start..]).take_while(|(a, b)| a == b).count()
}
