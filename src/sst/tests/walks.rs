//! Iterators: every seek, both directions, and how much they read.

use super::*;
use crate::base::limits::UNIT;

const ALTERNATING: [Compression; 2] = [Compression::None, Compression::Lz4];

/// An iterator of a table whose blocks are not cached.
fn iter_over(entries: &[Entry]) -> (Memory, TableIter) {
    let (io, meta) = write(entries, 256 << 10);
    let table = open(&io, &meta).expect("a sound table");
    io.take_reads();
    (io, walk(table))
}

/// One whose table is compressed, or not, and cached, or not, and keeps its
/// partitions where the seed says.
fn iter_by(seed: u64, entries: &[Entry]) -> (Memory, TableIter) {
    let (io, meta) = write_with(ALTERNATING[seed as usize % 2], entries, 256 << 10);
    let small = cache(100 << 10);
    let cache = (seed % 4 < 2).then_some(&small);
    let kept = Kept::ALL[seed as usize % 3];
    let table = open_as(kept, &io, &meta, cache).expect("a sound table");
    (io, if seed % 8 == 7 { TableIter::bypassing(table, READ_BYTES) } else { walk(table) })
}

#[test]
fn walks_both_ways() {
    for seed in 20..28 {
        let mut random = Random(seed);
        let count = 1 + random.below(1200) as usize;
        let entries = random_entries(&mut random, count);
        let (io, mut iter) = iter_by(seed, &entries);
        assert!(!iter.valid());
        assert_eq!(collect(&io, &mut iter).expect("sound"), entries);
        now(iter.seek_to_last(&io)).expect("sound");
        for entry in entries.iter().rev() {
            assert_eq!(seen(&iter).as_ref(), Some(entry));
            now(iter.prev(&io)).expect("sound");
        }
        assert!(!iter.valid());
    }
}

#[test]
fn seeks_everywhere() {
    for seed in 40..48 {
        let mut random = Random(seed);
        let count = 1 + random.below(700) as usize;
        let entries = random_entries(&mut random, count);
        let (io, mut iter) = iter_by(seed, &entries);
        let mut targets: Vec<(Vec<u8>, Tag)> = vec![(vec![], Tag::visible_at(SEQ_MAX))];
        targets.push((vec![0xff; 100], put(1)));
        for (key, tag, _) in &entries {
            targets.push((key.clone(), *tag));
            targets.push((key.clone(), Tag::visible_at(tag.seq() - 1)));
            targets.push((key.clone(), Tag::visible_at(SEQ_MAX)));
            targets.push((key.clone(), Tag::from_u64(0)));
            targets.push(([&key[..], b"\0"].concat(), *tag));
            targets.push((key[..key.len() / 2].to_vec(), *tag));
        }
        for (key, tag) in targets {
            let at =
                entries.partition_point(|e| compare_internal((&e.0, e.1), (&key, tag)).is_lt());
            now(iter.seek(&io, &key, tag)).expect("sound");
            assert_eq!(seen(&iter).as_ref(), entries.get(at), "{key:?} {tag:?}");
            now(iter.seek_for_prev(&io, &key, tag)).expect("sound");
            let before = at.checked_sub(1).map(|i| &entries[i]);
            assert_eq!(seen(&iter).as_ref(), before, "{key:?} {tag:?}");
        }
    }
}

/// Random steps and turns and seeks, against an index into the entries.
#[test]
fn wanders() {
    for seed in 96..100 {
        wander(seed);
    }
}

fn wander(seed: u64) {
    let mut random = Random(seed);
    let entries = random_entries(&mut random, 2500);
    let (io, mut iter) = iter_by(seed, &entries);
    let mut at: Option<usize> = None;
    for _ in 0..400 {
        let Some(here) = at else {
            let target = &entries[random.below(entries.len() as u64) as usize];
            now(iter.seek(&io, &target.0, target.1)).expect("sound");
            at = entries.iter().position(|e| e == target);
            continue;
        };
        let steps = random.below(120) as usize;
        let forward = random.below(2) == 0;
        at = Some(here);
        for _ in 0..steps {
            at = match (at, forward) {
                (Some(i), true) => {
                    now(iter.next(&io)).expect("sound");
                    Some(i + 1).filter(|&i| i < entries.len())
                }
                (Some(i), false) => {
                    now(iter.prev(&io)).expect("sound");
                    i.checked_sub(1)
                }
                (None, _) => break,
            };
            assert_eq!(seen(&iter).as_ref(), at.map(|i| &entries[i]));
        }
        if random.below(10) == 0 {
            at = None;
        }
    }
}

/// Blocks of 4 KiB with one entry each.
fn one_entry_a_block(blocks: u64) -> Vec<Entry> {
    (0..blocks).map(|i| (i.to_be_bytes().to_vec(), put(1), vec![i as u8; 3000])).collect()
}

