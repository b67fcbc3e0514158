//! Reads beside the writes, each judged by what it may find (`reads`).

use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use futures_core::Stream;
use ourodb::{Db, Value};

use crate::plant::Plant;
use crate::reads::{Found, History, indexes, of_client};
use crate::script::{KEYS_PER_CLIENT, key_index};
use crate::worker::Failure;
use crate::writer::{PLANTED_EVERY, Shared};

/// Threads that only read.
const READERS: u64 = 2;

/// Readers leave the processors to those who write for up to this long.
const PAUSE_MAX: Duration = Duration::from_millis(4);

/// Readers draw from numbers that no client has.
const FIRST_READER: u64 = 1000;

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Starts threads that read all clients' keys, one by `.wait()`, one by
/// awaiting.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<(), Failure> {
    if !shared.reads() {
        return Ok(());
    }
    for reader in 0..READERS {
        let shared = Arc::clone(shared);
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        thread::spawn(move || {
            let reads = shared.read(FIRST_READER + reader, reader % 2 == 1);
            shared.ended(runtime.block_on(reads));
        });
    }
    Ok(())
}

impl Shared {
    async fn read(&self, reader: u64, awaits: bool) -> Result<(), Failure> {
        let mut number = 0;
        loop {
            let mut random = self.script.read(reader, number);
            let (keys, clients) = (self.keys.len(), self.histories.len());
            if random.bool() {
                let (client, key) = (random.usize(..clients), random.usize(..KEYS_PER_CLIENT));
                self.get(client, key, awaits).await?;
            } else {
                // All there is, or what lies between two keys.
                let (a, b) = (random.usize(..=keys), random.usize(..=keys));
                let range = if random.bool() { 0..keys } else { a.min(b)..a.max(b) };
                self.scan(range, &mut random, awaits).await?;
            }
            thread::sleep(PAUSE_MAX.mul_f64(random.f64()));
            number += 1;
        }
    }

    /// Looks up a key, and judges what it finds.
    pub(crate) async fn get(&self, client: usize, key: usize, awaits: bool) -> Result<(), Failure> {
        let state = self.histories[client].state(key..key + 1);
        let bytes = &self.keys[key_index(client, key)];
        let number = self.gets.fetch_add(1, Ordering::Relaxed);
        let mut found = match (number % 3, awaits) {
            (0, true) => self.db.get_with(bytes, <[u8]>::to_vec).await?,
            (0, false) => self.db.get_with(bytes, <[u8]>::to_vec).wait()?,
            (1, true) => one(self.db.multi_get(&[bytes]).await?),
            (1, false) => one(self.db.multi_get(&[bytes]).wait()?),
            (_, true) => self.db.get(bytes).await?.map(Value::into_vec),
            (_, false) => self.db.get(bytes).wait()?.map(Value::into_vec),
        };
        let begun = self.histories[client].begun();
        if is_planted(number) {
            match self.plant {
                Some(Plant::GetNothing) => found = None,
                Some(Plant::GetStale) => found.clone_from(&self.opened[client][key]),
                _ => {}
            }
        }
        let found =
            Found { client, keys: key..key + 1, values: vec![found.as_deref()], keys_only: false };
        found.judge(&self.script, state, begun).map_err(Failure::Inconsistent)
    }

    /// Scans keys of all clients, in a direction and manner of its own, and
    /// judges what it finds.
    pub(crate) async fn scan(
        &self,
        range: Range<usize>,
        random: &mut Rng,
        awaits: bool,
    ) -> Result<(), Failure> {
        let how = How {
            reverse: random.bool(),
            keys_only: random.u8(..4) == 0,
            limit: (random.u8(..4) == 0).then(|| random.usize(1..=KEYS_PER_CLIENT)),
            pause: (random.u8(..8) == 0).then(|| PAUSE_MAX.mul_f64(random.f64())),
        };
        let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else {
            return Ok(());
        };
        let bounds = [&self.keys[range.start], &self.keys[last]];
        let clients = 0..self.histories.len();
        let clients = clients.filter(|client| !of_client(*client, &range).is_empty());
        let state = |client: usize| self.histories[client].state(of_client(client, &range));
        let before: Vec<_> = clients.map(|client| (client, state(client))).collect();
        let mut begun = Vec::new();
        let begin = || begun.extend(self.histories.iter().map(History::begun));
        let mut rows = how.rows(&self.db, bounds, awaits, begin).await?;
        let is_due = is_planted(self.scans.fetch_add(1, Ordering::Relaxed));
        // Of two moments, not every one has a write in between.
        if is_due || self.plant == Some(Plant::ScanTwoMoments) {
            self.spoil(&mut rows, &how, bounds, awaits).await?;
        }
        let indexes = indexes(&self.keys, &rows, how.reverse).map_err(Failure::Inconsistent)?;
        // What lies behind the last row of a limited scan was not looked at.
        let range = match (how.limit, indexes.last()) {
            (Some(limit), Some(last)) if indexes.len() >= limit => {
                if how.reverse {
                    *last..range.end
                } else {
                    range.start..*last + 1
                }
            }
            _ => range,
        };
        let mut values = vec![None; self.keys.len()];
        for (index, (_, value)) in indexes.iter().zip(&rows) {
            values[*index] = Some(&value[..]);
        }
        for (client, state) in before {
            let keys = of_client(client, &range);
            let of_keys = key_index(client, keys.start)..key_index(client, keys.end);
            let values = values[of_keys].to_vec();
            let found = Found { client, keys, values, keys_only: how.keys_only };
            found
                .judge(&self.script, state, begun[client])
                .map_err(|what| Failure::Inconsistent(format!("{how:?}: {what}")))?;
        }
        Ok(())
    }

