//! Floor 5: manifests, the files that say what a database consists of.
//!
//! The root manifest knows the openings: WAL streams, where they start and
//! where they were cut, keyspaces. Each shard's manifest knows the shard's
//! tables. A manifest starts with a snapshot of everything known when it was
//! made and goes on with edits; each opening makes new ones, and appends to
//! none of an earlier one. A manifest gets its name only when its snapshot is
//! complete and durable, so the one with the highest id counts.
//!
//! Appending follows the rules of a log. Room is made first, by writing zeroes
//! behind the last record: a full disk is found out there, and harms nothing.
//! Then the record overwrites blocks that exist; should that fail, what is on
//! disk is unknown, and the manifest is poisoned.

mod dump;
mod identity;
#[cfg(all(test, feature = "sim"))]
mod tests;
mod verify;

pub(crate) use dump::{dump_identity, dump_manifest};
pub(crate) use identity::{IDENTITY, Identity, UNFINISHED as IDENTITY_UNFINISHED};
pub(crate) use verify::{verify_identity, verify_manifest};

use std::path::{Path, PathBuf};

use crate::base::checksum::Seed;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::{DbId, FileId};
use crate::base::limits::{UNIT, UNIT_U64, round_up, round_up_u64};
use crate::base::planted::{Bug, planted};
use crate::format::chain::{Chain, padded_record};
use crate::format::edit::{self, Edit};
use crate::format::header::{FileType, Header};
use crate::format::record::{HEADER_BYTES, RecordKind, Unusable, u64_at};
use crate::io::{File, Harden, Io, IoBuf, OpenMode, WriteBuf};

/// Name prefix of manifests.
const PREFIX: &str = "MANIFEST-";

/// Name suffix of files that are not complete yet.
const UNFINISHED: &str = ".tmp";

/// Edits are collected up to this payload before a new record is begun.
const PAYLOAD_BYTES: usize = 256 << 10;

/// The room for records grows by this much at a time.
const ROOM_BYTES: usize = 4 * UNIT;

/// What a record without a payload takes.
const MARK_BYTES: usize = round_up(HEADER_BYTES);

/// A manifest grows at least to this length before it is made anew.
const REWRITE_BYTES_MIN: u64 = 1 << 20;

/// Longer manifests are refused: the engine rewrites them long before.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A manifest that is appended to.
pub(crate) struct Manifest {
    file: File,
    seed: Seed,
    epoch: u32,
    /// The end of the last record.
    end: u64,
    snapshot_end: u64,
    /// The file's length: room for records was made up to here.
    room_end: u64,
    /// Something was appended that no later record proves durable.
    unwitnessed: bool,
    poisoned: Option<Error>,
}

/// What a manifest said.
pub(crate) struct Loaded {
    /// Its path, for messages.
    pub(crate) path: PathBuf,
    /// Snapshot and edits, in order.
    pub(crate) edits: Vec<Edit>,
    /// Where in the file the next record would be: what is missing at its end begins there.
    pub(crate) end: u64,
}

/// The manifests in a directory.
pub(crate) struct Found {
    /// The one that counts.
    pub(crate) current: Option<(FileId, PathBuf)>,
    /// Older and unfinished ones, to be removed once a new one is durable.
    pub(crate) stale: Vec<PathBuf>,
}

/// The seed of the checksums of a manifest's records.
pub(crate) fn seed(db: DbId, id: FileId) -> Seed {
    let mut identity = [0; 28];
    identity[..16].copy_from_slice(&db.0);
    identity[16..20].copy_from_slice(b"man\0");
    identity[20..].copy_from_slice(&id.to_u64().to_le_bytes());
    Seed::of(&identity)
}

/// Looks for manifests in `dir`.
pub(crate) async fn find<I: Io>(io: &I, dir: &Path) -> Result<Found> {
    let mut finished = Vec::new();
    let mut stale = Vec::new();
    for name in io.list(dir).await? {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let path = dir.join(&name);
        if let Some(id) = FileId::parse(rest) {
            finished.push((id, path));
        } else if rest.strip_suffix(UNFINISHED).and_then(FileId::parse).is_some() {
            stale.push(path);
        }
    }
    finished.sort_by_key(|(id, _)| *id);
    let current = finished.pop();
    stale.extend(finished.into_iter().map(|(_, path)| path));
    stale.sort();
    Ok(Found { current, stale })
}

