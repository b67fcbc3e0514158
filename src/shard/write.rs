//! Writes: a put, a delete, or a batch within one WAL stream.
//!
//! Under the locks of the shards concerned: room in the memtables, room in the
//! log, sequence numbers, the first entries. Without any lock: the record is
//! filled. Then the writer waits for its group, and leads it if nobody does.

use std::future::poll_fn;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::ids::{KEYSPACE_DEFAULT, ShardId};
use crate::base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::base::seq::{Kind, SeqNo, Tag};
use crate::base::sync::MutexGuard;
use crate::format::record::{
    HEADER_BYTES, PayloadWriter, RecordKind, entry_bytes, seal, section_bytes,
};
use crate::io::Io;
use crate::memtable::{Memtable, Payload};
use crate::shard::engine::Engine;
use crate::shard::state::{Admission, State};
use crate::wal::{Lead, NoRoom, Reservation, Turn};

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

/// Consecutive writes of one shard.
struct Section<'a> {
    ops: &'a [WriteOp<'a>],
    /// Long values, by index into `ops`, ascending.
    long: Vec<(usize, Arc<[u8]>)>,
    first_seq: SeqNo,
    inserted: usize,
}

/// Checks the sizes that hold for every database.
pub(crate) fn check_sizes(key: &[u8], value: &[u8]) -> Result<()> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a key of {} bytes; the longest allowed has {KEY_BYTES_MAX}",
            key.len()
        )));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a value of {} bytes; the longest allowed has {VALUE_BYTES_MAX}: split it over \
             several keys",
            value.len()
        )));
    }
    Ok(())
}

