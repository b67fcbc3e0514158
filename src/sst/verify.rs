//! What is wrong with a table: every block, filter and index is read and held
//! against the others, against the properties, and against the manifest.
//!
//! Memory is that of one partition, the top index and one read. Where an index
//! is damaged, the blocks it led to are found by their trailers, so that they
//! are verified all the same.

use std::ops::Range;
use std::path::Path;

use crate::base::hash::KeyHasher;
use crate::base::ids::{DbId, ShardId};
use crate::base::limits::{UNIT, UNIT_U64, round_up_u64};
use crate::base::seq::{Kind, Tag, compare_internal};
use crate::format::block::{BLOCK_BYTES_MAX, Block, check_padding, plausible_lengths};
use crate::format::header::{ByteReader, DecodeError, FileType, Header};
use crate::format::table::{
    Footer, Index, Partition, Properties, Region, TABLE_BYTES_MIN, seed_at,
};
use crate::io::{File, Halt, Inspection, Io};
use crate::sst::{REQUEST_BYTES_MAX, TableMeta};

/// What a table is verified against.
pub(crate) struct TableCheck<'a> {
    pub(crate) db: DbId,
    pub(crate) hasher: &'a KeyHasher,
    pub(crate) shard: ShardId,
    /// Shards of the database.
    pub(crate) shards: usize,
    /// What the manifest says.
    pub(crate) meta: &'a TableMeta,
}

