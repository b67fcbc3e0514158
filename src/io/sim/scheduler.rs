//! The tasks of the simulated process, and the loops that step the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::machine::{Action, Crash};
use super::{Shared, Sim};
use crate::base::sync::{Mutex, assert_unlocked};

pub(super) type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Steps in a row that bring the driving future no nearer, until it counts as
/// stuck.
const STEPS_MAX: u64 = 1_000_000;

/// Tasks by their number, and the numbers of those to be polled.
#[derive(Default)]
pub(super) struct Tasks {
    tasks: BTreeMap<u64, Task>,
    ready: Arc<Ready>,
}

struct Task {
    /// `None` while it is polled.
    future: Option<BoxFuture>,
    waker: Waker,
}

/// A set, so that the order of wake-ups does not matter. Its lock is held for
/// moments and nothing is locked under it: wakers may be called anywhere.
#[derive(Default)]
struct Ready(Mutex<BTreeSet<u64>>);

struct TaskWaker {
    id: u64,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.0.lock().insert(self.id);
    }
}

impl Tasks {
    /// A waker for the task of this number, which is woken at once.
    fn waker(&self, id: u64) -> Waker {
        self.ready.0.lock().insert(id);
        Waker::from(Arc::new(TaskWaker { id, ready: Arc::clone(&self.ready) }))
    }

    fn insert(&mut self, id: u64, future: BoxFuture) {
        let waker = self.waker(id);
        self.tasks.insert(id, Task { future: Some(future), waker });
    }

    pub(super) fn ready_count(&self) -> usize {
        self.ready.0.lock().len()
    }

    pub(super) fn take_ready(&self, choice: usize) -> u64 {
        let mut ready = self.ready.0.lock();
        let id = *ready.iter().nth(choice).expect("the choice is among those ready");
        ready.remove(&id);
        id
    }

    /// The task, to be polled; `None` if it ended.
    pub(super) fn take(&mut self, id: u64) -> Option<(BoxFuture, Waker)> {
        let task = self.tasks.get_mut(&id)?;
        Some((task.future.take()?, task.waker.clone()))
    }

    /// Puts a task back that was polled; returns it if the process ended
    /// meanwhile.
    fn put_back(&mut self, id: u64, future: BoxFuture) -> Option<BoxFuture> {
        match self.tasks.get_mut(&id) {
            Some(task) => task.future.replace(future),
            None => Some(future),
        }
    }

    pub(super) fn clear(&mut self) -> Vec<BoxFuture> {
        std::mem::take(&mut self.tasks).into_values().filter_map(|task| task.future).collect()
    }
}

/// What a thread that waits is unwound with when its process ends.
struct Crashed;

/// Says that some call steps the machine, until it is dropped.
struct Driving<'a>(&'a Shared);

impl<'a> Driving<'a> {
    fn start(shared: &'a Shared) -> Self {
        let driven = std::mem::replace(&mut shared.machine.lock().driven, true);
        assert!(!driven, "the simulated machine is stepped already: nobody may wait in a task");
        Self(shared)
    }
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        self.0.machine.lock().driven = false;
    }
}

