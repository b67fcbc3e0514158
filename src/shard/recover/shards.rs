//! Opening: the shards, their manifests and tables.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::hash::KeyHasher;
use crate::base::ids::{FileId, ShardId};
use crate::base::seq::{Kind, SeqNo, Tag};
use crate::format::edit::{Edit, TableMeta};
use crate::format::record::{Unusable, Write};
use crate::io::{Io, OpenMode};
use crate::lsm::{FileIds, Frozen, Levels, Member, Retain, TablePlace, View, write_table};
use crate::manifest::{self, Manifest};
use crate::memtable::{ArenaPool, Payload};
use crate::shard::engine::{Limits, shard_dir, shard_snapshot};
use crate::shard::recover::streams::RootState;
use crate::shard::recover::{
    Recovery, is_unfinished, missing, no_root_manifest, remove_all, remove_orphans,
};
use crate::shard::state::State;
use crate::sst::Table;
use crate::value::{self, Ledger, ValueFiles};
use crate::wal::{Stop, discard};

/// Name suffix of tables.
pub(in crate::shard) const TABLE_SUFFIX: &str = ".sst";

/// A shard while it is being recovered.
pub(super) struct Recovering {
    pub(super) id: ShardId,
    pub(super) dir: PathBuf,
    pub(super) manifest: Option<Manifest>,
    pub(super) state: State,
    pub(super) flushed: SeqNo,
    pub(super) values: Arc<ValueFiles>,
    /// The next number in the log, once a record was seen.
    pub(super) next_seq: Option<SeqNo>,
    pub(super) stale: Vec<PathBuf>,
}

