//! Buffers for direct I/O: aligned, owned by the request while it is in
//! flight, and taken from pools (or a shared mapping, or lent by a higher
//! floor) so that steady work allocates nothing.

#![expect(
    unsafe_code,
    reason = "several threads fill disjoint parts of one group buffer; pools have no lock; memory \
              may be lent"
)]

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use aligned_vec::{ABox, AVec, ConstAlign};

use super::mapping::{Mapping, Part};
use super::pages::{PAGES_BYTES_MIN, Pages};
use crate::base::limits::{UNIT, round_up};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

/// Memory of a buffer's own.
enum Memory {
    Heap(ABox<[u8], ConstAlign<UNIT>>),
    Pages(Pages),
}

fn zeroed(len: usize) -> Memory {
    assert!(len > 0 && len.is_multiple_of(UNIT), "{len} bytes are not whole units");
    if len >= PAGES_BYTES_MIN {
        return Memory::Pages(Pages::zeroed(len));
    }
    let mut memory = AVec::<u8, ConstAlign<UNIT>>::with_capacity(UNIT, len);
    memory.resize(len, 0);
    Memory::Heap(memory.into_boxed_slice())
}

impl Deref for Memory {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Heap(memory) => memory,
            Self::Pages(pages) => pages,
        }
    }
}

impl DerefMut for Memory {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(memory) => memory,
            Self::Pages(pages) => pages,
        }
    }
}

/// An aligned buffer of whole units that belongs to one holder at a time.
/// Goes back to its pool or its lender, if it has one, when it is dropped.
pub(crate) struct IoBuf {
    backing: Backing,
    pool: Option<Arc<BufferPool>>,
    /// Index under which a ring has registered the memory.
    registered: Option<u16>,
}

/// What a buffer stands on.
enum Backing {
    Own(Memory),
    Lent(Lent),
    /// Only within `drop` and [`IoBuf::into_lent`].
    Gone,
}

/// Who lends memory to buffers.
///
/// # Safety
/// [`Lender::memory`] is always the same, and stays mapped and initialised as
/// long as the lender lives; so do its pages.
pub(crate) unsafe trait Lender: Send + Sync {
    /// The memory that it lends parts of: where it starts, and its bytes. It may
    /// lend other memory beside, whose pages come and go.
    fn memory(&self) -> (NonNull<u8>, usize);

    /// The buffer over the memory with this number was dropped: nobody touches
    /// that memory any more. May be called on any thread, also while a panic
    /// unwinds.
    fn take_back(&self, number: u32);
}

/// Memory that somebody lent.
struct Lent {
    base: NonNull<u8>,
    len: usize,
    number: u32,
    lender: Arc<dyn Lender>,
}

// SAFETY: plain bytes, bound to no thread, which the buffer has for itself:
// see `IoBuf::lent`.
unsafe impl Send for Lent {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Lent {}

impl IoBuf {
    /// A zeroed buffer of `len` bytes, a positive multiple of [`UNIT`].
    pub(crate) fn zeroed(len: usize) -> Self {
        Self { backing: Backing::Own(zeroed(len)), pool: None, registered: None }
    }

    /// A buffer over memory of somebody else's, who knows it by `number`.
    ///
    /// # Panics
    /// When the memory is not whole units, or not aligned to one.
    ///
    /// # Safety
    /// From `base` on there are `len` initialised bytes, which stay where they
    /// are as long as `lender` lives. Nobody else touches them before the lender
    /// was told to take them back, or got `number` back from
    /// [`IoBuf::into_lent`].
    pub(crate) unsafe fn lent(
        base: NonNull<u8>,
        len: usize,
        lender: Arc<dyn Lender>,
        number: u32,
    ) -> Self {
        let is_aligned = base.addr().get().is_multiple_of(UNIT);
        assert!(is_aligned && len > 0 && len.is_multiple_of(UNIT), "{len} bytes at {base:?}");
        let backing = Backing::Lent(Lent { base, len, number, lender });
        Self { backing, pool: None, registered: None }
    }

    /// Whether the memory is somebody else's.
    pub(crate) fn is_lent(&self) -> bool {
        matches!(self.backing, Backing::Lent(_))
    }

