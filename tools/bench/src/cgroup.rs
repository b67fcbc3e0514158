//! Cgroups: one with little memory, which kills who takes more, and others.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use crate::mounts::Mount;

/// A cgroup is busy until the last of its processes is gone for good.
const REMOVE_ATTEMPTS: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(50);

/// The files of the memory controller, in the two versions that kernels have.
struct Files {
    limit: &'static str,
    /// Of memory and swap in v1, of swap in v2; not there where there is no
    /// swap.
    swap_limit: &'static str,
    /// Written to, it lets go of the page cache, if there are no processes.
    empty: &'static str,
    /// The most there ever was; from Linux 5.19 on in v2.
    peak: &'static str,
    events: &'static str,
}

const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    swap_limit: "memory.memsw.limit_in_bytes",
    empty: "memory.force_empty",
    peak: "memory.max_usage_in_bytes",
    events: "memory.oom_control",
};

const V2: Files = Files {
    limit: "memory.max",
    swap_limit: "memory.swap.max",
    empty: "memory.reclaim",
    peak: "memory.peak",
    events: "memory.events",
};

/// A controller, by its name in each version.
pub struct Controller {
    /// The first's.
    pub v1: &'static str,
    /// The second's.
    pub v2: &'static str,
}

const MEMORY: Controller = Controller { v1: "memory", v2: "memory" };

/// A version of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    V1,
    /// One hierarchy.
    V2,
}

/// A cgroup of one's own, for one controller; removed when dropped.
pub struct Group {
    dir: PathBuf,
    /// Of the hierarchy it is in.
    pub version: Version,
    /// After the cgroup: where it is found, if it was not mounted.
    _mount: Option<Mount>,
}

impl Group {
    /// If the controller is not mounted, it is, at `point`.
    pub fn new(controller: &Controller, point: &Path) -> Result<Self, String> {
        let (root, version, mount) = match mounted(controller)? {
            Some((root, version)) => (root, version, None),
            None => {
                let (version, mount) = mount(controller, point)?;
                (point.to_owned(), version, Some(mount))
            }
        };
        let dir = root.join(format!("ouro-{}", process::id()));
        fs::create_dir(&dir)
            .map_err(|error| format!("no {} cgroup can be made: {error}", controller.v1))?;
        Ok(Self { dir, version, _mount: mount })
    }

    /// Who writes "0" into this file is in the cgroup.
    pub fn join(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// Writes to a file of the cgroup.
    pub fn write(&self, file: &str, value: &str) -> Result<(), String> {
        fs::write(self.dir.join(file), value)
            .map_err(|error| format!("{file} of a cgroup cannot be set to {value:?}: {error}"))
    }
}

/// A cgroup whose processes have little memory.
pub struct Cgroup {
    group: Group,
    files: &'static Files,
    limit_bytes: u64,
}

impl Cgroup {
    /// One whose processes may have so many bytes of memory, and no swap. If
    /// the controller is not mounted, it is, at `point`.
    pub fn new(limit_bytes: u64, point: &Path) -> Result<Self, String> {
        let group = Group::new(&MEMORY, point)?;
        let files = if group.version == Version::V1 { &V1 } else { &V2 };
        group.write(files.limit, &limit_bytes.to_string())?;
        if group.dir.join(files.swap_limit).exists() {
            let swap = if group.version == Version::V2 { 0 } else { limit_bytes };
            group.write(files.swap_limit, &swap.to_string())?;
        }
        Ok(Self { group, files, limit_bytes })
    }

    /// Who writes "0" into this file is in the cgroup.
    pub fn join(&self) -> PathBuf {
        self.group.join()
    }

    /// Takes from it what its processes left in the page cache, so that those to come begin
    /// without. Pages that are to be written stay: sync before.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn empty(&self) -> Result<(), String> {
        let wrote = self.group.write(self.files.empty, &self.limit_bytes.to_string());
        match self.group.version {
            // It fails when there is less to be had than was asked for.
            Version::V2 => Ok(()),
            Version::V1 => wrote,
        }
    }

    /// The most bytes that were ever in use, what the kernel has for its
    /// processes included.
    pub fn peak_bytes(&self) -> Option<u64> {
        fs::read_to_string(self.group.dir.join(self.files.peak)).ok()?.trim().parse().ok()
    }

    /// Whether a process was killed for its memory.
    pub fn has_killed(&self) -> bool {
        let events = fs::read_to_string(self.group.dir.join(self.files.events)).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.is_some_and(|count| count.trim() != "0")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..REMOVE_ATTEMPTS {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            thread::sleep(REMOVE_PAUSE);
        }
        eprintln!("warning: the cgroup {} stays: it is in use", self.dir.display());
    }
}

/// Where a hierarchy with the controller is mounted.
fn mounted(controller: &Controller) -> Result<Option<(PathBuf, Version)>, String> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
    Ok(mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (root, kind, options) = (PathBuf::from(fields.next()?), fields.next()?, fields.next()?);
        let version = match kind {
            "cgroup" if options.split(',').any(|option| option == controller.v1) => Version::V1,
            "cgroup2" if enable(controller, &root) => Version::V2,
            _ => return None,
        };
        Some((root, version))
    }))
}

/// Whether cgroups of this hierarchy of version 2 have the controller.
fn enable(controller: &Controller, root: &Path) -> bool {
    // Where the kernel gave it to version 1 it cannot be had.
    fs::write(root.join("cgroup.subtree_control"), format!("+{}", controller.v2)).is_ok()
}

fn mount(controller: &Controller, point: &Path) -> Result<(Version, Mount), String> {
    if let Ok(mount) = Mount::cgroups("cgroup2", "rw", point)
        && enable(controller, mount.point())
    {
        return Ok((Version::V2, mount));
    }
    let name = controller.v1;
    let mount = Mount::cgroups("cgroup", name, point);
    mount
        .map(|mount| (Version::V1, mount))
        .map_err(|what| format!("there are no {name} cgroups: {what}"))
}
