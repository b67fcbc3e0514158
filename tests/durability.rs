//! What each durability promises, and what it costs.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod common;
#[path = "durability/copies.rs"]
mod copies;

use std::path::PathBuf;
use std::time::Duration;

use common::tiny;
use ourodb::sim::{Faults, Sim};
use ourodb::{Batch, Db, Durability, ErrorKind, IoBackend, Options};

const MS: u64 = 1_000_000;

fn relaxed(ms: u64) -> Durability {
    Durability::Relaxed { within: Duration::from_millis(ms) }
}

fn open(sim: &Sim, durability: Durability) -> Db {
    Db::open("/db", tiny(sim).shards(2).owners(1).durability(durability)).unwrap()
}

/// The path of the only mapping.
fn map(sim: &Sim) -> PathBuf {
    let paths = sim.paths();
    let mut maps = paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == "map"));
    let map = maps.next().expect("a mapping");
    assert_eq!(maps.next(), None);
    map
}

#[test]
fn what_is_not_durable_at_once_is_so_in_time() {
    for (durability, within_ms) in [(relaxed(20), 20), (Durability::ProcessSafe, 1000)] {
        for seed in 0..40 {
            let sim = Sim::new(seed);
            let db = open(&sim, durability);
            // Its clock begins with a write after a rest, and while others go on.
            sim.run_for(seed * 37 * MS);
            db.put(b"key", b"value").wait().unwrap();
            db.put(b"other", b"value").durability(relaxed(60_000)).wait().unwrap();
            sim.run_for(within_ms * MS);
            sim.power_cut();
            let db = open(&sim, durability);
            assert_eq!(db.get(b"key").wait().unwrap().as_deref(), Some(&b"value"[..]));
            sim.kill();
        }
    }
}

#[test]
fn a_durable_write_hardens_what_came_before_it() {
    for seed in 0..60u8 {
        let sim = Sim::new(seed.into());
        let db = open(&sim, Durability::ProcessSafe);
        sim.set_faults(Faults::default().delay_ns(0..=MS).reorder(true));
        for i in 0..=seed {
            // Some fill buffers, which are written without a sync.
            db.put(&[i], &vec![i; 200 + usize::from(i) * 100]).wait().unwrap();
        }
        db.put(b"last", b"").durability(Durability::Durable).wait().unwrap();
        sim.power_cut();
        sim.set_faults(Faults::default());
        let db = open(&sim, Durability::ProcessSafe);
        for i in 0..=seed {
            assert!(db.get(&[i]).wait().unwrap().is_some(), "seed {seed}: write {i} is lost");
        }
        sim.kill();
    }
}

/// A kill loses nothing; nor does one after the other, without writes between.
#[test]
fn process_safe_writes_survive_kills() {
    for seed in 0..40u8 {
        let sim = Sim::new(seed.into());
        let db = open(&sim, Durability::ProcessSafe);
        sim.run_for(u64::from(seed) * MS / 4);
        for i in 0..=seed {
            db.put(&[i], &[i; 300]).wait().unwrap();
        }
        for _ in 0..3 {
            sim.kill();
            let db = open(&sim, Durability::Durable);
            for i in 0..=seed {
                assert_eq!(db.get(&[i]).wait().unwrap().as_deref(), Some(&[i; 300][..]));
            }
            // What one opening found is durable for the next.
            sim.power_cut();
        }
        sim.kill();
    }
}

/// A root manifest that is made anew names the mappings, too.
#[test]
fn a_root_manifest_made_anew_keeps_the_mapping() {
    let sim = Sim::new(5);
    let db = open(&sim, Durability::ProcessSafe);
    sim.run_for(5 * MS);
    let root = || {
        let is_root = |path: &PathBuf| {
            path.parent().is_some_and(|dir| dir.ends_with("db"))
                && path.file_name().is_some_and(|name| name.to_string_lossy().contains("MANIFEST"))
        };
        sim.paths().into_iter().find(is_root).expect("a root manifest")
    };
    let (first, mapping) = (root(), map(&sim));
    // Each segment that is freed is an edit.
    let mut rounds = 0_u32;
    while root() == first {
        for i in 0..20u8 {
            db.put(&[i], &[i; 4000]).wait().unwrap();
        }
        db.flush().wait().unwrap();
        sim.run_for(5 * MS);
        rounds += 1;
        assert!(rounds < 2000, "the root manifest only grows");
    }
    db.put(b"only in the mapping", b"value").wait().unwrap();
    assert_eq!(map(&sim), mapping);
    sim.kill();
    drop(db);
    let db = open(&sim, Durability::Durable);
    assert!(db.get(b"only in the mapping").wait().unwrap().is_some());
    sim.kill();
}

