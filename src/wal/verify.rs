//! What is wrong with the log: every segment and mapping that is needed, and
//! every place where records are missing, not only the first.
//!
//! Memory is that of one segment and of one mapping.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::base::error::ErrorKind;
use crate::base::ids::{DbId, FileId, StreamId};
use crate::base::limits::{UNIT, UNIT_U64, round_up_u64};
use crate::format::chain::{Missing, Step, Unlike, Walk};
use crate::format::edit::StreamKey;
use crate::format::header::{ByteReader, FileType, Header};
use crate::format::record::{HEADER_BYTES, Record, stream_seed, u32_at, u64_at};
use crate::io::{Halt, Inspection, Io, OpenMode};
use crate::wal::map::{FoundMap, MapUse, group};
use crate::wal::scan::{Listed, has_records, list_files};
use crate::wal::segment::{SEGMENT_BYTES_MAX, read_header};

/// A segment whose header is sound.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) path: PathBuf,
    /// The stream position of its first record.
    pub(crate) start: u64,
    capacity: u64,
}

impl SegmentFile {
    fn end(&self) -> u64 {
        self.start + self.capacity
    }

    fn offset(&self, position: u64) -> u64 {
        UNIT_U64 + (position - self.start)
    }
}

/// Whether a segment of a stream, whose others are these, is missing from `start` on.
pub(crate) fn has_gap(segments: &[SegmentFile], start: u64) -> bool {
    let mut end = start;
    let needed = segments.iter().filter(|segment| segment.end() > start);
    needed.into_iter().any(|segment| segment.start > std::mem::replace(&mut end, segment.end()))
}

/// What there is in the log's directory.
#[derive(Default)]
pub(crate) struct Log {
    /// The segments of each stream, in order.
    pub(crate) streams: BTreeMap<StreamKey, Vec<SegmentFile>>,
    pub(crate) maps: BTreeMap<FileId, PathBuf>,
    /// Never finished, or others took their place.
    pub(crate) needless: Vec<PathBuf>,
    /// Segments whose headers are not sound.
    pub(crate) headless: Vec<PathBuf>,
}

/// Lists the log's directory and verifies the headers of the segments.
pub(crate) async fn verify_files<I: Io>(
    inspection: &mut Inspection<'_, I>,
    dir: &Path,
    db: DbId,
) -> Result<Log, Halt> {
    let listed = match list_files(inspection.io, dir).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            inspection.fault(dir, 0, "the log's directory is missing")?;
            None
        }
        listed => inspection.sound(listed)?,
    };
    let Some(Listed { segments, maps, unfinished: mut needless }) = listed else {
        return Ok(Log::default());
    };
    let mut streams = BTreeMap::<StreamKey, Vec<SegmentFile>>::new();
    let mut headless = Vec::new();
    for (id, path) in segments {
        let Some((file, len)) = inspection.open(&path, "segment").await? else { continue };
        inspection.counts.bytes += UNIT_U64.min(len);
        let usage = read_header(inspection.io, &file, db, id).await;
        let Some(usage) = inspection.sound(usage)? else {
            headless.push(path);
            continue;
        };
        let want = UNIT_U64 + usage.capacity;
        if len != want {
            let reason = format!("the segment has {len} bytes, and its header says {want}");
            inspection.fault(&path, len.min(want), reason)?;
        }
        let segment = SegmentFile { path, start: usage.start, capacity: usage.capacity };
        streams.entry(usage.stream).or_default().push(segment);
    }
    for (key, segments) in &mut streams {
        segments.sort_by_key(|segment| segment.start);
        // As recovery has it: one that has no record was made anew.
        while let Some(first) = segments.windows(2).position(|two| two[0].start == two[1].start) {
            let segment = &segments[first];
            let Some((file, len)) = inspection.open(&segment.path, "segment").await? else { break };
            let end = (UNIT_U64 + segment.capacity).min(len / UNIT_U64 * UNIT_U64).max(UNIT_U64);
            let bytes = inspection.read_range(&file, UNIT_U64..end).await?;
            let void = first + usize::from(has_records(&bytes, db, *key, segment.start));
            needless.push(segments.remove(void).path);
        }
    }
    Ok(Log { streams, maps, needless, headless })
}

