//! Long values as a salvage reads them: whole, or not at all.

use std::path::{Path, PathBuf};

use crate::base::ids::DbId;
use crate::base::limits::round_up;
use crate::format::value::{Reference, Verifier, value_seed};
use crate::io::{Halt, Inspection, Io};
use crate::value::{PIECE_BYTES, SUFFIX};

/// Why a value cannot be had: file, offset, and what is wrong.
pub(crate) struct LostValue {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) reason: String,
}

/// Reads the value that an encoded reference of the shard in `dir` refers to.
pub(crate) async fn read_value<I: Io>(
    inspection: &mut Inspection<'_, I>,
    db: DbId,
    dir: &Path,
    reference: &[u8],
) -> Result<Result<Vec<u8>, LostValue>, Halt> {
    let lost = |path: PathBuf, offset, reason: &str| {
        Ok(Err(LostValue { path, offset, reason: reason.to_owned() }))
    };
    let Ok(reference) = Reference::decode(reference) else {
        return lost(dir.to_owned(), 0, "a reference to a long value makes no sense");
    };
    let Reference { file: id, offset, len, .. } = reference;
    let path = dir.join(format!("{id}{SUFFIX}"));
    let Some((file, file_len)) = inspection.open(&path, "value file").await? else {
        return lost(path, 0, "the file of a long value cannot be had");
    };
    let extent = reference.extent();
    // Nothing is allocated that the file does not have.
    if file_len < extent.offset + extent.bytes {
        return lost(path, file_len, "the file ends before a long value does");
    }
    let mut value = Vec::with_capacity(len);
    let mut verifier = Verifier::new(reference, value_seed(db, id));
    while value.len() < len {
        let wanted = PIECE_BYTES.min(len - value.len());
        let at = offset + value.len() as u64;
        let piece = inspection.read_range(&file, at..at + round_up(wanted) as u64).await?;
        if let Some(chunk) = verifier.add(&piece[..wanted]).first() {
            return lost(path, *chunk, "a long value is damaged");
        }
        value.extend_from_slice(&piece[..wanted]);
    }
    Ok(Ok(value))
}
