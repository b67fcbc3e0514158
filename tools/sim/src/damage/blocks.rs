//! Which keys depend on which bytes of tables and value files, as dumps of the sound
//! files tell.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use ourodb::{DumpDetail, Dumped, Options};

use super::harm::UNIT;

/// A data block: its place, and its keys.
struct Block {
    place: Range<usize>,
    keys: Vec<Vec<u8>>,
}

/// The blocks of each table, in their order.
#[derive(Default)]
pub(crate) struct Blocks {
    tables: BTreeMap<PathBuf, Vec<Block>>,
    /// Those with range tombstones.
    has_ranges: BTreeSet<PathBuf>,
    /// Of keys whose values are in value files: the file, and the value's bytes there.
    values: Vec<(Vec<u8>, String, Range<usize>)>,
}

pub(crate) fn blocks<'a>(
    options: &Options,
    paths: impl Iterator<Item = &'a PathBuf>,
) -> Result<Blocks, String> {
    let (mut tables, mut has_ranges, mut values) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for path in paths.filter(|path| matches!(super::layouts::kind(path), "sst" | "wal" | "map")) {
        let (mut blocks, mut data_end): (Vec<Block>, usize) = (Vec::new(), 0);
        let dumped = ourodb::dump(path, options, DumpDetail::Entries, |part| {
            match part {
                Dumped::Text { text, .. } if text.starts_with("block at offset ") => {
                    let from = number_behind(text, "block at offset ");
                    blocks.push(Block { place: from..from, keys: Vec::new() });
                }
                Dumped::Text { text, .. } if text.starts_with("partitions: ") => {
                    data_end = number_behind(text, " at offset ");
                }
                Dumped::Text { text, .. } if text.starts_with("range tombstones: ") => {
                    has_ranges.insert(path.clone());
                }
                Dumped::Entry { key, kind, value, .. } => {
                    if let ("put in a value file", Some(words)) = (kind, value) {
                        values.extend(value_place(key, &String::from_utf8_lossy(words)));
                    }
                    if let Some(block) = blocks.last_mut() {
                        block.keys.push(key.to_vec());
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
        dumped.map_err(|error| format!("{} cannot be dumped: {error}", path.display()))?;
        if super::layouts::kind(path) != "sst" {
            continue;
        }
        let mut end = data_end;
        for block in blocks.iter_mut().rev() {
            block.place.end = std::mem::replace(&mut end, block.place.start);
        }
        if end != UNIT || blocks.iter().any(|block| block.keys.is_empty()) {
            return Err(format!("the dump of {} does not tell its blocks", path.display()));
        }
        tables.insert(path.clone(), blocks);
    }
    Ok(Blocks { tables, has_ranges, values })
}

pub(crate) fn number_behind(text: &str, words: &str) -> usize {
    let behind = text.split_once(words).map_or("", |(_, behind)| behind);
    let digits = behind.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The place that such words name: `FILE offset N, M bytes`.
fn value_place(key: &[u8], words: &str) -> Option<(Vec<u8>, String, Range<usize>)> {
    let (file, _) = words.split_once(' ')?;
    let (start, len) = (number_behind(words, " offset "), number_behind(words, ", "));
    Some((key.to_vec(), file.to_owned(), start..start + len))
}

impl Blocks {
    /// The values in a value file, each once: where they begin, and how long they are.
    pub(crate) fn values_in(&self, file: &Path) -> impl Iterator<Item = (usize, usize)> {
        let own = self.values.iter().filter(|(_, name, _)| file.ends_with(name));
        let places: BTreeSet<_> = own.map(|(.., place)| (place.start, place.len())).collect();
        places.into_iter()
    }

    /// Whether these bytes of a value file may be those of the key's value, or its header.
    pub(crate) fn may_hold(&self, file: &Path, bytes: &Range<usize>, key: &[u8]) -> bool {
        self.values.iter().any(|(own, name, place)| {
            let end = place.end.next_multiple_of(UNIT);
            let is_there = place.start < bytes.end && bytes.start < end;
            own == key && file.ends_with(name) && (bytes.start < UNIT || is_there)
        })
    }

    /// Whether a lookup of the key may have to read one of these bytes of a table:
    /// those of the one block that can hold it, or what the whole table depends on.
    pub(crate) fn may_need(&self, table: &Path, bytes: &Range<usize>, key: &[u8]) -> bool {
        let Some(blocks) = self.tables.get(table) else { return false };
        let data_end = blocks.last().map_or(0, |block| block.place.end);
        if bytes.start < UNIT || bytes.end > data_end {
            // Nobody asks a table for a key beyond its own, of which its range deletes may be
            // the first and the last.
            let first = blocks.first().and_then(|block| block.keys.first());
            let last = blocks.last().and_then(|block| block.keys.last());
            let is_beyond = first.is_some_and(|first| key < &first[..])
                || last.is_some_and(|last| key > &last[..]);
            return self.has_ranges.contains(table) || !is_beyond;
        }
        blocks.iter().enumerate().any(|(number, block)| {
            let is_damaged = block.place.start < bytes.end && bytes.start < block.place.end;
            let is_behind = |before: &Block| before.keys.last().is_some_and(|last| key > &last[..]);
            let is_before = |next: &Block| next.keys.first().is_some_and(|first| key < &first[..]);
            let is_between = number.checked_sub(1).is_none_or(|before| is_behind(&blocks[before]))
                && blocks.get(number + 1).is_none_or(is_before);
            is_damaged && (is_between || block.keys.iter().any(|own| own == key))
        })
    }
}
