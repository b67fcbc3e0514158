//! References to long values, which are in value files.
//!
//! A reference says where a value is, and has a checksum for each chunk of it.
//! It goes through log, memtable and tables as the value of an entry of the kind
//! [`Indirect`](crate::base::seq::Kind::Indirect). Its bytes are under the
//! checksums of what holds it; those of the value only under the reference's. So
//! what is read from a value file is compared with what a sound entry says of
//! it, and nothing in the value file itself is relied on.

use crate::base::checksum::Seed;
use crate::base::ids::{DbId, FileId};
use crate::base::limits::{INLINE_VALUE_BYTES_MAX, UNIT_U64, VALUE_BYTES_MAX, round_up};
use crate::format::header::{ByteReader, DecodeError};
use crate::format::record::u32_at;

/// Bytes of a value under one checksum, unless the value has many.
const CHUNK_BYTES_MIN: usize = 64 << 10;

/// Chunks a value has at most.
const CHUNKS_MAX: usize = 1024;

/// Bytes of the longest chunk there is.
pub(crate) const CHUNK_BYTES_MAX: usize = VALUE_BYTES_MAX / CHUNKS_MAX;

/// File id (8), offset (8), length (4), chunk size (4).
const HEAD_BYTES: usize = 24;

/// Bytes of a checksum.
const SUM_BYTES: usize = 4;

const _: () = assert!(CHUNK_BYTES_MIN.is_power_of_two() && CHUNK_BYTES_MAX.is_power_of_two());
const _: () = assert!(CHUNK_BYTES_MIN <= CHUNK_BYTES_MAX);
const _: () = assert!(reference_bytes(VALUE_BYTES_MAX) <= INLINE_VALUE_BYTES_MAX);
const _: () = assert!(VALUE_BYTES_MAX <= u32::MAX as usize);

/// A place in a value file: whole units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    pub(crate) file: FileId,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Extent {
    /// Whether it lies behind the header, in whole units, and ends before the
    /// end of all numbers.
    pub(crate) fn is_sane(&self) -> bool {
        let end = self.offset.checked_add(self.bytes);
        end.is_some_and(|end| end <= i64::MAX as u64)
            && self.offset >= UNIT_U64
            && self.offset.is_multiple_of(UNIT_U64)
            && self.bytes.is_multiple_of(UNIT_U64)
    }
}

/// The seed of all checksums of a value file.
pub(crate) fn value_seed(db: DbId, file: FileId) -> Seed {
    let mut identity = [0; 28];
    identity[..16].copy_from_slice(&db.0);
    identity[16..20].copy_from_slice(b"val\0");
    identity[20..].copy_from_slice(&file.to_u64().to_le_bytes());
    Seed::of(&identity)
}

/// Bytes of a chunk of a value of this length.
pub(crate) const fn chunk_bytes(value_len: usize) -> usize {
    let mut bytes = CHUNK_BYTES_MIN;
    while value_len.div_ceil(bytes) > CHUNKS_MAX {
        bytes *= 2;
    }
    bytes
}

/// Bytes of the reference to a value of this length.
pub(crate) const fn reference_bytes(value_len: usize) -> usize {
    HEAD_BYTES + value_len.div_ceil(chunk_bytes(value_len)) * SUM_BYTES
}

/// A reference that is being made, while its value is being written.
pub(crate) struct ReferenceBuilder {
    bytes: Vec<u8>,
    seed: Seed,
    /// Where the next chunk is.
    offset: u64,
    chunk_bytes: usize,
}

impl ReferenceBuilder {
    /// A reference to a value of `len` bytes at the start of `extent`.
    pub(crate) fn new(db: DbId, extent: &Extent, len: usize) -> Self {
        assert!(extent.is_sane() && extent.bytes == round_up(len) as u64);
        let chunk_bytes = chunk_bytes(len);
        let mut bytes = Vec::with_capacity(reference_bytes(len));
        bytes.extend(extent.file.to_u64().to_le_bytes());
        bytes.extend(extent.offset.to_le_bytes());
        bytes.extend((len as u32).to_le_bytes());
        bytes.extend((chunk_bytes as u32).to_le_bytes());
        let seed = value_seed(db, extent.file);
        Self { bytes, seed, offset: extent.offset, chunk_bytes }
    }

    /// Adds the next bytes of the value: whole chunks, but for its end.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(self.chunk_bytes) {
            let sum = self.seed.with_u64(self.offset).checksum(chunk);
            self.bytes.extend(sum.to_le_bytes());
            self.offset += chunk.len() as u64;
        }
    }

    /// The encoded reference; all of the value was added.
    pub(crate) fn finish(self) -> Vec<u8> {
        assert_eq!(self.bytes.len(), reference_bytes(u32_at(&self.bytes, 16) as usize));
        self.bytes
    }
}

