//! The executor over a driver whose clock and completions the tests set.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Poll, Waker};

use super::{CountingWaker, poll_once};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::Mutex;
use crate::io::blocking::Parking;
use crate::io::{Driver, Unpark};
use crate::runtime::tasks::Local;
use crate::runtime::{
    Event, Executor, Job, OwnerConfig, block_on, is_owner_thread, slice_end, yield_now,
};

const US: u64 = 1000;

/// A driver of which several handles exist.
#[derive(Clone, Default)]
struct Scripted(Rc<Script>);

#[derive(Default)]
struct Script {
    now_ns: Cell<u64>,
    /// How far a reading moves the clock.
    tick_ns: Cell<u64>,
    /// When it has work, until the next turn.
    work_at_ns: Cell<Option<u64>>,
    /// For each turn, whether it was allowed to sleep.
    turns: RefCell<Vec<bool>>,
    /// Whose request completes in the next turn.
    completes: RefCell<Option<Waker>>,
    /// What happens while it sleeps.
    sleeps: RefCell<VecDeque<Box<dyn FnOnce()>>>,
    fails: Cell<bool>,
}

struct NoUnpark;

impl Unpark for NoUnpark {
    fn unpark(&self) {}
}

impl Driver for Scripted {
    fn turn(&self, may_sleep: bool, awake: &dyn Fn()) -> Result<()> {
        if self.0.fails.get() {
            return Err(Error::new(ErrorKind::Io, "the driver failed"));
        }
        self.0.turns.borrow_mut().push(may_sleep);
        self.0.work_at_ns.set(None);
        if may_sleep {
            let wakes = self.0.sleeps.borrow_mut().pop_front().expect("it sleeps for ever");
            wakes();
        }
        awake();
        if let Some(waker) = self.0.completes.take() {
            waker.wake();
        }
        Ok(())
    }

    fn has_work(&self, now_ns: u64) -> bool {
        self.0.work_at_ns.get().is_some_and(|at| now_ns >= at)
    }

    fn now_ns(&self) -> u64 {
        self.0.now_ns.set(self.0.now_ns.get() + self.0.tick_ns.get());
        self.0.now_ns.get()
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        Arc::new(NoUnpark)
    }
}

impl Scripted {
    fn pass_ns(&self, nanos: u64) {
        self.0.now_ns.set(self.0.now_ns.get() + nanos);
    }

    fn sleeps(&self, wakes: impl FnOnce() + 'static) {
        self.0.sleeps.borrow_mut().push_back(Box::new(wakes));
    }

    fn executor(&self, spin_ns: u64) -> Executor {
        Executor::new(self.clone(), OwnerConfig { spin_ns, logs_stalls: true, is_pinned: false })
    }
}

fn main_job(future: impl Future<Output = ()> + 'static) -> Vec<Job> {
    vec![Job::new("main", future)]
}

