//! Many threads over real files without io_uring: what the sanitizers look at,
//! which do not see what a ring's kernel side does. Also without them, each key
//! is held against what was written to it.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::Rng;
use ourodb::{Compression, Db, Durability, IoBackend, Options};

/// Threads that write, each to keys of its own.
const WRITERS: u64 = 4;

/// Keys of each of them.
const KEYS: u64 = 60;

/// Writes of each in one opening.
const WRITES: u64 = 400;

const OPENINGS: u64 = 3;

/// Small limits, so that flushes, compactions, evictions and new segments
/// happen all the time.
fn options() -> Options {
    Options::default()
        .io(IoBackend::Blocking)
        .memory(16 << 20)
        .shards(4)
        .owners(2)
        .memtable_bytes(16 << 10)
        .wal_segment_bytes(64 << 10)
        .cache_bytes(128 << 10)
        .compression(Compression::Lz4)
}

fn key(writer: u64, number: u64) -> Vec<u8> {
    format!("{number:04} of writer {writer}").into_bytes()
}

/// A value that says which key it belongs to.
fn value(key: &[u8], rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(200) {
        0 => 70_000 + rng.below(1000),
        1..20 => rng.below(9000),
        _ => rng.below(200),
    };
    let mut value = key.to_vec();
    value.extend(rng.bytes(len as usize));
    value
}

/// What a writer's keys have.
type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn write(db: &Db, writer: u64, model: &mut Model, rng: &mut Rng) {
    for _ in 0..WRITES {
        let key = key(writer, rng.below(KEYS));
        let durability = match rng.below(20) {
            0 => Durability::Durable,
            _ => Durability::ProcessSafe,
        };
        if rng.one_in(5) {
            db.delete(&key).durability(durability).wait().expect("a delete");
            model.remove(&key);
        } else {
            let value = value(&key, rng);
            db.put(&key, &value).durability(durability).wait().expect("a put");
            model.insert(key, value);
        }
        let key = self::key(writer, rng.below(KEYS));
        let found = db.get(&key).wait().expect("a get");
        assert_eq!(found.as_deref(), model.get(&key).map(|value| &value[..]), "its own writes");
    }
}

/// Whatever others write meanwhile, each value belongs to its key, and keys are
/// in order.
fn scan(db: &Db, is_over: &AtomicBool, is_reverse: bool) {
    while !is_over.load(Ordering::Acquire) {
        let scan = if is_reverse { db.scan(..).reverse() } else { db.scan(..) };
        let mut last: Option<Vec<u8>> = None;
        for row in scan.iter() {
            let (key, value) = row.expect("a scan");
            assert!(value.starts_with(&key), "{}", key.escape_ascii());
            let in_order = |last: &[u8]| if is_reverse { *key < *last } else { *last < *key };
            assert!(last.is_none_or(|last| in_order(&last)), "{}", key.escape_ascii());
            last = Some(key.to_vec());
        }
    }
}

/// Makes work for the background, and looks at it.
fn disturb(db: &Db, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Acquire) {
        db.flush().wait().expect("a flush");
        db.compact(..).wait().expect("a compaction");
        assert!(db.stats().shards == 4);
        // Of nobody's keys.
        db.delete_range("x".."y").wait().expect("a range delete");
    }
}

fn work(dir: &Path, opening: u64, models: &mut [Model]) {
    let db = Db::open(dir, options()).expect("open");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let others = [
            scope.spawn(|| scan(&db, &is_over, false)),
            scope.spawn(|| scan(&db, &is_over, true)),
            scope.spawn(|| disturb(&db, &is_over)),
        ];
        let writers: Vec<_> = (0..)
            .zip(&mut *models)
            .map(|(writer, model)| {
                let (db, mut rng) = (&db, Rng(opening * WRITERS + writer));
                scope.spawn(move || write(db, writer, model, &mut rng))
            })
            .collect();
        let results: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Release);
        for result in results.into_iter().chain(others.map(thread::ScopedJoinHandle::join)) {
            result.expect("no thread panics");
        }
    });
    assert_holds(&db, models);
    db.close().expect("close");
}

fn assert_holds(db: &Db, models: &[Model]) {
    let all: Model = models.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    common::assert_same(db, &all);
}

#[test]
fn many_threads_and_openings() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut models = vec![Model::new(); WRITERS as usize];
    for opening in 0..OPENINGS {
        work(dir.path(), opening, &mut models);
    }
    let db = Db::open(dir.path(), options()).expect("open");
    assert_holds(&db, &models);
    assert!(models.iter().all(|model| model.len() > 20), "there is something to find");
}
