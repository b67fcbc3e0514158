//! The cache as a whole, and what many threads see of it; and flights.

mod flights;
mod lent;
mod many_threads;
mod partitions;

use super::frames::{BLOCK_FRAMES_MAX, Frames};
use super::*;
use crate::base::error::ErrorKind;
use std::future::Future;

/// What a test puts in as a block of a table.
pub(super) fn content(table: u64, block: u32, bytes: usize) -> Vec<u8> {
    let mut state = fingerprint(table, block);
    let words = (0..bytes.div_ceil(8)).flat_map(|_| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state.to_le_bytes()
    });
    words.take(bytes).collect()
}

/// A cache of so many frames.
pub(super) fn cache(frames: usize) -> Arc<Cache> {
    let cache =
        Cache::new(&Epochs::new(), frames * Cache::FRAME_BYTES, 0).expect("there is memory");
    assert_eq!(cache.capacity_bytes(), (frames * UNIT) as u64);
    cache
}

fn get(table: &CachedTable, block: u32) -> Option<Vec<u8>> {
    let guard = table.cache().epochs().pin();
    let hit = table.get(&guard, block)?;
    let mut bytes = Vec::new();
    hit.gather(&mut bytes);
    assert_eq!(hit.whole(), Some(&bytes[..]).filter(|bytes| bytes.len() <= UNIT));
    Some(bytes)
}

#[test]
fn blocks_of_all_sizes_come_back_as_they_were() {
    let cache = cache(200);
    let table = cache.register(1, 20);
    for units in 1..=BLOCK_FRAMES_MAX {
        for bytes in [units * UNIT - UNIT + 1, units * UNIT] {
            let block = units as u32;
            drop(cache.register(2, 1));
            assert_eq!(get(&table, block).is_some(), bytes == units * UNIT);
            let expected = bytes == units * UNIT - UNIT + 1;
            assert_eq!(table.insert(block, &content(1, block, bytes)), expected);
            let first = content(1, block, units * UNIT - UNIT + 1);
            assert_eq!(get(&table, block), Some(first));
        }
    }
    let stats = cache.stats();
    assert_eq!((stats.inserted, stats.evicted, stats.refused), (16, 0, 0));
    assert_eq!((stats.hits, stats.misses), (48, 16));
    assert_eq!((stats.blocks, stats.bytes), (16, (1..=16).sum::<u64>() * UNIT as u64));
}

#[test]
fn what_cannot_be_cached_is_refused() {
    let cache = cache(12);
    let table = cache.register(1, 4);
    assert!(!table.insert(0, &[]));
    assert!(!table.insert(1, &vec![7; BLOCK_BYTES_MAX + 1]));
    assert!(!table.insert(2, &vec![7; 13 * UNIT]));
    assert!(table.insert(3, &vec![7; 12 * UNIT]));
    assert_eq!(cache.stats().refused, 3);

    let none = Cache::new(&Epochs::new(), UNIT, 0).expect_err("too little");
    assert_eq!(none.kind(), ErrorKind::InvalidArgument);
    let much = Cache::new(&Epochs::new(), usize::MAX / 2, 0).expect_err("too much");
    assert_eq!(much.kind(), ErrorKind::InvalidArgument);
    assert!(much.to_string().contains("GiB"), "{much}");
}

#[test]
fn a_full_cache_evicts_and_counts_it() {
    let cache = cache(64);
    let table = cache.register(1, 1000);
    for block in 0..1000 {
        assert!(table.insert(block, &content(1, block, 3 * UNIT)));
        assert!(cache.stats().bytes <= cache.capacity_bytes());
    }
    let resident: Vec<u32> = (0..1000).filter(|&block| get(&table, block).is_some()).collect();
    // Two frames are kept idle.
    assert_eq!(resident.len(), 20);
    for &block in &resident {
        assert_eq!(get(&table, block), Some(content(1, block, 3 * UNIT)));
    }
    let stats = cache.stats();
    assert_eq!((stats.blocks, stats.evicted), (20, 980));
    assert_eq!(stats.refused, 0);
}

