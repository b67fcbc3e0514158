//! "Something changed, look again."

use std::future::poll_fn;
use std::task::{Poll, Waker};

use crate::base::sync::Mutex;

/// A flag that tasks wait for. Setting it wakes all who wait; the first of
/// them to look takes it down, so an event is for one consumer, or for
/// consumers that look at the state behind it first.
#[derive(Default)]
pub(crate) struct Event {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    set: bool,
    waiting: Vec<Waker>,
}

impl Event {
    /// Raises the flag and wakes all who wait.
    pub(crate) fn set(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.set = true;
            std::mem::take(&mut state.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }

    /// Waits until the flag is up, and takes it down.
    pub(crate) async fn wait(&self) {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if std::mem::take(&mut state.set) {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
