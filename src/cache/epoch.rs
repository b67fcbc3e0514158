//! Epochs: when nobody can look any more at what was taken away.
//!
//! A reader *pins* before it follows a link, and unpins when it is done with
//! what it found there. Whoever takes something away unlinks it first, then
//! notes it as [`Retired`] in the epoch of that moment; it may be used for
//! something else once every pin of that epoch or an earlier one has ended.
//!
//! A pin costs a store to a cache line that only its thread writes, and a fence:
//! no lock, no allocation, no system call. A thread gets its line at its first
//! pin, and gives it back when it ends. Readers never wait; a reader that stays
//! pinned keeps what is retired from coming back, so nobody is pinned across an
//! await or a system call.
//!
//! Why it is sound. Let a reader pin in epoch `e` and find a link; let an
//! evictor clear the link and retire what it led to in epoch `r`. Both pass a
//! sequentially consistent fence: the reader between its pin and its look at the
//! link, the evictor between clearing the link and reading the epoch. One of the
//! fences is first. If it is the evictor's, the reader finds the link cleared.
//! If it is the reader's, then all that the evictor does later sees the pin, and
//! `e <= r`, for the epoch never falls. [`Retired::take_free`] gives out only
//! what was retired in an epoch before those of all pins it sees.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use crate::base::sync::atomic::{AtomicU64, Ordering, fence};
use crate::base::sync::{Mutex, tally, thread_local};

/// In place of an epoch: the thread is not pinned.
const UNPINNED: u64 = 0;

const EPOCH_FIRST: u64 = 1;

const _: () = assert!(EPOCH_FIRST > UNPINNED);

/// The epoch, and the pins of all threads. One for all caches of a database.
pub(crate) struct Epochs {
    now: AtomicU64,
    threads: Mutex<Threads>,
}

/// The threads that have pinned, and are still there.
#[derive(Default)]
struct Threads {
    lines: Vec<Arc<Line>>,
    /// What the lines of threads that have ended had counted.
    hits_of_ended: u64,
}

/// What one thread alone writes. Two cache lines: processors fetch them in
/// pairs.
#[derive(Default)]
#[repr(align(128))]
struct Line {
    pinned: AtomicU64,
    /// Counted here, as any other place would be fought for.
    hits: tally::AtomicU64,
}

/// A thread's side of its line.
struct Local {
    epochs: Weak<Epochs>,
    line: Arc<Line>,
    /// Guards of this thread: only the first pins, and the last unpins.
    guards: Cell<u32>,
}

thread_local! {
    /// The thread's lines; hardly ever more than one.
    static LOCALS: RefCell<Vec<Rc<Local>>> = const { RefCell::new(Vec::new()) };
}

impl Epochs {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { now: AtomicU64::new(EPOCH_FIRST), threads: Mutex::default() })
    }

    /// Pins the current epoch until the guard is dropped. Guards may nest: then
    /// the first one's epoch stays pinned until all of them are gone.
    #[inline]
    pub(crate) fn pin(self: &Arc<Self>) -> Guard<'_> {
        let local = self.local();
        let guards = local.guards.get();
        local.guards.set(guards + 1);
        if guards == 0 {
            // Relaxed: an epoch that has passed meanwhile only keeps more from
            // being used again.
            let now = self.now.load(Ordering::Relaxed);
            // Release, as is the store that unpins: who sees this pin must know
            // that the reads of the thread's earlier pins are over.
            local.line.pinned.store(now, Ordering::Release);
            // The reader's fence of the module's text.
            fence(Ordering::SeqCst);
        }
        Guard { epochs: self, local }
    }

    #[inline]
    fn local(self: &Arc<Self>) -> Rc<Local> {
        // While the thread ends its locals may be gone: then this pin gets a
        // line of its own.
        let known = LOCALS.try_with(|locals| {
            locals.borrow().iter().find(|local| local.is_of(self)).map(Rc::clone)
        });
        match known {
            Ok(Some(local)) => local,
            Ok(None) => self.register(true),
            Err(_) => self.register(false),
        }
    }

    #[cold]
    fn register(self: &Arc<Self>, is_kept: bool) -> Rc<Local> {
        let line = Arc::<Line>::default();
        self.threads.lock().lines.push(Arc::clone(&line));
        let local = Rc::new(Local { epochs: Arc::downgrade(self), line, guards: Cell::new(0) });
        if is_kept {
            LOCALS.with(|locals| {
                let mut locals = locals.borrow_mut();
                locals.retain(|local| local.epochs.strong_count() > 0);
                locals.push(Rc::clone(&local));
            });
        }
        local
    }

    /// Hits that guards were told of, in all caches that share these epochs.
    pub(crate) fn hits(&self) -> u64 {
        let threads = self.threads.lock();
        let of_line = |line: &Arc<Line>| line.hits.load(tally::Ordering::Relaxed);
        threads.hits_of_ended + threads.lines.iter().map(of_line).sum::<u64>()
    }

    /// What was retired before this epoch, nobody looks at any more.
    fn quiet_before(&self) -> u64 {
        // Pins from now on are later than what was retired so far. Release and
        // Acquire are not needed: the fences of the module's text order it.
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        let threads = self.threads.lock();
        // Acquire: what is retired is used again only after the reads of pins
        // that have ended.
        let pins = threads.lines.iter().map(|line| line.pinned.load(Ordering::Acquire));
        pins.filter(|&pinned| pinned != UNPINNED).min().map_or(now, |oldest| oldest.min(now))
    }

    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.threads.lock().lines.len()
    }
}

