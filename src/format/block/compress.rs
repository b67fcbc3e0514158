//! How the content of blocks is compressed.

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};

use super::BLOCK_BYTES_MAX;
use crate::format::header::DecodeError;

/// How data blocks are compressed. The numbers are on disk, for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// LZ4's block format.
    Lz4 = 1,
}

/// Reserved for Zstandard.
const ZSTD: u8 = 2;

impl Compression {
    /// The compression with this number, found at `at`.
    pub(crate) fn from_id(id: u8, at: usize) -> Result<Self, DecodeError> {
        match id {
            0 => Ok(Self::None),
            1 => Ok(Self::Lz4),
            ZSTD => {
                let reason = "compressed with zstd, which takes the cargo feature `zstd`";
                Err(DecodeError::unsupported(at, reason))
            }
            _ => {
                let reason = format!("compression {id} is unknown here");
                Err(DecodeError::unsupported(at, &reason))
            }
        }
    }
}

/// Compresses with LZ4, in the same memory again and again.
#[derive(Default)]
pub(super) struct Compressor {
    table: CompressTable,
    packed: Vec<u8>,
}

impl Compressor {
    /// The compressed form of `content`.
    pub(super) fn compress(&mut self, content: &[u8]) -> &mut Vec<u8> {
        self.packed.resize(get_maximum_output_size(content.len()), 0);
        let bytes = compress_into_with_table(content, &mut self.packed, &mut self.table);
        self.packed.truncate(bytes.expect("the longest output has room"));
        &mut self.packed
    }

    /// What [`Compressor::compress`] made last.
    pub(super) fn packed(&mut self) -> &mut Vec<u8> {
        &mut self.packed
    }
}

/// Decompresses `packed` into `content`, which becomes `content_bytes` long.
pub(super) fn decompress(
    packed: &[u8],
    content: &mut Vec<u8>,
    content_bytes: usize,
) -> Result<(), DecodeError> {
    if content_bytes > BLOCK_BYTES_MAX {
        let reason = format!("a block cannot hold {content_bytes} bytes");
        return Err(DecodeError::corrupt(packed.len(), reason));
    }
    content.resize(content_bytes, 0);
    if decompress_into(packed, content).is_ok_and(|bytes| bytes == content_bytes) {
        Ok(())
    } else {
        content.clear();
        Err(DecodeError::corrupt(0, "a block does not decompress to the length it states"))
    }
}
