//! One budget of background I/O for each device.
//!
//! What is in flight when a foreground read arrives is what that read waits
//! for. So the bytes of background requests in flight are bounded by what the
//! device moves in half a millisecond, over all owners of all databases on it.
//! Log groups and foreground reads are not counted, and wait for nothing here.
//!
//! Requests are admitted in the order in which they came. One is always
//! admitted when none is in flight, however small the budget: so nobody
//! starves, and a request that is longer than the budget goes alone.
//!
//! **How the budget adapts.** The throughput is measured over windows of
//! [`WINDOW_BYTES`], counting only the time in which something was in flight.
//! After each window the budget moves a quarter of the way to five fourths of
//! what the device moved in half a millisecond, within
//! [`LIMIT_MIN_BYTES`]`..=`[`LIMIT_MAX_BYTES`]. The fourth on top lets it grow
//! on a device that a small budget keeps from showing what it can do. Where the
//! throughput does not depend on the budget, it comes to rest at five fourths;
//! where a single request takes longer than 0.6 ms whatever its length, at the
//! least.
//!
//! The lock is held for moments, and only by owners' threads: a worker's
//! requests are admitted on its owner.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Weak};
use std::task::{Context, Poll};

use super::Waiters;
use crate::base::sync::Mutex;
use crate::io::Io;

/// The longest request.
pub(crate) const PIECE_BYTES_MAX: usize = 256 << 10;

const LIMIT_FIRST_BYTES: u64 = 512 << 10;
const LIMIT_MIN_BYTES: u64 = 128 << 10;
const LIMIT_MAX_BYTES: u64 = 4 << 20;

/// What is in flight is done in this time.
const IN_FLIGHT_NS: u64 = 500_000;

/// Bytes over which the throughput is measured.
const WINDOW_BYTES: u64 = 8 * PIECE_BYTES_MAX as u64;

const _: () = assert!(LIMIT_MIN_BYTES <= LIMIT_FIRST_BYTES && LIMIT_FIRST_BYTES <= LIMIT_MAX_BYTES);

/// The budgets of all devices that open databases are on.
static DEVICES: LazyLock<Mutex<BTreeMap<u64, Weak<Budget>>>> = LazyLock::new(Mutex::default);

/// See the module's text.
pub(crate) struct Budget {
    state: Mutex<State>,
}

struct State {
    limit_bytes: u64,
    in_flight_bytes: u64,
    waiting: Waiters,
    /// Up to when the time is in `window_ns`, while something is in flight.
    measured_ns: u64,
    window_ns: u64,
    window_bytes: u64,
}

/// What [`Budget::take`] returns.
pub(super) struct Take<'a, I: Io> {
    budget: &'a Budget,
    io: &'a I,
    bytes: u64,
    has_waited: bool,
    id: Option<u64>,
}

/// The right to have a request in flight, until it is dropped.
pub(super) struct Share<'a, I: Io> {
    budget: &'a Budget,
    io: &'a I,
    bytes: u64,
    /// Whether it had to wait.
    pub(super) has_waited: bool,
}

impl Budget {
    /// A budget that nobody else has.
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            limit_bytes: LIMIT_FIRST_BYTES,
            in_flight_bytes: 0,
            waiting: Waiters::default(),
            measured_ns: 0,
            window_ns: 0,
            window_bytes: 0,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// The budget that all databases on this device share.
    pub(crate) fn of_device(device: u64) -> Arc<Self> {
        let mut devices = DEVICES.lock();
        if let Some(budget) = devices.get(&device).and_then(Weak::upgrade) {
            return budget;
        }
        devices.retain(|_, budget| budget.strong_count() > 0);
        let budget = Self::new();
        devices.insert(device, Arc::downgrade(&budget));
        budget
    }

    /// Waits until a request of so many bytes may go. `io` has the clock that
    /// its time is measured by.
    pub(super) fn take<'a, I: Io>(&'a self, io: &'a I, bytes: usize) -> Take<'a, I> {
        assert!(bytes <= PIECE_BYTES_MAX, "a background request of {bytes} bytes is in pieces");
        Take { budget: self, io, bytes: bytes as u64, has_waited: false, id: None }
    }

