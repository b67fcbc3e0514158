//! Every engine keeps what it is given: through its handle, and under the
//! workload code.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use ouro_bench::cli::Io;
use ouro_bench::engine::OuroDb;
use ouro_bench::target::{Handle, OpenOptions, Rows, Target};
use ouro_compare::cli::Engine;
#[cfg(feature = "lmdb")]
use ouro_compare::engines::lmdb;
#[cfg(feature = "rocksdb")]
use ouro_compare::engines::rocksdb;
use ouro_compare::engines::{batch, fjall, redb};
use ourodb::Durability;
use serde_json::Value;

const RECORDS: u32 = 1000;

fn record(number: u32) -> (String, String) {
    (format!("key {number:06}"), format!("the value of {number}").repeat(9))
}

/// Reads all records but the first, which was deleted, by key and in order.
fn read_back(target: &impl Target) {
    let mut handle = target.handle();
    for number in 1..RECORDS {
        let (key, value) = record(number);
        let found = handle.get(key.as_bytes()).unwrap();
        assert_eq!(found.unwrap().as_ref(), value.as_bytes(), "{key}");
    }
    for absent in [record(0).0, "key".to_owned(), record(RECORDS).0] {
        assert!(handle.get(absent.as_bytes()).unwrap().is_none(), "{absent}");
    }
    let mut rows = Rows::default();
    handle.scan(b"key", RECORDS as usize + 1, &mut rows).unwrap();
    assert_eq!(rows.len() as u32, RECORDS - 1);
    for (number, (key, value)) in (1..).zip(rows.iter()) {
        assert_eq!((key, value), (record(number).0.as_bytes(), record(number).1.as_bytes()));
    }
    let keys: Vec<Vec<u8>> = [7, 0, 3].map(|number| record(number).0.into_bytes()).into();
    let mut several = Vec::new();
    handle.multi_get(&keys, &mut several).unwrap();
    let several = several.iter().map(|found| found.as_ref().map(AsRef::as_ref));
    let (three, seven) = (record(3).1, record(7).1);
    assert!(several.eq([Some(seven.as_bytes()), None, Some(three.as_bytes())]));
    rows.clear();
    handle.scan(record(500).0.as_bytes(), 3, &mut rows).unwrap();
    let keys: Vec<_> = rows.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [500, 501, 502].map(|number| record(number).0.into_bytes()));
}

fn keeps_what_it_is_given<T: Target>(durability: Durability, settings: &T::Settings) {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions {
        create: true,
        memory_bytes: 64 << 20,
        durability,
        lock_wait: Duration::from_secs(10),
        shards: None,
        owners: None,
        spin: None,
        requests_max: None,
        io: Io::Blocking,
        compression: ourodb::Compression::None,
    };
    T::check(&options, settings).unwrap();
    let target = T::open(dir.path(), &options, settings).unwrap();
    let mut handle = target.handle();
    for number in 0..RECORDS {
        let (key, value) = record(number);
        handle.put(key.as_bytes(), b"overwritten").unwrap();
        handle.put(key.as_bytes(), value.as_bytes()).unwrap();
    }
    handle.delete(record(0).0.as_bytes()).unwrap();
    drop(handle);
    read_back(&target);
    target.settle(&std::sync::atomic::AtomicBool::new(false)).unwrap();
    read_back(&target);
    assert!(
        T::open(
            dir.path(),
            &OpenOptions { lock_wait: Duration::ZERO, ..options.clone() },
            settings
        )
        .is_err()
    );
    target.close().unwrap();

    let options = OpenOptions { create: false, ..options };
    let target = T::open(dir.path(), &options, settings).unwrap();
    read_back(&target);
    target.close().unwrap();
    let empty = tempfile::tempdir().unwrap();
    assert!(T::open(empty.path(), &options, settings).is_err());
}

/// What is read after it is checked.
#[cfg(feature = "rocksdb")]
#[test]
fn rocksdb_deletes_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let load = "load --dir d --engine rocksdb --records 1000";
    assert_eq!(compare(dir.path(), load).0, Some(0));
    for workload in ["range-delete", "multi-get", "scan"] {
        let run = format!("run --dir d --engine rocksdb --workload {workload} --seconds 0.3");
        assert_eq!(compare(dir.path(), &run).0, Some(0), "{workload}");
    }
}

#[test]
fn ourodb_keeps_what_it_is_given() {
    let within = Duration::from_millis(100);
    for durability in [Durability::Durable, Durability::ProcessSafe, Durability::Relaxed { within }]
    {
        keeps_what_it_is_given::<OuroDb>(durability, &());
    }
}

#[cfg(feature = "rocksdb")]
#[test]
fn rocksdb_keeps_what_it_is_given() {
    for compact in [false, true] {
        let settings = rocksdb::Settings { direct: false, compact };
        keeps_what_it_is_given::<rocksdb::RocksDb>(Durability::ProcessSafe, &settings);
    }
    let settings = rocksdb::Settings::default();
    keeps_what_it_is_given::<rocksdb::RocksDb>(Durability::Durable, &settings);
}

