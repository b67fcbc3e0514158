//! Whole operations through the public interface: durable puts, gets that hit
//! a memtable, gets of keys in tables, absent keys. Data goes to the directory
//! of `TMPDIR`; figures of durable puts are those of its device.

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ourodb::{Batch, Db, Options};

const KEYS: u64 = 100_000;
const VALUE: [u8; 400] = [0x5a; 400];

fn key(i: u64) -> Vec<u8> {
    let scrambled = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("user{scrambled:020}").into_bytes()
}

/// A database with all the keys, in memtables or in tables.
fn filled(dir: &std::path::Path, flush: bool) -> Db {
    let options = Options::default().memory(1 << 30);
    let db = Db::open(dir, options).expect("an opening");
    let mut batches = vec![Batch::new(); db.stats().owners];
    for i in 0..KEYS {
        let key = key(i);
        let batch = &mut batches[db.stream_of(&key)];
        batch.put(&key, &VALUE);
        if batch.bytes() + 1000 > db.batch_bytes_max() {
            db.write(std::mem::take(batch)).wait().expect("a batch");
        }
    }
    for batch in batches {
        db.write(batch).wait().expect("a batch");
    }
    if flush {
        db.flush().wait().expect("a flush");
    }
    db
}

fn puts(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path(), Options::default()).expect("an opening");
    let mut group = c.benchmark_group("put");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    let mut i = 0;
    group.bench_function("durable, one thread", |b| {
        b.iter(|| {
            i += 1;
            db.put(&key(i), &VALUE).wait().expect("a put");
        });
    });
}

fn gets(c: &mut Criterion) {
    let mut group = c.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    for (place, flush) in [("memtable", false), ("table", true)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = filled(dir.path(), flush);
        for (what, first) in [("present", 0), ("absent", KEYS)] {
            let mut i = 0;
            group.bench_function(BenchmarkId::new(what, place), |b| {
                b.iter(|| {
                    i = (i + 7919) % KEYS;
                    black_box(db.get(&key(first + i)).wait().expect("a get"))
                });
            });
        }
    }
}

/// Memtable hits by several threads that share the database: the time is that
/// of all gets together.
fn gets_of_threads(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = filled(dir.path(), false);
    let mut group = c.benchmark_group("get by threads");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for threads in [1, 8, 64] {
        group.bench_function(BenchmarkId::from_parameter(threads), |b| {
            b.iter_custom(|gets| {
                let start = Instant::now();
                std::thread::scope(|scope| {
                    for thread in 0..threads {
                        let db = &db;
                        scope.spawn(move || {
                            let mut i = thread * 7919;
                            for _ in 0..gets.div_ceil(threads) {
                                i = (i + 104_729) % KEYS;
                                black_box(db.get(&key(i)).wait().expect("a get"));
                            }
                        });
                    }
                });
                start.elapsed()
            });
        });
    }
}

fn scans(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = filled(dir.path(), false);
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Elements(50));
    let mut i = 0;
    group.bench_function("50 rows, memtable", |b| {
        b.iter(|| {
            i = (i + 7919) % KEYS;
            db.scan(key(i)..).limit(50).iter().map(|row| row.expect("a row").1.len()).sum::<usize>()
        });
    });
}

criterion_group!(benches, puts, gets, gets_of_threads, scans);
criterion_main!(benches);
