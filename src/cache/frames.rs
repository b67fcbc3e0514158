//! Frames: the memory blocks are cached in, and the links that lead to them.
//!
//! All frames of a cache are one anonymous mapping, made when the cache is. A
//! frame is one unit, aligned to it, and has a number from 1 on. A block takes as
//! many frames as it has units, chained by their numbers.
//!
//! A frame is in one of these states, and the types keep it there:
//!
//! * *free*: its number is in the pool.
//! * *parked*: as free, but it is not given out: the pool keeps it with the others of
//!   its *region*, see [`super::regions`].
//! * *owned*: it belongs to a [`FrameBuf`], or to an [`IoBuf`] that was made of
//!   one so that a read lands in it; the holder alone reads and writes it.
//!   Dropped, it is free again.
//! * *published*: the first frame of its chain stands in one [`Links`] entry.
//!   Nobody writes it; readers get at it through the link, under a [`Guard`].
//! * *retired*: the link is cleared, but readers that are pinned may still be
//!   there, until their pins have ended (see [`super::epoch`]).
//!
//! Whoever publishes or finds a block may *hold* it ([`Held`]), without a pin and
//! for as long as it likes. Holds are counted, and only a pin or a hold gives
//! another one, so that there are none any more once the last of both is gone. A
//! retired block is free when its pins and its holds have ended, whichever is
//! last.
//!
//! The frames of a block do not lie side by side: a device reads into one frame
//! at a time, and longer blocks are copied into theirs.
//!
//! The mapping asks for huge pages: a lookup touches some frame that no cache of
//! the processor has, and finding its page costs as much again as reading it (a
//! tenth of a whole lookup in a virtual machine, measured with `ouro-bench run
//! --workload get-zipfian --warm-up 8`).

#![expect(
    unsafe_code,
    reason = "many threads read frames in place while others are filled, in one piece of memory"
)]

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::epoch::{Epochs, Guard, Retired};
use super::regions::{Regions, has_huge_pages};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::limits::UNIT;
use crate::base::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use crate::base::sync::tally;
use crate::base::sync::{Mutex, MutexGuard};
use crate::io::{IoBuf, Lender};
use crate::runtime::Event;

/// The most frames a block may take: 64 KiB. Larger ones are not cached.
pub(crate) const BLOCK_FRAMES_MAX: usize = 16;

/// What accesses saturate at: two bits.
pub(crate) const FREQUENCY_MAX: u8 = 3;

/// A cache line of the processor.
const LINE_BYTES: usize = 64;
/// Cache lines at the start and at the end of a block's frame that are fetched ahead.
const PREFETCHED_FIRST: usize = 4;
const PREFETCHED_LAST: usize = 8;

/// In place of a frame's number.
const NONE: u32 = 0;

/// The bit of `Note::holds` that says that nobody else looks at the block any
/// more: the last hold frees it.
const UNSEEN: u32 = 1 << 31;

/// What huge pages begin at multiples of.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Memory is there for so many frames more than were ever given out.
const GROWTH_AHEAD: u32 = 256;

/// The frames of one cache.
pub(crate) struct Frames {
    base: NonNull<u8>,
    /// The mapping that they are in.
    mapping: (NonNull<u8>, usize),
    /// Of each frame, by its number less one.
    notes: Box<[Note]>,
    /// Those with higher numbers are in regions.
    lasting: u32,
    pool: Mutex<Pool>,
    epochs: Arc<Epochs>,
    /// See [`Frames::grow`].
    growth: Event,
}

/// What is known of a frame, beside its bytes: all in one line of the
/// processor's cache.
#[derive(Default)]
#[repr(align(32))]
struct Note {
    /// The next frame of the block.
    next: AtomicU32,
    /// Of a block's first frame: the block's bytes, and whose block it is.
    bytes: AtomicU32,
    block: AtomicU32,
    /// Of a block's first frame: how many hold it, and `UNSEEN`.
    holds: AtomicU32,
    /// Of a block's first frame: how often it was used, up to `FREQUENCY_MAX`.
    frequency: AtomicU8,
    table: tally::AtomicU64,
}

