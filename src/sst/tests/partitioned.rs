//! Tables whose partitions are not pinned: what that costs, who shares reads,
//! what damage does, and how they get pinned after all.

use std::sync::Barrier;

use super::*;
use crate::base::error::ErrorKind;
use crate::base::limits::UNIT;
use crate::cache::PartitionCacheStats;
use crate::runtime::block_on;
use crate::sst::Holds;

const KEYS: u32 = 40_000;

fn key(i: u32) -> Vec<u8> {
    (2 * i).to_be_bytes().to_vec()
}

/// A table of three partitions.
fn table_of_three() -> (Vec<Entry>, Memory, TableMeta) {
    let entry = |i: u32| (key(i), put(u64::from(i) + 1), i.to_le_bytes().to_vec());
    let entries: Vec<Entry> = (0..KEYS).map(entry).collect();
    let (io, meta) = write(&entries, 256 << 10);
    (entries, io, meta)
}

/// One with a share in these caches.
fn open_in(
    io: &Memory,
    meta: &TableMeta,
    pins: &Arc<Pins>,
    partitions: &Arc<PartitionCache<Partition>>,
) -> Arc<Table> {
    let table = now(Table::open(io, io.file(), DB, meta.clone(), &pins.share(false)));
    let table = table.expect("sound");
    table.cache_in(None, partitions);
    assert_eq!(table.top.partitions(), 3);
    Arc::new(table)
}

fn none() -> PinLimits {
    PinLimits { bytes_max: 0, oldest_bytes_max: 0 }
}

#[test]
fn opening_takes_few_reads_and_little_memory() {
    let (_, io, meta) = table_of_three();
    let (pins, cache) = (Pins::new(none()), PartitionCache::new(1 << 20));
    io.take_reads();
    let table = open_in(&io, &meta, &pins, &cache);
    // Header, footer, top index and properties.
    assert_eq!(io.take_reads(), [UNIT, UNIT, 2 * UNIT]);
    assert_eq!(pins.bytes(), table.pinned_bytes());
    assert!(pins.bytes() < 2000, "{}", pins.bytes());
    let pinned = open(&io, &meta).expect("sound");
    assert!(pinned.pinned_bytes() > pins.bytes() + u64::from(KEYS), "filters have a byte a key");
    drop(table);
    assert_eq!(pins.bytes(), 0);
}

#[test]
fn a_lookup_reads_a_partition_and_a_block() {
    let (_, io, meta) = table_of_three();
    let cache = PartitionCache::new(1 << 20);
    let table = open_in(&io, &meta, &Pins::new(none()), &cache);
    let counters = ReadCounters::default();
    let look = |key: &[u8]| {
        let found = get(&io, &table, &counters, key, SEQ_MAX).expect("sound");
        (found.map(|(tag, _)| tag.seq()), io.take_reads())
    };
    let partitions: Vec<usize> = (0..3).map(|number| table.top.extent(number).1).collect();
    io.take_reads();
    assert_eq!(look(&key(7)), (Some(8), vec![partitions[0], UNIT]));
    assert_eq!(look(&key(8)), (Some(9), vec![UNIT]));
    assert_eq!(look(&key(KEYS - 1)), (Some(u64::from(KEYS)), vec![partitions[2], UNIT]));
    // A key that is not there, in a partition that is not, either.
    let middle = 2 * 20_000u32 + 1;
    assert_eq!(look(&middle.to_be_bytes()), (None, vec![partitions[1]]));
    assert_eq!(look(&(middle + 2).to_be_bytes()), (None, vec![]));
    // Outside of the table's range nothing is read.
    assert_eq!(look(b"\xff\xff\xff\xff\xff"), (None, vec![]));
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.inserted, stats.partitions, stats.hits), (3, 3, 3, 2));
    assert_eq!(counters.counts().probes, 5);
    assert_eq!(counters.counts().negatives, 2);
    // What memory it takes is told.
    let decoded = (0..3).map(|number| table.resident(number).expect("cached").bytes() as u64);
    assert_eq!(stats.bytes, decoded.sum());
}

