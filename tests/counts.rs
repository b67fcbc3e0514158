//! Counts, which do not lie on a noisy machine: device writes a commit, device
//! reads a lookup, allocations a get; for each way of doing I/O.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod common;

use common::Rng;
use ourodb::sim::Sim;
use ourodb::{Db, IoBackend, Options, Stats};

const VALUE: [u8; 400] = [7; 400];

fn key(i: u64) -> Vec<u8> {
    format!("user{:020}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes()
}

/// Runs the check on a ring, on blocking I/O, and on the simulator.
fn on_each_backend(check: impl Fn(&Db, &dyn Fn())) {
    on_each_backend_with(options, check);
}

fn on_each_backend_with(options: fn(IoBackend) -> Options, check: impl Fn(&Db, &dyn Fn())) {
    on_the_system(options, &check);
    let sim = Sim::new(1);
    let db = Db::open("/db", options(IoBackend::Sim(sim.clone()))).unwrap();
    check(&db, &|| assert!(!sim.run_for(1_000_000)));
    drop(db);
    sim.kill();
}

fn on_the_system(options: fn(IoBackend) -> Options, check: &dyn Fn(&Db, &dyn Fn())) {
    for io in [IoBackend::Ring, IoBackend::Blocking] {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), options(io)).unwrap();
        check(&db, &|| std::thread::park_timeout(std::time::Duration::from_millis(1)));
    }
}

fn options(io: IoBackend) -> Options {
    Options::default().io(io).shards(2).owners(1).memory(64 << 20)
}

/// Waits until the owner has made its spare segment.
fn settle(db: &Db, pause: &dyn Fn()) -> Stats {
    loop {
        let stats = db.stats();
        if stats.wal_segments == 2 * stats.owners as u64 && stats.immutable_memtables == 0 {
            // Not all of these were counted at the same moment.
            return db.stats();
        }
        pause();
    }
}

#[test]
fn a_durable_commit_is_one_device_write_and_no_metadata_operation() {
    on_each_backend(|db, pause| {
        db.put(&key(0), &VALUE).wait().unwrap();
        let before = settle(db, pause);
        // Far less than the first segment holds.
        for i in 1..=100 {
            db.put(&key(i), &VALUE).wait().unwrap();
        }
        let after = db.stats();
        let marks = after.wal_marks - before.wal_marks;
        assert_eq!(after.puts - before.puts, 100);
        // On a slow machine the stream may have been idle in between.
        assert_eq!(after.wal_groups - before.wal_groups, 100 + marks);
        assert_eq!(after.device_writes - before.device_writes, 100 + marks);
        assert_eq!(after.device_write_bytes - before.device_write_bytes, (100 + marks) * 4096);
        assert_eq!(after.device_syncs, before.device_syncs);
        assert_eq!(after.metadata_ops, before.metadata_ops);
        assert_eq!(after.device_reads, before.device_reads);
    });
}

#[test]
fn a_durable_long_value_is_written_once_and_read_once() {
    on_each_backend(|db, pause| {
        let long = vec![7; 100_000];
        // It makes the file.
        db.put(&key(0), &long).wait().unwrap();
        let before = settle(db, pause);
        for i in 1..=20 {
            db.put(&key(i), &long).wait().unwrap();
        }
        let after = db.stats();
        let marks = after.wal_marks - before.wal_marks;
        let value_files = after.value_files - before.value_files;
        assert!(value_files <= 1, "one for each shard");
        // The value, and its record; once a file's header.
        assert_eq!(after.device_writes - before.device_writes, 40 + marks + value_files);
        let bytes = 20 * (102_400 + 4096) + (marks + value_files) * 4096;
        assert_eq!(after.device_write_bytes - before.device_write_bytes, bytes);
        assert_eq!(after.device_syncs - before.device_syncs, 20 + value_files);
        assert_eq!(after.metadata_ops - before.metadata_ops, value_files);
        for i in 1..=20 {
            assert_eq!(db.get(&key(i)).wait().unwrap().unwrap(), *long);
        }
        let read = db.stats();
        assert_eq!(read.device_reads - after.device_reads, 20);
        assert_eq!(read.device_read_bytes - after.device_read_bytes, 20 * 102_400);
        db.flush().wait().unwrap();
        let flushed = db.stats();
        for i in 1..=20 {
            assert_eq!(db.get(&key(i)).wait().unwrap().unwrap(), *long);
        }
        // The blocks with their references are cached, long values are not.
        let stats = db.stats();
        let blocks = stats.cache_misses - flushed.cache_misses;
        assert!(blocks < 20);
        assert_eq!(stats.device_reads - flushed.device_reads, 20 + blocks);
    });
}

