//! `verify` finds what is wrong, names the file and the place, and is content
//! with what is sound: on the simulated machine, after damage of every kind to
//! every file.
//!
//! What it cannot find, because nothing says what was there:
//!
//! * log segments: what lies behind the end of the log (zeroes, or what a
//!   recycled segment held before), what fills a group up to a whole unit, and
//!   records that a mapping of the same stream holds as well;
//! * the last record of a log or manifest, unless a later one, a cut or a
//!   watermark says that it was durable: it counts as torn;
//! * mappings: slots whose groups are in segments, and a watermark that became
//!   lower; and all that was not durable, once the machine was started anew;
//! * manifests: the room behind the last record.
//!
//! So a flip there must change nothing: the database opens, and has all it had.

mod common;
#[path = "verify/crashes.rs"]
mod crashes;
#[path = "verify/damage.rs"]
mod damage;
#[path = "verify/values.rs"]
mod values;
#[path = "verify/witnesses.rs"]
mod witnesses;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Model, assert_same};
use ourodb::sim::Sim;
use ourodb::{Db, Durability, ErrorKind, Fault, Finding, IoBackend, Options, Verified};

const DIR: &str = "/db";

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

/// What a verification comes to.
struct Verdict {
    faults: Vec<Fault>,
    orphans: Vec<PathBuf>,
    counts: Verified,
}

