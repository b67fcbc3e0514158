//! Compressed blocks: round trips, how full units get, and hostile bytes.

use super::super::build::Finished;
use super::*;

const LZ4: Layout = layout(Compression::Lz4);

/// All that this build can do.
const BUILT: &[Layout] = &[
    LZ4,
    #[cfg(feature = "zstd")]
    layout(Compression::Zstd),
];

const fn layout(compression: Compression) -> Layout {
    Layout { restart_interval: 16, run_bytes: 384, buckets_percent: 133, compression }
}

/// Finished blocks, each with its last entry's key and tag and the next one's key.
type Blocks = Vec<(Vec<u8>, (Vec<u8>, Tag), Option<Vec<u8>>)>;

/// All entries, in as many blocks as they take.
fn blocks_of(layout: Layout, entries: &[Entry]) -> Blocks {
    let mut builder = BlockBuilder::new(layout);
    let mut blocks = Blocks::new();
    let mut finish = |builder: &mut BlockBuilder| {
        let Finished { extent, last, next, .. } = builder.finish(seed());
        blocks.push((extent.to_vec(), (last.0.to_vec(), last.1), next.map(<[u8]>::to_vec)));
        builder.reset();
    };
    for (key, tag, value) in entries {
        while !builder.add(key, *tag, value, hash(key)) {
            finish(&mut builder);
        }
        assert_eq!(builder.last(), Some((&key[..], *tag)));
    }
    while !builder.is_empty() {
        finish(&mut builder);
    }
    blocks
}

fn is_compressed(extent: &[u8]) -> bool {
    extent[extent.len() - 11] != Compression::None as u8
}

/// Every entry is found, and in order; a block has several units only for one
/// entry. Returns the number of units.
fn check(layout: Layout, entries: &[Entry]) -> usize {
    let mut rest = entries;
    let mut units = 0;
    let mut plain = Vec::new();
    for (extent, last, next) in blocks_of(layout, entries) {
        units += extent.len() / UNIT;
        let block = Block::decode(&extent, seed(), &mut plain).expect("sound");
        assert_eq!(block.bytes.as_ptr() == extent.as_ptr(), !is_compressed(&extent));
        let mut cursor = BlockCursor::new();
        let mut count = 0;
        cursor.seek_to_first(block).expect("sound");
        while let Some(entry) = seen(block, &cursor) {
            assert_eq!(entry, rest[count]);
            let (key, tag, value) = entry;
            let found = block.get(&key, hash(&key), tag.seq()).expect("sound");
            let Lookup::Found { tag: newest, value: place } = found else { panic!("{found:?}") };
            assert_eq!((newest, block.bytes(place)), (tag, &value[..]));
            cursor.next(block).expect("sound");
            count += 1;
        }
        assert_eq!(extent.len() > UNIT, extent.len() > UNIT && count == 1);
        assert_eq!((&rest[count - 1].0, rest[count - 1].1), (&last.0, last.1));
        rest = &rest[count..];
        if let Some(next) = next {
            assert_eq!(rest[0].0, next);
        }
    }
    assert!(rest.is_empty());
    units
}

