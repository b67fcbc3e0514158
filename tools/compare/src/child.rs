//! This binary, or another program, as a process of its own.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use ouro_bench::failure::Failure;
use serde_json::Value;

/// Whether what a process has to tell besides its result is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Right away.
    Shown,
    /// Only if it fails.
    Kept,
}

/// The last lines of what a process said that are repeated when it fails.
const LINES_TOLD: usize = 4;

/// Runs this binary again, and returns its result.
///
/// # Errors
/// With what it was refused for, or how it ended.
pub fn this_binary(
    what: &str,
    arguments: &[impl AsRef<OsStr>],
    cgroup: Option<&Path>,
    telling: Telling,
) -> Result<Value, Failure> {
    let binary = std::env::current_exe().map_err(Failure::os("cannot find this binary"))?;
    let mut command = in_cgroup(cgroup, &binary);
    command.args(arguments).stderr(match telling {
        Telling::Shown => Stdio::inherit(),
        Telling::Kept => Stdio::piped(),
    });
    let output = run(what, &mut command)?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::Other(format!("{what} printed no result: {error}")))
}

/// A command that runs in a cgroup, whose `cgroup.procs` this is.
#[must_use]
pub fn in_cgroup(cgroup: Option<&Path>, program: &Path) -> Command {
    let Some(procs) = cgroup else {
        return Command::new(program);
    };
    // A shell that goes into the cgroup, and becomes the program.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "echo 0 > \"$0\" || exit 6; exec \"$@\""]).arg(procs).arg(program);
    command
}

/// Runs a process to its end.
///
/// # Errors
/// With what it was refused for, or how it ended.
pub fn run(what: &str, command: &mut Command) -> Result<Output, Failure> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(Failure::os(format!("cannot start {what}")))?;
    match judge(output.status) {
        Ended::Well => Ok(output),
        Ended::Interrupted => Err(Failure::Interrupted),
        Ended::Badly(how) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
            let last = lines[lines.len().saturating_sub(LINES_TOLD)..].join("\n  ");
            let colon = if last.is_empty() { "" } else { ":\n  " };
            let reason = format!("{what} {how}{colon}{last}");
            Err(match output.status.code() {
                Some(2) => Failure::Usage(reason),
                _ => Failure::Other(reason),
            })
        }
    }
}

/// SIGKILL: what the kernel sends for a memory cgroup.
const KILLED: i32 = 9;

enum Ended {
    Well,
    Interrupted,
    Badly(String),
}

fn judge(status: ExitStatus) -> Ended {
    match status.code() {
        Some(0) => Ended::Well,
        Some(2) => Ended::Badly("was refused".to_owned()),
        Some(130 | 143) => Ended::Interrupted,
        None if status.signal() == Some(KILLED) => {
            Ended::Badly("was killed, as for more memory than it may have".to_owned())
        }
        _ => Ended::Badly(format!("failed: {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Output, Failure> {
        run("it", Command::new("/bin/sh").args(["-c", script]))
    }

    #[test]
    fn what_a_process_said_last_is_repeated() {
        assert_eq!(shell("echo 7").unwrap().stdout, b"7\n");
        let failure = shell("for i in 1 2 3 4 5 6; do echo $i >&2; done; exit 7").unwrap_err();
        assert_eq!(failure.to_string(), "it failed: exit status: 7:\n  3\n  4\n  5\n  6");
        assert_eq!(failure.exit_code(), 7);
        let failure = shell("echo no such flag >&2; exit 2").unwrap_err();
        assert_eq!(failure.to_string(), "it was refused:\n  no such flag");
        assert_eq!(failure.exit_code(), 2);
        assert!(matches!(shell("exit 130"), Err(Failure::Interrupted)));
        assert!(shell("kill -9 $$").unwrap_err().to_string().contains("memory"));
        // Some signals are ignored where this was started in the background.
        assert!(shell("kill -15 $$").unwrap_err().to_string().contains("signal: 15"));
    }

    #[test]
    fn who_joins_a_cgroup_becomes_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let procs = dir.path().join("cgroup.procs");
        let mut command = in_cgroup(Some(&procs), Path::new("/bin/echo"));
        let output = run("echo", command.args(["a b", "c"])).unwrap();
        assert_eq!(output.stdout, b"a b c\n");
        assert_eq!(std::fs::read_to_string(procs).unwrap(), "0\n");
    }
}
