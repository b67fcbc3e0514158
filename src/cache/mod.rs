//! Floor 4: the block cache, which takes the place of the operating system's
//! page cache for tables; and a cache for what leads to their blocks.
//!
//! * [`Cache`]: one for each owner. Most of its memory is allotted when it is made;
//!   some may be lent to it for a while ([`Cache::borrow`]).
//! * [`CachedTable`]: an open table's share in it, with a link for each block:
//!   a hit follows the link, without a search and without a lock. Dropping it
//!   takes the table's blocks out of the cache.
//! * [`Epochs`], [`Guard`]: a reader is pinned while it looks at blocks; what is
//!   evicted is used for other blocks only after the pins of that time.
//! * [`Flights`]: who misses a block while somebody is reading it shares the read.
//! * [`PartitionCache`]: filters and indexes of tables that do not keep all of
//!   theirs in memory. It has nothing to do with the others.
//!
//! The way of a lookup: pin ([`Epochs::pin`]), [`CachedTable::get`], use the
//! bytes where they lie ([`Hit`]), unpin. The way of a miss: unpin, join the
//! flight, read the block into a frame ([`CachedTable::frame`]), verify it, put
//! it in ([`CachedTable::insert_frame`]), land.
//!
//! Threads share the links, the frames behind them, and one lock for all that
//! evicts and inserts, which hits never take. It is held while a victim is looked
//! for, which is bounded, and never while bytes are copied. Inside it is taken
//! the lock of the frames' pool, and inside that the one of the epochs' list of
//! threads.

mod epoch;
mod flights;
mod frames;
mod ghosts;
mod partitions;
pub(crate) mod policy;
mod regions;
pub(crate) mod s3fifo;
#[cfg(all(test, feature = "shuttle"))]
mod shuttle_tests;
#[cfg(test)]
mod tests;

pub(crate) use epoch::{Epochs, Guard};
#[cfg(test)]
pub(crate) use flights::Follow;
pub(crate) use flights::{Flights, Join, Lead};
pub(crate) use frames::{Held, Hit};
pub(crate) use partitions::{PartitionCache, PartitionCacheStats, PartitionShare};

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use self::frames::{BLOCK_FRAMES_MAX, FrameBuf, Frames, Links};
use self::policy::{Frequencies, Policy};
use self::regions::Regions;
use self::s3fifo::S3Fifo;
use crate::base::error::{Error, Result};
use crate::base::limits::UNIT;
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{self, AtomicBool};
use crate::base::sync::tally::{AtomicU64, Ordering};
use crate::io::{IoBuf, Lender};
use crate::runtime::Event;

/// The largest block that is cached, in bytes.
pub(crate) const BLOCK_BYTES_MAX: usize = BLOCK_FRAMES_MAX * UNIT;

/// Of so many frames, one is kept idle, so that there are frames whose pins
/// have ended whenever one is needed; but not more than `HEADROOM_FRAMES_MAX`.
const HEADROOM_SHARE: usize = 32;
const HEADROOM_FRAMES_MAX: usize = 64;

/// Of the memory of a cache, one part in so many may be for what frames take that are
/// lent to it, beside their own memory.
const EXTRA_SHARE: usize = 8;

/// Links a table gives up at a time, under the lock.
const FORGET_STEP: u32 = 64;

/// The block cache of one owner; see the module's text.
pub(crate) struct Cache {
    frames: Arc<Frames>,
    state: Mutex<State>,
    /// Frames to keep idle.
    headroom: usize,
    /// There is memory that may be lent to it.
    may_borrow: bool,
    /// Blocks have left to make room since [`Cache::take_pressure`].
    is_pressed: AtomicBool,
    misses: AtomicU64,
    refused: AtomicU64,
}

/// What insertions and evictions change.
struct State {
    policy: S3Fifo,
    /// Whose blocks there may be; `None` where a table was dropped.
    tables: Vec<Option<Arc<Links>>>,
    vacant: Vec<u32>,
    /// Whose block is in a frame, by its number less one; only that of resident
    /// blocks' frames counts.
    residents: Box<[Resident]>,
    blocks: u64,
    frames: u64,
    inserted: u64,
    evicted: u64,
}

#[derive(Clone, Copy, Default)]
struct Resident {
    /// A place in `State::tables`.
    table: u32,
    block: u32,
}

