//! Copies of a database that share a directory for mappings of the log: they have the same ids
//! and the same history, and each keeps to its own files.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

use ourodb::{Db, Durability, ErrorKind, Finding, Options, Salvaging};
use tempfile::TempDir;

#[test]
fn copies_of_a_database_share_a_directory_for_mappings() {
    let dir = tempfile::tempdir().unwrap();
    let [original, copy, maps] = ["original", "copy", "maps"].map(|name| dir.path().join(name));
    fs::create_dir(&maps).unwrap();
    let open = |path: &Path| {
        let options = Options::default().shards(1).owners(1).memory(32 << 20).map_dir(&maps);
        Db::open(path, options.durability(Durability::ProcessSafe)).unwrap()
    };
    let names = || -> BTreeSet<_> {
        fs::read_dir(&maps).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    let wait_for_map = |db: &Db| {
        let start = Instant::now();
        while db.stats().wal_map_bytes == 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "no mapping is made");
            thread::sleep(Duration::from_millis(1));
        }
    };
    open(&original).close().unwrap();
    copy_dir(&original, &copy);

    // Its mapping is made when a write asks for it: a copy knows nothing of it then.
    let durable = Options::default().shards(1).owners(1).memory(32 << 20).map_dir(&maps);
    let first = Db::open(&original, durable).unwrap();
    let early = dir.path().join("early copy");
    copy_dir(&original, &early);
    first.put(b"key", b"first").durability(Durability::ProcessSafe).wait().unwrap();
    wait_for_map(&first);
    let of_first = names();
    assert_eq!(of_first.len(), 1);
    Db::open(&early, Options::default().memory(32 << 20)).unwrap().close().unwrap();
    assert_eq!(names(), of_first);
    let second = open(&copy);
    wait_for_map(&second);
    assert_eq!(names().len(), 2, "one each");
    // One that was made while the database is open must not take anything away from it.
    let late = dir.path().join("late copy");
    copy_dir(&original, &late);
    let options = Options::default().memory(32 << 20).lock_wait(Duration::from_millis(20));
    let error = Db::open(&late, options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    assert!(error.to_string().contains("copy"), "{error}");
    assert!(names().is_superset(&of_first));
    second.put(b"key", b"second").wait().unwrap();
    second.close().unwrap();
    assert_eq!(names(), of_first);
    drop(open(&copy));
    assert!(names().is_superset(&of_first));
    assert_eq!(first.get(b"key").wait().unwrap().unwrap()[..], b"first"[..]);
    first.close().unwrap();
    let (first, second) = (open(&original), open(&copy));
    assert_eq!(first.get(b"key").wait().unwrap().unwrap()[..], b"first"[..]);
    assert_eq!(second.get(b"key").wait().unwrap().unwrap()[..], b"second"[..]);
    first.close().unwrap();
    second.close().unwrap();
    assert!(names().is_empty());
}

/// An open database whose mapping holds what was acknowledged, and a copy that was made before
/// there was one, which needs nothing of it.
struct Early {
    dir: TempDir,
    original: Db,
}

const ROWS: usize = 50;

impl Early {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("maps")).unwrap();
        let options = Options::default().shards(1).owners(1).memory(32 << 20);
        let options = options.map_dir(dir.path().join("maps"));
        let original = Db::open(dir.path().join("original"), options).unwrap();
        copy_dir(&dir.path().join("original"), &dir.path().join("copy"));
        let put = |key: &str| {
            original
                .put(key.as_bytes(), b"value")
                .durability(Durability::ProcessSafe)
                .wait()
                .unwrap();
        };
        put("first");
        let start = Instant::now();
        while original.stats().wal_map_bytes == 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "no mapping is made");
            thread::sleep(Duration::from_millis(1));
        }
        (1..ROWS).for_each(|i| put(&format!("{i}")));
        Self { dir, original }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn maps(&self) -> Vec<PathBuf> {
        fs::read_dir(self.path("maps")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn open(&self, name: &str) -> Db {
        let options = Options::default().memory(32 << 20).map_dir(self.path("maps"));
        Db::open(self.path(name), options).unwrap()
    }

    /// All files are as if the process that had the original open had been killed.
    fn kill(self) -> Killed {
        let (was, maps) = (self.path("was"), self.path("maps were"));
        copy_dir(&self.path("original"), &was);
        copy_dir(&self.path("maps"), &maps);
        let Self { dir, original } = self;
        original.close().unwrap();
        drop(original);
        // The file for the lock stays the one it is.
        let original = dir.path().join("original");
        for entry in fs::read_dir(&original).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => fs::remove_dir_all(&path).unwrap(),
                false if path.ends_with("LOCK") => {}
                false => fs::remove_file(&path).unwrap(),
            }
        }
        fs::remove_file(was.join("LOCK")).unwrap();
        copy_into(&was, &original);
        copy_into(&maps, &dir.path().join("maps"));
        Killed(dir)
    }
}

