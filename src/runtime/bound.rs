//! A future of one thread for an executor that does not know about threads.

#![expect(unsafe_code, reason = "simulated tasks must be Send, an owner's are not")]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::base::sync::thread::{self, ThreadId};

/// A future that is polled and dropped by the thread that made it, or not at
/// all. The simulated machine, which one thread steps, runs an owner's tasks
/// in it.
pub(super) struct Bound<F: Future<Output = ()>> {
    thread: ThreadId,
    /// `None` only within `drop`.
    future: Option<Pin<Box<F>>>,
}

// SAFETY: the future is touched in `poll` and `drop` alone; both first make
// sure that they run on the thread that made it.
unsafe impl<F: Future<Output = ()>> Send for Bound<F> {}

impl<F: Future<Output = ()>> Bound<F> {
    pub(super) fn new(future: F) -> Self {
        Self { thread: thread::current().id(), future: Some(Box::pin(future)) }
    }

    fn is_home(&self) -> bool {
        thread::current().id() == self.thread
    }
}

impl<F: Future<Output = ()>> Future for Bound<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        assert!(
            self.is_home(),
            "another thread steps the machine than the one that owns its tasks"
        );
        match &mut self.future {
            Some(future) => future.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl<F: Future<Output = ()>> Drop for Bound<F> {
    fn drop(&mut self) {
        if !self.is_home() {
            tracing::error!("a simulated owner's task was leaked: another thread dropped it");
            std::mem::forget(self.future.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::runtime::tests::{CountingWaker, poll_once};

    #[test]
    fn another_thread_neither_polls_nor_drops_it() {
        let kept = Rc::new(());
        let inside = Rc::clone(&kept);
        let mut bound = Bound::new(async move { drop(inside) });
        let panicked = std::thread::scope(|scope| {
            scope.spawn(move || poll_once(&mut bound, &CountingWaker::new())).join()
        });
        assert!(panicked.is_err());
        assert_eq!(Rc::strong_count(&kept), 2);
    }

    #[test]
    fn its_own_thread_does() {
        let kept = Rc::new(());
        let inside = Rc::clone(&kept);
        let mut bound = Bound::new(async move { drop(inside) });
        assert!(poll_once(&mut bound, &CountingWaker::new()).is_some());
        drop(bound);
        assert_eq!(Rc::strong_count(&kept), 1);
    }
}
