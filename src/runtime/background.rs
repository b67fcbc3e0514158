//! Background work beside an owner: futures that either of two threads polls.
//!
//! The owner's *worker* is a thread of the class `SCHED_IDLE`, which gets what
//! others leave of the cores. While background work keeps up, the worker does
//! it; when it falls behind (see [`Background::set_debt`]), the owner does it
//! itself, in slices between its other tasks, so that it gets on however busy
//! the cores are.
//!
//! **Who has a task.** A task is a value that is moved: it is in the hands of
//! who polls it, in one of the two [`Handover`]s on its way, or with the owner,
//! where all tasks that wait for something stay. So it is polled by one thread
//! at a time, goes on exactly where it was, and takes all it owns along.
//!
//! **The worker holds nobody up.** It may be stopped for hundreds of
//! milliseconds at any instruction, while others use its core. Therefore it
//! shares nothing with a lock in it:
//!
//! * Tasks and requests pass through the handovers, without a lock. So do
//!   wake-ups of the owner's tasks ([`Inbox`](super::tasks::Inbox)).
//! * A task's requests are done by the owner. The answer (whose way to the
//!   task, a oneshot, has a lock) is kept back while the task is away: it is
//!   given when the task is with the owner. What comes of a task is sent by the
//!   owner, too, once the task has come back for good.
//! * A task on its way that a starved worker has not taken yet is taken back.
//!   One that it is polling comes back at the next
//!   [`slice_end`](super::slice_end) it reaches; it was told by a flag, which
//!   cannot get lost.
//! * The tasks themselves take no lock that a foreground thread waits for, and
//!   free nothing big: what is expensive to free is part of what comes of them,
//!   which is dropped elsewhere. Buffers go back to their pool without a lock.
//! * What somebody waits for, and a starved worker does not let go of
//!   ([`Running::is_away`]), may be begun anew: the first is dropped when it
//!   comes back.
//! * What nobody waits for gets a tenth of a core all the same: with a starved
//!   worker it is the owner who does it, for a part of the time
//!   ([`Patience`]).
//!
//! The worker looks at the handover before it parks, and unparking is
//! remembered: no wake-up is lost, however late it comes to look.
//!
//! Where there is no worker (none can be started, or the kernel refuses it its
//! class) the owner does everything. On the simulated machine each background
//! future is a task of the machine's.

use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};

use super::background_io::{Answer, BackgroundIo, Posting, Request};
use super::closure::{Contained, Panicked};
use super::handover::Handover;
use super::patience::Patience;
use super::worker::{self, EnterIdle};
use super::{Budget, Budgeted, LocalIo, RuntimeCounters, Spawner, oneshot};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::Mutex;
use crate::io::{Io, IoCounters};

/// The background work of one owner. A handle; clones are of the same.
#[derive(Clone)]
pub(crate) struct Background {
    place: Place,
    budget: Arc<Budget>,
    counters: Arc<RuntimeCounters>,
}

/// Where background work is done.
#[derive(Clone)]
enum Place {
    Owner(Arc<Inner>),
    #[cfg(feature = "sim")]
    Sim(crate::io::sim::Sim),
}

struct Inner {
    shared: Arc<Shared>,
    io_counters: Arc<IoCounters>,
    /// A lock that only the owner's side takes, for moments.
    home: Mutex<Home>,
}

/// What the owner keeps.
#[derive(Default)]
struct Home {
    tasks_made: u64,
    /// Tasks that wait, for something or for their turn.
    tasks: VecDeque<Task>,
    /// Tasks that were handed to the worker, by their numbers, and answers that
    /// have come for them meanwhile.
    away: BTreeMap<u64, Vec<Answer>>,
    /// There is a worker, and it is of the idle class.
    has_worker: bool,
    worker: Option<JoinHandle<()>>,
}

/// What owner and worker share, and wakers know.
pub(crate) struct Shared {
    pub(super) to_owner: Handover<ToOwner>,
    pub(super) to_worker: Handover<Task>,
    /// The worker is to give back what it has: the owner does it.
    pub(super) recalled: AtomicBool,
    /// The same, as the worker is starved.
    starved: AtomicBool,
    /// How often the worker has come by to see what there is for it.
    pub(super) looks: AtomicU64,
    /// The worker is to end.
    pub(super) ended: AtomicBool,
    /// Wakes the owner's task that drives background work.
    drives: OnceLock<Waker>,
    worker: OnceLock<Thread>,
    pub(super) counters: Arc<RuntimeCounters>,
}

