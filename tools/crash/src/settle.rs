//! Which writes a database has after a kill, and whether it may lack the rest.
//!
//! The writes of one client to one WAL stream are a *chain*: each began when the
//! one before it had been acknowledged. Of each chain a database has a prefix,
//! all of whose writes are there wholly. Every prefix that would leave the keys
//! as they were found *fits*; there may be several, for some writes leave no
//! trace.
//!
//! How long the prefix must be: promised writes are in it; and with a write that
//! is there, so are all writes to the same stream, of whatever client, that had
//! been acknowledged before it began. The least prefixes that meet all this are
//! found by raising them from what was promised until nothing is missing: if any
//! choice of fitting prefixes is right, this one is.

use std::time::Duration;

use crate::oracle::{Client, describe};
use crate::script::{Change, key_bytes};

/// What a client's keys hold, by key index.
pub(crate) type Values = Vec<Option<Vec<u8>>>;

const IN_PART: &str = "; the operation in flight at the kill is there in part";
const NO_PREFIX: &str = "; what is there is no prefix of the client's writes to this WAL stream";

/// A put, a delete or a batch; or what a range delete does to one WAL stream.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// Of the client's operation.
    pub(crate) number: u64,
    pub(crate) stream: u16,
    pub(crate) changes: Vec<Change>,
    /// So long after its acknowledgement it must survive a kill.
    pub(crate) due: Duration,
    /// The number of the record that says so.
    pub(crate) begun: u64,
    pub(crate) acknowledged: Option<Acknowledged>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    /// The number of the record that says so.
    pub(crate) record: u64,
    /// When it had been read, since the cycle began.
    pub(crate) at: Duration,
}

/// What writes may rely on beside their own durability.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Promises {
    /// Writes acknowledged before this record are in tables.
    pub(crate) flushed: u64,
    /// How long the worker lived, since the cycle began.
    pub(crate) lived: Duration,
    /// Whether it closed the database.
    pub(crate) closed: bool,
}

/// What became of the writes whose fate was open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Of those in flight at the kill.
    pub(crate) written: u64,
    pub(crate) not_written: u64,
    /// The keys hold the same either way.
    pub(crate) without_trace: u64,
    /// Acknowledged, but not for long enough, and certainly gone.
    pub(crate) relaxed_lost: u64,
}

/// Finds out what there is of the clients' writes, and says what is wrong with
/// it.
pub(crate) fn settle(
    clients: &[Client],
    found: &[Values],
    promises: &Promises,
) -> Result<Settled, String> {
    let mut chains = Vec::new();
    for (number, (client, found)) in clients.iter().zip(found).enumerate() {
        let mut streams = client.streams.clone();
        streams.sort_unstable();
        streams.dedup();
        for stream in streams {
            let mut chain = Chain::new(number, client, stream, found);
            let promised = chain.writes.iter().rposition(|write| write.is_promised(promises));
            let promised = promised.map_or(0, |at| at + 1);
            if !chain.raise(promised) {
                return Err(chain.failure(client, found, promised));
            }
            chains.push(chain);
        }
    }
    while let Some((at, needed, because)) = overtaken(&chains) {
        let chain = &mut chains[at];
        if !chain.raise(needed) {
            let number = chain.client;
            let what = chain.failure(&clients[number], &found[number], needed);
            return Err(format!("{what}; {because}, which is there"));
        }
    }
    Ok(chains.iter().fold(Settled::default(), |mut settled, chain| {
        chain.count(&mut settled);
        settled
    }))
}

/// A chain that lacks writes which were acknowledged before another one, which
/// is there, began: which it is, how many of its writes must be there, and why.
fn overtaken(chains: &[Chain<'_>]) -> Option<(usize, usize, String)> {
    chains.iter().enumerate().find_map(|(at, chain)| {
        let others = chains.iter().filter(|other| other.stream == chain.stream);
        let there = others.filter_map(|other| Some((other.client, other.last_there()?)));
        let (client, last) = there.max_by_key(|(_, write)| write.begun)?;
        let needed = chain.writes.partition_point(|write| {
            write.acknowledged.is_some_and(|acknowledged| acknowledged.record < last.begun)
        });
        let because = || {
            let Write { number, stream, .. } = last;
            format!("later began operation {number} of client {client} on WAL stream {stream}")
        };
        (needed > chain.there).then(|| (at, needed, because()))
    })
}

impl Write {
    /// Whether it must be there, whatever else is.
    pub(crate) fn is_promised(&self, promises: &Promises) -> bool {
        self.acknowledged.is_some_and(|Acknowledged { record, at }| {
            // The clock says nothing of a write that is safe from the start.
            let is_due = self.due.is_zero() || promises.lived.saturating_sub(at) > self.due;
            is_due || record < promises.flushed || promises.closed
        })
    }
}

struct Chain<'a> {
    client: usize,
    stream: u16,
    writes: Vec<&'a Write>,
    /// Lengths of the prefixes that fit, ascending.
    fits: Vec<usize>,
    /// The length of the one that is taken to be there.
    there: usize,
}

