//! What a seed draws: the machine's faults, the engine's limits, and what the
//! clients do. Each seed switches a random part of it on, so that rare paths meet
//! each other (A. Groce et al.: "Swarm Testing", 2012).

use std::time::Duration;

use fastrand::Rng;
use ourodb::sim::{FaultKind, Faults, Sim};
use ourodb::{Compaction, Compression, Durability, IoBackend, Options};

use crate::manner::Without;

/// The longest values that every log takes.
const LOGGED_BYTES_MAX: usize = 11_000;

/// What clients do, with how often they do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Put,
    Delete,
    Batch,
    DeleteRange,
    Get,
    MultiGet,
    Scan,
    ScanKeys,
    Flush,
    Compact,
    Rest,
}

const ACTS: [(Act, u32); 11] = [
    (Act::Put, 40),
    (Act::Delete, 10),
    (Act::Batch, 10),
    (Act::DeleteRange, 4),
    (Act::Get, 25),
    (Act::MultiGet, 6),
    (Act::Scan, 6),
    (Act::ScanKeys, 2),
    (Act::Flush, 1),
    (Act::Compact, 1),
    (Act::Rest, 4),
];

/// How a client waits for its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As a thread does, which leads groups of the log.
    Thread,
    /// As futures do, for which the owners write.
    Future,
    /// Either.
    Both,
}

/// How the life of a process may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It closes the database.
    Close,
    /// It drops the last handle, and ends a while later.
    Drop,
    Kill,
    PowerCut,
}

/// All that a seed decides beforehand.
pub(crate) struct Plan {
    pub(crate) shards: usize,
    pub(crate) clients: usize,
    pub(crate) keys_per_client: usize,
    pub(crate) style: Style,
    pub(crate) faults: Faults,
    /// Requests that look fail in the device.
    pub(crate) fails_reads: bool,
    /// Requests that change something do.
    pub(crate) fails_writes: bool,
    /// There is no space for some.
    pub(crate) lacks_space: bool,
    /// A sync of a log or a manifest may fail.
    pub(crate) fails_syncs: bool,
    /// Tables and value files may be damaged.
    pub(crate) damages: bool,
    /// Requests take so long that nothing is durable in time for certain.
    pub(crate) is_slow: bool,
    /// Bytes of the disk beyond what is used at an opening.
    pub(crate) disk_bytes_free: Option<u64>,
    acts: Vec<(Act, u32)>,
    durabilities: Vec<Durability>,
    value_bytes_max: usize,
    ends: Vec<End>,
    memtable_bytes: usize,
    pub(crate) wal_segment_bytes: u64,
    pinned_bytes: Option<u64>,
    varies: bool,
    /// Some openings put mappings of the log into a directory of their own choice.
    maps_elsewhere: bool,
}

/// The request from which on all fail: soon after an opening, or late.
fn breaking_at(rng: &mut Rng) -> u64 {
    let most = [30, 300, 3000][rng.usize(..3)];
    rng.u64(1..=most)
}

/// Such memtables lend memory to the block cache.
const LENDING_MEMTABLE_BYTES: usize = 64 << 10;

