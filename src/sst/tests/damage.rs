//! Damage anywhere in a table: never wrong data, never a panic.

use super::*;
use crate::base::error::{Error, ErrorKind};
use crate::base::limits::{UNIT, UNIT_U64};

/// Three data blocks of one unit, one of two.
fn small_table() -> (Vec<Entry>, Memory, TableMeta) {
    let mut random = Random(3);
    let mut entries: Vec<Entry> = (0..60u64)
        .map(|i| (format!("k{i:02}").into_bytes(), put(i + 1), random.bytes(150)))
        .collect();
    entries.push((b"z".to_vec(), put(100), random.bytes(5000)));
    let (io, meta) = write(&entries, 256 << 10);
    assert_eq!(meta.file_bytes, 10 * UNIT_U64);
    (entries, io, meta)
}

fn assert_damage(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported), "{error}");
    assert!(error.to_string().contains("/db/table.sst offset "), "{error}");
}

/// Every get and a walk: the right data, or an error that says where. Returns
/// how many gets failed.
fn right_or_refused(io: &Memory, table: Arc<Table>, entries: &[Entry]) -> usize {
    let counters = ReadCounters::default();
    let mut failed = 0;
    for (key, tag, value) in entries {
        match get(io, &table, &counters, key, SEQ_MAX) {
            Ok(found) => assert_eq!(found, Some((*tag, value.clone()))),
            Err(error) => {
                assert_damage(&error);
                failed += 1;
            }
        }
    }
    let mut iter = walk(table);
    match collect(io, &mut iter) {
        Ok(all) => assert_eq!((&all[..], failed), (entries, 0)),
        Err(error) => {
            assert_damage(&error);
            assert!(!iter.valid() && failed > 0);
        }
    }
    failed
}

/// The data blocks are the units 1 to 5: damage there leaves the table usable
/// but for the keys in the block. Any other refuses to open.
#[test]
fn every_damaged_byte_is_noticed() {
    let (entries, io, meta) = small_table();
    let data = UNIT..6 * UNIT;
    let table = open(&io, &meta).expect("sound");
    let partition = &table.pinned().expect("pinned")[0];
    let in_block = |e: &&Entry, block| partition.find(&e.0, e.1) == Some(block);
    let targets: Vec<&Entry> =
        (0..4).filter_map(|block| entries.iter().find(|e| in_block(e, block))).collect();
    for at in 0..io.bytes().len() {
        for pattern in [0x01, 0x80, 0xff] {
            let sound = io.replace(at, 0);
            io.replace(at, sound ^ pattern);
            if data.contains(&at) {
                if at % 64 == 0 && pattern == 0x01 {
                    let table = open(&io, &meta).expect("the damage is elsewhere");
                    let failed = right_or_refused(&io, table, &entries);
                    assert!(0 < failed && failed < 30, "{failed}");
                }
                let target = &targets[(at / UNIT - 1).min(3)];
                let mut iter = walk(Arc::clone(&table));
                let error = now(iter.seek(&io, &target.0, target.1)).expect_err("damage");
                assert_damage(&error);
                assert!(!iter.valid());
            } else {
                assert_damage(&open(&io, &meta).expect_err("damage"));
            }
            io.replace(at, sound);
        }
    }
    assert_eq!(right_or_refused(&io, open(&io, &meta).expect("sound"), &entries), 0);
}

#[test]
fn every_truncation_is_noticed() {
    let (entries, io, meta) = small_table();
    let bytes = io.bytes();
    for units in 0..bytes.len() / UNIT {
        for len in [units * UNIT, units * UNIT + 1, units * UNIT + 512] {
            let cut = Memory::of(bytes[..len].to_vec());
            let error = open(&cut, &meta).expect_err("a cut file");
            assert_eq!(error.kind(), ErrorKind::Corruption);
            assert!(error.to_string().contains("the file ends before"), "{error}");
        }
        // Cut after it was opened.
        let table = open(&io, &meta).expect("sound");
        let cut = Memory::of(bytes[..units * UNIT].to_vec());
        if units == 1 {
            let found = get(&cut, &table, &ReadCounters::default(), &entries[0].0, SEQ_MAX);
            let error = found.expect_err("the first block is gone");
            let end = "offset 4096: the file ends before the end of a data block";
            assert!(error.to_string().contains(end), "{error}");
        }
        right_or_refused(&cut, table, &entries);
        // Zeroed from there on.
        let mut zeroed = bytes.clone();
        zeroed[units * UNIT..].fill(0);
        assert_damage(&open(&Memory::of(zeroed), &meta).expect_err("a zeroed tail"));
    }
    let longer = Memory::of([&bytes[..], &[0; UNIT]].concat());
    assert_damage(&open(&longer, &meta).expect_err("a longer file"));
    let mut meta = meta;
    for file_bytes in [0, 1, UNIT_U64, 4 * UNIT_U64] {
        meta.file_bytes = file_bytes;
        let cut = Memory::of(bytes[..file_bytes as usize].to_vec());
        assert_damage(&open(&cut, &meta).expect_err("too short for a table"));
    }
}