#[test]
fn reads_ahead_in_doubling_steps() {
    let entries = one_entry_a_block(300);
    let (io, mut iter) = iter_over(&entries);
    assert_eq!(collect(&io, &mut iter).expect("sound"), entries);
    let units: Vec<usize> = io.take_reads().iter().map(|len| len / UNIT).collect();
    assert_eq!(units, [1, 2, 4, 8, 16, 32, 64, 64, 64, 45]);

    // Going back, the buffer that is held is used first.
    now(iter.seek_to_last(&io)).expect("sound");
    assert!(io.take_reads().is_empty());
    let mut back = 0;
    while iter.valid() {
        back += 1;
        now(iter.prev(&io)).expect("sound");
    }
    assert_eq!(back, 300);
    let units: Vec<usize> = io.take_reads().iter().map(|len| len / UNIT).collect();
    assert_eq!(units, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
}

#[test]
fn seeks_and_turns_start_small() {
    let entries = one_entry_a_block(200);
    let (io, mut iter) = iter_over(&entries);
    collect(&io, &mut iter).expect("sound");
    io.take_reads();

    let seek = |iter: &mut TableIter, i: u64| {
        now(iter.seek(&io, &i.to_be_bytes(), put(1))).expect("sound");
    };
    seek(&mut iter, 20);
    assert_eq!(io.take_reads(), [UNIT]);
    now(iter.next(&io)).expect("sound");
    assert_eq!(io.take_reads(), [2 * UNIT]);
    now(iter.next(&io)).expect("sound");
    now(iter.prev(&io)).expect("sound");
    assert!(io.take_reads().is_empty());
    now(iter.prev(&io)).expect("sound");
    assert_eq!(io.take_reads(), [UNIT]);
    now(iter.prev(&io)).expect("sound");
    assert_eq!(io.take_reads(), [2 * UNIT]);
    assert_eq!(iter.key(), 19u64.to_be_bytes());
    // Seeking within the window reads nothing.
    seek(&mut iter, 18);
    assert_eq!((iter.key(), io.take_reads()), (&18u64.to_be_bytes()[..], vec![]));
}

#[test]
fn an_error_leaves_no_entry_and_a_seek_recovers() {
    let entries = one_entry_a_block(40);
    let (io, mut iter) = iter_over(&entries);
    now(iter.seek_to_first(&io)).expect("sound");
    io.fail(2);
    assert!(now(iter.next(&io)).is_err());
    assert!(!iter.valid());
    assert_eq!(collect(&io, &mut iter).expect("sound"), entries);
}

/// Walks over so many entries from one on: how many units each read had.
fn units_read(
    io: &Memory,
    mut iter: TableIter,
    entries: &[Entry],
    from: u64,
    steps: usize,
) -> Vec<usize> {
    now(iter.seek(io, &from.to_be_bytes(), put(1))).expect("sound");
    for entry in &entries[from as usize..][..steps] {
        assert_eq!(seen(&iter).as_ref(), Some(entry));
        now(iter.next(io)).expect("sound");
    }
    io.take_reads().iter().map(|len| len / UNIT).collect()
}

#[test]
fn what_is_likely_to_be_wanted_is_read_at_once() {
    let entries = one_entry_a_block(300);
    let (io, meta) = write(&entries, 256 << 10);
    let cache = cache(4 << 20);
    let table = open_with(&io, &meta, Some(&cache)).expect("sound");
    let walk = |from: u64, steps: usize, wanted: usize| {
        let wanted = (wanted * UNIT) as u64;
        let iter = TableIter::wanting(Arc::clone(&table), 256 << 10, wanted);
        units_read(&io, iter, &entries, from, steps)
    };
    io.take_reads();
    // One block more, as the first one may be at the end of its own.
    assert_eq!(walk(10, 2, 2), [3]);
    // No further than what is cached, all of which was asked for.
    assert_eq!(cache.stats().blocks, 3);
    assert_eq!(walk(9, 3, 2), [1]);
    assert_eq!(walk(30, 20, 0), [1, 2, 4, 8, 16]);
    // Not more than is cached of any walk.
    assert_eq!(walk(100, 3, 100), [4]);
    assert_eq!(walk(200, 12, 100), [4, 8, 16]);
}

#[test]
fn short_walks_are_cached_and_long_ones_pass_by() {
    let entries = one_entry_a_block(300);
    let (io, meta) = write(&entries, 256 << 10);
    let cache = cache(4 << 20);
    let table = open_with(&io, &meta, Some(&cache)).expect("sound");
    let walk =
        |from: u64, steps: usize| units_read(&io, walk(Arc::clone(&table)), &entries, from, steps);
    io.take_reads();
    // The reads are those of a walk without a cache; the first of them are kept.
    assert_eq!(walk(100, 100), [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(cache.stats().blocks, 7);
    assert_eq!(walk(100, 6), []);
    // The first block that is not there is the first read.
    assert_eq!(walk(100, 9), [1, 2]);
    assert_eq!(walk(109, 1), [1]);
    assert_eq!(cache.stats().blocks, 11);
    let stats = cache.stats();
    let mut iter = TableIter::bypassing(Arc::clone(&table), READ_BYTES);
    assert_eq!(collect(&io, &mut iter).expect("sound"), entries);
    let units: Vec<usize> = io.take_reads().iter().map(|len| len / UNIT).collect();
    assert_eq!(units, [64, 64, 64, 64, 44]);
    assert_eq!(cache.stats(), stats);
}