pub(super) struct Pool {
    pub(super) free: Vec<u32>,
    pub(super) regions: Regions,
    /// The first frames of chains.
    retired: Retired,
    retired_frames: usize,
    /// The highest number that was given out.
    highest: u32,
    /// Frames with lower numbers, and this one, have memory.
    grown: u32,
    /// The owner was told that it is to grow.
    is_growing: bool,
}

// SAFETY: the memory behind `base` is plain bytes, bound to no thread; who may
// touch which of them follows from the states of the module's text.
unsafe impl Send for Frames {}
// SAFETY: as above.
unsafe impl Sync for Frames {}

impl Frames {
    /// Bytes of memory for each frame beside its own: its note, and its places
    /// in the pool.
    pub(crate) const OVERHEAD_BYTES: usize =
        size_of::<Note>() + size_of::<u32>() + size_of::<(u64, u32)>();

    /// Maps so many frames that are there to stay, and behind them those of regions,
    /// which have no memory yet; pages are the process's once they are used.
    pub(crate) fn new(lasting: u32, regions: Regions, epochs: &Arc<Epochs>) -> Result<Arc<Self>> {
        let count = lasting.checked_add(regions.frames()).filter(|&count| count < u32::MAX);
        let count = count.expect("frames are numbered");
        assert!(lasting > 0, "no frames");
        let bytes = count as usize * UNIT;
        let is_huge = has_huge_pages(lasting);
        let mapped_bytes = if is_huge { bytes + HUGE_PAGE_BYTES } else { bytes };
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        let anywhere = std::ptr::null_mut();
        // SAFETY: the kernel puts a new mapping where the process has no
        // memory yet.
        let mapped = unsafe { rustix::mm::mmap_anonymous(anywhere, mapped_bytes, access, flags) };
        let base = mapped.map_err(|errno| {
            let message = format!(
                "cannot allot {bytes} bytes to the block cache: {errno}; the memory budget is too \
                 large for this machine, or for its limits: open the database with a smaller one \
                 (Options::memory, --memory)"
            );
            Error::new(ErrorKind::InvalidArgument, message)
        })?;
        let mapped = NonNull::new(base.cast()).expect("the kernel maps nothing at address zero");
        let mut base: NonNull<u8> = mapped;
        if is_huge {
            let before = base.align_offset(HUGE_PAGE_BYTES);
            // SAFETY: the mapping is longer than the frames by what huge pages
            // are aligned to, and `before` is less than that.
            base = unsafe { base.add(before) };
            let advice = Advice::LinuxHugepage;
            // SAFETY: the range is within the new mapping, and the advice changes
            // nothing of what it holds.
            let advised = unsafe { rustix::mm::madvise(base.as_ptr().cast(), bytes, advice) };
            if let Err(errno) = advised {
                tracing::debug!(%errno, "the block cache has no huge pages");
            }
        }
        // Room for all of them, and full. Low numbers are given out first, so
        // that a cache that is not full touches no more pages than it needs.
        let mut free = Vec::with_capacity(count as usize);
        free.extend((1..=lasting).rev());
        let pool = Pool {
            free,
            regions,
            retired: Retired::with_capacity(count as usize),
            retired_frames: 0,
            highest: 0,
            grown: 0,
            is_growing: false,
        };
        Ok(Arc::new(Self {
            base,
            mapping: (mapped, mapped_bytes),
            notes: (0..count).map(|_| Note::default()).collect(),
            lasting,
            pool: Mutex::new(pool),
            epochs: Arc::clone(epochs),
            growth: Event::default(),
        }))
    }

