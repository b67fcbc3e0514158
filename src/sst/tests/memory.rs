//! An [`Io`] of one file in memory, which counts what it is asked for and
//! fails on demand. Its futures are ready at their first poll.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use crate::base::error::{Error, Result};
use crate::base::limits::{UNIT, UNIT_U64};
use crate::io::{File, Handle, Harden, Io, IoBuf, IoCounters, Mapping, OpenMode, WriteBuf};

/// The result of a future that never waits.
pub(super) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a future over memory was not ready"),
    }
}

/// One file's bytes.
#[derive(Clone)]
pub(super) struct Memory {
    file: File,
    counters: Arc<IoCounters>,
    state: Arc<Mutex<State>>,
    /// What every read waits for.
    gate: Option<Arc<dyn Fn() + Send + Sync>>,
}

struct State {
    bytes: Vec<u8>,
    /// Bytes that count as written durably.
    synced: usize,
    /// Requests that succeed before some fail, and how many those are.
    failures: (usize, usize),
    /// The lengths of the reads so far.
    reads: Vec<usize>,
}

impl Memory {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let stand_in = tempfile::tempfile().expect("a temporary file");
        Self {
            file: File::new(Path::new("/db/table.sst"), Handle::Os(stand_in.into())),
            counters: Arc::default(),
            state: Arc::new(Mutex::new(State {
                bytes,
                synced: 0,
                failures: (0, 0),
                reads: Vec::new(),
            })),
            gate: None,
        }
    }

    /// The same file, whose reads wait for `gate`.
    pub(super) fn gated(&self, gate: impl Fn() + Send + Sync + 'static) -> Self {
        Self { gate: Some(Arc::new(gate)), ..self.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    /// Replaces one byte; returns the one before.
    pub(super) fn replace(&self, at: usize, byte: u8) -> u8 {
        std::mem::replace(&mut self.state().bytes[at], byte)
    }

    pub(super) fn synced(&self) -> usize {
        self.state().synced
    }

    /// Makes the next requests fail.
    pub(super) fn fail(&self, requests: usize) {
        self.state().failures = (0, requests);
    }

    /// Makes one request fail, after so many that succeed.
    pub(super) fn fail_after(&self, successes: usize) {
        self.state().failures = (successes, 1);
    }

    /// The lengths of the reads since the last call.
    pub(super) fn take_reads(&self) -> Vec<usize> {
        std::mem::take(&mut self.state().reads)
    }

    /// A handle that stands for the file.
    pub(super) fn file(&self) -> File {
        self.file.clone()
    }

    fn failing(&self, file: &File) -> Result<()> {
        let mut state = self.state();
        let (successes, failures) = state.failures;
        if successes > 0 || failures == 0 {
            state.failures = (successes.saturating_sub(1), failures);
            return Ok(());
        }
        state.failures = (0, failures - 1);
        Err(Error::os("reach", file.path(), std::io::Error::from_raw_os_error(5)))
    }
}

impl Io for Memory {
    async fn read(&self, file: &File, offset: u64, mut buf: IoBuf) -> (IoBuf, Result<usize>) {
        assert!(offset.is_multiple_of(UNIT_U64), "a read at {offset}");
        self.counters.read(buf.len());
        if let Some(gate) = &self.gate {
            gate();
        }
        let mut state = self.state();
        state.reads.push(buf.len());
        let rest = state.bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        drop(state);
        (buf, self.failing(file).map(|()| len))
    }

    async fn write(
        &self,
        file: &File,
        offset: u64,
        buf: WriteBuf,
        _harden: Harden,
    ) -> (WriteBuf, Result<()>) {
        assert!(offset.is_multiple_of(UNIT_U64) && buf.bytes().len().is_multiple_of(UNIT));
        self.counters.write(buf.bytes().len());
        let mut state = self.state();
        assert_eq!(state.bytes.len() as u64, offset, "a table is written front to back");
        state.bytes.extend_from_slice(buf.bytes());
        drop(state);
        (buf, self.failing(file))
    }

    async fn sync(&self, file: &File) -> Result<()> {
        self.counters.sync();
        let mut state = self.state();
        state.synced = state.bytes.len();
        drop(state);
        self.failing(file)
    }

    async fn len(&self, _file: &File) -> Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    async fn map(&self, _file: &File, _bytes: usize) -> Result<Mapping> {
        unreachable!("tables are not mapped")
    }

    async fn open(&self, _path: &Path, mode: OpenMode) -> Result<File> {
        assert_eq!(mode, OpenMode::Read, "only who verifies opens the file");
        Ok(self.file())
    }

    async fn list(&self, _dir: &Path) -> Result<Vec<String>> {
        unreachable!("tables do not touch directories")
    }

    async fn create_dir(&self, _dir: &Path) -> Result<()> {
        unreachable!("tables do not touch directories")
    }

    async fn punch(&self, _file: &File, _offset: u64, _bytes: u64) -> Result<()> {
        unreachable!("tables are never given back in part")
    }

    async fn cut(&self, _file: &File, _bytes: u64) -> Result<()> {
        unreachable!("new files are not cut")
    }

    async fn remove(&self, _path: &Path) -> Result<()> {
        unreachable!("tables do not touch directories")
    }

    async fn rename(&self, _from: &Path, _to: &Path) -> Result<()> {
        unreachable!("tables do not touch directories")
    }

    async fn sync_dir(&self, _dir: &Path) -> Result<()> {
        unreachable!("tables do not touch directories")
    }

    async fn try_lock(&self, _path: &Path, _create: bool) -> Result<Option<File>> {
        unreachable!("tables lock nothing")
    }

    fn unlock(&self, _file: &File) -> Result<()> {
        unreachable!("tables lock nothing")
    }

    fn file_id(&self, _file: &File) -> Result<[u8; 16]> {
        unreachable!("tables tell no file from its copies")
    }

    async fn sleep(&self, _nanos: u64) {
        unreachable!("tables do not sleep")
    }

    fn now_ns(&self) -> u64 {
        0
    }

    fn calendar_s(&self) -> u64 {
        1_000_000_000
    }

    fn boot_id(&self) -> Result<[u8; 16]> {
        unreachable!("tables are the same in every boot")
    }

    fn random(&self, _bytes: &mut [u8]) {
        unreachable!("tables draw no random numbers")
    }

    fn counters(&self) -> &Arc<IoCounters> {
        &self.counters
    }
}
