//! The log as a salvage reads it: all records that are sound, also behind missing
//! ones, as far as an opening would take them for part of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::base::ids::{FileId, KEYSPACE_DEFAULT, ShardId, StreamId};
use crate::base::ranges::{RangeTombstones, is_before};
use crate::base::seq::{Kind, SeqNo, Tag};
use crate::format::edit::StreamKey;
use crate::format::record::{Record, RecordKind, Unusable, Write};
use crate::io::{File, Halt, Inspection, Io};
use crate::shard::recover::{KnownStream, WAL_DIR};
use crate::shard::salvage::Root;
use crate::shard::salvage::identity::{Damaged, names};
use crate::shard::salvage::report::{Meaning, SharedReporter};
use crate::wal::{
    self, Follow, Log, MapContent, RecordPlace, SegmentFile, StreamCheck, place_segment,
    stream_of_map, verify_files, verify_map, verify_stream,
};

/// What damage to the log means.
const LOG_LOST: &str = "writes in it are lost: keys may be missing or older, deleted ones may come \
                        back";

/// Why damage to a segment's header is none.
const HEADER_SPARED: &str = "nothing is lost by that: its records tell where it belongs";

/// Rows of all shards, in order.
pub(super) type Place = (ShardId, Vec<u8>);

/// The newest versions of some keys in the log.
#[derive(Default)]
pub(super) struct Window {
    pub(super) rows: BTreeMap<Place, (Tag, Vec<u8>)>,
    bytes: usize,
    /// Where the next window starts; `None` when this is the last one.
    pub(super) end: Option<Place>,
}

/// A stream that is needed.
struct Needed {
    key: StreamKey,
    segments: Vec<SegmentFile>,
    start: u64,
    cut: Option<u64>,
    map: Option<MapContent>,
    is_same_boot: bool,
    /// The first and the last write of each shard.
    found: BTreeMap<ShardId, (SeqNo, SeqNo)>,
    /// Writes of a shard from these on are void: a later opening, which did not
    /// find them, gave their numbers to others.
    void: BTreeMap<ShardId, SeqNo>,
}

/// The log of all shards.
pub(super) struct Logs<'a> {
    damaged: &'a Damaged,
    streams: Vec<Needed>,
    /// Of each shard: writes up to here are in tables.
    flushed: Vec<SeqNo>,
    /// Of each shard, known from the first window on.
    ranges: Vec<RangeTombstones>,
    is_read: bool,
    /// Of mappings elsewhere.
    _map_locks: Vec<File>,
}

impl Needed {
    fn check<'a>(&'a self, damaged: &Damaged) -> StreamCheck<'a> {
        StreamCheck {
            db: damaged.db,
            key: self.key,
            segments: &self.segments,
            start: self.start,
            cut: self.cut,
            map: self.map.as_ref(),
            is_same_boot: self.is_same_boot,
        }
    }
}

