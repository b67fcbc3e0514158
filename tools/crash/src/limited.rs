//! The process that meets a limit: it says `done`, or why not, as its last
//! line. Its database is `db` in the current directory.

mod mappings;
mod slow;
mod slow_shard;

use std::fmt::Debug;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use ourodb::{Db, Durability, ErrorKind, Options};
use rustix::process::{Gid, Resource, Rlimit, Uid, getrlimit, setrlimit};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tracing::field::{Field, Visit};
use tracing::span;

use crate::script::random;

pub(crate) use slow::{BYTES_PER_S, LOADED, READ};
pub(crate) use slow_shard::{SHARDS as SHARD_DIRS, WRITTEN};

/// What a process says when all went well.
pub(crate) const DONE: &str = "done";

/// Said when the disk is full and the process waits to be killed.
pub(crate) const FULL: &str = "full";

/// Begins a line with what was acknowledged: a prefix, and a count for each
/// client.
pub(crate) const ACKNOWLEDGED: &str = "acknowledged ";

/// The user and group of somebody who is not root.
pub(crate) const ORDINARY: u32 = 65534;

const CLIENTS: usize = 4;
const SHARDS: usize = 4;

/// A full database is opened so often.
const OPENINGS: usize = 6;

/// Nobody waits longer for writes to resume.
const PATIENCE: Duration = Duration::from_secs(60);

const LOCKED_BYTES_MAX: u64 = 64 << 10;

#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Clone, Debug, Subcommand)]
enum Role {
    /// The file system refuses O_DIRECT
    NoDirectIo,
    /// Nothing is the matter
    Works,
    /// Nothing can be written to the file system
    ReadOnly,
    /// Writes until the disk is full
    Fill {
        /// Of all keys
        #[arg(long)]
        prefix: String,
        /// A file to remove when the disk is full, to fill it again
        #[arg(long)]
        free: Option<PathBuf>,
        #[arg(long)]
        until_killed: bool,
        /// What acknowledged writes survive: the process
        #[arg(long)]
        process_safe: bool,
    },
    /// Writes into mappings of the log
    Mappings { scarce: mappings::Scarce },
    /// The disk is held back, and then slow
    SlowDisk {
        /// The file to join the cgroup by
        #[arg(long)]
        join: PathBuf,
        /// What acknowledged writes survive: the process
        #[arg(long)]
        process_safe: bool,
    },
    /// The disk of one shard is held back
    SlowShard {
        /// The file to join the cgroup by
        #[arg(long)]
        join: PathBuf,
    },
    /// What was acknowledged is there
    Check { counts: Vec<String> },
    /// 64 KiB, for an ordinary user
    LittleLockedMemory {
        /// What acknowledged writes survive: the process
        #[arg(long)]
        process_safe: bool,
    },
    /// The database is another user's
    Denied,
    /// The database is another user's, and everybody may read it
    Readable,
}

/// What was found wrong.
type Outcome<T = ()> = Result<T, String>;

/// Plays its role, and returns the exit code.
pub(crate) fn run(arguments: &Arguments) -> u8 {
    let outcome = match &arguments.role {
        Role::NoDirectIo => no_direct_io(),
        Role::Works => works(),
        Role::ReadOnly => read_only(),
        Role::Fill { prefix, free, until_killed, process_safe } => {
            fill(prefix, free.as_deref(), *until_killed, durability(*process_safe))
        }
        Role::Mappings { scarce } => mappings::meet(*scarce),
        Role::SlowDisk { join, process_safe } => slow::meet(join, durability(*process_safe)),
        Role::SlowShard { join } => slow_shard::meet(join),
        Role::Check { counts } => check(counts),
        Role::LittleLockedMemory { process_safe } => {
            little_locked_memory(durability(*process_safe))
        }
        Role::Denied => denied(),
        Role::Readable => readable(),
    };
    match outcome {
        Ok(()) => {
            println!("{DONE}");
            0
        }
        Err(what) => {
            println!("{}", what.replace('\n', " "));
            1
        }
    }
}

fn options() -> Options {
    Options::default().memory(8 << 20).shards(SHARDS).owners(2)
}

fn durability(process_safe: bool) -> Durability {
    if process_safe { Durability::ProcessSafe } else { Durability::Durable }
}

