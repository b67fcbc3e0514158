//! Scans of keys alone: the keys that scans of rows find, and no value touched.

mod common;

use std::future::poll_fn;
use std::pin::Pin;

use common::{Model, Rng, change_some, tiny};
use futures_core::Stream;
use ourodb::sim::Sim;
use ourodb::{Db, Durability, IoBackend, Options, ScanKeys};

/// Every scan of keys finds this.
fn assert_keys(scan: impl Fn() -> ScanKeys, expected: &[&Vec<u8>]) {
    let found = |scan: ScanKeys| -> Vec<Vec<u8>> {
        scan.iter().map(|key| key.expect("a key").into_vec()).collect()
    };
    assert!(found(scan()).iter().eq(expected.iter().copied()));
    assert!(found(scan().reverse()).iter().eq(expected.iter().rev().copied()));
    let middle = expected.len() / 2;
    assert!(found(scan().limit(middle)).iter().eq(expected[..middle].iter().copied()));
    for reverse in [false, true] {
        let keys = if reverse { scan().reverse() } else { scan() };
        let mut stream = keys.limit(middle + 1).stream();
        let found: Vec<Vec<u8>> = pollster::block_on(async {
            let mut found = Vec::new();
            while let Some(key) = poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await {
                found.push(key.expect("a key").into_vec());
            }
            found
        });
        let mut all = expected.to_vec();
        if reverse {
            all.reverse();
        }
        all.truncate(middle + 1);
        assert!(found.iter().eq(all));
    }
}

#[test]
fn keys_are_those_of_the_rows_wherever_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options::default().shards(3).owners(2).memtable_bytes(16 << 10);
    let options = options.durability(Durability::ProcessSafe);
    let (mut model, mut rng) = (Model::new(), Rng(1));
    let db = Db::open(dir.path(), options).expect("open");
    for round in 0..6 {
        change_some(&db, &mut model, &mut rng, &[0, 20, 5000]);
        if round == 3 {
            db.delete_range(b"10"..b"15").wait().expect("a range delete");
            model.retain(|key, _| !(&b"10"[..]..&b"15"[..]).contains(&&key[..]));
        }
        let all: Vec<_> = model.keys().collect();
        assert_keys(|| db.scan(..).keys(), &all);
        let some: Vec<_> = model.range(b"05".to_vec()..b"21".to_vec()).map(|(k, _)| k).collect();
        assert_keys(|| db.scan(b"05"..b"21").keys(), &some);
    }
    db.compact(..).wait().expect("a compaction");
    assert_keys(
        || db.scan_prefix(b"2").keys(),
        &model.range(b"2".to_vec()..b"3".to_vec()).map(|(k, _)| k).collect::<Vec<_>>(),
    );
}

/// Keys that are written once the scan has begun are not in it.
#[test]
fn keys_are_those_of_one_moment() {
    let sim = Sim::new(2);
    let db = Db::open("/db", tiny(&sim).shards(2)).expect("open");
    for i in 0..50u8 {
        db.put(&[i], &[i; 500]).wait().expect("a put");
    }
    let mut keys = db.scan(..).keys().iter();
    assert_eq!(keys.next().expect("a key").expect("sound")[..], [0]);
    for i in 0..100u8 {
        db.put(&[i, 1], &[i; 500]).wait().expect("a put");
        db.delete(&[i]).wait().expect("a delete");
    }
    db.compact(..).wait().expect("a compaction");
    let rest: Vec<_> = keys.map(|key| key.expect("sound").into_vec()).collect();
    assert_eq!(rest, (1..50u8).map(|i| vec![i]).collect::<Vec<_>>());
}

/// Value files are not opened, and not a byte of them is read: by the counts of
/// the seam to the disk, and because it makes no difference that they are gone.
#[test]
fn no_long_value_is_read() {
    let sim = Sim::new(3);
    let options = Options::default().io(IoBackend::Sim(sim.clone())).shards(2).owners(1);
    let options = options.memory(32 << 20);
    let db = Db::open("/db", options).expect("open");
    let value = vec![7; 100_000];
    for i in 0..20u8 {
        db.put(&[i], &value).wait().expect("a put");
    }
    let read = |rows: usize| {
        let before = db.stats();
        assert_eq!(db.scan(..).keys().iter().inspect(|key| assert!(key.is_ok())).count(), rows);
        assert_eq!(
            db.scan(..).keys().reverse().iter().inspect(|key| assert!(key.is_ok())).count(),
            rows
        );
        let after = db.stats();
        (after.device_reads - before.device_reads, after.metadata_ops - before.metadata_ops)
    };
    assert_eq!(read(20), (0, 0), "from memtables");
    db.flush().wait().expect("a flush");
    // The tables' blocks: one each, and then they are cached.
    assert!(read(20).0 <= db.stats().tables);
    assert_eq!(read(20), (0, 0), "from cached blocks");
    let before = db.stats();
    assert_eq!(db.scan(..).iter().inspect(|row| assert!(row.is_ok())).count(), 20);
    assert!(db.stats().device_reads - before.device_reads >= 20, "rows have their values");

    let is_value_file = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "val");
    for path in sim.paths().into_iter().filter(is_value_file) {
        sim.overwrite(&path, 4096, &[0; 4096]);
    }
    assert_eq!(read(20), (0, 0));
    assert!(db.scan(..).iter().any(|row| row.is_err()), "the damage is where values are");
}
