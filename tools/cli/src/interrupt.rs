//! Ctrl-C, seen by a command between two steps of its work, so that it closes
//! the database before it ends. A second Ctrl-C ends the process at once,
//! which loses nothing that was acknowledged.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGINT;

/// Whether Ctrl-C was pressed, and a descriptor that becomes readable then.
pub(crate) struct Interrupt {
    requested: Arc<AtomicBool>,
    wake: UnixStream,
}

impl Interrupt {
    /// From here on, Ctrl-C no longer ends the process.
    pub(crate) fn install() -> io::Result<Self> {
        let requested = Arc::new(AtomicBool::new(false));
        let (wake, waker) = UnixStream::pair()?;
        // Handlers run in the order of their registration: this one sees what
        // an earlier signal set.
        signal_hook::flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&requested))?;
        signal_hook::flag::register(SIGINT, Arc::clone(&requested))?;
        signal_hook::low_level::pipe::register(SIGINT, waker)?;
        Ok(Self { requested, wake })
    }

    pub(crate) fn requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
