//! The block cache: what share of accesses different evictions serve, and what
//! a hit and a miss cost.
//!
//! The hit ratios are printed first: S3-FIFO, which the engine uses, beside LRU
//! and CLOCK, which are here alone. Each trace goes over `BLOCKS` blocks, with
//! caches of 1 %, 10 % and 50 % of them; its first half warms them up.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group};
use ourodb::bench::{CacheBench, Frequencies, Policy, S3Fifo};

const BLOCKS: u64 = 100_000;
const ACCESSES: usize = 2_000_000;
const THETA: f64 = 0.99;
/// Blocks that a scan reads, one after the other; and how many other accesses
/// there are for each scan.
const SCAN_BLOCKS: u64 = 1000;

/// xorshift64*: the order must be the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In 0..1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// As good as random, and the same for the same block.
fn fingerprint(block: u64) -> u64 {
    let mixed = (block + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Block numbers by their rank: the sums of 1 / rank^theta, searched.
struct Zipfian {
    sums: Vec<f64>,
}

impl Zipfian {
    fn new() -> Self {
        let mut sum = 0.0;
        let sums = (1..=BLOCKS)
            .map(|rank| {
                sum += (rank as f64).powf(-THETA);
                sum
            })
            .collect();
        Self { sums }
    }

    fn next(&self, random: &mut Random) -> u64 {
        let total = self.sums.last().expect("there are blocks");
        let wanted = random.fraction() * total;
        let rank = self.sums.partition_point(|sum| *sum <= wanted) as u64;
        // Neighbours in rank are not neighbours in a table.
        rank * 61_001 % BLOCKS
    }
}

fn zipfian() -> Vec<u64> {
    let (zipfian, mut random) = (Zipfian::new(), Random(1));
    (0..ACCESSES).map(|_| zipfian.next(&mut random)).collect()
}

/// Half of the accesses belong to scans from anywhere.
fn zipfian_and_scans() -> Vec<u64> {
    let (zipfian, mut random) = (Zipfian::new(), Random(2));
    let mut trace = Vec::with_capacity(ACCESSES);
    while trace.len() < ACCESSES {
        trace.extend((0..SCAN_BLOCKS).map(|_| zipfian.next(&mut random)));
        let start = random.next() % BLOCKS;
        trace.extend((start..start + SCAN_BLOCKS).map(|block| block % BLOCKS));
    }
    trace
}

fn looping() -> Vec<u64> {
    (0..ACCESSES as u64).map(|access| access % BLOCKS).collect()
}

/// A cache without blocks.
trait Contender {
    /// Whether the block was there. It is, from now on.
    fn access(&mut self, block: u64) -> bool;
}

/// Driven as the cache drives a policy.
struct ByPolicy<P> {
    policy: P,
    frames: HashMap<u64, u32>,
    blocks: Vec<u64>,
    uses: Uses,
    free: Vec<u32>,
}

struct Uses(Vec<Cell<u8>>);

impl Frequencies for Uses {
    fn get(&self, frame: u32) -> u8 {
        self.0[frame as usize].get()
    }

    fn set(&self, frame: u32, frequency: u8) {
        self.0[frame as usize].set(frequency);
    }
}

impl<P: Policy> ByPolicy<P> {
    fn new(policy: P, frames: u32) -> Self {
        Self {
            policy,
            frames: HashMap::new(),
            blocks: vec![0; frames as usize + 1],
            uses: Uses(vec![Cell::new(0); frames as usize + 1]),
            free: (1..=frames).rev().collect(),
        }
    }
}

impl<P: Policy> Contender for ByPolicy<P> {
    fn access(&mut self, block: u64) -> bool {
        if let Some(&frame) = self.frames.get(&block) {
            self.uses.set(frame, (self.uses.get(frame) + 1).min(3));
            return true;
        }
        let frame = self.free.pop().unwrap_or_else(|| {
            let victim = self.policy.victim(&self.uses).expect("the cache is full");
            self.frames.remove(&self.blocks[victim as usize]);
            victim
        });
        self.uses.set(frame, 0);
        self.blocks[frame as usize] = block;
        self.frames.insert(block, frame);
        self.policy.insert(frame, 1, fingerprint(block));
        false
    }
}

/// One bit a block; what was used goes round once more.
#[derive(Default)]
struct Clock(VecDeque<u32>);

impl Policy for Clock {
    fn insert(&mut self, frame: u32, _units: u32, _fingerprint: u64) {
        self.0.push_back(frame);
    }

    fn victim(&mut self, frequencies: &impl Frequencies) -> Option<u32> {
        loop {
            let frame = self.0.pop_front()?;
            if frequencies.get(frame) == 0 {
                return Some(frame);
            }
            frequencies.set(frame, 0);
            self.0.push_back(frame);
        }
    }

    fn remove(&mut self, frame: u32) {
        self.0.retain(|other| *other != frame);
    }
}

/// What was not used for longest goes.
struct Lru {
    frames: usize,
    now: u64,
    last_uses: HashMap<u64, u64>,
    by_last_use: BTreeMap<u64, u64>,
}

impl Contender for Lru {
    fn access(&mut self, block: u64) -> bool {
        self.now += 1;
        let last_use = self.last_uses.insert(block, self.now);
        if let Some(last_use) = last_use {
            self.by_last_use.remove(&last_use);
        } else if self.by_last_use.len() == self.frames {
            let (_, oldest) = self.by_last_use.pop_first().expect("the cache is full");
            self.last_uses.remove(&oldest);
        }
        self.by_last_use.insert(self.now, block);
        last_use.is_some()
    }
}

/// In per cent, of the second half.
fn hit_ratio(mut cache: impl Contender, trace: &[u64]) -> f64 {
    let (warm_up, measured) = trace.split_at(trace.len() / 2);
    for &block in warm_up {
        cache.access(block);
    }
    let hits = measured.iter().filter(|&&block| cache.access(block)).count();
    hits as f64 * 100.0 / measured.len() as f64
}

fn print_hit_ratios() {
    println!("hit ratio, %         cache   S3-FIFO     LRU   CLOCK");
    let traces = [
        ("zipfian", zipfian()),
        ("zipfian and scans", zipfian_and_scans()),
        ("looping", looping()),
    ];
    for (name, trace) in &traces {
        for share in [1, 10, 50] {
            let frames = (BLOCKS * share / 100) as u32;
            let s3fifo = hit_ratio(ByPolicy::new(S3Fifo::new(frames, frames), frames), trace);
            let lru = Lru {
                frames: frames as usize,
                now: 0,
                last_uses: HashMap::new(),
                by_last_use: BTreeMap::new(),
            };
            let lru = hit_ratio(lru, trace);
            let clock = hit_ratio(ByPolicy::new(Clock::default(), frames), trace);
            println!("{name:<20} {share:>3} %   {s3fifo:>7.2} {lru:>7.2} {clock:>7.2}");
        }
    }
}

fn cache(criterion: &mut Criterion) {
    let block = [0x5a; 4096];
    let mut group = criterion.benchmark_group("cache");
    group.throughput(Throughput::Elements(1));

    let mut cache = CacheBench::new(64 << 20, 1_000_000);
    let resident = cache.frames() / 2;
    assert!((0..resident).all(|number| cache.insert(number, &block)));
    group.bench_function("pin", |bencher| bencher.iter(|| cache.pin()));
    group.bench_function("hit_same", |bencher| {
        bencher.iter(|| cache.get(black_box(7)).expect("it was inserted"));
    });
    let mut random = Random(3);
    group.bench_function("hit_random_of_32_mib", |bencher| {
        bencher.iter(|| {
            let number = (random.next() % u64::from(resident)) as u32;
            cache.get(number).expect("it was inserted")
        });
    });
    let long = [0x5a; 4 * 4096];
    assert!(cache.insert(900_000, &long));
    group.bench_function("hit_of_4_units", |bencher| {
        bencher.iter(|| cache.get(black_box(900_000)).expect("it was inserted"));
    });

    // Each is a miss, evicts one block, and copies 4 KiB.
    let mut blocks = (100_000..900_000).cycle();
    group.bench_function("miss_and_insert", |bencher| {
        bencher.iter(|| {
            let next = blocks.next().expect("a cycle has no end");
            // A few of an earlier round may be there: ghosts mix blocks up.
            cache.get(next).is_none() && cache.insert(next, &block)
        });
    });
    group.finish();
}

criterion_group!(benches, cache);

fn main() {
    if std::env::args().skip(1).all(|argument| argument == "--bench") {
        print_hit_ratios();
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
