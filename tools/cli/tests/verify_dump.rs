//! verify and dump on the real binary: output and exit codes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Place, RunningImport, output, stderr};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use ourodb::{Compaction, Db, Options};
use rustix::process::{Pid, Signal, kill_process};

fn code(run: &Output) -> Option<i32> {
    run.status.code()
}

fn stdout(run: &Output) -> String {
    String::from_utf8(run.stdout.clone()).unwrap()
}

fn flip(path: &PathBuf, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// The files of a kind, in the order of their names.
fn files(place: &Place, dir: &str, is_one: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.dir().join(dir)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| is_one(path.file_name().unwrap().to_str().unwrap())).collect();
    paths.sort();
    paths
}

/// Nothing is compacted.
fn options() -> Options {
    let keep = Compaction::Fifo { max_bytes: Some(1 << 40), max_age: None };
    Options::default().shards(1).compaction(keep)
}

/// A database with a table of puts, one of a delete, and some log.
fn place() -> (Place, PathBuf) {
    let place = Place::new();
    let db = Db::open(place.dir(), options()).unwrap();
    for i in 0..500 {
        db.put(format!("key-{i:04}\t").as_bytes(), &[b'v'; 100]).wait().unwrap();
    }
    db.flush().wait().unwrap();
    db.delete(b"key-0007\t").wait().unwrap();
    db.flush().wait().unwrap();
    db.put(b"later", b"x").wait().unwrap();
    db.close().unwrap();
    let table = files(&place, "shard-000", |name| name.ends_with(".sst")).remove(0);
    (place, table)
}

fn dump(arguments: &[&str], file: &PathBuf) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ouro"));
    command.arg("dump").args(arguments).arg(file);
    output(command, b"")
}

#[test]
fn a_sound_database_is_verified() {
    let (place, _) = place();
    let run = place.run(&["verify"]);
    assert_eq!(code(&run), Some(0), "{}", stderr(&run));
    assert_eq!(stderr(&run), "", "no progress where there is no terminal");
    let counts = stdout(&run);
    assert!(counts.starts_with("faults: 0\n"), "{counts}");
    for line in ["identities: 2", "tables: 2", "torn_bytes: 0", "manifests: 2"] {
        assert!(counts.lines().any(|other| other == line), "{line}: {counts}");
    }
    assert_eq!(code(&place.run(&["verify", "--io", "blocking"])), Some(0));
}

#[test]
fn each_fault_is_a_line() {
    let (place, table) = place();
    flip(&table, 4096 + 5);
    flip(&table, 3 * 4096 + 5);
    flip(&place.dir().join("IDENTITY"), 4096 + 70);
    let before = std::fs::read(&table).unwrap();
    let run = place.run(&["verify"]);
    assert_eq!(code(&run), Some(3));
    let text = stdout(&run);
    let faults: Vec<_> = text.lines().filter(|line| line.contains(" offset ")).collect();
    let expected =
        [(place.dir().join("IDENTITY"), 4096), (table.clone(), 4096), (table.clone(), 3 * 4096)];
    assert_eq!(faults.len(), expected.len(), "{text}");
    for (line, (file, offset)) in faults.iter().zip(expected) {
        assert!(line.starts_with(&format!("{} offset {offset}: ", file.display())), "{line}");
    }
    assert!(text.contains("\nfaults: 3\n"), "{text}");
    assert_eq!(stderr(&run), "ouro: 3 faults were found\n");
    assert_eq!(std::fs::read(&table).unwrap(), before);
}

#[test]
fn orphans_are_notes() {
    let (place, table) = place();
    let orphan = table.with_file_name("00000001000000ff.sst");
    std::fs::copy(&table, &orphan).unwrap();
    let run = place.run(&["verify"]);
    assert_eq!(code(&run), Some(0), "{}", stdout(&run));
    assert!(stderr(&run).contains(orphan.to_str().unwrap()), "{}", stderr(&run));
    assert!(stdout(&run).contains("\norphans: 1\n"));
    assert!(orphan.exists());
}

#[test]
fn what_keeps_verify_from_its_work() {
    let none = Place::new();
    let run = none.run(&["verify"]);
    assert_eq!(code(&run), Some(7), "{}", stderr(&run));
    assert!(!none.dir().exists());

    let place = Place::new();
    let mut import = RunningImport::start(&place);
    import.send(b"k\tv\n");
    import.wait_for(1);
    let run = place.run(&["verify", "--lock-wait", "0s"]);
    assert_eq!((code(&run), &run.stdout[..]), (Some(4), &b""[..]), "{}", stderr(&run));
    drop(import.input.take());
    assert!(import.child.wait().unwrap().success());
}

