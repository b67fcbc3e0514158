//! The parts of a table file around its data blocks: footer, properties, and
//! (in [`index`] and [`partition`]) what leads to the blocks.
//!
//! A table is a header unit, data blocks, partitions, top index, properties,
//! footer unit, in this order and without gaps; each starts at a unit. Every checksum starts from the table's random 128-bit id and the
//! offset of what it covers, padding included, so that a block of another
//! table, or of another place, does not pass. `FORMAT.md` has the bytes.

mod heads;
mod index;
mod partition;
mod ranges;
mod top;

pub(crate) use index::{Index, IndexBuilder};
pub(crate) use partition::{Partition, PartitionBuilder, seal as seal_partition};
pub(crate) use top::TopIndex;

use super::block::{Compression, TRAILER_BYTES};
use super::header::{ByteReader, DecodeError};
use crate::base::checksum::Seed;
use crate::base::ids::{Epoch, ShardId};
use crate::base::limits::{KEY_BYTES_MAX, UNIT, UNIT_U64, round_up_u64};
use crate::base::ranges::{RangeTombstones, reach};
use crate::base::seq::{SEQ_MAX, SeqNo};

/// The shortest table: header, one data block, one partition, top index,
/// properties, footer.
pub(crate) const TABLE_BYTES_MIN: u64 = 6 * UNIT_U64;

const MAGIC: &[u8; 8] = b"OUROFTR\0";
const CHECKSUM_CRC32C: u8 = 1;

/// No table has as many entries, or as many bytes of keys or values: sums over all
/// tables of a shard stay far from where they would overflow.
const ENTRIES_MAX: u64 = 1 << 40;
const BYTES_MAX: u64 = 1 << 43;
const ENCRYPTION_NONE: u8 = 0;
const FOOTER_CRC_OFFSET: usize = UNIT - 4;

/// The checksum seed for what starts at `offset` of a table.
pub(crate) fn seed_at(table_id: &[u8; 16], offset: u64) -> Seed {
    Seed::of(table_id).with_u64(offset)
}

/// A region of the file: `bytes` from `offset`, padded with zeroes to whole
/// units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// Checksum over the bytes and the padding; zero for the partitions, each
    /// of which has its own.
    pub(crate) crc: u32,
}

impl Region {
    /// Where the region's last unit ends. Within 64 bits, for each region of a
    /// decoded footer.
    pub(crate) fn end(&self) -> u64 {
        self.offset + round_up_u64(self.bytes)
    }
}

/// How the filters of partitions are stored. The numbers are on disk, for
/// ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FilterFormat {
    /// See [`super::filter`].
    BinaryFuse8 = 1,
}

/// The last unit of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) entries: u64,
    /// How blocks are compressed that get smaller by it.
    pub(crate) compression: Compression,
    pub(crate) filter_format: FilterFormat,
    pub(crate) partitions: Region,
    pub(crate) top_index: Region,
    pub(crate) properties: Region,
}

