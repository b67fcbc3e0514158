//! An owner's executor: polls the tasks of one thread.
//!
//! It works in rounds: every task that is ready is polled once, then the
//! driver submits what they queued and wakes those whose requests completed.
//! When nothing is ready it spins for a while, then sleeps in the driver.

use std::rc::Rc;
use std::sync::Arc;

use super::counters::RuntimeCounters;
use super::preempt::SLICE_NS;
use super::spawner::Spawner;
use super::stall::{STALL_NS, Stalls};
use super::tasks::{Entered, Job, Local};
use crate::base::error::Result;
use crate::io::Driver;

/// How an owner's thread behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnerConfig {
    /// How long an owner that has run dry looks for work before it sleeps. No
    /// longer than a sleep and a wake-up cost, else it wastes the core.
    pub(crate) spin_ns: u64,
    /// Whether polls above 1 ms are logged. They are always counted.
    pub(crate) logs_stalls: bool,
    /// Whether the thread keeps to one core; see [`pin`](super::pin()).
    pub(crate) is_pinned: bool,
}

/// Runs tasks on the thread that made it.
pub(crate) struct Executor {
    config: OwnerConfig,
    local: Rc<Local>,
}

impl Executor {
    pub(crate) fn new(driver: impl Driver + 'static, config: OwnerConfig) -> Self {
        Self { config, local: Local::new(Rc::new(driver)) }
    }

    /// What starts tasks on this executor: at once, or while it runs.
    pub(crate) fn spawner(&self) -> Spawner {
        Spawner::of_owner(&self.local)
    }

    pub(crate) fn counters(&self) -> &Arc<RuntimeCounters> {
        &self.local.counters
    }

    /// Polls tasks until all of `main` have ended. Then the others are dropped,
    /// and no more are accepted: an executor runs once.
    ///
    /// # Errors
    /// When the driver fails: nothing can complete any more.
    pub(crate) fn run(&mut self, main: Vec<Job>) -> Result<()> {
        let local = Rc::clone(&self.local);
        let _entered = Entered::new(&local);
        assert!(!local.has_ended(), "an executor runs once");
        local.main_left.set(main.len());
        for job in main {
            local.spawn(job, true);
        }
        let mut stalls = Stalls::default();
        local.now_ns.set(local.driver.now_ns());
        loop {
            self.round(&mut stalls);
            if local.main_left.get() == 0 {
                return Ok(());
            }
            let is_dry = local.ready_count() == 0 && !local.inbox.is_pending();
            // Who sleeps without a spin submits and sleeps in one.
            let looks_first = !is_dry || self.config.spin_ns > 0;
            if looks_first && local.driver.has_work(local.now_ns.get()) {
                local.driver.turn(false, &|| {})?;
                local.now_ns.set(local.driver.now_ns());
            } else if is_dry && !self.spin() {
                if local.inbox.fall_asleep() {
                    local.counters.sleep();
                    local.driver.turn(true, &|| local.inbox.stay_awake())?;
                }
                local.now_ns.set(local.driver.now_ns());
            }
        }
    }

    /// Polls once each task that is ready now, unless that takes too long.
    fn round(&self, stalls: &mut Stalls) {
        let local = &*self.local;
        local.empty_inbox();
        let began_ns = local.now_ns.get();
        for _ in 0..local.ready_count() {
            if let Some(name) = local.poll_next() {
                // The end of this poll is the beginning of the next.
                let now_ns = local.driver.now_ns();
                let slice_ns = now_ns - local.now_ns.replace(now_ns);
                local.counters.poll(slice_ns);
                if slice_ns > STALL_NS {
                    self.stalled(name, slice_ns, stalls);
                }
            }
            let is_over = local.now_ns.get() - began_ns >= SLICE_NS;
            if is_over || local.main_left.get() == 0 {
                break;
            }
        }
    }

    #[cold]
    fn stalled(&self, task: &'static str, slice_ns: u64, stalls: &mut Stalls) {
        self.local.counters.long_slice();
        if self.config.logs_stalls
            && let Some(suppressed) = stalls.observe(self.local.now_ns.get())
        {
            let slice_us = slice_ns / 1000;
            tracing::info!(task, slice_us, suppressed, "a task held up its owner");
        }
    }

    /// Looks for work for a bounded time. Whether there is some.
    fn spin(&self) -> bool {
        let local = &*self.local;
        let until_ns = local.now_ns.get().saturating_add(self.config.spin_ns);
        while local.now_ns.get() < until_ns {
            std::hint::spin_loop();
            local.now_ns.set(local.driver.now_ns());
            if local.inbox.is_pending() || local.driver.has_work(local.now_ns.get()) {
                local.counters.spin_found();
                return true;
            }
        }
        false
    }
}

impl Drop for Executor {
    /// Ends the tasks of an executor that never ran.
    fn drop(&mut self) {
        self.local.drop_tasks();
    }
}
