//! Code that runs beside the data.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::base::durability::Durability;
use crate::base::error::Result;
use crate::base::latency::Operation;
use crate::base::seq::Kind;
use crate::db::operations::value_of;
use crate::db::{Batch, Db, Value};
use crate::runtime::{LocalIo, run_on_owner};
use crate::shard::Found;
use crate::wal::Role;

/// What the closure given to [`Db::on_shard`] works with: the database, on the
/// thread of the owner of a key. It never leaves that thread.
///
/// Any key may be used; those of the same shard (and of others of that owner)
/// are beside the data. Reads go through the owner's own ring, as many at a
/// time as the closure awaits at once.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// let sum = db.on_shard(b"counter", |shard| async move {
///     let count = shard.get_with(b"counter", |v| v[0]).await?.unwrap_or(0);
///     shard.put(b"counter", &[count + 1]).await?;
///     Ok::<u8, ourodb::Error>(count + 1)
/// });
/// assert_eq!(sum.wait()??, 1);
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone)]
pub struct Shard {
    db: Db,
    io: LocalIo,
    durability: Durability,
}

impl Shard {
    /// The same, with writes that survive what `durability` says.
    ///
    /// ```
    /// # use ourodb::Durability;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.on_shard(b"key", |shard| async move {
    ///     shard.with_durability(Durability::ProcessSafe).put(b"key", b"value").await
    /// })
    /// .wait()??;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The database, for all else. Its futures may be awaited here; its `wait`s
    /// are refused.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// let refused = db.on_shard(b"k", |shard| async move { shard.db().get(b"k").wait() });
    /// assert_eq!(refused.wait()?.unwrap_err().kind(), ourodb::ErrorKind::InvalidArgument);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Looks up a key; see [`Db::get`].
    ///
    /// # Errors
    /// Those of [`Get::wait`](crate::Get::wait).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// assert_eq!(db.on_shard(b"k", |shard| async move { shard.get(b"k").await }).wait()??, None);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub async fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.db.inner.engine.get(&self.io, key, value_of).await
    }

    /// Looks up a key and visits its value; see [`Db::get_with`].
    ///
    /// # Errors
    /// Those of [`Get::wait`](crate::Get::wait).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// let len = db.on_shard(b"k", |shard| async move { shard.get_with(b"k", <[u8]>::len).await });
    /// assert_eq!(len.wait()??, None);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub async fn get_with<R>(
        &self,
        key: &[u8],
        visit: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        let visit = |found: Found<'_>| match found {
            Found::Bytes(bytes) => visit(bytes),
            Found::Shared(bytes) => visit(&bytes),
            Found::Own(bytes) => visit(&bytes),
            Found::Loaded(bytes) => visit(&bytes),
        };
        self.db.inner.engine.get(&self.io, key, visit).await
    }

    /// Sets the value of a key; see [`Db::put`].
    ///
    /// # Errors
    /// Those of [`Put::wait`](crate::Put::wait).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.on_shard(b"k", |shard| async move { shard.put(b"k", b"v").await }).wait()??;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write_one(Kind::Put, key, value).await
    }

    /// Removes a key; see [`Db::delete`].
    ///
    /// # Errors
    /// Those of [`Put::wait`](crate::Put::wait).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.on_shard(b"k", |shard| async move { shard.delete(b"k").await }).wait()??;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub async fn delete(&self, key: &[u8]) -> Result<()> {
        self.write_one(Kind::Delete, key, b"").await
    }

    /// Applies a batch; see [`Db::write`].
    ///
    /// # Errors
    /// Those of [`Write::wait`](crate::Write::wait).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.on_shard(b"k", |shard| async move {
    ///     let mut batch = ourodb::Batch::new();
    ///     batch.put(b"k", b"v");
    ///     shard.write(&batch).await
    /// })
    /// .wait()??;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub async fn write(&self, batch: &Batch) -> Result<()> {
        let ops = self.db.batch_ops(batch)?;
        let engine = &self.db.inner.engine;
        engine.write(Operation::Batch, &self.io, Role::Follower, &ops, self.durability).await
    }

    async fn write_one(&self, kind: Kind, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.inner.engine.check_sizes(key, value)?;
        let op = self.db.op(kind, key, value);
        let engine = &self.db.inner.engine;
        engine.write(Operation::Put, &self.io, Role::Follower, &[op], self.durability).await
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("db", &self.db).finish_non_exhaustive()
    }
}

/// Work that is to be done on an owner's thread; see [`Db::on_shard`]. Awaited,
/// or waited for.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// assert_eq!(db.on_shard(b"key", |_| async { 6 * 7 }).wait()?, 42);
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "work is not begun until it is awaited or waited for"]
pub struct OnShard<T> {
    db: Db,
    work: Pin<Box<dyn Future<Output = Result<T>> + Send>>,
}

impl<T: Send + 'static> OnShard<T> {
    pub(super) fn new<W, F>(db: &Db, key: &[u8], work: W) -> Self
    where
        W: FnOnce(Shard) -> F + Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let mailbox = Arc::clone(db.inner.remote(key).mailbox());
        let of_shard = db.clone();
        let work = async move {
            let durability = of_shard.durability();
            run_on_owner(&mailbox, move |io| work(Shard { db: of_shard, io, durability })).await
        };
        Self { db: db.clone(), work: Box::pin(work) }
    }

    /// Does it, and blocks the calling thread until it is done.
    ///
    /// # Errors
    /// `Closed`; `InvalidArgument` on an owner's thread, and when the closure or
    /// its future panics: the message says how.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// let failed = db.on_shard(b"key", |_| async { assert_eq!(1, 2, "no luck") }).wait();
    /// assert!(failed.unwrap_err().to_string().contains("no luck"));
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait(self) -> Result<T> {
        self.db.inner.wait_for(self.work)
    }
}

impl<T> Future for OnShard<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.db.inner.note_awaited();
        self.work.as_mut().poll(cx)
    }
}

impl<T> fmt::Debug for OnShard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnShard").field("db", &self.db).finish_non_exhaustive()
    }
}
