//! What a reader sees of a shard beside its mutable memtable.

use std::sync::Arc;

use crate::base::seq::SeqNo;
use crate::lsm::levels::Levels;
use crate::memtable::{Entry, Memtable};
use crate::sst::Table;
use crate::value::{Garbage, Pin};

/// An immutable memtable on its way into a table.
pub(crate) struct Frozen {
    pub(crate) memtable: Memtable,
    /// The stream position of its first record in this opening's log; `None`
    /// when all of it was replayed from earlier ones.
    pub(crate) log_start: Option<u64>,
    /// The stream position of the end of its last record in this opening's
    /// log; 0 when it has none.
    pub(crate) log_end: u64,
}

/// Immutable memtables and tables, at one moment. Never changed: a flush makes
/// a new view.
#[derive(Default)]
pub(crate) struct View {
    /// Newest first.
    pub(crate) frozen: Vec<Arc<Frozen>>,
    pub(crate) levels: Levels,
    /// Keeps the long values that it refers to.
    pub(crate) values: Arc<Pin>,
}

impl View {
    /// The newest version at or below `bound` in the immutable memtables.
    pub(crate) fn get_frozen(&self, key: &[u8], bound: SeqNo) -> Option<Entry<'_>> {
        self.frozen.iter().find_map(|frozen| frozen.memtable.get(key, bound))
    }

    /// The view after `oldest`, the last immutable memtable, became `table`;
    /// or nothing, when nothing of it was left to write.
    pub(crate) fn flushed(&self, oldest: &Arc<Frozen>, table: Option<Arc<Table>>) -> Self {
        let (last, rest) = self.frozen.split_last().expect("a memtable was flushed");
        assert!(Arc::ptr_eq(last, oldest), "memtables are flushed oldest first");
        let levels = table.map_or_else(|| self.levels.clone(), |table| self.levels.flushed(table));
        Self { frozen: rest.to_vec(), levels, values: Arc::clone(&self.values) }
    }

    /// The view with other tables.
    pub(crate) fn with_levels(&self, levels: Levels) -> Self {
        Self { frozen: self.frozen.clone(), levels, values: Arc::clone(&self.values) }
    }

    /// The view after the mutable memtable became immutable.
    pub(crate) fn rotated(&self, newest: Arc<Frozen>) -> Self {
        let frozen = std::iter::once(newest).chain(self.frozen.iter().cloned()).collect();
        Self { frozen, levels: self.levels.clone(), values: Arc::clone(&self.values) }
    }

    /// This view, the first one after a commit that dropped long values.
    pub(crate) fn without(mut self, garbage: Option<Garbage>) -> Self {
        if let Some(garbage) = garbage {
            self.values = self.values.succeed(garbage);
        }
        self
    }
}
