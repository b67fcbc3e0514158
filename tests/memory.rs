//! One budget of memory: who gives way when filters and indexes need more.

use std::time::{Duration, Instant};

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

/// What memtables do not use is the block cache's, until there is more to write.
#[test]
fn the_block_cache_borrows_what_memtables_do_not_use_and_gives_it_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let memory = 4 << 20;
    let options = Options::default().memory(memory).owners(1).durability(Durability::ProcessSafe);
    let db = Db::open(dir.path(), options).expect("an opening");
    let settings = db.options();
    let memtables = (settings.shards * (1 + settings.immutable_memtables_max)) as u64;
    let key = |i: u32| i.wrapping_mul(2_654_435_761).to_be_bytes();
    let write = |start: u32| {
        let mut batch = Batch::new();
        for i in start..start + 100 {
            batch.put(&key(i), &[i as u8; 400]);
        }
        db.write(batch).wait().expect("a write");
    };
    let read = |i: u32| {
        let found = db.get(&key(i)).wait().expect("a read");
        assert_eq!(found.as_deref(), Some(&[i as u8; 400][..]));
    };
    (0..20_000).step_by(100).for_each(write);
    db.flush().wait().expect("a flush");
    let at_first = db.stats();
    let lasting = at_first.cache_capacity_bytes;
    assert!(lasting <= settings.cache_bytes as u64);

    // 8 MB of values go beyond the cache.
    let mut reads = (0..20_000).cycle();
    let both = |stats: &ourodb::Stats| {
        let cache = stats.cache_capacity_bytes - lasting;
        cache + stats.memtable_bytes_max * memtables
    };
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(300), "nothing is lent: {}", db.stats());
        reads.by_ref().take(100).for_each(read);
        let stats = db.stats();
        // 40 % for memtables, 12 % for filters and indexes; and some that may have changed
        // between the one figure and the other.
        assert!(both(&stats) <= memory * 60 / 100, "{stats:?}");
        if stats.cache_capacity_bytes >= lasting + memory * 32 / 100 {
            break;
        }
    }
    let lent = db.stats();
    assert!(lent.cache_capacity_bytes <= settings.cache_bytes_max as u64);
    assert!(lent.memtable_bytes_max <= at_first.memtable_bytes_max / 3);

    let mut writes = (0..20_000).step_by(100).cycle();
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(300), "it stays lent: {}", db.stats());
        writes.by_ref().take(10).for_each(write);
        reads.by_ref().take(10).for_each(read);
        let stats = db.stats();
        assert!(both(&stats) <= memory * 60 / 100, "{stats:?}");
        if stats.cache_capacity_bytes == lasting
            && stats.memtable_bytes_max == at_first.memtable_bytes_max
        {
            break;
        }
    }
    (0..20_000).for_each(read);
}

/// Who says how large caches and memtables are to be has them as they are.
#[test]
fn nothing_is_lent_where_sizes_were_chosen() {
    let max = |options: Options| {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = Db::open(dir.path(), options.owners(1)).expect("an opening").options();
        settings.cache_bytes_max - settings.cache_bytes
    };
    let memory = || Options::default().memory(16 << 20);
    assert!(max(memory()) > (16 << 20) / 100 * 38);
    assert_eq!(max(memory().cache_bytes(1 << 20)), 0);
    assert_eq!(max(memory().memtable_bytes(64 << 10)), 0);
    assert_eq!(max(memory().cache_bytes(1 << 20).cache_bytes_max(3 << 20)), 2 << 20);
    // The same number means none, also where owners do not share it evenly.
    let odd = memory().cache_bytes((1 << 20) + 1).cache_bytes_max((1 << 20) + 1);
    let dir = tempfile::tempdir().expect("a directory");
    Db::open(dir.path(), odd.owners(2)).expect("an opening");
    let dir = tempfile::tempdir().expect("a directory");
    let error = Db::open(dir.path(), memory().cache_bytes_max(1 << 20)).expect_err("too little");
    assert!(error.to_string().contains("cache_bytes_max is 1048576, less than"), "{error}");
}
