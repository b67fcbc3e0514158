//! The loop in simulated time: time passes while operations are on their way,
//! and a little whenever the clock is read.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Wake};

use super::*;
use crate::recorder::Recorder;

const SECOND_NS: u64 = 1_000_000_000;
const READING_NS: u64 = 20;
const SERVICE_NS: u64 = 10_000;

/// A machine with nothing else to do: when the client waits, the next alarm
/// comes. While it works, alarms come when it steps back.
#[derive(Default)]
struct Machine {
    now_ns: Cell<u64>,
    alarms: RefCell<BTreeMap<(u64, usize), Waker>>,
    alarms_set: Cell<usize>,
}

impl Timer for Machine {
    fn now_ns(&self) -> u64 {
        self.now_ns.set(self.now_ns.get() + READING_NS);
        self.now_ns.get()
    }

    fn wake_at(&self, at_ns: u64, waker: &Waker) {
        self.alarms_set.set(self.alarms_set.get() + 1);
        self.alarms.borrow_mut().insert((at_ns, self.alarms_set.get()), waker.clone());
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Machine {
    /// The output, and how often the future was polled.
    fn run<T>(&self, future: impl Future<Output = T>) -> (T, u64) {
        let woken = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut future = pin!(future);
        let mut polls = 0;
        loop {
            while woken.0.swap(false, Ordering::Relaxed) {
                polls += 1;
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    return (output, polls);
                }
                while self.next_alarm(self.now_ns.get()) {}
            }
            assert!(self.next_alarm(u64::MAX), "the client waits for nothing");
        }
    }

    /// Has the next alarm come, if there is one before `until_ns`.
    fn next_alarm(&self, until_ns: u64) -> bool {
        let next = self.alarms.borrow_mut().first_entry().and_then(|next| {
            let at_ns = next.key().0;
            (at_ns <= until_ns).then(|| (at_ns, next.remove()))
        });
        let Some((at_ns, waker)) = next else { return false };
        self.now_ns.set(self.now_ns.get().max(at_ns));
        waker.wake();
        true
    }
}

/// What the store sees.
#[derive(Default)]
struct Seen {
    in_flight: Cell<usize>,
    in_flight_max: Cell<usize>,
    begun: Cell<u64>,
}

/// Reads of a store; see [`Store`].
struct Reads {
    store: Rc<Store>,
    left: u64,
    verified: u64,
}

struct Store {
    machine: Machine,
    seen: Seen,
    /// How long operation `i` takes; 0 when it ends at its first poll.
    service_ns: fn(u64) -> u64,
    /// The operation that fails.
    fail_at: u64,
    stop: AtomicBool,
    stop_at: u64,
}

struct Lane {
    store: Rc<Store>,
    prepared: bool,
}

impl PipelinedOperations for Reads {
    type Lane = Lane;
    type Error = &'static str;

    fn lane(&self) -> Lane {
        Lane { store: Rc::clone(&self.store), prepared: false }
    }

    fn prepare(&mut self, lane: &mut Lane) -> Option<OpKind> {
        self.left = self.left.checked_sub(1)?;
        assert!(!std::mem::replace(&mut lane.prepared, true), "prepared twice");
        Some(OpKind::Read)
    }

    async fn execute(lane: &mut Lane) -> Result<(), &'static str> {
        let Store { machine, seen, service_ns, fail_at, stop, stop_at } = &*lane.store;
        let number = seen.begun.get();
        seen.begun.set(number + 1);
        seen.in_flight.set(seen.in_flight.get() + 1);
        seen.in_flight_max.set(seen.in_flight_max.get().max(seen.in_flight.get()));
        let service_ns = service_ns(number);
        let end_ns = machine.now_ns.get() + service_ns;
        poll_fn(|cx| {
            if machine.now_ns.get() >= end_ns {
                return Poll::Ready(());
            }
            machine.wake_at(end_ns, cx.waker());
            Poll::Pending
        })
        .await;
        seen.in_flight.set(seen.in_flight.get() - 1);
        stop.store(number + 1 >= *stop_at, Ordering::Relaxed);
        if number == *fail_at { Err("broken") } else { Ok(()) }
    }

