//! What an owner does in the background: it keeps its stream in segments,
//! frees log that is not needed, marks idle streams, and flushes memtables.
//!
//! The jobs run on the owner's thread. What a flush has to compute and write
//! does not have to: it is background work, which the owner leaves to its worker
//! as long as flushes keep up with the writers.

use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::ids::ShardId;
use crate::base::seq::SeqNo;
use crate::base::sync::atomic::Ordering;
use crate::format::edit::{Edit, MapPlace};
use crate::format::record::{RecordKind, seal};
use crate::io::Io;
use crate::lsm::{Frozen, TablePlace, View, write_table};
use crate::manifest::Manifest;
use crate::runtime::{Background, Running, first_of};
use crate::shard::engine::{Engine, Owner, Root, StreamState, root_snapshot, shard_snapshot};
use crate::shard::state::State;
use crate::wal::{
    Append, Appended, Calls, Goal, Map, NoRoom, Role, Segment, create_map, discard, map_path,
};

/// How soon a memtable with writes in flight is looked at again.
const IN_FLIGHT_NS: u64 = 1_000_000;

/// What is recalled from a worker takes at most so long to come back, or the
/// worker is starved. Usually it is some tens of microseconds.
const RECALL_NS: u64 = 5_000_000;

/// Free segments that wait to be used again.
const FREE_SEGMENTS_MAX: usize = 2;

/// What an owner does. Each job ends soon after [`Owner::stop`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Job {
    /// Keeps the stream in segments, and marks it when it falls idle.
    Log,
    /// Sees to it that the stream is durable in time.
    Sync,
    /// Flushes memtables.
    Flush,
    /// Writes groups of the stream, and syncs it, for those who do not do it
    /// themselves.
    Lead,
}

impl Job {
    /// The jobs of one owner: with two that lead, one syncs while the other
    /// writes.
    pub(crate) const ALL: [Self; 5] = [Self::Log, Self::Sync, Self::Flush, Self::Lead, Self::Lead];

    /// For reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Sync => "sync",
            Self::Flush => "flush",
            Self::Lead => "lead",
        }
    }

    /// Does the job of an owner.
    pub(crate) async fn run<I: Io>(
        self,
        engine: Arc<Engine>,
        owner: usize,
        io: I,
        background: Background,
    ) {
        match self {
            Self::Log => engine.log_job(owner, &io, &background).await,
            Self::Sync => engine.sync_job(owner, &io).await,
            Self::Flush => engine.flush_job(owner, &io, &background).await,
            Self::Lead => engine.lead_job(owner, &io).await,
        }
    }
}

