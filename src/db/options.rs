//! Options: few inputs, from which the rest derives.

mod derive;

use std::path::PathBuf;
use std::time::Duration;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::lsm::LEVELS;
use crate::sst::Compression;

pub(super) use derive::Derived;

const MIB: u64 = 1 << 20;

/// Requests of futures at one owner, unless the user says otherwise: as many
/// as fit on its ring beside its own.
const REQUESTS_MAX: usize = 192;

/// How long owners look out for work, unless the user says otherwise.
const SPIN: Duration = Duration::ZERO;

/// How many times a level is as large as the one above it.
const SIZE_RATIO: u32 = 10;

/// How the database does its I/O.
///
/// ```
/// use ourodb::{Db, IoBackend, Options};
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Db::open(dir.path(), Options::default().io(IoBackend::Blocking))?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum IoBackend {
    /// Owners use io_uring (Linux 6.1 or newer); threads that wait use
    /// positioned direct I/O.
    #[default]
    Ring,
    /// Everybody uses positioned direct I/O: for machines where io_uring is
    /// forbidden or too old.
    Blocking,
    /// A simulated machine.
    #[cfg(feature = "sim")]
    Sim(crate::io::sim::Sim),
}

/// Which tables are merged into which.
///
/// ```
/// use ourodb::{Compaction, Options};
/// use std::time::Duration;
/// let last_day = Compaction::Fifo {
///     max_bytes: Some(10 << 30),
///     max_age: Some(Duration::from_secs(24 * 3600)),
/// };
/// let options = Options::default().compaction(last_day);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compaction {
    /// Each level below the first is one sorted run of a bounded size. A read
    /// asks few tables, little space is wasted.
    #[default]
    Leveled,
    /// Runs of similar size are merged into longer ones. Fewer bytes are
    /// written, a read asks more tables, and up to as much space as the data
    /// take is wasted; a quarter of it once writes have paused. Until then
    /// scans pass over tombstones one by one.
    Tiered,
    /// First in, first out: nothing is merged. The oldest tables are dropped,
    /// **and what they hold is gone**, once there is more data, or it is older,
    /// than this. A key that is written again and again keeps its newest value
    /// only as long as that lasts.
    Fifo {
        /// Bytes of tables; each shard may have an equal part of them, which must be
        /// enough for a memtable.
        max_bytes: Option<u64>,
        /// Since an entry went from memory into a table; whole seconds, at least one.
        max_age: Option<Duration>,
    },
}

/// How a database is opened. The memory budget decides most; everything else
/// has a default.
///
/// ```
/// use ourodb::{Db, Options};
/// use std::time::Duration;
/// # let dir = tempfile::tempdir().unwrap();
/// let options = Options::default().memory(64 << 20).lock_wait(Duration::ZERO);
/// let db = Db::open(dir.path(), options)?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    memory_bytes: u64,
    shards: Option<usize>,
    owners: Option<usize>,
    create: bool,
    lock_wait: Duration,
    io: IoBackend,
    durability: Durability,
    requests_max: usize,
    spin: Duration,
    is_pinned: bool,
    map_dir: Option<PathBuf>,
    compaction: Compaction,
    levels: u8,
    size_ratio: u32,
    compression: [Compression; LEVELS],
    /// The highest level for which it was said.
    compression_level_max: u8,
    chosen: Chosen,
}

