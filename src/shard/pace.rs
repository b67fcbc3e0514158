//! How fast a shard may be written to while background work is behind.
//!
//! Without it writers would fill a memtable at full speed, then stand still
//! until one is flushed, and so on. So, while all immutable memtables a shard
//! may have are there, writes come in at two thirds of the rate of the last flushes;
//! and the more tables wait on level 0 to be merged, the slower. Who writes too
//! fast takes the next free moment and waits for it, each a little, instead of
//! some very long.

use crate::base::error::ErrorKind;
use crate::base::latency::{Wait, Waited};
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::shard::engine::Limits;
use crate::shard::state::State;

/// So much may come at once before anybody waits.
const SLACK_NS: u64 = 1_000_000;

/// Nobody waits for less: sleeping takes about as long.
const WAIT_NS_MIN: u64 = 50_000;

/// Nor for longer: by then it may be another rate. Who comes faster than that is
/// held up once memtables are full.
const WAIT_NS_MAX: u64 = 1_000_000_000;

/// Of the rate at which memtables are flushed. The rest is what flushes may take
/// longer the next time without anybody standing still: with more than this a
/// writer that fills one memtable after the other stood still for longer now and
/// then (`ouro-bench load`, its slowest write), with less it got through no fewer.
const FLUSH_PERCENT: u64 = 65;

/// A memtable with less than one in so many of the bytes it may have says nothing
/// of how long full ones take.
const FULL_SHARE: u64 = 4;

/// The least that level 0 leaves of the rate.
const NEWEST_PERCENT_MIN: u64 = 1;

/// Slower is not asked for, however slow flushes were.
const BYTES_PER_S_MIN: u64 = 64 << 10;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Pace {
    /// What may be written now; `None` for as much as comes.
    bytes_per_s: Option<u64>,
    /// The next moment that is free.
    free_at_ns: u64,
    /// Bytes of memtables that were flushed in a second, lately.
    flushed_per_s: Option<u64>,
    /// When the last flush ended.
    flushed_at_ns: u64,
    /// When the memtable became immutable that is flushed next, if a write did
    /// that.
    rotated_at_ns: Option<u64>,
    /// Since when that is not left to the worker any more, and what share of the
    /// mutable memtable was free by then, in percent.
    pressed: Option<(u64, u64)>,
}

impl Pace {
    /// How long a write of so many bytes is to wait; 0 for not at all. Its
    /// moment is taken: it does not ask again.
    pub(crate) fn take(&mut self, bytes: usize, now_ns: impl FnOnce() -> u64) -> u64 {
        let Some(bytes_per_s) = self.bytes_per_s else {
            return 0;
        };
        let now_ns = now_ns();
        let cost_ns = (bytes as u128 * 1_000_000_000 / u128::from(bytes_per_s)) as u64;
        let free_at_ns = self.free_at_ns.max(now_ns.saturating_sub(SLACK_NS)) + cost_ns;
        self.free_at_ns = free_at_ns.min(now_ns + WAIT_NS_MAX);
        let wait_ns = self.free_at_ns.saturating_sub(now_ns);
        if wait_ns < WAIT_NS_MIN { 0 } else { wait_ns }
    }

    /// Slows writes down, as if flushes were that slow.
    #[cfg(test)]
    pub(crate) fn slow_to(&mut self, bytes_per_s: u64) {
        self.bytes_per_s = Some(bytes_per_s);
    }

    /// Whether writes may be slowed down.
    pub(crate) fn is_bounded(&self) -> bool {
        self.bytes_per_s.is_some()
    }

    /// A memtable became immutable.
    pub(crate) fn rotated(&mut self, now_ns: u64) {
        self.rotated_at_ns.get_or_insert(now_ns);
    }

    /// The flush that is going on, or the next, is not left to the worker any more:
    /// so much of the mutable memtable is free, in percent.
    pub(crate) fn pressed(&mut self, free_percent: u64, now_ns: u64) {
        self.pressed.get_or_insert((now_ns, free_percent));
    }

