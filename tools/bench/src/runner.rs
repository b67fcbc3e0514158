//! Runs all clients of a phase, one thread each, from a common start, and adds
//! up what they measured. Clients that are no threads: [`crowd`](crate::crowd).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::asynchronous::ClientProgress;
use crate::client::Client;
use crate::failure::Failure;
use crate::inserts::Inserts;
use crate::intervals::{ClientRecorder, Journal, Ledger};
use crate::pacing::{Clock, Finish, MonotonicClock, Pace, Window, drive};
use crate::recorder::Recorder;
use crate::script::{Faults, Task};
use crate::shape::Data;
use crate::target::Handle;

/// How often the caller hears of the progress, and an interrupt is looked for.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_millis(50);
const CLIENT_STACK_BYTES: usize = 512 << 10;

/// A phase of clients at work.
pub struct Phase<'a> {
    /// What each client does, and how fast.
    pub clients: Vec<(Task, Pace)>,
    /// When it ends, if not with its operations.
    pub duration: Option<Duration>,
    /// Ends it early when set.
    pub interrupt: &'a AtomicBool,
    /// The same, and then that is its end.
    pub enough: &'a AtomicBool,
}

/// For phases of which there is never enough before their end.
pub static NEVER: AtomicBool = AtomicBool::new(false);

/// How far a phase has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// Operations done by all clients.
    pub ops: u64,
}

/// Follows a phase.
pub trait Watch {
    /// Every now and then: how far it has come.
    fn progress(&mut self, progress: Progress);

    /// What was measured in an interval of [`INTERVAL_NS`](crate::intervals::INTERVAL_NS); in
    /// their order, some time after their end.
    fn interval(&mut self, number: u64, latencies: &Recorder) {
        let _ = (number, latencies);
    }
}

impl<F: FnMut(Progress)> Watch for F {
    fn progress(&mut self, progress: Progress) {
        self(progress);
    }
}

/// What a phase measured.
#[derive(Debug)]
pub struct Outcome {
    /// The latencies of all clients.
    pub recorder: Recorder,
    /// From the start to the end of the last operation, or of the phase's
    /// duration if that is later and nothing ended the phase before.
    pub elapsed: Duration,
    /// The same of those clients alone whose operations are due at instants of their own, and of
    /// all others.
    pub elapsed_paced: Duration,
    /// See there.
    pub elapsed_unpaced: Duration,
    /// Operations that were due and never sent.
    pub unsent: u64,
    /// Bytes of keys and values that were put.
    pub put_bytes: u64,
    /// Reads that returned something wrong.
    pub faults: Faults,
    /// Records below this are in the database.
    pub acknowledged: u64,
    /// Whether the phase was interrupted.
    pub interrupted: bool,
    /// Whether some client had no operation left.
    pub exhausted: bool,
    /// Why an operation failed; it ended the phase.
    pub failure: Option<Failure>,
}

impl Outcome {
    /// That of a phase which did not take place.
    pub(crate) fn nothing() -> Self {
        Self {
            recorder: Recorder::empty(),
            elapsed: Duration::ZERO,
            elapsed_paced: Duration::ZERO,
            elapsed_unpaced: Duration::ZERO,
            unsent: 0,
            put_bytes: 0,
            faults: Faults::default(),
            acknowledged: u64::MAX,
            interrupted: false,
            exhausted: false,
            failure: None,
        }
    }

    /// Whether it was interrupted, or an operation failed.
    pub(crate) fn ended_early(&self) -> bool {
        self.interrupted || self.failure.is_some()
    }
}

/// Holds the clients back until all are ready.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    ready: usize,
    start_ns: Option<u64>,
}

impl Gate {
    /// A client is ready; returns the start.
    fn pass(&self) -> u64 {
        let mut state = self.state.lock().expect("nothing panics under this lock");
        state.ready += 1;
        self.changed.notify_all();
        loop {
            if let Some(start_ns) = state.start_ns {
                return start_ns;
            }
            state = self.changed.wait(state).expect("nothing panics under this lock");
        }
    }

    /// Lets the clients go once `clients` of them are ready.
    fn open(&self, clients: usize, clock: &impl Clock) -> u64 {
        let mut state = self.state.lock().expect("nothing panics under this lock");
        while state.ready < clients {
            state = self.changed.wait(state).expect("nothing panics under this lock");
        }
        let start_ns = clock.now_ns();
        state.start_ns = Some(start_ns);
        self.changed.notify_all();
        start_ns
    }
}

/// Stops everybody when a client panics, so that the panic is seen at once.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// What one client brings home.
pub struct ClientReport {
    pub(crate) finish: Result<Finish, Failure>,
    /// Whether its operations are due at instants of their own.
    pub(crate) is_paced: bool,
    /// When its loop ended, on the clock, however it did.
    pub(crate) ended_ns: u64,
    pub(crate) faults: Faults,
    pub(crate) inserts: Inserts,
    pub(crate) put_bytes: u64,
}