/// Waits once, and leaves its waker where others can have it.
async fn wait_in(place: Arc<Mutex<Option<Waker>>>) {
    let mut has_waited = false;
    poll_fn(|cx| {
        if has_waited {
            return Poll::Ready(());
        }
        has_waited = true;
        *place.lock() = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
}

fn wake_from_another_thread(place: &Arc<Mutex<Option<Waker>>>) {
    let waker = place.lock().clone().expect("somebody waits");
    std::thread::scope(|scope| scope.spawn(|| waker.wake()).join()).expect("no panic");
}

#[test]
fn tasks_start_others_and_wake_each_other_without_an_unpark() {
    let driver = Scripted::default();
    let mut executor = driver.executor(0);
    let spawner = executor.spawner();
    let (ping, pong) = (Rc::new(Event::default()), Rc::new(Event::default()));
    let rounds = Rc::new(Cell::new(0));
    let main = {
        let (spawner, rounds) = (spawner.clone(), Rc::clone(&rounds));
        async move {
            let (heard, answers) = (Rc::clone(&ping), Rc::clone(&pong));
            spawner.spawn("echo", async move {
                loop {
                    heard.wait().await;
                    rounds.set(rounds.get() + 1);
                    answers.set();
                }
            });
            for _ in 0..100 {
                ping.set();
                pong.wait().await;
            }
        }
    };
    executor.run(main_job(main)).unwrap();
    assert_eq!(rounds.get(), 100);
    let counts = executor.counters().counts();
    assert_eq!((counts.unparks, counts.sleeps), (0, 0));
    assert!(counts.polls >= 200, "{counts:?}");
}

#[test]
fn when_the_main_jobs_have_ended_the_others_are_dropped() {
    struct SpawnsInTheEnd(crate::runtime::Spawner, Rc<()>);
    impl Drop for SpawnsInTheEnd {
        fn drop(&mut self) {
            let late = Rc::clone(&self.1);
            self.0.spawn("late", async move { drop(late) });
        }
    }
    let driver = Scripted::default();
    let mut executor = driver.executor(0);
    let spawner = executor.spawner();
    let held = Rc::new(());
    let holds = SpawnsInTheEnd(spawner.clone(), Rc::clone(&held));
    spawner.spawn("before", async move {
        std::future::pending::<()>().await;
        drop(holds);
    });
    let (also, again) = (Rc::clone(&held), spawner.clone());
    let main = async move {
        again.spawn("during", async move {
            std::future::pending::<()>().await;
            drop(also);
        });
        assert!(is_owner_thread());
        yield_now().await;
    };
    executor.run(main_job(main)).unwrap();
    assert_eq!(Rc::strong_count(&held), 1);
    assert!(!is_owner_thread());
    let late = Rc::clone(&held);
    spawner.spawn("after", async move { drop(late) });
    assert_eq!(Rc::strong_count(&held), 1);
    drop(executor);
    let late = Rc::clone(&held);
    spawner.spawn("long after", async move { drop(late) });
    assert_eq!(Rc::strong_count(&held), 1);
}

#[test]
fn an_executor_that_never_ran_drops_its_tasks() {
    let executor = Scripted::default().executor(0);
    let held = Rc::new(());
    let inside = Rc::clone(&held);
    executor.spawner().spawn("never", async move { drop(inside) });
    assert_eq!(Rc::strong_count(&held), 2);
    drop(executor);
    assert_eq!(Rc::strong_count(&held), 1);
}

#[test]
fn slots_are_used_again_and_late_wake_ups_do_no_harm() {
    let mut executor = Scripted::default().executor(0);
    let spawner = executor.spawner();
    let place = Arc::new(Mutex::new(None));
    let main = async move {
        for _ in 0..1000 {
            let done = Rc::new(Event::default());
            let (place, ends) = (Arc::clone(&place), Rc::clone(&done));
            spawner.spawn("short", async move {
                poll_fn(|cx| {
                    let late: Option<Waker> = place.lock().replace(cx.waker().clone());
                    if let Some(waker) = late {
                        waker.wake();
                    }
                    Poll::Ready(())
                })
                .await;
                ends.set();
            });
            done.wait().await;
        }
    };
    executor.run(main_job(main)).unwrap();
    assert!(executor.counters().counts().polls < 5000);
}

#[test]
fn a_sleeping_owner_gets_one_unpark_and_an_awake_one_none() {
    let driver = Scripted::default();
    let mut executor = driver.executor(0);
    let spawner = executor.spawner();
    let places: Vec<_> = (0..3).map(|_| Arc::new(Mutex::new(None))).collect();
    // Two wake-ups in one sleep.
    let (first, second) = (Arc::clone(&places[0]), Arc::clone(&places[1]));
    driver.sleeps(move || {
        wake_from_another_thread(&first);
        wake_from_another_thread(&second);
    });
    let (a, b, c) = (Arc::clone(&places[0]), Arc::clone(&places[1]), Arc::clone(&places[2]));
    let counters = Arc::clone(executor.counters());
    let main = async move {
        spawner.spawn("other", wait_in(b));
        wait_in(a).await;
        assert_eq!(counters.counts().unparks, 1);
        // The owner is awake, in this poll.
        let woken = Arc::clone(&c);
        spawner.spawn("waker", async move { wake_from_another_thread(&woken) });
        wait_in(c).await;
    };
    executor.run(main_job(main)).unwrap();
    let counts = executor.counters().counts();
    assert_eq!((counts.unparks, counts.sleeps), (1, 1), "{counts:?}");
    assert_eq!(*driver.0.turns.borrow(), [true]);
}

#[test]
fn an_owner_does_not_fall_asleep_over_a_wake_up() {
    let local = Local::new(Rc::new(Scripted::default()));
    let place = Arc::new(Mutex::new(None));
    let waits = Arc::clone(&place);
    let job = poll_fn(move |cx| {
        *waits.lock() = Some(cx.waker().clone());
        Poll::<()>::Pending
    });
    local.spawn(Job::new("waits", job), false);
    assert_eq!(local.poll_next(), Some("waits"));
    wake_from_another_thread(&place);
    assert!(!local.inbox.fall_asleep());
    local.empty_inbox();
    assert_eq!(local.poll_next(), Some("waits"));
    assert!(local.inbox.fall_asleep());
    assert_eq!(local.counters.counts().unparks, 0);
    wake_from_another_thread(&place);
    assert_eq!(local.counters.counts().unparks, 1);
}

#[test]
fn no_wake_up_is_lost_between_threads() {
    const ROUNDS: u32 = 20_000;
    let (to_owner, owner_gets) = mpsc::channel();
    let asks = Arc::new(Event::default());
    let answers = Arc::new(Event::default());
    std::thread::scope(|scope| {
        let (asked, answered) = (Arc::clone(&asks), Arc::clone(&answers));
        scope.spawn(move || {
            let (driver, _) = Parking::new(Arc::default());
            let config = OwnerConfig { spin_ns: 0, logs_stalls: false, is_pinned: false };
            let mut executor = Executor::new(driver, config);
            let main = async move {
                for round in 0..ROUNDS {
                    asked.wait().await;
                    assert_eq!(owner_gets.recv(), Ok(round));
                    answered.set();
                }
            };
            executor.run(main_job(main)).unwrap();
        });
        for round in 0..ROUNDS {
            to_owner.send(round).unwrap();
            asks.set();
            block_on(answers.wait());
        }
    });
}

#[test]
fn several_threads_wake_several_tasks_at_once() {
    const ROUNDS: u32 = 2000;
    const TASKS: usize = 4;
    let asks: Vec<_> = (0..TASKS).map(|_| Arc::new(Event::default())).collect();
    let answers: Vec<_> = (0..TASKS).map(|_| Arc::new(Event::default())).collect();
    std::thread::scope(|scope| {
        for (asks, answers) in asks.iter().zip(&answers) {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    asks.set();
                    block_on(answers.wait());
                }
            });
        }
        let (driver, _) = Parking::new(Arc::default());
        let config = OwnerConfig { spin_ns: 0, logs_stalls: false, is_pinned: false };
        let mut executor = Executor::new(driver, config);
        let tasks = asks.iter().zip(&answers).map(|(asks, answers)| {
            let (asks, answers) = (Arc::clone(asks), Arc::clone(answers));
            Job::new("answers", async move {
                for _ in 0..ROUNDS {
                    asks.wait().await;
                    answers.set();
                }
            })
        });
        executor.run(tasks.collect()).unwrap();
    });
}

