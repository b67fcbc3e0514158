//! Tests that need a process of their own, because they limit it: the test
//! binary starts itself again, for that one test.

#![allow(dead_code, reason = "each test uses its part")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tempfile::TempDir;

const TEST: &str = "OURODB_TEST_OF_CHILD";
const DIR: &str = "OURODB_TEST_DIRECTORY";

/// A child that found no test of its name would succeed too: so it says that
/// it came to its end.
const DONE: &str = "the child came to its end";

/// A child that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Somebody who is not root: "nobody".
const ORDINARY: u32 = 65534;

/// Runs `body` in a process of its own, on an empty directory that an ordinary
/// user may use. `test` is the test's name, with its module.
pub fn in_child(test: &str, body: impl FnOnce(&Path)) {
    if be_child(test, body) {
        return;
    }
    let dir = place();
    finish(start(test, dir.path()));
}

/// In the child that [`start`] started: runs `body`, and returns true.
pub fn be_child(test: &str, body: impl FnOnce(&Path)) -> bool {
    if std::env::var_os(TEST).is_none_or(|name| name != test) {
        return false;
    }
    let dir = PathBuf::from(std::env::var_os(DIR).expect("start sets it"));
    body(&dir);
    println!("{DONE}");
    true
}

/// Starts a child, which runs the test's [`be_child`].
pub fn start(test: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("the test's binary"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(TEST, test)
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a child")
}

/// Reads what the child says up to the line `wanted`.
pub fn wait_for_line(child: &mut Child, wanted: &str) -> BufReader<ChildStdout> {
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while line.trim_end() != wanted {
        line.clear();
        let read = output.read_line(&mut line).expect("the child's output");
        assert!(read > 0, "the child ended before it said {wanted:?}");
    }
    output
}

/// Waits for a child, which must succeed.
pub fn finish(mut child: Child) {
    let output = child.stdout.take().map(BufReader::new).expect("a pipe");
    finish_reading(child, output);
}

/// Like [`finish`], when some of the output was read.
pub fn finish_reading(mut child: Child, output: BufReader<ChildStdout>) {
    let reader = std::thread::spawn(move || {
        let lines: std::io::Result<Vec<String>> = output.lines().collect();
        lines.expect("the child's output")
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for the child") {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().expect("kill a child that hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let lines = reader.join().expect("the reader");
    let done = lines.iter().any(|line| line.ends_with(DONE));
    assert!(status.success() && done, "the child failed ({status}):\n{}", lines.join("\n"));
}

/// An empty directory that an ordinary user may use, also when root made it.
pub fn place() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(dir.path(), Some(ORDINARY), Some(ORDINARY)).expect("chown");
    }
    dir
}

/// From here on the calling thread, and each one it starts, is an ordinary
/// user's: nothing that root may do is permitted.
pub fn drop_root() {
    if rustix::process::geteuid().is_root() {
        let (uid, gid) =
            (rustix::process::Uid::from_raw(ORDINARY), rustix::process::Gid::from_raw(ORDINARY));
        set_thread_groups(&[]).expect("leave root's groups");
        set_thread_res_gid(gid, gid, gid).expect("leave root's group");
        set_thread_res_uid(uid, uid, uid).expect("leave root's user");
    }
    assert!(!rustix::process::geteuid().is_root(), "still root");
}

/// Sets how many files the process may have open; it may raise it again.
pub fn limit_open_files(count: u64) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum }).expect("set the limit");
}
