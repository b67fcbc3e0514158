//! Options: few inputs, from which the rest derives.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::limits::{SHARDS_MAX, UNIT, UNIT_U64, VALUE_BYTES_MAX, round_up_u64};
use crate::cache::Cache;
use crate::lsm::{Hierarchy, LEVELS, Strategy};
use crate::runtime::OwnerConfig;
use crate::shard::Limits;
use crate::sst::{Compression, PinLimits};
use crate::value::PIECE_BYTES;
use crate::wal::{MapSizes, SEGMENT_BYTES_MAX, SegmentSizes};

const MIB: u64 = 1 << 20;

/// The smallest memory budget.
const MEMORY_MIN: u64 = 4 * MIB;

/// The first segment of a stream, unless segments are smaller anyway.
const SEGMENT_FIRST_BYTES: u64 = MIB;

/// Immutable memtables a shard may have before its writers wait.
const FROZEN_MAX: usize = 1;

/// Buffers of a stream's mapping: while one is written, others fill up.
const MAP_SLOTS: usize = 8;

/// Bytes of such a buffer at most: what a device writes in a fraction of a
/// millisecond.
const MAP_SLOT_BYTES: usize = 256 << 10;

/// The shares of the memory budget, in percent: memtables; block caches; filters
/// and indexes, before they take from memtables; what compactions read ahead.
/// Mappings and memory kept for memtables to come have a sixteenth each.
const MEMTABLES_PERCENT: u64 = 40;
const CACHE_PERCENT: u64 = 25;
const PINNED_PERCENT: u64 = 12;
const COMPACTION_PERCENT: u64 = 4;

const _: () = assert!(
    MEMTABLES_PERCENT + CACHE_PERCENT + PINNED_PERCENT + COMPACTION_PERCENT + 2 * 100 / 16 <= 97
);

/// What filters and indexes take at most, most of it from memtables: those that
/// stay in memory, and those that are cached.
const PINNED_MAX_PERCENT: u64 = 24;
const PARTITION_CACHE_PERCENT: u64 = 6;

/// Of what may stay in memory, those of the oldest data may have two of three
/// parts, so that those of young tables, which all lookups ask, find room.
const OLDEST_PARTS: u64 = 2;
const PINNED_PARTS: u64 = 3;

/// What a cache of filters and indexes has at least: room for one or two.
const PARTITION_CACHE_BYTES_MIN: u64 = 128 << 10;

const _: () = assert!(
    PINNED_MAX_PERCENT + PARTITION_CACHE_PERCENT - PINNED_PERCENT <= MEMTABLES_PERCENT * 3 / 4,
    "memtables give no more than three quarters"
);

/// What compactions of one owner read ahead, at least and at most.
const COMPACTION_BYTES_MIN: u64 = 128 << 10;
const COMPACTION_BYTES_MAX: u64 = 8 << 20;

/// The share of the memory budget that is kept of flushed memtables: one in so
/// many.
const ARENAS_SHARE: u64 = 16;

/// The share of the memory budget that mappings may take: one in so many.
const MAP_SHARE: u64 = 16;

/// The share of the memory budget that one value may take: one in so many.
const VALUE_SHARE: u64 = 4;

/// The share of the memory budget that idle buffers for long values may take:
/// one in so many.
const VALUE_BUFFERS_SHARE: u64 = 64;

/// Such buffers at most.
const VALUE_BUFFERS_MAX: u64 = 16;

/// Requests of futures at one owner, unless the user says otherwise: as many
/// as fit on its ring beside its own.
const REQUESTS_MAX: usize = 192;
const REQUESTS_LIMIT: usize = 1 << 16;

/// How long owners look out for work, unless the user says otherwise.
const SPIN: Duration = Duration::ZERO;

/// How many times a level is as large as the one above it.
const SIZE_RATIO: u32 = 10;

/// Where merged tables may be split.
const TABLE_BYTES_MIN: u64 = 64 << 10;
const TABLE_BYTES_MAX: u64 = 1 << 30;

/// With so many tables on level 0, compaction is behind.
const NEWEST_TABLES_BEHIND: usize = 24;

