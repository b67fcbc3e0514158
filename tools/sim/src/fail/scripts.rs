//! What is done to the database while requests fail: scripts that differ in the
//! paths they take through the engine. The first ones say the most.

use std::time::Duration;

use ourodb::{Compaction, Compression, Durability, Options};

use super::play::{Play, Played, SECOND_NS};

/// Keys of most scripts.
const KEYS: usize = 20;

/// A value that is in a value file.
const LONG: usize = 66_000;

/// A piece of a life of a database.
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) options: fn() -> Options,
    pub(crate) names: fn() -> Vec<Vec<u8>>,
    pub(crate) run: fn(&mut Play) -> Played,
}

const fn script(name: &'static str, run: fn(&mut Play) -> Played) -> Script {
    Script { name, options: tiny, names: short_names, run }
}

const fn with(options: fn() -> Options, script: Script) -> Script {
    Script { options, ..script }
}

pub(crate) const SCRIPTS: [Script; 20] = [
    script("everything", everything),
    with(elsewhere, script("crashes", crashes)),
    script("values", values),
    script("new-database", new_database),
    script("recover-durable", recover_durable),
    script("recover-process", recover_process),
    script("power-cut", power_cut),
    with(leveled, script("leveled", overwritten)),
    with(tiered, script("tiered", overwritten)),
    with(fifo, script("fifo", overwritten)),
    script("ranges", ranges),
    script("log", log),
    Script { options: roomy, names: long_names, ..script("manifests", manifests) },
    with(partitioned, script("partitioned", reads)),
    with(compressed, script("compressed", reads)),
    script("batches", batches),
    script("futures", futures),
    script("iterators", iterators),
    script("deletes", deletes),
    script("sessions", sessions),
];

/// Tiny limits, so that rare paths run often.
fn tiny() -> Options {
    Options::default()
        .shards(2)
        .memory(8 << 20)
        .memtable_bytes(4096)
        .wal_segment_bytes(16 << 10)
        .cache_bytes(48 << 10)
        .table_bytes(64 << 10)
}

/// Mappings of the log go into a directory of their own.
fn elsewhere() -> Options {
    tiny().map_dir("/")
}

fn leveled() -> Options {
    tiny().shards(1).levels(3).size_ratio(2)
}

fn tiered() -> Options {
    tiny().shards(1).compaction(Compaction::Tiered).size_ratio(2)
}

fn fifo() -> Options {
    // Nothing is ever beyond it.
    tiny().shards(1).compaction(Compaction::Fifo { max_bytes: Some(1 << 40), max_age: None })
}

fn roomy() -> Options {
    Options::default()
        .shards(1)
        .memory(16 << 20)
        .memtable_bytes(256 << 10)
        .wal_segment_bytes(512 << 10)
}

fn partitioned() -> Options {
    tiny().shards(1).pinned_bytes(0).cache_bytes(0)
}

fn compressed() -> Options {
    tiny().shards(1).compression(Compression::Lz4)
}

fn short_names() -> Vec<Vec<u8>> {
    (0..KEYS).map(|key| format!("key-{key:02}").into_bytes()).collect()
}

/// Keys that stand in manifests, where tables end.
fn long_names() -> Vec<Vec<u8>> {
    (0..4).map(|key| vec![b'a' + key; 45_000]).collect()
}

/// Opens, writes, flushes, compacts, recovers with other owners, closes.
fn everything(play: &mut Play) -> Played {
    play.open(1)?;
    for i in 0..16 {
        play.put(i * 7 % KEYS, if i % 8 == 4 { LONG } else { 900 })?;
        if i % 6 == 5 {
            play.flush()?;
        }
    }
    play.delete(3)?;
    play.delete_range(5..8)?;
    play.check()?;
    play.compact()?;
    play.kill();
    play.open(2)?;
    play.write(&[(1, Some(200)), (9, None), (12, Some(300)), (15, Some(50))])?;
    play.check()?;
    play.close()
}

