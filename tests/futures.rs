//! Operations as futures, under a runtime of threads, on each way of I/O.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod common;

use std::future::{IntoFuture, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use common::{Model, Rng, assert_same};
use futures_core::Stream;
use ourodb::{Batch, Db, Durability, ErrorKind, IoBackend, Options};

fn backends() -> [IoBackend; 2] {
    [IoBackend::Ring, IoBackend::Blocking]
}

fn options(io: IoBackend) -> Options {
    Options::default().io(io).shards(4).owners(2).memtable_bytes(64 << 10)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

async fn collect(db: &Db) -> Model {
    let mut rows = pin!(db.scan(..).stream());
    let mut model = Model::new();
    while let Some(row) = poll_fn(|cx| rows.as_mut().poll_next(cx)).await {
        let (key, value) = row.unwrap();
        model.insert(key.into_vec(), value.into_vec());
    }
    model
}

#[test]
fn many_tasks_and_threads_at_once() {
    const MODES: [Durability; 2] = [Durability::Durable, Durability::ProcessSafe];
    for io in backends() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), options(io)).unwrap();
        let runtime = runtime();
        let tasks: Vec<_> = (0..32u8)
            .map(|task| {
                let db = db.clone();
                runtime.spawn(async move {
                    let mut rng = Rng(task.into());
                    let mut last = Model::new();
                    for i in 0..60u8 {
                        let mode = MODES[usize::from(rng.one_in(3))];
                        let (key, value) = (vec![task, i % 10], rng.bytes(700));
                        if rng.one_in(5) {
                            let mut batch = Batch::new();
                            batch.delete(&key).put(&key, &value);
                            db.write(batch).durability(mode).await.unwrap();
                        } else {
                            db.put(&key, &value).durability(mode).await.unwrap();
                        }
                        assert_eq!(db.get(&key).await.unwrap().as_deref(), Some(&value[..]));
                        last.insert(key, value);
                        if i % 20 == 19 {
                            let keys: Vec<_> = (0..12).map(|i| [task, i]).collect();
                            let values = db.multi_get(&keys).await.unwrap();
                            for (key, value) in keys.iter().zip(values) {
                                assert_eq!(value.as_deref(), last.get(&key[..]).map(|v| &v[..]));
                            }
                        }
                    }
                    last
                })
            })
            .collect();
        // Threads that wait, beside them.
        std::thread::scope(|scope| {
            for thread in 100..104u8 {
                let db = &db;
                scope.spawn(move || {
                    for i in 0..60u8 {
                        db.put(&[thread, i], &[i; 500]).wait().unwrap();
                        assert!(db.get(&[thread, i]).wait().unwrap().is_some());
                    }
                });
            }
        });
        let mut expected = Model::new();
        for thread in 100..104u8 {
            expected.extend((0..60u8).map(|i| (vec![thread, i], vec![i; 500])));
        }
        runtime.block_on(async {
            for task in tasks {
                expected.append(&mut task.await.unwrap());
            }
            db.flush().await.unwrap();
            assert!(collect(&db).await == expected);
        });
        assert_same(&db, &expected);
        assert_eq!(db.stats().requests_outstanding, 0);
        db.close().unwrap();
        drop(runtime);
        let db = Db::open(dir.path(), options(IoBackend::Ring)).unwrap();
        assert_same(&db, &expected);
    }
}

#[test]
fn a_runtime_that_is_shut_down_leaves_a_sound_database() {
    for io in backends() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), options(io)).unwrap();
        for round in 0..5u8 {
            let runtime = runtime();
            for task in 0..16u8 {
                let db = db.clone();
                runtime.spawn(async move {
                    for i in 0.. {
                        db.put(&[task], &u64::to_le_bytes(i)).await.unwrap();
                        db.get(&[round]).await.unwrap();
                    }
                });
            }
            while db.stats().puts < 200 * (u64::from(round) + 1) {
                std::thread::yield_now();
            }
            // Every task is dropped wherever it happens to be.
            runtime.shutdown_background();
            db.put(b"after", &[round]).wait().unwrap();
            assert_eq!(db.get(b"after").wait().unwrap().as_deref(), Some(&[round][..]));
        }
        db.close().unwrap();
    }
}

