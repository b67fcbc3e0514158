//! The command line: what `ouro` takes and what its help says.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use ourodb::{Compression, Durability, IoBackend, Options};

use crate::escape::{BadEscape, unescape_into};
use crate::rows::Format;

/// Reads, writes, imports and exports OuroDB databases
///
/// Keys and values are any bytes. On the command line they are taken literally,
/// byte for byte; with --escaped they are read with the escapes of the TSV
/// format, \t \n \r \0 \\ \xHH. What is printed is escaped in the same way, so
/// that a row is one line; only `get --raw` prints the bytes themselves. A key
/// or value that begins with a hyphen goes after `--`.
#[derive(Debug, Parser)]
#[command(
    name = "ouro",
    version,
    after_help = "Data and results go to stdout, everything else to stderr.\n\
        Exit codes: 0 done; 1 key not found, or bad lines; 2 usage; 3 corruption; 4 locked by \
        another process; 5 no space left; 6 unsupported here; 7 any other failure; 130 Ctrl-C; 143 SIGTERM."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which database, and how it is opened.
#[derive(Args, Debug)]
pub(crate) struct Database {
    /// The directory of the database
    #[arg(long, global = true, value_name = "D")]
    dir: Option<PathBuf>,
    /// Memory budget, such as 64MiB or 2GiB [default: the engine's]
    #[arg(long, global = true, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// How long to wait while another process has the database open; 0s fails
    /// at once
    #[arg(
        long, global = true, value_name = "TIME", default_value = "10s",
        value_parser = parse_time, allow_negative_numbers = true
    )]
    lock_wait: Duration,
    /// How many cores own the shards [default: the engine's choice]
    #[arg(long, global = true, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    owners: Option<usize>,
    /// How the engine reaches its files: `blocking` where io_uring is forbidden
    #[arg(long, global = true, value_enum, default_value_t = Io::Ring)]
    io: Io,
}

impl Database {
    /// The directory, without which `ouro` does nothing.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| {
            Cli::command()
                .error(
                    clap::error::ErrorKind::MissingRequiredArgument,
                    "--dir D is required: the directory of the database",
                )
                .exit()
        })
    }

    /// The directory, if it was given.
    pub(crate) fn given_dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// How to open a database that exists.
    pub(crate) fn options(&self) -> Options {
        let mut options =
            Options::default().create(false).lock_wait(self.lock_wait).io(match self.io {
                Io::Ring => IoBackend::Ring,
                Io::Blocking => IoBackend::Blocking,
            });
        if let Some(memory) = self.memory {
            options = options.memory(memory);
        }
        if let Some(owners) = self.owners {
            options = options.owners(owners);
        }
        options
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Io {
    /// io_uring on the owners
    Ring,
    /// Positioned reads and writes: slower, works everywhere
    Blocking,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the value of a key; exit 1 when there is none
    Get {
        key: OsString,
        #[command(flatten)]
        text: Text,
        /// Print the bytes of the value and nothing else: no escapes, no newline
        #[arg(long)]
        raw: bool,
    },
    /// Set a key; creates the database when there is none
    Put {
        key: OsString,
        /// The value; `-` reads all of stdin, always as raw bytes (the value of
        /// one hyphen is `--escaped '\x2d'`)
        value: OsString,
        #[command(flatten)]
        text: Text,
        #[command(flatten)]
        write: Write,
        #[command(flatten)]
        create: Create,
    },
    /// Remove a key, whether it exists or not
    Delete {
        key: OsString,
        #[command(flatten)]
        text: Text,
        #[command(flatten)]
        write: Write,
    },
    /// Remove all keys of a range, however many there are
    #[command(group(ArgGroup::new("range").args(["from", "to", "all"]).required(true).multiple(true)))]
    DeleteRange {
        /// The first key
        #[arg(long, value_name = "KEY")]
        from: Option<OsString>,
        /// Where to stop: this key stays
        #[arg(long, value_name = "KEY")]
        to: Option<OsString>,
        /// Every key
        #[arg(long, conflicts_with_all = ["from", "to"])]
        all: bool,
        #[command(flatten)]
        text: Text,
        #[command(flatten)]
        write: Write,
    },
    /// Print rows in key order
    Scan {
        /// The first key
        #[arg(long, value_name = "KEY")]
        from: Option<OsString>,
        /// Where to stop: this key is not printed
        #[arg(long, value_name = "KEY")]
        to: Option<OsString>,
        /// Only keys that begin with this
        #[arg(long, conflicts_with_all = ["from", "to"])]
        prefix: Option<OsString>,
        #[command(flatten)]
        text: Text,
        /// From the last key to the first
        #[arg(long)]
        reverse: bool,
        /// Print at most this many rows
        #[arg(long, value_name = "N", value_parser = limit, allow_negative_numbers = true)]
        limit: Option<usize>,
        /// Print the keys without their values
        #[arg(long)]
        keys_only: bool,
        #[arg(long, value_enum, default_value_t = Format::Tsv)]
        format: Format,
    },
    /// Write the rows of a file into the database; creates one when there is none
    ///
    /// Prints `acknowledged N` as it goes: the first N lines are on disk and
    /// survive a crash. Of rows with the same key the last wins. A bad line is
    /// one without a tab or with a second one, with an unknown escape, or with a
    /// key or value above the engine's limit.
    Import {
        /// The file to read; `-` is stdin
        file: PathBuf,
        #[arg(long, value_enum, default_value_t = Format::Tsv)]
        format: Format,
        #[arg(long, value_enum, default_value_t = OnError::Stop)]
        on_error: OnError,
        #[command(flatten)]
        write: Write,
        #[command(flatten)]
        create: Create,
    },
    /// Print all rows in key order, as they were at one moment
    Export {
        #[arg(long, value_enum, default_value_t = Format::Tsv)]
        format: Format,
    },
    /// Read every byte and say what is wrong; exit 3 when something is
    ///
    /// Prints `FILE offset N: reason` for each fault and goes on, then counts of
    /// what it read. Writes nothing. A torn end of the log, which the next
    /// opening cuts off, is no fault: see `torn_bytes`. Files that nothing needs
    /// are named on stderr, unless something is damaged that may need them.
    Verify,
    /// Copy what is sound of a damaged database into a new one
    ///
    /// Prints `FILE offset N: what was lost` for each loss, then counts; exit 3 when
    /// something was lost, although the copy was made. Of each key the newest version
    /// that can be read is copied: where a newer one was lost, an older one comes back,
    /// and the keys among which that may be are in the line of the loss. The damaged
    /// database is not written to. Until the copy is whole its directory is called
    /// NEW.incomplete.
    Salvage {
        /// The directory of the new database: one that is not there, or empty
        #[arg(long, value_name = "NEW")]
        into: PathBuf,
        /// How the new tables are compressed: none, lz4, or zstd (which a build with
        /// --features zstd has)
        #[arg(long, value_name = "C", default_value_t)]
        compression: Compression,
        /// Shards of the new database [default: as many as the damaged one]
        #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
        shards: Option<usize>,
    },
    /// Print what is in one file of a database; needs no --dir
    ///
    /// Takes a table, a segment or mapping of the log, a value file, a manifest,
    /// or the identity file. Damaged parts are named, and what is sound is
    /// printed; exit 3 when something is damaged. What a table's blocks hold is
    /// looked at with --blocks and --entries only, and what a value file holds
    /// not at all, as its checksums are elsewhere: `verify` does both. Nothing is
    /// locked or written: of a file in use it may print a half.
    Dump {
        file: PathBuf,
        /// Also each partition and block of a table
        #[arg(long)]
        blocks: bool,
        /// Also each entry; long keys and values are cut
        #[arg(long)]
        entries: bool,
    },
    /// Print what the engine counts
    Stats {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    /// Whether this command creates a database where there is none.
    pub(crate) fn creates(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Import { .. })
    }

    /// The shards that a database is to be created with.
    pub(crate) fn shards(&self) -> Option<usize> {
        match self {
            Self::Put { create, .. } | Self::Import { create, .. } => create.shards,
            _ => None,
        }
    }

    /// The options with which this command opens the database.
    pub(crate) fn adjust(&self, options: Options) -> Options {
        let (write, create) = match self {
            Self::Put { write, create, .. } | Self::Import { write, create, .. } => {
                (write, Some(create))
            }
            Self::Delete { write, .. } | Self::DeleteRange { write, .. } => (write, None),
            Self::Salvage { compression, shards, .. } => {
                let options = options.compression(*compression);
                return shards.map_or(options.clone(), |shards| options.shards(shards));
            }
            _ => return options,
        };
        let options = options.durability(write.durability).compression(write.compression);
        match create {
            Some(Create { shards: Some(shards) }) => options.create(true).shards(*shards),
            Some(Create { shards: None }) => options.create(true),
            None => options,
        }
    }
}

/// How keys and values on the command line are read.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Text {
    /// Keys and values given here hold TSV escapes
    #[arg(long)]
    escaped: bool,
}

