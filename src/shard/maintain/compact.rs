//! Compaction, as a job of an owner: it asks for the next plan of each of its
//! shards, has it carried out in the background, and puts the result in place.
//! It also pins the filters and indexes of tables when there is room for them.

use std::sync::{Arc, OnceLock};

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::ShardId;
use crate::base::keys::KeyBounds;
use crate::format::edit::Edit;
use crate::io::Io;
use crate::lsm::{
    Hierarchy, Levels, Made, Member, Plan, Retain, Situation, TablePlace, View, check_within,
    compact, due_in_s, pick, pick_within,
};
use crate::manifest::Manifest;
use crate::runtime::{Background, Either, Running, either, first_of};
use crate::shard::engine::{Engine, Owner, shard_snapshot};
use crate::shard::state::Wanted;
use crate::sst::{Table, Warming};
use crate::value::Changes;
use crate::wal::discard;

/// Writes have paused when there were none for so long.
const PAUSE_NS: u64 = 1_000_000_000;

/// What a compaction made is brought into the cache for so long in any case.
const WARM_NS_MIN: u64 = 100_000_000;

/// When a shard was last written to, as far as the job knows.
#[derive(Clone, Copy, Default)]
struct Pulse {
    writes: u64,
    since_ns: u64,
    /// Looked at at least once.
    is_known: bool,
    /// A compaction failed: none is begun before this.
    not_before_ns: u64,
}

/// What is to be done next.
enum Next {
    /// This, in the shard at this place among the owner's.
    Do(usize, Plan, Retain),
    /// Look again after so many nanoseconds.
    Later(u64),
    /// Nothing, before something happens.
    Nothing,
}

/// Whether there is something to do that open snapshots keep from being done.
fn is_held_back(levels: &Levels, hierarchy: &Hierarchy, situation: Situation) -> bool {
    let without = Situation { retain: Retain::Bounds(Vec::new()), ..situation };
    situation.retain != without.retain && pick(levels, hierarchy, &without).is_some()
}

impl Engine {
    pub(super) async fn compact_job<I: Io>(&self, number: usize, io: &I, background: &Background) {
        let owner = &self.owners[number];
        let mut pulses = vec![Pulse::default(); owner.shards.len()];
        while !owner.is_stopping() {
            self.pin_what_fits(owner, io).await;
            match self.next_compaction(owner, &mut pulses, io) {
                Next::Do(at, plan, retain) => {
                    let shard = owner.shards[at];
                    let done = self.compact_shard(owner, at, plan, retain, io, background).await;
                    if owner.is_stopping() {
                        break;
                    }
                    let failed = done.as_ref().err().cloned();
                    self.shard(shard).lock().compaction_error = failed;
                    self.shard(shard).wake_stalled();
                    if let Err(error) = done {
                        self.note_failure(&error);
                        tracing::warn!(%error, shard, "a compaction failed and will be tried again");
                        let retry_ns = match error.kind() {
                            // Neither mends itself.
                            ErrorKind::Corruption | ErrorKind::Poisoned => HOPELESS_RETRY_NS,
                            _ => self.limits.retry_ns,
                        };
                        pulses[at].not_before_ns = io.now_ns() + retry_ns;
                    }
                }
                Next::Later(ns) => {
                    first_of(owner.retired.work.wait(), io.sleep(ns)).await;
                }
                Next::Nothing => owner.retired.work.wait().await,
            }
        }
    }

    /// Pins filters and indexes of the owner's tables that found no room when they
    /// were opened, as far as there is some now; the youngest tables come first.
    async fn pin_what_fits<I: Io>(&self, owner: &Owner, io: &I) {
        if !self.pins.has_room() {
            return;
        }
        let mut has_pinned = false;
        for &shard in &owner.shards {
            let view = Arc::clone(&self.shard(shard).lock().view);
            for (level, member) in view.levels.tables() {
                let Member::Sound(table) = member else { continue };
                if table.is_pinned() || owner.is_stopping() {
                    continue;
                }
                let is_oldest = !view.levels.older_than(level, table).overlaps(table.meta());
                match table.pin(io, &self.pins.share(is_oldest)).await {
                    Ok(is_pinned) => has_pinned |= is_pinned,
                    // Whoever wants one of its keys is told.
                    Err(error) => tracing::warn!(%error, "a table's filters stay on the device"),
                }
            }
        }
        if has_pinned {
            self.share_memory();
        }
    }

