//! The process that has little memory: loads, overwrites, deletes, waits, and
//! checks all of it. It remembers nothing of what it wrote.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use clap::Args;
use ourodb::{Compression, Db, Durability, Options, Stats};
use serde::{Deserialize, Serialize};

use crate::Io;
use crate::space::data::{Data, ROUNDS};
use crate::space::usage::Usage;
use crate::worker::exit_code;

/// Threads that write and read.
const CLIENTS: usize = 2;

/// Operations that a client takes on at one time.
const SHARE: u64 = 256;

/// Nothing changes for so long once all has settled.
const CALM: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// Settling must come to an end by then. It does soon, unless others have the cores, since it is
/// left to a thread of the class `SCHED_IDLE`.
pub(super) const SETTLE_MAX: Duration = Duration::from_secs(600);

#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    #[arg(long)]
    pub(super) dir: PathBuf,
    /// The file to join the cgroup by
    #[arg(long)]
    pub(super) join: PathBuf,
    #[arg(long)]
    pub(super) memory_bytes: u64,
    #[arg(long)]
    pub(super) records: u64,
    #[arg(long)]
    pub(super) value_bytes: usize,
    #[arg(long)]
    pub(super) seed: u64,
    #[arg(long)]
    pub(super) owners: Option<usize>,
    #[arg(long)]
    pub(super) lz4: bool,
    #[arg(long, value_enum)]
    pub(super) io: Io,
}

/// One line of what a worker says.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Said {
    /// It did this for all records, or many of them.
    Did { what: String, seconds: f64, operations: u64 },
    /// Flushes and compactions have settled, by themselves; or not in time.
    Settled(Settled),
    /// The database is closed, and held what it must.
    Closed,
}

/// What a database is like once it has settled.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Settled {
    /// It has.
    pub(super) is_at_rest: bool,
    pub(super) usage: Usage,
    pub(super) memtable_bytes: u64,
    /// Bytes written to the device for each byte put.
    pub(super) written_per_put: f64,
    /// All of them, as text.
    pub(super) stats: String,
}

/// Why a worker ends.
enum Failure {
    Engine(ourodb::Error),
    System(io::Error),
    /// The database does not hold what it must.
    Wrong(String),
}

impl From<ourodb::Error> for Failure {
    fn from(error: ourodb::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

type Outcome<T = ()> = Result<T, Failure>;

/// Does it all, and returns the exit code.
pub(crate) fn run(arguments: &Arguments) -> u8 {
    let (what, code) = match work(arguments) {
        Ok(()) => return 0,
        Err(Failure::Engine(error)) => (error.to_string(), exit_code(&error)),
        Err(Failure::System(error)) => (error.to_string(), 7),
        Err(Failure::Wrong(what)) => (what, 1),
    };
    eprintln!("ouro-crash space: {what}");
    code
}

fn work(arguments: &Arguments) -> Outcome {
    // Before anything is allotted. "0" is who writes it.
    fs::write(&arguments.join, "0")?;
    let data = &Data::new(arguments);
    let mut options = Options::default()
        .memory(arguments.memory_bytes)
        .durability(Durability::ProcessSafe)
        .io(arguments.io.into());
    if let Some(owners) = arguments.owners {
        options = options.owners(owners);
    }
    if arguments.lz4 {
        options = options.compression(Compression::Lz4);
    }
    let db = &Db::open(&arguments.dir, options)?;
    let records = arguments.records;

    for round in 0..ROUNDS {
        let order = data.order(u64::from(round));
        let what = if round == 0 { "load".to_owned() } else { format!("overwrite {round}") };
        by_all(&what, records, |number, value| {
            let record = order.apply(number);
            data.value(record, round, value);
            Ok(db.put(&data.key(record), value).wait()?)
        })?;
    }
    by_all("delete", data.deletes(), |number, _| {
        Ok(db.delete(&data.key(data.delete(number))).wait()?)
    })?;
    settle(db, arguments)?;

    let order = data.order(u64::from(ROUNDS));
    by_all("get", records, |number, value| check_get(db, data, order.apply(number), value))?;
    timed("scan", || scan(db, data, records))?;
    db.close()?;
    say(&Said::Closed)
}

fn say(said: &Said) -> Outcome {
    let mut line = serde_json::to_vec(said).map_err(io::Error::from)?;
    line.push(b'\n');
    io::stdout().write_all(&line)?;
    Ok(())
}

/// Does something that returns how many operations it was, and says how long it
/// took.
fn timed(what: &str, work: impl FnOnce() -> Outcome<u64>) -> Outcome {
    let start = Instant::now();
    let operations = work()?;
    let seconds = start.elapsed().as_secs_f64();
    say(&Said::Did { what: what.to_owned(), seconds, operations })
}

/// All clients do this for 0..operations, each with a buffer for values.
fn by_all(
    what: &str,
    operations: u64,
    operation: impl Fn(u64, &mut Vec<u8>) -> Outcome + Sync,
) -> Outcome {
    let next = AtomicU64::new(0);
    let client = || -> Outcome {
        let mut value = Vec::new();
        loop {
            let first = next.fetch_add(SHARE, Ordering::Relaxed);
            for number in first..operations.min(first + SHARE) {
                // One that fails ends the others.
                operation(number, &mut value)
                    .inspect_err(|_| next.store(operations, Ordering::Relaxed))?;
            }
            if first >= operations {
                return Ok(());
            }
        }
    };
    timed(what, || {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            clients
                .into_iter()
                .try_for_each(|client| client.join().expect("a panic has been reported"))
        })?;
        Ok(operations)
    })
}

