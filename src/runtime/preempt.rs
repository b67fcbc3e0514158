//! How background work shares an owner's thread with everything else.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{tasks, worker};

/// How long a task works before it lets others have their turn, although none
/// of them is known to wait.
pub(super) const SLICE_NS: u64 = 100_000;

/// To be awaited by long work at its natural places, many times a slice.
///
/// On an owner it goes on at once while the poll is younger than 100 us and
/// nothing waits: no message or wake-up from another thread, no other task, no
/// completion, no request to be submitted. On a [`worker`] it goes
/// on at once for a millisecond, unless the task was recalled. Under any other
/// executor it always yields, so that simulated schedules interleave.
pub(crate) fn slice_end() -> SliceEnd {
    SliceEnd { has_yielded: false }
}

/// What [`slice_end`] returns.
pub(crate) struct SliceEnd {
    has_yielded: bool,
}

impl Future for SliceEnd {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_yielded || tasks::may_go_on() || worker::may_go_on() {
            return Poll::Ready(());
        }
        self.has_yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
