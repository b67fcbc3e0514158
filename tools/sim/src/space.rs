//! What a database takes when it has come to rest, and everything that was deleted
//! or replaced is gone: what is alive, and a little for each file.

use std::path::{Path, PathBuf};

use ourodb::Db;
use ourodb::sim::Sim;

/// Longer values have their place in a value file.
const LONG_BYTES: usize = 64 << 10;
/// Places in files are multiples of this.
const UNIT: u64 = 4096;
/// A table has at most so much that is no entry's: a head, a filter, indexes,
/// properties, a footer.
const TABLE_BYTES: u64 = 16 * UNIT;
/// Free segments of the log that an owner keeps at rest.
const FREE_SEGMENTS: u64 = 2;

/// Deletes every other row.
pub(crate) fn delete_half(db: &Db) -> Result<(), String> {
    for row in db.scan(..).iter().step_by(2) {
        let deleted = row.and_then(|(key, _)| db.delete(&key).wait());
        deleted.map_err(|error| format!("a delete failed: {error}"))?;
    }
    Ok(())
}

/// Compares what the database holds, and what files there are, with its rows. All of
/// it was merged into one run a shard.
pub(crate) fn check(db: &Db, sim: &Sim, segment_bytes: u64) -> Result<(), String> {
    let rows = db.scan(..).iter().collect::<Result<Vec<_>, _>>();
    let rows = rows.map_err(|error| format!("the last scan failed: {error}"))?;
    let stats = db.stats();
    let long = || rows.iter().map(|(_, value)| value.len()).filter(|&len| len > LONG_BYTES);
    let logged = rows.iter().map(|(key, value)| key.len() + value.len());
    let in_tables = logged.sum::<usize>() - long().sum::<usize>();
    let entries: u64 = stats.levels.iter().map(|level| level.entries).sum();
    let files: Vec<(String, u64)> = sim.paths().iter().map(|path| described(sim, path)).collect();
    let files = |extension: &'static str| {
        files.iter().filter(move |file| file.0 == extension).map(|file| file.1)
    };
    let same = [
        ("entries of tables", entries, rows.len() as u64),
        ("bytes of spare tables", stats.spare_bytes, 0),
        ("bytes of *.sst", files("sst").sum(), stats.table_bytes),
        ("files *.val", files("val").count() as u64, stats.value_files),
        ("bytes of mappings", files("map").sum(), stats.wal_map_bytes),
        (
            "bytes of long values",
            stats.value_bytes,
            long().map(|len| (len as u64).next_multiple_of(UNIT)).sum(),
        ),
    ];
    for (what, is, should) in same {
        if is != should {
            return Err(format!("space is lost: {is} {what}, and {should} should be"));
        }
    }
    // Segments kept for later, which the counts do not have.
    let log: u64 = files("wal").sum();
    let log_most = stats.wal_bytes + stats.owners as u64 * FREE_SEGMENTS * segment_bytes;
    if log > log_most {
        return Err(format!("space is lost: {log} bytes of log, {log_most} may be: {stats}"));
    }
    let most = 2 * in_tables as u64 + stats.tables * TABLE_BYTES;
    if stats.table_bytes > most || stats.value_files > long().count() as u64 + stats.shards as u64 {
        return Err(format!("space is lost: {in_tables} bytes take more than {most}: {stats}"));
    }
    Ok(())
}

/// Whether a close has left any file elsewhere, or one that only open databases have.
pub(crate) fn check_closed(sim: &Sim, dir: &Path) -> Result<(), String> {
    let is_left = |path: &&PathBuf| {
        let name = path.to_string_lossy();
        !path.starts_with(dir) || name.ends_with(".map") || name.ends_with(".tmp")
    };
    match sim.paths().iter().find(is_left) {
        None => Ok(()),
        Some(path) => Err(format!("a close has left {}", path.display())),
    }
}

/// The extension and the length of a file.
fn described(sim: &Sim, path: &Path) -> (String, u64) {
    let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
    (extension, sim.file_bytes(path).map_or(0, |bytes| bytes.len() as u64))
}
