//! Openings: a creation that is interrupted anywhere, many short sessions, one
//! very long one.

mod common;

use std::path::PathBuf;

use common::{Model, Rng, assert_same, tiny, used_bytes};
use ourodb::sim::{Faults, Sim};
use ourodb::{Db, Durability, Options};

fn count(sim: &Sim, extension: &str) -> usize {
    let paths = sim.paths();
    paths.iter().filter(|path| path.extension().is_some_and(|e| e == extension)).count()
}

/// What is then written is as durable as if nothing had happened: also the names
/// of directories that the interrupted creation had made. (Found by `ouro-sim --seed 23`.)
#[test]
fn a_creation_may_be_interrupted_anywhere() {
    for (power_cut, seed) in [false, true].into_iter().flat_map(|cut| (0..8).map(move |s| (cut, s)))
    {
        for n in 0.. {
            let sim = Sim::new(n + 1000 * seed);
            let open = || Db::open("/above/up/db", tiny(&sim).shards(3).owners(2));
            sim.crash_after(n, power_cut);
            let opened = sim.until_crash(open);
            if opened.is_some() {
                sim.kill();
                break;
            }
            let again = || open().unwrap_or_else(|e| panic!("crash after {n}, {power_cut}: {e}"));
            let db = again();
            db.put(b"key", b"value").wait().expect("a put");
            sim.power_cut();
            drop(db);
            let value = again().get(b"key").wait().expect("a get");
            assert_eq!(value.as_deref(), Some(&b"value"[..]), "crash after {n}, {power_cut}");
            sim.kill();
        }
    }
}

/// Sessions too short to fill a memtable leave no more log than a few of them
/// write: opening takes its time by what it has to read.
#[test]
fn short_sessions_do_not_pile_up_log() {
    let sim = Sim::new(1);
    let open = || Db::open("/db", tiny(&sim).shards(2).owners(2)).expect("an opening");
    let mut model = Model::new();
    for i in 0..100u8 {
        let db = open();
        db.put(&[i], &[i]).wait().expect("a put");
        model.insert(vec![i], vec![i]);
        if i % 3 == 0 {
            sim.power_cut();
        } else {
            db.close().expect("a close");
        }
        assert!(count(&sim, "wal") < 50, "{} segments after {i} sessions", count(&sim, "wal"));
    }
    assert_same(&open(), &model);
    sim.kill();
}

/// Openings on a nearly full disk take no more of it each time: the log of the one
/// before goes first.
#[test]
fn openings_on_a_nearly_full_disk_do_not_fill_it() {
    let sim = Sim::new(1);
    let options = || tiny(&sim).shards(2).owners(2).wal_segment_bytes(64 << 10);
    let open = || Db::open("/db", options());
    let db = open().expect("an opening");
    db.put(b"key", b"value").wait().expect("a put");
    db.close().expect("a close");
    // Removed files take their space while somebody has them open.
    drop(db);
    let mut most = 0;
    for i in 0..20 {
        if i == 10 {
            // There is room for one more segment, and an opening makes two.
            sim.set_faults(Faults::default().disk_bytes_max(most + (64 << 10)));
        }
        let db = open().unwrap_or_else(|error| panic!("opening {i}: {error}"));
        assert!(db.get(b"key").wait().expect("a get").is_some());
        most = most.max(used_bytes(&sim));
        db.close().expect("a close");
        most = most.max(used_bytes(&sim));
    }
}

