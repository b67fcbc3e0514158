//! Compaction as users meet it: space comes back, readers see nothing of it,
//! and whatever fails meanwhile, nothing is lost.

mod common;

use common::{Model, Rng, assert_same, tiny, used_bytes};
use ourodb::sim::{FaultKind, Faults, Sim};
use ourodb::{Compaction, Db, ErrorKind, Options};

const SECOND_NS: u64 = 1_000_000_000;

fn options(sim: &Sim) -> Options {
    tiny(sim).shards(2).owners(1)
}

fn open(sim: &Sim) -> Db {
    Db::open("/db", options(sim)).expect("an opening")
}

/// Puts random values under random keys of so many.
fn write(db: &Db, model: &mut Model, rng: &mut Rng, keys: u64, count: u64) {
    for _ in 0..count {
        let key = format!("{:04}", rng.below(keys)).into_bytes();
        if rng.one_in(4) {
            db.delete(&key).wait().expect("a delete");
            model.remove(&key);
        } else {
            let len = rng.below(400) as usize;
            let value = rng.bytes(len);
            db.put(&key, &value).wait().expect("a put");
            model.insert(key, value);
        }
    }
}

fn table_files(sim: &Sim) -> usize {
    sim.paths().iter().filter(|path| path.extension().is_some_and(|e| e == "sst")).count()
}

#[test]
fn space_comes_back_when_nobody_writes_any_more() {
    let sim = Sim::new(1);
    let (mut model, mut rng) = (Model::new(), Rng(1));
    let db = open(&sim);
    write(&db, &mut model, &mut rng, 3000, 12_000);
    db.flush().wait().expect("a flush");
    sim.run_for(30 * SECOND_NS);
    let stats = db.stats();
    assert!(stats.compactions > 0);
    let entries: u64 = stats.levels.iter().map(|level| level.entries).sum();
    let live = model.len() as u64;
    assert!(entries < live * 110 / 100, "{entries} entries for {live} rows: {stats}");
    assert_eq!(table_files(&sim), stats.tables as usize, "files of what was merged are gone");
    assert_same(&db, &model);
    db.close().expect("a close");
    let db = open(&sim);
    assert_eq!(db.stats().tables, stats.tables);
    assert_same(&db, &model);
}

#[test]
fn an_open_scan_goes_on_over_tables_that_were_merged() {
    let sim = Sim::new(2);
    let (mut model, mut rng) = (Model::new(), Rng(2));
    let db = open(&sim);
    write(&db, &mut model, &mut rng, 200, 1000);
    db.flush().wait().expect("a flush");
    let before = model.clone();
    let mut scan = db.scan(..).iter();
    let first = scan.next().expect("a row").expect("sound tables");
    write(&db, &mut model, &mut rng, 200, 3000);
    db.compact(..).wait().expect("a compaction");
    let held = table_files(&sim);
    assert!(held > db.stats().tables as usize, "what the scan reads is still there");
    let rest = scan.map(|row| row.expect("sound tables"));
    let rows: Model =
        std::iter::once(first).chain(rest).map(|(k, v)| (k.into_vec(), v.into_vec())).collect();
    assert_eq!(rows, before);
    // What the scan saw of old versions goes after it.
    db.compact(..).wait().expect("a compaction");
    sim.run_for(SECOND_NS);
    assert_eq!(table_files(&sim), db.stats().tables as usize);
    assert_same(&db, &model);
}

