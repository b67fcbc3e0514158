//! What was written is what is found; and what finding it costs.

use super::*;
use crate::base::error::ErrorKind;
use crate::base::limits::{INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX, UNIT, UNIT_U64};
use crate::io::Io;

/// Writes, opens, and gets every key at bounds around each of its versions.
/// No get costs more than one read of a block, and one of a partition that is not
/// in memory.
fn check(entries: &[Entry], write_bytes: usize) {
    for compression in [Compression::None, Compression::Lz4] {
        for kept in Kept::ALL {
            check_with(compression, kept, entries, write_bytes);
        }
    }
}

fn check_with(compression: Compression, kept: Kept, entries: &[Entry], write_bytes: usize) {
    let (io, meta) = write_with(compression, entries, write_bytes);
    assert_eq!(io.bytes().len() as u64, meta.file_bytes);
    assert_eq!(io.synced() as u64, meta.file_bytes);
    assert_eq!(meta.entries, entries.len() as u64);
    assert_eq!(meta.smallest[..], entries[0].0[..]);
    assert_eq!(meta.largest[..], entries[entries.len() - 1].0[..]);
    assert_eq!(Some(meta.seq_min), entries.iter().map(|e| e.1.seq()).min());
    assert_eq!(Some(meta.seq_max), entries.iter().map(|e| e.1.seq()).max());

    let table = open_as(kept, &io, &meta, None).expect("a sound table");
    assert_eq!(table.meta(), &meta);
    let counters = ReadCounters::default();
    io.take_reads();
    let mut more = 0;
    for (key, tag, _) in entries {
        for bound in [tag.seq(), tag.seq() - 1, SEQ_MAX, 0] {
            let found = get(&io, &table, &counters, key, bound).expect("a sound table");
            assert_eq!(found, expected(entries, key, bound), "{key:?} at {bound}");
            match (kept, io.take_reads().len()) {
                (_, 0 | 1) => {}
                (Kept::Cached(_), 2) => more += 1,
                (_, reads) => panic!("{reads} reads"),
            }
        }
    }
    if kept != Kept::Cached(0) {
        assert!(more <= table.top.partitions());
    }
    assert_eq!(collect(&io, &mut walk(table)).expect("sound"), entries);
    assert_eq!(counters.counts().probes, 4 * entries.len() as u64);
    assert_eq!(counters.counts().negatives, 0);
    assert_eq!(counters.counts().false_positives, 0);
}

#[test]
fn random_tables() {
    for seed in 1..=6 {
        let mut random = Random(seed);
        let count = 1 + random.below(1500) as usize;
        let entries = random_entries(&mut random, count);
        check(&entries, [UNIT, 3 * UNIT, 256 << 10][seed as usize % 3]);
    }
}

#[test]
fn tables_of_one_entry() {
    check(&[(vec![], put(1), vec![])], UNIT);
    check(&[(b"k".to_vec(), Tag::new(SEQ_MAX, Kind::Delete), vec![])], UNIT);
    check(&[(vec![0xff; KEY_BYTES_MAX], put(1), vec![7; INLINE_VALUE_BYTES_MAX])], UNIT);
}

#[test]
fn long_keys_and_values() {
    let mut random = Random(77);
    let mut entries = Vec::new();
    for i in 0..12u8 {
        let mut key = vec![b'k'; KEY_BYTES_MAX];
        key[usize::from(i) * 5000] = i;
        entries.push((key, put(3), random.bytes(u64::from(i) * 5000)));
        entries.push((vec![b'v', i], put(4), random.bytes(INLINE_VALUE_BYTES_MAX as u64)));
        entries.push((vec![b'v', i, 0], put(4), random.bytes(10)));
    }
    check(&sorted(entries), 256 << 10);
}

