//! The block cache, seen from outside: shared reads, futures that are dropped or
//! not polled, and the right answers whatever fits.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod common;

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};

use common::{Rng, begin, tiny};
use ourodb::sim::Sim;
use ourodb::{Db, ErrorKind, IoBackend, Options};

const MS: u64 = 1_000_000;

/// A database on the simulator, with 20 keys in one block of a table.
fn simulated(sim: &Sim) -> Db {
    let db = Db::open("/db", tiny(sim).shards(1).owners(1).requests_max(4)).unwrap();
    for i in 0..20u8 {
        db.put(&[i], &[i; 100]).wait().unwrap();
    }
    db.flush().wait().unwrap();
    sim.run_for(MS);
    db
}

#[test]
fn futures_that_miss_a_block_at_once_share_its_read() {
    let sim = Sim::new(1);
    let db = simulated(&sim);
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
    assert_eq!(after.device_reads - before.device_reads, 1);
    assert_eq!(after.owner_messages - before.owner_messages, 1);
    drop(db);
    sim.kill();
}

#[test]
fn nobody_depends_on_a_future_that_asked_first() {
    for dropped in [true, false] {
        let sim = Sim::new(2);
        let db = simulated(&sim);
        let before = db.stats();
        let mut first = Box::pin(db.get(&[1]).into_future());
        let mut second = Box::pin(db.get(&[2]).into_future());
        begin(&sim, &mut first);
        begin(&sim, &mut second);
        let kept = if dropped {
            drop(first);
            None
        } else {
            // Never polled again until the end.
            Some(first)
        };
        // A thread that waits, and a scan.
        assert_eq!(db.get(&[3]).wait().unwrap().unwrap(), [3; 100]);
        assert_eq!(db.scan(..).iter().count(), 20);
        assert_eq!(sim.block_on(second).unwrap().unwrap(), [2; 100]);
        let after = db.stats();
        assert_eq!(after.device_reads - before.device_reads, 1);
        assert_eq!(after.requests_outstanding, 0);
        if let Some(first) = kept {
            assert_eq!(sim.block_on(first).unwrap().unwrap(), [1; 100]);
        }
        db.close().unwrap();
    }
}

#[test]
fn nor_on_one_that_runs_beside_the_data() {
    for io in [IoBackend::Ring, IoBackend::Blocking] {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), Options::default().io(io).shards(1).owners(1)).unwrap();
        db.put(b"key", b"value").wait().unwrap();
        db.flush().wait().unwrap();
        let (has_begun, begun) = std::sync::mpsc::channel();
        let may_end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&may_end);
        let work = db.on_shard(b"key", move |shard| async move {
            let mut get = pin!(shard.get(b"key"));
            poll_fn(|cx| {
                let _ = get.as_mut().poll(cx);
                Poll::Ready(())
            })
            .await;
            has_begun.send(()).unwrap();
            // It is kept, and not polled.
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if ends.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            get.await
        });
        let mut work = Box::pin(work.into_future());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(work.as_mut().poll(&mut cx).is_pending());
        begun.recv().unwrap();
        assert!(db.get(b"key").wait().unwrap().is_some());
        assert!(pollster::block_on(db.get(b"key").into_future()).unwrap().is_some());
        may_end.store(true, Ordering::SeqCst);
        assert!(pollster::block_on(work).unwrap().unwrap().is_some());
    }
}

#[test]
fn requests_that_cannot_be_sent_land_nowhere() {
    let sim = Sim::new(3);
    let db = simulated(&sim);
    let mut gets: Vec<_> = (0..3u8)
        .map(|i| {
            let db = db.clone();
            Box::pin(async move { db.get(&[i]).await })
        })
        .collect();
    for get in &mut gets {
        begin(&sim, get);
    }
    // The owner ends with the request in its mailbox, or on its way.
    db.close().unwrap();
    for get in gets {
        match sim.block_on(get) {
            Ok(value) => assert!(value.is_some()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
        }
    }
    drop(db);
    sim.kill();
}

#[test]
fn threads_that_miss_a_block_at_once_share_its_read() {
    for io in [IoBackend::Ring, IoBackend::Blocking] {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), Options::default().io(io).shards(1).owners(1)).unwrap();
        for i in 0..200u8 {
            db.put(&[i], &[i; 3000]).wait().unwrap();
        }
        db.flush().wait().unwrap();
        let before = db.stats();
        let start = Barrier::new(8);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (db, start) = (&db, &start);
                scope.spawn(move || {
                    for i in 0..200u8 {
                        start.wait();
                        // Threads that wait, and futures.
                        let value = if thread % 2 == 0 {
                            db.get(&[i]).wait().unwrap()
                        } else {
                            pollster::block_on(db.get(&[i]).into_future()).unwrap()
                        };
                        assert_eq!(value.unwrap(), [i; 3000]);
                    }
                });
            }
        });
        let after = db.stats();
        assert_eq!(after.device_reads - before.device_reads, after.cache_blocks);
        assert_eq!(after.cache_blocks, 200, "{after}");
    }
}

