//! Which keys depend on which bytes of tables, as dumps of the sound files tell.

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
}

pub(crate) fn blocks<'a>(
    options: &Options,
    paths: impl Iterator<Item = &'a PathBuf>,
) -> Result<Blocks, String> {
    let (mut tables, mut has_ranges) = (BTreeMap::new(), BTreeSet::new());
    for path in paths.filter(|path| super::layouts::kind(path) == "sst") {
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
                Dumped::Entry { key, .. } => {
                    if let Some(block) = blocks.last_mut() {
                        block.keys.push(key.to_vec());
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
        dumped.map_err(|error| format!("{} cannot be dumped: {error}", path.display()))?;
        let mut end = data_end;
        for block in blocks.iter_mut().rev() {
            block.place.end = std::mem::replace(&mut end, block.place.start);
        }
        if end != UNIT || blocks.iter().any(|block| block.keys.is_empty()) {
            return Err(format!("the dump of {} does not tell its blocks", path.display()));
        }
        tables.insert(path.clone(), blocks);
    }
    Ok(Blocks { tables, has_ranges })
}

fn number_behind(text: &str, words: &str) -> usize {
    let behind = text.split_once(words).map_or("", |(_, behind)| behind);
    let digits = behind.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

impl Blocks {
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
