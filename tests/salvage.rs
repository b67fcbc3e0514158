//! `salvage` copies what is sound of a damaged database, and lists what is lost: on
//! the simulated machine, after damage of every kind to every file.
//!
//! What is copied is judged by all that was ever written. Each value is one that its
//! key had; and where a key is not as it was last, a loss says so: by its keys, or
//! by being one of a log or manifest, which does not know which keys it is about.

mod common;
#[path = "salvage/damage.rs"]
mod damage;
#[path = "salvage/versions.rs"]
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Model, assert_same, used_bytes};
use ourodb::sim::{Faults, Sim};
use ourodb::{Db, Durability, ErrorKind, IoBackend, Loss, Options, Salvaged, Salvaging};

const DIR: &str = "/db";
const NEW: &str = "/new";
const UNIT: usize = 4096;

fn options(sim: &Sim) -> Options {
    Options::default()
        .io(IoBackend::Sim(sim.clone()))
        .shards(2)
        .owners(2)
        .memory(4 << 20)
        .memtable_bytes(64 << 10)
        .wal_segment_bytes(64 << 10)
        .lock_wait(Duration::ZERO)
}

/// What a salvage comes to.
struct Copy {
    losses: Vec<Loss>,
    spared: Vec<PathBuf>,
    counts: Salvaged,
    rows: Model,
}

