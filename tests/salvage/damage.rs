//! Damage to every unit of every file.

use ourodb::sim::{DiskImage, Sim};
use ourodb::{Db, Durability, ErrorKind, Options};
use std::path::Path;

use super::{
    DIR, History, UNIT, files, is_kind, is_manifest, options, salvage, sample, try_salvage, write,
};

fn mix(seed: usize) -> usize {
    let x = (seed as u64 ^ 0x9e37_79b9).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (x >> 32) as usize
}

/// Calls `each` with every file and its content; each finds the disk sound.
fn for_each_file(sim: &Sim, image: &DiskImage, mut each: impl FnMut(&Path, &[u8])) {
    for path in files(sim) {
        let bytes = sim.file_bytes(&path).expect("a file");
        each(&path, &bytes);
        sim.restore(image);
    }
}

/// Whether losses of this file are told with their keys.
fn has_keys(path: &Path) -> bool {
    is_kind(path, "sst") || is_kind(path, "val")
}

/// Salvages, and judges what comes of it. Whether something was lost.
fn check(sim: &Sim, image: &DiskImage, history: &History, path: &Path, what: &str) -> bool {
    let what = format!("{what} {}", path.display());
    let copy = salvage(sim);
    history.judge(&copy, &what);
    for loss in &copy.losses {
        assert!(!has_keys(path) || loss.keys().is_some(), "{what}: {loss}");
        let (file, is_log) = (loss.fault().file(), is_kind(path, "map") || is_kind(path, "wal"));
        // What is missing of a log may be looked for in another segment.
        let is_named = file == path || (is_log && is_kind(file, "wal"));
        let is_group = file.ends_with("MANIFEST-*") || file.ends_with("wal") || is_manifest(path);
        assert!(is_named || is_group, "{what}: {loss}");
    }
    sim.restore(image);
    !copy.losses.is_empty()
}

#[test]
fn a_flipped_bit_in_each_unit() {
    let (sim, history) = sample();
    let image = sim.snapshot();
    let (mut lost, mut harmless) = (0, 0);
    for_each_file(&sim, &image, |path, bytes| {
        for (unit, content) in bytes.chunks_exact(UNIT).enumerate() {
            if content.iter().all(|&byte| byte == 0) {
                continue;
            }
            for place in [mix(unit) % 36, mix(unit + 99) % UNIT] {
                let at = unit * UNIT + place;
                sim.overwrite(path, at as u64, &[bytes[at] ^ 1 << (mix(at) % 8)]);
                let what = format!("a flip at {at} of");
                match check(&sim, &image, &history, path, &what) {
                    true => lost += 1,
                    false => harmless += 1,
                }
            }
        }
    });
    assert!(lost > 100 && harmless > 50, "{lost} lost, {harmless} harmless");
}

#[test]
fn files_that_end_early() {
    let (sim, history) = sample();
    let image = sim.snapshot();
    for_each_file(&sim, &image, |path, bytes| {
        let units = bytes.len() / UNIT;
        let step = (units / 8).max(1);
        let cuts = (0..units).step_by(step).map(|unit| unit * UNIT);
        for cut in cuts.chain([1, UNIT + 100, bytes.len().saturating_sub(9)]) {
            if cut >= bytes.len() {
                continue;
            }
            sim.truncate(path, cut as u64);
            let what = format!("{cut} bytes left of");
            let is_lost = check(&sim, &image, &history, path, &what);
            let is_log = is_kind(path, "wal");
            assert!(!is_log || is_lost, "{what} {}", path.display());
        }
        sim.truncate(path, bytes.len() as u64 + UNIT as u64);
        check(&sim, &image, &history, path, "longer");
    });
}

#[test]
fn missing_files() {
    let (sim, history) = sample();
    let image = sim.snapshot();
    for_each_file(&sim, &image, |path, _| {
        sim.remove_file(path);
        let is_lost = check(&sim, &image, &history, path, "without");
        let is_needed = is_kind(path, "sst") || is_manifest(path);
        assert!(is_lost || !is_needed, "without {}", path.display());
    });
}

#[test]
fn zeroes_and_stale_units() {
    let (sim, history) = sample();
    let image = sim.snapshot();
    for_each_file(&sim, &image, |path, bytes| {
        for unit in (0..bytes.len() / UNIT).step_by(3) {
            let at = unit * UNIT;
            if bytes[at..at + UNIT].iter().all(|&byte| byte == 0) {
                continue;
            }
            sim.overwrite(path, at as u64, &[0; UNIT]);
            check(&sim, &image, &history, path, &format!("zeroes at {at} of"));
            // What is elsewhere in the file.
            let other = mix(at) % (bytes.len() / UNIT) * UNIT;
            sim.overwrite(path, at as u64, &bytes[other..other + UNIT]);
            check(&sim, &image, &history, path, &format!("{other} at {at} of"));
        }
    });
}

