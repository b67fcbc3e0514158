//! `load`: what it writes, and what it refuses.

use std::fs;
use std::process::{Command, Output};

use super::{LOAD, bench, done, json, load, refused, run, stderr, stdout};

#[test]
fn values_have_the_lengths_that_were_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let sizes =
        ["--key-bytes", "20..60", "--value-bytes", "80%:100,20%:70KiB", "--compressible", "0.9"];
    done(&bench(dir.path(), &[&LOAD[..5], &sizes[..], &["--memory", "64MiB"]].concat()));
    for workload in ["a", "f", "scan", "multi-get"] {
        let result = json(&done(&run(dir.path(), workload, &["--json", "-"])));
        assert_eq!(result["config"]["value_sizes"], "80%:100,20%:71680");
        assert_eq!(result["config"]["compressible"], 0.9);
        assert_eq!(result["config"]["key_sizes"], "20..60");
        assert_eq!(result["result"]["wrong_reads"], 0);
    }
    let full = bench(dir.path(), &["load", "--dir", "full", "--records", "1000000000000000"]);
    refused(&full, 5, "are free");
    assert!(!dir.path().join("full").exists());
}

#[test]
fn every_durability_loads_and_runs() {
    for durability in ["durable", "process-safe", "relaxed:100ms"] {
        let dir = tempfile::tempdir().unwrap();
        let flags = ["--durability", durability, "--json", "-"];
        let loaded = json(&done(&bench(dir.path(), &[&LOAD[..], &flags].concat())));
        let ran = json(&done(&run(dir.path(), "a", &flags)));
        for result in [&loaded, &ran] {
            assert_eq!(result["config"]["durability"], durability);
            assert_eq!(result["result"]["wrong_reads"], 0);
        }
    }
    // With one client, each durable write is one of the device's.
    let dir = tempfile::tempdir().unwrap();
    let one = ["--clients", "1", "--durability", "durable", "--json", "-"];
    let flags = [&["load", "--dir", "db", "--records", "300"], &one[..]].concat();
    let loaded = json(&done(&bench(dir.path(), &flags)));
    assert!(loaded["result"]["device"]["writes"].as_u64().unwrap() >= 300, "{loaded}");
}

#[test]
fn only_a_load_of_its_own_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let without = &LOAD[..LOAD.len() - 1];
    done(&bench(dir.path(), without));
    refused(&bench(dir.path(), without), 2, "--overwrite");
    done(&bench(dir.path(), &LOAD));

    let note = dir.path().join("db/note.txt");
    fs::write(&note, "precious").unwrap();
    refused(&bench(dir.path(), &LOAD), 2, "note.txt");
    assert_eq!(fs::read(&note).unwrap(), b"precious");
    fs::remove_file(note).unwrap();
    done(&run(dir.path(), "c", &[]));

    fs::remove_file(dir.path().join("db/ouro-bench.json")).unwrap();
    refused(&bench(dir.path(), &LOAD), 2, "did not make");
    fs::write(dir.path().join("file"), "").unwrap();
    refused(&bench(dir.path(), &["load", "--dir", "file", "--overwrite"]), 2, "not a directory");
}

/// A load says how tables are compressed, and runs on it keep to that.
#[test]
fn the_compression_of_a_load_is_in_the_results() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    let compression = |output: &Output| {
        done(output);
        json(&stdout(output))["config"]["compression"].as_str().unwrap().to_owned()
    };
    assert_eq!(compression(&run(dir.path(), "c", &["--json", "-"])), "none");
    let with = |name: &str| {
        let mut arguments = LOAD.to_vec();
        arguments.extend(["--compression", name, "--json", "-"]);
        bench(dir.path(), &arguments)
    };
    assert_eq!(compression(&with("lz4")), "lz4");
    let output = run(dir.path(), "a", &["--json", "-"]);
    assert!(stderr(&output).contains("records of 24 + 100 bytes; lz4"), "{}", stderr(&output));
    assert_eq!(compression(&output), "lz4");
    // A marker of before there was a choice.
    let marker = dir.path().join("db/ouro-bench.json");
    let mut old = json(&fs::read_to_string(&marker).unwrap());
    old.as_object_mut().unwrap().remove("compression").unwrap();
    fs::write(&marker, old.to_string()).unwrap();
    assert_eq!(compression(&run(dir.path(), "c", &["--json", "-"])), "none");

    if cfg!(feature = "zstd") {
        assert_eq!(compression(&with("zstd")), "zstd");
    } else {
        refused(&with("zstd"), 6, "cargo feature `zstd`");
    }
    refused(&with("gzip"), 2, "none, lz4, or zstd");
}

#[test]
fn a_full_key_space_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [
        "load",
        "--dir",
        "db",
        "--records",
        "10000",
        "--key-bytes",
        "8",
        "--value-bytes",
        "0",
        "--clients",
        "16",
        "--memory",
        "64MiB",
    ];
    done(&bench(dir.path(), &arguments));
    refused(&run(dir.path(), "get-absent", &[]), 2, "no absent keys");
    // Ends as soon as every client wants to insert.
    let output = run(dir.path(), "d", &["--seconds", "3600"]);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(stderr(&output).contains("--key-bytes"));
    assert!(stdout(&output).contains("PARTIAL"));
    done(&run(dir.path(), "c", &[]));
}

/// The system would end the process with a signal.
#[test]
fn a_limit_on_the_size_of_files_exits_with_5() {
    let dir = tempfile::tempdir().unwrap();
    let mut shell = Command::new("bash");
    let script = "ulimit -f 100 && exec \"$0\" load --dir db --records 100 --memory 64MiB";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_ouro-bench")]).current_dir(dir.path());
    refused(&shell.output().unwrap(), 5, "ulimit -f");
    assert!(!dir.path().join("db").exists());
}

/// A load that cannot be leaves nothing, and an earlier load alone.
#[test]
fn a_load_that_does_not_begin_leaves_what_there_was() {
    let dir = tempfile::tempdir().unwrap();
    let load_with = |more: &[&str]| {
        let fixed = ["load", "--dir", "new", "--records", "300"];
        bench(dir.path(), &[&fixed[..], more].concat())
    };
    // The second one is refused when the memory is asked for.
    let mut all = vec![(&["--shards", "5000"], 2), (&["--memory", "400000GiB"], 2)];
    if !cfg!(feature = "zstd") {
        all.push((&["--compression", "zstd"], 6));
    }
    load(dir.path());
    for (more, code) in all {
        refused(&load_with(more), code, "cannot open the database");
        assert!(!dir.path().join("new").exists(), "{more:?}");
        if more[0] != "--memory" {
            refused(&bench(dir.path(), &[&LOAD[..], more].concat()), code, "cannot open");
            done(&run(dir.path(), "c", &[]));
        }
    }
    done(&load_with(&[]));
}
