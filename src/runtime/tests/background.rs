//! Background work on real threads: an owner and its worker. None of these
//! tests waits for a time: each step waits until the one before has happened.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use super::owner::{KINDS, Kind, executor};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::limits::UNIT;
use crate::io::{BufferPool, Harden, Io, IoBuf, IoCounters, OpenMode};
use crate::runtime::worker::{EnterIdle, enter_idle_class};
use crate::runtime::{
    Background, BackgroundIo, Budget, Event, Job, RuntimeCounts, block_on, is_owner_thread,
    slice_end, yield_now,
};

/// Who polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Owner,
    Worker,
}

fn place() -> Place {
    if is_owner_thread() { Place::Owner } else { Place::Worker }
}

/// Works until it is polled there.
async fn until_on(wanted: Place) {
    while place() != wanted {
        slice_end().await;
    }
}

/// Runs `main` on an owner with a worker; what its runtime has counted.
fn run<F>(kind: Kind, enter_idle: EnterIdle, main: impl FnOnce(Background) -> F) -> RuntimeCounts
where
    F: Future<Output = ()> + 'static,
{
    let dir = tempfile::tempdir().unwrap();
    run_in(kind, dir.path(), &Arc::default(), enter_idle, main)
}

fn run_in<F>(
    kind: Kind,
    dir: &Path,
    io_counters: &Arc<IoCounters>,
    enter_idle: EnterIdle,
    main: impl FnOnce(Background) -> F,
) -> RuntimeCounts
where
    F: Future<Output = ()> + 'static,
{
    let (mut executor, io) = executor(kind, dir, io_counters, 0);
    let spawner = executor.spawner();
    let background = Background::start_with(&spawner, io, Budget::new(), "ouro-test", enter_idle);
    let main = main(background);
    executor.run(vec![Job::new("main", main)]).unwrap();
    executor.counters().counts()
}

#[test]
fn work_moves_with_the_debt_and_goes_on_where_it_was() {
    for kind in KINDS {
        let counts = run(kind, enter_idle_class, |background| async move {
            let arrived = Arc::new(Event::default());
            let tells = Arc::clone(&arrived);
            let work = background.run("test", |_| async move {
                let mut places = Vec::new();
                for wanted in [Place::Worker, Place::Owner, Place::Worker, Place::Owner] {
                    until_on(wanted).await;
                    places.push((places.len(), wanted));
                    tells.set();
                }
                Ok(places)
            });
            for is_behind in [true, false, true] {
                arrived.wait().await;
                background.set_debt(is_behind);
            }
            let places = work.await.unwrap();
            let [owner, worker] = [Place::Owner, Place::Worker];
            assert_eq!(places, [(0, worker), (1, owner), (2, worker), (3, owner)]);
        });
        assert!(counts.worker_slices > 0 && counts.owner_slices > 0, "{kind:?} {counts:?}");
        assert!(counts.moves >= 4, "{kind:?} {counts:?}");
    }
}

#[test]
fn the_owner_does_other_things_between_slices() {
    run(Kind::Parking, enter_idle_class, |background| async move {
        background.set_debt(true);
        let (stops, polls) = (Arc::new(AtomicU32::new(0)), Rc::new(Cell::new(0)));
        let stopped = Arc::clone(&stops);
        let works = |background: &Background, stopped: Arc<AtomicU32>| {
            background.run("test", |_| async move {
                while stopped.load(Ordering::SeqCst) == 0 {
                    assert_eq!(place(), Place::Owner);
                    slice_end().await;
                }
                Ok(())
            })
        };
        let one = works(&background, Arc::clone(&stopped));
        let other = works(&background, stopped);
        for _ in 0..100 {
            yield_now().await;
            polls.set(polls.get() + 1);
        }
        stops.store(1, Ordering::SeqCst);
        one.await.unwrap();
        other.await.unwrap();
    });
}

