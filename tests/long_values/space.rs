//! The space of values that were replaced or deleted comes back, and not before
//! nobody can read them any more.

use std::future::{Future, IntoFuture, poll_fn};
use std::os::unix::fs::MetadataExt;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::*;

#[test]
fn replaced_and_deleted_values_give_their_space_back() {
    let sim = Sim::new(1);
    let keys = keys_of_first_shard(&sim);
    let db = on_sim(&sim);
    // One in a file of its own, four that share one.
    let lens = [MIB, 70 * KIB, 300 * KIB, 80 * KIB, 90 * KIB];
    for (key, len) in keys.iter().zip(lens) {
        db.put(key, &value(len, 1)).wait().unwrap();
    }
    let bytes: usize = lens.iter().map(|len| len.next_multiple_of(4096)).sum();
    let stats = db.stats();
    assert_eq!((stats.value_files, stats.value_bytes), (2, bytes as u64));
    let shared = value_files(&sim)
        .into_iter()
        .find(|path| sim.file_bytes(path).unwrap().len() < MIB)
        .unwrap();
    // Replaced within one memtable; deleted: both left out by one flush.
    db.put(&keys[0], b"x").wait().unwrap();
    db.delete(&keys[2]).wait().unwrap();
    db.flush().wait().unwrap();
    sim.run_for(10 * MS);
    let stats = db.stats();
    assert_eq!((stats.value_files, stats.value_bytes), (1, (bytes - MIB - 300 * KIB) as u64));
    assert_eq!(value_files(&sim), std::slice::from_ref(&shared));
    // The middle of the shared file is a hole.
    let content = sim.file_bytes(&shared).unwrap();
    let start = 4096 + 72 * KIB;
    assert!(content[start..start + 300 * KIB].iter().all(|byte| *byte == 0));
    assert_eq!(&content[4096..4096 + 70 * KIB], value(70 * KIB, 1));
    assert_eq!(&content[start + 300 * KIB..][..80 * KIB], value(80 * KIB, 1));
    drop(db);
    sim.kill();
    // The next opening knows as much, and does not do it again.
    let db = on_sim(&sim);
    sim.run_for(10 * MS);
    assert_eq!(db.stats().value_bytes, (bytes - MIB - 300 * KIB) as u64);
    for (at, len) in [(1, lens[1]), (3, lens[3]), (4, lens[4])] {
        assert_eq!(db.get(&keys[at]).wait().unwrap().unwrap(), value(len, 1)[..]);
    }
    drop(db);
    // As if somebody had the place again.
    sim.overwrite(&shared, start as u64, b"x");
    let db = on_sim(&sim);
    sim.run_for(10 * MS);
    assert_eq!(sim.file_bytes(&shared).unwrap()[start], b'x');
    drop(db);
    sim.kill();
}

/// A reader that has found the reference reads the value, whatever happens
/// before it has the file open; and then its space comes back.
#[test]
fn a_read_under_way_keeps_its_value() {
    let value = |own| if own { value(MIB, 1) } else { value(100 * KIB, 2) };
    for (own, polls) in [false, true].into_iter().flat_map(|own| (0..12).map(move |n| (own, n))) {
        let sim = Sim::new(polls);
        let keys = keys_of_first_shard(&sim);
        let db = on_sim(&sim);
        db.put(&keys[0], &value(own)).wait().unwrap();
        db.put(&keys[1], &value(own)).wait().unwrap();
        // No file is open then.
        db.close().unwrap();
        drop(db);
        let db = on_sim(&sim);
        let before = db.stats().value_bytes;
        let mut get = Box::pin(db.get(&keys[0]).into_future());
        let mut left = polls;
        let early = sim.block_on(poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            get.as_mut().poll(cx).map(Some)
        }));
        db.put(&keys[0], b"new").wait().unwrap();
        db.flush().wait().unwrap();
        sim.run_for(50 * MS);
        let is_held = early.is_none() && polls > 0;
        assert_eq!(db.stats().value_bytes == before, is_held, "after {polls} polls");
        let found = match early {
            Some(found) => found,
            None => sim.block_on(get.as_mut()),
        };
        let found = found.unwrap().unwrap();
        assert!(if polls == 0 { found == b"new"[..] } else { found == value(own)[..] });
        drop(get);
        sim.run_for(50 * MS);
        assert_eq!(db.stats().value_bytes, before / 2, "after {polls} polls");
        assert_eq!(db.get(&keys[1]).wait().unwrap().unwrap(), value(own)[..]);
        drop(db);
        sim.kill();
    }
}

