//! Filters: which keys a table certainly does not hold, without reading it.
//!
//! A binary fuse filter with 8-bit fingerprints (T. M. Graf, D. Lemire:
//! "Binary Fuse Filters: Fast and Smaller Than Xor Filters", 2022) over the
//! filter half of the keys' hashes: about 9 bits a key, and a stranger passes
//! with probability 1/256. The crate `xorf` builds and asks it; the bytes on
//! disk are our own, and a test pins what they mean.
#![allow(
    unreachable_pub,
    reason = "public only under the feature `bench-internals`, for benches/filter.rs"
)]

use xorf::{BinaryFuse8, Descriptor, Filter as _};

use super::header::{ByteReader, DecodeError};

const HEADER_BYTES: usize = 24;

/// The library counts fingerprints, of which a small filter has more than
/// keys, in 32 bits.
const KEYS_MAX: usize = 1 << 30;

/// The longest segment the construction chooses.
const SEGMENT_LENGTH_MAX: u32 = 1 << 18;

/// A filter over the keys of one table.
pub struct Filter(BinaryFuse8);

impl Filter {
    /// The filter of these hashes, which it sorts and rids of duplicates.
    ///
    /// `None` when the construction did not succeed, which no set of hashes is
    /// known to cause: the table must then do without.
    pub fn build(hashes: &mut Vec<u64>) -> Option<Self> {
        hashes.sort_unstable();
        hashes.dedup();
        if hashes.len() > KEYS_MAX {
            return None;
        }
        let filter = Self(BinaryFuse8::try_from(hashes.as_slice()).ok()?);
        // A filter that denies one of its own keys would lose that key.
        hashes.iter().all(|&hash| filter.may_contain(hash)).then_some(filter)
    }

    /// False only if the hash is not one of those the filter was built from.
    pub fn may_contain(&self, hash: u64) -> bool {
        self.0.contains(&hash)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.0.fingerprints.len()
    }

    /// The bytes that [`Filter::decode`] reads.
    pub fn encode(&self) -> Vec<u8> {
        let Descriptor { seed, segment_length, segment_length_mask, segment_count_length } =
            self.0.descriptor;
        let fingerprints = &self.0.fingerprints;
        let mut out = Vec::with_capacity(HEADER_BYTES + fingerprints.len());
        out.extend_from_slice(&seed.to_le_bytes());
        out.extend_from_slice(&segment_length.to_le_bytes());
        out.extend_from_slice(&segment_length_mask.to_le_bytes());
        out.extend_from_slice(&segment_count_length.to_le_bytes());
        out.extend_from_slice(&(fingerprints.len() as u32).to_le_bytes());
        out.extend_from_slice(fingerprints);
        out
    }

