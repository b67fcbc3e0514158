//! What a database takes on the disk.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The unit of `st_blocks`, whatever the file system has.
const BLOCK_BYTES: u64 = 512;

/// Bytes of blocks that are allotted to files.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Usage {
    /// Of tables and value files.
    pub(super) data_bytes: u64,
    /// Of everything, the log included.
    pub(super) all_bytes: u64,
}

impl Usage {
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        let mut usage = Self::default();
        usage.add(dir)?;
        Ok(usage)
    }

    fn add(&mut self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            // Files come and go meanwhile.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let bytes = metadata.blocks() * BLOCK_BYTES;
            self.all_bytes += bytes;
            if metadata.is_dir() {
                self.add(&path)?;
            } else if matches!(path.extension().map(OsStr::as_encoded_bytes), Some(b"sst" | b"val"))
            {
                self.data_bytes += bytes;
            }
        }
        Ok(())
    }
}
