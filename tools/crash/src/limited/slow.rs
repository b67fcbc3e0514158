//! A disk that is held back, and then slow: what is in memory can be read all the
//! while, memory stays within its bounds, and in the end all writes are there.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ourodb::{Batch, Db, Durability};

use super::{CLIENTS, Counts, Outcome, check_counts, key, must, open_with, options, say, value};

/// Said when there is something to read in memory, and the disk is to be held back.
pub(crate) const LOADED: &str = "loaded";
/// Said when it was read with the disk held back, which is then to be slow.
pub(crate) const READ: &str = "read";

/// How slow. All that is written takes seconds.
pub(crate) const BYTES_PER_S: u64 = 32 << 20;

/// Of the database, and what the process may have beyond that: 5 % of it, and what
/// `Options::memory` states for the program, its stacks and its allocator.
const MEMORY_BYTES: u64 = 8 << 20;
const RESIDENT_BYTES_MAX: u64 = MEMORY_BYTES + MEMORY_BYTES / 20 + (32 << 20);

/// What is read: a part of a memtable.
const LOADED_RECORDS: u64 = 50;
/// What each client writes: all together more than the process may have.
const RECORDS: u64 = 3200;
const VALUE_BYTES: u64 = 4050;
const BATCH_RECORDS: usize = 16;
const _: () = assert!(CLIENTS as u64 * RECORDS * VALUE_BYTES > RESIDENT_BYTES_MAX);

/// Writers wait for the disk when none comes on while all is read so often, and for so long:
/// one that is slowed down comes on within a second.
const ROUNDS: u32 = 100;
const STILL: Duration = Duration::from_secs(2);

/// Meets it, in the cgroup that is joined by this file.
pub(super) fn meet(join: &Path, durability: Durability) -> Outcome {
    std::fs::write(join, "0").map_err(|error| format!("{}: {error}", join.display()))?;
    // One owner: a batch is of one WAL stream.
    let options = options().memory(MEMORY_BYTES).durability(durability).owners(1);
    let db = open_with(options)?;
    let mut loaded = Counts::default();
    load(&db, &mut loaded)?;
    tell(LOADED)?;
    wait()?;

    let written: [AtomicU64; CLIENTS] = Default::default();
    let writing = AtomicUsize::new(CLIENTS);
    let (outcomes, slow) = thread::scope(|scope| {
        let clients: Vec<_> = written
            .iter()
            .enumerate()
            .map(|(client, count)| {
                let (db, writing) = (&db, &writing);
                scope.spawn(move || {
                    let outcome = write(db, client, count);
                    writing.fetch_sub(1, Ordering::Relaxed);
                    outcome
                })
            })
            .collect();
        let slow = read_meanwhile(&db, &loaded, &written, &writing);
        let joined = clients.into_iter().map(|client| client.join().expect("no client panics"));
        (joined.collect::<Outcome>(), slow)
    });
    outcomes?;
    let Slow { since, written_bytes } = slow?;
    must("a flush", db.flush().wait())?;
    let took = since.elapsed().as_secs_f64();
    let bytes = db.stats().device_write_bytes - written_bytes;
    // It cannot take less, however fast the machine is; half of that shows that the limit
    // bites.
    if took < bytes as f64 / BYTES_PER_S as f64 / 2.0 {
        return Err(format!("{bytes} bytes took {took:.1} s: the disk was not slow"));
    }
    let counts = [RECORDS; CLIENTS];
    check_counts(&db, "loaded", &loaded)?;
    check_counts(&db, "slow", &counts)?;
    say("loaded", &loaded);
    say("slow", &counts);
    must("closing", db.close())?;
    let resident = resident_bytes_max().ok_or("the kernel does not say what memory there was")?;
    match resident <= RESIDENT_BYTES_MAX {
        true => Ok(()),
        false => Err(format!("it had {resident} bytes of memory, beyond {RESIDENT_BYTES_MAX}")),
    }
}

fn load(db: &Db, counts: &mut Counts) -> Outcome {
    for (client, count) in counts.iter_mut().enumerate() {
        while *count < LOADED_RECORDS {
            let (key, value) = (key("loaded", client, *count), value(client, *count));
            must("a put", db.put(&key, &value).wait())?;
            *count += 1;
        }
    }
    Ok(())
}

fn write(db: &Db, client: usize, written: &AtomicU64) -> Outcome {
    for first in (0..RECORDS).step_by(BATCH_RECORDS) {
        let mut batch = Batch::new();
        for number in first..first + BATCH_RECORDS as u64 {
            batch.put(&key("slow", client, number), &value(client, number));
        }
        must("a batch", db.write(batch).wait())?;
        written.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// From when on the disk was slow, and what had been written to it by then.
struct Slow {
    since: Instant,
    written_bytes: u64,
}

/// Reads while the disk is held back, until all writers wait for it, and then until they
/// have come to their end.
fn read_meanwhile(
    db: &Db,
    loaded: &Counts,
    written: &[AtomicU64],
    writing: &AtomicUsize,
) -> Outcome<Slow> {
    let sum = || written.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
    let (mut last, mut rounds, mut since) = (0, 0, Instant::now());
    while rounds < ROUNDS || since.elapsed() < STILL {
        check_counts(db, "loaded", loaded)?;
        let now = sum();
        rounds += 1;
        if now != last {
            (last, rounds, since) = (now, 0, Instant::now());
        }
    }
    if writing.load(Ordering::Relaxed) < CLIENTS {
        return Err("clients came to their end although the disk was held back".to_owned());
    }
    let slow = Slow { since: Instant::now(), written_bytes: db.stats().device_write_bytes };
    tell(READ)?;
    while writing.load(Ordering::Relaxed) > 0 {
        check_counts(db, "loaded", loaded)?;
    }
    Ok(slow)
}

pub(super) fn tell(line: &str) -> Outcome {
    println!("{line}");
    io::stdout().flush().map_err(|error| error.to_string())
}

/// Waits until it may go on.
pub(super) fn wait() -> Outcome {
    io::stdin().read_line(&mut String::new()).map(drop).map_err(|error| error.to_string())
}

/// The most memory that the process ever had.
fn resident_bytes_max() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(kib.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}
