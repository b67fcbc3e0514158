//! What a database must hold: kept by the parent, which outlives every worker.
//!
//! The oracle takes the worker's records in the order in which they came out of
//! the pipe. An operation whose first record comes behind the last one of
//! another began when that one had been acknowledged, whichever client it is
//! of. What follows from that for a database that was killed is the business of
//! `settle`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::durability::{Fault, due};
use crate::protocol::{RECORD_BYTES, Record, Rows, Step};
use crate::script::{KEYS_PER_CLIENT, Operation, Part, Script, key_bytes};
use crate::settle::{Acknowledged, Promises, Settled, Values, Write, settle};

/// One client's keys and what it did to them.
#[derive(Clone)]
pub(crate) struct Client {
    /// What the last check found, by key index.
    pub(crate) values: Values,
    /// The WAL stream of each key.
    pub(crate) streams: Vec<u16>,
    /// The writes since the last check, a range delete as one for each WAL
    /// stream; only those of the last operation may not be acknowledged.
    pub(crate) writes: Vec<Write>,
    in_flight: Option<InFlight>,
    next_number: u64,
}

/// What a client has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InFlight {
    /// The last of its writes.
    Write,
    Flush {
        begun: u64,
    },
    Compact,
}

/// A flush that was acknowledged, by the numbers of the records that say so.
#[derive(Clone, Copy)]
struct Flushed {
    begun: u64,
    done: u64,
}

/// The state that all acknowledged operations lead to, and the operations of
/// which nobody knows yet whether they happened.
#[derive(Clone)]
pub(crate) struct Oracle {
    fault: Fault,
    clients: Vec<Client>,
    /// Records taken in this cycle.
    records: u64,
    flushes: Vec<Flushed>,
    /// How long the worker lived, since the cycle began.
    lived: Duration,
    closed: bool,
    tally: Tally,
}

/// What a worker did beside its clients' operations, since it opened the
/// database, as far as it told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) flushes: u64,
    pub(crate) compactions: u64,
    pub(crate) gets: u64,
    pub(crate) scans: u64,
}

impl Tally {
    fn count(&mut self, step: Step) -> Option<&mut u64> {
        match step {
            Step::Start | Step::Done => None,
            Step::Flushes => Some(&mut self.flushes),
            Step::Compactions => Some(&mut self.compactions),
            Step::Gets => Some(&mut self.gets),
            Step::Scans => Some(&mut self.scans),
        }
    }
}

impl Oracle {
    /// An empty database, to which this happens.
    pub(crate) fn new(clients: u8, fault: Fault) -> Self {
        let client = || Client {
            values: vec![None; KEYS_PER_CLIENT],
            streams: vec![0; KEYS_PER_CLIENT],
            writes: Vec::new(),
            in_flight: None,
            next_number: 0,
        };
        let clients = (0..clients).map(|_| client()).collect();
        Self {
            fault,
            clients,
            records: 0,
            flushes: Vec::new(),
            lived: Duration::ZERO,
            closed: false,
            tally: Tally::default(),
        }
    }

    /// A new worker counts its operations from 0. What was in flight must have
    /// been settled by [`Oracle::check`].
    pub(crate) fn begin_cycle(&mut self, script: &Script) {
        self.records = 0;
        self.flushes.clear();
        self.lived = Duration::ZERO;
        self.closed = false;
        self.tally = Tally::default();
        for (client, streams) in self.clients.iter_mut().zip(script.streams()) {
            let settled = client.in_flight.is_none() && client.writes.is_empty();
            assert!(settled, "a cycle begins before the last one is checked");
            client.next_number = 0;
            client.streams.clone_from(streams);
        }
    }

    /// Takes one record of the worker, which was there at the latest `at`, since
    /// the cycle began. Returns whether it acknowledged a write.
    pub(crate) fn take(
        &mut self,
        record: Record,
        script: &Script,
        at: Duration,
    ) -> Result<bool, String> {
        if let Some(count) = self.tally.count(record.step) {
            *count = record.number;
            return Ok(false);
        }
        let number = usize::from(record.client);
        let client = self.clients.get_mut(number).ok_or("a record of no client")?;
        if record.number != client.next_number {
            return Err(format!("client {number} did not do operation {}", client.next_number));
        }
        let place = self.records;
        self.records += 1;
        match (record.step, client.in_flight.take()) {
            (Step::Start, None) => {
                let operation = script.operation(number, record.number);
                client.in_flight = Some(match operation {
                    Operation::Flush => InFlight::Flush { begun: place },
                    Operation::Compact => InFlight::Compact,
                    _ => InFlight::Write,
                });
                let due = due(script.durability(number, record.number), self.fault);
                let parts = operation.parts(&client.streams);
                client.writes.extend(parts.into_iter().map(|Part { stream, changes }| Write {
                    number: record.number,
                    stream,
                    changes,
                    due,
                    begun: place,
                    acknowledged: None,
                }));
                Ok(false)
            }
            (Step::Done, Some(in_flight)) => {
                if let InFlight::Flush { begun } = in_flight {
                    self.flushes.push(Flushed { begun, done: place });
                }
                let of_operation = |write: &&mut Write| write.number == record.number;
                for write in client.writes.iter_mut().rev().take_while(of_operation) {
                    write.acknowledged = Some(Acknowledged { record: place, at });
                }
                client.next_number += 1;
                Ok(in_flight == InFlight::Write)
            }
            (step, _) => Err(format!("client {number} said {step:?} out of order")),
        }
    }

