//! File systems that are mounted for a while.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// A file system whose device is busy is tried again, for this long in all: a
/// process that was killed lets go of its files only after a while.
const UNMOUNT_ATTEMPTS: u32 = 100;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(100);

/// A file system; unmounted when dropped.
pub(crate) struct Mount {
    point: PathBuf,
}

impl Mount {
    /// A file system in memory, of the kind that `mount` knows by this name.
    pub(crate) fn memory(kind: &str, point: &Path) -> Result<Self, String> {
        Self::new(point, &["-t", kind, "-o", "size=64m", "none"])
    }

    /// The hierarchy of cgroups of this kind with these options.
    pub(crate) fn cgroups(kind: &str, options: &str, point: &Path) -> Result<Self, String> {
        Self::new(point, &["-t", kind, "-o", options, "none"])
    }

    /// ext4 of `size_mib` on a loop device, which stores it in `image`.
    pub(crate) fn ext4(image: &Path, size_mib: u64, point: &Path) -> Result<Self, String> {
        let file = std::fs::File::create(image).map_err(|error| error.to_string())?;
        file.set_len(size_mib << 20).map_err(|error| error.to_string())?;
        let image = image.to_str().ok_or("a path that is not UTF-8")?;
        // Without room that only root may use, full is full.
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", image]))?;
        // The loop device goes away with the mount.
        Self::new(point, &["-t", "ext4", "-o", "loop", image])
    }

    fn new(point: &Path, arguments: &[&str]) -> Result<Self, String> {
        std::fs::create_dir_all(point).map_err(|error| error.to_string())?;
        run(Command::new("mount").args(arguments).arg(point))?;
        Ok(Self { point: point.to_owned() })
    }

    pub(crate) fn point(&self) -> &Path {
        &self.point
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        for _ in 0..UNMOUNT_ATTEMPTS {
            if run(Command::new("umount").arg(&self.point)).is_ok() {
                return;
            }
            thread::sleep(UNMOUNT_PAUSE);
        }
        let lazily = run(Command::new("umount").arg("--lazy").arg(&self.point));
        let point = self.point.display();
        match lazily {
            Ok(()) => eprintln!("ouro-crash: {point} was busy, and goes away with its last user"),
            Err(what) => eprintln!("ouro-crash: {point} stays mounted: {what}"),
        }
    }
}

/// Runs a command of the system.
fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}: {}", output.status, said.trim()))
}
