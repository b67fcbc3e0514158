//! `ouro-crash limits`: what the machine may forbid, and only root can bring
//! about. Each case must end in a clear error or go on working, and lose
//! nothing.
//!
//! The engine runs in processes of its own (`limited`), which may hang, and
//! may be killed; what is mounted here is unmounted whatever happens to them.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::time::Duration;
use std::{fs, iter};

use clap::Args;

use crate::child::Pipe;
use crate::interrupt::Interrupt;
use crate::limited::{
    ACKNOWLEDGED, BYTES_PER_S, DONE, FULL, LOADED, ORDINARY, READ, SHARD_DIRS, WRITTEN,
};
use crate::throttle::Throttle;
use ouro_bench::mounts::Mount;

/// A process that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(180);

const DISK_MIB: u64 = 64;

/// A flag of processes whose writes need not survive the machine.
const PROCESS_SAFE: &str = "--process-safe";

/// What is put on a disk beforehand, to be removed when it is full.
const FILLER_BYTES: usize = 12 << 20;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// An empty or absent directory to work in [default: a temporary one]
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
}

type Case = fn(&Path) -> Result<(), String>;

const CASES: [(&str, Case); 14] = [
    ("no-direct-io", no_direct_io),
    ("tmpfs", tmpfs),
    ("read-only", read_only),
    ("full-disk", |place| full_disk(place, &[])),
    ("full-disk-process-safe", |place| full_disk(place, &[PROCESS_SAFE])),
    ("full-disk-under-a-mapping", |place| disk_and_mapping(place, "disk-afterwards")),
    ("full-disk-without-a-mapping", |place| disk_and_mapping(place, "disk-beforehand")),
    ("short-files", short_files),
    ("slow-disk", |place| slow_disk(place, &[])),
    ("slow-disk-process-safe", |place| slow_disk(place, &[PROCESS_SAFE])),
    ("slow-shard", slow_shard),
    ("little-locked-memory", little_locked_memory),
    ("another-users-files", another_users_files),
    ("files-to-read-only", files_to_read_only),
];

/// Runs every case, and returns the exit code.
pub(crate) fn run(arguments: &Arguments) -> u8 {
    if !rustix::process::geteuid().is_root() {
        eprintln!("ouro-crash: limits mounts file systems and needs root; run it with sudo");
        return 6;
    }
    let interrupt = match Interrupt::install() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            eprintln!("ouro-crash: {error}");
            return 7;
        }
    };
    let (dir, _temporary) = match crate::kill::directory(arguments.dir.as_deref()) {
        Ok(directory) => directory,
        Err((code, what)) => {
            eprintln!("ouro-crash: {what}");
            return code;
        }
    };
    let mut code = 0;
    for (name, case) in CASES {
        let place = dir.join(name);
        let result =
            fs::create_dir(&place).map_err(|error| error.to_string()).and_then(|()| case(&place));
        // The processes get Ctrl-C too, and end.
        if interrupt.requested() {
            eprintln!("ouro-crash: interrupted");
            return interrupt.exit_code();
        }
        match result {
            Ok(()) => println!("ok {name}"),
            Err(what) => {
                println!("FAILED {name}: {what}");
                code = 1;
            }
        }
    }
    code
}

fn no_direct_io(place: &Path) -> Result<(), String> {
    let mount = Mount::memory("ramfs", &place.join("mount"))?;
    Limited::start(mount.point(), &["no-direct-io"])?.finish()?;
    Ok(())
}

fn tmpfs(place: &Path) -> Result<(), String> {
    let mount = Mount::memory("tmpfs", &place.join("mount"))?;
    Limited::start(mount.point(), &["works"])?.finish()?;
    Ok(())
}

/// A database that can be looked at, and not opened.
fn read_only(place: &Path) -> Result<(), String> {
    let mount = Mount::ext4(&place.join("image"), DISK_MIB, &place.join("mount"))?;
    Limited::start(mount.point(), &["works"])?.finish()?;
    mount.make_read_only()?;
    Limited::start(mount.point(), &["read-only"])?.finish()?;
    Ok(())
}

