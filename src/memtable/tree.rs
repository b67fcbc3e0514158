//! The B+-tree over the entries of one memtable.
//!
//! Nodes are named by numbers and live in slabs, so that the tree is plain
//! safe code and its memory can be recycled. Leaves are linked both ways for
//! scans. A separator is the address of an entry: the one that was the first
//! of the node on its right when that was split off.

use super::arena::{Address, Arena};
use super::node::{INNER_KEYS, Inner, LEAF_KEYS, Leaf};
use super::pool::ArenaPool;
use crate::base::seq::Tag;

/// Levels of inner nodes, at most. A root is split only when it is full, and
/// then each of its children was made by at least a quarter of a node's worth
/// of splits below: 2^32 entries do not reach 9 levels.
const HEIGHT_MAX: usize = 12;

/// The number of entries that pay for one node, at least. A node is filled
/// from half, and then split once at its end (an ascending run) and once in
/// the middle, at most, before half of it must be filled again.
const ENTRIES_PER_LEAF: usize = (LEAF_KEYS / 2 - 1) / 2;
const CHILDREN_PER_INNER: usize = (INNER_KEYS / 2 - 1) / 2;

/// The bytes of nodes that an entry pays for: its share of a leaf and that of
/// the inner nodes above, whose levels shrink by `CHILDREN_PER_INNER` each.
pub(super) const BYTES_PER_ENTRY: usize = size_of::<Leaf>().div_ceil(ENTRIES_PER_LEAF)
    + size_of::<Inner>().div_ceil(ENTRIES_PER_LEAF * (CHILDREN_PER_INNER - 1));

/// What the first leaf and the path to it add.
#[cfg(test)]
pub(super) const BYTES_BASE: usize = size_of::<Leaf>() + HEIGHT_MAX * size_of::<Inner>();

/// A place in the tree: an entry, or one of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// [`Leaf::NONE`] at both ends.
    leaf: u32,
    slot: u32,
}

impl Place {
    const BEFORE_FIRST: Self = Self { leaf: Leaf::NONE, slot: 0 };
    const PAST_LAST: Self = Self { leaf: Leaf::NONE, slot: 1 };
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Tree {
    /// Leaf 0 is the first in order: splits make right neighbours only.
    leaves: Slab<Leaf>,
    inners: Slab<Inner>,
    /// An inner node, or the only leaf at height 0.
    root: u32,
    height: usize,
    last_leaf: u32,
}

/// How a search went down: each inner node and the number of the child taken.
struct Path {
    steps: [(u32, usize); HEIGHT_MAX],
    len: usize,
}

impl Tree {
    pub(super) fn insert(
        &mut self,
        pool: &ArenaPool,
        arena: &Arena,
        address: Address,
        key: &[u8],
        tag: Tag,
    ) {
        if self.leaves.len() == 0 {
            self.root = self.leaves.push(Leaf::new(), || pool.take_leaves());
        }
        let mut path = Path { steps: [(0, 0); HEIGHT_MAX], len: 0 };
        let mut node = self.root;
        for _ in 0..self.height {
            let inner = self.inners.get(node);
            let child = inner.separators.count_below(arena, key, tag);
            path.steps[path.len] = (node, child);
            path.len += 1;
            node = inner.children[child];
        }
        let leaf = self.leaves.get_mut(node);
        let slot = leaf.keys.count_below(arena, key, tag);
        debug_assert!(
            slot == leaf.keys.len() || arena.key_and_tag(leaf.keys.address(slot)) != (key, tag),
            "the memtable has this key with this tag already"
        );
        if leaf.keys.is_full() {
            self.split_leaf(pool, arena, &path, (node, slot), (address, key));
        } else {
            leaf.insert(arena, slot, address, key);
        }
    }