impl Local {
    #[inline]
    fn is_of(&self, epochs: &Arc<Epochs>) -> bool {
        // The weak reference keeps the address from being used again.
        self.epochs.as_ptr() == Arc::as_ptr(epochs)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let Some(epochs) = self.epochs.upgrade() else {
            return;
        };
        let mut threads = epochs.threads.lock_though_broken();
        let own = threads.lines.iter().position(|line| Arc::ptr_eq(line, &self.line));
        if let Some(own) = own {
            threads.lines.swap_remove(own);
            threads.hits_of_ended += self.line.hits.load(tally::Ordering::Relaxed);
        }
    }
}

/// An epoch is pinned as long as it lives. It stays on its thread.
pub(crate) struct Guard<'a> {
    epochs: &'a Arc<Epochs>,
    local: Rc<Local>,
}

impl Guard<'_> {
    #[inline]
    pub(super) fn is_of(&self, epochs: &Arc<Epochs>) -> bool {
        Arc::ptr_eq(self.epochs, epochs)
    }

    /// Counts a hit, for [`Epochs::hits`].
    #[inline]
    pub(super) fn count_hit(&self) {
        // Nobody else writes it: no read-modify-write.
        let hits = &self.local.line.hits;
        hits.store(hits.load(tally::Ordering::Relaxed) + 1, tally::Ordering::Relaxed);
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        let guards = self.local.guards.get() - 1;
        self.local.guards.set(guards);
        if guards == 0 {
            // Release: the reads under this pin are over, for whoever sees it.
            self.local.line.pinned.store(UNPINNED, Ordering::Release);
        }
    }
}

/// Numbers of what was taken away, in the order in which it was. Belongs behind
/// a lock, and to one [`Epochs`].
pub(crate) struct Retired {
    /// Each with its epoch; these only rise.
    list: VecDeque<(u64, u32)>,
}

impl Retired {
    /// Room for this many, so that it never allocates again.
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self { list: VecDeque::with_capacity(count) }
    }

    /// Notes a number. No link leads there any more: whoever cleared the last
    /// one is this thread, or was seen by it to have done so.
    pub(crate) fn push(&mut self, epochs: &Epochs, number: u32) {
        // The evictor's fence of the module's text.
        fence(Ordering::SeqCst);
        let now = epochs.now.load(Ordering::Relaxed);
        debug_assert!(self.list.back().is_none_or(|&(last, _)| last <= now), "epochs only rise");
        self.list.push_back((now, number));
    }

    /// Gives those to `each` that nobody looks at any more.
    pub(crate) fn take_free(&mut self, epochs: &Epochs, mut each: impl FnMut(u32)) {
        if self.list.is_empty() {
            return;
        }
        let quiet = epochs.quiet_before();
        while let Some(&(epoch, number)) = self.list.front()
            && epoch < quiet
        {
            self.list.pop_front();
            each(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(retired: &mut Retired, epochs: &Epochs) -> Vec<u32> {
        let mut numbers = Vec::new();
        retired.take_free(epochs, |number| numbers.push(number));
        numbers
    }

    #[test]
    fn what_is_retired_outlasts_the_pins_before_it() {
        let epochs = Epochs::new();
        let mut retired = Retired::with_capacity(4);
        retired.push(&epochs, 1);
        assert_eq!(free(&mut retired, &epochs), [1]);
        let early = epochs.pin();
        retired.push(&epochs, 2);
        assert!(free(&mut retired, &epochs).is_empty());
        std::thread::scope(|scope| {
            // Another thread's pins change nothing.
            scope.spawn(|| drop(epochs.pin()));
        });
        assert!(free(&mut retired, &epochs).is_empty());
        drop(early);
        retired.push(&epochs, 3);
        assert_eq!(free(&mut retired, &epochs), [2, 3]);
        assert!(free(&mut retired, &epochs).is_empty());
    }

    #[test]
    fn a_later_pin_holds_up_only_what_is_retired_after_it() {
        let epochs = Epochs::new();
        let mut retired = Retired::with_capacity(4);
        retired.push(&epochs, 1);
        epochs.now.fetch_add(1, Ordering::Relaxed);
        let _pin = epochs.pin();
        retired.push(&epochs, 2);
        assert_eq!(free(&mut retired, &epochs), [1]);
        assert!(free(&mut retired, &epochs).is_empty());
    }

    #[test]
    fn nested_guards_pin_until_the_last_is_gone() {
        let epochs = Epochs::new();
        let mut retired = Retired::with_capacity(4);
        let (outer, inner) = (epochs.pin(), epochs.pin());
        retired.push(&epochs, 1);
        drop(outer);
        assert!(free(&mut retired, &epochs).is_empty());
        drop(inner);
        assert_eq!(free(&mut retired, &epochs), [1]);
    }

    #[test]
    fn a_thread_that_ends_gives_its_line_back_and_its_hits() {
        let epochs = Epochs::new();
        epochs.pin().count_hit();
        for _ in 0..3 {
            let thread = std::thread::scope(|scope| {
                scope
                    .spawn(|| {
                        epochs.pin().count_hit();
                        epochs.threads()
                    })
                    .join()
            });
            assert_eq!(thread.expect("no panic"), 2);
        }
        assert_eq!((epochs.threads(), epochs.hits()), (1, 4));
    }

    #[test]
    fn a_thread_forgets_epochs_that_are_gone() {
        for _ in 0..3 {
            drop(Epochs::new().pin());
        }
        let epochs = Epochs::new();
        drop(epochs.pin());
        assert_eq!(LOCALS.with(|locals| locals.borrow().len()), 1);
    }
}
