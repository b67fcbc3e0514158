//! LMDB as a target: its unnamed database, a transaction for each operation.
//!
//! It has no cache, but maps its file: what it reads the page cache holds, and
//! no memory budget limits that. Commits write to the file and sync it; without
//! the syncs (`MDB_NOSYNC`), which is `process-safe`, the kernel has them.

use std::convert::Infallible;
use std::fs::{self, File};
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RwTxn};
use ouro_bench::directory;
use ouro_bench::failure::Failure;
use ouro_bench::target::{Handle, OpenOptions, Rows, Status, Target};
use ourodb::Durability;

use super::batch::{Batch, Settings};
use super::{check_options, failed, files, is_below, status};

/// The address space for the file, which grows up to this as data comes. Where a
/// process may not have so much (`ulimit -v`), the database does not open.
const MAP_BYTES: usize = 256 << 30;
/// Threads that can read: as many clients as `--clients` allows for.
const READERS_MAX: u32 = 4096;

/// An open LMDB environment.
pub struct Lmdb {
    env: Env,
    database: Database<'static, Bytes, Bytes>,
    batch: Option<Batch>,
    /// Behind the environment, so that it is closed last.
    _lock: File,
}

impl Target for Lmdb {
    const NAME: &'static str = "lmdb";

    type Settings = Settings;
    type Handle<'a> = LmdbHandle<'a>;

    fn check(options: &OpenOptions, _: &Settings) -> Result<(), Failure> {
        check_options(options)
    }

    fn owns(path: &Path, is_dir: bool) -> bool {
        let at_top = path == Path::new(Self::NAME);
        at_top == is_dir
            && is_below(Self::NAME, path, |name| ["data.mdb", "lock.mdb"].contains(&name))
    }

    fn open(dir: &Path, options: &OpenOptions, settings: &Settings) -> Result<Self, Failure> {
        let lock = directory::lock(dir)?;
        let files = files(dir, Self::NAME, options.create)?;
        if options.create {
            fs::create_dir_all(&files).map_err(failed("cannot create LMDB's directory"))?;
        }
        let env = open_env(&files, options.durability).map_err(failed("cannot open LMDB"))?;
        let database = open_database(&env).map_err(failed("cannot open LMDB's database"))?;
        Ok(Self { env, database, batch: Batch::new(*settings), _lock: lock })
    }

    fn handle(&self) -> LmdbHandle<'_> {
        LmdbHandle { lmdb: self }
    }

    fn settle(&self, _interrupt: &AtomicBool) -> Result<(), Failure> {
        self.commit_pending()
    }

    fn status(&self) -> Status {
        status()
    }

    fn close(self) -> Result<(), Failure> {
        self.commit_pending()?;
        self.env.force_sync().map_err(failed("LMDB cannot sync"))
    }
}

impl Lmdb {
    /// A transaction that changes the database, with its commit.
    fn write(
        &self,
        change: impl FnOnce(&mut RwTxn<'_>) -> Result<(), heed::Error>,
    ) -> Result<(), heed::Error> {
        let mut transaction = self.env.write_txn()?;
        change(&mut transaction)?;
        transaction.commit()
    }

    fn put_all(&self, rows: &Rows) -> Result<(), Failure> {
        self.write(|transaction| {
            rows.iter().try_for_each(|(key, value)| self.database.put(transaction, key, value))
        })
        .map_err(failed("a commit of puts failed"))
    }

    fn commit_pending(&self) -> Result<(), Failure> {
        self.batch.as_ref().map_or(Ok(()), |batch| batch.finish(|rows| self.put_all(rows)))
    }
}

#[allow(unsafe_code, reason = "a mapped file can change under its readers")]
fn open_env(files: &Path, durability: Durability) -> Result<Env, heed::Error> {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES).max_readers(READERS_MAX);
    // For whoever reads at random what is larger than memory; LMDB's documentation has it.
    let mut flags = EnvFlags::NO_READ_AHEAD;
    if durability != Durability::Durable {
        flags |= EnvFlags::NO_SYNC;
    }
    // SAFETY: without syncs the file may be damaged when the machine dies, which
    // `process-safe` allows for; while the kernel lives, its readers see all that was written.
    // To read nothing ahead changes nothing of what is read.
    unsafe { options.flags(flags) };
    // SAFETY: nothing but LMDB changes the file while it is mapped. This process holds the lock
    // of the directory, which keeps every other process of these tools out and loads from
    // replacing files, and itself only reaches the file through LMDB, whose own locks are on.
    unsafe { options.open(files) }
}