/// Writes, reads and asks.
async fn does_io(io: BackgroundIo, path: std::path::PathBuf, pool: Arc<BufferPool>) -> Result<u8> {
    let file = io.open(&path, OpenMode::CreateNew).await?;
    let mut buf = pool.take();
    buf.fill(7);
    let (_, written) = io.write(&file, 0, buf.into(), Harden::Later).await;
    written?;
    io.sync(&file).await?;
    io.sync_dir(path.parent().unwrap()).await?;
    assert_eq!(io.len(&file).await?, 2 * UNIT as u64);
    let (buf, read) = io.read(&file, UNIT as u64, pool.take()).await;
    assert_eq!(read?, UNIT);
    let before_ns = io.now_ns();
    io.sleep(1000).await;
    assert!(io.now_ns() >= before_ns + 1000);
    let missing = io.open(&path.with_extension("none"), OpenMode::Read).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    io.remove(&path).await?;
    Ok(buf[0])
}

#[test]
fn requests_are_done_by_the_owner_wherever_they_come_from() {
    for kind in KINDS {
        for is_behind in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (path, counters) = (dir.path().join("file"), Arc::<IoCounters>::default());
            let counts =
                run_in(kind, dir.path(), &counters, enter_idle_class, |background| async move {
                    background.set_debt(is_behind);
                    let pool = BufferPool::new(2 * UNIT, 1);
                    let kept = Arc::clone(&pool);
                    let work = background.run("test", |io| async move {
                        if !is_behind {
                            until_on(Place::Worker).await;
                        }
                        does_io(io, path, pool).await
                    });
                    assert_eq!(work.await.unwrap(), 7);
                    assert_eq!(kept.take()[0], 7, "the buffer came back");
                });
            let counted = counters.counts();
            assert_eq!((counted.reads, counted.writes, counted.syncs), (1, 1, 2));
            assert_eq!(counts.worker_slices == 0, is_behind, "{kind:?} {counts:?}");
        }
    }
}

/// The owner must not touch what the worker polls just now.
#[test]
fn answers_are_kept_back_while_the_worker_has_the_task() {
    let dir = tempfile::tempdir().unwrap();
    let (path, counters) = (dir.path().join("file"), Arc::<IoCounters>::default());
    let counted = Arc::clone(&counters);
    run_in(Kind::Parking, dir.path(), &counters, enter_idle_class, |background| async move {
        let (asked, seen) = (Arc::new(Event::default()), Arc::new(AtomicU32::new(0)));
        let (asks, sees) = (Arc::clone(&asked), Arc::clone(&seen));
        let work = background.run("test", |io| async move {
            until_on(Place::Worker).await;
            let file = io.open(&path, OpenMode::CreateNew).await?;
            until_on(Place::Worker).await;
            let mut write = pin!(io.write(&file, 0, IoBuf::zeroed(UNIT).into(), Harden::Now));
            let mut polls = 0;
            let (_, written) = poll_fn(|cx| {
                polls += 1;
                if polls > 1 {
                    return write.as_mut().poll(cx);
                }
                assert!(write.as_mut().poll(cx).is_pending());
                asks.set();
                while sees.load(Ordering::SeqCst) == 0 {
                    std::hint::spin_loop();
                }
                assert!(write.as_mut().poll(cx).is_pending(), "it was given away from home");
                Poll::Pending
            })
            .await;
            written?;
            Ok(polls)
        });
        asked.wait().await;
        // On positioned I/O, the task that wrote has ended when this one sees it.
        while counted.counts().writes == 0 {
            yield_now().await;
        }
        seen.store(1, Ordering::SeqCst);
        assert_eq!(work.await.unwrap(), 2);
    });
}

#[test]
fn a_task_that_waits_is_woken_by_any_thread() {
    for is_behind in [false, true] {
        run(Kind::Parking, enter_idle_class, |background| async move {
            background.set_debt(is_behind);
            let (tells, told) = (Arc::new(Event::default()), Arc::new(Event::default()));
            let (waits, answers) = (Arc::clone(&tells), Arc::clone(&told));
            const ROUNDS: u32 = 100;
            let work = background.run("test", |_| async move {
                for _ in 0..ROUNDS {
                    waits.wait().await;
                    answers.set();
                }
                Ok(())
            });
            let thread = std::thread::Builder::new()
                .spawn(move || {
                    for _ in 0..ROUNDS {
                        tells.set();
                        block_on(told.wait());
                    }
                })
                .unwrap();
            work.await.unwrap();
            thread.join().unwrap();
        });
    }
}

