//! What `ouro-crash power` says where it cannot work. Where it can is a matter of
//! root, FUSE and loop devices, and not tested here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

/// The user and group of somebody who is not root.
const ORDINARY: u32 = 65534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether the machine has all that is looked for before what a test takes away.
fn has(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).exists());
    let has =
        is_root() && Path::new("/dev/fuse").exists() && programs.iter().all(|&of| is_there(of));
    if !has {
        eprintln!("skipped: needs root, /dev/fuse, and {}", programs.join(", "));
    }
    has
}

/// Runs it, with its temporary directory in `place`.
fn power(command: &mut Command, place: &Path) -> Output {
    command.args(["power", "--cuts", "1"]).env("TMPDIR", place).output().unwrap()
}

/// It was not supported, and it said all of these words.
fn assert_unsupported(run: &Output, says: &[&str]) {
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(6), "{stderr}");
    assert!(says.iter().all(|words| stderr.contains(words)), "{stderr}");
    let stdout = String::from_utf8_lossy(&run.stdout);
    assert!(!stdout.contains("ok:"), "{stdout}");
}

#[test]
fn an_ordinary_user_is_told_what_it_needs() {
    let place = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_ouro-crash"));
    let mut command = Command::new(program);
    if is_root() {
        // Where that user can reach it.
        let copy = place.path().join("ouro-crash");
        std::fs::copy(program, &copy).unwrap();
        for path in [place.path(), &copy] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        command = Command::new(copy);
        command.uid(ORDINARY).gid(ORDINARY);
    }
    let run = power(&mut command, place.path());
    assert_unsupported(&run, &["needs root", "sudo"]);
}

/// An ordinary user comes no further than to be told of root.
#[test]
fn root_is_told_of_a_program_that_is_missing() {
    if !has(&[]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ouro-crash"));
    let run = power(command.env("PATH", place.path()), place.path());
    assert_unsupported(&run, &["cannot run mkfs.ext4", "install the package e2fsprogs"]);
}

/// As in a container: root, who may not mount.
#[test]
fn root_without_its_powers_is_told_what_it_needs() {
    if !has(&["setpriv", "mkfs.ext4", "losetup", "mount"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]);
    let run = power(command.arg(env!("CARGO_BIN_EXE_ouro-crash")), place.path());
    assert_unsupported(&run, &["have mounts of its own", "CAP_SYS_ADMIN", "--privileged"]);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "something was left behind");
}
