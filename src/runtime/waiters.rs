//! A list of those who wait for something, kept behind somebody's lock.

use std::collections::VecDeque;
use std::task::Waker;

/// Wakers in the order in which they came. Whoever waits holds the number it
/// was given, so that polling again replaces its waker, and giving up leaves
/// nothing behind.
#[derive(Default)]
pub(crate) struct Waiters {
    next: u64,
    list: VecDeque<(u64, Waker)>,
}

impl Waiters {
    /// Registers a waker under the number in `id`, or a new one.
    pub(crate) fn register(&mut self, id: &mut Option<u64>, waker: &Waker) {
        if let Some(known) = id
            && let Some(entry) = self.list.iter_mut().find(|entry| entry.0 == *known)
        {
            entry.1.clone_from(waker);
            return;
        }
        self.next += 1;
        *id = Some(self.next);
        self.list.push_back((self.next, waker.clone()));
    }

    /// Whoever has this number waits no more.
    pub(crate) fn remove(&mut self, id: u64) {
        self.list.retain(|entry| entry.0 != id);
    }

    /// Everybody, for the caller to wake once its lock is gone.
    pub(crate) fn take_all(&mut self) -> VecDeque<(u64, Waker)> {
        std::mem::take(&mut self.list)
    }
}

/// Wakes those that [`Waiters::take_all`] returned.
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = (u64, Waker)>) {
    for (_, waker) in wakers {
        waker.wake();
    }
}