    /// Splits a full leaf around the insert of an entry into one of its slots.
    fn split_leaf(
        &mut self,
        pool: &ArenaPool,
        arena: &Arena,
        path: &Path,
        (left_id, slot): (u32, usize),
        (address, key): (Address, &[u8]),
    ) {
        let (low, high) = self.fences(&path.steps[..path.len]);
        let left = self.leaves.get_mut(left_id);
        let is_run = left.is_run(slot);
        let at = if is_run { LEAF_KEYS } else { LEAF_KEYS / 2 };
        let mut right = left.split_off(at);
        if is_run || slot > at {
            right.insert(arena, slot - at, address, key);
        } else {
            left.insert(arena, slot, address, key);
        }
        let separator = right.keys.address(0);
        left.keys.set_fences(arena, low, Some(separator));
        right.keys.set_fences(arena, Some(separator), high);

        let next = left.next;
        (right.prev, right.next) = (left_id, next);
        let right_id = self.leaves.push(right, || pool.take_leaves());
        self.leaves.get_mut(left_id).next = right_id;
        if next == Leaf::NONE {
            self.last_leaf = right_id;
        } else {
            self.leaves.get_mut(next).prev = right_id;
        }
        self.insert_child(pool, arena, path, (separator, right_id), is_run);
    }

    /// Makes a new node known to its parent, splitting upwards as needed.
    fn insert_child(
        &mut self,
        pool: &ArenaPool,
        arena: &Arena,
        path: &Path,
        (mut separator, mut child): (Address, u32),
        is_run: bool,
    ) {
        for depth in (0..path.len).rev() {
            let (left_id, slot) = path.steps[depth];
            let (low, high) = self.fences(&path.steps[..depth]);
            let left = self.inners.get_mut(left_id);
            if !left.separators.is_full() {
                left.insert(arena, slot, separator, child);
                return;
            }
            // A run leaves the left node full, and the new child, alone, is
            // the start of the right one.
            let right;
            (separator, right) = if is_run && slot == INNER_KEYS {
                (separator, Inner::new(child))
            } else {
                let at = INNER_KEYS / 2;
                let (middle, mut right) = left.split_off(at);
                if slot <= at {
                    left.insert(arena, slot, separator, child);
                } else {
                    right.insert(arena, slot - at - 1, separator, child);
                }
                (middle, right)
            };
            let mut right = right;
            left.separators.set_fences(arena, low, Some(separator));
            right.separators.set_fences(arena, Some(separator), high);
            child = self.inners.push(right, || pool.take_inners());
        }
        assert!(self.height < HEIGHT_MAX, "the memtable's tree is too high");
        let mut root = Inner::new(self.root);
        root.insert(arena, 0, separator, child);
        self.root = self.inners.push(root, || pool.take_inners());
        self.height += 1;
    }

    /// The separators on both sides of the node that the steps lead to.
    fn fences(&self, steps: &[(u32, usize)]) -> (Option<Address>, Option<Address>) {
        let (mut low, mut high) = (None, None);
        for &(node, child) in steps {
            let separators = &self.inners.get(node).separators;
            if child > 0 {
                low = Some(separators.address(child - 1));
            }
            if child < separators.len() {
                high = Some(separators.address(child));
            }
        }
        (low, high)
    }

    /// The first entry at or after (key, tag). A search for a separator itself
    /// ends on its left, from where the next leaf starts with it.
    pub(super) fn lower_bound(&self, arena: &Arena, key: &[u8], tag: Tag) -> Place {
        if self.leaves.len() == 0 {
            return Place::PAST_LAST;
        }
        let mut node = self.root;
        for _ in 0..self.height {
            let inner = self.inners.get(node);
            node = inner.children[inner.separators.count_below(arena, key, tag)];
        }
        let leaf = self.leaves.get(node);
        let slot = leaf.keys.count_below(arena, key, tag);
        if slot < leaf.keys.len() {
            Place { leaf: node, slot: slot as u32 }
        } else {
            Self::start_of(leaf.next)
        }
    }

    /// The first entry at or after (key, tag), if it may be of that key. Most
    /// keys that are absent are told by their heads, without a look at any
    /// entry.
    pub(super) fn find(&self, arena: &Arena, key: &[u8], tag: Tag) -> Option<Address> {
        let at = self.lower_bound(arena, key, tag);
        if at.leaf == Leaf::NONE {
            return None;
        }
        self.leaves.get(at.leaf).keys.address_of(at.slot as usize, key)
    }

