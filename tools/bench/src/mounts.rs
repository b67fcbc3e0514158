//! File systems that are mounted for a while.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// A file system whose device is busy is tried again, for this long in all: a
/// process that was killed lets go of its files only after a while.
const UNMOUNT_ATTEMPTS: u32 = 1000;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(10);

/// A file system; unmounted when dropped.
pub struct Mount {
    point: PathBuf,
}

impl Mount {
    /// A file system in memory, of the kind that `mount` knows by this name.
    pub fn memory(kind: &str, point: &Path) -> Result<Self, String> {
        Self::new(point, &["-t", kind, "-o", "size=64m", "none"])
    }

    /// The hierarchy of cgroups of this kind with these options.
    pub fn cgroups(kind: &str, options: &str, point: &Path) -> Result<Self, String> {
        Self::new(point, &["-t", kind, "-o", options, "none"])
    }

    /// ext4 of `size_mib` on a loop device, which stores it in `image`.
    pub fn ext4(image: &Path, size_mib: u64, point: &Path) -> Result<Self, String> {
        let file = std::fs::File::create(image).map_err(|error| error.to_string())?;
        file.set_len(size_mib << 20).map_err(|error| error.to_string())?;
        let image = image.to_str().ok_or("a path that is not UTF-8")?;
        // Without room that only root may use, full is full.
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", image]))?;
        // The loop device goes away with the mount.
        Self::new(point, &["-t", "ext4", "-o", "loop", image])
    }

    /// The file system of this kind that is in a file, on a loop device that does
    /// not cache it. With `discard` the file is told of each place that is no longer
    /// in use, as of a hole to punch.
    pub fn disk(kind: &str, disk: &Path, point: &Path, discard: bool) -> Result<Self, String> {
        let disk = disk.to_str().ok_or("a path that is not UTF-8")?;
        let device =
            run(Command::new("losetup").args(["--find", "--show", "--direct-io=on", disk]))?;
        let device = device.trim();
        let options = if discard { "discard" } else { "nodiscard" };
        let passes = if discard { passes_discards(device) } else { Ok(()) };
        let mount = passes.and_then(|()| Self::new(point, &["-t", kind, "-o", options, device]));
        // While it is in use, it goes away with the mount.
        let detached = run(Command::new("losetup").args(["--detach", device]));
        let mount = mount?;
        detached?;
        Ok(mount)
    }

    fn new(point: &Path, arguments: &[&str]) -> Result<Self, String> {
        std::fs::create_dir_all(point).map_err(|error| error.to_string())?;
        run(Command::new("mount").args(arguments).arg(point))?;
        Ok(Self { point: point.to_owned() })
    }

    /// A directory of another one, at a place of its own.
    pub fn bind(directory: &Path, point: &Path) -> Result<Self, String> {
        let directory = directory.to_str().ok_or("a path that is not UTF-8")?;
        Self::new(point, &["--bind", directory])
    }

    /// One that was mounted there by other means.
    pub fn at(point: &Path) -> Self {
        Self { point: point.to_owned() }
    }

    /// From now on nothing can be written to it.
    pub fn make_read_only(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.point)).map(drop)
    }

    /// Where it is mounted.
    pub fn point(&self) -> &Path {
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
            Ok(_) => eprintln!("warning: {point} was busy, and goes away with its last user"),
            Err(what) => eprintln!("warning: {point} stays mounted: {what}"),
        }
    }
}

/// Where it does not, a file system mounted to discard says nothing of it.
fn passes_discards(device: &str) -> Result<(), String> {
    let name = device.strip_prefix("/dev/").unwrap_or(device);
    let limit = format!("/sys/block/{name}/queue/discard_max_bytes");
    let bytes = std::fs::read_to_string(&limit).map_err(|error| format!("{limit}: {error}"))?;
    match bytes.trim() {
        "0" => Err(format!("{device} passes no discards on: {limit} is 0")),
        _ => Ok(()),
    }
}

/// Runs a command of the system, and returns what it says, in English. Ctrl-C is for its
/// parent only.
pub fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.env("LC_ALL", "C").process_group(0).output();
    let output = output.map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}: {}", output.status, said.trim()))
}
