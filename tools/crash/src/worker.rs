//! The process that is killed: opens the database, says what it found, then
//! writes until it dies.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io};

use clap::{Args, ValueEnum};
use ourodb::{Db, ErrorKind};

use crate::durability::Mode;
use crate::lock::LOCK;
use crate::plant::Plant;
use crate::protocol::{CLOSE, Content, GO, OPENED, Rows, SOME};
use crate::reads::History;
use crate::script::{KEYS_PER_CLIENT, Script, Streams, key_bytes};
use crate::settle::Values;
use crate::setup::Setup;
use crate::writer::Shared;
use crate::{reader, writer};

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
    /// How long to wait for the lock, if not as long as usual
    #[arg(long)]
    pub(crate) lock_wait_ms: Option<u64>,
    /// A file to join a cgroup by
    #[arg(long)]
    pub(crate) join: Option<PathBuf>,
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
        .chain(self.lock_wait_ms.map(|wait| ("--lock-wait-ms", wait.to_string())))
        .chain(self.join.as_ref().map(|file| ("--join", file.display().to_string())))
    }
}

/// Why a worker ends by itself.
pub(crate) enum Failure {
    Engine(ourodb::Error),
    /// Two ways to read the database differ, or a read finds what nobody wrote.
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
    /// What the engine said, if it did.
    pub(crate) fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Engine(error) => Some(error.kind()),
            Self::Inconsistent(_) | Self::Pipe(_) => None,
        }
    }

    /// Says on stderr what failed, and returns the exit code for it.
    pub(crate) fn report(&self) -> u8 {
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
    if let Some(join) = &arguments.join {
        fs::write(join, "0")?;
    }
    let pipe = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let Arguments { seed, cycle, durability: mode, plant, .. } = *arguments;
    let default = mode.of_options(seed, cycle);
    let mut options = arguments.setup.options().durability(default);
    if let Some(wait) = arguments.lock_wait_ms {
        options = options.lock_wait(Duration::from_millis(wait));
        meddle(plant, &arguments.dir)?;
    }
    let db = Db::open(&arguments.dir, options)?;
    (&pipe).write_all(&[OPENED])?;
    let content = content(&db, arguments.clients)?;
    content.write(&mut BufWriter::new(&pipe))?;

    let operations = match order()? {
        CLOSE => return Ok(db.close()?),
        SOME => SOME_OPERATIONS,
        order => {
            assert_eq!(order, GO, "an order that the parent never gives");
            u64::MAX
        }
    };
    let Content { streams, rows } = content;
    let (keys, opened) = keys_and_values(arguments.clients, &rows);
    let shared = Arc::new(Shared {
        db,
        default,
        pipe,
        script: Script::new(seed, cycle, mode, streams),
        operations,
        pause: Duration::from_micros(arguments.pause_us),
        plant,
        forgets: AtomicBool::new(false),
        histories: opened.iter().cloned().map(History::new).collect(),
        keys,
        opened,
        closing: AtomicBool::new(false),
        gets: AtomicU64::new(0),
        scans: AtomicU64::new(0),
    });
    let clients = writer::start(&shared, arguments.clients)?;
    reader::start(&shared)?;
    if operations == SOME_OPERATIONS {
        clients.into_iter().for_each(|client| client.join().expect("no client panics"));
    } else {
        assert_eq!(order()?, CLOSE, "whoever writes is killed, or told to close");
    }
    shared.closing.store(true, Ordering::SeqCst);
    Ok(shared.db.close()?)
}

fn order() -> io::Result<u8> {
    let mut order = [0];
    io::stdin().read_exact(&mut order)?;
    Ok(order[0])
}

/// What planted bugs do to a database that another process has locked.
fn meddle(plant: Option<Plant>, dir: &Path) -> io::Result<()> {
    match plant {
        // Whoever makes the file anew has a lock of its own.
        Some(Plant::IgnoreLock) => fs::remove_file(dir.join(LOCK)),
        Some(Plant::Meddle) => fs::write(dir.join("meddled"), "with"),
        _ => Ok(()),
    }
}

/// All clients' keys, in order, and what each client's hold.
fn keys_and_values(clients: u8, rows: &Rows) -> (Vec<Vec<u8>>, Vec<Values>) {
    let of_client = |client| (0..KEYS_PER_CLIENT).map(move |key| key_bytes(client, key));
    let keys = (0..usize::from(clients)).flat_map(of_client).collect();
    let value = |key: Vec<u8>| {
        let at = rows.binary_search_by(|row| row.0.cmp(&key)).ok()?;
        Some(rows[at].1.clone())
    };
    let values = (0..usize::from(clients)).map(|client| of_client(client).map(value).collect());
    (keys, values.collect())
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
