//! The simulated disk: files by number, and the directories that name them.
//!
//! Owns the names as the process sees them, the names that survive, and the
//! changes between the two, in order. A change becomes durable when its
//! directory is synced; a power cut keeps any subset of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::inode::{Inode, Survival};
use super::rng::{Rng, hash};
use crate::io::mapping::SimMemory;

/// Numbers files; never used again.
pub(super) type InodeId = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Dir,
    File(InodeId),
}

type Names = BTreeMap<PathBuf, Entry>;

/// A change of one directory: kept or lost as a whole.
#[derive(Clone)]
enum Change {
    Link(PathBuf, Entry),
    Unlink(PathBuf),
    Rename { from: PathBuf, to: PathBuf, entry: Entry },
}

impl Change {
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename { to: path, .. } => {
                path.parent()
            }
        }
    }

    fn apply(self, names: &mut Names) {
        match self {
            Self::Link(path, entry) => {
                names.insert(path, entry);
            }
            Self::Unlink(path) => {
                names.remove(&path);
            }
            Self::Rename { from, to, entry } => {
                names.remove(&from);
                names.insert(to, entry);
            }
        }
    }
}

/// Everything that outlives a process.
#[derive(Clone, Default)]
pub(super) struct Disk {
    /// Rises with everything that completes; a sync covers what has a lower or
    /// equal number than its submission saw.
    seq: u64,
    current: Names,
    durable: Names,
    pending: Vec<(u64, Change)>,
    inodes: BTreeMap<InodeId, Inode>,
}

