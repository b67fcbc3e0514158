//! Filters and indexes of tables that do not stay in memory: right answers within
//! the memory budget, at the cost of one more read.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod common;

use std::future::{Future, IntoFuture, poll_fn};
use std::task::Poll;

use common::{Model, Rng, assert_same, begin, tiny};
use ourodb::sim::{Faults, Sim};
use ourodb::{Batch, Db, Durability, ErrorKind, IoBackend, Options, Stats};

const MS: u64 = 1_000_000;
const MEMORY: u64 = 4 << 20;
const KEYS: u32 = 1_200_000;

/// Keys in no order; those of odd numbers are never written.
fn key(i: u32) -> [u8; 4] {
    i.wrapping_mul(2_654_435_761).to_be_bytes()
}

fn options(sim: &Sim) -> Options {
    Options::default()
        .io(IoBackend::Sim(sim.clone()))
        .memory(MEMORY)
        .shards(2)
        .owners(1)
        .durability(Durability::ProcessSafe)
}

/// What filters and indexes take keeps within 30 % of the budget.
fn assert_within_share(stats: &Stats) {
    assert!(stats.pinned_bytes + stats.partition_cache_bytes <= MEMORY * 3 / 10, "{stats}");
    assert!(stats.partition_cache_bytes <= stats.partition_cache_capacity_bytes, "{stats}");
}

#[test]
fn data_far_beyond_the_share_of_filters_and_indexes() {
    let sim = Sim::new(1);
    let db = Db::open("/db", options(&sim)).unwrap();
    for start in (0..KEYS).step_by(1000) {
        let mut batch = Batch::new();
        for i in start..start + 1000 {
            batch.put(&key(2 * i), b"");
        }
        db.write(batch).wait().unwrap();
        if start % 50_000 == 0 {
            assert_within_share(&db.stats());
        }
    }
    db.flush().wait().unwrap();
    assert_within_share(&db.stats());
    // One sorted run for each shard.
    db.compact(..).wait().unwrap();
    sim.run_for(5000 * MS);
    let stats = db.stats();
    assert_within_share(&stats);
    let tables = stats.tables;
    assert!(0 < stats.partitioned_tables && stats.partitioned_tables < tables, "{stats}");
    costs_two_reads_at_most(&sim, &db);
    assert_eq!(db.scan(..).iter().map(Result::unwrap).count(), KEYS as usize);
    assert_within_share(&db.stats());
    db.close().unwrap();

    // Opening reads filters and indexes only of tables that keep them. The machine
    // counts through.
    let mut before = db.stats();
    drop(db);
    let [all, some, none] = [MEMORY, MEMORY * 24 / 100, 0].map(|pinned_bytes| {
        let options = options(&sim).memory(4 * MEMORY).pinned_bytes(pinned_bytes);
        let db = Db::open("/db", options).unwrap();
        let mut stats = db.stats();
        stats.device_reads -= before.device_reads;
        stats.device_read_bytes -= before.device_read_bytes;
        costs_two_reads_at_most(&sim, &db);
        db.close().unwrap();
        before = db.stats();
        stats
    });
    assert_eq!((all.partitioned_tables, none.partitioned_tables), (0, tables));
    assert!(all.pinned_bytes > MEMORY * 3 / 10, "the data are far beyond the share");
    assert!(0 < some.partitioned_tables && some.partitioned_tables < tables);
    assert_within_share(&some);
    assert_within_share(&none);
    assert!(none.pinned_bytes < 4096 * tables, "{none}");
    assert_eq!((none.partition_misses, none.partition_hits), (0, 0));
    let reads = [&all, &some, &none].map(|stats| stats.device_reads);
    assert!(reads[2] <= reads[1] && reads[1] <= reads[0], "{reads:?}, {tables} tables");
    // Three a table, of few units, beside manifests and log.
    assert!(reads[2] < 3 * tables + 40, "{reads:?}, {tables} tables");
    assert!(none.device_read_bytes + all.pinned_bytes / 2 < all.device_read_bytes);
    assert!(some.device_read_bytes < all.device_read_bytes);
}

