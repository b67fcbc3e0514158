//! Memory that comes from the kernel, and goes back to it as soon as it is dropped.
//!
//! An allocator keeps what is freed for whoever asks next. Where long buffers come
//! and go between small things that stay, on many threads, that soon is more than
//! what is in use: with the C library's, two thirds of all memory that was there for
//! allocations, after some minutes of writes, compactions and openings. Memory of
//! buffers of this kind is counted against a budget, and so is no longer there when
//! nobody uses it.

#![expect(unsafe_code, reason = "memory of the kernel's is known by its address alone")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use crate::base::limits::UNIT;

/// Shorter memory is the allocator's: a call of the kernel, and a fault for each page
/// that is touched, would cost more than the work on it.
pub(crate) const PAGES_BYTES_MIN: usize = 64 << 10;

/// Zeroed memory of its own, aligned to [`UNIT`].
pub(crate) struct Pages {
    base: NonNull<u8>,
    len: usize,
    /// It is the allocator's after all.
    is_allocated: bool,
}

// SAFETY: plain bytes, bound to no thread, which belong to this value alone.
unsafe impl Send for Pages {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Pages {}

impl Pages {
    /// `len` bytes, more than none. Where there is no memory for them the process is
    /// aborted, as by any allocation.
    pub(crate) fn zeroed(len: usize) -> Self {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        let anywhere = std::ptr::null_mut();
        // SAFETY: the kernel puts a new mapping where the process has no memory yet.
        let mapped = unsafe { rustix::mm::mmap_anonymous(anywhere, len, access, flags) };
        match mapped.ok().and_then(|base| NonNull::new(base.cast())) {
            Some(base) => Self { base, len, is_allocated: false },
            // A process may have so many mappings; the allocator needs fewer.
            None => Self::allocated(len),
        }
    }

    fn allocated(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: `layout` has more than no bytes.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) });
        let base = base.unwrap_or_else(|| handle_alloc_error(layout));
        Self { base, len, is_allocated: true }
    }

    fn layout(len: usize) -> Layout {
        assert!(len > 0, "no bytes");
        Layout::from_size_align(len, UNIT).expect("less than all of the memory there can be")
    }
}

impl Deref for Pages {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: there are so many bytes, which were zeroed, for as long as `self`
        // lives; whoever writes them borrows it mutably.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl DerefMut for Pages {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; and nobody else reads them.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.is_allocated {
            // SAFETY: it was allocated with this layout, and nobody borrows from it.
            return unsafe { dealloc(self.base.as_ptr(), Self::layout(self.len)) };
        }
        // SAFETY: this is the whole of what was mapped, and nobody borrows from it.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "the memory of a buffer stays mapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of `/proc/self/maps` that hold this address.
    fn is_mapped(at: usize) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|line| {
            let (start, rest) = line.split_once('-').unwrap();
            let (end, _) = rest.split_once(' ').unwrap();
            let number = |hex| usize::from_str_radix(hex, 16).unwrap();
            (number(start)..number(end)).contains(&at)
        })
    }

    #[test]
    fn memory_is_zeroed_and_goes_back() {
        // Nobody else maps as much, who could take its place.
        let mut pages = Pages::zeroed((1 << 30) + 5);
        assert_eq!(pages.len(), (1 << 30) + 5);
        let at = pages.as_ptr().addr();
        assert!(at.is_multiple_of(UNIT) && is_mapped(at));
        pages[1 << 30] = 7;
        assert_eq!((pages[(1 << 30) - 1], pages[1 << 30], pages[(1 << 30) + 1]), (0, 7, 0));
        drop(pages);
        assert!(!is_mapped(at + (1 << 29)));
    }

    #[test]
    fn the_allocator_has_memory_where_the_kernel_has_no_mapping() {
        let mut pages = Pages::allocated(5 * UNIT + 1);
        assert!(pages.as_ptr().addr().is_multiple_of(UNIT));
        assert!(pages.len() == 5 * UNIT + 1 && pages.iter().all(|byte| *byte == 0));
        pages[5 * UNIT] = 7;
        assert_eq!(pages[5 * UNIT], 7);
    }
}
