//! Why a command ends early, and with which exit code.

use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ourodb::ErrorKind;

use crate::escape::escaped;

/// Anything but success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine failed.
    Engine(ourodb::Error),
    /// There is no such key.
    NotFound(String),
    /// Lines of the input were bad.
    BadLines(String),
    /// The command line asks for what cannot be.
    Usage(String),
    /// The operating system refused something, such as to read the input.
    System(String),
    /// The output cannot be written.
    Output(io::Error),
    /// A verification found faults; each was printed.
    Faults {
        faults: u64,
        /// Not only what a newer version could judge.
        is_damaged: bool,
    },
    /// A salvage lost something; each loss was printed.
    Losses {
        losses: u64,
        /// Where the copy is.
        into: String,
    },
    /// Ctrl-C or SIGTERM ended it; the exit code says which.
    Interrupted(u8),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(_) | Self::BadLines(_) => 1,
            Self::Usage(_) => 2,
            Self::Engine(error) => match error.kind() {
                ErrorKind::InvalidArgument => 2,
                ErrorKind::Corruption => 3,
                ErrorKind::Locked => 4,
                ErrorKind::NoSpace => 5,
                ErrorKind::Unsupported => 6,
                _ => 7,
            },
            Self::Faults { is_damaged: true, .. } | Self::Losses { .. } => 3,
            Self::Faults { is_damaged: false, .. } => 6,
            Self::System(_) => 7,
            Self::Output(error) if is_no_space(error) => 5,
            Self::Output(_) => 7,
            Self::Interrupted(code) => *code,
        }
    }

    /// What to do about it, if the message does not say. `dir` is the database's.
    pub(crate) fn advice(&self, dir: &Path) -> Option<String> {
        let Self::Engine(error) = self else { return None };
        let dir = escaped(dir.as_os_str().as_bytes());
        (error.kind() == ErrorKind::Corruption).then(|| {
            format!(
                "`ouro verify --dir {dir}` names all that is damaged. Put damaged tables (.sst) \
                 back from a copy, or else all of the database from a backup; without one, \
                 `ouro salvage` copies what is sound. Keys that no damaged file may hold stay \
                 readable"
            )
        })
    }

    /// Whether the reader of stdout went away, as `head` does when it has what
    /// it wants: no failure of anybody.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The file system is full, or files may not get longer.
fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::NotFound(message)
            | Self::BadLines(message)
            | Self::Usage(message)
            | Self::System(message) => f.write_str(message),
            Self::Output(error) => write!(f, "cannot write to stdout: {error}"),
            Self::Faults { faults: 1, .. } => f.write_str("1 fault was found"),
            Self::Faults { faults, .. } => write!(f, "{faults} faults were found"),
            Self::Losses { losses: 1, into } => {
                write!(f, "1 loss; what is sound is in {into}")
            }
            Self::Losses { losses, into } => {
                write!(f, "{losses} losses; what is sound is in {into}")
            }
            Self::Interrupted(_) => f.write_str("interrupted"),
        }
    }
}

impl From<ourodb::Error> for Failure {
    fn from(error: ourodb::Error) -> Self {
        Self::Engine(error)
    }
}
