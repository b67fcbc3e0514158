//! Walks over a sorted run: tables without common keys, one after the other.

use std::sync::Arc;

use crate::base::error::Result;
use crate::base::seq::Tag;
use crate::io::Io;
use crate::sst::{Table, TableIter};

/// A walk over tables that are in the order of their keys, and share none.
pub(crate) struct RunIter {
    tables: Vec<Arc<Table>>,
    /// The table that `iter` is in.
    at: usize,
    iter: TableIter,
    /// Bytes it reads at once, at most.
    ahead_bytes_max: usize,
    /// Has nothing to do with the cache.
    is_bypassing: bool,
}

/// Whoever walks over several runs at once may read so many bytes of each at
/// once.
pub(super) fn ahead_bytes(all_bytes: usize, runs: usize) -> usize {
    (all_bytes / runs.max(1)).max(AHEAD_BYTES_MIN)
}

/// Shorter reads would cost more than they save.
const AHEAD_BYTES_MIN: usize = 16 << 10;

impl RunIter {
    /// A walk that is nowhere yet, over at least one table, and reads at most so
    /// many bytes at once.
    pub(crate) fn new(tables: Vec<Arc<Table>>, ahead_bytes_max: usize) -> Self {
        let iter = TableIter::new(Arc::clone(&tables[0]), ahead_bytes_max);
        Self { tables, at: 0, iter, ahead_bytes_max, is_bypassing: false }
    }

    /// The same, of [`TableIter::bypassing`].
    pub(crate) fn bypassing(tables: Vec<Arc<Table>>, ahead_bytes_max: usize) -> Self {
        let iter = TableIter::bypassing(Arc::clone(&tables[0]), ahead_bytes_max);
        Self { tables, at: 0, iter, ahead_bytes_max, is_bypassing: true }
    }

    /// Where it is; `None` before the first entry and behind the last.
    pub(crate) fn current(&self) -> Option<(&[u8], Tag)> {
        self.iter.valid().then(|| (self.iter.key(), self.iter.tag()))
    }

    /// The value of the entry that it is at.
    pub(crate) fn value(&self) -> &[u8] {
        self.iter.value()
    }

    pub(crate) async fn seek_to_first<I: Io>(&mut self, io: &I) -> Result<()> {
        self.enter(0);
        self.iter.seek_to_first(io).await
    }

    pub(crate) async fn seek_to_last<I: Io>(&mut self, io: &I) -> Result<()> {
        self.enter(self.tables.len() - 1);
        self.iter.seek_to_last(io).await
    }

    /// To the first entry at or after (key, tag).
    pub(crate) async fn seek<I: Io>(&mut self, io: &I, key: &[u8], tag: Tag) -> Result<()> {
        let at = self.tables.partition_point(|table| *table.meta().largest < *key);
        self.enter(at.min(self.tables.len() - 1));
        self.iter.seek(io, key, tag).await?;
        self.go_on(io).await
    }

    /// To the last entry strictly before (key, tag).
    pub(crate) async fn seek_for_prev<I: Io>(
        &mut self,
        io: &I,
        key: &[u8],
        tag: Tag,
    ) -> Result<()> {
        let at = self.tables.partition_point(|table| *table.meta().smallest <= *key);
        self.enter(at.saturating_sub(1));
        self.iter.seek_for_prev(io, key, tag).await?;
        self.go_back(io).await
    }

    pub(crate) async fn next<I: Io>(&mut self, io: &I) -> Result<()> {
        self.iter.next(io).await?;
        self.go_on(io).await
    }

    pub(crate) async fn prev<I: Io>(&mut self, io: &I) -> Result<()> {
        self.iter.prev(io).await?;
        self.go_back(io).await
    }

    /// Behind the end of a table: to the beginning of the next.
    async fn go_on<I: Io>(&mut self, io: &I) -> Result<()> {
        while !self.iter.valid() && self.at + 1 < self.tables.len() {
            self.enter(self.at + 1);
            self.iter.seek_to_first(io).await?;
        }
        Ok(())
    }

    /// Before the beginning of a table: to the end of the one before.
    async fn go_back<I: Io>(&mut self, io: &I) -> Result<()> {
        while !self.iter.valid() && self.at > 0 {
            self.enter(self.at - 1);
            self.iter.seek_to_last(io).await?;
        }
        Ok(())
    }

    fn enter(&mut self, at: usize) {
        if at != self.at {
            self.at = at;
            let table = Arc::clone(&self.tables[at]);
            self.iter = if self.is_bypassing {
                TableIter::bypassing(table, self.ahead_bytes_max)
            } else {
                TableIter::new(table, self.ahead_bytes_max)
            };
        }
    }
}
