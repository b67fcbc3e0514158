//! A WAL stream: takes records, collects them in groups, and keeps the
//! segments that the groups go to.
//!
//! The life of a record: [`Stream::append`] (under the locks of the shards
//! concerned) gives it a position and a part of the open group's buffer. A
//! short record is copied there at once, under the stream's lock, so that
//! nothing behind it is ever acknowledged before it is whole; a long one is
//! filled without any lock, and holds up those behind it for so long. What
//! happens to groups then is the business of `commit`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::base::checksum::Seed;
use crate::base::durability::Durability;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::{DbId, ShardId};
use crate::base::latency::{Wait, Waited};
use crate::base::limits::round_up_u64;
use crate::base::seq::SeqNo;
use crate::base::sync::Mutex;
use crate::format::edit::StreamKey;
use crate::format::record::{HEADER_BYTES, Header, RecordKind, stream_seed};
use crate::io::Claim;
use crate::runtime::{Event, Waiters, Woken};
use crate::wal::buffers::Buffers;
use crate::wal::commit::{Flight, Progress};
use crate::wal::map::Map;
use crate::wal::pending::{Fence, Pending, Publication};
use crate::wal::{Group, Segment};

/// Records up to this length are copied under the stream's lock: that takes
/// less time than to lock it a second time.
const COPIED_BYTES_MAX: usize = 4608;

/// The write-ahead log of one owner, in one opening.
pub(crate) struct Stream {
    pub(crate) key: StreamKey,
    seed: Seed,
    group_bytes_max: usize,
    pub(super) state: Mutex<State>,
    /// Set when the owner's log job has something to do: a spare segment or a
    /// mapping is wanted, or the stream is not idle any more.
    pub(crate) work: Event,
    /// Set when something must be durable sooner than the owner would look.
    pub(crate) sync_work: Event,
    /// Set when the owner is asked to write or sync.
    pub(crate) lead_work: Event,
}

pub(super) struct State {
    /// Groups that are not written, oldest first; the last one may be open.
    pub(super) flights: VecDeque<Flight>,
    pub(super) progress: Progress,
    pub(super) pending: Pending,
    pub(super) buffers: Buffers,
    /// The end of the last record.
    end: u64,
    /// When what was acknowledged must be durable, if the owner was not asked
    /// for it yet, and how long after its acknowledgement that is.
    sync_by: Option<SyncBy>,
    /// The owner looks what must be synced at this time, in nanoseconds.
    owner_looks_at_ns: u64,
    /// The owner wants to know of the next record.
    watched: bool,
    /// Writes came that are acknowledged before they are written: they want
    /// mapped buffers.
    wants_map: bool,
    /// Live segments, oldest first; records go to the last one.
    pub(super) segments: VecDeque<Arc<Segment>>,
    spare: Option<Arc<Segment>>,
    /// Why there is no spare segment, when making one failed.
    spare_error: Option<Error>,
    pub(super) poisoned: Option<Error>,
    closed: bool,
    waiting_for_room: Waiters,
    /// Counts the times that there was new room.
    rooms: u64,
    pub(super) counts: StreamCounts,
}

#[derive(Clone, Copy)]
struct SyncBy {
    at_ns: u64,
    within_ns: u64,
}

/// What a stream has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamCounts {
    pub(crate) groups: u64,
    /// Groups that were made durable by their own write.
    pub(crate) durable_groups: u64,
    pub(crate) records: u64,
    pub(crate) record_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) marks: u64,
    /// Syncs of what had been written before.
    pub(crate) syncs: u64,
}

/// A record that is to be appended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Append {
    pub(crate) kind: RecordKind,
    pub(crate) sections: u16,
    pub(crate) payload_bytes: usize,
    pub(crate) durability: Durability,
}

/// What is left to do for a record that has its place.
pub(crate) enum Appended {
    /// It is copied, and may be visible as soon as the caller says so, before
    /// it lets go of the shards' locks.
    Copied(Place),
    /// It is copied. The number is for [`Goal::Visible`](super::Goal).
    Waits(Place, u64),
    /// It is to be filled.
    Unfilled(Place, Unfilled),
}

