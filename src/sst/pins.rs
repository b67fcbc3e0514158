//! How much memory open tables take for good, and who may take more.
//!
//! Every open table takes some: its top index, range tombstones, links to its
//! cached blocks. Most of what tables could take is their partitions, though: a
//! table keeps them, *pinned*, if the sum of all that tables take keeps within a
//! bound. The oldest data have a lower one than all else, as they are the most,
//! and young tables are asked by every lookup.
//!
//! Threads of the idle class make tables, too: all this is one number, changed
//! without a lock.

use std::fmt;
use std::sync::Arc;

use crate::base::sync::tally::{AtomicU64, Ordering};

/// What open tables may take before partitions are not pinned any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PinLimits {
    /// Bytes of all tables.
    pub(crate) bytes_max: u64,
    /// The same, for a table that has nothing older beneath it.
    pub(crate) oldest_bytes_max: u64,
}

impl PinLimits {
    /// All that there is.
    #[cfg(test)]
    pub(crate) const UNBOUNDED: Self = Self { bytes_max: u64::MAX, oldest_bytes_max: u64::MAX };
}

/// What the tables of an engine take.
#[derive(Debug)]
pub(crate) struct Pins {
    bytes: AtomicU64,
    limits: PinLimits,
}

impl Pins {
    pub(crate) fn new(limits: PinLimits) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), limits })
    }

    /// Bytes that tables take, those included that only some reader still has.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What a table may take. `is_oldest` if nothing older has keys in its range.
    pub(crate) fn share(self: &Arc<Self>, is_oldest: bool) -> PinShare {
        let PinLimits { bytes_max, oldest_bytes_max } = self.limits;
        let bytes_max = if is_oldest { oldest_bytes_max } else { bytes_max };
        PinShare { pins: Arc::clone(self), bytes_max }
    }

    /// Whether any partition could be pinned now.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes() < self.limits.bytes_max
    }
}

/// What a table that is being opened may take.
pub(crate) struct PinShare {
    pins: Arc<Pins>,
    bytes_max: u64,
}

impl PinShare {
    /// Nothing yet, to which what must be taken can be added.
    pub(super) fn claim(&self) -> Claim {
        Claim { pins: Arc::clone(&self.pins), bytes: AtomicU64::new(0) }
    }

    /// So many bytes, if there is room for them.
    pub(super) fn reserve(&self, bytes: u64) -> Option<Claim> {
        let taken = |all: u64| all.checked_add(bytes).filter(|&all| all <= self.bytes_max);
        let all = &self.pins.bytes;
        all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        Some(Claim { pins: Arc::clone(&self.pins), bytes: AtomicU64::new(bytes) })
    }
}

/// Bytes that somebody takes, and gives back when it is dropped.
pub(super) struct Claim {
    pins: Arc<Pins>,
    bytes: AtomicU64,
}

impl Claim {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes more, in any case.
    pub(super) fn add(&self, bytes: u64) {
        self.pins.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes over so many bytes of what was reserved, and gives the rest back.
    pub(super) fn settle(&self, reserved: Claim, bytes: u64) {
        assert!(bytes <= reserved.bytes(), "{bytes} bytes of {reserved:?}");
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        reserved.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.pins.bytes.fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({} bytes)", self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_keeps_within_the_bounds_and_comes_back() {
        let pins = Pins::new(PinLimits { bytes_max: 100, oldest_bytes_max: 60 });
        let (young, oldest) = (pins.share(false), pins.share(true));
        let first = oldest.reserve(50).expect("room");
        assert!(oldest.reserve(11).is_none() && oldest.reserve(u64::MAX).is_none());
        let second = young.reserve(50).expect("room for the young");
        assert!(young.reserve(1).is_none() && !pins.has_room());
        let claim = young.claim();
        claim.settle(first, 20);
        assert_eq!((claim.bytes(), pins.bytes()), (20, 70), "the rest came back");
        // What must be is taken even so.
        claim.add(40);
        assert_eq!((claim.bytes(), pins.bytes()), (60, 110));
        drop(second);
        assert_eq!((pins.bytes(), pins.has_room()), (60, true));
        drop(claim);
        assert_eq!(pins.bytes(), 0);
    }

    #[test]
    fn threads_that_reserve_at_once_keep_within_the_bound() {
        let pins = Pins::new(PinLimits { bytes_max: 10, oldest_bytes_max: 10 });
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let share = pins.share(false);
                    for _ in 0..2000 {
                        let claim = share.reserve(3);
                        assert!(pins.bytes() <= 10);
                        drop(claim);
                    }
                });
            }
        });
        assert_eq!(pins.bytes(), 0);
    }
}
