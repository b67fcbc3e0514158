//! The I/O of background work, wherever that is polled.
//!
//! Each request is a closure that goes to the owner through its
//! [`Handover`](super::handover::Handover); a task there does it, within the
//! device's budget. So the worker makes no system call on files and directories,
//! and a request that it began goes on while the worker does not. What a task asks
//! for that nobody waits for any more is not begun: a starved worker may come with
//! it when others have long cleaned up behind the task.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use super::background::Wakeup;
use super::remote::{StandIn, check_units};
use super::{Budgeted, LocalIo, oneshot};
use crate::base::error::{Error, Result};
use crate::io::blocking::Blocking;
use crate::io::{File, Harden, Io, IoBuf, IoCounters, Mapping, OpenMode, WriteBuf};

/// See the module's text. Its futures are `Send`. A future that is dropped does
/// not stop the request.
#[derive(Clone)]
pub(crate) enum BackgroundIo {
    /// Of a task beside an owner.
    Owner(Posting),
    /// On the simulated machine.
    #[cfg(feature = "sim")]
    Sim(Budgeted<crate::io::sim::Sim>),
}

/// How a task's requests get to the owner.
#[derive(Clone)]
pub(crate) struct Posting {
    task: Arc<Wakeup>,
    /// For what needs no owner: clock, randomness, counters.
    direct: Blocking,
}

/// What the owner does for a task, and gives it once the task is there.
pub(super) type Request =
    Box<dyn FnOnce(Budgeted<LocalIo>) -> Pin<Box<dyn Future<Output = Answer>>> + Send>;

/// Gives a task the answer to a request.
pub(super) type Answer = Box<dyn FnOnce() + Send>;

impl Posting {
    pub(super) fn new(task: &Arc<Wakeup>, counters: Arc<IoCounters>) -> Self {
        Self { task: Arc::clone(task), direct: Blocking::new(counters) }
    }

    async fn answer<W, F, T>(&self, work: W) -> Result<T, oneshot::Gone>
    where
        W: FnOnce(Budgeted<LocalIo>) -> F + Send + 'static,
        F: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Arc::clone(&self.task);
        let request: Request = Box::new(move |io| {
            Box::pin(async move {
                if task.is_abandoned() {
                    return Box::new(move || drop(reply)) as Answer;
                }
                let output = work(io).await;
                Box::new(move || reply.send(output)) as Answer
            })
        });
        self.task.post(request);
        answer.await
    }

    async fn call<W, F, T>(&self, work: W) -> Result<T>
    where
        W: FnOnce(Budgeted<LocalIo>) -> F + Send + 'static,
        F: Future<Output = Result<T>> + 'static,
        T: Send + 'static,
    {
        self.answer(work).await.unwrap_or_else(|oneshot::Gone| Err(Error::closed()))
    }
}

/// `$call` with `$io` on the simulated machine; or `$posted` with `$posting`.
macro_rules! on_each {
    ($this:expr, |$io:ident| $call:expr, |$posting:ident| $posted:expr) => {
        match $this {
            BackgroundIo::Owner($posting) => $posted,
            #[cfg(feature = "sim")]
            BackgroundIo::Sim($io) => $call,
        }
    };
}

impl Io for BackgroundIo {
    async fn read(&self, file: &File, offset: u64, buf: IoBuf) -> (IoBuf, Result<usize>) {
        on_each!(self, |io| io.read(file, offset, buf).await, |posting| {
            let (file, bytes) = (file.clone(), buf.len());
            check_units(offset, bytes);
            let read =
                move |io: Budgeted<LocalIo>| async move { io.read(&file, offset, buf).await };
            let answer = posting.answer(read).await;
            // When the owner ended, the kernel kept the buffer.
            answer.unwrap_or_else(|oneshot::Gone| (IoBuf::zeroed(bytes), Err(Error::closed())))
        })
    }

    async fn write(
        &self,
        file: &File,
        offset: u64,
        buf: WriteBuf,
        harden: Harden,
    ) -> (WriteBuf, Result<()>) {
        on_each!(self, |io| io.write(file, offset, buf, harden).await, |posting| {
            let (file, stand_in) = (file.clone(), StandIn::of(&buf));
            check_units(offset, buf.bytes().len());
            let write = move |io: Budgeted<LocalIo>| async move {
                io.write(&file, offset, buf, harden).await
            };
            let answer = posting.answer(write).await;
            answer.unwrap_or_else(|oneshot::Gone| (stand_in.buf(), Err(Error::closed())))
        })
    }

