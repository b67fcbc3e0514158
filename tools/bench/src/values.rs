//! Values: partly random, partly compressible, and checkable to the last byte.
//!
//! A value is a function of seed, record and version. Its first part, half of it unless it is
//! told otherwise, is incompressible: a header (record, version, check) and a slice of a pool of
//! random bytes, taken at an offset that hashes from all three. The rest
//! is a repeated text. Its length follows from the same hash, if values are not all alike. Making one costs two copies, checking one two
//! comparisons.
//!
//! The bytes are part of the format of `ouro-bench.json` (format 1): a database
//! loaded by one version of this tool is verified by the next.

use crate::permutation::mix64;
use crate::sizes::Sizes;

/// Record, version (little-endian) and check.
const HEADER_BYTES: usize = 8 + 4 + 4;
const POOL_BYTES: usize = 1 << 20;
/// The random part of a long value is put together from pieces of this size.
const PIECE_BYTES: usize = 32 << 10;
/// The share of a value that can be compressed, unless it is told otherwise.
pub const COMPRESSIBLE: f64 = 0.5;
const TEXT: &[u8; 16] = b"ouroboros, again";
/// The text, repeated, so that long values are filled by long copies.
const TEXT_BYTES: usize = 4 << 10;

const _: () = assert!(PIECE_BYTES < POOL_BYTES && TEXT_BYTES.is_multiple_of(TEXT.len()));

/// Makes and checks the values of one database.
pub struct ValueSource {
    sizes: Sizes,
    compressible: f64,
    seed: u64,
    pool: Vec<u8>,
    text: Vec<u8>,
}

impl ValueSource {
    /// Values of `value_bytes` bytes, half of which can be compressed. Below 16 bytes there is no
    /// room for a header: such values depend on the record alone.
    #[must_use]
    pub fn new(value_bytes: usize, seed: u64) -> Self {
        Self::with(Sizes::Fixed(value_bytes), COMPRESSIBLE, seed)
    }

    /// Values of these lengths, of which a share can be compressed.
    #[must_use]
    pub fn with(sizes: Sizes, compressible: f64, seed: u64) -> Self {
        let words = (0..POOL_BYTES as u64 / 8).map(|i| mix64(seed ^ mix64(i)));
        Self {
            sizes,
            compressible,
            seed,
            pool: words.flat_map(u64::to_le_bytes).collect(),
            text: TEXT.repeat(TEXT_BYTES / TEXT.len()),
        }
    }

    /// Puts the value of `record` in its `version` into `value`, in place of
    /// what it held.
    pub fn write(&self, record: u64, version: u32, value: &mut Vec<u8>) {
        value.clear();
        if let Sizes::Fixed(bytes @ ..HEADER_BYTES) = self.sizes {
            value.extend_from_slice(&self.short(record)[..bytes]);
            return;
        }
        let hash = self.hash(record, version);
        self.write_long(record, version, hash, self.bytes(hash), value);
    }

    /// The same with so many bytes, whatever values have otherwise.
    pub fn write_sized(&self, record: u64, version: u32, bytes: usize, value: &mut Vec<u8>) {
        value.clear();
        if bytes < HEADER_BYTES {
            value.extend_from_slice(&self.short(record)[..bytes]);
            return;
        }
        self.write_long(record, version, self.hash(record, version), bytes, value);
    }

    /// Whether `value` is what [`ValueSource::write_sized`] writes for `record`.
    #[must_use]
    pub fn verify_sized(&self, record: u64, value: &[u8]) -> bool {
        match value.len() {
            bytes @ ..HEADER_BYTES => value == &self.short(record)[..bytes],
            bytes => self.verify_long(record, value, |_| bytes),
        }
    }

    fn write_long(&self, record: u64, version: u32, hash: u64, bytes: usize, value: &mut Vec<u8>) {
        value.extend_from_slice(&record.to_le_bytes());
        value.extend_from_slice(&version.to_le_bytes());
        value.extend_from_slice(&check(hash));
        for piece in self.body(hash, bytes) {
            value.extend_from_slice(piece);
        }
    }

    /// Whether `value` is, to the last byte, what [`ValueSource::write`] writes
    /// for `record` in any version.
    #[must_use]
    pub fn verify(&self, record: u64, value: &[u8]) -> bool {
        if let Sizes::Fixed(bytes @ ..HEADER_BYTES) = self.sizes {
            return value == &self.short(record)[..bytes];
        }
        value.len() >= HEADER_BYTES && self.verify_long(record, value, |hash| self.bytes(hash))
    }

    /// Whether a value is right that has as many bytes as belong to its hash.
    fn verify_long(&self, record: u64, value: &[u8], bytes: impl Fn(u64) -> usize) -> bool {
        let (header, mut rest) = value.split_at(HEADER_BYTES);
        let mut version = [0; 4];
        version.copy_from_slice(&header[8..12]);
        let hash = self.hash(record, u32::from_le_bytes(version));
        if header[..8] != record.to_le_bytes() || header[12..] != check(hash) {
            return false;
        }
        if value.len() != bytes(hash) {
            return false;
        }
        self.body(hash, value.len()).all(|piece| {
            let (found, after) = rest.split_at(piece.len());
            rest = after;
            found == piece
        })
    }

    /// Everything after the header: random pieces, then text.
    fn body(&self, hash: u64, bytes: usize) -> impl Iterator<Item = &[u8]> {
        let text_bytes = (bytes as f64 * self.compressible) as usize;
        let text_bytes = text_bytes.min(bytes - HEADER_BYTES);
        let random_bytes = bytes - HEADER_BYTES - text_bytes;
        let random = pieces(random_bytes, PIECE_BYTES).zip(0..).map(move |(bytes, i)| {
            let offset = ((mix64(hash ^ i) >> 32) * (POOL_BYTES - bytes + 1) as u64) >> 32;
            &self.pool[offset as usize..][..bytes]
        });
        let text = pieces(text_bytes, TEXT_BYTES).map(move |bytes| &self.text[..bytes]);
        random.chain(text)
    }

