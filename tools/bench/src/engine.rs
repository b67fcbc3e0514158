//! OuroDB as a [`Target`]: the engine that this tool measures.

mod clients;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ourodb::{Db, ErrorKind, Latencies, Options};

use crate::asynchronous::Asynchronous;
use crate::cli::Io;
use crate::failure::Failure;
use crate::target::{Activity, Device, Handle, OpenOptions, Rows, Status, Target};

/// For how long compactions may fail, and be tried again, before nobody waits for them.
const FAILING_MAX: Duration = Duration::from_secs(5);

/// An open OuroDB.
pub struct OuroDb {
    db: Db,
    io: Io,
}

impl Target for OuroDb {
    const NAME: &'static str = "ourodb";
    const ASYNCHRONOUS: Option<fn(&Self) -> &dyn Asynchronous> = Some(|db| db);

    type Settings = ();
    type Handle<'a> = OuroHandle<'a>;

    fn check(options: &OpenOptions, (): &()) -> Result<(), Failure> {
        // Options are judged before the directory is looked for, and this one is
        // not there.
        match Db::open(NOWHERE, chosen(options).create(false)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::engine("cannot open the database")(error))
            }
            _ => Ok(()),
        }
    }

    fn owns(path: &Path, is_dir: bool) -> bool {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return false;
        };
        let parent = path.parent().and_then(|parent| parent.to_str());
        match parent {
            Some("") if is_dir => is_engine_dir(name),
            Some(parent) if !is_dir => is_engine_file(parent, name),
            _ => false,
        }
    }

    fn open(dir: &Path, options: &OpenOptions, (): &()) -> Result<Self, Failure> {
        let db =
            Db::open(dir, chosen(options)).map_err(Failure::engine("cannot open the database"))?;
        Ok(Self { db, io: options.io })
    }

    fn handle(&self) -> OuroHandle<'_> {
        OuroHandle(&self.db)
    }

    fn settle(&self, interrupt: &AtomicBool) -> Result<(), Failure> {
        settle(&self.db, interrupt)
    }

    fn status(&self) -> Status {
        let stats = self.db.stats();
        Status {
            owners: Some(stats.owners),
            shards: Some(stats.shards),
            io: Some(self.io),
            device: Some(Device {
                reads: Some(stats.device_reads),
                bytes_read: stats.device_read_bytes,
                writes: Some(stats.device_writes),
                bytes_written: stats.device_write_bytes,
                syncs: Some(stats.device_syncs),
                durable_writes: Some(stats.wal_durable_groups),
            }),
            activity: Some(Activity {
                cache_hits: stats.cache_hits,
                cache_misses: stats.cache_misses,
                flushes: stats.flushes,
                flushed_bytes: stats.flushed_bytes,
                compactions: stats.compactions,
                compaction_read_bytes: stats.compaction_read_bytes,
                compaction_written_bytes: stats.compaction_written_bytes,
                write_stalls: stats.write_stalls,
                write_delay_ns: stats.write_delay_ns,
                level_0_tables: stats.levels[0].tables,
                compaction_debt_bytes: stats.compaction_debt_bytes,
                immutable_memtables: stats.immutable_memtables,
            }),
        }
    }

    fn latencies(&self) -> Option<Latencies> {
        Some(self.db.latencies())
    }

    fn close(self) -> Result<(), Failure> {
        self.db.close().map_err(Failure::engine("cannot close the database"))
    }
}

/// A directory that never exists.
const NOWHERE: &str = "/proc/self/no-database";

/// The engine's options.
fn chosen(options: &OpenOptions) -> Options {
    let mut chosen = Options::default()
        .create(options.create)
        .memory(options.memory_bytes)
        .lock_wait(options.lock_wait)
        .durability(options.durability)
        .compression(options.compression)
        .io(options.io.into());
    if let Some(shards) = options.shards {
        chosen = chosen.shards(shards);
    }
    if let Some(owners) = options.owners {
        chosen = chosen.owners(owners);
    }
    if let Some(spin) = options.spin {
        chosen = chosen.spin(spin);
    }
    if let Some(requests_max) = options.requests_max {
        chosen = chosen.requests_max(requests_max);
    }
    chosen
}

/// A client of OuroDB: the thread that calls waits for its operations.
pub struct OuroHandle<'a>(&'a Db);

