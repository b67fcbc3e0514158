//! A memory cgroup that kills who takes more than it allows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use crate::mounts::Mount;

/// A cgroup is busy until the last of its processes is gone for good.
const REMOVE_ATTEMPTS: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(50);

/// The files of the controller, in the two versions that kernels have.
struct Files {
    limit: &'static str,
    /// Of memory and swap in v1, of swap in v2; not there where there is no
    /// swap.
    swap_limit: &'static str,
    /// The most there ever was; from Linux 5.19 on in v2.
    peak: &'static str,
    events: &'static str,
}

const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    swap_limit: "memory.memsw.limit_in_bytes",
    peak: "memory.max_usage_in_bytes",
    events: "memory.oom_control",
};

const V2: Files = Files {
    limit: "memory.max",
    swap_limit: "memory.swap.max",
    peak: "memory.peak",
    events: "memory.events",
};

/// A cgroup of one's own; removed when dropped.
pub(crate) struct Cgroup {
    dir: PathBuf,
    files: &'static Files,
    /// After the cgroup: where it is found, if it was not mounted.
    _mount: Option<Mount>,
}

impl Cgroup {
    /// One whose processes may have so many bytes of memory, and no swap. If
    /// the controller is not mounted, it is, at `point`.
    pub(crate) fn new(limit_bytes: u64, point: &Path) -> Result<Self, String> {
        let (root, files, mount) = match mounted()? {
            Some((root, files)) => (root, files, None),
            None => {
                let (files, mount) = mount(point)?;
                (point.to_owned(), files, Some(mount))
            }
        };
        let dir = root.join(format!("ouro-crash-{}", process::id()));
        fs::create_dir(&dir).map_err(|error| format!("no memory cgroup can be made: {error}"))?;
        let cgroup = Self { dir, files, _mount: mount };
        cgroup.write(files.limit, limit_bytes)?;
        if cgroup.dir.join(files.swap_limit).exists() {
            cgroup
                .write(files.swap_limit, if files.limit == V2.limit { 0 } else { limit_bytes })?;
        }
        Ok(cgroup)
    }

    /// Who writes "0" into this file is in the cgroup.
    pub(crate) fn join(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// The most bytes that were ever in use, what the kernel has for its
    /// processes included.
    pub(crate) fn peak_bytes(&self) -> Option<u64> {
        fs::read_to_string(self.dir.join(self.files.peak)).ok()?.trim().parse().ok()
    }

    /// Whether a process was killed for its memory.
    pub(crate) fn has_killed(&self) -> bool {
        let events = fs::read_to_string(self.dir.join(self.files.events)).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.is_some_and(|count| count.trim() != "0")
    }

    fn write(&self, file: &str, value: u64) -> Result<(), String> {
        fs::write(self.dir.join(file), value.to_string())
            .map_err(|error| format!("{file} of a memory cgroup cannot be set: {error}"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..REMOVE_ATTEMPTS {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            thread::sleep(REMOVE_PAUSE);
        }
        eprintln!("ouro-crash: the cgroup {} stays: it is in use", self.dir.display());
    }
}

/// Where a hierarchy with the memory controller is mounted.
fn mounted() -> Result<Option<(PathBuf, &'static Files)>, String> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
    Ok(mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (root, kind, options) = (PathBuf::from(fields.next()?), fields.next()?, fields.next()?);
        let files = match kind {
            "cgroup" if options.split(',').any(|option| option == "memory") => &V1,
            "cgroup2" if enable(&root) => &V2,
            _ => return None,
        };
        Some((root, files))
    }))
}

/// Whether cgroups of this hierarchy of version 2 have the controller.
fn enable(root: &Path) -> bool {
    // Where the kernel gave it to version 1 it cannot be had.
    fs::write(root.join("cgroup.subtree_control"), "+memory").is_ok()
}

fn mount(point: &Path) -> Result<(&'static Files, Mount), String> {
    if let Ok(mount) = Mount::cgroups("cgroup2", "rw", point)
        && enable(mount.point())
    {
        return Ok((&V2, mount));
    }
    let mount = Mount::cgroups("cgroup", "memory", point);
    mount.map(|mount| (&V1, mount)).map_err(|what| format!("there are no memory cgroups: {what}"))
}
