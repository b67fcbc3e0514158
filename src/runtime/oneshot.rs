//! One value from one task to another: the reply to a message.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::base::sync::Mutex;

/// The end that gives the value.
pub(crate) struct Sender<T> {
    /// `None` once it was sent.
    shared: Option<Shared<T>>,
}

/// The end that waits for the value.
pub(crate) struct Receiver<T> {
    shared: Shared<T>,
}

type Shared<T> = Arc<Mutex<State<T>>>;

/// The sender was dropped without a value: whoever was to answer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

struct State<T> {
    value: Option<T>,
    sender_gone: bool,
    receiver_gone: bool,
    receiver: Option<Waker>,
    /// Waits for the receiver to go.
    sender: Option<Waker>,
}

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = State {
        value: None,
        sender_gone: false,
        receiver_gone: false,
        receiver: None,
        sender: None,
    };
    let shared = Arc::new(Mutex::new(state));
    (Sender { shared: Some(Arc::clone(&shared)) }, Receiver { shared })
}

/// Ends the sender's part; with a value, unless nobody waits for it any more.
fn finish<T>(shared: &Shared<T>, value: Option<T>) {
    let (refused, receiver, own) = {
        let mut state = shared.lock();
        state.sender_gone = true;
        let refused = if state.receiver_gone {
            value
        } else {
            state.value = value;
            None
        };
        (refused, state.receiver.take(), state.sender.take())
    };
    if let Some(waker) = receiver {
        waker.wake();
    }
    drop(own);
    drop(refused);
}

impl<T> Sender<T> {
    /// Gives the value. It is dropped here and now if nobody waits for it.
    pub(crate) fn send(mut self, value: T) {
        if let Some(shared) = self.shared.take() {
            finish(&shared, Some(value));
        }
    }

    /// Ready once nobody waits for the value any more.
    pub(crate) fn poll_unwanted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(shared) = &self.shared else {
            return Poll::Ready(());
        };
        let mut state = shared.lock();
        if state.receiver_gone {
            return Poll::Ready(());
        }
        let replaced = state.sender.replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            finish(&shared, None);
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Gone>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Gone>> {
        let mut state = self.shared.lock();
        if let Some(value) = state.value.take() {
            return Poll::Ready(Ok(value));
        }
        if state.sender_gone {
            return Poll::Ready(Err(Gone));
        }
        let replaced = state.receiver.replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (value, sender, own) = {
            let mut state = self.shared.lock();
            state.receiver_gone = true;
            (state.value.take(), state.sender.take(), state.receiver.take())
        };
        if let Some(waker) = sender {
            waker.wake();
        }
        drop(own);
        drop(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block_on;
    use crate::runtime::tests::{CountingWaker, poll_once};

    #[test]
    fn a_value_crosses_threads() {
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| block_on(receiver));
            sender.send(7);
            assert_eq!(waits.join().expect("no panic"), Ok(7));
        });
    }

    #[test]
    fn a_sender_that_goes_without_an_answer_is_noticed() {
        let waker = CountingWaker::new();
        let (sender, mut receiver) = channel::<u32>();
        assert!(poll_once(&mut receiver, &waker).is_none());
        drop(sender);
        assert_eq!(waker.count(), 1);
        assert_eq!(poll_once(&mut receiver, &waker), Some(Err(Gone)));
    }

    #[test]
    fn a_receiver_that_goes_early_leaves_nothing_behind() {
        let waker = CountingWaker::new();
        let value = Arc::new(());
        let (sender, mut receiver) = channel();
        assert!(poll_once(&mut receiver, &waker).is_none());
        drop(receiver);
        assert_eq!(waker.references(), 0);
        sender.send(Arc::clone(&value));
        assert_eq!((Arc::strong_count(&value), waker.count()), (1, 0));

        // Also when the value was on its way.
        let (sender, receiver) = channel();
        sender.send(Arc::clone(&value));
        drop(receiver);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn a_sender_learns_that_nobody_waits() {
        let waker = CountingWaker::new();
        let (mut sender, receiver) = channel::<u32>();
        let mut unwanted = std::future::poll_fn(|cx| sender.poll_unwanted(cx));
        assert!(poll_once(&mut unwanted, &waker).is_none());
        drop(receiver);
        assert_eq!(waker.count(), 1);
        assert!(poll_once(&mut unwanted, &waker).is_some());
    }
}
