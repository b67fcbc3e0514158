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

mod maps;
mod shards;
mod streams;

use maps::list_map_dir;
pub(super) use shards::{Stated, TABLE_SUFFIX, check_seq};
pub(super) use streams::{KnownStream, RootState};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::hash::KeyHasher;
use crate::base::ids::{Epoch, FileId, ShardId, StreamId};
use crate::base::latency::Recorder;
use crate::base::seq::SeqNo;
use crate::base::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::base::sync::{LongestHold, Mutex};
use crate::cache::{Cache, Epochs, PartitionCache};
use crate::format::edit::{Edit, StreamKey};
use crate::io::{BufferPool, Io};
use crate::manifest::{self, IDENTITY, Identity, Manifest};
use crate::memtable::ArenaPool;
use crate::runtime::{AsyncMutex, Event};
use crate::shard::clock::Clock;
use crate::shard::engine::{Engine, Limits, Owner, Root, StreamState, root_snapshot};
use crate::shard::pace::SlowWrites;
use crate::shard::state::Shard;
use crate::sst::{Partition, Pins, ReadCounters, Table};
use crate::value::ValueWork;
use crate::wal::{SegmentMaker, SegmentSizes, Stream, discard, find_streams};

/// The log's directory.
pub(super) const WAL_DIR: &str = "wal";

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
    pub(crate) limits: Box<dyn Fn(usize) -> Result<Limits> + Send + Sync>,
    pub(crate) segments: SegmentSizes,
    /// Buffers for the recovery itself.
    pub(crate) pool: Arc<BufferPool>,
    /// Buffers for each owner: as many as there may be owners.
    pub(crate) owner_pools: Vec<Arc<BufferPool>>,
    pub(crate) arenas: Arc<ArenaPool>,
    /// Buffers for long values, of [`PIECE_BYTES`](crate::value::PIECE_BYTES).
    pub(crate) value_pool: Arc<BufferPool>,
    /// Tells `dir` from its copies.
    pub(crate) place: [u8; 16],
    /// Where mappings go, if not into the log's directory.
    pub(crate) map_dir: Option<String>,
    /// How long to wait for a lock that a process which ends still has.
    pub(crate) lock_wait_ns: u64,
    /// What operations take is recorded apart for so many threads that run at once.
    pub(crate) cores: usize,
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
    let found = find_streams(io, &opening.pool, &wal_dir, identity.db).await;
    let mut found = found.map_err(|e| missing(e, &wal_dir, "the log's directory"))?;
    let mut orphans = std::mem::take(&mut found.needless);

    let (last_epoch, root_state, root_end) = match &root_files.current {
        Some((id, path)) => {
            let loaded = manifest::load(io, identity.db, *id, path).await?;
            (id.epoch(), RootState::new(&loaded.edits, path)?, (loaded.path, loaded.end))
        }
        // Creating was interrupted, unless there is what only comes later.
        None => match found.streams.iter().flat_map(|stream| &stream.segments).next() {
            None => (0, RootState::default(), (dir.clone(), 0)),
            Some(segment) => return Err(no_root_manifest(dir, segment.file.path())),
        },
    };
    let epoch = next_epoch(last_epoch, dir)?;
    let limits = (opening.limits)(identity.shards)?;
    // More owners than shards would have nothing to do.
    let owner_count = opening.owner_pools.len().clamp(1, identity.shards);
    let caches = make_caches(&limits, owner_count)?;
    let partition_caches: Vec<_> =
        (0..owner_count).map(|_| PartitionCache::new(limits.partition_cache_bytes)).collect();
    let pins = Pins::new(limits.pins);
    let value_work = (0..owner_count).map(|_| ValueWork::default()).collect();
    let recovery = Recovery {
        io,
        opening: &opening,
        identity: &identity,
        root_end,
        epoch,
        limits,
        caches: &caches,
        partition_caches: &partition_caches,
        pins: &pins,
        value_work,
    };

    let mut shards = Vec::with_capacity(identity.shards);
    for id in 0..identity.shards as ShardId {
        shards.push(recovery.load_shard(id, is_new, &root_state).await?);
    }
    let mut elsewhere = recovery.maps_elsewhere(&root_state).await?;
    found.maps.append(&mut elsewhere.maps);
    orphans.append(&mut elsewhere.unfinished);
    let streams = recovery.match_streams(found, &root_state, last_epoch, &mut orphans).await?;
    let ends = recovery.find_ends(&streams).await?;
    let map_dir = recovery.own_map_dir().await?;
    let mut map_dirs = elsewhere.dirs;
    if let Some(own) = map_dir.as_ref().filter(|own| !map_dirs.contains(own)) {
        map_dirs.push(own.clone());
    }

    // Unfinished files of an opening that had taken the same epoch.
    remove_all(io, root_files.stale.iter().filter(|path| is_unfinished(path))).await?;
    let files = AtomicU32::new(0);
    let new_id = || FileId::new(epoch, files.fetch_add(1, Ordering::Relaxed));
    let old = streams.iter().zip(&ends).map(|(old, end)| StreamState {
        key: old.stream.key,
        start: old.known.start,
        cut: *end,
    });
    let mut snapshot = root_snapshot(old, &map_dirs);
    // No more than was stated before: what the shards' manifests say beyond that may not be
    // durable until they are made anew.
    snapshot.extend(tell_flushed(epoch, root_state.flushed.iter().map(|(id, seq)| (*id, *seq))));
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
    // Who has its files open keeps the space of those that go.
    drop(streams);

    // Every shard is whole again: now things may go, before the segments take
    // their space.
    for shard in &shards {
        recovery.find_orphans(shard, &mut orphans).await?;
    }
    remove_orphans(io, orphans.iter()).await;
    let (old_streams, done): (Vec<_>, Vec<_>) = old_streams.into_iter().partition(|old| {
        let flushed = |shard: ShardId| shards[usize::from(shard)].state.flushed_seq();
        old.needed.iter().any(|&(shard, seq)| flushed(shard) < seq)
    });
    if !done.is_empty() {
        let freed = done.iter().map(|old| Edit::StreamFreed { stream: old.key });
        let flushed = shards.iter().map(|shard| (shard.id, shard.state.flushed_seq()));
        let edits: Vec<Edit> = tell_flushed(epoch, flushed).into_iter().chain(freed).collect();
        // An opening that did not find these edits would miss the files.
        root.append_witnessed(io, &edits).await?;
        remove_orphans(io, done.iter().flat_map(|old| &old.paths)).await;
    }

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
        let first = first.map_err(|error| {
            let bytes = opening.segments.first_bytes;
            let what = format!(
                "cannot open the database, which takes {bytes} bytes for the log of each of \
                 {owner_count} owners"
            );
            error.context(&what)
        })?;
        let stream = Stream::new(identity.db, key, limits.group_bytes_max, first);
        if !limits.durability.is_durable() {
            stream.want_map();
        }
        let own = shards.iter().filter(|shard| usize::from(shard.id) % owner_count == number);
        let flushed = own.map(|shard| (shard.id, shard.state.flushed_seq())).collect();
        starts.push(Edit::StreamStart { stream: key, start: 0, flushed });
        made.push((stream, maker));
    }
    root.append(io, &starts).await?;

    let mut owners: Vec<Owner> = made
        .into_iter()
        .zip(recovery.value_work)
        .zip(caches.iter().cloned().zip(partition_caches.iter().cloned()))
        .map(|(((stream, maker), value_work), (cache, partitions))| Owner {
            stream,
            shards: Vec::new(),
            maker,
            cache,
            memtable_bytes: AtomicUsize::new(limits.memtable_bytes),
            was_full: AtomicBool::new(false),
            partitions,
            manifests: Vec::new(),
            map: Mutex::default(),
            map_lock: Mutex::default(),
            flush_work: Event::default(),
            retired: Arc::default(),
            value_work,
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
        open_shards.push(Shard::new(shard.id, shard.values, shard.state, &longest_hold));
    }
    let engine = Engine {
        db: identity.db,
        hasher: KeyHasher::new(&identity.hash_key),
        epoch,
        files,
        map_dir,
        limits,
        clock: Clock::default(),
        shards: open_shards,
        longest_hold,
        owners,
        root: AsyncMutex::new(Root { manifest: root, old_streams, map_dirs }),
        arenas: opening.arenas,
        io_counters: Arc::clone(io.counters()),
        slow_writes: SlowWrites::default(),
        latencies: Recorder::new(opening.cores),
        pinned_bytes: AtomicU64::new(0),
        read_counters: ReadCounters::default(),
        pins,
        dir: opening.dir,
    };
    engine.share_memory();
    Ok(engine)
}

