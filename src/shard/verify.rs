//! What is wrong with a database, file by file, as recovery would see it; but
//! all of it, and without a change.
//!
//! The order is that of an opening: identity, root manifest, shards with their
//! tables, log; values as something refers to them. What cannot be told because
//! something before it is damaged is left out; all else is looked at.

use std::path::{Path, PathBuf};

use crate::base::error::{Error, ErrorKind};
use crate::base::hash::KeyHasher;
use crate::base::ids::{Epoch, FileId, KEYSPACE_DEFAULT, ShardId};
use crate::base::seq::{Kind, SeqNo};
use crate::format::edit::{StreamKey, TableMeta};
use crate::format::record::{Record, RecordKind, Unusable};
use crate::io::{File, Halt, Inspection, Io};
use crate::lsm::LEVELS;
use crate::manifest::{
    self, IDENTITY, IDENTITY_UNFINISHED, Identity, verify_identity, verify_manifest,
};
use crate::shard::engine::shard_dir;
use crate::shard::recover::{
    KnownStream, RootState, Stated, TABLE_SUFFIX, WAL_DIR, check_seq, no_identity, no_root_manifest,
};
use crate::sst::{TableCheck, verify_table};
use crate::value::{self, Referrer, ValueCheck};
use crate::wal::{
    self, Follow, Log, MapContent, RecordPlace, StreamCheck, verify_files, verify_map,
    verify_stream,
};

/// Verifies the database in `dir`, whose lock the caller holds.
pub(crate) async fn verify<I: Io>(
    inspection: &mut Inspection<'_, I>,
    dir: &Path,
    place: Option<[u8; 16]>,
) -> Result<(), Halt> {
    let names = inspection.io.list(dir).await?;
    if !names.iter().any(|name| name == IDENTITY) {
        return match no_identity(dir, &names) {
            Some(error) => inspection.error(error),
            None => {
                let message = format!("there is no database in {}", dir.display());
                Err(Error::new(ErrorKind::NotFound, message).into())
            }
        };
    }
    // Without the key of the hash nothing else can be judged.
    let Some(identity) = verify_identity(inspection, dir).await? else { return Ok(()) };
    let hasher = KeyHasher::new(&identity.hash_key);
    let mut database = Database {
        inspection,
        dir,
        place,
        identity,
        hasher,
        map_locks: Vec::new(),
        logs: Vec::new(),
        unneeded: Vec::new(),
        may_lack_edits: false,
    };
    database.verify(&names).await
}

struct Database<'a, 'b, I> {
    inspection: &'a mut Inspection<'b, I>,
    dir: &'a Path,
    /// Tells the directory from its copies; `None` where it has no file for the lock.
    place: Option<[u8; 16]>,
    identity: Identity,
    hasher: KeyHasher,
    /// Of mappings elsewhere, until they were read.
    map_locks: Vec<File>,
    /// Of each shard.
    logs: Vec<ShardLog>,
    /// Files that nothing names, if all that names files was read.
    unneeded: Vec<PathBuf>,
    /// Some manifest has something at its end that cannot be read.
    may_lack_edits: bool,
}

/// The root manifest's file.
struct Root {
    path: PathBuf,
    epoch: Epoch,
    /// Where its next record would be, or is and cannot be read.
    end: u64,
    /// There is something.
    has_tail: bool,
    /// All that it says is known; but for what was torn off its end.
    is_sound: bool,
}

/// The writes of a shard, on their way through the log.
struct ShardLog {
    /// Every write up to here is in tables.
    flushed: SeqNo,
    /// The number after the last write in the log.
    next: Option<SeqNo>,
    /// What comes next cannot be told: records, or edits, are missing.
    is_lost: bool,
    /// What the shard's manifest says of values; `None` without a manifest.
    values: Option<ShardValues>,
}

struct ShardValues {
    check: ValueCheck,
    /// The manifest, and where its next record would be.
    manifest: (PathBuf, u64),
    /// Something says that the manifest may have had more edits.
    may_lack_edits: bool,
}