    /// What somebody waits for; what turns out to be done, or not to be possible, is
    /// told.
    fn wanted_compaction(&self, shard: ShardId, calendar_s: u64) -> Option<(Plan, Retain)> {
        loop {
            let (wanted, view, retain) = {
                let state = self.shard(shard).lock();
                let wanted = Arc::clone(state.compact_wanted.front()?);
                (wanted, Arc::clone(&state.view), state.published.retain(&self.clock))
            };
            let (levels, hierarchy) = (&view.levels, &self.limits.hierarchy);
            let situation = Situation { is_idle: true, retain: retain.clone(), calendar_s };
            if let Some(plan) = pick_within(levels, hierarchy, &situation, &wanted.range) {
                return Some((plan, retain));
            }
            let outcome = check_within(levels, hierarchy, &wanted.range);
            let done = {
                let mut state = self.shard(shard).lock();
                wanted.outcome.get_or_init(|| outcome);
                state.compact_wanted.pop_front()
            };
            drop(done);
            self.shard(shard).wake_stalled();
        }
    }

    fn next_compaction<I: Io>(&self, owner: &Owner, pulses: &mut [Pulse], io: &I) -> Next {
        let (now_ns, calendar_s) = (io.now_ns(), io.calendar_s());
        let mut later_ns: Option<u64> = None;
        let mut urgent: Option<(usize, usize)> = None;
        let mut tidy = None;
        for (at, (&shard, pulse)) in owner.shards.iter().zip(pulses).enumerate() {
            let (view, writes, retain, has_failed) = {
                let state = self.shard(shard).lock();
                let retain = state.published.retain(&self.clock);
                let has_failed = state.compaction_error.is_some();
                (Arc::clone(&state.view), state.counts.writes, retain, has_failed)
            };
            if !pulse.is_known || pulse.writes != writes {
                *pulse = Pulse { writes, since_ns: now_ns, is_known: true, ..*pulse };
            }
            let mut look_in = |ns: u64| later_ns = Some(later_ns.map_or(ns, |at| at.min(ns)));
            // Unless somebody asked for it meanwhile.
            if has_failed && now_ns < pulse.not_before_ns {
                look_in(pulse.not_before_ns - now_ns);
                continue;
            }
            if tidy.is_none()
                && let Some((plan, retain)) = self.wanted_compaction(shard, calendar_s)
            {
                tidy = Some((at, plan, retain));
                continue;
            }
            let hierarchy = &self.limits.hierarchy;
            let situation = |is_idle| Situation { is_idle, retain: retain.clone(), calendar_s };
            if let Some(plan) = pick(&view.levels, hierarchy, &situation(false)) {
                let runs = view.levels.level(0).len();
                if urgent.is_none_or(|(_, most)| runs > most) {
                    urgent = Some((at, runs));
                    tidy = Some((at, plan, retain));
                }
                continue;
            }
            self.note_blocked(shard, &view);
            if urgent.is_some() {
                continue;
            }
            if let Some(seconds) = due_in_s(&view.levels, hierarchy, calendar_s) {
                look_in(seconds.saturating_mul(1_000_000_000).max(PAUSE_NS));
            }
            let quiet_ns = now_ns - pulse.since_ns;
            if tidy.is_none()
                && let Some(plan) = pick(&view.levels, hierarchy, &situation(true))
            {
                if quiet_ns >= PAUSE_NS {
                    tidy = Some((at, plan, retain));
                } else {
                    look_in(PAUSE_NS - quiet_ns);
                }
            } else if is_held_back(&view.levels, hierarchy, situation(true)) {
                // Who ends a scan does not call: there are too many of them.
                look_in(PAUSE_NS);
            }
        }
        match (tidy, later_ns) {
            (Some((at, plan, retain)), _) => Next::Do(at, plan, retain),
            (None, Some(ns)) => Next::Later(ns),
            (None, None) => Next::Nothing,
        }
    }

