//! Cuts of records that are made up.

use std::collections::BTreeSet;
use std::time::Instant;

use super::super::record::{Event, Kind};
use super::*;

const CUTS: u64 = 400;
const SECTOR_BYTES: usize = 512;

fn write(sector: u64, fill: u8, sectors: usize, arrived: usize) -> Kind {
    let change = Change::Write(vec![fill; sectors * SECTOR_BYTES]);
    Kind::Change { offset: sector * SECTOR_BYTES as u64, change, arrived }
}

fn discard(sector: u64, sectors: usize, arrived: usize) -> Kind {
    let change = Change::Discard(sectors * SECTOR_BYTES);
    Kind::Change { offset: sector * SECTOR_BYTES as u64, change, arrived }
}

fn flush(covers: usize) -> Kind {
    Kind::Flush { covers }
}

fn record(kinds: Vec<Kind>) -> Record {
    let events = kinds.into_iter().map(|kind| Event { at: Instant::now(), kind });
    Record { base: Image::new(1 << 20), events: events.collect() }
}

/// What the first sectors hold after many cuts at the same place.
fn outcomes(record: &Record, at: usize, sectors: usize) -> BTreeSet<Vec<u8>> {
    let outcome = |seed| {
        let bytes = cut(record, at, (SECTOR_BYTES, 0), &mut Rng::with_seed(seed))
            .read(0, sectors * SECTOR_BYTES);
        let sectors = bytes.chunks(SECTOR_BYTES);
        assert!(sectors.clone().all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        sectors.map(|sector| sector[0]).collect()
    };
    (0..CUTS).map(outcome).collect()
}

fn all(outcomes: &[&[u8]]) -> BTreeSet<Vec<u8>> {
    outcomes.iter().map(|outcome| outcome.to_vec()).collect()
}

#[test]
fn what_was_flushed_is_there() {
    let record = record(vec![write(0, 1, 2, 0), flush(1)]);
    assert_eq!(outcomes(&record, 2, 2), all(&[&[1, 1]]));
}

#[test]
fn what_was_not_is_kept_lost_or_torn() {
    let record = record(vec![write(0, 1, 2, 0), flush(1)]);
    assert_eq!(outcomes(&record, 1, 2), all(&[&[0, 0], &[0, 1], &[1, 0], &[1, 1]]));
    assert_eq!(outcomes(&record, 0, 2), all(&[&[0, 0], &[0, 1], &[1, 0], &[1, 1]]));
}

#[test]
fn a_superblock_is_not_torn() {
    let record = record(vec![write(2, 1, 2, 0), write(8, 1, 2, 1)]);
    let outcome = |seed| {
        let image = cut(&record, 2, (SECTOR_BYTES, 4096), &mut Rng::with_seed(seed));
        let bytes = image.read(0, 10 * SECTOR_BYTES);
        [2, 3, 8, 9].map(|sector| bytes[sector * SECTOR_BYTES])
    };
    let outcomes: BTreeSet<_> = (0..CUTS).map(outcome).collect();
    assert!(outcomes.iter().all(|[first, second, ..]| first == second));
    assert_eq!(outcomes.len(), 8);
}

#[test]
fn long_sectors_are_whole() {
    // The second half of a sector, a whole one, and the first half of one.
    let record = record(vec![write(4, 1, 16, 0)]);
    let halves = |seed| {
        let bytes =
            cut(&record, 1, (4096, 0), &mut Rng::with_seed(seed)).read(0, 24 * SECTOR_BYTES);
        let halves = bytes[4 * SECTOR_BYTES..20 * SECTOR_BYTES].chunks(4 * SECTOR_BYTES);
        assert!(halves.clone().all(|half| half.iter().all(|byte| *byte == half[0])));
        halves.map(|half| half[0]).collect::<Vec<u8>>()
    };
    let outcomes: BTreeSet<_> = (0..CUTS).map(halves).collect();
    assert_eq!(outcomes.len(), 8);
    assert!(outcomes.iter().all(|halves| halves[1] == halves[2]));
}

#[test]
fn of_several_writes_any_may_be_there() {
    let record = record(vec![
        write(0, 1, 1, 0),
        flush(1),
        write(0, 2, 1, 2),
        write(0, 3, 1, 3),
        write(0, 4, 1, 9),
    ]);
    assert_eq!(outcomes(&record, 4, 1), all(&[&[1], &[2], &[3]]));
}

#[test]
fn no_earlier_write_is_there_instead_of_a_flushed_one() {
    let record = record(vec![write(0, 1, 1, 0), write(0, 2, 1, 1), flush(2)]);
    assert_eq!(outcomes(&record, 3, 1), all(&[&[2]]));
}

#[test]
fn a_flush_that_was_under_way_helps_nothing() {
    let record = record(vec![write(0, 1, 1, 0), write(1, 2, 1, 1), flush(1), flush(1)]);
    assert_eq!(outcomes(&record, 4, 2), all(&[&[1, 0], &[1, 2]]));
    assert_eq!(outcomes(&record, 2, 2).len(), 4);
}

#[test]
fn what_was_under_way_may_be_there() {
    let under_way = record(vec![flush(0), write(0, 1, 1, 0)]);
    assert_eq!(outcomes(&under_way, 1, 1), all(&[&[0], &[1]]));
    let later = record(vec![flush(0), flush(0), write(0, 1, 1, 2)]);
    assert_eq!(outcomes(&later, 1, 1), all(&[&[0]]));
}

#[test]
fn discards_are_writes_of_zeroes() {
    let record = record(vec![write(0, 1, 2, 0), flush(1), discard(1, 1, 2), flush(3)]);
    assert_eq!(outcomes(&record, 3, 2), all(&[&[1, 0], &[1, 1]]));
    assert_eq!(outcomes(&record, 4, 2), all(&[&[1, 0]]));
    let discards: Vec<_> = (0..=4).map(|at| record.next_discard(at)).collect();
    assert_eq!(discards, [Some(2), Some(2), Some(2), None, None]);
}

#[test]
fn the_same_seed_cuts_the_same_way() {
    let events = (0..100).map(|number| write(number, number as u8 + 1, 3, number as usize));
    let record = record(events.collect());
    let image =
        |seed| cut(&record, 90, (SECTOR_BYTES, 0), &mut Rng::with_seed(seed)).read(0, 1 << 16);
    assert!((0..20).all(|seed| image(seed) == image(seed)));
    assert!((0..20).any(|seed| image(seed) != image(0)));
}

#[test]
fn what_may_be_lost_is_told() {
    let record = record(vec![write(0, 1, 1, 0), flush(1), flush(2), write(0, 2, 1, 1)]);
    let open: Vec<usize> = (0..=4).map(|at| record.open(at).count()).collect();
    assert_eq!(open, [1, 2, 1, 1, 1]);
    let flushes: Vec<_> = (0..=4).map(|at| record.next_flush(at)).collect();
    assert_eq!(flushes, [Some(1), Some(1), Some(2), None, None]);
    assert_eq!(record.next_discard(0), None);
}

#[test]
fn what_is_forgotten_is_gone_though_it_was_flushed() {
    let record = record(vec![write(0, 1, 1, 0), write(0, 2, 1, 1), flush(2)]);
    assert_eq!(record.image(1).read(0, 1), [1]);
    assert_eq!(cut(&record, 3, (SECTOR_BYTES, 0), &mut Rng::with_seed(0)).read(0, 1), [2]);
}
