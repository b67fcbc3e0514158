//! The one public error: a kind to match on, and a message that says what
//! failed, where, and what can be done about it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of every fallible call of this crate.
///
/// ```
/// fn size(db: &ourodb::Db) -> ourodb::Result<usize> {
///     Ok(db.get_with(b"key", |value| value.len()).wait()?.unwrap_or(0))
/// }
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is; match on this.
///
/// ```
/// use ourodb::{Db, ErrorKind, Options};
/// let missing = std::env::temp_dir().join("no-such-ourodb");
/// let error = Db::open(&missing, Options::default().create(false)).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Bytes on disk are not what was written there. Nothing of them was
    /// returned. The message names file and offset.
    Corruption,
    /// The operating system failed a request. The message names the file.
    Io,
    /// The file system is full, a quota used up, or files may not grow (the
    /// message says which). Nothing acknowledged is lost; writes resume once
    /// there is space, unless it was a sync that found none, and later ones say
    /// [`ErrorKind::Poisoned`]. A process under a limit on the size of files
    /// (`ulimit -f`) gets this only if it ignores or handles `SIGXFSZ`, which
    /// otherwise ends it.
    NoSpace,
    /// An earlier write or sync of the log or the manifest failed. Reads go
    /// on; writes fail until the database is opened again.
    Poisoned,
    /// A bounded resource is used up for now; try again.
    Busy,
    /// Another process, or another handle of this one, has the directory open.
    Locked,
    /// The caller asked for something that can never work.
    InvalidArgument,
    /// This machine, file system or version of the engine cannot do it.
    Unsupported,
    /// The database was closed.
    Closed,
    /// A file does not exist; or there is no database in the directory, and
    /// none was to be created.
    NotFound,
    /// The process may not open or create a file of the database.
    PermissionDenied,
    /// The process has no file descriptors left.
    TooManyFiles,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corruption => "corruption",
            Self::Io => "I/O error",
            Self::NoSpace => "no space left",
            Self::Poisoned => "poisoned",
            Self::Busy => "busy",
            Self::Locked => "locked",
            Self::InvalidArgument => "invalid argument",
            Self::Unsupported => "unsupported",
            Self::Closed => "closed",
            Self::NotFound => "not found",
            Self::PermissionDenied => "permission denied",
            Self::TooManyFiles => "too many open files",
        })
    }
}

/// Any failure of the engine. Cheap to clone: everybody who waited for one
/// write that failed gets the same error.
///
/// ```
/// use ourodb::{Db, ErrorKind, Options};
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Db::open(dir.path(), Options::default())?;
/// let error = db.put(&[0; 70_000], b"v").wait().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidArgument);
/// assert!(error.to_string().contains("65535"));
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(thiserror::Error, Debug)]
#[error("{kind}: {message}")]
struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<std::io::Error>,
    place: Option<Place>,
}

/// Where in which file a failure is, and what it is, for whoever goes on after
/// it and lists failures.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    pub(crate) reason: String,
}