    /// Ends a buffer over memory that `lender` lent, which is not told: the
    /// memory's number. Any other buffer comes back as it was.
    pub(crate) fn into_lent(mut self, lender: &Arc<dyn Lender>) -> Result<u32, Self> {
        match std::mem::replace(&mut self.backing, Backing::Gone) {
            Backing::Lent(lent) if Arc::ptr_eq(&lent.lender, lender) => Ok(lent.number),
            other => {
                self.backing = other;
                Err(self)
            }
        }
    }

    /// The index a ring knows this memory by.
    pub(crate) fn registered(&self) -> Option<u16> {
        self.registered
    }
}

impl Deref for IoBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.backing {
            Backing::Own(memory) => memory,
            // SAFETY: the bytes are there and initialised as long as the lender
            // lives, whom `lent` holds, and nobody else writes them: what the
            // caller of `IoBuf::lent` promised.
            Backing::Lent(lent) => unsafe {
                std::slice::from_raw_parts(lent.base.as_ptr(), lent.len)
            },
            Backing::Gone => &[],
        }
    }
}

impl DerefMut for IoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.backing {
            Backing::Own(memory) => memory,
            // SAFETY: as in `deref`; and nobody else reads them.
            Backing::Lent(lent) => unsafe {
                std::slice::from_raw_parts_mut(lent.base.as_ptr(), lent.len)
            },
            Backing::Gone => &mut [],
        }
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        match (std::mem::replace(&mut self.backing, Backing::Gone), self.pool.take()) {
            (Backing::Own(memory), Some(pool)) => pool.put_back(memory, self.registered),
            (Backing::Lent(lent), _) => lent.lender.take_back(lent.number),
            (Backing::Own(_), None) | (Backing::Gone, _) => {}
        }
    }
}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoBuf({} bytes)", self.len())
    }
}

/// A bounded pool of buffers of one length.
///
/// Buffers beyond the bound are allocated when asked for, and freed when they
/// come back. A pool never blocks, and has no lock: a thread of the idle class,
/// which may be stopped anywhere for long, uses its owner's.
pub(crate) struct BufferPool {
    buffer_bytes: usize,
    places: Box<[Place]>,
    /// The buffers made by [`BufferPool::fill_registered`] are registered, each
    /// under the number of its place. Then no others are kept.
    is_registered: AtomicBool,
}

/// Room for one idle buffer.
#[derive(Default)]
struct Place {
    state: AtomicU8,
    memory: UnsafeCell<Option<Memory>>,
}

/// There is nothing in the place.
const EMPTY: u8 = 0;
/// One thread is putting a buffer there, or taking it away.
const BUSY: u8 = 1;
const FULL: u8 = 2;

// SAFETY: `memory` is touched only by the thread that changed the state to
// `BUSY`, which succeeds for one of them, until it changes the state again: a
// Release, which the Acquire of the next such change sees.
unsafe impl Sync for Place {}

impl Place {
    fn take(&self) -> Option<Memory> {
        let (relaxed, acquire) = (Ordering::Relaxed, Ordering::Acquire);
        self.state.compare_exchange(FULL, BUSY, acquire, relaxed).ok()?;
        // SAFETY: this thread has made the place busy.
        let memory = unsafe { (*self.memory.get()).take() };
        self.state.store(EMPTY, Ordering::Release);
        memory
    }

    /// Gives the memory back if the place is not empty.
    fn put(&self, memory: Memory) -> Option<Memory> {
        let (relaxed, acquire) = (Ordering::Relaxed, Ordering::Acquire);
        if self.state.compare_exchange(EMPTY, BUSY, acquire, relaxed).is_err() {
            return Some(memory);
        }
        // SAFETY: this thread has made the place busy.
        unsafe { *self.memory.get() = Some(memory) };
        self.state.store(FULL, Ordering::Release);
        None
    }
}

impl BufferPool {
    /// A pool that keeps at most `kept_max` idle buffers of `buffer_bytes`.
    pub(crate) fn new(buffer_bytes: usize, kept_max: usize) -> Arc<Self> {
        let places = (0..kept_max).map(|_| Place::default()).collect();
        Arc::new(Self { buffer_bytes, places, is_registered: AtomicBool::new(false) })
    }

