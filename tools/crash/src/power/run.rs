//! The run itself: databases, their first lives, and what follows from cuts.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fastrand::Rng;
use rustix::io::Errno;

use super::boot::Boot;
use super::fuse::Disks;
use super::image::Image;
use super::life::{Cut, Life, Plan, Work};
use super::report::Counts;
use super::{Arguments, DISKS, MOUNT, Plant, image_path};
use crate::durability::{Fault, Mode};
use crate::interrupt::Interrupt;
use crate::kill::{Failure, obstacle};
use crate::oracle::Oracle;
use crate::plant;
use crate::script::random;
use crate::setup::Setup;
use crate::worker;
use ouro_bench::mounts::{Mount, run as run_command};

/// After so many cuts there is a new database, whose writes are of the next mode.
const CUTS_PER_DATABASE: u64 = 25;

/// Of so many lives after a cut, one is cut itself.
const CUT_AGAIN: u8 = 3;

/// Of so many lives, in one the file system discards nothing.
const LIVES_PER_KEEPER: u8 = 4;

const EXT4_BYTES: u64 = 256 << 20;
/// Its tools refuse less than 300 MiB.
const XFS_BYTES: u64 = 384 << 20;

pub(super) struct Run<'a> {
    arguments: &'a Arguments,
    dir: &'a Path,
    counts: &'a mut Counts,
    interrupt: Interrupt,
    progress: bool,
    disks: Disks,
    boot: Boot,
    /// Of lives.
    number: u64,
    random: Rng,
    mode: Mode,
    kind: &'static str,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        arguments: &'a Arguments,
        dir: &'a Path,
        counts: &'a mut Counts,
    ) -> Result<Self, Failure> {
        Ok(Self {
            arguments,
            dir,
            counts,
            interrupt: Interrupt::install()?,
            progress: io::stderr().is_terminal(),
            // Before there is any other thread, or a mount.
            boot: Boot::new(dir).map_err(|error| lacking("have mounts of its own", &error))?,
            disks: Disks::mount(&dir.join(DISKS))
                .map_err(|error| lacking("mount a FUSE file system", &error))?,
            number: 0,
            random: random(&[arguments.seed]),
            mode: Mode::Durable,
            kind: "ext4",
        })
    }

    pub(super) fn all_cuts(&mut self) -> Result<(), Failure> {
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
        let Arguments { cuts, clients, fs, .. } = *self.arguments;
        let kinds = fs.kinds();
        let formatted: Vec<Image> =
            kinds.iter().map(|kind| self.prepare(kind)).collect::<Result<_, _>>()?;
        while self.counts.cuts < cuts {
            let database = self.counts.databases as usize;
            self.counts.databases += 1;
            let (round, fs) = (database / kinds.len(), database % kinds.len());
            self.kind = kinds[fs];
            self.mode = self.arguments.durability.unwrap_or_else(|| mode_of(round));
            let target = cuts.min(self.counts.cuts + CUTS_PER_DATABASE);
            let oracle = Oracle::new(clients, Fault::PowerCut);
            let work = Work::Long(duration(self.mode));
            let first = self.lead(formatted[fs].clone(), oracle, work, true)?;
            while self.counts.cuts < target {
                let mut life = self.cut_and_lead(&first, false)?;
                while self.counts.cuts < target && self.random.u8(..CUT_AGAIN) == 0 {
                    life = self.cut_and_lead(&life, true)?;
                }
            }
        }
        Ok(())
    }

    /// An empty file system, which can be mounted here.
    fn prepare(&self, kind: &str) -> Result<Image, Failure> {
        self.check_interrupt()?;
        let image = format(kind, self.dir)?;
        let plugged = self.disks.plug(image.clone());
        match Mount::disk(kind, &plugged.path(), &self.dir.join(MOUNT), true) {
            Ok(_) => Ok(image),
            Err(what) => Err(lacking_tool(&what)),
        }
    }

    /// Cuts the power of a disk, and sees how it goes on with what is left.
    fn cut_and_lead(&mut self, life: &Life, again: bool) -> Result<Life, Failure> {
        self.check_interrupt()?;
        let cut = match self.arguments.plant {
            Some(Plant::LostFlushes) => life.cut_and_forget(&mut self.random),
            _ => life.cut(sector_bytes(self.kind), &mut self.random),
        };
        self.counts.count_cut(&cut, again);
        if self.progress {
            eprint!("\rcut {} of {}", self.counts.cuts, self.arguments.cuts);
            io::stderr().flush()?;
        }
        let Cut { image, oracle, .. } = cut;
        let led = self.lead(image.clone(), oracle, Work::Short, false);
        if led.is_err() {
            self.check_interrupt()?;
            image.save(&image_path(self.dir))?;
        }
        led
    }

    fn lead(
        &mut self,
        image: Image,
        oracle: Oracle,
        work: Work,
        fresh: bool,
    ) -> Result<Life, Failure> {
        let Arguments { seed, clients, io, plant, .. } = *self.arguments;
        self.number += 1;
        self.random = random(&[seed, self.number]);
        let point = self.dir.join(MOUNT);
        let worker = worker::Arguments {
            dir: point.join("db"),
            seed,
            cycle: self.number,
            clients,
            durability: self.mode,
            setup: Setup::draw(&mut self.random, io),
            pause_us: pause_us(self.mode, work),
            plant: (plant == Some(Plant::DurableAsProcessSafe))
                .then_some(plant::Plant::DurableAsProcessSafe),
            lock_wait_ms: None,
            join: None,
        };
        let discard = self.random.u8(..LIVES_PER_KEEPER) > 0;
        let plan = Plan { kind: self.kind, discard, point, worker, work, fresh };
        self.boot.next()?;
        let life = Life::lead(&self.disks, image, oracle, &plan, &self.interrupt)?;
        self.counts.count_life(&life);
        Ok(life)
    }
}

