//! Operations as values: what is to be done, and `wait`, which does it.

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::keys::KeyBounds;
use crate::base::latency::Operation;
use crate::base::seq::Kind;
use crate::db::{Batch, Db, Value};
use crate::shard::{Found, WriteOp};

/// A put that is to be done; see [`Db::put`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// let put = db.put(b"key", b"value"); // nothing has happened yet
/// put.wait()?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "an operation does nothing until it is waited for"]
#[derive(Debug)]
pub struct Put<'a> {
    pub(super) db: &'a Db,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) durability: Durability,
}

impl Put<'_> {
    /// Says what it survives once it is acknowledged, in place of what
    /// [`Options::durability`](crate::Options::durability) says.
    ///
    /// ```
    /// # use ourodb::Durability;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"hits", b"7").durability(Durability::ProcessSafe).wait()?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Does it, on the calling thread.
    ///
    /// # Errors
    /// `InvalidArgument` for a key above [`KEY_BYTES_MAX`](crate::KEY_BYTES_MAX)
    /// or a value above [`Db::value_bytes_max`];
    /// `NoSpace` (write again once there is space); `Poisoned` and `Io` (the
    /// outcome is unknown until the database is opened again); `Closed`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait(self) -> Result<()> {
        self.db.inner.engine.check_sizes(self.key, self.value)?;
        let op = self.db.op(Kind::Put, self.key, self.value);
        self.db.inner.write(Operation::Put, &[op], self.durability)
    }
}

/// A delete that is to be done; see [`Db::delete`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.delete(b"key").wait()?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "an operation does nothing until it is waited for"]
#[derive(Debug)]
pub struct Delete<'a> {
    pub(super) db: &'a Db,
    pub(super) key: &'a [u8],
    pub(super) durability: Durability,
}

impl Delete<'_> {
    /// Says what it survives once it is acknowledged; see
    /// [`Put::durability`].
    ///
    /// ```
    /// # use ourodb::Durability;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.delete(b"hits").durability(Durability::ProcessSafe).wait()?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Does it, on the calling thread.
    ///
    /// # Errors
    /// Those of [`Put::wait`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.delete(b"key").wait()?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait(self) -> Result<()> {
        self.db.inner.engine.check_sizes(self.key, b"")?;
        let op = self.db.op(Kind::Delete, self.key, b"");
        self.db.inner.write(Operation::Put, &[op], self.durability)
    }
}

/// A batch that is to be applied; see [`Db::write`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// let mut batch = ourodb::Batch::new();
/// batch.put(b"key", b"value");
/// db.write(batch).wait()?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "an operation does nothing until it is waited for"]
#[derive(Debug)]
pub struct Write<'a> {
    pub(super) db: &'a Db,
    pub(super) batch: Batch,
    pub(super) durability: Durability,
}

impl Write<'_> {
    /// Says what the batch survives once it is acknowledged; see
    /// [`Put::durability`].
    ///
    /// ```
    /// # use ourodb::{Batch, Durability};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// let mut batch = Batch::new();
    /// batch.put(b"key", b"value");
    /// db.write(batch).durability(Durability::Durable).wait()?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Does it, on the calling thread. An empty batch does nothing.
    ///
    /// # Errors
    /// Those of [`Put::wait`]; `InvalidArgument` also for a batch whose keys
    /// are of several WAL streams (see [`Db::stream_of`]), or that is longer
    /// than [`Db::batch_bytes_max`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// let mut batch = ourodb::Batch::new();
    /// batch.put(b"key", b"value").delete(b"key");
    /// db.write(batch).wait()?;
    /// assert_eq!(db.get(b"key").wait()?, None);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait(self) -> Result<()> {
        let ops = self.db.batch_ops(&self.batch)?;
        self.db.inner.write(Operation::Batch, &ops, self.durability)
    }
}

