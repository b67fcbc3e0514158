//! One io_uring per owner thread.
//!
//! [`Ring`] is the owner's [`Io`]; [`RingDriver`] is what its executor turns.
//! Both live on the thread that created them (`SINGLE_ISSUER`); completions
//! are only looked for when that thread asks (`DEFER_TASKRUN`), so that they
//! never interrupt it.
//!
//! A request lives in a slot that owns its buffer, its file, and whatever else
//! the kernel may look at. A future that is dropped leaves its slot behind; the
//! completion frees it. Other threads wake a sleeping owner through an
//! eventfd, on which a poll request is in flight while it sleeps.
//!
//! `fsync` is submitted to the ring (it punts to a kernel worker); opening,
//! removing and listing block the owner, which only does them in background
//! jobs.

#![expect(unsafe_code, reason = "the kernel reads and writes memory named in requests")]

mod region;
mod slots;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::poll_fn;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use io_uring::types::{Fd, Fixed, FsyncFlags, Timespec};
use io_uring::{IoUring, Submitter, opcode, squeue};
use rustix::event::EventfdFlags;
use rustix::io::Errno;

use self::region::{PARTS_MAX, Region};
use self::slots::{FixedFiles, Payload, Slots};
use super::{
    BufferPool, Driver, File, Harden, Io, IoBuf, IoCounters, Lender, Mapping, OpenMode, Unpark,
    WriteBuf, os,
};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::limits::UNIT;
use crate::base::sync::assert_unlocked;

/// Requests a ring has in flight at most; the kernel makes the completion
/// queue twice as long, so it never overflows. Kernels that count the ring's
/// own memory against RLIMIT_MEMLOCK may have room for a shorter one only.
const IN_FLIGHT_MAX: [u32; 3] = [256, 64, 16];

/// Registered files at most: the lock, and the most recently used others.
const FIXED_FILES_MAX: u32 = 64;

/// The kernel workers one ring may have for requests that block.
const KERNEL_WORKERS_MAX: u32 = 4;

/// So many requests in flight are worth one that waits for the end of a turn. A
/// device with little to do gets each request at once, while the owner prepares
/// the next (15 % more reads with eight in flight); one with much to do does not
/// notice the wait, and the owner saves system calls.
const IN_FLIGHT_PER_QUEUED: usize = 16;

/// After so many turns without sleep, files are let go that nobody else has open: a
/// look at each of them, every few milliseconds at most.
const TURNS_PER_RELEASE: u64 = 256;

/// `user_data` of the poll on the eventfd.
const WAKE: u64 = u64::MAX;

/// `user_data` of requests whose completion says nothing.
const IGNORED: u64 = u64::MAX - 1;

/// The ring implementation of [`Io`], for tasks on the owner's thread.
#[derive(Clone)]
pub(crate) struct Ring {
    core: Rc<RefCell<Core>>,
    counters: Arc<IoCounters>,
}

/// Turns the ring; see [`Driver`].
pub(crate) struct RingDriver {
    core: Rc<RefCell<Core>>,
    wake: Arc<Eventfd>,
}

struct Core {
    ring: IoUring,
    slots: Slots,
    fixed: FixedFiles,
    /// Registered memory lives as long as the ring.
    pool: Arc<BufferPool>,
    /// Lent memory that it registers.
    region: Option<Region>,
    /// The index for it, if buffers can be registered.
    region_first: Option<u16>,
    wake: Arc<Eventfd>,
    /// Whether a poll of the eventfd is in flight.
    wake_armed: bool,
    turns: u64,
}

struct Eventfd(OwnedFd);

impl Unpark for Eventfd {
    fn unpark(&self) {
        assert_unlocked("to wake an owner");
        // The counter saturates only after 2^64 wake-ups nobody looked at;
        // a full one wakes just as well.
        let one = 1u64.to_le_bytes();
        while rustix::io::write(&self.0, &one) == Err(Errno::INTR) {}
    }
}