impl Disk {
    /// The number of what completed last.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub(super) fn lookup(&self, path: &Path) -> Option<Entry> {
        self.current.get(path).copied()
    }

    pub(super) fn lookup_file(&self, path: &Path) -> Result<InodeId, Errno> {
        match self.lookup(path) {
            Some(Entry::File(id)) => Ok(id),
            Some(Entry::Dir) => Err(Errno::ISDIR),
            None => Err(Errno::NOENT),
        }
    }

    /// The file behind an open file or a name: both keep it alive.
    pub(super) fn inode(&self, id: InodeId) -> &Inode {
        self.inodes.get(&id).expect("a file that is open or named exists")
    }

    pub(super) fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        self.inodes.get_mut(&id).expect("a file that is open or named exists")
    }

    /// Pages of a mapped file that were stored into since it was looked at last
    /// count as written now. Their numbers, and hashes of what they hold.
    pub(super) fn take_in(&mut self, id: InodeId, memory: &SimMemory) -> Vec<(u64, u64)> {
        let changed = self.inode(id).changed_pages(memory);
        changed
            .into_iter()
            .map(|(page, data)| {
                let seq = self.next_seq();
                let hash = hash(&data[..]);
                self.inode_mut(id).store_page(seq, page, data);
                (page, hash)
            })
            .collect()
    }

    /// The files the process sees, in order.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.current
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::File(_)))
            .map(|(path, _)| path.as_path())
    }

    /// Bytes that files take which are named or open.
    pub(super) fn bytes_used(&self, open: &BTreeMap<InodeId, usize>) -> u64 {
        let mut used: BTreeSet<InodeId> = open.keys().copied().collect();
        used.extend(file_ids(&self.current));
        used.into_iter().map(|id| self.inode(id).bytes_used()).sum()
    }

    fn change(&mut self, change: Change) {
        let seq = self.next_seq();
        change.clone().apply(&mut self.current);
        self.pending.push((seq, change));
    }

    /// The roots exist; other directories were made.
    fn check_dir(names: &Names, dir: Option<&Path>) -> Result<(), Errno> {
        match dir {
            None => Ok(()),
            Some(dir) if dir.parent().is_none() => Ok(()),
            Some(dir) => match names.get(dir) {
                Some(Entry::Dir) => Ok(()),
                Some(Entry::File(_)) => Err(Errno::NOTDIR),
                None => Err(Errno::NOENT),
            },
        }
    }

    pub(super) fn create(&mut self, path: &Path) -> Result<InodeId, Errno> {
        Self::check_dir(&self.current, path.parent())?;
        if self.current.contains_key(path) {
            return Err(Errno::EXIST);
        }
        let id = self.next_seq();
        self.inodes.insert(id, Inode::default());
        self.change(Change::Link(path.to_owned(), Entry::File(id)));
        Ok(id)
    }

    pub(super) fn create_dir(&mut self, dir: &Path) -> Result<(), Errno> {
        if Self::check_dir(&self.current, Some(dir)).is_ok() {
            return Ok(());
        }
        Self::check_dir(&self.current, dir.parent())?;
        if self.current.contains_key(dir) {
            return Err(Errno::EXIST);
        }
        self.change(Change::Link(dir.to_owned(), Entry::Dir));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> Result<(), Errno> {
        self.lookup_file(path)?;
        self.change(Change::Unlink(path.to_owned()));
        Ok(())
    }

    /// Within one directory, which is all the engine does: only then is there
    /// one directory to sync.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        if from.parent() != to.parent() {
            return Err(Errno::XDEV);
        }
        let id = self.lookup_file(from)?;
        if self.lookup(to) == Some(Entry::Dir) {
            return Err(Errno::ISDIR);
        }
        if from != to {
            let (from, to) = (from.to_owned(), to.to_owned());
            self.change(Change::Rename { from, to, entry: Entry::File(id) });
        }
        Ok(())
    }

    /// The names in a directory, in order. Names that are not UTF-8 are none
    /// of the engine's.
    pub(super) fn list(&self, dir: &Path) -> Result<Vec<String>, Errno> {
        Self::check_dir(&self.current, Some(dir))?;
        let children = self.current.keys().filter(|path| path.parent() == Some(dir));
        Ok(children.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    /// A sync of the directory completes that was submitted when `stamp` was
    /// the newest sequence number.
    pub(super) fn sync_dir(&mut self, dir: &Path, stamp: u64) -> Result<(), Errno> {
        Self::check_dir(&self.current, Some(dir))?;
        self.settle(Some(dir), stamp);
        Ok(())
    }

    /// Makes the pending changes of a directory durable, up to a number.
    fn settle(&mut self, dir: Option<&Path>, stamp: u64) {
        let (settled, pending) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(seq, change)| *seq <= stamp && change.dir() == dir);
        self.pending = pending;
        for (_, change) in settled {
            change.apply(&mut self.durable);
        }
    }

    /// The power goes: any subset of what is pending becomes durable, the rest
    /// never was.
    pub(super) fn power_cut(&mut self, rng: &mut Rng) {
        let survival = Survival::random(rng);
        for inode in self.inodes.values_mut() {
            inode.power_cut(survival, rng);
        }
        for (_, change) in std::mem::take(&mut self.pending) {
            if survival.keeps(rng) {
                change.apply(&mut self.durable);
            }
        }
        // A lost directory takes its contents along. Parents sort first.
        let mut kept = Names::new();
        for (path, entry) in std::mem::take(&mut self.durable) {
            if Self::check_dir(&kept, path.parent()).is_ok() {
                kept.insert(path, entry);
            }
        }
        self.durable = kept;
        self.current = self.durable.clone();
    }

    /// Frees the files that no name leads to, not even after a power cut, and
    /// nobody has open.
    pub(super) fn collect(&mut self, open: &BTreeMap<InodeId, usize>) {
        let mut alive: BTreeSet<InodeId> = open.keys().copied().collect();
        alive.extend(file_ids(&self.current));
        alive.extend(file_ids(&self.durable));
        for (_, change) in &self.pending {
            match change {
                Change::Link(_, Entry::File(id))
                | Change::Rename { entry: Entry::File(id), .. } => {
                    alive.insert(*id);
                }
                _ => {}
            }
        }
        self.inodes.retain(|id, _| alive.contains(id));
    }

    #[cfg(test)]
    pub(super) fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    /// Damage: the file is gone, durably, and with it all that was pending in
    /// its directory is durable.
    pub(super) fn damage_remove(&mut self, path: &Path) {
        self.settle(path.parent(), u64::MAX);
        self.current.remove(path);
        self.durable.remove(path);
    }
}

fn file_ids(names: &Names) -> impl Iterator<Item = InodeId> {
    names.values().filter_map(|entry| match entry {
        Entry::File(id) => Some(*id),
        Entry::Dir => None,
    })
}