/// Tells by its records where a segment belongs whose header is not sound: each
/// says its epoch and position, and its checksum that it is of one of `streams`.
/// `None` when it has no sound record.
pub(crate) async fn place_segment<I: Io>(
    inspection: &mut Inspection<'_, I>,
    path: &Path,
    db: DbId,
    streams: Range<StreamId>,
) -> Result<Option<(StreamKey, SegmentFile)>, Halt> {
    let Some((file, len)) = inspection.open(path, "segment").await? else { return Ok(None) };
    if len > UNIT_U64 + SEGMENT_BYTES_MAX {
        return Ok(None);
    }
    let end = (len / UNIT_U64 * UNIT_U64).max(UNIT_U64);
    let bytes = inspection.read_range(&file, UNIT_U64..end).await?;
    for at in (0..bytes.len()).step_by(UNIT) {
        let (epoch, position) = (u32_at(&bytes[at..], 8), u64_at(&bytes[at..], 16));
        let Some(start) = position.checked_sub(at as u64) else { continue };
        if !start.is_multiple_of(UNIT_U64) || start.checked_add(len).is_none() {
            continue;
        }
        let is_of = |stream: &StreamId| {
            let seed = stream_seed(db, epoch, *stream);
            matches!(Record::decode(&bytes[at..], seed, epoch, position), Ok(Some(_)))
        };
        if let Some(stream) = streams.clone().find(is_of) {
            let capacity = end - UNIT_U64;
            let segment = SegmentFile { path: path.to_owned(), start, capacity };
            return Ok(Some((StreamKey { epoch, stream }, segment)));
        }
    }
    Ok(None)
}

/// What a mapping holds.
#[derive(Default)]
pub(crate) struct MapContent {
    path: PathBuf,
    /// Records, in pieces, by their positions.
    groups: BTreeMap<u64, Vec<u8>>,
    /// Where in the file the records of each slot end, and the bytes there.
    ends: Vec<(u64, Vec<u8>)>,
    /// The position up to which records were acknowledged.
    watermark: u64,
}

/// Verifies a mapping of the stream. `None` when there is none to be used;
/// unless it `may_be_gone`, that is a fault.
pub(crate) async fn verify_map<I: Io>(
    inspection: &mut Inspection<'_, I>,
    path: &Path,
    (db, id, stream): (DbId, FileId, StreamKey),
    may_be_gone: bool,
) -> Result<Option<MapContent>, Halt> {
    let opened = match FoundMap::open(inspection.io, path, OpenMode::Read, db, id, stream).await {
        Err(error) if error.kind() == ErrorKind::NotFound && may_be_gone => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let reason = "the mapping of the log is missing, and may hold acknowledged writes";
            inspection.fault(path, 0, reason)?;
            return Ok(None);
        }
        opened => inspection.sound(opened)?,
    };
    inspection.counts.wal_maps += 1;
    inspection.counts.bytes += UNIT_U64;
    let Some(map) = opened else { return Ok(None) };
    let mut content = MapContent { path: path.to_owned(), ..MapContent::default() };
    if let Some(unit) = inspection.read(&map.file, UNIT_U64, UNIT).await? {
        content.watermark = u64_at(&unit, 0);
        let rest = ByteReader::new(&unit[8..]).zeroes_to_end();
        inspection.sound(rest.map_err(|error| error.at(path, UNIT_U64 + 8)))?;
    }
    let seed = stream_seed(db, stream.epoch, stream.stream);
    let sizes = map.usage.sizes;
    for slot in 0..sizes.slots {
        let start = sizes.offset(slot);
        let range = start..start + u64::from(sizes.slot_bytes);
        let mut bytes = inspection.read_range(&map.file, range).await?;
        let found =
            group(&bytes, seed, stream).map_err(|unusable| unusable.into_error(path, start));
        let Some(found) = inspection.sound(found)? else { continue };
        let len = found.map_or(0, |(_, len)| len);
        if let Some(header) = bytes.get(len..len + HEADER_BYTES) {
            content.ends.push((start + len as u64, header.to_vec()));
        }
        if let Some((position, len)) = found {
            bytes.truncate(len);
            content.groups.insert(position, bytes);
        }
    }
    Ok(Some(content))
}

