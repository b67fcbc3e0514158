//! Which entries of a walk over all versions of all keys somebody may still
//! see: what flushes and compactions write, and what they leave out.

use crate::base::hash::KeyHash;
use crate::base::planted::{Bug, planted};
use crate::base::ranges::{Fragment, RangeTombstones, is_before};
use crate::base::seq::{Kind, SeqNo, Tag};
use crate::lsm::levels::Older;

/// Which versions of a key must be kept beside the newest one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Retain {
    /// All: a snapshot is just being taken.
    All,
    /// The newest at or below each of these, which ascend.
    Bounds(Vec<SeqNo>),
}

impl Retain {
    /// Whether some snapshot sees a version, when the next newer one, or the next
    /// newer range tombstone, has the sequence number `newer`.
    pub(super) fn wants(&self, version: SeqNo, newer: SeqNo) -> bool {
        match self {
            _ if planted(Bug::SnapshotNotRetained) => false,
            Self::All => true,
            Self::Bounds(bounds) => {
                let first = bounds.partition_point(|&bound| bound < version);
                bounds.get(first).is_some_and(|&bound| bound < newer)
            }
        }
    }

    /// Whether an entry with this sequence number, or a lower one, may be kept
    /// for a snapshot although there is a newer version.
    pub(crate) fn reaches(&self, seq: SeqNo) -> bool {
        match self {
            Self::All => true,
            Self::Bounds(bounds) => bounds.first().is_some_and(|&oldest| oldest < seq),
        }
    }
}

/// Judges the entries of a walk, one after the other.
///
/// Versions that no snapshot sees any more are dropped. So is a tombstone,
/// when nothing is older than it: neither a version of its key that is kept
/// here, nor one in a table that the walk leaves alone.
pub(super) struct Keep<'a> {
    retain: &'a Retain,
    older: &'a Older,
    /// All range tombstones of the sources, and the first that is not before the
    /// last key.
    ranges: &'a [Fragment],
    /// The key of the last entry, and its sequence number.
    key: Vec<u8>,
    last: Option<SeqNo>,
    /// Tombstones of this key that are kept if an older version is.
    held: Vec<Tag>,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nobody sees it.
    Drop,
    /// It is kept, behind those that [`Keep::held`] then names. Whether it is
    /// the newest version of its key.
    Keep { is_newest: bool },
}

impl<'a> Keep<'a> {
    /// `ranges` are those of all that is walked over.
    pub(super) fn new(retain: &'a Retain, older: &'a Older, ranges: &'a RangeTombstones) -> Self {
        let ranges = ranges.fragments();
        Self { retain, older, ranges, key: Vec::new(), last: None, held: Vec::new() }
    }

    /// Of the range tombstones that cover `key` the oldest one above `seq`. Keys
    /// ascend from call to call.
    fn deleted(&mut self, key: &[u8], seq: SeqNo) -> Option<SeqNo> {
        while let [first, rest @ ..] = self.ranges {
            if is_before(key, &first.end) {
                return if *first.start <= *key { first.above(seq) } else { None };
            }
            self.ranges = rest;
        }
        None
    }

    /// Judges the next entry. `hash` is its key's.
    pub(super) fn judge(&mut self, key: &[u8], tag: Tag, hash: KeyHash) -> Judgement {
        let newer = self.last.replace(tag.seq()).filter(|_| self.key == key);
        if newer.is_none() {
            self.key.clear();
            self.key.extend_from_slice(key);
            self.held.clear();
        }
        let deleted = self.deleted(key, tag.seq());
        let hidden_by = newer.into_iter().chain(deleted).min();
        if hidden_by.is_some_and(|newer| !self.retain.wants(tag.seq(), newer)) {
            return Judgement::Drop;
        }
        let is_needless = planted(Bug::TombstoneDropped) || !self.older.may_hold(key, hash);
        if tag.kind() == Some(Kind::Delete) && is_needless {
            self.held.push(tag);
            return Judgement::Drop;
        }
        Judgement::Keep { is_newest: newer.is_none() }
    }

    /// Tombstones of the key that was judged last, newest first, that are kept
    /// now: they come before it.
    pub(super) fn held(&mut self) -> impl Iterator<Item = Tag> {
        self.held.drain(..)
    }
}

