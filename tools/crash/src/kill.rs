//! `ouro-crash kill`: start a worker, check what it found, let it write, kill
//! it, again and again on the same database, and now and then on a fresh one.
//!
//! A cycle is one kill of a writing worker. The check belongs to the opening
//! that follows, so recovery is followed by writes without a clean close
//! between them; some openings are killed themselves before one may succeed.

mod cycles;
mod openers;
mod throttled;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::Io;
use crate::durability::Mode;
use crate::interrupt::Interrupt;
use crate::plant::Plant;
use crate::report::{Counts, FORMAT, Report};
use crate::script::THROTTLED;
use crate::throttle::Throttle;
use cycles::Run;

/// A mode that met writes in flight in fewer than half of its kills fails the
/// run, if there were so many; of fewer, chance decides.
const CYCLES_TO_JUDGE: u64 = 20;

/// If nobody says how many cycles there are to be on a throttled disk, it is one
/// for so many others.
const CYCLES_PER_THROTTLED: u64 = 20;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// How many times to kill a writing process
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    cycles: u64,
    /// How many more times with a throttled disk, whose writes go on after the
    /// process is gone. Needs root, ext4 tools and cgroups [default: one for 20
    /// others, if there is what it takes]
    #[arg(long, value_name = "CYCLES")]
    throttled: Option<u64>,
    /// What is written, and when the kills are due, follows from this
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// An empty or absent directory for the databases [default: a temporary one]
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
    /// Threads that write
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=99))]
    clients: u8,
    /// What an acknowledged write is to survive, in all cycles: durable,
    /// process-safe, relaxed:100ms, or mixed, where each write draws its own.
    /// Relaxed writes may be lost for their time and 200 ms more, but none
    /// without those that came later on its WAL stream [default: all modes
    /// in turn; of 200 cycles, 60 for each of the first three]
    #[arg(long, value_name = "D")]
    durability: Option<Mode>,
    #[arg(long, value_enum, default_value_t = Io::Ring)]
    io: Io,
    /// Write the counts as JSON to this file
    #[arg(long, value_name = "F")]
    report: Option<PathBuf>,
    /// Let the worker have a bug, which must be caught
    #[arg(long, value_enum, hide = true)]
    plant: Option<Plant>,
}

/// Why a run ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine did what it must not.
    Finding { cycle: u64, what: String },
    /// The run cannot go on, and that says nothing about the engine.
    Obstacle { code: u8, what: String },
    /// Ctrl-C or SIGTERM, with the exit code that says which.
    Interrupted(u8),
}

impl Failure {
    /// A worker ended without being killed. It has said why on stderr. A full
    /// disk is nobody's fault, nor is a machine on which no database opens.
    pub(crate) fn of_end(cycle: u64, when: &str, status: ExitStatus, fresh: bool) -> Self {
        let what = format!("the worker ended by itself {when}: {status}");
        match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code @ 5) => Self::Obstacle { code, what },
            Some(code @ (4 | 6 | 7)) if fresh => Self::Obstacle { code, what },
            _ => Self::Finding { cycle, what },
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let (code, what) = obstacle(&error);
        Self::Obstacle { code, what }
    }
}

/// The exit code of a run that cannot go on, and what to say.
pub(crate) fn obstacle(error: &io::Error) -> (u8, String) {
    let code = if error.kind() == io::ErrorKind::StorageFull { 5 } else { 7 };
    (code, error.to_string())
}

