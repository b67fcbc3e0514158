//! What is asked of an owner, and the task that answers.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::mailbox::{Mailbox, Slot};
use super::{LocalIo, Spawner, oneshot};
use crate::base::error::{Error, Result};
use crate::io::{File, Harden, Io, IoBuf, WriteBuf};

/// A request to an owner. It owns all that it needs, its reply included.
pub(crate) enum Message {
    Read(File, u64, Posted<IoBuf, usize>),
    /// A read that others wait for, too.
    ReadDetached(File, u64, IoBuf, Box<Done>),
    Write(File, u64, Harden, Posted<WriteBuf, ()>),
    Sync(File, Posted<(), ()>),
    /// Called in the task that serves the mailbox: it spawns what takes time.
    Run(Box<Call>),
}

/// What is called when a detached read has ended.
pub(super) type Done = dyn FnOnce(IoBuf, Result<usize>) + Send;

/// What [`Message::Run`] does. The slot is given back when it is dropped.
pub(super) type Call = dyn FnOnce(&Spawner, LocalIo, Slot<Message>) + Send;

/// The buffer of a request, and the way of the answer. Dropped before it was
/// tried, it goes back with the error `Closed`.
pub(crate) struct Posted<B, T>(Option<(B, Reply<B, T>)>);

type Reply<B, T> = oneshot::Sender<(B, Result<T>)>;

impl<B, T> Posted<B, T> {
    pub(super) fn new(buf: B) -> (Self, oneshot::Receiver<(B, Result<T>)>) {
        let (reply, answer) = oneshot::channel();
        (Self(Some((buf, reply))), answer)
    }

    fn take(mut self) -> (B, Reply<B, T>) {
        self.0.take().expect("it is taken once, by value")
    }
}

impl<B, T> Drop for Posted<B, T> {
    fn drop(&mut self) {
        if let Some((buf, reply)) = self.0.take() {
            reply.send((buf, Err(Error::closed())));
        }
    }
}

/// Serves the mailbox of an owner with its I/O: one task for each request.
/// Ends when the mailbox was closed and no read, write or sync is in flight;
/// closures that still run then are left to the executor. However it ends, the
/// mailbox is closed.
pub(crate) async fn serve(mailbox: Arc<Mailbox<Message>>, io: LocalIo, spawner: Spawner) {
    let _closes = CloseOnDrop(&mailbox);
    let in_flight = InFlight::default();
    let mut batch = VecDeque::new();
    while poll_fn(|cx| mailbox.poll_receive(cx, &mut batch)).await {
        spawner.counters().messages(batch.len());
        for (message, slot) in batch.drain(..) {
            match message {
                Message::Run(call) => call(&spawner, io.clone(), slot),
                request => {
                    let request = perform(request, io.clone(), slot, in_flight.one_more());
                    spawner.spawn("request", request);
                }
            }
        }
    }
    in_flight.none().await;
}

/// Runs one request to its completion, whether or not somebody still waits.
async fn perform(message: Message, io: LocalIo, slot: Slot<Message>, _token: Token) {
    match message {
        Message::Read(file, offset, posted) => {
            let (buf, reply) = posted.take();
            let answer = io.read(&file, offset, buf).await;
            drop(slot);
            reply.send(answer);
        }
        Message::ReadDetached(file, offset, buf, done) => {
            let (buf, result) = io.read(&file, offset, buf).await;
            drop(slot);
            done(buf, result);
        }
        Message::Write(file, offset, harden, posted) => {
            let (buf, reply) = posted.take();
            let answer = io.write(&file, offset, buf, harden).await;
            drop(slot);
            reply.send(answer);
        }
        Message::Sync(file, posted) => {
            let (nothing, reply) = posted.take();
            let answer = io.sync(&file).await;
            drop(slot);
            reply.send((nothing, answer));
        }
        Message::Run(_) => unreachable!("calls are not performed"),
    }
}

struct CloseOnDrop<'a>(&'a Mailbox<Message>);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Counts requests that were begun and have not ended.
#[derive(Clone, Default)]
struct InFlight(Rc<Count>);

#[derive(Default)]
struct Count {
    requests: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

struct Token(InFlight);

impl InFlight {
    fn one_more(&self) -> Token {
        self.0.requests.set(self.0.requests.get() + 1);
        Token(self.clone())
    }

    /// Waits until there are none.
    fn none(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| {
            if self.0.requests.get() == 0 {
                return Poll::Ready(());
            }
            let replaced = self.0.waiting.replace(Some(cx.waker().clone()));
            drop(replaced);
            Poll::Pending
        })
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let count = &self.0.0;
        count.requests.set(count.requests.get() - 1);
        if count.requests.get() == 0
            && let Some(waker) = count.waiting.take()
        {
            waker.wake();
        }
    }
}
