//! `run`: on which data, how fast, and what it checks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::{done, json, load, refused, run, stderr, stdout};

#[test]
fn the_highest_rate_that_keeps_a_promise_is_found() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    let search = |promise: &str, more: &[&str]| {
        let flags = ["--seconds", "0.02", "--warm-up", "0.02", "--find-max", promise];
        let arguments = [&flags, more].concat();
        run(dir.path(), "a", &arguments)
    };
    let found = search("max<1h", &["--json", "found.json", "--arrivals", "poisson"]);
    done(&found);
    assert!(stdout(&found).contains("/s max<1h is kept:"), "{}", stdout(&found));
    let report = json(&fs::read_to_string(dir.path().join("found.json")).unwrap());
    let rate = report["result"]["find_max"]["rate_ops_per_s"].as_u64().unwrap();
    assert!(rate > 0 && report["config"]["rate_ops_per_s"] == rate);
    assert_eq!(report["result"]["find_max"]["is_complete"], true);
    assert!(report["config"]["warm_up_s"].as_f64().unwrap() > 0.0);
    let steps = report["result"]["find_max"]["steps"].as_array().unwrap();
    let at_rate = steps.iter().filter(|step| step["rate_ops_per_s"] == rate);
    assert!(at_rate.filter(|step| step["is_kept"] == true).count() >= 1, "{steps:?}");
    let nothing = search("max<1ns", &["--rate", "100", "--json", "nothing.json"]);
    assert_eq!(nothing.status.code(), Some(1), "{}", stderr(&nothing));
    // Each rate was tried again at once, and then a lower one.
    let report = json(&fs::read_to_string(dir.path().join("nothing.json")).unwrap());
    let steps = report["result"]["find_max"]["steps"].as_array().unwrap();
    let rates = steps.iter().map(|step| step["rate_ops_per_s"].as_u64().unwrap());
    let rates: Vec<u64> = rates.collect();
    assert!(rates.chunks(2).all(|pair| pair.len() == 2 && pair[0] == pair[1]), "{rates:?}");
    assert_eq!((rates[0], rates.last()), (100, Some(&1)));
    assert!(stderr(&nothing).contains("no rate keeps the promise max<1ns"), "{}", stderr(&nothing));
    refused(&search("p98<1ms", &[]), 2, "p99.9<2ms");
    refused(&search("scan p99<1ms", &[]), 2, "no operation scan");
    refused(&search("p99<1ms", &["--rate", "ramp:1..5"]), 2, "constant --rate");
}

/// Here by reads that are wrong: what is shown then is not a run that kept the promise.
#[test]
fn a_search_that_ends_early_says_how_far_it_came() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    let marker = dir.path().join("db/ouro-bench.json");
    let mut wrong = json(&fs::read_to_string(&marker).unwrap());
    wrong["value_bytes"] = 101.into();
    fs::write(&marker, wrong.to_string()).unwrap();
    for (rate, pace) in [(&["--rate", "100"][..], "at 100/s"), (&[], "in a closed loop")] {
        let search = ["--find-max", "max<1h", "--warm-up", "0.02", "--json", "early.json"];
        let output = run(dir.path(), "c", &[&search, rate].concat());
        assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
        let text = stdout(&output);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let words = format!(
            "ended early, after 0 runs: no rate has kept it so far; all else is of the run that it \
             ended in, {pace}."
        );
        assert!(text.contains(&words) && !text.contains("is kept"), "{text}");
        let report = json(&fs::read_to_string(dir.path().join("early.json")).unwrap());
        let found = &report["result"]["find_max"];
        assert_eq!((&found["is_complete"], &found["rate_ops_per_s"]), (&false.into(), &0.into()));
    }
}

/// Ten million operations in a hundredth of a second.
#[test]
fn a_rate_that_is_not_kept_up_with_is_in_the_result() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    for (rate, is_behind) in [(&["--rate", "1000000000"][..], true), (&[], false)] {
        let flags = [&["--seconds", "0.01", "--json", "-"], rate].concat();
        let result = &json(&done(&run(dir.path(), "c", &flags)))["result"];
        assert_eq!(result["behind_s"].is_f64(), is_behind, "{result}");
    }
}

#[test]
fn a_run_needs_a_load() {
    let dir = tempfile::tempdir().unwrap();
    refused(&run(dir.path(), "a", &[]), 2, "load --dir db");
    fs::create_dir(dir.path().join("db")).unwrap();
    refused(&run(dir.path(), "a", &[]), 2, "load --dir db");
    assert_eq!(fs::read_dir(dir.path().join("db")).unwrap().count(), 0);
}

