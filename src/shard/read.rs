//! Point reads.
//!
//! Under the shard's lock: the mutable memtable, and a copy of the view.
//! Without it: immutable memtables, filters, cached blocks, and only then the
//! device.

use std::cell::RefCell;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::hash::KeyHash;
use crate::base::ids::ShardId;
use crate::base::seq::{Kind, SeqNo};
use crate::io::Io;
use crate::lsm::{InLevels, Lookup, Place, View};
use crate::memtable::{Entry, ValueRef};
use crate::shard::engine::Engine;
use crate::sst::TableEntry;

/// A value that was found.
pub(crate) enum Found<'a> {
    /// Valid for the call.
    Bytes(&'a [u8]),
    /// Shared with a memtable.
    Shared(Arc<[u8]>),
    /// For the caller alone.
    Own(Box<[u8]>),
}

thread_local! {
    /// Short values are copied here under the lock, so that nothing of the
    /// caller's runs there, and nothing is allocated.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What the look under the lock came to.
enum Looked {
    /// The value is in the scratch buffer.
    Copied,
    Shared(Arc<[u8]>),
    Deleted,
    Absent(Arc<View>, SeqNo),
}

/// What a look into memory came to.
pub(crate) enum InMemory<R> {
    /// The newest visible value, if there is one, as it was visited.
    Known(Option<R>),
    /// It depends on a block that is not in memory.
    Unknown(Unknown),
}

/// A key about which nothing in memory decides.
pub(crate) struct Unknown {
    shard: ShardId,
    view: Arc<View>,
    hash: KeyHash,
    bound: SeqNo,
    missing: Place,
}

impl Unknown {
    /// The shard the key is of.
    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }
}

impl Engine {
    /// Calls `visit` with the newest visible value of the key, if there is one.
    pub(crate) async fn get<I: Io, R>(
        &self,
        io: &I,
        key: &[u8],
        visit: impl FnOnce(Found<'_>) -> R,
    ) -> Result<Option<R>> {
        let mut visit = Some(visit);
        match self.get_in_memory(key, &mut visit)? {
            InMemory::Known(known) => Ok(known),
            InMemory::Unknown(unknown) => {
                let entry = self.get_in_tables(io, key, &unknown).await?;
                Ok(entry.and_then(|entry| Some(visit.take()?(Found::Own(entry.value)))))
            }
        }
    }

    /// Looks into the memtables, and as far as need be into what is in memory of
    /// the tables. `visit` is taken, and called with the value, if there is one.
    pub(crate) fn get_in_memory<R, F: FnOnce(Found<'_>) -> R>(
        &self,
        key: &[u8],
        visit: &mut Option<F>,
    ) -> Result<InMemory<R>> {
        let hash = self.hash(key);
        let shard = self.shard(self.shard_of(hash));
        let mut scratch = SCRATCH.take();
        let looked = {
            let state = shard.lock();
            if state.closed {
                return Err(Error::closed());
            }
            let bound = state.published.visible();
            match state.mutable.get(key, bound) {
                Some(entry) => look(&entry, &mut scratch),
                None => Looked::Absent(Arc::clone(&state.view), bound),
            }
        };
        let known = match looked {
            Looked::Copied => visit.take().map(|visit| visit(Found::Bytes(&scratch))),
            Looked::Shared(value) => visit.take().map(|visit| visit(Found::Shared(value))),
            Looked::Deleted => None,
            Looked::Absent(view, bound) => {
                if let Some(entry) = view.get_frozen(key, bound) {
                    SCRATCH.set(scratch);
                    return Ok(InMemory::Known(visit_frozen(&entry, visit)));
                }
                let lookup = Lookup { counters: &self.read_counters, key, hash, bound };
                match view.levels.look(&lookup, None, &mut scratch)? {
                    InLevels::Found(tag) if tag.kind() == Some(Kind::Put) => {
                        visit.take().map(|visit| visit(Found::Bytes(&scratch)))
                    }
                    InLevels::Found(_) | InLevels::Absent => None,
                    InLevels::Missing(missing) => {
                        SCRATCH.set(scratch);
                        let shard = shard.id;
                        let unknown = Unknown { shard, view, hash, bound, missing };
                        return Ok(InMemory::Unknown(unknown));
                    }
                }
            }
        };
        SCRATCH.set(scratch);
        Ok(InMemory::Known(known))
    }

    /// Looks up in the tables what is not known in memory: its value, if it has
    /// one.
    pub(crate) async fn get_in_tables<I: Io>(
        &self,
        io: &I,
        key: &[u8],
        unknown: &Unknown,
    ) -> Result<Option<TableEntry>> {
        let Unknown { view, hash, bound, missing, .. } = unknown;
        let lookup = Lookup { counters: &self.read_counters, key, hash: *hash, bound: *bound };
        let entry = view.levels.get(io, &lookup, *missing).await?;
        Ok(entry.filter(|entry| entry.tag.kind() == Some(Kind::Put)))
    }
}

fn visit_frozen<R, F: FnOnce(Found<'_>) -> R>(
    entry: &Entry<'_>,
    visit: &mut Option<F>,
) -> Option<R> {
    match (entry.tag.kind(), &entry.value) {
        (Some(Kind::Put), ValueRef::Inline(value)) => Some(visit.take()?(Found::Bytes(value))),
        (Some(Kind::Put), ValueRef::Shared(value)) => {
            Some(visit.take()?(Found::Shared(Arc::clone(value))))
        }
        _ => None,
    }
}

fn look(entry: &Entry<'_>, scratch: &mut Vec<u8>) -> Looked {
    match (entry.tag.kind(), &entry.value) {
        (Some(Kind::Put), ValueRef::Inline(value)) => {
            scratch.clear();
            scratch.extend_from_slice(value);
            Looked::Copied
        }
        (Some(Kind::Put), ValueRef::Shared(value)) => Looked::Shared(Arc::clone(value)),
        _ => Looked::Deleted,
    }
}
