//! A future may be dropped at any moment: it leaks nothing, hangs nobody and
//! corrupts nothing. On the simulator, at every poll.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod common;

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use common::{Model, assert_same, tiny};
use futures_core::Stream;
use ourodb::sim::Sim;
use ourodb::{Batch, Db, Durability, Result};

const MS: u64 = 1_000_000;

/// Polls the future `polls` times and drops it then. What it came to, if it
/// was over before.
fn polled<F: Future>(sim: &Sim, polls: usize, future: F) -> Option<F::Output> {
    let mut left = polls;
    let mut future = Box::pin(future);
    let output = sim.block_on(poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    }));
    drop(future);
    output
}

/// Does `attempt` with futures that are dropped after 0, 1, 2... polls, until
/// one of them lives to its end. After each: nothing is outstanding, everybody
/// else goes on, and the database is sound, also after a crash.
fn at_every_poll(
    durability: Durability,
    attempt: impl Fn(&Sim, &Db, usize) -> Option<Result<()>>,
    after: impl Fn(&mut Model),
) {
    for polls in 0.. {
        let sim = Sim::new(polls as u64);
        let open = || {
            let options = tiny(&sim).shards(2).owners(2).durability(durability).requests_max(3);
            Db::open("/db", options).unwrap()
        };
        let db = open();
        let mut model = Model::new();
        for i in 0..40u8 {
            let value = vec![i; 300];
            db.put(&[i % 32], &value).wait().unwrap();
            model.insert(vec![i % 32], value);
            if i == 30 {
                db.flush().wait().unwrap();
            }
        }
        sim.run_for(MS);
        let outcome = attempt(&sim, &db, polls);
        if let Some(outcome) = &outcome {
            outcome.as_ref().unwrap();
        }
        // Others go on at once.
        db.put(b"later", b"x").wait().unwrap();
        model.insert(b"later".to_vec(), b"x".to_vec());
        assert!(db.get(b"later").wait().unwrap().is_some());
        sim.run_for(10 * MS);
        assert_eq!(db.stats().requests_outstanding, 0, "after {polls} polls");
        // It took effect as a whole, or not at all.
        let mut with = model.clone();
        after(&mut with);
        let rows: Model = db
            .scan(..)
            .iter()
            .map(|r| r.map(|(k, v)| (k.into_vec(), v.into_vec())).unwrap())
            .collect();
        assert!(rows == model || rows == with, "after {polls} polls: neither before nor after");
        if outcome.is_some() {
            assert!(rows == with, "what ended is there");
        }
        match polls % 3 {
            0 => sim.kill(),
            1 => {
                db.flush().wait().unwrap();
                db.close().unwrap();
            }
            _ => {
                // Everything durable, on every stream.
                db.flush().wait().unwrap();
                sim.power_cut();
            }
        }
        drop(db);
        let db = open();
        assert_same(&db, &rows);
        drop(db);
        sim.kill();
        if outcome.is_some() {
            assert!(polls > 0, "a future that was never polled does nothing");
            return;
        }
    }
}

const MODES: [Durability; 2] = [Durability::Durable, Durability::ProcessSafe];

#[test]
fn a_put() {
    for mode in MODES {
        at_every_poll(
            mode,
            |sim, db, polls| polled(sim, polls, db.put(b"key", b"value").into_future()),
            |model| drop(model.insert(b"key".to_vec(), b"value".to_vec())),
        );
    }
}

#[test]
fn a_put_of_a_long_value() {
    for mode in MODES {
        at_every_poll(
            mode,
            |sim, db, polls| polled(sim, polls, db.put(b"key", &[9; 300_000]).into_future()),
            |model| drop(model.insert(b"key".to_vec(), vec![9; 300_000])),
        );
    }
}

#[test]
fn a_batch_with_long_values() {
    at_every_poll(
        Durability::Durable,
        |sim, db, polls| {
            let mut batch = Batch::new();
            batch.put(b"key", &[9; 70_000]).put(b"key", b"short").put(b"key", &[8; 1_100_000]);
            polled(sim, polls, db.write(batch).into_future())
        },
        |model| drop(model.insert(b"key".to_vec(), vec![8; 1_100_000])),
    );
}

#[test]
fn a_lookup_of_a_long_value() {
    at_every_poll(
        Durability::ProcessSafe,
        |sim, db, polls| {
            let long = vec![7; 600_000];
            db.put(b"key", &long).wait().unwrap();
            let lookup = async {
                assert_eq!(db.get(b"key").await?.as_deref(), Some(&long[..]));
                Ok(())
            };
            let outcome = polled(sim, polls, lookup);
            db.delete(b"key").wait().unwrap();
            outcome
        },
        |_| {},
    );
}

