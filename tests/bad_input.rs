//! Bad input, and machines that forbid something: each gets an error of the
//! right kind whose message says what to do, and loses nothing.
//!
//! What needs root, or a file system of its own, is in `ouro-crash limits`.

#[path = "common/child.rs"]
mod child;

#[path = "bad_input/damage.rs"]
mod damage;
#[path = "bad_input/directory.rs"]
mod directory;
#[path = "bad_input/keys.rs"]
mod keys;
#[path = "bad_input/limits.rs"]
mod limits;
#[path = "bad_input/newer.rs"]
mod newer;
#[path = "bad_input/writes.rs"]
mod writes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ourodb::{Db, Error, ErrorKind, Options, Result};

/// One shard and stream; and nobody waits for a lock: an opening that failed
/// must have let go of it.
fn options() -> Options {
    Options::default().memory(16 << 20).shards(1).owners(1).lock_wait(Duration::ZERO)
}

/// The error, which must be of this kind and say all of this.
fn refused<T>(result: Result<T>, kind: ErrorKind, says: &[&str]) -> Error {
    let Err(error) = result else { panic!("not refused; {kind} was expected") };
    assert_eq!(error.kind(), kind, "{error}");
    for words in says {
        assert!(error.to_string().contains(words), "{words:?} is not in: {error}");
    }
    error
}

fn key(i: usize) -> Vec<u8> {
    format!("key-{i:04}").into_bytes()
}

fn value(i: usize) -> Vec<u8> {
    format!("value of {i}").repeat(10).into_bytes()
}

fn put(db: &Db, keys: impl Iterator<Item = usize>) {
    for i in keys {
        db.put(&key(i), &value(i)).wait().expect("a put");
    }
}

/// Waits until it is so: that takes as long as it takes, unless it hangs.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Closes the database and gives up its tables' descriptors, which a handle
/// keeps.
fn close(db: Db) {
    db.close().expect("close");
}

/// All there is: exactly these keys, with their values.
fn assert_holds(db: &Db, keys: impl Iterator<Item = usize>) {
    let rows: Vec<(Vec<u8>, Vec<u8>)> = db
        .scan(..)
        .iter()
        .map(|row| row.map(|(key, value)| (key.into_vec(), value.into_vec())))
        .collect::<Result<_>>()
        .expect("a scan");
    let expected: Vec<_> = keys.map(|i| (key(i), value(i))).collect();
    assert_eq!(rows.len(), expected.len(), "rows");
    assert_eq!(rows, expected);
    for (key, value) in &expected {
        assert_eq!(db.get(key).wait().expect("a get").as_deref(), Some(&value[..]));
    }
}

/// The path of every file and directory below `dir`, and what is in the files.
fn image(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut image = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("list") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            image.append(&mut self::image(&path));
            image.insert(path, None);
        } else {
            let bytes = std::fs::read(&path).expect("read");
            image.insert(path, Some(bytes));
        }
    }
    image
}

/// The paths of the database's files whose names start and end like this, in
/// the order of their names.
fn files(dir: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let is_such = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        name.starts_with(prefix) && name.ends_with(suffix)
    };
    image(dir).into_keys().filter(is_such).collect()
}

/// The only such file.
fn file(dir: &Path, prefix: &str, suffix: &str) -> PathBuf {
    let mut files = files(dir, prefix, suffix);
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// The manifest in this very directory.
fn manifest(dir: &Path) -> PathBuf {
    let here = |path: &PathBuf| path.parent() == Some(dir);
    let mut files: Vec<_> = files(dir, "MANIFEST-", "").into_iter().filter(here).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// Opening is refused like this, and changes nothing on disk.
fn opening_refused(dir: &Path, kind: ErrorKind, says: &[&str]) -> Error {
    let before = image(dir);
    let error = refused(Db::open(dir, options()), kind, says);
    let after = image(dir);
    assert!(before.keys().eq(after.keys()), "{:?}, {:?}", before.keys(), after.keys());
    for (path, bytes) in &before {
        assert!(bytes == &after[path], "{} was changed", path.display());
    }
    error
}

/// A database with keys 0 to 9 in a table, 10 to 19 in another, and 20 to 29
/// in the log; closed.
fn sample(dir: &Path) {
    let db = Db::open(dir, options()).expect("open");
    put(&db, 0..10);
    db.flush().wait().expect("flush");
    put(&db, 10..20);
    db.flush().wait().expect("flush");
    put(&db, 20..30);
    db.close().expect("close");
}

const SAMPLE: std::ops::Range<usize> = 0..30;
