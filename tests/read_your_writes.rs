//! The acknowledgement of a write means: every later read, from any thread,
//! sees it. Real threads, so that followers and leaders of commit groups, and
//! rotations and flushes, meet in ways no schedule foresees.

#![allow(clippy::unwrap_used, reason = "a test panics")]

use std::sync::atomic::{AtomicU64, Ordering};

use ourodb::{Batch, Db, Options};

const THREADS: usize = 16;
const WRITES: u64 = 150;

#[test]
fn an_acknowledged_write_is_seen_by_everybody() {
    let dir = tempfile::tempdir().unwrap();
    // Tiny memtables: rotations and flushes all the time.
    let options = Options::default().shards(2).owners(1).memtable_bytes(16 << 10);
    let db = Db::open(dir.path(), options).unwrap();
    let acknowledged: [AtomicU64; THREADS] = std::array::from_fn(|_| AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, acknowledged) = (&db, &acknowledged);
            scope.spawn(move || {
                for i in 1..=WRITES {
                    let key = [thread as u8];
                    let mut value = i.to_le_bytes().to_vec();
                    value.resize(100, 0);
                    if i % 4 == 0 {
                        // Long enough to be inserted in several pieces.
                        let mut batch = Batch::new();
                        for j in 0..40 {
                            batch.put(&[thread as u8, j], &value);
                        }
                        db.write(batch.put(&key, &value).clone()).wait().unwrap();
                    } else {
                        db.put(&key, &value).wait().unwrap();
                    }
                    acknowledged[thread].store(i, Ordering::SeqCst);
                    // One's own write, and those of a neighbour.
                    for other in [thread, (thread + 1) % THREADS] {
                        let at_least = acknowledged[other].load(Ordering::SeqCst);
                        let seen = db.get(&[other as u8]).wait().unwrap();
                        let seen =
                            seen.map_or(0, |v| u64::from_le_bytes(v[..8].try_into().unwrap()));
                        assert!(
                            seen >= at_least,
                            "thread {other}: {at_least} written, {seen} read"
                        );
                    }
                    if i % 16 == 0 {
                        // A scan begun now sees what was acknowledged before.
                        let before = acknowledged.each_ref().map(|a| a.load(Ordering::SeqCst));
                        let mut seen = [0; THREADS];
                        for row in db.scan(..) {
                            let (key, value) = row.unwrap();
                            if key.len() > 1 {
                                continue;
                            }
                            seen[usize::from(key[0])] =
                                u64::from_le_bytes(value[..8].try_into().unwrap());
                        }
                        let missing = (0..THREADS).find(|&t| seen[t] < before[t]);
                        assert_eq!(missing, None, "{seen:?} read, {before:?} written");
                    }
                }
            });
        }
    });
    let batches = WRITES / 4;
    assert_eq!(db.stats().puts, THREADS as u64 * (WRITES + 40 * batches));
}
