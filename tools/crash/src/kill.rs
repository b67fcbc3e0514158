//! `ouro-crash kill`: start a worker, check what it found, let it write, kill
//! it, again and again on the same database, and now and then on a fresh one.
//!
//! A cycle is one kill of a writing worker. The check belongs to the opening
//! that follows, so recovery is followed by writes without a clean close
//! between them; some openings are killed themselves before one may succeed.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, os::unix::process::ExitStatusExt};

use clap::Args;
use fastrand::Rng;
use serde::Serialize;
use signal_hook::consts::SIGKILL;

use crate::Io;
use crate::child::Child;
use crate::durability::{Fault, Mode};
use crate::interrupt::Interrupt;
use crate::oracle::Oracle;
use crate::protocol::{CLOSE, GO, OPENED};
use crate::report::{Counts, FORMAT, Report};
use crate::script::{Script, random};
use crate::setup::Setup;
use crate::worker::{self, Plant};

/// After so many cycles the next begins with a fresh database.
const CYCLES_PER_DATABASE: u64 = 25;

/// A worker that takes longer to open, to write anything, or to close, hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A mode that met writes in flight in fewer than half of its kills fails the
/// run, if there were so many; of fewer, chance decides.
const CYCLES_TO_JUDGE: u64 = 20;

/// Some workers live on until all they acknowledged is due, if that takes no
/// longer than this.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// So much longer, so that what is due is so for certain.
const LINGER_MORE: Duration = Duration::from_millis(20);

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// How many times to kill a writing process
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    cycles: u64,
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
    let mut counts = Counts::default();
    let result = Run::new(arguments, &dir, &mut counts).and_then(|mut run| run.all_cycles());
    print!("{counts}");
    let failed = match &result {
        Err(Failure::Finding { cycle, what }) => Some((1, format!("cycle {cycle}: {what}"))),
        Err(Failure::Obstacle { code, what }) => Some((*code, what.clone())),
        Err(Failure::Interrupted(code)) => Some((*code, "interrupted".to_owned())),
        Ok(()) => counts
            .idle_mode(CYCLES_TO_JUDGE)
            .map(|mode| (7, format!("{mode}: fewer than half of the kills met writes in flight"))),
    };
    if let Some((_, what)) = &failed {
        eprintln!("ouro-crash: {what}");
    }
    if let Err(Failure::Finding { cycle, what }) = &result {
        let Arguments { seed, clients, io, .. } = arguments;
        let cycles = cycle + 1;
        let pinned = arguments.durability.map(|mode| format!(" --durability {mode}"));
        println!(
            "replay: ouro-crash kill --seed {seed} --cycles {cycles} --clients {clients} --io \
             {io}{}",
            pinned.unwrap_or_default()
        );
        println!("failed in cycle {cycle}: {what}");
        println!("kept: {}", dir.display());
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

struct Run<'a> {
    arguments: &'a Arguments,
    dir: &'a Path,
    counts: &'a mut Counts,
    interrupt: Interrupt,
    progress: bool,
    cycle: u64,
    random: Rng,
    oracle: Oracle,
    database: PathBuf,
    mode: Mode,
    /// How long the last opening took: kills during recovery aim at it.
    open_duration: Duration,
}

impl<'a> Run<'a> {
    fn new(
        arguments: &'a Arguments,
        dir: &'a Path,
        counts: &'a mut Counts,
    ) -> Result<Self, Failure> {
        let interrupt = Interrupt::install()?;
        Ok(Self {
            arguments,
            dir,
            counts,
            interrupt,
            progress: io::stderr().is_terminal(),
            cycle: 0,
            random: random(&[arguments.seed]),
            oracle: Oracle::new(arguments.clients, Fault::Kill),
            database: PathBuf::new(),
            mode: Mode::Durable,
            open_duration: Duration::from_millis(20),
        })
    }

