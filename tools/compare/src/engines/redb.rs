//! redb as a target: one table, a transaction for each operation.
//!
//! A commit that redb calls durable syncs its file. One that it does not call
//! durable stays in the process, and dies with it; between the two there is
//! nothing. So `process-safe` is durable commits on a file whose syncs do
//! nothing: each of them hands its pages to the kernel, in order, which is what
//! outlives the process.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use ouro_bench::directory;
use ouro_bench::failure::Failure;
use ouro_bench::target::{Handle, OpenOptions, Rows, Status, Target};
use ourodb::Durability;
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, OwnedAccessGuard, ReadOnlyTable, ReadableDatabase, StorageBackend,
    StorageError, Table, TableDefinition,
};

use super::batch::{Batch, Settings};
use super::{check_options, failed, files, is_below, status};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("default");
const FILE: &str = "data.redb";

/// An open redb database.
pub struct Redb {
    database: Database,
    batch: Option<Batch>,
    /// What the database is in.
    file: File,
    /// Behind the database, so that it is closed last.
    _lock: File,
}

impl Target for Redb {
    const NAME: &'static str = "redb";

    type Settings = Settings;
    type Handle<'a> = RedbHandle<'a>;

    fn check(options: &OpenOptions, _: &Settings) -> Result<(), Failure> {
        check_options(options)
    }

    fn owns(path: &Path, is_dir: bool) -> bool {
        let at_top = path == Path::new(Self::NAME);
        at_top == is_dir && is_below(Self::NAME, path, |name| name == FILE)
    }

    fn open(dir: &Path, options: &OpenOptions, settings: &Settings) -> Result<Self, Failure> {
        let lock = directory::lock(dir)?;
        let files = files(dir, Self::NAME, options.create)?;
        let file = open_file(&files, options.create).map_err(failed("cannot open redb's file"))?;
        let database = open_database(&file, options).map_err(failed("cannot open redb"))?;
        let redb = Self { database, batch: Batch::new(*settings), file, _lock: lock };
        if options.create {
            redb.write(|_| Ok(())).map_err(failed("cannot create redb's table"))?;
        }
        Ok(redb)
    }

    fn handle(&self) -> RedbHandle<'_> {
        RedbHandle { redb: self }
    }

    fn settle(&self, _interrupt: &AtomicBool) -> Result<(), Failure> {
        self.commit_pending()
    }

    fn status(&self) -> Status {
        status()
    }

    fn close(self) -> Result<(), Failure> {
        self.commit_pending()?;
        let Self { database, file, _lock, .. } = self;
        database.close().map_err(failed("cannot close redb"))?;
        file.sync_all().map_err(failed("cannot sync redb's file"))
    }
}

impl Redb {
    /// A transaction that changes the table, with its commit.
    fn write(
        &self,
        change: impl FnOnce(&mut Table<'_, &'static [u8], &'static [u8]>) -> Result<(), StorageError>,
    ) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        change(&mut transaction.open_table(TABLE)?)?;
        Ok(transaction.commit()?)
    }

    /// The table as it is now, in a transaction of its own.
    fn read(&self) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, redb::Error> {
        Ok(self.database.begin_read()?.open_table(TABLE)?)
    }

    fn put_all(&self, rows: &Rows) -> Result<(), Failure> {
        self.write(|table| rows.iter().try_for_each(|(key, value)| put(table, key, value)))
            .map_err(failed("a commit of puts failed"))
    }

    fn commit_pending(&self) -> Result<(), Failure> {
        self.batch.as_ref().map_or(Ok(()), |batch| batch.finish(|rows| self.put_all(rows)))
    }
}

fn put(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    key: &[u8],
    value: &[u8],
) -> Result<(), StorageError> {
    table.insert(key, value).map(drop)
}

fn open_file(files: &Path, create: bool) -> io::Result<File> {
    if create {
        fs::create_dir_all(files)?;
    }
    let path = files.join(FILE);
    File::options().read(true).write(true).create(create).truncate(false).open(path)
}

fn open_database(file: &File, options: &OpenOptions) -> Result<Database, DatabaseError> {
    let backend = FileBackend::new(file.try_clone()?)?;
    let mut builder = Database::builder();
    builder.set_cache_size(options.memory_bytes as usize);
    match options.durability {
        Durability::Durable => builder.create_with_backend(backend),
        _ => builder.create_with_backend(Unsynced(backend)),
    }
}

/// A file that is synced by whoever closes the database. It is not locked, as
/// its directory is.
#[derive(Debug)]
struct Unsynced(FileBackend);

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// A client of redb.
pub struct RedbHandle<'a> {
    redb: &'a Redb,
}

/// A value where redb's cache has it.
pub struct RedbValue(OwnedAccessGuard<&'static [u8]>);

impl AsRef<[u8]> for RedbValue {
    fn as_ref(&self) -> &[u8] {
        self.0.value()
    }
}

impl Handle for RedbHandle<'_> {
    type Bytes = RedbValue;

    fn get(&mut self, key: &[u8]) -> Result<Option<Self::Bytes>, Failure> {
        let table = self.redb.read().map_err(failed("a get failed"))?;
        Ok(table.get_owned(key).map_err(failed("a get failed"))?.map(RedbValue))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let redb = self.redb;
        match &redb.batch {
            Some(batch) => batch.put(key, value, |rows| redb.put_all(rows)),
            None => redb.write(|table| put(table, key, value)).map_err(failed("a put failed")),
        }
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Failure> {
        self.redb.commit_pending()?;
        self.redb.write(|table| table.remove(key).map(drop)).map_err(failed("a delete failed"))
    }

    fn multi_get(
        &mut self,
        keys: &[Vec<u8>],
        found: &mut Vec<Option<Self::Bytes>>,
    ) -> Result<(), Failure> {
        let table = self.redb.read().map_err(failed("a multi-get failed"))?;
        for key in keys {
            let value = table.get_owned(key.as_slice()).map_err(failed("a multi-get failed"))?;
            found.push(value.map(RedbValue));
        }
        Ok(())
    }

    fn scan(&mut self, from: &[u8], limit: usize, found: &mut Rows) -> Result<(), Failure> {
        let table = self.redb.read().map_err(failed("a scan failed"))?;
        for row in table.range(from..).map_err(failed("a scan failed"))?.take(limit) {
            let (key, value) = row.map_err(failed("a scan failed"))?;
            found.push(key.value(), value.value());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_redb_are_its_own() {
        let owns = |path: &str, is_dir| Redb::owns(Path::new(path), is_dir);
        assert!(owns("redb", true) && owns("redb/data.redb", false));
        assert!(!owns("redb/data.redb", true));
        for name in ["redb", "redb/note.txt", "redb/data.redb.x", "data.redb", "fjall/data.redb"] {
            assert!(!owns(name, false), "{name}");
        }
    }
}
