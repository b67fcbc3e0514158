//! Full disks, failed writes and syncs, futures that are dropped.

use std::future::{Future, IntoFuture, poll_fn};
use std::task::Poll;
use std::time::Duration;

use ourodb::sim::{FaultKind, Faults};

use super::*;

#[test]
fn a_full_disk_fails_the_write_and_nothing_else() {
    let sim = Sim::new(1);
    let keys = keys_of_first_shard(&sim);
    let db = on_sim(&sim);
    db.put(&keys[0], &value(MIB, 1)).wait().unwrap();
    db.put(&keys[1], &value(70 * KIB, 2)).wait().unwrap();
    db.put(&keys[2], b"short").wait().unwrap();
    sim.run_for(1000 * MS);
    let used: u64 = sim.paths().iter().map(|path| sim.file_bytes(path).unwrap().len() as u64).sum();
    sim.set_faults(Faults::default().disk_bytes_max(used + 3 * MIB as u64));
    let before = db.stats();
    for i in 0..20 {
        let len = [4 * MIB, 900 * KIB][usize::from(i > 0)];
        let put = db.put(&keys[3], &value(len, 3)).wait();
        let Err(error) = put else { continue };
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        sim.run_for(10 * MS);
        assert_eq!(db.get(&keys[2]).wait().unwrap().unwrap(), b"short"[..]);
        db.put(&keys[2], b"short").wait().unwrap();
    }
    // What was written in vain is given back.
    let kept = db.get(&keys[3]).wait().unwrap().map_or(0, |value| value.len());
    assert!(kept > 0, "three of the shorter ones fit");
    let stats = db.stats();
    assert!(stats.value_bytes <= before.value_bytes + 4 * 900 * KIB as u64);
    // With room for a table, what is replaced makes more room.
    sim.set_faults(Faults::default().disk_bytes_max(used + (3 * MIB + 64 * KIB) as u64));
    db.flush().wait().unwrap();
    sim.run_for(10 * MS);
    db.put(&keys[3], &value(900 * KIB, 4)).wait().unwrap();
    sim.set_faults(Faults::default());
    db.put(&keys[4], &value(4 * MIB, 5)).wait().unwrap();
    assert_eq!(db.get(&keys[4]).wait().unwrap().unwrap(), value(4 * MIB, 5)[..]);
    assert_eq!(db.get(&keys[0]).wait().unwrap().unwrap(), value(MIB, 1)[..]);
    drop(db);
    sim.kill();
}

/// A long value that took its time on the way to the disk was held up by the disk:
/// what went before its record counts, too. No single request takes long enough.
#[test]
fn the_device_is_what_slows_long_values_down() {
    let sim = Sim::new(1);
    let db = on_sim(&sim);
    db.put(b"warm", &value(MIB, 1)).wait().unwrap();
    let before = db.stats();
    sim.set_faults(Faults::default().delay_ns(12 * MS..=12 * MS));
    let durability = Durability::Relaxed { within: Duration::from_secs(1) };
    db.put(b"key", &value(MIB, 1)).durability(durability).wait().unwrap();
    let after = db.stats();
    assert_eq!(after.slow_writes_device - before.slow_writes_device, 1);
    let others = |stats: &ourodb::Stats| {
        stats.slow_writes_memtable + stats.slow_writes_delayed + stats.slow_writes_log
    };
    assert_eq!(others(&after), others(&before));
    drop(db);
    sim.kill();
}

/// The k-th request fails, for every k, in a few long writes: what is there
/// afterwards is whole, the database goes on, and after the loss of power all
/// that was acknowledged is there.
#[test]
fn failed_writes_and_syncs_fail_their_values_alone() {
    for kind in [FaultKind::Io, FaultKind::NoSpace] {
        for k in 1.. {
            let sim = Sim::new(k);
            let keys = keys_of_first_shard(&sim);
            let db = on_sim(&sim);
            db.put(&keys[0], &value(70 * KIB, 0)).wait().unwrap();
            sim.run_for(1000 * MS);
            sim.set_faults(Faults::default().fail_kth(k, kind, false));
            let mut model = Model::new();
            model.insert(keys[0].clone(), value(70 * KIB, 0));
            let mut unknown = Vec::new();
            for (i, len) in [70 * KIB, 300 * KIB, MIB + 1, 70 * KIB].into_iter().enumerate() {
                let (key, value) = (keys[i + 1].clone(), value(len, i as u8));
                match db.put(&key, &value).wait() {
                    Ok(()) => drop(model.insert(key, value)),
                    Err(_) => unknown.push((key, value)),
                }
            }
            let is_over = sim.faults_injected() == 0;
            sim.set_faults(Faults::default());
            for (key, value) in &model {
                assert_eq!(db.get(key).wait().unwrap().unwrap(), value[..], "{kind:?} at {k}");
            }
            drop(db);
            sim.power_cut();
            let db = on_sim(&sim);
            for (key, value) in unknown {
                if db.get(&key).wait().unwrap().as_deref() == Some(&value[..]) {
                    model.insert(key, value);
                }
            }
            assert_same(&db, &model);
            sim.run_for(50 * MS);
            assert_eq!(value_files(&sim).len() as u64, db.stats().value_files);
            drop(db);
            sim.kill();
            if is_over {
                assert!(k > if kind == FaultKind::Io { 14 } else { 8 }, "{kind:?}: {k} requests");
                break;
            }
        }
    }
}

