//! What `ouro-bench device` measures a disk with: requests on one file, by the engine's own
//! ring under an owner's executor, and by the positioned calls of threads that wait.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::error::{Error, ErrorKind, Result};
use crate::io::blocking::Blocking;
use crate::io::{BufferPool, File, Harden, Io, IoBuf, IoCounters, OpenMode, WriteBuf, uring};
use crate::runtime::{Executor, Job, OwnerConfig, block_on};

const SECTOR_BYTES: usize = 512;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// It reads.
    Read,
    /// It writes; that is durable after a later [`TestFile::sync`].
    Write,
    /// It writes, and its bytes are durable when it ends, as those of a group of the log.
    DurableWrite,
}

/// Says where requests go, and is told how long they took.
pub trait Requests {
    /// The byte where the next request begins, a multiple of 4096; without one, whoever asked
    /// sends no more. `now_ns` is `CLOCK_MONOTONIC`, as in [`Requests::ended`].
    fn next(&mut self, now_ns: u64) -> Option<u64>;

    /// A request ended.
    fn ended(&mut self, began_ns: u64, ended_ns: u64);
}

impl<R: Requests> Requests for &mut R {
    fn next(&mut self, now_ns: u64) -> Option<u64> {
        R::next(self, now_ns)
    }

    fn ended(&mut self, began_ns: u64, ended_ns: u64) {
        R::ended(self, began_ns, ended_ns);
    }
}

/// The requests of all tasks on one ring.
struct Shared<R> {
    requests: R,
    failure: Option<Error>,
}

impl<R: Requests> Requests for Rc<RefCell<Shared<R>>> {
    fn next(&mut self, now_ns: u64) -> Option<u64> {
        let mut shared = self.borrow_mut();
        if shared.failure.is_some() { None } else { shared.requests.next(now_ns) }
    }

    fn ended(&mut self, began_ns: u64, ended_ns: u64) {
        self.borrow_mut().requests.ended(began_ns, ended_ns);
    }
}

/// A file without a name, whose space comes back with its last user, however that ends. Any
/// thread may send requests to it.
#[derive(Debug)]
pub struct TestFile {
    file: File,
    counters: Arc<IoCounters>,
}

impl TestFile {
    /// An empty file, made as `path`, which must not exist, with `O_DIRECT`. The name is gone
    /// when this returns.
    ///
    /// # Errors
    /// When the file cannot be made; `Unsupported` where direct I/O is refused.
    pub fn create(path: &Path) -> Result<Self> {
        let counters = Arc::<IoCounters>::default();
        let io = Blocking::new(Arc::clone(&counters));
        let file = block_on(io.open(path, OpenMode::CreateNew));
        // Direct I/O may be refused after the file was made.
        let refused = file.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unsupported);
        if file.is_ok() || refused && path.exists() {
            block_on(io.remove(path))?;
        }
        Ok(Self { file: file?, counters })
    }

    /// Sends requests of so many bytes, a multiple of 4096, one after the other, by positioned
    /// calls of the calling thread.
    ///
    /// # Errors
    /// When a request fails: no more are sent.
    pub fn blocking(
        &self,
        request: Request,
        request_bytes: usize,
        requests: &mut impl Requests,
    ) -> Result<()> {
        let io = Blocking::new(Arc::clone(&self.counters));
        let buf = filled(&io, request, IoBuf::zeroed(request_bytes));
        block_on(send(io, self.file.clone(), request, buf, requests))
    }

    /// Sends requests of so many bytes, a multiple of 4096, `depth` at one time, by tasks of an
    /// executor on the calling thread with a ring, as an owner has them. Also returns the
    /// reason why buffers could not be registered with the kernel, if so.
    ///
    /// # Errors
    /// When a request fails: no more are sent. `Unsupported` where rings are forbidden or too
    /// old; `Busy` where the memory that the user may lock leaves no room for one.
    pub fn ring<R: Requests + 'static>(
        &self,
        request: Request,
        request_bytes: usize,
        depth: usize,
        requests: R,
    ) -> Result<(R, Option<Error>)> {
        let pool = BufferPool::new(request_bytes, depth);
        let started = uring::start(Arc::clone(&self.counters), Arc::clone(&pool), &self.file);
        let (driver, ring, unregistered) = started?;
        let shared = Rc::new(RefCell::new(Shared { requests, failure: None }));
        let job = |buf| {
            let (ring, file, shared) = (ring.clone(), self.file.clone(), Rc::clone(&shared));
            Job::new("requests", async move {
                let sent = send(ring, file, request, buf, Rc::clone(&shared)).await;
                if let Err(error) = sent {
                    shared.borrow_mut().failure.get_or_insert(error);
                }
            })
        };
        let bufs: Vec<_> = (0..depth).map(|_| filled(&ring, request, pool.take())).collect();
        let jobs = bufs.into_iter().map(job).collect();
        // The spin is that of `Options::default`.
        let config = OwnerConfig { spin_ns: 0, logs_stalls: false, is_pinned: false };
        let mut executor = Executor::new(driver, config);
        executor.run(jobs)?;
        drop(executor);
        let shared = Rc::into_inner(shared).expect("the tasks have ended").into_inner();
        match shared.failure {
            Some(error) => Err(error),
            None => Ok((shared.requests, unregistered)),
        }
    }

    /// Makes all that was written durable.
    ///
    /// # Errors
    /// When the sync fails.
    pub fn sync(&self) -> Result<()> {
        block_on(Blocking::new(Arc::clone(&self.counters)).sync(&self.file))
    }
}

