//! What stands behind a shard's lock.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use crate::base::error::{Error, Result};
use crate::base::ids::ShardId;
use crate::base::keys::KeyBounds;
use crate::base::seq::SeqNo;
use crate::base::sync::{LongestHold, ShortGuard, ShortMutex};
use crate::lsm::{Frozen, View};
use crate::memtable::{ArenaPool, Memtable};
use crate::runtime::Waiters;
use crate::shard::clock::Published;
use crate::shard::engine::Limits;
use crate::shard::held_up::HeldUp;
use crate::shard::pace::Pace;
use crate::value::ValueFiles;

/// With so much of the mutable memtable used, flushes are no more left to threads
/// that get what others leave of the cores.
const PRESSING_PERCENT: usize = 75;

/// A memtable may refer to so many times the bytes of long values that it may
/// have itself. Those of them that were overwritten take space until it is
/// flushed, and it has room for tens of gigabytes; a flush of a few references
/// costs next to nothing.
const REFERENCED_TIMES: u64 = 8;

/// One shard of the keyspace.
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) values: Arc<ValueFiles>,
    state: ShortMutex<State>,
}

/// The foreground state of a shard.
pub(crate) struct State {
    pub(crate) mutable: Memtable,
    /// Counts the mutable memtables, so that a scan notices a new one.
    pub(crate) generation: u64,
    /// The stream position of the mutable memtable's first record.
    pub(crate) log_start: Option<u64>,
    /// The stream position of the end of the shard's last record.
    pub(crate) log_end: u64,
    /// The number the next write gets.
    pub(crate) next_seq: SeqNo,
    pub(crate) published: Published,
    pub(crate) view: Arc<View>,
    /// Long batches whose entries are still being inserted: until they are
    /// all in, the memtable is not rotated.
    pub(crate) inserting: u32,
    /// Somebody waits until all writes up to this number are in tables.
    pub(crate) flush_wanted: SeqNo,
    /// Why flushing does not go on, if it does not.
    pub(crate) flush_error: Option<Error>,
    /// Ranges that somebody wants compacted, in the order in which they were
    /// asked for.
    pub(crate) compact_wanted: VecDeque<Arc<Wanted>>,
    /// Why compaction does not go on, if it does not.
    pub(crate) compaction_error: Option<Error>,
    pub(crate) closed: bool,
    /// How fast writes may come.
    pub(crate) pace: Pace,
    /// Whether writes stand still, or are slowed down, for the events of that.
    pub(crate) stall: HeldUp,
    pub(crate) throttle: HeldUp,
    /// Writers that wait for room in the memtable.
    stalled: Waiters,
    /// Since they were woken last, a write found none.
    has_stalled: bool,
    /// Counts the times that stalled writers were woken.
    rooms: u64,
    pub(crate) counts: ShardCounts,
}

/// What a shard has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShardCounts {
    /// Writes: puts, deletes, and range deletes.
    pub(crate) writes: u64,
    /// Bytes of their keys and values.
    pub(crate) write_bytes: u64,
    pub(crate) flushes: u64,
    /// Bytes of the tables they made.
    pub(crate) flushed_bytes: u64,
    pub(crate) compactions: u64,
    /// Bytes of the tables that were merged, and of those that came of it.
    pub(crate) compaction_read_bytes: u64,
    pub(crate) compaction_written_bytes: u64,
    /// Tables that changed their level as they were.
    pub(crate) tables_moved: u64,
    /// Tables that were written over the files of others.
    pub(crate) files_reused: u64,
    /// Writes that had to wait for room in the memtable.
    pub(crate) stalls: u64,
}

/// Whether a write may go into the mutable memtable now.
pub(crate) enum Admission {
    /// It may.
    Granted,
    /// It may: the memtable was rotated for it, and is to be flushed; or it is
    /// about to be full while another one still has to be.
    Flush,
    /// Wait with [`Shard::room`] and this number, then ask again. The first who has
    /// to tells the owner.
    Stalled { seen: u64, is_first: bool },
    /// Wait for so many nanoseconds, then ask again, without a bound to the
    /// pace.
    Paced(u64),
}

