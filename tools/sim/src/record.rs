//! The record of long runs: a line for each piece of a run that ended, so that
//! pieces add up over days, and an interrupted run goes on where it was.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::manner::{Manner, Without};
use crate::world::Outcome;

const PROGRAM: &str = "ouro-sim";
const FORMAT: u32 = 1;
/// The engine's source that this program runs.
const ENGINE: &str = env!("OURO_ENGINE");

/// The first line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    program: String,
    format: u32,
}

/// What was run and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// When it ended, in UTC.
    ended: String,
    commit: Option<String>,
    /// A fingerprint of the engine's source.
    engine: String,
    operations_per_seed: u64,
    without: Vec<Without>,
    /// The seeds from the first on, and before the last.
    from: u64,
    to: u64,
    pub(crate) failed: Vec<u64>,
    milliseconds: u64,
    operations: u64,
    openings: u64,
    crashes: u64,
    power_cuts: u64,
    faults: u64,
    trace: String,
}

impl Piece {
    pub(crate) fn new(
        manner: &Manner,
        seeds: Range<u64>,
        failed: Vec<u64>,
        milliseconds: u64,
        outcome: &Outcome,
    ) -> Self {
        Self {
            ended: jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
            commit: option_env!("OURO_COMMIT").map(str::to_owned),
            engine: ENGINE.to_owned(),
            operations_per_seed: manner.operations,
            without: manner.without.clone(),
            from: seeds.start,
            to: seeds.end,
            failed,
            milliseconds,
            operations: outcome.operations,
            openings: outcome.openings,
            crashes: outcome.crashes,
            power_cuts: outcome.power_cuts,
            faults: outcome.faults,
            trace: format!("{:016x}", outcome.trace),
        }
    }

    fn is_of(&self, manner: &Manner) -> bool {
        self.engine == ENGINE
            && self.operations_per_seed == manner.operations
            && self.without == manner.without
    }
}

/// The file, open and locked.
pub(crate) struct Recorder {
    path: PathBuf,
    file: File,
    pieces: Vec<Piece>,
}

impl Recorder {
    /// Opens the record, or begins one.
    ///
    /// # Errors
    /// What is wrong with it, when it is none, cannot be written, or another run
    /// writes to it.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let at = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(|error| at(&error))?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(at(&"this is no file"));
        }
        file.try_lock().map_err(|_| at(&"another run writes to this record"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| at(&error))?;
        let no_record = "this is no record of ouro-sim; name another file";
        let text = String::from_utf8(bytes).map_err(|_| at(&no_record))?;
        if text.is_empty() {
            let head = Head { program: PROGRAM.to_owned(), format: FORMAT };
            let mut this = Self { path: path.to_owned(), file, pieces: Vec::new() };
            this.append(&head)?;
            return Ok(this);
        }
        // A run that was killed may have left a part of its last line.
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let mut lines = text[..whole].lines();
        let head = lines.next().and_then(|line| serde_json::from_str::<Head>(line).ok());
        match head {
            Some(Head { program, format: FORMAT }) if program == PROGRAM => {}
            Some(Head { program, format }) if program == PROGRAM => {
                return Err(at(&format!(
                    "this record has format {format}, and this program writes format {FORMAT}; \
                     name another file"
                )));
            }
            _ => return Err(at(&no_record)),
        }
        let pieces = lines.enumerate().map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| at(&format!("line {}: {error}", number + 2)))
        });
        let pieces = pieces.collect::<Result<_, _>>()?;
        file.set_len(whole as u64).map_err(|error| at(&error))?;
        file.seek(SeekFrom::End(0)).map_err(|error| at(&error))?;
        Ok(Self { path: path.to_owned(), file, pieces })
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), String> {
        let text = serde_json::to_string(line).map_err(|error| error.to_string())?;
        let written = self.file.write_all(format!("{text}\n").as_bytes());
        let written = written.and_then(|()| self.file.sync_data());
        written.map_err(|error| format!("{}: {error}", self.path.display()))
    }

    pub(crate) fn add(&mut self, piece: Piece) -> Result<(), String> {
        self.append(&piece)?;
        self.pieces.push(piece);
        Ok(())
    }

    /// The parts of a range that were not run yet in this manner, with this engine.
    pub(crate) fn missing(&self, manner: &Manner, seeds: Range<u64>) -> Vec<Range<u64>> {
        let mut done: Vec<&Piece> = self.pieces.iter().filter(|p| p.is_of(manner)).collect();
        done.sort_by_key(|piece| piece.from);
        let mut missing = Vec::new();
        let mut at = seeds.start;
        for piece in done {
            if piece.from > at {
                missing.push(at..piece.from.min(seeds.end));
            }
            at = at.max(piece.to);
        }
        missing.push(at..seeds.end);
        missing.retain(|range| !range.is_empty());
        missing
    }

    /// Seeds run in this manner with this engine, each once, and how often any seed was run
    /// at all; seeds that failed in this manner with this engine.
    pub(crate) fn totals(&self, manner: &Manner) -> (u64, u64, Vec<u64>) {
        let left = self.missing(manner, 0..u64::MAX);
        let ours = u64::MAX - left.iter().map(|range| range.end - range.start).sum::<u64>();
        let is_ours = |piece: &&Piece| piece.is_of(manner);
        let failed = self.pieces.iter().filter(is_ours).flat_map(|piece| piece.failed.clone());
        let failed: BTreeSet<u64> = failed.collect();
        let all = self.pieces.iter().map(|piece| piece.to - piece.from).sum();
        (ours, all, failed.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manner() -> Manner {
        Manner { operations: 2000, without: Vec::new() }
    }

    fn piece(seeds: Range<u64>) -> Piece {
        Piece::new(&manner(), seeds, Vec::new(), 10, &Outcome::default())
    }

    #[test]
    fn pieces_add_up_and_what_was_run_is_not_run_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        let mut recorder = Recorder::open(&path).expect("a new record");
        recorder.add(piece(10..20)).expect("room");
        recorder.add(piece(30..40)).expect("room");
        assert!(Recorder::open(&path).is_err(), "two runs at once");
        drop(recorder);
        // A kill in the middle of a line.
        let mut file = OpenOptions::new().append(true).open(&path).expect("the record");
        file.write_all(b"{\"ended\":\"20").expect("room");
        let mut recorder = Recorder::open(&path).expect("the same record");
        recorder.add(piece(38..45)).expect("room");
        drop(recorder);
        let recorder = Recorder::open(&path).expect("the same record");
        // Two of them twice.
        assert_eq!(recorder.totals(&manner()), (25, 27, Vec::new()));
        assert_eq!(recorder.missing(&manner(), 0..50), [0..10, 20..30, 45..50]);
        assert_eq!(recorder.missing(&manner(), 12..18), []);
        let other = Manner { operations: 100, ..manner() };
        let all = 12..18;
        assert_eq!(recorder.missing(&other, all.clone()), std::slice::from_ref(&all));
    }

    #[test]
    fn what_is_no_record_is_refused_and_stays_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        for (text, reason) in [
            ("{\"format\": 1, \"latency_ns\": []}\n", "no record of ouro-sim"),
            ("one line", "no record of ouro-sim"),
            ("{\"program\":\"ouro-sim\",\"format\":2}\n", "format 2"),
            ("{\"program\":\"ouro-sim\",\"format\":1}\n{}\n", "line 2"),
        ] {
            std::fs::write(&path, text).expect("room");
            let error = Recorder::open(&path).err().expect(text);
            assert!(error.contains(reason), "{error}");
            assert_eq!(std::fs::read_to_string(&path).expect("a file"), text);
        }
    }
}
