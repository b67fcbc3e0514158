//! How fast the generator itself is: one client, closed loop, against an engine
//! that does nothing; a thread, and a task with 16 operations in flight. And how late a thread
//! sends what is due, in an open loop.
//!
//! That is: choosing and writing the key, making the value, two readings of the
//! clock, and recording. Checking what was read is not in it, for nothing is.
//! What tasks do ends at its first poll. Figures are medians of five runs, with the extremes.
//!
//! A thread can send no operation while it has no core. Hence of the open loops those count in
//! which its core was idle but for it: in which it got all CPU time but a five-thousandth. The others
//! are tried again, as often as [`TRIES`] says, and shown apart.
//!
//! `cargo run --release -p ouro-bench --example null_engine`

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ouro_bench::asynchronous::{AsyncClient, AsyncHandle, Asynchronous, Running, spawn_task};
use ouro_bench::crowd;
use ouro_bench::distribution::RecordChooser;
use ouro_bench::failure::Failure;
use ouro_bench::inserts::{Inserts, RecordCounter};
use ouro_bench::keys::KeySizes;
use ouro_bench::pacing::Pace;
use ouro_bench::runner::{self, NEVER, Phase};
use ouro_bench::schedule::{Arrivals, Rate, Schedule};
use ouro_bench::script::{OwnKeys, Presence, Task};
use ouro_bench::shape::{Data, Shape};
use ouro_bench::sizes::Sizes;
use ouro_bench::target::{Handle, Rows};
use ouro_bench::workload::{BuiltIn, Workload};
use rustix::time::{ClockId, clock_gettime};

const RECORDS: u64 = 1_000_000;
/// Of each run.
const DURATION: Duration = Duration::from_secs(1);
/// Of which the medians are printed, and the extremes.
const RUNS: usize = 5;

const DEPTH: usize = 16;
const OPEN_OPS_PER_S: u64 = 500_000;
/// Open loops of a workload until [`RUNS`] of them had an idle core.
const TRIES: usize = 30;
/// The share of an open loop's time that others may have had of an idle core.
const TAKEN_MAX: f64 = 0.0002;

/// Forgets what is put, and knows no key.
#[derive(Clone, Copy)]
struct NullEngine;

impl Handle for NullEngine {
    type Bytes = &'static [u8];

    fn get(&mut self, key: &[u8]) -> Result<Option<&'static [u8]>, Failure> {
        black_box(key);
        Ok(None)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        black_box((key, value));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Failure> {
        black_box(key);
        Ok(())
    }

    fn delete_range(&mut self, from: &[u8], end: &[u8]) -> Result<(), Failure> {
        black_box((from, end));
        Ok(())
    }

    fn scan(&mut self, from: &[u8], limit: usize, _found: &mut Rows) -> Result<(), Failure> {
        black_box((from, limit));
        Ok(())
    }
}

impl AsyncHandle for NullEngine {
    type Bytes = &'static [u8];

    async fn get(&self, key: &[u8]) -> Result<Option<&'static [u8]>, Failure> {
        Handle::get(&mut { *self }, key)
    }

    async fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        Handle::put(&mut { *self }, key, value)
    }

    async fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        Handle::delete(&mut { *self }, key)
    }

    async fn delete_range(&self, from: &[u8], end: &[u8]) -> Result<(), Failure> {
        Handle::delete_range(&mut { *self }, from, end)
    }

    async fn multi_get(
        &self,
        keys: &[Vec<u8>],
        found: &mut Vec<Option<Self::Bytes>>,
    ) -> Result<(), Failure> {
        Handle::multi_get(&mut { *self }, keys, found)
    }

    async fn scan(&self, from: &[u8], limit: usize, found: &mut Rows) -> Result<(), Failure> {
        Handle::scan(&mut { *self }, from, limit, found)
    }
}

impl Asynchronous for NullEngine {
    fn owners(&self) -> usize {
        1
    }

    fn own_keys(&self, owner: usize) -> OwnKeys {
        OwnKeys::new(owner, |_| true)
    }

    fn start_task(&self, runtime: &tokio::runtime::Handle, client: AsyncClient) -> Running<'_> {
        spawn_task(runtime, client.run(*self))
    }

    fn start_on_owner(&self, _owner: usize, client: AsyncClient) -> Running<'_> {
        Box::pin(async move { Ok(client.run(*self).await) })
    }
}

/// CPU time of others on the core of the thread that it was made on, for as long as that lives:
/// other threads, interrupts, and what a hypervisor took, where it says so.
struct Witness {
    taken_ns: Arc<AtomicU64>,
    since: Instant,
    cpu_time_before: Duration,
}

