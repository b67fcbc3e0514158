//! The top index: which partition an internal key is in, and which numbers its
//! blocks have. It is all that must be in memory of a table whose partitions are
//! not.
//!
//! It has the format of an [`Index`], with partitions for blocks; most tables have
//! one partition. The blocks of a table are numbered through, in their order. So
//! that this takes no partition, the table's properties say how many blocks each
//! has.

use std::ops::Range;

use super::index::Index;
use super::partition::Partition;
use crate::base::seq::Tag;
use crate::format::header::DecodeError;

/// What leads to the partitions of an open table.
pub(crate) struct TopIndex {
    index: Index,
    /// The number of each partition's first block; and how many blocks there are.
    first_blocks: Box<[u32]>,
    /// The unit behind the data.
    data_end: u64,
}

impl TopIndex {
    /// Decodes the index of partitions that take these units of the file, the
    /// data being those before, from unit 1 on. `blocks` is how many each
    /// partition has.
    pub(crate) fn decode(
        bytes: &[u8],
        units: Range<u64>,
        blocks: &[u32],
    ) -> Result<Self, DecodeError> {
        let data_end = units.start;
        let index = Index::decode(bytes, units)?;
        if index.blocks() != blocks.len() {
            let reason = format!(
                "the properties know {} partitions, the top index {}",
                blocks.len(),
                index.blocks()
            );
            return Err(DecodeError::corrupt(0, reason));
        }
        let mut first_blocks = Vec::with_capacity(blocks.len() + 1);
        let mut all = 0u64;
        first_blocks.push(0);
        for &blocks in blocks {
            all += u64::from(blocks);
            // A block has at least a unit. Also what keeps numbers within 32 bits.
            if blocks == 0 || all >= data_end {
                let reason = format!("{all} blocks do not fit before unit {data_end}");
                return Err(DecodeError::corrupt(0, reason));
            }
            first_blocks.push(all as u32);
        }
        Ok(Self { index, first_blocks: first_blocks.into(), data_end })
    }

    /// How many partitions there are; at least one.
    pub(crate) fn partitions(&self) -> usize {
        self.index.blocks()
    }

    /// How many blocks the table has; at least one.
    pub(crate) fn blocks(&self) -> usize {
        self.first_blocks[self.partitions()] as usize
    }

    /// The units of data.
    pub(crate) fn data_units(&self) -> u64 {
        self.data_end - 1
    }

    /// The one partition that can hold (key, tag).
    pub(crate) fn partition_of(&self, key: &[u8], tag: Tag) -> usize {
        self.index.find(key, tag).unwrap_or(self.partitions() - 1)
    }

    /// The first block of a partition.
    pub(crate) fn first_block(&self, partition: usize) -> usize {
        self.first_blocks[partition] as usize
    }

    /// The partition with this block.
    pub(crate) fn partition_with(&self, block: usize) -> usize {
        self.first_blocks.partition_point(|&first| first as usize <= block) - 1
    }

    /// File offset and length of a partition, in bytes.
    pub(crate) fn extent(&self, partition: usize) -> (u64, usize) {
        self.index.extent(partition)
    }

    /// Whether the last entry of a partition certainly is a version of `key`.
    pub(crate) fn ends_with(&self, partition: usize, key: &[u8]) -> bool {
        self.index.ends_with(partition, key)
    }

    /// Holds a partition that was decoded against what is known of it, and gives
    /// its blocks their numbers.
    pub(crate) fn admit(
        &self,
        number: usize,
        mut partition: Partition,
    ) -> Result<Partition, DecodeError> {
        let index = partition.index();
        let (blocks, data) = (index.blocks(), partition.data());
        let stated = self.first_blocks[number + 1] - self.first_blocks[number];
        let reason = if blocks != stated as usize {
            format!("a partition of {blocks} blocks, and the properties say {stated}")
        } else if index.separator(blocks - 1) != self.index.separator(number) {
            "a partition ends with another separator than the top index has".to_owned()
        } else if data.start == 0 || (number == 0 && data.start != 1) {
            format!("a partition starts at unit {}, where its data cannot be", data.start)
        } else if data.end > self.data_end
            || (number + 1 == self.partitions() && data.end != self.data_end)
        {
            let end = self.data_end;
            format!("a partition ends at unit {}, the data at {end}", data.end)
        } else {
            partition.first_block = self.first_blocks[number] as usize;
            return Ok(partition);
        };
        Err(DecodeError::corrupt(0, reason))
    }

