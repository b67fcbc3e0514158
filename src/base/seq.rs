//! Sequence numbers, kinds, and the tag that joins the two.
//!
//! The internal key is (key, tag). It sorts by key ascending, bytewise, and
//! then by tag **descending**, so that the newest version of a key comes first.

#![allow(unreachable_pub, reason = "public only for the benches")]

/// A sequence number: the order of writes within one shard. The first write
/// of a shard has number 1; 0 means "before every write". 56 bits on disk.
pub(crate) type SeqNo = u64;

/// The largest sequence number.
pub(crate) const SEQ_MAX: SeqNo = (1 << 56) - 1;

/// What an entry says about its key. The numbers are on disk, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The key has this value.
    Put = 1,
    /// The key is gone: a tombstone.
    Delete = 2,
    /// Keys from this one up to the one that stands in place of a value are gone.
    RangeDelete = 3,
    /// The key has the value that is in a value file where this one says.
    Indirect = 6,
}

impl Kind {
    /// The kind with this number, if this version of the engine knows it.
    /// Reserved for later versions: 4 merge, 5 put with expiry, 7 prepare,
    /// 8 decide, 9 commit, 10 mark.
    pub(crate) fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Put),
            2 => Some(Self::Delete),
            3 => Some(Self::RangeDelete),
            6 => Some(Self::Indirect),
            _ => None,
        }
    }
}

/// Sequence number and kind in one word: `seq << 8 | kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u64);

impl Tag {
    /// The tag of a version.
    pub fn new(seq: u64, kind: Kind) -> Self {
        debug_assert!(seq <= SEQ_MAX);
        Self(seq << 8 | kind as u64)
    }

    /// The largest tag a version visible at `bound` can have: seeking to
    /// (key, `visible_at(bound)`) finds the newest version at or below it.
    pub fn visible_at(bound: SeqNo) -> Self {
        Self(bound << 8 | 0xff)
    }

    pub(crate) fn seq(self) -> SeqNo {
        self.0 >> 8
    }

    /// The kind; `None` when a later version of the engine wrote it.
    pub(crate) fn kind(self) -> Option<Kind> {
        Kind::from_u8(self.0 as u8)
    }

    pub(crate) fn to_u64(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_u64(raw: u64) -> Self {
        Self(raw)
    }
}

/// The order of internal keys: key ascending, tag descending.
pub(crate) fn compare_internal(a: (&[u8], Tag), b: (&[u8], Tag)) -> std::cmp::Ordering {
    a.0.cmp(b.0).then(b.1.cmp(&a.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_version_sorts_first() {
        let old = (&b"k"[..], Tag::new(4, Kind::Put));
        let new = (&b"k"[..], Tag::new(5, Kind::Delete));
        assert!(compare_internal(new, old).is_lt());
        assert!(compare_internal((b"k", Tag::visible_at(5)), new).is_lt());
        assert!(compare_internal((b"k", Tag::visible_at(4)), new).is_gt());
        assert!(compare_internal(old, (b"k2", Tag::new(9, Kind::Put))).is_lt());
    }

    #[test]
    fn tag_round_trips() {
        let tag = Tag::new(SEQ_MAX, Kind::Delete);
        assert_eq!((tag.seq(), tag.kind()), (SEQ_MAX, Some(Kind::Delete)));
        assert_eq!(Tag::from_u64(tag.to_u64()), tag);
        assert_eq!(Tag::from_u64(77 << 8 | 200).kind(), None);
    }
}