fn open() -> Outcome<Db> {
    open_with(options())
}

fn open_with(options: Options) -> Outcome<Db> {
    Db::open("db", options).map_err(|error| format!("opening: {error}"))
}

/// The call must fail like this.
fn expect<T>(result: ourodb::Result<T>, kind: ErrorKind, says: &[&str]) -> Outcome {
    let Err(error) = result else {
        return Err(format!("nothing was refused; {kind} was expected"));
    };
    if error.kind() != kind {
        return Err(format!("{kind} was expected: {error}"));
    }
    match says.iter().find(|words| !error.to_string().contains(**words)) {
        None => Ok(()),
        Some(words) => Err(format!("the message does not say {words:?}: {error}")),
    }
}

fn must<T>(what: &str, result: ourodb::Result<T>) -> Outcome<T> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn no_direct_io() -> Outcome {
    // The second time as well, whatever the first one left.
    for _ in 0..2 {
        let says = ["O_DIRECT", "db", "ext4, xfs, btrfs or tmpfs", "ramfs"];
        expect(Db::open("db", options()), ErrorKind::Unsupported, &says)?;
    }
    Ok(())
}

/// Every kind of operation, in two openings.
fn read_only() -> Outcome {
    is_sound()?;
    expect(Db::open("db", options()), ErrorKind::PermissionDenied, &["mounted read-only"])
}

fn is_sound() -> Outcome {
    let verified = ourodb::verify("db", &options(), |finding| {
        println!("{finding:?}");
        ControlFlow::Continue(())
    });
    match must("verify", verified)?.faults {
        0 => Ok(()),
        faults => Err(format!("verify found {faults} faults")),
    }
}

fn works() -> Outcome {
    let (first, second) = (key("works", 0, 1), key("works", 0, 2));
    let db = open()?;
    must("a put", db.put(&first, b"1").wait())?;
    must("a flush", db.flush().wait())?;
    must("a put", db.put(&second, b"2").wait())?;
    must("closing", db.close())?;
    drop(db);
    let db = open()?;
    for (key, value) in [(&first, b"1"), (&second, b"2")] {
        let found = must("a get", db.get(key).wait())?;
        if found.as_deref() != Some(&value[..]) {
            return Err(format!("{} holds {found:?}", key.escape_ascii()));
        }
    }
    let rows = db.scan_prefix(b"works-").iter().count();
    if rows != 2 {
        return Err(format!("a scan finds {rows} rows of 2"));
    }
    must("closing", db.close())
}

fn key(prefix: &str, client: usize, number: u64) -> Vec<u8> {
    format!("{prefix}-{client}-{number:08}").into_bytes()
}

fn value(client: usize, number: u64) -> Vec<u8> {
    let mut random = random(&[client as u64, number]);
    let mut bytes = vec![0; random.usize(100..=8000)];
    random.fill(&mut bytes);
    bytes
}

/// For each client, how many of its writes were acknowledged.
type Counts = [u64; CLIENTS];

fn fill(prefix: &str, free: Option<&Path>, until_killed: bool, durability: Durability) -> Outcome {
    let options = || options().durability(durability);
    let db = open_with(options())?;
    let mut counts = Counts::default();
    write_until_full(&db, prefix, durability, &mut counts)?;
    check_counts(&db, prefix, &counts)?;
    if let Some(free) = free {
        std::fs::remove_file(free).map_err(|error| error.to_string())?;
        resume(&db, prefix, durability, &mut counts)?;
        write_until_full(&db, prefix, durability, &mut counts)?;
        check_counts(&db, prefix, &counts)?;
    }
    if until_killed {
        return say_and_wait(prefix, &counts);
    }
    say(prefix, &counts);
    // Closing and opening want a little space too; they may say that there is
    // none.
    unless_full(db.close())?;
    drop(db);
    for _ in 0..OPENINGS {
        if let Some(db) = unless_full(Db::open("db", options()))? {
            check_counts(&db, prefix, &counts)?;
            return unless_full(db.close()).map(drop);
        }
    }
    // Whoever tries again and again must not make it worse: there is each
    // manifest once, or one more, which was not finished.
    let manifests = manifests().map_err(|error| error.to_string())?;
    if manifests > 1 + SHARDS + 1 {
        return Err(format!("openings that failed left {manifests} manifests"));
    }
    Ok(())
}

