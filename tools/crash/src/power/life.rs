//! What happens to a disk between two power cuts: it is mounted, a worker opens
//! the database on it and writes, and it is unmounted. All of it is recorded, so
//! that the power can be cut at any moment of it, as often as one likes,
//! afterwards.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::cut;
use super::disk::Disk;
use super::fuse::Disks;
use super::image::Image;
use super::record::{Event, Record};
use crate::child::Child;
use crate::interrupt::Interrupt;
use crate::kill::Failure;
use crate::oracle::{Oracle, Tally};
use crate::protocol::{GO, SOME};
use crate::script::Script;
use crate::settle::Settled;
use crate::worker;
use ouro_bench::mounts::Mount;

/// A worker that takes longer to open, to write anything, or to close, hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A life with more writes ends: they are all in memory.
const RECORDED_BYTES_MAX: u64 = 256 << 20;

/// What the worker does once it has said what it found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Writes for so long, and is killed.
    Long(Duration),
    /// Writes a little, and closes.
    Short,
}

/// How a life is led.
pub(crate) struct Plan {
    /// The kind of file system that is on the disk, and whether it discards what it
    /// frees.
    pub(crate) kind: &'static str,
    pub(crate) discard: bool,
    pub(crate) point: PathBuf,
    pub(crate) worker: worker::Arguments,
    pub(crate) work: Work,
    /// Nothing was written yet: what fails here is not the engine's doing.
    pub(crate) fresh: bool,
}

/// A life that has been led.
pub(crate) struct Life {
    pub(crate) record: Record,
    /// What the worker had to find.
    before: Oracle,
    /// The position of the record when it had said what it found.
    opened: usize,
    /// What it found, and all that it wrote since `began`.
    after: Oracle,
    began: Instant,
    known: Vec<Known>,
    /// The position when it had closed the database, if it did.
    closed: Option<usize>,
    /// What had become of the writes before.
    pub(crate) settled: Settled,
    pub(crate) acknowledged: u64,
}

/// What is to be durable within a time is what a disk that keeps up makes so: it may be later by
/// so many times the longest that this one, which always has something to do, completed nothing.
const SILENCES: u32 = 16;

/// What the worker had said when the disk's record was so long.
#[derive(Clone, Copy)]
struct Known {
    records: u64,
    position: usize,
}

/// A disk whose power was cut, and what must be on it.
pub(crate) struct Cut {
    pub(crate) image: Image,
    pub(crate) oracle: Oracle,
    /// Among what must be on it are writes that were to be durable within a time.
    pub(crate) owes_late_writes: bool,
    /// Before the database was open.
    pub(crate) while_opening: bool,
    /// There was something that might be lost, and discards among it.
    pub(crate) had_open_changes: bool,
    pub(crate) had_open_discards: bool,
}