    fn verify(&mut self, lane: &mut Lane) {
        assert!(std::mem::replace(&mut lane.prepared, false), "verified without an operation");
        self.verified += 1;
    }
}

struct Run {
    finish: Result<Finish, &'static str>,
    recorder: Recorder,
    store: Rc<Store>,
    polls: u64,
    progress: u64,
    verified: u64,
}

impl Run {
    fn ok(&self) -> Finish {
        self.finish.unwrap()
    }

    fn quantile_ns(&self, quantile: f64) -> u64 {
        self.recorder.histogram(OpKind::Read).unwrap().value_at_quantile(quantile)
    }
}

/// Runs for a second, or for `operations` if they end before.
fn run(pace: Pace, depth: usize, operations: u64, change: impl FnOnce(&mut Store)) -> Run {
    let mut store = Store {
        machine: Machine::default(),
        seen: Seen::default(),
        service_ns: |_| SERVICE_NS,
        fail_at: u64::MAX,
        stop: AtomicBool::new(false),
        stop_at: u64::MAX,
    };
    change(&mut store);
    let store = Rc::new(store);
    let start_ns = 5 * SECOND_NS;
    store.machine.now_ns.set(start_ns);
    let window = Window { start_ns, end_ns: start_ns + SECOND_NS, stop: &store.stop };
    let mut reads = Reads { store: Rc::clone(&store), left: operations, verified: 0 };
    let mut recorder = Recorder::<u64>::new([OpKind::Read], &pace);
    let progress = AtomicU64::new(0);
    let (finish, polls) = store.machine.run(drive(
        &store.machine,
        &pace,
        window,
        depth,
        &mut reads,
        &mut recorder,
        &progress,
    ));
    let (verified, progress) = (reads.verified, progress.into_inner());
    drop(reads);
    assert_eq!(store.seen.in_flight.get(), 0, "operations were left");
    Run { finish, recorder, polls, progress, verified, store }
}

fn rate(rate: u64) -> Pace {
    Pace::evenly(rate, 0, 1)
}

/// Each operation takes 10 us, and so many are in flight at all times.
#[test]
fn a_closed_loop_keeps_its_depth_in_flight() {
    for depth in [1, 2, 16, 64] {
        let run = run(Pace::Closed, depth, u64::MAX, |_| ());
        assert_eq!(run.store.seen.in_flight_max.get(), depth);
        let sent = run.store.seen.begun.get();
        assert_eq!((run.recorder.total(), run.verified, run.progress), (sent, sent, sent));
        let expected = depth as u64 * SECOND_NS / SERVICE_NS;
        assert!(sent <= expected && sent > expected / 2, "{depth}: {sent}");
        assert!(run.quantile_ns(0.0) >= SERVICE_NS);
        // The loop itself takes some of the time.
        assert!(run.quantile_ns(1.0) < SERVICE_NS + 200 * depth as u64, "{depth}");
        let Finish { at_ns, unsent, exhausted } = run.ok();
        assert_eq!((unsent, exhausted), (0, false));
        assert!((6 * SECOND_NS..6 * SECOND_NS + 2 * SERVICE_NS).contains(&at_ns));
    }
}

/// What never waits would keep the thread for itself.
#[test]
fn a_client_steps_back_from_operations_that_end_at_once() {
    const OPERATIONS: u64 = 100_000;
    let run = run(Pace::Closed, 4, OPERATIONS, |store| store.service_ns = |_| 0);
    assert_eq!(run.store.seen.in_flight_max.get(), 1);
    assert_eq!(run.recorder.total(), OPERATIONS);
    // Two readings of the clock for each operation.
    let slices = OPERATIONS * 2 * READING_NS / SLICE_NS;
    assert!(run.polls.abs_diff(slices) <= 2, "{} {slices}", run.polls);
    assert_eq!(run.quantile_ns(1.0), READING_NS);
}

/// Hits do not keep a read that has completed from being seen: it waits for a
/// slice at most.
#[test]
fn operations_that_end_at_once_do_not_hold_up_the_others() {
    let run = run(Pace::Closed, 2, 100_000, |store| {
        store.service_ns = |i| if i == 1 { SERVICE_NS } else { 0 };
    });
    assert_eq!(run.store.seen.in_flight_max.get(), 2);
    assert!(run.quantile_ns(1.0) < 2 * SLICE_NS, "{}", run.quantile_ns(1.0));
}

