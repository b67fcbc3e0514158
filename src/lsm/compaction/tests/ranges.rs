//! The same with range tombstones.

use std::ops::Bound;
use std::sync::Arc;

use super::*;
use crate::base::limits::KEY_BYTES_MAX;
use crate::base::ranges::successor;
use crate::lsm::garbage::covered_in;
use crate::lsm::tests::walk;
use crate::lsm::{Cursor, Direction, Frozen, Mutable, Step, View, is_past};

impl Tree {
    fn delete_range(&mut self, memtable: &mut Memtable, start: Vec<u8>, end: Vec<u8>) {
        let tag = Tag::new(self.next_seq, Kind::RangeDelete);
        memtable.insert(&start, tag, Payload::Inline(&end));
        self.deleted.push((start, end, self.next_seq));
        self.next_seq += 1;
    }

    /// A memtable of clustered writes, and deletes of ranges about them.
    fn random_memtable(&mut self, random: &mut Random, keys: u64) -> Memtable {
        let mut memtable = Memtable::new(&ArenaPool::new(1 << 20));
        let (first, width) = (random.below(keys), 1 + random.below(keys / 4));
        let near = |random: &mut Random| (first + random.below(width)) % keys;
        for _ in 0..random.below(80) {
            let number = near(random);
            let value = (random.below(5) > 0).then(|| value(random));
            self.write(&mut memtable, key(number), value);
            if random.below(12) == 0 {
                let (a, b) = (near(random), near(random));
                let mut start = key(a.min(b));
                let mut end = key(a.max(b) + 1);
                match random.below(12) {
                    0 => end.push(0),
                    1 => start.push(0),
                    2 => end.clear(),
                    3 => start.clear(),
                    4 => end = successor(&start).expect("a short key").into_vec(),
                    _ => {}
                }
                if random.below(6) == 0 {
                    self.snapshots.push(self.next_seq - 1);
                }
                self.delete_range(&mut memtable, start, end);
            }
        }
        memtable
    }

    /// Walks over everything, at each bound somebody may ask for.
    fn check_walks(&self, frozen: Vec<Arc<Frozen>>) {
        let view = View { frozen, levels: self.levels.clone(), ..View::default() };
        for bound in self.snapshots.iter().copied().chain([SEQ_MAX]) {
            for direction in [Direction::Forward, Direction::Backward] {
                let rows = walk(&self.sim, &view, direction, bound, None);
                let expected = self.model.keys();
                let expected = expected.filter_map(|k| Some((k.clone(), self.expected(k, bound)?)));
                let mut expected: Vec<_> = expected.collect();
                if direction == Direction::Backward {
                    expected.reverse();
                }
                assert!(rows == expected, "{direction:?} at {bound}");
            }
        }
    }

    fn range_tombstones(&self) -> usize {
        self.levels.tables().filter_map(|(_, table)| table.ranges()).map(|r| r.len()).sum()
    }
}

fn frozen(memtable: Memtable) -> Arc<Frozen> {
    Arc::new(Frozen { memtable, log_start: None, log_end: 0 })
}

#[test]
fn ranges_that_were_deleted_stay_so_for_readers() {
    for (hierarchy, seeds) in hierarchies().into_iter().zip([0..6u64, 6..12, 12..18]) {
        // Tables that are split often.
        let hierarchy = Hierarchy { table_bytes: 12 << 10, ..hierarchy };
        for seed in seeds {
            let mut random = Random(seed);
            let mut tree = Tree::new(hierarchy);
            for round in 0..30 {
                let memtable = tree.random_memtable(&mut random, 300);
                if !memtable.is_empty() {
                    // A reader meets it before it is flushed, too.
                    let frozen = frozen(memtable);
                    if round % 4 == 0 {
                        tree.check_walks(vec![Arc::clone(&frozen)]);
                    }
                    tree.flush_memtable(&frozen.memtable);
                }
                match random.below(6) {
                    0 => tree.snapshots.push(tree.next_seq - 1),
                    1 if !tree.snapshots.is_empty() => {
                        let at = random.below(tree.snapshots.len() as u64) as usize;
                        tree.snapshots.remove(at);
                    }
                    _ => {}
                }
                let plans = tree.settle(random.below(3) == 0);
                if plans > 0 || round % 10 == 0 {
                    tree.check(302);
                    tree.check_walks(Vec::new());
                }
            }
            tree.snapshots.clear();
            tree.settle(true);
            tree.check(302);
            tree.check_walks(Vec::new());
            let covered = covered_in(&tree.levels);
            if hierarchy.strategy == Strategy::Leveled {
                assert!(covered < 16 << 10, "{seed}: {covered} bytes are left to hide");
            } else {
                let all: u64 = tree.levels.tables().map(|(_, m)| m.meta().file_bytes).sum();
                assert!(5 * covered <= all, "{seed}: {covered} of {all} bytes are left to hide");
            }
        }
    }
}

