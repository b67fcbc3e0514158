//! Tests of the runtime: executors over a scripted driver, and owners on real
//! files and on the simulated machine.

mod background;
mod closure;
mod executor;
#[cfg(debug_assertions)]
mod locks;
mod mailbox;
mod owner;
mod remote;
#[cfg(feature = "sim")]
mod simulated;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Counts how often it is woken.
pub(super) struct CountingWaker(Arc<Count>);

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl CountingWaker {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.0))
    }

    pub(super) fn count(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    /// How many wakers somebody still has.
    pub(super) fn references(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// Polls once; the output if it is ready.
pub(super) fn poll_once<F: Future + Unpin>(
    future: &mut F,
    waker: &CountingWaker,
) -> Option<F::Output> {
    match Pin::new(future).poll(&mut Context::from_waker(&waker.waker())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