#[test]
fn filters_err_as_seldom_as_pinned_ones_and_are_counted_so() {
    let (_, io, meta) = table_of_three();
    let counts = [Kept::Pinned, Kept::Cached(1 << 20)].map(|kept| {
        let table = open_as(kept, &io, &meta, None).expect("sound");
        let counters = ReadCounters::default();
        for i in 0..KEYS - 1 {
            let absent = (2 * i + 1).to_be_bytes();
            assert_eq!(get(&io, &table, &counters, &absent, SEQ_MAX).expect("sound"), None);
        }
        counters.counts()
    });
    assert_eq!(counts[0], counts[1]);
    assert!(counts[0].false_positives > 0);
}

#[test]
fn with_room_for_one_partition_the_answers_are_the_same() {
    let (entries, io, meta) = table_of_three();
    let (pins, cache) = (Pins::new(none()), PartitionCache::new(26 << 10));
    let table = open_in(&io, &meta, &pins, &cache);
    let counters = ReadCounters::default();
    let mut random = Random(9);
    for _ in 0..300 {
        let (key, tag, value) = &entries[random.below(entries.len() as u64) as usize];
        let found = get(&io, &table, &counters, key, SEQ_MAX).expect("sound");
        assert_eq!(found, Some((*tag, value.clone())));
        let stats = cache.stats();
        assert!(stats.bytes <= stats.capacity_bytes && stats.partitions <= 2);
    }
    assert!(cache.stats().evicted > 100 && cache.stats().hits > 50, "{:?}", cache.stats());
}

/// Keys of one partition are refused, all others are read as before.
#[test]
fn a_damaged_partition_refuses_its_keys_only() {
    let (_, io, meta) = table_of_three();
    let cache = PartitionCache::new(1 << 20);
    let table = open_in(&io, &meta, &Pins::new(none()), &cache);
    let counters = ReadCounters::default();
    let offset = table.top.extent(1).0;
    let sound = io.replace(offset as usize + 300, 0xee);
    let has_failed: Vec<bool> = (0..KEYS)
        .step_by(50)
        .map(|i| match get(&io, &table, &counters, &key(i), SEQ_MAX) {
            Ok(found) => {
                assert_eq!(found.expect("it is there").1, i.to_le_bytes());
                false
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption);
                let place = format!("/db/table.sst offset {offset}: ");
                assert!(error.to_string().contains(&place), "{error}");
                true
            }
        })
        .collect();
    let failed = has_failed.iter().filter(|&&failed| failed).count();
    assert!(has_failed.len() / 4 < failed && failed < has_failed.len() / 2, "{failed}");
    assert!(!has_failed[0] && !has_failed[has_failed.len() - 1]);
    // A walk goes on up to it, and behind it.
    let mut iter = walk(Arc::clone(&table));
    assert_eq!(collect(&io, &mut iter).expect_err("damaged").kind(), ErrorKind::Corruption);
    assert!(!iter.valid());
    now(iter.seek_to_last(&io)).expect("behind it");
    assert_eq!(iter.key(), key(KEYS - 1));
    let pinned = block_on(table.pin(&io, &Kept::Pinned.pins().share(false)));
    assert!(pinned.is_err() && !table.is_pinned());
    // Nothing damaged was cached.
    io.replace(offset as usize + 300, sound);
    assert_eq!(collect(&io, &mut walk(table)).expect("sound").len(), KEYS as usize);
}

#[test]
fn every_damaged_byte_of_a_partition_is_noticed() {
    let entries: Vec<Entry> = (0..300).map(|i: u32| (key(i), put(1), vec![i as u8; 40])).collect();
    let (io, meta) = write(&entries, 256 << 10);
    let open =
        || open_as(Kept::Cached(1 << 20), &io, &meta, None).expect("the damage is elsewhere");
    let (start, len) = open().top.extent(0);
    for at in start as usize..start as usize + len {
        for pattern in [0x01, 0x80] {
            let sound = io.replace(at, 0);
            io.replace(at, sound ^ pattern);
            let table = open();
            let counters = ReadCounters::default();
            let error = get(&io, &table, &counters, &key(5), SEQ_MAX).expect_err("damaged");
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
            assert!(error.to_string().contains(&format!(" offset {start}: ")), "{error}");
            io.replace(at, sound);
        }
    }
    let cut = Memory::of(io.bytes()[..start as usize].to_vec());
    let error = get(&cut, &open(), &ReadCounters::default(), &key(5), SEQ_MAX);
    let reason = "the file ends before the end of a filter and index";
    assert!(error.expect_err("it was cut").to_string().contains(reason));
}

