//! A client: does what the plan says, with keys of its own, and has the history
//! judge what it finds.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;

use fastrand::Rng;
use futures_core::Stream;
use ourodb::{Batch, Db, Error, ErrorKind};

use crate::history::{Content, Wrong};
use crate::plan::{Act, Style};
use crate::world::World;

/// One client of one life of the database.
pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) rng: Rng,
    pub(crate) db: Db,
    pub(crate) world: Arc<World>,
}

/// Why a client ends.
pub(crate) enum Stop {
    /// It has done enough.
    Done,
    /// What should not be.
    Wrong(Wrong),
}

impl Client {
    /// Works until there is nothing left to do.
    pub(crate) async fn run(mut self) {
        let stop = loop {
            if !self.world.take_turn() {
                break Stop::Done;
            }
            if let Err(stop) = self.act().await {
                break stop;
            }
        };
        self.world.ended(stop);
    }

    async fn act(&mut self) -> Result<(), Stop> {
        let act = self.world.plan.act(&mut self.rng);
        match act {
            Act::Put => {
                let ops = vec![(self.own_key(), Some(self.value()))];
                self.write(ops).await
            }
            Act::Delete => {
                let ops = vec![(self.own_key(), None)];
                self.write(ops).await
            }
            Act::Batch => self.batch().await,
            Act::DeleteRange => self.delete_range().await,
            Act::Get => self.get().await,
            Act::MultiGet => self.multi_get().await,
            Act::Scan => self.scan(false).await,
            Act::ScanKeys => self.scan(true).await,
            Act::Flush => {
                let moment = self.world.history().now();
                let flushed = self.db.flush().await;
                if flushed.is_ok() {
                    self.world.history().harden(moment);
                }
                self.accept(flushed)
            }
            Act::Compact => {
                let compacted = self.db.compact(..).await;
                self.accept(compacted)
            }
            Act::Rest => {
                let longest = [1_000_000, 50_000_000, 3_000_000_000][self.rng.usize(..3)];
                let ns = self.rng.u64(..longest);
                self.world.sleep(ns).await;
                Ok(())
            }
        }
    }

    fn own_key(&mut self) -> usize {
        let own = self.world.own_keys(self.number);
        own[self.rng.usize(..own.len())]
    }

    fn any_key(&mut self) -> usize {
        self.rng.usize(..self.world.keys())
    }

    /// Content that no other write has, but for the very short.
    fn value(&mut self) -> Arc<[u8]> {
        let len = self.world.plan.value_bytes(&mut self.rng);
        let mut bytes = self.world.unique().to_be_bytes().to_vec();
        if self.rng.bool() {
            bytes.resize(len.max(8), bytes[7]);
        } else {
            bytes.extend(std::iter::repeat_with(|| self.rng.u8(..)).take(len.saturating_sub(8)));
        }
        // Values need not tell where they come from, but the order is less certain then.
        let is_short = len < 8 && self.rng.u8(..4) == 0;
        bytes.truncate(if is_short { len } else { bytes.len() });
        bytes.into()
    }

    async fn batch(&mut self) -> Result<(), Stop> {
        let first = self.own_key();
        let stream = self.world.history().stream(first);
        let mut ops: BTreeMap<usize, Content> = BTreeMap::new();
        let mut bytes = 0;
        for _ in 0..self.rng.usize(1..12) {
            let key = self.own_key();
            if self.world.history().stream(key) != stream {
                continue;
            }
            let content = (self.rng.u8(..4) > 0).then(|| self.value());
            bytes += 60 + self.world.history().name(key).len();
            bytes += content.as_ref().map_or(0, |value| value.len());
            if bytes > self.db.batch_bytes_max() {
                break;
            }
            ops.insert(key, content);
        }
        if ops.is_empty() {
            return Ok(());
        }
        self.write(ops.into_iter().collect()).await
    }

    /// Whether this write waits as a thread does.
    fn is_thread(&mut self) -> bool {
        match self.world.plan.style {
            Style::Thread => true,
            Style::Future => false,
            Style::Both => self.rng.bool(),
        }
    }

