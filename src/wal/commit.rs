//! How groups get to the device, and who sees to it.
//!
//! Groups are written in the order of the stream, a few at a time; they may
//! complete in any order. Two frontiers advance over them, in order only: what
//! is *written*, and what is *durable*. A group whose predecessors are all
//! durable, or on their way to be so by themselves, is made durable by its own
//! write (`RWF_DSYNC`), which hardens its own bytes and no others. Any other one
//! is written plainly, and a sync of the segments follows that covers all that
//! was written until then.
//!
//! Whoever waits with [`Wait`] may be told to *lead*: to write the next group,
//! or to sync. Only those may who are sure to go on: threads in `wait`, and
//! the owner. A future that may be dropped asks the owner instead. Whoever
//! completes something calls the next leader, so that no group is left
//! without one. The first failed write or sync poisons the stream for good.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::planted::{Bug, planted};
use crate::io::{Harden, Io, WriteBuf};
use crate::wal::pending::{Frontier, Publication};
use crate::wal::stream::{State, Stream};
use crate::wal::{Group, Segment};

/// Groups that are being written at one time.
///
/// A group that is still filling up goes to the device beside another one only
/// when it has as many records as that: so a few writers overlap their writes,
/// and many share them.
const IN_FLIGHT_MAX: usize = 2;

/// Of so many groups it is known when their writes began: those who waited for one
/// ask soon after it is written.
const BEGUN_KEPT: usize = 16;

/// A group that is not written, or not known to be.
pub(super) enum Flight {
    /// Nobody writes it yet.
    Queued(Group),
    Begun {
        /// Its write makes it durable.
        hardened: bool,
    },
    /// Written before one that precedes it.
    Written(Written),
}

/// What is kept of a group that was written.
pub(super) struct Written {
    hardened: bool,
    end: u64,
    records: u64,
}

impl Flight {
    pub(super) fn queued(&mut self) -> Option<&mut Group> {
        match self {
            Self::Queued(group) => Some(group),
            _ => None,
        }
    }

    fn is_hardened(&self) -> bool {
        match self {
            Self::Queued(_) => false,
            Self::Begun { hardened } | Self::Written(Written { hardened, .. }) => *hardened,
        }
    }
}

/// How far the stream has come, and who waits for more.
pub(super) struct Progress {
    /// Groups below this number are written: those that are not begin with it.
    pub(super) written: u64,
    written_end: u64,
    /// Groups below this number are durable.
    durable: u64,
    /// The end of the last durable record.
    pub(super) durable_end: u64,
    /// The last written group holds writes, not only a mark.
    last_has_writes: bool,
    /// The last durable group holds writes, and no later group proves that it
    /// was durable.
    pub(super) unwitnessed: bool,
    in_flight: usize,
    /// The latest groups that were written: the number of each, and when its write
    /// began, at the place of its number modulo [`BEGUN_KEPT`].
    begun_ns: [(u64, u64); BEGUN_KEPT],
    /// Records of the group whose write was begun last.
    begun_records: u64,
    syncing: bool,
    /// What the owner was asked for.
    asked: Frontier,
    /// Of what it was asked to make durable, what it syncs for now: groups below
    /// this number. Later wishes wait until it is reached, and do not put it off.
    sync_asked: u64,
    waiting: Vec<Waiting>,
    last_waiting: u64,
}

struct Waiting {
    id: u64,
    goal: Goal,
    needs: Frontier,
    role: Role,
    waker: Waker,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// A record is visible, and by that acknowledged: the number is that of
    /// [`Appended`](super::Appended).
    Visible(u64),
    /// All records below this position are durable.
    Durable(u64),
}

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A thread, or a task that is never dropped: it may lead.
    Leader,
    /// A future that may be dropped: the owner leads for it.
    Follower,
}

