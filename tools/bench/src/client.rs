//! One client's operations through its handle: chooses, runs, and checks what
//! came back.

use crate::distribution::RecordChooser;
use crate::failure::Failure;
use crate::inserts::Inserts;
use crate::pacing::Operations;
use crate::shape::Data;
use crate::target::{Handle, Rows};
use crate::workload::{Mix, OpKind};

/// A scan asks for 1 to this many rows, all alike, as in YCSB E.
pub const SCAN_ROWS_MAX: usize = 100;

/// Reads that returned something else than what was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// How many.
    pub count: u64,
    /// The first of them, in words.
    pub first: Option<String>,
}

impl Faults {
    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(what);
    }

    /// Adds those of another client.
    pub fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.take().or(other.first);
    }
}

/// What a client is to do.
#[derive(Debug)]
pub struct Task<'a> {
    /// Its operations.
    pub mix: Mix,
    /// Which records they go to.
    pub chooser: RecordChooser,
    /// Whether the records chosen are there to be read.
    pub expect_present: bool,
    /// Where its inserts come from.
    pub inserts: Inserts<'a>,
    /// Seeds its random numbers.
    pub seed: u64,
}

/// A client at work.
pub struct Client<'a, H: Handle> {
    handle: H,
    data: &'a Data,
    task: Task<'a>,
    rng: fastrand::Rng,
    faults: Faults,
    /// The operation prepared or just run.
    kind: OpKind,
    record: u64,
    key: Vec<u8>,
    value: Vec<u8>,
    rows_wanted: usize,
    /// What it returned.
    got: Option<H::Bytes>,
    rows: Rows,
}

impl<'a, H: Handle> Client<'a, H> {
    /// A client of the database behind `handle`, which holds `data`.
    #[must_use]
    pub fn new(handle: H, data: &'a Data, task: Task<'a>) -> Self {
        Self {
            handle,
            data,
            rng: fastrand::Rng::with_seed(task.seed),
            task,
            faults: Faults::default(),
            kind: OpKind::Read,
            record: 0,
            key: Vec::new(),
            value: Vec::new(),
            rows_wanted: 0,
            got: None,
            rows: Rows::default(),
        }
    }

    /// What it found, and where its inserts came from.
    #[must_use]
    pub fn finish(self) -> (Faults, Inserts<'a>) {
        (self.faults, self.task.inserts)
    }

    fn verify_got(&mut self) {
        let fault = match (self.got.take(), self.task.expect_present) {
            (Some(value), true) => {
                let right = self.data.values.verify(self.record, value.as_ref());
                (!right).then_some("has a wrong value")
            }
            (None, true) => Some("is missing"),
            (Some(_), false) => Some("has a value, and was never written"),
            (None, false) => None,
        };
        if let Some(fault) = fault {
            let (key, record) = (&self.key, self.record);
            self.faults.add(|| format!("key {} (record {record}) {fault}", key.escape_ascii()));
        }
    }

    /// The first row is the record that the scan began with, each further one
    /// has a higher key, and every value is that of its key.
    fn verify_rows(&mut self) {
        let mut fault = None;
        if self.rows.iter().next().is_none_or(|(key, _)| key != self.key) {
            fault = Some("does not begin with that key".to_owned());
        }
        if self.rows.len() > self.rows_wanted {
            fault = Some(format!("returned more than {} rows", self.rows_wanted));
        }
        if !self.rows.iter().is_sorted_by(|(one, _), (next, _)| one < next) {
            fault = Some("is out of order".to_owned());
        }
        for (key, value) in self.rows.iter() {
            let record = self.data.keys.record(key);
            if record.is_none_or(|record| !self.data.values.verify(record, value)) {
                fault = Some(format!("returned a wrong row at {}", key.escape_ascii()));
            }
        }
        self.rows.clear();
        if let Some(fault) = fault {
            let key = &self.key;
            self.faults.add(|| format!("the scan from {} {fault}", key.escape_ascii()));
        }
    }
}

impl<H: Handle> Operations for Client<'_, H> {
    type Error = Failure;

    fn prepare(&mut self) -> Option<OpKind> {
        self.kind = self.task.mix.sample(&mut self.rng);
        let mut version = 0;
        if self.kind == OpKind::Insert {
            self.record = self.task.inserts.take()?;
        } else {
            let acknowledged = self.task.inserts.acknowledged();
            self.record = self.task.chooser.sample(&mut self.rng, acknowledged);
            version = self.rng.u32(1..);
        }
        self.data.keys.write(self.record, &mut self.key);
        if self.kind.puts() {
            self.data.values.write(self.record, version, &mut self.value);
        }
        if self.kind == OpKind::Scan {
            self.rows_wanted = self.rng.usize(1..=SCAN_ROWS_MAX);
        }
        Some(self.kind)
    }

    fn execute(&mut self) -> Result<(), Failure> {
        match self.kind {
            OpKind::Read => self.got = self.handle.get(&self.key)?,
            OpKind::Update | OpKind::Insert => self.handle.put(&self.key, &self.value)?,
            OpKind::Scan => self.handle.scan(&self.key, self.rows_wanted, &mut self.rows)?,
            OpKind::ReadModifyWrite => {
                self.got = self.handle.get(&self.key)?;
                self.handle.put(&self.key, &self.value)?;
            }
        }
        Ok(())
    }

    fn verify(&mut self) {
        match self.kind {
            OpKind::Read | OpKind::ReadModifyWrite => self.verify_got(),
            OpKind::Scan => self.verify_rows(),
            OpKind::Insert => self.task.inserts.acknowledge(self.record),
            OpKind::Update => {}
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
