//! What only several writers at once can show: tasks on the simulated machine.

use std::cell::Cell;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::base::durability::Durability;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::FileId;
use crate::base::latency::{Operation, Timer, Waited};
use crate::base::seq::Kind;
use crate::base::sync::Mutex;
use crate::io::blocking::{Blocking, Parking};
use crate::io::sim::{FaultKind, Faults, Sim};
use crate::io::{BufferPool, Io, OpenMode};
use crate::lsm::{Direction, FileIds, Hierarchy, TablePlace};
use crate::memtable::ArenaPool;
use crate::runtime::{
    Background, Budget, Event, Executor, LocalIo, OwnerConfig, Remote, block_on, is_owner_thread,
    slice_end, yield_now,
};
use crate::shard::write::Obstacle;
use crate::shard::{Engine, Job, Limits, Opening, ScanRange, Scanner, Staged, WriteOp, recover};
use crate::sst::{Compression, PinLimits};
use crate::wal::{Goal, MapSizes, Role, SegmentSizes};

const MS: u64 = 1_000_000;

/// Shards whose memtables hold one write of [`put`].
fn opening(dir: &Path, shards: usize, segment_bytes: u64) -> Opening {
    let limits = Limits {
        memory: 0,
        memtable_bytes: 4096,
        frozen_max: 2,
        value_bytes_max: 8 << 20,
        wal_bytes_max: 1 << 30,
        group_bytes_max: segment_bytes as usize - 4096,
        idle_ns: 100 * MS,
        retry_ns: 500 * MS,
        map: MapSizes { slot_bytes: 8192.min(segment_bytes as u32 - 4096), slots: 3 },
        durability: Durability::Durable,
        cache_bytes: 128 << 10,
        cache_lent_bytes: 0,
        hierarchy: Hierarchy::leveled(4096),
        newest_tables_behind: 24,
        newest_tables_max: 48,
        pinned_bytes_free: None,
        pins: PinLimits { bytes_max: 1 << 20, oldest_bytes_max: 1 << 20 },
        partition_cache_bytes: 64 << 10,
        compaction_read_bytes: 1 << 20,
        memtable_pool_bytes: 0,
        value_pool_bytes: 0,
    };
    Opening {
        dir: dir.to_owned(),
        create: true,
        shards,
        limits: Box::new(move |_| Ok(limits)),
        segments: SegmentSizes { first_bytes: segment_bytes, max_bytes: segment_bytes },
        pool: BufferPool::new(64 << 10, 1),
        owner_pools: vec![BufferPool::new(64 << 10, 1)],
        arenas: ArenaPool::new(1 << 20),
        value_pool: BufferPool::new(crate::value::PIECE_BYTES, 1),
        place: [0; 16],
        map_dir: None,
        lock_wait_ns: 0,
        cores: 1,
    }
}

fn engine(sim: &Sim, shards: usize, segment_bytes: u64) -> Arc<Engine> {
    engine_of(sim, 1, shards, segment_bytes)
}

fn engine_of(sim: &Sim, owners: usize, shards: usize, segment_bytes: u64) -> Arc<Engine> {
    let mut opening = opening(Path::new("/db"), shards, segment_bytes);
    opening.owner_pools = (0..owners).map(|_| BufferPool::new(64 << 10, 1)).collect();
    engine_from(sim, opening)
}

fn engine_from(sim: &Sim, opening: Opening) -> Arc<Engine> {
    sim.block_on(async {
        sim.create_dir(Path::new("/db")).await.expect("a directory");
        sim.sync_dir(Path::new("/")).await.expect("a durable directory");
        Arc::new(recover(sim, opening).await.expect("an opening"))
    })
}

fn start_owner(sim: &Sim, engine: &Arc<Engine>) {
    let background = Background::simulated(sim, Budget::new());
    for job in Job::ALL {
        sim.spawn(job.run(Arc::clone(engine), 0, sim.clone(), background.clone()));
    }
}

