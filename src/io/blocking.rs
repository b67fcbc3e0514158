//! Positioned `O_DIRECT` I/O of the calling thread.
//!
//! Every future is ready at its first poll, except a sleep on an owner
//! without a ring: there the owner's [`Parking`] driver keeps the timers, so
//! that one sleeping job does not hold up the others.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{IoSlice, IoSliceMut};
use std::path::Path;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use rustix::io::{Errno, ReadWriteFlags};

use super::{Driver, File, Harden, Io, IoBuf, IoCounters, Mapping, OpenMode, Unpark, WriteBuf, os};
use crate::base::error::{Error, Result};
use crate::base::limits::UNIT;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::sync::thread::{self, Thread};
use crate::base::sync::{Mutex, assert_unlocked};

/// The blocking implementation of [`Io`].
#[derive(Clone)]
pub(crate) struct Blocking {
    counters: Arc<IoCounters>,
    timers: Option<Arc<Timers>>,
}

/// Sleeping jobs.
struct Timers {
    state: Mutex<Due>,
    /// When the first of them is due, `u64::MAX` without any: changed under
    /// the lock, read without.
    next_ns: AtomicU64,
}

#[derive(Default)]
struct Due {
    /// Timers made so far: tells apart those due at one time.
    made: u64,
    /// By the time they are due, and their number.
    wakers: BTreeMap<(u64, u64), Waker>,
}

impl Default for Timers {
    fn default() -> Self {
        Self { state: Mutex::default(), next_ns: AtomicU64::new(u64::MAX) }
    }
}

impl Timers {
    fn change<R>(&self, change: impl FnOnce(&mut Due) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state);
        let next_ns = state.wakers.first_key_value().map_or(u64::MAX, |(key, _)| key.0);
        self.next_ns.store(next_ns, Ordering::Relaxed);
        result
    }
}

/// A timer that is set; unset when it is dropped.
struct Timer<'a> {
    timers: &'a Timers,
    key: (u64, u64),
}

impl<'a> Timer<'a> {
    fn set(timers: &'a Timers, due_ns: u64, waker: &Waker) -> Self {
        let key = timers.change(|state| {
            state.made += 1;
            let key = (due_ns, state.made);
            state.wakers.insert(key, waker.clone());
            key
        });
        Self { timers, key }
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let unset = self.timers.change(|state| state.wakers.remove(&self.key));
        // A waker's end may be a task's, so not under the lock.
        drop(unset);
    }
}

impl Blocking {
    /// For threads that wait: a sleep holds up the thread.
    pub(crate) fn new(counters: Arc<IoCounters>) -> Self {
        Self { counters, timers: None }
    }
}

impl Io for Blocking {
    async fn read(&self, file: &File, offset: u64, mut buf: IoBuf) -> (IoBuf, Result<usize>) {
        self.counters.read(buf.len());
        let result = read_all(file, offset, &mut buf);
        (buf, result)
    }

    async fn write(
        &self,
        file: &File,
        offset: u64,
        buf: WriteBuf,
        harden: Harden,
    ) -> (WriteBuf, Result<()>) {
        self.counters.write(buf.bytes().len());
        let result = write_all(file, offset, buf.bytes(), harden);
        (buf, result)
    }

    async fn sync(&self, file: &File) -> Result<()> {
        self.counters.sync();
        os::sync(file)
    }

    async fn punch(&self, file: &File, offset: u64, bytes: u64) -> Result<()> {
        self.counters.metadata();
        os::punch(file, offset, bytes)
    }

    os::blocking_calls!();

    #[expect(clippy::disallowed_methods, reason = "this is the trait's way of waiting")]
    async fn sleep(&self, nanos: u64) {
        let Some(timers) = &self.timers else {
            assert_unlocked("to sleep");
            std::thread::sleep(Duration::from_nanos(nanos));
            return;
        };
        let due_ns = os::now_ns().saturating_add(nanos);
        let mut timer = None;
        poll_fn(|cx| {
            if os::now_ns() >= due_ns {
                return Poll::Ready(());
            }
            timer = Some(Timer::set(timers, due_ns, cx.waker()));
            Poll::Pending
        })
        .await;
    }
}

