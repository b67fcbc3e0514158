//! Damage to the log's end, at every offset: exactly the whole records before
//! it are there, unless a later mark says that more was durable; then opening
//! is refused. Never less data in silence.
//!
//! A put of one writer is a group of its own here, so "whole groups" are
//! "whole puts".

mod common;

use std::path::{Path, PathBuf};

use common::{Model, assert_same};
use ourodb::sim::{DiskImage, Sim};
use ourodb::{Db, ErrorKind, IoBackend, Options};

const UNIT: u64 = 4096;
const SEGMENT: u64 = 8 << 10;

fn options(sim: &Sim) -> Options {
    // One shard and stream; a segment of 8 KiB holds one group, a put.
    Options::default()
        .io(IoBackend::Sim(sim.clone()))
        .shards(1)
        .owners(1)
        .memtable_bytes(1 << 20)
        .wal_segment_bytes(SEGMENT)
}

fn key(i: usize) -> Vec<u8> {
    format!("key-{i}").into_bytes()
}

fn value(i: usize) -> Vec<u8> {
    vec![b'a' + i as u8; 100 + i]
}

/// What a record of put `i` takes in the log: see FORMAT.md.
fn record_bytes(i: usize) -> u64 {
    let (k, v) = (key(i).len() as u64, value(i).len() as u64);
    let varint = |n: u64| if n < 128 { 1 } else { 2 };
    36 + 18 + 1 + varint(k) + varint(v) + k + v
}

/// A crash image with `puts` puts in the log, and the paths of the segments in
/// the order of the puts.
fn image(puts: usize) -> (Sim, DiskImage, Vec<PathBuf>) {
    let sim = Sim::new(7);
    let db = Db::open("/db", options(&sim)).expect("open");
    for i in 0..puts {
        db.put(&key(i), &value(i)).wait().expect("put");
    }
    sim.power_cut();
    drop(db);
    let image = sim.snapshot();
    let segments: Vec<PathBuf> = sim.paths().into_iter().filter(|path| is_segment(path)).collect();
    assert!(segments.len() >= puts, "{segments:?}");
    (sim, image, segments)
}

fn model(puts: usize) -> Model {
    (0..puts).map(|i| (key(i), value(i))).collect()
}

/// Opens the damaged image: it has the first `puts` puts, or is refused.
fn expect(sim: &Sim, puts: Option<usize>, what: &str) {
    match (Db::open("/db", options(sim)), puts) {
        (Ok(db), Some(puts)) => assert_same(&db, &model(puts)),
        (Err(error), None) => {
            assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
            assert!(error.to_string().contains(".wal offset"), "{what}: {error}");
        }
        (Err(error), Some(puts)) => panic!("{what}: {puts} puts expected, got {error}"),
        (Ok(db), None) => {
            let rows = db.scan(..).iter().count();
            panic!("{what}: corruption expected, opened with {rows} rows");
        }
    }
    // What the next image replaces need not be closed in good order.
    sim.kill();
}

/// What it says above, and that life goes on: what is written after the damage
/// was cut off is found again.
fn expect_and_go_on(sim: &Sim, puts: usize, what: &str) {
    let db = Db::open("/db", options(sim)).unwrap_or_else(|e| panic!("{what}: {e}"));
    db.put(b"later", b"x").wait().unwrap_or_else(|e| panic!("{what}: {e}"));
    sim.power_cut();
    drop(db);
    let db = Db::open("/db", options(sim)).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut model = model(puts);
    model.insert(b"later".to_vec(), b"x".to_vec());
    assert_same(&db, &model);
    drop(db);
}

/// From `offset` on the segment holds something else.
fn fill(sim: &Sim, segment: &Path, offset: u64, byte: u8) {
    sim.overwrite(segment, offset, &vec![byte; (SEGMENT - offset) as usize]);
}

/// Zeroes, as in a new segment; and what was never any record's.
const FILLS: [u8; 2] = [0, 0xa5];

#[test]
fn damage_in_the_last_group_is_a_torn_tail() {
    let puts = 2;
    let (sim, image, segments) = image(puts);
    let last = &segments[puts - 1];
    let end = UNIT + record_bytes(puts - 1);
    for offset in UNIT..SEGMENT {
        for byte in FILLS {
            // Damage behind the record's last byte harms nothing.
            let left = if offset < end { puts - 1 } else { puts };
            let what = format!("filled with {byte} from {offset}");
            sim.restore(&image);
            fill(&sim, last, offset, byte);
            expect(&sim, Some(left), &what);
            if offset % 97 == 0 {
                sim.restore(&image);
                fill(&sim, last, offset, byte);
                expect_and_go_on(&sim, left, &what);
            }
        }
    }
}

