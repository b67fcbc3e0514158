//! `device`: what the disk can do, measured through the engine's own I/O.
//!
//! All requests go to one file, which has no name: whatever ends the process, nothing of it
//! stays.

mod measure;
mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use ourodb::ErrorKind;
use ourodb::device::{Request, TestFile};
use serde::{Deserialize, Serialize};

use self::measure::{FILL_BYTES, Fill, measure};
use crate::cli::{Io, OutputArgs, parse_seconds};
use crate::failure::Failure;
use crate::machine::free_bytes;
use crate::output::{Output, warn};
use crate::report::{self, Latency};
use crate::size::{format_size, parse_size};

/// What the engine reads and writes at least.
const SMALL_BYTES: usize = 4 << 10;
/// A long request: more of it makes no disk faster.
const LARGE_BYTES: usize = 1 << 20;

const FILE_BYTES_MIN: u64 = 4 << 20;
const DEPTH_MAX: usize = 128;

/// The flags of `device`.
#[derive(Args, Debug, Clone)]
pub struct DeviceArgs {
    /// A directory on the disk
    #[arg(long, value_name = "D")]
    pub dir: PathBuf,
    /// How long each test takes
    #[arg(long, value_name = "S", default_value = "2", value_parser = parse_seconds)]
    #[arg(allow_negative_numbers = true)]
    pub seconds: Duration,
    /// Size of the file that is read and written, at least 4MiB; what fits into memory of
    /// the disk itself shows that memory
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_file_bytes)]
    pub bytes: u64,
    /// How requests reach the disk: by a ring with so many in flight, or by so many threads
    #[arg(long, value_name = "IO", default_value = "both")]
    pub io: Ios,
    /// What to measure [default: everything]
    #[arg(long, value_name = "OP,…", value_delimiter = ',')]
    pub operation: Vec<Operation>,
    /// Requests in flight [default: 1,2,4,8,16,32,64,128 for random reads, 1,4,16 for
    /// durable writes, 4 otherwise]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = parse_depth)]
    #[arg(allow_negative_numbers = true)]
    pub depth: Vec<usize>,
    /// Write the result as JSON to this file too; - is stdout
    #[arg(long, value_name = "F")]
    pub json: Option<PathBuf>,
}

/// How requests reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ios {
    /// By a ring, as on the engine's owners
    Ring,
    /// By positioned calls, as in threads that wait
    Blocking,
    /// One after the other, the ring only where it is allowed
    Both,
}

impl Ios {
    fn all(self) -> &'static [Io] {
        match self {
            Self::Ring => &[Io::Ring],
            Self::Blocking => &[Io::Blocking],
            Self::Both => &[Io::Ring, Io::Blocking],
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Reads of 4 KiB at random places, as gets do them
    RandomRead,
    /// Reads of 1 MiB, one place after the other
    SequentialRead,
    /// Writes of 1 MiB over what is there, one place after the other
    SequentialWrite,
    /// Writes of 4 KiB over what is there, one place after the other, each durable when it
    /// ends, as the log does them
    DurableWrite,
}

impl Operation {
    fn request(self) -> Request {
        match self {
            Self::RandomRead | Self::SequentialRead => Request::Read,
            Self::SequentialWrite => Request::Write,
            Self::DurableWrite => Request::DurableWrite,
        }
    }

    fn request_bytes(self) -> usize {
        match self {
            Self::RandomRead | Self::DurableWrite => SMALL_BYTES,
            Self::SequentialRead | Self::SequentialWrite => LARGE_BYTES,
        }
    }

    fn depths(self) -> &'static [usize] {
        match self {
            Self::RandomRead => &[1, 2, 4, 8, 16, 32, 64, 128],
            Self::SequentialRead | Self::SequentialWrite => &[4],
            Self::DurableWrite => &[1, 4, 16],
        }
    }

    /// As a table has it.
    fn name(self) -> &'static str {
        match self {
            Self::RandomRead => "random read",
            Self::SequentialRead => "seq. read",
            Self::SequentialWrite => "seq. write",
            Self::DurableWrite => "durable write",
        }
    }
}

/// The result of `device`.
pub type Report = report::Report<Config, Measured>;

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// The directory, as given.
    pub dir: String,
    /// Length of the file that was read and written.
    pub file_bytes: u64,
    /// How long each test was to be.
    pub seconds_per_test: f64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// In the order in which they were done.
    pub tests: Vec<Test>,
}

/// One kind of request at one depth.
#[derive(Clone, Debug, Serialize)]
pub struct Test {
    /// What the requests did.
    pub operation: Operation,
    /// How they reached the disk.
    pub io: Io,
    /// Requests in flight at one time; with blocking I/O threads, each with one.
    pub depth: usize,
    /// Length of each.
    pub request_bytes: usize,
    /// From the first request to the end of the last.
    pub elapsed_s: f64,
    /// Requests that ended.
    pub ops: u64,
    /// Requests a second.
    pub ops_per_s: f64,
    /// Bytes a second.
    pub bytes_per_s: f64,
    /// How long requests took.
    pub latency_ns: Latency,
    /// CPU time of the whole process for each.
    pub cpu_ns_per_op: f64,
}

