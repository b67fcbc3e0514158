//! Who is measured: engines, one of them in two ways, and the disk itself.

use std::ffi::OsString;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contestant {
    /// OuroDB
    #[value(name = "ourodb")]
    #[serde(rename = "ourodb")]
    OuroDb,
    /// RocksDB, its tables in the page cache
    #[value(name = "rocksdb")]
    #[serde(rename = "rocksdb")]
    RocksDb,
    /// RocksDB past the page cache
    #[value(name = "rocksdb-direct")]
    #[serde(rename = "rocksdb-direct")]
    RocksDbDirect,
    /// fjall
    Fjall,
    /// redb
    Redb,
    /// LMDB
    Lmdb,
    /// No engine: fio on a file as large as the data
    Fio,
}

impl Contestant {
    /// The name on the command line, in results, and of its directory.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// As people write it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::OuroDb => "OuroDB",
            Self::RocksDb => "RocksDB",
            Self::RocksDbDirect => "RocksDB direct",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
            Self::Lmdb => "LMDB",
            Self::Fio => "fio",
        }
    }

    /// Whether goals are set by it: the other LSM trees. B-trees make other things
    /// fast, and other things slow; they are shown.
    #[must_use]
    pub fn is_judge(self) -> bool {
        matches!(self, Self::RocksDb | Self::RocksDbDirect | Self::Fjall)
    }

    /// Whether it commits row by row, so that loads that nobody judges take many
    /// rows to a commit.
    #[must_use]
    pub fn is_loaded_in_batches(self) -> bool {
        matches!(self, Self::Redb | Self::Lmdb)
    }

    /// Whether this binary has it.
    #[must_use]
    pub fn is_built_in(self) -> bool {
        match self {
            Self::RocksDb | Self::RocksDbDirect => cfg!(feature = "rocksdb"),
            Self::Lmdb => cfg!(feature = "lmdb"),
            Self::OuroDb | Self::Fjall | Self::Redb | Self::Fio => true,
        }
    }

    /// What chooses the engine, of `load` and `run`.
    #[must_use]
    pub fn flags(self) -> Vec<OsString> {
        let flags: &[&str] = match self {
            Self::RocksDbDirect => &["--engine", "rocksdb", "--direct"],
            Self::OuroDb => &["--engine", "ourodb"],
            Self::RocksDb => &["--engine", "rocksdb"],
            Self::Fjall => &["--engine", "fjall"],
            Self::Redb => &["--engine", "redb"],
            Self::Lmdb => &["--engine", "lmdb"],
            Self::Fio => &[],
        };
        flags.iter().map(OsString::from).collect()
    }
}
