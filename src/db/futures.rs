//! Operations as futures, for any runtime.
//!
//! The first poll of a future does all that memory can answer, in place and
//! without allocating: most reads end there, and so do writes that need not be
//! durable at once. Only what is left becomes a future of the engine's, whose
//! reads are posted to the owner of the key's shard; the owner writes the log
//! for it.
//!
//! A future may be dropped at any time. What it had begun to write by then
//! may be there later, or not, as with a process that dies.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::latency::{Operation, Timer, Waited};
use crate::base::seq::Kind;
use crate::db::delete_range::delete_range;
use crate::db::operations::value_of;
use crate::db::{Compact, Db, Delete, DeleteRange, Flush, Get, GetWith, Put, Value, Write};
use crate::io::Io;
use crate::shard::{Fetched, Found, InMemory, Staged, is_long, write_timer};
use crate::wal::Role;

/// A future of the engine's.
type Slow<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// The future of a write: what awaiting a [`Put`], a [`Delete`], a
/// [`DeleteRange`], a [`Write`], a [`Flush`] or a [`Compact`] gives.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// # pollster::block_on(async {
/// db.put(b"key", b"value").await?;
/// db.delete(b"key").await?;
/// # Ok::<(), ourodb::Error>(()) })?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "a future does nothing until it is awaited"]
pub struct WriteFuture<'a>(WriteState<'a>);

enum WriteState<'a> {
    One(One<'a>),
    Slow(Slow<'a, ()>),
    Over,
}

/// One put or delete that has not begun.
#[derive(Clone, Copy)]
struct One<'a> {
    db: &'a Db,
    kind: Kind,
    key: &'a [u8],
    value: &'a [u8],
    durability: Durability,
}

impl<'a> One<'a> {
    /// Does it, if nothing is to be waited for; else the future that goes on.
    fn begin(self) -> Result<Option<Slow<'a, ()>>> {
        let Self { db, kind, key, value, durability } = self;
        let inner = &*db.inner;
        inner.engine.check_sizes(key, value)?;
        inner.note_awaited();
        let op = db.op(kind, key, value);
        let engine = &*inner.engine;
        let owner = engine.owner_of(op.shard);
        let remote = &inner.remotes[owner];
        let (now_ns, role) = (|| remote.now_ns(), Role::Follower);
        let timer = write_timer(Operation::Put, durability, now_ns);
        let mut waited = Waited::default();
        if is_long(value) {
            return Ok(Some(Box::pin(async move {
                let ops = [op];
                let written = engine.write_part(remote, role, &ops, durability, &mut waited).await;
                engine.written(timer, &waited, written, now_ns)
            })));
        }
        Ok(match engine.begin_one(op, durability, now_ns, &mut waited)? {
            Staged::Done => {
                engine.latencies.record(timer, &waited, now_ns);
                None
            }
            Staged::Waits(goal) => Some(Box::pin(async move {
                engine.reach_written(remote, owner, goal, role, (timer, waited)).await
            })),
            Staged::Not(obstacle) => Some(Box::pin(async move {
                engine.go_on(remote, role, op, durability, obstacle, (timer, waited)).await
            })),
        })
    }
}

impl Future for WriteFuture<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let polled = match &mut self.0 {
            WriteState::Slow(slow) => slow.as_mut().poll(cx),
            WriteState::One(one) => match one.begin() {
                Ok(None) => Poll::Ready(Ok(())),
                Err(error) => Poll::Ready(Err(error)),
                Ok(Some(mut slow)) => {
                    let polled = slow.as_mut().poll(cx);
                    self.0 = WriteState::Slow(slow);
                    polled
                }
            },
            WriteState::Over => Poll::Ready(Err(polled_after_its_end())),
        };
        if polled.is_ready() {
            self.0 = WriteState::Over;
        }
        polled
    }
}

fn polled_after_its_end() -> Error {
    Error::invalid("a future was polled after its end")
}

impl<'a> IntoFuture for Put<'a> {
    type Output = Result<()>;
    type IntoFuture = WriteFuture<'a>;

    fn into_future(self) -> WriteFuture<'a> {
        let Self { db, key, value, durability } = self;
        WriteFuture(WriteState::One(One { db, kind: Kind::Put, key, value, durability }))
    }
}

impl<'a> IntoFuture for Delete<'a> {
    type Output = Result<()>;
    type IntoFuture = WriteFuture<'a>;

    fn into_future(self) -> WriteFuture<'a> {
        let Self { db, key, durability } = self;
        WriteFuture(WriteState::One(One { db, kind: Kind::Delete, key, value: b"", durability }))
    }
}

impl<'a> IntoFuture for DeleteRange<'a> {
    type Output = Result<()>;
    type IntoFuture = WriteFuture<'a>;

    fn into_future(self) -> WriteFuture<'a> {
        let Self { db, range, durability } = self;
        WriteFuture(WriteState::Slow(Box::pin(async move {
            let inner = &*db.inner;
            inner.note_awaited();
            let remote = |owner: usize| &inner.remotes[owner];
            delete_range(db, remote, Role::Follower, &range, durability).await
        })))
    }
}

impl<'a> IntoFuture for Write<'a> {
    type Output = Result<()>;
    type IntoFuture = WriteFuture<'a>;