/// What somebody who waits is told.
pub(crate) enum Turn<'a> {
    /// The goal is reached, or never will be, or not for certain.
    Over(Result<()>),
    /// Write this group (it may be an earlier one), then ask again.
    Lead(Lead<'a>),
    /// Sync, then ask again.
    Sync(SyncLead<'a>),
}

/// The duty to write a group. Dropping it undone poisons the stream.
pub(crate) struct Lead<'a> {
    stream: &'a Stream,
    number: u64,
    group: Option<Group>,
    harden: Harden,
}

/// The duty to sync the segments that hold what was written and is not
/// durable. Dropping it undone poisons the stream.
pub(crate) struct SyncLead<'a> {
    stream: &'a Stream,
    segments: Vec<Arc<Segment>>,
    covers: u64,
    covers_end: u64,
    done: bool,
}

impl Progress {
    pub(super) fn new(start: u64) -> Self {
        Self {
            written: 0,
            written_end: start,
            durable: 0,
            durable_end: start,
            last_has_writes: false,
            unwitnessed: false,
            in_flight: 0,
            begun_ns: [(0, 0); BEGUN_KEPT],
            begun_records: 0,
            syncing: false,
            asked: Frontier { written: 0, durable: 0 },
            sync_asked: 0,
            waiting: Vec::new(),
            last_waiting: 0,
        }
    }

    pub(super) fn frontier(&self) -> Frontier {
        Frontier { written: self.written, durable: self.durable }
    }

    /// Whether all that was written is durable.
    pub(super) fn all_durable(&self) -> bool {
        self.durable == self.written
    }

    /// Asks the owner to write, and to make durable, the groups below the
    /// numbers. Whether it was not asked for that yet.
    pub(super) fn ask(&mut self, written: u64, durable: u64) -> bool {
        let more = written > self.asked.written.max(self.written)
            || durable > self.asked.durable.max(self.durable);
        self.asked.written = self.asked.written.max(written);
        self.asked.durable = self.asked.durable.max(durable);
        self.renew_sync_asked();
        more
    }

    fn renew_sync_asked(&mut self) {
        if self.sync_asked <= self.durable {
            self.sync_asked = self.asked.durable;
        }
    }

    pub(super) fn take_waiting(&mut self) -> Vec<Waker> {
        self.waiting.drain(..).map(|waiting| waiting.waker).collect()
    }

    /// Whether nobody waits any more.
    #[cfg(all(test, feature = "shuttle"))]
    pub(super) fn is_forgotten(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the write of a group began, unless that is long ago.
    fn begun_ns(&self, group: u64) -> Option<u64> {
        let (number, ns) = self.begun_ns[group as usize % BEGUN_KEPT];
        (number == group).then_some(ns)
    }

    fn is_settled(&self) -> bool {
        self.in_flight == 0 && !self.syncing
    }

    /// Durable is all below this number, whose last record ends there.
    fn advance_durable(&mut self, durable: u64, end: u64) {
        if durable > self.durable {
            self.durable = durable;
            self.durable_end = end;
            self.renew_sync_asked();
            if self.all_durable() {
                self.unwitnessed = self.last_has_writes;
            }
        }
    }
}

impl State {
    /// Takes the next group that nobody writes yet, if it is below `below` and
    /// it is time.
    fn take_lead(&mut self, below: u64) -> Option<(u64, Group, Harden)> {
        let at = self.next_to_write()?;
        let number = self.progress.written + at as u64;
        if number >= below {
            return None;
        }
        // What it does not harden itself must be durable, or be on its way.
        let chained = planted(Bug::HardenedOverUnsynced)
            || self.progress.all_durable() && self.flights.range(..at).all(Flight::is_hardened);
        let asked = number < self.progress.asked.durable;
        let flight = &mut self.flights[at];
        let Flight::Queued(group) = flight else { unreachable!("next_to_write found it") };
        let hardened = chained && (asked || group.wants_durable);
        group.sealed = true;
        group.buf.seal();
        let flight = std::mem::replace(flight, Flight::Begun { hardened });
        let Flight::Queued(group) = flight else { unreachable!("it was queued just now") };
        self.progress.in_flight += 1;
        self.progress.begun_records = group.records;
        Some((number, group, if hardened { Harden::Now } else { Harden::Later }))
    }

