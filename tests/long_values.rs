//! Values above 64 KiB, which are in value files: round trips on every way of
//! doing I/O, what becomes of their space, crashes, failures, damage.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod common;

#[path = "long_values/crashes.rs"]
mod crashes;
#[path = "long_values/damage.rs"]
mod damage;
#[path = "long_values/failures.rs"]
mod failures;
#[path = "long_values/space.rs"]
mod space;

use std::path::PathBuf;

use common::{Model, assert_same};
use ourodb::sim::Sim;
use ourodb::{Batch, Compaction, Db, Durability, ErrorKind, IoBackend, Options};

const MS: u64 = 1_000_000;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A value of this length, unlike others.
fn value(len: usize, seed: u8) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut value = Vec::with_capacity(len + 8);
    while value.len() < len {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        value.extend_from_slice(&(state >> 7).to_le_bytes());
    }
    value.truncate(len);
    value
}

fn options(io: IoBackend) -> Options {
    Options::default().io(io).shards(2).owners(1).memory(32 << 20)
}

fn on_sim(sim: &Sim) -> Db {
    Db::open("/db", options(IoBackend::Sim(sim.clone()))).unwrap()
}

/// The value files on a simulated disk.
fn value_files(sim: &Sim) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "val");
    sim.paths().into_iter().filter(is_one).collect()
}

/// Keys of one shard, the first of the two, in order.
fn keys_of_first_shard(sim: &Sim) -> Vec<Vec<u8>> {
    // The only way to tell from outside: with two owners, each has one shard.
    let db = Db::open("/db", options(IoBackend::Sim(sim.clone())).owners(2)).unwrap();
    let keys = (0..200u32).map(|i| format!("key{i:03}").into_bytes());
    let keys = keys.filter(|key| db.stream_of(key) == 0).take(40).collect();
    db.close().unwrap();
    keys
}

/// Runs the check with an opening of a database on a ring, on blocking I/O, and
/// on the simulator.
fn on_each_backend(check: impl Fn(&dyn Fn() -> Db)) {
    for io in [IoBackend::Ring, IoBackend::Blocking] {
        let dir = tempfile::tempdir().unwrap();
        check(&|| Db::open(dir.path(), options(io.clone())).unwrap());
    }
    let sim = Sim::new(1);
    check(&|| Db::open("/db", options(IoBackend::Sim(sim.clone()))).unwrap());
    sim.kill();
}

/// Around every bound: inline, one piece, chunks, a file of its own, several
/// rounds of pieces, the limit.
const SIZES: [usize; 14] = [
    64 * KIB,
    64 * KIB + 1,
    68 * KIB,
    128 * KIB - 1,
    128 * KIB,
    128 * KIB + 1,
    256 * KIB,
    256 * KIB + 1,
    MIB - 1,
    MIB,
    MIB + 1,
    2 * MIB + 4097,
    8 * MIB - 1,
    8 * MIB,
];

#[test]
fn sizes_around_each_bound_come_back_from_memtables_log_and_tables() {
    on_each_backend(|open| {
        let db = open();
        let mut model = Model::new();
        for (i, len) in SIZES.into_iter().enumerate() {
            let (key, value) = (format!("key{i:02}").into_bytes(), value(len, i as u8));
            db.put(&key, &value).wait().unwrap();
            model.insert(key, value);
        }
        assert_same(&db, &model);
        db.close().unwrap();
        drop(db);
        let db = open();
        assert_same(&db, &model);
        db.flush().wait().unwrap();
        assert_same(&db, &model);
        let keys: Vec<_> = model.keys().collect();
        let values = db.multi_get(&keys).wait().unwrap();
        assert!(values.iter().map(|v| v.as_deref().unwrap()).eq(model.values().map(|v| &v[..])));
        for (key, value) in &model {
            let is_same = db.get_with(key, |found| found == value).wait().unwrap();
            assert_eq!(is_same, Some(true));
            assert_eq!(db.get(key).wait().unwrap().unwrap().into_vec(), *value);
        }
        let long: usize = SIZES.iter().filter(|len| **len > 64 * KIB).sum();
        let stats = db.stats();
        assert!(stats.value_bytes as usize >= long);
        assert!(stats.value_bytes as usize <= long + SIZES.len() * 4096);
        drop(db);
        let db = open();
        assert_same(&db, &model);
    });
}