impl<'a> Logs<'a> {
    /// Finds what of the log is needed, where it ends, and what it misses.
    pub(super) async fn survey<I: Io>(
        inspection: &mut Inspection<'_, I>,
        damaged: &'a Damaged,
        root: &Root,
        flushed: Vec<SeqNo>,
        reporter: &SharedReporter<'_>,
    ) -> Result<Self, Halt> {
        let wal_dir = damaged.dir.join(WAL_DIR);
        let mut log = Log::default();
        if names(inspection.io, &wal_dir).await?.is_some() {
            log = find_files(inspection, damaged, &wal_dir, reporter).await?;
        } else if root.epoch.is_some() {
            let reason = format!("the log's directory is missing; {LOG_LOST}");
            reporter.borrow_mut().lost(&wal_dir, 0, reason, None)?;
        }
        reporter.borrow_mut().faults_mean(Meaning::Lost(LOG_LOST));
        for dir in root.state.map_dirs.iter().filter(|dir| Some(dir.place) == damaged.place) {
            match wal::list_elsewhere(inspection.io, damaged.db, dir).await {
                Ok((more, _)) => log.maps.extend(more),
                // Nothing there was needed any more.
                Err(_) if root.is_sound && root.state.is_clean => {}
                Err(error) => {
                    let reason = format!("mappings of the log may be there ({error}); {LOG_LOST}");
                    reporter.borrow_mut().lost(Path::new(&dir.path), 0, reason, None)?;
                }
            }
        }
        let mut map_locks = Vec::new();
        let mut known = root.state.streams.clone();
        let mut streams = Vec::new();
        let mut maps = unstated_maps(inspection, damaged, root, &log).await?;
        let mut is_root_sound = root.is_sound;
        let forgot = |path: &Path| {
            format!(
                "the manifest's last edits are missing: it does not know {}, which has records in \
                 it; {}",
                path.display(),
                super::ROOT_LOST
            )
        };
        if is_root_sound && let Some(map) = maps.values().next() {
            reporter.borrow_mut().lost(&root.path, 0, forgot(map.path()), None)?;
            is_root_sound = false;
        }
        for (key, segments) in log.streams {
            let first = segments.first().map_or(0, |segment| segment.start);
            let stated = known.remove(&key);
            let mut needed = Needed {
                key,
                segments,
                start: first,
                cut: None,
                map: None,
                is_same_boot: false,
                found: BTreeMap::new(),
                void: BTreeMap::new(),
            };
            let is_stated = stated.is_some();
            if let Some(stated) = stated {
                if is_root_sound && stated.is_freed() {
                    continue;
                }
                needed.cut = stated.cut;
                if is_root_sound {
                    needed.start = stated.start;
                }
                // A close leaves nothing in mappings that is not in segments.
                if !(root.state.is_clean && Some(key.epoch) == root.epoch) {
                    (needed.map, needed.is_same_boot) =
                        stated_map(inspection, damaged, key, &stated, &mut map_locks).await?;
                }
            } else if is_root_sound && root.epoch.is_some_and(|last| key.epoch < last) {
                // It was freed.
                continue;
            }
            if needed.map.is_none() {
                needed.map = maps.remove(&key);
            }
            let records = needed.follow(inspection, damaged).await?;
            if is_root_sound && !is_stated {
                // An opening that ended before it wrote anything.
                if records == 0 {
                    continue;
                }
                let reason = forgot(&needed.segments[0].path);
                reporter.borrow_mut().lost(&root.path, 0, reason, None)?;
            }
            streams.push(needed);
        }
        for (key, _) in known.iter().filter(|(_, known)| !known.is_freed()) {
            let reason = format!("the segments of {key} are missing; {LOG_LOST}");
            reporter.borrow_mut().lost(&wal_dir, 0, reason, None)?;
        }
        find_void(&mut streams);
        for (shard, first, last) in find_missing(&streams, &flushed) {
            let reason = format!(
                "writes {first} to {last} of shard {shard} are neither in tables nor in the log; \
                 {LOG_LOST}"
            );
            reporter.borrow_mut().lost(&wal_dir, 0, reason, None)?;
        }
        let ranges = vec![RangeTombstones::default(); damaged.shards];
        Ok(Self { damaged, streams, flushed, ranges, is_read: false, _map_locks: map_locks })
    }

    /// The range tombstones of a shard; to be asked for after the first window.
    pub(super) fn ranges(&self, shard: ShardId) -> &RangeTombstones {
        assert!(self.is_read, "they are found with the first window");
        &self.ranges[usize::from(shard)]
    }

    /// The newest versions of the keys from `from` on, of as many as there is room
    /// for.
    pub(super) async fn window<I: Io>(
        &mut self,
        inspection: &mut Inspection<'_, I>,
        from: &Place,
        bytes_max: usize,
        reporter: &SharedReporter<'_>,
    ) -> Result<Window, Halt> {
        reporter.borrow_mut().faults_mean(Meaning::Silent);
        let mut window = Window::default();
        for stream in &self.streams {
            let ranges = (!self.is_read).then_some(&mut self.ranges);
            let (flushed, void) = (&self.flushed, &stream.void);
            let mut collect =
                Collect { from, bytes_max, window: &mut window, flushed, void, ranges };
            verify_stream(inspection, &stream.check(self.damaged), &mut collect).await?;
        }
        self.is_read = true;
        Ok(window)
    }
}

/// The files of the log. Segments whose headers are damaged are told by their
/// records.
async fn find_files<I: Io>(
    inspection: &mut Inspection<'_, I>,
    damaged: &Damaged,
    wal_dir: &Path,
    reporter: &SharedReporter<'_>,
) -> Result<Log, Halt> {
    reporter.borrow_mut().faults_mean(Meaning::Held);
    let mut log = verify_files(inspection, wal_dir, damaged.db).await?;
    reporter.borrow_mut().faults_mean(Meaning::Silent);
    let mut placed = Vec::new();
    for path in &log.headless {
        // There are no more owners than shards.
        let streams = 0..damaged.shards as StreamId;
        if let Some((key, segment)) = place_segment(inspection, path, damaged.db, streams).await? {
            let segments = log.streams.entry(key).or_default();
            segments.push(segment);
            segments.sort_by_key(|segment| segment.start);
            placed.push(path);
        }
    }
    let is_placed = |path: &Path| placed.iter().any(|placed| **placed == *path);
    reporter.borrow_mut().judge(LOG_LOST, HEADER_SPARED, is_placed)?;
    Ok(log)
}