/// The guard of a shard's lock stays on its thread: a future that may go to
/// another one holds none across an await. All of this compiles only then.
#[test]
fn futures_that_change_threads_hold_no_lock_across_an_await() {
    fn is_send<T: Send>(_: &T) {}
    fn check(
        engine: &Arc<Engine>,
        io: &Remote,
        ops: &[WriteOp<'_>],
        scanner: &mut Scanner,
        background: &Background,
    ) {
        is_send(&engine.write(Operation::Put, io, Role::Follower, ops, Durability::Durable));
        is_send(&engine.reach(io, 0, Goal::Visible(0), Role::Follower));
        is_send(&engine.get(io, b"key", |_| ()));
        is_send(&scanner.next(std::slice::from_ref(io)));
        is_send(&engine.flush_all());
        is_send(&engine.finish(io));
        for job in Job::ALL {
            is_send(&job.run(Arc::clone(engine), 0, io.clone(), background.clone()));
        }
    }
    let _: fn(&Arc<Engine>, &Remote, &[WriteOp<'_>], &mut Scanner, &Background) = check;
}

type Outcomes = Arc<Mutex<Vec<(&'static str, Result<()>)>>>;

/// Starts a put of a value that fills a memtable.
fn put(sim: &Sim, engine: &Arc<Engine>, outcomes: &Outcomes, name: &'static str) {
    let (sim, engine, outcomes) = (sim.clone(), Arc::clone(engine), Arc::clone(outcomes));
    sim.clone().spawn(async move {
        let value = [7; 4000];
        let key = name.as_bytes();
        let op = WriteOp { shard: 0, kind: Kind::Put, key, value: &value };
        let outcome =
            engine.write(Operation::Put, &sim, Role::Leader, &[op], Durability::Durable).await;
        outcomes.lock().push((name, outcome));
    });
}

fn flush(sim: &Sim, engine: &Arc<Engine>, outcomes: &Outcomes) {
    let (engine, outcomes) = (Arc::clone(engine), Arc::clone(outcomes));
    sim.spawn(async move {
        let outcome = engine.flush_all().await;
        outcomes.lock().push(("flush", outcome));
    });
}

/// Lets the tasks run until the writers got somewhere.
fn until(sim: &Sim, reached: impl Fn() -> bool) {
    sim.block_on(async {
        while !reached() {
            yield_now().await;
        }
    });
}

fn kinds(outcomes: &Outcomes) -> Vec<(&'static str, Option<ErrorKind>)> {
    let outcomes = outcomes.lock();
    let mut kinds: Vec<_> =
        outcomes.iter().map(|(name, r)| (*name, r.as_ref().err().map(Error::kind))).collect();
    kinds.sort_by_key(|(name, _)| *name);
    kinds
}

#[test]
fn a_failed_log_write_leaves_nobody_waiting() {
    for seed in 0..100 {
        let sim = Sim::new(seed);
        let engine = engine(&sim, 1, 1 << 20);
        start_owner(&sim, &engine);
        sim.run_for(10 * MS);
        let outcomes = Outcomes::default();
        // Slow enough that all are under way before the first write fails.
        let faults = Faults::default().delay_ns(5 * MS..=5 * MS);
        sim.set_faults(faults.fail_kth(1, FaultKind::Io, false));
        for name in ["a", "b", "c", "d", "e", "f"] {
            put(&sim, &engine, &outcomes, name);
        }
        until(&sim, || engine.shard(0).lock().view.frozen.len() == 2);
        flush(&sim, &engine, &outcomes);
        sim.run_for(20_000 * MS);
        let kinds = kinds(&outcomes);
        assert_eq!(kinds.len(), 7, "seed {seed}: somebody waits for ever: {kinds:?}");
        assert!(kinds.iter().all(|(_, kind)| *kind == Some(ErrorKind::Poisoned)), "{kinds:?}");
        sim.kill();
    }
}

/// Whoever waits for what a thread left behind that panicked is told.
#[test]
fn a_panic_in_the_midst_of_a_write_leaves_nobody_waiting() {
    let sim = Sim::new(1);
    let engine = engine(&sim, 1, 1 << 20);
    let stream = &engine.owners[0].stream;
    let panics = |then: &dyn Fn()| {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _panicking = stream.poison_on_panic();
            then();
        }));
        assert!(caught.is_err());
    };
    // One that unwinds anyway, and writes meanwhile, breaks nothing.
    struct WritesWhenDropped<'a>(&'a dyn Fn());
    impl Drop for WritesWhenDropped<'_> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _writes = WritesWhenDropped(&|| drop(stream.poison_on_panic()));
        panic!("of the user's");
    }));
    assert!(caught.is_err() && stream.poisoned().is_none());
    drop(stream.poison_on_panic());
    assert!(stream.poisoned().is_none());

    let outcomes = Outcomes::default();
    // No owner is there to write it, and it leads no group itself.
    let (waits, told) = (Arc::clone(&engine), Arc::clone(&outcomes));
    let writer = sim.clone();
    sim.spawn(async move {
        let op = WriteOp { shard: 0, kind: Kind::Put, key: b"k", value: b"v" };
        let outcome =
            waits.write(Operation::Put, &writer, Role::Follower, &[op], Durability::Durable).await;
        told.lock().push(("follower", outcome));
    });
    sim.run_for(MS);
    assert!(outcomes.lock().is_empty());
    panics(&|| panic!("in the midst"));
    sim.run_for(MS);
    assert_eq!(kinds(&outcomes), [("follower", Some(ErrorKind::Poisoned))]);
}