    /// How many there are to stay.
    pub(crate) fn lasting(&self) -> usize {
        self.lasting as usize
    }

    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock()
    }

    pub(crate) fn epochs(&self) -> &Arc<Epochs> {
        &self.epochs
    }

    /// How many are free, or will be as soon as pins have ended.
    pub(crate) fn idle(&self) -> usize {
        let pool = self.pool.lock();
        pool.free.len() + pool.retired_frames
    }

    /// Room for a block of `bytes`; `None` when it has not so many free frames.
    ///
    /// # Panics
    /// When no block has so many bytes.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<FrameBuf> {
        let units = bytes.div_ceil(UNIT);
        assert!((1..=BLOCK_FRAMES_MAX).contains(&units), "a block of {bytes} bytes");
        let mut pool = self.pool.lock();
        if pool.free.len() < units {
            self.reclaim(&mut pool);
        }
        if pool.free.len() < units {
            return None;
        }
        let mut first = NONE;
        let Pool { free, highest, .. } = &mut *pool;
        for number in free.drain_last(units) {
            *highest = (*highest).max(number);
            // Relaxed, as are all stores to notes of owned frames: who publishes
            // the frame releases them.
            self.note(number).next.store(first, Ordering::Relaxed);
            first = number;
        }
        let begins = !pool.is_growing && self.wants_growth(&pool);
        pool.is_growing |= begins;
        drop(pool);
        if begins {
            self.growth.set();
        }
        let note = self.note(first);
        note.bytes.store(bytes as u32, Ordering::Relaxed);
        note.frequency.store(0, Ordering::Relaxed);
        Some(FrameBuf { frames: Arc::clone(self), first })
    }

    /// Whether frames that have no memory yet will soon be given out.
    fn wants_growth(&self, pool: &Pool) -> bool {
        pool.highest + GROWTH_AHEAD > pool.grown && pool.grown < self.lasting
    }

    /// Set when [`Frames::grow`] has something to do.
    pub(crate) fn growth(&self) -> &Event {
        &self.growth
    }

    /// Gives memory to the frames that will be given out next, before somebody has
    /// to wait for it: the kernel fills a huge page with zeroes first, which may
    /// take milliseconds. Whether there were such frames.
    pub(crate) fn grow(&self) -> bool {
        let grown = {
            let mut pool = self.pool.lock();
            pool.is_growing = self.wants_growth(&pool);
            if !pool.is_growing {
                return false;
            }
            pool.grown as usize
        };
        let count = (HUGE_PAGE_BYTES / UNIT).min(self.lasting() - grown);
        self.populate(grown as u32 + 1, count);
        self.pool.lock().grown += count as u32;
        true
    }

    /// Gives memory to so many frames from `first` on.
    pub(super) fn populate(&self, first: u32, count: usize) {
        let (start, bytes) = self.range(first, count);
        let (start, advice) = (start.as_ptr().cast(), Advice::LinuxPopulateWrite);
        // SAFETY: the range is within the mapping, and what it holds stays.
        let populated = unsafe { rustix::mm::madvise(start, bytes, advice) };
        if let Err(errno) = populated {
            // They get it when they are used.
            tracing::debug!(%errno, "the block cache does not grow ahead of its use");
        }
    }

    /// Takes the memory of so many frames from `first` on, which are all parked:
    /// they have none, or zeroes, from then on.
    pub(super) fn strip(&self, first: u32, count: usize) -> std::io::Result<()> {
        let (start, bytes) = self.range(first, count);
        let (start, advice) = (start.as_ptr().cast(), Advice::LinuxDontNeed);
        // SAFETY: the range is within the mapping. Nobody has a parked frame, and
        // whoever calls this is the only one to give it out. What it holds is
        // plain bytes, and so are the zeroes that come in their place.
        let stripped = unsafe { rustix::mm::madvise(start, bytes, advice) };
        stripped.map_err(std::io::Error::from)
    }

    /// Where so many frames from `first` on lie, and their bytes.
    fn range(&self, first: u32, count: usize) -> (NonNull<u8>, usize) {
        assert!(first as usize - 1 + count <= self.notes.len(), "{count} frames from {first} on");
        (self.address(first), count * UNIT)
    }

    /// Makes free what nobody looks at any more.
    fn reclaim(&self, pool: &mut Pool) {
        let Pool { free, regions, retired, retired_frames, .. } = pool;
        retired.take_free(&self.epochs, |first| {
            *retired_frames -= self.units(first) as usize;
            // Acquire: the reads of holds that have ended. Once there is the
            // bit, whoever holds the block may free it at any moment.
            if self.note(first).holds.fetch_or(UNSEEN, Ordering::AcqRel) == 0 {
                regions.sort_out(self.chain(first), free);
            }
        });
    }

    /// The same, now.
    pub(super) fn reclaim_now(&self) {
        self.reclaim(&mut self.pool.lock());
    }

    /// Makes a chain free that belongs to the caller alone.
    fn free(&self, first: u32) {
        // Called by `drop`, perhaps while a panic unwinds.
        let mut pool = self.pool.lock_though_broken();
        let Pool { free, regions, .. } = &mut *pool;
        regions.sort_out(self.chain(first), free);
    }

    /// The frames of the block that begins with `first`, which is owned or published.
    pub(super) fn numbers(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        self.chain(first)
    }

    /// These frames as what lends them.
    pub(crate) fn lender(self: &Arc<Self>) -> Arc<dyn Lender> {
        Arc::clone(self) as Arc<dyn Lender>
    }

    /// The frame that `buf` was made of, by [`FrameBuf::lend`]; any other
    /// buffer comes back as it was.
    pub(crate) fn regain(self: &Arc<Self>, buf: IoBuf) -> Result<FrameBuf, IoBuf> {
        let first = buf.into_lent(&self.lender())?;
        Ok(FrameBuf { frames: Arc::clone(self), first })
    }

    /// The chain that begins with this frame; it is owned, published or
    /// retired.
    fn chain(&self, first: u32) -> Chain<'_> {
        Chain { frames: self, next: first }
    }

    #[inline]
    fn note(&self, number: u32) -> &Note {
        &self.notes[number as usize - 1]
    }

    /// Where a frame's bytes begin.
    #[inline]
    fn address(&self, number: u32) -> NonNull<u8> {
        let index = number as usize - 1;
        assert!(index < self.notes.len(), "there is no frame {number}");
        // SAFETY: the mapping has a unit for each note.
        unsafe { self.base.add(index * UNIT) }
    }

    /// Has the processor fetch what a walk over the block that begins with this
    /// frame looks at first: its note, and both ends of its first frame, where
    /// entries and restart points are. The rest follows by itself.
    #[inline]
    fn prefetch(&self, first: u32) {
        prefetch_line(std::ptr::from_ref(self.note(first)).cast());
        let start = self.address(first).as_ptr().cast_const();
        let lines = UNIT / LINE_BYTES;
        for range in [0..PREFETCHED_FIRST, lines - PREFETCHED_LAST..lines] {
            for line in range {
                prefetch_line(start.wrapping_add(line * LINE_BYTES));
            }
        }
    }

    /// Frames of the block that begins with this frame, which is not retired.
    pub(crate) fn units(&self, first: u32) -> u32 {
        self.note(first).bytes.load(Ordering::Relaxed).div_ceil(UNIT as u32)
    }

    /// How often the block that begins with this frame was used since it was
    /// published or last passed over.
    pub(crate) fn frequency(&self, first: u32) -> u8 {
        self.note(first).frequency.load(Ordering::Relaxed)
    }

    /// Sets it. A use at the same moment may be forgotten.
    pub(crate) fn set_frequency(&self, first: u32, frequency: u8) {
        self.note(first).frequency.store(frequency, Ordering::Relaxed);
    }
}

