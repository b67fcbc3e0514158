//! A table as a member of a shard's tree.

use std::ops::Bound;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::hash::KeyHash;
use crate::base::keys::KeyBounds;
use crate::base::ranges::RangeTombstones;
use crate::base::seq::SeqNo;
use crate::format::edit::TableMeta;
use crate::sst::{Holds, Looked, Lookup, Table};

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

    /// Whether the key is within the table's range.
    pub(super) fn covers(&self, key: &[u8]) -> bool {
        *self.meta().smallest <= *key && *key <= *self.meta().largest
    }

    /// Whether it has a version of the key, as far as that is known without
    /// reading.
    pub(super) fn holds(&self, key: &[u8], hash: KeyHash) -> Holds {
        match self {
            Self::Sound(table) => table.holds(key, hash),
            Self::Damaged { .. } if self.covers(key) => Holds::Maybe,
            Self::Damaged { .. } => Holds::No,
        }
    }

    /// Whether the table's range of keys reaches into the given one.
    pub(crate) fn overlaps(&self, range: &KeyBounds) -> bool {
        !self.is_before(range) && !self.is_behind(range)
    }

    /// Whether all its keys are before the range.
    pub(super) fn is_before(&self, (start, _): &KeyBounds) -> bool {
        match start {
            Bound::Included(start) => self.meta().largest < *start,
            Bound::Excluded(start) => self.meta().largest <= *start,
            Bound::Unbounded => false,
        }
    }

    /// Whether all its keys are behind the range.
    pub(super) fn is_behind(&self, (_, end): &KeyBounds) -> bool {
        match end {
            Bound::Included(end) => self.meta().smallest > *end,
            Bound::Excluded(end) => self.meta().smallest >= *end,
            Bound::Unbounded => false,
        }
    }

    pub(crate) fn sound(&self) -> Result<Arc<Table>> {
        match self {
            Self::Sound(table) => Ok(Arc::clone(table)),
            Self::Damaged { error, .. } => Err(error.clone()),
        }
    }

    /// Its range tombstones, if it has some.
    pub(crate) fn ranges(&self) -> Option<&Arc<RangeTombstones>> {
        match self {
            Self::Sound(table) => table.ranges(),
            Self::Damaged { .. } => None,
        }
    }

    /// The newest number at which one of its range tombstones deletes the key.
    /// To be asked in any case: a filter knows nothing of them.
    pub(super) fn deleted(&self, lookup: &Lookup<'_>) -> Option<SeqNo> {
        self.ranges()?.newest(lookup.key, lookup.bound)
    }

    pub(super) fn look(&self, lookup: &Lookup<'_>, value: &mut Vec<u8>) -> Result<Looked> {
        match self {
            Self::Sound(table) => table.look(lookup, value),
            Self::Damaged { error, .. } if self.covers(lookup.key) => Err(error.clone()),
            Self::Damaged { .. } => Ok(Looked::Absent),
        }
    }
}