    /// A memtable of so many bytes, where `full_bytes` are usual, was flushed, which
    /// began at `began_ns`. The time it had waited for its turn counts, too: the next
    /// has to.
    pub(crate) fn flushed(&mut self, bytes: u64, full_bytes: u64, began_ns: u64, now_ns: u64) {
        let since_ns = self.rotated_at_ns.take().map_or(began_ns, |at_ns| at_ns.min(began_ns));
        let since_ns = since_ns.max(self.flushed_at_ns);
        self.flushed_at_ns = now_ns;
        let took_ns = u128::from(now_ns.saturating_sub(since_ns).max(1));
        let mut now = (u128::from(bytes) * 1_000_000_000 / took_ns) as u64;
        // A worker that did not get on had its time for nothing, which the pace itself
        // had given it: rates would fall from flush to flush. Writes may come as fast
        // as fills what was free while the owner did it.
        if let (Some((at_ns, free_percent)), Some(before)) =
            (self.pressed.take(), self.flushed_per_s)
        {
            let free = u128::from(bytes) * u128::from(free_percent) / 100;
            let took_ns = u128::from(now_ns.saturating_sub(at_ns).max(1));
            let by_owner = u64::try_from(free * 1_000_000_000 / took_ns).unwrap_or(u64::MAX);
            now = now.max(by_owner.min(before));
        }
        // One that was far from full took its time for syncs.
        let is_slower = self.flushed_per_s.is_none_or(|before| now < before);
        if is_slower && bytes < full_bytes / FULL_SHARE {
            return;
        }
        self.flushed_per_s = Some(self.flushed_per_s.map_or(now, |before| before.midpoint(now)));
    }
}

impl State {
    /// After memtables or tables changed: how fast writes may come now.
    pub(crate) fn set_pace(&mut self, limits: &Limits) {
        let newest = self.view.levels.level(0).len();
        let beyond = newest.saturating_sub(limits.newest_tables_behind);
        let is_behind = self.view.frozen.len() >= limits.frozen_max || beyond > 0;
        let beyond = if self.merges_damage() { 0 } else { beyond };
        // Slowly at first, and the more the nearer it comes to where all wait.
        let room = limits.newest_tables_max - limits.newest_tables_behind;
        let left = room.saturating_sub(beyond) as f64 / room as f64;
        let percent = ((100.0 * left * left) as u64).max(NEWEST_PERCENT_MIN);
        let rate = self.pace.flushed_per_s.filter(|_| is_behind);
        let slowed = |rate: u64| rate / 100 * FLUSH_PERCENT / 100 * percent;
        self.pace.bytes_per_s = rate.map(|rate| slowed(rate).max(BYTES_PER_S_MIN));
    }

    /// Whether level 0 takes no more tables for now.
    pub(crate) fn has_too_many_tables(&self, limits: &Limits) -> bool {
        self.view.levels.level(0).len() >= limits.newest_tables_max && !self.merges_damage()
    }

    /// What is damaged is not merged: to wait for that would not help.
    fn merges_damage(&self) -> bool {
        let error = self.compaction_error.as_ref();
        error.is_some_and(|error| error.kind() == ErrorKind::Corruption)
    }
}

/// Why a write may have taken long.
const CAUSES: usize = 4;

/// A write that takes longer is counted by what it waited for.
pub(crate) const SLOW_NS: u64 = 20_000_000;

/// By cause, in the order of [`SlowWriteCounts`].
fn by_cause(waited: &Waited) -> [u64; CAUSES] {
    let device_ns = waited.ns(Wait::Leader) + waited.ns(Wait::Device);
    [waited.ns(Wait::Memtable), waited.ns(Wait::Pace), waited.ns(Wait::Log), device_ns]
}

/// Writes that waited, over all of a database.
#[derive(Default)]
pub(crate) struct SlowWrites {
    slow: [AtomicU64; CAUSES],
    delayed: AtomicU64,
    delayed_ns: AtomicU64,
}

/// A reading of [`SlowWrites`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SlowWriteCounts {
    /// Writes that took longer than [`SLOW_NS`], by what they waited for
    /// longest.
    pub(crate) memtable: u64,
    pub(crate) pace: u64,
    pub(crate) log: u64,
    pub(crate) device: u64,
    /// Writes that waited for their moment, and how long.
    pub(crate) delayed: u64,
    pub(crate) delayed_ns: u64,
}

