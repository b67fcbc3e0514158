//! `device` from the outside: what it measures, what it refuses, what it leaves; and what
//! runs make of its result.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_ouro-bench");

/// `device` on a short file in the directory `disk` of `dir`, for moments.
fn device(dir: &Path, more: &[&str]) -> Command {
    let disk = dir.join("disk");
    fs::create_dir_all(&disk).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["device", "--dir", "disk", "--bytes", "4MiB"]).args(more).current_dir(dir);
    if !more.contains(&"--seconds") {
        command.args(["--seconds", "0.005"]);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    stdout
}

/// Asserts the exit code, and that stderr holds the words; stdout stays empty.
#[track_caller]
fn refused(output: &Output, code: i32, words: &str) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
    assert!(stderr.contains(words), "{stderr}");
    assert_eq!(stdout, "");
}

#[track_caller]
fn assert_nothing_left(dir: &Path) {
    let left: Vec<_> = fs::read_dir(dir.join("disk")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_operation_is_measured_at_every_depth_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let printed = done(&device(dir.path(), &["--json", "device.json"]).output().unwrap());
    for words in ["random read", "seq. read", "seq. write", "durable write", "4 MiB", "CPU/op"] {
        assert!(printed.contains(words), "{printed}");
    }
    for line in printed.lines() {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
    assert_nothing_left(dir.path());

    let report = json(&dir.path().join("device.json"));
    assert_eq!(report["format"], 1);
    assert_eq!(report["command"], "device");
    assert_eq!(report["partial"], false);
    assert_eq!(report["config"]["file_bytes"], 4 << 20);
    assert_eq!(report["config"]["seconds_per_test"], 0.005);
    let tests = report["result"]["tests"].as_array().unwrap();
    let of = |operation: &str, io: &str| -> Vec<u64> {
        let tests = tests.iter().filter(|test| test["operation"] == operation && test["io"] == io);
        tests.map(|test| test["depth"].as_u64().unwrap()).collect()
    };
    for io in ["ring", "blocking"] {
        assert_eq!(of("random-read", io), [1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(of("sequential-read", io), [4]);
        assert_eq!(of("sequential-write", io), [4]);
        assert_eq!(of("durable-write", io), [1, 4, 16]);
    }
    for test in tests {
        assert!(test["ops"].as_u64().unwrap() > 0, "{test}");
        let rate = test["ops_per_s"].as_f64().unwrap();
        let bytes = test["request_bytes"].as_f64().unwrap();
        assert!((test["bytes_per_s"].as_f64().unwrap() / (rate * bytes) - 1.0).abs() < 1e-9);
        assert!(test["cpu_ns_per_op"].as_f64().unwrap() > 0.0, "{test}");
        let latency = ["min", "p50", "p99", "p99_9", "max"];
        let latency = latency.map(|name| test["latency_ns"][name].as_u64().unwrap());
        assert!(latency.is_sorted() && latency[0] > 0, "{test}");
    }
}

#[test]
fn what_is_measured_can_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--io", "blocking", "--operation", "durable-write,random-read", "--depth", "3,1"];
    let output = device(dir.path(), &more).args(["--json", "-"]).output().unwrap();
    let report: Value = serde_json::from_str(&done(&output)).unwrap();
    assert!(text(&output.stderr).contains("durable write"), "the table goes to stderr");
    let tests = report["result"]["tests"].as_array().unwrap().iter();
    let tests: Vec<_> =
        tests.map(|test| [&test["operation"], &test["io"], &test["depth"]]).collect();
    let expected =
        [("durable-write", 3), ("durable-write", 1), ("random-read", 3), ("random-read", 1)];
    let expected = expected.map(|(operation, depth)| {
        [Value::from(operation), Value::from("blocking"), Value::from(depth)]
    });
    assert_eq!(tests.len(), expected.len());
    for (found, expected) in tests.into_iter().zip(&expected) {
        assert_eq!(found, expected.each_ref());
    }
}

#[test]
fn wrong_flags_exit_with_2_and_say_why() {
    let dir = tempfile::tempdir().unwrap();
    for (more, words) in [
        (&["--bytes", "1MiB"][..], "4 MiB"),
        (&["--bytes", "many"], "a size is"),
        (&["--depth", "0"], "from 1 to 128"),
        (&["--depth", "1,129"], "from 1 to 128"),
        (&["--operation", "erase"], "random-read"),
        (&["--io", "mmap"], "blocking"),
        (&["--seconds", "0"], "number of seconds"),
        (&["--clients", "1"], "--clients"),
    ] {
        let mut command = Command::new(BINARY);
        let output = command.args(["device", "--dir", "."]).args(more).current_dir(dir.path());
        refused(&output.output().unwrap(), 2, words);
    }
    refused(&Command::new(BINARY).arg("device").output().unwrap(), 2, "--dir");
    fs::write(dir.path().join("file"), "").unwrap();
    for (at, words) in [("none", "there is no directory none"), ("file", "is not a directory")] {
        let mut command = Command::new(BINARY);
        let output = command.args(["device", "--dir", at]).current_dir(dir.path()).output();
        refused(&output.unwrap(), 2, words);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_for_which_there_is_no_room_exits_with_5() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("disk")).unwrap();
    let arguments = ["device", "--dir", "disk", "--bytes", "4000000GiB"];
    let output = Command::new(BINARY).args(arguments).current_dir(dir.path()).output();
    refused(&output.unwrap(), 5, "choose a shorter one (--bytes)");
    let script = "ulimit -f 2000 && exec \"$0\" device --dir disk --bytes 4MiB";
    let mut shell = Command::new("bash");
    let output = shell.args(["-c", script, BINARY]).current_dir(dir.path()).output();
    refused(&output.unwrap(), 5, "ulimit -f");
    assert_nothing_left(dir.path());
}

#[test]
fn a_file_system_without_direct_io_exits_with_6() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("disk")).unwrap();
    // Only there is the mount seen, and it ends with the command.
    let script = "mount -t ramfs ramfs disk || exit 99
        \"$0\" device --dir disk --bytes 4MiB; code=$?
        ls disk; exit $code";
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, BINARY]);
    let output = unshare.current_dir(dir.path()).output().unwrap();
    if text(&output.stderr).contains("unshare") || output.status.code() == Some(99) {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    refused(&output, 6, "refuses O_DIRECT");
}