fn try_salvage(sim: &Sim) -> ourodb::Result<Copy> {
    let (mut losses, mut spared) = (Vec::new(), Vec::new());
    let counts = ourodb::salvage(DIR, NEW, &options(sim), |event| {
        match event {
            Salvaging::Lost(loss) => losses.push(loss.clone()),
            Salvaging::Spared(fault) => spared.push(fault.file().to_owned()),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    sim.set_faults(Faults::default());
    let counts = counts?;
    assert!(counts.is_complete);
    assert_eq!((counts.losses, counts.spared), (losses.len() as u64, spared.len() as u64));
    let db = Db::open(NEW, options(sim).create(false)).expect("the copy");
    let rows: Model = db
        .scan(..)
        .iter()
        .map(|row| row.map(|(key, value)| (key.into_vec(), value.into_vec())))
        .collect::<ourodb::Result<_>>()
        .expect("the copy is sound");
    let bytes: usize = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert_eq!((counts.rows, counts.bytes), (rows.len() as u64, bytes as u64));
    db.close().expect("close");
    Ok(Copy { losses, spared, counts, rows })
}

fn salvage(sim: &Sim) -> Copy {
    try_salvage(sim).expect("a copy")
}

/// All that was ever written, and what is there.
#[derive(Default)]
struct History {
    /// What is durable.
    durable: Model,
    newest: Model,
    /// All values that each key ever had.
    written: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

impl History {
    fn put(&mut self, db: &Db, key: &[u8], value: &[u8], how: Durability) {
        db.put(key, value).durability(how).wait().expect("put");
        self.newest.insert(key.to_vec(), value.to_vec());
        self.written.entry(key.to_vec()).or_default().insert(value.to_vec());
    }

    fn delete(&mut self, db: &Db, key: &[u8], how: Durability) {
        db.delete(key).durability(how).wait().expect("delete");
        self.newest.remove(key);
    }

    fn delete_range(&mut self, db: &Db, from: &[u8], to: &[u8]) {
        db.delete_range(from..to).wait().expect("delete a range");
        self.newest.retain(|key, _| !(from..to).contains(&&key[..]));
    }

    /// Whether the key is as it was last.
    fn is_right(&self, key: &[u8], found: Option<&Vec<u8>>) -> bool {
        found == self.newest.get(key) || found == self.durable.get(key)
    }

    /// Nothing was copied that its key never had, and losses name all that is not
    /// as it was last.
    fn judge(&self, copy: &Copy, what: &str) {
        for (key, value) in &copy.rows {
            let is_written = self.written.get(key).is_some_and(|values| values.contains(value));
            assert!(is_written, "{what}: a value that {} never had", key.escape_ascii());
        }
        for key in self.written.keys() {
            let named = |loss: &Loss| loss.keys().is_none_or(|keys| keys.contains(&key[..].into()));
            let is_right = self.is_right(key, copy.rows.get(key));
            assert!(
                is_right || copy.losses.iter().any(named),
                "{what}: {} is not as it was, and no loss says so: {:#?}",
                key.escape_ascii(),
                copy.losses.iter().map(ToString::to_string).collect::<Vec<_>>()
            );
        }
    }
}

fn key(i: usize) -> Vec<u8> {
    format!("key-{i:05}").into_bytes()
}

fn value(i: usize, round: usize) -> Vec<u8> {
    // Some take a block of several units; some have a place in a value file.
    let len = match i % 97 {
        5 => 9000,
        _ if i % 40 == 6 => 70_000 + i,
        _ => i * 37 % 300,
    };
    (0..len).map(|at| ((at * (i + 1)) >> 3) as u8 ^ round as u8).collect()
}

fn write(
    db: &Db,
    history: &mut History,
    keys: std::ops::Range<usize>,
    round: usize,
    how: Durability,
) {
    for i in keys {
        if (i + round).is_multiple_of(11) {
            history.delete(db, &key(i), how);
        } else {
            history.put(db, &key(i), &value(i, round), how);
        }
    }
}

/// A database after several sessions: tables, with deletes and deleted ranges, long
/// values, an earlier stream that is still needed, and one with a mapping that was
/// left when the process was killed.
fn sample() -> (Sim, History) {
    let sim = Sim::new(23);
    let mut history = History::default();
    let db = Db::open(DIR, options(&sim)).expect("open");
    write(&db, &mut history, 0..200, 0, Durability::Durable);
    db.flush().wait().expect("flush");
    write(&db, &mut history, 60..140, 1, Durability::Durable);
    history.delete_range(&db, &key(80), &key(90));
    write(&db, &mut history, 84..86, 2, Durability::Durable);
    db.flush().wait().expect("flush");
    write(&db, &mut history, 120..150, 3, Durability::Durable);
    history.delete_range(&db, &key(20), &key(30));
    db.close().expect("close");
    let db = Db::open(DIR, options(&sim)).expect("open");
    write(&db, &mut history, 130..160, 4, Durability::Durable);
    write(&db, &mut history, 140..144, 5, Durability::ProcessSafe);
    // By now there are mappings. And an idle stream leaves a mark: what is durable
    // is known to be so.
    sim.run_for(2_000_000_000);
    history.durable = history.newest.clone();
    write(&db, &mut history, 140..170, 6, Durability::ProcessSafe);
    sim.kill();
    drop(db);
    (sim, history)
}

fn is_kind(path: &Path, suffix: &str) -> bool {
    path.extension().is_some_and(|extension| extension == suffix)
}

fn is_manifest(path: &Path) -> bool {
    path.to_string_lossy().contains("/MANIFEST-")
}

/// The files of the damaged database.
fn files(sim: &Sim) -> Vec<PathBuf> {
    sim.paths().into_iter().filter(|path| path.starts_with(DIR)).collect()
}

fn contents(sim: &Sim) -> Vec<(PathBuf, Vec<u8>)> {
    let content = |path: PathBuf| (path.clone(), sim.file_bytes(&path).expect("a file"));
    files(sim).into_iter().map(content).collect()
}

#[test]
fn a_sound_database_is_copied_as_it_is() {
    let (sim, history) = sample();
    let before = contents(&sim);
    let copy = salvage(&sim);
    assert_eq!((copy.losses.len(), copy.spared.len()), (0, 0), "{:?}", copy.losses);
    assert_eq!(copy.rows, history.newest);
    assert_eq!(contents(&sim), before, "nothing of it was changed");
    // And so does an opening find it.
    assert_same(&Db::open(DIR, options(&sim)).expect("open"), &history.newest);
    assert_eq!(Db::open(NEW, options(&sim)).expect("open").options().shards, 2);
}

#[test]
fn a_closed_database_and_an_empty_one() {
    let (sim, history) = sample();
    Db::open(DIR, options(&sim)).expect("open").close().expect("close");
    let copy = salvage(&sim);
    assert_eq!((&copy.rows, copy.counts.losses), (&history.newest, 0));

    let sim = Sim::new(1);
    Db::open(DIR, options(&sim)).expect("open").close().expect("close");
    assert_eq!(salvage(&sim).counts.losses, 0);
}

#[test]
fn the_copy_is_durable() {
    let (sim, history) = sample();
    ourodb::salvage(DIR, NEW, &options(&sim), |_| ControlFlow::Continue(())).expect("a copy");
    sim.power_cut();
    assert_same(&Db::open(NEW, options(&sim)).expect("open"), &history.newest);
}

#[test]
fn what_is_refused() {
    let (sim, _) = sample();
    let refused = |dir: &str, into: &str| {
        let copied = ourodb::salvage(dir, into, &options(&sim), |_| ControlFlow::Continue(()));
        copied.expect_err("refused").kind()
    };
    let paths = sim.paths();
    assert_eq!(refused("/none", NEW), ErrorKind::NotFound);
    assert_eq!(refused(DIR, DIR), ErrorKind::InvalidArgument);
    assert_eq!(refused(DIR, "/db/new"), ErrorKind::InvalidArgument);
    assert_eq!(sim.paths(), paths, "nothing was made");
    let db = Db::open(DIR, options(&sim)).expect("open");
    assert_eq!(refused(DIR, NEW), ErrorKind::Locked);
    db.close().expect("close");
    salvage(&sim);
    assert_eq!(refused(DIR, NEW), ErrorKind::InvalidArgument);
}

#[test]
fn whoever_has_enough_stops_it() {
    let (sim, _) = sample();
    let mut calls = 0;
    let stopped = ourodb::salvage(DIR, NEW, &options(&sim), |_| {
        calls += 1;
        if calls < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(!stopped.expect("counts so far").is_complete);
    assert_eq!(calls, 5);
    // Both locks were given back.
    Db::open(NEW, options(&sim)).expect("open").close().expect("close");
    Db::open(DIR, options(&sim)).expect("open").close().expect("close");
}

/// As for a scan: what is in the copy may be bounded by a loss on both sides.
#[test]
fn losses_in_words() {
    let (sim, _) = sample();
    let table = files(&sim).into_iter().find(|path| is_kind(path, "sst")).expect("a table");
    sim.overwrite(&table, 2 * UNIT as u64, &[0; UNIT]);
    let copy = salvage(&sim);
    let [loss] = &copy.losses[..] else { panic!("{:?}", copy.losses) };
    assert_eq!((loss.fault().file(), loss.fault().offset()), (table.as_path(), 2 * UNIT as u64));
    let Some((Bound::Included(from), Bound::Included(to))) = loss.keys() else {
        panic!("{loss}");
    };
    assert!(from < to && from.starts_with(b"key-"));
    let (from, to) = (from.escape_ascii(), to.escape_ascii());
    let says = format!(
        "{} offset 8192: a block is damaged: keys are lost, or come back older: keys from {from} \
         to {to}",
        table.display()
    );
    assert_eq!(loss.to_string(), says);
}

#[test]
fn a_full_disk() {
    let (sim, _) = sample();
    let image = sim.snapshot();
    for room in [0, 64 << 10, 600 << 10] {
        sim.set_faults(Faults::default().disk_bytes_max(used_bytes(&sim) + room));
        let error = try_salvage(&sim).err().expect("no space");
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        sim.restore(&image);
    }
}

/// What the device gives once, and not the next time, is told as well.
#[test]
fn reads_that_fail() {
    let (sim, history) = sample();
    let image = sim.snapshot();
    let mut losses = 0;
    for round in 0..40 {
        sim.set_faults(Faults::default().read_error_ppm(1000 * (1 + round)));
        match try_salvage(&sim) {
            Ok(copy) => {
                history.judge(&copy, &format!("round {round}"));
                losses += copy.losses.len();
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
        }
        sim.restore(&image);
    }
    assert!(losses > 10, "{losses} losses");
}
