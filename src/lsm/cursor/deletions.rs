//! What range tombstones of all sources of a walk say of the keys it comes to.
//!
//! The walk asks for keys in its direction. An answer holds for a stretch of
//! keys, so that most questions are a comparison.

use std::sync::Arc;

use crate::base::ranges::{Place, RangeTombstones};
use crate::base::seq::SeqNo;
use crate::lsm::cursor::Direction;

/// Why a key is deleted.
pub(super) struct Deletion {
    /// Older entries of the key are deleted.
    pub(super) seq: SeqNo,
    /// The source whose range tombstone it is.
    pub(super) source: usize,
    /// Where the fragment ends, in the direction of the walk: exclusive forward,
    /// inclusive backward; `None` for nowhere.
    edge: Option<Box<[u8]>>,
}

/// An answer.
struct Stretch {
    deletion: Option<Deletion>,
    /// Forward the first key that it does not hold for, backward the last that it
    /// does; `None` when it holds to the end.
    limit: Option<Box<[u8]>>,
}

/// The range tombstones of one source: of a run those of its tables, in order.
struct Cover {
    source: usize,
    parts: Vec<Arc<RangeTombstones>>,
}

impl Cover {
    fn place(&self, key: &[u8]) -> Place<'_> {
        let start = |part: &'_ Arc<RangeTombstones>| Arc::clone(&part.fragments()[0].start);
        let behind = self.parts.partition_point(|part| *start(part) <= *key);
        let next = self.parts.get(behind).map(|part| &part.fragments()[0].start[..]);
        match behind.checked_sub(1).map(|at| self.parts[at].place(key)) {
            None => Place::Between(None, next),
            Some(Place::Between(before, None)) => Place::Between(before, next),
            Some(place) => place,
        }
    }
}

/// See the module's text.
pub(super) struct Deletions {
    direction: Direction,
    bound: SeqNo,
    /// Newest first, only those that have some.
    covers: Vec<Cover>,
    last: Option<Stretch>,
}

impl Deletions {
    /// As far as they are visible at `bound`.
    pub(super) fn new(direction: Direction, bound: SeqNo) -> Self {
        Self { direction, bound, covers: Vec::new(), last: None }
    }

    /// Adds those of a source, which is older than those before.
    pub(super) fn add<'a>(
        &mut self,
        source: usize,
        parts: impl IntoIterator<Item = &'a Arc<RangeTombstones>>,
    ) {
        let parts = parts.into_iter().filter(|part| !part.is_empty()).cloned();
        let parts: Vec<_> = parts.collect();
        if !parts.is_empty() {
            self.covers.push(Cover { source, parts });
        }
    }

    /// What deletes older entries of a key, which follows that asked for last in
    /// the direction of the walk, or is the same.
    pub(super) fn of(&mut self, key: &[u8]) -> Option<&Deletion> {
        if self.covers.is_empty() {
            return None;
        }
        let direction = self.direction;
        let holds = |stretch: &Stretch| match (direction, &stretch.limit) {
            (_, None) => true,
            (Direction::Forward, Some(limit)) => *key < **limit,
            (Direction::Backward, Some(limit)) => *key >= **limit,
        };
        if !self.last.as_ref().is_some_and(holds) {
            self.last = Some(self.look(key));
        }
        self.last.as_ref()?.deletion.as_ref()
    }

    /// Where the range tombstone that was named last ends; `None` for nowhere.
    pub(super) fn edge(&self) -> Option<Box<[u8]>> {
        self.last.as_ref()?.deletion.as_ref()?.edge.clone()
    }

    fn look(&self, key: &[u8]) -> Stretch {
        let mut limit: Option<&[u8]> = None;
        let mut deletion = None;
        for cover in &self.covers {
            let place = cover.place(key);
            let edge = match (&place, self.direction) {
                (Place::In(fragment), Direction::Forward) => {
                    Some(&fragment.end[..]).filter(|end| !end.is_empty())
                }
                (Place::In(fragment), Direction::Backward) => Some(&fragment.start[..]),
                (Place::Between(_, next), Direction::Forward) => *next,
                (Place::Between(before, _), Direction::Backward) => *before,
            };
            limit = match (self.direction, limit, edge) {
                (_, None, edge) => edge,
                (_, limit, None) => limit,
                (Direction::Forward, Some(limit), Some(edge)) => Some(limit.min(edge)),
                (Direction::Backward, Some(limit), Some(edge)) => Some(limit.max(edge)),
            };
            if let Place::In(fragment) = place
                && let Some(seq) = fragment.visible(self.bound)
            {
                // Those of older sources are older.
                let edge = edge.map(Box::from);
                deletion = Some(Deletion { seq, source: cover.source, edge });
                break;
            }
        }
        Stretch { deletion, limit: limit.map(Box::from) }
    }
}