#[test]
fn an_owner_that_runs_dry_spins_for_a_while_and_then_sleeps() {
    for (spin_ns, turns, spins_found) in
        [(0, [true], 0), (3 * US, [true], 0), (30 * US, [false], 1)]
    {
        let driver = Scripted::default();
        driver.0.tick_ns.set(100);
        driver.sleeps(|| ());
        let mut executor = driver.executor(spin_ns);
        let script = driver.clone();
        let main = poll_fn(move |cx| {
            if !script.0.turns.borrow().is_empty() {
                return Poll::Ready(());
            }
            script.0.work_at_ns.set(Some(script.0.now_ns.get() + 10 * US));
            script.0.completes.replace(Some(cx.waker().clone()));
            Poll::Pending
        });
        executor.run(main_job(main)).unwrap();
        assert_eq!(*driver.0.turns.borrow(), turns, "{spin_ns} ns");
        let counts = executor.counters().counts();
        assert_eq!(counts.spins_found, spins_found);
        assert_eq!(counts.sleeps, u64::from(turns[0]));
    }
}

#[test]
fn an_owner_that_does_not_spin_submits_and_sleeps_in_one() {
    for (spin_ns, turns) in [(0, [true]), (US, [false])] {
        let driver = Scripted::default();
        driver.sleeps(|| ());
        let script = driver.clone();
        let main = poll_fn(move |cx| {
            if !script.0.turns.borrow().is_empty() {
                return Poll::Ready(());
            }
            script.0.work_at_ns.set(Some(0));
            script.0.completes.replace(Some(cx.waker().clone()));
            Poll::Pending
        });
        driver.executor(spin_ns).run(main_job(main)).unwrap();
        assert_eq!(*driver.0.turns.borrow(), turns);
    }
}

