//! Floor 8: the public face. [`Db`] hides the backend: its threads, its I/O,
//! and who waits how.

mod backend;
mod batch;
mod delete_range;
mod dump;
mod futures;
#[cfg(feature = "sim")]
mod in_task;
#[cfg(feature = "interval-log")]
mod interval_log;
mod latencies;
mod multi_get;
mod on_shard;
mod open;
mod operations;
mod options;
mod prometheus;
mod range;
mod salvage;
mod scan;
mod scan_keys;
mod settings;
mod stats;
mod stream;
mod value;
mod verify;

pub use batch::Batch;
pub use delete_range::DeleteRange;
pub use dump::dump;
pub use futures::{GetFuture, GetWithFuture, WriteFuture};
#[cfg(feature = "interval-log")]
pub use interval_log::IntervalLog;
pub use latencies::Latencies;
pub use multi_get::{MultiGet, MultiGetFuture};
pub use on_shard::{OnShard, Shard};
pub use operations::{Compact, Delete, Flush, Get, GetWith, Put, Write};
pub use options::{Compaction, IoBackend, Options};
pub use range::KeyRange;
pub use salvage::salvage;
pub use scan::{Scan, ScanIter};
pub use scan_keys::{KeyIter, KeyStream, ScanKeys};
pub use settings::Settings;
pub use stats::{LevelStats, Stats};
pub use stream::ScanStream;
pub use value::Value;
pub use verify::verify;

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use self::open::Inner;
use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::shard::WriteOp;

/// An open database. Clones share it; it is for any thread.
///
/// Operations are made in two steps: a method says what is to be done. `wait`
/// does it on the calling thread and returns when it is done; and `.await` does
/// it in any async runtime, without ever blocking its threads.
///
/// ```
/// use ourodb::{Db, Options};
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Db::open(dir.path(), Options::default())?;
/// db.put(b"apple", b"red").wait()?;
/// assert_eq!(db.get(b"apple").wait()?.as_deref(), Some(&b"red"[..]));
/// db.delete(b"apple").wait()?;
/// assert_eq!(db.get(b"apple").wait()?, None);
/// db.close()?;
/// # Ok::<(), ourodb::Error>(())
/// ```
///
/// The last clone closes the database when it is dropped (in the background, if
/// operations were ever awaited); [`Db::close`] does it at a time of your
/// choosing, returns when it is done, and tells whether it went well.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

