//! The controls of the simulated machine, for tests: crashes, faults, damage.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::Disk;
use super::faults::{FaultPlan, Faults, Injected};
use super::inode::Inode;
use super::machine::Crash;
use super::{Sim, Sleep};
use crate::base::sync::assert_unlocked;
use crate::io::mapping::SimMemory;

/// The whole of a simulated disk at one moment: what is durable and what is
/// pending. Cheap to clone; images share what they have in common.
///
/// ```
/// # use ourodb::{Db, IoBackend, Options, sim::Sim};
/// # let sim = Sim::new(1);
/// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
/// # db.put(b"key", b"value").wait()?;
/// let image = sim.snapshot();
/// for path in sim.paths() {
///     sim.restore(&image);
///     sim.truncate(&path, 100);
///     // See what opening makes of it.
/// }
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone)]
pub struct DiskImage {
    disk: Arc<Disk>,
    /// The boot of the machine it was made in.
    boot_id: [u8; 16],
}

impl std::fmt::Debug for DiskImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskImage({} files)", self.disk.files().count())
    }
}

impl Sim {
    /// What may go wrong from now on; replaces what was set before.
    ///
    /// ```
    /// use ourodb::sim::{Faults, Sim};
    /// let sim = Sim::new(1);
    /// sim.set_faults(Faults::default().reorder(true));
    /// ```
    pub fn set_faults(&self, faults: Faults) {
        self.shared.machine.lock().faults = FaultPlan::new(faults);
    }

    /// How many faults were injected since [`Sim::set_faults`]. Zero after a
    /// run with [`Faults::fail_kth`] says that the run makes fewer than `k`
    /// such requests.
    ///
    /// ```
    /// assert_eq!(ourodb::sim::Sim::new(1).faults_injected(), 0);
    /// ```
    #[must_use]
    pub fn faults_injected(&self) -> u64 {
        self.shared.machine.lock().faults.count()
    }

