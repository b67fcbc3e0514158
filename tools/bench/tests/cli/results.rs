//! JSON, interval logs, pages, and results side by side.

use std::fs;
use std::process::Output;

use serde_json::Value;

use super::{LOAD, bench, done, json, load, refused, run, stderr, stdout};

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
        result["result"]["ops_per_s"] = (1000.0 / seconds).into();
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
    // As fast as before, but not all of it, or wrong.
    for (name, count) in [("unsent_ops", 3), ("wrong_reads", 1)] {
        let mut broken = read("fast.json");
        broken["result"][name] = count.into();
        write("spoilt.json", &broken);
        let spoilt = compare(&["fast.json", "spoilt.json", "--fail-if", "worse"]);
        assert_eq!(spoilt.status.code(), Some(1), "{name}: {}", stderr(&spoilt));
        done(&compare(&["spoilt.json", "spoilt.json", "--fail-if", "worse"]));
    }
    // Nothing was done, of all or of one kind.
    let mut idle = read("fast.json");
    idle["result"]["ops_per_s"] = 0.0.into();
    let mut one_kind = read("fast.json");
    for second in one_kind["result"]["intervals"].as_array_mut().unwrap() {
        second["operations"].as_object_mut().unwrap().remove("update");
    }
    let mut other_mix = one_kind.clone();
    other_mix["config"]["percent"].as_object_mut().unwrap().remove("update").unwrap();
    for (result, says) in [
        (idle, "-100.0% -100.0% -100.0% worse"),
        (one_kind, "no update ended, which is worse"),
        (other_mix, "no update ended, which is worse"),
    ] {
        write("idle.json", &result);
        let idle = compare(&["fast.json", "idle.json", "--fail-if", "worse"]);
        assert_eq!(idle.status.code(), Some(1), "{}", stderr(&idle));
        assert!(words(&idle).contains(says), "{}", stdout(&idle));
        done(&compare(&["idle.json", "fast.json"]));
    }
    // What was cut short, or failed, is no better and no worse.
    let mut partial = read("slow.json");
    partial["partial"] = true.into();
    for (failure, says) in [
        (Value::Null, "as partial.json is partial: it was cut short."),
        ("no space".into(), "as partial.json is partial: it failed (no space)."),
    ] {
        partial["failure"] = failure;
        write("partial.json", &partial);
        let names = ["fast.json", "partial.json", "--json", "c.json"];
        let cut = compare(&names);
        done(&cut);
        let text = words(&cut);
        let row = "throughput 1,000/s 500/s -50.0% -50.0% -50.0% cannot tell";
        assert!(text.contains(says) && text.contains(row), "{text}");
        let compared = read("c.json");
        let figures = compared["others"][0]["figures"].as_array().unwrap();
        assert!(figures.iter().all(|row| row["verdict"] == "cannot-tell"), "{figures:?}");
        assert!(says.contains(compared["others"][0]["partial"][0].as_str().unwrap()));
        let failed = compare(&[&names[..], &["--fail-if", "worse"]].concat());
        assert_eq!(failed.status.code(), Some(1), "{}", stderr(&failed));
        let failed = compare(&["partial.json", "fast.json", "--fail-if", "worse"]);
        assert_eq!(failed.status.code(), Some(2), "{}", stderr(&failed));
    }
    partial["cut_short_in"] = "warming up".into();
    partial["result"]["intervals"] = Vec::<Value>::new().into();
    write("partial.json", &partial);
    let nothing = compare(&["fast.json", "partial.json"]);
    refused(&nothing, 2, "nothing to compare: it failed while warming up");
    let mut unsteady = read("fast.json");
    let reason = serde_json::json!({"is_steady": false, "reason": "the cache filled"});
    unsteady["result"]["steady"] = reason;
    write("unsteady.json", &unsteady);
    let unsteady = words(&compare(&["fast.json", "unsteady.json"]));
    assert!(unsteady.contains("unsteady.json: NOT STEADY: the cache filled"), "{unsteady}");
    assert!(!unsteady.contains("fast.json: NOT STEADY"), "{unsteady}");
    // A rate that was asked for is neither better nor worse.
    let mut open = read("slow.json");
    open["config"]["loop"] = "open".into();
    write("open.json", &open);
    let open = compare(&["fast.json", "open.json", "--fail-if", "worse"]);
    done(&open);
    assert!(words(&open).contains("throughput 1,000/s 500/s -50.0%"), "{}", stdout(&open));
    let nothing = compare(&["short.json", "fast.json", "--fail-if", "worse"]);
    assert_eq!(nothing.status.code(), Some(2), "{}", stderr(&nothing));
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
