//! `run`: a workload on a loaded database, in phases: load (`--fresh`) or settle, warm-up,
//! measure; once, or at one rate after the other (`--find-max`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crate::cli::{KEY_BYTES, RunArgs, Speed, VALUE_BYTES, WarmUp};
use crate::clients::{self, Places};
use crate::commands::{
    SETTLING, VALUE_SHARE, acknowledged, conclude, end, open_in, options, patiently,
};
use crate::device_share::Calibration;
use crate::directory::{check_space, make_room, read_shape, write_shape};
use crate::failure::Failure;
use crate::find_max::{Found, Next, Promise, Search, Step, behind_s};
use crate::inserts::RecordCounter;
use crate::keys::KeySizes;
use crate::output::{Bar, Output, Spinner, warn};
use crate::overwriting;
use crate::pacing::Pace;
use crate::read_first::read_all;
use crate::report::{Config, Measured, Meter, Report, engine_operations};
use crate::runner::{NEVER, Outcome, Phase, Progress};
use crate::schedule::Rate;
use crate::script::Task;
use crate::shape::{Data, Shape};
use crate::sizes::Sizes;
use crate::steady::{self, Steady, UntilSteady};
use crate::table::{duration, grouped, wrapped};
use crate::target::{OpenOptions, Status, Target};
use crate::timeline::Timeline;
use crate::workload::{Mix, OpKind, Workload};

/// How long the clients of a search work as fast as they can, to see where it begins.
const PROBE: Duration = Duration::from_secs(2);

/// Runs a workload on a loaded database, prints the result and returns it. What
/// earlier runs left to do is done before, unless the load is part of this run.
///
/// `interrupt` ends it with [`Failure::Interrupted`], after the partial result.
pub fn run<T: Target>(
    args: &RunArgs,
    settings: &T::Settings,
    interrupt: &AtomicBool,
) -> Result<Report, Failure> {
    let common = &args.common;
    clients::check::<T>(common)?;
    if let Some(promise) = &args.find_max {
        check_promise(promise, args)?;
    }
    let shape = match args.fresh {
        Some(records) => {
            Shape::new(records, KeySizes::fixed(KEY_BYTES), Sizes::Fixed(VALUE_BYTES), common.seed)
        }
        None => Ok(read_shape(&common.dir)?),
    };
    let shape = shape.map_err(Failure::Usage)?;
    check_trace(args, &shape)?;
    check_values(&args.chosen_workload(), &shape)?;
    check_background(args)?;
    let options = OpenOptions { create: args.fresh.is_some(), ..options(common, &shape) };
    T::check(&options, settings)?;
    let inputs: Vec<&Path> =
        common.device.iter().chain(&args.workload.file).map(PathBuf::as_path).collect();
    overwriting::check(&common.output, &common.dir, &inputs)?;
    let output = Output::new(&common.output)?;
    let calibration = Calibration::given(common)?;
    if args.workload.trace.is_some() && !shape.is_traced {
        warn(
            "a trace has keys and values of its own: no other workload can be run on this database \
             afterwards",
        );
    }
    let room = match args.fresh {
        Some(_) => {
            check_space::<T>(&common.dir, &shape, common.memory)?;
            Some(patiently(common, interrupt, || make_room::<T>(&common.dir, &shape, true))?)
        }
        None => None,
    };
    let data = Arc::new(Data::new(shape));
    let target = open_in::<T>(room.as_ref(), common, &options, settings, interrupt)?;
    let places = Places::new(&target, common)?;
    let counters = places.counters(&data);
    let mut session = Session {
        args,
        settings,
        interrupt,
        target,
        shape,
        data,
        places,
        counters,
        warm_up_s: None,
        warm_up_steady: None,
        half_loaded: None,
        cut_short_in: None,
        has_begun: false,
    };
    // Before anything takes long: whether there are such clients at all.
    let clients = session.clients(args, common.seed, args.duration())?;
    let ended = session.prepare()?;
    let (report, mut outcome) = match (ended, &args.find_max) {
        // Nobody begins any more.
        (Some(ended), _) => session.unmeasured(ended)?,
        (None, None) => {
            session.begin()?;
            session.measure(args, clients)?
        }
        (None, Some(promise)) => {
            drop(clients);
            session.begin()?;
            session.find_max(promise, &output)?
        }
    };
    let has_begun = session.has_begun;
    let is_sent = has_begun && (outcome.recorder.total() > 0 || outcome.failure.is_some());
    let has_gaps = shape.has_gaps || (has_begun && args.chosen_workload().has(OpKind::deletes));
    let is_traced = shape.is_traced || (is_sent && args.workload.trace.is_some());
    let records = if session.half_loaded.is_some() { 0 } else { outcome.acknowledged };
    let after = Shape { records, has_gaps, is_traced, ..shape };
    let capacity = session.data.keys.capacity();
    end(session.target, common, &after, &mut outcome);
    let is_traced = args.workload.trace.is_some();
    let full = outcome.exhausted && !is_traced;
    let nothing = report.result.find_max.as_ref().is_some_and(|found| found.rate_ops_per_s == 0);
    let report = conclude(report, calibration.as_ref(), &output, outcome)?;
    if full {
        return Err(Failure::Other(format!(
            "all {capacity} keys of {} bytes are taken: there is nothing left to insert. Load again \
             with a longer --key-bytes",
            shape.key_bytes
        )));
    }
    match &args.find_max {
        Some(promise) if nothing => {
            let lowest = promise.lowest_rate(args.duration());
            let mut reason = format!("no rate keeps the promise {promise}");
            if lowest > 1 {
                let from = grouped(lowest);
                reason += &format!(
                    ", from {from}/s on; at lower ones only longer runs (--seconds) have enough \
                     operations to tell"
                );
            }
            Err(Failure::NotFound(reason))
        }
        _ => Ok(report),
    }
}

