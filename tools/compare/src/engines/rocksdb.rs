//! RocksDB as a target: leveled compaction with its defaults, 10-bit Bloom
//! filters, the clock cache that its authors recommend, no compression.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use ouro_bench::directory;
use ouro_bench::failure::Failure;
use ouro_bench::target::{Handle, OpenOptions, Rows, Status, Target};
use ourodb::Durability;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBPinnableSlice, DEFAULT_COLUMN_FAMILY_NAME, Options, ReadOptions, WaitForCompactOptions,
    WriteOptions,
};
use serde::Serialize;

use super::{Memory, WRITE_BUFFERS, check_options, failed, files, is_below, is_number, status};

const FILTER_BITS_PER_KEY: f64 = 10.0;
/// Lets the cache find out itself how large its entries are.
const ENTRY_BYTES_UNKNOWN: usize = 0;

/// What only RocksDB can be asked for.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Settings {
    /// Reads, flushes and compactions bypass the page cache.
    pub direct: bool,
    /// Settling includes a compaction of everything.
    pub compact: bool,
}

/// An open RocksDB.
pub struct RocksDb {
    db: DB,
    settings: Settings,
    durability: Durability,
    /// Behind the database, so that it is closed last.
    _lock: File,
}

impl Target for RocksDb {
    const NAME: &'static str = "rocksdb";

    type Settings = Settings;
    type Handle<'a> = RocksHandle<'a>;

    fn check(options: &OpenOptions, _: &Settings) -> Result<(), Failure> {
        check_options(options)
    }

    fn owns(path: &Path, is_dir: bool) -> bool {
        let at_top = path == Path::new(Self::NAME);
        at_top == is_dir && is_below(Self::NAME, path, is_rocksdb_file)
    }

    fn open(dir: &Path, options: &OpenOptions, settings: &Settings) -> Result<Self, Failure> {
        let lock = directory::lock(dir)?;
        let files = files(dir, Self::NAME, options.create)?;
        let chosen = database_options(options, settings);
        // By its name, so that it can be named.
        let family = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, chosen.clone());
        let db = DB::open_cf_descriptors(&chosen, files, [family])
            .map_err(failed("cannot open RocksDB"))?;
        Ok(Self { db, settings: *settings, durability: options.durability, _lock: lock })
    }

    fn handle(&self) -> RocksHandle<'_> {
        let mut write = WriteOptions::default();
        write.set_sync(self.durability == Durability::Durable);
        RocksHandle { db: &self.db, read: ReadOptions::default(), write }
    }

    fn settle(&self, _interrupt: &AtomicBool) -> Result<(), Failure> {
        self.db.flush().map_err(failed("RocksDB cannot flush"))?;
        if self.settings.compact {
            self.db.compact_range::<&[u8], &[u8]>(None, None);
        }
        self.db
            .wait_for_compact(&WaitForCompactOptions::default())
            .map_err(failed("RocksDB cannot compact"))
    }

    fn status(&self) -> Status {
        status()
    }

    fn close(self) -> Result<(), Failure> {
        self.db.flush_wal(true).map_err(failed("RocksDB cannot write its log"))?;
        self.db.cancel_all_background_work(true);
        Ok(())
    }
}

/// RocksDB keeps all files in one directory.
fn is_rocksdb_file(name: &str) -> bool {
    let name = name.strip_suffix(".dbtmp").unwrap_or(name);
    let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, ""));
    ["CURRENT", "IDENTITY", "LOCK", "LOG"].contains(&name)
        || ["MANIFEST-", "OPTIONS-", "LOG.old."]
            .iter()
            .any(|prefix| name.strip_prefix(prefix).is_some_and(is_number))
        || (is_number(stem) && ["", "blob", "log", "sst"].contains(&suffix))
}

fn database_options(options: &OpenOptions, settings: &Settings) -> Options {
    let memory = Memory::divide(options.memory_bytes);
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(FILTER_BITS_PER_KEY, false);
    table.set_block_cache(&Cache::new_hyper_clock_cache(
        memory.cache_bytes as usize,
        ENTRY_BYTES_UNKNOWN,
    ));
    let mut chosen = Options::default();
    chosen.create_if_missing(options.create);
    chosen.set_block_based_table_factory(&table);
    chosen.set_compression_type(DBCompressionType::None);
    chosen.set_write_buffer_size(memory.write_buffer_bytes as usize);
    chosen.set_max_write_buffer_number(WRITE_BUFFERS as i32);
    let cpus = std::thread::available_parallelism().map_or(2, usize::from);
    chosen.increase_parallelism(i32::try_from(cpus.max(2)).unwrap_or(i32::MAX));
    chosen.set_use_direct_reads(settings.direct);
    chosen.set_use_direct_io_for_flush_and_compaction(settings.direct);
    chosen
}

/// The one that all is in.
fn family(db: &DB) -> &ColumnFamily {
    db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME).expect("it was opened by its name")
}

/// A client of RocksDB, with its options made once.
pub struct RocksHandle<'a> {
    db: &'a DB,
    read: ReadOptions,
    write: WriteOptions,
}

impl<'a> Handle for RocksHandle<'a> {
    type Bytes = DBPinnableSlice<'a>;

    fn get(&mut self, key: &[u8]) -> Result<Option<Self::Bytes>, Failure> {
        self.db.get_pinned_opt(key, &self.read).map_err(failed("a get failed"))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.db.put_opt(key, value, &self.write).map_err(failed("a put failed"))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Failure> {
        self.db.delete_opt(key, &self.write).map_err(failed("a delete failed"))
    }

    fn delete_range(&mut self, from: &[u8], end: &[u8]) -> Result<(), Failure> {
        self.db
            .delete_range_cf_opt(family(self.db), from, end, &self.write)
            .map_err(failed("a delete of a range failed"))
    }

    fn multi_get(
        &mut self,
        keys: &[Vec<u8>],
        found: &mut Vec<Option<Self::Bytes>>,
    ) -> Result<(), Failure> {
        let all = self.db.batched_multi_get_cf_opt(family(self.db), keys, false, &self.read);
        for value in all {
            found.push(value.map_err(failed("a get of several keys failed"))?);
        }
        Ok(())
    }

    fn scan(&mut self, from: &[u8], limit: usize, found: &mut Rows) -> Result<(), Failure> {
        let mut cursor = self.db.raw_iterator();
        cursor.seek(from);
        for row in 0..limit {
            if row > 0 {
                cursor.next();
            }
            let Some((key, value)) = cursor.item() else {
                break;
            };
            found.push(key, value);
        }
        cursor.status().map_err(failed("a scan failed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_rocksdb_are_its_own() {
        let owns = |path: &str, is_dir| RocksDb::owns(Path::new(path), is_dir);
        assert!(owns("rocksdb", true));
        for name in ["000012.sst", "000004.log", "CURRENT", "MANIFEST-000005", "LOG.old.17"] {
            assert!(owns(&format!("rocksdb/{name}"), false), "{name}");
            assert!(!owns(&format!("rocksdb/{name}"), true), "{name}");
            assert!(!owns(name, false), "{name}");
        }
        for name in ["rocksdb/note.txt", "rocksdb/x.sst", "rocksdb/LOG.old.x", "rocksdb", "fjall"] {
            assert!(!owns(name, false), "{name}");
        }
    }
}
