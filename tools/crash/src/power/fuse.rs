//! Disks as files: a FUSE file system that serves them out of memory, and
//! nothing else. The kernel caches none of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags,
    ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session,
    TimeOrNow, WriteFlags,
};

use super::disk::{Disk, Refused};
use super::image::Image;
use super::record::{Change, Record};
use ouro_bench::mounts::Mount;

/// So many requests are answered at one time: flushes take a while, and must
/// not keep writes from being completed.
const THREADS: usize = 4;

/// Neither names nor lengths ever change.
const FOREVER: Duration = Duration::from_secs(1 << 20);

const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// How `fallocate` is asked to give space back, or to zero it; the length of the
/// file stays.
const FALLOC_FL_PUNCH_HOLE: i32 = 0x02;
const FALLOC_FL_ZERO_RANGE: i32 = 0x10;

/// The file system; unmounted when dropped.
pub(crate) struct Disks {
    shelf: Arc<Shelf>,
    /// None once it is unmounted; then there is nothing to answer any more.
    mount: Option<Mount>,
    session: Option<BackgroundSession>,
}

/// A disk in the file system, until it is taken out.
pub(crate) struct Plugged<'a> {
    disks: &'a Disks,
    number: u64,
    disk: Arc<Disk>,
}

impl Disks {
    /// Mounts it, without any disk.
    pub(crate) fn mount(point: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(point)?;
        let shelf = Arc::new(Shelf::default());
        let mut config = Config::default();
        let name = MountOption::FSName("ouro-crash".to_owned());
        config.mount_options = vec![name, MountOption::NoSuid, MountOption::NoDev];
        config.n_threads = Some(THREADS);
        let session = Session::new(Server(Arc::clone(&shelf)), point, &config)?.spawn()?;
        Ok(Self { shelf, mount: Some(Mount::at(point)), session: Some(session) })
    }

    /// A disk with this on it.
    pub(crate) fn plug(&self, base: Image) -> Plugged<'_> {
        let disk = Arc::new(Disk::new(base));
        let mut slots = self.shelf.lock();
        // The number of the directory is 1, and none is used again.
        let number = slots.last + 2;
        slots.last += 1;
        slots.disks.insert(number, Arc::clone(&disk));
        Plugged { disks: self, number, disk }
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        self.mount = None;
        let session = self.session.take().expect("nobody else takes it");
        if let Err(error) = session.join() {
            eprintln!("ouro-crash: the disks' file system ended badly: {error}");
        }
    }
}

impl Plugged<'_> {
    /// The file that is the disk.
    pub(crate) fn path(&self) -> PathBuf {
        let mount = self.disks.mount.as_ref().expect("it lives as long as its disks");
        mount.point().join(self.number.to_string())
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// All that happened to it.
    pub(crate) fn unplug(self) -> Record {
        self.disk.switch_off().expect("only this switches it off")
    }
}

impl Drop for Plugged<'_> {
    fn drop(&mut self) {
        self.disk.switch_off();
        self.disks.shelf.lock().disks.remove(&self.number);
    }
}

/// The disks that there are.
#[derive(Default)]
struct Shelf {
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    disks: BTreeMap<u64, Arc<Disk>>,
    /// How many there have been.
    last: u64,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self, number: INodeNo) -> Result<Arc<Disk>, Errno> {
        self.lock().disks.get(&number.0).cloned().ok_or(Errno::ENOENT)
    }

    fn attributes(&self, number: INodeNo) -> Result<FileAttr, Errno> {
        if number == INodeNo::ROOT {
            return Ok(attributes(number, FileType::Directory, 0));
        }
        Ok(attributes(number, FileType::RegularFile, self.disk(number)?.bytes()))
    }
}

fn attributes(ino: INodeNo, kind: FileType, size: u64) -> FileAttr {
    FileAttr {
        ino,
        size,
        blocks: size / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o700,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// What the kernel asks. An event is in the record before its request is
/// answered.
struct Server(Arc<Shelf>);

impl From<Refused> for Errno {
    fn from(_: Refused) -> Self {
        Self::EIO
    }
}

impl Server {
    fn change(&self, number: INodeNo, offset: u64, change: Change) -> Result<(), Errno> {
        Ok(self.0.disk(number)?.change(offset, change)?)
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // The device has several requests in flight.
        let failed = |flags| io::Error::other(format!("this kernel's FUSE lacks {flags:?}"));
        config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).map_err(failed)?;
        let failed = |_| io::Error::other("FUSE refuses its own limits");
        config.set_max_write(REQUEST_BYTES_MAX).map_err(failed)?;
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name.to_str().and_then(|name| name.parse().ok()).map(INodeNo);
        let disk = number.ok_or(Errno::ENOENT).and_then(|number| {
            self.0.disk(number)?;
            self.0.attributes(number)
        });
        match disk {
            Ok(attributes) => reply.entry(&FOREVER, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.attributes(number) {
            Ok(attributes) => reply.attr(&FOREVER, &attributes),
            Err(error) => reply.error(error),
        }
    }

    /// Times are of no interest, and a disk keeps its length.
    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if size.is_some() {
            reply.error(Errno::EPERM);
        } else {
            self.getattr(request, number, handle, reply);
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Past the page cache, so that writes come one by one, and at once.
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = |disk: Arc<Disk>| Ok(disk.read(offset, size as usize)?);
        match self.0.disk(number).and_then(read) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.change(number, offset, Change::Write(data.to_vec())) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.0.disk(number).and_then(|disk| Ok(disk.flush()?)));
    }

    fn fallocate(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let change = match mode {
            _ if mode & FALLOC_FL_PUNCH_HOLE != 0 => Change::Discard(length as usize),
            _ if mode & FALLOC_FL_ZERO_RANGE != 0 => Change::Zero(length as usize),
            // To reserve space, of which a disk has all.
            _ => return reply.ok(),
        };
        answer(reply, self.change(number, offset, change));
    }

    /// The end of a process that used the file is none of a disk's business.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}