/// A compaction that emptied the cache would send everybody to the device at once.
#[test]
fn what_was_cached_is_cached_after_a_compaction_and_nothing_else() {
    const KEYS: u32 = 4000;
    for partitioned in [false, true] {
        let sim = Sim::new(21);
        // One compaction, and not one after the other: what is not used between two is cold.
        let mut options = options(&sim).cache_bytes(8 << 20).memtable_bytes(1 << 20);
        if partitioned {
            options = options.pinned_bytes(0);
        }
        let db = Db::open("/db", options).expect("an opening");
        let put = |i: u32, byte: u8| {
            db.put(&i.to_be_bytes(), &[byte; 300]).wait().expect("a put");
        };
        let misses_of = |keys: std::ops::Range<u32>, byte: fn(u32) -> u8| {
            let before = db.stats().cache_misses;
            for i in keys {
                let value = db.get(&i.to_be_bytes()).wait().expect("sound tables");
                assert_eq!(value.as_deref(), Some(&[byte(i); 300][..]), "key {i}");
            }
            db.stats().cache_misses - before
        };
        (0..KEYS).for_each(|i| put(i, 1));
        db.compact(..).wait().expect("a compaction");
        assert_eq!(db.stats().cache_inserted, 0, "nobody read anything");
        let cold = misses_of(0..KEYS / 2, |_| 1);
        assert!(cold > 100, "{cold} blocks");
        assert_eq!(misses_of(0..KEYS / 2, |_| 1), 0);
        let cached = db.stats().cache_blocks;

        (0..KEYS).step_by(10).for_each(|i| put(i, 2));
        db.compact(..).wait().expect("a compaction");
        sim.run_for(SECOND_NS);
        let value = |i| if i % 10 == 0 { 2 } else { 1 };
        let warm = misses_of(0..KEYS / 2, value);
        let brought = db.stats().cache_blocks;
        // Blocks are fuller than before.
        assert!((cached / 2..=cached).contains(&brought), "{brought} blocks for {cached}");
        // A block at the border may be of both halves, in each shard.
        assert!(warm <= 4, "{warm} blocks were not brought, of {cold}");
        let others = misses_of(KEYS / 2..KEYS, value);
        assert!(others + 4 >= brought, "{others} blocks were not there, {brought} of the others");

        // What is not used from one compaction to the next is not kept for ever.
        for byte in [3, 4] {
            assert!(db.stats().cache_blocks > 0);
            (0..KEYS).step_by(10).for_each(|i| put(i, byte));
            db.compact(..).wait().expect("a compaction");
            sim.run_for(SECOND_NS);
        }
        assert_eq!(db.stats().cache_blocks, 0);
        db.close().expect("a close");
    }
}

/// Tables that it does not read go, also those of the same level.
#[test]
fn an_open_scan_keeps_only_the_tables_of_its_range() {
    let sim = Sim::new(12);
    let options = options(&sim).shards(1).table_bytes(64 << 10);
    let db = Db::open("/db", options).expect("an opening");
    let key = |i: u32| i.to_be_bytes();
    let put_all = |byte: u8| {
        for i in 0..4000 {
            db.put(&key(i), &[byte; 200]).wait().expect("a put");
        }
        db.compact(..).wait().expect("a compaction");
        sim.run_for(30 * SECOND_NS);
    };
    put_all(1);
    let tables = db.stats().tables as usize;
    assert!(tables > 8 && table_files(&sim) == tables, "{tables} tables");
    let mut scan = db.scan(key(1000)..key(1010)).iter();
    let mut keys = db.scan(key(2000)..key(2010)).keys().iter();
    for byte in [2, 3] {
        scan.next().expect("a row").expect("sound tables");
        keys.next().expect("a row").expect("sound tables");
        put_all(byte);
        // The ten keys of each are in one table, or two.
        let kept = table_files(&sim) - db.stats().tables as usize;
        assert!((2..=4).contains(&kept), "{kept} tables");
    }
    assert!(scan.all(|row| row.expect("sound tables").1[..] == [1; 200]));
    assert_eq!(keys.count(), 8);
    drop(scan);
    sim.run_for(30 * SECOND_NS);
    assert_eq!(table_files(&sim), db.stats().tables as usize);
}

#[test]
fn whatever_was_deleted_is_gone_after_a_compaction() {
    let sim = Sim::new(3);
    for compaction in [Compaction::Leveled, Compaction::Tiered] {
        let db = Db::open("/db", options(&sim).compaction(compaction)).expect("an opening");
        let (mut model, mut rng) = (Model::new(), Rng(3));
        write(&db, &mut model, &mut rng, 200, 2000);
        for key in model.keys() {
            db.delete(key).wait().expect("a delete");
        }
        db.compact(b"5".to_vec()..).wait().expect("a compaction of a part");
        db.compact(..).wait().expect("a compaction");
        assert_eq!(db.stats().tables, 0, "{compaction:?}");
        assert_same(&db, &Model::new());
        db.close().expect("a close");
    }
}

