//! Several futures of one task, polled when they are woken.
//!
//! For a load generator in place of what crates offer: an operation is polled
//! where it is begun, so that one that ends at once costs no queue; nothing is
//! allocated for an operation, for their places are used again; and how many are
//! polled before the task steps back is the caller's business.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// At most so many futures, and which of them were woken.
pub struct InFlight<F> {
    places: Vec<Place<F>>,
    free: Vec<usize>,
    woken: Arc<Woken>,
}

struct Place<F> {
    /// `None` while it is free.
    future: Pin<Box<Option<F>>>,
    wakeup: Arc<Wakeup>,
    waker: Waker,
}

struct Wakeup {
    place: usize,
    /// Whether the place's number is in the queue.
    queued: AtomicBool,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    places: VecDeque<usize>,
    /// Who polls all of this, if it waits.
    task: Option<Waker>,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Whoever finds it set knows that the poll to come sees what this
        // thread did before: it is cleared with a swap, too.
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let task = {
            let mut queue = self.woken.0.lock().expect("nothing panics under this lock");
            queue.places.push_back(self.place);
            queue.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<F: Future> InFlight<F> {
    /// Room for `depth` futures.
    #[must_use]
    pub fn new(depth: usize) -> Self {
        let woken = Arc::<Woken>::default();
        let place = |place| {
            let queued = AtomicBool::new(false);
            let wakeup = Arc::new(Wakeup { place, queued, woken: Arc::clone(&woken) });
            let waker = Waker::from(Arc::clone(&wakeup));
            Place { future: Box::pin(None), wakeup, waker }
        };
        Self { places: (0..depth).map(place).collect(), free: (0..depth).rev().collect(), woken }
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// Polls a future for the first time. There must be room, for it may not end
    /// with that.
    pub fn begin(&mut self, future: F) -> Poll<F::Output> {
        let place = self.free.pop().expect("a future is begun where there is room");
        self.places[place].future.set(Some(future));
        self.poll(place).map_or(Poll::Pending, Poll::Ready)
    }

    /// Polls the future that was woken first. `None` when none is.
    pub fn poll_woken(&mut self) -> Option<Poll<F::Output>> {
        let place = {
            let mut queue = self.woken.0.lock().expect("nothing panics under this lock");
            queue.places.pop_front()?
        };
        self.places[place].wakeup.queued.swap(false, Ordering::AcqRel);
        Some(self.poll(place).map_or(Poll::Pending, Poll::Ready))
    }

    fn poll(&mut self, number: usize) -> Option<F::Output> {
        let Place { future, waker, .. } = &mut self.places[number];
        // A late wake-up finds the place free, or polls once too often.
        let polled = future.as_mut().as_pin_mut()?.poll(&mut Context::from_waker(waker));
        let Poll::Ready(output) = polled else {
            return None;
        };
        future.set(None);
        self.free.push(number);
        Some(output)
    }

    /// Has the task woken when one of the futures is. False when one was already.
    pub fn wait(&self, cx: &Context<'_>) -> bool {
        let mut queue = self.woken.0.lock().expect("nothing panics under this lock");
        if !queue.places.is_empty() {
            return false;
        }
        queue.task = Some(cx.waker().clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    struct CountWakes(AtomicUsize);

    impl Wake for CountWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A future that ends at its poll number `polls`, and shows its wakers.
    fn after(
        polls: usize,
        name: &'static str,
        wakers: &Rc<RefCell<Vec<Waker>>>,
    ) -> impl Future<Output = &'static str> + use<> {
        let (mut left, wakers) = (polls, Rc::clone(wakers));
        poll_fn(move |cx| {
            left -= 1;
            if left == 0 {
                return Poll::Ready(name);
            }
            wakers.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
    }

    #[test]
    fn futures_are_polled_when_woken_in_that_order() {
        let wakers = Rc::<RefCell<Vec<Waker>>>::default();
        let task = Arc::new(CountWakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&task));
        let cx = Context::from_waker(&waker);
        let mut in_flight = InFlight::new(2);
        assert_eq!(in_flight.begin(after(1, "at once", &wakers)), Poll::Ready("at once"));
        assert!(in_flight.is_empty());
        assert!(in_flight.begin(after(2, "one", &wakers)).is_pending());
        assert!(in_flight.begin(after(3, "two", &wakers)).is_pending());
        assert!(in_flight.poll_woken().is_none());
        assert!(in_flight.wait(&cx));
        let woken: Vec<_> = wakers.borrow_mut().drain(..).collect();
        for waker in [&woken[1], &woken[0], &woken[1]] {
            waker.wake_by_ref();
        }
        assert_eq!(task.0.load(Ordering::Relaxed), 1, "the task is woken once");
        assert!(!in_flight.wait(&cx));
        assert_eq!(in_flight.poll_woken(), Some(Poll::Pending));
        assert_eq!(in_flight.poll_woken(), Some(Poll::Ready("one")));
        assert_eq!(in_flight.poll_woken(), None);
        assert!(in_flight.wait(&cx));
        // Late wake-ups: of a place that is free, and of the future that was
        // there before.
        woken[0].wake_by_ref();
        assert_eq!(in_flight.poll_woken(), Some(Poll::Pending));
        woken[0].wake_by_ref();
        assert!(in_flight.begin(after(3, "three", &wakers)).is_pending());
        assert_eq!(in_flight.poll_woken(), Some(Poll::Pending));
        for waker in wakers.borrow_mut().drain(..) {
            waker.wake();
        }
        assert_eq!(in_flight.poll_woken(), Some(Poll::Ready("two")));
        assert_eq!(in_flight.poll_woken(), Some(Poll::Ready("three")));
        assert!(in_flight.is_empty());
    }

    #[test]
    #[should_panic(expected = "where there is room")]
    fn there_is_no_more_room_than_was_asked_for() {
        let mut in_flight = InFlight::new(1);
        for _ in 0..2 {
            let _pending = in_flight.begin(std::future::pending::<()>());
        }
    }
}