    /// Decodes what [`Filter::encode`] made. Lookups are in bounds afterwards,
    /// whatever the bytes were: a hash falls on a position below
    /// `segment_count_length`, and on one in each of the two segments after
    /// that position's.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = ByteReader::new(bytes);
        let seed = reader.u64()?;
        let segment_length = reader.u32()?;
        let segment_length_mask = reader.u32()?;
        let segment_count_length = reader.u32()?;
        let count = reader.u32()?;
        let whole = segment_length.is_power_of_two()
            && segment_length <= SEGMENT_LENGTH_MAX
            && segment_length_mask == segment_length - 1
            && segment_count_length > 0
            && segment_count_length.is_multiple_of(segment_length)
            && segment_count_length.checked_add(2 * segment_length) == Some(count);
        if !whole {
            let reason = format!(
                "a filter cannot have segments of {segment_length} (mask \
                 {segment_length_mask:#x}), {segment_count_length} positions and {count} \
                 fingerprints"
            );
            return Err(DecodeError::corrupt(8, reason));
        }
        let fingerprints = reader.take(count as usize)?.into();
        if !reader.is_empty() {
            return Err(DecodeError::corrupt(reader.position(), "bytes after the filter"));
        }
        let descriptor =
            Descriptor { seed, segment_length, segment_length_mask, segment_count_length };
        Ok(Self(BinaryFuse8 { descriptor, fingerprints }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Well-mixed numbers: the finalizer of SplitMix64.
    fn mixed(i: u64) -> u64 {
        let z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn filters_of_every_small_size_keep_their_keys() {
        for size in (0..200).chain([1000, 4095, 4096, 20_000]) {
            let hashes: Vec<u64> = (0..size).map(mixed).collect();
            // Duplicates, as several versions of one key would give.
            let mut with_duplicates = hashes.clone();
            with_duplicates.extend_from_slice(&hashes[..hashes.len() / 2]);
            let built = Filter::build(&mut with_duplicates).expect("a filter");
            let decoded = Filter::decode(&built.encode()).expect("sound bytes");
            assert!(hashes.iter().all(|&hash| decoded.may_contain(hash)), "size {size}");
        }
    }

    #[test]
    fn size_and_false_positives() {
        let filter = Filter::build(&mut (0..100_000).map(mixed).collect()).expect("a filter");
        let bits_per_key = filter.encode().len() as f64 * 8.0 / 1e5;
        assert!(bits_per_key < 9.6, "{bits_per_key}");
        let passed = (1 << 40..(1 << 40) + 100_000).filter(|&i| filter.may_contain(mixed(i)));
        let share = passed.count() as f64 / 1e5;
        assert!(share < 0.005, "{share}");
    }

    /// What a filter on disk says must be the same for ever, whatever the
    /// library does: these bytes are those of a filter over `mixed(0..5)`.
    #[test]
    fn known_answer() {
        let filter = Filter::decode(&KNOWN).expect("sound bytes");
        for i in 0..5 {
            assert!(filter.may_contain(mixed(i)), "{i}");
        }
        let strangers: Vec<u64> = (5..1000).filter(|&i| filter.may_contain(mixed(i))).collect();
        assert_eq!(strangers, KNOWN_FALSE_POSITIVES);
    }

    const KNOWN: [u8; 48] = [
        193, 92, 2, 137, 236, 45, 10, 145, 8, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 24, 0, 0,
        0, // fields
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 68, 0, 0, 0, 0, 0, 0, 157, 205, 0, 85, 49, 0, 0,
    ];
    const KNOWN_FALSE_POSITIVES: [u64; 7] = [71, 240, 277, 280, 528, 860, 914];

    #[test]
    fn damaged_bytes_never_panic() {
        let sound = Filter::build(&mut (0..300).map(mixed).collect()).expect("a filter").encode();
        for len in 0..sound.len() {
            assert!(Filter::decode(&sound[..len]).is_err());
        }
        assert!(Filter::decode(&[&sound[..], &[0]].concat()).is_err());
        for i in 0..HEADER_BYTES {
            for pattern in 1..=255 {
                let mut damaged = sound.clone();
                damaged[i] ^= pattern;
                match Filter::decode(&damaged) {
                    // Any seed makes a filter, if not one of these keys.
                    Ok(filter) => {
                        assert!(i < 8);
                        let passed = (0..999).filter(|&k| filter.may_contain(mixed(k))).count();
                        assert!(passed < 300, "{passed}");
                    }
                    Err(error) => assert!(i >= 8 && !error.unsupported),
                }
            }
        }
    }

    #[test]
    fn the_highest_positions_are_in_bounds() {
        for (segment_length, segments) in [(1u32, 1u32), (4, 1), (4, 7), (1 << 18, 2)] {
            let count_length = segment_length * segments;
            let count = count_length + 2 * segment_length;
            let mut bytes = 0u64.to_le_bytes().to_vec();
            for field in [segment_length, segment_length - 1, count_length, count] {
                bytes.extend_from_slice(&field.to_le_bytes());
            }
            bytes.resize(bytes.len() + count as usize, 0);
            let filter = Filter::decode(&bytes).expect("sound bytes");
            for i in 0..100_000 {
                filter.may_contain(mixed(i));
            }
        }
    }
}
