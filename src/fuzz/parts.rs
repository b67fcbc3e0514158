//! What all files are made of: numbers, headers, records, edits, references.

use super::{DB, EPOCH, ERROR_BYTES, padded, trimmed, within};
use crate::base::checksum::Seed;
use crate::base::ids::FileId;
use crate::base::limits::{UNIT, UNIT_U64, round_up};
use crate::base::seq::Kind;
use crate::format::edit::{self, Edit, MapDir, MapPlace, StreamKey, TableMeta};
use crate::format::header::{self, FileType, Header};
use crate::format::record::{
    self, HEADER_BYTES, PayloadWriter, Record, RecordKind, Unusable, Write, entry_bytes, seal,
    section_bytes, stream_seed,
};
use crate::format::value::{Extent, Reference, ReferenceBuilder, Verifier, value_seed};
use crate::format::varint;
use crate::wal::{MapSizes, MapUse, SegmentUse};

/// Where the record of the target `record` is.
const POSITION: u64 = UNIT_U64;

/// Values of references are verified up to this length.
const VERIFIED_BYTES_MAX: usize = 256 << 10;

pub(super) fn varint(data: &[u8]) {
    let Some((number, rest)) = within(data.len(), 0, 0, || varint::decode(data)) else { return };
    let (bytes, len) = varint::encode(number);
    assert_eq!(len, varint::len(number));
    assert_eq!(data[..data.len() - rest.len()], bytes[..len]);
}

pub(super) fn varint_seeds() -> Vec<Vec<u8>> {
    let encoded = |number| {
        let (bytes, len) = varint::encode(number);
        bytes[..len].to_vec()
    };
    [0, 127, 128, 16_384, 1 << 21, u32::MAX].map(encoded).to_vec()
}

/// The unit at the start of a file of any type, and what each type keeps in it.
pub(super) fn header(data: &[u8]) {
    let mut unit = padded(&data[..data.len().min(UNIT)]);
    for is_sealed in [false, true] {
        if is_sealed {
            header::seal(&mut unit);
        }
        for file_type in FileType::ALL {
            let decoded = within(UNIT, 1, ERROR_BYTES, || Header::decode(&unit, file_type));
            let Ok(header) = decoded else { continue };
            let mut again = vec![0; UNIT];
            header.encode(&mut again);
            assert!(again == unit, "another encoding of {header:?}");
            if let Some(usage) = SegmentUse::decode(&header.extra) {
                assert_eq!(usage.encode(), header.extra);
            }
            if let Some(usage) = MapUse::decode(&header.extra) {
                assert_eq!(usage.encode(), header.extra);
            }
        }
    }
}

pub(super) fn header_seeds() -> Vec<Vec<u8>> {
    let stream = StreamKey { epoch: EPOCH, stream: 1 };
    let segment = SegmentUse { stream, start: 1 << 20, capacity: 8192 }.encode();
    let map = MapUse { stream, sizes: MapSizes { slot_bytes: 8192, slots: 3 } }.encode();
    let extras = [
        (FileType::Table, Vec::new()),
        (FileType::Wal, segment),
        (FileType::Manifest, 8192u64.to_le_bytes().to_vec()),
        (FileType::Identity, vec![1; 20]),
        (FileType::Map, map),
        (FileType::Value, Vec::new()),
    ];
    let encoded = |(file_type, extra)| {
        let mut unit = vec![0; UNIT];
        Header::new(file_type, DB, FileId::new(EPOCH, 4), extra).encode(&mut unit);
        trimmed(unit)
    };
    extras.map(encoded).to_vec()
}

/// A record of the log, and the writes in it.
pub(super) fn record(data: &[u8]) {
    let seed = stream_seed(DB, EPOCH, 0);
    let _ = within(data.len(), 0, ERROR_BYTES, || Record::decode(data, seed, EPOCH, POSITION));
    if data.len() < HEADER_BYTES {
        return;
    }
    let mut bytes = data.to_vec();
    bytes[4..8].copy_from_slice(&((data.len() - HEADER_BYTES) as u32).to_le_bytes());
    bytes[8..12].copy_from_slice(&EPOCH.to_le_bytes());
    bytes[16..24].copy_from_slice(&POSITION.to_le_bytes());
    let checksum = seed.checksum(&bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    let decoded =
        within(bytes.len(), 0, ERROR_BYTES, || Record::decode(&bytes, seed, EPOCH, POSITION));
    let Ok(record) = decoded else { return };
    let record = record.expect("it has the right checksum");
    let mut again = bytes.clone();
    seal(&mut again, seed, &record.header);
    assert_eq!(again, bytes);
    let visited =
        within(bytes.len(), 0, ERROR_BYTES, || record.for_each_write(|_| Ok::<_, Unusable>(())));
    if visited.is_ok() {
        assert_same_again(&writes(&record), seed);
    }
}

fn writes<'a>(record: &Record<'a>) -> Vec<Write<'a>> {
    let mut writes = Vec::new();
    let visited = record.for_each_write(|write| {
        writes.push(write);
        Ok::<_, Unusable>(())
    });
    visited.expect("it was well formed");
    writes
}