#[test]
fn crashes_during_compactions() {
    for seed in 0..40 {
        let sim = Sim::new(seed);
        let (mut model, mut rng) = (Model::new(), Rng(seed));
        let compaction = if seed % 2 == 0 { Compaction::Leveled } else { Compaction::Tiered };
        let options = || options(&sim).compaction(compaction).size_ratio(3);
        for _ in 0..4 {
            let db = Db::open("/db", options()).expect("an opening");
            assert_same(&db, &model);
            assert_eq!(db.stats().damaged_tables, 0);
            write(&db, &mut model, &mut rng, 150, 300);
            sim.run_for(rng.below(3 * SECOND_NS));
            if rng.one_in(2) {
                sim.power_cut();
            } else {
                sim.kill();
            }
            drop(db);
        }
        let db = Db::open("/db", options()).expect("an opening");
        assert_same(&db, &model);
    }
}

/// Each request of a compaction fails once.
#[test]
fn a_compaction_that_fails_is_tried_again() {
    for kind in [FaultKind::Io, FaultKind::NoSpace] {
        let mut failed = 0;
        for k in (1..).step_by(3) {
            let sim = Sim::new(k);
            let (mut model, mut rng) = (Model::new(), Rng(4));
            let db = open(&sim);
            write(&db, &mut model, &mut rng, 100, 600);
            db.flush().wait().expect("a flush");
            sim.set_faults(Faults::default().fail_kth(k, kind, false));
            let compacted = db.compact(..).wait();
            let injected = sim.faults_injected();
            sim.set_faults(Faults::default());
            match compacted {
                Ok(()) => {}
                // Nothing can be said of a manifest after a failed write.
                Err(error) if error.kind() == ErrorKind::Poisoned => {
                    drop(db);
                    let db = open(&sim);
                    assert_same(&db, &model);
                    continue;
                }
                Err(error) => {
                    failed += 1;
                    assert_ne!(error.kind(), ErrorKind::Corruption, "{error}");
                }
            }
            assert_same(&db, &model);
            db.close().ok();
            let db = open(&sim);
            assert_same(&db, &model);
            let tables = db.stats().tables as usize;
            assert_eq!(table_files(&sim), tables, "{kind:?} at {k}: what it left is gone");
            write(&db, &mut model, &mut rng, 100, 20);
            if injected == 0 {
                assert!(failed > 0, "{kind:?}: none failed");
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_stops_writes_and_not_reads_and_all_goes_on_once_there_is_space() {
    let sim = Sim::new(6);
    let (mut model, mut rng) = (Model::new(), Rng(6));
    let db = open(&sim);
    write(&db, &mut model, &mut rng, 300, 2000);
    let used: usize =
        sim.paths().iter().filter_map(|path| sim.file_bytes(path)).map(|bytes| bytes.len()).sum();
    sim.set_faults(Faults::default().disk_bytes_max(used as u64 + (64 << 10)));
    let refused = loop {
        let key = format!("{:04}", rng.below(300)).into_bytes();
        let value = rng.bytes(390);
        match db.put(&key, &value).wait() {
            Ok(()) => drop(model.insert(key, value)),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused}");
    assert_same(&db, &model);
    sim.set_faults(Faults::default());
    sim.run_for(20 * SECOND_NS);
    write(&db, &mut model, &mut rng, 300, 1000);
    db.compact(..).wait().expect("a compaction");
    assert_same(&db, &model);
}

#[test]
fn a_damaged_table_is_not_merged_and_all_other_keys_are_there() {
    let sim = Sim::new(7);
    let (mut model, mut rng) = (Model::new(), Rng(7));
    let db = open(&sim);
    write(&db, &mut model, &mut rng, 300, 1500);
    db.compact(..).wait().expect("a compaction");
    db.close().expect("a close");
    let tables: Vec<_> =
        sim.paths().into_iter().filter(|p| p.extension().is_some_and(|e| e == "sst")).collect();
    // A data block: the table opens, and the damage is found when it is read.
    sim.overwrite(&tables[0], 4096 + 100, b"damage");
    let db = open(&sim);
    let mut lost = 0;
    let mut check = |db: &Db, model: &Model| {
        lost = 0;
        for (key, value) in model {
            match db.get(key).wait() {
                Ok(found) => assert_eq!(found.as_deref(), Some(&value[..])),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corruption);
                    lost += 1;
                }
            }
        }
        lost
    };
    let lost_first = check(&db, &model);
    assert!(lost_first > 0 && lost_first < model.len() / 2, "{lost_first}");
    let error = {
        write(&db, &mut model, &mut rng, 300, 200);
        db.compact(..).wait().expect_err("a block of an input is damaged")
    };
    assert_eq!(error.kind(), ErrorKind::Corruption);
    // Who asks again is told soon: writers would wait for as long.
    let asked_ns = sim.now_ns();
    let again = db.compact(..).wait().expect_err("it still is");
    assert_eq!(again.kind(), ErrorKind::Corruption);
    assert!(sim.now_ns() - asked_ns < 10 * SECOND_NS);
    assert!(check(&db, &model) <= lost_first);
    // Writes go on, however many tables that makes.
    write(&db, &mut model, &mut rng, 300, 4000);
    check(&db, &model);
}

/// A compaction that finds no room is tried again by itself, and goes on when there is
/// some; reads go on meanwhile.
#[test]
fn a_compaction_resumes_when_a_full_disk_has_room_again() {
    let sim = Sim::new(11);
    let (mut model, mut rng) = (Model::new(), Rng(11));
    // All of level 0 waits for one merging.
    let options = options(&sim).shards(1).memtable_bytes(64 << 10).cache_bytes(0);
    let db = Db::open("/db", options).expect("an opening");
    write(&db, &mut model, &mut rng, 8000, 20_000);
    db.compact(..).wait().expect("a compaction");
    // No file is left that could be written over.
    sim.run_for(30 * SECOND_NS);
    write(&db, &mut model, &mut rng, 8000, 3000);
    db.flush().wait().expect("a flush");
    assert!(db.background_error().is_none());
    sim.set_faults(Faults::default().disk_bytes_max(used_bytes(&sim)));
    // Writes have paused for long: what finds room is done, and something does not.
    sim.run_for(60 * SECOND_NS);
    let full = db.stats();
    let told = db.background_error().expect("something failed");
    assert_eq!(told.kind(), ErrorKind::NoSpace, "{told}");
    assert_same(&db, &model);
    sim.set_faults(Faults::default());
    sim.run_for(60 * SECOND_NS);
    assert!(db.background_error().is_none(), "it goes on");
    assert!(db.stats().compactions > full.compactions, "nothing had to wait");
    assert_eq!(table_files(&sim), db.stats().tables as usize);
    assert_same(&db, &model);
    db.put(b"later", b"value").wait().expect("a put");
}

/// A manifest whose last write failed takes no more tables: none are made for it.
#[test]
fn nothing_is_merged_for_a_poisoned_manifest() {
    let mut poisoned = 0;
    for k in 1.. {
        let sim = Sim::new(k);
        let (mut model, mut rng) = (Model::new(), Rng(4));
        let db = open(&sim);
        write(&db, &mut model, &mut rng, 100, 600);
        db.flush().wait().expect("a flush");
        sim.set_faults(Faults::default().fail_kth(k, FaultKind::Io, false));
        let compacted = db.compact(..).wait();
        let injected = sim.faults_injected();
        sim.set_faults(Faults::default());
        if injected == 0 {
            break;
        }
        if compacted.is_ok() || db.put(b"key", b"value").wait().is_ok() {
            continue;
        }
        poisoned += 1;
        let error = db.compact(..).wait().expect_err("nothing can be put in place");
        assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
        // What was merged before goes.
        sim.run_for(20 * SECOND_NS);
        let (files, reads) = (table_files(&sim), db.stats().device_read_bytes);
        sim.run_for(300 * SECOND_NS);
        assert_eq!(table_files(&sim), files);
        assert_eq!(db.stats().device_read_bytes, reads);
        assert_same(&db, &model);
        drop(db);
        sim.kill();
        let db = open(&sim);
        db.compact(..).wait().expect("a compaction");
        assert_same(&db, &model);
    }
    assert!(poisoned > 1);
}

/// A table that was found damaged when it was opened keeps all of level 0 from
/// being merged, and nobody is told by a merging that fails.
#[test]
fn writers_do_not_wait_for_what_a_damaged_table_keeps_from_being_merged() {
    for compaction in [Compaction::Leveled, Compaction::Tiered] {
        let sim = Sim::new(9);
        let options = || options(&sim).shards(1).compaction(compaction);
        let (mut model, mut rng) = (Model::new(), Rng(9));
        let db = Db::open("/db", options()).expect("an opening");
        write(&db, &mut model, &mut rng, 300, 600);
        db.compact(..).wait().expect("a compaction");
        db.close().expect("a close");
        let paths = sim.paths();
        let is_table = |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "sst");
        let table = paths.iter().find(is_table).expect("there is a table");
        let bytes = sim.file_bytes(table).expect("it is there").len() as u64;
        sim.overwrite(table, bytes - 4000, b"damage to the footer");
        let db = Db::open("/db", options()).expect("an opening");
        assert_eq!(db.stats().damaged_tables, 1);
        let mut written = Model::new();
        write(&db, &mut written, &mut rng, 300, 3000);
        assert!(db.stats().tables > 100, "{compaction:?}: nothing can be merged");
        for (key, value) in &written {
            assert_eq!(db.get(key).wait().expect("a newer table").as_deref(), Some(&value[..]));
        }
        // Who wants keys to go down that have nothing to do with it is told, too.
        db.put(b"z", b"of a sound table").wait().expect("a put");
        let error = db.compact(b"z"..).wait().expect_err("level 0 stays where it is");
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains(".sst"), "{error}");
    }
}

#[test]
fn the_newest_stay_when_the_oldest_are_dropped() {
    let sim = Sim::new(8);
    let compaction = Compaction::Fifo { max_bytes: Some(200 << 10), max_age: None };
    let db = Db::open("/db", options(&sim).compaction(compaction)).expect("an opening");
    for i in 0..4000u32 {
        db.put(&i.to_be_bytes(), &[7; 300]).wait().expect("a put");
    }
    sim.run_for(20 * SECOND_NS);
    assert!(db.stats().table_bytes <= 200 << 10);
    assert_eq!(table_files(&sim), db.stats().tables as usize);
    assert_eq!(
        db.get(&3999u32.to_be_bytes()).wait().expect("a get").as_deref(),
        Some(&[7; 300][..])
    );
    assert_eq!(db.get(&0u32.to_be_bytes()).wait().expect("a get"), None);
}

#[test]
fn impossible_hierarchies_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let refused = |options: Options| {
        let error = Db::open(dir.path(), options).expect_err("impossible");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        error.to_string()
    };
    assert!(refused(Options::default().levels(1)).contains("levels is 1; 2 to 7"));
    assert!(refused(Options::default().levels(8)).contains("levels is 8"));
    assert!(refused(Options::default().size_ratio(1)).contains("size_ratio is 1"));
    assert!(refused(Options::default().table_bytes(1000)).contains("table_bytes is 1000"));
    let boundless = Compaction::Fifo { max_bytes: None, max_age: None };
    assert!(refused(Options::default().compaction(boundless)).contains("without a bound"));
}

