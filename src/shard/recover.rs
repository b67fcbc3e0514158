//! Opening: from a directory to an engine.
//!
//! In this order, so that a crash at any point leaves a directory that opens
//! again with nothing lost:
//!
//! 1. Identity, root manifest, the shards' manifests are read.
//! 2. Every stream of earlier openings is followed to its end. Damage refuses
//!    the opening; nothing was changed so far. What was read is synced.
//! 3. A new root manifest makes this opening's epoch and the streams' ends
//!    (cuts) durable. From here on what lies beyond a cut is void.
//! 4. The shards get new manifests (in a database that is just being created:
//!    before step 3). Manifests that have a successor are removed.
//! 5. The streams are replayed into memtables, which are flushed as they fill
//!    up.
//! 6. What the new manifests do not name is removed, and this opening's streams
//!    get their first segments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::hash::KeyHasher;
use crate::base::ids::{Epoch, FileId, KEYSPACE_DEFAULT, ShardId, StreamId};
use crate::base::seq::{SeqNo, Tag};
use crate::base::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::base::sync::{LongestHold, Mutex};
use crate::format::edit::{Edit, MapPlace, StreamKey, TableMeta};
use crate::format::record::{Record, RecordKind, Unusable, Write};
use crate::io::{BufferPool, Io, OpenMode};
use crate::lsm::{Frozen, Member, Retain, TablePlace, View, write_table};
use crate::manifest::{self, IDENTITY, Identity, Manifest};
use crate::memtable::{ArenaPool, Payload};
use crate::runtime::{AsyncMutex, Event};
use crate::shard::clock::Clock;
use crate::shard::engine::{
    Engine, Limits, OldStream, Owner, Root, StreamState, root_snapshot, shard_dir, shard_snapshot,
};
use crate::shard::state::{Shard, State};
use crate::sst::{ReadCounters, Table};
use crate::wal::{
    self, Found, FoundStream, Segment, SegmentMaker, SegmentSizes, Stop, Stream, discard,
    find_streams,
};

const WAL_DIR: &str = "wal";
const TABLE_SUFFIX: &str = ".sst";

/// Streams of earlier openings that may wait until memtables fill up; if there
/// are more, all that was replayed is flushed.
const OLD_STREAMS_MAX: usize = 16;

/// What an opening is given.
pub(crate) struct Opening {
    pub(crate) dir: PathBuf,
    /// Whether to create the database where there is none.
    pub(crate) create: bool,
    /// Shards of a database that is created.
    pub(crate) shards: usize,
    /// The bounds to work within, for a number of shards.
    pub(crate) limits: Box<dyn Fn(usize) -> Limits + Send + Sync>,
    pub(crate) segments: SegmentSizes,
    /// Buffers for the recovery itself.
    pub(crate) pool: Arc<BufferPool>,
    /// Buffers for each owner: as many as there may be owners.
    pub(crate) owner_pools: Vec<Arc<BufferPool>>,
    pub(crate) arenas: Arc<ArenaPool>,
    /// Where mappings go, if not into the log's directory.
    pub(crate) map_dir: Option<String>,
}

/// What the root manifest knows of a stream.
#[derive(Clone, Debug, Default)]
struct KnownStream {
    start: u64,
    cut: Option<u64>,
    map: Option<MapPlace>,
}

/// What the root manifest says.
#[derive(Default)]
struct RootState {
    streams: BTreeMap<StreamKey, KnownStream>,
    /// The highest flushed number that was ever stated for a shard.
    flushed: BTreeMap<ShardId, SeqNo>,
    /// The opening that made the manifest was closed.
    is_clean: bool,
}

/// A shard while it is being recovered.
struct Recovering {
    id: ShardId,
    dir: PathBuf,
    manifest: Option<Manifest>,
    state: State,
    flushed: SeqNo,
    /// The next number in the log, once a record was seen.
    next_seq: Option<SeqNo>,
    stale: Vec<PathBuf>,
}