/// What a cache has done since it was made, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CacheStats {
    /// Blocks that were found, here and in every other cache on the same
    /// [`Epochs`]: threads count them there.
    pub(crate) hits: u64,
    /// Blocks that were looked for here, and not found.
    pub(crate) misses: u64,
    /// Blocks that were put in.
    pub(crate) inserted: u64,
    /// Blocks that left to make room. Those of dropped tables are not counted.
    pub(crate) evicted: u64,
    /// Blocks that were not put in, as they are too large, or as all frames
    /// that were free were still looked at, or held.
    pub(crate) refused: u64,
    /// Blocks that are there now.
    pub(crate) blocks: u64,
    /// Bytes of the frames that they take.
    pub(crate) bytes: u64,
    /// Bytes of all frames, those included that are lent to it now.
    pub(crate) capacity_bytes: u64,
}

impl CacheStats {
    /// Adds those of another cache on the same [`Epochs`].
    pub(crate) fn add(&mut self, other: &Self) {
        self.hits = self.hits.max(other.hits);
        self.misses += other.misses;
        self.inserted += other.inserted;
        self.evicted += other.evicted;
        self.refused += other.refused;
        self.blocks += other.blocks;
        self.bytes += other.bytes;
        self.capacity_bytes += other.capacity_bytes;
    }
}

impl Frequencies for Frames {
    fn get(&self, frame: u32) -> u8 {
        self.frequency(frame)
    }

    fn set(&self, frame: u32, frequency: u8) {
        self.set_frequency(frame, frequency);
    }
}

impl Cache {
    /// Bytes of memory that each frame takes beside its own.
    const EXTRA_BYTES: usize =
        Frames::OVERHEAD_BYTES + S3Fifo::OVERHEAD_BYTES + size_of::<Resident>();

    /// Bytes of memory that each frame takes, all told.
    pub(crate) const FRAME_BYTES: usize = UNIT + Self::EXTRA_BYTES;