#[test]
fn where_rings_are_forbidden_threads_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    let forbidden = |more: &[&str]| {
        let mut command = device(dir.path(), &[&["--depth", "2"], more].concat());
        // A filter holds for its thread, and for the processes that this starts.
        let run = move || {
            forbid_rings();
            command.output().unwrap()
        };
        thread::spawn(run).join().unwrap()
    };
    refused(&forbidden(&["--io", "ring"]), 6, "io_uring is forbidden here");
    assert_nothing_left(dir.path());
    done(&forbidden(&["--io", "blocking"]));
    let output = forbidden(&[]);
    let printed = done(&output);
    assert!(!printed.contains(" ring ") && printed.matches(" blocking ").count() == 4, "{printed}");
    let warnings = text(&output.stderr);
    assert_eq!(warnings.matches("measured without a ring").count(), 1, "{warnings}");
}

fn forbid_rings() {
    // io_uring_setup, on all architectures.
    let rules = [(425, Vec::new())].into();
    // EPERM.
    let (allow, forbid) = (SeccompAction::Allow, SeccompAction::Errno(1));
    let arch = std::env::consts::ARCH.try_into().expect("a known architecture");
    let filter = SeccompFilter::new(rules, allow, forbid, arch).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// Whether a process has a file open that has no name.
fn has_nameless_file(pid: u32) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.any(|target| {
        let target = target.to_string_lossy().into_owned();
        target.contains("ouro-bench-device") && target.ends_with("(deleted)")
    })
}

#[test]
fn ctrl_c_prints_what_there_is_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (signal, code) in
        [(Signal::INT, Some(130)), (Signal::TERM, Some(143)), (Signal::KILL, None)]
    {
        let mut command = device(dir.path(), &["--seconds", "3600", "--json", "device.json"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while !has_nameless_file(child.id()) {
            thread::sleep(Duration::from_millis(2));
        }
        assert_nothing_left(dir.path());
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), code, "{}", text(&output.stderr));
        assert_nothing_left(dir.path());
        if code.is_some() {
            assert!(text(&output.stdout).contains("PARTIAL"));
            assert_eq!(json(&dir.path().join("device.json"))["partial"], true);
        }
    }
}

#[test]
fn reports_say_what_share_of_the_device_was_used() {
    let dir = tempfile::tempdir().unwrap();
    done(&device(dir.path(), &["--json", "device.json"]).output().unwrap());
    let load = |more: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["load", "--dir", "db", "--records", "50", "--overwrite"]);
        command.args(["--memory", "64MiB", "--durability", "durable", "--json", "load.json"]);
        command.args(more).current_dir(dir.path());
        command
    };
    let share = || json(&dir.path().join("load.json"))["result"]["device_share"].clone();
    assert!(!done(&load(&[]).output().unwrap()).contains("what the disk can do"));
    assert_eq!(share(), Value::Null);

    let mut by_variable = load(&[]);
    by_variable.env("OURO_BENCH_DEVICE", "device.json");
    for mut command in [load(&["--device", "device.json"]), by_variable] {
        let printed = done(&command.output().unwrap());
        assert!(printed.contains("what the disk can do"), "{printed}");
        let durable = &share()["durable_writes_per_s"];
        assert_eq!((&durable["io"], &durable["depth"]), (&"blocking".into(), &1.into()));
        let value = |name: &str| durable[name].as_f64().unwrap();
        assert!(value("engine") > 0.0 && value("device") > 0.0);
        assert!((value("share") * value("device") / value("engine") - 1.0).abs() < 1e-9);
        assert!(share()["bytes_written_per_s"]["share"].as_f64().unwrap() > 0.0);
    }

    fs::copy(dir.path().join("load.json"), dir.path().join("other.json")).unwrap();
    fs::write(dir.path().join("text.json"), "{").unwrap();
    let changed = |file: &str, at: &str, value: Value| {
        let mut report = json(&dir.path().join("device.json"));
        *report.pointer_mut(at).unwrap() = value;
        fs::write(dir.path().join(file), report.to_string()).unwrap();
    };
    changed("elsewhere.json", "/machine/device", "nvme9n9".into());
    changed("newer.json", "/format", 2.into());
    changed("less.json", "/result", Value::Null);
    for (file, code, words) in [
        ("none.json", 7, "cannot read none.json"),
        ("other.json", 2, "is not a result of `ouro-bench device`"),
        ("text.json", 2, "is not a result of `ouro-bench device`"),
        ("less.json", 2, "is not a result of `ouro-bench device`"),
        ("elsewhere.json", 2, "on nvme9n9, and the database is on"),
        ("newer.json", 6, "is of format 2"),
    ] {
        refused(&load(&["--device", file]).output().unwrap(), code, words);
        let by_variable = load(&[]).env("OURO_BENCH_DEVICE", file).output().unwrap();
        refused(&by_variable, code, words);
        refused(&by_variable, code, "ouro-bench: OURO_BENCH_DEVICE: ");
    }
    // Set to nothing it is not set.
    done(&load(&[]).env("OURO_BENCH_DEVICE", "").output().unwrap());
    assert_eq!(share(), Value::Null);
}
