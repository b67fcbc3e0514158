//! What a run counted, in words and as JSON.

use std::fmt;

use serde::Serialize;

use crate::Io;

/// Counts of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Counts {
    /// Kills of a worker that was writing, each followed by a check.
    pub(crate) cycles: u64,
    /// Those of them in which a write was started and not acknowledged.
    pub(crate) cycles_with_writes_in_flight: u64,
    /// Further kills, of a worker that was opening the database.
    pub(crate) kills_during_recovery: u64,
    /// Closings without a kill, each followed by a check.
    pub(crate) clean_restarts: u64,
    pub(crate) databases: u64,
    pub(crate) writes_acknowledged: u64,
    pub(crate) in_flight_written: u64,
    pub(crate) in_flight_not_written: u64,
    pub(crate) in_flight_without_trace: u64,
}

/// The JSON of `--report`.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) format: u32,
    pub(crate) command: &'static str,
    pub(crate) seed: u64,
    pub(crate) clients: u8,
    pub(crate) durability: &'static str,
    pub(crate) io: Io,
    pub(crate) duration_s: f64,
    #[serde(flatten)]
    pub(crate) counts: &'a Counts,
    /// Absent if nothing failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in [
            ("cycles", self.cycles),
            ("cycles with writes in flight", self.cycles_with_writes_in_flight),
            ("kills during recovery", self.kills_during_recovery),
            ("clean restarts", self.clean_restarts),
            ("databases", self.databases),
            ("writes acknowledged", self.writes_acknowledged),
            ("writes in flight, written", self.in_flight_written),
            ("writes in flight, not written", self.in_flight_not_written),
            ("writes in flight, without trace", self.in_flight_without_trace),
        ] {
            writeln!(f, "{name}: {count}")?;
        }
        Ok(())
    }
}
