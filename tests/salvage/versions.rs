//! Which version of a key is copied.

use super::common::begin;
use super::*;
use std::future::IntoFuture;

/// A window of the log is a quarter of the budget: with more log than that, it takes
/// several.
#[test]
fn more_log_than_memory() {
    let sim = Sim::new(3);
    let big =
        |sim: &Sim| options(sim).memory(16 << 20).memtable_bytes(1 << 20).wal_bytes_max(8 << 20);
    let mut history = History::default();
    let db = Db::open(DIR, big(&sim)).expect("open");
    for i in 0..6000 {
        // Keys that come again, in no order.
        let i = i * 7919 % 4001;
        let value = vec![i as u8; 300 + i % 7];
        history.put(&db, &key(i), &value, Durability::ProcessSafe);
    }
    history.delete_range(&db, &key(1000), &key(1100));
    sim.kill();
    drop(db);
    let wal: usize = sim
        .paths()
        .iter()
        .filter(|path| is_kind(path, "wal"))
        .map(|path| sim.file_bytes(path).expect("a file").len())
        .sum();
    assert!(wal > 2 << 20, "{wal} bytes of log");
    let copy = salvage(&sim);
    assert_eq!((&copy.rows, copy.counts.losses), (&history.newest, 0));
}

/// Merged tables wait to be written over. Without the manifest they are read, too,
/// and the newest version wins.
#[test]
fn tables_that_were_merged() {
    let sim = Sim::new(4);
    let mut history = History::default();
    let db = Db::open(DIR, options(&sim)).expect("open");
    for round in 0..4 {
        write(&db, &mut history, 0..150, round, Durability::Durable);
        db.flush().wait().expect("flush");
    }
    let before: Vec<_> = files(&sim).into_iter().filter(|path| is_kind(path, "sst")).collect();
    db.compact(..).wait().expect("compact");
    sim.kill();
    drop(db);
    let lingering = before.iter().filter(|path| files(&sim).contains(path)).count();
    assert!(lingering > 0, "merged tables are kept for a while");
    let image = sim.snapshot();
    let copy = salvage(&sim);
    assert_eq!((&copy.rows, copy.counts.losses), (&history.newest, 0));
    sim.restore(&image);
    history.durable = history.newest.clone();
    for path in files(&sim).iter().filter(|path| is_manifest(path)) {
        sim.overwrite(path, UNIT as u64, &[0; UNIT]);
    }
    let copy = salvage(&sim);
    history.judge(&copy, "without manifests");
    // Older ones than are live do not come back: their newer ones are there.
    for (key, value) in &history.newest {
        assert_eq!(copy.rows.get(key), Some(value), "{}", key.escape_ascii());
    }
}

/// Numbers that a later opening gave again are not those of writes that it did not
/// find.
#[test]
fn what_an_opening_cut_off_stays_void() {
    let sim = Sim::new(5);
    let mut history = History::default();
    let db = Db::open(DIR, options(&sim).owners(1)).expect("open");
    history.put(&db, b"a", b"kept", Durability::Durable);
    sim.run_for(2_000_000_000);
    // Two records of one group, none of which says that the other is durable.
    let mut puts = [b"b", b"c"].map(|key| Box::pin(db.put(key, b"torn").into_future()));
    for put in &mut puts {
        begin(&sim, put);
    }
    sim.run_for(100_000_000);
    sim.kill();
    drop(puts);
    drop(db);
    // The end of the log is torn: its record of "b" is not whole.
    let segment = files(&sim).into_iter().find(|path| is_kind(path, "wal")).expect("a segment");
    let bytes = sim.file_bytes(&segment).expect("a file");
    let find = |what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let at = find(b"btorn").expect("the record");
    sim.overwrite(&segment, at as u64, b"x");
    let db = Db::open(DIR, options(&sim).owners(1)).expect("open");
    assert_eq!(db.get(b"c").wait().expect("get"), None, "it was cut");
    history.put(&db, b"d", b"later", Durability::Durable);
    history.put(&db, b"e", b"later", Durability::Durable);
    db.close().expect("close");
    let roots: Vec<_> = files(&sim).into_iter().filter(|path| is_manifest(path)).collect();
    let root = roots.iter().find(|path| path.parent() == Some(Path::new(DIR))).expect("a root");
    sim.remove_file(root);
    let copy = salvage(&sim);
    assert_eq!(copy.rows, history.newest);
    assert!(copy.losses.iter().any(|loss| loss.fault().file().ends_with("MANIFEST-*")));
}
