//! An [`Io`] whose reads and writes keep within a device's budget.

use std::path::Path;
use std::sync::Arc;

use super::{Budget, RuntimeCounters};
use crate::base::error::Result;
use crate::io::{File, Harden, Io, IoBuf, IoCounters, Mapping, OpenMode, WriteBuf};

/// See the module's text. Everything but reads and writes goes at once.
#[derive(Clone)]
pub(crate) struct Budgeted<I> {
    io: I,
    budget: Arc<Budget>,
    /// Those of the owner on whose thread it is used.
    counters: Arc<RuntimeCounters>,
}

impl<I: Io> Budgeted<I> {
    pub(super) fn new(io: I, budget: Arc<Budget>, counters: Arc<RuntimeCounters>) -> Self {
        Self { io, budget, counters }
    }

    async fn take(&self, bytes: usize) -> super::budget::Share<'_, I> {
        let share = self.budget.take(&self.io, bytes).await;
        if share.has_waited {
            self.counters.budget_waited(bytes);
        }
        share
    }
}

impl<I: Io> Io for Budgeted<I> {
    async fn read(&self, file: &File, offset: u64, buf: IoBuf) -> (IoBuf, Result<usize>) {
        let _share = self.take(buf.len()).await;
        self.io.read(file, offset, buf).await
    }

    async fn write(
        &self,
        file: &File,
        offset: u64,
        buf: WriteBuf,
        harden: Harden,
    ) -> (WriteBuf, Result<()>) {
        let _share = self.take(buf.bytes().len()).await;
        self.io.write(file, offset, buf, harden).await
    }

    async fn sync(&self, file: &File) -> Result<()> {
        self.io.sync(file).await
    }

    async fn punch(&self, file: &File, offset: u64, bytes: u64) -> Result<()> {
        self.io.punch(file, offset, bytes).await
    }

    async fn cut(&self, file: &File, bytes: u64) -> Result<()> {
        self.io.cut(file, bytes).await
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> Result<File> {
        self.io.open(path, mode).await
    }

    async fn len(&self, file: &File) -> Result<u64> {
        self.io.len(file).await
    }

    async fn list(&self, dir: &Path) -> Result<Vec<String>> {
        self.io.list(dir).await
    }

    async fn create_dir(&self, dir: &Path) -> Result<()> {
        self.io.create_dir(dir).await
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        self.io.remove(path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.io.rename(from, to).await
    }

    async fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.io.sync_dir(dir).await
    }

    async fn try_lock(&self, path: &Path, create: bool) -> Result<Option<File>> {
        self.io.try_lock(path, create).await
    }

    fn unlock(&self, file: &File) -> Result<()> {
        self.io.unlock(file)
    }

    fn file_id(&self, file: &File) -> Result<[u8; 16]> {
        self.io.file_id(file)
    }

    async fn map(&self, file: &File, bytes: usize) -> Result<Mapping> {
        self.io.map(file, bytes).await
    }

    fn boot_id(&self) -> Result<[u8; 16]> {
        self.io.boot_id()
    }

    async fn sleep(&self, nanos: u64) {
        self.io.sleep(nanos).await;
    }

    fn now_ns(&self) -> u64 {
        self.io.now_ns()
    }

    fn calendar_s(&self) -> u64 {
        self.io.calendar_s()
    }

    fn random(&self, bytes: &mut [u8]) {
        self.io.random(bytes);
    }

    fn counters(&self) -> &Arc<IoCounters> {
        self.io.counters()
    }
}