    /// The length of the value with this hash.
    fn bytes(&self, hash: u64) -> usize {
        self.sizes.draw(mix64(hash))
    }

    fn hash(&self, record: u64, version: u32) -> u64 {
        mix64(mix64(record ^ self.seed) ^ u64::from(version))
    }

    fn short(&self, record: u64) -> [u8; HEADER_BYTES] {
        let hash = self.hash(record, 0);
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&hash.to_le_bytes());
        bytes[8..].copy_from_slice(&mix64(hash).to_le_bytes());
        bytes
    }
}

fn check(hash: u64) -> [u8; 4] {
    ((hash >> 32) as u32).to_le_bytes()
}

/// `total` cut into pieces of at most `piece`.
fn pieces(total: usize, piece: usize) -> impl Iterator<Item = usize> {
    (0..total.div_ceil(piece)).map(move |i| piece.min(total - i * piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 12] = [0, 1, 8, 15, 16, 17, 31, 33, 400, 4096, 65_536, 300_001];

    fn value(source: &ValueSource, record: u64, version: u32) -> Vec<u8> {
        let mut value = vec![1, 2, 3];
        source.write(record, version, &mut value);
        value
    }

    #[test]
    fn every_version_of_a_record_verifies() {
        for value_bytes in SIZES {
            let source = ValueSource::new(value_bytes, 9);
            for (record, version) in [(0, 0), (7, 0), (7, 1), (u64::MAX, u32::MAX)] {
                let value = value(&source, record, version);
                assert_eq!(value.len(), value_bytes);
                assert!(source.verify(record, &value), "{value_bytes} {record} {version}");
            }
        }
    }

    #[test]
    fn every_flipped_byte_is_seen() {
        for value_bytes in [1, 15, 16, 17, 400] {
            let source = ValueSource::new(value_bytes, 9);
            let mut value = value(&source, 7, 3);
            for i in 0..value_bytes {
                value[i] ^= 1;
                assert!(!source.verify(7, &value), "byte {i} of {value_bytes}");
                value[i] ^= 1;
            }
            assert!(source.verify(7, &value));
        }
    }

    #[test]
    fn values_of_others_are_refused() {
        for value_bytes in [8, 15, 16, 400] {
            let source = ValueSource::new(value_bytes, 9);
            let seven = value(&source, 7, 0);
            assert!(!source.verify(8, &seven));
            assert!(!source.verify(7, &seven[1..]));
            assert!(!ValueSource::new(value_bytes, 10).verify(7, &seven));
        }
    }

    #[test]
    fn lengths_differ_and_are_verified() {
        let sizes: Sizes = "16..3000".parse().unwrap();
        let source = ValueSource::with(sizes, 0.25, 9);
        let mut lengths = std::collections::HashSet::new();
        for version in 0..50 {
            let mut value = value(&source, 7, version);
            lengths.insert(value.len());
            assert!(source.verify(7, &value));
            let short = &value[..value.len() - 1];
            assert!(!source.verify(7, short));
            value.push(b'o');
            assert!(!source.verify(7, &value));
        }
        assert!(lengths.len() > 40);
    }

    #[test]
    fn as_much_is_text_as_is_asked_for() {
        for (compressible, expected) in [(0.0, 0), (0.25, 1000), (0.9, 3600), (1.0, 3984)] {
            let source = ValueSource::with(Sizes::Fixed(4000), compressible, 9);
            let value = value(&source, 7, 1);
            let text = TEXT.repeat(250);
            assert_eq!(value[4000 - expected..], text[..expected]);
            assert!(source.verify(7, &value));
        }
    }

    #[test]
    fn values_may_have_any_length_that_is_asked_for() {
        let (source, mut value) = (ValueSource::new(400, 9), Vec::new());
        for bytes in SIZES {
            source.write_sized(7, 5, bytes, &mut value);
            assert_eq!(value.len(), bytes);
            assert!(source.verify_sized(7, &value));
            assert_eq!(source.verify_sized(8, &value), bytes == 0);
            if let Some(last) = value.last_mut() {
                *last ^= 1;
                assert!(!source.verify_sized(7, &value));
            }
        }
    }

    #[test]
    fn versions_differ() {
        let source = ValueSource::new(400, 9);
        assert_ne!(value(&source, 7, 0)[12..], value(&source, 7, 1)[12..]);
    }

    #[test]
    fn half_is_text_and_half_is_not() {
        for value_bytes in [400, 401, 65_536] {
            let value = value(&ValueSource::new(value_bytes, 9), 7, 0);
            let (random, text) = value.split_at(value_bytes.div_ceil(2));
            assert!(text.iter().zip(TEXT.iter().cycle()).all(|(a, b)| a == b));
            let mut seen = [false; 256];
            random.iter().for_each(|byte| seen[usize::from(*byte)] = true);
            // 200 random bytes show 139 different ones on average.
            assert!(seen.iter().filter(|seen| **seen).count() > 100);
        }
    }

    /// The values of format 1 are what they always were.
    #[test]
    fn the_bytes_are_stable() {
        let value = value(&ValueSource::new(48, 1), 2, 3);
        let hex: String = value[..24].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "020000000000000003000000f602a4bc04cc347fee3313ec");
        assert_eq!(&value[24..], b"ouroboros, againouroboro");
    }
}