impl Handle for OuroHandle<'_> {
    type Bytes = ourodb::Value;

    fn get(&mut self, key: &[u8]) -> Result<Option<Self::Bytes>, Failure> {
        self.0.get(key).wait().map_err(Failure::engine("a get failed"))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.0.put(key, value).wait().map_err(Failure::engine("a put failed"))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Failure> {
        self.0.delete(key).wait().map_err(Failure::engine("a delete failed"))
    }

    fn delete_range(&mut self, from: &[u8], end: &[u8]) -> Result<(), Failure> {
        self.0.delete_range(from..end).wait().map_err(Failure::engine("a delete of a range failed"))
    }

    fn multi_get(
        &mut self,
        keys: &[Vec<u8>],
        found: &mut Vec<Option<ourodb::Value>>,
    ) -> Result<(), Failure> {
        let values = self.0.multi_get(keys).wait();
        found.extend(values.map_err(Failure::engine("a get of several keys failed"))?);
        Ok(())
    }

    fn scan(&mut self, from: &[u8], limit: usize, found: &mut Rows) -> Result<(), Failure> {
        let mut rows = self.0.scan(from..).limit(limit).iter();
        while let Some(row) = rows.next_with(|key, value| found.push(key, value)) {
            row.map_err(Failure::engine("a scan failed"))?;
        }
        Ok(())
    }
}

fn is_engine_dir(name: &str) -> bool {
    name == "wal" || name.strip_prefix("shard-").is_some_and(is_number)
}

/// Whether a file of that name may be in `dir`, which is "" or an engine's
/// directory.
fn is_engine_file(dir: &str, name: &str) -> bool {
    // A file that the engine was replacing when it was killed.
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    let numbered = |suffixes: &[&str]| {
        name.rsplit_once('.').is_some_and(|(stem, suffix)| {
            suffixes.contains(&suffix) && stem.split('-').all(is_number)
        })
    };
    let manifest = || name.strip_prefix("MANIFEST-").is_some_and(|n| n.split('-').all(is_number));
    match dir {
        "" => name == "IDENTITY" || manifest(),
        "wal" => numbered(&["wal", "map"]),
        _ => is_engine_dir(dir) && (manifest() || numbered(&["sst", "val"])),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Waits until everything is in tables, and compaction has nothing left to do.
///
/// # Errors
/// Of the engine, where a flush fails, or compactions do again and again.
pub(crate) fn settle(db: &Db, interrupt: &AtomicBool) -> Result<(), Failure> {
    db.flush().wait().map_err(Failure::engine("a flush failed"))?;
    let mut failing_since = None;
    while db.stats().compaction_debt_bytes > 0 && !interrupt.load(Ordering::Relaxed) {
        match db.background_error() {
            None => failing_since = None,
            Some(error) => {
                let since = *failing_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= FAILING_MAX {
                    return Err(Failure::engine("compactions fail again and again")(error));
                }
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ourodb::{Compression, Durability};

    #[test]
    fn a_handle_does_what_its_names_say() {
        let dir = tempfile::tempdir().unwrap();
        let options = OpenOptions {
            create: true,
            memory_bytes: 64 << 20,
            durability: Durability::Durable,
            lock_wait: Duration::ZERO,
            shards: Some(2),
            owners: Some(1),
            spin: None,
            requests_max: None,
            io: Io::Blocking,
            compression: Compression::Lz4,
        };
        OuroDb::check(&options, &()).unwrap();
        let target = OuroDb::open(dir.path(), &options, &()).unwrap();
        let status = target.status();
        assert_eq!((status.shards, status.owners), (Some(2), Some(1)));
        let mut handle = target.handle();
        for key in [b"a", b"b", b"c", b"d"] {
            handle.put(key, key).unwrap();
        }
        handle.delete(b"b").unwrap();
        target.settle(&AtomicBool::new(false)).unwrap();
        assert_eq!(handle.get(b"a").unwrap().as_deref(), Some(&b"a"[..]));
        assert_eq!(handle.get(b"b").unwrap(), None);
        let mut rows = Rows::default();
        handle.scan(b"b", 1, &mut rows).unwrap();
        assert!(rows.iter().eq([(&b"c"[..], &b"c"[..])]));
        assert!(target.status().device.unwrap().bytes_written > 0);
        target.close().unwrap();
    }
}
