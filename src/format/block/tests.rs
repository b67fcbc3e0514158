//! Blocks: lookups and walks against a sorted list, damage, and hostile
//! contents under a right checksum.

mod compressed;

use proptest::prelude::*;

use super::build::seal;
use super::*;
use crate::base::seq::{Kind, SEQ_MAX};

type Entry = (Vec<u8>, Tag, Vec<u8>);

fn seed() -> Seed {
    Seed::of(b"a table").with_u64(4096)
}

fn put(seq: SeqNo) -> Tag {
    Tag::new(seq, Kind::Put)
}

/// A hash of the key: FNV-1a.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A block of as many of the entries as fit, and how many those are.
fn build(entries: &[Entry]) -> (Vec<u8>, usize) {
    build_with(Layout::default(), entries)
}

fn build_with(layout: Layout, entries: &[Entry]) -> (Vec<u8>, usize) {
    let mut builder = BlockBuilder::new(layout);
    let fitting =
        entries.iter().take_while(|(key, tag, value)| builder.add(key, *tag, value, hash(key)));
    let count = fitting.count();
    (builder.finish(seed()).extent.to_vec(), count)
}

/// Entries in order, with many versions and long common prefixes.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let key = prop_oneof![
        proptest::collection::vec(0..3u8, 0..4),
        proptest::collection::vec(prop_oneof![Just(b'a'), Just(0), Just(0xff)], 0..40),
    ];
    let kind = prop_oneof![Just(Kind::Put), Just(Kind::Delete)];
    let entry = (key, 0..6u64, kind, proptest::collection::vec(any::<u8>(), 0..50));
    proptest::collection::vec(entry, 1..120).prop_map(|mut entries| {
        entries.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        entries.dedup_by(|a, b| a.0 == b.0 && a.1 == b.1);
        let entry = |(key, seq, kind, value)| (key, Tag::new(seq, kind), value);
        entries.into_iter().map(entry).collect()
    })
}

fn seen(block: Block<'_>, cursor: &BlockCursor) -> Option<Entry> {
    let value = || block.bytes(cursor.value()).to_vec();
    cursor.is_valid().then(|| (cursor.key().to_vec(), cursor.tag(), value()))
}

fn sought_keys(entries: &[Entry]) -> Vec<Vec<u8>> {
    let mut keys = vec![Vec::new(), vec![0xff; 50]];
    for (key, ..) in entries {
        keys.push(key.clone());
        keys.push([&key[..], &[0]].concat());
        keys.push(key[..key.len() / 2].to_vec());
    }
    keys
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn answers_as_a_sorted_list_does(
        entries in entries(),
        restart_interval in 1..20usize,
        run_bytes in 1..600usize,
        buckets_percent in prop_oneof![Just(0), Just(10), Just(133), Just(300)],
    ) {
        compare(Layout::default(), &entries);
        let layout =
            Layout { restart_interval, run_bytes, buckets_percent, ..Layout::default() };
        compare(layout, &entries);
    }

    #[test]
    fn hostile_contents(
        entries in entries(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (mut bytes, _) = build(&entries);
        let content = content_bytes(&bytes);
        for (place, byte) in changes {
            // Half of the changes go where restart points, buckets and counts are.
            let near_the_end = content - 1 - place.index(content.min(120));
            let at = if byte % 2 == 0 { place.index(content) } else { near_the_end };
            bytes[at] = byte;
        }
        exercise(&mut bytes, &sought_keys(&entries));
    }

    #[test]
    fn random_contents(content in proptest::collection::vec(0..40u8, 0..300)) {
        let mut bytes = content;
        bytes.extend_from_slice(&[0, 0, 0, 0, 1, 0]);
        let content_bytes = bytes.len();
        seal(&mut bytes, content_bytes, Compression::None, seed());
        exercise(&mut bytes, &[vec![], vec![1, 2], vec![9; 30]]);
    }
}

fn content_bytes(block: &[u8]) -> usize {
    let trailer = block.last_chunk::<TRAILER_BYTES>().expect("a whole block");
    u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]) as usize
}

