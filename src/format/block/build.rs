//! Building data blocks.
//!
//! Entries gather until their block should fill one unit. Uncompressed, that
//! is known exactly. With compression it is guessed, from how well the blocks
//! before compressed, and tried: when the result does not fit, the block takes
//! fewer entries, and the others start the next block.

use std::mem;

use super::compress::{Compression, Compressor};
use super::{
    BLOCK_BYTES_MAX, BUCKET_COLLISION, BUCKET_NONE, Block, BlockCursor, BlockShape, COUNTS_BYTES,
    HASHED_RESTARTS, TAG_BYTES, TRAILER_BYTES, TYPE_DATA, bucket_of, common_prefix,
};
use crate::base::checksum::Seed;
use crate::base::limits::{INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX, UNIT, round_up};
use crate::base::seq::Tag;
use crate::format::varint;

/// What a block of one unit has room for.
const UNIT_CONTENT_BYTES: usize = UNIT - TRAILER_BYTES;

/// The longest content of a block with several entries: restart points fit 16
/// bits.
const CONTENT_BYTES_MAX: usize = 64 << 10;

/// The least to gather when compression is tried: what hardly compresses is
/// not worth it.
const TRIED_BYTES_MIN: usize = UNIT_CONTENT_BYTES * 5 / 4;

/// Blocks that are not compressed after one that did not get smaller.
const PLAIN_BLOCKS: u32 = 7;

const _: () = assert!(TRIED_BYTES_MIN < CONTENT_BYTES_MAX && CONTENT_BYTES_MAX < BLOCK_BYTES_MAX);

/// What a writer is free to choose; a reader takes any.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The most entries of a run.
    pub restart_interval: usize,
    /// A run takes no further entry once it has so many bytes: whoever looks
    /// for a key walks over its run, and long entries are a cache miss each.
    pub run_bytes: usize,
    /// Buckets of the hash index for a hundred keys; 0 for no index.
    pub buckets_percent: usize,
    /// How blocks are compressed that get smaller by it.
    pub compression: Compression,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            restart_interval: 16,
            run_bytes: 384,
            buckets_percent: 133,
            compression: Compression::None,
        }
    }
}

/// What the builder remembers of an entry.
#[derive(Clone, Copy)]
struct Gathered {
    start: u32,
    /// The number of its run.
    run: u32,
    /// The newest version of its key in this block.
    is_newest: bool,
    hash: u64,
}

/// Builds one block after the other in the same memory.
pub struct BlockBuilder {
    layout: Layout,
    /// The entries, as they are stored.
    bytes: Vec<u8>,
    gathered: Vec<Gathered>,
    /// Where the last run starts, and how many entries it has.
    run_start: usize,
    run_entries: usize,
    /// How many of them are the newest version of a key.
    keys: usize,
    last_key: Vec<u8>,
    last_tag: Option<Tag>,
    /// How long the content may get.
    target_bytes: usize,
    /// Blocks to build before compression is tried again.
    plain_blocks: u32,
    compressor: Compressor,
    /// The content of the finished block.
    content: Vec<u8>,
    /// How many entries are in it.
    taken: usize,
    /// The last of them, when others are left.
    end: BlockCursor,
    /// The first of those.
    next: BlockCursor,
    /// Memory for [`BlockBuilder::reset`].
    spare: (Vec<u8>, Vec<Gathered>),
}

/// A finished block.
pub struct Finished<'a> {
    /// Whole units.
    pub extent: &'a [u8],
    /// Its last entry.
    pub last: (&'a [u8], Tag),
    /// The key of the entry that the next block starts with, if there is one
    /// already.
    pub next: Option<&'a [u8]>,
    taken: &'a [Gathered],
}

impl Finished<'_> {
    /// The hashes of the keys in the block.
    pub fn hashes(&self) -> impl Iterator<Item = u64> {
        self.taken.iter().filter(|entry| entry.is_newest).map(|entry| entry.hash)
    }
}

