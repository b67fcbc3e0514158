//! Files mapped into memory, shared with the kernel's page cache.
//!
//! A store into a mapping costs no system call, and survives the death of the
//! process as a completed write does. It survives a power cut only once the
//! file was synced.
//!
//! Owns the mapped memory, and the record of who has which part of it: nobody
//! gets at the memory but through a [`Part`], and no two of them overlap.
//!
//! Relies on whoever maps a file: it is mapped once at a time, never cut, and
//! written by nobody else (the directory's lock keeps other processes away);
//! and its bytes were written before, for a store into a hole ends the process
//! (SIGBUS) when the disk is full.

#![expect(unsafe_code, reason = "mapped memory is known by its address alone")]

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::File;
use crate::base::error::{Error, Result};
use crate::base::limits::UNIT;
use crate::base::sync::tally::{AtomicU64, Ordering};
use crate::base::sync::{Mutex, assert_unlocked};

/// A file mapped shared, for reading and writing, from its first byte to its
/// last. Unmapped when it is dropped.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    /// The parts that somebody has, as ranges of bytes.
    taken: Mutex<Vec<Range<usize>>>,
    backing: Backing,
    /// Stays open as long as it is mapped.
    file: File,
}

/// Whose memory it is.
enum Backing {
    /// Pages of the kernel's cache.
    Os,
    /// Memory shared with the simulated machine, which is told when it ends.
    #[cfg(feature = "sim")]
    Sim { _mapped: super::sim::Mapped },
}

// SAFETY: the memory is reached through parts alone, which are disjoint; who
// has one answers for what happens in it. The rest is never changed, or stands
// behind a lock.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &File, base: NonNull<u8>, bytes: usize, backing: Backing) -> Self {
        assert!(base.addr().get().is_multiple_of(UNIT), "mapped memory starts at a page");
        Self { base, bytes, taken: Mutex::default(), backing, file: file.clone() }
    }

    /// Maps a file of the operating system that is `bytes` long.
    pub(super) fn of_file(file: &File, bytes: usize) -> Result<Self> {
        assert_unlocked("to map a file");
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED;
        let anywhere = std::ptr::null_mut();
        // SAFETY: the kernel puts a new mapping where the process has no
        // memory yet.
        let mapped = unsafe { rustix::mm::mmap(anywhere, bytes, access, flags, file.fd(), 0) };
        let base = mapped.map_err(|errno| match errno {
            Errno::NODEV => Error::unsupported(format!(
                "the file system of {} cannot map files into memory; put the database on one that \
                 can, such as ext4 or xfs",
                file.path().display()
            )),
            errno => Error::os("map", file.path(), errno.into()),
        })?;
        // Faults that a store would take. Kernels before 5.14 do not know it:
        // then the first stores take them.
        let advice = rustix::mm::Advice::LinuxPopulateWrite;
        // SAFETY: it changes no byte of what was just mapped.
        let populated = unsafe { rustix::mm::madvise(base, bytes, advice) };
        if let Err(error) = populated {
            tracing::debug!(%error, "a mapping is not populated");
        }
        let base = NonNull::new(base.cast()).expect("the kernel maps nothing at address zero");
        Ok(Self::new(file, base, bytes, Backing::Os))
    }

    /// A mapping of a simulated file; dropping `mapped` tells the machine.
    #[cfg(feature = "sim")]
    pub(super) fn simulated(file: &File, memory: &SimMemory, mapped: super::sim::Mapped) -> Self {
        Self::new(file, memory.base, memory.len(), Backing::Sim { _mapped: mapped })
    }

    /// The bytes of `range`, for the caller alone, until the part is dropped.
    ///
    /// # Panics
    /// When the range is not within the mapping, or somebody has some of it.
    pub(super) fn take(self: &Arc<Self>, range: Range<usize>) -> Part {
        assert!(range.start < range.end && range.end <= self.bytes, "{range:?} of {self:?}");
        let overlap = {
            let mut taken = self.taken.lock();
            let overlaps =
                |other: &&Range<usize>| other.start < range.end && range.start < other.end;
            let overlap = taken.iter().find(overlaps).cloned();
            if overlap.is_none() {
                taken.push(range.clone());
            }
            overlap
        };
        assert!(overlap.is_none(), "{range:?} of {self:?} is taken: {overlap:?}");
        Part { mapping: Arc::clone(self), range }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if matches!(self.backing, Backing::Os) {
            assert_unlocked("to unmap a file");
            // SAFETY: this is the whole of what was mapped. Every part keeps
            // the mapping, so there is none.
            let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
            if let Err(error) = unmapped {
                tracing::error!(%error, mapping = ?self, "a file stays mapped");
            }
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({}, {} bytes)", self.file.path().display(), self.bytes)
    }
}

