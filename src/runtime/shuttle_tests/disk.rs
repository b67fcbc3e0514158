//! A disk in memory for several threads. It remembers which bytes were written
//! and which are durable, not what they were.

use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::choose;
use crate::base::error::{Error, Result};
use crate::base::limits::UNIT;
use crate::io::blocking::Blocking;
use crate::io::{File, Handle, Harden, Io, IoBuf, IoCounters, Mapping, OpenMode, WriteBuf};
use crate::runtime::{Event, block_on, oneshot};

/// Requests complete at once or later, in any order, as the schedule wants:
/// then by the thread in [`Disk::serve`].
#[derive(Clone)]
pub(crate) struct Disk(Arc<Shared>);

struct Shared {
    counters: Arc<IoCounters>,
    /// One of std's: it is no part of what is tested.
    state: std::sync::Mutex<State>,
    work: Event,
}

#[derive(Default)]
struct State {
    queue: Vec<Request>,
    /// Writes that completed.
    writes: Vec<Done>,
    stopped: bool,
    /// Writes and syncs that succeed before all fail; `None` for all.
    sound: Option<usize>,
    /// Only one fails.
    recovers: bool,
}

struct Done {
    path: PathBuf,
    range: Range<u64>,
    is_durable: bool,
    /// A sync of it failed: no later one makes it durable, though it succeeds.
    is_lost: bool,
}

enum Request {
    Write {
        path: PathBuf,
        offset: u64,
        buf: WriteBuf,
        /// What the buffer held when it was submitted.
        bytes: Vec<u8>,
        harden: Harden,
        reply: oneshot::Sender<(WriteBuf, Result<()>)>,
    },
    Sync {
        path: PathBuf,
        /// Of the writes that completed, it covers so many.
        covers: usize,
        reply: oneshot::Sender<Result<()>>,
    },
}

impl Disk {
    pub(crate) fn new() -> Self {
        let (counters, state, work) = Default::default();
        Self(Arc::new(Shared { counters, state, work }))
    }

    /// From now on so many writes and syncs succeed, and then none.
    pub(crate) fn fail_after(&self, sound: usize) {
        self.with(|state| state.sound = Some(sound));
    }

    /// So many writes and syncs succeed, then one fails.
    pub(crate) fn fail_once_after(&self, sound: usize) {
        self.with(|state| (state.sound, state.recovers) = (Some(sound), true));
    }

    /// A file.
    pub(crate) fn file(&self, path: &str) -> File {
        let (_, unused) = std::io::pipe().expect("a file needs a descriptor");
        File::new(Path::new(path), Handle::Os(unused.into()))
    }

    /// Completes requests until [`Disk::stop`].
    pub(crate) fn serve(&self) {
        block_on(async {
            loop {
                let (next, stopped) = self.with(|state| {
                    let count = state.queue.len();
                    let next = (count > 0).then(|| state.queue.swap_remove(choose(count)));
                    (next, state.stopped)
                });
                match next {
                    Some(request) => self.complete(request),
                    None if stopped => return,
                    None => self.0.work.wait().await,
                }
            }
        });
    }

    pub(crate) fn stop(&self) {
        self.with(|state| state.stopped = true);
        self.0.work.set();
    }

    /// Whether all these bytes were written, and, if asked for, durably.
    pub(crate) fn has(&self, path: &Path, range: Range<u64>, durably: bool) -> bool {
        self.with(|state| {
            let mut parts: Vec<&Range<u64>> = state
                .writes
                .iter()
                .filter(|done| done.path == path && (done.is_durable || !durably))
                .map(|done| &done.range)
                .collect();
            parts.sort_by_key(|part| part.start);
            let end = parts.into_iter().fold(range.start, |end, part| {
                if part.start <= end { end.max(part.end) } else { end }
            });
            end >= range.end
        })
    }

    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn submit(&self, request: Request) {
        if choose(2) == 0 {
            return self.complete(request);
        }
        self.with(|state| state.queue.push(request));
        self.0.work.set();
    }

