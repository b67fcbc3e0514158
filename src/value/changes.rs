//! Which values tables begin and cease to refer to, collected while tables are
//! written.

use std::collections::BTreeMap;

use crate::base::ids::FileId;
use crate::base::planted::{Bug, planted};
use crate::base::seq::{Kind, Tag};
use crate::format::edit::Edit;
use crate::format::header::DecodeError;
use crate::format::value::{Extent, Reference};

/// For one commit. Whoever flushes tells it of each version that comes from a
/// memtable; and whoever leaves a version out of a table tells that.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Bytes by file.
    flushed: BTreeMap<FileId, u64>,
    dropped: Vec<Extent>,
}

fn extent_of(tag: Tag, value: &[u8]) -> Result<Option<Extent>, DecodeError> {
    if tag.kind() != Some(Kind::Indirect) {
        return Ok(None);
    }
    Reference::decode(value).map(|reference| Some(reference.extent()))
}

impl Changes {
    /// A version leaves a memtable: for a table, or because it is left out, and
    /// then [`Changes::dropped`] is told, too.
    pub(crate) fn flushed(&mut self, tag: Tag, value: &[u8]) -> Result<(), DecodeError> {
        if let Some(extent) = extent_of(tag, value)? {
            *self.flushed.entry(extent.file).or_default() += extent.bytes;
        }
        Ok(())
    }

    /// A version, of a memtable or of tables that are replaced, is left out.
    pub(crate) fn dropped(&mut self, tag: Tag, value: &[u8]) -> Result<(), DecodeError> {
        let dropped = extent_of(tag, value)?;
        self.dropped.extend(dropped.filter(|_| !planted(Bug::ValueLeft)));
        Ok(())
    }

    /// The edits that say so. What is dropped gets numbers from `first` on.
    pub(super) fn edits(mut self, first: u64) -> Vec<Edit> {
        let flushed = self.flushed.into_iter();
        let mut edits: Vec<Edit> =
            flushed.map(|(id, bytes)| Edit::ValueFile { id, bytes }).collect();
        self.dropped.sort_unstable();
        let mut extents = self.dropped;
        extents.dedup_by(|next, before| {
            let follows = next.file == before.file && next.offset == before.offset + before.bytes;
            if follows {
                before.bytes += next.bytes;
            }
            follows
        });
        if !extents.is_empty() {
            edits.push(Edit::ValuesDropped { first, extents });
        }
        edits
    }
}
