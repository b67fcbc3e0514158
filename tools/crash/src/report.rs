//! What a run counted, in words and as JSON.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::{fmt, fs, io};

use serde::Serialize;

use crate::Io;

/// The format of [`Report`].
pub(crate) const FORMAT: u32 = 1;

/// Counts of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Counts {
    /// Kills of a worker that was writing, each followed by a check.
    pub(crate) cycles: u64,
    /// Those of them in which a write was started and not acknowledged.
    pub(crate) cycles_with_writes_in_flight: u64,
    /// The same by what the writes were to survive.
    pub(crate) durabilities: BTreeMap<&'static str, ModeCounts>,
    /// Those in which the worker lived on until even its last relaxed write had
    /// to survive.
    pub(crate) cycles_until_all_was_due: u64,
    /// Those that left mappings of the log, and tables.
    pub(crate) cycles_with_mappings: u64,
    pub(crate) cycles_with_tables: u64,
    /// The most log segments that one of them left.
    pub(crate) wal_segments_max: u64,
    /// Further kills, of a worker that was opening the database.
    pub(crate) kills_during_recovery: u64,
    /// Closings without a kill, each followed by a check.
    pub(crate) clean_restarts: u64,
    pub(crate) databases: u64,
    pub(crate) writes_acknowledged: u64,
    pub(crate) in_flight_written: u64,
    pub(crate) in_flight_not_written: u64,
    pub(crate) in_flight_without_trace: u64,
    /// Relaxed writes, acknowledged for less than their time, that were gone.
    pub(crate) relaxed_lost: u64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct ModeCounts {
    pub(crate) cycles: u64,
    pub(crate) cycles_with_writes_in_flight: u64,
}

impl Counts {
    /// Counts a cycle whose writes were of this durability.
    pub(crate) fn count_cycle(&mut self, durability: &'static str, has_writes_in_flight: bool) {
        let of_mode = self.durabilities.entry(durability).or_default();
        for cycles in [&mut self.cycles, &mut of_mode.cycles] {
            *cycles += 1;
        }
        let met = u64::from(has_writes_in_flight);
        self.cycles_with_writes_in_flight += met;
        of_mode.cycles_with_writes_in_flight += met;
    }

    /// Counts what files the worker of a cycle left in its database.
    pub(crate) fn count_files(&mut self, database: &Path) -> io::Result<()> {
        let (mut mappings, mut segments, mut tables) = (0, 0, 0);
        for dir in fs::read_dir(database)? {
            let dir = dir?;
            if !dir.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(dir.path())? {
                let name = file?.file_name();
                match Path::new(&name).extension().map(OsStr::as_encoded_bytes) {
                    Some(b"map") => mappings += 1,
                    Some(b"wal") => segments += 1,
                    Some(b"sst") => tables += 1,
                    _ => {}
                }
            }
        }
        self.cycles_with_mappings += u64::from(mappings > 0);
        self.cycles_with_tables += u64::from(tables > 0);
        self.wal_segments_max = self.wal_segments_max.max(segments);
        Ok(())
    }

    /// All cycles, or a durability of at least `judged` cycles, if fewer than
    /// half of those met writes in flight.
    pub(crate) fn idle_mode(&self, judged: u64) -> Option<&'static str> {
        let all = ("all cycles", self.cycles, self.cycles_with_writes_in_flight);
        let modes = self.durabilities.iter().filter(|(_, of)| of.cycles >= judged);
        let modes = modes.map(|(name, of)| (*name, of.cycles, of.cycles_with_writes_in_flight));
        let mut idle = std::iter::once(all).chain(modes).filter(|(_, all, met)| 2 * met < *all);
        idle.next().map(|(name, ..)| name)
    }

    /// `200 (60 durable, ...)`
    fn by_durability(&self, all: u64, count: fn(&ModeCounts) -> u64) -> String {
        let modes = self.durabilities.iter().map(|(name, of)| format!("{} {name}", count(of)));
        let modes: Vec<String> = modes.collect();
        if modes.is_empty() { all.to_string() } else { format!("{all} ({})", modes.join(", ")) }
    }
}

/// The JSON of `--report`.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) format: u32,
    pub(crate) command: &'static str,
    pub(crate) seed: u64,
    pub(crate) clients: u8,
    /// The one that was asked for, or "all".
    pub(crate) durability: String,
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
        let met = |of: &ModeCounts| of.cycles_with_writes_in_flight;
        let cycles = self.by_durability(self.cycles, |of| of.cycles);
        let in_flight = self.by_durability(self.cycles_with_writes_in_flight, met);
        writeln!(f, "cycles: {cycles}")?;
        writeln!(f, "cycles with writes in flight: {in_flight}")?;
        for (name, count) in [
            ("cycles until all was due", self.cycles_until_all_was_due),
            ("cycles with mappings", self.cycles_with_mappings),
            ("cycles with tables", self.cycles_with_tables),
            ("most log segments", self.wal_segments_max),
            ("kills during recovery", self.kills_during_recovery),
            ("clean restarts", self.clean_restarts),
            ("databases", self.databases),
            ("writes acknowledged", self.writes_acknowledged),
            ("writes in flight, written", self.in_flight_written),
            ("writes in flight, not written", self.in_flight_not_written),
            ("writes in flight, without trace", self.in_flight_without_trace),
            ("relaxed writes lost within their time", self.relaxed_lost),
        ] {
            writeln!(f, "{name}: {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_durability_is_judged_by_itself() {
        let mut counts = Counts::default();
        for cycle in 0..40 {
            counts.count_cycle("durable", true);
            counts.count_cycle("relaxed", cycle % 2 == 0);
        }
        assert_eq!(counts.idle_mode(20), None);
        counts.count_cycle("relaxed", false);
        assert_eq!(counts.idle_mode(20), Some("relaxed"));
        assert_eq!(counts.idle_mode(42), None);
        (0..100).for_each(|_| counts.count_cycle("mixed", false));
        assert_eq!(counts.idle_mode(1000), Some("all cycles"));
        assert!(
            counts.to_string().starts_with("cycles: 181 (40 durable, 100 mixed, 41 relaxed)\n")
        );
    }
}
