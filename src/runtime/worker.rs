//! The thread beside an owner: it polls background tasks with what others leave
//! of the cores. See [`background`](super::background) for what it must not do.

#![expect(unsafe_code, reason = "a system call that rustix does not have")]

use crate::base::sync::atomic::{AtomicBool, Ordering};
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::background::{Shared, Task, ToOwner};
use crate::io::Io;
use crate::io::blocking::Blocking;

/// How long a task is polled before the worker looks for others, and for
/// requests of its own to get on.
const SLICE_NS: u64 = 1_000_000;

/// How a thread makes itself one of the idle class.
pub(super) type EnterIdle = fn() -> io::Result<()>;

/// The poll that is going on.
struct Slice {
    shared: Arc<Shared>,
    /// The task's number.
    task: u64,
    clock: Blocking,
    until_ns: u64,
}

thread_local! {
    static SLICE: RefCell<Option<Slice>> = const { RefCell::new(None) };
}

/// Makes the calling thread one of the class `SCHED_IDLE`, for ever: an
/// ordinary user's thread may enter it, and not leave.
pub(super) fn enter_idle_class() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads `param`, which lives until it returns; 0 names the
    // calling thread.
    let result = unsafe {
        libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const param)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Starts the worker. It tells the owner whether it got its class, and ends if
/// not.
pub(super) fn start(
    name: &str,
    shared: &Arc<Shared>,
    enter_idle: EnterIdle,
) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let entered = enter_idle();
        let is_idle = entered.is_ok();
        shared.post(ToOwner::Worker(entered));
        if is_idle {
            work(&shared);
        }
    })
}

/// Polls the tasks that are handed to it, each for a slice, until it is to end.
fn work(shared: &Arc<Shared>) {
    let clock = Blocking::new(Arc::default());
    loop {
        // The only one that counts them.
        let looks = shared.looks.load(Ordering::Relaxed);
        shared.looks.store(looks + 1, Ordering::Relaxed);
        // What it does not poll now, its owner may take back.
        let mut tasks = shared.to_worker.take_all().into_iter();
        let task = tasks.next();
        tasks.for_each(|task| shared.to_worker.push(task));
        match task {
            Some(task) => poll(shared, &clock, task),
            // Only with nothing left: those at the end have owners.
            None if shared.ended.load(Ordering::Relaxed) => return,
            None => crate::base::sync::thread::park(),
        }
    }
}

fn poll(shared: &Arc<Shared>, clock: &Blocking, mut task: Task) {
    if shared.is_recalled() {
        shared.post(ToOwner::Home(task));
        return;
    }
    let until_ns = clock.now_ns() + SLICE_NS;
    let (shared_too, number) = (Arc::clone(shared), task.number());
    let slice = Slice { shared: shared_too, task: number, clock: clock.clone(), until_ns };
    SLICE.set(Some(slice));
    let has_ended = task.poll();
    SLICE.set(None);
    shared.counters.worker_slice();
    if !has_ended && task.is_woken() && !shared.is_recalled() {
        shared.to_worker.push(task);
    } else {
        shared.post(ToOwner::Home(task));
    }
}

/// Whether the calling thread is the worker that polls the task of this number.
pub(super) fn is_polling(shared: &Arc<Shared>, task: u64) -> bool {
    let is_polling = SLICE.try_with(|slice| {
        let slice = slice.borrow();
        slice.as_ref().is_some_and(|slice| slice.task == task && Arc::ptr_eq(&slice.shared, shared))
    });
    is_polling.unwrap_or(false)
}

/// Whether the task that the calling thread polls may go on, if it is a
/// worker's; see [`super::slice_end`].
pub(super) fn may_go_on() -> bool {
    let go_on = SLICE.try_with(|slice| {
        let slice = slice.borrow();
        let slice = slice.as_ref()?;
        Some(!slice.shared.is_recalled() && slice.clock.now_ns() < slice.until_ns)
    });
    go_on.ok().flatten().unwrap_or(false)
}

/// Says once that background work competes with everything else.
pub(super) fn warn_of_none(error: &io::Error) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            %error,
            "no thread of the class SCHED_IDLE for background work: flushes take their time from \
             other operations (allow sched_setscheduler to avoid that)"
        );
    }
}
