//! Compactions against a map of all versions, on a simulated machine.

mod ranges;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{Hierarchy, Plan, Situation, Strategy, bytes, compact, due_in_s, pick};
use crate::base::hash::KeyHasher;
use crate::base::ids::DbId;
use crate::base::ranges::is_before;
use crate::base::seq::{Kind, SEQ_MAX, SeqNo, Tag};
use crate::io::sim::Sim;
use crate::io::{BufferPool, Io};
use crate::lsm::Lookup;
use crate::lsm::flush::write_table;
use crate::lsm::keep::Retain;
use crate::lsm::levels::Levels;
use crate::lsm::member::Member;
use crate::lsm::output::{FileIds, TablePlace};
use crate::lsm::tests::get;
use crate::memtable::{ArenaPool, Memtable, Payload};
use crate::sst::{Compression, PinLimits, Pins, ReadCounters, Retired};

const MEMTABLE_BYTES: u64 = 16 << 10;

/// A linear congruential generator: every run of a test is the same.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// The versions of a key, oldest first; `None` for a tombstone.
type Versions = Vec<(SeqNo, Option<Vec<u8>>)>;

/// One shard's tables, and what they must say.
struct Tree {
    sim: Sim,
    hierarchy: Hierarchy,
    levels: Levels,
    pins: Arc<Pins>,
    model: BTreeMap<Vec<u8>, Versions>,
    /// Ranges that were deleted: start, end, and when.
    deleted: Vec<(Vec<u8>, Vec<u8>, SeqNo)>,
    next_seq: SeqNo,
    next_id: u32,
    /// Files of tables that were merged.
    retired: Arc<Retired>,
    files_reused: u64,
    /// Bounds of open snapshots.
    snapshots: Vec<SeqNo>,
    /// Of compactions.
    written_bytes: u64,
    moved: usize,
}

fn hasher() -> KeyHasher {
    KeyHasher::new(&[9; 16])
}

fn key(number: u64) -> Vec<u8> {
    format!("key{number:06}").into_bytes()
}

impl Tree {
    fn new(hierarchy: Hierarchy) -> Self {
        let sim = Sim::new(1);
        sim.block_on(async { sim.create_dir(Path::new("/db")).await }).expect("a directory");
        Self {
            sim,
            hierarchy,
            levels: Levels::default(),
            pins: Pins::new(PinLimits::UNBOUNDED),
            model: BTreeMap::new(),
            deleted: Vec::new(),
            next_seq: 1,
            next_id: 1,
            retired: Arc::default(),
            files_reused: 0,
            snapshots: Vec::new(),
            written_bytes: 0,
            moved: 0,
        }
    }

    fn retain(&self) -> Retain {
        Retain::Bounds(self.snapshots.clone())
    }

    fn place(&mut self, tables: u32, plan: Option<&Plan>) -> TablePlace {
        let first = self.next_id;
        self.next_id += tables;
        TablePlace {
            dir: "/db".into(),
            db: DbId([1; 16]),
            shard: 0,
            ids: FileIds::new(1, first, tables),
            pool: BufferPool::new(64 << 10, 1),
            compression: plan.map_or(Compression::None, |plan| plan.compression),
            table_bytes: plan.map_or(u64::MAX, |_| self.hierarchy.table_bytes),
            pins: Arc::clone(&self.pins),
            // Longer and shorter ones than what comes of it.
            spares: self
                .retired
                .lend(Path::new("/db"), (0..tables).map(|i| 1 << (12 + (first + i) % 4)))
                .into(),
        }
    }

    /// Flushes a memtable of these writes.
    fn flush(&mut self, writes: impl IntoIterator<Item = (u64, Option<Vec<u8>>)>) {
        let mut memtable = Memtable::new(&ArenaPool::new(1 << 20));
        for (number, value) in writes {
            self.write(&mut memtable, key(number), value);
        }
        self.flush_memtable(&memtable);
    }

