//! Telling what is in a file, part by part, damaged ones too.

use std::ops::ControlFlow;

use super::{Halt, Inspection, Io};
use crate::base::dumped::{DumpDetail, Dumped};
use crate::base::seq::{Kind, Tag};
use crate::format::value::Reference;

/// Who is told, by the dump itself and by its inspection.
pub(crate) type Listener<'a> = dyn Fn(Dumped<'_>) -> ControlFlow<()> + 'a;

/// A dump under way.
pub(crate) struct Dump<'a, I> {
    /// Reads the file; its faults are told as damage.
    pub(crate) inspection: Inspection<'a, I>,
    pub(crate) detail: DumpDetail,
    listener: &'a Listener<'a>,
}

impl<'a, I: Io> Dump<'a, I> {
    pub(crate) fn new(
        inspection: Inspection<'a, I>,
        detail: DumpDetail,
        listener: &'a Listener<'a>,
    ) -> Self {
        Self { inspection, detail, listener }
    }

    fn tell(&self, part: Dumped<'_>) -> Result<(), Halt> {
        match (self.listener)(part) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Halt::Stopped),
        }
    }

    pub(crate) fn text(&self, depth: usize, text: &str) -> Result<(), Halt> {
        self.tell(Dumped::Text { depth, text })
    }

    pub(crate) fn key(&self, depth: usize, name: &str, key: &[u8]) -> Result<(), Halt> {
        self.tell(Dumped::Key { depth, name, key })
    }

    pub(crate) fn entry(
        &self,
        depth: usize,
        tag: Tag,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Halt> {
        let (kind, value) = match tag.kind() {
            Some(Kind::Put) => ("put", Some(value)),
            Some(Kind::Delete) => ("delete", None),
            Some(Kind::RangeDelete) => ("range delete", Some(value)),
            Some(Kind::Indirect) => {
                let place = match Reference::decode(value) {
                    Ok(Reference { file, offset, len, .. }) => {
                        format!("{file}.val offset {offset}, {len} bytes")
                    }
                    Err(error) => error.reason.into_owned(),
                };
                let (seq, kind, value) = (tag.seq(), "put in a value file", place.as_bytes());
                return self.tell(Dumped::Entry { depth, seq, kind, key, value: Some(value) });
            }
            None => ("unknown", Some(value)),
        };
        self.tell(Dumped::Entry { depth, seq: tag.seq(), kind, key, value })
    }
}
