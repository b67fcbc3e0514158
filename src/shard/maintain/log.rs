//! The log's jobs: segments ahead of the writers, syncs in time, groups of those
//! who do not lead, and freeing what no memtable needs.

use std::sync::Arc;

use crate::base::durability::Durability;
use crate::base::error::{ErrorKind, Result};
use crate::base::ids::ShardId;
use crate::base::latency::Waited;
use crate::base::planted::{Bug, planted};
use crate::base::seq::SeqNo;
use crate::format::edit::{Edit, MapPlace};
use crate::format::record::{RecordKind, seal};
use crate::io::Io;
use crate::lsm::{Strategy, covered_bytes};
use crate::runtime::{Background, first_of};
use crate::shard::engine::{Engine, Owner};
use crate::shard::state::Shard;
use crate::wal::{
    Append, Appended, Calls, Goal, Map, NoRoom, Role, Segment, create_map, discard, map_path,
};

/// Free segments that wait to be used again, at least. There are more while the
/// log, which grows and shrinks with every flush, is shorter than it was: each
/// segment that is made anew is written once before.
const FREE_SEGMENTS_MIN: usize = 2;

/// A stream that is idle for so long keeps no more than that.
const FREE_SEGMENTS_NS: u64 = 10_000_000_000;

/// Writes have paused when there were none for so long.
const PAUSE_NS: u64 = 1_000_000_000;

/// A memtable hides much if that is more than one entry in so many: less than
/// compaction leaves of garbage when writes pause (1/64), since three of four
/// entries may be garbage before it has begun, and nobody looks again after it.
const HIDDEN_SHARE: u64 = 256;

/// Less than this is not worth a table.
const HIDDEN_BYTES_MIN: u64 = 64 << 10;

