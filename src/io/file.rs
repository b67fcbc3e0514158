//! An open file, shared by everybody who reads or writes it.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use crate::base::sync::assert_unlocked;

/// An open file. Clones share it; it is closed with the last of them.
#[derive(Clone)]
pub(crate) struct File(Arc<Inner>);

struct Inner {
    path: PathBuf,
    handle: Handle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        assert_unlocked("to close a file");
    }
}

/// What stands behind a [`File`].
pub(crate) enum Handle {
    /// A descriptor of the operating system.
    Os(OwnedFd),
    /// A file of the simulated disk.
    #[cfg(feature = "sim")]
    Sim(super::sim::Node),
}

impl File {
    pub(crate) fn new(path: &Path, handle: Handle) -> Self {
        Self(Arc::new(Inner { path: path.to_owned(), handle }))
    }

    /// The path it was opened by, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    #[cfg(feature = "sim")]
    pub(crate) fn handle(&self) -> &Handle {
        &self.0.handle
    }

    /// The descriptor of a file of the operating system.
    ///
    /// # Panics
    /// When the file is one of the simulator's: each backend opens its own.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match &self.0.handle {
            Handle::Os(fd) => fd.as_fd(),
            #[cfg(feature = "sim")]
            Handle::Sim(_) => panic!("{} is a simulated file", self.path().display()),
        }
    }
}

impl File {
    /// Tells this open file from every other one that is open, or still has a
    /// [`WeakFile`].
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    pub(crate) fn downgrade(&self) -> WeakFile {
        WeakFile(Arc::downgrade(&self.0))
    }
}

/// Remembers a file without keeping it open.
pub(crate) struct WeakFile(Weak<Inner>);

impl WeakFile {
    /// Whether somebody still has it open.
    pub(crate) fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({})", self.path().display())
    }
}