#[test]
fn compressed_tables_are_shorter() {
    let mut random = Random(6);
    let mut entry = |i: u64| {
        let mut value = random.bytes(100);
        value[50..].fill(b'.');
        (format!("user{i:020}").into_bytes(), put(i + 1), value)
    };
    let entries: Vec<Entry> = (0..5000).map(&mut entry).collect();
    let (_, plain) = write(&entries, 256 << 10);
    let (io, meta) = write_with(Compression::Lz4, &entries, 256 << 10);
    assert!(meta.file_bytes * 3 < plain.file_bytes * 2, "{} {}", meta.file_bytes, plain.file_bytes);
    // Values of a get and of a walk are there after the block was decompressed.
    let table = open(&io, &meta).expect("sound");
    let mut iter = walk(Arc::clone(&table));
    let counters = ReadCounters::default();
    for (key, tag, value) in entries.iter().step_by(97) {
        let found = get(&io, &table, &counters, key, SEQ_MAX).expect("sound");
        now(iter.seek(&io, key, *tag)).expect("sound");
        assert_eq!(found.as_ref(), Some(&(*tag, value.clone())));
        assert_eq!(iter.value(), value);
    }
}

/// Versions of one key fill many blocks; every one of them is found with
/// exactly one read.
#[test]
fn versions_of_one_key_over_many_blocks() {
    let mut entries: Vec<Entry> = vec![(b"before".to_vec(), put(5), vec![])];
    for seq in (1..=400).rev() {
        entries.push((b"hot".to_vec(), put(seq * 10), vec![seq as u8; 200]));
    }
    entries.push((b"later".to_vec(), put(5), vec![]));
    check(&entries, UNIT);
    let (io, meta) = write(&entries, UNIT);
    let table = open(&io, &meta).expect("a sound table");
    let counters = ReadCounters::default();
    io.take_reads();
    for bound in 0..=4010 {
        let found = get(&io, &table, &counters, b"hot", bound).expect("a sound table");
        assert_eq!(
            found.map(|(tag, _)| tag.seq()),
            (bound >= 10).then(|| bound.min(4000) / 10 * 10)
        );
        assert_eq!(io.take_reads(), [UNIT]);
    }
    // Bounds below all versions are no fault of the filter's.
    assert_eq!(counters.counts().false_positives, 0);
}

/// A long key whose versions fill several partitions: each finds the key in its
/// own filter.
#[test]
fn versions_of_one_key_over_many_partitions() {
    let hot = vec![b'h'; 4000];
    let mut entries: Vec<Entry> = vec![(b"before".to_vec(), put(5), vec![])];
    for seq in (1..=60).rev() {
        entries.push((hot.clone(), put(seq * 10), vec![seq as u8; 300]));
    }
    entries.push((b"later".to_vec(), put(5), vec![]));
    check(&entries, UNIT);
    let (io, meta) = write(&entries, UNIT);
    let table = open(&io, &meta).expect("a sound table");
    assert!(table.top.partitions() > 2, "{}", table.top.partitions());
    let counters = ReadCounters::default();
    io.take_reads();
    for bound in 0..=610 {
        let found = get(&io, &table, &counters, &hot, bound).expect("a sound table");
        let expected = (bound >= 10).then(|| bound.min(600) / 10 * 10);
        assert_eq!(found.map(|(tag, _)| tag.seq()), expected);
        assert_eq!(io.take_reads().len(), 1);
    }
    assert_eq!(counters.counts().negatives, 0);
    assert_eq!(counters.counts().false_positives, 0);
}

