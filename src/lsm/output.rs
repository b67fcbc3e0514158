//! New tables: where they go, and writing them one after the other.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::error::{ErrorKind, Result};
use crate::base::hash::{KeyHash, KeyHasher};
use crate::base::ids::{DbId, Epoch, FileId, ShardId};
use crate::base::limits::KEY_BYTES_MAX;
use crate::base::planted::{Bug, planted};
use crate::base::ranges::{Fragment, RangeTombstones, is_before, successor};
use crate::base::seq::{Kind, Tag};
use crate::base::sync::atomic::{AtomicU32, Ordering};
use crate::io::{BufferPool, File, Io, OpenMode};
use crate::lsm::hidden::Hidden;
use crate::lsm::levels::Older;
use crate::sst::{Compression, NewTable, Pins, Spare, Table, TableMeta, TableWriter};

/// File ids that were set aside for one job.
#[derive(Clone)]
pub(crate) struct FileIds {
    epoch: Epoch,
    first: u32,
    count: u32,
    /// How many of them the job has used. Shared with who began the job, so
    /// that it can remove what the job leaves behind.
    used: Arc<AtomicU32>,
}

impl FileIds {
    /// `count` ids from (epoch, first) on.
    pub(crate) fn new(epoch: Epoch, first: u32, count: u32) -> Self {
        assert!(count > 0 && first.checked_add(count).is_some(), "four billion files");
        Self { epoch, first, count, used: Arc::default() }
    }

    /// This one.
    pub(crate) fn one(id: FileId) -> Self {
        Self::new(id.epoch(), id.counter(), 1)
    }

    /// `None` when all are used.
    fn next(&self) -> Option<FileId> {
        // One thread at a time has the job.
        let used = self.used.load(Ordering::Relaxed);
        (used < self.count).then(|| {
            self.used.store(used + 1, Ordering::Relaxed);
            FileId::new(self.epoch, self.first + used)
        })
    }

    /// Whether there are more than so many left.
    fn has_more_than(&self, reserved: u32) -> bool {
        self.count - self.used.load(Ordering::Relaxed) > reserved
    }
}

/// Where new tables of one job go, and what they are like.
#[derive(Clone)]
pub(crate) struct TablePlace {
    pub(crate) dir: PathBuf,
    pub(crate) db: DbId,
    pub(crate) shard: ShardId,
    pub(crate) ids: FileIds,
    pub(crate) pool: Arc<BufferPool>,
    pub(crate) compression: Compression,
    /// A table ends behind the key with which its data reach so many bytes.
    pub(crate) table_bytes: u64,
    /// Memory for partitions that stay there.
    pub(crate) pins: Arc<Pins>,
    /// Files that the first tables are written over.
    pub(crate) spares: Arc<[Spare]>,
}

/// The file of a new table.
pub(crate) struct NewFile {
    pub(crate) id: FileId,
    pub(crate) path: PathBuf,
    /// The one that is to become it.
    spare: Option<PathBuf>,
}

impl TablePlace {
    fn path(&self, id: FileId) -> PathBuf {
        self.dir.join(format!("{id}.sst"))
    }

    /// The next file that the job begins; `None` when it has used all its ids.
    pub(crate) fn new_file(&self) -> Option<NewFile> {
        self.ids.next().map(|id| {
            let spare = self.spares.get((id.counter() - self.ids.first) as usize);
            let spare = spare.map(|spare| spare.path.clone());
            NewFile { id, path: self.path(id), spare }
        })
    }

    /// The files that the job has begun.
    fn begun(&self) -> impl Iterator<Item = PathBuf> {
        let FileIds { epoch, first, .. } = self.ids;
        let used = self.ids.used.load(Ordering::Relaxed);
        (first..first + used).map(move |counter| self.path(FileId::new(epoch, counter)))
    }

    /// The files that a job that failed leaves behind, as far as they are there:
    /// those it has begun, and those it would have written over. It may still be
    /// about to begin one of these, so that they are not for anybody else.
    pub(crate) fn left_behind(&self) -> impl Iterator<Item = PathBuf> {
        self.begun().chain(self.spares.iter().map(|spare| spare.path.clone()))
    }

