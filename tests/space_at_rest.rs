//! Nobody asks for a flush or a compaction: the space of what was deleted and
//! overwritten comes back all the same when writes pause, although what hides it
//! would fit into memory; and that of long values while they go on.

use std::time::{Duration, Instant};

use ourodb::{Db, Durability, IoBackend, Options, Stats};

fn options() -> Options {
    Options::default()
        .io(IoBackend::Blocking)
        .durability(Durability::ProcessSafe)
        .memory(32 << 20)
        .shards(1)
        .owners(1)
}

fn open(dir: &tempfile::TempDir) -> Db {
    Db::open(dir.path(), options()).expect("open")
}

/// Waits as long as it takes, unless it hangs.
fn wait_until(db: &Db, is_so: impl Fn(&Stats) -> bool) {
    let start = Instant::now();
    while !is_so(&db.stats()) {
        assert!(start.elapsed() < Duration::from_secs(300), "{}", db.stats());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn put_all(db: &Db, keys: u32, value: &[u8]) {
    for i in 0..keys {
        db.put(&i.to_be_bytes(), value).wait().expect("a put");
    }
}

/// Has half of the keys deleted by `delete`, which is given the first that stays.
fn half_of_it_goes(delete: impl Fn(&Db, u32)) {
    const KEYS: u32 = 4000;
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(&dir);
    put_all(&db, KEYS, &[1; 1000]);
    db.flush().wait().expect("a flush");
    let before = db.stats();
    assert_eq!(before.levels.iter().map(|level| level.entries).sum::<u64>(), u64::from(KEYS));
    delete(&db, KEYS / 2);
    wait_until(&db, |stats| stats.table_bytes < before.table_bytes * 55 / 100);
    assert_eq!(db.scan(..).iter().count(), KEYS as usize / 2);
    db.close().expect("a close");
}

#[test]
fn deletes_that_fit_into_memory_free_what_they_hide() {
    half_of_it_goes(|db, end| {
        for i in 0..end {
            db.delete(&i.to_be_bytes()).wait().expect("a delete");
        }
    });
}

#[test]
fn a_range_deletion_that_fits_into_memory_frees_what_it_hides() {
    half_of_it_goes(|db, end| {
        db.delete_range(..&end.to_be_bytes()[..]).wait().expect("a range deletion");
    });
}

#[test]
fn long_values_that_were_overwritten_in_memory_go() {
    const KEYS: u32 = 20;
    const VALUE_BYTES: usize = 100_000;
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(&dir);
    for round in 0..4 {
        put_all(&db, KEYS, &[round; VALUE_BYTES]);
    }
    let live = u64::from(KEYS) * VALUE_BYTES as u64;
    wait_until(&db, |stats| stats.value_bytes < live * 112 / 100);
    for row in db.scan(..).iter() {
        assert_eq!(*row.expect("a row").1, [3; VALUE_BYTES]);
    }
    db.close().expect("a close");
}

#[test]
fn long_values_that_are_overwritten_without_a_pause_do_not_pile_up() {
    const KEYS: u32 = 4;
    const VALUE_BYTES: usize = 1 << 20;
    const MEMTABLE_BYTES: usize = 1 << 20;
    const ROUNDS: u8 = 60;
    let dir = tempfile::tempdir().expect("a directory");
    let options = options().memtable_bytes(MEMTABLE_BYTES);
    let db = Db::open(dir.path(), options).expect("open");
    let mut most = 0;
    for round in 0..ROUNDS {
        put_all(&db, KEYS, &[round; VALUE_BYTES]);
        most = most.max(db.stats().value_bytes);
    }
    // What a few memtables and the tables of level 0 refer to; of 240 MiB.
    let bound = 15 * 8 * MEMTABLE_BYTES as u64;
    assert!(most < bound, "{most} bytes in value files");
    db.close().expect("a close");
}

/// While writes come and go, segments of the log are kept to be used again; not once
/// there is nobody to do so.
#[test]
fn a_closed_database_keeps_no_log_that_nobody_needs() {
    let dir = tempfile::tempdir().expect("a directory");
    let segments = || {
        let log = std::fs::read_dir(dir.path().join("wal")).expect("the log");
        log.map(|entry| entry.expect("an entry").metadata().expect("a file").len())
            .filter(|&bytes| bytes > 0)
            .count()
    };
    let db = open(&dir);
    put_all(&db, 20_000, &[1; 1000]);
    db.flush().wait().expect("a flush");
    wait_until(&db, |stats| stats.wal_segments <= 2);
    assert!(segments() > 4, "{} segments", segments());
    db.close().expect("a close");
    assert!(segments() <= 2, "{} segments", segments());
    let db = open(&dir);
    assert_eq!(db.scan(..).iter().count(), 20_000);
}
