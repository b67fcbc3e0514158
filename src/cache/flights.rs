//! Flights: reads of blocks that are under way, so that many who miss a block
//! at once read it once.
//!
//! The first to [`Flights::join`] leads: it reads the block and lands the flight
//! with what it got, for all. All who follow depend on that: who leads must not
//! depend on somebody else to poll it. A future that may lie about unpolled
//! therefore leaves the lead to what does its read, and follows. A lead that is
//! dropped without having landed ends the flight; those who followed begin
//! anew.
//!
//! Owns the list of flights, behind a lock that is held for moments, and one
//! lock for each flight. Wakers are woken, and they and results dropped, with no
//! lock held.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::base::error::Result;
use crate::base::sync::Mutex;
use crate::runtime::Waiters;

/// The flights of one table, by their blocks; `T` is what is read, cheap to
/// clone.
pub(crate) struct Flights<T> {
    under_way: Mutex<HashMap<u32, Arc<Flight<T>>, ahash::RandomState>>,
}

struct Flight<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    progress: Progress<T>,
    waiters: Waiters,
}

enum Progress<T> {
    UnderWay,
    Landed(Result<T>),
    /// Whoever led is gone.
    Lost,
}

/// What [`Flights::join`] makes of the caller.
pub(crate) enum Join<T: Clone> {
    /// The caller is to read the block.
    Lead(Lead<T>),
    /// Somebody else is reading it.
    Follow(Follow<T>),
}

impl<T: Clone> Flights<T> {
    pub(crate) fn new() -> Arc<Self> {
        // Nothing goes by the order of the map.
        let seeded = ahash::RandomState::with_seeds(1, 2, 3, 4);
        Arc::new(Self { under_way: Mutex::new(HashMap::with_hasher(seeded)) })
    }

    /// Joins the flight for a block, if there is one.
    pub(crate) fn follow(&self, block: u32) -> Option<Follow<T>> {
        let flight = Arc::clone(self.under_way.lock().get(&block)?);
        Some(Follow { flight, id: None })
    }

    /// Joins the flight for a block; begins one, if there is none.
    pub(crate) fn join(self: &Arc<Self>, block: u32) -> Join<T> {
        let mut under_way = self.under_way.lock();
        if let Some(flight) = under_way.get(&block) {
            return Join::Follow(Follow { flight: Arc::clone(flight), id: None });
        }
        let state = State { progress: Progress::UnderWay, waiters: Waiters::default() };
        let flight = Arc::new(Flight { state: Mutex::new(state) });
        under_way.insert(block, Arc::clone(&flight));
        Join::Lead(Lead { flights: Arc::clone(self), block, flight, has_landed: false })
    }

    /// Flights that are under way.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.under_way.lock().len()
    }
}

/// The duty to read a block.
pub(crate) struct Lead<T: Clone> {
    flights: Arc<Flights<T>>,
    block: u32,
    flight: Arc<Flight<T>>,
    has_landed: bool,
}

impl<T: Clone> Lead<T> {
    /// Waits for this flight beside the others.
    pub(crate) fn follow(&self) -> Follow<T> {
        Follow { flight: Arc::clone(&self.flight), id: None }
    }

    /// Ends the flight: gives all who follow what was read, or why it was not.
    /// Who joins from now on begins another one. If the block is to be cached, it
    /// was inserted before.
    pub(crate) fn land(mut self, read: Result<T>) {
        self.has_landed = true;
        self.end(Progress::Landed(read));
    }

    fn end(&self, progress: Progress<T>) {
        // Also by `drop`, perhaps while a panic unwinds.
        let own = self.flights.under_way.lock_though_broken().remove(&self.block);
        let mut state = self.flight.state.lock_though_broken();
        state.progress = progress;
        let woken = state.waiters.take_all();
        drop(state);
        woken.wake();
        drop(own);
    }
}

impl<T: Clone> Drop for Lead<T> {
    fn drop(&mut self) {
        if !self.has_landed {
            self.end(Progress::Lost);
        }
    }
}

/// Waits for a flight to land: what was read, or `None` when whoever led is
/// gone. May be dropped.
pub(crate) struct Follow<T: Clone> {
    flight: Arc<Flight<T>>,
    /// In the list of those who wait.
    id: Option<u64>,
}

// Nothing points into it.
impl<T: Clone> Unpin for Follow<T> {}

impl<T: Clone> Future for Follow<T> {
    type Output = Option<Result<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.flight.state.lock();
        let landed = match &state.progress {
            Progress::UnderWay => None,
            Progress::Landed(read) => Some(Some(read.clone())),
            Progress::Lost => Some(None),
        };
        let (unneeded, polled) = match landed {
            Some(landed) => (state.waiters.remove(&mut this.id), Poll::Ready(landed)),
            None => (state.waiters.register(&mut this.id, cx.waker()), Poll::Pending),
        };
        drop(state);
        drop(unneeded);
        polled
    }
}

impl<T: Clone> Drop for Follow<T> {
    fn drop(&mut self) {
        if self.id.is_some() {
            let own = self.flight.state.lock_though_broken().waiters.remove(&mut self.id);
            drop(own);
        }
    }
}
