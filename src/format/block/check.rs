//! Everything that lookups take for granted of a block, verified.

use super::{
    BLOCK_BYTES_MAX, BUCKET_COLLISION, BUCKET_NONE, Block, BlockCursor, Compression, TRAILER_BYTES,
    TYPE_DATA, bucket_of, common_prefix,
};
use crate::base::limits::UNIT;
use crate::base::seq::{Tag, compare_internal};
use crate::format::header::{ByteReader, DecodeError};
use crate::format::record::u32_at;

impl Block<'_> {
    /// Calls `visit` with key, tag and value of each entry, in order.
    ///
    /// # Errors
    /// When entries are not in order, a restart point is not what it should be,
    /// or the hash index does not say what follows from the entries. `hash`
    /// gives a key's.
    pub(crate) fn check(
        &self,
        hash: impl Fn(&[u8]) -> u64,
        mut visit: impl FnMut(&[u8], Tag, &[u8]),
    ) -> Result<(), DecodeError> {
        let buckets = self.shape.buckets;
        let mut expected = vec![BUCKET_NONE; buckets];
        let mut runs = 0;
        let mut previous: Option<(Vec<u8>, Tag)> = None;
        let mut cursor = BlockCursor::new();
        cursor.seek_to_first(*self)?;
        while cursor.is_valid() {
            let (key, tag, at) = (cursor.key(), cursor.tag(), cursor.start);
            if runs < self.shape.restarts && self.restart(runs) == at {
                if self.stored(at)?.shared != 0 {
                    return Err(DecodeError::corrupt(at, "a restart point without its whole key"));
                }
                runs += 1;
            }
            let before = previous.as_ref().map(|(key, tag)| (&key[..], *tag));
            if before.is_some_and(|before| !compare_internal(before, (key, tag)).is_lt()) {
                return Err(DecodeError::corrupt(at, "an entry of a block is out of order"));
            }
            // Or nothing: so it may be a restart point, and compared from its start.
            let shared = self.stored(at)?.shared;
            if shared > 0 && before.is_some_and(|before| common_prefix(before.0, key) != shared) {
                let reason = "a key shares more with the one before than is stated";
                return Err(DecodeError::corrupt(at, reason));
            }
            if buckets > 0 && before.is_none_or(|before| before.0 != key) {
                let bucket = &mut expected[bucket_of(hash(key), buckets)];
                let run = (runs - 1) as u8;
                *bucket = match *bucket {
                    BUCKET_NONE => run,
                    same if same == run => run,
                    _ => BUCKET_COLLISION,
                };
            }
            visit(key, tag, self.bytes(cursor.value()));
            let (key, last_tag) = previous.get_or_insert_with(|| (Vec::new(), tag));
            key.clear();
            key.extend_from_slice(cursor.key());
            *last_tag = tag;
            cursor.next(*self)?;
        }
        if runs < self.shape.restarts {
            let at = self.shape.entries_end + 2 * runs;
            return Err(DecodeError::corrupt(at, "a restart point is not at an entry"));
        }
        let start = self.shape.buckets_start();
        let stored = &self.bytes[start..start + buckets];
        match stored.iter().zip(&expected).position(|(stored, expected)| stored != expected) {
            None => Ok(()),
            Some(bucket) => {
                let reason = format!(
                    "bucket {bucket} of a block's hash index says {}, and {} is right",
                    stored[bucket], expected[bucket]
                );
                Err(DecodeError::corrupt(start + bucket, reason))
            }
        }
    }
}

/// What is between a block's content, as it is stored, and its trailer must be
/// zero.
pub(crate) fn check_padding(extent: &[u8]) -> Result<(), DecodeError> {
    let trailer_at = extent.len() - TRAILER_BYTES;
    let mut reader = ByteReader::new(&extent[..trailer_at]);
    reader.take(u32_at(extent, trailer_at) as usize)?;
    reader.zeroes_to_end()
}

/// The length of the block that starts here, going by the trailers there may
/// be; nothing of it is verified.
pub(crate) fn plausible_lengths(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let units = bytes.len().min(BLOCK_BYTES_MAX) / UNIT;
    (1..=units).map(|units| units * UNIT).filter(move |&len| {
        let trailer = &bytes[len - TRAILER_BYTES..len];
        let stored = u32_at(trailer, 0) as usize + TRAILER_BYTES;
        trailer[4] == TYPE_DATA && (len - UNIT..=len).contains(&stored)
    })
}

/// A verified block in words: how it is stored, and what leads to its entries.
pub(crate) fn describe(block: &Block<'_>, extent: &[u8]) -> String {
    let trailer = &extent[extent.len() - TRAILER_BYTES..];
    let compression = match Compression::from_id(trailer[5], 0) {
        Ok(Compression::None) | Err(_) => "not compressed",
        Ok(compression) => compression.name(),
    };
    format!(
        "{} bytes, {compression}, {} bytes of content, {} restart points, {} buckets",
        extent.len(),
        u32_at(trailer, 8),
        block.shape.restarts,
        block.shape.buckets
    )
}