/// The unnamed database is always there.
fn open_database(env: &Env) -> Result<Database<'static, Bytes, Bytes>, heed::Error> {
    let transaction = env.write_txn()?;
    let CommitOrAbort::Commit(database) =
        env.create_databases_and_commit(transaction, |opener, transaction| {
            opener.create_database(transaction, None).map(CommitOrAbort::<_, Infallible>::Commit)
        })?;
    Ok(database)
}

/// A client of LMDB. Its thread keeps its place among the readers from one
/// transaction to the next.
pub struct LmdbHandle<'a> {
    lmdb: &'a Lmdb,
}

impl LmdbHandle<'_> {
    fn get_all<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        mut found: impl FnMut(Option<Vec<u8>>),
    ) -> Result<(), heed::Error> {
        let transaction = self.lmdb.env.read_txn()?;
        for key in keys {
            found(self.lmdb.database.get(&transaction, key)?.map(<[u8]>::to_vec));
        }
        Ok(())
    }

    fn scan_all(&self, from: &[u8], limit: usize, found: &mut Rows) -> Result<(), heed::Error> {
        let transaction = self.lmdb.env.read_txn()?;
        let range = (Bound::Included(from), Bound::Unbounded);
        for row in self.lmdb.database.range(&transaction, &range)?.take(limit) {
            let (key, value) = row?;
            found.push(key, value);
        }
        Ok(())
    }
}

impl Handle for LmdbHandle<'_> {
    /// A copy: the map has the value only as long as the transaction lives, which
    /// cannot leave this thread.
    type Bytes = Vec<u8>;

    fn get(&mut self, key: &[u8]) -> Result<Option<Self::Bytes>, Failure> {
        let mut value = None;
        self.get_all([key], |found| value = found).map_err(failed("a get failed"))?;
        Ok(value)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let lmdb = self.lmdb;
        match &lmdb.batch {
            Some(batch) => batch.put(key, value, |rows| lmdb.put_all(rows)),
            None => lmdb
                .write(|transaction| lmdb.database.put(transaction, key, value))
                .map_err(failed("a put failed")),
        }
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Failure> {
        let lmdb = self.lmdb;
        lmdb.commit_pending()?;
        lmdb.write(|transaction| lmdb.database.delete(transaction, key).map(drop))
            .map_err(failed("a delete failed"))
    }

    fn multi_get(
        &mut self,
        keys: &[Vec<u8>],
        found: &mut Vec<Option<Self::Bytes>>,
    ) -> Result<(), Failure> {
        self.get_all(keys.iter().map(Vec::as_slice), |value| found.push(value))
            .map_err(failed("a multi-get failed"))
    }

    fn scan(&mut self, from: &[u8], limit: usize, found: &mut Rows) -> Result<(), Failure> {
        self.scan_all(from, limit, found).map_err(failed("a scan failed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_lmdb_are_its_own() {
        let owns = |path: &str, is_dir| Lmdb::owns(Path::new(path), is_dir);
        assert!(owns("lmdb", true));
        for name in ["data.mdb", "lock.mdb"] {
            assert!(owns(&format!("lmdb/{name}"), false), "{name}");
            assert!(!owns(&format!("lmdb/{name}"), true), "{name}");
            assert!(!owns(name, false), "{name}");
        }
        for name in ["lmdb", "lmdb/note.txt", "lmdb/data.mdb/data.mdb.x", "redb/data.mdb"] {
            assert!(!owns(name, false), "{name}");
        }
    }
}
