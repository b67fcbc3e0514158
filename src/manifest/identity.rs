//! The identity file: what a database is, written once when it is created.
//!
//! It holds two copies, each a header unit of its own, for the hash key in it
//! cannot be replaced: without it nobody knows which shard holds a key.

use std::path::Path;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::{DbId, FileId};
use crate::base::limits::{SHARDS_MAX, UNIT, UNIT_U64};
use crate::format::header::{FileType, Header};
use crate::format::record::u32_at;
use crate::io::{Harden, Io, IoBuf, OpenMode};

/// The file's name.
pub(crate) const IDENTITY: &str = "IDENTITY";

/// Its name while it is being made.
pub(crate) const UNFINISHED: &str = "IDENTITY.tmp";

/// What never changes about a database.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) db: DbId,
    /// Shards of the keyspace, at least 1.
    pub(crate) shards: usize,
    /// The key of the routing hash.
    pub(crate) hash_key: [u8; 16],
}

impl Identity {
    /// A new database's.
    pub(crate) fn draw<I: Io>(io: &I, shards: usize) -> Self {
        let mut db = DbId([0; 16]);
        io.random(&mut db.0);
        let mut hash_key = [0; 16];
        io.random(&mut hash_key);
        Self { db, shards, hash_key }
    }

    fn encode(&self, unit: &mut [u8]) {
        let mut extra = (self.shards as u32).to_le_bytes().to_vec();
        extra.extend(self.hash_key);
        Header::new(FileType::Identity, self.db, FileId::from_u64(0), extra).encode(unit);
    }

    /// The copy of it that one unit, at `offset`, is.
    pub(super) fn decode(unit: &[u8], path: &Path, offset: u64) -> Result<Self> {
        let header = Header::decode(unit, FileType::Identity).map_err(|e| e.at(path, offset))?;
        header.check_writable().map_err(|e| e.at(path, offset))?;
        let shards = match header.extra.len() {
            20 => u32_at(&header.extra, 0) as usize,
            _ => 0,
        };
        if !(1..=SHARDS_MAX).contains(&shards) {
            return Err(Error::corruption(path, offset, "the identity makes no sense"));
        }
        let mut hash_key = [0; 16];
        hash_key.copy_from_slice(&header.extra[4..]);
        Ok(Self { db: header.db, shards, hash_key })
    }

    /// Writes the identity file, durably.
    pub(crate) async fn create<I: Io>(&self, io: &I, dir: &Path) -> Result<()> {
        let unfinished = dir.join(UNFINISHED);
        if io.list(dir).await?.iter().any(|name| name == UNFINISHED) {
            io.remove(&unfinished).await?;
        }
        let file = io.open(&unfinished, OpenMode::CreateNew).await?;
        let mut buf = IoBuf::zeroed(2 * UNIT);
        let (first, second) = buf.split_at_mut(UNIT);
        self.encode(first);
        self.encode(second);
        let (_, written) = io.write(&file, 0, buf.into(), Harden::Later).await;
        written?;
        io.sync(&file).await?;
        io.rename(&unfinished, &dir.join(IDENTITY)).await?;
        io.sync_dir(dir).await
    }

    /// Reads the identity file.
    pub(crate) async fn load<I: Io>(io: &I, dir: &Path) -> Result<Self> {
        let path = dir.join(IDENTITY);
        let file = io.open(&path, OpenMode::Read).await?;
        let len = io.len(&file).await?;
        let (buf, read) = io.read(&file, 0, IoBuf::zeroed(2 * UNIT)).await;
        let read = read?;
        let copies = [0, 1].map(|copy| {
            let unit = buf[..read].get(copy * UNIT..(copy + 1) * UNIT).unwrap_or_default();
            Self::decode(unit, &path, copy as u64 * UNIT_U64)
        });
        match copies {
            [Err(error), _] | [_, Err(error)] if error.kind() == ErrorKind::Unsupported => {
                Err(error)
            }
            [Ok(a), Ok(b)] if a == b && len == 2 * UNIT_U64 => Ok(a),
            [Ok(a), Ok(b)] => {
                let reason = if a == b {
                    format!("the file has {len} bytes; cut it to the first {}", 2 * UNIT)
                } else {
                    "the identity's two copies do not agree; restore it from a copy".to_owned()
                };
                Err(Error::corruption(&path, 0, reason))
            }
            [Err(error), Ok(_)] | [Ok(_), Err(error)] => Err(error.context(
                "one of the identity's two copies is damaged; copy the sound half of the file \
                 over it",
            )),
            [Err(error), Err(_)] => Err(error.context(
                "both of the identity's copies are damaged, and the keys cannot be found without \
                 it; restore it from a copy",
            )),
        }
    }
}