/// Verifies the table in the file at `path`. `refer` is told each reference to
/// a value, with the offset of its block. Says whether every entry was read.
pub(crate) async fn verify_table<I: Io>(
    inspection: &mut Inspection<'_, I>,
    path: &Path,
    check: &TableCheck<'_>,
    refer: impl AsyncFnMut(&mut Inspection<'_, I>, &[u8], u64) -> Result<(), Halt>,
) -> Result<bool, Halt> {
    let Some((file, len)) = inspection.open(path, "table").await? else {
        return Ok(false);
    };
    inspection.counts.tables += 1;
    let meta = check.meta;
    if meta.file_bytes < TABLE_BYTES_MIN || !meta.file_bytes.is_multiple_of(UNIT_U64) {
        let reason =
            format!("the manifest speaks of {} bytes, which no table has", meta.file_bytes);
        inspection.fault(path, 0, reason)?;
        return Ok(false);
    }
    if len < meta.file_bytes {
        let reason = format!("the file ends here, the table at byte {}", meta.file_bytes);
        inspection.fault(path, len, reason)?;
    } else if len > meta.file_bytes {
        let reason = format!("the table ends here, the file at byte {len}");
        inspection.fault(path, meta.file_bytes, reason)?;
    }
    let mut walk = TableWalk::new(inspection, path, file, check, refer);
    walk.header().await?;
    let footer = if len < meta.file_bytes { None } else { walk.footer().await? };
    let Some(footer) = footer else {
        let end = (len.min(meta.file_bytes) / UNIT_U64).max(1);
        walk.scan(1..end, true).await?;
        return Ok(false);
    };
    let properties = walk.properties(&footer).await?;
    walk.partitions(&footer, properties.as_ref()).await?;
    let is_whole = !walk.tally.is_partial && walk.tally.entries == footer.entries;
    walk.compare(&footer, properties.as_ref())?;
    Ok(is_whole)
}

/// What the entries come to.
#[derive(Default)]
struct Tally {
    entries: u64,
    tombstones: u64,
    /// Entries that are not the newest of their key.
    old_versions: u64,
    key_bytes: u64,
    value_bytes: u64,
    /// `None` before the first entry.
    seqs: Option<(u64, u64)>,
    smallest: Vec<u8>,
    /// The last entry; empty before the first.
    largest: Vec<u8>,
    last_tag: Option<Tag>,
    /// Some could not be read.
    is_partial: bool,
}

/// A partition whose blocks are being read.
struct Open {
    partition: Partition,
    offset: u64,
    /// The filter has denied a key: once is enough to say so.
    is_denied: bool,
}

struct TableWalk<'a, 'b, I, F> {
    inspection: &'a mut Inspection<'b, I>,
    path: &'a Path,
    file: File,
    check: &'a TableCheck<'a>,
    tally: Tally,
    plain: Vec<u8>,
    refer: F,
    /// References of the block that was verified last.
    references: Vec<Vec<u8>>,
}

impl<'a, 'b, I, F> TableWalk<'a, 'b, I, F>
where
    I: Io,
    F: AsyncFnMut(&mut Inspection<'_, I>, &[u8], u64) -> Result<(), Halt>,
{
    fn new(
        inspection: &'a mut Inspection<'b, I>,
        path: &'a Path,
        file: File,
        check: &'a TableCheck<'a>,
        refer: F,
    ) -> Self {
        let (tally, plain, references) = (Tally::default(), Vec::new(), Vec::new());
        Self { inspection, path, file, check, tally, plain, refer, references }
    }

    /// What was decoded at `offset`; `None`, and a fault, if it is damaged.
    fn sound<T>(&mut self, offset: u64, result: Result<T, DecodeError>) -> Result<Option<T>, Halt> {
        self.inspection.sound(result.map_err(|error| error.at(self.path, offset)))
    }

    async fn header(&mut self) -> Result<(), Halt> {
        let Some(unit) = self.inspection.read(&self.file, 0, UNIT).await? else {
            return Ok(());
        };
        let TableCheck { db, meta, .. } = *self.check;
        let header = Header::decode(&unit, FileType::Table);
        self.sound(0, header.and_then(|header| header.check_belongs(db, meta.id)))?;
        Ok(())
    }

    async fn footer(&mut self) -> Result<Option<Footer>, Halt> {
        let meta = self.check.meta;
        let offset = meta.file_bytes - UNIT_U64;
        let Some(unit) = self.inspection.read(&self.file, offset, UNIT).await? else {
            return Ok(None);
        };
        let footer = self.sound(offset, Footer::decode(&unit, &meta.table_id, offset))?;
        if let Some(footer) = &footer
            && footer.entries != meta.entries
        {
            let (own, other) = (footer.entries, meta.entries);
            let reason = format!("the footer speaks of {own} entries, the manifest of {other}");
            self.inspection.fault(self.path, offset, reason)?;
        }
        Ok(footer)
    }

    /// The bytes of a region, verified, without the padding.
    async fn region(&mut self, region: &Region, what: &str) -> Result<Option<Vec<u8>>, Halt> {
        let end = region.offset + round_up_u64(region.bytes);
        let mut bytes = self.inspection.read_range(&self.file, region.offset..end).await?;
        let seed = seed_at(&self.check.meta.table_id, region.offset);
        if seed.checksum(&bytes) != region.crc {
            let reason = format!("the checksum of the {what} does not match");
            self.inspection.fault(self.path, region.offset, reason)?;
            return Ok(None);
        }
        let used = region.bytes as usize;
        let padding = ByteReader::new(&bytes[used..]).zeroes_to_end();
        self.sound(region.offset + region.bytes, padding)?;
        bytes.truncate(used);
        Ok(Some(bytes))
    }

    async fn properties(&mut self, footer: &Footer) -> Result<Option<Properties>, Halt> {
        let region = &footer.properties;
        let Some(bytes) = self.region(region, "properties").await? else {
            return Ok(None);
        };
        self.sound(region.offset, Properties::decode(&bytes))
    }

    /// Verifies the partitions, and the data that each leads to.
    async fn partitions(
        &mut self,
        footer: &Footer,
        properties: Option<&Properties>,
    ) -> Result<(), Halt> {
        let (start, end) = (footer.partitions.offset, footer.partitions.end());
        let top = match self.region(&footer.top_index, "top index").await? {
            None => None,
            Some(bytes) => {
                let units = start / UNIT_U64..end / UNIT_U64;
                self.sound(footer.top_index.offset, Index::decode(&bytes, units))?
            }
        };
        let stated = properties.map_or(&[][..], |properties| &properties.partition_blocks);
        if let (Some(top), Some(_)) = (&top, properties)
            && top.blocks() != stated.len()
        {
            let (own, other) = (stated.len(), top.blocks());
            let reason = format!("the properties know {own} partitions, the top index {other}");
            self.inspection.fault(self.path, footer.properties.offset, reason)?;
        }
        // Up to here data was verified, or given up.
        let mut data_unit = 1;
        let mut is_lost = false;
        let (mut at, mut number) = (start, 0);
        while at < end {
            let len = match &top {
                Some(top) => top.extent(number).1,
                None => (end - at).min(BLOCK_BYTES_MAX as u64) as usize,
            };
            let mut bytes = self.inspection.read_range(&self.file, at..at + len as u64).await?;
            if top.is_none() {
                let len = Partition::plausible_length(&bytes).unwrap_or(UNIT);
                bytes.truncate(len);
            }
            let offset = at;
            let decoded = Partition::decode(&bytes, seed_at(&self.check.meta.table_id, offset));
            at += if top.is_some() || decoded.is_ok() { bytes.len() as u64 } else { UNIT_U64 };
            let decoded =
                if top.is_none() && is_lost { decoded.ok() } else { self.sound(offset, decoded)? };
            let Some(partition) = decoded else {
                (is_lost, number) = (true, number + 1);
                continue;
            };
            let data = partition.data();
            if data.start < data_unit || data.end * UNIT_U64 > start {
                let reason = format!(
                    "the data of a partition are at units {} to {}, and {data_unit} is next",
                    data.start, data.end
                );
                self.inspection.fault(self.path, offset, reason)?;
                (is_lost, number) = (true, number + 1);
                continue;
            }
            if data.start > data_unit {
                if !is_lost {
                    let reason = format!("no partition leads to the data at unit {data_unit}");
                    self.inspection.fault(self.path, offset, reason)?;
                }
                self.scan(data_unit..data.start, false).await?;
            }
            if let Some(top) = &top {
                let blocks = partition.index().blocks();
                if stated.get(number).is_some_and(|&stated| stated as usize != blocks) {
                    let reason = format!(
                        "the partition at offset {offset} has {blocks} blocks, and the properties \
                         say {}",
                        stated[number]
                    );
                    self.inspection.fault(self.path, footer.properties.offset, reason)?;
                }
                let last = partition.index().separator(partition.index().blocks() - 1);
                if last != top.separator(number) {
                    let reason = "the top index has another separator than the partition";
                    self.inspection.fault(self.path, footer.top_index.offset, reason)?;
                }
            }
            data_unit = data.end;
            (is_lost, number) = (false, number + 1);
            self.blocks(Open { partition, offset, is_denied: false }).await?;
        }
        let data_end = start / UNIT_U64;
        if data_unit < data_end {
            if !is_lost {
                let reason = format!("no partition leads to the data at unit {data_unit}");
                self.inspection.fault(self.path, start, reason)?;
            }
            self.scan(data_unit..data_end, false).await?;
        }
        Ok(())
    }

    /// Verifies the blocks of a partition.
    async fn blocks(&mut self, mut open: Open) -> Result<(), Halt> {
        let blocks = open.partition.index().blocks();
        let mut first = 0;
        while first < blocks {
            let (start, mut end) = (open.partition.index().extent(first).0, 0);
            let mut next = first;
            while next < blocks {
                let (offset, len) = open.partition.index().extent(next);
                if next > first && (offset - start) as usize + len > REQUEST_BYTES_MAX {
                    break;
                }
                (end, next) = (offset + len as u64, next + 1);
            }
            let bytes = self.inspection.read_range(&self.file, start..end).await?;
            for number in first..next {
                let (offset, len) = open.partition.index().extent(number);
                let extent = &bytes[(offset - start) as usize..][..len];
                self.block(offset, extent, Some((&mut open, number))).await?;
            }
            first = next;
        }
        Ok(())
    }

    /// Verifies one block, as the partition that leads to it has it, and what it
    /// refers to.
    async fn block(
        &mut self,
        offset: u64,
        extent: &[u8],
        from: Option<(&mut Open, usize)>,
    ) -> Result<(), Halt> {
        self.block_alone(offset, extent, from)?;
        for reference in std::mem::take(&mut self.references) {
            (self.refer)(self.inspection, &reference, offset).await?;
        }
        Ok(())
    }

    fn block_alone(
        &mut self,
        offset: u64,
        extent: &[u8],
        mut from: Option<(&mut Open, usize)>,
    ) -> Result<(), Halt> {
        let seed = seed_at(&self.check.meta.table_id, offset);
        let mut plain = std::mem::take(&mut self.plain);
        let mut faults = Vec::new();
        let entries_before = self.tally.entries;
        let before = self.tally.last_tag.map(|tag| (self.tally.largest.clone(), tag));
        let TableCheck { hasher, shards, shard, .. } = *self.check;
        let (mut first, mut denied, mut strayed) = (None, false, false);
        let (tally, references) = (&mut self.tally, &mut self.references);
        let filter = from.as_ref().and_then(|(open, _)| open.partition.filter.as_ref());
        let checked = Block::decode(extent, seed, &mut plain).and_then(|block| {
            check_padding(extent)?;
            block.check(
                |key| hasher.hash(key).filter,
                |key, tag, value| {
                    let hash = hasher.hash(key);
                    if first.is_none() {
                        first = Some((key.to_vec(), tag));
                    }
                    // A delete may stand for a range tombstone, which is of all shards.
                    let is_here = hash.shard(shards) == usize::from(shard);
                    strayed |= !is_here && tag.kind() != Some(Kind::Delete);
                    denied |= filter.is_some_and(|filter| !filter.may_contain(hash.filter));
                    tally.add(key, tag, value);
                    if tag.kind() == Some(Kind::Indirect) {
                        references.push(value.to_vec());
                    }
                },
            )
        });
        self.plain = plain;
        self.inspection.counts.entries += self.tally.entries - entries_before;
        match self.sound(offset, checked)? {
            Some(()) => self.inspection.counts.blocks += 1,
            None => self.tally.is_partial = true,
        }
        let Some(first) = first else { return Ok(()) };
        let first = (&first.0[..], first.1);
        if before.is_some_and(|(key, tag)| !compare_internal((&key, tag), first).is_lt()) {
            faults.push(
                "the block starts with an entry that belongs before those of the block before",
            );
        }
        if strayed {
            faults.push("the block has keys of another shard");
        }
        if let Some((open, number)) = &mut from {
            let index = open.partition.index();
            let last = self.tally.last_tag.map(|tag| (&self.tally.largest[..], tag));
            let (key, tag) = index.separator(*number);
            if last.is_some_and(|last| compare_internal((&key, tag), last).is_lt()) {
                faults.push("the block ends with an entry behind its separator in the index");
            }
            if let Some(before) = number.checked_sub(1) {
                let (key, tag) = index.separator(before);
                if !compare_internal((&key, tag), first).is_lt() {
                    faults.push(
                        "the block starts with an entry before the separator of the one before",
                    );
                }
            }
            if denied && !std::mem::replace(&mut open.is_denied, true) {
                let reason = format!("the filter denies a key of the block at offset {offset}");
                self.inspection.fault(self.path, open.offset, reason)?;
            }
        }
        for reason in faults {
            self.inspection.fault(self.path, offset, reason)?;
        }
        Ok(())
    }

    /// Looks for blocks in units that no index leads to. With `and_after` what
    /// follows the data is there, too: partitions are looked for as well, and
    /// what is behind the last one, which only the footer can tell, is left out.
    async fn scan(&mut self, units: Range<u64>, and_after: bool) -> Result<(), Halt> {
        self.tally.is_partial = true;
        let end = units.end * UNIT_U64;
        let mut at = units.start * UNIT_U64;
        let (mut window, mut window_at) = (Vec::new(), at);
        // Where units began that are nothing.
        let mut unknown: Option<u64> = None;
        let mut are_partitions = false;
        while at < end {
            let held = (at - window_at) as usize;
            if window.len() < held + BLOCK_BYTES_MAX && window_at + (window.len() as u64) < end {
                let until = end.min(at + (REQUEST_BYTES_MAX as u64));
                window = self.inspection.read_range(&self.file, at..until).await?;
                window_at = at;
            }
            let bytes = &window[(at - window_at) as usize..];
            let seed = seed_at(&self.check.meta.table_id, at);
            let mut plain = Vec::new();
            let is_block = |len: &usize| Block::decode(&bytes[..*len], seed, &mut plain).is_ok();
            let is_partition = |len: &usize| Partition::decode(&bytes[..*len], seed).is_ok();
            let block = plausible_lengths(bytes).find(is_block).filter(|_| !are_partitions);
            let partition =
                Partition::plausible_length(bytes).filter(|len| and_after && is_partition(len));
            are_partitions |= partition.is_some();
            let Some(len) = block.or(partition) else {
                unknown.get_or_insert(at);
                at += UNIT_U64;
                continue;
            };
            if let Some(start) = unknown.take() {
                self.nothing(start)?;
            }
            if block.is_some() {
                let extent = bytes[..len].to_vec();
                self.block(at, &extent, None).await?;
            }
            at += len as u64;
        }
        match unknown.filter(|_| !are_partitions) {
            Some(start) => self.nothing(start),
            None => Ok(()),
        }
    }

    fn nothing(&mut self, offset: u64) -> Result<(), Halt> {
        self.inspection.fault(self.path, offset, "nothing sound starts here")
    }

    /// Holds properties and manifest against the entries.
    fn compare(&mut self, footer: &Footer, properties: Option<&Properties>) -> Result<(), Halt> {
        let TableCheck { meta, shard, .. } = *self.check;
        let tally = std::mem::take(&mut self.tally);
        let mut faults = Vec::new();
        if let Some(properties) = properties {
            let p = properties;
            let mut agree = |same: bool, what: &str, other: &str| {
                if !same {
                    faults.push(format!("the properties have another {what} than {other}"));
                }
            };
            agree(p.shard == shard, "shard", "the directory");
            agree(p.epoch == meta.id.epoch(), "epoch", "the name of the file");
            let stated = "the manifest";
            agree(p.entries == meta.entries, "number of entries", stated);
            agree(p.smallest == meta.smallest, "smallest key", stated);
            agree(p.largest == meta.largest, "largest key", stated);
            agree(p.seq_min == meta.seq_min, "smallest sequence number", stated);
            agree(p.seq_max == meta.seq_max, "largest sequence number", stated);
            if let (false, Some((seq_min, seq_max))) = (tally.is_partial, tally.seqs) {
                let mut all = Properties {
                    smallest: tally.smallest.into(),
                    largest: tally.largest.into(),
                    seq_min,
                    seq_max,
                    ..p.clone()
                };
                all.add_ranges(&p.ranges);
                let found = "the entries";
                agree(p.entries == tally.entries, "number of entries", found);
                agree(p.tombstones == tally.tombstones, "number of tombstones", found);
                agree(p.old_versions == tally.old_versions, "number of old versions", found);
                agree(p.smallest == all.smallest, "smallest key", found);
                agree(p.largest == all.largest, "largest key", found);
                agree(
                    (p.seq_min, p.seq_max) == (all.seq_min, all.seq_max),
                    "range of sequence numbers",
                    found,
                );
                agree(p.key_bytes == tally.key_bytes, "sum of keys' lengths", found);
                agree(p.value_bytes == tally.value_bytes, "sum of values' lengths", found);
            }
        } else if !tally.is_partial && tally.entries != footer.entries {
            let (own, found) = (footer.entries, tally.entries);
            faults.push(format!("the footer speaks of {own} entries, and there are {found}"));
        }
        for reason in faults {
            self.inspection.fault(self.path, footer.properties.offset, reason)?;
        }
        Ok(())
    }
}

impl Tally {
    fn add(&mut self, key: &[u8], tag: Tag, value: &[u8]) {
        if self.entries == 0 {
            self.smallest = key.to_vec();
        }
        self.old_versions += u64::from(self.entries > 0 && *self.largest == *key);
        self.entries += 1;
        self.tombstones += u64::from(tag.kind() == Some(Kind::Delete));
        self.key_bytes += key.len() as u64;
        self.value_bytes += value.len() as u64;
        let (min, max) = self.seqs.unwrap_or((tag.seq(), tag.seq()));
        self.seqs = Some((min.min(tag.seq()), max.max(tag.seq())));
        self.largest.clear();
        self.largest.extend_from_slice(key);
        self.last_tag = Some(tag);
    }
}
