//! Space runs out under writes that are acknowledged in the log's mappings: a
//! store into a mapping must never need any, for it could not say so; the
//! process would be gone with SIGBUS.

use std::fs::{self, File};
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use ourodb::{Db, Durability};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGXFSZ;

use super::{
    Counts, Outcome, PATIENCE, check_counts, drop_root, key, must, open_with, options, put_in_time,
    resume, say_and_wait, value, write_until_full,
};

const PREFIX: &str = "m";

const FILLER: &str = "filler";

/// Puts of each client that its first segment has room for, space or not.
const PUTS_BEFORE: u64 = 10;

/// Puts of each client when there is space again: enough to go through every
/// buffer of a mapping, and to make a table of each shard.
const PUTS_AFTERWARDS: u64 = 300;

/// Files of this length at most: a mapping and a first segment fit in, a later
/// segment does not.
const FILE_BYTES_MAX: u64 = 1536 << 10;
const LATER_SEGMENT_BYTES: u64 = 2 << 20;

/// What is scarce, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scarce {
    /// The disk is full once the mapping is there, before anything was stored in
    /// it
    DiskAfterwards,
    /// The disk is full when the first write comes that wants a mapping
    DiskBeforehand,
    /// An ordinary user may only make short files (RLIMIT_FSIZE)
    FileBytes,
}

/// Writes until there is no space, goes on when there is, and waits to be
/// killed.
pub(crate) fn meet(scarce: Scarce) -> Outcome {
    // One owner: so there is one mapping, and it is there or is not.
    let options = options().owners(1);
    let db = match scarce {
        Scarce::DiskAfterwards => {
            let db = open_with(options.durability(Durability::ProcessSafe))?;
            wait_for_mapping(&db)?;
            fill_disk().map_err(|error| error.to_string())?;
            db
        }
        Scarce::DiskBeforehand => {
            let db = open_with(options)?;
            fill_disk().map_err(|error| error.to_string())?;
            db
        }
        Scarce::FileBytes => {
            limit_files()?;
            let options = options.wal_segment_bytes(LATER_SEGMENT_BYTES);
            let db = open_with(options.durability(Durability::ProcessSafe))?;
            wait_for_mapping(&db)?;
            db
        }
    };
    let mut counts = Counts::default();
    for (client, count) in counts.iter_mut().enumerate() {
        for _ in 0..PUTS_BEFORE {
            let (key, value) = (key(PREFIX, client, *count), value(client, *count));
            let put = db.put(&key, &value).durability(Durability::ProcessSafe);
            must("a put that needs no space", put.wait())?;
            *count += 1;
        }
    }
    write_until_full(&db, PREFIX, Durability::ProcessSafe, &mut counts)?;
    check_counts(&db, PREFIX, &counts)?;
    if scarce == Scarce::DiskBeforehand && db.stats().wal_map_bytes > 0 {
        return Err("a mapping was made on a full disk".to_owned());
    }

    match scarce {
        Scarce::DiskAfterwards | Scarce::DiskBeforehand => {
            fs::remove_file(FILLER).map_err(|error| error.to_string())?;
        }
        Scarce::FileBytes => unlimit_files()?,
    }
    resume(&db, PREFIX, Durability::ProcessSafe, &mut counts)?;
    // Somebody must write for a mapping to be wanted.
    let start = Instant::now();
    while db.stats().wal_map_bytes == 0 {
        pause_since(start)?;
        put_all_in_time(&db, 1, &mut counts)?;
    }
    put_all_in_time(&db, PUTS_AFTERWARDS, &mut counts)?;
    check_counts(&db, PREFIX, &counts)?;
    say_and_wait(PREFIX, &counts)
}

/// So many puts of each client, now that there is space.
fn put_all_in_time(db: &Db, puts: u64, counts: &mut Counts) -> Outcome {
    for (client, count) in counts.iter_mut().enumerate() {
        for _ in 0..puts {
            put_in_time(db, PREFIX, Durability::ProcessSafe, client, count)?;
        }
    }
    Ok(())
}

fn wait_for_mapping(db: &Db) -> Outcome {
    let start = Instant::now();
    while db.stats().wal_map_bytes == 0 {
        pause_since(start)?;
    }
    Ok(())
}

/// Sleeps for a moment, unless that goes on for too long.
fn pause_since(start: Instant) -> Outcome {
    if start.elapsed() > PATIENCE {
        return Err("no mapping of the log is made".to_owned());
    }
    thread::sleep(Duration::from_millis(5));
    Ok(())
}

/// A file that takes all space there is.
fn fill_disk() -> io::Result<()> {
    let mut filler = File::create(FILLER)?;
    for bytes in [1 << 20, 4096, 512] {
        let piece = vec![0x5a; bytes];
        loop {
            match filler.write_all(&piece).and_then(|()| filler.sync_data()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// From here on as an ordinary user, whose files have a longest length.
fn limit_files() -> Outcome {
    drop_root()?;
    // Without a handler a write beyond the limit ends the process.
    let handled = signal_hook::flag::register(SIGXFSZ, std::sync::Arc::default());
    handled.map_err(|error| error.to_string())?;
    set_file_limit(Some(FILE_BYTES_MAX))?;
    let probe = File::create("probe").and_then(|file| file.set_len(FILE_BYTES_MAX + 1));
    let bites = probe.is_err_and(|error| error.kind() == io::ErrorKind::FileTooLarge);
    fs::remove_file("probe").map_err(|error| error.to_string())?;
    if bites { Ok(()) } else { Err("the limit does not bite".to_owned()) }
}

fn unlimit_files() -> Outcome {
    set_file_limit(getrlimit(Resource::Fsize).maximum)
}

fn set_file_limit(current: Option<u64>) -> Outcome {
    let limit = Rlimit { current, ..getrlimit(Resource::Fsize) };
    setrlimit(Resource::Fsize, limit).map_err(|error| error.to_string())
}