impl Appended {
    pub(crate) fn place(&self) -> Place {
        match self {
            Self::Copied(place) | Self::Waits(place, _) | Self::Unfilled(place, _) => *place,
        }
    }
}

/// Where in the stream a record is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// A record whose bytes are to be filled without a lock, and then handed to
/// [`Stream::filled`].
pub(crate) struct Unfilled {
    /// What the record's header says.
    pub(crate) header: Header,
    pub(crate) seed: Seed,
    /// The record's bytes, header and payload.
    pub(crate) claim: Claim,
    number: u64,
    /// Its queue entry waits for it; else its group does.
    held: bool,
}

/// Why there is no room for a record now.
pub(crate) enum NoRoom {
    /// Wait with [`Stream::poll_room`] and this number, then try again.
    Wait(u64),
    /// It will not get better by waiting.
    Failed(Error),
}

/// See [`Stream::poison_on_panic`].
pub(crate) struct PoisonOnPanic<'a>(Option<&'a Stream>);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0
            && std::thread::panicking()
        {
            let cause = "a thread panicked while it wrote or published log records";
            stream.poison(&Error::new(ErrorKind::Poisoned, cause));
        }
    }
}

/// What the owner is to be told by [`Stream::call_owner`].
#[derive(Default)]
#[must_use = "the owner is to be called once no lock is held any more"]
pub(crate) struct Calls {
    work: bool,
    sync: bool,
    lead: bool,
}

impl Stream {
    /// A stream whose first segment is `first`.
    pub(crate) fn new(db: DbId, key: StreamKey, group_bytes_max: usize, first: Segment) -> Self {
        let start = first.start;
        let state = State {
            flights: VecDeque::new(),
            progress: Progress::new(start),
            pending: Pending::default(),
            buffers: Buffers::new(group_bytes_max),
            end: start,
            sync_by: None,
            owner_looks_at_ns: 0,
            watched: false,
            wants_map: false,
            segments: VecDeque::from([Arc::new(first)]),
            spare: None,
            spare_error: None,
            poisoned: None,
            closed: false,
            waiting_for_room: Waiters::default(),
            rooms: 0,
            counts: StreamCounts::default(),
        };
        Self {
            key,
            seed: stream_seed(db, key.epoch, key.stream),
            group_bytes_max,
            state: Mutex::new(state),
            work: Event::default(),
            sync_work: Event::default(),
            lead_work: Event::default(),
        }
    }

    /// The longest payload a record may have.
    pub(crate) fn payload_bytes_max(&self) -> usize {
        self.group_bytes_max - HEADER_BYTES
    }

    /// Whether a record of `payload_bytes` is short enough to be copied under
    /// the stream's lock.
    pub(crate) fn is_short(payload_bytes: usize) -> bool {
        HEADER_BYTES + payload_bytes <= COPIED_BYTES_MAX
    }

