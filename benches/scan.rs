//! Scans through the public interface: short ones and one over everything,
//! forward, backward, and of keys alone, over blocks that are cached and over
//! tables on the device of `TMPDIR`; and what it costs to pass over what was
//! deleted.

use std::hint::black_box;
use std::path::Path;
use std::thread;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ourodb::{Batch, Db, Options};

const KEYS: u64 = 200_000;
const VALUE: [u8; 400] = [0x5a; 400];

/// Keys that are there, and then deleted, in one stretch.
const DELETED: u64 = 1_000_000;

fn key(i: u64) -> [u8; 12] {
    let mut key = *b"user00000000";
    key[4..].copy_from_slice(&i.to_be_bytes());
    key
}

/// Applies `add` to each number, in batches.
fn write(db: &Db, numbers: std::ops::Range<u64>, add: impl Fn(&mut Batch, u64)) {
    let mut batches = vec![Batch::new(); db.stats().owners];
    for i in numbers {
        let batch = &mut batches[db.stream_of(&key(i))];
        add(batch, i);
        if batch.bytes() + 1000 > db.batch_bytes_max() {
            db.write(std::mem::take(batch)).wait().expect("a batch");
        }
    }
    for batch in batches {
        db.write(batch).wait().expect("a batch");
    }
}

/// Waits until compaction has nothing left to do.
fn settle(db: &Db) {
    db.flush().wait().expect("a flush");
    while db.stats().compaction_debt_bytes > 0 {
        thread::sleep(Duration::from_millis(10));
    }
}

/// A database with all the keys in tables, and room for all of them in the
/// cache, or for none.
fn filled(dir: &Path, cache_bytes: u64) -> Db {
    let options = Options::default().memory(1 << 30).cache_bytes(cache_bytes);
    let db = Db::open(dir, options).expect("an opening");
    write(&db, 0..KEYS, |batch, i| {
        batch.put(&key(i), &VALUE);
    });
    settle(&db);
    db
}

#[derive(Clone, Copy)]
enum Way {
    Forward,
    Reverse,
    KeysOnly,
}

const WAYS: [(&str, Way); 3] =
    [("forward", Way::Forward), ("reverse", Way::Reverse), ("keys only", Way::KeysOnly)];

/// Scans so many rows from a key on; returns how many bytes it found.
fn scan(db: &Db, way: Way, from: u64, rows: usize) -> usize {
    let length = |row: ourodb::Result<(ourodb::Value, ourodb::Value)>| {
        let (key, value) = row.expect("a row");
        key.len() + value.len()
    };
    match way {
        Way::Forward => db.scan(key(from)..).limit(rows).iter().map(length).sum(),
        Way::Reverse => db.scan(..key(from)).limit(rows).reverse().iter().map(length).sum(),
        Way::KeysOnly => {
            let keys = db.scan(key(from)..).limit(rows).keys().iter();
            keys.map(|key| key.expect("a key").len()).sum()
        }
    }
}

fn rows(c: &mut Criterion) {
    for (place, cache_bytes) in [("cached", 512 << 20), ("on the device", 0)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = filled(dir.path(), cache_bytes);
        // Long walks pass the cache by: lookups fill it.
        if cache_bytes > 0 {
            for i in 0..KEYS {
                db.get_with(&key(i), |value| black_box(value.len())).wait().expect("a get");
            }
        }
        let mut group = c.benchmark_group(format!("scan of rows {place}"));
        for (name, way) in WAYS {
            for rows in [1, 50] {
                let mut i = 0;
                group.sample_size(50).throughput(Throughput::Elements(rows as u64));
                group.bench_function(BenchmarkId::new(name, rows), |b| {
                    b.iter(|| {
                        i = (i + 7919) % (KEYS - 100);
                        black_box(scan(&db, way, i + 50, rows))
                    });
                });
            }
            let from = if matches!(way, Way::Reverse) { KEYS } else { 0 };
            group.sample_size(10).throughput(Throughput::Elements(KEYS));
            group.bench_function(BenchmarkId::new(name, "all"), |b| {
                b.iter(|| black_box(scan(&db, way, from, usize::MAX)));
            });
        }
        group.finish();
    }
}

/// How a stretch of keys is deleted, and how far that has come.
#[derive(Clone, Copy)]
enum Deleted {
    /// A tombstone for each key, in memtables: the keys' entries are in tables.
    KeysInMemory,
    /// The same, once compaction has come to rest.
    Keys,
    /// One range tombstone in each shard's memtable.
    Range,
}

/// The row behind a stretch of deleted keys.
fn deleted(c: &mut Criterion) {
    let mut group = c.benchmark_group("scan of a row behind a million deleted");
    for (name, deleted) in [
        ("tombstones in memtables", Deleted::KeysInMemory),
        ("tombstones, compacted", Deleted::Keys),
        ("delete_range", Deleted::Range),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Memtables with room for all the tombstones.
        let options = Options::default().memory(1 << 30).memtable_bytes(128 << 20);
        let db = Db::open(dir.path(), options).expect("an opening");
        write(&db, 0..DELETED + 1, |batch, i| {
            batch.put(&key(i), b"short");
        });
        settle(&db);
        match deleted {
            Deleted::KeysInMemory | Deleted::Keys => {
                write(&db, 0..DELETED, |batch, i| {
                    batch.delete(&key(i));
                });
            }
            Deleted::Range => {
                db.delete_range(key(0)..key(DELETED)).wait().expect("a range delete");
            }
        }
        if matches!(deleted, Deleted::Keys) {
            settle(&db);
        }
        group.sample_size(10);
        group.bench_function(name, |b| {
            b.iter(|| assert!(black_box(scan(&db, Way::Forward, 0, 1)) > 0));
        });
    }
    group.finish();
}

criterion_group!(benches, rows, deleted);
criterion_main!(benches);
