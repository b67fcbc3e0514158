//! Values in files of their own: whatever happens to one that something refers
//! to is named with its file and offset.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ourodb::sim::Sim;
use ourodb::{Db, DumpDetail, Dumped, Durability, Fault};

use super::common::{Model, assert_same};
use super::damage::{Starts, found_or_harmless, mix};
use super::{DIR, History, assert_clean, is_kind, key, options, verify};

const UNIT: usize = 4096;
const KIB: usize = 1 << 10;

/// Bytes of a chunk, which has a checksum of its own.
const CHUNK: usize = 64 * KIB;

fn long(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (mix(at / 8 + seed * 131_071) >> (at % 8)) as u8).collect()
}

/// Long and short values, in tables, in the log, and in a mapping; some were
/// replaced, so that their space was given back.
fn sample() -> (Sim, History) {
    let sim = Sim::new(21);
    let mut model = Model::new();
    let db = Db::open(DIR, options(&sim)).expect("open");
    let mut put = |db: &Db, i: usize, len: usize, how: Durability| {
        let value = long(len, i + len);
        db.put(&key(i), &value).durability(how).wait().expect("put");
        model.insert(key(i), value);
        model.clone()
    };
    let durable = Durability::Durable;
    for (i, len) in [70, 10, 1024, 130, 200, 66].into_iter().enumerate() {
        put(&db, i, len * KIB, durable);
    }
    db.flush().wait().expect("flush");
    // Of these, the first flush drops some, and the compaction others.
    for (i, len) in [(0, 90), (0, 80), (3, 1), (6, 1024), (6, 5)] {
        put(&db, i, len * KIB, durable);
    }
    db.flush().wait().expect("flush");
    db.compact(..).wait().expect("compact");
    put(&db, 7, 75 * KIB, durable);
    db.close().expect("close");
    let db = Db::open(DIR, options(&sim)).expect("open");
    put(&db, 8, 68 * KIB, durable);
    put(&db, 1, 72 * KIB, Durability::ProcessSafe);
    sim.run_for(2_000_000_000);
    let before = put(&db, 9, 100, durable);
    sim.run_for(2_000_000_000);
    put(&db, 8, 140 * KIB, Durability::ProcessSafe);
    let newest = put(&db, 10, 67 * KIB, Durability::ProcessSafe);
    sim.kill();
    drop(db);
    (sim, History { durable: before, newest })
}

fn value_files(sim: &Sim) -> Vec<PathBuf> {
    sim.paths().into_iter().filter(|path| is_kind(path, "val")).collect()
}

/// The fault is in the file, in the chunk or unit that holds the byte.
fn names(fault: &Fault, path: &Path, at: usize) -> bool {
    let len = if fault.offset() == 0 { UNIT } else { CHUNK };
    let extent = fault.offset()..fault.offset() + len as u64;
    fault.file() == path && extent.contains(&(at as u64))
}

#[test]
fn sound_values_are_counted() {
    let (sim, history) = sample();
    let counts = assert_clean(&sim, "sample");
    assert_eq!(counts.value_files, value_files(&sim).len() as u64);
    assert!(!verify(&sim).orphans.iter().any(|path| is_kind(path, "val")));
    let of_newest = history.newest.values().filter(|value| value.len() > CHUNK);
    let (values, bytes) = of_newest.fold((0, 0), |(n, sum), value| (n + 1, sum + value.len()));
    // One that was replaced in the log is still referred to.
    assert_eq!((counts.values, counts.value_bytes), (values + 1, (bytes + 68 * KIB) as u64));
    assert!(counts.to_string().contains(&format!("\nvalue_bytes: {}", counts.value_bytes)));
    assert_same(&Db::open(DIR, options(&sim)).expect("open"), &history.newest);
}