impl<I: Io> Recovery<'_, I> {
    /// Reads a shard's manifest and opens its tables.
    pub(super) async fn load_shard(
        &self,
        id: ShardId,
        is_new: bool,
        root: &RootState,
    ) -> Result<Recovering> {
        let (io, dir) = (self.io, shard_dir(&self.opening.dir, id));
        if is_new {
            io.create_dir(&dir).await?;
            io.sync_dir(&self.opening.dir).await?;
        }
        let found = manifest::find(io, &dir).await;
        let found = found.map_err(|e| missing(e, &dir, "the shard's directory"))?;
        let mut stale = found.stale;
        let mut levels = Levels::default();
        let mut flushed = 0;
        let mut ledger = Ledger::default();
        match found.current {
            Some((manifest_id, path)) if is_new => {
                let loaded = manifest::load(io, self.identity.db, manifest_id, &path).await?;
                if loaded.edits.iter().any(|edit| matches!(edit, Edit::Table { .. })) {
                    return Err(no_root_manifest(&self.opening.dir, &path));
                }
                // Left by a creation that was interrupted: it is made anew.
                io.remove(&path).await?;
            }
            None if is_new => {}
            Some((manifest_id, path)) => {
                let loaded = manifest::load(io, self.identity.db, manifest_id, &path).await?;
                let end = loaded.end;
                let unsound = |reason| Error::corruption(&loaded.path, 0, reason);
                let stated = Stated::of(loaded.edits).map_err(unsound)?;
                flushed = stated.flushed;
                ledger = stated.values;
                // The youngest first: they are asked most, and stay in memory.
                let mut tables: Vec<(u8, TableMeta)> = stated.tables.into_values().collect();
                tables.sort_by_key(|(level, meta)| (*level, Reverse(meta.seq_max)));
                let is_oldest: Vec<bool> =
                    tables.iter().map(|(level, meta)| is_oldest(*level, meta, &tables)).collect();
                for ((level, meta), is_oldest) in tables.into_iter().zip(is_oldest) {
                    let member = self.open_table(id, &dir, meta, is_oldest).await?;
                    levels.add(level, member).map_err(unsound)?;
                }
                let stated = root.flushed.get(&id).copied().unwrap_or(0);
                if flushed < stated {
                    let reason = format!(
                        "the manifest's last edits are missing: it knows writes up to {flushed}, \
                         and tables were written up to {stated}; restore it from a copy"
                    );
                    return Err(Error::corruption(&path, end, reason));
                }
                stale.push(path);
            }
            None => {
                let path = dir.join("MANIFEST-*");
                let reason = "the shard's manifest is missing; restore it from a copy";
                return Err(Error::corruption(&path, 0, reason));
            }
        }
        let (db, pool) = (self.identity.db, &self.opening.value_pool);
        let work = &self.value_work[usize::from(id) % self.value_work.len()];
        let values = ValueFiles::new(db, dir.clone(), pool, work, ledger);
        let view = View { frozen: Vec::new(), levels, values: values.first_pin() };
        let state = State::new(view, flushed, &self.opening.arenas);
        Ok(Recovering { id, dir, manifest: None, state, flushed, values, next_seq: None, stale })
    }

    /// Opens a table. One that is damaged or missing does not keep the rest of
    /// the database from being read.
    async fn open_table(
        &self,
        shard: ShardId,
        dir: &Path,
        meta: TableMeta,
        is_oldest: bool,
    ) -> Result<Member> {
        let share = self.pins.share(is_oldest);
        let path = dir.join(format!("{}{TABLE_SUFFIX}", meta.id));
        let opened = match self.io.open(&path, OpenMode::Read).await {
            Ok(file) => Table::open(self.io, file, self.identity.db, meta.clone(), &share).await,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::corruption(&path, 0, "the table is missing"))
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok(table) => {
                self.cache(shard, &table);
                Ok(Member::Sound(Arc::new(table)))
            }
            Err(error) if error.kind() == ErrorKind::Corruption => {
                tracing::error!(%error, "a table is damaged; the keys it may hold are refused");
                Ok(Member::Damaged { meta, error })
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the shards' manifests of this opening.
    pub(super) async fn make_manifests(
        &self,
        shards: &mut [Recovering],
        new_id: &impl Fn() -> FileId,
    ) -> Result<()> {
        for shard in shards {
            remove_all(self.io, shard.stale.iter().filter(|path| is_unfinished(path))).await?;
            let levels = &shard.state.view.levels;
            let snapshot = shard_snapshot(levels, shard.flushed, shard.values.snapshot());
            let (dir, db) = (&shard.dir, self.identity.db);
            let made = Manifest::create(self.io, dir, db, new_id(), &snapshot).await?;
            shard.manifest = Some(made);
            let superseded = shard.stale.iter().filter(|path| !is_unfinished(path));
            remove_orphans(self.io, superseded).await;
        }
        Ok(())
    }

    /// Flushes a shard's oldest immutable memtable.
    pub(super) async fn flush_oldest(
        &self,
        shard: &mut Recovering,
        new_id: &impl Fn() -> FileId,
    ) -> Result<()> {
        match self.try_to_flush_oldest(shard, new_id()).await {
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                // What a crash left of tables would go behind the replay.
                if self.remove_orphan_tables(shard).await? == 0 {
                    return Err(error);
                }
                self.try_to_flush_oldest(shard, new_id()).await
            }
            flushed => flushed,
        }
    }

    /// Removes the tables that nothing names, and says how many.
    async fn remove_orphan_tables(&self, shard: &Recovering) -> Result<usize> {
        let mut orphans = Vec::new();
        self.find_orphans(shard, &mut orphans).await?;
        orphans.retain(|path| path.to_string_lossy().ends_with(TABLE_SUFFIX));
        remove_orphans(self.io, orphans.iter()).await;
        Ok(orphans.len())
    }

    async fn try_to_flush_oldest(&self, shard: &mut Recovering, id: FileId) -> Result<()> {
        let oldest: Arc<Frozen> =
            Arc::clone(shard.state.view.frozen.last().expect("the caller saw one"));
        let place = TablePlace {
            dir: shard.dir.clone(),
            db: self.identity.db,
            shard: shard.id,
            ids: FileIds::one(id),
            pool: Arc::clone(&self.opening.pool),
            compression: self.limits.hierarchy.compression[0],
            table_bytes: u64::MAX,
            pins: Arc::clone(self.pins),
            spares: Arc::default(),
        };
        let hasher = KeyHasher::new(&self.identity.hash_key);
        let retain = Retain::Bounds(Vec::new());
        let older = shard.state.view.levels.older_than_memtables();
        let made = write_table(self.io, &oldest.memtable, &retain, &older, &hasher, &place).await;
        let (table, changes) = match made {
            Ok((table, changes)) => {
                if let Some(table) = &table {
                    self.cache(shard.id, table);
                }
                (table, changes)
            }
            Err(error) => {
                for path in place.left_behind() {
                    discard(self.io, &path).await;
                }
                return Err(error);
            }
        };
        let (_, seq) = oldest.memtable.seq_range().expect("an empty memtable is not rotated");
        let mut edits = shard.values.edits(changes);
        let made = table.iter().map(|table| Edit::Table { level: 0, meta: table.meta().clone() });
        edits.extend(made);
        edits.push(Edit::Flushed { seq });
        let manifest = shard.manifest.as_mut().expect("made before the replay");
        // The log goes on the strength of this.
        manifest.append_witnessed(self.io, &edits).await?;
        let garbage = shard.values.committed(&edits);
        let view = shard.state.view.flushed(&oldest, table);
        shard.state.view = Arc::new(view.without(garbage));
        Ok(())
    }

    /// Adds the files of a shard's directory that nothing names: tables of
    /// earlier openings that never made it into a manifest, and value files that
    /// neither it nor a replayed record refers to.
    pub(super) async fn find_orphans(
        &self,
        shard: &Recovering,
        orphans: &mut Vec<PathBuf>,
    ) -> Result<()> {
        let named: Vec<FileId> =
            shard.state.view.levels.tables().map(|(_, table)| table.meta().id).collect();
        for name in self.io.list(&shard.dir).await? {
            let id_of = |suffix| name.strip_suffix(suffix).and_then(FileId::parse);
            let (id, is_named) = match (id_of(TABLE_SUFFIX), id_of(value::SUFFIX)) {
                (Some(id), _) => (id, named.contains(&id)),
                (_, Some(id)) => (id, shard.values.is_in_use(id)),
                _ => continue,
            };
            if id.epoch() < self.epoch && !is_named {
                orphans.push(shard.dir.join(name));
            }
        }
        Ok(())
    }
}