impl BlockBuilder {
    /// An empty builder of blocks with this layout.
    pub fn new(layout: Layout) -> Self {
        assert!(layout.restart_interval > 0);
        Self {
            layout,
            bytes: Vec::new(),
            gathered: Vec::new(),
            run_start: 0,
            run_entries: 0,
            keys: 0,
            last_key: Vec::new(),
            last_tag: None,
            target_bytes: match layout.compression {
                Compression::None => UNIT_CONTENT_BYTES,
                Compression::Lz4 | Compression::Zstd => TRIED_BYTES_MIN,
            },
            plain_blocks: 0,
            compressor: Compressor::new(layout.compression),
            content: Vec::new(),
            taken: 0,
            end: BlockCursor::new(),
            next: BlockCursor::new(),
            spare: Default::default(),
        }
    }

    /// Whether it holds no entry.
    pub fn is_empty(&self) -> bool {
        self.gathered.is_empty()
    }

    /// The entry added last, also after [`BlockBuilder::reset`].
    pub fn last(&self) -> Option<(&[u8], Tag)> {
        self.last_tag.map(|tag| (&self.last_key[..], tag))
    }

    /// Adds an entry that sorts after all before it, if it may belong to the
    /// same block. An empty builder takes every entry. `hash` is the key's, the
    /// one that filters use.
    pub fn add(&mut self, key: &[u8], tag: Tag, value: &[u8], hash: u64) -> bool {
        assert!(key.len() <= KEY_BYTES_MAX && value.len() <= INLINE_VALUE_BYTES_MAX);
        let entries = self.gathered.len();
        let is_restart = entries == 0
            || self.run_entries == self.layout.restart_interval
            || self.bytes.len() - self.run_start >= self.layout.run_bytes;
        let is_newest = entries == 0 || self.last_key != key;
        let shared = if is_restart { 0 } else { common_prefix(&self.last_key, key) };
        let suffix = &key[shared..];
        let lengths = [shared, suffix.len(), value.len()].map(|len| len as u32);
        let entry_bytes =
            lengths.map(varint::len).iter().sum::<usize>() + TAG_BYTES + suffix.len() + value.len();
        let keys = self.keys + usize::from(is_newest);
        let restarts = self.restarts(entries) + usize::from(is_restart);
        let content_bytes = self.content_bytes(self.bytes.len() + entry_bytes, restarts, keys);
        if content_bytes > self.target_bytes && entries > 0 {
            return false;
        }
        if is_restart {
            (self.run_start, self.run_entries) = (self.bytes.len(), 0);
        }
        self.run_entries += 1;
        let (start, run) = (self.bytes.len() as u32, restarts as u32 - 1);
        self.gathered.push(Gathered { start, run, is_newest, hash });
        self.keys = keys;
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
        true
    }

    /// Restart points of so many first entries.
    fn restarts(&self, entries: usize) -> usize {
        entries.checked_sub(1).map_or(0, |last| self.gathered[last].run as usize + 1)
    }

    /// Buckets of the hash index of a block with so many restart points and
    /// distinct keys.
    fn buckets(&self, restarts: usize, keys: usize) -> usize {
        if HASHED_RESTARTS.contains(&restarts) {
            keys * self.layout.buckets_percent / 100
        } else {
            0
        }
    }

    /// The content's length for entries of so many bytes, with so many restart
    /// points and distinct keys.
    fn content_bytes(&self, entry_bytes: usize, restarts: usize, keys: usize) -> usize {
        entry_bytes + 2 * restarts + self.buckets(restarts, keys) + COUNTS_BYTES
    }

    /// Where so many first entries end.
    fn end_of(&self, entries: usize) -> usize {
        self.gathered.get(entries).map_or(self.bytes.len(), |next| next.start as usize)
    }

