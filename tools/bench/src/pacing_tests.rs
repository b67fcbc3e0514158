//! The loop in simulated time: time passes when an operation takes some, when
//! the loop sleeps, and a little whenever the clock is read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::recorder::Recorder;

const SECOND_NS: u64 = 1_000_000_000;
const READING_NS: u64 = 20;

struct FakeClock(AtomicU64);

impl FakeClock {
    fn advance(&self, duration_ns: u64) {
        self.0.fetch_add(duration_ns, Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn now_ns(&self) -> u64 {
        self.0.fetch_add(READING_NS, Ordering::Relaxed)
    }

    fn sleep_ns(&self, duration_ns: u64) {
        self.advance(duration_ns);
    }
}

/// Reads that take 10 us each, but for one that takes a second.
struct Stalling<'a> {
    clock: &'a FakeClock,
    done: u64,
    stall_at: u64,
    last: u64,
    stop_at: Option<(u64, &'a AtomicBool)>,
}

impl Operations for Stalling<'_> {
    type Error = &'static str;

    fn prepare(&mut self) -> Option<OpKind> {
        self.clock.advance(200);
        (self.done < self.last).then_some(OpKind::Read)
    }

    fn execute(&mut self) -> Result<(), Self::Error> {
        let service_ns = if self.done == self.stall_at { SECOND_NS } else { 10_000 };
        self.clock.advance(service_ns);
        self.done += 1;
        if let Some((done, stop)) = self.stop_at {
            stop.store(done <= self.done, Ordering::Relaxed);
        }
        Ok(())
    }

    fn verify(&mut self) {
        self.clock.advance(100);
    }
}

struct Run {
    finish: Finish,
    recorder: Recorder,
    sent: u64,
    progress: u64,
}

fn run(
    pace: Pace,
    seconds: u64,
    change: impl for<'a> FnOnce(&mut Stalling<'a>, &'a AtomicBool),
) -> Run {
    let clock = FakeClock(AtomicU64::new(5 * SECOND_NS));
    let stop = AtomicBool::new(false);
    let mut operations =
        Stalling { clock: &clock, done: 0, stall_at: u64::MAX, last: u64::MAX, stop_at: None };
    change(&mut operations, &stop);
    let window = Window { start_ns: 5 * SECOND_NS, end_ns: (5 + seconds) * SECOND_NS, stop: &stop };
    let mut recorder = Recorder::<u64>::new([OpKind::Read], &pace);
    let progress = AtomicU64::new(0);
    let finish = drive(&clock, &pace, window, &mut operations, &mut recorder, &progress).unwrap();
    Run { finish, recorder, sent: operations.done, progress: progress.into_inner() }
}

fn quantile_ms(run: &Run, quantile: f64) -> u64 {
    let histogram = run.recorder.histogram(OpKind::Read).unwrap();
    histogram.value_at_quantile(quantile) / 1_000_000
}

fn thousand_a_second() -> Pace {
    Pace::evenly(1000, 0, 1)
}

/// 10 s at 1000/s, and a stall of 1 s in the middle: 1000 operations waited
/// between 0 and 1 s, evenly, so 10 % of all waited at all, 1 % more than 0.9 s.
#[test]
fn a_stall_shows_in_full_in_the_open_loop() {
    let run = run(thousand_a_second(), 10, |operations, _| {
        operations.stall_at = 4000;
    });
    assert_eq!(run.sent, 10_000);
    assert_eq!(run.progress, 10_000);
    assert_eq!(run.finish.unsent, 0);
    let near = |found: u64, expected: u64| found.abs_diff(expected) <= 15;
    assert_eq!(quantile_ms(&run, 0.5), 0);
    assert_eq!(quantile_ms(&run, 0.89), 0);
    assert!(near(quantile_ms(&run, 0.95), 500), "{}", quantile_ms(&run, 0.95));
    assert!(near(quantile_ms(&run, 0.99), 900), "{}", quantile_ms(&run, 0.99));
    assert!(near(quantile_ms(&run, 0.999), 990), "{}", quantile_ms(&run, 0.999));
    assert!(near(quantile_ms(&run, 1.0), 1000), "{}", quantile_ms(&run, 1.0));
}

/// The same stall in a closed loop is one slow operation: that is what the open
/// loop is for.
#[test]
fn a_stall_is_one_operation_in_the_closed_loop() {
    let run = run(Pace::Closed, 10, |operations, _| operations.stall_at = 4000);
    assert_eq!(quantile_ms(&run, 0.9999), 0);
    assert_eq!(quantile_ms(&run, 1.0), 1000);
    // 10 us of service, 300 ns around it, and two readings of the clock.
    let expected = 9 * SECOND_NS / (10_000 + 300 + 2 * READING_NS);
    assert!(run.sent.abs_diff(expected) < 3, "{} {expected}", run.sent);
    assert_eq!(run.finish.unsent, 0);
}

/// A second of stall is one long service, and a long wait of all behind it.
#[test]
fn service_time_counts_from_the_sending() {
    let run = run(thousand_a_second(), 10, |operations, _| operations.stall_at = 4000);
    let service = run.recorder.service(OpKind::Read).unwrap();
    assert_eq!(service.len(), 10_000);
    assert!((10_000..10_050).contains(&service.value_at_quantile(0.9998)));
    assert!(service.max().abs_diff(SECOND_NS) < 1_000_000, "{}", service.max());
    let response = run.recorder.histogram(OpKind::Read).unwrap();
    assert!(response.value_at_quantile(0.95) > 400_000_000);
}

#[test]
fn preparing_and_verifying_are_not_measured_in_the_closed_loop() {
    let run = run(Pace::Closed, 1, |_, _| ());
    let histogram = run.recorder.histogram(OpKind::Read).unwrap();
    assert!((10_000..10_050).contains(&histogram.min()), "{}", histogram.min());
    assert!((10_000..10_050).contains(&histogram.max()), "{}", histogram.max());
}

#[test]
fn operations_are_sent_when_due_not_before() {
    let run = run(thousand_a_second(), 1, |_, _| ());
    let histogram = run.recorder.histogram(OpKind::Read).unwrap();
    assert_eq!(run.sent, 1000);
    assert!(histogram.min() >= 10_000);
    assert!(histogram.max() < 10_000 + 200 + 5 * READING_NS, "{}", histogram.max());
}

/// 10 us each, but one due every 2.5 us: in the second of the run and the one
/// after it half of them are sent, and the last of those had waited for three
/// quarters of that time.
#[test]
fn an_overload_is_told() {
    let pace = Pace::evenly(400_000, 0, 1);
    let run = run(pace, 1, |_, _| ());
    assert_eq!(run.sent + run.finish.unsent, 400_000);
    assert!((185_000..200_000).contains(&run.sent), "{}", run.sent);
    assert!((1500..1550).contains(&quantile_ms(&run, 1.0)), "{}", quantile_ms(&run, 1.0));
}

/// A stall that outlasts the run is recorded in full, and so is the wait of what
/// was due before the end; what was due after it is not sent.
#[test]
fn a_stall_at_the_end_is_not_lost() {
    let run = run(thousand_a_second(), 2, |operations, _| {
        operations.stall_at = 1500;
    });
    assert_eq!(run.sent, 2000);
    assert_eq!(run.finish.unsent, 0);
    let waited = run.recorder.histogram(OpKind::Read).unwrap().count_between(500_000_000, u64::MAX);
    assert!((499..=503).contains(&waited), "{waited}");
    assert_eq!(quantile_ms(&run, 1.0), 1000);
}

#[test]
fn a_stop_ends_the_loop() {
    for pace in [Pace::Closed, thousand_a_second()] {
        let run = run(pace, 10, |operations, stop| {
            operations.stop_at = Some((100, stop));
        });
        assert_eq!(run.sent, 100);
        assert_eq!(run.finish.unsent, 0);
    }
}

/// One operation an hour: the stop comes while the client waits for the second.
#[test]
fn a_stop_wakes_a_client_that_waits() {
    struct StoppingClock<'a>(FakeClock, &'a AtomicBool);
    impl Clock for StoppingClock<'_> {
        fn now_ns(&self) -> u64 {
            self.0.now_ns()
        }
        fn sleep_ns(&self, duration_ns: u64) {
            assert!(duration_ns <= SLEEP_NS_MAX);
            self.0.sleep_ns(duration_ns);
            self.1.store(self.0.now_ns() > 3 * SECOND_NS, Ordering::Relaxed);
        }
    }
    struct Instantly(u64);
    impl Operations for Instantly {
        type Error = ();
        fn prepare(&mut self) -> Option<OpKind> {
            self.0 += 1;
            Some(OpKind::Read)
        }
        fn execute(&mut self) -> Result<(), ()> {
            Ok(())
        }
        fn verify(&mut self) {}
    }
    let stop = AtomicBool::new(false);
    let clock = StoppingClock(FakeClock(AtomicU64::new(0)), &stop);
    let pace = Pace::evenly(1, 0, 3600);
    let window = Window { start_ns: 0, end_ns: u64::MAX, stop: &stop };
    let (mut operations, mut recorder) =
        (Instantly(0), Recorder::<u64>::new([OpKind::Read], &pace));
    let finish =
        drive(&clock, &pace, window, &mut operations, &mut recorder, &AtomicU64::new(0)).unwrap();
    assert_eq!(operations.0, 1);
    assert!(finish.at_ns < 4 * SECOND_NS);
    assert!(!finish.exhausted);
}

