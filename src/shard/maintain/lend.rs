//! Lending: memory that memtables do not use goes to the block cache, and comes back
//! when there is more to write.
//!
//! Where much is written, memtables have all of their share: the larger they are, the
//! less often the same data are merged. Where little is written they would stand empty
//! for most of the time. So the owner measures how fast its shards are written to. What
//! comes in [`SPAN_NS`] is what a memtable is to have room for, from a quarter of its full
//! size up; the rest is lent to the cache, region by region, as that has more blocks to
//! keep than room. What filters and indexes leave of their share is lent, too.
//!
//! A memtable's bound is what its share of the budget is without what is lent at that
//! moment ([`Engine::bound_memtables`]). So nobody waits for memory that is still to be
//! given back: until then memtables are flushed sooner. And both together never take
//! more than they have.

use crate::base::sync::atomic::Ordering;
use crate::cache::Cache;
use crate::io::Io;
use crate::runtime::{first_of, yield_now};
use crate::shard::engine::{Engine, Owner};

/// A memtable is to have room for what is written in this time.
const SPAN_NS: u64 = 10_000_000_000;

/// Memory is lent only if there is room for so many times that: else it would be called
/// back as soon as writes come a little faster.
const LENT_TIMES: u64 = 2;

/// So often the owner looks, while the cache is pressed.
const LOOK_NS: u64 = 500_000_000;

/// So soon after a look it looks again when a memtable is full.
const FULL_LOOK_NS: u64 = 20_000_000;

/// The fastest of so many looks counts.
const LOOKS: usize = 4;

/// Readers let go of what is on its way back within microseconds, or hold it for as long
/// as a scan is open: the owner waits for so long, and twice as long each time.
const LEAVING_NS: u64 = 1_000_000;

/// So often the wait gets longer, up to 8 s.
const PATIENCE_MAX: u32 = 13;

/// How fast an owner's shards are written to.
struct Rate {
    looked_ns: u64,
    /// What had been written by then.
    written: u64,
    /// Bytes in a second, between the last looks.
    rates: [u64; LOOKS],
    next: usize,
    /// So often in a row nothing came back of what is on its way.
    fruitless: u32,
}

impl Rate {
    fn new(now_ns: u64, written: u64) -> Self {
        // As long as nobody has looked, memtables are to be large.
        Self { looked_ns: now_ns, written, rates: [u64::MAX; LOOKS], next: 0, fruitless: 0 }
    }

    fn since_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.looked_ns)
    }

    fn look(&mut self, now_ns: u64, written: u64) {
        let bytes = u128::from(written.saturating_sub(self.written));
        let per_s = bytes * 1_000_000_000 / u128::from(self.since_ns(now_ns).max(1));
        self.rates[self.next] = u64::try_from(per_s).unwrap_or(u64::MAX);
        self.next = (self.next + 1) % LOOKS;
        (self.looked_ns, self.written) = (now_ns, written);
    }

    /// Bytes that are written in so many times [`SPAN_NS`].
    fn bytes_in(&self, times: u64) -> u64 {
        let per_s = self.rates.into_iter().max().unwrap_or(0);
        per_s.saturating_mul(times * (SPAN_NS / 1_000_000_000))
    }
}

/// When to go on.
enum Next {
    Now,
    After(u64),
    WhenToldTo,
}

impl Owner {
    /// Tells the job that lends that a memtable is full, if it has lent something.
    pub(super) fn tell_full(&self, engine: &Engine) {
        let Some(cache) = self.cache.as_ref().filter(|cache| cache.lent_bytes() > 0) else {
            return;
        };
        let is_full = |&id| !engine.shard(id).lock().view.frozen.is_empty();
        if self.shards.iter().any(is_full) && !self.was_full.swap(true, Ordering::Relaxed) {
            cache.growth().set();
        }
    }
}

