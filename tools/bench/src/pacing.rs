//! When operations are sent, and from when their latency counts.
//!
//! In a *closed loop* a client sends its next operation when the last one has
//! ended, and latency counts from the sending. In an *open loop* operations are
//! due at fixed instants, whatever the database does meanwhile: latency counts
//! from the instant an operation was due, so a stall shows in every operation
//! that it kept waiting, not in one (Gil Tene calls the opposite *coordinated
//! omission*).
//!
//! Clock and operations are traits, so that tests run the very same loop in
//! simulated time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::recorder::Record;
use crate::schedule::{Dues, Schedule};
use crate::workload::OpKind;

/// How long before its due time a sleeping client asks to be woken; what is left
/// when it wakes, it spins. With the least timer slack a thread of a virtual
/// machine was seen to wake 16 to 47 us late (10th and 90th percentile).
pub(crate) const SPIN_NS: u64 = 40_000;
/// How long after its end an open loop still sends what was due before; no longer than it
/// lasted itself, unless that was next to nothing.
const DRAIN_NS: u64 = 1_000_000_000;
const DRAIN_NS_MIN: u64 = 100_000_000;
/// The longest sleep between two looks at the stop flag.
pub(crate) const SLEEP_NS_MAX: u64 = 50_000_000;

/// A clock, and a way to let time pass.
pub trait Clock: Sync {
    /// Nanoseconds since some instant. Never goes back.
    fn now_ns(&self) -> u64;

    /// Sleeps for about this long.
    fn sleep_ns(&self, duration_ns: u64);
}

/// The machine's monotonic clock, from its creation on.
#[derive(Debug)]
pub struct MonotonicClock(Instant);

impl MonotonicClock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MonotonicClock {
    fn now_ns(&self) -> u64 {
        // 2^64 ns are 584 years.
        self.0.elapsed().as_nanos() as u64
    }

    fn sleep_ns(&self, duration_ns: u64) {
        std::thread::sleep(Duration::from_nanos(duration_ns));
    }
}

/// How one client's operations follow each other.
#[derive(Clone, Debug)]
pub enum Pace {
    /// Each when the last one has ended.
    Closed,
    /// Each at its instant, with an unbounded backlog.
    Open(Schedule),
}

impl Pace {
    /// Whether operations are due at instants of their own.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// So many operations a second of all clients together, evenly.
    #[cfg(test)]
    pub(crate) fn evenly(rate: u64, client: u64, clients: u64) -> Self {
        let (rate, run) = (crate::schedule::Rate::Constant(rate), Duration::from_secs(1));
        Self::Open(Schedule::new(&rate, Default::default(), run, (client, clients), 0))
    }

    /// The instants, from the first on.
    pub(crate) fn queue(&self) -> Queue {
        match self {
            Self::Closed => Queue(None),
            Self::Open(schedule) => Queue(Some(schedule.dues())),
        }
    }
}

/// What a client has still to send: in an open loop, when; in a closed one, always the
/// next operation.
pub(crate) struct Queue(Option<Dues>);

impl Queue {
    /// When the next operation is due, on the clock; `None` in a closed loop.
    pub(crate) fn due_ns(&self, window: Window<'_>) -> Option<u64> {
        self.0.as_ref().map(|dues| dues.next_ns().saturating_add(window.start_ns))
    }

    /// The next operation was sent.
    pub(crate) fn sent(&mut self) {
        if let Some(dues) = &mut self.0 {
            dues.sent();
        }
    }

    /// When nothing is sent any more, on the clock.
    pub(crate) fn give_up_ns(&self, window: Window<'_>) -> u64 {
        match self.0 {
            None => window.end_ns,
            Some(_) => {
                let lasts_ns = window.end_ns - window.start_ns;
                let drain_ns = lasts_ns.clamp(DRAIN_NS_MIN, DRAIN_NS);
                window.end_ns.saturating_add(drain_ns)
            }
        }
    }

    /// The end, at `at_ns`, of the loop.
    pub(crate) fn finish(self, window: Window<'_>, at_ns: u64, exhausted: bool) -> Finish {
        let elapsed_ns = at_ns.min(window.end_ns).saturating_sub(window.start_ns);
        let unsent = match self.0 {
            Some(dues) if !exhausted => dues.due_before(elapsed_ns),
            _ => 0,
        };
        Finish { at_ns, unsent, exhausted }
    }
}

/// What a client does, one operation after the other.
pub trait Operations {
    /// Why an operation failed.
    type Error;

    /// Chooses the next operation and gets ready for it. `None` when there is
    /// none left. In a closed loop this is outside of the measured time.
    fn prepare(&mut self) -> Option<OpKind>;

    /// Runs what was prepared: the measured part.
    fn execute(&mut self) -> Result<(), Self::Error>;

    /// Looks at what came back, outside of the measured time.
    fn verify(&mut self);
}

/// When a run begins and ends, and who can end it earlier.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// The start, on the clock.
    pub start_ns: u64,
    /// The end, on the clock; `u64::MAX` for a run that ends with its
    /// operations.
    pub end_ns: u64,
    /// Set when everybody is to stop.
    pub stop: &'a AtomicBool,
}

impl Window<'_> {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// How a client's loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// When, on the clock.
    pub at_ns: u64,
    /// Operations that were due before the end and never sent: the backlog of
    /// an open loop that the database could not keep up with.
    pub unsent: u64,
    /// Whether it ended because there was no operation left.
    pub exhausted: bool,
}

/// Runs one client: its operations at its pace, until the window ends.
///
/// Counts operations in `progress` as it goes. An operation that is in flight
/// at the end is waited for and recorded in full; what was due by then in an
/// open loop is still sent, for a second at most.
pub fn drive<C: Clock, O: Operations>(
    clock: &C,
    pace: &Pace,
    window: Window<'_>,
    operations: &mut O,
    recorder: &mut impl Record,
    progress: &AtomicU64,
) -> Result<Finish, O::Error> {
    let mut sent = 0;
    let mut exhausted = false;
    let mut now_ns = clock.now_ns();
    let mut queue = pace.queue();
    let give_up_ns = queue.give_up_ns(window);
    while now_ns < give_up_ns && !window.stopped() {
        let due_ns = queue.due_ns(window);
        if let Some(due_ns) = due_ns
            && (due_ns >= window.end_ns || !wait_until(clock, due_ns, window))
        {
            break;
        }
        let Some(kind) = operations.prepare() else {
            exhausted = true;
            break;
        };
        let sent_ns = clock.now_ns();
        operations.execute()?;
        now_ns = clock.now_ns();
        recorder.record(kind, now_ns, now_ns - due_ns.unwrap_or(sent_ns), now_ns - sent_ns);
        operations.verify();
        queue.sent();
        sent += 1;
        progress.store(sent, Ordering::Relaxed);
    }
    Ok(queue.finish(window, clock.now_ns(), exhausted))
}

/// Sleeps until shortly before `due_ns`, then spins. False when it was stopped
/// before.
fn wait_until<C: Clock>(clock: &C, due_ns: u64, window: Window<'_>) -> bool {
    loop {
        let left_ns = due_ns.saturating_sub(clock.now_ns());
        if left_ns == 0 {
            return true;
        }
        if window.stopped() {
            return false;
        }
        if left_ns > SPIN_NS {
            clock.sleep_ns((left_ns - SPIN_NS).min(SLEEP_NS_MAX));
        } else {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
#[path = "pacing_tests.rs"]
mod tests;
