//! Requests of the simulated machine, and how their answers come back.
//!
//! A request owns its buffer and its file until it completes, whether or not
//! somebody still waits for it. Answers are delivered with no lock held: they
//! wake tasks and may drop buffers and files.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustix::io::Errno;

use super::Node;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::Mutex;
use crate::io::{File, Handle, Harden, IoBuf, Mapping, OpenMode, WriteBuf};

/// The end of an answer's way that waits for it.
pub(super) struct Answer<T>(Arc<Mutex<Slot<T>>>);

/// The end of an answer's way that gives it.
pub(super) struct Reply<T>(Arc<Mutex<Slot<T>>>);

enum Slot<T> {
    Waiting(Option<Waker>),
    Answered(T),
    Taken,
}

pub(super) fn answer<T>() -> (Reply<T>, Answer<T>) {
    let slot = Arc::new(Mutex::new(Slot::Waiting(None)));
    (Reply(Arc::clone(&slot)), Answer(slot))
}

impl<T> Reply<T> {
    pub(super) fn send(self, value: T) {
        let before = std::mem::replace(&mut *self.0.lock(), Slot::Answered(value));
        if let Slot::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Future for Answer<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.0.lock();
        match &mut *slot {
            Slot::Waiting(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Slot::Answered(_) => match std::mem::replace(&mut *slot, Slot::Taken) {
                Slot::Answered(value) => Poll::Ready(value),
                _ => unreachable!("the slot was looked at under the same lock"),
            },
            Slot::Taken => panic!("an answer was polled after it was ready"),
        }
    }
}

/// Hands an answer over, and drops what the request owned.
pub(super) type Delivery = Box<dyn FnOnce() + Send>;

/// What a request changes that answers with success alone.
pub(super) enum Change {
    Sync(File),
    Punch(File, u64, u64),
    Cut(File, u64),
    CreateDir(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    SyncDir(PathBuf),
}

/// What is asked of the machine.
pub(super) enum Op {
    Read {
        file: File,
        offset: u64,
        buf: IoBuf,
        /// Bytes moved by the pieces so far.
        done: usize,
        reply: Reply<(IoBuf, Result<usize>)>,
    },
    Write {
        file: File,
        offset: u64,
        /// The buffer's bytes when the request was submitted.
        data: Arc<[u8]>,
        /// Bytes moved by the pieces so far.
        done: usize,
        harden: Harden,
        buf: WriteBuf,
        reply: Reply<(WriteBuf, Result<()>)>,
    },
    Change(Change, Reply<Result<()>>),
    Open(PathBuf, OpenMode, Reply<Result<File>>),
    TryLock(PathBuf, bool, Reply<Result<Option<File>>>),
    Len(File, Reply<Result<u64>>),
    Map(File, usize, Reply<Result<Mapping>>),
    List(PathBuf, Reply<Result<Vec<String>>>),
}

/// An operation in flight.
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) due_ns: u64,
    /// The newest sequence number of the disk when it was submitted.
    pub(super) stamp: u64,
    /// Whether its completion was looked at before.
    pub(super) first: bool,
    /// How often it was refused with `EAGAIN`.
    pub(super) refusals: u32,
    pub(super) op: Op,
}

const READ_NS: u64 = 80_000;
const WRITE_NS: u64 = 80_000;
const SYNC_NS: u64 = 100_000;
const METADATA_NS: u64 = 20_000;

impl Op {
    /// How long it takes when nothing holds it up.
    pub(super) fn latency_ns(&self) -> u64 {
        match self {
            Self::Read { .. } => READ_NS,
            Self::Write { .. } => WRITE_NS,
            Self::Change(Change::Sync(_) | Change::SyncDir(_), _) => SYNC_NS,
            _ => METADATA_NS,
        }
    }

    /// The open file it is about.
    pub(super) fn file(&self) -> Option<&File> {
        match self {
            Self::Read { file, .. }
            | Self::Write { file, .. }
            | Self::Change(
                Change::Sync(file) | Change::Punch(file, ..) | Change::Cut(file, _),
                _,
            )
            | Self::Len(file, _)
            | Self::Map(file, ..) => Some(file),
            _ => None,
        }
    }

    /// What it does, on what, and where, for messages and the trace.
    pub(super) fn describe(&self) -> (&'static str, &Path, Option<u64>) {
        match self {
            Self::Read { file, offset, .. } => ("read", file.path(), Some(*offset)),
            Self::Write { file, offset, .. } => ("write", file.path(), Some(*offset)),
            Self::Change(Change::Sync(file), _) => ("sync", file.path(), None),
            Self::Change(Change::Punch(file, offset, _), _) => {
                ("give back a part of", file.path(), Some(*offset))
            }
            Self::Change(Change::Cut(file, bytes), _) => ("cut", file.path(), Some(*bytes)),
            Self::Change(Change::CreateDir(dir), _) => ("create directory", dir, None),
            Self::Change(Change::Remove(path), _) => ("remove", path, None),
            Self::Change(Change::Rename(from, _), _) => ("rename", from, None),
            Self::Change(Change::SyncDir(dir), _) => ("sync directory", dir, None),
            Self::Open(path, OpenMode::CreateNew, _) => ("create", path, None),
            Self::Open(path, ..) => ("open", path, None),
            Self::TryLock(path, ..) => ("lock", path, None),
            Self::Len(file, _) => ("inspect", file.path(), None),
            Self::Map(file, ..) => ("map", file.path(), None),
            Self::List(dir, _) => ("list", dir, None),
        }
    }

    pub(super) fn error(&self, errno: Errno) -> Error {
        let (what, path, offset) = self.describe();
        Error::os_at(what, path, offset, errno.into())
    }

    /// The error of a request that a crash overtook.
    pub(super) fn restarted(&self) -> Error {
        let (what, path, _) = self.describe();
        restarted(what, path)
    }

    /// Answers with a failure. To be called with no lock held.
    pub(super) fn fail(self, error: Error) {
        match self {
            Self::Read { buf, reply, .. } => reply.send((buf, Err(error))),
            Self::Write { buf, reply, .. } => reply.send((buf, Err(error))),
            Self::Change(_, reply) => reply.send(Err(error)),
            Self::Open(_, _, reply) => reply.send(Err(error)),
            Self::TryLock(_, _, reply) => reply.send(Err(error)),
            Self::Len(_, reply) => reply.send(Err(error)),
            Self::Map(_, _, reply) => reply.send(Err(error)),
            Self::List(_, reply) => reply.send(Err(error)),
        }
    }
}

pub(super) fn restarted(what: &str, path: &Path) -> Error {
    let path = path.display();
    Error::new(
        ErrorKind::Io,
        format!("cannot {what} {path}: the machine was restarted; open the file again"),
    )
}

/// The simulated file behind an open one.
pub(super) fn node(file: &File) -> &Node {
    match file.handle() {
        Handle::Sim(node) => node,
        Handle::Os(_) => panic!("{} is not a simulated file", file.path().display()),
    }
}