    /// The next group that nobody writes, if it is time to write it.
    fn next_to_write(&self) -> Option<usize> {
        let progress = &self.progress;
        if progress.in_flight >= IN_FLIGHT_MAX || self.poisoned.is_some() {
            return None;
        }
        let mut flights = self.flights.iter().enumerate();
        flights
            .find_map(|(at, flight)| match flight {
                Flight::Queued(group) => Some((at, group)),
                _ => None,
            })
            .filter(|(_, group)| {
                let is_worth_it = group.records >= progress.begun_records;
                progress.in_flight == 0 || group.sealed || is_worth_it
            })
            .map(|(at, _)| at)
    }

    /// Takes the duty to sync, if that is what is missing to make the groups
    /// below `below` durable.
    fn take_sync(&mut self, below: u64) -> Option<(Vec<Arc<Segment>>, u64, u64)> {
        let progress = &mut self.progress;
        let wanted = progress.durable < below && below <= progress.written;
        if !wanted || progress.syncing || self.poisoned.is_some() {
            return None;
        }
        progress.syncing = true;
        let (from, to) = (progress.durable_end, progress.written_end);
        let holds = |segment: &&Arc<Segment>| segment.end() > from && segment.start < to;
        let segments = self.segments.iter().filter(holds).cloned().collect();
        Some((segments, progress.written, to))
    }

    /// Whether somebody who waits, or asked the owner, wants what could be begun
    /// now: then the wakers of those who are to begin it, and whether the owner
    /// is.
    #[must_use = "the owner is to be called"]
    fn call_leaders(&mut self, wake: &mut Vec<Waker>) -> bool {
        if self.poisoned.is_some() {
            return false;
        }
        let mut owner = false;
        let next = self.next_to_write().map(|at| self.progress.written + at as u64);
        let progress = &mut self.progress;
        if let Some(next) = next {
            let leads = |w: &Waiting| w.role == Role::Leader && w.needs.written > next;
            match progress.waiting.iter().position(leads) {
                Some(at) => wake.push(progress.waiting.swap_remove(at).waker),
                None => owner |= progress.asked.written > next,
            }
        }
        if !progress.syncing && !progress.all_durable() {
            let (durable, written) = (progress.durable, progress.written);
            let wants = |below: u64| durable < below && below <= written;
            let leads = |w: &Waiting| w.role == Role::Leader && wants(w.needs.durable);
            match progress.waiting.iter().position(leads) {
                Some(at) => wake.push(progress.waiting.swap_remove(at).waker),
                None => owner |= wants(progress.sync_asked),
            }
        }
        owner
    }

    /// Takes the wakers of those whose goal is reached.
    fn reached(&mut self, wake: &mut Vec<Waker>) {
        let (pending, progress) = (&self.pending, &mut self.progress);
        let durable_end = progress.durable_end;
        let mut at = 0;
        while at < progress.waiting.len() {
            let is_reached = match progress.waiting[at].goal {
                Goal::Visible(number) => pending.is_published(number),
                Goal::Durable(position) => position <= durable_end,
            };
            if is_reached {
                wake.push(progress.waiting.swap_remove(at).waker);
            } else {
                at += 1;
            }
        }
    }

    /// A group was written: the frontiers advance as far as the order allows.
    fn written(&mut self, number: u64, written: Written) {
        let at = (number - self.progress.written) as usize;
        assert!(matches!(self.flights[at], Flight::Begun { .. }), "a group is written once");
        self.flights[at] = Flight::Written(written);
        while let Some(Flight::Written(first)) = self.flights.front() {
            let (hardened, end, has_writes) = (first.hardened, first.end, first.records > 0);
            self.flights.pop_front();
            let progress = &mut self.progress;
            // A sync may be what makes the group durable, but nothing that
            // hardens itself comes behind what does not.
            let chained = progress.all_durable() || planted(Bug::HardenedOverUnsynced);
            assert!(chained || !hardened, "a group hardened itself over one that did not");
            progress.written += 1;
            progress.written_end = end;
            progress.last_has_writes = has_writes;
            if hardened {
                progress.advance_durable(progress.written, end);
            }
        }
    }
}

impl Stream {
    /// Waits for a goal; to be asked for turns again and again.
    pub(crate) fn wait(&self, goal: Goal, role: Role) -> Wait<'_> {
        Wait { stream: self, goal, role, id: None, all: None, group: None, begun_ns: None }
    }