const IDLE: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_millis(500);

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
    /// take is wasted.
    Tiered,
    /// First in, first out: nothing is merged. The oldest tables are dropped,
    /// **and what they hold is gone**, once there is more data, or it is older,
    /// than this. A key that is written again and again keeps its newest value
    /// only as long as that lasts.
    Fifo {
        /// Bytes of tables; each shard may have an equal part of them.
        max_bytes: Option<u64>,
        /// Since an entry went from memory into a table; whole seconds.
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
    memtable_bytes: Option<usize>,
    cache_bytes: Option<u64>,
    pinned_bytes: Option<u64>,
    wal_segment_bytes: Option<u64>,
    durability: Durability,
    requests_max: usize,
    spin: Duration,
    is_pinned: bool,
    map_dir: Option<PathBuf>,
    compaction: Compaction,
    levels: u8,
    size_ratio: u32,
    table_bytes: Option<u64>,
    compression: [Compression; LEVELS],
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
            memtable_bytes: None,
            cache_bytes: None,
            pinned_bytes: None,
            wal_segment_bytes: None,
            durability: Durability::default(),
            requests_max: REQUESTS_MAX,
            spin: SPIN,
            is_pinned: false,
            map_dir: None,
            compaction: Compaction::default(),
            levels: LEVELS as u8,
            size_ratio: SIZE_RATIO,
            table_bytes: None,
            compression: [Compression::None; LEVELS],
        }
    }
}

impl Options {
    /// The memory budget in bytes; 256 MiB by default, at least 4 MiB: 40 % for
    /// memtables, 25 % for the caches of blocks of tables, which take it as they
    /// fill up, 12 % for filters and indexes of tables (about 2 % of the data),
    /// the rest for mappings of the log, and buffers. Filters and indexes that
    /// need more take it from memtables, up to 30 % of the budget. With more data
    /// than some 10 times the budget not all of them stay in memory (see
    /// [`Options::pinned_bytes`]): a lookup in the rest may read the device once
    /// more. What must stay of all tables is about 0.1 % of the data, so that more
    /// data than some 200 times the budget go beyond it.
    ///
    /// Not counted: threads' stacks and the program itself, what `malloc` does not
    /// give back, and the read-ahead of open scans, up to 1 MiB a shard for each.
    /// With few threads, resident memory is at most 5 % and 32 MiB above the budget,
    /// some 6 MiB of that the program.
    ///
    /// A quarter of it, or [`VALUE_BYTES_MAX`] if that is
    /// less, is the longest value that a write takes. Longer ones that are there
    /// can be read.
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
    /// WAL stream of its own. By default as many as cores; never more than
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
    /// that is written to and one on its way into a table.
    ///
    /// ```
    /// let options = ourodb::Options::default().memtable_bytes(16 << 20);
    /// ```
    #[must_use]
    pub fn memtable_bytes(mut self, bytes: usize) -> Self {
        self.memtable_bytes = Some(bytes);
        self
    }

