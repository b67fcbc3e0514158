//! Floor 0: what every other floor speaks in. Errors, identifiers, sequence
//! numbers, limits, checksums, the stable key hash, range tombstones, and the locks.
//!
//! Nothing here does I/O or reads a clock, nor draws a random number, but for the choice
//! of what is timed ([`latency`]).

pub(crate) mod checksum;
pub(crate) mod dumped;
pub(crate) mod durability;
pub(crate) mod error;
pub(crate) mod fault;
pub(crate) mod hash;
pub(crate) mod histogram;
pub(crate) mod ids;
pub(crate) mod keys;
pub(crate) mod latency;
pub(crate) mod limits;
pub(crate) mod planted;
pub(crate) mod ranges;
pub(crate) mod salvaged;
pub(crate) mod seq;
pub(crate) mod striped;
pub(crate) mod sync;
