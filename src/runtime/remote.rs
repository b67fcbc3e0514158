//! An [`Io`] for everybody else: it posts requests to an owner.
//!
//! Each request is one message, executed by a task on the owner's own I/O. The
//! message owns its buffer and its file, so that a future may be dropped at any
//! point: before the message was sent nothing happens, and after that the
//! request runs to its end without anybody to answer to.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::sync::Arc;

use super::message::Posted;
use super::{LocalIo, Mailbox, Message, Permit, Reserve, first_of, oneshot, run_on_owner};
use crate::base::error::{Error, Result};
use crate::base::limits::UNIT;
use crate::io::blocking::Blocking;
use crate::io::{DetachedRead, File, Harden, Io, IoBuf, IoCounters, Mapping, OpenMode, WriteBuf};

/// See the module's text. Its futures are `Send`.
#[derive(Clone)]
pub(crate) struct Remote {
    mailbox: Arc<Mailbox<Message>>,
    direct: Direct,
}

/// What needs no owner: clock, randomness, counters, giving up a lock.
#[derive(Clone)]
enum Direct {
    Os(Blocking),
    #[cfg(feature = "sim")]
    Sim(crate::io::sim::Sim),
}

macro_rules! directly {
    ($this:expr, |$io:ident| $call:expr) => {
        match &$this.direct {
            Direct::Os($io) => $call,
            #[cfg(feature = "sim")]
            Direct::Sim($io) => $call,
        }
    };
}

impl Remote {
    /// Posts to the owner that serves `mailbox`. `counters` are those of the
    /// owner's I/O, which counts the requests.
    pub(crate) fn new(mailbox: Arc<Mailbox<Message>>, counters: Arc<IoCounters>) -> Self {
        Self { mailbox, direct: Direct::Os(Blocking::new(counters)) }
    }

    /// The mailbox it posts to.
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox<Message>> {
        &self.mailbox
    }

    /// Posts to an owner on the simulated machine.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated(mailbox: Arc<Mailbox<Message>>, sim: crate::io::sim::Sim) -> Self {
        Self { mailbox, direct: Direct::Sim(sim) }
    }

    /// Waits for a slot of the owner's mailbox, for [`Remote::post_write`]:
    /// before anything is encoded that must then be written.
    pub(crate) fn reserve(&self) -> Reserve<Message> {
        self.mailbox.reserve()
    }

    /// [`Io::write`] with a slot that was reserved before. The message is sent
    /// at once, not at the first poll.
    pub(crate) fn post_write(
        &self,
        permit: Permit<Message>,
        file: &File,
        offset: u64,
        buf: WriteBuf,
        harden: Harden,
    ) -> impl Future<Output = (WriteBuf, Result<()>)> + Send + use<> {
        check_units(offset, buf.bytes().len());
        let stand_in = StandIn::of(&buf);
        let (posted, answer) = Posted::new(buf);
        permit.send(Message::Write(file.clone(), offset, harden, posted));
        async move {
            match answer.await {
                Ok(answer) => answer,
                Err(oneshot::Gone) => (stand_in.buf(), Err(Error::closed())),
            }
        }
    }

    async fn call<W, F, T>(&self, work: W) -> Result<T>
    where
        W: FnOnce(LocalIo) -> F + Send + 'static,
        F: Future<Output = Result<T>> + 'static,
        T: Send + 'static,
    {
        run_on_owner(&self.mailbox, work).await?
    }
}

/// Requests that no owner should choke on.
pub(super) fn check_units(offset: u64, len: usize) {
    assert!(
        offset.is_multiple_of(UNIT as u64) && len > 0 && len.is_multiple_of(UNIT),
        "direct I/O of {len} bytes at {offset} is not in whole units"
    );
}

/// What a write gives back when its owner ended, and the kernel kept the
/// buffer.
pub(super) enum StandIn {
    Owned(usize),
    Prefix(usize, usize),
    /// Shared anyway; still with the kernel, too.
    Group(Arc<crate::io::GroupBuf>, usize),
}

impl StandIn {
    pub(super) fn of(buf: &WriteBuf) -> Self {
        match buf {
            WriteBuf::Owned(buf) => Self::Owned(buf.len()),
            WriteBuf::Prefix(buf, len) => Self::Prefix(buf.len(), *len),
            WriteBuf::Group(group, len) => Self::Group(Arc::clone(group), *len),
        }
    }

    pub(super) fn buf(self) -> WriteBuf {
        match self {
            Self::Owned(bytes) => WriteBuf::Owned(IoBuf::zeroed(bytes)),
            Self::Prefix(bytes, len) => WriteBuf::Prefix(IoBuf::zeroed(bytes), len),
            Self::Group(group, len) => WriteBuf::Group(group, len),
        }
    }
}

