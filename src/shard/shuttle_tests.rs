//! Shards under shuttle: writers and readers of one engine, and the commit
//! clock.

use std::path::Path;
use std::sync::Arc;

use crate::base::durability::Durability;
use crate::base::ids::ShardId;
use crate::base::latency::Operation;
use crate::base::seq::{Kind, SeqNo};
use crate::base::sync::{LongestHold, ShortMutex, thread};
use crate::io::BufferPool;
use crate::io::sim::Sim;
use crate::lsm::{Hierarchy, Retain};
use crate::memtable::ArenaPool;
use crate::runtime::shuttle_tests::{Disk, LocalFuture, choose, explore};
use crate::runtime::{Background, Budget, block_on, join_all};
use crate::shard::clock::{Clock, Published, Timestamp};
use crate::shard::read::Found;
use crate::shard::{Engine, Job, Limits, Opening, WriteOp, recover};
use crate::sst::PinLimits;
use crate::wal::{MapSizes, Role, SegmentSizes};

const SHARDS: usize = 2;
const SEGMENT_BYTES: u64 = 64 << 10;

/// A new database, of one owner.
fn engine(disk: &Disk, durability: Durability) -> Engine {
    let limits = Limits {
        memory: 0,
        memtable_bytes: 1 << 20,
        frozen_max: 2,
        value_bytes_max: 8 << 20,
        wal_bytes_max: 1 << 30,
        group_bytes_max: 16 << 10,
        idle_ns: 1_000_000_000,
        retry_ns: 1_000_000_000,
        map: MapSizes { slot_bytes: 8 << 10, slots: 2 },
        durability,
        cache_bytes: 0,
        cache_lent_bytes: 0,
        hierarchy: Hierarchy::leveled(1 << 20),
        newest_tables_behind: 24,
        newest_tables_max: 48,
        pinned_bytes_free: None,
        pins: PinLimits { bytes_max: 1 << 20, oldest_bytes_max: 1 << 20 },
        partition_cache_bytes: 64 << 10,
        compaction_read_bytes: 1 << 20,
        memtable_pool_bytes: 0,
        value_pool_bytes: 0,
    };
    let opening = Opening {
        dir: Path::new("/db").to_owned(),
        create: true,
        shards: SHARDS,
        limits: Box::new(move |_| Ok(limits)),
        segments: SegmentSizes { first_bytes: SEGMENT_BYTES, max_bytes: SEGMENT_BYTES },
        pool: BufferPool::new(64 << 10, 1),
        owner_pools: vec![BufferPool::new(64 << 10, 1)],
        arenas: ArenaPool::new(1 << 20),
        value_pool: BufferPool::new(crate::value::PIECE_BYTES, 1),
        place: [0; 16],
        map_dir: None,
        lock_wait_ns: 0,
        cores: 1,
    };
    block_on(recover(disk, opening)).expect("a new database")
}

/// A key of each shard.
fn keys(engine: &Engine) -> [Vec<u8>; SHARDS] {
    std::array::from_fn(|shard| {
        let of_shard = |key: &Vec<u8>| usize::from(engine.shard_of(engine.hash(key))) == shard;
        let mut keys = (0u32..).map(|number| number.to_le_bytes().to_vec());
        keys.find(of_shard).expect("hashes differ")
    })
}

/// What a get of a key of the memtable gives.
fn get(engine: &Engine, disk: &Disk, key: &[u8]) -> Option<u64> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("a number"));
    let visit = |found: Found<'_>| match found {
        Found::Bytes(bytes) => number(bytes),
        Found::Shared(bytes) => number(&bytes),
        Found::Own(bytes) => number(&bytes),
        Found::Loaded(bytes) => number(&bytes),
    };
    block_on(engine.get(disk, key, visit)).expect("a get")
}

/// Writes a number to keys of both shards, or to one; long batches are filled
/// without the locks. Then it must be read, or what came after it.
fn write(engine: &Engine, disk: &Disk, keys: &[Vec<u8>; SHARDS], writer: u64) {
    for round in 1..=2 {
        let number = round * 10 + writer;
        let value = number.to_le_bytes();
        let durability = [Durability::Durable, Durability::ProcessSafe][choose(2)];
        let role = [Role::Leader, Role::Follower][choose(2)];
        // Each writer has keys of its own, and all share the first.
        let shards: &[usize] = [&[0, 1][..], &[0], &[1]][choose(3)];
        let times = [1, 20][choose(2)];
        let own: Vec<Vec<u8>> =
            keys.iter().map(|key| [key.as_slice(), &[writer as u8]].concat()).collect();
        let mut ops = Vec::new();
        for &shard in shards {
            let op = |key| WriteOp { shard: shard as ShardId, kind: Kind::Put, key, value: &value };
            ops.extend(std::iter::repeat_n(op(&keys[shard]), times));
            ops.push(op(&own[shard]));
        }
        block_on(engine.write(Operation::Put, disk, role, &ops, durability)).expect("a write");
        for &shard in shards {
            assert_eq!(get_from(engine, shard, &own[shard]), Some(number), "not acknowledged");
            assert!(get(engine, disk, &keys[shard]).is_some());
        }
    }
}