/// Has the processor fetch a cache line, where it is told so.
#[inline]
fn prefetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing that a program can see, and faults at no
    // address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

impl Drop for Frames {
    fn drop(&mut self) {
        let (base, bytes) = (self.mapping.0.as_ptr().cast(), self.mapping.1);
        // SAFETY: this is the whole of what was mapped. Whoever has or sees a
        // frame keeps this alive: buffers and links by an `Arc`, hits through
        // the links they borrow.
        let unmapped = unsafe { rustix::mm::munmap(base, bytes) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "the memory of a block cache stays mapped");
        }
    }
}

// SAFETY: the mapping is made with the frames and unmapped when they are dropped;
// the kernel gives it filled with zeroes.
unsafe impl Lender for Frames {
    fn memory(&self) -> (NonNull<u8>, usize) {
        (self.base, self.lasting() * UNIT)
    }

    fn take_back(&self, number: u32) {
        self.free(number);
    }
}

/// Taking the last of a vector, in the order in which they lie there.
trait DrainLast {
    fn drain_last(&mut self, count: usize) -> std::vec::Drain<'_, u32>;
}

impl DrainLast for Vec<u32> {
    fn drain_last(&mut self, count: usize) -> std::vec::Drain<'_, u32> {
        let start = self.len() - count;
        self.drain(start..)
    }
}