    /// Whether the data of one partition, admitted at its number, end where
    /// those of the next start.
    pub(crate) fn check_next(before: &Partition, next: &Partition) -> Result<(), DecodeError> {
        if next.data.start == before.data.end {
            return Ok(());
        }
        let (start, end) = (next.data.start, before.data.end);
        let reason = format!("a partition starts at unit {start}, not {end}");
        Err(DecodeError::corrupt(0, reason))
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.index.bytes() + size_of_val(&self.first_blocks[..]) + size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::partition::seal;
    use super::super::partition::tests::{build, put, seed};
    use super::*;
    use crate::base::limits::{UNIT, UNIT_U64};

    fn decode(
        extents: &[Vec<u8>],
        top: &[u8],
        at: u64,
        blocks: &[u32],
    ) -> Result<(TopIndex, Vec<Partition>), DecodeError> {
        let units = extents.iter().map(|extent| extent.len() as u64 / UNIT_U64).sum::<u64>();
        let top = TopIndex::decode(top, at..at + units, blocks)?;
        let mut all: Vec<Partition> = Vec::new();
        for (i, extent) in extents.iter().enumerate() {
            let partition = top.admit(i, Partition::decode(extent, seed(i))?)?;
            if let Some(before) = all.last() {
                TopIndex::check_next(before, &partition)?;
            }
            all.push(partition);
        }
        Ok((top, all))
    }

    #[test]
    fn every_key_and_every_block_is_in_one_partition() {
        for blocks in [&[1][..], &[5, 1, 300, 2]] {
            let (extents, top, at) = build(blocks);
            let (top, all) = decode(&extents, &top, at, blocks).expect("sound");
            assert_eq!(top.partitions(), blocks.len());
            assert_eq!(top.blocks(), blocks.iter().sum::<u32>() as usize);
            assert_eq!(top.data_units(), 2 * top.blocks() as u64);
            for i in 0..top.blocks() {
                let key = (i as u32).to_be_bytes();
                let number = top.partition_of(&key, put());
                assert_eq!(top.partition_with(i), number);
                let partition = &all[number];
                assert_eq!(partition.find(&key, put()), Some(i));
                assert!(partition.blocks().contains(&i));
                assert_eq!(partition.extent(i), ((1 + 2 * i as u64) * UNIT_U64, 2 * UNIT));
                let filter = partition.filter.as_ref().expect("a filter");
                assert!(filter.may_contain((i as u64) << 40));
            }
            let last = top.partition_of(&[0xff; 5], put());
            assert_eq!(last, blocks.len() - 1);
            assert_eq!(all[last].find(&[0xff; 5], put()), None);
            for (number, partition) in all.iter().enumerate() {
                let file_bytes = top.extent(number).1 as u64;
                let data_units = partition.data().end - partition.data().start;
                assert!(partition.bytes() as u64 <= Partition::bytes_max(file_bytes, data_units));
            }
        }
    }

    #[test]
    fn partitions_that_do_not_follow_one_another_are_refused() {
        let blocks = [3, 3];
        let (extents, top, at) = build(&blocks);
        assert!(decode(&extents, &top, at + 1, &blocks).is_err());
        let (mut swapped, ..) = build(&blocks);
        swapped.swap(0, 1);
        assert!(decode(&swapped, &top, at, &blocks).is_err(), "checksums of other places");
        for i in [0, 1] {
            seal(&mut swapped[i], seed(i));
        }
        let refused = decode(&swapped, &top, at, &blocks).err().expect("swapped");
        assert!(refused.reason.contains("another separator"), "{refused:?}");
        let (_, mut all) = decode(&extents, &top, at, &blocks).expect("sound");
        assert!(TopIndex::check_next(&all[0], &all[1]).is_ok());
        all[1].data.start += 1;
        assert!(TopIndex::check_next(&all[0], &all[1]).is_err());
    }

    #[test]
    fn a_partition_is_held_against_what_is_known_of_it() {
        let blocks = [3, 4, 3];
        let (extents, top, at) = build(&blocks);
        let (top, _) = decode(&extents, &top, at, &blocks).expect("sound");
        let admit = |number: usize, change: &dyn Fn(&mut Partition)| {
            let mut partition = Partition::decode(&extents[number], seed(number)).expect("sound");
            change(&mut partition);
            top.admit(number, partition).map(|_| ()).map_err(|error| error.reason)
        };
        for number in 0..3 {
            assert_eq!(admit(number, &|_| ()), Ok(()));
        }
        let end = at;
        assert!(admit(0, &|p| p.data.start = 2).is_err());
        assert!(admit(1, &|p| p.data.start = 0).is_err());
        assert!(admit(1, &|p| p.data.end = end + 1).is_err());
        assert!(admit(2, &|p| p.data.end = end - 1).is_err());
        let other = Partition::decode(&extents[0], seed(0)).expect("sound");
        let refused = top.admit(2, other).err().expect("another one");
        assert!(refused.reason.contains("another separator"), "{refused:?}");
        let other = Partition::decode(&extents[0], seed(0)).expect("sound");
        let refused = top.admit(1, other).err().expect("another one");
        assert!(refused.reason.contains("the properties say 4"), "{refused:?}");
    }

    #[test]
    fn counts_of_blocks_that_cannot_be_are_refused() {
        let (extents, top, at) = build(&[3, 3]);
        for blocks in [&[3][..], &[3, 3, 3], &[0, 6], &[3, u32::MAX], &[3, 10]] {
            assert!(decode(&extents, &top, at, blocks).is_err(), "{blocks:?}");
        }
        // As many as there may be; the partitions themselves have others.
        assert!(decode(&extents, &top, at, &[3, 9]).is_err());
        assert!(decode(&extents, &top, at, &[3, 3]).is_ok());
    }
}
