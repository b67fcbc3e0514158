//! Flights: reads of blocks that are under way, so that many who miss a block
//! at once read it once.
//!
//! The first to [`Flights::join`] leads: it reads the block and lands the flight
//! with what it got, for all. A leader that is dropped before hands over to
//! whoever has waited longest. All who wait depend on the leader's getting on:
//! who leads must not depend on somebody else to poll it. A future that may lie
//! about unpolled therefore leaves the lead to what does its read.
//!
//! Owns the list of flights, behind one lock that is held for moments. Wakers
//! are woken, and they and results dropped, with no lock held.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::base::error::Result;
use crate::base::sync::{Mutex, MutexGuard};
use crate::runtime::Waiters;

/// The flights of one cache; `K` names a block, `T` is what is read, cheap to
/// clone.
pub(crate) struct Flights<K, T> {
    state: Mutex<State<K, T>>,
}

struct State<K, T> {
    /// Flights that have not landed, by what they are for.
    under_way: HashMap<K, u64, ahash::RandomState>,
    /// Flights that somebody leads or follows.
    flights: HashMap<u64, Flight<T>, ahash::RandomState>,
    /// Flights so far.
    begun: u64,
}

struct Flight<T> {
    is_led: bool,
    landed: Option<Result<T>>,
    followers: usize,
    waiters: Waiters,
}

/// What [`Flights::join`] makes of the caller.
pub(crate) enum Join<K: Hash + Eq + Clone, T: Clone> {
    /// The caller is to read the block.
    Lead(Lead<K, T>),
    /// Somebody else is reading it.
    Follow(Follow<K, T>),
}

/// What became of a flight.
pub(crate) enum Landing<K: Hash + Eq + Clone, T: Clone> {
    /// What the leader read.
    Read(Result<T>),
    /// The leader is gone, and the caller is to read the block in its place.
    Lead(Lead<K, T>),
}

impl<K: Hash + Eq + Clone, T: Clone> Flights<K, T> {
    pub(crate) fn new() -> Arc<Self> {
        // Nothing goes by the order of the maps.
        let seeded = || ahash::RandomState::with_seeds(1, 2, 3, 4);
        let state = State {
            under_way: HashMap::with_hasher(seeded()),
            flights: HashMap::with_hasher(seeded()),
            begun: 0,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Joins the flight for a block; begins one, if there is none.
    pub(crate) fn join(self: &Arc<Self>, key: &K) -> Join<K, T> {
        let flights = Arc::clone(self);
        let mut state = self.state.lock();
        if let Some(&number) = state.under_way.get(key) {
            let flight = state.flight(number);
            if flight.is_led {
                flight.followers += 1;
                let key = key.clone();
                return Join::Follow(Follow { flights, key, number: Some(number), id: None });
            }
            // Handed over, and not taken yet.
            flight.is_led = true;
            return Join::Lead(Lead { flights, key: key.clone(), number: Some(number) });
        }
        state.begun += 1;
        let number = state.begun;
        state.under_way.insert(key.clone(), number);
        let waiters = Waiters::default();
        state.flights.insert(number, Flight { is_led: true, landed: None, followers: 0, waiters });
        Join::Lead(Lead { flights, key: key.clone(), number: Some(number) })
    }

    /// Flights that somebody leads or follows.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let state = self.state.lock();
        assert!(state.under_way.len() <= state.flights.len());
        state.flights.len()
    }

    fn lock_to_leave(&self) -> MutexGuard<'_, State<K, T>> {
        // Called by `drop`, perhaps while a panic unwinds.
        self.state.lock_though_broken()
    }
}

impl<K: Hash + Eq, T> State<K, T> {
    fn flight(&mut self, number: u64) -> &mut Flight<T> {
        self.flights.get_mut(&number).expect("who leads or follows keeps the flight")
    }

