//! What is wrong with an identity file or a manifest: all of it, not only what
//! comes first.

use std::path::Path;

use crate::base::ids::{DbId, FileId};
use crate::base::limits::{UNIT, UNIT_U64, round_up_u64};
use crate::format::chain::{Step, Walk};
use crate::format::edit::{self, Edit};
use crate::format::record::{RecordKind, Unusable};
use crate::io::{File, Halt, Inspection, Io};
use crate::manifest::identity::{IDENTITY, Identity};
use crate::manifest::{FILE_BYTES_MAX, seed, snapshot_end};

/// Verifies the identity file. `None` when no copy in it is sound.
pub(crate) async fn verify_identity<I: Io>(
    inspection: &mut Inspection<'_, I>,
    dir: &Path,
) -> Result<Option<Identity>, Halt> {
    let path = dir.join(IDENTITY);
    let Some((file, len)) = inspection.open(&path, "identity file").await? else {
        return Ok(None);
    };
    let copies = copies(inspection, &file, len).await?;
    inspection.counts.identities += copies.len() as u64;
    Ok(copies.into_iter().next().map(|(_, identity)| identity))
}

/// The sound copies in an identity file of `len` bytes, each with its offset.
pub(super) async fn copies<I: Io>(
    inspection: &mut Inspection<'_, I>,
    file: &File,
    len: u64,
) -> Result<Vec<(u64, Identity)>, Halt> {
    let path = file.path();
    let mut copies = Vec::new();
    for offset in [0, UNIT_U64] {
        let Some(unit) = inspection.read(file, offset, UNIT).await? else { continue };
        let identity = inspection.sound(Identity::decode(&unit, path, offset))?;
        copies.extend(identity.map(|identity| (offset, identity)));
    }
    if let [(_, first), (_, second)] = &copies[..]
        && first != second
    {
        inspection.fault(path, UNIT_U64, "the identity's two copies do not agree")?;
    }
    if len > 2 * UNIT_U64 {
        let reason = format!("the file has {len} bytes, {} are all of it", 2 * UNIT);
        inspection.fault(path, 2 * UNIT_U64, reason)?;
    }
    Ok(copies)
}

/// Reports a length that no manifest has. A part of a unit at the end is room
/// that was being made.
pub(super) fn length<I: Io>(
    inspection: &mut Inspection<'_, I>,
    path: &Path,
    len: u64,
) -> Result<(), Halt> {
    match (UNIT_U64..=FILE_BYTES_MAX).contains(&len) {
        true => Ok(()),
        false => inspection.fault(path, len, format!("a manifest of {len} bytes makes no sense")),
    }
}

/// Reports what fills a record up to a whole unit, if that is not zero. The
/// record ends at `end` of the file, and `rest` is what is behind it.
pub(super) fn padding<I: Io>(
    inspection: &mut Inspection<'_, I>,
    path: &Path,
    rest: &[u8],
    end: u64,
) -> Result<(), Halt> {
    let bytes = (round_up_u64(end) - end) as usize;
    match rest.iter().take(bytes).all(|&byte| byte == 0) {
        true => Ok(()),
        false => {
            let reason = "what fills the record up to a whole unit is not zero";
            inspection.fault(path, end, reason)
        }
    }
}

/// What can be read of a manifest.
#[derive(Default)]
pub(crate) struct Readable {
    /// Each with the offset of its record.
    pub(crate) edits: Vec<(u64, Edit)>,
    /// Where the next record would be, or is and cannot be read.
    pub(crate) end: u64,
    /// There is something at the end: torn, or damaged.
    pub(crate) has_tail: bool,
}

/// Verifies a manifest.
pub(crate) async fn verify_manifest<I: Io>(
    inspection: &mut Inspection<'_, I>,
    db: DbId,
    id: FileId,
    path: &Path,
) -> Result<Readable, Halt> {
    let mut edits = Vec::new();
    let Some((file, len)) = inspection.open(path, "manifest").await? else {
        return Ok(Readable::default());
    };
    inspection.counts.manifests += 1;
    length(inspection, path, len)?;
    let bytes = inspection.read_range(&file, 0..len.min(FILE_BYTES_MAX) / UNIT_U64 * UNIT_U64);
    let bytes = bytes.await?;
    let Some((header, records)) = bytes.split_at_checked(UNIT) else {
        return Ok(Readable::default());
    };
    // Its records can be told without the header.
    let stated = inspection.sound(snapshot_end(header, db, id, path))?;
    let mut walk = Walk::new(seed(db, id), id.epoch(), UNIT_U64, u64::MAX);
    let mut missing = Vec::new();
    walk.feed(UNIT_U64, records, |step| {
        match step {
            Step::Record(record) => {
                inspection.counts.manifest_records += 1;
                let at = record.header.position;
                let end = record.end() as usize;
                padding(inspection, path, &bytes[end..], record.end())?;
                match record.header.kind {
                    RecordKind::Edit => match edit::decode_all(record.payload) {
                        Ok(all) => edits.extend(all.into_iter().map(|edit| (at, edit))),
                        Err(unusable) => inspection.error(unusable.into_error(path, at))?,
                    },
                    RecordKind::Mark => {}
                    RecordKind::Write => {
                        let unusable = Unusable::malformed("a record of the log in a manifest");
                        inspection.error(unusable.into_error(path, at))?;
                    }
                }
            }
            Step::Missing(place) => missing.push(place),
            Step::Unusable(at, unusable) => inspection.error(unusable.into_error(path, at))?,
        }
        Ok::<_, Halt>(())
    })?;
    let reached = walk.reached();
    let durable = reached.mark_max.max(stated.unwrap_or(0));
    let last = walk.missing();
    missing.push(last);
    let mut end = reached.end;
    for place in missing {
        if place.from < durable {
            let reason = format!(
                "a manifest record is missing or damaged; the manifest was durable up to offset \
                 {durable}"
            );
            inspection.fault(path, place.suspect.min(len), reason)?;
        } else {
            end = end.min(place.from);
        }
    }
    let tail = &bytes[(round_up_u64(end) as usize).min(bytes.len())..];
    let used = tail.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    inspection.counts.torn_bytes += round_up_u64(used as u64);
    Ok(Readable { edits, end: last.suspect.min(len), has_tail: used > 0 })
}