impl<I: Io> Database<'_, '_, I> {
    async fn verify(&mut self, names: &[String]) -> Result<(), Halt> {
        let (io, dir) = (self.inspection.io, self.dir);
        let db = self.identity.db;
        let files = manifest::find(io, dir).await?;
        if names.iter().any(|name| name == IDENTITY_UNFINISHED) {
            self.unneeded.push(dir.join(IDENTITY_UNFINISHED));
        }
        self.unneeded.extend(files.stale);
        let mut state = RootState::default();
        let mut root = None;
        if let Some((id, path)) = files.current {
            let faults = self.inspection.counts.faults;
            let found = verify_manifest(self.inspection, db, id, &path).await?;
            self.may_lack_edits |= found.has_tail;
            for (offset, edit) in found.edits {
                self.inspection.sound(state.apply(&edit, &path, offset))?;
            }
            let is_sound = self.inspection.counts.faults == faults;
            let (epoch, end, has_tail) = (id.epoch(), found.end, found.has_tail);
            root = Some(Root { path, epoch, end, has_tail, is_sound });
        }
        let wal_dir = dir.join(WAL_DIR);
        let log = match root.is_none() && !names.iter().any(|name| name == WAL_DIR) {
            true => Log::default(),
            false => verify_files(self.inspection, &wal_dir, db).await?,
        };
        // A creation that was interrupted is no fault, unless there is what
        // only comes later.
        if root.is_none()
            && let Some(segment) = log.streams.values().flatten().next()
        {
            self.inspection.error(no_root_manifest(dir, &segment.path))?;
        }
        for shard in 0..self.identity.shards as ShardId {
            let log = self.shard(shard, root.is_none(), &state).await?;
            self.logs.push(log);
        }
        for name in names {
            let number = name.strip_prefix("shard-").and_then(|number| number.parse().ok());
            let is_own = |number: usize| format!("shard-{number:03}") == *name;
            if number.is_some_and(|n| n >= self.identity.shards && is_own(n)) {
                self.unneeded.push(dir.join(name));
            }
        }
        if let Some(root) = root {
            self.log(log, &root, &state).await?;
        }
        self.orphans().await
    }

