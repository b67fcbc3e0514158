//! The process that is killed: opens the database, says what it found, then
//! writes until it dies.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process;
use std::thread;

use clap::{Args, ValueEnum};
use ourodb::{Batch, Db, ErrorKind, Options};

use crate::Io;
use crate::protocol::{CLOSE, Content, GO, OPENED, Record, Rows, Step};
use crate::script::{KEYS_PER_CLIENT, Operation, Script, Streams, key_bytes};

/// Small, so that memtables fill up and become tables within a few cycles.
const MEMORY_BYTES: u64 = 16 << 20;

/// What a parent tells its worker.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[arg(long)]
    pub(crate) seed: u64,
    #[arg(long)]
    pub(crate) cycle: u64,
    #[arg(long)]
    pub(crate) clients: u8,
    #[arg(long)]
    pub(crate) shards: usize,
    #[arg(long)]
    pub(crate) owners: usize,
    #[arg(long, value_enum)]
    pub(crate) io: Io,
    #[arg(long, value_enum)]
    pub(crate) plant: Option<Plant>,
}

/// A planted bug, which the parent must catch: a checker that misses one is
/// broken itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plant {
    /// Acknowledges a write before it is made
    AckBeforeWrite,
    /// Writes a batch one change at a time
    SplitBatch,
}

/// Why a worker ends by itself.
enum Failure {
    Engine(ourodb::Error),
    /// Two ways to read the database differ.
    Inconsistent(String),
    /// The parent is gone.
    Pipe(io::Error),
}

impl From<ourodb::Error> for Failure {
    fn from(error: ourodb::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Pipe(error)
    }
}

impl Failure {
    /// Says on stderr what failed, and returns the exit code for it.
    fn report(&self) -> u8 {
        let (message, code) = match self {
            Self::Engine(error) => {
                let code = match error.kind() {
                    ErrorKind::Corruption => 3,
                    ErrorKind::Locked => 4,
                    ErrorKind::NoSpace => 5,
                    ErrorKind::Unsupported => 6,
                    _ => 7,
                };
                (error.to_string(), code)
            }
            Self::Inconsistent(what) => (what.clone(), 1),
            Self::Pipe(error) => (format!("the parent is gone: {error}"), 7),
        };
        eprintln!("ouro-crash worker: {message}");
        code
    }
}

/// Runs until it is killed or told to close.
pub(crate) fn run(arguments: &Arguments) -> u8 {
    work(arguments).map_or_else(|failure| failure.report(), |()| 0)
}

fn work(arguments: &Arguments) -> Result<(), Failure> {
    let pipe = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let options = Options::default()
        .memory(MEMORY_BYTES)
        .shards(arguments.shards)
        .owners(arguments.owners)
        .io(arguments.io.into());
    let db = Db::open(&arguments.dir, options)?;
    (&pipe).write_all(&[OPENED])?;
    let content = content(&db, arguments.clients)?;
    content.write(&mut BufWriter::new(&pipe))?;

    let mut order = [0];
    io::stdin().read_exact(&mut order)?;
    match order[0] {
        CLOSE => return Ok(db.close()?),
        order => assert_eq!(order, GO, "an order that the parent never gives"),
    }
    let script = Script::new(arguments.seed, arguments.cycle, content.streams);
    thread::scope(|scope| {
        for client in 0..arguments.clients {
            let (db, pipe, script) = (&db, &pipe, &script);
            scope.spawn(move || {
                let Err(failure) = write_for_ever(db, pipe, script, client, arguments.plant);
                process::exit(i32::from(failure.report()))
            });
        }
    });
    Ok(())
}

/// Reads everything in three ways, which must agree.
fn content(db: &Db, clients: u8) -> Result<Content, Failure> {
    let read = |row: ourodb::Result<(ourodb::Value, ourodb::Value)>| {
        row.map(|(key, value)| (key.into_vec(), value.into_vec()))
    };
    let rows = db.scan(..).iter().map(read).collect::<ourodb::Result<Rows>>()?;
    let mut backward = db.scan(..).reverse().iter().map(read).collect::<ourodb::Result<Rows>>()?;
    backward.reverse();
    if rows != backward {
        let (forward, backward) = (rows.len(), backward.len());
        return Err(Failure::Inconsistent(format!(
            "a scan forward and one backward differ ({forward} and {backward} rows)"
        )));
    }
    let mut streams = Streams::new();
    for client in 0..clients {
        let mut of_client = Vec::new();
        for key in 0..KEYS_PER_CLIENT {
            let key = key_bytes(usize::from(client), key);
            let scanned =
                rows.binary_search_by(|row| row.0.cmp(&key)).ok().map(|at| &rows[at].1[..]);
            if db.get(&key).wait()?.as_deref() != scanned {
                let key = key.escape_ascii();
                return Err(Failure::Inconsistent(format!("a get and a scan differ at {key}")));
            }
            of_client.push(u16::try_from(db.stream_of(&key)).expect("owners are few"));
        }
        streams.push(of_client);
    }
    Ok(Content { streams, rows })
}

fn write_for_ever(
    db: &Db,
    mut pipe: &File,
    script: &Script,
    client: u8,
    plant: Option<Plant>,
) -> Result<std::convert::Infallible, Failure> {
    let mut number = 0;
    loop {
        let operation = script.operation(usize::from(client), number);
        let record = |step| Record { step, client, number }.to_bytes();
        pipe.write_all(&record(Step::Start))?;
        if plant == Some(Plant::AckBeforeWrite) {
            pipe.write_all(&record(Step::Done))?;
        }
        execute(db, usize::from(client), &operation, plant)?;
        if plant != Some(Plant::AckBeforeWrite) {
            pipe.write_all(&record(Step::Done))?;
        }
        number += 1;
    }
}

fn execute(
    db: &Db,
    client: usize,
    operation: &Operation,
    plant: Option<Plant>,
) -> ourodb::Result<()> {
    match operation {
        Operation::Flush => return db.flush().wait(),
        Operation::Batch(changes) if plant != Some(Plant::SplitBatch) => {
            let mut batch = Batch::new();
            for change in changes {
                let key = key_bytes(client, change.key);
                match &change.value {
                    Some(value) => batch.put(&key, value),
                    None => batch.delete(&key),
                };
            }
            return db.write(batch).wait();
        }
        Operation::Single(_) | Operation::Batch(_) => {}
    }
    for change in operation.changes() {
        let key = key_bytes(client, change.key);
        match &change.value {
            Some(value) => db.put(&key, value).wait()?,
            None => db.delete(&key).wait()?,
        }
    }
    Ok(())
}