impl Shard {
    /// `longest` is told how long its lock is held.
    pub(crate) fn new(
        id: ShardId,
        values: Arc<ValueFiles>,
        state: State,
        longest: &Arc<LongestHold>,
    ) -> Self {
        Self { id, values, state: ShortMutex::new(state, longest) }
    }

    /// For moments: never across an await or a system call.
    #[track_caller]
    pub(crate) fn lock(&self) -> ShortGuard<'_, State> {
        self.state.lock()
    }

    /// The same; and how long that took by the clock, if somebody else held it.
    #[inline]
    #[track_caller]
    pub(crate) fn lock_timed(&self, now_ns: impl Fn() -> u64) -> (ShortGuard<'_, State>, u64) {
        self.state.lock_timed(now_ns)
    }

    /// Waits until it is worth asking for admission again: since `seen` was
    /// given out, stalled writers were woken.
    pub(crate) async fn room(&self, seen: u64) {
        let mut waiting = Stalled { shard: self, id: None };
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.rooms != seen {
                return Poll::Ready(());
            }
            let replaced = state.stalled.register(&mut waiting.id, cx.waker());
            drop(state);
            drop(replaced);
            Poll::Pending
        })
        .await;
    }

    /// Tells stalled writers to ask again.
    pub(crate) fn wake_stalled(&self) {
        let stalled = {
            let mut state = self.lock();
            state.rooms += 1;
            state.has_stalled = false;
            state.stalled.take_all()
        };
        stalled.wake();
    }
}

/// A range that somebody wants compacted.
pub(crate) struct Wanted {
    pub(crate) range: KeyBounds,
    /// Set under the shard's lock once there is nothing more to do, or to be done.
    pub(crate) outcome: OnceLock<Result<()>>,
}

/// A writer that waits; dropping it leaves nothing behind.
struct Stalled<'a> {
    shard: &'a Shard,
    id: Option<u64>,
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        let removed = self.shard.lock().stalled.remove(&mut self.id);
        drop(removed);
    }
}

impl State {
    /// The state of a shard at opening: `view` holds every write up to
    /// `flushed`.
    pub(crate) fn new(view: View, flushed: SeqNo, arenas: &Arc<ArenaPool>) -> Self {
        Self {
            mutable: Memtable::new(arenas),
            generation: 0,
            log_start: None,
            log_end: 0,
            next_seq: flushed + 1,
            published: Published::new(flushed),
            view: Arc::new(view),
            inserting: 0,
            flush_wanted: flushed,
            flush_error: None,
            compact_wanted: VecDeque::new(),
            compaction_error: None,
            closed: false,
            pace: Pace::default(),
            stall: HeldUp::default(),
            throttle: HeldUp::default(),
            stalled: Waiters::default(),
            has_stalled: false,
            rooms: 0,
            counts: ShardCounts::default(),
        }
    }

    /// Asks for room for `bytes` in the mutable memtable, which is to have at
    /// most `memtable_bytes`. `is_paced`: this write has asked for the shard's
    /// pace, which is done once.
    ///
    /// # Errors
    /// When there is no room, and flushing or compaction fails; or the shard is
    /// closed.
    pub(crate) fn admit(
        &mut self,
        bytes: usize,
        memtable_bytes: usize,
        limits: &Limits,
        arenas: &Arc<ArenaPool>,
        now_ns: &impl Fn() -> u64,
        is_paced: &mut bool,
    ) -> Result<Admission> {
        if self.closed {
            return Err(Error::closed());
        }
        if !std::mem::replace(is_paced, true) {
            let wait_ns = self.pace.take(bytes, now_ns);
            if wait_ns > 0 {
                return Ok(Admission::Paced(wait_ns));
            }
        }
        let is_full = self.mutable.used_bytes() + bytes > memtable_bytes
            || self.mutable.has_many_ranges()
            || self.mutable.referenced_bytes() / REFERENCED_TIMES > memtable_bytes as u64;
        if self.mutable.is_empty() || !is_full {
            let is_pressing = |bytes| self.is_pressing(bytes, memtable_bytes, limits);
            if !is_pressing(bytes) || is_pressing(0) {
                return Ok(Admission::Granted);
            }
            self.pace.pressed(100 - PRESSING_PERCENT as u64, now_ns());
            return Ok(Admission::Flush);
        }
        if self.inserting == 0 && self.has_room(limits) {
            self.rotate(arenas);
            self.pace.rotated(now_ns());
            self.set_pace(limits);
            return Ok(Admission::Flush);
        }
        if let Some(error) = &self.flush_error {
            return Err(error.context("memtables cannot be flushed"));
        }
        let has_too_many_tables = self.has_too_many_tables(limits);
        if let Some(error) = self.compaction_error.as_ref().filter(|_| has_too_many_tables) {
            return Err(error.context("tables cannot be merged"));
        }
        self.counts.stalls += 1;
        let is_first = !std::mem::replace(&mut self.has_stalled, true);
        Ok(Admission::Stalled { seen: self.rooms, is_first })
    }