/// The mapping of a stream, as the root manifest states it, and whether it is of this
/// boot of the machine.
async fn stated_map<I: Io>(
    inspection: &mut Inspection<'_, I>,
    damaged: &Damaged,
    key: StreamKey,
    stated: &KnownStream,
    locks: &mut Vec<File>,
) -> Result<(Option<MapContent>, bool), Halt> {
    let Some(place) = &stated.map else { return Ok((None, false)) };
    let path = wal::map_path(&damaged.dir.join(WAL_DIR), damaged.db, place);
    let is_same_boot = inspection.io.boot_id()? == place.boot;
    let may_be_gone = place.dir.is_some() && !is_same_boot;
    if place.dir.as_ref().is_some_and(|dir| Some(dir.place) != damaged.place) {
        locks.extend(wal::lock_map_to_read(inspection.io, &path).await?);
    }
    let map = verify_map(inspection, &path, (damaged.db, place.id, key), may_be_gone).await?;
    Ok((map, is_same_boot))
}

/// The mappings in the log's directory that the root manifest does not name, by what
/// they say of themselves. Where that is sound, only those of its own opening that were
/// used: it was told of them before.
async fn unstated_maps<I: Io>(
    inspection: &mut Inspection<'_, I>,
    damaged: &Damaged,
    root: &Root,
    log: &Log,
) -> Result<BTreeMap<StreamKey, MapContent>, Halt> {
    let stated = root.state.streams.values().filter_map(|stream| stream.map.as_ref());
    let stated: BTreeSet<FileId> = stated.map(|place| place.id).collect();
    let mut maps = BTreeMap::new();
    for (id, path) in log.maps.iter().filter(|(id, _)| !stated.contains(id)) {
        let key = stream_of_map(inspection, path, damaged.db, *id).await?;
        let may_count = |key: &StreamKey| !root.is_sound || Some(key.epoch) == root.epoch;
        let Some(key) = key.filter(may_count) else { continue };
        let map = verify_map(inspection, path, (damaged.db, *id, key), true).await?;
        if let Some(map) = map.filter(|map| !root.is_sound || map.is_used()) {
            maps.insert(key, map);
        }
    }
    Ok(maps)
}

/// Finds which writes are void: an opening goes on where it found the end of what
/// came before, so numbers that it has, too, are those of writes that it did not
/// find.
fn find_void(streams: &mut [Needed]) {
    let mut later = BTreeMap::<ShardId, SeqNo>::new();
    streams.sort_by_key(|stream| stream.key);
    for stream in streams.iter_mut().rev() {
        stream.void = later.clone();
        for (&shard, &(first, _)) in &stream.found {
            let known = later.entry(shard).or_insert(first);
            *known = first.min(*known);
        }
    }
}

/// The numbers that no stream has and that are beyond those in tables, the first and the
/// last of each gap: an opening goes on with the one behind the last that it found. Gaps
/// within a stream show in its damage.
fn find_missing(streams: &[Needed], flushed: &[SeqNo]) -> Vec<(ShardId, SeqNo, SeqNo)> {
    let mut next: Vec<SeqNo> = flushed.iter().map(|flushed| flushed + 1).collect();
    let mut missing = Vec::new();
    for stream in streams {
        for (&shard, &(first, last)) in &stream.found {
            let next = &mut next[usize::from(shard)];
            let void = stream.void.get(&shard).copied().unwrap_or(SeqNo::MAX);
            let (first, end) = (first.min(void), (last + 1).min(void));
            if first > *next {
                missing.push((shard, *next, first - 1));
            }
            *next = end.max(*next);
        }
    }
    missing
}

impl Needed {
    /// Follows the stream to its end, which is known from then on. How many records
    /// there are.
    async fn follow<I: Io>(
        &mut self,
        inspection: &mut Inspection<'_, I>,
        damaged: &Damaged,
    ) -> Result<u64, Halt> {
        let mut survey = Survey { shards: damaged.shards, found: BTreeMap::new(), records: 0 };
        let end = verify_stream(inspection, &self.check(damaged), &mut survey).await?;
        self.cut = Some(end);
        self.found = survey.found;
        Ok(survey.records)
    }
}

/// Looks at what a stream has.
struct Survey {
    shards: usize,
    found: BTreeMap<ShardId, (SeqNo, SeqNo)>,
    records: u64,
}

