//! A script at work: does what it is told to the database, and has the history
//! judge what is found, and the variant what goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use ourodb::sim::Sim;
use ourodb::{Batch, Db, Durability, Error, ErrorKind, IoBackend, Options, ScanIter};

use super::variant::Variant;
use crate::history::{Content, History, Loss, Scan, Wrong};

pub(crate) const DIR: &str = "/db";
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// No call takes longer than this, in nanoseconds of the machine.
const PATIENCE_NS: u64 = 60 * SECOND_NS;

/// Why a script ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The database cannot be opened while requests fail.
    Refused,
    /// What should not be.
    Wrong(Wrong),
}

impl From<Wrong> for Stop {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

pub(crate) type Played = Result<(), Stop>;

/// What a call does, as far as it may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Open,
    Read,
    Write,
    /// A flush, a compaction, or a close: what the background has to do.
    Job,
}

/// A scan that was begun, and goes on later.
pub(crate) struct Held {
    seen: Scan,
    rows: ScanIter,
    found: BTreeMap<Vec<u8>, Vec<u8>>,
    has_failed: bool,
}

pub(crate) struct Play {
    pub(crate) sim: Sim,
    pub(crate) db: Option<Db>,
    pub(crate) history: History,
    pub(crate) variant: Variant,
    /// What writes are to survive.
    pub(crate) durability: Durability,
    /// How the last process ended, if nobody looked since.
    pub(crate) loss: Loss,
    options: Options,
    /// Values have their numbers in them.
    values: u64,
}

impl Play {
    /// A database that `options` say the rest of, with these keys.
    pub(crate) fn new(sim: Sim, names: Vec<Vec<u8>>, options: Options, variant: Variant) -> Self {
        Self {
            options: options.io(IoBackend::Sim(sim.clone())),
            sim,
            db: None,
            history: History::new(names),
            variant,
            durability: Durability::Durable,
            loss: Loss::Process,
            values: 0,
        }
    }

    pub(crate) fn options(&self, owners: usize) -> Options {
        self.options.clone().owners(owners)
    }

    fn db(&self) -> Db {
        self.db.clone().expect("a script works on an open database")
    }

    /// Whether an error is one that the variant brings about.
    pub(crate) fn accept(&self, call: Call, error: &Error) -> Result<(), Wrong> {
        match self.variant.explains(call, error.kind(), &self.sim) {
            true => Ok(()),
            false => Err(format!("{call:?}: an error that nothing explains: {error}")),
        }
    }

    /// Does it, and sees to it that it comes to an end in time.
    fn timed<T>(&self, work: impl FnOnce() -> T) -> Result<T, Wrong> {
        let begun_ns = self.sim.now_ns();
        let done = work();
        let took_ns = self.sim.now_ns() - begun_ns;
        match took_ns > PATIENCE_NS {
            true => Err(format!("a call took {} s of the machine", took_ns / SECOND_NS)),
            false => Ok(done),
        }
    }

    /// Opens the database with so many owners. What fails once is tried again, with
    /// the same process gone.
    pub(crate) fn open(&mut self, owners: usize) -> Played {
        for _ in 0..=self.variant.faults_max() {
            let options = self.options(owners);
            match self.timed(|| Db::open(DIR, options))? {
                Ok(db) => {
                    self.db = Some(db);
                    return self.settle();
                }
                Err(error) => self.accept(Call::Open, &error)?,
            }
            if self.variant.is_for_ever() {
                return Err(Stop::Refused);
            }
            self.sim.kill();
        }
        Err(Stop::Wrong("the database does not open again".to_owned()))
    }

    /// Has the history judge all that an opening found.
    fn settle(&mut self) -> Played {
        for _ in 0..=self.variant.faults_max() {
            let db = self.db();
            let rows = self.timed(|| {
                let rows = db.scan(..).iter();
                rows.map(|row| row.map(|(k, v)| (k.into_vec(), v.into_vec()))).collect()
            })?;
            match rows {
                Ok(rows) => {
                    self.history.settle(&rows, &BTreeSet::new(), self.loss)?;
                    self.loss = Loss::Process;
                    self.history.opened(|name| db.stream_of(name), None);
                    return Ok(());
                }
                Err(error) => self.accept(Call::Read, &error)?,
            }
            if self.variant.is_for_ever() {
                // Nobody knows what is there: the next opening tells.
                self.sim.kill();
                self.db = None;
                return Err(Stop::Refused);
            }
        }
        Err(Stop::Wrong("a scan fails again and again".to_owned()))
    }

