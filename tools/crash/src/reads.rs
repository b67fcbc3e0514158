//! What a read may find while clients write: judged in the worker, by the
//! history of each client's keys.
//!
//! A read sees all that was acknowledged before it began, and nothing that
//! began after it; and as one client's operations follow each other, what a
//! scan finds of a client's keys is what some number of them left, or, if one
//! was under way, its part in each WAL stream wholly or not at all.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::oracle::describe;
use crate::script::{KEYS_PER_CLIENT, Part, Script, key_index};
use crate::settle::{Values, name};

/// What keys of a client hold after its first operations.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) values: Values,
    /// How many operations: all of them were acknowledged.
    pub(crate) done: u64,
}

impl State {
    fn apply(&mut self, parts: Vec<Part>) {
        for change in parts.into_iter().flat_map(|part| part.changes) {
            self.values[change.key] = change.value;
        }
        self.done += 1;
    }
}

/// One client's operations as they go.
pub(crate) struct History {
    state: Mutex<State>,
    /// How many operations began.
    begun: AtomicU64,
}

impl History {
    /// Of a client that has done nothing.
    pub(crate) fn new(values: Values) -> Self {
        Self { state: Mutex::new(State { values, done: 0 }), begun: AtomicU64::new(0) }
    }

    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// The operation that began was acknowledged.
    pub(crate) fn acknowledge(&self, parts: Vec<Part>) {
        self.state.lock().expect("no client panics").apply(parts);
    }

    /// To be asked before a read of these keys; others are left out.
    pub(crate) fn state(&self, keys: Range<usize>) -> State {
        let state = self.state.lock().expect("no client panics");
        let mut values = vec![None; state.values.len()];
        values[keys.clone()].clone_from_slice(&state.values[keys]);
        State { values, done: state.done }
    }

    /// To be asked when a read sees nothing newer any more.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }
}

/// What a read found of one client's keys.
pub(crate) struct Found<'a> {
    pub(crate) client: usize,
    /// The keys that it looked at.
    pub(crate) keys: Range<usize>,
    /// What it found, for each of them.
    pub(crate) values: Vec<Option<&'a [u8]>>,
    /// Whether it asked for keys alone, and so found no values.
    pub(crate) keys_only: bool,
}

impl Found<'_> {
    /// Says what is wrong with what was found, if the client's keys had
    /// `state` before the read, and no more than `begun` operations had begun
    /// when it saw nothing newer any more.
    pub(crate) fn judge(&self, script: &Script, state: State, begun: u64) -> Result<(), String> {
        let streams = &script.streams()[self.client];
        let streams_end = streams.iter().max().map_or(0, |stream| usize::from(*stream) + 1);
        // How many keys of each stream the state at hand has different.
        let mut differing = vec![0; streams_end];
        for key in self.keys.clone().filter(|key| !self.agrees(*key, &state.values[*key])) {
            differing[usize::from(streams[key])] += 1;
        }
        let mut later = state.clone();
        while later.done < begun {
            let before = differing.clone();
            let parts = script.operation(self.client, later.done).parts(streams);
            for Part { stream, changes } in &parts {
                // Of two changes of one key, the later one holds.
                for (at, change) in changes.iter().enumerate() {
                    let is_last = changes[at + 1..].iter().all(|other| other.key != change.key);
                    if is_last && self.keys.contains(&change.key) {
                        let agreed = self.agrees(change.key, &later.values[change.key]);
                        let agrees = self.agrees(change.key, &change.value);
                        differing[usize::from(*stream)] += usize::from(agreed);
                        differing[usize::from(*stream)] -= usize::from(agrees);
                    }
                }
            }
            // Of the operation under way each stream has all or nothing.
            if before.iter().zip(&differing).all(|(before, after)| *before == 0 || *after == 0) {
                return Ok(());
            }
            later.apply(parts);
        }
        if differing.iter().all(|keys| *keys == 0) {
            return Ok(());
        }
        Err(self.failure(&state, begun))
    }

    fn found(&self, key: usize) -> Option<&[u8]> {
        self.values[key - self.keys.start]
    }

    fn agrees(&self, key: usize, value: &Option<Vec<u8>>) -> bool {
        match (self.found(key), value) {
            (Some(found), Some(value)) => self.keys_only || found == value,
            (found, value) => found.is_some() == value.is_some(),
        }
    }

    fn failure(&self, state: &State, begun: u64) -> String {
        let State { values, done } = state;
        let differing = self.keys.clone().find(|key| !self.agrees(*key, &values[*key]));
        // With operations under way the first state may agree, and yet some
        // later one be half there; a key says most all the same.
        let key = differing.unwrap_or(self.keys.start);
        format!(
            "read of keys {:?} of client {}, {done} of whose operations were acknowledged and \
             {begun} begun: no number of them leaves what was found; key {key} ({}) had {}, \
             found {}",
            self.keys,
            self.client,
            name(self.client, key),
            describe(values[key].as_deref()),
            match (self.found(key), self.keys_only) {
                (Some(_), true) => "the key".to_owned(),
                (found, _) => describe(found),
            }
        )
    }
}

/// Checks the order of a scan's rows, and finds their keys among those of all
/// clients, which are in the order of their bytes.
pub(crate) fn indexes(
    keys: &[Vec<u8>],
    rows: &[(Vec<u8>, Vec<u8>)],
    reverse: bool,
) -> Result<Vec<usize>, String> {
    let mut indexes = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let index = keys.binary_search(key).map_err(|_| {
            let (key, value) = (key.escape_ascii(), describe(Some(value)));
            format!("a scan found the key {key}, which was never written, with {value}")
        })?;
        indexes.push(index);
    }
    let ordered = |pair: &[usize]| if reverse { pair[0] > pair[1] } else { pair[0] < pair[1] };
    match indexes.windows(2).find(|pair| !ordered(pair)) {
        None => Ok(indexes),
        Some(pair) => {
            let [first, second] = [pair[0], pair[1]].map(|index| keys[index].escape_ascii());
            Err(format!("a scan is out of order: {first} before {second}"))
        }
    }
}

/// The keys of a client that lie in a range of all clients' keys.
pub(crate) fn of_client(client: usize, range: &Range<usize>) -> Range<usize> {
    let first = key_index(client, 0);
    let within = |index: usize| index.clamp(first, first + KEYS_PER_CLIENT) - first;
    within(range.start)..within(range.end)
}

#[cfg(test)]
#[path = "reads_tests.rs"]
mod tests;