impl Footer {
    /// Fills one unit, the one at the end of the properties region.
    pub(crate) fn encode(&self, unit: &mut [u8], table_id: &[u8; 16]) {
        assert_eq!(unit.len(), UNIT);
        assert_eq!(self.partitions.end(), self.top_index.offset);
        assert_eq!(self.top_index.end(), self.properties.offset);
        assert_eq!(self.partitions.crc, 0);
        let mut out = Vec::with_capacity(UNIT);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(table_id);
        out.extend_from_slice(&(TRAILER_BYTES as u32).to_le_bytes());
        out.push(CHECKSUM_CRC32C);
        out.push(self.compression as u8);
        out.push(self.filter_format as u8);
        out.push(ENCRYPTION_NONE);
        out.extend_from_slice(&self.entries.to_le_bytes());
        for region in [&self.partitions, &self.top_index, &self.properties] {
            out.extend_from_slice(&region.offset.to_le_bytes());
            out.extend_from_slice(&region.bytes.to_le_bytes());
            out.extend_from_slice(&region.crc.to_le_bytes());
            out.extend_from_slice(&0u32.to_le_bytes());
        }
        out.resize(FOOTER_CRC_OFFSET, 0);
        let crc = seed_at(table_id, self.properties.end()).checksum(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        unit.copy_from_slice(&out);
    }

    /// Decodes the unit at `offset`, the last of the table with this id.
    pub(crate) fn decode(
        unit: &[u8],
        table_id: &[u8; 16],
        offset: u64,
    ) -> Result<Self, DecodeError> {
        if unit.len() != UNIT {
            return Err(DecodeError::corrupt(unit.len(), "the footer is not a whole unit"));
        }
        let mut reader = ByteReader::new(unit);
        if &reader.array()? != MAGIC {
            return Err(DecodeError::corrupt(0, "the file does not end with a table's footer"));
        }
        if &reader.array()? != table_id {
            return Err(DecodeError::corrupt(8, "this is the footer of another table"));
        }
        let crc = ByteReader::new(&unit[FOOTER_CRC_OFFSET..]).u32()?;
        if crc != seed_at(table_id, offset).checksum(&unit[..FOOTER_CRC_OFFSET]) {
            return Err(DecodeError::corrupt(0, "the checksum of the footer does not match"));
        }
        let trailer_bytes = reader.u32()?;
        let [checksum, compression, filter_format, encryption] = reader.array()?;
        let known = trailer_bytes as usize == TRAILER_BYTES
            && checksum == CHECKSUM_CRC32C
            && encryption == ENCRYPTION_NONE;
        let compression = Compression::from_id(compression, 29)?;
        let filter_format = match filter_format {
            1 if known => FilterFormat::BinaryFuse8,
            _ => {
                let reason = format!(
                    "a table with trailers of {trailer_bytes} bytes, checksum {checksum}, filter \
                     {filter_format} and encryption {encryption} is unknown here"
                );
                return Err(DecodeError::unsupported(24, &reason));
            }
        };
        let entries = reader.u64()?;
        let mut regions = [Region::default(); 3];
        for region in &mut regions {
            let at = reader.position();
            *region = Region { offset: reader.u64()?, bytes: reader.u64()?, crc: reader.u32()? };
            let reserved = reader.u32()?;
            // Also what keeps the sums below within 64 bits.
            if region.offset > offset || region.bytes > offset || reserved != 0 {
                return Err(DecodeError::corrupt(at, "a region is not within the table"));
            }
        }
        reader
            .take(FOOTER_CRC_OFFSET - reader.position())
            .and_then(|rest| ByteReader::new(rest).zeroes_to_end())?;
        let [partitions, top_index, properties] = regions;
        let adjacent = partitions.offset.is_multiple_of(UNIT_U64)
            && partitions.offset >= 2 * UNIT_U64
            && partitions.bytes.is_multiple_of(UNIT_U64)
            && partitions.bytes > 0
            && partitions.crc == 0
            && partitions.end() == top_index.offset
            && top_index.end() == properties.offset
            && properties.end() == offset;
        if !adjacent {
            return Err(DecodeError::corrupt(40, "the regions do not follow one another"));
        }
        Ok(Self { entries, compression, filter_format, partitions, top_index, properties })
    }
}

/// What a table says about its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Properties {
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    pub(crate) smallest: Box<[u8]>,
    pub(crate) largest: Box<[u8]>,
    pub(crate) seq_min: SeqNo,
    pub(crate) seq_max: SeqNo,
    /// Sum of the keys' lengths.
    pub(crate) key_bytes: u64,
    /// Sum of the values' lengths.
    pub(crate) value_bytes: u64,
    pub(crate) shard: ShardId,
    /// The epoch in which the table was written.
    pub(crate) epoch: Epoch,
    /// Entries that are not the newest of their key.
    pub(crate) old_versions: u64,
    /// About how many entries of older tables these hid when they were written.
    pub(crate) hidden: u64,
    /// Of the windows of [`DENSITY_WINDOW`] consecutive entries, those of which
    /// at least half are tombstones.
    pub(crate) dense_windows: u64,
    /// Seconds since 1970 when the newest of the entries was written to a
    /// table.
    pub(crate) written_s: u64,
    /// How many blocks each partition has, in their order.
    pub(crate) partition_blocks: Vec<u32>,
    /// What the table says of whole stretches of keys. Smallest and largest key
    /// and number are theirs, too, but they are no entries.
    pub(crate) ranges: RangeTombstones,
}

