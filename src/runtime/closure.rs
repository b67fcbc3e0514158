//! Work of any thread that runs on an owner's, with the owner's own I/O.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::mailbox::Mailbox;
use super::message::Message;
use super::{LocalIo, oneshot};
use crate::base::error::{Error, Result};

/// Calls `work` on the owner that serves `mailbox`, and runs there the future
/// that it returns, which need not be `Send`. Dropping what this returns
/// before the message is sent forgets the call; after that the work goes on to
/// its end.
///
/// # Errors
/// `Closed` when the mailbox is closed, or the owner ends before the work does;
/// `InvalidArgument` when the work panics, which the owner survives.
pub(crate) async fn run_on_owner<W, F>(
    mailbox: &Arc<Mailbox<Message>>,
    work: W,
) -> Result<F::Output>
where
    W: FnOnce(LocalIo) -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
{
    let permit = mailbox.reserve().await?;
    let (reply, answer) = oneshot::channel();
    permit.send(Message::Run(Box::new(move |spawner, io, slot| {
        // Work that waits for requests of others at this owner must not hold
        // them up.
        drop(slot);
        let io = io.for_users(spawner);
        spawner.spawn("closure", async move {
            let output = Contained::new(|| work(io)).await;
            reply.send(output.map_err(|Panicked(message)| {
                Error::invalid(format!("the work given to an owner panicked: {message}"))
            }));
        });
    })));
    answer.await.unwrap_or_else(|oneshot::Gone| Err(Error::closed()))
}

/// A future whose panics end it, and nothing else.
pub(super) struct Contained<F> {
    /// `None` when it has ended.
    future: Option<Pin<Box<F>>>,
    /// It ended before it was polled.
    failed: Option<Panicked>,
}

/// What a panic said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Panicked(pub(super) String);

impl<F: Future> Contained<F> {
    pub(super) fn new(make: impl FnOnce() -> F) -> Self {
        // Whatever the panic left half done is the user's own: the engine runs
        // no code of users while it holds a lock.
        match catch_unwind(AssertUnwindSafe(|| Box::pin(make()))) {
            Ok(future) => Self { future: Some(future), failed: None },
            Err(panic) => Self { future: None, failed: Some(panicked(panic)) },
        }
    }
}

impl<F: Future> Future for Contained<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.future else {
            let failed = self.failed.take();
            return Poll::Ready(Err(failed.expect("a future that has ended is not polled")));
        };
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(self.end().map(|()| output)),
            Err(panic) => {
                let panicked = panicked(panic);
                // One panic is enough to report.
                let _: Result<(), Panicked> = self.end();
                Poll::Ready(Err(panicked))
            }
        }
    }
}

impl<F> Contained<F> {
    /// Drops the future.
    fn end(&mut self) -> Result<(), Panicked> {
        let future = self.future.take();
        catch_unwind(AssertUnwindSafe(|| drop(future))).map_err(panicked)
    }
}

impl<F> Drop for Contained<F> {
    fn drop(&mut self) {
        if let Err(Panicked(message)) = self.end() {
            tracing::error!(message, "work on an owner panicked while it was dropped");
        }
    }
}

fn panicked(payload: Box<dyn Any + Send>) -> Panicked {
    Panicked(match payload.downcast::<&str>() {
        Ok(text) => (*text).to_owned(),
        Err(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => {
                // What else it may be could panic again as it is dropped.
                std::mem::forget(payload);
                String::new()
            }
        },
    })
}
