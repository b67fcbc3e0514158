//! Partitions (filters and indexes) of tables that do not keep them all in
//! memory: one cache for each owner, beside that of blocks.
//!
//! A table has a slot for each of its partitions, with a lock of its own, which
//! is all that a lookup takes, for a moment. Who puts something in takes the
//! lock of the cache, and inside it those of slots. What has to leave is chosen
//! by CLOCK (F. J. Corbató, "A Paging Experiment with the Multics System",
//! 1968): a hand goes round, and passes over what was used since it came by
//! last. What leaves stays in memory for as long as somebody holds it, and is
//! freed with no lock held.

use std::fmt;
use std::sync::Arc;

use crate::base::sync::Mutex;
use crate::base::sync::tally::{AtomicU64, Ordering};

/// Slots that a table gives up at a time, under the lock.
const FORGET_STEP: usize = 64;

/// A cache of `T`s, such as partitions; see the module's text.
pub(crate) struct PartitionCache<T> {
    ring: Mutex<Ring<T>>,
    capacity_bytes: usize,
    hits: AtomicU64,
    misses: AtomicU64,
    refused: AtomicU64,
}

/// What is there, in the order in which the hand comes by.
struct Ring<T> {
    places: Vec<Option<Resident<T>>>,
    /// The empty ones.
    vacant: Vec<usize>,
    /// The place that is looked at next.
    hand: usize,
    bytes: usize,
    inserted: u64,
    evicted: u64,
}

/// Says which slot something is in.
struct Resident<T> {
    slots: Arc<[Slot<T>]>,
    number: usize,
    bytes: usize,
}

/// Of one partition.
struct Slot<T>(Mutex<State<T>>);

struct State<T> {
    /// What is there, and its place in the ring.
    resident: Option<(Arc<T>, usize)>,
    /// Since the hand came by last.
    is_used: bool,
}

/// What a cache of partitions has done, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionCacheStats {
    /// Partitions that were found.
    pub(crate) hits: u64,
    /// Partitions that were looked for, and not found.
    pub(crate) misses: u64,
    /// Partitions that were put in.
    pub(crate) inserted: u64,
    /// Partitions that left to make room. Those of dropped tables are not
    /// counted.
    pub(crate) evicted: u64,
    /// Partitions that were not put in, as they are larger than the cache.
    pub(crate) refused: u64,
    /// Partitions that are there now.
    pub(crate) partitions: u64,
    /// Bytes of memory that they take.
    pub(crate) bytes: u64,
    /// Bytes that they may take.
    pub(crate) capacity_bytes: u64,
}

impl PartitionCacheStats {
    /// Adds those of another cache.
    pub(crate) fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.inserted += other.inserted;
        self.evicted += other.evicted;
        self.refused += other.refused;
        self.partitions += other.partitions;
        self.bytes += other.bytes;
        self.capacity_bytes += other.capacity_bytes;
    }
}

