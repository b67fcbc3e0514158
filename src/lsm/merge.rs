//! A walk over all entries of several sorted runs, in their order: every
//! version of every key.

use crate::base::error::Result;
use crate::base::keys::head;
use crate::base::seq::{Tag, compare_internal};
use crate::io::Io;
use crate::lsm::run::RunIter;

/// The walk.
pub(super) struct Merge {
    runs: Vec<RunIter>,
    /// The runs that have an entry, the one whose turn it is **last**.
    order: Vec<Turn>,
}

#[derive(Clone, Copy)]
struct Turn {
    /// The first bytes of the key: most comparisons end with them.
    head: u64,
    run: usize,
}

impl Merge {
    /// From the first entry of all on.
    pub(super) async fn new<I: Io>(io: &I, runs: Vec<RunIter>) -> Result<Self> {
        let order = Vec::with_capacity(runs.len());
        let mut merge = Self { runs, order };
        for run in 0..merge.runs.len() {
            merge.runs[run].seek_to_first(io).await?;
            merge.enqueue(run);
        }
        Ok(merge)
    }

    /// The entry; `None` behind the last.
    pub(super) fn current(&self) -> Option<(&[u8], Tag, &[u8])> {
        let run = &self.runs[self.order.last()?.run];
        let (key, tag) = run.current().expect("it has an entry");
        Some((key, tag, run.value()))
    }

    /// Whether the entry's block is in use in the cache.
    pub(super) fn is_hot(&self) -> bool {
        self.order.last().is_some_and(|turn| self.runs[turn.run].is_hot())
    }

    /// Moves on to the next entry.
    pub(super) async fn advance<I: Io>(&mut self, io: &I) -> Result<()> {
        if let Some(Turn { run, .. }) = self.order.pop() {
            self.runs[run].next(io).await?;
            self.enqueue(run);
        }
        Ok(())
    }

    /// Puts a run that has an entry in its place.
    fn enqueue(&mut self, run: usize) {
        let Some((key, tag)) = self.runs[run].current() else {
            return;
        };
        let head = head(key);
        let is_later = |turn: &Turn| {
            if turn.head != head {
                return turn.head > head;
            }
            let other = self.runs[turn.run].current().expect("it has an entry");
            compare_internal(other, (key, tag)).is_gt()
        };
        let at = self.order.partition_point(is_later);
        self.order.insert(at, Turn { head, run });
    }
}
