//! An open table: opening it, and looking one key up.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::hash::KeyHash;
use crate::base::ids::DbId;
use crate::base::limits::{UNIT, UNIT_U64, round_up_u64};
use crate::base::seq::{SEQ_MAX, SeqNo, Tag};
use crate::base::sync::tally::Ordering;
use crate::format::block::{Block, Compression, Lookup};
use crate::format::header::{DecodeError, FileType, Header};
use crate::format::table::{
    Footer, Index, Partition, Partitions, Properties, Region, TABLE_BYTES_MIN, seed_at,
};
use crate::io::{File, Io, IoBuf};
use crate::sst::{REQUEST_BYTES_MAX, ReadCounters, Retired, TableMeta, retired};

/// An open table. Its partitions are in memory, its blocks are not.
pub(crate) struct Table {
    file: File,
    meta: TableMeta,
    contents: Contents,
    partitions: Partitions,
    /// Set once the table is taken out of the tree.
    retired: retired::Place,
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(retired) = self.retired.take() {
            retired.push(self.file.path().to_owned());
        }
    }
}

/// What a table says about what it holds, beside its [`TableMeta`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents {
    /// Sum of the lengths of keys and values.
    pub(crate) bytes: u64,
    pub(crate) tombstones: u64,
    /// Entries that are not the newest of their key.
    pub(crate) old_versions: u64,
    /// About how many entries of older tables these hid when they were
    /// written.
    pub(crate) hidden: u64,
    /// Stretches of entries at least half of which are tombstones.
    pub(crate) dense_windows: u64,
    /// Seconds since 1970 when the newest entry was first written to a table.
    pub(crate) written_s: u64,
    /// Of the blocks that get smaller by it.
    pub(crate) compression: Compression,
}

/// The version of a key that [`Table::get`] found. Holds the block it is in.
pub(crate) struct TableEntry {
    pub(crate) tag: Tag,
    /// The block as it was read.
    buf: IoBuf,
    /// What it decompressed to; empty when it was not compressed.
    plain: Vec<u8>,
    value: Range<usize>,
}

impl TableEntry {
    pub(crate) fn value(&self) -> &[u8] {
        let block = if self.plain.is_empty() { &self.buf[..] } else { &self.plain };
        &block[self.value.clone()]
    }
}

impl Table {
    /// Opens the table in `file`, which must be what `meta` says it is, in the
    /// database `db`.
    pub(crate) async fn open<I: Io>(io: &I, file: File, db: DbId, meta: TableMeta) -> Result<Self> {
        let file_bytes = io.len(&file).await?;
        let damaged = |offset, reason: String| Error::corruption(file.path(), offset, reason);
        if file_bytes < meta.file_bytes {
            let reason =
                format!("the file ends before byte {}, where the table does", meta.file_bytes);
            return Err(damaged(file_bytes, reason));
        }
        if file_bytes > meta.file_bytes
            || file_bytes < TABLE_BYTES_MIN
            || !file_bytes.is_multiple_of(UNIT_U64)
        {
            let reason = format!(
                "the file has {file_bytes} bytes, and the manifest speaks of {}",
                meta.file_bytes
            );
            return Err(damaged(meta.file_bytes, reason));
        }

        let buf = read(io, &file, 0, IoBuf::zeroed(UNIT), "the header").await?;
        let header =
            Header::decode(&buf, FileType::Table).map_err(|error| error.at(file.path(), 0))?;
        header.check_belongs(db, meta.id).map_err(|error| error.at(file.path(), 0))?;

        let footer_at = file_bytes - UNIT_U64;
        let buf = read(io, &file, footer_at, buf, "the footer").await?;
        let footer = Footer::decode(&buf, &meta.table_id, footer_at)
            .map_err(|error| error.at(file.path(), footer_at))?;
        drop(buf);

        let regions = Regions::read(io, &file, footer.partitions.offset..footer_at).await?;
        let part = |region: &Region| regions.verified(&file, &meta.table_id, region);
        let located = |region: &Region, error: DecodeError| error.at(file.path(), region.offset);
        let properties = Properties::decode(part(&footer.properties)?)
            .map_err(|error| located(&footer.properties, error))?;
        if !agree(&meta, &footer, &properties) {
            let reason = "the table and the manifest say different things about its contents";
            return Err(damaged(footer.properties.offset, reason.to_owned()));
        }
        let units = footer.partitions.offset / UNIT_U64..footer.partitions.end() / UNIT_U64;
        let top = Index::decode(part(&footer.top_index)?, units)
            .map_err(|error| located(&footer.top_index, error))?;
        let mut all = Vec::with_capacity(top.blocks());
        for i in 0..top.blocks() {
            let (offset, len) = top.extent(i);
            let partition =
                Partition::decode(regions.at(offset, len), seed_at(&meta.table_id, offset));
            all.push(partition.map_err(|error| error.at(file.path(), offset))?);
        }
        drop(regions);
        let contents = Contents {
            bytes: properties.key_bytes.saturating_add(properties.value_bytes),
            tombstones: properties.tombstones,
            old_versions: properties.old_versions,
            hidden: properties.hidden,
            dense_windows: properties.dense_windows,
            written_s: properties.written_s,
            compression: footer.compression,
        };
        let partitions =
            Partitions::new(top, all).map_err(|error| located(&footer.partitions, error))?;
        Ok(Self { file, meta, contents, partitions, retired: retired::Place::new() })
    }

