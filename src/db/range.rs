//! Ranges of keys.

use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use crate::base::keys::KeyBounds;

/// A range of keys: `a..b`, `a..=b`, `a..`, `..b`, `..=b`, `..`, or a pair of
/// [`Bound`]s, over anything that derefs to bytes.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// use std::ops::Bound;
/// db.scan(b"a"..b"b");
/// db.scan("a"..="b");
/// db.scan(vec![1]..);
/// db.scan(..);
/// db.scan((Bound::Excluded("a"), Bound::Unbounded));
/// # Ok::<(), ourodb::Error>(())
/// ```
pub trait KeyRange {
    /// Lower and upper bound.
    ///
    /// ```
    /// use ourodb::KeyRange;
    /// use std::ops::Bound;
    /// let (start, end) = (b"a"..b"b").bounds();
    /// assert_eq!(start, Bound::Included(Box::from(*b"a")));
    /// assert_eq!(end, Bound::Excluded(Box::from(*b"b")));
    /// ```
    fn bounds(&self) -> KeyBounds;
}

fn own(bound: Bound<&impl AsRef<[u8]>>) -> Bound<Box<[u8]>> {
    bound.map(|key| Box::from(key.as_ref()))
}

impl KeyRange for RangeFull {
    fn bounds(&self) -> KeyBounds {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

macro_rules! key_range {
    ($($range:ty),*) => {$(
        impl<K: AsRef<[u8]>> KeyRange for $range {
            fn bounds(&self) -> KeyBounds {
                use std::ops::RangeBounds;
                (own(self.start_bound()), own(self.end_bound()))
            }
        }
    )*};
}

key_range!(
    Range<K>,
    RangeFrom<K>,
    RangeInclusive<K>,
    RangeTo<K>,
    RangeToInclusive<K>,
    (Bound<K>, Bound<K>)
);

/// The keys that start with `prefix`.
pub(super) fn prefix(prefix: &[u8]) -> KeyBounds {
    // The end is the first key behind all of them: the prefix without its
    // trailing 0xff bytes, the last remaining byte raised by one.
    let end = match prefix.iter().rposition(|&byte| byte != 0xff) {
        None => Bound::Unbounded,
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            Bound::Excluded(end.into_boxed_slice())
        }
    };
    (Bound::Included(prefix.into()), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let end = |p: &[u8]| prefix(p).1.map(Vec::from);
        assert_eq!(end(b"ab"), Bound::Excluded(b"ac".to_vec()));
        assert_eq!(end(&[1, 0xff, 0xff]), Bound::Excluded(vec![2]));
        assert_eq!(end(&[0xff]), Bound::Unbounded);
        assert_eq!(end(b""), Bound::Unbounded);
    }
}
