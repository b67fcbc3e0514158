//! The cycles: what is done to a worker and its database, in which order.

use std::io::{self, IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use std::{fs, thread};

use fastrand::Rng;
use signal_hook::consts::SIGKILL;

use super::{Arguments, Failure};
use crate::child::Child;
use crate::durability::{Fault, Mode};
use crate::interrupt::Interrupt;
use crate::lock::Lock;
use crate::oracle::Oracle;
use crate::plant::Plant;
use crate::protocol::{CLOSE, GO, OPENED};
use crate::report::Counts;
use crate::script::{CLOSING, Script, THROTTLED, random};
use crate::setup::Setup;
use crate::throttle::Throttle;
use crate::worker;

/// After so many cycles the next begins with a fresh database.
pub(super) const CYCLES_PER_DATABASE: u64 = 25;

/// A worker that takes longer to open, to write anything, or to close, hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Some workers live on until all they acknowledged is due, if that takes no
/// longer than this.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// So much longer, so that what is due is so for certain.
const LINGER_MORE: Duration = Duration::from_millis(20);

pub(super) struct Run<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) dir: &'a Path,
    pub(super) counts: &'a mut Counts,
    interrupt: Interrupt,
    progress: bool,
    cycles_in_all: u64,
    pub(super) cycle: u64,
    /// The number that its operations follow from.
    pub(super) script_cycle: u64,
    pub(super) random: Rng,
    pub(super) oracle: Oracle,
    pub(super) database: PathBuf,
    pub(super) mode: Mode,
    pub(super) throttle: Option<Throttle>,
    /// How long the last opening took: kills during recovery aim at it.
    pub(super) open_duration: Duration,
    /// The same of closing.
    close_duration: Duration,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        arguments: &'a Arguments,
        dir: &'a Path,
        interrupt: Interrupt,
        throttle: Option<Throttle>,
        counts: &'a mut Counts,
    ) -> Self {
        Self {
            arguments,
            dir,
            counts,
            interrupt,
            progress: io::stderr().is_terminal(),
            cycles_in_all: arguments.cycles,
            cycle: 0,
            script_cycle: 0,
            random: random(&[arguments.seed]),
            oracle: Oracle::new(arguments.clients, Fault::Kill),
            database: PathBuf::new(),
            mode: Mode::Durable,
            throttle,
            open_duration: Duration::from_millis(20),
            close_duration: Duration::from_millis(20),
        }
    }

    pub(super) fn all_cycles(&mut self, throttled: u64) -> Result<(), Failure> {
        self.cycles_in_all += throttled;
        let result = self.databases().and_then(|()| self.throttled_databases(throttled));
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
        for first in (0..cycles).step_by(CYCLES_PER_DATABASE as usize) {
            self.fresh_database(self.dir);
            for cycle in first..cycles.min(first + CYCLES_PER_DATABASE) {
                self.begin_cycle(cycle)?;
                let fresh = cycle == first;
                let (child, script) = self.open_and_check(fresh)?;
                self.write_and_kill(child, &script)?;
                self.count_cycle()?;
            }
            self.end_database()?;
        }
        Ok(())
    }

    pub(super) fn fresh_database(&mut self, dir: &Path) {
        self.database = dir.join(format!("db-{:04}", self.counts.databases));
        self.counts.databases += 1;
        self.oracle = Oracle::new(self.arguments.clients, Fault::Kill);
    }

    /// A last check.
    fn end_database(&mut self) -> Result<(), Failure> {
        let (child, _) = self.open_and_check(false)?;
        self.close(child)?;
        fs::remove_dir_all(&self.database)?;
        Ok(())
    }

    pub(super) fn begin_cycle(&mut self, cycle: u64) -> Result<(), Failure> {
        (self.cycle, self.script_cycle) = (cycle, cycle);
        let seed = self.arguments.seed;
        self.random = random(&[seed, cycle]);
        self.mode = self.arguments.durability.unwrap_or_else(|| Mode::of_cycle(seed, cycle));
        self.check_interrupt()?;
        if self.progress {
            let done = self.counts.cycles + self.counts.throttled_cycles;
            eprint!("\rcycle {} of {}", done + 1, self.cycles_in_all);
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
        if !fresh && self.random.u8(..5) == 0 {
            self.open_and_close()?;
        }
        self.open_once(fresh)
    }

    fn open_once(&mut self, fresh: bool) -> Result<(Child, Script), Failure> {
        let child = self.start()?;
        self.opened(child, fresh)
    }

    pub(super) fn opened(
        &mut self,
        mut child: Child,
        fresh: bool,
    ) -> Result<(Child, Script), Failure> {
        let start = Instant::now();
        let content = match child.content(self.arguments.clients) {
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
        let seed = self.arguments.seed;
        let script = Script::new(seed, self.script_cycle, self.mode, content.streams);
        Ok((child, script))
    }

    pub(super) fn start(&mut self) -> io::Result<Child> {
        let impatient = self.arguments.plant == Some(Plant::Impatient);
        let arguments = self.worker(impatient.then_some(0));
        Child::start(&arguments, PATIENCE)
    }

    /// A worker with options of its own.
    pub(super) fn worker(&mut self, lock_wait_ms: Option<u64>) -> worker::Arguments {
        worker::Arguments {
            dir: self.database.clone(),
            seed: self.arguments.seed,
            cycle: self.script_cycle,
            clients: self.arguments.clients,
            durability: self.mode,
            setup: Setup::draw(&mut self.random, self.arguments.io),
            pause_us: 0,
            plant: self.arguments.plant,
            lock_wait_ms,
            join: self.throttle.as_ref().filter(|_| self.cycle >= THROTTLED).map(Throttle::join),
        }
    }

    fn kill_while_opening(&mut self) -> Result<(), Failure> {
        let delay = self.random_below(self.open_duration);
        let mut child = self.start()?;
        thread::sleep(delay);
        child.kill()?;
        self.reap_opening(child)
    }

    /// The end of a worker that was killed as it opened the database.
    pub(super) fn reap_opening(&mut self, mut child: Child) -> Result<(), Failure> {
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

    /// A worker that writes until it is told to close, and is killed as it does
    /// so, or not; or closes what it has only opened.
    fn open_and_close(&mut self) -> Result<(), Failure> {
        self.script_cycle = self.cycle + CLOSING;
        let (mut child, script) = self.open_once(false)?;
        let mut records = Vec::new();
        let start = Instant::now();
        self.oracle.begin_cycle(&script);
        if self.random.u8(..4) > 0 {
            self.write_for_a_while(&mut child, &script, start, &mut records)?;
        }
        let kill = self.random.bool().then(|| self.random_below(self.close_duration));
        self.order(&mut child, CLOSE)?;
        let told = Instant::now();
        loop {
            if kill.is_some_and(|delay| told.elapsed() >= delay) {
                child.kill()?;
                break;
            }
            if told.elapsed() > PATIENCE {
                return Err(self.finding("closing took more than a minute".to_owned()));
            }
            if child.read(&mut records, Duration::from_millis(1))?.is_none() {
                break;
            }
            self.take_records(&mut records, &script, start.elapsed())?;
        }
        let lived = start.elapsed();
        child.drain(&mut records)?;
        self.take_records(&mut records, &script, lived)?;
        let status = child.wait()?;
        if status.signal() == Some(SIGKILL) {
            self.oracle.killed(lived);
            self.counts.kills_during_close += 1;
        } else if status.success() {
            self.oracle.closed();
            self.close_duration = told.elapsed();
            self.counts.clean_restarts += 1;
        } else {
            return Err(self.ended_by_itself("while closing", status, false));
        }
        self.script_cycle = self.cycle;
        Ok(())
    }

    /// Lets a worker write until it has acknowledged enough.
    pub(super) fn write_for_a_while(
        &mut self,
        child: &mut Child,
        script: &Script,
        start: Instant,
        records: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        // Few and many acknowledgements alike; a slow disk gets fewer.
        let target_max = 1 << self.random.u32(1..=10);
        let target = self.random.u64(1..=target_max);
        let soon = start + self.random_below(Duration::from_millis(150));
        let mut acknowledged = 0;
        self.order(child, GO)?;
        while acknowledged < target && (acknowledged == 0 || Instant::now() < soon) {
            if start.elapsed() > PATIENCE {
                return Err(self.finding("no write was acknowledged for a minute".to_owned()));
            }
            self.read(child, script, start, records, Duration::from_millis(10))
                .map(|more| acknowledged += more)?;
        }
        Ok(())
    }

    /// Takes what a worker that writes says within `wait`. Returns how many
    /// writes it acknowledges.
    pub(super) fn read(
        &mut self,
        child: &mut Child,
        script: &Script,
        start: Instant,
        records: &mut Vec<u8>,
        wait: Duration,
    ) -> Result<u64, Failure> {
        if child.read(records, wait)?.is_none() {
            let status = child.wait()?;
            return Err(self.ended_by_itself("while writing", status, false));
        }
        self.take_records(records, script, start.elapsed())
    }

    fn write_and_kill(&mut self, mut child: Child, script: &Script) -> Result<(), Failure> {
        self.oracle.begin_cycle(script);
        let start = Instant::now();
        let mut records = Vec::new();
        self.write_for_a_while(&mut child, script, start, &mut records)?;
        if self.random.u8(..8) == 0 {
            self.second_opener()?;
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
        self.reap(child, script, lived, records)?;
        self.counts.locks_outliving += u64::from(Lock::try_take(&self.database)?.is_none());
        if self.random.u8(..8) == 0 {
            self.opener_of_a_locked_database()?;
        }
        Ok(())
    }

    /// The end of a worker that was killed as it wrote.
    pub(super) fn reap(
        &mut self,
        mut child: Child,
        script: &Script,
        lived: Duration,
        mut records: Vec<u8>,
    ) -> Result<(), Failure> {
        self.oracle.killed(lived);
        child.drain(&mut records)?;
        // When these came, nobody knows.
        self.take_records(&mut records, script, lived)?;
        let status = child.wait()?;
        if status.signal() != Some(SIGKILL) {
            return Err(self.ended_by_itself("while writing", status, false));
        }
        assert!(records.is_empty(), "a record arrived in part");
        Ok(())
    }

    fn count_cycle(&mut self) -> Result<(), Failure> {
        let has_writes_in_flight = self.oracle.has_writes_in_flight();
        self.counts.count_cycle(self.mode.name(), has_writes_in_flight);
        self.counts.count_files(&self.database)?;
        self.counts.count_background(&self.oracle);
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
        let taken = self.oracle.take_all(records, script, at);
        let acknowledged = taken.map_err(|what| self.finding(what))?;
        self.counts.writes_acknowledged += acknowledged;
        Ok(acknowledged)
    }

    pub(super) fn close(&mut self, mut child: Child) -> Result<(), Failure> {
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

    pub(super) fn random_below(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.random.f64())
    }

    pub(super) fn finding(&self, what: String) -> Failure {
        Failure::Finding { cycle: self.cycle, what }
    }

    fn ended_by_itself(&self, when: &str, status: ExitStatus, fresh: bool) -> Failure {
        Failure::of_end(self.cycle, when, status, fresh)
    }
}
