//! Writes: a put, a delete, or a batch within one WAL stream.
//!
//! Long values go into value files first, and are durable there before anything
//! else happens; what follows writes references to them.
//!
//! Under the locks of the shards concerned: room in the memtables, room in the
//! log, sequence numbers, the first entries; a short record is copied into the
//! log there, too, and if nothing is to be waited for, the write is visible
//! before the locks are let go. Without any lock a long record is filled. What
//! then is to be waited for is the business of `commit`.

use std::sync::Arc;

use crate::base::checksum::Seed;
use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::ids::{KEYSPACE_DEFAULT, ShardId};
use crate::base::latency::{Operation, Timer, Wait, Waited};
use crate::base::limits::{INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::base::seq::{Kind, SeqNo, Tag};
use crate::base::sync::ShortGuard;
use crate::base::sync::atomic::Ordering;
use crate::format::record::{
    HEADER_BYTES, Header, PayloadWriter, RecordKind, entry_bytes, seal, section_bytes,
};
use crate::format::value::{Reference, reference_bytes};
use crate::io::Io;
use crate::memtable::{Memtable, Payload};
use crate::shard::engine::Engine;
use crate::shard::held_up::{Began, Hold};
use crate::shard::state::{Admission, State};
use crate::value::Stored;
use crate::wal::{Append, Appended, Calls, Goal, NoRoom, Role, Stream, Unfilled};

/// Values above this are allocated before the lock is taken, so that no long
/// copy happens under it.
const INLINE_BYTES_MAX: usize = 4096;

/// Entries that are inserted under one hold of a shard's lock.
const INSERTS_PER_HOLD: usize = 16;

/// One write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteOp<'a> {
    pub(crate) shard: ShardId,
    pub(crate) kind: Kind,
    pub(crate) key: &'a [u8],
    /// Empty for a delete.
    pub(crate) value: &'a [u8],
}

impl WriteOp<'_> {
    /// Bytes of the value that is written or referred to.
    fn value_bytes(&self) -> usize {
        match self.kind {
            Kind::Indirect => Reference::decode(self.value).map_or(0, |reference| reference.len),
            Kind::Put | Kind::Delete | Kind::RangeDelete => self.value.len(),
        }
    }
}

/// Consecutive writes of one shard.
struct Section<'a> {
    ops: &'a [WriteOp<'a>],
    /// Long values, by index into `ops`, ascending.
    long: Vec<(usize, Arc<[u8]>)>,
    first_seq: SeqNo,
    inserted: usize,
    /// It has asked for the pace of its shard, which counts it from then on.
    is_paced: bool,
}

/// The timer of a write that begins. One that is to be durable waits in any case.
#[inline]
pub(crate) fn write_timer(
    operation: Operation,
    durability: Durability,
    now_ns: impl FnOnce() -> u64,
) -> Timer {
    match operation {
        Operation::Put if !durability.is_durable() => Timer::sampled(operation, now_ns),
        _ => Timer::timed(operation, now_ns()),
    }
}

/// Whether a value goes into a value file.
pub(crate) fn is_long(value: &[u8]) -> bool {
    value.len() > INLINE_VALUE_BYTES_MAX
}

/// The bytes of log that an entry takes, once a long value is a reference.
fn logged_bytes(kind: Kind, key: &[u8], value: &[u8]) -> usize {
    let value_bytes = match is_long(value) {
        true => reference_bytes(value.len()),
        false => value.len(),
    };
    entry_bytes(kind, key.len(), value_bytes)
}

