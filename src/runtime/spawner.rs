//! Starts tasks beside the one that runs.

use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::counters::RuntimeCounters;
use super::tasks::{Job, Local};

/// Starts tasks on the owner's thread that it belongs to, or on the simulated
/// machine. Cheap to clone; never leaves its thread.
#[derive(Clone)]
pub(crate) struct Spawner {
    tasks: Tasks,
    counters: Arc<RuntimeCounters>,
}

#[derive(Clone)]
enum Tasks {
    Owner(Weak<Local>),
    #[cfg(feature = "sim")]
    Sim(crate::io::sim::Sim),
}

impl Spawner {
    pub(super) fn of_owner(local: &Rc<Local>) -> Self {
        Self { tasks: Tasks::Owner(Rc::downgrade(local)), counters: Arc::clone(&local.counters) }
    }

    /// For an owner's tasks on the simulated machine. The thread that made a
    /// task is then the only one that may step the machine.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated(sim: &crate::io::sim::Sim) -> Self {
        Self { tasks: Tasks::Sim(sim.clone()), counters: Arc::default() }
    }

    /// Starts a task. `name` stands for it in reports. It is dropped at once
    /// when the executor has ended, and in the end with it.
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + 'static) {
        match &self.tasks {
            Tasks::Owner(local) => {
                if let Some(local) = local.upgrade() {
                    local.spawn(Job::new(name, task), false);
                }
            }
            #[cfg(feature = "sim")]
            Tasks::Sim(sim) => sim.spawn(super::bound::Bound::new(task)),
        }
    }

    pub(crate) fn counters(&self) -> &Arc<RuntimeCounters> {
        &self.counters
    }
}