/// Each life ends in another way, with writes of each durability.
fn crashes(play: &mut Play) -> Played {
    let relaxed = Durability::Relaxed { within: Duration::from_millis(20) };
    for (life, durability) in
        [Durability::ProcessSafe, relaxed, Durability::Durable, Durability::ProcessSafe]
            .into_iter()
            .enumerate()
    {
        play.open(1 + life % 2)?;
        play.durability = durability;
        for i in 0..6 {
            play.put((life * 3 + i) % KEYS, 700)?;
            // Then there is a mapping.
            if i == 1 {
                play.rest(50_000_000);
            }
        }
        play.durability = Durability::Durable;
        play.put(life, 100)?;
        play.check()?;
        if life % 2 == 0 { play.kill() } else { play.power_cut() }
    }
    play.open(1)?;
    play.close()
}

/// Long values: written, overwritten, deleted, merged; their space comes back.
fn values(play: &mut Play) -> Played {
    play.open(1)?;
    for round in 0..2 {
        for key in 0..3 {
            play.put(key, LONG + round * 4096)?;
        }
        play.put(10 + round, 300)?;
        play.flush()?;
    }
    play.delete(1)?;
    play.write(&[(4, Some(LONG)), (5, Some(LONG + 70_000)), (6, Some(10))])?;
    play.check()?;
    play.compact()?;
    play.rest(2 * SECOND_NS);
    play.kill();
    play.open(2)?;
    play.put(0, LONG)?;
    play.check()?;
    play.close()
}

fn new_database(play: &mut Play) -> Played {
    play.open(2)?;
    play.put(0, 100)?;
    play.get(0)?;
    play.close()?;
    play.open(1)?;
    play.get(0)?;
    play.close()
}

/// What was acknowledged as durable is replayed.
fn recover_durable(play: &mut Play) -> Played {
    for life in 0..3 {
        play.open(1 + life % 2)?;
        for i in 0..5 {
            play.put((life * 4 + i) % KEYS, 600)?;
        }
        play.kill();
    }
    play.open(2)?;
    play.check()
}

/// What is in mappings only is.
fn recover_process(play: &mut Play) -> Played {
    let relaxed = Durability::Relaxed { within: Duration::from_millis(5) };
    for (life, durability) in [Durability::ProcessSafe, relaxed].into_iter().enumerate() {
        play.open(1)?;
        play.durability = durability;
        play.put(life, 100)?;
        play.rest(100_000_000);
        for i in 0..8 {
            play.put((life * 4 + i) % KEYS, 900)?;
        }
        play.kill();
    }
    play.open(2)?;
    play.check()?;
    play.rest(2 * SECOND_NS);
    play.close()
}

/// Power is lost with tables, log, and values half way.
fn power_cut(play: &mut Play) -> Played {
    for life in 0..3 {
        play.open(1)?;
        play.durability = Durability::ProcessSafe;
        for i in 0..7 {
            play.put((life * 5 + i) % KEYS, if i == 4 { LONG } else { 800 })?;
        }
        play.durability = Durability::Durable;
        play.put(19, 100)?;
        play.power_cut();
    }
    play.open(2)?;
    play.check()
}

/// Tables that hide each other, until they are merged.
fn overwritten(play: &mut Play) -> Played {
    play.open(1)?;
    for round in 0..6 {
        for i in 0..4 {
            play.put((round + i * 3) % KEYS, 900)?;
        }
        play.flush()?;
    }
    play.check()?;
    play.rest(3 * SECOND_NS);
    play.compact()?;
    play.check()?;
    play.close()?;
    play.open(1)?;
    play.check()?;
    play.close()
}

fn ranges(play: &mut Play) -> Played {
    play.open(1)?;
    for key in 0..12 {
        play.put(key, 500)?;
    }
    play.delete_range(2..6)?;
    play.flush()?;
    play.put(4, 300)?;
    play.delete_range(3..9)?;
    play.check()?;
    play.kill();
    play.open(2)?;
    play.put(5, 200)?;
    play.delete_range(0..1)?;
    play.flush()?;
    play.check()?;
    play.compact()?;
    play.rest(2 * SECOND_NS);
    play.check()?;
    play.close()
}

