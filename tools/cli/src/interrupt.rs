//! Ctrl-C and SIGTERM, seen by a command between two steps of its work, so that it closes
//! the database before it ends. A second signal ends the process at once,
//! which loses nothing that was acknowledged.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};

use crate::failure::Failure;

/// Whether a command is to end, and a descriptor that becomes readable then.
pub(crate) struct Interrupt {
    requested: Arc<AtomicBool>,
    /// The signal that says so.
    signal: Arc<AtomicUsize>,
    wake: UnixStream,
}

/// Has a write that would exceed the limit on the size of files (`ulimit -f`)
/// fail: what the system does otherwise is to end the process without a word.
pub(crate) fn survive_file_size_limit() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

impl Interrupt {
    /// From here on, neither Ctrl-C nor SIGTERM ends the process.
    pub(crate) fn install() -> io::Result<Self> {
        let requested = Arc::new(AtomicBool::new(false));
        let signal = Arc::new(AtomicUsize::new(0));
        let (wake, waker) = UnixStream::pair()?;
        for number in [SIGINT, SIGTERM] {
            // Handlers run in the order of their registration: this one sees
            // what an earlier signal set.
            let code = i32::from(exit_code(number as usize));
            signal_hook::flag::register_conditional_shutdown(number, code, Arc::clone(&requested))?;
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)?;
            signal_hook::flag::register(number, Arc::clone(&requested))?;
            signal_hook::low_level::pipe::register(number, waker.try_clone()?)?;
        }
        Ok(Self { requested, signal, wake })
    }

    /// What a command that ends early fails with.
    pub(crate) fn failure(&self) -> Failure {
        Failure::Interrupted(exit_code(self.signal.load(Ordering::Relaxed)))
    }

    pub(crate) fn requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }
}

/// As shells have it: 128 and the number of the signal.
fn exit_code(signal: usize) -> u8 {
    128 + signal as u8
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