/// The frames of a block, in order.
struct Chain<'a> {
    frames: &'a Frames,
    next: u32,
}

impl Iterator for Chain<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let number = self.next;
        if number == NONE {
            return None;
        }
        self.next = self.frames.note(number).next.load(Ordering::Relaxed);
        Some(number)
    }
}

/// The frames of one block that is to be published, for their holder alone.
/// They are free again if it is dropped.
pub(crate) struct FrameBuf {
    frames: Arc<Frames>,
    /// `NONE` once it was published.
    first: u32,
}

impl FrameBuf {
    /// The block's bytes.
    fn bytes(&self) -> usize {
        self.frames.note(self.first).bytes.load(Ordering::Relaxed) as usize
    }

    /// Makes a buffer of its only frame, for a read to land in.
    ///
    /// # Panics
    /// When it has several.
    pub(crate) fn lend(mut self) -> IoBuf {
        let first = self.first;
        assert_eq!(self.frames.units(first), 1, "frames do not lie side by side");
        self.first = NONE;
        let (base, lender) = (self.frames.address(first), self.frames.lender());
        // SAFETY: a frame is one unit of the mapping, which is initialised, and
        // is unmapped with the frames, which the lender is. This one was owned by
        // `self`, which gave it up: nobody else touches it before `take_back` or
        // `regain` gets its number.
        unsafe { IoBuf::lent(base, UNIT, lender, first) }
    }

    /// Says how many bytes the block has after all: not more than its frame has
    /// room for.
    pub(crate) fn set_bytes(&mut self, bytes: usize) {
        let is_same = bytes.div_ceil(UNIT) == self.frames.units(self.first) as usize;
        assert!(is_same, "a block of {bytes} bytes takes other frames than these");
        self.frames.note(self.first).bytes.store(bytes as u32, Ordering::Relaxed);
    }

    /// Copies the block into its frames.
    ///
    /// # Panics
    /// Unless it has just the bytes that the frames were taken for.
    pub(crate) fn fill(&mut self, block: &[u8]) {
        assert_eq!(block.len(), self.bytes(), "another block");
        let mut parts = block.chunks(UNIT);
        for number in self.frames.chain(self.first) {
            let part = parts.next().unwrap_or_default();
            let to = self.frames.address(number);
            // SAFETY: the frame is a unit long, and a part no longer. It is
            // owned by this buffer, which is borrowed mutably: nobody else
            // touches it. `part` cannot lie in it, as nobody could have
            // borrowed from there.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), to.as_ptr(), part.len()) };
        }
    }
}

impl Drop for FrameBuf {
    fn drop(&mut self) {
        if self.first != NONE {
            self.frames.free(self.first);
        }
    }
}

/// The links from a table's blocks to frames: what an open table has to find
/// its blocks in the cache, without searching.
///
/// Only this module stores to the entries, and only chains of its own frames,
/// each in one entry: that is why a hit may trust a number.
pub(crate) struct Links {
    frames: Arc<Frames>,
    table: u64,
    /// Of each block the first frame, or `NONE`.
    firsts: Box<[AtomicU32]>,
}

