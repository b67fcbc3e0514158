//! Memory that is lent to a cache for a while.

use std::sync::Barrier;
use std::sync::atomic::AtomicBool;

use super::{content, get, is_up};
use crate::base::limits::UNIT;
use crate::cache::{Cache, CachedTable, Epochs, Ordering};

/// A cache of so many frames, to which so many may be lent.
fn cache(frames: usize, lendable: usize) -> std::sync::Arc<Cache> {
    let bytes = frames * Cache::FRAME_BYTES + lendable * Cache::EXTRA_BYTES;
    let cache = Cache::new(&Epochs::new(), bytes, lendable * UNIT).expect("there is memory");
    assert_eq!(cache.capacity_bytes(), (frames * UNIT) as u64);
    assert_eq!((cache.lendable_bytes(), cache.lent_bytes()), (lendable * UNIT, 0));
    cache
}

/// As often as there may be something else to be given back. Whether some is left.
fn give_back(cache: &Cache) -> bool {
    (0..10).all(|_| cache.give_back())
}

fn fill(table: &CachedTable, blocks: std::ops::Range<u32>) {
    for block in blocks {
        assert!(table.insert(block, &content(1, block, UNIT)), "block {block}");
    }
}

fn resident(table: &CachedTable) -> usize {
    (0..1000).filter(|&block| get(table, block).is_some()).count()
}

#[test]
fn a_cache_with_more_memory_holds_more_and_gives_it_back() {
    let cache = cache(64, 64);
    assert_eq!(cache.region_bytes(), 4 * UNIT);
    let table = cache.register(1, 1000);
    fill(&table, 0..62);
    assert!(!cache.has_pressure());
    fill(&table, 62..70);
    assert!(cache.has_pressure() && is_up(cache.growth()));
    assert!(cache.take_pressure() && !cache.has_pressure());

    for lent in 1..=16 {
        assert!(cache.borrow());
        assert_eq!(cache.lent_bytes(), lent * 4 * UNIT);
    }
    assert!(!cache.borrow(), "that is all");
    let evicted = cache.stats().evicted;
    fill(&table, 100..160);
    assert_eq!(cache.stats().evicted, evicted);
    fill(&table, 200..300);
    assert_eq!(resident(&table), 126, "two are kept idle");
    for block in 0..1000 {
        if let Some(found) = get(&table, block) {
            assert_eq!(found, content(1, block, UNIT));
        }
    }

    for borrowed in (0..16).rev() {
        assert_eq!(cache.recall(1), 1);
        assert_eq!(cache.borrowed_bytes(), borrowed * 4 * UNIT);
    }
    assert_eq!(cache.recall(1), 0);
    assert_eq!((cache.borrowed_bytes(), cache.lent_bytes()), (0, 64 * UNIT));
    assert!(!give_back(&cache), "nobody looks at any");
    assert_eq!(cache.lent_bytes(), 0);
    assert!((60..=64).contains(&resident(&table)), "{}", resident(&table));
    fill(&table, 300..500);
    assert_eq!(resident(&table), 62);
    drop(table);
    assert_eq!((cache.stats().blocks, cache.stats().bytes), (0, 0));
    assert_eq!(cache.frames.idle(), 64);
}

#[test]
fn blocks_of_many_frames_leave_as_a_whole() {
    let cache = cache(64, 32);
    let table = cache.register(1, 100);
    while cache.borrow() {}
    for block in 0..100 {
        assert!(table.insert(block, &content(1, block, 5 * UNIT - 7)));
    }
    cache.recall(u32::MAX);
    assert!(!give_back(&cache));
    let there = (0..100).filter(|&block| match get(&table, block) {
        Some(found) => found == content(1, block, 5 * UNIT - 7),
        None => false,
    });
    let there = there.count() as u64;
    assert_eq!((cache.stats().blocks, cache.stats().bytes), (there, there * 5 * UNIT as u64));
    assert!(there >= 6, "most of the lasting frames are as they were: {there}");
    drop(table);
    assert_eq!(cache.frames.idle(), 64);
}

#[test]
fn what_somebody_has_is_given_back_once_he_has_it_no_more() {
    let cache = cache(64, 16);
    let table = cache.register(1, 1000);
    fill(&table, 0..62);
    while cache.borrow() {}
    let held: Vec<_> = (100..116)
        .map(|block| table.insert_copy(block, &content(1, block, UNIT)).expect("room"))
        .collect();
    // Of another cache nothing would be left.
    let frame = table.frame().expect("some block leaves for it");
    cache.recall(u32::MAX);
    assert!(give_back(&cache), "blocks are held");
    for (block, held) in (100..).zip(&held) {
        assert_eq!(held.whole(), Some(&content(1, block, UNIT)[..]));
    }
    drop(held);
    assert!(!give_back(&cache), "nobody holds any");
    assert_eq!(cache.lent_bytes(), 0);
    drop(frame);
    drop(table);
    assert_eq!(cache.frames.idle(), 64);
}

