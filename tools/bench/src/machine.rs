//! The machine a result was measured on, and the process's CPU time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

/// What a reader of the result should know of the machine. What cannot be found
/// out is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Operating system, release, version and architecture, as `uname` says.
    pub kernel: String,
    /// The processor's model.
    pub cpu: Option<String>,
    /// Processors this process may use.
    pub cpus: Option<usize>,
    /// All memory of the machine.
    pub memory_bytes: Option<u64>,
    /// The block device below the database's directory.
    pub device: Option<String>,
    /// The file system of the directory.
    pub file_system: Option<String>,
}

impl Machine {
    /// Looks around, from a database's directory.
    #[must_use]
    pub fn look(dir: &Path) -> Self {
        let uname = rustix::system::uname();
        let parts = [uname.sysname(), uname.release(), uname.version(), uname.machine()];
        let mount = Mount::of(dir);
        Self {
            kernel: parts.map(|part| part.to_string_lossy().into_owned()).join(" "),
            cpu: field("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism().ok().map(usize::from),
            memory_bytes: field("/proc/meminfo", "MemTotal").and_then(|text| {
                text.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
            }),
            device: device(dir).or_else(|| mount.as_ref().map(|mount| mount.source.clone())),
            file_system: mount.map(|mount| mount.file_system),
        }
    }
}

/// CPU time this process has used, all its threads together.
#[must_use]
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Memory of this process that is there now.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Has the kernel write all that waits for it, of all files, so that whoever is measured next
/// does not share the disk with it.
pub fn sync() {
    rustix::fs::sync();
}

/// Bytes that are free for this user's files below `dir`; `None` where the file system does
/// not say, as some in memory.
pub fn free_bytes(dir: &Path) -> io::Result<Option<u64>> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok((stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize)))
}

/// The first `name: value` line of a file in /proc.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value)
    })?;
    Some(value.trim().to_owned())
}

/// The name of the block device that holds `dir`, as in /sys/block.
fn device(dir: &Path) -> Option<String> {
    let id = rustix::fs::stat(dir).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(id), rustix::fs::minor(id));
    let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// A line of /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    file_system: String,
    source: String,
}

impl Mount {
    /// The mount that `dir` is on.
    fn of(dir: &Path) -> Option<Self> {
        let dir = fs::canonicalize(dir).ok()?;
        Self::find(&fs::read_to_string("/proc/self/mountinfo").ok()?, &dir)
    }

    /// The mount with the longest mount point above `dir`; of several on one
    /// point, the last covers the others.
    fn find(mountinfo: &str, dir: &Path) -> Option<Self> {
        mountinfo
            .lines()
            .filter_map(Self::parse)
            .filter(|mount| dir.starts_with(&mount.point))
            .max_by_key(|mount| mount.point.components().count())
    }

    /// `36 35 98:0 /root /mount/point options [optional…] - ext4 /dev/sda1 …`:
    /// see proc_pid_mountinfo(5).
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        Some(Self {
            point: PathBuf::from(unescape(before.split(' ').nth(4)?)),
            file_system: after.next()?.to_owned(),
            source: unescape(after.next()?),
        })
    }
}

/// Undoes the kernel's escapes of blanks: `\040` is a space.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                result.push(char::from(code));
                result.push_str(&part[3..]);
            }
            None => {
                result.push('\\');
                result.push_str(part);
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
25 22 0:22 / /proc rw shared:1 - proc proc rw
30 22 252:0 / /mnt/fast\\040disk rw master:1 shared:2 - ext4 /dev/zram0 rw
31 22 0:40 / /mnt rw - tmpfs tmpfs rw
32 22 0:41 / /mnt rw - xfs /dev/sdb1 rw
";

    #[test]
    fn the_innermost_and_last_mount_is_found() {
        let find = |dir: &str| Mount::find(MOUNTINFO, Path::new(dir)).unwrap();
        assert_eq!(find("/home/me").source, "/dev/root");
        assert_eq!(find("/mnt/fast disk/db").source, "/dev/zram0");
        assert_eq!(find("/mnt/fast").file_system, "xfs");
        assert_eq!(find("/mnt2").file_system, "ext4");
        assert_eq!(Mount::find("", Path::new("/")), None);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"a\040b\011c"), "a b\tc");
        assert_eq!(unescape(r"a\b"), r"a\b");
        assert_eq!(unescape(r"\134"), "\\");
    }

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::look(&std::env::temp_dir());
        assert!(machine.kernel.starts_with("Linux "), "{machine:?}");
        assert!(machine.cpus.unwrap() > 0);
        assert!(machine.memory_bytes.unwrap() > 1 << 20);
        assert!(!machine.file_system.unwrap().is_empty());
    }

    #[test]
    fn cpu_time_passes_with_work() {
        let begin = cpu_time();
        let mut x = 0_u64;
        while cpu_time() - begin < Duration::from_millis(2) {
            x = crate::permutation::mix64(x);
        }
        assert_ne!(x, 0);
    }
}
