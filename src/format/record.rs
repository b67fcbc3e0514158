//! Log records: what WAL segments and manifests consist of.
//!
//! A record is a header and a payload under one checksum. Its checksum is
//! seeded with the identity of the log it belongs to; its header repeats epoch
//! and position. So a record counts only in the one place it was written for,
//! and what a recycled segment still holds from earlier is never taken for
//! something new. `FORMAT.md` has the table of bytes.

use std::path::Path;

use crate::base::checksum::Seed;
use crate::base::error::Error;
use crate::base::ids::{DbId, Epoch, KeyspaceId, ShardId, StreamId};
use crate::base::limits::{INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX};
use crate::base::ranges::is_before;
use crate::base::seq::{Kind, SEQ_MAX, SeqNo};
use crate::format::value::Reference;
use crate::format::varint;

/// Bytes of a record's header.
pub(crate) const HEADER_BYTES: usize = 36;

/// Bytes of a section's header.
const SECTION_BYTES: usize = 18;

/// What a record is. The numbers are on disk, for ever; 4 prepare, 5 decide
/// and 6 commit are reserved for batches over several streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// Sections of writes.
    Write = 1,
    /// Nothing but the durable mark in its header.
    Mark = 2,
    /// Edits of a manifest.
    Edit = 3,
}

/// The header of a record, without checksum and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: RecordKind,
    pub(crate) epoch: Epoch,
    /// Sections of the payload; 0 unless the kind is `Write`.
    pub(crate) sections: u16,
    /// Where in its log the record starts.
    pub(crate) position: u64,
    /// Everything of the log below this position was durable when the record
    /// was written.
    pub(crate) mark: u64,
    /// Unused bytes between the end of the record before and this one.
    pub(crate) gap: u32,
}

/// The checksum seed of a WAL stream.
pub(crate) fn stream_seed(db: DbId, epoch: Epoch, stream: StreamId) -> Seed {
    let mut identity = [0; 26];
    identity[..16].copy_from_slice(&db.0);
    identity[16..20].copy_from_slice(b"wal\0");
    identity[20..24].copy_from_slice(&epoch.to_le_bytes());
    identity[24..].copy_from_slice(&stream.to_le_bytes());
    Seed::of(&identity)
}

/// Writes the header in front of a payload that is already in place.
///
/// # Panics
/// When `record` is shorter than a header.
pub(crate) fn seal(record: &mut [u8], seed: Seed, header: &Header) {
    let payload_len = (record.len() - HEADER_BYTES) as u32;
    record[4..8].copy_from_slice(&payload_len.to_le_bytes());
    record[8..12].copy_from_slice(&header.epoch.to_le_bytes());
    record[12] = header.kind as u8;
    record[13] = 0;
    record[14..16].copy_from_slice(&header.sections.to_le_bytes());
    record[16..24].copy_from_slice(&header.position.to_le_bytes());
    record[24..32].copy_from_slice(&header.mark.to_le_bytes());
    record[32..36].copy_from_slice(&header.gap.to_le_bytes());
    let checksum = seed.checksum(&record[4..]);
    record[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// A record whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) header: Header,
    pub(crate) payload: &'a [u8],
}

/// Why bytes that pass their checksum cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// A later version of the engine wrote them.
    Newer(String),
    /// They contradict themselves.
    Malformed(String),
}

impl Unusable {
    pub(crate) fn malformed(reason: &str) -> Self {
        Self::Malformed(reason.to_owned())
    }

    /// The engine's error for such bytes at `offset` of `file`.
    pub(crate) fn into_error(self, file: &Path, offset: u64) -> Error {
        match self {
            Self::Newer(what) => {
                let reason = format!("{what} is unknown to this version; use a newer ouro");
                Error::unsupported_at(file, offset, reason)
            }
            Self::Malformed(reason) => Error::corruption(file, offset, reason),
        }
    }
}

