//! An open table: what is in memory of it, and looking one key up.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::base::error::{Error, Result};
use crate::base::hash::KeyHash;
use crate::base::planted::{Bug, planted};
use crate::base::ranges::RangeTombstones;
use crate::base::seq::{SEQ_MAX, SeqNo, Tag};
use crate::base::sync::atomic::AtomicBool;
use crate::cache::{Cache, PartitionCache};
use crate::format::block::{self, Block, Compression};
use crate::format::header::DecodeError;
use crate::format::table::{Partition, TopIndex, seed_at};
use crate::io::{File, Io, IoBuf};
use crate::sst::blocks::{BlockPlace, Cached};
use crate::sst::partitions::CachedPartitions;
use crate::sst::pins::Claim;
use crate::sst::{ReadCounters, Retired, Spare, TableMeta, open, retired};

/// An open table. Its top index is in memory. Its partitions are, too, if they
/// are pinned; otherwise they come and go by the partition cache, as its blocks do
/// by the block cache, if there is one.
pub(crate) struct Table {
    pub(super) file: File,
    pub(super) meta: TableMeta,
    pub(super) contents: Contents,
    pub(super) top: TopIndex,
    /// All of them, once they are pinned.
    pub(super) pinned: OnceLock<Box<[Partition]>>,
    /// `None` where there is no cache, and as long as it is only being made.
    pub(super) cached: OnceLock<Cached>,
    /// `None` as long as it is only being made, and when the partitions were
    /// pinned by then.
    pub(super) partition_cache: OnceLock<CachedPartitions>,
    /// Pinning them was tried, and they could not be read.
    pub(super) pin_failed: AtomicBool,
    /// What all this takes in memory, apart from what is in caches.
    pub(super) claim: Claim,
    /// `None` when there are none.
    pub(super) ranges: Option<Arc<RangeTombstones>>,
    /// Set once the table is taken out of the tree.
    pub(super) retired: retired::Place,
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(retired) = self.retired.take().filter(|_| !planted(Bug::TableLeft)) {
            retired.push(Spare { path: self.file.path().to_owned(), bytes: self.meta.file_bytes });
        }
    }
}

/// What a table says about what it holds, beside its [`TableMeta`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents {
    /// Sum of the lengths of keys and values.
    pub(crate) bytes: u64,
    pub(crate) tombstones: u64,
    /// Entries that are not the newest of their key.
    pub(crate) old_versions: u64,
    /// About how many entries of older tables these hid when they were
    /// written.
    pub(crate) hidden: u64,
    /// Stretches of entries at least half of which are tombstones.
    pub(crate) dense_windows: u64,
    /// Seconds since 1970 when the newest entry was first written to a table.
    pub(crate) written_s: u64,
    /// Of the blocks that get smaller by it.
    pub(crate) compression: Compression,
}

/// What is looked for.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pub(crate) counters: &'a ReadCounters,
    pub(crate) key: &'a [u8],
    pub(crate) hash: KeyHash,
    /// The newest version at or below this number.
    pub(crate) bound: SeqNo,
}

/// What a look into what is in memory of a table came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// The version that was sought; its value was copied.
    Found(Tag),
    /// The table has none.
    Absent,
    /// It depends on this, which is not in memory.
    Missing(Missing),
}

/// What must be read before a lookup can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The partition with this number.
    Partition(usize),
    /// A block: the only one that the version can be in.
    Block(MissingBlock),
}

/// See [`Missing::Block`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MissingBlock {
    pub(super) place: BlockPlace,
    /// A filter said that it may be there: by mistake, if it is not.
    is_filtered: bool,
}

/// What a table knows about a key without reading anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// It has no version of it.
    No,
    /// It surely has one, but for mistakes of the filter.
    Maybe,
    /// That depends on a partition that is not pinned.
    Unknown,
}

/// The version of a key that was found.
pub(crate) struct TableEntry {
    pub(crate) tag: Tag,
    pub(crate) value: Box<[u8]>,
}

impl Table {
    /// From now on the table's blocks go into `blocks`, if there is such a cache,
    /// and its partitions into `partitions`, unless they are pinned.
    ///
    /// That takes the block cache's lock, which lookups wait for, and dropping the
    /// table takes those of both from then on: neither is for a thread of the idle
    /// class.
    pub(crate) fn cache_in(
        &self,
        blocks: Option<&Arc<Cache>>,
        partitions: &Arc<PartitionCache<Partition>>,
    ) {
        if let Some(cache) = blocks {
            let (id, blocks) = (self.meta.id.to_u64(), self.top.blocks());
            let cached = Cached::new(cache, id, blocks);
            self.claim.add(cached.table.links_bytes() as u64);
            let first = self.cached.set(cached).is_ok();
            assert!(first, "a table is in one cache");
        }
        if !self.is_pinned() {
            let cached = CachedPartitions::new(partitions, self.top.partitions());
            self.claim.add(cached.bytes() as u64);
            let first = self.partition_cache.set(cached).is_ok();
            assert!(first, "a table is in one cache");
        }
    }

