//! Latencies second by second, without a client ever waiting for another.
//!
//! A client records into histograms of its own. With its first operation that ends in a
//! later interval it puts them on the [`Journal`]'s pile and goes on with others, which are
//! empty. Whoever watches the phase keeps the [`Ledger`]: it adds up what is on the pile,
//! empties it, and gives it back. An interval is complete when every client has gone on from
//! it; one that waits for an operation holds all those up that the operation takes.
//!
//! An operation belongs to the interval in which it ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::pacing::Pace;
use crate::recorder::{Record, Recorder};
use crate::workload::OpKind;

/// How long an interval lasts.
pub const INTERVAL_NS: u64 = 1_000_000_000;

/// What clients have measured, and nobody has added up yet.
#[derive(Debug)]
pub struct Journal {
    pile: Mutex<Vec<Page>>,
    desks: Vec<Desk>,
}

/// One client's interval.
#[derive(Debug)]
struct Page {
    client: usize,
    interval: u64,
    recorder: Recorder<u32>,
}

/// One client's place, on cache lines of its own.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Desk {
    /// Empty histograms, for its next interval.
    spare: Mutex<Option<Recorder<u32>>>,
    /// Everything before this interval is on the pile, or was.
    reached: AtomicU64,
}

impl Journal {
    /// For so many clients.
    #[must_use]
    pub fn new(clients: usize) -> Arc<Self> {
        let desks = (0..clients).map(|_| Desk::default()).collect();
        Arc::new(Self { pile: Mutex::default(), desks })
    }
}

/// What a client records into.
#[derive(Debug)]
pub struct ClientRecorder {
    journal: Arc<Journal>,
    client: usize,
    recorder: Recorder<u32>,
    start_ns: u64,
    interval: u64,
    /// When its interval ends, on the clock.
    end_ns: u64,
}

impl ClientRecorder {
    /// That of the client with this number, which has operations of these kinds. Most memory
    /// is taken now, not while measuring.
    #[must_use]
    pub fn new(
        journal: &Arc<Journal>,
        client: usize,
        kinds: impl IntoIterator<Item = OpKind>,
        pace: &Pace,
    ) -> Self {
        let recorder = Recorder::new(kinds, pace);
        *journal.desks[client].spare.lock().expect(NO_PANIC) = Some(recorder.clone());
        let journal = Arc::clone(journal);
        Self { journal, client, recorder, start_ns: 0, interval: 0, end_ns: u64::MAX }
    }

    /// The phase begins, on the clock.
    pub fn begin(&mut self, start_ns: u64) {
        self.start_ns = start_ns;
        self.end_ns = start_ns + INTERVAL_NS;
    }

    /// Hands over what was recorded, and goes on with an interval that begins later.
    fn turn(&mut self, interval: u64) {
        let desk = &self.journal.desks[self.client];
        if self.recorder.total() > 0 {
            let spare = desk.spare.lock().expect(NO_PANIC).take();
            let spare = spare.unwrap_or_else(|| {
                // Nobody came to add up: the machine is busy.
                let mut more = self.recorder.clone();
                more.clear();
                more
            });
            let recorder = std::mem::replace(&mut self.recorder, spare);
            let page = Page { client: self.client, interval: self.interval, recorder };
            self.journal.pile.lock().expect(NO_PANIC).push(page);
        }
        self.interval = interval;
        // After it: who sees this finds the page.
        desk.reached.store(interval, Ordering::Release);
    }
}

impl Record for ClientRecorder {
    fn record(&mut self, kind: OpKind, at_ns: u64, response_ns: u64, service_ns: u64) {
        if at_ns >= self.end_ns {
            let interval = (at_ns - self.start_ns) / INTERVAL_NS;
            self.turn(interval);
            self.end_ns = self.start_ns + (interval + 1) * INTERVAL_NS;
        }
        self.recorder.record(kind, at_ns, response_ns, service_ns);
    }
}

impl Drop for ClientRecorder {
    /// Hands over what is left.
    fn drop(&mut self) {
        self.turn(u64::MAX);
    }
}

const NO_PANIC: &str = "nothing panics under this lock";

/// Adds up what the clients of a phase have measured.
#[derive(Debug)]
pub struct Ledger {
    journal: Arc<Journal>,
    total: Recorder,
    /// Intervals that are not complete.
    open: BTreeMap<u64, Recorder>,
    /// The first of them.
    next: u64,
}

impl Ledger {
    /// Nothing yet.
    #[must_use]
    pub fn new(journal: &Arc<Journal>) -> Self {
        let (total, open) = (Recorder::empty(), BTreeMap::new());
        Self { journal: Arc::clone(journal), total, open, next: 0 }
    }

