//! The bounded queue of messages to one owner.
//!
//! What is bounded is the requests that are *outstanding*: a sender reserves a
//! slot before it builds anything, the slot travels with the message, and comes
//! back when the request is completed. So a full mailbox holds senders back
//! before they have anything that could be lost.
//!
//! Waiting senders are served in the order in which they came. One that has
//! been woken but is not polled costs the others one slot, and no more: the
//! sender with `n` others in front may go as soon as more than `n` slots are
//! free. When all slots are free and still more senders wait, or come, than
//! there are slots, those in front may never be polled (a task may keep futures
//! that it does not poll while it awaits another): then all lose their places
//! and are woken, and whoever is polled first goes first.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::Waiters;
use crate::base::error::{Error, Result};
use crate::base::sync::Mutex;

/// See the module's text. Many threads send, one task receives.
pub(crate) struct Mailbox<M> {
    slots: usize,
    state: Mutex<State<M>>,
}

struct State<M> {
    queue: VecDeque<M>,
    free: usize,
    /// Those with fewer in front than slots are free have been woken.
    senders: Waiters,
    receiver: Option<Waker>,
    is_closed: bool,
}

/// A slot of a mailbox; dropping it gives the slot back.
pub(crate) struct Slot<M> {
    /// `None` once the slot is the message's.
    mailbox: Option<Arc<Mailbox<M>>>,
}

/// The right to send one message.
pub(crate) struct Permit<M>(Slot<M>);

/// What [`Mailbox::reserve`] returns. Dropped, it leaves nothing behind.
pub(crate) struct Reserve<M> {
    mailbox: Arc<Mailbox<M>>,
    id: Option<u64>,
}

impl<M> Mailbox<M> {
    /// A mailbox for at most `slots` outstanding requests.
    pub(crate) fn new(slots: usize) -> Arc<Self> {
        assert!(slots > 0, "a mailbox without slots takes no message");
        let state = State {
            queue: VecDeque::new(),
            free: slots,
            senders: Waiters::default(),
            receiver: None,
            is_closed: false,
        };
        Arc::new(Self { slots, state: Mutex::new(state) })
    }

    /// Waits for a slot.
    ///
    /// # Errors
    /// `Closed`.
    pub(crate) fn reserve(self: &Arc<Self>) -> Reserve<M> {
        Reserve { mailbox: Arc::clone(self), id: None }
    }

    /// A slot, unless the mailbox is full or others wait for one.
    ///
    /// # Errors
    /// `Closed`.
    pub(crate) fn try_reserve(self: &Arc<Self>) -> Result<Option<Permit<M>>> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(Error::closed());
        }
        if state.free <= state.senders.len() {
            return Ok(None);
        }
        state.free -= 1;
        Ok(Some(Permit(Slot { mailbox: Some(Arc::clone(self)) })))
    }

    /// Moves all messages that are there to the end of `into`, each with its
    /// slot; waits until there is one. False once the mailbox is closed.
    pub(crate) fn poll_receive(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        into: &mut VecDeque<(M, Slot<M>)>,
    ) -> Poll<bool> {
        let mut state = self.state.lock();
        if !state.queue.is_empty() {
            let slot = || Slot { mailbox: Some(Arc::clone(self)) };
            into.extend(state.queue.drain(..).map(|message| (message, slot())));
            return Poll::Ready(true);
        }
        if state.is_closed {
            return Poll::Ready(false);
        }
        let replaced = state.receiver.replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    /// Drops the messages that were not received; lets nobody send any more.
    /// Requests in flight go on.
    pub(crate) fn close(&self) {
        let (dropped, senders, receiver) = {
            let mut state = self.state.lock();
            state.is_closed = true;
            let dropped = std::mem::take(&mut state.queue);
            state.free += dropped.len();
            (dropped, state.senders.take_all(), state.receiver.take())
        };
        drop(dropped);
        senders.wake();
        if let Some(waker) = receiver {
            waker.wake();
        }
    }

    /// Requests that are reserved, queued or in flight.
    pub(crate) fn outstanding(&self) -> usize {
        self.slots - self.state.lock().free
    }

    fn push(&self, message: M) {
        let (refused, receiver) = {
            let mut state = self.state.lock();
            if state.is_closed {
                state.free += 1;
                (Some(message), None)
            } else {
                state.queue.push_back(message);
                (None, state.receiver.take())
            }
        };
        if let Some(waker) = receiver {
            waker.wake();
        }
        drop(refused);
    }

    fn give_back(&self) {
        let (next, all) = {
            let mut state = self.state.lock();
            state.free += 1;
            assert!(state.free <= self.slots, "a slot was given back twice");
            // No slot comes back any more, and with it no wake-up.
            if state.free == self.slots && state.senders.len() > self.slots {
                (None, Some(state.senders.take_all()))
            } else {
                (state.senders.at(state.free - 1), None)
            }
        };
        if let Some(waker) = next {
            waker.wake();
        }
        if let Some(all) = all {
            all.wake();
        }
    }

    /// A sender does not wait any more.
    fn leave(&self, id: &mut Option<u64>) {
        let (own, next) = {
            let mut state = self.state.lock();
            let position = state.senders.position(*id);
            let own = state.senders.remove(id);
            // Its wake-up goes to the sender that moved up to the last of the
            // places that have one.
            let was_woken = position.is_some_and(|position| position < state.free);
            (own, if was_woken { state.senders.at(state.free - 1) } else { None })
        };
        drop(own);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

impl<M> Permit<M> {
    /// Sends the message, which takes the slot along. If the mailbox was
    /// closed meanwhile, the message is dropped.
    pub(crate) fn send(mut self, message: M) {
        if let Some(mailbox) = self.0.mailbox.take() {
            mailbox.push(message);
        }
    }
}

impl<M> Drop for Slot<M> {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.give_back();
        }
    }
}

impl<M> Future for Reserve<M> {
    type Output = Result<Permit<M>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Permit<M>>> {
        let this = self.get_mut();
        let mut state = this.mailbox.state.lock();
        let mut position = state.senders.position(this.id).unwrap_or(state.senders.len());
        let passed = if state.free == this.mailbox.slots && position >= state.free {
            position = 0;
            Some(state.senders.take_all())
        } else {
            None
        };
        let (unneeded, outcome) = if state.is_closed {
            (state.senders.remove(&mut this.id), Poll::Ready(Err(Error::closed())))
        } else if state.free > position {
            state.free -= 1;
            let slot = Slot { mailbox: Some(Arc::clone(&this.mailbox)) };
            (state.senders.remove(&mut this.id), Poll::Ready(Ok(Permit(slot))))
        } else {
            (state.senders.register(&mut this.id, cx.waker()), Poll::Pending)
        };
        drop(state);
        drop(unneeded);
        if let Some(passed) = passed {
            passed.wake();
        }
        outcome
    }
}

impl<M> Drop for Reserve<M> {
    fn drop(&mut self) {
        if self.id.is_some() {
            self.mailbox.leave(&mut self.id);
        }
    }
}