#[test]
fn closing_waits_for_writes_under_way_even_when_it_fails() {
    for seed in 0..100 {
        let sim = Sim::new(seed);
        // A segment has room for one group: the last mark needs a new one.
        let engine = engine(&sim, 1, 8 << 10);
        let outcomes = Outcomes::default();
        put(&sim, &engine, &outcomes, "a");
        sim.set_faults(Faults::default().delay_ns(0..=5 * MS).reorder(true).disk_bytes_max(1));
        until(&sim, || engine.owners[0].stream.end() > 0);
        engine.close();
        let closed = sim.block_on(engine.finish(&sim));
        assert_eq!(closed.map_err(|error| error.kind()), Err(ErrorKind::NoSpace), "seed {seed}");
        let outcomes = kinds(&outcomes);
        assert_eq!(outcomes, [("a", None)], "seed {seed}: the log was given up during a write");
        sim.kill();
    }
}

/// What writes wait for that are slowed down is theirs: a future that begins, and
/// then goes on, does not ask for its pace a second time.
#[test]
fn a_write_that_goes_on_asks_for_its_pace_once() {
    let sim = Sim::new(1);
    let engine = engine(&sim, 1, 8 << 10);
    let bytes_per_s = 100_000;
    engine.shard(0).lock().pace.slow_to(bytes_per_s);
    let op = WriteOp { shard: 0, kind: Kind::Put, key: b"key", value: &[7; 1000] };
    let began_ns = sim.now_ns();
    let staged = engine.begin_one(op, Durability::ProcessSafe, || began_ns, &mut Waited::default());
    let Ok(Staged::Not(obstacle @ Obstacle::Pace(wait_ns))) = staged else { panic!("no pace") };
    assert!(wait_ns >= 1_000_000_000 * 1000 / bytes_per_s - MS, "{wait_ns} ns");
    let timing = (Timer::timed(Operation::Put, began_ns), Waited::default());
    let going_on = engine.go_on(&sim, Role::Leader, op, Durability::ProcessSafe, obstacle, timing);
    sim.block_on(going_on).expect("a write");
    let waited_ns = sim.now_ns() - began_ns;
    assert!((wait_ns..wait_ns + MS).contains(&waited_ns), "{waited_ns} ns, not {wait_ns}");
    assert_eq!(engine.slow_writes.counts().delayed, 1);
    sim.kill();
}