impl Life {
    /// Leads a life on a disk which has this on it, and checks what the database
    /// holds.
    pub(crate) fn lead(
        disks: &Disks,
        image: Image,
        before: Oracle,
        plan: &Plan,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let cycle = plan.worker.cycle;
        let finding = |what| Failure::Finding { cycle, what };
        let ended = |child: &mut Child, when| -> Result<Failure, Failure> {
            Ok(Failure::of_end(cycle, when, child.wait()?, plan.fresh))
        };
        let plugged = disks.plug(image);
        let disk = plugged.disk();
        let mount = Mount::disk(plan.kind, &plugged.path(), &plan.point, plan.discard)
            .map_err(|what| Failure::Obstacle { code: 7, what })?;
        let mut child = Child::start(&plan.worker, PATIENCE)?;
        let content = match child.content(plan.worker.clients) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(ended(&mut child, "while opening")?);
            }
            Err(error) => return Err(finding(format!("opening: {error}"))),
        };
        let opened = disk.position();
        let mut after = before.clone();
        let settled = after.check(&content.rows).map_err(finding)?;
        let worker::Arguments { seed, durability, .. } = plan.worker;
        let script = Script::new(seed, cycle, durability, content.streams);
        after.begin_cycle(&script);

        let began = Instant::now();
        let (known, rest) = (Vec::new(), Vec::new());
        let mut written = Written { oracle: after, script, began, known, count: 0, rest };
        let closed = match plan.work {
            Work::Long(duration) => {
                order(&mut child, GO)?;
                let ends = || {
                    began.elapsed() >= duration
                        || disk.bytes_recorded() > RECORDED_BYTES_MAX
                        || interrupt.requested()
                };
                if !written.take_until(ends, &mut child, disk).map_err(finding)? {
                    return Err(ended(&mut child, "while writing")?);
                }
                child.kill()?;
                written.take_rest(&mut child, disk).map_err(finding)?;
                child.wait()?;
                None
            }
            Work::Short => {
                order(&mut child, SOME)?;
                let ends = || began.elapsed() > PATIENCE;
                if written.take_until(ends, &mut child, disk).map_err(finding)? {
                    return Err(finding("it neither wrote a little nor closed".to_owned()));
                }
                let status = child.wait()?;
                if !status.success() {
                    return Err(Failure::of_end(cycle, "while writing", status, false));
                }
                Some(disk.position())
            }
        };
        drop(mount);
        let Written { oracle: after, known, count: acknowledged, .. } = written;
        let record = plugged.unplug();
        Ok(Self { record, before, opened, after, began, known, closed, settled, acknowledged })
    }

    /// What its worker did beside its writes.
    pub(crate) fn tally(&self) -> Tally {
        self.after.tally()
    }

    /// Cuts the power at a moment that is drawn, on a disk with such sectors.
    pub(crate) fn cut(&self, sector_bytes: usize, random: &mut Rng) -> Cut {
        let at = self.draw_position(random);
        let oracle = self.promised(at);
        Cut {
            image: cut::cut(&self.record, at, (sector_bytes, cut::SUPERBLOCK_END), random),
            owes_late_writes: oracle.owes_late_writes(),
            oracle,
            while_opening: at < self.opened,
            had_open_changes: self.record.open(at).next().is_some(),
            had_open_discards: self.record.open(at).any(|(_, change)| change.is_discard()),
        }
    }

    /// The same on a disk which forgets all since a moment long before.
    pub(crate) fn cut_and_forget(&self, random: &mut Rng) -> Cut {
        let at = self.draw_position(random);
        let since = random.usize(..=at);
        let oracle = self.promised(at);
        Cut {
            image: self.record.image(since),
            owes_late_writes: oracle.owes_late_writes(),
            oracle,
            while_opening: at < self.opened,
            had_open_changes: since < at,
            had_open_discards: self.record.events[since..at].iter().any(Event::is_discard),
        }
    }

    /// Any moment; or one at which something had just been acknowledged, which
    /// leaves no time for what was omitted before it to happen after all; or one
    /// before the end of a flush, when the most may be lost; or one right after a
    /// discard, which a flush follows soon.
    fn draw_position(&self, random: &mut Rng) -> usize {
        let any = random.usize(..=self.record.events.len());
        let drawn = match random.u8(..4) {
            0 => self.known.get(random.usize(..self.known.len().max(1))).map(|at| at.position),
            1 => self.record.next_flush(any),
            2 => self.record.next_discard(any).map(|discard| discard + 1),
            _ => None,
        };
        drawn.unwrap_or(any)
    }

    /// What must be there after a cut at this position.
    fn promised(&self, at: usize) -> Oracle {
        if at < self.opened {
            return self.before.clone();
        }
        let known = self.known.partition_point(|known| known.position <= at);
        let records = known.checked_sub(1).map_or(0, |last| self.known[last].records);
        let last = at.checked_sub(1).map(|last| self.record.events[last].at);
        let lived = last.map_or(Duration::ZERO, |last| last.saturating_duration_since(self.began));
        // On a machine that has no time for the disk everything comes later.
        let began = self.record.events.partition_point(|event| event.at < self.began);
        let silence = self.record.longest_silence(began.min(at)..at);
        let lived = lived.saturating_sub(SILENCES * silence);
        let mut promised = self.after.at_cut(records, lived);
        if self.closed.is_some_and(|closed| closed <= at) {
            promised.closed();
        }
        promised
    }
}

/// What a worker has said.
struct Written {
    oracle: Oracle,
    script: Script,
    began: Instant,
    known: Vec<Known>,
    count: u64,
    /// The beginning of a record.
    rest: Vec<u8>,
}