/// Lookups and walks over a block of these entries, against the list itself.
fn compare(layout: Layout, entries: &[Entry]) {
    let (bytes, count) = build_with(layout, entries);
    let entries = &entries[..count];
    assert_eq!(bytes.len(), UNIT);
    let mut plain = Vec::new();
    let block = Block::decode(&bytes, seed(), &mut plain).expect("a sound block");
    let block = Block::verified(&bytes, block.shape());
    let mut cursor = BlockCursor::new();

    cursor.seek_to_first(block).expect("sound");
    for entry in entries {
        assert_eq!(seen(block, &cursor).as_ref(), Some(entry));
        cursor.next(block).expect("sound");
    }
    assert!(!cursor.is_valid());
    cursor.seek_to_last(block).expect("sound");
    for entry in entries.iter().rev() {
        assert_eq!(seen(block, &cursor).as_ref(), Some(entry));
        cursor.prev(block).expect("sound");
    }
    assert!(!cursor.is_valid());

    for key in sought_keys(entries) {
        for bound in 0..7 {
            let tag = Tag::visible_at(bound);
            let at =
                entries.partition_point(|e| compare_internal((&e.0, e.1), (&key, tag)).is_lt());
            cursor.seek(block, &key, tag).expect("sound");
            assert_eq!(seen(block, &cursor).as_ref(), entries.get(at));
            cursor.seek_before(block, &key, tag).expect("sound");
            assert_eq!(seen(block, &cursor).as_ref(), at.checked_sub(1).map(|i| &entries[i]));

            let expected = entries.get(at).filter(|e| e.0 == key).map(|e| (e.1, &e.2[..]));
            match block.get(&key, hash(&key), bound).expect("sound") {
                Lookup::Found { tag, value } => {
                    assert_eq!(Some((tag, block.bytes(value))), expected);
                }
                missed => {
                    assert_eq!(expected, None);
                    let any = entries.iter().any(|e| e.0 == key);
                    assert_eq!(missed == Lookup::OnlyNewer, any);
                }
            }
        }
    }
}

/// Gives the block a right checksum and does everything one can do with it.
fn exercise(bytes: &mut [u8], keys: &[Vec<u8>]) {
    let crc_at = bytes.len() - 4;
    let crc = seed().checksum(&bytes[..crc_at]);
    bytes[crc_at..].copy_from_slice(&crc.to_le_bytes());
    let mut plain = Vec::new();
    let Ok(block) = Block::decode(bytes, seed(), &mut plain) else {
        return;
    };
    let len = block.bytes.len();
    assert!(len <= BLOCK_BYTES_MAX);
    let mut cursor = BlockCursor::new();
    let mut steps = 0;
    let mut done = cursor.seek_to_first(block);
    while done.is_ok() && cursor.is_valid() {
        assert!(cursor.key().len() <= KEY_BYTES_MAX.min(len));
        steps += 1;
        done = cursor.next(block);
    }
    let mut done = cursor.seek_to_last(block);
    while done.is_ok() && cursor.is_valid() {
        assert!(cursor.key().len() <= KEY_BYTES_MAX.min(len));
        done = cursor.prev(block);
    }
    assert!(steps <= len);
    for key in keys {
        for bound in [0, 3, SEQ_MAX] {
            if let Ok(Lookup::Found { value, .. }) = block.get(key, hash(key), bound) {
                assert!(value.end <= len);
            }
            if cursor.seek(block, key, Tag::visible_at(bound)).is_err() {
                assert!(!cursor.is_valid());
            }
            if cursor.seek_before(block, key, Tag::visible_at(bound)).is_err() {
                assert!(!cursor.is_valid());
            }
        }
    }
}

#[test]
fn a_block_is_filled_to_its_last_byte() {
    // One entry: three one- or two-byte lengths, tag, value, a restart point.
    let room = UNIT - TRAILER_BYTES - COUNTS_BYTES - 2 - (1 + 1 + 2 + TAG_BYTES + 3);
    for (value_bytes, units) in [(room, 1), (room + 1, 2)] {
        let mut builder = BlockBuilder::new(Layout::default());
        assert!(builder.add(b"key", put(1), &vec![7; value_bytes], 0));
        assert!(!builder.add(b"key", put(0), b"", 0));
        assert_eq!(builder.finish(seed()).extent.len(), units * UNIT);
    }
    let mut builder = BlockBuilder::new(Layout::default());
    let small = 1 + 1 + 1 + TAG_BYTES;
    assert!(builder.add(b"", put(9), b"", 0));
    assert!(builder.add(b"", put(8), &vec![7; room + 3 - 2 * small - 1 + 1], 0));
    assert!(!builder.add(b"", put(7), b"x", 0));
    assert_eq!(builder.finish(seed()).extent.len(), UNIT);
}