#[test]
fn a_flipped_bit_in_each_unit_of_a_value_file() {
    let (mut live, mut unused) = (0, 0);
    let (sim, history) = sample();
    for path in value_files(&sim) {
        let bytes = sim.file_bytes(&path).expect("a file");
        for unit in 0..bytes.len() / UNIT {
            let at = unit * UNIT + mix(unit) % UNIT;
            sim.overwrite(&path, at as u64, &[bytes[at] ^ 1 << (mix(at) % 8)]);
            let faults = verify(&sim).faults;
            match faults.is_empty() {
                true => unused += 1,
                false => live += 1,
            }
            let is_named = faults.iter().any(|fault| names(fault, &path, at));
            assert!(is_named || faults.is_empty(), "{} at {at}: {faults:?}", path.display());
            sim.overwrite(&path, at as u64, &[bytes[at]]);
        }
    }
    // All but what was given back.
    let counts = assert_clean(&sim, "as it was");
    let headers = counts.value_files;
    let units = live - headers;
    let bytes = units * UNIT as u64;
    assert!((counts.value_bytes..counts.value_bytes + 8 * UNIT as u64).contains(&bytes), "{units}");
    assert!(unused > 20, "{unused} units that nothing refers to");
    assert_same(&Db::open(DIR, options(&sim)).expect("open"), &history.newest);
}

/// Damage to what refers to values.
#[test]
fn a_flipped_bit_in_each_unit_of_what_refers_to_them() {
    let (sim, history) = sample();
    let (image, starts) = (sim.snapshot(), Starts::of(&sim));
    let (mut found, mut harmless) = (0, 0);
    for path in sim.paths().into_iter().filter(|path| !is_kind(path, "val")) {
        let bytes = sim.file_bytes(&path).expect("a file");
        for unit in (0..bytes.len() / UNIT).filter(|unit| bytes[unit * UNIT] != 0) {
            let at = unit * UNIT + mix(unit) % 36;
            sim.overwrite(&path, at as u64, &[bytes[at] ^ 1 << (mix(at) % 8)]);
            match found_or_harmless(&sim, (&history, &starts), &path, at, "a flip in") {
                true => found += 1,
                false => harmless += 1,
            }
            sim.restore(&image);
        }
    }
    assert!(found > 30 && harmless > 0, "{found} found, {harmless} harmless");
}

#[test]
fn files_that_are_missing_cut_or_swapped() {
    let (sim, _) = sample();
    let image = sim.snapshot();
    let files = value_files(&sim);
    assert!(files.len() >= 4, "{files:?}");
    let is_named = |path: &Path, offset: Option<u64>| {
        let faults = verify(&sim).faults;
        let is_it =
            |fault: &Fault| fault.file() == path && offset.is_none_or(|at| at == fault.offset());
        assert!(faults.iter().any(is_it), "{} {offset:?}: {faults:?}", path.display());
    };
    for (i, path) in files.iter().enumerate() {
        let bytes = sim.file_bytes(path).expect("a file");
        for cut in [0, 1, UNIT - 1, UNIT, UNIT + 1, bytes.len() / 2, bytes.len() - 1] {
            sim.truncate(path, cut as u64);
            is_named(path, Some(cut as u64));
            sim.restore(&image);
        }
        sim.truncate(path, bytes.len() as u64 + 100);
        assert_clean(&sim, "what was written behind the last value");
        sim.restore(&image);
        sim.remove_file(path);
        is_named(path, Some(0));
        sim.restore(&image);
        let other = &files[(i + 1) % files.len()];
        let exchanged = sim.file_bytes(other).expect("a file");
        // The whole file; and its values alone, which the header does not tell.
        for from in [0, UNIT] {
            for (path, bytes) in [(path, &exchanged), (other, &bytes)] {
                let end = sim.file_bytes(path).expect("a file").len();
                sim.overwrite(path, from as u64, &bytes[from..bytes.len().min(end)]);
            }
            match from {
                0 => [path, other].into_iter().for_each(|path| is_named(path, None)),
                // One may have had a hole there.
                _ => assert!(!verify(&sim).faults.is_empty(), "{}", path.display()),
            }
            sim.restore(&image);
        }
    }
}

