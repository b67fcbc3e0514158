//! `ouro-crash power`: cut the power under a real file system, mount what is
//! left, open the database on it, and check what it holds.
//!
//! The disk is a file that `fuse` serves out of memory, behind a loop device. A
//! `disk` has a `record` of every write, discard and flush; from it a `cut` makes what
//! may be there after a power failure at any moment: an `image`, which is a disk
//! itself. A `life` is what happens on one disk: a worker opens the database,
//! says what it found, which is compared with what the oracle has for that cut,
//! and writes. The first life of a database is long, and is cut many times; the
//! short ones after these cuts, which begin with a recovery, are cut as well. Each
//! is in a `boot` of its own.

mod boot;
mod cut;
mod disk;
mod fuse;
mod image;
mod life;
mod record;
mod report;
mod run;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::{Args, ValueEnum};

use self::report::{Counts, Report};
use self::run::Run;
use crate::Io;
use crate::durability::Mode;
use crate::kill::{Failure, create_report, directory, write_report};

const FUSE: &str = "/dev/fuse";

/// Mount points in the directory.
const DISKS: &str = "disks";
const MOUNT: &str = "mount";

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// How many times to cut the power
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    cuts: u64,
    /// The file system, or all of them in turn
    #[arg(long, value_enum, default_value_t = Fs::Ext4)]
    fs: Fs,
    /// What is written, and where the power is cut, follows from this
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// An empty or absent directory to work in [default: a temporary one]
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
    /// Threads that write
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=99))]
    clients: u8,
    /// What an acknowledged write is to survive: durable, process-safe,
    /// relaxed:100ms, or mixed, where each write draws its own. Only durable ones
    /// must survive at once; the others may be lost for their time, which is a
    /// second for process-safe ones, and a second more, but none without those
    /// that came later on its WAL stream [default: all modes in turn]
    #[arg(long, value_name = "D")]
    durability: Option<Mode>,
    #[arg(long, value_enum, default_value_t = Io::Ring)]
    io: Io,
    /// Write the counts as JSON to this file
    #[arg(long, value_name = "F")]
    report: Option<PathBuf>,
    /// Let the worker or the disk have a bug, which must be caught
    #[arg(long, value_enum, hide = true)]
    plant: Option<Plant>,
}

/// On which file systems to cut the power.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Fs {
    Ext4,
    Xfs,
    All,
}

/// A planted bug, which must be caught: a checker that misses one is broken
/// itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Plant {
    /// The worker acknowledges as durable what only survives the process
    DurableAsProcessSafe,
    /// The disk loses what it said was flushed
    LostFlushes,
}

impl Fs {
    fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &["ext4"],
            Self::Xfs => &["xfs"],
            Self::All => &["ext4", "xfs"],
        }
    }
}

/// Runs it, says what came out, and returns the exit code.
pub(crate) fn run(arguments: &Arguments) -> u8 {
    let start = Instant::now();
    let is_root = rustix::process::geteuid().is_root();
    if let Some(what) = missing(arguments.fs, is_root, Path::new(FUSE)) {
        eprintln!("ouro-crash: {what}");
        return 6;
    }
    let (dir, temporary) = match directory(arguments.dir.as_deref()) {
        Ok(directory) => directory,
        Err((code, what)) => {
            eprintln!("ouro-crash: {what}");
            return code;
        }
    };
    // Before the cuts: they are too long to lose to a path that is wrong.
    let report_file = match arguments.report.as_deref().map(create_report).transpose() {
        Ok(file) => file,
        Err(what) => {
            eprintln!("ouro-crash: {what}");
            return 7;
        }
    };
    let mut counts = Counts::default();
    let result = Run::new(arguments, &dir, &mut counts).and_then(|mut run| run.all_cuts());
    for point in [DISKS, MOUNT] {
        // It is absent if nothing was ever mounted there.
        let _ = std::fs::remove_dir(dir.join(point));
    }
    print!("{counts}");
    let failed = match &result {
        Err(Failure::Finding { what, .. }) => Some((1, format!("cut {}: {what}", counts.cuts))),
        Err(Failure::Obstacle { code, what }) => Some((*code, what.clone())),
        Err(Failure::Interrupted(code)) => Some((*code, "interrupted".to_owned())),
        Ok(()) => counts.too_little().map(|what| (7, what.to_owned())),
    };
    if let Some((_, what)) = &failed {
        eprintln!("ouro-crash: {what}");
    }
    if let Err(Failure::Finding { what, .. }) = &result {
        println!("replay: {}", replay(arguments, counts.cuts));
        println!("failed at cut {}: {what}", counts.cuts);
    }
    if image_path(&dir).exists() {
        println!("kept: {}", image_path(&dir).display());
        temporary.map(tempfile::TempDir::keep);
    }
    let code = failed.as_ref().map_or(0, |(code, _)| *code);
    let duration_s = start.elapsed().as_secs_f64();
    let report = Report::new(arguments, duration_s, &counts, failed.map(|(_, what)| what));
    if let Some(Err(what)) = report_file.map(|file| write_report(file, &report)) {
        eprintln!("ouro-crash: {what}");
        return if code == 0 { 7 } else { code };
    }
    if code == 0 {
        println!("ok: every cut left what was promised");
    }
    code
}

/// What this machine lacks.
fn missing(fs: Fs, is_root: bool, fuse: &Path) -> Option<String> {
    if !is_root {
        let what = "power mounts file systems on loop devices and needs root; run it with sudo";
        return Some(what.to_owned());
    }
    if !fuse.exists() {
        return Some(format!("power needs {}, for the disk whose power it cuts", fuse.display()));
    }
    let tools = [("mkfs.ext4", "e2fsprogs"), ("mkfs.xfs", "xfsprogs"), ("losetup", "mount")];
    let is_needed =
        |tool: &str| tool.strip_prefix("mkfs.").is_none_or(|kind| fs.kinds().contains(&kind));
    tools.into_iter().filter(|(tool, _)| is_needed(tool)).find_map(|(tool, package)| {
        let error = Command::new(tool).arg("-V").output().err()?;
        Some(format!("cannot run {tool}: {error}; install the package {package}"))
    })
}

/// How to meet a finding again; threads are as they are, so it may take more
/// cuts.
fn replay(arguments: &Arguments, cuts: u64) -> String {
    let Arguments { fs, seed, clients, io, .. } = arguments;
    let fs = fs.to_possible_value();
    let fs = fs.as_ref().map_or("ext4", |value| value.get_name());
    let pinned = arguments.durability.map(|mode| format!(" --durability {mode}"));
    format!(
        "ouro-crash power --fs {fs} --seed {seed} --cuts {cuts} --clients {clients} --io {io}{}",
        pinned.unwrap_or_default()
    )
}

/// Where the disk is kept of which there is something to say.
fn image_path(dir: &Path) -> PathBuf {
    dir.join("cut.image")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let says = |is_root, fuse: &str| missing(Fs::Ext4, is_root, Path::new(fuse));
        assert!(says(false, "/dev/null").is_some_and(|what| what.contains("sudo")));
        let absent = "/dev/there/is/no/fuse";
        assert!(says(true, absent).is_some_and(|what| what.contains(absent)));
    }
}
