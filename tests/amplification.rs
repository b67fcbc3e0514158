//! What statistics say of read, write and space amplification, against what was
//! done; most of it right after an opening, too.

mod common;

use common::tiny;
use ourodb::sim::Sim;
use ourodb::{Db, Durability, Options, Stats};

/// Keys of a round; each is written by every round.
const KEYS: u32 = 20_000;
const VALUE_BYTES: usize = 100;

fn options(sim: &Sim) -> Options {
    tiny(sim).shards(1).owners(1).memtable_bytes(8 << 20).wal_segment_bytes(4 << 20)
}

fn open(sim: &Sim) -> Db {
    Db::open("/db", options(sim)).expect("open")
}

/// Writes all keys, and flushes them into one table.
fn round(db: &Db, number: u8) {
    let mut batch = ourodb::Batch::new();
    for i in 0..KEYS {
        batch.put(&i.to_be_bytes(), &[number; VALUE_BYTES]);
        if batch.bytes() > 100_000 {
            db.write(std::mem::take(&mut batch)).wait().expect("a write");
        }
    }
    db.write(batch).wait().expect("a write");
    db.flush().wait().expect("a flush");
}

/// As near as a sample of one key in 64 comes.
fn is_about(found: Option<f64>, expected: f64) -> bool {
    found.is_some_and(|found| (found / expected - 1.0).abs() < 0.15)
}

#[test]
fn garbage_and_runs_are_known_whoever_opened_the_database() {
    let sim = Sim::new(1);
    let db = open(&sim);
    let empty = db.stats();
    assert_eq!((empty.read_amplification(), empty.space_amplification()), (None, None));
    assert_eq!((empty.write_amplification(), empty.cache_hit_ratio()), (None, None));

    // Each round hides the ones before, until they are merged.
    let mut stats = Stats::default();
    for number in 1..=3 {
        round(&db, number);
        stats = db.stats();
        assert_eq!(stats.levels[0].runs, u64::from(number), "{stats}");
        assert_eq!(stats.read_amplification(), Some(f64::from(number)));
        assert!(is_about(stats.space_amplification(), f64::from(number)), "{stats}");
    }
    db.close().expect("a close");
    drop(db);

    let db = open(&sim);
    let opened = db.stats();
    assert_eq!(opened.levels, stats.levels);
    assert_eq!(opened.garbage_bytes, stats.garbage_bytes);
    assert_eq!(opened.read_amplification(), stats.read_amplification());
    assert_eq!(opened.write_amplification(), None, "nothing was put");

    db.compact(..).wait().expect("a compaction");
    let stats = db.stats();
    assert_eq!((stats.read_amplification(), stats.space_amplification()), (Some(1.0), Some(1.0)));
    assert_eq!((stats.garbage_bytes, stats.compaction_debt_bytes), (0, 0));

    // Deletes hide all there is, and are garbage themselves.
    for i in 0..KEYS / 2 {
        db.delete(&i.to_be_bytes()).wait().expect("a delete");
    }
    db.flush().wait().expect("a flush");
    let stats = db.stats();
    let live = u64::from(KEYS) / 2 * VALUE_BYTES as u64;
    let used = stats.table_bytes - stats.garbage_bytes;
    assert!(used > live / 2 && used < live * 3 / 2, "{stats}");
    db.compact(..).wait().expect("a compaction");
    assert_eq!(db.stats().space_amplification(), Some(1.0));
}

/// Several shards: lookups ask the runs of one.
#[test]
fn read_amplification_is_the_mean_of_the_shards() {
    let sim = Sim::new(2);
    let db = Db::open("/db", options(&sim).shards(4)).expect("open");
    db.put(b"a", b"1").wait().expect("a put");
    db.flush().wait().expect("a flush");
    let stats = db.stats();
    assert_eq!((stats.levels[0].runs, stats.read_amplification()), (1, Some(0.25)));
}

#[test]
fn write_amplification_is_of_all_bytes_and_of_this_opening() {
    let sim = Sim::new(3);
    let db = open(&sim);
    round(&db, 1);
    let stats = db.stats();
    assert_eq!(stats.put_bytes, u64::from(KEYS) * (4 + VALUE_BYTES as u64));
    let expected = stats.device_write_bytes as f64 / stats.put_bytes as f64;
    assert_eq!(stats.write_amplification(), Some(expected));
    // The log, and the table.
    assert!(expected > 2.0, "{stats}");
    let before = stats.write_amplification();
    db.compact(..).wait().expect("a compaction");
    assert!(db.stats().write_amplification() >= before);
}

/// A load of new keys in no order that is some dozen times as long as its memtables.
#[test]
fn a_byte_is_written_a_few_times() {
    let sim = Sim::new(4);
    let options = tiny(&sim).shards(1).owners(1).memtable_bytes(512 << 10);
    let options = options.wal_segment_bytes(256 << 10).cache_bytes(1 << 20);
    let db = Db::open("/db", options).expect("open");
    for i in 0..40_000u32 {
        let key = format!("{:024}", i.wrapping_mul(2_654_435_761));
        db.put(key.as_bytes(), &[i as u8; 400])
            .durability(Durability::ProcessSafe)
            .wait()
            .expect("a put");
    }
    db.flush().wait().expect("a flush");
    sim.run_for(60_000_000_000);
    let stats = db.stats();
    let written = stats.write_amplification().expect("there were puts");
    assert!(written > 3.0 && written < 4.4, "{written} {stats}");
    // All of it is live, and the log is needed no more.
    let at_rest = stats.table_bytes as f64 / stats.put_bytes as f64;
    assert!(at_rest < 1.12, "{at_rest} {stats}");
}

/// One `name: value` a line, whatever it is; each name once.
#[test]
fn statistics_are_printed_with_one_name_and_number_a_line() {
    let sim = Sim::new(4);
    let db = open(&sim);
    round(&db, 1);
    for i in 0..10u32 {
        db.get(&i.to_be_bytes()).wait().expect("a get");
    }
    let stats = db.stats();
    let text = stats.to_string();
    let mut names: Vec<&str> = Vec::new();
    for line in text.lines() {
        let (name, value) = line.split_once(": ").expect("a name and a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        names.push(name);
    }
    for name in
        ["read_amplification", "space_amplification", "write_amplification", "cache_hit_ratio"]
    {
        assert!(names.contains(&name), "{name}: {text}");
    }
    let counts = stats.fields().len() + stats.ratios().len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), counts);
    assert!(text.lines().nth(12).is_some_and(|line| line.starts_with("level_0_")), "{text}");
}