/// What takes the place of what would be derived.
#[derive(Clone, Copy, Debug, Default)]
struct Chosen {
    memtable_bytes: Option<usize>,
    immutable_memtables_max: Option<usize>,
    cache_bytes: Option<u64>,
    cache_bytes_max: Option<u64>,
    pinned_bytes: Option<u64>,
    pinned_bytes_free: Option<u64>,
    pinned_bytes_oldest: Option<u64>,
    memtable_pool_bytes: Option<u64>,
    value_pool_bytes: Option<u64>,
    partition_cache_bytes: Option<u64>,
    compaction_read_bytes: Option<u64>,
    wal_segment_bytes: Option<u64>,
    wal_bytes_max: Option<u64>,
    wal_map_bytes: Option<u64>,
    value_bytes_max: Option<usize>,
    table_bytes: Option<u64>,
    level_0_tables_slow: Option<usize>,
    level_0_tables_max: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_bytes: 256 * MIB,
            shards: None,
            owners: None,
            create: true,
            lock_wait: Duration::from_secs(10),
            io: IoBackend::default(),
            durability: Durability::default(),
            requests_max: REQUESTS_MAX,
            spin: SPIN,
            is_pinned: false,
            map_dir: None,
            compaction: Compaction::default(),
            levels: LEVELS as u8,
            size_ratio: SIZE_RATIO,
            compression: [Compression::None; LEVELS],
            compression_level_max: 0,
            chosen: Chosen::default(),
        }
    }
}

impl Options {
    /// The memory budget in bytes; 256 MiB by default, at least 4 MiB: 40 % for
    /// memtables, 25 % for the caches of blocks of tables, which take it as they
    /// fill up, and borrow most of what memtables do not use
    /// ([`Options::cache_bytes_max`]), 12 % for filters and indexes of tables (about
    /// 2 % of the data), the rest for mappings of the log, and buffers. Filters and
    /// indexes that need more take it from memtables, up to 30 % of the budget. With
    /// more data than some 10 times the budget not all of them stay in memory (see
    /// [`Options::pinned_bytes`]): a lookup in the rest may read the device once
    /// more. What must stay of all tables is about 0.1 % of the data, and all of their
    /// range tombstones, so that more data than some 200 times the budget go beyond it.
    ///
    /// Not counted: threads' stacks and the program itself, what `malloc` does not
    /// give back, memtables that open scans read, and the read-ahead of each such scan,
    /// up to 1 MiB a shard (16 KiB for each run of tables, if that is more).
    /// With few threads, resident memory is at most 5 % and 32 MiB above the budget,
    /// some 6 MiB of that the program. In a process that opens databases again and again
    /// while it writes at full speed, `malloc` may keep some tens of MiB more.
    ///
    /// A quarter of it, or [`VALUE_BYTES_MAX`] if that is
    /// less, is the longest value that a write takes. Longer ones that are there
    /// can be read.
    ///
    /// [`VALUE_BYTES_MAX`]: crate::VALUE_BYTES_MAX
    ///
    /// It also bounds the log, and with that the time to open after a crash:
    /// memtables are flushed when all streams together keep more than the
    /// budget (or four segments a stream, if that is more).
    ///
    /// ```
    /// let options = ourodb::Options::default().memory(1 << 30);
    /// ```
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Shards of a database that is created, 1 to 4096; fixed for ever then.
    /// By default the number of cores, rounded up to a power of two, at least
    /// 4. Every scan asks every shard.
    ///
    /// ```
    /// let options = ourodb::Options::default().shards(8);
    /// ```
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Owners: threads that do the background work of the shards, each with a
    /// WAL stream of its own. By default as many as cores, but no more than one for 2 MiB
    /// of the memory budget; at most one for 512 KiB of it; never more than
    /// shards. May differ at each opening.
    ///
    /// ```
    /// let options = ourodb::Options::default().owners(1);
    /// ```
    #[must_use]
    pub fn owners(mut self, owners: usize) -> Self {
        self.owners = Some(owners);
        self
    }

    /// Whether to create the database when the directory has none: true by
    /// default. Otherwise opening fails with `NotFound`.
    ///
    /// ```
    /// let options = ourodb::Options::default().create(false);
    /// ```
    #[must_use]
    pub fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    /// How long to wait for the directory's lock, when somebody else has it or
    /// a process that died still has I/O in flight: 10 seconds by default. Then
    /// opening fails with `Locked`.
    ///
    /// ```
    /// let options = ourodb::Options::default().lock_wait(std::time::Duration::ZERO);
    /// ```
    #[must_use]
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// How to do I/O.
    ///
    /// ```
    /// let options = ourodb::Options::default().io(ourodb::IoBackend::Blocking);
    /// ```
    #[must_use]
    pub fn io(mut self, backend: IoBackend) -> Self {
        self.io = backend;
        self
    }