    /// Fills the pool, which is new, and shows each buffer's memory to
    /// `register`, in the order of the indexes the buffers get. When it returns
    /// false the buffers stay, unregistered.
    pub(crate) fn fill_registered(&self, register: impl FnOnce(&[&[u8]]) -> bool) {
        let memories: Vec<Memory> = self.places.iter().map(|_| zeroed(self.buffer_bytes)).collect();
        let slices: Vec<&[u8]> = memories.iter().map(|m| &m[..]).collect();
        self.is_registered.store(register(&slices), Ordering::Release);
        for (place, memory) in self.places.iter().zip(memories) {
            assert!(place.put(memory).is_none(), "this pool was used before it was filled");
        }
    }

    /// A buffer with unspecified contents (never anybody's uninitialised
    /// memory).
    pub(crate) fn take(self: &Arc<Self>) -> IoBuf {
        let kept = self.places.iter().enumerate().find_map(|(i, place)| Some((i, place.take()?)));
        let (memory, registered) = match kept {
            Some((i, memory)) => {
                let is_registered = self.is_registered.load(Ordering::Acquire);
                (memory, is_registered.then_some(i as u16))
            }
            None => (zeroed(self.buffer_bytes), None),
        };
        IoBuf { backing: Backing::Own(memory), pool: Some(Arc::clone(self)), registered }
    }

    fn put_back(&self, memory: Memory, registered: Option<u16>) {
        match registered {
            Some(index) => {
                // Registered memory must outlive its ring, which holds the
                // pool. Nobody else uses the place.
                let refused = self.places[usize::from(index)].put(memory);
                assert!(refused.is_none(), "a buffer came back twice");
            }
            None if self.is_registered.load(Ordering::Acquire) => {}
            None => {
                // Freed if there is no place for it.
                let put = |memory, place: &Place| place.put(memory).ok_or(());
                drop(self.places.iter().try_fold(memory, put));
            }
        }
    }
}

/// A buffer that many threads fill at once, each its own part, and that is
/// then written with one request. It stands on memory of its own, or on a part
/// of a [`Mapping`].
///
/// The filling is bounded by [`Claim`]s: each byte is handed out once, in
/// order. Whoever writes the buffer first seals it, so that no more claims are
/// handed out, and waits until it is filled. It is written in whole units;
/// sealing zeroes what the claims left of the last one.
pub(crate) struct GroupBuf {
    memory: GroupMemory,
    base: *mut u8,
    capacity: usize,
    /// Bytes handed out in claims; with [`SEALED`] set, no more are.
    claimed: AtomicUsize,
    /// Bytes of claims that were dropped, and of the padding.
    filled: AtomicUsize,
    /// A claim was dropped before it was filled.
    abandoned: AtomicBool,
    /// Who waits until a sealed buffer is filled.
    writer: Mutex<Option<Waker>>,
}

/// What keeps a group's bytes where they are.
enum GroupMemory {
    Heap { _memory: Memory },
    Mapped { _part: Part },
}

/// The bit of `GroupBuf::claimed` that says that the buffer is sealed.
const SEALED: usize = 1 << (usize::BITS - 1);

// SAFETY: the only accesses through `base` are
// * that of a `Claim`, to bytes that no other claim has (reserve's
//   compare-exchange hands each byte out once),
// * that of the first `seal`, to bytes behind all claims, and
// * that of `filled_bytes`, only once the buffer is sealed, every claim was
//   dropped and the padding is there (each a Release on `filled`, Acquire on
//   reading it); from then on nobody writes until `reset` has exclusive access.
// `memory` itself is not touched while shared.
unsafe impl Send for GroupBuf {}
// SAFETY: as above.
unsafe impl Sync for GroupBuf {}

impl GroupBuf {
    /// A buffer of `capacity` bytes, a positive multiple of [`UNIT`], on the
    /// heap.
    pub(crate) fn new(capacity: usize) -> Self {
        let mut memory = zeroed(capacity);
        let base = memory.as_mut_ptr();
        Self::over(GroupMemory::Heap { _memory: memory }, base, capacity)
    }