#[test]
fn a_process_safe_put_costs_no_request() {
    let on_sim = Sim::new(1);
    for io in [IoBackend::Ring, IoBackend::Blocking, IoBackend::Sim(on_sim.clone())] {
        let dir = tempfile::tempdir().unwrap();
        let place = match &io {
            IoBackend::Sim(_) => PathBuf::from("/db"),
            _ => dir.path().to_owned(),
        };
        let options = Options::default().io(io).shards(2).owners(1).memory(64 << 20);
        let db = Db::open(place, options.durability(relaxed(3_600_000))).unwrap();
        // Until the mapping is there, puts are acknowledged when written.
        while db.stats().wal_map_bytes == 0 || db.stats().wal_segments < 2 {
            on_sim.run_for(MS);
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let before = db.stats();
        for i in 0..200u8 {
            db.put(&[i], &[7; 400]).wait().unwrap();
            assert!(db.get(&[i]).wait().unwrap().is_some());
        }
        let after = db.stats();
        assert_eq!(after.puts - before.puts, 200);
        assert_eq!(after.device_writes, before.device_writes);
        assert_eq!(after.device_syncs, before.device_syncs);
        assert_eq!(after.device_reads, before.device_reads);
        assert_eq!(after.metadata_ops, before.metadata_ops);
        // Then as many writes as buffers were filled, and no sync.
        for i in 0..4000u64 {
            db.put(&i.to_le_bytes(), &[7; 1000]).wait().unwrap();
        }
        on_sim.run_for(10 * MS);
        let after = db.stats();
        assert_eq!(after.wal_syncs, before.wal_syncs);
        let bytes = after.wal_record_bytes - before.wal_record_bytes;
        assert!((after.wal_groups - before.wal_groups) * (200 << 10) < bytes, "{after}");
        drop(db);
    }
    on_sim.kill();
}

#[test]
fn modes_mix_in_one_batch_stream_and_reopening() {
    let sim = Sim::new(5);
    let mut expected = common::Model::new();
    for round in 0..12u8 {
        let mode = [Durability::Durable, Durability::ProcessSafe, relaxed(5)];
        let db = open(&sim, mode[usize::from(round) % 3]);
        for i in 0..60u8 {
            let (key, value) = (vec![i % 20], vec![i ^ round; 100]);
            let mut batch = Batch::new();
            for j in 0..i % 30 {
                batch.put(&[200, j], &value);
                expected.insert(vec![200, j], value.clone());
            }
            batch.put(&key, &value);
            db.write(batch).durability(mode[usize::from(i) % 3]).wait().unwrap();
            expected.insert(key, value);
        }
        match round % 3 {
            0 => db.close().unwrap(),
            1 => sim.kill(),
            _ => {
                db.put(b"end", b"x").durability(Durability::Durable).wait().unwrap();
                expected.insert(b"end".to_vec(), b"x".to_vec());
                sim.power_cut();
            }
        }
    }
    let db = open(&sim, Durability::Durable);
    common::assert_same(&db, &expected);
    sim.kill();
}

/// What a mapping holds is nowhere else: damage to it is never silent.
#[test]
fn a_damaged_mapping_refuses_the_opening() {
    let sim = Sim::new(9);
    let db = open(&sim, Durability::ProcessSafe);
    sim.run_for(5 * MS);
    for i in 0..20u8 {
        db.put(&[i], &[i; 300]).wait().unwrap();
    }
    sim.kill();
    drop(db);
    let image = sim.snapshot();
    let path = map(&sim);
    let refused = |damage: &dyn Fn(), what: &str| {
        // A restored machine has another boot: put the file back instead.
        let sound = sim.file_bytes(&path).unwrap();
        damage();
        let options = tiny(&sim).shards(2).owners(1);
        let error = Db::open("/db", options).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
        sound
    };
    let bytes = sim.file_bytes(&path).unwrap();
    // The slot that was used last holds records that no segment has yet.
    let slot_bytes = u32::from_le_bytes(bytes[70..74].try_into().unwrap()) as usize;
    let slots = (2 * 4096..bytes.len()).step_by(slot_bytes);
    let used = slots.filter(|&at| bytes[at..at + 8] != [0; 8]);
    let position = |at: usize| u64::from_le_bytes(bytes[at + 16..at + 24].try_into().unwrap());
    let used = used.max_by_key(|&at| position(at)).unwrap();
    for at in [used + 40, used + 36 + 18 + 300] {
        let sound = refused(&|| sim.overwrite(&path, at as u64, &[!bytes[at]]), "a flipped byte");
        sim.overwrite(&path, at as u64, &sound[at..=at]);
    }
    let sound = refused(&|| sim.overwrite(&path, 9, &[!bytes[9]]), "a damaged header");
    sim.overwrite(&path, 9, &sound[9..10]);
    let sound = refused(&|| sim.truncate(&path, bytes.len() as u64 - 4096), "a cut mapping");
    sim.truncate(&path, bytes.len() as u64);
    let tail = bytes.len() - 4096;
    sim.overwrite(&path, tail as u64, &sound[tail..]);
    // Whole again.
    let db = open(&sim, Durability::Durable);
    assert_eq!(db.scan(..).iter().count(), 20);
    sim.restore(&image);
    sim.remove_file(&path);
    let error = Db::open("/db", tiny(&sim).shards(2).owners(1)).expect_err("a missing mapping");
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("mapping of the log is missing"), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    sim.kill();
}

/// After a close all is in segments: mappings are gone, and one that comes back,
/// or whose removal was interrupted, is ignored.
#[test]
fn a_close_leaves_nothing_in_mappings() {
    for map_dir in [None, Some("/")] {
        let sim = Sim::new(11);
        let options = || {
            let options = tiny(&sim).shards(2).owners(1).durability(Durability::ProcessSafe);
            map_dir.map_or(options.clone(), |dir| options.map_dir(dir))
        };
        let db = Db::open("/db", options()).unwrap();
        sim.run_for(5 * MS);
        for i in 0..20u8 {
            db.put(&[i], &[i; 300]).wait().unwrap();
        }
        let path = map(&sim);
        sim.kill();
        drop(db);
        assert_eq!(path.parent() == Some("/".as_ref()), map_dir.is_some());
        let image = sim.snapshot();
        sim.remove_file(&path);
        let error = Db::open("/db", options()).expect_err("what only the mapping holds");
        assert_eq!(error.kind(), ErrorKind::Corruption);
        sim.restore(&image);
        // The next opening puts what it holds into segments, and so does a close.
        let db = Db::open("/db", options()).unwrap();
        sim.run_for(5 * MS);
        assert_ne!(map(&sim), path, "the mapping of the new opening only");
        db.put(b"later", b"x").wait().unwrap();
        db.close().unwrap();
        drop(db);
        let is_map = |path: &PathBuf| path.extension().is_some_and(|e| e == "map");
        assert!(!sim.paths().iter().any(is_map), "{:?}", sim.paths());
        let db = Db::open("/db", options()).unwrap();
        assert_eq!(db.scan(..).iter().count(), 21);
        drop(db);
        sim.kill();
        // At any point of a close, and of the opening after it.
        for crash in 0..60 {
            let db = Db::open("/db", options()).unwrap();
            sim.run_for(5 * MS);
            db.put(b"round", &[crash]).wait().unwrap();
            sim.crash_after(u64::from(crash), false);
            drop(sim.until_crash(|| db.close()));
            drop(db);
            sim.kill();
            let db = Db::open("/db", tiny(&sim).shards(2).owners(1)).unwrap();
            assert_eq!(db.get(b"round").wait().unwrap().unwrap(), [crash]);
            assert_eq!(db.scan(..).iter().count(), 22);
            sim.kill();
        }
    }
}

/// Power came back with another boot: what the mapping has lost was not
/// promised, and what it kept is there.
#[test]
fn a_mapping_of_another_boot_gives_what_it_kept() {
    let mut kept = [0; 21];
    for seed in 0..60 {
        let sim = Sim::new(seed);
        let db = open(&sim, Durability::ProcessSafe);
        sim.run_for(5 * MS);
        for i in 0..20u8 {
            db.put(&[i], &[i; 1000]).wait().unwrap();
        }
        sim.power_cut();
        let db = open(&sim, Durability::Durable);
        let rows: Vec<u8> = db.scan(..).iter().map(|row| row.unwrap().0[0]).collect();
        let expected: Vec<u8> = (0..rows.len() as u8).collect();
        assert_eq!(rows, expected, "a prefix of what was written");
        kept[rows.len()] += 1;
        sim.kill();
    }
    assert!(kept.iter().filter(|&&n| n > 0).count() > 3, "{kept:?}");
}

/// A mapping on tmpfs: kept by a kill, lost with the power.
#[test]
fn a_mapping_elsewhere_is_taken_in_or_lost_with_its_boot() {
    for power_cut in [false, true] {
        for crash in 0..40 {
            let sim = Sim::new(crash);
            let options = || {
                let options = tiny(&sim).shards(2).owners(2).map_dir("/");
                options.durability(Durability::ProcessSafe)
            };
            let db = Db::open("/db", options()).unwrap();
            sim.run_for(5 * MS);
            db.put(b"durable", b"x").durability(Durability::Durable).wait().unwrap();
            for i in 0..20u8 {
                db.put(&[i], &[i; 300]).wait().unwrap();
            }
            let elsewhere = |path: &PathBuf| path.parent() == Some("/".as_ref());
            assert_eq!(sim.paths().iter().filter(|path| elsewhere(path)).count(), 2);
            if power_cut {
                sim.power_cut();
                // Which the simulated disk is, and tmpfs is not.
                for path in sim.paths().iter().filter(|path| elsewhere(path)) {
                    sim.remove_file(path);
                }
            } else {
                sim.kill();
            }
            drop(db);
            // An opening, too, may be interrupted.
            sim.crash_after(crash, false);
            let opened = sim.until_crash(|| Db::open("/db", options().map_dir("/")).unwrap());
            drop(opened);
            sim.kill();
            let db = Db::open("/db", tiny(&sim).shards(2).owners(1)).unwrap();
            assert!(db.get(b"durable").wait().unwrap().is_some());
            let rows = db.scan(..).iter().count();
            assert!(power_cut || rows == 21, "{rows} rows after {crash}");
            db.flush().wait().unwrap();
            db.close().unwrap();
            drop(db);
            let left = sim.paths();
            assert!(!left.iter().any(elsewhere), "{left:?}");
        }
    }
    // Within one boot it must be there.
    let sim = Sim::new(1);
    let options = || tiny(&sim).shards(1).owners(1).map_dir("/");
    let db = Db::open("/db", options().durability(Durability::ProcessSafe)).unwrap();
    sim.run_for(5 * MS);
    db.put(b"key", b"value").wait().unwrap();
    sim.kill();
    drop(db);
    let map = sim.paths().into_iter().find(|path| path.parent() == Some("/".as_ref())).unwrap();
    sim.remove_file(&map);
    let error = Db::open("/db", options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains(map.to_str().unwrap()), "{error}");
    let relative = Db::open("/db", options().map_dir("shm")).unwrap_err();
    assert_eq!(relative.kind(), ErrorKind::InvalidArgument);
    let missing = Db::open("/other", tiny(&sim).map_dir("/missing")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("directory for mappings"), "{missing}");
    sim.kill();
}

/// The name of a mapping that was removed elsewhere, on a disk, comes back with the loss of power
/// as long as its directory is not synced; an opening that forgets the directory does that first.
/// (Found by `ouro-sim --seed 24`.)
#[test]
fn no_name_of_a_mapping_elsewhere_comes_back_for_good() {
    let mut came_back = 0;
    for seed in 0..40 {
        for forgets in [false, true] {
            let sim = Sim::new(seed);
            let options = || tiny(&sim).shards(1).owners(1);
            let mappings = || {
                let paths = sim.paths().into_iter();
                paths
                    .filter(|path| path.parent() == Some("/".as_ref()) && !path.ends_with("db"))
                    .count()
            };
            let elsewhere = options().map_dir("/").durability(Durability::ProcessSafe);
            let db = Db::open("/db", elsewhere).unwrap();
            sim.run_for(5 * MS);
            db.put(b"key", b"value").wait().unwrap();
            assert_eq!(mappings(), 1);
            db.close().unwrap();
            drop(db);
            assert_eq!(mappings(), 0);
            if forgets {
                Db::open("/db", options()).unwrap().close().unwrap();
            }
            sim.power_cut();
            came_back += mappings();
            for _ in 0..2 {
                let db = Db::open("/db", options()).unwrap();
                assert_eq!(db.get(b"key").wait().unwrap().as_deref(), Some(&b"value"[..]));
                db.close().unwrap();
            }
            sim.power_cut();
            assert_eq!(mappings(), 0, "seed {seed}, {forgets}");
        }
    }
    assert!(came_back > 10, "{came_back} names came back");
}
