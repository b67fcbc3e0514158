//! How long operations take, and what they wait for.
//!
//! What memory answers takes less than a microsecond, of which two readings of the
//! clock would be a good part. So of every 64 such operations of a kind and thread one,
//! at random, is timed, and stands for all 64. What waits is always recorded, once:
//! whoever waits reads the clock anyway, and what it took beside that is little.
//!
//! For that to add up, which of the two an operation is must not depend on whether
//! it is timed: it is *slow* once it waited for [`SLOW_NS`]. Of a slow one that was
//! not timed, what it waited is taken for the whole. Operations that take
//! microseconds at least, or that are known to wait, are timed from the start, and
//! stand for themselves.

use std::cell::Cell;

use hdrhistogram::Histogram;

use super::histogram::{SharedHistogram, empty};
use super::striped::own_stripe;
use super::sync::tally::{AtomicU64, Ordering};

/// Of so many operations one is timed.
const SAMPLED_OF: u32 = 64;

/// Who waited for so long is slow.
const SLOW_NS: u64 = 10_000;

/// Threads that record what they sampled are spread over so many histograms at most.
const STRIPES_MAX: usize = 8;

/// What is timed; see [`Latencies`](crate::Latencies).
///
/// ```
/// use ourodb::Operation;
/// assert_eq!(Operation::ALL.map(Operation::name)[0], "get");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// The lookup of one key.
    Get,
    /// A put or a delete of one key.
    Put,
    /// A [`Batch`](crate::Batch).
    Batch,
    /// All lookups of one [`multi_get`](crate::Db::multi_get).
    MultiGet,
    /// A scan up to its first row, or its end if it has none. The time from when the
    /// iterator or the stream was made until it is first asked for a row does not
    /// count.
    Scan,
    /// A step of a scan to one more row, or to its end.
    ScanNext,
    /// A delete of a range of keys, in all shards.
    DeleteRange,
}

/// How many operations there are.
const OPERATIONS: usize = 7;

impl Operation {
    /// All of them.
    ///
    /// ```
    /// for operation in ourodb::Operation::ALL {
    ///     println!("{}", operation.name());
    /// }
    /// ```
    pub const ALL: [Self; OPERATIONS] = [
        Self::Get,
        Self::Put,
        Self::Batch,
        Self::MultiGet,
        Self::Scan,
        Self::ScanNext,
        Self::DeleteRange,
    ];

    /// Its name: lower case, with underscores.
    ///
    /// ```
    /// assert_eq!(ourodb::Operation::MultiGet.name(), "multi_get");
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Batch => "batch",
            Self::MultiGet => "multi_get",
            Self::Scan => "scan",
            Self::ScanNext => "scan_next",
            Self::DeleteRange => "delete_range",
        }
    }

    /// What it may wait for.
    ///
    /// ```
    /// use ourodb::{Operation, OperationPart};
    /// assert_eq!(Operation::Get.parts(), [OperationPart::Lock, OperationPart::Read]);
    /// ```
    #[must_use]
    pub const fn parts(self) -> &'static [OperationPart] {
        use OperationPart::{Lock, Read, Throttle, Wal};
        match self {
            Self::Get | Self::MultiGet => &[Lock, Read],
            Self::Scan | Self::ScanNext => &[Read],
            Self::Put | Self::Batch | Self::DeleteRange => &[Lock, Wal, Throttle],
        }
    }

    /// Its place among those that are sampled, if it is: what memory answers in less
    /// than some microseconds.
    #[inline]
    const fn sampled_place(self) -> Option<usize> {
        match self {
            Self::Get => Some(0),
            Self::Put => Some(1),
            Self::ScanNext => Some(2),
            Self::Batch | Self::MultiGet | Self::Scan | Self::DeleteRange => None,
        }
    }
}

/// How many operations are sampled.
const SAMPLED: usize = 3;

/// What an operation may wait for; see [`Latencies`](crate::Latencies).
///
/// ```
/// use ourodb::OperationPart;
/// assert_eq!(OperationPart::ALL.map(OperationPart::name), ["lock", "wal", "read", "throttle"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OperationPart {
    /// Its turn: the lock of a shard or of a log, and in a group commit whoever
    /// leads, until the group with its own record began to be written. Of scans it
    /// is not measured.
    Lock,
    /// The log: its own group being written, synced and made visible, or no room
    /// in it; and a file of long values being written.
    Wal,
    /// What was not in memory: blocks, filters and indexes of tables, long values.
    /// Waiting for a read that somebody else had begun is part of it.
    Read,
    /// Background work that was behind: the pace of writes, or full memtables.
    Throttle,
}

