//! Sorted runs: tables without common keys, in their order; and walks over them.

use std::ops::Range;
use std::sync::Arc;

use crate::base::error::Result;
use crate::base::keys::KeyBounds;
use crate::base::ranges::RangeTombstones;
use crate::base::seq::Tag;
use crate::io::Io;
use crate::lsm::member::Member;
use crate::sst::{Table, TableIter};

/// A sorted run. Clones share it.
#[derive(Clone)]
pub(crate) struct Run {
    /// In the order of their keys, of which they have none in common.
    members: Arc<[Member]>,
    /// Those of them that have some.
    ranges: Arc<[Arc<RangeTombstones>]>,
    entries: u64,
    bytes: u64,
}

impl Run {
    pub(super) fn new(members: Arc<[Member]>) -> Self {
        let ranges = members.iter().filter_map(|member| member.ranges().cloned()).collect();
        let entries = members.iter().map(|member| member.meta().entries).sum();
        let bytes = members.iter().map(|member| member.meta().file_bytes).sum();
        Self { members, ranges, entries, bytes }
    }

    /// Entries of its tables.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// What so many of its entries take.
    pub(super) fn bytes_of(&self, entries: u64) -> u64 {
        let bytes = u128::from(self.bytes) * u128::from(entries) / u128::from(self.entries.max(1));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    pub(super) fn of_tables(tables: Vec<Arc<Table>>) -> Self {
        Self::new(tables.into_iter().map(Member::Sound).collect())
    }

    /// Its range tombstones, in their order.
    pub(super) fn ranges(&self) -> &[Arc<RangeTombstones>] {
        &self.ranges
    }

    /// The tables that may have keys in the range.
    fn within(&self, range: &KeyBounds) -> Range<usize> {
        let start = self.members.partition_point(|member| member.is_before(range));
        let end = self.members.partition_point(|member| !member.is_behind(range));
        start..end.max(start)
    }
}

/// A walk over a run, or the part of it that may have keys in a range.
pub(crate) struct RunIter {
    members: Arc<[Member]>,
    /// The tables it walks over; at least one.
    within: Range<usize>,
    /// The table that it is in, and the walk over that; `None` before the first
    /// seek.
    current: Option<(usize, TableIter)>,
    /// Bytes it reads at once, at most.
    ahead_bytes_max: usize,
    /// Bytes it is likely to be asked for.
    wanted_bytes: u64,
    /// Has nothing to do with the cache.
    is_bypassing: bool,
}

/// A walk over part of a run keeps just its tables, if they are not more than this:
/// others may go meanwhile.
const KEPT_APART_MAX: usize = 16;

/// Whoever walks over several runs at once may read so many bytes of each at
/// once.
pub(super) fn ahead_bytes(all_bytes: usize, runs: usize) -> usize {
    (all_bytes / runs.max(1)).max(AHEAD_BYTES_MIN)
}

/// Shorter reads would cost more than they save.
const AHEAD_BYTES_MIN: usize = 16 << 10;

impl RunIter {
    /// A walk that is nowhere yet and reads at most so many bytes at once; `None`
    /// when no table of the run may have keys in the range. It is likely to be asked
    /// for `wanted_bytes` from where it is sent to.
    pub(crate) fn within(
        run: &Run,
        range: &KeyBounds,
        ahead_bytes_max: usize,
        wanted_bytes: u64,
    ) -> Option<Self> {
        let within = run.within(range);
        if within.is_empty() {
            return None;
        }
        let (members, within) = if within.len() < run.members.len().min(KEPT_APART_MAX + 1) {
            (run.members[within.clone()].into(), 0..within.len())
        } else {
            (Arc::clone(&run.members), within)
        };
        let (current, is_bypassing) = (None, false);
        Some(Self { members, within, current, ahead_bytes_max, wanted_bytes, is_bypassing })
    }

    /// A walk over all of a run with at least one table, made of
    /// [`TableIter::bypassing`].
    pub(crate) fn bypassing(run: &Run, ahead_bytes_max: usize) -> Self {
        let (members, within) = (Arc::clone(&run.members), 0..run.members.len());
        assert!(!within.is_empty(), "a run has tables");
        let (current, is_bypassing) = (None, true);
        Self { members, within, current, ahead_bytes_max, wanted_bytes: 0, is_bypassing }
    }

    /// Where it is; `None` before the first entry and behind the last.
    #[inline]
    pub(crate) fn current(&self) -> Option<(&[u8], Tag)> {
        let (_, iter) = self.current.as_ref()?;
        iter.valid().then(|| (iter.key(), iter.tag()))
    }