impl Plan {
    /// The plan of a seed, but for what the command line leaves out.
    pub(crate) fn draw(seed: u64, without: &[Without]) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x706c_616e);
        // Everything is drawn, whatever is left out, so that the rest stays the same.
        let mut one_in = |of: u32| rng.u32(..of) == 0;
        let is_in = |what: Without| !without.contains(&what);
        let delays = one_in(2) && is_in(Without::Delay);
        let reorders = one_in(2) && is_in(Without::Reorder);
        let shortens = one_in(3) && is_in(Without::Short);
        let refuses = one_in(3) && is_in(Without::Again);
        let fails_reads = one_in(5) && is_in(Without::ReadError);
        let fails_writes = one_in(5) && is_in(Without::WriteError);
        let has_no_space = one_in(5) && is_in(Without::NoSpace);
        let is_full = one_in(6) && is_in(Without::FullDisk);
        let crashes = !one_in(6) && is_in(Without::Crash);
        let deletes_ranges = !one_in(4) && is_in(Without::DeleteRange);
        let varies = !one_in(4) && is_in(Without::Vary);
        let scans = is_in(Without::Scan);

        let delay_max = [20_000, 300_000, 5_000_000, 200_000_000][rng.usize(..4)];
        let ppm = |rng: &mut Rng, max: u32| 1 + rng.u32(..max);
        let (short, again) = (ppm(&mut rng, 200_000), ppm(&mut rng, 100_000));
        let writes_max = [2_000, 2_000, 40_000][rng.usize(..3)];
        let (read, write, space) =
            (ppm(&mut rng, 20_000), ppm(&mut rng, writes_max), ppm(&mut rng, 50_000));
        let mut faults = Faults::default().reorder(reorders);
        if delays {
            faults = faults.delay_ns(1_000..=delay_max);
        }
        if shortens {
            faults = faults.short_ppm(short);
        }
        if refuses {
            faults = faults.again_ppm(again);
        }
        if fails_reads {
            faults = faults.read_error_ppm(read);
        }
        if fails_writes {
            faults = faults.write_error_ppm(write);
        }
        if has_no_space {
            faults = faults.no_space_ppm(space);
        }
        // Drawn on its own: it came later, and seeds that people know stay what they were.
        let mut own = Rng::with_seed(seed ^ 0x64_616d_6167);
        let damages = own.u32(..10) == 0 && is_in(Without::Damage);
        if damages {
            faults = faults.rot_ppm(ppm(&mut own, 1_000));
            faults = faults.lost_write_ppm(ppm(&mut own, 5_000));
            faults = faults.misdirected_write_ppm(ppm(&mut own, 5_000));
            faults = faults.damage_only(&[".sst", ".val"]);
        }
        let maps_elsewhere = own.u32(..6) == 0;
        // From some request on all fail: the device is gone, or full.
        let breaks = own.u32(..8) == 0 && is_in(Without::ReadError) && is_in(Without::WriteError);
        let fills = own.u32(..12) == 0 && is_in(Without::NoSpace);
        let (breaks_at, fills_at) = (breaking_at(&mut own), breaking_at(&mut own));
        if breaks {
            faults = faults.fail_kth(breaks_at, FaultKind::Io, true);
        }
        if fills {
            faults = faults.fail_kth(fills_at, FaultKind::NoSpace, true);
        }
        let syncs_find_no_space = own.u32(..8) == 0 && is_in(Without::NoSpace);
        if syncs_find_no_space {
            faults = faults.sync_no_space_ppm(ppm(&mut own, 20_000));
        }
        let free = (256 << 10) + rng.u64(..4 << 20);

        let acts = ACTS.iter().filter_map(|&(act, weight)| {
            let drawn = [0, 1, 1, 4][rng.usize(..4)];
            let is_out = (act == Act::DeleteRange && !deletes_ranges)
                || (matches!(act, Act::Scan | Act::ScanKeys) && !scans);
            let weight = if act == Act::Put { weight } else { weight * drawn };
            (weight > 0 && !is_out).then_some((act, weight))
        });
        let acts = acts.collect();
        let within = Duration::from_millis(1 + rng.u64(..50));
        let durabilities = match rng.u32(..5) {
            0 => vec![Durability::Durable],
            1 => vec![Durability::ProcessSafe],
            2 => vec![Durability::Durable, Durability::ProcessSafe],
            _ => vec![
                Durability::Durable,
                Durability::ProcessSafe,
                Durability::ProcessSafe,
                Durability::Relaxed { within },
            ],
        };
        let ends = match (crashes, rng.u32(..4)) {
            (false, _) => vec![End::Close, End::Drop],
            (true, 0) => vec![End::Kill],
            (true, 1) => vec![End::PowerCut],
            (true, _) => {
                vec![End::Close, End::Drop, End::Kill, End::Kill, End::PowerCut, End::PowerCut]
            }
        };
        Self {
            shards: 1 + rng.usize(..4),
            clients: rng.usize(1..=if is_in(Without::Clients) { 6 } else { 1 }),
            keys_per_client: [3, 10, 30][rng.usize(..3)],
            style: [Style::Thread, Style::Future, Style::Both, Style::Both][rng.usize(..4)],
            faults,
            fails_reads: fails_reads || breaks,
            fails_writes: fails_writes || breaks,
            lacks_space: has_no_space || is_full || fills || syncs_find_no_space,
            fails_syncs: fails_writes || breaks || syncs_find_no_space,
            damages,
            is_slow: delays && delay_max > 10_000_000,
            disk_bytes_free: is_full.then_some(free),
            acts,
            durabilities,
            value_bytes_max: [10, 100, 1000, 6000, 12_000, 90_000][rng.usize(..6)],
            ends,
            memtable_bytes: [4096, 4096, 16 << 10, LENDING_MEMTABLE_BYTES][rng.usize(..4)],
            wal_segment_bytes: [16 << 10, 16 << 10, 64 << 10][rng.usize(..3)],
            pinned_bytes: [None, Some(0), Some(16 << 10)][rng.usize(..3)],
            varies,
            maps_elsewhere,
        }
    }

    /// Requests may fail.
    pub(crate) fn fails(&self) -> bool {
        self.fails_reads || self.fails_writes || self.lacks_space
    }

    pub(crate) fn act(&self, rng: &mut Rng) -> Act {
        let all: u32 = self.acts.iter().map(|(_, weight)| weight).sum();
        let mut at = rng.u32(..all);
        for &(act, weight) in &self.acts {
            match at.checked_sub(weight) {
                Some(left) => at = left,
                None => return act,
            }
        }
        unreachable!("it is below the sum")
    }

    pub(crate) fn durability(&self, rng: &mut Rng) -> Durability {
        self.durabilities[rng.usize(..self.durabilities.len())]
    }

    pub(crate) fn end(&self, rng: &mut Rng) -> End {
        self.ends[rng.usize(..self.ends.len())]
    }

    /// The length of a value: mostly short.
    pub(crate) fn value_bytes(&self, rng: &mut Rng) -> usize {
        let max = match rng.u32(..12) {
            0 => self.value_bytes_max,
            1..4 => self.value_bytes_max.min(1000),
            _ => self.value_bytes_max.min(60),
        };
        match rng.usize(..=max) {
            len if len <= LOGGED_BYTES_MAX => len,
            // In between, values are for the log, and the smallest logs have no room for
            // them.
            len => (64 << 10) + 1 + len,
        }
    }

    /// What the next opening is opened with.
    pub(crate) fn options(&self, sim: &Sim, rng: &mut Rng) -> Options {
        let options = Options::default()
            .io(IoBackend::Sim(sim.clone()))
            .shards(self.shards)
            .owners(1 + rng.usize(..self.shards.min(3)))
            .memtable_bytes(self.memtable_bytes)
            .wal_segment_bytes(self.wal_segment_bytes)
            .table_bytes(64 << 10)
            .cache_bytes(48 << 10);
        // Of large memtables the cache may borrow some.
        let options = match self.memtable_bytes {
            LENDING_MEMTABLE_BYTES => options.cache_bytes_max(2 << 20),
            _ => options,
        };
        let options = match self.pinned_bytes {
            Some(bytes) => options.pinned_bytes(bytes),
            None => options,
        };
        // The one directory that is there without the database.
        let options = match self.maps_elsewhere && rng.u8(..3) > 0 {
            true => options.map_dir("/"),
            false => options,
        };
        if !self.varies {
            return options;
        }
        let compaction = match rng.u32(..5) {
            0 | 1 => Compaction::Tiered,
            // Nothing is ever beyond it.
            2 => Compaction::Fifo { max_bytes: Some(1 << 40), max_age: None },
            _ => Compaction::Leveled,
        };
        let options = match rng.u8(..8) {
            7 => options,
            from => options.compression_from(from, Compression::Lz4),
        };
        options
            .compaction(compaction)
            .levels(2 + rng.u8(..6))
            .size_ratio(2 + rng.u32(..9))
            .cache_bytes([0, 18 << 10, 48 << 10, 1 << 20][rng.usize(..4)])
    }
}
