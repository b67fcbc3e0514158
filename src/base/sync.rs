//! The locks of the engine, and what else its threads meet by.
//!
//! One place, so that tests can put another implementation under the whole
//! engine: in unit tests with the feature `shuttle`, all that is named here
//! comes from that crate, which tries out interleavings of threads. What only
//! counts, and orders nothing, is [`tally`], and std's always.
//!
//! A thread that panics while it holds a lock leaves the state behind it half
//! changed: everybody who comes after panics too, rather than work on.
//!
//! The locks of *shards* are [`ShortMutex`]es: held for about a microsecond,
//! never across an await or a system call. Debug builds keep watch over that:
//! see [`assert_unlocked`] and [`LongestHold`].

#[cfg(all(test, feature = "shuttle"))]
use shuttle as primitives;
#[cfg(not(all(test, feature = "shuttle")))]
use std as primitives;

pub(crate) use primitives::sync::atomic;
pub(crate) use primitives::{thread, thread_local};

/// Atomics for counters that only people look at.
pub(crate) mod tally {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
}

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A mutual exclusion lock; see the module's text about panics.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(primitives::sync::Mutex<T>);

/// What [`Mutex::lock`] returns.
pub(crate) type MutexGuard<'a, T> = primitives::sync::MutexGuard<'a, T>;

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(primitives::sync::Mutex::new(value))
    }

    #[track_caller]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        match self.0.lock() {
            Ok(guard) => guard,
            Err(_) => panic!("another thread panicked while it held this lock"),
        }
    }

    /// The same; and how long that took by the clock, if somebody else held it.
    #[inline]
    #[track_caller]
    pub(crate) fn lock_timed(&self, now_ns: impl Fn() -> u64) -> (MutexGuard<'_, T>, u64) {
        match self.0.try_lock() {
            Ok(guard) => (guard, 0),
            Err(_) => self.lock_waiting(now_ns),
        }
    }

    #[cold]
    #[track_caller]
    fn lock_waiting(&self, now_ns: impl Fn() -> u64) -> (MutexGuard<'_, T>, u64) {
        let began_ns = now_ns();
        let guard = self.lock();
        (guard, now_ns().saturating_sub(began_ns))
    }

    /// For those who clean up after a panic, perhaps this thread's own: what is
    /// behind the lock may be half changed.
    pub(crate) fn lock_though_broken(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A lock that nobody holds across an await or a system call.
pub(crate) struct ShortMutex<T> {
    mutex: Mutex<T>,
    longest: Arc<LongestHold>,
}

/// What [`ShortMutex::lock`] returns. It stays on its thread, so that a future
/// that holds one across an await is not `Send`.
pub(crate) struct ShortGuard<'a, T> {
    // Dropped first: what is noted of the hold does not lengthen it.
    guard: MutexGuard<'a, T>,
    _hold: watch::Hold<'a>,
}

impl<T> ShortMutex<T> {
    /// `longest` is told of its holds.
    pub(crate) fn new(value: T, longest: &Arc<LongestHold>) -> Self {
        Self { mutex: Mutex::new(value), longest: Arc::clone(longest) }
    }

    #[track_caller]
    pub(crate) fn lock(&self) -> ShortGuard<'_, T> {
        let guard = self.mutex.lock();
        ShortGuard { guard, _hold: watch::Hold::new(&self.longest) }
    }

    /// As [`Mutex::lock_timed`].
    #[inline]
    #[track_caller]
    pub(crate) fn lock_timed(&self, now_ns: impl Fn() -> u64) -> (ShortGuard<'_, T>, u64) {
        let (guard, waited_ns) = self.mutex.lock_timed(now_ns);
        (ShortGuard { guard, _hold: watch::Hold::new(&self.longest) }, waited_ns)
    }
}

impl<T> Deref for ShortGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for ShortGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

pub(crate) use watch::LongestHold;

/// Panics, in debug builds, when the thread holds a [`ShortMutex`]. `what` it is
/// about to do, or has just done.
#[inline]
#[track_caller]
pub(crate) fn assert_unlocked(what: &str) {
    watch::assert_unlocked(what);
}

/// Keeps watch.
#[cfg(debug_assertions)]
mod watch {
    use std::cell::Cell;
    use std::panic::Location;
    use std::time::Instant;

    use super::tally::{AtomicU64, Ordering};

    super::thread_local! {
        /// How many short locks this thread holds.
        static HELD: Cell<u32> = const { Cell::new(0) };
    }