/// A ring for the calling thread.
///
/// `pool` is filled with buffers registered on the ring; `lock` is kept in the
/// ring's file table, so that the directory stays locked while the kernel
/// still has requests of a process that died. The last value returned is the
/// reason why the buffers could not be registered, if so.
///
/// # Errors
/// `Busy` when RLIMIT_MEMLOCK leaves no room for any ring; `Unsupported` where
/// rings are forbidden or too old.
pub(crate) fn start(
    counters: Arc<IoCounters>,
    pool: Arc<BufferPool>,
    lock: &File,
) -> Result<(RingDriver, Ring, Option<Error>)> {
    let (ring, in_flight_max) = create_ring().map_err(|e| ring_refused(&e))?;
    // Bounded (regular files) and unbounded work alike.
    let mut workers = [KERNEL_WORKERS_MAX; 2];
    ring.submitter().register_iowq_max_workers(&mut workers).map_err(|e| ring_refused(&e))?;
    let fixed_files = register_files(&ring.submitter()).map_err(|e| ring_refused(&e))?;
    let mut fixed = FixedFiles::new(fixed_files);
    fixed.pin(&ring.submitter(), lock).map_err(|e| ring_refused(&e))?;

    let mut unregistered = None;
    let mut region_first = None;
    pool.fill_registered(|buffers| {
        let vectors: Vec<libc::iovec> = buffers
            .iter()
            .map(|b| libc::iovec { iov_base: b.as_ptr().cast_mut().cast(), iov_len: b.len() })
            .collect();
        let register = || {
            ring.submitter().register_buffers_sparse((vectors.len() + PARTS_MAX) as u32)?;
            // SAFETY: the pool never frees registered memory, and the ring's core
            // keeps the pool.
            unsafe { ring.submitter().register_buffers_update(0, &vectors, None) }
        };
        match register() {
            Ok(()) => region_first = Some(vectors.len() as u16),
            Err(error) => unregistered = Some(not_registered(&error)),
        }
        unregistered.is_none()
    });

    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let fd = rustix::event::eventfd(0, flags)
        .map_err(|e| Error::os("create", Path::new("an eventfd"), e.into()))?;
    let wake = Arc::new(Eventfd(fd));
    let slots = Slots::new(in_flight_max as usize - 1);
    let core = Core {
        ring,
        slots,
        fixed,
        pool,
        region: None,
        region_first,
        wake: Arc::clone(&wake),
        wake_armed: false,
        turns: 0,
    };
    let core = Rc::new(RefCell::new(core));
    let ring = Ring { core: Rc::clone(&core), counters };
    Ok((RingDriver { core, wake }, ring, unregistered))
}

/// A ring, and its length.
fn create_ring() -> std::io::Result<(IoUring, u32)> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    let mut lengths = IN_FLIGHT_MAX.into_iter();
    let mut length = lengths.next().unwrap_or(1);
    loop {
        match (builder.build(length), lengths.next()) {
            (Ok(ring), _) => return Ok((ring, length)),
            (Err(e), Some(shorter)) if Errno::from_io_error(&e) == Some(Errno::NOMEM) => {
                length = shorter;
            }
            (Err(e), _) => return Err(e),
        }
    }
}

/// Registers a table of files, and returns its length: no longer than the
/// number of files that the process may have open.
fn register_files(submitter: &Submitter<'_>) -> std::io::Result<u32> {
    let mut count = FIXED_FILES_MAX;
    loop {
        match submitter.register_files_sparse(count) {
            Ok(()) => return Ok(count),
            Err(e) if Errno::from_io_error(&e) == Some(Errno::MFILE) && count > 1 => count /= 2,
            Err(e) => return Err(e),
        }
    }
}

fn ring_refused(error: &std::io::Error) -> Error {
    let hint = "or choose Options::io(IoBackend::Blocking), which works without io_uring, more \
                slowly (tools: --io blocking)";
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => Error::unsupported(format!(
            "io_uring is forbidden here ({error}): allow the calls io_uring_setup, \
             io_uring_enter and io_uring_register in the container's seccomp profile, set the \
             sysctl kernel.io_uring_disabled to 0, {hint}"
        )),
        Some(Errno::INVAL) => Error::unsupported(format!(
            "this kernel's io_uring is too old: Linux 6.1 is needed ({error}); use a newer \
             kernel, {hint}"
        )),
        Some(Errno::MFILE | Errno::NFILE) => Error::os(
            "create",
            Path::new("an io_uring"),
            std::io::Error::from_raw_os_error(error.raw_os_error().unwrap_or_default()),
        ),
        Some(Errno::NOMEM) => Error::new(
            ErrorKind::Busy,
            format!(
                "no io_uring fits within the memory this user may lock ({error}), so an owner \
                 works without one, more slowly; {RAISE_MEMLOCK}"
            ),
        ),
        _ => Error::new(ErrorKind::Io, format!("cannot create an io_uring: {error}")),
    }
}

const RAISE_MEMLOCK: &str =
    "raise RLIMIT_MEMLOCK (ulimit -l, or LimitMEMLOCK of the service) to at least 8 MiB";

