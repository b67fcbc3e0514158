//! Writing a table: entries in, a file out, in one pass.
//!
//! Blocks gather in one buffer, which is written when it is full; one write is
//! in flight at a time, and none of them is durable before the sync at the
//! end. What grows with the table is its partitions (filter and index), which
//! are written behind the data.

use std::sync::Arc;

use crate::base::error::Result;
use crate::base::hash::KeyHash;
use crate::base::ids::{DbId, FileId, ShardId};
use crate::base::limits::{UNIT, UNIT_U64, round_up};
use crate::base::planted::{Bug, planted};
use crate::base::ranges::RangeTombstones;
use crate::base::seq::{Kind, Tag, compare_internal};
use crate::format::block::{BlockBuilder, Compression, Layout};
use crate::format::header::{FileType, Header};
use crate::format::table::{
    DENSITY_WINDOW, FilterFormat, Footer, IndexBuilder, PartitionBuilder, Properties, Region,
    TABLE_BYTES_MIN, seal_partition, seed_at,
};
use crate::io::{BufferPool, File, Harden, Io, IoBuf, WriteBuf};
use crate::sst::TableMeta;

/// What a new table is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewTable {
    pub(crate) db: DbId,
    pub(crate) id: FileId,
    /// Random.
    pub(crate) table_id: [u8; 16],
    pub(crate) shard: ShardId,
    pub(crate) compression: Compression,
    /// Seconds since 1970 when the newest of its entries was first written to
    /// a table.
    pub(crate) written_s: u64,
}

/// Writes one table. Whatever fails, the file is then worthless: the caller
/// drops the writer, removes the file, and starts again from the inputs.
pub(crate) struct TableWriter<'a, I: Io> {
    out: Output<'a, I>,
    new: NewTable,
    block: BlockBuilder,
    partition: PartitionBuilder,
    /// The finished ones.
    partitions: Vec<Vec<u8>>,
    top_index: IndexBuilder,
    /// Complete at the end, but for the largest key.
    properties: Properties,
    /// Tombstones in the current window.
    window_tombstones: u64,
    /// Entries of the current block, and how many of them are hot.
    block_entries: usize,
    block_hot: usize,
    /// Blocks so far.
    blocks: u32,
    /// Those of which at least half of the entries are hot.
    hot: Vec<u32>,
}

impl<'a, I: Io> TableWriter<'a, I> {
    /// Starts a table in `file`, which is new, or has so many bytes that are
    /// written over. Buffers come from `pool`, whose buffer length is that of the
    /// writes.
    pub(crate) fn new(
        io: &'a I,
        file: File,
        old_bytes: u64,
        new: NewTable,
        pool: &Arc<BufferPool>,
    ) -> Self {
        let NewTable { db, id, shard, compression, written_s, .. } = new;
        let mut buf = pool.take();
        Header::new(FileType::Table, db, id, Vec::new()).encode(&mut buf[..UNIT]);
        Self {
            out: Output { io, file, old_bytes, buf: Some(buf), filled: UNIT, written: 0 },
            new,
            block: BlockBuilder::new(Layout { compression, ..Layout::default() }),
            partition: PartitionBuilder::new(1),
            partitions: Vec::new(),
            top_index: IndexBuilder::new(),
            properties: Properties {
                entries: 0,
                tombstones: 0,
                smallest: Box::default(),
                largest: Box::default(),
                seq_min: u64::MAX,
                seq_max: 0,
                key_bytes: 0,
                value_bytes: 0,
                shard,
                epoch: id.epoch(),
                old_versions: 0,
                hidden: 0,
                dense_windows: 0,
                written_s,
                partition_blocks: Vec::new(),
                ranges: RangeTombstones::default(),
            },
            window_tombstones: 0,
            block_entries: 0,
            block_hot: 0,
            blocks: 0,
            hot: Vec::new(),
        }
    }