    /// The table's share in the cache.
    pub(super) fn cached(&self) -> Option<&Cached> {
        self.cached.get()
    }

    pub(crate) fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// The table was durably taken out of the tree: its file goes when nobody
    /// reads it any more.
    pub(crate) fn retire(&self, place: &Arc<Retired>) {
        let first = self.retired.set(Arc::clone(place)).is_ok();
        assert!(first, "a table is taken out once");
    }

    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// What it says of whole stretches of keys, if anything. It holds for the
    /// entries of older tables, and for those of its own that are older.
    pub(crate) fn ranges(&self) -> Option<&Arc<RangeTombstones>> {
        self.ranges.as_ref()
    }

    /// Whether the table has a version of the key, as far as what is pinned of it
    /// tells. Takes no lock.
    pub(crate) fn holds(&self, key: &[u8], hash: KeyHash) -> Holds {
        if !self.covers(key) {
            return Holds::No;
        }
        let Some(all) = self.pinned() else { return Holds::Unknown };
        match passes(&all[self.first_partition_of(key)], hash) {
            true => Holds::Maybe,
            false => Holds::No,
        }
    }

    /// The same when that is unknown: one read, past all caches. Whether it may
    /// have one.
    pub(crate) async fn holds_by_reading<I: Io>(
        &self,
        io: &I,
        key: &[u8],
        hash: KeyHash,
    ) -> Result<bool> {
        let partition = self.read_partition(io, self.first_partition_of(key)).await?;
        Ok(passes(&partition, hash))
    }

    fn covers(&self, key: &[u8]) -> bool {
        *self.meta.smallest <= *key && *key <= *self.meta.largest
    }

    /// Of the partitions that may have versions of the key, the first: each has
    /// the key in its filter.
    fn first_partition_of(&self, key: &[u8]) -> usize {
        self.top.partition_of(key, Tag::visible_at(SEQ_MAX))
    }

    /// Bytes the open table takes in memory, apart from what is in caches.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.claim.bytes()
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Looks into filter, index and cache. The value that is found is copied
    /// into `value`; otherwise that holds anything.
    pub(crate) fn look(&self, lookup: &Lookup<'_>, value: &mut Vec<u8>) -> Result<Looked> {
        if !self.covers(lookup.key) {
            return Ok(Looked::Absent);
        }
        let number = self.top.partition_of(lookup.key, Tag::visible_at(lookup.bound));
        if let Some(all) = self.pinned() {
            return self.look_in(&all[number], lookup, value);
        }
        match self.resident(number) {
            Some(partition) => self.look_in(&partition, lookup, value),
            None => Ok(Looked::Missing(Missing::Partition(number))),
        }
    }

    /// Looks into the one partition that can have the version.
    ///
    /// One block is always enough: no separator of the index lies between the
    /// version that is sought and where it would be, also when versions of one
    /// key are in several blocks.
    fn look_in(
        &self,
        partition: &Partition,
        lookup: &Lookup<'_>,
        value: &mut Vec<u8>,
    ) -> Result<Looked> {
        let Lookup { counters, key, hash, bound } = *lookup;
        if partition.filter.is_some() {
            let maybe = passes(partition, hash);
            counters.asked(maybe);
            if !maybe {
                return Ok(Looked::Absent);
            }
        }
        // There is none when the key is the table's largest, and every version
        // of it newer.
        let Some(block) = partition.find(key, Tag::visible_at(bound)) else {
            return Ok(Looked::Absent);
        };
        let found = self
            .look_in_cache(block, lookup, value)
            .map_err(|error| self.damage(partition.extent(block).0, &error))?;
        let is_filtered =
            || partition.filter.is_some() && !self.is_newer_before(partition, block, key);
        Ok(match found {
            Some(found) => judged(found, lookup, is_filtered),
            None => {
                let place = BlockPlace::of(partition, block);
                let is_filtered = is_filtered();
                Looked::Missing(Missing::Block(MissingBlock { place, is_filtered }))
            }
        })
    }

    /// Whether the block before this one ends with a version of the key.
    fn is_newer_before(&self, partition: &Partition, block: usize, key: &[u8]) -> bool {
        partition.newer_before(block, key).unwrap_or_else(|| {
            let before = self.top.partition_with(block).checked_sub(1);
            before.is_some_and(|before| self.top.ends_with(before, key))
        })
    }