impl Engine {
    pub(super) async fn log_job<I: Io>(&self, number: usize, io: &I, background: &Background) {
        // For whole files: what is written ahead of the writers.
        let ahead = &background.budgeted(io);
        let owner = &self.owners[number];
        let stream = &owner.stream;
        let mut free = FreeSegments::default();
        let mut idle = Idle { end: stream.end(), since_ns: io.now_ns() };
        let mut map_after_ns = 0;
        while !owner.is_stopping() {
            let mut failed = false;
            if let Some((start, last_bytes)) = stream.wanted_spare() {
                let made = match free.segments.pop() {
                    Some(segment) => match owner.maker.recycle(io, &segment, start).await {
                        Err(error) => {
                            // It may say by now that it starts there, as the one that
                            // takes its place will.
                            match io.remove(segment.file.path()).await {
                                Ok(()) => {}
                                Err(gone) if gone.kind() == ErrorKind::NotFound => {}
                                Err(_) => free.segments.push(segment),
                            }
                            Err(error)
                        }
                        made => made,
                    },
                    None => {
                        let id = self.new_file_id();
                        owner.maker.create(ahead, id, start, Some(last_bytes)).await
                    }
                };
                if let Err(error) = &made {
                    self.note_failure(error);
                    failed = true;
                }
                stream.provide_spare(made);
            }
            match self.free_log(number, io, &mut free).await {
                Ok(()) => {}
                Err(error) => {
                    self.note_failure(&error);
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
                        self.note_failure(&error);
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
                let has_many = free.segments.len() > FREE_SEGMENTS_MIN;
                if has_many && idle_ns >= FREE_SEGMENTS_NS {
                    free.most_live = 0;
                    continue;
                }
                let free_ns = has_many.then(|| FREE_SEGMENTS_NS - idle_ns);
                let flush_ns = self.flush_what_hides(owner, idle_ns);
                match free_ns.into_iter().chain(flush_ns).min() {
                    Some(rest_ns) => {
                        first_of(stream.work.wait(), io.sleep(rest_ns)).await;
                    }
                    None => stream.work.wait().await,
                }
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
        // The next opening begins with segments of its own.
        for segment in free.segments {
            discard(io, segment.file.path()).await;
        }
    }

    /// Has the log synced when what was acknowledged must be durable. On its
    /// own: making a segment takes longer than some have time.
    pub(super) async fn sync_job<I: Io>(&self, number: usize, io: &I) {
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
        let path = map_path(&owner.maker.dir, self.db, &place);
        let made = create_map(ahead, &owner.maker, &place, self.limits.map).await;
        let (map, lock) = match made {
            Ok(made) => made,
            Err(error) => {
                discard(io, &path).await;
                return Err(error);
            }
        };
        let stream = owner.stream.key;
        let mut root = self.root.lock().await;
        *owner.map.lock() = Some(place.clone());
        let edit = Edit::StreamMap { stream, map: place };
        // An opening that does not find the edit takes the mapping for one that
        // was never used: it must be able to tell that the edit is missing.
        if let Err(error) = self.append_root_witnessed(&mut root, io, &[edit]).await {
            *owner.map.lock() = None;
            if root.manifest.poisoned().is_none() {
                discard(io, &path).await;
            }
            return Err(error);
        }
        *owner.map_lock.lock() = lock;
        Ok(map)
    }

    /// Leads for those who asked the owner to.
    pub(super) async fn lead_job<I: Io>(&self, number: usize, io: &I) {
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
    pub(super) async fn write_mark<I: Io>(
        &self,
        number: usize,
        io: &I,
        spare: Spare,
    ) -> Result<()> {
        let owner = &self.owners[number];
        let stream = &owner.stream;
        let (kind, durability) = (RecordKind::Mark, Durability::Durable);
        let append = Append { kind, sections: 0, payload_bytes: 0, durability };
        if spare == Spare::Own {
            // What the log job failed at, the caller tries itself.
            stream.forget_spare_error();
        }
        let appended = loop {
            let fill = Some(|record: &mut [u8], seed, header: &_| seal(record, seed, header));
            let (mut calls, mut waited) = (Calls::default(), Waited::default());
            let appended = stream.append(
                &append,
                std::iter::empty(),
                fill,
                || io.now_ns(),
                &mut calls,
                &mut waited,
            );
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
    async fn free_log<I: Io>(&self, number: usize, io: &I, free: &mut FreeSegments) -> Result<()> {
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
        let (live, _) = owner.stream.segment_counts();
        free.most_live = free.most_live.max(live + below.len());
        free.segments.extend(below);
        let free_max = (free.most_live - live).max(FREE_SEGMENTS_MIN);
        let mut kept = 0;
        let is_needless = |segment: &mut Arc<Segment>| {
            let is_kept = owner.maker.is_full_size(segment) && kept < free_max;
            kept += usize::from(is_kept);
            !is_kept
        };
        for segment in free.segments.extract_if(.., is_needless) {
            discard(io, segment.file.path()).await;
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
            let freed = Edit::StreamFreed { stream: root.old_streams[at].key };
            // A shard's manifest that forgets its last edits forgets tables which from now
            // on are all there is of these writes.
            let edits: Vec<Edit> = std::iter::once(freed).chain(self.stream_starts()).collect();
            // Files go: an opening that did not find this edit would miss them.
            self.append_root_witnessed(&mut root, io, &edits).await?;
            for path in root.old_streams.swap_remove(at).paths {
                discard(io, &path).await;
            }
        }
        Ok(())
    }

    /// The stream position below which every record is in a table.
    fn log_needed_from(&self, owner: &Owner) -> u64 {
        // Read first: what is reserved later lies behind it.
        let end = owner.stream.end();
        let needed =
            owner.shards.iter().filter_map(|&shard| self.shard(shard).lock().log_needed_from());
        let freed_early = planted(Bug::LogFreedEarly);
        needed.filter(|_| !freed_early).min().unwrap_or(end).min(end)
    }

    /// For each shard of the owner, the number up to which writes are in
    /// tables.
    pub(super) fn flushed(&self, owner: &Owner) -> Vec<(ShardId, SeqNo)> {
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
}

/// Segments that wait to be used again.
#[derive(Default)]
struct FreeSegments {
    segments: Vec<Arc<Segment>>,
    /// How many the stream needed at once, since it was idle for long. So many are
    /// kept all told.
    most_live: usize,
}

impl Engine {
    /// When writes have paused: has the memtables flushed without which much of
    /// what is in tables and value files could go. How long until then, if there
    /// is such a memtable.
    fn flush_what_hides(&self, owner: &Owner, idle_ns: u64) -> Option<u64> {
        for &id in &owner.shards {
            if !self.hides_much(self.shard(id)) {
                continue;
            }
            if idle_ns < PAUSE_NS {
                return Some(PAUSE_NS - idle_ns);
            }
            let mut state = self.shard(id).lock();
            let has_room = state.view.frozen.len() < self.limits.frozen_max;
            if has_room && state.inserting == 0 && !state.mutable.is_empty() {
                state.rotate(&self.arenas);
                drop(state);
                owner.flush_work.set();
            }
        }
        None
    }

    /// Whether the shard's mutable memtable hides much of what is older, by
    /// estimate: each of its deletes and references
    /// may hide an entry of average length, in a table or in the memtable itself,
    /// and a range tombstone those in the blocks of tables that it covers.
    /// What else it has takes as much as it hides, and is bounded by that.
    fn hides_much(&self, shard: &Shard) -> bool {
        let (light, ranges, view) = {
            let state = shard.lock();
            let mutable = &state.mutable;
            let ranges = Arc::clone(mutable.ranges());
            (u64::from(mutable.light_entries()), ranges, Arc::clone(&state.view))
        };
        let is_kept = matches!(self.limits.hierarchy.strategy, Strategy::Fifo { .. });
        if is_kept || (light == 0 && ranges.is_empty()) {
            return false;
        }
        let (mut bytes, mut entries) = (0, 0);
        for (_, member) in view.levels.tables() {
            bytes += member.meta().file_bytes;
            entries += member.meta().entries;
        }
        let covered = covered_bytes(&ranges, view.levels.tables().map(|(_, member)| member));
        let covered = u128::from(covered) * u128::from(entries);
        let covered = covered.checked_div(u128::from(bytes)).unwrap_or(0) as u64;
        bytes += shard.values.counts().bytes;
        entries += light;
        let hidden = light + covered;
        let hidden_bytes = u128::from(bytes) * u128::from(hidden);
        hidden.saturating_mul(HIDDEN_SHARE) > entries
            && hidden_bytes >= u128::from(HIDDEN_BYTES_MIN) * u128::from(entries)
    }
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
pub(super) enum Spare {
    /// The owner's log job makes it.
    FromOwner,
    /// There is no log job any more.
    Own,
}
