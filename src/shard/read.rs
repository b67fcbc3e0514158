//! Point reads.
//!
//! Under the shard's lock: the mutable memtable, and a copy of the view.
//! Without it: immutable memtables, filters, cached blocks, and only then the
//! device: blocks, long values.

use std::cell::RefCell;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::hash::KeyHash;
use crate::base::ids::ShardId;
use crate::base::latency::{Operation, Timer, Wait, Waited};
use crate::base::planted::{Bug, planted};
use crate::base::seq::{Kind, SeqNo};
use crate::io::Io;
use crate::lsm::{self, InLevels, Lookup, View};
use crate::memtable::{Entry, ValueRef};
use crate::shard::engine::Engine;
use crate::sst::TableEntry;
use crate::value::Loaded;

/// A value that was found.
pub(crate) enum Found<'a> {
    /// Valid for the call.
    Bytes(&'a [u8]),
    /// Shared with a memtable.
    Shared(Arc<[u8]>),
    /// For the caller alone.
    Own(Box<[u8]>),
    /// Read for this.
    Loaded(Loaded),
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
    /// A reference to it is.
    Referred(Arc<View>),
    Shared(Arc<[u8]>),
    Deleted,
    Absent(Arc<View>, SeqNo),
}

/// What a look into memory came to.
pub(crate) enum InMemory<R> {
    /// The newest visible value, if there is one, as it was visited.
    Known(Option<R>),
    /// It must be read, if there is one.
    Elsewhere(Elsewhere),
}

/// A value that is not in memory, if it is at all.
pub(crate) struct Elsewhere {
    shard: ShardId,
    /// Also keeps the value file as it is.
    view: Arc<View>,
    place: Place,
}

enum Place {
    /// In a table, perhaps: the first block of which that depends is not in
    /// memory.
    Tables(KeyHash, SeqNo, lsm::Place),
    /// A reference to a value file.
    Value(Box<[u8]>),
}

impl Elsewhere {
    /// The shard the key is of.
    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }
}

/// A value that was read.
pub(crate) enum Fetched {
    /// It was in a block.
    Entry(TableEntry),
    Loaded(Loaded),
}

