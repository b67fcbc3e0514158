//! How fast the generator itself is: one client, closed loop, against an engine
//! that does nothing; a thread, and a task with 16 operations in flight. And how late a thread
//! sends what is due, in an open loop.
//!
//! That is: choosing and writing the key, making the value, two readings of the
//! clock, and recording. Checking what was read is not in it, for nothing is.
//! What tasks do ends at its first poll. Figures are medians of five runs, with the extremes.
//! `cargo run --release -p ouro-bench --example null_engine`

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

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

const RECORDS: u64 = 1_000_000;
const SECONDS: u64 = 1;
/// Of which the medians are printed, and the extremes.
const RUNS: usize = 5;

const DEPTH: usize = 16;
const OPEN_OPS_PER_S: u64 = 500_000;

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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Arc::new(Data::new(Shape::new(RECORDS, KeySizes::fixed(24), Sizes::Fixed(400), 1)?));
    let mut rows: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..RUNS {
        let mut note = |what: String, figure: f64| {
            let at = rows.iter().position(|(row, _)| *row == what).unwrap_or_else(|| {
                rows.push((what, Vec::new()));
                rows.len() - 1
            });
            rows[at].1.push(figure);
        };
        for workload in [BuiltIn::Update, BuiltIn::A, BuiltIn::B, BuiltIn::D, BuiltIn::GetAbsent] {
            run(workload, &data, &mut note)?;
        }
    }
    for (what, mut figures) in rows {
        figures.sort_by(f64::total_cmp);
        println!(
            "{what:<52} {:.2} ({:.2} to {:.2})",
            figures[RUNS / 2],
            figures[0],
            figures[RUNS - 1]
        );
    }
    Ok(())
}

/// One run of each kind of client.
fn run(
    workload: BuiltIn,
    data: &Arc<Data>,
    note: &mut impl FnMut(String, f64),
) -> Result<(), Box<dyn std::error::Error>> {
    let interrupt = AtomicBool::new(false);
    let (mix, name) = (workload.mix(), Workload::from(workload).name);
    let counter = Arc::new(RecordCounter::new(RECORDS, data.keys.capacity()));
    let chooser = RecordChooser::new(mix.choice(), RECORDS, false, data.keys.capacity(), 1)
        .ok_or("there are no absent keys")?;
    let phase = |pace: &Pace| {
        let inserts = Inserts::Shared(Arc::clone(&counter));
        // No key is there, and none is expected: a miss is the right answer.
        let task = Task {
            mix,
            chooser,
            presence: Presence::Never,
            inserts,
            seed: 1,
            own: None,
            trace: None,
            last_keys: Arc::default(),
        };
        Phase {
            clients: vec![(task, pace.clone())],
            duration: Some(Duration::from_secs(SECONDS)),
            interrupt: &interrupt,
            enough: &NEVER,
        }
    };
    let closed = Pace::Closed;
    let thread = runner::run(|| NullEngine, data, phase(&closed), &mut |_| ())?;
    let task = crowd::run(&NullEngine, DEPTH, data, phase(&closed), &mut |_| ())?;
    for (kind, outcome) in [("thread", thread), ("task", task)] {
        assert_eq!(outcome.faults.count, 0);
        let ops_per_s = outcome.recorder.total() as f64 / outcome.elapsed.as_secs_f64();
        note(format!("{name}, {kind}: M operations a second"), ops_per_s / 1e6);
    }
    // An operation takes no time: what it ends late was sent late.
    let rate = Rate::Constant(OPEN_OPS_PER_S);
    let duration = Duration::from_secs(SECONDS);
    let open = Pace::Open(Schedule::new(&rate, Arrivals::Constant, duration, (0, 1), 1));
    let outcome = runner::run(|| NullEngine, data, phase(&open), &mut |_| ())?;
    note(format!("{name}, {OPEN_OPS_PER_S}/s: never sent"), outcome.unsent as f64);
    for kind in mix.kinds() {
        let late = outcome.recorder.histogram(kind).ok_or("nothing was recorded")?;
        for (percentile, quantile) in [("p99", 0.99), ("p99.9", 0.999)] {
            let late_us = late.value_at_quantile(quantile) as f64 / 1000.0;
            let kind = kind.name();
            note(format!("{name}, {OPEN_OPS_PER_S}/s, {kind}: late by us, {percentile}"), late_us);
        }
    }
    Ok(())
}
