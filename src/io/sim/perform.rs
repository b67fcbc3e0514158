//! What requests do to the simulated disk when they complete, fail, or are
//! overtaken by a crash.

use std::path::Path;
use std::sync::{Arc, Weak};

use rustix::io::Errno;

use super::Node;
use super::disk::{Entry, InodeId};
use super::faults::{Damage, FaultKind, Target};
use super::inode::{Reach, SECTOR, Written};
use super::machine::Machine;
use super::request::{Change, Delivery, Op, Reply, Request, node};
use crate::base::error::Error;
use crate::base::planted::{Bug, planted};
use crate::io::{File, Handle, Harden, OpenMode};

impl Machine {
    /// What happens to a request that is due: an answer, or another round.
    pub(super) fn attempt(
        &mut self,
        mut request: Request,
        fault: Option<FaultKind>,
    ) -> Option<Delivery> {
        request.first = false;
        match fault {
            None => self.perform(request, false),
            Some(FaultKind::Short) => self.perform(request, true),
            Some(FaultKind::Again) => {
                request.refusals += 1;
                self.queue_again(request);
                None
            }
            Some(FaultKind::Io) => {
                self.leave_behind_failure(&request);
                Some(fail(request.op, Errno::IO))
            }
            Some(FaultKind::NoSpace) => Some(fail(request.op, Errno::NOSPC)),
            Some(FaultKind::SyncNoSpace) => {
                self.leave_behind_failure(&request);
                Some(fail(request.op, Errno::NOSPC))
            }
        }
    }

    pub(super) fn target(&self, op: &Op) -> Target {
        let create_if_missing = |path: &Path| match self.disk.lookup(path) {
            None => Target::Create,
            Some(_) => Target::Look,
        };
        match op {
            Op::Read { .. } => Target::Read,
            Op::Write { file, offset, data, .. } => {
                let len = self.disk.inode(node(file).inode).current().len();
                Target::Write { extends: offset + data.len() as u64 > len }
            }
            Op::Change(Change::Sync(_), _) => Target::Sync,
            Op::Change(Change::SyncDir(_), _) => Target::SyncDir,
            Op::Change(Change::CreateDir(path), _) | Op::TryLock(path, true, _) => {
                create_if_missing(path)
            }
            Op::Change(..) => Target::Change,
            Op::Open(_, OpenMode::CreateNew, _) | Op::Map(..) => Target::Create,
            Op::Open(..) | Op::TryLock(..) | Op::Len(..) | Op::List(..) => Target::Look,
        }
    }

    /// Does what is asked; a transfer may need another round.
    fn perform(&mut self, mut request: Request, short: bool) -> Option<Delivery> {
        let finished = match &mut request.op {
            Op::Read { file, offset, buf, done, .. } => {
                let piece = self.piece(buf.len() - *done, short);
                let at = *offset + *done as u64;
                self.take_in(node(file).inode);
                if self.faults.draw_damage(&mut self.rng, Damage::Rot, file.path()) {
                    let (offset, bit) =
                        (at + self.rng.index(piece.max(1)) as u64, self.rng.index(8));
                    self.disk.inode_mut(node(file).inode).rot(offset, 1 << bit);
                }
                let inode = self.disk.inode(node(file).inode);
                let read = inode.current().read(at, &mut buf[*done..*done + piece]);
                *done += read;
                // Only the end of the file keeps a read from its piece.
                Ok(read < piece || *done == buf.len())
            }
            Op::Write { file, offset, data, done, harden, .. } => {
                let piece = self.piece(data.len() - *done, short);
                let at = *offset + *done as u64;
                let bytes = match piece == data.len() {
                    true => Arc::clone(data),
                    false => data[*done..*done + piece].into(),
                };
                *done += piece;
                let finished = *done == data.len() || planted(Bug::ShortWriteIgnored);
                self.write(file, at, bytes, *harden).map(|()| finished)
            }
            _ => return Some(self.perform_metadata(request.op, request.stamp)),
        };
        match finished {
            Err(errno) => Some(fail(request.op, errno)),
            Ok(true) => Some(succeed(request.op)),
            Ok(false) => {
                self.queue_again(request);
                None
            }
        }
    }