/// What the owner is told.
pub(super) enum ToOwner {
    /// A task comes back: it has ended, waits for something, or was recalled.
    Home(Task),
    /// The task of this number wants something done.
    Request(u64, Request),
    /// The worker has started; or ended, because it did not get its class.
    Worker(std::io::Result<()>),
}

/// Background work that has begun.
pub(super) struct Task {
    work: Box<dyn Work>,
    wakeup: Arc<Wakeup>,
    waker: Waker,
    has_ended: bool,
}

pub(super) struct Wakeup {
    /// The task's number.
    task: u64,
    woken: AtomicBool,
    /// Nobody waits for it any more: it ends at its next poll.
    abandoned: AtomicBool,
    shared: Arc<Shared>,
}

/// Background work that has begun, for who waits for it. Dropping it ends the
/// work at the end of its slice; a request of it goes on.
pub(crate) struct Running<T> {
    answer: oneshot::Receiver<Result<T>>,
    /// `None` where no worker can have it.
    task: Option<(Arc<Inner>, Arc<Wakeup>)>,
}

trait Work: Send {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Tells who waits for it what came of it.
    fn finish(self: Box<Self>);
}

/// A future, and who waits for it.
struct Run<F: Future<Output = Result<T>>, T> {
    name: &'static str,
    future: Contained<F>,
    output: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<F: Future<Output = Result<T>> + Send, T: Send> Work for Run<F, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.future)
            .poll(cx)
            .map(|output| self.output = Some(flatten(self.name, output)))
    }

    fn finish(self: Box<Self>) {
        if let Some(output) = self.output {
            self.reply.send(output);
        }
    }
}

fn flatten<T>(name: &str, output: Result<Result<T>, Panicked>) -> Result<T> {
    output.unwrap_or_else(|Panicked(message)| {
        let message = format!("a {name} in the background panicked ({message}); please report it");
        Err(Error::new(ErrorKind::Poisoned, message))
    })
}

impl Task {
    /// Polls it, by whoever has it. Whether it has ended.
    pub(super) fn poll(&mut self) -> bool {
        self.wakeup.woken.swap(false, Ordering::AcqRel);
        if self.wakeup.is_abandoned() {
            self.has_ended = true;
            return true;
        }
        let polled = self.work.poll(&mut Context::from_waker(&self.waker));
        self.has_ended = polled.is_ready();
        self.has_ended
    }

    pub(super) fn number(&self) -> u64 {
        self.wakeup.task
    }

    /// Whether it is to be polled again.
    pub(super) fn is_woken(&self) -> bool {
        self.wakeup.woken.load(Ordering::Acquire)
    }
}

impl<T> Running<T> {
    /// Whether the worker has it, or has not yet told that it is back.
    pub(crate) fn is_away(&self) -> bool {
        self.task.as_ref().is_some_and(|(inner, wakeup)| {
            let home = inner.home.lock();
            home.away.contains_key(&wakeup.task)
        })
    }
}

impl<T> Future for Running<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let answer = Pin::new(&mut self.answer).poll(cx);
        answer.map(|answer| answer.unwrap_or_else(|oneshot::Gone| Err(Error::closed())))
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        if let Some((_, wakeup)) = &self.task {
            wakeup.abandoned.store(true, Ordering::Relaxed);
            wakeup.wake_by_ref();
        }
    }
}

impl Wakeup {
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Has the owner do something for the task.
    pub(super) fn post(&self, request: Request) {
        self.shared.post(ToOwner::Request(self.task, request));
    }
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A task that is away is looked at when it comes back, and the worker
        // looks by itself after each poll.
        if !self.woken.swap(true, Ordering::AcqRel) && !worker::is_polling(&self.shared, self.task)
        {
            self.shared.wake_owner();
        }
    }
}

