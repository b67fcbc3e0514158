//! How fast the generator itself is: one client, closed loop, against an engine
//! that does nothing.
//!
//! That is: choosing and writing the key, making the value, two readings of the
//! clock, and recording. Checking what was read is not in it, for nothing is.
//! `cargo run --release -p ouro-bench --example null_engine`

use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ouro_bench::client::Task;
use ouro_bench::distribution::RecordChooser;
use ouro_bench::failure::Failure;
use ouro_bench::inserts::{Inserts, RecordCounter};
use ouro_bench::pacing::Pace;
use ouro_bench::runner::{self, Phase};
use ouro_bench::shape::{Data, Shape};
use ouro_bench::target::{Handle, Rows};
use ouro_bench::workload::Workload;

const RECORDS: u64 = 1_000_000;
const SECONDS: u64 = 2;

/// Forgets what is put, and knows no key.
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

    fn scan(&mut self, from: &[u8], limit: usize, _found: &mut Rows) -> Result<(), Failure> {
        black_box((from, limit));
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Data::new(Shape::new(RECORDS, 24, 400, 1)?);
    let interrupt = AtomicBool::new(false);
    for workload in [Workload::Update, Workload::A, Workload::B, Workload::D, Workload::GetAbsent] {
        let mix = workload.mix();
        let counter = RecordCounter::new(RECORDS, data.keys.capacity());
        let chooser = RecordChooser::new(mix.choice(), RECORDS, data.keys.capacity(), 1)
            .ok_or("there are no absent keys")?;
        let inserts = Inserts::Shared(&counter);
        // No key is there, and none is expected: a miss is the right answer.
        let task = Task { mix, chooser, expect_present: false, inserts, seed: 1 };
        let phase = Phase {
            clients: vec![(task, Pace::Closed)],
            duration: Some(Duration::from_secs(SECONDS)),
            interrupt: &interrupt,
        };
        let outcome = runner::run(|| NullEngine, &data, phase, |_| ())?;
        assert_eq!(outcome.faults.count, 0);
        let ops_per_s = outcome.recorder.total() as f64 / outcome.elapsed.as_secs_f64();
        println!("{:<12} {:.2} M operations a second", workload.name(), ops_per_s / 1e6);
    }
    Ok(())
}