    /// How many of `len` bytes are moved at once.
    fn piece(&mut self, len: usize, short: bool) -> usize {
        if short && len > SECTOR {
            (1 + self.rng.index(len.div_ceil(SECTOR) - 1)) * SECTOR
        } else {
            len
        }
    }

    fn write(
        &mut self,
        file: &File,
        offset: u64,
        data: Arc<[u8]>,
        harden: Harden,
    ) -> Result<(), Errno> {
        let node = node(file);
        if !node.writable {
            return Err(Errno::BADF);
        }
        let more = self.disk.inode(node.inode).bytes_needed(offset, data.len());
        if more > 0 {
            self.check_space(more)?;
        }
        let mut draw = |damage| self.faults.draw_damage(&mut self.rng, damage, file.path());
        let is_misdirected = draw(Damage::MisdirectedWrite);
        if !is_misdirected && !draw(Damage::LostWrite) {
            self.write_at(node.inode, offset, data, harden);
            return Ok(());
        }
        // The file gets longer by it all the same.
        let mut old = vec![0; data.len()];
        self.disk.inode(node.inode).current().read(offset, &mut old);
        self.write_at(node.inode, offset, old.into(), harden);
        let sectors = self.disk.inode(node.inode).current().len() as usize / SECTOR;
        let room = sectors.saturating_sub(data.len().div_ceil(SECTOR));
        if is_misdirected && room > 0 {
            let other = (self.rng.index(room) * SECTOR) as u64;
            self.write_at(node.inode, other, data, harden);
        }
        Ok(())
    }

    fn write_at(&mut self, inode: InodeId, offset: u64, data: Arc<[u8]>, harden: Harden) {
        let seq = self.disk.next_seq();
        let write = Written { seq, offset, data, reach: Reach::All };
        let inode = self.disk.inode_mut(inode);
        match harden {
            Harden::Later => inode.write(write),
            Harden::Now => inode.write_through(&write),
        }
    }

    fn check_space(&self, more: u64) -> Result<(), Errno> {
        match self.faults.disk_bytes_max() {
            Some(max) if self.disk.bytes_used(&self.open) + more > max => Err(Errno::NOSPC),
            _ => Ok(()),
        }
    }

    fn perform_metadata(&mut self, op: Op, stamp: u64) -> Delivery {
        let (what, path, _) = op.describe();
        let path = path.to_owned();
        let error = |errno: Errno| Error::os(what, &path, errno.into());
        match op {
            Op::Change(change, reply) => {
                let result = self.change(&change, stamp).map_err(error);
                deliver(reply, result, change)
            }
            Op::Open(path, mode, reply) => {
                let result = self.open(&path, mode).map_err(error);
                deliver(reply, result, ())
            }
            Op::TryLock(path, create, reply) => {
                let result = self.try_lock(&path, create).map_err(error);
                deliver(reply, result, ())
            }
            Op::Len(file, reply) => {
                let len = self.disk.inode(node(&file).inode).current().len();
                deliver(reply, Ok(len), file)
            }
            Op::Map(file, bytes, reply) => {
                let result = self.map(&file, bytes);
                deliver(reply, result, file)
            }
            Op::List(dir, reply) => {
                let mut result = self.disk.list(&dir).map_err(error);
                if let Ok(names) = &mut result {
                    self.rng.shuffle(names);
                }
                deliver(reply, result, ())
            }
            Op::Read { .. } | Op::Write { .. } => unreachable!("transfers are not metadata"),
        }
    }

    fn change(&mut self, change: &Change, stamp: u64) -> Result<(), Errno> {
        match change {
            Change::Sync(file) => {
                self.disk.inode_mut(node(file).inode).sync(stamp);
                return Ok(());
            }
            Change::Punch(file, offset, bytes) => {
                let node = node(file);
                if !node.writable {
                    return Err(Errno::BADF);
                }
                let seq = self.disk.next_seq();
                self.disk.inode_mut(node.inode).punch(seq, *offset, *bytes);
                return Ok(());
            }
            Change::Cut(file, bytes) => {
                let node = node(file);
                if !node.writable {
                    return Err(Errno::INVAL);
                }
                let seq = self.disk.next_seq();
                self.disk.inode_mut(node.inode).cut(seq, *bytes);
                return Ok(());
            }
            Change::CreateDir(dir) => {
                if self.disk.lookup(dir).is_none() {
                    self.check_space(1)?;
                }
                self.disk.create_dir(dir)?;
            }
            Change::Remove(path) => self.disk.remove(path)?,
            Change::Rename(from, to) => self.disk.rename(from, to)?,
            Change::SyncDir(dir) => self.disk.sync_dir(dir, stamp)?,
        }
        self.disk.collect(&self.open);
        Ok(())
    }