    fn write(&mut self, memtable: &mut Memtable, key: Vec<u8>, value: Option<Vec<u8>>) {
        let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
        let bytes = value.as_deref().unwrap_or_default();
        memtable.insert(&key, Tag::new(self.next_seq, kind), Payload::Inline(bytes));
        self.model.entry(key).or_default().push((self.next_seq, value));
        self.next_seq += 1;
    }

    fn flush_memtable(&mut self, memtable: &Memtable) {
        let place = self.place(1, None);
        let (sim, retain, hasher) = (&self.sim, self.retain(), hasher());
        let older = self.levels.older_than_memtables();
        let table = sim.block_on(write_table(sim, memtable, &retain, &older, &hasher, &place));
        if let Some(table) = table.expect("a sound machine").0 {
            self.levels = self.levels.flushed(table);
        }
        self.files_reused += place.files_reused();
        self.retired.give_back(place.unused_spares());
    }

    fn situation(&self, is_idle: bool) -> Situation {
        Situation { is_idle, retain: self.retain(), calendar_s: self.sim.calendar_s() }
    }

    /// Does what is due; how many plans that took.
    fn settle(&mut self, is_idle: bool) -> usize {
        for plans in 0.. {
            assert!(plans < 1000, "it never ends");
            let Some(plan) = pick(&self.levels, &self.hierarchy, &self.situation(is_idle)) else {
                return plans;
            };
            self.carry_out(&plan);
        }
        unreachable!()
    }

    fn carry_out(&mut self, plan: &Plan) {
        let tables = plan.outputs_max(self.hierarchy.table_bytes);
        let place = self.place(tables, Some(plan));
        let (sim, retain, hasher) = (&self.sim, self.retain(), hasher());
        let outputs = if plan.inputs.is_empty() {
            Vec::new()
        } else {
            let made = sim.block_on(compact(sim, plan, &retain, &hasher, &place, false, 1 << 20));
            made.expect("a sound machine").0.into_iter().map(|made| made.table).collect()
        };
        self.written_bytes += outputs.iter().map(|table| table.meta().file_bytes).sum::<u64>();
        self.moved += plan.moves.len();
        self.levels = plan.applied(&self.levels, &outputs).expect("a possible plan");
        plan.inputs.iter().for_each(|(_, table)| table.retire(&self.retired));
        if !plan.inputs.is_empty() {
            self.files_reused += place.files_reused();
            self.retired.give_back(place.unused_spares());
        }
    }

    /// The newest value at or below a bound.
    fn expected(&self, key: &[u8], bound: SeqNo) -> Option<Vec<u8>> {
        let versions = self.model.get(key)?;
        let (written, value) = versions.iter().rev().find(|(seq, _)| *seq <= bound)?;
        let hides = |(start, end, seq): &(Vec<u8>, Vec<u8>, SeqNo)| {
            written < seq && *seq <= bound && **start <= *key && is_before(key, end)
        };
        value.clone().filter(|_| !self.deleted.iter().any(hides))
    }

    fn get(&self, key: &[u8], bound: SeqNo) -> Option<Vec<u8>> {
        let counters = ReadCounters::default();
        let lookup = Lookup { counters: &counters, key, hash: hasher().hash(key), bound };
        let found = get(&self.sim, &self.levels, &lookup);
        found.filter(|(tag, _)| tag.kind() == Some(Kind::Put)).map(|(_, value)| value)
    }

    fn check(&self, numbers: u64) {
        for number in 0..numbers {
            let key = key(number);
            for bound in self.snapshots.iter().copied().chain([SEQ_MAX]) {
                let (found, expected) = (self.get(&key, bound), self.expected(&key, bound));
                assert_eq!(found, expected, "key {number} at {bound}");
            }
        }
    }

    fn entries(&self) -> u64 {
        self.levels.tables().map(|(_, member)| member.meta().entries).sum()
    }

    fn live(&self) -> u64 {
        self.model
            .values()
            .filter(|versions| versions.last().is_some_and(|v| v.1.is_some()))
            .count() as u64
    }

    fn sizes(&self) -> Vec<u64> {
        (0..7).map(|level| bytes(self.levels.level(level))).collect()
    }
}

