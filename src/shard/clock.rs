//! The commit clock: which moments exist, and which of them somebody still
//! looks at.
//!
//! Every publication (of what a commit makes visible) takes the next
//! timestamp while it holds the locks of the shards it touches, and leaves a
//! pair (timestamp, visible sequence number) with each of them. A snapshot at
//! timestamp t sees of a shard what the last pair at or below t says: one
//! moment across all shards.
//!
//! The handshake, all sequentially consistent: a snapshot registers with floor
//! 0, then reads the clock, then raises its floor to what it read. A publisher
//! takes its timestamp before it reads the registry. So either the publisher
//! sees the snapshot, and keeps the pairs and versions it needs (floor 0 keeps
//! all); or the snapshot reads a timestamp at or past the publisher's, and
//! needs nothing older.

use std::collections::BTreeMap;

use crate::base::planted::{Bug, planted};
use crate::base::seq::SeqNo;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::sync::{Mutex, MutexGuard};
use crate::lsm::Retain;

/// A moment of the database.
pub(crate) type Timestamp = u64;

/// The clock of one database.
#[derive(Default)]
pub(crate) struct Clock {
    now: AtomicU64,
    /// Open snapshots, for a look without the lock.
    open: AtomicU64,
    registry: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    next: u64,
    /// The floor of each open snapshot.
    floors: BTreeMap<u64, Timestamp>,
}

/// An open snapshot: what it may see is kept until it is closed.
pub(crate) struct Snapshot {
    id: u64,
    pub(crate) at: Timestamp,
}

impl Clock {
    /// Opens a snapshot of this moment. Must be given back to
    /// [`Clock::close`].
    pub(crate) fn snapshot(&self) -> Snapshot {
        let id = {
            let mut registry = self.registry.lock();
            registry.next += 1;
            let id = registry.next;
            registry.floors.insert(id, 0);
            self.open.fetch_add(1, Ordering::SeqCst);
            id
        };
        let at = self.now.load(Ordering::SeqCst);
        self.registry.lock().floors.insert(id, at);
        Snapshot { id, at }
    }

    /// Closes a snapshot.
    pub(crate) fn close(&self, snapshot: &Snapshot) {
        if planted(Bug::SnapshotLeft) {
            return;
        }
        let removed = self.registry.lock().floors.remove(&snapshot.id);
        assert!(removed.is_some(), "a snapshot is closed once");
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// The timestamp of a publication. The caller holds the locks of all
    /// shards that it touches, until it has left its pair with each.
    pub(crate) fn tick(&self) -> Timestamp {
        self.now.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The registry, if there is an open snapshot.
    fn open_snapshots(&self) -> Option<MutexGuard<'_, Registry>> {
        (self.open.load(Ordering::SeqCst) > 0).then(|| self.registry.lock())
    }
}

/// What a shard made visible, and when: pairs in ascending order, as far back
/// as an open snapshot may ask.
pub(crate) struct Published {
    /// Never empty. The first pair stands for all moments before the second.
    pairs: Vec<(Timestamp, SeqNo)>,
}

impl Published {
    /// At opening: everything up to `visible` was always there.
    pub(crate) fn new(visible: SeqNo) -> Self {
        Self { pairs: vec![(0, visible)] }
    }

    /// The sequence number up to which writes are visible now.
    pub(crate) fn visible(&self) -> SeqNo {
        self.pairs[self.pairs.len() - 1].1
    }

