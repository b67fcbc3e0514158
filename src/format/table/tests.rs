//! Footer and properties: round trips, damage, and hostile fields under a
//! right checksum.

use super::*;

const ID: [u8; 16] = [9; 16];
const OFFSET: u64 = 40 * UNIT_U64;

fn footer() -> Footer {
    let partitions = Region { offset: 30 * UNIT_U64, bytes: 2 * UNIT_U64, crc: 0 };
    let top_index = Region { offset: 32 * UNIT_U64, bytes: 7 * UNIT_U64, crc: 2 };
    let properties = Region { offset: 39 * UNIT_U64, bytes: 1, crc: 3 };
    Footer {
        entries: 77,
        compression: Compression::Lz4,
        filter_format: FilterFormat::BinaryFuse8,
        partitions,
        top_index,
        properties,
    }
}

/// A footer with a right checksum, after a change.
fn changed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut unit = vec![0; UNIT];
    footer().encode(&mut unit, &ID);
    change(&mut unit);
    let crc = seed_at(&ID, OFFSET).checksum(&unit[..FOOTER_CRC_OFFSET]);
    unit[FOOTER_CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
    unit
}

#[test]
fn footer_round_trips_where_it_belongs() {
    let unit = changed(|_| ());
    assert_eq!(Footer::decode(&unit, &ID, OFFSET), Ok(footer()));
    assert!(Footer::decode(&unit, &ID, OFFSET + UNIT_U64).is_err());
    assert!(Footer::decode(&unit, &[8; 16], OFFSET).is_err());
    assert!(Footer::decode(&unit[1..], &ID, OFFSET).is_err());
}

#[test]
fn every_damaged_byte_of_the_footer_is_noticed() {
    let unit = changed(|_| ());
    for i in 0..UNIT {
        for pattern in [0x01, 0x80, 0xff] {
            let mut damaged = unit.clone();
            damaged[i] ^= pattern;
            assert!(Footer::decode(&damaged, &ID, OFFSET).is_err(), "byte {i}");
        }
    }
}

#[test]
fn hostile_footers() {
    for (start, bytes) in [
        (40, &[0xff; 8][..]),
        (48, &[0xff; 8]),
        (60, &[1]),
        (64, &[0xff; 16]),
        (88, &[0xff; 16]),
        (40, &[1]),
        (40, &[0; 8]),
        (48, &[0; 8]),
        (48, &8191u64.to_le_bytes()),
        (56, &[1]),
        (48, &9000u64.to_le_bytes()),
        (72, &9000u64.to_le_bytes()),
        (96, &9000u64.to_le_bytes()),
        (112, &[1]),
        (4091, &[1]),
    ] {
        let hostile = changed(|unit| unit[start..start + bytes.len()].copy_from_slice(bytes));
        let error = Footer::decode(&hostile, &ID, OFFSET).expect_err("hostile");
        assert!(!error.unsupported, "{error:?}");
    }
    for byte in [24, 28, 29, 30, 31] {
        let newer = changed(|unit| unit[byte] = 0x42);
        let error = Footer::decode(&newer, &ID, OFFSET).expect_err("newer");
        assert!(error.unsupported && error.reason.contains("newer ouro"), "{error:?}");
    }
}

#[test]
fn tables_with_zstd_name_the_feature() {
    let zstd = changed(|unit| unit[29] = 2);
    let decoded = Footer::decode(&zstd, &ID, OFFSET);
    if cfg!(feature = "zstd") {
        assert_eq!(decoded, Ok(Footer { compression: Compression::Zstd, ..footer() }));
    } else {
        let error = decoded.expect_err("not in this build");
        assert!(error.unsupported && error.reason.contains("feature `zstd`"), "{error:?}");
    }
}

fn properties() -> Properties {
    Properties {
        entries: 5,
        tombstones: 2,
        smallest: (*b"a").into(),
        largest: (*b"zz").into(),
        seq_min: 3,
        seq_max: SEQ_MAX,
        key_bytes: 100,
        value_bytes: 0,
        shard: 7,
        epoch: 4,
        old_versions: 3,
        hidden: 640,
        dense_windows: 1,
        written_s: 1 << 31,
        partition_blocks: vec![3, 1, 70_000],
        ranges: RangeTombstones::default(),
    }
}

