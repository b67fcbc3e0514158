//! Range tombstones: which stretches of keys were deleted, and when.
//!
//! A range is `[start, end)`; an empty `end` stands for "no end", as no key is
//! below the empty one. No bound is longer than the longest key: where one would
//! be, the next possible key takes its place ([`successor`]).
//!
//! Ranges are kept *fragmented*: disjoint fragments in the order of their keys,
//! each with all the sequence numbers at which it was deleted, newest first. So
//! one binary search finds what deletes a key.

use std::sync::Arc;

use crate::base::keys::KeyBounds;
use crate::base::limits::KEY_BYTES_MAX;
use crate::base::seq::SeqNo;

/// The smallest key above `key`; `None` for the largest of all.
pub(crate) fn successor(key: &[u8]) -> Option<Box<[u8]>> {
    if key.len() < KEY_BYTES_MAX {
        let mut next = Vec::with_capacity(key.len() + 1);
        next.extend_from_slice(key);
        next.push(0);
        return Some(next.into());
    }
    let last = key.iter().rposition(|&byte| byte != 0xff)?;
    let mut next = key[..=last].to_vec();
    next[last] += 1;
    Some(next.into())
}

/// A key that no key below `end` is above: the largest of them, or `end` itself.
/// Greater ends have no smaller ones.
pub(crate) fn reach(end: &[u8]) -> Box<[u8]> {
    match end {
        [] => vec![0xff; KEY_BYTES_MAX].into(),
        [last @ .., 0] => last.into(),
        _ => end.into(),
    }
}

/// Whether `key` is before `end`, an exclusive bound.
pub(crate) fn is_before(key: &[u8], end: &[u8]) -> bool {
    end.is_empty() || key < end
}

/// The lesser of two exclusive bounds.
fn least<'a>(a: &'a Arc<[u8]>, b: &'a Arc<[u8]>) -> &'a Arc<[u8]> {
    if !a.is_empty() && is_before(a, b) { a } else { b }
}

/// Start and end of the keys between these bounds; `None` when there are none.
pub(crate) fn normal((start, end): &KeyBounds) -> Option<(Box<[u8]>, Box<[u8]>)> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let start = match start {
        Unbounded => Box::default(),
        Included(key) => key.clone(),
        Excluded(key) => successor(key)?,
    };
    let end = match end {
        Unbounded => Box::default(),
        Excluded(key) if key.is_empty() => return None,
        Excluded(key) => key.clone(),
        Included(key) => successor(key).unwrap_or_default(),
    };
    is_before(&start, &end).then_some((start, end))
}

/// Keys that share their history of range deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// The first key.
    pub(crate) start: Arc<[u8]>,
    /// Exclusive; empty for no end.
    pub(crate) end: Arc<[u8]>,
    /// Descending; at least one.
    pub(crate) seqs: Vec<SeqNo>,
}

impl Fragment {
    /// The newest number.
    pub(crate) fn newest(&self) -> SeqNo {
        self.seqs[0]
    }

    /// The newest number at or below `bound`.
    pub(crate) fn visible(&self, bound: SeqNo) -> Option<SeqNo> {
        let older = self.seqs.partition_point(|&seq| seq > bound);
        self.seqs.get(older).copied()
    }

    /// The oldest number above `seq`.
    pub(crate) fn above(&self, seq: SeqNo) -> Option<SeqNo> {
        let newer = self.seqs.partition_point(|&other| other > seq);
        newer.checked_sub(1).map(|at| self.seqs[at])
    }

    fn bytes(&self) -> usize {
        // Each bound stands behind two counts.
        let bounds = self.start.len() + self.end.len() + 4 * size_of::<usize>();
        size_of::<Self>() + bounds + size_of_val(&self.seqs[..])
    }
}

