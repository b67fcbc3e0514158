//! What a run does: workloads by name, from files, from traces.

use std::fs;

use super::{LOAD, bench, done, json, load, refused, run, stderr};

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
        "scrambled:0.99",
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
    refused(&run(dir.path(), "a", &["--distribution", "absent"]), 2, "there are none");
    refused(&run(dir.path(), "absent.toml", &[]), 2, "cannot read it");
    write(
        "scan_rows_max = 7\nmulti_get_keys = 3\n[operations]\nscan = 50\nmulti_get = 50\n\
         [background]\nupdate = 100\n",
    );
    done(&run(dir.path(), "mine.toml", &["--json", "mine.json"]));
    let config = &json(&fs::read_to_string(dir.path().join("mine.json")).unwrap())["config"];
    assert_eq!((&config["scan_rows_max"], &config["multi_get_keys"]), (&7.into(), &3.into()));
    assert_eq!(config["background"]["update"], 100.0);
    assert_eq!(config["delete_range_rows"], serde_json::Value::Null);
    // Due latencies and others are not mixed.
    write("[operations]\nread = 50\nupdate = 50\n[background]\nupdate = 100\n");
    for flags in [&["--rate", "100"][..], &["--find-max", "p99<1s"]] {
        refused(
            &run(dir.path(), "mine.toml", flags),
            2,
            "has update both at a rate and in the background",
        );
    }
    done(&run(dir.path(), "mine.toml", &[]));
    write("distribution = \"absent\"\n[operations]\nread = 50\ninsert = 50\n");
    refused(&run(dir.path(), "mine.toml", &[]), 2, "there are none");
    let other = done(&run(dir.path(), "c", &["--distribution", "uniform"]));
    assert!(other.contains("(--distribution uniform)"), "{other}");
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
    let deep = ["--client-kind", "task", "--depth", "2"];
    refused(&run(dir.path(), "t.csv", &deep), 2, "stays in its order");
    // All at once, at a time as services write it.
    fs::write(dir.path().join("t.csv"), "1796083200,put,a,10\n1796083200,get,a,\n").unwrap();
    let at_once = bench(dir.path(), &["run", "--dir", "db", "--workload", "t.csv", "--json", "-"]);
    assert_eq!(json(&done(&at_once))["result"]["ops"], 2);
    assert!(stderr(&at_once).contains("at the times of the trace"), "{}", stderr(&at_once));
    load(dir.path());
    let spoils = bench(dir.path(), &["run", "--dir", "db", "--workload", "t.csv"]);
    assert!(stderr(&spoils).contains("no other workload"), "{}", stderr(&spoils));
    load(dir.path());
    refused(&run(dir.path(), "c", &["--speed", "2"]), 2, "for traces");
    fs::write(dir.path().join("t.csv"), "0,put,a,1\n1,frob,a,1\n").unwrap();
    refused(&run(dir.path(), "t.csv", &[]), 2, "line 2: the operation is get, put");
}