#[test]
fn a_task_on_the_worker_wakes_one_that_is_not() {
    run(Kind::Parking, enter_idle_class, |background| async move {
        let [begun, goes, ping] = [(); 3].map(|()| Arc::new(Event::default()));
        let woken = Arc::new(AtomicU32::new(0));
        let (waits, wakes) = (Arc::clone(&ping), Arc::clone(&woken));
        let other = background.run("test", |_| async move {
            waits.wait().await;
            wakes.store(1, Ordering::SeqCst);
            Ok(())
        });
        let (begins, gone) = (Arc::clone(&begun), Arc::clone(&goes));
        let one = background.run("test", |_| async move {
            until_on(Place::Worker).await;
            begins.set();
            while block_on(poll_fn(|cx| Poll::Ready(pin!(gone.wait()).poll(cx)))).is_pending() {
                std::thread::yield_now();
            }
            ping.set();
            // The worker is busy until the owner has polled the other one.
            while woken.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            Ok(())
        });
        begun.wait().await;
        background.set_debt(true);
        goes.set();
        other.await.unwrap();
        one.await.unwrap();
    });
}

#[test]
fn a_panic_is_an_error_for_who_waits() {
    for is_behind in [false, true] {
        run(Kind::Parking, enter_idle_class, |background| async move {
            background.set_debt(is_behind);
            let wanted = if is_behind { Place::Owner } else { Place::Worker };
            let work = background.run("flush", |_| async move {
                until_on(wanted).await;
                if place() == wanted {
                    panic!("out of cheese");
                }
                Ok(())
            });
            let error = work.await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Poisoned);
            let message = error.to_string();
            assert!(message.contains("flush") && message.contains("out of cheese"), "{message}");
            // Worker and owner live on.
            let work = background.run("flush", |_| async move {
                until_on(wanted).await;
                Err::<(), Error>(Error::invalid("its own"))
            });
            assert_eq!(work.await.unwrap_err().kind(), ErrorKind::InvalidArgument);
        });
    }
}

/// Tells on which thread it is dropped.
struct Dropped(Arc<AtomicU32>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(if is_owner_thread() { 1 } else { 2 }, Ordering::SeqCst);
    }
}

#[test]
fn work_that_nobody_waits_for_any_more_is_dropped_on_the_owner() {
    for (is_behind, waits) in [(false, true), (false, false), (true, true), (true, false)] {
        run(Kind::Parking, enter_idle_class, |background| async move {
            background.set_debt(is_behind);
            let wanted = if is_behind { Place::Owner } else { Place::Worker };
            let (begun, dropped) = (Arc::new(Event::default()), Arc::new(AtomicU32::new(0)));
            let (begins, inside) = (Arc::clone(&begun), Dropped(Arc::clone(&dropped)));
            let work = background.run("test", |_| async move {
                until_on(wanted).await;
                begins.set();
                if waits {
                    pending::<()>().await;
                }
                // It owns `inside`, and never ends.
                while inside.0.load(Ordering::SeqCst) == 0 {
                    slice_end().await;
                }
                Ok(())
            });
            begun.wait().await;
            drop(work);
            while dropped.load(Ordering::SeqCst) == 0 {
                yield_now().await;
            }
            assert_eq!(dropped.load(Ordering::SeqCst), 1);
        });
    }
}

#[test]
fn it_is_known_whether_a_worker_lets_go() {
    run(Kind::Parking, enter_idle_class, |background| async move {
        let (stuck, frees) = (Arc::new(Event::default()), Arc::new(AtomicU32::new(0)));
        let (gets_stuck, freed) = (Arc::clone(&stuck), Arc::clone(&frees));
        let work = background.run("test", |_| async move {
            until_on(Place::Worker).await;
            gets_stuck.set();
            // As if it were starved.
            while freed.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            until_on(Place::Owner).await;
            Ok(())
        });
        stuck.wait().await;
        background.set_debt(true);
        // The owner goes on, with other background work too.
        background.run("test", |_| async { Ok(()) }).await.unwrap();
        assert!(work.is_away());
        frees.store(1, Ordering::SeqCst);
        while work.is_away() {
            yield_now().await;
        }
        work.await.unwrap();
    });
}

