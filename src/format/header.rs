//! What all file types share: the header unit at offset 0, the error of a
//! decoder, and a reader of bytes that never leaves them.
//!
//! The header says what the file is, which version and features wrote it, and
//! to which database and file id it belongs. All of it lies in the first 512
//! bytes, so that a torn sector leaves the old header or the new one. This
//! layout is the same in every version to come: an older engine can always
//! tell that a file is newer than itself.
#![allow(
    unreachable_pub,
    reason = "public only under the feature `bench-internals`, for the errors in benches/"
)]

use std::borrow::Cow;
use std::path::Path;

use crate::base::checksum::Seed;
use crate::base::error::Error;
use crate::base::ids::{DbId, FileId};
use crate::base::limits::UNIT;
use crate::format::varint;

/// The format version this engine writes, and the newest it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// The most bytes of its own a file type may keep in the header.
pub(crate) const EXTRA_BYTES_MAX: usize = 384;

const HEADER_BYTES: usize = 512;
const EXTRA_OFFSET: usize = 64;
const CRC_OFFSET: usize = HEADER_BYTES - 4;

const _: () = assert!(EXTRA_OFFSET + EXTRA_BYTES_MAX <= CRC_OFFSET);
const _: () = assert!(HEADER_BYTES <= UNIT);

/// Why bytes could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Where, counted from the start of the decoded bytes.
    pub(crate) offset: u64,
    /// What is wrong.
    pub(crate) reason: Cow<'static, str>,
    /// Whether a newer version of the engine might read the bytes.
    pub(crate) unsupported: bool,
}

impl DecodeError {
    pub(crate) fn corrupt(offset: usize, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { offset: offset as u64, reason: reason.into(), unsupported: false }
    }

    /// For bytes that only a newer version understands; the advice to use one
    /// is added to `reason`.
    pub(crate) fn unsupported(offset: usize, reason: &str) -> Self {
        let reason = format!("{reason}; use a newer ouro").into();
        Self { offset: offset as u64, reason, unsupported: true }
    }

    /// For bytes that this build leaves out; `reason` says what to do.
    pub(crate) fn left_out(offset: usize, reason: &'static str) -> Self {
        Self { offset: offset as u64, reason: reason.into(), unsupported: true }
    }

    /// The error of the engine for bytes that start at `start` of `file`.
    pub(crate) fn at(&self, file: &Path, start: u64) -> Error {
        let offset = start.saturating_add(self.offset);
        if self.unsupported {
            Error::unsupported_at(file, offset, &self.reason)
        } else {
            Error::corruption(file, offset, &self.reason)
        }
    }
}

/// Reads bytes from front to back; past the end it fails.
pub(crate) struct ByteReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> ByteReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..len).ok_or_else(|| {
            let have = rest.len();
            DecodeError::corrupt(self.at, format!("{len} bytes expected, {have} are left"))
        })?;
        self.at += len;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number as [`varint`] encodes it.
    pub(crate) fn varint(&mut self) -> Result<u32, DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some((number, after)) = varint::decode(rest) else {
            return Err(DecodeError::corrupt(self.at, "a number that is cut or too large"));
        };
        self.at = self.bytes.len() - after.len();
        Ok(number)
    }

    /// The rest must be zero.
    pub(crate) fn zeroes_to_end(&mut self) -> Result<(), DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if let Some(i) = rest.iter().position(|&byte| byte != 0) {
            return Err(DecodeError::corrupt(self.at + i, "a byte that must be zero is not"));
        }
        self.at = self.bytes.len();
        Ok(())
    }
}

/// What a file is. The first eight bytes say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileType {
    /// A table (SSTable).
    Table,
    /// A segment of the write-ahead log.
    Wal,
    /// A manifest.
    Manifest,
    /// The identity file.
    Identity,
    /// A mapping: buffers of a write-ahead log.
    Map,
    /// A value file.
    Value,
}

