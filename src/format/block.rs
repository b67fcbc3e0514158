//! Data blocks: sorted entries with delta-encoded keys, in whole units, with a
//! checksum that binds them to their place.
//!
//! A block is one unit, or, when its only entry does not fit one, as many
//! units as that entry needs. Some entries are *restart points*: their keys are
//! stored whole, so that a search can start there; what follows up to the next
//! one is a *run*, of sixteen entries at most, and of few if they are long. A hash index leads a lookup of one key to the
//! run with the key's newest version. All of this may be compressed, so that
//! one unit holds more than its own length. `FORMAT.md` has the bytes.
//!
//! A reader here believes nothing: whatever the bytes say, it neither panics
//! nor reads outside the block nor allocates more than the longest block's
//! length.
#![allow(
    unreachable_pub,
    reason = "public only under the feature `bench-internals`, for benches/block.rs"
)]

mod build;
mod check;
mod compress;
#[cfg(feature = "zstd")]
mod zstd;

use std::cmp::Ordering;
use std::ops::{Range, RangeInclusive};

use super::header::{ByteReader, DecodeError};
use super::varint;
use crate::base::checksum::Seed;
use crate::base::limits::{INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX, UNIT, round_up};
use crate::base::seq::{Kind, SeqNo, Tag, compare_internal};

pub use build::{BlockBuilder, Layout};
pub(crate) use check::{check_padding, describe, plausible_lengths};
pub use compress::Compression;

/// Length of the trailer at the end of every block.
pub(crate) const TRAILER_BYTES: usize = 16;

/// The largest block: one entry with the longest key and the longest value.
pub(crate) const BLOCK_BYTES_MAX: usize = round_up(
    3 * 3 + TAG_BYTES + KEY_BYTES_MAX + INLINE_VALUE_BYTES_MAX + 2 + COUNTS_BYTES + TRAILER_BYTES,
);

const TAG_BYTES: usize = 8;
/// The numbers of buckets and of restart points.
const COUNTS_BYTES: usize = 4;
const TYPE_DATA: u8 = 1;

/// A bucket of the hash index that no key falls in.
const BUCKET_NONE: u8 = 254;
/// A bucket of keys whose newest versions are in different runs.
const BUCKET_COLLISION: u8 = 255;
/// Blocks with so many restart points have a hash index: with one there is
/// nothing to search, and with more a bucket could not name each.
const HASHED_RESTARTS: RangeInclusive<usize> = 2..=253;

// Lengths of keys and values fit varints of three bytes.
const _: () = assert!(KEY_BYTES_MAX < 1 << 21 && INLINE_VALUE_BYTES_MAX < 1 << 21);
const _: () = assert!(*HASHED_RESTARTS.end() <= BUCKET_NONE as usize);

/// The bucket of a key with this hash.
///
/// Filters take the same hash, and keys that pass one by mistake are no random
/// choice. A filter draws its bits from the hash after it added a seed of its
/// own and went through a finalizer of several rounds; here they are the upper
/// half of one product. Neither says anything about the other.
#[inline]
fn bucket_of(hash: u64, buckets: usize) -> usize {
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    ((mixed * buckets as u64) >> 32) as usize
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A verified block.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    /// Starts with the content.
    bytes: &'a [u8],
    shape: BlockShape,
}

/// Where the parts of a verified block are: what it takes to look at the same
/// bytes again without verifying them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockShape {
    entries_end: usize,
    restarts: usize,
    buckets: usize,
}

impl BlockShape {
    fn buckets_start(&self) -> usize {
        self.entries_end + 2 * self.restarts
    }

    /// Where what the shape speaks of ends.
    fn end(&self) -> usize {
        self.buckets_start() + self.buckets + COUNTS_BYTES
    }
}

/// What [`Block::get`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The newest version at or below the bound.
    Found {
        /// Its sequence number and kind.
        tag: Tag,
        /// Where in the block its value is.
        value: Range<usize>,
    },
    /// Versions of the key, but none of them at or below the bound.
    OnlyNewer,
    /// No version of the key.
    Absent,
}

/// Where a key's newest version can be.
enum Run {
    /// In the run that starts here, or nowhere.
    At(usize),
    /// In none.
    None,
    /// In any: binary search.
    Unknown,
}

/// One entry as it is stored.
struct Stored {
    shared: usize,
    suffix: Range<usize>,
    tag: Tag,
    value: Range<usize>,
}

const _: () = assert!(usize::BITS == 64);

/// The length at the start of `bytes`, and what follows it. Most are of one
/// byte.
#[inline]
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [first, rest @ ..] if *first < 0x80 => Some((usize::from(*first), rest)),
        _ => varint::decode(bytes).map(|(number, rest)| (number as usize, rest)),
    }
}