#[test]
fn what_a_starved_worker_does_not_do_the_owner_does() {
    for kind in KINDS {
        run(kind, enter_idle_class, |background| async move {
            let (stuck, frees) = (Arc::new(Event::default()), Arc::new(AtomicU32::new(0)));
            let (gets_stuck, freed) = (Arc::clone(&stuck), Arc::clone(&frees));
            let starved = background.run("test", |_| async move {
                until_on(Place::Worker).await;
                gets_stuck.set();
                while freed.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                slice_end().await;
                Ok(())
            });
            stuck.wait().await;
            // Nothing is behind: this is left to the worker, which does not come by.
            let work = background.run("test", |_| async move {
                for _ in 0..1000 {
                    assert_eq!(place(), Place::Owner);
                    yield_now().await;
                }
                Ok(())
            });
            work.await.unwrap();
            assert!(starved.is_away());
            frees.store(1, Ordering::SeqCst);
            starved.await.unwrap();
            // It gets work again when it is heard of.
            let work = background.run("test", |_| async move {
                until_on(Place::Worker).await;
                Ok(())
            });
            work.await.unwrap();
        });
    }
}

/// A worker that was starved for long asks for a file when its task was given up, and
/// all that it had begun was removed.
#[test]
fn what_is_asked_for_when_nobody_waits_any_more_is_not_done() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let asked = path.clone();
        run(kind, enter_idle_class, |background| async move {
            let (stuck, frees) = (Arc::new(Event::default()), Arc::new(AtomicU32::new(0)));
            let dropped = Arc::new(AtomicU32::new(0));
            let (gets_stuck, freed) = (Arc::clone(&stuck), Arc::clone(&frees));
            let inside = Dropped(Arc::clone(&dropped));
            let starved = background.run("test", |io| async move {
                until_on(Place::Worker).await;
                gets_stuck.set();
                while freed.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                io.open(&asked, OpenMode::CreateNew).await?;
                drop(inside);
                Ok(())
            });
            stuck.wait().await;
            drop(starved);
            frees.store(1, Ordering::SeqCst);
            while dropped.load(Ordering::SeqCst) == 0 {
                yield_now().await;
            }
        });
        assert!(!path.exists(), "{kind:?}");
    }
}

thread_local! {
    static ON_WORKER: RefCell<Option<Dropped>> = const { RefCell::new(None) };
}