fn say(prefix: &str, counts: &Counts) {
    let listed = counts.map(|count| count.to_string()).join(",");
    println!("{ACKNOWLEDGED}{prefix}:{listed}");
}

/// Says what was acknowledged, and waits to be killed.
fn say_and_wait(prefix: &str, counts: &Counts) -> Outcome {
    say(prefix, counts);
    println!("{FULL}");
    std::io::stdout().flush().map_err(|error| error.to_string())?;
    loop {
        thread::park();
    }
}

fn manifests() -> std::io::Result<usize> {
    let mut dirs = vec![PathBuf::from("db")];
    dirs.extend((0..SHARDS).map(|shard| PathBuf::from(format!("db/shard-{shard:03}"))));
    let mut count = 0;
    for dir in dirs {
        for entry in std::fs::read_dir(dir)? {
            let name = entry?.file_name();
            count += usize::from(name.as_encoded_bytes().starts_with(b"MANIFEST-"));
        }
    }
    Ok(count)
}

/// Whether the disk is full, or files may not grow: what to do, and that it helps.
const SAYS: [&str; 1] = ["then try again"];

fn unless_full<T>(result: ourodb::Result<T>) -> Outcome<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) => expect::<T>(Err(error), ErrorKind::NoSpace, &SAYS).map(|()| None),
    }
}

/// Each client writes until the disk is full for it.
fn write_until_full(db: &Db, prefix: &str, durability: Durability, counts: &mut Counts) -> Outcome {
    let enough = AtomicBool::new(false);
    let write = |client: usize, count: &mut u64| {
        while !enough.load(Ordering::Relaxed) {
            if *count > 100_000 {
                return Err("the disk is never full".to_owned());
            }
            let (key, value) = (key(prefix, client, *count), value(client, *count));
            match db.put(&key, &value).durability(durability).wait() {
                Ok(()) => *count += 1,
                Err(error) => return expect::<()>(Err(error), ErrorKind::NoSpace, &SAYS),
            }
        }
        Ok(())
    };
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let clients = counts.iter_mut().enumerate().map(|(client, count)| {
            let (write, enough) = (&write, &enough);
            scope.spawn(move || {
                let outcome = write(client, count);
                // One that found something wrong ends the others.
                enough.fetch_or(outcome.is_err(), Ordering::Relaxed);
                outcome
            })
        });
        let clients: Vec<_> = clients.collect();
        let join = |client: thread::ScopedJoinHandle<'_, Outcome>| {
            client.join().unwrap_or_else(|_| Err("a client panicked".to_owned()))
        };
        clients.into_iter().map(join).collect()
    });
    outcomes.into_iter().collect()
}

/// There is space again: writes and flushes succeed by themselves.
fn resume(db: &Db, prefix: &str, durability: Durability, counts: &mut Counts) -> Outcome {
    for (client, count) in counts.iter_mut().enumerate() {
        put_in_time(db, prefix, durability, client, count)?;
    }
    in_time(&|| db.flush().wait())
}

/// A put that succeeds by itself now that there is space.
fn put_in_time(
    db: &Db,
    prefix: &str,
    durability: Durability,
    client: usize,
    count: &mut u64,
) -> Outcome {
    let (key, value) = (key(prefix, client, *count), value(client, *count));
    in_time(&|| db.put(&key, &value).durability(durability).wait())?;
    *count += 1;
    Ok(())
}

