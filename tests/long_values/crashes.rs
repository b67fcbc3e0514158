//! Crashes at every point of a long write, and of what follows it.

use super::*;

/// Keys, each with the values it may have.
type Possible = std::collections::BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>>;

/// Everything that happens to long values, once. What is under way when the
/// machine crashes is possible, what was acknowledged is certain.
fn script(db: &Db, keys: &[Vec<u8>], known: &mut Possible) {
    let mut write = |writes: &[(usize, Option<usize>)], seed: u8| {
        let mut batch = Batch::new();
        for (at, len) in writes {
            let key = &keys[*at];
            let value = len.map(|len| value(len, seed));
            match &value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            };
            known.entry(key.clone()).or_insert_with(|| vec![None]).push(value);
        }
        db.write(batch).wait().unwrap();
        for (at, _) in writes {
            let possible = known.get_mut(&keys[*at]).unwrap();
            possible.drain(..possible.len() - 1);
        }
    };
    write(&[(0, Some(70 * KIB))], 1);
    write(&[(1, Some(MIB + 1))], 2);
    write(&[(2, Some(300 * KIB)), (3, Some(10)), (4, Some(MIB)), (5, Some(66 * KIB))], 3);
    db.flush().wait().unwrap();
    write(&[(0, Some(80 * KIB))], 4);
    write(&[(0, Some(90 * KIB)), (1, None), (4, Some(5))], 5);
    db.flush().wait().unwrap();
    write(&[(1, Some(100 * KIB))], 6);
}

#[test]
fn a_crash_at_any_point_leaves_each_value_whole_and_no_file_too_many() {
    let sim = Sim::new(3);
    let keys = keys_of_first_shard(&sim);
    drop(on_sim(&sim));
    let image = sim.snapshot();
    for (n, power_cut) in (1..).flat_map(|n| [(n, false), (n, true)]) {
        let sim = Sim::new(n);
        sim.restore(&image);
        let mut known = Possible::new();
        let db = on_sim(&sim);
        sim.run_for(MS);
        sim.crash_after(n, power_cut);
        let done = sim.until_crash(|| script(&db, &keys, &mut known)).is_some();
        if done {
            sim.crash_after(u64::MAX, false);
            sim.power_cut();
        }
        drop(db);
        let db = on_sim(&sim);
        for (key, possible) in &known {
            let found = db.get(key).wait().unwrap_or_else(|e| panic!("crash after {n}: {e}"));
            let is_possible = |value: &Option<Vec<u8>>| value.as_deref() == found.as_deref();
            assert!(possible.iter().any(is_possible), "crash after {n}");
        }
        sim.run_for(50 * MS);
        assert_eq!(value_files(&sim).len() as u64, db.stats().value_files, "crash after {n}");
        // And it goes on.
        db.put(&keys[0], &value(MIB, 9)).wait().unwrap();
        db.flush().wait().unwrap();
        assert_eq!(db.get(&keys[0]).wait().unwrap().unwrap(), value(MIB, 9)[..]);
        drop(db);
        sim.kill();
        if done {
            assert!(n > 40, "the script makes only {n} requests");
            return;
        }
    }
}