fn value(random: &mut Random) -> Vec<u8> {
    let len = random.below(300) as usize;
    (0..len).map(|_| random.below(256) as u8).collect()
}

fn random_writes(random: &mut Random, keys: u64, count: u64) -> Vec<(u64, Option<Vec<u8>>)> {
    let one = |_| {
        let number = random.below(keys);
        let value = (random.below(4) > 0).then(|| value(random));
        (number, value)
    };
    (0..count).map(one).collect()
}

fn hierarchies() -> [Hierarchy; 3] {
    let leveled = Hierarchy::leveled(MEMTABLE_BYTES);
    // Small levels, so that there are several.
    let deep = Hierarchy { size_ratio: 2, memtable_bytes: MEMTABLE_BYTES / 8, ..leveled };
    let tiered = Hierarchy { strategy: Strategy::Tiered, size_ratio: 4, ..leveled };
    [leveled, deep, tiered]
}

#[test]
fn nothing_changes_for_readers() {
    for (hierarchy, seed) in hierarchies().into_iter().zip([1, 2, 3]) {
        let mut random = Random(seed);
        let mut tree = Tree::new(hierarchy);
        for round in 0..60 {
            tree.flush(random_writes(&mut random, 400, 100));
            match random.below(6) {
                0 => tree.snapshots.push(tree.next_seq - 1),
                1 if !tree.snapshots.is_empty() => {
                    let at = random.below(tree.snapshots.len() as u64) as usize;
                    tree.snapshots.remove(at);
                }
                _ => {}
            }
            let plans = tree.settle(random.below(4) == 0);
            if plans > 0 || round % 10 == 0 {
                tree.check(400);
            }
        }
        tree.settle(true);
        tree.check(400);
        assert!(tree.files_reused > 5, "{} files were written over", tree.files_reused);
    }
}

#[test]
fn what_is_left_alone_between_others_is_not_reached_over() {
    for (hierarchy, seed) in hierarchies().into_iter().zip([4, 5, 6]) {
        let mut random = Random(seed);
        let mut tree = Tree::new(hierarchy);
        for _ in 0..150 {
            let (start, count) = (random.below(4000), 1 + random.below(60));
            let writes = (start..start + count).map(|i| (i, (i % 5 > 0).then(|| vec![7; 40])));
            tree.flush(writes.collect::<Vec<_>>());
            if random.below(3) == 0 {
                tree.settle(random.below(2) == 0);
            }
        }
        tree.settle(true);
        tree.check(4100);
    }
}

#[test]
fn after_a_pause_hardly_any_garbage_is_left() {
    for hierarchy in &hierarchies()[..2] {
        let mut random = Random(7);
        let mut tree = Tree::new(*hierarchy);
        for _ in 0..2 {
            for start in (0..6000).step_by(200) {
                let puts = (start..start + 200).map(|i| (i * 7919 % 6000, Some(vec![1; 60])));
                tree.flush(puts.collect::<Vec<_>>());
                tree.settle(false);
            }
        }
        for start in (0..6000).step_by(500) {
            tree.flush((start..start + 500).filter(|i| i % 2 == 0).map(|i| (i, None)));
            tree.settle(false);
        }
        tree.flush(random_writes(&mut random, 6000, 50));
        tree.settle(true);
        let (entries, live) = (tree.entries(), tree.live());
        assert!(entries <= live * 103 / 100, "{entries} entries for {live}: {:?}", tree.sizes());
        assert_eq!(tree.settle(true), 0);
        tree.check(6000);
    }
}

#[test]
fn data_that_nothing_was_written_over_is_not_rewritten_to_find_out() {
    let mut tree = Tree::new(Hierarchy::leveled(MEMTABLE_BYTES));
    for start in 0..11 {
        tree.flush((0..100).map(|i| ((i * 97 + start) % 10_000, Some(vec![2; 100]))));
    }
    let loaded: u64 = tree.sizes().iter().sum();
    tree.settle(true);
    assert!(
        tree.written_bytes <= loaded,
        "merged at most once: {} of {loaded}",
        tree.written_bytes
    );
    assert_eq!(tree.settle(true), 0);
}

