//! get, put, delete, scan and stats on the real binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Place, output, stderr, succeeded};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

#[test]
fn put_get_delete() {
    let place = Place::new();
    assert_eq!(place.ok(&["put", "key", "value"]), b"");
    assert_eq!(place.ok(&["get", "key"]), b"value\n");
    assert_eq!(place.ok(&["put", "key", "other"]), b"");
    assert_eq!(place.ok(&["get", "key", "--raw"]), b"other");
    assert_eq!(place.ok(&["delete", "key"]), b"");
    assert_eq!(place.ok(&["delete", "key"]), b"");
    let gone = place.run(&["get", "key"]);
    assert_eq!(gone.status.code(), Some(1));
    assert_eq!(gone.stdout, b"");
    assert_eq!(stderr(&gone), "ouro: key not found: key\n");
}

#[test]
fn ranges_of_keys_are_deleted() {
    let place = Place::new();
    for key in ["a", "b", "c", "d"] {
        place.ok(&["put", key, "value"]);
    }
    assert_eq!(place.ok(&["delete-range", "--from", "b", "--to", "d"]), b"");
    assert_eq!(place.ok(&["scan", "--keys-only"]), b"a\nd\n");
    assert_eq!(place.ok(&["delete-range", "--escaped", "--to", "\\x62"]), b"");
    assert_eq!(place.ok(&["scan", "--keys-only"]), b"d\n");
    let all = place.run(&["delete-range"]);
    assert_eq!(all.status.code(), Some(2), "all of them only when that is said");
    for flag in ["--from", "--to", "--all"] {
        assert!(stderr(&all).contains(flag), "{flag}: {}", stderr(&all));
    }
    assert_eq!(place.ok(&["delete-range", "--all", "--durability", "process-safe"]), b"");
    assert_eq!(place.ok(&["scan"]), b"");
}

#[test]
fn the_empty_key_and_the_empty_value() {
    let place = Place::new();
    place.ok(&["put", "", ""]);
    assert_eq!(place.ok(&["get", ""]), b"\n");
    assert_eq!(place.ok(&["get", "", "--raw"]), b"");
    assert_eq!(place.ok(&["export"]), b"\t\n");
}

