//! The engine against a `BTreeMap`: random histories with reopenings, flushes
//! and crashes, on the simulator and on the real disk.

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use common::{Model, Rng, assert_same, tiny};
use ourodb::sim::{Faults, Sim};
use ourodb::{Batch, Compaction, Compression, Db, Durability, Options};
use proptest::prelude::*;

/// A put or a delete.
type Op = (Vec<u8>, Option<Vec<u8>>);

/// Any bounds, also of no keys.
type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn is_in((start, end): &Range, key: &[u8]) -> bool {
    let is_behind_start = match start {
        Bound::Included(start) => key >= &start[..],
        Bound::Excluded(start) => key > &start[..],
        Bound::Unbounded => true,
    };
    is_behind_start
        && match end {
            Bound::Included(end) => key <= &end[..],
            Bound::Excluded(end) => key < &end[..],
            Bound::Unbounded => true,
        }
}

#[derive(Clone)]
enum Action {
    Put(Vec<u8>, Vec<u8>, Durability),
    Delete(Vec<u8>, Durability),
    /// Deletes what lies between two keys.
    DeleteRange(Range, Durability),
    /// Puts and deletes that are applied together, by WAL stream.
    Batch(Vec<Op>, Durability),
    /// Time passes.
    Rest(u64),
    Flush,
    Compact(Range),
    /// Compares everything.
    Check,
    /// A scan of a part, forward or backward, while other things happen, one
    /// before each row.
    Scan {
        range: Range,
        reverse: bool,
        meanwhile: Vec<Action>,
    },
    /// Closes and opens with this many owners.
    Reopen(usize),
    /// A crash after so many more completed requests; some hit an opening.
    CrashAfter(u64, bool),
}

impl std::fmt::Debug for Action {
    /// Short enough to read a failing history.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |key: &[u8]| key[..key.len().min(8)].escape_ascii().to_string();
        let bound = |bound: &Bound<Vec<u8>>| format!("{:?}", bound.as_ref().map(|key| short(key)));
        match self {
            Self::Put(key, value, how) => {
                write!(f, "Put({}, {}, {how:?})", short(key), value.len())
            }
            Self::Delete(key, how) => write!(f, "Delete({}, {how:?})", short(key)),
            Self::DeleteRange((from, to), how) => {
                write!(f, "DeleteRange({}, {}, {how:?})", bound(from), bound(to))
            }
            Self::Batch(ops, how) => {
                let ops = ops.iter().map(|(k, v)| (short(k), v.as_ref().map(Vec::len)));
                write!(f, "Batch({:?}, {how:?})", ops.collect::<Vec<_>>())
            }
            Self::Rest(ms) => write!(f, "Rest({ms} ms)"),
            Self::Flush => write!(f, "Flush"),
            Self::Compact((from, to)) => write!(f, "Compact({}, {})", bound(from), bound(to)),
            Self::Check => write!(f, "Check"),
            Self::Scan { range: (from, to), reverse, meanwhile } => {
                write!(f, "Scan({}, {}, {reverse}, {meanwhile:?})", bound(from), bound(to))
            }
            Self::Reopen(owners) => write!(f, "Reopen({owners})"),
            Self::CrashAfter(n, power_cut) => write!(f, "CrashAfter({n}, {power_cut})"),
        }
    }
}

/// Few keys, so that they meet often; with prefixes of each other, and one
/// that is longer than a memtable's inline values.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0..40u8).prop_map(|i| format!("key{i:02}").into_bytes()),
        2 => proptest::collection::vec(prop_oneof![Just(0u8), Just(b'k'), Just(255)], 0..4),
        1 => (0..3u8).prop_map(|i| vec![i; 700]),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => proptest::collection::vec(any::<u8>(), 0..60),
        2 => (any::<u8>(), 200..900usize).prop_map(|(byte, len)| vec![byte; len]),
        1 => (any::<u8>(), 4000..6000usize).prop_map(|(byte, len)| vec![byte; len]),
        // In tables, which a few of these split.
        1 => (any::<u64>(), 6000..11_000usize).prop_map(|(seed, len)| Rng(seed).bytes(len)),
        // In value files.
        1 => (any::<u8>(), 65_537..80_000usize).prop_map(|(byte, len)| vec![byte; len]),
        // Not too often: in a file of its own.
        1 => (any::<u8>(), prop_oneof![7 => Just(66_000usize), 1 => Just(1_050_000)])
            .prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        2 => Just(Durability::Durable),
        3 => Just(Durability::ProcessSafe),
        1 => (1..50u64).prop_map(|ms| Durability::Relaxed { within: Duration::from_millis(ms) }),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        4 => key().prop_map(Bound::Included),
        3 => key().prop_map(Bound::Excluded),
        1 => Just(Bound::Unbounded),
    ]
}

