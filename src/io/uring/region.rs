//! Lent memory that a ring has registered, so that the kernel need not look up
//! its pages for each read: on a fast device that is a fifth of what a read
//! costs (2.4 in place of 3.0 us of the core on zram, 32 in flight).
//!
//! Registered pages are taken from the system and locked. So the memory is
//! registered in parts, each when the first read lands in it: what is not used
//! yet stays with the system. And only where the user may lock all of it, for
//! what is locked here others, rings above all, must do without.

use std::sync::Arc;

use io_uring::Submitter;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::base::limits::UNIT;
use crate::io::{IoBuf, Lender};

/// Places in a ring's table of buffers.
pub(super) const PARTS_MAX: usize = 1024;

/// A part takes a fraction of a millisecond to register.
const PART_BYTES_MIN: usize = 2 << 20;

/// The kernel registers no more at a time.
const PART_BYTES_MAX: usize = 1 << 30;

const _: () = assert!(PART_BYTES_MIN.is_multiple_of(UNIT) && PART_BYTES_MAX.is_power_of_two());

/// All memory of one lender.
pub(super) struct Region {
    /// Keeps the memory where it is.
    _lender: Arc<dyn Lender>,
    base: usize,
    bytes: usize,
    part_bytes: usize,
    /// The index of the first part.
    first: u16,
    is_registered: Vec<bool>,
    /// The kernel refused one: none is tried any more.
    is_refused: bool,
}

impl Region {
    /// The lender's memory, for which a ring has kept [`PARTS_MAX`] indexes from
    /// `first` on. `None` where it is not to be locked: with that of the process's
    /// other lenders it comes to `all_bytes`.
    pub(super) fn new(lender: Arc<dyn Lender>, first: u16, all_bytes: usize) -> Option<Self> {
        let (base, bytes) = lender.memory();
        let part_bytes = bytes.div_ceil(PARTS_MAX).next_power_of_two().max(PART_BYTES_MIN);
        if part_bytes > PART_BYTES_MAX || !may_lock(all_bytes) {
            tracing::info!(
                all_bytes,
                "the block cache is not registered with the kernel, which costs a little speed on \
                 fast devices; RLIMIT_MEMLOCK would have to be twice as much"
            );
            return None;
        }
        Some(Self {
            _lender: lender,
            base: base.addr().get(),
            bytes,
            part_bytes,
            first,
            is_registered: vec![false; bytes.div_ceil(part_bytes)],
            is_refused: false,
        })
    }

    /// The index under which the ring knows the memory of a lent buffer.
    pub(super) fn index(&mut self, submitter: &Submitter<'_>, buf: &IoBuf) -> Option<u16> {
        let start = buf.as_ptr().addr().checked_sub(self.base)?;
        let part = start / self.part_bytes;
        if start + buf.len() > self.bytes.min((part + 1) * self.part_bytes) {
            return None;
        }
        if !self.is_registered[part] {
            self.register(submitter, part)?;
        }
        Some(self.first + part as u16)
    }

    #[cold]
    fn register(&mut self, submitter: &Submitter<'_>, part: usize) -> Option<()> {
        if self.is_refused {
            return None;
        }
        let start = part * self.part_bytes;
        let vector = libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(self.base + start),
            iov_len: self.part_bytes.min(self.bytes - start),
        };
        let index = u32::from(self.first) + part as u32;
        // SAFETY: the memory stays mapped as long as the lender lives, who lives
        // as long as the ring; the kernel touches only what requests name.
        let registered = unsafe { submitter.register_buffers_update(index, &[vector], None) };
        if let Err(error) = registered {
            tracing::info!(%error, "no more of the block cache is registered with the kernel");
            self.is_refused = true;
            return None;
        }
        self.is_registered[part] = true;
        Some(())
    }

    /// Which parts are registered.
    #[cfg(test)]
    fn registered(&self) -> &[bool] {
        &self.is_registered
    }
}

/// Whether so much memory may be locked, and as much again is left.
fn may_lock(bytes: usize) -> bool {
    let is_unlimited = |limit: u64| limit / 2 >= bytes as u64;
    getrlimit(Resource::Memlock).current.is_none_or(is_unlimited)
        || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::ptr::NonNull;
    use std::task::{Context, Poll, Waker};

    use aligned_vec::{AVec, ConstAlign};

    use super::*;
    use crate::io::blocking::Blocking;
    use crate::io::uring::{Ring, RingDriver, start};
    use crate::io::{BufferPool, Driver, Harden, Io, OpenMode, WriteBuf};

    struct Lends(AVec<u8, ConstAlign<UNIT>>);

    // SAFETY: the vector is not touched any more, and lives as long as this.
    unsafe impl Lender for Lends {
        fn memory(&self) -> (NonNull<u8>, usize) {
            let base = NonNull::new(self.0.as_ptr().cast_mut());
            (base.expect("it is somewhere"), self.0.len())
        }

        fn take_back(&self, _number: u32) {}
    }

    /// The result of a future that never waits.
    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("blocking I/O does not wait"),
        }
    }

    fn run<T>(driver: &RingDriver, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(output) => return output,
                Poll::Pending => driver.turn(true, &|| {}).expect("a turn"),
            }
        }
    }

    fn read(driver: &RingDriver, ring: &Ring, file: &crate::io::File, lender: &Arc<dyn Lender>) {
        let (base, bytes) = lender.memory();
        for at in [0, 4 * UNIT, bytes - UNIT, bytes / 2 / UNIT * UNIT] {
            // SAFETY: within the memory.
            let start = unsafe { base.add(at) };
            // SAFETY: the unit is within the memory, and there is one buffer at a
            // time.
            let buf = unsafe { IoBuf::lent(start, UNIT, Arc::clone(lender), 0) };
            let (buf, result) = run(driver, ring.read(file, 0, buf));
            assert_eq!(result.ok(), Some(UNIT));
            assert!(buf.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn parts_are_registered_as_reads_land_in_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let io = Blocking::new(Arc::default());
        let path = dir.path().join("file");
        let file = now(io.open(&path, OpenMode::CreateNew)).expect("a file");
        let mut buf = IoBuf::zeroed(UNIT);
        buf.fill(7);
        let written = io.write(&file, 0, WriteBuf::from(buf), Harden::Later);
        now(written).1.expect("a write");

        let pool = BufferPool::new(UNIT, 2);
        let Ok((driver, ring, _)) = start(Arc::default(), pool, &file) else {
            // Rings are forbidden here.
            return;
        };
        let mut memory = AVec::with_capacity(UNIT, 9 << 20);
        memory.resize(9 << 20, 0);
        let lender = Arc::new(Lends(memory)) as Arc<dyn Lender>;
        read(&driver, &ring, &file, &lender);
        ring.know(Arc::clone(&lender), 9 << 20);
        read(&driver, &ring, &file, &lender);
        let core = ring.core.borrow();
        if let Some(region) = &core.region {
            assert_eq!(region.registered(), [true, false, true, false, true]);
        }
    }
}
