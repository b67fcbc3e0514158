//! Threads that look up, insert, evict and drop tables at once: whatever they
//! find belongs to what they asked for.

use std::sync::{Arc, Barrier, RwLock};

use super::{cache, content};
use crate::base::limits::UNIT;
use crate::cache::{Cache, CachedTable};

const THREADS: u64 = 4;
const TABLES: u64 = 4;
const BLOCKS: u32 = 60;
const ROUNDS: u32 = 6000;

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound
    }
}

/// A table that may be exchanged for its next version.
struct Place {
    table: RwLock<(u64, CachedTable)>,
}

fn block_bytes(block: u32) -> usize {
    // Of one frame mostly, and of up to four.
    if block.is_multiple_of(5) { UNIT * (1 + block as usize / 5 % 4) - 40 } else { UNIT }
}

fn work(seed: u64, cache: &Arc<Cache>, places: &[Place]) {
    let mut random = Random(seed);
    let mut scratch = Vec::new();
    for round in 0..ROUNDS {
        let number = random.below(TABLES);
        let place = &places[number as usize];
        if round % 500 == 250 {
            // The table is compacted away. No lock is held as it is dropped.
            let mut table = place.table.write().expect("no panic");
            let uid = table.0 + TABLES;
            let old = std::mem::replace(&mut *table, (uid, cache.register(uid, BLOCKS)));
            drop(table);
            drop(old);
            continue;
        }
        let (uid, table) = &*place.table.read().expect("no panic");
        // The smaller of two, so that some are used more than others.
        let block = random.below(u64::from(BLOCKS)).min(random.below(u64::from(BLOCKS))) as u32;
        let expected = content(*uid, block, block_bytes(block));
        let guard = cache.epochs().pin();
        match table.get(&guard, block) {
            Some(hit) => {
                hit.gather(&mut scratch);
                assert_eq!(scratch, expected, "block {block} of table {uid}");
                if random.below(4) == 0 {
                    // Still there after others had their chance to evict it.
                    std::thread::yield_now();
                    assert!(hit.parts().eq(expected.chunks(UNIT)));
                }
            }
            None => {
                drop(guard);
                table.insert(block, &expected);
            }
        }
    }
}

#[test]
fn readers_see_the_block_they_asked_for() {
    let cache = cache(80);
    let places: Vec<Place> = (0..TABLES)
        .map(|uid| Place { table: RwLock::new((uid, cache.register(uid, BLOCKS))) })
        .collect();
    let start = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (cache, places, start) = (&cache, &places, &start);
            scope.spawn(move || {
                start.wait();
                work(thread + 1, cache, places);
            });
        }
    });
    let stats = cache.stats();
    // Each round but those that exchange a table is a hit or a miss.
    let exchanges = THREADS * u64::from(ROUNDS) / 500;
    assert_eq!(stats.hits + stats.misses, THREADS * u64::from(ROUNDS) - exchanges);
    assert!(stats.evicted > 0 && stats.hits > 0, "{stats:?}");
    drop(places);
    let stats = cache.stats();
    assert_eq!((stats.blocks, stats.bytes), (0, 0));
    assert_eq!(cache.frames.idle(), cache.frames.lasting());
}