    /// Adds up what is there, and reports the intervals that are complete, in their order,
    /// also those in which nothing ended.
    pub fn collect(&mut self, mut complete: impl FnMut(u64, &Recorder)) {
        let reached = self.journal.desks.iter().map(|desk| desk.reached.load(Ordering::Acquire));
        // Before the pile is looked at: what it says is there.
        let reached = reached.min().unwrap_or(u64::MAX);
        let pages = std::mem::take(&mut *self.journal.pile.lock().expect(NO_PANIC));
        for Page { client, interval, mut recorder } in pages {
            self.open.entry(interval).or_insert_with(Recorder::empty).merge(&recorder);
            recorder.clear();
            *self.journal.desks[client].spare.lock().expect(NO_PANIC) = Some(recorder);
        }
        let last = self.open.last_key_value().map_or(0, |(last, _)| last + 1);
        while self.next < reached.min(last.max(self.next)) {
            let interval = self.open.remove(&self.next).unwrap_or_else(Recorder::empty);
            complete(self.next, &interval);
            self.total.merge(&interval);
            self.next += 1;
        }
    }

    /// The last intervals; all clients have ended. Returns everything together.
    #[must_use]
    pub fn finish(mut self, mut complete: impl FnMut(u64, &Recorder)) -> Recorder {
        self.collect(&mut complete);
        // A client that panicked has dropped its recorder all the same.
        assert!(self.open.is_empty(), "every client has handed over its last interval");
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [OpKind; 1] = [OpKind::Read];

    /// Interval, operations, the longest.
    fn collect(ledger: &mut Ledger) -> Vec<(u64, u64, u64)> {
        let mut rows = Vec::new();
        ledger.collect(|number, recorder| {
            let max = recorder.histogram(OpKind::Read).map_or(0, hdrhistogram::Histogram::max);
            rows.push((number, recorder.total(), max));
        });
        rows
    }

    #[test]
    fn an_interval_is_complete_when_all_clients_have_gone_on() {
        let journal = Journal::new(2);
        let client = |number| {
            let mut client = ClientRecorder::new(&journal, number, KINDS, &Pace::Closed);
            client.begin(500);
            client
        };
        let (mut one, mut two) = (client(0), client(1));
        let mut ledger = Ledger::new(&journal);
        let second = |n: u64| 500 + n * INTERVAL_NS;
        one.record(OpKind::Read, 600, 10, 10);
        two.record(OpKind::Read, second(1) - 1, 20, 20);
        one.record(OpKind::Read, second(1), 30, 30);
        assert_eq!(collect(&mut ledger), []);
        // A stall of two seconds: the one between them has nothing.
        two.record(OpKind::Read, second(2) + 7, 40, 40);
        assert_eq!(collect(&mut ledger), [(0, 2, 20)]);
        one.record(OpKind::Read, second(4), 50, 50);
        assert_eq!(collect(&mut ledger), [(1, 1, 30)]);
        drop(two);
        assert_eq!(collect(&mut ledger), [(2, 1, 40)]);
        one.record(OpKind::Read, second(4) + 1, 60, 60);
        drop(one);
        let mut rows = Vec::new();
        let total = ledger.finish(|number, recorder| rows.push((number, recorder.total())));
        assert_eq!((rows, total.total()), (vec![(3, 0), (4, 2)], 6));
    }

    #[test]
    fn nothing_is_lost_or_counted_twice_when_nobody_collects_for_long() {
        let journal = Journal::new(1);
        let mut client = ClientRecorder::new(&journal, 0, KINDS, &Pace::Closed);
        client.begin(0);
        for n in 0..10 {
            client.record(OpKind::Read, n * INTERVAL_NS, n, n);
        }
        let mut ledger = Ledger::new(&journal);
        assert_eq!(collect(&mut ledger).len(), 9);
        for n in 10..20 {
            client.record(OpKind::Read, n * INTERVAL_NS, n, n);
        }
        drop(client);
        assert_eq!(ledger.finish(|_, _| ()).total(), 20);
    }

    #[test]
    fn clients_that_end_with_nothing_hold_nobody_up() {
        let journal = Journal::new(3);
        let idle = ClientRecorder::new(&journal, 0, KINDS, &Pace::Closed);
        let mut busy = ClientRecorder::new(&journal, 1, KINDS, &Pace::Closed);
        busy.begin(0);
        drop(ClientRecorder::new(&journal, 2, KINDS, &Pace::Closed));
        let mut ledger = Ledger::new(&journal);
        busy.record(OpKind::Read, 3 * INTERVAL_NS, 1, 1);
        assert_eq!(collect(&mut ledger), []);
        drop((idle, busy));
        assert_eq!(collect(&mut ledger).len(), 4);
    }
}