    /// What the owner was asked to do, if it can be begun now.
    pub(crate) fn owner_turn(&self) -> Option<Turn<'_>> {
        let mut wake = Vec::new();
        let (turn, more) = {
            let mut state = self.state.lock();
            let (asked, sync_asked) = (state.progress.asked, state.progress.sync_asked);
            // First, or groups that keep coming would put it off for ever.
            let sync = self.sync_turn(&mut state, sync_asked);
            let turn =
                sync.or_else(|| self.lead_turn(&mut state, asked.written.max(asked.durable)))?;
            // Somebody else, or another task of the owner's, takes what is left.
            (turn, state.call_leaders(&mut wake))
        };
        for waker in wake {
            waker.wake();
        }
        if more {
            self.lead_work.set_one();
        }
        Some(turn)
    }

    /// Something to write, when a buffer is wanted and all are in use: the
    /// oldest group that nobody writes.
    pub(crate) fn help(&self) -> Option<Lead<'_>> {
        let mut state = self.state.lock();
        let (number, group, harden) = state.take_lead(u64::MAX)?;
        Some(Lead { stream: self, number, group: Some(group), harden })
    }

    /// Asks the owner to write what is queued: buffers are wanted.
    pub(crate) fn ask_for_room(&self) {
        let more = {
            let mut state = self.state.lock();
            let all = state.next_group();
            state.progress.ask(all, 0)
        };
        if more {
            self.lead_work.set_one();
        }
    }

    fn turn(&self, state: &mut State, needs: Frontier) -> Option<Turn<'_>> {
        let lead = self.lead_turn(state, needs.written.max(needs.durable));
        lead.or_else(|| self.sync_turn(state, needs.durable))
    }

    fn lead_turn(&self, state: &mut State, below: u64) -> Option<Turn<'_>> {
        let (number, group, harden) = state.take_lead(below)?;
        Some(Turn::Lead(Lead { stream: self, number, group: Some(group), harden }))
    }

    fn sync_turn(&self, state: &mut State, below: u64) -> Option<Turn<'_>> {
        let (segments, covers, covers_end) = state.take_sync(below)?;
        Some(Turn::Sync(SyncLead { stream: self, segments, covers, covers_end, done: false }))
    }

    /// Ready when nothing of the stream is in flight any more.
    pub(crate) fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.progress.is_settled() {
            return Poll::Ready(());
        }
        // Whoever completes wakes those that wait for a goal they never reach.
        let (goal, role) = (Goal::Durable(u64::MAX), Role::Follower);
        let needs = Frontier { written: 0, durable: 0 };
        state.progress.last_waiting += 1;
        let id = state.progress.last_waiting;
        state.progress.waiting.push(Waiting { id, goal, needs, role, waker: cx.waker().clone() });
        Poll::Pending
    }

    /// A group's write or a sync ended well: calls the next leader, and takes
    /// what can be published now.
    fn completed(&self, complete: impl FnOnce(&mut State)) -> Option<Publication> {
        let (mut wake, mut reached) = (Vec::new(), Vec::new());
        let (publication, owner, room) = {
            let mut state = self.state.lock();
            complete(&mut state);
            // First, for whoever has reached its goal leads no more.
            state.reached(&mut reached);
            let owner = state.call_leaders(&mut wake);
            wake.append(&mut reached);
            if state.progress.is_settled() && state.is_closed() {
                wake.append(&mut state.progress.take_waiting());
            }
            let mut frontier = state.progress.frontier();
            if planted(Bug::GroupsOutOfOrder) {
                let is_written = |flight: &&Flight| matches!(flight, Flight::Written(_));
                frontier.written += state.flights.iter().filter(is_written).count() as u64;
                frontier.durable = frontier.written;
            }
            let publication = state.pending.take_ready(frontier);
            (publication, owner, state.new_room())
        };
        // The next leader first: the device waits for it.
        for waker in wake {
            waker.wake();
        }
        room.wake();
        if owner {
            self.lead_work.set_one();
        }
        publication
    }

    /// The publication was carried out. Returns the next one, if more became
    /// ready meanwhile.
    pub(crate) fn published(&self, publication: Publication) -> Option<Publication> {
        let mut wake = Vec::new();
        let next = {
            let mut state = self.state.lock();
            let end = state.pending.published(publication);
            state.buffers.acknowledge(end);
            state.reached(&mut wake);
            let frontier = state.progress.frontier();
            state.pending.take_ready(frontier)
        };
        for waker in wake {
            waker.wake();
        }
        next
    }

    /// A lead ended without its group being written.
    fn ended(&self, cause: Error, end: impl FnOnce(&mut State)) {
        let is_first = {
            let mut state = self.state.lock_though_broken();
            // At once: nobody may begin again what has failed.
            let is_first = state.poison(&cause);
            end(&mut state);
            is_first
        };
        self.tell_poisoned(&cause, is_first);
    }
}

