//! What decides which block leaves the cache.
//!
//! A policy knows resident blocks by their first frame. It stands behind the
//! cache's lock, which only misses take; hits do no more than raise the
//! frequency of their block, which the policy finds when it looks for a victim.
#![allow(
    unreachable_pub,
    reason = "public only under the feature `bench-internals`, for benches/cache.rs"
)]

/// How often blocks were used, by their first frames: 0 to 3 each.
pub trait Frequencies {
    /// Uses since it was inserted, or since the last [`Frequencies::set`].
    fn get(&self, frame: u32) -> u8;

    /// Sets it, lower than it was.
    fn set(&self, frame: u32, frequency: u8);
}

/// Decides which block leaves the cache.
pub trait Policy {
    /// A block has come, in `units` frames of which this is the first.
    /// `fingerprint` is the same when it comes again, and rarely that of another
    /// block.
    fn insert(&mut self, frame: u32, units: u32, fingerprint: u64);

    /// The same for a block that is known to be wanted: what it holds was there before, as part
    /// of other blocks.
    fn insert_proven(&mut self, frame: u32, units: u32, fingerprint: u64) {
        self.insert(frame, units, fingerprint);
    }

    /// Removes the block that is to go next, and says which; `None` when there
    /// is none.
    fn victim(&mut self, frequencies: &impl Frequencies) -> Option<u32>;

    /// Removes a block that goes for another reason.
    fn remove(&mut self, frame: u32);
}