/// Bytes of a mapping that belong to one holder. Given back when it is
/// dropped.
pub(super) struct Part {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl Part {
    /// Where the part starts. Its bytes are initialised; they may be read and
    /// written, by the part's holder alone, as long as the part lives.
    pub(super) fn base(&self) -> *mut u8 {
        // SAFETY: the range lies within the mapping.
        unsafe { self.mapping.base.add(self.range.start) }.as_ptr()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.mapping.taken.lock().retain(|range| *range != self.range);
    }
}

/// A number in a mapping: its first eight bytes, little-endian. The unit it is
/// in belongs to it.
pub(crate) struct MappedWord(Part);

// SAFETY: the memory is reached by atomic stores alone.
unsafe impl Send for MappedWord {}
// SAFETY: as above.
unsafe impl Sync for MappedWord {}

impl MappedWord {
    /// The number at `offset`, a multiple of [`UNIT`].
    ///
    /// # Panics
    /// When the mapping ends before, or somebody has the unit.
    pub(crate) fn new(mapping: &Arc<Mapping>, offset: usize) -> Self {
        assert!(offset.is_multiple_of(UNIT), "{offset} is not the start of a unit");
        Self(mapping.take(offset..offset + UNIT))
    }

    /// Sets the number. Whoever reads it after the process died finds what was
    /// stored in the mapping before it, too.
    pub(crate) fn store(&self, number: u64) {
        // SAFETY: the unit is this word's alone, aligned to far more than
        // eight bytes, and stays mapped as long as the part lives.
        let word = unsafe { AtomicU64::from_ptr(self.0.base().cast()) };
        word.store(number.to_le(), Ordering::Release);
    }
}

/// Checks what [`Io::map`](super::Io::map) asks of a file's length.
pub(super) fn check_length(file: &File, len: u64, bytes: usize) -> Result<()> {
    if len == bytes as u64 {
        return Ok(());
    }
    let reason = format!("the file ends after {len} bytes, but {bytes} are to be mapped");
    Err(Error::corruption(file.path(), len.min(bytes as u64), reason))
}

/// Memory of a simulated mapping, which outlives the process or the machine,
/// whichever ends first.
///
/// The machine reads it behind the back of those who have parts of it.
#[cfg(feature = "sim")]
pub(super) struct SimMemory {
    base: NonNull<u8>,
    bytes: usize,
    /// Reached through `base` alone.
    _memory: super::IoBuf,
}

#[cfg(feature = "sim")]
// SAFETY: parts are governed by the mapping. The machine reads and writes the
// memory in `read` and `write`, as raw bytes, and only when one of its own
// methods is called. All that runs on a simulated machine runs on the one
// thread that steps it, so at that moment nobody is within a store; and
// borrows of a part's bytes (those of a claim, or a group's filled bytes) end
// before their holder waits, or calls the machine.
unsafe impl Send for SimMemory {}
#[cfg(feature = "sim")]
// SAFETY: as above.
unsafe impl Sync for SimMemory {}

#[cfg(feature = "sim")]
impl SimMemory {
    /// Memory of `bytes` zeroes, a positive multiple of [`UNIT`].
    pub(super) fn zeroed(bytes: usize) -> Self {
        let mut memory = super::IoBuf::zeroed(bytes);
        let base = NonNull::from(&mut memory[..]).cast();
        Self { base, bytes, _memory: memory }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Copies the bytes from `offset` on.
    pub(super) fn read(&self, offset: usize, out: &mut [u8]) {
        let from = self.at(offset, out.len());
        // SAFETY: these bytes are initialised, and not those of `out`, which
        // is borrowed; nobody is within a store (see `Send` above).
        unsafe { from.copy_to_nonoverlapping(out.as_mut_ptr(), out.len()) }
    }

    /// Replaces the bytes from `offset` on.
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: as in `read`.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len()));
        // SAFETY: the offset lies within the memory.
        unsafe { self.base.add(offset) }.as_ptr()
    }
}

#[cfg(test)]
mod tests;
