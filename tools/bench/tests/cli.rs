//! The binary from the outside: flags, exit codes, streams, JSON.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

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
        (&["run", "--dir", "db", "--workload", "a", "--rate", "-1"], "a rate is 10000"),
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
fn every_second_is_in_the_log_on_the_page_and_in_the_json() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    let outputs = ["--rate", "500", "--seconds", "2.5"];
    let outputs = [&outputs[..], &["--json", "-", "--hlog", "log", "--html", "page.html"]].concat();
    let output = run(dir.path(), "a", &outputs);
    assert!(output.status.success(), "{output:?}");
    let report = json(&String::from_utf8(output.stdout).unwrap());
    let intervals = report["result"]["intervals"].as_array().unwrap();
    assert!(intervals.len() >= 3);
    let ops = |kind: &str| {
        let of = intervals.iter().map(|row| row["operations"][kind]["ops"].as_u64().unwrap_or(0));
        of.sum::<u64>()
    };
    for kind in ["read", "update"] {
        assert_eq!(report["result"]["operations"][kind]["ops"], ops(kind));
    }
    assert!(intervals[0]["system"]["activity"]["cache_hits"].is_u64());
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    for tag in ["read", "read-service", "update", "update-service"] {
        let kind = tag.trim_end_matches("-service");
        let expected = intervals.iter().filter(|row| row["operations"][kind].is_object());
        let lines = log.lines().filter(|line| line.starts_with(&format!("Tag={tag},")));
        assert_eq!(lines.count(), expected.count(), "{log}");
    }
    let page = fs::read_to_string(dir.path().join("page.html")).unwrap();
    assert!(page.contains("</html>") && page.contains("\"steps\":["), "{page}");
    let nowhere = run(dir.path(), "a", &["--html", "missing/page.html"]);
    refused(&nowhere, 7, "cannot write missing/page.html");
}

#[test]
fn the_highest_rate_that_keeps_a_promise_is_found() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    let search = |promise: &str, more: &[&str]| {
        let arguments = [&["--seconds", "0.02", "--find-max", promise], more].concat();
        run(dir.path(), "a", &arguments)
    };
    let found = search("max<1h", &["--json", "found.json", "--arrivals", "poisson"]);
    done(&found);
    assert!(stdout(&found).contains("/s max<1h is kept:"), "{}", stdout(&found));
    let report = json(&fs::read_to_string(dir.path().join("found.json")).unwrap());
    let rate = report["result"]["find_max"]["rate_ops_per_s"].as_u64().unwrap();
    assert!(rate > 0 && report["config"]["rate_ops_per_s"] == rate);
    let steps = report["result"]["find_max"]["steps"].as_array().unwrap();
    let at_rate = steps.iter().filter(|step| step["rate_ops_per_s"] == rate);
    assert!(at_rate.filter(|step| step["is_kept"] == true).count() >= 1, "{steps:?}");
    let nothing = search("max<1ns", &["--rate", "100"]);
    assert_eq!(nothing.status.code(), Some(1), "{}", stderr(&nothing));
    assert!(stderr(&nothing).contains("no rate keeps the promise max<1ns"), "{}", stderr(&nothing));
    refused(&search("p98<1ms", &[]), 2, "p99.9<2ms");
    refused(&search("scan p99<1ms", &[]), 2, "no operation scan");
    refused(&search("p99<1ms", &["--rate", "ramp:1..5"]), 2, "constant --rate");
}