fn read_all(file: &File, offset: u64, buf: &mut [u8]) -> Result<usize> {
    assert_unlocked("to read a file");
    check_units(offset, buf.len());
    let mut done = 0;
    while done < buf.len() {
        let at = offset + done as u64;
        let slice = IoSliceMut::new(&mut buf[done..]);
        match rustix::io::preadv2(file.fd(), &mut [slice], at, ReadWriteFlags::empty()) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(Error::os_at("read", file.path(), Some(at), errno.into())),
        }
        // Direct I/O cannot go on from the middle of a unit: only the end of
        // the file is there.
        if !done.is_multiple_of(UNIT) {
            break;
        }
    }
    Ok(done)
}

fn write_all(file: &File, offset: u64, bytes: &[u8], harden: Harden) -> Result<()> {
    assert_unlocked("to write a file");
    check_units(offset, bytes.len());
    let flags = match harden {
        Harden::Later => ReadWriteFlags::empty(),
        Harden::Now => ReadWriteFlags::DSYNC,
    };
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + done as u64;
        match rustix::io::pwritev2(file.fd(), &[IoSlice::new(&bytes[done..])], at, flags) {
            Ok(n) if n > 0 => done = super::whole_units(done + n),
            Ok(_) => return Err(super::no_progress(file, at)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(Error::os_at("write", file.path(), Some(at), errno.into())),
        }
    }
    Ok(())
}

fn check_units(offset: u64, len: usize) {
    assert!(
        offset.is_multiple_of(UNIT as u64) && len.is_multiple_of(UNIT),
        "direct I/O of {len} bytes at {offset} is not in whole units"
    );
}

/// The driver of an owner without a ring: it sleeps by parking the thread.
pub(crate) struct Parking {
    timers: Arc<Timers>,
    unpark: Arc<Parked>,
}

struct Parked {
    thread: Thread,
    notified: AtomicBool,
}

impl Parking {
    /// The driver of the calling thread, and the [`Io`] for its jobs.
    pub(crate) fn new(counters: Arc<IoCounters>) -> (Self, Blocking) {
        let timers = Arc::<Timers>::default();
        let io = Blocking { counters, timers: Some(Arc::clone(&timers)) };
        let thread = thread::current();
        let unpark = Arc::new(Parked { thread, notified: AtomicBool::new(false) });
        (Self { timers, unpark }, io)
    }
}

impl Unpark for Parked {
    fn unpark(&self) {
        assert_unlocked("to wake an owner");
        self.notified.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Driver for Parking {
    fn turn(&self, may_sleep: bool, awake: &dyn Fn()) -> Result<()> {
        let now = os::now_ns();
        let due = self.timers.change(|state| {
            let later = state.wakers.split_off(&(now.saturating_add(1), 0));
            std::mem::replace(&mut state.wakers, later)
        });
        let may_sleep = may_sleep && due.is_empty();
        if may_sleep && !self.unpark.notified.swap(false, Ordering::SeqCst) {
            assert_unlocked("to sleep");
            match self.timers.next_ns.load(Ordering::Relaxed) {
                u64::MAX => thread::park(),
                at => thread::park_timeout(Duration::from_nanos(at.saturating_sub(now))),
            }
        }
        awake();
        self.unpark.notified.store(false, Ordering::SeqCst);
        for waker in due.into_values() {
            waker.wake();
        }
        Ok(())
    }

    fn has_work(&self, now_ns: u64) -> bool {
        now_ns >= self.timers.next_ns.load(Ordering::Relaxed)
    }

    fn now_ns(&self) -> u64 {
        os::now_ns()
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        Arc::clone(&self.unpark) as Arc<dyn Unpark>
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    const HOUR_NS: u64 = 3_600_000_000_000;

    #[test]
    fn a_sleep_that_is_polled_often_or_dropped_leaves_nothing_behind() {
        let (driver, io) = Parking::new(Arc::default());
        let mut cx = Context::from_waker(Waker::noop());
        let now_ns = driver.now_ns();
        assert!(!driver.has_work(now_ns + 2 * HOUR_NS));
        {
            let mut sleep = pin!(io.sleep(HOUR_NS));
            for _ in 0..10 {
                assert!(sleep.as_mut().poll(&mut cx).is_pending());
            }
            assert_eq!(driver.timers.state.lock().wakers.len(), 1);
            assert!(!driver.has_work(now_ns));
            assert!(driver.has_work(now_ns + 2 * HOUR_NS));
        }
        assert_eq!(driver.timers.state.lock().wakers.len(), 0);
        assert!(!driver.has_work(now_ns + 2 * HOUR_NS));
    }
}
