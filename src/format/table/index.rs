//! An index: for each data block a separator and the number of units. Each
//! partition has one, and one with partitions for blocks leads to those.
//!
//! A separator is an internal key at or after the last entry of its block and
//! before every lookup that belongs to the next block: the last entry's own
//! key and tag, since versions of one key may lie on both sides; or, where the
//! user keys differ, a shorter key between the two, with tag 0. So an internal
//! key can be in one block only: the first whose separator is not before it.
//!
//! In memory the index is a few arrays without pointers. What all separators
//! start with is kept once, and eight bytes after that as a number, so that
//! most steps of a search compare two integers.

use std::cmp::Ordering;
use std::ops::Range;

use crate::base::keys::head;
use crate::base::limits::{KEY_BYTES_MAX, UNIT, UNIT_U64};
use crate::base::seq::{Tag, compare_internal};
use crate::format::block::BLOCK_BYTES_MAX;
use crate::format::header::{ByteReader, DecodeError};
use crate::format::table::heads::Heads;
use crate::format::varint;

/// The most blocks, units and bytes of separators: each is kept in 32 bits.
const MAX: usize = u32::MAX as usize;

/// What each block takes in the index at least: tag and two lengths.
const ENTRY_BYTES_MIN: usize = 8 + 1 + 1;

/// What it takes without its separator's bytes at most: tag and two lengths.
const ENTRY_BYTES_BARE: usize = 8 + 1 + 3;

const _: () = assert!(8 + 1 + 8 + 4 + 4 <= Index::BLOCK_BYTES_MORE + ENTRY_BYTES_MIN as u64);

/// A separator between two blocks, kept apart: where its key ends, its tag,
/// and the units of its block.
type Entry = (usize, Tag, usize);

/// Collects the separators of a table that is being written.
#[derive(Default)]
pub(crate) struct IndexBuilder {
    keys: Vec<u8>,
    entries: Vec<Entry>,
}

impl IndexBuilder {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a block of so many units whose last entry is `last`, and which is
    /// followed by one that starts with the key `next`, if by any.
    pub(crate) fn add(&mut self, last: (&[u8], Tag), next: Option<&[u8]>, units: usize) {
        assert!((1..=BLOCK_BYTES_MAX / UNIT).contains(&units));
        match next.and_then(|next| shortened(last.0, next)) {
            Some(Shortened { common, byte }) => {
                self.keys.extend_from_slice(&last.0[..common]);
                self.keys.push(byte);
                self.entries.push((self.keys.len(), Tag::from_u64(0), units));
            }
            None => {
                self.keys.extend_from_slice(last.0);
                self.entries.push((self.keys.len(), last.1, units));
            }
        }
        assert!(self.keys.len() <= MAX && self.entries.len() < MAX);
    }

    /// How many blocks were added.
    pub(crate) fn blocks(&self) -> usize {
        self.entries.len()
    }

    /// At least as many bytes as [`IndexBuilder::encode`] makes.
    pub(crate) fn bytes_max(&self) -> usize {
        self.keys.len() + ENTRY_BYTES_BARE * self.entries.len() + 8
    }

    /// The bytes that [`Index::decode`] reads.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let first = self.entries.first().map_or(&[][..], |&(end, ..)| &self.keys[..end]);
        let last_start = self.entries.iter().nth_back(1).map_or(0, |&(end, ..)| end);
        let last = &self.keys[last_start..];
        // The keys are sorted: what the first and the last share, all share.
        let prefix_bytes = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let mut out = Vec::with_capacity(self.bytes_max());
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        out.extend_from_slice(&(prefix_bytes as u32).to_le_bytes());
        out.extend_from_slice(&first[..prefix_bytes]);
        let mut start = 0;
        for &(end, tag, units) in &self.entries {
            let suffix = &self.keys[start + prefix_bytes..end];
            out.extend_from_slice(&tag.to_u64().to_le_bytes());
            for number in [units, suffix.len()] {
                let (bytes, used) = varint::encode(number as u32);
                out.extend_from_slice(&bytes[..used]);
            }
            out.extend_from_slice(suffix);
            start = end;
        }
        out
    }
}

/// A key that starts as `last` does and then has another byte.
struct Shortened {
    common: usize,
    byte: u8,
}

