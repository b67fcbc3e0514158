//! What one client does: which operation comes next, and whether what came back
//! is right. How operations are run is the business of the kinds of clients.

use std::fmt;
use std::sync::Arc;

use crate::distribution::RecordChooser;
use crate::inserts::Inserts;
use crate::shape::Data;
use crate::target::Rows;
use crate::trace::{self, Part};
use crate::workload::{Mix, OpKind};

/// Draws after which an owner counts as one that none of the keys belongs to.
const DRAWS_MAX: usize = 1 << 20;

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

/// Whether the records that are chosen are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nobody deletes any.
    Always,
    /// They may have been deleted.
    Maybe,
    /// Nobody ever put them.
    Never,
}

/// What a client is to do.
#[derive(Debug)]
pub struct Task {
    /// Its operations.
    pub mix: Mix,
    /// Which records they go to.
    pub chooser: RecordChooser,
    /// Whether the records chosen are there to be read.
    pub presence: Presence,
    /// Where its inserts come from.
    pub inserts: Inserts,
    /// Seeds its random numbers.
    pub seed: u64,
    /// For a client beside an owner's data: the keys that it keeps to.
    pub own: Option<OwnKeys>,
    /// What is to be done again; without, operations are drawn.
    pub trace: Option<Part>,
    /// For scans, where nobody deletes: the last keys of the load, in their order, as many as
    /// a scan may return rows. Any other scan has as many rows as it asks for.
    pub last_keys: Arc<[Vec<u8>]>,
}

/// The keys that belong to one owner.
///
/// A client that keeps to them draws from the distribution of all keys until it
/// draws one of its owner's. So the keys of one owner are as popular, compared
/// with each other, as they are for clients of another kind. How much each
/// *owner* gets is not drawn: it follows from how many clients it has and how
/// fast they are. With uniform keys that comes to the same (the hash spreads
/// them evenly); with zipfian ones an owner of very popular records gets less of
/// the operations than its records would have.
#[derive(Clone)]
pub struct OwnKeys {
    owner: usize,
    belongs: Arc<dyn Fn(&[u8]) -> bool + Send + Sync>,
}

impl OwnKeys {
    /// The keys of `owner`: those that `belongs` accepts.
    #[must_use]
    pub fn new(owner: usize, belongs: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self { owner, belongs: Arc::new(belongs) }
    }

    /// The owner's number.
    #[must_use]
    pub fn owner(&self) -> usize {
        self.owner
    }

    /// Whether `key` is among them.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        (self.belongs)(key)
    }
}

impl fmt::Debug for OwnKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnKeys({})", self.owner)
    }
}

/// One operation: what is asked and what came back. Its buffers are used again
/// for the next.
#[derive(Debug)]
pub struct Operation<B> {
    /// What is done.
    pub kind: OpKind,
    record: u64,
    /// The key that it is done to; of several, the first.
    pub key: Vec<u8>,
    /// The end of a range that is deleted; not in it.
    pub end: Vec<u8>,
    /// Keys that are read at once: so many as are wanted, and buffers behind them.
    pub keys: Vec<Vec<u8>>,
    /// Their records.
    records: Vec<u64>,
    /// The value of a put.
    pub value: Vec<u8>,
    /// The rows that a scan may return.
    pub rows_wanted: usize,
    /// What a get returned.
    pub got: Option<B>,
    /// What gets at once returned.
    pub found: Vec<Option<B>>,
    /// What a scan returned.
    pub rows: Rows,
}

impl<B> Default for Operation<B> {
    fn default() -> Self {
        Self {
            kind: OpKind::Read,
            record: 0,
            key: Vec::new(),
            end: Vec::new(),
            keys: Vec::new(),
            records: Vec::new(),
            value: Vec::new(),
            rows_wanted: 0,
            got: None,
            found: Vec::new(),
            rows: Rows::default(),
        }
    }
}

/// A client's operations, one after the other.
pub struct Script {
    data: Arc<Data>,
    task: Task,
    rng: fastrand::Rng,
    faults: Faults,
    put_bytes: u64,
}