    /// How many first entries make a content of at most so many bytes; at least
    /// one, which may be longer.
    fn entries_within(&self, content_bytes_max: usize) -> usize {
        let mut keys = 0;
        let fits = |i: usize| {
            keys += usize::from(self.gathered[i].is_newest);
            self.content_bytes(self.end_of(i + 1), self.restarts(i + 1), keys) <= content_bytes_max
        };
        (0..self.gathered.len()).map(fits).take_while(|&fits| fits).count().max(1)
    }

    /// Ends the block, for the place that `seed` names.
    /// [`BlockBuilder::reset`] comes next, and leaves the entries that did not
    /// fit.
    pub fn finish(&mut self, seed: Seed) -> Finished<'_> {
        assert!(!self.is_empty(), "a block has at least one entry");
        let compression = self.choose();
        let content_bytes = self.content.len();
        let extent = match compression {
            Compression::None => &mut self.content,
            Compression::Lz4 | Compression::Zstd => self.compressor.packed(),
        };
        seal(extent, content_bytes, compression, seed);
        assert!(extent.len() <= BLOCK_BYTES_MAX);
        assert!(extent.len() == UNIT || self.taken == 1, "only one entry takes several units");
        let extent = &extent[..];
        let taken = &self.gathered[..self.taken];

        if self.taken == self.gathered.len() {
            let last_tag = self.last_tag.expect("there is an entry");
            return Finished { extent, last: (&self.last_key, last_tag), next: None, taken };
        }
        let entries = gathered_entries(&self.bytes);
        for (cursor, i) in [(&mut self.end, self.taken - 1), (&mut self.next, self.taken)] {
            let run = self.gathered[i].run;
            let restart = self.gathered.partition_point(|entry| entry.run < run);
            let sound = "the builder's own entries are sound";
            cursor.jump(entries, self.gathered[restart].start as usize).expect(sound);
            for _ in restart..i {
                cursor.next(entries).expect(sound);
            }
        }
        Finished {
            extent,
            last: (self.end.key(), self.end.tag()),
            next: Some(self.next.key()),
            taken,
        }
    }

    /// Chooses how many entries the block takes, and puts their content, and
    /// its compressed form where that is the one to store, together.
    fn choose(&mut self) -> Compression {
        match self.layout.compression {
            Compression::None => {
                self.gather(self.gathered.len());
                Compression::None
            }
            compression @ (Compression::Lz4 | Compression::Zstd) => {
                let plain = self.entries_within(UNIT_CONTENT_BYTES);
                if self.compress_more_than(plain) {
                    return compression;
                }
                self.gather(plain);
                Compression::None
            }
        }
    }

    /// Compresses as many entries as then fit a unit, or the only one if it
    /// then takes fewer. False when that is not worth it, since the `plain`
    /// first ones fit as they are.
    fn compress_more_than(&mut self, plain: usize) -> bool {
        let mut entries = self.entries_within(CONTENT_BYTES_MAX);
        let mut was_tried = false;
        loop {
            self.gather(entries);
            let content_bytes = self.content.len();
            let plain_extent = round_up(content_bytes + TRAILER_BYTES);
            if entries <= plain && (entries > 1 || plain_extent == UNIT) {
                break;
            }
            was_tried = true;
            let packed_bytes = self.compressor.compress(&self.content).len();
            // A little less than there is room for, if all goes on like this.
            let fitting_bytes = content_bytes * UNIT_CONTENT_BYTES / packed_bytes * 31 / 32;
            self.target_bytes = fitting_bytes.clamp(TRIED_BYTES_MIN, CONTENT_BYTES_MAX);
            let packed_extent = round_up(packed_bytes + TRAILER_BYTES);
            if packed_extent == UNIT || (entries == 1 && packed_extent < plain_extent) {
                self.plain_blocks = 0;
                return true;
            }
            if entries == 1 {
                break;
            }
            let proportional = entries * fitting_bytes / content_bytes;
            entries = proportional.clamp(plain, entries - 1);
        }
        if was_tried {
            self.plain_blocks = PLAIN_BLOCKS;
            self.target_bytes = UNIT_CONTENT_BYTES;
        } else if self.plain_blocks > 0 {
            self.plain_blocks -= 1;
            if self.plain_blocks == 0 {
                self.target_bytes = TRIED_BYTES_MIN;
            }
        }
        false
    }

    /// Puts the content of a block with so many entries together.
    fn gather(&mut self, entries: usize) {
        self.taken = entries;
        let end = self.end_of(entries);
        self.content.clear();
        self.content.extend_from_slice(&self.bytes[..end]);
        let gathered = &self.gathered[..entries];
        let restarts = self.restarts(entries);
        for run in gathered.chunk_by(|a, b| a.run == b.run) {
            self.content.extend_from_slice(&(run[0].start as u16).to_le_bytes());
        }
        let keys = gathered.iter().filter(|entry| entry.is_newest).count();
        let buckets = self.buckets(restarts, keys);
        hash_index(&mut self.content, gathered, buckets);
        self.content.extend_from_slice(&(buckets as u16).to_le_bytes());
        self.content.extend_from_slice(&(restarts as u16).to_le_bytes());
    }

    /// Goes on to the next block, which starts with the entries that the
    /// finished one did not take.
    pub fn reset(&mut self) {
        let bytes = mem::replace(&mut self.bytes, mem::take(&mut self.spare.0));
        let gathered = mem::replace(&mut self.gathered, mem::take(&mut self.spare.1));
        self.bytes.clear();
        self.gathered.clear();
        self.keys = 0;
        if self.taken < gathered.len() {
            let entries = gathered_entries(&bytes);
            let mut cursor = mem::take(&mut self.next);
            // All of them: that whole keys are at other places now may even
            // make them longer.
            let target_bytes = mem::replace(&mut self.target_bytes, usize::MAX);
            for entry in &gathered[self.taken..] {
                let value = entries.bytes(cursor.value());
                let fits = self.add(cursor.key(), cursor.tag(), value, entry.hash);
                assert!(fits, "there is no bound");
                cursor.next(entries).expect("the builder's own entries are sound");
            }
            self.target_bytes = target_bytes;
            self.next = cursor;
        }
        self.spare = (bytes, gathered);
    }
}