impl<'a> Block<'a> {
    /// Verifies checksum and shape of the block in these units.
    ///
    /// A compressed block is decompressed into `plain`, which is then what
    /// [`Block::verified`] takes; otherwise `plain` is left empty.
    pub fn decode(
        extent: &'a [u8],
        seed: Seed,
        plain: &'a mut Vec<u8>,
    ) -> Result<Self, DecodeError> {
        if extent.is_empty() || !extent.len().is_multiple_of(UNIT) {
            return Err(DecodeError::corrupt(extent.len(), "a block is not whole units"));
        }
        let trailer_at = extent.len() - TRAILER_BYTES;
        let mut trailer = ByteReader::new(&extent[trailer_at..]);
        let stored_bytes = trailer.u32()? as usize;
        let [block_type, compression] = trailer.array()?;
        let flags = trailer.u16()?;
        let content_bytes = trailer.u32()? as usize;
        let crc = trailer.u32()?;
        if crc != seed.checksum(&extent[..extent.len() - 4]) {
            return Err(DecodeError::corrupt(0, "the checksum of a block does not match"));
        }
        if block_type != TYPE_DATA || flags != 0 {
            let reason =
                format!("a block of type {block_type} with flags {flags:#x} is unknown here");
            return Err(DecodeError::unsupported(trailer_at + 4, &reason));
        }
        let compression = Compression::from_id(compression, trailer_at + 5)?;
        let Some(stored) = extent[..trailer_at].get(..stored_bytes) else {
            return Err(DecodeError::corrupt(trailer_at, "a block's content is longer than it"));
        };
        let content = match compression {
            Compression::None if content_bytes == stored_bytes => {
                plain.clear();
                stored
            }
            Compression::None => {
                let reason = "a block that is not compressed has two lengths";
                return Err(DecodeError::corrupt(trailer_at + 8, reason));
            }
            Compression::Lz4 | Compression::Zstd => {
                compress::decompress(compression, stored, plain, content_bytes)?;
                &plain[..]
            }
        };
        let shape = Self::shape_of(content)?;
        Ok(Self { bytes: content, shape })
    }

