//! The mapping of a stream: a file in which records survive the death of the
//! process from the moment they are copied there.
//!
//! It consists of a header, a watermark, and slots, each the buffer of one
//! group. The watermark is the stream position up to which records were
//! acknowledged: in the boot it was written in, less than that is damage. A slot
//! says nothing of its own: the records in it name their positions. What else
//! a slot still holds, of groups that were in it before, has other positions
//! and counts no more.
//!
//! The file is written in full when it is made, so that no store into it can
//! ever need space.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::checksum::Seed;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::{DbId, Epoch, FileId};
use crate::base::limits::{UNIT, UNIT_U64};
use crate::format::edit::{MapDir, MapPlace, StreamKey};
use crate::format::header::{FileType, Header};
use crate::format::record::{HEADER_BYTES, Record, Unusable, stream_seed, u32_at, u64_at};
use crate::io::{BufferPool, File, GroupBuf, Io, IoBuf, MappedWord, OpenMode};
use crate::wal::segment::{NewFile, SegmentMaker, UNFINISHED};

/// Name suffix of mappings.
pub(super) const SUFFIX: &str = ".map";

/// The longest slot: recovery reads one into memory as a whole.
const SLOT_BYTES_MAX: u32 = 1 << 28;

/// How a mapping is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapSizes {
    /// Bytes of a slot: a multiple of the unit.
    pub(crate) slot_bytes: u32,
    pub(crate) slots: u16,
}

impl MapSizes {
    pub(super) fn file_bytes(self) -> u64 {
        2 * UNIT_U64 + u64::from(self.slot_bytes) * u64::from(self.slots)
    }

    /// Where in the file a slot is.
    pub(crate) fn offset(self, slot: u16) -> u64 {
        2 * UNIT_U64 + u64::from(self.slot_bytes) * u64::from(slot)
    }
}

/// What a mapping's header says beyond what every header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapUse {
    pub(crate) stream: StreamKey,
    pub(crate) sizes: MapSizes,
}

impl MapUse {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(12);
        bytes.extend(self.stream.epoch.to_le_bytes());
        bytes.extend(self.stream.stream.to_le_bytes());
        bytes.extend(self.sizes.slot_bytes.to_le_bytes());
        bytes.extend(self.sizes.slots.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 12] = bytes.try_into().ok()?;
        let stream = u16::from_le_bytes([bytes[4], bytes[5]]);
        let stream = StreamKey { epoch: u32_at(bytes, 0), stream };
        let slot_bytes = u32_at(bytes, 6);
        let slots = u16::from_le_bytes([bytes[10], bytes[11]]);
        let sound = (1..=SLOT_BYTES_MAX).contains(&slot_bytes)
            && u64::from(slot_bytes).is_multiple_of(UNIT_U64)
            && slots > 0;
        sound.then_some(Self { stream, sizes: MapSizes { slot_bytes, slots } })
    }
}

/// What the names of a directory's mappings elsewhere begin with.
fn prefix(db: DbId, dir: &MapDir) -> String {
    let (db, place) = (u128::from_be_bytes(db.0), u128::from_be_bytes(dir.place));
    format!("ouro-{db:032x}-{place:032x}-")
}

/// The path of a mapping.
pub(crate) fn path(log_dir: &Path, db: DbId, place: &MapPlace) -> PathBuf {
    match &place.dir {
        None => log_dir.join(format!("{}{SUFFIX}", place.id)),
        Some(dir) => Path::new(&dir.path).join(format!("{}{}{SUFFIX}", prefix(db, dir), place.id)),
    }
}

/// A mapping in use.
pub(crate) struct Map {
    pub(crate) watermark: MappedWord,
    pub(crate) slots: Vec<GroupBuf>,
}

