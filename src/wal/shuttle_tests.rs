//! A stream under shuttle: threads that append and lead, futures that follow,
//! an owner, a device.
//!
//! What each publication makes visible is checked against what the disk has:
//! every record up to it is filled, and written or durable as it asked, and so
//! is all before it.

use std::sync::Arc;

use crate::base::durability::Durability;
use crate::base::error::{ErrorKind, Result};
use crate::base::ids::{DbId, FileId};
use crate::base::latency::Waited;
use crate::base::limits::{UNIT, UNIT_U64};
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::{Mutex, thread};
use crate::format::edit::StreamKey;
use crate::format::record::{HEADER_BYTES, Header, RecordKind, seal};
use crate::io::{File, GroupBuf, Io, MappedWord};
use crate::runtime::shuttle_tests::{Disk, LocalFuture, choose, explore, poll_and_drop};
use crate::runtime::{block_on, join_all};
use crate::wal::stream::Place;
use crate::wal::{
    Append, Appended, Calls, Goal, Map, NoRoom, Publication, Role, Segment, Stream, Turn, Unfilled,
};

const GROUP_BYTES_MAX: usize = 2 * UNIT;

/// Room for a few groups: streams go through several segments.
const SEGMENT_BYTES: u64 = 4 * UNIT_U64;

/// Longer records than that have no room in a slot of the mapping.
const SLOT_BYTES: usize = UNIT;

/// What a run is like.
#[derive(Clone, Copy)]
struct Setting {
    threads: usize,
    /// Records of each thread.
    records: usize,
    /// Every record fills a group, so that buffers run out.
    fills_groups: bool,
    maps: Maps,
    /// Some write or sync fails.
    fails: bool,
}

/// When the stream has a mapping.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Maps {
    Never,
    FromStart,
    /// In the midst of the records, once one asked for it.
    Later,
}

/// The stream, and all that is around it.
struct World {
    setting: Setting,
    disk: Disk,
    stream: Stream,
    shard: Mutex<Shard>,
    stopping: AtomicBool,
}

/// Stands for the one shard.
#[derive(Default)]
struct Shard {
    records: Vec<Known>,
    /// Of `records`, so many are visible.
    visible: usize,
    publishing: bool,
    segments: Vec<(u64, File)>,
}

/// A record that was appended.
struct Known {
    place: Place,
    filled: bool,
    durability: Durability,
    /// It cannot be in a mapped buffer.
    is_on_heap: bool,
}

fn segment(disk: &Disk, start: u64) -> Segment {
    let file = disk.file(&format!("/wal/{start}"));
    Segment { file, id: FileId::new(1, 0), start, capacity: SEGMENT_BYTES }
}

impl World {
    fn new(setting: Setting) -> Arc<Self> {
        let disk = Disk::new();
        let first = segment(&disk, 0);
        let segments = vec![(0, first.file.clone())];
        let key = StreamKey { epoch: 1, stream: 0 };
        let stream = Stream::new(DbId([1; 16]), key, GROUP_BYTES_MAX, first);
        if setting.maps == Maps::FromStart {
            stream.provide_map(block_on(map(&disk)));
        }
        let shard = Mutex::new(Shard { segments, ..Shard::default() });
        Arc::new(Self { setting, disk, stream, shard, stopping: AtomicBool::new(false) })
    }

    /// What a caller does for one record: to its end, or, as a future that is
    /// dropped, not.
    fn write(&self, number: usize) -> Result<()> {
        let role = if choose(2) == 0 { Role::Leader } else { Role::Follower };
        let durability = [Durability::Durable, Durability::ProcessSafe][choose(2)];
        let payload_bytes = match choose(if self.setting.fills_groups { 1 } else { 3 }) {
            0 if self.setting.fills_groups => UNIT - HEADER_BYTES,
            0 => UNIT,
            _ => 100,
        };
        let at_once = Stream::is_short(payload_bytes) && choose(3) > 0;
        let gives_up = role == Role::Follower && number > 0 && choose(4) == 0;
        let append = Append { kind: RecordKind::Write, sections: 1, payload_bytes, durability };
        let (seq, goal) = loop {
            match self.append(&append, at_once) {
                Ok((seq, Appended::Copied(_))) => {
                    assert!(self.shard.lock().visible >= seq);
                    return Ok(());
                }
                Ok((seq, Appended::Waits(_, goal))) => break (seq, goal),
                Ok((seq, Appended::Unfilled(_, unfilled))) => {
                    break (seq, self.fill(seq, unfilled));
                }
                Err(NoRoom::Wait(seen)) => block_on(self.room(seen, role)),
                Err(NoRoom::Failed(error)) => return Err(error),
            }
        };
        if gives_up {
            poll_and_drop(self.reach(Goal::Visible(goal), role));
            return Ok(());
        }
        block_on(self.reach(Goal::Visible(goal), role))?;
        assert!(self.shard.lock().visible >= seq, "acknowledged before it is visible");
        Ok(())
    }