/// What [`RangeTombstones::place`] says of a key.
pub(crate) enum Place<'a> {
    /// It is in this fragment.
    In(&'a Fragment),
    /// It is between these bounds, and so in none: the end of the fragment
    /// before, and the start of the one behind.
    Between(Option<&'a [u8]>, Option<&'a [u8]>),
}

/// Fragments, disjoint and in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeTombstones {
    fragments: Vec<Fragment>,
    bytes: usize,
    /// Sequence numbers of all fragments together.
    numbers: usize,
}

impl RangeTombstones {
    /// Of fragments that are disjoint and in order. Neighbours with the same
    /// numbers become one.
    pub(crate) fn new(fragments: impl IntoIterator<Item = Fragment>) -> Self {
        let mut joined: Vec<Fragment> = Vec::new();
        for fragment in fragments {
            match joined.last_mut() {
                Some(last) if last.end == fragment.start && last.seqs == fragment.seqs => {
                    last.end = fragment.end;
                }
                _ => joined.push(fragment),
            }
        }
        let is_apart = |pair: &[Fragment]| !pair[0].end.is_empty() && pair[0].end <= pair[1].start;
        assert!(joined.windows(2).all(is_apart), "fragments are disjoint and in order");
        let bytes = joined.iter().map(Fragment::bytes).sum();
        let numbers = joined.iter().map(|fragment| fragment.seqs.len()).sum();
        Self { fragments: joined, bytes, numbers }
    }

    /// All of these, which may overlap.
    pub(crate) fn union(all: &[&Self]) -> Self {
        // Behind each bound other fragments cover the keys than before it.
        let bounds = |f: &Fragment| [Arc::clone(&f.start), Arc::clone(&f.end)];
        let fragments = all.iter().flat_map(|one| &one.fragments);
        let mut edges: Vec<Arc<[u8]>> = fragments.flat_map(bounds).collect();
        // An empty one is a start or no end: the latter is added below.
        let is_endless = all.iter().any(|one| one.is_endless());
        edges.sort_unstable();
        edges.dedup();
        let mut at = vec![0; all.len()];
        let mut pieces = Vec::new();
        for (i, start) in edges.iter().enumerate() {
            let end = match edges.get(i + 1) {
                Some(end) => Arc::clone(end),
                None if is_endless => Arc::default(),
                None => break,
            };
            let mut seqs = Vec::new();
            for (one, at) in all.iter().zip(&mut at) {
                let is_past = |f: &&Fragment| !is_before(start, &f.end);
                *at += one.fragments[*at..].iter().take_while(is_past).count();
                if let Some(fragment) = one.fragments.get(*at).filter(|f| f.start <= *start) {
                    seqs.extend_from_slice(&fragment.seqs);
                }
            }
            if !seqs.is_empty() {
                seqs.sort_unstable_by_key(|&seq| std::cmp::Reverse(seq));
                seqs.dedup();
                pieces.push(Fragment { start: Arc::clone(start), end, seqs });
            }
        }
        Self::new(pieces)
    }

    fn is_endless(&self) -> bool {
        self.fragments.last().is_some_and(|last| last.end.is_empty())
    }