    /// Nothing is due. If there are many tables on level 0 all the same, and a
    /// damaged one is why, writers are not to wait for them to be merged.
    fn note_blocked(&self, shard: ShardId, view: &View) {
        if view.levels.level(0).len() < self.limits.newest_tables_behind {
            return;
        }
        let damage = view.levels.tables().find_map(|(_, member)| member.sound().err());
        if let Some(error) = damage {
            self.shard(shard).lock().compaction_error = Some(error);
            self.shard(shard).wake_stalled();
        }
    }

    /// Returns when all that was acknowledged before the call, as far as it is
    /// in the range, is on the deepest level of its shard.
    pub(crate) async fn compact_all(&self, range: &KeyBounds) -> Result<()> {
        self.flush_all().await?;
        for shard in &self.shards {
            // One that is damaged cannot be merged, and says so.
            let view = Arc::clone(&shard.lock().view);
            view.levels.check_sound(range)?;
        }
        let mut targets = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let wanted = Wanted { range: range.clone(), outcome: OnceLock::new() };
            let wanted = Arc::new(wanted);
            {
                let mut state = shard.lock();
                state.compaction_error = None;
                state.compact_wanted.push_back(Arc::clone(&wanted));
            }
            targets.push((shard, wanted));
            self.owners[self.owner_of(shard.id)].retired.work.set();
        }
        for (shard, wanted) in targets {
            let owner = &self.owners[self.owner_of(shard.id)];
            loop {
                let seen = {
                    let state = shard.lock();
                    if let Some(outcome) = wanted.outcome.get() {
                        outcome.clone()?;
                        break;
                    }
                    if state.closed {
                        return Err(Error::closed());
                    }
                    if let Some(cause) = owner.stream.poisoned() {
                        return Err(Error::poisoned(&cause));
                    }
                    if let Some(error) = &state.compaction_error {
                        return Err(error.clone());
                    }
                    state.room_number()
                };
                shard.room(seen).await;
            }
        }
        Ok(())
    }

    /// Carries out a plan for one of the owner's shards.
    async fn compact_shard<I: Io>(
        &self,
        owner: &Owner,
        at: usize,
        plan: Plan,
        retain: Retain,
        io: &I,
        background: &Background,
    ) -> Result<()> {
        // A poisoned manifest poisons the stream, too: what it would make could
        // not be put in place, and would stay.
        if let Some(cause) = owner.stream.poisoned() {
            return Err(Error::poisoned(&cause));
        }
        let shard = owner.shards[at];
        let limits = &self.limits.hierarchy;
        let plan = Arc::new(plan);
        let dir = self.shard_dir(shard);
        let full = plan.full_outputs(limits.table_bytes);
        let place = TablePlace {
            spares: owner.retired.lend(&dir, full).into(),
            dir,
            db: self.db,
            shard,
            ids: self.new_file_ids(plan.outputs_max(limits.table_bytes)),
            pool: Arc::clone(&owner.maker.pool),
            compression: plan.compression,
            table_bytes: limits.table_bytes,
            pins: Arc::clone(&self.pins),
        };
        let began_ns = io.now_ns();
        let (level, bytes_in) = (plan.output_level, plan.input_bytes());
        let tables_in = plan.inputs.len();
        let (tables_moved, tables_dropped) = (plan.moves.len(), plan.drops.len());
        tracing::info!(
            shard,
            level,
            tables_in,
            tables_moved,
            tables_dropped,
            bytes_in,
            "a compaction begins"
        );
        let (mut made, mut changes) = (Vec::new(), Changes::default());
        // Tables that are dropped are read only for what they refer to.
        let has_values = self.shard(shard).values.counts().files > 0;
        if !plan.inputs.is_empty() || (has_values && !plan.drops.is_empty()) {
            let (merged, hasher, to) = (Arc::clone(&plan), self.hasher.clone(), place.clone());
            let read_bytes = self.limits.compaction_read_bytes;
            let running = background.run("compaction", |io| async move {
                let made = compact(&io, &merged, &retain, &hasher, &to, has_values, read_bytes);
                let made = made.await;
                // The worker must not be the one to close the inputs.
                Ok((made, merged))
            });
            let ended = self.as_it_should(owner, background, running).await;
            (made, changes) = match ended.and_then(|(made, _)| made) {
                Ok(made) => made,
                Err(error) => {
                    discard_all(io, &place).await;
                    return Err(error);
                }
            };
        }
        let made_ns = io.now_ns();
        made.iter().for_each(|made| owner.cache(&made.table));
        let until_ns = made_ns + (made_ns - began_ns).max(WARM_NS_MIN);
        if let Err(error) = self.warm(owner, &made, until_ns, io, background).await {
            drop(made);
            discard_all(io, &place).await;
            return Err(error);
        }
        let outputs: Vec<_> = made.into_iter().map(|made| made.table).collect();
        let mut manifest = owner.manifests[at].lock().await;
        if let Some(cause) = manifest.poisoned() {
            // By a flush meanwhile: it does not name these tables.
            let error = Error::poisoned(cause);
            discard_all(io, &place).await;
            return Err(error);
        }
        let installed =
            self.install(owner, shard, &plan, (&outputs, changes), &mut manifest, io).await;
        if let Err(error) = installed {
            match manifest.poisoned() {
                // It may name what was made.
                Some(_) => owner.retired.give_back(place.unused_spares()),
                None => discard_all(io, &place).await,
            }
            return Err(error);
        }
        // Not before: what is left behind by a failure goes, these files too.
        owner.retired.give_back(place.unused_spares());
        self.shard(shard).lock().counts.files_reused += place.files_reused();
        tracing::info!(
            shard,
            level,
            tables_in,
            tables_moved,
            tables_dropped,
            tables_out = outputs.len(),
            bytes_in,
            bytes_out = file_bytes(&outputs),
            duration_us = (io.now_ns() - began_ns) / 1000,
            "a compaction ended"
        );
        self.rewrite_if_long(owner, shard, &mut manifest, io).await;
        Ok(())
    }

    /// Brings hot blocks of new tables into the cache, while the tables that they were made of are
    /// there still: half a cache full at most, as both are in it until then, and no longer than
    /// making them took. Not while the owner is behind: then writers wait for the tables.
    ///
    /// # Errors
    /// When one of the tables is damaged: what it was made of is not to go for it.
    async fn warm<I: Io>(
        &self,
        owner: &Owner,
        made: &[Made],
        until_ns: u64,
        io: &I,
        background: &Background,
    ) -> Result<()> {
        let Some(cache) = &owner.cache else { return Ok(()) };
        let mut room = (cache.capacity_bytes() / 2) as usize;
        let io = &background.budgeted(io);
        for Made { table, hot } in made {
            let mut warming = Warming::new(table, hot);
            while !warming.is_done() {
                let is_enough = room == 0 || io.now_ns() >= until_ns;
                if is_enough
                    || owner.stream.poisoned().is_some()
                    || self.is_behind(owner, background)
                {
                    return Ok(());
                }
                match warming.step(io).await {
                    Ok(bytes) => room = room.saturating_sub(bytes),
                    Err(error) if error.kind() == ErrorKind::Corruption => return Err(error),
                    // Whoever wants one of its keys is told.
                    Err(error) => {
                        tracing::warn!(%error, "a new table's blocks stay on the device");
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits for background work, which the owner does itself while it is
    /// behind.
    async fn as_it_should<T>(
        &self,
        owner: &Owner,
        background: &Background,
        mut running: Running<T>,
    ) -> Result<T> {
        loop {
            background.set_debt(self.is_behind(owner, background));
            match either(&mut running, owner.retired.work.wait()).await {
                Either::First(output) => {
                    // What the event stood for is still to be looked at.
                    owner.retired.work.set();
                    return output;
                }
                Either::Second(()) if owner.is_stopping() => return Err(Error::closed()),
                Either::Second(()) => {}
            }
        }
    }

    /// Puts the result of a plan in the place of its inputs: in the manifest
    /// first, and then for readers.
    async fn install<I: Io>(
        &self,
        owner: &Owner,
        shard: ShardId,
        plan: &Plan,
        (outputs, changes): (&[Arc<Table>], Changes),
        manifest: &mut Manifest,
        io: &I,
    ) -> Result<()> {
        // Only who holds the manifest changes the levels.
        let view = Arc::clone(&self.shard(shard).lock().view);
        let levels = plan.applied(&view.levels, outputs).expect("nobody else changed the inputs");
        let added = |meta: &_| Edit::Table { level: plan.output_level, meta: Clone::clone(meta) };
        let removed = plan.removed().map(|(level, id)| Edit::TableRemoved { level, id });
        let moved = plan.moves.iter().map(|(_, member)| added(member.meta()));
        let made = outputs.iter().map(|table| added(table.meta()));
        let values = &self.shard(shard).values;
        let mut edits = values.edits(changes);
        edits.extend(removed.chain(moved).chain(made));
        // Files go: an opening that did not find this edit would miss them.
        let appended = match plan.inputs.is_empty() && plan.drops.is_empty() {
            true => manifest.append(io, &edits).await,
            false => manifest.append_witnessed(io, &edits).await,
        };
        if let Err(error) = appended {
            if let Some(cause) = manifest.poisoned() {
                owner.stream.poison(cause);
            }
            return Err(error);
        }
        let garbage = values.committed(&edits);
        let now_ns = io.now_ns();
        let (before, ended): (Arc<View>, _) = {
            let mut state = self.shard(shard).lock();
            state.counts.compactions += 1;
            state.counts.tables_moved += plan.moves.len() as u64;
            state.counts.compaction_read_bytes += plan.input_bytes();
            state.counts.compaction_written_bytes += file_bytes(outputs);
            let after = Arc::new(state.view.with_levels(levels).without(garbage));
            let before = std::mem::replace(&mut state.view, after);
            state.set_pace(&self.limits);
            (before, state.let_go(&self.limits, now_ns))
        };
        ended.report(shard);
        for (_, table) in &plan.inputs {
            table.retire(&owner.retired);
        }
        for (_, member) in &plan.drops {
            match member {
                Member::Sound(table) => table.retire(&owner.retired),
                Member::Damaged { meta, .. } => {
                    owner
                        .retired
                        .push_unfit(self.shard_dir(shard).join(format!("{}.sst", meta.id)));
                }
            }
        }
        // Not before the tables know that they go.
        drop(before);
        self.share_memory();
        Ok(())
    }

    /// Makes a shard's manifest anew once its edits outweigh what they come to.
    pub(super) async fn rewrite_if_long<I: Io>(
        &self,
        owner: &Owner,
        shard: ShardId,
        manifest: &mut Manifest,
        io: &I,
    ) {
        if !manifest.wants_rewrite() {
            return;
        }
        let (view, seq) = {
            let state = self.shard(shard).lock();
            (Arc::clone(&state.view), state.flushed_seq())
        };
        let snapshot = shard_snapshot(&view.levels, seq, self.shard(shard).values.snapshot());
        let (dir, id) = (self.shard_dir(shard), self.new_file_id());
        if let Err(error) = manifest.replace(io, &dir, self.db, id, &snapshot).await {
            if let Some(cause) = manifest.poisoned() {
                owner.stream.poison(cause);
            }
            // All it should say is in the old one; the next change tries again.
            tracing::warn!(%error, shard, "a manifest could not be made anew");
        }
    }
}

/// A compaction that met damage, or whose result cannot be put in place, is not
/// tried again for so long.
const HOPELESS_RETRY_NS: u64 = 60_000_000_000;

/// Bytes of the files of tables.
fn file_bytes(tables: &[Arc<Table>]) -> u64 {
    tables.iter().map(|table| table.meta().file_bytes).sum()
}

/// Removes the files that a failed job leaves behind.
pub(super) async fn discard_all<I: Io>(io: &I, place: &TablePlace) {
    for path in place.left_behind() {
        discard(io, &path).await;
    }
}
