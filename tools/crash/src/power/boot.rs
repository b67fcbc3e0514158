//! Boots of the machine, as far as an engine can tell.
//!
//! A machine whose power was cut boots again, and what it had in memory is gone:
//! the engine counts on that only as long as the kernel names the same boot. So
//! here there is a file in place of the kernel's, which names another boot for
//! each life.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Where the kernel says what boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Stands in for the kernel's file; removed when dropped.
pub(super) struct Boot {
    path: PathBuf,
    number: u64,
}

impl Boot {
    /// Puts a file in `dir` into the place of the kernel's, for this thread, those that it
    /// starts from now on, and their processes: they have mounts of their own from now on. What
    /// these mount nobody else sees, and it goes away with the last of them.
    #[allow(unsafe_code, reason = "to be alone with one's mounts")]
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let boot = Self { path: dir.join("boot"), number: 0 };
        fs::write(&boot.path, name(boot.number))?;
        // SAFETY: no descriptors are unshared, whose numbers other threads might rely on; this
        // thread alone gets mounts, a root and a working directory of its own.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private)?;
        mount_bind(&boot.path, BOOT_ID)?;
        Ok(boot)
    }

    /// The machine boots once more.
    pub(super) fn next(&mut self) -> io::Result<()> {
        self.number += 1;
        // In place: it is this file that is seen.
        let mut file = File::options().write(true).open(&self.path)?;
        io::Write::write_all(&mut file, name(self.number).as_bytes())
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        // Nothing is lost if it stays.
        let _ = fs::remove_file(&self.path);
    }
}

/// How the kernel would name a boot; all names have one length.
fn name(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Who may not mount has nothing that needs it.
    #[test]
    fn processes_find_the_boot_that_they_are_in() {
        let before = fs::read_to_string(BOOT_ID).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let seen = std::thread::scope(|scope| {
            let in_boot = || {
                let mut boot = match Boot::new(dir.path()) {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
                    boot => boot.unwrap(),
                };
                boot.next().unwrap();
                boot.next().unwrap();
                let output = Command::new("cat").arg(BOOT_ID).output().unwrap();
                Some(String::from_utf8(output.stdout).unwrap())
            };
            scope.spawn(in_boot).join().unwrap()
        });
        assert!(seen.is_none_or(|seen| seen == "00000000-0000-4000-8000-000000000002\n"));
        assert_eq!(fs::read_to_string(BOOT_ID).unwrap(), before);
    }
}
