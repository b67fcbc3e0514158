//! Floor 3: who polls futures, and how tasks and threads wait for each other.
//!
//! * [`block_on`]: a plain thread polls one future and sleeps in between.
//! * [`Executor`]: an owner's thread polls its jobs, over a
//!   [`Driver`](crate::io::Driver) that moves I/O along.
//! * [`Event`], [`AsyncMutex`], [`first_of`], [`yield_now`]: what jobs wait
//!   with. They work under any executor, the simulator's too.

mod event;
mod executor;
mod mutex;
mod wait;
mod waiters;

pub(crate) use event::Event;
pub(crate) use executor::{Executor, Job};
pub(crate) use mutex::AsyncMutex;
pub(crate) use wait::block_on;
pub(crate) use waiters::{Waiters, wake_all};

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Lets the executor's other tasks run.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Waits for whichever of two futures is ready first, and drops the other.
pub(crate) async fn first_of(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    let mut a = pin!(a);
    let mut b = pin!(b);
    poll_fn(|cx| {
        if a.as_mut().poll(cx).is_ready() || b.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}
