//! A memtable becomes a table.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::error::Result;
use crate::base::hash::KeyHasher;
use crate::base::ids::{DbId, FileId, ShardId};
use crate::base::seq::SeqNo;
use crate::format::edit::TableMeta;
use crate::io::{BufferPool, Io, OpenMode};
use crate::memtable::Memtable;
use crate::runtime::slice_end;
use crate::sst::{Compression, NewTable, Table, TableWriter};

/// Entries, and bytes of them, between two ends of slices: some tens of
/// microseconds of work.
const ENTRIES_PER_SLICE: usize = 64;
const BYTES_PER_SLICE: usize = 32 << 10;

/// Which versions of a key must be kept beside the newest one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Retain {
    /// All: a snapshot is just being taken.
    All,
    /// The newest at or below each of these, which ascend.
    Bounds(Vec<SeqNo>),
}

impl Retain {
    /// Whether some snapshot sees a version, the next newer one of which has
    /// the sequence number `newer`.
    fn wants(&self, version: SeqNo, newer: SeqNo) -> bool {
        match self {
            Self::All => true,
            Self::Bounds(bounds) => {
                let first = bounds.partition_point(|&bound| bound < version);
                bounds.get(first).is_some_and(|&bound| bound < newer)
            }
        }
    }
}

/// Where a new table goes, and what it is called.
pub(crate) struct TablePlace {
    pub(crate) dir: PathBuf,
    pub(crate) db: DbId,
    pub(crate) shard: ShardId,
    pub(crate) id: FileId,
    pub(crate) pool: Arc<BufferPool>,
}

impl TablePlace {
    /// The path of a table in its shard's directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(format!("{}.sst", self.id))
    }
}

/// Writes what `memtable` holds, without the versions nobody can see any more,
/// to a new table: durable, with its directory entry. On an error the file is
/// left for the caller to remove.
pub(crate) async fn write_table<I: Io>(
    io: &I,
    memtable: &Memtable,
    retain: &Retain,
    hasher: &KeyHasher,
    place: &TablePlace,
) -> Result<Table> {
    let path = place.path();
    let file = io.open(&path, OpenMode::CreateNew).await?;
    let mut table_id = [0; 16];
    io.random(&mut table_id);
    let (db, id, shard) = (place.db, place.id, place.shard);
    let new = NewTable { db, id, table_id, shard, compression: Compression::None };
    let mut writer = TableWriter::new(io, file.clone(), new, &place.pool);
    let mut at = memtable.first();
    let (mut entries, mut bytes) = (0, 0);
    let mut newer: Option<(&[u8], SeqNo)> = None;
    while let Some(entry) = memtable.entry(at) {
        let seq = entry.tag.seq();
        let shadowed = match newer {
            Some((key, newer)) if key == entry.key => !retain.wants(seq, newer),
            _ => false,
        };
        if !shadowed {
            writer.add(entry.key, entry.tag, &entry.value, hasher.hash(entry.key)).await?;
        }
        newer = Some((entry.key, seq));
        at = memtable.next(at);
        entries += 1;
        bytes += entry.key.len() + entry.value.len();
        if entries >= ENTRIES_PER_SLICE || bytes >= BYTES_PER_SLICE {
            (entries, bytes) = (0, 0);
            slice_end().await;
        }
    }
    let meta: TableMeta = writer.finish().await?;
    io.sync_dir(&place.dir).await?;
    Table::open(io, file, db, meta).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_kept_for_the_snapshots_that_see_it() {
        let retain = Retain::Bounds(vec![5, 9]);
        assert!(retain.wants(5, 6), "bound 5 sees exactly it");
        assert!(retain.wants(3, 8), "bound 5 sees 3, not 8");
        assert!(!retain.wants(3, 4), "bound 5 sees 4");
        assert!(!retain.wants(6, 8), "bound 9 sees 8");
        assert!(retain.wants(6, 10));
        assert!(!retain.wants(10, 12), "no snapshot is that new");
        assert!(!Retain::Bounds(Vec::new()).wants(1, 2));
        assert!(Retain::All.wants(1, 2));
    }
}