impl<I: Io> Follow<I> for Survey {
    fn record(
        &mut self,
        inspection: &mut Inspection<'_, I>,
        found: Option<(&Record<'_>, RecordPlace<'_>)>,
    ) -> Result<(), Halt> {
        let Some((record, (path, offset))) = found else { return Ok(()) };
        self.records += 1;
        if record.header.kind != RecordKind::Write {
            return Ok(());
        }
        let looked = record.for_each_write(|write: Write<'_>| {
            if write.keyspace != KEYSPACE_DEFAULT {
                return Err(Unusable::Newer(format!("a write to keyspace {}", write.keyspace)));
            }
            if usize::from(write.shard) >= self.shards {
                return Err(Unusable::malformed("a write to a shard there is not"));
            }
            let (first, last) = self.found.entry(write.shard).or_insert((write.seq, write.seq));
            *first = write.seq.min(*first);
            *last = write.seq.max(*last);
            Ok(())
        });
        match looked {
            Ok(()) => Ok(()),
            Err(unusable) => inspection.error(unusable.into_error(path, offset)),
        }
    }

    async fn segment(&mut self, _: &mut Inspection<'_, I>, _: &Path) -> Result<(), Halt> {
        Ok(())
    }
}

/// Collects what a stream has for a window.
struct Collect<'a> {
    from: &'a Place,
    bytes_max: usize,
    window: &'a mut Window,
    flushed: &'a [SeqNo],
    void: &'a BTreeMap<ShardId, SeqNo>,
    /// Where range tombstones go, the first time.
    ranges: Option<&'a mut Vec<RangeTombstones>>,
}

impl<I: Io> Follow<I> for Collect<'_> {
    fn record(
        &mut self,
        _: &mut Inspection<'_, I>,
        found: Option<(&Record<'_>, RecordPlace<'_>)>,
    ) -> Result<(), Halt> {
        let Some((record, _)) = found else { return Ok(()) };
        if record.header.kind == RecordKind::Write {
            // Of one that makes no sense, which was told, what comes before that counts.
            let _: Result<(), Unusable> = record.for_each_write(|write: Write<'_>| {
                self.write(&write);
                Ok(())
            });
        }
        Ok(())
    }

    async fn segment(&mut self, _: &mut Inspection<'_, I>, _: &Path) -> Result<(), Halt> {
        Ok(())
    }
}

/// What a row takes in a window besides its bytes, about.
const ROW_BYTES: usize = 128;

impl Collect<'_> {
    fn write(&mut self, write: &Write<'_>) {
        let shard = usize::from(write.shard);
        let is_void = self.void.get(&write.shard).is_some_and(|&void| write.seq >= void);
        let is_in_tables = self.flushed.get(shard).is_none_or(|&flushed| write.seq <= flushed);
        if is_void || is_in_tables || write.keyspace != KEYSPACE_DEFAULT {
            return;
        }
        if write.kind == Kind::RangeDelete {
            if let Some(ranges) = &mut self.ranges
                && is_before(write.key, write.value)
            {
                ranges[shard].insert(write.key, write.value, write.seq);
            }
            return;
        }
        let place = (write.shard, write.key.to_vec());
        let window = &mut *self.window;
        if place < *self.from || window.end.as_ref().is_some_and(|end| place >= *end) {
            return;
        }
        let tag = Tag::new(write.seq, write.kind);
        if window.rows.get(&place).is_some_and(|(newest, _)| *newest >= tag) {
            return;
        }
        window.bytes += ROW_BYTES + write.key.len() + write.value.len();
        if let Some((_, old)) = window.rows.insert(place, (tag, write.value.to_vec())) {
            window.bytes -= ROW_BYTES + write.key.len() + old.len();
        }
        while window.bytes > self.bytes_max && window.rows.len() > 1 {
            if let Some((place, (_, value))) = window.rows.pop_last() {
                window.bytes -= ROW_BYTES + place.1.len() + value.len();
                window.end = Some(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams of one shard, by their first and last writes.
    fn missing(flushed: SeqNo, found: &[(SeqNo, SeqNo)]) -> Vec<(SeqNo, SeqNo)> {
        let stream = |(epoch, &found): (u32, &(SeqNo, SeqNo))| Needed {
            key: StreamKey { epoch, stream: 0 },
            segments: Vec::new(),
            start: 0,
            cut: None,
            map: None,
            is_same_boot: false,
            found: BTreeMap::from([(0, found)]),
            void: BTreeMap::new(),
        };
        let mut streams: Vec<Needed> = (1..).zip(found).map(stream).collect();
        find_void(&mut streams);
        find_missing(&streams, &[flushed])
            .into_iter()
            .map(|(_, first, last)| (first, last))
            .collect()
    }

    #[test]
    fn numbers_that_nothing_has_are_missing() {
        assert_eq!(missing(9, &[(4, 20), (21, 30)]), []);
        assert_eq!(missing(9, &[(10, 20), (21, 30)]), []);
        assert_eq!(missing(9, &[(12, 20), (24, 30)]), [(10, 11), (21, 23)]);
        // The second opening did not find what the first wrote last.
        assert_eq!(missing(0, &[(1, 20), (16, 18)]), []);
        assert_eq!(missing(0, &[(1, 20), (16, 18), (22, 23)]), [(19, 21)]);
        assert_eq!(missing(9, &[(16, 20), (10, 14)]), []);
    }
}
