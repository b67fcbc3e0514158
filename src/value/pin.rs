//! When nobody can read a dropped value any more.
//!
//! Readers find references through a view of their shard (or in the mutable
//! memtable, and take the view of that moment along), and hold it until they
//! have read the value. Each view holds a [`Pin`]. A commit that drops values
//! gives the view that follows a new pin, hangs what it dropped on the one
//! before, and links that to the new one. A pin ends with the last hand on it:
//! views of its time, and the pin before. So when it ends, all earlier views
//! have ended, too, and with them everybody who might have read what it holds.
//!
//! The last hand may let go on any thread; what is to be done then is left to
//! the shard's owner.

use std::sync::Arc;

use crate::base::error::Error;
use crate::base::ids::FileId;
use crate::base::sync::Mutex;
use crate::format::value::Extent;
use crate::runtime::Event;
use crate::value::growing::Growing;

/// Values that a commit dropped.
#[derive(Debug)]
pub(crate) struct Garbage {
    pub(crate) extents: Vec<Extent>,
    /// One more than the highest of their numbers in the manifest.
    pub(crate) below: u64,
}

/// What an owner is to clean up in the value files of a shard.
pub(super) enum Waste {
    /// Of a commit.
    Garbage(Garbage),
    /// A place that nothing ever referred to.
    Place(Extent),
    /// A file that takes no more values, with nothing in it.
    Unused(FileId),
    /// A file that was not made to its end.
    Unfinished(FileId),
}

/// Tells an owner that there is something to do for the value files of its
/// shards.
#[derive(Clone, Default)]
pub(crate) struct ValueWork {
    /// Files to sync.
    pub(crate) syncs: Arc<Event>,
    /// Space to give back.
    pub(crate) waste: Arc<Event>,
}

/// What is left to the owner, for the value files of one shard.
#[derive(Default)]
pub(super) struct Queue {
    syncs: Mutex<Syncs>,
    waste: Mutex<Vec<Waste>>,
    work: ValueWork,
}

#[derive(Default)]
struct Syncs {
    list: Vec<Arc<Growing>>,
    /// Why nobody does them any more.
    failed: Option<Error>,
}

impl Queue {
    pub(super) fn new(work: &ValueWork) -> Arc<Self> {
        let (syncs, waste) = (Mutex::default(), Mutex::default());
        Arc::new(Self { syncs, waste, work: work.clone() })
    }

    /// To be synced for those who cannot do it.
    pub(super) fn push_sync(&self, growing: Arc<Growing>) {
        let failed = {
            let mut syncs = self.syncs.lock();
            if syncs.failed.is_none() {
                syncs.list.push(Arc::clone(&growing));
            }
            syncs.failed.clone()
        };
        match failed {
            None => self.work.syncs.set(),
            Some(cause) => growing.fail(&cause),
        }
    }

    pub(super) fn take_syncs(&self) -> Vec<Arc<Growing>> {
        std::mem::take(&mut self.syncs.lock().list)
    }

    /// Nobody does syncs for others any more.
    pub(super) fn fail_syncs(&self, cause: &Error) {
        self.syncs.lock().failed = Some(cause.clone());
        for growing in self.take_syncs() {
            growing.fail(cause);
        }
    }

    /// No shard's lock may be held: this wakes the owner.
    pub(super) fn push(&self, waste: Waste) {
        self.waste.lock().push(waste);
        self.work.waste.set();
    }

    pub(super) fn take(&self) -> Vec<Waste> {
        std::mem::take(&mut *self.waste.lock())
    }
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Pin {
    link: Mutex<Link>,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Link {
    garbage: Option<Garbage>,
    next: Option<Arc<Pin>>,
}

impl Pin {
    pub(super) fn new(queue: &Arc<Queue>) -> Arc<Self> {
        Arc::new(Self { link: Mutex::default(), queue: Arc::clone(queue) })
    }

    /// The pin of the next view, made when a commit dropped `garbage`. This one
    /// is the newest so far.
    pub(crate) fn succeed(&self, garbage: Garbage) -> Arc<Self> {
        let next = Self::new(&self.queue);
        let mut link = self.link.lock();
        assert!(link.next.is_none(), "a pin has one successor");
        *link = Link { garbage: Some(garbage), next: Some(Arc::clone(&next)) };
        next
    }

    fn release(&self) -> Option<Arc<Self>> {
        let Link { garbage, next } = std::mem::take(&mut *self.link.lock());
        if let Some(garbage) = garbage {
            self.queue.push(Waste::Garbage(garbage));
        }
        next
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // In a loop: the chain behind a scan that took long is long.
        let mut next = self.release();
        while let Some(last) = next.and_then(Arc::into_inner) {
            next = last.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn garbage(below: u64) -> Garbage {
        Garbage { extents: Vec::new(), below }
    }

    fn released(queue: &Queue) -> Vec<u64> {
        let below = |waste| match waste {
            Waste::Garbage(garbage) => garbage.below,
            _ => unreachable!("there is no other"),
        };
        queue.take().into_iter().map(below).collect()
    }

    #[test]
    fn garbage_is_released_when_every_earlier_view_is_gone_and_in_order() {
        let queue = Arc::<Queue>::default();
        let first = Pin::new(&queue);
        let second = first.succeed(garbage(1));
        let reader_of_second = Arc::clone(&second);
        let third = second.succeed(garbage(2));
        drop(second);
        assert_eq!(released(&queue), [] as [u64; 0], "the first pin is held");
        drop(reader_of_second);
        assert_eq!(released(&queue), [] as [u64; 0], "and the second by it");
        drop(first);
        assert_eq!(released(&queue), [1, 2]);
        let fourth = third.succeed(garbage(3));
        drop(third);
        assert_eq!(released(&queue), [3]);
        drop(fourth);
        assert_eq!(released(&queue), [] as [u64; 0]);
    }

    #[test]
    fn a_long_chain_ends_without_a_deep_stack() {
        let queue = Arc::<Queue>::default();
        let first = Pin::new(&queue);
        let mut last = Arc::clone(&first);
        for below in 0..200_000 {
            last = last.succeed(garbage(below));
        }
        assert_eq!(released(&queue).len(), 0);
        drop(first);
        assert_eq!(released(&queue).len(), 200_000);
        drop(last);
    }
}