/// xorshift64*: every run is the same.
fn random_bytes(state: &mut u64, len: usize) -> Vec<u8> {
    let byte = |_| {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    (0..len).map(byte).collect()
}

/// `count` values of so many bytes, of which so many percent are random.
fn values(count: u64, len: usize, random_percent: usize) -> Vec<Entry> {
    let mut state = 42;
    let entry = |i: u64| {
        let mut value = random_bytes(&mut state, len * random_percent / 100);
        value.resize(len, b'.');
        (format!("user{i:020}").into_bytes(), put(i + 1), value)
    };
    (0..count).map(entry).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_entries_come_back(
        shapes in proptest::collection::vec((0..60usize, 0..100usize, 0..12u8), 1..400),
        restart_interval in 1..20usize,
        run_bytes in 1..2000usize,
        built in prop::sample::select(BUILT),
    ) {
        let mut state = 7;
        let entry = |(i, &(key_bytes, random_percent, long)): (usize, &(usize, usize, u8))| {
            let len = [300, 9000, 65_536][usize::from(long == 0) + usize::from(long == 0 && i % 3 == 0)];
            let len = if long > 3 { key_bytes * 4 } else { len };
            let mut value = random_bytes(&mut state, len * random_percent / 100);
            value.resize(len, 0);
            let mut key = vec![b'k'; key_bytes * if long == 1 { 900 } else { 1 }];
            key.extend_from_slice(&(i as u32).to_be_bytes());
            (key, put(i as u64 + 1), value)
        };
        let mut entries: Vec<Entry> = shapes.iter().enumerate().map(entry).collect();
        entries.sort();
        check(Layout { restart_interval, run_bytes, ..built }, &entries);
    }

    #[test]
    fn hostile_compressed_bytes(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        random_percent in 0..60usize,
        lengths in proptest::option::of((0..8usize, any::<u8>())),
        built in prop::sample::select(BUILT),
    ) {
        let entries = values(300, 100, random_percent);
        let (mut bytes, ..) = blocks_of(built, &entries).swap_remove(1);
        prop_assert!(is_compressed(&bytes));
        let stored = content_bytes(&bytes);
        for (place, byte) in changes {
            bytes[place.index(stored)] = byte;
        }
        if let Some((i, byte)) = lengths {
            // Of what is stored, and of the content.
            bytes[UNIT - TRAILER_BYTES + i % 4 + i / 4 * 8] = byte;
        }
        let keys: Vec<Vec<u8>> = entries.iter().step_by(7).map(|e| e.0.clone()).collect();
        exercise(&mut bytes, &keys);
    }
}

#[test]
fn half_compressible_values_take_little_more_than_half_the_units() {
    for &layout in BUILT {
        let entries = values(5000, 100, 50);
        let plain = check(Layout::default(), &entries);
        let compressed = check(layout, &entries);
        assert!(compressed * 100 < plain * 68, "{compressed} of {plain}");
        // Units are well filled: what is stored is at most a tenth less than they are.
        let blocks = blocks_of(layout, &entries);
        let stored: usize = blocks.iter().map(|(extent, ..)| content_bytes(extent)).sum();
        assert!(stored * 10 > compressed * UNIT * 9, "{stored} in {compressed} units");
    }
}

#[test]
fn what_does_not_compress_is_stored_as_it_is() {
    for &layout in BUILT {
        let entries = values(2000, 390, 100);
        let plain = check(Layout::default(), &entries);
        let blocks = blocks_of(layout, &entries);
        // zstd gains a little from the keys.
        assert!(
            layout.compression != LZ4.compression
                || blocks.iter().all(|(extent, ..)| !is_compressed(extent))
        );
        assert!(check(layout, &entries) <= plain + 1);
    }
}

#[test]
fn large_entries_are_compressed_when_that_saves_units() {
    for &layout in BUILT {
        for (random_percent, compressed) in [(0, true), (50, true), (99, false)] {
            let entries = values(5, 16_000, random_percent);
            let blocks = blocks_of(layout, &entries);
            let all = blocks.iter().all(|(extent, ..)| is_compressed(extent) == compressed);
            assert!(all, "{random_percent} %");
            let plain = check(Layout::default(), &entries);
            assert_eq!(check(layout, &entries) < plain, compressed);
        }
    }
}

/// Blocks do not depend on what the builder did before they were begun, but
/// for the guess of how much will fit.
#[test]
fn data_that_changes_is_followed() {
    for &layout in BUILT {
        let mut entries = Vec::new();
        for (part, random_percent) in [100, 0, 60, 0, 100, 30].into_iter().enumerate() {
            for (key, tag, value) in values(600, 150, random_percent) {
                entries.push(([&[part as u8][..], &key].concat(), tag, value));
            }
        }
        let compressed = check(layout, &entries);
        let plain = check(Layout::default(), &entries);
        assert!(compressed * 100 < plain * 65, "{compressed} of {plain}");
    }
}

#[test]
fn lengths_are_checked_before_memory_is_taken() {
    for &layout in BUILT {
        let (sound, ..) = blocks_of(layout, &values(300, 100, 20)).swap_remove(0);
        assert!(is_compressed(&sound));
        let refused = |at: usize, value: u32| {
            let mut hostile = sound.clone();
            hostile[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let crc = seed().checksum(&hostile[..UNIT - 4]);
            hostile[UNIT - 4..].copy_from_slice(&crc.to_le_bytes());
            let mut plain = Vec::new();
            let refused =
                Block::decode(&hostile, seed(), &mut plain).is_err_and(|e| !e.unsupported);
            refused && plain.capacity() <= BLOCK_BYTES_MAX
        };
        let content = u32::from_le_bytes([sound[4088], sound[4089], sound[4090], sound[4091]]);
        for length in [0, 1, content - 1, content + 1, BLOCK_BYTES_MAX as u32 + 1, u32::MAX] {
            assert!(refused(UNIT - 8, length), "{length}");
        }
        for length in [0, 1, UNIT as u32, u32::MAX] {
            assert!(refused(UNIT - TRAILER_BYTES, length), "{length}");
        }
    }
}

#[test]
fn every_damaged_byte_of_a_compressed_block_is_noticed() {
    for &layout in BUILT {
        let (bytes, ..) = blocks_of(layout, &values(300, 100, 20)).swap_remove(0);
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 0x10;
            assert!(Block::decode(&damaged, seed(), &mut Vec::new()).is_err());
        }
    }
}

/// A block of one key whose value is 600 bytes of `v`, with this as what is
/// stored.
fn with_stored(compression: Compression, stored: &[u8], content_bytes: usize) -> Vec<u8> {
    let mut bytes = stored.to_vec();
    bytes.resize(UNIT - TRAILER_BYTES, 0);
    bytes.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[TYPE_DATA, compression as u8, 0, 0]);
    bytes.extend_from_slice(&(content_bytes as u32).to_le_bytes());
    let crc = seed().checksum(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

#[cfg(not(feature = "zstd"))]
#[test]
fn zstd_names_the_feature_it_takes() {
    let bytes = with_stored(Compression::Zstd, b"a frame", 600);
    let error = Block::decode(&bytes, seed(), &mut Vec::new()).err().expect("not in this build");
    assert!(error.unsupported && error.reason.contains("feature `zstd`"), "{error:?}");
    assert!(!error.reason.contains("newer"), "{error:?}");
}

#[cfg(feature = "zstd")]
mod zstd {
    use super::*;

    /// What the reference implementation's own tool made of
    /// [`content`] (`zstd -3 --no-check`).
    const FRAME: &[u8] = &[
        0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0xd5, 0x00, 0x00, 0x88, 0x00, 0x03, 0xd8, 0x04, 0x01,
        0x01, 0x00, 0x6b, 0x65, 0x79, 0x76, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x02, 0x00, 0x54,
        0x40, 0x91, 0x16, 0x18, 0x01,
    ];

    fn content() -> Vec<u8> {
        let value = vec![b'v'; 600];
        let (bytes, _) = build(&[(b"key".to_vec(), put(1), value)]);
        let len = content_bytes(&bytes);
        bytes[..len].to_vec()
    }

    #[test]
    fn frames_of_others_are_read() {
        let content = content();
        let bytes = with_stored(Compression::Zstd, FRAME, content.len());
        let mut plain = Vec::new();
        let block = Block::decode(&bytes, seed(), &mut plain).expect("sound");
        assert_eq!(block.content(), content);
    }

    /// However much a frame would become, no more is written than the block says
    /// it is, and that has a maximum.
    #[test]
    fn frames_stay_within_what_the_block_states() {
        let mut packer = super::super::super::zstd::Packer::new();
        let mut bomb = Vec::new();
        packer.pack(&vec![0; 64 << 20], &mut bomb);
        assert!(bomb.len() < 3 * UNIT, "{}", bomb.len());
        bomb.resize(4 * UNIT - TRAILER_BYTES, 0);
        let mut plain = Vec::new();
        for stated in [600, BLOCK_BYTES_MAX, BLOCK_BYTES_MAX + 1, 64 << 20] {
            let refused = compress::decompress(Compression::Zstd, &bomb, &mut plain, stated);
            assert!(refused.is_err_and(|error| !error.unsupported));
            assert!(plain.is_empty() && plain.capacity() <= BLOCK_BYTES_MAX);
        }
    }

    #[test]
    fn values_take_less_than_with_lz4() {
        let entries = values(3000, 100, 20);
        let units = |layout| check(layout, &entries);
        assert!(units(layout(Compression::Zstd)) < units(LZ4));
    }
}