/// Somebody waits. Dropping it leaves nothing behind.
pub(crate) struct Wait<'a> {
    stream: &'a Stream,
    goal: Goal,
    role: Role,
    id: Option<u64>,
    /// The groups there were when a position's durability was first asked for.
    all: Option<u64>,
    /// The last group that the goal needs, as long as that was not reached.
    group: Option<u64>,
    begun_ns: Option<u64>,
}

impl<'a> Wait<'a> {
    /// When the last group that it waited for began to be written, once the wait is
    /// over; `None` if there was nothing to wait for, or much was written since.
    pub(crate) fn begun_ns(&self) -> Option<u64> {
        self.begun_ns
    }

    /// The next turn.
    pub(crate) async fn turn(&mut self) -> Turn<'a> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Turn<'a>> {
        let stream = self.stream;
        let mut asked = false;
        // Dropped with no lock held: a waker may be all that is left of a task
        // whose other futures wait here, too.
        let mut _replaced = None;
        {
            let mut state = stream.state.lock();
            let state = &mut *state;
            let (is_reached, needs) = match self.goal {
                Goal::Visible(number) => {
                    (state.pending.is_published(number), state.pending.needs(number))
                }
                Goal::Durable(position) => {
                    // What was appended later is none of its business.
                    let all = *self.all.get_or_insert(state.next_group());
                    let needs = Frontier { written: all, durable: all };
                    (position <= state.progress.durable_end, needs)
                }
            };
            if is_reached {
                self.begun_ns = self.group.and_then(|group| state.progress.begun_ns(group));
                return Poll::Ready(Turn::Over(Ok(())));
            }
            // Nothing, while what it waits for is being published.
            if let Some(last) = needs.written.max(needs.durable).checked_sub(1) {
                self.group = Some(last);
            }
            if let Some(cause) = &state.poisoned {
                return Poll::Ready(Turn::Over(Err(Error::poisoned(cause))));
            }
            match self.role {
                Role::Leader => {
                    if let Some(turn) = stream.turn(state, needs) {
                        return Poll::Ready(turn);
                    }
                }
                Role::Follower => {
                    asked = state.progress.ask(needs.written, needs.durable)
                        || state.next_to_write().is_some();
                }
            }
            let waiting = &mut state.progress.waiting;
            let known = self.id.and_then(|id| waiting.iter_mut().find(|w| w.id == id));
            match known {
                Some(known) => {
                    known.needs = needs;
                    if !known.waker.will_wake(cx.waker()) {
                        _replaced = Some(std::mem::replace(&mut known.waker, cx.waker().clone()));
                    }
                }
                None => {
                    state.progress.last_waiting += 1;
                    let id = state.progress.last_waiting;
                    let waker = cx.waker().clone();
                    let (goal, role) = (self.goal, self.role);
                    state.progress.waiting.push(Waiting { id, goal, needs, role, waker });
                    self.id = Some(id);
                }
            }
        }
        if asked {
            stream.lead_work.set_one();
        }
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let removed = {
            let mut state = self.stream.state.lock_though_broken();
            let waiting = &mut state.progress.waiting;
            let at = waiting.iter().position(|waiting| waiting.id == id);
            at.map(|at| waiting.swap_remove(at))
        };
        // With no lock held: its waker may be the last hand on a task.
        drop(removed);
    }
}

