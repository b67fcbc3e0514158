//! Writes that are held up: an event when that begins, and one when it is over.
//!
//! It begins with the first write that is held up, and is over when a flush or a
//! compaction has made room: no timer is set for it. Under load that comes in turns,
//! many times in a second, so a shard reports each kind once in a second at most.

use crate::base::ids::ShardId;
use crate::shard::engine::Limits;
use crate::shard::state::State;

/// Reports of beginnings are at least so far apart.
const REPORT_GAP_NS: u64 = 1_000_000_000;

/// How writes are held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// They stand still: there is no room in memtables.
    Stall,
    /// They are slowed down: see [`Pace`](crate::shard::pace::Pace).
    Throttle,
}

/// Since when the writes of a shard are held up.
#[derive(Default)]
pub(crate) struct HeldUp {
    since_ns: Option<u64>,
    /// How many were, since then.
    writes: u64,
    is_reported: bool,
    reported_ns: Option<u64>,
    /// Beginnings that were not reported, since one was.
    suppressed: u64,
}

impl HeldUp {
    /// A write is held up. If it is the first one and that is to be reported: how many
    /// beginnings were not.
    fn hold(&mut self, now_ns: u64) -> Option<u64> {
        self.writes += 1;
        if self.since_ns.is_some() {
            return None;
        }
        self.since_ns = Some(now_ns);
        self.is_reported = self
            .reported_ns
            .is_none_or(|reported_ns| now_ns.saturating_sub(reported_ns) >= REPORT_GAP_NS);
        if !self.is_reported {
            self.suppressed += 1;
            return None;
        }
        self.reported_ns = Some(now_ns);
        Some(std::mem::take(&mut self.suppressed))
    }

    /// There is nothing any more that would hold up writes. If they were, and that was
    /// reported: for how long, and how many.
    fn end(&mut self, now_ns: u64) -> Option<(u64, u64)> {
        let since_ns = self.since_ns.take()?;
        let writes = std::mem::take(&mut self.writes);
        self.is_reported.then(|| (now_ns.saturating_sub(since_ns), writes))
    }
}

/// The event of a beginning; to be reported without a lock.
pub(crate) struct Began {
    shard: ShardId,
    hold: Hold,
    immutable_memtables: usize,
    level_0_tables: usize,
    suppressed: u64,
}

impl Began {
    pub(crate) fn report(self) {
        let Self { shard, hold, immutable_memtables, level_0_tables, suppressed } = self;
        match hold {
            Hold::Stall => tracing::warn!(
                shard,
                immutable_memtables,
                level_0_tables,
                suppressed,
                "writes stand still: memtables are full"
            ),
            Hold::Throttle => tracing::info!(
                shard,
                immutable_memtables,
                level_0_tables,
                suppressed,
                "writes are slowed down: background work is behind"
            ),
        }
    }
}

/// The events of what ended; as above.
#[derive(Default)]
pub(crate) struct Ended {
    stall: Option<(u64, u64)>,
    throttle: Option<(u64, u64)>,
}

impl Ended {
    pub(crate) fn report(self, shard: ShardId) {
        if let Some((ns, writes)) = self.stall {
            tracing::info!(shard, writes, duration_us = ns / 1000, "writes go on");
        }
        if let Some((ns, writes)) = self.throttle {
            tracing::info!(shard, writes, duration_us = ns / 1000, "writes have full speed again");
        }
    }
}

impl State {
    /// A write is held up. The event, if there is to be one.
    pub(crate) fn hold_up(&mut self, hold: Hold, shard: ShardId, now_ns: u64) -> Option<Began> {
        let held_up = match hold {
            Hold::Stall => &mut self.stall,
            Hold::Throttle => &mut self.throttle,
        };
        let suppressed = held_up.hold(now_ns)?;
        let immutable_memtables = self.view.frozen.len();
        let level_0_tables = self.view.levels.level(0).len();
        Some(Began { shard, hold, immutable_memtables, level_0_tables, suppressed })
    }

    /// After memtables or tables changed: what holds up writes no longer.
    pub(crate) fn let_go(&mut self, limits: &Limits, now_ns: u64) -> Ended {
        let mut ended = Ended::default();
        if self.has_room(limits) {
            ended.stall = self.stall.end(now_ns);
        }
        if !self.pace.is_bounded() {
            ended.throttle = self.throttle.end(now_ns);
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_report_a_second_and_its_end() {
        let mut held_up = HeldUp::default();
        assert_eq!(held_up.end(1), None);
        assert_eq!(held_up.hold(5), Some(0));
        assert_eq!(held_up.hold(6), None);
        assert_eq!(held_up.end(105), Some((100, 2)));
        assert_eq!(held_up.end(106), None);
        // Soon again: neither its beginning nor its end.
        assert_eq!(held_up.hold(200), None);
        assert_eq!(held_up.end(300), None);
        assert_eq!(held_up.hold(5 + REPORT_GAP_NS), Some(1));
        assert_eq!(held_up.end(6 + REPORT_GAP_NS), Some((1, 1)));
    }
}