#[test]
fn results_are_put_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    done(&run(dir.path(), "a", &["--json", "short.json"]));
    let read = |name: &str| json(&fs::read_to_string(dir.path().join(name)).unwrap());
    let write = |name: &str, value: &Value| {
        fs::write(dir.path().join(name), value.to_string()).unwrap();
    };
    // As if that had gone on for ten seconds, and the same again with half the throughput.
    let mut result = read("short.json");
    let mut second = result["result"]["intervals"][0].clone();
    for (name, seconds) in [("fast.json", 1.0), ("slow.json", 2.0)] {
        second["seconds"] = seconds.into();
        result["result"]["intervals"] = vec![second.clone(); 10].into();
        result["config"]["memory_bytes"] = (seconds as u64).into();
        write(name, &result);
    }
    let compare = |arguments: &[&str]| bench(dir.path(), &[&["compare"], arguments].concat());
    let same = compare(&["fast.json", "fast.json", "--fail-if", "worse"]);
    done(&same);
    assert!(stdout(&same).contains("cannot tell"), "{}", stdout(&same));
    let slower = compare(&["fast.json", "slow.json", "fast.json"]);
    done(&slower);
    let words = |output: &Output| -> String {
        stdout(output).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let text = words(&slower);
    for words in ["-50.0% -50.0% -50.0% worse", "memory_bytes: 1 and 2", "p99"] {
        assert!(text.contains(words), "{text}");
    }
    let failed = compare(&["fast.json", "slow.json", "--fail-if", "worse", "--json", "c.json"]);
    assert_eq!(failed.status.code(), Some(1), "{}", stderr(&failed));
    let compared = read("c.json");
    assert_eq!(compared["others"][0]["figures"][0]["figure"], "throughput");
    assert_eq!(compared["others"][0]["figures"][0]["ratio"], 0.5);
    assert_eq!(compared["others"][0]["figures"][0]["verdict"], "worse");
    let better = compare(&["slow.json", "fast.json", "--fail-if", "worse"]);
    done(&better);
    assert!(words(&better).contains("+100.0% better"), "{}", stdout(&better));
    let short = compare(&["short.json", "short.json"]);
    assert!(stdout(&short).contains("Nothing can be told from"), "{}", stdout(&short));

    let mut other = result.clone();
    other["format"] = 2.into();
    write("other.json", &other);
    refused(&compare(&["fast.json", "other.json"]), 6, "of format 2");
    other["format"] = 1.into();
    other["result"]["intervals"] = Vec::<Value>::new().into();
    write("old.json", &other);
    refused(&compare(&["old.json", "fast.json"]), 2, "each second");
    other["result"]["intervals"] = vec![second].into();
    other["result"]["intervals"][0]["operations"]["read"]["histogram"] = "AAAA".into();
    write("broken.json", &other);
    refused(
        &compare(&["fast.json", "broken.json"]),
        2,
        "broken.json has a histogram that cannot be read",
    );
    fs::write(dir.path().join("text"), "text").unwrap();
    refused(&compare(&["text", "fast.json"]), 2, "text is not a result");
    refused(&compare(&["fast.json"]), 2, "2 values required");
    refused(&compare(&["fast.json", "missing.json"]), 7, "cannot read missing.json");
    refused(&compare(&["fast.json", "fast.json", "--confidence", "1"]), 2, "0.5 to 0.999");
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
fn every_workload_runs_on_a_loaded_database() {
    let dir = tempfile::tempdir().unwrap();
    let table = done(&bench(dir.path(), &LOAD));
    assert!(table.contains("load: 300 records"), "{table}");
    assert!(table.contains("insert") && table.contains("p99.99"), "{table}");
    for (workload, rows) in [
        ("a", &["read", "update"][..]),
        ("b", &["read", "update"]),
        ("c", &["read"]),
        ("d", &["read", "insert"]),
        ("e", &["insert", "scan"]),
        ("f", &["read", "rmw"]),
        ("get-uniform", &["read"]),
        ("get-zipfian", &["read"]),
        ("get-absent", &["read"]),
        ("scan", &["scan"]),
        ("update", &["update"]),
        ("read-while-writing", &["read", "update"]),
        ("multi-get", &["multi_get"]),
        ("scan-mixed", &["read", "update", "scan"]),
        ("insert-only", &["insert"]),
        ("delete-heavy", &["read", "update", "delete"]),
        ("range-delete", &["read", "update", "del"]),
        // Some records are gone now.
        ("c", &["read"]),
        ("scan", &["scan"]),
        ("multi-get", &["multi_get"]),
    ] {
        let table = done(&run(dir.path(), workload, &[]));
        let found: Vec<_> = table
            .lines()
            .skip_while(|line| !line.starts_with("operation"))
            .skip(1)
            .map_while(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(found, rows, "{table}");
    }
}

#[test]
fn a_file_says_what_a_workload_is() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    let write = |text: &str| fs::write(dir.path().join("mine.toml"), text).unwrap();
    write(
        "description = \"what my service does\"\nscan_rows_max = 5\ndistribution = \"latest\"\n\
         [operations]\nread = 70\nmulti_get = 10\nscan = 10\ninsert = 10\n",
    );
    let table = done(&run(dir.path(), "mine.toml", &["--json", "mine.json"]));
    assert!(table.contains("run mine: what my service does"), "{table}");
    let result = json(&fs::read_to_string(dir.path().join("mine.json")).unwrap());
    assert_eq!(result["config"]["percent"]["multi_get"], 10.0);
    assert_eq!(result["config"]["distribution"], "latest");
    for distribution in [
        "uniform",
        "zipfian:0.5",
        "ranked",
        "latest",
        "hotspot:0.1,0.9",
        "exponential",
        "sequential",
    ] {
        let flags = ["--distribution", distribution, "--json", "mine.json"];
        done(&run(dir.path(), "mine.toml", &flags));
        let result = json(&fs::read_to_string(dir.path().join("mine.json")).unwrap());
        let found = result["config"]["distribution"].as_str().unwrap();
        assert!(found.starts_with(distribution), "{found}");
    }
    refused(&run(dir.path(), "c", &["--distribution", "normal"]), 2, "zipfian");
    refused(&run(dir.path(), "absent.toml", &[]), 2, "cannot read it");
    write("[operations]\nread = 70");
    refused(&run(dir.path(), "mine.toml", &[]), 2, "70 % together");
    write("reads = 70");
    refused(&run(dir.path(), "mine.toml", &[]), 2, "unknown field");
    refused(&run(dir.path(), "large-value", &[]), 2, "--value-bytes 128KiB");
}

#[test]
fn a_trace_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    let kinds =
        ["put,a,100", "get,a,", "scan,a,3", "get,user,", "put,b,70000", "delete,a,", "put,a,3"];
    let lines =
        (0..210).map(|i| format!("{:.3},{}\n", f64::from(i) / 1000.0, kinds[i as usize % 7]));
    let lines = lines.collect::<String>();
    fs::write(dir.path().join("t.csv"), format!("time,operation,key,size\n{lines}")).unwrap();
    for (flags, pace) in [(&["--speed", "2"][..], "open"), (&["--speed", "max"], "closed")] {
        let flags =
            [flags, &["--json", "t.json", "--client-kind", "task", "--depth", "1"]].concat();
        let mut arguments = vec!["run", "--dir", "db", "--memory", "64MiB", "--clients", "2"];
        arguments.extend(["--workload", "t.csv"]);
        arguments.extend(flags);
        let table = done(&bench(dir.path(), &arguments));
        assert!(table.contains("a trace of 210 operations in 0.2 s"), "{table}");
        let result = json(&fs::read_to_string(dir.path().join("t.json")).unwrap());
        assert_eq!(result["config"]["loop"], pace);
        let ops = |kind: &str| result["result"]["operations"][kind]["ops"].as_u64().unwrap();
        let unsent = result["result"]["unsent_ops"].as_u64().unwrap();
        let done = ops("read") + ops("update") + ops("delete") + ops("scan");
        assert_eq!(done + unsent, 210);
        assert!(unsent > 0 || (ops("read"), ops("update"), ops("scan")) == (60, 90, 30));
        assert_eq!(result["partial"], false);
    }
    refused(&run(dir.path(), "c", &[]), 2, "a trace was replayed");
    refused(&run(dir.path(), "t.csv", &["--rate", "5"]), 2, "--speed in place");
    refused(&run(dir.path(), "t.csv", &["--speed", "0"]), 2, "or max");
    load(dir.path());
    refused(&run(dir.path(), "c", &["--speed", "2"]), 2, "for traces");
    fs::write(dir.path().join("t.csv"), "0,put,a,1\n1,frob,a,1\n").unwrap();
    refused(&run(dir.path(), "t.csv", &[]), 2, "line 2: the operation is get, put");
}

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
fn json_has_the_whole_configuration_and_units_in_names() {
    let dir = tempfile::tempdir().unwrap();
    let mut arguments = LOAD.to_vec();
    arguments.extend(["--json", "load.json", "--seed", "7", "--io", "blocking", "--owners", "1"]);
    let table = done(&bench(dir.path(), &arguments));
    assert!(table.contains("operation"), "{table}");
    let loaded = json(&fs::read_to_string(dir.path().join("load.json")).unwrap());
    assert_eq!(loaded["format"], 1);
    assert_eq!(loaded["command"], "load");
    assert_eq!(loaded["partial"], false);
    let config = &loaded["config"];
    for (name, value) in [
        ("dir", Value::from("db")),
        ("workload", Value::Null),
        ("records", 300.into()),
        ("key_bytes", 24.into()),
        ("value_bytes", 100.into()),
        ("data_seed", 7.into()),
        ("clients", 4.into()),
        ("client_kind", "thread".into()),
        ("depth", 1.into()),
        ("loop", "closed".into()),
        ("memory_bytes", (64 << 20).into()),
        ("durability", "process-safe".into()),
        ("io", "blocking".into()),
    ] {
        assert_eq!(config[name], value, "{name}");
    }
    let result = &loaded["result"];
    assert_eq!(result["ops"], 300);
    assert_eq!(result["put_bytes"], 300 * 124);
    assert_eq!(result["wrong_reads"], 0);
    assert_eq!(result["operations"]["insert"]["ops"], 300);
    assert_eq!(result["operations"].as_object().unwrap().len(), 1);
    for name in
        ["elapsed_s", "settle_s", "ops_per_s", "cpu_ns_per_op", "bytes_written_per_byte_put"]
    {
        assert!(result[name].is_f64(), "{name}: {}", result[name]);
    }
    let latency = result["operations"]["insert"]["latency_ns"].as_object().unwrap();
    let percentiles = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"];
    let values: Vec<_> = percentiles.iter().map(|name| latency[*name].as_u64().unwrap()).collect();
    assert!(values.is_sorted() && values[0] > 0, "{values:?}");
    assert!(latency["mean"].is_f64());
    for name in ["reads", "bytes_read", "writes", "bytes_written", "syncs"] {
        assert!(result["device"][name].is_u64(), "{name}");
    }
    assert!(loaded["machine"]["kernel"].as_str().unwrap().starts_with("Linux "));
    assert!(loaded["machine"]["file_system"].is_string());
    assert!(loaded["machine"]["device"].is_string());
    assert_eq!(loaded["versions"]["ourodb"], env!("CARGO_PKG_VERSION"));
    assert!(loaded["versions"].as_object().unwrap().contains_key("commit"));
    assert!(loaded["started"].as_str().unwrap().ends_with('Z'));
    assert!(loaded["started_unix_s"].as_u64().unwrap() > 1_700_000_000);

    let output =
        run(dir.path(), "f", &["--json", "-", "--rate", "200", "--seconds", "0.5", "--seed", "3"]);
    let result = json(&done(&output));
    assert!(stderr(&output).contains("operation"), "the table goes to stderr");
    let config = &result["config"];
    assert_eq!(result["command"], "run");
    assert_eq!(config["workload"], "f");
    assert_eq!(config["loop"], "open");
    assert_eq!(config["rate_ops_per_s"], 200);
    assert_eq!(config["seconds"], 0.5);
    assert_eq!((&config["seed"], &config["data_seed"]), (&3.into(), &7.into()));
    let result = &result["result"];
    let ops = result["ops"].as_u64().unwrap();
    assert_eq!(ops + result["unsent_ops"].as_u64().unwrap(), 100);
    assert_eq!(result["settle_s"], Value::Null);
    assert!(result["device_reads_per_get"].is_f64());
    assert_eq!(result["device_reads_per_scan"], Value::Null);
    for kind in ["read", "read_modify_write"] {
        let operation = &result["operations"][kind];
        let [response, service] = ["latency_ns", "service_ns"].map(|name| &operation[name]["max"]);
        assert!(response.as_u64() >= service.as_u64() && service.is_u64(), "{operation}");
    }

    let changing = ["--json", "-", "--rate", "steps:100,300", "--seconds", "0.5"];
    let constant = json(&done(&run(dir.path(), "c", &changing)));
    assert_eq!(constant["config"]["rate_ops_per_s"], Value::Null);
    assert_eq!(constant["config"]["rate"], "steps:100,300");
    assert_eq!(constant["config"]["arrivals"], "constant");
    let result = &constant["result"];
    let due = result["ops"].as_u64().unwrap() + result["unsent_ops"].as_u64().unwrap();
    assert_eq!(due, 100);
    let random = [&changing[..], &["--arrivals", "poisson"]].concat();
    let random = json(&done(&run(dir.path(), "c", &random)));
    assert_eq!(random["config"]["arrivals"], "poisson");
    let due = random["result"]["ops"].as_u64().unwrap();
    // Five standard deviations.
    assert!(due.abs_diff(100) < 50, "{due}");
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

/// What the engine refuses of the arguments is a usage error as well.
#[test]
fn a_memory_budget_too_small_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    let arguments = ["run", "--dir", "db", "--workload", "c", "--memory", "1MiB"];
    refused(&bench(dir.path(), &arguments), 2, "memory");
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

#[test]
fn a_result_that_cannot_be_written_is_found_out_first() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    refused(&run(dir.path(), "c", &["--json", "none/x.json"]), 7, "none/x.json");
    let mut arguments = LOAD.to_vec();
    arguments.extend(["--json", "none/x.json"]);
    refused(&bench(dir.path(), &arguments), 7, "none/x.json");
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

#[test]
fn a_short_soak_checks_what_it_reads_and_counts_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let soak = |more: &[&str]| {
        let fixed = ["soak", "--dir", "db", "--keys", "3000", "--memory", "4MiB"];
        bench(dir.path(), &[&fixed[..], more].concat())
    };
    let more = ["--seconds", "1", "--reopen", "0.4", "--json", "soak.json"];
    let text = done(&soak(&more));
    assert!(text.contains("all right; ") && text.contains("times p99"), "{text}");
    // A line ends where the database was opened anew, not with the minute.
    assert!(text.starts_with("  time ") && !text.contains("minute"), "{text}");
    let times: Vec<_> = text.lines().filter(|line| line.starts_with("  0:0")).collect();
    assert!(times.len() >= 3, "{text}");
    let result = json(&fs::read_to_string(dir.path().join("soak.json")).unwrap());
    assert_eq!(result["command"], "soak");
    assert!(result["openings"].as_u64().unwrap() >= 2);
    assert!(result["writes"].as_u64().unwrap() > 0 && result["rows"].as_u64().unwrap() > 0);
    assert!(result["write_latency_ns"]["max"].as_u64().unwrap() > 0);
    assert!(result["bytes_at_rest"].as_u64() >= result["live_bytes"].as_u64());
    refused(&soak(&["--seconds", "1"]), 2, "is not empty");
}