impl<'a> Record<'a> {
    /// The record of (seed, epoch) that stands at the start of `bytes`, whose
    /// position in the log is `position`. `None` when there is no such record:
    /// unwritten, torn, stale or damaged bytes cannot be told apart here.
    pub(crate) fn decode(
        bytes: &'a [u8],
        seed: Seed,
        epoch: Epoch,
        position: u64,
    ) -> Result<Option<Self>, Unusable> {
        let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Ok(None);
        };
        let payload_len = u32_at(header, 4) as usize;
        if u32_at(header, 8) != epoch || u64_at(header, 16) != position {
            return Ok(None);
        }
        let Some(payload) = rest.get(..payload_len) else {
            return Ok(None);
        };
        if seed.checksum2(&header[4..], payload) != u32_at(header, 0) {
            return Ok(None);
        }
        let kind = match (header[12], header[13]) {
            (1, 0) => RecordKind::Write,
            (2, 0) => RecordKind::Mark,
            (3, 0) => RecordKind::Edit,
            (kind, flags) => {
                return Err(Unusable::Newer(format!("a record of kind {kind}, flags {flags}")));
            }
        };
        let header = Header {
            kind,
            epoch,
            sections: u16::from_le_bytes([header[14], header[15]]),
            position,
            mark: u64_at(header, 24),
            gap: u32_at(header, 32),
        };
        Ok(Some(Self { header, payload }))
    }

    /// Where in the log the record ends.
    pub(crate) fn end(&self) -> u64 {
        self.header.position + (HEADER_BYTES + self.payload.len()) as u64
    }

    /// Calls `visit` for each write, in order.
    pub(crate) fn for_each_write<E: From<Unusable>>(
        &self,
        mut visit: impl FnMut(Write<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = self.payload;
        for _ in 0..self.header.sections {
            let (head, after) = rest
                .split_at_checked(SECTION_BYTES)
                .ok_or_else(|| Unusable::malformed("a cut section"))?;
            rest = after;
            let keyspace = u32_at(head, 2);
            let count = u32_at(head, 6);
            let first = u64_at(head, 10);
            if first == 0 || first.saturating_add(u64::from(count)) > SEQ_MAX {
                return Err(Unusable::malformed("a sequence number out of range").into());
            }
            let shard = ShardId::from_le_bytes([head[0], head[1]]);
            for i in 0..u64::from(count) {
                let (kind, key, value, after) = entry(rest)?;
                rest = after;
                visit(Write { shard, keyspace, seq: first + i, kind, key, value })?;
            }
        }
        if !rest.is_empty() {
            return Err(Unusable::malformed("bytes after the last section").into());
        }
        Ok(())
    }
}

/// One write of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write<'a> {
    pub(crate) shard: ShardId,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) seq: SeqNo,
    pub(crate) kind: Kind,
    pub(crate) key: &'a [u8],
    /// Empty for a delete; the end of a range delete, empty for none.
    pub(crate) value: &'a [u8],
}

type Entry<'a> = (Kind, &'a [u8], &'a [u8], &'a [u8]);

fn entry(bytes: &[u8]) -> Result<Entry<'_>, Unusable> {
    let cut = || Unusable::malformed("a cut entry");
    let (&kind, rest) = bytes.split_first().ok_or_else(cut)?;
    let kind =
        Kind::from_u8(kind).ok_or_else(|| Unusable::Newer(format!("an entry of kind {kind}")))?;
    let (key_len, rest) = varint::decode(rest).ok_or_else(cut)?;
    let (value_len, rest) = match kind {
        Kind::Put | Kind::RangeDelete | Kind::Indirect => varint::decode(rest).ok_or_else(cut)?,
        Kind::Delete => (0, rest),
    };
    // The engine's own limits: what follows relies on them.
    if key_len as usize > KEY_BYTES_MAX || value_len as usize > INLINE_VALUE_BYTES_MAX {
        return Err(Unusable::malformed("an entry above the limits"));
    }
    let (key, rest) = rest.split_at_checked(key_len as usize).ok_or_else(cut)?;
    let (value, rest) = rest.split_at_checked(value_len as usize).ok_or_else(cut)?;
    if kind == Kind::Indirect && Reference::decode(value).is_err() {
        return Err(Unusable::malformed("a reference to a value that makes no sense"));
    }
    if kind == Kind::RangeDelete && (value.len() > KEY_BYTES_MAX || !is_before(key, value)) {
        return Err(Unusable::malformed("a range delete of a range that makes no sense"));
    }
    Ok((kind, key, value, rest))
}

