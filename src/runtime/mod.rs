//! Floor 3: who polls futures, and how tasks and threads wait for each other.
//!
//! * [`block_on`]: a plain thread polls one future and sleeps in between.
//! * [`Executor`]: an owner's thread polls its tasks, over a
//!   [`Driver`](crate::io::Driver) that moves I/O along. Tasks start others
//!   with a [`Spawner`]; long ones await [`slice_end`] at their natural places.
//! * [`Mailbox`], [`serve`], [`Remote`], [`run_on_owner`]: how everybody else
//!   has an owner do I/O, or run code, for them. [`oneshot`] brings the answer.
//! * [`Background`]: work that an owner does itself or leaves to a thread of the
//!   idle class, as need be. [`Budget`] bounds its I/O for each device.
//! * [`Event`], [`AsyncMutex`], [`first_of`], [`yield_now`]: what tasks wait
//!   with. They work under any executor, the simulator's too. [`Waiters`] is
//!   the list of wakers inside them, and inside what else is waited for.
//!
//! What crosses threads here: an owner's inbox of wake-ups and what it hands to
//! its worker and back, without locks; its mailbox, oneshots, and budgets, each
//! with a lock of its own, held for moments and never by a worker that another
//! thread could have to wait for. Wakers are woken, and values dropped, outside
//! of them.

// Background work does not use slices yet.
#![cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "background work will use the rest")
)]

mod background;
mod background_io;
#[cfg(feature = "sim")]
mod bound;
mod budget;
mod budgeted;
mod closure;
mod counters;
mod event;
mod executor;
mod handover;
mod join;
mod local_io;
mod mailbox;
mod message;
mod mutex;
pub(crate) mod oneshot;
mod patience;
mod placement;
mod preempt;
mod remote;
#[cfg(all(test, feature = "shuttle"))]
pub(crate) mod shuttle_tests;
mod spawner;
mod stall;
mod tasks;
#[cfg(test)]
mod tests;
mod wait;
mod waiters;
mod worker;

pub(crate) use background::{Background, Running};
pub(crate) use background_io::BackgroundIo;
pub(crate) use budget::{Budget, PIECE_BYTES_MAX};
pub(crate) use budgeted::Budgeted;
pub(crate) use closure::run_on_owner;
pub(crate) use counters::{RuntimeCounters, RuntimeCounts};
pub(crate) use event::Event;
pub(crate) use executor::{Executor, OwnerConfig};
pub(crate) use join::join_all;
pub(crate) use local_io::LocalIo;
pub(crate) use mailbox::{Mailbox, Permit, Reserve};
pub(crate) use message::{Message, serve};
pub(crate) use mutex::AsyncMutex;
pub(crate) use placement::pin;
pub(crate) use preempt::slice_end;
pub(crate) use remote::Remote;
pub(crate) use spawner::Spawner;
pub(crate) use tasks::{Job, is_owner_thread};
pub(crate) use wait::block_on;
pub(crate) use waiters::{Waiters, Woken};

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
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

/// Which of two futures was ready first.
pub(crate) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Waits for either of two futures; for the first, if both are ready.
pub(crate) async fn either<A: Unpin + Future, B: Future>(
    mut a: A,
    b: B,
) -> Either<A::Output, B::Output> {
    let mut b = pin!(b);
    poll_fn(|cx| {
        if let Poll::Ready(output) = Pin::new(&mut a).poll(cx) {
            return Poll::Ready(Either::First(output));
        }
        b.as_mut().poll(cx).map(Either::Second)
    })
    .await
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