    /// Bytes for the caches of blocks of tables, all together, in place of 25 %
    /// of the memory budget. The owners share them evenly; opening fails with
    /// `InvalidArgument` where that is not even one block each (less than 5 KiB).
    /// With 0 there is no cache: every lookup in a table reads the device.
    ///
    /// ```
    /// let options = ourodb::Options::default().cache_bytes(1 << 30);
    /// ```
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = Some(bytes);
        self
    }

    /// Bytes that filters and indexes of tables may take for good, in place of 24 %
    /// of the memory budget; at most all of it. A table whose filters and indexes
    /// would go beyond that (beyond two thirds of it, where nothing older has keys in
    /// its range) has them read as they are needed, some 20 to 60 KiB at a time, and
    /// cached in another 6 % of the budget: a lookup that finds neither there reads
    /// the device twice, and one of an absent key once. They come to stay once there
    /// is room. With 0 no table has them stay.
    ///
    /// ```
    /// let options = ourodb::Options::default().pinned_bytes(128 << 20);
    /// ```
    #[must_use]
    pub fn pinned_bytes(mut self, bytes: u64) -> Self {
        self.pinned_bytes = Some(bytes);
        self
    }

    /// The largest log segment in bytes, a multiple of 4096 and at least 8192,
    /// in place of a 64th of the memory budget (1 to 64 MiB). Segments
    /// start at 1 MiB and double up to this. A batch fits in the first segment.
    ///
    /// ```
    /// let options = ourodb::Options::default().wal_segment_bytes(4 << 20);
    /// ```
    #[must_use]
    pub fn wal_segment_bytes(mut self, bytes: u64) -> Self {
        self.wal_segment_bytes = Some(bytes);
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
        self.table_bytes = Some(bytes);
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

    /// How tables of one level, and of all below it, are compressed. Tables
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

    pub(super) fn creates(&self) -> bool {
        self.create
    }

    pub(super) fn lock_wait_ns(&self) -> u64 {
        u64::try_from(self.lock_wait.as_nanos()).unwrap_or(u64::MAX)
    }

    /// What these options come to on a machine with `cores` cores.
    pub(super) fn derive(&self, cores: usize) -> Result<Derived> {
        let memory = self.memory_bytes;
        if memory < MEMORY_MIN {
            return Err(Error::invalid(format!(
                "a memory budget of {memory} bytes is too small to work with; give at least \
                 {MEMORY_MIN}"
            )));
        }
        let shards = self.shards.unwrap_or_else(|| cores.next_power_of_two().max(4));
        if !(1..=SHARDS_MAX).contains(&shards) {
            return Err(Error::invalid(format!("{shards} shards; 1 to {SHARDS_MAX} are allowed")));
        }
        let owners = self.owners.unwrap_or(cores);
        if !(1..=SHARDS_MAX).contains(&owners) {
            return Err(Error::invalid(format!("{owners} owners; 1 to {SHARDS_MAX} are allowed")));
        }
        if let Some(bytes) = self.cache_bytes {
            let least = (owners.min(shards) * Cache::FRAME_BYTES) as u64;
            if 0 < bytes && bytes < least {
                return Err(Error::invalid(format!(
                    "block caches of {bytes} bytes; give them 0, or at least {least}"
                )));
            }
        }
        if let Some(bytes) = self.pinned_bytes
            && bytes > memory
        {
            return Err(Error::invalid(format!(
                "{bytes} pinned bytes of filters and indexes; at most the memory budget, {memory}, \
                 is allowed"
            )));
        }
        let max_bytes = match self.wal_segment_bytes {
            None => round_up_u64((memory / 64).clamp(MIB, 64 * MIB)),
            Some(bytes)
                if bytes.is_multiple_of(UNIT_U64)
                    && (2 * UNIT_U64..=SEGMENT_BYTES_MAX).contains(&bytes) =>
            {
                bytes
            }
            Some(bytes) => {
                return Err(Error::invalid(format!(
                    "log segments of {bytes} bytes; a multiple of {UNIT} from {} to 1 GiB is \
                     allowed",
                    2 * UNIT
                )));
            }
        };
        if !(1..=REQUESTS_LIMIT).contains(&self.requests_max) {
            return Err(Error::invalid(format!(
                "{} requests at an owner; 1 to {REQUESTS_LIMIT} are allowed",
                self.requests_max
            )));
        }
        if !(2..=LEVELS).contains(&usize::from(self.levels)) {
            return Err(Error::invalid(format!(
                "{} levels; 2 to {LEVELS} are allowed",
                self.levels
            )));
        }
        if !(2..=100).contains(&self.size_ratio) {
            return Err(Error::invalid(format!(
                "a size ratio of {}; 2 to 100 are allowed",
                self.size_ratio
            )));
        }
        if let Some(bytes) = self.table_bytes
            && !(TABLE_BYTES_MIN..=TABLE_BYTES_MAX).contains(&bytes)
        {
            return Err(Error::invalid(format!(
                "tables of {bytes} bytes; {TABLE_BYTES_MIN} to {TABLE_BYTES_MAX} are allowed"
            )));
        }
        for compression in self.compression {
            compression.check().map_err(Error::unsupported)?;
        }
        if matches!(self.compaction, Compaction::Fifo { max_bytes: None, max_age: None }) {
            return Err(Error::invalid(
                "compaction first in, first out drops nothing without a bound: give it a number \
                 of bytes, an age, or both"
                    .to_owned(),
            ));
        }
        let first_bytes = max_bytes.min(SEGMENT_FIRST_BYTES);
        Ok(Derived {
            memory,
            memtable_bytes: self.memtable_bytes,
            cache_bytes: self.cache_bytes,
            pinned_bytes: self.pinned_bytes,
            shards,
            owners,
            segments: SegmentSizes { first_bytes, max_bytes },
            durability: self.durability,
            requests_max: self.requests_max,
            spin_ns: u64::try_from(self.spin.as_nanos()).unwrap_or(u64::MAX),
            is_pinned: self.is_pinned,
            compaction: self.compaction,
            levels: self.levels,
            size_ratio: self.size_ratio,
            table_bytes: self.table_bytes,
            compression: self.compression,
        })
    }
}

