//! What a run counted, in words and as JSON.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::{fmt, fs, io};

use serde::Serialize;

use crate::Io;
use crate::oracle::{Oracle, Tally};

/// The format of [`Report`].
pub(crate) const FORMAT: u32 = 1;

/// What is in fewer than one in so many cycles is seldom; in a run of so many,
/// that is no chance.
const SELDOM: u64 = 8;
const CYCLES_FOR_SELDOM: u64 = 100;
/// What is in flight may be a sync alone, now and then, and not in all of these.
const ALONE_TO_JUDGE: u64 = 4;

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
    pub(crate) cycles_with_value_files: u64,
    /// Those killed in a flush, or a compaction, that a client waited for.
    pub(crate) cycles_with_flushes_in_flight: u64,
    pub(crate) cycles_with_compactions_in_flight: u64,
    /// Those in which memtables had become tables, and tables had been merged.
    pub(crate) cycles_with_flushes: u64,
    pub(crate) cycles_with_compactions: u64,
    /// What was done beside the writes of all cycles.
    pub(crate) flushes: u64,
    pub(crate) compactions: u64,
    pub(crate) gets_judged: u64,
    pub(crate) scans_judged: u64,
    /// The most log segments that one of them left.
    pub(crate) wal_segments_max: u64,
    /// Further kills, of a worker that was opening the database.
    pub(crate) kills_during_recovery: u64,
    /// Closings without a kill, each followed by a check.
    pub(crate) clean_restarts: u64,
    /// Further kills, of a worker that was closing the database.
    pub(crate) kills_during_close: u64,
    /// Second processes that were told that the database is locked.
    pub(crate) second_openers: u64,
    /// Workers whose lock was still taken right after their death.
    pub(crate) locks_outliving: u64,
    /// Why there are none of the following ones, although there were to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) throttled_skipped: Option<String>,
    /// Further kills, with a throttled disk, each followed by a check.
    pub(crate) throttled_cycles: u64,
    pub(crate) throttled_cycles_with_writes_in_flight: u64,
    /// Those whose lock was taken a while after the kill, by what was in flight,
    /// and those of them whose next worker waited for it meanwhile.
    pub(crate) locks_found_taken: u64,
    pub(crate) openings_that_waited: u64,
    /// Those without a next worker by then; and of them, those after whose kill
    /// the device went on with writes.
    pub(crate) throttled_cycles_alone: u64,
    pub(crate) throttled_cycles_that_wrote_on: u64,
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

    /// Counts what the worker of a cycle did, or was at, beside writing.
    pub(crate) fn count_background(&mut self, oracle: &Oracle) {
        let Tally { flushes, compactions, gets, scans } = oracle.tally();
        self.flushes += flushes;
        self.compactions += compactions;
        self.gets_judged += gets;
        self.scans_judged += scans;
        self.cycles_with_flushes += u64::from(flushes > 0);
        self.cycles_with_compactions += u64::from(compactions > 0);
        self.cycles_with_flushes_in_flight += u64::from(oracle.has_flushes_in_flight());
        self.cycles_with_compactions_in_flight += u64::from(oracle.has_compactions_in_flight());
    }

    /// Counts what files the worker of a cycle left in its database.
    pub(crate) fn count_files(&mut self, database: &Path) -> io::Result<()> {
        let (mut mappings, mut segments, mut tables, mut values) = (0, 0, 0, 0);
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
                    Some(b"val") => values += 1,
                    _ => {}
                }
            }
        }
        self.cycles_with_mappings += u64::from(mappings > 0);
        self.cycles_with_tables += u64::from(tables > 0);
        self.cycles_with_value_files += u64::from(values > 0);
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

    /// What happened too seldom for the run to say much, if it had at least
    /// `judged` cycles.
    pub(crate) fn too_little(&self, judged: u64) -> Option<String> {
        if let Some(mode) = self.idle_mode(judged) {
            return Some(format!("{mode}: fewer than half of the kills met writes in flight"));
        }
        if 2 * self.locks_found_taken < self.throttled_cycles
            || self.throttled_cycles_alone >= ALONE_TO_JUDGE
                && self.throttled_cycles_that_wrote_on == 0
        {
            return Some(
                "fewer than half of the kills on a throttled disk left I/O in flight".to_owned(),
            );
        }
        // One cycle in four has kills during recovery before it, and one in four somebody
        // who opens what is locked.
        let never = [
            ("kills during recovery", self.kills_during_recovery),
            ("second openers", self.second_openers),
        ];
        if self.cycles >= CYCLES_FOR_SELDOM
            && let Some((what, _)) = never.into_iter().find(|(_, count)| *count == 0)
        {
            return Some(format!("there were no {what} in {} cycles", self.cycles));
        }
        let beside = [
            ("a flush", self.cycles_with_flushes),
            ("a compaction", self.cycles_with_compactions),
            ("a read that was judged", self.gets_judged + self.scans_judged),
        ];
        let is_seldom = |(_, count): &(&str, u64)| SELDOM * count < self.cycles;
        let seldom =
            beside.into_iter().find(is_seldom).filter(|_| self.cycles >= CYCLES_FOR_SELDOM);
        seldom.map(|(what, count)| format!("only {count} of {} cycles had {what}", self.cycles))
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
            ("cycles with value files", self.cycles_with_value_files),
            ("cycles with flushes", self.cycles_with_flushes),
            ("cycles with flushes in flight", self.cycles_with_flushes_in_flight),
            ("cycles with compactions", self.cycles_with_compactions),
            ("cycles with compactions in flight", self.cycles_with_compactions_in_flight),
            ("most log segments", self.wal_segments_max),
            ("kills during recovery", self.kills_during_recovery),
            ("kills during close", self.kills_during_close),
            ("clean restarts", self.clean_restarts),
            ("second processes told of the lock", self.second_openers),
            ("locks taken after the death", self.locks_outliving),
            ("databases", self.databases),
            ("flushes", self.flushes),
            ("compactions", self.compactions),
            ("gets judged", self.gets_judged),
            ("scans judged", self.scans_judged),
            ("writes acknowledged", self.writes_acknowledged),
            ("writes in flight, written", self.in_flight_written),
            ("writes in flight, not written", self.in_flight_not_written),
            ("writes in flight, without trace", self.in_flight_without_trace),
            ("relaxed writes lost within their time", self.relaxed_lost),
        ] {
            writeln!(f, "{name}: {count}")?;
        }
        if let Some(why) = &self.throttled_skipped {
            writeln!(f, "cycles with a throttled disk: skipped: {why}")?;
        }
        if self.throttled_cycles == 0 {
            return Ok(());
        }
        for (name, count) in [
            ("cycles with a throttled disk", self.throttled_cycles),
            ("of those with writes in flight", self.throttled_cycles_with_writes_in_flight),
            ("of those with the lock taken after the kill", self.locks_found_taken),
            ("of those with the next opening waiting", self.openings_that_waited),
            ("of those with no other process meanwhile", self.throttled_cycles_alone),
            ("of these with device writes after the kill", self.throttled_cycles_that_wrote_on),
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
    fn what_happens_too_seldom_is_said() {
        let mut counts = Counts::default();
        (0..100).for_each(|_| counts.count_cycle("durable", true));
        (counts.cycles_with_flushes, counts.cycles_with_compactions) = (50, 13);
        counts.gets_judged = 200;
        assert!(counts.too_little(20).unwrap().contains("no kills during recovery in 100"));
        counts.kills_during_recovery = 1;
        assert!(counts.too_little(20).unwrap().contains("no second openers in 100"));
        counts.second_openers = 1;
        assert_eq!(counts.too_little(20), None);
        counts.cycles_with_compactions = 12;
        assert_eq!(counts.too_little(20).unwrap(), "only 12 of 100 cycles had a compaction");
        (counts.throttled_cycles, counts.locks_found_taken) = (10, 4);
        assert!(counts.too_little(20).unwrap().contains("throttled disk"));
        counts.locks_found_taken = 10;
        assert!(counts.too_little(20).unwrap().ends_with("had a compaction"));
        (counts.throttled_cycles_alone, counts.throttled_cycles_that_wrote_on) = (4, 0);
        assert!(counts.too_little(20).unwrap().contains("throttled disk"));
        counts.count_cycle("relaxed", false);
        assert!(counts.too_little(1).unwrap().starts_with("relaxed: fewer than half"));
    }

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
