//! Several futures at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::base::sync::Mutex;

/// Waits for all of the futures. Each is polled only when it was woken, however
/// many there are.
pub(crate) fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> JoinAll<F> {
    let parts: Vec<Part<F>> =
        futures.into_iter().map(|future| Part::Running(Box::pin(future))).collect();
    let woken = Woken { ready: (0..parts.len()).collect(), waker: None };
    JoinAll { left: parts.len(), parts, woken: Arc::new(Mutex::new(woken)), polled: Vec::new() }
}

/// What [`join_all`] returns.
pub(crate) struct JoinAll<F: Future> {
    parts: Vec<Part<F>>,
    left: usize,
    woken: Arc<Mutex<Woken>>,
    /// Emptied, for the next poll.
    polled: Vec<usize>,
}

enum Part<F: Future> {
    Running(Pin<Box<F>>),
    Done(F::Output),
    Taken,
}

/// Parts that are to be polled, and who is to poll them.
struct Woken {
    ready: Vec<usize>,
    waker: Option<Waker>,
}

struct PartWaker {
    part: usize,
    woken: Arc<Mutex<Woken>>,
}

impl Wake for PartWaker {
    fn wake(self: Arc<Self>) {
        let waker = {
            let mut woken = self.woken.lock();
            woken.ready.push(self.part);
            woken.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

// The parts are boxed: moving this does not move them.
impl<F: Future> Unpin for JoinAll<F> {}

impl<F: Future> Future for JoinAll<F> {
    type Output = Vec<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<F::Output>> {
        let this = &mut *self;
        loop {
            let replaced = {
                let mut woken = this.woken.lock();
                std::mem::swap(&mut woken.ready, &mut this.polled);
                woken.waker.replace(cx.waker().clone())
            };
            drop(replaced);
            if this.polled.is_empty() && this.left > 0 {
                return Poll::Pending;
            }
            for part in this.polled.drain(..) {
                let Part::Running(future) = &mut this.parts[part] else {
                    continue;
                };
                let waker = PartWaker { part, woken: Arc::clone(&this.woken) };
                let waker = Waker::from(Arc::new(waker));
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    this.parts[part] = Part::Done(output);
                    this.left -= 1;
                }
            }
            if this.left == 0 {
                let outputs = this.parts.iter_mut().filter_map(|part| {
                    match std::mem::replace(part, Part::Taken) {
                        Part::Done(output) => Some(output),
                        Part::Running(_) | Part::Taken => None,
                    }
                });
                return Poll::Ready(outputs.collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::tests::{CountingWaker, poll_once};
    use crate::runtime::{block_on, oneshot, yield_now};

    #[test]
    fn outputs_come_in_the_order_of_the_futures() {
        let futures = (0..100u64).map(|i| async move {
            for _ in 0..(i * 7) % 5 {
                yield_now().await;
            }
            i
        });
        assert!(block_on(join_all(futures)).into_iter().eq(0..100));
        assert!(block_on(join_all(Vec::<std::future::Ready<()>>::new())).is_empty());
    }

    #[test]
    fn a_part_is_polled_when_it_was_woken() {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::channel()).unzip();
        let mut joined = join_all(receivers);
        let waker = CountingWaker::new();
        assert!(poll_once(&mut joined, &waker).is_none());
        let mut senders = senders.into_iter().rev();
        senders.next().expect("three").send(2);
        assert_eq!(waker.count(), 1);
        assert!(poll_once(&mut joined, &waker).is_none());
        for (i, sender) in senders.enumerate() {
            sender.send(i);
        }
        let outputs = poll_once(&mut joined, &waker).expect("all are there");
        assert_eq!(outputs, [Ok(1), Ok(0), Ok(2)]);
    }
}
