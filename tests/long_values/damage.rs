//! Damaged, missing and misplaced value files: `Corruption` for their keys, and
//! for nothing else.

use super::*;

fn corrupt(db: &Db, key: &[u8], says: &str) {
    let error = db.get(key).wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert!(error.to_string().contains(says), "{says:?} is not in: {error}");
    let by_scan = db.scan(key..=key).iter().next().unwrap().unwrap_err();
    assert_eq!(by_scan.kind(), ErrorKind::Corruption, "{by_scan}");
    assert_eq!(db.multi_get(&[key]).wait().unwrap_err().kind(), ErrorKind::Corruption);
}

#[test]
fn each_damaged_unit_is_noticed_and_nothing_else_is_hurt() {
    let sim = Sim::new(1);
    let keys = keys_of_first_shard(&sim);
    let db = on_sim(&sim);
    let values = [value(65 * KIB + 9, 1), value(300 * KIB, 2)];
    for (key, value) in keys.iter().zip(&values) {
        db.put(key, value).wait().unwrap();
    }
    db.put(&keys[2], b"short").wait().unwrap();
    db.close().unwrap();
    drop(db);
    let [path] = &value_files(&sim)[..] else { panic!("one file") };
    let len = sim.file_bytes(path).unwrap().len();
    let first_units = (65 * KIB + 9).div_ceil(4096);
    assert_eq!(len, 4096 * (1 + first_units + 75));
    let image = sim.snapshot();
    for unit in 0..len / 4096 {
        let sim = Sim::new(unit as u64);
        sim.restore(&image);
        let at = unit * 4096 + 3;
        let byte = sim.file_bytes(path).unwrap()[at] ^ 0x40;
        sim.overwrite(path, at as u64, &[byte]);
        let db = on_sim(&sim);
        let chunk = |start: usize| start + (unit * 4096 - start) / (64 * KIB) * (64 * KIB);
        let second = 4096 * (1 + first_units);
        let damaged: &[(usize, usize)] = match unit {
            0 => &[(0, 0), (1, 0)],
            unit if unit <= first_units => &[(0, chunk(4096))],
            _ => &[(1, chunk(second))],
        };
        for (i, value) in values.iter().enumerate() {
            match damaged.iter().find(|(damaged, _)| *damaged == i) {
                Some((_, offset)) => {
                    corrupt(&db, &keys[i], &format!("{} offset {offset}:", path.display()));
                }
                None => assert_eq!(db.get(&keys[i]).wait().unwrap().unwrap(), value[..]),
            }
        }
        assert_eq!(db.get(&keys[2]).wait().unwrap().unwrap(), b"short"[..]);
        db.put(&keys[0], &values[1]).wait().unwrap();
        assert_eq!(db.get(&keys[0]).wait().unwrap().unwrap(), values[1][..]);
        drop(db);
        sim.kill();
    }
}

#[test]
fn a_missing_cut_or_exchanged_file_refuses_its_keys_alone() {
    let sim = Sim::new(1);
    let keys = keys_of_first_shard(&sim);
    let db = on_sim(&sim);
    for (i, key) in keys[..2].iter().enumerate() {
        db.put(key, &value(MIB, i as u8)).wait().unwrap();
    }
    db.put(&keys[2], b"short").wait().unwrap();
    db.flush().wait().unwrap();
    db.close().unwrap();
    drop(db);
    let [first, second] = &value_files(&sim)[..] else { panic!("two files") };
    let image = sim.snapshot();
    let with = |spoil: &dyn Fn(&Sim), check: &dyn Fn(&Db)| {
        let sim = Sim::new(2);
        sim.restore(&image);
        spoil(&sim);
        let db = on_sim(&sim);
        check(&db);
        assert_eq!(db.get(&keys[2]).wait().unwrap().unwrap(), b"short"[..]);
        db.put(&keys[0], &value(MIB, 9)).wait().unwrap();
        db.flush().wait().unwrap();
        assert_eq!(db.get(&keys[0]).wait().unwrap().unwrap(), value(MIB, 9)[..]);
        drop(db);
        sim.kill();
    };
    let sound = |db: &Db, i: usize| {
        assert_eq!(db.get(&keys[i]).wait().unwrap().unwrap(), value(MIB, i as u8)[..]);
    };
    with(&|sim| sim.remove_file(first), &|db| {
        corrupt(db, &keys[0], "the value file is missing");
        sound(db, 1);
    });
    with(&|sim| sim.truncate(first, 512 << 10), &|db| {
        corrupt(db, &keys[0], "offset 524288: the file ends before");
        sound(db, 1);
    });
    with(
        &|sim| {
            let (a, b) = (sim.file_bytes(first).unwrap(), sim.file_bytes(second).unwrap());
            sim.overwrite(first, 0, &b);
            sim.overwrite(second, 0, &a);
        },
        &|db| {
            corrupt(db, &keys[0], "was expected");
            corrupt(db, &keys[1], "was expected");
        },
    );
    // What the header cannot tell, the checksums do: they are of one place.
    with(
        &|sim| {
            let (a, b) = (sim.file_bytes(first).unwrap(), sim.file_bytes(second).unwrap());
            sim.overwrite(first, 4096, &b[4096..]);
            sim.overwrite(second, 4096, &a[4096..]);
        },
        &|db| {
            corrupt(db, &keys[0], "offset 4096: the checksum");
            corrupt(db, &keys[1], "offset 4096: the checksum");
        },
    );
}

/// What else would the oldest table, which cannot be read, keep for ever.
#[test]
fn a_damaged_table_is_dropped_and_leaves_its_values_behind() {
    let sim = Sim::new(2);
    let fifo = Compaction::Fifo { max_bytes: Some(200 << 10), max_age: None };
    let sim_io = || IoBackend::Sim(sim.clone());
    let options = || options(sim_io()).shards(1).memtable_bytes(4096).compaction(fifo);
    let db = Db::open("/db", options()).unwrap();
    db.put(b"long", &value(70 * KIB, 1)).wait().unwrap();
    db.close().unwrap();
    let tables = |sim: &Sim| {
        let is_one = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
        sim.paths().into_iter().filter(is_one).collect::<Vec<_>>()
    };
    let db = Db::open("/db", options()).unwrap();
    db.flush().wait().unwrap();
    db.close().unwrap();
    let [path] = &tables(&sim)[..] else { panic!("one table") };
    sim.overwrite(path, 4096 + 10, b"damage");
    let db = Db::open("/db", options()).unwrap();
    corrupt(&db, b"long", &path.display().to_string());
    for i in 0..1000u32 {
        db.put(&i.to_be_bytes(), &[7; 300]).wait().unwrap();
    }
    sim.run_for(1000 * MS);
    assert!(db.stats().table_bytes <= 200 << 10);
    assert!(!tables(&sim).contains(path));
    assert_eq!(db.get(b"long").wait().unwrap(), None);
    // The value stays: nobody could say that it was there.
    assert_eq!(db.stats().value_files, 1);
    db.close().unwrap();
    let db = Db::open("/db", options()).unwrap();
    assert_eq!(db.get(&999u32.to_be_bytes()).wait().unwrap().unwrap(), [7; 300][..]);
}
