//! Finding and reading the streams of earlier openings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::ids::{DbId, FileId};
use crate::base::limits::{UNIT_U64, round_up_u64};
use crate::base::planted::{Bug, planted};
use crate::format::chain::Chain;
use crate::format::edit::StreamKey;
use crate::format::record::{Record, Unusable, stream_seed};
use crate::io::{BufferPool, Harden, Io, IoBuf, OpenMode, Pages, WriteBuf};
use crate::wal::map::{self, FoundMap};
use crate::wal::segment::{self, SUFFIX, Segment, UNFINISHED};

/// A read of a segment moves this many bytes at a time.
const READ_BYTES: u64 = 1 << 20;

/// One stream of an earlier opening.
pub(crate) struct FoundStream {
    pub(crate) key: StreamKey,
    /// In order.
    pub(crate) segments: Vec<Segment>,
    map: Option<FoundMap>,
    /// Records that its mapping holds, in pieces, by their positions.
    mapped: BTreeMap<u64, Vec<u8>>,
    /// Records up to here were acknowledged, and must be there.
    acknowledged_end: u64,
}

/// What there is in the log's directory.
pub(crate) struct Found {
    /// In order of epoch and number.
    pub(crate) streams: Vec<FoundStream>,
    /// The paths of mappings.
    pub(crate) maps: BTreeMap<FileId, PathBuf>,
    /// The paths of files that were never finished, or that others took the place of.
    pub(crate) needless: Vec<PathBuf>,
}

/// The files in the log's directory, by their names.
pub(crate) struct Listed {
    pub(crate) segments: BTreeMap<FileId, PathBuf>,
    pub(crate) maps: BTreeMap<FileId, PathBuf>,
    /// Those that were never finished.
    pub(crate) unfinished: Vec<PathBuf>,
}

/// Lists the log's directory.
pub(super) async fn list_files<I: Io>(io: &I, dir: &Path) -> Result<Listed> {
    let (mut segments, mut maps, mut unfinished) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut names = io.list(dir).await?;
    names.sort_unstable();
    for name in names {
        let path = dir.join(&name);
        let (stem, is_finished) = match name.strip_suffix(UNFINISHED) {
            Some(stem) => (stem, false),
            None => (&name[..], true),
        };
        let (id, files) = match (stem.strip_suffix(SUFFIX), stem.strip_suffix(map::SUFFIX)) {
            (Some(id), _) => (FileId::parse(id), &mut segments),
            (_, Some(id)) => (FileId::parse(id), &mut maps),
            _ => continue,
        };
        match id {
            Some(_) if !is_finished => unfinished.push(path),
            Some(id) => drop(files.insert(id, path)),
            None => {}
        }
    }
    Ok(Listed { segments, maps, unfinished })
}

/// Looks through the log's directory.
pub(crate) async fn find_streams<I: Io>(
    io: &I,
    pool: &Arc<BufferPool>,
    dir: &Path,
    db: DbId,
) -> Result<Found> {
    let mut streams = BTreeMap::<StreamKey, Vec<Segment>>::new();
    let Listed { segments, maps, unfinished: mut needless } = list_files(io, dir).await?;
    for (id, path) in segments {
        let file = io.open(&path, OpenMode::ReadWrite).await?;
        let usage = segment::read_header(io, &file, db, id).await?;
        let segment = Segment { file, id, start: usage.start, capacity: usage.capacity };
        let (have, want) = (io.len(&segment.file).await?, segment.file_bytes());
        if have != want {
            let reason = format!("the segment has {have} bytes, and its header says {want}");
            return Err(Error::corruption(&path, have.min(want), reason));
        }
        streams.entry(usage.stream).or_default().push(segment);
    }
    for (key, segments) in &mut streams {
        segments.sort_by_key(|segment| segment.start);
        // When one cannot be made, and what is left of it not be removed, another takes its
        // place: the first has no record then.
        while let Some(first) = segments.windows(2).position(|two| two[0].start == two[1].start) {
            let segment = &segments[first];
            let bytes = read_records(io, pool, segment).await?;
            let void = first + usize::from(has_records(&bytes, db, *key, segment.start));
            needless.push(segments.remove(void).file.path().to_owned());
        }
    }
    let streams = streams.into_iter().map(|(key, segments)| FoundStream {
        key,
        segments,
        map: None,
        mapped: BTreeMap::new(),
        acknowledged_end: 0,
    });
    Ok(Found { streams: streams.collect(), maps, needless })
}