impl Fetched {
    pub(crate) fn visit<R>(self, visit: impl FnOnce(Found<'_>) -> R) -> R {
        match self {
            Self::Entry(entry) => visit(Found::Own(entry.value)),
            Self::Loaded(loaded) => visit(Found::Loaded(loaded)),
        }
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
        let now_ns = || io.now_ns();
        let timer = Timer::sampled(Operation::Get, now_ns);
        let (mut visit, mut lock_ns) = (Some(visit), 0);
        match self.get_in_memory(key, &mut visit, now_ns, &mut lock_ns)? {
            InMemory::Known(known) => {
                self.latencies.record_in_memory(timer, lock_ns, now_ns);
                Ok(known)
            }
            InMemory::Elsewhere(elsewhere) => {
                let fetched = self.fetch_timed(io, key, &elsewhere, timer, lock_ns).await?;
                Ok(fetched.and_then(|fetched| Some(fetched.visit(visit.take()?))))
            }
        }
    }

    /// The rest of a get that memory did not answer.
    pub(crate) async fn fetch_timed<I: Io>(
        &self,
        io: &I,
        key: &[u8],
        elsewhere: &Elsewhere,
        timer: Timer,
        lock_ns: u64,
    ) -> Result<Option<Fetched>> {
        let mut waited = Waited::for_lock(lock_ns);
        let began_ns = io.now_ns();
        let fetched = self.fetch(io, key, elsewhere).await?;
        let ended_ns = io.now_ns();
        waited.add(Wait::Read, ended_ns - began_ns);
        self.latencies.record(timer, &waited, || ended_ns);
        Ok(fetched)
    }

    /// Looks into the memtables, and as far as need be into what is in memory of
    /// the tables. `visit` is taken, and called with the value, if there is one.
    /// If the shard's lock has to be waited for, that is added to `lock_ns`.
    pub(crate) fn get_in_memory<R, F: FnOnce(Found<'_>) -> R>(
        &self,
        key: &[u8],
        visit: &mut Option<F>,
        now_ns: impl Fn() -> u64,
        lock_ns: &mut u64,
    ) -> Result<InMemory<R>> {
        let hash = self.hash(key);
        let shard = self.shard(self.shard_of(hash));
        let mut scratch = SCRATCH.take();
        let looked = {
            let (state, ns) = shard.lock_timed(now_ns);
            *lock_ns += ns;
            if state.closed {
                return Err(Error::closed());
            }
            let is_early = planted(Bug::ReadAhead);
            let bound = if is_early { state.next_seq - 1 } else { state.published.visible() };
            match state.mutable.get(key, bound) {
                Some(entry) => look(&entry, &mut scratch, &state.view),
                None => Looked::Absent(Arc::clone(&state.view), bound),
            }
        };
        let elsewhere =
            |view, place| InMemory::Elsewhere(Elsewhere { shard: shard.id, view, place });
        let in_memory = match looked {
            Looked::Copied => {
                InMemory::Known(visit.take().map(|visit| visit(Found::Bytes(&scratch))))
            }
            Looked::Shared(value) => {
                InMemory::Known(visit.take().map(|visit| visit(Found::Shared(value))))
            }
            Looked::Deleted => InMemory::Known(None),
            Looked::Referred(view) => elsewhere(view, Place::Value(scratch[..].into())),
            Looked::Absent(view, bound) => match view.get_frozen(key, bound) {
                None => {
                    let lookup = Lookup { counters: &self.read_counters, key, hash, bound };
                    match view.levels.look(&lookup, None, &mut scratch)? {
                        InLevels::Found(tag) if tag.kind() == Some(Kind::Put) => {
                            InMemory::Known(visit.take().map(|visit| visit(Found::Bytes(&scratch))))
                        }
                        InLevels::Found(tag) if tag.kind() == Some(Kind::Indirect) => {
                            elsewhere(view, Place::Value(scratch[..].into()))
                        }
                        InLevels::Found(_) | InLevels::Absent => InMemory::Known(None),
                        InLevels::Missing(missing) => {
                            elsewhere(view, Place::Tables(hash, bound, missing))
                        }
                    }
                }
                Some(entry) if entry.tag.kind() == Some(Kind::Indirect) => {
                    let reference = Box::from(&entry.value[..]);
                    elsewhere(view, Place::Value(reference))
                }
                Some(entry) => InMemory::Known(visit_frozen(&entry, visit)),
            },
        };
        SCRATCH.set(scratch);
        Ok(in_memory)
    }

    /// Reads what a look into memory did not find: the key's value, if it has
    /// one.
    pub(crate) async fn fetch<I: Io>(
        &self,
        io: &I,
        key: &[u8],
        elsewhere: &Elsewhere,
    ) -> Result<Option<Fetched>> {
        let Elsewhere { shard, view, place } = elsewhere;
        let values = &self.shard(*shard).values;
        let (hash, bound, missing) = match place {
            Place::Value(reference) => {
                return values.load(io, reference).await.map(|value| Some(Fetched::Loaded(value)));
            }
            Place::Tables(hash, bound, missing) => (*hash, *bound, *missing),
        };
        let lookup = Lookup { counters: &self.read_counters, key, hash, bound };
        let Some(entry) = view.levels.get(io, &lookup, missing).await? else {
            return Ok(None);
        };
        Ok(match entry.tag.kind() {
            Some(Kind::Put) => Some(Fetched::Entry(entry)),
            Some(Kind::Indirect) => Some(Fetched::Loaded(values.load(io, &entry.value).await?)),
            _ => None,
        })
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

fn look(entry: &Entry<'_>, scratch: &mut Vec<u8>, view: &Arc<View>) -> Looked {
    let mut copy = |value: &[u8]| {
        scratch.clear();
        scratch.extend_from_slice(value);
    };
    match (entry.tag.kind(), &entry.value) {
        (Some(Kind::Put), ValueRef::Inline(value)) => {
            copy(value);
            Looked::Copied
        }
        (Some(Kind::Put), ValueRef::Shared(value)) => Looked::Shared(Arc::clone(value)),
        // A few kilobytes at most.
        (Some(Kind::Indirect), value) => {
            copy(value);
            Looked::Referred(Arc::clone(view))
        }
        _ => Looked::Deleted,
    }
}
