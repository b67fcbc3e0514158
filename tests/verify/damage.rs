//! Damage to every unit of every file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ourodb::sim::{DiskImage, Sim};
use ourodb::{Db, DumpDetail, Dumped, ErrorKind, Fault};

use super::common::assert_same;
use super::{DIR, History, is_kind, options, sample, verify};

const UNIT: usize = 4096;

/// Small numbers that look random.
pub(super) fn mix(seed: usize) -> usize {
    let x = (seed as u64 ^ 0x9e37_79b9).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (x >> 32) as usize
}

/// Whether every byte of the file counts, or would be noticed if it were not
/// zero.
fn is_covered(path: &Path, offset: usize) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
    // Headers are, in all files; tables and the identity as a whole.
    let counts = offset < UNIT || is_kind(path, "sst") || name == "IDENTITY";
    // A file that was not finished has no content yet.
    counts && !is_kind(path, "tmp")
}

/// Where in each file something begins that has a checksum of its own, as dumps of the sound
/// files tell.
pub(super) struct Starts(BTreeMap<PathBuf, BTreeSet<u64>>);

impl Starts {
    pub(super) fn of(sim: &Sim) -> Self {
        let mut all = BTreeMap::new();
        for path in sim.paths() {
            let len = sim.file_bytes(&path).expect("a file").len();
            // Header; what follows it; the footer of a table.
            let fixed = [0, UNIT, len.saturating_sub(UNIT)];
            let mut starts: BTreeSet<u64> = fixed.iter().map(|&start| start as u64).collect();
            if !is_kind(&path, "tmp") && !path.ends_with("LOCK") {
                let dumped = ourodb::dump(&path, &options(sim), DumpDetail::Blocks, |part| {
                    if let Dumped::Text { text, .. } = part
                        && let Some((_, behind)) = text.split_once(" at offset ")
                    {
                        let digits = behind.split(|c: char| !c.is_ascii_digit()).next();
                        starts.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
                    }
                    ControlFlow::Continue(())
                });
                dumped.expect("a sound file");
            }
            all.insert(path, starts);
        }
        Self(all)
    }

    /// The fault is in the file, in what holds the byte at `offset`.
    fn names(&self, fault: &Fault, path: &Path, offset: usize) -> bool {
        let (from, at) = (fault.offset(), offset as u64);
        let is_between = |start: &u64| from < *start && *start <= at;
        fault.file() == path && from <= at && !self.0[path].iter().any(is_between)
    }
}

/// After damage of the byte at `offset`: it is named, or nothing is missed.
pub(super) fn found_or_harmless(
    sim: &Sim,
    (history, starts): (&History, &Starts),
    path: &Path,
    offset: usize,
    what: &str,
) -> bool {
    let verdict = verify(sim);
    let place = format!("{what} {} at {offset}", path.display());
    if verdict.faults.iter().any(|fault| starts.names(fault, path, offset)) {
        return true;
    }
    assert!(verdict.faults.is_empty(), "{place}: not named, but {:?}", verdict.faults);
    assert!(!is_covered(path, offset), "{place}: not found");
    println!("{place}: not found");
    history.assert_durable(&Db::open(DIR, options(sim)).expect("a sound database"));
    false
}

/// Calls `each` with every file and its length; each finds the disk sound.
fn for_each_file(sim: &Sim, image: &DiskImage, mut each: impl FnMut(&Path, usize)) {
    for path in sim.paths() {
        let len = sim.file_bytes(&path).expect("a file").len();
        each(&path, len);
        sim.restore(image);
    }
}

#[test]
fn a_flipped_bit_in_each_unit() {
    let (sim, history) = sample();
    let (image, starts) = (sim.snapshot(), Starts::of(&sim));
    let (mut found, mut harmless) = (0, 0);
    for_each_file(&sim, &image, |path, len| {
        let bytes = sim.file_bytes(path).expect("a file");
        for unit in 0..len / UNIT {
            // Where records and headers begin, and anywhere.
            let places = [mix(unit) % 36, mix(unit + 7) % 64, mix(unit + 99) % UNIT];
            for (i, place) in places.into_iter().enumerate() {
                let at = unit * UNIT + place;
                let flipped = bytes[at] ^ 1 << (mix(at + i) % 8);
                sim.overwrite(path, at as u64, &[flipped]);
                if found_or_harmless(&sim, (&history, &starts), path, at, "a flip in") {
                    found += 1;
                    sim.overwrite(path, at as u64, &[bytes[at]]);
                } else {
                    harmless += 1;
                    sim.restore(&image);
                }
            }
        }
    });
    assert!(found > 400 && harmless > 100, "{found} found, {harmless} harmless");
}