impl Script {
    /// The operations of `task` on a database that holds `data`.
    #[must_use]
    pub fn new(data: Arc<Data>, task: Task) -> Self {
        let rng = fastrand::Rng::with_seed(task.seed);
        Self { data, task, rng, faults: Faults::default(), put_bytes: 0 }
    }

    /// What it is made of.
    #[must_use]
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// What was found, where the inserts came from, and bytes of keys and values that were put.
    #[must_use]
    pub fn finish(self) -> (Faults, Inserts, u64) {
        (self.faults, self.task.inserts, self.put_bytes)
    }

    /// Whether the distribution has keys that this client keeps to. Without,
    /// [`Script::prepare`] would look for one for ever.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        let mut chooser = self.task.chooser;
        let mut rng = self.rng.clone();
        let acknowledged = self.task.inserts.acknowledged();
        let mut key = Vec::new();
        let is_traced = self.task.trace.is_some();
        let only_inserts = is_traced || self.task.mix.kinds().all(|kind| kind == OpKind::Insert);
        only_inserts
            || (0..DRAWS_MAX).any(|_| {
                self.data.keys.write(chooser.sample(&mut rng, acknowledged), &mut key);
                self.keeps_to(&key)
            })
    }

    /// Chooses the next operation, and makes its key and value. `None` when
    /// there is none left.
    pub fn prepare<B>(&mut self, op: &mut Operation<B>) -> Option<OpKind> {
        if self.task.trace.is_some() {
            return self.take_traced(op);
        }
        op.kind = self.task.mix.sample(&mut self.rng);
        let mut version = 0;
        match op.kind {
            OpKind::Insert => self.draw_insert(op)?,
            OpKind::MultiGet => self.draw_several(op),
            _ => {
                self.draw_record(op);
                version = self.rng.u32(1..);
            }
        }
        if op.kind.puts() {
            self.data.values.write(op.record, version, &mut op.value);
        }
        if op.kind == OpKind::Scan {
            op.rows_wanted = self.rng.usize(1..=self.task.mix.scan_rows_max());
        }
        if op.kind == OpKind::DeleteRange {
            let rows = self.rng.u64(1..=self.task.mix.delete_range_rows());
            self.data.keys.write_after(&op.key, rows, self.data.shape.records, &mut op.end);
        }
        Some(op.kind)
    }

    fn take_traced<B>(&mut self, op: &mut Operation<B>) -> Option<OpKind> {
        let traced = self.task.trace.as_mut()?.take()?;
        op.kind = traced.kind;
        op.key.clear();
        op.key.extend_from_slice(traced.key);
        op.rows_wanted = traced.size;
        let size = traced.size;
        op.record = self.record_of(&op.key);
        if op.kind.puts() {
            let version = self.rng.u32(1..);
            self.data.values.write_sized(op.record, version, size, &mut op.value);
        }
        Some(op.kind)
    }

    /// What values of a key follow from: its record, or a number of another key.
    fn record_of(&self, key: &[u8]) -> u64 {
        self.data.keys.record(key).unwrap_or_else(|| trace::hash(key))
    }

    fn draw_insert<B>(&mut self, op: &mut Operation<B>) -> Option<()> {
        loop {
            op.record = self.task.inserts.take()?;
            self.data.keys.write(op.record, &mut op.key);
            if self.keeps_to(&op.key) {
                return Some(());
            }
            // Another owner's clients insert it.
            self.task.inserts.acknowledge(op.record);
        }
    }

    fn draw_record<B>(&mut self, op: &mut Operation<B>) {
        let acknowledged = self.task.inserts.acknowledged();
        loop {
            op.record = self.task.chooser.sample(&mut self.rng, acknowledged);
            self.data.keys.write(op.record, &mut op.key);
            if self.keeps_to(&op.key) {
                return;
            }
        }
    }

    fn draw_several<B>(&mut self, op: &mut Operation<B>) {
        let count = self.task.mix.multi_get_keys();
        op.keys.resize(count, Vec::new());
        op.records.clear();
        for number in 0..count {
            std::mem::swap(&mut op.key, &mut op.keys[number]);
            self.draw_record(op);
            op.records.push(op.record);
            std::mem::swap(&mut op.key, &mut op.keys[number]);
        }
    }

    fn keeps_to(&self, key: &[u8]) -> bool {
        self.task.own.as_ref().is_none_or(|own| own.contains(key))
    }

    /// Looks at what came back from an operation that did not fail.
    pub fn verify<B: AsRef<[u8]>>(&mut self, op: &mut Operation<B>) {
        if op.kind.puts() {
            self.put_bytes += (op.key.len() + op.value.len()) as u64;
        }
        match op.kind {
            OpKind::Read | OpKind::ReadModifyWrite => self.verify_got(op),
            OpKind::Scan => self.verify_rows(op),
            OpKind::MultiGet => self.verify_several(op),
            OpKind::Insert => self.task.inserts.acknowledge(op.record),
            OpKind::Update | OpKind::Delete | OpKind::DeleteRange => {}
        }
    }

    fn verify_got<B: AsRef<[u8]>>(&mut self, op: &mut Operation<B>) {
        let value = op.got.take();
        self.verify_value(&op.key, op.record, value);
    }

    fn verify_several<B: AsRef<[u8]>>(&mut self, op: &mut Operation<B>) {
        if op.found.len() != op.records.len() {
            let (found, wanted) = (op.found.len(), op.records.len());
            self.faults.add(|| format!("{found} values came back for {wanted} keys"));
        }
        let several = op.found.drain(..).zip(&op.keys).zip(&op.records);
        for ((value, key), record) in several {
            self.verify_value(key, *record, value);
        }
    }

    /// Where a trace was replayed, values have any length.
    fn is_right(&self, record: u64, value: &[u8]) -> bool {
        let values = &self.data.values;
        match self.task.trace {
            Some(_) => values.verify_sized(record, value),
            None => values.verify(record, value),
        }
    }

    fn verify_value<B: AsRef<[u8]>>(&mut self, key: &[u8], record: u64, value: Option<B>) {
        let fault = match (value, self.task.presence) {
            (Some(_), Presence::Never) => Some("has a value, and was never written"),
            (Some(value), _) => {
                let right = self.is_right(record, value.as_ref());
                (!right).then_some("has a wrong value")
            }
            (None, Presence::Always) => Some("is missing"),
            (None, _) => None,
        };
        if let Some(fault) = fault {
            self.faults.add(|| format!("key {} (record {record}) {fault}", key.escape_ascii()));
        }
    }

    /// The first row is the record that the scan began with, if it is there; each further one
    /// has a higher key, every value is that of its key, and rows are fewer than asked for only at
    /// the end of all.
    fn verify_rows<B>(&mut self, op: &mut Operation<B>) {
        let mut fault = None;
        let is_there = self.task.presence == Presence::Always;
        if is_there && op.rows.iter().next().is_none_or(|(key, _)| key != op.key) {
            fault = Some("does not begin with that key".to_owned());
        }
        if op.rows.len() > op.rows_wanted {
            fault = Some(format!("returned more than {} rows", op.rows_wanted));
        }
        if is_there && op.rows.len() < op.rows_wanted {
            let before = self.task.last_keys.partition_point(|key| *key < op.key);
            let least = op.rows_wanted.min(self.task.last_keys.len() - before);
            if op.rows.len() < least {
                fault = Some(format!("returned {} rows of {least}", op.rows.len()));
            }
        }
        if op.rows.iter().next().is_some_and(|(key, _)| key < &op.key[..]) {
            fault = Some("begins before that key".to_owned());
        }
        if !op.rows.iter().is_sorted_by(|(one, _), (next, _)| one < next) {
            fault = Some("is out of order".to_owned());
        }
        for (key, value) in op.rows.iter() {
            let known = self.data.keys.record(key);
            let any = self.task.trace.is_some().then(|| trace::hash(key));
            if known.or(any).is_none_or(|record| !self.is_right(record, value)) {
                fault = Some(format!("returned a wrong row at {}", key.escape_ascii()));
            }
        }
        op.rows.clear();
        if let Some(fault) = fault {
            let key = &op.key;
            self.faults.add(|| format!("the scan from {} {fault}", key.escape_ascii()));
        }
    }
}
