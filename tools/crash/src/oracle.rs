//! What a database must hold: kept by the parent, which outlives every worker.
//!
//! The oracle takes the worker's records in the order in which they came out of
//! the pipe. An operation whose first record comes behind the last one of
//! another began when that one had been acknowledged, whichever client it is
//! of. What follows from that for a database that was killed is the business of
//! `settle`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::durability::due;
use crate::protocol::{Record, Rows, Step};
use crate::script::{KEYS_PER_CLIENT, Operation, Part, Script, key_bytes};
use crate::settle::{Acknowledged, Promises, Settled, Values, Write, settle};

/// One client's keys and what it did to them.
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

/// The state that all acknowledged operations lead to, and the operations of
/// which nobody knows yet whether they happened.
pub(crate) struct Oracle {
    clients: Vec<Client>,
    /// Records taken in this cycle.
    records: u64,
    promises: Promises,
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
    /// An empty database.
    pub(crate) fn new(clients: u8) -> Self {
        let client = || Client {
            values: vec![None; KEYS_PER_CLIENT],
            streams: vec![0; KEYS_PER_CLIENT],
            writes: Vec::new(),
            in_flight: None,
            next_number: 0,
        };
        let clients = (0..clients).map(|_| client()).collect();
        Self { clients, records: 0, promises: Promises::default(), tally: Tally::default() }
    }

    /// A new worker counts its operations from 0. What was in flight must have
    /// been settled by [`Oracle::check`].
    pub(crate) fn begin_cycle(&mut self, script: &Script) {
        self.records = 0;
        self.promises = Promises::default();
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
                let due = due(script.durability(number, record.number));
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
                    self.promises.flushed = self.promises.flushed.max(begun);
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
        self.promises.lived = at;
    }

    /// The worker closed the database, and ended: all it acknowledged is in the
    /// log, whatever it was to survive.
    pub(crate) fn closed(&mut self) {
        self.promises.closed = true;
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
        let settled = settle(&self.clients, &found, &self.promises)?;
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