/// How many parts there are.
const PARTS: usize = 4;

impl OperationPart {
    /// All of them.
    ///
    /// ```
    /// assert_eq!(ourodb::OperationPart::ALL.len(), 4);
    /// ```
    pub const ALL: [Self; PARTS] = [Self::Lock, Self::Wal, Self::Read, Self::Throttle];

    /// Its name, in lower case.
    ///
    /// ```
    /// assert_eq!(ourodb::OperationPart::Read.name(), "read");
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Wal => "wal",
            Self::Read => "read",
            Self::Throttle => "throttle",
        }
    }
}

/// What an operation waited for, more exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// A lock.
    Lock,
    /// Whoever led, until its own group began to be written.
    Leader,
    /// Room in memtables: flushes or compactions were behind.
    Memtable,
    /// Its moment in the pace of writes.
    Pace,
    /// Room in the log.
    Log,
    /// The log, or a value file, to be written or synced.
    Device,
    /// Something to be read.
    Read,
}

const WAITS: [(Wait, OperationPart); 7] = [
    (Wait::Lock, OperationPart::Lock),
    (Wait::Leader, OperationPart::Lock),
    (Wait::Memtable, OperationPart::Throttle),
    (Wait::Pace, OperationPart::Throttle),
    (Wait::Log, OperationPart::Wal),
    (Wait::Device, OperationPart::Wal),
    (Wait::Read, OperationPart::Read),
];

/// How long an operation waited for what, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waited {
    by: [u64; WAITS.len()],
    all_ns: u64,
}

impl Waited {
    #[inline]
    pub(crate) fn add(&mut self, wait: Wait, ns: u64) {
        self.by[wait as usize] += ns;
        self.all_ns += ns;
    }

    /// For a lock alone.
    pub(crate) fn for_lock(ns: u64) -> Self {
        let mut waited = Self::default();
        waited.add(Wait::Lock, ns);
        waited
    }

    #[inline]
    pub(crate) fn is_nothing(&self) -> bool {
        self.all_ns == 0
    }

    pub(crate) fn ns(&self, wait: Wait) -> u64 {
        self.by[wait as usize]
    }

    fn part_ns(&self, part: OperationPart) -> u64 {
        let of_part = WAITS.iter().filter(|(_, of)| *of == part);
        of_part.map(|(wait, _)| self.ns(*wait)).sum()
    }
}

/// When an operation began, if it is timed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    operation: Operation,
    began: Began,
}

#[derive(Clone, Copy, Debug)]
enum Began {
    /// It is not timed.
    Unknown,
    /// It stands for [`SAMPLED_OF`], unless it turns out to be slow.
    Sampled(u64),
    /// It stands for itself.
    Timed(u64),
}

impl Timer {
    /// Of an operation that memory may answer at once.
    #[inline]
    pub(crate) fn sampled(operation: Operation, now_ns: impl FnOnce() -> u64) -> Self {
        let place = operation.sampled_place().expect("it is one that is sampled");
        let is_sampled = SAMPLERS.with(|samplers| samplers[place].is_next());
        let began = if is_sampled { Began::Sampled(now_ns()) } else { Began::Unknown };
        Self { operation, began }
    }

    /// Of one that is timed in any case.
    pub(crate) fn timed(operation: Operation, began_ns: u64) -> Self {
        Self { operation, began: Began::Timed(began_ns) }
    }
}

/// Chooses one of every [`SAMPLED_OF`] operations of a kind and thread. Which one is
/// drawn anew each time, so that it is not always the same of a program's loop.
struct Sampler {
    /// So many come before the one that is chosen.
    ahead: Cell<u32>,
    /// So many come behind it, before the next draw counts.
    behind: Cell<u32>,
    /// The state of the draws; 0 before the first.
    random: Cell<u64>,
}

std::thread_local! {
    static SAMPLERS: [Sampler; SAMPLED] = const { [const { Sampler::new() }; SAMPLED] };
}

