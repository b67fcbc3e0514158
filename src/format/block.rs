//! Data blocks: sorted entries with delta-encoded keys, in whole units, with a
//! checksum that binds them to their place.
//!
//! A block is one unit, or, when its only entry does not fit one, as many
//! units as that entry needs. Every sixteenth entry is a *restart point*: its
//! key is stored whole, so that a search can start there. `FORMAT.md` has the
//! bytes.
//!
//! A reader here believes nothing: whatever the bytes say, it neither panics
//! nor reads outside the block nor allocates more than the block's length.
#![allow(
    unreachable_pub,
    reason = "public only under the feature `bench-internals`, for benches/block.rs"
)]

use std::cmp::Ordering;
use std::ops::Range;

use super::header::{ByteReader, DecodeError};
use super::varint;
use crate::base::checksum::Seed;
use crate::base::limits::{KEY_BYTES_MAX, UNIT, VALUE_BYTES_MAX, round_up};
use crate::base::seq::{SeqNo, Tag, compare_internal};

/// Length of the trailer at the end of every block.
pub(crate) const TRAILER_BYTES: usize = 16;

/// The largest block: one entry with the longest key and the longest value.
pub(crate) const BLOCK_BYTES_MAX: usize =
    round_up(3 * 3 + TAG_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX + 4 + TRAILER_BYTES);

const RESTART_INTERVAL: usize = 16;
const TAG_BYTES: usize = 8;
const TYPE_DATA: u8 = 1;
const COMPRESSION_NONE: u8 = 0;

// Lengths of keys and values fit varints of three bytes; offsets of restart
// points, which lie in the first unit, fit 16 bits.
const _: () = assert!(KEY_BYTES_MAX < 1 << 21 && VALUE_BYTES_MAX < 1 << 21);
const _: () = assert!(UNIT <= u16::MAX as usize);

/// Builds one block after the other in the same memory.
#[derive(Default)]
pub struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u16>,
    entries: usize,
    last_key: Vec<u8>,
    last_tag: Option<Tag>,
}

impl BlockBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no entry was added yet.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The entry added last, also after [`BlockBuilder::reset`].
    pub fn last(&self) -> Option<(&[u8], Tag)> {
        self.last_tag.map(|tag| (&self.last_key[..], tag))
    }

    /// Adds an entry that sorts after all before it, if it fits. An empty
    /// builder takes every entry, and becomes as many units as it needs.
    pub fn add(&mut self, key: &[u8], tag: Tag, value: &[u8]) -> bool {
        assert!(key.len() <= KEY_BYTES_MAX && value.len() <= VALUE_BYTES_MAX);
        let is_restart = self.entries.is_multiple_of(RESTART_INTERVAL);
        let shared = if is_restart { 0 } else { common_prefix(&self.last_key, key) };
        let suffix = &key[shared..];
        let lengths = [shared, suffix.len(), value.len()].map(|len| len as u32);
        let entry_bytes =
            lengths.map(varint::len).iter().sum::<usize>() + TAG_BYTES + suffix.len() + value.len();
        let restart_bytes = 2 * (self.restarts.len() + usize::from(is_restart)) + 2;
        let total = self.bytes.len() + entry_bytes + restart_bytes + TRAILER_BYTES;
        if total > UNIT && self.entries > 0 {
            return false;
        }
        if is_restart {
            self.restarts.push(self.bytes.len() as u16);
        }
        for length in lengths {
            let (bytes, used) = varint::encode(length);
            self.bytes.extend_from_slice(&bytes[..used]);
        }
        self.bytes.extend_from_slice(&tag.to_u64().to_le_bytes());
        self.bytes.extend_from_slice(suffix);
        self.bytes.extend_from_slice(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(suffix);
        self.last_tag = Some(tag);
        self.entries += 1;
        true
    }

    /// The finished block, in whole units, for the place that `seed` names.
    /// [`BlockBuilder::reset`] comes next.
    pub fn finish(&mut self, seed: Seed) -> &[u8] {
        assert!(self.entries > 0, "a block has at least one entry");
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        self.bytes.extend_from_slice(&(self.restarts.len() as u16).to_le_bytes());
        seal(&mut self.bytes, seed);
        assert!(self.bytes.len() <= BLOCK_BYTES_MAX);
        &self.bytes
    }

    /// Makes the builder empty.
    pub fn reset(&mut self) {
        self.bytes.clear();
        self.restarts.clear();
        self.entries = 0;
    }
}

