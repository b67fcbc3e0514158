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
        spawner.spawn("closure", async move {
            let output = Contained::new(|| work(io)).await;
            drop(slot);
            reply.send(output);
        });
    })));
    answer.await.unwrap_or_else(|oneshot::Gone| Err(Error::closed()))
}

/// A future whose panics end it, and nothing else.
struct Contained<F> {
    /// `None` when it has ended.
    future: Option<Pin<Box<F>>>,
    /// It ended before it was polled.
    failed: Option<Error>,
}

impl<F: Future> Contained<F> {
    fn new(make: impl FnOnce() -> F) -> Self {
        // Whatever the panic left half done is the user's own: the engine runs
        // no code of users while it holds a lock.
        match catch_unwind(AssertUnwindSafe(|| Box::pin(make()))) {
            Ok(future) => Self { future: Some(future), failed: None },
            Err(panic) => Self { future: None, failed: Some(panicked(panic)) },
        }
    }
}

impl<F: Future> Future for Contained<F> {
    type Output = Result<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<F::Output>> {
        let Some(future) = &mut self.future else {
            return Poll::Ready(Err(self.failed.take().unwrap_or_else(Error::closed)));
        };
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(self.end().map(|()| output)),
            Err(panic) => {
                let error = panicked(panic);
                // One panic is enough to report.
                let _: Result<()> = self.end();
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<F> Contained<F> {
    /// Drops the future.
    fn end(&mut self) -> Result<()> {
        let future = self.future.take();
        catch_unwind(AssertUnwindSafe(|| drop(future))).map_err(panicked)
    }
}

impl<F> Drop for Contained<F> {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "work on an owner panicked while it was dropped");
        }
    }
}

fn panicked(payload: Box<dyn Any + Send>) -> Error {
    let message = match payload.downcast_ref::<&str>() {
        Some(text) => (*text).to_owned(),
        None => payload.downcast_ref::<String>().cloned().unwrap_or_default(),
    };
    // What else it may be could panic again as it is dropped.
    std::mem::forget(payload);
    Error::invalid(format!("the work given to an owner panicked: {message}"))
}
