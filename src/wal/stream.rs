//! A WAL stream: reserves room for records, collects them in groups, and says
//! who leads the next group to the device.
//!
//! The life of a record: [`Stream::reserve`] (under the shard's lock) gives it
//! a position and a part of the open group's buffer; its writer fills that part
//! without any lock; [`Stream::poll_turn`] then makes one of those who wait the
//! leader, which writes the group ([`Lead`]) and hands it to
//! [`Lead::complete`].
//!
//! One group is in flight at a time, so whatever was written before it is
//! durable, and one durable write suffices. Groups become complete in the
//! order of the stream. The first failed write poisons the stream for good.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::base::checksum::Seed;
use crate::base::error::{Error, Result};
use crate::base::ids::{DbId, ShardId};
use crate::base::limits::round_up_u64;
use crate::base::seq::SeqNo;
use crate::base::sync::Mutex;
use crate::format::edit::StreamKey;
use crate::format::record::{HEADER_BYTES, Header, RecordKind, stream_seed};
use crate::io::{Claim, GroupBuf, Harden, Io, WriteBuf};
use crate::runtime::Event;
use crate::wal::{Group, Segment};

/// Groups that exist at one time: one in flight, the others filling up.
const GROUPS_MAX: usize = 3;

/// The write-ahead log of one owner, in one opening.
pub(crate) struct Stream {
    pub(crate) key: StreamKey,
    seed: Seed,
    group_bytes_max: usize,
    state: Mutex<State>,
    /// Set when the owner has something to do for the stream: a spare segment
    /// is wanted, or the stream may have fallen idle.
    pub(crate) work: Event,
}

struct State {
    /// Groups that are not in flight, oldest first; the last one is open.
    groups: VecDeque<Group>,
    next_group: u64,
    /// Groups below this number are complete.
    complete: u64,
    leading: bool,
    /// The end of the last reserved record.
    end: u64,
    /// The end of the last durable record.
    durable_end: u64,
    /// The last durable group holds writes, and no later group proves that it
    /// was durable.
    unwitnessed: bool,
    /// The owner wants to know of the next group that is complete.
    watched: bool,
    /// Live segments, oldest first; records go to the last one.
    segments: VecDeque<Arc<Segment>>,
    spare: Option<Arc<Segment>>,
    /// Why there is no spare segment, when making one failed.
    spare_error: Option<Error>,
    poisoned: Option<Error>,
    closed: bool,
    idle_buffers: Vec<Arc<GroupBuf>>,
    /// Who waits for which group to be complete.
    waiting: Vec<(u64, Waker)>,
    /// Who waits for room: for a group to be taken, or for a segment.
    waiting_for_room: Vec<Waker>,
    /// Counts the times that there was new room.
    rooms: u64,
    counts: StreamCounts,
}

/// What a stream has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamCounts {
    pub(crate) groups: u64,
    pub(crate) records: u64,
    pub(crate) record_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) marks: u64,
}

/// Room for one record.
pub(crate) struct Reservation {
    /// The group to wait for.
    pub(crate) group: u64,
    /// What the record's header says.
    pub(crate) header: Header,
    pub(crate) seed: Seed,
    /// The record's bytes, header and payload, to be filled.
    pub(crate) claim: Claim,
}

/// Why there is no room for a record now.
pub(crate) enum NoRoom {
    /// Wait with [`Stream::poll_room`] and this number, then try again.
    Wait(u64),
    /// It will not get better by waiting.
    Failed(Error),
}

/// What somebody who waits for a group is told.
pub(crate) enum Turn<'a> {
    /// The group is complete: durable, with all before it; or its outcome is
    /// unknown.
    Over(Result<()>),
    /// Write this group (it may be an earlier one), then ask again.
    Lead(Lead<'a>),
}

/// The duty to write a group. Dropping it undone poisons the stream.
pub(crate) struct Lead<'a> {
    stream: &'a Stream,
    group: Option<Group>,
}

impl Stream {
    /// A stream whose first segment is `first`.
    pub(crate) fn new(db: DbId, key: StreamKey, group_bytes_max: usize, first: Segment) -> Self {
        let start = first.start;
        let state = State {
            groups: VecDeque::with_capacity(GROUPS_MAX),
            next_group: 0,
            complete: 0,
            leading: false,
            end: start,
            durable_end: start,
            unwitnessed: false,
            watched: false,
            segments: VecDeque::from([Arc::new(first)]),
            spare: None,
            spare_error: None,
            poisoned: None,
            closed: false,
            idle_buffers: Vec::with_capacity(GROUPS_MAX),
            waiting: Vec::new(),
            waiting_for_room: Vec::new(),
            rooms: 0,
            counts: StreamCounts::default(),
        };
        Self {
            key,
            seed: stream_seed(db, key.epoch, key.stream),
            group_bytes_max,
            state: Mutex::new(state),
            work: Event::default(),
        }
    }