fn range() -> impl Strategy<Value = Range> {
    // Now and then the wrong way round: such a range has no keys.
    (bound(), bound(), 0..8u8).prop_map(|(one, other, chance)| {
        let key = |bound: &Bound<Vec<u8>>| match bound {
            Bound::Included(key) | Bound::Excluded(key) => Some(key.clone()),
            Bound::Unbounded => None,
        };
        match (key(&one), key(&other)) {
            (Some(a), Some(b)) if a > b && chance > 0 => (other, one),
            _ => (one, other),
        }
    })
}

/// What may also happen while a scan is open.
fn step() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => (key(), value(), durability()).prop_map(|(k, v, how)| Action::Put(k, v, how)),
        6 => (key(), durability()).prop_map(|(k, how)| Action::Delete(k, how)),
        3 => (range(), durability()).prop_map(|(range, how)| Action::DeleteRange(range, how)),
        1 => (1..2000u64).prop_map(Action::Rest),
        2 => Just(Action::Flush),
        1 => range().prop_map(Action::Compact),
    ]
}

fn action(crashes: bool) -> impl Strategy<Value = Action> {
    let write = (key(), proptest::option::weighted(0.7, value()));
    prop_oneof![
        32 => step(),
        5 => (proptest::collection::vec(write, 0..20), durability())
            .prop_map(|(ops, how)| Action::Batch(ops, how)),
        2 => Just(Action::Check),
        3 => (range(), any::<bool>(), proptest::collection::vec(step(), 0..16))
            .prop_map(|(range, reverse, meanwhile)| Action::Scan { range, reverse, meanwhile }),
        2 => (1..4usize).prop_map(Action::Reopen),
        if crashes { 5 } else { 0 } =>
            (0..60u64, any::<bool>()).prop_map(|(n, cut)| Action::CrashAfter(n, cut)),
    ]
}

fn apply(model: &mut Model, key: &[u8], value: Option<&[u8]>) {
    match value {
        Some(value) => drop(model.insert(key.to_vec(), value.to_vec())),
        None => drop(model.remove(key)),
    }
}

/// Runs a part of the process, unless it crashes under it.
type Run<'a> = &'a dyn Fn(&mut dyn FnMut());

/// Writes of one WAL stream that were applied at one moment.
struct Applied {
    ops: Vec<Op>,
    is_durable: bool,
    is_acknowledged: bool,
}

struct World<'a> {
    open: &'a dyn Fn(usize) -> Db,
    run: Run<'a>,
    /// Lets milliseconds pass. Whether the machine crashed.
    rest: &'a dyn Fn(u64) -> bool,
    owners: usize,
    db: Option<Db>,
    /// What there was when the database was opened.
    base: Model,
    /// What was written since, by WAL stream.
    history: BTreeMap<usize, Vec<Applied>>,
    /// What there is now.
    model: Model,
    /// The crash that comes is the loss of power.
    loses_power: bool,
    /// Every key that is ever written.
    keys: Vec<Vec<u8>>,
    /// Counts openings.
    openings: u32,
}

