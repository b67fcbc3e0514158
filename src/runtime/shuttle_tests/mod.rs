//! The runtime under shuttle: what threads do at once, in many orders.
//!
//! A run is a number of schedules that follow from a seed, half of them chosen
//! at random step by step, half of them by PCT (S. Burckhardt et al., "A
//! Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", 2010).
//! Shuttle fails a schedule that ends with threads asleep, and then prints the
//! schedule, and the seed. Its environment variable `SHUTTLE_RANDOM_SEED` takes
//! another seed; `OURO_SHUTTLE_TIMES` multiplies the schedules.
//!
//! All atomics count as sequentially consistent here.

mod disk;
mod mailbox;
mod owner;
mod primitives;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

pub(crate) use self::disk::Disk;

const SEED: u64 = 0x6f75_726f;

/// How many of its steps a schedule of PCT chooses to change priorities at.
const PCT_DEPTH: usize = 3;

/// Calls `test` under that many schedules, twice.
pub(crate) fn explore(schedules: usize, test: impl Fn() + Clone + Send + Sync + 'static) {
    let times = std::env::var("OURO_SHUTTLE_TIMES").ok().and_then(|times| times.parse().ok());
    let schedules = schedules * times.unwrap_or(1);
    let mut config = Config::new();
    config.stack_size = 512 << 10;
    config.silence_warnings = true;
    let random = RandomScheduler::new_from_seed(SEED, schedules);
    Runner::new(random, config.clone()).run(test.clone());
    Runner::new(PctScheduler::new_from_seed(SEED, PCT_DEPTH, schedules), config).run(test);
}

/// One of `0..below`, as the schedule wants.
pub(crate) fn choose(below: usize) -> usize {
    thread_rng().gen_range(0..below)
}

/// Polls once, without a waker that does anything: as somebody who gives up.
pub(crate) fn poll_and_drop(future: impl Future) {
    let mut future = std::pin::pin!(future);
    let _: std::task::Poll<_> = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

/// Futures of one thread, for [`join_all`](super::join_all).
pub(crate) type LocalFuture<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;