impl Engine {
    pub(super) async fn lend_job<I: Io>(&self, number: usize, io: &I) {
        let owner = &self.owners[number];
        let Some(cache) = &owner.cache else { return };
        let mut rate = Rate::new(io.now_ns(), owner.stream.counts().record_bytes);
        while !owner.is_stopping() {
            // In between the owner does something else.
            if cache.grow() {
                yield_now().await;
                continue;
            }
            match self.lend(owner, cache, &mut rate, io.now_ns()) {
                Next::Now => yield_now().await,
                Next::After(ns) => first_of(cache.growth().wait(), io.sleep(ns)).await,
                Next::WhenToldTo => cache.growth().wait().await,
            }
        }
    }

    /// One step of lending, or of taking back.
    fn lend(&self, owner: &Owner, cache: &Cache, rate: &mut Rate, now_ns: u64) -> Next {
        if cache.lendable_bytes() == 0 {
            return Next::WhenToldTo;
        }
        let lent = cache.lent_bytes();
        let is_leaving = cache.give_back();
        let is_fruitless = is_leaving && cache.lent_bytes() == lent;
        rate.fruitless = if is_fruitless { rate.fruitless.saturating_add(1) } else { 0 };
        self.bound_memtables(owner);
        let was_full = owner.was_full.load(Ordering::Relaxed);
        let look_ns = if was_full { FULL_LOOK_NS } else { LOOK_NS };
        let looks = rate.since_ns(now_ns) >= look_ns;
        if looks {
            owner.was_full.store(false, Ordering::Relaxed);
            // What is in the log is what is in memtables: no long values.
            rate.look(now_ns, owner.stream.counts().record_bytes);
            self.note_pinned();
        }
        let lendable = |times| {
            let each = rate.bytes_in(times) / owner.shards.len() as u64;
            self.lendable_beside(owner, usize::try_from(each).unwrap_or(usize::MAX))
        };
        let (borrowed, region) = (cache.borrowed_bytes(), cache.region_bytes());
        let beyond = borrowed.saturating_sub(lendable(1)).div_ceil(region);
        if beyond > 0 && cache.recall(u32::try_from(beyond).unwrap_or(u32::MAX)) > 0 {
            rate.fruitless = 0;
            return Next::Now;
        }
        if is_leaving && !is_fruitless {
            return Next::Now;
        }
        let later = Next::After(look_ns.saturating_sub(rate.since_ns(now_ns)).max(1));
        if cache.has_pressure() {
            let most = lendable(LENT_TIMES).min(cache.lendable_bytes());
            if borrowed + region > most {
                if looks {
                    cache.take_pressure();
                }
                return later;
            }
            if !self.make_room(owner, cache.lent_bytes() + region) {
                return later;
            }
            cache.take_pressure();
            if cache.borrow() {
                return Next::Now;
            }
        }
        match (was_full, is_leaving) {
            (true, _) => later,
            (_, true) => Next::After(LEAVING_NS << rate.fruitless.min(PATIENCE_MAX)),
            _ => Next::WhenToldTo,
        }
    }

    /// Sees to it that the owner's memtables take no more than they may while so many
    /// bytes are lent. Whether they do now; if not, they are on their way into tables.
    fn make_room(&self, owner: &Owner, lent: usize) -> bool {
        let bytes = self.memtable_bytes_beside(owner, lent);
        let mut is_there = true;
        for &shard in &owner.shards {
            let mut state = self.shard(shard).lock();
            let is_too_long = state.mutable.used_bytes() > bytes;
            // While one is on its way, the next may be full before that is there.
            is_there &= !is_too_long && state.view.frozen.is_empty();
            let may_rotate = state.inserting == 0 && !state.closed && state.flush_error.is_none();
            if is_too_long && may_rotate && state.has_room(&self.limits) {
                state.rotate(&self.arenas);
                state.set_pace(&self.limits);
                drop(state);
                owner.flush_work.set();
            }
        }
        if is_there {
            owner.memtable_bytes.store(bytes, Ordering::Relaxed);
        }
        is_there
    }
}
