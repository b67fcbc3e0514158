//! Manifest edits: type-length-value, several to a record.
//!
//! A type with its highest bit set must be understood: an engine that does
//! not know it refuses the manifest. Others are passed over.

use std::fmt;

use crate::base::ids::{Epoch, FileId, ShardId, StreamId};
use crate::base::seq::{SEQ_MAX, SeqNo};
use crate::format::record::{Unusable, u32_at, u64_at};
use crate::format::value::Extent;

/// The bit of an edit's type that says that it must be understood.
const MUST: u16 = 0x8000;

const STREAM_CUT: u16 = MUST | 1;
const STREAM_START: u16 = MUST | 2;
const STREAM_FREED: u16 = MUST | 3;
const KEYSPACE: u16 = MUST | 4;
const CLEAN: u16 = 5;
const STREAM_MAP: u16 = MUST | 6;
const MAP_DIR: u16 = 7;
const TABLE: u16 = MUST | 16;
const FLUSHED: u16 = MUST | 17;
const TABLE_REMOVED: u16 = MUST | 18;
const VALUE_FILE: u16 = MUST | 19;
const VALUES_DROPPED: u16 = MUST | 20;
const VALUES_RECLAIMED: u16 = MUST | 21;

/// One WAL stream of one opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamKey {
    pub(crate) epoch: Epoch,
    pub(crate) stream: StreamId,
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} of opening {}", self.stream, self.epoch)
    }
}

/// What the manifest keeps of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableMeta {
    pub(crate) id: FileId,
    /// Random; every checksum in the file starts from it.
    pub(crate) table_id: [u8; 16],
    pub(crate) file_bytes: u64,
    pub(crate) entries: u64,
    pub(crate) seq_min: SeqNo,
    pub(crate) seq_max: SeqNo,
    pub(crate) smallest: Box<[u8]>,
    pub(crate) largest: Box<[u8]>,
}

/// A mapping file, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapPlace {
    pub(crate) id: FileId,
    /// The boot of the machine it was made in.
    pub(crate) boot: [u8; 16],
    /// The directory it is in, if not in that of the log: one that lasts no
    /// longer than the boot.
    pub(crate) dir: Option<MapDir>,
}

/// Where openings put their mappings, other than into the log's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapDir {
    /// Whose they are, and in their names: [`Io::file_id`](crate::io::Io::file_id) of the
    /// file for the database's lock. A copy of the database has the same ids and may use the
    /// same directory.
    pub(crate) place: [u8; 16],
    pub(crate) path: String,
}

/// A change of what a manifest describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Root: records of the stream at or beyond the position are void. Those
    /// below it are there.
    StreamCut { stream: StreamKey, cut: u64 },
    /// Root: the stream is in use and its records start at the position;
    /// what is below it was flushed, every shard up to the number given.
    StreamStart { stream: StreamKey, start: u64, flushed: Vec<(ShardId, SeqNo)> },
    /// Root: records of the stream may be in this mapping file, and nowhere
    /// else.
    StreamMap { stream: StreamKey, map: MapPlace },
    /// Root: this opening or an earlier one may have left mappings there.
    MapDir(MapDir),
    /// Root: nothing of the stream is needed any more.
    StreamFreed { stream: StreamKey },
    /// Root: a keyspace and its name.
    Keyspace { id: u32, name: String },
    /// Root: the database was closed, and nothing was written after this.
    Clean,
    /// Shard: a table was added to the level.
    Table { level: u8, meta: TableMeta },
    /// Shard: a table was taken out of the level.
    TableRemoved { level: u8, id: FileId },
    /// Shard: every write up to this sequence number is in the tables.
    Flushed { seq: SeqNo },
    /// Shard: tables refer to so many more bytes of this value file.
    ValueFile { id: FileId, bytes: u64 },
    /// Shard: no table refers to these any more. They are numbered, from `first`
    /// on.
    ValuesDropped { first: u64, extents: Vec<Extent> },
    /// Shard: those dropped that have a number below this were given back to the
    /// file system.
    ValuesReclaimed { below: u64 },
}