#[test]
fn tables_that_a_range_tombstone_covers_go_unread() {
    for hierarchy in hierarchies() {
        let mut tree = Tree::new(hierarchy);
        let mut random = Random(3);
        for _ in 0..20 {
            tree.flush((0..60).map(|_| (random.below(2000), Some(vec![7; 90]))));
            tree.settle(false);
        }
        tree.settle(true);
        let mut memtable = Memtable::new(&ArenaPool::new(1 << 20));
        tree.delete_range(&mut memtable, Vec::new(), Vec::new());
        tree.flush_memtable(&memtable);
        let table = tree.levels.level(0)[0].meta();
        assert!(table.largest.len() < 20, "it reaches no further than what it hides");
        tree.written_bytes = 0;
        tree.settle(true);
        assert_eq!((tree.levels.tables().count(), tree.written_bytes), (0, 0));
        tree.check(2000);
        tree.check_walks(Vec::new());
    }
}

#[test]
fn what_a_snapshot_sees_of_a_deleted_range_goes_after_it() {
    for hierarchy in hierarchies() {
        let mut tree = Tree::new(hierarchy);
        tree.flush((0..500).map(|i| (i, Some(vec![6; 50]))));
        tree.snapshots.push(tree.next_seq - 1);
        let mut memtable = Memtable::new(&ArenaPool::new(1 << 20));
        tree.delete_range(&mut memtable, key(100), key(400));
        tree.write(&mut memtable, key(200), Some(vec![7; 50]));
        tree.flush_memtable(&memtable);
        tree.settle(true);
        tree.check(500);
        tree.check_walks(Vec::new());
        assert_eq!(tree.entries(), 501);
        tree.snapshots.clear();
        tree.settle(true);
        tree.check(500);
        if hierarchy.strategy == Strategy::Leveled {
            assert_eq!((tree.entries(), tree.range_tombstones()), (201, 0));
        }
    }
}

/// Whatever the strategy: most of the space that a range delete frees comes back by
/// itself.
#[test]
fn what_a_range_delete_hides_of_a_table_goes_when_writes_pause() {
    for hierarchy in hierarchies() {
        let mut tree = Tree::new(hierarchy);
        tree.flush((0..4000).map(|i| (i, Some(vec![6; 50]))));
        tree.settle(true);
        let mut memtable = Memtable::new(&ArenaPool::new(1 << 20));
        tree.delete_range(&mut memtable, key(1000), key(3000));
        tree.flush_memtable(&memtable);
        tree.settle(true);
        assert_eq!((tree.entries(), tree.range_tombstones()), (2000, 0), "{hierarchy:?}");
        tree.check_walks(Vec::new());
    }
}

/// A table that two range deletes cover, with a snapshot between them.
#[test]
fn a_table_that_a_snapshot_sees_half_of_stays() {
    for hierarchy in hierarchies() {
        for (first, second) in [(0..300, 300..600), (300..600, 0..300)] {
            let mut tree = Tree::new(hierarchy);
            tree.flush((0..600).map(|i| (i, Some(vec![6; 50]))));
            let mut memtable = Memtable::new(&ArenaPool::new(1 << 20));
            tree.delete_range(&mut memtable, key(first.start), key(first.end));
            tree.snapshots.push(tree.next_seq - 1);
            tree.delete_range(&mut memtable, key(second.start), key(second.end));
            tree.flush_memtable(&memtable);
            tree.settle(false);
            tree.check_walks(Vec::new());
            tree.settle(true);
            tree.check_walks(Vec::new());
            tree.snapshots.clear();
            tree.settle(true);
            tree.check_walks(Vec::new());
            assert_eq!(tree.entries(), 0, "nobody sees any of it: {hierarchy:?}");
        }
    }
}

/// Nor when there are no entries on either side of it.
#[test]
fn range_tombstones_do_not_reach_over_what_is_left_alone() {
    let mut tree = Tree::new(Hierarchy::leveled(MEMTABLE_BYTES));
    let flush_to = |tree: &mut Tree, numbers: std::ops::Range<u64>, level| {
        tree.flush(numbers.map(|i| (i, Some(vec![5; 30]))));
        let id = tree.levels.level(0)[0].meta().id;
        let member = tree.levels.remove(0, id).expect("there");
        tree.levels.add(level, member).expect("no keys in common");
    };
    flush_to(&mut tree, 400..500, 6);
    flush_to(&mut tree, 0..100, 6);
    flush_to(&mut tree, 0..40, 5);
    flush_to(&mut tree, 200..300, 5);
    for (start, end) in [(30, 60), (410, 420), (415, 425)] {
        let mut memtable = Memtable::new(&ArenaPool::new(1 << 20));
        let start = successor(&key(start)).expect("a short key").into_vec();
        tree.delete_range(&mut memtable, start, key(end));
        tree.flush_memtable(&memtable);
    }
    let newest = tree.levels.level(0).iter().map(|member| (0, member));
    let below = tree.levels.level(5).iter().map(|member| (5, member));
    let older = tree.levels.below(5);
    let plan = Plan::merge(&tree.levels, &tree.hierarchy, newest.chain(below), 5, older);
    let plan = plan.expect("sound tables");
    assert_eq!((plan.inputs.len(), plan.between.len()), (4, 1));
    tree.carry_out(&plan);
    assert_eq!(tree.levels.level(5).len(), 3);
    tree.check(500);
    tree.check_walks(Vec::new());
}