#[test]
fn a_delete_behind_a_durable_write() {
    at_every_poll(
        Durability::ProcessSafe,
        |sim, db, polls| {
            let first = db.put(b"first", b"x").durability(Durability::Durable).into_future();
            let mut first = Box::pin(first);
            // It is on its way, and nobody polls it any more.
            sim.block_on(poll_fn(|cx| {
                assert!(first.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            }));
            let outcome = polled(sim, polls, db.delete(&[3]).into_future());
            drop(first);
            sim.run_for(10 * MS);
            assert!(db.get(b"first").wait().unwrap().is_some(), "it had begun");
            db.delete(b"first").wait().unwrap();
            outcome
        },
        |model| drop(model.remove(&vec![3])),
    );
}

#[test]
fn a_range_delete() {
    for mode in MODES {
        // Of one key: all others may be of another stream.
        at_every_poll(
            mode,
            |sim, db, polls| polled(sim, polls, db.delete_range([3]..=[3]).into_future()),
            |model| drop(model.remove(&vec![3])),
        );
    }
}

#[test]
fn a_batch() {
    for mode in MODES {
        // One key: which others are of its stream, the seed draws.
        at_every_poll(
            mode,
            |sim, db, polls| {
                let mut batch = Batch::new();
                for i in 0..30u8 {
                    batch.put(b"key", &[i; 200]);
                }
                polled(sim, polls, db.write(batch).into_future())
            },
            |model| drop(model.insert(b"key".to_vec(), vec![29; 200])),
        );
    }
}

#[test]
fn lookups() {
    at_every_poll(
        Durability::Durable,
        |sim, db, polls| {
            let lookups = async {
                // From tables: the memtables have newer keys only.
                assert_eq!(db.get(&[20]).await?.as_deref(), Some(&[20; 300][..]));
                assert_eq!(db.get_with(&[21], <[u8]>::len).await?, Some(300));
                let keys: Vec<[u8; 1]> = (8..40).map(|i| [i]).collect();
                let values = db.multi_get(&keys).await?;
                assert_eq!(values.iter().filter(|value| value.is_some()).count(), 24);
                Ok(())
            };
            polled(sim, polls, lookups)
        },
        |_| {},
    );
}

#[test]
fn a_scan() {
    at_every_poll(
        Durability::Durable,
        |sim, db, polls| {
            let scan = async {
                let mut rows = pin!(db.scan(..).stream());
                let mut count = 0;
                while let Some(row) = poll_fn(|cx| rows.as_mut().poll_next(cx)).await {
                    let (key, value) = row?;
                    assert_eq!((key.len(), value.len()), (1, 300));
                    count += 1;
                }
                assert_eq!(count, 32);
                Ok(())
            };
            polled(sim, polls, scan)
        },
        |_| {},
    );
}

#[test]
fn a_flush() {
    at_every_poll(
        Durability::ProcessSafe,
        |sim, db, polls| polled(sim, polls, db.flush().into_future()),
        |_| {},
    );
}

/// What was begun on an owner goes on to its end.
#[test]
fn work_on_an_owner() {
    at_every_poll(
        Durability::Durable,
        |sim, db, polls| {
            let work = db.on_shard(b"key", |shard| async move {
                assert!(shard.get(&[20]).await?.is_some());
                shard.put(b"key", b"value").await
            });
            polled(sim, polls, work).map(|outcome| outcome.and_then(|inner| inner))
        },
        |model| drop(model.insert(b"key".to_vec(), b"value".to_vec())),
    );
}

/// A future that is polled again and again without having been woken, as some
/// runtimes do, leaves one waker behind, not many.
#[test]
fn polling_often_is_harmless() {
    let sim = Sim::new(1);
    let db = Db::open("/db", tiny(&sim).shards(1).owners(1)).unwrap();
    let mut put: Pin<Box<_>> = Box::pin(db.put(b"key", b"value").into_future());
    let counter = std::sync::Arc::new(Count::default());
    let waker = std::task::Waker::from(std::sync::Arc::clone(&counter));
    let mut cx = std::task::Context::from_waker(&waker);
    for _ in 0..1000 {
        assert!(put.as_mut().poll(&mut cx).is_pending());
    }
    assert!(std::sync::Arc::strong_count(&counter) < 6);
    sim.run_for(10 * MS);
    assert!(counter.0.load(std::sync::atomic::Ordering::SeqCst) < 4);
    assert!(put.as_mut().poll(&mut cx).is_ready());
    drop(put);
    drop(db);
    sim.run_for(1000 * MS);
    sim.kill();
}

#[derive(Default)]
struct Count(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Count {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

/// A waker may be the last hand on a task, and with it on futures that wait in
/// the same place as the one that lets go of it.
#[test]
fn a_waker_that_holds_other_futures_may_be_exchanged_and_dropped() {
    struct Holds {
        _future: Mutex<Option<Pin<Box<dyn Future<Output = Result<()>> + Send>>>>,
    }
    impl Wake for Holds {
        fn wake(self: Arc<Self>) {}
    }
    let sim = Sim::new(1);
    let db = Db::open("/db", tiny(&sim).shards(1).owners(1)).unwrap();
    sim.run_for(MS);
    let put = |key: &'static [u8]| {
        let db = db.clone();
        Box::pin(async move { db.put(key, b"value").durability(Durability::Durable).await })
    };
    for exchange in [true, false] {
        let (mut outer, mut inner) = (put(b"outer"), put(b"inner"));
        let mut idle = Context::from_waker(Waker::noop());
        assert!(inner.as_mut().poll(&mut idle).is_pending());
        let holds = Waker::from(Arc::new(Holds { _future: Mutex::new(Some(inner)) }));
        assert!(outer.as_mut().poll(&mut Context::from_waker(&holds)).is_pending());
        drop(holds);
        if exchange {
            assert!(outer.as_mut().poll(&mut idle).is_pending());
        }
        drop(outer);
    }
    sim.run_for(10 * MS);
    assert!(db.get(b"inner").wait().unwrap().is_some());
    db.close().unwrap();
}