#[test]
fn a_reader_that_stays_keeps_its_block_and_holds_up_no_more_than_frames() {
    let cache = cache(32);
    let table = cache.register(1, 200);
    assert!(table.insert(0, &content(1, 0, UNIT)));
    let guard = cache.epochs().pin();
    let hit = table.get(&guard, 0).expect("it was inserted");
    // All frames leave once; none comes back.
    let inserted = (1..200).filter(|&block| table.insert(block, &content(1, block, UNIT))).count();
    assert_eq!(inserted, 31);
    assert_eq!(cache.stats().refused, 168);
    assert!(!table.links.is_linked(0));
    assert_eq!(hit.whole(), Some(&content(1, 0, UNIT)[..]));
    drop(guard);
    assert!(table.insert(0, &content(1, 0, UNIT)));
}

#[test]
fn the_blocks_of_a_table_leave_with_it() {
    let cache = cache(64);
    let (kept, gone) = (cache.register(1, 300), cache.register(2, 300));
    for block in 0..300 {
        kept.insert(block, &content(1, block, UNIT));
        gone.insert(block, &content(2, block, UNIT));
    }
    let of_kept = (0..300).filter(|&block| kept.links.is_linked(block)).count() as u64;
    assert!(cache.stats().blocks > of_kept);
    drop(gone);
    assert_eq!(cache.stats().blocks, of_kept);
    let count = |state: &State| (state.tables.len(), state.vacant.len());
    assert_eq!(count(&cache.state.lock()), (2, 1));
    // Its place is given again.
    let next = cache.register(3, 1);
    assert_eq!(count(&cache.state.lock()), (2, 0));
    assert!(get(&next, 0).is_none());
    drop((kept, next));
    assert_eq!((cache.stats().blocks, cache.stats().bytes), (0, 0));
    assert_eq!(cache.frames.idle(), 64);
}

#[test]
#[should_panic(expected = "another database's epochs")]
fn a_guard_of_other_epochs_is_refused() {
    let cache = cache(4);
    let table = cache.register(1, 1);
    let others = Epochs::new();
    let guard = others.pin();
    assert!(table.get(&guard, 0).is_none());
}

#[test]
fn frames_that_were_not_published_are_free_again() {
    let epochs = Epochs::new();
    let frames = Frames::new(20, Regions::new(20, 0), &epochs).expect("there is memory");
    let buf = frames.take(16 * UNIT).expect("they are free");
    assert_eq!(frames.idle(), 4);
    assert!(frames.take(5 * UNIT).is_none());
    drop(buf);
    assert_eq!(frames.idle(), 20);

    let links = Links::new(&frames, 1, 1);
    let (first, held) = links.publish(0, frames.take(UNIT).expect("free"));
    assert!(first.is_some());
    drop(held);
    let mut second = frames.take(UNIT + 1).expect("free");
    second.fill(&[5; UNIT + 1]);
    let (refused, held) = links.publish(0, second);
    assert_eq!((refused, frames.idle()), (None, 17));
    // It is there for whoever holds it.
    let mut bytes = Vec::new();
    held.gather(&mut bytes);
    assert_eq!((bytes, held.whole()), (vec![5; UNIT + 1], None));
    let clone = held.clone();
    drop(held);
    assert_eq!(frames.idle(), 17);
    drop(clone);
    assert_eq!(frames.idle(), 19);
    assert_eq!(links.unlink(0), first.map(|first| (first, 1)));
    assert_eq!(links.unlink(0), None);
    assert_eq!(frames.idle(), 20);
}

#[test]
fn a_block_that_is_held_stays_when_it_leaves_the_cache() {
    let cache = cache(8);
    let table = cache.register(1, 100);
    let held = table.insert_copy(0, &content(1, 0, 2 * UNIT)).expect("there is room");
    let other = held.clone();
    for block in 1..100 {
        assert!(table.insert(block, &content(1, block, UNIT)));
    }
    assert!(!table.contains(0));
    drop(held);
    let mut bytes = Vec::new();
    other.gather(&mut bytes);
    assert_eq!(bytes, content(1, 0, 2 * UNIT));
    assert_eq!(cache.stats().blocks, 6);
    // It outlives the table, too.
    drop(table);
    assert!(cache.frames.take(6 * UNIT).is_some());
    assert!(cache.frames.take(7 * UNIT).is_none());
    drop(other);
    assert!(cache.frames.take(8 * UNIT).is_some());
}