/// Edits of the root manifest that say up to where each shard's writes are in tables,
/// before there is a stream to say it: a shard's manifest that has lost its end is told
/// by that.
fn tell_flushed(epoch: Epoch, flushed: impl Iterator<Item = (ShardId, SeqNo)>) -> [Edit; 2] {
    let stream = StreamKey { epoch, stream: 0 };
    let flushed = flushed.collect();
    [Edit::StreamStart { stream, start: 0, flushed }, Edit::StreamFreed { stream }]
}

async fn load_identity<I: Io>(io: &I, opening: &Opening) -> Result<Identity> {
    let dir = &opening.dir;
    let names = io.list(dir).await?;
    if names.iter().any(|name| name == IDENTITY) {
        return Identity::load(io, dir).await;
    }
    if let Some(error) = no_identity(dir, &names) {
        return Err(error);
    }
    if !opening.create {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no database in {}", dir.display()),
        ));
    }
    // What would fail later fails before there is anything to be taken back.
    let limits = (opening.limits)(opening.shards)?;
    make_caches(&limits, opening.owner_pools.len().clamp(1, opening.shards))?;
    if let Some(dir) = &opening.map_dir {
        list_map_dir(io, dir).await?;
    }
    let identity = Identity::draw(io, opening.shards);
    identity.create(io, dir).await?;
    Ok(identity)
}

