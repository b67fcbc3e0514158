//! Planted bugs, which the parent or the worker must catch: a checker that
//! misses one is broken itself.

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plant {
    /// Acknowledges a write before it is made
    AckBeforeWrite,
    /// Writes a batch one change at a time
    SplitBatch,
    /// Leaves the last change out of a batch
    CutBatch,
    /// Acknowledges deletes that it never makes
    SkipDelete,
    /// Acknowledges range deletes that it never makes
    SkipDeleteRange,
    /// Leaves the last key out of a range delete
    CutDeleteRange,
    /// Deletes a range one key at a time
    SplitDeleteRange,
    /// Acknowledges some relaxed writes that it never makes
    SkipRelaxed,
    /// Acknowledges all relaxed writes, and makes none after the first few
    ForgetRelaxed,
    /// Acknowledges as durable what only survives the process
    DurableAsProcessSafe,
    /// Some gets of keys that are there find nothing
    GetNothing,
    /// Some gets find what the key had before
    GetStale,
    /// Some scans leave out a row
    ScanSkipsRow,
    /// Some scans have two rows in the wrong order
    ScanSwapsRows,
    /// Some scans have the value of another row
    ScanMixesValues,
    /// Scans see the second half of the rows at a later moment
    ScanTwoMoments,
    /// Opens a database that another process has open
    IgnoreLock,
    /// Changes a file of a database that another process has locked
    Meddle,
    /// Does not wait for the lock of a process that was killed
    Impatient,
}

impl Plant {
    /// Whether it is for the checks of the reads beside the writes to find.
    /// With any other, the worker does none: they would find it first.
    pub(crate) fn is_for_reads(self) -> bool {
        matches!(
            self,
            Self::GetNothing
                | Self::GetStale
                | Self::ScanSkipsRow
                | Self::ScanSwapsRows
                | Self::ScanMixesValues
                | Self::ScanTwoMoments
        )
    }
}
