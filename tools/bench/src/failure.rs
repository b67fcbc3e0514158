//! Why the tool ends without a result, and the exit code that says so.

use std::io;
use std::path::{Path, PathBuf};

use ourodb::ErrorKind;

/// Why a command failed.
#[derive(thiserror::Error, Debug)]
pub enum Failure {
    /// It was called wrongly, or on a directory that it must not touch.
    #[error("{0}")]
    Usage(String),
    /// The engine failed.
    #[error("{context}: {source}")]
    Engine {
        /// What was tried.
        context: &'static str,
        /// What the engine said.
        source: ourodb::Error,
        /// The directory of the database, where it is known.
        dir: Option<PathBuf>,
    },
    /// The operating system failed.
    #[error("{context}: {source}")]
    Os {
        /// What was tried, with the file's name.
        context: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the database open.
    #[error("{0}")]
    Locked(String),
    /// The directory was written by a newer version of this tool.
    #[error("{0}")]
    Unsupported(String),
    /// A result is worse than the first, and that was to be an error.
    #[error("something is worse")]
    Worse,
    /// What was looked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
    /// Ctrl-C or SIGTERM; the partial result was printed.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// Turns an error of the engine into a failure, in [`Result::map_err`].
    pub fn engine(context: &'static str) -> impl FnOnce(ourodb::Error) -> Self {
        move |source| Self::Engine { context, source, dir: None }
    }

    /// The same, of the database in this directory.
    #[must_use]
    pub fn in_dir(self, dir: &Path) -> Self {
        match self {
            Self::Engine { context, source, .. } => {
                Self::Engine { context, source, dir: Some(dir.to_owned()) }
            }
            other => other,
        }
    }

    /// The same, with what it comes from in front.
    #[must_use]
    pub fn because_of(self, what: &str) -> Self {
        match self {
            Self::Usage(why) => Self::Usage(format!("{what}: {why}")),
            Self::Unsupported(why) => Self::Unsupported(format!("{what}: {why}")),
            Self::Other(why) => Self::Other(format!("{what}: {why}")),
            Self::Os { context, source } => {
                Self::Os { context: format!("{what}: {context}"), source }
            }
            other => other,
        }
    }

    /// Turns an error of the system into a failure, in [`Result::map_err`].
    pub fn os(context: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Os { context: context.into(), source }
    }

    /// What to do about it, if the message does not say.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let Self::Engine { source, dir, .. } = self else { return None };
        let verify = match dir {
            Some(dir) => format!("`ouro verify --dir {}`", dir.display()),
            None => "`ouro verify`".to_owned(),
        };
        (source.kind() == ErrorKind::Corruption).then(|| {
            format!(
                "{verify} names all that is damaged; for more measurements, load again with \
                 --overwrite"
            )
        })
    }

    /// Threads could not be started that are for `what`.
    pub fn no_threads(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            Self::Other(format!(
                "cannot start {what}: {error}; allow more threads (ulimit -u, or TasksMax of the \
                 service)"
            ))
        }
    }

    /// The process's exit code: the same for all of OuroDB's tools. After SIGTERM
    /// it is 143 in place of 130.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Worse | Self::NotFound(_) => 1,
            Self::Usage(_) => 2,
            Self::Engine { source, .. } => match source.kind() {
                ErrorKind::InvalidArgument => 2,
                ErrorKind::Corruption => 3,
                ErrorKind::Locked => 4,
                ErrorKind::NoSpace => 5,
                ErrorKind::Unsupported => 6,
                _ => 7,
            },
            Self::Locked(_) => 4,
            Self::Os { source, .. } if is_no_space(source) => 5,
            Self::Unsupported(_) => 6,
            Self::Os { .. } | Self::Other(_) => 7,
            Self::Interrupted => 130,
        }
    }
}

/// The file system is full, or files may not get longer.
fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_exit_code() {
        let os = |kind: io::ErrorKind| Failure::os("write x")(kind.into());
        assert_eq!(Failure::Usage(String::new()).exit_code(), 2);
        assert_eq!(Failure::Worse.exit_code(), 1);
        assert_eq!(Failure::Locked(String::new()).exit_code(), 4);
        assert_eq!(os(io::ErrorKind::StorageFull).exit_code(), 5);
        assert_eq!(os(io::ErrorKind::FileTooLarge).exit_code(), 5);
        assert_eq!(Failure::Unsupported(String::new()).exit_code(), 6);
        assert_eq!(os(io::ErrorKind::PermissionDenied).exit_code(), 7);
        assert_eq!(Failure::Other(String::new()).exit_code(), 7);
        assert_eq!(Failure::Interrupted.exit_code(), 130);
    }
}
