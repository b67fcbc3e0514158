//! Reading a long value.

use std::ops::Deref;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::{DbId, FileId};
use crate::base::limits::{UNIT, round_up};
use crate::format::header::{DecodeError, FileType, Header};
use crate::format::value::{CHUNK_BYTES_MAX, Reference, value_seed};
use crate::io::{File, Io, IoBuf};
use crate::runtime::join_all;
use crate::value::{PIECE_BYTES, ValueFiles};

/// Bytes of a value that are read at one time: a few pieces.
const ROUND_BYTES: usize = 4 * PIECE_BYTES;

const _: () = assert!(ROUND_BYTES.is_multiple_of(CHUNK_BYTES_MAX));

/// A value that was read, or that somebody gave whole.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// It came with one request: the first bytes of its buffer.
    Buf(IoBuf, usize),
    Own(Box<[u8]>),
}

impl Deref for Loaded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Buf(buf, len) => &buf[..*len],
            Self::Own(bytes) => bytes,
        }
    }
}

impl ValueFiles {
    /// Reads the value that an encoded reference refers to. Whoever calls holds
    /// a pin of the time when it found the reference.
    pub(crate) async fn load<I: Io>(&self, io: &I, reference: &[u8]) -> Result<Loaded> {
        let reference = Reference::decode(reference).map_err(|error| self.unusable(&error))?;
        let file = self.handle(io, reference.file).await?;
        let (seed, len) = (value_seed(self.db, reference.file), reference.len);
        let verified = |start: usize, bytes: &[u8]| {
            let damage = reference.verify(seed, start, bytes);
            let reason = "the checksum of a long value does not match";
            damage.map_err(|offset| Error::corruption(file.path(), offset, reason))
        };
        if len <= PIECE_BYTES {
            let buf = IoBuf::zeroed(round_up(len));
            let buf = read(io, &file, reference.offset, buf, len).await?;
            verified(0, &buf[..len])?;
            return Ok(Loaded::Buf(buf, len));
        }
        let mut value = Vec::with_capacity(len);
        while value.len() < len {
            let start = value.len();
            let end = len.min(start + ROUND_BYTES);
            let pieces = (start..end).step_by(PIECE_BYTES).map(|at| {
                let bytes = PIECE_BYTES.min(end - at);
                let buf = match bytes {
                    PIECE_BYTES => self.pool.take(),
                    _ => IoBuf::zeroed(round_up(bytes)),
                };
                let (file, offset) = (&file, reference.offset + at as u64);
                async move { (bytes, read(io, file, offset, buf, bytes).await) }
            });
            for (bytes, piece) in join_all(pieces).await {
                value.extend_from_slice(&piece?[..bytes]);
            }
            verified(start, &value[start..])?;
        }
        Ok(Loaded::Own(value.into_boxed_slice()))
    }

    /// The error for a reference that makes no sense.
    pub(crate) fn unusable(&self, error: &DecodeError) -> Error {
        error.at(&self.dir, 0).context("an entry of a table refers to a value")
    }
}

/// Checks that the file is what its name says.
pub(super) async fn check_header<I: Io>(io: &I, file: &File, db: DbId, id: FileId) -> Result<()> {
    let unit = read(io, file, 0, IoBuf::zeroed(UNIT), UNIT).await?;
    let header = Header::decode(&unit, FileType::Value).map_err(|e| e.at(file.path(), 0))?;
    header.check_belongs(db, id).map_err(|e| e.at(file.path(), 0))
}

/// Fills the buffer, of which `bytes` bytes are wanted. A read that fails is
/// tried once more.
async fn read<I: Io>(io: &I, file: &File, offset: u64, buf: IoBuf, bytes: usize) -> Result<IoBuf> {
    let (mut buf, mut result) = io.read(file, offset, buf).await;
    if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Io) {
        (buf, result) = io.read(file, offset, buf).await;
    }
    let done = result?;
    if done < bytes {
        let reason = "the file ends before the end of a long value";
        return Err(Error::corruption(file.path(), offset + done as u64, reason));
    }
    Ok(buf)
}
