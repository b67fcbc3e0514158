//! What is on a disk after its power was cut.
//!
//! What a flush covered that had been completed is there. Of everything since,
//! also of what was on its way at that moment, any subset is there, sector by
//! sector: a write may be kept, lost, or torn. A later write to a sector may be
//! lost while an earlier one is kept; which of several unsynced ones a sector
//! has is open, so keeping the last of those that were drawn loses no case.

use fastrand::Rng;

use super::image::Image;
use super::record::{Change, Record};

/// How often a write is kept, lost, and torn, in cuts of different kinds.
const WEIGHTS: [[u32; 3]; 8] =
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1], [16, 1, 1], [1, 16, 1], [1, 0, 1]];

/// Writes that begin below this are not torn: ext4 takes it for granted that its
/// superblock, of 1,024 bytes, is written as a whole, and is never mounted again
/// otherwise.
pub(crate) const SUPERBLOCK_END: u64 = 4096;

/// What is there when the power fails once the first `at` events have been
/// completed; sectors of so many bytes are written as one, or not at all, and what
/// begins below `untorn` as a whole, or not at all.
pub(crate) fn cut(
    record: &Record,
    at: usize,
    (sector_bytes, untorn): (usize, u64),
    random: &mut Rng,
) -> Image {
    let [kept, lost, torn] = WEIGHTS[random.usize(..WEIGHTS.len())];
    let mut image = record.image(record.durable(at));
    for (offset, change) in record.open(at) {
        let draw = random.u32(..kept + lost + torn);
        if draw < kept {
            change.apply(&mut image, offset, 0, change.bytes());
        } else if draw >= kept + lost && offset >= untorn {
            tear(&mut image, offset, change, sector_bytes, random);
        }
    }
    image
}

/// Keeps some of a change's sectors: its beginning, its end, or any.
fn tear(image: &mut Image, offset: u64, change: &Change, sector_bytes: usize, random: &mut Rng) {
    // Sectors of the disk: a write need not begin with a whole one.
    let before = (offset % sector_bytes as u64) as usize;
    let sectors = (before + change.bytes()).div_ceil(sector_bytes);
    let split = random.usize(..=sectors);
    let way = random.u8(..3);
    for sector in 0..sectors {
        let is_kept = match way {
            0 => sector < split,
            1 => sector >= split,
            _ => random.bool(),
        };
        if is_kept {
            let start = (sector * sector_bytes).saturating_sub(before);
            let end = ((sector + 1) * sector_bytes - before).min(change.bytes());
            change.apply(image, offset, start, end - start);
        }
    }
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;