#[test]
fn the_largest_entry_has_a_block_of_its_own() {
    let (key, value) = (vec![3; KEY_BYTES_MAX], vec![5; INLINE_VALUE_BYTES_MAX]);
    let mut builder = BlockBuilder::new(Layout::default());
    assert!(builder.add(&key, put(SEQ_MAX), &value, 0));
    assert!(!builder.add(&key, put(1), b"", 0));
    let bytes = builder.finish(seed()).extent.to_vec();
    assert_eq!(bytes.len(), BLOCK_BYTES_MAX);
    builder.reset();
    assert!(builder.is_empty());
    assert_eq!(builder.last(), Some((&key[..], put(SEQ_MAX))));

    let mut plain = Vec::new();
    let block = Block::decode(&bytes, seed(), &mut plain).expect("sound");
    let found = block.get(&key, 0, SEQ_MAX).expect("sound");
    let Lookup::Found { value: place, .. } = found else { panic!("{found:?}") };
    assert_eq!(block.bytes(place), value);
    assert_eq!(block.get(&key[1..], 0, SEQ_MAX), Ok(Lookup::Absent));
}

#[test]
fn every_damaged_byte_is_noticed() {
    let entries: Vec<Entry> = (0..20u8).map(|i| (vec![i], put(9), vec![i; 9])).collect();
    let (bytes, _) = build(&entries);
    assert!(Block::decode(&bytes, Seed::of(b"a table").with_u64(8192), &mut Vec::new()).is_err());
    for i in 0..bytes.len() {
        for pattern in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[i] ^= pattern;
            let error = Block::decode(&damaged, seed(), &mut Vec::new()).err().expect("damage");
            assert!(!error.unsupported);
        }
    }
    for len in [0, 1, 15, 16, 4095] {
        assert!(Block::decode(&bytes[..len], seed(), &mut Vec::new()).is_err());
    }
}

#[test]
fn what_only_newer_versions_know_is_unsupported() {
    for at in [UNIT - 12, UNIT - 11, UNIT - 10, UNIT - 9] {
        let (mut bytes, _) = build(&[(b"k".to_vec(), put(1), vec![])]);
        bytes[at] = 0x7f;
        let crc = seed().checksum(&bytes[..UNIT - 4]);
        bytes[UNIT - 4..].copy_from_slice(&crc.to_le_bytes());
        assert!(
            Block::decode(&bytes, seed(), &mut Vec::new()).is_err_and(|error| error.unsupported),
            "{at}"
        );
    }
    let merge = Tag::from_u64(1 << 8 | 4);
    let (bytes, _) = build(&[(b"k".to_vec(), merge, vec![])]);
    let mut plain = Vec::new();
    let block = Block::decode(&bytes, seed(), &mut plain).expect("sound");
    let error = block.get(b"k", 0, 5).expect_err("an unknown kind");
    assert!(error.unsupported && error.reason.contains("kind 4"), "{error:?}");
    assert!(BlockCursor::new().seek_to_first(block).is_err_and(|error| error.unsupported));
}

#[test]
fn range_tombstones_are_no_entries() {
    let (bytes, _) = build(&[(b"k".to_vec(), Tag::new(1, Kind::RangeDelete), vec![])]);
    let mut plain = Vec::new();
    let block = Block::decode(&bytes, seed(), &mut plain).expect("sound");
    let error = block.get(b"k", 0, 5).expect_err("it is elsewhere");
    assert!(!error.unsupported && error.reason.contains("range tombstone"), "{error:?}");
}

#[test]
fn a_key_shares_no_more_than_there_is() {
    let entries = [(b"apple".to_vec(), put(2), vec![]), (b"apply".to_vec(), put(1), vec![])];
    let (mut bytes, _) = build(&entries);
    // The second entry follows three lengths, a tag and five bytes of key.
    assert_eq!(bytes[16], 4);
    bytes[16] = 6;
    let crc = seed().checksum(&bytes[..UNIT - 4]);
    bytes[UNIT - 4..].copy_from_slice(&crc.to_le_bytes());
    let mut plain = Vec::new();
    let block = Block::decode(&bytes, seed(), &mut plain).expect("a right checksum");
    assert!(block.get(b"apply", 0, 9).is_err_and(|error| error.offset == 16));
    let mut cursor = BlockCursor::new();
    cursor.seek_to_first(block).expect("the first entry is sound");
    assert!(cursor.next(block).is_err_and(|error| error.offset == 16));
    assert!(!cursor.is_valid());
}

