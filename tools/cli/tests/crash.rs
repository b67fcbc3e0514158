//! Imports that are killed or interrupted keep what they acknowledged.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Place, RunningImport, acknowledged, counts, stderr};
use std::collections::BTreeMap;
use std::io::{Read, Write};

use rustix::process::{Pid, Signal, kill_process};

const LINES: usize = 100_000;

/// Lines whose keys repeat, so that an old value coming back is seen.
fn lines(seed: u64) -> Vec<(String, String)> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..LINES)
        .map(|number| {
            let key = format!("key-{:05}", random.usize(..LINES / 2));
            let padding = "x".repeat(random.usize(..200));
            (key, format!("{number}-{padding}"))
        })
        .collect()
}

#[test]
fn a_killed_import_keeps_every_acknowledged_line() {
    let mut random = fastrand::Rng::with_seed(7);
    let lines = lines(8);
    let text: String = lines.iter().map(|(key, value)| format!("{key}\t{value}\n")).collect();
    for target in [1, random.u64(1..30_000), random.u64(1..60_000), random.u64(1..90_000)] {
        let place = Place::new();
        let mut import = RunningImport::start(&place);
        let mut input = import.input.take().unwrap();
        // The pipe breaks when the import is killed, or stays open past its end.
        let all = text.clone();
        let feeder = std::thread::spawn(move || {
            drop(input.write_all(all.as_bytes()));
            input
        });
        let seen = import.wait_for(target);
        std::thread::sleep(std::time::Duration::from_micros(random.u64(..3000)));
        import.child.kill().unwrap();
        import.child.wait().unwrap();
        let safe = import.rest().split_inclusive('\n').filter_map(acknowledged).next_back();
        let safe = usize::try_from(safe.unwrap_or(seen)).unwrap();
        drop(feeder.join().unwrap());

        let exported = String::from_utf8(place.ok(&["export"])).unwrap();
        let found: BTreeMap<&str, &str> =
            exported.lines().map(|line| line.split_once('\t').unwrap()).collect();
        // Of each key, the last acknowledged line or one after it.
        let mut oldest_allowed = BTreeMap::new();
        for (number, (key, _)) in lines[..safe].iter().enumerate() {
            oldest_allowed.insert(key.as_str(), number);
        }
        for key in oldest_allowed.keys() {
            assert!(found.contains_key(key), "{key} of the first {safe} lines is lost");
        }
        for (key, value) in found {
            let number: usize = value.split_once('-').unwrap().0.parse().unwrap();
            assert_eq!((key, value), (lines[number].0.as_str(), lines[number].1.as_str()));
            let oldest = oldest_allowed.get(key).copied().unwrap_or(0);
            assert!(number >= oldest, "{key} has line {number} again, {oldest} was acknowledged");
        }
    }
}

#[test]
fn an_interrupted_import_ends_cleanly() {
    let place = Place::new();
    let mut import = RunningImport::start(&place);
    import.send(b"a\t1\n");
    import.wait_for(1);
    import.send(b"b\t2\nc\t3\n");
    import.wait_for(3);
    let pid = Pid::from_child(&import.child);
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(import.rest(), counts(3, 3, 0) + "\n");
    let mut errors = String::new();
    import.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(errors, "ouro: interrupted\n");
    assert_eq!(import.child.wait().unwrap().code(), Some(130));
    let export = place.run(&["export", "--lock-wait", "0s"]);
    assert_eq!(stderr(&export), "");
    assert_eq!(export.stdout, b"a\t1\nb\t2\nc\t3\n");
}

#[test]
fn an_interrupted_export_ends_cleanly() {
    let place = Place::new();
    // More than a pipe holds, so that the export is still at it.
    let text: String = (0..40_000).map(|number| format!("key-{number:06}\tvalue\n")).collect();
    place.import("tsv", text.as_bytes());
    let mut export = place
        .command(&["export"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = export.stdout.take().unwrap();
    let mut first = [0; 10];
    output.read_exact(&mut first).unwrap();
    kill_process(Pid::from_child(&export), Signal::INT).unwrap();
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    assert!(first.len() + rest.len() < text.len());
    assert_eq!(export.wait().unwrap().code(), Some(130));
}
