//! Short runs of `ouro-crash kill`: a sound engine passes, a lying one does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

fn kill(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ouro-crash"));
    command.arg("kill").arg("--dir").arg(dir.join("databases"));
    command.arg("--report").arg(dir.join("report.json")).args(arguments);
    command.output().unwrap()
}

fn place() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn report(dir: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(dir.join("report.json")).unwrap()).unwrap()
}

#[test]
fn nothing_is_lost_in_thirty_cycles() {
    let place = place();
    let run = kill(place.path(), &["--cycles", "30", "--seed", "5"]);
    let (stdout, stderr) =
        (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert_eq!(run.status.code(), Some(0), "{stdout}{stderr}");
    let cycles = "cycles: 30 (9 durable, 3 mixed, 9 process-safe, 9 relaxed)\n";
    assert!(stdout.contains(cycles), "{stdout}");
    assert!(stdout.contains("\nwrites in flight, not written: "), "{stdout}");
    assert!(stdout.ends_with("\nok: every acknowledged write was found\n"), "{stdout}");
    assert_eq!(stderr, "");
    let report = report(place.path());
    assert_eq!(report["format"], 1);
    assert_eq!(report["cycles"], 30);
    assert_eq!(report["io"], "ring");
    assert_eq!(report["durability"], "all");
    assert_eq!(report["durabilities"]["process-safe"]["cycles"], 9);
    for count in ["cycles_with_mappings", "cycles_with_tables", "wal_segments_max"] {
        assert!(report[count].as_u64().unwrap() > 0, "{report}");
    }
    assert!(report["in_flight_written"].is_u64() && report["in_flight_not_written"].is_u64());
    assert!(report["cycles_with_writes_in_flight"].as_u64().unwrap() >= 15, "{report}");
    assert!(report["writes_acknowledged"].as_u64().unwrap() >= 30, "{report}");
    assert_eq!(report.get("failure"), None);
    let left = std::fs::read_dir(place.path().join("databases")).unwrap().count();
    assert_eq!(left, 0, "databases were left behind");
}

/// A service manager ends processes with SIGTERM.
#[test]
fn what_is_ended_early_leaves_nothing() {
    let place = place();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ouro-crash"));
        command.args(["kill", "--cycles", "100000"]).env("TMPDIR", place.path());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let entries =
            |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        // Once there is a database, signals are listened for.
        while !entries(place.path()).any(|dir| entries(&dir).next().is_some()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(entries(place.path()).next(), None);
    }
}

#[test]
fn one_durability_can_be_asked_for() {
    let place = place();
    for (durability, counted) in [("process-safe", "process-safe"), ("relaxed:1s", "relaxed")] {
        let run = kill(place.path(), &["--cycles", "2", "--durability", durability]);
        let stdout = String::from_utf8_lossy(&run.stdout);
        assert!(stdout.contains(&format!("cycles: 2 (2 {counted})\n")), "{stdout}");
        assert_eq!(report(place.path())["durability"], durability);
    }
    let run = kill(place.path(), &["--durability", "relaxed"]);
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stderr).contains("relaxed:100ms"));
}

/// A worker with a planted bug is caught; what it left is kept.
fn caught(plant: &str, durability: &str) {
    let place = place();
    let flags = ["--cycles", "200", "--seed", "5", "--durability", durability, "--plant", plant];
    let run = kill(place.path(), &flags);
    let stdout = String::from_utf8(run.stdout).unwrap();
    assert_eq!(run.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("\nreplay: ouro-crash kill --seed 5 --cycles "), "{stdout}");
    let setup = format!(" --clients 4 --io ring --durability {durability}\n");
    assert!(stdout.contains(&setup), "{stdout}");
    assert!(stdout.contains("\nfailed in cycle "), "{stdout}");
    assert!(!stdout.contains("ok:"), "{stdout}");
    assert!(report(place.path())["failure"].as_str().unwrap().contains("client"));
    let left = std::fs::read_dir(place.path().join("databases")).unwrap().count();
    assert_eq!(left, 1, "the failed database was not kept");
}

#[test]
fn a_write_acknowledged_too_early_is_caught() {
    for durability in ["durable", "process-safe"] {
        caught("ack-before-write", durability);
    }
}

#[test]
fn a_batch_that_is_not_atomic_is_caught() {
    for durability in ["durable", "relaxed:100ms"] {
        caught("split-batch", durability);
    }
}

#[test]
fn a_relaxed_write_missing_among_others_is_caught() {
    caught("skip-relaxed", "relaxed:100ms");
}

#[test]
fn relaxed_writes_that_are_never_made_are_caught() {
    caught("forget-relaxed", "relaxed:1ms");
}

#[test]
fn a_report_that_cannot_be_written_is_found_out_first() {
    let place = place();
    std::fs::create_dir(place.path().join("report.json")).unwrap();
    let run = kill(place.path(), &["--cycles", "1000000"]);
    assert_eq!(run.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&run.stderr).contains("report.json"));
    assert_eq!(run.stdout, b"");
}

#[test]
fn a_directory_in_use_is_left_alone() {
    let place = place();
    let precious = place.path().join("databases");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("file"), b"precious").unwrap();
    let run = kill(place.path(), &["--cycles", "1"]);
    assert_eq!(run.status.code(), Some(2));
    assert_eq!(std::fs::read(precious.join("file")).unwrap(), b"precious");
}