/// Gets, of threads that wait and of futures, of keys that are there, and that are
/// not.
fn costs_two_reads_at_most(sim: &Sim, db: &Db) {
    let mut rng = Rng(3);
    let (mut most, mut all) = (0, 0);
    for _ in 0..1500 {
        let i = 2 * rng.below(u64::from(KEYS)) as u32;
        let before = db.stats();
        assert_eq!(db.get(&key(i)).wait().unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(sim.block_on(db.get(&key(i + 1)).into_future()).unwrap(), None);
        let middle = db.stats();
        let j = 2 * rng.below(u64::from(KEYS)) as u32;
        assert!(sim.block_on(db.get(&key(j)).into_future()).unwrap().is_some());
        let reads = db.stats().device_reads - middle.device_reads;
        assert!(reads <= 2, "{reads} reads of a get");
        let both = middle.device_reads - before.device_reads;
        assert!(both <= 4, "{both} reads of two gets");
        most = most.max(reads);
        all += reads + both;
    }
    let stats = db.stats();
    assert_eq!(most, if stats.partitioned_tables > 0 { 2 } else { 1 });
    assert!(all < 3 * 1500 * 2);
    if stats.partitioned_tables > 0 {
        assert!(stats.partition_hits > 0 && stats.partition_evicted > 0, "{stats}");
    }
}

/// With 20 keys in one block of a table whose filter and index do not stay.
fn small(sim: &Sim) -> Db {
    let options = tiny(sim).shards(1).owners(1).requests_max(4).pinned_bytes(0);
    let db = Db::open("/db", options).unwrap();
    for i in 0..20u8 {
        db.put(&[i], &[i; 100]).wait().unwrap();
    }
    db.flush().wait().unwrap();
    sim.run_for(MS);
    assert_eq!((db.stats().partitioned_tables, db.stats().tables), (1, 1));
    db
}

#[test]
fn futures_that_miss_a_partition_at_once_share_its_read() {
    let sim = Sim::new(2);
    let db = small(&sim);
    let before = db.stats();
    let keys: Vec<[u8; 1]> = (0..20).map(|i| [i]).collect();
    let mut gets: Vec<_> = keys.iter().map(|key| Box::pin(db.get(key).into_future())).collect();
    for get in &mut gets {
        begin(&sim, get);
    }
    for (get, key) in gets.into_iter().zip(&keys) {
        assert_eq!(sim.block_on(get).unwrap().unwrap(), [key[0]; 100]);
    }
    let after = db.stats();
    // The partition, and the block.
    assert_eq!(after.device_reads - before.device_reads, 2);
    assert_eq!((after.partition_misses, after.partition_inserted), (20, 1));
    let values = db.multi_get(&keys).wait().unwrap();
    assert!(values.iter().zip(&keys).all(|(value, key)| value.as_deref() == Some(&[key[0]; 100])));
    assert_eq!(db.stats().device_reads, after.device_reads);
    db.close().unwrap();
}

#[test]
fn nobody_depends_on_a_future_that_was_dropped() {
    for polls in 0.. {
        let sim = Sim::new(polls);
        let db = small(&sim);
        let before = db.stats();
        let mut first = Box::pin(db.get(&[1]).into_future());
        let mut second = Box::pin(db.get(&[2]).into_future());
        let mut left = polls;
        let ended = sim.block_on(poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            first.as_mut().poll(cx).map(Some)
        }));
        let early = sim.block_on(poll_fn(|cx| match second.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => Poll::Ready(None),
        }));
        drop(first);
        // A thread that waits, and a scan.
        assert_eq!(db.get(&[3]).wait().unwrap().unwrap(), [3; 100]);
        assert_eq!(db.scan(..).iter().count(), 20);
        let value = early.unwrap_or_else(|| sim.block_on(second));
        assert_eq!(value.unwrap().unwrap(), [2; 100]);
        sim.run_for(10 * MS);
        let after = db.stats();
        assert_eq!(after.device_reads - before.device_reads, 2, "after {polls} polls");
        assert_eq!(after.requests_outstanding, 0);
        db.close().unwrap();
        if let Some(value) = ended {
            assert_eq!(value.unwrap().unwrap(), [1; 100]);
            assert!(polls > 2, "it waited for a partition, and for a block");
            return;
        }
    }
}

/// A write over half of the data is found to be garbage although no filter stays in
/// memory.
#[test]
fn garbage_is_found_where_no_filter_stays() {
    let sim = Sim::new(4);
    let options = options(&sim).memtable_bytes(64 << 10).pinned_bytes(0);
    let db = Db::open("/db", options).unwrap();
    let mut model = Model::new();
    for round in 0..3u8 {
        for i in 0..4000u32 {
            let value = vec![round; 60];
            db.put(&key(i), &value).wait().unwrap();
            model.insert(key(i).to_vec(), value);
        }
    }
    db.flush().wait().unwrap();
    // Writes have stopped.
    sim.run_for(60_000 * MS);
    let stats = db.stats();
    assert_eq!(stats.partitioned_tables, stats.tables);
    let entries: u64 = stats.levels.iter().map(|level| level.entries).sum();
    assert!(entries < 4000 * 105 / 100, "{entries} entries of 4000 keys");
    assert_same(&db, &model);
    for i in 0..4000 {
        db.delete(&key(i)).wait().unwrap();
    }
    db.compact(..).wait().unwrap();
    assert_eq!(db.stats().tables, 0, "no tombstone stays for want of a filter");
    db.close().unwrap();
}

#[test]
fn a_read_that_fails_is_told_and_no_other() {
    let sim = Sim::new(5);
    let db = small(&sim);
    sim.set_faults(Faults::default().read_error_ppm(1_000_000));
    assert_eq!(db.get(&[1]).wait().unwrap_err().kind(), ErrorKind::Io);
    sim.set_faults(Faults::default());
    assert_eq!(db.get(&[1]).wait().unwrap().unwrap(), [1; 100]);
    db.close().unwrap();
}

/// Once there is room, tables keep filters and indexes after all.
#[test]
fn what_fits_stays_after_a_compaction() {
    let sim = Sim::new(6);
    let db = Db::open("/db", options(&sim).memtable_bytes(64 << 10)).unwrap();
    for round in 0..4u8 {
        for i in 0..3000u32 {
            db.put(&key(i), &[round; 100]).wait().unwrap();
        }
    }
    db.flush().wait().unwrap();
    db.compact(..).wait().unwrap();
    sim.run_for(1000 * MS);
    let needed = db.stats().pinned_bytes;
    db.close().unwrap();
    drop(db);
    // Room for what there is, but not for that and what comes of it.
    let bytes = needed * 3 / 2 + needed / 2;
    let db = Db::open("/db", options(&sim).memtable_bytes(64 << 10).pinned_bytes(bytes)).unwrap();
    assert_eq!(db.stats().partitioned_tables, 0);
    for i in 0..3000u32 {
        db.put(&key(i), &[9; 100]).wait().unwrap();
    }
    db.compact(..).wait().unwrap();
    sim.run_for(1000 * MS);
    let stats = db.stats();
    assert_eq!(stats.partitioned_tables, 0, "{stats}");
    assert!(stats.pinned_bytes <= bytes);
    db.close().unwrap();
}
