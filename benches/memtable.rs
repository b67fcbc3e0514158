//! The memtable at up to a million entries: 24-byte keys, 400-byte values.
//!
//! The pool is warm, as it is in a running database: memory comes from the
//! memtable dropped before.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ourodb::bench::{ArenaPool, Kind, Memtable, Payload, Tag};

const ENTRIES: usize = 1_000_000;
const VALUE: [u8; 400] = [0x5a; 400];
/// A bound above every sequence number in use.
const SEQ_ALL: u64 = 1 << 40;

type Key = [u8; 24];

/// xorshift64*: the order must be the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}

/// "user" and 20 digits.
fn key(number: u64) -> Key {
    let mut key = *b"user00000000000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

fn fill(pool: &Arc<ArenaPool>, keys: &[Key]) -> Memtable {
    let mut memtable = Memtable::new(pool);
    for (seq, key) in (1..).zip(keys) {
        memtable.insert(key, Tag::new(seq, Kind::Put), Payload::Inline(&VALUE));
    }
    memtable
}

fn memtable(criterion: &mut Criterion) {
    let pool = ArenaPool::new(2 << 30);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let random_keys: Vec<Key> = (0..ENTRIES).map(|_| key(random.next())).collect();
    let sequential_keys: Vec<Key> = (0..ENTRIES as u64).map(key).collect();
    drop(fill(&pool, &random_keys));

    let mut group = criterion.benchmark_group("memtable");
    group.sample_size(10);
    for (order, keys) in [("random", &random_keys), ("sequential", &sequential_keys)] {
        // One iteration is a whole memtable, so that every sample sees every
        // size on the way to a million.
        group.throughput(Throughput::Elements(ENTRIES as u64));
        group.bench_function(format!("insert_1m_{order}"), |bencher| {
            // Giving the memory back is outside the measured part.
            bencher.iter_batched(|| (), |()| fill(&pool, keys), BatchSize::PerIteration);
        });
    }

    group.sample_size(100);
    group.throughput(Throughput::Elements(1));
    // A hundred thousand entries are 44 MB, about what a memtable holds; at a
    // million nothing but the upper nodes is in any cache.
    for (size, keys) in [("100k", &random_keys[..ENTRIES / 10]), ("1m", &random_keys)] {
        let memtable = fill(&pool, keys);
        let mut wanted = keys.to_vec();
        random.shuffle(&mut wanted);
        let mut turn = wanted.iter().cycle();
        group.bench_function(format!("get_of_{size}"), |bencher| {
            bencher.iter(|| {
                let key = turn.next().expect("a cycle has no end");
                let entry = memtable.get(black_box(key), SEQ_ALL).expect("it was inserted");
                entry.value[0]
            });
        });
        for key in &mut wanted {
            *key = self::key(random.next());
        }
        let mut turn = wanted.iter().cycle();
        group.bench_function(format!("get_absent_of_{size}"), |bencher| {
            bencher.iter(|| {
                let key = turn.next().expect("a cycle has no end");
                memtable.get(black_box(key), SEQ_ALL).is_none()
            });
        });
    }

    let memtable = fill(&pool, &random_keys);
    let mut at = memtable.first();
    group.bench_function("next_of_1m", |bencher| {
        bencher.iter(|| {
            at = memtable.next(at);
            match memtable.entry(at) {
                Some(entry) => usize::from(entry.key[23]),
                None => {
                    at = memtable.first();
                    0
                }
            }
        });
    });
    group.finish();
}

criterion_group!(benches, memtable);
criterion_main!(benches);