    /// Adds a range, which is not empty. Numbers may come in any order.
    pub(crate) fn insert(&mut self, start: &[u8], end: &[u8], seq: SeqNo) {
        assert!(is_before(start, end), "an empty range deletes nothing");
        let (mut from, end) = (Arc::<[u8]>::from(start), Arc::<[u8]>::from(end));
        let first = self.fragments.partition_point(|f| !is_before(&from, &f.end));
        let touched = self.fragments[first..].iter().take_while(|f| is_before(&f.start, &end));
        let mut pieces = Vec::new();
        // Behind the end of an endless fragment there is nothing.
        let mut is_over = false;
        let mut count = 0;
        for fragment in touched {
            count += 1;
            let Fragment { start: old_start, end: old_end, seqs } = fragment;
            if *old_start < from {
                let head = Arc::clone(&from);
                pieces.push(Fragment { end: head, ..fragment.clone() });
            } else if from < *old_start {
                let (start, end) = (from, Arc::clone(old_start));
                pieces.push(Fragment { start, end, seqs: vec![seq] });
                from = Arc::clone(old_start);
            }
            let mut both = Vec::with_capacity(seqs.len() + 1);
            let newer = seqs.partition_point(|&other| other > seq);
            both.extend_from_slice(&seqs[..newer]);
            both.push(seq);
            both.extend_from_slice(&seqs[newer..]);
            let to = least(old_end, &end);
            pieces.push(Fragment { start: from, end: Arc::clone(to), seqs: both });
            if *to == end && *old_end != end {
                let rest = Fragment { start: Arc::clone(&end), ..fragment.clone() };
                pieces.push(rest);
            }
            from = Arc::clone(to);
            is_over = *to == end;
        }
        if !is_over {
            pieces.push(Fragment { start: from, end, seqs: vec![seq] });
        }
        let old = &self.fragments[first..first + count];
        self.bytes -= old.iter().map(Fragment::bytes).sum::<usize>();
        self.bytes += pieces.iter().map(Fragment::bytes).sum::<usize>();
        self.numbers -= old.iter().map(|fragment| fragment.seqs.len()).sum::<usize>();
        self.numbers += pieces.iter().map(|fragment| fragment.seqs.len()).sum::<usize>();
        self.fragments.splice(first..first + count, pieces);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// How many fragments there are.
    pub(crate) fn len(&self) -> usize {
        self.fragments.len()
    }

    /// How many sequence numbers they have, all together.
    pub(crate) fn numbers(&self) -> usize {
        self.numbers
    }

    pub(crate) fn fragments(&self) -> &[Fragment] {
        &self.fragments
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where a key is among the fragments.
    pub(crate) fn place(&self, key: &[u8]) -> Place<'_> {
        let behind = self.fragments.partition_point(|f| *f.start <= *key);
        let before = behind.checked_sub(1).map(|at| &self.fragments[at]);
        match before {
            Some(fragment) if is_before(key, &fragment.end) => Place::In(fragment),
            before => {
                let next = self.fragments.get(behind).map(|f| &f.start[..]);
                Place::Between(before.map(|f| &f.end[..]), next)
            }
        }
    }

    /// The fragment that a key is in.
    pub(crate) fn covering(&self, key: &[u8]) -> Option<&Fragment> {
        match self.place(key) {
            Place::In(fragment) => Some(fragment),
            Place::Between(..) => None,
        }
    }

    /// The newest number at or below `bound` at which a key was deleted.
    pub(crate) fn newest(&self, key: &[u8], bound: SeqNo) -> Option<SeqNo> {
        self.covering(key)?.visible(bound)
    }

    /// From which number on all keys from `first` to `last` are deleted by what is
    /// newer than `seq`: whoever sees up to that number, or further, sees nothing of
    /// them that is at or below `seq`. `None` when some of them are not.
    pub(crate) fn covers(&self, first: &[u8], last: &[u8], seq: SeqNo) -> Option<SeqNo> {
        let at = self.fragments.partition_point(|f| !is_before(first, &f.end));
        let mut fragments = self.fragments[at..].iter();
        let fragment = fragments.next().filter(|f| *f.start <= *first)?;
        let (mut deleted, mut end) = (fragment.above(seq)?, &fragment.end);
        while !is_before(last, end) {
            let next = fragments.next().filter(|f| f.start == *end)?;
            deleted = deleted.max(next.above(seq)?);
            end = &next.end;
        }
        Some(deleted)
    }

    /// The lowest and the highest number.
    pub(crate) fn seq_range(&self) -> Option<(SeqNo, SeqNo)> {
        let all = || self.fragments.iter().flat_map(|f| &f.seqs).copied();
        all().min().zip(all().max())
    }
}

#[cfg(test)]
mod tests;