    /// Room for a record, which writes `writes`: for each shard its last
    /// sequence number. The caller holds the locks of those shards, and takes
    /// the sequence numbers only when this succeeds.
    ///
    /// With `fill` the record is filled at once; without it, by the caller
    /// later. `now_ns` is the clock, looked at seldom. `calls` is for
    /// [`Stream::call_owner`], whatever comes of it, once the caller has let go
    /// of the locks: to wake the owner may take a system call. What it takes to get
    /// the stream's lock is added to `waited`.
    pub(crate) fn append(
        &self,
        append: &Append,
        writes: impl Iterator<Item = (ShardId, SeqNo)>,
        fill: Option<impl FnOnce(&mut [u8], Seed, &Header)>,
        now_ns: impl Fn() -> u64,
        calls: &mut Calls,
        waited: &mut Waited,
    ) -> Result<Appended, NoRoom> {
        let len = HEADER_BYTES + append.payload_bytes;
        assert!(len <= self.group_bytes_max, "the caller checks a record's size");
        let (mut state, lock_ns) = self.state.lock_timed(&now_ns);
        waited.add(Wait::Lock, lock_ns);
        let state = &mut *state;
        if let Some(cause) = &state.poisoned {
            return Err(NoRoom::Failed(Error::poisoned(cause)));
        }
        if state.closed && append.kind == RecordKind::Write {
            return Err(NoRoom::Failed(Error::closed()));
        }
        if !state.open_group().is_some_and(|group| group.has_room(len)) {
            state.begin_group(len, calls)?;
        }
        let (number, end, mark) = (state.last_group(), state.end, state.progress.durable_end);
        let group = state.open_group().expect("it has room for the record");
        let start = group.end();
        let header = Header {
            kind: append.kind,
            epoch: self.key.epoch,
            sections: append.sections,
            position: start,
            mark,
            gap: u32::try_from(start - end).expect("segments are far below 4 GiB"),
        };
        let place = Place { start, end: start + len as u64 };
        let is_durable = append.durability.is_durable();
        let fence = match (is_durable, group.buf.is_mapped()) {
            (true, _) => Fence::Durable(number),
            (false, true) => Fence::Copied,
            (false, false) => Fence::Written(number),
        };
        group.wants_durable |= is_durable;
        if append.kind == RecordKind::Write {
            group.records += 1;
        }
        let claim = match fill {
            Some(fill) => {
                let filled = group.buf.fill(len, |_, record| fill(record, self.seed, &header));
                filled.expect("the group has room");
                None
            }
            None => Some(group.buf.claim(len).expect("the group has room")),
        };
        // A group is not written before it is filled.
        let held = claim.is_some() && fence == Fence::Copied;
        let entry = state.pending.add(fence, held, place.end, writes);
        state.end = place.end;
        if let Some(within_ns) = append.durability.within_ns() {
            state.note_sync_by(within_ns, now_ns, calls);
        }
        calls.work |= std::mem::take(&mut state.watched);
        if entry.is_none() {
            state.buffers.acknowledge(place.end);
        }
        Ok(match (claim, entry) {
            (None, None) => Appended::Copied(place),
            (None, Some(number)) => Appended::Waits(place, number),
            (Some(claim), Some(number)) => {
                let seed = self.seed;
                Appended::Unfilled(place, Unfilled { header, seed, claim, number, held })
            }
            (Some(_), None) => unreachable!("what is not filled has an entry"),
        })
    }

    /// Wakes the owner, if it is to be told something.
    pub(crate) fn call_owner(&self, calls: &Calls) {
        if calls.work {
            self.work.set();
        }
        if calls.sync {
            self.sync_work.set();
        }
        if calls.lead {
            self.lead_work.set_one();
        }
    }

    /// The record is filled, and its writes are where they belong. Returns the
    /// number to wait for, and what is to be published now.
    pub(crate) fn filled(&self, unfilled: Unfilled) -> (u64, Option<Publication>) {
        let Unfilled { claim, number, held, .. } = unfilled;
        claim.finish();
        let (publication, room) = {
            let mut state = self.state.lock();
            // Its group may have been written before the claim let go of the
            // buffer.
            let room = state.buffers.take_back().then(|| state.new_room());
            if held {
                state.pending.filled(number);
            }
            let frontier = state.progress.frontier();
            (held.then(|| state.pending.take_ready(frontier)).flatten(), room)
        };
        if let Some(room) = room {
            room.wake();
        }
        (number, publication)
    }