    /// Of each [`Faults::fail_kth`], in their order, how many requests it could have
    /// befallen since [`Sim::set_faults`]: the largest `k` that fails something.
    ///
    /// ```
    /// use ourodb::{Db, IoBackend, Options, sim::{FaultKind, Faults, Sim}};
    /// let sim = Sim::new(1);
    /// sim.set_faults(Faults::default().fail_kth(u64::MAX, FaultKind::Io, false));
    /// let options = Options::default().io(IoBackend::Sim(sim.clone()));
    /// Db::open("/db", options)?;
    /// assert!(sim.requests_counted()[0] > 10);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn requests_counted(&self) -> Vec<u64> {
        self.shared.machine.lock().faults.seen().to_vec()
    }

    /// The first thousand faults that were injected since [`Sim::set_faults`].
    ///
    /// ```
    /// assert!(ourodb::sim::Sim::new(1).injected().is_empty());
    /// ```
    #[must_use]
    pub fn injected(&self) -> Vec<Injected> {
        self.shared.machine.lock().faults.injected().to_vec()
    }

    /// The machine loses power.
    ///
    /// Every task is dropped, every open file and every lock is void. The disk
    /// keeps all that was made durable, and any subset of the rest: of pending
    /// writes sector by sector (512 bytes), of the lengths they gave their
    /// files, of stores into mapped files page by page (4096 bytes), and of
    /// each directory's pending creations, removals and renames. Requests in
    /// flight count as pending wholly, in part, or not at all.
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// # db.put(b"key", b"value").wait()?;
    /// sim.power_cut();
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn power_cut(&self) {
        self.crash(Crash::PowerCut);
    }

    /// The process is killed.
    ///
    /// Every task is dropped, every open file and every lock is void. The next
    /// process sees all completed writes and changes, and all that was stored
    /// into mapped files; what was pending stays so. Each request in flight
    /// took effect wholly, in part, or not at all.
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// # db.put(b"key", b"value").wait()?;
    /// sim.kill();
    /// assert!(db.get(b"other").wait().is_ok(), "what is in memory needs no machine");
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn kill(&self) {
        self.crash(Crash::Kill);
    }

    /// Ready when so many nanoseconds of the machine have passed.
    ///
    /// ```
    /// let sim = ourodb::sim::Sim::new(1);
    /// sim.block_on(sim.sleep(5_000_000));
    /// assert!(sim.now_ns() >= 5_000_000);
    /// ```
    pub fn sleep(&self, nanos: u64) -> impl Future<Output = ()> + Send + use<> {
        assert_unlocked("a simulated request");
        let mut machine = self.shared.machine.lock();
        let key = (machine.now_ns.saturating_add(nanos), machine.next_id());
        drop(machine);
        Sleep { shared: Arc::clone(&self.shared), key }
    }

    /// The simulated time in nanoseconds since the machine was made.
    ///
    /// ```
    /// use ourodb::sim::Sim;
    /// let sim = Sim::new(1);
    /// sim.run_for(1_000);
    /// assert_eq!(sim.now_ns(), 1_000);
    /// ```
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.shared.machine.lock().now_ns
    }

    /// A hash over every request, completion and decision of the scheduler so
    /// far. The same calls on a machine of the same seed give the same hash.
    ///
    /// ```
    /// use ourodb::sim::Sim;
    /// assert_eq!(Sim::new(1).trace_hash(), Sim::new(1).trace_hash());
    /// ```
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.shared.machine.lock().trace.hash()
    }

    /// The path of every file, sorted.
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// # db.put(b"key", b"value").wait()?;
    /// assert!(sim.paths().iter().any(|path| path.ends_with("IDENTITY")));
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.shared.machine.lock().disk.files().map(Path::to_owned).collect()
    }

    /// The file's contents, as the process sees them; `None` if there is no
    /// such file.
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// # db.put(b"key", b"value").wait()?;
    /// let bytes = sim.file_bytes("/db/IDENTITY".as_ref()).expect("a file");
    /// assert!(bytes.starts_with(b"OUROIDN"));
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn file_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let machine = self.shared.machine.lock();
        let id = machine.disk.lookup_file(path).ok()?;
        let content = machine.disk.inode(id).current();
        let mut bytes = vec![0; content.len() as usize];
        content.read(0, &mut bytes);
        if let Some(memory) = machine.mapped.get(&id) {
            memory.read(0, &mut bytes);
        }
        Some(bytes)
    }

    /// Damage: replaces bytes of a file. What was pending of the file becomes
    /// durable first, and the damage with it. Whoever has the file mapped sees
    /// the damage too.
    ///
    /// # Panics
    /// When there is no such file, or it ends before.
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// # db.put(b"key", b"value").wait()?;
    /// db.close()?;
    /// sim.overwrite("/db/IDENTITY".as_ref(), 60, b"damage");
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) {
        let damaged = self.damage(path, |inode, memory| {
            let fits = offset + bytes.len() as u64 <= inode.current().len();
            if fits {
                inode.damage(offset, bytes);
                if let Some(memory) = memory {
                    memory.write(offset as usize, bytes);
                }
            }
            fits
        });
        assert_eq!(damaged, Some(true), "{} has no byte to damage there", path.display());
    }

    /// Damage: cuts a file, or extends it by zeroes. What was pending of the
    /// file becomes durable first, and the damage with it.
    ///
    /// # Panics
    /// When there is no such file, or it is mapped: whoever stored beyond its
    /// end would die.
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// # db.put(b"key", b"value").wait()?;
    /// db.close()?;
    /// sim.truncate("/db/IDENTITY".as_ref(), 4096);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn truncate(&self, path: &Path, len: u64) {
        let damaged = self.damage(path, |inode, memory| {
            let free = memory.is_none();
            if free {
                inode.damage_len(len);
            }
            free
        });
        assert_ne!(damaged, None, "{} is no file to damage", path.display());
        assert_ne!(damaged, Some(false), "{} is mapped", path.display());
    }

    /// Damage: removes a file, durably. What was pending in its directory
    /// becomes durable too.
    ///
    /// # Panics
    /// When there is no such file.
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// # db.put(b"key", b"value").wait()?;
    /// db.close()?;
    /// sim.remove_file("/db/IDENTITY".as_ref());
    /// assert!(!sim.paths().iter().any(|path| path.ends_with("IDENTITY")));
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn remove_file(&self, path: &Path) {
        let removed = {
            let mut machine = self.shared.machine.lock();
            let exists = machine.disk.lookup_file(path).is_ok();
            if exists {
                machine.damage_remove(path);
            }
            exists
        };
        assert!(removed, "{} is no file to damage", path.display());
    }

    /// Damages a file, and the memory that it is mapped to.
    fn damage<T>(
        &self,
        path: &Path,
        damage: impl FnOnce(&mut Inode, Option<&SimMemory>) -> T,
    ) -> Option<T> {
        let mut machine = self.shared.machine.lock();
        let id = machine.disk.lookup_file(path).ok()?;
        machine.take_in(id);
        let memory = machine.mapped.get(&id).cloned();
        Some(damage(machine.disk.inode_mut(id), memory.as_deref()))
    }

    /// The disk as it is: what is durable, and what is pending, with what was
    /// stored into mapped files. Requests in flight are not part of it.
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// # db.put(b"key", b"value").wait()?;
    /// let before = sim.snapshot();
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> DiskImage {
        let machine = self.shared.machine.lock();
        let mut disk = machine.disk.clone();
        // Looking does not change the run: the machine takes them in later.
        for (id, memory) in &machine.mapped {
            disk.take_in(*id, memory);
        }
        DiskImage { disk: Arc::new(disk), boot_id: machine.boot_id }
    }

    /// Ends the process, as [`Sim::kill`] does, and puts this disk in, as into
    /// another machine: what was only in memory of the one it was made on counts
    /// for nothing.
    ///
    /// ```
    /// # use ourodb::{Db, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let db = Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())))?;
    /// # db.put(b"key", b"value").wait()?;
    /// let before = sim.snapshot();
    /// sim.restore(&before);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn restore(&self, image: &DiskImage) {
        self.crash(Crash::Replaced);
        self.shared.machine.lock().replace_disk((*image.disk).clone());
    }

    /// Like [`Sim::restore`], but the machine is as it was, too: still in the boot that
    /// the image was made in, as after a kill at that moment.
    ///
    /// ```
    /// # use ourodb::{Db, Durability, IoBackend, Options, sim::Sim};
    /// # let sim = Sim::new(1);
    /// # let open = || Db::open("/db", Options::default().io(IoBackend::Sim(sim.clone())));
    /// # let db = open()?;
    /// db.put(b"key", b"value").durability(Durability::ProcessSafe).wait()?;
    /// let before = sim.snapshot();
    /// for _ in 0..2 {
    ///     sim.rewind(&before);
    ///     assert!(open()?.get(b"key").wait()?.is_some());
    /// }
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn rewind(&self, image: &DiskImage) {
        self.crash(Crash::Rewound);
        let mut machine = self.shared.machine.lock();
        machine.replace_disk((*image.disk).clone());
        machine.boot_id = image.boot_id;
    }
}