/// Runs a phase to its end. Each client calls `handle` for its own, on its
/// thread; `watch` hears of the progress every now and then, and of each second.
///
/// Fails only where a thread cannot be started.
pub fn run<H: Handle>(
    handle: impl Fn() -> H + Sync,
    data: &Arc<Data>,
    phase: Phase<'_>,
    watch: &mut impl Watch,
) -> io::Result<Outcome> {
    let clock = MonotonicClock::start();
    let (gate, stop) = (Gate::default(), AtomicBool::new(false));
    let journal = Journal::new(phase.clients.len());
    let mut ledger = Ledger::new(&journal);
    let counters: Vec<_> = phase.clients.iter().map(|_| ClientProgress::default()).collect();
    let duration_ns = phase.duration.map(|duration| duration.as_nanos() as u64);
    let main = thread::current();
    let client = |number: usize, (task, pace): (Task, Pace), counter: &ClientProgress| {
        let _guard = StopOnPanic(&stop);
        let mut recorder = ClientRecorder::new(&journal, number, task.mix.kinds(), &pace);
        let mut client = Client::new(handle(), Arc::clone(data), task);
        wake_precisely();
        let start_ns = gate.pass();
        recorder.begin(start_ns);
        let end_ns = duration_ns.map_or(u64::MAX, |duration_ns| start_ns + duration_ns);
        let window = Window { start_ns, end_ns, stop: &stop };
        let finish = drive(&clock, &pace, window, &mut client, &mut recorder, &counter.0);
        let ended_ns = finish.as_ref().map_or_else(|_| clock.now_ns(), |finish| finish.at_ns);
        if finish.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        let (faults, inserts, put_bytes) = client.finish();
        drop(recorder);
        main.unpark();
        ClientReport { finish, is_paced: pace.is_open(), ended_ns, faults, inserts, put_bytes }
    };
    thread::scope(|scope| {
        let mut threads = Vec::new();
        let mut refused = None;
        for (i, (task, counter)) in phase.clients.into_iter().zip(&counters).enumerate() {
            let client = &client;
            let spawned = thread::Builder::new()
                .name(format!("client-{i}"))
                .stack_size(CLIENT_STACK_BYTES)
                .spawn_scoped(scope, move || client(i, task, counter));
            match spawned {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    refused = Some(error);
                    break;
                }
            }
        }
        let start_ns = gate.open(threads.len(), &clock);
        let mut interrupted = false;
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::park_timeout(WATCH_INTERVAL);
            if phase.interrupt.load(Ordering::Relaxed) {
                interrupted = true;
                stop.store(true, Ordering::Relaxed);
            }
            if phase.enough.load(Ordering::Relaxed) {
                stop.store(true, Ordering::Relaxed);
            }
            watch.progress(Progress {
                elapsed: Duration::from_nanos(clock.now_ns() - start_ns),
                ops: counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum(),
            });
            ledger.collect(|number, latencies| watch.interval(number, latencies));
        }
        let reports: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        match refused {
            Some(error) => Err(error),
            None => {
                let recorder = ledger.finish(|number, latencies| watch.interval(number, latencies));
                let duration_ns = duration_ns.filter(|_| !phase.enough.load(Ordering::Relaxed));
                Ok(add_up(reports, recorder, start_ns, duration_ns, interrupted))
            }
        }
    })
}

/// What all clients measured, from the start on.
pub(crate) fn add_up(
    reports: Vec<ClientReport>,
    recorder: Recorder,
    start_ns: u64,
    duration_ns: Option<u64>,
    interrupted: bool,
) -> Outcome {
    let mut outcome = Outcome { recorder, interrupted, ..Outcome::nothing() };
    // Of the unpaced, and of the paced.
    let mut elapsed_ns = [0; 2];
    for report in reports {
        let elapsed_ns = &mut elapsed_ns[usize::from(report.is_paced)];
        // Who was stopped before the start did nothing.
        *elapsed_ns = report.ended_ns.saturating_sub(start_ns).max(*elapsed_ns);
        outcome.put_bytes += report.put_bytes;
        outcome.faults.merge(report.faults);
        // Only now: after one client had ended, others went on inserting.
        outcome.acknowledged = outcome.acknowledged.min(report.inserts.acknowledged());
        match report.finish {
            Ok(finish) => {
                outcome.unsent += finish.unsent;
                outcome.exhausted |= finish.exhausted;
            }
            Err(error) => outcome.failure = outcome.failure.or(Some(error)),
        }
    }
    // A client of an open loop is done when its next operation is due too late:
    // the phase lasted to its end all the same.
    if let Some(duration_ns) = duration_ns
        && !outcome.ended_early()
        && !outcome.exhausted
    {
        elapsed_ns = elapsed_ns.map(|ns| ns.max(duration_ns));
    }
    [outcome.elapsed_unpaced, outcome.elapsed_paced] = elapsed_ns.map(Duration::from_nanos);
    outcome.elapsed = outcome.elapsed_paced.max(outcome.elapsed_unpaced);
    outcome
}

/// Asks the kernel not to bundle this thread's wake-ups with others'. Where it
/// refuses, open-loop operations start some 50 us late; that is in the figures.
pub(crate) fn wake_precisely() {
    let _unimportant = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