/// Measures a disk and prints the result. `interrupt` ends it with
/// [`Failure::Interrupted`], after the result of the tests that were done.
pub fn device(args: &DeviceArgs, interrupt: &AtomicBool) -> Result<(), Failure> {
    let file_bytes = args.bytes / FILL_BYTES as u64 * FILL_BYTES as u64;
    check_directory(&args.dir)?;
    check_room(&args.dir, file_bytes)?;
    let output = Output::new(&OutputArgs { json: args.json.clone(), ..OutputArgs::default() })?;
    let started = SystemTime::now();
    let file = make_file(&args.dir, file_bytes, interrupt)?;
    let mut tests = Vec::new();
    let partial = match &file {
        Some(file) => !run_tests(args, file, file_bytes, interrupt, &mut tests)?,
        None => true,
    };
    let config = Config {
        dir: args.dir.display().to_string(),
        file_bytes,
        seconds_per_test: args.seconds.as_secs_f64(),
    };
    let result = Measured { tests };
    let report = Report::new("device", partial, started, &args.dir, config, result);
    output.result(&table::render(&report), &report)?;
    if partial { Err(Failure::Interrupted) } else { Ok(()) }
}

fn check_directory(dir: &Path) -> Result<(), Failure> {
    let shown = dir.display();
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Failure::Usage(format!("{shown} is not a directory"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::Usage(format!(
            "there is no directory {shown}: name one on the disk that is to be measured"
        ))),
        Err(error) => Err(Failure::os(format!("cannot look at {shown}"))(error)),
    }
}

fn check_room(dir: &Path, file_bytes: u64) -> Result<(), Failure> {
    let shown = dir.display();
    let free =
        free_bytes(dir).map_err(Failure::os(format!("cannot ask for the space in {shown}")))?;
    if let Some(free_bytes) = free.filter(|free| *free < file_bytes) {
        let context = format!(
            "the test file takes {}, and there are {} free in {shown}; choose a shorter one \
             (--bytes)",
            format_size(file_bytes),
            format_size(free_bytes)
        );
        return Err(Failure::os(context)(io::ErrorKind::StorageFull.into()));
    }
    Ok(())
}

/// A file that was written in full, durably. `None` when it was interrupted.
fn make_file(dir: &Path, bytes: u64, interrupt: &AtomicBool) -> Result<Option<TestFile>, Failure> {
    let fail = || Failure::engine("cannot make the test file");
    let path = dir.join(format!("ouro-bench-device-{}", std::process::id()));
    let file = TestFile::create(&path).map_err(fail())?;
    let mut fill = Fill::new(bytes, interrupt);
    file.blocking(Request::Write, FILL_BYTES, &mut fill).map_err(fail())?;
    if !fill.finish() {
        return Ok(None);
    }
    file.sync().map_err(fail())?;
    Ok(Some(file))
}

/// Adds the tests that were asked for. Whether all of them were done.
fn run_tests(
    args: &DeviceArgs,
    file: &TestFile,
    file_bytes: u64,
    interrupt: &AtomicBool,
    tests: &mut Vec<Test>,
) -> Result<bool, Failure> {
    let operations = match &args.operation[..] {
        [] => Operation::value_variants(),
        chosen => chosen,
    };
    let mut without_ring = false;
    for &operation in operations {
        let depths = match &args.depth[..] {
            [] => operation.depths(),
            chosen => chosen,
        };
        for &io in args.io.all() {
            for &depth in depths {
                if without_ring && io == Io::Ring {
                    continue;
                }
                let plan = measure::Plan { operation, io, depth, file_bytes, time: args.seconds };
                match measure(file, &plan, interrupt) {
                    Ok(Some(test)) => tests.push(test),
                    Ok(None) => return Ok(false),
                    Err(Failure::Engine { source, .. })
                        if args.io == Ios::Both && is_without_ring(io, &source) =>
                    {
                        warn(&format!("measured without a ring: {source}"));
                        without_ring = true;
                    }
                    Err(failure) => return Err(failure),
                }
                if operation == Operation::SequentialWrite {
                    // What the disk still has to do must not slow down the next test.
                    file.sync().map_err(Failure::engine("cannot sync the test file"))?;
                }
            }
        }
    }
    Ok(true)
}

/// Whether there can be no ring here.
fn is_without_ring(io: Io, error: &ourodb::Error) -> bool {
    io == Io::Ring && matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Busy)
}

fn parse_file_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if bytes < FILE_BYTES_MIN {
        return Err(format!("at least {} are needed", format_size(FILE_BYTES_MIN)));
    }
    Ok(bytes)
}

fn parse_depth(text: &str) -> Result<usize, String> {
    let depth = text.parse().ok().filter(|depth| (1..=DEPTH_MAX).contains(depth));
    depth.ok_or_else(|| format!("a number from 1 to {DEPTH_MAX} is needed"))
}