impl Error {
    /// The kind of failure.
    ///
    /// ```
    /// use ourodb::{Db, ErrorKind, Options};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let error = Db::open(dir.path(), Options::default().memory(0)).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), source: None, place: None }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the database was closed; open it again with Db::open")
    }

    /// Damage in `file` at byte `offset`.
    pub(crate) fn corruption(file: &Path, offset: u64, reason: impl fmt::Display) -> Self {
        Self::in_file(ErrorKind::Corruption, file, offset, reason)
    }

    /// What stands in `file` at byte `offset` only a newer version understands.
    pub(crate) fn unsupported_at(file: &Path, offset: u64, reason: impl fmt::Display) -> Self {
        Self::in_file(ErrorKind::Unsupported, file, offset, reason)
    }

    fn in_file(kind: ErrorKind, file: &Path, offset: u64, reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        let message = format!("{} offset {offset}: {reason}", file.display());
        let place = Some(Place { file: file.to_owned(), offset, reason });
        Self(Arc::new(Inner { kind, message, source: None, place }))
    }

    /// The error for a failed request of the operating system: `what` was
    /// tried on `path`.
    pub(crate) fn os(what: &str, path: &Path, source: std::io::Error) -> Self {
        Self::os_at(what, path, None, source)
    }

    /// Like [`Error::os`], at a byte offset of the file.
    pub(crate) fn os_at(
        what: &str,
        path: &Path,
        offset: Option<u64>,
        source: std::io::Error,
    ) -> Self {
        use std::io::ErrorKind as Os;
        let (kind, advice) = match source.kind() {
            Os::StorageFull | Os::QuotaExceeded => {
                (ErrorKind::NoSpace, "; free some space on this file system, then try again")
            }
            Os::FileTooLarge => (
                ErrorKind::NoSpace,
                "; allow larger files (ulimit -f, or LimitFSIZE of the service), then try again",
            ),
            Os::PermissionDenied => (
                ErrorKind::PermissionDenied,
                "; run as the user that owns the database directory, and let that user write to it",
            ),
            Os::NotFound => (ErrorKind::NotFound, ""),
            Os::ReadOnlyFilesystem => (
                ErrorKind::PermissionDenied,
                "; the file system is mounted read-only, and the engine must write to it",
            ),
            _ if matches!(source.raw_os_error(), Some(23 | 24)) => (
                ErrorKind::TooManyFiles,
                "; raise the limit on open files (ulimit -n, or LimitNOFILE of the service)",
            ),
            // What io_uring makes of it when a thread of the kernel's cannot be started.
            _ if source.raw_os_error() == Some(libc::ECANCELED) => (
                ErrorKind::Io,
                "; the kernel could not start a thread for it: allow more (ulimit -u, or TasksMax of \
                 the service), or do without rings (Options::io, --io blocking)",
            ),
            _ => (ErrorKind::Io, ""),
        };
        let at = offset.map(|o| format!(" at offset {o}")).unwrap_or_default();
        let message = format!("cannot {what} {}{at}: {source}{advice}", path.display());
        let reason = format!("cannot {what} it: {source}{advice}");
        let place = Place { file: path.to_owned(), offset: offset.unwrap_or(0), reason };
        Self(Arc::new(Inner { kind, message, source: Some(source), place: Some(place) }))
    }

    /// The same failure, seen from further away: `context` is put before the
    /// message.
    pub(crate) fn context(&self, context: impl fmt::Display) -> Self {
        let place = self.0.place.clone().map(|place| {
            let reason = format!("{context}: {}", place.reason);
            Place { reason, ..place }
        });
        let message = format!("{context}: {}", self.0.message);
        Self(Arc::new(Inner { kind: self.0.kind, message, source: None, place }))
    }

    /// What a writer gets once the log or a manifest has failed.
    pub(crate) fn poisoned(cause: &Self) -> Self {
        Self::new(
            ErrorKind::Poisoned,
            format!(
                "an earlier write failed ({cause}); the outcome of writes in flight is unknown \
                 until the database is opened again; reads go on"
            ),
        )
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// Where the failure is, if it is in one file.
    pub(crate) fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}, {:?})", self.0.kind, self.0.message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_fits_the_cause() {
        for (errno, kind, advice) in [
            (libc::ENOSPC, ErrorKind::NoSpace, "free some space"),
            (libc::EFBIG, ErrorKind::NoSpace, "ulimit -f"),
            (libc::EMFILE, ErrorKind::TooManyFiles, "ulimit -n"),
            (libc::EACCES, ErrorKind::PermissionDenied, "run as the user"),
            (libc::ECANCELED, ErrorKind::Io, "ulimit -u"),
            (libc::EIO, ErrorKind::Io, "cannot write f at offset 7"),
        ] {
            let source = std::io::Error::from_raw_os_error(errno);
            let error = Error::os_at("write", Path::new("f"), Some(7), source);
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(advice), "{error}");
        }
    }
}
