//! Every decoder of bytes from disk as a fuzz target, and a whole directory as
//! one. `tools/fuzz` runs them.
//!
//! A target takes any bytes and panics where the engine breaks a promise: a
//! decoder does not panic; it takes no more memory than its input justifies
//! (`within`); and what it accepts, the encoder writes again. As nearly no
//! made-up bytes have a right checksum, targets decode them as they are, and once
//! more *sealed*, with the checksum that they should have.

mod block;
mod directory;
mod disk;
mod log;
mod parts;
mod seals;
mod table;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use crate::base::checksum::Seed;
use crate::base::ids::{DbId, Epoch};
use crate::base::limits::round_up;

/// Something to fuzz.
#[derive(Debug)]
pub struct Target {
    /// What it is called.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Inputs to start from, which real encoders made.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All there are.
pub static TARGETS: [Target; 19] = [
    Target { name: "varint", run: parts::varint, seeds: parts::varint_seeds },
    Target { name: "header", run: parts::header, seeds: parts::header_seeds },
    Target { name: "record", run: parts::record, seeds: parts::record_seeds },
    Target { name: "edit", run: parts::edit, seeds: parts::edit_seeds },
    Target { name: "reference", run: parts::reference, seeds: parts::reference_seeds },
    Target { name: "log", run: log::run, seeds: log::seeds },
    Target { name: "block", run: block::plain, seeds: block::plain_seeds },
    Target { name: "lz4", run: block::lz4, seeds: block::lz4_seeds },
    Target { name: "zstd", run: block::zstd, seeds: block::zstd_seeds },
    Target { name: "filter", run: table::filter, seeds: table::filter_seeds },
    Target { name: "index", run: table::index, seeds: table::index_seeds },
    Target { name: "partition", run: table::partition, seeds: table::partition_seeds },
    Target { name: "top_index", run: table::top_index, seeds: table::top_index_seeds },
    Target { name: "ranges", run: table::ranges, seeds: table::ranges_seeds },
    Target { name: "properties", run: table::properties, seeds: table::properties_seeds },
    Target { name: "footer", run: table::footer, seeds: table::footer_seeds },
    Target { name: "identity", run: disk::identity, seeds: disk::identity_seeds },
    Target { name: "manifest", run: disk::manifest, seeds: disk::manifest_seeds },
    Target { name: "directory", run: directory::run, seeds: directory::seeds },
];

/// The target of this name.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
}

/// Tells how much memory is in use: an allocator that counts.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// Counts the peak from now on.
    pub begin: fn(),
    /// Bytes in use at the peak, beyond those in use when it began.
    pub peak: fn() -> usize,
}

static METER: OnceLock<Meter> = OnceLock::new();

/// Has decoders watched by this meter. Without one their memory is not bounded.
pub fn set_meter(meter: Meter) {
    METER.get_or_init(|| meter);
}

/// Has `decode` look at so many bytes, for which it may take `factor` times as
/// many of memory, and `more`.
fn within<T>(bytes: usize, factor: usize, more: usize, decode: impl FnOnce() -> T) -> T {
    let Some(meter) = METER.get() else { return decode() };
    (meter.begin)();
    let decoded = decode();
    let (peak, most) = ((meter.peak)(), bytes * factor + more);
    assert!(peak <= most, "{peak} bytes of memory for {bytes} bytes of input; {most} may be");
    decoded
}

/// What an error takes: its message.
const ERROR_BYTES: usize = 1024;

const DB: DbId = DbId([5; 16]);
const EPOCH: Epoch = 3;
const TABLE: [u8; 16] = [9; 16];

/// The seed of some place in a table.
fn place() -> Seed {
    crate::format::table::seed_at(&TABLE, 4096)
}

/// The bytes, and zeroes up to whole units, at least one.
fn padded(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    bytes.resize(round_up(data.len().max(1)), 0);
    bytes
}

/// Without the zeroes at the end.
fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(len);
    bytes
}
