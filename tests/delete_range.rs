//! Deleting ranges of keys, wherever the keys are: in memtables, in tables, or
//! merged.

mod common;

use std::cell::Cell;
use std::ops::Bound;

use common::{Model, Rng, assert_same, tiny};
use ourodb::sim::Sim;
use ourodb::{Compaction, Db, Durability, ErrorKind, KEY_BYTES_MAX, Options};

const SECOND_NS: u64 = 1_000_000_000;

fn options(sim: &Sim) -> Options {
    tiny(sim).shards(3).owners(2)
}

fn open(sim: &Sim) -> Db {
    Db::open("/db", options(sim)).expect("an opening")
}

type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Keys that are prefixes of one another, and the longest ones.
fn keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"\0".to_vec(),
        b"a".to_vec(),
        b"a\0".to_vec(),
        b"a\0\0".to_vec(),
        b"ab".to_vec(),
        b"b".to_vec(),
        b"b\xff".to_vec(),
        b"b\xff\xff".to_vec(),
        b"c".to_vec(),
        vec![0xff],
        vec![0xff; KEY_BYTES_MAX - 1],
        vec![0xff; KEY_BYTES_MAX],
    ];
    let mut long = vec![b'm'; KEY_BYTES_MAX];
    for last in [0, 1, 0xfe, 0xff] {
        long[KEY_BYTES_MAX - 1] = last;
        keys.push(long.clone());
    }
    keys.push([&vec![b'm'; KEY_BYTES_MAX - 2][..], b"n"].concat());
    keys
}

fn all_bounds() -> Vec<Bound<Vec<u8>>> {
    let both = |key: Vec<u8>| [Bound::Included(key.clone()), Bound::Excluded(key)];
    keys().into_iter().flat_map(both).chain([Bound::Unbounded]).collect()
}

fn contains(range: &Bounds, key: &[u8]) -> bool {
    let above = match &range.0 {
        Bound::Included(start) => key >= &start[..],
        Bound::Excluded(start) => key > &start[..],
        Bound::Unbounded => true,
    };
    above
        && match &range.1 {
            Bound::Included(end) => key <= &end[..],
            Bound::Excluded(end) => key < &end[..],
            Bound::Unbounded => true,
        }
}

fn delete(db: &Db, model: &mut Model, range: &Bounds) {
    db.delete_range(range.clone()).wait().expect("a range delete");
    model.retain(|key, _| !contains(range, key));
}

#[test]
fn every_kind_of_range() {
    let bounds = all_bounds();
    let mut rng = Rng(1);
    for round in 0..60 {
        let sim = Sim::new(round);
        let open =
            || Db::open("/db", options(&sim).wal_segment_bytes(2 << 20)).expect("an opening");
        let db = open();
        let mut model = Model::new();
        for key in keys() {
            db.put(&key, b"old").wait().expect("a put");
            model.insert(key, b"old".to_vec());
        }
        if round % 3 == 0 {
            db.compact(..).wait().expect("a compaction");
        }
        for _ in 0..3 {
            let mut any = || bounds[rng.below(bounds.len() as u64) as usize].clone();
            let range = (any(), any());
            delete(&db, &mut model, &range);
            assert_same(&db, &model);
            let again = keys()[rng.below(18) as usize].clone();
            db.put(&again, b"new").wait().expect("a put");
            model.insert(again, b"new".to_vec());
            if rng.one_in(2) {
                db.flush().wait().expect("a flush");
            }
        }
        for key in keys() {
            let found = db.get(&key).wait().expect("a get");
            assert_eq!(found.as_deref(), model.get(&key).map(|value| &value[..]));
        }
        assert_same(&db, &model);
        db.compact(..).wait().expect("a compaction");
        assert_same(&db, &model);
        db.close().expect("a close");
        let db = open();
        assert_same(&db, &model);
        drop(db);
        sim.kill();
    }
}

#[test]
fn ranges_without_keys_do_nothing() {
    let sim = Sim::new(1);
    let db = open(&sim);
    db.put(b"a", b"1").wait().expect("a put");
    let before = db.stats();
    db.delete_range(b"a".to_vec()..b"a".to_vec()).wait().expect("nothing");
    db.delete_range(b"b".to_vec()..b"a".to_vec()).wait().expect("nothing");
    db.delete_range(..b"".to_vec()).wait().expect("nothing");
    db.delete_range((Bound::Excluded(vec![0xff; KEY_BYTES_MAX]), Bound::Unbounded))
        .wait()
        .expect("nothing");
    let after = db.stats();
    assert_eq!((after.puts, after.wal_record_bytes), (before.puts, before.wal_record_bytes));
    let long = vec![7; KEY_BYTES_MAX + 1];
    let error = db.delete_range(long..).wait().expect_err("no such key");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(db.get(b"a").wait().expect("a get").is_some());
    db.close().expect("a close");
    let error = db.delete_range(b"b".to_vec()..b"a".to_vec()).wait().expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
}

