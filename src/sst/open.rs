//! Opening a table: what it says of itself is held against the manifest, and its
//! partitions are read if they may be pinned. Otherwise it takes as few reads as
//! without any.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::DbId;
use crate::base::limits::{UNIT, UNIT_U64, round_up_u64};
use crate::base::sync::atomic::AtomicBool;
use crate::format::header::{DecodeError, FileType, Header};
use crate::format::table::{
    Footer, Partition, Properties, Region, TABLE_BYTES_MIN, TopIndex, seed_at,
};
use crate::io::{File, Io, IoBuf};
use crate::sst::pins::PinShare;
use crate::sst::reader::{Contents, Table};
use crate::sst::{REQUEST_BYTES_MAX, TableMeta, retired};

impl Table {
    /// Opens the table in `file`, which must be what `meta` says it is, in the
    /// database `db`. Its partitions are pinned if `share` has room for them.
    pub(crate) async fn open<I: Io>(
        io: &I,
        file: File,
        db: DbId,
        meta: TableMeta,
        share: &PinShare,
    ) -> Result<Self> {
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

        let units = footer.partitions.offset / UNIT_U64..footer.partitions.end() / UNIT_U64;
        let reserved = share.reserve(Partition::bytes_max(footer.partitions.bytes, units.start));
        let first = if reserved.is_some() { &footer.partitions } else { &footer.top_index };
        let regions = Regions::read(io, &file, first.offset..footer_at).await?;
        let part = |region: &Region| regions.verified(&file, &meta.table_id, region);
        let located = |region: &Region, error: DecodeError| error.at(file.path(), region.offset);
        let properties = Properties::decode(part(&footer.properties)?)
            .map_err(|error| located(&footer.properties, error))?;
        if !agree(&meta, &footer, &properties) {
            let reason = "the table and the manifest say different things about its contents";
            return Err(damaged(footer.properties.offset, reason.to_owned()));
        }
        let top = TopIndex::decode(part(&footer.top_index)?, units, &properties.partition_blocks)
            .map_err(|error| located(&footer.top_index, error))?;
        let (claim, pinned) = (share.claim(), OnceLock::new());
        if let Some(reserved) = reserved {
            let mut all: Vec<Partition> = Vec::with_capacity(top.partitions());
            for number in 0..top.partitions() {
                let (offset, len) = top.extent(number);
                let seed = seed_at(&meta.table_id, offset);
                let partition = Partition::decode(regions.at(offset, len), seed)
                    .and_then(|partition| top.admit(number, partition))
                    .and_then(|partition| match all.last() {
                        Some(before) => {
                            TopIndex::check_next(before, &partition).map(|()| partition)
                        }
                        None => Ok(partition),
                    })
                    .map_err(|error| error.at(file.path(), offset))?;
                all.push(partition);
            }
            claim.settle(reserved, bytes(&all));
            let is_first = pinned.set(all.into()).is_ok();
            assert!(is_first, "nobody has the table yet");
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
        let table = Self {
            file,
            meta,
            contents,
            top,
            pinned,
            claim,
            cached: OnceLock::new(),
            partition_cache: OnceLock::new(),
            pin_failed: AtomicBool::new(false),
            ranges: Some(properties.ranges).filter(|ranges| !ranges.is_empty()).map(Arc::new),
            retired: retired::Place::new(),
        };
        table.claim.add(table.own_bytes());
        Ok(table)
    }

    /// Bytes that it takes in memory without partitions and what it has in caches.
    fn own_bytes(&self) -> u64 {
        let keys = self.meta.smallest.len() + self.meta.largest.len();
        let ranges = self.ranges.as_ref().map_or(0, |ranges| ranges.bytes());
        (size_of::<Self>() + keys + self.top.bytes() + ranges) as u64
    }
}

/// Bytes that partitions take in memory.
pub(super) fn bytes(partitions: &[Partition]) -> u64 {
    partitions.iter().map(|partition| partition.bytes() as u64).sum()
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

/// Partitions (or not), top index and properties as they are on disk.
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
pub(super) async fn read<I: Io>(
    io: &I,
    file: &File,
    offset: u64,
    buf: IoBuf,
    what: &str,
) -> Result<IoBuf> {
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
