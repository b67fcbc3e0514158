//! Levels of tables against a map.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use super::levels::{InLevels, Levels, Older};
use super::member::Member;
use super::run::{Run, RunIter};
use super::{
    Cursor, Direction, FileIds, Lookup, Mutable, Retain, Step, TablePlace, View, write_table,
};
use crate::base::error::Error;
use crate::base::hash::KeyHasher;
use crate::base::ids::{DbId, FileId};
use crate::base::seq::{Kind, SEQ_MAX, SeqNo, Tag};
use crate::cache::{Cache, Epochs, PartitionCache};
use crate::io::sim::Sim;
use crate::io::{BufferPool, Io};
use crate::memtable::{ArenaPool, Memtable, Payload};
use crate::sst::{Compression, Partition, PinLimits, Pins, ReadCounters, Table, TableMeta};

const KEYS: u64 = 400;

fn key(number: u64) -> Vec<u8> {
    format!("key{number:05}").into_bytes()
}

/// The newest value of each key; `None` once it was deleted.
type Model = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A linear congruential generator: every run of a test is the same.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

struct Maker {
    sim: Sim,
    random: Random,
    model: Model,
    next_seq: u64,
    next_id: u32,
    cache: Option<Arc<Cache>>,
    partitions: Arc<PartitionCache<Partition>>,
    pins: Arc<Pins>,
    /// What is older than the next table.
    older: Older,
}

impl Maker {
    fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        sim.block_on(async { sim.create_dir(Path::new("/db")).await }).expect("a directory");
        let random = Random(seed + 1);
        // With every other seed a cache that is too small for all blocks.
        let cache = (seed % 2 == 1).then(|| Cache::new(&Epochs::new(), 24 << 10, 0));
        let cache = cache.map(|cache| cache.expect("there is memory"));
        // With every third seed no partitions stay in memory, with another some.
        let partitions = PartitionCache::new(2 << 10);
        let bytes_max = [u64::MAX, 0, 10 << 10][seed as usize % 3];
        let pins = Pins::new(PinLimits { bytes_max, oldest_bytes_max: bytes_max });
        let (model, older) = (Model::new(), anything());
        Self { sim, random, model, next_seq: 1, next_id: 0, cache, partitions, pins, older }
    }

    /// A table of some of the keys of a range.
    fn table(&mut self, numbers: std::ops::Range<u64>) -> Arc<Table> {
        let mut memtable = Memtable::new(&ArenaPool::new(1 << 20));
        for number in numbers.clone() {
            // The ends are in it, so that its range is known.
            let is_end = number == numbers.start || number + 1 == numbers.end;
            if !is_end && self.random.below(3) == 0 {
                continue;
            }
            let (key, seq) = (key(number), self.next_seq);
            self.next_seq += 1;
            let value =
                (self.random.below(5) > 0).then(|| vec![seq as u8; self.random.below(90) as usize]);
            let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
            let bytes = value.as_deref().unwrap_or_default();
            memtable.insert(&key, Tag::new(seq, kind), Payload::Inline(bytes));
            self.model.insert(key, value);
        }
        self.next_id += 1;
        let place = TablePlace {
            dir: "/db".into(),
            db: DbId([1; 16]),
            shard: 0,
            ids: FileIds::one(FileId::new(1, self.next_id)),
            pool: BufferPool::new(64 << 10, 1),
            compression: Compression::None,
            table_bytes: u64::MAX,
            pins: Arc::clone(&self.pins),
            spares: Arc::default(),
        };
        let (sim, retain, hasher) = (&self.sim, Retain::All, hasher());
        let older = self.older.clone();
        let table = sim.block_on(write_table(sim, &memtable, &retain, &older, &hasher, &place));
        let table = table.expect("a table").0.expect("entries");
        table.cache_in(self.cache.as_ref(), &self.partitions);
        table
    }

    /// Tables on three levels, the oldest written first.
    fn levels(&mut self) -> Levels {
        let mut levels = Levels::default();
        for (level, tables) in [(6, 5), (2, 3)] {
            let width = KEYS / tables;
            for at in 0..tables {
                let gap = self.random.below(20);
                self.older = levels.older_than_memtables();
                let table = self.table(at * width + gap..(at + 1) * width - gap);
                levels.add(level, Member::Sound(table)).expect("no keys in common");
            }
        }
        for _ in 0..3 {
            let (a, b) =
                (self.random.below(KEYS / 2), KEYS / 2 + 2 + self.random.below(KEYS / 2 - 2));
            self.older = levels.older_than_memtables();
            let table = self.table(a..b);
            levels = levels.flushed(table);
        }
        levels
    }
}

