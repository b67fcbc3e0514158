//! Segments: files that are written once in full when they are made, so that
//! every later write overwrites blocks that exist (no file-system journal on
//! the way of a commit), and that are recycled until the database is closed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::{DbId, FileId};
use crate::base::limits::{UNIT, UNIT_U64};
use crate::base::planted::{Bug, planted};
use crate::format::edit::StreamKey;
use crate::format::header::{FileType, Header};
use crate::format::record::{u32_at, u64_at};
use crate::io::{BufferPool, File, Harden, Io, IoBuf, OpenMode, WriteBuf};

/// Name suffix of segments.
pub(crate) const SUFFIX: &str = ".wal";

/// Name suffix of files that are not complete yet.
pub(crate) const UNFINISHED: &str = ".tmp";

/// The longest segment: recovery reads one into memory as a whole.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// A segment in its present use.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: File,
    pub(crate) id: FileId,
    /// The stream position of its first record: a multiple of the unit.
    pub(crate) start: u64,
    /// Bytes for records: a multiple of the unit.
    pub(crate) capacity: u64,
}

impl Segment {
    /// The stream position at which the next segment starts.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.capacity
    }

    /// Where in the file the stream position is.
    pub(crate) fn offset(&self, position: u64) -> u64 {
        assert!((self.start..=self.end()).contains(&position));
        UNIT_U64 + (position - self.start)
    }

    /// The whole file's length in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        UNIT_U64 + self.capacity
    }
}

/// What a segment's header says beyond what every header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentUse {
    pub(crate) stream: StreamKey,
    pub(crate) start: u64,
    pub(crate) capacity: u64,
}

impl SegmentUse {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(22);
        bytes.extend(self.stream.epoch.to_le_bytes());
        bytes.extend(self.stream.stream.to_le_bytes());
        bytes.extend(self.start.to_le_bytes());
        bytes.extend(self.capacity.to_le_bytes());
        bytes
    }

    fn header(&self, db: DbId, id: FileId) -> Header {
        Header::new(FileType::Wal, db, id, self.encode())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 22] = bytes.try_into().ok()?;
        let stream = u16::from_le_bytes([bytes[4], bytes[5]]);
        let stream = StreamKey { epoch: u32_at(bytes, 0), stream };
        let this = Self { stream, start: u64_at(bytes, 6), capacity: u64_at(bytes, 14) };
        let whole = |n: u64| n.is_multiple_of(UNIT_U64) && n < 1 << 62;
        let sound = (1..=SEGMENT_BYTES_MAX).contains(&this.capacity);
        (whole(this.start) && whole(this.capacity) && sound).then_some(this)
    }
}

/// Reads the header of a segment that exists.
pub(crate) async fn read_header<I: Io>(
    io: &I,
    file: &File,
    db: DbId,
    id: FileId,
) -> Result<SegmentUse> {
    let (unit, read) = io.read(file, 0, IoBuf::zeroed(UNIT)).await;
    let read = read?;
    let header = Header::decode(&unit[..read], FileType::Wal).map_err(|e| e.at(file.path(), 0))?;
    header.check_belongs(db, id).map_err(|e| e.at(file.path(), 0))?;
    header.check_writable().map_err(|e| e.at(file.path(), 0))?;
    SegmentUse::decode(&header.extra)
        .ok_or_else(|| Error::corruption(file.path(), 0, "the segment's header makes no sense"))
}

/// The sizes of a stream's segments: the first is small, so that a small
/// database opens quickly; each new one doubles, up to a bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentSizes {
    /// File length of the first segment, in bytes.
    pub(crate) first_bytes: u64,
    /// File length at most.
    pub(crate) max_bytes: u64,
}

/// A file that is to be made: a header, and zeroes.
pub(super) struct NewFile<'a> {
    pub(super) path: &'a Path,
    pub(super) header: Header,
    pub(super) file_bytes: u64,
}

/// Makes and recycles the segments of one stream.
pub(crate) struct SegmentMaker {
    pub(crate) db: DbId,
    pub(crate) dir: PathBuf,
    pub(crate) stream: StreamKey,
    pub(crate) sizes: SegmentSizes,
    pub(crate) pool: Arc<BufferPool>,
}

impl SegmentMaker {
    /// The file length that follows one of `last_bytes`.
    fn next_bytes(&self, last_bytes: Option<u64>) -> u64 {
        match last_bytes {
            None => self.sizes.first_bytes,
            Some(last) => (last * 2).clamp(self.sizes.first_bytes, self.sizes.max_bytes),
        }
    }

    /// Whether a free segment is worth keeping: one that has not its final
    /// size makes way for a larger one.
    pub(crate) fn is_full_size(&self, segment: &Segment) -> bool {
        segment.file_bytes() >= self.sizes.max_bytes
    }

