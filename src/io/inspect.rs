//! Reading files to judge them: what is wrong is reported, and the reading goes
//! on.
//!
//! Each layer that verifies or prints its files does so with an [`Inspection`],
//! which knows whom to report to, counts, and is told when nobody wants to know
//! any more.

use std::ops::{ControlFlow, Range};
use std::path::Path;

use super::{File, Io, IoBuf, OpenMode};
use crate::base::error::{Error, ErrorKind};
use crate::base::fault::{Fault, Finding, Verified};
use crate::base::limits::{UNIT, UNIT_U64};

/// A read moves so many bytes at most.
const PIECE_BYTES: u64 = 256 << 10;

/// Reads, and reports.
pub(crate) struct Inspection<'a, I> {
    pub(crate) io: &'a I,
    pub(crate) counts: Verified,
    report: &'a mut dyn FnMut(Finding<'_>) -> ControlFlow<()>,
}

/// Why an inspection ends early.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Whoever is reported to wants no more.
    Stopped,
    /// What keeps it from judging: no permission, no descriptors left.
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl<'a, I: Io> Inspection<'a, I> {
    pub(crate) fn new(
        io: &'a I,
        report: &'a mut dyn FnMut(Finding<'_>) -> ControlFlow<()>,
    ) -> Self {
        Self { io, counts: Verified::default(), report }
    }

    fn tell(&mut self, finding: Finding<'_>) -> Result<(), Halt> {
        match (self.report)(finding) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Halt::Stopped),
        }
    }

    /// Reports damage.
    pub(crate) fn fault(
        &mut self,
        file: &Path,
        offset: u64,
        reason: impl Into<String>,
    ) -> Result<(), Halt> {
        let (kind, reason) = (ErrorKind::Corruption, reason.into());
        self.report_fault(&Fault { kind, file: file.to_owned(), offset, reason })
    }

    /// Reports a failure that is one of the file's; any other ends the
    /// inspection.
    pub(crate) fn error(&mut self, error: Error) -> Result<(), Halt> {
        let kind = match error.kind() {
            ErrorKind::NotFound => ErrorKind::Corruption,
            kind @ (ErrorKind::Corruption | ErrorKind::Io | ErrorKind::Unsupported) => kind,
            _ => return Err(Halt::Failed(error)),
        };
        let Some(place) = error.place() else { return Err(Halt::Failed(error)) };
        let (file, reason) = (place.file.clone(), place.reason.clone());
        self.report_fault(&Fault { kind, file, offset: place.offset, reason })
    }

    fn report_fault(&mut self, fault: &Fault) -> Result<(), Halt> {
        self.counts.faults += 1;
        self.tell(Finding::Fault(fault))
    }

    /// What `result` holds; `None`, and a report, if it is a failure of the
    /// file's.
    pub(crate) fn sound<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Halt> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.error(error).map(|()| None),
        }
    }

    /// Reports a file that nothing needs.
    pub(crate) fn orphan(&mut self, file: &Path) -> Result<(), Halt> {
        self.counts.orphans += 1;
        self.tell(Finding::Orphan(file))
    }

    /// Opens a file, and says how long it is. `None`, and a fault, when it is
    /// missing or cannot be opened.
    pub(crate) async fn open(
        &mut self,
        path: &Path,
        what: &str,
    ) -> Result<Option<(File, u64)>, Halt> {
        let file = match self.io.open(path, OpenMode::Read).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.fault(path, 0, format!("the {what} is missing"))?;
                return Ok(None);
            }
            opened => self.sound(opened)?,
        };
        let Some(file) = file else { return Ok(None) };
        let len = self.io.len(&file).await;
        Ok(self.sound(len)?.map(|len| (file, len)))
    }

    /// Whole units at `offset`; `None`, and a fault, when the device does not
    /// give them or the file ends before.
    pub(crate) async fn read(
        &mut self,
        file: &File,
        offset: u64,
        bytes: usize,
    ) -> Result<Option<IoBuf>, Halt> {
        let read = self.try_read(file, offset, bytes).await?;
        self.sound(read)
    }

    async fn try_read(
        &mut self,
        file: &File,
        offset: u64,
        bytes: usize,
    ) -> Result<Result<IoBuf, Error>, Halt> {
        let (buf, read) = self.io.read(file, offset, IoBuf::zeroed(bytes)).await;
        let read = match read {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        self.counts.bytes += read as u64;
        self.tell(Finding::Read(self.counts.bytes))?;
        if read < bytes {
            let end = offset + read as u64;
            return Ok(Err(Error::corruption(file.path(), end, "the file ends here")));
        }
        Ok(Ok(buf))
    }

    /// The bytes of a file in `range`, whole units. What cannot be read is
    /// reported, unit by unit, and stands there as zeroes.
    pub(crate) async fn read_range(
        &mut self,
        file: &File,
        range: Range<u64>,
    ) -> Result<Vec<u8>, Halt> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let mut piece_bytes = PIECE_BYTES;
        loop {
            let at = range.start + bytes.len() as u64;
            if at >= range.end {
                return Ok(bytes);
            }
            let piece = (range.end - at).min(piece_bytes) as usize;
            match self.try_read(file, at, piece).await? {
                Ok(buf) => bytes.extend_from_slice(&buf),
                Err(_) if piece > UNIT => piece_bytes = UNIT_U64,
                Err(error) => {
                    self.error(error)?;
                    bytes.resize(bytes.len() + piece, 0);
                }
            }
        }
    }
}
