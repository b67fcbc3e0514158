//! Cycles on a throttled disk: what a worker submitted goes on after its death,
//! and the next one must wait until it has ended.

use std::thread;
use std::time::{Duration, Instant};

use super::Failure;
use super::cycles::{CYCLES_PER_DATABASE, PATIENCE, Run};
use crate::child::Child;
use crate::lock::Lock;
use crate::script::{Script, THROTTLED};
use crate::throttle::Throttle;

/// Clients that say nothing for so long wait for the disk. Not all do: some read.
const STALLED: Duration = Duration::from_millis(30);
/// Nor is it waited longer for that.
const STALLED_MAX: Duration = Duration::from_millis(300);

/// For so long the disk is held back between a kill and the next opening.
const HOLD: Duration = Duration::from_millis(150);
/// And then, with the next one waiting, up to this long.
const WAIT_MAX: Duration = Duration::from_millis(400);

impl Run<'_> {
    /// So many cycles, if there is a throttle.
    pub(super) fn throttled_databases(&mut self, cycles: u64) -> Result<(), Failure> {
        let Some(throttle) = &self.throttle else {
            return Ok(());
        };
        let disk = throttle.disk().to_owned();
        for first in (0..cycles).step_by(CYCLES_PER_DATABASE as usize) {
            self.fresh_database(&disk);
            self.begin_cycle(THROTTLED + first)?;
            let mut next = self.start()?;
            for cycle in first..cycles.min(first + CYCLES_PER_DATABASE) {
                let (child, script) = self.opened(next, cycle == first)?;
                next = self.write_and_kill_throttled(child, &script, THROTTLED + cycle + 1)?;
            }
            let (child, _) = self.opened(next, false)?;
            self.close(child)?;
            std::fs::remove_dir_all(&self.database)?;
        }
        Ok(())
    }

    /// Returns the worker of the next cycle, started while the disk was held
    /// back.
    fn write_and_kill_throttled(
        &mut self,
        mut child: Child,
        script: &Script,
        next_cycle: u64,
    ) -> Result<Child, Failure> {
        self.oracle.begin_cycle(script);
        let start = Instant::now();
        let mut records = Vec::new();
        self.write_for_a_while(&mut child, script, start, &mut records)?;
        self.throttle(true)?;
        let slowed = Instant::now();
        let mut last_said = slowed;
        while last_said.elapsed() < STALLED && slowed.elapsed() < STALLED_MAX {
            let wait = STALLED.saturating_sub(last_said.elapsed());
            if self.read(&mut child, script, start, &mut records, wait)? > 0 {
                last_said = Instant::now();
            }
        }
        let lived = start.elapsed();
        child.kill()?;
        thread::sleep(HOLD);
        // Nobody else has opened the database meanwhile.
        let locked = Lock::try_take(&self.database)?.is_none();

        self.begin_cycle(next_cycle)?;
        let next = if self.random.bool() {
            self.let_it_end()?;
            self.reap(child, script, lived, records)?;
            self.start()?
        } else {
            let next = self.open_while_it_lasts(locked)?;
            self.reap(child, script, lived, records)?;
            next
        };
        let in_flight = self.oracle.has_writes_in_flight();
        let counts = &mut self.counts;
        counts.throttled_cycles += 1;
        counts.throttled_cycles_with_writes_in_flight += u64::from(in_flight);
        counts.locks_found_taken += u64::from(locked);
        Ok(next)
    }

    /// Lets go what a worker left behind that was killed, and sees whether it
    /// came to writes of the device: nobody else uses the disk.
    fn let_it_end(&mut self) -> Result<(), Failure> {
        let before = self.sectors_written()?;
        self.throttle(false)?;
        if Lock::take(&self.database, PATIENCE)?.is_none() {
            let what = "a process that was killed kept the lock for more than a minute";
            return Err(self.finding(what.to_owned()));
        }
        let has_written = self.sectors_written()? > before;
        self.counts.throttled_cycles_alone += 1;
        self.counts.throttled_cycles_that_wrote_on += u64::from(has_written);
        Ok(())
    }

    /// Starts the next worker, and some that are killed before it, while the
    /// disk is held back.
    fn open_while_it_lasts(&mut self, locked: bool) -> Result<Child, Failure> {
        let mut killed = Vec::new();
        if self.random.u8(..3) == 0 {
            for _ in 0..self.random.usize(1..=2) {
                let mut opener = self.start()?;
                thread::sleep(self.random_below(self.open_duration));
                opener.kill()?;
                killed.push(opener);
            }
        }
        let mut next = self.start()?;
        thread::sleep(self.random_below(WAIT_MAX));
        let waits = !next.has_spoken()?;
        self.throttle(false)?;
        // Some of them may have waited for the disk, too.
        killed.into_iter().try_for_each(|opener| self.reap_opening(opener))?;
        self.counts.openings_that_waited += u64::from(locked && waits);
        Ok(next)
    }

    fn sectors_written(&self) -> Result<u64, Failure> {
        Ok(self.throttle.as_ref().map_or(Ok(0), Throttle::sectors_written)?)
    }

    fn throttle(&mut self, slow: bool) -> Result<(), Failure> {
        let Some(throttle) = &self.throttle else {
            return Ok(());
        };
        let done = if slow { throttle.slow() } else { throttle.lift() };
        done.map_err(|what| Failure::Obstacle { code: 7, what })
    }
}
