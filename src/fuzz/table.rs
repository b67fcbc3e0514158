//! The parts of a table around its blocks.

use super::{EPOCH, ERROR_BYTES, TABLE, padded, place, trimmed, within};
use crate::base::limits::{KEY_BYTES_MAX, UNIT, UNIT_U64, round_up_u64};
use crate::base::ranges::{Fragment, RangeTombstones};
use crate::base::seq::{Kind, SEQ_MAX, Tag};
use crate::format::block::Compression;
use crate::format::filter::Filter;
use crate::format::header::ByteReader;
use crate::format::record::u32_at;
use crate::format::table::{
    FilterFormat, Footer, Index, IndexBuilder, Partition, PartitionBuilder, Properties, Region,
    TopIndex, seal_partition, seed_at,
};

/// The type of the property with range tombstones.
const RANGES: u16 = 0x8000 | 15;

/// A partition's header.
const PARTITION_HEADER_BYTES: usize = 24;

/// What an index takes for each byte of the file: see `Index::BLOCK_BYTES_MORE`,
/// and what it is decoded into before that.
const INDEX_FACTOR: usize = 6;

pub(super) fn filter(data: &[u8]) {
    let Ok(filter) = within(data.len(), 1, ERROR_BYTES, || Filter::decode(data)) else { return };
    assert_eq!(filter.encode(), data);
    for i in 0..64u64 {
        filter.may_contain(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        filter.may_contain(u64::MAX.rotate_left(i as u32) << i);
    }
}

pub(super) fn filter_seeds() -> Vec<Vec<u8>> {
    let built = |keys: u64| {
        let mut hashes = (0..keys).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        Filter::build(&mut hashes).expect("a filter").encode()
    };
    [0, 1, 20, 300].map(built).to_vec()
}

/// How many units the blocks of an encoded index have, if it is one.
fn units(data: &[u8]) -> u64 {
    let mut reader = ByteReader::new(data);
    let mut units = 0;
    let mut add = || {
        let (_, prefix_bytes) = (reader.u32()?, reader.u32()?);
        reader.take(prefix_bytes as usize)?;
        while !reader.is_empty() {
            reader.u64()?;
            units += u64::from(reader.varint()?);
            let suffix_bytes = reader.varint()?;
            reader.take(suffix_bytes as usize)?;
        }
        Ok::<_, crate::format::header::DecodeError>(())
    };
    // Of one that is cut, those before count.
    let _ = add();
    units
}

pub(super) fn index(data: &[u8]) {
    for end in [9, 1 + units(data)] {
        let decoded =
            within(data.len(), INDEX_FACTOR, 2 * ERROR_BYTES, || Index::decode(data, 1..end));
        let Ok(index) = decoded else { continue };
        let mut builder = IndexBuilder::new();
        let mut next = UNIT_U64;
        for block in 0..index.blocks() {
            let (offset, len) = index.extent(block);
            assert!(offset == next && len > 0, "one block after the other");
            next = offset + len as u64;
            let (key, tag) = index.separator(block);
            assert_eq!(index.find(&key, tag), Some(block));
            assert_eq!(index.ends_with(block, &key), tag != Tag::from_u64(0));
            builder.add((&key, tag), None, len / UNIT);
        }
        assert_eq!(next, end * UNIT_U64);
        let again = Index::decode(&builder.encode(), 1..end).expect("it was built");
        assert_eq!(again.blocks(), index.blocks());
        for block in 0..index.blocks() {
            assert_eq!(again.separator(block), index.separator(block));
            assert_eq!(again.extent(block), index.extent(block));
        }
        for key in [&b""[..], b"\xff\xff", &data[..data.len().min(12)]] {
            index.find(key, Tag::visible_at(SEQ_MAX));
        }
    }
}

pub(super) fn index_seeds() -> Vec<Vec<u8>> {
    [1, 3, 40].map(|blocks| built_index(blocks, |i| 1 + i % 3).encode()).to_vec()
}

/// An index of so many blocks.
fn built_index(blocks: usize, units: impl Fn(usize) -> usize) -> IndexBuilder {
    let mut builder = IndexBuilder::new();
    for i in 0..blocks {
        let [last, next] = [i, i + 1].map(|i| format!("a prefix and key {:04}", i * 7));
        let next = (i % 4 != 2 && i + 1 < blocks).then_some(next.as_bytes());
        builder.add((last.as_bytes(), Tag::new(9, Kind::Put)), next, units(i));
    }
    builder
}

/// A partition, but for its padding and checksum, and perhaps the units of its
/// data: those of an input are right if that field is zero.
pub(super) fn partition(data: &[u8]) {
    let mut extent = padded(data);
    let decode = |extent: &[u8]| {
        within(extent.len(), INDEX_FACTOR, 2 * ERROR_BYTES, || Partition::decode(extent, place()))
    };
    let _ = decode(&extent);
    assert!(Partition::plausible_length(data).is_none_or(|len| len <= data.len()));
    if data.len() >= PARTITION_HEADER_BYTES && u32_at(data, 16) == 0 {
        let index_at = PARTITION_HEADER_BYTES.saturating_add(u32_at(data, 4) as usize);
        let index_end = index_at.saturating_add(u32_at(data, 8) as usize);
        let index = data.get(index_at..index_end).unwrap_or_default();
        extent[16..20].copy_from_slice(&(units(index) as u32).to_le_bytes());
    }
    seal_partition(&mut extent, place());
    let Ok(partition) = decode(&extent) else { return };
    let units = partition.data().end - partition.data().start;
    assert!(partition.bytes() as u64 <= Partition::bytes_max(extent.len() as u64, units));
    for block in partition.blocks() {
        let (offset, len) = partition.extent(block);
        assert!((1..=units * UNIT_U64).contains(&(len as u64)));
        assert!(offset >= partition.data().start * UNIT_U64);
        let (key, tag) = partition.index().separator(block);
        assert_eq!(partition.find(&key, tag), Some(block));
        partition.newer_before(block, &key);
    }
    assert!(partition.filter.is_none_or(|filter| filter.bytes() > 0));
}

/// A partition and the top index of it and of as many others, of one unit each.
fn built_partition(blocks: usize) -> Vec<u8> {
    let mut builder = PartitionBuilder::new(1);
    for i in 0..blocks {
        let [last, next] = [i, i + 1].map(|i| format!("a prefix and key {:04}", i * 7));
        let hashes = (0..3).map(|key| ((i * 3 + key) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let last = (last.as_bytes(), Tag::new(9, Kind::Put));
        builder.add(last, Some(next.as_bytes()), 1 + i % 2, hashes);
    }
    builder.finish()
}

pub(super) fn partition_seeds() -> Vec<Vec<u8>> {
    [1, 4, 40].map(|blocks| trimmed(built_partition(blocks))).to_vec()
}

/// How many partitions there are, how many blocks each has, and the top index of
/// them; the first is then held against a sound partition.
pub(super) fn top_index(data: &[u8]) {
    let Some((&[partitions], rest)) = data.split_first_chunk::<1>() else { return };
    let Some((blocks, rest)) = rest.split_at_checked(usize::from(partitions)) else { return };
    let blocks: Vec<u32> = blocks.iter().map(|&blocks| blocks.into()).collect();
    let data_end = 1 + blocks.iter().map(|&blocks| u64::from(blocks)).sum::<u64>() * 3 / 2;
    let partitions_end = data_end + units(rest);
    let decoded = within(data.len(), INDEX_FACTOR + 8, 2 * ERROR_BYTES, || {
        TopIndex::decode(rest, data_end..partitions_end, &blocks)
    });
    let Ok(top) = decoded else { return };
    assert_eq!(top.partitions(), blocks.len());
    assert_eq!(top.blocks(), blocks.iter().sum::<u32>() as usize);
    assert_eq!(top.data_units(), data_end - 1);
    for block in 0..top.blocks() {
        let partition = top.partition_with(block);
        let first = top.first_block(partition);
        assert!((first..first + blocks[partition] as usize).contains(&block));
    }
    for partition in 0..top.partitions() {
        let (offset, len) = top.extent(partition);
        assert!((data_end * UNIT_U64..partitions_end * UNIT_U64).contains(&offset) && len > 0);
        top.ends_with(partition, b"key");
    }
    assert!(top.partition_of(b"\xff", Tag::new(1, Kind::Put)) < top.partitions());
    let mut extent = built_partition(4);
    seal_partition(&mut extent, place());
    let sound = Partition::decode(&extent, place()).expect("a sound partition");
    if let Ok(partition) = top.admit(0, sound) {
        assert_eq!(partition.blocks(), 0..4);
    }
}

pub(super) fn top_index_seeds() -> Vec<Vec<u8>> {
    let of = |blocks: &[u8]| {
        let top = built_index(blocks.len(), |_| 1).encode();
        [&[blocks.len() as u8], blocks, &top].concat()
    };
    // The last block of the sound partition has this separator.
    let mut sound = IndexBuilder::new();
    sound.add(
        (b"a prefix and key 0021", Tag::new(9, Kind::Put)),
        Some(b"a prefix and key 0028"),
        1,
    );
    let sound = [&[1, 4][..], &sound.encode()].concat();
    vec![of(&[1]), of(&[5, 1, 200]), sound]
}

/// What a table says of its contents, with range tombstones or not.
pub(super) fn properties(data: &[u8]) {
    // A fragment of thirteen bytes has two keys, a list and itself in memory.
    let decoded = within(data.len(), 40, 2 * ERROR_BYTES, || Properties::decode(data));
    let Ok(properties) = decoded else { return };
    assert_eq!(Properties::decode(&properties.encode()).as_ref(), Ok(&properties));
    look_at(&properties.ranges);
}

/// Range tombstones, as the property of a table that says as little as it can.
pub(super) fn ranges(data: &[u8]) {
    let mut bytes = sample().encode();
    bytes.extend_from_slice(&RANGES.to_le_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_le_bytes());
    bytes.extend_from_slice(data);
    properties(&bytes);
}

fn look_at(ranges: &RangeTombstones) {
    let mut inserted = RangeTombstones::default();
    for fragment in ranges.fragments() {
        let Fragment { start, end, seqs } = fragment;
        for &seq in seqs {
            inserted.insert(start, end, seq);
            assert_eq!(ranges.newest(start, seq), Some(seq));
        }
        assert_eq!(fragment.visible(SEQ_MAX), Some(fragment.newest()));
        assert_eq!(ranges.covers(start, start, 0), fragment.above(0));
        assert!(ranges.covering(end).is_none_or(|other| other != fragment || end.is_empty()));
    }
    assert_eq!(&inserted, ranges);
    assert_eq!(&RangeTombstones::union(&[ranges, &RangeTombstones::default()]), ranges);
    assert_eq!(inserted.bytes(), ranges.bytes());
    assert_eq!(inserted.numbers(), ranges.numbers());
}

/// Such that all range tombstones fit.
fn sample() -> Properties {
    Properties {
        entries: 700,
        tombstones: 90,
        smallest: Box::default(),
        largest: vec![0xff; KEY_BYTES_MAX].into(),
        seq_min: 0,
        seq_max: SEQ_MAX,
        key_bytes: 7000,
        value_bytes: 70_000,
        shard: 1,
        epoch: EPOCH,
        old_versions: 5,
        hidden: 6,
        dense_windows: 1,
        written_s: 1_700_000_000,
        partition_blocks: vec![3, 4],
        ranges: RangeTombstones::default(),
    }
}

fn some_ranges() -> Vec<RangeTombstones> {
    let made = |ranges: &[(&[u8], &[u8], u64)]| {
        let mut made = RangeTombstones::default();
        for (start, end, seq) in ranges {
            made.insert(start, end, *seq);
        }
        made
    };
    vec![
        made(&[(b"from", b"to", 7)]),
        made(&[(b"", b"a\0", 4), (b"k1", b"k7", 5), (b"k3", b"k9", 8), (b"x", b"", 2)]),
    ]
}

pub(super) fn properties_seeds() -> Vec<Vec<u8>> {
    let mut all = vec![Properties { largest: b"zebra".as_slice().into(), ..sample() }];
    for ranges in some_ranges() {
        let mut properties = all[0].clone();
        properties.largest = b"a".as_slice().into();
        properties.add_ranges(&ranges);
        if properties.largest.len() < 100 {
            all.push(properties);
        }
    }
    all.iter().map(Properties::encode).collect()
}

pub(super) fn ranges_seeds() -> Vec<Vec<u8>> {
    let without = sample().encode().len() + 6;
    let encode = |ranges| Properties { ranges, ..sample() }.encode().split_off(without);
    some_ranges().into_iter().map(encode).collect()
}

/// The last unit of a table that ends where the properties do. Its checksum and
/// the zeroes before it are left out of inputs.
pub(super) fn footer(data: &[u8]) {
    let mut unit = padded(&data[..data.len().min(UNIT - 4)]);
    unit[8..24].copy_from_slice(&TABLE);
    let number = |at: usize| u64::from(u32_at(&unit, at));
    let offset = number(88).saturating_add(round_up_u64(number(96)));
    let decode =
        |unit: &[u8]| within(unit.len(), 0, ERROR_BYTES, || Footer::decode(unit, &TABLE, offset));
    let _ = decode(&unit);
    let crc = seed_at(&TABLE, offset).checksum(&unit[..UNIT - 4]);
    unit[UNIT - 4..].copy_from_slice(&crc.to_le_bytes());
    let Ok(footer) = decode(&unit) else { return };
    let mut again = vec![0; UNIT];
    footer.encode(&mut again, &TABLE);
    assert!(again == unit, "another encoding of {footer:?}");
}

pub(super) fn footer_seeds() -> Vec<Vec<u8>> {
    let made = |(data_units, partition_units, compression): (u64, u64, Compression)| {
        let offset = (1 + data_units) * UNIT_U64;
        let partitions = Region { offset, bytes: partition_units * UNIT_U64, crc: 0 };
        let top_index = Region { offset: partitions.end(), bytes: 100, crc: 5 };
        let properties = Region { offset: top_index.end(), bytes: 5000, crc: 6 };
        let filter_format = FilterFormat::BinaryFuse8;
        let entries = 700;
        let footer =
            Footer { entries, compression, filter_format, partitions, top_index, properties };
        let mut unit = vec![0; UNIT];
        footer.encode(&mut unit, &TABLE);
        unit.truncate(UNIT - 4);
        trimmed(unit)
    };
    [(1, 1, Compression::None), (1000, 5, Compression::Lz4)].map(made).to_vec()
}