#[test]
fn values_above_a_quarter_of_the_budget_are_refused() {
    on_each_backend(|open| {
        let db = open();
        let long = vec![7; 8 * MIB + 1];
        let mut batch = Batch::new();
        batch.put(b"short", b"x").put(b"long", &long);
        for refused in [db.put(b"long", &long).wait(), db.write(batch).wait()] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            for says in ["8388609 bytes", "has 8388608", "Options::memory", "split it"] {
                assert!(error.to_string().contains(says), "{error}");
            }
        }
        assert_same(&db, &Model::new());
        db.close().unwrap();
        assert_eq!(db.put(b"k", &long[..MIB]).wait().unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn a_batch_with_long_values_is_applied_as_a_whole_and_counts_references() {
    on_each_backend(|open| {
        let db = open();
        let mut batch = Batch::new();
        let mut model = Model::new();
        // Both shards; shared files and files of their own; some twice.
        for i in 0..24u8 {
            let len = [100, 70 * KIB, 300 * KIB, MIB + 5][usize::from(i % 4)];
            let (key, value) = (vec![i % 20], value(len, i));
            batch.put(&key, &value);
            model.insert(key, value);
        }
        batch.delete(&[3]);
        model.remove(&vec![3]);
        assert!(batch.bytes() < 24 * 250, "{} bytes", batch.bytes());
        let before = db.stats();
        db.write(batch).wait().unwrap();
        let after = db.stats();
        assert_eq!(after.wal_records - before.wal_records, 1);
        // A sync for each file, and for the directory of each; perhaps one of a
        // segment that is being made.
        let files = after.value_files - before.value_files;
        let syncs = after.device_syncs - before.device_syncs;
        assert!((2 * files..2 * files + 4).contains(&syncs), "{syncs} syncs, {files} files");
        assert_same(&db, &model);
        drop(db);
        let db = open();
        assert_same(&db, &model);
        db.flush().wait().unwrap();
        assert_same(&db, &model);
    });
}

#[test]
fn scans_see_their_moment_whatever_becomes_of_the_values() {
    on_each_backend(|open| {
        let db = open();
        let mut model = Model::new();
        for i in 0..12u8 {
            let len = [10, 65 * KIB, 5 * KIB, MIB][usize::from(i % 4)];
            let (key, value) = (vec![b'k', i], value(len, i));
            db.put(&key, &value).wait().unwrap();
            model.insert(key, value);
            if i == 5 {
                db.flush().wait().unwrap();
            }
        }
        let mut forward = db.scan(..).iter();
        let mut backward = db.scan(..).reverse().iter();
        let mut rows = (Vec::new(), Vec::new());
        for i in 0..12u8 {
            rows.0.push(forward.next().unwrap().unwrap());
            rows.1.push(backward.next().unwrap().unwrap());
            // The rows to come are replaced, and tables written.
            db.put(&[b'k', (i + 2) % 12], &value(100 * KIB, 100 + i)).wait().unwrap();
            db.delete(&[b'k', (i + 6) % 12]).wait().unwrap();
            db.flush().wait().unwrap();
        }
        assert!(forward.next().is_none() && backward.next().is_none());
        assert!(
            rows.0
                .iter()
                .map(|(k, v)| (&k[..], &v[..]))
                .eq(model.iter().map(|(k, v)| (&k[..], &v[..])))
        );
        assert!(
            rows.1
                .iter()
                .map(|(k, v)| (&k[..], &v[..]))
                .eq(model.iter().rev().map(|(k, v)| (&k[..], &v[..])))
        );
    });
}

#[test]
fn files_are_shared_up_to_a_length_and_not_across_openings() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(IoBackend::Blocking).shards(1);
    let db = Db::open(dir.path(), options.clone()).unwrap();
    let value = value(MIB - 1, 1);
    for i in 0..64u8 {
        db.put(&[i], &value).wait().unwrap();
    }
    assert_eq!(db.stats().value_files, 1);
    db.put(b"next", &value).wait().unwrap();
    assert_eq!(db.stats().value_files, 2);
    db.put(b"own", &vec![3; MIB]).wait().unwrap();
    assert_eq!(db.stats().value_files, 3);
    db.put(b"shares", &value).wait().unwrap();
    assert_eq!(db.stats().value_files, 3);
    db.close().unwrap();
    drop(db);
    let db = Db::open(dir.path(), options).unwrap();
    assert_eq!(db.stats().value_files, 3);
    db.put(b"later", &value).wait().unwrap();
    assert_eq!(db.stats().value_files, 4);
    // More files than are kept open.
    for i in 0..40u8 {
        db.put(&[b'o', i], &vec![i; MIB]).wait().unwrap();
    }
    for i in (0..40u8).rev() {
        let found = db.get(&[b'o', i]).wait().unwrap().unwrap();
        assert!(found.len() == MIB && found.iter().all(|byte| *byte == i));
    }
    assert_eq!(db.get(&[17]).wait().unwrap().unwrap(), *value);
}