    /// Poisons the stream when the calling thread panics before it drops this: it
    /// may have left records behind that are never filled, or writes that nobody
    /// else can publish.
    pub(crate) fn poison_on_panic(&self) -> PoisonOnPanic<'_> {
        // Who panics already may write while it unwinds.
        PoisonOnPanic((!std::thread::panicking()).then_some(self))
    }

    /// Ready when it is worth trying [`Stream::append`] again: since it said
    /// [`NoRoom::Wait`] with `seen`, there was new room. `id` is `None` at
    /// first; see [`Stream::forget_room`].
    pub(crate) fn poll_room(
        &self,
        cx: &mut Context<'_>,
        seen: u64,
        id: &mut Option<u64>,
    ) -> Poll<()> {
        let mut state = self.state.lock();
        if state.rooms != seen {
            return Poll::Ready(());
        }
        let replaced = state.waiting_for_room.register(id, cx.waker());
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    /// Whoever has this number does not wait for room any more.
    pub(crate) fn forget_room(&self, id: &mut Option<u64>) {
        let removed = self.state.lock().waiting_for_room.remove(id);
        drop(removed);
    }

    /// What the owner's log job has to see to now.
    pub(crate) fn look(&self) -> Look {
        let mut state = self.state.lock();
        let is_idle = state.is_idle();
        state.watched |= is_idle;
        let is_sound = state.poisoned.is_none();
        Look {
            is_idle,
            wants_mark: state.progress.unwitnessed && state.is_quiet() && is_sound,
            wants_map: state.wants_map && is_sound,
        }
    }

    /// Asks the owner for the sync that is due by `now_ns`. Returns until when
    /// none is, at most `rest_ns` ahead; `None` when the next record says so by
    /// [`Stream::sync_work`].
    pub(crate) fn ask_for_due_sync(&self, now_ns: u64, rest_ns: u64) -> Option<u64> {
        let (until_ns, asked) = {
            let mut state = self.state.lock();
            let mut asked = false;
            if state.sync_by.is_some_and(|by| by.at_ns <= now_ns) {
                state.sync_by = None;
                let all = state.next_group();
                asked = state.progress.ask(all, all);
            }
            // As long as records come, nobody has to wake the owner for them.
            let rests = state.sync_by.is_some() || !state.is_idle();
            let until_ns = rests.then(|| {
                let rested_ns = now_ns.saturating_add(rest_ns);
                state.sync_by.map_or(rested_ns, |by| by.at_ns.min(rested_ns))
            });
            state.owner_looks_at_ns = until_ns.unwrap_or(u64::MAX);
            (until_ns, asked)
        };
        if asked {
            self.lead_work.set_one();
        }
        until_ns
    }

    /// The end of the last record: a number that changes with every record.
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

    /// Bytes of the mapped buffers.
    pub(crate) fn map_bytes(&self) -> u64 {
        self.state.lock().buffers.map_bytes()
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
        room.wake();
    }

    /// Whoever needs a spare segment waits for one again: another attempt comes.
    pub(crate) fn forget_spare_error(&self) {
        self.state.lock().spare_error = None;
    }

    /// Provides the mapping.
    pub(crate) fn provide_map(&self, map: Map) {
        let room = {
            let mut state = self.state.lock();
            state.wants_map = false;
            state.buffers.add_map(map);
            state.new_room()
        };
        room.wake();
    }

    /// Asks for a mapping before anybody needs it.
    pub(crate) fn want_map(&self) {
        self.state.lock().wants_map = true;
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
        room.wake();
    }

    /// Fails all writes from now on, and everybody who waits.
    pub(crate) fn poison(&self, cause: &Error) {
        // Whoever waits is to hear of a panic under this lock, too.
        let is_first = self.state.lock_though_broken().poison(cause);
        self.tell_poisoned(cause, is_first);
    }

    /// It was poisoned: tells all who wait, and the user the first time.
    pub(super) fn tell_poisoned(&self, cause: &Error, is_first: bool) {
        if is_first {
            tracing::error!(
                stream = self.key.stream,
                error = %cause,
                "the log is poisoned: writes fail until the database is opened again"
            );
        }
        let (waiting, room) = {
            let mut state = self.state.lock_though_broken();
            (state.progress.take_waiting(), state.new_room())
        };
        for waker in waiting {
            waker.wake();
        }
        room.wake();
    }
}

