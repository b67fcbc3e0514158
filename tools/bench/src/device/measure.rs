//! One test: so many requests in flight, for so long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Once, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ourodb::device::{Requests, TestFile};

use super::{Operation, Test};
use crate::cli::Io;
use crate::failure::Failure;
use crate::machine::cpu_time;
use crate::output::{Bar, warn};
use crate::recorder::SIGNIFICANT_DIGITS;
use crate::report::Latency;
use crate::runner::{Progress, WATCH_INTERVAL};

/// Requests that write the file first have this length.
pub(super) const FILL_BYTES: usize = 1 << 20;

/// The user was told that buffers could not be registered.
static UNREGISTERED: Once = Once::new();

/// What is measured, and how.
pub(super) struct Plan {
    pub(super) operation: Operation,
    pub(super) io: Io,
    pub(super) depth: usize,
    pub(super) file_bytes: u64,
    pub(super) time: Duration,
}

/// What all senders of a test share.
#[derive(Default)]
struct Shared {
    /// Of the first request: all end at one time, however late a thread gets a core.
    began: OnceLock<Began>,
    /// Requests that were given a place.
    placed: AtomicU64,
    ended: AtomicU64,
    is_over: AtomicBool,
}

/// Who sends requests: a thread, or all tasks on a ring.
struct Sender {
    shared: Arc<Shared>,
    is_random: bool,
    /// Places in the file, and the length of each.
    places: u64,
    place_bytes: u64,
    time_ns: u64,
    rng: fastrand::Rng,
    ended_ns: u64,
    latencies_ns: Histogram<u64>,
}

struct Began {
    at_ns: u64,
    /// What the process had used by then.
    cpu: Duration,
}

impl Sender {
    fn new(plan: &Plan, shared: &Arc<Shared>) -> Self {
        let place_bytes = plan.operation.request_bytes() as u64;
        Self {
            shared: Arc::clone(shared),
            is_random: plan.operation == Operation::RandomRead,
            places: plan.file_bytes / place_bytes,
            place_bytes,
            time_ns: plan.time.as_nanos() as u64,
            rng: fastrand::Rng::new(),
            ended_ns: 0,
            latencies_ns: histogram(),
        }
    }
}

impl Requests for Sender {
    fn next(&mut self, now_ns: u64) -> Option<u64> {
        let began = self.shared.began.get_or_init(|| Began { at_ns: now_ns, cpu: cpu_time() });
        let elapsed_ns = now_ns.saturating_sub(began.at_ns);
        if elapsed_ns >= self.time_ns || self.shared.is_over.load(Ordering::Relaxed) {
            return None;
        }
        let place = if self.is_random {
            self.rng.u64(..self.places)
        } else {
            self.shared.placed.fetch_add(1, Ordering::Relaxed) % self.places
        };
        Some(place * self.place_bytes)
    }