/// The mappings in a directory where an opening put them, and those that it never
/// finished. None in one that is not there any more.
pub(crate) async fn list_elsewhere<I: Io>(
    io: &I,
    db: DbId,
    dir: &MapDir,
) -> Result<(BTreeMap<FileId, PathBuf>, Vec<PathBuf>)> {
    let (mut maps, mut unfinished) = (BTreeMap::new(), Vec::new());
    let names = match io.list(Path::new(&dir.path)).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        names => names?,
    };
    let prefix = prefix(db, dir);
    for name in names {
        let Some(rest) = name.strip_prefix(&prefix) else { continue };
        let stem = rest.strip_suffix(UNFINISHED);
        let id = stem.unwrap_or(rest).strip_suffix(SUFFIX).and_then(FileId::parse);
        let path = Path::new(&dir.path).join(&name);
        match (id, stem) {
            (Some(id), None) => drop(maps.insert(id, path)),
            (Some(_), Some(_)) => unfinished.push(path),
            (None, _) => {}
        }
    }
    Ok((maps, unfinished))
}

/// Takes the lock of a mapping elsewhere that is only to be read; `None` when it is gone.
pub(crate) async fn lock_to_read<I: Io>(io: &I, path: &Path) -> Result<Option<File>> {
    match io.try_lock(path, false).await {
        Ok(Some(lock)) => Ok(Some(lock)),
        Ok(None) => Err(in_use(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Another process has the mapping.
pub(crate) fn in_use(path: &Path) -> Error {
    let reason = format!(
        "the mapping of the log {} is in use by another process: this directory is a copy of a \
         database that is open (close that one first, and copy it then), or a process that was \
         killed has not ended yet (wait longer: Options::lock_wait, --lock-wait)",
        path.display()
    );
    Error::new(ErrorKind::Locked, reason)
}

/// Makes the mapping of a stream. The caller makes durable where it is before
/// anything relies on it. One that is not in the log's directory has a lock, from before
/// it has its name: a copy of the database may know that name, too, and must not take the
/// file away while it is in use.
pub(crate) async fn create<I: Io>(
    io: &I,
    maker: &SegmentMaker,
    place: &MapPlace,
    sizes: MapSizes,
) -> Result<(Map, Option<File>)> {
    let usage = MapUse { stream: maker.stream, sizes };
    let header = Header::new(FileType::Map, maker.db, place.id, usage.encode());
    let path = path(&maker.dir, maker.db, place);
    let new = NewFile { path: &path, header, file_bytes: sizes.file_bytes() };
    let (file, lock) = maker.create_whole(io, &new, place.dir.is_some()).await?;
    let mapping = Arc::new(io.map(&file, sizes.file_bytes() as usize).await?);
    let slot = |slot| {
        let offset = sizes.offset(slot) as usize;
        GroupBuf::mapped(&mapping, offset, sizes.slot_bytes as usize)
    };
    let watermark = MappedWord::new(&mapping, UNIT);
    Ok((Map { watermark, slots: (0..sizes.slots).map(slot).collect() }, lock))
}

/// A mapping of an earlier opening.
pub(crate) struct FoundMap {
    pub(crate) file: File,
    pub(super) usage: MapUse,
}

impl FoundMap {
    /// Opens the mapping, which is of `stream`.
    pub(super) async fn open<I: Io>(
        io: &I,
        path: &Path,
        mode: OpenMode,
        db: DbId,
        id: FileId,
        stream: StreamKey,
    ) -> Result<Self> {
        let file = io.open(path, mode).await?;
        let (unit, read) = io.read(&file, 0, IoBuf::zeroed(UNIT)).await;
        let read = read?;
        let header = Header::decode(&unit[..read], FileType::Map).map_err(|e| e.at(path, 0))?;
        header.check_belongs(db, id).map_err(|e| e.at(path, 0))?;
        header.check_writable().map_err(|e| e.at(path, 0))?;
        let usage = MapUse::decode(&header.extra).filter(|usage| usage.stream == stream);
        let usage = usage.ok_or_else(|| {
            Error::corruption(path, 0, "the mapping's header makes no sense here")
        })?;
        let (have, want) = (io.len(&file).await?, usage.sizes.file_bytes());
        if have != want {
            let reason = format!("the mapping has {have} bytes, and its header says {want}");
            return Err(Error::corruption(path, have.min(want), reason));
        }
        Ok(Self { file, usage })
    }

    /// Whether anything was put into a mapping that the root manifest, of this epoch,
    /// does not name. What is no mapping of that epoch was not.
    pub(crate) async fn was_used<I: Io>(
        io: &I,
        pool: &Arc<BufferPool>,
        db: DbId,
        id: FileId,
        path: &Path,
        epoch: Epoch,
    ) -> Result<bool> {
        let file = io.open(path, OpenMode::Read).await?;
        let (unit, read) = io.read(&file, 0, IoBuf::zeroed(UNIT)).await;
        let header = Header::decode(&unit[..read?], FileType::Map).ok();
        let own = header.filter(|header| header.check_belongs(db, id).is_ok());
        let stream = own.and_then(|header| MapUse::decode(&header.extra)).map(|own| own.stream);
        let Some(stream) = stream.filter(|stream| stream.epoch == epoch) else {
            return Ok(false);
        };
        let map = Self::open(io, path, OpenMode::Read, db, id, stream).await?;
        Ok(map.watermark(io).await? > 0 || !map.groups(io, pool, db).await?.is_empty())
    }

    /// The position up to which records were acknowledged, if nobody lost
    /// power since.
    pub(super) async fn watermark<I: Io>(&self, io: &I) -> Result<u64> {
        let (unit, read) = io.read(&self.file, UNIT_U64, IoBuf::zeroed(UNIT)).await;
        if read? < UNIT {
            return Err(Error::corruption(self.file.path(), UNIT_U64, "the mapping is cut"));
        }
        Ok(u64_at(&unit, 0))
    }

    /// The records of each slot, in one piece, and the position of the first.
    pub(super) async fn groups<I: Io>(
        &self,
        io: &I,
        pool: &Arc<BufferPool>,
        db: DbId,
    ) -> Result<Vec<(u64, Vec<u8>)>> {
        let (sizes, stream) = (self.usage.sizes, self.usage.stream);
        let seed = stream_seed(db, stream.epoch, stream.stream);
        let mut groups = Vec::new();
        let mut buf = pool.take();
        for slot in 0..sizes.slots {
            let mut bytes = Vec::with_capacity(sizes.slot_bytes as usize);
            while bytes.len() < sizes.slot_bytes as usize {
                let offset = sizes.offset(slot) + bytes.len() as u64;
                let (back, read) = io.read(&self.file, offset, buf).await;
                buf = back;
                let read = read?.min(sizes.slot_bytes as usize - bytes.len());
                if read == 0 {
                    let reason = "the mapping is cut";
                    return Err(Error::corruption(self.file.path(), offset, reason));
                }
                bytes.extend_from_slice(&buf[..read]);
            }
            let at = |error: Unusable| error.into_error(self.file.path(), sizes.offset(slot));
            if let Some((position, len)) = group(&bytes, seed, stream).map_err(at)? {
                bytes.truncate(len);
                groups.push((position, bytes));
            }
        }
        Ok(groups)
    }
}

/// The position and the length of the records that the slot begins with.
pub(crate) fn group(
    bytes: &[u8],
    seed: Seed,
    stream: StreamKey,
) -> Result<Option<(u64, usize)>, Unusable> {
    if bytes.len() < HEADER_BYTES {
        return Ok(None);
    }
    let position = u64_at(bytes, 16);
    if !position.is_multiple_of(UNIT_U64) || position > 1 << 62 {
        return Ok(None);
    }
    let mut len = 0;
    while let Some(record) =
        Record::decode(&bytes[len..], seed, stream.epoch, position + len as u64)?
    {
        len = (record.end() - position) as usize;
    }
    Ok((len > 0).then_some((position, len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_round_trips_and_refuses_nonsense() {
        let stream = StreamKey { epoch: 4, stream: 2 };
        let sizes = MapSizes { slot_bytes: 8192, slots: 3 };
        let usage = MapUse { stream, sizes };
        assert_eq!(MapUse::decode(&usage.encode()), Some(usage));
        assert_eq!(MapUse::decode(&usage.encode()[1..]), None);
        for sizes in [
            MapSizes { slot_bytes: 5, slots: 1 },
            MapSizes { slot_bytes: 0, slots: 1 },
            MapSizes { slot_bytes: 4096, slots: 0 },
            MapSizes { slot_bytes: SLOT_BYTES_MAX + 4096, slots: 1 },
        ] {
            assert_eq!(MapUse::decode(&MapUse { stream, sizes }.encode()), None);
        }
    }
}