    fn complete(&self, request: Request) {
        let sound = self.with(|state| match &mut state.sound {
            Some(0) => {
                if state.recovers {
                    state.sound = None;
                }
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        });
        let broken = |path: &Path| {
            Error::os("reach", path, std::io::Error::from(std::io::ErrorKind::BrokenPipe))
        };
        match request {
            Request::Write { path, offset, buf, bytes, harden, reply } => {
                assert_eq!(buf.bytes(), bytes, "a buffer changed while it was being written");
                let result = if sound { Ok(()) } else { Err(broken(&path)) };
                if sound {
                    let range = offset..offset + bytes.len() as u64;
                    let is_durable = harden == Harden::Now;
                    let done = Done { path, range, is_durable, is_lost: false };
                    self.with(|state| state.writes.push(done));
                }
                reply.send((buf, result));
            }
            Request::Sync { path, covers, reply } => {
                let result = if sound { Ok(()) } else { Err(broken(&path)) };
                self.with(|state| {
                    let covered = state.writes[..covers].iter_mut();
                    for done in covered.filter(|done| done.path == path && !done.is_durable) {
                        done.is_lost |= !sound;
                        done.is_durable = !done.is_lost;
                    }
                });
                reply.send(result);
            }
        }
    }
}

impl Io for Disk {
    async fn read(&self, file: &File, _offset: u64, _buf: IoBuf) -> (IoBuf, Result<usize>) {
        unreachable!("nothing was kept of {file:?}")
    }

    async fn write(
        &self,
        file: &File,
        offset: u64,
        buf: WriteBuf,
        harden: Harden,
    ) -> (WriteBuf, Result<()>) {
        assert!(offset.is_multiple_of(UNIT as u64) && buf.bytes().len().is_multiple_of(UNIT));
        let (reply, answer) = oneshot::channel();
        let bytes = buf.bytes().to_vec();
        let path = file.path().to_owned();
        self.submit(Request::Write { path, offset, buf, bytes, harden, reply });
        answer.await.expect("every request is answered")
    }

    async fn sync(&self, file: &File) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let path = file.path().to_owned();
        let covers = self.with(|state| state.writes.len());
        self.submit(Request::Sync { path, covers, reply });
        answer.await.expect("every request is answered")
    }

    async fn open(&self, path: &Path, _mode: OpenMode) -> Result<File> {
        Ok(self.file(&path.to_string_lossy()))
    }

    async fn len(&self, file: &File) -> Result<u64> {
        unreachable!("nothing was kept of {file:?}")
    }

    /// Real memory.
    async fn map(&self, _file: &File, bytes: usize) -> Result<Mapping> {
        let real = tempfile::tempfile().expect("a temporary file");
        real.set_len(bytes as u64).expect("a longer file");
        let real = File::new(Path::new("map"), Handle::Os(real.into()));
        Blocking::new(Arc::default()).map(&real, bytes).await
    }

    async fn list(&self, _dir: &Path) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn create_dir(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    async fn punch(&self, _file: &File, _offset: u64, _bytes: u64) -> Result<()> {
        Ok(())
    }

    async fn cut(&self, _file: &File, _bytes: u64) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, _path: &Path) -> Result<()> {
        Ok(())
    }

    async fn rename(&self, _from: &Path, _to: &Path) -> Result<()> {
        Ok(())
    }

    async fn sync_dir(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    async fn try_lock(&self, path: &Path, _create: bool) -> Result<Option<File>> {
        Ok(Some(self.file(&path.to_string_lossy())))
    }

    fn unlock(&self, _file: &File) -> Result<()> {
        Ok(())
    }

    fn file_id(&self, _file: &File) -> Result<[u8; 16]> {
        unreachable!("no copies are made of this disk")
    }

    /// Time stands still.
    fn sleep(&self, _nanos: u64) -> impl Future<Output = ()> {
        std::future::pending()
    }

    fn now_ns(&self) -> u64 {
        0
    }

    fn calendar_s(&self) -> u64 {
        0
    }

    fn boot_id(&self) -> Result<[u8; 16]> {
        Ok([1; 16])
    }

    fn random(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }

    fn counters(&self) -> &Arc<IoCounters> {
        &self.0.counters
    }
}
