//! Damage to the last edits of a manifest refuses the opening wherever it would
//! lose something without a word: what is relied on was witnessed before.

use ourodb::sim::Sim;
use ourodb::{Db, Durability, ErrorKind, Options};

use super::common::{Model, assert_same};
use super::{DIR, key, options, verify, write};

const UNIT: usize = 4096;

/// Opens what `make` leaves once for each unit that is used of each manifest, a
/// byte of it flipped: it is refused, and verification names a fault, or all is
/// there. How often it was refused.
fn flip_each_unit_of_manifests(make: fn() -> (Sim, Model)) -> usize {
    let mut refused = 0;
    let (sim, model) = make();
    let is_manifest = |name: &str| name.contains("/MANIFEST-");
    let manifests = sim.paths().into_iter().filter(|path| is_manifest(&path.to_string_lossy()));
    for path in manifests {
        let bytes = sim.file_bytes(&path).expect("a file");
        for (unit, content) in bytes.chunks_exact(UNIT).enumerate() {
            if content.iter().all(|byte| *byte == 0) {
                continue;
            }
            // What an opening does depends on the boot: made anew each time.
            let (sim, _) = make();
            let at = unit * UNIT + 5;
            sim.overwrite(&path, at as u64, &[content[5] ^ 1]);
            let place = format!("{} at {at}", path.display());
            let faults = verify(&sim).faults;
            match Db::open(DIR, options(&sim)) {
                Ok(db) => {
                    assert!(faults.is_empty(), "{place}: {faults:?}");
                    assert_same(&db, &model);
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corruption, "{place}: {error}");
                    assert!(!faults.is_empty(), "{place}: {error}");
                    refused += 1;
                }
            }
        }
    }
    refused
}

/// The last thing that the root manifest was told is where the mapping is.
fn with_a_mapping() -> (Sim, Model) {
    with_mappings(&|options| options)
}

/// The same, in a directory of the user's choice.
fn with_a_mapping_elsewhere() -> (Sim, Model) {
    with_mappings(&|options| options.map_dir("/"))
}

fn with_mappings(change: &dyn Fn(Options) -> Options) -> (Sim, Model) {
    let sim = Sim::new(5);
    let mut model = Model::new();
    let db = Db::open(DIR, change(options(&sim))).expect("open");
    for round in 0..3 {
        write(&db, &mut model, 0..20, round, Durability::ProcessSafe);
        // The first writes ask for the mapping.
        sim.run_for(50_000_000);
    }
    write(&db, &mut model, 0..20, 9, Durability::ProcessSafe);
    sim.kill();
    drop(db);
    (sim, model)
}

#[test]
fn the_mapping_that_holds_acknowledged_writes() {
    // Of each of three manifests the snapshot; and the mappings of two owners.
    assert!(flip_each_unit_of_manifests(with_a_mapping) >= 5);
    assert!(flip_each_unit_of_manifests(with_a_mapping_elsewhere) >= 5);
}

/// The last thing that manifests were told is that tables are gone, and so are
/// their files.
fn compacted() -> (Sim, Model) {
    let sim = Sim::new(6);
    let mut model = Model::new();
    let db = Db::open(DIR, options(&sim)).expect("open");
    for round in 0..3 {
        write(&db, &mut model, 0..100, round, Durability::Durable);
        db.flush().wait().expect("flush");
    }
    db.compact(..).wait().expect("compact");
    sim.run_for(50_000_000);
    assert_eq!(db.get(&key(1)).wait().expect("a get").is_some(), model.contains_key(&key(1)));
    sim.kill();
    drop(db);
    (sim, model)
}

#[test]
fn the_tables_that_a_compaction_removed() {
    assert!(flip_each_unit_of_manifests(compacted) >= 5);
}