/// A key between `last` and `next`, equal to neither, if there is one that is
/// shorter than `last`.
fn shortened(last: &[u8], next: &[u8]) -> Option<Shortened> {
    let common = last.iter().zip(next).take_while(|(a, b)| a == b).count();
    if common + 1 >= last.len() {
        return None;
    }
    let (own, other) = (last[common], *next.get(common)?);
    if next.len() > common + 1 {
        // `next` up to the byte that differs: a true prefix of it.
        Some(Shortened { common, byte: other })
    } else {
        (own + 1 < other).then_some(Shortened { common, byte: own + 1 })
    }
}

/// The index of an open table.
pub(crate) struct Index {
    prefix: Box<[u8]>,
    /// The first eight bytes of each suffix, as [`head`] makes them.
    heads: Heads,
    /// What follows the prefix in each separator's key, one after the other.
    suffixes: Box<[u8]>,
    /// Where each suffix ends.
    ends: Box<[u32]>,
    tags: Box<[Tag]>,
    /// Where each block starts, in units of the file; and where the last ends.
    units: Box<[u32]>,
}

impl Index {
    /// What each block takes in memory beyond its bytes in the file, at most: head,
    /// tag, end, units, and its part of what is above the heads.
    pub(super) const BLOCK_BYTES_MORE: u64 = 16;

    /// What it takes beside that.
    pub(super) const BYTES_MORE: usize = size_of::<Self>() + Heads::BYTES_MORE + size_of::<u32>();

    /// Decodes the index of blocks, one after the other, that take these units
    /// of the file. Allocates in proportion to `bytes`.
    pub(crate) fn decode(bytes: &[u8], data: Range<u64>) -> Result<Self, DecodeError> {
        let mut reader = ByteReader::new(bytes);
        let blocks = reader.u32()? as usize;
        let prefix_bytes = reader.u32()? as usize;
        if blocks == 0 || blocks > bytes.len() / ENTRY_BYTES_MIN || bytes.len() > MAX {
            let reason = format!("{} bytes of index cannot be for {blocks} blocks", bytes.len());
            return Err(DecodeError::corrupt(0, reason));
        }
        if prefix_bytes > KEY_BYTES_MAX {
            let reason = format!("separators cannot share {prefix_bytes} bytes");
            return Err(DecodeError::corrupt(4, reason));
        }
        let prefix = reader.take(prefix_bytes)?;
        let mut heads = Vec::with_capacity(blocks);
        let mut suffixes = Vec::with_capacity(bytes.len());
        let mut ends = Vec::with_capacity(blocks);
        let mut tags = Vec::with_capacity(blocks);
        let mut units = Vec::with_capacity(blocks + 1);
        let mut unit = data.start;
        let mut previous: Option<(&[u8], Tag)> = None;
        for _ in 0..blocks {
            let at = reader.position();
            let tag = Tag::from_u64(reader.u64()?);
            let block_units = reader.varint()? as usize;
            let suffix_bytes = reader.varint()? as usize;
            if suffix_bytes > KEY_BYTES_MAX - prefix_bytes {
                let reason = format!("a separator cannot have {suffix_bytes} more bytes");
                return Err(DecodeError::corrupt(at, reason));
            }
            if block_units == 0 || block_units > BLOCK_BYTES_MAX / UNIT {
                let reason = format!("a block cannot have {block_units} units");
                return Err(DecodeError::corrupt(at, reason));
            }
            let suffix = reader.take(suffix_bytes)?;
            if previous.is_some_and(|previous| !compare_internal(previous, (suffix, tag)).is_lt()) {
                return Err(DecodeError::corrupt(at, "a separator is out of order"));
            }
            previous = Some((suffix, tag));
            heads.push(head(suffix));
            suffixes.extend_from_slice(suffix);
            ends.push(suffixes.len() as u32);
            tags.push(tag);
            units.push(unit as u32);
            unit += block_units as u64;
        }
        units.push(unit as u32);
        if !reader.is_empty() {
            return Err(DecodeError::corrupt(reader.position(), "bytes after the index"));
        }
        if unit != data.end || data.end > MAX as u64 {
            let reason = format!("the blocks end at unit {unit}, the data at {}", data.end);
            return Err(DecodeError::corrupt(0, reason));
        }
        Ok(Self {
            prefix: prefix.into(),
            heads: Heads::new(heads),
            suffixes: suffixes.into(),
            ends: ends.into(),
            tags: tags.into(),
            units: units.into(),
        })
    }