impl MapContent {
    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether records were ever put into it.
    pub(crate) fn is_used(&self) -> bool {
        self.watermark > 0 || !self.groups.is_empty()
    }
}

/// The stream that a mapping says it is of; `None` when its header cannot be
/// read.
pub(crate) async fn stream_of_map<I: Io>(
    inspection: &mut Inspection<'_, I>,
    path: &Path,
    db: DbId,
    id: FileId,
) -> Result<Option<StreamKey>, Halt> {
    let Some((file, _)) = inspection.open(path, "mapping").await? else { return Ok(None) };
    let Some(unit) = inspection.read(&file, 0, UNIT).await? else { return Ok(None) };
    let header = Header::decode(&unit, FileType::Map);
    let own = header.ok().filter(|header| header.check_belongs(db, id).is_ok());
    Ok(own.and_then(|header| MapUse::decode(&header.extra)).map(|usage| usage.stream))
}

/// What a stream is verified against.
pub(crate) struct StreamCheck<'a> {
    pub(crate) db: DbId,
    pub(crate) key: StreamKey,
    pub(crate) segments: &'a [SegmentFile],
    /// What is below was flushed, and is not looked at.
    pub(crate) start: u64,
    /// Where an earlier opening found the end.
    pub(crate) cut: Option<u64>,
    pub(crate) map: Option<&'a MapContent>,
    /// The mapping is of this boot: up to its watermark nothing may be missing.
    pub(crate) is_same_boot: bool,
}

/// Where a record is: file and offset.
pub(crate) type RecordPlace<'a> = (&'a Path, u64);

/// Who looks at what a stream holds.
pub(crate) trait Follow<I> {
    /// The next sound record; `None` where records are missing.
    fn record(
        &mut self,
        inspection: &mut Inspection<'_, I>,
        found: Option<(&Record<'_>, RecordPlace<'_>)>,
    ) -> Result<(), Halt>;

    /// All records of a segment were there: what takes more than a look is done
    /// now.
    async fn segment(
        &mut self,
        inspection: &mut Inspection<'_, I>,
        path: &Path,
    ) -> Result<(), Halt>;
}

