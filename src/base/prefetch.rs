//! Telling the processor what will be looked at soon.

#![expect(unsafe_code, reason = "the instruction takes an address")]

/// A cache line of the processor.
pub(crate) const LINE_BYTES: usize = 64;

/// Has the processor fetch the cache line that has this address, where it can be
/// told so. Any address will do.
#[inline]
pub(crate) fn prefetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing that a program can see, and faults at no
    // address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The same for bytes that follow one another.
#[inline]
pub(crate) fn prefetch(bytes: &[u8]) {
    for line in (0..bytes.len()).step_by(LINE_BYTES) {
        prefetch_line(&raw const bytes[line]);
    }
}