/// Older tables of which nobody knows what they hold: all tombstones are kept.
fn anything() -> Older {
    let meta = TableMeta {
        id: FileId::new(1, u32::MAX),
        table_id: [0; 16],
        file_bytes: 0,
        entries: 1,
        seq_min: 0,
        seq_max: 0,
        smallest: Box::default(),
        largest: vec![0xff; 20].into(),
    };
    let error = Error::corruption(Path::new("damaged"), 0, "a test");
    let mut levels = Levels::default();
    levels.add(6, Member::Damaged { meta, error }).expect("the only one");
    levels.older_than_memtables()
}

fn hasher() -> KeyHasher {
    KeyHasher::new(&[9; 16])
}

/// The rows of a walk over immutable memtables and tables.
pub(super) fn walk(
    sim: &Sim,
    view: &View,
    direction: Direction,
    bound: SeqNo,
    from: Option<&[u8]>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let unbounded = (Bound::Unbounded, Bound::Unbounded);
    let mut nothing = Mutable::default();
    nothing.finish();
    sim.block_on(async {
        let from = from.map(|key| (key, Tag::visible_at(SEQ_MAX)));
        let mut cursor = Cursor::new(view, nothing, direction, bound, &unbounded, from, 0);
        let mut rows = Vec::new();
        loop {
            match cursor.step().expect("sound tables") {
                Step::Row => rows.push((cursor.key().to_vec(), cursor.value().to_vec())),
                Step::Read => cursor.settle(sim).await.expect("sound tables"),
                Step::Refill => unreachable!("there is nothing to refill"),
                Step::End => break rows,
            }
        }
    })
}

/// Keys and values, joined.
fn rows(sim: &Sim, view: &View, direction: Direction, from: Option<&[u8]>) -> Vec<Vec<u8>> {
    let rows = walk(sim, view, direction, SEQ_MAX, from);
    rows.into_iter().map(|(key, value)| [key, value].concat()).collect()
}

/// Out of the cache as far as that goes, and from there on by reading.
pub(super) fn get(sim: &Sim, levels: &Levels, lookup: &Lookup<'_>) -> Option<(Tag, Vec<u8>)> {
    let mut value = Vec::new();
    match levels.look(lookup, None, &mut value).expect("sound") {
        InLevels::Found(tag) => Some((tag, value)),
        InLevels::Absent => None,
        InLevels::Missing(missing) => {
            let entry = sim.block_on(levels.get(sim, lookup, missing)).expect("sound");
            entry.map(|entry| (entry.tag, entry.value.into_vec()))
        }
    }
}

