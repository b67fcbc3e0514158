//! A lock that may be held across I/O.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Waiters;
use crate::base::sync::Mutex;

/// A mutual exclusion lock for tasks: whoever has to wait is woken, not
/// blocked. For state that changes together with a file.
///
/// The value is moved out to whoever has the turn, and put back at its end.
pub(crate) struct AsyncMutex<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    /// `None` while somebody has it.
    value: Option<T>,
    waiting: Waiters,
}

/// What [`AsyncMutex::lock`] returns.
pub(crate) struct Lock<'a, T> {
    mutex: &'a AsyncMutex<T>,
    id: Option<u64>,
}

/// What [`Lock`] waits for; dropping it ends the turn.
pub(crate) struct Turn<'a, T> {
    mutex: &'a AsyncMutex<T>,
    value: Option<T>,
}

impl<T> AsyncMutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { state: Mutex::new(State { value: Some(value), waiting: Waiters::default() }) }
    }

    /// Waits for the turn.
    pub(crate) fn lock(&self) -> Lock<'_, T> {
        Lock { mutex: self, id: None }
    }
}

impl<'a, T> Future for Lock<'a, T> {
    type Output = Turn<'a, T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Turn<'a, T>> {
        let this = self.get_mut();
        let mut state = this.mutex.state.lock();
        let value = state.value.take();
        let unneeded = if value.is_some() {
            state.waiting.remove(&mut this.id)
        } else {
            state.waiting.register(&mut this.id, cx.waker())
        };
        drop(state);
        drop(unneeded);
        if value.is_none() {
            return Poll::Pending;
        }
        Poll::Ready(Turn { mutex: this.mutex, value })
    }
}

impl<T> Drop for Lock<'_, T> {
    fn drop(&mut self) {
        if self.id.is_some() {
            let waker = self.mutex.state.lock().waiting.remove(&mut self.id);
            drop(waker);
        }
    }
}

impl<T> std::ops::Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("a turn has the value until it ends")
    }
}

impl<T> std::ops::DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("a turn has the value until it ends")
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.mutex.state.lock();
            state.value = self.value.take();
            state.waiting.take_all()
        };
        // All of them: one that was woken alone, and is not polled, would hold
        // up the others.
        waiting.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::tests::{CountingWaker, poll_once};

    #[test]
    fn waiting_leaves_nothing_behind() {
        let mutex = AsyncMutex::new(1);
        let waker = CountingWaker::new();
        let mut turn = poll_once(&mut mutex.lock(), &waker).expect("nobody has it");
        *turn += 1;
        let (mut a, mut b) = (mutex.lock(), mutex.lock());
        for _ in 0..10 {
            assert!(poll_once(&mut a, &waker).is_none());
            assert!(poll_once(&mut b, &waker).is_none());
        }
        assert_eq!(mutex.state.lock().waiting.len(), 2);
        drop(a);
        assert_eq!(mutex.state.lock().waiting.len(), 1);
        drop(turn);
        assert_eq!(waker.count(), 1);
        let turn = poll_once(&mut b, &waker).expect("its turn");
        assert_eq!(*turn, 2);
        assert_eq!(mutex.state.lock().waiting.len(), 0);
    }
}
