//! An owner's executor: polls the jobs of one thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::base::error::Result;
use crate::base::sync::Mutex;
use crate::io::{Driver, Unpark};

/// A job of an owner. It never leaves the owner's thread.
pub(crate) type Job = Pin<Box<dyn Future<Output = ()>>>;

/// Runs jobs on the thread that made it.
pub(crate) struct Executor<D> {
    driver: D,
    ready: Arc<Ready>,
}

/// Jobs that are to be polled.
struct Ready {
    jobs: Mutex<Vec<usize>>,
    /// Set before the driver sleeps; whoever makes a job ready then wakes it.
    sleeping: AtomicBool,
    unpark: Arc<dyn Unpark>,
}

struct JobWaker {
    job: usize,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for JobWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::SeqCst) {
            return;
        }
        self.ready.jobs.lock().push(self.job);
        if self.ready.sleeping.swap(false, Ordering::SeqCst) {
            self.ready.unpark.unpark();
        }
    }
}

impl<D: Driver> Executor<D> {
    pub(crate) fn new(driver: D) -> Self {
        let ready = Ready {
            jobs: Mutex::default(),
            sleeping: AtomicBool::new(false),
            unpark: driver.unparker(),
        };
        Self { driver, ready: Arc::new(ready) }
    }

    /// Polls the jobs until all of them have ended.
    ///
    /// # Errors
    /// When the driver fails: nothing can complete any more.
    pub(crate) fn run(&mut self, jobs: Vec<Job>) -> Result<()> {
        let mut left = jobs.len();
        let mut jobs: Vec<Option<Job>> = jobs.into_iter().map(Some).collect();
        let wakers: Vec<Arc<JobWaker>> = (0..jobs.len())
            .map(|job| {
                let queued = AtomicBool::new(true);
                Arc::new(JobWaker { job, queued, ready: Arc::clone(&self.ready) })
            })
            .collect();
        let as_wakers: Vec<Waker> = wakers.iter().cloned().map(Waker::from).collect();
        let mut round: Vec<usize> = (0..jobs.len()).collect();
        while left > 0 {
            for &job in &round {
                // Cleared before the poll: a wake-up during it queues again.
                wakers[job].queued.store(false, Ordering::SeqCst);
                let Some(future) = &mut jobs[job] else {
                    continue;
                };
                let mut cx = Context::from_waker(&as_wakers[job]);
                if let Poll::Ready(()) = future.as_mut().poll(&mut cx) {
                    jobs[job] = None;
                    left -= 1;
                }
            }
            round.clear();
            if left == 0 {
                break;
            }
            self.ready.sleeping.store(true, Ordering::SeqCst);
            let idle = self.ready.jobs.lock().is_empty();
            if !idle {
                self.ready.sleeping.store(false, Ordering::SeqCst);
            }
            self.driver.turn(idle, &|| self.ready.sleeping.store(false, Ordering::SeqCst))?;
            round.append(&mut self.ready.jobs.lock());
        }
        Ok(())
    }
}