fn row(number: u32) -> ([u8; 4], [u8; 200]) {
    (number.to_be_bytes(), [number as u8; 200])
}

fn fill(db: &Db, model: &mut Model, numbers: std::ops::Range<u32>) {
    for (key, value) in numbers.map(row) {
        db.put(&key, &value).durability(Durability::ProcessSafe).wait().expect("a put");
        model.insert(key.to_vec(), value.to_vec());
    }
}

fn numbers(start: u32, end: u32) -> Bounds {
    let key = |number: u32| number.to_be_bytes().to_vec();
    (Bound::Included(key(start)), Bound::Excluded(key(end)))
}

#[test]
fn an_open_scan_goes_on_seeing_what_is_deleted() {
    for reverse in [false, true] {
        let sim = Sim::new(2);
        let db = open(&sim);
        let mut model = Model::new();
        fill(&db, &mut model, 0..600);
        let before = model.clone();
        let scan = db.scan(..);
        let mut scan = if reverse { scan.reverse().iter() } else { scan.iter() };
        let mut seen = Model::new();
        for at in 0.. {
            match at {
                3 => delete(&db, &mut model, &numbers(0, 300)),
                20 => db.flush().wait().expect("a flush"),
                40 => {
                    delete(&db, &mut model, &(Bound::Unbounded, Bound::Unbounded));
                    fill(&db, &mut model, 100..110);
                }
                60 => db.compact(..).wait().expect("a compaction"),
                _ => {}
            }
            if at == 61 {
                // Old versions are kept for the scan, and for nobody else.
                for number in (0..600u32).chain(0..600) {
                    let key = number.to_be_bytes();
                    let found = db.get(&key).wait().expect("a get");
                    assert_eq!(found.as_deref(), model.get(&key[..]).map(|value| &value[..]));
                }
            }
            let Some(row) = scan.next() else { break };
            let (key, value) = row.expect("a row");
            seen.insert(key.into_vec(), value.into_vec());
        }
        assert!(seen == before, "all rows of the moment the scan began");
        assert_same(&db, &model);
        db.compact(..).wait().expect("a compaction");
        assert_same(&db, &model);
    }
}

#[test]
fn what_is_acknowledged_survives() {
    for seed in 0..30 {
        let sim = Sim::new(seed);
        let (mut model, mut rng) = (Model::new(), Rng(seed));
        for _ in 0..5 {
            let db = open(&sim);
            assert_same(&db, &model);
            fill(&db, &mut model, 0..rng.below(80) as u32);
            let start = rng.below(60) as u32;
            delete(&db, &mut model, &numbers(start, start + rng.below(30) as u32));
            if rng.one_in(3) {
                db.flush().wait().expect("a flush");
            }
            fill(&db, &mut model, start..start + 2);
            delete(&db, &mut model, &numbers(start + 1, start + 5));
            // The last range delete, durable itself, has hardened its streams.
            drop(db);
            if rng.one_in(2) { sim.power_cut() } else { sim.kill() }
        }
        assert_same(&open(&sim), &model);
    }
}

#[test]
fn a_part_that_failed_is_deleted_by_doing_it_again() {
    let mut cut_short = 0;
    for requests in 0..24 {
        let sim = Sim::new(requests);
        let db = open(&sim);
        let mut model = Model::new();
        fill(&db, &mut model, 0..100);
        db.flush().wait().expect("a flush");
        sim.crash_after(requests, true);
        let is_done = Cell::new(false);
        let crashed = sim.until_crash(|| {
            db.delete_range(..).wait().expect("a range delete");
            is_done.set(true);
            loop {
                db.put(b"later", b"").wait().expect("a put");
            }
        });
        assert!(crashed.is_none());
        drop(db);
        let db = open(&sim);
        let left = db.scan(..b"later".to_vec()).iter().count();
        assert!(!is_done.get() || left == 0, "{left} are left of what was acknowledged");
        cut_short += u32::from(!is_done.get() && left < 100);
        db.delete_range(..).wait().expect("a range delete");
        assert_same(&db, &Model::new());
    }
    assert!(cut_short > 0, "no crash came between two streams");
}

#[test]
fn after_everything_is_deleted_nothing_is_left_and_nothing_was_read_for_it() {
    for compaction in [Compaction::Leveled, Compaction::Tiered] {
        for by_itself in [false, true] {
            let sim = Sim::new(4);
            let db = Db::open("/db", options(&sim).compaction(compaction)).expect("an opening");
            let mut model = Model::new();
            for _ in 0..3 {
                fill(&db, &mut model, 0..2000);
            }
            db.compact(..).wait().expect("a compaction");
            let before = db.stats();
            assert!(before.table_bytes > 400_000);
            delete(&db, &mut model, &(Bound::Unbounded, Bound::Unbounded));
            if by_itself {
                db.flush().wait().expect("a flush");
                sim.run_for(10 * SECOND_NS);
            } else {
                db.compact(..).wait().expect("a compaction");
            }
            let after = db.stats();
            assert_eq!(after.tables, 0, "{compaction:?}");
            let bytes = after.compaction_read_bytes - before.compaction_read_bytes;
            assert!(bytes < 100_000, "{bytes} bytes read");
            assert_same(&db, &model);
        }
    }
}