    async fn write(&mut self, ops: Vec<(usize, Content)>) -> Result<(), Stop> {
        let durability = self.world.plan.durability(&mut self.rng);
        let is_thread = self.is_thread();
        let is_dropped = !is_thread && self.rng.u8(..40) == 0;
        let polls = self.rng.u32(..6);
        let write = self.world.history().begin(&ops, durability);
        let names: Vec<Vec<u8>> = {
            let history = self.world.history();
            ops.iter().map(|(key, _)| history.name(*key).to_vec()).collect()
        };
        let db = self.db.clone();
        let work = async move {
            match (&ops[..], &names[..]) {
                ([(_, Some(value))], [key]) => {
                    let put = db.put(key, value).durability(durability);
                    if is_thread { put.wait_in_task().await } else { put.await }
                }
                ([(_, None)], [key]) => {
                    let delete = db.delete(key).durability(durability);
                    if is_thread { delete.wait_in_task().await } else { delete.await }
                }
                _ => {
                    let mut batch = Batch::new();
                    for ((_, content), key) in ops.iter().zip(&names) {
                        match content {
                            Some(value) => batch.put(key, value),
                            None => batch.delete(key),
                        };
                    }
                    let write = db.write(batch).durability(durability);
                    if is_thread { write.wait_in_task().await } else { write.await }
                }
            }
        };
        let written = if is_dropped {
            match poll_some(work, polls).await {
                Some(written) => written,
                // It may be there later, or not; whoever writes next learns which.
                None => return Ok(()),
            }
        } else {
            work.await
        };
        self.written(&[write], written)
    }

    /// Notes what became of writes.
    fn written(&mut self, writes: &[u64], written: Result<(), Error>) -> Result<(), Stop> {
        let now_ns = self.world.sim.now_ns();
        let refused = match written {
            Ok(()) => {
                let mut history = self.world.history();
                writes.iter().for_each(|&write| history.acknowledge(write, now_ns));
                return Ok(());
            }
            Err(error) => error,
        };
        // Of one write; those of several may have been carried out in part.
        if refused.kind() == ErrorKind::NoSpace
            && let [write] = writes
        {
            let judged = self.world.history().refuse(*write);
            judged.map_err(|wrong| Stop::Wrong(format!("{wrong} ({refused})")))?;
        }
        self.accept(Err(refused))
    }

    /// Whether an error is one that the plan brings about.
    fn accept(&self, result: Result<(), Error>) -> Result<(), Stop> {
        let Err(error) = result else {
            return Ok(());
        };
        let plan = &self.world.plan;
        match error.kind() {
            ErrorKind::NoSpace if plan.lacks_space => Ok(()),
            ErrorKind::Corruption if plan.damages => Ok(()),
            ErrorKind::Io if plan.fails_reads || plan.fails_writes => {
                self.world.poisoned();
                Ok(())
            }
            ErrorKind::Poisoned if plan.fails_syncs => {
                self.world.poisoned();
                Ok(())
            }
            _ => Err(Stop::Wrong(format!("an error that nothing explains: {error}"))),
        }
    }

    /// The same, of a read: whether it may have failed.
    fn accept_read(&self, error: &Error) -> Result<(), Stop> {
        match error.kind() {
            ErrorKind::Io if self.world.plan.fails_reads => Ok(()),
            ErrorKind::Corruption if self.world.plan.damages => Ok(()),
            _ => Err(Stop::Wrong(format!("a read failed for no reason: {error}"))),
        }
    }

    async fn delete_range(&mut self) -> Result<(), Stop> {
        let (a, b) = (self.own_key(), self.own_key());
        let durability = self.world.plan.durability(&mut self.rng);
        let is_thread = self.is_thread();
        let (from, to, writes) = {
            let mut history = self.world.history();
            let (from, to) = (history.name(a.min(b)).to_vec(), history.name(a.max(b)).to_vec());
            let own = self.world.own_keys(self.number);
            let mut parts: BTreeMap<usize, Vec<(usize, Content)>> = BTreeMap::new();
            for &key in own.iter().filter(|key| (a.min(b)..a.max(b)).contains(key)) {
                parts.entry(history.stream(key)).or_default().push((key, None));
            }
            let writes: Vec<u64> =
                parts.values().map(|part| history.begin(part, durability)).collect();
            (from, to, writes)
        };
        let delete = self.db.delete_range(from..to).durability(durability);
        let deleted = if is_thread { delete.wait_in_task().await } else { delete.await };
        if writes.is_empty() {
            return self.accept(deleted);
        }
        // Refused or not is not known of any one part.
        match deleted {
            Err(error) => self.accept(Err(error)),
            Ok(()) => self.written(&writes, Ok(())),
        }
    }

    async fn get(&mut self) -> Result<(), Stop> {
        let key = self.any_key();
        let is_thread = self.is_thread();
        let read = self.world.history().begin_read(key);
        let name = self.world.history().name(key).to_vec();
        let found = if is_thread {
            self.db.get(&name).wait_in_task().await
        } else {
            self.db.get(&name).await
        };
        match found {
            Ok(found) => {
                self.world.history().end_read(&read, found.as_deref()).map_err(Stop::Wrong)
            }
            Err(error) => self.accept_read(&error),
        }
    }

