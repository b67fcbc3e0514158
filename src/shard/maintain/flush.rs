//! Flushing: from immutable memtables to tables.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use crate::base::error::{Error, Result};
use crate::base::ids::ShardId;
use crate::base::planted::{Bug, planted};
use crate::base::sync::atomic::Ordering;
use crate::format::edit::Edit;
use crate::io::Io;
use crate::lsm::{Frozen, TablePlace, View, write_table};
use crate::manifest::Manifest;
use crate::runtime::{Background, Running, first_of};
use crate::shard::engine::{Engine, Owner};
use crate::shard::maintain::compact::discard_all;
use crate::shard::state::State;
use crate::wal::{Goal, Role};

/// How soon a memtable with writes in flight is looked at again.
const IN_FLIGHT_NS: u64 = 1_000_000;

/// What is recalled from a worker takes at most so long to come back, or the
/// worker is starved. Usually it is some tens of microseconds.
const RECALL_NS: u64 = 5_000_000;

/// How often it is looked whether the worker gets on with a flush.
const LOOK_NS: u64 = 100_000_000;

impl Engine {
    pub(super) async fn flush_job<I: Io>(&self, number: usize, io: &I, background: &Background) {
        let owner = &self.owners[number];
        while !owner.is_stopping() {
            owner.tell_full(self);
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
            if !planted(Bug::FlushedBeforeLog)
                && self.reach(io, number, goal, Role::Leader).await.is_err()
            {
                // It will never be visible: who waits must know.
                self.shard(shard).wake_stalled();
                continue;
            }
            if !planted(Bug::FlushedBeforeLog) && !is_visible(&oldest, &self.shard(shard).lock()) {
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
                self.note_failure(&error);
                tracing::warn!(%error, shard, "a flush failed and will be tried again");
                self.shard(shard).lock().flush_error = Some(error);
            }
            // The memtable itself is freed here: on the owner, without any lock.
            drop(oldest);
            if !planted(Bug::StalledForgotten) {
                self.shard(shard).wake_stalled();
            }
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
        let (retain, view) = {
            let state = self.shard(shard).lock();
            (state.published.retain(&self.clock), Arc::clone(&state.view))
        };
        let began_ns = io.now_ns();
        let bytes = oldest.memtable.used_bytes() as u64;
        tracing::info!(shard, bytes_in = bytes, "a flush begins");
        let begin = || {
            let dir = self.shard_dir(shard);
            let place = TablePlace {
                spares: owner.retired.lend(&dir, std::iter::once(bytes)).into(),
                dir,
                db: self.db,
                shard,
                ids: self.new_file_ids(1),
                pool: Arc::clone(&owner.maker.pool),
                compression: self.limits.hierarchy.compression[0],
                table_bytes: u64::MAX,
                pins: Arc::clone(&self.pins),
            };
            let to = place.clone();
            let (frozen, hasher) = (Arc::clone(oldest), self.hasher.clone());
            let (retain, older) = (retain.clone(), view.levels.older_than_memtables());
            let work = background.run("flush", |io| async move {
                let made = write_table(&io, &frozen.memtable, &retain, &older, &hasher, &to).await;
                // The worker must not be the one to free the memtable, or to
                // close a table.
                Ok((made, frozen, older))
            });
            (place, work)
        };
        let (place, written) = self.as_fast_as_needed(owner, background, io, begin).await;
        let (table, changes) = match written.and_then(|(made, ..)| made) {
            Ok((table, changes)) => {
                if let Some(table) = &table {
                    owner.cache(table);
                }
                (table, changes)
            }
            Err(error) => {
                discard_all(io, &place).await;
                return Err(error);
            }
        };
        drop(view);
        let (_, seq) = oldest.memtable.seq_range().expect("an empty memtable is not rotated");
        let values = &self.shard(shard).values;
        let mut edits = values.edits(changes);
        let made = table.as_ref().map(|table| table.meta().clone());
        edits.extend(made.iter().map(|meta| Edit::Table { level: 0, meta: meta.clone() }));
        edits.push(Edit::Flushed { seq });
        // Log goes: an opening that did not find this edit would miss it.
        if let Err(error) = manifest.append_witnessed(io, &edits).await {
            match manifest.poisoned() {
                // The manifest may name the table: it stays.
                Some(cause) => {
                    owner.stream.poison(cause);
                    owner.retired.give_back(place.unused_spares());
                }
                None => discard_all(io, &place).await,
            }
            return Err(error);
        }
        let garbage = values.committed(&edits);
        let (tables_out, bytes_out) = made.map_or((0, 0), |meta| (1, meta.file_bytes));
        let ended_ns = io.now_ns();
        let (before, ended): (Arc<View>, _) = {
            let mut state = self.shard(shard).lock();
            let view = Arc::new(state.view.flushed(oldest, table).without(garbage));
            state.flush_error = None;
            state.counts.flushes += 1;
            state.counts.files_reused += place.files_reused();
            state.counts.flushed_bytes += bytes_out;
            let full_bytes = owner.memtable_bytes.load(Ordering::Relaxed) as u64;
            state.pace.flushed(bytes, full_bytes, began_ns, ended_ns);
            let before = std::mem::replace(&mut state.view, view);
            state.set_pace(&self.limits);
            (before, state.let_go(&self.limits, ended_ns))
        };
        drop(before);
        tracing::info!(
            shard,
            level = 0,
            tables_out,
            bytes_in = bytes,
            bytes_out,
            duration_us = (ended_ns - began_ns) / 1000,
            "a flush ended"
        );
        ended.report(shard);
        // Not before: what is left behind by a failure goes, this file too.
        owner.retired.give_back(place.unused_spares());
        self.share_memory();
        owner.retired.work.set();
        self.rewrite_if_long(owner, shard, manifest, io).await;
        Ok(())
    }

    /// Begins background work of a flush and waits for it: the place of its file,
    /// and what came of it. While flushes do not keep up, the owner does it; and
    /// begins it anew, with another file, when a starved worker does not let go
    /// of the first.
    pub(in crate::shard) async fn as_fast_as_needed<T, I: Io>(
        &self,
        owner: &Owner,
        background: &Background,
        io: &I,
        begin: impl Fn() -> (TablePlace, Running<T>),
    ) -> (TablePlace, Result<T>) {
        let mut attempts = vec![begin()];
        let mut has_looked_again = false;
        let (at, output) = loop {
            let is_behind = self.is_behind(owner, background);
            background.set_debt(is_behind);
            let mut changed = pin!(owner.flush_work.wait());
            let is_recalled = is_behind && attempts.len() == 1 && attempts[0].1.is_away();
            let patience_ns = match is_recalled {
                true => Some(RECALL_NS),
                false => (!is_behind).then_some(LOOK_NS),
            };
            let mut patience = pin!(patience_ns.map(|ns| io.sleep(ns)));
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
                Happened::NotLetGo if is_recalled && attempts[0].1.is_away() => {
                    attempts.push(begin());
                }
                Happened::NotLetGo => {}
            }
        };
        if has_looked_again {
            // What the flag stood for is still to be looked at.
            owner.flush_work.set();
        }
        let (place, _) = attempts.swap_remove(at);
        for (place, attempt) in attempts {
            drop(attempt);
            discard_all(io, &place).await;
        }
        (place, output)
    }

    /// Whether somebody waits for background work, or soon will.
    pub(super) fn is_behind(&self, owner: &Owner, background: &Background) -> bool {
        let memtable_bytes = owner.memtable_bytes.load(Ordering::Relaxed);
        let is_starved = background.is_starved();
        let is_shard_behind = |&id: &ShardId| {
            let state = self.shard(id).lock();
            // The pace would be what a starved worker can do.
            (is_starved && state.view.frozen.len() >= self.limits.frozen_max)
                || state.is_pressing(0, memtable_bytes, &self.limits)
                || state.view.levels.level(0).len() >= self.limits.newest_tables_behind
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
                        state.set_pace(&self.limits);
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
}

/// What a flush waits for.
enum Happened<T> {
    /// An attempt ended.
    Ended(usize, Result<T>),
    /// There may be more to flush, or less hurry.
    Changed,
    /// The work should have come back by now; or it is worth a look whether the
    /// worker gets on.
    NotLetGo,
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