fn not_registered(error: &std::io::Error) -> Error {
    Error::new(
        ErrorKind::Io,
        format!(
            "I/O buffers are not registered with the kernel, which costs some speed ({error}); \
             {RAISE_MEMLOCK}"
        ),
    )
}

impl Core {
    /// Queues an entry; the next turn submits it.
    fn push(&mut self, entry: &squeue::Entry) -> Result<()> {
        loop {
            // SAFETY: the slot that the entry's user data names owns every
            // piece of memory and every descriptor that the entry names, until
            // its completion was seen (the eventfd is owned by the core).
            let pushed = unsafe { self.ring.submission().push(entry) };
            if pushed.is_ok() {
                return Ok(());
            }
            self.enter(0)?;
        }
    }

    /// Lets an unpark end the sleep that comes, and one since the last sleep
    /// keep it from beginning.
    fn arm_wake(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.wake_armed, true) {
            return Ok(());
        }
        let fd = Fd(self.wake.0.as_raw_fd());
        let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).build().user_data(WAKE);
        self.push(&poll)
    }

    /// Ends a sleep that nobody waits for. Should that fail, it ends in time.
    fn cut_short(&mut self, slot: usize) {
        let cancel = opcode::TimeoutRemove::new(slot as u64).build().user_data(IGNORED);
        if let Err(error) = self.push(&cancel) {
            tracing::debug!(%error, "a timeout was not cut short");
        }
    }

    /// Whether the kernel has completions to hand out, or entries to take.
    fn has_work(&mut self) -> bool {
        self.slots.has_woken() || !self.ring.completion().is_empty() || self.must_enter()
    }

    /// Whether entries wait for the kernel to take them, or completions for
    /// the kernel to post them.
    fn must_enter(&mut self) -> bool {
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Submits, and waits for `want` completions. No system call when there is
    /// nothing to be had from it.
    fn enter(&mut self, want: usize) -> Result<()> {
        if want == 0 && !self.must_enter() {
            return Ok(());
        }
        assert_unlocked("to enter the ring");
        match self.ring.submitter().submit_and_wait(want) {
            Ok(_) => Ok(()),
            Err(e) => match Errno::from_io_error(&e) {
                // Interrupted, out of memory for the moment, or completions
                // must be taken first: the caller comes again.
                Some(Errno::INTR | Errno::AGAIN | Errno::BUSY) => Ok(()),
                _ => Err(Error::new(
                    ErrorKind::Io,
                    format!("io_uring_enter failed, and with it this owner's I/O: {e}"),
                )),
            },
        }
    }

    /// Takes the completions that are there. Whether there were any.
    fn reap(&mut self) -> bool {
        let mut reaped = false;
        let mut unparked = false;
        for completion in self.ring.completion() {
            reaped = true;
            match completion.user_data() {
                WAKE => unparked = true,
                IGNORED => {}
                slot => self.slots.complete(slot as usize, completion.result()),
            }
        }
        if unparked {
            self.wake_armed = false;
            let mut count = [0; 8];
            // Would block: nothing is there to be taken back.
            let _: Result<usize, Errno> = rustix::io::read(&self.wake.0, &mut count);
        }
        reaped
    }
}

impl Driver for RingDriver {
    fn turn(&self, may_sleep: bool, awake: &dyn Fn()) -> Result<()> {
        let wakers = {
            let mut core = self.core.borrow_mut();
            let reaped = core.reap();
            // Tasks that wait for a free slot are woken by whoever frees one,
            // also between turns.
            let sleeps = may_sleep && !reaped && !core.slots.has_woken();
            core.turns += 1;
            // Also of an owner that never sleeps: removed files keep their space.
            if sleeps || core.turns.is_multiple_of(TURNS_PER_RELEASE) {
                core.release_dead_files();
            }
            if sleeps {
                core.arm_wake()?;
            }
            core.enter(usize::from(sleeps))?;
            core.reap();
            core.slots.take_wakers()
        };
        awake();
        for waker in wakers {
            waker.wake();
        }
        Ok(())
    }

    fn has_work(&self, _now_ns: u64) -> bool {
        self.core.borrow_mut().has_work()
    }

    fn now_ns(&self) -> u64 {
        os::now_ns()
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        Arc::clone(&self.wake) as Arc<dyn Unpark>
    }
}

