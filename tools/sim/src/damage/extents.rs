//! What is under one checksum, file by file, as dumps of the sound files tell.
//!
//! A finding is held against it: it names what begins at its offset, or has its offset
//! within, and is right if something of that has changed.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use ourodb::{DumpDetail, Dumped, Options};

use super::blocks::{Blocks, number_behind};
use super::harm::UNIT;
use super::layouts::kind;

/// Bytes of a record before its payload.
const RECORD_HEADER: usize = 36;

/// Bytes of a value under one checksum.
const CHUNK: usize = 64 << 10;

/// Bytes that are read and checked together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Extent {
    place: Range<usize>,
    /// Of a record of the log: the positions of its stream where whoever follows the stream
    /// looks for it, which begin where the record before it ends. Of a segment's header:
    /// those of the whole segment.
    sought: Range<u64>,
}

/// The extents of a file, in order.
#[derive(Debug, Default)]
struct File {
    extents: Vec<Extent>,
    /// Of a segment or mapping: the stream it is of.
    stream: Option<String>,
    /// Of a segment: the positions behind its header.
    positions: Range<u64>,
}

/// The extents of all files.
#[derive(Default)]
pub(crate) struct Extents {
    files: BTreeMap<PathBuf, File>,
}

pub(crate) fn extents(
    options: &Options,
    files: &BTreeMap<PathBuf, Vec<u8>>,
    blocks: &Blocks,
) -> Result<Extents, String> {
    let mut all = Extents::default();
    for (path, bytes) in files {
        let mut file = File::default();
        if !bytes.is_empty() {
            file.add(0..UNIT.min(bytes.len()));
        }
        match kind(path) {
            "IDENTITY" => file.add(UNIT..2 * UNIT),
            "val" => blocks.values_in(path).for_each(|(start, len)| file.add_value(start, len)),
            "sst" | "wal" | "map" | "MANIFEST" => {
                let dumped = ourodb::dump(path, options, DumpDetail::Blocks, |part| {
                    if let Dumped::Text { text, .. } = part {
                        file.add_told(text, kind(path));
                    }
                    ControlFlow::Continue(())
                });
                dumped.map_err(|error| format!("{} cannot be dumped: {error}", path.display()))?;
            }
            _ => {}
        }
        file.finish(bytes.len());
        all.files.insert(path.clone(), file);
    }
    all.find_headers();
    Ok(all)
}

impl File {
    fn add(&mut self, place: Range<usize>) {
        self.extents.push(Extent { place, sought: 0..0 });
    }

    /// A value, and what fills it up to a whole unit.
    fn add_value(&mut self, start: usize, len: usize) {
        for chunk in (0..len).step_by(CHUNK) {
            self.add(start + chunk..start + len.min(chunk + CHUNK));
        }
        self.add(start + len..(start + len).next_multiple_of(UNIT));
    }

    /// What a line of a dump tells of.
    fn add_told(&mut self, text: &str, kind: &str) {
        let at = number_behind(text, " at offset ");
        let whole = |len: usize| at..at + len.next_multiple_of(UNIT);
        if let Some(what) = text.strip_prefix("record at offset ") {
            if kind == "MANIFEST" {
                // What fills it up is checked, too.
                self.add(whole(RECORD_HEADER + number_behind(what, ", ")));
                return;
            }
            let (from, to) = (number_behind(what, ": position "), number_behind(what, " to "));
            let sought = (from - number_behind(what, ", gap ")) as u64..to as u64;
            self.extents.push(Extent { place: at..at + to - from, sought });
        } else if let Some((stream, positions)) = text.split_once(": positions ") {
            self.stream = Some(stream.to_owned());
            let end = number_behind(positions, " to ") as u64;
            self.positions = number_behind(text, ": positions ") as u64..end;
        } else if kind == "map" && text.contains(" slots of ") {
            self.stream = text.split_once(": ").map(|(stream, _)| stream.to_owned());
            self.add(UNIT..2 * UNIT);
        } else if ["top index: ", "properties: ", "partition at offset "]
            .iter()
            .any(|words| text.starts_with(words))
        {
            self.add(whole(number_behind(text, ": ")));
        } else if text.starts_with("block at offset ") {
            // It goes on until what is behind it, which is all there is of a table.
            self.add(at..at);
        }
    }

