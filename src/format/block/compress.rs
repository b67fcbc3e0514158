//! How the content of blocks is compressed.

use std::fmt;
use std::str::FromStr;

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};

use super::BLOCK_BYTES_MAX;
#[cfg(feature = "zstd")]
use super::zstd;
use crate::base::error::{Error, Result};
use crate::format::header::DecodeError;

/// How data blocks are compressed. The numbers are on disk, for ever.
///
/// As text each is its name in lower case:
///
/// ```
/// use ourodb::Compression;
/// assert_eq!("lz4".parse::<Compression>()?, Compression::Lz4);
/// assert_eq!(Compression::Lz4.to_string(), "lz4");
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// LZ4's block format.
    Lz4 = 1,
    /// Zstandard: takes less space than LZ4, and more time. It needs the cargo
    /// feature `zstd` of this crate, and that a C compiler; without, options and
    /// tables with it are `Unsupported`.
    Zstd = 2,
}

impl Compression {
    /// Why this build cannot do it, and what to do, if it cannot.
    pub(crate) fn check(self) -> std::result::Result<(), &'static str> {
        if self == Self::Zstd && !cfg!(feature = "zstd") {
            return Err("compression with zstd is not in this build; \
                        build ourodb with its cargo feature `zstd`");
        }
        Ok(())
    }

    /// The compression with this number, found at `at`, if this build can do
    /// it.
    pub(crate) fn from_id(id: u8, at: usize) -> std::result::Result<Self, DecodeError> {
        let compression = match id {
            0 => Self::None,
            1 => Self::Lz4,
            2 => Self::Zstd,
            _ => {
                let reason = format!("compression {id} is unknown here");
                return Err(DecodeError::unsupported(at, &reason));
            }
        };
        compression.check().map_err(|reason| DecodeError::left_out(at, reason))?;
        Ok(compression)
    }

    /// The name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = Error;

    /// # Errors
    /// `InvalidArgument`.
    fn from_str(text: &str) -> Result<Self> {
        let found = [Self::None, Self::Lz4, Self::Zstd].into_iter().find(|c| c.name() == text);
        found.ok_or_else(|| {
            Error::invalid(format!("{text:?} is no compression: it is none, lz4, or zstd"))
        })
    }
}

/// Compresses in the same memory again and again.
pub(super) struct Compressor {
    method: Method,
    packed: Vec<u8>,
}

enum Method {
    None,
    Lz4(CompressTable),
    #[cfg(feature = "zstd")]
    Zstd(zstd::Packer),
}

impl Compressor {
    /// One that compresses in this way, which this build must have.
    pub(super) fn new(compression: Compression) -> Self {
        let method = match compression {
            Compression::None => Method::None,
            Compression::Lz4 => Method::Lz4(CompressTable::default()),
            #[cfg(feature = "zstd")]
            Compression::Zstd => Method::Zstd(zstd::Packer::new()),
            #[cfg(not(feature = "zstd"))]
            Compression::Zstd => unreachable!("options with zstd are refused"),
        };
        Self { method, packed: Vec::new() }
    }

    /// The compressed form of `content`.
    pub(super) fn compress(&mut self, content: &[u8]) -> &mut Vec<u8> {
        match &mut self.method {
            Method::None => {
                self.packed.clear();
                self.packed.extend_from_slice(content);
            }
            Method::Lz4(table) => {
                self.packed.resize(get_maximum_output_size(content.len()), 0);
                let bytes = compress_into_with_table(content, &mut self.packed, table);
                self.packed.truncate(bytes.expect("the longest output has room"));
            }
            #[cfg(feature = "zstd")]
            Method::Zstd(packer) => packer.pack(content, &mut self.packed),
        }
        &mut self.packed
    }

    /// What [`Compressor::compress`] made last.
    pub(super) fn packed(&mut self) -> &mut Vec<u8> {
        &mut self.packed
    }
}

/// Decompresses `packed` into `content`, which becomes `content_bytes` long. No
/// more is ever written than that, and no more memory is taken than the longest
/// block needs.
pub(super) fn decompress(
    compression: Compression,
    packed: &[u8],
    content: &mut Vec<u8>,
    content_bytes: usize,
) -> std::result::Result<(), DecodeError> {
    if content_bytes > BLOCK_BYTES_MAX {
        let reason = format!("a block cannot hold {content_bytes} bytes");
        return Err(DecodeError::corrupt(packed.len(), reason));
    }
    content.resize(content_bytes, 0);
    let bytes = match compression {
        Compression::None => None,
        Compression::Lz4 => decompress_into(packed, content).ok(),
        #[cfg(feature = "zstd")]
        Compression::Zstd => zstd::unpack(packed, content),
        #[cfg(not(feature = "zstd"))]
        Compression::Zstd => unreachable!("from_id refuses it"),
    };
    if bytes == Some(content_bytes) {
        Ok(())
    } else {
        content.clear();
        Err(DecodeError::corrupt(0, "a block does not decompress to the length it states"))
    }
}