    async fn sync(&self, file: &File) -> Result<()> {
        on_each!(self, |io| io.sync(file).await, |posting| {
            let file = file.clone();
            posting.call(|io| async move { io.sync(&file).await }).await
        })
    }

    async fn punch(&self, file: &File, offset: u64, bytes: u64) -> Result<()> {
        on_each!(self, |io| io.punch(file, offset, bytes).await, |posting| {
            let file = file.clone();
            posting.call(move |io| async move { io.punch(&file, offset, bytes).await }).await
        })
    }

    async fn cut(&self, file: &File, bytes: u64) -> Result<()> {
        on_each!(self, |io| io.cut(file, bytes).await, |posting| {
            let file = file.clone();
            posting.call(move |io| async move { io.cut(&file, bytes).await }).await
        })
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> Result<File> {
        on_each!(self, |io| io.open(path, mode).await, |posting| {
            let path = path.to_owned();
            posting.call(move |io| async move { io.open(&path, mode).await }).await
        })
    }

    async fn len(&self, file: &File) -> Result<u64> {
        on_each!(self, |io| io.len(file).await, |posting| {
            let file = file.clone();
            posting.call(|io| async move { io.len(&file).await }).await
        })
    }

    async fn list(&self, dir: &Path) -> Result<Vec<String>> {
        on_each!(self, |io| io.list(dir).await, |posting| {
            let dir = dir.to_owned();
            posting.call(|io| async move { io.list(&dir).await }).await
        })
    }

    async fn create_dir(&self, dir: &Path) -> Result<()> {
        on_each!(self, |io| io.create_dir(dir).await, |posting| {
            let dir = dir.to_owned();
            posting.call(|io| async move { io.create_dir(&dir).await }).await
        })
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        on_each!(self, |io| io.remove(path).await, |posting| {
            let path = path.to_owned();
            posting.call(|io| async move { io.remove(&path).await }).await
        })
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        on_each!(self, |io| io.rename(from, to).await, |posting| {
            let (from, to) = (from.to_owned(), to.to_owned());
            posting.call(|io| async move { io.rename(&from, &to).await }).await
        })
    }

    async fn sync_dir(&self, dir: &Path) -> Result<()> {
        on_each!(self, |io| io.sync_dir(dir).await, |posting| {
            let dir = dir.to_owned();
            posting.call(|io| async move { io.sync_dir(&dir).await }).await
        })
    }

    async fn try_lock(&self, path: &Path, create: bool) -> Result<Option<File>> {
        on_each!(self, |io| io.try_lock(path, create).await, |posting| {
            let path = path.to_owned();
            posting.call(move |io| async move { io.try_lock(&path, create).await }).await
        })
    }

    fn unlock(&self, file: &File) -> Result<()> {
        on_each!(self, |io| io.unlock(file), |posting| posting.direct.unlock(file))
    }

    fn file_id(&self, file: &File) -> Result<[u8; 16]> {
        on_each!(self, |io| io.file_id(file), |posting| posting.direct.file_id(file))
    }

    async fn map(&self, file: &File, bytes: usize) -> Result<Mapping> {
        on_each!(self, |io| io.map(file, bytes).await, |posting| {
            let file = file.clone();
            posting.call(move |io| async move { io.map(&file, bytes).await }).await
        })
    }

    fn boot_id(&self) -> Result<[u8; 16]> {
        on_each!(self, |io| io.boot_id(), |posting| posting.direct.boot_id())
    }

    /// Returns early when the owner is gone, which the next request reports.
    async fn sleep(&self, nanos: u64) {
        on_each!(self, |io| io.sleep(nanos).await, |posting| {
            let sleep = move |io: Budgeted<LocalIo>| async move { io.sleep(nanos).await };
            let _: Result<(), oneshot::Gone> = posting.answer(sleep).await;
        });
    }

    fn now_ns(&self) -> u64 {
        on_each!(self, |io| io.now_ns(), |posting| posting.direct.now_ns())
    }

    fn calendar_s(&self) -> u64 {
        on_each!(self, |io| io.calendar_s(), |posting| posting.direct.calendar_s())
    }

    fn random(&self, bytes: &mut [u8]) {
        on_each!(self, |io| io.random(bytes), |posting| posting.direct.random(bytes));
    }

    fn counters(&self) -> &Arc<IoCounters> {
        on_each!(self, |io| io.counters(), |posting| posting.direct.counters())
    }
}