    /// Makes a segment that starts at `start`: durable, every block written.
    pub(crate) async fn create<I: Io>(
        &self,
        io: &I,
        id: FileId,
        start: u64,
        last_bytes: Option<u64>,
    ) -> Result<Segment> {
        let file_bytes = self.next_bytes(last_bytes);
        let path = self.dir.join(format!("{id}{SUFFIX}"));
        let usage = SegmentUse { stream: self.stream, start, capacity: file_bytes - UNIT_U64 };
        let new = NewFile { path: &path, header: usage.header(self.db, id), file_bytes };
        let made = self.create_whole(io, &new, false).await;
        let (file, _) = made.map_err(|error| error.context("cannot make a WAL segment"))?;
        Ok(Segment { file, id, start, capacity: usage.capacity })
    }

    /// Makes a file of a header and zeroes: durable, with its name, every
    /// block written, and locked before it has it, if that is wanted. Nothing is left
    /// of it when that fails.
    pub(super) async fn create_whole<I: Io>(
        &self,
        io: &I,
        new: &NewFile<'_>,
        locks: bool,
    ) -> Result<(File, Option<File>)> {
        let mut unfinished = new.path.as_os_str().to_owned();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let made = async {
            self.write_whole(io, &unfinished, new).await?;
            let lock = if locks { io.try_lock(&unfinished, false).await? } else { None };
            if locks && lock.is_none() {
                let reason = format!("{} is locked by another process", unfinished.display());
                return Err(Error::new(ErrorKind::Locked, reason));
            }
            io.rename(&unfinished, new.path).await?;
            Ok(lock)
        };
        let lock = match made.await {
            Ok(lock) => lock,
            Err(error) => {
                discard(io, &unfinished).await;
                return Err(error);
            }
        };
        match self.open_named(io, new.path).await {
            Ok(file) => Ok((file, lock)),
            Err(error) => {
                discard(io, new.path).await;
                Err(error)
            }
        }
    }

    /// Makes the file's name durable, and opens it by that.
    async fn open_named<I: Io>(&self, io: &I, path: &Path) -> Result<File> {
        if !planted(Bug::SegmentNameUnsynced) {
            io.sync_dir(path.parent().unwrap_or(&self.dir)).await?;
        }
        io.open(path, OpenMode::ReadWrite).await
    }

    async fn write_whole<I: Io>(&self, io: &I, path: &Path, new: &NewFile<'_>) -> Result<()> {
        let file = io.open(path, OpenMode::CreateNew).await?;
        let mut buf = self.pool.take();
        buf.fill(0);
        new.header.encode(&mut buf[..UNIT]);
        let mut written = 0;
        let mut first = true;
        while written < new.file_bytes {
            let piece = (new.file_bytes - written).min(buf.len() as u64) as usize;
            let (back, result) =
                io.write(&file, written, WriteBuf::Prefix(buf, piece), Harden::Later).await;
            result?;
            let WriteBuf::Prefix(back, _) = back else { unreachable!("a prefix was written") };
            buf = back;
            if std::mem::take(&mut first) {
                buf[..UNIT].fill(0);
            }
            written += piece as u64;
            crate::runtime::yield_now().await;
        }
        io.sync(&file).await
    }

    /// Puts a free segment to use again, from `start` on. What it holds stays:
    /// its records have positions below `start`, and count no more.
    pub(crate) async fn recycle<I: Io>(
        &self,
        io: &I,
        free: &Segment,
        start: u64,
    ) -> Result<Segment> {
        let usage = SegmentUse { stream: self.stream, start, capacity: free.capacity };
        let mut buf = IoBuf::zeroed(UNIT);
        usage.header(self.db, free.id).encode(&mut buf);
        let (_, result) = io.write(&free.file, 0, buf.into(), Harden::Now).await;
        result?;
        Ok(Segment { file: free.file.clone(), id: free.id, start, capacity: free.capacity })
    }
}

/// Removes a file that nothing needs, if there is one. That it cannot be removed
/// is only worth a warning: the next opening removes it.
pub(crate) async fn discard<I: Io>(io: &I, path: &Path) {
    if let Err(error) = io.remove(path).await
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(%error, "a file that is not needed stays until the next opening");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_round_trips_and_refuses_nonsense() {
        let stream = StreamKey { epoch: 4, stream: 2 };
        let usage = SegmentUse { stream, start: 1 << 20, capacity: 8192 };
        assert_eq!(SegmentUse::decode(&usage.encode()), Some(usage));
        assert_eq!(SegmentUse::decode(&usage.encode()[1..]), None);
        let odd = SegmentUse { start: 5, ..usage };
        assert_eq!(SegmentUse::decode(&odd.encode()), None);
        let empty = SegmentUse { capacity: 0, ..usage };
        assert_eq!(SegmentUse::decode(&empty.encode()), None);
        let huge = SegmentUse { capacity: SEGMENT_BYTES_MAX + UNIT_U64, ..usage };
        assert_eq!(SegmentUse::decode(&huge.encode()), None);
    }
}