/// With range tombstones.
fn with_ranges() -> Properties {
    let mut ranges = RangeTombstones::default();
    ranges.insert(b"B", b"c", 9);
    ranges.insert(b"x", b"zzz\0", 2);
    let mut properties = properties();
    properties.add_ranges(&ranges);
    properties
}

#[test]
fn properties_round_trip() {
    let bytes = properties().encode();
    assert_eq!(Properties::decode(&bytes), Ok(properties()));
    for len in 0..bytes.len() {
        assert!(Properties::decode(&bytes[..len]).is_err(), "{len}");
    }
    let twice = [&bytes[..], &bytes[..14]].concat();
    assert!(Properties::decode(&twice).is_err_and(|error| error.reason.contains("twice")));
}

#[test]
fn range_tombstones_are_a_property_that_must_be_understood() {
    let properties = with_ranges();
    assert_eq!((&*properties.smallest, &*properties.largest), (&b"B"[..], &b"zzz"[..]));
    assert_eq!((properties.seq_min, properties.seq_max), (2, SEQ_MAX));
    let bytes = properties.encode();
    assert_eq!(Properties::decode(&bytes), Ok(properties.clone()));
    let value_bytes = ranges::encode(&properties.ranges).len();
    assert_eq!(bytes[bytes.len() - value_bytes - 6..][..2], [15, 0x80]);
    // They are within what the table says of itself.
    for change in [
        &(|p: &mut Properties| p.smallest = (*b"C").into()) as &dyn Fn(&mut Properties),
        &|p| p.largest = (*b"zz").into(),
        &|p| p.seq_min = 3,
        &|p| p.seq_max = 8,
    ] {
        let mut hostile = properties.clone();
        change(&mut hostile);
        assert!(Properties::decode(&hostile.encode()).is_err(), "{hostile:?}");
    }
}

#[test]
fn unknown_properties_are_skipped_unless_they_must_be_understood() {
    for number in [0, 99, 0x7fff] {
        let mut bytes = properties().encode();
        bytes.extend_from_slice(&u16::to_le_bytes(number));
        bytes.extend_from_slice(&[2, 0, 0, 0, 1, 1]);
        assert_eq!(Properties::decode(&bytes), Ok(properties()));
        let at = bytes.len() - 8;
        bytes[at + 1] |= 0x80;
        let error = Properties::decode(&bytes).expect_err("must be understood");
        assert!(error.unsupported && error.offset == at as u64, "{error:?}");
    }
    // The bit on a known one changes nothing.
    let mut bytes = properties().encode();
    bytes[1] |= 0x80;
    assert_eq!(Properties::decode(&bytes), Ok(properties()));
}

#[test]
fn hostile_properties() {
    let sound = properties().encode();
    let mut refused = 0;
    for i in 0..sound.len() {
        for pattern in 1..=255 {
            let mut hostile = sound.clone();
            hostile[i] ^= pattern;
            refused += usize::from(Properties::decode(&hostile).is_err());
        }
    }
    assert!(refused > 60 * 200, "{refused}");
    for change in [
        &(|p: &mut Properties| p.entries = 0) as &dyn Fn(&mut Properties),
        &|p| p.tombstones = 6,
        &|p| p.smallest = (*b"zzz").into(),
        &|p| p.old_versions = p.entries,
        &|p| p.dense_windows = p.tombstones + 1,
        &|p| p.seq_min = SEQ_MAX + 1,
        &|p| p.seq_max = SEQ_MAX + 1,
        &|p| p.largest = vec![0xff; KEY_BYTES_MAX + 1].into(),
        // Sums of such counts over many tables would overflow.
        &|p| p.entries = ENTRIES_MAX + 1,
        &|p| p.hidden = u64::MAX,
        &|p| p.key_bytes = u64::MAX,
        &|p| p.value_bytes = BYTES_MAX + 1,
        &|p| p.partition_blocks.clear(),
        &|p| p.partition_blocks[1] = 0,
    ] {
        let mut hostile = properties();
        change(&mut hostile);
        assert!(Properties::decode(&hostile.encode()).is_err(), "{hostile:?}");
    }
}