    pub(crate) fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// The table was durably taken out of the tree: its file goes when nobody
    /// reads it any more.
    pub(crate) fn retire(&self, place: &Arc<Retired>) {
        let first = self.retired.set(Arc::clone(place)).is_ok();
        assert!(first, "a table is taken out once");
    }

    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Whether the table may have a version of the key: surely, if it has one,
    /// and hardly ever, if it has not.
    pub(crate) fn may_hold(&self, key: &[u8], hash: KeyHash) -> bool {
        if *key < *self.meta.smallest || *key > *self.meta.largest {
            return false;
        }
        // Of the partitions that may have versions of the key, the first: each
        // has the key in its filter.
        let partition = self.partitions.partition_of(key, Tag::visible_at(SEQ_MAX));
        partition.filter.as_ref().is_none_or(|filter| filter.may_contain(hash.filter))
    }

    /// Bytes the open table takes in memory.
    pub(crate) fn pinned_bytes(&self) -> usize {
        size_of::<Self>()
            + self.meta.smallest.len()
            + self.meta.largest.len()
            + self.partitions.bytes()
    }

    pub(super) fn index(&self) -> &Partitions {
        &self.partitions
    }

    /// Finds the newest version of `key` at or below `bound`. Reads one block,
    /// or nothing when range or filter exclude the key.
    ///
    /// One block is always enough: no separator of the index lies between the
    /// version that is sought and where it would be, also when versions of one
    /// key are in several blocks.
    pub(crate) async fn get<I: Io>(
        &self,
        io: &I,
        counters: &ReadCounters,
        key: &[u8],
        hash: KeyHash,
        bound: SeqNo,
    ) -> Result<Option<TableEntry>> {
        if key < &self.meta.smallest[..] || key > &self.meta.largest[..] {
            return Ok(None);
        }
        let partition = self.partitions.partition_of(key, Tag::visible_at(bound));
        if let Some(filter) = &partition.filter {
            counters.filter_probes.fetch_add(1, Ordering::Relaxed);
            if !filter.may_contain(hash.filter) {
                counters.filter_negatives.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            }
        }
        let Some(block) = partition.find(key, Tag::visible_at(bound)) else {
            // The key is the table's largest, and every version of it newer.
            return Ok(None);
        };
        let (offset, len) = self.partitions.extent(block);
        let buf = self.read(io, offset, IoBuf::zeroed(len)).await?;
        let mut plain = Vec::new();
        let found = self
            .decode(&buf, offset, &mut plain)
            .and_then(|found| found.get(key, hash.filter, bound))
            .map_err(|error| self.damage(offset, &error))?;
        match found {
            Lookup::Found { tag, value } => return Ok(Some(TableEntry { tag, buf, plain, value })),
            Lookup::OnlyNewer => {}
            Lookup::Absent => {
                let newer_before = block > 0 && self.partitions.ends_with(block - 1, key);
                if partition.filter.is_some() && !newer_before {
                    counters.filter_false_positives.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(None)
    }

    /// Fills `buf` with blocks, which nobody has verified yet.
    pub(super) async fn read<I: Io>(&self, io: &I, offset: u64, buf: IoBuf) -> Result<IoBuf> {
        read(io, &self.file, offset, buf, "a data block").await
    }

    /// Verifies the block that was read from `offset`, and decompresses it into
    /// `plain` if it is compressed.
    pub(super) fn decode<'a>(
        &self,
        extent: &'a [u8],
        offset: u64,
        plain: &'a mut Vec<u8>,
    ) -> Result<Block<'a>, DecodeError> {
        Block::decode(extent, seed_at(&self.meta.table_id, offset), plain)
    }

    /// The error for a block, read from `offset`, that does not decode.
    pub(super) fn damage(&self, offset: u64, error: &DecodeError) -> Error {
        error.at(self.file.path(), offset)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({}, {} blocks)", self.file.path().display(), self.partitions.blocks())
    }
}

/// Whether the table itself and the manifest say the same.
fn agree(meta: &TableMeta, footer: &Footer, properties: &Properties) -> bool {
    footer.entries == meta.entries
        && properties.entries == meta.entries
        && properties.smallest == meta.smallest
        && properties.largest == meta.largest
        && properties.seq_min == meta.seq_min
        && properties.seq_max == meta.seq_max
        && properties.epoch == meta.id.epoch()
}

/// Partitions, top index and properties as they are on disk.
struct Regions {
    offset: u64,
    bytes: Vec<u8>,
}

impl Regions {
    async fn read<I: Io>(io: &I, file: &File, place: Range<u64>) -> Result<Self> {
        let mut bytes = Vec::with_capacity((place.end - place.start) as usize);
        let mut offset = place.start;
        while offset < place.end {
            let len = (place.end - offset).min(REQUEST_BYTES_MAX as u64);
            let what = "filter, index and properties";
            let buf = read(io, file, offset, IoBuf::zeroed(len as usize), what).await?;
            bytes.extend_from_slice(&buf);
            offset += len;
        }
        Ok(Self { offset: place.start, bytes })
    }

    /// So many bytes from `offset` on, which nobody has verified yet.
    fn at(&self, offset: u64, len: usize) -> &[u8] {
        &self.bytes[(offset - self.offset) as usize..][..len]
    }

    /// The bytes of one region, verified.
    fn verified(&self, file: &File, table_id: &[u8; 16], region: &Region) -> Result<&[u8]> {
        let padded = self.at(region.offset, round_up_u64(region.bytes) as usize);
        if seed_at(table_id, region.offset).checksum(padded) != region.crc {
            let reason = "the checksum of top index or properties does not match";
            return Err(Error::corruption(file.path(), region.offset, reason));
        }
        Ok(&padded[..region.bytes as usize])
    }
}

/// Fills the whole of `buf`. A read that fails is tried once more.
async fn read<I: Io>(io: &I, file: &File, offset: u64, buf: IoBuf, what: &str) -> Result<IoBuf> {
    let (mut buf, mut result) = io.read(file, offset, buf).await;
    if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Io) {
        (buf, result) = io.read(file, offset, buf).await;
    }
    let bytes = result?;
    if bytes < buf.len() {
        let reason = format!("the file ends before the end of {what}");
        return Err(Error::corruption(file.path(), offset + bytes as u64, reason));
    }
    Ok(buf)
}
