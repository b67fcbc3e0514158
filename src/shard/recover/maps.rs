//! Opening: mappings of the log, in its own directory and elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::{Epoch, FileId};
use crate::format::edit::{MapDir, MapPlace};
use crate::io::{File, Io};
use crate::shard::recover::streams::RootState;
use crate::shard::recover::{Recovery, WAL_DIR};
use crate::wal::{self, FoundMap, FoundStream};

/// A lock that somebody else has is tried again after this long.
const LOCK_RETRY_NS: u64 = 5_000_000;

/// The names in the directory for mappings.
pub(super) async fn list_map_dir<I: Io>(io: &I, dir: &str) -> Result<Vec<String>> {
    let names = io.list(Path::new(dir)).await;
    names.map_err(|error| error.context("the directory for mappings (Options::map_dir)"))
}

/// What earlier openings left in directories other than that of the log.
#[derive(Default)]
pub(super) struct Elsewhere {
    /// Mappings that the root manifest does not name.
    pub(super) maps: BTreeMap<FileId, PathBuf>,
    /// Those that were never finished.
    pub(super) unfinished: Vec<PathBuf>,
    /// Where something is left, or may be.
    pub(super) dirs: Vec<MapDir>,
}

impl<I: Io> Recovery<'_, I> {
    /// Where this opening puts its mappings, if not into the log's directory.
    pub(super) async fn own_map_dir(&self) -> Result<Option<MapDir>> {
        let Some(path) = &self.opening.map_dir else {
            return Ok(None);
        };
        list_map_dir(self.io, path).await?;
        Ok(Some(MapDir { place: self.opening.place, path: path.clone() }))
    }

    /// Looks through the directories where earlier openings put their mappings. What
    /// openings of another directory put there is that one's, of which this one is a copy.
    pub(super) async fn maps_elsewhere(&self, root: &RootState) -> Result<Elsewhere> {
        let mut elsewhere = Elsewhere::default();
        let named = root.streams.values().filter_map(|stream| stream.map.as_ref());
        let named: BTreeSet<FileId> = named.map(|place| place.id).collect();
        for dir in root.map_dirs.iter().filter(|dir| dir.place == self.opening.place) {
            match self.look_through(dir, &named, &mut elsewhere).await {
                Ok(false) => {}
                Ok(true) => elsewhere.dirs.push(dir.clone()),
                Err(error) if root.is_clean => {
                    tracing::warn!(%error, "mappings of the log may be left over there");
                    elsewhere.dirs.push(dir.clone());
                }
                // Something acknowledged may be there that the root manifest has forgotten.
                Err(error) => return Err(error.context("mappings of the log may be there")),
            }
        }
        Ok(elsewhere)
    }

    /// Whether there is anything.
    async fn look_through(
        &self,
        dir: &MapDir,
        named: &BTreeSet<FileId>,
        elsewhere: &mut Elsewhere,
    ) -> Result<bool> {
        let (maps, unfinished) = wal::list_elsewhere(self.io, self.identity.db, dir).await?;
        if !maps.is_empty() || !unfinished.is_empty() {
            elsewhere.maps.extend(maps.into_iter().filter(|(id, _)| !named.contains(id)));
            elsewhere.unfinished.extend(unfinished);
            return Ok(true);
        }
        // Or the loss of power brings back names that nobody knows any more.
        match self.io.sync_dir(Path::new(&dir.path)).await {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => {
                tracing::warn!(%error, "the directory for mappings is looked through again");
                Ok(true)
            }
        }
    }

    /// Takes in the mapping of a stream. It may hold what was acknowledged, and
    /// is nowhere else. Returns its lock, if it is not in the log's directory.
    pub(super) async fn read_map(
        &self,
        stream: &mut FoundStream,
        place: &MapPlace,
    ) -> Result<Option<File>> {
        let (io, db) = (self.io, self.identity.db);
        let path = wal::map_path(&self.opening.dir.join(WAL_DIR), db, place);
        let is_same_boot = io.boot_id()? == place.boot;
        let read = async {
            let lock = match &place.dir {
                // Of a directory that this one is a copy of. Its own are nobody else's: it is
                // locked itself.
                Some(dir) if dir.place != self.opening.place => Some(self.lock_used(&path).await?),
                _ => None,
            };
            let pool = &self.opening.pool;
            stream.read_map(io, pool, db, place.id, &path, is_same_boot).await?;
            Ok::<_, Error>(lock)
        };
        match read.await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if place.dir.is_some() && !is_same_boot {
                    tracing::warn!(
                        path = %path.display(),
                        "the mapping of the log went with the boot of the machine it was of, and \
                         with it writes that were not durable"
                    );
                    return Ok(None);
                }
                let until_reboot = match place.dir {
                    Some(_) => {
                        ", or reboot the machine: then the database opens without what only the \
                         file held"
                    }
                    None => "",
                };
                let reason = format!(
                    "the mapping of the log is missing, and may hold acknowledged writes; nothing \
                     was changed: restore the file{until_reboot}"
                );
                Err(Error::corruption(&path, 0, reason))
            }
            read => read,
        }
    }

    /// Takes the lock of a mapping that the root manifest names. A process that ends keeps
    /// it for a while.
    async fn lock_used(&self, path: &Path) -> Result<File> {
        let io = self.io;
        let deadline = io.now_ns().saturating_add(self.opening.lock_wait_ns);
        loop {
            if let Some(lock) = io.try_lock(path, false).await? {
                return Ok(lock);
            }
            if io.now_ns() >= deadline {
                return Err(wal::map_in_use(path));
            }
            io.sleep(LOCK_RETRY_NS).await;
        }
    }

    /// A mapping is named by the root manifest, for certain, before anything is put
    /// into it. If the last opening used one that is not, the manifest has lost the edit.
    pub(super) async fn check_unknown_map(
        &self,
        id: FileId,
        path: &Path,
        last_epoch: Epoch,
    ) -> Result<()> {
        let (io, pool, db) = (self.io, &self.opening.pool, self.identity.db);
        if !FoundMap::was_used(io, pool, db, id, path, last_epoch).await? {
            return Ok(());
        }
        Err(self.not_known(path))
    }
}
