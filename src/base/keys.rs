//! Bounds of ranges of keys, and the beginnings of keys.

use std::ops::Bound;

/// The lower and the upper bound of a range of keys.
///
/// ```
/// use ourodb::{KeyBounds, KeyRange};
/// let bounds: KeyBounds = ("a".."b").bounds();
/// ```
pub type KeyBounds = (Bound<Box<[u8]>>, Bound<Box<[u8]>>);

/// The first eight bytes of a key, zeroes behind a shorter one: numbers in the
/// order of their keys, but for keys with equal ones.
#[inline]
pub(crate) fn head(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_in_the_order_of_their_keys() {
        let keys: [&[u8]; 8] =
            [b"", b"\0", b"a", b"a\0", b"ab", b"abcdefgh", b"abcdefghi", b"\xff\xff"];
        assert!(keys.windows(2).all(|pair| head(pair[0]) <= head(pair[1])));
        assert!(head(b"a") < head(b"b"));
    }
}