impl Owner {
    /// Ends the owner's jobs.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.flush_work.set();
        self.stream.work.set();
        self.stream.sync_work.set();
        self.stream.lead_work.set_one();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

impl Engine {
    async fn log_job<I: Io>(&self, number: usize, io: &I, background: &Background) {
        // For whole files: what is written ahead of the writers.
        let ahead = &background.budgeted(io);
        let owner = &self.owners[number];
        let stream = &owner.stream;
        let mut free: Vec<Arc<Segment>> = Vec::new();
        let mut idle = Idle { end: stream.end(), since_ns: io.now_ns() };
        let mut map_after_ns = 0;
        while !owner.is_stopping() {
            let mut failed = false;
            if let Some((start, last_bytes)) = stream.wanted_spare() {
                let made = match free.pop() {
                    Some(segment) => owner.maker.recycle(io, &segment, start).await,
                    None => {
                        let id = self.new_file_id();
                        owner.maker.create(ahead, id, start, Some(last_bytes)).await
                    }
                };
                failed = made.is_err();
                stream.provide_spare(made);
            }
            match self.free_log(number, io, &mut free).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "log that is not needed could not be freed");
                    failed = true;
                }
            }
            self.bound_log(number);
            let idle_ns = idle.for_ns(stream.end(), io.now_ns());
            let now_ns = io.now_ns();
            let look = stream.look();
            if look.wants_map && now_ns >= map_after_ns {
                match self.make_map(owner, io, ahead).await {
                    Ok(map) => stream.provide_map(map),
                    Err(error) => {
                        if map_after_ns == 0 {
                            tracing::warn!(
                                %error,
                                "no mapping of the log for now: writes that are not durable are \
                                 acknowledged when they are written"
                            );
                        }
                        map_after_ns = now_ns + self.limits.retry_ns;
                    }
                }
                continue;
            }
            if failed {
                first_of(stream.work.wait(), io.sleep(self.limits.retry_ns)).await;
            } else if look.is_idle {
                stream.work.wait().await;
            } else if idle_ns >= self.limits.idle_ns && look.wants_mark {
                if let Err(error) = self.write_mark(number, io, Spare::FromOwner).await {
                    // The stream is poisoned now, and said so.
                    tracing::debug!(%error, "no mark was written");
                }
            } else {
                // At the limit, a group is on its way for this long.
                let rest_ns = match self.limits.idle_ns.saturating_sub(idle_ns) {
                    0 => self.limits.idle_ns,
                    rest_ns => rest_ns,
                };
                first_of(stream.work.wait(), io.sleep(rest_ns)).await;
            }
        }
    }

    /// Has the log synced when what was acknowledged must be durable. On its
    /// own: making a segment takes longer than some have time.
    async fn sync_job<I: Io>(&self, number: usize, io: &I) {
        let owner = &self.owners[number];
        let stream = &owner.stream;
        while !owner.is_stopping() {
            let now_ns = io.now_ns();
            match stream.ask_for_due_sync(now_ns, self.limits.idle_ns) {
                Some(until_ns) => {
                    let rest_ns = until_ns.saturating_sub(now_ns).max(1);
                    first_of(stream.sync_work.wait(), io.sleep(rest_ns)).await;
                }
                None => stream.sync_work.wait().await,
            }
        }
    }

    /// Makes the mapping of an owner's stream: first the file, then durably
    /// where it is, and only then is it used.
    async fn make_map<I: Io>(&self, owner: &Owner, io: &I, ahead: &impl Io) -> Result<Map> {
        let dir = self.map_dir.clone();
        let place = MapPlace { id: self.new_file_id(), boot: io.boot_id()?, dir };
        let made = create_map(ahead, &owner.maker, &place, self.limits.map).await;
        let path = map_path(&owner.maker.dir, self.db, &place);
        let map = match made {
            Ok(map) => map,
            Err(error) => {
                discard(io, &path).await;
                return Err(error);
            }
        };
        let stream = owner.stream.key;
        let mut root = self.root.lock().await;
        *owner.map.lock() = Some(place.clone());
        let edit = Edit::StreamMap { stream, map: place };
        if let Err(error) = self.append_root(&mut root, io, &[edit]).await {
            *owner.map.lock() = None;
            if root.manifest.poisoned().is_none() {
                discard(io, &path).await;
            }
            return Err(error);
        }
        Ok(map)
    }

    /// Leads for those who asked the owner to.
    async fn lead_job<I: Io>(&self, number: usize, io: &I) {
        let owner = &self.owners[number];
        while !owner.is_stopping() {
            match owner.stream.owner_turn() {
                Some(turn) => self.lead(io, &owner.stream, turn).await,
                None => owner.stream.lead_work.wait().await,
            }
        }
        // The flag is taken down by one: the others must end, too.
        owner.stream.lead_work.set_one();
    }

    /// Writes a record whose durable mark covers all before it.
    async fn write_mark<I: Io>(&self, number: usize, io: &I, spare: Spare) -> Result<()> {
        let owner = &self.owners[number];
        let stream = &owner.stream;
        let (kind, durability) = (RecordKind::Mark, Durability::Durable);
        let append = Append { kind, sections: 0, payload_bytes: 0, durability };
        let appended = loop {
            let fill = Some(|record: &mut [u8], seed, header: &_| seal(record, seed, header));
            let mut calls = Calls::default();
            let appended =
                stream.append(&append, std::iter::empty(), fill, || io.now_ns(), &mut calls);
            stream.call_owner(&calls);
            match appended {
                Ok(appended) => break appended,
                Err(NoRoom::Wait(seen)) => match stream.wanted_spare() {
                    Some((start, _)) if spare == Spare::Own => {
                        let made = owner.maker.create(io, self.new_file_id(), start, None).await;
                        stream.provide_spare(made);
                    }
                    // Somebody writes after all. The log job must not wait for
                    // a segment: it is the one to make it.
                    _ if spare == Spare::FromOwner => return Ok(()),
                    _ => self.log_room(io, number, seen, Role::Leader).await,
                },
                Err(NoRoom::Failed(error)) => return Err(error),
            }
        };
        match appended {
            Appended::Waits(_, mark) => {
                self.reach(io, number, Goal::Visible(mark), Role::Leader).await
            }
            _ => unreachable!("a durable record that is filled waits for its group"),
        }
    }

    /// Frees the segments that every shard has flushed past: durably records
    /// where the stream starts now, and then lets go of what is below.
    async fn free_log<I: Io>(
        &self,
        number: usize,
        io: &I,
        free: &mut Vec<Arc<Segment>>,
    ) -> Result<()> {
        let owner = &self.owners[number];
        let keep = self.log_needed_from(owner);
        let below = owner.stream.below(keep);
        if let Some(last) = below.last() {
            let edit = Edit::StreamStart {
                stream: owner.stream.key,
                start: last.end(),
                flushed: self.flushed(owner),
            };
            let mut root = self.root.lock().await;
            self.append_root(&mut root, io, &[edit]).await?;
            // Within the turn: a root manifest made anew says where the
            // stream's first segment starts.
            owner.stream.drop_oldest(below.len());
        }
        for segment in below {
            if owner.maker.is_full_size(&segment) && free.len() < FREE_SEGMENTS_MAX {
                free.push(segment);
            } else {
                discard(io, segment.file.path()).await;
            }
        }
        self.free_old_streams(io).await
    }

    /// Deletes the segments of earlier openings once all they hold is in
    /// tables.
    async fn free_old_streams<I: Io>(&self, io: &I) -> Result<()> {
        let mut root = self.root.lock().await;
        while let Some(at) = root.old_streams.iter().position(|old| {
            old.needed.iter().all(|(shard, seq)| self.shard(*shard).lock().flushed_seq() >= *seq)
        }) {
            let edit = Edit::StreamFreed { stream: root.old_streams[at].key };
            self.append_root(&mut root, io, &[edit]).await?;
            for path in root.old_streams.swap_remove(at).paths {
                discard(io, &path).await;
            }
        }
        Ok(())
    }

    async fn append_root<I: Io>(&self, root: &mut Root, io: &I, edits: &[Edit]) -> Result<()> {
        if root.manifest.wants_rewrite() {
            let (id, snapshot) = (self.new_file_id(), self.root_snapshot(root));
            let replaced = root.manifest.replace(io, &self.dir, self.db, id, &snapshot).await;
            if let Err(error) = replaced {
                tracing::warn!(%error, "the root manifest could not be made anew");
            }
        }
        let appended = root.manifest.append(io, edits).await;
        if let Some(cause) = root.manifest.poisoned() {
            for owner in &self.owners {
                owner.stream.poison(cause.clone());
            }
        }
        appended
    }

    /// What a root manifest made anew starts with.
    fn root_snapshot(&self, root: &Root) -> Vec<Edit> {
        let old = root.old_streams.iter().map(|old| StreamState {
            key: old.key,
            start: old.start,
            cut: old.cut,
            map: old.map.clone(),
        });
        let mut edits = root_snapshot(old);
        for owner in &self.owners {
            let (stream, start) = (owner.stream.key, owner.stream.start());
            edits.push(Edit::StreamStart { stream, start, flushed: self.flushed(owner) });
            let map = owner.map.lock().clone();
            edits.extend(map.map(|map| Edit::StreamMap { stream, map }));
        }
        edits
    }

    /// The stream position below which every record is in a table.
    fn log_needed_from(&self, owner: &Owner) -> u64 {
        // Read first: what is reserved later lies behind it.
        let end = owner.stream.end();
        let needed =
            owner.shards.iter().filter_map(|&shard| self.shard(shard).lock().log_needed_from());
        needed.min().unwrap_or(end).min(end)
    }

    /// For each shard of the owner, the number up to which writes are in
    /// tables.
    fn flushed(&self, owner: &Owner) -> Vec<(ShardId, SeqNo)> {
        owner.shards.iter().map(|&id| (id, self.shard(id).lock().flushed_seq())).collect()
    }

    /// When the stream keeps more log than allowed: makes the memtable that
    /// needs the oldest record immutable, so that it is flushed.
    fn bound_log(&self, number: usize) {
        let owner = &self.owners[number];
        if owner.stream.segment_counts().1 <= self.limits.wal_bytes_max {
            return;
        }
        let oldest = owner
            .shards
            .iter()
            .filter_map(|&id| Some((self.shard(id).lock().log_needed_from()?, id)))
            .min();
        let Some((position, id)) = oldest else { return };
        let mut state = self.shard(id).lock();
        let is_oldest = state.log_start == Some(position);
        if is_oldest && state.inserting == 0 && state.view.frozen.len() < self.limits.frozen_max {
            state.rotate(&self.arenas);
            drop(state);
            owner.flush_work.set();
        }
    }

    async fn flush_job<I: Io>(&self, number: usize, io: &I, background: &Background) {
        let owner = &self.owners[number];
        while !owner.is_stopping() {
            match self.flush_round(owner, io, background).await {
                Round::Done => {}
                Round::Idle => owner.flush_work.wait().await,
                Round::InFlight => {
                    first_of(owner.flush_work.wait(), io.sleep(IN_FLIGHT_NS)).await;
                }
                Round::Failed => {
                    first_of(owner.flush_work.wait(), io.sleep(self.limits.retry_ns)).await;
                }
            }
        }
    }

    /// Flushes one memtable of each shard that has one to flush.
    async fn flush_round<I: Io>(&self, owner: &Owner, io: &I, background: &Background) -> Round {
        let mut round = Round::Idle;
        for (&shard, manifest) in owner.shards.iter().zip(&owner.manifests) {
            let Some(oldest) = self.shard(shard).lock().view.frozen.last().cloned() else {
                continue;
            };
            // No table holds what the log may lose: else a batch would be there
            // in part, and a number given twice.
            let number = self.owner_of(shard);
            let goal = Goal::Durable(oldest.log_end);
            if self.reach(io, number, goal, Role::Leader).await.is_err() {
                // It will never be visible: who waits must know.
                self.shard(shard).wake_stalled();
                continue;
            }
            if !is_visible(&oldest, &self.shard(shard).lock()) {
                round = round.max(Round::InFlight);
                continue;
            }
            let mut manifest = manifest.lock().await;
            let flushed = self.flush(owner, shard, &oldest, &mut manifest, io, background).await;
            round = round.max(match &flushed {
                Ok(()) => Round::Done,
                Err(_) => Round::Failed,
            });
            if let Err(error) = flushed {
                tracing::warn!(%error, shard, "a flush failed and will be tried again");
                self.shard(shard).lock().flush_error = Some(error);
            }
            // The memtable itself is freed here: on the owner, without any lock.
            drop(oldest);
            self.shard(shard).wake_stalled();
            owner.stream.work.set();
        }
        round
    }

    /// Makes a table of the shard's oldest immutable memtable.
    async fn flush<I: Io>(
        &self,
        owner: &Owner,
        shard: ShardId,
        oldest: &Arc<Frozen>,
        manifest: &mut Manifest,
        io: &I,
        background: &Background,
    ) -> Result<()> {
        if let Some(cause) = manifest.poisoned() {
            return Err(Error::poisoned(cause));
        }
        let retain = self.shard(shard).lock().published.retain(&self.clock);
        let begin = || {
            let place = TablePlace {
                dir: self.shard_dir(shard),
                db: self.db,
                shard,
                id: self.new_file_id(),
                pool: Arc::clone(&owner.maker.pool),
            };
            let path = place.path();
            let (frozen, hasher) = (Arc::clone(oldest), self.hasher.clone());
            let retain = retain.clone();
            let work = background.run("flush", |io| async move {
                let table = write_table(&io, &frozen.memtable, &retain, &hasher, &place).await;
                // The worker must not be the one to free the memtable.
                Ok((table, frozen))
            });
            (path, work)
        };
        let (path, written) = self.as_fast_as_needed(owner, background, io, begin).await;
        let table = match written.and_then(|(table, _)| table) {
            Ok(table) => Arc::new(table),
            Err(error) => {
                discard(io, &path).await;
                return Err(error);
            }
        };
        let (_, seq) = oldest.memtable.seq_range().expect("an empty memtable is not rotated");
        let edits = [Edit::Table { level: 0, meta: table.meta().clone() }, Edit::Flushed { seq }];
        if let Err(error) = manifest.append(io, &edits).await {
            match manifest.poisoned() {
                // The manifest may name the table: it stays.
                Some(cause) => owner.stream.poison(cause.clone()),
                None => discard(io, &path).await,
            }
            return Err(error);
        }
        let before: Arc<View> = {
            let mut state = self.shard(shard).lock();
            let view = Arc::new(state.view.flushed(oldest, table));
            state.flush_error = None;
            state.counts.flushes += 1;
            std::mem::replace(&mut state.view, view)
        };
        drop(before);
        if manifest.wants_rewrite() {
            let view = Arc::clone(&self.shard(shard).lock().view);
            let snapshot = shard_snapshot(&view.tables, seq);
            let (dir, id) = (self.shard_dir(shard), self.new_file_id());
            let replaced = manifest.replace(io, &dir, self.db, id, &snapshot).await;
            if let Err(error) = replaced {
                if let Some(cause) = manifest.poisoned() {
                    owner.stream.poison(cause.clone());
                }
                // The memtable is in its table; the next flush tries again.
                tracing::warn!(%error, shard, "a manifest could not be made anew");
            }
        }
        Ok(())
    }

    /// Begins background work of a flush and waits for it: the path of its file,
    /// and what came of it. While flushes do not keep up, the owner does it; and
    /// begins it anew, with another file, when a starved worker does not let go
    /// of the first.
    pub(super) async fn as_fast_as_needed<T, I: Io>(
        &self,
        owner: &Owner,
        background: &Background,
        io: &I,
        begin: impl Fn() -> (PathBuf, Running<T>),
    ) -> (PathBuf, Result<T>) {
        let mut attempts = vec![begin()];
        let mut has_looked_again = false;
        let (at, output) = loop {
            let is_behind = self.is_behind(owner);
            background.set_debt(is_behind);
            let mut changed = pin!(owner.flush_work.wait());
            let is_recalled = is_behind && attempts.len() == 1 && attempts[0].1.is_away();
            let mut patience = pin!(is_recalled.then(|| io.sleep(RECALL_NS)));
            let happened = poll_fn(|cx| {
                for (at, (_, attempt)) in attempts.iter_mut().enumerate() {
                    if let Poll::Ready(output) = Pin::new(attempt).poll(cx) {
                        return Poll::Ready(Happened::Ended(at, output));
                    }
                }
                if let Some(patience) = patience.as_mut().as_pin_mut()
                    && patience.poll(cx).is_ready()
                {
                    return Poll::Ready(Happened::NotLetGo);
                }
                changed.as_mut().poll(cx).map(|()| Happened::Changed)
            });
            match happened.await {
                Happened::Ended(at, output) => break (at, output),
                Happened::Changed => has_looked_again = true,
                Happened::NotLetGo if attempts[0].1.is_away() => attempts.push(begin()),
                Happened::NotLetGo => {}
            }
        };
        if has_looked_again {
            // What the flag stood for is still to be looked at.
            owner.flush_work.set();
        }
        let (path, _) = attempts.swap_remove(at);
        for (path, attempt) in attempts {
            drop(attempt);
            discard(io, &path).await;
        }
        (path, output)
    }

    /// Whether somebody waits for a flush, or will once one more memtable is
    /// full.
    fn is_behind(&self, owner: &Owner) -> bool {
        let is_shard_behind = |&id: &ShardId| {
            let state = self.shard(id).lock();
            state.view.frozen.len() >= self.limits.frozen_max
                || state.flushed_seq() < state.flush_wanted
        };
        owner.is_stopping() || owner.shards.iter().any(is_shard_behind)
    }

    /// Returns when every write that was acknowledged before the call is in a
    /// table.
    pub(crate) async fn flush_all(&self) -> Result<()> {
        let mut targets = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let mut state = shard.lock();
            // What failed before may succeed now, unless nobody tries any more.
            if self.owners[self.owner_of(shard.id)].stream.poisoned().is_none() {
                state.flush_error = None;
            }
            state.flush_wanted = state.next_seq - 1;
            targets.push((shard, state.flush_wanted));
        }
        for (shard, target) in targets {
            let owner = &self.owners[self.owner_of(shard.id)];
            loop {
                let seen = {
                    let mut state = shard.lock();
                    if state.flushed_seq() >= target {
                        break;
                    }
                    if state.closed {
                        return Err(Error::closed());
                    }
                    let mutable = state.mutable.seq_range();
                    if mutable.is_some_and(|(first, _)| first <= target)
                        && state.inserting == 0
                        && state.view.frozen.len() < self.limits.frozen_max
                    {
                        state.rotate(&self.arenas);
                    }
                    if let Some(cause) = owner.stream.poisoned() {
                        return Err(Error::poisoned(&cause));
                    }
                    if let Some(error) = &state.flush_error {
                        return Err(error.clone());
                    }
                    state.room_number()
                };
                owner.flush_work.set();
                shard.room(seen).await;
            }
        }
        Ok(())
    }

    /// Leaves witnesses: so that the next opening can tell, of every record,
    /// that it was durable. Nothing else is written any more, and no mapping is
    /// needed.
    pub(crate) async fn finish<I: Io>(&self, io: &I) -> Result<()> {
        let finished = self.leave_witnesses(io).await;
        // Also after a failure: once the lock is gone, the next opening cuts
        // the log, and a write that came in later would be acknowledged and
        // lost. So nobody begins one any more, and who waits for that is told.
        if let Err(cause) = &finished {
            for owner in &self.owners {
                owner.stream.poison(cause.clone());
            }
        }
        for owner in &self.owners {
            poll_fn(|cx| owner.stream.poll_settled(cx)).await;
        }
        finished?;
        // All they hold is durable in segments now, and the root manifest says
        // so: on tmpfs they would take memory for as long as nobody opens.
        for owner in &self.owners {
            let place = owner.map.lock().clone();
            if let Some(place) = place {
                discard(io, &map_path(&owner.maker.dir, self.db, &place)).await;
            }
        }
        Ok(())
    }

    async fn leave_witnesses<I: Io>(&self, io: &I) -> Result<()> {
        let mut left = Ok(());
        for number in 0..self.owners.len() {
            // Also when it failed for another one: each has writes of its own.
            left = left.and(self.leave_witness(io, number).await);
        }
        left?;
        let mut root = self.root.lock().await;
        root.manifest.append(io, &[Edit::Clean]).await?;
        root.manifest.witness(io).await
    }

    async fn leave_witness<I: Io>(&self, io: &I, number: usize) -> Result<()> {
        let owner = &self.owners[number];
        // Before the mark, for which there may be no room.
        let all = Goal::Durable(owner.stream.end());
        self.reach(io, number, all, Role::Leader).await?;
        self.write_mark(number, io, Spare::Own).await?;
        for manifest in &owner.manifests {
            manifest.lock().await.witness(io).await?;
        }
        Ok(())
    }
}

/// What a flush waits for.
enum Happened<T> {
    /// An attempt ended.
    Ended(usize, Result<T>),
    /// There may be more to flush, or less hurry.
    Changed,
    /// The work should have come back by now.
    NotLetGo,
}

/// Since when a stream has ended at the same position.
struct Idle {
    end: u64,
    since_ns: u64,
}

impl Idle {
    /// How long, now that it ends at `end`.
    fn for_ns(&mut self, end: u64, now_ns: u64) -> u64 {
        if end != self.end {
            *self = Self { end, since_ns: now_ns };
        }
        now_ns.saturating_sub(self.since_ns)
    }
}

/// Where a mark gets a segment from when the stream needs a new one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spare {
    /// The owner's log job makes it.
    FromOwner,
    /// There is no log job any more.
    Own,
}

/// What a round of flushes came to; the greatest of its shards counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Round {
    /// There is nothing to flush.
    Idle,
    /// There is, but it has writes in flight.
    InFlight,
    /// Some was flushed; look again.
    Done,
    Failed,
}

/// Whether every write in the memtable is visible.
fn is_visible(frozen: &Frozen, state: &State) -> bool {
    let last = frozen.memtable.seq_range().map_or(0, |(_, last)| last);
    last <= state.published.visible()
}
