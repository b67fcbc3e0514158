//! How long operations take is recorded: each operation once, whatever it waited for,
//! and what memory answers in samples that stand for the others.

mod common;

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use common::tiny;
use futures_core::Stream;
use ourodb::sim::{Faults, Sim};
use ourodb::{Batch, Db, Durability, Latencies, Operation, OperationPart, Options};

fn count(latencies: &Latencies, operation: Operation) -> u64 {
    latencies.whole(operation).len()
}

fn part_count(latencies: &Latencies, operation: Operation, part: OperationPart) -> u64 {
    latencies.part(operation, part).len()
}

/// Of threads that do `count` operations each, one of 64 is timed, so that those of
/// each are off by less than 64. One that is off its core for long is not slow by that.
fn assert_sampled(counted: u64, threads: u64, each: u64) {
    assert_eq!(counted % 64, 0, "{counted}");
    assert!(counted.abs_diff(threads * each) < 64 * threads, "{counted}");
}

#[test]
fn what_memory_answers_is_sampled() {
    let dir = tempfile::tempdir().unwrap();
    // A shard for each thread: none waits for another's lock.
    let db = Db::open(dir.path(), Options::default().shards(1)).unwrap();
    db.put(b"key", b"value").wait().unwrap();
    let before = db.latencies();
    assert_eq!(count(&before, Operation::Get), 0);
    let each = 10_000;
    std::thread::spawn({
        let db = db.clone();
        move || {
            for _ in 0..each {
                assert!(db.get(b"key").wait().unwrap().is_some());
            }
        }
    })
    .join()
    .unwrap();
    let gets = db.latencies();
    assert_sampled(count(&gets, Operation::Get), 1, each);
    assert!(gets.whole(Operation::Get).value_at_quantile(0.5) < 1_000_000);
    std::thread::spawn({
        let db = db.clone();
        move || {
            for _ in 0..each {
                pollster::block_on(db.get(b"absent").into_future()).unwrap();
            }
        }
    })
    .join()
    .unwrap();
    assert_sampled(count(&db.latencies().since(&gets), Operation::Get), 1, each);
    // Nothing else was done meanwhile.
    let all = db.latencies().since(&before);
    let others = Operation::ALL.into_iter().filter(|&operation| operation != Operation::Get);
    assert_eq!(others.map(|operation| count(&all, operation)).sum::<u64>(), 0);
}

#[test]
fn what_reads_the_device_is_always_there() {
    let sim = Sim::new(1);
    let db = Db::open("/db", tiny(&sim).shards(2).owners(1).cache_bytes(0)).unwrap();
    for i in 0..100u8 {
        db.put(&[i], &[i; 300]).wait().unwrap();
    }
    db.flush().wait().unwrap();
    for i in 0..100u8 {
        assert!(db.get(&[i]).wait().unwrap().is_some());
        assert!(sim.block_on(db.get(&[i]).into_future()).unwrap().is_some());
    }
    let keys: Vec<[u8; 1]> = (0..100u8).map(|i| [i]).collect();
    db.multi_get(&keys).wait().unwrap();
    let latencies = db.latencies();
    for (operation, expected) in [(Operation::Get, 200), (Operation::MultiGet, 1)] {
        assert_eq!(count(&latencies, operation), expected);
        assert_eq!(part_count(&latencies, operation, OperationPart::Read), expected);
        let (whole, reads) =
            (latencies.whole(operation), latencies.part(operation, OperationPart::Read));
        assert!(whole.min() >= 10_000 && whole.max() >= reads.max());
    }
    // The first step finds its way to all shards, and later ones read blocks.
    assert_eq!(db.scan(..).iter().count(), 100);
    let mut keys = db.scan(..).keys().stream();
    for _ in 0..100 {
        let key = sim.block_on(poll_fn(|cx| Pin::new(&mut keys).poll_next(cx)));
        assert!(key.unwrap().is_ok());
    }
    let latencies = db.latencies();
    assert_eq!(count(&latencies, Operation::Scan), 2);
    assert_eq!(part_count(&latencies, Operation::Scan, OperationPart::Read), 2);
    let steps = part_count(&latencies, Operation::ScanNext, OperationPart::Read);
    assert!((2..100).contains(&steps), "{steps}");
}

