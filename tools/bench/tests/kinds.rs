//! The kinds of clients from the outside: each loads, runs every workload,
//! verifies, and ends with Ctrl-C.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const KINDS: [(&str, &str, &str); 5] = [
    ("thread", "3", "1"),
    ("task", "1", "1"),
    ("task", "3", "8"),
    ("owner", "1", "16"),
    ("owner", "5", "2"),
];
const RECORDS: u64 = 500;

fn command(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ouro-bench"));
    command.args(line.split_whitespace()).current_dir(dir);
    command
}

fn bench(dir: &Path, line: &str) -> Output {
    command(dir, line).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Asserts success; the result of a command with `--json -`.
#[track_caller]
fn result(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn flags((kind, clients, depth): (&str, &str, &str)) -> String {
    format!(
        "--dir db --memory 64MiB --owners 2 --client-kind {kind} --clients {clients} --depth \
         {depth} --json -"
    )
}

fn load(dir: &Path, kind: (&str, &str, &str)) -> Value {
    let line = format!(
        "load {} --overwrite --records {RECORDS} --value-bytes 100 --shards 4",
        flags(kind)
    );
    result(&bench(dir, &line))
}

#[test]
fn each_kind_loads_and_runs_every_workload() {
    let dir = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let loaded = load(dir.path(), kind);
        let config = &loaded["config"];
        assert_eq!(config["client_kind"], kind.0);
        assert_eq!(config["depth"].to_string(), kind.2);
        // One on each owner at least.
        let clients = if kind == ("owner", "1", "16") { "2" } else { kind.1 };
        assert_eq!(config["clients"].to_string(), clients);
        assert_eq!(loaded["result"]["operations"]["insert"]["ops"], RECORDS);
        assert_eq!(loaded["result"]["records"], RECORDS);
        for (workload, kinds) in [
            ("a", &["read", "update"][..]),
            ("d", &["insert", "read"]),
            ("e", &["insert", "scan"]),
            ("f", &["read", "read_modify_write"]),
            ("get-zipfian", &["read"]),
            ("get-uniform", &["read"]),
            ("get-absent", &["read"]),
            ("scan", &["scan"]),
            ("read-while-writing", &["read", "update"]),
            ("multi-get", &["multi_get"]),
            ("delete-heavy", &["delete", "read", "update"]),
            ("range-delete", &["delete_range", "read", "update"]),
            ("scan-mixed", &["read", "scan", "update"]),
        ] {
            let line = format!("run {} --workload {workload} --seconds 0.2", flags(kind));
            let run = result(&bench(dir.path(), &line));
            assert_eq!(run["config"]["clients"].to_string(), kind.1);
            let operations = run["result"]["operations"].as_object().unwrap();
            assert!(operations.keys().eq(kinds.iter()), "{kind:?} {workload}");
            let ops = operations.values().map(|operation| operation["ops"].as_u64().unwrap());
            let ops = ops.sum::<u64>();
            assert!(ops > 0, "{kind:?} {workload}");
            assert_eq!(run["result"]["ops"], ops);
            assert_eq!(run["result"]["wrong_reads"], 0);
        }
    }
}

/// What one kind inserted, the others find.
#[test]
fn inserted_records_are_there_for_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path(), KINDS[0]);
    let mut records = RECORDS;
    for kind in KINDS {
        let line = format!("run {} --workload d --seconds 0.2", flags(kind));
        let run = result(&bench(dir.path(), &line))["result"].take();
        let inserted = run["operations"]["insert"]["ops"].as_u64().unwrap();
        let now = run["records"].as_u64().unwrap();
        // Owners do not fill up each other's gaps.
        let counted = if kind.0 == "owner" { 0..=inserted } else { inserted..=inserted };
        assert!(inserted > 0 && counted.contains(&(now - records)), "{kind:?}: {inserted} {now}");
        records = now;
        let line =
            format!("run {} --workload get-uniform --seconds 0.1", flags(("task", "2", "4")));
        assert_eq!(result(&bench(dir.path(), &line))["config"]["records"], records);
    }
}

#[test]
fn the_open_loop_sends_what_is_due() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path(), KINDS[0]);
    for kind in KINDS {
        let line = format!("run {} --workload f --seconds 0.5 --rate 200", flags(kind));
        let run = result(&bench(dir.path(), &line));
        assert_eq!(run["config"]["loop"], "open");
        let result = &run["result"];
        let ops = result["ops"].as_u64().unwrap() + result["unsent_ops"].as_u64().unwrap();
        assert_eq!(ops, 100, "{kind:?}");
    }
}

#[test]
fn wrong_reads_are_counted_and_exit_with_7() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path(), KINDS[0]);
    let marker = dir.path().join("db/ouro-bench.json");
    let mut wrong: Value = serde_json::from_slice(&fs::read(&marker).unwrap()).unwrap();
    wrong["value_bytes"] = 101.into();
    fs::write(&marker, wrong.to_string()).unwrap();
    for kind in KINDS {
        for workload in ["c", "scan"] {
            let line = format!("run {} --workload {workload} --seconds 0.1", flags(kind));
            let output = bench(dir.path(), &line);
            assert_eq!(output.status.code(), Some(7));
            let result: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(result["result"]["wrong_reads"], result["result"]["ops"]);
        }
    }
}

#[test]
fn an_interrupted_run_prints_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path(), KINDS[0]);
    for kind in &KINDS[1..] {
        for more in ["", "--rate 1"] {
            // The result file is made once the signal is listened for.
            let file = dir.path().join("result.json");
            let flags = flags(*kind).replace("--json -", "--json result.json");
            let line = format!("run {flags} --workload a --seconds 3600 {more}");
            let mut child = command(dir.path(), &line);
            let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            while !file.exists() {
                thread::sleep(Duration::from_millis(5));
            }
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
            assert!(text(&output.stdout).contains("PARTIAL"));
            let result: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            assert_eq!(result["partial"], true);
            fs::remove_file(file).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (line, words) in [
        ("load --dir d --depth 2", "has 1 in flight"),
        ("load --dir d --client-kind thread --depth 16", "task or owner"),
        ("load --dir d --client-kind task --depth 4097", "at most 4096"),
        ("load --dir d --client-kind task --depth 4096 --clients 17", "at most 65536"),
        ("load --dir d --spin 20", "a time such as 10s"),
        ("load --dir d --requests-max 0", "at least 1"),
    ] {
        let output = bench(dir.path(), line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
        assert!(!dir.path().join("d").exists(), "{line}");
    }
    load(dir.path(), KINDS[0]);
    for (flags, words) in [
        ("--client-kind owner --requests-max 8 --clients 8", "a higher --requests-max"),
        ("--requests-max 65537", "65536"),
    ] {
        let line = format!("run --dir db --workload c --memory 64MiB --owners 2 {flags}");
        let output = bench(dir.path(), &line);
        assert_eq!(output.status.code(), Some(2), "{flags}");
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
}

#[test]
fn options_of_owners_are_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path(), KINDS[0]);
    let options = "--workload c --seconds 0.1 --spin 20us --requests-max 16";
    for kind in KINDS {
        let run = result(&bench(dir.path(), &format!("run {} {options}", flags(kind))));
        assert_eq!(run["config"]["spin_ns"], 20_000);
        assert_eq!(run["config"]["requests_max"], 16);
    }
}
