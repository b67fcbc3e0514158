//! A shard whose tables are on a disk that is held back: its writes wait, and those
//! of another owner's shard do not.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ourodb::{Db, Options};

use super::slow::{LOADED, READ, tell, wait};
use super::{Outcome, key, must, open_with, options, value};

/// Said when the shard on the other disk has all its writes.
pub(crate) const WRITTEN: &str = "written";

/// The directories of shards: the one with the disk, and the other one.
pub(crate) const SHARDS: [&str; 2] = ["db/shard-000", "db/shard-001"];

/// Writes to each shard: many memtables of them.
const WRITES: u64 = 300;
const MEMTABLE_BYTES: usize = 64 << 10;

/// What is in the memory of the shard with the disk.
const PROBE: &[u8] = b"probe";

/// One owner for each shard.
fn two_owners() -> Options {
    options().shards(SHARDS.len()).owners(SHARDS.len()).memtable_bytes(MEMTABLE_BYTES)
}

/// Meets it, in the cgroup that is joined by this file.
pub(super) fn meet(join: &Path) -> Outcome {
    fs::write(join, "0").map_err(|error| format!("{}: {error}", join.display()))?;
    let db = open_with(two_owners())?;
    let keys = keys(&db)?;
    must("closing", db.close())?;
    drop(db);
    tell(LOADED)?;
    wait()?;

    // With the shard's directory on the other disk.
    let db = open_with(two_owners())?;
    must("a put", db.put(&keys[0], PROBE).wait())?;
    tell(READ)?;
    wait()?;
    let is_over = AtomicBool::new(false);
    let [held, _] = &keys;
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let outcome = write(&db, held);
            is_over.store(true, Ordering::Relaxed);
            outcome
        });
        let meanwhile = meanwhile(&db, &keys, &is_over);
        // Whatever came of it: else the writer waits for ever.
        tell(WRITTEN)?;
        let waited = waiting.join().expect("no client panics");
        meanwhile.and(waited)
    })?;
    let last = value(0, WRITES - 1);
    for key in &keys {
        if must("a get", db.get(key).wait())?.as_deref() != Some(&last[..]) {
            return Err(format!("{} has not its last value", key.escape_ascii()));
        }
    }
    must("closing", db.close())
}

/// What goes on while the shard of the first key waits for its disk.
fn meanwhile(db: &Db, [held, other]: &[Vec<u8>; 2], is_over: &AtomicBool) -> Outcome {
    write(db, other)?;
    // No write is slow that finds room in a memtable, and no read that finds its key there.
    if must("a get", db.get(held).wait())?.is_none() {
        return Err("a key is gone".to_owned());
    }
    if is_over.load(Ordering::Relaxed) {
        return Err("the shard whose disk was held back was no slower".to_owned());
    }
    Ok(())
}

/// Writes one key again and again.
fn write(db: &Db, key: &[u8]) -> Outcome {
    (0..WRITES).try_for_each(|number| must("a put", db.put(key, &value(0, number)).wait()))
}

/// A key of each shard: the first one that makes a table there.
fn keys(db: &Db) -> Outcome<[Vec<u8>; SHARDS.len()]> {
    let mut keys: [Option<Vec<u8>>; SHARDS.len()] = Default::default();
    let mut number = 0;
    while keys.iter().any(Option::is_none) {
        let key = key("shard", 0, number);
        must("a put", db.put(&key, b"").wait())?;
        must("a flush", db.flush().wait())?;
        for (known, dir) in keys.iter_mut().zip(SHARDS) {
            if known.is_none() && has_tables(dir).map_err(|error| format!("{dir}: {error}"))? {
                *known = Some(key.clone());
            }
        }
        number += 1;
    }
    Ok(keys.map(|key| key.expect("each has one by now")))
}

fn has_tables(dir: &str) -> io::Result<bool> {
    let paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path()));
    let paths: Vec<PathBuf> = paths.collect::<io::Result<_>>()?;
    Ok(paths.iter().any(|path| path.extension() == Some(OsStr::new("sst"))))
}
