//! Files that go once nobody reads them any more.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::sync::Mutex;
use crate::runtime::Event;

/// Where the last reader of a table that was taken out of the tree leaves the
/// path of its file, for the owner to remove. One for each owner.
#[derive(Default)]
pub(crate) struct Retired {
    paths: Mutex<Vec<PathBuf>>,
    /// Set when there is a path, and for whatever else its owner looks at.
    pub(crate) work: Event,
}

impl Retired {
    /// Nobody has the file open any more.
    pub(crate) fn push(&self, path: PathBuf) {
        self.paths.lock().push(path);
        self.work.set();
    }

    /// What has come together.
    pub(crate) fn take(&self) -> Vec<PathBuf> {
        std::mem::take(&mut *self.paths.lock())
    }
}

/// Of a table that was taken out of the tree.
pub(super) type Place = std::sync::OnceLock<Arc<Retired>>;