    /// Verifies a shard's manifest and tables.
    async fn shard(
        &mut self,
        shard: ShardId,
        is_new: bool,
        root: &RootState,
    ) -> Result<ShardLog, Halt> {
        let dir = shard_dir(self.dir, shard);
        let mut log = ShardLog { flushed: 0, next: None, is_lost: false, values: None };
        let found = match manifest::find(self.inspection.io, &dir).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !is_new {
                    self.inspection.fault(&dir, 0, "the shard's directory is missing")?;
                }
                log.is_lost = !is_new;
                return Ok(log);
            }
            found => found?,
        };
        self.unneeded.extend(found.stale);
        let mut stated = Stated::default();
        let mut is_known = false;
        let mut tail = None;
        match &found.current {
            None if is_new => {}
            None => {
                self.inspection.fault(
                    &dir.join("MANIFEST-*"),
                    0,
                    "the shard's manifest is missing",
                )?;
                log.is_lost = true;
            }
            Some((id, path)) => {
                is_known = true;
                let faults = self.inspection.counts.faults;
                let db = self.identity.db;
                let found = verify_manifest(self.inspection, db, *id, path).await?;
                self.may_lack_edits |= found.has_tail;
                let end = found.end;
                tail = Some((path.clone(), end, found.has_tail));
                for (offset, edit) in found.edits {
                    if let Err(reason) = stated.apply(edit) {
                        self.inspection.fault(path, offset, reason)?;
                    }
                }
                log.flushed = stated.flushed;
                log.is_lost = self.inspection.counts.faults > faults;
                self.levels(shard, (path, end), &stated, &log, root)?;
                if is_new && !stated.tables.is_empty() {
                    self.inspection.error(no_root_manifest(self.dir, path))?;
                }
            }
        }
        let mut values = tail.as_ref().map(|(path, ..)| {
            let ledger = std::mem::take(&mut stated.values);
            ValueCheck::new(self.identity.db, &dir, path, ledger)
        });
        let mut are_whole = true;
        for (_, meta) in stated.tables.values() {
            let check = TableCheck {
                db: self.identity.db,
                hasher: &self.hasher,
                shard,
                shards: self.identity.shards,
                meta,
            };
            let path = dir.join(format!("{}{TABLE_SUFFIX}", meta.id));
            let table = verify_table(
                self.inspection,
                &path,
                &check,
                async |inspection, reference, offset| {
                    let by = Referrer { path: &path, offset, is_table: true };
                    match &mut values {
                        Some(values) => values.value(inspection, reference, by).await.map(drop),
                        None => Ok(()),
                    }
                },
            );
            are_whole &= table.await?;
        }
        if let Some(values) = values.as_mut().filter(|_| !log.is_lost) {
            values.compare(self.inspection, are_whole).await?;
        }
        let mut names = self.inspection.io.list(&dir).await?;
        names.sort_unstable();
        let is_there = |meta: &TableMeta| names.contains(&format!("{}{TABLE_SUFFIX}", meta.id));
        let unnamed = |name: &String| {
            let id = name.strip_suffix(TABLE_SUFFIX).and_then(FileId::parse);
            id.is_some_and(|id| !stated.tables.contains_key(&id))
        };
        // Tables are removed once others, which the manifest then names, have
        // taken their place.
        let may_lack_edits = |has_tail| has_tail || names.iter().any(unnamed);
        if let Some((path, end, has_tail)) = &tail
            && may_lack_edits(*has_tail)
            && let Some((_, gone)) = stated.tables.values().find(|(_, meta)| !is_there(meta))
        {
            let reason = format!(
                "the manifest's last edits are missing, or damaged: it has no end to table {}, \
                 which is gone",
                gone.id
            );
            self.inspection.fault(path, *end, reason)?;
        }
        log.values = values.zip(tail).map(|(check, (path, end, has_tail))| {
            let may_lack_edits = may_lack_edits(has_tail);
            ShardValues { check, manifest: (path, end), may_lack_edits }
        });
        let others = names.iter().filter(|name| is_known && unnamed(name));
        self.unneeded.extend(others.map(|name| dir.join(name)));
        Ok(log)
    }

    /// Verifies what a shard's manifest says as a whole, in which the next record would be at
    /// `end`.
    fn levels(
        &mut self,
        shard: ShardId,
        (path, end): (&Path, u64),
        stated: &Stated,
        log: &ShardLog,
        root: &RootState,
    ) -> Result<(), Halt> {
        let mut faults = Vec::new();
        let (flushed, tables) = (log.flushed, &stated.tables);
        let in_tables = root.flushed.get(&shard).copied().unwrap_or(0);
        if flushed < in_tables {
            let reason = format!(
                "the manifest's last edits are missing: it knows writes up to {flushed}, and \
                 tables were written up to {in_tables}"
            );
            self.inspection.fault(path, end, reason)?;
        }
        for (level, meta) in tables.values() {
            let id = meta.id;
            if usize::from(*level) >= LEVELS {
                faults.push(format!("table {id} is on level {level}, and there is none"));
            }
            if meta.smallest > meta.largest || meta.seq_min > meta.seq_max || meta.entries == 0 {
                faults.push(format!("what is said of table {id} contradicts itself"));
            }
            if meta.seq_max > flushed && !log.is_lost {
                let newest = meta.seq_max;
                faults.push(format!(
                    "table {id} has write {newest}, and those in tables end at {flushed}"
                ));
            }
        }
        for level in 0..LEVELS as u8 {
            let on_level = tables.values().filter(|(other, _)| *other == level);
            let mut of_level: Vec<&TableMeta> = on_level.map(|(_, meta)| meta).collect();
            of_level.sort_by(|a, b| a.smallest.cmp(&b.smallest));
            for (at, a) in of_level.iter().enumerate() {
                let others = of_level[at + 1..].iter();
                for b in others.take_while(|b| b.smallest <= a.largest) {
                    let (x, y) = (a.id, b.id);
                    if level > 0 {
                        faults.push(format!("tables {x} and {y} of level {level} share keys"));
                    } else if a.seq_min <= b.seq_max && b.seq_min <= a.seq_max {
                        // Numbers that overlap are those of one run.
                        faults.push(format!("neither of tables {x} and {y} is the newer one"));
                    }
                }
            }
        }
        for reason in faults {
            self.inspection.fault(path, 0, reason)?;
        }
        Ok(())
    }

    /// Verifies the streams that the root manifest knows, and looks at the
    /// others.
    async fn log(&mut self, log: Log, root: &Root, state: &RootState) -> Result<(), Halt> {
        let wal_dir = self.dir.join(WAL_DIR);
        let mut known = state.streams.clone();
        let mut maps = log.maps;
        let faults = self.inspection.counts.faults;
        // Segments are not there: they may have been freed, and used again.
        let mut lacks_segments = false;
        self.unneeded.extend(log.needless);
        for dir in state.map_dirs.iter().filter(|dir| Some(dir.place) == self.place) {
            match wal::list_elsewhere(self.inspection.io, self.identity.db, dir).await {
                Ok((more, unfinished)) => {
                    maps.extend(more);
                    self.unneeded.extend(unfinished);
                }
                // Nothing there was needed any more.
                Err(error) if state.is_clean => {
                    tracing::warn!(%error, "what may be left over there was not looked for");
                }
                Err(error) => {
                    let reason = format!("mappings of the log may be there ({error})");
                    self.inspection.fault(Path::new(&dir.path), 0, reason)?;
                }
            }
        }
        for (key, segments) in log.streams {
            let paths = segments.iter().map(|segment| segment.path.clone());
            match known.remove(&key) {
                Some(known) if known.is_freed() => self.unneeded.extend(paths),
                Some(known) => {
                    let is_closed = state.is_clean && key.epoch == root.epoch;
                    let (map, is_same_boot) = match &known.map {
                        // A close leaves nothing in mappings that is not in segments.
                        Some(_) if is_closed => (None, false),
                        Some(place) => {
                            maps.remove(&place.id);
                            self.map(key, &known).await?
                        }
                        None => (None, false),
                    };
                    let KnownStream { start, cut, .. } = known;
                    lacks_segments |= wal::has_gap(&segments, start);
                    let (db, segments) = (self.identity.db, &segments[..]);
                    let map = map.as_ref();
                    let check = StreamCheck { db, key, segments, start, cut, map, is_same_boot };
                    self.stream(&check).await?;
                }
                None if !root.is_sound => {}
                None if key.epoch > root.epoch => {
                    let reason = format!(
                        "the segment is of opening {}, and the root manifest knows {} openings",
                        key.epoch, root.epoch
                    );
                    self.inspection.fault(&segments[0].path, 0, reason)?;
                }
                None => {
                    if key.epoch == root.epoch {
                        self.unknown(key, &segments, root).await?;
                    }
                    self.unneeded.extend(paths);
                }
            }
        }
        for (key, _) in known.iter().filter(|(_, known)| !known.is_freed()) {
            let (stream, epoch) = (key.stream, key.epoch);
            let reason = format!("the segments of stream {stream} of opening {epoch} are missing");
            self.inspection.fault(&wal_dir, 0, reason)?;
            lacks_segments = true;
        }
        if (root.has_tail || lacks_segments)
            && root.is_sound
            && self.inspection.counts.faults > faults
        {
            let reason = "the manifest's last edits may be missing, or damaged: then the log that \
                          is missing was not needed any more";
            self.inspection.fault(&root.path, root.end, reason)?;
        }
        if root.is_sound {
            for (id, path) in maps.iter().filter(|_| !state.is_clean) {
                self.unknown_map(*id, path, root).await?;
            }
            self.unneeded.extend(maps.into_values());
        }
        Ok(())
    }

    /// Reports files that nothing names, and value files that neither a manifest
    /// nor the log refers to. Where something is damaged, it may have been what
    /// names them, and then nobody should remove them.
    async fn orphans(&mut self) -> Result<(), Halt> {
        if self.inspection.counts.faults > 0 || self.may_lack_edits {
            return Ok(());
        }
        for path in std::mem::take(&mut self.unneeded) {
            self.inspection.orphan(&path)?;
        }
        for (shard, log) in self.logs.iter().enumerate() {
            let Some(values) = &log.values else { continue };
            let dir = shard_dir(self.dir, shard as ShardId);
            let mut names = self.inspection.io.list(&dir).await?;
            names.sort_unstable();
            for name in names {
                let id = name.strip_suffix(value::SUFFIX).and_then(FileId::parse);
                if id.is_some_and(|id| !values.check.is_in_use(id)) {
                    self.inspection.orphan(&dir.join(name))?;
                }
            }
        }
        Ok(())
    }

    /// Verifies the mapping of a stream: its content, and whether it is of this
    /// boot of the machine.
    async fn map(
        &mut self,
        key: StreamKey,
        known: &KnownStream,
    ) -> Result<(Option<MapContent>, bool), Halt> {
        let Some(place) = &known.map else { return Ok((None, false)) };
        let db = self.identity.db;
        let path: PathBuf = wal::map_path(&self.dir.join(WAL_DIR), db, place);
        let is_same_boot = self.inspection.io.boot_id()? == place.boot;
        // One in memory goes with the boot.
        let may_be_gone = place.dir.is_some() && !is_same_boot;
        if place.dir.as_ref().is_some_and(|dir| Some(dir.place) != self.place) {
            self.map_locks.extend(wal::lock_map_to_read(self.inspection.io, &path).await?);
        }
        let of = (db, place.id, key);
        let map = verify_map(self.inspection, &path, of, may_be_gone).await?;
        Ok((map, is_same_boot))
    }

    /// Looks at a mapping that the root manifest does not name. Before anything
    /// is put into one, it is named.
    async fn unknown_map(&mut self, id: FileId, path: &Path, root: &Root) -> Result<(), Halt> {
        let db = self.identity.db;
        let key = wal::stream_of_map(self.inspection, path, db, id).await?;
        let Some(key) = key.filter(|key| key.epoch == root.epoch) else {
            return Ok(());
        };
        let map = verify_map(self.inspection, path, (db, id, key), false).await?;
        match map.is_some_and(|map| map.is_used()) {
            true => self.not_known(root, path),
            false => Ok(()),
        }
    }

    /// Follows a stream that the root manifest knows.
    async fn stream(&mut self, check: &StreamCheck<'_>) -> Result<(), Halt> {
        let Self { inspection, hasher, logs, .. } = self;
        let mut replay = Replay { hasher, logs, references: Vec::new() };
        verify_stream(inspection, check, &mut replay).await.map(drop)
    }

    /// Looks for records in a stream that the root manifest does not know.
    async fn unknown(
        &mut self,
        key: StreamKey,
        segments: &[wal::SegmentFile],
        root: &Root,
    ) -> Result<(), Halt> {
        // Of a stream that was used for long the first segments hold what came later.
        for segment in segments.chunks(1) {
            let mut records = Count(0);
            let (db, start, cut) = (self.identity.db, segment[0].start, None);
            let check = StreamCheck {
                db,
                key,
                segments: segment,
                start,
                cut,
                map: None,
                is_same_boot: false,
            };
            verify_stream(self.inspection, &check, &mut records).await?;
            if records.0 > 0 {
                return self.not_known(root, &segment[0].path);
            }
        }
        Ok(())
    }

    /// Reports that the root manifest lacks what must have been in it.
    fn not_known(&mut self, root: &Root, path: &Path) -> Result<(), Halt> {
        let reason = format!(
            "the manifest's last edits are missing: it does not know {}, which has records in it",
            path.display()
        );
        self.inspection.fault(&root.path, root.end, reason)
    }
}

