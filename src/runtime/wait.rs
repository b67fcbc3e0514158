//! A plain thread that waits for one future.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::thread::{self, Thread};
use crate::base::sync::{assert_unlocked, thread_local};

/// Wakes one thread. One per thread for its whole life, so that waiting
/// allocates nothing.
struct Signal {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            assert_unlocked("to wake a thread");
            self.thread.unpark();
        }
    }
}

struct Waiting {
    signal: Arc<Signal>,
    waker: Waker,
    /// How many `block_on` calls are nested on this thread.
    depth: Cell<u32>,
}

thread_local! {
    static WAITING: Waiting = {
        let signal =
            Arc::new(Signal { thread: thread::current(), woken: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&signal));
        Waiting { signal, waker, depth: Cell::new(0) }
    };
}

/// Polls `future` to its end; the thread sleeps while there is nothing to do.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    WAITING.with(|waiting| {
        let mut cx = Context::from_waker(&waiting.waker);
        waiting.depth.set(waiting.depth.get() + 1);
        let output = loop {
            let polled = future.as_mut().poll(&mut cx);
            assert_unlocked("a poll");
            if let Poll::Ready(output) = polled {
                break output;
            }
            while !waiting.signal.woken.swap(false, Ordering::AcqRel) {
                thread::park();
            }
        };
        waiting.depth.set(waiting.depth.get() - 1);
        if waiting.depth.get() > 0 {
            // This call may have taken a wake-up meant for the outer one.
            waiting.signal.woken.store(true, Ordering::Release);
        }
        output
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Event, yield_now};

    #[test]
    fn a_thread_wakes_another() {
        let event = Arc::new(Event::default());
        std::thread::scope(|scope| {
            scope.spawn(|| block_on(event.wait()));
            scope.spawn(|| {
                block_on(yield_now());
                event.set();
            });
        });
    }

    #[test]
    fn nested_waits_lose_no_wake_up() {
        let event = Arc::new(Event::default());
        let inner = Arc::clone(&event);
        block_on(async {
            let mut outer = pin!(yield_now());
            std::future::poll_fn(|cx| {
                let poll = outer.as_mut().poll(cx);
                inner.set();
                block_on(inner.wait());
                poll
            })
            .await;
        });
    }
}