    /// A value of so many bytes that no other write has.
    fn value(&mut self, len: usize) -> Arc<[u8]> {
        self.values += 1;
        let mut bytes = self.values.to_be_bytes().to_vec();
        let mut random = fastrand::Rng::with_seed(self.values);
        // Half of it compresses.
        bytes.extend((8..len).map(|at| if at % 2 == 0 { 7 } else { random.u8(..) }));
        bytes.into()
    }

    fn names(&self, ops: &[(usize, Content)]) -> Vec<Vec<u8>> {
        ops.iter().map(|(key, _)| self.history.name(*key).to_vec()).collect()
    }

    pub(crate) fn put(&mut self, key: usize, len: usize) -> Played {
        self.write(&[(key, Some(len))])
    }

    pub(crate) fn delete(&mut self, key: usize) -> Played {
        self.write(&[(key, None)])
    }

    /// Writes values of these lengths, or deletes, all or nothing; of several those of
    /// the first one's WAL stream.
    pub(crate) fn write(&mut self, ops: &[(usize, Option<usize>)]) -> Played {
        let stream = self.history.stream(ops[0].0);
        let of_stream = ops.iter().filter(|(key, _)| self.history.stream(*key) == stream);
        let of_stream: Vec<_> = of_stream.copied().collect();
        let ops: Vec<(usize, Content)> =
            of_stream.into_iter().map(|(key, len)| (key, len.map(|len| self.value(len)))).collect();
        let names = self.names(&ops);
        let (db, durability) = (self.db(), self.durability);
        let write = self.history.begin(&ops, durability);
        let written = self.timed(|| match (&ops[..], &names[..]) {
            ([(_, Some(value))], [key]) => db.put(key, value).durability(durability).wait(),
            ([(_, None)], [key]) => db.delete(key).durability(durability).wait(),
            _ => {
                let mut batch = Batch::new();
                for ((_, content), key) in ops.iter().zip(&names) {
                    match content {
                        Some(value) => batch.put(key, value),
                        None => batch.delete(key),
                    };
                }
                db.write(batch).durability(durability).wait()
            }
        })?;
        self.written(write, written)
    }

    /// Notes what became of a write.
    fn written(&mut self, write: u64, written: Result<(), Error>) -> Played {
        match written {
            Ok(()) => self.history.acknowledge(write, self.sim.now_ns()),
            Err(error) => {
                self.accept(Call::Write, &error)?;
                // Of any other failure the outcome is unknown.
                if error.kind() == ErrorKind::NoSpace {
                    self.history.refuse(write).map_err(|wrong| format!("{wrong} ({error})"))?;
                }
            }
        }
        Ok(())
    }

    /// Puts values of this length by futures that are all under way at once.
    pub(crate) fn put_together(&mut self, keys: Range<usize>, len: usize) -> Played {
        let ops: Vec<(usize, Content)> = keys.map(|key| (key, Some(self.value(len)))).collect();
        let names = self.names(&ops);
        let (db, durability) = (self.db(), self.durability);
        let writes: Vec<u64> =
            ops.iter().map(|op| self.history.begin(std::slice::from_ref(op), durability)).collect();
        let futures = names.iter().zip(&ops).map(|(key, (_, content))| {
            let value = content.clone().unwrap_or_default();
            let db = db.clone();
            async move { db.put(key, &value).durability(durability).await }
        });
        let all = join(futures);
        let written = self.timed(|| self.sim.block_on(all))?;
        writes.into_iter().zip(written).try_for_each(|(write, done)| self.written(write, done))
    }

    /// Deletes the keys from the first one up to the last one, which stays.
    pub(crate) fn delete_range(&mut self, keys: Range<usize>) -> Played {
        let (from, to) = (self.history.name(keys.start), self.history.name(keys.end));
        let (db, durability) = (self.db(), self.durability);
        let delete = db.delete_range(from.to_vec()..to.to_vec()).durability(durability);
        let mut parts: BTreeMap<usize, Vec<(usize, Content)>> = BTreeMap::new();
        for key in keys {
            parts.entry(self.history.stream(key)).or_default().push((key, None));
        }
        let writes: Vec<u64> =
            parts.values().map(|part| self.history.begin(part, durability)).collect();
        match self.timed(|| delete.wait())? {
            Ok(()) => {
                let now_ns = self.sim.now_ns();
                writes.into_iter().for_each(|write| self.history.acknowledge(write, now_ns));
            }
            // Each part may be there or not.
            Err(error) => self.accept(Call::Write, &error)?,
        }
        Ok(())
    }