/// Everything that options leave open, decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Derived {
    memory: u64,
    memtable_bytes: Option<usize>,
    cache_bytes: Option<u64>,
    pinned_bytes: Option<u64>,
    pub(super) shards: usize,
    pub(super) owners: usize,
    pub(super) segments: SegmentSizes,
    durability: Durability,
    pub(super) requests_max: usize,
    spin_ns: u64,
    is_pinned: bool,
    compaction: Compaction,
    levels: u8,
    size_ratio: u32,
    table_bytes: Option<u64>,
    compression: [Compression; LEVELS],
}

impl Derived {
    /// How owners behave.
    pub(super) fn owner_config(&self) -> OwnerConfig {
        OwnerConfig { spin_ns: self.spin_ns, logs_stalls: true, is_pinned: self.is_pinned }
    }

    /// The bounds of a database with this many shards.
    pub(super) fn limits(&self, shards: usize) -> Limits {
        let memtables = shards * (1 + FROZEN_MAX);
        let owners = self.owners.min(shards);
        let share = (self.memory / 100 * MEMTABLES_PERCENT) as usize;
        let memtable_bytes = self.memtable_bytes.unwrap_or_else(|| share / memtables).max(UNIT);
        let group_bytes_max = (self.segments.first_bytes - UNIT_U64) as usize;
        let slots_bytes = round_up_u64(self.memory / MAP_SHARE / owners as u64) as usize;
        let slot_bytes = (slots_bytes / MAP_SLOTS).clamp(UNIT, MAP_SLOT_BYTES) / UNIT * UNIT;
        Limits {
            memory: self.memory,
            memtable_bytes,
            frozen_max: FROZEN_MAX,
            wal_bytes_max: (self.memory / owners as u64).max(4 * self.segments.max_bytes),
            value_bytes_max: (self.memory / VALUE_SHARE).min(VALUE_BYTES_MAX as u64) as usize,
            group_bytes_max,
            map: MapSizes {
                slot_bytes: slot_bytes.min(group_bytes_max) as u32,
                slots: MAP_SLOTS as u16,
            },
            durability: self.durability,
            cache_bytes: self.cache_bytes(owners),
            idle_ns: IDLE.as_nanos() as u64,
            retry_ns: RETRY.as_nanos() as u64,
            hierarchy: self.hierarchy(shards, memtable_bytes),
            newest_tables_behind: self.newest_tables_behind(),
            newest_tables_max: self.newest_tables_behind().saturating_mul(2),
            pinned_bytes_free: match self.memtable_bytes {
                None => Some(self.memory / 100 * PINNED_PERCENT),
                Some(_) => None,
            },
            pins: self.pins(),
            partition_cache_bytes: (self.memory / 100 * PARTITION_CACHE_PERCENT / owners as u64)
                .max(PARTITION_CACHE_BYTES_MIN) as usize,
            compaction_read_bytes: (self.memory / 100 * COMPACTION_PERCENT / owners as u64)
                .clamp(COMPACTION_BYTES_MIN, COMPACTION_BYTES_MAX)
                as usize,
        }
    }

    /// So many tables may be on level 0 before writers are slowed down.
    fn newest_tables_behind(&self) -> usize {
        match self.compaction {
            Compaction::Leveled => NEWEST_TABLES_BEHIND,
            Compaction::Tiered => NEWEST_TABLES_BEHIND.max(2 * self.size_ratio as usize),
            // They are all there.
            Compaction::Fifo { .. } => usize::MAX / 2,
        }
    }

    fn hierarchy(&self, shards: usize, memtable_bytes: usize) -> Hierarchy {
        let memtable_bytes = memtable_bytes as u64;
        let derived_bytes = || (4 * memtable_bytes).clamp(MIB, 64 * MIB);
        let strategy = match self.compaction {
            Compaction::Leveled => Strategy::Leveled,
            Compaction::Tiered => Strategy::Tiered,
            Compaction::Fifo { max_bytes, max_age } => Strategy::Fifo {
                bytes_max: max_bytes.map(|bytes| bytes / shards as u64),
                age_s_max: max_age.map(|age| age.as_secs()),
            },
        };
        Hierarchy {
            strategy,
            levels: self.levels,
            size_ratio: u64::from(self.size_ratio),
            table_bytes: self.table_bytes.unwrap_or_else(derived_bytes),
            memtable_bytes,
            compression: self.compression,
        }
    }

