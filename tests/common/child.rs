//! Tests that need a process of their own, because they limit it: the test
//! binary starts itself again, for that one test.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{self, ChildStdout, Command, Stdio};
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
pub(crate) fn in_child(test: &str, body: impl FnOnce(&Path)) {
    if be_child(test, body) {
        return;
    }
    let dir = place();
    Child::start(test, dir.path()).finish();
}

/// In the child that [`Child::start`] started: runs `body`, and returns true.
pub(crate) fn be_child(test: &str, body: impl FnOnce(&Path)) -> bool {
    if std::env::var_os(TEST).is_none_or(|name| name != test) {
        return false;
    }
    let dir = PathBuf::from(std::env::var_os(DIR).expect("the parent sets it"));
    body(&dir);
    println!("{DONE}");
    true
}

/// A child; killed when it is dropped.
pub(crate) struct Child {
    process: process::Child,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts a child, which runs the test's [`be_child`].
    pub(crate) fn start(test: &str, dir: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("the test's binary"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(TEST, test)
            .env(DIR, dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a child");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        Self { process, output }
    }

    /// Reads what the child says, up to a line that ends with these words.
    pub(crate) fn wait_for(&mut self, words: &str) {
        let mut line = String::new();
        while !line.trim_end().ends_with(words) {
            line.clear();
            let read = self.output.read_line(&mut line).expect("the child's output");
            assert!(read > 0, "the child ended before it said {words:?}");
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }

    /// Waits for the child, which must come to its end.
    pub(crate) fn finish(mut self) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().expect("wait for the child") {
                break status;
            }
            if start.elapsed() > PATIENCE {
                self.process.kill().expect("kill a child that hangs");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut said = String::new();
        self.output.read_to_string(&mut said).expect("the child's output");
        assert!(status.success() && said.contains(DONE), "the child failed ({status}):\n{said}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Neither fails for a process that was waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An empty directory that an ordinary user may use, also when root made it.
pub(crate) fn place() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(dir.path(), Some(ORDINARY), Some(ORDINARY)).expect("chown");
    }
    dir
}

/// From here on the calling thread, and each one it starts, is an ordinary
/// user's: nothing that root may do is permitted.
pub(crate) fn drop_root() {
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
pub(crate) fn limit_open_files(count: u64) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum }).expect("set the limit");
}
