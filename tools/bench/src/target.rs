//! What the tool needs of a database: a [`Target`] is one that is loaded and
//! measured, a [`Handle`] is what one client has of it.
//!
//! [`OuroDb`](crate::engine::OuroDb) is the target of this tool. Other engines
//! can stand in its place and are then driven by the very same code; so can
//! handles that do nothing, which show the generator's own speed. What clients
//! need that are no threads is in [`asynchronous`](crate::asynchronous).

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;

use crate::asynchronous::Asynchronous;
use crate::cli::Io;
use crate::failure::Failure;
use ourodb::{Compression, Durability, Latencies};

/// A database under load.
pub trait Target: Sized + Sync {
    /// The engine's name, in results.
    const NAME: &'static str;

    /// Its other face, if its operations can be awaited. Without, all its
    /// clients are threads.
    const ASYNCHRONOUS: Option<fn(&Self) -> &dyn Asynchronous> = None;

    /// What only this engine can be asked for; part of the result.
    type Settings: Serialize;

    /// What one client has of it.
    type Handle<'a>: Handle
    where
        Self: 'a;

    /// Refuses what this engine cannot do, and options it does not take. Called
    /// before anything else.
    fn check(options: &OpenOptions, settings: &Self::Settings) -> Result<(), Failure>;

    /// Whether a directory, or else a file, at `path` inside of the database's
    /// directory may be one of this engine's: an overwriting load removes those,
    /// and refuses to touch a directory that holds anything else.
    fn owns(path: &Path, is_dir: bool) -> bool;

    /// Opens the database in `dir`. Whoever has it open holds
    /// [`directory::lock`](crate::directory::lock).
    fn open(dir: &Path, options: &OpenOptions, settings: &Self::Settings) -> Result<Self, Failure>;

    /// A handle for one client, made on the client's thread.
    fn handle(&self) -> Self::Handle<'_>;

    /// Waits until everything put is in tables, and no work is left that the
    /// engine does by itself; or until `interrupt` is set, if the engine allows for that.
    fn settle(&self, interrupt: &AtomicBool) -> Result<(), Failure>;

    /// What it says of itself now.
    fn status(&self) -> Status;

    /// How long operations took since it was opened, and what they waited for, if the engine
    /// measures that itself.
    fn latencies(&self) -> Option<Latencies> {
        None
    }

    /// Closes it; everything acknowledged is there at the next opening.
    fn close(self) -> Result<(), Failure>;
}

/// One client's way to a database. Calls return when the operation has ended.
pub trait Handle {
    /// Values as the engine returns them, copied only if it cannot do without.
    type Bytes: AsRef<[u8]>;

    /// The value of `key`.
    fn get(&mut self, key: &[u8]) -> Result<Option<Self::Bytes>, Failure>;

    /// Writes `key`, over whatever it had.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure>;

    /// Removes `key`, if it is there.
    fn delete(&mut self, key: &[u8]) -> Result<(), Failure>;

    /// Removes all keys from `from` on, and before `end`. Without this, an engine refuses
    /// workloads that do.
    fn delete_range(&mut self, from: &[u8], end: &[u8]) -> Result<(), Failure> {
        let _ = (from, end);
        Err(Failure::Unsupported("this engine has no delete of a range".to_owned()))
    }

    /// Adds the values of `keys` to `found`, in their order: one after the other, where the
    /// engine has no better way.
    fn multi_get(
        &mut self,
        keys: &[Vec<u8>],
        found: &mut Vec<Option<Self::Bytes>>,
    ) -> Result<(), Failure> {
        for key in keys {
            found.push(self.get(key)?);
        }
        Ok(())
    }

    /// Adds the first `limit` rows at or after the key `from` to `found`, in
    /// order.
    fn scan(&mut self, from: &[u8], limit: usize, found: &mut Rows) -> Result<(), Failure>;
}

/// How a target is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Whether to create the database where there is none.
    pub create: bool,
    /// The engine's memory budget.
    pub memory_bytes: u64,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// How long to wait for a database that another process has open.
    pub lock_wait: Duration,
    /// Shards of a new database, for engines that have them.
    pub shards: Option<usize>,
    /// Threads of the engine, for engines that have owners.
    pub owners: Option<usize>,
    /// How long those look out for work before they sleep.
    pub spin: Option<Duration>,
    /// Requests that futures may have outstanding at each of them.
    pub requests_max: Option<usize>,
    /// How they do I/O.
    pub io: Io,
    /// How tables are compressed that are written from now on.
    pub compression: Compression,
}

/// What a target says of itself; `None` is what its engine does not have, or
/// does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Status {
    /// Owner threads.
    pub owners: Option<usize>,
    /// Shards of the database.
    pub shards: Option<usize>,
    /// How the owners do I/O.
    pub io: Option<Io>,
    /// What it submitted to the device since it was opened or before.
    pub device: Option<Device>,
    /// What it does in the background, and keeps in memory.
    pub activity: Option<Activity>,
}

