//! Finding and reading the streams of earlier openings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::ids::{DbId, FileId};
use crate::base::limits::UNIT_U64;
use crate::format::chain::Chain;
use crate::format::edit::StreamKey;
use crate::format::record::{Record, Unusable, stream_seed};
use crate::io::{BufferPool, Io, IoBuf, OpenMode};
use crate::wal::segment::{self, SUFFIX, Segment, UNFINISHED};

/// A read of a segment moves this many bytes at a time.
const READ_BYTES: u64 = 1 << 20;

/// The segments of one stream of an earlier opening, in order.
pub(crate) struct FoundStream {
    pub(crate) key: StreamKey,
    pub(crate) segments: Vec<Segment>,
}

/// All streams in the log's directory, in order of epoch and number, and the
/// paths of files that were never finished.
pub(crate) async fn find_streams<I: Io>(
    io: &I,
    dir: &Path,
    db: DbId,
) -> Result<(Vec<FoundStream>, Vec<PathBuf>)> {
    let mut streams = BTreeMap::<StreamKey, Vec<Segment>>::new();
    let mut unfinished = Vec::new();
    let mut names = io.list(dir).await?;
    names.sort_unstable();
    for name in names {
        let path = dir.join(&name);
        let (stem, is_finished) = match name.strip_suffix(UNFINISHED) {
            Some(stem) => (stem, false),
            None => (&name[..], true),
        };
        let Some(id) = stem.strip_suffix(SUFFIX).and_then(FileId::parse) else {
            continue;
        };
        if !is_finished {
            unfinished.push(path);
            continue;
        }
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
    let streams = streams.into_iter().map(|(key, mut segments)| {
        segments.sort_by_key(|segment| segment.start);
        FoundStream { key, segments }
    });
    Ok((streams.collect(), unfinished))
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
        let bytes = read_records(io, pool, segment).await?;
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
    pub(crate) fn finish(self) -> Result<u64> {
        let found = self.chain.finish();
        let durable = self.cut.unwrap_or(0).max(found.mark_max);
        if found.end < durable {
            return Err(self.stream.missing(found.end, durable));
        }
        Ok(found.end)
    }
}

impl FoundStream {
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

    /// The records up to `durable` were durable, and those from `end` on are
    /// not there.
    fn missing(&self, end: u64, durable: u64) -> Error {
        let reason = format!(
            "a log record is missing or damaged; the log was durable up to position {durable}, \
             and ends at {end}. Nothing was changed: restore the file from a copy, or take the \
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

    /// Makes durable what was read: a process that died may have left writes
    /// in the device's cache.
    pub(crate) async fn sync<I: Io>(&self, io: &I) -> Result<()> {
        for segment in &self.segments {
            io.sync(&segment.file).await?;
        }
        Ok(())
    }
}

/// All bytes of the segment behind its header.
async fn read_records<I: Io>(io: &I, pool: &Arc<BufferPool>, segment: &Segment) -> Result<Vec<u8>> {
    // The header's capacity was checked against the file's length.
    let mut bytes = Vec::with_capacity(segment.capacity as usize);
    let mut buf = if segment.capacity >= READ_BYTES {
        IoBuf::zeroed(READ_BYTES as usize)
    } else {
        pool.take()
    };
    while (bytes.len() as u64) < segment.capacity {
        let offset = UNIT_U64 + bytes.len() as u64;
        let (back, read) = io.read(&segment.file, offset, buf).await;
        buf = back;
        let left = (segment.capacity - bytes.len() as u64) as usize;
        let read = read?.min(left);
        if read == 0 {
            return Err(Error::corruption(segment.file.path(), offset, "the segment is cut"));
        }
        bytes.extend_from_slice(&buf[..read]);
    }
    Ok(bytes)
}