    fn release(&self, bytes: u64, now_ns: u64) {
        let next = {
            let mut state = self.state.lock();
            state.window_ns += now_ns.saturating_sub(state.measured_ns);
            state.measured_ns = now_ns;
            state.window_bytes += bytes;
            state.in_flight_bytes -= bytes;
            if state.window_bytes >= WINDOW_BYTES {
                state.adapt();
            }
            state.waiting.at(0)
        };
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

impl State {
    fn admits(&self, bytes: u64) -> bool {
        self.in_flight_bytes == 0 || self.in_flight_bytes + bytes <= self.limit_bytes
    }

    /// At the end of a window.
    fn adapt(&mut self) {
        let moved = u128::from(self.window_bytes) * u128::from(IN_FLIGHT_NS)
            / u128::from(self.window_ns.max(1));
        let moved = u64::try_from(moved).unwrap_or(u64::MAX).min(LIMIT_MAX_BYTES);
        let wanted = moved + moved / 4;
        let limit = (3 * self.limit_bytes + wanted) / 4;
        self.limit_bytes = limit.clamp(LIMIT_MIN_BYTES, LIMIT_MAX_BYTES);
        self.window_ns = 0;
        self.window_bytes = 0;
    }
}

impl<'a, I: Io> Future for Take<'a, I> {
    type Output = Share<'a, I>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Share<'a, I>> {
        let this = self.get_mut();
        let mut state = this.budget.state.lock();
        let position = state.waiting.position(this.id).unwrap_or(state.waiting.len());
        if position > 0 || !state.admits(this.bytes) {
            let replaced = state.waiting.register(&mut this.id, cx.waker());
            this.has_waited = true;
            drop(state);
            drop(replaced);
            return Poll::Pending;
        }
        if state.in_flight_bytes == 0 {
            state.measured_ns = this.io.now_ns();
        }
        state.in_flight_bytes += this.bytes;
        let own = state.waiting.remove(&mut this.id);
        // There may be room for more than one.
        let next = state.waiting.at(0);
        drop(state);
        drop(own);
        if let Some(waker) = next {
            waker.wake();
        }
        let Self { budget, io, bytes, has_waited, .. } = *this;
        Poll::Ready(Share { budget, io, bytes, has_waited })
    }
}

impl<I: Io> Drop for Take<'_, I> {
    fn drop(&mut self) {
        if self.id.is_none() {
            return;
        }
        let (own, next) = {
            let mut state = self.budget.state.lock();
            let own = state.waiting.remove(&mut self.id);
            // If this one was woken, that was for whoever is first now.
            (own, state.waiting.at(0))
        };
        drop(own);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

impl<I: Io> Drop for Share<'_, I> {
    fn drop(&mut self) {
        self.budget.release(self.bytes, self.io.now_ns());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Budget {
        pub(in crate::runtime) fn limit_bytes(&self) -> u64 {
            self.state.lock().limit_bytes
        }

        pub(in crate::runtime) fn in_flight_bytes(&self) -> u64 {
            self.state.lock().in_flight_bytes
        }
    }

    /// Windows of requests of 128 KiB, with the budget full, on a device that
    /// takes so long for each of them.
    fn adapted(windows: u64, each_ns: impl Fn(u64) -> u64) -> u64 {
        let budget = Budget::new();
        let mut state = budget.state.lock();
        for _ in 0..windows {
            state.window_bytes = WINDOW_BYTES;
            state.window_ns = WINDOW_BYTES / (128 << 10) * each_ns(state.limit_bytes);
            state.adapt();
            assert!((LIMIT_MIN_BYTES..=LIMIT_MAX_BYTES).contains(&state.limit_bytes));
            assert_eq!((state.window_bytes, state.window_ns), (0, 0));
        }
        state.limit_bytes
    }

    #[test]
    fn it_adapts_to_what_the_device_moves_in_half_a_millisecond() {
        // 128 KiB each 128 us: 512 KiB in 0.5 ms.
        let near = |bytes: u64| bytes * 99 / 100..=bytes * 101 / 100;
        assert!(near((512 << 10) * 5 / 4 * 1000 / 1024).contains(&adapted(50, |_| 128_000)));
        assert_eq!(adapted(50, |_| 1), LIMIT_MAX_BYTES);
        assert_eq!(adapted(50, |_| 0), LIMIT_MAX_BYTES);
        assert_eq!(adapted(50, |_| 50_000_000), LIMIT_MIN_BYTES);
        // One window is no reason to believe it.
        assert!(adapted(1, |_| 50_000_000) >= LIMIT_FIRST_BYTES * 3 / 4);
        // Latency alone, of 0.3 ms however much is in flight: it grows.
        let in_parallel = |limit: u64| 300_000 * (128 << 10) / limit;
        assert_eq!(adapted(50, in_parallel), LIMIT_MAX_BYTES);
    }

    #[test]
    fn databases_on_one_device_share_a_budget() {
        let (device, other) = (u64::MAX, u64::MAX - 1);
        let one = Budget::of_device(device);
        assert!(Arc::ptr_eq(&one, &Budget::of_device(device)));
        assert!(!Arc::ptr_eq(&one, &Budget::of_device(other)));
        let gone = Arc::downgrade(&one);
        drop(one);
        assert!(gone.upgrade().is_none(), "the registry keeps none alive");
        let anew = Budget::of_device(device);
        assert_eq!(anew.limit_bytes(), LIMIT_FIRST_BYTES);
    }

    #[cfg(feature = "sim")]
    mod queue {
        use std::collections::VecDeque;

        use super::*;
        use crate::io::sim::Sim;
        use crate::runtime::tests::{CountingWaker, poll_once};

        const PIECE: u64 = PIECE_BYTES_MAX as u64;

        #[test]
        fn requests_are_admitted_in_order_and_never_above_the_budget() {
            let (sim, budget, waker) = (Sim::new(1), Budget::new(), CountingWaker::new());
            let lengths = [256, 4, 256, 4, 4, 128, 256, 256, 64, 4].map(|kib| kib << 10);
            let mut takes: Vec<_> = lengths.iter().map(|&len| budget.take(&sim, len)).collect();
            let mut shares = VecDeque::new();
            for take in &mut takes {
                shares.extend(poll_once(take, &waker));
            }
            let mut admitted = shares.len();
            assert_eq!(admitted, 2, "the third one is too long, and holds back the fourth");
            while admitted < lengths.len() {
                let before = admitted;
                // The last ones first: to come back early gains nothing.
                for i in (before..lengths.len()).rev() {
                    if let Some(share) = poll_once(&mut takes[i], &waker) {
                        assert_eq!(i, admitted, "out of turn");
                        assert!(share.has_waited);
                        admitted += 1;
                        shares.push_back(share);
                    }
                    assert!(budget.in_flight_bytes() <= budget.limit_bytes());
                }
                if admitted == before {
                    let woken = waker.count();
                    drop(shares.pop_front().expect("nobody waits when none is in flight"));
                    assert!(waker.count() > woken, "the next one is told");
                }
            }
            assert!(shares.len() > 1);
        }

        #[test]
        fn one_goes_when_none_is_in_flight_however_small_the_budget() {
            let (sim, budget, waker) = (Sim::new(1), Budget::new(), CountingWaker::new());
            budget.state.lock().limit_bytes = LIMIT_MIN_BYTES;
            let first = poll_once(&mut budget.take(&sim, PIECE_BYTES_MAX), &waker);
            assert!(first.is_some() && PIECE > budget.limit_bytes());
            let mut second = budget.take(&sim, 4096);
            assert!(poll_once(&mut second, &waker).is_none());
            drop(first);
            assert_eq!(waker.count(), 1);
            assert!(poll_once(&mut second, &waker).is_some_and(|share| share.has_waited));
        }

        #[test]
        fn who_does_not_wait_any_more_holds_up_nobody() {
            let (sim, budget, waker) = (Sim::new(1), Budget::new(), CountingWaker::new());
            let shares = [(); 2].map(|()| poll_once(&mut budget.take(&sim, 256 << 10), &waker));
            assert!(shares.iter().all(Option::is_some));
            let mut takes = [(); 3].map(|()| budget.take(&sim, 4096));
            for take in &mut takes {
                assert!(poll_once(take, &waker).is_none());
            }
            drop(shares);
            let [first, mut second, third] = takes;
            let woken = waker.count();
            // It was woken, and is dropped unpolled.
            drop(first);
            assert!(waker.count() > woken);
            assert!(poll_once(&mut second, &waker).is_some());
            drop((second, third));
            assert_eq!((budget.in_flight_bytes(), waker.references()), (0, 0));
        }
    }
}
