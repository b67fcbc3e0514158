//! Filters: building one, and asking one, at sizes within the processor's
//! caches and beyond.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ourodb::bench::Filter;

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

criterion_group!(benches, filters);
criterion_main!(benches);
