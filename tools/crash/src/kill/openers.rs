//! A second process that opens the database: it is told that it is locked, and
//! changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Failure;
use super::cycles::{PATIENCE, Run};
use crate::child::Child;
use crate::lock::Lock;

/// The exit code of a worker whose database is locked.
const LOCKED: i32 = 4;

impl Run<'_> {
    /// A process that opens the database while another one has it open.
    pub(super) fn second_opener(&mut self) -> Result<(), Failure> {
        let mut second = Child::start_silent(&self.worker(Some(0)), PATIENCE)?;
        let what = match second.wait_for_close(PATIENCE) {
            Ok(status) if status.code() == Some(LOCKED) => {
                self.counts.second_openers += 1;
                return Ok(());
            }
            Ok(status) => format!("{status}, and not {LOCKED}, for locked"),
            Err(error) => format!("no end: {error}"),
        };
        Err(self.finding(format!("a second process opened the database, and came to {what}")))
    }

    /// The same, after the first one was killed, with its lock in other hands:
    /// so nobody else changes any file meanwhile.
    pub(super) fn opener_of_a_locked_database(&mut self) -> Result<(), Failure> {
        let Some(_lock) = Lock::take(&self.database, PATIENCE)? else {
            let what = "a process that was killed kept the lock for more than a minute";
            return Err(self.finding(what.to_owned()));
        };
        let before = files(&self.database)?;
        self.second_opener()?;
        let after = files(&self.database)?;
        let all = before.keys().chain(after.keys());
        let mut changed = all.filter(|path| before.get(*path) != after.get(*path));
        match changed.next() {
            None => Ok(()),
            Some(path) => Err(self.finding(format!(
                "a second process found the database locked, and changed {}",
                path.display()
            ))),
        }
    }
}

/// What there is of a file or directory.
#[derive(PartialEq, Eq)]
struct Entry {
    inode: u64,
    mode: u32,
    modified: (i64, i64),
    bytes: Vec<u8>,
}

impl Entry {
    fn new(metadata: &Metadata, bytes: Vec<u8>) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { inode: metadata.ino(), mode: metadata.mode(), modified, bytes }
    }
}

/// All that is in a directory, and in those within it.
fn files(dir: &Path) -> io::Result<BTreeMap<PathBuf, Entry>> {
    let mut entries = BTreeMap::from([(dir.to_owned(), Entry::new(&fs::metadata(dir)?, vec![]))]);
    for entry in fs::read_dir(dir)? {
        let (path, metadata) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        if metadata.is_dir() {
            entries.append(&mut files(&path)?);
        } else {
            let bytes = fs::read(&path)?;
            entries.insert(path, Entry::new(&metadata, bytes));
        }
    }
    Ok(entries)
}