/// The bytes of log payload that these writes of one shard take.
fn section_payload_bytes(ops: &[WriteOp<'_>]) -> usize {
    let entries = ops.iter().map(|op| logged_bytes(op.kind, op.key, op.value));
    section_bytes() + entries.sum::<usize>()
}

/// An upper bound on what one write adds to a record of the log.
pub(crate) fn log_bytes(kind: Kind, key: &[u8], value: &[u8]) -> usize {
    section_bytes() + logged_bytes(kind, key, value)
}

fn memtable_bytes(ops: &[WriteOp<'_>]) -> usize {
    ops.iter().map(|op| Memtable::entry_bytes(op.key.len(), op.value.len())).sum()
}

/// A write on its way.
pub(crate) struct Writing<'a> {
    owner: usize,
    durability: Durability,
    payload_bytes: usize,
    sections: Sections<'a>,
}

/// What became of an attempt to stage a write.
pub(crate) enum Staged {
    /// It is acknowledged.
    Done,
    /// It will be acknowledged when this is reached.
    Waits(Goal),
    /// It was not staged, and is to be tried again after this. Where writes are slowed down,
    /// it is counted as one that comes, and need not ask again.
    Not(Obstacle),
}

/// What a write is to wait for before it is tried again.
#[derive(Clone, Copy)]
pub(crate) enum Obstacle {
    /// The shard's memtable has no room; the number is for [`Shard::room`].
    ///
    /// [`Shard::room`]: crate::shard::state::Shard::room
    Memtable(ShardId, u64),
    /// Writes are slowed down: so many nanoseconds, which are this write's.
    Pace(u64),
    /// The log has no room; the number is for its `poll_room`.
    Log(u64),
}

/// The writes of a batch, with references in place of long values.
struct Referring<'a> {
    ops: &'a [WriteOp<'a>],
    /// Long values, by index into `ops`, ascending.
    stored: Vec<(usize, Stored)>,
}

impl Referring<'_> {
    fn ops(&self) -> Vec<WriteOp<'_>> {
        let mut ops = self.ops.to_vec();
        for (at, stored) in &self.stored {
            ops[*at] = WriteOp { kind: Kind::Indirect, value: stored.reference(), ..ops[*at] };
        }
        ops
    }
}