#[test]
fn damage_before_a_durable_mark_is_corruption() {
    let puts = 3;
    let (sim, image, segments) = image(puts);
    for (victim, segment) in segments[..puts - 1].iter().enumerate() {
        let end = UNIT + record_bytes(victim);
        for offset in UNIT..SEGMENT {
            for byte in FILLS {
                sim.restore(&image);
                fill(&sim, segment, offset, byte);
                let left = (offset >= end).then_some(puts);
                expect(&sim, left, &format!("segment {victim} filled with {byte} from {offset}"));
            }
        }
    }
}

#[test]
fn a_damaged_header_is_corruption() {
    let (sim, image, segments) = image(1);
    for offset in 0..UNIT {
        sim.restore(&image);
        let byte = sim.file_bytes(&segments[0]).expect("a segment")[offset as usize];
        sim.overwrite(&segments[0], offset, &[byte ^ 0xff]);
        expect(&sim, None, &format!("header byte {offset}"));
    }
}

#[test]
fn one_flipped_bit_is_seen() {
    let puts = 3;
    let (sim, image, segments) = image(puts);
    for (victim, segment) in segments[..puts].iter().enumerate() {
        for offset in UNIT..UNIT + record_bytes(victim) {
            sim.restore(&image);
            let byte = sim.file_bytes(segment).expect("a segment")[offset as usize];
            sim.overwrite(segment, offset, &[byte ^ 1 << (offset % 8)]);
            let left = (victim == puts - 1).then_some(puts - 1);
            expect(&sim, left, &format!("segment {victim} bit at {offset}"));
        }
    }
}

#[test]
fn a_segment_that_is_cut_is_corruption() {
    let (sim, image, segments) = image(2);
    for segment in &segments[..2] {
        for len in 0..SEGMENT {
            sim.restore(&image);
            sim.truncate(segment, len);
            expect(&sim, None, &format!("{} cut to {len}", segment.display()));
        }
    }
}

#[test]
fn a_segment_that_is_gone_is_corruption() {
    let puts = 3;
    let (sim, image, segments) = image(puts);
    for segment in &segments[..puts - 1] {
        sim.restore(&image);
        sim.remove_file(segment);
        let error = Db::open("/db", options(&sim)).expect_err("a segment is gone");
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    }
}

/// A segment that holds an older state of itself: what a write that was lost
/// leaves behind.
#[test]
fn a_segment_of_an_earlier_moment_is_corruption() {
    let sim = Sim::new(9);
    let db = Db::open("/db", options(&sim)).expect("open");
    let old: Vec<_> = sim.paths().into_iter().filter(|p| is_segment(p)).collect();
    let old: Vec<_> = old.iter().map(|p| (p, sim.file_bytes(p).expect("a segment"))).collect();
    for i in 0..3 {
        db.put(&key(i), &value(i)).wait().expect("put");
    }
    sim.power_cut();
    drop(db);
    let image = sim.snapshot();
    for (path, bytes) in old {
        sim.restore(&image);
        sim.overwrite(path, 0, &bytes);
        expect(&sim, None, &format!("the first state of {}", path.display()));
    }
}

#[test]
fn an_idle_stream_has_a_witness_for_its_last_group() {
    let sim = Sim::new(3);
    let db = Db::open("/db", options(&sim)).expect("open");
    db.put(&key(0), &value(0)).wait().expect("put");
    assert_eq!(db.stats().wal_marks, 0);
    sim.run_for(1_000_000_000);
    assert_eq!(db.stats().wal_marks, 1);
    sim.power_cut();
    drop(db);
    let segment = first_segment(&sim);
    // Without the witness this would be a torn tail.
    sim.overwrite(&segment, UNIT + 40, &[0xff; 8]);
    expect(&sim, None, "a damaged last put before a mark");
}

/// The cut that an opening records says that all below it is there: damage to
/// it later is no torn tail any more.
#[test]
fn what_an_opening_found_counts_as_durable() {
    let (sim, image, segments) = image(1);
    sim.restore(&image);
    let db = Db::open("/db", options(&sim)).expect("open");
    sim.power_cut();
    drop(db);
    sim.overwrite(&segments[0], UNIT + 40, &[0xff; 8]);
    expect(&sim, None, "a put that an opening had found");
}

#[test]
fn a_clean_close_leaves_a_witness() {
    let sim = Sim::new(3);
    let db = Db::open("/db", options(&sim)).expect("open");
    db.put(&key(0), &value(0)).wait().expect("put");
    db.close().expect("close");
    let segment = first_segment(&sim);
    sim.overwrite(&segment, UNIT + 40, &[0xff; 8]);
    expect(&sim, None, "a damaged last put of a closed database");
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}

fn first_segment(sim: &Sim) -> PathBuf {
    sim.paths().into_iter().find(|path| is_segment(path)).expect("a segment")
}