impl Sampler {
    const fn new() -> Self {
        Self { ahead: Cell::new(0), behind: Cell::new(0), random: Cell::new(0) }
    }

    /// Whether the operation that comes next is chosen.
    #[inline]
    fn is_next(&self) -> bool {
        match self.ahead.get().checked_sub(1) {
            Some(ahead) => {
                self.ahead.set(ahead);
                false
            }
            None => self.choose(),
        }
    }

    /// None is ahead: whether this one is chosen, which of a thread's operations only
    /// the first may not be.
    #[cold]
    fn choose(&self) -> bool {
        if self.random.get() == 0 {
            let at = self.draw();
            self.behind.set(SAMPLED_OF - 1 - at);
            if let Some(ahead) = at.checked_sub(1) {
                self.ahead.set(ahead);
                return false;
            }
        }
        let next = self.draw();
        self.ahead.set(self.behind.replace(SAMPLED_OF - 1 - next) + next);
        true
    }

    /// A number below [`SAMPLED_OF`]: a linear congruential generator's upper bits
    /// (Knuth's MMIX), another sequence for each sampler.
    fn draw(&self) -> u32 {
        static SAMPLERS: AtomicU64 = AtomicU64::new(0);
        let state = match self.random.get() {
            0 => (SAMPLERS.fetch_add(1, Ordering::Relaxed) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            state => state,
        };
        let next =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random.set(next.max(1));
        (next >> 32) as u32 % SAMPLED_OF
    }
}

/// What the operations of one database took.
pub(crate) struct Recorder {
    /// What was sampled. Each thread has one of these, which few others share.
    stripes: Box<[[SharedHistogram; SAMPLED]]>,
    /// All others.
    timed: [SharedHistogram; OPERATIONS],
    parts: [[SharedHistogram; PARTS]; OPERATIONS],
}

impl Recorder {
    /// For a machine with so many cores.
    pub(crate) fn new(cores: usize) -> Self {
        let stripes = cores.clamp(1, STRIPES_MAX).next_power_of_two();
        let sampled = || std::array::from_fn(|_| SharedHistogram::allocated());
        // So that these never allocate, which may take a system call.
        let of = |operation: Operation, is_used: bool| match is_used
            && operation.sampled_place().is_some()
        {
            true => SharedHistogram::allocated(),
            false => SharedHistogram::new(),
        };
        let part = |operation: Operation, part| of(operation, operation.parts().contains(&part));
        Self {
            stripes: std::iter::repeat_with(sampled).take(stripes).collect(),
            timed: Operation::ALL.map(|operation| of(operation, true)),
            parts: Operation::ALL
                .map(|operation| OperationPart::ALL.map(|which| part(operation, which))),
        }
    }

    /// An operation ended well.
    #[inline]
    pub(crate) fn record(&self, timer: Timer, waited: &Waited, now_ns: impl FnOnce() -> u64) {
        match timer.began {
            Began::Unknown if waited.all_ns < SLOW_NS => {}
            Began::Unknown => self.keep(timer, waited, waited.all_ns),
            Began::Sampled(began_ns) | Began::Timed(began_ns) => {
                self.keep(timer, waited, now_ns().saturating_sub(began_ns));
            }
        }
    }

    /// The same, of one that waited for nothing but a lock, if for that.
    #[inline]
    pub(crate) fn record_in_memory(
        &self,
        timer: Timer,
        lock_ns: u64,
        now_ns: impl FnOnce() -> u64,
    ) {
        if lock_ns >= SLOW_NS || !matches!(timer.began, Began::Unknown) {
            self.record(timer, &Waited::for_lock(lock_ns), now_ns);
        }
    }

    #[cold]
    #[inline(never)]
    fn keep(&self, timer: Timer, waited: &Waited, whole_ns: u64) {
        let Timer { operation, began } = timer;
        let is_slow = waited.all_ns >= SLOW_NS;
        if let (Began::Sampled(_), false, Some(at)) = (began, is_slow, operation.sampled_place()) {
            self.stripes[own_stripe() % self.stripes.len()][at].record(whole_ns);
            return;
        }
        self.timed[operation as usize].record(whole_ns);
        for part in OperationPart::ALL {
            let ns = waited.part_ns(part);
            if ns > 0 {
                self.parts[operation as usize][part as usize].record(ns);
            }
        }
    }

