mod base;
mod db;
mod format;
mod io;
mod lsm;
mod manifest;
mod memtable;
mod runtime;
mod shard;
mod sst;
mod wal;

pub use base::error::{Error, ErrorKind, Result};
pub use base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use db::{
    Batch, Db, Delete, Flush, Get, GetWith, IoBackend, KeyRange, Options, Put, Scan, ScanIter,
    Stats, Value, Write,
};