/// Waits until there is nothing to flush or to compact, and nothing changes on
/// the disk.
fn settle(db: &Db, arguments: &Arguments) -> Outcome {
    let start = Instant::now();
    let is_busy = |stats: &Stats| {
        stats.immutable_memtables + stats.compaction_debt_bytes + stats.spare_bytes > 0
    };
    let (mut last, mut since) = (Usage::of(&arguments.dir)?, start);
    while since.elapsed() < CALM {
        if start.elapsed() > SETTLE_MAX {
            since = Instant::now();
            break;
        }
        thread::sleep(LOOK);
        let usage = Usage::of(&arguments.dir)?;
        if usage != last || is_busy(&db.stats()) {
            (last, since) = (usage, Instant::now());
        }
    }
    let took = since.duration_since(start);
    let seconds = took.as_secs_f64();
    say(&Said::Did { what: "settle".to_owned(), seconds, operations: 0 })?;
    let stats = db.stats();
    say(&Said::Settled(Settled {
        is_at_rest: took < SETTLE_MAX,
        usage: last,
        memtable_bytes: stats.memtable_bytes,
        written_per_put: stats.write_amplification().unwrap_or(0.0),
        stats: stats.to_string(),
    }))
}

fn check_get(db: &Db, data: &Data, record: u64, value: &mut Vec<u8>) -> Outcome {
    let key = data.key(record);
    let found = db.get(&key).wait()?;
    data.value(record, ROUNDS - 1, value);
    let expected = (!data.is_deleted(record)).then_some(&value[..]);
    if found.as_deref() == expected {
        return Ok(());
    }
    Err(wrong("get", &key, found.as_deref()))
}

/// Returns how many rows there are: all that were not deleted, in order.
fn scan(db: &Db, data: &Data, records: u64) -> Outcome<u64> {
    let (mut rows, mut last, mut expected) = (0, Vec::new(), Vec::new());
    for row in db.scan(..) {
        let (key, value) = row?;
        let record = data.record(&key).filter(|record| !data.is_deleted(*record));
        if let Some(record) = record {
            data.value(record, ROUNDS - 1, &mut expected);
        }
        if record.is_none() || value[..] != expected[..] || key[..] <= last[..] {
            return Err(wrong("scan", &key, Some(&value)));
        }
        last.clear();
        last.extend_from_slice(&key);
        rows += 1;
    }
    let expected = records - data.deletes();
    if rows != expected {
        return Err(Failure::Wrong(format!("a scan finds {rows} rows of {expected}")));
    }
    Ok(rows)
}

fn wrong(what: &str, key: &[u8], found: Option<&[u8]>) -> Failure {
    let head = found.map(|value| &value[..value.len().min(32)]);
    Failure::Wrong(format!("a {what} finds what was not put under {key:02x?}: {head:02x?}"))
}

#[cfg(test)]
pub(super) fn arguments_for_tests() -> Arguments {
    Arguments {
        dir: PathBuf::new(),
        join: PathBuf::new(),
        memory_bytes: 0,
        records: 0,
        value_bytes: 100,
        seed: 7,
        owners: None,
        lz4: false,
        io: Io::Ring,
    }
}
