//! fjall as a target: one keyspace with its defaults, no compression.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, UserValue};
use ouro_bench::directory;
use ouro_bench::failure::Failure;
use ouro_bench::target::{Handle, OpenOptions, Rows, Status, Target};
use ourodb::Durability;
use serde::Serialize;

use super::{Memory, check_options, failed, files, is_below, is_number, status};

const KEYSPACE: &str = "default";
/// Nothing says that no compaction is about to begin: none for this long is
/// taken for it.
const QUIET: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(5);

/// What only fjall can be asked for.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Settings {
    /// Settling includes a compaction of everything.
    pub compact: bool,
}

/// An open fjall database.
pub struct Fjall {
    keyspace: Keyspace,
    database: Database,
    settings: Settings,
    durability: Durability,
    /// Behind the database, so that it is closed last.
    _lock: File,
}

impl Target for Fjall {
    const NAME: &'static str = "fjall";

    type Settings = Settings;
    type Handle<'a> = FjallHandle<'a>;

    fn check(options: &OpenOptions, _: &Settings) -> Result<(), Failure> {
        check_options(options)
    }

    fn owns(path: &Path, is_dir: bool) -> bool {
        // The names of tables are numbers, as those of keyspaces are.
        let at_top = path == Path::new(Self::NAME);
        (is_dir || !at_top) && is_below(Self::NAME, path, is_fjall_name)
    }

    fn open(dir: &Path, options: &OpenOptions, settings: &Settings) -> Result<Self, Failure> {
        let lock = directory::lock(dir)?;
        let files = files(dir, Self::NAME, options.create)?;
        let memory = Memory::divide(options.memory_bytes);
        let database = Database::builder(files)
            .cache_size(memory.cache_bytes)
            .open()
            .map_err(failed("cannot open fjall"))?;
        let keyspace = database
            .keyspace(KEYSPACE, || {
                KeyspaceCreateOptions::default().max_memtable_size(memory.write_buffer_bytes)
            })
            .map_err(failed("cannot open fjall's keyspace"))?;
        let (settings, durability) = (*settings, options.durability);
        Ok(Self { keyspace, database, settings, durability, _lock: lock })
    }

    fn handle(&self) -> FjallHandle<'_> {
        FjallHandle {
            keyspace: &self.keyspace,
            sync: (self.durability == Durability::Durable).then_some(&self.database),
        }
    }

    fn settle(&self, _interrupt: &AtomicBool) -> Result<(), Failure> {
        self.keyspace.rotate_memtable_and_wait().map_err(failed("fjall cannot flush"))?;
        if self.settings.compact {
            self.wait_until_quiet();
            self.keyspace.major_compact().map_err(failed("fjall cannot compact"))?;
        }
        self.wait_until_quiet();
        Ok(())
    }

    fn status(&self) -> Status {
        status()
    }

    fn close(self) -> Result<(), Failure> {
        self.database.persist(PersistMode::SyncAll).map_err(failed("fjall cannot write its log"))
    }
}

impl Fjall {
    fn wait_until_quiet(&self) {
        let (mut since, mut completed) = (Instant::now(), self.database.compactions_completed());
        while since.elapsed() < QUIET {
            thread::sleep(POLL);
            let busy = self.database.outstanding_flushes() > 0
                || self.keyspace.sealed_memtable_count() > 0
                || self.database.active_compactions() > 0;
            let before = completed;
            completed = self.database.compactions_completed();
            if busy || completed != before {
                since = Instant::now();
            }
        }
    }
}

/// A directory or a file at any depth.
fn is_fjall_name(name: &str) -> bool {
    ["keyspaces", "tables", "blobs", "lock", "version", "current"].contains(&name)
        || is_number(name)
        || name.strip_prefix('v').is_some_and(is_number)
        || name.strip_suffix(".jnl").is_some_and(is_number)
        // A file that was being replaced when the process was killed.
        || name.starts_with(".tmp")
}

/// A client of fjall.
pub struct FjallHandle<'a> {
    keyspace: &'a Keyspace,
    /// What syncs every write; without it a write is handed to the kernel.
    sync: Option<&'a Database>,
}

impl FjallHandle<'_> {
    fn persist(&self) -> Result<(), Failure> {
        let synced = self.sync.map_or(Ok(()), |database| database.persist(PersistMode::SyncData));
        synced.map_err(failed("a sync failed"))
    }
}

impl Handle for FjallHandle<'_> {
    type Bytes = UserValue;

    fn get(&mut self, key: &[u8]) -> Result<Option<Self::Bytes>, Failure> {
        self.keyspace.get(key).map_err(failed("a get failed"))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.keyspace.insert(key, value).map_err(failed("a put failed"))?;
        self.persist()
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Failure> {
        self.keyspace.remove(key).map_err(failed("a delete failed"))?;
        self.persist()
    }

    fn scan(&mut self, from: &[u8], limit: usize, found: &mut Rows) -> Result<(), Failure> {
        for row in self.keyspace.range(from..).take(limit) {
            let (key, value) = row.into_inner().map_err(failed("a scan failed"))?;
            found.push(&key, &value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_fjall_are_its_own() {
        let owns = |path: &str, is_dir| Fjall::owns(Path::new(path), is_dir);
        assert!(owns("fjall", true) && owns("fjall/keyspaces/1/tables", true));
        for name in ["fjall/0.jnl", "fjall/lock", "fjall/keyspaces/1/tables/7"] {
            assert!(owns(name, false), "{name}");
        }
        for name in ["fjall", "fjall/note.txt", "fjall/keyspaces/x/tables/7", "1", "rocksdb/1"] {
            assert!(!owns(name, false), "{name}");
        }
    }
}
