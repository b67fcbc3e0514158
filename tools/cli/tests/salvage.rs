//! salvage on the real binary: output, exit codes, and what is left behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Place, RunningImport, ouro, output, stderr};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use ourodb::{Compaction, Db, Options};
use rustix::process::{Pid, Signal, kill_process};

fn code(run: &Output) -> Option<i32> {
    run.status.code()
}

fn stdout(run: &Output) -> String {
    String::from_utf8(run.stdout.clone()).unwrap()
}

/// Nothing is compacted.
fn options() -> Options {
    let keep = Compaction::Fifo { max_bytes: Some(1 << 40), max_age: None };
    Options::default().shards(2).compaction(keep)
}

/// Files below a directory, with their content.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => drop(found.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found
}

/// The longest file whose path holds `part`.
fn longest(dir: &Path, part: &str) -> PathBuf {
    let is_one = |(path, _): &(PathBuf, Vec<u8>)| path.to_str().unwrap().contains(part);
    let found = contents(dir).into_iter().filter(is_one).max_by_key(|(_, bytes)| bytes.len());
    found.unwrap().0
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// A database with two tables, a long value, and some log.
fn place() -> Place {
    let place = Place::new();
    let db = Db::open(place.dir(), options()).unwrap();
    for i in 0..900 {
        db.put(format!("key-{i:04}\t").as_bytes(), &[b'v'; 100]).wait().unwrap();
    }
    db.put(b"long", &[b'v'; 100_000]).wait().unwrap();
    db.flush().wait().unwrap();
    db.delete(b"key-0007\t").wait().unwrap();
    db.put(b"later", b"x").wait().unwrap();
    db.close().unwrap();
    place
}

fn new(place: &Place) -> PathBuf {
    place.dir().with_file_name("new")
}

fn incomplete(place: &Place) -> PathBuf {
    place.dir().with_file_name("new.incomplete")
}

fn salvage(place: &Place, more: &[&str]) -> Output {
    let new = new(place);
    place.run(&[&["salvage", "--into", new.to_str().unwrap()], more].concat())
}

fn exported(dir: &Path) -> String {
    let run = output(ouro(dir, &["export"]), b"");
    assert_eq!(code(&run), Some(0), "{}", stderr(&run));
    stdout(&run)
}

#[test]
fn a_sound_database_is_copied() {
    let place = place();
    let expected = exported(&place.dir());
    let before = contents(&place.dir());
    let run = salvage(&place, &[]);
    assert_eq!(code(&run), Some(0), "{}{}", stdout(&run), stderr(&run));
    assert_eq!(stderr(&run), "", "no progress where there is no terminal");
    assert_eq!(stdout(&run), "rows: 901\nbytes: 198001\nlosses: 0\nspared: 0\n");
    assert_eq!(contents(&place.dir()), before, "it was not written to");
    assert_eq!(exported(&new(&place)), expected);
    assert!(!incomplete(&place).exists());
    let verified = output(ouro(&new(&place), &["verify"]), b"");
    assert_eq!(code(&verified), Some(0), "{}", stdout(&verified));
    // An empty directory is as good as none.
    std::fs::remove_dir_all(new(&place)).unwrap();
    std::fs::create_dir(new(&place)).unwrap();
    let run = salvage(&place, &["--shards", "3", "--io", "blocking", "--compression", "lz4"]);
    assert_eq!(code(&run), Some(0), "{}", stderr(&run));
    assert_eq!(exported(&new(&place)), expected);
    assert!(new(&place).join("shard-002").exists());
}

#[test]
fn each_loss_is_a_line() {
    let place = place();
    let expected = exported(&place.dir());
    let table = longest(&place.dir(), ".sst");
    flip(&table, 2 * 4096 + 9);
    let values = longest(&place.dir(), ".val");
    flip(&values, 4096 + 70_000);
    let before = contents(&place.dir());
    let run = salvage(&place, &[]);
    assert_eq!(code(&run), Some(3), "{}{}", stdout(&run), stderr(&run));
    assert_eq!(contents(&place.dir()), before);
    let text = stdout(&run);
    let lines: Vec<&str> = text.lines().collect();
    let [mut block, mut value, rows, _, losses, _] = lines[..] else { panic!("{text}") };
    // Shards come one after the other, and the keys are anywhere.
    if block.ends_with(": key long") {
        std::mem::swap(&mut block, &mut value);
    }
    assert_eq!(losses, "losses: 2");
    let place_of_value = format!("{} offset {}: ", values.display(), 4096 + 65_536);
    assert!(value.starts_with(&place_of_value) && value.ends_with(": key long"), "{value}");
    let place_of_block = format!("{} offset 8192: ", table.display());
    assert!(block.starts_with(&place_of_block), "{block}");
    // The keys that are missing are between those that the line names, escaped.
    let (_, bounds) = block.rsplit_once(": keys from ").unwrap();
    let (from, to) = bounds.split_once(" to ").unwrap();
    assert!(from.ends_with("\\t") && to.ends_with("\\t"), "{block}");
    let copied = exported(&new(&place));
    let copied: Vec<&str> = copied.lines().collect();
    assert_eq!(rows, format!("rows: {}", copied.len()));
    let mut missing = 0;
    for line in expected.lines().filter(|line| !copied.contains(line)) {
        let key = line.split('\t').next().unwrap();
        assert!((from..=to).contains(&key) || key == "long", "{key}: {block}");
        missing += 1;
    }
    assert!(missing > 10 && copied.len() + missing == 901, "{missing} are missing");
    let says = format!("ouro: 2 losses; what is sound is in {}\n", new(&place).display());
    assert_eq!(stderr(&run), says);
}

/// Whatever keeps a database from being opened.
#[test]
fn databases_that_refuse_to_open() {
    let sound = place();
    let expected = exported(&sound.dir());
    for (part, is_lost) in [("IDENTITY", false), ("db/MANIFEST-", true), ("001/MANIFEST-", true)] {
        let place = place();
        let path = longest(&place.dir(), part);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(code(&place.run(&["get", "later"])), Some(3));
        let run = salvage(&place, &[]);
        assert_eq!(code(&run), Some(if is_lost { 3 } else { 0 }), "{part}: {}", stdout(&run));
        let note = format!("ouro: note: {} offset 0: ", path.display());
        assert_eq!(stderr(&run).starts_with(&note), !is_lost, "{part}: {}", stderr(&run));
        // Nothing was merged, so that nothing that was deleted was forgotten.
        assert_eq!(exported(&new(&place)), expected, "{part}");
    }
}

#[test]
fn what_keeps_salvage_from_its_work() {
    let none = Place::new();
    let run = salvage(&none, &[]);
    assert_eq!(code(&run), Some(7), "{}", stderr(&run));
    assert!(!new(&none).exists() && !incomplete(&none).exists());

    let place = place();
    assert_eq!(code(&place.run(&["salvage"])), Some(2), "it has to be told where to");
    let into = |into: &Path| place.run(&["salvage", "--into", into.to_str().unwrap()]);
    let inside = place.dir().join("new");
    for bad in [&place.dir(), &inside, &place.dir().join("IDENTITY"), Path::new("/")] {
        let run = into(bad);
        assert_eq!(code(&run), Some(2), "{}: {}", bad.display(), stderr(&run));
    }
    let link = place.dir().with_file_name("link");
    std::os::unix::fs::symlink(place.dir(), &link).unwrap();
    assert_eq!(code(&into(&link.join("new"))), Some(2), "through a link");
    // A way up, from within.
    let mut from_within = place.command(&["salvage", "--into", "new"]);
    let run = from_within.current_dir(place.dir()).output().unwrap();
    assert_eq!(code(&run), Some(2), "{}", stderr(&run));
    assert!(!inside.exists() && !place.dir().join("new.incomplete").exists());
    let nothing = place.dir().with_file_name("nothing");
    std::os::unix::fs::symlink("there is no such file", &nothing).unwrap();
    let run = into(&nothing);
    assert_eq!(code(&run), Some(2));
    assert!(stderr(&run).contains("a link to nothing"), "{}", stderr(&run));
    // Names that end in a slash, of a directory that is there and of one that is not.
    for name in ["empty/", "absent/"] {
        let new = place.dir().with_file_name(name);
        if name == "empty/" {
            std::fs::create_dir(&new).unwrap();
        }
        let run = into(&new);
        assert_eq!(code(&run), Some(0), "{name}: {}", stderr(&run));
        assert_eq!(exported(&new), exported(&place.dir()));
    }
    std::fs::create_dir(incomplete(&place)).unwrap();
    let run = salvage(&place, &[]);
    assert_eq!(code(&run), Some(2));
    assert!(stderr(&run).contains("new.incomplete is there, from a salvage"), "{}", stderr(&run));

    let locked = Place::new();
    let mut import = RunningImport::start(&locked);
    import.send(b"k\tv\n");
    import.wait_for(1);
    let run = salvage(&locked, &["--lock-wait", "0s"]);
    assert_eq!((code(&run), &run.stdout[..]), (Some(4), &b""[..]), "{}", stderr(&run));
    assert!(!incomplete(&locked).exists(), "nothing was made");
    drop(import.input.take());
    assert!(import.child.wait().unwrap().success());
}

/// What was copied keeps the name that says that it is not all.
#[test]
fn an_interrupted_salvage() {
    let place = Place::new();
    let db = Db::open(place.dir(), options().shards(1)).unwrap();
    for i in 0..3000 {
        db.put(format!("long-{i:04}").as_bytes(), &[b'v'; 4000]).wait().unwrap();
    }
    db.flush().wait().unwrap();
    db.close().unwrap();
    // More lines than a pipe holds: of every other block one.
    for (path, mut bytes) in contents(&place.dir()) {
        if path.to_str().unwrap().ends_with(".sst") {
            bytes.chunks_exact_mut(4096).skip(1).step_by(2).for_each(|unit| unit[9] ^= 1);
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let new = new(&place);
    let mut command = place.command(&["salvage", "--into", new.to_str().unwrap()]);
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = running.stdout.take().unwrap();
    let mut first = [0; 10];
    lines.read_exact(&mut first).unwrap();
    kill_process(Pid::from_child(&running), Signal::INT).unwrap();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("rows: "), "it ends without counts");
    let ended = running.wait_with_output().unwrap();
    assert_eq!(code(&ended), Some(130), "{}", stderr(&ended));
    assert!(stderr(&ended).contains("new.incomplete: remove it\n"), "{}", stderr(&ended));
    assert!(!new.exists() && incomplete(&place).exists());
    assert_eq!(code(&salvage(&place, &[])), Some(2));
    std::fs::remove_dir_all(incomplete(&place)).unwrap();
    let whole = salvage(&place, &[]);
    assert_eq!(code(&whole), Some(3));
    assert!(whole.stdout.len() > 2 * 65_536, "{} bytes", whole.stdout.len());
}
