//! Runs the real binary in directories of its own.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use tempfile::TempDir;

/// A database directory that is not there yet, in a directory that is removed
/// at the end.
pub(crate) struct Place {
    root: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("db")
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.root.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// `ouro <arguments> --dir <the database>`
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        ouro(&self.dir(), arguments)
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        output(self.command(arguments), b"")
    }

    /// Runs a command with an input.
    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Output {
        output(self.command(arguments), stdin)
    }

    /// Runs a command that succeeds, and returns its stdout.
    pub(crate) fn ok(&self, arguments: &[&str]) -> Vec<u8> {
        succeeded(self.run(arguments))
    }

    /// Imports text that is good.
    pub(crate) fn import(&self, format: &str, text: &[u8]) -> Vec<u8> {
        succeeded(self.run_with(&["import", "--format", format, "-"], text))
    }
}

pub(crate) fn ouro(dir: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ouro"));
    command.arg("--dir").arg(dir).args(arguments).stdin(Stdio::null());
    command
}

pub(crate) fn output(mut command: Command, stdin: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    // A command that stops early closes its end; what it did is judged by its
    // output, not by how much of the input it took.
    let feeder = std::thread::spawn(move || drop(input.write_all(&stdin)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output
}

pub(crate) fn succeeded(output: Output) -> Vec<u8> {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    output.stdout
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn last_line(stdout: &[u8]) -> String {
    str::from_utf8(stdout).unwrap().lines().last().unwrap().to_owned()
}

/// The counts with which an import ends.
pub(crate) fn counts(lines: usize, rows: usize, bad: usize) -> String {
    let s = |count| if count == 1 { "" } else { "s" };
    format!(
        "{lines} line{} acknowledged, {rows} row{} imported, {bad} bad line{}",
        s(lines),
        s(rows),
        s(bad)
    )
}

/// An import from stdin, which this side keeps open: it is alive until it is
/// killed or its input is closed.
pub(crate) struct RunningImport {
    pub(crate) child: Child,
    pub(crate) input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl RunningImport {
    pub(crate) fn start(place: &Place) -> Self {
        let mut child = place
            .command(&["import", "--format", "tsv", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    pub(crate) fn send(&mut self, text: &[u8]) {
        self.input.as_mut().unwrap().write_all(text).unwrap();
    }

    /// Waits until at least `lines` lines are acknowledged.
    pub(crate) fn wait_for(&mut self, lines: u64) -> u64 {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the import ended early");
            let acknowledged = acknowledged(&line).expect("an acknowledgement");
            if acknowledged >= lines {
                return acknowledged;
            }
        }
    }

    /// What it printed besides what `wait_for` has read.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        rest
    }
}

/// N of a whole line `acknowledged N`.
pub(crate) fn acknowledged(line: &str) -> Option<u64> {
    line.strip_suffix('\n')?.strip_prefix("acknowledged ")?.parse().ok()
}
