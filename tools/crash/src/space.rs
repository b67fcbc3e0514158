//! `ouro-crash space`: much data, little memory. A process loads eight times its
//! memory budget in random order, overwrites all of it twice, and deletes half.
//! Once it has settled by itself, what is on the disk must not be much more than
//! what can be read, all of that must be right, and the process must never have
//! had more memory than the budget and a little: it is in a memory cgroup that
//! would kill it.

mod data;
mod usage;
mod watch;
pub(crate) mod worker;

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use ouro_bench::size::{format_size, parse_size};
use rustix::fs::{statfs, statvfs};

use crate::Io;
use crate::child::Pipe;
use crate::interrupt::Interrupt;
use crate::space::data::KEY_BYTES;
use crate::space::usage::Usage;
use crate::space::watch::{Memory, Watch};
use crate::space::worker::{SETTLE_MAX, Said, Settled};
use ouro_bench::cgroup::Cgroup;

/// Data that are loaded, in memory budgets.
const BUDGETS: u64 = 8;

/// What may be on the disk for each byte that can be read.
const SPACE_MAX: f64 = 1.12;

/// What a process may have beyond its budget: a share of that, and what
/// `Options::memory` states for the program, its stacks, and what `malloc` does
/// not give back.
const BEYOND_PERCENT: u64 = 5;
const BEYOND: &str = "32MiB";

/// Space that a run needs, in data that are loaded, and besides.
const ROOM_TIMES: u64 = 3;
const ROOM_BYTES: u64 = 256 << 20;

/// A process that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(900);

/// File systems whose files are memory: `TMPFS_MAGIC`, `RAMFS_MAGIC`.
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The memory budget
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    memory: u64,
    /// Records of 24-byte keys [default: as many as are 8 times the budget]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    records: Option<u64>,
    /// Bytes of each value, of which half are random
    #[arg(long, value_name = "V", default_value_t = 400, value_parser = clap::value_parser!(u64).range(16..=1 << 30))]
    value_bytes: u64,
    /// Keys, values, and all orders follow from this
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Owners of the database [default: as many as cores]
    #[arg(long)]
    owners: Option<usize>,
    /// Memory that a process may have beyond its budget and 5 % of that
    #[arg(long, value_name = "SIZE", default_value = BEYOND, value_parser = parse_size)]
    beyond: u64,
    /// Compress tables; what is on the disk is then not judged
    #[arg(long)]
    lz4: bool,
    #[arg(long, value_enum, default_value_t = Io::Ring)]
    io: Io,
    /// An empty or absent directory on a disk [default: a temporary one]
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
}

/// Why a run fails: exit code, and what to say.
type Failure = (u8, String);

/// What a failure is about.
enum Missed {
    /// What the database holds.
    Content(Failure),
    /// Space, memory, or time.
    Bound(Failure),
    /// Nothing that the engine did.
    Obstacle(Failure),
}

impl From<Failure> for Missed {
    fn from(failure: Failure) -> Self {
        Self::Obstacle(failure)
    }
}

/// Does it, and returns the exit code.
pub(crate) fn run(arguments: &Arguments) -> u8 {
    match Run::new(arguments).and_then(Run::all) {
        Ok(()) => 0,
        Err((code, what)) => {
            eprintln!("ouro-crash: {what}");
            code
        }
    }
}

struct Run<'a> {
    arguments: &'a Arguments,
    records: u64,
    dir: PathBuf,
    temporary: Option<tempfile::TempDir>,
    interrupt: Interrupt,
}

impl<'a> Run<'a> {
    fn new(arguments: &'a Arguments) -> Result<Self, Failure> {
        if !rustix::process::geteuid().is_root() {
            let what = "space makes a memory cgroup and needs root; run it with sudo";
            return Err((6, what.to_owned()));
        }
        let record_bytes = KEY_BYTES as u64 + arguments.value_bytes;
        let records = arguments.records.unwrap_or(BUDGETS * arguments.memory / record_bytes).max(2);
        let interrupt = Interrupt::install().map_err(failed)?;
        let (dir, temporary) = crate::kill::directory(arguments.dir.as_deref())?;
        let run = Self { arguments, records, dir, temporary, interrupt };
        run.check_place()?;
        Ok(run)
    }

    /// Keys and values of so many records.
    fn data_bytes(&self, records: u64) -> u64 {
        records * (KEY_BYTES as u64 + self.arguments.value_bytes)
    }