    /// `None` when the block is not in the cache.
    fn look_in_cache(
        &self,
        block: usize,
        lookup: &Lookup<'_>,
        value: &mut Vec<u8>,
    ) -> Result<Option<block::Lookup>, DecodeError> {
        let Some(Cached { table, .. }) = self.cached() else {
            return Ok(None);
        };
        let guard = table.cache().epochs().pin();
        let Some(hit) = table.get(&guard, block as u32) else {
            return Ok(None);
        };
        let found = if let Some(content) = hit.whole() {
            let found = find_in(content, lookup)?;
            if let block::Lookup::Found { value: place, .. } = &found {
                value.clear();
                value.extend_from_slice(&content[place.clone()]);
            }
            found
        } else {
            hit.gather(value);
            let found = find_in(value, lookup)?;
            if let block::Lookup::Found { value: Range { start, end }, .. } = found {
                value.truncate(end);
                value.drain(..start);
            }
            found
        };
        Ok(Some(found))
    }

    /// Goes on where [`Table::look`] missed something: one read at most for a
    /// partition and one for a block, unless they fail.
    pub(crate) async fn get<I: Io>(
        self: &Arc<Self>,
        io: &I,
        missing: Missing,
        lookup: &Lookup<'_>,
    ) -> Result<Option<TableEntry>> {
        let mut missing = missing;
        let mut value = Vec::new();
        loop {
            let looked = match missing {
                Missing::Partition(number) => {
                    let partition = self.bring_partition(io, number).await?;
                    self.look_in(&partition, lookup, &mut value)?
                }
                Missing::Block(MissingBlock { place, is_filtered }) => {
                    let damage = |error: DecodeError| self.damage(place.offset, &error);
                    let found = match self.bring(io, place).await? {
                        Some(content) => {
                            let mut scratch = Vec::new();
                            let content = content.bytes(&mut scratch);
                            let found = find_in(content, lookup).map_err(damage)?;
                            if let block::Lookup::Found { value: place, .. } = &found {
                                value.extend_from_slice(&content[place.clone()]);
                            }
                            Some(found)
                        }
                        None => {
                            self.look_in_cache(place.block, lookup, &mut value).map_err(damage)?
                        }
                    };
                    match found {
                        Some(found) => judged(found, lookup, || is_filtered),
                        // It has left again.
                        None => Looked::Missing(missing),
                    }
                }
            };
            match looked {
                Looked::Found(tag) => return Ok(Some(TableEntry { tag, value: value.into() })),
                Looked::Absent => return Ok(None),
                Looked::Missing(next) => missing = next,
            }
        }
    }

    /// Fills `buf` with blocks, which nobody has verified yet.
    pub(super) async fn read<I: Io>(&self, io: &I, offset: u64, buf: IoBuf) -> Result<IoBuf> {
        open::read(io, &self.file, offset, buf, "a data block").await
    }

    /// Verifies the block that was read from `offset`, and decompresses it into
    /// `plain` if it is compressed.
    pub(super) fn decode<'a>(
        &self,
        extent: &'a [u8],
        offset: u64,
        plain: &'a mut Vec<u8>,
    ) -> Result<Block<'a>, DecodeError> {
        Block::decode(extent, seed_at(&self.meta.table_id, offset), plain)
    }

    /// The error for a block, read from `offset`, that does not decode.
    pub(super) fn damage(&self, offset: u64, error: &DecodeError) -> Error {
        error.at(self.file.path(), offset)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({}, {} blocks)", self.file.path().display(), self.top.blocks())
    }
}

/// Whether the filter of the partition, if it has one, lets the key pass.
fn passes(partition: &Partition, hash: KeyHash) -> bool {
    partition.filter.as_ref().is_none_or(|filter| filter.may_contain(hash.filter))
}

/// Finds the version in the content of its block.
fn find_in(content: &[u8], lookup: &Lookup<'_>) -> Result<block::Lookup, DecodeError> {
    Block::of_verified(content)?.get(lookup.key, lookup.hash.filter, lookup.bound)
}

/// What finding a version in its block, or not, comes to.
fn judged(found: block::Lookup, lookup: &Lookup<'_>, is_filtered: impl FnOnce() -> bool) -> Looked {
    match found {
        block::Lookup::Found { tag, .. } => return Looked::Found(tag),
        block::Lookup::OnlyNewer => {}
        block::Lookup::Absent => {
            if is_filtered() {
                lookup.counters.was_mistaken();
            }
        }
    }
    Looked::Absent
}
