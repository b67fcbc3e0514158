//! The partitions of an open table: pinned in memory, or read when they are
//! needed and kept in the owner's partition cache for a while.
//!
//! A table whose partitions were not pinned when it was opened may get them
//! pinned later, once there is room; never the other way.

use std::sync::Arc;

use super::open::bytes;
use super::shared_read::read_shared;
use super::{PinShare, Table};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::limits::UNIT_U64;
use crate::base::seq::Tag;
use crate::base::sync::atomic::Ordering;
use crate::cache::{Flights, Lead, PartitionCache, PartitionShare};
use crate::format::table::{Partition, TopIndex, seed_at};
use crate::io::{DetachedRead, Io, IoBuf};
use crate::runtime::slice_end;

/// The lowest internal key of a key's versions sorts as if it had this tag.
const BEFORE_ALL: Tag = Tag::from_u64(u64::MAX);

/// A table's share in the cache of partitions.
pub(super) struct CachedPartitions {
    share: PartitionShare<Partition>,
    flights: Arc<Flights<Arc<Partition>>>,
}

impl CachedPartitions {
    pub(super) fn new(cache: &Arc<PartitionCache<Partition>>, partitions: usize) -> Self {
        Self { share: cache.register(partitions), flights: Flights::new() }
    }

    /// Bytes that it takes in memory without partitions.
    pub(super) fn bytes(&self) -> usize {
        self.share.slots_bytes()
    }
}

impl Table {
    /// All partitions, if they are pinned.
    pub(super) fn pinned(&self) -> Option<&[Partition]> {
        self.pinned.get().map(|all| &all[..])
    }

    /// Whether all its partitions stay in memory for as long as it is open.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned.get().is_some()
    }

    /// Bytes of the blocks with keys from `start` on and before `end`, if that is not
    /// empty: to whole blocks, or whole partitions where these are not pinned.
    pub(crate) fn bytes_between(&self, start: &[u8], end: &[u8]) -> u64 {
        let all = self.top.blocks();
        let last = if end.is_empty() { all } else { self.block_near(end) };
        let blocks = last.saturating_sub(self.block_near(start)) as u64;
        blocks * (self.top.data_units() * UNIT_U64) / all as u64
    }

    /// The first block that may have keys from this one on, or the first one of its
    /// partition; behind the last for a key beyond all.
    fn block_near(&self, key: &[u8]) -> usize {
        if *self.meta.largest < *key {
            return self.top.blocks();
        }
        let number = self.top.partition_of(key, BEFORE_ALL);
        match self.pinned() {
            Some(all) => {
                let partition = &all[number];
                partition.find(key, BEFORE_ALL).unwrap_or(partition.blocks().end)
            }
            None => self.top.first_block(number),
        }
    }

    /// The partition, if it is in the cache.
    pub(super) fn resident(&self, number: usize) -> Option<Arc<Partition>> {
        self.partition_cache.get()?.share.get(number)
    }

    /// A partition that is not pinned: out of the cache, or read.
    pub(super) async fn partition<I: Io>(
        self: &Arc<Self>,
        io: &I,
        number: usize,
    ) -> Result<Arc<Partition>> {
        match self.resident(number) {
            Some(partition) => Ok(partition),
            None => self.bring_partition(io, number).await,
        }
    }

    /// A partition that was not in the cache when the caller looked. All who miss
    /// it at once share its read. A read that fails is tried once more.
    pub(super) async fn bring_partition<I: Io>(
        self: &Arc<Self>,
        io: &I,
        number: usize,
    ) -> Result<Arc<Partition>> {
        let Some(CachedPartitions { share, flights }) = self.partition_cache.get() else {
            return self.read_partition(io, number).await.map(Arc::new);
        };
        loop {
            let request = |lead: Lead<Arc<Partition>>| {
                let this = Arc::clone(self);
                let (offset, len) = self.top.extent(number);
                DetachedRead {
                    file: self.file.clone(),
                    offset,
                    buf: IoBuf::zeroed(len),
                    done: move |buf: IoBuf, result| {
                        lead.land(this.take_in_partition(number, &buf, result));
                    },
                }
            };
            let is_there = || share.contains(number);
            let read = read_shared(io, flights, number as u32, is_there, request).await?;
            // If it was put in meanwhile, it may have left again.
            if let Some(partition) = read.or_else(|| share.get(number)) {
                return Ok(partition);
            }
        }
    }

    /// Reads a partition past the cache.
    pub(super) async fn read_partition<I: Io>(&self, io: &I, number: usize) -> Result<Partition> {
        let (offset, len) = self.top.extent(number);
        let what = "a filter and index";
        let buf = super::open::read(io, &self.file, offset, IoBuf::zeroed(len), what).await?;
        self.decode_partition(number, &buf)
    }

    fn decode_partition(&self, number: usize, extent: &[u8]) -> Result<Partition> {
        let (offset, _) = self.top.extent(number);
        Partition::decode(extent, seed_at(&self.meta.table_id, offset))
            .and_then(|partition| self.top.admit(number, partition))
            .map_err(|error| self.damage(offset, &error))
    }

    /// Verifies a partition that was read, and puts it into the cache.
    fn take_in_partition(
        &self,
        number: usize,
        buf: &IoBuf,
        result: Result<usize>,
    ) -> Result<Arc<Partition>> {
        let bytes = result?;
        if bytes < buf.len() {
            let reason = "the file ends before the end of a filter and index";
            let offset = self.top.extent(number).0 + bytes as u64;
            return Err(Error::corruption(self.file.path(), offset, reason));
        }
        let partition = Arc::new(self.decode_partition(number, buf)?);
        if let Some(cached) = self.partition_cache.get().filter(|_| !self.is_pinned()) {
            cached.share.insert(number, Arc::clone(&partition), partition.bytes());
        }
        Ok(partition)
    }

    /// Pins the table's partitions, if `share` has room for them. Whether it did.
    /// One that is damaged is not tried again.
    ///
    /// # Errors
    /// When a partition is damaged or cannot be read: the table stays as it was.
    pub(crate) async fn pin<I: Io>(&self, io: &I, share: &PinShare) -> Result<bool> {
        if self.is_pinned() || self.pin_failed.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let (first, last) = (self.top.extent(0), self.top.extent(self.top.partitions() - 1));
        let file_bytes = last.0 + last.1 as u64 - first.0;
        let bytes_max = Partition::bytes_max(file_bytes, self.top.data_units());
        let Some(reserved) = share.reserve(bytes_max) else {
            return Ok(false);
        };
        let all = self.read_partitions(io).await;
        let all = all.inspect_err(|error| {
            let is_damaged = error.kind() == ErrorKind::Corruption;
            self.pin_failed.store(is_damaged, Ordering::Relaxed);
        })?;
        let bytes = bytes(&all);
        let is_first = self.pinned.set(all.into()).is_ok();
        if is_first {
            self.claim.settle(reserved, bytes);
            if let Some(cached) = self.partition_cache.get() {
                cached.share.clear();
            }
        }
        Ok(is_first)
    }

    /// Reads all partitions, one after the other: each is a slice of work.
    async fn read_partitions<I: Io>(&self, io: &I) -> Result<Vec<Partition>> {
        let mut all: Vec<Partition> = Vec::with_capacity(self.top.partitions());
        for number in 0..self.top.partitions() {
            let partition = self.read_partition(io, number).await?;
            if let Some(before) = all.last() {
                let offset = self.top.extent(number).0;
                TopIndex::check_next(before, &partition)
                    .map_err(|error| self.damage(offset, &error))?;
            }
            all.push(partition);
            slice_end().await;
        }
        Ok(all)
    }
}