#[test]
fn the_last_handle_may_go_within_a_runtime() {
    for io in backends() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = runtime();
        for i in 0..4u8 {
            // The opening waits for the closing that goes on in the background.
            let db = Db::open(dir.path(), options(io.clone())).unwrap();
            if i > 0 {
                assert_eq!(db.get(b"n").wait().unwrap().as_deref(), Some(&[i - 1][..]));
            }
            let task = runtime.spawn(async move {
                db.put(b"n", &[i]).await.unwrap();
                drop(db);
            });
            runtime.block_on(task).unwrap();
        }
        // And on an owner.
        let db = Db::open(dir.path(), options(io)).unwrap();
        let other = db.clone();
        let work = db.on_shard(b"n", |_| async move { drop(other) });
        drop(db);
        pollster::block_on(work).unwrap();
        let db = Db::open(dir.path(), Options::default()).unwrap();
        assert!(db.get(b"n").wait().unwrap().is_some());
    }
}

#[test]
fn what_an_owner_refuses() {
    for io in backends() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), options(io)).unwrap();
        db.put(b"key", b"value").wait().unwrap();
        let refused = db.on_shard(b"key", |shard| async move {
            let db = shard.db();
            let errors = [
                db.put(b"k", b"v").wait().unwrap_err(),
                db.get(b"k").wait().map(drop).unwrap_err(),
                db.scan(..).iter().next().unwrap().map(drop).unwrap_err(),
                db.flush().wait().unwrap_err(),
                db.multi_get(&[b"k"]).wait().map(drop).unwrap_err(),
                db.on_shard(b"k", |_| async {}).wait().unwrap_err(),
                db.close().unwrap_err(),
                Db::open("/nowhere", Options::default()).map(drop).unwrap_err(),
            ];
            assert_eq!(db.scan(..).iter().count(), 1, "an error ends a scan");
            // The same by awaiting is fine.
            db.put(b"k", b"v").await.unwrap();
            assert!(db.get(b"k").await.unwrap().is_some());
            errors
        });
        for error in refused.wait().unwrap() {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert!(error.to_string().contains(".await"), "{error}");
        }
    }
}

#[test]
fn a_panic_beside_the_data_ends_only_the_work() {
    for io in backends() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), options(io)).unwrap();
        type Work = fn(ourodb::Shard) -> Pin<Box<dyn Future<Output = ()>>>;
        let works: [Work; 3] = [
            |_| panic!("before it began"),
            |_| Box::pin(async { panic!("at once") }),
            |shard| {
                Box::pin(async move {
                    shard.put(b"key", b"value").await.unwrap();
                    panic!("after a while")
                })
            },
        ];
        for (work, says) in works.into_iter().zip(["before it began", "at once", "after a while"]) {
            let error = db.on_shard(b"key", work).wait().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(says), "{error}");
        }
        assert!(db.get(b"key").wait().unwrap().is_some());
        db.put(b"key", b"again").wait().unwrap();
        db.close().unwrap();
    }
}

