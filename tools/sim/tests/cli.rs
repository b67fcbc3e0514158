//! What people meet who run seeds: what is refused, and a record that goes on where
//! an interrupted run left it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn sim(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ouro-sim"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = sim(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Waits until the process listens to signals: to SIGTERM last.
fn wait_until_it_listens(child: &Child) {
    let caught = |line: &str| u64::from_str_radix(line.trim(), 16).unwrap();
    let status = format!("/proc/{}/status", child.id());
    let sigterm = 1 << (Signal::TERM.as_raw() - 1);
    loop {
        let status = fs::read_to_string(&status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        if caught(line) & sigterm != 0 {
            return;
        }
        std::thread::yield_now();
    }
}

/// How many seeds the last line says are on record.
fn on_record(stdout: &str) -> u64 {
    let line = stdout.lines().find_map(|line| line.strip_prefix("on record: ")).unwrap();
    line.split_once(' ').unwrap().0.parse().unwrap()
}

#[test]
fn ranges_without_seeds_are_refused() {
    for range in ["5..5", "9..3", "7", "a..9", "0..", "-1..4"] {
        let (code, stdout, stderr) = run(&["--seeds", range]);
        assert_eq!((code, &stdout[..]), (2, ""), "{range}: {stderr}");
        assert!(stderr.contains(range) || stderr.contains("unexpected argument"), "{stderr}");
    }
}

#[test]
fn a_file_that_is_no_record_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("record");
    let path = file.to_str().unwrap();
    let texts: [&[u8]; 4] =
        [b"{\"program\":\"ouro-sim\",\"format\":2}\n", b"a letter\n", b"\x01", b"\xff\xfe\n"];
    for text in texts {
        fs::write(&file, text).unwrap();
        let (code, _, stderr) = run(&["--seeds", "0..1", "--operations", "5", "--record", path]);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(path), "{stderr}");
        assert_eq!(fs::read(&file).unwrap(), text);
    }
    let (code, _, stderr) = run(&["--seeds", "0..1", "--operations", "5", "--record", "/dev/zero"]);
    assert!(code == 2 && stderr.contains("no file"), "{code}: {stderr}");
    let absent = Path::new("no/such/directory/record").to_str().unwrap();
    let (code, _, stderr) = run(&["--seeds", "0..1", "--operations", "5", "--record", absent]);
    assert!(code == 2 && stderr.contains(absent), "{code}: {stderr}");
}

#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record");
    let path = path.to_str().unwrap();
    let endless = ["--seeds", "0..1000000000", "--operations", "5", "--record", path];
    let child = sim(&endless).spawn().unwrap();
    wait_until_it_listens(&child);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(130));
    let done = on_record(&String::from_utf8(stdout).unwrap());

    let all = format!("0..{}", done + 20);
    let (code, stdout, _) = run(&["--seeds", &all, "--operations", "5", "--record", path]);
    assert_eq!(code, 0);
    assert_eq!(on_record(&stdout), done + 20);
    assert!(stdout.contains("20 seeds, 0 failed"), "{stdout}");
    let (code, stdout, _) = run(&["--seeds", &all, "--operations", "5", "--record", path]);
    assert!(code == 0 && stdout.contains("0 seeds, 0 failed"), "{stdout}");
    assert_eq!(on_record(&stdout), done + 20);
}

/// The seeds that are on record as failed, also for another manner.
#[test]
fn a_seed_that_failed_before_fails_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record");
    let run_to = |to: &str, operations: &str| {
        let seeds = format!("0..{to}");
        let path = path.to_str().unwrap();
        run(&["--seeds", &seeds, "--operations", operations, "--record", path])
    };
    let (code, stdout, _) = run_to("4", "5");
    assert_eq!((code, on_record(&stdout)), (0, 4), "{stdout}");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"failed\":[]", "\"failed\":[2]")).unwrap();
    let (code, stdout, _) = run_to("6", "5");
    assert_eq!((code, on_record(&stdout)), (1, 6), "{stdout}");
    assert!(stdout.contains("replay: ouro-sim --seed 2 --operations 5"), "{stdout}");
    let (code, stdout, _) = run_to("2", "5");
    assert_eq!(code, 0, "it is not among these: {stdout}");
    let (code, stdout, _) = run_to("6", "6");
    assert_eq!((code, on_record(&stdout)), (0, 6), "of another manner: {stdout}");
}

#[test]
fn a_sweep_of_nothing_is_refused() {
    let sweeps: [(&[&str], &str); 5] = [
        (&["fail", "--script", "new-database", "--kind", "io", "--k", "99999"], "new-database has"),
        (&["fail", "--pairs", "0"], "--pairs"),
        (&["fail", "--pairs", "1000000000"], "--pairs"),
        (&["damage", "--layout", "killed", "--file", "IDENTITY"], "/db/IDENTITY"),
        (&["--seed", "18446744073709551615"], "--seed"),
    ];
    for (arguments, expected) in sweeps {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, &stdout[..]), (2, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn an_interrupted_sweep_says_so() {
    let child = sim(&["fail", "--scripts", "20"]).spawn().unwrap();
    wait_until_it_listens(&child);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(130));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(stdout.contains(" runs, 0 failed"), "{stdout}");
    assert!(stderr.contains("interrupted"), "{stderr}");
}

#[cfg(feature = "planted")]
#[test]
fn every_planted_bug_is_caught() {
    let (code, stdout, stderr) = run(&["planted"]);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    let (code, _, stderr) = run(&["planted", "--bug", "NoSuchBug"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("it is one of "), "{stderr}");
}