/// It ends in good order, also where nobody reads its output.
#[test]
fn an_interrupted_verification() {
    let (place, table) = place();
    let db = Db::open(place.dir(), options()).unwrap();
    for i in 0..1500 {
        db.put(format!("long-{i:04}").as_bytes(), &[b'v'; 4000]).wait().unwrap();
    }
    db.flush().wait().unwrap();
    db.close().unwrap();
    let is_other = |path: &PathBuf| *path != table;
    let tables = files(&place, "shard-000", |name| name.ends_with(".sst"));
    // More lines than a pipe holds: of each block one.
    for path in tables.into_iter().filter(is_other) {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.chunks_exact_mut(4096).skip(1).take(1400).for_each(|unit| unit[9] ^= 1);
        std::fs::write(&path, bytes).unwrap();
    }
    let whole = place.run(&["verify"]).stdout.len();
    assert!(whole > 2 * 65_536, "{whole} bytes");
    let mut verify =
        place.command(&["verify"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = verify.stdout.take().unwrap();
    let mut first = [0; 10];
    output.read_exact(&mut first).unwrap();
    kill_process(Pid::from_child(&verify), Signal::INT).unwrap();
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    assert!(first.len() + rest.len() < whole);
    assert_eq!(verify.wait().unwrap().code(), Some(130));
    // The lock was given back.
    assert_eq!(code(&place.run(&["get", "zzz", "--lock-wait", "0s"])), Some(1));
}

/// A file that only a newer version understands is not called damaged.
#[test]
fn a_newer_file_is_unsupported() {
    let (place, _) = place();
    let path = place.dir().join("IDENTITY");
    let mut bytes = std::fs::read(&path).unwrap();
    for copy in [0, 4096] {
        let header = &mut bytes[copy..copy + 512];
        header[8] = 99;
        header[508..].fill(0);
        let crc = crc32c::crc32c(header).to_le_bytes();
        header[508..].copy_from_slice(&crc);
    }
    std::fs::write(&path, bytes).unwrap();
    let run = place.run(&["verify"]);
    assert_eq!(code(&run), Some(6), "{}", stdout(&run));
    assert!(stdout(&run).contains("use a newer ouro"), "{}", stdout(&run));
}

#[test]
fn tables_are_dumped() {
    let (place, table) = place();
    let newer = files(&place, "shard-000", |name| name.ends_with(".sst")).remove(1);
    let text = |arguments: &[&str], table: &PathBuf| {
        let run = dump(arguments, table);
        assert_eq!(code(&run), Some(0), "{}", stderr(&run));
        stdout(&run)
    };
    let summary = text(&[], &table);
    assert!(summary.starts_with("table, "), "{summary}");
    assert!(summary.contains(" 500 entries, 0 of them deletes"), "{summary}");
    assert!(summary.contains("smallest key: key-0000\\t\n"), "{summary}");
    assert!(!summary.contains("block at offset"));
    let blocks = text(&["--blocks"], &table);
    assert!(blocks.contains("block at offset 4096: 4096 bytes") && blocks.contains("separator"));
    assert!(!blocks.contains(" put "));
    let entries = text(&["--entries"], &table);
    assert_eq!(entries.lines().filter(|line| line.contains(" put key-")).count(), 500);
    let delete = text(&["--entries"], &newer);
    assert!(delete.lines().any(|line| line.ends_with("501 delete key-0007\\t")), "{delete}");
    let cut = format!("\t{}... (100 bytes)", "v".repeat(64));
    assert!(entries.contains(&cut), "long values are cut");
}

#[test]
fn damage_is_dumped_where_it_is() {
    let (place, table) = place();
    flip(&table, 2 * 4096 + 9);
    let run = dump(&["--entries"], &table);
    assert_eq!(code(&run), Some(3));
    let text = stdout(&run);
    assert!(text.contains(&format!("DAMAGE {} offset 8192: ", table.display())), "{text}");
    // What is before and behind it is there.
    assert!(text.contains("key-0000\\t") && text.contains("key-0499\\t"), "{text}");
    // Its name says what it is.
    flip(&table, 0);
    assert!(stdout(&dump(&["--entries"], &table)).contains("key-0499\\t"));

    let other = place.file("other", b"no database");
    let run = dump(&[], &other);
    assert_eq!(code(&run), Some(2), "{}", stderr(&run));
}

#[test]
fn logs_manifests_and_identities_are_dumped() {
    let (place, table) = place();
    let text = |arguments: &[&str], file: &PathBuf| {
        let run = dump(arguments, file);
        assert_eq!(code(&run), Some(0), "{}: {}", file.display(), stdout(&run));
        stdout(&run)
    };
    let identity = text(&[], &place.dir().join("IDENTITY"));
    assert_eq!(identity.matches("1 shards, hash key").count(), 2, "{identity}");

    let is_manifest = |name: &str| name.starts_with("MANIFEST-");
    let root = text(&[], &files(&place, "", is_manifest)[0]);
    assert!(root.contains("keyspace 0 is called default"), "{root}");
    assert!(root.contains("stream 0 of opening 1: starts at position 0"), "{root}");
    assert!(root.contains("the database was closed"), "{root}");
    let shard = text(&[], &files(&place, "shard-000", is_manifest)[0]);
    let name = table.file_stem().unwrap().to_str().unwrap();
    assert!(shard.contains(&format!("level 0 gets table {name}")), "{shard}");
    assert!(shard.contains("largest key: key-0499\\t"), "{shard}");

    let segments = files(&place, "wal", |name| name.ends_with(".wal"));
    let all: String = segments.iter().map(|path| text(&["--entries"], path)).collect();
    assert!(all.contains("log segment, ") && all.contains("shard 0, keyspace 0"), "{all}");
    assert!(all.contains(" put later\tx\n"), "{all}");
}

/// Values in files of their own: counted, named when they are damaged, and said
/// where they are.
#[test]
fn long_values_are_verified_and_dumped() {
    let place = Place::new();
    let db = Db::open(place.dir(), options()).unwrap();
    db.put(b"in a table", &[b'v'; 100_000]).wait().unwrap();
    db.flush().wait().unwrap();
    db.put(b"in the log", &[b'v'; 70_000]).wait().unwrap();
    db.close().unwrap();
    let run = place.run(&["verify"]);
    assert_eq!(code(&run), Some(0), "{}", stderr(&run));
    for line in ["value_files: 1", "values: 2", "value_bytes: 170000"] {
        assert!(stdout(&run).lines().any(|other| other == line), "{line}: {}", stdout(&run));
    }
    let path = files(&place, "shard-000", |name| name.ends_with(".val")).remove(0);
    let name = path.file_name().unwrap().to_str().unwrap();
    let text = |file: &PathBuf| stdout(&dump(&["--entries"], file));
    let own = text(&path);
    assert!(own.starts_with("value file, ") && own.contains("and of holes\n"), "{own}");
    let table = text(&files(&place, "shard-000", |name| name.ends_with(".sst")).remove(0));
    let says = format!(" put in a value file in a table\t{name} offset 4096, 100000 bytes\n");
    assert!(table.contains(&says), "{says}: {table}");
    let segments = files(&place, "wal", |name| name.ends_with(".wal"));
    let log: String = segments.iter().map(text).collect();
    let says = format!(" put in a value file in the log\t{name} offset 106496, 70000 bytes\n");
    assert!(log.contains(&says), "{says}: {log}");

    flip(&path, 4096 + 65_536 + 9);
    let run = place.run(&["verify"]);
    assert_eq!(code(&run), Some(3), "{}", stdout(&run));
    let fault = format!("{} offset {}: the checksum", path.display(), 4096 + 65_536);
    assert!(stdout(&run).starts_with(&fault), "{}", stdout(&run));
    assert!(stdout(&run).contains("\nfaults: 1\n"), "{}", stdout(&run));
    std::fs::remove_file(&path).unwrap();
    let run = place.run(&["verify"]);
    assert!(stdout(&run).contains(" offset 0: the value file is missing\n"), "{}", stdout(&run));
    assert!(stdout(&run).contains("\nfaults: 1\n"), "once for each file: {}", stdout(&run));
}

#[test]
fn stats_know_the_levels() {
    let (place, _) = place();
    let text = String::from_utf8(place.ok(&["stats"])).unwrap();
    for line in ["level_0_tables: 2", "level_0_tombstones: 1"] {
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
    assert!(!text.contains("level_1"), "{text}");
}