#[test]
fn the_end_of_the_owner_drops_tasks_and_ends_the_worker() {
    for kind in KINDS {
        let (dir, held) = (tempfile::tempdir().unwrap(), Arc::new(()));
        let (mut executor, io) = executor(kind, dir.path(), &Arc::default(), 0);
        let budget = Budget::new();
        let background = Background::start(&executor.spawner(), io, budget, "ouro-test");
        let begun = Arc::new(Event::default());
        let worker_ended = Arc::new(AtomicU32::new(0));
        let works = {
            let (held, begun) = (Arc::clone(&held), Arc::clone(&begun));
            let with_thread = Dropped(Arc::clone(&worker_ended));
            background.run("works", |_| async move {
                until_on(Place::Worker).await;
                ON_WORKER.set(Some(with_thread));
                begun.set();
                // It owns `held`, and never ends.
                while Arc::strong_count(&held) > 0 {
                    slice_end().await;
                }
                Ok(())
            })
        };
        let inside = Arc::clone(&held);
        let waits = background.run("waits", |_| async move {
            pending::<()>().await;
            drop(inside);
            Ok(())
        });
        let inside = Arc::clone(&held);
        let asks = background.run("asks", |io| async move {
            io.sleep(3_600_000_000_000).await;
            drop(inside);
            Ok(())
        });
        let main = async move { begun.wait().await };
        executor.run(vec![Job::new("main", main)]).unwrap();
        assert_eq!(Arc::strong_count(&held), 1, "{kind:?}");
        assert_eq!(worker_ended.load(Ordering::SeqCst), 2, "{kind:?}: the thread is gone");
        for work in [
            Box::pin(works) as Pin<Box<dyn Future<Output = Result<()>>>>,
            Box::pin(waits),
            Box::pin(asks),
        ] {
            assert_eq!(block_on(work).unwrap_err().kind(), ErrorKind::Closed);
        }
        let inside = Arc::clone(&held);
        let late = background.run("late", |_| async move {
            drop(inside);
            Ok(())
        });
        assert_eq!(block_on(late).unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}

#[test]
fn without_its_class_there_is_no_worker_and_the_owner_does_it() {
    let refused: EnterIdle = || Err(io::Error::from_raw_os_error(libc::EPERM));
    for is_behind in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (path, counters) = (dir.path().join("file"), Arc::<IoCounters>::default());
        let counts = run_in(Kind::Ring, dir.path(), &counters, refused, |background| async move {
            background.set_debt(is_behind);
            let work = background.run("test", |io| async move {
                assert_eq!(place(), Place::Owner);
                does_io(io, path, BufferPool::new(2 * UNIT, 1)).await
            });
            assert_eq!(work.await.unwrap(), 7);
        });
        assert_eq!((counts.worker_slices, counts.moves), (0, 0));
        assert!(counts.owner_slices > 0);
    }
}

#[cfg(feature = "sim")]
mod simulated {
    use super::*;
    use crate::io::sim::Sim;
    use crate::io::{File, WriteBuf};

    #[test]
    fn the_machine_polls_it_like_other_tasks() {
        let run = || {
            let sim = Sim::new(3);
            let background = Background::simulated(&sim, Budget::new());
            let pool = BufferPool::new(2 * UNIT, 1);
            let work = background.run("test", |io| does_io(io, "/file".into(), pool));
            let panics = background.run("test", |_| async {
                slice_end().await;
                Err::<(), Error>(if place() == Place::Worker {
                    panic!("here")
                } else {
                    Error::closed()
                })
            });
            assert_eq!(sim.block_on(work).unwrap(), 7);
            assert_eq!(sim.block_on(panics).unwrap_err().kind(), ErrorKind::Poisoned);
            let waits = background.run("test", |_| async {
                pending::<()>().await;
                Ok(())
            });
            sim.kill();
            assert_eq!(sim.block_on(waits).unwrap_err().kind(), ErrorKind::Closed);
            sim.trace_hash()
        };
        assert_eq!(run(), run());
    }

    /// Requests submitted so far.
    fn writes(sim: &Sim) -> u64 {
        sim.counters().counts().writes
    }

    fn piece() -> WriteBuf {
        IoBuf::zeroed(256 << 10).into()
    }

    #[test]
    fn background_requests_wait_for_the_budget_and_others_do_not() {
        const REQUESTS: u64 = 16;
        let sim = Sim::new(5);
        let (budget, most) = (Budget::new(), Arc::new(AtomicU32::new(0)));
        let background = Background::simulated(&sim, Arc::clone(&budget));
        let file: File = sim.block_on(sim.open(Path::new("/file"), OpenMode::CreateNew)).unwrap();
        let works: Vec<_> = (0..REQUESTS)
            .map(|i| {
                let (file, budget, most) = (file.clone(), Arc::clone(&budget), Arc::clone(&most));
                background.run("test", move |io| async move {
                    let (_, written) =
                        io.write(&file, i * (256 << 10), piece(), Harden::Later).await;
                    let in_flight = budget.in_flight_bytes();
                    assert!(in_flight <= budget.limit_bytes().max(256 << 10));
                    most.fetch_max(in_flight as u32, Ordering::SeqCst);
                    written
                })
            })
            .collect();
        sim.block_on(async {
            while background.counters().counts().budget_waited_bytes == 0 {
                yield_now().await;
            }
            let before = writes(&sim);
            assert!(before < REQUESTS);
            let foreground = sim.write(&file, 0, piece(), Harden::Later);
            assert_eq!(writes(&sim), before + 1, "nothing holds up a foreground request");
            foreground.await.1.unwrap();
        });
        for work in works {
            sim.block_on(work).unwrap();
        }
        assert_eq!(writes(&sim), REQUESTS + 1);
        assert_eq!(budget.in_flight_bytes(), 0);
        assert!(most.load(Ordering::SeqCst) > 0);
    }
}
