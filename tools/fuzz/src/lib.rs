//! What the fuzz targets share: an allocator that counts, and the way from
//! libFuzzer to a target of the engine.

mod memory;

use ourodb::fuzz::{Meter, set_meter};

#[global_allocator]
static MEMORY: memory::Counting = memory::Counting;

/// Runs a target of the engine, whose decoders are watched for what memory they
/// take.
pub fn run(target: fn(&[u8]), data: &[u8]) {
    set_meter(Meter { begin: memory::begin, peak: memory::peak });
    target(data);
}

/// The entry of libFuzzer into the target of this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            static TARGET: std::sync::LazyLock<fn(&[u8])> =
                std::sync::LazyLock::new(|| ourodb::fuzz::target($name).run);
            $crate::run(*TARGET, data);
        });
    };
}