/// What is kept of the range tombstones of all that is walked over: what some
/// snapshot sees, and the newest where an older table may have something to
/// hide.
pub(super) fn kept_ranges(
    ranges: &RangeTombstones,
    retain: &Retain,
    older: &Older,
) -> RangeTombstones {
    let kept = ranges.fragments().iter().filter_map(|fragment| {
        let mut newer = None;
        let is_kept =
            |&seq: &SeqNo| newer.replace(seq).is_none_or(|newer| retain.wants(seq, newer));
        let seqs = fragment.seqs.iter().copied().filter(is_kept).collect();
        if retain.reaches(fragment.newest()) {
            // An older version may be kept beside it.
            return Some(Fragment { seqs, ..fragment.clone() });
        }
        let span = older.span(&fragment.start, &fragment.end);
        let (start, end) = span.filter(|_| !planted(Bug::RangeTombstoneDropped))?;
        Some(Fragment { start: start.into(), end: end.into(), seqs })
    });
    RangeTombstones::new(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::KeyHasher;

    #[test]
    fn a_version_is_kept_for_the_snapshots_that_see_it() {
        let retain = Retain::Bounds(vec![5, 9]);
        assert!(retain.wants(5, 6), "bound 5 sees exactly it");
        assert!(retain.wants(3, 8), "bound 5 sees 3, not 8");
        assert!(!retain.wants(3, 4), "bound 5 sees 4");
        assert!(!retain.wants(6, 8), "bound 9 sees 8");
        assert!(retain.wants(6, 10));
        assert!(!retain.wants(10, 12), "no snapshot is that new");
        assert!(!Retain::Bounds(Vec::new()).wants(1, 2));
        assert!(Retain::All.wants(1, 2));
        assert!(retain.reaches(6) && !retain.reaches(5) && Retain::All.reaches(0));
        assert!(!Retain::Bounds(Vec::new()).reaches(9));
    }

    /// What is kept of the versions of one key, with nothing older in tables.
    fn kept(retain: &Retain, versions: &[(SeqNo, Kind)]) -> Vec<(SeqNo, Kind)> {
        let (older, hasher) = (Older::default(), KeyHasher::new(&[1; 16]));
        let none = RangeTombstones::default();
        let mut keep = Keep::new(retain, &older, &none);
        let mut kept = Vec::new();
        for (key, versions) in [(b"a", versions), (b"b", versions)] {
            for &(seq, kind) in versions {
                let judgement = keep.judge(key, Tag::new(seq, kind), hasher.hash(key));
                if let Judgement::Keep { .. } = judgement {
                    kept.extend(keep.held().chain([Tag::new(seq, kind)]));
                }
            }
        }
        let pair = |tag: &Tag| (tag.seq(), tag.kind().expect("known"));
        let (a, b) = kept.split_at(kept.len() / 2);
        assert_eq!(a, b, "keys do not touch one another");
        a.iter().map(pair).collect()
    }

    #[test]
    fn of_range_tombstones_the_newest_is_kept_and_what_snapshots_see() {
        let mut ranges = RangeTombstones::default();
        for (start, end, seq) in [(b"a", b"z", 3), (b"a", b"m", 5), (b"c", b"d", 9)] {
            ranges.insert(start, end, seq);
        }
        let kept = |bounds: &[SeqNo]| {
            let retain = Retain::Bounds(bounds.to_vec());
            let kept = kept_ranges(&ranges, &retain, &Older::default());
            let seqs = |f: &Fragment| (f.start[0], f.end[0], f.seqs.clone());
            kept.fragments().iter().map(seqs).collect::<Vec<_>>()
        };
        assert_eq!(kept(&[]), [], "nothing is older");
        assert_eq!(kept(&[9]), [], "who sees the newest needs nothing older");
        let all = [
            (b'a', b'c', vec![5]),
            (b'c', b'd', vec![9, 5]),
            (b'd', b'm', vec![5]),
            (b'm', b'z', vec![3]),
        ];
        assert_eq!(kept(&[2, 6]), all);
        assert_eq!(kept(&[6]), [(b'c', b'd', vec![9, 5])]);
        assert_eq!(kept_ranges(&ranges, &Retain::All, &Older::default()), ranges);
    }

    #[test]
    fn a_tombstone_with_nothing_below_it_goes() {
        use Kind::{Delete, Put};
        let none = Retain::Bounds(Vec::new());
        assert_eq!(kept(&none, &[(9, Delete), (5, Put), (3, Delete)]), []);
        assert_eq!(kept(&none, &[(9, Put), (5, Delete), (3, Put)]), [(9, Put)]);
        let seven = Retain::Bounds(vec![7]);
        let versions = [(9, Delete), (8, Put), (5, Put), (3, Put)];
        assert_eq!(kept(&seven, &versions), [(9, Delete), (5, Put)], "5 must stay hidden");
        assert_eq!(kept(&seven, &[(9, Put), (5, Delete), (3, Put)]), [(9, Put)]);
        assert_eq!(kept(&seven, &[(9, Delete), (5, Delete), (3, Put)]), []);
        let versions = [(9, Delete), (5, Delete), (3, Put)];
        assert_eq!(kept(&Retain::All, &versions), versions);
    }
}