    /// Ends the flight if nobody is left. To be dropped with no lock held.
    #[must_use = "to be dropped with no lock held"]
    fn end_if_left(&mut self, key: &K, number: u64) -> Option<Flight<T>> {
        let flight = self.flight(number);
        if flight.followers > 0 || (flight.is_led && flight.landed.is_none()) {
            return None;
        }
        if flight.landed.is_none() {
            self.under_way.remove(key);
        }
        self.flights.remove(&number)
    }
}

/// The duty to read a block.
pub(crate) struct Lead<K: Hash + Eq + Clone, T: Clone> {
    flights: Arc<Flights<K, T>>,
    key: K,
    /// `None` once it has landed.
    number: Option<u64>,
}

impl<K: Hash + Eq + Clone, T: Clone> Lead<K, T> {
    /// Ends the flight: gives all who follow what was read, or why it was not.
    /// Who joins from now on begins another one. If the block is to be cached, it
    /// was inserted before.
    pub(crate) fn land(mut self, read: Result<T>) {
        let Some(number) = self.number.take() else {
            return;
        };
        let mut state = self.flights.state.lock();
        state.under_way.remove(&self.key);
        let flight = state.flight(number);
        let unwanted = flight.landed.replace(read);
        let woken = flight.waiters.take_all();
        let ended = state.end_if_left(&self.key, number);
        drop(state);
        woken.wake();
        drop((unwanted, ended));
    }
}

impl<K: Hash + Eq + Clone, T: Clone> Drop for Lead<K, T> {
    fn drop(&mut self) {
        let Some(number) = self.number.take() else {
            return;
        };
        let mut state = self.flights.lock_to_leave();
        let flight = state.flight(number);
        flight.is_led = false;
        let next = flight.waiters.take_first();
        let ended = state.end_if_left(&self.key, number);
        drop(state);
        wake(next);
        drop(ended);
    }
}

/// Waits for a flight to land. May be dropped.
pub(crate) struct Follow<K: Hash + Eq + Clone, T: Clone> {
    flights: Arc<Flights<K, T>>,
    key: K,
    /// `None` once it is over.
    number: Option<u64>,
    /// In the list of those who wait.
    id: Option<u64>,
}

// Nothing points into it.
impl<K: Hash + Eq + Clone, T: Clone> Unpin for Follow<K, T> {}

impl<K: Hash + Eq + Clone, T: Clone> Future for Follow<K, T> {
    type Output = Landing<K, T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landing<K, T>> {
        let this = &mut *self;
        let number = this.number.expect("polled after it was ready");
        let mut state = this.flights.state.lock();
        let flight = state.flight(number);
        let landed = flight.landed.clone();
        if landed.is_none() && flight.is_led {
            let replaced = flight.waiters.register(&mut this.id, cx.waker());
            drop(state);
            drop(replaced);
            return Poll::Pending;
        }
        let own = flight.waiters.remove(&mut this.id);
        flight.followers -= 1;
        flight.is_led = landed.is_none();
        let ended = state.end_if_left(&this.key, number);
        drop(state);
        drop((own, ended));
        this.number = None;
        Poll::Ready(match landed {
            Some(read) => Landing::Read(read),
            None => Landing::Lead(Lead {
                flights: Arc::clone(&this.flights),
                key: this.key.clone(),
                number: Some(number),
            }),
        })
    }
}

impl<K: Hash + Eq + Clone, T: Clone> Drop for Follow<K, T> {
    fn drop(&mut self) {
        let Some(number) = self.number.take() else {
            return;
        };
        let mut state = self.flights.lock_to_leave();
        let flight = state.flight(number);
        let own = flight.waiters.remove(&mut self.id);
        flight.followers -= 1;
        // It may be the one that was woken to lead.
        let is_leaderless = !flight.is_led && flight.landed.is_none();
        let next = if is_leaderless { flight.waiters.take_first() } else { None };
        let ended = state.end_if_left(&self.key, number);
        drop(state);
        wake(next);
        drop((own, ended));
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
