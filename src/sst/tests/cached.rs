//! Tables whose blocks are cached: what lookups cost then, and that they answer
//! the same.

use std::sync::Barrier;

use super::*;
use crate::base::error::ErrorKind;
use crate::base::limits::UNIT;
use crate::cache::CachedTable;

const BOTH: [Compression; 2] = [Compression::None, Compression::Lz4];

/// All lookups of a table twice over, in a cache that has room for it.
#[test]
fn every_block_is_read_once() {
    for (seed, (compression, kept)) in (60..).zip(BOTH.into_iter().zip(Kept::ALL)) {
        let entries = random_entries(&mut Random(seed), 1500);
        let (io, meta) = write_with(compression, &entries, 256 << 10);
        let cache = cache(16 << 20);
        let table = open_as(kept, &io, &meta, Some(&cache)).expect("sound");
        let counters = ReadCounters::default();
        let look_all = || {
            for (key, tag, _) in &entries {
                for bound in [tag.seq(), tag.seq() - 1] {
                    let found = get(&io, &table, &counters, key, bound).expect("sound");
                    assert_eq!(found, expected(&entries, key, bound), "{key:?} at {bound}");
                }
            }
            io.take_reads().len() as u64
        };
        io.take_reads();
        let mut reads = look_all();
        if kept != Kept::Pinned {
            // Each partition, too.
            reads -= table.top.partitions() as u64;
        }
        assert_eq!(reads, table.top.blocks() as u64);
        assert_eq!(look_all(), 0);
        let stats = cache.stats();
        assert_eq!((stats.inserted, stats.misses, stats.refused), (reads, reads, 0));
        // The last key has no block for bounds below it.
        assert_eq!(stats.hits + stats.misses, 4 * entries.len() as u64 - 2);
        assert!(stats.bytes > meta.file_bytes / 2);
        // Links are counted.
        let without = open_as(kept, &io, &meta, None).expect("sound").pinned_bytes();
        assert_eq!(table.pinned_bytes(), without + 4 * table.top.blocks() as u64);
        drop(table);
        assert_eq!(cache.stats().blocks, 0);
    }
}

#[test]
fn with_hardly_any_room_the_answers_are_the_same() {
    for (seed, compression) in (70..).zip(BOTH) {
        let mut random = Random(seed);
        let entries = random_entries(&mut random, 1500);
        let (io, meta) = write_with(compression, &entries, 256 << 10);
        for (frames, kept) in [1, 3, 30].into_iter().zip(Kept::ALL) {
            let cache = cache(frames * Cache::FRAME_BYTES);
            let table = open_as(kept, &io, &meta, Some(&cache)).expect("sound");
            let counters = ReadCounters::default();
            for _ in 0..3000 {
                let (key, tag, _) = &entries[random.below(entries.len() as u64) as usize];
                let found = get(&io, &table, &counters, key, tag.seq()).expect("sound");
                assert_eq!(found, expected(&entries, key, tag.seq()));
            }
            let stats = cache.stats();
            assert!(stats.evicted > 100 && stats.hits > 0, "{stats:?}");
            assert!(stats.bytes <= stats.capacity_bytes);
        }
    }
}

fn small() -> (Vec<Entry>, Memory, TableMeta) {
    let entries: Vec<Entry> = (0..90u64)
        .map(|i| (format!("k{i:02}").into_bytes(), put(i + 1), vec![i as u8; 150]))
        .collect();
    let (io, meta) = write(&entries, 256 << 10);
    (entries, io, meta)
}

/// Takes all frames away.
fn occupied(cache: &Arc<Cache>) -> (CachedTable, Vec<crate::io::IoBuf>) {
    let table = cache.register(1, 1);
    let frames = std::iter::from_fn(|| table.frame()).collect();
    (table, frames)
}

#[test]
fn without_a_frame_blocks_are_read_all_the_same() {
    let (entries, io, meta) = small();
    let cache = cache(20 * Cache::FRAME_BYTES);
    let table = open_with(&io, &meta, Some(&cache)).expect("sound");
    let counters = ReadCounters::default();
    let occupied = occupied(&cache);
    io.take_reads();
    for _ in 0..2 {
        for (key, tag, value) in &entries {
            let found = get(&io, &table, &counters, key, SEQ_MAX).expect("sound");
            assert_eq!(found, Some((*tag, value.clone())));
        }
    }
    assert_eq!(io.take_reads().len(), 2 * entries.len());
    assert_eq!(cache.stats().blocks, 0);
    assert_eq!(collect(&io, &mut walk(Arc::clone(&table))).expect("sound"), entries);
    drop(occupied);
    get(&io, &table, &counters, b"k00", SEQ_MAX).expect("sound");
    assert_eq!(cache.stats().blocks, 1);
}

