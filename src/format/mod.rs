//! Floor 1: bytes on disk, and nothing else: no I/O, no clock.
//!
//! Every decoder here takes hostile bytes: it answers with an error, never
//! with a panic, and allocates no more than the bytes it was given justify.
//! `FORMAT.md` describes every byte.

pub(crate) mod block;
pub(crate) mod chain;
pub(crate) mod edit;
pub(crate) mod filter;
pub(crate) mod header;
pub(crate) mod record;
pub(crate) mod table;
pub(crate) mod value;
pub(crate) mod varint;
