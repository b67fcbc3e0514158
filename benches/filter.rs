//! Filters: building one, and asking one, at sizes within the processor's
//! caches and beyond; and a table that compares the engine's choice with
//! others. `cargo bench --bench filter -- --table` prints the table only.

use std::hint::black_box;
use std::time::Instant;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group};
use fastbloom::BloomFilter;
use ourodb::bench::Filter;
use xorf::{BinaryFuse8, BinaryFuse16, Filter as _, Xor8};

/// Well-mixed numbers, as the key hash gives: the finalizer of SplitMix64.
fn hash(i: u64) -> u64 {
    let z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn filters(c: &mut Criterion) {
    let mut group = c.benchmark_group("filter");
    group.sample_size(10);
    for keys in [1_000, 40_000, 1_000_000] {
        let hashes: Vec<u64> = (0..keys).map(hash).collect();
        group.throughput(Throughput::Elements(keys));
        group.bench_function(BenchmarkId::new("build", keys), |b| {
            b.iter_batched(
                || hashes.clone(),
                |mut hashes| Filter::build(&mut hashes).expect("a filter"),
                BatchSize::LargeInput,
            );
        });

        let filter = Filter::build(&mut hashes.clone()).expect("a filter");
        let bytes = filter.encode();
        group.throughput(Throughput::Elements(1));
        for (what, first) in [("ask-present", 0), ("ask-absent", 1 << 40)] {
            let mut i = 0;
            group.bench_function(BenchmarkId::new(what, keys), |b| {
                b.iter(|| {
                    i = (i + 1) % keys;
                    filter.may_contain(black_box(hash(first + i)))
                });
            });
        }
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("decode", keys), |b| {
            b.iter(|| Filter::decode(black_box(&bytes)).expect("sound bytes"));
        });
    }
    group.finish();
}

/// One row: a filter over sorted hashes, as [`Filter::build`] hands them on.
fn row<F>(
    name: &str,
    hashes: &[u64],
    build: impl Fn(&[u64]) -> Option<F>,
    bytes: impl Fn(&F) -> usize,
    contains: impl Fn(&F, u64) -> bool,
) {
    const PROBES: u64 = 1 << 20;
    let keys = hashes.len() as f64;
    let (mut build_ns, mut probe_ns) = (f64::MAX, f64::MAX);
    let mut built = None;
    for _ in 0..(2_000_000 / hashes.len()).clamp(5, 200) {
        let start = Instant::now();
        let filter = build(black_box(hashes));
        build_ns = build_ns.min(start.elapsed().as_nanos() as f64 / keys);
        built = filter.or(built);
    }
    let Some(filter) = built else {
        println!("{:>8} {name:<14} cannot be built", hashes.len());
        return;
    };
    assert!(hashes.iter().all(|&hash| contains(&filter, hash)));
    let mut passed = 0;
    for _ in 0..5 {
        let start = Instant::now();
        passed = (0..PROBES).filter(|&i| contains(&filter, hash((1 << 40) + i))).count();
        probe_ns = probe_ns.min(start.elapsed().as_nanos() as f64 / PROBES as f64);
    }
    println!(
        "{:>8} {name:<14} {build_ns:>12.1} {probe_ns:>9.1} {:>10.2} {:>15.3}",
        hashes.len(),
        bytes(&filter) as f64 * 8.0 / keys,
        passed as f64 * 100.0 / PROBES as f64
    );
}

/// Sizes without headers, which are the same 24 bytes or so for all of them.
fn table() {
    println!("    keys filter         build ns/key  probe ns   bits/key false positive %");
    for keys in [100, 300, 1_000, 3_000, 10_000, 16_384, 100_000, 1_000_000] {
        let mut hashes: Vec<u64> = (0..keys).map(hash).collect();
        hashes.sort_unstable();
        let hashes = &hashes[..];
        row(
            "BinaryFuse8",
            hashes,
            |h| BinaryFuse8::try_from(h).ok(),
            |f| f.fingerprints.len(),
            |f, h| f.contains(&h),
        );
        row(
            "BinaryFuse16",
            hashes,
            |h| BinaryFuse16::try_from(h).ok(),
            |f| 2 * f.fingerprints.len(),
            |f, h| f.contains(&h),
        );
        row(
            "Xor8",
            hashes,
            |h| Some(Xor8::from(h)),
            |f| f.fingerprints.len(),
            |f, h| f.contains(&h),
        );
        row(
            "Bloom 10 bits",
            hashes,
            |h| {
                let mut filter =
                    BloomFilter::with_num_bits(10 * h.len()).seed(&1).expected_items(h.len());
                for &hash in h {
                    filter.insert_hash(hash);
                }
                Some(filter)
            },
            |f| f.num_bits() / 8,
            BloomFilter::contains_hash,
        );
    }
}

criterion_group!(benches, filters);

fn main() {
    table();
    if !std::env::args().any(|arg| arg == "--table") {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}