#[test]
fn a_read_of_a_partition_that_fails_is_tried_once_more() {
    let (_, io, meta) = table_of_three();
    for bytes in [0, 1 << 20] {
        let table = open_as(Kept::Cached(bytes), &io, &meta, None).expect("sound");
        let counters = ReadCounters::default();
        let get_first = || get(&io, &table, &counters, &key(0), SEQ_MAX);
        io.take_reads();
        io.fail(2);
        assert_eq!(get_first().expect_err("both tries fail").kind(), ErrorKind::Io);
        assert_eq!(io.take_reads().len(), 2);
        io.fail(1);
        assert!(get_first().expect("the second try succeeds").is_some());
        assert_eq!(io.take_reads().len(), 3);
    }
}

#[test]
fn threads_that_miss_a_partition_at_once_read_it_once() {
    const THREADS: u64 = 8;
    let (_, io, meta) = table_of_three();
    let partitions = PartitionCache::new(1 << 20);
    let blocks = cache(1 << 20);
    let table = now(Table::open(&io, io.file(), DB, meta, &Pins::new(none()).share(false)));
    let table = Arc::new(table.expect("sound"));
    table.cache_in(Some(&blocks), &partitions);
    // The read waits until everybody has missed it.
    let watched = Arc::clone(&partitions);
    let gated = io.gated(move || {
        while watched.stats().misses < THREADS {
            std::thread::yield_now();
        }
    });
    io.take_reads();
    let start = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let counters = ReadCounters::default();
                start.wait();
                let (key, hash) = (key(1000), hasher().hash(&key(1000)));
                let lookup = Lookup { counters: &counters, key: &key, hash, bound: SEQ_MAX };
                let Ok(Looked::Missing(missing)) = table.look(&lookup, &mut Vec::new()) else {
                    panic!("nobody has read it");
                };
                let found = block_on(table.get(&gated, missing, &lookup));
                assert_eq!(*found.expect("sound").expect("there").value, 1000u32.to_le_bytes());
            });
        }
    });
    assert_eq!(io.take_reads(), [table.top.extent(0).1, UNIT]);
    assert_eq!((partitions.stats().misses, partitions.stats().inserted), (THREADS, 1));
}

#[test]
fn who_walks_over_whole_tables_passes_the_cache_by() {
    let (entries, io, meta) = table_of_three();
    let cache = PartitionCache::new(1 << 20);
    let table = open_in(&io, &meta, &Pins::new(none()), &cache);
    let mut iter = TableIter::bypassing(Arc::clone(&table), READ_BYTES);
    io.take_reads();
    assert_eq!(collect(&io, &mut iter).expect("sound"), entries);
    let partitions = [0, 1, 2].map(|number| table.top.extent(number).1);
    let of_partitions = |read: &usize| partitions.contains(read);
    assert_eq!(io.take_reads().into_iter().filter(of_partitions).collect::<Vec<_>>(), partitions);
    let nothing = PartitionCacheStats { capacity_bytes: 1 << 20, ..PartitionCacheStats::default() };
    assert_eq!(cache.stats(), nothing);
    // What a filter says that is not pinned is not known, and read on demand.
    let absent = 41u32.to_be_bytes();
    for (key, is_there) in [(&key(20)[..], true), (&absent, false)] {
        let hash = hasher().hash(key);
        assert_eq!(table.holds(key, hash), Holds::Unknown);
        io.take_reads();
        assert_eq!(now(table.holds_by_reading(&io, key, hash)).expect("sound"), is_there);
        assert_eq!(io.take_reads(), [table.top.extent(0).1]);
    }
    assert_eq!(table.holds(b"\xff\xff", hasher().hash(b"\xff\xff")), Holds::No);
    assert_eq!(cache.stats(), nothing);
    // Others go there, once for each partition.
    assert_eq!(collect(&io, &mut walk(table)).expect("sound"), entries);
    assert_eq!((cache.stats().misses, cache.stats().hits), (3, 0));
}