#[test]
fn keys_in_order_are_moved() {
    let mut tree = Tree::new(Hierarchy::leveled(MEMTABLE_BYTES));
    for start in 0..60 {
        tree.flush((start * 100..start * 100 + 100).map(|i| (i, Some(vec![3; 100]))));
        tree.settle(start % 2 == 0);
    }
    assert_eq!(tree.written_bytes, 0);
    assert!(tree.moved > 0 && tree.levels.level(0).len() < 48, "{:?}", tree.sizes());
    tree.check(6000);
}

#[test]
fn levels_keep_their_sizes() {
    let hierarchy = Hierarchy { size_ratio: 4, ..Hierarchy::leveled(MEMTABLE_BYTES / 4) };
    let mut tree = Tree::new(hierarchy);
    let mut random = Random(11);
    for _ in 0..400 {
        let writes = (0..40).map(|_| (random.below(1 << 40), Some(vec![4; 90])));
        tree.flush(writes.collect::<Vec<_>>());
        tree.settle(false);
    }
    let sizes = tree.sizes();
    assert!(sizes[6] > 2 * sizes[5] && sizes[5] > 0, "{sizes:?}");
    assert!(tree.levels.level(0).len() <= 20, "{sizes:?}");
    let all: u64 = sizes.iter().sum();
    assert!(tree.written_bytes < 8 * all, "{} for {all}", tree.written_bytes);
}

#[test]
fn tombstones_in_long_stretches_go_soon() {
    let mut tree = Tree::new(Hierarchy::leveled(MEMTABLE_BYTES));
    for start in (0..4000).step_by(400) {
        tree.flush((start..start + 400).map(|i| (i, Some(vec![5; 30]))));
    }
    tree.settle(true);
    tree.flush((1000..3000).map(|i| (i, None)));
    assert!(tree.entries() > 4000);
    tree.settle(true);
    assert_eq!(tree.entries(), 2000);
    // Also when writes go on.
    for _ in 0..4 {
        tree.flush((3000..4000).map(|i| (i, None)));
    }
    tree.settle(false);
    assert_eq!(tree.entries(), 1000);
    tree.check(4000);
}

#[test]
fn what_a_snapshot_kept_goes_after_it() {
    let mut tree = Tree::new(Hierarchy::leveled(MEMTABLE_BYTES));
    tree.flush((0..500).map(|i| (i, Some(vec![6; 50]))));
    tree.snapshots.push(tree.next_seq - 1);
    tree.flush((0..500).map(|i| (i, (i % 2 == 0).then(|| vec![7; 50]))));
    tree.settle(true);
    tree.check(500);
    assert_eq!(tree.entries(), 1000);
    tree.snapshots.clear();
    tree.settle(true);
    assert_eq!(tree.entries(), 250);
    tree.check(500);
}

#[test]
fn tiers_are_few_and_little_is_written() {
    let hierarchy = hierarchies()[2];
    let mut tree = Tree::new(hierarchy);
    let mut random = Random(13);
    for _ in 0..120 {
        let writes = (0..60).map(|_| (random.below(1 << 40), Some(vec![8; 90])));
        tree.flush(writes.collect::<Vec<_>>());
        tree.settle(false);
    }
    let sizes = tree.sizes();
    assert!(tree.levels.level(0).len() < 4, "{sizes:?}");
    let runs = sizes.iter().filter(|&&size| size > 0).count();
    let all: u64 = sizes.iter().sum();
    assert!(runs <= 6 && tree.written_bytes < 6 * all, "{sizes:?} {}", tree.written_bytes);
}

#[test]
fn tombstones_in_long_stretches_go_from_tiers_when_writes_pause() {
    let mut tree = Tree::new(hierarchies()[2]);
    tree.flush((0..4000).map(|i| (i, Some(vec![5; 300]))));
    tree.settle(true);
    // Far too little garbage for a merge of everything, but for scans' sake.
    tree.flush((1000..1600).map(|i| (i, None)));
    assert_eq!(tree.settle(false), 0);
    assert_eq!(tree.entries(), 4600);
    tree.settle(true);
    assert_eq!(tree.entries(), 3400);
    // A few are left alone.
    tree.flush((0..4000).filter(|i| i % 100 == 0).map(|i| (i, None)));
    assert_eq!(tree.settle(true), 0);
    tree.check(4000);
}

