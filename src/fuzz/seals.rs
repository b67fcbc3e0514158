//! Where in the files of a database the checksums are, so that a change to what
//! is under one can be sealed again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::base::checksum::Seed;
use crate::base::ids::{Epoch, FileId};
use crate::base::limits::{UNIT, UNIT_U64, round_up, round_up_u64};
use crate::format::edit::{self, Edit};
use crate::format::header::{self, FileType, Header};
use crate::format::record::{HEADER_BYTES, Record, stream_seed, u32_at, u64_at};
use crate::format::table::{Footer, Partition, Properties, Region, TopIndex, seed_at};
use crate::manifest;
use crate::wal::{MapUse, SegmentUse};

/// The files of a database.
pub(super) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A part of a file under one checksum.
pub(super) struct Sealed {
    pub(super) path: PathBuf,
    pub(super) range: Range<usize>,
    seal: Seal,
}

/// Which checksum it is under.
#[derive(Clone, Copy)]
enum Seal {
    Header,
    Record(Seed),
    /// At its end: a data block, or a footer.
    AtEnd(Seed),
    /// At its start.
    Partition(Seed),
    /// In the footer.
    Region {
        seed: Seed,
        crc_at: usize,
        footer: Seed,
    },
}

impl Sealed {
    /// Gives the part the checksum of what is in it now.
    pub(super) fn seal(&self, file: &mut [u8]) {
        let Range { start, end } = self.range.clone();
        match self.seal {
            Seal::Header => header::seal(&mut file[start..end]),
            Seal::Record(seed) => {
                // As long as the record says now, if there is so much.
                let stated =
                    (start + HEADER_BYTES).saturating_add(u32_at(file, start + 4) as usize);
                let end = if stated <= file.len() { stated } else { end };
                put(file, start, seed.checksum(&file[start + 4..end]));
            }
            Seal::AtEnd(seed) => put(file, end - 4, seed.checksum(&file[start..end - 4])),
            Seal::Partition(seed) => put(file, start, seed.checksum(&file[start + 4..end])),
            Seal::Region { seed, crc_at, footer } => {
                put(file, crc_at, seed.checksum(&file[start..end]));
                let unit = file.len() - UNIT;
                put(file, file.len() - 4, footer.checksum(&file[unit..file.len() - 4]));
            }
        }
    }
}

fn put(file: &mut [u8], at: usize, crc: u32) {
    file[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// All parts of these files, which are sound, that are under a checksum.
pub(super) fn find(files: &Files) -> Vec<Sealed> {
    let mut finder = Finder { sealed: Vec::new(), table_ids: BTreeMap::new() };
    // Manifests say how tables are called.
    for is_table in [false, true] {
        for (path, bytes) in files {
            if let Some(file_type) = FileType::of(bytes)
                && (file_type == FileType::Table) == is_table
            {
                finder.file(path, bytes, file_type);
            }
        }
    }
    finder.sealed
}

struct Finder {
    sealed: Vec<Sealed>,
    table_ids: BTreeMap<FileId, [u8; 16]>,
}

impl Finder {
    fn push(&mut self, path: &Path, range: Range<usize>, seal: Seal) {
        self.sealed.push(Sealed { path: path.to_owned(), range, seal });
    }

    fn file(&mut self, path: &Path, bytes: &[u8], file_type: FileType) {
        let header = Header::decode(&bytes[..UNIT], file_type).expect("a sound header");
        self.push(path, 0..UNIT, Seal::Header);
        match file_type {
            FileType::Identity => self.push(path, UNIT..2 * UNIT, Seal::Header),
            FileType::Wal => {
                let usage = SegmentUse::decode(&header.extra).expect("a sound header");
                let seed = stream_seed(header.db, usage.stream.epoch, usage.stream.stream);
                let position = |at: usize| usage.start + (at - UNIT) as u64;
                self.records(path, bytes, seed, usage.stream.epoch, position);
            }
            FileType::Map => {
                let usage = MapUse::decode(&header.extra).expect("a sound header");
                let seed = stream_seed(header.db, usage.stream.epoch, usage.stream.stream);
                // Records in it say themselves where they belong.
                let position = |at: usize| bytes.get(at + 16..at + 24).map_or(0, |b| u64_at(b, 0));
                self.records(path, bytes, seed, usage.stream.epoch, position);
            }
            FileType::Manifest => {
                let seed = manifest::seed(header.db, header.file);
                self.records(path, bytes, seed, header.file.epoch(), |at| at as u64);
            }
            FileType::Table => self.table(path, bytes, header.file),
            FileType::Value => {}
        }
    }

    fn records(
        &mut self,
        path: &Path,
        bytes: &[u8],
        seed: Seed,
        epoch: Epoch,
        position: impl Fn(usize) -> u64,
    ) {
        let mut at = UNIT;
        while at < bytes.len() {
            match Record::decode(&bytes[at..], seed, epoch, position(at)) {
                Ok(Some(record)) => {
                    let end = at + HEADER_BYTES + record.payload.len();
                    self.push(path, at..end, Seal::Record(seed));
                    for edit in edit::decode_all(record.payload).unwrap_or_default() {
                        if let Edit::Table { meta, .. } = edit {
                            self.table_ids.insert(meta.id, meta.table_id);
                        }
                    }
                    at = end;
                }
                _ => at = round_up(at + 1),
            }
        }
    }

    fn table(&mut self, path: &Path, bytes: &[u8], id: FileId) {
        // One that no manifest names is waiting to be written over.
        let Some(table_id) = self.table_ids.get(&id).copied() else { return };
        let sound = "a sound table";
        let seed = |offset: u64| seed_at(&table_id, offset);
        let footer_at = (bytes.len() - UNIT) as u64;
        let footer =
            Footer::decode(&bytes[footer_at as usize..], &table_id, footer_at).expect(sound);
        self.push(path, footer_at as usize..bytes.len(), Seal::AtEnd(seed(footer_at)));
        let part = |region: &Region| &bytes[region.offset as usize..][..region.bytes as usize];
        for (region, field) in [(&footer.top_index, 80), (&footer.properties, 104)] {
            let end = region.offset + round_up_u64(region.bytes);
            let crc_at = footer_at as usize + field;
            let seal = Seal::Region { seed: seed(region.offset), crc_at, footer: seed(footer_at) };
            self.push(path, region.offset as usize..end as usize, seal);
        }
        let units = footer.partitions.offset / UNIT_U64..footer.partitions.end() / UNIT_U64;
        let properties = Properties::decode(part(&footer.properties)).expect(sound);
        let top = TopIndex::decode(part(&footer.top_index), units, &properties.partition_blocks);
        let top = top.expect(sound);
        for number in 0..top.partitions() {
            let (offset, len) = top.extent(number);
            let range = offset as usize..offset as usize + len;
            let partition = Partition::decode(&bytes[range.clone()], seed(offset)).expect(sound);
            self.push(path, range, Seal::Partition(seed(offset)));
            for block in 0..partition.index().blocks() {
                let (offset, len) = partition.index().extent(block);
                let range = offset as usize..offset as usize + len;
                self.push(path, range, Seal::AtEnd(seed(offset)));
            }
        }
    }
}