/// Like [`get`], of the shard that the key was written to.
fn get_from(engine: &Engine, shard: usize, key: &[u8]) -> Option<u64> {
    let state = engine.shard(shard as ShardId).lock();
    let entry = state.mutable.get(key, state.published.visible())?;
    Some(u64::from_le_bytes((&*entry.value).try_into().expect("a number")))
}

/// Acknowledged writes are read, and nobody waits for ever.
#[test]
fn acknowledged_writes_are_visible() {
    explore(1500, || {
        let disk = Disk::new();
        let durability = [Durability::Durable, Durability::ProcessSafe][choose(2)];
        let device = {
            let disk = disk.clone();
            thread::spawn(move || disk.serve())
        };
        let engine = Arc::new(engine(&disk, durability));
        let keys = Arc::new(keys(&engine));
        let owner = {
            let (engine, disk) = (Arc::clone(&engine), disk.clone());
            thread::spawn(move || {
                // Only what it does with the budget is used here.
                let background = Background::simulated(&Sim::new(0), Budget::new());
                let jobs = [Job::Log, Job::Lead, Job::Lead].map(|job| {
                    let job: LocalFuture<'_> =
                        Box::pin(job.run(Arc::clone(&engine), 0, disk.clone(), background.clone()));
                    job
                });
                block_on(join_all(jobs));
            })
        };
        let writers: Vec<_> = (1..=3)
            .map(|writer| {
                let (engine, disk, keys) = (Arc::clone(&engine), disk.clone(), Arc::clone(&keys));
                thread::spawn(move || write(&engine, &disk, &keys, writer))
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
        for shard in &engine.shards {
            let state = shard.lock();
            assert_eq!((state.published.visible(), state.inserting), (state.next_seq - 1, 0));
        }
        engine.close();
        engine.owners[0].stop();
        owner.join().expect("no panic");
        block_on(engine.finish(&disk)).expect("a clean end");
        disk.stop();
        device.join().expect("no panic");
    });
}

/// Two shards that publish the same numbers, and what was retained for open
/// snapshots.
struct Clocked {
    clock: Clock,
    shards: [ShortMutex<Shard>; SHARDS],
}

struct Shard {
    published: Published,
    /// What flushes were told to keep, and what was visible then.
    retained: Vec<(SeqNo, Retain)>,
}

impl Clocked {
    fn new() -> Arc<Self> {
        let longest = Arc::<LongestHold>::default();
        let shards = std::array::from_fn(|_| {
            let shard = Shard { published: Published::new(0), retained: Vec::new() };
            ShortMutex::new(shard, &longest)
        });
        Arc::new(Self { clock: Clock::default(), shards })
    }

    /// Makes one more write of each shard visible.
    fn publish(&self) {
        let mut shards = self.shards.each_ref().map(ShortMutex::lock);
        let at = self.clock.tick();
        for shard in &mut shards {
            let next = shard.published.visible() + 1;
            shard.published.publish(&self.clock, at, next);
        }
    }

    fn retain(&self, shard: usize) {
        let mut shard = self.shards[shard].lock();
        let retain = shard.published.retain(&self.clock);
        let visible = shard.published.visible();
        shard.retained.push((visible, retain));
    }

    fn bounds(&self, at: Timestamp) -> [SeqNo; SHARDS] {
        self.shards.each_ref().map(|shard| shard.lock().published.bound(at))
    }
}

/// A snapshot sees one moment, for as long as it is open, and what it sees is
/// kept.
#[test]
fn a_snapshot_sees_one_moment_and_keeps_it() {
    explore(6000, || {
        let clocked = Clocked::new();
        clocked.publish();
        let publishers = (0..2).map(|_| {
            let clocked = Arc::clone(&clocked);
            thread::spawn(move || {
                for shard in 0..SHARDS {
                    clocked.publish();
                    clocked.retain(shard);
                }
            })
        });
        let publishers: Vec<_> = publishers.collect();
        let readers = (0..2).map(|_| {
            let clocked = Arc::clone(&clocked);
            thread::spawn(move || {
                if choose(2) == 0 {
                    let early = clocked.clock.snapshot();
                    clocked.clock.close(&early);
                }
                let before = clocked.shards[1].lock().published.visible();
                let snapshot = clocked.clock.snapshot();
                let bounds = clocked.bounds(snapshot.at);
                assert_eq!(bounds[0], bounds[1], "two moments");
                assert!(bounds[0] >= before, "older than what was visible before");
                assert_eq!(clocked.bounds(snapshot.at), bounds, "it moved");
                (snapshot, bounds)
            })
        });
        let readers: Vec<_> = readers.collect();
        publishers.into_iter().for_each(|publisher| publisher.join().expect("no panic"));
        for reader in readers {
            let (snapshot, bounds) = reader.join().expect("no panic");
            assert_eq!(clocked.bounds(snapshot.at), bounds, "it was not kept");
            for (visible, retain) in
                clocked.shards.iter().flat_map(|shard| shard.lock().retained.clone())
            {
                // What was visible then is in the table, and older versions are
                // not, unless they were asked for.
                let kept = match &retain {
                    Retain::All => true,
                    Retain::Bounds(kept) => kept.contains(&bounds[0]),
                };
                assert!(kept || bounds[0] >= visible, "{bounds:?} of {visible}: {retain:?}");
            }
            clocked.clock.close(&snapshot);
        }
        clocked.publish();
        assert_eq!(clocked.bounds(0), [6; SHARDS], "pairs that nobody needs are kept");
    });
}
