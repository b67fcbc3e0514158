//! Limits that hold for every database.

/// The on-disk unit in bytes: every file is a whole number of units, and every
/// request of the engine starts and ends at one.
pub(crate) const UNIT: usize = 4096;

/// [`UNIT`] as a file offset.
pub(crate) const UNIT_U64: u64 = UNIT as u64;

/// The longest key, in bytes.
///
/// ```
/// assert_eq!(ourodb::KEY_BYTES_MAX, 65_535);
/// ```
pub const KEY_BYTES_MAX: usize = 65_535;

/// The longest value, in bytes. With a memory budget below 4 GiB it is a quarter
/// of the budget: see [`Options::memory`](crate::Options::memory).
///
/// ```
/// assert_eq!(ourodb::VALUE_BYTES_MAX, 1 << 30);
/// ```
pub const VALUE_BYTES_MAX: usize = 1 << 30;

/// The longest value that is in log and tables itself; longer ones are in value
/// files.
pub(crate) const INLINE_VALUE_BYTES_MAX: usize = 64 << 10;

/// The most shards a database may have.
pub(crate) const SHARDS_MAX: usize = 4096;

/// `bytes` rounded up to whole units.
pub(crate) const fn round_up(bytes: usize) -> usize {
    bytes.div_ceil(UNIT) * UNIT
}

/// `bytes` rounded up to whole units.
pub(crate) const fn round_up_u64(bytes: u64) -> u64 {
    bytes.div_ceil(UNIT_U64) * UNIT_U64
}

const _: () = assert!(UNIT.is_power_of_two());
const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize);