#[test]
fn arguments_are_literal_unless_escaped() {
    let place = Place::new();
    place.ok(&["put", "a\\tb", "c\\nd"]);
    place.ok(&["put", "--escaped", "a\\tb", "c\\nd\\x00"]);
    assert_eq!(place.ok(&["get", "a\\tb", "--raw"]), b"c\\nd");
    assert_eq!(place.ok(&["get", "a\tb", "--raw"]), b"c\nd\0");
    assert_eq!(place.ok(&["get", "a\tb"]), b"c\\nd\\0\n");
    assert_eq!(place.ok(&["get", "--escaped", "a\\x5ctb"]), b"c\\\\nd\n");
    assert_eq!(place.ok(&["export"]), b"a\\tb\tc\\nd\\0\na\\\\tb\tc\\\\nd\n");
    let bad = place.run(&["put", "--escaped", "k", "\\q"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(stderr(&bad).starts_with("ouro: \\q: unknown escape \\q"), "{}", stderr(&bad));
}

#[test]
fn arguments_need_not_be_utf8() {
    let place = Place::new();
    let mut put = place.command(&["put"]);
    put.arg(OsStr::from_bytes(b"\xff")).arg(OsStr::from_bytes(b"\xfe"));
    succeeded(output(put, b""));
    assert_eq!(place.ok(&["get", "--escaped", "\\xff"]), b"\xfe\n");
    assert_eq!(
        place.ok(&["export", "--format", "jsonl"]),
        b"{\"key_b64\":\"/w==\",\"value_b64\":\"/g==\"}\n"
    );
}

#[test]
fn a_value_from_stdin_is_raw() {
    let place = Place::new();
    let value = b"\\t\0\xff\n";
    for arguments in [&["put", "k", "-"][..], &["put", "k", "-", "--escaped"]] {
        succeeded(place.run_with(arguments, value));
        assert_eq!(place.ok(&["get", "k", "--raw"]), value);
    }
    // A quarter of the budget.
    let longest = vec![b'v'; 1 << 20];
    let put = ["put", "k", "-", "--memory", "4MiB"];
    succeeded(place.run_with(&put, &longest));
    assert_eq!(place.ok(&["get", "k", "--raw"]), longest);
    let longer = place.run_with(&put, &[&longest[..], b"v"].concat());
    assert_eq!(longer.status.code(), Some(2));
    for says in ["1048576", "--memory"] {
        assert!(stderr(&longer).contains(says), "{}", stderr(&longer));
    }
    assert_eq!(place.ok(&["get", "k", "--raw"]), longest);
}

/// One hyphen means stdin; written as an escape it is itself.
#[test]
fn a_hyphen_is_a_value_too() {
    let place = Place::new();
    place.ok(&["put", "k", "--escaped", "\\x2d"]);
    assert_eq!(place.ok(&["get", "k", "--raw"]), b"-");
    let help = String::from_utf8(place.ok(&["put", "--help"])).unwrap();
    assert!(help.contains("--escaped '\\x2d'"), "{help}");
}

#[test]
fn a_number_of_shards_that_is_too_late_is_told() {
    let place = Place::new();
    place.ok(&["put", "--shards", "2", "k", "v"]);
    place.ok(&["put", "--shards", "2", "k", "w"]);
    let late = place.run(&["put", "--shards", "4", "k", "x"]);
    assert_eq!(late.status.code(), Some(0), "{}", stderr(&late));
    assert!(stderr(&late).contains("--shards 4 changes nothing: "), "{}", stderr(&late));
    assert!(stderr(&late).contains(" has 2 shards "), "{}", stderr(&late));
    assert_eq!(place.ok(&["get", "k"]), b"x\n");
}

#[test]
fn a_key_above_the_limit_is_a_usage_error() {
    let place = Place::new();
    let longest = "k".repeat(ourodb::KEY_BYTES_MAX);
    place.ok(&["put", &longest, "v"]);
    assert_eq!(place.ok(&["get", &longest]), b"v\n");
    let longer = place.run(&["put", &format!("{longest}k"), "v"]);
    assert_eq!(longer.status.code(), Some(2));
    assert!(stderr(&longer).contains("65535"), "{}", stderr(&longer));
}

#[test]
fn scans() {
    let place = Place::new();
    place.import("tsv", b"b\t2\na\t1\nd\\n\t4\nba\t3\n\xff\t5\n\xff\xff\t6\n");
    let scan = |arguments: &[&str]| place.ok(&[&["scan"], arguments].concat());
    assert_eq!(scan(&[]), b"a\t1\nb\t2\nba\t3\nd\\n\t4\n\xff\t5\n\xff\xff\t6\n");
    assert_eq!(scan(&["--from", "b", "--to", "d"]), b"b\t2\nba\t3\n");
    assert_eq!(scan(&["--to", "b"]), b"a\t1\n");
    assert_eq!(scan(&["--from", "d"]), b"d\\n\t4\n\xff\t5\n\xff\xff\t6\n");
    assert_eq!(scan(&["--from", "d\n", "--to", "e"]), b"d\\n\t4\n");
    assert_eq!(scan(&["--escaped", "--from", "d\\n", "--to", "d\\n\\0"]), b"d\\n\t4\n");
    assert_eq!(scan(&["--from", "d", "--to", "b"]), b"");
    assert_eq!(scan(&["--prefix", "b"]), b"b\t2\nba\t3\n");
    assert_eq!(scan(&["--prefix", "\\xff", "--escaped"]), b"\xff\t5\n\xff\xff\t6\n");
    assert_eq!(scan(&["--reverse", "--limit", "2"]), b"\xff\xff\t6\n\xff\t5\n");
    assert_eq!(scan(&["--reverse", "--prefix", "b"]), b"ba\t3\nb\t2\n");
    assert_eq!(scan(&["--limit", "0"]), b"");
    assert_eq!(scan(&["--keys-only", "--to", "c"]), b"a\nb\nba\n");
    assert_eq!(
        scan(&["--format", "jsonl", "--from", "d"]),
        b"{\"key\":\"d\\n\",\"value\":\"4\"}\n{\"key_b64\":\"/w==\",\"value\":\"5\"}\n\
          {\"key_b64\":\"//8=\",\"value\":\"6\"}\n"
    );
    assert_eq!(scan(&["--format", "jsonl", "--keys-only", "--limit", "1"]), b"{\"key\":\"a\"}\n");
    assert_eq!(place.run(&["scan", "--prefix", "a", "--from", "a"]).status.code(), Some(2));
}

#[test]
fn stats_for_people_and_as_json() {
    let place = Place::new();
    place.ok(&["put", "--shards", "2", "k", "v"]);
    let text = String::from_utf8(place.ok(&["stats"])).unwrap();
    assert!(text.lines().count() > 5 && text.contains("shards: 2"), "{text}");
    let json: serde_json::Value = serde_json::from_slice(&place.ok(&["stats", "--json"])).unwrap();
    assert_eq!(json["format"], 1);
    assert_eq!(json["shards"], 2);
    assert!(json.as_object().unwrap().values().all(serde_json::Value::is_number), "{json}");
    assert!(json["level_0_runs"].is_u64() && json["garbage_bytes"].is_u64(), "{json}");
    let in_text = text.lines().map(|line| line.split_once(": ").unwrap().0);
    let in_text: BTreeSet<&str> = in_text.chain(["format"]).collect();
    let in_json = json.as_object().unwrap().keys();
    assert_eq!(in_json.map(String::as_str).collect::<BTreeSet<_>>(), in_text);
}

/// What is there, right after an opening: levels and amplification.
#[test]
fn stats_of_a_database_that_was_just_opened_tell_what_it_consists_of() {
    let place = Place::new();
    let rows: String = (0..3000).map(|i| format!("{i:05}\t{i:0300}\n")).collect();
    for _ in 0..2 {
        let flags = ["import", "--shards", "1", "--memory", "4MiB", "-"];
        succeeded(place.run_with(&flags, rows.as_bytes()));
    }
    let text = String::from_utf8(place.ok(&["stats"])).unwrap();
    let number = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
    };
    let runs: f64 = (0..7)
        .filter(|level| text.contains(&format!("level_{level}_runs")))
        .map(|level| number(&format!("level_{level}_runs")))
        .sum();
    assert!(runs >= 1.0 && number("read_amplification") == runs, "{text}");
    assert!(number("space_amplification") >= 1.0, "{text}");
    assert!(number("garbage_bytes") < number("table_bytes"), "{text}");
    assert!(!text.contains("write_amplification"), "nothing was put: {text}");
}

#[test]
fn tables_are_compressed_as_asked() {
    let rows: String = (0..3000).map(|i| format!("{i:05}\t{i:0300}\n")).collect();
    let zstd = if cfg!(feature = "zstd") { (0, "") } else { (6, "cargo feature `zstd`") };
    for (compression, (code, says)) in
        [("none", (0, "")), ("lz4", (0, "")), ("zstd", zstd), ("gzip", (2, "none, lz4, or zstd"))]
    {
        let place = Place::new();
        let flags =
            ["import", "--shards", "1", "--memory", "4MiB", "--compression", compression, "-"];
        let run = place.run_with(&flags, rows.as_bytes());
        assert_eq!(run.status.code(), Some(code), "{}", stderr(&run));
        assert!(stderr(&run).contains(says), "{}", stderr(&run));
        if code > 0 {
            continue;
        }
        let is_table = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "sst");
        let files = std::fs::read_dir(place.dir().join("shard-000")).unwrap();
        let table = files.map(|file| file.unwrap().path()).find(is_table).unwrap();
        let dump = place.ok(&["dump", table.to_str().unwrap()]);
        let words = format!("compression {compression}");
        assert!(String::from_utf8(dump).unwrap().contains(&words), "{words}");
    }
}