    /// The longest time for which one of several short locks was held, by the
    /// clock on the wall: a thread that had to wait for a core counts, too.
    #[derive(Default)]
    pub(crate) struct LongestHold {
        ns: AtomicU64,
        /// Where that lock was taken. Not one of the locks that tests replace:
        /// it is no part of what they test.
        site: std::sync::Mutex<Option<&'static Location<'static>>>,
    }

    impl LongestHold {
        /// In nanoseconds.
        pub(crate) fn ns(&self) -> u64 {
            self.ns.load(Ordering::Relaxed)
        }

        fn note(&self, ns: u64, site: &'static Location<'static>) {
            if ns > self.ns() && ns > self.ns.fetch_max(ns, Ordering::Relaxed) {
                *self.site.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(site);
            }
        }
    }

    impl Drop for LongestHold {
        fn drop(&mut self) {
            let site = self.site.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(site) = site {
                let ns = self.ns.get_mut();
                tracing::debug!(ns, %site, "the longest hold of a shard's lock");
            }
        }
    }

    /// One hold of one lock.
    pub(super) struct Hold<'a> {
        longest: &'a LongestHold,
        site: &'static Location<'static>,
        since: Instant,
    }

    impl<'a> Hold<'a> {
        #[track_caller]
        #[expect(clippy::disallowed_methods, reason = "the engine does nothing by this time")]
        pub(super) fn new(longest: &'a LongestHold) -> Self {
            HELD.with(|held| held.set(held.get() + 1));
            Self { longest, site: Location::caller(), since: Instant::now() }
        }
    }

    impl Drop for Hold<'_> {
        fn drop(&mut self) {
            let ns = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            HELD.with(|held| held.set(held.get() - 1));
            self.longest.note(ns, self.site);
        }
    }

    #[track_caller]
    pub(super) fn assert_unlocked(what: &str) {
        // A thread may end while its locals do.
        let held = HELD.try_with(Cell::get).unwrap_or(0);
        assert!(
            held == 0 || std::thread::panicking(),
            "{what}: this thread holds the locks of {held} shards, which is for moments only"
        );
    }
}

/// Costs nothing.
#[cfg(not(debug_assertions))]
mod watch {
    use std::marker::PhantomData;

    /// Would be the longest time for which one of several short locks was held.
    #[derive(Default)]
    pub(crate) struct LongestHold;

    impl LongestHold {
        /// Not measured.
        pub(crate) fn ns(&self) -> u64 {
            0
        }
    }

    pub(super) struct Hold<'a>(PhantomData<&'a LongestHold>);

    impl<'a> Hold<'a> {
        #[inline]
        pub(super) fn new(_longest: &'a LongestHold) -> Self {
            Self(PhantomData)
        }
    }

    #[inline]
    pub(super) fn assert_unlocked(_what: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has two candidates for types that are `Send`, and then does not compile.
    trait StaysOnItsThread<A> {
        fn check() {}
    }
    impl<T: ?Sized> StaysOnItsThread<()> for T {}
    impl<T: ?Sized + Send> StaysOnItsThread<u8> for T {}

    #[test]
    fn a_guard_stays_on_its_thread() {
        <ShortGuard<'_, ()> as StaysOnItsThread<_>>::check();
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "a test: this thread holds the locks of 2 shards")]
    fn a_held_lock_is_noticed() {
        let longest = Arc::default();
        let (a, b) = (ShortMutex::new((), &longest), ShortMutex::new((), &longest));
        let _held = (a.lock(), b.lock());
        assert_unlocked("a test");
    }

    #[test]
    fn locks_that_were_let_go_are_fine() {
        let longest = Arc::default();
        let mutex = ShortMutex::new(1, &longest);
        *mutex.lock() += 1;
        let other = std::thread::scope(|scope| {
            let guard = mutex.lock();
            let other = scope.spawn(|| assert_unlocked("another thread")).join();
            assert_eq!(*guard, 2);
            other
        });
        assert!(other.is_ok());
        assert_unlocked("a test");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "what is tested measures real time")]
    fn the_longest_hold_is_kept() {
        let longest = Arc::<LongestHold>::default();
        let mutex = ShortMutex::new((), &longest);
        assert_eq!(longest.ns(), 0);
        let guard = mutex.lock();
        let began = std::time::Instant::now();
        while began.elapsed().as_micros() < 2000 {}
        drop(guard);
        let longest_ns = longest.ns();
        drop(mutex.lock());
        assert_eq!(longest.ns(), longest_ns);
        assert_eq!(longest_ns >= 2_000_000, cfg!(debug_assertions));
    }
}