/// A lookup takes it for granted: it would miss the second key.
#[test]
fn a_key_shares_no_less_than_there_is() {
    let mut block = Vec::new();
    for (shared, suffix, seq) in [(0, "apple", 2), (2, "ply", 1)] {
        block.extend([shared, suffix.len() as u8, 0]);
        block.extend(put(seq).to_u64().to_le_bytes());
        block.extend(suffix.bytes());
    }
    // One restart point, no buckets.
    block.extend([0, 0, 0, 0, 1, 0]);
    let content_bytes = block.len();
    seal(&mut block, content_bytes, Compression::None, seed());
    let mut plain = Vec::new();
    let block = Block::decode(&block, seed(), &mut plain).expect("a right checksum");
    let checked = block.check(hash, |_, _, _| ());
    assert!(checked.is_err_and(|error| error.offset == 16 && !error.unsupported));
}

/// These bytes are on disks: they must not change.
#[test]
fn known_answer() {
    let entries = [
        (b"apple".to_vec(), put(2), b"red".to_vec()),
        (b"apply".to_vec(), Tag::new(1, Kind::Delete), vec![]),
    ];
    let (bytes, _) = build(&entries);
    let mut expected = b"\0\x05\x03\x01\x02\0\0\0\0\0\0applered".to_vec();
    expected.extend_from_slice(b"\x04\x01\0\x02\x01\0\0\0\0\0\0y");
    expected.extend_from_slice(b"\0\0\0\0\x01\0");
    assert_eq!(&bytes[..expected.len()], &expected[..]);
    assert!(bytes[expected.len()..UNIT - 16].iter().all(|&byte| byte == 0));
    assert_eq!(&bytes[UNIT - 16..UNIT - 4], b"\x25\0\0\0\x01\0\0\0\x25\0\0\0");
    assert_eq!(bytes[UNIT - 4..], [22, 211, 63, 18]);
}

/// The hash index of these bytes is on disks, too.
#[test]
fn known_answer_with_a_hash_index() {
    let mut builder = BlockBuilder::new(Layout::default());
    for i in 0..17u64 {
        let key = if i < 15 { [b'a'].to_vec() } else { vec![b'a' + i as u8] };
        assert!(builder.add(&key, put(40 - i), b"", KNOWN_HASHES[i.saturating_sub(14) as usize]));
    }
    let bytes = builder.finish(seed()).extent.to_vec();
    // Three keys: 'a' and 'p' in the first run, 'q' in the second.
    let content = content_bytes(&bytes);
    assert_eq!(&bytes[content - 7..content], [0, 1, 254, 3, 0, 2, 0]);
    let mut plain = Vec::new();
    let block = Block::decode(&bytes, seed(), &mut plain).expect("sound");
    let found = |key: &[u8], hash| matches!(block.get(key, hash, 99), Ok(Lookup::Found { .. }));
    for (key, hash) in [b"a", b"p", b"q"].into_iter().zip(KNOWN_HASHES) {
        assert!(found(key, hash));
    }
    // Its bucket says that there is none, or names another run.
    assert!(!found(b"a", 3));
    assert!(!found(b"a", KNOWN_HASHES[2]));
}

const KNOWN_HASHES: [u64; 3] = [0, 2, 1];

/// A hash index that lies makes lookups miss, or fail; nothing worse.
#[test]
fn every_damaged_bucket_is_harmless() {
    let entries: Vec<Entry> = (0..40u8).map(|i| (vec![i], put(9), vec![i; 9])).collect();
    let (bytes, count) = build(&entries);
    assert_eq!(count, 40);
    let content = content_bytes(&bytes);
    let buckets = content - COUNTS_BYTES - 53..content - COUNTS_BYTES;
    let keys: Vec<Vec<u8>> = entries.iter().map(|e| e.0.clone()).collect();
    for at in buckets {
        for bucket in 0..=255 {
            let mut hostile = bytes.clone();
            hostile[at] = bucket;
            exercise(&mut hostile, &keys);
            let mut plain = Vec::new();
            let block =
                Block::decode(&hostile, seed(), &mut plain).expect("buckets are looked at later");
            for key in &keys {
                match block.get(key, hash(key), 9) {
                    Ok(Lookup::Found { value, .. }) => assert_eq!(block.bytes(value), [key[0]; 9]),
                    Ok(_) => assert_ne!(bucket, BUCKET_COLLISION),
                    Err(error) => assert!((3..254).contains(&bucket) && !error.unsupported),
                }
            }
        }
    }
    for at in content - COUNTS_BYTES..content {
        for byte in 0..=255 {
            let mut hostile = bytes.clone();
            hostile[at] = byte;
            exercise(&mut hostile, &keys);
        }
    }
}
