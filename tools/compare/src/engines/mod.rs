//! The engines that stand beside OuroDB, each as a target of `ouro-bench`.
//!
//! Their files are in a directory of their own inside of the database's
//! directory, beside `ouro-bench.json` and the lock that `ouro-bench` knows.

pub mod batch;
pub mod fjall;
#[cfg(feature = "lmdb")]
pub mod lmdb;
pub mod redb;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;

use std::fs;
use std::path::Path;

use ouro_bench::failure::Failure;
use ouro_bench::target::{Device, OpenOptions, Status};
use ourodb::{Compression, Durability};

/// A write buffer is not larger than this: the default of RocksDB and fjall.
const WRITE_BUFFER_BYTES_MAX: u64 = 64 << 20;
/// One is written to while the other is flushed.
const WRITE_BUFFERS: u64 = 2;
/// Below this there is too little for write buffers, and a cache beside them.
const MEMORY_BYTES_MIN: u64 = 8 << 20;

/// How an engine's memory budget is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes at which a write buffer is flushed.
    pub write_buffer_bytes: u64,
    /// Bytes of the block cache: what two write buffers leave.
    pub cache_bytes: u64,
}

impl Memory {
    /// At most half of `bytes` is for write buffers.
    fn divide(bytes: u64) -> Self {
        let write_buffer_bytes = (bytes / 2 / WRITE_BUFFERS).min(WRITE_BUFFER_BYTES_MAX);
        Self { write_buffer_bytes, cache_bytes: bytes - WRITE_BUFFERS * write_buffer_bytes }
    }
}

/// Refuses a budget that cannot be divided, and what only OuroDB promises.
fn check_options(options: &OpenOptions) -> Result<(), Failure> {
    if options.memory_bytes < MEMORY_BYTES_MIN {
        return Err(Failure::Usage("--memory must be at least 8MiB".to_owned()));
    }
    if options.compression != Compression::None {
        let reason = "--compression is for OuroDB; the others do not compress here";
        return Err(Failure::Usage(reason.to_owned()));
    }
    match options.durability {
        Durability::Durable | Durability::ProcessSafe => Ok(()),
        _ => Err(Failure::Usage(
            "--durability relaxed is for OuroDB; the others have no such promise for single \
             writes: use process-safe"
                .to_owned(),
        )),
    }
}

/// Where an engine's files are, in the database's directory. Fails where there
/// is no database and none is to be created.
fn files(dir: &Path, name: &str, create: bool) -> Result<std::path::PathBuf, Failure> {
    let files = dir.join(name);
    if !create && !files.is_dir() {
        return Err(Failure::Usage(format!("there is no {name} database in {}", dir.display())));
    }
    Ok(files)
}

/// Whether `path` is the engine's directory `name`, or below it with names that
/// `known` accepts.
fn is_below(name: &str, path: &Path, known: impl Fn(&str) -> bool) -> bool {
    let mut names = path.iter().map(|name| name.to_str().unwrap_or_default());
    names.next() == Some(name) && names.all(known)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Turns an engine's error into a failure, in [`Result::map_err`].
fn failed<E: std::fmt::Display>(context: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::Other(format!("{context}: {error}"))
}

/// What can be said of every engine: the bytes that this process made the kernel
/// move to and from the device. Pages dirtied count as written.
fn status() -> Status {
    Status { device: device(), ..Status::default() }
}

fn device() -> Option<Device> {
    let text = fs::read_to_string("/proc/self/io").ok()?;
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value?.parse().ok()
    };
    Some(Device {
        reads: None,
        bytes_read: field("read_bytes")?,
        writes: None,
        bytes_written: field("write_bytes")?,
        syncs: None,
        durable_writes: None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ouro_bench::cli::Io;

    use super::*;

    #[test]
    fn the_cache_gets_what_write_buffers_leave() {
        let divided = |mib: u64| {
            let Memory { write_buffer_bytes, cache_bytes } = Memory::divide(mib << 20);
            (write_buffer_bytes >> 20, cache_bytes >> 20)
        };
        assert_eq!(divided(8), (2, 4));
        assert_eq!(divided(64), (16, 32));
        assert_eq!(divided(256), (64, 128));
        assert_eq!(divided(1024), (64, 896));
    }

    #[test]
    fn what_other_engines_cannot_do_is_refused() {
        let compressed = |memory_bytes, durability: &str, compression| {
            let options = OpenOptions {
                create: true,
                memory_bytes,
                durability: durability.parse().unwrap(),
                lock_wait: Duration::ZERO,
                shards: None,
                owners: None,
                spin: None,
                requests_max: None,
                io: Io::Ring,
                compression,
            };
            check_options(&options).map_or_else(|failure| failure.exit_code(), |()| 0)
        };
        let code =
            |memory_bytes, durability| compressed(memory_bytes, durability, Compression::None);
        assert_eq!(compressed(8 << 20, "durable", Compression::Lz4), 2);
        assert_eq!(code(8 << 20, "durable"), 0);
        assert_eq!(code(8 << 20, "process-safe"), 0);
        assert_eq!(code((8 << 20) - 1, "durable"), 2);
        assert_eq!(code(8 << 20, "relaxed:1s"), 2);
    }

    #[test]
    fn the_kernel_counts_this_process() {
        assert!(device().is_some());
    }
}