/// A disk that is full three times: twice under one open database, which goes
/// on when there is space, and once under one that is then killed.
fn full_disk(place: &Path, durability: &[&str]) -> Result<(), String> {
    let mount = Mount::ext4(&place.join("image"), DISK_MIB, &place.join("mount"))?;
    let failed = |error: io::Error| error.to_string();
    let filler = |name: &str| mount.point().join(name);
    for name in ["filler-a", "filler-b", "filler-c"] {
        fs::write(filler(name), vec![0x5a; FILLER_BYTES]).map_err(failed)?;
    }
    let fill = [&["fill", "--prefix", "a", "--free", "filler-a"], durability].concat();
    let mut counts = Limited::start(mount.point(), &fill)?.finish()?;

    fs::remove_file(filler("filler-b")).map_err(failed)?;
    let fill = [&["fill", "--prefix", "b", "--until-killed"], durability].concat();
    counts.extend(Limited::start(mount.point(), &fill)?.kill_at(FULL)?);

    fs::remove_file(filler("filler-c")).map_err(failed)?;
    check(mount.point(), &counts, 2)
}

/// What was acknowledged in a mapping is there after a kill, whatever became of
/// the disk before or after the mapping was made.
fn disk_and_mapping(place: &Path, scarce: &str) -> Result<(), String> {
    let mount = Mount::ext4(&place.join("image"), DISK_MIB, &place.join("mount"))?;
    let said = Limited::start(mount.point(), &["mappings", scarce])?.kill_at(FULL)?;
    check(mount.point(), &said, 1)
}

fn short_files(place: &Path) -> Result<(), String> {
    give_away(place)?;
    let said = Limited::start(place, &["mappings", "file-bytes"])?.kill_at(FULL)?;
    check(place, &said, 1)
}

/// A disk that does next to nothing for a while, and then little at a time.
fn slow_disk(place: &Path, durability: &[&str]) -> Result<(), String> {
    let throttle = Throttle::new(place).map_err(|what| format!("no throttled disk: {what}"))?;
    let join = throttle.join();
    let join = join.to_str().ok_or("a path that is not UTF-8")?;
    let role = [&["slow-disk", "--join", join], durability].concat();
    let mut limited = Limited::start(throttle.disk(), &role)?;
    limited.read_up_to(LOADED)?;
    throttle.slow()?;
    let read = limited.go_on().and_then(|()| limited.read_up_to(READ));
    // Whatever came of it: a process that is killed waits for what is held back.
    throttle.slow_to(BYTES_PER_S)?;
    read?;
    let said = limited.finish()?;
    check(throttle.disk(), &said, 2)
}

/// A disk that does next to nothing, under the tables of one shard.
fn slow_shard(place: &Path) -> Result<(), String> {
    let throttle = Throttle::new(place).map_err(|what| format!("no throttled disk: {what}"))?;
    let join = throttle.join();
    let join = join.to_str().ok_or("a path that is not UTF-8")?;
    // Before the process: it uses what is mounted until its end.
    let mut mount = None;
    let mut limited = Limited::start(place, &["slow-shard", "--join", join])?;
    limited.read_up_to(LOADED)?;
    let shard = place.join(SHARD_DIRS[0]);
    copy(&shard, throttle.disk()).map_err(|error| format!("{}: {error}", shard.display()))?;
    mount.replace(Mount::bind(throttle.disk(), &shard)?);
    limited.go_on()?;
    limited.read_up_to(READ)?;
    throttle.slow()?;
    let written = limited.go_on().and_then(|()| limited.read_up_to(WRITTEN));
    throttle.lift()?;
    written?;
    limited.finish()?;
    Ok(())
}

/// Copies the files of a directory into another one.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// What was acknowledged, as so many lines of these say, is there.
fn check(place: &Path, said: &[String], lines: usize) -> Result<(), String> {
    let counts: Vec<&str> =
        said.iter().filter_map(|line| line.strip_prefix(ACKNOWLEDGED)).collect();
    if counts.len() != lines {
        return Err(format!("{lines} lines were to say what was acknowledged: {counts:?}"));
    }
    let check: Vec<&str> = iter::once("check").chain(counts).collect();
    Limited::start(place, &check)?.finish()?;
    Ok(())
}