/// Where there is no room for the table that a replay makes, what a crash left of
/// tables goes first.
#[test]
fn an_opening_without_room_removes_what_a_crash_left_of_tables() {
    // Room for what an opening makes beside tables.
    const ROOM: u64 = 160 << 10;
    const VALUE_BYTES: usize = 4000;
    let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
    let mut met = 0;
    for n in (0..).step_by(3) {
        let sim = Sim::new(n);
        let options =
            || tiny(&sim).shards(1).owners(1).memtable_bytes(1 << 20).wal_segment_bytes(64 << 10);
        let db = Db::open("/db", options()).expect("an opening");
        let (mut model, mut rng) = (Model::new(), Rng(n));
        for i in 0..100u8 {
            let value = rng.bytes(VALUE_BYTES);
            db.put(&[i], &value).durability(Durability::Durable).wait().expect("a put");
            model.insert(vec![i], value);
        }
        sim.crash_after(n, false);
        let is_flushed = sim.until_crash(|| db.flush().wait()).is_some();
        sim.kill();
        drop(db);
        let (image, before) = (sim.snapshot(), sim.paths());
        let bytes = |path: &PathBuf| sim.file_bytes(path).map_or(0, |bytes| bytes.len() as u64);
        let sizes: Vec<u64> = before.iter().map(bytes).collect();
        // The log is longer than it may be, so that an opening flushes.
        let open = || Db::open("/db", options().wal_bytes_max(256 << 10));
        drop(open().expect("an opening"));
        sim.kill();
        let orphans = before
            .iter()
            .zip(&sizes)
            .filter(|(path, _)| is_table(path) && !sim.paths().contains(path));
        let orphan_bytes = orphans.map(|(_, bytes)| bytes).sum::<u64>();
        if orphan_bytes > ROOM {
            met += 1;
            sim.restore(&image);
            let new_bytes = (model.len() * (VALUE_BYTES + 100)) as u64;
            let used = sizes.iter().sum::<u64>() + new_bytes.saturating_sub(orphan_bytes);
            sim.set_faults(Faults::default().disk_bytes_max(used + ROOM));
            let db = open().unwrap_or_else(|error| panic!("crash after {n}: {error}"));
            assert_same(&db, &model);
            sim.kill();
        }
        if is_flushed {
            break;
        }
    }
    assert!(met > 0, "no crash left a table");
}

/// Each segment that is freed leaves an edit in the root manifest.
#[test]
fn the_root_manifest_does_not_grow_for_ever() {
    let sim = Sim::new(1);
    let open = || {
        let options = tiny(&sim).shards(2).owners(2).wal_segment_bytes(8 << 10);
        Db::open("/db", options).expect("an opening")
    };
    let db = open();
    let mut model = Model::new();
    for i in 0..1500u32 {
        let (key, value) = (vec![i as u8 % 7], i.to_le_bytes().repeat(700));
        db.put(&key, &value).wait().expect("a put");
        model.insert(key, value);
    }
    let is_manifest = |name: &str| name.starts_with("/db/MANIFEST-");
    let paths = sim.paths().into_iter().filter(|path| is_manifest(&path.to_string_lossy()));
    let bytes: usize = paths.map(|path| sim.file_bytes(&path).expect("a file").len()).sum();
    assert!(bytes < 2 << 20, "root manifests of {bytes} bytes");
    sim.power_cut();
    drop(db);
    assert_same(&open(), &model);
    sim.kill();
}

/// Owners come and go with the machines a directory is opened on.
#[test]
fn many_owners_and_one() {
    let sim = Sim::new(3);
    let mut model = Model::new();
    for (round, owners) in [16, 1, 16, 3, 1, 40].into_iter().enumerate() {
        let db = Db::open("/db", tiny(&sim).cache_bytes(1 << 20).shards(16).owners(owners))
            .expect("an opening");
        assert_eq!(db.stats().owners, owners.min(16));
        assert_same(&db, &model);
        for i in 0..64u8 {
            let (key, value) = (vec![i, round as u8 % 4], vec![round as u8; 300]);
            let mode = [Durability::Durable, Durability::ProcessSafe][usize::from(i) % 2];
            db.put(&key, &value).durability(mode).wait().expect("a put");
            model.insert(key, value);
        }
        match round % 2 {
            0 => sim.kill(),
            _ => db.close().expect("a close"),
        }
    }
    sim.kill();
}

#[test]
fn many_owners_and_one_on_the_real_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut model = Model::new();
    for (round, owners) in [16u8, 1, 16].into_iter().enumerate() {
        let options = Options::default().shards(16).owners(owners.into()).memory(16 << 20);
        let db = Db::open(dir.path(), options.pin(round == 2)).expect("an opening");
        assert_same(&db, &model);
        for i in 0..64u8 {
            db.put(&[i, owners], &[i; 100]).wait().expect("a put");
            model.insert(vec![i, owners], vec![i; 100]);
        }
        db.close().expect("a close");
    }
}
