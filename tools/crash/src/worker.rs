//! The process that is killed: opens the database, says what it found, then
//! writes until it dies.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ourodb::{Batch, Db, Durability, ErrorKind};

use crate::durability::Mode;
use crate::protocol::{CLOSE, Content, GO, OPENED, Record, Rows, SOME, Step};
use crate::script::{KEYS_PER_CLIENT, Operation, Script, Streams, key_bytes};
use crate::setup::Setup;

/// Of so many of a client's relaxed writes, a planted bug leaves out the last
/// one; or, if it is the other bug, all that come after.
const PLANTED_EVERY: u64 = 10;

/// What each client does when it is to do only some.
const SOME_OPERATIONS: u64 = 12;

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
    pub(crate) durability: Mode,
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// How long each client waits after each operation
    #[arg(long)]
    pub(crate) pause_us: u64,
    #[arg(long, value_enum)]
    pub(crate) plant: Option<Plant>,
}

impl Arguments {
    /// Flags and their values.
    pub(crate) fn flags(&self) -> impl Iterator<Item = (&'static str, String)> {
        let plant = self.plant.and_then(|plant| plant.to_possible_value());
        [
            ("--seed", self.seed.to_string()),
            ("--cycle", self.cycle.to_string()),
            ("--clients", self.clients.to_string()),
            ("--durability", self.durability.to_string()),
            ("--pause-us", self.pause_us.to_string()),
        ]
        .into_iter()
        .chain(self.setup.flags())
        .chain(plant.map(|plant| ("--plant", plant.get_name().to_owned())))
    }
}

/// A planted bug, which the parent must catch: a checker that misses one is
/// broken itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plant {
    /// Acknowledges a write before it is made
    AckBeforeWrite,
    /// Writes a batch one change at a time
    SplitBatch,
    /// Acknowledges some relaxed writes that it never makes
    SkipRelaxed,
    /// Acknowledges all relaxed writes, and makes none after the first few
    ForgetRelaxed,
    /// Acknowledges as durable what only survives the process
    DurableAsProcessSafe,
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
            Self::Engine(error) => (error.to_string(), exit_code(error)),
            Self::Inconsistent(what) => (what.clone(), 1),
            Self::Pipe(error) => (format!("the parent is gone: {error}"), 7),
        };
        eprintln!("ouro-crash worker: {message}");
        code
    }
}

/// The exit code of a process that an error of the engine ends.
pub(crate) fn exit_code(error: &ourodb::Error) -> u8 {
    match error.kind() {
        ErrorKind::Corruption => 3,
        ErrorKind::Locked => 4,
        ErrorKind::NoSpace => 5,
        ErrorKind::Unsupported => 6,
        _ => 7,
    }
}

/// Runs until it is killed or told to close.
pub(crate) fn run(arguments: &Arguments) -> u8 {
    work(arguments).map_or_else(|failure| failure.report(), |()| 0)
}

fn work(arguments: &Arguments) -> Result<(), Failure> {
    let pipe = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let Arguments { seed, cycle, durability: mode, .. } = *arguments;
    let default = mode.of_options(seed, cycle);
    let db = Db::open(&arguments.dir, arguments.setup.options().durability(default))?;
    (&pipe).write_all(&[OPENED])?;
    let content = content(&db, arguments.clients)?;
    content.write(&mut BufWriter::new(&pipe))?;

    let mut order = [0];
    io::stdin().read_exact(&mut order)?;
    let operations = match order[0] {
        CLOSE => return Ok(db.close()?),
        SOME => SOME_OPERATIONS,
        order => {
            assert_eq!(order, GO, "an order that the parent never gives");
            u64::MAX
        }
    };
    let script = Script::new(seed, cycle, mode, content.streams);
    let (plant, forgets) = (arguments.plant, AtomicBool::new(false));
    let pause = Duration::from_micros(arguments.pause_us);
    let writer = Writer { db: &db, default, pipe: &pipe, script: &script, pause, plant, forgets };
    thread::scope(|scope| {
        for client in 0..arguments.clients {
            let writer = &writer;
            scope.spawn(move || {
                if let Err(failure) = writer.write(client, operations) {
                    process::exit(i32::from(failure.report()));
                }
            });
        }
    });
    Ok(db.close()?)
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

/// What all clients share.
struct Writer<'a> {
    db: &'a Db,
    /// What the options say of writes.
    default: Durability,
    pipe: &'a File,
    script: &'a Script,
    pause: Duration,
    plant: Option<Plant>,
    /// By a planted bug, no relaxed write is made any more.
    forgets: AtomicBool,
}

impl Writer<'_> {
    fn write(&self, client: u8, operations: u64) -> Result<(), Failure> {
        let mut pipe = self.pipe;
        for number in 0..operations {
            let operation = self.script.operation(usize::from(client), number);
            let durability = self.script.durability(usize::from(client), number);
            let record = |step| Record { step, client, number }.to_bytes();
            pipe.write_all(&record(Step::Start))?;
            let early = self.plant == Some(Plant::AckBeforeWrite);
            if early {
                pipe.write_all(&record(Step::Done))?;
            }
            if operation == Operation::Flush || !self.skips(durability, number) {
                self.execute(usize::from(client), &operation, durability)?;
            }
            if !early {
                pipe.write_all(&record(Step::Done))?;
            }
            if !self.pause.is_zero() {
                thread::sleep(self.pause);
            }
        }
        Ok(())
    }

    /// Whether a planted bug has this operation left out.
    fn skips(&self, durability: Durability, number: u64) -> bool {
        if !matches!(durability, Durability::Relaxed { .. }) {
            return false;
        }
        match self.plant {
            Some(Plant::SkipRelaxed) => number % PLANTED_EVERY == PLANTED_EVERY - 1,
            Some(Plant::ForgetRelaxed) => {
                if number >= PLANTED_EVERY {
                    self.forgets.store(true, Ordering::SeqCst);
                }
                // From one moment on for all clients: what is there is a prefix.
                self.forgets.load(Ordering::SeqCst)
            }
            _ => false,
        }
    }

    fn execute(
        &self,
        client: usize,
        operation: &Operation,
        durability: Durability,
    ) -> ourodb::Result<()> {
        let db = self.db;
        // A write says itself only what the options do not.
        let mut own = (durability != self.default).then_some(durability);
        if self.plant == Some(Plant::DurableAsProcessSafe) && durability == Durability::Durable {
            own = Some(Durability::ProcessSafe);
        }
        match operation {
            Operation::Flush => return db.flush().wait(),
            Operation::Batch(changes) if self.plant != Some(Plant::SplitBatch) => {
                let mut batch = Batch::new();
                for change in changes {
                    let key = key_bytes(client, change.key);
                    match &change.value {
                        Some(value) => batch.put(&key, value),
                        None => batch.delete(&key),
                    };
                }
                let write = db.write(batch);
                return own.into_iter().fold(write, ourodb::Write::durability).wait();
            }
            Operation::Single(_) | Operation::Batch(_) => {}
        }
        for change in operation.changes() {
            let key = key_bytes(client, change.key);
            match &change.value {
                Some(value) => {
                    let put = db.put(&key, value);
                    own.into_iter().fold(put, ourodb::Put::durability).wait()?;
                }
                None => {
                    let delete = db.delete(&key);
                    own.into_iter().fold(delete, ourodb::Delete::durability).wait()?;
                }
            }
        }
        Ok(())
    }
}
