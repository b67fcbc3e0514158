//! The binary from the outside: flags, exit codes, streams, JSON.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

mod loads;
mod results;
mod runs;
mod soak;
mod workloads;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs the binary in `dir`.
fn bench(dir: &Path, arguments: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_ouro-bench");
    Command::new(binary).args(arguments).current_dir(dir).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Asserts success, and returns what it printed on stdout.
#[track_caller]
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

/// Asserts the exit code, and that stderr holds the words; stdout stays empty.
#[track_caller]
fn refused(output: &Output, code: i32, words: &str) {
    assert_eq!(output.status.code(), Some(code), "{}{}", stdout(output), stderr(output));
    assert!(stderr(output).contains(words), "{}", stderr(output));
    assert_eq!(stdout(output), "");
}

const LOAD: [&str; 12] = [
    "load",
    "--dir",
    "db",
    "--records",
    "300",
    "--value-bytes",
    "100",
    "--clients",
    "4",
    "--memory",
    "64MiB",
    "--overwrite",
];

fn load(dir: &Path) {
    done(&bench(dir, &LOAD));
}

fn run(dir: &Path, workload: &str, more: &[&str]) -> Output {
    let mut arguments =
        vec!["run", "--dir", "db", "--memory", "64MiB", "--clients", "2", "--workload", workload];
    if !more.contains(&"--seconds") {
        arguments.extend(["--seconds", "0.1"]);
    }
    arguments.extend(more);
    bench(dir, &arguments)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn wrong_flags_exit_with_2_and_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["frobnicate"], "unrecognized"),
        (&["load"], "--dir"),
        (&["run", "--dir", "db"], "--workload"),
        (&["run", "--workload", "a"], "--dir"),
        (&["run", "--dir", "db", "--workload", "z"], "read-while-writing"),
        (&["run", "--dir", "db", "--workload", "z"], "FILE.toml, TRACE.csv"),
        (&["run", "--dir", "db", "--workload", "foo.txt"], "FILE.toml, TRACE.csv"),
        (&["load", "--dir", "db", "--json", "-", "--html", "-"], "--html needs a file"),
        (&["load", "--dir", "db", "--hlog", "-"], "--hlog needs a file"),
        (&["run", "--dir", "db", "--workload", "a", "--rate", "0"], "--rate"),
        (&["run", "--dir", "db", "--workload", "a", "--seconds", "0"], "number of seconds"),
        (&["run", "--dir", "db", "--workload", "a", "--seconds", "soon"], "number of seconds"),
        (&["run", "--dir", "db", "--workload", "a", "--hdr", "x"], "--hdr"),
        (&["load", "--dir", "db", "--client-kind", "robot"], "thread, task, owner"),
        (&["load", "--dir", "db", "--depth", "2"], "task or owner"),
        (&["load", "--dir", "db", "--depth", "0"], "1 operation"),
        (&["load", "--dir", "db", "--durability", "relaxed"], "relaxed:100ms"),
        (&["load", "--dir", "db", "--durability", "relaxed:0ms"], "at least 1ms"),
        (&["load", "--dir", "db", "--durability", "never"], "process-safe"),
        (&["load", "--dir", "db", "--io", "mmap"], "ring"),
        (&["load", "--dir", "db", "--memory", "1MB"], "MiB"),
        (&["load", "--dir", "db", "--clients", "0"], "1 to 4096"),
        (&["load", "--dir", "db", "--owners", "0"], "at least 1"),
        (&["load", "--dir", "db", "--shards", "0"], "at least 1"),
        (&["load", "--dir", "db", "--lock-wait", "1"], "a time such as 10s"),
        (&["load", "--dir", "db", "--records", "0"], "from 1 to"),
        (&["load", "--dir", "db", "--records", "-1"], "from 1 to"),
        (&["load", "--dir", "db", "--records", "1e9"], "from 1 to"),
        (&["load", "--dir", "db", "--clients", "-1"], "1 to 4096"),
        (&["load", "--dir", "db", "--shards", "-1"], "at least 1"),
        (&["run", "--dir", "db", "--workload", "a", "--seconds", "-1"], "number of seconds"),
        (
            &["run", "--dir", "db", "--workload", "a", "--rate", "-1"],
            "a whole number such as 10000",
        ),
        (&["run", "--dir", "db", "--workload", "a", "--rate", "ramp:1"], "ramp:1000..50000"),
        (&["run", "--dir", "db", "--workload", "a", "--arrivals", "poisson"], "--rate"),
        (&["load", "--dir", "db", "--records", "10001", "--key-bytes", "8"], "10000"),
        (&["load", "--dir", "db", "--key-bytes", "7"], "--key-bytes"),
        (&["load", "--dir", "db", "--value-bytes", "2GiB"], "--value-bytes"),
        (&["load", "--dir", "db", "--value-bytes", "65MiB"], "a quarter of --memory"),
        (&["load", "--dir", "db", "--value-bytes", "90%:400,10%:65MiB"], "a quarter of --memory"),
        (&["load", "--dir", "db", "--value-bytes", "400..300"], "not shorter"),
        (&["load", "--dir", "db", "--value-bytes", "long"], "exponential:400"),
        (&["load", "--dir", "db", "--compressible", "2"], "0 to 1"),
    ];
    for (arguments, words) in cases {
        refused(&bench(dir.path(), arguments), 2, words);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a refused command left something");
}

