//! Deleting a range of keys.

use std::ops::Bound;

use crate::base::durability::Durability;
use crate::base::error::Result;
use crate::base::keys::KeyBounds;
use crate::base::latency::{Operation, Timer, Waited};
use crate::base::ranges::normal;
use crate::base::seq::Kind;
use crate::db::Db;
use crate::db::backend::wait_on;
use crate::db::open::check_may_wait;
use crate::io::Io;
use crate::shard::{WriteOp, log_bytes};
use crate::wal::Role;

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
        check_may_wait()?;
        let role = Role::Leader;
        wait_on!(&db.inner.backend, |io| delete_range(db, |_| io, role, &range, durability))
    }
}

/// Deletes a range, with the I/O that there is for each owner.
pub(super) async fn delete_range<'a, I: Io>(
    db: &Db,
    io_of: impl Fn(usize) -> &'a I,
    role: Role,
    range: &KeyBounds,
    durability: Durability,
) -> Result<()> {
    let engine = &*db.inner.engine;
    let now_ns = || io_of(0).now_ns();
    let timer = Timer::timed(Operation::DeleteRange, now_ns());
    let mut waited = Waited::default();
    let written = async {
        let bounds = checked(db, range)?;
        for ops in parts(db, bounds.as_ref()) {
            let io = io_of(ops.first().map_or(0, |op| engine.owner_of(op.shard)));
            engine.write_part(io, role, &ops, durability, &mut waited).await?;
        }
        Ok(())
    };
    let written = written.await;
    engine.written(timer, &waited, written, now_ns)
}

/// A range in its normal form.
type Normal = (Box<[u8]>, Box<[u8]>);

/// The normal form of a range whose bounds may be keys; `None` for no keys.
fn checked(db: &Db, range: &KeyBounds) -> Result<Option<Normal>> {
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
fn parts<'a>(db: &Db, range: Option<&'a Normal>) -> Vec<Vec<WriteOp<'a>>> {
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