    /// Whether one more memtable may become immutable.
    pub(crate) fn has_room(&self, limits: &Limits) -> bool {
        self.view.frozen.len() < limits.frozen_max && !self.has_too_many_tables(limits)
    }

    /// Whether the mutable memtable, with so many bytes more, has little room
    /// left, and cannot become immutable before another one is flushed. It has
    /// none for a write that waits already, however long that is.
    pub(crate) fn is_pressing(&self, bytes: usize, memtable_bytes: usize, limits: &Limits) -> bool {
        let is_nearly_full =
            self.mutable.used_bytes() + bytes > memtable_bytes / 100 * PRESSING_PERCENT;
        self.view.frozen.len() >= limits.frozen_max && (is_nearly_full || self.has_stalled)
    }

    /// The number to wait with, see [`Shard::room`].
    pub(crate) fn room_number(&self) -> u64 {
        self.rooms
    }

    /// Makes the mutable memtable immutable.
    pub(crate) fn rotate(&mut self, arenas: &Arc<ArenaPool>) {
        assert_eq!(self.inserting, 0, "a batch is still being inserted");
        let memtable = std::mem::replace(&mut self.mutable, Memtable::new(arenas));
        let frozen = Frozen { memtable, log_start: self.log_start.take(), log_end: self.log_end };
        self.view = Arc::new(self.view.rotated(Arc::new(frozen)));
        self.generation += 1;
    }

    /// The stream position of the first record that is not in a table yet.
    pub(crate) fn log_needed_from(&self) -> Option<u64> {
        let frozen = self.view.frozen.iter().filter_map(|frozen| frozen.log_start);
        frozen.chain(self.log_start).min()
    }