impl Text {
    /// The bytes that an argument stands for.
    pub(crate) fn bytes(self, argument: &OsString) -> Result<Vec<u8>, BadEscape> {
        let argument = argument.as_bytes();
        if !self.escaped {
            return Ok(argument.to_vec());
        }
        let mut bytes = Vec::new();
        unescape_into(&mut bytes, argument).map(|()| bytes)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Write {
    /// What an acknowledged write survives: durable, the loss of power;
    /// process-safe, the death of the process; relaxed:100ms, the loss of power
    /// after that time
    #[arg(long, value_name = "D", default_value_t)]
    durability: Durability,
    /// How the tables that this makes are compressed: none, lz4, or zstd (which
    /// a build with --features zstd has)
    #[arg(long, value_name = "C", default_value_t)]
    compression: Compression,
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Shards of a database that is created, fixed for ever [default: the
    /// engine's choice]
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    shards: Option<usize>,
}

/// What `import` does about a bad line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// Import the lines before it and stop
    Stop,
    /// Name it on stderr and skip it
    Continue,
}

fn memory(text: &str) -> Result<u64, String> {
    parse_size::parse_size(text).map_err(|error| format!("{error}; write it like 512MiB"))
}

fn parse_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "a time such as 10s or 500ms is needed".to_owned())
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a whole number from 1 on is needed".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn limit(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("a whole number from 0 to {} is needed", usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(memory("512MiB"), Ok(512 << 20));
        assert_eq!(memory("64KiB"), Ok(64 << 10));
        assert!(memory("lots").is_err());
        assert!(memory("-1MiB").is_err());
    }

    #[test]
    fn the_directory_goes_before_or_after_the_command() {
        for line in [["ouro", "--dir", "d", "export"], ["ouro", "export", "--dir", "d"]] {
            assert_eq!(Cli::parse_from(line).database.dir(), PathBuf::from("d"));
        }
    }
}