/// The error for a directory without an identity file, if something in it says
/// that there was one.
pub(super) fn no_identity(dir: &Path, names: &[String]) -> Option<Error> {
    let ours = |name: &&String| {
        name.starts_with("MANIFEST-") || name.starts_with("shard-") || *name == WAL_DIR
    };
    let name = names.iter().find(ours)?;
    let reason = format!(
        "the identity file is missing, although there is {name}: the keys cannot be found without \
         it; restore it from a copy"
    );
    Some(Error::corruption(&dir.join(IDENTITY), 0, reason))
}

/// The root manifest is made before the log, and before any table.
pub(super) fn no_root_manifest(dir: &Path, later: &Path) -> Error {
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

/// The block cache of each owner.
fn make_caches(limits: &Limits, owners: usize) -> Result<Vec<Option<Arc<Cache>>>> {
    let epochs = Epochs::new();
    let (bytes, lent) = (limits.cache_bytes, limits.cache_lent_bytes);
    let make = |_| (bytes > 0).then(|| Cache::new(&epochs, bytes, lent)).transpose();
    (0..owners).map(make).collect()
}

struct Recovery<'a, I> {
    io: &'a I,
    opening: &'a Opening,
    identity: &'a Identity,
    /// The last opening's root manifest, and where in it the next record would be.
    root_end: (PathBuf, u64),
    epoch: Epoch,
    limits: Limits,
    /// Of each owner.
    caches: &'a [Option<Arc<Cache>>],
    partition_caches: &'a [Arc<PartitionCache<Partition>>],
    /// What open tables take in memory.
    pins: &'a Arc<Pins>,
    value_work: Vec<ValueWork>,
}

impl<I> Recovery<'_, I> {
    /// From now on what is read of a shard's table is cached.
    fn cache(&self, shard: ShardId, table: &Table) {
        let owner = usize::from(shard) % self.caches.len();
        table.cache_in(self.caches[owner].as_ref(), &self.partition_caches[owner]);
    }
}