/// Opens the database in `opening.dir`, whose lock the caller holds.
pub(crate) async fn recover<I: Io>(io: &I, opening: Opening) -> Result<Engine> {
    let dir = &opening.dir;
    let identity = load_identity(io, &opening).await?;
    let root_files = manifest::find(io, dir).await?;
    let is_new = root_files.current.is_none();
    let wal_dir = dir.join(WAL_DIR);
    if is_new {
        io.create_dir(&wal_dir).await?;
    }
    let found = find_streams(io, &wal_dir, identity.db).await;
    let mut found = found.map_err(|e| missing(e, &wal_dir, "the log's directory"))?;
    let mut orphans = std::mem::take(&mut found.unfinished);

    let (last_epoch, root_state) = match &root_files.current {
        Some((id, path)) => {
            let loaded = manifest::load(io, identity.db, *id, path).await?;
            (id.epoch(), RootState::new(&loaded.edits, path)?)
        }
        // Creating was interrupted, unless there is what only comes later.
        None => match found.streams.iter().flat_map(|stream| &stream.segments).next() {
            None => (0, RootState::default()),
            Some(segment) => return Err(no_root_manifest(dir, segment.file.path())),
        },
    };
    let epoch = next_epoch(last_epoch, dir)?;
    let limits = (opening.limits)(identity.shards);
    let recovery = Recovery { io, opening: &opening, identity: &identity, epoch, limits };

    let mut shards = Vec::with_capacity(identity.shards);
    for id in 0..identity.shards as ShardId {
        shards.push(recovery.load_shard(id, is_new, &root_state).await?);
    }
    let mut streams = recovery.match_streams(found, &root_state, last_epoch, &mut orphans).await?;
    let ends = recovery.find_ends(&streams).await?;
    orphans.extend(recovery.maps_elsewhere().await?);
    orphans.extend(recovery.take_in_maps(&mut streams).await?);

    // Unfinished files of an opening that had taken the same epoch.
    remove_all(io, root_files.stale.iter().filter(|path| is_unfinished(path))).await?;
    let files = AtomicU32::new(0);
    let new_id = || FileId::new(epoch, files.fetch_add(1, Ordering::Relaxed));
    let old = streams.iter().zip(&ends).map(|(old, end)| StreamState {
        key: old.stream.key,
        start: old.known.start,
        cut: *end,
        map: old.known.map.clone(),
    });
    let snapshot = root_snapshot(old);
    // With its root manifest a new database exists, and each of its shards
    // must have a manifest.
    if is_new {
        recovery.make_manifests(&mut shards, &new_id).await?;
    }
    let mut root = Manifest::create(io, dir, identity.db, new_id(), &snapshot).await?;
    // A manifest whose successor is durable says nothing new. It goes at once:
    // openings that fail for want of space must not take more each time.
    let superseded = root_files.stale.iter().filter(|path| !is_unfinished(path));
    remove_orphans(io, superseded.chain(root_files.current.iter().map(|(_, path)| path))).await;
    if !is_new {
        recovery.make_manifests(&mut shards, &new_id).await?;
    }
    let old_streams = recovery.replay(&streams, &ends, &mut shards, &new_id).await?;

    // Every shard is whole again: now things may go, before the segments take
    // their space.
    for shard in &shards {
        recovery.find_orphans(shard, &mut orphans).await?;
    }
    remove_orphans(io, orphans.iter()).await;

    // More owners than shards would have nothing to do.
    let owner_count = opening.owner_pools.len().clamp(1, identity.shards);
    let mut starts = Vec::with_capacity(owner_count);
    let mut made = Vec::with_capacity(owner_count);
    for number in 0..owner_count {
        let key = StreamKey { epoch, stream: number as StreamId };
        let maker = SegmentMaker {
            db: identity.db,
            dir: wal_dir.clone(),
            stream: key,
            sizes: opening.segments,
            pool: Arc::clone(&opening.owner_pools[number]),
        };
        let first = maker.create(io, new_id(), 0, None).await;
        let first = first.map_err(|error| error.context("cannot open the database"))?;
        let stream = Stream::new(identity.db, key, limits.group_bytes_max, first);
        if !limits.durability.is_durable() {
            stream.want_map();
        }
        starts.push(Edit::StreamStart { stream: key, start: 0, flushed: Vec::new() });
        made.push((stream, maker));
    }
    let (old_streams, done): (Vec<_>, Vec<_>) = old_streams.into_iter().partition(|old| {
        let flushed = |shard: ShardId| shards[usize::from(shard)].state.flushed_seq();
        old.needed.iter().any(|&(shard, seq)| flushed(shard) < seq)
    });
    starts.extend(done.iter().map(|old| Edit::StreamFreed { stream: old.key }));
    root.append(io, &starts).await?;
    remove_orphans(io, done.iter().flat_map(|old| &old.paths)).await;

    let mut owners: Vec<Owner> = made
        .into_iter()
        .map(|(stream, maker)| Owner {
            stream,
            shards: Vec::new(),
            maker,
            manifests: Vec::new(),
            map: Mutex::default(),
            flush_work: Event::default(),
            stopping: AtomicBool::new(false),
        })
        .collect();
    let longest_hold = Arc::<LongestHold>::default();
    let mut open_shards = Vec::with_capacity(shards.len());
    for mut shard in shards {
        let owner = &mut owners[usize::from(shard.id) % owner_count];
        owner.shards.push(shard.id);
        let manifest = shard.manifest.take().expect("every shard got a new manifest");
        owner.manifests.push(AsyncMutex::new(manifest));
        open_shards.push(Shard::new(shard.id, shard.state, &longest_hold));
    }
    Ok(Engine {
        db: identity.db,
        hasher: KeyHasher::new(&identity.hash_key),
        epoch,
        files,
        map_dir: opening.map_dir,
        limits,
        clock: Clock::default(),
        shards: open_shards,
        longest_hold,
        owners,
        root: AsyncMutex::new(Root { manifest: root, old_streams }),
        arenas: opening.arenas,
        io_counters: Arc::clone(io.counters()),
        read_counters: ReadCounters::default(),
        dir: opening.dir,
    })
}