fn verify(sim: &Sim) -> Verdict {
    let (mut faults, mut orphans, mut bytes) = (Vec::new(), Vec::new(), 0);
    let counts = ourodb::verify(DIR, &options(sim), |finding| {
        match finding {
            Finding::Fault(fault) => faults.push(fault.clone()),
            Finding::Orphan(path) => orphans.push(path.to_owned()),
            Finding::Read(now) => {
                assert!(now >= bytes, "what was read grows");
                bytes = now;
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let counts = counts.expect("a verdict");
    assert!(counts.is_complete);
    assert_eq!((counts.faults, counts.orphans), (faults.len() as u64, orphans.len() as u64));
    Verdict { faults, orphans, counts }
}

fn assert_clean(sim: &Sim, when: &str) -> Verified {
    let verdict = verify(sim);
    assert!(verdict.faults.is_empty(), "{when}: {:?}", verdict.faults);
    verdict.counts
}

fn is_kind(path: &Path, suffix: &str) -> bool {
    path.extension().is_some_and(|extension| extension == suffix)
}

fn key(i: usize) -> Vec<u8> {
    format!("key-{i:05}").into_bytes()
}

fn value(i: usize, round: usize) -> Vec<u8> {
    // Now and then one that takes a block, or a log record, of several units.
    let len = if i % 97 == 5 { 9000 } else { i * 37 % 300 };
    (0..len).map(|at| ((at * (i + 1)) >> 3) as u8 ^ round as u8).collect()
}

/// Puts and deletes of one round; the model says what is there then.
fn write(db: &Db, model: &mut Model, keys: std::ops::Range<usize>, round: usize, how: Durability) {
    for i in keys {
        if (i + round).is_multiple_of(11) {
            db.delete(&key(i)).durability(how).wait().expect("delete");
            model.remove(&key(i));
        } else {
            db.put(&key(i), &value(i, round)).durability(how).wait().expect("put");
            model.insert(key(i), value(i, round));
        }
    }
}

/// What a database may hold: rows of the newer model, or of the older one where
/// only the machine's boot protects the newer.
struct History {
    durable: Model,
    newest: Model,
}

impl History {
    /// The rows are those of `durable`, some of them newer.
    fn assert_durable(&self, db: &Db) {
        for key in self.durable.keys().chain(self.newest.keys()) {
            let found = db.get(key).wait().expect("a get").map(|value| value.to_vec());
            let is_one = [&self.durable, &self.newest].iter().any(|m| m.get(key) == found.as_ref());
            assert!(is_one, "{}", key.escape_ascii());
        }
    }
}

/// A database after several sessions: tables of several partitions' worth of
/// blocks, an earlier stream that is still needed, and one with a mapping that
/// was left when the process was killed.
fn sample() -> (Sim, History) {
    let sim = Sim::new(11);
    let mut model = Model::new();
    let db = Db::open(DIR, options(&sim)).expect("open");
    write(&db, &mut model, 0..300, 0, Durability::Durable);
    db.flush().wait().expect("flush");
    write(&db, &mut model, 100..220, 1, Durability::Durable);
    db.flush().wait().expect("flush");
    write(&db, &mut model, 200..230, 2, Durability::Durable);
    db.close().expect("close");
    let db = Db::open(DIR, options(&sim)).expect("open");
    write(&db, &mut model, 210..250, 3, Durability::Durable);
    write(&db, &mut model, 220..224, 4, Durability::ProcessSafe);
    // By now there are mappings. And an idle stream leaves a mark: what is
    // durable is known to be so.
    sim.run_for(2_000_000_000);
    let durable = model.clone();
    write(&db, &mut model, 220..260, 5, Durability::ProcessSafe);
    sim.kill();
    drop(db);
    (sim, History { durable, newest: model })
}

#[test]
fn a_sound_database_and_what_is_counted() {
    let (sim, history) = sample();
    let files: Vec<_> = sim.paths();
    let counts = assert_clean(&sim, "sample");
    assert_eq!(counts.identities, 2);
    assert_eq!(counts.manifests, 3);
    let tables = files.iter().filter(|path| is_kind(path, "sst")).count() as u64;
    assert_eq!(counts.tables, tables);
    assert!(tables >= 2 && counts.blocks > tables && counts.entries > 200, "{counts}");
    assert!(counts.wal_segments >= 4 && counts.wal_maps >= 1, "{counts}");
    assert!(counts.wal_records >= 110 && counts.wal_writes >= 110, "{counts}");
    let bytes: usize = files.iter().map(|path| sim.file_bytes(path).expect("a file").len()).sum();
    assert!(counts.bytes <= bytes as u64 && counts.bytes > bytes as u64 / 2, "{counts}");
    assert!(counts.to_string().contains(&format!("tables: {tables}\n")));
    // It has changed nothing.
    assert_eq!(sim.paths(), files);
    assert_same(&Db::open(DIR, options(&sim)).expect("open"), &history.newest);
}

#[test]
fn the_lock_is_taken_and_given_back() {
    let sim = Sim::new(1);
    let db = Db::open(DIR, options(&sim)).expect("open");
    let refused = ourodb::verify(DIR, &options(&sim), |_| ControlFlow::Continue(()));
    assert_eq!(refused.expect_err("locked").kind(), ErrorKind::Locked);
    db.close().expect("close");
    assert_clean(&sim, "closed");
    Db::open(DIR, options(&sim)).expect("open").close().expect("close");
    // A copy of a database may have no such file; none is made.
    sim.remove_file(&Path::new(DIR).join("LOCK"));
    assert_clean(&sim, "without a lock's file");
    assert!(!sim.paths().iter().any(|path| path.ends_with("LOCK")));
}

#[test]
fn no_database() {
    let sim = Sim::new(1);
    let verify = || ourodb::verify(DIR, &options(&sim), |_| ControlFlow::Continue(()));
    assert_eq!(verify().expect_err("none").kind(), ErrorKind::NotFound);
    assert!(sim.paths().is_empty(), "nothing was made");
}

#[test]
fn whoever_has_enough_stops_it() {
    let (sim, _) = sample();
    let mut calls = 0;
    let stopped = ourodb::verify(DIR, &options(&sim), |_| {
        calls += 1;
        ControlFlow::Break(())
    });
    let counts = stopped.expect("counts so far");
    assert_eq!((calls, counts.is_complete), (1, false));
    assert_clean(&sim, "the lock was given back");
}

#[test]
fn files_that_nothing_names_are_no_faults() {
    let (sim, history) = sample();
    let db = Db::open(DIR, options(&sim)).expect("open");
    db.close().expect("close");
    let counts = assert_clean(&sim, "before");
    assert_eq!(counts.orphans, 0);
    // A table that a session wrote and did not live to name.
    let db = Db::open(DIR, options(&sim)).expect("open");
    sim.run_for(1_000_000);
    sim.kill();
    drop(db);
    let left = verify(&sim);
    assert!(left.faults.is_empty(), "{:?}", left.faults);
    for path in &left.orphans {
        sim.remove_file(path);
    }
    assert_clean(&sim, "orphans are not needed");
    assert_same(&Db::open(DIR, options(&sim)).expect("open"), &history.newest);
}
