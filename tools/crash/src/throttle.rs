//! A disk whose writes can be held back: those that were submitted go on after
//! the death of who submitted them, for as long as one likes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fs::{major, minor};

use ouro_bench::cgroup::{Controller, Group, Version};
use ouro_bench::mounts::Mount;

const CONTROLLER: Controller = Controller { v1: "blkio", v2: "io" };

const DISK_MIB: u64 = 512;

/// A write of one block takes seconds.
const SLOW_BYTES_PER_S: u64 = 1024;

/// ext4 on a loop device, and a cgroup whose writes to it can be slowed down.
pub(crate) struct Throttle {
    // In this order they are dropped: the disk is free once nobody uses it.
    group: Group,
    mount: Mount,
    device: String,
}

impl Throttle {
    /// At work in `place`, which is empty or absent. Says what is missing if it
    /// cannot be.
    pub(crate) fn new(place: &Path) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("it mounts a file system and needs root".to_owned());
        }
        fs::create_dir_all(place).map_err(|error| format!("{}: {error}", place.display()))?;
        let group = Group::new(&CONTROLLER, &place.join("cgroups"))?;
        let mount = Mount::ext4(&place.join("image"), DISK_MIB, &place.join("disk"))?;
        let device = fs::metadata(mount.point()).map_err(|error| error.to_string())?.dev();
        let device = format!("{}:{}", major(device), minor(device));
        let throttle = Self { group, mount, device };
        // Where the kernel has no throttling, better now than in the midst of it.
        throttle.slow()?;
        throttle.lift()?;
        Ok(throttle)
    }

    /// The root of its file system.
    pub(crate) fn disk(&self) -> &Path {
        self.mount.point()
    }

    /// Writes of who writes "0" into this file can be slowed down.
    pub(crate) fn join(&self) -> PathBuf {
        self.group.join()
    }

    /// Holds back writes from now on.
    pub(crate) fn slow(&self) -> Result<(), String> {
        self.slow_to(SLOW_BYTES_PER_S)
    }

    /// Lets so many bytes be written a second, from now on.
    pub(crate) fn slow_to(&self, bytes_per_s: u64) -> Result<(), String> {
        self.limit(Some(bytes_per_s))
    }

    /// Lets all go that was held back.
    pub(crate) fn lift(&self) -> Result<(), String> {
        self.limit(None)
    }

    /// What the device has done, in units of 512 bytes.
    pub(crate) fn sectors_written(&self) -> io::Result<u64> {
        let stat = fs::read_to_string(format!("/sys/dev/block/{}/stat", self.device))?;
        // The fields are documented in Documentation/block/stat.rst of Linux.
        let field = stat.split_whitespace().nth(6).and_then(|field| field.parse().ok());
        field.ok_or_else(|| io::Error::other(format!("unexpected statistics of a disk: {stat}")))
    }

    fn limit(&self, bytes_per_s: Option<u64>) -> Result<(), String> {
        let device = &self.device;
        match self.group.version {
            Version::V1 => {
                let limit = bytes_per_s.unwrap_or(0);
                self.group.write("blkio.throttle.write_bps_device", &format!("{device} {limit}"))
            }
            Version::V2 => {
                let limit = bytes_per_s.map_or("max".to_owned(), |bytes| bytes.to_string());
                self.group.write("io.max", &format!("{device} wbps={limit}"))
            }
        }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // Else the unmounting waits for what is held back.
        if let Err(what) = self.lift() {
            eprintln!("ouro-crash: {what}");
        }
    }
}