    fn into_future(self) -> WriteFuture<'a> {
        let Self { db, batch, durability } = self;
        WriteFuture(WriteState::Slow(Box::pin(async move {
            let inner = &*db.inner;
            inner.note_awaited();
            let ops = db.batch_ops(&batch)?;
            let engine = &*inner.engine;
            let owner = ops.first().map_or(0, |op| engine.owner_of(op.shard));
            let (remote, role) = (&inner.remotes[owner], Role::Follower);
            engine.write(Operation::Batch, remote, role, &ops, durability).await
        })))
    }
}

impl<'a> IntoFuture for Flush<'a> {
    type Output = Result<()>;
    type IntoFuture = WriteFuture<'a>;

    fn into_future(self) -> WriteFuture<'a> {
        WriteFuture(WriteState::Slow(Box::pin(async move {
            self.db.inner.note_awaited();
            self.db.inner.engine.flush_all().await
        })))
    }
}

impl<'a> IntoFuture for Compact<'a> {
    type Output = Result<()>;
    type IntoFuture = WriteFuture<'a>;

    fn into_future(self) -> WriteFuture<'a> {
        WriteFuture(WriteState::Slow(Box::pin(async move {
            self.db.inner.note_awaited();
            self.db.inner.engine.compact_all(&self.range).await
        })))
    }
}

/// The future of a lookup that visits the value: what awaiting a [`GetWith`]
/// gives.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// # pollster::block_on(async {
/// assert_eq!(db.get_with(b"key", |value| value.len()).await?, None);
/// # Ok::<(), ourodb::Error>(()) })?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "a future does nothing until it is awaited"]
pub struct GetWithFuture<'a, F> {
    lookup: Lookup<'a>,
    visit: Option<F>,
}

/// A lookup, apart from what is done with the value.
enum Lookup<'a> {
    Begin { db: &'a Db, key: &'a [u8] },
    Elsewhere(Slow<'a, Option<Fetched>>),
    Over,
}

impl Lookup<'_> {
    fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        visit: &mut Option<impl FnOnce(Found<'_>) -> R>,
    ) -> Poll<Result<Option<R>>> {
        if let Self::Begin { db, key } = *self {
            let inner = &*db.inner;
            inner.note_awaited();
            let engine = &*inner.engine;
            let now_ns = || inner.remotes[0].now_ns();
            let timer = Timer::sampled(Operation::Get, now_ns);
            let mut lock_ns = 0;
            let elsewhere = match engine.get_in_memory(key, visit, now_ns, &mut lock_ns) {
                Ok(InMemory::Known(known)) => {
                    engine.latencies.record_in_memory(timer, lock_ns, now_ns);
                    return self.over(Ok(known));
                }
                Err(error) => return self.over(Err(error)),
                Ok(InMemory::Elsewhere(elsewhere)) => elsewhere,
            };
            let remote = &inner.remotes[engine.owner_of(elsewhere.shard())];
            *self = Self::Elsewhere(Box::pin(async move {
                engine.fetch_timed(remote, key, &elsewhere, timer, lock_ns).await
            }));
        }
        let Self::Elsewhere(slow) = self else {
            return Poll::Ready(Err(polled_after_its_end()));
        };
        match slow.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(fetched) => {
                let visited = fetched
                    .map(|fetched| fetched.and_then(|fetched| Some(fetched.visit(visit.take()?))));
                self.over(visited)
            }
        }
    }

    fn over<R>(&mut self, result: R) -> Poll<R> {
        *self = Self::Over;
        Poll::Ready(result)
    }
}

// The visitor is called, never pinned.
impl<F> Unpin for GetWithFuture<'_, F> {}

impl<R, F: FnOnce(&[u8]) -> R> Future for GetWithFuture<'_, F> {
    type Output = Result<Option<R>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let visitor = &mut this.visit;
        let mut call = Some(|found: Found<'_>| {
            visitor.take().map(|visit| match found {
                Found::Bytes(bytes) => visit(bytes),
                Found::Shared(bytes) => visit(&bytes),
                Found::Own(bytes) => visit(&bytes),
                Found::Loaded(bytes) => visit(&bytes),
            })
        });
        this.lookup.poll(cx, &mut call).map_ok(Option::flatten)
    }
}

impl<'a, R, F: FnOnce(&[u8]) -> R> IntoFuture for GetWith<'a, F> {
    type Output = Result<Option<R>>;
    type IntoFuture = GetWithFuture<'a, F>;

    fn into_future(self) -> GetWithFuture<'a, F> {
        let Self { db, key, visit } = self;
        GetWithFuture { lookup: Lookup::Begin { db, key }, visit: Some(visit) }
    }
}

/// The future of a lookup: what awaiting a [`Get`] gives.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// # pollster::block_on(async {
/// assert_eq!(db.get(b"key").await?, None);
/// # Ok::<(), ourodb::Error>(()) })?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "a future does nothing until it is awaited"]
pub struct GetFuture<'a>(Lookup<'a>);

impl Future for GetFuture<'_> {
    type Output = Result<Option<Value>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx, &mut Some(value_of))
    }
}

impl<'a> IntoFuture for Get<'a> {
    type Output = Result<Option<Value>>;
    type IntoFuture = GetFuture<'a>;

    fn into_future(self) -> GetFuture<'a> {
        GetFuture(Lookup::Begin { db: self.db, key: self.key })
    }
}

impl fmt::Debug for WriteFuture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteFuture")
    }
}

impl fmt::Debug for GetFuture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GetFuture")
    }
}

impl<F> fmt::Debug for GetWithFuture<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GetWithFuture")
    }
}
