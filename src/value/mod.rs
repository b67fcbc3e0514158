//! Floor 5: value files, where the long values of a shard are.
//!
//! A long value is written and synced here before anything refers to it; from
//! then on a reference (`format/value.rs`) goes through log, memtable and tables
//! in its place. Exactly one version of one key refers to a value, so a value is
//! garbage as soon as that version is left out of a table.
//!
//! Owns, for one shard: which value files there are and how much of them is in
//! use ([`ValueFiles`]); the file that takes values now, and who syncs it
//! (`growing`); what the shard's manifest knows of them (`ledger`); and what may
//! be given back to the file system once nobody can read it (`pin`). Writing and
//! reading of one value are in `write` and `read`.
//!
//! **Bytes in use** of a file are counted once for each value, from the moment
//! its place is reserved: while it is written, while its version is in
//! memtables, in tables, or dropped but perhaps still read. At none, and when it
//! takes no more values, the file is removed.

mod changes;
mod dump;
mod growing;
mod ledger;
mod pin;
mod read;
mod salvage;
#[cfg(all(test, feature = "shuttle"))]
mod shuttle_tests;
mod verify;
mod write;

pub(crate) use changes::Changes;
pub(crate) use dump::dump_values;
pub(crate) use ledger::Ledger;
pub(crate) use pin::{Garbage, Pin, ValueWork};
pub(crate) use read::Loaded;
pub(crate) use salvage::read_value;
pub(crate) use verify::{Referrer, ValueCheck};
pub(crate) use write::Stored;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::{DbId, FileId};
use crate::base::sync::Mutex;
use crate::format::edit::Edit;
use crate::format::header::DecodeError;
use crate::format::value::{Extent, Reference};
use crate::io::{BufferPool, File, Io, OpenMode};
use crate::runtime::{AsyncMutex, join_all};

use growing::Growing;
use pin::{Queue, Waste};

/// Suffix of the files' names.
pub(crate) const SUFFIX: &str = ".val";

/// Bytes of one request, and of the buffers of the pool that is used.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// Values from here on have a file of their own.
const OWN_FILE_BYTES: usize = 1 << 20;

/// A file that several values share takes no more from this length on.
const SHARED_FILE_BYTES: u64 = 64 << 20;

/// Files a shard keeps open for readers at most.
const HANDLES_MAX: usize = 16;

/// The value files of one shard.
pub(crate) struct ValueFiles {
    db: DbId,
    dir: PathBuf,
    pool: Arc<BufferPool>,
    state: Mutex<State>,
    /// Whose turn it is to make the next shared file.
    making: AsyncMutex<()>,
    queue: Arc<Queue>,
}

struct State {
    ledger: Ledger,
    files: BTreeMap<FileId, FileState>,
    /// The shared file that takes values, and its end.
    open: Option<(Arc<Growing>, u64)>,
    /// Open files, the one used last at the end.
    handles: Vec<(FileId, File)>,
    /// The file system gives no parts of files back.
    cannot_punch: bool,
}

#[derive(Default)]
struct FileState {
    /// See the module's text.
    bytes_in_use: u64,
    /// It takes values.
    grows: bool,
    /// Values may wait to be synced.
    growing: Weak<Growing>,
}

/// What a shard's value files hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ValueCounts {
    pub(crate) files: u64,
    /// In use.
    pub(crate) bytes: u64,
}

impl State {
    fn take_handle(&mut self, id: FileId) -> Option<File> {
        let at = self.handles.iter().position(|(other, _)| *other == id)?;
        Some(self.handles.remove(at).1)
    }
}