#[test]
fn swapped_units_are_noticed() {
    let (entries, io, meta) = small_table();
    let bytes = io.bytes();
    let units = bytes.len() / UNIT;
    for a in 0..units {
        for b in a + 1..units {
            let mut swapped = bytes.clone();
            swapped[a * UNIT..][..UNIT].copy_from_slice(&bytes[b * UNIT..][..UNIT]);
            swapped[b * UNIT..][..UNIT].copy_from_slice(&bytes[a * UNIT..][..UNIT]);
            let io = Memory::of(swapped);
            match open(&io, &meta) {
                Ok(table) => {
                    assert!((1..6).contains(&a) && (1..6).contains(&b));
                    assert!(right_or_refused(&io, table, &entries) > 0);
                }
                Err(error) => assert_damage(&error),
            }
        }
    }
}

/// A block of another table with the same contents but for its id.
#[test]
fn blocks_of_another_table_are_noticed() {
    let (entries, io, meta) = small_table();
    let pool = BufferPool::new(UNIT, 2);
    let other = Memory::of(Vec::new());
    let new = NewTable { table_id: [1; 16], ..new_table(Compression::None) };
    let other_meta = now(async {
        let mut writer = TableWriter::new(&other, other.file(), 0, new, &pool);
        for (key, tag, value) in &entries {
            writer.add(key, *tag, value, hasher().hash(key)).await?;
        }
        writer.finish(0, &RangeTombstones::default()).await
    });
    let (other_meta, _) = other_meta.expect("memory takes everything");
    assert!(open(&other, &other_meta).is_ok());
    let (bytes, other_bytes) = (io.bytes(), other.bytes());
    for unit in 1..bytes.len() / UNIT {
        if bytes[unit * UNIT..][..UNIT] == other_bytes[unit * UNIT..][..UNIT] {
            // The start of the block of two units, top index, properties: their
            // checksums are elsewhere.
            assert!([4, 7, 8].contains(&unit), "{unit}");
            continue;
        }
        let mut mixed = bytes.clone();
        mixed[unit * UNIT..][..UNIT].copy_from_slice(&other_bytes[unit * UNIT..][..UNIT]);
        let io = Memory::of(mixed);
        match open(&io, &meta) {
            Ok(table) => assert!(right_or_refused(&io, table, &entries) > 0),
            Err(error) => assert_damage(&error),
        }
    }
}

#[test]
fn a_table_is_only_opened_as_what_it_is() {
    let (_, io, meta) = small_table();
    let share = Kept::Pinned.pins().share(true);
    let error = now(Table::open(&io, io.file(), DbId([0; 16]), meta.clone(), &share));
    assert!(error.expect_err("another database").to_string().contains("belongs to database"));
    for change in [
        &(|meta: &mut TableMeta| meta.id = FileId::new(3, 15)) as &dyn Fn(&mut TableMeta),
        &|meta| meta.table_id[0] ^= 1,
        &|meta| meta.entries += 1,
        &|meta| meta.smallest = (*b"k").into(),
        &|meta| meta.largest = (*b"zz").into(),
        &|meta| meta.seq_min += 1,
        &|meta| meta.seq_max += 1,
    ] {
        let mut other = meta.clone();
        change(&mut other);
        let error = open(&io, &other).expect_err("not what the manifest says");
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    }
}

/// Hostile bytes in a region or in the footer whose checksums are right.
#[test]
fn hostile_regions_under_right_checksums() {
    use crate::format::table::{Footer, seal_partition, seed_at};

    let (entries, io, meta) = small_table();
    let bytes = io.bytes();
    let footer_at = bytes.len() - UNIT;
    let footer = Footer::decode(&bytes[footer_at..], &TABLE_ID, footer_at as u64).expect("sound");
    let mut opened = 0;
    for choose in 0..3 {
        let region = [footer.partitions, footer.top_index, footer.properties][choose];
        // A partition ends with zeroes.
        for at in 0..(region.bytes as usize).min(2000) {
            for pattern in [0x01, 0x02, 0x80, 0xff] {
                let mut hostile = bytes.clone();
                let start = region.offset as usize;
                hostile[start + at] ^= pattern;
                let mut footer = footer.clone();
                let seed = seed_at(&TABLE_ID, region.offset);
                let padded = &mut hostile[start..region.end() as usize];
                match choose {
                    0 => seal_partition(padded, seed),
                    1 => footer.top_index.crc = seed.checksum(padded),
                    _ => footer.properties.crc = seed.checksum(padded),
                }
                footer.encode(&mut hostile[footer_at..], &TABLE_ID);
                let io = Memory::of(hostile);
                for kept in [Kept::Pinned, Kept::Cached(1 << 20)] {
                    let Ok(table) = open_as(kept, &io, &meta, None) else {
                        continue;
                    };
                    opened += 1;
                    // Answers may be wrong now: nothing tells these bytes from
                    // ones the engine wrote. They must not be fatal.
                    let counters = ReadCounters::default();
                    for (key, ..) in entries.iter().step_by(9) {
                        if let Err(error) = get(&io, &table, &counters, key, SEQ_MAX) {
                            assert_damage(&error);
                        }
                    }
                    let mut iter = walk(table);
                    if let Err(error) = collect(&io, &mut iter) {
                        assert_damage(&error);
                    }
                }
            }
        }
    }
    assert!(opened > 0);
}
