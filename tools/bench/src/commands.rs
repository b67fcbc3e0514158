//! `load` and `run`: from flags to a printed result.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::cli::{CommonArgs, LoadArgs, RunArgs};
use crate::client::Task;
use crate::directory::{make_room, read_shape, write_shape};
use crate::distribution::{KeyChoice, RecordChooser};
use crate::failure::Failure;
use crate::inserts::{Inserts, RecordCounter};
use crate::machine::Machine;
use crate::output::{Bar, Output, warn};
use crate::pacing::Pace;
use crate::permutation::mix64;
use crate::report::{Config, Meter, RESULT_FORMAT, Report, Versions};
use crate::runner::{self, Outcome, Phase};
use crate::shape::{Data, Shape};
use crate::table;
use crate::target::{OpenOptions, Target};
use crate::workload::Mix;

/// Loads a database, prints the result and returns it.
///
/// A load that is not done after `budget` ends then, with the records it has.
/// `interrupt` ends it with [`Failure::Interrupted`], after the partial result.
pub fn load<T: Target>(
    args: &LoadArgs,
    settings: &T::Settings,
    budget: Option<Duration>,
    interrupt: &AtomicBool,
) -> Result<Report, Failure> {
    let common = &args.common;
    let shape = Shape::new(args.records, args.key_bytes, args.value_bytes, common.seed)
        .map_err(Failure::Usage)?;
    let options = OpenOptions { create: true, shards: args.shards, ..options(common) };
    T::check(&options, settings)?;
    let output = Output::new(common.json.as_deref())?;
    make_room::<T>(&common.dir, &shape, args.overwrite, common.lock_wait)?;
    let target = T::open(&common.dir, &options, settings)?;

    let data = Data::new(shape);
    let clients = (0..common.clients as u64).map(|client| {
        let task = Task {
            mix: Mix::LOAD,
            chooser: RecordChooser::Uniform { records: shape.records },
            expect_present: true,
            inserts: Inserts::Strided {
                next: client,
                step: common.clients as u64,
                end: shape.records,
            },
            seed: client_seed(common.seed, client),
        };
        (task, Pace::Closed)
    });
    let phase = Phase { clients: clients.collect(), duration: budget, interrupt };
    let bar = Bar::new("loading".to_owned(), Some(shape.records), 0);
    let meter = Meter::start(&target.status());
    let mut outcome =
        runner::run(|| target.handle(), &data, phase, |progress| bar.update(progress))
            .map_err(Failure::os("cannot start the clients"))?;
    bar.finish();
    let settle = settle(&target, &mut outcome);
    let status = target.status();
    let report = Report {
        format: RESULT_FORMAT,
        command: "load",
        partial: outcome.acknowledged < shape.records,
        started: meter.started().0,
        started_unix_s: meter.started().1,
        versions: Versions::THIS,
        config: Config::new::<T>(common, settings, &shape, &status)?,
        machine: Machine::look(&common.dir),
        result: meter.finish(&outcome, &status, &shape, settle),
    };
    end(target, common, &Shape { records: outcome.acknowledged, ..shape }, &outcome)?;
    conclude(report, &output, outcome)
}

/// Runs a workload on a loaded database, prints the result and returns it. What
/// earlier runs left to do is done before.
///
/// `interrupt` ends it with [`Failure::Interrupted`], after the partial result.
pub fn run<T: Target>(
    args: &RunArgs,
    settings: &T::Settings,
    interrupt: &AtomicBool,
) -> Result<Report, Failure> {
    let common = &args.common;
    let options = options(common);
    T::check(&options, settings)?;
    let shape = read_shape(&common.dir)?;
    let output = Output::new(common.json.as_deref())?;
    let data = Data::new(shape);
    let counter = RecordCounter::new(shape.records, data.keys.capacity());
    let clients = clients(args, &data, &counter)?;
    let target = T::open(&common.dir, &options, settings)?;
    target.settle()?;

    let phase = Phase { clients, duration: Some(args.seconds), interrupt };
    let what = format!("running {}", args.workload.name());
    let bar = Bar::new(what, None, args.seconds.as_millis() as u64);
    let meter = Meter::start(&target.status());
    let outcome = runner::run(|| target.handle(), &data, phase, |progress| bar.update(progress))
        .map_err(Failure::os("cannot start the clients"))?;
    bar.finish();
    let status = target.status();
    let report = Report {
        format: RESULT_FORMAT,
        command: "run",
        partial: outcome.interrupted || outcome.exhausted,
        started: meter.started().0,
        started_unix_s: meter.started().1,
        versions: Versions::THIS,
        config: Config {
            workload: Some(args.workload),
            r#loop: if args.rate.is_some() { "open" } else { "closed" },
            rate_ops_per_s: args.rate,
            seconds: Some(args.seconds.as_secs_f64()),
            ..Config::new::<T>(common, settings, &shape, &status)?
        },
        machine: Machine::look(&common.dir),
        result: meter.finish(&outcome, &status, &shape, None),
    };
    let after = Shape { records: outcome.acknowledged, ..shape };
    end(target, common, &after, &outcome)?;
    let full = outcome.exhausted;
    let report = conclude(report, &output, outcome)?;
    if full {
        return Err(Failure::Other(format!(
            "all {} keys of {} bytes are taken: there is nothing left to insert. Load again with \
             a longer --key-bytes",
            data.keys.capacity(),
            shape.key_bytes
        )));
    }
    Ok(report)
}