/// Looks at the writes of the streams that the root manifest knows.
struct Replay<'a> {
    hasher: &'a KeyHasher,
    logs: &'a mut [ShardLog],
    /// References to values in the current segment, each with its shard and the
    /// offset of its record.
    references: Vec<(ShardId, u64, Vec<u8>)>,
}

impl<I: Io> Follow<I> for Replay<'_> {
    fn record(
        &mut self,
        inspection: &mut Inspection<'_, I>,
        found: Option<(&Record<'_>, RecordPlace<'_>)>,
    ) -> Result<(), Halt> {
        let Some((record, (path, offset))) = found else {
            self.logs.iter_mut().for_each(|log| log.is_lost = true);
            return Ok(());
        };
        match self.writes(record, offset) {
            Ok(writes) => {
                inspection.counts.wal_writes += writes;
                Ok(())
            }
            Err(unusable) => inspection.error(unusable.into_error(path, offset)),
        }
    }

    async fn segment(
        &mut self,
        inspection: &mut Inspection<'_, I>,
        path: &Path,
    ) -> Result<(), Halt> {
        for (shard, offset, reference) in self.references.drain(..) {
            let log = &mut self.logs[usize::from(shard)];
            let Some(values) = &mut log.values else { continue };
            let by = Referrer { path, offset, is_table: false };
            let is_sound = values.check.value(inspection, &reference, by).await?;
            if !is_sound && values.may_lack_edits {
                let (manifest, end) = &values.manifest;
                let reason = "the manifest's last edits may be missing, or damaged: the log is \
                              needed for all it does not know to be in tables, and refers to a \
                              value that is gone";
                inspection.fault(manifest, *end, reason)?;
                values.may_lack_edits = false;
            }
        }
        Ok(())
    }
}