    /// How many blocks there are; at least one.
    pub(crate) fn blocks(&self) -> usize {
        self.heads.len()
    }

    /// File offset and length of a block, in bytes.
    pub(crate) fn extent(&self, block: usize) -> (u64, usize) {
        let (start, end) = (self.units[block], self.units[block + 1]);
        (u64::from(start) * UNIT_U64, (end - start) as usize * UNIT)
    }

    /// The one block that may hold (key, tag), and that the first entry at or
    /// after it is in, or directly behind. `None` when all entries are before.
    pub(crate) fn find(&self, key: &[u8], tag: Tag) -> Option<usize> {
        let common = key.len().min(self.prefix.len());
        match key[..common].cmp(&self.prefix[..common]) {
            Ordering::Less => return Some(0),
            Ordering::Greater => return None,
            Ordering::Equal if key.len() < self.prefix.len() => return Some(0),
            Ordering::Equal => {}
        }
        let rest = &key[common..];
        let head = head(rest);
        let mut low = self.heads.count_below(head);
        let mut high = self.heads.end_of_run(low, head);
        while low < high {
            let middle = low.midpoint(high);
            let separator = (self.suffix(middle), self.tags[middle]);
            if compare_internal(separator, (rest, tag)).is_lt() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low < self.blocks()).then_some(low)
    }

    /// Whether the last entry of `block` certainly is a version of `key`.
    pub(crate) fn ends_with(&self, block: usize, key: &[u8]) -> bool {
        self.tags[block] != Tag::from_u64(0)
            && key.strip_prefix(&self.prefix[..]) == Some(self.suffix(block))
    }

    /// The separator of a block.
    pub(crate) fn separator(&self, block: usize) -> (Vec<u8>, Tag) {
        ([&self.prefix[..], self.suffix(block)].concat(), self.tags[block])
    }