#[test]
fn handles_are_useless_after_the_close() {
    for io in backends() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), options(io)).unwrap();
        db.put(b"key", b"value").wait().unwrap();
        let mut stream = Box::pin(db.scan(..).stream());
        // Work that never ends by itself.
        let endless = db.on_shard(b"key", |_| std::future::pending::<()>());
        let mut endless = Box::pin(endless);
        let begun = poll_fn(|cx| Poll::Ready(endless.as_mut().poll(cx).is_pending()));
        assert!(pollster::block_on(begun));
        db.close().unwrap();
        let errors = pollster::block_on(async {
            [
                db.put(b"k", b"v").await.unwrap_err(),
                db.delete(b"k").durability(Durability::ProcessSafe).await.unwrap_err(),
                db.get(b"k").await.map(drop).unwrap_err(),
                db.get_with(b"k", |_| ()).await.map(drop).unwrap_err(),
                db.multi_get(&[b"k"]).await.map(drop).unwrap_err(),
                db.write(Batch::new()).await.unwrap_err(),
                db.flush().await.unwrap_err(),
                db.on_shard(b"k", |_| async {}).await.unwrap_err(),
                poll_fn(|cx| stream.as_mut().poll_next(cx)).await.unwrap().map(drop).unwrap_err(),
                endless.await.unwrap_err(),
            ]
        });
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        }
        assert!(pollster::block_on(poll_fn(|cx| stream.as_mut().poll_next(cx))).is_none());
        db.close().unwrap();
    }
}

/// Work on an owner that waits for its requests is not in their way.
#[test]
fn work_on_an_owner_leaves_room_for_requests() {
    for io in backends() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(io).shards(1).owners(1).requests_max(1);
        let db = Db::open(dir.path(), options).unwrap();
        db.put(b"key", b"value").wait().unwrap();
        db.flush().wait().unwrap();
        let work = || db.on_shard(b"key", |shard| async move { shard.db().get(b"key").await });
        let both = [work(), work()].map(Box::pin);
        for one in both {
            assert!(pollster::block_on(one).unwrap().unwrap().is_some());
        }
    }
}

/// With a mailbox of one slot, everybody waits for it in turn.
#[test]
fn a_full_mailbox_holds_back_and_loses_nothing() {
    for io in backends() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(io).shards(1).owners(1).requests_max(1);
        let db = Db::open(dir.path(), options).unwrap();
        for i in 0..200u8 {
            db.put(&[i], &[i; 2000]).durability(Durability::ProcessSafe).wait().unwrap();
        }
        db.flush().wait().unwrap();
        let runtime = runtime();
        let tasks: Vec<_> = (0..16u8)
            .map(|task| {
                let db = db.clone();
                runtime.spawn(async move {
                    for i in (task..200).step_by(16) {
                        if i % 7 == 0 {
                            // Gives up before its turn comes.
                            let key = [i];
                            let mut get = Box::pin(db.get(&key).into_future());
                            poll_fn(|cx| {
                                let _ = get.as_mut().poll(cx);
                                Poll::Ready(())
                            })
                            .await;
                        }
                        let value = db.get(&[i]).await.unwrap().unwrap();
                        assert_eq!(value, [i; 2000]);
                    }
                })
            })
            .collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
        while db.stats().requests_outstanding > 0 {
            std::thread::yield_now();
        }
        drop(runtime);
    }
}

#[test]
fn counts_of_futures() {
    for io in backends() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(io).shards(1).owners(1).cache_bytes(0);
        let db = Arc::new(Db::open(dir.path(), options).unwrap());
        for i in 0..100u8 {
            db.put(&[i], &[i; 400]).wait().unwrap();
        }
        db.flush().wait().unwrap();
        db.put(b"memory", &[7; 400]).wait().unwrap();
        // The first get of a thread makes its buffers.
        db.get(b"memory").wait().unwrap();
        let before = db.stats();
        pollster::block_on(async {
            // A hit in memory asks nobody, and allocates its value only.
            let get = allocation_counter::measure(|| {
                let mut get = pin!(db.get(b"memory").into_future());
                let mut cx = Context::from_waker(Waker::noop());
                let Poll::Ready(value) = get.as_mut().poll(&mut cx) else {
                    panic!("a hit in memory waits for nothing");
                };
                assert_eq!(value.unwrap().unwrap(), [7; 400]);
            });
            assert_eq!((get.count_total, get.bytes_total), (1, 400));
            let hits = db.stats();
            assert_eq!(hits.owner_messages, before.owner_messages);
            assert_eq!(hits.device_reads, before.device_reads);
            // One in a table is one message and one read.
            for i in 0..100u8 {
                assert_eq!(db.get(&[i]).await.unwrap().unwrap(), [i; 400]);
            }
        });
        let after = db.stats();
        assert_eq!(after.owner_messages - before.owner_messages, 100);
        assert_eq!(after.device_reads - before.device_reads, 100);
        assert!(after.owner_wakeups - before.owner_wakeups <= 101, "one for each at most");
        // A thread that waits reads for itself.
        let before = db.stats();
        for i in 0..100u8 {
            assert!(db.get(&[i]).wait().unwrap().is_some());
        }
        let after = db.stats();
        assert_eq!(after.owner_messages, before.owner_messages);
        assert_eq!(after.device_reads - before.device_reads, 100);
    }
}