/// What only a mapping holds is there as long as the machine runs.
#[test]
fn a_flipped_bit_in_a_mapping_of_this_boot() {
    let (mut sim, mut history) = sample();
    let starts = Starts::of(&sim);
    let maps: Vec<_> = sim.paths().into_iter().filter(|path| is_kind(path, "map")).collect();
    let (mut found, mut harmless) = (0, 0);
    for path in maps {
        let bytes = sim.file_bytes(&path).expect("a file");
        for (unit, content) in bytes.chunks_exact(UNIT).enumerate() {
            if content.iter().all(|&byte| byte == 0) {
                continue;
            }
            for place in [mix(unit) % 36, mix(unit + 99) % UNIT] {
                let at = unit * UNIT + place;
                sim.overwrite(&path, at as u64, &[bytes[at] ^ 1 << (mix(at) % 8)]);
                let faults = verify(&sim).faults;
                if faults.is_empty() {
                    harmless += 1;
                    println!("a flip in {} at {at}: not found", path.display());
                    assert_same(&Db::open(DIR, options(&sim)).expect("sound"), &history.newest);
                    // In the same boot: another machine would not do.
                    (sim, history) = sample();
                } else {
                    found += 1;
                    let is_named = faults.iter().any(|fault| starts.names(fault, &path, at));
                    assert!(is_named, "{} at {at}: {faults:?}", path.display());
                    sim.overwrite(&path, at as u64, &[bytes[at]]);
                }
            }
        }
    }
    assert!(found > 10 && harmless > 0, "{found} found, {harmless} harmless");
}

#[test]
fn units_of_zeroes() {
    let (sim, history) = sample();
    let image = sim.snapshot();
    for_each_file(&sim, &image, |path, len| {
        let bytes = sim.file_bytes(path).expect("a file");
        for (unit, before) in bytes.chunks_exact(UNIT).enumerate() {
            if before.iter().all(|&byte| byte == 0) {
                continue;
            }
            let at = unit * UNIT;
            sim.overwrite(path, at as u64, &[0; UNIT]);
            let verdict = verify(&sim);
            if verdict.faults.is_empty() {
                assert!(!is_covered(path, at), "zeroes in {} at {at}", path.display());
                history.assert_durable(&Db::open(DIR, options(&sim)).expect("open"));
                sim.restore(&image);
            } else {
                let is_named = |fault: &Fault| fault.file() == path;
                // A record that says nothing of itself any more may be looked for
                // in another segment of its stream.
                let is_log = is_kind(path, "map") || is_kind(path, "wal");
                let is_other = |fault: &Fault| is_log && is_kind(fault.file(), "wal");
                assert!(
                    verdict.faults.iter().any(is_other) || verdict.faults.iter().any(is_named),
                    "zeroes in {} at {at} of {len}: {:?}",
                    path.display(),
                    verdict.faults
                );
                sim.overwrite(path, at as u64, before);
            }
        }
    });
}

#[test]
fn files_that_end_early_or_late() {
    let (sim, history) = sample();
    let image = sim.snapshot();
    for_each_file(&sim, &image, |path, len| {
        let lens = (0..len / UNIT).map(|unit| unit * UNIT);
        let odd = [1, 100, UNIT + 1, len.saturating_sub(1), len.saturating_sub(UNIT + 5)];
        for cut in lens.chain(odd.into_iter().filter(|&cut| cut < len)) {
            sim.restore(&image);
            sim.truncate(path, cut as u64);
            let verdict = verify(&sim);
            if verdict.faults.is_empty() {
                let place = format!("{} cut to {cut} of {len}", path.display());
                assert!(path.to_string_lossy().contains("MANIFEST"), "{place}");
                history.assert_durable(&Db::open(DIR, options(&sim)).expect(&place));
            } else {
                let is_named = |fault: &Fault| fault.file() == path;
                assert!(verdict.faults.iter().any(is_named), "{cut}: {:?}", verdict.faults);
            }
        }
        for longer in [len + 1, len + UNIT] {
            sim.restore(&image);
            sim.truncate(path, longer as u64);
            let verdict = verify(&sim);
            let is_named = |fault: &Fault| fault.file() == path;
            let is_lock = path.ends_with("LOCK");
            // Room for records is zeroes, however much; and what is behind the
            // last value is nothing.
            let is_room = path.to_string_lossy().contains("MANIFEST") || is_kind(path, "val");
            assert!(
                is_lock || is_room || verdict.faults.iter().any(is_named),
                "{} with {longer} bytes",
                path.display()
            );
        }
    });
}