impl Links {
    /// For a table of so many blocks. `table` tells it from all other tables.
    pub(crate) fn new(frames: &Arc<Frames>, table: u64, blocks: u32) -> Self {
        let firsts = (0..blocks).map(|_| AtomicU32::new(NONE)).collect();
        Self { frames: Arc::clone(frames), table, firsts }
    }

    pub(crate) fn table(&self) -> u64 {
        self.table
    }

    pub(crate) fn blocks(&self) -> u32 {
        self.firsts.len() as u32
    }

    /// Whether there is a link at this moment.
    pub(crate) fn is_linked(&self, block: u32) -> bool {
        self.firsts[block as usize].load(Ordering::Relaxed) != NONE
    }

    /// The first frame of a block, if there is such a block, and it is there. For who
    /// keeps others from unlinking it.
    pub(super) fn first(&self, block: u32) -> Option<u32> {
        // Acquire: the notes of the chain.
        let first = self.firsts.get(block as usize)?.load(Ordering::Acquire);
        Some(first).filter(|&first| first != NONE)
    }

    /// Has the processor fetch the block, if it is there: somebody looks at it soon.
    #[inline]
    pub(crate) fn prefetch(&self, block: u32) {
        let first = self.firsts[block as usize].load(Ordering::Relaxed);
        // It may be another block's by now: then the wrong one is fetched.
        if first != NONE {
            self.frames.prefetch(first);
        }
    }

    /// The block, if it is there, for as long as the guard lives.
    #[inline]
    pub(crate) fn get<'a>(&'a self, guard: &'a Guard<'_>, block: u32) -> Option<Hit<'a>> {
        assert!(guard.is_of(&self.frames.epochs), "a pin of another database's epochs");
        // Acquire: what was stored to the frames and their notes before the
        // block was published. The pin's fence came before.
        let first = self.firsts[block as usize].load(Ordering::Acquire);
        if first == NONE {
            return None;
        }
        let note = self.frames.note(first);
        let is_own = note.block.load(Ordering::Relaxed) == block
            && note.table.load(tally::Ordering::Relaxed) == self.table;
        assert!(is_own, "frame {first} holds another block than table {}, {block}", self.table);
        let frequency = note.frequency.load(Ordering::Relaxed);
        if frequency < FREQUENCY_MAX {
            // Two uses at once may count as one. A block that everybody uses is
            // at the limit, and its note is not written any more.
            note.frequency.store(frequency + 1, Ordering::Relaxed);
        }
        guard.count_hit();
        let bytes = note.bytes.load(Ordering::Relaxed) as usize;
        Some(Hit { parts: Parts { frames: &self.frames, first, bytes }, _guard: guard })
    }

    /// Lets readers see the block that was filled into `buf`, unless it is there
    /// already. Its first frame, if so; and a hold of it in any case.
    pub(crate) fn publish(&self, block: u32, mut buf: FrameBuf) -> (Option<u32>, Held) {
        assert!(Arc::ptr_eq(&self.frames, &buf.frames), "frames of another cache");
        let first = std::mem::replace(&mut buf.first, NONE);
        let note = self.frames.note(first);
        note.block.store(block, Ordering::Relaxed);
        note.table.store(self.table, tally::Ordering::Relaxed);
        note.holds.store(1, Ordering::Relaxed);
        let held = Held { frames: Arc::clone(&self.frames), first };
        // Release: the frames and their notes are complete for whoever sees the
        // link.
        let link = &self.firsts[block as usize];
        match link.compare_exchange(NONE, first, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => (Some(first), held),
            Err(_) => {
                // Nobody will see it but through the hold.
                note.holds.store(1 | UNSEEN, Ordering::Relaxed);
                (None, held)
            }
        }
    }

    /// Takes the block away, if it is there: what was its first frame, and how
    /// many it had.
    pub(crate) fn unlink(&self, block: u32) -> Option<(u32, u32)> {
        // Whoever swaps the number out, one alone, retires the chain. Acquire:
        // its notes, to whose `next` the chain is followed.
        let first = self.firsts[block as usize].swap(NONE, Ordering::AcqRel);
        if first == NONE {
            return None;
        }
        // Once it is retired, somebody else may have it at any moment.
        let units = self.frames.units(first);
        let mut pool = self.frames.pool.lock();
        pool.retired_frames += units as usize;
        pool.retired.push(&self.frames.epochs, first);
        Some((first, units))
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Links({} blocks of table {:016x})", self.blocks(), self.table)
    }
}

