//! Options: few inputs, from which the rest derives.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::limits::{SHARDS_MAX, UNIT, UNIT_U64, round_up_u64};
use crate::runtime::OwnerConfig;
use crate::shard::Limits;
use crate::wal::{MapSizes, SEGMENT_BYTES_MAX, SegmentSizes};

const MIB: u64 = 1 << 20;

/// The smallest memory budget.
const MEMORY_MIN: u64 = 4 * MIB;

/// The first segment of a stream, unless segments are smaller anyway.
const SEGMENT_FIRST_BYTES: u64 = MIB;

/// Immutable memtables a shard may have before its writers wait.
const FROZEN_MAX: usize = 2;

/// Buffers of a stream's mapping: while one is written, others fill up.
const MAP_SLOTS: usize = 8;

/// Bytes of such a buffer at most: what a device writes in a fraction of a
/// millisecond.
const MAP_SLOT_BYTES: usize = 256 << 10;

/// The share of the memory budget that mappings may take: one in so many.
const MAP_SHARE: u64 = 16;

/// Requests of futures at one owner, unless the user says otherwise: as many
/// as fit on its ring beside its own.
const REQUESTS_MAX: usize = 192;
const REQUESTS_LIMIT: usize = 1 << 16;

/// How long owners look out for work, unless the user says otherwise.
const SPIN: Duration = Duration::ZERO;

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
    wal_segment_bytes: Option<u64>,
    durability: Durability,
    requests_max: usize,
    spin: Duration,
    is_pinned: bool,
    map_dir: Option<PathBuf>,
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
            wal_segment_bytes: None,
            durability: Durability::default(),
            requests_max: REQUESTS_MAX,
            spin: SPIN,
            is_pinned: false,
            map_dir: None,
        }
    }
}

impl Options {
    /// The memory budget in bytes; 256 MiB by default, at least 4 MiB. Half of
    /// it is for memtables. Not counted yet: filters and indexes of tables
    /// (about 2 % of the data), and the read-ahead of scans, up to 256 KiB for
    /// each table a scan touches.
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
    /// memory budget gives: half of it over all shards, each with one memtable
    /// that is written to and two on their way into tables.
    ///
    /// ```
    /// let options = ourodb::Options::default().memtable_bytes(16 << 20);
    /// ```
    #[must_use]
    pub fn memtable_bytes(mut self, bytes: usize) -> Self {
        self.memtable_bytes = Some(bytes);
        self
    }

    /// The largest log segment in bytes, a multiple of 4096 and at least 8192,
    /// in place of a sixteenth of the memory budget (1 to 64 MiB). Segments
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
        let max_bytes = match self.wal_segment_bytes {
            None => round_up_u64((memory / 16).clamp(MIB, 64 * MIB)),
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
        let first_bytes = max_bytes.min(SEGMENT_FIRST_BYTES);
        Ok(Derived {
            memory,
            memtable_bytes: self.memtable_bytes,
            shards,
            owners,
            segments: SegmentSizes { first_bytes, max_bytes },
            durability: self.durability,
            requests_max: self.requests_max,
            spin_ns: u64::try_from(self.spin.as_nanos()).unwrap_or(u64::MAX),
            is_pinned: self.is_pinned,
        })
    }
}

/// Everything that options leave open, decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Derived {
    memory: u64,
    memtable_bytes: Option<usize>,
    pub(super) shards: usize,
    pub(super) owners: usize,
    pub(super) segments: SegmentSizes,
    durability: Durability,
    pub(super) requests_max: usize,
    spin_ns: u64,
    is_pinned: bool,
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
        let memtable_bytes =
            self.memtable_bytes.unwrap_or_else(|| (self.memory / 2) as usize / memtables).max(UNIT);
        let group_bytes_max = (self.segments.first_bytes - UNIT_U64) as usize;
        let slots_bytes = round_up_u64(self.memory / MAP_SHARE / owners as u64) as usize;
        let slot_bytes = (slots_bytes / MAP_SLOTS).clamp(UNIT, MAP_SLOT_BYTES) / UNIT * UNIT;
        Limits {
            memtable_bytes,
            frozen_max: FROZEN_MAX,
            wal_bytes_max: (self.memory / owners as u64).max(4 * self.segments.max_bytes),
            group_bytes_max,
            map: MapSizes {
                slot_bytes: slot_bytes.min(group_bytes_max) as u32,
                slots: MAP_SLOTS as u16,
            },
            durability: self.durability,
            idle_ns: IDLE.as_nanos() as u64,
            retry_ns: RETRY.as_nanos() as u64,
        }
    }

    /// Memory of flushed memtables that is kept for the next ones.
    pub(super) fn arena_bytes(&self) -> usize {
        (self.memory / 8) as usize
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
            assert!(memtables as u64 <= derived.memory / 2);
        }
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
        refused(Options::default().wal_segment_bytes(4096));
        refused(Options::default().wal_segment_bytes(10_000));
    }
}
