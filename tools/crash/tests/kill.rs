//! Short runs of `ouro-crash kill`: a sound engine passes, a lying one does not.
//! What needs a throttled disk, and so root, is not tested here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

fn kill(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ouro-crash"));
    command.args(["kill", "--throttled", "0"]).arg("--dir").arg(dir.join("databases"));
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
    for count in [
        "cycles_with_mappings",
        "cycles_with_tables",
        "cycles_with_flushes",
        "cycles_with_compactions",
        "wal_segments_max",
        "gets_judged",
        "scans_judged",
        "second_openers",
    ] {
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
        command
            .args(["kill", "--cycles", "100000", "--throttled", "0"])
            .env("TMPDIR", place.path());
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

/// A planted bug must show in so many cycles; most show in the first few.
const CAUGHT_WITHIN: &str = "100";

/// What is said of a key whose writes are there in another way than promised.
const MISSING: &str = " are there, and operation ";
const NO_PREFIX: &str = "; what is there is no prefix of the client's writes to this WAL stream";
const IN_PART: &str = "; the operation in flight at the kill is there in part";

/// The writes around a torn one decide which of them it is.
const TORN: &[&str] = &[IN_PART, NO_PREFIX, MISSING];

/// What is said of a read beside the writes.
const READ: &[&str] = &["no number of them leaves what was found"];

/// Each planted bug, the durability of writes that shows it, and what may be said.
const PLANTS: [(&str, &str, &[&str]); 22] = [
    ("ack-before-write", "durable", &[MISSING]),
    ("ack-before-write", "process-safe", &[MISSING]),
    ("split-batch", "durable", TORN),
    ("split-batch", "relaxed:100ms", TORN),
    ("cut-batch", "durable", TORN),
    ("skip-delete", "durable", &[MISSING, NO_PREFIX]),
    ("skip-delete-range", "durable", &[MISSING, NO_PREFIX]),
    ("cut-delete-range", "durable", TORN),
    ("split-delete-range", "durable", TORN),
    ("skip-relaxed", "relaxed:100ms", &[MISSING, NO_PREFIX]),
    ("forget-relaxed", "relaxed:1ms", &[MISSING]),
    // What is not due is kept by a close alone.
    ("forget-relaxed", "relaxed:60s", &[MISSING]),
    // Needs power cuts.
    ("durable-as-process-safe", "", &[]),
    ("get-nothing", "mixed", READ),
    ("get-stale", "mixed", READ),
    ("scan-skips-row", "mixed", READ),
    ("scan-swaps-rows", "mixed", &["a scan is out of order"]),
    ("scan-mixes-values", "mixed", READ),
    ("scan-two-moments", "mixed", READ),
    ("ignore-lock", "mixed", &["a second process opened the database"]),
    ("meddle", "mixed", &["found the database locked, and changed"]),
    // Needs a throttled disk, as root has it: `.ci/run` has this one caught.
    ("impatient", "", &[]),
];

#[test]
fn every_planted_bug_is_caught_and_what_it_left_is_kept() {
    for (plant, durability, said) in PLANTS.into_iter().filter(|(_, _, said)| !said.is_empty()) {
        let place = place();
        let flags = ["--cycles", CAUGHT_WITHIN, "--seed", "5", "--durability", durability];
        let run = kill(place.path(), &[&flags[..], &["--plant", plant]].concat());
        let stdout = String::from_utf8(run.stdout).unwrap();
        let all = format!("{plant}: {stdout}{}", String::from_utf8_lossy(&run.stderr));
        assert_eq!(run.status.code(), Some(1), "{all}");
        assert!(said.iter().any(|said| all.contains(said)), "{all}");
        assert!(stdout.contains("\nreplay: ouro-crash kill --seed 5 --cycles "), "{all}");
        let setup = format!(" --clients 4 --io ring --durability {durability}\n");
        assert!(stdout.contains(&setup), "{all}");
        assert!(stdout.contains("\nfailed in cycle "), "{all}");
        assert!(!stdout.contains("ok:"), "{all}");
        assert!(report(place.path())["failure"].as_str().unwrap().starts_with("cycle "));
        let left = std::fs::read_dir(place.path().join("databases")).unwrap().count();
        assert_eq!(left, 1, "{plant}: the failed database was not kept");
    }
}

#[test]
fn no_planted_bug_is_forgotten() {
    let run = kill(place().path(), &["--plant", "?"]);
    let stderr = String::from_utf8(run.stderr).unwrap();
    let (_, known) = stderr.split_once("possible values: ").unwrap();
    let (known, _) = known.split_once(']').unwrap();
    let mut tested: Vec<&str> = PLANTS.iter().map(|(plant, ..)| *plant).collect();
    tested.dedup();
    assert_eq!(known.split(", ").collect::<Vec<_>>(), tested);
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
