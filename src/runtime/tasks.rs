//! The tasks of one owner, and how they are woken.
//!
//! [`Local`] belongs to the owner's thread: futures never leave it, and a
//! wake-up from the same thread is a push to a plain queue. Other threads only
//! know the [`Inbox`], by way of the wakers. It has no lock: a thread of the
//! idle class, which may be stopped anywhere for long, wakes tasks too, and
//! must hold up nobody.
//!
//! Tasks live in numbered slots. A slot keeps its waker for ever, whichever
//! task has it: what a late wake-up costs is a poll that finds nothing.
//!
//! Nothing of this is borrowed while a future is polled or dropped.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use super::counters::RuntimeCounters;
use super::preempt::SLICE_NS;
use crate::base::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::base::sync::{assert_unlocked, thread_local};
use crate::io::{Driver, Unpark};

/// A task: what it is called in reports, and what it does. It never leaves the
/// owner's thread.
pub(crate) struct Job {
    name: &'static str,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

impl Job {
    pub(crate) fn new(name: &'static str, future: impl Future<Output = ()> + 'static) -> Self {
        Self { name, future: Box::pin(future) }
    }
}

/// What belongs to the owner's thread.
pub(super) struct Local {
    pub(super) inbox: Arc<Inbox>,
    pub(super) counters: Arc<RuntimeCounters>,
    pub(super) driver: Rc<dyn Driver>,
    slots: RefCell<Slots>,
    ready: RefCell<VecDeque<u32>>,
    /// Tasks left that the executor runs for.
    pub(super) main_left: Cell<usize>,
    /// The last reading of the clock: within a poll, when it began.
    pub(super) now_ns: Cell<u64>,
    has_ended: Cell<bool>,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Those of the slots, by their numbers.
    wakeups: Vec<Arc<Wakeup>>,
}

enum Slot {
    Free(Handle),
    /// It waits, or is to be polled.
    Idle(Task),
    /// It is being polled.
    Polled,
}

struct Task {
    job: Job,
    is_main: bool,
    handle: Handle,
}

/// How a slot's task is woken.
struct Handle {
    wakeup: Arc<Wakeup>,
    waker: Waker,
}

/// Wake-ups from other threads: a list through the [`Wakeup`]s themselves,
/// which any thread adds to, and of which the owner takes all.
pub(super) struct Inbox {
    /// The number of the slot that was woken last, plus one; or 0.
    last: AtomicU32,
    /// Set before the owner sleeps; whoever clears it has to unpark.
    sleeping: AtomicBool,
    unpark: Arc<dyn Unpark>,
    counters: Arc<RuntimeCounters>,
}

struct Wakeup {
    slot: u32,
    /// Whether the slot's number is in a queue.
    queued: AtomicBool,
    /// While it is in the inbox: the one woken before it, like [`Inbox::last`].
    before: AtomicU32,
    inbox: Arc<Inbox>,
}

thread_local! {
    /// What runs on this thread, if it is an owner's.
    static CURRENT: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
}

/// Whether the calling thread is an owner's. It must not block.
pub(crate) fn is_owner_thread() -> bool {
    CURRENT.try_with(|current| current.borrow().is_some()).unwrap_or(false)
}

/// Whether the calling task may work on; see [`super::slice_end`].
pub(super) fn may_go_on() -> bool {
    let go_on = CURRENT
        .try_with(|current| current.borrow().as_ref().is_some_and(|local| !local.is_slice_over()));
    go_on.unwrap_or(false)
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Whoever finds it set knows that the poll to come sees what this
        // thread did before: the owner clears it with a swap, too.
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let here = CURRENT.try_with(|current| match &*current.borrow() {
            Some(local) if Arc::ptr_eq(&local.inbox, &self.inbox) => {
                local.ready.borrow_mut().push_back(self.slot);
                true
            }
            _ => false,
        });
        if !here.unwrap_or(false) {
            self.inbox.push(self);
        }
    }
}

impl Inbox {
    /// Adds a wake-up, which is in no queue. A list that was taken and begun
    /// anew meanwhile does no harm: what counts is that `before` is the last
    /// one at the moment of the exchange.
    fn push(&self, wakeup: &Wakeup) {
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            wakeup.before.store(last, Ordering::Relaxed);
            let own = wakeup.slot + 1;
            match self.last.compare_exchange_weak(last, own, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => last = now,
            }
        }
        // The owner sets `sleeping`, then reads `last`; this thread the other
        // way round. One of them sees what the other did.
        if self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst) {
            self.counters.unpark();
            self.unpark.unpark();
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.last.load(Ordering::SeqCst) != 0
    }

    /// Says that the owner is about to sleep. Whether it may: then whoever
    /// pushes from now on unparks it.
    pub(super) fn fall_asleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        if self.is_pending() {
            self.stay_awake();
            return false;
        }
        true
    }

    pub(super) fn stay_awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }
}