    /// A cache that takes `memory_bytes` at most, beside a link of four bytes
    /// for each block of each open table; and blocks of `lendable_bytes`, or somewhat
    /// less, in memory that may be lent to it.
    ///
    /// # Errors
    /// `InvalidArgument` when the memory is less than one frame takes, more than
    /// frames can be numbered in, or not to be had.
    pub(crate) fn new(
        epochs: &Arc<Epochs>,
        memory_bytes: usize,
        lendable_bytes: usize,
    ) -> Result<Arc<Self>> {
        // What frames take beside their pages is there all the time.
        let lendable = (lendable_bytes / UNIT).min(memory_bytes / EXTRA_SHARE / Self::EXTRA_BYTES);
        let own_bytes = memory_bytes - lendable * Self::EXTRA_BYTES;
        let own = own_bytes / Self::FRAME_BYTES;
        let numbered = u32::try_from(own + lendable).ok().filter(|&all| all < u32::MAX);
        let Some(_) = numbered.filter(|_| own > 0) else {
            let message = format!(
                "the memory budget comes to block caches of {memory_bytes} bytes, and one takes \
                 between {} bytes and {} GiB; give another budget (Options::memory, --memory), or \
                 set the caches apart from it (Options::cache_bytes)",
                Self::FRAME_BYTES,
                (u32::MAX as usize * UNIT) >> 30
            );
            return Err(Error::invalid(message));
        };
        let lasting = match lendable {
            0 => own as u32,
            _ => Regions::lasting(own as u32),
        };
        let regions = Regions::new(lasting, lendable as u32);
        let all = lasting + regions.frames();
        let state = State {
            policy: S3Fifo::new(lasting, all),
            tables: Vec::new(),
            vacant: Vec::new(),
            residents: vec![Resident::default(); all as usize].into_boxed_slice(),
            blocks: 0,
            frames: 0,
            inserted: 0,
            evicted: 0,
        };
        Ok(Arc::new(Self {
            frames: Frames::new(lasting, regions, epochs)?,
            state: Mutex::new(state),
            headroom: (lasting as usize / HEADROOM_SHARE).min(HEADROOM_FRAMES_MAX),
            may_borrow: all > lasting,
            is_pressed: AtomicBool::new(false),
            misses: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// The epochs to pin before blocks are looked for.
    pub(crate) fn epochs(&self) -> &Arc<Epochs> {
        self.frames.epochs()
    }

    /// Set when [`Cache::grow`] has something to do, and when it [is
    /// pressed](Cache::has_pressure).
    pub(crate) fn growth(&self) -> &Event {
        self.frames.growth()
    }

    /// Gives memory to frames that will be used soon. Whether there were some.
    pub(crate) fn grow(&self) -> bool {
        self.frames.grow()
    }

    /// What lends the memory of its frames to reads.
    pub(crate) fn lender(&self) -> Arc<dyn Lender> {
        self.frames.lender()
    }

    /// Bytes of blocks it can hold for good.
    pub(crate) fn lasting_bytes(&self) -> u64 {
        self.frames.lasting() as u64 * UNIT as u64
    }

    /// Bytes of blocks it can hold now.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        u64::from(self.frames.limit()) * UNIT as u64
    }

    /// Bytes of blocks that may be lent to it.
    pub(crate) fn lendable_bytes(&self) -> usize {
        self.frames.regions_frames() as usize * UNIT
    }

    /// Bytes that are lent to it now, those included that it is about to give back.
    pub(crate) fn lent_bytes(&self) -> usize {
        self.frames.lent() as usize * UNIT
    }

    /// Bytes that are lent at a time.
    pub(crate) fn region_bytes(&self) -> usize {
        self.frames.region_frames() as usize * UNIT
    }

    /// Bytes of blocks that it has room for, beyond those that it has room for for good.
    pub(crate) fn borrowed_bytes(&self) -> usize {
        (self.capacity_bytes() - self.lasting_bytes()) as usize
    }

    /// Whether blocks have left to make room since [`Cache::take_pressure`]; never, if
    /// no memory may be lent to it.
    pub(crate) fn has_pressure(&self) -> bool {
        self.is_pressed.load(atomic::Ordering::Relaxed)
    }

    /// The same, since this was asked last.
    pub(crate) fn take_pressure(&self) -> bool {
        self.is_pressed.swap(false, atomic::Ordering::Relaxed)
    }

    /// Borrows one region more; nothing, if all are there. For one caller at a time,
    /// as are the two functions that follow.
    pub(crate) fn borrow(&self) -> bool {
        let is_more = self.frames.raise();
        self.state.lock().policy.resize(self.frames.limit());
        is_more
    }

    /// Begins to give so many regions back, or all that are borrowed; how many.
    pub(crate) fn recall(&self, regions: u32) -> u32 {
        let recalled = self.frames.lower(regions);
        self.state.lock().policy.resize(self.frames.limit());
        recalled
    }

    /// Goes on giving back what was recalled: blocks of some regions leave, and those
    /// that are free go back to the kernel. Whether there are others; some may still
    /// be in use, by those who read into them from the device or hold blocks.
    pub(crate) fn give_back(&self) -> bool {
        if !self.frames.are_leaving() {
            return false;
        }
        for region in self.frames.next_to_vacate() {
            for numbers in chunks(region, FORGET_STEP) {
                let mut state = self.state.lock();
                numbers.for_each(|number| state.vacate(&self.frames, number));
            }
        }
        self.frames.give_back();
        self.frames.are_leaving()
    }

    /// Gives a table that was opened a share in the cache. `table` tells it from
    /// all other tables.
    pub(crate) fn register(self: &Arc<Self>, table: u64, blocks: u32) -> CachedTable {
        let links = Arc::new(Links::new(&self.frames, table, blocks));
        let mut state = self.state.lock();
        let place = state.vacant.pop().unwrap_or_else(|| {
            state.tables.push(None);
            state.tables.len() as u32 - 1
        });
        state.tables[place as usize] = Some(Arc::clone(&links));
        drop(state);
        CachedTable { cache: Arc::clone(self), links, place }
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let state = self.state.lock();
        CacheStats {
            hits: self.epochs().hits(),
            misses: self.misses.load(Ordering::Relaxed),
            inserted: state.inserted,
            evicted: state.evicted,
            refused: self.refused.load(Ordering::Relaxed),
            blocks: state.blocks,
            bytes: state.frames * UNIT as u64,
            capacity_bytes: self.capacity_bytes(),
        }
    }

    /// Frames for a block, from others that leave if need be.
    fn reserve(&self, bytes: usize) -> Option<FrameBuf> {
        let units = bytes.div_ceil(UNIT);
        if units == 0 || units > BLOCK_FRAMES_MAX || units > self.frames.lasting() {
            return None;
        }
        // Twice: the first time, retired blocks that are held turn out not to be
        // idle.
        self.take(units, bytes).or_else(|| self.take(units, bytes))
    }

    fn take(&self, units: usize, bytes: usize) -> Option<FrameBuf> {
        let mut state = self.state.lock();
        let evicted = state.evicted;
        while self.frames.idle() < units + self.headroom {
            let Some(first) = state.policy.victim(&*self.frames) else {
                break;
            };
            let Resident { table, block } = state.residents[first as usize - 1];
            let links = state.tables[table as usize].as_ref().expect("a resident block's table");
            let (unlinked, units) = links.unlink(block).expect("a resident block's link");
            assert_eq!(unlinked, first, "block {block} of {links:?}");
            state.left(units);
            state.evicted += 1;
        }
        let is_pressed = state.evicted > evicted && self.may_borrow;
        drop(state);
        if is_pressed && !self.has_pressure() {
            self.is_pressed.store(true, atomic::Ordering::Relaxed);
            self.growth().set();
        }
        self.frames.take(bytes)
    }
}

impl State {
    /// A block of so many frames is not there any more.
    fn left(&mut self, units: u32) {
        self.blocks -= 1;
        self.frames -= u64::from(units);
    }

    /// The block that is in a frame leaves, if there is one.
    fn vacate(&mut self, frames: &Frames, number: u32) {
        let Resident { table, block } = self.residents[number as usize - 1];
        let Some(links) = self.tables.get(table as usize).and_then(Option::as_ref) else {
            return;
        };
        // Another block of that name may be elsewhere by now.
        let is_there = |&first: &u32| frames.numbers(first).any(|each| each == number);
        let first = links.first(block).filter(is_there);
        let Some((first, units)) = first.and_then(|_| links.unlink(block)) else { return };
        self.policy.remove(first);
        self.left(units);
        self.evicted += 1;
    }
}

/// Parts of a range, of so many numbers at most.
fn chunks(range: Range<u32>, numbers: u32) -> impl Iterator<Item = Range<u32>> {
    let end = range.end;
    range.step_by(numbers as usize).map(move |start| start..end.min(start + numbers))
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} frames)", self.frames.limit())
    }
}

