//! What a database must hold: kept by the parent, which outlives every worker.

use std::collections::BTreeMap;

use crate::protocol::{Record, Rows, Step};
use crate::script::{KEYS_PER_CLIENT, Operation, Script, key_bytes};

const IN_PART: &str = "; the operation in flight at the kill is there in part";

/// One client's keys and its operation in flight.
struct Client {
    /// By key index: what was acknowledged last.
    values: Vec<Option<Vec<u8>>>,
    in_flight: Option<Operation>,
    next_number: u64,
}

/// The state that all acknowledged operations lead to, and the operations of
/// which nobody knows yet whether they happened.
pub(crate) struct Oracle {
    clients: Vec<Client>,
}

/// What became of the operations that were in flight at a kill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InFlight {
    pub(crate) written: u64,
    pub(crate) not_written: u64,
    /// The keys hold the same either way.
    pub(crate) without_trace: u64,
}

impl Oracle {
    /// An empty database.
    pub(crate) fn new(clients: u8) -> Self {
        let client =
            || Client { values: vec![None; KEYS_PER_CLIENT], in_flight: None, next_number: 0 };
        Self { clients: (0..clients).map(|_| client()).collect() }
    }

    /// A new worker counts its operations from 0. What was in flight must have
    /// been settled by [`Oracle::check`].
    pub(crate) fn begin_cycle(&mut self) {
        for client in &mut self.clients {
            assert!(client.in_flight.is_none(), "a cycle begins before the last one is checked");
            client.next_number = 0;
        }
    }

    /// Takes one record of the worker. Returns whether it acknowledged a write.
    pub(crate) fn take(&mut self, record: Record, script: &Script) -> Result<bool, String> {
        let number = usize::from(record.client);
        let client = self.clients.get_mut(number).ok_or("a record of no client")?;
        if record.number != client.next_number {
            return Err(format!("client {number} did not do operation {}", client.next_number));
        }
        match (record.step, client.in_flight.take()) {
            (Step::Start, None) => {
                client.in_flight = Some(script.operation(number, record.number));
                Ok(false)
            }
            (Step::Done, Some(operation)) => {
                apply(&mut client.values, &operation);
                client.next_number += 1;
                Ok(!operation.changes().is_empty())
            }
            (step, _) => Err(format!("client {number} said {step:?} out of order")),
        }
    }

    /// Whether the worker died with a write started and not acknowledged.
    pub(crate) fn has_writes_in_flight(&self) -> bool {
        let in_flight = |client: &Client| {
            client.in_flight.as_ref().is_some_and(|operation| !operation.changes().is_empty())
        };
        self.clients.iter().any(in_flight)
    }

    /// Compares a database with what it must hold, key by key, and settles what
    /// was in flight: from here on it must stay as it was found.
    pub(crate) fn check(&mut self, rows: &Rows) -> Result<InFlight, String> {
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            let (first, second) = (pair[0].0.escape_ascii(), pair[1].0.escape_ascii());
            return Err(format!("the scan is out of order: {first} before {second}"));
        }
        let mut found: BTreeMap<&[u8], &[u8]> =
            rows.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        let mut in_flight = InFlight::default();
        for (number, client) in self.clients.iter_mut().enumerate() {
            let values: Vec<Option<Vec<u8>>> = (0..KEYS_PER_CLIENT)
                .map(|key| found.remove(&key_bytes(number, key)[..]).map(<[u8]>::to_vec))
                .collect();
            client.settle(&values, &mut in_flight).map_err(|(key, what)| {
                format!("key {key} of client {number} ({}): {what}", name(number, key))
            })?;
        }
        match found.first_key_value() {
            None => Ok(in_flight),
            Some((key, value)) => Err(format!(
                "key {} was never written, and holds {}",
                key.escape_ascii(),
                describe(Some(value))
            )),
        }
    }
}

impl Client {
    fn settle(
        &mut self,
        found: &[Option<Vec<u8>>],
        in_flight: &mut InFlight,
    ) -> Result<(), (usize, String)> {
        let Some(operation) = self.in_flight.take() else {
            return match difference(&self.values, found) {
                None => Ok(()),
                Some(key) => Err((key, expected(&self.values, found, key))),
            };
        };
        let mut with = self.values.clone();
        apply(&mut with, &operation);
        match (difference(&self.values, found), difference(&with, found)) {
            (None, None) => in_flight.without_trace += u64::from(!operation.changes().is_empty()),
            (None, Some(_)) => in_flight.not_written += 1,
            (Some(_), None) => in_flight.written += 1,
            (Some(half), Some(_)) => {
                let neither = (0..found.len())
                    .find(|key| found[*key] != self.values[*key] && found[*key] != with[*key]);
                return Err(match neither {
                    Some(key) => (key, expected(&self.values, found, key)),
                    None => (half, expected(&self.values, found, half) + IN_PART),
                });
            }
        }
        self.values.clone_from_slice(found);
        Ok(())
    }
}

fn apply(values: &mut [Option<Vec<u8>>], operation: &Operation) {
    for change in operation.changes() {
        values[change.key].clone_from(&change.value);
    }
}

fn difference(expected: &[Option<Vec<u8>>], found: &[Option<Vec<u8>>]) -> Option<usize> {
    expected.iter().zip(found).position(|(expected, found)| expected != found)
}

fn expected(expected: &[Option<Vec<u8>>], found: &[Option<Vec<u8>>], key: usize) -> String {
    let expected = describe(expected[key].as_deref());
    format!("acknowledged was {expected}, found {}", describe(found[key].as_deref()))
}

fn name(client: usize, key: usize) -> String {
    let bytes = key_bytes(client, key);
    format!("{} bytes: {}", bytes.len(), bytes[..bytes.len().min(40)].escape_ascii())
}

/// A value in a few words; its head names the operation that wrote it.
fn describe(value: Option<&[u8]>) -> String {
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