#[test]
fn missing_files() {
    let (sim, history) = sample();
    let image = sim.snapshot();
    for_each_file(&sim, &image, |path, _| {
        sim.remove_file(path);
        let faults = verify(&sim).faults;
        match Db::open(DIR, options(&sim)) {
            _ if is_kind(path, "sst") => {
                assert!(faults.iter().any(|fault| fault.file() == path), "{}", path.display());
            }
            Ok(db) => {
                assert!(faults.is_empty(), "{}: {faults:?}", path.display());
                history.assert_durable(&db);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
                assert!(!faults.is_empty(), "{}: {error}", path.display());
            }
        }
    });
}

/// What a damaged manifest does not name any more may be needed: nobody is told
/// to remove it.
#[test]
fn no_file_is_unneeded_because_a_manifest_is_damaged() {
    let (sim, _) = sample();
    let unneeded = verify(&sim).orphans;
    let image = sim.snapshot();
    for_each_file(&sim, &image, |path, len| {
        if !path.to_string_lossy().contains("/MANIFEST-") {
            return;
        }
        let check = |what: &str| {
            let orphans = verify(&sim).orphans;
            let is_new = |orphan: &&std::path::PathBuf| !unneeded.contains(orphan);
            let place = format!("{what} {}", path.display());
            assert_eq!(orphans.iter().find(is_new), None, "{place}");
        };
        let bytes = sim.file_bytes(path).expect("a file");
        for (unit, content) in bytes.chunks_exact(UNIT).enumerate() {
            // Where a record's checksum is, its header, and its content.
            for at in [0, 20, 104].map(|place| unit * UNIT + place) {
                if content.iter().any(|&byte| byte != 0) {
                    sim.overwrite(path, at as u64, &[bytes[at] ^ 4]);
                    check("a flip in");
                    sim.overwrite(path, at as u64, &[bytes[at]]);
                }
            }
        }
        sim.overwrite(path, 0, &vec![0; len]);
        check("zeroes in");
        for cut in [0, UNIT] {
            sim.truncate(path, cut as u64);
            check("nothing left of");
        }
    });
}

/// Everything in the wrong place: units of one file, and whole files.
#[test]
fn swaps() {
    let (sim, _) = sample();
    let (image, starts) = (sim.snapshot(), Starts::of(&sim));
    let paths = sim.paths();
    for_each_file(&sim, &image, |path, len| {
        if !is_kind(path, "sst") || len < 8 * UNIT {
            return;
        }
        let bytes = sim.file_bytes(path).expect("a file");
        for unit in 0..len / UNIT - 1 {
            let at = unit * UNIT;
            let (a, b) = bytes[at..at + 2 * UNIT].split_at(UNIT);
            sim.overwrite(path, at as u64, &[b, a].concat());
            let faults = verify(&sim).faults;
            let is_named = |at| faults.iter().any(|fault| starts.names(fault, path, at));
            // Only the footer tells where top index and properties are.
            assert!(is_named(at + UNIT), "units {unit} of {}: {faults:?}", path.display());
            assert!(is_named(at) || unit + 2 == len / UNIT, "unit {unit}: {faults:?}");
            sim.overwrite(path, at as u64, &[a, b].concat());
        }
    });
    let is_manifest = |path: &Path| {
        let is_shards = path.parent().is_some_and(|dir| dir != Path::new(DIR));
        let name = path.file_name().and_then(|name| name.to_str());
        is_shards && name.is_some_and(|name| name.starts_with("MANIFEST-"))
    };
    for suffix in ["sst", "wal", "map", "MANIFEST"] {
        let is_alike = |path: &&PathBuf| match suffix {
            "MANIFEST" => is_manifest(path),
            _ => is_kind(path, suffix),
        };
        let alike: Vec<_> = paths.iter().filter(is_alike).collect();
        assert!(alike.len() > 1, "there are no two of {suffix}");
        for (a, b) in alike.iter().zip(&alike[1..]) {
            let contents = [a, b].map(|path| sim.file_bytes(path).expect("a file"));
            for (path, bytes) in [(a, &contents[1]), (b, &contents[0])] {
                sim.truncate(path, bytes.len() as u64);
                sim.overwrite(path, 0, bytes);
            }
            let faults = verify(&sim).faults;
            for path in [a, b] {
                let is_named = faults.iter().any(|fault| fault.file() == *path);
                assert!(is_named, "{} and {} swapped: {faults:?}", a.display(), b.display());
            }
            sim.restore(&image);
        }
    }
}