async fn load_identity<I: Io>(io: &I, opening: &Opening) -> Result<Identity> {
    let dir = &opening.dir;
    let names = io.list(dir).await?;
    if names.iter().any(|name| name == IDENTITY) {
        return Identity::load(io, dir).await;
    }
    let ours = |name: &&String| {
        name.starts_with("MANIFEST-") || name.starts_with("shard-") || *name == WAL_DIR
    };
    if let Some(name) = names.iter().find(ours) {
        return Err(Error::corruption(
            &dir.join(IDENTITY),
            0,
            format!(
                "the identity file is missing, although there is {name}: the keys cannot be \
                 found without it; restore it from a copy"
            ),
        ));
    }
    if !opening.create {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no database in {}", dir.display()),
        ));
    }
    let identity = Identity::draw(io, opening.shards);
    identity.create(io, dir).await?;
    Ok(identity)
}

/// The root manifest is made before the log, and before any table.
fn no_root_manifest(dir: &Path, later: &Path) -> Error {
    let later = later.display();
    Error::corruption(
        &dir.join("MANIFEST-*"),
        0,
        format!("the root manifest is missing, although there is {later}; restore it from a copy"),
    )
}

/// The error for a directory of the database, which could not be listed.
fn missing(error: Error, dir: &Path, what: &str) -> Error {
    match error.kind() {
        ErrorKind::NotFound => {
            Error::corruption(dir, 0, format!("{what} is missing; restore it from a copy"))
        }
        _ => error,
    }
}

fn next_epoch(last: Epoch, dir: &Path) -> Result<Epoch> {
    last.checked_add(1).ok_or_else(|| {
        Error::unsupported(format!(
            "{} was opened four billion times, which is all its format allows",
            dir.display()
        ))
    })
}

fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}

async fn remove_all<I: Io>(io: &I, paths: impl Iterator<Item = &PathBuf>) -> Result<()> {
    for path in paths {
        io.remove(path).await?;
    }
    Ok(())
}

/// Removes what nothing needs. What cannot be removed now is found again by
/// the next opening.
async fn remove_orphans<I: Io>(io: &I, paths: impl Iterator<Item = &PathBuf>) {
    for path in paths {
        discard(io, path).await;
    }
}

