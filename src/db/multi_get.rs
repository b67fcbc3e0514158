//! Many lookups at once.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use crate::base::error::Result;
use crate::base::latency::{Operation, Timer, Wait, Waited};
use crate::db::operations::value_of;
use crate::db::{Db, Value};
use crate::runtime::join_all;
use crate::shard::{Found, InMemory};

/// Lookups of one call that read tables at one time: enough to keep a device
/// busy.
const READS_MAX: usize = 128;

/// Lookups that are to be done together; see [`Db::multi_get`]. Waited for or
/// awaited.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.put(b"a", b"1").wait()?;
/// let values = db.multi_get(&[b"a", b"b"]).wait()?;
/// assert_eq!(values[0].as_deref(), Some(&b"1"[..]));
/// assert_eq!(values[1], None);
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "an operation does nothing until it is waited for"]
pub struct MultiGet<'a, K> {
    pub(super) db: &'a Db,
    pub(super) keys: &'a [K],
}

impl<'a, K: AsRef<[u8]>> MultiGet<'a, K> {
    /// Does it: for each key its value or `None`, in their order. Each lookup
    /// sees its key at a moment of its own.
    ///
    /// # Errors
    /// Those of [`Get::wait`](crate::Get::wait), of any of the lookups.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// assert_eq!(db.multi_get(&[b"a", b"b"]).wait()?, [None, None]);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn wait(self) -> Result<Vec<Option<Value>>> {
        self.db.inner.wait_for(self.run())
    }

    async fn run(self) -> Result<Vec<Option<Value>>> {
        let inner = &*self.db.inner;
        let engine = &*inner.engine;
        let now_ns = || inner.backend.now_ns();
        let timer = Timer::timed(Operation::MultiGet, now_ns());
        let (mut waited, mut lock_ns) = (Waited::default(), 0);
        let mut values = Vec::with_capacity(self.keys.len());
        let mut misses = Vec::new();
        for (at, key) in self.keys.iter().enumerate() {
            let visit: fn(Found<'_>) -> Value = value_of;
            match engine.get_in_memory(key.as_ref(), &mut Some(visit), now_ns, &mut lock_ns)? {
                InMemory::Known(known) => values.push(known),
                InMemory::Elsewhere(elsewhere) => {
                    values.push(None);
                    misses.push((at, key.as_ref(), elsewhere));
                }
            }
        }
        let mut misses = misses.into_iter();
        while misses.len() > 0 {
            let reads = misses.by_ref().take(READS_MAX).map(|(at, key, elsewhere)| {
                let remote = &inner.remotes[engine.owner_of(elsewhere.shard())];
                async move { (at, engine.fetch(remote, key, &elsewhere).await) }
            });
            let began_ns = now_ns();
            let found = join_all(reads).await;
            waited.add(Wait::Read, now_ns() - began_ns);
            for (at, fetched) in found {
                values[at] = fetched?.map(|fetched| fetched.visit(value_of));
            }
        }
        waited.add(Wait::Lock, lock_ns);
        engine.latencies.record(timer, &waited, now_ns);
        Ok(values)
    }
}

/// The future of a [`MultiGet`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// # pollster::block_on(async {
/// assert_eq!(db.multi_get(&[b"a"]).await?, [None]);
/// # Ok::<(), ourodb::Error>(()) })?;
/// # Ok::<(), ourodb::Error>(())
/// ```
pub type MultiGetFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<Option<Value>>>> + Send + 'a>>;

impl<'a, K: AsRef<[u8]> + Sync> IntoFuture for MultiGet<'a, K> {
    type Output = Result<Vec<Option<Value>>>;
    type IntoFuture = MultiGetFuture<'a>;

    fn into_future(self) -> MultiGetFuture<'a> {
        self.db.inner.note_awaited();
        Box::pin(self.run())
    }
}

impl<K> fmt::Debug for MultiGet<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MultiGet").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}
