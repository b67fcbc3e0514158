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

/// Blocks that are this near to each other are read at once.
const GAP_BYTES_MAX: u64 = 4 * UNIT as u64;

/// What is read at once; verifying it and copying it take some tens of microseconds.
const WINDOW_BYTES_MAX: u64 = 128 << 10;

const _: () = assert!(WINDOW_BYTES_MAX <= REQUEST_BYTES_MAX as u64);

impl Table {
    /// Brings the first of these blocks, which are in their order, into the cache, and as many
    /// of the others as are read with it; how many those are, one at least. What finds no room stays
    /// out.
    pub(crate) async fn warm<I: Io>(self: &Arc<Self>, io: &I, blocks: &[u32]) -> Result<usize> {
        let number = self.top.partition_with(blocks[0] as usize);
        let held: Arc<Partition>;
        let partition = match self.pinned() {
            Some(all) => &all[number],
            None => {
                held = self.partition(io, number).await?;
                &*held
            }
        };
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
        let window = IoBuf::zeroed((end - first.offset) as usize);
        let window = self.read(io, first.offset, window).await?;
        let mut plain = Vec::new();
        for place in &places {
            let start = (place.offset - first.offset) as usize;
            self.enter_proven(*place, &window[start..start + place.len], &mut plain)?;
        }
        Ok(places.len())
    }
}
