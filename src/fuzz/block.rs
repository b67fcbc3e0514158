//! Data blocks: as they are, and compressed.

use super::{ERROR_BYTES, place, within};
use crate::base::limits::{UNIT, round_up};
use crate::base::seq::{Kind, Tag};
use crate::format::block::{
    BLOCK_BYTES_MAX, Block, BlockBuilder, BlockCursor, Compression, Layout, Lookup, TRAILER_BYTES,
    check_padding, plausible_lengths,
};

/// What an input ends with: the trailer but for its checksum.
const TAIL_BYTES: usize = TRAILER_BYTES - 4;

/// What zstd sets up once in each thread.
const CONTEXT_BYTES: usize = 256 << 10;

/// A hash of keys, as good as any.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(7, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// What is stored of a block, and its trailer. A stored length of zero stands
/// for that of what is stored, and so does a content length of zero: inputs are
/// to grow and shrink.
pub(super) fn plain(data: &[u8]) {
    let _ = within(data.len(), 0, ERROR_BYTES, || {
        Block::decode(data, place(), &mut Vec::new()).map(|block| block.shape())
    });
    let Some((stored, &tail)) = data.split_last_chunk::<TAIL_BYTES>() else { return };
    sealed(stored, tail);
}

/// The content's length, and what is stored.
pub(super) fn lz4(data: &[u8]) {
    compressed(data, Compression::Lz4);
}

/// As [`lz4`].
pub(super) fn zstd(data: &[u8]) {
    compressed(data, Compression::Zstd);
}

fn compressed(data: &[u8], compression: Compression) {
    let Some((content_bytes, stored)) = data.split_first_chunk::<4>() else { return };
    let mut tail = [0; TAIL_BYTES];
    tail[4..6].copy_from_slice(&[1, compression as u8]);
    tail[8..].copy_from_slice(content_bytes);
    sealed(stored, tail);
}

fn sealed(stored: &[u8], mut tail: [u8; TAIL_BYTES]) {
    for field in [0, 8] {
        if tail[field..field + 4] == [0; 4] {
            tail[field..field + 4].copy_from_slice(&(stored.len() as u32).to_le_bytes());
        }
    }
    let mut extent = stored.to_vec();
    extent.resize(round_up(stored.len() + TRAILER_BYTES) - TRAILER_BYTES, 0);
    extent.extend_from_slice(&tail);
    let crc = place().checksum(&extent);
    extent.extend_from_slice(&crc.to_le_bytes());
    let _ = check_padding(&extent);
    assert!(plausible_lengths(&extent).all(|len| len <= extent.len()));

    let mut plain = Vec::new();
    let decoded = within(extent.len(), 0, BLOCK_BYTES_MAX + CONTEXT_BYTES + ERROR_BYTES, || {
        Block::decode(&extent, place(), &mut plain)
    });
    let Ok(block) = decoded else { return };
    let again = Block::of_verified(block.content()).expect("it was verified");
    assert_eq!(again.shape(), block.shape());
    look_around(block);
    // What is verified is all that lookups rely on.
    if block.check(hash, |_, _, _| ()).is_ok() {
        all_is_found(block);
        builds_again(block, Compression::None);
        builds_again(block, Compression::Lz4);
        #[cfg(feature = "zstd")]
        builds_again(block, Compression::Zstd);
    }
}

/// Whatever the entries are, nothing panics, and every walk ends.
fn look_around(block: Block<'_>) {
    let mut cursor = BlockCursor::new();
    let mut key = Vec::new();
    let mut steps = 0;
    let mut walked = cursor.seek_to_first(block);
    while walked.is_ok() && cursor.is_valid() {
        key.clear();
        key.extend_from_slice(cursor.key());
        steps += 1;
        walked = cursor.next(block);
    }
    assert!(steps <= BLOCK_BYTES_MAX / 11, "an entry has eleven bytes at least");
    for key in [&key[..], b"", b"\xff\xff", b"key"] {
        let _ = block.get(key, hash(key), 9);
        let tag = Tag::new(9, Kind::Put);
        let _ = cursor.seek_before(block, key, tag);
    }
    let _ = cursor.seek_to_last(block);
}