/// Consecutive entries whose tombstones are counted together.
pub(crate) const DENSITY_WINDOW: u64 = 512;

/// Set in a property's type when who does not know it must not read the table.
const MUST_UNDERSTAND: u16 = 0x8000;

/// The types of properties. The numbers are on disk, for ever.
mod property {
    pub(super) const ENTRIES: u16 = 1;
    pub(super) const TOMBSTONES: u16 = 2;
    pub(super) const SMALLEST: u16 = 3;
    pub(super) const LARGEST: u16 = 4;
    pub(super) const SEQ_MIN: u16 = 5;
    pub(super) const SEQ_MAX: u16 = 6;
    pub(super) const KEY_BYTES: u16 = 7;
    pub(super) const VALUE_BYTES: u16 = 8;
    pub(super) const SHARD: u16 = 9;
    pub(super) const EPOCH: u16 = 10;
    pub(super) const OLD_VERSIONS: u16 = 11;
    pub(super) const HIDDEN: u16 = 12;
    pub(super) const DENSE_WINDOWS: u16 = 13;
    pub(super) const WRITTEN_S: u16 = 14;
    pub(super) const RANGES: u16 = 15;
    pub(super) const PARTITION_BLOCKS: u16 = 16;
    /// One more than the largest of them.
    pub(super) const COUNT: usize = 17;
}

impl Properties {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |property: u16, value: &[u8]| {
            out.extend_from_slice(&property.to_le_bytes());
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(value);
        };
        put(property::ENTRIES, &self.entries.to_le_bytes());
        put(property::TOMBSTONES, &self.tombstones.to_le_bytes());
        put(property::SMALLEST, &self.smallest);
        put(property::LARGEST, &self.largest);
        put(property::SEQ_MIN, &self.seq_min.to_le_bytes());
        put(property::SEQ_MAX, &self.seq_max.to_le_bytes());
        put(property::KEY_BYTES, &self.key_bytes.to_le_bytes());
        put(property::VALUE_BYTES, &self.value_bytes.to_le_bytes());
        put(property::SHARD, &self.shard.to_le_bytes());
        put(property::EPOCH, &self.epoch.to_le_bytes());
        put(property::OLD_VERSIONS, &self.old_versions.to_le_bytes());
        put(property::HIDDEN, &self.hidden.to_le_bytes());
        put(property::DENSE_WINDOWS, &self.dense_windows.to_le_bytes());
        put(property::WRITTEN_S, &self.written_s.to_le_bytes());
        let blocks: Vec<u8> =
            self.partition_blocks.iter().flat_map(|blocks| blocks.to_le_bytes()).collect();
        put(property::PARTITION_BLOCKS, &blocks);
        if !self.ranges.is_empty() {
            put(property::RANGES | MUST_UNDERSTAND, &ranges::encode(&self.ranges));
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut found: [Option<Field<'_>>; property::COUNT] = [None; property::COUNT];
        let mut reader = ByteReader::new(bytes);
        while !reader.is_empty() {
            let at = reader.position();
            let stored = reader.u16()?;
            let len = reader.u32()? as usize;
            let property = stored & !MUST_UNDERSTAND;
            let field = Field { at: reader.position(), value: reader.take(len)? };
            if let Some(slot) = found.get_mut(usize::from(property)).filter(|_| property > 0) {
                if slot.replace(field).is_some() {
                    let reason = format!("property {property} is there twice");
                    return Err(DecodeError::corrupt(at, reason));
                }
            } else if stored & MUST_UNDERSTAND != 0 {
                let reason = format!("the table has property {property}, unknown here");
                return Err(DecodeError::unsupported(at, &reason));
            }
        }
        let field = |property: u16| {
            found[usize::from(property)].ok_or_else(|| {
                DecodeError::corrupt(bytes.len(), format!("property {property} is missing"))
            })
        };
        let ranges = match found[usize::from(property::RANGES)] {
            Some(Field { at, value }) => ranges::decode(value, at)?,
            None => RangeTombstones::default(),
        };
        let properties = Self {
            entries: u64::from_le_bytes(field(property::ENTRIES)?.array()?),
            tombstones: u64::from_le_bytes(field(property::TOMBSTONES)?.array()?),
            smallest: field(property::SMALLEST)?.key()?,
            largest: field(property::LARGEST)?.key()?,
            seq_min: u64::from_le_bytes(field(property::SEQ_MIN)?.array()?),
            seq_max: u64::from_le_bytes(field(property::SEQ_MAX)?.array()?),
            key_bytes: u64::from_le_bytes(field(property::KEY_BYTES)?.array()?),
            value_bytes: u64::from_le_bytes(field(property::VALUE_BYTES)?.array()?),
            shard: u16::from_le_bytes(field(property::SHARD)?.array()?),
            epoch: u32::from_le_bytes(field(property::EPOCH)?.array()?),
            old_versions: u64::from_le_bytes(field(property::OLD_VERSIONS)?.array()?),
            hidden: u64::from_le_bytes(field(property::HIDDEN)?.array()?),
            dense_windows: u64::from_le_bytes(field(property::DENSE_WINDOWS)?.array()?),
            written_s: u64::from_le_bytes(field(property::WRITTEN_S)?.array()?),
            partition_blocks: field(property::PARTITION_BLOCKS)?.numbers()?,
            ranges,
        };
        let sound = properties.entries > 0
            && properties.entries <= ENTRIES_MAX
            && properties.hidden <= ENTRIES_MAX
            && properties.key_bytes <= BYTES_MAX
            && properties.value_bytes <= BYTES_MAX
            && properties.tombstones <= properties.entries
            && properties.old_versions < properties.entries
            && properties.dense_windows <= properties.tombstones
            && properties.smallest <= properties.largest
            && properties.seq_min <= properties.seq_max
            && properties.seq_max <= SEQ_MAX
            && !properties.partition_blocks.is_empty()
            && !properties.partition_blocks.contains(&0)
            && properties.has_its_ranges();
        if !sound {
            return Err(DecodeError::corrupt(0, "the table's properties contradict each other"));
        }
        Ok(properties)
    }
}

impl Properties {
    /// Takes these range tombstones, which belong to the table's entries, into
    /// account.
    pub(crate) fn add_ranges(&mut self, ranges: &RangeTombstones) {
        let Some((seq_min, seq_max)) = ranges.seq_range() else {
            return;
        };
        let (Some(first), Some(last)) = (ranges.fragments().first(), ranges.fragments().last())
        else {
            return;
        };
        if *first.start < *self.smallest {
            self.smallest = first.start[..].into();
        }
        let reach = reach(&last.end);
        if self.largest < reach {
            self.largest = reach;
        }
        self.seq_min = self.seq_min.min(seq_min);
        self.seq_max = self.seq_max.max(seq_max);
        self.ranges = ranges.clone();
    }