/// What [`Stream::look`] found.
pub(crate) struct Look {
    /// Nothing was appended since the last mark, and nothing is going on:
    /// [`Stream::work`] is set by the next record. So an owner is woken once by
    /// a burst of writes, not by each of them.
    pub(crate) is_idle: bool,
    /// The last durable group has no witness, and nothing is going on.
    pub(crate) wants_mark: bool,
    pub(crate) wants_map: bool,
}

impl State {
    /// Takes no more writes, because of this; whether it did until now.
    #[must_use = "the first time, it is told"]
    pub(super) fn poison(&mut self, cause: &Error) -> bool {
        let is_first = self.poisoned.is_none();
        self.poisoned.get_or_insert_with(|| cause.clone());
        is_first
    }

    /// The group that takes records, if there is one.
    fn open_group(&mut self) -> Option<&mut Group> {
        self.flights.back_mut().and_then(Flight::queued).filter(|group| !group.sealed)
    }

    /// The number of the last group.
    fn last_group(&self) -> u64 {
        self.next_group() - 1
    }

    /// The number the next group gets.
    pub(super) fn next_group(&self) -> u64 {
        self.progress.written + self.flights.len() as u64
    }

    /// Whether no record is on its way.
    fn is_quiet(&self) -> bool {
        self.flights.is_empty() && self.pending.is_empty() && self.progress.all_durable()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether there is nothing to see to before the next record.
    fn is_idle(&self) -> bool {
        self.poisoned.is_some() || (!self.progress.unwitnessed && self.is_quiet())
    }

    /// Opens a group with room for a record of `len` bytes.
    fn begin_group(&mut self, len: usize, calls: &mut Calls) -> Result<(), NoRoom> {
        let last = self.segments.back().expect("a stream has a segment");
        let position = round_up_u64(self.end);
        let fits = position + round_up_u64(len as u64) <= last.end();
        if !fits && self.spare.is_none() {
            // A segment that could not be made is tried anew.
            calls.work = true;
            return Err(match &self.spare_error {
                Some(error) => NoRoom::Failed(error.clone()),
                None => NoRoom::Wait(self.rooms),
            });
        }
        let Some(buf) = self.buffers.take(len) else {
            return Err(NoRoom::Wait(self.rooms));
        };
        // The one before it is full.
        if let Some(full) = self.open_group() {
            full.sealed = true;
            full.buf.seal();
            let below = self.next_group();
            calls.lead |= self.progress.ask(below, 0);
        }
        let segment = match self.spare.take_if(|_| !fits) {
            Some(spare) => {
                calls.work = true;
                self.segments.push_back(spare);
                self.segments.back().expect("it was just added")
            }
            None => self.segments.back().expect("a stream has a segment"),
        };
        let position = position.max(segment.start);
        let segment = Arc::clone(segment);
        let (records, wants_durable, sealed) = (0, false, false);
        let group = Group { buf, segment, position, records, wants_durable, sealed };
        self.flights.push_back(Flight::Queued(group));
        Ok(())
    }

    /// Notes that a record is acknowledged now and must be durable `within_ns`.
    fn note_sync_by(&mut self, within_ns: u64, now_ns: impl FnOnce() -> u64, calls: &mut Calls) {
        if !self.buffers.has_map() && !self.wants_map {
            self.wants_map = true;
            calls.work = true;
        }
        if self.sync_by.is_some_and(|by| by.within_ns <= within_ns) {
            return;
        }
        // Begun at three quarters of the time, a sync is over in time.
        let at_ns = now_ns().saturating_add(within_ns / 4 * 3);
        if self.sync_by.is_none_or(|by| at_ns < by.at_ns) {
            self.sync_by = Some(SyncBy { at_ns, within_ns });
            calls.sync |= at_ns < self.owner_looks_at_ns;
        }
    }

    /// There is new room: those who are to be woken.
    pub(super) fn new_room(&mut self) -> Woken {
        self.rooms += 1;
        self.waiting_for_room.take_all()
    }
}