#[test]
fn a_read_that_lands_in_a_region_that_leaves_is_for_who_waits_for_it() {
    let cache = cache(64, 16);
    let table = cache.register(1, 1000);
    fill(&table, 0..62);
    while cache.borrow() {}
    let frames: Vec<_> = (0..14).map(|_| table.frame().expect("there is room")).collect();
    cache.recall(u32::MAX);
    assert!(give_back(&cache));
    let lent = cache.lent_bytes();
    for (block, mut frame) in (500..).zip(frames) {
        frame.copy_from_slice(&content(1, block, UNIT));
        let held = table.insert_frame(block, frame, UNIT);
        assert_eq!(held.whole(), Some(&content(1, block, UNIT)[..]));
    }
    assert!(cache.lent_bytes() == lent && lent > 0);
    assert!(!give_back(&cache));
    assert_eq!(cache.lent_bytes(), 0);
    drop(table);
    assert_eq!(cache.frames.idle(), 64);
}

#[test]
fn what_is_on_its_way_back_may_be_lent_again() {
    let cache = cache(64, 16);
    let table = cache.register(1, 1000);
    while cache.borrow() {}
    fill(&table, 0..78);
    let holds: Vec<_> = (0..78)
        .filter_map(|block| {
            let guard = cache.epochs().pin();
            table.get(&guard, block).map(|hit| hit.hold())
        })
        .collect();
    cache.recall(u32::MAX);
    assert!(give_back(&cache));
    assert_eq!(cache.lent_bytes(), 16 * UNIT);
    assert!(cache.borrow() && cache.borrow());
    drop(holds);
    assert!(!give_back(&cache));
    assert_eq!((cache.lent_bytes(), cache.borrowed_bytes()), (2 * UNIT, 2 * UNIT));
    while cache.borrow() {}
    fill(&table, 200..278);
    assert_eq!(resident(&table), 78);
    drop(table);
    assert_eq!(cache.frames.idle(), 80);
}

#[test]
fn its_pages_go_back_to_the_kernel() {
    let cache = cache(64, 16);
    let table = cache.register(1, 100);
    while cache.borrow() {}
    let frames: Vec<_> = (0..78).map(|_| table.frame().expect("there is room")).collect();
    for mut frame in frames {
        frame.fill(7);
    }
    cache.recall(u32::MAX);
    assert!(!give_back(&cache));
    while cache.borrow() {}
    let frames: Vec<_> = (0..78).map(|_| table.frame().expect("there is room")).collect();
    let zeroed = frames.iter().filter(|frame| frame.iter().all(|&byte| byte == 0)).count();
    assert!((14..=16).contains(&zeroed), "{zeroed}");
}

#[test]
fn large_caches_have_regions_of_huge_pages() {
    let epochs = Epochs::new();
    let cache = Cache::new(&epochs, 40 << 20, 21 << 20).expect("there is memory");
    assert_eq!((cache.region_bytes(), cache.lendable_bytes()), (2 << 20, 20 << 20));
    assert!(cache.lasting_bytes().is_multiple_of(2 << 20), "{cache:?}");
    assert!(cache.lasting_bytes() > 36 << 20);
    // With nothing to lend it has all frames for good.
    let alone = Cache::new(&epochs, 40 << 20, 0).expect("there is memory");
    assert_eq!((alone.lendable_bytes(), alone.borrow(), alone.recall(1)), (0, false, 0));
    assert_eq!(alone.lasting_bytes(), ((40 << 20) / Cache::FRAME_BYTES * UNIT) as u64);
    // Nor more than it can keep the books of.
    let little = Cache::new(&epochs, 1 << 20, 1 << 30).expect("there is memory");
    assert!(little.lasting_bytes() > (1 << 20) / 100 * 80, "{little:?}");
}

#[test]
fn readers_find_what_they_asked_for_while_memory_comes_and_goes() {
    let cache = cache(64, 64);
    let table = cache.register(1, 300);
    let (start, is_over) = (Barrier::new(4), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for thread in 0..3u32 {
            let (table, start, is_over) = (&table, &start, &is_over);
            scope.spawn(move || {
                start.wait();
                let mut block = thread;
                for _ in 0..30_000 {
                    block = (block * 7 + 11) % 300;
                    let bytes = UNIT * (1 + block as usize % 3);
                    match get(table, block) {
                        Some(found) => assert_eq!(found, content(1, block, bytes)),
                        None => drop(table.insert_copy(block, &content(1, block, bytes))),
                    }
                }
                is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            });
        }
        start.wait();
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            for _ in 0..7 {
                cache.borrow();
            }
            for _ in 0..9 {
                cache.recall(1);
                cache.give_back();
            }
        }
    });
    cache.recall(u32::MAX);
    assert!(!give_back(&cache));
    assert!(cache.misses.load(Ordering::Relaxed) > 0 && cache.stats().evicted > 0);
    drop(table);
    assert_eq!((cache.stats().blocks, cache.stats().bytes), (0, 0));
    assert_eq!((cache.frames.idle(), cache.lent_bytes()), (64, 0));
}