/// Closing fails: with one owner as the disk is full, with two as the first
/// one's log is broken. Meanwhile somebody has staged a write, and is about to
/// write the log; somebody else waits for the owner to do it. The first must not
/// write once the directory was given up, the other must not wait for ever.
#[test]
fn a_write_that_is_staged_while_closing_fails_is_not_lost() {
    for owners in [1, 2] {
        let sim = Sim::new(1);
        // A segment has room for one group: the last mark needs a new one.
        let before = engine_of(&sim, owners, owners, 8 << 10);
        let owner = owners - 1;
        let (shard, value) = (owner as u16, [7; 1975]);
        let key_of_shard = |first: u8| {
            let mut keys = (0..=u8::MAX).map(|number| [first, number]);
            keys.find(|key| before.shard_of(before.hash(key)) == shard).expect("half of them")
        };
        let (held_up, follows) = (key_of_shard(b'h'), key_of_shard(b'f'));
        let op = WriteOp { shard, kind: Kind::Put, key: &held_up, value: &value };
        let staged = before.begin_one(op, Durability::Durable, || 0, &mut Waited::default());
        let Ok(Staged::Waits(goal)) = staged else { panic!("a durable write waits") };
        let outcomes = Outcomes::default();
        {
            let (sim, engine, outcomes) = (sim.clone(), Arc::clone(&before), outcomes.clone());
            sim.clone().spawn(async move {
                let ops = [WriteOp { shard, kind: Kind::Put, key: &follows, value: &value }];
                let outcome = engine
                    .write(Operation::Put, &sim, Role::Follower, &ops, Durability::Durable)
                    .await;
                outcomes.lock().push(("follows", outcome));
            });
        }
        sim.run_for(MS);
        match owners {
            1 => sim.set_faults(Faults::default().disk_bytes_max(1)),
            _ => before.owners[0].stream.poison(&Error::closed()),
        }
        before.close();
        let closed = sim.block_on(before.finish(&sim)).map_err(|error| error.kind());
        assert_eq!(closed, Err([ErrorKind::NoSpace, ErrorKind::Poisoned][owner]));
        sim.run_for(MS);
        sim.set_faults(Faults::default());
        let after = engine_of(&sim, owners, owners, 8 << 10);
        let reached = sim.block_on(before.reach(&sim, owner, goal, Role::Leader));
        let check = |key: &[u8], outcome: &Result<()>| {
            let found = sim.block_on(after.get(&sim, key, |_| ()));
            let is_there = found.expect("a get").is_some();
            assert!(is_there || outcome.is_err(), "with {owners} owners, a write is lost");
        };
        check(&held_up, &reached);
        let outcomes = outcomes.lock();
        assert_eq!(outcomes.len(), 1, "with {owners} owners, a future waits for ever");
        check(&follows, &outcomes[0].1);
        sim.kill();
    }
}

const SHARDS: u16 = 3;
const WRITERS: u8 = 5;

/// What a writer asks for, and how it waits.
fn manner(writer: u8) -> (Role, Durability) {
    let role = if writer.is_multiple_of(2) { Role::Leader } else { Role::Follower };
    let durability = match writer {
        0 | 1 => Durability::Durable,
        2 | 3 => Durability::ProcessSafe,
        _ => Durability::Relaxed { within: Duration::from_millis(3) },
    };
    (role, durability)
}

/// Writes batches of one key on every shard, the k-th with value k, until the
/// process ends. Counts those that were acknowledged.
async fn write_batches(sim: Sim, engine: Arc<Engine>, writer: u8, acked: Arc<Mutex<[u32; 5]>>) {
    let (role, durability) = manner(writer);
    for k in 1u32.. {
        if k % 50 == 0 {
            // Without a rest, some never wait for anything.
            sim.sleep(MS / 2).await;
        }
        let value = k.to_le_bytes().repeat(1 + usize::from(writer) * 40);
        let key = [writer];
        let (kind, key, value) = (Kind::Put, &key[..], &value[..]);
        let ops: Vec<_> = (0..SHARDS).map(|shard| WriteOp { shard, kind, key, value }).collect();
        if engine.write(Operation::Put, &sim, role, &ops, durability).await.is_err() {
            return;
        }
        acked.lock()[usize::from(writer)] = k;
    }
}

