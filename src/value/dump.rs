//! A value file in words: it does not say much of itself.

use crate::base::limits::UNIT_U64;
use crate::io::{Dump, Halt, Io};

/// Tells what can be told of a value file of this length.
pub(crate) fn dump_values<I: Io>(dump: &Dump<'_, I>, len: u64) -> Result<(), Halt> {
    let bytes = len.saturating_sub(UNIT_U64);
    dump.text(1, &format!("{bytes} bytes of values, with their padding, and of holes"))?;
    dump.text(1, "where each value is, and its checksums, is in the tables and the log")
}