impl Engine {
    /// Checks the sizes of a key and a value.
    pub(crate) fn check_sizes(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() > KEY_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a key of {} bytes; the longest allowed has {KEY_BYTES_MAX}",
                key.len()
            )));
        }
        let max = self.limits.value_bytes_max;
        if value.len() > max {
            let advice = match max {
                VALUE_BYTES_MAX => ": ",
                _ => {
                    " (Options::value_bytes_max, a quarter of the memory budget by default): raise \
                     that or Options::memory (--memory), or "
                }
            };
            return Err(Error::invalid(format!(
                "a value of {} bytes; the longest allowed has {max}{advice}split it over several \
                 keys",
                value.len()
            )));
        }
        Ok(())
    }

    /// Puts the long values of these writes into value files, durably. `role`
    /// says whether this may be dropped.
    async fn store<'a, I: Io>(
        &self,
        io: &I,
        role: Role,
        ops: &'a [WriteOp<'a>],
    ) -> Result<Referring<'a>> {
        self.check_writable(ops)?;
        let mut stored = Vec::new();
        for (at, op) in ops.iter().enumerate().filter(|(_, op)| is_long(op.value)) {
            let values = &self.shard(op.shard).values;
            let written = values.write(io, &|| self.new_file_id(), op.value).await;
            stored.push((at, written.inspect_err(|error| self.note_failure(error))?));
        }
        // The last value of a file first: its sync does for the others.
        for (_, stored) in stored.iter().rev() {
            stored.durable(io, role == Role::Leader).await?;
        }
        Ok(Referring { ops, stored })
    }

    /// Fails when writes of these shards fail anyway.
    fn check_writable(&self, ops: &[WriteOp<'_>]) -> Result<()> {
        self.check_open()?;
        let owner = ops.first().map(|op| &self.owners[self.owner_of(op.shard)]);
        match owner.and_then(|owner| owner.stream.poisoned()) {
            Some(cause) => Err(Error::poisoned(&cause)),
            None => Ok(()),
        }
    }

    /// Applies `ops`, all or nothing, and returns when they are as durable as
    /// asked, and visible. They are sorted by shard, and all of one WAL
    /// stream; of two writes to one key the later one wins.
    pub(crate) async fn write<I: Io>(
        &self,
        operation: Operation,
        io: &I,
        role: Role,
        ops: &[WriteOp<'_>],
        durability: Durability,
    ) -> Result<()> {
        let timer = write_timer(operation, durability, || io.now_ns());
        let mut waited = Waited::default();
        let written = self.write_part(io, role, ops, durability, &mut waited).await;
        self.written(timer, &waited, written, || io.now_ns())
    }

    /// Notes how long a write took that is over.
    #[inline]
    pub(crate) fn written(
        &self,
        timer: Timer,
        waited: &Waited,
        outcome: Result<()>,
        now_ns: impl FnOnce() -> u64,
    ) -> Result<()> {
        if !waited.is_nothing() {
            self.slow_writes.note(waited);
        }
        outcome.inspect(|()| self.latencies.record(timer, waited, now_ns))
    }

    /// What [`Engine::write`] does, as a part of an operation.
    pub(crate) async fn write_part<I: Io>(
        &self,
        io: &I,
        role: Role,
        ops: &[WriteOp<'_>],
        durability: Durability,
        waited: &mut Waited,
    ) -> Result<()> {
        if !ops.iter().any(|op| is_long(op.value)) {
            return match self.begin_write(ops, durability)? {
                Some(mut writing) => self.finish_write(io, role, &mut writing, waited, || {}).await,
                None => Ok(()),
            };
        }
        // Before anything is written for nothing.
        self.payload_bytes(self.owner_of(ops[0].shard), ops)?;
        let began_ns = io.now_ns();
        let referring = self.store(io, role, ops).await?;
        waited.add(Wait::Device, io.now_ns() - began_ns);
        let ops = referring.ops();
        let mut writing = self.begin_write(&ops, durability)?.expect("there is a long value");
        let kept = &referring.stored;
        let keep = || kept.iter().for_each(|(_, stored)| stored.keep());
        self.finish_write(io, role, &mut writing, waited, keep).await
    }

    /// Checks what is to be written; `None` for nothing.
    pub(crate) fn begin_write<'a>(
        &self,
        ops: &'a [WriteOp<'a>],
        durability: Durability,
    ) -> Result<Option<Writing<'a>>> {
        let Some(first) = ops.first() else {
            return self.check_open().map(|()| None);
        };
        let owner = self.owner_of(first.shard);
        let payload_bytes = self.payload_bytes(owner, ops)?;
        let mut sections: Sections<'_> = Sections::default();
        for ops in ops.chunk_by(|a, b| a.shard == b.shard) {
            assert_eq!(self.owner_of(ops[0].shard), owner, "a batch is of one stream");
            sections.push(Section::new(ops));
        }
        Ok(Some(Writing { owner, durability, payload_bytes, sections }))
    }

    /// The bytes of the payload of one record with these writes.
    fn payload_bytes(&self, owner: usize, ops: &[WriteOp<'_>]) -> Result<usize> {
        let payload_bytes_max = self.owners[owner].stream.payload_bytes_max();
        let sections = ops.chunk_by(|a, b| a.shard == b.shard);
        let payload_bytes = sections.map(section_payload_bytes).sum();
        if payload_bytes > payload_bytes_max {
            return Err(Error::invalid(format!(
                "a batch of {payload_bytes} bytes; the log of this database takes at most \
                 {payload_bytes_max} in one record: split the batch"
            )));
        }
        Ok(payload_bytes)
    }

    /// Begins one write; see [`Engine::stage`]. Nothing was written, unless it is
    /// over or waits.
    pub(crate) fn begin_one(
        &self,
        op: WriteOp<'_>,
        durability: Durability,
        now_ns: impl Fn() -> u64,
        waited: &mut Waited,
    ) -> Result<Staged> {
        match self.begin_write(&[op], durability)? {
            Some(mut writing) => self.stage(&mut writing, now_ns, waited),
            None => Ok(Staged::Done),
        }
    }

    /// Stages the write, as often as it takes, and waits for its goal. Calls
    /// `staged` as soon as it is in log and memtables.
    async fn finish_write<I: Io>(
        &self,
        io: &I,
        role: Role,
        writing: &mut Writing<'_>,
        waited: &mut Waited,
        staged: impl FnOnce(),
    ) -> Result<()> {
        loop {
            match self.stage(writing, || io.now_ns(), waited)? {
                Staged::Done => {
                    staged();
                    return Ok(());
                }
                Staged::Waits(goal) => {
                    staged();
                    return self.reach_timed(io, writing.owner, goal, role, waited).await;
                }
                Staged::Not(obstacle) => {
                    self.pass(io, role, writing.owner, obstacle, waited).await;
                }
            }
        }
    }

    /// Waits until the write may be tried again.
    async fn pass<I: Io>(
        &self,
        io: &I,
        role: Role,
        owner: usize,
        obstacle: Obstacle,
        waited: &mut Waited,
    ) {
        let began_ns = io.now_ns();
        let wait = match obstacle {
            Obstacle::Memtable(shard, seen) => {
                self.shard(shard).room(seen).await;
                Wait::Memtable
            }
            Obstacle::Pace(ns) => {
                io.sleep(ns).await;
                Wait::Pace
            }
            Obstacle::Log(seen) => {
                self.log_room(io, owner, seen, role).await;
                Wait::Log
            }
        };
        waited.add(wait, io.now_ns() - began_ns);
    }

    /// Goes on with a write that [`Engine::begin_one`] has begun, and that is not
    /// there yet.
    pub(crate) async fn go_on<I: Io>(
        &self,
        io: &I,
        role: Role,
        op: WriteOp<'_>,
        durability: Durability,
        obstacle: Obstacle,
        (timer, mut waited): (Timer, Waited),
    ) -> Result<()> {
        let ops = [op];
        let mut writing = self.begin_write(&ops, durability)?.expect("there is a write");
        for section in writing.sections.as_mut() {
            section.is_paced = true;
        }
        self.pass(io, role, writing.owner, obstacle, &mut waited).await;
        let written = self.finish_write(io, role, &mut writing, &mut waited, || {}).await;
        self.written(timer, &waited, written, || io.now_ns())
    }

    /// Waits for the goal of a write that was staged at once.
    pub(crate) async fn reach_written<I: Io>(
        &self,
        io: &I,
        owner: usize,
        goal: Goal,
        role: Role,
        (timer, mut waited): (Timer, Waited),
    ) -> Result<()> {
        let reached = self.reach_timed(io, owner, goal, role, &mut waited).await;
        self.written(timer, &waited, reached, || io.now_ns())
    }

    /// Tries to stage a write: puts it into the log and the memtables. Waits
    /// for nothing but short locks.
    pub(crate) fn stage(
        &self,
        writing: &mut Writing<'_>,
        now_ns: impl Fn() -> u64,
        waited: &mut Waited,
    ) -> Result<Staged> {
        let mut began = None;
        let staged = self.stage_untold(writing, now_ns, waited, &mut began);
        // Nothing was done that a panic of whoever hears it would break.
        if let Some(began) = began {
            began.report();
        }
        staged
    }

    /// The same; whether writes are held up from now on is for the caller to tell.
    fn stage_untold(
        &self,
        writing: &mut Writing<'_>,
        now_ns: impl Fn() -> u64,
        waited: &mut Waited,
        began: &mut Option<Began>,
    ) -> Result<Staged> {
        let stream = &self.owners[writing.owner].stream;
        let _panicking = stream.poison_on_panic();
        let mut wakes = Wakes::default();
        let locked = self.stage_locked(writing, now_ns, &mut wakes, waited);
        // Only now are the shards' locks gone: to wake somebody may take a
        // system call.
        stream.call_owner(&wakes.log);
        if wakes.flush {
            self.owners[writing.owner].flush_work.set();
        }
        *began = wakes.began;
        let mut unfilled = match locked? {
            Locked::Over(staged) => return Ok(staged),
            Locked::Unfilled(unfilled) => unfilled,
        };
        let (seed, header) = (unfilled.seed, unfilled.header);
        fill(&mut unfilled.claim, seed, &header, writing.sections.as_ref());
        self.insert_rest(writing.sections.as_mut());
        // Neither written nor published before this, so nothing of the batch is
        // visible before all of it is in the memtables.
        let (number, publication) = stream.filled(unfilled);
        self.publish(stream, publication);
        Ok(Staged::Waits(Goal::Visible(number)))
    }

    /// The part of a write that happens under the locks of its shards.
    fn stage_locked(
        &self,
        writing: &mut Writing<'_>,
        now_ns: impl Fn() -> u64,
        wakes: &mut Wakes,
        waited: &mut Waited,
    ) -> Result<Locked> {
        let owner = &self.owners[writing.owner];
        let sections = writing.sections.as_mut();
        let mut states: States<'_> = States::default();
        let mut is_short = Stream::is_short(writing.payload_bytes);
        for section in sections.iter_mut() {
            let shard = section.ops[0].shard;
            let (mut state, lock_ns) = self.shard(shard).lock_timed(&now_ns);
            waited.add(Wait::Lock, lock_ns);
            let needed = memtable_bytes(section.ops);
            let memtable_bytes = owner.memtable_bytes.load(Ordering::Relaxed);
            let (limits, arenas, is_paced) = (&self.limits, &self.arenas, &mut section.is_paced);
            match state.admit(needed, memtable_bytes, limits, arenas, &now_ns, is_paced)? {
                Admission::Granted => {}
                Admission::Flush => wakes.flush = true,
                Admission::Paced(ns) => {
                    wakes.began = state.hold_up(Hold::Throttle, shard, now_ns());
                    return Ok(Locked::Over(Staged::Not(Obstacle::Pace(ns))));
                }
                Admission::Stalled { seen, is_first } => {
                    wakes.flush |= is_first;
                    if !state.has_room(&self.limits) {
                        wakes.began = state.hold_up(Hold::Stall, shard, now_ns());
                    }
                    // Writes that never became visible are never flushed.
                    return match owner.stream.poisoned() {
                        Some(cause) => Err(Error::poisoned(&cause)),
                        None => Ok(Locked::Over(Staged::Not(Obstacle::Memtable(shard, seen)))),
                    };
                }
            }
            section.first_seq = state.next_seq;
            is_short &= section.ops.len() <= INSERTS_PER_HOLD;
            states.push(state);
        }
        let states = states.as_mut();
        let append = Append {
            kind: RecordKind::Write,
            sections: sections.len() as u16,
            payload_bytes: writing.payload_bytes,
            durability: writing.durability,
        };
        let appended = {
            let sections = &*sections;
            let writes = sections.iter().map(|s| (s.ops[0].shard, s.last_seq()));
            let fill = is_short.then_some(|record: &mut [u8], seed, header: &Header| {
                fill(record, seed, header, sections);
            });
            match owner.stream.append(&append, writes, fill, now_ns, &mut wakes.log, waited) {
                Ok(appended) => appended,
                Err(NoRoom::Wait(seen)) => {
                    return Ok(Locked::Over(Staged::Not(Obstacle::Log(seen))));
                }
                Err(NoRoom::Failed(error)) => return Err(error),
            }
        };
        let place = appended.place();
        for (section, state) in sections.iter_mut().zip(states.iter_mut()) {
            state.next_seq += section.ops.len() as SeqNo;
            state.log_start.get_or_insert(place.start);
            state.log_end = place.end;
            state.counts.writes += section.ops.len() as u64;
            section.insert_some(state);
            if !section.is_inserted() {
                state.inserting += 1;
            }
        }
        Ok(match appended {
            Appended::Copied(_) => {
                let at = self.clock.tick();
                for (section, state) in sections.iter().zip(states) {
                    state.published.publish(&self.clock, at, section.last_seq());
                }
                Locked::Over(Staged::Done)
            }
            Appended::Waits(_, number) => Locked::Over(Staged::Waits(Goal::Visible(number))),
            Appended::Unfilled(_, unfilled) => Locked::Unfilled(unfilled),
        })
    }

    /// Inserts what did not go in under the first hold of the locks.
    fn insert_rest(&self, sections: &mut [Section<'_>]) {
        for section in sections.iter_mut().filter(|section| !section.is_inserted()) {
            let shard = self.shard(section.ops[0].shard);
            while !section.is_inserted() {
                let mut state = shard.lock();
                section.insert_some(&mut state);
                if section.is_inserted() {
                    state.inserting -= 1;
                }
            }
            // Somebody may have wanted to rotate the memtable meanwhile.
            shard.wake_stalled();
        }
    }
}

/// Who is to be woken, and told, once the locks are gone.
#[derive(Default)]
struct Wakes {
    log: Calls,
    flush: bool,
    /// Writes are held up from now on.
    began: Option<Began>,
}

enum Locked {
    Over(Staged),
    Unfilled(Unfilled),
}

impl<'a> Section<'a> {
    fn new(ops: &'a [WriteOp<'a>]) -> Self {
        let long = ops.iter().enumerate().filter(|(_, op)| op.value.len() > INLINE_BYTES_MAX);
        let long = long.map(|(i, op)| (i, Arc::from(op.value))).collect();
        Self { ops, long, first_seq: 0, inserted: 0, is_paced: false }
    }

    fn last_seq(&self) -> SeqNo {
        self.first_seq + self.ops.len() as SeqNo - 1
    }

    fn is_inserted(&self) -> bool {
        self.inserted == self.ops.len()
    }

    /// Inserts the next few entries.
    fn insert_some(&mut self, state: &mut State) {
        let end = self.ops.len().min(self.inserted + INSERTS_PER_HOLD);
        for i in self.inserted..end {
            let op = &self.ops[i];
            let tag = Tag::new(self.first_seq + i as SeqNo, op.kind);
            let payload = match self.long.binary_search_by_key(&i, |(at, _)| *at) {
                Ok(at) => Payload::Shared(Arc::clone(&self.long[at].1)),
                Err(_) => Payload::Inline(op.value),
            };
            state.mutable.insert(op.key, tag, payload);
            state.counts.write_bytes += (op.key.len() + op.value_bytes()) as u64;
        }
        self.inserted = end;
    }
}

