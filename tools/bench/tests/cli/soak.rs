//! `soak`.

use std::fs;

use super::{bench, done, json, refused};

#[test]
fn a_short_soak_checks_what_it_reads_and_counts_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let soak = |more: &[&str]| {
        let fixed = ["soak", "--dir", "db", "--keys", "3000", "--memory", "4MiB"];
        bench(dir.path(), &[&fixed[..], more].concat())
    };
    let more = ["--seconds", "2", "--reopen", "0.4", "--json", "soak.json"];
    let text = done(&soak(&more));
    assert!(text.contains("all right; ") && text.contains("times p99"), "{text}");
    // A line ends where the database was opened anew, not with the minute.
    assert!(text.starts_with("  time ") && !text.contains("minute"), "{text}");
    let times = text.lines().filter(|line| line.starts_with("  0:0")).count() as u64;
    let result = json(&fs::read_to_string(dir.path().join("soak.json")).unwrap());
    assert_eq!(result["command"], "soak");
    assert!(times >= 2 && result["openings"] == times, "{text}");
    assert!(result["writes"].as_u64().unwrap() > 0 && result["rows"].as_u64().unwrap() > 0);
    assert!(result["write_latency_ns"]["max"].as_u64().unwrap() > 0);
    assert!(result["bytes_at_rest"].as_u64() >= result["live_bytes"].as_u64());
    refused(&soak(&["--seconds", "1"]), 2, "is not empty");
}
