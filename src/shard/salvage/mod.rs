//! Copies what is sound of a damaged database.
//!
//! The newest version of each key that can be read is copied, as versions have
//! sequence numbers, whatever file they are in; and none that a tombstone or a
//! range tombstone hides. Where a newer version was lost, an older one is copied;
//! the keys among which that may be are told, as far as anything tells them.
//!
//! 1. `identity`: the database's id, to which checksums are bound, and its shards.
//! 2. The root manifest: which log is needed. If it is damaged: all that is there.
//! 3. `tables`: those that a shard's manifest names. If it is damaged: all that are
//!    there, also such as were merged and wait to be written over.
//! 4. `log`: a first walk through it finds where it ends, and what it misses.
//! 5. `merge`: the shards one after the other, each in the order of its keys.
//!
//! Memory is that of one log segment and its mapping, of a window of the log (which
//! is read again for the next one), of what is known of all tables and their range
//! tombstones, of a read for each table of a shard that has keys where the merge is,
//! and of one value.

mod identity;
mod log;
mod merge;
mod report;
mod tables;

pub(crate) use identity::{Damaged, identify};
pub(crate) use report::{Reporter, SharedReporter};

use std::path::PathBuf;

use crate::base::error::Result;
use crate::base::ids::{Epoch, ShardId};
use crate::io::{Halt, Inspection, Io};
use crate::manifest::{self, verify_manifest};
use crate::shard::recover::{RootState, TABLE_SUFFIX, WAL_DIR};
use crate::shard::salvage::log::{Logs, Place};
use crate::shard::salvage::merge::Merge;
use crate::shard::salvage::report::Meaning;
use crate::shard::salvage::tables::find_tables;

/// Who takes the rows.
pub(crate) trait Sink {
    async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;
}

/// The root manifest.
struct Root {
    path: PathBuf,
    /// Of the last opening; `None` when there is no root manifest.
    epoch: Option<Epoch>,
    state: RootState,
    /// All that it said is known.
    is_sound: bool,
}

/// What damage to the root manifest means.
const ROOT_LOST: &str = "which log is needed is not known for certain: writes may be lost, deleted \
                         or older data may come back";

/// Copies what is sound to `sink`. `log_bytes_max` bounds a window of the log.
pub(crate) async fn salvage<I: Io>(
    io: &I,
    damaged: &Damaged,
    log_bytes_max: usize,
    reporter: &SharedReporter<'_>,
    sink: &mut impl Sink,
) -> Result<(), Halt> {
    let mut report =
        |finding: crate::base::fault::Finding<'_>| reporter.borrow_mut().finding(finding);
    let inspection = &mut Inspection::new(io, &mut report);
    let root = read_root(inspection, damaged, reporter).await?;
    let mut tables = Vec::with_capacity(damaged.shards);
    for shard in 0..damaged.shards as ShardId {
        tables.push(find_tables(inspection, damaged, &root, shard, reporter).await?);
    }
    let flushed = tables.iter().map(|tables| tables.flushed).collect();
    let mut logs = Logs::survey(inspection, damaged, &root, flushed, reporter).await?;
    let mut window = logs.window(inspection, &Place::default(), log_bytes_max, reporter).await?;
    for (shard, tables) in tables.into_iter().enumerate() {
        let shard = shard as ShardId;
        let mut merge = Merge::new(damaged, shard, tables, logs.ranges(shard));
        // A window ends within a shard, or with the log.
        while let Some((_, key)) = window.end.take_if(|end| end.0 == shard) {
            merge.run(inspection, &mut window.rows, Some(&key), reporter, sink).await?;
            window = logs.window(inspection, &(shard, key), log_bytes_max, reporter).await?;
        }
        merge.run(inspection, &mut window.rows, None, reporter, sink).await?;
    }
    Ok(())
}

async fn read_root<I: Io>(
    inspection: &mut Inspection<'_, I>,
    damaged: &Damaged,
    reporter: &SharedReporter<'_>,
) -> Result<Root, Halt> {
    let dir = &damaged.dir;
    let mut root =
        Root { path: dir.clone(), epoch: None, state: RootState::default(), is_sound: false };
    let Some((id, path)) = manifest::find(inspection.io, dir).await?.current else {
        // A creation that was interrupted has nothing to lose.
        if damaged.has_any(inspection.io, TABLE_SUFFIX, ".wal").await? {
            let reason = format!("the root manifest is missing; {ROOT_LOST}");
            reporter.borrow_mut().lost(&dir.join("MANIFEST-*"), 0, reason, None)?;
        }
        return Ok(root);
    };
    reporter.borrow_mut().faults_mean(Meaning::Lost(ROOT_LOST));
    let faults = inspection.counts.faults;
    let found = verify_manifest(inspection, damaged.db, id, &path).await?;
    for (offset, edit) in found.edits {
        inspection.sound(root.state.apply(&edit, &path, offset))?;
    }
    root.is_sound = inspection.counts.faults == faults;
    (root.path, root.epoch) = (path, Some(id.epoch()));
    Ok(root)
}

impl Damaged {
    /// Whether a shard has a file with the one suffix, or the log with the other.
    async fn has_any<I: Io>(&self, io: &I, of_shard: &str, of_log: &str) -> Result<bool> {
        let shards = (0..self.shards as ShardId).map(|shard| (self.shard_dir(shard), of_shard));
        for (dir, suffix) in shards.chain([(self.dir.join(WAL_DIR), of_log)]) {
            let names = identity::names(io, &dir).await?;
            if names.is_some_and(|names| names.iter().any(|name| name.ends_with(suffix))) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
