//! "Something changed, look again."

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Waiters;
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
    waiting: Waiters,
}

/// What [`Event::wait`] returns.
pub(crate) struct Wait<'a> {
    event: &'a Event,
    id: Option<u64>,
}

impl Event {
    /// Raises the flag and wakes all who wait.
    pub(crate) fn set(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.set = true;
            state.waiting.take_all()
        };
        waiting.wake();
    }

    /// Raises the flag and wakes whoever has waited for longest: for consumers
    /// that are alike, of whom each calls the next when it leaves work behind.
    pub(crate) fn set_one(&self) {
        let first = {
            let mut state = self.state.lock();
            state.set = true;
            state.waiting.take_first()
        };
        if let Some(waker) = first {
            waker.wake();
        }
    }

    /// Waits until the flag is up, and takes it down.
    pub(crate) fn wait(&self) -> Wait<'_> {
        Wait { event: self, id: None }
    }
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut state = this.event.state.lock();
        let was_set = std::mem::take(&mut state.set);
        let unneeded = if was_set {
            state.waiting.remove(&mut this.id)
        } else {
            state.waiting.register(&mut this.id, cx.waker())
        };
        drop(state);
        drop(unneeded);
        if was_set { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.id.is_some() {
            let waker = self.event.state.lock().waiting.remove(&mut self.id);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::tests::{CountingWaker, poll_once};

    #[test]
    fn one_of_several_is_woken() {
        let event = Event::default();
        let wakers = [CountingWaker::new(), CountingWaker::new()];
        let mut waits = [event.wait(), event.wait()];
        for (wait, waker) in waits.iter_mut().zip(&wakers) {
            assert!(poll_once(wait, waker).is_none());
        }
        event.set_one();
        assert_eq!((wakers[0].count(), wakers[1].count()), (1, 0));
        assert!(poll_once(&mut waits[0], &wakers[0]).is_some());
        event.set_one();
        assert_eq!((wakers[0].count(), wakers[1].count()), (1, 1));
        // Nobody waits: the next one finds the flag up.
        assert!(poll_once(&mut waits[1], &wakers[1]).is_some());
        event.set_one();
        assert!(poll_once(&mut event.wait(), &wakers[0]).is_some());
    }

    #[test]
    fn waiting_leaves_nothing_behind() {
        let event = Event::default();
        let waker = CountingWaker::new();
        let mut wait = event.wait();
        for _ in 0..10 {
            assert!(poll_once(&mut wait, &waker).is_none());
        }
        assert_eq!(event.state.lock().waiting.len(), 1);
        let mut other = event.wait();
        assert!(poll_once(&mut other, &waker).is_none());
        drop(wait);
        assert_eq!(event.state.lock().waiting.len(), 1);
        event.set();
        assert_eq!(waker.count(), 1);
        assert!(poll_once(&mut other, &waker).is_some());
        assert_eq!(event.state.lock().waiting.len(), 0);
    }

    #[test]
    fn a_waiter_that_was_woken_and_dropped_leaves_the_flag_up() {
        let event = Event::default();
        let waker = CountingWaker::new();
        let mut wait = event.wait();
        assert!(poll_once(&mut wait, &waker).is_none());
        event.set();
        drop(wait);
        assert!(poll_once(&mut event.wait(), &waker).is_some());
        assert!(poll_once(&mut event.wait(), &waker).is_none());
    }
}