    /// Before anything is written: whether the directory will do.
    fn check_place(&self) -> Result<(), Failure> {
        let dir = self.dir.display();
        let kind = statfs(&self.dir).map_err(failed)?.f_type;
        if IN_MEMORY.contains(&(kind as u32)) {
            let what = format!("{dir} is in memory itself; name a directory on a disk with --dir");
            return Err((6, what));
        }
        let there = statvfs(&self.dir).map_err(failed)?;
        let free = there.f_bavail * there.f_frsize;
        let needed = ROOM_TIMES * self.data_bytes(self.records) + ROOM_BYTES;
        if free < needed {
            let (needed, free) = (format_size(needed), format_size(free));
            return Err((5, format!("{dir} has {free} free, and {needed} are needed")));
        }
        Ok(())
    }

    fn limit_bytes(&self) -> u64 {
        let Arguments { memory, beyond, .. } = self.arguments;
        memory + memory * BEYOND_PERCENT / 100 + beyond
    }

    fn all(mut self) -> Result<(), Failure> {
        let (memory, limit) = (self.arguments.memory, self.limit_bytes());
        println!(
            "{} records of {KEY_BYTES} + {} bytes, {}; memory budget {}, limit {}",
            self.records,
            self.arguments.value_bytes,
            format_size(self.data_bytes(self.records)),
            format_size(memory),
            format_size(limit),
        );
        let database = self.dir.join("db");
        let result = self.in_cgroup(&database);
        // Ctrl-C ends the process, too, and that is then no finding.
        if self.interrupt.requested() {
            remove(&database)?;
            return Err((self.interrupt.exit_code(), "interrupted".to_owned()));
        }
        match &result {
            Ok(()) => {}
            // Somebody will want to see it.
            Err(Missed::Content(_)) => {
                println!("kept: {}", database.display());
                self.temporary.take().map(tempfile::TempDir::keep);
            }
            Err(_) => remove(&database)?,
        }
        result.map_err(|missed| {
            let (Missed::Content(failure) | Missed::Bound(failure) | Missed::Obstacle(failure)) =
                missed;
            if failure.0 == 1 || failure.0 == 3 {
                self.say_replay();
            }
            failure
        })
    }

    fn say_replay(&self) {
        let Arguments { memory, value_bytes, seed, io, owners, lz4, .. } = self.arguments;
        let owners = owners.map(|owners| format!(" --owners {owners}")).unwrap_or_default();
        let lz4 = if *lz4 { " --lz4" } else { "" };
        println!(
            "replay: ouro-crash space --memory {memory} --records {} --value-bytes {value_bytes} \
             --seed {seed} --io {io}{owners}{lz4}",
            self.records
        );
    }

    fn in_cgroup(&self, database: &Path) -> Result<(), Missed> {
        let point = self.dir.join("cgroups");
        let cgroup = Cgroup::new(self.limit_bytes(), &point).map_err(|what| (6, what))?;
        let mut process = self.start(database, &cgroup).map_err(failed)?;
        let watch = Watch::new(&process, database);
        let output = process.stdout.take().expect("it was asked to be a pipe");
        let listened = watch.during(self.interrupt.flag(), || self.listen(output, &watch));
        // Without a last line it has failed, or hangs.
        if listened.is_err() {
            // No failure if it has ended.
            let _ = process.kill();
        }
        let status = process.wait().map_err(failed)?;
        let settled = match listened {
            Ok(settled) if status.success() => settled,
            listened => return Err(self.ended(status, listened.err(), &cgroup)),
        };
        let (memory, disk_bytes) = (watch.memory(), watch.disk_bytes_max());
        let missed = self.judge(&settled, memory, disk_bytes, cgroup.peak_bytes());
        if missed.is_empty() {
            remove(database)?;
            println!("ok: space and memory are within their bounds, and all reads were right");
            return Ok(());
        }
        println!("{}", settled.stats);
        Err(Missed::Bound((1, missed.join("; "))))
    }

