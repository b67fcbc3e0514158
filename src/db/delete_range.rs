//! Deleting a range of keys.

use std::ops::Bound;

use crate::base::durability::Durability;
use crate::base::error::Result;
use crate::base::keys::KeyBounds;
use crate::base::ranges::normal;
use crate::base::seq::Kind;
use crate::db::Db;
use crate::shard::{WriteOp, log_bytes};

/// A range delete that is to be done; see [`Db::delete_range`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.delete_range(b"a"..b"b").wait()?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "an operation does nothing until it is waited for"]
#[derive(Debug)]
pub struct DeleteRange<'a> {
    pub(super) db: &'a Db,
    pub(super) range: KeyBounds,
    pub(super) durability: Durability,
}

impl DeleteRange<'_> {
    /// Says what it survives once it is acknowledged; see
    /// [`Put::durability`](crate::Put::durability).
    ///
    /// ```
    /// # use ourodb::Durability;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.delete_range(b"a"..b"b").durability(Durability::ProcessSafe).wait()?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Does it, on the calling thread. An empty range does nothing.
    ///
    /// # Errors
    /// Those of [`Put::wait`](crate::Put::wait). Any part of the range may then
    /// be deleted, by shards.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// db.delete_range(b"k"..).wait()?;
    /// assert_eq!(db.get(b"key").wait()?, None);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait(self) -> Result<()> {
        let Self { db, range, durability } = self;
        let bounds = checked(db, &range)?;
        for ops in parts(db, bounds.as_ref()) {
            db.inner.write(&ops, durability)?;
        }
        Ok(())
    }
}

/// A range in its normal form.
pub(super) type Normal = (Box<[u8]>, Box<[u8]>);

/// The normal form of a range whose bounds may be keys; `None` for no keys.
pub(super) fn checked(db: &Db, range: &KeyBounds) -> Result<Option<Normal>> {
    for bound in [&range.0, &range.1] {
        if let Bound::Included(key) | Bound::Excluded(key) = bound {
            db.inner.engine.check_sizes(key, b"")?;
        }
    }
    Ok(normal(range))
}

/// The writes that delete a range: one for each shard, those of each WAL stream
/// together as far as one record has room for them. No keys make one write of
/// nothing.
pub(super) fn parts<'a>(db: &Db, range: Option<&'a Normal>) -> Vec<Vec<WriteOp<'a>>> {
    let Some((start, end)) = range else {
        return vec![Vec::new()];
    };
    let engine = &db.inner.engine;
    let bytes = log_bytes(Kind::RangeDelete, start, end);
    let ops_max = (db.batch_bytes_max() / bytes).max(1);
    let mut parts = Vec::new();
    for owner in 0..engine.owners.len() {
        let shards = engine.shards.iter().map(|shard| shard.id);
        let op = |shard| WriteOp { shard, kind: Kind::RangeDelete, key: start, value: end };
        let ops = shards.filter(|&shard| engine.owner_of(shard) == owner).map(op);
        parts.extend(ops.collect::<Vec<_>>().chunks(ops_max).map(<[_]>::to_vec));
    }
    parts
}