    /// How many of its tables a job has written over the files of others.
    pub(crate) fn files_reused(&self) -> u64 {
        (self.ids.used.load(Ordering::Relaxed) as usize).min(self.spares.len()) as u64
    }

    /// The files that a job that is through had no use for.
    pub(crate) fn unused_spares(&self) -> Vec<Spare> {
        let used = self.ids.used.load(Ordering::Relaxed) as usize;
        self.spares.get(used..).unwrap_or_default().to_vec()
    }
}

/// A table that a job made.
pub(crate) struct Made {
    pub(crate) table: Arc<Table>,
    /// Those of its blocks that the cache is to have: at least half of their entries were in use
    /// there, in the tables that they come from.
    pub(crate) hot: Vec<u32>,
}

/// Writes sorted entries to as many tables as they take, and range tombstones
/// beside them: what crosses the end of a table is cut in two behind its last key.
pub(super) struct Outputs<'a, I: Io> {
    io: &'a I,
    place: &'a TablePlace,
    hasher: &'a KeyHasher,
    /// Range tombstones that are in no table yet.
    ranges: VecDeque<Fragment>,
    reserved: u32,
    written_s: u64,
    current: Option<(File, TableWriter<'a, I>)>,
    /// What is older than the new tables.
    older: &'a Older,
    /// What entries of the current table hide of that.
    hidden: Hidden,
    made: Vec<(File, TableMeta, Vec<u32>)>,
}

impl<'a, I: Io> Outputs<'a, I> {
    /// The tables are newer than `older`. `written_s` is when the newest entry was first
    /// written to a table, in seconds since 1970. So many of the ids are reserved for
    /// tables that end where the caller says.
    pub(super) fn new(
        io: &'a I,
        place: &'a TablePlace,
        hasher: &'a KeyHasher,
        ranges: &RangeTombstones,
        older: &'a Older,
        written_s: u64,
        reserved: usize,
    ) -> Self {
        let reserved = u32::try_from(reserved).expect("so many ids were set aside");
        Self {
            io,
            place,
            hasher,
            ranges: ranges.fragments().to_vec().into(),
            reserved,
            written_s,
            current: None,
            older,
            hidden: Hidden::default(),
            made: Vec::new(),
        }
    }

    /// Whether a table may end behind what was added, as far as its length
    /// goes.
    fn is_full(&self) -> bool {
        let full = |(_, writer): &(File, TableWriter<'_, I>)| {
            writer.data_bytes() >= self.place.table_bytes
        };
        self.place.ids.has_more_than(self.reserved) && self.current.as_ref().is_some_and(full)
    }

    /// Adds an entry, which sorts after the one before. `is_hot` if it was in use in
    /// the cache.
    pub(super) async fn add(
        &mut self,
        key: &[u8],
        tag: Tag,
        value: &[u8],
        hash: KeyHash,
        is_hot: bool,
    ) -> Result<()> {
        // All versions of a key are in one table.
        if self.is_full() && !self.ends_with(key) {
            self.end_table_here().await?;
        }
        if self.current.is_none() {
            self.current = Some(self.begin_table().await?);
        }
        let (_, writer) = self.current.as_mut().expect("it was begun");
        writer.add(key, tag, value, hash).await?;
        if is_hot {
            writer.note_hot();
        }
        Ok(())
    }

    /// Looks for the key that was added last in older tables. It stands for so
    /// many entries.
    pub(super) async fn ask_older(&mut self, key: &[u8], hash: KeyHash, entries: u64) {
        self.hidden.ask(self.io, self.older, key, hash, entries).await;
    }

    /// Whether the entry added last to the current table has this key.
    pub(super) fn ends_with(&self, key: &[u8]) -> bool {
        self.current.as_ref().and_then(|(_, writer)| writer.last_key()) == Some(key)
    }

    /// The file of the next table, and how many bytes it already has.
    async fn begin_file(&self, new: &NewFile) -> Result<(File, u64)> {
        if let Some(spare) = &new.spare {
            self.io.rename(spare, &new.path).await?;
            match self.io.open(&new.path, OpenMode::Reuse).await {
                Ok(file) => {
                    let bytes = self.io.len(&file).await?;
                    return Ok((file, bytes));
                }
                // Somebody keeps what it holds under another name.
                Err(error) if error.kind() == ErrorKind::Busy => self.io.remove(&new.path).await?,
                Err(error) => return Err(error),
            }
        }
        Ok((self.io.open(&new.path, OpenMode::CreateNew).await?, 0))
    }