impl Io for Remote {
    async fn read(&self, file: &File, offset: u64, buf: IoBuf) -> (IoBuf, Result<usize>) {
        let bytes = buf.len();
        check_units(offset, bytes);
        let permit = match self.mailbox.reserve().await {
            Ok(permit) => permit,
            Err(error) => return (buf, Err(error)),
        };
        let (posted, answer) = Posted::new(buf);
        permit.send(Message::Read(file.clone(), offset, posted));
        match answer.await {
            Ok(answer) => answer,
            // The owner ended, and the kernel kept the buffer.
            Err(oneshot::Gone) => (IoBuf::zeroed(bytes), Err(Error::closed())),
        }
    }

    async fn read_detached<D: FnOnce(IoBuf, Result<usize>) + Send + 'static>(
        &self,
        begin: impl FnOnce() -> Option<DetachedRead<D>>,
    ) -> Result<()> {
        let permit = self.mailbox.reserve().await?;
        if let Some(DetachedRead { file, offset, buf, done }) = begin() {
            check_units(offset, buf.len());
            permit.send(Message::ReadDetached(file, offset, buf, Box::new(done)));
        }
        Ok(())
    }

    async fn write(
        &self,
        file: &File,
        offset: u64,
        buf: WriteBuf,
        harden: Harden,
    ) -> (WriteBuf, Result<()>) {
        match self.mailbox.reserve().await {
            Ok(permit) => self.post_write(permit, file, offset, buf, harden).await,
            Err(error) => (buf, Err(error)),
        }
    }

    async fn sync(&self, file: &File) -> Result<()> {
        let permit = self.mailbox.reserve().await?;
        let (posted, answer) = Posted::new(());
        permit.send(Message::Sync(file.clone(), posted));
        match answer.await {
            Ok(((), result)) => result,
            Err(oneshot::Gone) => Err(Error::closed()),
        }
    }

    async fn punch(&self, file: &File, offset: u64, bytes: u64) -> Result<()> {
        let file = file.clone();
        self.call(move |io| async move { io.punch(&file, offset, bytes).await }).await
    }

    async fn cut(&self, file: &File, bytes: u64) -> Result<()> {
        let file = file.clone();
        self.call(move |io| async move { io.cut(&file, bytes).await }).await
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> Result<File> {
        let path = path.to_owned();
        self.call(move |io| async move { io.open(&path, mode).await }).await
    }

    async fn len(&self, file: &File) -> Result<u64> {
        let file = file.clone();
        self.call(move |io| async move { io.len(&file).await }).await
    }

    async fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let dir = dir.to_owned();
        self.call(move |io| async move { io.list(&dir).await }).await
    }

    async fn create_dir(&self, dir: &Path) -> Result<()> {
        let dir = dir.to_owned();
        self.call(move |io| async move { io.create_dir(&dir).await }).await
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        let path = path.to_owned();
        self.call(move |io| async move { io.remove(&path).await }).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.call(move |io| async move { io.rename(&from, &to).await }).await
    }

    async fn sync_dir(&self, dir: &Path) -> Result<()> {
        let dir = dir.to_owned();
        self.call(move |io| async move { io.sync_dir(&dir).await }).await
    }

    async fn try_lock(&self, path: &Path, create: bool) -> Result<Option<File>> {
        let path = path.to_owned();
        self.call(move |io| async move { io.try_lock(&path, create).await }).await
    }

    fn unlock(&self, file: &File) -> Result<()> {
        directly!(self, |io| io.unlock(file))
    }

    fn file_id(&self, file: &File) -> Result<[u8; 16]> {
        directly!(self, |io| io.file_id(file))
    }

    async fn map(&self, file: &File, bytes: usize) -> Result<Mapping> {
        let file = file.clone();
        self.call(move |io| async move { io.map(&file, bytes).await }).await
    }

    fn boot_id(&self) -> Result<[u8; 16]> {
        directly!(self, |io| io.boot_id())
    }

    /// Sleeps on the owner; dropping the future ends that. Returns early when
    /// the owner is gone. Takes no slot meanwhile: writes that are slowed down
    /// must not keep others from reading.
    async fn sleep(&self, nanos: u64) {
        let Ok(permit) = self.mailbox.reserve().await else {
            return;
        };
        let (mut reply, answer) = oneshot::channel();
        permit.send(Message::Run(Box::new(move |spawner, io, slot| {
            drop(slot);
            spawner.spawn("sleep", async move {
                first_of(io.sleep(nanos), poll_fn(|cx| reply.poll_unwanted(cx))).await;
                reply.send(());
            });
        })));
        // An owner that is gone is reported by the next request.
        let _: Result<(), oneshot::Gone> = answer.await;
    }

    fn now_ns(&self) -> u64 {
        directly!(self, |io| io.now_ns())
    }

    fn calendar_s(&self) -> u64 {
        directly!(self, |io| io.calendar_s())
    }

    fn random(&self, bytes: &mut [u8]) {
        directly!(self, |io| io.random(bytes));
    }

    fn counters(&self) -> &Arc<IoCounters> {
        directly!(self, |io| io.counters())
    }
}