#[test]
fn value_files_that_nothing_refers_to_are_orphans() {
    let sim = Sim::new(22);
    let db = Db::open(DIR, options(&sim)).expect("open");
    db.put(&key(0), &long(80 * KIB, 0)).wait().expect("put");
    db.close().expect("close");
    drop(db);
    let [needed] = &value_files(&sim)[..] else { panic!("one file") };
    let needed = needed.clone();
    // A process that ends while it writes a value.
    let mut orphans = 0;
    for n in 1.. {
        let image = sim.snapshot();
        let db = Db::open(DIR, options(&sim)).expect("open");
        sim.crash_after(n, false);
        let value = long(1024 * KIB, 1);
        let done = sim.until_crash(|| db.put(&key(1), &value).wait().expect("put")).is_some();
        sim.crash_after(u64::MAX, false);
        sim.kill();
        drop(db);
        let verdict = verify(&sim);
        assert!(verdict.faults.is_empty(), "crash after {n}: {:?}", verdict.faults);
        let unused: Vec<_> = verdict.orphans.iter().filter(|path| is_kind(path, "val")).collect();
        let others = value_files(&sim).into_iter().filter(|path| *path != needed);
        match verdict.counts.values {
            1 => assert!(others.eq(unused.iter().map(|path| (*path).clone())), "{n}: {unused:?}"),
            values => assert_eq!((values, unused.len()), (2, 0), "crash after {n}"),
        }
        orphans += unused.len();
        sim.restore(&image);
        if done {
            break;
        }
    }
    assert!(orphans > 3, "{orphans} orphans");
}

/// Of a value file there is a header to tell; of a reference all of it.
#[test]
fn dumps_say_where_values_are() {
    let (sim, _) = sample();
    let (mut texts, mut places) = (Vec::new(), Vec::new());
    let is_one = |path: &PathBuf| !path.ends_with("LOCK") && !is_kind(path, "tmp");
    for path in sim.paths().into_iter().filter(is_one) {
        let dumped = ourodb::dump(&path, &options(&sim), DumpDetail::Entries, |part| {
            match part {
                Dumped::Text { text, .. } if is_kind(&path, "val") => texts.push(text.to_owned()),
                Dumped::Entry { kind: "put in a value file", value, .. } => {
                    let place = String::from_utf8(value.expect("a place").to_vec());
                    places.push((path.clone(), place.expect("words")));
                }
                Dumped::Damage(fault) => panic!("{fault}"),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        dumped.expect("a dump");
    }
    let files = value_files(&sim);
    for path in &files {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let prefix = format!("{name} offset ");
        assert!(places.iter().any(|(_, place)| place.starts_with(&prefix)), "{name}: {places:?}");
        let id = name.trim_end_matches(".val");
        assert!(texts.iter().any(|text| text.starts_with(&format!("file {id} of opening "))));
    }
    for suffix in ["sst", "wal"] {
        let len = if suffix == "sst" { 80 * KIB } else { 68 * KIB };
        let says = format!(", {len} bytes");
        let is_it =
            |(path, place): &(PathBuf, String)| is_kind(path, suffix) && place.ends_with(&says);
        assert!(places.iter().any(is_it), "{suffix}: {places:?}");
    }
    assert_eq!(texts.iter().filter(|text| text.starts_with("value file, ")).count(), files.len());
}

/// `ouro-sim` seed 12396: what a table referred to is not known when it is dropped and cannot
/// be read. That space is lost, which is said, and nothing else is.
#[test]
fn space_that_a_dropped_damaged_table_referred_to() {
    let sim = Sim::new(12_396);
    let options = || options(&sim).shards(1).owners(1);
    let db = Db::open(DIR, options()).expect("open");
    for i in 0..4 {
        db.put(&key(i), &long(70 * KIB, i)).wait().expect("put");
    }
    db.flush().wait().expect("flush");
    db.close().expect("close");
    let table = sim.paths().into_iter().find(|path| is_kind(path, "sst")).expect("a table");
    let block = sim.file_bytes(&table).expect("a file")[4096 + 10];
    sim.overwrite(&table, 4096 + 10, &[!block]);
    let db = Db::open(DIR, options()).expect("open");
    db.delete_range(..).wait().expect("a delete of all");
    db.put(&key(9), &long(70 * KIB, 9)).wait().expect("put");
    db.flush().wait().expect("flush");
    db.compact(..).wait().expect("compact");
    sim.run_for(10_000_000_000);
    db.close().expect("close");
    let faults = verify(&sim).faults;
    assert_eq!(faults.len(), 1, "{faults:?}");
    let reason = faults[0].reason();
    assert!(reason.contains("no value is lost, but space is"), "{reason}");
    let model = Model::from([(key(9), long(70 * KIB, 9))]);
    assert_same(&Db::open(DIR, options()).expect("open"), &model);
}