impl Lead<'_> {
    /// Writes the group, and ends the lead. Returns what is to be published.
    pub(crate) async fn write<I: Io>(mut self, io: &I) -> Option<Publication> {
        let group = self.group.as_mut().expect("a lead has its group");
        let begun_ns = io.now_ns();
        let written = if poll_fn(|cx| group.buf.poll_filled(cx)).await {
            if planted(Bug::MappedBufferReusedEarly) && group.buf.is_mapped() {
                self.stream.state.lock().buffers.give_back_early(&mut group.buf);
            }
            let offset = group.segment.offset(group.position);
            let buf = WriteBuf::Group(Arc::clone(&group.buf), group.written_bytes());
            io.write(&group.segment.file, offset, buf, self.harden).await.1
        } else {
            Err(Error::new(ErrorKind::Poisoned, "a thread panicked while it wrote a log record"))
        };
        let group = self.group.take().expect("a lead ends once");
        let number = self.number;
        let hardened = self.harden == Harden::Now;
        if let Err(error) = written {
            // The buffer may be all that is left of what was acknowledged.
            self.stream.ended(error, |state| {
                state.progress.in_flight -= 1;
                state.flights[(number - state.progress.written) as usize] = Flight::Queued(group);
            });
            return None;
        }
        self.stream.completed(|state| {
            state.progress.in_flight -= 1;
            state.progress.begun_ns[number as usize % BEGUN_KEPT] = (number, begun_ns);
            let counts = &mut state.counts;
            counts.groups += 1;
            counts.durable_groups += u64::from(hardened);
            counts.records += group.records;
            counts.marks += u64::from(group.records == 0);
            counts.record_bytes += group.bytes() as u64;
            counts.written_bytes += group.written_bytes() as u64;
            let (end, records) = (group.end(), group.records);
            state.written(number, Written { hardened, end, records });
            state.buffers.give_back(group.buf);
        })
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            let number = self.number;
            let cause = Error::new(ErrorKind::Poisoned, "a thread panicked while it wrote the log");
            self.stream.ended(cause, |state| {
                state.progress.in_flight -= 1;
                state.flights[(number - state.progress.written) as usize] = Flight::Queued(group);
            });
        }
    }
}

impl SyncLead<'_> {
    /// Syncs, and ends the lead. Returns what is to be published.
    pub(crate) async fn sync<I: Io>(mut self, io: &I) -> Option<Publication> {
        let mut result = Ok(());
        for segment in &self.segments {
            result = io.sync(&segment.file).await;
            if result.is_err() && planted(Bug::SyncRetried) {
                result = io.sync(&segment.file).await;
            }
            if result.is_err() {
                break;
            }
        }
        self.done = true;
        if let Err(error) = result {
            self.stream.ended(error, |state| state.progress.syncing = false);
            return None;
        }
        let (covers, end) = (self.covers, self.covers_end);
        self.stream.completed(|state| {
            state.progress.syncing = false;
            state.counts.syncs += 1;
            state.progress.advance_durable(covers, end);
        })
    }
}

impl Drop for SyncLead<'_> {
    fn drop(&mut self) {
        if !self.done {
            let cause =
                Error::new(ErrorKind::Poisoned, "a thread panicked while it synced the log");
            self.stream.ended(cause, |state| state.progress.syncing = false);
        }
    }
}