/// Whether no older one of `tables`, which are those of a shard and their levels,
/// has keys in the range of this one.
fn is_oldest(level: u8, meta: &TableMeta, tables: &[(u8, TableMeta)]) -> bool {
    let is_older = |(other_level, other): &(u8, TableMeta)| {
        *other_level > level || (level == 0 && *other_level == 0 && other.seq_max < meta.seq_max)
    };
    let overlaps =
        |other: &TableMeta| other.smallest <= meta.largest && meta.smallest <= other.largest;
    !tables.iter().any(|other| is_older(other) && overlaps(&other.1))
}

/// Whether a write with this sequence number may follow in the log of a shard:
/// `next` is the number after the one before, if there was one.
pub(in crate::shard) fn check_seq(
    shard: ShardId,
    flushed: SeqNo,
    next: Option<SeqNo>,
    seq: SeqNo,
) -> Result<(), Unusable> {
    // What is in tables may be missing: its log was freed.
    let expected = next.unwrap_or(1);
    let in_tables = expected.max(flushed + 1);
    if (expected..=in_tables).contains(&seq) {
        return Ok(());
    }
    Err(Unusable::Malformed(format!(
        "write {seq} of shard {shard} follows, and {expected} is expected ({flushed} are in tables)"
    )))
}

/// What a shard's manifest says that there is.
#[derive(Default)]
pub(in crate::shard) struct Stated {
    /// Tables and the levels they are on.
    pub(in crate::shard) tables: BTreeMap<FileId, (u8, TableMeta)>,
    pub(in crate::shard) flushed: SeqNo,
    /// Value files, and what of them was dropped.
    pub(in crate::shard) values: Ledger,
}

impl Stated {
    /// What edits come to. Why they make no sense, if they do not.
    fn of(edits: Vec<Edit>) -> Result<Self, String> {
        let mut stated = Self::default();
        edits.into_iter().try_for_each(|edit| stated.apply(edit))?;
        Ok(stated)
    }

    /// Takes in an edit. Why it makes no sense, if it does not.
    pub(in crate::shard) fn apply(&mut self, edit: Edit) -> Result<(), String> {
        match edit {
            Edit::Table { level, meta } => {
                let id = meta.id;
                if self.tables.insert(id, (level, meta)).is_some() {
                    return Err(format!("table {id} is added twice"));
                }
            }
            Edit::TableRemoved { level, id } => match self.tables.remove(&id) {
                Some((on, _)) if on == level => {}
                _ => {
                    let reason = "and is not there";
                    return Err(format!("table {id} is removed from level {level}, {reason}"));
                }
            },
            Edit::Flushed { seq } => self.flushed = seq,
            edit @ (Edit::ValueFile { .. }
            | Edit::ValuesDropped { .. }
            | Edit::ValuesReclaimed { .. }) => self.values.apply(&edit)?,
            _ => return Err("a shard's manifest holds an edit of the root's".to_owned()),
        }
        Ok(())
    }
}

impl Recovering {
    /// Applies one write of the log.
    pub(super) fn apply(
        &mut self,
        write: &Write<'_>,
        limits: &Limits,
        arenas: &Arc<ArenaPool>,
    ) -> Result<(), Stop> {
        check_seq(self.id, self.flushed, self.next_seq, write.seq)?;
        self.next_seq = Some(write.seq + 1);
        if write.seq <= self.flushed {
            return Ok(());
        }
        if write.kind == Kind::Indirect {
            let known = self.values.replayed(write.value);
            known.expect("references were checked with their record");
        }
        let bytes = crate::memtable::Memtable::entry_bytes(write.key.len(), write.value.len());
        let state = &mut self.state;
        if !state.mutable.is_empty() && state.mutable.used_bytes() + bytes > limits.memtable_bytes {
            state.rotate(arenas);
        }
        let tag = Tag::new(write.seq, write.kind);
        state.mutable.insert(write.key, tag, Payload::Inline(write.value));
        state.next_seq = write.seq + 1;
        Ok(())
    }
}