#[test]
fn whoever_finds_a_block_may_hold_it() {
    let cache = cache(4);
    let table = cache.register(1, 100);
    assert!(table.insert(0, &content(1, 0, UNIT)));
    let held = {
        let guard = cache.epochs().pin();
        table.get(&guard, 0).expect("it was put in").hold()
    };
    for block in 1..100 {
        assert!(table.insert(block, &content(1, block, UNIT)));
    }
    assert!(!table.contains(0));
    assert_eq!(held.whole(), Some(&content(1, 0, UNIT)[..]));
    drop(table);
    assert!(cache.frames.take(4 * UNIT).is_none());
    drop(held);
    assert!(cache.frames.take(4 * UNIT).is_some());
}

#[test]
fn what_is_read_into_a_frame_stays_there() {
    let cache = cache(4);
    let table = cache.register(1, 3);
    let read = || {
        let mut frame = table.frame().expect("there is room");
        assert_eq!((frame.len(), frame.as_ptr().align_offset(UNIT)), (UNIT, 0));
        frame[..100].copy_from_slice(&content(1, 0, 100));
        frame
    };
    let frame = read();
    let address = frame.as_ptr();
    let held = table.insert_frame(0, frame, 100);
    assert_eq!(held.whole().map(<[u8]>::as_ptr), Some(address));
    assert_eq!(get(&table, 0), Some(content(1, 0, 100)));
    // Somebody was faster: this one is for its holder.
    let late = table.insert_frame(0, read(), 100);
    assert_ne!(late.whole().map(<[u8]>::as_ptr), Some(address));
    assert_eq!(late.whole(), held.whole());
    assert_eq!(cache.stats().blocks, 1);
    drop((held, late));
    // One that was not put in goes back by itself.
    drop(read());
    assert_eq!(cache.frames.idle(), 3);
    let frames: Vec<_> = std::iter::from_fn(|| table.frame()).collect();
    assert_eq!((frames.len(), cache.stats().refused), (4, 1));
    assert_eq!(get(&table, 0), None, "it made room");
    drop(frames);
    drop(table);
    assert_eq!(cache.frames.idle(), 4);
}

#[test]
#[should_panic(expected = "a frame of this cache")]
fn a_frame_of_another_cache_is_refused() {
    let (one, other) = (cache(4), cache(4));
    let frame = other.register(1, 1).frame().expect("there is room");
    one.register(1, 1).insert_frame(0, frame, 100);
}

#[test]
fn hits_allocate_nothing() {
    let cache = cache(64);
    let table = cache.register(1, 2);
    assert!(table.insert(0, &content(1, 0, UNIT)));
    assert!(table.insert(1, &content(1, 1, 3 * UNIT)));
    let mut scratch = Vec::with_capacity(3 * UNIT);
    let mut lookups = || {
        for block in [0, 1] {
            let guard = cache.epochs().pin();
            let hit = table.get(&guard, block).expect("it was inserted");
            hit.gather(&mut scratch);
            assert_eq!(hit.whole().is_some(), block == 0);
        }
    };
    lookups();
    let allocated = allocation_counter::measure(lookups);
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn it_grows_ahead_of_its_use_and_no_further() {
    let cache = cache(900);
    assert!(!is_up(cache.growth()) && cache.stats().inserted == 0);
    let table = cache.register(1, 900);
    let insert = |blocks: std::ops::Range<u32>| {
        for block in blocks {
            assert!(table.insert(block, &content(1, block, UNIT)));
        }
    };
    // A huge page is 512 frames, and 256 are to be left.
    insert(0..1);
    assert!(is_up(cache.growth()));
    assert!(cache.grow() && !cache.grow());
    insert(1..256);
    assert!(!is_up(cache.growth()));
    insert(256..300);
    assert!(is_up(cache.growth()) && !is_up(cache.growth()));
    assert!(cache.grow() && !cache.grow(), "the rest");
    insert(300..900);
    assert!(!is_up(cache.growth()) && !cache.grow());
    assert_eq!(get(&table, 899), Some(content(1, 899, UNIT)));
}

/// Whether the flag is up, which is taken down.
fn is_up(event: &Event) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::pin!(event.wait()).poll(&mut cx).is_ready()
}