impl World<'_> {
    /// Does `work`; when the machine crashes under it, opens again and sees
    /// what is left. Returns whether it was done.
    fn alive<R>(&mut self, work: impl FnOnce(&Db) -> R) -> Option<R> {
        self.alive_if(|db| Some(work(db)))
    }

    /// The same, of work that may say that the machine crashed.
    fn alive_if<R>(&mut self, work: impl FnOnce(&Db) -> Option<R>) -> Option<R> {
        let (mut done, mut work) = (None, Some(work));
        let db = self.db.take().expect("a database is open");
        let stream_of = self
            .keys
            .iter()
            .map(|key| (key.clone(), db.stream_of(key)))
            .collect::<BTreeMap<_, _>>();
        (self.run)(&mut || done = work.take().and_then(|work| work(&db)));
        if done.is_some() {
            self.db = Some(db);
            return done;
        }
        drop(db);
        let rows = self.rows_after_crash();
        self.check_crash(&rows, &stream_of);
        self.base.clone_from(&rows);
        self.model = rows;
        self.history.clear();
        None
    }

    fn reopen(&mut self) {
        // An opening may crash, too; no more than a few times.
        while self.db.is_none() {
            let mut opened = None;
            (self.run)(&mut || opened = Some((self.open)(self.owners)));
            self.db = opened;
            self.openings += 1;
        }
    }

    /// Everything there is, however many crashes it takes to see it.
    fn rows_after_crash(&mut self) -> Model {
        loop {
            self.reopen();
            let mut rows = None;
            let db = self.db.take().expect("it was just opened");
            (self.run)(&mut || {
                let all = db.scan(..).iter().map(|row| row.expect("a scan"));
                rows = Some(all.map(|(k, v)| (k.into_vec(), v.into_vec())).collect::<Model>());
            });
            if let Some(rows) = rows {
                self.db = Some(db);
                return rows;
            }
        }
    }

    /// Of each stream a prefix of its history is there: all that was
    /// acknowledged, or after the loss of power all that was durable.
    fn check_crash(&self, rows: &Model, stream_of: &BTreeMap<Vec<u8>, usize>) {
        let of = |model: &Model, stream: usize| -> Model {
            let of_stream = model.iter().filter(|(key, _)| stream_of[*key] == stream);
            of_stream.map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        for stream in 0..self.owners {
            let history = self.history.get(&stream).map_or(&[][..], |history| history);
            let promised = history.iter().rposition(|applied| {
                applied.is_acknowledged && (applied.is_durable || !self.loses_power)
            });
            let promised = promised.map_or(0, |last| last + 1);
            let rows = of(rows, stream);
            let mut model = of(&self.base, stream);
            let mut is_prefix = promised == 0 && model == rows;
            for (at, applied) in history.iter().enumerate() {
                for (key, value) in &applied.ops {
                    apply(&mut model, key, value.as_deref());
                }
                is_prefix |= at + 1 >= promised && model == rows;
            }
            assert!(
                is_prefix,
                "stream {stream}: of {} writes {promised} were promised; power lost: {}",
                history.len(),
                self.loses_power
            );
        }
    }

    /// Notes a write before it begins.
    fn begin(&mut self, ops: &[Op], how: Durability) -> usize {
        let stream = self.db.as_ref().expect("open").stream_of(&ops[0].0);
        let is_durable = how == Durability::Durable;
        let applied = Applied { ops: ops.to_vec(), is_durable, is_acknowledged: false };
        self.history.entry(stream).or_default().push(applied);
        stream
    }

    fn acknowledge(&mut self, stream: usize) {
        let history = self.history.get_mut(&stream).expect("it began");
        let applied = history.last_mut().expect("it began");
        applied.is_acknowledged = true;
        for (key, value) in &applied.ops {
            apply(&mut self.model, key, value.as_deref());
        }
    }

    fn write(&mut self, ops: &[Op], how: Durability) {
        if ops.is_empty() {
            return;
        }
        let stream = self.begin(ops, how);
        let done = self.alive(|db| {
            let mut batch = Batch::new();
            match ops {
                [(key, Some(value))] => db.put(key, value).durability(how).wait().expect("a put"),
                [(key, None)] => db.delete(key).durability(how).wait().expect("a delete"),
                ops => {
                    for (key, value) in ops {
                        match value {
                            Some(value) => batch.put(key, value),
                            None => batch.delete(key),
                        };
                    }
                    db.write(batch).durability(how).wait().expect("a batch");
                }
            }
        });
        if done.is_some() {
            self.acknowledge(stream);
        }
    }

    /// Each WAL stream deletes its part of the range at one moment, one stream
    /// after the other.
    fn delete_range(&mut self, range: &Range, how: Durability) {
        let db = self.db.as_ref().expect("open");
        let within = self.keys.iter().filter(|key| is_in(range, key));
        let mut ops: BTreeMap<usize, Vec<Op>> = BTreeMap::new();
        for key in within {
            ops.entry(db.stream_of(key)).or_default().push((key.clone(), None));
        }
        let ops: Vec<Vec<Op>> = ops.into_values().collect();
        let streams: Vec<usize> = ops.iter().map(|ops| self.begin(ops, how)).collect();
        let range = range.clone();
        let delete = |db: &Db| db.delete_range(range).durability(how).wait().expect("a delete");
        if self.alive(delete).is_some() {
            for stream in streams {
                self.acknowledge(stream);
            }
        }
    }

    fn scan(&mut self, range: &Range, reverse: bool, meanwhile: &[Action]) {
        let within = self.model.iter().filter(|(key, _)| is_in(range, key));
        let mut expected: Vec<_> = within.map(|(k, v)| (k.clone(), v.clone())).collect();
        if reverse {
            expected.reverse();
        }
        let Some(mut rows) = self.alive(|db| {
            let scan = db.scan(range.clone());
            if reverse { scan.reverse().iter() } else { scan.iter() }
        }) else {
            return;
        };
        let mut found = Vec::new();
        let mut meanwhile = meanwhile.iter();
        loop {
            // What is written from here on must not be seen.
            if let Some(action) = meanwhile.next() {
                let before = self.openings;
                self.act(action);
                if self.openings != before {
                    return;
                }
            }
            match self.alive(|_| rows.next().map(|row| row.expect("a scan"))) {
                Some(Some((key, value))) => found.push((key.into_vec(), value.into_vec())),
                Some(None) => break,
                None => return,
            }
        }
        assert_eq!(found, expected, "a scan sees one moment");
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Put(key, value, how) => self.write(&[(key.clone(), Some(value.clone()))], *how),
            Action::Delete(key, how) => self.write(&[(key.clone(), None)], *how),
            Action::DeleteRange(range, how) => self.delete_range(range, *how),
            Action::Batch(ops, how) => {
                let streams: Vec<usize> = {
                    let db = self.db.as_ref().expect("open");
                    ops.iter().map(|(key, _)| db.stream_of(key)).collect()
                };
                // Each stream's part on its own: 8 KiB at most, by value sizes.
                for stream in 0..3 {
                    let of_stream = ops.iter().zip(&streams).filter(|(_, s)| **s == stream);
                    let part: Vec<_> = of_stream
                        .map(|(op, _)| op.clone())
                        .scan(0, |bytes, op| {
                            let value = op.1.as_ref().map_or(0, Vec::len);
                            // A long value is not in the log.
                            *bytes += op.0.len() + if value > 65_536 { 60 } else { value } + 40;
                            (*bytes < 10_000).then_some(op)
                        })
                        .collect();
                    // A reopening in between may have moved the streams.
                    let db = self.db.as_ref().expect("open");
                    let first = part.first().map(|op| db.stream_of(&op.0));
                    if part.iter().all(|op| Some(db.stream_of(&op.0)) == first) {
                        self.write(&part, *how);
                    }
                }
            }
            Action::Rest(ms) => {
                let rest = self.rest;
                self.alive_if(|_| (!rest(*ms)).then_some(()));
            }
            Action::Flush => drop(self.alive(|db| db.flush().wait().expect("a flush"))),
            Action::Check => {
                let model = self.model.clone();
                self.alive(|db| assert_same(db, &model));
            }
            Action::Compact(range) => {
                self.alive(|db| db.compact(range.clone()).wait().expect("a compaction"));
            }
            Action::Scan { range, reverse, meanwhile } => self.scan(range, *reverse, meanwhile),
            Action::Reopen(owners) => {
                if self.alive(|db| db.close().expect("a close")).is_some() {
                    // All of it is durable now.
                    self.base.clone_from(&self.model);
                    self.history.clear();
                    self.db = None;
                    self.owners = *owners;
                    self.reopen();
                }
            }
            Action::CrashAfter(..) => unreachable!("the caller arranges it"),
        }
    }
}

