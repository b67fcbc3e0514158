//! Identifiers: databases, files, shards, streams, keyspaces.

use std::fmt;

/// The number of an opening: each one durably takes the next before it writes
/// anything else. The first is 1.
pub(crate) type Epoch = u32;

/// A shard of the keyspace, counted from 0.
pub(crate) type ShardId = u16;

/// A WAL stream: the number of the owner that writes it, counted from 0.
/// (epoch, stream) names one stream of one opening.
pub(crate) type StreamId = u16;

/// A keyspace; only 0, the default one, exists.
pub(crate) type KeyspaceId = u32;

/// The default keyspace.
pub(crate) const KEYSPACE_DEFAULT: KeyspaceId = 0;

/// The 128-bit random id of a database, in the header of each of its files.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DbId(pub(crate) [u8; 16]);

impl fmt::Debug for DbId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The id of a file: (epoch, counter), never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId(u64);

impl FileId {
    pub(crate) fn new(epoch: Epoch, counter: u32) -> Self {
        Self(u64::from(epoch) << 32 | u64::from(counter))
    }

    pub(crate) fn counter(self) -> u32 {
        self.0 as u32
    }

    pub(crate) fn epoch(self) -> Epoch {
        (self.0 >> 32) as Epoch
    }

    pub(crate) fn to_u64(self) -> u64 {
        self.0
    }

    pub(crate) fn from_u64(raw: u64) -> Self {
        Self(raw)
    }

    /// The id in a file's name: sixteen hexadecimal digits, lower case.
    pub(crate) fn parse(digits: &str) -> Option<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (digits.len() == 16 && digits.bytes().all(hex))
            .then(|| u64::from_str_radix(digits, 16).ok().map(Self))
            .flatten()
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_id_round_trips_through_its_name() {
        let id = FileId::new(3, 0x1f);
        assert_eq!(id.to_string(), "000000030000001f");
        assert_eq!(FileId::parse(&id.to_string()), Some(id));
        assert_eq!(id.epoch(), 3);
        for bad in ["", "3", "000000030000001F", "000000030000001g", "+00000030000001f"] {
            assert_eq!(FileId::parse(bad), None, "{bad}");
        }
    }
}