#[test]
fn threads_that_write_at_one_time_share_device_writes() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options(IoBackend::Ring)).unwrap();
    let puts = 16 * 200;
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let db = &db;
            scope.spawn(move || {
                for i in 0..200 {
                    db.put(&key(thread * 200 + i), &VALUE).wait().unwrap();
                }
            });
        }
    });
    let stats = db.stats();
    assert_eq!(stats.wal_records, puts);
    assert!(stats.wal_groups < puts, "{} groups for {puts} puts", stats.wal_groups);
}

#[test]
fn a_get_that_hits_the_memtable_allocates_nothing_but_its_value() {
    // Not on the simulator, which allocates for every call it drives.
    on_the_system(options, &|db, _| {
        for i in 0..1000 {
            db.put(&key(i), &VALUE).wait().unwrap();
        }
        allocates_its_value_only(db);
    });
}

#[test]
fn nor_does_one_that_hits_the_cache() {
    on_the_system(options, &|db, _| {
        for i in 0..1000 {
            db.put(&key(i), &VALUE).wait().unwrap();
        }
        db.flush().wait().unwrap();
        let before = db.stats();
        for i in 0..2000 {
            assert_eq!(db.get(&key(i)).wait().unwrap().is_some(), i < 1000);
        }
        let after = db.stats();
        // Each block was read once, and stayed.
        assert_eq!(after.device_reads - before.device_reads, after.cache_blocks);
        assert_eq!(after.cache_misses, after.cache_blocks);
        assert!(after.cache_blocks >= 100 && after.cache_hits >= 800, "{after}");
        assert_eq!((after.cache_evicted, after.cache_refused), (0, 0));
        allocates_its_value_only(db);
        assert_eq!(db.stats().cache_misses, after.cache_misses);
    });
}

/// Gets of a thousand keys, and of others that are not there.
fn allocates_its_value_only(db: &Db) {
    {
        let mut rng = Rng(1);
        // The first get of a thread makes its buffers.
        db.get(&key(0)).wait().unwrap();
        let reads = db.stats().device_reads;
        for _ in 0..1000 {
            let present = key(rng.below(1000));
            let absent = key(1000 + rng.below(1000));
            let get = allocation_counter::measure(|| {
                assert_eq!(db.get(&present).wait().unwrap().unwrap(), VALUE);
            });
            assert_eq!((get.count_total, get.bytes_total), (1, 400));
            let get_with = allocation_counter::measure(|| {
                assert_eq!(db.get_with(&present, <[u8]>::len).wait().unwrap(), Some(400));
                assert_eq!(db.get(&absent).wait().unwrap(), None);
            });
            assert_eq!(get_with.count_total, 0);
        }
        assert_eq!(db.stats().device_reads, reads);
    }
}

fn uncached(io: IoBackend) -> Options {
    options(io).cache_bytes(0)
}

#[test]
fn lookups_in_tables_cost_one_read_and_absent_keys_none_but_for_filter_errors() {
    on_each_backend_with(uncached, |db, pause| {
        const KEYS: u64 = 8000;
        for table in 0..2 {
            let mut batch = ourodb::Batch::new();
            for i in 0..KEYS / 2 {
                batch.put(&key(table * KEYS / 2 + i), &VALUE[..100]);
                if batch.bytes() > db.batch_bytes_max() - 1000 {
                    db.write(std::mem::take(&mut batch)).wait().unwrap();
                }
            }
            db.write(batch).wait().unwrap();
            db.flush().wait().unwrap();
        }
        let before = settle(db, pause);
        assert_eq!(before.tables, 4, "two for each shard");
        for i in 0..KEYS {
            assert_eq!(db.get(&key(i)).wait().unwrap().as_deref(), Some(&VALUE[..100]));
        }
        let present = db.stats();
        let errors = present.filter_false_positives - before.filter_false_positives;
        assert_eq!(present.device_reads - before.device_reads, KEYS + errors);

        for i in KEYS..3 * KEYS {
            assert_eq!(db.get(&key(i)).wait().unwrap(), None);
        }
        let absent = db.stats();
        let probes = absent.filter_probes - present.filter_probes;
        let errors = absent.filter_false_positives - present.filter_false_positives;
        assert_eq!(absent.device_reads - present.device_reads, errors);
        assert!(probes > 2 * KEYS, "{probes} probes");
        // 0.5 % at most, and the spread of a sample of this size.
        assert!(errors * 1000 <= probes * 6, "{errors} errors in {probes} probes");
    });
}

#[test]
fn the_longest_hold_of_a_shard_is_known_where_it_is_measured() {
    on_each_backend(|db, _| {
        db.put(&key(0), &VALUE).wait().unwrap();
        assert_eq!(db.stats().shard_hold_ns_max > 0, cfg!(debug_assertions));
    });
}