impl Sim {
    /// Starts a background task of the simulated process. It ends with the
    /// process: until it has ended, or [`Sim::kill`] was called, it keeps
    /// alive the machine that it has a handle of.
    ///
    /// ```
    /// use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// let sim = Sim::new(1);
    /// let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// let writer = db.clone();
    /// sim.spawn(async move { writer.put(b"key", b"value").await.unwrap() });
    /// sim.run_for(1_000_000_000);
    /// assert!(db.get(b"key").wait()?.is_some());
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let refused = {
            let mut machine = self.shared.machine.lock();
            if machine.down {
                Some(task)
            } else {
                let id = machine.next_id();
                machine.tasks.insert(id, Box::pin(task));
                None
            }
        };
        drop(refused);
    }

    /// Steps the machine until `future` is ready.
    ///
    /// # Panics
    /// When nothing can ever happen any more ("deadlock"), when the future
    /// is not woken in millions of steps ("stuck"), and when it is called in a
    /// task.
    ///
    /// ```
    /// use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// let sim = Sim::new(1);
    /// let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// sim.block_on(async { db.put(b"key", b"value").await })?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let _driving = Driving::start(&self.shared);
        let mut future = pin!(future);
        let (root, waker) = {
            let mut machine = self.shared.machine.lock();
            let root = machine.next_id();
            (root, machine.tasks.waker(root))
        };
        let mut steps = 0;
        loop {
            let action = self.shared.machine.lock().step(Some(root), u64::MAX);
            match action {
                Action::PollRoot => {
                    steps = 0;
                    let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
                    assert_unlocked("a poll");
                    if let Poll::Ready(output) = polled {
                        return output;
                    }
                }
                Action::Idle => panic!(
                    "deadlock: the future waits, but no task is ready, no request is in flight \
                     and no timer is set ({})",
                    self.describe()
                ),
                action => {
                    if self.carry_out(action) {
                        // The thread that waits dies with its process.
                        std::panic::resume_unwind(Box::new(Crashed));
                    }
                }
            }
            steps += 1;
            assert!(
                steps < STEPS_MAX,
                "stuck: the future was not woken in {STEPS_MAX} steps ({})",
                self.describe()
            );
        }
    }

    /// Steps the machine until no task is ready and no request is in flight,
    /// and `nanos` have passed. Timers further ahead stay. Returns whether the
    /// machine crashed meanwhile, as [`Sim::crash_after`] wanted.
    ///
    /// ```
    /// use ourodb::sim::Sim;
    /// let sim = Sim::new(1);
    /// assert!(!sim.run_for(1_000_000_000));
    /// ```
    pub fn run_for(&self, nanos: u64) -> bool {
        let _driving = Driving::start(&self.shared);
        let horizon_ns = self.now_ns().saturating_add(nanos);
        for _ in 0..STEPS_MAX {
            let action = {
                let mut machine = self.shared.machine.lock();
                let action = machine.step(None, horizon_ns);
                if matches!(action, Action::Idle) {
                    machine.now_ns = machine.now_ns.max(horizon_ns);
                    return false;
                }
                action
            };
            if self.carry_out(action) {
                return true;
            }
        }
        panic!("stuck: the tasks did not come to rest in {STEPS_MAX} steps ({})", self.describe());
    }

    /// Carries the action out. Whether the machine then crashed, as
    /// [`Sim::crash_after`] wanted.
    fn carry_out(&self, action: Action) -> bool {
        let is_completion = matches!(action, Action::Deliver(_));
        match action {
            Action::Poll(id, mut future, waker) => {
                let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
                assert_unlocked("a simulated task's poll");
                let over = {
                    let mut machine = self.shared.machine.lock();
                    if polled.is_ready() {
                        machine.tasks.tasks.remove(&id);
                        Some(future)
                    } else {
                        machine.tasks.put_back(id, future)
                    }
                };
                drop(over);
            }
            Action::Deliver(delivery) => delivery(),
            Action::Wake(waker) => waker.wake(),
            Action::PollRoot | Action::Idle => {}
        }
        if !is_completion {
            return false;
        }
        let due = {
            let mut machine = self.shared.machine.lock();
            match &mut machine.crash_after {
                Some((0, crash)) => {
                    let crash = *crash;
                    machine.crash_after = None;
                    Some(crash)
                }
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some(crash) = due {
            self.crash(crash);
        }
        due.is_some()
    }

    /// Lets the machine crash when this many more requests have completed:
    /// lose power, or only the process. Whoever waits at that moment is
    /// unwound, see [`Sim::until_crash`]. A crash that comes earlier takes
    /// this one's place.
    ///
    /// ```
    /// use ourodb::sim::Sim;
    /// let sim = Sim::new(1);
    /// sim.crash_after(100, true);
    /// ```
    pub fn crash_after(&self, completions: u64, power_cut: bool) {
        let crash = if power_cut { Crash::PowerCut } else { Crash::Kill };
        self.shared.machine.lock().crash_after = Some((completions, crash));
    }

    /// Calls `work`, a part of the simulated process: `None` when the machine
    /// crashed under it.
    ///
    /// ```
    /// use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// let sim = Sim::new(1);
    /// let options = Options::default().io(IoBackend::Sim(sim.clone()));
    /// sim.crash_after(5, true);
    /// assert!(sim.until_crash(|| Db::open("/data", options).unwrap()).is_none());
    /// ```
    pub fn until_crash<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
            Ok(result) => Some(result),
            Err(panic) if panic.is::<Crashed>() => None,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Ends the process. Its tasks are dropped first, while the machine
    /// accepts nothing; whoever waited for it from outside gets an error.
    pub(super) fn crash(&self, crash: Crash) {
        let wreck = {
            let mut machine = self.shared.machine.lock();
            machine.crash_after = None;
            machine.crash(crash)
        };
        drop(wreck.tasks);
        for request in wreck.requests {
            let error = request.op.restarted();
            request.op.fail(error);
        }
        for waker in wreck.timers.into_values() {
            waker.wake();
        }
        self.shared.machine.lock().down = false;
    }

    fn describe(&self) -> String {
        let machine = self.shared.machine.lock();
        format!(
            "seed {}, {} tasks, {} requests in flight, {} ns since the start",
            self.shared.seed,
            machine.tasks.tasks.len(),
            machine.in_flight(),
            machine.now_ns
        )
    }
}
