//! Tables (SSTables): writing one from sorted entries, looking keys up in it,
//! and walking over it.
//!
//! The bytes are those of [`crate::format::table`] and
//! [`crate::format::block`]; here is the I/O around them. A table is written
//! once, in one pass, and never changed. An open one keeps its partitions (index
//! and filter) in memory, if all tables' together are not too many: then a lookup
//! costs one read at most, and none when the block is in the cache. Otherwise they
//! are read as they are needed, and cached. Nothing that was read is used before
//! its checksum was verified.

mod blocks;
mod dump;
mod iter;
mod open;
mod partitions;
mod pins;
mod reader;
mod retired;
mod salvage;
mod shared_read;
#[cfg(test)]
mod tests;
mod verify;
mod warm;
mod writer;

pub(crate) use dump::dump_table;
pub(crate) use iter::TableIter;
pub(crate) use pins::{PinLimits, PinShare, Pins};
pub(crate) use reader::{Holds, Looked, Lookup, Missing, Table, TableEntry};
pub(crate) use retired::{Due, Retired, Spare};
pub(crate) use salvage::{Entry, FoundTable, Lost, TableScan, find_table};
pub(crate) use verify::{TableCheck, verify_table};
pub(crate) use warm::Warming;
pub(crate) use writer::{NewTable, TableWriter};

pub(crate) use crate::format::block::Compression;
pub(crate) use crate::format::edit::TableMeta;
pub(crate) use crate::format::table::Partition;

use crate::base::striped::Striped;

use crate::runtime::PIECE_BYTES_MAX;

/// The longest request for a part of a table, in bytes.
const REQUEST_BYTES_MAX: usize = 256 << 10;

const _: () = assert!(REQUEST_BYTES_MAX <= PIECE_BYTES_MAX, "background work reads tables too");

/// What filters did, over all the tables that count here.
#[derive(Debug, Default)]
pub(crate) struct ReadCounters(Striped<3>);

/// The places of the counters.
const NEGATIVES: usize = 0;
const PASSES: usize = 1;
const FALSE_POSITIVES: usize = 2;

/// A reading of [`ReadCounters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilterCounts {
    /// Lookups that asked a filter.
    pub(crate) probes: u64,
    /// Those it answered with "certainly not here".
    pub(crate) negatives: u64,
    /// Those it answered with "maybe" although the table has no version of the
    /// key.
    pub(crate) false_positives: u64,
}

impl ReadCounters {
    /// A filter was asked for a key, and said "maybe", or "certainly not here".
    #[inline]
    pub(crate) fn asked(&self, maybe: bool) {
        self.0.count(if maybe { PASSES } else { NEGATIVES });
    }

    /// It said "maybe", although the table has no version of the key.
    #[inline]
    pub(crate) fn was_mistaken(&self) {
        self.0.count(FALSE_POSITIVES);
    }

    pub(crate) fn counts(&self) -> FilterCounts {
        let negatives = self.0.sum(NEGATIVES);
        FilterCounts {
            probes: negatives + self.0.sum(PASSES),
            negatives,
            false_positives: self.0.sum(FALSE_POSITIVES),
        }
    }
}