/// What an engine does besides answering, and what comes of it. Counters count from its
/// opening on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Activity {
    /// Blocks that reads found in its cache.
    pub cache_hits: u64,
    /// Blocks that they looked for there, and did not find.
    pub cache_misses: u64,
    /// Memtables that became tables.
    pub flushes: u64,
    /// Bytes of those tables.
    pub flushed_bytes: u64,
    /// Compactions that ended.
    pub compactions: u64,
    /// Bytes of tables that were merged.
    pub compaction_read_bytes: u64,
    /// Bytes of the tables that came of it.
    pub compaction_written_bytes: u64,
    /// Times a write waited because memtables were full.
    pub write_stalls: u64,
    /// How long writes waited so that others need not wait longer, all together.
    pub write_delay_ns: u64,
    /// Tables of level 0 now.
    pub level_0_tables: u64,
    /// Bytes of tables that wait to be merged now.
    pub compaction_debt_bytes: u64,
    /// Memtables on their way into tables now.
    pub immutable_memtables: u64,
}

impl Activity {
    /// What was done after `earlier`; what there is now stays as it is.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cache_hits: self.cache_hits - earlier.cache_hits,
            cache_misses: self.cache_misses - earlier.cache_misses,
            flushes: self.flushes - earlier.flushes,
            flushed_bytes: self.flushed_bytes - earlier.flushed_bytes,
            compactions: self.compactions - earlier.compactions,
            compaction_read_bytes: self.compaction_read_bytes - earlier.compaction_read_bytes,
            compaction_written_bytes: self.compaction_written_bytes
                - earlier.compaction_written_bytes,
            write_stalls: self.write_stalls - earlier.write_stalls,
            write_delay_ns: self.write_delay_ns - earlier.write_delay_ns,
            ..self
        }
    }

    /// What was done in both of two times; what there is now is the `later` one's.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        Self {
            cache_hits: self.cache_hits + later.cache_hits,
            cache_misses: self.cache_misses + later.cache_misses,
            flushes: self.flushes + later.flushes,
            flushed_bytes: self.flushed_bytes + later.flushed_bytes,
            compactions: self.compactions + later.compactions,
            compaction_read_bytes: self.compaction_read_bytes + later.compaction_read_bytes,
            compaction_written_bytes: self.compaction_written_bytes
                + later.compaction_written_bytes,
            write_stalls: self.write_stalls + later.write_stalls,
            write_delay_ns: self.write_delay_ns + later.write_delay_ns,
            ..later
        }
    }
}

/// What an engine submitted to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Reads.
    pub reads: Option<u64>,
    /// Their bytes.
    pub bytes_read: u64,
    /// Writes.
    pub writes: Option<u64>,
    /// Their bytes.
    pub bytes_written: u64,
    /// Calls to make writes durable that are not writes themselves.
    pub syncs: Option<u64>,
    /// Writes of the log that were durable when they ended, without such a call.
    pub durable_writes: Option<u64>,
}

impl Device {
    /// What was submitted after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        let difference = |now: Option<u64>, then: Option<u64>| Some(now? - then?);
        Self {
            reads: difference(self.reads, earlier.reads),
            bytes_read: self.bytes_read - earlier.bytes_read,
            writes: difference(self.writes, earlier.writes),
            bytes_written: self.bytes_written - earlier.bytes_written,
            syncs: difference(self.syncs, earlier.syncs),
            durable_writes: difference(self.durable_writes, earlier.durable_writes),
        }
    }

    /// What was submitted in both of two times.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| Some(one? + other?);
        Self {
            reads: sum(self.reads, later.reads),
            bytes_read: self.bytes_read + later.bytes_read,
            writes: sum(self.writes, later.writes),
            bytes_written: self.bytes_written + later.bytes_written,
            syncs: sum(self.syncs, later.syncs),
            durable_writes: sum(self.durable_writes, later.durable_writes),
        }
    }
}

/// The rows a scan found, copied into a buffer of the client's that is used
/// again and again: the same work for every engine, whatever it hands out.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    bytes: Vec<u8>,
    /// Where each key ends, and where its value does.
    ends: Vec<(usize, usize)>,
}

impl Rows {
    /// Adds a row.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((key_end, self.bytes.len()));
    }

    /// Forgets all rows, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Keys and values, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let begins = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        begins.zip(&self.ends).map(|(begin, (key_end, end))| {
            (&self.bytes[begin..*key_end], &self.bytes[*key_end..*end])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_added() {
        let mut rows = Rows::default();
        for round in 0..2 {
            assert!(rows.is_empty() && rows.iter().next().is_none(), "{round}");
            let added: [(&[u8], &[u8]); 4] =
                [(b"a", b"one"), (b"", b""), (b"b", b""), (b"long key", b"2")];
            for (key, value) in added {
                rows.push(key, value);
            }
            assert_eq!(rows.len(), 4);
            assert!(rows.iter().eq(added));
            rows.clear();
        }
    }

    #[test]
    fn what_an_engine_does_not_count_stays_unknown() {
        let earlier = Device {
            reads: Some(1),
            bytes_read: 10,
            writes: None,
            bytes_written: 5,
            syncs: None,
            durable_writes: None,
        };
        let now = Device { reads: Some(4), bytes_read: 30, bytes_written: 25, ..earlier };
        let between = Device { reads: Some(3), bytes_read: 20, bytes_written: 20, ..earlier };
        assert_eq!(now.since(earlier), between);
    }
}