struct Killed(TempDir);

impl Killed {
    fn open(&self, name: &str) -> Db {
        let options = Options::default().memory(32 << 20).map_dir(self.0.path().join("maps"));
        Db::open(self.0.path().join(name), options).unwrap()
    }

    /// The original has all that was acknowledged, and leaves nothing.
    fn check(self) {
        let db = self.open("original");
        assert_eq!(db.scan(..).iter().count(), ROWS);
        db.close().unwrap();
        assert_eq!(fs::read_dir(self.0.path().join("maps")).unwrap().count(), 0);
    }
}

#[test]
fn a_copy_takes_nothing_from_the_original_before_or_after_it_was_killed() {
    let early = Early::new();
    early.open("copy").close().unwrap();
    assert_eq!(early.maps().len(), 1);
    let killed = early.kill();
    for _ in 0..2 {
        killed.open("copy").close().unwrap();
    }
    killed.check();
}

/// It is not told that its root manifest has lost the mapping.
#[test]
fn a_copy_is_sound_after_the_original_was_killed() {
    let killed = Early::new().kill();
    killed.open("copy").close().unwrap();
    killed.check();
}

/// What needs the mapping of another directory reads it, and leaves it there.
#[test]
fn a_copy_of_what_a_kill_left_reads_the_mapping() {
    let killed = Early::new().kill();
    copy_dir(&killed.0.path().join("original"), &killed.0.path().join("later"));
    for _ in 0..2 {
        let db = killed.open("later");
        assert_eq!(db.scan(..).iter().count(), ROWS);
        db.close().unwrap();
    }
    killed.check();
}

#[test]
fn verify_and_salvage_leave_out_what_is_the_originals() {
    let early = Early::new();
    let copy = early.path("copy");
    let mut found = Vec::new();
    let verified = ourodb::verify(&copy, &Options::default(), |finding| {
        match finding {
            Finding::Fault(fault) => found.push(fault.to_string()),
            Finding::Orphan(path) if path.starts_with(early.path("maps")) => {
                found.push(path.display().to_string());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    verified.unwrap();
    let options = Options::default().memory(32 << 20);
    let salvaged = ourodb::salvage(&copy, early.path("new"), &options, |event| {
        if let Salvaging::Lost(loss) = event {
            found.push(loss.to_string());
        }
        ControlFlow::Continue(())
    });
    assert_eq!(salvaged.unwrap().rows, 0);
    assert_eq!(found, Vec::<String>::new());
    // One that names the mapping cannot be judged while it is in use.
    copy_dir(&early.path("original"), &early.path("later"));
    let later = early.path("later");
    let error = ourodb::verify(&later, &options, |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    let into = early.path("of later");
    let error = ourodb::salvage(&later, into, &options, |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
}

/// Nothing in it is needed any more.
#[test]
fn a_closed_database_is_verified_where_its_directory_for_mappings_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let (db, maps) = (dir.path().join("db"), dir.path().join("maps"));
    fs::create_dir(&maps).unwrap();
    let options = || Options::default().memory(32 << 20);
    Db::open(&db, options().map_dir(&maps)).unwrap().close().unwrap();
    fs::remove_dir(&maps).unwrap();
    fs::write(&maps, b"another machine has a file here").unwrap();
    let mut faults = 0;
    let verified = ourodb::verify(&db, &options(), |finding| {
        faults += u32::from(matches!(finding, Finding::Fault(_)));
        ControlFlow::Continue(())
    });
    assert!(verified.unwrap().is_complete && faults == 0);
    let salvaged =
        ourodb::salvage(&db, dir.path().join("new"), &options(), |_| ControlFlow::Continue(()));
    assert_eq!(salvaged.unwrap().losses, 0);
    Db::open(&db, options()).unwrap().close().unwrap();
}

/// After a kill it may have what the root manifest forgot: that is told, and the rest is verified.
#[test]
fn what_cannot_be_looked_for_after_a_kill_is_a_fault() {
    let killed = Early::new().kill();
    let maps = killed.0.path().join("maps");
    fs::rename(&maps, killed.0.path().join("away")).unwrap();
    fs::write(&maps, b"a file").unwrap();
    let mut faults = Vec::new();
    let original = killed.0.path().join("original");
    let verified = ourodb::verify(&original, &Options::default(), |finding| {
        if let Finding::Fault(fault) = finding {
            faults.push(fault.to_string());
        }
        ControlFlow::Continue(())
    });
    assert!(verified.unwrap().is_complete);
    assert!(faults.iter().any(|fault| fault.contains("may be there")), "{faults:?}");
    assert!(Db::open(&original, Options::default().memory(32 << 20)).is_err());
    fs::remove_file(&maps).unwrap();
    fs::rename(killed.0.path().join("away"), &maps).unwrap();
    killed.check();
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    copy_into(from, to);
}

fn copy_into(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy_dir(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}
