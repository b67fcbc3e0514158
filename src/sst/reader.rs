//! An open table: opening it, and looking one key up.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::hash::KeyHash;
use crate::base::ids::DbId;
use crate::base::limits::{UNIT, UNIT_U64, round_up_u64};
use crate::base::ranges::RangeTombstones;
use crate::base::seq::{SEQ_MAX, SeqNo, Tag};
use crate::base::sync::tally::Ordering;
use crate::cache::Cache;
use crate::format::block::{self, Block, Compression};
use crate::format::header::{DecodeError, FileType, Header};
use crate::format::table::{
    Footer, Index, Partition, Partitions, Properties, Region, TABLE_BYTES_MIN, seed_at,
};
use crate::io::{File, Io, IoBuf};
use crate::sst::blocks::Cached;
use crate::sst::{REQUEST_BYTES_MAX, ReadCounters, Retired, TableMeta, retired};

/// An open table. Its partitions are in memory, its blocks in the cache, if at
/// all.
pub(crate) struct Table {
    file: File,
    meta: TableMeta,
    contents: Contents,
    partitions: Partitions,
    /// `None` where there is no cache, and as long as it is only being made.
    cached: OnceLock<Cached>,
    /// `None` when there are none.
    ranges: Option<Arc<RangeTombstones>>,
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

/// What is looked for.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pub(crate) counters: &'a ReadCounters,
    pub(crate) key: &'a [u8],
    pub(crate) hash: KeyHash,
    /// The newest version at or below this number.
    pub(crate) bound: SeqNo,
}

/// What a look into what is in memory of a table came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// The version that was sought; its value was copied.
    Found(Tag),
    /// The table has none.
    Absent,
    /// It can only be in this block, which is not in memory.
    Missing(usize),
}

/// The version of a key that was found.
pub(crate) struct TableEntry {
    pub(crate) tag: Tag,
    pub(crate) value: Box<[u8]>,
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
        let ranges = Some(properties.ranges).filter(|ranges| !ranges.is_empty()).map(Arc::new);
        let (cached, retired) = (OnceLock::new(), retired::Place::new());
        Ok(Self { file, meta, contents, partitions, ranges, cached, retired })
    }

    /// From now on the table's blocks go into `cache`, if there is one.
    ///
    /// That takes the cache's lock, which lookups wait for, and so does dropping
    /// the table from then on: neither is for a thread of the idle class.
    pub(crate) fn cache_in(&self, cache: Option<&Arc<Cache>>) {
        if let Some(cache) = cache {
            let (id, blocks) = (self.meta.id.to_u64(), self.partitions.blocks());
            let first = self.cached.set(Cached::new(cache, id, blocks)).is_ok();
            assert!(first, "a table is in one cache");
        }
    }

    /// The table's share in the cache.
    pub(super) fn cached(&self) -> Option<&Cached> {
        self.cached.get()
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

    /// What it says of whole stretches of keys, if anything. It holds for the
    /// entries of older tables, and for those of its own that are older.
    pub(crate) fn ranges(&self) -> Option<&Arc<RangeTombstones>> {
        self.ranges.as_ref()
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
            + self.ranges.as_ref().map_or(0, |ranges| ranges.bytes())
            + self.cached().map_or(0, |cached| cached.table.links_bytes())
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn index(&self) -> &Partitions {
        &self.partitions
    }

    /// The block that holds what is looked for, if the table has it; `None` when
    /// range or filter exclude the key.
    ///
    /// One block is always enough: no separator of the index lies between the
    /// version that is sought and where it would be, also when versions of one
    /// key are in several blocks.
    fn block_of(&self, lookup: &Lookup<'_>) -> Option<usize> {
        let Lookup { counters, key, hash, bound } = *lookup;
        if key < &self.meta.smallest[..] || key > &self.meta.largest[..] {
            return None;
        }
        let partition = self.partitions.partition_of(key, Tag::visible_at(bound));
        if let Some(filter) = &partition.filter {
            counters.filter_probes.fetch_add(1, Ordering::Relaxed);
            if !filter.may_contain(hash.filter) {
                counters.filter_negatives.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        // There is none when the key is the table's largest, and every version
        // of it newer.
        partition.find(key, Tag::visible_at(bound))
    }

    /// Looks into filter, index and cache. The value that is found is copied
    /// into `value`; otherwise that holds anything.
    pub(crate) fn look(&self, lookup: &Lookup<'_>, value: &mut Vec<u8>) -> Result<Looked> {
        match self.block_of(lookup) {
            Some(block) => self.look_in_cache(block, lookup, value),
            None => Ok(Looked::Absent),
        }
    }

    fn look_in_cache(
        &self,
        block: usize,
        lookup: &Lookup<'_>,
        value: &mut Vec<u8>,
    ) -> Result<Looked> {
        let Some(Cached { table, .. }) = self.cached() else {
            return Ok(Looked::Missing(block));
        };
        let guard = table.cache().epochs().pin();
        let Some(hit) = table.get(&guard, block as u32) else {
            return Ok(Looked::Missing(block));
        };
        let found = if let Some(content) = hit.whole() {
            let found = self.find_in(content, block, lookup)?;
            if let Some((_, place)) = &found {
                value.clear();
                value.extend_from_slice(&content[place.clone()]);
            }
            found
        } else {
            hit.gather(value);
            let found = self.find_in(value, block, lookup)?;
            if let Some((_, place)) = &found {
                value.truncate(place.end);
                value.drain(..place.start);
            }
            found
        };
        Ok(found.map_or(Looked::Absent, |(tag, _)| Looked::Found(tag)))
    }

    /// Looks up in a block that [`Table::look`] missed: one read at most, unless
    /// it fails.
    pub(crate) async fn get<I: Io>(
        self: &Arc<Self>,
        io: &I,
        block: usize,
        lookup: &Lookup<'_>,
    ) -> Result<Option<TableEntry>> {
        loop {
            if let Some(content) = self.bring(io, block).await? {
                let mut scratch = Vec::new();
                let content = content.bytes(&mut scratch);
                let found = self.find_in(content, block, lookup)?;
                return Ok(
                    found.map(|(tag, place)| TableEntry { tag, value: Box::from(&content[place]) })
                );
            }
            let mut value = Vec::new();
            match self.look_in_cache(block, lookup, &mut value)? {
                Looked::Found(tag) => return Ok(Some(TableEntry { tag, value: value.into() })),
                Looked::Absent => return Ok(None),
                // It has left again.
                Looked::Missing(_) => {}
            }
        }
    }

    /// Finds the version in the content of its block: its tag, and where its
    /// value is.
    fn find_in(
        &self,
        content: &[u8],
        block: usize,
        lookup: &Lookup<'_>,
    ) -> Result<Option<(Tag, Range<usize>)>> {
        let Lookup { counters, key, hash, bound } = *lookup;
        let found = Block::of_verified(content)
            .and_then(|found| found.get(key, hash.filter, bound))
            .map_err(|error| self.damage(self.partitions.extent(block).0, &error))?;
        match found {
            block::Lookup::Found { tag, value } => return Ok(Some((tag, value))),
            block::Lookup::OnlyNewer => {}
            block::Lookup::Absent => {
                let partition = self.partitions.partition_of(key, Tag::visible_at(bound));
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