    /// What filters and indexes may take for good.
    fn pins(&self) -> PinLimits {
        let share = self.memory / 100 * PINNED_MAX_PERCENT;
        let bytes_max = self.pinned_bytes.unwrap_or(share);
        PinLimits { bytes_max, oldest_bytes_max: bytes_max / PINNED_PARTS * OLDEST_PARTS }
    }

    /// The cache of each of so many owners.
    fn cache_bytes(&self, owners: usize) -> usize {
        let owners = owners as u64;
        let bytes = match self.cache_bytes {
            // Never none: what is too little for more owners than there were to
            // be is refused.
            Some(bytes) => bytes.div_ceil(owners),
            None => {
                let bytes = self.memory / 100 * CACHE_PERCENT / owners;
                if bytes < Cache::FRAME_BYTES as u64 { 0 } else { bytes }
            }
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Memory of flushed memtables that is kept for the next ones.
    pub(super) fn arena_bytes(&self) -> usize {
        (self.memory / ARENAS_SHARE) as usize
    }

    /// Buffers that long values are written and read with, and that are kept.
    pub(super) fn value_buffers(&self) -> usize {
        let share = self.memory / VALUE_BUFFERS_SHARE / PIECE_BYTES as u64;
        share.clamp(1, VALUE_BUFFERS_MAX) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_stay_within_the_budget() {
        for cores in [1, 2, 16, 100] {
            let derived = Options::default().derive(cores).expect("defaults are possible");
            assert!(derived.shards.is_power_of_two() && derived.shards >= 4);
            let limits = derived.limits(derived.shards);
            let memtables = limits.memtable_bytes * derived.shards * (1 + FROZEN_MAX);
            assert!(memtables as u64 <= derived.memory * 4 / 10);
            let caches = limits.cache_bytes * derived.owners.min(derived.shards);
            assert!(caches as u64 <= derived.memory / 4 && caches > 60 << 20);
            let partitions = limits.partition_cache_bytes * derived.owners.min(derived.shards);
            assert!(limits.pins.bytes_max + partitions as u64 <= derived.memory * 3 / 10);
            assert!(limits.pins.oldest_bytes_max < limits.pins.bytes_max);
        }
    }

    #[test]
    fn caches_may_be_set_and_left_out() {
        let cache_bytes = |options: Options| {
            let derived = options.owners(4).derive(4).expect("possible");
            derived.limits(derived.shards).cache_bytes
        };
        assert_eq!(cache_bytes(Options::default().cache_bytes(1 << 20)), 256 << 10);
        assert_eq!(cache_bytes(Options::default().cache_bytes(0)), 0);
        // Too little for one block each, of itself: none.
        let many = Options::default().memory(MEMORY_MIN).shards(4096).owners(4096);
        let derived = many.derive(1).expect("possible");
        assert_eq!(derived.limits(4096).cache_bytes, 0);
    }

    #[test]
    fn impossible_options_are_refused() {
        let refused = |options: Options| {
            let error = options.derive(2).expect_err("impossible");
            assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument);
        };
        refused(Options::default().memory(0));
        refused(Options::default().shards(0));
        refused(Options::default().shards(5000));
        refused(Options::default().owners(0));
        refused(Options::default().requests_max(0));
        refused(Options::default().cache_bytes(4096));
        refused(Options::default().owners(4).cache_bytes(16 << 10));
        refused(Options::default().memory(4 << 20).pinned_bytes((4 << 20) + 1));
        refused(Options::default().wal_segment_bytes(4096));
        refused(Options::default().wal_segment_bytes(10_000));
    }

    #[test]
    fn zstd_is_refused_unless_it_was_built_in() {
        for level in [0, LEVELS as u8 - 1] {
            let options = Options::default().compression_from(level, Compression::Zstd);
            let refused = options.derive(2).err();
            assert_eq!(refused.is_none(), cfg!(feature = "zstd"));
            if let Some(error) = refused {
                assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
                assert!(error.to_string().contains("feature `zstd`"), "{error}");
            }
        }
    }
}