fn in_time(attempt: &dyn Fn() -> ourodb::Result<()>) -> Outcome {
    let start = Instant::now();
    while unless_full(attempt())?.is_none() {
        if start.elapsed() > PATIENCE {
            return Err("writes do not resume although there is space".to_owned());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// What was acknowledged is there, what was refused is not.
fn check_counts(db: &Db, prefix: &str, counts: &Counts) -> Outcome {
    for (client, count) in counts.iter().enumerate() {
        if *count == 0 {
            return Err(format!("client {client} never wrote anything"));
        }
        for number in 0..=*count {
            let key = key(prefix, client, number);
            let found = must("a get", db.get(&key).wait())?;
            let expected = (number < *count).then(|| value(client, number));
            if found.as_deref() != expected.as_deref() {
                let (key, lengths) =
                    (key.escape_ascii(), [found.map(|v| v.len()), expected.map(|v| v.len())]);
                return Err(format!("{key} holds bytes (found, expected) {lengths:?}"));
            }
        }
    }
    let rows = db.scan_prefix(format!("{prefix}-").as_bytes()).iter();
    let mut found = 0;
    for row in rows {
        must("a scan", row)?;
        found += 1;
    }
    let expected: u64 = counts.iter().sum();
    if found == expected { Ok(()) } else { Err(format!("a scan finds {found} rows of {expected}")) }
}

fn check(all: &[String]) -> Outcome {
    let check_all = |db: &Db| {
        for counts in all {
            let (prefix, counts) = parse(counts).ok_or("counts that nobody says")?;
            check_counts(db, prefix, &counts)?;
        }
        Ok::<_, String>(())
    };
    let db = open()?;
    check_all(&db)?;
    must("closing", db.close())?;
    drop(db);
    works()?;
    let db = open()?;
    check_all(&db)?;
    must("closing", db.close())
}

fn parse(counts: &str) -> Option<(&str, Counts)> {
    let (prefix, counts) = counts.split_once(':')?;
    let counts: Vec<u64> =
        counts.split(',').map(|count| count.parse().ok()).collect::<Option<_>>()?;
    Some((prefix, counts.try_into().ok()?))
}

fn little_locked_memory(durability: Durability) -> Outcome {
    drop_root()?;
    let limit = Rlimit { current: Some(LOCKED_BYTES_MAX), maximum: Some(LOCKED_BYTES_MAX) };
    setrlimit(Resource::Memlock, limit).map_err(|error| error.to_string())?;
    if getrlimit(Resource::Memlock).current != Some(LOCKED_BYTES_MAX) {
        return Err("the limit was not set".to_owned());
    }
    let warnings = Warnings::default();
    tracing::subscriber::set_global_default(warnings.clone()).map_err(|error| error.to_string())?;

    let open = || open_with(options().durability(durability));
    let db = open()?;
    // That there is a warning shows that the limit bites.
    warnings.expect(&[&["not registered", "RLIMIT_MEMLOCK", "ulimit -l"]])?;
    let mut counts = Counts::default();
    for (client, count) in counts.iter_mut().enumerate() {
        for number in 0..200 {
            let (key, value) = (key("m", client, number), value(client, number));
            must("a put", db.put(&key, &value).wait())?;
            *count += 1;
        }
        must("a flush", db.flush().wait())?;
    }
    check_counts(&db, "m", &counts)?;
    must("closing", db.close())?;
    drop(db);
    warnings.expect(&[&[]])?;
    let db = open()?;
    check_counts(&db, "m", &counts)?;
    must("closing", db.close())?;
    warnings.expect(&[&[], &["RLIMIT_MEMLOCK"]])
}

fn denied() -> Outcome {
    drop_root()?;
    if std::fs::read("db/IDENTITY").is_ok() {
        return Err("the ordinary user may read the database".to_owned());
    }
    is_refused()
}

fn is_refused() -> Outcome {
    let says = ["db", "the user that owns the database directory"];
    expect(Db::open("db", options()), ErrorKind::PermissionDenied, &says)
}

fn readable() -> Outcome {
    drop_root()?;
    is_sound()?;
    is_refused()
}

/// From here on an ordinary user's process: for this thread, and for those it
/// will start.
fn drop_root() -> Outcome {
    let (uid, gid) = (Uid::from_raw(ORDINARY), Gid::from_raw(ORDINARY));
    set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .map_err(|error| format!("cannot become an ordinary user: {error}"))?;
    if rustix::process::geteuid().is_root() {
        return Err("still root".to_owned());
    }
    Ok(())
}

/// Collects the messages of warnings and errors.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// There were so many, each of which says all of these words.
    fn expect(&self, says: &[&[&str]]) -> Outcome {
        let warnings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |(warning, words): (&String, &&[&str])| {
            words.iter().all(|words| warning.contains(words))
        };
        if warnings.len() == says.len() && warnings.iter().zip(says).all(fits) {
            return Ok(());
        }
        Err(format!("{} warnings were expected: {warnings:?}", says.len()))
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        let mut warnings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.push(message.0);
    }

    // Spans are nothing to a list of messages.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The fields of an event, as text.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}