    /// The longest payload a record may have.
    pub(crate) fn payload_bytes_max(&self) -> usize {
        self.group_bytes_max - HEADER_BYTES
    }

    /// Room for a record of `payload_bytes`, which writes `published`: for each
    /// shard its last sequence number. The caller holds the locks of those
    /// shards, and takes the sequence numbers only when this succeeds.
    pub(crate) fn reserve(
        &self,
        kind: RecordKind,
        sections: u16,
        payload_bytes: usize,
        published: impl Iterator<Item = (ShardId, SeqNo)>,
    ) -> Result<Reservation, NoRoom> {
        let len = HEADER_BYTES + payload_bytes;
        assert!(len <= self.group_bytes_max, "the caller checks a record's size");
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some(cause) = &state.poisoned {
            return Err(NoRoom::Failed(Error::poisoned(cause)));
        }
        if state.closed && kind == RecordKind::Write {
            return Err(NoRoom::Failed(Error::closed()));
        }
        let claim = match state.claim_in_open_group(len) {
            Some(claim) => claim,
            None => {
                match state.open_group(len, self.group_bytes_max) {
                    Ok(false) => {}
                    Ok(true) => self.work.set(),
                    Err(no_room) => {
                        // A segment that could not be made is tried anew.
                        self.work.set();
                        return Err(no_room);
                    }
                }
                state.claim_in_open_group(len).expect("a new group has room for one record")
            }
        };
        let group = state.groups.back_mut().expect("a record was reserved in it");
        let position = group.position + claim.start() as u64;
        let gap = position - state.end;
        let header = Header {
            kind,
            epoch: self.key.epoch,
            sections,
            position,
            mark: state.durable_end,
            gap: u32::try_from(gap).expect("segments are far below 4 GiB"),
        };
        state.end = position + len as u64;
        if kind == RecordKind::Write {
            group.records += 1;
        }
        for (shard, seq) in published {
            group.publish(shard, seq);
        }
        Ok(Reservation { group: group.number, header, seed: self.seed, claim })
    }

