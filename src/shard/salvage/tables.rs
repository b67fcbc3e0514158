//! The tables of a shard that a salvage reads.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::ids::{FileId, ShardId};
use crate::base::ranges::RangeTombstones;
use crate::base::seq::SeqNo;
use crate::format::edit::{Edit, TableMeta};
use crate::io::{Halt, Inspection, Io};
use crate::manifest::{self, verify_manifest};
use crate::shard::recover::{Stated, TABLE_SUFFIX};
use crate::shard::salvage::Root;
use crate::shard::salvage::identity::{Damaged, names};
use crate::shard::salvage::report::{Meaning, SharedReporter};
use crate::sst::{FoundTable, find_table};

/// What there is of a shard but for its log.
#[derive(Default)]
pub(super) struct Tables {
    /// Each with its first key, which is empty where none can be read.
    pub(super) tables: Vec<(Vec<u8>, FoundTable)>,
    /// The range tombstones of all of them.
    pub(super) ranges: RangeTombstones,
    /// Every write up to here is in tables, or was.
    pub(super) flushed: SeqNo,
}

/// What damage to a shard's manifest means.
const MANIFEST_LOST: &str = "all tables that are there are read: keys of others are lost, deleted or \
                             older data may come back";

/// What the manifest says of tables.
struct Named {
    live: BTreeMap<FileId, TableMeta>,
    removed: BTreeSet<FileId>,
    flushed: SeqNo,
    /// All that it said is known.
    is_sound: bool,
}

/// Finds the tables of a shard.
pub(super) async fn find_tables<I: Io>(
    inspection: &mut Inspection<'_, I>,
    damaged: &Damaged,
    root: &Root,
    shard: ShardId,
    reporter: &SharedReporter<'_>,
) -> Result<Tables, Halt> {
    let dir = damaged.shard_dir(shard);
    let Some(names) = names(inspection.io, &dir).await? else {
        if root.epoch.is_some() {
            let reason = "the shard's directory is missing: its keys are lost";
            reporter.borrow_mut().lost(&dir, 0, reason, None)?;
        }
        return Ok(Tables::default());
    };
    let id_of = |name: &String| name.strip_suffix(TABLE_SUFFIX).and_then(FileId::parse);
    let there: BTreeSet<FileId> = names.iter().filter_map(id_of).collect();
    let mut named = read_manifest(inspection, damaged, root, shard, &there, reporter).await?;
    let mut wanted: BTreeSet<FileId> = named.live.keys().copied().collect();
    if !named.is_sound {
        wanted.extend(there.difference(&named.removed));
    }
    let mut found = Tables { flushed: named.flushed, ..Tables::default() };
    for id in wanted {
        let path = dir.join(format!("{id}{TABLE_SUFFIX}"));
        let meta = named.live.remove(&id);
        let mut lost = Vec::new();
        // What cannot be read shows in what is lost.
        reporter.borrow_mut().faults_mean(Meaning::Silent);
        let table = find_table(inspection, &path, meta.as_ref(), &mut lost).await?;
        reporter.borrow_mut().lost_of_table(&path, lost)?;
        let Some(mut table) = table else { continue };
        if !named.is_sound {
            // Memtables are flushed in the order of their writes.
            found.flushed = found.flushed.max(table.seq_max);
        }
        let ranges = std::mem::take(&mut table.ranges);
        if !ranges.is_empty() {
            found.ranges = RangeTombstones::union(&[&found.ranges, &ranges]);
        }
        if let Some(mut scan) = table.scan(inspection).await? {
            let first = scan.next(inspection).await?.map_or(Vec::new(), |entry| entry.key);
            found.tables.push((first, scan.into_table()));
        }
    }
    Ok(found)
}

async fn read_manifest<I: Io>(
    inspection: &mut Inspection<'_, I>,
    damaged: &Damaged,
    root: &Root,
    shard: ShardId,
    there: &BTreeSet<FileId>,
    reporter: &SharedReporter<'_>,
) -> Result<Named, Halt> {
    let dir = damaged.shard_dir(shard);
    let in_tables = root.state.flushed.get(&shard).copied().unwrap_or(0);
    let (live, removed) = (BTreeMap::new(), BTreeSet::new());
    let mut named = Named { live, removed, flushed: in_tables, is_sound: false };
    let Some((id, path)) = manifest::find(inspection.io, &dir).await?.current else {
        // A creation that was interrupted has nothing to lose.
        if root.epoch.is_some() || !there.is_empty() {
            let reason = format!("the shard's manifest is missing; {MANIFEST_LOST}");
            reporter.borrow_mut().lost(&dir.join("MANIFEST-*"), 0, reason, None)?;
        }
        return Ok(named);
    };
    reporter.borrow_mut().faults_mean(Meaning::Lost(MANIFEST_LOST));
    let faults = inspection.counts.faults;
    let found = verify_manifest(inspection, damaged.db, id, &path).await?;
    let mut stated = Stated::default();
    let mut is_sense = true;
    for (offset, edit) in found.edits {
        match &edit {
            Edit::Table { meta, .. } => {
                named.removed.remove(&meta.id);
                named.live.insert(meta.id, meta.clone());
            }
            Edit::TableRemoved { id, .. } => {
                named.live.remove(id);
                named.removed.insert(*id);
            }
            Edit::Flushed { seq } => named.flushed = named.flushed.max(*seq),
            _ => {}
        }
        // One that makes no sense may make others do so.
        if let (true, Err(reason)) = (is_sense, stated.apply(edit)) {
            inspection.fault(&path, offset, reason)?;
            is_sense = false;
        }
    }
    if stated.flushed < in_tables && inspection.counts.faults == faults {
        let reason = "the manifest's last edits are missing: it does not know all writes that are \
                      in tables";
        inspection.fault(&path, found.end, reason)?;
    }
    // Tables are removed once others, which the manifest then names, have taken
    // their place.
    let is_unnamed = |id: &FileId| !named.live.contains_key(id);
    let may_lack_edits = found.has_tail || there.iter().any(is_unnamed);
    let gone = named.live.keys().find(|id| !there.contains(id));
    if let (true, Some(gone)) = (may_lack_edits, gone) {
        let reason = format!(
            "the manifest's last edits may be missing: it has no end to table {gone}, which is gone"
        );
        inspection.fault(&path, found.end, reason)?;
    }
    named.is_sound = inspection.counts.faults == faults;
    Ok(named)
}
