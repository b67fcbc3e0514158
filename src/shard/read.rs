//! Point reads.
//!
//! Under the shard's lock: the mutable memtable, and a copy of the view.
//! Without it: immutable memtables, filters, blocks.

use std::cell::RefCell;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::seq::{Kind, SeqNo};
use crate::io::Io;
use crate::memtable::{Entry, ValueRef};
use crate::shard::engine::Engine;

/// A value that was found.
pub(crate) enum Found<'a> {
    /// Valid for the call.
    Bytes(&'a [u8]),
    /// Shared with a memtable.
    Shared(Arc<[u8]>),
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
    Absent(Arc<crate::lsm::View>, SeqNo),
}

impl Engine {
    /// Calls `visit` with the newest visible value of the key, if there is one.
    pub(crate) async fn get<I: Io, R>(
        &self,
        io: &I,
        key: &[u8],
        visit: impl FnOnce(Found<'_>) -> R,
    ) -> Result<Option<R>> {
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
        let found = match looked {
            Looked::Copied => Some(visit(Found::Bytes(&scratch))),
            Looked::Shared(value) => Some(visit(Found::Shared(value))),
            Looked::Deleted => None,
            Looked::Absent(view, bound) => {
                SCRATCH.set(scratch);
                if let Some(entry) = view.get_frozen(key, bound) {
                    return Ok(match (entry.tag.kind(), entry.value) {
                        (Some(Kind::Put), ValueRef::Inline(value)) => {
                            Some(visit(Found::Bytes(value)))
                        }
                        (Some(Kind::Put), ValueRef::Shared(value)) => {
                            Some(visit(Found::Shared(Arc::clone(value))))
                        }
                        _ => None,
                    });
                }
                let counters = &self.read_counters;
                let entry = view.get_in_tables(io, counters, key, hash, bound).await?;
                return Ok(entry
                    .filter(|entry| entry.tag.kind() == Some(Kind::Put))
                    .map(|entry| visit(Found::Bytes(entry.value()))));
            }
        };
        SCRATCH.set(scratch);
        Ok(found)
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