    /// The file's length so far, without what comes behind the data.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.out.position()
    }

    /// The entry added last.
    pub(crate) fn last_key(&self) -> Option<&[u8]> {
        self.block.last().map(|(key, _)| key)
    }

    /// Adds an entry, which must sort after the one before.
    pub(crate) async fn add(
        &mut self,
        key: &[u8],
        tag: Tag,
        value: &[u8],
        hash: KeyHash,
    ) -> Result<()> {
        let last = self.block.last();
        assert!(
            last.is_none_or(|last| compare_internal(last, (key, tag)).is_lt()),
            "entries of a table come in order"
        );
        let kind = tag.kind();
        assert!(
            kind.is_some_and(|kind| kind != Kind::RangeDelete),
            "a table holds entries of known kinds"
        );
        let is_tombstone = tag.kind() == Some(Kind::Delete);
        let properties = &mut self.properties;
        if properties.entries == 0 {
            properties.smallest = key.into();
        } else {
            properties.old_versions += u64::from(last.is_some_and(|(last, _)| last == key));
        }
        properties.entries += 1;
        properties.tombstones += u64::from(is_tombstone);
        self.window_tombstones += u64::from(is_tombstone);
        if properties.entries.is_multiple_of(DENSITY_WINDOW) {
            properties.dense_windows += u64::from(2 * self.window_tombstones >= DENSITY_WINDOW);
            self.window_tombstones = 0;
        }
        properties.seq_min = properties.seq_min.min(tag.seq());
        properties.seq_max = properties.seq_max.max(tag.seq());
        properties.key_bytes += key.len() as u64;
        properties.value_bytes += value.len() as u64;
        // The next block may start with entries that the last one gave back.
        while !self.block.add(key, tag, value, hash.filter) {
            self.finish_block(Some(key)).await?;
        }
        self.block_entries += 1;
        Ok(())
    }

    /// The entry added last is *hot*: it was in use in the cache, as part of the table that it
    /// comes from.
    pub(crate) fn note_hot(&mut self) {
        self.block_hot += 1;
    }

    /// Ends the current block. Once all that was added is in blocks, the next
    /// one starts with the key `next`.
    async fn finish_block(&mut self, next: Option<&[u8]>) -> Result<()> {
        let seed = seed_at(&self.new.table_id, self.out.position());
        let finished = self.block.finish(seed);
        self.out.put(finished.extent).await?;
        let next = finished.next.or(next);
        let units = finished.extent.len() / UNIT;
        self.partition.add(finished.last, next, units, finished.hashes());
        if self.partition.is_full() || next.is_none() {
            self.properties.partition_blocks.push(self.partition.blocks());
            let partition = self.partition.finish();
            self.top_index.add(finished.last, next, partition.len() / UNIT);
            self.partitions.push(partition);
        }
        self.block.reset();
        // What it gave back to the next one is counted here.
        if self.block_hot > 0 && 2 * self.block_hot >= self.block_entries {
            self.hot.push(self.blocks);
        }
        (self.block_entries, self.block_hot) = (0, 0);
        self.blocks += 1;
        Ok(())
    }

    /// Writes a region, in whole units.
    async fn region(&mut self, mut bytes: Vec<u8>) -> Result<Region> {
        let offset = self.out.position();
        let len = bytes.len() as u64;
        bytes.resize(round_up(bytes.len()), 0);
        let crc = seed_at(&self.new.table_id, offset).checksum(&bytes);
        self.out.put(&bytes).await?;
        Ok(Region { offset, bytes: len, crc })
    }

    /// Completes the table, which must have at least one entry, and makes its
    /// file durable. The caller then makes its directory entry durable. About
    /// `hidden` entries of older tables are hidden by this one's; and what
    /// `ranges` cover there, as far as it is older. The table, and those of its blocks of which
    /// at least half of the entries are hot.
    pub(crate) async fn finish(
        mut self,
        hidden: u64,
        ranges: &RangeTombstones,
    ) -> Result<(TableMeta, Vec<u32>)> {
        self.properties.hidden = hidden;
        assert!(!self.block.is_empty(), "a table has at least one entry");
        while !self.block.is_empty() {
            self.finish_block(None).await?;
        }
        assert!(self.partition.is_empty(), "the last block ends the last partition");
        let offset = self.out.position();
        for mut partition in std::mem::take(&mut self.partitions) {
            seal_partition(&mut partition, seed_at(&self.new.table_id, self.out.position()));
            self.out.put(&partition).await?;
        }
        let partitions = Region { offset, bytes: self.out.position() - offset, crc: 0 };
        let top_index = self.region(self.top_index.encode()).await?;
        self.properties.largest = self.block.last().map(|(key, _)| key.into()).unwrap_or_default();
        self.properties.add_ranges(ranges);
        let properties = self.region(self.properties.encode()).await?;

        let Self { mut out, new, properties: stated, hot, .. } = self;
        let NewTable { id, table_id, compression, .. } = new;
        let entries = stated.entries;
        let mut unit = [0; UNIT];
        let filter_format = FilterFormat::BinaryFuse8;
        Footer { entries, compression, filter_format, partitions, top_index, properties }
            .encode(&mut unit, &table_id);
        out.put(&unit).await?;
        out.flush().await?;
        if out.old_bytes > out.written {
            out.io.cut(&out.file, out.written).await?;
        }
        if !planted(Bug::TableUnsynced) {
            out.io.sync(&out.file).await?;
        }
        assert!(out.written >= TABLE_BYTES_MIN && out.written.is_multiple_of(UNIT_U64));
        let meta = TableMeta {
            id,
            table_id,
            file_bytes: out.written,
            entries,
            smallest: stated.smallest,
            largest: stated.largest,
            seq_min: stated.seq_min,
            seq_max: stated.seq_max,
        };
        Ok((meta, hot))
    }
}

/// Bytes on their way into the file.
struct Output<'a, I: Io> {
    io: &'a I,
    file: File,
    /// What the file had before.
    old_bytes: u64,
    /// `None` after a write that failed.
    buf: Option<IoBuf>,
    filled: usize,
    /// Bytes of the file before those in `buf`.
    written: u64,
}

impl<I: Io> Output<'_, I> {
    /// Where in the file the next byte goes.
    fn position(&self) -> u64 {
        self.written + self.filled as u64
    }

    async fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let buf = self.buf.as_mut().expect("a writer whose write failed is dropped");
            if self.filled == buf.len() {
                self.flush().await?;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(buf.len() - self.filled));
            buf[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let buf = self.buf.take().expect("a writer whose write failed is dropped");
        assert!(self.filled > 0 && self.filled.is_multiple_of(UNIT));
        let request = WriteBuf::Prefix(buf, self.filled);
        let (request, result) =
            self.io.write(&self.file, self.written, request, Harden::Later).await;
        result?;
        if let WriteBuf::Owned(buf) | WriteBuf::Prefix(buf, _) = request {
            self.buf = Some(buf);
        }
        self.written += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}