/// Refuses what cannot be done with a trace, and workloads on what one has left.
fn check_trace(args: &RunArgs, shape: &Shape) -> Result<(), Failure> {
    let dir = args.common.dir.display();
    let refused = match &args.workload.trace {
        None if shape.is_traced => format!(
            "a trace was replayed on {dir}, which has keys and values of its own: load anew, or \
             replay another trace"
        ),
        None if args.speed != Speed::Times(1.0) => "--speed is for traces".to_owned(),
        None => return Ok(()),
        Some(_) if args.rate.is_some() || args.find_max.is_some() => {
            "a trace has its own times: --speed in place of --rate and --find-max".to_owned()
        }
        Some(_) if args.warm_up.is_some() || args.distribution.is_some() => {
            "a trace is replayed once, as it is: without --warm-up and --distribution".to_owned()
        }
        Some(_) if args.common.depth > 1 => {
            "what a trace does to one key stays in its order, with one operation of each client in \
             flight: more --clients in place of --depth"
                .to_owned()
        }
        Some(trace) if trace.value_bytes_max() as u64 > args.common.memory / VALUE_SHARE => {
            let bytes = trace.value_bytes_max();
            format!("the trace has a value of {bytes} bytes, and a quarter of --memory is less")
        }
        Some(_) => return Ok(()),
    };
    Err(Failure::Usage(refused))
}

/// Refuses a workload about records or values that are not there.
fn check_values(workload: &Workload, shape: &Shape) -> Result<(), Failure> {
    workload.check().map_err(Failure::Usage)?;
    let (wanted, bytes) = (workload.value_bytes_min, shape.values().min());
    if bytes >= wanted {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "the workload {} is about values of {wanted} bytes or more, and these have {bytes}: load with \
         --value-bytes 128KiB, say; --fresh has values of 400 bytes",
        workload.name
    )))
}

/// Refuses to mix latencies from when operations were due with those of a client that waits for
/// each before the next.
fn check_background(args: &RunArgs) -> Result<(), Failure> {
    let workload = args.chosen_workload();
    let Some(background) =
        workload.background.filter(|_| args.is_open() || args.find_max.is_some())
    else {
        return Ok(());
    };
    match workload.mix.kinds().find(|kind| background.kinds().any(|other| other == *kind)) {
        Some(kind) => Err(Failure::Usage(format!(
            "the workload {} has {} both at a rate and in the background, as fast as it can: of that \
             one latency would say nothing; leave it out of one of them, or run it without --rate and \
             --find-max",
            workload.name,
            kind.name()
        ))),
        None => Ok(()),
    }
}

/// Refuses a promise of operations that are not done.
fn check_promise(promise: &Promise, args: &RunArgs) -> Result<(), Failure> {
    if matches!(args.rate, Some(ref rate) if !matches!(rate, Rate::Constant(_))) {
        let reason = "--find-max begins with a constant --rate, or finds one itself";
        return Err(Failure::Usage(reason.to_owned()));
    }
    let workload = args.chosen_workload();
    match promise.kind() {
        Some(kind) if !workload.has(|one| one == kind) => {
            let (kind, workload) = (kind.name(), workload.name);
            Err(Failure::Usage(format!("the workload {workload} has no operation {kind}")))
        }
        _ => Ok(()),
    }
}

