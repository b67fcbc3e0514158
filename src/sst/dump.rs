//! Tables in words. The footer has the id that all checksums are bound to, so
//! that a table needs no manifest.

use std::ops::Range;

use crate::base::dumped::DumpDetail;
use crate::base::limits::{UNIT, UNIT_U64, round_up_u64};
use crate::base::seq::{Kind, Tag};
use crate::format::block::{Block, BlockCursor, describe};
use crate::format::header::{ByteReader, DecodeError};
use crate::format::table::{
    Footer, Index, Partition, Properties, Region, TABLE_BYTES_MIN, seed_at,
};
use crate::io::{Dump, File, Halt, Io};

/// Tells what is in a table.
pub(crate) async fn dump_table<I: Io>(
    dump: &mut Dump<'_, I>,
    file: &File,
    len: u64,
) -> Result<(), Halt> {
    let path = file.path();
    if len < TABLE_BYTES_MIN || !len.is_multiple_of(UNIT_U64) {
        return dump.inspection.fault(path, len, format!("no table has {len} bytes"));
    }
    let offset = len - UNIT_U64;
    let Some(unit) = dump.inspection.read(file, offset, UNIT).await? else { return Ok(()) };
    let mut table_id = [0; 16];
    table_id.copy_from_slice(&unit[8..24]);
    let footer = Footer::decode(&unit, &table_id, offset).map_err(|error| error.at(path, offset));
    let Some(footer) = dump.inspection.sound(footer)? else { return Ok(()) };
    let (entries, compression) = (footer.entries, footer.compression);
    let id = u128::from_be_bytes(table_id);
    dump.text(1, &format!("table {id:032x}: {entries} entries, compression {compression}"))?;
    let regions = [
        ("partitions", &footer.partitions),
        ("top index", &footer.top_index),
        ("properties", &footer.properties),
    ];
    for (name, Region { offset, bytes, .. }) in regions {
        dump.text(1, &format!("{name}: {bytes} bytes at offset {offset}"))?;
    }
    let mut table = TableDump { dump, file, table_id };
    table.properties(&footer).await?;
    table.partitions(&footer).await
}

struct TableDump<'a, 'b, I> {
    dump: &'a mut Dump<'b, I>,
    file: &'a File,
    table_id: [u8; 16],
}

impl<I: Io> TableDump<'_, '_, I> {
    fn sound<T>(&mut self, offset: u64, result: Result<T, DecodeError>) -> Result<Option<T>, Halt> {
        let result = result.map_err(|error| error.at(self.file.path(), offset));
        self.dump.inspection.sound(result)
    }

    /// The bytes of a region, if they are sound.
    async fn region(&mut self, region: &Region) -> Result<Option<Vec<u8>>, Halt> {
        let range = region.offset..region.offset + round_up_u64(region.bytes);
        let mut bytes = self.dump.inspection.read_range(self.file, range).await?;
        if seed_at(&self.table_id, region.offset).checksum(&bytes) != region.crc {
            let error = DecodeError::corrupt(0, "the checksum does not match");
            return self.sound(region.offset, Err(error));
        }
        let used = region.bytes as usize;
        let padding = ByteReader::new(&bytes[used..]).zeroes_to_end();
        self.sound(region.offset + region.bytes, padding)?;
        bytes.truncate(used);
        Ok(Some(bytes))
    }

    async fn properties(&mut self, footer: &Footer) -> Result<(), Halt> {
        let Some(bytes) = self.region(&footer.properties).await? else { return Ok(()) };
        let decoded = Properties::decode(&bytes);
        let Some(p) = self.sound(footer.properties.offset, decoded)? else { return Ok(()) };
        let text = format!(
            "shard {}, epoch {}; {} entries, {} of them deletes, {} old versions; sequence numbers {} to {}; keys of \
             {} bytes, values of {} bytes together; blocks of each partition: {:?}",
            p.shard,
            p.epoch,
            p.entries,
            p.tombstones,
            p.old_versions,
            p.seq_min,
            p.seq_max,
            p.key_bytes,
            p.value_bytes,
            p.partition_blocks
        );
        self.dump.text(1, &text)?;
        self.dump.key(1, "smallest key", &p.smallest)?;
        self.dump.key(1, "largest key", &p.largest)?;
        if !p.ranges.is_empty() {
            let text = format!("range tombstones: {} fragments", p.ranges.len());
            self.dump.text(1, &text)?;
        }
        if self.dump.detail >= DumpDetail::Entries {
            for fragment in p.ranges.fragments() {
                for &seq in &fragment.seqs {
                    let tag = Tag::new(seq, Kind::RangeDelete);
                    self.dump.entry(2, tag, &fragment.start, &fragment.end)?;
                }
            }
        }
        Ok(())
    }

    /// Reads all filters and indexes, and tells them and their blocks if that
    /// was asked for.
    async fn partitions(&mut self, footer: &Footer) -> Result<(), Halt> {
        let Some(bytes) = self.region(&footer.top_index).await? else { return Ok(()) };
        let (start, end) = (footer.partitions.offset, footer.partitions.end());
        let top = Index::decode(&bytes, start / UNIT_U64..end / UNIT_U64);
        let Some(top) = self.sound(footer.top_index.offset, top)? else { return Ok(()) };
        for number in 0..top.blocks() {
            let (offset, len) = top.extent(number);
            let bytes = self.dump.inspection.read_range(self.file, offset..offset + len as u64);
            let decoded = Partition::decode(&bytes.await?, seed_at(&self.table_id, offset));
            let Some(partition) = self.sound(offset, decoded)? else { continue };
            if self.dump.detail < DumpDetail::Blocks {
                continue;
            }
            let Range { start, end } = partition.data();
            let blocks = partition.index().blocks();
            let filter = if partition.filter.is_some() { "with" } else { "without" };
            let text = format!(
                "partition at offset {offset}: {len} bytes, {filter} a filter, {blocks} blocks in \
                 units {start} to {end}"
            );
            self.dump.text(1, &text)?;
            for block in 0..blocks {
                self.block(partition.index(), block).await?;
            }
        }
        Ok(())
    }

    async fn block(&mut self, index: &Index, number: usize) -> Result<(), Halt> {
        let (offset, len) = index.extent(number);
        let extent =
            self.dump.inspection.read_range(self.file, offset..offset + len as u64).await?;
        let mut plain = Vec::new();
        let block = Block::decode(&extent, seed_at(&self.table_id, offset), &mut plain);
        let Some(block) = self.sound(offset, block)? else { return Ok(()) };
        self.dump.text(2, &format!("block at offset {offset}: {}", describe(&block, &extent)))?;
        let (key, tag) = index.separator(number);
        self.dump.key(3, &format!("separator {}", tag.seq()), &key)?;
        if self.dump.detail < DumpDetail::Entries {
            return Ok(());
        }
        let mut cursor = BlockCursor::new();
        let mut moved = cursor.seek_to_first(block);
        while moved.is_ok() && cursor.is_valid() {
            self.dump.entry(3, cursor.tag(), cursor.key(), block.bytes(cursor.value()))?;
            moved = cursor.next(block);
        }
        self.sound(offset, moved)?;
        Ok(())
    }
}
