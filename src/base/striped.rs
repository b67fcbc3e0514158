//! Counters that many threads raise at once, and only people look at.

use super::sync::tally::{AtomicU64, Ordering};

/// More would be of use only with more threads that count at the same moment.
const STRIPES: usize = 16;

/// `N` counters, each in several parts. A thread raises the part in its own
/// *stripe*, which few others share, so that counting does not make a line of
/// memory go from core to core.
#[derive(Debug, Default)]
pub(crate) struct Striped<const N: usize> {
    stripes: [Stripe<N>; STRIPES],
}

/// As large as what processors fetch at a time.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Stripe<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Striped<N> {
    /// Raises one of the counters by one.
    #[inline]
    pub(crate) fn count(&self, counter: usize) {
        self.stripes[own_stripe()].0[counter].fetch_add(1, Ordering::Relaxed);
    }

    /// What the counter has come to.
    pub(crate) fn sum(&self, counter: usize) -> u64 {
        self.stripes.iter().map(|stripe| stripe.0[counter].load(Ordering::Relaxed)).sum()
    }
}

/// The stripe of this thread, below [`STRIPES`].
#[inline]
pub(crate) fn own_stripe() -> usize {
    static THREADS: AtomicU64 = AtomicU64::new(0);
    // Std's, also under shuttle: nothing is ordered by it.
    std::thread_local! {
        static OWN: usize = THREADS.fetch_add(1, Ordering::Relaxed) as usize % STRIPES;
    }
    // While a thread ends, its own may be gone.
    OWN.try_with(|own| *own).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_any_thread_counts_is_lost() {
        let counters = Striped::<2>::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| (0..1000).for_each(|i| counters.count(usize::from(i % 4 == 0))));
            }
        });
        assert_eq!((counters.sum(0), counters.sum(1)), (24_000, 8_000));
    }
}
