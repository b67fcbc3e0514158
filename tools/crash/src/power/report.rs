//! What a run counted, in words and as JSON.

use std::fmt;

use serde::Serialize;

use super::life::{Cut, Life};
use super::record::{Change, Kind};
use crate::Io;
use crate::oracle::Tally;
use crate::report::FORMAT;

/// In a run of so many cuts, of a hundred lives or more, it is no chance if none met
/// a discard.
const CUTS_FOR_DISCARDS: u64 = 100;

/// Counts of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Counts {
    /// Power cuts, each followed by a check.
    pub(crate) cuts: u64,
    /// Those at which the disk had something that it might lose.
    cuts_with_unsynced_writes: u64,
    /// Those at which there were discards among that.
    cuts_with_unsynced_discards: u64,
    /// Those after which writes had to be there because their time had come.
    cuts_that_owe_late_writes: u64,
    /// Those while the database was being opened.
    cuts_while_opening: u64,
    /// Those of a disk whose power had been cut before.
    cuts_after_cuts: u64,
    /// Lives of a disk that began with an empty file system.
    pub(crate) databases: u64,
    /// Lives of a disk, and those in which the file system discarded what it
    /// freed.
    lives: u64,
    lives_with_discards: u64,
    disk_writes: u64,
    disk_zeroed_ranges: u64,
    disk_discards: u64,
    disk_flushes: u64,
    writes_acknowledged: u64,
    /// What was done beside the writes, as far as the workers told.
    flushes: u64,
    compactions: u64,
    gets_judged: u64,
    scans_judged: u64,
    /// Acknowledged before a cut as less than durable, for less than their time,
    /// and gone after it.
    acknowledged_lost: u64,
    in_flight_written: u64,
    in_flight_not_written: u64,
    in_flight_without_trace: u64,
}

impl Counts {
    pub(crate) fn count_cut(&mut self, cut: &Cut, again: bool) {
        self.cuts += 1;
        self.cuts_with_unsynced_writes += u64::from(cut.had_open_changes);
        self.cuts_with_unsynced_discards += u64::from(cut.had_open_discards);
        self.cuts_that_owe_late_writes += u64::from(cut.owes_late_writes);
        self.cuts_while_opening += u64::from(cut.while_opening);
        self.cuts_after_cuts += u64::from(again);
    }

    pub(crate) fn count_life(&mut self, life: &Life) {
        self.lives += 1;
        let discards_before = self.disk_discards;
        for event in &life.record.events {
            *match &event.kind {
                Kind::Change { change: Change::Write(_), .. } => &mut self.disk_writes,
                Kind::Change { change: Change::Zero(_), .. } => &mut self.disk_zeroed_ranges,
                Kind::Change { change: Change::Discard(_), .. } => &mut self.disk_discards,
                Kind::Flush { .. } => &mut self.disk_flushes,
            } += 1;
        }
        self.lives_with_discards += u64::from(self.disk_discards > discards_before);
        self.writes_acknowledged += life.acknowledged;
        let Tally { flushes, compactions, gets, scans } = life.tally();
        self.flushes += flushes;
        self.compactions += compactions;
        self.gets_judged += gets;
        self.scans_judged += scans;
        self.acknowledged_lost += life.settled.relaxed_lost;
        self.in_flight_written += life.settled.written;
        self.in_flight_not_written += life.settled.not_written;
        self.in_flight_without_trace += life.settled.without_trace;
    }

    /// What there was too little of for the cuts to prove much.
    pub(crate) fn too_little(&self) -> Option<&'static str> {
        if 4 * self.cuts_with_unsynced_writes < self.cuts {
            return Some("fewer than a quarter of the cuts met unsynced writes");
        }
        let is_long = self.cuts >= CUTS_FOR_DISCARDS;
        if is_long && (self.disk_discards == 0 || self.cuts_with_unsynced_discards == 0) {
            return Some("no cut met an unsynced discard");
        }
        None
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in [
            ("power cuts", self.cuts),
            ("power cuts with unsynced writes", self.cuts_with_unsynced_writes),
            ("power cuts with unsynced discards", self.cuts_with_unsynced_discards),
            ("power cuts that owe late writes", self.cuts_that_owe_late_writes),
            ("power cuts while opening", self.cuts_while_opening),
            ("power cuts after power cuts", self.cuts_after_cuts),
            ("databases", self.databases),
            ("lives of disks", self.lives),
            ("lives with discards", self.lives_with_discards),
            ("disk writes recorded", self.disk_writes),
            ("disk zeroed ranges recorded", self.disk_zeroed_ranges),
            ("disk discards recorded", self.disk_discards),
            ("disk flushes recorded", self.disk_flushes),
            ("writes acknowledged", self.writes_acknowledged),
            ("flushes", self.flushes),
            ("compactions", self.compactions),
            ("gets judged", self.gets_judged),
            ("scans judged", self.scans_judged),
            ("writes lost within their time", self.acknowledged_lost),
            ("chains of writes in flight, written", self.in_flight_written),
            ("chains of writes in flight, not written", self.in_flight_not_written),
            ("chains of writes in flight, without trace", self.in_flight_without_trace),
        ] {
            writeln!(f, "{name}: {count}")?;
        }
        Ok(())
    }
}

/// The JSON of `--report`.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    format: u32,
    command: &'static str,
    seed: u64,
    file_systems: Vec<&'static str>,
    clients: u8,
    /// The one that was asked for, or "all".
    durability: String,
    io: Io,
    duration_s: f64,
    #[serde(flatten)]
    counts: &'a Counts,
    /// Absent if nothing failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(
        arguments: &super::Arguments,
        duration_s: f64,
        counts: &'a Counts,
        failure: Option<String>,
    ) -> Self {
        Self {
            format: FORMAT,
            command: "power",
            seed: arguments.seed,
            file_systems: arguments.fs.kinds().to_vec(),
            clients: arguments.clients,
            durability: arguments.durability.map_or("all".to_owned(), |mode| mode.to_string()),
            io: arguments.io,
            duration_s,
            counts,
            failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_was_too_little_of_is_said() {
        let mut counts = Counts { cuts: CUTS_FOR_DISCARDS, ..Counts::default() };
        assert!(counts.too_little().unwrap().ends_with("unsynced writes"));
        counts.cuts_with_unsynced_writes = counts.cuts / 4;
        assert!(counts.too_little().unwrap().ends_with("unsynced discard"));
        counts.disk_discards = 9;
        assert!(counts.too_little().unwrap().ends_with("unsynced discard"));
        counts.cuts_with_unsynced_discards = 1;
        assert_eq!(counts.too_little(), None);
        counts.cuts_with_unsynced_discards = 0;
        counts.cuts -= 1;
        assert_eq!(counts.too_little(), None);
    }
}