impl Replay<'_> {
    /// Takes in a record; says how many writes it has.
    fn writes(&mut self, record: &Record<'_>, offset: u64) -> Result<u64, Unusable> {
        match record.header.kind {
            RecordKind::Write => {}
            RecordKind::Mark => return Ok(0),
            RecordKind::Edit => return Err(Unusable::malformed("a manifest's record in the log")),
        }
        let mut writes = 0;
        record.for_each_write(|write| {
            if write.keyspace != KEYSPACE_DEFAULT {
                return Err(Unusable::Newer(format!("a write to keyspace {}", write.keyspace)));
            }
            let shards = self.logs.len();
            let log = self.logs.get_mut(usize::from(write.shard));
            let log = log.ok_or_else(|| Unusable::malformed("a write to a shard there is not"))?;
            // A range has keys of every shard.
            let is_of_one = write.kind != Kind::RangeDelete;
            let shard = self.hasher.hash(write.key).shard(shards);
            if is_of_one && shard != usize::from(write.shard) {
                let reason = "a write to a shard that its key does not belong to";
                return Err(Unusable::malformed(reason));
            }
            let checked = match log.is_lost {
                true => Ok(()),
                false => check_seq(write.shard, log.flushed, log.next, write.seq),
            };
            (log.next, log.is_lost) = (Some(write.seq + 1), false);
            // What is in tables refers to its value from there; others may have
            // been dropped.
            if write.kind == Kind::Indirect && write.seq > log.flushed {
                self.references.push((write.shard, offset, write.value.to_vec()));
            }
            writes += 1;
            checked
        })?;
        Ok(writes)
    }
}

/// Counts records.
struct Count(u64);

impl<I> Follow<I> for Count {
    fn record(
        &mut self,
        _: &mut Inspection<'_, I>,
        found: Option<(&Record<'_>, RecordPlace<'_>)>,
    ) -> Result<(), Halt> {
        self.0 += u64::from(found.is_some());
        Ok(())
    }

    async fn segment(&mut self, _: &mut Inspection<'_, I>, _: &Path) -> Result<(), Halt> {
        Ok(())
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests;