/// Whether these bytes of a segment, which starts at this position, hold any record of the
/// stream: also one behind a first one that is damaged.
pub(super) fn has_records(bytes: &[u8], db: DbId, key: StreamKey, start: u64) -> bool {
    let seed = stream_seed(db, key.epoch, key.stream);
    let mut chain = Chain::new(seed, key.epoch, start, u64::MAX);
    let mut records = 0;
    let fed = chain.feed(start, bytes, |_| {
        records += 1;
        Ok::<_, Unusable>(())
    });
    fed.is_err() || records > 0 || chain.is_broken()
}

/// A record that cannot be used, or a failure of whoever looks at it.
pub(crate) enum Stop {
    Unusable(Unusable),
    Failed(Error),
}

impl From<Unusable> for Stop {
    fn from(unusable: Unusable) -> Self {
        Self::Unusable(unusable)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Follows one stream, a segment at a time.
pub(crate) struct StreamReader<'a> {
    stream: &'a FoundStream,
    chain: Chain,
    cut: Option<u64>,
    /// The segments that are still to be read.
    rest: std::slice::Iter<'a, Segment>,
    start: u64,
    /// The end of the segments that were read: the next one starts here, or
    /// one is missing.
    read_end: u64,
}

impl StreamReader<'_> {
    /// Reads the next segment and calls `visit` for each of its records.
    /// Returns whether there was one.
    pub(crate) async fn next_segment<I: Io>(
        &mut self,
        io: &I,
        pool: &Arc<BufferPool>,
        mut visit: impl FnMut(&Record<'_>) -> Result<(), Stop>,
    ) -> Result<bool> {
        let start = self.start;
        let Some(segment) = self.rest.find(|s| s.end() > start) else {
            return Ok(false);
        };
        if self.cut.is_some_and(|cut| segment.start >= cut) {
            return Ok(false);
        }
        // Also a segment that holds no record yet proves the one before it.
        if segment.start > self.read_end {
            return Err(self.stream.missing(self.read_end, segment.start));
        }
        self.read_end = self.read_end.max(segment.end());
        let mut bytes = read_records(io, pool, segment).await?;
        self.stream.merge_mapped(segment, &mut bytes);
        let mut at = segment.start;
        let fed = self.chain.feed(segment.start, &bytes, |record| {
            at = record.header.position;
            visit(&record)
        });
        fed.map_err(|stop| match stop {
            Stop::Failed(error) => error,
            Stop::Unusable(unusable) => {
                unusable.into_error(segment.file.path(), segment.offset(at))
            }
        })?;
        Ok(true)
    }

    /// Where the stream ends.
    ///
    /// # Errors
    /// `Corruption` when it ends before its cut, or before what one of its
    /// records says was durable.
    pub(crate) fn finish(self) -> Result<FoundEnd> {
        let found = self.chain.finish();
        let durable = self.cut.unwrap_or(0).max(found.mark_max);
        if found.end < durable {
            return Err(self.stream.missing(found.end, durable));
        }
        // A cut is where an earlier opening found the end.
        let acknowledged = self.cut.map_or(self.stream.acknowledged_end, |_| 0);
        if found.end < acknowledged {
            return Err(self.stream.missing(found.end, acknowledged));
        }
        // What a mapping holds below a cut need not be in the segments yet.
        let proven = self.stream.map.as_ref().map_or(durable, |_| found.mark_max);
        Ok(FoundEnd { end: found.end, proven })
    }
}

/// Where a stream ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundEnd {
    pub(crate) end: u64,
    /// Up to here it is durable in its segments for certain.
    proven: u64,
}

impl FoundStream {
    /// Whether there is a record in any of its segments, wherever the stream may start.
    pub(crate) async fn has_records<I: Io>(
        &self,
        io: &I,
        pool: &Arc<BufferPool>,
        db: DbId,
    ) -> Result<bool> {
        for segment in &self.segments {
            let bytes = read_records(io, pool, segment).await?;
            if has_records(&bytes, db, self.key, segment.start) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes in what the stream's mapping holds. In the boot that it is of,
    /// nothing that was acknowledged may be missing.
    pub(crate) async fn read_map<I: Io>(
        &mut self,
        io: &I,
        pool: &Arc<BufferPool>,
        db: DbId,
        id: FileId,
        path: &Path,
        is_same_boot: bool,
    ) -> Result<()> {
        let map = FoundMap::open(io, path, OpenMode::ReadWrite, db, id, self.key).await?;
        self.mapped = map.groups(io, pool, db).await?.into_iter().collect();
        if is_same_boot {
            self.acknowledged_end = map.watermark(io).await?;
        }
        self.map = Some(map);
        Ok(())
    }

    /// Puts the records of the mapping where they are in the stream. Those that
    /// are in the segment, too, are the same there.
    fn merge_mapped(&self, segment: &Segment, bytes: &mut [u8]) {
        for (position, records) in self.mapped.range(segment.start..segment.end()) {
            let at = (position - segment.start) as usize;
            // A group never goes beyond its segment.
            if let Some(place) = bytes.get_mut(at..at + records.len()) {
                place.copy_from_slice(records);
            }
        }
    }

    /// Its segments.
    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.segments.iter().map(|segment| segment.file.path().to_owned())
    }

    /// Follows the stream from `start`.
    ///
    /// `cut` is where an earlier opening found its end: what is beyond it is
    /// void, and what is below it must be there.
    pub(crate) fn reader(&self, db: DbId, start: u64, cut: Option<u64>) -> StreamReader<'_> {
        let seed = stream_seed(db, self.key.epoch, self.key.stream);
        let chain = Chain::new(seed, self.key.epoch, start, cut.unwrap_or(u64::MAX));
        let rest = self.segments.iter();
        StreamReader { stream: self, chain, cut, rest, start, read_end: start }
    }

