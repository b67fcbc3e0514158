//! Building data blocks.

use super::{
    BLOCK_BYTES_MAX, BUCKET_COLLISION, BUCKET_NONE, COMPRESSION_NONE, COUNTS_BYTES,
    HASHED_RESTARTS, TAG_BYTES, TRAILER_BYTES, TYPE_DATA, bucket_of, common_prefix,
};
use crate::base::checksum::Seed;
use crate::base::limits::{KEY_BYTES_MAX, UNIT, VALUE_BYTES_MAX, round_up};
use crate::base::seq::Tag;
use crate::format::varint;

/// What a writer is free to choose; a reader takes any.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Every so many entries one stores its whole key.
    pub restart_interval: usize,
    /// Buckets of the hash index for a hundred keys; 0 for no index.
    pub buckets_percent: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Self { restart_interval: 16, buckets_percent: 133 }
    }
}

/// The newest version of a key in a block.
#[derive(Clone, Copy)]
struct Newest {
    hash: u64,
    restart: usize,
}

/// Builds one block after the other in the same memory.
#[derive(Default)]
pub struct BlockBuilder {
    layout: Layout,
    bytes: Vec<u8>,
    restarts: Vec<u16>,
    /// One for each distinct key.
    newest: Vec<Newest>,
    entries: usize,
    last_key: Vec<u8>,
    last_tag: Option<Tag>,
}

impl BlockBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty builder of blocks with this layout.
    pub fn with_layout(layout: Layout) -> Self {
        assert!(layout.restart_interval > 0);
        Self { layout, ..Self::default() }
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
    /// `hash` is the key's, the one that filters use.
    pub fn add(&mut self, key: &[u8], tag: Tag, value: &[u8], hash: u64) -> bool {
        assert!(key.len() <= KEY_BYTES_MAX && value.len() <= VALUE_BYTES_MAX);
        let is_restart = self.entries.is_multiple_of(self.layout.restart_interval);
        let is_newest = self.entries == 0 || self.last_key != key;
        let shared = if is_restart { 0 } else { common_prefix(&self.last_key, key) };
        let suffix = &key[shared..];
        let lengths = [shared, suffix.len(), value.len()].map(|len| len as u32);
        let entry_bytes =
            lengths.map(varint::len).iter().sum::<usize>() + TAG_BYTES + suffix.len() + value.len();
        let restarts = self.restarts.len() + usize::from(is_restart);
        let buckets = self.buckets(restarts, self.newest.len() + usize::from(is_newest));
        let content = self.bytes.len() + entry_bytes + 2 * restarts + buckets + COUNTS_BYTES;
        if content + TRAILER_BYTES > UNIT && self.entries > 0 {
            return false;
        }
        if is_restart {
            self.restarts.push(self.bytes.len() as u16);
        }
        if is_newest {
            self.newest.push(Newest { hash, restart: restarts - 1 });
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

    /// Buckets of the hash index of a block with so many restart points and
    /// distinct keys.
    fn buckets(&self, restarts: usize, keys: usize) -> usize {
        if HASHED_RESTARTS.contains(&restarts) {
            keys * self.layout.buckets_percent / 100
        } else {
            0
        }
    }

    /// The finished block, in whole units, for the place that `seed` names.
    /// [`BlockBuilder::reset`] comes next.
    pub fn finish(&mut self, seed: Seed) -> &[u8] {
        assert!(self.entries > 0, "a block has at least one entry");
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        let buckets = self.buckets(self.restarts.len(), self.newest.len());
        hash_index(&mut self.bytes, &self.newest, buckets);
        self.bytes.extend_from_slice(&(buckets as u16).to_le_bytes());
        self.bytes.extend_from_slice(&(self.restarts.len() as u16).to_le_bytes());
        seal(&mut self.bytes, seed);
        assert!(self.bytes.len() <= BLOCK_BYTES_MAX);
        &self.bytes
    }

    /// Makes the builder empty.
    pub fn reset(&mut self) {
        self.bytes.clear();
        self.restarts.clear();
        self.newest.clear();
        self.entries = 0;
    }
}

/// Appends the buckets of the hash index.
fn hash_index(bytes: &mut Vec<u8>, keys: &[Newest], buckets: usize) {
    let start = bytes.len();
    bytes.resize(start + buckets, BUCKET_NONE);
    if buckets == 0 {
        return;
    }
    for key in keys {
        let bucket = &mut bytes[start + bucket_of(key.hash, buckets)];
        let restart = key.restart as u8;
        *bucket = match *bucket {
            BUCKET_NONE => restart,
            other if other == restart => restart,
            _ => BUCKET_COLLISION,
        };
    }
}

/// Pads the content of a block to whole units and appends the trailer.
pub(super) fn seal(bytes: &mut Vec<u8>, seed: Seed) {
    let content_bytes = bytes.len();
    bytes.resize(round_up(content_bytes + TRAILER_BYTES) - TRAILER_BYTES, 0);
    bytes.extend_from_slice(&(content_bytes as u32).to_le_bytes());
    bytes.extend_from_slice(&[TYPE_DATA, COMPRESSION_NONE]);
    bytes.extend_from_slice(&0u16.to_le_bytes());
    bytes.extend_from_slice(&0u32.to_le_bytes());
    let crc = seed.checksum(bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
}
