//! Tables as a salvage reads them: block after block, by their trailers, without
//! index or filter, and on behind what is damaged.
//!
//! A table needs its id, to which all checksums are bound: from the manifest, or
//! from the footer. From the properties come its range tombstones. Memory is that
//! of one read and of one block's entries.

use std::ops::Bound;
use std::path::{Path, PathBuf};

use crate::base::keys::KeyBounds;
use crate::base::limits::{UNIT, UNIT_U64, round_up_u64};
use crate::base::ranges::RangeTombstones;
use crate::base::seq::{SeqNo, Tag, compare_internal};
use crate::format::block::{BLOCK_BYTES_MAX, Block, BlockCursor, plausible_lengths};
use crate::format::header::DecodeError;
use crate::format::table::{Footer, Partition, Properties, TABLE_BYTES_MIN, seed_at};
use crate::io::{File, Halt, Inspection, Io};
use crate::sst::{REQUEST_BYTES_MAX, TableMeta};

/// What of a table is lost.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) offset: u64,
    pub(crate) reason: String,
    pub(crate) keys: KeyBounds,
}

/// A version of a key.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) tag: Tag,
    pub(crate) value: Vec<u8>,
}

/// A table whose blocks can be read.
pub(crate) struct FoundTable {
    path: PathBuf,
    table_id: [u8; 16],
    /// Where its data end; without a footer, where the file does.
    end: u64,
    /// There is no footer: behind the data are partitions, and what follows them.
    and_after: bool,
    /// The file ends here, before the table does.
    cut: Option<u64>,
    bounds: KeyBounds,
    /// How many there are, if anything says so.
    entries: Option<u64>,
    pub(crate) ranges: RangeTombstones,
    /// The highest sequence number in it that is known of; 0 for none.
    pub(crate) seq_max: SeqNo,
}

/// The bounds of all keys.
const ANY: KeyBounds = (Bound::Unbounded, Bound::Unbounded);

/// Looks for the table in the file at `path`, of which the manifest says `meta`, if
/// it says anything. What is already lost of it goes to `lost`. `None` when
/// nothing of it can be read.
pub(crate) async fn find_table<I: Io>(
    inspection: &mut Inspection<'_, I>,
    path: &Path,
    meta: Option<&TableMeta>,
    lost: &mut Vec<Lost>,
) -> Result<Option<FoundTable>, Halt> {
    let mut bounds = match meta {
        Some(meta) => {
            (Bound::Included(meta.smallest.clone()), Bound::Included(meta.largest.clone()))
        }
        None => ANY,
    };
    let mut lose = |offset, reason: &str, keys: &KeyBounds| {
        lost.push(Lost { offset, reason: reason.to_owned(), keys: keys.clone() });
    };
    let Some((file, len)) = inspection.open(path, "table").await? else {
        lose(0, "the table cannot be had: its keys are lost, or come back older", &bounds);
        return Ok(None);
    };
    let own_bytes = len / UNIT_U64 * UNIT_U64;
    let file_bytes = match meta {
        Some(meta) if meta.file_bytes.is_multiple_of(UNIT_U64) => meta.file_bytes,
        _ => own_bytes,
    };
    let footer_at = file_bytes.saturating_sub(UNIT_U64);
    let unit = match (TABLE_BYTES_MIN..=own_bytes).contains(&file_bytes) {
        true => inspection.read(&file, footer_at, UNIT).await?,
        false => None,
    };
    let stated = unit.as_ref().and_then(|unit| unit[8..24].try_into().ok());
    let table_id = meta.map(|meta| meta.table_id).or(stated);
    let footer = match (&unit, table_id) {
        (Some(unit), Some(id)) => sound(Footer::decode(unit, &id, footer_at), path, footer_at)?,
        _ => None,
    };
    let known = if meta.is_some() { table_id } else { table_id.filter(|_| footer.is_some()) };
    let Some(table_id) = known else {
        let reason = "neither manifest nor footer tells the table's id, without which no checksum \
                      can be judged: its keys are lost, or come back older";
        lose(footer_at.min(len), reason, &bounds);
        return Ok(None);
    };
    let properties = match &footer {
        Some(footer) => {
            let region = footer.properties;
            let end = region.offset + round_up_u64(region.bytes);
            let bytes = inspection.read_range(&file, region.offset..end).await?;
            let is_sound = seed_at(&table_id, region.offset).checksum(&bytes) == region.crc;
            let decoded = Properties::decode(&bytes[..region.bytes as usize]);
            if is_sound { sound(decoded, path, region.offset)? } else { None }
        }
        None => None,
    };
    if let Some(properties) = &properties {
        let (smallest, largest) = (properties.smallest.clone(), properties.largest.clone());
        bounds = (Bound::Included(smallest), Bound::Included(largest));
    } else {
        let offset = footer.as_ref().map_or(footer_at.min(len), |footer| footer.properties.offset);
        let reason = "what tells of deleted ranges is damaged: if there were any, what they deleted \
                      comes back";
        lose(offset, reason, &bounds);
    }
    let seq_max = match (&properties, meta) {
        (Some(properties), _) => properties.seq_max,
        (None, Some(meta)) => meta.seq_max,
        (None, None) => 0,
    };
    Ok(Some(FoundTable {
        path: path.to_owned(),
        table_id,
        end: footer.as_ref().map_or(own_bytes.min(file_bytes), |footer| footer.partitions.offset),
        and_after: footer.is_none(),
        cut: (own_bytes < file_bytes).then_some(own_bytes),
        bounds,
        entries: footer.map(|footer| footer.entries).or(meta.map(|meta| meta.entries)),
        ranges: properties.map(|properties| properties.ranges).unwrap_or_default(),
        seq_max,
    }))
}

