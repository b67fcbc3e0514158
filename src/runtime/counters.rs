//! What an owner's runtime did.

use crate::base::sync::tally::{AtomicU64, Ordering};

/// Counters of one owner, which any thread may read.
///
/// All but `unparks` are written by one thread alone, so that counting is a
/// load and a store: `worker_slices` by the owner's worker, the others by the
/// owner.
#[derive(Debug, Default)]
pub(crate) struct RuntimeCounters {
    polls: AtomicU64,
    messages: AtomicU64,
    unparks: AtomicU64,
    sleeps: AtomicU64,
    spins_found: AtomicU64,
    slices_long: AtomicU64,
    slice_ns_max: AtomicU64,
    worker_slices: AtomicU64,
    owner_slices: AtomicU64,
    moves: AtomicU64,
    budget_waited_bytes: AtomicU64,
}

/// A reading of [`RuntimeCounters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuntimeCounts {
    /// Polls of tasks.
    pub(crate) polls: u64,
    /// Messages taken out of the mailbox.
    pub(crate) messages: u64,
    /// System calls of other threads to end the owner's sleep.
    pub(crate) unparks: u64,
    /// Times the owner went to sleep.
    pub(crate) sleeps: u64,
    /// Times it found work while it spun, and did not sleep.
    pub(crate) spins_found: u64,
    /// Polls that took longer than 1 ms.
    pub(crate) slices_long: u64,
    /// The longest poll.
    pub(crate) slice_ns_max: u64,
    /// Polls of background work by the worker.
    pub(crate) worker_slices: u64,
    /// Polls of background work by the owner.
    pub(crate) owner_slices: u64,
    /// Times that background work went from the owner to the worker, or back.
    pub(crate) moves: u64,
    /// Bytes of background I/O that had to wait for the device's budget.
    pub(crate) budget_waited_bytes: u64,
}

impl RuntimeCounts {
    /// Adds what another owner did.
    pub(crate) fn add(&mut self, other: &Self) {
        self.polls += other.polls;
        self.messages += other.messages;
        self.unparks += other.unparks;
        self.sleeps += other.sleeps;
        self.spins_found += other.spins_found;
        self.slices_long += other.slices_long;
        self.slice_ns_max = self.slice_ns_max.max(other.slice_ns_max);
        self.worker_slices += other.worker_slices;
        self.owner_slices += other.owner_slices;
        self.moves += other.moves;
        self.budget_waited_bytes += other.budget_waited_bytes;
    }
}

/// For counters with one writer.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

impl RuntimeCounters {
    pub(super) fn poll(&self, slice_ns: u64) {
        add(&self.polls, 1);
        if slice_ns > self.slice_ns_max.load(Ordering::Relaxed) {
            self.slice_ns_max.store(slice_ns, Ordering::Relaxed);
        }
    }

    pub(super) fn long_slice(&self) {
        add(&self.slices_long, 1);
    }

    pub(super) fn messages(&self, count: usize) {
        add(&self.messages, count as u64);
    }

    pub(super) fn unpark(&self) {
        self.unparks.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sleep(&self) {
        add(&self.sleeps, 1);
    }

    pub(super) fn spin_found(&self) {
        add(&self.spins_found, 1);
    }

    pub(super) fn worker_slice(&self) {
        add(&self.worker_slices, 1);
    }

    pub(super) fn owner_slice(&self) {
        add(&self.owner_slices, 1);
    }

    pub(super) fn background_move(&self) {
        add(&self.moves, 1);
    }

    pub(super) fn budget_waited(&self, bytes: usize) {
        add(&self.budget_waited_bytes, bytes as u64);
    }

    pub(crate) fn counts(&self) -> RuntimeCounts {
        RuntimeCounts {
            polls: self.polls.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
            unparks: self.unparks.load(Ordering::Relaxed),
            sleeps: self.sleeps.load(Ordering::Relaxed),
            spins_found: self.spins_found.load(Ordering::Relaxed),
            slices_long: self.slices_long.load(Ordering::Relaxed),
            slice_ns_max: self.slice_ns_max.load(Ordering::Relaxed),
            worker_slices: self.worker_slices.load(Ordering::Relaxed),
            owner_slices: self.owner_slices.load(Ordering::Relaxed),
            moves: self.moves.load(Ordering::Relaxed),
            budget_waited_bytes: self.budget_waited_bytes.load(Ordering::Relaxed),
        }
    }
}