/// What a key must have: often little, at times more than a block.
fn value(key: u64) -> Vec<u8> {
    let mut rng = Rng(key);
    let len = if rng.one_in(20) { 1 + rng.below(20_000) } else { rng.below(300) };
    rng.bytes(len as usize)
}

#[test]
fn whatever_fits_the_answers_are_right() {
    const KEYS: u64 = 3000;
    for (io, cache_bytes) in
        [(IoBackend::Ring, 40 << 10), (IoBackend::Blocking, 300 << 10), (IoBackend::Ring, 10 << 10)]
    {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::default().io(io).shards(4).owners(2).memtable_bytes(256 << 10);
        let db = Db::open(dir.path(), options.cache_bytes(cache_bytes)).unwrap();
        let put = |key: u64| {
            db.put(&key.to_be_bytes(), &value(key))
                .durability(ourodb::Durability::ProcessSafe)
                .wait()
                .unwrap();
        };
        (0..KEYS).step_by(2).for_each(put);
        db.flush().wait().unwrap();
        let present = |key: u64| key.is_multiple_of(2).then(|| value(key));
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (db, put) = (&db, &put);
                scope.spawn(move || {
                    let mut rng = Rng(thread);
                    for round in 0..400 {
                        // The smaller of two: some keys are asked for more often.
                        let key = rng.below(KEYS).min(rng.below(KEYS));
                        let bytes = key.to_be_bytes();
                        match rng.below(5) {
                            0 => {
                                let keys: Vec<_> = (key..key + 20).map(u64::to_be_bytes).collect();
                                let values = db.multi_get(&keys).wait().unwrap();
                                for (key, found) in (key..).zip(values) {
                                    let expected = present(key).filter(|_| key < KEYS);
                                    assert_eq!(found.as_deref(), expected.as_deref());
                                }
                            }
                            1 => {
                                let rows = db.scan(&bytes[..]..).iter().take(10);
                                let keys = (key..KEYS).filter(|key| key.is_multiple_of(2));
                                for (row, expected) in rows.zip(keys) {
                                    let (key, found) = row.unwrap();
                                    assert_eq!(key[..], expected.to_be_bytes());
                                    assert_eq!(found[..], value(expected));
                                }
                            }
                            2 => {
                                let get = db.get(&bytes).into_future();
                                let found = pollster::block_on(get).unwrap();
                                assert_eq!(found.as_deref(), present(key).as_deref());
                            }
                            _ => {
                                let found = db.get(&bytes).wait().unwrap();
                                assert_eq!(found.as_deref(), present(key).as_deref());
                            }
                        }
                        if round % 50 == 0 {
                            // The same value again, in a new table.
                            put(key / 2 * 2);
                            db.flush().wait().unwrap();
                        }
                    }
                });
            }
        });
        let stats = db.stats();
        assert!(stats.cache_evicted > 100 && stats.cache_hits > 0, "{stats}");
        assert!(stats.cache_bytes <= stats.cache_capacity_bytes, "{stats}");
    }
}

/// A future that its task drops with the runtime leaves its read to others.
#[test]
fn a_read_that_nobody_waits_for_still_fills_the_cache() {
    let sim = Sim::new(4);
    let db = simulated(&sim);
    let before = db.stats();
    let mut get = Box::pin(db.get(&[1]).into_future());
    begin(&sim, &mut get);
    drop(get);
    sim.run_for(10 * MS);
    let mut cached = pin!(db.get(&[5]).into_future());
    let polled = cached.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_ready());
    let after = db.stats();
    assert_eq!(after.device_reads - before.device_reads, 1);
    assert_eq!((after.cache_blocks, after.requests_outstanding), (1, 0));
    db.close().unwrap();
}