    fn create(&mut self, path: &Path) -> Result<InodeId, Errno> {
        self.check_space(1)?;
        self.disk.create(path)
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> Result<File, Errno> {
        let inode = match mode {
            OpenMode::CreateNew => self.create(path)?,
            // No file of this disk has two names.
            OpenMode::Read | OpenMode::ReadWrite | OpenMode::Reuse => {
                self.disk.lookup_file(path)?
            }
        };
        Ok(self.opened(path, inode, mode != OpenMode::Read, None))
    }

    fn try_lock(&mut self, path: &Path, create: bool) -> Result<Option<File>, Errno> {
        let inode = match self.disk.lookup(path) {
            None if !create => return Err(Errno::NOENT),
            None => self.create(path)?,
            Some(Entry::File(inode)) => inode,
            Some(Entry::Dir) => return Err(Errno::ISDIR),
        };
        if self.locks.contains_key(&inode) {
            return Ok(None);
        }
        let holder = self.next_id();
        self.locks.insert(inode, holder);
        Ok(Some(self.opened(path, inode, true, Some(holder))))
    }

    fn opened(&mut self, path: &Path, inode: InodeId, writable: bool, lock: Option<u64>) -> File {
        *self.open.entry(inode).or_default() += 1;
        let shared = Weak::clone(&self.shared);
        File::new(path, Handle::Sim(Node { shared, boot: self.boot, inode, writable, lock }))
    }

    /// A request fails in the device: a write may have reached it in part, and
    /// a sync decided the fate of what it covered.
    fn leave_behind_failure(&mut self, request: &Request) {
        match &request.op {
            Op::Write { .. } => self.leave_behind(&request.op),
            Op::Change(Change::Sync(file), _) => {
                let inode = self.disk.inode_mut(node(file).inode);
                inode.fail_sync(request.stamp, &mut self.rng);
            }
            _ => {}
        }
    }

    /// What a request that does not complete may have done anyway: all of it,
    /// a part, or nothing.
    pub(super) fn leave_behind(&mut self, op: &Op) {
        match op {
            Op::Write { file, offset, data, done, .. } if node(file).writable => {
                let reach = Reach::random(&mut self.rng, data.len() - done);
                let (seq, offset) = (self.disk.next_seq(), offset + *done as u64);
                let write = Written { seq, offset, data: data[*done..].into(), reach };
                self.disk.inode_mut(node(file).inode).write(write);
            }
            // Whether it fails does not matter any more: nobody is told.
            Op::Change(
                change @ (Change::CreateDir(_)
                | Change::Remove(_)
                | Change::Rename(..)
                | Change::Punch(..)
                | Change::Cut(..)),
                _,
            ) if self.rng.flip() => {
                let _unknown: Result<(), Errno> = self.change(change, 0);
            }
            Op::Open(path, OpenMode::CreateNew, _) if self.rng.flip() => {
                let _unknown: Result<InodeId, Errno> = self.create(path);
            }
            _ => {}
        }
    }
}

/// An answer on its way; what the request owned is dropped before it.
fn deliver<T: Send + 'static>(reply: Reply<T>, value: T, owned: impl Send + 'static) -> Delivery {
    Box::new(move || {
        drop(owned);
        reply.send(value);
    })
}

fn fail(op: Op, errno: Errno) -> Delivery {
    let error = op.error(errno);
    Box::new(move || op.fail(error))
}

/// The answer to a transfer that is through.
fn succeed(op: Op) -> Delivery {
    match op {
        Op::Read { file, buf, done, reply, .. } => deliver(reply, (buf, Ok(done)), file),
        Op::Write { file, buf, reply, .. } => deliver(reply, (buf, Ok(())), file),
        _ => unreachable!("only transfers get here"),
    }
}
