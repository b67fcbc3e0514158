//! The arena: where the entries of one memtable lie, each written once.
//!
//! An entry is a header, the key, and the inline value (or the number of the
//! shared one). Entries fill chunks of one size, which come from the pool; a
//! large entry gets a chunk of exactly its own pages, so that less than a
//! quarter of any chunk is left over at its end.

use std::sync::Arc;

use crate::base::limits::{INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX, round_up};
use crate::base::seq::Tag;
use crate::io::Pages;

use super::pool::ArenaPool;
use super::{Entry, Payload, ValueRef};

/// The size of a chunk in bytes.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Entries above this size get a chunk of their own.
const LARGE_BYTES: usize = CHUNK_BYTES / 4;

/// Entries start at multiples of this many bytes.
const ALIGN: usize = 8;

/// Tag (8 bytes), value length (4), key length (2), form of the value (2); all
/// little-endian.
const HEADER_BYTES: usize = 16;

const FORM_INLINE: u16 = 0;
/// In place of the value's bytes stands its number among the shared values.
const FORM_SHARED: u16 = 1;

/// The slot of a shared value in the arena.
const SHARED_SLOT_BYTES: usize = size_of::<Arc<[u8]>>();

const OFFSET_BITS: u32 = (CHUNK_BYTES / ALIGN).trailing_zeros();
const OFFSET_MASK: u32 = (1 << OFFSET_BITS) - 1;

const _: () = assert!((CHUNK_BYTES / ALIGN).is_power_of_two());
const _: () = assert!(HEADER_BYTES.is_multiple_of(ALIGN));
const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(INLINE_VALUE_BYTES_MAX <= u32::MAX as usize);

/// Where an entry starts: the number of its chunk and the offset there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Address(u32);

impl Address {
    fn new(chunk: usize, offset: usize) -> Self {
        assert!(chunk < 1 << (u32::BITS - OFFSET_BITS), "the memtable has too many chunks");
        Self((chunk as u32) << OFFSET_BITS | (offset / ALIGN) as u32)
    }

    fn chunk(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize
    }

    fn offset(self) -> usize {
        (self.0 & OFFSET_MASK) as usize * ALIGN
    }
}

/// The most that one entry adds to [`Arena::used_bytes`].
pub(super) fn entry_bytes_max(key_len: usize, value_len: usize) -> usize {
    let inline = stored_bytes(key_len, value_len);
    let reference = stored_bytes(key_len, size_of::<u32>()) + SHARED_SLOT_BYTES;
    inline.max(reference + shared_value_bytes(value_len))
}

/// What an `Arc<[u8]>` allocates: its two counters and the bytes, in words.
fn shared_value_bytes(value_len: usize) -> usize {
    (2 * size_of::<usize>() + value_len).next_multiple_of(align_of::<usize>())
}

fn stored_bytes(key_len: usize, tail_len: usize) -> usize {
    (HEADER_BYTES + key_len + tail_len).next_multiple_of(ALIGN)
}

/// The entries of one memtable.
#[derive(Default)]
pub(super) struct Arena {
    chunks: Vec<Pages>,
    /// The chunk that is being filled, and how far.
    open: Option<(usize, usize)>,
    shared: Vec<Arc<[u8]>>,
    /// Bytes of all chunks, and of the shared values with their counters.
    chunk_bytes: usize,
    shared_bytes: usize,
    /// Bytes of all entries, shared values included.
    used_bytes: usize,
}

impl Arena {
    /// Writes an entry and returns where.
    pub(super) fn push(
        &mut self,
        pool: &ArenaPool,
        key: &[u8],
        tag: Tag,
        value: Payload<'_>,
    ) -> Address {
        assert!(key.len() <= KEY_BYTES_MAX, "the key is too long");
        match value {
            Payload::Inline(bytes) => {
                assert!(bytes.len() <= INLINE_VALUE_BYTES_MAX, "the inline value is too long");
                self.write(pool, key, tag, (bytes.len() as u32, FORM_INLINE), bytes)
            }
            Payload::Shared(value) => {
                let value_len = u32::try_from(value.len()).expect("a value is below 4 GiB");
                let number = u32::try_from(self.shared.len()).expect("entries are below 2^32");
                let value_bytes = shared_value_bytes(value.len());
                self.shared_bytes += value_bytes;
                self.used_bytes += value_bytes + SHARED_SLOT_BYTES;
                self.shared.push(value);
                self.write(pool, key, tag, (value_len, FORM_SHARED), &number.to_le_bytes())
            }
        }
    }