/// Follows a stream. Where an opening would find its end, if nothing of what it
/// misses below that were missing.
pub(crate) async fn verify_stream<I: Io>(
    inspection: &mut Inspection<'_, I>,
    check: &StreamCheck<'_>,
    follow: &mut impl Follow<I>,
) -> Result<u64, Halt> {
    let StreamCheck { db, key, segments, start, cut, .. } = *check;
    let seed = stream_seed(db, key.epoch, key.stream);
    let mut walk = Walk::new(seed, key.epoch, start, cut.unwrap_or(u64::MAX));
    let mut missing = Vec::new();
    let mut read_end = start;
    for segment in segments.iter().filter(|segment| segment.end() > start) {
        if cut.is_some_and(|cut| segment.start >= cut) {
            break;
        }
        if segment.start > read_end {
            let reason = format!(
                "no segment has the log from position {read_end} to {}, which this one continues",
                segment.start
            );
            inspection.fault(&segment.path, 0, reason)?;
        }
        read_end = read_end.max(segment.end());
        inspection.counts.wal_segments += 1;
        let Some((file, len)) = inspection.open(&segment.path, "segment").await? else { continue };
        let end = (len / UNIT_U64 * UNIT_U64).clamp(UNIT_U64, UNIT_U64 + segment.capacity);
        let mut bytes = inspection.read_range(&file, UNIT_U64..end).await?;
        if let Some(map) = check.map {
            map.merge(segment, &mut bytes);
        }
        walk.feed(segment.start, &bytes, |step| match step {
            Step::Record(record) => {
                inspection.counts.wal_records += 1;
                let offset = segment.offset(record.header.position);
                follow.record(inspection, Some((&record, (&segment.path, offset))))
            }
            Step::Missing(place) => {
                missing.push(place);
                follow.record(inspection, None)
            }
            Step::Unusable(at, unusable) => {
                follow.record(inspection, None)?;
                inspection.error(unusable.into_error(&segment.path, segment.offset(at)))
            }
        })?;
        follow.segment(inspection, &segment.path).await?;
    }
    let reached = walk.reached();
    let watermark = check.map.filter(|_| check.is_same_boot).map_or(0, |m| m.watermark);
    // A cut is where an earlier opening found the end.
    let durable = reached.mark_max.max(cut.unwrap_or(watermark));
    let mut cut_from = None;
    for place in &missing {
        if place.from < durable {
            check.missing(inspection, place, durable)?;
        } else {
            cut_from = cut_from.or(Some(place.from));
        }
    }
    match cut_from {
        _ if reached.end < durable => {
            check.missing(inspection, &walk.missing_below(durable), durable)?;
        }
        from if cut.is_none() => {
            let sound = from.map_or(0, |from| reached.end - from);
            inspection.counts.torn_bytes += sound + walk.torn_bytes();
        }
        _ => {}
    }
    Ok(cut.or(cut_from).unwrap_or(reached.end))
}

impl StreamCheck<'_> {
    /// Reports records that are missing.
    fn missing<I: Io>(
        &self,
        inspection: &mut Inspection<'_, I>,
        place: &Missing,
        durable: u64,
    ) -> Result<(), Halt> {
        let reason = format!(
            "a log record is missing or damaged; the log was kept up to position {durable}, and \
             is broken at {}",
            place.from
        );
        let mapped = self.map.and_then(|map| map.damaged(self.key, place));
        if let Some((path, offset)) = mapped {
            return inspection.fault(path, offset, reason);
        }
        let at = place.suspect;
        let holds = |segment: &&SegmentFile| (segment.start..segment.end()).contains(&at);
        let ends = |segment: &&SegmentFile| segment.end() == at;
        let found = self.segments.iter().find(holds);
        match found.or_else(|| self.segments.iter().find(ends)).or(self.segments.last()) {
            Some(segment) => {
                let offset = segment.offset(at.clamp(segment.start, segment.end()));
                inspection.fault(&segment.path, offset, reason)
            }
            None => Ok(()),
        }
    }
}

impl MapContent {
    /// As recovery does: the records of the mapping go where they are in the
    /// stream.
    fn merge(&self, segment: &SegmentFile, bytes: &mut [u8]) {
        for (position, records) in self.groups.range(segment.start..segment.end()) {
            let at = (position - segment.start) as usize;
            if let Some(place) = bytes.get_mut(at..at + records.len()) {
                place.copy_from_slice(records);
            }
        }
    }

    /// Where in the mapping what is missing looks to be, if it does more so
    /// than in the segment.
    fn damaged(&self, stream: StreamKey, place: &Missing) -> Option<(&Path, u64)> {
        let expected = [place.from, round_up_u64(place.from)];
        let likely = |(offset, header): &(u64, Vec<u8>)| {
            let unlike = |at: &u64| Unlike::of(header, stream.epoch, *at);
            Some((expected.iter().filter_map(unlike).min()?, *offset))
        };
        let (unlike, offset) = self.ends.iter().filter_map(likely).min()?;
        place.unlike.is_none_or(|other| unlike < other).then_some((&self.path, offset))
    }
}
