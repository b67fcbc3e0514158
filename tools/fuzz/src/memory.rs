//! The system's allocator, and how much it has given out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts what goes through it.
pub(crate) struct Counting;

/// Bytes in use.
static USED: AtomicUsize = AtomicUsize::new(0);
/// The most of them since [`begin`].
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// Those in use then.
static BASE: AtomicUsize = AtomicUsize::new(0);

/// Counts the peak from now on.
pub(crate) fn begin() {
    let used = USED.load(Relaxed);
    BASE.store(used, Relaxed);
    PEAK.store(used, Relaxed);
}

/// Bytes in use at the peak, beyond those at the beginning.
pub(crate) fn peak() -> usize {
    PEAK.load(Relaxed).saturating_sub(BASE.load(Relaxed))
}

fn add(bytes: usize) {
    let used = USED.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(used, Relaxed);
}

fn subtract(bytes: usize) {
    USED.fetch_sub(bytes, Relaxed);
}

// SAFETY: each method does what the system's allocator does, with the same
// arguments; to count allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the allocator's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the allocator's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: the caller keeps the allocator's contract.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // Both are there while one is copied into the other.
        add(bytes);
        // SAFETY: the caller keeps the allocator's contract.
        let moved = unsafe { System.realloc(at, layout, bytes) };
        subtract(if moved.is_null() { bytes } else { layout.size() });
        moved
    }
}