impl RootState {
    fn new(edits: &[Edit], path: &Path) -> Result<Self> {
        let mut this = Self::default();
        for edit in edits {
            match edit {
                Edit::StreamStart { stream, start, flushed } => {
                    this.streams.entry(*stream).or_default().start = *start;
                    for (shard, seq) in flushed {
                        let known = this.flushed.entry(*shard).or_default();
                        *known = (*known).max(*seq);
                    }
                }
                Edit::StreamCut { stream, cut } => {
                    this.streams.entry(*stream).or_default().cut = Some(*cut);
                }
                Edit::StreamMap { stream, map } => {
                    this.streams.entry(*stream).or_default().map = Some(map.clone());
                }
                Edit::StreamFreed { stream } => drop(this.streams.remove(stream)),
                Edit::Keyspace { id, .. } if *id == KEYSPACE_DEFAULT => {}
                Edit::Keyspace { id, name } => {
                    return Err(Error::unsupported(format!(
                        "{}: the database has a keyspace {name} ({id}), and this version knows \
                         only the default one; use a newer ouro",
                        path.display()
                    )));
                }
                Edit::Clean => this.is_clean = true,
                Edit::Table { .. } | Edit::Flushed { .. } => {
                    let reason = "a root manifest holds a shard's edit";
                    return Err(Error::corruption(path, 0, reason));
                }
            }
        }
        Ok(this)
    }
}

/// A stream of an earlier opening.
struct Old {
    stream: FoundStream,
    known: KnownStream,
}

struct Recovery<'a, I> {
    io: &'a I,
    opening: &'a Opening,
    identity: &'a Identity,
    epoch: Epoch,
    limits: Limits,
}

