//! The pool: memory of dropped memtables, kept for the next ones.
//!
//! It is shared by all memtables of a database and holds at most
//! `kept_bytes_max` bytes; what comes back beyond that is freed.

use std::sync::Arc;

use crate::base::sync::Mutex;
use crate::io::Pages;

use super::arena::CHUNK_BYTES;
use super::node::{Inner, Leaf};
use super::tree::Slab;

/// Recycles chunks and nodes between memtables.
pub struct ArenaPool {
    kept_bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    bytes: usize,
    chunks: Vec<Pages>,
    leaves: Vec<Vec<Leaf>>,
    inners: Vec<Vec<Inner>>,
}

impl ArenaPool {
    /// A pool that keeps at most so many bytes.
    pub fn new(kept_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { kept_bytes_max, kept: Mutex::default() })
    }

    /// The bytes of the chunks and nodes kept now: memory that no memtable holds.
    pub fn kept_bytes(&self) -> usize {
        self.kept.lock().bytes
    }

    /// A chunk of [`CHUNK_BYTES`] bytes with any content.
    pub(super) fn take_chunk(&self) -> Pages {
        let mut kept = self.kept.lock();
        match kept.chunks.pop() {
            Some(chunk) => {
                kept.bytes -= CHUNK_BYTES;
                chunk
            }
            None => {
                drop(kept);
                Pages::zeroed(CHUNK_BYTES)
            }
        }
    }

    /// Room for [`Slab::NODES`] leaves.
    pub(super) fn take_leaves(&self) -> Vec<Leaf> {
        let mut kept = self.kept.lock();
        let slab = kept.leaves.pop();
        kept.bytes -= slab.as_ref().map_or(0, |_| Slab::<Leaf>::BYTES);
        drop(kept);
        slab.unwrap_or_else(|| Vec::with_capacity(Slab::<Leaf>::NODES))
    }

    /// Room for [`Slab::NODES`] inner nodes.
    pub(super) fn take_inners(&self) -> Vec<Inner> {
        let mut kept = self.kept.lock();
        let slab = kept.inners.pop();
        kept.bytes -= slab.as_ref().map_or(0, |_| Slab::<Inner>::BYTES);
        drop(kept);
        slab.unwrap_or_else(|| Vec::with_capacity(Slab::<Inner>::NODES))
    }

    /// Takes the memory of a memtable back.
    pub(super) fn give(
        &self,
        mut chunks: Vec<Pages>,
        mut leaves: Vec<Vec<Leaf>>,
        mut inners: Vec<Vec<Inner>>,
    ) {
        leaves.iter_mut().for_each(Vec::clear);
        inners.iter_mut().for_each(Vec::clear);
        let mut kept = self.kept.lock();
        let Kept { bytes, chunks: kept_chunks, leaves: kept_leaves, inners: kept_inners } =
            &mut *kept;
        let mut room = self.kept_bytes_max - *bytes;
        keep(&mut inners, kept_inners, Slab::<Inner>::BYTES, &mut room);
        keep(&mut leaves, kept_leaves, Slab::<Leaf>::BYTES, &mut room);
        keep(&mut chunks, kept_chunks, CHUNK_BYTES, &mut room);
        *bytes = self.kept_bytes_max - room;
        // What was not kept is freed after the lock.
        drop(kept);
    }
}

fn keep<T>(from: &mut Vec<T>, to: &mut Vec<T>, item_bytes: usize, room: &mut usize) {
    let kept = from.len().min(*room / item_bytes);
    *room -= kept * item_bytes;
    to.extend(from.drain(from.len() - kept..));
}