/// Pads the content of a block to whole units and appends the trailer.
fn seal(bytes: &mut Vec<u8>, seed: Seed) {
    let content_bytes = bytes.len();
    bytes.resize(round_up(content_bytes + TRAILER_BYTES) - TRAILER_BYTES, 0);
    bytes.extend_from_slice(&(content_bytes as u32).to_le_bytes());
    bytes.extend_from_slice(&[TYPE_DATA, COMPRESSION_NONE]);
    bytes.extend_from_slice(&0u16.to_le_bytes());
    bytes.extend_from_slice(&0u32.to_le_bytes());
    let crc = seed.checksum(bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A verified block.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    bytes: &'a [u8],
    shape: BlockShape,
}

/// Where the parts of a verified block are: what it takes to look at the same
/// bytes again without verifying them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockShape {
    entries_end: usize,
    restarts: usize,
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
    pub fn decode(extent: &'a [u8], seed: Seed) -> Result<Self, DecodeError> {
        if extent.is_empty() || !extent.len().is_multiple_of(UNIT) {
            return Err(DecodeError::corrupt(extent.len(), "a block is not whole units"));
        }
        let trailer_at = extent.len() - TRAILER_BYTES;
        let mut trailer = ByteReader::new(&extent[trailer_at..]);
        let content_bytes = trailer.u32()? as usize;
        let [block_type, compression] = trailer.array()?;
        let flags = trailer.u16()?;
        let reserved = trailer.u32()?;
        let crc = trailer.u32()?;
        if crc != seed.checksum(&extent[..extent.len() - 4]) {
            return Err(DecodeError::corrupt(0, "the checksum of a block does not match"));
        }
        if block_type != TYPE_DATA || compression != COMPRESSION_NONE || flags != 0 || reserved != 0
        {
            let reason = format!(
                "a block of type {block_type} with compression {compression}, flags {flags:#x} \
                 and reserved field {reserved:#x} is unknown here"
            );
            return Err(DecodeError::unsupported(trailer_at + 4, &reason));
        }
        if content_bytes > trailer_at {
            return Err(DecodeError::corrupt(trailer_at, "a block's content is longer than it"));
        }
        let shape = Self::shape_of(&extent[..content_bytes])?;
        Ok(Self { bytes: extent, shape })
    }

    fn shape_of(content: &[u8]) -> Result<BlockShape, DecodeError> {
        let Some((before, count)) = content.split_last_chunk::<2>() else {
            return Err(DecodeError::corrupt(content.len(), "a block without restart points"));
        };
        let restarts = usize::from(u16::from_le_bytes(*count));
        let entries_end = before.len().checked_sub(2 * restarts);
        let (Some(entries_end), true) = (entries_end, restarts > 0) else {
            let reason = format!("a block cannot have {restarts} restart points");
            return Err(DecodeError::corrupt(before.len(), reason));
        };
        let shape = BlockShape { entries_end, restarts };
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

    /// The block in units that were verified before, with the shape found then.
    pub fn verified(extent: &'a [u8], shape: BlockShape) -> Self {
        assert!(shape.entries_end + 2 * shape.restarts + 2 + TRAILER_BYTES <= extent.len());
        Self { bytes: extent, shape }
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

    /// Finds the newest version of `key` at or below `bound`, as far as this
    /// block holds versions of it.
    ///
    /// Keys are compared as they are stored, without putting them together:
    /// `matched` is how many bytes the key has in common with the entry before,
    /// and while entries sort before the key, one that shares more than that
    /// with its predecessor does so too, and one that shares less is past it.
    /// (One that shares nothing may be a restart point, and says nothing.)
    pub fn get(&self, key: &[u8], bound: SeqNo) -> Result<Lookup, DecodeError> {
        let visible = Tag::visible_at(bound);
        let mut at = self.restart_before(key, visible)?;
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
