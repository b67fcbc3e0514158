//! What a reader sees of a shard beside its mutable memtable.

use std::ops::Bound;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::hash::KeyHash;
use crate::base::seq::SeqNo;
use crate::format::edit::TableMeta;
use crate::io::Io;
use crate::memtable::{Entry, Memtable};
use crate::sst::{ReadCounters, Table, TableEntry};

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

/// A table of the tree. One that is damaged stays a member, so that the keys
/// it may hold are answered with `Corruption` rather than with older values,
/// and all others go on being readable.
#[derive(Clone)]
pub(crate) enum Member {
    Sound(Arc<Table>),
    Damaged { meta: TableMeta, error: Error },
}

impl Member {
    pub(crate) fn meta(&self) -> &TableMeta {
        match self {
            Self::Sound(table) => table.meta(),
            Self::Damaged { meta, .. } => meta,
        }
    }

    /// Whether the table's range of keys reaches into the given one.
    pub(crate) fn overlaps(&self, start: &Bound<Box<[u8]>>, end: &Bound<Box<[u8]>>) -> bool {
        let meta = self.meta();
        let below = match end {
            Bound::Included(end) => meta.smallest <= *end,
            Bound::Excluded(end) => meta.smallest < *end,
            Bound::Unbounded => true,
        };
        let above = match start {
            Bound::Included(start) => meta.largest >= *start,
            Bound::Excluded(start) => meta.largest > *start,
            Bound::Unbounded => true,
        };
        below && above
    }
}

/// Immutable memtables and tables, at one moment. Never changed: a flush makes
/// a new view.
#[derive(Default)]
pub(crate) struct View {
    /// Newest first.
    pub(crate) frozen: Vec<Arc<Frozen>>,
    /// Level 0, newest first. Every sequence number in a table is below those
    /// of the tables before it.
    pub(crate) tables: Vec<Member>,
}

impl View {
    /// The newest version at or below `bound` in the immutable memtables.
    pub(crate) fn get_frozen(&self, key: &[u8], bound: SeqNo) -> Option<Entry<'_>> {
        self.frozen.iter().find_map(|frozen| frozen.memtable.get(key, bound))
    }

    /// The newest version at or below `bound` in the tables.
    pub(crate) async fn get_in_tables<I: Io>(
        &self,
        io: &I,
        counters: &ReadCounters,
        key: &[u8],
        hash: KeyHash,
        bound: SeqNo,
    ) -> Result<Option<TableEntry>> {
        for member in &self.tables {
            let entry = match member {
                Member::Sound(table) => table.get(io, counters, key, hash, bound).await?,
                Member::Damaged { meta, error } => {
                    if *meta.smallest <= *key && *key <= *meta.largest {
                        return Err(error.clone());
                    }
                    None
                }
            };
            if entry.is_some() {
                return Ok(entry);
            }
        }
        Ok(None)
    }

    /// The view after `oldest`, the last immutable memtable, became `table`.
    pub(crate) fn flushed(&self, oldest: &Arc<Frozen>, table: Arc<Table>) -> Self {
        let (last, rest) = self.frozen.split_last().expect("a memtable was flushed");
        assert!(Arc::ptr_eq(last, oldest), "memtables are flushed oldest first");
        let newest = std::iter::once(Member::Sound(table));
        let tables = newest.chain(self.tables.iter().cloned()).collect();
        Self { frozen: rest.to_vec(), tables }
    }

    /// The view after the mutable memtable became immutable.
    pub(crate) fn rotated(&self, newest: Arc<Frozen>) -> Self {
        let frozen = std::iter::once(newest).chain(self.frozen.iter().cloned()).collect();
        Self { frozen, tables: self.tables.clone() }
    }
}
