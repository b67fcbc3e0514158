//! Partitions: filter and index of consecutive data blocks, in one extent, so
//! that a reader that does not keep all of them in memory gets both with one
//! read. The [top index](super::TopIndex) leads to the partition of a key.

use std::ops::Range;

use super::index::{Index, IndexBuilder};
use crate::base::checksum::Seed;
use crate::base::limits::{UNIT, round_up};
use crate::base::seq::Tag;
use crate::format::block::BLOCK_BYTES_MAX;
use crate::format::filter::Filter;
use crate::format::header::{ByteReader, DecodeError};
use crate::format::record::u32_at;

/// A partition ends when its index has grown to this length ...
const INDEX_BYTES: usize = 32 << 10;
/// ... or it has so many keys.
const KEYS: usize = 16 << 10;

/// Checksum, lengths of filter and index, first unit and units of the data,
/// and a field that is zero.
pub(crate) const HEADER_BYTES: usize = 24;

/// Collects filter and index of the blocks of one partition after the other.
#[derive(Default)]
pub(crate) struct PartitionBuilder {
    index: IndexBuilder,
    /// Those of the keys, with duplicates.
    hashes: Vec<u64>,
    data: Range<usize>,
}

impl PartitionBuilder {
    /// For data that starts at this unit.
    pub(crate) fn new(first_unit: usize) -> Self {
        Self { data: first_unit..first_unit, ..Self::default() }
    }

    /// Adds a block of so many units with keys of these hashes; `last` and
    /// `next` are those of [`IndexBuilder::add`].
    pub(crate) fn add(
        &mut self,
        last: (&[u8], Tag),
        next: Option<&[u8]>,
        units: usize,
        hashes: impl Iterator<Item = u64>,
    ) {
        self.index.add(last, next, units);
        self.hashes.extend(hashes);
        self.data.end += units;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Blocks of the current partition.
    pub(crate) fn blocks(&self) -> u32 {
        self.index.blocks() as u32
    }

    pub(crate) fn is_full(&self) -> bool {
        self.index.bytes_max() >= INDEX_BYTES || self.hashes.len() >= KEYS
    }

    /// The finished partition, in whole units, but for [`seal`]; the builder
    /// goes on with the next one.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let index = std::mem::take(&mut self.index).encode();
        let data = self.data.clone();
        self.data = data.end..data.end;
        // Without a filter every key may be in the partition.
        let filter = Filter::build(&mut self.hashes);
        let filter = filter.map_or_else(Vec::new, |filter| filter.encode());
        self.hashes.clear();
        let mut out = Vec::with_capacity(round_up(HEADER_BYTES + filter.len() + index.len()));
        for field in [0, filter.len(), index.len(), data.start, data.len(), 0] {
            out.extend_from_slice(&(field as u32).to_le_bytes());
        }
        out.extend_from_slice(&filter);
        out.extend_from_slice(&index);
        out.resize(round_up(out.len()), 0);
        assert!(out.len() <= BLOCK_BYTES_MAX, "the top index takes it for a block");
        out
    }
}

/// Gives a finished partition the checksum of its place.
pub(crate) fn seal(extent: &mut [u8], seed: Seed) {
    let crc = seed.checksum(&extent[4..]);
    extent[..4].copy_from_slice(&crc.to_le_bytes());
}

/// A partition of an open table.
pub(crate) struct Partition {
    /// The number of its first block in the table.
    pub(super) first_block: usize,
    /// The units of its data.
    pub(super) data: Range<u64>,
    /// `None` when every key may be in it.
    pub(crate) filter: Option<Filter>,
    index: Index,
}

impl Partition {
    /// Verifies and decodes the partition in these units.
    pub(crate) fn decode(extent: &[u8], seed: Seed) -> Result<Self, DecodeError> {
        let mut reader = ByteReader::new(extent);
        let crc = reader.u32()?;
        if crc != seed.checksum(&extent[4..]) {
            let reason = "the checksum of filter and index does not match";
            return Err(DecodeError::corrupt(0, reason));
        }
        let filter_bytes = reader.u32()? as usize;
        let index_bytes = reader.u32()? as usize;
        let first_unit = u64::from(reader.u32()?);
        let units = u64::from(reader.u32()?);
        let reserved = reader.u32()?;
        if reserved != 0 {
            let reason = format!("a partition with reserved field {reserved:#x} is unknown here");
            return Err(DecodeError::unsupported(20, &reason));
        }
        let filter = reader.take(filter_bytes)?;
        let index_at = reader.position();
        let index = reader.take(index_bytes)?;
        if round_up(reader.position()) != extent.len() {
            let reason = "a partition is longer than its filter and index";
            return Err(DecodeError::corrupt(reader.position(), reason));
        }
        reader.zeroes_to_end()?;
        let moved = |at: usize| {
            move |error: DecodeError| DecodeError { offset: error.offset + at as u64, ..error }
        };
        let filter = match filter {
            [] => None,
            bytes => Some(Filter::decode(bytes).map_err(moved(HEADER_BYTES))?),
        };
        let data = first_unit..first_unit + units;
        let index = Index::decode(index, data.clone()).map_err(moved(index_at))?;
        Ok(Self { first_block: 0, data, filter, index })
    }