    /// Under the shard's lock; what is visible at once becomes so there.
    fn append(&self, append: &Append, at_once: bool) -> Result<(usize, Appended), NoRoom> {
        let mut calls = Calls::default();
        let appended = {
            let mut shard = self.shard.lock();
            let seq = shard.records.len() + 1;
            let fill = at_once.then_some(|record: &mut [u8], seed, header: &Header| {
                seal(record, seed, header);
            });
            let writes = std::iter::once((0, seq as u64));
            let appended =
                self.stream.append(append, writes, fill, || 0, &mut calls, &mut Waited::default());
            if let Ok(appended) = &appended {
                shard.records.push(Known {
                    place: appended.place(),
                    filled: at_once,
                    durability: append.durability,
                    is_on_heap: self.setting.maps == Maps::Never
                        || HEADER_BYTES + append.payload_bytes > SLOT_BYTES,
                });
                if matches!(appended, Appended::Copied(_)) {
                    assert_eq!(shard.visible, seq - 1, "it overtook another record");
                    self.check(&shard, seq);
                    shard.visible = seq;
                }
            }
            appended.map(|appended| (seq, appended))
        };
        self.stream.call_owner(&calls);
        appended
    }

    fn fill(&self, seq: usize, mut unfilled: Unfilled) -> u64 {
        let (seed, header) = (unfilled.seed, unfilled.header);
        seal(&mut unfilled.claim, seed, &header);
        self.shard.lock().records[seq - 1].filled = true;
        let (goal, publication) = self.stream.filled(unfilled);
        self.publish(publication);
        goal
    }

    /// As the engine does it.
    async fn reach(&self, goal: Goal, role: Role) -> Result<()> {
        let mut wait = self.stream.wait(goal, role);
        loop {
            match wait.turn().await {
                Turn::Over(result) => return result,
                turn => self.lead(turn).await,
            }
        }
    }

    async fn lead(&self, turn: Turn<'_>) {
        let publication = match turn {
            Turn::Over(_) => None,
            Turn::Lead(lead) => lead.write(&self.disk).await,
            Turn::Sync(sync) => sync.sync(&self.disk).await,
        };
        self.publish(publication);
    }

    async fn room(&self, seen: u64, role: Role) {
        match role {
            Role::Leader => {
                if let Some(lead) = self.stream.help() {
                    return self.lead(Turn::Lead(lead)).await;
                }
            }
            Role::Follower => self.stream.ask_for_room(),
        }
        let mut id = None;
        std::future::poll_fn(|cx| self.stream.poll_room(cx, seen, &mut id)).await;
        self.stream.forget_room(&mut id);
    }

    fn publish(&self, publication: Option<Publication>) {
        let mut next = publication;
        while let Some(publication) = next {
            {
                let mut shard = self.shard.lock();
                assert!(!std::mem::replace(&mut shard.publishing, true), "two publish at once");
                let [(0, seq)] = publication.writes() else {
                    panic!("one shard is written to: {:?}", publication.writes());
                };
                let seq = *seq as usize;
                assert!(seq > shard.visible, "published twice, or out of order");
                self.check(&shard, seq);
                shard.visible = seq;
            }
            self.shard.lock().publishing = false;
            next = self.stream.published(publication);
        }
    }

    /// Checks that records up to `seq` may become visible.
    fn check(&self, shard: &Shard, seq: usize) {
        for (number, record) in shard.records[..seq].iter().enumerate() {
            assert!(record.filled, "record {number} is not filled, but to be visible");
            let is_durable = record.durability.is_durable();
            if is_durable || record.is_on_heap {
                // All before it in the stream, too.
                let reaches = shard.segments.iter().all(|(start, file)| {
                    let end = record.place.end.min(start + SEGMENT_BYTES);
                    // Nothing may have been in the rest of a segment.
                    let end = shard.records[..=number]
                        .iter()
                        .map(|known| known.place.end)
                        .filter(|known| *known <= end)
                        .max()
                        .unwrap_or(0);
                    let range = UNIT_U64..UNIT_U64 + end.saturating_sub(*start);
                    range.is_empty() || self.disk.has(file.path(), range, is_durable)
                });
                assert!(reaches, "record {number} is to be visible before its time");
            }
        }
    }