/// Openings that end at once leave so much log that the next one flushes it. That is
/// the last thing that the manifest of the shard was told, and the log is gone.
fn flushed_by_an_opening() -> (Sim, Model) {
    let sim = Sim::new(7);
    let mut model = Model::new();
    // One stream each.
    for round in 0..18 {
        let db = Db::open(DIR, options(&sim).shards(1).owners(1)).expect("open");
        if round < 17 {
            write(&db, &mut model, round..round + 1, round, Durability::Durable);
        } else {
            assert_eq!(db.stats().tables, 1);
        }
        sim.kill();
    }
    (sim, model)
}

#[test]
fn the_tables_that_an_opening_flushed() {
    assert!(flip_each_unit_of_manifests(flushed_by_an_opening) >= 2);
}

/// A log whose segments were used again: none starts where the stream did. They have no
/// room for the long values.
fn with_a_recycled_log() -> (Sim, Model) {
    let sim = Sim::new(8);
    let mut model = Model::new();
    let options = || options(&sim).shards(1).owners(1).wal_segment_bytes(8 << 10);
    let db = Db::open(DIR, options()).expect("open");
    for round in 0..3 {
        write(&db, &mut model, 6..26, round, Durability::Durable);
        db.flush().wait().expect("flush");
        sim.run_for(100_000_000);
    }
    write(&db, &mut model, 26..28, 9, Durability::Durable);
    db.close().expect("close");
    (sim, model)
}

/// The manifest in this directory is cut at each sector: it is refused, and
/// verification names a fault, or all is there. How often it was refused.
fn cut_each_sector_of_the_manifest(make: fn() -> (Sim, Model), dir: &str) -> usize {
    let (sim, model) = make();
    let image = sim.snapshot();
    let is_root =
        |path: &std::path::PathBuf| path.to_string_lossy().starts_with(&format!("{dir}/MANIFEST-"));
    let path = sim.paths().into_iter().find(is_root).expect("a manifest");
    let len = sim.file_bytes(&path).expect("a file").len();
    let mut refused = 0;
    for cut in (0..len).step_by(512) {
        sim.rewind(&image);
        sim.truncate(&path, cut as u64);
        let faults = verify(&sim).faults;
        match Db::open(DIR, options(&sim)) {
            Ok(db) => {
                assert!(faults.is_empty(), "cut to {cut}: {faults:?}");
                assert_same(&db, &model);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "cut to {cut}: {error}");
                assert!(!faults.is_empty(), "cut to {cut}: {error}");
                refused += 1;
            }
        }
    }
    refused
}

/// (Found by `ouro-sim damage`.)
#[test]
fn a_cut_root_manifest_forgets_no_mapping() {
    assert!(cut_each_sector_of_the_manifest(with_a_mapping, DIR) > 16);
    assert!(cut_each_sector_of_the_manifest(with_a_mapping_elsewhere, DIR) > 16);
}

/// (Found by `ouro-sim damage`.)
#[test]
fn a_cut_root_manifest_forgets_no_log() {
    assert!(cut_each_sector_of_the_manifest(with_a_recycled_log, DIR) > 8);
}

/// What was in the log of an earlier opening alone is in tables, that log is gone, and
/// nothing was written since.
fn with_a_freed_log() -> (Sim, Model) {
    let sim = Sim::new(9);
    let mut model = Model::new();
    let db = Db::open(DIR, options(&sim)).expect("open");
    write(&db, &mut model, 0..30, 0, Durability::Durable);
    db.close().expect("close");
    let db = Db::open(DIR, options(&sim)).expect("open");
    db.flush().wait().expect("flush");
    sim.run_for(2_000_000_000);
    db.close().expect("close");
    (sim, model)
}

#[test]
fn a_cut_manifest_forgets_no_table_whose_log_is_gone() {
    for shard in ["shard-000", "shard-001"] {
        let refused = cut_each_sector_of_the_manifest(with_a_freed_log, &format!("{DIR}/{shard}"));
        assert!(refused > 16, "{refused} openings of {shard} were refused");
    }
}