impl FileType {
    pub(crate) const ALL: [Self; 6] =
        [Self::Table, Self::Wal, Self::Manifest, Self::Identity, Self::Map, Self::Value];

    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Table => b"OUROSST\0",
            Self::Wal => b"OUROWAL\0",
            Self::Manifest => b"OUROMAN\0",
            Self::Identity => b"OUROIDN\0",
            Self::Map => b"OUROMAP\0",
            Self::Value => b"OUROVAL\0",
        }
    }

    /// What a file is that starts like this, whatever else is in it.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|own| bytes.starts_with(own.magic()))
    }

    /// What a file of this name should be.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        match name.rsplit_once('.') {
            Some((_, "sst")) => Some(Self::Table),
            Some((_, "wal")) => Some(Self::Wal),
            Some((_, "map")) => Some(Self::Map),
            Some((_, "val")) => Some(Self::Value),
            _ if name.starts_with("MANIFEST-") => Some(Self::Manifest),
            _ if name == "IDENTITY" => Some(Self::Identity),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Wal => "log segment",
            Self::Manifest => "manifest",
            Self::Identity => "identity file",
            Self::Map => "mapping of the log",
            Self::Value => "value file",
        }
    }
}

/// The feature bits of a file. This version knows and sets none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// Who does not know one of these may read and write the file.
    pub(crate) compatible: u64,
    /// Who does not know one of these may only read the file.
    pub(crate) read_only_compatible: u64,
    /// Who does not know one of these must not touch the file.
    pub(crate) incompatible: u64,
}

const KNOWN_READ_ONLY_COMPATIBLE: u64 = 0;
const KNOWN_INCOMPATIBLE: u64 = 0;

/// The first unit of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) file_type: FileType,
    pub(crate) features: Features,
    pub(crate) db: DbId,
    pub(crate) file: FileId,
    /// The file type's own fields, [`EXTRA_BYTES_MAX`] at most.
    pub(crate) extra: Vec<u8>,
}

impl Header {
    /// The header this version writes.
    pub(crate) fn new(file_type: FileType, db: DbId, file: FileId, extra: Vec<u8>) -> Self {
        Self { file_type, features: Features::default(), db, file, extra }
    }