    /// Whether smallest and largest key and number are those of the range
    /// tombstones, too.
    fn has_its_ranges(&self) -> bool {
        let (first, last) = (self.ranges.fragments().first(), self.ranges.fragments().last());
        first.is_none_or(|first| *self.smallest <= *first.start)
            && last.is_none_or(|last| reach(&last.end) <= self.largest)
            && self
                .ranges
                .seq_range()
                .is_none_or(|(min, max)| self.seq_min <= min && max <= self.seq_max)
    }
}

#[derive(Clone, Copy)]
struct Field<'a> {
    at: usize,
    value: &'a [u8],
}

impl Field<'_> {
    fn array<const N: usize>(self) -> Result<[u8; N], DecodeError> {
        self.value.try_into().map_err(|_| {
            let reason = format!("a property of {} bytes, not {N}", self.value.len());
            DecodeError::corrupt(self.at, reason)
        })
    }

    fn numbers(self) -> Result<Vec<u32>, DecodeError> {
        let (numbers, rest) = self.value.as_chunks::<4>();
        if !rest.is_empty() {
            let reason = format!("a property of {} bytes, not of whole numbers", self.value.len());
            return Err(DecodeError::corrupt(self.at, reason));
        }
        Ok(numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }

    fn key(self) -> Result<Box<[u8]>, DecodeError> {
        if self.value.len() > KEY_BYTES_MAX {
            let reason = format!("a key of {} bytes", self.value.len());
            return Err(DecodeError::corrupt(self.at, reason));
        }
        Ok(self.value.into())
    }
}

#[cfg(test)]
mod tests;