impl Drop for RingDriver {
    /// Waits until the kernel has let go of every buffer and file: the ring
    /// itself is torn down later, in the kernel's own time, and a file system
    /// would be busy until then.
    fn drop(&mut self) {
        let mut core = self.core.borrow_mut();
        while core.slots.in_flight() > 0 {
            let moved = {
                core.reap();
                let wait = usize::from(core.slots.in_flight() > 0);
                core.enter(wait)
            };
            if let Err(error) = moved {
                // No memory may be freed under the kernel.
                tracing::error!(%error, "an io_uring ended with requests in flight");
                core.slots.leak();
                std::mem::forget(Arc::clone(&core.pool));
                return;
            }
        }
        let submitter = core.ring.submitter();
        for released in [submitter.unregister_files(), submitter.unregister_buffers()] {
            // ENXIO: there were none.
            if let Err(error) = released {
                tracing::debug!(%error, "a ring keeps what it has registered until its end");
            }
        }
    }
}

impl Core {
    fn release_dead_files(&mut self) {
        self.fixed.release_dead(&self.ring.submitter());
    }

    /// Queues a request on `file`. `entry` is given the registered indexes of
    /// the file, or none when the table is full of live files, and of the memory.
    fn submit(
        &mut self,
        file: Option<&File>,
        payload: Payload,
        entry: impl FnOnce(Fixtures, &Payload) -> squeue::Entry,
    ) -> Result<usize, (Payload, Error)> {
        // Registering a file is a system call.
        assert_unlocked("to submit to the ring");
        let submitter = self.ring.submitter();
        let file_index = file.and_then(|f| self.fixed.index(&submitter, f));
        let buffer = match (&payload, &mut self.region) {
            (Payload::Read(buf), Some(region)) if buf.is_lent() => region.index(&submitter, buf),
            _ => payload.registered(),
        };
        let entry = entry(Fixtures { file: file_index, buffer }, &payload);
        let slot = self.slots.insert(payload, file.cloned());
        match self.push(&entry.user_data(slot as u64)) {
            Ok(()) => {
                let queued = self.ring.submission().len();
                if queued * IN_FLIGHT_PER_QUEUED >= self.slots.in_flight() {
                    // Should it fail, so does the next turn, and says so.
                    let _next_turn: Result<()> = self.enter(0);
                }
                Ok(slot)
            }
            Err(error) => Err((self.slots.cancel(slot), error)),
        }
    }
}

/// What a ring knows by indexes of what a request names.
struct Fixtures {
    file: Option<u32>,
    buffer: Option<u16>,
}

/// Builds an entry for a registered file or a plain descriptor.
macro_rules! on_file {
    ($fixed:expr, $file:expr, |$target:ident| $build:expr) => {
        match $fixed {
            Some(index) => {
                let $target = Fixed(index);
                $build
            }
            None => {
                let $target = Fd($file.fd().as_raw_fd());
                $build
            }
        }
    };
}

impl Ring {
    /// Reads that land in the memory of `lender` use it as registered memory
    /// from now on, where that can be: there are `all_bytes` of such memory.
    pub(crate) fn know(&self, lender: Arc<dyn Lender>, all_bytes: usize) {
        let mut core = self.core.borrow_mut();
        if let Some(first) = core.region_first {
            core.region = Region::new(lender, first, all_bytes);
        }
    }

    /// Runs one request to its completion: the kernel's result, and what the
    /// request owned.
    async fn request(
        &self,
        file: Option<&File>,
        payload: Payload,
        entry: impl FnOnce(Fixtures, &Payload) -> squeue::Entry,
    ) -> (Payload, Result<i32>) {
        poll_fn(|cx| self.core.borrow_mut().slots.poll_room(cx)).await;
        let submitted = self.core.borrow_mut().submit(file, payload, entry);
        let slot = match submitted {
            Ok(slot) => slot,
            Err((payload, error)) => return (payload, Err(error)),
        };
        let guard = slots::Abandon::new(&self.core, slot);
        let (payload, result) = poll_fn(|cx| match self.core.borrow_mut().slots.poll(slot, cx) {
            Some(done) => Poll::Ready(done),
            None => Poll::Pending,
        })
        .await;
        guard.disarm();
        (payload, Ok(result))
    }
}