/// Reads a manifest.
pub(crate) async fn load<I: Io>(io: &I, db: DbId, id: FileId, path: &Path) -> Result<Loaded> {
    let file = io.open(path, OpenMode::Read).await?;
    let len = io.len(&file).await?;
    if !(UNIT_U64..=FILE_BYTES_MAX).contains(&len) {
        let reason = format!("a manifest of {len} bytes makes no sense");
        return Err(Error::corruption(path, 0, reason));
    }
    let (bytes, read) = io.read(&file, 0, IoBuf::zeroed(round_up_u64(len) as usize)).await;
    // A part of a unit at the end is room that was being made: no record is in it.
    let bytes = &bytes[..read? / UNIT * UNIT];
    let unit = bytes.get(..UNIT).unwrap_or(bytes);
    let snapshot_end = snapshot_end(unit, db, id, path)?;

    let mut edits = Vec::new();
    let mut at = UNIT_U64;
    let mut chain = Chain::new(seed(db, id), id.epoch(), UNIT_U64, u64::MAX);
    let fed = chain.feed(UNIT_U64, &bytes[UNIT..], |record| {
        at = record.header.position;
        if record.header.kind == RecordKind::Edit {
            edits.extend(edit::decode_all(record.payload)?);
        }
        Ok::<_, Unusable>(())
    });
    fed.map_err(|unusable| unusable.into_error(path, at))?;
    let found = chain.finish();
    let durable = found.mark_max.max(snapshot_end);
    // Records are in whole units.
    let end = round_up_u64(found.end).min(len);
    if found.end < durable {
        let reason = format!(
            "a manifest record is missing or damaged; the manifest was durable up to offset \
             {durable}"
        );
        return Err(Error::corruption(path, end, reason));
    }
    Ok(Loaded { path: path.to_owned(), edits, end })
}

/// What the header of a manifest says: where its snapshot ends.
fn snapshot_end(unit: &[u8], db: DbId, id: FileId, path: &Path) -> Result<u64> {
    let header = Header::decode(unit, FileType::Manifest).map_err(|e| e.at(path, 0))?;
    header.check_belongs(db, id).map_err(|e| e.at(path, 0))?;
    header.check_writable().map_err(|e| e.at(path, 0))?;
    if header.extra.len() != 8 {
        return Err(Error::corruption(path, 0, "the manifest's header makes no sense"));
    }
    Ok(u64_at(&header.extra, 0))
}

impl Manifest {
    /// Makes a manifest that starts with `snapshot`: complete, durable and
    /// under its name.
    pub(crate) async fn create<I: Io>(
        io: &I,
        dir: &Path,
        db: DbId,
        id: FileId,
        snapshot: &[Edit],
    ) -> Result<Self> {
        let new = Self::write_unnamed(io, dir, db, id, snapshot).await?;
        new.give_name(io, dir, id).await.map_err(Unnamed::into_error)
    }

    /// Puts a new manifest, which starts with `snapshot`, in the place of this
    /// one, and removes the old file.
    ///
    /// # Errors
    /// Until the new one is written nothing has changed, nor where there is no room for
    /// its name. After that it may have its name, and then it counts: edits of the old
    /// one would be lost, so it is poisoned.
    pub(crate) async fn replace<I: Io>(
        &mut self,
        io: &I,
        dir: &Path,
        db: DbId,
        id: FileId,
        snapshot: &[Edit],
    ) -> Result<()> {
        let new = match Self::write_unnamed(io, dir, db, id, snapshot).await {
            Ok(new) => new,
            Err(error) => {
                remove_stale(io, &unfinished_path(dir, id)).await;
                return Err(error);
            }
        };
        let new = match new.give_name(io, dir, id).await {
            Ok(new) => new,
            Err(Unnamed::Certainly(error)) => {
                remove_stale(io, &unfinished_path(dir, id)).await;
                return Err(error);
            }
            Err(Unnamed::Perhaps(error)) => {
                tracing::error!(%error, "a new manifest may or may not have its name");
                self.poisoned = Some(error.clone());
                return Err(error);
            }
        };
        let old = std::mem::replace(self, new);
        remove_stale(io, old.path()).await;
        Ok(())
    }