/// What is written is random, so that no device can make less of it.
fn filled(io: &impl Io, request: Request, mut buf: IoBuf) -> IoBuf {
    if request != Request::Read {
        io.random(&mut buf);
    }
    buf
}

/// Writes place and time into each sector: no two are the same, for devices that would store
/// them once. Where it does so is as in fio: to devices that compress it matters.
fn stamp(buf: &mut IoBuf, offset: u64, now_ns: u64) {
    let line = (now_ns % 8) as usize * 64;
    let time = [now_ns / 1_000_000_000, now_ns % 1_000_000_000].map(u64::to_le_bytes);
    for (sector, place) in buf.chunks_exact_mut(SECTOR_BYTES).zip((offset..).step_by(SECTOR_BYTES))
    {
        sector[line..line + 8].copy_from_slice(&place.to_le_bytes());
        sector[48..64].copy_from_slice(time.as_flattened());
    }
}

/// Sends one request after the other.
async fn send(
    io: impl Io,
    file: File,
    request: Request,
    mut buf: IoBuf,
    mut requests: impl Requests,
) -> Result<()> {
    let mut now_ns = io.now_ns();
    while let Some(offset) = requests.next(now_ns) {
        buf = match request {
            Request::Read => read(&io, &file, offset, buf).await?,
            Request::Write | Request::DurableWrite => {
                stamp(&mut buf, offset, now_ns);
                let durable = request == Request::DurableWrite;
                let harden = if durable { Harden::Now } else { Harden::Later };
                write(&io, &file, offset, buf, harden).await?
            }
        };
        let began_ns = std::mem::replace(&mut now_ns, io.now_ns());
        requests.ended(began_ns, now_ns);
    }
    Ok(())
}

async fn read(io: &impl Io, file: &File, offset: u64, buf: IoBuf) -> Result<IoBuf> {
    let (buf, result) = io.read(file, offset, buf).await;
    if result? < buf.len() {
        let short = std::io::ErrorKind::UnexpectedEof.into();
        return Err(Error::os_at("read", file.path(), Some(offset), short));
    }
    Ok(buf)
}

async fn write(
    io: &impl Io,
    file: &File,
    offset: u64,
    buf: IoBuf,
    harden: Harden,
) -> Result<IoBuf> {
    let (buf, result) = io.write(file, offset, WriteBuf::from(buf), harden).await;
    result?;
    match buf {
        WriteBuf::Owned(buf) => Ok(buf),
        WriteBuf::Prefix(..) | WriteBuf::Group(..) => unreachable!("a write hands its buffer back"),
    }
}