/// One fault does not hide another.
#[test]
fn all_faults_are_named() {
    let (sim, _) = sample();
    let starts = Starts::of(&sim);
    let tables: Vec<_> = sim.paths().into_iter().filter(|path| is_kind(path, "sst")).collect();
    let mut places = Vec::new();
    for path in &tables {
        let units = sim.file_bytes(path).expect("a file").len() / UNIT;
        // Two blocks; top index and properties, too.
        for unit in [1, 3, units - 3, units - 2] {
            places.push((path.clone(), unit * UNIT + 9));
        }
    }
    let identity = Path::new(DIR).join("IDENTITY");
    places.extend([(identity.clone(), 70)]);
    for (path, at) in &places {
        let byte = sim.file_bytes(path).expect("a file")[*at];
        sim.overwrite(path, *at as u64, &[byte ^ 4]);
    }
    let faults = verify(&sim).faults;
    for (path, at) in &places {
        let is_named = faults.iter().any(|fault| starts.names(fault, path, *at));
        assert!(is_named, "{} {at}: {faults:?}", path.display());
    }
}

/// Blocks behind a damaged partition or footer are looked at all the same.
#[test]
fn damage_behind_damage() {
    let (sim, _) = sample();
    let image = sim.snapshot();
    let is_table = |path: &std::path::PathBuf| is_kind(path, "sst");
    let path = sim.paths().into_iter().find(is_table).expect("a table");
    let bytes = sim.file_bytes(&path).expect("a file");
    let units = bytes.len() / UNIT;
    let flip = |at: usize| sim.overwrite(&path, at as u64, &[bytes[at] ^ 1]);
    let sound = verify(&sim).counts;
    for first in [units - 4, units - 3, units - 1] {
        sim.restore(&image);
        flip(first * UNIT + 8);
        let alone = verify(&sim);
        assert_eq!(alone.counts.entries, sound.entries, "the index is not needed to find blocks");
        flip(2 * UNIT + 30);
        let faults = verify(&sim).faults;
        let units: Vec<_> =
            faults.iter().filter(|f| f.file() == path).map(|f| f.offset() / UNIT as u64).collect();
        assert!(units.contains(&2) && units.contains(&(first as u64)), "{faults:?}");
    }
}

/// A dump names what is damaged, and ends in good order whatever it reads.
#[test]
fn dumps_of_damaged_files() {
    let (sim, _) = sample();
    let starts = Starts::of(&sim);
    let dump = |path: &Path| {
        let mut faults = Vec::new();
        let dumped = ourodb::dump(path, &options(&sim), DumpDetail::Entries, |part| {
            if let Dumped::Damage(fault) = part {
                faults.push(fault.clone());
            }
            ControlFlow::Continue(())
        });
        dumped.map(|()| faults)
    };
    for path in sim.paths().into_iter().filter(|path| !path.ends_with("LOCK")) {
        assert_eq!(dump(&path).expect("a dump"), [], "{}", path.display());
        let bytes = sim.file_bytes(&path).expect("a file");
        for unit in 0..bytes.len() / UNIT {
            for place in [mix(unit) % 36, mix(unit + 5) % UNIT] {
                let at = unit * UNIT + place;
                sim.overwrite(&path, at as u64, &[bytes[at] ^ 1 << (mix(at) % 8)]);
                let faults = dump(&path).expect("its name says what it is");
                let is_named = faults.iter().any(|fault| starts.names(fault, &path, at));
                assert!(is_named || !is_covered(&path, at), "{} at {at}", path.display());
                sim.overwrite(&path, at as u64, &[bytes[at]]);
            }
        }
        for len in [0, 1, UNIT, UNIT + 9, bytes.len() - UNIT] {
            sim.truncate(&path, len as u64);
            dump(&path).expect("its name says what it is");
        }
    }
}