/// What an open scan had kept goes soon after it, although nobody writes any more:
/// also where the scan held no table that is gone. (Found by `ouro-sim --seed 58`, 375, 1094
/// and 1303.)
#[test]
fn what_a_scan_kept_goes_after_it() {
    let strategies = [Compaction::Leveled, Compaction::Tiered];
    for (compaction, reopen) in strategies.into_iter().flat_map(|s| [(s, false), (s, true)]) {
        let sim = Sim::new(1);
        let options = tiny(&sim).shards(1).owners(1).compaction(compaction);
        let options = options.memtable_bytes(128 << 10);
        let mut db = Db::open("/db", options.clone()).expect("an opening");
        for i in 0..200u8 {
            db.put(&[i], &[i; 3000]).wait().expect("a put");
        }
        db.compact(..).wait().expect("a compaction");
        let mut rows = db.scan(..).iter();
        assert!(rows.next().is_some());
        for i in 0..200u8 {
            db.delete(&[i]).wait().expect("a delete");
        }
        db.flush().wait().expect("a flush");
        sim.run_for(30_000_000_000);
        if reopen {
            sim.kill();
            db = Db::open("/db", options).expect("an opening");
            rows = db.scan(..).iter();
            sim.run_for(30_000_000_000);
        }
        let held = db.stats().table_bytes;
        assert!(held > 500_000, "the scan sees them, or might have");
        assert_eq!(rows.count(), if reopen { 0 } else { 199 });
        sim.run_for(3_000_000_000);
        let left = db.stats().table_bytes;
        assert!(left < 60_000, "{compaction:?}: {left} of {held} bytes; {}", db.stats());
        sim.kill();
    }
}