#[test]
fn levels_are_read_newest_first() {
    for seed in 0..8 {
        let mut maker = Maker::new(seed);
        let levels = maker.levels();
        let counters = ReadCounters::default();
        for number in 0..KEYS + 3 {
            let key = key(number);
            let hash = hasher().hash(&key);
            let lookup = Lookup { counters: &counters, key: &key, hash, bound: SEQ_MAX };
            let expected = maker.model.get(&key).cloned().flatten();
            for _ in 0..2 {
                let found = get(&maker.sim, &levels, &lookup);
                let found = found.filter(|(tag, _)| tag.kind() == Some(Kind::Put));
                assert_eq!(found.map(|(_, value)| value), expected, "{seed}: {number}");
            }
        }
        if let Some(cache) = &maker.cache {
            let stats = cache.stats();
            assert!(stats.hits > 0 && stats.evicted > 0, "{stats:?}");
        }
        let view = View { levels, ..View::default() };
        let all: Vec<_> = maker.model.iter().filter_map(|(k, v)| Some((k, v.as_ref()?))).collect();
        let joined = |(k, v): &(&Vec<u8>, &Vec<u8>)| [&k[..], &v[..]].concat();
        let mut expected: Vec<_> = all.iter().map(joined).collect();
        assert_eq!(rows(&maker.sim, &view, Direction::Forward, None), expected);
        expected.reverse();
        assert_eq!(rows(&maker.sim, &view, Direction::Backward, None), expected);
        for number in (0..KEYS + 3).step_by(7) {
            let from = key(number);
            let forward = rows(&maker.sim, &view, Direction::Forward, Some(&from));
            let above = all.iter().filter(|(key, _)| **key >= from).map(joined);
            assert!(forward.into_iter().eq(above), "{seed}: from {number}");
            let backward = rows(&maker.sim, &view, Direction::Backward, Some(&from));
            let below = all.iter().rev().filter(|(key, _)| **key < from).map(joined);
            assert!(backward.into_iter().eq(below), "{seed}: before {number}");
        }
    }
}

#[test]
fn a_run_may_turn_round_between_tables() {
    let mut maker = Maker::new(3);
    let tables = vec![maker.table(0..3), maker.table(5..6), maker.table(8..10)];
    let sim = maker.sim.clone();
    sim.block_on(async {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let run = RunIter::within(&Run::of_tables(tables), &all, 1 << 20, 0);
        let mut run = run.expect("there are tables");
        let at = |run: &RunIter| run.current().map(|(key, _)| key.to_vec());
        run.seek(&sim, &key(4), Tag::visible_at(SEQ_MAX)).await.expect("sound");
        assert_eq!(at(&run), Some(key(5)));
        run.prev(&sim).await.expect("sound");
        assert_eq!(at(&run), Some(key(2)));
        for next in [5, 8] {
            run.next(&sim).await.expect("sound");
            assert_eq!(at(&run), Some(key(next)));
        }
        run.seek_for_prev(&sim, &key(8), Tag::visible_at(SEQ_MAX)).await.expect("sound");
        assert_eq!(at(&run), Some(key(5)));
        run.seek_for_prev(&sim, &key(0), Tag::visible_at(SEQ_MAX)).await.expect("sound");
        assert_eq!(at(&run), None);
        run.seek(&sim, &key(10), Tag::visible_at(SEQ_MAX)).await.expect("sound");
        assert_eq!(at(&run), None);
    });
}

#[test]
fn what_cannot_be_is_refused() {
    let mut maker = Maker::new(4);
    let mut levels = Levels::default();
    let first = maker.table(10..20);
    let id = first.meta().id;
    levels.add(1, Member::Sound(first)).expect("the first");
    for (numbers, fits) in [
        (0..11, false),
        (12..15, false),
        (19..30, false),
        (5..25, false),
        (20..25, true),
        (0..10, true),
    ] {
        let added = levels.add(1, Member::Sound(maker.table(numbers.clone())));
        assert_eq!(added.is_ok(), fits, "{numbers:?}");
    }
    assert!(levels.add(7, Member::Sound(maker.table(0..2))).is_err());
    assert!(levels.remove(2, id).is_err());
    assert_eq!(levels.tables().count(), 3);
    assert_eq!(levels.remove(1, id).map(|member| member.meta().id), Ok(id));
    assert!(levels.remove(1, id).is_err());
    assert_eq!(levels.tables().count(), 2);
}