#[test]
fn long_values_of_deleted_ranges_leave_no_files() {
    for compaction in [Compaction::Leveled, Compaction::Tiered] {
        let sim = Sim::new(6);
        let options = options(&sim).compaction(compaction);
        let db = Db::open("/db", options).expect("an opening");
        let mut model = Model::new();
        for number in 0..20u32 {
            let value = vec![number as u8; 100_000];
            db.put(&number.to_be_bytes(), &value).wait().expect("a put");
            model.insert(number.to_be_bytes().to_vec(), value);
            if number == 9 {
                db.compact(..).wait().expect("a compaction");
            }
        }
        delete(&db, &mut model, &numbers(5, 15));
        assert_same(&db, &model);
        db.compact(..).wait().expect("a compaction");
        assert_same(&db, &model);
        delete(&db, &mut model, &(Bound::Unbounded, Bound::Unbounded));
        db.compact(..).wait().expect("a compaction");
        sim.run_for(10 * SECOND_NS);
        let stats = db.stats();
        assert_eq!((stats.tables, stats.value_bytes), (0, 0), "{compaction:?}");
        assert_same(&db, &Model::new());
    }
}

#[test]
fn scans_do_not_crawl_over_what_was_deleted() {
    for reverse in [false, true] {
        let sim = Sim::new(5);
        let options = options(&sim).shards(1).owners(1).cache_bytes(0);
        let db = Db::open("/db", options).expect("an opening");
        let mut model = Model::new();
        fill(&db, &mut model, 0..6000);
        db.compact(..).wait().expect("a compaction");
        // In the mutable memtable: tables are as they were.
        delete(&db, &mut model, &numbers(500, 5500));
        let reads = |db: &Db| db.stats().device_reads;
        let count = |range: Bounds| {
            let before = reads(&db);
            let scan = db.scan(range);
            let rows = if reverse { scan.reverse().iter().count() } else { scan.iter().count() };
            (rows, reads(&db) - before)
        };
        let (rows, read) = count(numbers(400, 5600));
        assert_eq!(rows, 200);
        assert!(read < 30, "{read} reads");
        // All of it is deleted.
        let (rows, read) = count(numbers(1000, 5000));
        assert_eq!(rows, 0);
        assert!(read < 20, "{read} reads");
        // A lookup of what was deleted reads nothing at all.
        let before = reads(&db);
        for number in 500..5500u32 {
            assert_eq!(db.get(&number.to_be_bytes()).wait().expect("a get"), None);
        }
        assert_eq!(reads(&db), before);
        assert_same(&db, &model);
    }
}

#[test]
fn futures_of_range_deletes() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path(), Options::default()).expect("an opening");
    let mut model = Model::new();
    fill(&db, &mut model, 0..100);
    pollster::block_on(async {
        db.delete_range(10u32.to_be_bytes()..20u32.to_be_bytes()).await.expect("a range delete");
        let how = Durability::ProcessSafe;
        db.delete_range(b"".to_vec()..b"".to_vec()).durability(how).await.expect("nothing");
        db.delete_range(90u32.to_be_bytes()..).durability(how).await.expect("a range delete");
        let long = vec![7; KEY_BYTES_MAX + 1];
        let error = db.delete_range(..long).await.expect_err("no such key");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    });
    model.retain(|key, _| !contains(&numbers(10, 20), key) && !contains(&numbers(90, 100), key));
    assert_same(&db, &model);
    db.close().expect("a close");
}

#[test]
fn many_ranges_between_writes() {
    for seed in 0..6 {
        let sim = Sim::new(seed);
        let db = open(&sim);
        let (mut model, mut rng) = (Model::new(), Rng(seed));
        for _ in 0..500 {
            let at = rng.below(3000) as u32;
            fill(&db, &mut model, at..at + rng.below(8) as u32);
            let at = rng.below(3000) as u32;
            let width = if rng.one_in(20) { 600 } else { 20 };
            delete(&db, &mut model, &numbers(at, at + rng.below(width) as u32));
            if rng.one_in(50) {
                sim.run_for(rng.below(3 * SECOND_NS));
                assert_same(&db, &model);
            }
        }
        assert_same(&db, &model);
        db.close().expect("a close");
        drop(db);
        let mut faults = Vec::new();
        let verified = ourodb::verify("/db", &options(&sim), |finding| {
            if let ourodb::Finding::Fault(fault) = finding {
                faults.push(fault.to_string());
            }
            std::ops::ControlFlow::Continue(())
        });
        verified.expect("a verification");
        assert!(faults.is_empty(), "{faults:?}");
        let db = open(&sim);
        assert_same(&db, &model);
        db.compact(..).wait().expect("a compaction");
        assert_same(&db, &model);
        let entries: u64 = db.stats().levels.iter().map(|level| level.entries).sum();
        assert_eq!(entries, model.len() as u64);
    }
}