/// The sync of a file that several values wait for fails: so do all of them,
/// and the file takes no more.
#[test]
fn a_failed_sync_fails_every_value_that_waits_for_it() {
    let sim = Sim::new(1);
    let keys = keys_of_first_shard(&sim);
    let db = on_sim(&sim);
    db.put(&keys[0], &value(70 * KIB, 0)).wait().unwrap();
    sim.run_for(1000 * MS);
    let value = value(70 * KIB, 1);
    let mut puts: Vec<_> =
        keys[1..6].iter().map(|key| Box::pin(db.put(key, &value).into_future())).collect();
    // Five writes go well, then comes the sync.
    sim.set_faults(Faults::default().fail_kth(6, FaultKind::Io, false));
    let outcomes: Vec<_> = sim.block_on(async {
        let mut outcomes: Vec<Option<ourodb::Result<()>>> = vec![None; 5];
        poll_fn(|cx| {
            for (put, outcome) in puts.iter_mut().zip(&mut outcomes) {
                if outcome.is_none()
                    && let Poll::Ready(result) = put.as_mut().poll(cx)
                {
                    *outcome = Some(result);
                }
            }
            if outcomes.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        outcomes.into_iter().flatten().collect()
    });
    drop(puts);
    assert_eq!(sim.faults_injected(), 1);
    for outcome in &outcomes {
        let error = outcome.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("not durable"), "{error}");
    }
    assert_eq!(db.stats().value_files, 1);
    db.put(&keys[6], &value).wait().unwrap();
    assert_eq!(db.stats().value_files, 2);
    let model: Model =
        [(keys[0].clone(), super::value(70 * KIB, 0)), (keys[6].clone(), value)].into();
    assert_same(&db, &model);
    drop(db);
    sim.power_cut();
    assert_same(&on_sim(&sim), &model);
    sim.kill();
}

#[test]
fn writers_of_one_time_share_syncs() {
    let sim = Sim::new(1);
    let keys = keys_of_first_shard(&sim);
    let db = on_sim(&sim);
    db.put(&keys[0], &value(70 * KIB, 0)).wait().unwrap();
    sim.run_for(1000 * MS);
    let before = db.stats();
    for key in &keys[1..17] {
        let (db, key) = (db.clone(), key.clone());
        sim.spawn(async move { db.put(&key, &value(70 * KIB, 1)).await.unwrap() });
    }
    sim.run_for(1000 * MS);
    let after = db.stats();
    assert_eq!(after.puts - before.puts, 16);
    assert!(after.device_syncs - before.device_syncs <= 8);
    drop(db);
    sim.kill();
}

/// Dropped after any number of polls, a put leaves nothing that takes space.
#[test]
fn a_dropped_put_leaves_no_space_taken() {
    for len in [70 * KIB, 300 * KIB, 2 * MIB] {
        for polls in 0.. {
            let sim = Sim::new(polls);
            let keys = keys_of_first_shard(&sim);
            let db = on_sim(&sim);
            db.put(&keys[0], &value(70 * KIB, 0)).wait().unwrap();
            sim.run_for(MS);
            let bytes = db.stats().value_bytes;
            let long = value(len, 1);
            let mut put = Box::pin(db.put(&keys[1], &long).into_future());
            let mut left = polls;
            let outcome = sim.block_on(poll_fn(|cx| {
                if left == 0 {
                    return Poll::Ready(None);
                }
                left -= 1;
                put.as_mut().poll(cx).map(Some)
            }));
            drop(put);
            sim.run_for(50 * MS);
            let is_there = db.get(&keys[1]).wait().unwrap().is_some();
            let taken = if is_there { len.next_multiple_of(4096) as u64 } else { 0 };
            assert_eq!(db.stats().value_bytes, bytes + taken, "after {polls} polls");
            assert_eq!(value_files(&sim).len() as u64, db.stats().value_files);
            // Others go on.
            db.put(&keys[2], &value(70 * KIB, 2)).wait().unwrap();
            drop(db);
            sim.power_cut();
            let db = on_sim(&sim);
            assert_eq!(db.get(&keys[2]).wait().unwrap().unwrap(), value(70 * KIB, 2)[..]);
            let found = db.get(&keys[1]).wait().unwrap();
            assert!(found.is_none_or(|found| found == long[..]));
            drop(db);
            sim.kill();
            if outcome.is_some() {
                assert!(is_there && polls > 2);
                break;
            }
        }
    }
}