    /// Fills one unit.
    pub(crate) fn encode(&self, unit: &mut [u8]) {
        assert_eq!(unit.len(), UNIT);
        assert!(self.extra.len() <= EXTRA_BYTES_MAX, "{} extra bytes", self.extra.len());
        unit.fill(0);
        unit[0..8].copy_from_slice(self.file_type.magic());
        unit[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        unit[12..16].copy_from_slice(&(self.extra.len() as u32).to_le_bytes());
        unit[16..24].copy_from_slice(&self.features.compatible.to_le_bytes());
        unit[24..32].copy_from_slice(&self.features.read_only_compatible.to_le_bytes());
        unit[32..40].copy_from_slice(&self.features.incompatible.to_le_bytes());
        unit[40..56].copy_from_slice(&self.db.0);
        unit[56..64].copy_from_slice(&self.file.to_u64().to_le_bytes());
        unit[EXTRA_OFFSET..EXTRA_OFFSET + self.extra.len()].copy_from_slice(&self.extra);
        seal(unit);
    }

    /// Decodes the unit at the start of a file that must be of this type, for
    /// reading; who wants to write it asks [`Header::check_writable`] too.
    pub(crate) fn decode(unit: &[u8], expected: FileType) -> Result<Self, DecodeError> {
        if unit.len() != UNIT {
            return Err(DecodeError::corrupt(unit.len(), "the header is not a whole unit"));
        }
        let mut reader = ByteReader::new(unit);
        let magic: [u8; 8] = reader.array()?;
        if &magic != expected.magic() {
            let other = FileType::ALL.into_iter().find(|other| &magic == other.magic());
            let found = match other {
                Some(other) => format!("this is a {}", other.name()),
                None => "the file does not start as one".to_owned(),
            };
            let name = expected.name();
            let article = if name.starts_with('i') { "an" } else { "a" };
            let reason = format!("{article} {name} was expected, and {found}");
            return Err(DecodeError::corrupt(0, reason));
        }
        let crc = ByteReader::new(&unit[CRC_OFFSET..HEADER_BYTES]).u32()?;
        if crc != header_crc(unit) {
            return Err(DecodeError::corrupt(0, "the checksum of the header does not match"));
        }
        let version = reader.u32()?;
        if version > FORMAT_VERSION {
            let reason = format!(
                "format version {version} is newer than {FORMAT_VERSION}, the newest this version \
                 of the engine knows"
            );
            return Err(DecodeError::unsupported(8, &reason));
        }
        if version == 0 {
            return Err(DecodeError::corrupt(8, "format version 0 was never in use"));
        }
        let extra_bytes = reader.u32()? as usize;
        let features = Features {
            compatible: reader.u64()?,
            read_only_compatible: reader.u64()?,
            incompatible: reader.u64()?,
        };
        let unknown = features.incompatible & !KNOWN_INCOMPATIBLE;
        if unknown != 0 {
            let reason = format!("the file needs features {unknown:#x}, which are unknown here");
            return Err(DecodeError::unsupported(32, &reason));
        }
        let db = DbId(reader.array()?);
        let file = FileId::from_u64(reader.u64()?);
        if extra_bytes > EXTRA_BYTES_MAX {
            let reason = format!("{extra_bytes} extra bytes, {EXTRA_BYTES_MAX} are allowed");
            return Err(DecodeError::corrupt(12, reason));
        }
        let extra = reader.take(extra_bytes)?.to_vec();
        for (start, end) in [(reader.position(), CRC_OFFSET), (HEADER_BYTES, UNIT)] {
            if let Some(i) = unit[start..end].iter().position(|&byte| byte != 0) {
                let reason = "a byte of the header that must be zero is not";
                return Err(DecodeError::corrupt(start + i, reason));
            }
        }
        Ok(Self { file_type: expected, features, db, file, extra })
    }

    /// Whether this is the file `file` of the database `db`.
    pub(crate) fn check_belongs(&self, db: DbId, file: FileId) -> Result<(), DecodeError> {
        if self.db != db {
            let reason = format!("the file belongs to database {:?}, not to {db:?}", self.db);
            return Err(DecodeError::corrupt(40, reason));
        }
        if self.file != file {
            let reason = format!("this is file {}, and {file} was expected", self.file);
            return Err(DecodeError::corrupt(56, reason));
        }
        Ok(())
    }

    /// Whether this version may write to the file.
    pub(crate) fn check_writable(&self) -> Result<(), DecodeError> {
        let unknown = self.features.read_only_compatible & !KNOWN_READ_ONLY_COMPATIBLE;
        if unknown == 0 {
            return Ok(());
        }
        let reason = format!(
            "the file has features {unknown:#x}, which are unknown here, so that it can only be \
             read"
        );
        Err(DecodeError::unsupported(24, &reason))
    }
}

/// Gives a header unit the checksum of what is in it.
pub(crate) fn seal(unit: &mut [u8]) {
    let crc = header_crc(unit);
    unit[CRC_OFFSET..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// The checksum of the first [`HEADER_BYTES`], its own field taken as zero.
fn header_crc(unit: &[u8]) -> u32 {
    Seed::of(b"").checksum2(&unit[..CRC_OFFSET], &[0; HEADER_BYTES - CRC_OFFSET])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;

    fn header() -> Header {
        let extra = (0..40).collect();
        Header::new(FileType::Wal, DbId([7; 16]), FileId::new(3, 9), extra)
    }

    /// A unit whose checksum is right, after a change.
    fn changed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut unit = vec![0; UNIT];
        header().encode(&mut unit);
        change(&mut unit);
        seal(&mut unit);
        unit
    }

    #[test]
    fn header_round_trips() {
        let unit = changed(|_| ());
        assert_eq!(Header::decode(&unit, FileType::Wal), Ok(header()));
        let extra = vec![0xff; EXTRA_BYTES_MAX];
        let full = Header::new(FileType::Identity, DbId([1; 16]), FileId::new(1, 1), extra);
        let mut unit = vec![0xee; UNIT];
        full.encode(&mut unit);
        assert_eq!(Header::decode(&unit, FileType::Identity), Ok(full));
    }

    /// These bytes are on disks: they must not change.
    #[test]
    fn header_known_answer() {
        let mut unit = vec![0; UNIT];
        Header::new(FileType::Table, DbId([0xd; 16]), FileId::new(2, 5), Vec::new())
            .encode(&mut unit);
        let mut expected = vec![0; UNIT];
        expected[0..16].copy_from_slice(b"OUROSST\0\x01\0\0\0\0\0\0\0");
        expected[40..56].copy_from_slice(&[0xd; 16]);
        expected[56..64].copy_from_slice(&[5, 0, 0, 0, 2, 0, 0, 0]);
        expected[508..512].copy_from_slice(&HEADER_CRC_KNOWN);
        assert!(unit == expected, "{:?}", &unit[..512]);
    }

    const HEADER_CRC_KNOWN: [u8; 4] = [196, 249, 134, 99];

    #[test]
    fn every_damaged_byte_is_noticed() {
        let unit = changed(|_| ());
        for i in 0..UNIT {
            for pattern in [0x01, 0x80, 0xff] {
                let mut damaged = unit.clone();
                damaged[i] ^= pattern;
                let error = Header::decode(&damaged, FileType::Wal).expect_err("damage");
                assert!(!error.unsupported, "{error:?}");
            }
        }
        for len in [0, 1, 511, 512, UNIT - 1] {
            assert!(Header::decode(&unit[..len], FileType::Wal).is_err());
        }
    }

    #[test]
    fn another_file_type_is_named() {
        let error = Header::decode(&changed(|_| ()), FileType::Table).expect_err("a log segment");
        assert_eq!(error.reason, "a table was expected, and this is a log segment");
    }

    #[test]
    fn a_header_belongs_to_one_file() {
        let header = header();
        assert_eq!(header.check_belongs(DbId([7; 16]), FileId::new(3, 9)), Ok(()));
        assert!(header.check_belongs(DbId([8; 16]), FileId::new(3, 9)).is_err());
        let error = header.check_belongs(DbId([7; 16]), FileId::new(3, 8)).expect_err("another");
        assert!(error.reason.contains("this is file 0000000300000009"), "{error:?}");
    }

    #[test]
    fn newer_files_are_refused_with_advice() {
        let newer = changed(|unit| unit[8] = 9);
        let error = Header::decode(&newer, FileType::Wal).expect_err("newer");
        assert!(error.unsupported && error.reason.contains("version 9"), "{error:?}");
        assert!(error.reason.contains("use a newer ouro"), "{error:?}");

        let incompatible = changed(|unit| unit[33] = 2);
        let error = Header::decode(&incompatible, FileType::Wal).expect_err("incompatible");
        assert!(error.unsupported && error.reason.contains("0x200"), "{error:?}");
        let error = error.at(Path::new("/db/x"), 4096);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("/db/x offset 4128"), "{error}");

        let read_only = changed(|unit| unit[24] = 4);
        let header = Header::decode(&read_only, FileType::Wal).expect("readable");
        let error = header.check_writable().expect_err("not writable");
        assert!(error.unsupported && error.reason.contains("0x4"), "{error:?}");

        let compatible = changed(|unit| unit[16] = 1);
        let header = Header::decode(&compatible, FileType::Wal).expect("readable");
        assert_eq!(header.check_writable(), Ok(()));
    }

    #[test]
    fn hostile_fields_with_a_right_checksum() {
        for change in [
            &(|unit: &mut [u8]| unit[12..16].fill(0xff)) as &dyn Fn(&mut [u8]),
            &|unit| unit[12..16].copy_from_slice(&385u32.to_le_bytes()),
            &|unit| unit[12] = 39,
            &|unit| unit[8] = 0,
            &|unit| unit[507] = 1,
            &|unit| unit[512] = 1,
            &|unit| unit[UNIT - 1] = 1,
        ] {
            let error = Header::decode(&changed(change), FileType::Wal).expect_err("hostile");
            assert!(!error.unsupported, "{error:?}");
        }
    }
}
