//! The threads of a soak.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use hdrhistogram::Histogram;
use ourodb::Db;

use super::SLOW;
use super::model::Model;
use crate::cli::SoakArgs;
use crate::failure::Failure;

/// Rows of a scan, at most.
const ROWS_MAX: u64 = 200;

/// What threads did.
pub(super) struct Counts {
    /// Puts and deletes.
    pub(super) writes: u64,
    /// Gets.
    pub(super) reads: u64,
    /// Rows of scans.
    pub(super) rows: u64,
    /// How long writes took, in nanoseconds.
    pub(super) write_ns: Histogram<u64>,
    /// Writes that took longer than 20 ms.
    pub(super) slow_writes: u64,
}

impl Default for Counts {
    fn default() -> Self {
        let write_ns = Histogram::new(3).expect("three digits are possible");
        Self { writes: 0, reads: 0, rows: 0, write_ns, slow_writes: 0 }
    }
}

impl Counts {
    /// Adds what others did.
    pub(super) fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.rows += other.rows;
        self.slow_writes += other.slow_writes;
        self.write_ns.add(&other.write_ns).expect("histograms of one kind, which grow");
    }
}

/// The threads of one section.
pub(super) struct Workers<'a> {
    pub(super) db: &'a Db,
    pub(super) model: &'a Model,
    pub(super) args: &'a SoakArgs,
}

impl Workers<'_> {
    /// Runs all of them for so long.
    pub(super) fn run(&self, time: Duration, interrupt: &AtomicBool) -> Result<Counts, Failure> {
        let stop = AtomicBool::new(false);
        let (writers, readers, scanners) =
            (self.args.writers, self.args.readers, self.args.scanners);
        let end = Instant::now() + time;
        let results: Vec<Result<Counts, Failure>> = thread::scope(|scope| {
            let stop = &stop;
            let mut work: Vec<Box<dyn FnOnce() -> Result<Counts, Failure> + Send>> = Vec::new();
            work.extend((0..writers).map(|writer| Box::new(move || self.write(writer, stop)) as _));
            work.extend((0..readers).map(|_| Box::new(move || self.read(stop)) as _));
            work.extend((0..scanners).map(|_| Box::new(move || self.scan(stop)) as _));
            let mut threads = Vec::new();
            for work in work {
                match thread::Builder::new().spawn_scoped(scope, work) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        return vec![Err(Failure::no_threads("its threads")(error))];
                    }
                }
            }
            let all_run = |threads: &[thread::ScopedJoinHandle<'_, _>]| {
                threads.iter().all(|thread| !thread.is_finished())
            };
            while Instant::now() < end && !interrupt.load(Ordering::Relaxed) && all_run(&threads) {
                let left = end.saturating_duration_since(Instant::now());
                thread::sleep(left.min(Duration::from_millis(50)));
            }
            stop.store(true, Ordering::Relaxed);
            let joined = |thread: thread::ScopedJoinHandle<'_, Result<Counts, Failure>>| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Failure::Other("a thread panicked".to_owned())))
            };
            threads.into_iter().map(joined).collect()
        });
        let mut counts = Counts::default();
        for result in results {
            counts.add(&result?);
        }
        Ok(counts)
    }

    fn write(&self, writer: u32, stop: &AtomicBool) -> Result<Counts, Failure> {
        let (mut counts, mut rng) = (Counts::default(), Rng::new());
        let own = self.model.keys() / self.args.writers;
        while !stop.load(Ordering::Relaxed) {
            let number = rng.u32(..own) * self.args.writers + writer;
            let key = Model::key(number);
            let version = self.model.begin(number);
            let value = self.model.value(number, version);
            let begun = Instant::now();
            let written = match &value {
                Some(value) => self.db.put(&key, value).wait(),
                None => self.db.delete(&key).wait(),
            };
            written.map_err(Failure::engine("a write failed"))?;
            let took = begun.elapsed();
            self.model.acknowledge(number, version);
            counts.writes += 1;
            counts.slow_writes += u64::from(took > SLOW);
            // It grows as far as it must.
            counts.write_ns.record(took.as_nanos() as u64).expect("room for any time");
        }
        Ok(counts)
    }

    fn read(&self, stop: &AtomicBool) -> Result<Counts, Failure> {
        let (mut counts, mut rng) = (Counts::default(), Rng::new());
        while !stop.load(Ordering::Relaxed) {
            let number = rng.u32(..self.model.keys());
            let before = self.model.before(number);
            let found = self.db.get(&Model::key(number)).wait();
            let found = found.map_err(Failure::engine("a read failed"))?;
            self.model.judge(number, before, found.as_deref()).map_err(Failure::Other)?;
            counts.reads += 1;
        }
        Ok(counts)
    }

    fn scan(&self, stop: &AtomicBool) -> Result<Counts, Failure> {
        let (mut counts, mut rng) = (Counts::default(), Rng::new());
        while !stop.load(Ordering::Relaxed) {
            let from = Model::key(rng.u32(..self.model.keys()));
            let is_reverse = rng.bool();
            let scan =
                if is_reverse { self.db.scan(..from).reverse() } else { self.db.scan(from..) };
            let mut last: Option<Vec<u8>> = None;
            for row in scan.iter().take(rng.u64(1..ROWS_MAX) as usize) {
                let (key, value) = row.map_err(Failure::engine("a scan failed"))?;
                let in_order = last
                    .as_ref()
                    .is_none_or(|last| (last[..] > key[..]) == is_reverse && last[..] != key[..]);
                if !in_order {
                    return Err(Failure::Other(format!(
                        "rows out of order: {last:?}, then {key:?}"
                    )));
                }
                let Some(number) = self.model.number(&key) else {
                    return Err(Failure::Other(format!("a scan found key {key:?}, never written")));
                };
                // The scan may have begun some time ago.
                self.model.judge(number, 0, Some(&value)).map_err(Failure::Other)?;
                last = Some(key.to_vec());
                counts.rows += 1;
            }
        }
        Ok(counts)
    }
}

/// Compares everything, when nobody writes.
pub(super) fn check_all(db: &Db, model: &Model) -> Result<(), Failure> {
    let mut rows = 0;
    for row in db.scan(..).iter() {
        let (key, value) = row.map_err(Failure::engine("the last scan failed"))?;
        let Some(number) = model.number(&key) else {
            return Err(Failure::Other(format!("the last scan found key {key:?}, never written")));
        };
        model.judge(number, model.before(number), Some(&value)).map_err(Failure::Other)?;
        rows += 1u64;
    }
    let live = |number: &u32| model.value(*number, model.before(*number)).is_some();
    let expected = (0..model.keys()).filter(live).count() as u64;
    if rows != expected {
        let message = format!("the last scan found {rows} rows, and there are {expected}");
        return Err(Failure::Other(message));
    }
    Ok(())
}
