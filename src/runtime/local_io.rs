//! The I/O of an owner's thread, whichever kind it is.

use std::path::Path;
use std::sync::Arc;

use super::Spawner;
use crate::base::error::Result;
use crate::io::blocking::Blocking;
use crate::io::uring::Ring;
use crate::io::{
    DetachedRead, File, Harden, Io, IoBuf, IoCounters, Lender, Mapping, OpenMode, WriteBuf,
};

/// What tasks on an owner do their I/O with, when they cannot be generic over
/// it: those that serve messages, and those of users.
#[derive(Clone)]
pub(crate) struct LocalIo {
    kind: Kind,
    /// Where tasks are not known to be polled to their end: starts others for
    /// what must not depend on them.
    spawner: Option<Spawner>,
}

#[derive(Clone)]
enum Kind {
    /// On a ring.
    Ring(Ring),
    /// On positioned I/O, over a [`Parking`](crate::io::blocking::Parking)
    /// driver.
    Blocking(Blocking),
    /// On the simulated machine.
    #[cfg(feature = "sim")]
    Sim(crate::io::sim::Sim),
}

macro_rules! on_each {
    ($this:expr, |$io:ident| $call:expr) => {
        match &$this.kind {
            Kind::Ring($io) => $call,
            Kind::Blocking($io) => $call,
            #[cfg(feature = "sim")]
            Kind::Sim($io) => $call,
        }
    };
}

impl From<Ring> for LocalIo {
    fn from(io: Ring) -> Self {
        Self { kind: Kind::Ring(io), spawner: None }
    }
}

impl From<Blocking> for LocalIo {
    fn from(io: Blocking) -> Self {
        Self { kind: Kind::Blocking(io), spawner: None }
    }
}

#[cfg(feature = "sim")]
impl From<crate::io::sim::Sim> for LocalIo {
    fn from(io: crate::io::sim::Sim) -> Self {
        Self { kind: Kind::Sim(io), spawner: None }
    }
}

impl LocalIo {
    /// Reads may land in the memory of `lender` from now on: a ring registers
    /// it, where that can be. With that of other owners there are `all_bytes`.
    pub(crate) fn know(&self, lender: Arc<dyn Lender>, all_bytes: usize) {
        if let Kind::Ring(ring) = &self.kind {
            ring.know(lender, all_bytes);
        }
    }

    /// The same, for the code of users, who may keep futures that they do not
    /// poll.
    pub(super) fn for_users(mut self, spawner: &Spawner) -> Self {
        self.spawner = Some(spawner.clone());
        self
    }
}

impl Io for LocalIo {
    async fn read(&self, file: &File, offset: u64, buf: IoBuf) -> (IoBuf, Result<usize>) {
        on_each!(self, |io| io.read(file, offset, buf).await)
    }

    async fn read_detached<D: FnOnce(IoBuf, Result<usize>) + Send + 'static>(
        &self,
        begin: impl FnOnce() -> Option<DetachedRead<D>>,
    ) -> Result<()> {
        let Some(spawner) = &self.spawner else {
            return on_each!(self, |io| io.read_detached(begin).await);
        };
        if let Some(DetachedRead { file, offset, buf, done }) = begin() {
            let io = self.clone();
            spawner.spawn("read", async move {
                let (buf, result) = io.read(&file, offset, buf).await;
                done(buf, result);
            });
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
        on_each!(self, |io| io.write(file, offset, buf, harden).await)
    }

    async fn sync(&self, file: &File) -> Result<()> {
        on_each!(self, |io| io.sync(file).await)
    }

    async fn punch(&self, file: &File, offset: u64, bytes: u64) -> Result<()> {
        on_each!(self, |io| io.punch(file, offset, bytes).await)
    }

    async fn cut(&self, file: &File, bytes: u64) -> Result<()> {
        on_each!(self, |io| io.cut(file, bytes).await)
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> Result<File> {
        on_each!(self, |io| io.open(path, mode).await)
    }

    async fn len(&self, file: &File) -> Result<u64> {
        on_each!(self, |io| io.len(file).await)
    }

    async fn list(&self, dir: &Path) -> Result<Vec<String>> {
        on_each!(self, |io| io.list(dir).await)
    }

    async fn create_dir(&self, dir: &Path) -> Result<()> {
        on_each!(self, |io| io.create_dir(dir).await)
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        on_each!(self, |io| io.remove(path).await)
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        on_each!(self, |io| io.rename(from, to).await)
    }

    async fn sync_dir(&self, dir: &Path) -> Result<()> {
        on_each!(self, |io| io.sync_dir(dir).await)
    }

    async fn try_lock(&self, path: &Path, create: bool) -> Result<Option<File>> {
        on_each!(self, |io| io.try_lock(path, create).await)
    }

    fn unlock(&self, file: &File) -> Result<()> {
        on_each!(self, |io| io.unlock(file))
    }

    fn file_id(&self, file: &File) -> Result<[u8; 16]> {
        on_each!(self, |io| io.file_id(file))
    }

    async fn map(&self, file: &File, bytes: usize) -> Result<Mapping> {
        on_each!(self, |io| io.map(file, bytes).await)
    }

    fn boot_id(&self) -> Result<[u8; 16]> {
        on_each!(self, |io| io.boot_id())
    }

    async fn sleep(&self, nanos: u64) {
        on_each!(self, |io| io.sleep(nanos).await);
    }

    fn now_ns(&self) -> u64 {
        on_each!(self, |io| io.now_ns())
    }

    fn calendar_s(&self) -> u64 {
        on_each!(self, |io| io.calendar_s())
    }

    fn random(&self, bytes: &mut [u8]) {
        on_each!(self, |io| io.random(bytes));
    }

    fn counters(&self) -> &Arc<IoCounters> {
        on_each!(self, |io| io.counters())
    }
}