    pub(crate) fn get(&mut self, key: usize) -> Played {
        let name = self.history.name(key).to_vec();
        let db = self.db();
        let read = self.history.begin_read(key);
        match self.timed(|| db.get(&name).wait())? {
            Ok(found) => self.history.end_read(&read, found.as_deref())?,
            Err(error) => self.accept(Call::Read, &error)?,
        }
        Ok(())
    }

    /// Gets these keys by one future.
    pub(crate) fn multi_get(&mut self, keys: Range<usize>) -> Played {
        let names: Vec<Vec<u8>> = keys.clone().map(|key| self.history.name(key).to_vec()).collect();
        let reads: Vec<_> = keys.map(|key| self.history.begin_read(key)).collect();
        let db = self.db();
        match self.timed(|| self.sim.block_on(async { db.multi_get(&names).await }))? {
            Ok(values) => {
                for (read, found) in reads.iter().zip(values) {
                    self.history.end_read(read, found.as_deref())?;
                }
            }
            Err(error) => self.accept(Call::Read, &error)?,
        }
        Ok(())
    }

    /// Begins a scan of everything, and comes as far as `rows` of it.
    pub(crate) fn begin_scan(&mut self, reverse: bool, rows: usize) -> Result<Held, Stop> {
        let db = self.db();
        let scan = db.scan(..);
        let scan = if reverse { scan.reverse() } else { scan };
        let seen = self.history.begin_scan(0..self.history.len());
        let mut held = Held { seen, rows: scan.iter(), found: BTreeMap::new(), has_failed: false };
        for _ in 0..rows {
            if !self.take_row(&mut held)? {
                break;
            }
        }
        Ok(held)
    }

    /// Whether there was a row, and no error.
    fn take_row(&self, held: &mut Held) -> Result<bool, Stop> {
        match self.timed(|| held.rows.next())? {
            None => Ok(false),
            Some(Ok((key, value))) => {
                let former = held.found.insert(key.into_vec(), value.into_vec());
                match former {
                    None => Ok(true),
                    Some(_) => Err(Stop::Wrong("a scan found a key twice".to_owned())),
                }
            }
            Some(Err(error)) => {
                self.accept(Call::Read, &error)?;
                held.has_failed = true;
                Ok(false)
            }
        }
    }

    /// Takes a scan to its end, and judges all of it.
    pub(crate) fn end_scan(&mut self, mut held: Held) -> Played {
        while self.take_row(&mut held)? {}
        // One that failed says nothing of what it had not come to.
        let looked_at = |name: &[u8]| !held.has_failed || held.found.contains_key(name);
        Ok(self.history.end_scan(&held.seen, &held.found, looked_at, false)?)
    }

    /// Compares everything: scans both ways, and a get of each key.
    pub(crate) fn check(&mut self) -> Played {
        for reverse in [false, true] {
            let held = self.begin_scan(reverse, 0)?;
            self.end_scan(held)?;
        }
        (0..self.history.len()).try_for_each(|key| self.get(key))
    }

    fn job(&mut self, work: impl FnOnce(&Db) -> Result<(), Error>) -> Result<bool, Stop> {
        let db = self.db();
        match self.timed(|| work(&db))? {
            Ok(()) => Ok(true),
            Err(error) => self.accept(Call::Job, &error).map(|()| false).map_err(Stop::Wrong),
        }
    }

    pub(crate) fn flush(&mut self) -> Played {
        let moment = self.history.now();
        if self.job(|db| db.flush().wait())? {
            self.history.harden(moment);
        }
        Ok(())
    }

    pub(crate) fn compact(&mut self) -> Played {
        self.job(|db| db.compact(..).wait()).map(drop)
    }

    /// Time passes, and the background goes on.
    pub(crate) fn rest(&mut self, ns: u64) {
        self.sim.run_for(ns);
    }

    /// Closes the database. What was acknowledged survives everything then, if the close
    /// says so.
    pub(crate) fn close(&mut self) -> Played {
        let moment = self.history.now();
        if self.job(Db::close)? {
            self.history.harden(moment);
        }
        self.db = None;
        Ok(())
    }

    pub(crate) fn kill(&mut self) {
        self.sim.kill();
        self.db = None;
    }

    pub(crate) fn power_cut(&mut self) {
        self.loss = Loss::Power(self.sim.now_ns());
        self.sim.power_cut();
        self.db = None;
    }
}

/// What all of these come to; they are polled side by side.
async fn join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut under_way: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = under_way.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, done) in under_way.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(output) = future.as_mut().poll(cx)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
