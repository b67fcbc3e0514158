//! Bringing blocks of a new table into the cache before anybody asks for them.
//!
//! A compaction makes new blocks of old ones, and those that were in the cache leave it with
//! their tables. If the new ones did not come in their place, all who read what was there a moment
//! ago would go to the device, at once: a stall that the compaction made.

use std::sync::Arc;

use super::blocks::BlockPlace;
use super::{REQUEST_BYTES_MAX, Table};
use crate::base::error::Result;
use crate::base::limits::UNIT;
use crate::format::table::Partition;
use crate::io::{Io, IoBuf};
use crate::runtime::slice_end;

/// Blocks that are this near to each other are read at once.
const GAP_BYTES_MAX: u64 = 4 * UNIT as u64;

/// What is read at once.
const WINDOW_BYTES_MAX: u64 = 128 << 10;

const _: () = assert!(WINDOW_BYTES_MAX <= REQUEST_BYTES_MAX as u64);

/// Some blocks of a table on their way into the cache.
pub(crate) struct Warming<'a> {
    table: &'a Table,
    /// Those that are still to come, in their order.
    blocks: &'a [u32],
    /// The partition of the latest ones, if partitions are not pinned.
    partition: Option<(usize, Arc<Partition>)>,
}

impl<'a> Warming<'a> {
    /// For these blocks, which are in their order.
    pub(crate) fn new(table: &'a Table, blocks: &'a [u32]) -> Self {
        Self { table, blocks, partition: None }
    }

    /// Whether there are none left.
    pub(crate) fn is_done(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Reads the next block, and others that lie near; what finds no room in the cache stays out.
    /// Bytes of what went there.
    ///
    /// # Errors
    /// When the table is damaged, or cannot be read.
    pub(crate) async fn step<I: Io>(&mut self, io: &I) -> Result<usize> {
        let table = self.table;
        let Some(&block) = self.blocks.first() else { return Ok(0) };
        let number = table.top.partition_with(block as usize);
        if !table.is_pinned() && self.partition.as_ref().is_none_or(|(held, _)| *held != number) {
            let partition = match table.resident(number) {
                Some(partition) => partition,
                None => Arc::new(table.read_partition(io, number).await?),
            };
            self.partition = Some((number, partition));
        }
        let partition = match (table.pinned(), &self.partition) {
            (Some(all), _) => &all[number],
            (None, Some((_, partition))) => partition,
            (None, None) => unreachable!("it was read"),
        };
        let places = places(partition, self.blocks);
        let (first, last) = (places[0], places[places.len() - 1]);
        let window = IoBuf::zeroed((last.offset - first.offset) as usize + last.len);
        let window = table.read(io, first.offset, window).await?;
        let (mut plain, mut bytes) = (Vec::new(), 0);
        for place in &places {
            let start = (place.offset - first.offset) as usize;
            bytes += table.enter_proven(*place, &window[start..start + place.len], &mut plain)?;
            // A block of one unit may hold many units, compressed.
            slice_end().await;
        }
        self.blocks = &self.blocks[places.len()..];
        Ok(bytes)
    }
}

/// The first of the blocks, and those that are read with it, which are of the same partition.
fn places(partition: &Partition, blocks: &[u32]) -> Vec<BlockPlace> {
    let first = BlockPlace::of(partition, blocks[0] as usize);
    let mut places = vec![first];
    let mut end = first.offset + first.len as u64;
    for &block in &blocks[1..] {
        if !partition.blocks().contains(&(block as usize)) {
            break;
        }
        let place = BlockPlace::of(partition, block as usize);
        let place_end = place.offset + place.len as u64;
        if place.offset - end > GAP_BYTES_MAX || place_end - first.offset > WINDOW_BYTES_MAX {
            break;
        }
        places.push(place);
        end = place_end;
    }
    places
}