    /// The value of the entry that it is at.
    pub(crate) fn value(&self) -> &[u8] {
        let (_, iter) = self.current.as_ref().expect("it is at an entry");
        iter.value()
    }

    /// Whether the entry's block is in use in the cache; for walks that bypass it.
    pub(super) fn is_hot(&self) -> bool {
        self.current.as_ref().is_some_and(|(_, iter)| iter.is_hot())
    }

    pub(crate) async fn seek_to_first<I: Io>(&mut self, io: &I) -> Result<()> {
        let first = self.within.start;
        self.enter(first)?.seek_to_first(io).await
    }

    pub(crate) async fn seek_to_last<I: Io>(&mut self, io: &I) -> Result<()> {
        let last = self.within.end - 1;
        self.enter(last)?.seek_to_last(io).await
    }

    /// To the first entry at or after (key, tag).
    pub(crate) async fn seek<I: Io>(&mut self, io: &I, key: &[u8], tag: Tag) -> Result<()> {
        self.enter(self.first_from(key))?.seek(io, key, tag).await?;
        self.go_on(io).await
    }

    /// Has the processor fetch what such a seek looks at, as far as it is in memory.
    pub(crate) fn prefetch(&self, key: &[u8], tag: Tag) {
        if let Member::Sound(table) = &self.members[self.first_from(key)] {
            table.prefetch_entry(key, tag);
        }
    }

    /// The first table that may have keys from this one on, or else the last.
    fn first_from(&self, key: &[u8]) -> usize {
        let Range { start, end } = self.within;
        let ahead = |member: &Member| *member.meta().largest < *key;
        let at = start + self.members[start..end].partition_point(ahead);
        at.min(end - 1)
    }

    /// To the last entry strictly before (key, tag).
    pub(crate) async fn seek_for_prev<I: Io>(
        &mut self,
        io: &I,
        key: &[u8],
        tag: Tag,
    ) -> Result<()> {
        let Range { start, end } = self.within;
        let reached = |member: &Member| *member.meta().smallest <= *key;
        let at = start + self.members[start..end].partition_point(reached).saturating_sub(1);
        self.enter(at)?.seek_for_prev(io, key, tag).await?;
        self.go_back(io).await
    }

    /// Moves to the next entry, if that is in the same block; false, and nothing
    /// has moved, if it is not.
    #[inline]
    pub(crate) fn next_in_block(&mut self) -> Result<bool> {
        self.moving().next_in_block()
    }

    /// The same for the entry before.
    pub(crate) fn prev_in_block(&mut self) -> Result<bool> {
        self.moving().prev_in_block()
    }

    pub(crate) async fn next<I: Io>(&mut self, io: &I) -> Result<()> {
        self.moving().next(io).await?;
        self.go_on(io).await
    }

    pub(crate) async fn prev<I: Io>(&mut self, io: &I) -> Result<()> {
        self.moving().prev(io).await?;
        self.go_back(io).await
    }

    /// Behind the end of a table: to the beginning of the next.
    async fn go_on<I: Io>(&mut self, io: &I) -> Result<()> {
        while let Some((at, iter)) = &self.current
            && !iter.valid()
            && at + 1 < self.within.end
        {
            let next = at + 1;
            self.enter(next)?.seek_to_first(io).await?;
        }
        Ok(())
    }

    /// Before the beginning of a table: to the end of the one before.
    async fn go_back<I: Io>(&mut self, io: &I) -> Result<()> {
        while let Some((at, iter)) = &self.current
            && !iter.valid()
            && *at > self.within.start
        {
            let before = at - 1;
            self.enter(before)?.seek_to_last(io).await?;
        }
        Ok(())
    }

    /// How long it has read since it was asked last.
    pub(crate) fn take_read_ns(&mut self) -> u64 {
        self.current.as_mut().map_or(0, |(_, iter)| iter.take_read_ns())
    }

    fn moving(&mut self) -> &mut TableIter {
        let (_, iter) = self.current.as_mut().expect("a walk begins with a seek");
        iter
    }

    /// The walk over one of the tables, which is to be moved.
    ///
    /// # Errors
    /// When the table is damaged.
    fn enter(&mut self, at: usize) -> Result<&mut TableIter> {
        if self.current.as_ref().is_none_or(|(current, _)| *current != at) {
            let read_ns = self.take_read_ns();
            self.current = None;
            let table = self.members[at].sound()?;
            let iter = match self.is_bypassing {
                true => TableIter::bypassing(table, self.ahead_bytes_max),
                false => TableIter::wanting(table, self.ahead_bytes_max, self.wanted_bytes),
            };
            let (_, iter) = self.current.insert((at, iter));
            iter.add_read_ns(read_ns);
        }
        Ok(self.moving())
    }
}