    /// Ready when it is worth trying [`Stream::reserve`] again: since it said
    /// [`NoRoom::Wait`] with `seen`, there was new room.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>, seen: u64) -> Poll<()> {
        let mut state = self.state.lock();
        if state.rooms != seen {
            return Poll::Ready(());
        }
        state.waiting_for_room.push(cx.waker().clone());
        Poll::Pending
    }

    /// What `group` waits for: its end, or somebody to write a group.
    ///
    /// Only those who are sure to go on may lead, not a future that may be
    /// dropped.
    pub(crate) fn poll_turn(&self, cx: &mut Context<'_>, group: u64) -> Poll<Turn<'_>> {
        let mut state = self.state.lock();
        if group < state.complete {
            return Poll::Ready(Turn::Over(Ok(())));
        }
        if let Some(cause) = &state.poisoned {
            return Poll::Ready(Turn::Over(Err(Error::poisoned(cause))));
        }
        if !state.leading {
            let group = state.groups.pop_front().expect("a group somebody waits for exists");
            debug_assert_eq!(group.number, state.complete);
            group.buf.seal();
            state.leading = true;
            let room = state.new_room();
            drop(state);
            wake_all(room);
            return Poll::Ready(Turn::Lead(Lead { stream: self, group: Some(group) }));
        }
        state.waiting.push((group, cx.waker().clone()));
        Poll::Pending
    }

    /// Whether the last durable group has no witness, and nothing is going on.
    pub(crate) fn wants_mark(&self) -> bool {
        let state = self.state.lock();
        state.unwitnessed && state.is_quiet() && state.poisoned.is_none()
    }

    /// When nothing was written since the last mark: asks for [`Stream::work`]
    /// to be set by the next group, and returns true. So an owner is woken
    /// once by a burst of writes, not by each of them.
    pub(crate) fn watch(&self) -> bool {
        let mut state = self.state.lock();
        let idle = state.poisoned.is_some() || (!state.unwitnessed && state.is_quiet());
        state.watched = idle;
        idle
    }

    /// A number that changes with every record.
    pub(crate) fn end(&self) -> u64 {
        self.state.lock().end
    }

    /// Why the stream takes no more records, if so.
    pub(crate) fn poisoned(&self) -> Option<Error> {
        self.state.lock().poisoned.clone()
    }

    pub(crate) fn counts(&self) -> StreamCounts {
        self.state.lock().counts
    }

    /// Number and bytes of the live segments and the spare one.
    pub(crate) fn segment_counts(&self) -> (usize, u64) {
        let state = self.state.lock();
        let all = state.segments.iter().chain(&state.spare);
        all.fold((0, 0), |(n, bytes), segment| (n + 1, bytes + segment.file_bytes()))
    }

    /// Where the next spare segment has to start, and the file length of the
    /// last one; `None` while there is a spare.
    pub(crate) fn wanted_spare(&self) -> Option<(u64, u64)> {
        let state = self.state.lock();
        let last = state.segments.back().expect("a stream has a segment");
        let wanted = state.spare.is_none() && state.poisoned.is_none();
        wanted.then(|| (last.end(), last.file_bytes()))
    }

    /// Provides the spare segment, or says why there is none.
    pub(crate) fn provide_spare(&self, spare: Result<Segment>) {
        let room = {
            let mut state = self.state.lock();
            match spare {
                Ok(segment) => {
                    let last = state.segments.back().expect("a stream has a segment");
                    assert_eq!(segment.start, last.end(), "segments follow each other");
                    state.spare = Some(Arc::new(segment));
                    state.spare_error = None;
                }
                Err(error) => state.spare_error = Some(error),
            }
            state.new_room()
        };
        wake_all(room);
    }

    /// Where the oldest live segment starts.
    pub(crate) fn start(&self) -> u64 {
        self.state.lock().segments.front().expect("a stream has a segment").start
    }

    /// The live segments that end at or below `keep`, which nobody needs: not
    /// the one in use.
    pub(crate) fn below(&self, keep: u64) -> Vec<Arc<Segment>> {
        let state = self.state.lock();
        let used = state.segments.len() - 1;
        state.segments.iter().take(used).take_while(|s| s.end() <= keep).cloned().collect()
    }

    /// Drops the `count` oldest segments: the caller made durable that the
    /// stream starts behind them.
    pub(crate) fn drop_oldest(&self, count: usize) {
        let mut state = self.state.lock();
        assert!(count < state.segments.len(), "the segment in use stays");
        state.segments.drain(..count);
    }

    /// Takes no more writes; a last mark is still possible.
    pub(crate) fn close(&self) {
        let room = {
            let mut state = self.state.lock();
            state.closed = true;
            state.new_room()
        };
        wake_all(room);
    }

    /// Ready when no write of a group is in flight, and none will be begun any
    /// more. For a stream that was closed.
    pub(crate) fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if !state.leading && (state.groups.is_empty() || state.poisoned.is_some()) {
            return Poll::Ready(());
        }
        state.waiting_for_room.push(cx.waker().clone());
        Poll::Pending
    }

    /// Fails every write from now on.
    pub(crate) fn poison(&self, cause: Error) {
        let (waiting, room) = {
            let mut state = self.state.lock();
            state.poisoned.get_or_insert(cause);
            (std::mem::take(&mut state.waiting), state.new_room())
        };
        wake_all(waiting.into_iter().map(|(_, waker)| waker));
        wake_all(room);
    }
}

impl State {
    fn is_quiet(&self) -> bool {
        !self.leading && self.groups.is_empty()
    }

    /// Who is to be told that there may be room now.
    fn new_room(&mut self) -> Vec<Waker> {
        self.rooms += 1;
        std::mem::take(&mut self.waiting_for_room)
    }

    fn claim_in_open_group(&self, len: usize) -> Option<Claim> {
        let group = self.groups.back()?;
        let room = group.segment.end() - group.position;
        if group.bytes() as u64 + len as u64 > room {
            return None;
        }
        group.buf.claim(len)
    }