#[test]
fn partitions_are_pinned_once_there_is_room() {
    let (entries, io, meta) = table_of_three();
    let needed = open(&io, &meta).expect("sound").pinned_bytes();
    let limits = PinLimits { bytes_max: 2 * needed, oldest_bytes_max: needed / 2 };
    let (pins, cache) = (Pins::new(limits), PartitionCache::new(1 << 20));
    let first = open_in(&io, &meta, &pins, &cache);
    let second = open_in(&io, &meta, &pins, &cache);
    assert!(first.is_pinned() && !second.is_pinned());
    assert_eq!(first.pinned_bytes(), needed);
    assert_eq!(pins.bytes(), first.pinned_bytes() + second.pinned_bytes());
    assert!(!block_on(second.pin(&io, &pins.share(false))).expect("no room"));
    let mut iter = walk(Arc::clone(&second));
    now(iter.seek(&io, &key(20_000), Tag::visible_at(SEQ_MAX))).expect("sound");
    assert_eq!(cache.stats().partitions, 1);
    drop(first);
    assert!(!block_on(second.pin(&io, &pins.share(true))).expect("no room for the oldest"));
    io.take_reads();
    assert!(block_on(second.pin(&io, &pins.share(false))).expect("sound"));
    assert_eq!(io.take_reads(), (0..3).map(|i| second.top.extent(i).1).collect::<Vec<_>>());
    assert!(second.is_pinned());
    assert!(!block_on(second.pin(&io, &pins.share(false))).expect("it is pinned"));
    assert_eq!(pins.bytes(), second.pinned_bytes());
    assert_eq!(cache.stats().bytes, 0, "nothing is there twice");
    // A walk that began before goes on; lookups read their block only.
    for entry in &entries[20_000..] {
        assert_eq!(seen(&iter).as_ref(), Some(entry));
        now(iter.next(&io)).expect("sound");
    }
    drop(iter);
    io.take_reads();
    let found = get(&io, &second, &ReadCounters::default(), &key(3), SEQ_MAX).expect("sound");
    assert!(found.is_some());
    assert_eq!(io.take_reads(), [UNIT]);
    drop(second);
    assert_eq!(pins.bytes(), 0);
}

#[test]
fn pinning_that_fails_leaves_the_table_as_it_was() {
    let (_, io, meta) = table_of_three();
    let needed = open(&io, &meta).expect("sound").pinned_bytes();
    let limits = PinLimits { bytes_max: 2 * needed, oldest_bytes_max: 0 };
    let (pins, cache) = (Pins::new(limits), PartitionCache::new(1 << 20));
    let [first, second, third] = [(); 3].map(|()| open_in(&io, &meta, &pins, &cache));
    assert_eq!([&first, &second, &third].map(|table| table.is_pinned()), [true, false, false]);
    drop(first);
    let (share, before) = (pins.share(false), pins.bytes());
    io.fail(2);
    let error = block_on(second.pin(&io, &share)).expect_err("both tries fail");
    assert_eq!((error.kind(), second.is_pinned(), pins.bytes()), (ErrorKind::Io, false, before));
    let found = get(&io, &second, &ReadCounters::default(), &key(3), SEQ_MAX);
    assert!(found.expect("sound").is_some());
    // What is damaged stays so; what could not be read may be read later.
    let at = third.top.extent(2).0 as usize + 100;
    let sound = io.replace(at, 0);
    io.replace(at, !sound);
    let error = block_on(third.pin(&io, &share)).expect_err("damaged");
    assert_eq!((error.kind(), third.is_pinned()), (ErrorKind::Corruption, false));
    assert_eq!(pins.bytes(), before);
    io.take_reads();
    assert!(!block_on(third.pin(&io, &share)).expect("it is not tried again"));
    assert!(io.take_reads().is_empty());
    io.replace(at, sound);
    io.fail_after(1);
    assert!(block_on(second.pin(&io, &share)).expect("the second try succeeds"));
}
