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

/// Nobody is told to remove what a damaged manifest does not name any more.
#[test]
fn a_damaged_manifest_makes_no_file_unneeded() {
    let (place, table) = place();
    std::fs::copy(&table, table.with_file_name("00000001000000ff.sst")).unwrap();
    let manifest = files(&place, "shard-000", |name| name.starts_with("MANIFEST-")).remove(0);
    let bytes = std::fs::read(&manifest).unwrap();
    let mut flipped = bytes.clone();
    flipped[4200] ^= 1;
    for damaged in [&flipped[..], &vec![0; bytes.len()], &[]] {
        std::fs::write(&manifest, damaged).unwrap();
        let run = place.run(&["verify"]);
        assert_eq!(code(&run), Some(3), "{}", stdout(&run));
        assert!(!stderr(&run).contains("not needed"), "{}", stderr(&run));
    }
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
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut verify = place.command(&["verify"]);
        let mut verify = verify.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = verify.stdout.take().unwrap();
        let mut first = [0; 10];
        output.read_exact(&mut first).unwrap();
        kill_process(Pid::from_child(&verify), signal).unwrap();
        let mut rest = Vec::new();
        output.read_to_end(&mut rest).unwrap();
        assert!(first.len() + rest.len() < whole);
        assert_eq!(verify.wait().unwrap().code(), Some(code));
    }
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
    assert_eq!(stdout(&run), "", "no damage in what is none of ours");
}

/// The offset of the part of a table that a dump calls so.
fn offset_of(summary: &str, part: &str) -> usize {
    let line = summary.lines().find(|line| line.trim_start().starts_with(part));
    line.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap()
}

/// Without flags, too, a dump names the damage of what it shows and of what
/// leads to the rest.
#[test]
fn a_plain_dump_names_what_verify_does() {
    let (place, table) = place();
    let is_manifest = |name: &str| name.starts_with("MANIFEST-");
    let summary = stdout(&dump(&[], &table));
    let partitions = offset_of(&summary, "partitions: ");
    let top_index = offset_of(&summary, "top index: ");
    let flipped = |at: usize| move |bytes: &mut Vec<u8>| bytes[at] ^= 1;
    let longer = |bytes: &mut Vec<u8>| bytes.resize(bytes.len() + 4096, 0);
    let shorter = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 4096);
    // The last byte of a unit, behind the record that begins there.
    let padding = |bytes: &mut Vec<u8>| bytes[2 * 4096 - 1] = 1;
    let root = files(&place, "", is_manifest).remove(0);
    let shard = files(&place, "shard-000", is_manifest).remove(0);
    let segment = files(&place, "wal", |name| name.ends_with(".wal")).remove(0);
    let identity = place.dir().join("IDENTITY");
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);
    let damages: [(&PathBuf, &str, Damage<'_>); 12] = [
        (&root, "a record", &flipped(4096 + 70)),
        (&shard, "a record", &flipped(4096 + 104)),
        (&root, "padding", &padding),
        (&shard, "padding", &padding),
        (&segment, "shorter", &shorter),
        (&segment, "longer", &longer),
        (&identity, "longer", &longer),
        (&table, "an index", &flipped(partitions + 9)),
        (&table, "a filter", &flipped(partitions + 200)),
        (&table, "the end of partitions", &flipped(top_index - 1)),
        (&table, "the top index", &flipped(top_index + 9)),
        (&table, "padding of the top index", &flipped(top_index + 4095)),
    ];
    for (file, what, damage) in damages {
        let what = format!("{what}: {}", file.display());
        let before = std::fs::read(file).unwrap();
        assert_eq!(code(&dump(&[], file)), Some(0), "{what}");
        let mut bytes = before.clone();
        damage(&mut bytes);
        std::fs::write(file, bytes).unwrap();
        assert_eq!(code(&place.run(&["verify"])), Some(3), "{what}");
        let run = dump(&[], file);
        assert_eq!(code(&run), Some(3), "{what}: {}", stdout(&run));
        assert!(stdout(&run).contains("DAMAGE "), "{what}: {}", stdout(&run));
        std::fs::write(file, before).unwrap();
    }
}

#[test]
fn a_directory_in_the_place_of_a_file() {
    let (place, table) = place();
    let run = dump(&[], &place.dir());
    assert_eq!(code(&run), Some(2), "{}", stderr(&run));
    assert!(stderr(&run).contains("is a directory; name one of the files"), "{}", stderr(&run));

    let segment = files(&place, "wal", |name| name.ends_with(".wal")).remove(0);
    for path in [&table, &segment] {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    }
    let run = place.run(&["verify"]);
    assert_eq!(code(&run), Some(3), "{}{}", stdout(&run), stderr(&run));
    for path in [&table, &segment] {
        let says = format!("{} offset 0: this is a directory", path.display());
        assert!(stdout(&run).contains(&says), "{says}: {}", stdout(&run));
    }
    assert!(stdout(&run).contains("\ntables: 1\n"), "it goes on: {}", stdout(&run));
}

/// What is before, between and behind damage can be had, as the README says. And
/// whoever meets it is told what to do.
#[test]
fn sound_ranges_beside_damaged_blocks() {
    let (place, table) = place();
    flip(&table, 2 * 4096 + 9);
    flip(&table, 5 * 4096 + 9);
    let scan = |more: &[&str]| {
        let run = place.run(&[&["scan", "--keys-only", "--escaped"], more].concat());
        (code(&run), stdout(&run), stderr(&run))
    };
    let (exit, before, said) = scan(&[]);
    assert_eq!(exit, Some(3), "{said}");
    let advice = format!("ouro: `ouro verify --dir {}` names all", place.dir().display());
    assert!(said.lines().any(|line| line.starts_with(&advice)), "{said}");
    // The keys on each side of the damage.
    let text = stdout(&dump(&["--entries"], &table));
    let parts: Vec<Vec<&str>> = text
        .split("DAMAGE ")
        .map(|part| part.lines().filter_map(|line| line.split_once(" put ")).collect())
        .map(|entries: Vec<_>| {
            entries.iter().filter_map(|entry| entry.1.split('\t').next()).collect()
        })
        .collect();
    let [first, middle, last] = &parts[..] else { panic!("two damaged blocks: {text}") };
    // One key is deleted.
    let is_there = |key: &&&str| **key != "key-0007\\t";
    assert!(before.lines().eq(first.iter().filter(is_there).copied()), "{before}");
    let (exit, between, said) = scan(&["--from", middle[0]]);
    assert_eq!(exit, Some(3), "{said}");
    assert!(between.lines().eq(middle.iter().copied()), "{between}");
    let (exit, behind, said) = scan(&["--from", last[0]]);
    assert_eq!(exit, Some(0), "{said}");
    assert!(behind.lines().eq(last.iter().copied().chain(["later"])), "{behind}");
    for key in [first[first.len() - 1], middle[0], middle[middle.len() - 1], last[0]] {
        assert_eq!(code(&place.run(&["get", "--escaped", key])), Some(0), "{key}");
    }
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