/// For each writer, what one scan sees on the shards: the same on all of them.
async fn scan(sim: &Sim, engine: &Arc<Engine>, direction: Direction) -> Result<[u32; 5]> {
    let bounds = (Bound::Unbounded, Bound::Unbounded);
    let range = ScanRange { bounds, direction, keys_only: false, rows_max: usize::MAX };
    let mut scanner = Scanner::new(engine, range);
    let mut seen = [Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    while scanner.next(std::slice::from_ref(sim)).await? {
        let (key, value) = scanner.row();
        let k = u32::from_le_bytes(value[..4].try_into().expect("four bytes"));
        seen[usize::from(key[0])].push(k);
    }
    Ok(seen.map(|values| {
        let shards = values.len();
        assert!(shards == 0 || shards == usize::from(SHARDS), "a batch is seen in part");
        let first = values.first().copied().unwrap_or(0);
        assert!(values.iter().all(|&k| k == first), "a scan sees two moments: {values:?}");
        first
    }))
}

#[test]
fn concurrent_batches_are_atomic_visible_and_durable() {
    for seed in 0..24 {
        let sim = Sim::new(seed);
        sim.set_faults(Faults::default().delay_ns(0..=MS).reorder(true));
        let acked = Arc::<Mutex<[u32; 5]>>::default();
        let scans = Arc::<Mutex<u32>>::default();
        {
            let process = sim.process();
            let engine = engine(&process, usize::from(SHARDS), 32 << 10);
            start_owner(&process, &engine);
            for writer in 0..WRITERS {
                let (engine, acked) = (Arc::clone(&engine), Arc::clone(&acked));
                sim.spawn(write_batches(process.clone(), engine, writer, acked));
            }
            for direction in [Direction::Forward, Direction::Backward] {
                let (process, engine) = (process.clone(), Arc::clone(&engine));
                let (acked, scans) = (Arc::clone(&acked), Arc::clone(&scans));
                sim.spawn(async move {
                    loop {
                        let before = *acked.lock();
                        let Ok(seen) = scan(&process, &engine, direction).await else {
                            return;
                        };
                        let late = before.iter().zip(&seen).any(|(acked, seen)| seen < acked);
                        assert!(!late, "acknowledged {before:?}, seen {seen:?}");
                        *scans.lock() += 1;
                        process.sleep(MS / 10).await;
                    }
                });
            }
        }
        let loses_power = !seed.is_multiple_of(3);
        sim.crash_after(20 + seed * 43, loses_power);
        sim.until_crash(|| sim.run_for(1_000_000 * MS));
        sim.set_faults(Faults::default());
        let engine = engine(&sim, usize::from(SHARDS), 32 << 10);
        let seen = sim.block_on(scan(&sim, &engine, Direction::Forward)).expect("a scan");
        for (writer, (&acked, seen)) in acked.lock().iter().zip(seen).enumerate() {
            let (_, durability) = manner(writer as u8);
            let promised = if durability.is_durable() || !loses_power { acked } else { 0 };
            let sound = (promised..=acked + 1).contains(&seen);
            assert!(sound, "seed {seed}, {writer}: {acked} acknowledged, {seen} there");
        }
        assert!(seed < 12 || *scans.lock() > 0, "seed {seed}: no scan went through");
        sim.kill();
    }
}

/// Leaders, followers and the owner hand the lead to each other: nobody is
/// forgotten.
#[test]
fn every_writer_gets_on() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        sim.set_faults(Faults::default().delay_ns(0..=MS).reorder(true));
        let engine = engine(&sim, usize::from(SHARDS), 32 << 10);
        start_owner(&sim, &engine);
        let acked = Arc::<Mutex<[u32; 5]>>::default();
        for writer in 0..WRITERS {
            let (engine, acked) = (Arc::clone(&engine), Arc::clone(&acked));
            sim.spawn(write_batches(sim.clone(), engine, writer, acked));
        }
        let mut before = [0; 5];
        for _ in 0..8 {
            // Flushes take some milliseconds each, and set the pace.
            sim.run_for(60 * MS);
            let now = *acked.lock();
            let stuck = (0..5).find(|&writer| now[writer] < before[writer] + 3);
            assert_eq!(stuck, None, "seed {seed}: {before:?}, later {now:?}");
            before = now;
        }
        sim.kill();
    }
}

