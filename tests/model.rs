//! The engine against a `BTreeMap`: random histories with reopenings, flushes
//! and crashes, on the simulator and on the real disk.

mod common;

use std::ops::Bound;

use common::{Model, assert_same, tiny};
use ourodb::sim::{Faults, Sim};
use ourodb::{Batch, Db, Options};
use proptest::prelude::*;

#[derive(Clone)]
enum Action {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// Puts and deletes that are applied together, by WAL stream.
    Batch(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Flush,
    /// Compares everything.
    Check,
    /// A scan of a part, forward or backward, while writes go on.
    Scan {
        from: Vec<u8>,
        to: Vec<u8>,
        reverse: bool,
        writes: Vec<(Vec<u8>, Vec<u8>)>,
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
        match self {
            Self::Put(key, value) => write!(f, "Put({}, {})", short(key), value.len()),
            Self::Delete(key) => write!(f, "Delete({})", short(key)),
            Self::Batch(ops) => {
                let ops = ops.iter().map(|(k, v)| (short(k), v.as_ref().map(Vec::len)));
                write!(f, "Batch{:?}", ops.collect::<Vec<_>>())
            }
            Self::Flush => write!(f, "Flush"),
            Self::Check => write!(f, "Check"),
            Self::Scan { from, to, reverse, writes } => {
                let writes = writes.iter().map(|(k, v)| (short(k), v.len()));
                let writes: Vec<_> = writes.collect();
                write!(f, "Scan({}, {}, {reverse}, {writes:?})", short(from), short(to))
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
    ]
}

fn action(crashes: bool) -> impl Strategy<Value = Action> {
    let write = (key(), proptest::option::weighted(0.7, value()));
    prop_oneof![
        20 => (key(), value()).prop_map(|(k, v)| Action::Put(k, v)),
        6 => key().prop_map(Action::Delete),
        5 => proptest::collection::vec(write, 0..20).prop_map(Action::Batch),
        2 => Just(Action::Flush),
        2 => Just(Action::Check),
        3 => (key(), key(), any::<bool>(),
              proptest::collection::vec((key(), value()), 0..12))
            .prop_map(|(from, to, reverse, writes)| Action::Scan { from, to, reverse, writes }),
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

/// Runs a part of the process; `None` when the machine crashed.
type Run<'a> = &'a dyn Fn(&mut dyn FnMut());

struct World<'a> {
    open: &'a dyn Fn(usize) -> Db,
    run: Run<'a>,
    owners: usize,
    db: Option<Db>,
    model: Model,
}

impl World<'_> {
    /// Does `work`; when the machine crashes under it, opens again.
    /// Returns whether it was done.
    fn alive<R>(&mut self, mut work: impl FnMut(&Db) -> R) -> Option<R> {
        let mut done = None;
        let db = self.db.take().expect("a database is open");
        (self.run)(&mut || done = Some(work(&db)));
        match done {
            Some(done) => {
                self.db = Some(db);
                Some(done)
            }
            None => {
                drop(db);
                self.reopen();
                None
            }
        }
    }

    fn reopen(&mut self) {
        // An opening may crash, too; no more than a few times.
        while self.db.is_none() {
            let mut opened = None;
            (self.run)(&mut || opened = Some((self.open)(self.owners)));
            self.db = opened;
        }
    }

    /// Writes; if a crash left the outcome open, finds out which it was.
    fn write(&mut self, ops: &[(Vec<u8>, Option<Vec<u8>>)]) {
        let mut after = self.model.clone();
        for (key, value) in ops {
            apply(&mut after, key, value.as_deref());
        }
        let done = self.alive(|db| {
            let mut batch = Batch::new();
            match ops {
                [(key, Some(value))] => db.put(key, value).wait().expect("a put"),
                [(key, None)] => db.delete(key).wait().expect("a delete"),
                ops => {
                    for (key, value) in ops {
                        match value {
                            Some(value) => batch.put(key, value),
                            None => batch.delete(key),
                        };
                    }
                    db.write(batch).wait().expect("a batch");
                }
            }
        });
        if done.is_some() {
            self.model = after;
            return;
        }
        let rows = self.rows();
        assert!(rows == self.model || rows == after, "a write in flight is there in part");
        self.model = rows;
    }

    /// Everything there is, however many crashes it takes to see it.
    fn rows(&mut self) -> Model {
        loop {
            let rows = self.alive(|db| {
                let rows = db.scan(..).iter().map(|row| row.expect("a scan"));
                rows.map(|(k, v)| (k.into_vec(), v.into_vec())).collect::<Model>()
            });
            if let Some(rows) = rows {
                return rows;
            }
        }
    }

    fn scan(&mut self, from: &[u8], to: &[u8], reverse: bool, writes: &[(Vec<u8>, Vec<u8>)]) {
        let mut expected: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let (from, to) = if from <= to { (from, to) } else { (to, from) };
        let bounds = (Bound::Excluded(from.to_vec()), Bound::Included(to.to_vec()));
        if from != to {
            expected.extend(self.model.range(bounds.clone()).map(|(k, v)| (k.clone(), v.clone())));
        }
        if reverse {
            expected.reverse();
        }
        let model = self.model.clone();
        let scanned = self.alive(|db| {
            let scan = db.scan(bounds.clone());
            let mut rows = if reverse { scan.reverse().iter() } else { scan.iter() };
            let mut found = Vec::new();
            let mut written = 0;
            loop {
                // What is written from here on must not be seen.
                if let Some((key, value)) = writes.get(written) {
                    db.put(key, value).wait().expect("a put");
                    written += 1;
                }
                match rows.next() {
                    Some(row) => {
                        let (key, value) = row.expect("a scan");
                        found.push((key.into_vec(), value.into_vec()));
                    }
                    None => break,
                }
            }
            assert_eq!(found, expected, "a scan sees one moment");
            for (key, value) in &writes[written..] {
                db.put(key, value).wait().expect("a put");
            }
        });
        let mut after = model;
        for (key, value) in writes {
            apply(&mut after, key, Some(value));
        }
        if scanned.is_some() {
            self.model = after;
        } else {
            self.adopt_prefix(writes);
        }
    }

    /// After a crash among single writes: a prefix of them is there.
    fn adopt_prefix(&mut self, writes: &[(Vec<u8>, Vec<u8>)]) {
        let rows = self.rows();
        let mut model = self.model.clone();
        let mut matches = rows == model;
        for (key, value) in writes {
            apply(&mut model, key, Some(value));
            matches |= rows == model;
        }
        assert!(matches, "not a prefix of the writes");
        self.model = rows;
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Put(key, value) => self.write(&[(key.clone(), Some(value.clone()))]),
            Action::Delete(key) => self.write(&[(key.clone(), None)]),
            Action::Batch(ops) => {
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
                            *bytes += op.0.len() + op.1.as_ref().map_or(0, Vec::len) + 40;
                            (*bytes < 10_000).then_some(op)
                        })
                        .collect();
                    // A reopening in between may have moved the streams.
                    let db = self.db.as_ref().expect("open");
                    let first = part.first().map(|op| db.stream_of(&op.0));
                    if part.iter().all(|op| Some(db.stream_of(&op.0)) == first) {
                        self.write(&part);
                    }
                }
            }
            Action::Flush => drop(self.alive(|db| db.flush().wait().expect("a flush"))),
            Action::Check => {
                let model = self.model.clone();
                self.alive(|db| assert_same(db, &model));
            }
            Action::Scan { from, to, reverse, writes } => self.scan(from, to, *reverse, writes),
            Action::Reopen(owners) => {
                self.alive(|db| db.close().expect("a close"));
                self.owners = *owners;
                self.db = None;
                self.reopen();
            }
            Action::CrashAfter(..) => unreachable!("the caller arranges it"),
        }
    }
}