/// Each shard has its part of the rows, elsewhere on the device.
#[test]
fn a_scan_begins_in_all_shards_at_once() {
    const SHARDS: usize = 4;
    let sim = Sim::new(3);
    let db = Db::open("/db", tiny(&sim).shards(SHARDS).owners(2)).unwrap();
    for i in 0..100u8 {
        db.put(&[i], &[i; 100]).wait().unwrap();
    }
    db.flush().wait().unwrap();
    sim.run_for(MS);
    sim.set_faults(ourodb::sim::Faults::default().delay_ns(10 * MS..=10 * MS));
    let took = |rows: &mut dyn Iterator<Item = u8>| {
        let began = sim.now_ns();
        assert!(rows.eq(0..100));
        sim.now_ns() - began
    };
    let before = db.stats().device_reads;
    let cold = took(&mut db.scan(..).iter().map(|row| row.unwrap().0[0]));
    let reads = db.stats().device_reads - before;
    assert!(reads >= SHARDS as u64, "{reads}");
    // What remains follows, one read after the other, as rows are asked for.
    let in_turn = reads * 10 * MS;
    assert!(cold <= in_turn - (SHARDS as u64 - 1) * 9 * MS, "{cold} ns for {reads} reads");
    sim.set_faults(ourodb::sim::Faults::default());
    drop(db);
    sim.kill();
}

/// Who says how many rows are wanted has them read at once.
#[test]
fn a_scan_with_a_limit_reads_no_more_often_than_it_must() {
    let sim = Sim::new(4);
    let reads = |limit: Option<usize>| {
        let options = tiny(&sim).shards(1).owners(1).memtable_bytes(256 << 10);
        let db = Db::open("/db", options).unwrap();
        if db.get(&[0]).wait().unwrap().is_none() {
            for i in 0..60u8 {
                db.put(&[i], &[i; 3000]).wait().unwrap();
            }
            db.flush().wait().unwrap();
            sim.run_for(MS);
        }
        let before = db.stats().device_reads;
        let rows = db.scan([10]..).limit(limit.unwrap_or(usize::MAX)).iter().take(4);
        assert!(rows.map(|row| row.unwrap().0[0]).eq(10..14));
        let reads = db.stats().device_reads - before;
        db.close().unwrap();
        reads
    };
    // One block each: one, two, and the last with three behind it.
    assert_eq!(reads(None), 3);
    assert_eq!(reads(Some(4)), 1);
    // The others would be more than there is cached of short scans.
    assert_eq!(reads(Some(1000)), 1);
}

/// A scan that begins while the database is closed fails, whichever way it goes.
#[test]
fn a_scan_that_begins_while_the_database_is_closed_fails() {
    use futures_core::Stream;
    for is_reverse in [true, false] {
        let sim = Sim::new(5);
        let db = Db::open("/db", tiny(&sim).shards(1).owners(1).memtable_bytes(256 << 10)).unwrap();
        for i in 0..30u8 {
            db.put(&[i], &[i; 3000]).wait().unwrap();
        }
        db.flush().wait().unwrap();
        if !is_reverse {
            // Its first block has no row.
            (0..3u8).for_each(|i| db.delete(&[i]).wait().unwrap());
        }
        sim.run_for(MS);
        let scan = db.scan(..);
        let scan = if is_reverse { scan.reverse() } else { scan };
        let mut rows = Box::pin(scan.stream());
        sim.block_on(poll_fn(|cx| {
            assert!(rows.as_mut().poll_next(cx).is_pending());
            Poll::Ready(())
        }));
        sim.run_for(10 * MS);
        db.close().unwrap();
        let row = sim.block_on(poll_fn(|cx| rows.as_mut().poll_next(cx)));
        let error = row.expect("an error").expect_err("it was closed");
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}

#[test]
fn limits_may_be_of_any_size() {
    let sim = Sim::new(6);
    let db = Db::open("/db", tiny(&sim).shards(1).owners(1).memtable_bytes(256 << 10)).unwrap();
    for i in 0..16u8 {
        db.put(&[i], &[i; 1000]).wait().unwrap();
        db.flush().wait().unwrap();
        sim.run_for(MS);
        for limit in [usize::MAX - 1, usize::MAX / 2, usize::MAX / 3, i64::MAX as usize] {
            assert_eq!(db.scan(..).limit(limit).iter().count(), usize::from(i) + 1);
        }
    }
    drop(db);
    sim.kill();
}