    /// The records up to `durable` were durable, or kept otherwise, and those from `end` on are
    /// not there.
    fn missing(&self, end: u64, durable: u64) -> Error {
        let reason = format!(
            "a log record is missing or damaged; the log was kept up to position {durable}, and \
             ends at {end}. Nothing was changed: restore the file from a copy, or take the \
             data from a backup"
        );
        match self.segments.iter().rfind(|s| s.start <= end) {
            Some(segment) if end <= segment.end() => {
                Error::corruption(segment.file.path(), segment.offset(end), reason)
            }
            _ => {
                let (epoch, stream) = (self.key.epoch, self.key.stream);
                let reason = format!("stream {stream} of opening {epoch}: {reason}");
                match self.segments.first() {
                    Some(segment) => Error::corruption(segment.file.path(), 0, reason),
                    None => Error::new(crate::base::error::ErrorKind::Corruption, reason),
                }
            }
        }
    }

    /// Makes durable, in the segments, what was read: a process that died may have left
    /// records in the device's cache, or in the mapping only. They are written once more:
    /// if a sync of them failed, the next one says nothing about them.
    pub(crate) async fn harden<I: Io>(
        &self,
        io: &I,
        pool: &Arc<BufferPool>,
        found: FoundEnd,
    ) -> Result<()> {
        let FoundEnd { end, proven } = found;
        for segment in self.segments.iter().filter(|s| s.start < end && proven < s.end()) {
            let mut bytes = read_records(io, pool, segment).await?;
            let found = planted(Bug::FoundLogOnlySynced).then(|| bytes.to_vec());
            self.merge_mapped(segment, &mut bytes);
            if found.is_some_and(|found| *found == *bytes) {
                io.sync(&segment.file).await?;
                continue;
            }
            let from = proven.max(segment.start) / UNIT_U64 * UNIT_U64;
            let to = round_up_u64(end.min(segment.end()));
            write_records(io, pool, segment, from, &bytes[..(to - segment.start) as usize]).await?;
        }
        Ok(())
    }
}

/// Writes the segment's records from a position on, durably: `bytes` are all that
/// are to be behind its header.
async fn write_records<I: Io>(
    io: &I,
    pool: &Arc<BufferPool>,
    segment: &Segment,
    from: u64,
    bytes: &[u8],
) -> Result<()> {
    let mut buf = pool.take();
    let mut at = (from - segment.start) as usize;
    while at < bytes.len() {
        let piece = buf.len().min(bytes.len() - at);
        buf[..piece].copy_from_slice(&bytes[at..at + piece]);
        let offset = UNIT_U64 + at as u64;
        let write = WriteBuf::Prefix(buf, piece);
        let (back, written) = io.write(&segment.file, offset, write, Harden::Later).await;
        written?;
        let WriteBuf::Prefix(back, _) = back else { unreachable!("a prefix was written") };
        buf = back;
        at += piece;
    }
    io.sync(&segment.file).await
}

/// All bytes of the segment behind its header, which are given back to the kernel
/// when they were replayed.
async fn read_records<I: Io>(io: &I, pool: &Arc<BufferPool>, segment: &Segment) -> Result<Pages> {
    // The header's capacity was checked against the file's length.
    let mut bytes = Pages::zeroed(segment.capacity as usize);
    let mut buf = if segment.capacity >= READ_BYTES {
        IoBuf::zeroed(READ_BYTES as usize)
    } else {
        pool.take()
    };
    let mut at = 0;
    while at < bytes.len() {
        let offset = UNIT_U64 + at as u64;
        let (back, read) = io.read(&segment.file, offset, buf).await;
        buf = back;
        let read = read?.min(bytes.len() - at);
        if read == 0 {
            return Err(Error::corruption(segment.file.path(), offset, "the segment is cut"));
        }
        bytes[at..at + read].copy_from_slice(&buf[..read]);
        at += read;
    }
    Ok(bytes)
}