/// The keys that are ever written.
fn keys_of(actions: &[Action], keys: &mut Vec<Vec<u8>>) {
    for action in actions {
        match action {
            Action::Put(key, ..) | Action::Delete(key, _) => keys.push(key.clone()),
            Action::Batch(ops, _) => keys.extend(ops.iter().map(|op| op.0.clone())),
            Action::Scan { meanwhile, .. } => keys_of(meanwhile, keys),
            _ => {}
        }
    }
}

fn run(
    open: &dyn Fn(usize) -> Db,
    run: Run<'_>,
    rest: &dyn Fn(u64) -> bool,
    crash: &dyn Fn(u64, bool),
    owners: usize,
    actions: &[Action],
) {
    let mut keys = Vec::new();
    keys_of(actions, &mut keys);
    let mut world = World {
        open,
        run,
        rest,
        owners,
        db: None,
        base: Model::new(),
        history: BTreeMap::new(),
        model: Model::new(),
        loses_power: false,
        keys,
        openings: 0,
    };
    world.reopen();
    for action in actions {
        match action {
            Action::CrashAfter(n, power_cut) => {
                crash(*n, *power_cut);
                world.loses_power = *power_cut;
            }
            action => world.act(action),
        }
    }
    world.act(&Action::Check);
    world.act(&Action::Reopen(2));
    world.act(&Action::Check);
}