    /// A manifest that is complete and durable, but for its name.
    async fn write_unnamed<I: Io>(
        io: &I,
        dir: &Path,
        db: DbId,
        id: FileId,
        snapshot: &[Edit],
    ) -> Result<Self> {
        let seed = seed(db, id);
        let mut bytes = Vec::new();
        let mut end = UNIT_U64;
        for payload in payloads(snapshot) {
            let position = round_up_u64(end);
            let start = bytes.len();
            bytes.resize(start + round_up(HEADER_BYTES + payload.len()), 0);
            let (kind, epoch) = (RecordKind::Edit, id.epoch());
            let out = &mut bytes[start..];
            end = position + padded_record(seed, kind, epoch, position, end, &payload, out) as u64;
        }
        let mut buf = IoBuf::zeroed(UNIT + bytes.len() + ROOM_BYTES);
        let room_end = buf.len() as u64;
        let extra = end.to_le_bytes().to_vec();
        Header::new(FileType::Manifest, db, id, extra).encode(&mut buf[..UNIT]);
        buf[UNIT..UNIT + bytes.len()].copy_from_slice(&bytes);

        let file = write_new(io, &unfinished_path(dir, id), buf).await?;
        Ok(Self {
            file,
            seed,
            epoch: id.epoch(),
            end,
            snapshot_end: end,
            room_end,
            unwitnessed: false,
            poisoned: None,
        })
    }

    async fn give_name<I: Io>(mut self, io: &I, dir: &Path, id: FileId) -> Result<Self, Unnamed> {
        let path = dir.join(format!("{PREFIX}{id}"));
        let renamed = io.rename(&unfinished_path(dir, id), &path).await;
        renamed.map_err(|error| match error.kind() {
            // The directory had no room for the name.
            ErrorKind::NoSpace => Unnamed::Certainly(error),
            _ => Unnamed::Perhaps(error),
        })?;
        io.sync_dir(dir).await.map_err(Unnamed::Perhaps)?;
        // Opened anew for its path: errors name it.
        self.file = io.open(&path, OpenMode::ReadWrite).await.map_err(Unnamed::Perhaps)?;
        Ok(self)
    }

    /// Appends the edits as one record, durably.
    ///
    /// # Errors
    /// `NoSpace` where the file finds no room to grow changes nothing; any other one, of a
    /// sync too, poisons the manifest.
    pub(crate) async fn append<I: Io>(&mut self, io: &I, edits: &[Edit]) -> Result<()> {
        self.append_edits(io, edits, 0).await
    }

    /// Appends the edits, and proves to later openings that they were durable:
    /// for what is about to be relied on, while nothing else would tell that the
    /// edits are missing.
    ///
    /// # Errors
    /// Those of [`Manifest::append`]: without room for the proof, nothing is
    /// appended.
    pub(crate) async fn append_witnessed<I: Io>(&mut self, io: &I, edits: &[Edit]) -> Result<()> {
        self.append_edits(io, edits, MARK_BYTES).await?;
        self.witness(io).await
    }

    /// Makes room for so many bytes more behind the edits, and appends them.
    async fn append_edits<I: Io>(&mut self, io: &I, edits: &[Edit], behind: usize) -> Result<()> {
        let mut payload = Vec::new();
        for edit in edits {
            edit::encode(edit, &mut payload);
        }
        self.append_record(io, RecordKind::Edit, &payload, behind).await?;
        self.unwitnessed = true;
        Ok(())
    }