#[test]
fn fjall_keeps_what_it_is_given() {
    for compact in [false, true] {
        let settings = fjall::Settings { compact };
        keeps_what_it_is_given::<fjall::Fjall>(Durability::ProcessSafe, &settings);
    }
    keeps_what_it_is_given::<fjall::Fjall>(Durability::Durable, &fjall::Settings::default());
}

fn keeps_it_in_batches<T: Target<Settings = batch::Settings>>() {
    for durability in [Durability::Durable, Durability::ProcessSafe] {
        for load_batch in [1, 100] {
            keeps_what_it_is_given::<T>(durability, &batch::Settings { load_batch });
        }
    }
}

#[test]
fn redb_keeps_what_it_is_given() {
    keeps_it_in_batches::<redb::Redb>();
}

#[cfg(feature = "lmdb")]
#[test]
fn lmdb_keeps_what_it_is_given() {
    keeps_it_in_batches::<lmdb::Lmdb>();
}

/// All that were compiled in.
fn engines() -> Vec<String> {
    Engine::value_variants().iter().map(|engine| engine.name()).collect()
}

/// Runs the binary in `dir`; its exit code and what it printed on stdout.
fn compare(dir: &Path, line: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ouro-compare"));
    let output = command.args(line.split_whitespace()).current_dir(dir).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    eprintln!("{line}\n{stderr}");
    (output.status.code(), stdout)
}

/// The workload code checks every value that it reads, and a wrong one ends it
/// with exit code 7.
#[test]
fn engines_alternate() {
    let engines = engines();
    let dir = tempfile::tempdir().unwrap();
    let common = "alternate --dir d --rounds 2 --records 1000 --load-clients 16 --memory 64MiB --seconds 0.1";
    let (code, table) = compare(dir.path(), &format!("{common} --workload c --json result.json"));
    assert_eq!(code, Some(0));
    let rows: Vec<Vec<_>> =
        table.lines().skip(2).map(|row| row.split_whitespace().take(4).collect()).collect();
    let expected = [("load", "insert", "1"), ("run", "read", "2")].map(|(command, kind, runs)| {
        let rows = engines.iter().map(|engine| vec![&**engine, command, kind, runs]);
        rows.collect::<Vec<_>>()
    });
    assert_eq!(rows, expected.concat());

    let text = std::fs::read_to_string(dir.path().join("result.json")).unwrap();
    let result: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(result["medians"].as_array().unwrap().len(), 2 * engines.len());
    let runs = result["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3 * engines.len());
    for run in runs {
        assert_eq!(run["report"]["config"]["engine"], run["engine"]);
        assert_eq!(run["report"]["result"]["wrong_reads"], 0);
        assert!(run["report"]["result"]["cpu_ns_per_op"].as_f64().unwrap() > 0.0);
    }

    // Data that is there is used to read, and replaced only when told.
    let others = &engines[1..];
    let reads = format!("{common} --workload scan --engines {}", others.join(","));
    assert_eq!(compare(dir.path(), &reads).0, Some(0));
    let writes = format!("{common} --workload e --engines {}", others.join(","));
    assert_eq!(compare(dir.path(), &writes).0, Some(2));
    let (code, table) = compare(dir.path(), &format!("{writes} --overwrite"));
    assert_eq!(code, Some(0));
    assert_eq!(table.lines().filter(|row| row.contains(" scan ")).count(), others.len(), "{table}");
    for engine in others {
        let note = dir.path().join(format!("d/{engine}/{engine}/note.txt"));
        std::fs::write(&note, "precious").unwrap();
        let load = format!("load --engine {engine} --dir d/{engine} --records 10 --overwrite");
        assert_eq!(compare(dir.path(), &load).0, Some(2));
        assert_eq!(std::fs::read(&note).unwrap(), b"precious");
        std::fs::remove_file(note).unwrap();
        assert_eq!(compare(dir.path(), &load).0, Some(0));
    }
}

/// No batch of so many ends with the records.
#[test]
fn loads_in_batches_are_complete() {
    let dir = tempfile::tempdir().unwrap();
    let batches = "--records 1000 --clients 4 --load-batch 300";
    for engine in engines().iter().filter(|engine| ["redb", "lmdb"].contains(&engine.as_str())) {
        let load = format!("load --dir {engine} --engine {engine} {batches}");
        assert_eq!(compare(dir.path(), &load).0, Some(0));
        let reads = format!("run --dir {engine} --engine {engine} --workload c --seconds 0.5");
        assert_eq!(compare(dir.path(), &reads).0, Some(0));
    }
    let alternate = "alternate --dir d --rounds 1 --records 1000 --load-batch 300 --seconds 0.1";
    assert_eq!(compare(dir.path(), &format!("{alternate} --workload scan")).0, Some(0));
}

#[test]
fn what_an_engine_cannot_do_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for line in [
        "load --dir d --engine fjall --direct",
        "load --dir d --engine fjall --load-batch 2",
        "load --dir d --engine fjall --durability relaxed:100ms",
        "load --dir d --engine ourodb --durability never",
        "load --dir d --engine ourodb --load-batch 2",
        "load --dir d --engine redb --compact",
        "load --dir d --engine redb --memory 1MiB",
        "load --dir d --engine fjall --client-kind owner --depth 4",
        "load --dir d --engine ourodb --depth 2",
        "alternate --dir d --client-kind task",
        "alternate --dir d --workload c --fresh 10 --load-batch 2",
        "run --dir d --engine redb --workload a",
        "run --dir d --engine redb --workload a --fresh 10 --load-batch 2",
        "load --dir d",
    ] {
        assert_eq!(compare(dir.path(), line).0, Some(2), "{line}");
    }
    for engine in &engines()[1..] {
        for flags in ["--durability relaxed:100ms", "--client-kind task", "--compression lz4"] {
            let line = format!("load --dir d --engine {engine} {flags}");
            assert_eq!(compare(dir.path(), &line).0, Some(2), "{line}");
        }
    }
    assert!(!dir.path().join("d").exists());
    assert_eq!(compare(dir.path(), "load --dir d --engine ourodb --records 10").0, Some(0));
    for engine in &engines()[1..] {
        let line = format!("run --dir d --engine {engine} --workload c");
        assert_eq!(compare(dir.path(), &line).0, Some(2), "{line}");
    }
}

