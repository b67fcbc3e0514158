//! Files of the simulated disk that are mapped into memory.
//!
//! The machine does not see stores into a mapping. It compares the memory with
//! what it last saw of the file, when that matters: before a read of the file,
//! when a sync of it is asked for, when it is unmapped, when the process ends, and
//! now and then, as a kernel does that writes back. Pages that differ then count as written just now: completed, visible
//! to everybody, and pending. A power cut keeps or loses each of them whole.
//!
//! While a file is mapped, writing it in another way is refused with a panic:
//! the engine does not do that, so nothing here says which of the two wins.

use std::sync::{Arc, Weak};

use rustix::io::Errno;

use super::Shared;
use super::disk::InodeId;
use super::machine::Machine;
use super::request::{Op, node};
use crate::base::error::{Error, Result};
use crate::io::mapping::{SimMemory, check_length};
use crate::io::{File, Mapping};

/// What a mapping of a simulated file holds. Its end is the mapping's.
pub(crate) struct Mapped {
    shared: Weak<Shared>,
    boot: u64,
    inode: InodeId,
    /// Outlives the machine's interest in it, which ends with the process.
    _memory: Arc<SimMemory>,
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.machine.lock().unmap(self);
        }
    }
}

impl Machine {
    pub(super) fn map(&mut self, file: &File, bytes: usize) -> Result<Mapping> {
        let node = node(file);
        if !node.writable {
            return Err(Error::os("map", file.path(), Errno::ACCESS.into()));
        }
        let content = self.disk.inode(node.inode).current();
        check_length(file, content.len(), bytes)?;
        let mut initial = vec![0; bytes];
        content.read(0, &mut initial);
        let memory = Arc::new(SimMemory::zeroed(bytes));
        memory.write(0, &initial);
        self.mapped.insert(node.inode, Arc::clone(&memory));
        let mapped = Mapped {
            shared: Weak::clone(&self.shared),
            boot: self.boot,
            inode: node.inode,
            _memory: Arc::clone(&memory),
        };
        Ok(Mapping::simulated(file, &memory, mapped))
    }

    fn unmap(&mut self, mapped: &Mapped) {
        if mapped.boot == self.boot {
            self.take_in(mapped.inode);
            self.mapped.remove(&mapped.inode);
        }
    }

    /// Takes note of the stores into a file's mapping, if it is mapped.
    pub(super) fn take_in(&mut self, inode: InodeId) {
        let Some(memory) = self.mapped.get(&inode) else { return };
        for (page, hash) in self.disk.take_in(inode, memory) {
            self.trace.fold(&[5, inode, page, hash]);
        }
    }

    /// The process ends: takes note of all its stores, and lets go of its
    /// memory.
    pub(super) fn unmap_all(&mut self) {
        let inodes: Vec<InodeId> = self.mapped.keys().copied().collect();
        for inode in inodes {
            self.take_in(inode);
        }
        self.mapped.clear();
    }

    /// What a request does to a mapped file that nobody may do, if so.
    pub(super) fn misuse(&self, op: &Op) -> Option<&'static str> {
        let node = node(op.file()?);
        // One of an earlier boot is refused anyway.
        if node.boot != self.boot {
            return None;
        }
        let inode = node.inode;
        let in_flight = |wanted: fn(&Op) -> bool| self.is_in_flight(inode, wanted);
        let is_mapped =
            || self.mapped.contains_key(&inode) || in_flight(|op| matches!(op, Op::Map(..)));
        match op {
            Op::Write { .. } if is_mapped() => Some("is mapped: store into the mapping instead"),
            Op::Map(..) if is_mapped() => Some("is mapped already"),
            Op::Map(..) if in_flight(|op| matches!(op, Op::Write { .. })) => {
                Some("is to be mapped while a write of it is in flight")
            }
            _ => None,
        }
    }
}