/// Bytes of a section of writes without its entries.
pub(crate) const fn section_bytes() -> usize {
    SECTION_BYTES
}

/// Bytes of one entry.
pub(crate) fn entry_bytes(kind: Kind, key_len: usize, value_len: usize) -> usize {
    let value = match kind {
        Kind::Put | Kind::RangeDelete | Kind::Indirect => varint::len(value_len as u32) + value_len,
        Kind::Delete => 0,
    };
    1 + varint::len(key_len as u32) + key_len + value
}

/// Fills the payload of a record of writes.
pub(crate) struct PayloadWriter<'a> {
    rest: &'a mut [u8],
}

impl<'a> PayloadWriter<'a> {
    /// Fills `payload`, which has exactly the bytes that will be written.
    pub(crate) fn new(payload: &'a mut [u8]) -> Self {
        Self { rest: payload }
    }

    /// Starts a section: `count` entries of one shard follow, the first of
    /// which has sequence number `first`.
    pub(crate) fn section(
        &mut self,
        shard: ShardId,
        keyspace: KeyspaceId,
        count: u32,
        first: SeqNo,
    ) {
        self.bytes(&shard.to_le_bytes());
        self.bytes(&keyspace.to_le_bytes());
        self.bytes(&count.to_le_bytes());
        self.bytes(&first.to_le_bytes());
    }

    pub(crate) fn entry(&mut self, kind: Kind, key: &[u8], value: &[u8]) {
        self.bytes(&[kind as u8]);
        self.varint(key.len());
        let has_value = kind != Kind::Delete;
        if has_value {
            self.varint(value.len());
        }
        self.bytes(key);
        if has_value {
            self.bytes(value);
        }
    }

    /// # Panics
    /// When the payload was not filled exactly.
    pub(crate) fn finish(self) {
        assert!(self.rest.is_empty(), "a record was sized wrongly");
    }