    fn all_cycles(&mut self) -> Result<(), Failure> {
        let result = self.databases();
        if self.progress {
            eprint!("\r\x1b[K");
        }
        // The workers get Ctrl-C too, and their death is then no finding.
        self.check_interrupt().and(result)
    }

    fn check_interrupt(&self) -> Result<(), Failure> {
        match self.interrupt.requested() {
            true => Err(Failure::Interrupted(self.interrupt.exit_code())),
            false => Ok(()),
        }
    }

    fn databases(&mut self) -> Result<(), Failure> {
        let cycles = self.arguments.cycles;
        for first in (0..cycles).step_by(usize::try_from(CYCLES_PER_DATABASE).unwrap_or(usize::MAX))
        {
            self.fresh_database();
            for cycle in first..cycles.min(first + CYCLES_PER_DATABASE) {
                self.begin_cycle(cycle)?;
                let fresh = cycle == first;
                let (child, script) = self.open_and_check(fresh)?;
                self.write_and_kill(child, &script)?;
                self.count_cycle()?;
            }
            let (child, _) = self.open_and_check(false)?;
            self.close(child)?;
            fs::remove_dir_all(&self.database)?;
        }
        Ok(())
    }

    fn fresh_database(&mut self) {
        self.database = self.dir.join(format!("db-{:04}", self.counts.databases));
        self.counts.databases += 1;
        self.oracle = Oracle::new(self.arguments.clients, Fault::Kill);
    }

    fn begin_cycle(&mut self, cycle: u64) -> Result<(), Failure> {
        self.cycle = cycle;
        let seed = self.arguments.seed;
        self.random = random(&[seed, cycle]);
        self.mode = self.arguments.durability.unwrap_or_else(|| Mode::of_cycle(seed, cycle));
        self.check_interrupt()?;
        if self.progress {
            let cycles = self.arguments.cycles;
            eprint!("\rcycle {} of {cycles}", cycle + 1);
            io::stderr().flush()?;
        }
        Ok(())
    }

    /// A worker whose database holds what it must, and what it will write.
    fn open_and_check(&mut self, fresh: bool) -> Result<(Child, Script), Failure> {
        if !fresh && self.random.u8(..4) == 0 {
            for _ in 0..self.random.usize(1..=3) {
                self.kill_while_opening()?;
            }
        }
        let opened = self.open_once(fresh)?;
        if fresh || self.random.u8(..8) > 0 {
            return Ok(opened);
        }
        self.close(opened.0)?;
        self.counts.clean_restarts += 1;
        self.open_once(false)
    }