#[test]
fn counts_of_futures_with_a_cache() {
    for io in backends() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), options(io).shards(1).owners(1)).unwrap();
        for i in 0..100u8 {
            db.put(&[i], &[i; 400]).wait().unwrap();
        }
        db.flush().wait().unwrap();
        let before = db.stats();
        let keys: Vec<_> = (0..100u8).map(|i| [i]).collect();
        let values = pollster::block_on(db.multi_get(&keys).into_future()).unwrap();
        assert!(values.iter().zip(0..).all(|(value, i)| value.as_deref() == Some(&[i; 400])));
        // Those of one block share a read, which one of them asks for.
        let after = db.stats();
        let blocks = after.cache_blocks;
        assert!((10..15).contains(&blocks), "{after}");
        assert_eq!(after.device_reads - before.device_reads, blocks);
        assert_eq!(after.owner_messages - before.owner_messages, blocks);
        // From now on nobody is asked, and nothing but the value allocated. The
        // first get of a thread makes its buffers.
        db.get(&[0]).wait().unwrap();
        for i in 0..100u8 {
            let key = [i];
            let get = allocation_counter::measure(|| {
                let mut get = pin!(db.get(&key).into_future());
                let Poll::Ready(value) = get.as_mut().poll(&mut Context::from_waker(Waker::noop()))
                else {
                    panic!("a cached block waits for nothing");
                };
                assert_eq!(value.unwrap().unwrap(), [i; 400]);
            });
            assert_eq!((get.count_total, get.bytes_total), (1, 400));
            assert_eq!(db.get(&key).wait().unwrap().unwrap(), [i; 400]);
        }
        let last = db.stats();
        assert_eq!(last.owner_messages, after.owner_messages);
        assert_eq!(last.device_reads, after.device_reads);
        assert_eq!(last.cache_hits - after.cache_hits, 201);
    }
}

/// A task may keep futures that it does not poll while it awaits another one:
/// more of them than there may be requests.
#[test]
fn futures_that_are_not_polled_hold_up_nobody() {
    for io in backends() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), options(io).owners(1).requests_max(4)).unwrap();
        db.put(b"key", b"value").wait().unwrap();
        db.flush().wait().unwrap();
        pollster::block_on(async {
            let (go, wait) = std::sync::mpsc::channel();
            // Keeps the owner from answering before all have asked.
            let mut busy = pin!(db.on_shard(b"key", move |_| async move { wait.recv() }));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(busy.as_mut().poll(&mut cx).is_pending());
            let mut kept: Vec<_> = (0..20).map(|_| db.get(b"key").into_future()).collect();
            for get in &mut kept {
                assert!(Pin::new(get).poll(&mut cx).is_pending());
            }
            let mut last = pin!(db.get(b"key").into_future());
            assert!(last.as_mut().poll(&mut cx).is_pending());
            go.send(()).unwrap();
            assert!(last.await.unwrap().is_some());
            for get in kept {
                assert!(get.await.unwrap().is_some());
            }
            busy.await.unwrap().unwrap();
        });
    }
}