/// Fills the record in the log.
fn fill(record: &mut [u8], seed: Seed, header: &Header, sections: &[Section<'_>]) {
    let mut writer = PayloadWriter::new(&mut record[HEADER_BYTES..]);
    for section in sections {
        let count = section.ops.len() as u32;
        writer.section(section.ops[0].shard, KEYSPACE_DEFAULT, count, section.first_seq);
        for op in section.ops {
            writer.entry(op.kind, op.key, op.value);
        }
    }
    writer.finish();
    seal(record, seed, header);
}

/// A list that allocates only for its second element: most writes are of one
/// shard.
pub(super) enum Few<T> {
    One(Option<T>),
    Many(Vec<T>),
}

type Sections<'a> = Few<Section<'a>>;
pub(super) type States<'a> = Few<ShortGuard<'a, State>>;

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::One(None)
    }
}

impl<T> Few<T> {
    pub(super) fn push(&mut self, item: T) {
        match self {
            Self::One(one) => match one.take() {
                None => *one = Some(item),
                Some(first) => *self = Self::Many(vec![first, item]),
            },
            Self::Many(many) => many.push(item),
        }
    }

    fn as_ref(&self) -> &[T] {
        match self {
            Self::One(one) => one.as_slice(),
            Self::Many(many) => many,
        }
    }

    pub(super) fn as_mut(&mut self) -> &mut [T] {
        match self {
            Self::One(one) => one.as_mut_slice(),
            Self::Many(many) => many,
        }
    }
}
