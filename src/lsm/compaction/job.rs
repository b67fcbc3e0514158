//! Merging: tables in, tables out.

use std::sync::Arc;

use crate::base::error::{ErrorKind, Result};
use crate::base::hash::KeyHasher;
use crate::base::ranges::RangeTombstones;
use crate::io::Io;
use crate::lsm::compaction::Plan;
use crate::lsm::flush::{BYTES_PER_SLICE, ENTRIES_PER_SLICE, sampled};
use crate::lsm::keep::{Judgement, Keep, Retain, kept_ranges};
use crate::lsm::merge::Merge;
use crate::lsm::output::{Made, Outputs, TablePlace};
use crate::lsm::run::{Run, RunIter, ahead_bytes};
use crate::runtime::slice_end;
use crate::sst::Table;
use crate::value::Changes;

/// One table of the output reaches tables of the level below of at most so many
/// times its own length: so much is merged with it one day.
const REACH_MAX: u64 = 12;

/// Merges the inputs of `plan`, without what nobody can see any more, into new
/// tables: durable, with their directory entries. Says which long values are not
/// referred to any more; tables that the plan drops are read for that alone, if
/// `has_values`. Reads at most so many bytes ahead, over all inputs, but 16 KiB
/// of each. On an error the files are for the caller to remove.
pub(crate) async fn compact<I: Io>(
    io: &I,
    plan: &Plan,
    retain: &Retain,
    hasher: &KeyHasher,
    place: &TablePlace,
    has_values: bool,
    read_bytes: usize,
) -> Result<(Vec<Made>, Changes)> {
    let written_s = plan.inputs.iter().map(|(_, table)| table.contents().written_s).max();
    let of_inputs: Vec<&RangeTombstones> = plan
        .inputs
        .iter()
        .filter_map(|(_, table)| table.ranges())
        .map(|ranges| &**ranges)
        .collect();
    let deleted = RangeTombstones::union(&of_inputs);
    let ranges = kept_ranges(&deleted, retain, &plan.older);
    let mut keep = Keep::new(retain, &plan.older, &deleted);
    let (written_s, reserved) = (written_s.unwrap_or_default(), plan.between.len());
    let older = &plan.older;
    let mut outputs = Outputs::new(io, place, hasher, &ranges, older, written_s, reserved);
    let mut reach = Reach::new(plan, REACH_MAX * place.table_bytes);
    let runs = plan.runs();
    let ahead_bytes_max = ahead_bytes(read_bytes, runs.len());
    let runs = runs.iter().map(|run| RunIter::bypassing(run, ahead_bytes_max)).collect();
    let mut merge = Merge::new(io, runs).await?;
    let mut values = Changes::default();
    let (mut entries, mut bytes) = (0, 0);
    while let Some((key, tag, value)) = merge.current() {
        let hash = hasher.hash(key);
        if let Judgement::Keep { is_newest } = keep.judge(key, tag, hash) {
            if !outputs.ends_with(key) {
                while let Some(between) = reach.between_before(Some(key)) {
                    outputs.end_table_before(between).await?;
                }
                if reach.is_far(key) {
                    outputs.end_table_early().await?;
                }
            }
            for tombstone in keep.held() {
                outputs.add(key, tombstone, &[], hash, false).await?;
            }
            outputs.add(key, tag, value, hash, merge.is_hot()).await?;
            let stands_for = if is_newest { sampled(hash, value.len()) } else { 0 };
            if stands_for > 0 {
                outputs.ask_older(key, hash, stands_for).await;
            }
        } else {
            values.dropped(tag, value).map_err(|error| error.at(&place.dir, 0))?;
        }
        entries += 1;
        bytes += key.len() + value.len();
        merge.advance(io).await?;
        if entries >= ENTRIES_PER_SLICE || bytes >= BYTES_PER_SLICE {
            (entries, bytes) = (0, 0);
            slice_end().await;
        }
    }
    // Range tombstones may be left on either side of tables behind the last key.
    while let Some(between) = reach.between_before(None) {
        outputs.end_table_before(between).await?;
    }
    let dropped = plan.drops.iter().filter(|_| has_values);
    let sound = dropped.filter_map(|(_, member)| member.sound().ok());
    for table in sound {
        match drop_values(io, table, read_bytes, place, &mut values).await {
            Err(error) if error.kind() == ErrorKind::Corruption => {
                // It goes all the same: damage must not keep what is older.
                tracing::warn!(%error, "a table that is dropped leaves long values behind");
            }
            read => read?,
        }
    }
    Ok((outputs.finish().await?, values))
}

/// Says which long values a table refers to that is dropped.
async fn drop_values<I: Io>(
    io: &I,
    table: Arc<Table>,
    read_bytes: usize,
    place: &TablePlace,
    values: &mut Changes,
) -> Result<()> {
    let mut iter = RunIter::bypassing(&Run::of_tables(vec![table]), read_bytes);
    iter.seek_to_first(io).await?;
    while let Some((_, tag)) = iter.current() {
        values.dropped(tag, iter.value()).map_err(|error| error.at(&place.dir, 0))?;
        iter.next(io).await?;
        slice_end().await;
    }
    Ok(())
}

/// How far the current table reaches.
struct Reach<'a> {
    /// The tables of the level below that were not passed yet.
    below: std::slice::Iter<'a, (Box<[u8]>, u64)>,
    /// Bytes of those it reaches.
    bytes: u64,
    bytes_max: u64,
    /// What was not passed yet of what it must not reach over.
    between: std::slice::Iter<'a, Box<[u8]>>,
}

impl<'a> Reach<'a> {
    fn new(plan: &'a Plan, bytes_max: u64) -> Self {
        Self { below: plan.below.iter(), bytes: 0, bytes_max, between: plan.between.iter() }
    }

    /// The next of the keys that the output must not reach over, if it is before
    /// `key`, or in any case.
    fn between_before(&mut self, key: Option<&[u8]>) -> Option<&'a [u8]> {
        let next = self.between.as_slice().first()?;
        if key.is_some_and(|key| **next >= *key) {
            return None;
        }
        self.bytes = 0;
        self.between.next().map(|next| &**next)
    }

    /// Whether the table had better end before a key. To be asked of each, in
    /// their order.
    fn is_far(&mut self, key: &[u8]) -> bool {
        while let Some((end, bytes)) = self.below.as_slice().first()
            && **end < *key
        {
            self.bytes += bytes;
            self.below.next();
        }
        let is_far = self.bytes > self.bytes_max;
        if is_far {
            self.bytes = 0;
        }
        is_far
    }
}