/// What the writes to a database are to survive.
fn mode_of(database: usize) -> Mode {
    let relaxed = Mode::Relaxed { within: Duration::from_millis(100) };
    [Mode::Durable, Mode::ProcessSafe, Mode::Mixed, relaxed][database % 4]
}

/// Where writes are durable late, so long that some of them must be.
fn duration(mode: Mode) -> Duration {
    match mode {
        Mode::Durable => Duration::from_millis(1500),
        Mode::ProcessSafe | Mode::Relaxed { .. } | Mode::Mixed => Duration::from_millis(3500),
    }
}

/// Writes that wait for no disk would fill it.
fn pause_us(mode: Mode, work: Work) -> u64 {
    match (mode, work) {
        (Mode::Durable, _) | (_, Work::Short) => 0,
        _ => 2000,
    }
}

/// What the disk writes as one. XFS means 4 KiB: its recovery leaves out a block
/// of metadata whose first sector says that all of it is new, so that one torn by
/// sectors of 512 bytes may keep it from being mounted. Ext4 has whole blocks in
/// its journal.
fn sector_bytes(kind: &str) -> usize {
    if kind == "xfs" { 4096 } else { 512 }
}

/// What to do about a machine on which not even root may do what this takes.
const NEEDS: &str = "power needs CAP_SYS_ADMIN, /dev/fuse (`modprobe fuse`), loop devices, and a \
                     kernel with the file system; in a container, `--privileged` gives all of it";

/// Nothing was cut yet: the machine does not have what it takes, or refuses it.
fn lacking(what: &str, error: &io::Error) -> Failure {
    let is_refused = matches!(
        Errno::from_io_error(error),
        Some(
            Errno::PERM
                | Errno::ACCESS
                | Errno::NOENT
                | Errno::NODEV
                | Errno::NOSYS
                | Errno::OPNOTSUPP
                | Errno::INVAL
        )
    );
    let (code, said) = obstacle(error);
    match is_refused {
        true => Failure::Obstacle { code: 6, what: format!("cannot {what}: {said}; {NEEDS}") },
        false => Failure::Obstacle { code, what: format!("cannot {what}: {said}") },
    }
}

/// The same of what a program has said: that it worked nowhere yet is all there is to
/// go by, but for a full disk.
fn lacking_tool(said: &str) -> Failure {
    match said.contains(NO_SPACE) {
        true => Failure::Obstacle { code: 5, what: said.to_owned() },
        false => Failure::Obstacle { code: 6, what: format!("{said}; {NEEDS}") },
    }
}

/// How the C library calls a full disk.
const NO_SPACE: &str = "No space left on device";

/// A disk with an empty file system.
fn format(kind: &str, dir: &Path) -> Result<Image, Failure> {
    let path = dir.join("empty.image");
    let (tool, flags, bytes) = match kind {
        // Without work that the kernel leaves for later.
        "ext4" => ("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0"][..], EXT4_BYTES),
        _ => ("mkfs.xfs", &["-q", "-f"][..], XFS_BYTES),
    };
    std::fs::File::create(&path)?.set_len(bytes)?;
    run_command(Command::new(tool).args(flags).arg(&path)).map_err(|what| lacking_tool(&what))?;
    let image = Image::load(&path)?;
    std::fs::remove_file(&path)?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_lacks_something_is_told_from_one_that_fails() {
        let code = |failure| match failure {
            Failure::Obstacle { code, what } => (code, what.contains("CAP_SYS_ADMIN")),
            other => panic!("{other:?}"),
        };
        let of = |errno: Errno| code(lacking("mount", &errno.into()));
        for errno in [Errno::PERM, Errno::ACCESS, Errno::NODEV, Errno::NOSYS, Errno::NOENT] {
            assert_eq!(of(errno), (6, true), "{errno}");
        }
        assert_eq!(of(Errno::IO), (7, false));
        assert_eq!(of(Errno::NOSPC), (5, false));
        let says = |said: &str| code(lacking_tool(said));
        assert_eq!(says("losetup: cannot find an unused loop device"), (6, true));
        assert_eq!(says("mkfs.ext4: No space left on device"), (5, false));
    }
}
