//! A lock that may be held across I/O.

use std::future::poll_fn;
use std::task::{Poll, Waker};

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
    waiting: Vec<Waker>,
}

/// What [`AsyncMutex::lock`] returns; dropping it ends the turn.
pub(crate) struct Turn<'a, T> {
    mutex: &'a AsyncMutex<T>,
    value: Option<T>,
}

impl<T> AsyncMutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { state: Mutex::new(State { value: Some(value), waiting: Vec::new() }) }
    }

    /// Waits for the turn.
    pub(crate) async fn lock(&self) -> Turn<'_, T> {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            match state.value.take() {
                Some(value) => Poll::Ready(Turn { mutex: self, value: Some(value) }),
                None => {
                    state.waiting.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
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
            std::mem::take(&mut state.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }
}