    /// Every write up to this number is in a table.
    pub(crate) fn flushed_seq(&self) -> SeqNo {
        let memtables = self.view.frozen.iter().map(|frozen| &frozen.memtable);
        let oldest = memtables.chain([&self.mutable]).filter_map(Memtable::seq_range).min();
        oldest.map_or(self.next_seq, |(first, _)| first) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::durability::Durability;
    use crate::base::seq::{Kind, Tag};
    use crate::lsm::Hierarchy;
    use crate::memtable::Payload;
    use crate::sst::PinLimits;
    use crate::wal::MapSizes;

    fn limits() -> Limits {
        Limits {
            memory: 0,
            memtable_bytes: 4096,
            frozen_max: 2,
            wal_bytes_max: 1 << 30,
            group_bytes_max: 4096,
            idle_ns: 1,
            retry_ns: 1,
            map: MapSizes { slot_bytes: 4096, slots: 2 },
            durability: Durability::Durable,
            hierarchy: Hierarchy::leveled(4096),
            newest_tables_behind: 24,
            newest_tables_max: 48,
            pinned_bytes_free: None,
            pins: PinLimits { bytes_max: 1 << 20, oldest_bytes_max: 1 << 20 },
            partition_cache_bytes: 64 << 10,
            compaction_read_bytes: 1 << 20,
            memtable_pool_bytes: 0,
            value_pool_bytes: 0,
            cache_bytes: 0,
            cache_lent_bytes: 0,
            value_bytes_max: 1 << 20,
        }
    }

    #[test]
    fn a_memtable_is_not_rotated_under_a_batch_that_is_being_inserted() {
        let arenas = ArenaPool::new(1 << 20);
        let mut state = State::new(View::default(), 0, &arenas);
        state.mutable.insert(b"key", Tag::new(1, Kind::Put), Payload::Inline(&[7; 5000]));
        state.inserting = 1;
        let admitted = state.admit(100, 4096, &limits(), &arenas, &|| 0, &mut true).expect("open");
        assert!(matches!(admitted, Admission::Stalled { .. }));
        state.inserting = 0;
        let admitted = state.admit(100, 4096, &limits(), &arenas, &|| 0, &mut true).expect("open");
        assert!(matches!(admitted, Admission::Flush));
        assert!(matches!(
            state.admit(100, 4096, &limits(), &arenas, &|| 0, &mut true),
            Ok(Admission::Granted)
        ));
    }

    /// One that is tried again, as there was no room, does not count as another one.
    #[test]
    fn a_write_asks_for_its_pace_once_however_often_it_is_tried() {
        let arenas = ArenaPool::new(1 << 20);
        let mut state = State::new(View::default(), 0, &arenas);
        let now_ns = 1_000_000_000;
        let admit = |state: &mut State, is_paced: &mut bool| {
            state.admit(1000, 4096, &limits(), &arenas, &|| now_ns, is_paced).expect("open")
        };
        // Each takes a tenth of what may come at once.
        state.pace.slow_to(10_000_000);
        state.mutable.insert(b"key", Tag::new(1, Kind::Put), Payload::Inline(&[7; 5000]));
        state.inserting = 1;
        let mut is_paced = false;
        for _ in 0..20 {
            let admitted = admit(&mut state, &mut is_paced);
            assert!(matches!(admitted, Admission::Stalled { .. }));
        }
        let admitted = admit(&mut state, &mut false);
        assert!(matches!(admitted, Admission::Stalled { .. }), "nothing else has come");
    }

    #[test]
    fn a_writer_that_stands_still_presses() {
        let arenas = ArenaPool::new(1 << 20);
        let limits = Limits { frozen_max: 1, ..limits() };
        let mut state = State::new(View::default(), 0, &arenas);
        state.mutable.insert(b"a", Tag::new(1, Kind::Put), Payload::Inline(&[7; 5000]));
        let admit = |state: &mut State, bytes| {
            state.admit(bytes, 4096, &limits, &arenas, &|| 0, &mut true).expect("open")
        };
        assert!(matches!(admit(&mut state, 100), Admission::Flush));
        state.mutable.insert(b"b", Tag::new(2, Kind::Put), Payload::Inline(&[7; 1000]));
        assert!(matches!(admit(&mut state, 100), Admission::Granted));
        assert!(!state.is_pressing(0, 4096, &limits));
        // There is room, but not for this.
        assert!(matches!(admit(&mut state, 3500), Admission::Stalled { is_first: true, .. }));
        assert!(state.is_pressing(0, 4096, &limits));
        assert!(matches!(admit(&mut state, 3500), Admission::Stalled { is_first: false, .. }));
    }

    #[test]
    fn many_range_tombstones_fill_a_memtable() {
        let arenas = ArenaPool::new(1 << 20);
        let mut state = State::new(View::default(), 0, &arenas);
        let mut seq = 0;
        loop {
            let admitted = state.admit(100, 1 << 20, &limits(), &arenas, &|| 0, &mut true);
            let admitted = admitted.expect("open");
            if matches!(admitted, Admission::Flush) {
                break;
            }
            seq += 2;
            let (start, end) = (u64::to_be_bytes(seq), u64::to_be_bytes(seq + 1));
            let tag = Tag::new(seq, Kind::RangeDelete);
            state.mutable.insert(&start, tag, Payload::Inline(&end));
        }
        assert!(state.mutable.is_empty() && state.view.frozen[0].memtable.used_bytes() < 1 << 19);
    }

    #[test]
    fn too_many_immutable_memtables_stall_writers_and_a_failing_flush_fails_them() {
        let arenas = ArenaPool::new(1 << 20);
        let mut state = State::new(View::default(), 0, &arenas);
        for seq in 1..=3 {
            state.mutable.insert(b"key", Tag::new(seq, Kind::Put), Payload::Inline(&[7; 5000]));
            if seq < 3 {
                state.rotate(&arenas);
            }
        }
        assert!(matches!(
            state.admit(100, 4096, &limits(), &arenas, &|| 0, &mut true),
            Ok(Admission::Stalled { .. })
        ));
        state.flush_error = Some(Error::closed());
        assert!(state.admit(100, 4096, &limits(), &arenas, &|| 0, &mut true).is_err());
    }
}