/// A decoded reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    pub(crate) file: FileId,
    pub(crate) offset: u64,
    /// Bytes of the value.
    pub(crate) len: usize,
    chunk_bytes: usize,
    sums: &'a [u8],
}

impl<'a> Reference<'a> {
    /// Decodes a reference, whose every field is within its bounds then.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = ByteReader::new(bytes);
        let file = FileId::from_u64(reader.u64()?);
        let offset = reader.u64()?;
        let len = reader.u32()? as usize;
        let chunk = reader.u32()? as usize;
        let malformed = |reason: &'static str| Err(DecodeError::corrupt(0, reason));
        if len == 0 || len > VALUE_BYTES_MAX {
            return malformed("a reference to a value of an impossible length");
        }
        // Other sizes than this version's are fine, as long as they are whole.
        if !chunk.is_power_of_two() || !(CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&chunk) {
            return malformed("a reference with an impossible chunk size");
        }
        let sums = reader.take(len.div_ceil(chunk) * SUM_BYTES)?;
        if !reader.is_empty() {
            return malformed("a reference is longer than its fields");
        }
        let this = Self { file, offset, len, chunk_bytes: chunk, sums };
        if !this.extent().is_sane() {
            return malformed("a reference to an impossible place");
        }
        Ok(this)
    }

    /// The place of the value, with its padding.
    pub(crate) fn extent(&self) -> Extent {
        Extent { file: self.file, offset: self.offset, bytes: round_up(self.len) as u64 }
    }

    /// Verifies bytes of the value from byte `start` on: whole chunks, but for
    /// its end. The offset in the file of the first that is damaged.
    pub(crate) fn verify(&self, seed: Seed, start: usize, bytes: &[u8]) -> Result<(), u64> {
        assert!(start.is_multiple_of(self.chunk_bytes) && start + bytes.len() <= self.len);
        let sums = &self.sums[start / self.chunk_bytes * SUM_BYTES..];
        let mut offset = self.offset + start as u64;
        for (chunk, sum) in bytes.chunks(self.chunk_bytes).zip(sums.chunks(SUM_BYTES)) {
            if seed.with_u64(offset).checksum(chunk) != u32_at(sum, 0) {
                return Err(offset);
            }
            offset += chunk.len() as u64;
        }
        Ok(())
    }
}

/// Verifies a value that comes in pieces of any length, from front to back.
pub(crate) struct Verifier<'a> {
    reference: Reference<'a>,
    seed: Seed,
    /// Bytes of the value so far.
    done: usize,
    /// The checksum of the chunk so far.
    sum: Seed,
}

impl<'a> Verifier<'a> {
    /// `seed` is that of the file.
    pub(crate) fn new(reference: Reference<'a>, seed: Seed) -> Self {
        Self { reference, seed, done: 0, sum: seed }
    }