#[test]
fn help_explains_and_gives_examples() {
    let dir = tempfile::tempdir().unwrap();
    let help = done(&bench(dir.path(), &["--help"]));
    for words in ["Examples:", "ouro-bench load --dir", "open", "Exit codes", "load", "run"] {
        assert!(help.contains(words), "{words}");
    }
    let help = done(&bench(dir.path(), &["run", "--help"]));
    for words in ["YCSB B: 95 % reads", "read-while-writing", "--rate", "256MiB", "open loop"] {
        assert!(help.contains(words), "{words}");
    }
    let version = done(&bench(dir.path(), &["--version"]));
    assert_eq!(version.trim(), concat!("ouro-bench ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_first_look_leaves_foreign_directories_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("ouro-bench-data")).unwrap();
    let note = dir.path().join("ouro-bench-data/note.txt");
    fs::write(&note, "precious").unwrap();
    let output = bench(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("note.txt"));
    assert_eq!(fs::read(&note).unwrap(), b"precious");
}

/// Without a command, a flag of the commands is taken: `--io`.
#[test]
fn the_first_look_takes_io_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("ouro-bench-data")).unwrap();
    fs::write(dir.path().join("ouro-bench-data/note.txt"), "precious").unwrap();
    let taken = bench(dir.path(), &["--io", "blocking"]);
    assert_eq!(taken.status.code(), Some(2), "{}", stderr(&taken));
    assert!(stderr(&taken).contains("note.txt"), "{}", stderr(&taken));
    refused(&bench(dir.path(), &["--io", "mmap"]), 2, "mmap");
    refused(&bench(dir.path(), &["--clients", "2"]), 2, "--clients");
    let load = ["--io", "blocking", "load", "--dir", "db", "--records", "10"];
    refused(&bench(dir.path(), &load), 2, "cannot be used with");
    assert!(!dir.path().join("db").exists());
}

#[test]
fn a_database_that_is_open_elsewhere_exits_with_4() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    let lock = fs::File::options().write(true).open(dir.path().join("db/LOCK")).unwrap();
    lock.lock().unwrap();
    refused(&run(dir.path(), "c", &["--lock-wait", "0s"]), 4, "");
    let mut arguments = LOAD.to_vec();
    arguments.extend(["--lock-wait", "0s"]);
    refused(&bench(dir.path(), &arguments), 4, "open");
    drop(lock);
    done(&run(dir.path(), "c", &[]));
}

/// What the engine refuses of the arguments is a usage error as well.
#[test]
fn a_memory_budget_too_small_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    let arguments = ["run", "--dir", "db", "--workload", "c", "--memory", "1MiB"];
    refused(&bench(dir.path(), &arguments), 2, "memory");
}

/// The engine needs more descriptors than the soft limit allows.
#[test]
fn the_soft_limit_of_descriptors_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let limited = |kind: &str| {
        let mut shell = Command::new("sh");
        let script = format!("ulimit {kind} -n 20 && exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_ouro-bench")]);
        shell.args(LOAD).args(["--shards", "64", "--io", "blocking"]);
        shell.current_dir(dir.path()).output().unwrap()
    };
    let refused = limited("");
    assert_eq!(refused.status.code(), Some(7), "{}", stderr(&refused));
    done(&limited("-S"));
}

#[test]
fn a_result_that_cannot_be_written_is_found_out_first() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    refused(&run(dir.path(), "c", &["--json", "none/x.json"]), 7, "none/x.json");
    refused(&run(dir.path(), "c", &["--json", "x", "--html", "x"]), 2, "two kinds of results");
    let mut arguments = LOAD.to_vec();
    arguments.extend(["--json", "none/x.json"]);
    refused(&bench(dir.path(), &arguments), 7, "none/x.json");
    done(&run(dir.path(), "c", &[]));
}
