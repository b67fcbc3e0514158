//! `ouro-bench` without a command, with a smaller plan.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ouro_bench::cli::Io;
use ouro_bench::quick::{Plan, run};

#[test]
fn the_first_look_loads_runs_and_replaces_itself() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan {
        dir: dir.path().join("data"),
        records: 500,
        load: Duration::from_secs(60),
        run: Duration::from_millis(100),
        clients: 4,
        io: Io::Ring,
    };
    let interrupt = AtomicBool::new(false);
    let marker = || {
        let text = fs::read_to_string(plan.dir.join("ouro-bench.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["records"].as_u64()
    };
    for records in [500, 300] {
        run(&Plan { records, ..plan.clone() }, &interrupt).unwrap();
        assert_eq!(marker(), Some(records));
        let page = fs::read_to_string(plan.dir.join("ouro-bench-report.html")).unwrap();
        assert!(page.contains("YCSB B"), "{page}");
    }
}

/// A disk too slow for all records in the time gets fewer, and the rest of the
/// first look goes on with those; here without io_uring, too.
#[test]
fn a_slow_disk_gets_fewer_records() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan {
        dir: dir.path().join("data"),
        records: 1_000_000_000,
        load: Duration::from_millis(500),
        run: Duration::from_millis(100),
        clients: 2,
        io: Io::Blocking,
    };
    run(&plan, &AtomicBool::new(false)).unwrap();
    let text = fs::read_to_string(plan.dir.join("ouro-bench.json")).unwrap();
    let records = serde_json::from_str::<serde_json::Value>(&text).unwrap()["records"].as_u64();
    assert!((1..1_000_000_000).contains(&records.unwrap()));
}