    /// The bytes at which a shard's memtable is flushed, in place of what the
    /// memory budget gives: 40 % of it over all shards, each with one memtable
    /// that is written to and one on its way into a table. Filters and indexes then
    /// get what is left of the budget.
    ///
    /// ```
    /// let options = ourodb::Options::default().memtable_bytes(8 << 20);
    /// ```
    #[must_use]
    pub fn memtable_bytes(mut self, bytes: usize) -> Self {
        self.chosen.memtable_bytes = Some(bytes);
        self
    }

    /// Immutable memtables, on their way into tables, that a shard may have before its
    /// writers wait, 1 to 16; by default 1. Memtables get smaller by it, as the budget for
    /// all of them stays what it is.
    ///
    /// ```
    /// let options = ourodb::Options::default().immutable_memtables_max(2);
    /// ```
    #[must_use]
    pub fn immutable_memtables_max(mut self, memtables: usize) -> Self {
        self.chosen.immutable_memtables_max = Some(memtables);
        self
    }

    /// Bytes for the caches of blocks of tables, all together, in place of 25 %
    /// of the memory budget. The owners share them evenly; opening fails with
    /// `InvalidArgument` where that is not even one block each (less than 5 KiB).
    /// With 0 there is no cache: every lookup in a table reads the device.
    ///
    /// ```
    /// let options = ourodb::Options::default().memory(4 << 30).cache_bytes(2 << 30);
    /// ```
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.chosen.cache_bytes = Some(bytes);
        self
    }

    /// Bytes that the caches of blocks may come to, all together, by what is lent to
    /// them: while little is written, up to three quarters of the memory of memtables,
    /// which are then flushed sooner, and while filters and indexes take less than their
    /// share, most of the rest of it. It is called back within a fraction of a
    /// second when more is written. By default that is all they can be lent, 64 % of the
    /// memory budget; and nothing, if [`Options::cache_bytes`] or
    /// [`Options::memtable_bytes`] was given. Opening fails with `InvalidArgument` where
    /// it is less than what the caches have anyway.
    ///
    /// ```
    /// // They have a quarter of the budget, and never more.
    /// let options = ourodb::Options::default().memory(4 << 30).cache_bytes_max(1 << 30);
    /// ```
    #[must_use]
    pub fn cache_bytes_max(mut self, bytes: u64) -> Self {
        self.chosen.cache_bytes_max = Some(bytes);
        self
    }

    /// Bytes that filters and indexes of tables may take for good, in place of 24 %
    /// of the memory budget. A table whose filters and indexes
    /// would go beyond that (beyond two thirds of it, where nothing older has keys in
    /// its range) has them read as they are needed, some 20 to 60 KiB at a time, and
    /// cached in another 6 % of the budget: a lookup that finds neither there reads
    /// the device twice, and one of an absent key once. They come to stay once there
    /// is room. With 0 no table has them stay.
    ///
    /// ```
    /// let options = ourodb::Options::default().pinned_bytes(32 << 20);
    /// ```
    #[must_use]
    pub fn pinned_bytes(mut self, bytes: u64) -> Self {
        self.chosen.pinned_bytes = Some(bytes);
        self
    }

    /// Bytes that filters and indexes of tables may take before memtables get smaller,
    /// in place of 12 % of the memory budget. Refused where
    /// [`Options::memtable_bytes`] says how large memtables are.
    ///
    /// ```
    /// let options = ourodb::Options::default().pinned_bytes_free(8 << 20);
    /// ```
    #[must_use]
    pub fn pinned_bytes_free(mut self, bytes: u64) -> Self {
        self.chosen.pinned_bytes_free = Some(bytes);
        self
    }

    /// Bytes of [`Options::pinned_bytes`] that tables may take with nothing older
    /// beneath them, in place of two thirds: young tables, which all lookups ask, find
    /// room in the rest. Of a database that was compacted it is all tables.
    ///
    /// ```
    /// let options = ourodb::Options::default().pinned_bytes_oldest(8 << 20);
    /// ```
    #[must_use]
    pub fn pinned_bytes_oldest(mut self, bytes: u64) -> Self {
        self.chosen.pinned_bytes_oldest = Some(bytes);
        self
    }

    /// Bytes of flushed memtables that are kept for the next ones, in place of a 16th
    /// of the memory budget.
    ///
    /// ```
    /// let options = ourodb::Options::default().memtable_pool_bytes(4 << 20);
    /// ```
    #[must_use]
    pub fn memtable_pool_bytes(mut self, bytes: u64) -> Self {
        self.chosen.memtable_pool_bytes = Some(bytes);
        self
    }

    /// Bytes of buffers for values above 64 KiB that are kept for the next ones, in
    /// place of a 64th of the memory budget (256 KiB to 4 MiB); each has 256 KiB.
    ///
    /// ```
    /// let options = ourodb::Options::default().value_pool_bytes(1 << 20);
    /// ```
    #[must_use]
    pub fn value_pool_bytes(mut self, bytes: u64) -> Self {
        self.chosen.value_pool_bytes = Some(bytes);
        self
    }

    /// Bytes for the caches of filters and indexes that do not stay in memory, all
    /// together, in place of 6 % of the memory budget; at least 128 KiB an owner.
    ///
    /// ```
    /// let options = ourodb::Options::default().partition_cache_bytes(32 << 20);
    /// ```
    #[must_use]
    pub fn partition_cache_bytes(mut self, bytes: u64) -> Self {
        self.chosen.partition_cache_bytes = Some(bytes);
        self
    }

    /// Bytes that compactions may read ahead, all together, in place of 4 % of the
    /// memory budget; 128 KiB to 64 MiB an owner.
    ///
    /// ```
    /// let options = ourodb::Options::default().compaction_read_bytes(2 << 20);
    /// ```
    #[must_use]
    pub fn compaction_read_bytes(mut self, bytes: u64) -> Self {
        self.chosen.compaction_read_bytes = Some(bytes);
        self
    }

    /// The largest log segment in bytes, a multiple of 4096, at least 8192 and at most
    /// a quarter of the memory budget, or 1 GiB;
    /// in place of a 64th of the budget (1 to 64 MiB). Segments
    /// start at 1 MiB and double up to this. A batch fits in the first segment.
    ///
    /// ```
    /// let options = ourodb::Options::default().wal_segment_bytes(4 << 20);
    /// ```
    #[must_use]
    pub fn wal_segment_bytes(mut self, bytes: u64) -> Self {
        self.chosen.wal_segment_bytes = Some(bytes);
        self
    }

    /// The log in bytes that each owner may keep before memtables are flushed to free it,
    /// in place of an equal part of the memory budget; at least four of the largest
    /// segments. It bounds the time to open after a crash.
    ///
    /// ```
    /// let options = ourodb::Options::default().wal_bytes_max(64 << 20);
    /// ```
    #[must_use]
    pub fn wal_bytes_max(mut self, bytes: u64) -> Self {
        self.chosen.wal_bytes_max = Some(bytes);
        self
    }

    /// The bytes of the mapping of each owner's log, through which writes go that need
    /// not be durable, in place of a 16th of the memory budget over all owners (2 MiB each at
    /// most): a multiple of 32 KiB, and not more than 2 MiB. Refused where that is more
    /// than a log segment takes.
    ///
    /// ```
    /// let options = ourodb::Options::default().wal_map_bytes(1 << 20);
    /// ```
    #[must_use]
    pub fn wal_map_bytes(mut self, bytes: u64) -> Self {
        self.chosen.wal_map_bytes = Some(bytes);
        self
    }

    /// The longest value in bytes that a write takes, 1 to [`VALUE_BYTES_MAX`], in place of
    /// a quarter of the memory budget. Who reads a longer one than that has it in memory
    /// beside the budget.
    ///
    /// [`VALUE_BYTES_MAX`]: crate::VALUE_BYTES_MAX
    ///
    /// ```
    /// let options = ourodb::Options::default().value_bytes_max(1 << 20);
    /// ```
    #[must_use]
    pub fn value_bytes_max(mut self, bytes: usize) -> Self {
        self.chosen.value_bytes_max = Some(bytes);
        self
    }

    /// What writes survive once they are acknowledged, unless they say
    /// otherwise themselves: by default the loss of power
    /// ([`Durability::Durable`]).
    ///
    /// ```
    /// use ourodb::{Durability, Options};
    /// let options = Options::default().durability(Durability::ProcessSafe);
    /// ```
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Requests that futures may have outstanding at each owner at one time, 1
    /// to 65,536; 192 by default. A future beyond them waits for its turn
    /// before it asks for anything. A closure of [`Db::on_shard`](crate::Db::on_shard)
    /// counts until it starts.
    ///
    /// ```
    /// let options = ourodb::Options::default().requests_max(64);
    /// ```
    #[must_use]
    pub fn requests_max(mut self, requests: usize) -> Self {
        self.requests_max = requests;
        self
    }

    /// How long an owner that has nothing to do looks out for work before it
    /// sleeps: not at all by default. It answers futures sooner while it does,
    /// and takes that time from everybody else on its core.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let options = ourodb::Options::default().spin(Duration::from_micros(20));
    /// ```
    #[must_use]
    pub fn spin(mut self, time: Duration) -> Self {
        self.spin = time;
        self
    }

    /// Whether each owner keeps to one core: not by default, as that pays only
    /// where the application leaves these cores to the owners. Where the system
    /// refuses it, they go on without, and a warning says so.
    ///
    /// ```
    /// let options = ourodb::Options::default().pin(true);
    /// ```
    #[must_use]
    pub fn pin(mut self, yes: bool) -> Self {
        self.is_pinned = yes;
        self
    }

    /// Where mappings of the log go, in place of the database's own directory:
    /// one on tmpfs, such as `/dev/shm`. There, writes that need not be durable
    /// never wait for a disk that is busy writing mapped pages back.
    ///
    /// What is acknowledged as [`Durability::ProcessSafe`] is then lost with
    /// such a file. Each opening takes over what an earlier one left, wherever
    /// that was told to put it; within one boot of the machine a file that is
    /// missing is `Corruption`, and after another it is taken as lost. A close
    /// leaves no file there; a process that dies does, and nothing but the next
    /// opening removes it.
    ///
    /// Databases may share it, also copies of one another: names there say which directory
    /// made them, by the inode of its file `LOCK`, and nothing of another one is removed. A
    /// copy of a database that was not closed may need such a file, too: it reads it, and
    /// opens with `Locked` while the original is open. A copy that was made below the file
    /// system, of a whole disk, cannot be told from its original: it needs a directory of
    /// its own. So does a directory that was moved to another file system after a kill: what
    /// it left here stays until the machine is started anew, or somebody removes it.
    ///
    /// ```no_run
    /// let options = ourodb::Options::default().map_dir("/dev/shm");
    /// ```
    #[must_use]
    pub fn map_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.map_dir = Some(dir.into());
        self
    }

    /// Which tables are merged: leveled by default. May differ at each opening.
    ///
    /// ```
    /// use ourodb::{Compaction, Options};
    /// let options = Options::default().compaction(Compaction::Tiered);
    /// ```
    #[must_use]
    pub fn compaction(mut self, compaction: Compaction) -> Self {
        self.compaction = compaction;
        self
    }

    /// How many levels each shard's tables are on, level 0 included: 2 to 7, by
    /// default 7. With [`Compaction::Leveled`] no more of them are in use than
    /// there is data for. Data on deeper levels, from an opening that had more,
    /// stays in use.
    ///
    /// ```
    /// let options = ourodb::Options::default().levels(4);
    /// ```
    #[must_use]
    pub fn levels(mut self, levels: u8) -> Self {
        self.levels = levels;
        self
    }

    /// With [`Compaction::Leveled`], how many times a level is as large as the
    /// one above it; with [`Compaction::Tiered`], after how many flushes runs
    /// are merged. 2 to 100, by default 10.
    ///
    /// ```
    /// let options = ourodb::Options::default().size_ratio(8);
    /// ```
    #[must_use]
    pub fn size_ratio(mut self, ratio: u32) -> Self {
        self.size_ratio = ratio;
        self
    }

    /// The bytes at which merged tables are split, 64 KiB to 1 GiB; by default
    /// four memtables, but 1 to 64 MiB.
    ///
    /// ```
    /// let options = ourodb::Options::default().table_bytes(16 << 20);
    /// ```
    #[must_use]
    pub fn table_bytes(mut self, bytes: u64) -> Self {
        self.chosen.table_bytes = Some(bytes);
        self
    }

    /// Tables on level 0 of a shard beyond which writers are slowed down, in place of
    /// 24 (with [`Compaction::Tiered`] twice the size ratio, if that is more). Not less
    /// than that, as compaction begins no sooner, and refused with [`Compaction::Fifo`],
    /// which keeps all tables there.
    ///
    /// ```
    /// let options = ourodb::Options::default().level_0_tables_slow(32);
    /// ```
    #[must_use]
    pub fn level_0_tables_slow(mut self, tables: usize) -> Self {
        self.chosen.level_0_tables_slow = Some(tables);
        self
    }

    /// Tables on level 0 of a shard at which writers wait: more than those that slow
    /// them down, at least twice their default number, and by default twice their number.
    /// Refused with [`Compaction::Fifo`].
    ///
    /// ```
    /// let options = ourodb::Options::default().level_0_tables_max(100);
    /// ```
    #[must_use]
    pub fn level_0_tables_max(mut self, tables: usize) -> Self {
        self.chosen.level_0_tables_max = Some(tables);
        self
    }

    /// How tables of all levels are compressed: not at all by default. With
    /// [`Compression::Zstd`] opening fails as `Unsupported` unless this crate was
    /// built with its feature `zstd`.
    ///
    /// ```
    /// use ourodb::{Compression, Options};
    /// let options = Options::default().compression(Compression::Lz4);
    /// ```
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = [compression; LEVELS];
        self
    }

    /// How tables of one level, 0 to 6, and of all below it, are compressed. Tables
    /// that are there already are compressed so once they are merged.
    ///
    /// ```
    /// use ourodb::{Compression, Options};
    /// let options = Options::default().compression_from(1, Compression::Lz4);
    /// ```
    #[must_use]
    pub fn compression_from(mut self, level: u8, compression: Compression) -> Self {
        let first = usize::from(level).min(LEVELS);
        self.compression[first..].fill(compression);
        self.compression_level_max = self.compression_level_max.max(level);
        self
    }

    /// The directory for mappings, as text.
    pub(super) fn map_dir_text(&self) -> Result<Option<String>> {
        let Some(dir) = &self.map_dir else {
            return Ok(None);
        };
        let text = dir.to_str().filter(|text| text.starts_with('/'));
        let text = text.ok_or_else(|| {
            Error::invalid(format!(
                "{dir:?} cannot be the directory for mappings, which later openings must find: \
                 give an absolute path in UTF-8"
            ))
        })?;
        Ok(Some(text.to_owned()))
    }

    pub(super) fn io_backend(&self) -> &IoBackend {
        &self.io
    }

    /// With so many shards, if nobody has said how many.
    pub(super) fn shards_unless_given(mut self, shards: usize) -> Self {
        self.shards.get_or_insert(shards);
        self
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    pub(super) fn creates(&self) -> bool {
        self.create
    }

    pub(super) fn lock_wait_ns(&self) -> u64 {
        u64::try_from(self.lock_wait.as_nanos()).unwrap_or(u64::MAX)
    }
}