thread_local! {
    static WITNESS: RefCell<Option<Witness>> = const { RefCell::new(None) };
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Witness {
    /// Takes its figure to `taken_ns` when this thread ends.
    fn of_this_thread(taken_ns: &Arc<AtomicU64>) {
        let taken_ns = Arc::clone(taken_ns);
        WITNESS.set(Some(Self { taken_ns, since: Instant::now(), cpu_time_before: cpu_time() }));
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let had = cpu_time() - self.cpu_time_before;
        let taken = self.since.elapsed().saturating_sub(had);
        self.taken_ns.store(taken.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// What was measured, by what it is called.
#[derive(Default)]
struct Figures(Vec<(String, Vec<f64>)>);

impl Figures {
    fn add(&mut self, what: &str, figure: f64) {
        match self.0.iter_mut().find(|(row, _)| row == what) {
            Some((_, figures)) => figures.push(figure),
            None => self.0.push((what.to_owned(), vec![figure])),
        }
    }

    fn print(self) {
        for (what, mut figures) in self.0 {
            figures.sort_by(f64::total_cmp);
            let (runs, median) = (figures.len(), figures[figures.len() / 2]);
            let (least, most) = (figures[0], figures[runs - 1]);
            println!("{what:<60} {median:.2} ({least:.2} to {most:.2}; {runs} runs)");
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Arc::new(Data::new(Shape::new(RECORDS, KeySizes::fixed(24), Sizes::Fixed(400), 1)?));
    let mut figures = Figures::default();
    for workload in [BuiltIn::Update, BuiltIn::A, BuiltIn::B, BuiltIn::D, BuiltIn::GetAbsent] {
        for _ in 0..RUNS {
            closed_loops(workload, &data, &mut figures)?;
        }
        let (mut idle, mut tries) = (0, 0);
        while idle < RUNS && tries < TRIES {
            idle += usize::from(open_loop(workload, &data, &mut figures)?);
            tries += 1;
        }
    }
    figures.print();
    Ok(())
}

/// Calls `work` with a phase of one client.
fn with_phase<T, E: std::error::Error + 'static>(
    workload: BuiltIn,
    data: &Data,
    pace: Pace,
    work: impl FnOnce(Phase<'_>) -> Result<T, E>,
) -> Result<T, Box<dyn std::error::Error>> {
    let interrupt = AtomicBool::new(false);
    let mix = workload.mix();
    let counter = Arc::new(RecordCounter::new(RECORDS, data.keys.capacity()));
    let chooser = RecordChooser::new(mix.choice(), RECORDS, false, data.keys.capacity(), 1)
        .ok_or("there are no absent keys")?;
    // No key is there, and none is expected: a miss is the right answer.
    let task = Task {
        mix,
        chooser,
        presence: Presence::Never,
        inserts: Inserts::Shared(counter),
        seed: 1,
        own: None,
        trace: None,
        last_keys: Arc::default(),
    };
    Ok(work(Phase {
        clients: vec![(task, pace)],
        duration: Some(DURATION),
        interrupt: &interrupt,
        enough: &NEVER,
    })?)
}

/// One run of each kind of client.
fn closed_loops(
    workload: BuiltIn,
    data: &Arc<Data>,
    figures: &mut Figures,
) -> Result<(), Box<dyn std::error::Error>> {
    let name = Workload::from(workload).name;
    let thread = with_phase(workload, data, Pace::Closed, |phase| {
        runner::run(|| NullEngine, data, phase, &mut |_| ())
    })?;
    let task = with_phase(workload, data, Pace::Closed, |phase| {
        crowd::run(&NullEngine, DEPTH, data, phase, &mut |_| ())
    })?;
    for (kind, outcome) in [("thread", thread), ("task", task)] {
        assert_eq!(outcome.faults.count, 0);
        let ops_per_s = outcome.recorder.total() as f64 / outcome.elapsed.as_secs_f64();
        figures.add(&format!("{name}, {kind}: M operations a second"), ops_per_s / 1e6);
    }
    Ok(())
}

/// By how many us at p99.9 a loop that does nothing but read the clock is late at this rate: what
/// the core itself is late by.
fn bare_loop_late_us() -> Result<f64, Box<dyn std::error::Error>> {
    let mut late = Histogram::<u64>::new(3)?;
    let period_ns = 1_000_000_000 / OPEN_OPS_PER_S;
    let start = Instant::now();
    for due_ns in (0..DURATION.as_nanos() as u64).step_by(period_ns as usize) {
        let now_ns = loop {
            let now_ns = start.elapsed().as_nanos() as u64;
            if now_ns >= due_ns {
                break now_ns;
            }
        };
        late.record(now_ns - due_ns)?;
    }
    Ok(late.value_at_quantile(0.999) as f64 / 1000.0)
}

/// One run of a thread; whether its core was idle but for it.
fn open_loop(
    workload: BuiltIn,
    data: &Arc<Data>,
    figures: &mut Figures,
) -> Result<bool, Box<dyn std::error::Error>> {
    let bare_late_us = bare_loop_late_us()?;
    let rate = Rate::Constant(OPEN_OPS_PER_S);
    let pace = Pace::Open(Schedule::new(&rate, Arrivals::Constant, DURATION, (0, 1), 1));
    let taken_ns = Arc::new(AtomicU64::new(0));
    let outcome = with_phase(workload, data, pace, |phase| {
        let handle = || {
            Witness::of_this_thread(&taken_ns);
            NullEngine
        };
        runner::run(handle, data, phase, &mut |_| ())
    })?;
    let taken = taken_ns.load(Ordering::Relaxed) as f64 / DURATION.as_nanos() as f64;
    let is_idle = taken <= TAKEN_MAX;
    let name = Workload::from(workload).name;
    let row = format!("{name}, {OPEN_OPS_PER_S}/s{}", if is_idle { "" } else { ", core taken" });
    figures.add(&format!("{row}: time of others, per mille"), taken * 1e3);
    figures.add(&format!("{row}: a bare loop before it, late by us, p99.9"), bare_late_us);
    figures.add(&format!("{row}: never sent"), outcome.unsent as f64);
    // An operation takes no time: what it ends late was sent late.
    for kind in workload.mix().kinds() {
        let late = outcome.recorder.histogram(kind).ok_or("nothing was recorded")?;
        for (percentile, quantile) in [("p99", 0.99), ("p99.9", 0.999)] {
            let late_us = late.value_at_quantile(quantile) as f64 / 1000.0;
            figures.add(&format!("{row}, {}: late by us, {percentile}", kind.name()), late_us);
        }
    }
    Ok(is_idle)
}