#[test]
fn a_damaged_block_is_refused_each_time_and_not_cached() {
    let (entries, io, meta) = small();
    let cache = cache(1 << 20);
    let table = open_with(&io, &meta, Some(&cache)).expect("sound");
    let counters = ReadCounters::default();
    let (key, tag, value) = &entries[0];
    let get_first = || get(&io, &table, &counters, key, SEQ_MAX);
    let sound = io.replace(UNIT + 100, 0xee);
    io.take_reads();
    for _ in 0..3 {
        let error = get_first().expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains("/db/table.sst offset 4096"), "{error}");
        let mut iter = walk(Arc::clone(&table));
        now(iter.seek(&io, key, *tag)).expect_err("damaged");
        assert_eq!(io.take_reads(), [UNIT; 2]);
    }
    assert_eq!(cache.stats().blocks, 0);
    io.replace(UNIT + 100, sound);
    assert_eq!(get_first().expect("sound"), Some((*tag, value.clone())));
    assert_eq!(io.take_reads(), [UNIT]);
    // What was verified once is not read again.
    io.replace(UNIT + 100, 0xee);
    assert_eq!(get_first().expect("cached"), Some((*tag, value.clone())));
    assert!(io.take_reads().is_empty());
}

#[test]
fn a_failed_read_is_tried_once_more_and_not_cached() {
    let (_, io, meta) = small();
    let cache = cache(1 << 20);
    let table = open_with(&io, &meta, Some(&cache)).expect("sound");
    let counters = ReadCounters::default();
    let get_first = || get(&io, &table, &counters, b"k00", SEQ_MAX);
    io.take_reads();
    io.fail(2);
    assert_eq!(get_first().expect_err("both tries fail").kind(), ErrorKind::Io);
    assert_eq!((io.take_reads().len(), cache.stats().blocks), (2, 0));
    io.fail(1);
    assert!(get_first().expect("the second try succeeds").is_some());
    assert_eq!((io.take_reads().len(), cache.stats().blocks), (2, 1));

    let cut = Memory::of(io.bytes()[..UNIT].to_vec());
    let error = get(&cut, &table, &counters, b"k89", SEQ_MAX).expect_err("a cut file");
    assert!(error.to_string().contains("the file ends before the end of a data"), "{error}");
    assert_eq!(cache.stats().blocks, 1);
}

/// The read waits until everybody has missed the block.
fn miss_at_once(
    threads: usize,
    io: &Memory,
    cache: &Arc<Cache>,
    meta: &TableMeta,
    failures: usize,
) -> usize {
    let table = open_with(io, meta, Some(cache)).expect("sound");
    let missed = cache.stats().misses + threads as u64;
    let watched = Arc::clone(cache);
    let io = io.gated(move || {
        while watched.stats().misses < missed {
            std::thread::yield_now();
        }
    });
    io.take_reads();
    io.fail(failures);
    let (counters, start) = (ReadCounters::default(), Barrier::new(threads));
    let failed = std::thread::scope(|scope| {
        let work = || {
            scope.spawn(|| {
                start.wait();
                let hash = hasher().hash(b"k07");
                let lookup = Lookup { counters: &counters, key: b"k07", hash, bound: SEQ_MAX };
                let Looked::Missing(missing) = table.look(&lookup, &mut Vec::new())? else {
                    panic!("nobody has read it");
                };
                let found = crate::runtime::block_on(table.get(&io, missing, &lookup))?;
                assert_eq!(*found.expect("it is there").value, [7; 150]);
                Ok::<_, crate::base::error::Error>(())
            })
        };
        let threads: Vec<_> = (0..threads).map(|_| work()).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("no panic"));
        joined.filter(Result::is_err).count()
    });
    assert_eq!(cache.stats().misses, missed);
    io.fail(0);
    failed
}

#[test]
fn threads_that_miss_a_block_at_once_read_it_once() {
    let (_, io, meta) = small();
    let cache = cache(1 << 20);
    assert_eq!(miss_at_once(8, &io, &cache, &meta, 0), 0);
    assert_eq!(io.take_reads(), [UNIT]);
    // An error is everybody's.
    assert_eq!(miss_at_once(8, &io, &cache, &meta, 1000), 8);
    assert_eq!(miss_at_once(8, &io, &cache, &meta, 0), 0);
    assert_eq!(io.take_reads(), [UNIT]);
}
