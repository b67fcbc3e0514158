//! A million deleted keys in a row: once compaction has come to rest, nothing is
//! left of them that a scan or a lookup would have to read.

use std::time::{Duration, Instant};

use ourodb::{Batch, Db, Durability, IoBackend, Options};

const DELETED: u32 = 1_000_000;

/// Applies `add` to each number, in batches.
fn write(db: &Db, numbers: std::ops::Range<u32>, add: impl Fn(&mut Batch, u32)) {
    let mut batch = Batch::new();
    for i in numbers {
        add(&mut batch, i);
        if batch.bytes() > 500_000 {
            db.write(std::mem::take(&mut batch)).wait().expect("a batch");
        }
    }
    db.write(batch).wait().expect("a batch");
}

/// Waits until compaction has nothing left to do: as long as it takes, unless it
/// hangs.
fn settle(db: &Db) {
    db.flush().wait().expect("a flush");
    let start = Instant::now();
    while db.stats().compaction_debt_bytes > 0 {
        assert!(start.elapsed() < Duration::from_secs(300), "{}", db.stats());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn scans_and_lookups_pass_over_a_million_tombstones() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options::default()
        .io(IoBackend::Blocking)
        .durability(Durability::ProcessSafe)
        .memory(32 << 20)
        .shards(1)
        .owners(1)
        .cache_bytes(0);
    let db = Db::open(dir.path(), options).expect("open");
    // Keys stay on both sides, and the deleted ones are on the deepest level.
    write(&db, 0..DELETED + 2, |batch, i| {
        batch.put(&i.to_be_bytes(), b"short");
    });
    db.compact(..).wait().expect("a compaction");
    let entries = |db: &Db| db.stats().levels.iter().map(|level| level.entries).sum::<u64>();
    assert_eq!(entries(&db), u64::from(DELETED) + 2);
    write(&db, 1..DELETED + 1, |batch, i| {
        batch.delete(&i.to_be_bytes());
    });
    settle(&db);

    let stats = db.stats();
    let tombstones: u64 = stats.levels.iter().map(|level| level.tombstones).sum();
    assert!(tombstones < u64::from(DELETED) / 50, "{stats}");
    assert!(entries(&db) < u64::from(DELETED) / 25, "{stats}");
    let reads = || db.stats().device_reads;
    let cost = |what: &str, most: u64, work: &dyn Fn()| {
        let before = reads();
        work();
        let cost = reads() - before;
        assert!(cost <= most, "{what}: {cost} reads; {}", db.stats());
    };
    let first_of = |scan: ourodb::Scan| scan.iter().next().expect("a row").expect("sound").0;
    let behind = (DELETED + 1).to_be_bytes();
    for from in [1, DELETED / 2, DELETED] {
        let from = from.to_be_bytes();
        cost("a seek", 60, &|| assert_eq!(first_of(db.scan(from..).limit(1)), behind));
        cost("a seek back", 60, &|| {
            assert_eq!(first_of(db.scan(..from).reverse().limit(1)), [0; 4]);
        });
    }
    cost("a scan", 60, &|| assert_eq!(db.scan(..).iter().count(), 2));
    cost("lookups", 60, &|| {
        for i in (1..=DELETED).step_by(1009) {
            assert_eq!(db.get(&i.to_be_bytes()).wait().expect("a get"), None);
        }
    });
}