/// The bytes of a block that nobody writes for 'a.
struct Parts<'a> {
    frames: &'a Arc<Frames>,
    first: u32,
    bytes: usize,
}

impl<'a> Parts<'a> {
    /// Frame by frame.
    fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (frames, mut left) = (&**self.frames, self.bytes);
        frames.chain(self.first).map(move |number| {
            let bytes = left.min(UNIT);
            left -= bytes;
            let address = frames.address(number);
            // SAFETY: a frame has a unit of initialised bytes. This one is of a
            // chain that is published, or retired and not free before 'a ends:
            // its link was found under a guard that outlives 'a, or it is held
            // for so long. In neither state does anybody write it.
            unsafe { std::slice::from_raw_parts(address.as_ptr(), bytes) }
        })
    }

    fn whole(&self) -> Option<&'a [u8]> {
        if self.bytes <= UNIT { self.iter().next() } else { None }
    }

    fn gather(&self, into: &mut Vec<u8>) {
        into.clear();
        into.reserve(self.bytes);
        self.iter().for_each(|part| into.extend_from_slice(part));
    }
}

/// A cached block, under a guard.
pub(crate) struct Hit<'a> {
    parts: Parts<'a>,
    _guard: &'a Guard<'a>,
}

impl<'a> Hit<'a> {
    /// The block in place, if it takes one frame.
    #[inline]
    pub(crate) fn whole(&self) -> Option<&'a [u8]> {
        self.parts.whole()
    }

    /// Copies the block.
    pub(crate) fn gather(&self, into: &mut Vec<u8>) {
        self.parts.gather(into);
    }

    /// Holds the block, also when the guard is gone.
    pub(crate) fn hold(&self) -> Held {
        // The pin keeps the block from being free before it is held. Relaxed: who
        // reclaims it sees that the pin has ended, and with that the hold.
        Held::another(self.parts.frames, self.parts.first)
    }

    /// The block, frame by frame.
    #[cfg(test)]
    pub(super) fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.parts.iter()
    }
}

/// A block that stays as it is for whoever holds it, also when it leaves the
/// cache meanwhile. Its frames come back only after that.
pub(crate) struct Held {
    frames: Arc<Frames>,
    first: u32,
}

impl Held {
    /// One more hold of a block that a pin or a hold keeps meanwhile.
    fn another(frames: &Arc<Frames>, first: u32) -> Self {
        let before = frames.note(first).holds.fetch_add(1, Ordering::Relaxed);
        assert!(before & !UNSEEN < UNSEEN / 2, "a block is held too often");
        Self { frames: Arc::clone(frames), first }
    }

    fn parts(&self) -> Parts<'_> {
        let bytes = self.frames.note(self.first).bytes.load(Ordering::Relaxed) as usize;
        Parts { frames: &self.frames, first: self.first, bytes }
    }

    /// The block in place, if it takes one frame.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        self.parts().whole()
    }

    /// Copies the block.
    pub(crate) fn gather(&self, into: &mut Vec<u8>) {
        self.parts().gather(into);
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        // Relaxed: this hold keeps the block meanwhile.
        Self::another(&self.frames, self.first)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Release: the reads of this hold are over, for whoever frees the block.
        // Acquire: so are those of all others.
        let before = self.frames.note(self.first).holds.fetch_sub(1, Ordering::AcqRel);
        if before == UNSEEN | 1 {
            self.frames.free(self.first);
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held(frame {})", self.first)
    }
}
