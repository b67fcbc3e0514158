//! Tables over a file in memory: what they have in common.

mod cached;
mod damage;
mod memory;
mod partitioned;
mod round_trip;
mod verify;
mod walks;

use std::sync::Arc;

use self::memory::{Memory, now};
use super::{
    Compression, Looked, Lookup, NewTable, Partition, PinLimits, Pins, ReadCounters, Table,
    TableIter, TableMeta, TableWriter,
};
use crate::base::error::Result;
use crate::base::hash::KeyHasher;
use crate::base::ids::{DbId, FileId};
use crate::base::ranges::RangeTombstones;
use crate::base::seq::{Kind, SEQ_MAX, SeqNo, Tag, compare_internal};
use crate::cache::{Cache, Epochs, PartitionCache};
use crate::io::BufferPool;

const DB: DbId = DbId([0xdb; 16]);
const TABLE_ID: [u8; 16] = [0x7a; 16];

type Entry = (Vec<u8>, Tag, Vec<u8>);

fn id() -> FileId {
    FileId::new(3, 14)
}

fn hasher() -> KeyHasher {
    KeyHasher::new(&[4; 16])
}

fn new_table(compression: Compression) -> NewTable {
    NewTable { db: DB, id: id(), table_id: TABLE_ID, shard: 5, compression, written_s: 1 }
}

fn put(seq: SeqNo) -> Tag {
    Tag::new(seq, Kind::Put)
}

/// Threads share open tables.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<Table>();
    is_shared::<ReadCounters>();
};

/// xorshift64*: every run of a test is the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Brings entries into the order of a table, without duplicates.
fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| compare_internal((&a.0, a.1), (&b.0, b.1)));
    entries.dedup_by(|a, b| a.0 == b.0 && a.1.seq() == b.1.seq());
    entries
}

/// Writes a table with buffers of `write_bytes`.
fn write(entries: &[Entry], write_bytes: usize) -> (Memory, TableMeta) {
    write_with(Compression::None, entries, write_bytes)
}

fn write_with(
    compression: Compression,
    entries: &[Entry],
    write_bytes: usize,
) -> (Memory, TableMeta) {
    let io = Memory::of(Vec::new());
    let pool = BufferPool::new(write_bytes, 2);
    let hasher = hasher();
    let meta = now(async {
        let mut writer = TableWriter::new(&io, io.file(), 0, new_table(compression), &pool);
        for (key, tag, value) in entries {
            writer.add(key, *tag, value, hasher.hash(key)).await?;
        }
        writer.finish(0, &RangeTombstones::default()).await
    });
    (io, meta.expect("memory takes everything").0)
}

/// Where partitions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Pinned,
    /// In a cache of so many bytes.
    Cached(usize),
}

impl Kept {
    /// What tables are tested with: pinned partitions, ones that are all cached,
    /// and ones for which there is no room.
    const ALL: [Self; 3] = [Self::Pinned, Self::Cached(16 << 20), Self::Cached(0)];

    fn pins(self) -> Arc<Pins> {
        Pins::new(match self {
            Self::Pinned => PinLimits::UNBOUNDED,
            Self::Cached(_) => PinLimits { bytes_max: 0, oldest_bytes_max: 0 },
        })
    }
}

fn open(io: &Memory, meta: &TableMeta) -> Result<Arc<Table>> {
    open_with(io, meta, None)
}

fn open_with(io: &Memory, meta: &TableMeta, cache: Option<&Arc<Cache>>) -> Result<Arc<Table>> {
    open_as(Kept::Pinned, io, meta, cache)
}

fn open_as(
    kept: Kept,
    io: &Memory,
    meta: &TableMeta,
    cache: Option<&Arc<Cache>>,
) -> Result<Arc<Table>> {
    let share = kept.pins().share(false);
    let table = now(Table::open(io, io.file(), DB, meta.clone(), &share))?;
    assert_eq!(table.is_pinned(), kept == Kept::Pinned);
    let bytes = if let Kept::Cached(bytes) = kept { bytes } else { 0 };
    table.cache_in(cache, &PartitionCache::new(bytes));
    Ok(Arc::new(table))
}

fn cache(bytes: usize) -> Arc<Cache> {
    Cache::new(&Epochs::new(), bytes, 0).expect("there is memory")
}

fn get(
    io: &Memory,
    table: &Arc<Table>,
    counters: &ReadCounters,
    key: &[u8],
    bound: SeqNo,
) -> Result<Option<(Tag, Vec<u8>)>> {
    let lookup = Lookup { counters, key, hash: hasher().hash(key), bound };
    let mut value = Vec::new();
    match table.look(&lookup, &mut value)? {
        Looked::Found(tag) => Ok(Some((tag, value))),
        Looked::Absent => Ok(None),
        Looked::Missing(missing) => {
            let found = now(table.get(io, missing, &lookup))?;
            Ok(found.map(|entry| (entry.tag, entry.value.into_vec())))
        }
    }
}

/// What a get must answer.
fn expected(entries: &[Entry], key: &[u8], bound: SeqNo) -> Option<(Tag, Vec<u8>)> {
    let at = entries
        .partition_point(|e| compare_internal((&e.0, e.1), (key, Tag::visible_at(bound))).is_lt());
    entries.get(at).filter(|e| e.0 == key).map(|e| (e.1, e.2.clone()))
}

/// What walks read at once, at most.
const READ_BYTES: usize = 256 << 10;

fn walk(table: Arc<Table>) -> TableIter {
    TableIter::new(table, READ_BYTES)
}

/// The entry the iterator is on.
fn seen(iter: &TableIter) -> Option<Entry> {
    iter.valid().then(|| (iter.key().to_vec(), iter.tag(), iter.value().to_vec()))
}

/// All entries from front to back.
fn collect(io: &Memory, iter: &mut TableIter) -> Result<Vec<Entry>> {
    now(iter.seek_to_first(io))?;
    let mut all = Vec::new();
    while let Some(entry) = seen(iter) {
        all.push(entry);
        now(iter.next(io))?;
    }
    Ok(all)
}

/// Random entries: shared prefixes, many versions of some keys, tombstones,
/// now and then a value longer than a block.
fn random_entries(random: &mut Random, count: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    while entries.len() < count {
        let key = match random.below(4) {
            0 => {
                let len = random.below(4);
                random.bytes(len)
            }
            1 => format!("user:{:08}", random.below(1000)).into_bytes(),
            2 => [&[0xff; 20][..], &random.below(300).to_be_bytes()].concat(),
            _ => vec![b'a'; random.below(60) as usize],
        };
        let versions = if random.below(20) == 0 { 1 + random.below(200) } else { 1 };
        for _ in 0..versions {
            let kind = if random.below(5) == 0 { Kind::Delete } else { Kind::Put };
            let len = match (kind, random.below(100)) {
                (Kind::Delete | Kind::RangeDelete, _) => 0,
                (Kind::Put, 0) => random.below(20_000),
                (Kind::Put | Kind::Indirect, _) => random.below(300),
            };
            // Half of it compresses.
            let mut value = random.bytes(len);
            value[len as usize / 2..].fill(b'.');
            entries.push((key.clone(), Tag::new(1 + random.below(1000), kind), value));
        }
    }
    sorted(entries)
}
