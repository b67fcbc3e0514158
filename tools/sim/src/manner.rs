//! How a seed is run.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How each seed of a run is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(crate) operations: u64,
    pub(crate) without: Vec<Without>,
}

/// What a run leaves out, to find out what it takes to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Without {
    /// Requests that take their time
    Delay,
    /// Requests that complete in another order
    Reorder,
    /// Short transfers
    Short,
    /// Requests refused for now
    Again,
    /// Failing reads
    ReadError,
    /// Failing writes
    WriteError,
    /// Space that is not there now and then
    NoSpace,
    /// A disk that is full at some point
    FullDisk,
    /// Tables and value files that rot, or whose writes are lost or go elsewhere
    Damage,
    /// Kills and losses of power, but for those that all seeds end with
    Crash,
    /// Deletes of ranges
    DeleteRange,
    /// Scans
    Scan,
    /// Options that differ from opening to opening
    Vary,
    /// All clients but one
    Clients,
}
