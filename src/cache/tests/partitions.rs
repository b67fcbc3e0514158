//! The cache of partitions: its budget, who leaves, and what stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cache::{PartitionCache, PartitionShare};

/// Something with a number, which is counted for as long as it is in memory.
struct Thing(usize, Arc<AtomicUsize>);

impl Drop for Thing {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

fn thing(number: usize, alive: &Arc<AtomicUsize>) -> Arc<Thing> {
    alive.fetch_add(1, Ordering::SeqCst);
    Arc::new(Thing(number, Arc::clone(alive)))
}

/// Those of `0..numbers` that are there; asking counts as nothing.
fn resident(share: &PartitionShare<Thing>, numbers: usize) -> Vec<usize> {
    (0..numbers).filter(|&number| share.contains(number)).collect()
}

#[test]
fn what_is_there_keeps_within_the_budget() {
    let alive = Arc::<AtomicUsize>::default();
    let cache = PartitionCache::new(4000);
    let share: PartitionShare<Thing> = cache.register(50);
    let mut state = 7u64;
    for _ in 0..2000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let number = (state >> 33) as usize % 50;
        match share.get(number) {
            Some(found) => assert_eq!(found.0, number),
            None => share.insert(number, thing(number, &alive), 1 + number * 13),
        }
        let stats = cache.stats();
        let numbers = resident(&share, 50);
        let bytes: usize = numbers.iter().map(|number| 1 + number * 13).sum();
        assert_eq!((stats.bytes, stats.partitions), (bytes as u64, numbers.len() as u64));
        assert!(bytes <= 4000);
        assert_eq!(alive.load(Ordering::SeqCst), numbers.len(), "what left was freed");
    }
    let stats = cache.stats();
    assert_eq!(stats.hits + stats.misses, 2000);
    assert_eq!((stats.inserted, stats.refused), (stats.misses, 0));
    assert_eq!(stats.evicted, stats.inserted - stats.partitions);
    assert!(stats.hits > 200, "{stats:?}");
}

#[test]
fn what_was_used_gets_a_second_chance() {
    let alive = Arc::<AtomicUsize>::default();
    let cache = PartitionCache::new(30);
    let share: PartitionShare<Thing> = cache.register(8);
    let insert = |number: usize| share.insert(number, thing(number, &alive), 10);
    (0..3).for_each(insert);
    assert!(share.get(0).is_some() && share.get(2).is_some());
    insert(3);
    assert_eq!(resident(&share, 8), [0, 2, 3], "1 was not used");
    // The hand passed over 0, and stands behind what came last: 2 is next, which
    // was used; 0 is not any more.
    insert(4);
    assert_eq!(resident(&share, 8), [2, 3, 4]);
    assert!(share.get(2).is_some() && share.get(3).is_some() && share.get(4).is_some());
    insert(5);
    assert_eq!(resident(&share, 8).len(), 3, "all were used: one goes all the same");
    assert!(share.contains(5));
}

#[test]
fn what_is_held_stays_in_memory_when_it_leaves() {
    let alive = Arc::<AtomicUsize>::default();
    let cache = PartitionCache::new(10);
    let share: PartitionShare<Thing> = cache.register(3);
    share.insert(0, thing(0, &alive), 10);
    let held = share.get(0).expect("it is there");
    share.insert(1, thing(1, &alive), 10);
    assert!(!share.contains(0));
    assert_eq!((held.0, alive.load(Ordering::SeqCst)), (0, 2));
    assert_eq!(cache.stats().bytes, 10);
    drop(held);
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    // Somebody who was slower.
    share.insert(1, thing(7, &alive), 10);
    assert_eq!(share.get(1).expect("it is there").0, 1);
    assert_eq!((alive.load(Ordering::SeqCst), cache.stats().inserted), (1, 2));
}

#[test]
fn what_is_larger_than_the_cache_is_refused() {
    let alive = Arc::<AtomicUsize>::default();
    for capacity in [0, 10] {
        let cache = PartitionCache::new(capacity);
        let share: PartitionShare<Thing> = cache.register(2);
        share.insert(0, thing(0, &alive), capacity + 1);
        let stats = cache.stats();
        assert_eq!((stats.refused, stats.inserted, stats.bytes), (1, 0, 0));
        assert!(share.get(0).is_none());
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn partitions_of_a_table_leave_with_it() {
    let alive = Arc::<AtomicUsize>::default();
    let cache = PartitionCache::new(2000);
    let stays: PartitionShare<Thing> = cache.register(10);
    for round in 0..3 {
        let goes = cache.register(150);
        for number in 0..150 {
            goes.insert(number, thing(number, &alive), 10);
            if number < 10 {
                stays.insert(number, thing(number, &alive), 10);
            }
        }
        assert_eq!(cache.stats().bytes, 1600);
        if round == 1 {
            goes.clear();
            assert_eq!(cache.stats().bytes, 100);
            goes.insert(3, thing(3, &alive), 10);
        }
        drop(goes);
        let stats = cache.stats();
        assert_eq!((stats.bytes, stats.partitions, stats.evicted), (100, 10, 0));
        assert_eq!(alive.load(Ordering::SeqCst), 10);
    }
    assert!((0..10).all(|number| stays.get(number).expect("it stayed").0 == number));
}
