//! `load`, from flags to a printed result; and what `run` does in the same way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::{CommonArgs, LoadArgs};
use crate::clients::{self, Places};
use crate::device_share::Calibration;
use crate::directory::{Room, check_space, make_room, write_shape};
use crate::failure::Failure;
use crate::inserts::RecordCounter;
use crate::output::{Bar, Output, Spinner, warn};
use crate::overwriting;
use crate::report::{Config, Measured, Meter, Report, engine_operations};
use crate::runner::{NEVER, Outcome, Phase};
use crate::shape::{Data, Shape};
use crate::table::counted;
use crate::target::{OpenOptions, Target};
use crate::timeline::Timeline;

/// One value may take this share of the memory budget: one in so many.
pub(crate) const VALUE_SHARE: u64 = 4;

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
    let (compression, compressible) = (args.compression, args.compressible);
    let shape = Shape { compression, compressible, ..shape };
    if args.value_bytes.max() as u64 > common.memory / VALUE_SHARE {
        let reason = "--value-bytes must be at most a quarter of --memory";
        return Err(Failure::Usage(reason.to_owned()));
    }
    let options = OpenOptions { create: true, shards: args.shards, ..options(common, &shape) };
    clients::check::<T>(common)?;
    T::check(&options, settings)?;
    overwriting::check(&common.output, &common.dir, common.device.as_deref().as_slice())?;
    let output = Output::new(&common.output)?;
    let calibration = Calibration::given(common)?;
    check_space::<T>(&common.dir, &shape, common.memory)?;
    let room =
        patiently(common, interrupt, || make_room::<T>(&common.dir, &shape, args.overwrite))?;
    let target = open_in::<T>(Some(&room), common, &options, settings, interrupt)?;

    let data = Arc::new(Data::new(shape));
    let clients = Places::new(&target, common)?.load(common, &shape);
    let client_count = clients.len();
    let phase = Phase { clients, duration: budget, interrupt, enough: &NEVER };
    let bar = Bar::new("loading".to_owned(), Some(shape.records), 0);
    let meter = Meter::start(&target.status());
    let mut timeline = Timeline::new(&target, &bar);
    let mut outcome = clients::run_phase(&target, common, &data, phase, &mut timeline)?;
    let intervals = timeline.finish(outcome.elapsed);
    bar.finish();
    let is_loaded = !outcome.ended_early();
    let settle = settle(&target, &mut outcome, interrupt);
    let cut_short_in = (is_loaded && outcome.ended_early()).then_some("settling");
    let status = target.status();
    let partial = outcome.acknowledged < shape.records || outcome.interrupted;
    let config =
        Config { clients: client_count, ..Config::new::<T>(common, settings, &shape, &status)? };
    let result = Measured {
        engine: target.latencies().as_ref().map(engine_operations).unwrap_or_default(),
        ..meter.finish(&outcome, &status, settle, intervals)
    };
    let report = Report::new("load", partial, meter.began(), &common.dir, config, result);
    let report = Report { cut_short_in, ..report };
    let loaded = Shape { records: outcome.acknowledged, ..shape };
    end(target, common, &loaded, &mut outcome);
    conclude(report, calibration.as_ref(), &output, outcome)
}

/// Opens the database. Where that fails, what was made for a load is removed.
pub(crate) fn open_in<T: Target>(
    room: Option<&Room>,
    common: &CommonArgs,
    options: &OpenOptions,
    settings: &T::Settings,
    interrupt: &AtomicBool,
) -> Result<T, Failure> {
    let options = OpenOptions { lock_wait: Duration::ZERO, ..options.clone() };
    let open = || T::open(&common.dir, &options, settings);
    patiently(common, interrupt, open).inspect_err(|failure| {
        // Whoever came between has it now.
        if let Some(room) = room.filter(|_| failure.exit_code() != LOCKED) {
            room.give_back::<T>();
        }
    })
}

/// The exit code when another process has the database open.
const LOCKED: u8 = 4;
/// How soon it is tried again then.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Who waits for longer is told what for.
const LOCK_TOLD: Duration = Duration::from_millis(500);