impl ValueFiles {
    /// The value files of a shard that is being opened, as its manifest knows
    /// them. `pool` has buffers of [`PIECE_BYTES`]; `work` is set when
    /// [`ValueFiles::sync_for_others`] or [`ValueFiles::clean_up`] has something
    /// to do.
    pub(crate) fn new(
        db: DbId,
        dir: PathBuf,
        pool: &Arc<BufferPool>,
        work: &ValueWork,
        ledger: Ledger,
    ) -> Arc<Self> {
        let mut files = BTreeMap::<FileId, FileState>::new();
        for (id, bytes) in ledger.files() {
            files.entry(id).or_default().bytes_in_use += bytes;
        }
        let queue = Queue::new(work);
        // What an earlier opening dropped: nobody reads it any more.
        if let Some(garbage) = ledger.pending() {
            for extent in &garbage.extents {
                files.entry(extent.file).or_default().bytes_in_use += extent.bytes;
            }
            queue.push(Waste::Garbage(garbage));
        }
        Arc::new(Self {
            db,
            dir,
            pool: Arc::clone(pool),
            state: Mutex::new(State {
                ledger,
                files,
                open: None,
                handles: Vec::new(),
                cannot_punch: false,
            }),
            making: AsyncMutex::new(()),
            queue,
        })
    }

    /// What the shard's first view holds.
    pub(crate) fn first_pin(&self) -> Arc<Pin> {
        Pin::new(&self.queue)
    }

    /// A version that refers to a value was found in the log.
    pub(crate) fn replayed(&self, reference: &[u8]) -> Result<(), DecodeError> {
        let extent = Reference::decode(reference)?.extent();
        self.state.lock().files.entry(extent.file).or_default().bytes_in_use += extent.bytes;
        Ok(())
    }

    /// Whether something refers to values in this file.
    pub(crate) fn is_in_use(&self, id: FileId) -> bool {
        self.state.lock().files.contains_key(&id)
    }

    pub(crate) fn counts(&self) -> ValueCounts {
        let state = self.state.lock();
        let bytes = state.files.values().map(|file| file.bytes_in_use).sum();
        ValueCounts { files: state.files.len() as u64, bytes }
    }

    fn path(&self, id: FileId) -> PathBuf {
        self.dir.join(format!("{id}{SUFFIX}"))
    }

    /// The edits of a commit that changes which values tables refer to. The
    /// caller has the turn at the shard's manifest until [`Self::committed`].
    pub(crate) fn edits(&self, changes: Changes) -> Vec<Edit> {
        let state = self.state.lock();
        let mut edits = changes.edits(state.ledger.next_number());
        edits.extend(state.ledger.reclaimed());
        edits
    }

    /// The edits are durable: what they dropped, to be given to the next view.
    pub(crate) fn committed(&self, edits: &[Edit]) -> Option<Garbage> {
        let mut state = self.state.lock();
        let mut garbage = None;
        for edit in edits {
            state.ledger.apply(edit).expect("the edits are this ledger's own");
            if let Edit::ValuesDropped { first, extents } = edit {
                let below = first + extents.len() as u64;
                garbage = Some(Garbage { extents: extents.clone(), below });
            }
        }
        garbage
    }

    /// The edits with which a manifest says what it knows of value files.
    pub(crate) fn snapshot(&self) -> Vec<Edit> {
        self.state.lock().ledger.snapshot()
    }

    /// Syncs for those who cannot do it: on the shard's owner.
    pub(crate) async fn sync_for_others<I: Io>(&self, io: &I) {
        let syncs = self.queue.take_syncs();
        join_all(syncs.iter().map(|growing| async {
            if growing.sync_for_others(io).await.is_err() {
                self.retire(growing.id);
            }
        }))
        .await;
    }

    /// Gives back what nobody can read any more: on the shard's owner.
    pub(crate) async fn clean_up<I: Io>(&self, io: &I) {
        for waste in self.queue.take() {
            match waste {
                Waste::Garbage(Garbage { extents, below }) => {
                    for extent in extents {
                        self.give_back(io, &extent).await;
                    }
                    self.state.lock().ledger.note_reclaimed(below);
                }
                Waste::Place(extent) => self.give_back(io, &extent).await,
                Waste::Unused(id) => self.remove_if_unused(io, id).await,
                Waste::Unfinished(id) => self.remove(io, id).await,
            }
        }
    }

