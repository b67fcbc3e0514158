//! What a verification of a database comes upon, and what it counts.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::base::error::ErrorKind;

/// Something that is wrong in a file of a database; see
/// [`verify`](crate::verify()).
///
/// Printed, it is `FILE offset N: reason`.
///
/// ```
/// use ourodb::{Db, ErrorKind, Finding, Options};
/// use std::ops::ControlFlow;
/// # let dir = tempfile::tempdir().unwrap();
/// Db::open(dir.path(), Options::default())?.close()?;
/// let identity = dir.path().join("IDENTITY");
/// let mut bytes = std::fs::read(&identity).unwrap();
/// bytes[70] ^= 1;
/// std::fs::write(&identity, bytes).unwrap();
/// ourodb::verify(dir.path(), &Options::default(), |finding| {
///     if let Finding::Fault(fault) = finding {
///         assert_eq!((fault.kind(), fault.offset()), (ErrorKind::Corruption, 0));
///         assert_eq!(fault.file(), identity);
///         assert!(fault.to_string().contains("IDENTITY offset 0: "));
///     }
///     ControlFlow::Continue(())
/// })?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub(crate) kind: ErrorKind,
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    pub(crate) reason: String,
}

impl Fault {
    /// `Corruption`; `Io` for what the device did not give; `Unsupported` for
    /// what only a newer version of the engine can judge.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The file, below the directory as it was given.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Where in the file what is damaged starts: a record, a block, a header.
    /// In bytes; 0 when it is the file that is missing.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What is wrong, in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} offset {}: {}", self.file.display(), self.offset, self.reason)
    }
}

/// What a verification reports as it goes; see [`verify`](crate::verify()).
///
/// ```
/// use ourodb::Finding;
/// fn show(finding: Finding<'_>) {
///     match finding {
///         Finding::Fault(fault) => println!("{fault}"),
///         Finding::Orphan(file) => eprintln!("{} is not needed", file.display()),
///         _ => {}
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Finding<'a> {
    /// Something is wrong.
    Fault(&'a Fault),
    /// A file with a name of the engine's that the database does not need. The
    /// next opening removes most of them; no fault. They are told last, and only
    /// if there was no fault, and no torn end of a manifest: what is damaged may
    /// have been what needs them.
    Orphan(&'a Path),
    /// So many bytes were read so far.
    Read(u64),
}

/// What a verification has read and found; see [`verify`](crate::verify()).
///
/// Printing it gives one `name: value` a line.
///
/// ```
/// use ourodb::{Db, Options};
/// use std::ops::ControlFlow;
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Db::open(dir.path(), Options::default())?;
/// db.put(b"key", b"value").wait()?;
/// db.close()?;
/// let report = |_: ourodb::Finding<'_>| ControlFlow::Continue(());
/// let verified = ourodb::verify(dir.path(), &Options::default(), report)?;
/// assert_eq!((verified.faults, verified.wal_writes), (0, 1));
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Everything was looked at: nobody stopped the verification.
    pub is_complete: bool,
    /// Faults reported.
    pub faults: u64,
    /// Files reported that the database does not need.
    pub orphans: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Sound copies of the identity; there are two.
    pub identities: u64,
    /// Manifests that count: the root's, and one of each shard.
    pub manifests: u64,
    /// Sound records in them.
    pub manifest_records: u64,
    /// Log segments that are needed.
    pub wal_segments: u64,
    /// Mappings of the log that are needed.
    pub wal_maps: u64,
    /// Sound log records, of segments and mappings together.
    pub wal_records: u64,
    /// Writes in them.
    pub wal_writes: u64,
    /// Bytes behind the end of log and manifests that were being written when
    /// the process ended and that nobody was told are there: the next opening
    /// cuts them off.
    pub torn_bytes: u64,
    /// Tables.
    pub tables: u64,
    /// Sound data blocks of tables.
    pub blocks: u64,
    /// Entries in them.
    pub entries: u64,
    /// Value files that tables or log refer to.
    pub value_files: u64,
    /// Sound values in them.
    pub values: u64,
    /// Bytes of these values.
    pub value_bytes: u64,
}

impl Verified {
    /// Names and values of the counts, in the order of the fields.
    ///
    /// ```
    /// let names: Vec<_> = ourodb::Verified::default().fields().into_iter().map(|f| f.0).collect();
    /// assert!(names.contains(&"blocks"));
    /// ```
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("faults", self.faults),
            ("orphans", self.orphans),
            ("bytes", self.bytes),
            ("identities", self.identities),
            ("manifests", self.manifests),
            ("manifest_records", self.manifest_records),
            ("wal_segments", self.wal_segments),
            ("wal_maps", self.wal_maps),
            ("wal_records", self.wal_records),
            ("wal_writes", self.wal_writes),
            ("torn_bytes", self.torn_bytes),
            ("tables", self.tables),
            ("blocks", self.blocks),
            ("entries", self.entries),
            ("value_files", self.value_files),
            ("values", self.values),
            ("value_bytes", self.value_bytes),
        ]
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.fields().into_iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{name}: {value}")?;
        }
        Ok(())
    }
}
