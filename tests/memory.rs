//! One budget of memory: who gives way when filters and indexes need more.

use ourodb::{Batch, Db, Durability, Options};

#[test]
fn filters_and_indexes_take_from_memtables_and_give_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let memory = 4 << 20;
    let options = Options::default().memory(memory).owners(1).durability(Durability::ProcessSafe);
    let db = Db::open(dir.path(), options).expect("an opening");
    let settings = db.options();
    let share = settings.pinned_bytes_free.expect("memtables follow from the memory");
    assert_eq!(settings.memory, memory);
    assert_eq!(db.stats().memtable_bytes_max, settings.memtable_bytes as u64);
    for start in (0..400_000u32).step_by(1000) {
        let mut batch = Batch::new();
        for i in start..start + 1000 {
            batch.put(&i.wrapping_mul(2_654_435_761).to_be_bytes(), b"");
        }
        db.write(batch).wait().expect("a write");
    }
    db.flush().wait().expect("a flush");
    let stats = db.stats();
    assert!(stats.pinned_bytes > share, "{} of {share}", stats.pinned_bytes);
    assert!(stats.memtable_bytes_max < settings.memtable_bytes as u64);
    let memtables = settings.shards * (1 + settings.immutable_memtables_max);
    let both = stats.pinned_bytes + stats.memtable_bytes_max * memtables as u64;
    // 40 and 12 %, rounded.
    assert!(both <= memory * 53 / 100, "{both}");
    for start in (0..400_000u32).step_by(1000) {
        let mut batch = Batch::new();
        for i in start..start + 1000 {
            batch.delete(&i.wrapping_mul(2_654_435_761).to_be_bytes());
        }
        db.write(batch).wait().expect("a write");
    }
    db.compact(..).wait().expect("a compaction");
    assert_eq!(db.stats().memtable_bytes_max, settings.memtable_bytes as u64);
}