    /// The units of its data blocks.
    pub(crate) fn data(&self) -> Range<u64> {
        self.data.clone()
    }

    /// The index of its data blocks.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// The length of the partition that starts here, going by its header, of
    /// which nothing is verified.
    pub(crate) fn plausible_length(bytes: &[u8]) -> Option<usize> {
        let header = bytes.get(..HEADER_BYTES)?;
        let len = HEADER_BYTES + u32_at(header, 4) as usize + u32_at(header, 8) as usize;
        Some(round_up(len)).filter(|&len| len <= bytes.len().min(BLOCK_BYTES_MAX))
    }

    /// Its blocks, by their numbers in the table.
    pub(crate) fn blocks(&self) -> Range<usize> {
        self.first_block..self.first_block + self.index.blocks()
    }

    /// As [`Index::find`], with the table's numbers of blocks.
    pub(crate) fn find(&self, key: &[u8], tag: Tag) -> Option<usize> {
        self.index.find(key, tag).map(|block| self.first_block + block)
    }

    /// As [`Index::extent`].
    pub(crate) fn extent(&self, block: usize) -> (u64, usize) {
        self.index.extent(block - self.first_block)
    }

    /// As [`Index::ends_with`], of the block before this one; `None` when that
    /// is in the partition before.
    pub(crate) fn newer_before(&self, block: usize, key: &[u8]) -> Option<bool> {
        let before = (block - self.first_block).checked_sub(1)?;
        Some(self.index.ends_with(before, key))
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.filter.as_ref().map_or(0, Filter::bytes) + self.index.bytes()
    }

    /// Bytes in memory, at most, of partitions that take so many bytes of a
    /// file, and lead to so many units of data.
    pub(crate) fn bytes_max(file_bytes: u64, data_units: u64) -> u64 {
        let partitions = file_bytes / UNIT as u64;
        file_bytes + data_units * Index::BLOCK_BYTES_MORE + partitions * PARTITION_BYTES_MORE
    }
}

/// What a partition takes in memory beyond its bytes in the file, at most, apart
/// from what its blocks do.
const PARTITION_BYTES_MORE: u64 = 640;

const _: () = assert!(
    size_of::<Partition>() + size_of::<Filter>() + Index::BYTES_MORE
        <= PARTITION_BYTES_MORE as usize
);

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::seq::Kind;

    pub(in crate::format::table) fn seed(i: usize) -> Seed {
        Seed::of(b"a table").with_u64(i as u64)
    }

    /// Partitions of so many blocks each, of two units, and their top index;
    /// block and key `i` have the key `i`, big-endian.
    pub(in crate::format::table) fn build(blocks: &[u32]) -> (Vec<Vec<u8>>, Vec<u8>, u64) {
        let mut builder = PartitionBuilder::new(1);
        let mut top = IndexBuilder::new();
        let (mut extents, mut i) = (Vec::new(), 0u32);
        for &count in blocks {
            for last in i..i + count {
                let next = (last + 1).to_be_bytes();
                let hash = std::iter::once(u64::from(last) << 40);
                builder.add((&last.to_be_bytes(), put()), Some(&next), 2, hash);
            }
            i += count;
            assert!(!builder.is_empty() && !builder.is_full());
            let mut extent = builder.finish();
            assert!(builder.is_empty());
            seal(&mut extent, seed(extents.len()));
            let next = i.to_be_bytes();
            top.add((&(i - 1).to_be_bytes(), put()), Some(&next), extent.len() / UNIT);
            extents.push(extent);
        }
        (extents, top.encode(), 1 + 2 * u64::from(i))
    }

    pub(in crate::format::table) fn put() -> Tag {
        Tag::new(9, Kind::Put)
    }

    #[test]
    fn damaged_and_hostile_bytes() {
        let (extents, ..) = build(&[20]);
        let sound = &extents[0];
        for i in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[i] ^= 0x11;
            assert!(Partition::decode(&damaged, seed(0)).is_err());
            for pattern in [0x01, 0x80, 0xff] {
                let mut hostile = sound.clone();
                hostile[i] ^= pattern;
                seal(&mut hostile, seed(0));
                if let Ok(partition) = Partition::decode(&hostile, seed(0)) {
                    partition.find(&[0; 4], put());
                    assert!(partition.bytes() as u64 <= Partition::bytes_max(UNIT as u64, 40));
                }
            }
        }
        for field in [1, 2, 3, 4, 5] {
            for value in [u32::MAX, 4080, 1 << 31] {
                let mut hostile = sound.clone();
                hostile[4 * field..][..4].copy_from_slice(&value.to_le_bytes());
                seal(&mut hostile, seed(0));
                let refused = Partition::decode(&hostile, seed(0));
                // Where the data are is only known together with the others.
                assert!(refused.is_err() || field == 3, "{field}");
            }
        }
        for len in [0, 3, 23, UNIT - 1] {
            assert!(Partition::decode(&sound[..len], seed(0)).is_err());
        }
    }
}