/// The clients of a workload, the background one last.
fn clients<'a>(
    args: &RunArgs,
    data: &Data,
    counter: &'a RecordCounter,
) -> Result<Vec<(Task<'a>, Pace)>, Failure> {
    let clients = args.common.clients as u64;
    let task = |mix: Mix, client: u64| {
        let Shape { records, seed, .. } = data.shape;
        let chooser = RecordChooser::new(mix.choice(), records, data.keys.capacity(), seed);
        let chooser = chooser.ok_or_else(|| {
            Failure::Usage(format!(
                "there are no absent keys: all {records} keys of {} bytes are taken",
                data.shape.key_bytes
            ))
        })?;
        Ok(Task {
            mix,
            chooser,
            expect_present: mix.choice() != KeyChoice::Absent,
            inserts: Inserts::Shared(counter),
            seed: client_seed(args.common.seed, client),
        })
    };
    let pace = |client| match args.rate {
        Some(rate) => Pace::Constant { rate, clients, client },
        None => Pace::Closed,
    };
    let foreground =
        (0..clients).map(|client| Ok((task(args.workload.mix(), client)?, pace(client))));
    let background = args.workload.background();
    let background = background.map(|mix| Ok((task(mix, clients)?, Pace::Closed)));
    foreground.chain(background).collect()
}

/// Neighbouring seeds and clients get unrelated random numbers.
fn client_seed(seed: u64, client: u64) -> u64 {
    mix64(mix64(seed) ^ client)
}

/// How to open a database that is there.
fn options(common: &CommonArgs) -> OpenOptions {
    OpenOptions {
        create: false,
        memory_bytes: common.memory,
        durability: common.durability,
        lock_wait: common.lock_wait,
        shards: None,
        owners: common.owners,
        io: common.io,
    }
}

/// Waits until everything loaded is in tables. Nothing to wait for where the
/// load failed or was interrupted.
fn settle(target: &impl Target, outcome: &mut Outcome) -> Option<Duration> {
    if outcome.interrupted || outcome.failure.is_some() {
        return None;
    }
    let begin = Instant::now();
    match target.settle() {
        Ok(()) => Some(begin.elapsed()),
        Err(failure) => {
            outcome.failure = Some(failure);
            None
        }
    }
}

/// Writes down what is in the database now, and closes it. After a failure both
/// are tried, and what else goes wrong is only a warning.
fn end(
    target: impl Target,
    common: &CommonArgs,
    shape: &Shape,
    outcome: &Outcome,
) -> Result<(), Failure> {
    let written = write_shape(&common.dir, shape);
    let closed = target.close();
    for result in [written, closed] {
        match result {
            Err(failure) if outcome.failure.is_some() => warn(&failure.to_string()),
            result => result?,
        }
    }
    Ok(())
}

/// Prints the result, unless there is none, and says what was wrong with it.
fn conclude(report: Report, output: &Output, outcome: Outcome) -> Result<Report, Failure> {
    if let Some(failure) = outcome.failure {
        return Err(failure);
    }
    output.result(&table::render(&report), &report)?;
    if outcome.faults.count > 0 {
        return Err(Failure::Other(format!(
            "{} reads returned something else than what was written; first: {}",
            outcome.faults.count,
            outcome.faults.first.unwrap_or_default()
        )));
    }
    if outcome.interrupted { Err(Failure::Interrupted) } else { Ok(report) }
}
