//! Log records: sizing, filling and sealing one, and checking it again.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ourodb::bench::{RecordBench, Seed};

fn records(c: &mut Criterion) {
    let mut group = c.benchmark_group("record");
    let seed = Seed::of(b"a stream of the benchmark");
    for value_bytes in [16, 400, 4096, 65_536] {
        let key = [0x6b; 24];
        let value = vec![0x5a; value_bytes];
        let mut bench = RecordBench::new(seed, &key, &value);
        group.throughput(Throughput::Bytes(bench.bytes() as u64));
        group.bench_function(BenchmarkId::new("encode", value_bytes), |b| {
            b.iter(|| bench.encode(black_box(&key), black_box(&value)));
        });
        group.bench_function(BenchmarkId::new("decode", value_bytes), |b| {
            b.iter(|| black_box(bench.decode()));
        });
    }
}

criterion_group!(benches, records);
criterion_main!(benches);
