//! What is wrong with the values that tables and log refer to, and with what the
//! shard's manifest says of them.
//!
//! Memory is that of one piece of a value, of the shard's [`Ledger`], and of a
//! few words for each value file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::ids::{DbId, FileId};
use crate::base::limits::{UNIT, round_up};
use crate::format::header::{ByteReader, FileType, Header};
use crate::format::value::{Extent, Reference, Verifier, value_seed};
use crate::io::{File, Halt, Inspection, Io};
use crate::value::{Ledger, PIECE_BYTES, SUFFIX};

/// What refers to a value: a file, and where in it.
#[derive(Clone, Copy)]
pub(crate) struct Referrer<'a> {
    pub(crate) path: &'a Path,
    pub(crate) offset: u64,
    pub(crate) is_table: bool,
}

/// Verifies the value files of one shard, reference by reference.
pub(crate) struct ValueCheck {
    db: DbId,
    dir: PathBuf,
    /// The shard's.
    manifest: PathBuf,
    ledger: Ledger,
    /// Dropped places, in order.
    dropped: Vec<Extent>,
    files: BTreeMap<FileId, Referred>,
    /// The file that was read last, and its length.
    open: Option<(FileId, File, u64)>,
}

/// A file that something refers to.
#[derive(Default)]
struct Referred {
    /// Bytes of it that tables refer to.
    bytes_in_tables: u64,
    was_opened: bool,
    /// It is missing, or another file.
    is_unusable: bool,
}

impl ValueCheck {
    /// For the shard in `dir`, whose manifest says what `ledger` holds.
    pub(crate) fn new(db: DbId, dir: &Path, manifest: &Path, ledger: Ledger) -> Self {
        let mut dropped = ledger.pending().map_or(Vec::new(), |garbage| garbage.extents);
        dropped.sort_unstable();
        let (dir, manifest) = (dir.to_owned(), manifest.to_owned());
        Self { db, dir, manifest, ledger, dropped, files: BTreeMap::new(), open: None }
    }

    /// Verifies the value that an encoded reference refers to; says whether it
    /// is sound.
    pub(crate) async fn value<I: Io>(
        &mut self,
        inspection: &mut Inspection<'_, I>,
        reference: &[u8],
        by: Referrer<'_>,
    ) -> Result<bool, Halt> {
        let decoded = Reference::decode(reference).map_err(|error| error.at(by.path, by.offset));
        let Some(reference) = inspection.sound(decoded)? else { return Ok(false) };
        let extent = reference.extent();
        if by.is_table {
            let sum = &mut self.files.entry(extent.file).or_default().bytes_in_tables;
            *sum = sum.saturating_add(extent.bytes);
        }
        let (offset, len, by) = (reference.offset, reference.len, by.path.display());
        if self.is_dropped(&extent) {
            let reason = format!(
                "the place at offset {offset} of value file {} counts as dropped, and {by} refers \
                 to it",
                extent.file
            );
            inspection.fault(&self.manifest, 0, reason)?;
        }
        let Some((file, file_len)) = self.file(inspection, extent.file).await? else {
            return Ok(false);
        };
        let path = file.path();
        if file_len < extent.offset + extent.bytes {
            let reason = format!(
                "the file ends here, and {by} refers to {len} bytes at offset {offset} of it"
            );
            inspection.fault(path, file_len, reason)?;
            return Ok(false);
        }
        let faults = inspection.counts.faults;
        let mut verifier = Verifier::new(reference, value_seed(self.db, extent.file));
        for start in (0..len).step_by(PIECE_BYTES) {
            let wanted = PIECE_BYTES.min(len - start);
            let at = offset + start as u64;
            let piece = inspection.read_range(&file, at..at + round_up(wanted) as u64).await?;
            let (piece, padding) = piece.split_at(wanted);
            for chunk in verifier.add(piece) {
                let reason = format!(
                    "the checksum of a part of a value does not match: {by} refers to {len} bytes \
                     at offset {offset}"
                );
                inspection.fault(path, chunk, reason)?;
            }
            let padding = ByteReader::new(padding).zeroes_to_end();
            inspection.sound(padding.map_err(|error| error.at(path, at + wanted as u64)))?;
        }
        let is_sound = inspection.counts.faults == faults;
        if is_sound {
            inspection.counts.values += 1;
            inspection.counts.value_bytes += len as u64;
        }
        Ok(is_sound)
    }