    fn open_once(&mut self, fresh: bool) -> Result<(Child, Script), Failure> {
        let clients = self.arguments.clients;
        let start = Instant::now();
        let mut child = self.start()?;
        let content = match child.content(clients) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let status = child.wait()?;
                return Err(self.ended_by_itself("while opening", status, fresh));
            }
            Err(error) => return Err(self.finding(format!("opening: {error}"))),
        };
        self.open_duration = start.elapsed();
        let settled = self.oracle.check(&content.rows).map_err(|what| self.finding(what))?;
        self.counts.in_flight_written += settled.written;
        self.counts.in_flight_not_written += settled.not_written;
        self.counts.in_flight_without_trace += settled.without_trace;
        self.counts.relaxed_lost += settled.relaxed_lost;
        let script = Script::new(self.arguments.seed, self.cycle, self.mode, content.streams);
        Ok((child, script))
    }

    fn start(&mut self) -> io::Result<Child> {
        let arguments = worker::Arguments {
            dir: self.database.clone(),
            seed: self.arguments.seed,
            cycle: self.cycle,
            clients: self.arguments.clients,
            durability: self.mode,
            setup: Setup::draw(&mut self.random, self.arguments.io),
            pause_us: 0,
            plant: self.arguments.plant,
        };
        Child::start(&arguments, PATIENCE)
    }

    fn kill_while_opening(&mut self) -> Result<(), Failure> {
        let delay = self.random_below(self.open_duration);
        let mut child = self.start()?;
        thread::sleep(delay);
        child.kill()?;
        let mut said = Vec::new();
        child.drain(&mut said)?;
        let status = child.wait()?;
        if status.signal() != Some(SIGKILL) {
            return Err(self.ended_by_itself("while opening", status, false));
        }
        if said.first() != Some(&OPENED) {
            self.counts.kills_during_recovery += 1;
        }
        Ok(())
    }

    fn write_and_kill(&mut self, mut child: Child, script: &Script) -> Result<(), Failure> {
        self.oracle.begin_cycle(script);
        // Few and many acknowledgements alike; a slow disk gets fewer.
        let target_max = 1 << self.random.u32(1..=10);
        let target = self.random.u64(1..=target_max);
        let start = Instant::now();
        let soon = start + self.random_below(Duration::from_millis(150));
        let (mut records, mut acknowledged) = (Vec::new(), 0);
        self.order(&mut child, GO)?;
        while acknowledged < target && (acknowledged == 0 || Instant::now() < soon) {
            if start.elapsed() > PATIENCE {
                return Err(self.finding("no write was acknowledged for a minute".to_owned()));
            }
            if child.read(&mut records, Duration::from_millis(10))?.is_none() {
                let status = child.wait()?;
                return Err(self.ended_by_itself("while writing", status, false));
            }
            acknowledged += self.take_records(&mut records, script, start.elapsed())?;
        }
        thread::sleep(self.random_below(Duration::from_millis(2)));
        if let Some(due) = self.mode.all_due()
            && due <= LINGER_MAX
            && self.random.u8(..6) == 0
        {
            thread::sleep(due + LINGER_MORE);
            self.counts.cycles_until_all_was_due += 1;
        }
        let lived = start.elapsed();
        child.kill()?;
        self.oracle.killed(lived);
        child.drain(&mut records)?;
        // When these came, nobody knows.
        acknowledged += self.take_records(&mut records, script, lived)?;
        let status = child.wait()?;
        if status.signal() != Some(SIGKILL) {
            return Err(self.ended_by_itself("while writing", status, false));
        }
        assert!(records.is_empty(), "a record arrived in part");
        self.counts.writes_acknowledged += acknowledged;
        Ok(())
    }

    fn count_cycle(&mut self) -> Result<(), Failure> {
        let has_writes_in_flight = self.oracle.has_writes_in_flight();
        self.counts.count_cycle(self.mode.name(), has_writes_in_flight);
        self.counts.count_files(&self.database)?;
        Ok(())
    }

    /// Hands all whole records to the oracle, which were there at the latest
    /// `at`. Returns how many writes they acknowledge.
    fn take_records(
        &mut self,
        records: &mut Vec<u8>,
        script: &Script,
        at: Duration,
    ) -> Result<u64, Failure> {
        self.oracle.take_all(records, script, at).map_err(|what| self.finding(what))
    }

    fn close(&mut self, mut child: Child) -> Result<(), Failure> {
        self.order(&mut child, CLOSE)?;
        match child.wait_for_close(PATIENCE) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.ended_by_itself("while closing", status, false)),
            Err(error) => Err(self.finding(format!("closing: {error}"))),
        }
    }

    fn order(&self, child: &mut Child, order: u8) -> Result<(), Failure> {
        if child.order(order).is_ok() {
            return Ok(());
        }
        let status = child.wait()?;
        Err(self.ended_by_itself("while it waited for an order", status, false))
    }

    fn random_below(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.random.f64())
    }

    fn finding(&self, what: String) -> Failure {
        Failure::Finding { cycle: self.cycle, what }
    }

    fn ended_by_itself(&self, when: &str, status: ExitStatus, fresh: bool) -> Failure {
        Failure::of_end(self.cycle, when, status, fresh)
    }
}