    fn write(
        &mut self,
        pool: &ArenaPool,
        key: &[u8],
        tag: Tag,
        (value_len, form): (u32, u16),
        tail: &[u8],
    ) -> Address {
        let bytes = stored_bytes(key.len(), tail.len());
        let address = self.reserve(pool, bytes);
        let entry = &mut self.chunks[address.chunk()][address.offset()..][..bytes];
        let (header, rest) = entry.split_at_mut(HEADER_BYTES);
        header[..8].copy_from_slice(&tag.to_u64().to_le_bytes());
        header[8..12].copy_from_slice(&value_len.to_le_bytes());
        header[12..14].copy_from_slice(&(key.len() as u16).to_le_bytes());
        header[14..].copy_from_slice(&form.to_le_bytes());
        let (key_out, tail_out) = rest.split_at_mut(key.len());
        key_out.copy_from_slice(key);
        tail_out[..tail.len()].copy_from_slice(tail);
        self.used_bytes += bytes;
        address
    }

    fn reserve(&mut self, pool: &ArenaPool, bytes: usize) -> Address {
        if bytes > LARGE_BYTES {
            return Address::new(self.add_chunk(Pages::zeroed(round_up(bytes))), 0);
        }
        let (chunk, offset) = match self.open {
            Some((chunk, offset)) if offset + bytes <= CHUNK_BYTES => (chunk, offset),
            _ => (self.add_chunk(pool.take_chunk()), 0),
        };
        self.open = Some((chunk, offset + bytes));
        Address::new(chunk, offset)
    }

    fn add_chunk(&mut self, chunk: Pages) -> usize {
        self.chunk_bytes += chunk.len();
        self.chunks.push(chunk);
        self.chunks.len() - 1
    }

    pub(super) fn key(&self, at: Address) -> &[u8] {
        let (header, rest) = self.split(at);
        &rest[..header.key_len]
    }

    pub(super) fn key_and_tag(&self, at: Address) -> (&[u8], Tag) {
        let (header, rest) = self.split(at);
        (&rest[..header.key_len], header.tag)
    }

    pub(super) fn entry(&self, at: Address) -> Entry<'_> {
        let (header, rest) = self.split(at);
        let (key, tail) = rest.split_at(header.key_len);
        let value = match header.form {
            FORM_INLINE => ValueRef::Inline(&tail[..header.value_len]),
            _ => ValueRef::Shared(&self.shared[le_u32(tail) as usize]),
        };
        Entry { key, tag: header.tag, value }
    }

    fn split(&self, at: Address) -> (Header, &[u8]) {
        let chunk = &self.chunks[at.chunk()][at.offset()..];
        let (header, rest) = chunk.split_first_chunk().expect("entries lie within their chunk");
        (Header::decode(header), rest)
    }

    /// Bytes of all entries, shared values included.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Bytes of all memory that the arena owns.
    pub(super) fn held_bytes(&self) -> usize {
        self.chunk_bytes
            + self.shared_bytes
            + self.chunks.capacity() * size_of::<Pages>()
            + self.shared.capacity() * size_of::<Arc<[u8]>>()
    }

    /// Leaves the arena empty and returns the chunks that can be used again.
    pub(super) fn take_chunks(&mut self) -> Vec<Pages> {
        let mut chunks = std::mem::take(self).chunks;
        chunks.retain(|chunk| chunk.len() == CHUNK_BYTES);
        chunks
    }
}

struct Header {
    tag: Tag,
    value_len: usize,
    key_len: usize,
    form: u16,
}

impl Header {
    fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let word = u128::from_le_bytes(*bytes);
        Self {
            tag: Tag::from_u64(word as u64),
            value_len: (word >> 64) as u32 as usize,
            key_len: (word >> 96) as u16 as usize,
            form: (word >> 112) as u16,
        }
    }
}

fn le_u32(bytes: &[u8]) -> u32 {
    let number = bytes.first_chunk().expect("a shared value has a number");
    u32::from_le_bytes(*number)
}
