//! Range tombstones as a property of a table.
//!
//! A count, then the fragments in order. It is a property that must be
//! understood: who does not know it would return what was deleted.

use std::sync::Arc;

use crate::base::limits::KEY_BYTES_MAX;
use crate::base::ranges::{Fragment, RangeTombstones, is_before};
use crate::base::seq::{SEQ_MAX, SeqNo};
use crate::format::header::{ByteReader, DecodeError};
use crate::format::varint;

/// Appends the encoded fragments.
pub(super) fn encode(ranges: &RangeTombstones) -> Vec<u8> {
    let mut out = Vec::new();
    let number = |out: &mut Vec<u8>, value: usize| {
        let (bytes, len) = varint::encode(value as u32);
        out.extend_from_slice(&bytes[..len]);
    };
    number(&mut out, ranges.len());
    for Fragment { start, end, seqs } in ranges.fragments() {
        number(&mut out, start.len());
        number(&mut out, end.len());
        number(&mut out, seqs.len());
        out.extend_from_slice(start);
        out.extend_from_slice(end);
        for seq in seqs {
            out.extend_from_slice(&seq.to_le_bytes());
        }
    }
    out
}

/// Decodes what fills `bytes`, which start at `at` of what errors speak of.
pub(super) fn decode(bytes: &[u8], at: usize) -> Result<RangeTombstones, DecodeError> {
    let mut reader = ByteReader::new(bytes);
    let mut fragments: Vec<Fragment> = Vec::new();
    let count = reader.varint()?;
    for _ in 0..count {
        let offset = at + reader.position();
        let [start, end, seqs] = [reader.varint()?, reader.varint()?, reader.varint()?];
        let fragment = Fragment {
            start: key(&mut reader, start)?,
            end: key(&mut reader, end)?,
            seqs: numbers(&mut reader, seqs)?,
        };
        let is_behind =
            fragments.last().is_none_or(|last| !last.end.is_empty() && last.end <= fragment.start);
        let seqs = &fragment.seqs;
        let is_sound = is_before(&fragment.start, &fragment.end)
            && seqs.windows(2).all(|pair| pair[0] > pair[1])
            && seqs.first().is_some_and(|&seq| seq <= SEQ_MAX)
            && seqs.last().is_some_and(|&seq| seq > 0);
        if !is_behind || !is_sound {
            return Err(DecodeError::corrupt(offset, "range tombstones that make no sense"));
        }
        fragments.push(fragment);
    }
    if !reader.is_empty() || fragments.is_empty() {
        return Err(DecodeError::corrupt(at, "the range tombstones are not as many as stated"));
    }
    Ok(RangeTombstones::new(fragments))
}

fn key(reader: &mut ByteReader<'_>, len: u32) -> Result<Arc<[u8]>, DecodeError> {
    if len as usize > KEY_BYTES_MAX {
        return Err(DecodeError::corrupt(reader.position(), format!("a key of {len} bytes")));
    }
    Ok(reader.take(len as usize)?.into())
}

fn numbers(reader: &mut ByteReader<'_>, count: u32) -> Result<Vec<SeqNo>, DecodeError> {
    let bytes = reader.take((count as usize).saturating_mul(size_of::<SeqNo>()))?;
    let (numbers, _) = bytes.as_chunks();
    Ok(numbers.iter().map(|&number| SeqNo::from_le_bytes(number)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RangeTombstones {
        let mut ranges = RangeTombstones::default();
        ranges.insert(b"", b"a", 4);
        ranges.insert(b"k1", b"k7", 5);
        ranges.insert(b"k3", b"k9", SEQ_MAX);
        ranges.insert(b"x", b"", 7);
        ranges
    }

    #[test]
    fn round_trip() {
        let bytes = encode(&sample());
        assert_eq!(decode(&bytes, 0), Ok(sample()));
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], 0).is_err(), "{len}");
        }
        assert!(decode(&[&bytes[..], &[0]].concat(), 0).is_err());
        assert!(decode(&encode(&RangeTombstones::default()), 0).is_err(), "none at all");
    }

    /// Whatever passes is in order, and small.
    #[test]
    fn hostile_bytes() {
        let sound = encode(&sample());
        let mut refused = 0;
        for i in 0..sound.len() {
            for pattern in 1..=255 {
                let mut hostile = sound.clone();
                hostile[i] ^= pattern;
                match decode(&hostile, 0) {
                    Ok(ranges) => assert!(ranges.len() <= sample().len()),
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > 20 * 200, "{refused}");
        let huge = [1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(decode(&huge, 0).is_err());
        for hostile in [
            // Empty, endless before another one, out of order, without numbers.
            &[1, 1, 1, 1, b'a', b'a', 1, 0, 0, 0, 0, 0, 0, 0][..],
            &[2, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b'a', 1, 0, 0, 0, 0, 0, 0, 0],
            &[
                2, 1, 1, 1, b'a', b'c', 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, b'b', b'd', 1, 0, 0, 0, 0,
                0, 0, 0,
            ],
            &[1, 1, 1, 0, b'a', b'b'],
            &[1, 1, 1, 1, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 1, 1, 1, b'a', b'b', 1, 0, 0, 0, 0, 0, 0, 1],
        ] {
            let error = decode(hostile, 0).expect_err("hostile");
            assert!(error.reason.contains("make no sense"), "{error:?}");
        }
    }
}
