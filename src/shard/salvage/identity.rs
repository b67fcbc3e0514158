//! What a salvage has to know before it can judge a checksum: the database's id.
//! Each file has it in its header, so the identity file may be gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::{DbId, ShardId};
use crate::base::limits::{SHARDS_MAX, UNIT};
use crate::format::header::{FileType, Header};
use crate::io::{Halt, Inspection, Io, IoBuf, OpenMode};
use crate::manifest::{IDENTITY, verify_identity};
use crate::shard::engine::shard_dir;
use crate::shard::recover::{WAL_DIR, no_identity};
use crate::shard::salvage::report::{Meaning, SharedReporter};

/// A database that is to be salvaged.
pub(crate) struct Damaged {
    pub(crate) dir: PathBuf,
    /// Tells `dir` from its copies; `None` where it has no file for the lock.
    pub(crate) place: Option<[u8; 16]>,
    pub(crate) db: DbId,
    pub(crate) shards: usize,
}

impl Damaged {
    pub(super) fn shard_dir(&self, shard: ShardId) -> PathBuf {
        shard_dir(&self.dir, shard)
    }
}

/// What damage to the identity means.
const SPARED: &str = "nothing is lost by that: the copy has an identity of its own";

/// Finds out what is in `dir`.
pub(crate) async fn identify<I: Io>(
    io: &I,
    dir: &Path,
    place: Option<[u8; 16]>,
    reporter: &SharedReporter<'_>,
) -> Result<Damaged, Halt> {
    let not_found =
        || Error::new(ErrorKind::NotFound, format!("there is no database in {}", dir.display()));
    let found = names(io, dir).await?.ok_or_else(not_found)?;
    let mut report =
        |finding: crate::base::fault::Finding<'_>| reporter.borrow_mut().finding(finding);
    let inspection = &mut Inspection::new(io, &mut report);
    reporter.borrow_mut().faults_mean(Meaning::Spared(SPARED));
    let identity = match found.iter().any(|name| name == IDENTITY) {
        true => verify_identity(inspection, dir).await?,
        false => {
            no_identity(dir, &found).ok_or_else(not_found)?;
            let reason = format!("the identity file is missing; {SPARED}");
            reporter.borrow_mut().spared(&dir.join(IDENTITY), &reason)?;
            None
        }
    };
    let is_shard = |name: &&String| shard_of(name).is_some();
    let last = found.iter().filter_map(|name| shard_of(name)).max();
    let mut dirs: Vec<PathBuf> = found.iter().filter(is_shard).map(|n| dir.join(n)).collect();
    dirs.extend([dir.to_owned(), dir.join(WAL_DIR)]);
    let stated = most_common_id(io, &dirs).await?;
    let dir = dir.to_owned();
    match (identity, stated) {
        (Some(own), None) => Ok(Damaged { dir, place, db: own.db, shards: own.shards }),
        (Some(own), Some(db)) if own.db == db => Ok(Damaged { dir, place, db, shards: own.shards }),
        (own, Some(db)) => {
            if own.is_some() {
                let reason = format!("this is the identity of another database; {SPARED}");
                reporter.borrow_mut().spared(&dir.join(IDENTITY), &reason)?;
            }
            Ok(Damaged { dir, place, db, shards: last.map_or(1, |last| last + 1) })
        }
        (None, None) => {
            let reason = "neither this nor any other file tells the database's id, without which no \
                          checksum can be judged: nothing can be salvaged";
            Err(Error::corruption(&dir.join(IDENTITY), 0, reason).into())
        }
    }
}

/// The shard whose directory has this name.
fn shard_of(name: &str) -> Option<usize> {
    let shard = name.strip_prefix("shard-")?.parse().ok()?;
    (shard < SHARDS_MAX && format!("shard-{shard:03}") == name).then_some(shard)
}

/// The names in a directory, in order; `None` when there is none.
pub(super) async fn names<I: Io>(io: &I, dir: &Path) -> Result<Option<Vec<String>>> {
    match io.list(dir).await {
        Ok(mut names) => {
            names.sort_unstable();
            Ok(Some(names))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The id that most manifests and log segments have in their headers; if they
/// tell none, most tables.
async fn most_common_id<I: Io>(io: &I, dirs: &[PathBuf]) -> Result<Option<DbId>> {
    for types in [&[FileType::Manifest, FileType::Wal][..], &[FileType::Table]] {
        let mut counts = BTreeMap::<[u8; 16], u64>::new();
        for dir in dirs {
            for name in names(io, dir).await?.unwrap_or_default() {
                let of_name = FileType::of_name(&name).filter(|of| types.contains(of));
                let Some(of_name) = of_name.filter(|_| !name.ends_with(".tmp")) else { continue };
                if let Some(id) = stated_id(io, &dir.join(name), of_name).await {
                    *counts.entry(id.0).or_default() += 1;
                }
            }
        }
        if let Some((id, _)) = counts.into_iter().max_by_key(|(_, count)| *count) {
            return Ok(Some(DbId(id)));
        }
    }
    Ok(None)
}

/// The id in a file's header. What keeps it from being read is told when the file
/// is needed.
async fn stated_id<I: Io>(io: &I, path: &Path, of: FileType) -> Option<DbId> {
    let file = io.open(path, OpenMode::Read).await.ok()?;
    let (unit, read) = io.read(&file, 0, IoBuf::zeroed(UNIT)).await;
    let header = Header::decode(unit.get(..read.ok()?)?, of);
    header.ok().map(|header| header.db)
}