    /// A buffer that stands on `capacity` bytes of a mapping, from `offset`
    /// on; both are multiples of [`UNIT`]. It keeps the mapping alive, and has
    /// these bytes for itself until it is dropped. They keep what they hold
    /// until claims replace it.
    ///
    /// # Panics
    /// When the mapping ends before, or another buffer has some of the bytes.
    pub(crate) fn mapped(mapping: &Arc<Mapping>, offset: usize, capacity: usize) -> Self {
        let whole = offset.is_multiple_of(UNIT) && capacity.is_multiple_of(UNIT);
        assert!(whole, "{capacity} bytes at {offset} are not whole units");
        let part = mapping.take(offset..offset + capacity);
        let base = part.base();
        Self::over(GroupMemory::Mapped { _part: part }, base, capacity)
    }

    fn over(memory: GroupMemory, base: *mut u8, capacity: usize) -> Self {
        Self {
            memory,
            base,
            capacity,
            claimed: AtomicUsize::new(0),
            filled: AtomicUsize::new(0),
            abandoned: AtomicBool::new(false),
            writer: Mutex::default(),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether its bytes are those of a mapped file.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.memory, GroupMemory::Mapped { .. })
    }

    /// Bytes claimed so far.
    pub(crate) fn claimed(&self) -> usize {
        self.claimed.load(Ordering::Acquire) & !SEALED
    }

    /// Hands out no more claims, and zeroes what follows them up to the next
    /// unit. Returns the bytes claimed.
    pub(crate) fn seal(&self) -> usize {
        let before = self.claimed.fetch_or(SEALED, Ordering::SeqCst);
        let end = before & !SEALED;
        if before & SEALED == 0 {
            // The padding counts as a last claim: before it is there, the
            // buffer is not filled.
            let padding = round_up(end) - end;
            // SAFETY: `end` is at most the capacity.
            let start = unsafe { self.base.add(end) };
            // SAFETY: the capacity is whole units, so the padding lies within
            // it. Claims end before it, no more are handed out, only one
            // caller finds the buffer unsealed, and `filled_bytes` refuses to
            // run until the padding is counted.
            unsafe { start.write_bytes(0, padding) };
            self.count_filled(padding);
        }
        end
    }

    /// Hands out the next `len` bytes; where they start.
    fn reserve(&self, len: usize) -> Option<usize> {
        let mut start = self.claimed.load(Ordering::Relaxed);
        loop {
            let end = start.checked_add(len).filter(|&end| end <= self.capacity)?;
            match self.claimed.compare_exchange_weak(
                start,
                end,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(start),
                Err(now) => start = now,
            }
        }
    }

    /// The next `len` bytes, for the caller to fill; `None` when the buffer
    /// is sealed or has no room for them.
    pub(crate) fn claim(self: &Arc<Self>, len: usize) -> Option<Claim> {
        let start = self.reserve(len)?;
        Some(Claim { buf: Arc::clone(self), start, len, filled: false })
    }

    /// Claims the next `len` bytes and fills them at once: `fill` gets where
    /// they start, and the bytes. `None` when the buffer is sealed or has no
    /// room for them. Should `fill` panic, the buffer is spoiled.
    pub(crate) fn fill<R>(
        &self,
        len: usize,
        fill: impl FnOnce(usize, &mut [u8]) -> R,
    ) -> Option<R> {
        let start = self.reserve(len)?;
        let mut claim = Claim { buf: self, start, len, filled: false };
        let result = fill(start, &mut claim);
        claim.finish();
        Some(result)
    }

    /// Counts bytes that nobody touches any more, and wakes the writer if they
    /// were the last.
    fn count_filled(&self, len: usize) {
        self.filled.fetch_add(len, Ordering::SeqCst);
        if self.is_filled() {
            let writer = self.writer.lock().take();
            if let Some(waker) = writer {
                waker.wake();
            }
        }
    }

    /// Whether the buffer is sealed and padded, and every claim was dropped.
    fn is_filled(&self) -> bool {
        let claimed = self.claimed.load(Ordering::SeqCst);
        claimed & SEALED != 0 && self.filled.load(Ordering::SeqCst) == round_up(claimed & !SEALED)
    }

