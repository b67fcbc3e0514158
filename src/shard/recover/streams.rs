//! Opening: the streams of earlier openings, from the root manifest to memtables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::base::ids::{Epoch, FileId, KEYSPACE_DEFAULT, ShardId};
use crate::base::planted::{Bug, planted};
use crate::base::seq::SeqNo;
use crate::format::edit::{Edit, MapDir, MapPlace, StreamKey};
use crate::format::record::{Record, RecordKind, Unusable};
use crate::io::{File, Io};
use crate::shard::engine::OldStream;
use crate::shard::recover::shards::Recovering;
use crate::shard::recover::{OLD_STREAMS_MAX, Recovery, WAL_DIR};
use crate::wal::{self, Found, FoundStream, Segment, Stop};

/// What the root manifest knows of a stream.
#[derive(Clone, Debug, Default)]
pub(in crate::shard) struct KnownStream {
    pub(in crate::shard) start: u64,
    pub(in crate::shard) cut: Option<u64>,
    pub(in crate::shard) map: Option<MapPlace>,
}

impl KnownStream {
    /// Freed, or recycled and never used again: not needed.
    pub(in crate::shard) fn is_freed(&self) -> bool {
        self.cut == Some(self.start)
    }
}

/// What the root manifest says.
#[derive(Default)]
pub(in crate::shard) struct RootState {
    pub(in crate::shard) streams: BTreeMap<StreamKey, KnownStream>,
    /// The highest flushed number that was ever stated for a shard.
    pub(in crate::shard) flushed: BTreeMap<ShardId, SeqNo>,
    /// Where mappings may be, of the opening that made the manifest and of earlier ones.
    pub(in crate::shard) map_dirs: Vec<MapDir>,
    /// The opening that made the manifest was closed.
    pub(in crate::shard) is_clean: bool,
}

impl RootState {
    pub(super) fn new(edits: &[Edit], path: &Path) -> Result<Self> {
        let mut this = Self::default();
        edits.iter().try_for_each(|edit| this.apply(edit, path, 0))?;
        Ok(this)
    }

    /// Takes in one edit, of the record at `offset`.
    pub(in crate::shard) fn apply(&mut self, edit: &Edit, path: &Path, offset: u64) -> Result<()> {
        match edit {
            Edit::StreamStart { stream, start, flushed } => {
                self.streams.entry(*stream).or_default().start = *start;
                for (shard, seq) in flushed {
                    let known = self.flushed.entry(*shard).or_default();
                    *known = (*known).max(*seq);
                }
            }
            Edit::StreamCut { stream, cut } => {
                self.streams.entry(*stream).or_default().cut = Some(*cut);
            }
            Edit::StreamMap { stream, map } => {
                self.streams.entry(*stream).or_default().map = Some(map.clone());
            }
            Edit::MapDir(dir) if self.map_dirs.contains(dir) => {}
            Edit::MapDir(dir) => self.map_dirs.push(dir.clone()),
            Edit::StreamFreed { stream } => drop(self.streams.remove(stream)),
            Edit::Keyspace { id, .. } if *id == KEYSPACE_DEFAULT => {}
            Edit::Keyspace { id, name } => {
                let reason = format!(
                    "the database has a keyspace {name} ({id}), and this version knows only the \
                     default one; use a newer ouro"
                );
                return Err(Error::unsupported_at(path, offset, reason));
            }
            Edit::Clean => self.is_clean = true,
            Edit::Table { .. }
            | Edit::TableRemoved { .. }
            | Edit::Flushed { .. }
            | Edit::ValueFile { .. }
            | Edit::ValuesDropped { .. }
            | Edit::ValuesReclaimed { .. } => {
                let reason = "a root manifest holds a shard's edit";
                return Err(Error::corruption(path, offset, reason));
            }
        }
        Ok(())
    }
}

/// A stream of an earlier opening.
pub(super) struct Old {
    pub(super) stream: FoundStream,
    /// Of its mapping.
    _map_lock: Option<File>,
    pub(super) known: KnownStream,
}

