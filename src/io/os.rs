//! Calls on files and directories that block: the same for every backend on
//! the real operating system. None of them is on a hot path.

use std::path::Path;

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::{File, Handle, Mapping, OpenMode, mapping};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::limits::UNIT;
use crate::base::sync::assert_unlocked;

/// The methods of [`Io`](super::Io) that are the same with and without a ring:
/// they block, or do not wait at all. Names are those of the calling module.
macro_rules! blocking_calls {
    () => {
        async fn open(&self, path: &Path, mode: OpenMode) -> Result<File> {
            self.counters.metadata();
            os::open(path, mode)
        }

        async fn cut(&self, file: &File, bytes: u64) -> Result<()> {
            self.counters.metadata();
            os::cut(file, bytes)
        }

        async fn len(&self, file: &File) -> Result<u64> {
            os::len(file)
        }

        async fn map(&self, file: &File, bytes: usize) -> Result<Mapping> {
            self.counters.metadata();
            os::map(file, bytes)
        }

        async fn list(&self, dir: &Path) -> Result<Vec<String>> {
            self.counters.metadata();
            os::list(dir)
        }

        async fn create_dir(&self, dir: &Path) -> Result<()> {
            self.counters.metadata();
            os::create_dir(dir)
        }

        async fn remove(&self, path: &Path) -> Result<()> {
            self.counters.metadata();
            os::remove(path)
        }

        async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
            self.counters.metadata();
            os::rename(from, to)
        }

        async fn sync_dir(&self, dir: &Path) -> Result<()> {
            self.counters.sync();
            os::sync_dir(dir)
        }

        async fn try_lock(&self, path: &Path, create: bool) -> Result<Option<File>> {
            os::try_lock(path, create)
        }

        fn unlock(&self, file: &File) -> Result<()> {
            os::unlock(file)
        }

        fn file_id(&self, file: &File) -> Result<[u8; 16]> {
            os::file_id(file)
        }

        fn now_ns(&self) -> u64 {
            os::now_ns()
        }

        fn calendar_s(&self) -> u64 {
            os::calendar_s()
        }

        fn boot_id(&self) -> Result<[u8; 16]> {
            os::boot_id()
        }

        fn random(&self, bytes: &mut [u8]) {
            os::random(bytes);
        }

        fn counters(&self) -> &Arc<IoCounters> {
            &self.counters
        }
    };
}
pub(super) use blocking_calls;

const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

pub(super) fn open(path: &Path, mode: OpenMode) -> Result<File> {
    assert_unlocked("to open a file");
    let access = match mode {
        OpenMode::Read => OFlags::RDONLY,
        OpenMode::ReadWrite | OpenMode::Reuse => OFlags::RDWR,
        OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
    };
    let flags = access | OFlags::DIRECT | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let what = if mode == OpenMode::CreateNew { "create" } else { "open" };
    let fd = rustix::fs::open(path, flags, FILE_MODE).map_err(|errno| match errno {
        Errno::INVAL | Errno::ISDIR if path.is_dir() => a_directory(path),
        Errno::INVAL => no_direct_io(path),
        errno => Error::os(what, path, errno.into()),
    })?;
    let file = File::new(path, Handle::Os(fd));
    check_alignment(&file)?;
    if mode == OpenMode::Reuse {
        check_names(&file)?;
    }
    Ok(file)
}

/// Refuses a file that has another name.
fn check_names(file: &File) -> Result<()> {
    let path = file.path();
    let stat =
        rustix::fs::fstat(file.fd()).map_err(|errno| Error::os("inspect", path, errno.into()))?;
    if stat.st_nlink > 1 {
        let path = path.display();
        return Err(Error::new(ErrorKind::Busy, format!("{path} has another name")));
    }
    Ok(())
}

/// Something else than the engine put it where a file should be.
fn a_directory(path: &Path) -> Error {
    Error::corruption(path, 0, "this is a directory, where a file should be")
}

fn no_direct_io(path: &Path) -> Error {
    Error::unsupported(format!(
        "the file system of {} refuses O_DIRECT, and the engine moves all data that way; put the \
         database on ext4, xfs, btrfs or tmpfs (ramfs and some network and overlay file systems \
         do not do it)",
        path.display()
    ))
}