    async fn begin_table(&self) -> Result<(File, TableWriter<'a, I>)> {
        let place = self.place;
        let file = place.new_file().expect("a table ends only while there are ids");
        let id = file.id;
        let (file, old_bytes) = self.begin_file(&file).await?;
        let mut table_id = [0; 16];
        self.io.random(&mut table_id);
        let new = NewTable {
            db: place.db,
            id,
            table_id,
            shard: place.shard,
            compression: place.compression,
            written_s: self.written_s,
        };
        Ok((file.clone(), TableWriter::new(self.io, file, old_bytes, new, &place.pool)))
    }

    /// Ends the current table before it is full. The next entry has another
    /// key.
    pub(super) async fn end_table_early(&mut self) -> Result<()> {
        if self.place.ids.has_more_than(self.reserved) {
            self.end_table_here().await
        } else {
            Ok(())
        }
    }

    /// Ends the current table, if there is one, behind its last key.
    async fn end_table_here(&mut self) -> Result<()> {
        let Some(last) = self.current.as_ref().and_then(|(_, writer)| writer.last_key()) else {
            return Ok(());
        };
        let at = self.ranges.partition_point(|fragment| !is_before(last, &fragment.end));
        let mut taken = Vec::new();
        if let Some(crossing) = self.ranges.get_mut(at).filter(|f| *f.start <= *last) {
            // The rest would start with a key that the first part reaches to, too.
            if last.len() == KEY_BYTES_MAX {
                return Ok(());
            }
            let end: Arc<[u8]> = successor(last).expect("a short key").into();
            taken.push(Fragment { end: Arc::clone(&end), ..crossing.clone() });
            crossing.start = end;
            if crossing.start == crossing.end {
                self.ranges.remove(at);
            }
        }
        let taken = self.ranges.drain(..at).chain(taken).collect();
        self.end_table(taken).await
    }

    /// Ends the current table with all range tombstones before `key`, to which
    /// none reaches; also when they are all there is. One of the ids that are
    /// reserved for this may be used for the next.
    pub(super) async fn end_table_before(&mut self, key: &[u8]) -> Result<()> {
        let at = self.ranges.partition_point(|fragment| *fragment.start < *key);
        let taken = self.ranges.drain(..at).collect();
        self.end_table(taken).await
    }

    /// Ends the current table, with these range tombstones.
    async fn end_table(&mut self, ranges: Vec<Fragment>) -> Result<()> {
        let hidden = std::mem::take(&mut self.hidden).estimate();
        if let Some(first) = ranges.first().filter(|_| self.current.is_none()) {
            // A table has at least one entry. This one says nothing new.
            let (file, mut writer) = self.begin_table().await?;
            let tag = Tag::new(first.newest(), Kind::Delete);
            writer.add(&first.start, tag, &[], self.hasher.hash(&first.start)).await?;
            self.current = Some((file, writer));
        }
        if let Some((file, writer)) = self.current.take() {
            let ranges = RangeTombstones::new(ranges);
            let (meta, hot) = writer.finish(hidden, &ranges).await?;
            self.made.push((file, meta, hot));
        }
        Ok(())
    }

    /// The tables: durable, with their directory entries.
    pub(super) async fn finish(mut self) -> Result<Vec<Made>> {
        let rest = self.ranges.drain(..).collect();
        self.end_table(rest).await?;
        if self.made.is_empty() {
            return Ok(Vec::new());
        }
        if !planted(Bug::TableNameUnsynced) {
            self.io.sync_dir(&self.place.dir).await?;
        }
        let mut tables = Vec::with_capacity(self.made.len());
        for (file, meta, hot) in self.made {
            let share = self.place.pins.share(!self.older.overlaps(&meta));
            let table = Table::open(self.io, file, self.place.db, meta, &share).await?;
            tables.push(Made { table: Arc::new(table), hot });
        }
        Ok(tables)
    }
}