/// Futures keep asking for durable writes, faster than the log is written, and
/// something before them is written but not durable: the sync that they all need
/// does not wait until nobody asks for more.
#[test]
fn followers_that_keep_coming_do_not_put_off_the_sync() {
    let sim = Sim::new(1);
    let mut opening = opening(Path::new("/db"), 1, 1 << 20);
    let limits = (opening.limits)(1).expect("possible");
    opening.limits = Box::new(move |_| Ok(Limits { memtable_bytes: 1 << 20, ..limits }));
    let engine = engine_from(&sim, opening);
    start_owner(&sim, &engine);
    sim.run_for(10 * MS);
    sim.set_faults(Faults::default().delay_ns(MS..=MS));
    let outcomes = Outcomes::default();
    let meanwhile = Arc::<Mutex<Option<usize>>>::default();
    let (process, owned, noted) = (sim.clone(), Arc::clone(&engine), Arc::clone(&meanwhile));
    sim.spawn(async move {
        for i in 0..1000u32 {
            let (sim, engine, acked) = (process.clone(), Arc::clone(&owned), outcomes.clone());
            let durability = if i == 0 { Durability::ProcessSafe } else { Durability::Durable };
            process.spawn(async move {
                let (kind, key, value) = (Kind::Put, &i.to_le_bytes()[..], &b"x"[..]);
                let ops = [WriteOp { shard: 0, kind, key, value }];
                let outcome =
                    engine.write(Operation::Put, &sim, Role::Follower, &ops, durability).await;
                acked.lock().push(("put", outcome));
            });
            process.sleep(MS / 10).await;
        }
        *noted.lock() = Some(outcomes.lock().len());
    });
    sim.run_for(1000 * MS);
    let acked = meanwhile.lock().expect("all were begun");
    assert!(acked > 900, "while they came, {acked} of 1000 were acknowledged");
    sim.kill();
}

#[test]
fn what_a_starved_worker_does_not_let_go_of_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let calls = Blocking::new(Arc::default());
    let engine = block_on(recover(&calls, opening(dir.path(), 1, 1 << 20))).unwrap();
    let (driver, io) = Parking::new(Arc::default());
    let mut executor =
        Executor::new(driver, OwnerConfig { spin_ns: 0, logs_stalls: false, is_pinned: false });
    let spawner = executor.spawner();
    let local = LocalIo::from(io.clone());
    let background = Background::start(&spawner, local, Budget::new(), "ouro-test");
    let (stuck, frees) = (Arc::new(Event::default()), Arc::new(AtomicBool::new(false)));
    let (engine, dir) = (Arc::new(engine), dir.path().to_owned());
    let hurried = Arc::clone(&engine);
    let waits = Arc::clone(&stuck);
    spawner.spawn("hurry", async move {
        waits.wait().await;
        hurried.shard(0).lock().flush_wanted = 1;
        hurried.owners[0].flush_work.set();
    });
    let main = async move {
        let begun = Cell::new(0);
        let begin = || {
            begun.set(begun.get() + 1);
            let (attempt, stuck, freed) = (begun.get(), Arc::clone(&stuck), Arc::clone(&frees));
            let place = TablePlace {
                dir: dir.clone(),
                db: engine.db,
                shard: 0,
                ids: FileIds::one(FileId::new(1, attempt)),
                pool: BufferPool::new(64 << 10, 1),
                compression: Compression::None,
                table_bytes: u64::MAX,
                pins: Arc::clone(&engine.pins),
                spares: Arc::default(),
            };
            let path = place.new_file().expect("an id").path;
            block_on(calls.open(&path, OpenMode::CreateNew)).unwrap();
            let work = background.run("test", move |_| async move {
                while attempt == 1 && is_owner_thread() {
                    slice_end().await;
                }
                if attempt == 1 {
                    stuck.set();
                }
                while attempt == 1 && !freed.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                Ok(attempt)
            });
            (place, work)
        };
        let owner = &engine.owners[0];
        let (place, ended) = engine.as_fast_as_needed(owner, &background, &io, begin).await;
        frees.store(true, Ordering::SeqCst);
        assert_eq!(ended.unwrap(), 2);
        let names = |id| format!("{}.sst", FileId::new(1, id));
        assert_eq!(place.left_behind().collect::<Vec<_>>(), [dir.join(names(2))]);
        let left = io.list(&dir).await.unwrap();
        assert!(left.contains(&names(2)) && !left.contains(&names(1)), "{left:?}");
    };
    executor.run(vec![crate::runtime::Job::new("main", main)]).unwrap();
}
