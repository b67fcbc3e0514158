//! A client that is a thread: it waits for each of its operations.

use std::sync::Arc;

use crate::failure::Failure;
use crate::inserts::Inserts;
use crate::pacing::Operations;
use crate::script::{Faults, Operation, Script, Task};
use crate::shape::Data;
use crate::target::Handle;
use crate::workload::OpKind;

/// A client at work.
pub struct Client<H: Handle> {
    handle: H,
    script: Script,
    /// The operation prepared or just run.
    op: Operation<H::Bytes>,
}

impl<H: Handle> Client<H> {
    /// A client of the database behind `handle`, which holds `data`.
    #[must_use]
    pub fn new(handle: H, data: Arc<Data>, task: Task) -> Self {
        Self { handle, script: Script::new(data, task), op: Operation::default() }
    }

    /// What it found, where its inserts came from, and the bytes that it put.
    #[must_use]
    pub fn finish(self) -> (Faults, Inserts, u64) {
        self.script.finish()
    }
}

impl<H: Handle> Operations for Client<H> {
    type Error = Failure;

    fn prepare(&mut self) -> Option<OpKind> {
        self.script.prepare(&mut self.op)
    }

    fn execute(&mut self) -> Result<(), Failure> {
        let Self { handle, op, .. } = self;
        match op.kind {
            OpKind::Read => op.got = handle.get(&op.key)?,
            OpKind::Update | OpKind::Insert => handle.put(&op.key, &op.value)?,
            OpKind::Scan => handle.scan(&op.key, op.rows_wanted, &mut op.rows)?,
            OpKind::ReadModifyWrite => {
                op.got = handle.get(&op.key)?;
                handle.put(&op.key, &op.value)?;
            }
            OpKind::Delete => handle.delete(&op.key)?,
            OpKind::DeleteRange => handle.delete_range(&op.key, &op.end)?,
            OpKind::MultiGet => handle.multi_get(&op.keys, &mut op.found)?,
        }
        Ok(())
    }

    fn verify(&mut self) {
        self.script.verify(&mut self.op);
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