/// An open database, and all that its runs have in common.
struct Session<'a, T: Target> {
    args: &'a RunArgs,
    settings: &'a T::Settings,
    interrupt: &'a AtomicBool,
    target: T,
    shape: Shape,
    data: Arc<Data>,
    places: Places,
    counters: Vec<Arc<RecordCounter>>,
    warm_up_s: Option<f64>,
    warm_up_steady: Option<Steady>,
    /// Its load did not end, with so many records: nothing can be run on it later.
    half_loaded: Option<u64>,
    /// In which phase before the measurement that was.
    cut_short_in: Option<&'static str>,
    /// Clients have begun with the workload.
    has_begun: bool,
}

impl<T: Target> Session<'_, T> {
    fn clients(
        &self,
        args: &RunArgs,
        seed: u64,
        duration: Duration,
    ) -> Result<Vec<(Task, Pace)>, Failure> {
        self.places.run(args, seed, &self.data, &self.counters, duration)
    }

    /// Loads or settles, and warms up. Returns how that ended if it failed or was interrupted:
    /// then there is nothing to be measured.
    fn prepare(&mut self) -> Result<Option<Outcome>, Failure> {
        let (args, interrupt) = (self.args, self.interrupt);
        let common = &args.common;
        if args.fresh.is_some() {
            let clients = self.places.load(common, &self.shape);
            let phase = Phase { clients, duration: None, interrupt, enough: &NEVER };
            let bar = Bar::new("loading".to_owned(), Some(self.shape.records), 0);
            let mut watch = |progress: Progress| bar.update(progress);
            let loaded = clients::run_phase(&self.target, common, &self.data, phase, &mut watch)?;
            bar.finish();
            if loaded.ended_early() {
                self.half_loaded = Some(loaded.acknowledged);
            }
            let ended = self.cut_short("loading", loaded.failure);
            if ended.is_some() {
                return Ok(ended);
            }
        } else {
            let spinner = Spinner::new(SETTLING);
            let settled = self.target.settle(interrupt);
            drop(spinner);
            let ended = self.cut_short("settling", settled.err());
            if ended.is_some() {
                return Ok(ended);
            }
        }
        if args.read_first {
            let read = read_all(&self.target, &self.data, interrupt);
            let ended = self.cut_short("reading everything once", read.err());
            if ended.is_some() {
                return Ok(ended);
            }
        }
        let Some(warm_up) = args.warm_up() else { return Ok(None) };
        self.has_begun = true;
        // A search's caches are to be warm for all of its rates.
        let rate = args.rate.clone().filter(|_| args.find_max.is_none());
        let args = &RunArgs { rate, ..args.clone() };
        let duration = warm_up.at_most();
        let clients = self.clients(args, !common.seed, duration)?;
        let enough = AtomicBool::new(false);
        let phase = Phase { clients, duration: Some(duration), interrupt, enough: &enough };
        let bar = Bar::new("warming up".to_owned(), None, duration.as_millis() as u64);
        let wanted = matches!(warm_up, WarmUp::Steady(_)).then_some(&enough);
        let timeline = Timeline::new(&self.target, &bar);
        let mut watch = UntilSteady::new(timeline, args.paced_kinds(), wanted);
        let warmed = clients::run_phase(&self.target, common, &self.data, phase, &mut watch)?;
        bar.finish();
        let last = watch.last().and_then(|last| last.reason.clone());
        if let Some(ended) = self.cut_short("warming up", warmed.failure) {
            return Ok(Some(Outcome { acknowledged: warmed.acknowledged, ..ended }));
        }
        if wanted.is_some_and(|enough| !enough.load(Ordering::Relaxed)) {
            let reason = last.unwrap_or_else(|| "it was too short to tell".to_owned());
            let seconds = duration.as_secs_f64();
            warn(&format!("no steady state in {seconds} s of warming up: {reason}"));
            self.warm_up_steady = Some(Steady { is_steady: false, reason: Some(reason) });
        }
        self.warm_up_s = Some(warmed.elapsed.as_secs_f64());
        Ok(None)
    }

    /// What is left of a phase before the measurement that failed or was interrupted.
    fn cut_short(&mut self, phase: &'static str, failure: Option<Failure>) -> Option<Outcome> {
        let interrupted = self.interrupt.load(Ordering::Relaxed);
        if failure.is_none() && !interrupted {
            return None;
        }
        self.cut_short_in = Some(phase);
        Some(Outcome { interrupted, failure, ..Outcome::nothing() })
    }

    /// The measurement begins. What a trace leaves is marked as that before its first operation,
    /// so that it is also where the process dies.
    fn begin(&mut self) -> Result<(), Failure> {
        self.has_begun = true;
        let is_replay = self.args.workload.trace.is_some() && self.args.fresh.is_none();
        if is_replay && !self.shape.is_traced {
            write_shape(&self.args.common.dir, &Shape { is_traced: true, ..self.shape })?;
        }
        Ok(())
    }

    /// A report without a measurement.
    fn unmeasured(&self, mut ended: Outcome) -> Result<(Report, Outcome), Failure> {
        let status = self.target.status();
        let meter = Meter::start(&status);
        ended.acknowledged = acknowledged(&ended, &self.counters);
        let result = meter.finish(&ended, &status, None, Vec::new());
        Ok((self.report(self.args, true, meter.began(), &status, result)?, ended))
    }

    /// Runs clients at the rate of `args`, and makes a report of it.
    fn measure(
        &self,
        args: &RunArgs,
        clients: Vec<(Task, Pace)>,
    ) -> Result<(Report, Outcome), Failure> {
        let common = &args.common;
        let interrupt = self.interrupt;
        let phase = Phase { clients, duration: Some(args.duration()), interrupt, enough: &NEVER };
        let what = format!("running {}", args.chosen_workload().name);
        let bar = Bar::new(what, None, args.duration().as_millis() as u64);
        let meter = Meter::start(&self.target.status());
        let before = self.target.latencies();
        let mut timeline = Timeline::new(&self.target, &bar);
        let outcome = clients::run_phase(&self.target, common, &self.data, phase, &mut timeline);
        let mut outcome = outcome?;
        let intervals = timeline.finish(outcome.elapsed);
        bar.finish();
        outcome.acknowledged = acknowledged(&outcome, &self.counters);
        let status = self.target.status();
        let mut result = meter.finish(&outcome, &status, None, intervals);
        let measured = self.target.latencies().zip(before);
        result.engine = measured
            .map(|(after, before)| engine_operations(&after.since(&before)))
            .unwrap_or_default();
        if args.is_open() && !outcome.ended_early() {
            let [elapsed, length] = [outcome.elapsed_paced, args.duration()];
            result.behind_s = behind_s(elapsed.as_secs_f64(), length.as_secs_f64());
        }
        // What is to change is not steady, and need not be.
        let is_even = matches!(args.rate, None | Some(Rate::Constant(_)));
        if is_even && args.workload.trace.is_none() {
            result.steady = steady::judge(&result.intervals, &args.paced_kinds());
        }
        let partial = outcome.interrupted || (outcome.exhausted && args.workload.trace.is_none());
        Ok((self.report(args, partial, meter.began(), &status, result)?, outcome))
    }

    /// What was asked for, beside what was measured.
    fn report(
        &self,
        args: &RunArgs,
        partial: bool,
        began: SystemTime,
        status: &Status,
        mut result: Measured,
    ) -> Result<Report, Failure> {
        let common = &args.common;
        result.warm_up_steady.clone_from(&self.warm_up_steady);
        if let Some(records) = self.half_loaded {
            result.records = records;
        }
        let workload = args.chosen_workload();
        let has = |kind| workload.has(|one| one == kind);
        let config = Config {
            workload: Some(workload.name.clone()),
            description: Some(workload.description.clone()),
            percent: workload.mix.percent(),
            background: workload.background.as_ref().map(Mix::percent),
            scan_rows_max: has(OpKind::Scan).then(|| workload.scan_rows_max()),
            multi_get_keys: has(OpKind::MultiGet).then(|| workload.mix.multi_get_keys()),
            delete_range_rows: has(OpKind::DeleteRange).then(|| workload.mix.delete_range_rows()),
            distribution: Some(workload.mix.choice().to_string()),
            r#loop: if args.is_open() { "open" } else { "closed" },
            rate_ops_per_s: match args.rate {
                Some(Rate::Constant(rate)) => Some(rate),
                _ => None,
            },
            rate: args.rate.as_ref().map(Rate::to_string),
            arrivals: args.rate.as_ref().map(|_| args.arrivals),
            seconds: Some(args.duration().as_secs_f64()),
            read_first: args.read_first,
            warm_up_s: self.warm_up_s,
            ..Config::new::<T>(common, self.settings, &self.shape, status)?
        };
        let mut report = Report::new("run", partial, began, &common.dir, config, result);
        report.cut_short_in = self.cut_short_in;
        Ok(report)
    }

    /// Looks for the highest rate that keeps a promise. The report is that of the last run
    /// which kept it, or of the last one if none did, or if it ended the search early.
    fn find_max(&self, promise: &Promise, output: &Output) -> Result<(Report, Outcome), Failure> {
        let begin = match self.args.rate {
            Some(Rate::Constant(rate)) => rate,
            _ => {
                let seconds = self.args.duration().min(PROBE);
                let probe = RunArgs { seconds: Some(seconds), ..self.args.clone() };
                let clients = self.clients(&probe, self.args.common.seed, seconds)?;
                let (report, outcome) = self.measure(&probe, clients)?;
                if outcome.ended_early() || outcome.exhausted || outcome.faults.count > 0 {
                    let found = Found::early(promise, (0, 0), Vec::new());
                    return Ok((ended_early(report, found, output)?, outcome));
                }
                (report.result.ops_per_s / 2.0) as u64
            }
        };
        let workload = self.args.chosen_workload().name;
        output.say(&format!("Looking for the highest rate of {workload} with {promise}:\n"))?;
        let mut search = Search::new(begin, promise.lowest_rate(self.args.duration()));
        let mut steps: Vec<Step> = Vec::new();
        let (mut best, mut last) = (None, None);
        let is_found = loop {
            let rate = match search.next() {
                Next::Run(rate) => rate,
                Next::Found(_) => break true,
                Next::Nothing => break false,
            };
            let args = RunArgs { rate: Some(Rate::Constant(rate)), ..self.args.clone() };
            let seed = self.args.common.seed.wrapping_add(steps.len() as u64 + 1);
            // What the last run left to do is not this one's.
            if let Err(failure) = self.target.settle(self.interrupt) {
                let ended = Outcome { failure: Some(failure), ..Outcome::nothing() };
                let (mut report, outcome) = self.unmeasured(ended)?;
                report.cut_short_in = Some("settling");
                let found = Found::early(promise, search.best(), steps);
                return Ok((ended_early(report, found, output)?, outcome));
            }
            let clients = self.clients(&args, seed, args.duration())?;
            let (report, outcome) = self.measure(&args, clients)?;
            // Wrong reads are told in any case.
            if outcome.ended_early() || outcome.exhausted || outcome.faults.count > 0 {
                let found = Found::early(promise, search.best(), steps);
                return Ok((ended_early(report, found, output)?, outcome));
            }
            let latency_ns = promise.worst_ns(&report.result);
            let is_kept = promise.is_kept(&report.result);
            let unsent_ops = report.result.unsent_ops;
            steps.push(Step { rate_ops_per_s: rate, latency_ns, unsent_ops, is_kept });
            let latency = latency_ns.map_or("nothing done".to_owned(), |ns| duration(ns as f64));
            let verdict = match (is_kept, unsent_ops) {
                (true, _) => "kept".to_owned(),
                (false, 0) if latency_ns.is_some_and(|ns| promise.allows(ns)) => {
                    "broken: operations ended ever later".to_owned()
                }
                (false, 0) => "broken".to_owned(),
                (false, unsent) => format!("broken, {} never sent", grouped(unsent)),
            };
            output.say(&format!("{:>14}/s  {latency:>7}  {verdict}\n", grouped(rate)))?;
            search.tell(is_kept);
            match is_kept {
                true => best = Some((report, outcome)),
                false => last = Some((report, outcome)),
            }
        };
        // What was kept by luck is not shown where nothing is found.
        let shown = if is_found { best.or(last) } else { last.or(best) };
        let (mut report, mut outcome) = shown.expect("a search has a run");
        // Later runs may have inserted more.
        outcome.acknowledged = acknowledged(&outcome, &self.counters);
        report.result.records = outcome.acknowledged;
        let found = Found { is_complete: true, ..Found::early(promise, search.best(), steps) };
        if is_found {
            output
                .say(&format!("At {}/s {promise} is kept:\n\n", grouped(found.rate_ops_per_s)))?;
        }
        report.result.find_max = Some(found);
        Ok((report, outcome))
    }
}

/// Says how far a search came that ended in this run.
fn ended_early(mut report: Report, found: Found, output: &Output) -> Result<Report, Failure> {
    let words = found.words(report.config.rate_ops_per_s);
    output.say(&format!("{}\n\n", wrapped(&words, " ")))?;
    report.result.find_max = Some(found);
    Ok(report)
}