#[test]
fn inserted_records_are_there_for_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    let records = || {
        let marker = fs::read_to_string(dir.path().join("db/ouro-bench.json")).unwrap();
        json(&marker)["records"].as_u64().unwrap()
    };
    assert_eq!(records(), 300);
    done(&run(dir.path(), "a", &[]));
    assert_eq!(records(), 300);
    let result = json(&done(&run(dir.path(), "d", &["--json", "-", "--seconds", "0.3"])));
    let inserted = result["result"]["operations"]["insert"]["ops"].as_u64().unwrap();
    assert!(inserted > 0);
    assert_eq!(records(), 300 + inserted);
    assert_eq!(result["result"]["records"].as_u64(), Some(300 + inserted));
    done(&run(dir.path(), "get-uniform", &[]));
    assert_eq!(records(), 300 + inserted);
}

/// A run begins with an empty cache, unless everything was read before.
#[test]
fn what_is_read_first_is_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    for is_first in [false, true] {
        let flags =
            ["--read-first", "--json", "-", "--seconds", "0.2", "--distribution", "uniform"];
        let output = run(dir.path(), "c", &flags[usize::from(!is_first)..]);
        let result = json(&done(&output));
        assert_eq!(result["config"]["read_first"], is_first);
        let reads = result["result"]["device_reads_per_get"].as_f64().unwrap();
        assert_eq!(reads == 0.0, is_first, "{reads} reads a get");
    }
}

/// A marker that says something else than what was loaded makes every read
/// wrong.
#[test]
fn wrong_reads_are_counted_and_exit_with_7() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    let marker = dir.path().join("db/ouro-bench.json");
    let right = fs::read_to_string(&marker).unwrap();
    for (name, value, words) in
        [("seed", 2, "is missing"), ("value_bytes", 101, "has a wrong value")]
    {
        let mut wrong = json(&right);
        wrong[name] = value.into();
        fs::write(&marker, wrong.to_string()).unwrap();
        let output = run(dir.path(), "c", &["--json", "-"]);
        assert_eq!(output.status.code(), Some(7));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
        let result = &json(&stdout(&output))["result"];
        assert_eq!(result["wrong_reads"], result["ops"]);
        assert!(result["first_wrong_read"].as_str().unwrap().contains(words));
    }
    fs::write(&marker, right).unwrap();
    done(&run(dir.path(), "c", &[]));
}

#[test]
fn a_fresh_load_is_run_on_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), "c", &["--fresh", "500", "--json", "-"]);
    done(&output);
    let report = json(&stdout(&output));
    assert_eq!(report["result"]["records"], 500);
    assert_eq!(report["result"]["device"]["reads"], 0, "{report}");
    // What it left is a database like others; and this replaces it.
    done(&run(dir.path(), "c", &[]));
    done(&run(dir.path(), "c", &["--fresh", "300"]));
    refused(&run(dir.path(), "c", &["--fresh", "0"]), 2, "--fresh");
}

/// Root has no such limit: an ordinary user, of root's.
#[test]
fn wherever_threads_are_short_it_is_told() {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    // Neither it nor the one from the build may be where this user cannot go.
    let binary = dir.path().join("ouro-bench");
    fs::copy(env!("CARGO_BIN_EXE_ouro-bench"), &binary).unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let owned = Command::new("chown").args(["-R", "65534", "."]).current_dir(dir.path()).status();
    assert!(owned.unwrap().success());
    let (mut told, mut done) = (0, 0);
    for threads in 1..24 {
        let flags =
            ["run", "--dir", "db", "--workload", "b", "--seconds", "0.02", "--clients", "4"];
        let output = Command::new("prlimit")
            .arg(format!("--nproc={threads}"))
            .arg(&binary)
            .args(flags)
            .arg("--read-first")
            .uid(NOBODY)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let text = stderr(&output);
        match output.status.code() {
            Some(0) => done += 1,
            Some(7) => told += usize::from(text.contains("ulimit -u")),
            code => panic!("with {threads}: {code:?} {text}"),
        }
        assert!(!text.contains("panicked"), "with {threads}: {text}");
    }
    assert!(told > 0 && done > 0, "{told} times it was told, {done} times there were enough");
}