#[test]
fn the_cost_of_gets() {
    let keys = 20_000u64;
    let key = |i: u64| format!("key-{i:012}").into_bytes();
    let entries: Vec<Entry> = (0..keys).map(|i| (key(2 * i), put(1 + i), vec![1; 100])).collect();
    let (io, meta) = write(&entries, 256 << 10);
    let table = open(&io, &meta).expect("a sound table");
    assert_eq!(table.top.partitions(), 2);
    let data = keys * 116;
    assert!(table.pinned_bytes() > keys, "{}", table.pinned_bytes());
    assert!(table.pinned_bytes() < data * 3 / 100, "{} of {data}", table.pinned_bytes());

    let counters = ReadCounters::default();
    io.take_reads();
    for i in (0..keys).step_by(7) {
        assert!(get(&io, &table, &counters, &key(2 * i), SEQ_MAX).expect("sound").is_some());
        assert_eq!(io.take_reads(), [UNIT]);
    }
    // Outside of the range not even the filter is asked.
    let probes = counters.counts().probes;
    assert!(get(&io, &table, &counters, b"kex", SEQ_MAX).expect("sound").is_none());
    assert!(get(&io, &table, &counters, b"key-a", SEQ_MAX).expect("sound").is_none());
    assert_eq!(counters.counts().probes, probes);
    assert!(io.take_reads().is_empty());

    for i in 0..keys - 1 {
        assert!(get(&io, &table, &counters, &key(2 * i + 1), SEQ_MAX).expect("sound").is_none());
    }
    let wrong = counters.counts().false_positives;
    assert_eq!(io.take_reads().len() as u64, wrong);
    assert_eq!(counters.counts().negatives + wrong, keys - 1);
    assert!(0 < wrong && wrong < keys / 200, "{wrong} false positives of {keys}");
}

#[test]
fn writes_are_long_and_reads_are_few() {
    let mut random = Random(5);
    let entries = random_entries(&mut random, 9000);
    let (io, meta) = write(&entries, 256 << 10);
    let counts = io.counters().counts();
    assert!(meta.file_bytes > 1 << 20);
    assert_eq!(counts.writes, meta.file_bytes.div_ceil(256 << 10));
    assert_eq!((counts.write_bytes, counts.syncs), (meta.file_bytes, 1));
    open(&io, &meta).expect("a sound table");
    // Header, footer, and what is between data and footer.
    assert_eq!(io.take_reads().len(), 3);
}

#[test]
fn a_failed_write_or_sync_is_told() {
    let entries = vec![(b"k".to_vec(), put(1), vec![7; 9000])];
    let pool = BufferPool::new(UNIT, 2);
    let (sound, _) = write(&entries, UNIT);
    let writes = sound.counters().counts().writes;
    assert_eq!(writes, sound.bytes().len() as u64 / UNIT_U64);
    // One request after the other fails; the last one is the sync.
    for successes in 0..=writes {
        let io = Memory::of(Vec::new());
        let result = now(async {
            let mut writer =
                TableWriter::new(&io, io.file(), 0, new_table(Compression::None), &pool);
            for (key, tag, value) in &entries {
                io.fail_after(successes as usize);
                writer.add(key, *tag, value, hasher().hash(key)).await?;
            }
            writer.finish(0, &RangeTombstones::default()).await
        });
        let error = result.expect_err("a failed request");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(io.counters().counts().writes, (successes + 1).min(writes));
    }
}

#[test]
fn a_read_that_fails_is_tried_once_more() {
    let (io, meta) = write(&[(b"k".to_vec(), put(1), vec![1])], UNIT);
    io.fail(1);
    let table = open(&io, &meta).expect("the second try succeeds");
    let counters = ReadCounters::default();
    io.fail(1);
    assert!(get(&io, &table, &counters, b"k", 5).expect("the second try succeeds").is_some());
    io.fail(2);
    let error = get(&io, &table, &counters, b"k", 5).expect_err("both tries fail");
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(get(&io, &table, &counters, b"k", 5).expect("nothing else fails").is_some());
}

#[test]
#[should_panic(expected = "entries of a table come in order")]
fn entries_out_of_order_are_refused() {
    write(&[(b"k".to_vec(), put(1), vec![]), (b"k".to_vec(), put(2), vec![])], UNIT);
}

#[test]
#[should_panic(expected = "at least one entry")]
fn a_table_is_not_empty() {
    write(&[], UNIT);
}
