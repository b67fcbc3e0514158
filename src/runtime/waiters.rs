//! A list of wakers for the inside of another structure's lock.

use std::collections::VecDeque;
use std::task::Waker;

/// Who waits for something, in the order in which they came.
///
/// A waiter keeps the number that [`Waiters::register`] gives it, and hands it
/// back at each poll: polled many times it is still in the list once, and a
/// future that is dropped takes itself out. Wakers are called and dropped with
/// no lock held, since both may run code of whoever made them; therefore they
/// are handed out, here and there, rather than dropped.
#[derive(Default)]
pub(crate) struct Waiters {
    /// Numbers given so far.
    made: u64,
    /// Ascending by their numbers.
    list: VecDeque<(u64, Waker)>,
}

impl Waiters {
    /// Puts a waiter at the end of the list, or, if it is there, exchanges its
    /// waker. Returns the waker that is not needed any more.
    #[must_use = "to be dropped with no lock held"]
    pub(crate) fn register(&mut self, id: &mut Option<u64>, waker: &Waker) -> Option<Waker> {
        if let Some(at) = self.position(*id) {
            let known = &mut self.list[at].1;
            let is_new = !known.will_wake(waker);
            return is_new.then(|| std::mem::replace(known, waker.clone()));
        }
        self.made += 1;
        *id = Some(self.made);
        self.list.push_back((self.made, waker.clone()));
        None
    }

    /// Takes a waiter out, if it is there.
    #[must_use = "to be dropped with no lock held"]
    pub(crate) fn remove(&mut self, id: &mut Option<u64>) -> Option<Waker> {
        let at = self.position(id.take())?;
        self.list.remove(at).map(|(_, waker)| waker)
    }

    /// How many wait in front of this one; `None` when it is not in the list.
    pub(crate) fn position(&self, id: Option<u64>) -> Option<usize> {
        let id = id?;
        self.list.binary_search_by_key(&id, |(id, _)| *id).ok()
    }

    /// The waker of whoever has `position` others in front. It stays.
    pub(crate) fn at(&self, position: usize) -> Option<Waker> {
        self.list.get(position).map(|(_, waker)| waker.clone())
    }

    /// Takes out whoever came first.
    #[must_use = "to be woken with no lock held"]
    pub(crate) fn take_first(&mut self) -> Option<Waker> {
        self.list.pop_front().map(|(_, waker)| waker)
    }

    /// Takes all of them out, to be woken in order with no lock held. Who still
    /// has to wait after that comes again, to the end of the list.
    #[must_use = "to be woken with no lock held"]
    pub(crate) fn take_all(&mut self) -> Woken {
        Woken(std::mem::take(&mut self.list))
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }
}

/// Waiters that were taken out of their list, and are to be woken.
pub(crate) struct Woken(VecDeque<(u64, Waker)>);

impl Woken {
    /// Wakes them in the order in which they came.
    pub(crate) fn wake(self) {
        for (_, waker) in self.0 {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::tests::CountingWaker;

    #[test]
    fn a_waiter_is_in_the_list_once() {
        let mut waiters = Waiters::default();
        let (first, second) = (CountingWaker::new(), CountingWaker::new());
        let mut id = None;
        assert!(waiters.register(&mut id, &first.waker()).is_none());
        assert!(waiters.register(&mut id, &first.waker()).is_none());
        // Polled by another task since.
        let replaced = waiters.register(&mut id, &second.waker()).expect("replaced");
        assert!(replaced.will_wake(&first.waker()));
        assert_eq!(waiters.len(), 1);
        waiters.take_all().wake();
        assert_eq!((first.count(), second.count()), (0, 1));
        assert!(waiters.remove(&mut id).is_none());
        assert_eq!(id, None);
    }

    #[test]
    fn the_order_is_that_of_their_coming() {
        let mut waiters = Waiters::default();
        let wakers: Vec<_> = (0..4).map(|_| CountingWaker::new()).collect();
        let mut ids = [None; 4];
        for (id, waker) in ids.iter_mut().zip(&wakers) {
            assert!(waiters.register(id, &waker.waker()).is_none());
        }
        assert!(waiters.remove(&mut ids[1]).is_some());
        assert_eq!(waiters.position(ids[0]), Some(0));
        assert_eq!(waiters.position(ids[1]), None);
        assert_eq!(waiters.position(ids[3]), Some(2));
        // One that comes again has lost its place.
        assert!(waiters.register(&mut ids[1], &wakers[1].waker()).is_none());
        assert_eq!(waiters.position(ids[1]), Some(3));
        assert!(waiters.at(1).is_some_and(|waker| waker.will_wake(&wakers[2].waker())));
        assert!(waiters.at(4).is_none());
        waiters.take_all().wake();
        assert!(wakers.iter().all(|waker| waker.count() == 1));
        assert_eq!(waiters.len(), 0);
    }
}