/// Tries it until no other process has the database open, for as long as `--lock-wait` says.
pub(crate) fn patiently<R>(
    common: &CommonArgs,
    interrupt: &AtomicBool,
    mut attempt: impl FnMut() -> Result<R, Failure>,
) -> Result<R, Failure> {
    let (began, mut is_told) = (Instant::now(), false);
    loop {
        let tried = attempt();
        let is_locked = matches!(&tried, Err(failure) if failure.exit_code() == LOCKED);
        if !is_locked || began.elapsed() >= common.lock_wait {
            return tried;
        }
        if interrupt.load(Ordering::Relaxed) {
            return Err(Failure::Interrupted);
        }
        if !is_told && began.elapsed() >= LOCK_TOLD {
            is_told = true;
            eprintln!(
                "another process has the database in {} open: waiting for it for {} at most",
                common.dir.display(),
                humantime::format_duration(common.lock_wait)
            );
        }
        thread::sleep(LOCK_RETRY);
    }
}

/// Records below this are in the database after a phase. Owners without clients
/// count too.
pub(crate) fn acknowledged(outcome: &Outcome, counters: &[Arc<RecordCounter>]) -> u64 {
    let counted = counters.iter().map(|counter| counter.acknowledged());
    counted.fold(outcome.acknowledged, u64::min)
}

/// How to open a database that is there, with data of this shape.
pub(crate) fn options(common: &CommonArgs, shape: &Shape) -> OpenOptions {
    OpenOptions {
        create: false,
        memory_bytes: common.memory,
        durability: common.durability,
        lock_wait: common.lock_wait,
        shards: None,
        owners: common.owners,
        spin: common.spin,
        requests_max: common.requests_max,
        io: common.io,
        compression: shape.compression,
    }
}

/// What is done meanwhile.
pub(crate) const SETTLING: &str = "settling: flushes and compactions";

/// Waits until everything loaded is in tables. Nothing to wait for where the
/// load failed or was interrupted.
fn settle(target: &impl Target, outcome: &mut Outcome, interrupt: &AtomicBool) -> Option<Duration> {
    if outcome.interrupted || outcome.failure.is_some() {
        return None;
    }
    let begin = Instant::now();
    let spinner = Spinner::new(SETTLING);
    let settled = target.settle(interrupt);
    drop(spinner);
    match settled {
        Ok(()) => {
            outcome.interrupted = interrupt.load(Ordering::Relaxed);
            Some(begin.elapsed()).filter(|_| !outcome.interrupted)
        }
        Err(failure) => {
            outcome.failure = Some(failure);
            None
        }
    }
}

/// Writes down what is in the database now, and closes it. If that fails the outcome has
/// failed, with what was measured; where it already has, what else goes wrong is only a warning.
pub(crate) fn end(target: impl Target, common: &CommonArgs, shape: &Shape, outcome: &mut Outcome) {
    let written = write_shape(&common.dir, shape);
    let closed = target.close();
    for failure in [written, closed].into_iter().filter_map(Result::err) {
        if outcome.failure.is_some() {
            warn(&failure.to_string());
        } else {
            outcome.failure = Some(failure);
        }
    }
}