/// What may be different from one opening to the next, drawn anew for each.
fn varied(options: Options, rng: &mut Rng) -> Options {
    let compaction = match rng.below(5) {
        0 | 1 => Compaction::Tiered,
        // Nothing is ever beyond it.
        2 => Compaction::Fifo { max_bytes: Some(1 << 40), max_age: None },
        _ => Compaction::Leveled,
    };
    // From each level, or none.
    let from = rng.below(8) as u8;
    let options = match from {
        7 => options,
        _ => options.compression_from(from, Compression::Lz4),
    };
    options
        .compaction(compaction)
        .levels(2 + rng.below(6) as u8)
        .size_ratio(2 + rng.below(9) as u32)
        .table_bytes(64 << 10)
        .cache_bytes([0, 18 << 10, 48 << 10, 1 << 20][rng.below(4) as usize])
}

fn on_simulator(seed: u64, shards: usize, actions: &[Action], faults: &Faults) {
    let sim = Sim::new(seed);
    sim.set_faults(faults.clone());
    let rng = RefCell::new(Rng(seed));
    let open = |owners| {
        let options = varied(tiny(&sim), &mut rng.borrow_mut());
        let options = options.shards(shards).owners(owners);
        // With two of three seeds filters and indexes of no tables, or of few, stay in
        // memory.
        let options = match seed % 3 {
            0 => options,
            1 => options.pinned_bytes(0),
            _ => options.pinned_bytes(16 << 10),
        };
        Db::open("/db", options).expect("an opening")
    };
    let alive = |work: &mut dyn FnMut()| {
        sim.until_crash(work);
    };
    let rest = |ms| sim.run_for(ms * 1_000_000);
    let crash = |n, power_cut| sim.crash_after(n, power_cut);
    run(&open, &alive, &rest, &crash, 1, actions);
    sim.kill();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 120,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(20_261_120),
        ..ProptestConfig::default()
    })]

    /// Crashes anywhere, also in openings, with a well-behaved disk.
    #[test]
    fn crashes_on_the_simulator(
        seed in any::<u64>(),
        shards in 1..4usize,
        actions in proptest::collection::vec(action(true), 1..120),
    ) {
        on_simulator(seed, shards, &actions, &Faults::default());
    }

    /// The same on a disk that reorders, shortens, interrupts and delays.
    #[test]
    fn crashes_on_a_nasty_disk(
        seed in any::<u64>(),
        shards in 1..4usize,
        actions in proptest::collection::vec(action(true), 1..80),
    ) {
        let faults = Faults::default()
            .delay_ns(1_000..=2_000_000)
            .reorder(true)
            .short_ppm(100_000)
            .again_ppm(50_000);
        on_simulator(seed, shards, &actions, &faults);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(20_261_121),
        ..ProptestConfig::default()
    })]

    /// Reopenings on the real disk, with threads and rings.
    #[test]
    fn reopenings_on_the_real_disk(
        shards in 1..4usize,
        blocking in any::<bool>(),
        actions in proptest::collection::vec(action(false), 1..60),
    ) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let rng = RefCell::new(Rng(actions.len() as u64));
        let open = |owners| {
            let io = if blocking { ourodb::IoBackend::Blocking } else { ourodb::IoBackend::Ring };
            let options = Options::default()
                .io(io)
                .shards(shards)
                .owners(owners)
                .memtable_bytes(4096)
                .wal_segment_bytes(16 << 10);
            let options = varied(options, &mut rng.borrow_mut());
            let options = if owners == 2 { options.pinned_bytes(0) } else { options };
            Db::open(dir.path(), options).expect("an opening")
        };
        let alive = |work: &mut dyn FnMut()| work();
        let crash = |_, _| unreachable!("nothing crashes here");
        run(&open, &alive, &|_| false, &crash, 2, &actions);
    }
}