    /// How long operations took.
    pub(crate) fn whole(&self, operation: Operation) -> Histogram<u64> {
        let mut sum = empty();
        self.timed[operation as usize].add_to(&mut sum, 1);
        if let Some(at) = operation.sampled_place() {
            for stripe in &self.stripes {
                stripe[at].add_to(&mut sum, u64::from(SAMPLED_OF));
            }
        }
        sum
    }

    /// How long those of them that were always timed, or slow, waited for this.
    pub(crate) fn part(&self, operation: Operation, part: OperationPart) -> Histogram<u64> {
        let mut sum = empty();
        self.parts[operation as usize][part as usize].add_to(&mut sum, 1);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_places_are_in_order() {
        for (at, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, at);
        }
        for (at, part) in OperationPart::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, at);
        }
        for (at, (wait, _)) in WAITS.into_iter().enumerate() {
            assert_eq!(wait as usize, at);
        }
    }

    #[test]
    fn one_of_64_is_sampled_at_a_place_of_its_own() {
        let samples = |sampler: Sampler| (0..640).map(move |_| sampler.is_next()).collect();
        let all: Vec<Vec<bool>> = (0..200).map(|_| samples(Sampler::new())).collect();
        let mut places = [0; SAMPLED_OF as usize];
        for samples in &all {
            for block in samples.chunks(SAMPLED_OF as usize) {
                assert_eq!(block.iter().filter(|is_sampled| **is_sampled).count(), 1);
                let at = block.iter().position(|is_sampled| *is_sampled).expect("one");
                places[at] += 1;
            }
        }
        // 2000 blocks: 31 for each place, were they all the same.
        assert!(places.iter().all(|count| (5..80).contains(count)), "{places:?}");
        // A thread's first operation is as good as any other.
        let first = all.iter().filter(|samples| samples[0]).count();
        assert!(first < 20, "{first}");
    }

    #[test]
    fn fast_and_slow_operations_add_up() {
        let recorder = Recorder::new(3);
        assert_eq!(recorder.stripes.len(), 4);
        let clock = Cell::new(0);
        let tick = |ns: u64| clock.set(clock.get() + ns);
        let (fast, slow) = (64 * 99, 64);
        for at in 0..fast + slow {
            let timer = Timer::sampled(Operation::Get, || clock.get());
            tick(500);
            if at % 100 == 0 {
                tick(100_000);
                let mut waited = Waited::default();
                waited.add(Wait::Read, 100_000);
                recorder.record(timer, &waited, || clock.get());
            } else {
                recorder.record_in_memory(timer, 0, || clock.get());
            }
        }
        let whole = recorder.whole(Operation::Get);
        let counted = whole.len();
        // One of 64 stands for a slow one now and then.
        assert!(counted.abs_diff(fast + slow) <= 10 * slow, "{counted}");
        assert_eq!(whole.count_between(90_000, 110_000), slow);
        assert!((495..=505).contains(&whole.value_at_quantile(0.5)));
        assert!(whole.value_at_quantile(0.98) < 1000);
        assert!(whole.value_at_quantile(0.995) > 99_000);
        let reads = recorder.part(Operation::Get, OperationPart::Read);
        assert_eq!((reads.len(), reads.min() / 1000), (slow, 99));
        assert_eq!(recorder.part(Operation::Get, OperationPart::Lock).len(), 0);
    }

    #[test]
    fn what_is_timed_in_any_case_counts_once_with_its_parts() {
        let recorder = Recorder::new(1);
        for _ in 0..100 {
            let mut waited = Waited::for_lock(20);
            waited.add(Wait::Leader, 100);
            waited.add(Wait::Device, 60);
            recorder.record(Timer::timed(Operation::Put, 50), &waited, || 250);
        }
        let lens = |part| recorder.part(Operation::Put, part).len();
        assert_eq!(OperationPart::ALL.map(lens), [100, 100, 0, 0]);
        assert_eq!(recorder.part(Operation::Put, OperationPart::Lock).max(), 120);
        let whole = recorder.whole(Operation::Put);
        assert_eq!((whole.len(), whole.max()), (100, 200));
    }
}
