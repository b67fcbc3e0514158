//! Commands that end before their measurement, or fail in it: what they report, and what they
//! leave.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use ouro_bench::cli::{Cli, Command};
use ouro_bench::engine::OuroDb;
use ouro_bench::failure::Failure;
use ouro_bench::{commands, session};
use serde_json::Value;

/// Does a command on the database in `dir`. Ctrl-C was pressed before, or is not.
fn bench(dir: &Path, line: &str, is_interrupted: bool) -> Result<(), Failure> {
    let database = dir.join("db");
    let words = ["ouro-bench"].into_iter().chain(line.split(' '));
    let common = ["--memory", "64MiB", "--dir", database.to_str().unwrap()];
    let interrupt = AtomicBool::new(is_interrupted);
    match Cli::parse_from(words.chain(common)).command.unwrap() {
        Command::Load(args) => commands::load::<OuroDb>(&args, &(), None, &interrupt).map(drop),
        Command::Run(args) => session::run::<OuroDb>(&args, &(), &interrupt).map(drop),
        other => panic!("{other:?}"),
    }
}

fn loaded() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    bench(dir.path(), "load --records 300", false).unwrap();
    dir
}

/// The flags for results in all forms.
fn outputs(dir: &Path) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    let [json, html, hlog] = ["result.json", "result.html", "result.hlog"].map(path);
    format!("--json {json} --html {html} --hlog {hlog}")
}

fn json(dir: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap()
}

/// The data of the page's script.
fn page(dir: &Path) -> Value {
    let page = fs::read_to_string(dir.join("result.html")).unwrap();
    let (_, data) = page.split_once("id=\"data\">").unwrap();
    serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap()
}

/// Nothing can be read of what the tables hold.
fn damage(dir: &Path) {
    for shard in fs::read_dir(dir.join("db")).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(files) = fs::read_dir(&shard) else { continue };
        let tables = files.map(|file| file.unwrap().path());
        for table in tables.filter(|path| path.extension().is_some_and(|of| of == "sst")) {
            let mut bytes = fs::read(&table).unwrap();
            bytes[..16 << 10].fill(0x55);
            fs::write(table, bytes).unwrap();
        }
    }
}

#[test]
fn what_was_not_measured_took_no_time() {
    let dir = loaded();
    let outputs = outputs(dir.path());
    for (flags, phase) in [("", "settling"), (" --fresh 1000", "loading")] {
        let line = format!("run --workload c --seconds 20 {outputs}{flags}");
        let ended = bench(dir.path(), &line, true).unwrap_err();
        assert!(matches!(ended, Failure::Interrupted), "{ended}");
        let report = json(dir.path(), "result.json");
        let result = &report["result"];
        assert_eq!(report["cut_short_in"], phase);
        assert_eq!((&report["partial"], &result["elapsed_s"]), (&true.into(), &0.0.into()));
        assert_eq!(result["intervals"], Value::Array(Vec::new()));
        let page = page(dir.path());
        assert_eq!((&page["cut_short_in"], &page["steps"]), (&phase.into(), &result["intervals"]));
        assert_eq!(page["config"]["seconds"], 20.0);
    }
}

#[test]
fn a_failure_before_the_measurement_is_in_the_report() {
    let dir = loaded();
    damage(dir.path());
    let outputs = outputs(dir.path());
    for (flags, phase) in
        [("--warm-up 3600", "warming up"), ("--read-first", "reading everything once")]
    {
        let line = format!("run --workload c --seconds 3600 {flags} {outputs}");
        let failure = bench(dir.path(), &line, false).unwrap_err();
        assert_eq!(failure.exit_code(), 3, "{failure}");
        let report = json(dir.path(), "result.json");
        assert_eq!((&report["partial"], &report["cut_short_in"]), (&true.into(), &phase.into()));
        assert_eq!(report["failure"], failure.to_string());
        assert_eq!(report["result"]["elapsed_s"], 0.0);
        assert_eq!(page(dir.path())["failure"], failure.to_string());
        assert!(!fs::read(dir.path().join("result.hlog")).unwrap().is_empty());
    }
}

#[test]
fn what_is_damaged_is_found_where_the_advice_says() {
    let dir = loaded();
    damage(dir.path());
    let run = ["run", "--dir", "db", "--workload", "c", "--seconds", "3600", "--memory", "64MiB"];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ouro-bench"));
    let output = command.args(run).current_dir(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("`ouro verify --dir db` names all that is damaged"), "{told}");
}

/// It has the time until then, not that which was asked for.
#[test]
fn a_failure_in_the_measurement_ends_its_time() {
    let dir = loaded();
    damage(dir.path());
    for pace in ["", " --rate 100000", " --client-kind task --depth 2"] {
        let line = format!("run --workload c --seconds 3600 {}{pace}", outputs(dir.path()));
        let failure = bench(dir.path(), &line, false).unwrap_err();
        assert_eq!(failure.exit_code(), 3, "{failure}");
        let report = json(dir.path(), "result.json");
        let seconds = report["result"]["elapsed_s"].as_f64().unwrap();
        assert!(seconds > 0.0 && seconds < 3600.0, "{seconds}");
        let intervals = report["result"]["intervals"].as_array().unwrap();
        let of = |interval: &Value| interval["seconds"].as_f64().unwrap();
        let sum = intervals.iter().map(of).sum::<f64>();
        assert!((sum - seconds).abs() < 1e-3, "{sum} {seconds}");
        assert_eq!(report["cut_short_in"], Value::Null);
    }
}

/// A command that does not begin at all.
#[test]
fn a_failure_without_a_report_leaves_no_empty_files() {
    let dir = loaded();
    let identity = dir.path().join("db/IDENTITY");
    fs::write(&identity, "x").unwrap();
    let line = format!("run --workload c {}", outputs(dir.path()));
    bench(dir.path(), &line, false).unwrap_err();
    for name in ["result.json", "result.html", "result.hlog"] {
        assert!(!dir.path().join(name).exists(), "{name}");
    }
}

#[test]
fn a_trace_that_was_not_replayed_leaves_the_load_as_it_was() {
    let dir = loaded();
    let trace = dir.path().join("trace.csv");
    fs::write(&trace, "0,put,a,10\n0.01,get,a,\n").unwrap();
    let replay = format!("run --workload {}", trace.display());
    bench(dir.path(), &replay, true).unwrap_err();
    assert_eq!(json(dir.path(), "db/ouro-bench.json")["is_traced"], Value::Null);
    bench(dir.path(), "run --workload c --seconds 0.01", false).unwrap();
    bench(dir.path(), &replay, false).unwrap();
    assert_eq!(json(dir.path(), "db/ouro-bench.json")["is_traced"], true);
}

/// A load whose tables can be flushed and not merged does not wait for ever.
#[test]
fn compactions_that_fail_again_and_again_end_the_load() {
    let dir = tempfile::tempdir().unwrap();
    let bench = env!("CARGO_BIN_EXE_ouro-bench");
    let load = format!("ulimit -f 1500; exec {bench} load --dir db --memory 16MiB --records 60000");
    let mut command = std::process::Command::new("bash");
    let output = command.args(["-c", &load]).current_dir(dir.path()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{told}");
    assert!(told.contains("compactions fail again and again: no space left"), "{told}");
    assert!(told.contains("ulimit -f"), "{told}");
}
