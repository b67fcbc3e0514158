//! `ouro-crash`: kills real processes that write, takes power, space and rights
//! from them, and checks what is left.
//!
//! `kill` is the loop, in a parent that keeps the `oracle`, which has `settle`
//! judge what a kill left; `worker` is what it starts and kills, `child` is how
//! the parent sees one, and `protocol` what the two say over pipes; in a worker
//! `writer` has clients that do operations (`call`), and `reader` such that read
//! beside them, judged by `reads`; `plant` has bugs that must be caught; `script`
//! derives every operation from a seed, so both know its content, `durability`
//! what it is to survive, and `setup` how each opening differs from the last;
//! `lock` is a database's lock as others see it, and `throttle` a disk whose
//! writes outlive who submitted them; `report` is what the run says at its end;
//! `interrupt` ends it early.
//!
//! `power` cuts the power under such workers, on file systems whose disks are
//! recorded.
//!
//! `limits` brings about what only root can: it mounts file systems
//! and starts processes that are to cope with them (`limited`).
//!
//! `space` is about bounds: it starts a process with much data in a cgroup with
//! little memory, and measures what both take.

mod call;
mod child;
mod durability;
mod interrupt;
mod kill;
mod limited;
mod limits;
mod lock;
mod oracle;
mod plant;
mod power;
mod protocol;
mod reader;
mod reads;
mod report;
mod script;
mod settle;
mod setup;
mod space;
mod throttle;
mod worker;
mod writer;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use ourodb::IoBackend;
use serde::Serialize;

/// Crash tests of OuroDB on real processes and file systems
///
/// Exit codes: 0 nothing was lost, and no bound missed; 1 a failure, with a
/// `replay:` line or the name of the case that failed; 2 usage; 3 corruption;
/// 4 locked; 5 no space left; 6 unsupported here, also without root what needs
/// it; 7 any other failure, also too few kills with writes in flight, or cuts with
/// unsynced ones; 130 Ctrl-C; 143 SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "ouro-crash", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kill a writing process at random instants; check that every acknowledged
    /// write is there that must be, none without those before it, and every other
    /// one wholly or not at all
    Kill(kill::Arguments),
    /// Cut the power under ext4 and xfs, on disks that record what was flushed;
    /// check the same as kill, of what must survive that. Needs root and /dev/fuse
    Power(power::Arguments),
    /// Open databases where the machine forbids something: no O_DIRECT, a full
    /// disk, little locked memory, another user's files. Needs root
    Limits(limits::Arguments),
    /// Load, overwrite and half delete a database much larger than its memory
    /// budget, in a memory cgroup that kills what goes beyond it; check what it
    /// holds, what it takes on the disk, and its memory. Needs root
    Space(space::Arguments),
    /// The process that is killed
    #[command(hide = true)]
    Worker(worker::Arguments),
    /// The process that meets a limit
    #[command(hide = true)]
    Limited(limited::Arguments),
    /// The process with little memory
    #[command(hide = true)]
    SpaceWorker(space::worker::Arguments),
}

/// How the engine reaches its files.
#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Io {
    /// io_uring
    Ring,
    /// Positioned reads and writes
    Blocking,
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring => "ring",
            Self::Blocking => "blocking",
        })
    }
}

impl From<Io> for IoBackend {
    fn from(io: Io) -> Self {
        match io {
            Io::Ring => Self::Ring,
            Io::Blocking => Self::Blocking,
        }
    }
}

fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Kill(arguments) => kill::run(&arguments),
        Command::Power(arguments) => power::run(&arguments),
        Command::Worker(arguments) => worker::run(&arguments),
        Command::Limits(arguments) => limits::run(&arguments),
        Command::Limited(arguments) => limited::run(&arguments),
        Command::Space(arguments) => space::run(&arguments),
        Command::SpaceWorker(arguments) => space::worker::run(&arguments),
    };
    ExitCode::from(code)
}