impl Shared {
    fn wake_owner(&self) {
        // Before its first poll the task that drives needs no waking.
        if let Some(waker) = self.drives.get() {
            waker.wake_by_ref();
        }
    }

    /// Tells the owner something, from any thread.
    pub(super) fn post(&self, message: ToOwner) {
        self.to_owner.push(message);
        self.wake_owner();
    }

    /// Whether the worker is to let go of what it has.
    pub(super) fn is_recalled(&self) -> bool {
        self.is_wanted() || self.starved.load(Ordering::Relaxed)
    }

    /// Whether the owner is to do all of it, at once.
    fn is_wanted(&self) -> bool {
        self.recalled.load(Ordering::Relaxed) || self.ended.load(Ordering::Relaxed)
    }

    fn unpark_worker(&self) {
        if let Some(thread) = self.worker.get() {
            thread.unpark();
        }
    }
}

impl Background {
    /// Background work beside the owner that `spawner` belongs to, with a
    /// worker of this name. Requests are done with `io`, within `budget`. When
    /// the owner ends, what runs is dropped.
    pub(crate) fn start(spawner: &Spawner, io: LocalIo, budget: Arc<Budget>, worker: &str) -> Self {
        Self::start_with(spawner, io, budget, worker, worker::enter_idle_class)
    }

    /// The same, with another way into the idle class.
    pub(super) fn start_with(
        spawner: &Spawner,
        io: LocalIo,
        budget: Arc<Budget>,
        worker: &str,
        enter_idle: EnterIdle,
    ) -> Self {
        let counters = Arc::clone(spawner.counters());
        let shared = Arc::new(Shared {
            to_owner: Handover::new(),
            to_worker: Handover::new(),
            recalled: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            looks: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            drives: OnceLock::new(),
            worker: OnceLock::new(),
            counters: Arc::clone(&counters),
        });
        let mut home = Home::default();
        match worker::start(worker, &shared, enter_idle) {
            Ok(thread) => {
                shared.worker.get_or_init(|| thread.thread().clone());
                home.worker = Some(thread);
            }
            Err(error) => shared.to_owner.push(ToOwner::Worker(Err(error))),
        }
        let io_counters = Arc::clone(io.counters());
        let inner = Arc::new(Inner { shared, io_counters, home: Mutex::new(home) });
        let budgeted = Budgeted::new(io, Arc::clone(&budget), Arc::clone(&counters));
        let mut driver = Driver {
            inner: Arc::clone(&inner),
            patience: Patience::new(budgeted.now_ns()),
            io: budgeted,
            spawner: spawner.clone(),
            timer: None,
        };
        spawner.spawn("background", poll_fn(move |cx| driver.turn(cx)));
        Self { place: Place::Owner(inner), budget, counters }
    }

    /// Background work of a process on the simulated machine.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated(sim: &crate::io::sim::Sim, budget: Arc<Budget>) -> Self {
        Self { place: Place::Sim(sim.clone()), budget, counters: Arc::default() }
    }

    /// Begins `work`, which gets the I/O that it is to use; the future it
    /// returns is polled here or there, and awaits
    /// [`slice_end`](super::slice_end) every few tens of microseconds. The
    /// module's text says what it must not do. `name` stands for it in errors.
    ///
    /// # Errors
    /// Those of the work; `Poisoned` when it panics, `Closed` when the owner
    /// ends before it does.
    pub(crate) fn run<W, F, T>(&self, name: &'static str, work: W) -> Running<T>
    where
        W: FnOnce(BackgroundIo) -> F,
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = match &self.place {
            Place::Owner(inner) => {
                let wakeup = inner.run(name, reply, work);
                Some((Arc::clone(inner), wakeup))
            }
            #[cfg(feature = "sim")]
            Place::Sim(sim) => {
                let future = Contained::new(|| work(BackgroundIo::Sim(self.budgeted(sim))));
                sim.spawn(while_wanted(name, future, reply));
                None
            }
        };
        Running { answer, task }
    }

    /// Whether background work is behind. Then the owner does it itself.
    pub(crate) fn set_debt(&self, is_behind: bool) {
        match &self.place {
            Place::Owner(inner) => {
                let shared = &inner.shared;
                if shared.recalled.swap(is_behind, Ordering::Relaxed) != is_behind {
                    shared.wake_owner();
                }
            }
            #[cfg(feature = "sim")]
            Place::Sim(_) => {}
        }
    }

    /// Whether the worker gets so little of the cores that the owner does a part of
    /// its work.
    pub(crate) fn is_starved(&self) -> bool {
        match &self.place {
            Place::Owner(inner) => inner.shared.starved.load(Ordering::Relaxed),
            #[cfg(feature = "sim")]
            Place::Sim(_) => false,
        }
    }

    /// `io`, used on the owner's thread, within the device's budget.
    pub(crate) fn budgeted<I: Io>(&self, io: &I) -> Budgeted<I> {
        Budgeted::new(io.clone(), Arc::clone(&self.budget), Arc::clone(&self.counters))
    }

    /// Counters of the owner, these among them.
    pub(crate) fn counters(&self) -> &Arc<RuntimeCounters> {
        &self.counters
    }
}