impl Io for Ring {
    async fn read(&self, file: &File, offset: u64, buf: IoBuf) -> (IoBuf, Result<usize>) {
        self.counters.read(buf.len());
        let total = buf.len();
        let mut buf = buf;
        let mut done = 0;
        while done < total {
            let at = offset + done as u64;
            let (payload, result) = self
                .request(Some(file), Payload::Read(buf), |fixed, payload| {
                    let (start, len) = payload.memory(done);
                    on_file!(fixed.file, file, |target| match fixed.buffer {
                        Some(index) =>
                            opcode::ReadFixed::new(target, start, len, index).offset(at).build(),
                        None => opcode::Read::new(target, start, len).offset(at).build(),
                    })
                })
                .await;
            buf = payload.into_read();
            match result.map(retry) {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(0))) => break,
                Ok(Ok(Some(n))) => {
                    done += n;
                    if !done.is_multiple_of(UNIT) {
                        break;
                    }
                }
                Ok(Err(e)) => {
                    return (buf, Err(Error::os_at("read", file.path(), Some(at), e)));
                }
                Err(e) => return (buf, Err(e)),
            }
        }
        (buf, Ok(done))
    }

    async fn write(
        &self,
        file: &File,
        offset: u64,
        buf: WriteBuf,
        harden: Harden,
    ) -> (WriteBuf, Result<()>) {
        let total = buf.bytes().len();
        self.counters.write(total);
        let flags = match harden {
            Harden::Later => 0,
            Harden::Now => libc::RWF_DSYNC,
        };
        let mut buf = buf;
        let mut done = 0;
        while done < total {
            let at = offset + done as u64;
            let (payload, result) = self
                .request(Some(file), Payload::Write(buf), |fixed, payload| {
                    let (start, len) = payload.memory(done);
                    let start = start.cast_const();
                    on_file!(fixed.file, file, |target| match fixed.buffer {
                        Some(index) => opcode::WriteFixed::new(target, start, len, index)
                            .offset(at)
                            .rw_flags(flags)
                            .build(),
                        None => opcode::Write::new(target, start, len)
                            .offset(at)
                            .rw_flags(flags)
                            .build(),
                    })
                })
                .await;
            buf = payload.into_write();
            match result.map(retry) {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(0))) => return (buf, Err(super::no_progress(file, at))),
                Ok(Ok(Some(n))) => done = super::whole_units(done + n),
                Ok(Err(e)) => {
                    return (buf, Err(Error::os_at("write", file.path(), Some(at), e)));
                }
                Err(e) => return (buf, Err(e)),
            }
        }
        (buf, Ok(()))
    }

    async fn sync(&self, file: &File) -> Result<()> {
        self.counters.sync();
        loop {
            let (_, result) = self
                .request(Some(file), Payload::None, |fixed, _| {
                    on_file!(fixed.file, file, |target| {
                        opcode::Fsync::new(target).flags(FsyncFlags::DATASYNC).build()
                    })
                })
                .await;
            match retry(result?) {
                Ok(None) => {}
                Ok(Some(_)) => return Ok(()),
                Err(e) => return Err(Error::os("sync", file.path(), e)),
            }
        }
    }

    async fn punch(&self, file: &File, offset: u64, bytes: u64) -> Result<()> {
        self.counters.metadata();
        loop {
            let (_, result) = self
                .request(Some(file), Payload::None, |fixed, _| {
                    on_file!(fixed.file, file, |target| {
                        opcode::Fallocate::new(target, bytes)
                            .offset(offset)
                            .mode(os::PUNCH.bits() as i32)
                            .build()
                    })
                })
                .await;
            match retry(result?) {
                Ok(None) => {}
                Ok(Some(_)) => return Ok(()),
                Err(e) => {
                    let errno = Errno::from_io_error(&e).unwrap_or(Errno::IO);
                    return Err(os::not_punched(file, offset, errno));
                }
            }
        }
    }

    os::blocking_calls!();

    async fn sleep(&self, nanos: u64) {
        let timespec =
            Timespec::new().sec(nanos / 1_000_000_000).nsec((nanos % 1_000_000_000) as u32);
        let payload = Payload::Timeout(Box::new(timespec));
        let (_, result) = self
            .request(None, payload, |_, payload| opcode::Timeout::new(payload.timespec()).build())
            .await;
        // ETIME is how a timeout succeeds; a ring that failed is reported by
        // the driver's turn.
        drop(result);
    }
}

/// The kernel's answer: a count, or `None` when the request is to be sent
/// again as it was.
fn retry(result: i32) -> std::io::Result<Option<usize>> {
    if result >= 0 {
        return Ok(Some(result as usize));
    }
    match Errno::from_raw_os_error(-result) {
        Errno::INTR | Errno::AGAIN => Ok(None),
        errno => Err(errno.into()),
    }
}