/// An open table's share in a [`Cache`]. Its blocks leave with it.
#[derive(Debug)]
pub(crate) struct CachedTable {
    cache: Arc<Cache>,
    links: Arc<Links>,
    /// In `State::tables`.
    place: u32,
}

/// What is known of a block that comes.
#[derive(Clone, Copy)]
enum Standing {
    New,
    Proven,
}

impl CachedTable {
    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// The block, if it is cached, for as long as the guard lives. Counts as a
    /// use of it.
    ///
    /// # Panics
    /// When the table has no such block, or the guard is one of other epochs.
    #[inline]
    pub(crate) fn get<'a>(&'a self, guard: &'a Guard<'_>, block: u32) -> Option<Hit<'a>> {
        let hit = self.links.get(guard, block);
        if hit.is_none() {
            self.cache.misses.fetch_add(1, Ordering::Relaxed);
        }
        hit
    }

    /// Has the processor fetch the block, if it is there; counts as nothing.
    ///
    /// # Panics
    /// When the table has no such block.
    #[inline]
    pub(crate) fn prefetch(&self, block: u32) {
        self.links.prefetch(block);
    }

    /// Whether the block is there at this moment; counts as nothing.
    pub(crate) fn contains(&self, block: u32) -> bool {
        self.links.is_linked(block)
    }

    /// Whether the block is there at this moment, and was used since it came, or since it was
    /// last passed over for eviction; counts as nothing, and takes no lock.
    pub(crate) fn is_used(&self, block: u32) -> bool {
        // By now the frame may be another block's: then that one's use is taken for its.
        self.links.first(block).is_some_and(|first| self.cache.frames.frequency(first) > 0)
    }

    /// Bytes of memory that the table's links take.
    pub(crate) fn links_bytes(&self) -> usize {
        self.links.blocks() as usize * size_of::<u32>()
    }

    /// A frame for a block of one unit to be read into; `None` when there is no
    /// room for it. To be called without a guard: what is evicted for it cannot
    /// be used again as long as this thread is pinned.
    pub(crate) fn frame(&self) -> Option<IoBuf> {
        Some(self.reserve(UNIT)?.lend())
    }

    /// Puts the block in that was read into `frame`, where it takes the first
    /// `bytes`, unless somebody else just did. The block, in any case.
    ///
    /// # Panics
    /// When the table has no such block, or `frame` is not of
    /// [`CachedTable::frame`].
    pub(crate) fn insert_frame(&self, block: u32, frame: IoBuf, bytes: usize) -> Held {
        let buf = self.cache.frames.regain(frame);
        let mut buf = buf.expect("a frame of this cache");
        buf.set_bytes(bytes);
        self.publish(block, buf, Standing::New).1
    }

    /// Puts a copy of a block in, unless somebody else just did. The block;
    /// `None` when there is no room for it. To be called without a guard, as
    /// [`CachedTable::frame`].
    ///
    /// # Panics
    /// When the table has no such block.
    pub(crate) fn insert_copy(&self, block: u32, bytes: &[u8]) -> Option<Held> {
        let mut buf = self.reserve(bytes.len())?;
        buf.fill(bytes);
        Some(self.publish(block, buf, Standing::New).1)
    }

    /// Puts a copy of a block in, unless it is there, or there is no room for it.
    /// Whether it did.
    pub(crate) fn insert(&self, block: u32, bytes: &[u8]) -> bool {
        self.put(block, bytes, Standing::New)
    }

    /// The same for a block that is as good as one that was used before it came.
    pub(crate) fn insert_proven(&self, block: u32, bytes: &[u8]) -> bool {
        self.put(block, bytes, Standing::Proven)
    }

    fn put(&self, block: u32, bytes: &[u8], standing: Standing) -> bool {
        if self.contains(block) {
            return false;
        }
        let Some(mut buf) = self.reserve(bytes.len()) else {
            return false;
        };
        buf.fill(bytes);
        self.publish(block, buf, standing).0
    }

    fn reserve(&self, bytes: usize) -> Option<FrameBuf> {
        let buf = self.cache.reserve(bytes);
        if buf.is_none() {
            self.cache.refused.fetch_add(1, Ordering::Relaxed);
        }
        buf
    }

    /// Lets everybody see the block, unless it is there already. Whether it was
    /// not, and a hold of this one.
    fn publish(&self, block: u32, buf: FrameBuf, standing: Standing) -> (bool, Held) {
        let mut state = self.cache.state.lock();
        let (first, held) = self.links.publish(block, buf);
        if let Some(first) = first {
            let units = self.cache.frames.units(first);
            for number in self.cache.frames.numbers(first) {
                state.residents[number as usize - 1] = Resident { table: self.place, block };
            }
            let fingerprint = fingerprint(self.links.table(), block);
            match standing {
                Standing::New => state.policy.insert(first, units, fingerprint),
                Standing::Proven => state.policy.insert_proven(first, units, fingerprint),
            }
            state.blocks += 1;
            state.frames += u64::from(units);
            state.inserted += 1;
        }
        (first.is_some(), held)
    }
}

impl Drop for CachedTable {
    fn drop(&mut self) {
        // Also while a panic unwinds: frames must not stay with a table that is
        // gone. Who holds the lock next panics, if this lock is broken.
        let mut next = 0;
        while next < self.links.blocks() {
            let end = self.links.blocks().min(next + FORGET_STEP);
            let mut state = self.cache.state.lock_though_broken();
            for block in next..end {
                if let Some((first, units)) = self.links.unlink(block) {
                    state.policy.remove(first);
                    state.left(units);
                }
            }
            next = end;
        }
        let mut state = self.cache.state.lock_though_broken();
        let links = state.tables[self.place as usize].take();
        state.vacant.push(self.place);
        drop(state);
        drop(links);
    }
}

/// The same for the same block, and as good as random.
fn fingerprint(table: u64, block: u32) -> u64 {
    // The finaliser of SplitMix64 (G. Steele et al., 2014).
    let mut x = table.rotate_left(32) ^ u64::from(block).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