    /// Adds the next bytes; says where in the file the chunks start that ended
    /// with them and are damaged.
    pub(crate) fn add(&mut self, mut bytes: &[u8]) -> Vec<u64> {
        let Reference { offset, len, chunk_bytes, sums, .. } = self.reference;
        assert!(self.done + bytes.len() <= len, "more than the value");
        let mut damaged = Vec::new();
        while !bytes.is_empty() {
            let chunk = self.done / chunk_bytes;
            let start = chunk * chunk_bytes;
            if self.done == start {
                self.sum = self.seed.with_u64(offset + start as u64);
            }
            let end = len.min(start + chunk_bytes);
            let (part, rest) = bytes.split_at(bytes.len().min(end - self.done));
            self.sum = self.sum.with_bytes(part);
            self.done += part.len();
            bytes = rest;
            if self.done == end && self.sum.checksum(b"") != u32_at(sums, chunk * SUM_BYTES) {
                damaged.push(offset + start as u64);
            }
        }
        damaged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DB: DbId = DbId([5; 16]);

    fn sample(len: usize) -> (Vec<u8>, Vec<u8>, Extent) {
        let value: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
        let file = FileId::new(3, 4);
        let extent = Extent { file, offset: 3 * UNIT_U64, bytes: round_up(len) as u64 };
        let mut builder = ReferenceBuilder::new(DB, &extent, len);
        for part in value.chunks(CHUNK_BYTES_MAX) {
            builder.add(part);
        }
        (builder.finish(), value, extent)
    }

    #[test]
    fn round_trip_around_the_bounds_of_chunks() {
        for len in [1, CHUNK_BYTES_MIN, CHUNK_BYTES_MIN + 1, (1 << 20) - 1, (1 << 20) + 1] {
            let (bytes, value, extent) = sample(len);
            assert_eq!(bytes.len(), reference_bytes(len));
            let reference = Reference::decode(&bytes).unwrap();
            assert_eq!((reference.extent(), reference.len), (extent, len));
            reference.verify(value_seed(DB, extent.file), 0, &value).unwrap();
        }
    }

    #[test]
    fn the_number_of_chunks_is_bounded() {
        let longest = CHUNKS_MAX * CHUNK_BYTES_MIN;
        assert_eq!(chunk_bytes(longest), CHUNK_BYTES_MIN);
        assert_eq!(chunk_bytes(longest + 1), 2 * CHUNK_BYTES_MIN);
        assert_eq!(chunk_bytes(VALUE_BYTES_MAX), CHUNK_BYTES_MAX);
        assert_eq!(reference_bytes(VALUE_BYTES_MAX), HEAD_BYTES + 4 * CHUNKS_MAX);
    }

    #[test]
    fn a_value_counts_only_in_its_place_and_every_chunk_is_looked_at() {
        let (bytes, value, extent) = sample(3 * CHUNK_BYTES_MIN + 5);
        let reference = Reference::decode(&bytes).unwrap();
        let seed = value_seed(DB, extent.file);
        let elsewhere = value_seed(DB, FileId::new(3, 5));
        assert_eq!(reference.verify(elsewhere, 0, &value), Err(extent.offset));
        assert!(reference.verify(value_seed(DbId([6; 16]), extent.file), 0, &value).is_err());
        let moved = Reference { offset: extent.offset + UNIT_U64, ..reference };
        assert!(moved.verify(seed, 0, &value).is_err());
        for chunk in 0..4 {
            let mut bad = value.clone();
            bad[chunk * CHUNK_BYTES_MIN + 4] ^= 1;
            let at = extent.offset + (chunk * CHUNK_BYTES_MIN) as u64;
            assert_eq!(reference.verify(seed, 0, &bad), Err(at));
            let start = chunk * CHUNK_BYTES_MIN;
            assert_eq!(reference.verify(seed, start, &bad[start..]), Err(at));
            reference.verify(seed, start, &value[start..]).unwrap();
        }
    }

    #[test]
    fn pieces_of_any_length_are_verified() {
        let (bytes, value, extent) = sample(3 * CHUNK_BYTES_MIN + 5);
        let reference = Reference::decode(&bytes).unwrap();
        let damage = |value: &[u8], piece: usize| -> Vec<u64> {
            let mut verifier = Verifier::new(reference, value_seed(DB, extent.file));
            value.chunks(piece).flat_map(|piece| verifier.add(piece)).collect()
        };
        for piece in [1000, UNIT_U64 as usize, CHUNK_BYTES_MIN, 100_000, value.len()] {
            assert_eq!(damage(&value, piece), []);
            for chunk in 0..4 {
                let mut bad = value.clone();
                bad[chunk * CHUNK_BYTES_MIN + 4] ^= 1;
                let at = extent.offset + (chunk * CHUNK_BYTES_MIN) as u64;
                assert_eq!(damage(&bad, piece), [at], "pieces of {piece}");
            }
        }
    }

    #[test]
    fn hostile_references_are_refused() {
        let (bytes, ..) = sample(100_000);
        for cut in 0..bytes.len() {
            assert!(Reference::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut long = bytes.clone();
        long.push(0);
        assert!(Reference::decode(&long).is_err());
        let with = |at: usize, field: &[u8]| {
            let mut bad = bytes.clone();
            bad[at..at + field.len()].copy_from_slice(field);
            Reference::decode(&bad).map(|reference| reference.len)
        };
        assert_eq!(with(8, &8192u64.to_le_bytes()), Ok(100_000));
        for offset in [0, 1, 4097, 1 << 63, u64::MAX - 4095] {
            assert!(with(8, &offset.to_le_bytes()).is_err(), "offset {offset}");
        }
        for len in [0, 1 << 16, (1 << 30) + 1, u32::MAX] {
            assert!(with(16, &len.to_le_bytes()).is_err(), "length {len}");
        }
        for chunk in [0, 1, 32 << 10, 100_000, 2 << 20, u32::MAX] {
            assert!(with(20, &chunk.to_le_bytes()).is_err(), "chunks of {chunk}");
        }
    }
}