/// Runs the loop, says what came out, and returns the exit code.
pub(crate) fn run(arguments: &Arguments) -> u8 {
    let start = Instant::now();
    let (dir, temporary) = match directory(arguments.dir.as_deref()) {
        Ok(directory) => directory,
        Err((code, what)) => {
            eprintln!("ouro-crash: {what}");
            return code;
        }
    };
    // Before the cycles: they are too long to lose to a path that is wrong.
    let report_file = match arguments.report.as_deref().map(create_report).transpose() {
        Ok(file) => file,
        Err(what) => {
            eprintln!("ouro-crash: {what}");
            return 7;
        }
    };
    // Before the mounts, which a signal would leave behind.
    let interrupt = match Interrupt::install() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            eprintln!("ouro-crash: {error}");
            return 7;
        }
    };
    let mut counts = Counts::default();
    let (cycles, throttle) = match throttle(arguments, &dir, &mut counts.throttled_skipped) {
        Ok(throttle) => throttle,
        Err(what) => {
            eprintln!("ouro-crash: {what}");
            return 6;
        }
    };
    let result = Run::new(arguments, &dir, interrupt, throttle, &mut counts).all_cycles(cycles);
    print!("{counts}");
    let failed = match &result {
        Err(Failure::Finding { cycle, what }) => Some((1, format!("{}: {what}", name(*cycle)))),
        Err(Failure::Obstacle { code, what }) => Some((*code, what.clone())),
        Err(Failure::Interrupted(code)) => Some((*code, "interrupted".to_owned())),
        Ok(()) => counts.too_little(CYCLES_TO_JUDGE).map(|what| (7, what)),
    };
    if let Some((_, what)) = &failed {
        eprintln!("ouro-crash: {what}");
    }
    if let Err(Failure::Finding { cycle, what }) = &result {
        let Arguments { seed, clients, io, .. } = arguments;
        let (cycles, throttled) = match cycle.checked_sub(THROTTLED) {
            Some(throttled) => (0, throttled + 1),
            None => (cycle + 1, 0),
        };
        let pinned = arguments.durability.map(|mode| format!(" --durability {mode}"));
        println!(
            "replay: ouro-crash kill --seed {seed} --cycles {cycles} --throttled {throttled} \
             --clients {clients} --io {io}{}",
            pinned.unwrap_or_default()
        );
        println!("failed in {}: {what}", name(*cycle));
        println!(
            "kept: {}{}",
            dir.display(),
            if cycles == 0 { ", an image of ext4 in it" } else { "" }
        );
        temporary.map(tempfile::TempDir::keep);
    }
    let code = failed.as_ref().map_or(0, |(code, _)| *code);
    let report = Report {
        format: FORMAT,
        command: "kill",
        seed: arguments.seed,
        clients: arguments.clients,
        durability: arguments.durability.map_or("all".to_owned(), |mode| mode.to_string()),
        io: arguments.io,
        duration_s: start.elapsed().as_secs_f64(),
        counts: &counts,
        failure: failed.map(|(_, what)| what),
    };
    if let Some(Err(what)) = report_file.map(|file| write_report(file, &report)) {
        eprintln!("ouro-crash: {what}");
        return if code == 0 { 7 } else { code };
    }
    if code == 0 {
        println!("ok: every acknowledged write was found");
    }
    code
}

fn name(cycle: u64) -> String {
    match cycle.checked_sub(THROTTLED) {
        Some(throttled) => format!("cycle {throttled} of those with a throttled disk"),
        None => format!("cycle {cycle}"),
    }
}

/// How many cycles are on a throttled disk, and what they take; or why there are none
/// although nobody has asked for none.
fn throttle(
    arguments: &Arguments,
    dir: &Path,
    skipped: &mut Option<String>,
) -> Result<(u64, Option<Throttle>), String> {
    let cycles = arguments.throttled.unwrap_or(arguments.cycles / CYCLES_PER_THROTTLED);
    if cycles == 0 {
        return Ok((0, None));
    }
    match (Throttle::new(&dir.join("throttled")), arguments.throttled) {
        (Ok(throttle), _) => Ok((cycles, Some(throttle))),
        (Err(what), Some(_)) => Err(format!("no throttled disk: {what}")),
        (Err(what), None) => {
            *skipped = Some(what);
            Ok((0, None))
        }
    }
}

/// The directory for the databases; a temporary one is removed when dropped.
pub(crate) fn directory(
    given: Option<&Path>,
) -> Result<(PathBuf, Option<tempfile::TempDir>), (u8, String)> {
    let Some(dir) = given else {
        let temporary = tempfile::Builder::new().prefix("ouro-crash-").tempdir();
        let temporary = temporary
            .map_err(|error| (7, format!("cannot make a temporary directory: {error}")))?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    };
    let failed = |error: io::Error| (7, format!("cannot use {}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(failed)?;
    if fs::read_dir(dir).map_err(failed)?.next().is_some() {
        return Err((2, format!("{} is not empty; name another directory", dir.display())));
    }
    Ok((dir.to_owned(), None))
}

pub(crate) fn create_report(path: &Path) -> Result<(&Path, File), String> {
    File::create(path)
        .map(|file| (path, file))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

pub(crate) fn write_report(
    (path, mut file): (&Path, File),
    report: &impl Serialize,
) -> Result<(), String> {
    let mut text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    text.push('\n');
    file.write_all(text.as_bytes())
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