/// So much log that segments are used again.
fn log(play: &mut Play) -> Played {
    play.open(1)?;
    for i in 0..24 {
        play.put(i % KEYS, 2500)?;
        if i % 8 == 7 {
            play.rest(20_000_000);
        }
    }
    play.check()?;
    play.durability = Durability::ProcessSafe;
    for i in 0..12 {
        play.put(i % KEYS, 2500)?;
    }
    play.rest(12 * SECOND_NS);
    play.put(0, 100)?;
    play.power_cut();
    play.open(1)?;
    play.check()?;
    play.close()
}

/// A manifest that has grown so long that it is replaced.
fn manifests(play: &mut Play) -> Played {
    play.open(1)?;
    for i in 0..14 {
        play.put(i % 4, 10)?;
        play.put((i + 1) % 4, 10)?;
        play.flush()?;
    }
    play.check()?;
    play.kill();
    play.open(1)?;
    play.check()?;
    play.close()
}

/// Tables that are read again and again, with little in memory.
fn reads(play: &mut Play) -> Played {
    play.open(1)?;
    for i in 0..14 {
        play.put(i, 400)?;
        if i % 7 == 6 {
            play.flush()?;
        }
    }
    play.check()?;
    play.multi_get(0..KEYS)?;
    play.compact()?;
    play.check()?;
    play.close()?;
    play.open(1)?;
    play.check()?;
    play.kill();
    play.open(1)?;
    play.check()
}

/// Batches over both shards.
fn batches(play: &mut Play) -> Played {
    play.open(1)?;
    for i in 0..8 {
        let key = |n: usize| (i * 3 + n) % KEYS;
        play.write(&[
            (key(0), Some(300)),
            (key(5), Some(20)),
            (key(9), None),
            (key(13), Some(600)),
        ])?;
        if i == 4 {
            play.check()?;
            play.durability = Durability::ProcessSafe;
        }
    }
    play.kill();
    play.open(2)?;
    play.check()?;
    play.write(&[(0, Some(100)), (1, Some(LONG)), (2, None)])?;
    play.close()
}

fn futures(play: &mut Play) -> Played {
    play.open(2)?;
    play.put_together(0..KEYS, 300)?;
    play.multi_get(0..KEYS)?;
    play.durability = Durability::ProcessSafe;
    play.put_together(5..15, 500)?;
    play.put_together(0..3, LONG)?;
    play.multi_get(0..KEYS)?;
    play.flush()?;
    play.multi_get(0..KEYS)?;
    play.power_cut();
    play.open(2)?;
    play.multi_get(0..KEYS)?;
    play.close()
}

/// Scans that were begun see what there was, whatever happens meanwhile.
fn iterators(play: &mut Play) -> Played {
    play.open(1)?;
    for i in 0..10 {
        play.put(i, 600)?;
    }
    let forward = play.begin_scan(false, 2)?;
    play.flush()?;
    for i in 5..14 {
        play.put(i, 600)?;
    }
    play.delete_range(0..4)?;
    let backward = play.begin_scan(true, 3)?;
    play.flush()?;
    play.compact()?;
    play.rest(2 * SECOND_NS);
    play.end_scan(forward)?;
    play.put(1, 100)?;
    play.end_scan(backward)?;
    play.check()?;
    play.close()
}

/// What is written is deleted, until hardly anything is left.
fn deletes(play: &mut Play) -> Played {
    play.open(1)?;
    for round in 0..2 {
        for key in 0..12 {
            play.put(key, 400)?;
        }
        play.flush()?;
        for key in (round..12).rev() {
            play.delete(key)?;
        }
        play.rest(3 * SECOND_NS);
        play.check()?;
    }
    play.flush()?;
    play.compact()?;
    play.check()?;
    play.power_cut();
    play.open(1)?;
    play.check()
}

/// Short lives, one after the other.
fn sessions(play: &mut Play) -> Played {
    for life in 0..6 {
        play.open(1 + life % 2)?;
        play.put(life, 500)?;
        play.get(life / 2)?;
        play.close()?;
    }
    play.open(1)?;
    play.check()?;
    play.close()
}