impl SlowWrites {
    /// A write is over.
    pub(crate) fn note(&self, waited: &Waited) {
        let delayed_ns = waited.ns(Wait::Pace);
        if delayed_ns > 0 {
            self.delayed.fetch_add(1, Ordering::Relaxed);
            self.delayed_ns.fetch_add(delayed_ns, Ordering::Relaxed);
        }
        let by_cause = by_cause(waited);
        if by_cause.iter().sum::<u64>() < SLOW_NS {
            return;
        }
        let longest = (0..CAUSES).max_by_key(|&cause| by_cause[cause]).unwrap_or_default();
        self.slow[longest].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> SlowWriteCounts {
        let [memtable, pace, log, device] = &self.slow;
        let slow = |cause: &AtomicU64| cause.load(Ordering::Relaxed);
        SlowWriteCounts {
            memtable: slow(memtable),
            pace: slow(pace),
            log: slow(log),
            device: slow(device),
            delayed: self.delayed.load(Ordering::Relaxed),
            delayed_ns: self.delayed_ns.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memtable_that_is_hardly_filled_does_not_slow_writers_down() {
        let mut pace = Pace::default();
        pace.flushed(10, 1000, 0, 1_000_000_000);
        assert_eq!(pace.flushed_per_s, None);
        pace.flushed(1000, 1000, 1_000_000_000, 2_000_000_000);
        pace.flushed(10, 1000, 2_000_000_000, 3_000_000_000);
        assert_eq!(pace.flushed_per_s, Some(1000));
        pace.flushed(200, 1000, 3_000_000_000, 3_010_000_000);
        assert!(pace.flushed_per_s > Some(1000));
    }

    #[test]
    fn everybody_waits_a_little() {
        let mut pace = Pace { bytes_per_s: Some(1_000_000), ..Pace::default() };
        let now_ns = 5_000_000_000;
        // A thousand bytes a millisecond, and one millisecond at once.
        let waits: Vec<u64> = (0..40).map(|_| pace.take(100, || now_ns)).collect();
        assert!(waits[..10].iter().all(|&wait| wait == 0), "{waits:?}");
        assert!(waits.windows(2).all(|pair| pair[1] == 0 || pair[1] - pair[0] <= 100_000));
        assert_eq!(waits[39], 3_000_000);
        assert_eq!(pace.take(100, || now_ns + 1_000_000_000), 0, "after a rest");
        assert_eq!(Pace::default().take(1 << 30, || unreachable!("no clock is needed")), 0);
    }

    #[test]
    fn nobody_waits_long_for_a_rate_of_the_past() {
        let mut pace = Pace { bytes_per_s: Some(BYTES_PER_S_MIN), ..Pace::default() };
        let now_ns = 5_000_000_000;
        for _ in 0..100 {
            assert!(pace.take(64 << 10, || now_ns) <= WAIT_NS_MAX);
        }
        pace.bytes_per_s = Some(1 << 30);
        assert!(pace.take(100, || now_ns + WAIT_NS_MAX) < WAIT_NS_MIN);
    }

    #[test]
    fn the_rate_is_that_of_flushes() {
        let mut pace = Pace::default();
        pace.flushed(1000, 1000, 0, 1_000_000_000);
        assert_eq!(pace.flushed_per_s, Some(1000));
        // Its turn came late.
        pace.rotated(2_000_000_000);
        pace.flushed(1000, 1000, 3_500_000_000, 4_000_000_000);
        assert_eq!(pace.flushed_per_s, Some(750));
        // It became immutable while another one was flushed.
        pace.rotated(3_000_000_000);
        pace.flushed(1000, 1000, 4_500_000_000, 6_000_000_000);
        assert_eq!(pace.flushed_per_s, Some(625));
    }

    #[test]
    fn a_starved_worker_does_not_set_the_pace() {
        let mut pace = Pace::default();
        pace.flushed(1000, 1000, 0, 1_000_000_000);
        let mut now_ns = 1_000_000_000;
        for _ in 0..100 {
            // The worker gets nowhere until little is free; then the owner takes a second.
            pace.rotated(now_ns);
            let rate = pace.flushed_per_s.expect("it is known") / 100 * FLUSH_PERCENT;
            now_ns += 750 * 1_000_000_000 / rate.max(1);
            pace.pressed(25, now_ns);
            now_ns += 1_000_000_000;
            pace.flushed(1000, 1000, now_ns - 1_000_000_000, now_ns);
        }
        assert!(pace.flushed_per_s >= Some(250), "{:?} a second", pace.flushed_per_s);
    }

    #[test]
    fn a_slow_write_has_one_cause() {
        let slow = SlowWrites::default();
        let mut waited = Waited::default();
        waited.add(Wait::Device, 15_000_000);
        slow.note(&waited);
        waited.add(Wait::Pace, 16_000_000);
        slow.note(&waited);
        let counts = slow.counts();
        assert_eq!((counts.pace, counts.device, counts.delayed), (1, 0, 1));
    }
}