/// A walk over rows keeps every value that its view refers to. One over keys reads
/// none of them, and keeps only those that its snapshot sees.
#[test]
fn a_walk_over_keys_holds_no_values_that_were_replaced() {
    let sim = Sim::new(1);
    let keys = keys_of_first_shard(&sim);
    let db = on_sim(&sim);
    let long = value(100 * KIB, 1);
    let put = |number: usize, value: &[u8]| db.put(&keys[number], value).wait().unwrap();
    let given_back_beside = |keys_only: bool| {
        put(1, &long);
        put(1, b"short");
        let before = db.stats().value_bytes;
        let scan = db.scan(..);
        let mut walk: Box<dyn Iterator<Item = bool>> = if keys_only {
            Box::new(scan.keys().iter().map(|key| key.is_ok()))
        } else {
            Box::new(scan.iter().map(|row| row.is_ok()))
        };
        assert_eq!(walk.next(), Some(true));
        db.flush().wait().unwrap();
        sim.run_for(50 * MS);
        let meanwhile = db.stats().value_bytes;
        assert!(walk.eq([true]), "it is sound to its end");
        sim.run_for(50 * MS);
        assert_eq!(db.stats().value_bytes, before - 100 * KIB as u64);
        before - meanwhile
    };
    put(0, &long);
    assert_eq!(given_back_beside(false), 0);
    assert_eq!(given_back_beside(true), 100 * KIB as u64);
    assert_eq!(db.get(&keys[0]).wait().unwrap().unwrap(), long[..]);
    drop(db);
    sim.kill();
}

/// What a commit dropped, and nobody had given back when the machine crashed,
/// the next opening gives back.
#[test]
fn the_next_opening_finishes_what_a_crash_left() {
    for power_cut in [false, true] {
        let sim = Sim::new(1);
        let keys = keys_of_first_shard(&sim);
        let db = on_sim(&sim);
        for (i, len) in [70 * KIB, 80 * KIB, MIB].into_iter().enumerate() {
            db.put(&keys[i], &value(len, 1)).wait().unwrap();
        }
        // It came before, and holds what it may read.
        let mut rows = db.scan(..).iter();
        rows.next().unwrap().unwrap();
        let holds = db.stats().value_bytes;
        db.put(&keys[3], &value(90 * KIB, 1)).wait().unwrap();
        db.put(&keys[3], b"x").wait().unwrap();
        db.flush().wait().unwrap();
        sim.run_for(50 * MS);
        assert_eq!(db.stats().value_bytes, holds + 92 * KIB as u64);
        let [own, shared] = &value_files(&sim)[..] else { panic!("two files") };
        let shared = if sim.file_bytes(own).unwrap().len() > MIB { shared } else { own };
        let hole = |sim: &Sim| sim.file_bytes(shared).unwrap()[4096 + 152 * KIB..].to_vec();
        assert!(hole(&sim).iter().any(|byte| *byte != 0));
        // No turn for the owner once the reader lets go.
        if power_cut {
            sim.power_cut();
        } else {
            sim.kill();
        }
        drop(rows);
        drop(db);
        let db = on_sim(&sim);
        sim.run_for(50 * MS);
        assert_eq!(db.stats().value_bytes, holds);
        let hole = hole(&sim);
        assert!(hole.len() == 92 * KIB && hole.iter().all(|byte| *byte == 0));
        drop(db);
        sim.kill();
    }
}

/// The same on a real file system: as many blocks as there is data.
#[test]
fn blocks_come_back_to_the_file_system() {
    for io in [IoBackend::Ring, IoBackend::Blocking] {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), options(io).shards(1)).unwrap();
        db.put(b"own", &value(3 * MIB, 1)).wait().unwrap();
        for i in 0..10u8 {
            db.put(&[i], &value(500 * KIB, i)).wait().unwrap();
        }
        let shard = dir.path().join("shard-000");
        let blocks = || -> Vec<u64> {
            let files = std::fs::read_dir(&shard).unwrap().map(|entry| entry.unwrap().path());
            let files = files.filter(|path| path.extension().is_some_and(|e| e == "val"));
            let mut bytes: Vec<u64> = files.map(|f| f.metadata().unwrap().blocks() * 512).collect();
            bytes.sort_unstable();
            bytes
        };
        let before = blocks();
        assert_eq!(before.len(), 2);
        db.delete(b"own").wait().unwrap();
        for i in 0..10u8 {
            if i != 4 {
                db.put(&[i], b"short").wait().unwrap();
            }
        }
        db.flush().wait().unwrap();
        let start = Instant::now();
        while blocks().len() != 1 || blocks()[0] > 600 << 10 {
            assert!(start.elapsed() < Duration::from_secs(60), "in vain: {:?}", blocks());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(db.get(&[4]).wait().unwrap().unwrap(), value(500 * KIB, 4)[..]);
        assert_eq!(db.stats().value_bytes, 500 * KIB as u64);
    }
}