fn little_locked_memory(place: &Path) -> Result<(), String> {
    for (name, durability) in [("durable", &[][..]), ("process-safe", &[PROCESS_SAFE])] {
        let place = place.join(name);
        fs::create_dir(&place).map_err(|error| error.to_string())?;
        give_away(&place)?;
        let role = [&["little-locked-memory"], durability].concat();
        Limited::start(&place, &role)?.finish()?;
    }
    Ok(())
}

fn another_users_files(place: &Path) -> Result<(), String> {
    Limited::start(place, &["works"])?.finish()?;
    Limited::start(place, &["denied"])?.finish()?;
    Limited::start(place, &["works"])?.finish()?;
    // One file of another user's in a directory of one's own.
    give_away(place)?;
    let database = place.join("db");
    for entry in [database.clone(), database.join("LOCK")] {
        give_away(&entry)?;
    }
    Limited::start(place, &["denied"])?.finish()?;
    Limited::start(place, &["works"])?.finish()?;
    Ok(())
}

/// Another user's database that everybody may read.
fn files_to_read_only(place: &Path) -> Result<(), String> {
    Limited::start(place, &["works"])?.finish()?;
    open_to_readers(place).map_err(|error| error.to_string())?;
    Limited::start(place, &["readable"])?.finish()?;
    Limited::start(place, &["works"])?.finish()?;
    Ok(())
}

fn open_to_readers(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            true => open_to_readers(&path)?,
            false => fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?,
        }
    }
    Ok(())
}

/// Makes a file or directory the ordinary user's own.
fn give_away(path: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot change {}: {error}", path.display());
    chown(path, Some(ORDINARY), Some(ORDINARY)).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// A process that meets a limit; killed when dropped.
struct Limited {
    process: process::Child,
    orders: process::ChildStdin,
    output: BufReader<Pipe>,
}

impl Limited {
    /// Starts one in `place`: an ordinary user reaches it that way whatever is
    /// above it.
    fn start(place: &Path, role: &[&str]) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot start a process: {error}");
        let mut process = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("limited")
            .args(role)
            .current_dir(place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let taken = process.stdin.take().zip(process.stdout.take());
        let (orders, output) = taken.expect("both were asked to be pipes");
        let output = BufReader::new(Pipe::new(output, PATIENCE));
        Ok(Self { process, orders, output })
    }

    /// Lets go on one that waits for that.
    fn go_on(&mut self) -> Result<(), String> {
        self.orders.write_all(b"\n").map_err(|error| format!("a process is gone: {error}"))
    }

    /// Reads lines up to `last`.
    fn read_up_to(&mut self, last: &str) -> Result<Vec<String>, String> {
        let mut lines: Vec<String> = Vec::new();
        loop {
            let mut line = String::new();
            match self.output.read_line(&mut line) {
                Ok(0) => {
                    let status = self.process.wait().map_err(|error| error.to_string())?;
                    let why = lines.last().map_or("it said nothing", String::as_str);
                    return Err(format!("a process ended by itself ({status}): {why}"));
                }
                Ok(_) if line.trim_end() == last => return Ok(lines),
                Ok(_) => lines.push(line.trim_end().to_owned()),
                Err(error) => return Err(format!("a process hangs: {error}")),
            }
        }
    }

    /// Reads lines up to `last`, and kills it.
    fn kill_at(mut self, last: &str) -> Result<Vec<String>, String> {
        self.read_up_to(last)
    }

    /// Waits for its end, which must be a good one. Returns what it said.
    fn finish(mut self) -> Result<Vec<String>, String> {
        let lines = self.read_up_to(DONE)?;
        let status = self.process.wait().map_err(|error| error.to_string())?;
        if status.success() {
            Ok(lines)
        } else {
            Err(format!("a process failed at its very end: {status}"))
        }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // Neither fails for a process that was waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