#[test]
fn keys_in_order_do_not_pile_up_in_tiers() {
    let mut tree = Tree::new(hierarchies()[2]);
    for start in 0..100 {
        tree.flush((start * 100..start * 100 + 100).map(|i| (i, Some(vec![3; 100]))));
        tree.settle(false);
        assert!(tree.levels.level(0).len() < 48, "writers would wait for ever");
    }
    tree.check(10_000);
}

#[test]
fn first_in_first_out() {
    let leveled = Hierarchy::leveled(MEMTABLE_BYTES);
    let bytes_max = Some(20 * 4096);
    let by_size = Strategy::Fifo { bytes_max, age_s_max: None };
    let mut tree = Tree::new(Hierarchy { strategy: by_size, ..leveled });
    for start in 0..20 {
        tree.flush((start * 10..start * 10 + 10).map(|i| (i, Some(vec![9; 100]))));
        tree.settle(false);
        assert!(tree.sizes()[0] <= 20 * 4096);
    }
    assert_eq!(tree.get(&key(199), SEQ_MAX), Some(vec![9; 100]));
    assert_eq!(tree.get(&key(0), SEQ_MAX), None);

    let by_age = Strategy::Fifo { bytes_max: None, age_s_max: Some(60) };
    let mut tree = Tree::new(Hierarchy { strategy: by_age, ..leveled });
    for number in 0..4 {
        tree.flush([(number, Some(vec![9; 100]))]);
        let sim = tree.sim.clone();
        sim.block_on(sim.sleep(40_000_000_000));
        tree.settle(false);
    }
    let left: Vec<bool> = (0..4).map(|i| tree.get(&key(i), SEQ_MAX).is_some()).collect();
    assert_eq!(left, [false, false, false, true]);
    // As good as never.
    let strategy = Strategy::Fifo { bytes_max: None, age_s_max: Some(u64::MAX) };
    let due = due_in_s(&tree.levels, &Hierarchy { strategy, ..leveled }, 1000);
    assert_eq!(due, Some(u64::MAX - 1000));
}

#[test]
fn a_damaged_table_goes_with_the_younger_ones_that_are_past_their_age() {
    let leveled = Hierarchy::leveled(MEMTABLE_BYTES);
    let strategy = Strategy::Fifo { bytes_max: None, age_s_max: Some(100) };
    let mut tree = Tree::new(Hierarchy { strategy, ..leveled });
    for i in 0..3 {
        tree.flush([(i, Some(vec![1; 100]))]);
    }
    let oldest = tree.levels.level(0)[2].meta().clone();
    let error = crate::base::error::Error::corruption(Path::new("x"), 0, "a test");
    tree.levels.remove(0, oldest.id).expect("there");
    tree.levels.add(0, Member::Damaged { meta: oldest, error }).expect("fits");
    assert_eq!(tree.settle(false), 0);
    let sim = tree.sim.clone();
    sim.block_on(sim.sleep(200_000_000_000));
    tree.settle(false);
    assert_eq!(tree.levels.tables().count(), 0);
}

#[test]
fn a_damaged_table_is_left_alone() {
    let mut tree = Tree::new(Hierarchy::leveled(MEMTABLE_BYTES));
    for _ in 0..30 {
        tree.flush((0..20).map(|i| (i, Some(vec![1; 100]))));
    }
    let first = tree.levels.level(0)[0].meta().clone();
    let error = crate::base::error::Error::corruption(Path::new("x"), 0, "a test");
    tree.levels.remove(0, first.id).expect("there");
    tree.levels.add(0, Member::Damaged { meta: first, error }).expect("fits");
    assert_eq!(tree.settle(false), 0);
    assert_eq!(tree.settle(true), 0);
    let member = |tree: &Tree| matches!(tree.levels.level(0)[0], Member::Damaged { .. });
    assert!(member(&tree));
}
