//! Ctrl-C and SIGTERM: a partial result, a closed database, exit code 130 or 143.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

fn bench(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ouro-bench"));
    command.args(arguments).current_dir(dir).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Sends Ctrl-C once, and waits for the process to end.
fn interrupt(child: Child) -> Output {
    end_by(child, Signal::INT)
}

fn end_by(child: Child, signal: Signal) -> Output {
    let pid = Pid::from_child(&child);
    kill_process(pid, signal).unwrap();
    child.wait_with_output().unwrap()
}

/// CPU time of the process's first client, in hundredths of a second: after a
/// few of them it has done many operations.
fn client_ticks(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    let stats =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok());
    // `tid (name) state …`: user and system time are fields 14 and 15, see
    // proc_pid_stat(5).
    let ticks = stats.filter_map(|stat| {
        let fields: Vec<_> = stat.split_once("(client-0) ")?.1.split(' ').collect();
        Some(fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?)
    });
    ticks.sum()
}

fn wait_for(condition: impl Fn() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_interrupted_run_prints_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let load = ["load", "--dir", "db", "--records", "200", "--clients", "4", "--memory", "64MiB"];
    assert!(bench(dir.path(), &load).output().unwrap().status.success());
    let run = ["run", "--dir", "db", "--workload", "c", "--seconds", "3600", "--memory", "64MiB"];
    let (int, term) = ((Signal::INT, 130), (Signal::TERM, 143));
    let warm_up = &["--warm-up", "3600"][..];
    let search = &["--find-max", "p99<1ns"][..];
    for (more, (signal, code)) in
        [(&[][..], int), (&["--rate", "1"], int), (&[], term), (warm_up, int), (search, int)]
    {
        // The result file is made once the signal is listened for.
        let result = dir.path().join("result.json");
        let child = bench(dir.path(), &run).args(more).args(["--json", "result.json"]).spawn();
        let child = child.unwrap();
        wait_for(|| result.exists());
        let output = end_by(child, signal);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains("PARTIAL"), "{text}");
        let json = fs::read_to_string(&result).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["partial"], true);
        fs::remove_file(result).unwrap();
    }
    let run = ["run", "--dir", "db", "--workload", "c", "--seconds", "0.1", "--memory", "64MiB"];
    assert!(bench(dir.path(), &run).output().unwrap().status.success());
}

/// Whether a process has an io_uring.
fn has_ring(pid: u32) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.any(|target| target.to_string_lossy().contains("io_uring"))
}

/// Where io_uring is forbidden, the first look works with the flag.
#[test]
fn the_first_look_uses_the_io_that_it_is_told() {
    for (arguments, ring) in [(&[][..], true), (&["--io", "blocking"], false)] {
        let dir = tempfile::tempdir().unwrap();
        let child = bench(dir.path(), arguments).spawn().unwrap();
        wait_for(|| client_ticks(child.id()) > 0);
        let found = has_ring(child.id());
        let output = interrupt(child);
        assert_eq!(output.status.code(), Some(130));
        assert!(String::from_utf8(output.stdout).unwrap().contains("PARTIAL"));
        assert_eq!(found, ring, "{arguments:?}");
    }
}

#[test]
fn what_an_interrupted_load_has_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let load = ["load", "--dir", "db", "--records", "20000000", "--memory", "64MiB"];
    let child = bench(dir.path(), &load).spawn().unwrap();
    wait_for(|| client_ticks(child.id()) >= 5);
    let output = interrupt(child);
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8(output.stdout).unwrap().contains("PARTIAL"));
    let marker = fs::read_to_string(dir.path().join("db/ouro-bench.json")).unwrap();
    let marker: serde_json::Value = serde_json::from_str(&marker).unwrap();
    assert!((1..20_000_000).contains(&marker["records"].as_u64().unwrap()), "{marker}");
    let run = ["run", "--dir", "db", "--workload", "c", "--seconds", "0.1", "--memory", "64MiB"];
    assert!(bench(dir.path(), &run).output().unwrap().status.success());
}

/// A database for runs.
fn loaded(dir: &Path) {
    let load = ["load", "--dir", "db", "--records", "300", "--memory", "64MiB"];
    assert!(bench(dir, &load).output().unwrap().status.success());
}

#[test]
fn who_waits_for_another_process_says_so_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    loaded(dir.path());
    let lock = fs::File::options().write(true).open(dir.path().join("db/LOCK")).unwrap();
    lock.lock().unwrap();
    let run = ["run", "--dir", "db", "--workload", "c", "--lock-wait", "1h"];
    let load = ["load", "--dir", "db", "--records", "9", "--overwrite", "--lock-wait", "1h"];
    for command in [&run[..], &load] {
        let mut child = bench(dir.path(), command).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        // Debug builds say first that they are.
        assert!(stderr.any(|line| line.unwrap().contains("waiting for it for 1h")), "{command:?}");
        assert_eq!(interrupt(child).status.code(), Some(130), "{command:?}");
    }
}

#[test]
fn a_run_that_never_began_says_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    loaded(dir.path());
    let run = ["run", "--dir", "db", "--workload", "a", "--warm-up", "3600", "--json", "run.json"];
    let child = bench(dir.path(), &run).spawn().unwrap();
    wait_for(|| client_ticks(child.id()) >= 5);
    let output = interrupt(child);
    assert_eq!(output.status.code(), Some(130));
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("cut short while warming up, and nothing was measured"), "{text}");
    let json = fs::read_to_string(dir.path().join("run.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["partial"], &json["result"]["ops"]), (&true.into(), &0.into()));
    assert_eq!(json["result"]["records"], 300);
    // The database is sound, and as it was.
    let run = ["run", "--dir", "db", "--workload", "c", "--seconds", "0.1"];
    assert!(bench(dir.path(), &run).output().unwrap().status.success());
}