    /// What the owner does: two jobs that lead, one that provides segments and
    /// sees to it that all is durable soon.
    fn own(&self) {
        let jobs: [LocalFuture<'_>; 3] =
            [Box::pin(self.lead_job()), Box::pin(self.lead_job()), Box::pin(self.log_job())];
        block_on(join_all(jobs));
    }

    async fn lead_job(&self) {
        while !self.stopping.load(Ordering::SeqCst) {
            match self.stream.owner_turn() {
                Some(turn) => self.lead(turn).await,
                None => self.stream.lead_work.wait().await,
            }
        }
        self.stream.lead_work.set_one();
    }

    async fn log_job(&self) {
        while !self.stopping.load(Ordering::SeqCst) {
            if let Some((start, _)) = self.stream.wanted_spare() {
                let spare = segment(&self.disk, start);
                self.shard.lock().segments.push((start, spare.file.clone()));
                self.stream.provide_spare(Ok(spare));
            }
            // A time at which everything is due.
            self.stream.ask_for_due_sync(u64::MAX, 0);
            let look = self.stream.look();
            if look.wants_map && self.setting.maps == Maps::Later {
                self.stream.provide_map(map(&self.disk).await);
            }
            self.stream.work.wait().await;
        }
    }

    fn stop_owner(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.stream.work.set();
        self.stream.lead_work.set_one();
    }

    /// Nothing is left to do, and nobody waits.
    fn check_end(&self) {
        let shard = self.shard.lock();
        assert_eq!(shard.visible, shard.records.len());
        let state = self.stream.state.lock();
        assert!(state.pending.is_empty() && state.progress.all_durable());
        assert!(state.progress.is_forgotten(), "somebody still waits");
    }
}

async fn map(disk: &Disk) -> Map {
    const SLOTS: usize = 2;
    let bytes = UNIT + SLOTS * SLOT_BYTES;
    let mapping = Arc::new(disk.map(&disk.file("/map"), bytes).await.expect("a mapping"));
    let slot = |slot| GroupBuf::mapped(&mapping, UNIT + slot * SLOT_BYTES, SLOT_BYTES);
    Map { watermark: MappedWord::new(&mapping, 0), slots: (0..SLOTS).map(slot).collect() }
}

fn run(setting: Setting) {
    let world = World::new(setting);
    if setting.fails {
        match choose(2) {
            0 => world.disk.fail_after(choose(4)),
            _ => world.disk.fail_once_after(choose(4)),
        }
    }
    let device = {
        let disk = world.disk.clone();
        thread::spawn(move || disk.serve())
    };
    let owner = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.own())
    };
    let writers: Vec<_> = (0..setting.threads)
        .map(|_| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                for number in 0..setting.records {
                    if let Err(error) = world.write(number) {
                        assert!(setting.fails && error.kind() == ErrorKind::Poisoned, "{error}");
                    }
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
    // What nobody waits for is written all the same, when somebody asks.
    let end = world.stream.end();
    let all = block_on(world.reach(Goal::Durable(end), Role::Follower));
    assert!(all.is_ok() || setting.fails, "{all:?}");
    world.stream.close();
    block_on(std::future::poll_fn(|cx| world.stream.poll_settled(cx)));
    world.stop_owner();
    owner.join().expect("no panic");
    world.disk.stop();
    device.join().expect("no panic");
    if !setting.fails {
        world.check_end();
    }
}

const SETTING: Setting =
    Setting { threads: 3, records: 2, fills_groups: false, maps: Maps::Never, fails: false };

#[test]
fn leaders_and_followers_write_in_order() {
    explore(6000, || run(SETTING));
}

#[test]
fn records_in_a_mapping_wait_for_what_is_before_them() {
    explore(6000, || run(Setting { maps: Maps::FromStart, ..SETTING }));
}

#[test]
fn a_mapping_comes_in_the_midst_of_records() {
    explore(4000, || run(Setting { maps: Maps::Later, ..SETTING }));
}

#[test]
fn buffers_run_out_and_come_back() {
    explore(3000, || run(Setting { threads: 4, fills_groups: true, ..SETTING }));
}

#[test]
fn buffers_of_a_mapping_run_out_and_come_back() {
    explore(3000, || {
        run(Setting { threads: 4, fills_groups: true, maps: Maps::FromStart, ..SETTING });
    });
}

#[test]
fn a_failure_leaves_nobody_waiting() {
    explore(3000, || run(Setting { threads: 4, fails: true, ..SETTING }));
    explore(3000, || {
        run(Setting { fills_groups: true, maps: Maps::FromStart, fails: true, ..SETTING });
    });
}