/// Appends the encoding of `edit` to `out`.
pub(crate) fn encode(edit: &Edit, out: &mut Vec<u8>) {
    let kind = match edit {
        Edit::StreamCut { .. } => STREAM_CUT,
        Edit::StreamStart { .. } => STREAM_START,
        Edit::StreamMap { .. } => STREAM_MAP,
        Edit::MapDir(_) => MAP_DIR,
        Edit::StreamFreed { .. } => STREAM_FREED,
        Edit::Keyspace { .. } => KEYSPACE,
        Edit::Clean => CLEAN,
        Edit::Table { .. } => TABLE,
        Edit::TableRemoved { .. } => TABLE_REMOVED,
        Edit::Flushed { .. } => FLUSHED,
        Edit::ValueFile { .. } => VALUE_FILE,
        Edit::ValuesDropped { .. } => VALUES_DROPPED,
        Edit::ValuesReclaimed { .. } => VALUES_RECLAIMED,
    };
    out.extend(kind.to_le_bytes());
    let length_at = out.len();
    out.extend([0; 4]);
    match edit {
        Edit::StreamCut { stream, cut } => {
            stream_key(stream, out);
            out.extend(cut.to_le_bytes());
        }
        Edit::StreamStart { stream, start, flushed } => {
            stream_key(stream, out);
            out.extend(start.to_le_bytes());
            for (shard, seq) in flushed {
                out.extend(shard.to_le_bytes());
                out.extend(seq.to_le_bytes());
            }
        }
        Edit::StreamMap { stream, map } => {
            stream_key(stream, out);
            out.extend(map.id.to_u64().to_le_bytes());
            out.extend(map.boot);
            if let Some(dir) = &map.dir {
                map_dir(dir, out);
            }
        }
        Edit::MapDir(dir) => map_dir(dir, out),
        Edit::StreamFreed { stream } => stream_key(stream, out),
        Edit::Keyspace { id, name } => {
            out.extend(id.to_le_bytes());
            out.extend(name.as_bytes());
        }
        Edit::Clean => {}
        Edit::Table { level, meta: table } => {
            out.push(*level);
            out.extend(table.id.to_u64().to_le_bytes());
            out.extend(table.table_id);
            out.extend(table.file_bytes.to_le_bytes());
            out.extend(table.entries.to_le_bytes());
            out.extend(table.seq_min.to_le_bytes());
            out.extend(table.seq_max.to_le_bytes());
            for key in [&table.smallest, &table.largest] {
                out.extend((key.len() as u16).to_le_bytes());
                out.extend(&key[..]);
            }
        }
        Edit::TableRemoved { level, id } => {
            out.push(*level);
            out.extend(id.to_u64().to_le_bytes());
        }
        Edit::Flushed { seq } => out.extend(seq.to_le_bytes()),
        Edit::ValueFile { id, bytes } => {
            out.extend(id.to_u64().to_le_bytes());
            out.extend(bytes.to_le_bytes());
        }
        Edit::ValuesDropped { first, extents } => {
            out.extend(first.to_le_bytes());
            for extent in extents {
                out.extend(extent.file.to_u64().to_le_bytes());
                out.extend(extent.offset.to_le_bytes());
                out.extend(extent.bytes.to_le_bytes());
            }
        }
        Edit::ValuesReclaimed { below } => out.extend(below.to_le_bytes()),
    }
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

fn stream_key(key: &StreamKey, out: &mut Vec<u8>) {
    out.extend(key.epoch.to_le_bytes());
    out.extend(key.stream.to_le_bytes());
}

fn map_dir(dir: &MapDir, out: &mut Vec<u8>) {
    out.extend(dir.place);
    out.extend(dir.path.as_bytes());
}

/// The edits of a record's payload.
pub(crate) fn decode_all(mut payload: &[u8]) -> Result<Vec<Edit>, Unusable> {
    let cut = || Unusable::malformed("a cut edit");
    let mut edits = Vec::new();
    while !payload.is_empty() {
        let (head, rest) = payload.split_at_checked(6).ok_or_else(cut)?;
        let kind = u16::from_le_bytes([head[0], head[1]]);
        let (value, rest) = rest.split_at_checked(u32_at(head, 2) as usize).ok_or_else(cut)?;
        payload = rest;
        match decode(kind, value)? {
            Some(edit) => edits.push(edit),
            None if kind & MUST != 0 => {
                return Err(Unusable::Newer(format!("a manifest edit of type {kind:#06x}")));
            }
            None => {}
        }
    }
    Ok(edits)
}

/// `None` for a type this version does not know.
fn decode(kind: u16, value: &[u8]) -> Result<Option<Edit>, Unusable> {
    let mut fields = Fields { rest: value };
    let edit = match kind {
        STREAM_CUT => Edit::StreamCut { stream: fields.stream_key()?, cut: fields.u64()? },
        STREAM_START => {
            let (stream, start) = (fields.stream_key()?, fields.u64()?);
            let mut flushed = Vec::with_capacity(fields.rest.len() / 10);
            while !fields.rest.is_empty() {
                flushed.push((fields.u16()?, fields.seq()?));
            }
            Edit::StreamStart { stream, start, flushed }
        }
        STREAM_MAP => {
            let stream = fields.stream_key()?;
            let id = FileId::from_u64(fields.u64()?);
            let boot = fields.array()?;
            let dir = if fields.rest.is_empty() { None } else { Some(fields.map_dir()?) };
            Edit::StreamMap { stream, map: MapPlace { id, boot, dir } }
        }
        MAP_DIR => Edit::MapDir(fields.map_dir()?),
        STREAM_FREED => Edit::StreamFreed { stream: fields.stream_key()? },
        KEYSPACE => {
            let id = fields.u32()?;
            Edit::Keyspace { id, name: fields.text("a keyspace's name")?.to_owned() }
        }
        CLEAN => Edit::Clean,
        TABLE => {
            let level = fields.take(1)?[0];
            let id = FileId::from_u64(fields.u64()?);
            let table_id = fields.array()?;
            let meta = TableMeta {
                id,
                table_id,
                file_bytes: fields.u64()?,
                entries: fields.u64()?,
                seq_min: fields.seq()?,
                seq_max: fields.seq()?,
                smallest: fields.key()?,
                largest: fields.key()?,
            };
            Edit::Table { level, meta }
        }
        TABLE_REMOVED => {
            let level = fields.take(1)?[0];
            Edit::TableRemoved { level, id: FileId::from_u64(fields.u64()?) }
        }
        FLUSHED => Edit::Flushed { seq: fields.seq()? },
        VALUE_FILE => Edit::ValueFile { id: FileId::from_u64(fields.u64()?), bytes: fields.u64()? },
        VALUES_DROPPED => {
            let first = fields.u64()?;
            let mut extents = Vec::with_capacity(fields.rest.len() / 24);
            while !fields.rest.is_empty() {
                extents.push(fields.extent()?);
            }
            if first.checked_add(extents.len() as u64).is_none() {
                return Err(Unusable::malformed("dropped values with impossible numbers"));
            }
            Edit::ValuesDropped { first, extents }
        }
        VALUES_RECLAIMED => Edit::ValuesReclaimed { below: fields.u64()? },
        _ => return Ok(None),
    };
    if !fields.rest.is_empty() {
        return Err(Unusable::malformed("an edit is longer than its fields"));
    }
    Ok(Some(edit))
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Unusable> {
        let (head, rest) =
            self.rest.split_at_checked(len).ok_or_else(|| Unusable::malformed("a cut edit"))?;
        self.rest = rest;
        Ok(head)
    }

    fn array(&mut self) -> Result<[u8; 16], Unusable> {
        self.take(16).map(|bytes| bytes.try_into().expect("16 bytes"))
    }

    /// All that is left.
    fn seq(&mut self) -> Result<SeqNo, Unusable> {
        let seq = self.u64()?;
        match seq <= SEQ_MAX {
            true => Ok(seq),
            false => Err(Unusable::malformed("a write has an impossible number")),
        }
    }

    fn map_dir(&mut self) -> Result<MapDir, Unusable> {
        let place = self.array()?;
        let path = self.text("a directory")?.to_owned();
        if path.is_empty() {
            return Err(Unusable::malformed("a directory without a name"));
        }
        Ok(MapDir { place, path })
    }

    /// All that is left.
    fn text(&mut self, what: &str) -> Result<&'a str, Unusable> {
        std::str::from_utf8(std::mem::take(&mut self.rest))
            .map_err(|_| Unusable::Malformed(format!("{what} is not UTF-8")))
    }

    fn u16(&mut self) -> Result<u16, Unusable> {
        self.take(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }

    fn u32(&mut self) -> Result<u32, Unusable> {
        self.take(4).map(|b| u32_at(b, 0))
    }

    fn u64(&mut self) -> Result<u64, Unusable> {
        self.take(8).map(|b| u64_at(b, 0))
    }

    fn extent(&mut self) -> Result<Extent, Unusable> {
        let file = FileId::from_u64(self.u64()?);
        let extent = Extent { file, offset: self.u64()?, bytes: self.u64()? };
        if !extent.is_sane() {
            return Err(Unusable::malformed("a dropped value in an impossible place"));
        }
        Ok(extent)
    }

    fn stream_key(&mut self) -> Result<StreamKey, Unusable> {
        Ok(StreamKey { epoch: self.u32()?, stream: self.u16()? })
    }

    fn key(&mut self) -> Result<Box<[u8]>, Unusable> {
        let len = self.u16()?;
        self.take(usize::from(len)).map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Edit> {
        let stream = StreamKey { epoch: 7, stream: 1 };
        let dir = MapDir { place: [5; 16], path: "/dev/shm".to_owned() };
        vec![
            Edit::StreamCut { stream, cut: 4097 },
            Edit::StreamStart { stream, start: 8192, flushed: vec![(0, 5), (3, 900)] },
            Edit::StreamMap {
                stream,
                map: MapPlace { id: FileId::new(7, 3), boot: [9; 16], dir: None },
            },
            Edit::StreamMap {
                stream,
                map: MapPlace { id: FileId::new(7, 4), boot: [8; 16], dir: Some(dir.clone()) },
            },
            Edit::MapDir(dir),
            Edit::StreamFreed { stream },
            Edit::Keyspace { id: 0, name: "default".to_owned() },
            Edit::Clean,
            Edit::Table {
                level: 0,
                meta: TableMeta {
                    id: FileId::new(7, 9),
                    table_id: [3; 16],
                    file_bytes: 1 << 20,
                    entries: 1000,
                    seq_min: 1,
                    seq_max: 1000,
                    smallest: Box::from(&b""[..]),
                    largest: vec![255; 65_535].into(),
                },
            },
            Edit::TableRemoved { level: 6, id: FileId::new(7, 9) },
            Edit::Flushed { seq: 1000 },
            Edit::ValueFile { id: FileId::new(7, 8), bytes: 1 << 20 },
            Edit::ValuesDropped {
                first: 5,
                extents: vec![
                    Extent { file: FileId::new(7, 8), offset: 4096, bytes: 69_632 },
                    Extent { file: FileId::new(7, 8), offset: 1 << 20, bytes: 131_072 },
                ],
            },
            Edit::ValuesReclaimed { below: 7 },
        ]
    }

    #[test]
    fn round_trip() {
        let mut bytes = Vec::new();
        for edit in &samples() {
            encode(edit, &mut bytes);
        }
        assert_eq!(decode_all(&bytes).unwrap(), samples());
    }

    #[test]
    fn cuts_are_refused() {
        for edit in &samples() {
            let mut bytes = Vec::new();
            encode(edit, &mut bytes);
            for cut in 1..bytes.len().min(200) {
                assert!(decode_all(&bytes[..cut]).is_err(), "{edit:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn unknown_edits_are_passed_over_unless_they_must_be_understood() {
        let mut bytes = Vec::new();
        bytes.extend([0x77, 0x00, 2, 0, 0, 0, 1, 2]);
        encode(&Edit::Clean, &mut bytes);
        assert_eq!(decode_all(&bytes).unwrap(), vec![Edit::Clean]);
        bytes[1] = 0x80;
        assert!(matches!(decode_all(&bytes), Err(Unusable::Newer(_))));
    }
}