/// Refuses a file whose device wants requests aligned to more than a unit.
fn check_alignment(file: &File) -> Result<()> {
    let path = file.path();
    let stat = rustix::fs::statx(file.fd(), "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .map_err(|errno| Error::os("inspect", path, errno.into()))?;
    // Kernels and file systems that do not report it get units anyway.
    let reported = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    let wanted = stat.stx_dio_offset_align.max(stat.stx_dio_mem_align) as usize;
    if reported && wanted == 0 {
        return Err(no_direct_io(path));
    }
    if reported && wanted > UNIT {
        return Err(Error::unsupported(format!(
            "the device under {} wants direct I/O aligned to {wanted} bytes; the engine's unit \
             is {UNIT}",
            path.display()
        )));
    }
    Ok(())
}

pub(super) fn cut(file: &File, bytes: u64) -> Result<()> {
    assert_unlocked("to cut a file");
    loop {
        match rustix::fs::ftruncate(file.fd(), bytes) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(Error::os_at("cut", file.path(), Some(bytes), errno.into()));
            }
        }
    }
}

pub(super) fn len(file: &File) -> Result<u64> {
    assert_unlocked("to inspect a file");
    let stat = rustix::fs::fstat(file.fd())
        .map_err(|errno| Error::os("inspect", file.path(), errno.into()))?;
    Ok(stat.st_size as u64)
}

/// The number of the device that the directory is on.
pub(crate) fn device(dir: &Path) -> Result<u64> {
    let stat = rustix::fs::stat(dir).map_err(|errno| Error::os("inspect", dir, errno.into()))?;
    Ok(stat.st_dev)
}

pub(super) fn map(file: &File, bytes: usize) -> Result<Mapping> {
    mapping::check_length(file, len(file)?, bytes)?;
    Mapping::of_file(file, bytes)
}

pub(super) fn list(dir: &Path) -> Result<Vec<String>> {
    assert_unlocked("to list a directory");
    let fail = |errno: Errno| match errno {
        Errno::NOTDIR => not_a_directory(dir),
        errno => Error::os("list", dir, errno.into()),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty()).map_err(fail)?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(fd).map_err(fail)? {
        // A name that is not UTF-8 is none of the engine's.
        if let Ok(name) = entry.map_err(fail)?.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

pub(super) fn create_dir(dir: &Path) -> Result<()> {
    assert_unlocked("to create a directory");
    match rustix::fs::mkdir(dir, Mode::RWXU) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) if dir.is_dir() => Ok(()),
        Err(Errno::EXIST | Errno::NOTDIR) => Err(not_a_directory(dir)),
        Err(errno) => Err(Error::os("create directory", dir, errno.into())),
    }
}

fn not_a_directory(dir: &Path) -> Error {
    Error::invalid(format!(
        "{} is not a directory, or lies within something that is none; name a directory for the \
         database",
        dir.display()
    ))
}

pub(super) fn remove(path: &Path) -> Result<()> {
    assert_unlocked("to remove a file");
    rustix::fs::unlink(path).map_err(|errno| Error::os("remove", path, errno.into()))
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    assert_unlocked("to rename a file");
    rustix::fs::rename(from, to).map_err(|errno| Error::os("rename", from, errno.into()))
}

pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    assert_unlocked("to sync a directory");
    let fail = |errno: Errno| Error::os("sync directory", dir, errno.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty()).map_err(fail)?;
    rustix::fs::fsync(fd).map_err(fail)
}

pub(super) fn try_lock(path: &Path, create: bool) -> Result<Option<File>> {
    assert_unlocked("to lock a file");
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let writes = if create { OFlags::RDWR | OFlags::CREATE } else { OFlags::RDWR };
    // Who only looks needs no more than the lock, also where nothing can be written. Not to
    // wait for anybody, whatever the file is.
    let read = || rustix::fs::open(path, flags | OFlags::NONBLOCK, FILE_MODE);
    let opened = match rustix::fs::open(path, flags | writes, FILE_MODE) {
        // Where there is none, it is why none can be made.
        Err(errno @ (Errno::ROFS | Errno::ACCESS)) => match read() {
            Err(Errno::NOENT) if create => Err(errno),
            opened => opened,
        },
        opened => opened,
    };
    let fd = opened.map_err(|errno| Error::os("open", path, errno.into()))?;
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(File::new(path, Handle::Os(fd)))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(Error::os("lock", path, errno.into())),
    }
}

/// Gives the lock up at once, whoever still knows the file.
pub(super) fn unlock(file: &File) -> Result<()> {
    assert_unlocked("to unlock a file");
    rustix::fs::flock(file.fd(), FlockOperation::Unlock)
        .map_err(|errno| Error::os("unlock", file.path(), errno.into()))
}