impl Written {
    /// Takes what the worker says; returns whether this ended first, and not the
    /// worker.
    fn take_until(
        &mut self,
        ends: impl Fn() -> bool,
        child: &mut Child,
        disk: &Disk,
    ) -> Result<bool, String> {
        let mut bytes = Vec::new();
        while !ends() {
            let read = child.read(&mut bytes, Duration::from_millis(10));
            if read.map_err(|error| error.to_string())?.is_none() {
                return Ok(false);
            }
            self.take(&mut bytes, disk)?;
        }
        self.rest = bytes;
        Ok(true)
    }

    /// Takes what is left of a worker that was killed.
    fn take_rest(&mut self, child: &mut Child, disk: &Disk) -> Result<(), String> {
        let mut bytes = std::mem::take(&mut self.rest);
        child.drain(&mut bytes).map_err(|error| error.to_string())?;
        self.take(&mut bytes, disk)
    }

    fn take(&mut self, bytes: &mut Vec<u8>, disk: &Disk) -> Result<(), String> {
        // Whatever brought an acknowledgement about is in the record by now.
        let position = disk.position();
        let at = self.began.elapsed();
        self.count += self.oracle.take_all(bytes, &self.script, at)?;
        let records = self.oracle.records();
        if self.known.last().is_none_or(|last| last.records < records) {
            self.known.push(Known { records, position });
        }
        Ok(())
    }
}

fn order(child: &mut Child, order: u8) -> Result<(), Failure> {
    // If it is gone, the end of its output will say so.
    match child.order(order) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Kind;
    use super::*;
    use crate::durability::{Fault, Mode};
    use crate::protocol::{Record as Said, Rows, Step};
    use crate::script::KEYS_PER_CLIENT;

    /// Ten operations, of which the parent knew after three of five flushes.
    fn life(mode: Mode, closed: Option<usize>) -> Life {
        slow_life(mode, closed, Duration::ZERO)
    }

    /// The same, with so much time between flushes.
    fn slow_life(mode: Mode, closed: Option<usize>, gap: Duration) -> Life {
        let script = Script::new(1, 0, mode, vec![vec![0; KEYS_PER_CLIENT]]);
        let before = Oracle::new(1, Fault::PowerCut);
        let mut after = before.clone();
        after.begin_cycle(&script);
        for number in 0..10 {
            for step in [Step::Start, Step::Done] {
                after.take(Said { step, client: 0, number }, &script, Duration::ZERO).unwrap();
            }
        }
        let began = Instant::now();
        let flush = |at| Event { at: began + gap * at, kind: Kind::Flush { covers: 0 } };
        let record = Record { base: Image::new(0), events: (0..5).map(flush).collect() };
        let known = vec![Known { records: after.records(), position: 3 }];
        let (settled, acknowledged) = (Settled::default(), 10);
        Life { record, before, opened: 1, after, began, known, closed, settled, acknowledged }
    }

    /// The moments at which all may be gone.
    fn may_be_empty(life: &Life) -> Vec<bool> {
        (0..=5).map(|at| life.promised(at).check(&Rows::new()).is_ok()).collect()
    }

    #[test]
    fn what_was_known_before_a_cut_is_promised() {
        let life = life(Mode::Durable, None);
        assert_eq!(may_be_empty(&life), [true, true, true, false, false, false]);
    }

    #[test]
    fn what_was_closed_is_promised_whatever_it_was_to_survive() {
        let never = [true; 6];
        assert_eq!(may_be_empty(&life(Mode::ProcessSafe, None)), never);
        let closed = [true, true, true, true, false, false];
        assert_eq!(may_be_empty(&life(Mode::ProcessSafe, Some(4))), closed);
    }

    #[test]
    fn what_is_late_because_all_is_late_is_not_promised() {
        let relaxed = Mode::Relaxed { within: Duration::from_millis(1) };
        let mut life = slow_life(relaxed, None, Duration::from_secs(2));
        // The last cut comes eight seconds after the acknowledgements, and six after the first
        // that was known.
        assert_eq!(may_be_empty(&life), [true; 6]);
        // On a disk that went on all the time meanwhile.
        let (first, last) = (life.began, life.record.events[4].at);
        let many = (0..=800).map(|i| first + (last - first) * i / 800);
        let flush = |at| Event { at, kind: Kind::Flush { covers: 0 } };
        life.record.events = many.map(flush).collect();
        assert!(life.promised(801).check(&Rows::new()).is_err());
        assert!(life.promised(50).check(&Rows::new()).is_ok());
    }
}