/// A walk holds immutable memtables only as far as it has rows to find in them, and
/// knows what they deleted all the same.
#[test]
fn memtables_without_keys_in_the_range_are_not_held() {
    let mut tree = Tree::new(hierarchies()[0]);
    tree.flush((0..100).map(|i| (i, Some(vec![1; 30]))));
    let mut memtable = Memtable::new(&ArenaPool::new(1 << 20));
    for number in 40..50 {
        tree.write(&mut memtable, key(number), Some(vec![2; 30]));
    }
    tree.delete_range(&mut memtable, key(10), key(20));
    let frozen = frozen(memtable);
    let view = View { frozen: vec![frozen], levels: tree.levels.clone(), ..View::default() };
    let held = |direction, numbers: std::ops::Range<u64>| {
        let range = (
            Bound::Included(key(numbers.start).into_boxed_slice()),
            Bound::Excluded(key(numbers.end).into_boxed_slice()),
        );
        let from = match direction {
            Direction::Forward => key(numbers.start),
            Direction::Backward => key(numbers.end),
        };
        let from = Some((&from[..], Tag::visible_at(SEQ_MAX)));
        let mut nothing = Mutable::default();
        nothing.finish();
        let mut cursor = Cursor::new(&view, nothing, direction, SEQ_MAX, &range, from, 0);
        let held = Arc::strong_count(&view.frozen[0]) - 1;
        let mut rows = 0;
        tree.sim.block_on(async {
            loop {
                match cursor.step().expect("sound tables") {
                    Step::Row if is_past(&range, direction, cursor.key()) => break,
                    Step::Row => rows += 1,
                    Step::Read => cursor.settle(&tree.sim).await.expect("sound tables"),
                    Step::Refill => unreachable!("there is nothing to refill"),
                    Step::End => break,
                }
            }
        });
        (held, rows)
    };
    for direction in [Direction::Forward, Direction::Backward] {
        assert_eq!(held(direction, 0..5), (0, 5), "{direction:?}");
        assert_eq!(held(direction, 5..40), (0, 25), "{direction:?}");
        assert_eq!(held(direction, 50..200), (0, 50), "{direction:?}");
        assert_eq!(held(direction, 5..41), (1, 26), "{direction:?}");
        assert_eq!(held(direction, 49..60), (1, 11), "{direction:?}");
    }
}

/// Tables cannot end anywhere among keys that have no room for a longer one.
#[test]
fn the_longest_keys() {
    let long = |number: u64| {
        let mut key = vec![0xff; KEY_BYTES_MAX];
        key[0] = b'k';
        key[KEY_BYTES_MAX - 3..].copy_from_slice(&[
            0,
            number as u8 / 4,
            [0, 1, 0xfe, 0xff][number as usize % 4],
        ]);
        key
    };
    for seed in 0..6 {
        let mut random = Random(seed);
        let leveled = Hierarchy { table_bytes: 100 << 10, ..Hierarchy::leveled(MEMTABLE_BYTES) };
        let mut tree = Tree::new(leveled);
        for _ in 0..8 {
            let mut memtable = Memtable::new(&ArenaPool::new(8 << 20));
            for _ in 0..6 {
                let number = random.below(20);
                tree.write(&mut memtable, long(number), Some(vec![number as u8; 10]));
                let (a, b) = (random.below(20), random.below(20));
                if random.below(3) == 0 {
                    let end = match random.below(3) {
                        0 => Vec::new(),
                        1 => successor(&long(a.max(b))).expect("not the last").into_vec(),
                        _ => long(a.max(b) + 1),
                    };
                    tree.delete_range(&mut memtable, long(a.min(b)), end);
                }
            }
            tree.flush_memtable(&memtable);
            if random.below(3) == 0 {
                tree.snapshots.push(tree.next_seq - 1);
            }
            tree.settle(random.below(2) == 0);
            tree.check_walks(Vec::new());
            for number in 0..20 {
                assert_eq!(tree.get(&long(number), SEQ_MAX), tree.expected(&long(number), SEQ_MAX));
            }
        }
    }
}