    fn varint(&mut self, value: usize) {
        let (bytes, len) = varint::encode(value as u32);
        self.bytes(&bytes[..len]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let (head, rest) = std::mem::take(&mut self.rest).split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        self.rest = rest;
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, Seed, Header) {
        let seed = stream_seed(DbId([1; 16]), 3, 0);
        let entries = [
            (Kind::Put, &b"key"[..], &b"value"[..]),
            (Kind::Delete, b"gone", b""),
            (Kind::RangeDelete, b"from", b"to"),
        ];
        let payload: usize = section_bytes()
            + entries.iter().map(|e| entry_bytes(e.0, e.1.len(), e.2.len())).sum::<usize>();
        let mut bytes = vec![0; HEADER_BYTES + payload];
        let mut writer = PayloadWriter::new(&mut bytes[HEADER_BYTES..]);
        writer.section(2, 0, 3, 77);
        for (kind, key, value) in entries {
            writer.entry(kind, key, value);
        }
        writer.finish();
        let header = Header {
            kind: RecordKind::Write,
            epoch: 3,
            sections: 1,
            position: 4096,
            mark: 100,
            gap: 9,
        };
        seal(&mut bytes, seed, &header);
        (bytes, seed, header)
    }

    fn writes(record: &Record<'_>) -> Result<Vec<(SeqNo, Vec<u8>, Vec<u8>)>, Unusable> {
        let mut all = Vec::new();
        record.for_each_write(|w| {
            assert_eq!((w.shard, w.keyspace), (2, 0));
            all.push((w.seq, w.key.to_vec(), w.value.to_vec()));
            Ok::<_, Unusable>(())
        })?;
        Ok(all)
    }

    #[test]
    fn round_trip() {
        let (mut bytes, seed, header) = sample();
        bytes.extend([0; 50]);
        let record = Record::decode(&bytes, seed, 3, 4096).unwrap().unwrap();
        assert_eq!(record.header, header);
        assert_eq!(record.end(), 4096 + bytes.len() as u64 - 50);
        let expected = vec![
            (77, b"key".to_vec(), b"value".to_vec()),
            (78, b"gone".to_vec(), Vec::new()),
            (79, b"from".to_vec(), b"to".to_vec()),
        ];
        assert_eq!(writes(&record).unwrap(), expected);
    }

    #[test]
    fn only_in_its_own_place() {
        let (bytes, seed, _) = sample();
        let found = |seed, epoch, position| {
            Record::decode(&bytes, seed, epoch, position).unwrap().is_some()
        };
        assert!(found(seed, 3, 4096));
        assert!(!found(seed, 4, 4096));
        assert!(!found(seed, 3, 8192));
        assert!(!found(stream_seed(DbId([1; 16]), 3, 1), 3, 4096));
        assert!(!found(stream_seed(DbId([2; 16]), 3, 0), 3, 4096));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let (bytes, seed, _) = sample();
        for i in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[i] ^= 1 << bit;
                assert!(Record::decode(&bad, seed, 3, 4096).unwrap().is_none(), "byte {i}");
            }
            assert!(Record::decode(&bytes[..i], seed, 3, 4096).unwrap().is_none(), "cut {i}");
        }
    }

    #[test]
    fn unknown_kinds_are_newer() {
        let (mut bytes, seed, _) = sample();
        bytes[12] = 4;
        let checksum = seed.checksum(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        assert!(matches!(Record::decode(&bytes, seed, 3, 4096), Err(Unusable::Newer(_))));
    }

    /// A memtable takes no such entries.
    #[test]
    fn entries_above_the_limits_are_refused() {
        for (key_len, value_len) in [(KEY_BYTES_MAX + 1, 0), (3, INLINE_VALUE_BYTES_MAX + 1)] {
            let (key, value) = (vec![1; key_len], vec![2; value_len]);
            let payload = section_bytes() + entry_bytes(Kind::Put, key_len, value_len);
            let mut bytes = vec![0; HEADER_BYTES + payload];
            let mut writer = PayloadWriter::new(&mut bytes[HEADER_BYTES..]);
            writer.section(2, 0, 1, 77);
            writer.entry(Kind::Put, &key, &value);
            writer.finish();
            let (_, seed, header) = sample();
            seal(&mut bytes, seed, &header);
            let record = Record::decode(&bytes, seed, 3, 4096).unwrap().unwrap();
            assert!(matches!(writes(&record), Err(Unusable::Malformed(_))));
        }
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused() {
        let long = vec![0xff; KEY_BYTES_MAX + 1];
        for (start, end, is_sound) in [
            (&b"a"[..], &b"b"[..], true),
            (b"a", b"", true),
            (b"", b"", true),
            (b"a", b"a", false),
            (b"b", b"a", false),
            (b"a", &long, false),
        ] {
            let payload = section_bytes() + entry_bytes(Kind::RangeDelete, start.len(), end.len());
            let mut bytes = vec![0; HEADER_BYTES + payload];
            let mut writer = PayloadWriter::new(&mut bytes[HEADER_BYTES..]);
            writer.section(2, 0, 1, 77);
            writer.entry(Kind::RangeDelete, start, end);
            writer.finish();
            let (_, seed, header) = sample();
            seal(&mut bytes, seed, &header);
            let record = Record::decode(&bytes, seed, 3, 4096).unwrap().unwrap();
            assert_eq!(writes(&record).is_ok(), is_sound, "{start:?} {}", end.len());
        }
    }

    #[test]
    fn hostile_payloads_are_refused() {
        let (bytes, seed, _) = sample();
        let record = Record::decode(&bytes, seed, 3, 4096).unwrap().unwrap();
        for cut in 0..record.payload.len() {
            let cut = Record { payload: &record.payload[..cut], ..record };
            assert!(writes(&cut).is_err());
        }
        let mut long = record.payload.to_vec();
        long.push(0);
        assert!(writes(&Record { payload: &long, ..record }).is_err());
    }
}