/// What was decoded; `None` if it is damaged.
fn sound<T>(decoded: Result<T, DecodeError>, path: &Path, at: u64) -> Result<Option<T>, Halt> {
    match decoded {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.unsupported => Err(Halt::Failed(error.at(path, at))),
        Err(_) => Ok(None),
    }
}

impl FoundTable {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A walk over the entries. `None` when the file cannot be opened any more.
    pub(crate) async fn scan<I: Io>(
        self,
        inspection: &mut Inspection<'_, I>,
    ) -> Result<Option<TableScan>, Halt> {
        let opened = inspection.open(&self.path, "table").await?;
        Ok(opened.map(|(file, _)| TableScan::new(self, file)))
    }
}

/// A walk over the sound entries of a table, in order.
pub(crate) struct TableScan {
    table: FoundTable,
    file: File,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
    /// Entries of the block at hand.
    block: std::vec::IntoIter<Entry>,
    /// The last entry of the last block.
    last: Option<(Vec<u8>, Tag)>,
    /// Where units began that are nothing.
    unknown: Option<u64>,
    entries: u64,
    has_lost: bool,
    is_over: bool,
    /// What turned out to be lost; to be taken.
    pub(crate) lost: Vec<Lost>,
}

impl TableScan {
    fn new(table: FoundTable, file: File) -> Self {
        Self {
            table,
            file,
            at: UNIT_U64,
            window: Vec::new(),
            window_at: UNIT_U64,
            block: Vec::new().into_iter(),
            last: None,
            unknown: None,
            entries: 0,
            has_lost: false,
            is_over: false,
            lost: Vec::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.table.path
    }

    /// The table, as before the walk.
    pub(crate) fn into_table(self) -> FoundTable {
        self.table
    }

    /// The next entry.
    pub(crate) async fn next<I: Io>(
        &mut self,
        inspection: &mut Inspection<'_, I>,
    ) -> Result<Option<Entry>, Halt> {
        loop {
            if let Some(entry) = self.block.next() {
                return Ok(Some(entry));
            }
            if self.is_over {
                return Ok(None);
            }
            self.next_block(inspection).await?;
        }
    }

    async fn next_block<I: Io>(&mut self, inspection: &mut Inspection<'_, I>) -> Result<(), Halt> {
        while self.at < self.table.end {
            let held = (self.at - self.window_at) as usize;
            let window_end = self.window_at + self.window.len() as u64;
            if self.window.len() < held + BLOCK_BYTES_MAX && window_end < self.table.end {
                let until = self.table.end.min(self.at + REQUEST_BYTES_MAX as u64);
                self.window = inspection.read_range(&self.file, self.at..until).await?;
                self.window_at = self.at;
            }
            let bytes = &self.window[(self.at - self.window_at) as usize..];
            let seed = seed_at(&self.table.table_id, self.at);
            if let Some((len, entries)) = self.block_in(bytes)? {
                if let Some(start) = self.unknown.take() {
                    let next = Bound::Included(entries[0].key.as_slice().into());
                    self.lose(start, "a block is damaged", next);
                }
                self.at += len as u64;
                self.entries += entries.len() as u64;
                self.last = entries.last().map(|last| (last.key.clone(), last.tag));
                self.block = entries.into_iter();
                return Ok(());
            }
            let partition = Partition::plausible_length(bytes).filter(|_| self.table.and_after);
            if partition.is_some_and(|len| Partition::decode(&bytes[..len], seed).is_ok()) {
                // The data were before it, and all of them.
                self.table.cut = None;
                break;
            }
            self.unknown.get_or_insert(self.at);
            self.at += UNIT_U64;
        }
        self.is_over = true;
        self.window = Vec::new();
        let largest = self.table.bounds.1.clone();
        if let Some(start) = self.unknown.take() {
            self.lose(start, "a block is damaged", largest);
        } else if let Some(end) = self.table.cut {
            self.lose(end, "the file ends before the table", largest);
        } else if let Some(stated) = self.table.entries.filter(|&stated| stated > self.entries)
            && !self.has_lost
        {
            let missing = stated - self.entries;
            let reason = format!("{missing} entries are missing");
            self.last = None;
            self.lose(self.table.end, &reason, largest);
        }
        Ok(())
    }

    /// The block that starts here: its length, and its entries, at least one.
    fn block_in(&self, bytes: &[u8]) -> Result<Option<(usize, Vec<Entry>)>, Halt> {
        let seed = seed_at(&self.table.table_id, self.at);
        for len in plausible_lengths(bytes) {
            let mut plain = Vec::new();
            let block = Block::decode(&bytes[..len], seed, &mut plain);
            let Some(block) = sound(block, &self.table.path, self.at)? else { continue };
            let entries = sound(self.entries_of(block), &self.table.path, self.at)?;
            return Ok(entries.filter(|entries| !entries.is_empty()).map(|entries| (len, entries)));
        }
        Ok(None)
    }

    /// The entries of a block, all of which follow what came before.
    fn entries_of(&self, block: Block<'_>) -> Result<Vec<Entry>, DecodeError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut cursor = BlockCursor::new();
        cursor.seek_to_first(block)?;
        while cursor.is_valid() {
            let (key, tag) = (cursor.key(), cursor.tag());
            let in_block = entries.last().map(|entry| (&entry.key[..], entry.tag));
            let before = in_block.or(self.last.as_ref().map(|(key, tag)| (&key[..], *tag)));
            if before.is_some_and(|before| !compare_internal(before, (key, tag)).is_lt()) {
                return Err(DecodeError::corrupt(0, "an entry is out of order"));
            }
            let value = block.bytes(cursor.value()).to_vec();
            entries.push(Entry { key: key.to_vec(), tag, value });
            cursor.next(block)?;
        }
        Ok(entries)
    }

    /// Notes that the keys behind the last one are lost, up to `to`.
    fn lose(&mut self, offset: u64, what: &str, to: Bound<Box<[u8]>>) {
        let from = match &self.last {
            Some((key, _)) => Bound::Included(key.as_slice().into()),
            None => self.table.bounds.0.clone(),
        };
        let reason = format!("{what}: keys are lost, or come back older");
        self.has_lost = true;
        self.lost.push(Lost { offset, reason, keys: (from, to) });
    }
}
