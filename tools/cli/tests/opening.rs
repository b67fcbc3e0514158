//! Databases that cannot be opened: no such directory, a file, a lock.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Place, RunningImport, counts, last_line, ouro, output, stderr, succeeded};
use std::process::{Command, Stdio};

#[test]
fn only_put_and_import_create_a_database() {
    let place = Place::new();
    for arguments in [&["get", "k"][..], &["delete", "k"], &["scan"], &["export"], &["stats"]] {
        let run = place.run(arguments);
        assert_eq!(run.status.code(), Some(7), "{arguments:?}: {}", stderr(&run));
        assert!(stderr(&run).starts_with("ouro: "), "{}", stderr(&run));
        assert_eq!(run.stdout, b"");
        assert!(!place.dir().exists(), "{arguments:?} created the directory");
    }
    std::fs::create_dir(place.dir()).unwrap();
    assert_eq!(place.run(&["get", "k"]).status.code(), Some(7));
    assert_eq!(std::fs::read_dir(place.dir()).unwrap().count(), 0, "get wrote into the directory");
    assert_eq!(last_line(&place.import("tsv", b"")), counts(0, 0, 0));
    assert_eq!(place.ok(&["export"]), b"");
}

#[test]
fn what_cannot_be_read_creates_no_database() {
    let place = Place::new();
    for file in ["/no/such/file", env!("CARGO_TARGET_TMPDIR")] {
        let run = place.run(&["import", file]);
        assert_eq!(run.status.code(), Some(7));
        assert!(stderr(&run).contains(file), "{}", stderr(&run));
        assert!(!place.dir().exists());
    }
}

#[test]
fn a_database_among_other_files_is_created_with_a_warning() {
    let place = Place::new();
    let note = place.file("note", b"precious");
    let among = note.parent().unwrap();
    let put = output(ouro(among, &["put", "k", "v"]), b"");
    assert_eq!(put.status.code(), Some(0), "{}", stderr(&put));
    assert!(stderr(&put).contains("which holds other files"), "{}", stderr(&put));
    // From now on it is a database; and an empty directory is nobody's.
    succeeded(output(ouro(among, &["put", "k", "w"]), b""));
    assert_eq!(succeeded(output(ouro(among, &["get", "k"]), b"")), b"w\n");
    std::fs::create_dir(place.dir()).unwrap();
    place.ok(&["put", "k", "v"]);
    assert_eq!(std::fs::read(&note).unwrap(), b"precious");
}

/// The engine needs more descriptors than the soft limit allows.
#[test]
fn the_soft_limit_of_descriptors_is_raised() {
    let limited = |kind: &str, place: &Place| {
        let mut shell = Command::new("sh");
        let script = format!("ulimit {kind} -n 20 && exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_ouro"), "put", "k", "v", "--shards", "64"]);
        shell.arg("--dir").arg(place.dir());
        output(shell, b"")
    };
    let refused = limited("", &Place::new());
    assert_eq!(refused.status.code(), Some(7), "{}", stderr(&refused));
    succeeded(limited("-S", &Place::new()));
}

/// The system would end the process with a signal.
#[test]
fn a_limit_on_the_size_of_files_is_no_space() {
    let place = Place::new();
    let mut shell = Command::new("bash");
    let script = "ulimit -f 100 && exec \"$0\" \"$@\"";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_ouro"), "put", "k", "v", "--dir"]);
    shell.arg(place.dir());
    let refused = output(shell, b"");
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("ulimit -f"), "{}", stderr(&refused));
    // Nor may its output be longer.
    let mut shell = Command::new("bash");
    let script = "ulimit -f 1 && exec \"$0\" import --help >\"$1\"";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_ouro")]).arg(place.file("out", b""));
    assert_ne!(output(shell, b"").status.code(), None, "no signal ended it");
}

/// What is said names what was given.
#[test]
fn memory_budgets_that_cannot_be() {
    let place = Place::new();
    for memory in ["1000000TiB", "400TiB"] {
        let refused = place.run(&["put", "k", "v", "--memory", memory]);
        assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
        for says in ["the memory budget ", "Options::memory, --memory"] {
            assert!(stderr(&refused).contains(says), "{memory}: {}", stderr(&refused));
        }
    }
}

#[test]
fn a_directory_that_is_a_file() {
    let place = Place::new();
    let file = place.file("file", b"precious");
    for arguments in [&["get", "k"][..], &["put", "k", "v"]] {
        let run = output(ouro(&file, arguments), b"");
        assert!(matches!(run.status.code(), Some(2 | 7)), "{:?}", run.status);
        assert!(stderr(&run).contains("file"), "{}", stderr(&run));
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[test]
fn a_second_process_waits_for_the_lock_or_fails() {
    let place = Place::new();
    let mut import = RunningImport::start(&place);
    import.send(b"k\tv\n");
    import.wait_for(1);

    let run = place.run(&["get", "k", "--lock-wait", "0s"]);
    assert_eq!(run.status.code(), Some(4), "{}", stderr(&run));
    assert!(stderr(&run).starts_with("ouro: "), "{}", stderr(&run));

    let waiting = place
        .command(&["get", "k", "--lock-wait", "60s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(import.input.take());
    assert_eq!(import.child.wait().unwrap().code(), Some(0));
    assert_eq!(import.rest(), counts(1, 1, 0) + "\n");
    assert_eq!(succeeded(waiting.wait_with_output().unwrap()), b"v\n");
}