impl Db {
    /// The writes of a batch, by shard; all of one WAL stream.
    pub(super) fn batch_ops<'a>(&self, batch: &'a Batch) -> Result<Vec<WriteOp<'a>>> {
        let engine = &self.inner.engine;
        let mut ops: Vec<WriteOp<'_>> = Vec::with_capacity(batch.len());
        for (kind, key, value) in batch.iter() {
            engine.check_sizes(key, value)?;
            ops.push(self.op(kind, key, value));
        }
        // Stable: writes to one key stay in their order.
        ops.sort_by_key(|op| op.shard);
        let streams = |op: &WriteOp<'_>| engine.owner_of(op.shard);
        if let Some(first) = ops.first().map(streams)
            && let Some(other) = ops.iter().map(streams).find(|&stream| stream != first)
        {
            return Err(Error::invalid(format!(
                "the batch has keys of WAL streams {first} and {other}, and is atomic only within \
                 one: split it by Db::stream_of, or open the database with Options::owners(1)"
            )));
        }
        Ok(ops)
    }
}

/// A lookup that is to be done; see [`Db::get`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// assert_eq!(db.get(b"key").wait()?, None);
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "an operation does nothing until it is waited for"]
#[derive(Debug)]
pub struct Get<'a> {
    pub(super) db: &'a Db,
    pub(super) key: &'a [u8],
}

impl Get<'_> {
    /// Does it, on the calling thread: the key's value, or `None`.
    ///
    /// # Errors
    /// `Corruption` when a table the key may be in is damaged; `Io`; `Closed`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// assert_eq!(db.get(b"key").wait()?, None);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait(self) -> Result<Option<Value>> {
        self.db.inner.get(self.key, value_of)
    }
}

/// What the caller gets of a value.
pub(super) fn value_of(found: Found<'_>) -> Value {
    match found {
        Found::Bytes(bytes) => Value::own(bytes.into()),
        Found::Shared(bytes) => Value::shared(bytes),
        Found::Own(bytes) => Value::own(bytes),
        Found::Loaded(bytes) => Value::loaded(bytes),
    }
}

/// A lookup that visits the value; see [`Db::get_with`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// assert_eq!(db.get_with(b"key", |value| value.to_vec()).wait()?, None);
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "an operation does nothing until it is waited for"]
#[derive(Debug)]
pub struct GetWith<'a, F> {
    pub(super) db: &'a Db,
    pub(super) key: &'a [u8],
    pub(super) visit: F,
}

impl<R, F: FnOnce(&[u8]) -> R> GetWith<'_, F> {
    /// Does it, on the calling thread: what the visitor returned, or `None`
    /// when there is no such key.
    ///
    /// # Errors
    /// Those of [`Get::wait`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// assert_eq!(db.get_with(b"key", |value| value.len()).wait()?, Some(5));
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait(self) -> Result<Option<R>> {
        let visit = self.visit;
        self.db.inner.get(self.key, |found| match found {
            Found::Bytes(bytes) => visit(bytes),
            Found::Shared(bytes) => visit(&bytes),
            Found::Own(bytes) => visit(&bytes),
            Found::Loaded(bytes) => visit(&bytes),
        })
    }
}

/// A flush that is to be done; see [`Db::flush`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.flush().wait()?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "an operation does nothing until it is waited for"]
#[derive(Debug)]
pub struct Flush<'a> {
    pub(super) db: &'a Db,
}

impl Flush<'_> {
    /// Does it: the owners write the tables, the calling thread waits.
    ///
    /// # Errors
    /// `NoSpace`, `Io` when a table could not be written (it will be tried
    /// again, but for what a failed sync poisons); `Poisoned`; `Closed`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.flush().wait()?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait(self) -> Result<()> {
        self.db.inner.wait_for(self.db.inner.engine.flush_all())
    }
}

/// A compaction that is to be done; see [`Db::compact`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.compact(b"a"..b"b").wait()?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "an operation does nothing until it is waited for"]
#[derive(Debug)]
pub struct Compact<'a> {
    pub(super) db: &'a Db,
    pub(super) range: KeyBounds,
}

impl Compact<'_> {
    /// Does it: the owners merge the tables, the calling thread waits.
    ///
    /// # Errors
    /// `NoSpace`, `Io` when a table could not be written (it will be tried
    /// again, but for what a failed sync poisons); `Corruption` when one that is to be
    /// merged is damaged; `Poisoned`; `Closed`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.compact(..).wait()?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait(self) -> Result<()> {
        let inner = &self.db.inner;
        inner.wait_for(inner.engine.compact_all(&self.range))
    }
}