#[test]
fn a_slice_goes_on_until_it_is_long_or_somebody_waits() {
    let driver = Scripted::default();
    let mut executor = driver.executor(0);
    let spawner = executor.spawner();
    let counters = Arc::clone(executor.counters());
    let script = driver.clone();
    let main = async move {
        let polls = || counters.counts().polls;
        let turns = || script.0.turns.borrow().len();
        // Young, and alone.
        for _ in 0..9 {
            script.pass_ns(10 * US);
            slice_end().await;
        }
        assert_eq!(polls(), 0);
        script.pass_ns(10 * US);
        slice_end().await;
        assert_eq!((polls(), turns()), (1, 0));
        // The next slice is young again.
        script.pass_ns(99 * US);
        slice_end().await;
        assert_eq!(polls(), 1);
        // A completion.
        script.0.work_at_ns.set(Some(0));
        slice_end().await;
        assert_eq!((polls(), turns()), (2, 1));
        // Another task.
        let ran = Rc::new(Cell::new(false));
        let runs = Rc::clone(&ran);
        spawner.spawn("other", async move { runs.set(true) });
        slice_end().await;
        assert!(ran.get());
        // A wake-up from another thread.
        let place = Arc::new(Mutex::new(None));
        let done = Rc::new(Cell::new(false));
        let (waits, ends) = (Arc::clone(&place), Rc::clone(&done));
        spawner.spawn("woken", async move {
            wait_in(waits).await;
            ends.set(true);
        });
        slice_end().await;
        slice_end().await;
        assert!(!done.get());
        wake_from_another_thread(&place);
        slice_end().await;
        slice_end().await;
        assert!(done.get());
    };
    executor.run(main_job(main)).unwrap();
}

#[test]
fn elsewhere_every_slice_ends_at_once() {
    let waker = CountingWaker::new();
    let mut end = slice_end();
    assert!(poll_once(&mut end, &waker).is_none());
    assert_eq!(waker.count(), 1);
    assert!(poll_once(&mut end, &waker).is_some());
}

#[test]
fn a_round_ends_when_it_takes_long() {
    let driver = Scripted::default();
    let mut executor = driver.executor(0);
    let spawner = executor.spawner();
    let script = driver.clone();
    let main = async move {
        // Of three slices, the first has a request to be submitted.
        let turns = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..3 {
            let (script, turns) = (script.clone(), Rc::clone(&turns));
            spawner.spawn("slice", async move {
                turns.borrow_mut().push(script.0.turns.borrow().len());
                if turns.borrow().len() == 1 {
                    script.0.work_at_ns.set(Some(0));
                }
                script.pass_ns(60 * US);
            });
        }
        while turns.borrow().len() < 3 {
            yield_now().await;
        }
        assert_eq!(*turns.borrow(), [0, 0, 1]);
    };
    executor.run(main_job(main)).unwrap();
}

#[test]
fn long_slices_are_counted_and_reported() {
    let driver = Scripted::default();
    let mut executor = driver.executor(0);
    let script = driver.clone();
    let main = async move {
        for slice_us in [900, 1500, 1000, 3000] {
            yield_now().await;
            script.pass_ns(slice_us * US);
        }
        yield_now().await;
    };
    let log = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::with_default(Log(Arc::clone(&log)), || {
        executor.run(vec![Job::new("crunch", main)]).unwrap();
    });
    let counts = executor.counters().counts();
    assert_eq!((counts.slices_long, counts.slice_ns_max), (2, 3_000_000), "{counts:?}");
    // The second comes within a second after the first.
    let log = log.lock();
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].contains("\"crunch\"") && log[0].contains("1500"), "{log:?}");
}

/// Collects the fields of reports.
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                use std::fmt::Write;
                write!(self.0, "{field}={value:?} ").expect("a string takes it");
            }
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_panic_of_the_engine_ends_the_executor_and_drops_its_tasks() {
    let mut executor = Scripted::default().executor(0);
    let held = Rc::new(());
    let inside = Rc::clone(&held);
    executor.spawner().spawn("other", async move {
        std::future::pending::<()>().await;
        drop(inside);
    });
    let main = async {
        yield_now().await;
        panic!("a bug");
    };
    let run = std::panic::AssertUnwindSafe(|| executor.run(main_job(main)));
    assert!(std::panic::catch_unwind(run).is_err());
    assert_eq!(Rc::strong_count(&held), 1);
    assert!(!is_owner_thread());
}

#[test]
fn a_driver_that_fails_ends_the_executor() {
    let driver = Scripted::default();
    driver.0.fails.set(true);
    let mut executor = driver.executor(0);
    let error = executor.run(main_job(std::future::pending())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(!is_owner_thread());
}