impl<T> PartitionCache<T> {
    /// A cache for so many bytes.
    pub(crate) fn new(capacity_bytes: usize) -> Arc<Self> {
        let ring = Ring {
            places: Vec::new(),
            vacant: Vec::new(),
            hand: 0,
            bytes: 0,
            inserted: 0,
            evicted: 0,
        };
        Arc::new(Self {
            ring: Mutex::new(ring),
            capacity_bytes,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Gives a table of so many partitions a share in the cache.
    pub(crate) fn register(self: &Arc<Self>, partitions: usize) -> PartitionShare<T> {
        let slot = |_| Slot(Mutex::new(State { resident: None, is_used: false }));
        PartitionShare { cache: Arc::clone(self), slots: (0..partitions).map(slot).collect() }
    }

    pub(crate) fn stats(&self) -> PartitionCacheStats {
        let ring = self.ring.lock();
        PartitionCacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            inserted: ring.inserted,
            evicted: ring.evicted,
            refused: self.refused.load(Ordering::Relaxed),
            partitions: (ring.places.len() - ring.vacant.len()) as u64,
            bytes: ring.bytes as u64,
            capacity_bytes: self.capacity_bytes as u64,
        }
    }
}

impl<T> Ring<T> {
    /// Removes what is to go next; `None` when nothing is there.
    fn evict(&mut self) -> Option<Arc<T>> {
        if self.places.len() == self.vacant.len() {
            return None;
        }
        // The second time round all that is there has had its chance, however
        // often others use it meanwhile.
        for step in 0.. {
            let place = self.hand;
            self.hand = (place + 1) % self.places.len();
            let Some(Resident { slots, number, .. }) = &self.places[place] else {
                continue;
            };
            let mut state = slots[*number].0.lock();
            if std::mem::take(&mut state.is_used) && step < 2 * self.places.len() {
                continue;
            }
            let left = state.resident.take();
            drop(state);
            self.vacate(place);
            self.evicted += 1;
            return left.map(|(left, _)| left);
        }
        None
    }

    /// Empties a place whose slot was emptied.
    fn vacate(&mut self, place: usize) {
        let resident = self.places[place].take().expect("what is in a slot has a place");
        self.bytes -= resident.bytes;
        self.vacant.push(place);
    }
}

/// An open table's share in a [`PartitionCache`]. Its partitions leave with it.
pub(crate) struct PartitionShare<T> {
    cache: Arc<PartitionCache<T>>,
    slots: Arc<[Slot<T>]>,
}

impl<T> PartitionShare<T> {
    /// A partition, if it is there. Counts as a use of it.
    ///
    /// # Panics
    /// When the table has no such partition.
    pub(crate) fn get(&self, number: usize) -> Option<Arc<T>> {
        let mut state = self.slots[number].0.lock();
        let found = state.resident.as_ref().map(|(found, _)| Arc::clone(found));
        state.is_used |= found.is_some();
        drop(state);
        let counter = if found.is_some() { &self.cache.hits } else { &self.cache.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Whether the partition is there at this moment; counts as nothing.
    pub(crate) fn contains(&self, number: usize) -> bool {
        self.slots[number].0.lock().resident.is_some()
    }

    /// Puts a partition in that takes so many bytes of memory, unless it is there
    /// already, or larger than the cache.
    ///
    /// # Panics
    /// When the table has no such partition.
    pub(crate) fn insert(&self, number: usize, partition: Arc<T>, bytes: usize) {
        if bytes > self.cache.capacity_bytes {
            self.cache.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut left = Vec::new();
        let mut ring = self.cache.ring.lock();
        if !self.contains(number) {
            while ring.bytes + bytes > self.cache.capacity_bytes {
                left.push(ring.evict().expect("bytes are those of what is there"));
            }
            let place = ring.vacant.pop().unwrap_or_else(|| {
                ring.places.push(None);
                ring.places.len() - 1
            });
            let slots = Arc::clone(&self.slots);
            ring.places[place] = Some(Resident { slots, number, bytes });
            ring.bytes += bytes;
            ring.inserted += 1;
            let mut state = self.slots[number].0.lock();
            // It has to be used once more to stay when the hand comes by.
            *state = State { resident: Some((partition, place)), is_used: false };
        }
        drop(ring);
        drop(left);
    }

    /// Bytes of memory that the table's slots take.
    pub(crate) fn slots_bytes(&self) -> usize {
        size_of_val(&self.slots[..])
    }

    /// Takes all partitions of the table out.
    pub(crate) fn clear(&self) {
        // Also while a panic unwinds: nothing must stay of a table that is gone.
        // Who takes a lock next panics, if it is broken.
        for start in (0..self.slots.len()).step_by(FORGET_STEP) {
            let end = self.slots.len().min(start + FORGET_STEP);
            let mut left = Vec::new();
            let mut ring = self.cache.ring.lock_though_broken();
            for slot in &self.slots[start..end] {
                let resident = slot.0.lock_though_broken().resident.take();
                if let Some((partition, place)) = resident {
                    ring.vacate(place);
                    left.push(partition);
                }
            }
            drop(ring);
            drop(left);
        }
    }
}

impl<T> Drop for PartitionShare<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<T> fmt::Debug for PartitionShare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionShare({} partitions)", self.slots.len())
    }
}