    /// The block with this content, which [`Block::content`] of a block that was
    /// verified gave: that is not done again.
    pub fn of_verified(content: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self { bytes: content, shape: Self::parts_of(content)? })
    }

    /// All of the block but its checksum and what pads it; decompressed.
    pub fn content(&self) -> &'a [u8] {
        &self.bytes[..self.shape.end()]
    }

    /// Where the parts of a block with this content are.
    fn parts_of(content: &[u8]) -> Result<BlockShape, DecodeError> {
        let Some((before, counts)) = content.split_last_chunk::<COUNTS_BYTES>() else {
            return Err(DecodeError::corrupt(content.len(), "a block without restart points"));
        };
        let buckets = usize::from(u16::from_le_bytes([counts[0], counts[1]]));
        let restarts = usize::from(u16::from_le_bytes([counts[2], counts[3]]));
        let entries_end = before.len().checked_sub(2 * restarts + buckets);
        let sound = restarts > 0 && (buckets == 0 || HASHED_RESTARTS.contains(&restarts));
        let (Some(entries_end), true) = (entries_end, sound) else {
            let reason =
                format!("a block cannot have {restarts} restart points and {buckets} buckets");
            return Err(DecodeError::corrupt(before.len(), reason));
        };
        Ok(BlockShape { entries_end, restarts, buckets })
    }

    fn shape_of(content: &[u8]) -> Result<BlockShape, DecodeError> {
        let shape = Self::parts_of(content)?;
        let BlockShape { entries_end, restarts, .. } = shape;
        let block = Block { bytes: content, shape };
        let mut after = 0;
        for i in 0..restarts {
            let restart = block.restart(i);
            let in_order = if i == 0 { restart == 0 } else { restart >= after };
            if !in_order || restart >= entries_end {
                let reason = format!("restart point {restart} is out of place");
                return Err(DecodeError::corrupt(entries_end + 2 * i, reason));
            }
            after = restart + 1;
        }
        Ok(shape)
    }

    /// The block in units that were verified before, or what they decompressed
    /// to, with the shape found then.
    pub fn verified(bytes: &'a [u8], shape: BlockShape) -> Self {
        assert!(shape.end() <= bytes.len());
        Self { bytes, shape }
    }

    /// Where the parts of the block are.
    pub fn shape(&self) -> BlockShape {
        self.shape
    }

    /// The bytes at `place`, which [`Block::get`] or a cursor named.
    pub fn bytes(&self, place: Range<usize>) -> &'a [u8] {
        &self.bytes[place]
    }

    fn restart(&self, i: usize) -> usize {
        let at = self.shape.entries_end + 2 * i;
        usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    /// The entry stored at `at`.
    fn stored(&self, at: usize) -> Result<Stored, DecodeError> {
        let entries = &self.bytes[..self.shape.entries_end];
        let parse = || {
            let (shared, rest) = length(entries.get(at..)?)?;
            let (suffix_bytes, rest) = length(rest)?;
            let (value_bytes, rest) = length(rest)?;
            let (tag, rest) = rest.split_first_chunk::<TAG_BYTES>()?;
            // Three numbers of 32 bits: the sums are exact.
            let fits =
                suffix_bytes + value_bytes <= rest.len() && shared + suffix_bytes <= KEY_BYTES_MAX;
            let suffix_start = entries.len() - rest.len();
            let suffix_end = suffix_start + suffix_bytes;
            fits.then_some(Stored {
                shared,
                suffix: suffix_start..suffix_end,
                tag: Tag::from_u64(u64::from_le_bytes(*tag)),
                value: suffix_end..suffix_end + value_bytes,
            })
        };
        let stored =
            parse().ok_or_else(|| DecodeError::corrupt(at, "an entry leaves its block"))?;
        if stored.tag.kind() == Some(Kind::RangeDelete) {
            return Err(DecodeError::corrupt(at, "a range tombstone is not in its place"));
        }
        if stored.tag.kind().is_none() {
            let kind = stored.tag.to_u64() as u8;
            let reason = format!("an entry of kind {kind} is unknown here");
            return Err(DecodeError::unsupported(at, &reason));
        }
        Ok(stored)
    }

    /// Where to start looking for the first entry at or after (key, tag): the
    /// last restart point before it, or the first of all.
    fn restart_before(&self, key: &[u8], tag: Tag) -> Result<usize, DecodeError> {
        let (mut low, mut high) = (0, self.shape.restarts);
        while low + 1 < high {
            let middle = low.midpoint(high);
            let at = self.restart(middle);
            let stored = self.stored(at)?;
            if stored.shared != 0 {
                return Err(DecodeError::corrupt(at, "a restart point without its whole key"));
            }
            let suffix = &self.bytes[stored.suffix];
            if compare_internal((suffix, stored.tag), (key, tag)).is_lt() {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(self.restart(low))
    }

    /// The run in which the newest version of the key with this hash is, or
    /// would be, by the hash index.
    fn run_of(&self, hash: u64) -> Result<Run, DecodeError> {
        let buckets = self.shape.buckets;
        if buckets == 0 {
            return Ok(Run::Unknown);
        }
        let at = self.shape.buckets_start() + bucket_of(hash, buckets);
        match self.bytes[at] {
            BUCKET_NONE => Ok(Run::None),
            BUCKET_COLLISION => Ok(Run::Unknown),
            i if usize::from(i) < self.shape.restarts => Ok(Run::At(self.restart(i.into()))),
            i => {
                let reason = format!("a bucket names restart point {i}, which there is not");
                Err(DecodeError::corrupt(at, reason))
            }
        }
    }

    /// Finds the newest version of `key` at or below `bound`, as far as this
    /// block holds versions of it. `hash` is the key's.
    ///
    /// Versions of a key follow one another, the newest first: from the run of
    /// the newest one the search goes on to those that the bound admits, also
    /// into later runs.
    ///
    /// Keys are compared as they are stored, without putting them together:
    /// `matched` is how many bytes the key has in common with the entry before,
    /// and while entries sort before the key, one that shares more than that
    /// with its predecessor does so too, and one that shares less is past it.
    /// (One that shares nothing may be a restart point, and says nothing.)
    pub fn get(&self, key: &[u8], hash: u64, bound: SeqNo) -> Result<Lookup, DecodeError> {
        let visible = Tag::visible_at(bound);
        let mut at = match self.run_of(hash)? {
            Run::At(restart) => restart,
            Run::None => return Ok(Lookup::Absent),
            Run::Unknown => self.restart_before(key, visible)?,
        };
        let mut previous_bytes = 0;
        let mut matched = 0;
        let mut missed = Lookup::Absent;
        while at < self.shape.entries_end {
            let stored = self.stored(at)?;
            if stored.shared > previous_bytes {
                return Err(DecodeError::corrupt(at, "a key shares more than there is"));
            }
            previous_bytes = stored.shared + stored.suffix.len();
            at = stored.value.end;
            if stored.shared == 0 {
                matched = 0;
            }
            match stored.shared.cmp(&matched) {
                Ordering::Greater => continue,
                Ordering::Less => return Ok(missed),
                Ordering::Equal => {}
            }
            let (suffix, rest) = (&self.bytes[stored.suffix], &key[matched..]);
            let common = common_prefix(suffix, rest);
            match suffix[common..].cmp(&rest[common..]) {
                Ordering::Less => matched += common,
                Ordering::Equal if stored.tag <= visible => {
                    return Ok(Lookup::Found { tag: stored.tag, value: stored.value });
                }
                Ordering::Equal => {
                    matched += common;
                    missed = Lookup::OnlyNewer;
                }
                Ordering::Greater => return Ok(missed),
            }
        }
        Ok(missed)
    }
}

/// A position in a block. It does not hold the block: each call takes the same
/// one, so that whoever owns the bytes can own the position too.
#[derive(Default)]
pub struct BlockCursor {
    key: Vec<u8>,
    value: Range<usize>,
    /// `None` when the cursor is not on an entry.
    tag: Option<Tag>,
    /// Where the entry starts.
    start: usize,
}

impl BlockCursor {
    /// A cursor that is on no entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the cursor is on an entry.
    pub fn is_valid(&self) -> bool {
        self.tag.is_some()
    }

    /// Takes the cursor off its entry.
    pub fn clear(&mut self) {
        self.tag = None;
    }

    /// The entry's key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The entry's tag.
    ///
    /// # Panics
    /// When the cursor is not on an entry.
    pub fn tag(&self) -> Tag {
        self.tag.expect("the cursor is on an entry")
    }

    /// Where in the block the entry's value is.
    pub fn value(&self) -> Range<usize> {
        self.value.clone()
    }

    /// Whether the entry it is on is the block's first.
    pub fn is_first(&self) -> bool {
        self.start == 0
    }

    /// Whether the entry it is on is the block's last.
    pub fn is_last(&self, block: Block<'_>) -> bool {
        self.value.end == block.shape.entries_end
    }

    /// Moves to the entry at `at`, which follows the current one or is a
    /// restart point (the key being empty then); off the block at its end.
    fn step(&mut self, block: Block<'_>, at: usize) -> Result<(), DecodeError> {
        self.tag = None;
        if at == block.shape.entries_end {
            return Ok(());
        }
        let stored = block.stored(at)?;
        if stored.shared > self.key.len() {
            return Err(DecodeError::corrupt(at, "a key shares more than there is"));
        }
        self.key.truncate(stored.shared);
        self.key.extend_from_slice(&block.bytes[stored.suffix]);
        self.value = stored.value;
        self.start = at;
        self.tag = Some(stored.tag);
        Ok(())
    }

    fn jump(&mut self, block: Block<'_>, restart: usize) -> Result<(), DecodeError> {
        self.key.clear();
        self.step(block, restart)
    }

    /// Moves to the first entry.
    pub fn seek_to_first(&mut self, block: Block<'_>) -> Result<(), DecodeError> {
        self.jump(block, 0)
    }

    /// Moves to the last entry.
    pub fn seek_to_last(&mut self, block: Block<'_>) -> Result<(), DecodeError> {
        self.jump(block, block.restart(block.shape.restarts - 1))?;
        self.walk_to(block, block.shape.entries_end)
    }

    /// Goes on to the entry that ends at `end`.
    fn walk_to(&mut self, block: Block<'_>, end: usize) -> Result<(), DecodeError> {
        while self.value.end < end {
            self.step(block, self.value.end)?;
        }
        if self.value.end != end {
            self.tag = None;
            return Err(DecodeError::corrupt(end, "no entry ends where one must"));
        }
        Ok(())
    }

    /// Moves to the first entry at or after (key, tag), or off the block.
    pub fn seek(&mut self, block: Block<'_>, key: &[u8], tag: Tag) -> Result<(), DecodeError> {
        self.tag = None;
        let restart = block.restart_before(key, tag)?;
        self.jump(block, restart)?;
        while let Some(own) = self.tag
            && compare_internal((&self.key, own), (key, tag)).is_lt()
        {
            self.step(block, self.value.end)?;
        }
        Ok(())
    }

    /// Moves to the last entry before (key, tag), or off the block.
    pub fn seek_before(
        &mut self,
        block: Block<'_>,
        key: &[u8],
        tag: Tag,
    ) -> Result<(), DecodeError> {
        self.seek(block, key, tag)?;
        if self.is_valid() { self.prev(block) } else { self.seek_to_last(block) }
    }

    /// Moves to the next entry, or off the block.
    pub fn next(&mut self, block: Block<'_>) -> Result<(), DecodeError> {
        assert!(self.is_valid());
        self.step(block, self.value.end)
    }

    /// Moves to the entry before, or off the block.
    pub fn prev(&mut self, block: Block<'_>) -> Result<(), DecodeError> {
        assert!(self.is_valid());
        self.tag = None;
        let end = self.start;
        if end == 0 {
            return Ok(());
        }
        let (mut low, mut high) = (0, block.shape.restarts);
        while low + 1 < high {
            let middle = low.midpoint(high);
            if block.restart(middle) < end {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.jump(block, block.restart(low))?;
        self.walk_to(block, end)
    }
}

#[cfg(test)]
mod tests;