impl Local {
    pub(super) fn new(driver: Rc<dyn Driver>) -> Rc<Self> {
        let counters = Arc::<RuntimeCounters>::default();
        let inbox = Inbox {
            last: AtomicU32::new(0),
            sleeping: AtomicBool::new(false),
            unpark: driver.unparker(),
            counters: Arc::clone(&counters),
        };
        Rc::new(Self {
            inbox: Arc::new(inbox),
            counters,
            driver,
            slots: RefCell::default(),
            ready: RefCell::default(),
            main_left: Cell::new(0),
            now_ns: Cell::new(0),
            has_ended: Cell::new(false),
        })
    }

    /// A task to be polled soon. Once the executor has ended it is dropped.
    pub(super) fn spawn(&self, job: Job, is_main: bool) {
        if self.has_ended.get() {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let number = match slots.free.pop() {
            Some(number) => number,
            None => {
                let number = u32::try_from(slots.slots.len()).expect("fewer than 2^32 tasks");
                assert!(number < u32::MAX, "the inbox counts from one");
                let wakeup = Arc::new(Wakeup {
                    slot: number,
                    queued: AtomicBool::new(false),
                    before: AtomicU32::new(0),
                    inbox: Arc::clone(&self.inbox),
                });
                let waker = Waker::from(Arc::clone(&wakeup));
                slots.wakeups.push(Arc::clone(&wakeup));
                slots.slots.push(Slot::Free(Handle { wakeup, waker }));
                number
            }
        };
        let slot = &mut slots.slots[number as usize];
        let Slot::Free(handle) = std::mem::replace(slot, Slot::Polled) else {
            unreachable!("only free slots are in the list of free ones");
        };
        // Otherwise a late wake-up of the slot's last task has queued it.
        if !handle.wakeup.queued.swap(true, Ordering::AcqRel) {
            self.ready.borrow_mut().push_back(number);
        }
        *slot = Slot::Idle(Task { job, is_main, handle });
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    pub(super) fn ready_count(&self) -> usize {
        self.ready.borrow().len()
    }

    /// Makes ready what other threads woke, in the order of the wake-ups.
    pub(super) fn empty_inbox(&self) {
        if !self.inbox.is_pending() {
            return;
        }
        let slots = self.slots.borrow();
        let mut ready = self.ready.borrow_mut();
        let first = ready.len();
        let mut next = self.inbox.last.swap(0, Ordering::SeqCst);
        // None of them is pushed again before its task was taken to be polled.
        while let Some(slot) = next.checked_sub(1) {
            ready.push_back(slot);
            next = slots.wakeups[slot as usize].before.load(Ordering::Relaxed);
        }
        ready.make_contiguous()[first..].reverse();
    }

    /// Polls the task that has been ready for longest: its name, if there was
    /// one.
    pub(super) fn poll_next(&self) -> Option<&'static str> {
        let number = self.ready.borrow_mut().pop_front()?;
        let mut task = self.take(number)?;
        let mut cx = Context::from_waker(&task.handle.waker);
        let has_ended = task.job.future.as_mut().poll(&mut cx).is_ready();
        assert_unlocked(task.job.name);
        let Task { job, is_main, handle } = task;
        let name = job.name;
        let mut slots = self.slots.borrow_mut();
        if has_ended {
            slots.slots[number as usize] = Slot::Free(handle);
            slots.free.push(number);
            drop(slots);
            self.main_left.set(self.main_left.get() - usize::from(is_main));
            drop(job);
        } else {
            slots.slots[number as usize] = Slot::Idle(Task { job, is_main, handle });
        }
        Some(name)
    }

    /// The slot's task, to be polled. A wake-up from now on queues it again.
    fn take(&self, number: u32) -> Option<Task> {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots.slots[number as usize];
        match std::mem::replace(slot, Slot::Polled) {
            Slot::Idle(task) => {
                task.handle.wakeup.queued.swap(false, Ordering::AcqRel);
                Some(task)
            }
            Slot::Free(handle) => {
                handle.wakeup.queued.swap(false, Ordering::AcqRel);
                *slot = Slot::Free(handle);
                None
            }
            Slot::Polled => unreachable!("a task was polled within its own poll"),
        }
    }

    fn is_slice_over(&self) -> bool {
        if !self.ready.borrow().is_empty() {
            return true;
        }
        let now_ns = self.driver.now_ns();
        self.inbox.is_pending()
            || self.driver.has_work(now_ns)
            || now_ns - self.now_ns.get() >= SLICE_NS
    }

    /// Drops every task, and those that they spawn as they go.
    pub(super) fn drop_tasks(&self) {
        self.has_ended.set(true);
        let slots = std::mem::take(&mut *self.slots.borrow_mut());
        drop(slots);
        self.ready.borrow_mut().clear();
    }
}

/// Makes the calling thread an owner's until it is dropped. The tasks are
/// dropped with it, also when one of them panics.
pub(super) struct Entered<'a>(&'a Local);

impl<'a> Entered<'a> {
    pub(super) fn new(local: &'a Rc<Local>) -> Self {
        CURRENT.with(|current| {
            let before = current.borrow_mut().replace(Rc::clone(local));
            assert!(before.is_none(), "an executor runs on this thread already");
        });
        Self(local)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.drop_tasks();
        let local = CURRENT.try_with(|current| current.borrow_mut().take());
        drop(local);
    }
}