/// 1000 a second, and the store stalls for 100 ms in the middle: those that were
/// due meanwhile are sent as far as the depth goes, and all of their waiting
/// counts.
#[test]
fn a_stall_shows_in_full_in_the_open_loop() {
    let stall: fn(u64) -> u64 = |i| if (400..404).contains(&i) { SECOND_NS / 10 } else { 100 };
    for (depth, late) in [(1, 400), (4, 99), (5, 4)] {
        let run = run(rate(1000), depth, u64::MAX, |store| store.service_ns = stall);
        assert_eq!(run.store.seen.in_flight_max.get(), depth);
        assert_eq!((run.recorder.total(), run.ok().unsent), (1000, 0));
        let waited = run.recorder.histogram(OpKind::Read).unwrap().count_between(
            // Longer than anything but a stall takes.
            1_000_000,
            u64::MAX,
        );
        assert!(waited.abs_diff(late) <= 5, "{depth}: {waited}");
    }
}

#[test]
fn operations_are_sent_when_due_not_before() {
    for depth in [1, 16] {
        let run = run(rate(1000), depth, u64::MAX, |_| ());
        assert_eq!(run.recorder.total(), 1000);
        assert_eq!(run.store.seen.in_flight_max.get(), 1);
        assert!(run.quantile_ns(0.0) >= SERVICE_NS);
        assert!(run.quantile_ns(1.0) < SERVICE_NS + 20 * READING_NS, "{}", run.quantile_ns(1.0));
        // One to be woken by the client, one by the operation.
        assert_eq!(run.store.machine.alarms_set.get(), 1999);
    }
}

/// Each takes 10 us: 16 at a time keep up with one in 2.5 us, one does not.
#[test]
fn an_overload_is_told() {
    let pace = rate(400_000);
    let slow = run(pace.clone(), 1, u64::MAX, |_| ());
    assert_eq!(slow.recorder.total() + slow.ok().unsent, 400_000);
    assert!((185_000..200_000).contains(&slow.recorder.total()), "{}", slow.recorder.total());
    let deep = run(pace, 16, u64::MAX, |_| ());
    assert_eq!((deep.recorder.total(), deep.ok().unsent), (400_000, 0));
    assert!(deep.quantile_ns(1.0) < 2 * SERVICE_NS);
}

#[test]
fn the_loop_ends_with_its_operations() {
    for pace in [Pace::Closed, rate(1000)] {
        for depth in [1, 3, 16] {
            let run = run(pace.clone(), depth, 7, |_| ());
            assert_eq!((run.recorder.total(), run.verified), (7, 7));
            assert!(run.ok().exhausted);
            assert_eq!(run.ok().unsent, 0);
        }
    }
}

/// What is in flight at a failure still ends; nothing is sent after it.
#[test]
fn a_failure_ends_the_loop() {
    for (depth, sent) in [(1, 101), (8, 108)] {
        let run = run(Pace::Closed, depth, u64::MAX, |store| store.fail_at = 100);
        assert_eq!(run.finish, Err("broken"));
        assert!(run.store.seen.begun.get() <= sent);
        assert_eq!(run.recorder.total() + 1, run.store.seen.begun.get());
    }
}

#[test]
fn a_stop_ends_the_loop() {
    for (pace, sent) in [(Pace::Closed, 103), (rate(1000), 100)] {
        let run = run(pace, 4, u64::MAX, |store| store.stop_at = 100);
        assert!((100..=sent).contains(&run.recorder.total()));
        assert!(run.ok().at_ns < 6 * SECOND_NS && !run.ok().exhausted);
    }
}

/// One operation, and the next one 0.9 s later: a stop is seen long before.
#[test]
fn a_stop_is_seen_while_nothing_is_due() {
    let pace = Pace::evenly(10, 0, 9);
    let run = run(pace, 4, u64::MAX, |store| store.stop_at = 1);
    assert_eq!(run.recorder.total(), 1);
    assert!(run.ok().at_ns <= 5 * SECOND_NS + SLEEP_NS_MAX + SERVICE_NS);
}