    /// Opens a group with room for `len` bytes. Whether a new segment was
    /// begun for it.
    fn open_group(&mut self, len: usize, group_bytes_max: usize) -> Result<bool, NoRoom> {
        if self.groups.len() + usize::from(self.leading) >= GROUPS_MAX {
            return Err(NoRoom::Wait(self.rooms));
        }
        let mut segment = Arc::clone(self.segments.back().expect("a stream has a segment"));
        let mut position = round_up_u64(self.end);
        let mut switched = false;
        if position + round_up_u64(len as u64) > segment.end() {
            let Some(spare) = self.spare.take() else {
                return Err(match &self.spare_error {
                    Some(error) => NoRoom::Failed(error.clone()),
                    None => NoRoom::Wait(self.rooms),
                });
            };
            self.segments.push_back(Arc::clone(&spare));
            position = spare.start;
            segment = spare;
            switched = true;
        }
        let buf =
            self.idle_buffers.pop().unwrap_or_else(|| Arc::new(GroupBuf::new(group_bytes_max)));
        let number = self.next_group;
        self.next_group += 1;
        let published = Vec::new();
        self.groups.push_back(Group { number, buf, segment, position, published, records: 0 });
        Ok(switched)
    }
}

impl Lead<'_> {
    /// Writes the group, durably.
    pub(crate) async fn write<I: Io>(&mut self, io: &I) -> Result<()> {
        let group = self.group.as_ref().expect("a lead has its group");
        if !poll_fn(|cx| group.buf.poll_filled(cx)).await {
            return Err(Error::new(
                crate::base::error::ErrorKind::Poisoned,
                "a thread panicked while it wrote a log record",
            ));
        }
        let offset = group.segment.offset(group.position);
        let buf = WriteBuf::Group(Arc::clone(&group.buf), group.written_bytes());
        // All before it is durable: see the module's text.
        let (_, result) = io.write(&group.segment.file, offset, buf, Harden::Now).await;
        result
    }

    /// For each shard, the last sequence number that the group makes visible.
    pub(crate) fn published(&self) -> &[(ShardId, SeqNo)] {
        &self.group.as_ref().expect("a lead has its group").published
    }

    /// Ends the lead: the group is durable and published, or its write failed.
    pub(crate) fn complete(mut self, written: Result<()>) {
        let group = self.group.take().expect("a lead ends once");
        match written {
            Ok(()) => self.stream.completed(group),
            Err(error) => {
                tracing::error!(%error, "a write to the log failed; writes fail from now on");
                self.stream.ended(error);
            }
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if self.group.is_some() {
            self.stream.ended(Error::new(
                crate::base::error::ErrorKind::Poisoned,
                "a thread panicked while it wrote the log",
            ));
        }
    }
}

impl Stream {
    /// A lead ended without its group being durable.
    fn ended(&self, cause: Error) {
        self.state.lock().leading = false;
        self.poison(cause);
    }

    fn completed(&self, group: Group) {
        let (next, followers, room, watched) = {
            let mut state = self.state.lock();
            assert_eq!(group.number, state.complete, "groups are completed in order");
            state.complete += 1;
            state.leading = false;
            state.durable_end = group.end();
            state.unwitnessed = group.records > 0;
            state.counts.groups += 1;
            state.counts.records += group.records;
            state.counts.marks += u64::from(group.records == 0);
            state.counts.record_bytes += group.bytes() as u64;
            state.counts.written_bytes += group.written_bytes() as u64;
            let complete = state.complete;
            let mut followers = Vec::new();
            let mut next = None;
            let mut i = 0;
            while i < state.waiting.len() {
                let number = state.waiting[i].0;
                if number < complete {
                    followers.push(state.waiting.swap_remove(i).1);
                } else if number == complete && next.is_none() {
                    next = Some(state.waiting.swap_remove(i).1);
                } else {
                    i += 1;
                }
            }
            if next.is_none() && !state.waiting.is_empty() {
                // The writers of the next group have not come to wait yet. Should
                // one panic, nobody else would notice: a later group's leads.
                next = Some(state.waiting.swap_remove(0).1);
            }
            let room = if state.closed { state.new_room() } else { Vec::new() };
            let watched = std::mem::take(&mut state.watched);
            (next, followers, room, watched)
        };
        // The next leader first: the device waits for it.
        wake_all(next);
        wake_all(followers);
        wake_all(room);
        self.give_back(group);
        if watched {
            self.work.set();
        }
    }

    /// Keeps the group's buffer for later, emptied outside the lock.
    fn give_back(&self, mut group: Group) {
        let used = group.bytes();
        // Somebody may be between filling a claim and letting go of it; then
        // the buffer is freed instead.
        if let Some(buf) = Arc::get_mut(&mut group.buf) {
            buf.reset(used);
            self.state.lock().idle_buffers.push(group.buf);
        }
    }
}

fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        waker.wake();
    }
}