    /// Proves, to later openings, that the last record was durable.
    pub(crate) async fn witness<I: Io>(&mut self, io: &I) -> Result<()> {
        if self.unwitnessed {
            self.append_record(io, RecordKind::Mark, &[], 0).await?;
            self.unwitnessed = false;
        }
        Ok(())
    }

    async fn append_record<I: Io>(
        &mut self,
        io: &I,
        kind: RecordKind,
        payload: &[u8],
        behind: usize,
    ) -> Result<()> {
        if let Some(cause) = &self.poisoned {
            return Err(Error::poisoned(cause));
        }
        let position = round_up_u64(self.end);
        let mut buf = IoBuf::zeroed(round_up(HEADER_BYTES + payload.len()));
        self.make_room(io, position + (buf.len() + behind) as u64).await?;
        let len = padded_record(self.seed, kind, self.epoch, position, self.end, payload, &mut buf);
        let harden = if planted(Bug::EditUnsynced) { Harden::Later } else { Harden::Now };
        let (_, written) = io.write(&self.file, position, buf.into(), harden).await;
        if let Err(error) = written {
            tracing::error!(%error, "a write to a manifest failed");
            self.poisoned = Some(error.clone());
            return Err(error);
        }
        self.end = position + len as u64;
        Ok(())
    }

    async fn make_room<I: Io>(&mut self, io: &I, end: u64) -> Result<()> {
        while self.room_end < end {
            let zeroes = IoBuf::zeroed(ROOM_BYTES);
            let (_, written) =
                io.write(&self.file, self.room_end, zeroes.into(), Harden::Later).await;
            // Want of space for a write leaves the file as it was; of anything else nobody
            // knows what it has left.
            if let Err(error) = &written
                && error.kind() == ErrorKind::NoSpace
            {
                return written;
            }
            let made = match written {
                Ok(()) => io.sync(&self.file).await,
                Err(error) => Err(error),
            };
            if let Err(error) = made {
                tracing::error!(%error, "making room in a manifest failed");
                self.poisoned = Some(error.clone());
                return Err(error);
            }
            self.room_end += ROOM_BYTES as u64;
        }
        Ok(())
    }

    /// Whether appending has failed for good.
    pub(crate) fn poisoned(&self) -> Option<&Error> {
        self.poisoned.as_ref()
    }

    /// Whether the edits outweigh the snapshot, so that a new manifest is due.
    pub(crate) fn wants_rewrite(&self) -> bool {
        self.end > REWRITE_BYTES_MIN && self.end > 4 * self.snapshot_end
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }
}

/// Why a new manifest is not known to have its name.
enum Unnamed {
    /// It does not.
    Certainly(Error),
    /// It may have it, now or after a loss of power.
    Perhaps(Error),
}

impl Unnamed {
    fn into_error(self) -> Error {
        match self {
            Self::Certainly(error) | Self::Perhaps(error) => error,
        }
    }
}

fn unfinished_path(dir: &Path, id: FileId) -> PathBuf {
    dir.join(format!("{PREFIX}{id}{UNFINISHED}"))
}

/// Writes a file of its own, durably but for its name.
async fn write_new<I: Io>(io: &I, path: &Path, buf: IoBuf) -> Result<File> {
    let file = io.open(path, OpenMode::CreateNew).await?;
    let (_, written) = io.write(&file, 0, WriteBuf::Owned(buf), Harden::Later).await;
    written?;
    io.sync(&file).await?;
    Ok(file)
}

/// Removes a manifest that does not count. The next opening would do it, too.
async fn remove_stale<I: Io>(io: &I, path: &Path) {
    if let Err(error) = io.remove(path).await {
        tracing::warn!(%error, "a stale manifest stays until the next opening");
    }
}

/// The edits, encoded, in payloads of a bounded size. At least one.
fn payloads(edits: &[Edit]) -> Vec<Vec<u8>> {
    let mut payloads = vec![Vec::new()];
    for edit in edits {
        let last = payloads.last_mut().expect("there is always one");
        edit::encode(edit, last);
        if last.len() >= PAYLOAD_BYTES {
            payloads.push(Vec::new());
        }
    }
    payloads
}
