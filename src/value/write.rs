//! Writing a long value.
//!
//! Its place is reserved, it is copied piece by piece into buffers that the
//! requests own, and then it waits for a sync. Dropping this at any point leaves
//! nothing that could be referred to: the place is given back.

use std::sync::Arc;

use crate::base::error::{ErrorKind, Result};
use crate::base::ids::FileId;
use crate::base::limits::{UNIT, UNIT_U64, round_up};
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::format::header::{FileType, Header};
use crate::format::value::{CHUNK_BYTES_MAX, Extent, ReferenceBuilder};
use crate::io::{Harden, Io, IoBuf, OpenMode, WriteBuf};
use crate::runtime::join_all;
use crate::value::growing::Growing;
use crate::value::pin::Waste;
use crate::value::{OWN_FILE_BYTES, PIECE_BYTES, SHARED_FILE_BYTES, ValueFiles};

/// Bytes of a value in flight: a few pieces.
const ROUND_BYTES: usize = 4 * PIECE_BYTES;

const _: () = assert!(ROUND_BYTES.is_multiple_of(CHUNK_BYTES_MAX));
const _: () = assert!(PIECE_BYTES.is_multiple_of(UNIT));

/// A place for a value. It is given back, unless it is kept.
struct Place {
    files: Arc<ValueFiles>,
    growing: Arc<Growing>,
    extent: Extent,
    is_kept: AtomicBool,
}

impl Drop for Place {
    fn drop(&mut self) {
        // After a panic nobody knows what refers to it.
        if !self.is_kept.load(Ordering::Relaxed) && !std::thread::panicking() {
            self.files.queue.push(Waste::Place(self.extent));
        }
    }
}

/// A value that is written. Its place is given back, unless it is kept.
pub(crate) struct Stored {
    place: Place,
    /// The number among the values of its file.
    number: u64,
    reference: Vec<u8>,
}

impl Stored {
    /// What stands in its place in log and tables.
    pub(crate) fn reference(&self) -> &[u8] {
        &self.reference
    }

    /// Waits until it is durable; see [`Growing::durable`] on `may_sync`.
    pub(crate) async fn durable<I: Io>(&self, io: &I, may_sync: bool) -> Result<()> {
        let Place { files, growing, .. } = &self.place;
        let durable = growing.durable(io, self.number, may_sync, &files.queue).await;
        if durable.is_err() {
            files.retire(growing.id);
        }
        durable
    }

    /// A version refers to it from now on.
    pub(crate) fn keep(&self) {
        self.place.is_kept.store(true, Ordering::Relaxed);
    }
}

/// A file that is being made. It is removed, unless it is done.
struct Making<'a> {
    files: &'a ValueFiles,
    id: FileId,
    is_done: bool,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.files.queue.push(Waste::Unfinished(self.id));
        }
    }
}

impl ValueFiles {
    /// Writes a value. It is not durable yet.
    ///
    /// # Errors
    /// `NoSpace`, which leaves all as it was; others leave a file that takes no
    /// more values.
    pub(crate) async fn write<I: Io>(
        self: &Arc<Self>,
        io: &I,
        new_id: &impl Fn() -> FileId,
        value: &[u8],
    ) -> Result<Stored> {
        let place = self.place(io, new_id, value.len()).await?;
        let mut reference = ReferenceBuilder::new(self.db, &place.extent, value.len());
        let mut offset = place.extent.offset;
        for round in value.chunks(ROUND_BYTES) {
            reference.add(round);
            let pieces = (offset..).step_by(PIECE_BYTES).zip(round.chunks(PIECE_BYTES));
            let written = pieces.map(|(offset, piece)| {
                let (file, buf) = (&place.growing.file, self.filled(piece));
                async move { io.write(file, offset, buf, Harden::Later).await.1 }
            });
            let written: Result<()> = join_all(written).await.into_iter().collect();
            if let Err(error) = written {
                if error.kind() != ErrorKind::NoSpace {
                    self.retire(place.growing.id);
                }
                return Err(error);
            }
            offset += round.len() as u64;
        }
        let number = place.growing.written();
        Ok(Stored { place, number, reference: reference.finish() })
    }

    /// A buffer with a piece, padded with zeroes.
    fn filled(&self, piece: &[u8]) -> WriteBuf {
        let bytes = round_up(piece.len());
        // What waits for the device is never much more than the values.
        let mut buf = match bytes {
            PIECE_BYTES => self.pool.take(),
            _ => IoBuf::zeroed(bytes),
        };
        buf[..piece.len()].copy_from_slice(piece);
        buf[piece.len()..bytes].fill(0);
        WriteBuf::Prefix(buf, bytes)
    }

    async fn place<I: Io>(
        self: &Arc<Self>,
        io: &I,
        new_id: &impl Fn() -> FileId,
        len: usize,
    ) -> Result<Place> {
        let bytes = round_up(len) as u64;
        if len >= OWN_FILE_BYTES {
            let growing = self.make(io, new_id()).await?;
            let extent = Extent { file: growing.id, offset: UNIT_U64, bytes };
            let file = &mut self.state.lock().files;
            let file = file.entry(growing.id).or_default();
            file.bytes_in_use += bytes;
            file.growing = Arc::downgrade(&growing);
            return Ok(self.taken(growing, extent));
        }
        if let Some(place) = self.place_in_open(bytes) {
            return Ok(place);
        }
        let _turn = self.making.lock().await;
        loop {
            // Somebody else may have had the turn before.
            if let Some(place) = self.place_in_open(bytes) {
                return Ok(place);
            }
            let growing = self.make(io, new_id()).await?;
            let mut state = self.state.lock();
            let file = state.files.entry(growing.id).or_default();
            file.grows = true;
            file.growing = Arc::downgrade(&growing);
            state.open = Some((growing, UNIT_U64));
        }
    }

    /// A place in the file that takes values, if there is one.
    fn place_in_open(self: &Arc<Self>, bytes: u64) -> Option<Place> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (growing, end) = state.open.as_mut()?;
        let (growing, offset) = (Arc::clone(growing), *end);
        if offset >= SHARED_FILE_BYTES || growing.has_failed() {
            drop(guard);
            self.retire(growing.id);
            return None;
        }
        *end += bytes;
        let file = state.files.get_mut(&growing.id).expect("a file that grows is known");
        file.bytes_in_use += bytes;
        drop(guard);
        let extent = Extent { file: growing.id, offset, bytes };
        Some(self.taken(growing, extent))
    }

    fn taken(self: &Arc<Self>, growing: Arc<Growing>, extent: Extent) -> Place {
        Place { files: Arc::clone(self), growing, extent, is_kept: AtomicBool::new(false) }
    }

    /// Makes a file, whose name is durable then.
    async fn make<I: Io>(&self, io: &I, id: FileId) -> Result<Arc<Growing>> {
        let mut making = Making { files: self, id, is_done: false };
        let file = io.open(&self.path(id), OpenMode::CreateNew).await?;
        let mut header = IoBuf::zeroed(UNIT);
        Header::new(FileType::Value, self.db, id, Vec::new()).encode(&mut header);
        io.write(&file, 0, header.into(), Harden::Later).await.1?;
        io.sync_dir(&self.dir).await?;
        making.is_done = true;
        self.keep_handle(id, &file);
        Ok(Growing::new(id, file))
    }
}