fn on_simulator(seed: u64, shards: usize, actions: &[Action], faults: &Faults) {
    let sim = Sim::new(seed);
    sim.set_faults(faults.clone());
    let open =
        |owners| Db::open("/db", tiny(&sim).shards(shards).owners(owners)).expect("an opening");
    let run = |work: &mut dyn FnMut()| {
        sim.until_crash(work);
    };
    let mut world = World { open: &open, run: &run, owners: 1, db: None, model: Model::new() };
    world.reopen();
    for action in actions {
        match action {
            Action::CrashAfter(n, power_cut) => sim.crash_after(*n, *power_cut),
            action => world.act(action),
        }
    }
    world.act(&Action::Reopen(2));
    world.act(&Action::Check);
    drop(world);
    sim.kill();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
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
        let open = |owners| {
            let io = if blocking { ourodb::IoBackend::Blocking } else { ourodb::IoBackend::Ring };
            let options = Options::default()
                .io(io)
                .shards(shards)
                .owners(owners)
                .memtable_bytes(4096)
                .wal_segment_bytes(16 << 10);
            Db::open(dir.path(), options).expect("an opening")
        };
        let run = |work: &mut dyn FnMut()| work();
        let mut world = World { open: &open, run: &run, owners: 2, db: None, model: Model::new() };
        world.reopen();
        for action in &actions {
            world.act(action);
        }
        world.act(&Action::Reopen(1));
        world.act(&Action::Check);
    }
}
