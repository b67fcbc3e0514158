//! Wakes tasks at precise instants: the timer of clients that are no threads.
//!
//! The timers of runtimes count milliseconds. This is a thread that sleeps until
//! shortly before the next instant, then spins, as thread clients do; but for
//! all clients there is one. How long a task then waits until it is polled is
//! part of the latency, as it is in a service.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::pacing::{Clock, MonotonicClock, SPIN_NS};
use crate::pipeline::Timer;
use crate::runner::wake_precisely;

/// Instants at which tasks are to be woken. For any thread.
pub struct Alarms {
    clock: MonotonicClock,
    state: Mutex<State>,
    changed: Condvar,
    /// The first instant; `u64::MAX` without one.
    first_ns: AtomicU64,
}

#[derive(Default)]
struct State {
    alarms: BinaryHeap<Reverse<(u64, u64)>>,
    /// The wakers of the alarms, by their second number.
    wakers: Vec<Option<Waker>>,
    free: Vec<u64>,
    is_over: bool,
}

/// The thread that wakes; it ends when this is dropped.
pub struct AlarmThread {
    alarms: Arc<Alarms>,
    thread: Option<JoinHandle<()>>,
}

impl AlarmThread {
    /// Starts it, and its clock.
    pub fn start() -> io::Result<Self> {
        let alarms = Arc::new(Alarms {
            clock: MonotonicClock::start(),
            state: Mutex::default(),
            changed: Condvar::new(),
            first_ns: AtomicU64::new(u64::MAX),
        });
        let served = Arc::clone(&alarms);
        let thread = thread::Builder::new().name("alarms".to_owned()).spawn(move || {
            wake_precisely();
            served.serve();
        })?;
        Ok(Self { alarms, thread: Some(thread) })
    }

    /// What clients use.
    #[must_use]
    pub fn alarms(&self) -> &Arc<Alarms> {
        &self.alarms
    }
}

impl Drop for AlarmThread {
    fn drop(&mut self) {
        self.alarms.lock().is_over = true;
        self.alarms.first_ns.store(0, Ordering::Relaxed);
        self.alarms.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the thread of the alarms panicked");
        }
    }
}

impl Timer for Alarms {
    fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    fn wake_at(&self, at_ns: u64, waker: &Waker) {
        let mut state = self.lock();
        let place = state.free.pop().unwrap_or_else(|| {
            state.wakers.push(None);
            state.wakers.len() as u64 - 1
        });
        state.wakers[place as usize] = Some(waker.clone());
        state.alarms.push(Reverse((at_ns, place)));
        let is_first = at_ns < self.first_ns.load(Ordering::Relaxed);
        if is_first && !state.is_over {
            self.first_ns.store(at_ns, Ordering::Relaxed);
            drop(state);
            self.changed.notify_all();
        }
    }
}

impl Alarms {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    fn serve(&self) {
        let mut state = self.lock();
        while !state.is_over {
            let now_ns = self.now_ns();
            let first_ns = state.alarms.peek().map_or(u64::MAX, |Reverse((at_ns, _))| *at_ns);
            self.first_ns.store(first_ns, Ordering::Relaxed);
            let left_ns = first_ns.saturating_sub(now_ns);
            state = if first_ns == u64::MAX {
                self.changed.wait(state).expect("nothing panics under this lock")
            } else if left_ns > SPIN_NS {
                let sleep = Duration::from_nanos(left_ns - SPIN_NS);
                let woken = self.changed.wait_timeout(state, sleep);
                woken.expect("nothing panics under this lock").0
            } else {
                let waker = (left_ns == 0).then(|| state.take_first()).flatten();
                drop(state);
                match waker {
                    Some(waker) => waker.wake(),
                    // An earlier alarm, or the end, cuts this short.
                    None => self.spin_until_first(),
                }
                self.lock()
            };
        }
    }

    fn spin_until_first(&self) {
        while self.now_ns() < self.first_ns.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }
}

impl State {
    fn take_first(&mut self) -> Option<Waker> {
        let Reverse((_, place)) = self.alarms.pop()?;
        self.free.push(place);
        self.wakers[place as usize].take()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::Wake;

    use super::*;

    struct Tell(mpsc::Sender<u64>, u64);

    impl Wake for Tell {
        fn wake(self: Arc<Self>) {
            // The test may have ended.
            let _unimportant = self.0.send(self.1);
        }
    }

    #[test]
    fn tasks_are_woken_in_order_and_not_before() {
        let thread = AlarmThread::start().unwrap();
        let alarms = thread.alarms();
        let (sender, receiver) = mpsc::channel();
        let begin_ns = alarms.now_ns() + 1_000_000;
        for after_ns in [3_000_000, 20_000, 0, 50_000_000, 1_000_000, 10_000, 3_000_000] {
            let at_ns = begin_ns + after_ns;
            alarms.wake_at(at_ns, &Arc::new(Tell(sender.clone(), at_ns)).into());
        }
        alarms.wake_at(u64::MAX - 1, &Arc::new(Tell(sender.clone(), 0)).into());
        let mut woken = Vec::new();
        for _ in 0..7 {
            let at_ns = receiver.recv().unwrap();
            assert!(alarms.now_ns() >= at_ns);
            woken.push(at_ns - begin_ns);
        }
        assert_eq!(woken, [0, 10_000, 20_000, 1_000_000, 3_000_000, 3_000_000, 50_000_000]);
        drop(thread);
        assert!(receiver.try_recv().is_err(), "an alarm too many");
    }
}
