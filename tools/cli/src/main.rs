//! `ouro`: the command line of the OuroDB engine.
//!
//! `args` says what can be asked, `escape`, `jsonl` and `rows` turn rows into
//! lines and back, `lines`, `import` and `commit` are the way in, `export` is
//! the way out; `verify` and `dump` look at files,
//! `salvage` copies what is sound of them. Every other command opens the database, does one thing, and closes
//! it; `failure` maps what went wrong to an exit code.

mod args;
mod commit;
mod dump;
mod escape;
mod export;
mod failure;
mod import;
mod interrupt;
mod jsonl;
mod lines;
mod rows;
mod salvage;
mod stats;
mod verify;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use ourodb::{Db, DumpDetail, VALUE_BYTES_MAX};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{Level, Metadata};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{Cli, Command, Text};
use crate::escape::{escape_into, escaped, printable};
use crate::export::print_rows;
use crate::failure::Failure;
use crate::import::import;
use crate::interrupt::Interrupt;
use crate::lines::Lines;

/// The target of the engine's events on writes that are held up.
const HELD_UP: &str = "ourodb::shard::held_up";

fn main() -> ExitCode {
    raise_descriptor_limit();
    // Ignored on purpose: where it fails, the system ends the process, as it
    // does with others.
    let _ = interrupt::survive_file_size_limit();
    // What the engine warns of, on stderr; but for writes that are held up: an import is to
    // write as fast as the engine can.
    let is_told = |of: &Metadata<'_>| *of.level() <= Level::WARN && of.target() != HELD_UP;
    let warnings = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_target(false)
        .without_time()
        .with_filter(filter_fn(is_told));
    tracing_subscriber::registry().with(warnings).init();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ouro: {failure}");
            if let Some(advice) = cli.database.given_dir().and_then(|dir| failure.advice(dir)) {
                eprintln!("ouro: {advice}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// The engine keeps a descriptor for each table, and the usual soft limit is
/// there for programs that use `select`.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Ignored on purpose: where the system refuses, the engine works within
    // the old limit, and says TooManyFiles clearly when it meets it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Does what was asked. What can be refused without the database is refused
/// before it is created or waited for.
fn run(cli: &Cli) -> Result<(), Failure> {
    if let Command::Dump { file, blocks, entries } = &cli.command {
        let detail = match (blocks, entries) {
            (_, true) => DumpDetail::Entries,
            (true, false) => DumpDetail::Blocks,
            (false, false) => DumpDetail::Summary,
        };
        return dump::dump(file, &cli.database.options(), detail, &install_interrupt()?);
    }
    let dir = cli.database.dir();
    let with_db = |task: &mut dyn FnMut(&Db) -> Result<(), Failure>| {
        if cli.command.creates() && holds_other_files(&dir) {
            let dir = dir.display();
            eprintln!("ouro: warning: creating a database in {dir}, which holds other files");
        }
        let db = Db::open(&dir, cli.command.adjust(cli.database.options()))?;
        let shards = db.options().shards;
        if let Some(wanted) = cli.command.shards().filter(|wanted| *wanted != shards) {
            let dir = escaped(dir.as_os_str().as_bytes());
            eprintln!(
                "ouro: warning: --shards {wanted} changes nothing: {dir} has {shards} shards since \
                 it was created"
            );
        }
        let done = task(&db);
        done.and(db.close().map_err(Failure::from))
    };
    match &cli.command {
        Command::Get { key, text, raw } => {
            let key = argument(*text, key)?;
            with_db(&mut |db| get(db, &key, *raw))
        }
        Command::Put { key, value, text, .. } => {
            let key = argument(*text, key)?;
            let value = if value == "-" { read_value()? } else { argument(*text, value)? };
            with_db(&mut |db| Ok(db.put(&key, &value).wait()?))
        }
        Command::Delete { key, text, .. } => {
            let key = argument(*text, key)?;
            with_db(&mut |db| Ok(db.delete(&key).wait()?))
        }
        Command::DeleteRange { from, to, text, .. } => {
            let optional =
                |key: &Option<OsString>| key.as_ref().map(|key| argument(*text, key)).transpose();
            let (from, to) = (optional(from)?, optional(to)?);
            with_db(&mut |db| {
                let range = (
                    from.as_ref().map_or(Bound::Unbounded, Bound::Included),
                    to.as_ref().map_or(Bound::Unbounded, Bound::Excluded),
                );
                Ok(db.delete_range(range).wait()?)
            })
        }
        Command::Scan { from, to, prefix, text, reverse, limit, keys_only, format } => {
            let optional =
                |key: &Option<OsString>| key.as_ref().map(|key| argument(*text, key)).transpose();
            let (from, to, prefix) = (optional(from)?, optional(to)?, optional(prefix)?);
            with_db(&mut |db| {
                let interrupt = install_interrupt()?;
                let mut scan = match &prefix {
                    Some(prefix) => db.scan_prefix(prefix),
                    None => db.scan((
                        from.as_ref().map_or(Bound::Unbounded, Bound::Included),
                        to.as_ref().map_or(Bound::Unbounded, Bound::Excluded),
                    )),
                };
                if *reverse {
                    scan = scan.reverse();
                }
                if let Some(limit) = limit {
                    scan = scan.limit(*limit);
                }
                print_rows(scan, *format, *keys_only, &interrupt)
            })
        }
        Command::Import { file, format, on_error, .. } => {
            let mut lines = Lines::open(file)?;
            with_db(&mut |db| import(db, &mut lines, *format, *on_error, &install_interrupt()?))
        }
        Command::Export { format } => {
            with_db(&mut |db| print_rows(db.scan(..), *format, false, &install_interrupt()?))
        }
        Command::Dump { .. } => unreachable!("it was done above"),
        Command::Verify => verify::verify(&dir, &cli.database.options()),
        Command::Salvage { into, .. } => {
            salvage::salvage(&dir, into, &cli.command.adjust(cli.database.options()))
        }
        Command::Stats { json } => with_db(&mut |db| {
            let stats = db.stats();
            let text = if *json { stats::to_json(&stats).to_string() } else { stats.to_string() };
            print(format!("{}\n", text.trim_end()).as_bytes())
        }),
    }
}

/// Whether a directory holds something, but neither a database nor the lock of
/// one. No, where that cannot be found out: opening says what is the matter.
fn holds_other_files(dir: &Path) -> bool {
    let Ok(entries) = dir.read_dir() else {
        return false;
    };
    let mut names = entries.filter_map(Result::ok).map(|entry| entry.file_name()).peekable();
    names.peek().is_some() && !names.any(|name| name == "IDENTITY" || name == "LOCK")
}

fn get(db: &Db, key: &[u8], raw: bool) -> Result<(), Failure> {
    let Some(value) = db.get(key).wait()? else {
        return Err(Failure::NotFound(format!("key not found: {}", escaped(key))));
    };
    if raw {
        return print(&value);
    }
    let mut line = Vec::new();
    escape_into(&mut line, &value);
    line.push(b'\n');
    print(&line)
}

fn argument(text: Text, argument: &OsString) -> Result<Vec<u8>, Failure> {
    text.bytes(argument)
        .map_err(|bad| Failure::Usage(format!("{}: {bad}", printable(argument.as_encoded_bytes()))))
}

fn read_value() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    io::stdin()
        .lock()
        .take(VALUE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut value)
        .map_err(|error| Failure::System(format!("cannot read stdin: {error}")))?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(Failure::Usage(format!(
            "the value on stdin is longer than the limit of {VALUE_BYTES_MAX} bytes"
        )));
    }
    Ok(value)
}

fn install_interrupt() -> Result<Interrupt, Failure> {
    Interrupt::install()
        .map_err(|error| Failure::System(format!("cannot listen for signals: {error}")))
}

fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::Output)
}