#[test]
fn durable_writes_are_all_there_with_what_they_waited_for() {
    let sim = Sim::new(2);
    let db = Db::open("/db", tiny(&sim).shards(2).owners(1)).unwrap();
    for i in 0..10u8 {
        db.put(&[i], b"value").wait().unwrap();
        db.delete(&[i]).wait().unwrap();
        sim.block_on(db.put(&[i], b"value").into_future()).unwrap();
        sim.block_on(db.on_shard(&[i], move |shard| async move { shard.put(&[i], b"v").await }))
            .unwrap()
            .unwrap();
        let mut batch = Batch::new();
        batch.put(&[i], b"value").delete(b"key");
        db.write(batch).wait().unwrap();
        db.delete_range([i]..[i + 1]).wait().unwrap();
        sim.block_on(db.delete_range([i]..[i + 1]).into_future()).unwrap();
    }
    db.write(Batch::new()).wait().unwrap();
    let latencies = db.latencies();
    let counts =
        [(Operation::Put, 40, 40), (Operation::Batch, 11, 10), (Operation::DeleteRange, 20, 20)];
    for (operation, whole, waited) in counts {
        assert_eq!(count(&latencies, operation), whole, "{operation:?}");
        assert_eq!(part_count(&latencies, operation, OperationPart::Wal), waited, "{operation:?}");
        assert_eq!(part_count(&latencies, operation, OperationPart::Read), 0);
        assert_eq!(part_count(&latencies, operation, OperationPart::Throttle), 0);
    }
    // A long value is written and synced before.
    let before = db.latencies();
    db.put(b"long", &[7; 100_000]).durability(Durability::ProcessSafe).wait().unwrap();
    let put = db.latencies().since(&before);
    assert_eq!(part_count(&put, Operation::Put, OperationPart::Wal), 1);
}

/// Who follows waits first for the group that is being written, and then for its own.
#[test]
fn waiting_for_a_turn_and_for_the_log_are_told_apart() {
    let sim = Sim::new(3);
    let db = Db::open("/db", tiny(&sim).shards(1).owners(1)).unwrap();
    // The first write prepares the log.
    db.put(b"key", b"value").wait().unwrap();
    sim.set_faults(Faults::default().delay_ns(1_000_000..=1_000_000));
    let before = db.latencies();
    for i in 0..40u8 {
        let db = db.clone();
        sim.spawn(async move { db.put(&[i], b"value").wait_in_task().await.unwrap() });
    }
    sim.run_for(1_000_000_000);
    let puts = db.latencies().since(&before);
    assert_eq!(count(&puts, Operation::Put), 40);
    let (lock, wal) = (
        puts.part(Operation::Put, OperationPart::Lock),
        puts.part(Operation::Put, OperationPart::Wal),
    );
    assert_eq!(wal.len(), 40);
    // One request takes a millisecond, and a little; some groups are synced behind it.
    assert!(wal.min() > 990_000 && wal.max() < 10_000_000, "{} {}", wal.min(), wal.max());
    assert!(lock.len() > 20 && lock.max() > 900_000, "{} {}", lock.len(), lock.max());
    let whole = puts.whole(Operation::Put);
    assert!(whole.max() < lock.max() + wal.max() + 100_000);
}

#[test]
fn writes_that_background_work_holds_up_are_throttled() {
    let sim = Sim::new(4);
    let db = Db::open("/db", tiny(&sim).shards(1).owners(1)).unwrap();
    sim.set_faults(Faults::default().delay_ns(500_000..=500_000));
    for i in 0..3000u32 {
        let key = i.to_be_bytes();
        let put = db.put(&key, &[7; 1000]).durability(Durability::ProcessSafe);
        put.wait().unwrap();
    }
    let latencies = db.latencies();
    let throttled = latencies.part(Operation::Put, OperationPart::Throttle);
    assert!(throttled.len() > 10, "{}", throttled.len());
    assert!(throttled.max() > 100_000, "{}", throttled.max());
    let stats = db.stats();
    assert!(throttled.len() <= stats.write_stalls + stats.writes_delayed);
    assert!(latencies.to_string().lines().count() == 1 + Operation::ALL.len());
}

#[test]
fn what_fails_is_not_recorded() {
    let sim = Sim::new(5);
    let db = Db::open("/db", tiny(&sim).shards(1).owners(1)).unwrap();
    db.put(b"key", b"value").wait().unwrap();
    db.close().unwrap();
    assert!(db.put(b"key", b"value").wait().is_err());
    assert!(db.multi_get(&[b"key"]).wait().is_err());
    let latencies = db.latencies();
    assert_eq!((count(&latencies, Operation::Put), count(&latencies, Operation::MultiGet)), (1, 0));
}

/// Threads record side by side, and wait for each other's locks.
#[test]
fn threads_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options::default().shards(1)).unwrap();
    let (threads, each) = (4, 20_000u64);
    let relaxed = Durability::Relaxed { within: Duration::from_secs(1) };
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let db = &db;
            scope.spawn(move || {
                for i in 0..each {
                    let (key, value) = ([thread as u8], i.to_be_bytes());
                    db.put(&key, &value).durability(relaxed).wait().unwrap();
                }
            });
        }
    });
    let latencies = db.latencies();
    let counted = count(&latencies, Operation::Put);
    // Where a sampled one was slow, the others that it would have stood for are missed.
    assert!(counted.abs_diff(threads * each) < threads * each / 4, "{counted}");
}
