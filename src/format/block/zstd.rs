//! Blocks compressed with Zstandard: one frame each, without a dictionary and
//! without a checksum, since the block has its own.

use std::cell::RefCell;

use zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

/// zstd's own default. Higher levels gain little on so few kilobytes.
const LEVEL: i32 = 3;

/// Compresses one block after the other in the same memory: some hundred
/// kilobytes.
pub(super) struct Packer(CCtx<'static>);

impl Packer {
    pub(super) fn new() -> Self {
        let mut context = CCtx::create();
        let level = context.set_parameter(CParameter::CompressionLevel(LEVEL));
        level.expect("zstd has the level");
        Self(context)
    }

    /// Puts the compressed form of `content` into `packed`.
    pub(super) fn pack(&mut self, content: &[u8], packed: &mut Vec<u8>) {
        packed.resize(compress_bound(content.len()), 0);
        let bytes = self.0.compress2(&mut packed[..], content);
        packed.truncate(bytes.expect("the longest output has room"));
    }
}

thread_local! {
    /// Some hundred kilobytes, which each thread that reads such blocks keeps:
    /// to set them up takes longer than a block.
    static CONTEXT: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// Decompresses `packed` into `content`; how many bytes that made, `None` if it
/// is no sound frame or does not fit. All at once, so that zstd needs no window,
/// whatever length the frame asks for.
pub(super) fn unpack(packed: &[u8], content: &mut [u8]) -> Option<usize> {
    CONTEXT.with_borrow_mut(|context| context.decompress(content, packed)).ok()
}