/// Files of one kind in each other's place.
#[test]
fn swapped_files() {
    let (sim, history) = sample();
    let image = sim.snapshot();
    for suffix in ["sst", "wal", "map", "val", "MANIFEST"] {
        let is_alike = |path: &&std::path::PathBuf| match suffix {
            "MANIFEST" => is_manifest(path),
            _ => is_kind(path, suffix),
        };
        let all = files(&sim);
        let alike: Vec<_> = all.iter().filter(is_alike).collect();
        assert!(alike.len() > 1, "there are no two of {suffix}");
        for (a, b) in alike.iter().zip(&alike[1..]) {
            let contents = [a, b].map(|path| sim.file_bytes(path).expect("a file"));
            for (path, bytes) in [(a, &contents[1]), (b, &contents[0])] {
                sim.truncate(path, bytes.len() as u64);
                sim.overwrite(path, 0, bytes);
            }
            let copy = salvage(&sim);
            history.judge(&copy, &format!("{} and {} swapped", a.display(), b.display()));
            sim.restore(&image);
        }
    }
}

/// Several kinds of files at once: identity and all manifests.
#[test]
fn nothing_but_data() {
    let (sim, history) = sample();
    for path in files(&sim) {
        if is_manifest(&path) || path.ends_with("IDENTITY") || path.ends_with("LOCK") {
            sim.remove_file(&path);
        }
    }
    let copy = salvage(&sim);
    history.judge(&copy, "without identity and manifests");
    // Nothing was compacted, and so nothing that was deleted is forgotten.
    let newest = history.newest.iter().filter(|row| copy.rows.get(row.0) == Some(row.1)).count();
    assert_eq!((newest, copy.rows.len()), (history.newest.len(), history.newest.len()));
    assert!(copy.losses.iter().any(|loss| loss.to_string().contains("root manifest is missing")));
    assert!(copy.spared.iter().any(|path| path.ends_with("IDENTITY")));
}

/// Random bytes anywhere: it ends in good order, with nothing that was not written.
#[test]
fn hostile_files() {
    let (sim, history) = sample();
    let image = sim.snapshot();
    for round in 0..60 {
        let all = files(&sim);
        for hit in 0..6 {
            let path = &all[mix(round * 31 + hit) % all.len()];
            let len = sim.file_bytes(path).expect("a file").len();
            if len == 0 {
                continue;
            }
            let at = mix(round * 57 + hit) % len;
            let junk: Vec<u8> = (0..mix(hit + round) % 9000).map(|i| mix(i + at) as u8).collect();
            let junk = &junk[..junk.len().min(len - at)];
            sim.overwrite(path, at as u64, junk);
        }
        match try_salvage(&sim) {
            Ok(copy) => history.judge(&copy, &format!("round {round}")),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption, "{error}"),
        }
        sim.restore(&image);
    }
}

/// The root manifest is cut at each sector, and each of its later units is gone.
fn damage_the_root(make: fn() -> (Sim, History)) {
    let (sim, history) = make();
    let image = sim.snapshot();
    let is_root =
        |path: &&std::path::PathBuf| is_manifest(path) && !path.to_string_lossy().contains("shard");
    let path = files(&sim).iter().find(is_root).expect("a root manifest").clone();
    let len = sim.file_bytes(&path).expect("a file").len();
    for cut in (0..len).step_by(512) {
        sim.rewind(&image);
        sim.truncate(&path, cut as u64);
        history.judge(&salvage(&sim), &format!("cut to {cut}"));
        sim.rewind(&image);
        sim.overwrite(&path, cut as u64, &vec![0; len - cut]);
        history.judge(&salvage(&sim), &format!("zeroes from {cut}"));
    }
}

/// The log's first segments are freed.
fn with_a_freed_start() -> (Sim, History) {
    let sim = Sim::new(31);
    let mut history = History::default();
    let options = || options(&sim).wal_segment_bytes(16 << 10);
    let db = Db::open(DIR, options()).expect("open");
    for round in 0..6 {
        write(&db, &mut history, 7..40, round, Durability::Durable);
        db.flush().wait().expect("flush");
        sim.run_for(100_000_000);
    }
    write(&db, &mut history, 7..40, 9, Durability::Durable);
    db.close().expect("close");
    history.durable = history.newest.clone();
    (sim, history)
}

#[test]
fn a_root_manifest_that_forgot_where_the_log_starts() {
    damage_the_root(with_a_freed_start);
}

/// Acknowledged writes are in mappings alone, after a kill.
fn with_mappings() -> (Sim, History) {
    mapped(&|options| options)
}

/// The same, in a directory of the user's choice.
fn with_mappings_elsewhere() -> (Sim, History) {
    mapped(&|options| options.map_dir("/"))
}

fn mapped(change: &dyn Fn(Options) -> Options) -> (Sim, History) {
    let sim = Sim::new(32);
    let mut history = History::default();
    let db = Db::open(DIR, change(options(&sim))).expect("open");
    for round in 0..3 {
        write(&db, &mut history, 0..20, round, Durability::ProcessSafe);
        // The first writes ask for the mapping.
        sim.run_for(50_000_000);
    }
    write(&db, &mut history, 0..20, 9, Durability::ProcessSafe);
    sim.kill();
    drop(db);
    history.durable = history.newest.clone();
    (sim, history)
}

#[test]
fn a_root_manifest_that_forgot_the_mappings() {
    damage_the_root(with_mappings);
    damage_the_root(with_mappings_elsewhere);
}