    fn start(&self, database: &Path, cgroup: &Cgroup) -> io::Result<Child> {
        let Arguments { memory, value_bytes, seed, io, owners, lz4, .. } = self.arguments;
        fs::create_dir(database)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("space-worker").arg("--dir").arg(database).arg("--join").arg(cgroup.join());
        command.arg("--memory-bytes").arg(memory.to_string());
        command.arg("--records").arg(self.records.to_string());
        command.arg("--value-bytes").arg(value_bytes.to_string());
        command.arg("--seed").arg(seed.to_string()).arg("--io").arg(io.to_string());
        if let Some(owners) = owners {
            command.arg("--owners").arg(owners.to_string());
        }
        command.args(lz4.then_some("--lz4"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
    }

    /// Reports what the process does, up to its last line. Returns what it said
    /// when it had settled.
    fn listen(&self, output: ChildStdout, watch: &Watch<'_>) -> Result<Settled, String> {
        let mut output = BufReader::new(Pipe::new(output, PATIENCE));
        let mut settled = None;
        loop {
            let mut line = String::new();
            output.get_mut().renew(PATIENCE);
            let read = output.read_line(&mut line).map_err(|error| format!("it hangs: {error}"))?;
            if read == 0 {
                return Err("it ended before it was done".to_owned());
            }
            let said = serde_json::from_str(&line).map_err(|error| error.to_string())?;
            match said {
                Said::Did { what, seconds, operations } => {
                    let resident = watch.resident_since_last().map_or_else(String::new, |bytes| {
                        format!(", {} resident at most", format_size(bytes))
                    });
                    let rate = match operations {
                        0 => String::new(),
                        operations => format!(", {:.0}/s", operations as f64 / seconds),
                    };
                    println!("{what}: {seconds:.1} s{rate}{resident}");
                }
                Said::Settled(all) => settled = Some(all),
                Said::Closed => return settled.ok_or_else(|| "it never settled".to_owned()),
            }
        }
    }

    /// Why a process ended that was not done; it has said so on stderr, if it
    /// could.
    fn ended(&self, status: ExitStatus, what: Option<String>, cgroup: &Cgroup) -> Missed {
        if cgroup.has_killed() {
            let limit = format_size(self.limit_bytes());
            let what = format!("the process was killed since it wanted more than {limit}");
            return Missed::Bound((1, what));
        }
        let what = what.unwrap_or_else(|| "it failed at its very end".to_owned());
        let what = format!("the process ended with {status}: {what}");
        match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code @ (1 | 3)) => Missed::Content((code, what)),
            Some(code @ (4..=7)) => Missed::Obstacle((code, what)),
            // It panicked, died, or hung and was killed.
            _ => Missed::Content((1, what)),
        }
    }

    /// Prints what came out. Returns the bounds that it misses.
    fn judge(
        &self,
        settled: &Settled,
        memory: Memory,
        disk_bytes_max: u64,
        cgroup_bytes: Option<u64>,
    ) -> Vec<String> {
        let live = self.data_bytes(self.records - self.records / 2);
        let Usage { data_bytes, all_bytes } = settled.usage;
        let ratio = |bytes: u64| bytes as f64 / live as f64;
        let space = ratio(data_bytes);
        println!(
            "tables and value files: {} for {} of live data, {space:.3} (at most {SPACE_MAX})",
            format_size(data_bytes),
            format_size(live),
        );
        println!(
            "everything on the disk, log included: {}, {:.3}; at most {} on the way",
            format_size(all_bytes),
            ratio(all_bytes),
            format_size(disk_bytes_max),
        );
        println!("memtables at rest: {}", format_size(settled.memtable_bytes));
        println!("bytes written per byte put: {:.2}", settled.written_per_put);
        let limit = self.limit_bytes();
        let Memory { resident, anonymous } = memory;
        println!(
            "resident memory: {} at most, {} of it anonymous; budget {}, limit {}",
            format_size(resident),
            format_size(anonymous),
            format_size(self.arguments.memory),
            format_size(limit),
        );
        if let Some(bytes) = cgroup_bytes {
            println!(
                "memory of the cgroup, kernel and page cache included: {}",
                format_size(bytes)
            );
        }
        let mut missed = Vec::new();
        if space > SPACE_MAX && !self.arguments.lz4 {
            missed.push(format!("{space:.3} bytes on the disk for each live one"));
        }
        if !settled.is_at_rest {
            missed.push(format!("it is not at rest after {} s", SETTLE_MAX.as_secs()));
        }
        if resident > limit {
            missed.push(format!("{} of resident memory", format_size(resident)));
        }
        missed
    }
}

fn failed(error: impl Into<io::Error>) -> Failure {
    crate::kill::obstacle(&error.into())
}

fn remove(database: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(database) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}
