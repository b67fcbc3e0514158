//! Bounds of ranges of keys.

use std::ops::Bound;

/// The lower and the upper bound of a range of keys.
///
/// ```
/// use ourodb::{KeyBounds, KeyRange};
/// let bounds: KeyBounds = ("a".."b").bounds();
/// ```
pub type KeyBounds = (Bound<Box<[u8]>>, Bound<Box<[u8]>>);