    /// Makes everything up to `seq` visible at `at`, which [`Clock::tick`] of
    /// this clock just returned. The visible number only rises.
    pub(crate) fn publish(&mut self, clock: &Clock, at: Timestamp, seq: SeqNo) {
        let visible = self.visible();
        if seq <= visible {
            return;
        }
        let Some(registry) = clock.open_snapshots() else {
            self.pairs.clear();
            self.pairs.push((at, seq));
            return;
        };
        let floors = || registry.floors.values().copied();
        if floors().all(|floor| floor != 0) {
            // No snapshot sees the last pair, or what is before the floors.
            let last = if self.pairs.len() > 1 { self.pairs[self.pairs.len() - 1].0 } else { 0 };
            if !floors().any(|floor| last <= floor && floor < at) {
                self.pairs.pop();
            }
            let lowest = floors().min().unwrap_or(at);
            let below = self.pairs.partition_point(|pair| pair.0 <= lowest);
            self.pairs.drain(..below.saturating_sub(1));
        }
        self.pairs.push((at, seq));
    }

    /// What a snapshot at `at` sees.
    pub(crate) fn bound(&self, at: Timestamp) -> SeqNo {
        let at = at - Timestamp::from(planted(Bug::SnapshotOffByOne) && at > 0);
        let after = self.pairs.partition_point(|pair| pair.0 <= at);
        self.pairs[after.max(1) - 1].1
    }

    /// Which old versions open snapshots may still ask for.
    pub(crate) fn retain(&self, clock: &Clock) -> Retain {
        let Some(registry) = clock.open_snapshots() else {
            return Retain::Bounds(Vec::new());
        };
        if registry.floors.values().any(|&floor| floor == 0) {
            return Retain::All;
        }
        let mut bounds: Vec<SeqNo> = registry.floors.values().map(|&at| self.bound(at)).collect();
        bounds.sort_unstable();
        bounds.dedup();
        Retain::Bounds(bounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(clock: &Clock, published: &mut Published, seq: SeqNo) {
        let at = clock.tick();
        published.publish(clock, at, seq);
    }

    #[test]
    fn a_snapshot_keeps_its_bound() {
        let clock = Clock::default();
        let mut shard = Published::new(10);
        publish(&clock, &mut shard, 11);
        let a = clock.snapshot();
        publish(&clock, &mut shard, 12);
        publish(&clock, &mut shard, 15);
        let b = clock.snapshot();
        publish(&clock, &mut shard, 16);
        assert_eq!((shard.bound(a.at), shard.bound(b.at), shard.visible()), (11, 15, 16));
        assert_eq!(shard.retain(&clock), Retain::Bounds(vec![11, 15]));
        clock.close(&a);
        publish(&clock, &mut shard, 17);
        assert_eq!(shard.bound(b.at), 15);
        assert_eq!(shard.pairs.len(), 2, "the pair of the closed snapshot is gone");
        for seq in 18..100 {
            publish(&clock, &mut shard, seq);
        }
        assert_eq!(shard.pairs.len(), 2, "pairs that no snapshot sees are not kept");
        assert_eq!((shard.bound(b.at), shard.visible()), (15, 99));
        clock.close(&b);
        publish(&clock, &mut shard, 100);
        assert_eq!(shard.pairs.len(), 1);
        assert_eq!(shard.retain(&clock), Retain::Bounds(Vec::new()));
    }

    #[test]
    fn a_shard_nobody_wrote_to_has_its_first_bound() {
        let clock = Clock::default();
        let shard = Published::new(7);
        let snapshot = clock.snapshot();
        assert_eq!(shard.bound(snapshot.at), 7);
        clock.close(&snapshot);
    }

    #[test]
    fn floor_zero_keeps_everything() {
        let clock = Clock::default();
        let mut shard = Published::new(0);
        // A snapshot between registering and reading the clock.
        clock.registry.lock().floors.insert(99, 0);
        clock.open.fetch_add(1, Ordering::SeqCst);
        for seq in 1..=5 {
            publish(&clock, &mut shard, seq);
        }
        assert_eq!((0..=5).map(|at| shard.bound(at)).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(shard.retain(&clock), Retain::All);
    }

    #[test]
    fn the_visible_number_only_rises() {
        let clock = Clock::default();
        let mut shard = Published::new(0);
        publish(&clock, &mut shard, 5);
        publish(&clock, &mut shard, 3);
        assert_eq!(shard.visible(), 5);
    }
}