/// Entries that are not a block yet, for a cursor that is told where to start.
fn gathered_entries(bytes: &[u8]) -> Block<'_> {
    Block { bytes, shape: BlockShape { entries_end: bytes.len(), restarts: 0, buckets: 0 } }
}

/// Appends the buckets of the hash index.
fn hash_index(bytes: &mut Vec<u8>, entries: &[Gathered], buckets: usize) {
    let start = bytes.len();
    bytes.resize(start + buckets, BUCKET_NONE);
    if buckets == 0 {
        return;
    }
    for entry in entries.iter().filter(|entry| entry.is_newest) {
        let bucket = &mut bytes[start + bucket_of(entry.hash, buckets)];
        let run = entry.run as u8;
        *bucket = match *bucket {
            BUCKET_NONE => run,
            other if other == run => run,
            _ => BUCKET_COLLISION,
        };
    }
}

/// Pads what is stored of a block to whole units and appends the trailer.
pub(super) fn seal(
    stored: &mut Vec<u8>,
    content_bytes: usize,
    compression: Compression,
    seed: Seed,
) {
    let stored_bytes = stored.len();
    stored.resize(round_up(stored_bytes + TRAILER_BYTES) - TRAILER_BYTES, 0);
    stored.extend_from_slice(&(stored_bytes as u32).to_le_bytes());
    stored.extend_from_slice(&[TYPE_DATA, compression as u8]);
    stored.extend_from_slice(&0u16.to_le_bytes());
    stored.extend_from_slice(&(content_bytes as u32).to_le_bytes());
    let crc = seed.checksum(stored);
    stored.extend_from_slice(&crc.to_le_bytes());
}