/// Polls `future` to its end, or until nobody waits for it any more.
#[cfg(feature = "sim")]
async fn while_wanted<F, T>(
    name: &'static str,
    mut future: Contained<F>,
    mut reply: oneshot::Sender<Result<T>>,
) where
    F: Future<Output = Result<T>>,
{
    let output = poll_fn(|cx| {
        if reply.poll_unwanted(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut future).poll(cx).map(Some)
    });
    if let Some(output) = output.await {
        reply.send(flatten(name, output));
    }
}

/// The owner's side, as a task on the owner.
struct Driver {
    inner: Arc<Inner>,
    io: Budgeted<LocalIo>,
    spawner: Spawner,
    patience: Patience,
    /// Ends in time for the next look at what the worker does.
    timer: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Driver {
    /// Does what there is to do, but polls one task at most.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = Arc::clone(&self.inner.shared);
        let drives = shared.drives.get_or_init(|| cx.waker().clone());
        assert!(drives.will_wake(cx.waker()), "one task drives, and has one waker");
        if self.patience.look(self.io.now_ns(), shared.looks.load(Ordering::Relaxed)) {
            shared.unpark_worker();
        }
        shared.starved.store(self.patience.is_over(), Ordering::Relaxed);
        if shared.is_recalled() {
            // Those that the worker has not looked at.
            for task in shared.to_worker.take_all() {
                self.inner.came_home(task);
            }
        }
        for message in shared.to_owner.take_all() {
            match message {
                ToOwner::Home(task) => self.inner.came_home(task),
                ToOwner::Request(task, request) => {
                    let (inner, io) = (Arc::clone(&self.inner), self.io.clone());
                    self.spawner.spawn("background I/O", async move {
                        let answer = request(io).await;
                        inner.deliver(task, answer);
                    });
                }
                ToOwner::Worker(started) => self.inner.worker_started(started),
            }
        }
        if !self.inner.hand_over() {
            self.poll_one(cx);
        }
        self.patience.has_work(self.inner.is_any_away() && !shared.is_wanted());
        self.watch(cx);
        Poll::Pending
    }

    /// Polls a task, if the owner is to do so now.
    fn poll_one(&mut self, cx: &mut Context<'_>) {
        let shared = &self.inner.shared;
        let has_done_enough =
            |patience: &Patience| patience.has_done_enough() && !shared.is_wanted();
        if has_done_enough(&self.patience) {
            return;
        }
        let Some(mut task) = self.inner.next_woken() else {
            return;
        };
        shared.counters.owner_slice();
        let began_ns = self.io.now_ns();
        if task.poll() {
            task.work.finish();
        } else {
            self.inner.home.lock().tasks.push_back(task);
        }
        self.patience.did(self.io.now_ns() - began_ns);
        if self.inner.has_woken() && !has_done_enough(&self.patience) {
            cx.waker().wake_by_ref();
        }
    }