/// Writes them again, each in a section of its own.
fn assert_same_again(writes: &[Write<'_>], seed: Seed) {
    let Ok(sections) = u16::try_from(writes.len()) else { return };
    let bytes_of =
        |w: &Write<'_>| section_bytes() + entry_bytes(w.kind, w.key.len(), w.value.len());
    let mut bytes = vec![0; HEADER_BYTES + writes.iter().map(bytes_of).sum::<usize>()];
    let mut writer = PayloadWriter::new(&mut bytes[HEADER_BYTES..]);
    for write in writes {
        writer.section(write.shard, write.keyspace, 1, write.seq);
        writer.entry(write.kind, write.key, write.value);
    }
    writer.finish();
    let (kind, position) = (RecordKind::Write, POSITION);
    let header = record::Header { kind, epoch: EPOCH, sections, position, mark: 0, gap: 0 };
    seal(&mut bytes, seed, &header);
    let again = Record::decode(&bytes, seed, EPOCH, POSITION);
    assert_eq!(self::writes(&again.expect("known").expect("sound")), writes);
}

pub(super) fn record_seeds() -> Vec<Vec<u8>> {
    let reference = &reference_seeds()[0];
    let entries = [
        (Kind::Put, &b"key"[..], &b"value"[..]),
        (Kind::Delete, b"gone", b""),
        (Kind::RangeDelete, b"from", b"to"),
        (Kind::Indirect, b"long", reference),
    ];
    let records = [&entries[..], &entries[..1], &entries[2..3], &[]].map(|entries| {
        let section =
            |e: &(Kind, &[u8], &[u8])| section_bytes() + entry_bytes(e.0, e.1.len(), e.2.len());
        let mut bytes = vec![0; HEADER_BYTES + entries.iter().map(section).sum::<usize>()];
        let mut writer = PayloadWriter::new(&mut bytes[HEADER_BYTES..]);
        for (i, (kind, key, value)) in (1u16..).zip(entries) {
            writer.section(i, 0, 1, u64::from(i) * 7);
            writer.entry(*kind, key, value);
        }
        writer.finish();
        let kind = if entries.is_empty() { RecordKind::Mark } else { RecordKind::Write };
        let (sections, position) = (entries.len() as u16, POSITION);
        let header = record::Header { kind, epoch: EPOCH, sections, position, mark: 9, gap: 3 };
        seal(&mut bytes, stream_seed(DB, EPOCH, 0), &header);
        bytes
    });
    records.to_vec()
}

/// The edits of a manifest's record.
pub(super) fn edit(data: &[u8]) {
    // An edit of six bytes is one of the longest in memory.
    let factor = 4 * size_of::<Edit>() / 6 + 2;
    let Ok(edits) = within(data.len(), factor, ERROR_BYTES, || edit::decode_all(data)) else {
        return;
    };
    let mut bytes = Vec::new();
    for edit in &edits {
        edit::encode(edit, &mut bytes);
    }
    assert!(bytes.len() <= data.len());
    assert_eq!(edit::decode_all(&bytes).as_ref(), Ok(&edits));
}

pub(super) fn edit_seeds() -> Vec<Vec<u8>> {
    let stream = StreamKey { epoch: 7, stream: 1 };
    let file = FileId::new(7, 9);
    let table = TableMeta {
        id: file,
        table_id: [3; 16],
        file_bytes: 1 << 20,
        entries: 1000,
        seq_min: 1,
        seq_max: 1000,
        smallest: b"a".as_slice().into(),
        largest: b"zebra".as_slice().into(),
    };
    let dir = MapDir { place: [4; 16], path: "/dev/shm".to_owned() };
    let dropped = Extent { file, offset: 4096, bytes: 69_632 };
    // The sum of three is beyond 64 bits.
    let longest = Extent { bytes: (i64::MAX as u64 >> 12 << 12) - 4096, ..dropped };
    let edits = [
        Edit::StreamCut { stream, cut: 4097 },
        Edit::StreamStart { stream, start: 8192, flushed: vec![(0, 5), (3, 900)] },
        Edit::StreamMap {
            stream,
            map: MapPlace { id: file, boot: [9; 16], dir: Some(dir.clone()) },
        },
        Edit::MapDir(dir),
        Edit::StreamFreed { stream },
        Edit::Keyspace { id: 0, name: "default".to_owned() },
        Edit::Clean,
        Edit::Table { level: 1, meta: table },
        Edit::TableRemoved { level: 6, id: file },
        Edit::Flushed { seq: 1000 },
        Edit::ValueFile { id: file, bytes: 1 << 20 },
        Edit::ValuesDropped { first: 5, extents: vec![dropped, longest, longest, longest] },
        Edit::ValuesReclaimed { below: 7 },
    ];
    let encoded = |edits: &[Edit]| {
        let mut bytes = Vec::new();
        for edit in edits {
            edit::encode(edit, &mut bytes);
        }
        bytes
    };
    edits.chunks(3).chain([&edits[..]]).map(encoded).collect()
}

/// A reference to a long value, and the value's checksums in it.
pub(super) fn reference(data: &[u8]) {
    let decoded = within(data.len(), 0, ERROR_BYTES, || Reference::decode(data));
    let Ok(reference) = decoded else { return };
    let extent = reference.extent();
    assert!(extent.is_sane() && extent.bytes as usize == round_up(reference.len));
    if reference.len > VERIFIED_BYTES_MAX {
        return;
    }
    let (value, seed) = (vec![0; reference.len], value_seed(DB, reference.file));
    let whole = reference.verify(seed, 0, &value);
    let mut verifier = Verifier::new(reference, seed);
    let damaged: Vec<u64> = value.chunks(50_000).flat_map(|piece| verifier.add(piece)).collect();
    assert_eq!(whole.err(), damaged.first().copied());
}

pub(super) fn reference_seeds() -> Vec<Vec<u8>> {
    let made = |len: usize| {
        let extent =
            Extent { file: FileId::new(EPOCH, 8), offset: UNIT_U64, bytes: round_up(len) as u64 };
        let mut builder = ReferenceBuilder::new(DB, &extent, len);
        builder.add(&vec![0; len]);
        builder.finish()
    };
    [70_000, 140_000, 3 << 20].map(made).to_vec()
}
