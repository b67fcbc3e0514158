//! The loop of a client that has several operations in flight: [`pacing`]'s
//! other half.
//!
//! What is due is sent as soon as fewer than `depth` operations are in flight;
//! in a closed loop something always is. Everything else is as in
//! [`pacing::drive`](crate::pacing::drive): from when latency counts, when the
//! loop ends, what is left unsent.
//!
//! The loop is one future, polled by whoever runs the client: a task of a
//! runtime, or a closure on an owner's thread. It shares that thread, and steps
//! back after [`SLICE_NS`] though it may have more to do.
//!
//! [`pacing`]: crate::pacing

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use crate::in_flight::InFlight;
use crate::pacing::{Finish, Pace, Queue, SLEEP_NS_MAX, Window};
use crate::recorder::Record;
use crate::workload::OpKind;

/// How long a client keeps its thread. What completed meanwhile is seen after
/// that, so it is short against the reads of a device.
pub const SLICE_NS: u64 = 20_000;

/// A clock, and somebody to wake tasks by it.
pub trait Timer {
    /// Nanoseconds since some instant. Never goes back.
    fn now_ns(&self) -> u64;

    /// Wakes `waker` at an instant of this clock.
    fn wake_at(&self, at_ns: u64, waker: &Waker);
}

/// What a client does, several operations at a time.
pub trait PipelinedOperations {
    /// What belongs to one operation in flight.
    type Lane;
    /// Why an operation failed.
    type Error;

    /// A lane. As many are made as operations may be in flight.
    fn lane(&self) -> Self::Lane;

    /// Chooses the next operation and gets `lane` ready for it. `None` when there
    /// is none left. In a closed loop this is outside of the measured time.
    fn prepare(&mut self, lane: &mut Self::Lane) -> Option<OpKind>;

    /// Runs what was prepared: the measured part.
    fn execute(lane: &mut Self::Lane) -> impl Future<Output = Result<(), Self::Error>>;

    /// Looks at what came back, outside of the measured time.
    fn verify(&mut self, lane: &mut Self::Lane);
}

/// An operation on its way.
struct Flight<L> {
    lane: L,
    kind: OpKind,
    /// From when its latency counts, and when it was sent.
    begin_ns: u64,
    sent_ns: u64,
}

/// What a client may do now.
enum Next {
    /// Send the next operation, which was due then.
    Send(Option<u64>),
    /// Wait until the next one is due.
    Wait(u64),
    /// Send nothing any more.
    End,
}

/// Runs one client: its operations at its pace, at most `depth` at one time,
/// until the window ends.
///
/// Counts operations in `progress` as it goes. Operations that are in flight at
/// the end are waited for and recorded in full; what was due by then in an open
/// loop is still sent, for a second at most. After an operation has failed no
/// more are sent.
pub async fn drive<T: Timer, O: PipelinedOperations>(
    timer: &T,
    pace: &Pace,
    window: Window<'_>,
    depth: usize,
    operations: &mut O,
    recorder: &mut impl Record,
    progress: &AtomicU64,
) -> Result<Finish, O::Error> {
    let mut in_flight = InFlight::new(depth);
    let new_flight =
        || Flight { lane: operations.lane(), kind: OpKind::Read, begin_ns: 0, sent_ns: 0 };
    // Boxed, so that little is moved when an operation begins or ends.
    let mut idle: Vec<_> = (0..depth).map(|_| Box::new(new_flight())).collect();
    let mut done = 0;
    let (mut exhausted, mut failed) = (false, None);
    // When the timer was last told to wake this client.
    let mut alarm_ns = 0;
    let mut queue = pace.queue();
    let give_up_ns = queue.give_up_ns(window);
    poll_fn(|cx| {
        let polled_ns = timer.now_ns();
        let mut now_ns = polled_ns;
        loop {
            if now_ns - polled_ns >= SLICE_NS {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut polled = in_flight.poll_woken();
            let is_over = exhausted || failed.is_some() || window.stopped();
            if polled.is_none() && !idle.is_empty() && !is_over && now_ns < give_up_ns {
                match next(&queue, window, now_ns) {
                    Next::End => {}
                    Next::Wait(due_ns) => {
                        // One alarm at a time, and not too late to see a stop.
                        if alarm_ns <= now_ns || alarm_ns > due_ns {
                            alarm_ns = due_ns.min(now_ns + SLEEP_NS_MAX);
                            timer.wake_at(alarm_ns, cx.waker());
                        }
                        if in_flight.wait(cx) {
                            return Poll::Pending;
                        }
                        now_ns = timer.now_ns();
                        continue;
                    }
                    Next::Send(begin_ns) => {
                        let Some(mut flight) = idle.pop() else { continue };
                        let Some(kind) = operations.prepare(&mut flight.lane) else {
                            exhausted = true;
                            idle.push(flight);
                            continue;
                        };
                        flight.kind = kind;
                        flight.sent_ns = timer.now_ns();
                        flight.begin_ns = begin_ns.unwrap_or(flight.sent_ns);
                        queue.sent();
                        polled = Some(in_flight.begin(async move {
                            let result = O::execute(&mut flight.lane).await;
                            (flight, result)
                        }));
                    }
                }
            }
            match polled {
                Some(Poll::Ready((mut flight, result))) => {
                    now_ns = timer.now_ns();
                    match result {
                        Ok(()) => {
                            let Flight { kind, begin_ns, sent_ns, .. } = *flight;
                            recorder.record(kind, now_ns, now_ns - begin_ns, now_ns - sent_ns);
                            operations.verify(&mut flight.lane);
                            done += 1;
                            progress.store(done, Ordering::Relaxed);
                        }
                        Err(error) => failed = failed.take().or(Some(error)),
                    }
                    idle.push(flight);
                }
                Some(Poll::Pending) => now_ns = timer.now_ns(),
                None if in_flight.is_empty() => return Poll::Ready(()),
                None if in_flight.wait(cx) => return Poll::Pending,
                None => {}
            }
        }
    })
    .await;
    match failed {
        Some(error) => Err(error),
        None => Ok(queue.finish(window, timer.now_ns(), exhausted)),
    }
}

fn next(queue: &Queue, window: Window<'_>, now_ns: u64) -> Next {
    match queue.due_ns(window) {
        Some(due_ns) if due_ns >= window.end_ns => Next::End,
        Some(due_ns) if due_ns > now_ns => Next::Wait(due_ns),
        due_ns => Next::Send(due_ns),
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