    /// Gives back a place that nobody can read.
    async fn give_back<I: Io>(&self, io: &I, extent: &Extent) {
        enum Fate {
            Remove,
            Punch,
            Nothing,
        }
        let fate = {
            let mut state = self.state.lock();
            match state.files.get_mut(&extent.file) {
                None => Fate::Nothing,
                Some(file) => {
                    file.bytes_in_use = file
                        .bytes_in_use
                        .checked_sub(extent.bytes)
                        .expect("a value is dropped once");
                    match (file.bytes_in_use, file.grows) {
                        (0, false) => Fate::Remove,
                        _ if state.cannot_punch => Fate::Nothing,
                        _ => Fate::Punch,
                    }
                }
            }
        };
        match fate {
            Fate::Remove => self.remove_if_unused(io, extent.file).await,
            Fate::Punch => self.punch(io, extent).await,
            Fate::Nothing => {}
        }
    }

    async fn remove_if_unused<I: Io>(&self, io: &I, id: FileId) {
        let handle = {
            let mut state = self.state.lock();
            let is_unused = |file: &FileState| file.bytes_in_use == 0 && !file.grows;
            if !state.files.get(&id).is_some_and(is_unused) {
                return;
            }
            state.files.remove(&id);
            state.take_handle(id)
        };
        drop(handle);
        self.remove(io, id).await;
    }

    async fn remove<I: Io>(&self, io: &I, id: FileId) {
        if let Err(error) = io.remove(&self.path(id)).await
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "a value file that is not needed stays until the next opening");
        }
    }

    async fn punch<I: Io>(&self, io: &I, extent: &Extent) {
        let punched = match self.handle(io, extent.file).await {
            Ok(file) => io.punch(&file, extent.offset, extent.bytes).await,
            Err(error) => Err(error),
        };
        match punched {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                tracing::info!(%error, "the space of long values comes back with whole files");
                self.state.lock().cannot_punch = true;
            }
            Err(error) => {
                tracing::warn!(%error, "the space of a long value stays until its file goes");
            }
        }
    }

    /// The open file. Whoever reads it holds a [`Pin`], so that it is still
    /// there; whoever has it open may go on to read it after it was removed.
    async fn handle<I: Io>(&self, io: &I, id: FileId) -> Result<File> {
        {
            let mut state = self.state.lock();
            if let Some(file) = state.take_handle(id) {
                state.handles.push((id, file.clone()));
                return Ok(file);
            }
        }
        let path = self.path(id);
        let file =
            io.open(&path, OpenMode::ReadWrite).await.map_err(|error| match error.kind() {
                ErrorKind::NotFound => Error::corruption(&path, 0, "the value file is missing"),
                _ => error,
            })?;
        read::check_header(io, &file, self.db, id).await?;
        self.keep_handle(id, &file);
        Ok(file)
    }

    fn keep_handle(&self, id: FileId, file: &File) {
        let unneeded = {
            let mut state = self.state.lock();
            // Somebody else may have opened it at the same time.
            let other = state.take_handle(id);
            state.handles.push((id, file.clone()));
            let is_full = state.handles.len() > HANDLES_MAX;
            (other, is_full.then(|| state.handles.remove(0)))
        };
        // They may be closed by this, which no lock is held for.
        drop(unneeded);
    }

    /// The file takes no more values.
    fn retire(&self, id: FileId) {
        let (open, is_unused) = {
            let mut state = self.state.lock();
            let open = state.open.take_if(|(growing, _)| growing.id == id);
            let file = state.files.get_mut(&id);
            let is_unused = file.is_some_and(|file| {
                file.grows = false;
                file.bytes_in_use == 0
            });
            (open, is_unused)
        };
        drop(open);
        if is_unused {
            self.queue.push(Waste::Unused(id));
        }
    }

    /// Fails those who wait for a sync: nobody does it for them any more.
    pub(crate) fn fail(&self, cause: &Error) {
        self.queue.fail_syncs(cause);
        let growing: Vec<Arc<Growing>> =
            self.state.lock().files.values().filter_map(|file| file.growing.upgrade()).collect();
        for growing in growing {
            growing.fail(cause);
        }
    }
}