/// The bytes of log payload that these writes of one shard take.
fn payload_bytes(ops: &[WriteOp<'_>]) -> usize {
    let entries = ops.iter().map(|op| entry_bytes(op.kind, op.key.len(), op.value.len()));
    section_bytes() + entries.sum::<usize>()
}

/// An upper bound on what one write adds to a record of the log.
pub(crate) fn log_bytes(kind: Kind, key_len: usize, value_len: usize) -> usize {
    section_bytes() + entry_bytes(kind, key_len, value_len)
}

fn memtable_bytes(ops: &[WriteOp<'_>]) -> usize {
    ops.iter().map(|op| Memtable::entry_bytes(op.key.len(), op.value.len())).sum()
}

impl Engine {
    /// Applies `ops`, all or nothing, and returns when they are durable and
    /// visible. They are sorted by shard, and all of one WAL stream; of two
    /// writes to one key the later one wins.
    pub(crate) async fn write<I: Io>(&self, io: &I, ops: &[WriteOp<'_>]) -> Result<()> {
        let Some(first) = ops.first() else {
            return self.check_open();
        };
        let owner = self.owner_of(first.shard);
        let stream = &self.owners[owner].stream;
        let mut payload = 0;
        let mut sections: Sections<'_> = Sections::default();
        for ops in ops.chunk_by(|a, b| a.shard == b.shard) {
            assert_eq!(self.owner_of(ops[0].shard), owner, "a batch is of one stream");
            payload += payload_bytes(ops);
            sections.push(Section::new(ops));
        }
        if payload > stream.payload_bytes_max() {
            return Err(Error::invalid(format!(
                "a batch of {payload} bytes; the log of this database takes at most {} in one \
                 record: split the batch",
                stream.payload_bytes_max()
            )));
        }
        let mut reservation = loop {
            match self.stage(owner, payload, sections.as_mut()) {
                Ok(reservation) => break reservation,
                Err(Staged::Stalled(shard, seen)) => {
                    let shard = self.shard(shard);
                    poll_fn(|cx| shard.poll_room(cx, seen)).await;
                }
                Err(Staged::NoLog(seen)) => poll_fn(|cx| stream.poll_room(cx, seen)).await,
                Err(Staged::Failed(error)) => return Err(error),
            }
        };
        let group = reservation.group;
        fill(&mut reservation, sections.as_ref());
        self.insert_rest(sections.as_mut());
        // The group is not written before this, so nothing of the batch is
        // visible before all of it is in the memtables.
        reservation.claim.finish();
        self.commit(io, owner, group).await
    }

    /// The part of a write that happens under the locks.
    fn stage(
        &self,
        owner: usize,
        payload: usize,
        sections: &mut [Section<'_>],
    ) -> Result<Reservation, Staged> {
        let mut states: States<'_> = States::default();
        for section in sections.iter() {
            let shard = section.ops[0].shard;
            let mut state = self.shard(shard).lock();
            let needed = memtable_bytes(section.ops);
            let limits = &self.limits;
            let admitted =
                state.admit(needed, limits.memtable_bytes, limits.frozen_max, &self.arenas);
            match admitted.map_err(Staged::Failed)? {
                Admission::Granted => {}
                Admission::Rotated => self.owners[owner].flush_work.set(),
                Admission::Stalled(seen) => {
                    // Writes that never became visible are never flushed.
                    return Err(match self.owners[owner].stream.poisoned() {
                        Some(cause) => Staged::Failed(Error::poisoned(&cause)),
                        None => Staged::Stalled(shard, seen),
                    });
                }
            }
            states.push(state);
        }
        let states = states.as_mut();
        let published = sections.iter().zip(states.iter()).map(|(section, state)| {
            let count = section.ops.len() as SeqNo;
            (section.ops[0].shard, state.next_seq + count - 1)
        });
        let count = sections.len() as u16;
        let reservation =
            match self.owners[owner].stream.reserve(RecordKind::Write, count, payload, published) {
                Ok(reservation) => reservation,
                Err(NoRoom::Wait(seen)) => return Err(Staged::NoLog(seen)),
                Err(NoRoom::Failed(error)) => return Err(Staged::Failed(error)),
            };
        for (section, state) in sections.iter_mut().zip(states) {
            section.first_seq = state.next_seq;
            state.next_seq += section.ops.len() as SeqNo;
            state.log_start.get_or_insert(reservation.header.position);
            state.counts.writes += section.ops.len() as u64;
            section.insert_some(state);
            if !section.is_inserted() {
                state.inserting += 1;
            }
        }
        Ok(reservation)
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

    /// Waits until `group` is durable and visible; writes groups whose turn it
    /// is while nobody else does.
    pub(crate) async fn commit<I: Io>(&self, io: &I, owner: usize, group: u64) -> Result<()> {
        let stream = &self.owners[owner].stream;
        loop {
            match poll_fn(|cx| stream.poll_turn(cx, group)).await {
                Turn::Over(result) => return result,
                Turn::Lead(mut lead) => {
                    let written = lead.write(io).await;
                    if written.is_ok() {
                        self.publish(&lead);
                    }
                    lead.complete(written);
                }
            }
        }
    }

    /// Makes the writes of a durable group visible: all at one moment.
    fn publish(&self, lead: &Lead<'_>) {
        let published = lead.published();
        let mut states: States<'_> = States::default();
        for (shard, _) in published {
            states.push(self.shard(*shard).lock());
        }
        if published.is_empty() {
            return;
        }
        let at = self.clock.tick();
        for ((_, seq), state) in published.iter().zip(states.as_mut()) {
            state.published.publish(&self.clock, at, *seq);
        }
    }
}

/// Why a write could not be staged.
enum Staged {
    /// The shard's memtable has no room; the number is for `poll_room`.
    Stalled(ShardId, u64),
    /// The log has no room; the number is for its `poll_room`.
    NoLog(u64),
    Failed(Error),
}

impl<'a> Section<'a> {
    fn new(ops: &'a [WriteOp<'a>]) -> Self {
        let long = ops.iter().enumerate().filter(|(_, op)| op.value.len() > INLINE_BYTES_MAX);
        let long = long.map(|(i, op)| (i, Arc::from(op.value))).collect();
        Self { ops, long, first_seq: 0, inserted: 0 }
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
            state.counts.write_bytes += (op.key.len() + op.value.len()) as u64;
        }
        self.inserted = end;
    }
}

/// Fills the record in the log.
fn fill(reservation: &mut Reservation, sections: &[Section<'_>]) {
    let record = &mut reservation.claim[..];
    let mut writer = PayloadWriter::new(&mut record[HEADER_BYTES..]);
    for section in sections {
        let count = section.ops.len() as u32;
        writer.section(section.ops[0].shard, KEYSPACE_DEFAULT, count, section.first_seq);
        for op in section.ops {
            writer.entry(op.kind, op.key, op.value);
        }
    }
    writer.finish();
    seal(record, reservation.seed, &reservation.header);
}

/// A list that allocates only for its second element: most writes are of one
/// shard.
enum Few<T> {
    One(Option<T>),
    Many(Vec<T>),
}

type Sections<'a> = Few<Section<'a>>;
type States<'a> = Few<MutexGuard<'a, State>>;

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::One(None)
    }
}

impl<T> Few<T> {
    fn push(&mut self, item: T) {
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

    fn as_mut(&mut self) -> &mut [T] {
        match self {
            Self::One(one) => one.as_mut_slice(),
            Self::Many(many) => many,
        }
    }
}
