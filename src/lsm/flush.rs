//! A memtable becomes a table.

use std::sync::Arc;

use crate::base::error::Result;
use crate::base::hash::{KeyHash, KeyHasher};
use crate::io::Io;
use crate::lsm::keep::{Judgement, Keep, Retain, kept_ranges};
use crate::lsm::levels::Older;
use crate::lsm::output::{Outputs, TablePlace};
use crate::memtable::Memtable;
use crate::runtime::slice_end;
use crate::sst::Table;
use crate::value::Changes;

/// Entries, and bytes of them, between two ends of slices: some tens of
/// microseconds of work.
pub(super) const ENTRIES_PER_SLICE: usize = 64;
pub(super) const BYTES_PER_SLICE: usize = 32 << 10;

/// Of so many short entries, one is looked for in older tables.
const SAMPLED: u64 = 64;

/// Entries of so many bytes are all looked for.
const LONG_BYTES: usize = 4096;

/// For how many entries this one stands in the estimate of those that hide an
/// older one; 0 for none.
pub(super) fn sampled(hash: KeyHash, value_bytes: usize) -> u64 {
    if value_bytes >= LONG_BYTES {
        1
    } else if hash.filter.is_multiple_of(SAMPLED) {
        SAMPLED
    } else {
        0
    }
}

/// Writes what `memtable` holds, without what nobody can see any more, to a
/// new table: durable, with its directory entry. `None` when nothing is left.
/// Says what becomes of the long values that it refers to. On an error the file
/// is for the caller to remove.
pub(crate) async fn write_table<I: Io>(
    io: &I,
    memtable: &Memtable,
    retain: &Retain,
    older: &Older,
    hasher: &KeyHasher,
    place: &TablePlace,
) -> Result<(Option<Arc<Table>>, Changes)> {
    let mut keep = Keep::new(retain, older, memtable.ranges());
    let ranges = kept_ranges(memtable.ranges(), retain, older);
    let mut outputs = Outputs::new(io, place, hasher, &ranges, older, io.calendar_s(), 0);
    let mut values = Changes::default();
    let mut at = memtable.first();
    let (mut entries, mut bytes) = (0, 0);
    while let Some(entry) = memtable.entry(at) {
        let (key, hash) = (entry.key, hasher.hash(entry.key));
        let known = values.flushed(entry.tag, &entry.value);
        known.expect("references were checked before they got here");
        if let Judgement::Keep { is_newest } = keep.judge(key, entry.tag, hash) {
            for tombstone in keep.held() {
                outputs.add(key, tombstone, &[], hash, false).await?;
            }
            outputs.add(key, entry.tag, &entry.value, hash, false).await?;
            let stands_for = if is_newest { sampled(hash, entry.value.len()) } else { 0 };
            if stands_for > 0 {
                outputs.ask_older(key, hash, stands_for).await;
            }
        } else {
            let known = values.dropped(entry.tag, &entry.value);
            known.expect("references were checked before they got here");
        }
        at = memtable.next(at);
        entries += 1;
        bytes += key.len() + entry.value.len();
        if entries >= ENTRIES_PER_SLICE || bytes >= BYTES_PER_SLICE {
            (entries, bytes) = (0, 0);
            slice_end().await;
        }
    }
    let tables = outputs.finish().await?;
    assert!(tables.len() <= 1, "a memtable becomes one table");
    Ok((tables.into_iter().next().map(|made| made.table), values))
}
