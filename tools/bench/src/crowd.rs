//! Runs all clients of a phase that are no threads: starts them, watches, and
//! adds up what they measured. [`runner`](crate::runner) does the same for
//! threads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::alarm::AlarmThread;
use crate::asynchronous::{AsyncClient, Asynchronous, Running, Stage};
use crate::failure::Failure;
use crate::intervals::{Journal, Ledger};
use crate::pipeline::Timer;
use crate::runner::{Outcome, Phase, Progress, WATCH_INTERVAL, Watch, add_up};
use crate::script::{OwnKeys, Script};
use crate::shape::Data;

/// What it takes to start clients, and each of them.
const LEAD_NS: u64 = 2_000_000;
const LEAD_NS_EACH: u64 = 50_000;

/// Runs a phase to its end, each client with at most `depth` operations in
/// flight. A client that keeps to the keys of an owner runs there; all others
/// are tasks of a runtime with a thread for each core. `watch` hears of the
/// progress every now and then, and of each second.
///
/// Fails where a client cannot be started, or has no key to work with.
pub fn run(
    target: &dyn Asynchronous,
    depth: usize,
    data: &Arc<Data>,
    phase: Phase<'_>,
    watch: &mut impl Watch,
) -> Result<Outcome, Failure> {
    let scripts: Vec<_> = phase
        .clients
        .into_iter()
        .map(|(task, pace)| (Script::new(Arc::clone(data), task), pace))
        .collect();
    scripts.iter().try_for_each(|(script, _)| check_keys(script))?;
    let acknowledged_before =
        scripts.iter().map(|(script, _)| script.task().inserts.acknowledged()).min();

    let cannot_start = || Failure::no_threads("the clients");
    let alarm_thread = AlarmThread::start().map_err(cannot_start())?;
    let runtime = runtime().map_err(cannot_start())?;
    let duration_ns = phase.duration.map(|duration| duration.as_nanos() as u64);
    // Where operations are due, the first of them is when all clients are there.
    let is_open = scripts.iter().any(|(_, pace)| pace.is_open());
    let lead_ns = if is_open { LEAD_NS + scripts.len() as u64 * LEAD_NS_EACH } else { 0 };
    let start_ns = alarm_thread.alarms().now_ns() + lead_ns;
    let stage = Arc::new(Stage {
        alarms: Arc::clone(alarm_thread.alarms()),
        start_ns,
        end_ns: duration_ns.map_or(u64::MAX, |duration_ns| start_ns + duration_ns),
        stop: AtomicBool::new(false),
        journal: Journal::new(scripts.len()),
        progress: scripts.iter().map(|_| Default::default()).collect(),
    });
    let mut ledger = Ledger::new(&stage.journal);
    let mut running: Vec<Running<'_>> = scripts
        .into_iter()
        .enumerate()
        .map(|(number, (script, pace))| {
            let owner = script.task().own.as_ref().map(OwnKeys::owner);
            let client = AsyncClient::new(&stage, number, script, pace, depth);
            match owner {
                Some(owner) => target.start_on_owner(owner, client),
                None => target.start_task(runtime.handle(), client),
            }
        })
        .collect();

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    let (mut reports, mut lost) = (Vec::new(), None);
    let mut interrupted = false;
    loop {
        running.retain_mut(|client| {
            let Poll::Ready(ended) = client.as_mut().poll(&mut cx) else {
                return true;
            };
            if !matches!(&ended, Ok(report) if report.finish.is_ok()) {
                stage.stop.store(true, Ordering::Relaxed);
            }
            match ended {
                Ok(report) => reports.push(report),
                Err(failure) => {
                    let (failure, _) = lost.take().unwrap_or((failure, 0));
                    lost = Some((failure, stage.alarms.now_ns()));
                }
            }
            false
        });
        watch.progress(Progress {
            elapsed: Duration::from_nanos(stage.alarms.now_ns().saturating_sub(start_ns)),
            ops: stage.progress.iter().map(|client| client.0.load(Ordering::Relaxed)).sum(),
        });
        ledger.collect(|number, latencies| watch.interval(number, latencies));
        if running.is_empty() {
            break;
        }
        thread::park_timeout(WATCH_INTERVAL);
        if phase.interrupt.load(Ordering::Relaxed) {
            interrupted = true;
            stage.stop.store(true, Ordering::Relaxed);
        }
        if phase.enough.load(Ordering::Relaxed) {
            stage.stop.store(true, Ordering::Relaxed);
        }
    }
    let is_whole = !phase.enough.load(Ordering::Relaxed) && lost.is_none();
    let duration_ns = duration_ns.filter(|_| is_whole);
    let recorder = ledger.finish(|number, latencies| watch.interval(number, latencies));
    let mut outcome = add_up(reports, recorder, start_ns, duration_ns, interrupted);
    if let Some((failure, ended_ns)) = lost {
        let lasted = Duration::from_nanos(ended_ns.saturating_sub(start_ns));
        let Outcome { elapsed, elapsed_paced, elapsed_unpaced, .. } = &mut outcome;
        for elapsed in [elapsed, elapsed_paced, elapsed_unpaced] {
            *elapsed = lasted.max(*elapsed);
        }
        // Nobody knows what that client had inserted.
        outcome.acknowledged = outcome.acknowledged.min(acknowledged_before.unwrap_or(0));
        outcome.failure = outcome.failure.or(Some(failure));
    }
    Ok(outcome)
}

/// A client that looks for keys which are not there would never end.
fn check_keys(script: &Script) -> Result<(), Failure> {
    match &script.task().own {
        Some(own) if !script.has_keys() => Err(Failure::Usage(format!(
            "none of the keys that the workload chooses belongs to owner {}: load more records, or \
             use fewer --owners",
            own.owner()
        ))),
        _ => Ok(()),
    }
}

/// A thread for each core. Timers and I/O are not tokio's.
fn runtime() -> io::Result<Runtime> {
    let cores = thread::available_parallelism()?.get();
    Builder::new_multi_thread().worker_threads(cores).thread_name("tasks").build()
}

/// Wakes the thread that watches.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
#[path = "crowd_tests.rs"]
mod tests;