    /// A planted bug in what a scan found.
    async fn spoil(
        &self,
        rows: &mut Rows,
        how: &How,
        bounds: [&Vec<u8>; 2],
        awaits: bool,
    ) -> Result<(), Failure> {
        let middle = rows.len() / 2;
        match self.plant {
            Some(Plant::ScanSkipsRow) if middle > 0 => drop(rows.remove(middle)),
            Some(Plant::ScanSwapsRows) if middle > 0 => rows.swap(middle - 1, middle),
            Some(Plant::ScanMixesValues) if middle > 0 => {
                rows[middle - 1].1 = rows[middle].1.clone();
            }
            Some(Plant::ScanTwoMoments) => {
                thread::sleep(PAUSE_MAX);
                let later = how.rows(&self.db, bounds, awaits, || {}).await?;
                let behind = |row: &(Vec<u8>, Vec<u8>)| {
                    rows.get(middle).is_none_or(|first| match how.reverse {
                        true => row.0 <= first.0,
                        false => row.0 >= first.0,
                    })
                };
                let later: Rows = later.into_iter().filter(behind).collect();
                rows.truncate(middle);
                rows.extend(later);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether a planted bug is due in a read of this number.
fn is_planted(number: u64) -> bool {
    number % PLANTED_EVERY == PLANTED_EVERY - 1
}

/// What a lookup of one key found.
fn one(mut values: Vec<Option<Value>>) -> Option<Vec<u8>> {
    assert_eq!(values.len(), 1, "one value for one key");
    values.pop().flatten().map(Value::into_vec)
}

/// The manner of a scan.
#[derive(Debug)]
struct How {
    reverse: bool,
    keys_only: bool,
    limit: Option<usize>,
    /// Within the scan, so that memtables and tables go away under it.
    pause: Option<Duration>,
}

impl How {
    /// The rows between two keys, both included; without values if it asks for
    /// keys alone. Calls `begin` when the moment is fixed that the scan sees.
    async fn rows(
        &self,
        db: &Db,
        [first, last]: [&Vec<u8>; 2],
        awaits: bool,
        begin: impl FnOnce(),
    ) -> ourodb::Result<Rows> {
        let mut scan = db.scan(first..=last);
        if self.reverse {
            scan = scan.reverse();
        }
        if let Some(limit) = self.limit {
            scan = scan.limit(limit);
        }
        let with_value = |(key, value): (Value, Value)| (key.into_vec(), value.into_vec());
        let alone = |key: Value| (key.into_vec(), Vec::new());
        match (self.keys_only, awaits) {
            (false, false) => self.waited(scan.iter(), begin, with_value),
            (true, false) => self.waited(scan.keys().iter(), begin, alone),
            (false, true) => self.awaited(scan.stream(), begin, with_value).await,
            (true, true) => self.awaited(scan.keys().stream(), begin, alone).await,
        }
    }

    fn waited<T>(
        &self,
        rows: impl Iterator<Item = ourodb::Result<T>>,
        begin: impl FnOnce(),
        row: impl Fn(T) -> (Vec<u8>, Vec<u8>),
    ) -> ourodb::Result<Rows> {
        begin();
        let mut all = Rows::new();
        for next in rows {
            all.push(row(next?));
            self.pause(all.len());
        }
        Ok(all)
    }

    async fn awaited<T>(
        &self,
        rows: impl Stream<Item = ourodb::Result<T>>,
        begin: impl FnOnce(),
        row: impl Fn(T) -> (Vec<u8>, Vec<u8>),
    ) -> ourodb::Result<Rows> {
        begin();
        let mut rows: Pin<&mut _> = std::pin::pin!(rows);
        let mut all = Rows::new();
        while let Some(next) = poll_fn(|cx| rows.as_mut().poll_next(cx)).await {
            all.push(row(next?));
            self.pause(all.len());
        }
        Ok(all)
    }

    /// Once, behind some first rows.
    fn pause(&self, rows: usize) {
        if let Some(pause) = self.pause
            && rows == 8
        {
            thread::sleep(pause);
        }
    }
}