#[test]
fn the_loop_ends_with_its_operations() {
    for pace in [Pace::Closed, thousand_a_second()] {
        let run = run(pace, 10, |operations, _| operations.last = 7);
        assert_eq!(run.sent, 7);
        assert_eq!(run.recorder.histogram(OpKind::Read).unwrap().len(), 7);
        assert!(run.finish.exhausted);
        assert_eq!(run.finish.unsent, 0);
    }
}

#[test]
fn clients_take_turns_and_keep_the_rate_together() {
    for (rate, clients) in [(1000, 4), (7, 3), (1, 2), (999_999_937, 16)] {
        let stop = AtomicBool::new(false);
        let window = Window { start_ns: 0, end_ns: u64::MAX, stop: &stop };
        let mut due: Vec<u64> = (0..clients)
            .flat_map(|client| {
                let mut queue = Pace::evenly(rate, client, clients).queue();
                (0..50).map(move |_| {
                    let due_ns = queue.due_ns(window).unwrap();
                    queue.sent();
                    due_ns
                })
            })
            .collect();
        due.sort_unstable();
        let expected = (0..50 * clients).map(|turn| turn * SECOND_NS / rate);
        assert!(due.iter().copied().eq(expected), "{rate} {clients}");
        for elapsed_ns in [0, 1, due[due.len() / 2], due[due.len() / 2] + 1, due[40]] {
            let unsent = |client| {
                Pace::evenly(rate, client, clients).queue().finish(window, elapsed_ns, false).unsent
            };
            let counted: u64 = (0..clients).map(unsent).sum();
            let expected = due.iter().filter(|due_ns| **due_ns < elapsed_ns).count() as u64;
            assert_eq!(counted, expected, "{rate} {clients} {elapsed_ns}");
        }
    }
}
