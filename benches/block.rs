//! Blocks: building one, verifying one, and finding keys in one.
//!
//! Keys have 24 bytes with a long common prefix, as in most databases; values
//! have 20, 100 or 400, so that a block holds about 105, 33 or 9 entries. Lookups
//! are measured with and without hash index, with runs of 8 and of 16 entries;
//! and what compression costs, with values of which half compresses.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ourodb::bench::{
    Block, BlockBuilder, BlockCursor, Compression, Kind, Layout, Lookup, Seed, Tag,
};

const VALUE_BYTES: [usize; 3] = [20, 100, 400];
const BOUND: u64 = 1 << 40;

fn key(i: u64) -> Vec<u8> {
    format!("user{i:020}").into_bytes()
}

fn seed() -> Seed {
    Seed::of(b"a table of the benchmark").with_u64(4096)
}

fn tag(i: u64) -> Tag {
    Tag::new(i + 1, Kind::Put)
}

/// A well-mixed hash of the key with this number: the finalizer of SplitMix64.
fn hash(i: u64) -> u64 {
    let z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One full block, and how many entries it holds: those with even numbers.
fn build(layout: Layout, value_bytes: usize) -> (Vec<u8>, u64) {
    let value = vec![0x5a; value_bytes];
    let mut builder = BlockBuilder::new(layout);
    let mut count = 0;
    while builder.add(&key(2 * count), tag(count), &value, hash(2 * count)) {
        count += 1;
    }
    (builder.finish(seed()).extent.to_vec(), count)
}

fn blocks(c: &mut Criterion) {
    let mut group = c.benchmark_group("block");
    for value_bytes in VALUE_BYTES {
        let (bytes, count) = build(Layout::default(), value_bytes);
        let id = |what| BenchmarkId::new(what, value_bytes);
        let keys: Vec<Vec<u8>> = (0..2 * count).map(key).collect();
        let value = vec![0x5a; value_bytes];

        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut builder = BlockBuilder::new(Layout::default());
        group.bench_function(id("build"), |b| {
            b.iter(|| {
                builder.reset();
                for i in 0..count {
                    assert!(builder.add(&keys[2 * i as usize], tag(i), &value, hash(2 * i)));
                }
                black_box(builder.finish(seed()).extent.len())
            });
        });
        let mut plain = Vec::new();
        group.bench_function(id("decode"), |b| {
            b.iter(|| Block::decode(black_box(&bytes), seed(), &mut plain).is_ok());
        });

        let block = Block::decode(&bytes, seed(), &mut plain).expect("a sound block");
        group.throughput(Throughput::Elements(1));
        let mut cursor = BlockCursor::new();
        let mut i = 0;
        group.bench_function(id("seek"), |b| {
            b.iter(|| {
                i = (i + 7919) % count;
                let sought = black_box(&keys[2 * i as usize]);
                cursor.seek(block, sought, Tag::visible_at(BOUND)).expect("a sound block");
                assert!(cursor.is_valid());
            });
        });
        group.throughput(Throughput::Elements(count));
        group.bench_function(id("walk"), |b| {
            b.iter(|| {
                let mut bytes = 0;
                cursor.seek_to_first(block).expect("a sound block");
                while cursor.is_valid() {
                    bytes += cursor.key().len() + block.bytes(cursor.value()).len();
                    cursor.next(block).expect("a sound block");
                }
                bytes
            });
        });
        group.bench_function(id("walk-back"), |b| {
            b.iter(|| {
                let mut bytes = 0;
                cursor.seek_to_last(block).expect("a sound block");
                while cursor.is_valid() {
                    bytes += cursor.key().len() + block.bytes(cursor.value()).len();
                    cursor.prev(block).expect("a sound block");
                }
                bytes
            });
        });
    }
    group.finish();
}

fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    group.throughput(Throughput::Elements(1));
    for value_bytes in VALUE_BYTES {
        for restart_interval in [16, 8] {
            for buckets_percent in [0, 133, 200] {
                let layout = Layout { restart_interval, buckets_percent, ..Layout::default() };
                let (bytes, count) = build(layout, value_bytes);
                let keys: Vec<Vec<u8>> = (0..2 * count).map(key).collect();
                let mut plain = Vec::new();
                let block = Block::decode(&bytes, seed(), &mut plain).expect("a sound block");
                for (what, offset) in [("present", 0), ("absent", 1)] {
                    let name = format!(
                        "{what}/values of {value_bytes}, runs of {restart_interval}, \
                         {buckets_percent} % buckets, {count} entries"
                    );
                    let mut i = 0;
                    group.bench_function(name, |b| {
                        b.iter(|| {
                            // A step that visits every entry, and not in order.
                            i = (i + 7919) % count;
                            let sought = 2 * i + offset;
                            let key = black_box(&keys[sought as usize]);
                            let found = block.get(key, hash(sought), BOUND);
                            let found = found.expect("a sound block");
                            assert_eq!(matches!(found, Lookup::Found { .. }), offset == 0);
                        });
                    });
                }
            }
        }
    }
    group.finish();
}

/// Builds blocks of these entries; returns the first one, and the units.
fn build_all(builder: &mut BlockBuilder, entries: &[(Vec<u8>, Vec<u8>)]) -> (Vec<u8>, usize) {
    let (mut first, mut bytes) = (Vec::new(), 0);
    let mut finish = |builder: &mut BlockBuilder| {
        let extent = builder.finish(seed()).extent;
        bytes += extent.len();
        if first.is_empty() {
            first.extend_from_slice(extent);
        }
        builder.reset();
    };
    for (i, (key, value)) in (0..).zip(entries) {
        while !builder.add(key, tag(i), value, hash(i)) {
            finish(builder);
        }
    }
    while !builder.is_empty() {
        finish(builder);
    }
    (first, bytes / 4096)
}

/// All that this build can do.
const COMPRESSIONS: &[Compression] = &[
    Compression::None,
    Compression::Lz4,
    #[cfg(feature = "zstd")]
    Compression::Zstd,
];

fn compression(c: &mut Criterion) {
    let mut group = c.benchmark_group("compression");
    for value_bytes in VALUE_BYTES {
        let entry = |i: u64| {
            let random = (0..).flat_map(|word| hash(1000 * i + word).to_le_bytes());
            let mut value: Vec<u8> = random.take(value_bytes / 2).collect();
            value.resize(value_bytes, b'.');
            (key(i), value)
        };
        let entries: Vec<(Vec<u8>, Vec<u8>)> = (0..10_000).map(entry).collect();
        for &compression in COMPRESSIONS {
            let layout = Layout { compression, ..Layout::default() };
            let mut builder = BlockBuilder::new(layout);
            let (block, units) = build_all(&mut builder, &entries);
            let name = |what| {
                format!("{what}/values of {value_bytes}, {compression}, {units} units in all")
            };
            group.throughput(Throughput::Elements(10_000));
            group.bench_function(name("build"), |b| {
                b.iter(|| build_all(&mut builder, black_box(&entries)));
            });
            let mut plain = Vec::new();
            group.throughput(Throughput::Elements(1));
            group.bench_function(name("decode"), |b| {
                b.iter(|| Block::decode(black_box(&block), seed(), &mut plain).is_ok());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, blocks, lookups, compression);
criterion_main!(benches);