    /// The worker lived until then at least, since the cycle began.
    pub(crate) fn killed(&mut self, at: Duration) {
        self.lived = at;
    }

    /// Takes all whole records at the beginning of `bytes`, which were there at the
    /// latest `at`. Returns how many writes they acknowledge.
    pub(crate) fn take_all(
        &mut self,
        bytes: &mut Vec<u8>,
        script: &Script,
        at: Duration,
    ) -> Result<u64, String> {
        let mut acknowledged = 0;
        let (whole, rest) = bytes.as_chunks::<RECORD_BYTES>();
        for record in whole {
            let record = Record::from_bytes(record).ok_or("a record that no worker writes")?;
            acknowledged += u64::from(self.take(record, script, at)?);
        }
        *bytes = rest.to_vec();
        Ok(acknowledged)
    }

    /// Records taken in this cycle.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// What was promised when the first so many records of this cycle had been
    /// taken, and the worker had lived for so long since it began. Which of the
    /// others say more than happened until then, nobody knows.
    pub(crate) fn at_cut(&self, records: u64, lived: Duration) -> Self {
        let mut cut = Self { lived, ..self.clone() };
        cut.flushes.retain(|flush| flush.done < records);
        for write in cut.clients.iter_mut().flat_map(|client| &mut client.writes) {
            write.acknowledged = write.acknowledged.filter(|taken| taken.record < records);
        }
        cut
    }

    /// Whether writes must be there only because their time has come.
    pub(crate) fn owes_late_writes(&self) -> bool {
        let promises = Promises { lived: self.lived, ..Promises::default() };
        let mut writes = self.clients.iter().flat_map(|client| &client.writes);
        writes.any(|write| !write.due.is_zero() && write.is_promised(&promises))
    }

    /// The worker closed the database, and ended: all it acknowledged is in the
    /// log, whatever it was to survive.
    pub(crate) fn closed(&mut self) {
        self.closed = true;
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether the worker died with a write started and not acknowledged.
    pub(crate) fn has_writes_in_flight(&self) -> bool {
        self.clients.iter().any(|client| client.in_flight == Some(InFlight::Write))
    }

    /// The same of a flush.
    pub(crate) fn has_flushes_in_flight(&self) -> bool {
        let mut all = self.clients.iter();
        all.any(|client| matches!(client.in_flight, Some(InFlight::Flush { .. })))
    }

    /// The same of a compaction.
    pub(crate) fn has_compactions_in_flight(&self) -> bool {
        self.clients.iter().any(|client| client.in_flight == Some(InFlight::Compact))
    }

    /// Compares a database with what it must hold, key by key, and settles what
    /// was open: from here on it must stay as it was found.
    pub(crate) fn check(&mut self, rows: &Rows) -> Result<Settled, String> {
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            let (first, second) = (pair[0].0.escape_ascii(), pair[1].0.escape_ascii());
            return Err(format!("the scan is out of order: {first} before {second}"));
        }
        let mut rest: BTreeMap<&[u8], &[u8]> =
            rows.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        let found: Vec<Values> = (0..self.clients.len())
            .map(|number| {
                let keys = (0..KEYS_PER_CLIENT).map(|key| key_bytes(number, key));
                keys.map(|key| rest.remove(&key[..]).map(<[u8]>::to_vec)).collect()
            })
            .collect();
        if let Some((key, value)) = rest.first_key_value() {
            return Err(format!(
                "key {} was never written, and holds {}",
                key.escape_ascii(),
                describe(Some(value))
            ));
        }
        let flushed = self.flushes.iter().map(|flush| flush.begun).max().unwrap_or(0);
        let promises = Promises { flushed, lived: self.lived, closed: self.closed };
        let settled = settle(&self.clients, &found, &promises)?;
        for (client, found) in self.clients.iter_mut().zip(found) {
            client.values = found;
            client.writes.clear();
            client.in_flight = None;
        }
        Ok(settled)
    }
}

/// A value in a few words; its head names the operation that wrote it.
pub(crate) fn describe(value: Option<&[u8]>) -> String {
    match value {
        None => "no value".to_owned(),
        Some(value) => {
            let head = value.split(|byte| *byte == b';').next().unwrap_or_default();
            let head = &head[..head.len().min(60)];
            format!("a value of {} bytes ({})", value.len(), head.escape_ascii())
        }
    }
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;