impl<I: Io> Recovery<'_, I> {
    /// Pairs the streams on disk with what the root manifest knows of them.
    pub(super) async fn match_streams(
        &self,
        found: Found,
        root: &RootState,
        last_epoch: Epoch,
        orphans: &mut Vec<PathBuf>,
    ) -> Result<Vec<Old>> {
        let mut known = root.streams.clone();
        let mut old = Vec::new();
        // All that the root manifest does not name, once those of streams are out.
        let mut maps = found.maps;
        for mut stream in found.streams {
            let mut found_known = known.remove(&stream.key);
            if planted(Bug::OldEpochReplayed)
                && stream.key.epoch < last_epoch
                && found_known.as_ref().is_none_or(KnownStream::is_freed)
            {
                let start = stream.segments.first().map_or(0, |first| first.start);
                found_known = Some(KnownStream { start, ..KnownStream::default() });
            }
            match found_known {
                Some(known) if known.is_freed() => orphans.extend(stream.paths()),
                Some(known) => {
                    let mut map_lock = None;
                    if let Some(place) = &known.map {
                        // A close leaves nothing in mappings that is not durable in segments.
                        if !root.is_clean || stream.key.epoch != last_epoch {
                            map_lock = self.read_map(&mut stream, place).await?;
                        }
                        // That of another directory is needed there.
                        if place.dir.as_ref().is_none_or(|dir| dir.place == self.opening.place) {
                            let log_dir = self.opening.dir.join(WAL_DIR);
                            orphans.push(wal::map_path(&log_dir, self.identity.db, place));
                        }
                        maps.remove(&place.id);
                    }
                    old.push(Old { stream, _map_lock: map_lock, known });
                }
                None => self.check_unknown(stream, last_epoch, orphans).await?,
            }
        }
        // Of openings that ended before they used them, or of freed streams.
        for (id, path) in maps {
            if !root.is_clean {
                self.check_unknown_map(id, &path, last_epoch).await?;
            }
            orphans.push(path);
        }
        if let Some((key, _)) = known.iter().find(|(_, known)| !known.is_freed()) {
            let path = self.opening.dir.join(WAL_DIR);
            let (stream, epoch) = (key.stream, key.epoch);
            let reason = format!("the segments of stream {stream} of opening {epoch} are missing");
            return Err(Error::corruption(&path, 0, reason));
        }
        Ok(old)
    }

    /// A stream the root manifest does not know was made by an opening that
    /// ended before it wrote a record; or it was freed by a later one, and its files
    /// came back. If one of the last opening has records, the manifest has lost an edit.
    async fn check_unknown(
        &self,
        stream: FoundStream,
        last_epoch: Epoch,
        orphans: &mut Vec<PathBuf>,
    ) -> Result<()> {
        let key = stream.key;
        let Some(first) = stream.segments.first() else {
            return Ok(());
        };
        let path = first.file.path().to_owned();
        if key.epoch > last_epoch {
            let reason = format!(
                "the segment is of opening {}, and the root manifest knows {last_epoch} openings",
                key.epoch
            );
            return Err(Error::corruption(&path, 0, reason));
        }
        let pool = &self.opening.pool;
        if key.epoch == last_epoch && stream.has_records(self.io, pool, self.identity.db).await? {
            return Err(self.not_known(&path));
        }
        orphans.extend(stream.paths());
        Ok(())
    }

    /// The root manifest lacks what must have been in it: a segment or mapping, in which are
    /// records.
    pub(super) fn not_known(&self, file: &Path) -> Error {
        let (root, end) = &self.root_end;
        let reason = format!(
            "the root manifest does not know {}, which has records in it: its last edits are \
             missing; restore the manifest from a copy",
            file.display()
        );
        Error::corruption(root, *end, reason)
    }

    /// Follows every stream to its end, and makes durable what it holds. From then on
    /// no mapping is needed.
    pub(super) async fn find_ends(&self, streams: &[Old]) -> Result<Vec<u64>> {
        let mut ends = Vec::with_capacity(streams.len());
        for Old { stream, known, .. } in streams {
            let mut reader = stream.reader(self.identity.db, known.start, known.cut);
            while reader.next_segment(self.io, &self.opening.pool, |_| Ok(())).await? {}
            ends.push(reader.finish()?);
        }
        for (Old { stream, .. }, found) in streams.iter().zip(&ends) {
            stream.harden(self.io, &self.opening.pool, *found).await?;
        }
        // Of a segment whose making failed the name may be there, and not be durable.
        self.io.sync_dir(&self.opening.dir.join(WAL_DIR)).await?;
        Ok(ends.into_iter().map(|found| found.end).collect())
    }

    /// Replays the streams, in the order of their epochs, into memtables.
    pub(super) async fn replay(
        &self,
        streams: &[Old],
        ends: &[u64],
        shards: &mut [Recovering],
        new_id: &impl Fn() -> FileId,
    ) -> Result<Vec<OldStream>> {
        let mut old_streams = Vec::with_capacity(streams.len());
        for (Old { stream, known, .. }, end) in streams.iter().zip(ends) {
            let mut needed = BTreeMap::new();
            let mut reader = stream.reader(self.identity.db, known.start, Some(*end));
            let pool = &self.opening.pool;
            loop {
                let more = reader
                    .next_segment(self.io, pool, |record| self.apply(record, shards, &mut needed))
                    .await?;
                if !more {
                    break;
                }
                for shard in &mut *shards {
                    while shard.state.view.frozen.len() > self.limits.frozen_max {
                        self.flush_oldest(shard, new_id).await?;
                    }
                }
            }
            reader.finish()?;
            old_streams.push(OldStream {
                key: stream.key,
                start: known.start,
                cut: *end,
                paths: stream.paths().collect(),
                needed: needed.into_iter().collect(),
            });
        }
        // Short openings never fill a memtable: each would add its log to what
        // the next one has to read, and to keep open while it does.
        let segments = streams.iter().flat_map(|old| &old.stream.segments);
        let log_bytes: u64 = segments.map(Segment::file_bytes).sum();
        let is_much = streams.len() > OLD_STREAMS_MAX || log_bytes > self.limits.wal_bytes_max;
        for shard in shards {
            if is_much && !shard.state.mutable.is_empty() {
                shard.state.rotate(&self.opening.arenas);
            }
            while is_much && !shard.state.view.frozen.is_empty() {
                self.flush_oldest(shard, new_id).await?;
            }
            let last = shard.state.next_seq - 1;
            shard.state.published = crate::shard::clock::Published::new(last);
        }
        Ok(old_streams)
    }

    /// Applies a record of the log.
    fn apply(
        &self,
        record: &Record<'_>,
        shards: &mut [Recovering],
        needed: &mut BTreeMap<ShardId, SeqNo>,
    ) -> Result<(), Stop> {
        if record.header.kind != RecordKind::Write {
            return Ok(());
        }
        record.for_each_write(|write| {
            if write.keyspace != KEYSPACE_DEFAULT {
                let what = format!("a write to keyspace {}", write.keyspace);
                return Err(Stop::Unusable(Unusable::Newer(what)));
            }
            let shard = shards.get_mut(usize::from(write.shard)).ok_or_else(|| {
                Stop::Unusable(Unusable::malformed("a write to a shard there is not"))
            })?;
            let last = needed.entry(write.shard).or_default();
            *last = (*last).max(write.seq);
            shard.apply(&write, &self.limits, &self.opening.arenas)
        })
    }
}