    fn suffix(&self, block: usize) -> &[u8] {
        let start = block.checked_sub(1).map_or(0, |previous| self.ends[previous] as usize);
        &self.suffixes[start..self.ends[block] as usize]
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.prefix.len()
            + self.suffixes.len()
            + self.heads.bytes()
            + size_of_val(&self.ends[..])
            + size_of_val(&self.tags[..])
            + size_of_val(&self.units[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seq::{Kind, SEQ_MAX};

    fn put(seq: u64) -> Tag {
        Tag::new(seq, Kind::Put)
    }

    #[test]
    fn separators_are_between() {
        let bytes: Vec<Vec<u8>> = vec![
            b"".into(),
            b"a".into(),
            b"aa".into(),
            b"aab".into(),
            b"aabzzzz".into(),
            b"aad".into(),
            b"ab".into(),
            b"abc".into(),
            b"b".into(),
            b"b\xff\xff".into(),
            b"b\xff\xffa".into(),
            b"d".into(),
            b"\xff\xff\xff".into(),
        ];
        let mut shorter = 0;
        for (i, last) in bytes.iter().enumerate() {
            for next in &bytes[i + 1..] {
                let Some(Shortened { common, byte }) = shortened(last, next) else {
                    continue;
                };
                let separator = [&last[..common], &[byte]].concat();
                assert!(last < &separator && &separator < next, "{last:?} {separator:?} {next:?}");
                assert!(separator.len() < last.len());
                shorter += 1;
            }
        }
        assert!(shorter > 20, "{shorter}");
        assert!(shortened(b"same", b"same").is_none());
    }

    #[test]
    fn finds_the_block_of_every_internal_key() {
        // Blocks of two entries; versions of "k" are in three of them.
        let entries: Vec<(&[u8], Tag)> = vec![
            (b"", put(3)),
            (b"jjjjjjjjjjj1", put(1)),
            (b"k", put(90)),
            (b"k", put(80)),
            (b"k", put(70)),
            (b"k", put(60)),
            (b"k", put(50)),
            (b"kkkkkkkkkkkkkkk2", put(6)),
            (b"kkkkkkkkkkkkkkk3", put(6)),
            (b"x\0", put(6)),
            (b"x\0\0", put(6)),
            (b"x\0\0", put(5)),
        ];
        for prefix in [&b""[..], b"common/"] {
            let with_prefix = |key: &[u8]| [prefix, key].concat();
            let mut builder = IndexBuilder::new();
            let mut unit = 1;
            for (i, block) in entries.chunks(2).enumerate() {
                let next = entries.get(2 * i + 2).map(|next| with_prefix(next.0));
                let last = with_prefix(block[1].0);
                builder.add((&last, block[1].1), next.as_deref(), i + 1);
                unit += i as u64 + 1;
            }
            let bytes = builder.encode();
            let index = Index::decode(&bytes, 1..unit).expect("sound bytes");
            assert_eq!(index.blocks(), 6);
            assert_eq!(index.extent(2), (4 * UNIT_U64, 3 * UNIT));
            for (i, entry) in entries.iter().enumerate() {
                assert_eq!(index.find(&with_prefix(entry.0), entry.1), Some(i / 2));
            }
            let find = |key: &[u8], bound| index.find(&with_prefix(key), Tag::visible_at(bound));
            assert_eq!(find(b"k", SEQ_MAX), Some(1));
            assert_eq!(find(b"k", 79), Some(2));
            assert_eq!(find(b"k", 59), Some(3));
            assert_eq!(find(b"k", 0), Some(3));
            assert_eq!(find(b"x\0\0", 5), Some(5));
            assert_eq!(find(b"x\0\0", 4), None);
            assert_eq!(find(b"y", 9), None);
            assert_eq!(index.find(b"\xff", put(1)), None);
            assert_eq!(index.find(b"", put(1)), Some(0));
            assert!(index.ends_with(1, &with_prefix(b"k")));
            assert!(!index.ends_with(0, &with_prefix(b"k")));
            assert!(index.bytes() > bytes.len());
            assert!(Index::decode(&bytes, 1..unit + 1).is_err());
            assert!(Index::decode(&bytes, 1..unit - 1).is_err());
        }
    }

    #[test]
    fn heads_that_tie_are_told_apart() {
        let keys: [&[u8]; 6] =
            [b"", b"\0", b"\0\0\0\0\0\0\0\0", b"\0\0\0\0\0\0\0\0\0", b"\0\x01", b"b"];
        let mut builder = IndexBuilder::new();
        for key in keys {
            builder.add((key, put(5)), None, 1);
        }
        let index = Index::decode(&builder.encode(), 1..7).expect("sound bytes");
        for (i, key) in keys.into_iter().enumerate() {
            assert_eq!(index.find(key, put(6)), Some(i), "{key:?}");
            assert_eq!(index.find(key, put(5)), Some(i), "{key:?}");
            assert_eq!(index.find(key, put(4)), (i < 5).then_some(i + 1), "{key:?}");
        }
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let mut builder = IndexBuilder::new();
        for i in 0..20u8 {
            builder.add((&[b'p', i, i], put(u64::from(i) + 1)), Some(&[b'p', i + 1]), 2);
        }
        let sound = builder.encode();
        assert!(Index::decode(&sound, 1..41).is_ok());
        for len in 0..sound.len() {
            assert!(Index::decode(&sound[..len], 1..41).is_err());
        }
        let mut refused = 0;
        for i in 0..sound.len() {
            for pattern in 1..=255 {
                let mut hostile = sound.clone();
                hostile[i] ^= pattern;
                match Index::decode(&hostile, 1..41) {
                    Ok(index) => {
                        index.find(&[b'p', 7], put(3));
                        index.ends_with(0, b"p");
                    }
                    Err(error) => {
                        assert!(!error.unsupported);
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > sound.len() * 60, "{refused}");
        // As many blocks as the field can say.
        let mut hostile = sound.clone();
        hostile[..4].fill(0xff);
        assert!(Index::decode(&hostile, 1..41).is_err());
        let mut hostile = sound;
        hostile[4..8].fill(0xff);
        assert!(Index::decode(&hostile, 1..41).is_err());
        // A separator longer than any key.
        for (key_bytes, is_sound) in [(KEY_BYTES_MAX, true), (KEY_BYTES_MAX + 1, false)] {
            let mut long = vec![1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1];
            let (length, used) = varint::encode(key_bytes as u32);
            long.extend_from_slice(&length[..used]);
            long.resize(long.len() + key_bytes, b'k');
            assert_eq!(Index::decode(&long, 1..2).is_ok(), is_sound);
        }
    }
}