/// A copy has another number, or another time of its creation.
pub(super) fn file_id(file: &File) -> Result<[u8; 16]> {
    assert_unlocked("to look at a file");
    let (flags, wanted) = (AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME);
    let stat = rustix::fs::statx(file.fd(), "", flags, wanted)
        .map_err(|errno| Error::os("look at", file.path(), errno.into()))?;
    let created = stat.stx_btime;
    let created_ns = created.tv_sec.wrapping_mul(1_000_000_000) + i64::from(created.tv_nsec);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&stat.stx_ino.to_be_bytes());
    id[8..].copy_from_slice(&created_ns.to_be_bytes());
    Ok(id)
}

pub(super) fn sync(file: &File) -> Result<()> {
    assert_unlocked("to sync a file");
    loop {
        match rustix::fs::fdatasync(file.fd()) {
            Ok(()) => return Ok(()),
            // Interrupted before it began; it has not failed.
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::os("sync", file.path(), errno.into())),
        }
    }
}

/// How a hole is made in a file.
pub(super) const PUNCH: FallocateFlags =
    FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

pub(super) fn punch(file: &File, offset: u64, bytes: u64) -> Result<()> {
    assert_unlocked("to give back a part of a file");
    loop {
        match rustix::fs::fallocate(file.fd(), PUNCH, offset, bytes) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(not_punched(file, offset, errno)),
        }
    }
}

pub(super) fn not_punched(file: &File, offset: u64, errno: Errno) -> Error {
    let path = file.path();
    match errno {
        Errno::OPNOTSUPP | Errno::NOSYS => Error::unsupported(format!(
            "the file system of {} gives no parts of files back",
            path.display()
        )),
        errno => Error::os_at("give back a part of", path, Some(offset), errno.into()),
    }
}

pub(super) fn random(bytes: &mut [u8]) {
    assert_unlocked("to ask for random bytes");
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(errno) => panic!("the kernel has no random numbers: {errno}"),
        }
    }
}

/// The kernel's name for the time since the machine started.
pub(super) fn boot_id() -> Result<[u8; 16]> {
    assert_unlocked("to read a file");
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).map_err(|error| Error::os("read", path, error))?;
    parse_uuid(text.trim_end()).ok_or_else(|| {
        Error::unsupported(format!("{} holds no UUID, but {text:?}", path.display()))
    })
}

/// The bytes of a UUID in its usual form: 32 hexadecimal digits in groups of
/// 8, 4, 4, 4 and 12.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    let digits: Option<Vec<u32>> =
        text.chars().filter(|&c| c != '-').map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|_| groups == [8, 4, 4, 4, 12])?;
    Some(std::array::from_fn(|i| (digits[2 * i] * 16 + digits[2 * i + 1]) as u8))
}

/// `CLOCK_MONOTONIC` in nanoseconds.
pub(super) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// `CLOCK_REALTIME` in seconds; 0 before 1970.
pub(super) fn calendar_s() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    u64::try_from(now.tv_sec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_is_not_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        open(&path, OpenMode::CreateNew).unwrap();
        open(&path, OpenMode::Reuse).unwrap();
        std::fs::hard_link(&path, &other).unwrap();
        for path in [&path, &other] {
            assert_eq!(open(path, OpenMode::Reuse).unwrap_err().kind(), ErrorKind::Busy);
            open(path, OpenMode::ReadWrite).unwrap();
        }
    }

    #[test]
    fn a_file_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = open(&path, OpenMode::CreateNew).unwrap();
        rustix::fs::ftruncate(file.fd(), 3 * UNIT as u64).unwrap();
        cut(&file, UNIT as u64).unwrap();
        assert_eq!(len(&file).unwrap(), UNIT as u64);
        let file = open(&path, OpenMode::Read).unwrap();
        let error = cut(&file, 0).unwrap_err();
        assert!(error.to_string().contains("cannot cut"), "{error}");
    }

    #[test]
    fn the_boot_has_one_id() {
        let id = boot_id().unwrap();
        assert_eq!(id, boot_id().unwrap());
        assert_ne!(id, [0; 16]);
    }

    #[test]
    fn a_uuid_is_parsed_and_nothing_else_is() {
        let bytes = parse_uuid("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(bytes, std::array::from_fn(|i| 0x11 * i as u8));
        for wrong in [
            "",
            "00112233445566778899aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeefff",
            "00112233-4455-6677-8899-aabbccddeefg",
            "00112233-4455-6677-8899-aabbccddee\u{e9}",
            "0011223-34455-6677-8899-aabbccddeeff",
        ] {
            assert_eq!(parse_uuid(wrong), None, "{wrong:?}");
        }
    }
}