    async fn multi_get(&mut self) -> Result<(), Stop> {
        let keys: Vec<usize> = (0..self.rng.usize(1..10)).map(|_| self.any_key()).collect();
        let (reads, names): (Vec<_>, Vec<_>) = {
            let mut history = self.world.history();
            let begin = |&key: &usize| (history.begin_read(key), history.name(key).to_vec());
            keys.iter().map(begin).unzip()
        };
        match self.db.multi_get(&names).await {
            Ok(values) => {
                let mut history = self.world.history();
                for (read, found) in reads.iter().zip(values) {
                    history.end_read(read, found.as_deref()).map_err(Stop::Wrong)?;
                }
                Ok(())
            }
            Err(error) => self.accept_read(&error),
        }
    }

    async fn scan(&mut self, keys_only: bool) -> Result<(), Stop> {
        let (a, b) = (self.any_key(), self.any_key());
        let (from, to) = match self.rng.u8(..3) {
            0 => (0, self.world.keys()),
            _ => (a.min(b), a.max(b)),
        };
        let reverse = self.rng.bool();
        let limit = if self.rng.bool() { usize::MAX } else { self.rng.usize(..20) };
        let pause = self.rng.u8(..3) == 0;
        let range = {
            let history = self.world.history();
            let bound = |key: usize| (key < history.len()).then(|| history.name(key).to_vec());
            (bound(from), bound(to))
        };
        let in_task = !keys_only && self.is_thread();
        let bounds = match range {
            (Some(from), Some(to)) => (Bound::Included(from), Bound::Excluded(to)),
            (Some(from), None) => (Bound::Included(from), Bound::Unbounded),
            // It starts behind the last key: empty.
            (None, _) => return Ok(()),
        };
        let scan = self.db.scan(bounds);
        let scan = if reverse { scan.reverse() } else { scan };
        // What it sees is decided when it begins.
        let (seen, mut rows) = {
            let mut history = self.world.history();
            let seen = history.begin_scan(from..to);
            let rows = if in_task {
                Rows::Iter(scan.iter())
            } else if keys_only {
                Rows::Keys(Box::pin(scan.keys().stream()))
            } else {
                Rows::Stream(Box::pin(scan.stream()))
            };
            (seen, rows)
        };
        let mut found: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut last: Option<Vec<u8>> = None;
        let mut is_whole = true;
        loop {
            if found.len() == limit {
                is_whole = false;
                break;
            }
            if pause && self.rng.u8(..4) == 0 {
                let ns = self.rng.u64(..5_000_000);
                self.world.sleep(ns).await;
            }
            match rows.next().await {
                None => break,
                Some(Err(error)) => {
                    self.accept_read(&error)?;
                    is_whole = false;
                    break;
                }
                Some(Ok((key, value))) => {
                    let is_in_order = last.as_ref().is_none_or(|last| match reverse {
                        false => *last < key,
                        true => *last > key,
                    });
                    if !is_in_order {
                        let key = key.escape_ascii();
                        return Err(Stop::Wrong(format!("a scan came to \"{key}\" out of order")));
                    }
                    last = Some(key.clone());
                    found.insert(key, value);
                }
            }
        }
        let looked_at = |name: &[u8]| {
            is_whole
                || last.as_ref().is_some_and(|last| match reverse {
                    false => name <= &last[..],
                    true => name >= &last[..],
                })
        };
        let judged = self.world.history().end_scan(&seen, &found, looked_at, keys_only);
        judged.map_err(Stop::Wrong)
    }
}

/// The ways of a scan to its rows.
enum Rows {
    Iter(ourodb::ScanIter),
    Stream(Pin<Box<ourodb::ScanStream>>),
    Keys(Pin<Box<ourodb::KeyStream>>),
}

type Row = Result<(Vec<u8>, Vec<u8>), Error>;

impl Rows {
    async fn next(&mut self) -> Option<Row> {
        match self {
            Self::Iter(rows) => {
                let row = rows.next_in_task().await?;
                Some(row.map(|(key, value)| (key.into_vec(), value.into_vec())))
            }
            Self::Stream(rows) => {
                let row = poll_fn(|cx| rows.as_mut().poll_next(cx)).await?;
                Some(row.map(|(key, value)| (key.into_vec(), value.into_vec())))
            }
            Self::Keys(rows) => {
                let row = poll_fn(|cx| rows.as_mut().poll_next(cx)).await?;
                Some(row.map(|key| (key.into_vec(), Vec::new())))
            }
        }
    }
}

/// Polls so often, and then drops the future.
async fn poll_some<T>(work: impl Future<Output = T>, polls: u32) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return std::task::Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(cx).map(Some)
    })
    .await
}