impl Db {
    /// Opens the database in a directory, and creates it if there is none
    /// (unless [`Options::create`] says otherwise).
    ///
    /// One handle of one process has a directory open at a time; another one
    /// waits [`Options::lock_wait`] for it.
    ///
    /// Where the size of files is limited (`ulimit -f`), ignore or handle
    /// `SIGXFSZ` before: it ends a process that would exceed the limit, and
    /// without it writes fail with `NoSpace`. The engine leaves signals alone.
    ///
    /// # Errors
    /// `Locked`, `NotFound`, `Corruption`, `Unsupported` (io_uring forbidden, a
    /// file system without `O_DIRECT`, a newer format), `NoSpace`,
    /// `PermissionDenied`, `InvalidArgument` for impossible options.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ourodb::Db::open(dir.path().join("data"), ourodb::Options::default())?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        open::open(dir.as_ref(), &options).map(|inner| Self { inner: Arc::new(inner) })
    }

    /// Sets the value of a key. Done when the write survives what
    /// [`Options::durability`] says: by default the loss of power.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn put<'a>(&'a self, key: &'a [u8], value: &'a [u8]) -> Put<'a> {
        Put { db: self, key, value, durability: self.durability() }
    }

    /// Removes a key; one that is not there is fine. Done when the removal
    /// survives what [`Options::durability`] says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.delete(b"key").wait()?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn delete<'a>(&'a self, key: &'a [u8]) -> Delete<'a> {
        Delete { db: self, key, durability: self.durability() }
    }

    /// Removes all keys in `range`, however many there are, with one short write
    /// for each shard. Done when all of them survive what
    /// [`Options::durability`] says. Scans that are open go on seeing the keys.
    ///
    /// The keys of one WAL stream (see [`Db::stream_of`]) go together, unless the
    /// bounds are so long that they do not fit one batch. Several streams are
    /// written one after the other: who reads meanwhile may see some keys of the
    /// range and miss others, and so may who opens the database after a crash
    /// that came between. Then delete the range again.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"user/1", b"Ada").wait()?;
    /// db.put(b"user/2", b"Bob").wait()?;
    /// db.delete_range("user/".."user0").wait()?;
    /// assert_eq!(db.scan(..).iter().count(), 0);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn delete_range(&self, range: impl KeyRange) -> DeleteRange<'_> {
        DeleteRange { db: self, range: range.bounds(), durability: self.durability() }
    }

    /// Applies a batch: all of it or nothing, seen at one moment. Done when it
    /// survives what [`Options::durability`] says.
    ///
    /// All keys of a batch must be of one WAL stream; see [`Db::stream_of`].
    ///
    /// ```
    /// use ourodb::Batch;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), ourodb::Options::default().owners(1))?;
    /// let mut batch = Batch::new();
    /// batch.put(b"a", b"1").delete(b"b");
    /// db.write(batch).wait()?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn write(&self, batch: Batch) -> Write<'_> {
        Write { db: self, batch, durability: self.durability() }
    }

    /// Looks up a key.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// let value = db.get(b"key").wait()?.expect("just written");
    /// assert_eq!(&value[..], b"value");
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn get<'a>(&'a self, key: &'a [u8]) -> Get<'a> {
        Get { db: self, key }
    }

    /// Looks up a key and calls `visit` with its value: nothing is allocated
    /// when the value is in memory.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// assert_eq!(db.get_with(b"key", |value| value.len()).wait()?, Some(5));
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn get_with<'a, R, F: FnOnce(&[u8]) -> R>(
        &'a self,
        key: &'a [u8],
        visit: F,
    ) -> GetWith<'a, F> {
        GetWith { db: self, key, visit }
    }

    /// Looks up many keys, with the reads that it takes all under way at once.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// let values = db.multi_get(&["apple", "pear"]).wait()?;
    /// assert_eq!(values, [None, None]);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn multi_get<'a, K: AsRef<[u8]>>(&'a self, keys: &'a [K]) -> MultiGet<'a, K> {
        MultiGet { db: self, keys }
    }

    /// Runs code on the thread of the owner of a key's shard, beside the data:
    /// the closure is called there, and the future that it returns, which need
    /// not be `Send`, is polled there. It shares the thread with all that the
    /// owner does, and must not block it.
    ///
    /// Dropping what this returns before it was polled forgets the work; after
    /// that the work goes on to its end.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// # pollster::block_on(async {
    /// db.on_shard(b"key", |shard| async move {
    ///     shard.put(b"key", b"value").await?;
    ///     shard.get(b"key").await
    /// })
    /// .await??;
    /// # Ok::<(), ourodb::Error>(()) })?;
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn on_shard<W, F>(&self, key: &[u8], work: W) -> OnShard<F::Output>
    where
        W: FnOnce(Shard) -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        OnShard::new(self, key, work)
    }

    /// Scans a range of keys, in the order of their bytes. The scan sees the
    /// database at the moment its iterator is made.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// for key in [b"a", b"b", b"c"] {
    ///     db.put(key, b"x").wait()?;
    /// }
    /// for row in db.scan(b"a"..b"c") {
    ///     let (key, value) = row?;
    ///     println!("{key:?} {value:?}");
    /// }
    /// assert_eq!(db.scan(..).reverse().iter().count(), 3);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn scan(&self, range: impl KeyRange) -> Scan {
        Scan::new(self, range.bounds())
    }

    /// Scans the keys that start with `prefix`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"user:1", b"x").wait()?;
    /// db.put(b"visit:1", b"y").wait()?;
    /// assert_eq!(db.scan_prefix(b"user:").iter().count(), 1);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn scan_prefix(&self, prefix: &[u8]) -> Scan {
        Scan::new(self, range::prefix(prefix))
    }

    /// Moves everything written before the call from memtables to tables.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// db.flush().wait()?;
    /// assert_eq!(db.stats().tables, 1);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn flush(&self) -> Flush<'_> {
        Flush { db: self }
    }

    /// Merges all tables that have keys in `range` down to the deepest level, so
    /// that nothing of what was overwritten or deleted is left there, but for
    /// what open scans still see. Compaction does what is needed by itself; this
    /// is for who wants all of it now, for instance after deleting much.
    ///
    /// With [`Compaction::Fifo`] it flushes memtables, and drops tables that range
    /// deletes cover as a whole; nothing is merged.
    ///
    /// Waiting for it fails with `Corruption` where a damaged table keeps others from
    /// being merged, and with `NoSpace` where there is no room for what is merged.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// db.delete(b"key").wait()?;
    /// db.compact(..).wait()?;
    /// assert_eq!(db.stats().tables, 0);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn compact(&self, range: impl KeyRange) -> Compact<'_> {
        Compact { db: self, range: range.bounds() }
    }

    /// The WAL stream that writes of this key go to, below
    /// [`Stats::owners`]. A batch is atomic within one stream; so split large
    /// sets of writes by it. It may change when the database is opened with
    /// another number of owners.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// assert!(db.stream_of(b"key") < db.stats().owners);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn stream_of(&self, key: &[u8]) -> usize {
        let engine = &self.inner.engine;
        engine.owner_of(engine.shard_of(engine.hash(key)))
    }

    /// The longest batch that [`Db::write`] takes, in bytes as
    /// [`Batch::bytes`] counts them.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// assert!(db.batch_bytes_max() > 256 << 10);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn batch_bytes_max(&self) -> usize {
        self.inner.engine.owners[0].stream.payload_bytes_max()
    }

    /// The longest value that a write takes, in bytes: that of
    /// [`Options::value_bytes_max`], or a quarter of the memory budget;
    /// [`VALUE_BYTES_MAX`](crate::VALUE_BYTES_MAX) at most.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ourodb::Db::open(dir.path(), ourodb::Options::default().memory(64 << 20))?;
    /// assert_eq!(db.value_bytes_max(), 16 << 20);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn value_bytes_max(&self) -> usize {
        self.inner.engine.limits.value_bytes_max
    }

    /// Counts of what the database did since it was opened, and what it holds.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// println!("{}", db.stats());
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn stats(&self) -> Stats {
        Stats::of(&self.inner)
    }

    /// Why a flush or a compaction failed, if the last attempt did: of the shards where that
    /// is so, one's. They are tried again, every second or so, as space may come back; until
    /// then what is written piles up, and writes are refused when there is too much of it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// if let Some(error) = db.background_error() {
    ///     eprintln!("the database does not get on: {error}");
    /// }
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn background_error(&self) -> Option<Error> {
        self.inner.engine.background_error()
    }

    /// How long operations took since the database was opened, and what they waited
    /// for. Merges what all threads recorded, which takes some hundred microseconds.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// println!("{}", db.latencies());
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn latencies(&self) -> Latencies {
        Latencies::of(&self.inner.engine.latencies)
    }

    /// [`stats`](Self::stats) and [`latencies`](Self::latencies) in Prometheus' text format,
    /// version 0.0.4: what to answer a scrape with, as `text/plain; version=0.0.4`. Names
    /// begin with `ourodb_`; times are in seconds. About 40 KB.
    ///
    /// Counters count since the database was opened: Prometheus takes an opening for a
    /// restart. Where a process has several databases open, give each scrape target one,
    /// or add a label.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// let text = db.prometheus();
    /// assert!(text.contains("\nourodb_puts_total 1\n"));
    /// assert!(text.contains("ourodb_operation_duration_seconds_count{op=\"put\"} 1"));
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn prometheus(&self) -> String {
        prometheus::text(&self.stats(), &self.latencies())
    }

    /// What the options came to that the database was opened with.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// println!("memtables of {} bytes", db.options().memtable_bytes);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn options(&self) -> Settings {
        Settings::of(&self.inner)
    }

    /// Closes the database: waits for writes that are under way, ends the
    /// owners' threads, and gives up the lock. Other handles get `Closed` from
    /// then on; closing again does nothing.
    ///
    /// What is in memtables stays in the log, from where the next opening takes
    /// it. Nothing acknowledged depends on closing.
    ///
    /// # Errors
    /// When the last records could not be written; nothing acknowledged is lost
    /// by that.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.close()?;
    /// assert_eq!(db.get(b"k").wait().unwrap_err().kind(), ourodb::ErrorKind::Closed);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn close(&self) -> Result<()> {
        self.inner.close()
    }

    /// What writes survive that do not say.
    fn durability(&self) -> Durability {
        self.inner.engine.limits.durability
    }

    /// One write, routed to its shard.
    fn op<'a>(&self, kind: crate::base::seq::Kind, key: &'a [u8], value: &'a [u8]) -> WriteOp<'a> {
        let engine = &self.inner.engine;
        WriteOp { shard: engine.shard_of(engine.hash(key)), kind, key, value }
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("dir", &self.inner.engine.dir).finish_non_exhaustive()
    }
}