impl<'a> Chain<'a> {
    fn new(number: usize, client: &'a Client, stream: u16, found: &Values) -> Self {
        let writes: Vec<&Write> =
            client.writes.iter().filter(|write| write.stream == stream).collect();
        // The keys of the stream that the prefix at hand would leave different.
        let mut differing: Vec<bool> = (0..found.len())
            .map(|key| client.streams[key] == stream && client.values[key] != found[key])
            .collect();
        let mut differing_keys = differing.iter().filter(|differs| **differs).count();
        let mut fits = Vec::new();
        fits.extend((differing_keys == 0).then_some(0));
        for (at, write) in writes.iter().enumerate() {
            // Of two changes of one key, the later one holds.
            for Change { key, value } in &write.changes {
                let differs = *value != found[*key];
                differing_keys += usize::from(differs);
                differing_keys -= usize::from(std::mem::replace(&mut differing[*key], differs));
            }
            fits.extend((differing_keys == 0).then_some(at + 1));
        }
        Self { client: number, stream, writes, fits, there: 0 }
    }

    /// Takes the shortest prefix that fits and has at least `needed` writes.
    #[must_use]
    fn raise(&mut self, needed: usize) -> bool {
        let fit = self.fits.iter().find(|fit| **fit >= needed);
        self.there = fit.copied().unwrap_or(self.there);
        fit.is_some()
    }

    /// The last write that is there.
    fn last_there(&self) -> Option<&'a Write> {
        self.there.checked_sub(1).map(|at| self.writes[at])
    }

    fn acknowledged(&self) -> usize {
        self.writes.iter().filter(|write| write.acknowledged.is_some()).count()
    }

    fn count(&self, settled: &mut Settled) {
        let acknowledged = self.acknowledged();
        let longest = self.fits.last().copied().unwrap_or_default();
        settled.relaxed_lost += acknowledged.saturating_sub(longest) as u64;
        if acknowledged < self.writes.len() {
            match (self.fits.contains(&acknowledged), longest > acknowledged) {
                (true, true) => settled.without_trace += 1,
                (false, true) => settled.written += 1,
                (_, false) => settled.not_written += 1,
            }
        }
    }

    /// Why no prefix of at least `needed` writes fits.
    fn failure(&self, client: &Client, found: &Values, needed: usize) -> String {
        let acknowledged = self.acknowledged();
        let mut values = client.values.clone();
        for write in &self.writes[..acknowledged] {
            apply(&mut values, write);
        }
        let differing =
            |key: &usize| client.streams[*key] == self.stream && { values[*key] != found[*key] };
        let differing: Vec<usize> = (0..found.len()).filter(differing).collect();
        // A value that the key never had says most.
        let alien = differing.iter().find(|key| {
            let changes = self.writes.iter().flat_map(|write| &write.changes);
            let mut values = changes.filter(|change| change.key == **key).map(|c| &c.value);
            client.values[**key] != found[**key] && values.all(|value| *value != found[**key])
        });
        let in_flight = |key: &usize| {
            let mut changes = self.writes[acknowledged..].iter().flat_map(|write| &write.changes);
            changes.any(|change| change.key == *key)
        };
        let why = match (alien, self.fits.last()) {
            (Some(_), _) => String::new(),
            (None, Some(longest)) => {
                let Write { number, .. } = self.writes[needed - 1];
                format!(
                    "; of {acknowledged} acknowledged writes to WAL stream {} the first {longest} \
                     are there, and operation {number} must be",
                    self.stream
                )
            }
            (None, None) if differing.iter().all(in_flight) => IN_PART.to_owned(),
            (None, None) => NO_PREFIX.to_owned(),
        };
        let key = *alien.or(differing.first()).expect("the prefix of all that was acknowledged");
        format!(
            "key {key} of client {} ({}): acknowledged was {}, found {}{why}",
            self.client,
            name(self.client, key),
            describe(values[key].as_deref()),
            describe(found[key].as_deref())
        )
    }
}

fn apply(values: &mut Values, write: &Write) {
    for change in &write.changes {
        values[change.key].clone_from(&change.value);
    }
}

/// A key in a few words.
pub(crate) fn name(client: usize, key: usize) -> String {
    let bytes = key_bytes(client, key);
    format!("{} bytes: {}", bytes.len(), bytes[..bytes.len().min(40)].escape_ascii())
}