#[test]
fn usage_errors() {
    let place = Place::new();
    let bad = |arguments: &[&str]| {
        let run = place.run(arguments);
        assert_eq!(run.status.code(), Some(2), "{arguments:?}: {}", stderr(&run));
        assert!(!stderr(&run).is_empty());
    };
    bad(&[]);
    bad(&["frobnicate"]);
    bad(&["get"]);
    bad(&["get", "k", "--memory", "lots"]);
    for time in ["soon", "-1", "1"] {
        let run = place.run(&["get", "k", "--lock-wait", time]);
        assert_eq!(run.status.code(), Some(2));
        assert!(stderr(&run).contains("a time such as 10s"), "{}", stderr(&run));
    }
    bad(&["get", "k", "--owners", "0"]);
    bad(&["get", "k", "--shards", "2"]);
    bad(&["put", "k", "v", "--durability", "hopeful"]);
    bad(&["delete", "k", "--durability", "relaxed:0ms"]);
    bad(&["import", "--format", "csv", "-"]);
    for arguments in [
        &["scan", "--limit", "1e9"][..],
        &["scan", "--limit", "-1"],
        &["get", "k", "--owners", "-1"],
        &["put", "k", "v", "--shards", "1.5"],
    ] {
        let run = place.run(arguments);
        assert_eq!(run.status.code(), Some(2));
        assert!(stderr(&run).contains("a whole number from "), "{}", stderr(&run));
    }
    let mut no_dir = std::process::Command::new(env!("CARGO_BIN_EXE_ouro"));
    no_dir.args(["get", "k"]);
    let no_dir = output(no_dir, b"");
    assert_eq!(no_dir.status.code(), Some(2));
    assert!(stderr(&no_dir).contains("--dir"), "{}", stderr(&no_dir));
}

#[test]
fn writes_of_every_durability() {
    let place = Place::new();
    for (key, durability) in [("a", "durable"), ("b", "process-safe"), ("c", "relaxed:100ms")] {
        let put = place.run(&["put", key, durability, "--durability", durability]);
        assert!(put.status.success(), "{}", stderr(&put));
    }
    let delete = place.run(&["delete", "a", "--durability", "process-safe"]);
    assert!(delete.status.success(), "{}", stderr(&delete));
    let scan = place.run(&["scan", "--keys-only"]);
    assert_eq!(String::from_utf8_lossy(&scan.stdout), "b\nc\n");
}