    /// All that there is was added, of a file of `len` bytes.
    fn finish(&mut self, len: usize) {
        self.extents.sort_by_key(|extent| extent.place.start);
        let starts: Vec<usize> = self.extents.iter().map(|extent| extent.place.start).collect();
        let ends = starts.into_iter().skip(1).chain([len]);
        for (extent, end) in self.extents.iter_mut().zip(ends) {
            if extent.place.is_empty() {
                extent.place.end = end;
            }
        }
        self.extents.retain(|extent| !extent.place.is_empty());
    }

    /// What has this offset in it: under one checksum, or, where there is none, up to the
    /// next one in the same unit.
    fn around(&self, offset: usize) -> Range<usize> {
        let behind = self.extents.partition_point(|extent| extent.place.start <= offset);
        let before = self.extents[..behind].last().map_or(0..0, |extent| extent.place.clone());
        if before.contains(&offset) {
            return before;
        }
        let unit = offset / UNIT * UNIT;
        let next = self.extents.get(behind).map_or(usize::MAX, |extent| extent.place.start);
        before.end.max(unit)..next.min(unit + UNIT)
    }
}

impl Extents {
    /// What a segment holds is looked for from the end of the last record before it on.
    fn find_headers(&mut self) {
        let records = |file: &File| {
            let ends = file.extents.iter().map(|extent| extent.sought.end);
            (file.stream.clone(), ends.collect::<Vec<_>>())
        };
        let ends: Vec<_> = self.files.values().map(records).collect();
        for file in self.files.values_mut().filter(|file| !file.positions.is_empty()) {
            let own = ends.iter().filter(|(stream, _)| *stream == file.stream);
            let before = own.flat_map(|(_, ends)| ends).filter(|&&end| end <= file.positions.start);
            let start = before.max().copied().unwrap_or(0);
            if let Some(header) = file.extents.first_mut() {
                header.sought = start..file.positions.end;
            }
        }
    }

    /// Whether `offset` of the segment `file` is behind all records of the stream that the
    /// mapping `of` is of.
    pub(crate) fn is_behind_all(&self, of: &Path, file: &Path, offset: usize) -> bool {
        let files = (self.files.get(of), self.files.get(file));
        let (Some(File { stream: Some(stream), .. }), Some(segment)) = files else { return false };
        let own = self.files.values().filter(|file| file.stream.as_ref() == Some(stream));
        // Headers are no records.
        let records = own.flat_map(|file| &file.extents).filter(|extent| extent.place.start > 0);
        let end = records.map(|record| record.sought.end).max().unwrap_or(0);
        let at = segment.positions.start + offset.saturating_sub(UNIT) as u64;
        segment.stream.as_ref() == Some(stream) && at >= end
    }

    /// What is checked together with the byte at `offset`.
    pub(crate) fn around(&self, file: &Path, offset: usize) -> Range<usize> {
        self.files.get(file).map_or(offset..offset, |file| file.around(offset))
    }

    /// Where extents of the file begin and end.
    pub(crate) fn bounds(&self, file: &Path) -> impl Iterator<Item = usize> {
        let extents = self.files.get(file).into_iter().flat_map(|file| &file.extents);
        extents.flat_map(|extent| [extent.place.start, extent.place.end])
    }

    /// The records, in segment or mapping `of`, that are looked for where `offset` of the
    /// segment `file` is, which is of the same stream.
    pub(crate) fn sought_at(
        &self,
        of: &Path,
        file: &Path,
        offset: usize,
    ) -> impl Iterator<Item = Range<usize>> {
        let (of, other) = (self.files.get(of), self.files.get(file));
        let at = other.and_then(|other| {
            let start = other.positions.start;
            // That a segment does not continue the one before is said of its header.
            let at = match offset.checked_sub(UNIT) {
                Some(behind) => start + behind as u64,
                None => start.checked_sub(1)?,
            };
            Some((other.stream.as_ref()?, at))
        });
        let extents =
            of.filter(|of| at.is_some_and(|(stream, _)| of.stream.as_ref() == Some(stream)));
        let extents = extents.into_iter().flat_map(|of| &of.extents);
        let is_there =
            move |extent: &&Extent| at.is_some_and(|(_, at)| extent.sought.contains(&at));
        extents.filter(is_there).map(|extent| extent.place.clone())
    }
}