    /// The entry there, unless it is an end.
    pub(super) fn address(&self, at: Place) -> Option<Address> {
        (at.leaf != Leaf::NONE).then(|| self.leaves.get(at.leaf).keys.address(at.slot as usize))
    }

    pub(super) fn first(&self) -> Place {
        if self.leaves.len() == 0 { Place::PAST_LAST } else { Self::start_of(0) }
    }

    pub(super) fn last(&self) -> Place {
        if self.leaves.len() == 0 { Place::BEFORE_FIRST } else { self.end_of(self.last_leaf) }
    }

    pub(super) fn next(&self, at: Place) -> Place {
        if at == Place::BEFORE_FIRST {
            return self.first();
        }
        if at == Place::PAST_LAST {
            return at;
        }
        let leaf = self.leaves.get(at.leaf);
        if (at.slot as usize) + 1 < leaf.keys.len() {
            Place { slot: at.slot + 1, ..at }
        } else {
            Self::start_of(leaf.next)
        }
    }

    pub(super) fn prev(&self, at: Place) -> Place {
        if at == Place::PAST_LAST {
            return self.last();
        }
        if at == Place::BEFORE_FIRST {
            return at;
        }
        if at.slot > 0 {
            Place { slot: at.slot - 1, ..at }
        } else {
            self.end_of(self.leaves.get(at.leaf).prev)
        }
    }

    /// The first entry of a leaf (no leaf is empty), or the end for none.
    fn start_of(leaf: u32) -> Place {
        if leaf == Leaf::NONE { Place::PAST_LAST } else { Place { leaf, slot: 0 } }
    }

    fn end_of(&self, leaf: u32) -> Place {
        if leaf == Leaf::NONE {
            return Place::BEFORE_FIRST;
        }
        Place { leaf, slot: self.leaves.get(leaf).keys.len() as u32 - 1 }
    }

    /// Bytes of the nodes in use.
    pub(super) fn used_bytes(&self) -> usize {
        self.leaves.len() * size_of::<Leaf>() + self.inners.len() * size_of::<Inner>()
    }

    /// Bytes of all memory that the tree owns.
    pub(super) fn held_bytes(&self) -> usize {
        self.leaves.held_bytes() + self.inners.held_bytes()
    }

    /// Leaves the tree empty and returns its memory.
    pub(super) fn take_slabs(&mut self) -> (Vec<Vec<Leaf>>, Vec<Vec<Inner>>) {
        let tree = std::mem::take(self);
        (tree.leaves.slabs, tree.inners.slabs)
    }
}

/// Nodes by number, in slabs that never grow: no insert has to copy them all.
pub(super) struct Slab<T> {
    slabs: Vec<Vec<T>>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slabs: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Nodes in a slab.
    pub(super) const NODES: usize = 32;
    /// The size of a slab.
    pub(super) const BYTES: usize = Self::NODES * size_of::<T>();

    fn len(&self) -> usize {
        match self.slabs.last() {
            None => 0,
            Some(last) => (self.slabs.len() - 1) * Self::NODES + last.len(),
        }
    }

    #[inline]
    fn get(&self, id: u32) -> &T {
        &self.slabs[id as usize / Self::NODES][id as usize % Self::NODES]
    }

    #[inline]
    fn get_mut(&mut self, id: u32) -> &mut T {
        &mut self.slabs[id as usize / Self::NODES][id as usize % Self::NODES]
    }

    fn push(&mut self, node: T, take: impl FnOnce() -> Vec<T>) -> u32 {
        let id = self.len();
        assert!(id < Leaf::NONE as usize);
        match self.slabs.last_mut() {
            Some(last) if last.len() < Self::NODES => last.push(node),
            _ => {
                let mut slab = take();
                debug_assert!(slab.is_empty() && slab.capacity() == Self::NODES);
                slab.push(node);
                self.slabs.push(slab);
            }
        }
        id as u32
    }

    fn held_bytes(&self) -> usize {
        self.slabs.len() * Self::BYTES + self.slabs.capacity() * size_of::<Vec<T>>()
    }
}