impl<I: Io> Recovery<'_, I> {
    /// Reads a shard's manifest and opens its tables.
    async fn load_shard(&self, id: ShardId, is_new: bool, root: &RootState) -> Result<Recovering> {
        let (io, dir) = (self.io, shard_dir(&self.opening.dir, id));
        if is_new {
            io.create_dir(&dir).await?;
            io.sync_dir(&self.opening.dir).await?;
        }
        let found = manifest::find(io, &dir).await;
        let found = found.map_err(|e| missing(e, &dir, "the shard's directory"))?;
        let mut stale = found.stale;
        let mut tables = Vec::new();
        let mut flushed = 0;
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
                for edit in loaded.edits {
                    match edit {
                        Edit::Table { meta, .. } => tables.push(self.open_table(&dir, meta).await?),
                        Edit::Flushed { seq } => flushed = seq,
                        _ => {
                            let reason = "a shard's manifest holds an edit of the root's";
                            return Err(Error::corruption(&loaded.path, 0, reason));
                        }
                    }
                }
                let stated = root.flushed.get(&id).copied().unwrap_or(0);
                if flushed < stated {
                    let reason = format!(
                        "the manifest's last edits are missing: it knows writes up to {flushed}, \
                         and tables were written up to {stated}; restore it from a copy"
                    );
                    return Err(Error::corruption(&path, 0, reason));
                }
                stale.push(path);
            }
            None => {
                let path = dir.join("MANIFEST-*");
                let reason = "the shard's manifest is missing; restore it from a copy";
                return Err(Error::corruption(&path, 0, reason));
            }
        }
        tables.reverse();
        let view = View { frozen: Vec::new(), tables };
        let state = State::new(view, flushed, &self.opening.arenas);
        Ok(Recovering { id, dir, manifest: None, state, flushed, next_seq: None, stale })
    }

    /// Opens a table. One that is damaged or missing does not keep the rest of
    /// the database from being read.
    async fn open_table(&self, dir: &Path, meta: TableMeta) -> Result<Member> {
        let path = dir.join(format!("{}{TABLE_SUFFIX}", meta.id));
        let opened = match self.io.open(&path, OpenMode::Read).await {
            Ok(file) => Table::open(self.io, file, self.identity.db, meta.clone()).await,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::corruption(&path, 0, "the table is missing"))
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok(table) => Ok(Member::Sound(Arc::new(table))),
            Err(error) if error.kind() == ErrorKind::Corruption => {
                tracing::error!(%error, "a table is damaged; the keys it may hold are refused");
                Ok(Member::Damaged { meta, error })
            }
            Err(error) => Err(error),
        }
    }

    /// Pairs the streams on disk with what the root manifest knows of them.
    async fn match_streams(
        &self,
        found: Found,
        root: &RootState,
        last_epoch: Epoch,
        orphans: &mut Vec<PathBuf>,
    ) -> Result<Vec<Old>> {
        let mut known = root.streams.clone();
        let mut old = Vec::new();
        let mut maps = found.maps;
        for mut stream in found.streams {
            match known.remove(&stream.key) {
                // Freed, or recycled and never used again: not needed.
                Some(known) if known.cut == Some(known.start) => orphans.extend(stream.paths()),
                // A close leaves nothing in mappings that is not durable in segments.
                Some(mut known) if root.is_clean && stream.key.epoch == last_epoch => {
                    if let Some(place) = known.map.take_if(|place| place.dir.is_some()) {
                        let log_dir = self.opening.dir.join(WAL_DIR);
                        orphans.push(wal::map_path(&log_dir, self.identity.db, &place));
                    }
                    known.map = None;
                    old.push(Old { stream, known });
                }
                Some(known) => {
                    if let Some(place) = &known.map {
                        self.read_map(&mut stream, place).await?;
                        maps.remove(&place.id);
                    }
                    old.push(Old { stream, known });
                }
                None => self.check_unknown(stream, last_epoch, orphans).await?,
            }
        }
        // Of openings that ended before they used them, or of freed streams.
        orphans.extend(maps.into_values());
        if let Some((key, _)) = known.iter().find(|(_, known)| known.cut != Some(known.start)) {
            let path = self.opening.dir.join(WAL_DIR);
            let (stream, epoch) = (key.stream, key.epoch);
            let reason = format!("the segments of stream {stream} of opening {epoch} are missing");
            return Err(Error::corruption(&path, 0, reason));
        }
        Ok(old)
    }

    /// Takes in the mapping of a stream. It may hold what was acknowledged, and
    /// is nowhere else.
    async fn read_map(&self, stream: &mut FoundStream, place: &MapPlace) -> Result<()> {
        let (io, db) = (self.io, self.identity.db);
        let path = wal::map_path(&self.opening.dir.join(WAL_DIR), db, place);
        let is_same_boot = io.boot_id()? == place.boot;
        match stream.read_map(io, &self.opening.pool, db, place.id, &path, is_same_boot).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if place.dir.is_some() && !is_same_boot {
                    tracing::warn!(
                        path = %path.display(),
                        "the mapping of the log went with the boot of the machine it was of, and \
                         with it writes that were not durable"
                    );
                    return Ok(());
                }
                let until_reboot = match place.dir {
                    Some(_) => {
                        ", or reboot the machine: then the database opens without what only the \
                         file held"
                    }
                    None => "",
                };
                let reason = format!(
                    "the mapping of the log is missing, and may hold acknowledged writes; nothing \
                     was changed: restore the file{until_reboot}"
                );
                Err(Error::corruption(&path, 0, reason))
            }
            read => read,
        }
    }

    /// The mappings in the directory where this opening puts its own: none is
    /// needed once those of the streams were taken in.
    async fn maps_elsewhere(&self) -> Result<Vec<PathBuf>> {
        let Some(dir) = &self.opening.map_dir else {
            return Ok(Vec::new());
        };
        let names = self.io.list(Path::new(dir)).await;
        let names =
            names.map_err(|e| e.context("the directory for mappings (Options::map_dir)"))?;
        let prefix = wal::map_prefix(self.identity.db);
        let ours = names.into_iter().filter(|name| name.starts_with(&prefix));
        Ok(ours.map(|name| Path::new(dir).join(name)).collect())
    }

    /// Copies mappings from elsewhere into the log's directory, durably: what
    /// this opening is about to call durable must outlive the boot.
    /// Returns the paths of those that the new root manifest does not name.
    async fn take_in_maps(&self, streams: &mut [Old]) -> Result<Vec<PathBuf>> {
        let mut copied = Vec::new();
        for Old { stream, known } in streams {
            let Some(place) = known.map.as_mut().filter(|place| place.dir.is_some()) else {
                continue;
            };
            let (db, log_dir) = (self.identity.db, self.opening.dir.join(WAL_DIR));
            copied.push(wal::map_path(&log_dir, db, place));
            place.dir = None;
            let path = wal::map_path(&log_dir, db, place);
            if !stream.move_map(self.io, &self.opening.pool, &path).await? {
                // It was lost with its boot.
                known.map = None;
            }
        }
        Ok(copied)
    }

    /// A stream the root manifest does not know was made by an opening that
    /// ended before it wrote a record; or it was freed, and its files came
    /// back. If its first record is there, the manifest has lost an edit.
    async fn check_unknown(
        &self,
        stream: FoundStream,
        last_epoch: Epoch,
        orphans: &mut Vec<PathBuf>,
    ) -> Result<()> {
        let key = stream.key;
        let Some(first) = stream.segments.first() else {
            return Ok(());
        };
        let path = first.file.path().to_owned();
        if key.epoch > last_epoch {
            let reason = format!(
                "the segment is of opening {}, and the root manifest knows {last_epoch} openings",
                key.epoch
            );
            return Err(Error::corruption(&path, 0, reason));
        }
        if key.epoch == last_epoch && first.start == 0 {
            let mut records = 0;
            let mut reader = stream.reader(self.identity.db, 0, None);
            while reader
                .next_segment(self.io, &self.opening.pool, |_| {
                    records += 1;
                    Ok(())
                })
                .await?
            {}
            if records > 0 {
                let reason = "the root manifest does not know this log, which has records in it: \
                              its last edits are missing; restore the manifest from a copy";
                return Err(Error::corruption(&path, 0, reason));
            }
        }
        orphans.extend(stream.paths());
        Ok(())
    }

    /// Follows every stream to its end, and makes durable what it holds.
    async fn find_ends(&self, streams: &[Old]) -> Result<Vec<u64>> {
        let mut ends = Vec::with_capacity(streams.len());
        for Old { stream, known } in streams {
            let mut reader = stream.reader(self.identity.db, known.start, known.cut);
            while reader.next_segment(self.io, &self.opening.pool, |_| Ok(())).await? {}
            ends.push(reader.finish()?);
        }
        for Old { stream, .. } in streams {
            stream.sync(self.io).await?;
        }
        Ok(ends)
    }

    /// Makes the shards' manifests of this opening.
    async fn make_manifests(
        &self,
        shards: &mut [Recovering],
        new_id: &impl Fn() -> FileId,
    ) -> Result<()> {
        for shard in shards {
            remove_all(self.io, shard.stale.iter().filter(|path| is_unfinished(path))).await?;
            let snapshot = shard_snapshot(&shard.state.view.tables, shard.flushed);
            let (dir, db) = (&shard.dir, self.identity.db);
            let made = Manifest::create(self.io, dir, db, new_id(), &snapshot).await?;
            shard.manifest = Some(made);
            let superseded = shard.stale.iter().filter(|path| !is_unfinished(path));
            remove_orphans(self.io, superseded).await;
        }
        Ok(())
    }

    /// Replays the streams, in the order of their epochs, into memtables.
    async fn replay(
        &self,
        streams: &[Old],
        ends: &[u64],
        shards: &mut [Recovering],
        new_id: &impl Fn() -> FileId,
    ) -> Result<Vec<OldStream>> {
        let mut old_streams = Vec::with_capacity(streams.len());
        for (Old { stream, known }, end) in streams.iter().zip(ends) {
            let mut needed = BTreeMap::new();
            let mut reader = stream.reader(self.identity.db, known.start, Some(*end));
            let pool = &self.opening.pool;
            loop {
                let more = reader
                    .next_segment(self.io, pool, |record| self.apply(record, shards, &mut needed))
                    .await?;
                if !more {
                    break;
                }
                for shard in &mut *shards {
                    while shard.state.view.frozen.len() > self.limits.frozen_max {
                        self.flush_oldest(shard, new_id()).await?;
                    }
                }
            }
            reader.finish()?;
            old_streams.push(OldStream {
                key: stream.key,
                start: known.start,
                cut: *end,
                map: known.map.clone(),
                paths: stream.paths().collect(),
                needed: needed.into_iter().collect(),
            });
        }
        // Short openings never fill a memtable: each would add its log to what
        // the next one has to read, and to keep open while it does.
        let segments = streams.iter().flat_map(|old| &old.stream.segments);
        let log_bytes: u64 = segments.map(Segment::file_bytes).sum();
        let is_much = streams.len() > OLD_STREAMS_MAX || log_bytes > self.limits.wal_bytes_max;
        for shard in shards {
            if is_much && !shard.state.mutable.is_empty() {
                shard.state.rotate(&self.opening.arenas);
            }
            while is_much && !shard.state.view.frozen.is_empty() {
                self.flush_oldest(shard, new_id()).await?;
            }
            let last = shard.state.next_seq - 1;
            shard.state.published = crate::shard::clock::Published::new(last);
        }
        Ok(old_streams)
    }

    /// Applies a record of the log.
    fn apply(
        &self,
        record: &Record<'_>,
        shards: &mut [Recovering],
        needed: &mut BTreeMap<ShardId, SeqNo>,
    ) -> Result<(), Stop> {
        if record.header.kind != RecordKind::Write {
            return Ok(());
        }
        record.for_each_write(|write| {
            if write.keyspace != KEYSPACE_DEFAULT {
                let what = format!("a write to keyspace {}", write.keyspace);
                return Err(Stop::Unusable(Unusable::Newer(what)));
            }
            let shard = shards.get_mut(usize::from(write.shard)).ok_or_else(|| {
                Stop::Unusable(Unusable::malformed("a write to a shard there is not"))
            })?;
            let last = needed.entry(write.shard).or_default();
            *last = (*last).max(write.seq);
            shard.apply(&write, &self.limits, &self.opening.arenas)
        })
    }

    /// Flushes a shard's oldest immutable memtable.
    async fn flush_oldest(&self, shard: &mut Recovering, id: FileId) -> Result<()> {
        let oldest: Arc<Frozen> =
            Arc::clone(shard.state.view.frozen.last().expect("the caller saw one"));
        let place = TablePlace {
            dir: shard.dir.clone(),
            db: self.identity.db,
            shard: shard.id,
            id,
            pool: Arc::clone(&self.opening.pool),
        };
        let hasher = KeyHasher::new(&self.identity.hash_key);
        let retain = Retain::Bounds(Vec::new());
        let table = write_table(self.io, &oldest.memtable, &retain, &hasher, &place).await;
        let table = match table {
            Ok(table) => table,
            Err(error) => {
                discard(self.io, &place.path()).await;
                return Err(error);
            }
        };
        let (_, seq) = oldest.memtable.seq_range().expect("an empty memtable is not rotated");
        let edits = [Edit::Table { level: 0, meta: table.meta().clone() }, Edit::Flushed { seq }];
        let manifest = shard.manifest.as_mut().expect("made before the replay");
        manifest.append(self.io, &edits).await?;
        shard.state.view = Arc::new(shard.state.view.flushed(&oldest, Arc::new(table)));
        Ok(())
    }

    /// Adds the files of a shard's directory that nothing names: tables of
    /// earlier openings that never made it into a manifest.
    async fn find_orphans(&self, shard: &Recovering, orphans: &mut Vec<PathBuf>) -> Result<()> {
        let named: Vec<FileId> =
            shard.state.view.tables.iter().map(|table| table.meta().id).collect();
        for name in self.io.list(&shard.dir).await? {
            let Some(id) = name.strip_suffix(TABLE_SUFFIX).and_then(FileId::parse) else {
                continue;
            };
            if id.epoch() < self.epoch && !named.contains(&id) {
                orphans.push(shard.dir.join(name));
            }
        }
        Ok(())
    }
}

impl Recovering {
    /// Applies one write of the log.
    fn apply(
        &mut self,
        write: &Write<'_>,
        limits: &Limits,
        arenas: &Arc<ArenaPool>,
    ) -> Result<(), Stop> {
        // What is in tables may be missing: its log was freed.
        let expected = self.next_seq.unwrap_or(1);
        let in_tables = expected.max(self.flushed + 1);
        if write.seq < expected || write.seq > in_tables {
            return Err(Stop::Unusable(Unusable::Malformed(format!(
                "write {} of shard {} follows, and {expected} is expected ({} are in tables)",
                write.seq, self.id, self.flushed
            ))));
        }
        self.next_seq = Some(write.seq + 1);
        if write.seq <= self.flushed {
            return Ok(());
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
