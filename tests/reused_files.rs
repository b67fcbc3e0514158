//! New tables are written over the files of old ones: as far as there are some,
//! never over what somebody keeps, and no file waits for long.

mod common;

use std::path::Path;

use common::{Model, Rng, assert_same, tiny, used_bytes};
use ourodb::sim::{Faults, Sim};
use ourodb::{Db, Options};

/// Overwrites four thousand keys.
fn overwrite(db: &Db, model: &mut Model, rng: &mut Rng) {
    for _ in 0..8000 {
        let key = rng.below(4000).to_be_bytes().to_vec();
        let value = rng.bytes(100);
        db.put(&key, &value).wait().expect("a put");
        model.insert(key, value);
    }
    db.flush().wait().expect("a flush");
}

/// A database in the middle of whatever it does after many writes.
fn busy(seed: u64) -> (Sim, Options, Db, Model) {
    let sim = Sim::new(seed);
    let (mut model, mut rng) = (Model::new(), Rng(seed));
    let options = tiny(&sim).shards(2).owners(1).table_bytes(64 << 10);
    let db = Db::open("/db", options.clone()).expect("an opening");
    overwrite(&db, &mut model, &mut rng);
    sim.run_for(rng.below(20_000_000));
    (sim, options, db, model)
}

#[test]
fn files_are_used_again_and_go_when_nobody_needs_them() {
    let sim = Sim::new(1);
    let (mut model, mut rng) = (Model::new(), Rng(1));
    let options = tiny(&sim).shards(1).owners(1).table_bytes(64 << 10);
    let db = Db::open("/db", options.clone()).expect("an opening");
    overwrite(&db, &mut model, &mut rng);
    let stats = db.stats();
    assert!(stats.files_reused > 10, "{} files", stats.files_reused);
    // Writes have to pause for a second before the last are merged.
    sim.run_for(30_000_000_000);
    let stats = db.stats();
    assert_eq!(stats.spare_bytes, 0);
    let is_table = |path: &&Path| path.extension().is_some_and(|extension| extension == "sst");
    let files = || sim.paths().iter().map(AsRef::as_ref).filter(is_table).count() as u64;
    assert_eq!(files(), stats.tables);
    assert_same(&db, &model);
    // Nor does a close leave any behind.
    overwrite(&db, &mut model, &mut rng);
    db.close().expect("a close");
    let files = files();
    let db = Db::open("/db", options).expect("an opening");
    assert_eq!(files, db.stats().tables);
    assert_same(&db, &model);
}

#[test]
fn whenever_it_is_closed_no_file_is_left_behind() {
    for seed in 0..15 {
        let (sim, options, db, model) = busy(seed);
        db.close().expect("a close");
        let is_table = |path: &&Path| path.extension().is_some_and(|extension| extension == "sst");
        let files = sim.paths().iter().map(AsRef::as_ref).filter(is_table).count() as u64;
        let db = Db::open("/db", options).expect("an opening");
        assert_eq!(files, db.stats().tables, "seed {seed}");
        assert_same(&db, &model);
    }
}

#[test]
fn what_has_another_name_is_left_as_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, links) = (dir.path().join("data"), dir.path().join("links"));
    std::fs::create_dir(&links).expect("a directory");
    let (mut model, mut rng) = (Model::new(), Rng(2));
    let options = Options::default().shards(1).owners(1).memtable_bytes(64 << 10);
    let db = Db::open(&data, options.durability(ourodb::Durability::ProcessSafe));
    let db = db.expect("an opening");
    overwrite(&db, &mut model, &mut rng);
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(data.join("shard-000")).expect("a shard") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            let link = links.join(path.file_name().expect("a name"));
            // Unless it was just merged.
            if std::fs::hard_link(&path, &link).is_ok() {
                kept.push((std::fs::read(&link).expect("a table"), link));
            }
        }
    }
    assert!(!kept.is_empty());
    overwrite(&db, &mut model, &mut rng);
    db.compact(..).wait().expect("a compaction");
    assert!(db.stats().files_reused > 0);
    assert_same(&db, &model);
    db.close().expect("a close");
    for (bytes, link) in kept {
        assert!(std::fs::read(&link).expect("a table") == bytes, "{} changed", link.display());
    }
}

/// The names of the log's segments.
fn segments(sim: &Sim) -> Vec<std::path::PathBuf> {
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "wal");
    sim.paths().into_iter().filter(is_segment).collect()
}

#[test]
fn segments_of_the_log_are_used_again_and_go_when_nobody_writes() {
    let sim = Sim::new(3);
    let (mut model, mut rng) = (Model::new(), Rng(3));
    let options = tiny(&sim).shards(1).owners(1).memtable_bytes(256 << 10);
    let db = Db::open("/db", options).expect("an opening");
    overwrite(&db, &mut model, &mut rng);
    let made = segments(&sim);
    assert!(made.len() > 10, "{} segments", made.len());
    // Flushed again and again, so that little of the log is needed in between.
    for _ in 0..5 {
        overwrite(&db, &mut model, &mut rng);
    }
    let new = segments(&sim).into_iter().filter(|path| !made.contains(path)).count();
    assert!(new < made.len() / 2, "{new} new segments beside {}", made.len());
    sim.run_for(20_000_000_000);
    let left = segments(&sim).len();
    assert!(left < 6, "{left} segments are left");
    assert_same(&db, &model);
}

/// What waits to be written over goes before a close writes its last.
#[test]
fn a_close_on_a_full_disk_has_the_space_of_spare_files() {
    let mut met = 0;
    for seed in 0..15 {
        let (sim, options, db, model) = busy(seed);
        if db.stats().spare_bytes == 0 {
            continue;
        }
        met += 1;
        sim.set_faults(Faults::default().disk_bytes_max(used_bytes(&sim)));
        db.close().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        drop(db);
        sim.set_faults(Faults::default());
        assert_same(&Db::open("/db", options).expect("an opening"), &model);
    }
    assert!(met > 3, "spare files after {met} seeds");
}