    /// Whether a part of the place was dropped.
    fn is_dropped(&self, place: &Extent) -> bool {
        let end = (place.file, place.offset + place.bytes);
        let before = self.dropped.partition_point(|other| (other.file, other.offset) < end);
        self.dropped[..before].last().is_some_and(|other| {
            other.file == place.file && other.offset + other.bytes > place.offset
        })
    }

    /// The file, and how long it is; its header is verified at the first time.
    async fn file<I: Io>(
        &mut self,
        inspection: &mut Inspection<'_, I>,
        id: FileId,
    ) -> Result<Option<(File, u64)>, Halt> {
        if let Some((open, file, len)) = &self.open
            && *open == id
        {
            return Ok(Some((file.clone(), *len)));
        }
        let referred = self.files.entry(id).or_default();
        if referred.is_unusable {
            return Ok(None);
        }
        let path = self.dir.join(format!("{id}{SUFFIX}"));
        let Some((file, len)) = inspection.open(&path, "value file").await? else {
            referred.is_unusable = true;
            return Ok(None);
        };
        if !std::mem::replace(&mut referred.was_opened, true) {
            inspection.counts.value_files += 1;
            // Without it, the values can be read all the same; but not those of
            // another file.
            if let Some(unit) = inspection.read(&file, 0, UNIT).await? {
                let header = Header::decode(&unit, FileType::Value).map_err(|e| e.at(&path, 0));
                if let Some(header) = inspection.sound(header)? {
                    let own = header.check_belongs(self.db, id).map_err(|e| e.at(&path, 0));
                    referred.is_unusable = inspection.sound(own)?.is_none();
                }
            }
            if referred.is_unusable {
                return Ok(None);
            }
        }
        self.open = Some((id, file.clone(), len));
        Ok(Some((file, len)))
    }

    /// Holds the ledger against the tables, whose references were all verified;
    /// `are_whole`: every entry of theirs could be read.
    ///
    /// A commit says in one record which tables there are, what they refer to
    /// more, and what is dropped; so the two agree after any crash. They cease to
    /// only when a table is dropped that cannot be read (damaged, and too old for
    /// FIFO, or deleted by a range): what it referred to stays in the ledger, and
    /// its space is lost.
    pub(crate) async fn compare<I: Io>(
        &mut self,
        inspection: &mut Inspection<'_, I>,
        are_whole: bool,
    ) -> Result<(), Halt> {
        let stated: BTreeMap<FileId, u64> = self.ledger.files().collect();
        // Also what cannot be read now may refer to them.
        for id in stated.keys() {
            self.file(inspection, *id).await?;
        }
        for (id, referred) in &self.files {
            let known = stated.get(id).copied().unwrap_or(0);
            let found = referred.bytes_in_tables;
            if found > known || (found < known && are_whole) {
                let advice = if found < known {
                    ": no value is lost, but space is, as when a damaged table was dropped; a copy \
                     (ouro salvage) does without"
                } else {
                    ""
                };
                let reason = format!(
                    "tables refer to {found} bytes of value file {id}, and the manifest says that \
                     they refer to {known}{advice}"
                );
                inspection.fault(&self.manifest, 0, reason)?;
            }
        }
        Ok(())
    }

    /// Whether something refers, or until lately referred, to values in this
    /// file.
    pub(crate) fn is_in_use(&self, id: FileId) -> bool {
        let is_dropped = self.dropped.binary_search_by(|extent| extent.file.cmp(&id)).is_ok();
        is_dropped || self.files.contains_key(&id)
    }
}
