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

/// What is written as one, or not at all.
const SECTOR_BYTES: usize = 512;

/// How often a write is kept, lost, and torn, in cuts of different kinds.
const WEIGHTS: [[u32; 3]; 8] =
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1], [16, 1, 1], [1, 16, 1], [1, 0, 1]];

/// What is there when the power fails once the first `at` events have been
/// completed.
pub(crate) fn cut(record: &Record, at: usize, random: &mut Rng) -> Image {
    let weights = WEIGHTS[random.usize(..WEIGHTS.len())];
    let mut image = record.image(record.durable(at));
    for (offset, change) in record.open(at) {
        keep_some(&mut image, offset, change, weights, random);
    }
    image
}

fn keep_some(
    image: &mut Image,
    offset: u64,
    change: &Change,
    [kept, lost, torn]: [u32; 3],
    random: &mut Rng,
) {
    let length = change.bytes();
    let draw = random.u32(..kept + lost + torn);
    if draw < kept {
        change.apply(image, offset, 0, length);
    } else if draw >= kept + lost {
        tear(image, offset, change, random);
    }
}

/// Keeps some of a change's sectors: its beginning, its end, or any.
fn tear(image: &mut Image, offset: u64, change: &Change, random: &mut Rng) {
    let length = change.bytes();
    let sectors = length.div_ceil(SECTOR_BYTES);
    let split = random.usize(..=sectors);
    let way = random.u8(..3);
    for sector in 0..sectors {
        let is_kept = match way {
            0 => sector < split,
            1 => sector >= split,
            _ => random.bool(),
        };
        if is_kept {
            let start = sector * SECTOR_BYTES;
            change.apply(image, offset, start, SECTOR_BYTES.min(length - start));
        }
    }
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;