/// A first look at all rows in the cache, and what was measured before put together
/// with it.
#[test]
fn everything_is_one_report() {
    let dir = tempfile::tempdir().unwrap();
    let all = "all --dir d --rounds 1 --seconds 0.05 --warm-up 0.01 --scale 0.001";
    for name in ["one", "two"] {
        let files = format!("--contestants fjall --json {name}.json --html {name}.html");
        let (code, table) = compare(dir.path(), &format!("{all} --groups cached,durable {files}"));
        assert_eq!(code, Some(0));
        assert!(table.contains("| get of absent keys, 1 client "), "{table}");
        assert!(!table.contains("512 MiB"), "{table}");
    }
    // Of the data nothing is left.
    let left = std::fs::read_dir(dir.path().join("d")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["ouro-compare-all"]);
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let one: Value = serde_json::from_str(&read("one.json")).unwrap();
    assert_eq!(one["partial"], false);
    let samples = one["samples"].as_array().unwrap();
    // Fourteen steps of both, but for the one that only OuroDB has.
    assert_eq!(samples.len(), 2 * 14 - 1);
    for sample in samples {
        assert!(sample["figures"]["ops_per_s"].as_f64().unwrap() > 0.0, "{sample}");
    }
    assert!(read("one.html").contains("<title>OuroDB and its peers</title>"));
    let (code, table) = compare(dir.path(), "report one.json two.json --html both.html");
    assert_eq!(code, Some(0));
    assert!(table.contains("medians of 2 rounds"), "{table}");
    assert!(read("both.html").contains("medians of 2 rounds"));

    std::fs::create_dir(dir.path().join("other")).unwrap();
    std::fs::write(dir.path().join("other/note.txt"), "precious").unwrap();
    for line in [
        "all --dir other",
        "all --dir d --groups cold",
        "all --dir d --contestants leveldb",
        "all --dir d --scale 0",
        "report",
        "report other/note.txt",
    ] {
        assert_eq!(compare(dir.path(), line).0, Some(2), "{line}");
    }
    assert_eq!(compare(dir.path(), "report missing.json").0, Some(7));
}

/// Each round is kept as it ends.
#[test]
fn what_was_measured_before_a_kill_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let all = "all --dir d --rounds 1000 --seconds 0.05 --scale 0.001 --contestants ourodb \
               --groups durable --json killed.json";
    let mut command = Command::new(env!("CARGO_BIN_EXE_ouro-compare"));
    command.args(all.split_whitespace()).current_dir(dir.path()).stderr(Stdio::null());
    // With the process that measures.
    command.process_group(0);
    let mut child = command.spawn().unwrap();
    let read = || -> Option<Value> {
        let text = std::fs::read_to_string(dir.path().join("killed.json")).ok()?;
        serde_json::from_str(&text).ok()
    };
    let first = loop {
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        if let Some(result) = read() {
            break result;
        }
        thread::sleep(Duration::from_millis(10));
    };
    let group = child.id();
    let signal = |signal: &str| {
        let line = format!("kill -{signal} -{group} 2>/dev/null");
        Command::new("sh").args(["-c", &line]).status().unwrap().success()
    };
    assert!(signal("KILL"));
    child.wait().unwrap();
    while signal("0") {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(first["partial"], true);
    // Three steps a round.
    assert_eq!(first["samples"].as_array().unwrap().len() % 3, 0);
}
