//! How a worker opens its database: drawn for each opening, so that recovery
//! meets what other setups left.

use clap::{Args, ValueEnum};
use fastrand::Rng;
use ourodb::{Compaction, Options};

use crate::Io;
use crate::script::RECORD_BYTES_MAX;

/// The smallest leave a log buffer of a few units, and give a shard memtables
/// that are full within a cycle.
const MEMORY_BYTES: [u64; 3] = [4 << 20, 16 << 20, 64 << 20];

const MEMTABLE_BYTES: [Option<usize>; 3] = [None, Some(64 << 10), Some(256 << 10)];

/// Memtables of the most shards that there may be fit into the memory then.
const MEMORY_PER_MEMTABLE: u64 = 64;

/// The smallest are full after some ten writes.
const WAL_SEGMENT_BYTES: [Option<u64>; 3] = [None, Some(WAL_SEGMENT_BYTES_MIN), Some(256 << 10)];
const WAL_SEGMENT_BYTES_MIN: u64 = 96 << 10;

/// What a segment has besides records, and what its last unit wastes.
const WAL_SEGMENT_OVERHEAD_BYTES: u64 = 2 * 4096;

const _: () = assert!(
    RECORD_BYTES_MAX as u64 + WAL_SEGMENT_OVERHEAD_BYTES <= WAL_SEGMENT_BYTES_MIN,
    "every operation fits into one segment"
);

const OWNERS_MAX: usize = 3;

/// Runs that are merged, in a shard of tiered compaction: the fewest that may
/// be; leveled compaction otherwise.
const TIERED_RUNS: [Option<u32>; 3] = [None, Some(2), Some(3)];

/// Where tables are split: the smallest that there may be.
const TABLE_BYTES: [Option<u64>; 2] = [None, Some(64 << 10)];

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Means something only to the opening that creates the database.
    #[arg(long)]
    shards: usize,
    #[arg(long)]
    owners: usize,
    #[arg(long)]
    memory_bytes: u64,
    #[arg(long)]
    memtable_bytes: Option<usize>,
    #[arg(long)]
    wal_segment_bytes: Option<u64>,
    #[arg(long)]
    tiered_runs: Option<u32>,
    #[arg(long)]
    table_bytes: Option<u64>,
    #[arg(long, value_enum)]
    io: Io,
}

impl Setup {
    pub(crate) fn draw(random: &mut Rng, io: Io) -> Self {
        let shards = 1 << random.u32(..4);
        // Streams of owners that are gone must be replayed all the same.
        let owners = random.usize(1..=OWNERS_MAX);
        let memory_bytes = MEMORY_BYTES[random.usize(..MEMORY_BYTES.len())];
        let memtable_bytes_max = (memory_bytes / MEMORY_PER_MEMTABLE) as usize;
        let memtable_bytes = MEMTABLE_BYTES[random.usize(..MEMTABLE_BYTES.len())];
        Self {
            shards,
            owners,
            memory_bytes,
            memtable_bytes: memtable_bytes.map(|bytes| bytes.min(memtable_bytes_max)),
            wal_segment_bytes: WAL_SEGMENT_BYTES[random.usize(..WAL_SEGMENT_BYTES.len())],
            tiered_runs: TIERED_RUNS[random.usize(..TIERED_RUNS.len())],
            table_bytes: TABLE_BYTES[random.usize(..TABLE_BYTES.len())],
            io,
        }
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::default()
            .shards(self.shards)
            .owners(self.owners)
            .memory(self.memory_bytes)
            .io(self.io.into());
        if let Some(bytes) = self.memtable_bytes {
            options = options.memtable_bytes(bytes);
        }
        if let Some(bytes) = self.wal_segment_bytes {
            options = options.wal_segment_bytes(bytes);
        }
        if let Some(runs) = self.tiered_runs {
            options = options.compaction(Compaction::Tiered).size_ratio(runs);
        }
        if let Some(bytes) = self.table_bytes {
            options = options.table_bytes(bytes);
        }
        options
    }

    /// Flags and their values, as a worker's command line has them.
    pub(crate) fn flags(&self) -> impl Iterator<Item = (&'static str, String)> {
        let io = self.io.to_possible_value().map(|value| value.get_name().to_owned());
        [
            ("--shards", Some(self.shards.to_string())),
            ("--owners", Some(self.owners.to_string())),
            ("--memory-bytes", Some(self.memory_bytes.to_string())),
            ("--memtable-bytes", self.memtable_bytes.map(|bytes| bytes.to_string())),
            ("--wal-segment-bytes", self.wal_segment_bytes.map(|bytes| bytes.to_string())),
            ("--tiered-runs", self.tiered_runs.map(|runs| runs.to_string())),
            ("--table-bytes", self.table_bytes.map(|bytes| bytes.to_string())),
            ("--io", io),
        ]
        .into_iter()
        .filter_map(|(flag, value)| Some((flag, value?)))
    }
}
