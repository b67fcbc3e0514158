//! That the lock of a shard is not held across an await, or a system call, is
//! noticed wherever something is polled or asked of the system.

use std::path::Path;
use std::sync::Arc;

use crate::base::sync::{LongestHold, ShortMutex};
use crate::io::Io;
use crate::io::blocking::{Blocking, Parking};
use crate::runtime::{Executor, Job, OwnerConfig, block_on};

/// Goes wrong.
async fn hold_across_an_await() {
    let mutex = ShortMutex::new((), &Arc::<LongestHold>::default());
    let _held = mutex.lock();
    std::future::pending::<()>().await;
}

#[test]
#[should_panic(expected = "a poll: this thread holds the locks of 1 shards")]
fn by_a_thread_that_waits() {
    block_on(hold_across_an_await());
}

#[test]
#[should_panic(expected = "holder: this thread holds the locks of 1 shards")]
fn by_an_owner() {
    let (driver, _) = Parking::new(Arc::default());
    let config = OwnerConfig { spin_ns: 0, logs_stalls: false, is_pinned: false };
    let jobs = vec![Job::new("holder", hold_across_an_await())];
    Executor::new(driver, config).run(jobs).expect("a driver that does not fail");
}

#[test]
#[should_panic(expected = "to list a directory: this thread holds the locks of 1")]
fn by_a_system_call() {
    let io = Blocking::new(Arc::default());
    let mutex = ShortMutex::new((), &Arc::<LongestHold>::default());
    let _held = mutex.lock();
    let listed = block_on(io.list(Path::new("/")));
    assert!(listed.is_ok());
}

#[cfg(feature = "sim")]
mod simulated {
    use super::*;
    use crate::io::sim::Sim;
    use crate::runtime::Spawner;

    #[test]
    #[should_panic(expected = "a poll: this thread holds the locks of 1 shards")]
    fn by_who_steps_the_machine() {
        Sim::new(1).block_on(hold_across_an_await());
    }

    #[test]
    #[should_panic(expected = "a simulated task's poll: this thread holds the locks of 1 shards")]
    fn by_the_machine() {
        let sim = Sim::new(1);
        Spawner::simulated(&sim).spawn("holder", hold_across_an_await());
        sim.run_for(1);
    }

    #[test]
    #[should_panic(expected = "a simulated request: this thread holds the locks of 1 shards")]
    fn by_a_request_to_the_machine() {
        let sim = Sim::new(1);
        let mutex = ShortMutex::new((), &Arc::<LongestHold>::default());
        let _held = mutex.lock();
        drop(sim.list(Path::new("/")));
    }
}