    /// Ready once every claim on a sealed buffer was dropped: whether all of
    /// them were filled before.
    pub(crate) fn poll_filled(&self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.is_filled() {
            *self.writer.lock() = Some(cx.waker().clone());
            // The last claim may have been dropped just before.
            if !self.is_filled() {
                return Poll::Pending;
            }
        }
        Poll::Ready(!self.abandoned.load(Ordering::Acquire))
    }

    /// The first `len` bytes: those of claims, and zeroes up to the next unit.
    ///
    /// # Panics
    /// Unless the buffer is sealed and no claim is outstanding; and when `len`
    /// goes beyond the padding, where stale bytes may be.
    pub(crate) fn filled_bytes(&self, len: usize) -> &[u8] {
        assert!(self.claimed.load(Ordering::Acquire) & SEALED != 0, "this group is not sealed");
        assert!(self.is_filled(), "a claim on this group is still being filled");
        assert!(len <= round_up(self.claimed()), "{len} bytes go beyond the padding");
        // SAFETY: `base` points at `capacity` initialised bytes, and the
        // padding ends within them. No claim is outstanding, the padding is
        // there, and the seal keeps new claims from being handed out until
        // `reset`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.base, len) }
    }

    /// Makes the buffer empty again. What it holds stays until claims replace
    /// it: it is not written, for sealing zeroes what follows the claims.
    /// Exclusive access proves that nobody fills or writes it.
    pub(crate) fn reset(&mut self) {
        *self.claimed.get_mut() = 0;
        *self.filled.get_mut() = 0;
        *self.abandoned.get_mut() = false;
    }
}

/// A part of a [`GroupBuf`] that only its holder may touch. Dropping it without
/// [`Claim::finish`] spoils the whole buffer: a group with a hole in it must
/// not be written.
pub(crate) struct Claim<B: Deref<Target = GroupBuf> = Arc<GroupBuf>> {
    /// An `Arc` or a reference: always the same buffer, which stays alive.
    buf: B,
    start: usize,
    len: usize,
    filled: bool,
}

impl<B: Deref<Target = GroupBuf>> Claim<B> {
    /// The part is filled.
    pub(crate) fn finish(mut self) {
        self.filled = true;
    }
}

impl<B: Deref<Target = GroupBuf>> Deref for Claim<B> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as in `deref_mut`.
        let start = unsafe { self.buf.base.add(self.start) };
        // SAFETY: as in `deref_mut`.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

impl<B: Deref<Target = GroupBuf>> DerefMut for Claim<B> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: start + len is within the buffer.
        let start = unsafe { self.buf.base.add(self.start) };
        // SAFETY: the buffer's memory lives as long as `buf`, and is
        // initialised; these bytes were handed to this claim alone, and
        // `filled_bytes` refuses to run while it lives.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }
}

impl<B: Deref<Target = GroupBuf>> Drop for Claim<B> {
    fn drop(&mut self) {
        if !self.filled {
            self.buf.abandoned.store(true, Ordering::Release);
        }
        self.buf.count_filled(self.len);
    }
}

/// What a write request takes along.
pub(crate) enum WriteBuf {
    /// A whole buffer.
    Owned(IoBuf),
    /// The first bytes of a buffer.
    Prefix(IoBuf, usize),
    /// The first bytes of a filled group.
    Group(Arc<GroupBuf>, usize),
}

impl WriteBuf {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(buf) => buf,
            Self::Prefix(buf, len) => &buf[..*len],
            Self::Group(buf, len) => buf.filled_bytes(*len),
        }
    }

    /// The index a ring knows this memory by.
    pub(crate) fn registered(&self) -> Option<u16> {
        match self {
            Self::Owned(buf) | Self::Prefix(buf, _) => buf.registered(),
            Self::Group(..) => None,
        }
    }
}

impl From<IoBuf> for WriteBuf {
    fn from(buf: IoBuf) -> Self {
        Self::Owned(buf)
    }
}

#[cfg(test)]
mod tests;