    /// Sees to it that there is a turn when the next look at the worker is due.
    fn watch(&mut self, cx: &mut Context<'_>) {
        let Some(ns) = self.patience.look_in_ns(self.inner.has_woken()) else {
            return;
        };
        let timer = self.timer.get_or_insert_with(|| {
            let io = self.io.clone();
            Box::pin(async move { io.sleep(ns).await })
        });
        // One that was set before may end too early: then the next is set.
        if timer.as_mut().poll(cx).is_ready() {
            self.timer = None;
            cx.waker().wake_by_ref();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.inner.end();
    }
}

impl Inner {
    fn run<W, F, T>(
        &self,
        name: &'static str,
        reply: oneshot::Sender<Result<T>>,
        work: W,
    ) -> Arc<Wakeup>
    where
        W: FnOnce(BackgroundIo) -> F,
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let number = {
            let mut home = self.home.lock();
            home.tasks_made += 1;
            home.tasks_made
        };
        let shared = Arc::clone(&self.shared);
        let wakeup = Arc::new(Wakeup {
            task: number,
            woken: AtomicBool::new(true),
            abandoned: AtomicBool::new(false),
            shared,
        });
        let waker = Waker::from(Arc::clone(&wakeup));
        let posting = Posting::new(&wakeup, Arc::clone(&self.io_counters));
        let future = Contained::new(|| work(BackgroundIo::Owner(posting)));
        let work = Box::new(Run { name, future, output: None, reply });
        let task = Task { work, wakeup: Arc::clone(&wakeup), waker, has_ended: false };
        let refused = {
            let mut home = self.home.lock();
            if self.shared.ended.load(Ordering::Relaxed) {
                Some(task)
            } else {
                home.tasks.push_back(task);
                None
            }
        };
        drop(refused);
        self.shared.wake_owner();
        wakeup
    }

    fn worker_started(&self, started: std::io::Result<()>) {
        match started {
            Ok(()) => self.home.lock().has_worker = true,
            Err(error) => worker::warn_of_none(&error),
        }
    }

    /// A task is back: it gets what has come for it meanwhile.
    fn came_home(&self, task: Task) {
        self.shared.counters.background_move();
        let answers = self.home.lock().away.remove(&task.number());
        for answer in answers.expect("a task comes back once") {
            answer();
        }
        if task.has_ended {
            task.work.finish();
        } else {
            self.home.lock().tasks.push_back(task);
        }
    }

    /// Gives a task an answer, unless the worker has it.
    fn deliver(&self, task: u64, answer: Answer) {
        let answer = match self.home.lock().away.get_mut(&task) {
            Some(answers) => {
                answers.push(answer);
                return;
            }
            None => answer,
        };
        answer();
    }

    /// Gives the worker the tasks that are to be polled. False when they are
    /// the owner's to poll.
    fn hand_over(&self) -> bool {
        let mut home = self.home.lock();
        if !home.has_worker || self.shared.is_recalled() {
            return false;
        }
        let before = home.away.len();
        for _ in 0..home.tasks.len() {
            let Some(task) = home.tasks.pop_front() else { break };
            if task.is_woken() {
                self.shared.counters.background_move();
                home.away.insert(task.number(), Vec::new());
                self.shared.to_worker.push(task);
            } else {
                home.tasks.push_back(task);
            }
        }
        let has_handed = home.away.len() > before;
        drop(home);
        if has_handed {
            self.shared.unpark_worker();
        }
        true
    }

    fn next_woken(&self) -> Option<Task> {
        let mut home = self.home.lock();
        let at = home.tasks.iter().position(Task::is_woken)?;
        home.tasks.remove(at)
    }

    fn is_any_away(&self) -> bool {
        !self.home.lock().away.is_empty()
    }

    fn has_woken(&self) -> bool {
        self.home.lock().tasks.iter().any(Task::is_woken)
    }

    /// Ends the worker, and drops all tasks.
    fn end(&self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.unpark_worker();
        let worker = self.home.lock().worker.take();
        if let Some(worker) = worker
            && worker.join().is_err()
        {
            tracing::error!("a thread for background work panicked");
        }
        // Nobody else has any now. Outside of the lock: what they own may be
        // waited for.
        let tasks = std::mem::take(&mut self.home.lock().tasks);
        drop((tasks, self.shared.to_worker.take_all(), self.shared.to_owner.take_all()));
        let answers = std::mem::take(&mut self.home.lock().away);
        drop(answers);
    }
}