/// Each entry, forward, backward, by its key, and as the newest below its number.
fn all_is_found(block: Block<'_>) {
    let sound = "it was checked";
    let mut cursor = BlockCursor::new();
    let mut places = Vec::new();
    let mut last: Option<(Vec<u8>, u64)> = None;
    cursor.seek_to_first(block).expect(sound);
    while cursor.is_valid() {
        let (key, tag, value) = (cursor.key(), cursor.tag(), cursor.value());
        let is_newest = last.as_ref().is_none_or(|(k, seq)| (&k[..], *seq) != (key, tag.seq()));
        if is_newest {
            let found = block.get(key, hash(key), tag.seq());
            let expected = Lookup::Found { tag, value: value.clone() };
            assert_eq!(found, Ok(expected), "the entry with key {}", key.escape_ascii());
        }
        let mut other = BlockCursor::new();
        other.seek(block, key, tag).expect(sound);
        assert!(other.is_valid() && other.value() == value && other.tag() == tag);
        places.push(value);
        last = Some((key.to_vec(), tag.seq()));
        cursor.next(block).expect(sound);
    }
    cursor.seek_to_last(block).expect(sound);
    for value in places.iter().rev() {
        assert_eq!(&cursor.value(), value);
        cursor.prev(block).expect(sound);
    }
    assert!(!cursor.is_valid());
}

/// The builder makes blocks with the same entries of them.
fn builds_again(block: Block<'_>, compression: Compression) {
    let sound = "it was checked";
    let mut builder = BlockBuilder::new(Layout { compression, ..Layout::default() });
    let (mut source, mut expected) = (BlockCursor::new(), BlockCursor::new());
    source.seek_to_first(block).expect(sound);
    expected.seek_to_first(block).expect(sound);
    let mut finish = |builder: &mut BlockBuilder| {
        let (mut plain, mut cursor) = (Vec::new(), BlockCursor::new());
        let built = builder.finish(place());
        let built = Block::decode(built.extent, place(), &mut plain).expect("a sound block");
        built.check(hash, |_, _, _| ()).expect("a sound block");
        cursor.seek_to_first(built).expect("a sound block");
        while cursor.is_valid() {
            assert_eq!((cursor.key(), cursor.tag()), (expected.key(), expected.tag()));
            assert_eq!(built.bytes(cursor.value()), block.bytes(expected.value()));
            cursor.next(built).expect("a sound block");
            expected.next(block).expect(sound);
        }
        builder.reset();
    };
    while source.is_valid() {
        let (key, value) = (source.key(), block.bytes(source.value()));
        if builder.add(key, source.tag(), value, hash(key)) {
            source.next(block).expect(sound);
        } else {
            finish(&mut builder);
        }
    }
    while !builder.is_empty() {
        finish(&mut builder);
    }
    assert!(!expected.is_valid(), "some entries are missing");
}

/// What is stored of a block of such entries, and its content's length.
fn built(compression: Compression, entries: usize) -> (Vec<u8>, [u8; 4]) {
    let mut builder = BlockBuilder::new(Layout { compression, ..Layout::default() });
    for i in 0..entries {
        let key = format!("key of entry {:03}", i / 2);
        let (tag, value) = match i % 5 {
            4 => (Tag::new(1000 - i as u64, Kind::Delete), String::new()),
            n => (Tag::new(1000 - i as u64, Kind::Put), format!("value {n} ").repeat(i % 7)),
        };
        if !builder.add(key.as_bytes(), tag, value.as_bytes(), hash(key.as_bytes())) {
            break;
        }
    }
    let extent = builder.finish(place()).extent;
    let trailer = &extent[extent.len() - TRAILER_BYTES..];
    assert_eq!(trailer[5], compression as u8, "it got smaller");
    let word = |at: usize| [trailer[at], trailer[at + 1], trailer[at + 2], trailer[at + 3]];
    (extent[..u32::from_le_bytes(word(0)) as usize].to_vec(), word(8))
}

pub(super) fn plain_seeds() -> Vec<Vec<u8>> {
    let mut tail = [0; TAIL_BYTES];
    tail[4] = 1;
    let seed = |entries| [&built(Compression::None, entries).0[..], &tail].concat();
    [1, 7, 60].map(seed).to_vec()
}

pub(super) fn lz4_seeds() -> Vec<Vec<u8>> {
    compressed_seeds(Compression::Lz4)
}

pub(super) fn zstd_seeds() -> Vec<Vec<u8>> {
    if cfg!(feature = "zstd") { compressed_seeds(Compression::Zstd) } else { Vec::new() }
}

fn compressed_seeds(compression: Compression) -> Vec<Vec<u8>> {
    let (stored, content_bytes) = built(compression, 400);
    assert!(stored.len() < UNIT);
    vec![[&content_bytes[..], &stored].concat()]
}