    fn ended(&mut self, began_ns: u64, ended_ns: u64) {
        self.ended_ns = ended_ns;
        self.latencies_ns.record(ended_ns - began_ns).expect("it grows");
        self.shared.ended.fetch_add(1, Ordering::Relaxed);
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new(SIGNIFICANT_DIGITS).expect("three digits are valid")
}

/// Runs one test. `None` when it was interrupted.
pub(super) fn measure(
    file: &TestFile,
    plan: &Plan,
    interrupt: &AtomicBool,
) -> Result<Option<Test>, Failure> {
    let Plan { operation, io, depth, .. } = *plan;
    let shared = Arc::<Shared>::default();
    let (request, bytes) = (operation.request(), operation.request_bytes());
    let sent = thread::scope(|scope| {
        let (results, done) = channel();
        let threads = if io == Io::Ring { 1 } else { depth };
        for number in 0..threads {
            let (results, shared) = (results.clone(), &shared);
            let work = move || {
                let mut sender = Sender::new(plan, shared);
                let result = match io {
                    Io::Ring => file.ring(request, bytes, depth, sender).map(|(sender, reason)| {
                        if let Some(reason) = reason {
                            UNREGISTERED.call_once(|| warn(&reason.to_string()));
                        }
                        sender
                    }),
                    Io::Blocking => file.blocking(request, bytes, &mut sender).map(|()| sender),
                };
                // Nobody listens any more after a failure.
                let _ = results.send(result);
            };
            let thread = thread::Builder::new().name(format!("device-{number}"));
            if let Err(error) = thread.spawn_scoped(scope, work) {
                shared.is_over.store(true, Ordering::Relaxed);
                return Err(Failure::os("cannot start a thread")(error));
            }
        }
        drop(results);
        watch(plan, &shared, &done, interrupt)
    });
    let mut all = histogram();
    let mut ended_ns = 0;
    let cpu = cpu_time();
    for sender in sent? {
        all.add(&sender.latencies_ns).expect("it grows");
        ended_ns = ended_ns.max(sender.ended_ns);
    }
    let Some(began) = shared.began.get().filter(|_| !shared.is_over.load(Ordering::Relaxed)) else {
        return Ok(None);
    };
    let (ops, elapsed_s) = (all.len(), (ended_ns - began.at_ns) as f64 / 1e9);
    let ops_per_s = ops as f64 / elapsed_s;
    Ok(Some(Test {
        operation,
        io,
        depth,
        request_bytes: bytes,
        elapsed_s,
        ops,
        ops_per_s,
        bytes_per_s: ops_per_s * bytes as f64,
        latency_ns: Latency::new(&all),
        cpu_ns_per_op: (cpu - began.cpu).as_nanos() as f64 / ops as f64,
    }))
}

/// Waits for all senders, and shows how far they are. The first failure, or an interrupt,
/// ends them all.
fn watch(
    plan: &Plan,
    shared: &Shared,
    done: &Receiver<ourodb::Result<Sender>>,
    interrupt: &AtomicBool,
) -> Result<Vec<Sender>, Failure> {
    let what = format!("{}, {}, depth {}", plan.operation.name(), plan.io.name(), plan.depth);
    let bar = Bar::new(what, None, plan.time.as_millis() as u64);
    let begin = Instant::now();
    let mut senders = Vec::new();
    let result = loop {
        match done.recv_timeout(WATCH_INTERVAL) {
            Ok(Ok(sender)) => senders.push(sender),
            Ok(Err(error)) => break Err(Failure::engine("cannot measure the disk")(error)),
            Err(RecvTimeoutError::Disconnected) => break Ok(senders),
            Err(RecvTimeoutError::Timeout) => {
                let ops = shared.ended.load(Ordering::Relaxed);
                bar.update(Progress { elapsed: begin.elapsed(), ops });
            }
        }
        if interrupt.load(Ordering::Relaxed) {
            shared.is_over.store(true, Ordering::Relaxed);
        }
    };
    if result.is_err() {
        shared.is_over.store(true, Ordering::Relaxed);
    }
    bar.finish();
    result
}

/// Writes the whole file once.
pub(super) struct Fill<'a> {
    written_bytes: u64,
    file_bytes: u64,
    interrupt: &'a AtomicBool,
    bar: Bar,
    begin: Instant,
    shown: Instant,
}

impl<'a> Fill<'a> {
    pub(super) fn new(file_bytes: u64, interrupt: &'a AtomicBool) -> Self {
        let requests = file_bytes / FILL_BYTES as u64;
        let bar = Bar::new("writing the test file, MiB".to_owned(), Some(requests), 0);
        let now = Instant::now();
        Self { written_bytes: 0, file_bytes, interrupt, bar, begin: now, shown: now }
    }

    /// Whether all of it was written.
    pub(super) fn finish(self) -> bool {
        self.bar.finish();
        self.written_bytes == self.file_bytes
    }
}

impl Requests for Fill<'_> {
    fn next(&mut self, _now_ns: u64) -> Option<u64> {
        let is_over = self.interrupt.load(Ordering::Relaxed);
        (self.written_bytes < self.file_bytes && !is_over).then_some(self.written_bytes)
    }

    fn ended(&mut self, _began_ns: u64, _ended_ns: u64) {
        self.written_bytes += FILL_BYTES as u64;
        if self.shown.elapsed() >= WATCH_INTERVAL {
            self.shown = Instant::now();
            let ops = self.written_bytes / FILL_BYTES as u64;
            self.bar.update(Progress { elapsed: self.begin.elapsed(), ops });
        }
    }
}