/// Prints the result, as far as it goes, and says what was wrong with it.
pub(crate) fn conclude(
    mut report: Report,
    calibration: Option<&Calibration>,
    output: &Output,
    outcome: Outcome,
) -> Result<Report, Failure> {
    if let Some(failure) = &outcome.failure {
        report.partial = true;
        report.failure = Some(failure.to_string());
    }
    report.result.device_share =
        calibration.map(|device| device.share(&report.config, &report.result));
    output.report(&report)?;
    if let Some(failure) = outcome.failure {
        return Err(failure);
    }
    if outcome.faults.count > 0 {
        return Err(Failure::Other(format!(
            "{} wrong: {}",
            counted(outcome.faults.count, "read"),
            outcome.faults.first.unwrap_or_default()
        )));
    }
    if outcome.interrupted { Err(Failure::Interrupted) } else { Ok(report) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, OutputArgs};
    use crate::target::{Handle, Rows, Status};
    use clap::Parser;
    use std::path::Path;

    /// Takes what is put. It is interrupted while it settles, or closing it fails.
    struct Slow<const CLOSES: bool>;

    impl<const CLOSES: bool> Handle for &Slow<CLOSES> {
        type Bytes = &'static [u8];

        fn get(&mut self, _key: &[u8]) -> Result<Option<&'static [u8]>, Failure> {
            Ok(None)
        }

        fn put(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), Failure> {
            Ok(())
        }

        fn delete(&mut self, _key: &[u8]) -> Result<(), Failure> {
            Ok(())
        }

        fn scan(&mut self, _from: &[u8], _limit: usize, _found: &mut Rows) -> Result<(), Failure> {
            Ok(())
        }
    }

    impl<const CLOSES: bool> Target for Slow<CLOSES> {
        const NAME: &'static str = "slow";
        type Settings = ();
        type Handle<'a> = &'a Self;

        fn check(_options: &OpenOptions, _settings: &()) -> Result<(), Failure> {
            Ok(())
        }

        fn owns(_path: &Path, _is_dir: bool) -> bool {
            false
        }

        fn open(_dir: &Path, _options: &OpenOptions, _settings: &()) -> Result<Self, Failure> {
            Ok(Self)
        }

        fn handle(&self) -> &Self {
            self
        }

        fn settle(&self, interrupt: &AtomicBool) -> Result<(), Failure> {
            interrupt.store(CLOSES, Ordering::Relaxed);
            Ok(())
        }

        fn status(&self) -> Status {
            Status::default()
        }

        fn close(self) -> Result<(), Failure> {
            if CLOSES { Ok(()) } else { Err(Failure::Other("it cannot be closed".to_owned())) }
        }
    }

    /// How a load of 500 records ends, and its result.
    fn loaded<T: Target<Settings = ()>>() -> (Failure, serde_json::Value) {
        let dir = tempfile::tempdir().unwrap();
        let (db, json) = (dir.path().join("db"), dir.path().join("result.json"));
        let [db, path] = [&db, &json].map(|path| path.to_str().unwrap());
        let words = ["ouro-bench", "load", "--records", "500", "--dir", db, "--json", path];
        let Some(Command::Load(args)) = Cli::parse_from(words).command else { panic!("a load") };
        let ended = load::<T>(&args, &(), None, &AtomicBool::new(false));
        let result = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
        (ended.err().unwrap(), result)
    }

    #[test]
    fn a_load_that_is_interrupted_while_it_settles_says_so() {
        let (ended, result) = loaded::<Slow<true>>();
        assert!(matches!(ended, Failure::Interrupted));
        assert_eq!((&result["partial"], &result["result"]["ops"]), (&true.into(), &500.into()));
        assert_eq!(result["cut_short_in"], "settling");
    }

    #[test]
    fn a_closing_that_fails_throws_no_result_away() {
        let (ended, result) = loaded::<Slow<false>>();
        assert_eq!(ended.to_string(), "it cannot be closed");
        assert_eq!(result["failure"], ended.to_string());
        assert_eq!((&result["partial"], &result["result"]["ops"]), (&true.into(), &500.into()));
    }

    /// What was measured until then is not thrown away.
    #[test]
    fn a_failed_operation_ends_with_a_partial_result() {
        let dir = tempfile::tempdir().unwrap();
        let json = dir.path().join("result.json");
        let to = OutputArgs { json: Some(json.clone()), ..OutputArgs::default() };
        let output = Output::new(&to);
        let report = Report { partial: false, ..crate::table::tests::large("load", None) };
        let failure = Some(Failure::Other("the disk is full".to_owned()));
        let outcome = Outcome { failure, ..Outcome::nothing() };
        let ended = conclude(report, None, &output.unwrap(), outcome);
        assert_eq!(ended.err().unwrap().to_string(), "the disk is full");
        let text = std::fs::read_to_string(json).unwrap();
        let result: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(result["partial"], true);
        assert_eq!(result["failure"], "the disk is full");
    }
}
