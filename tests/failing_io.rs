//! What failing requests once broke. That every request may fail, in every way, is what
//! `ouro-sim fail` tries out.

mod common;

use common::{Model, assert_same, tiny, used_bytes};
use ourodb::sim::{FaultKind, Faults, Sim};
use ourodb::{Db, Durability, ErrorKind};

/// A close needs room in the log, for its mark. It makes that itself, once there is
/// space, whatever the last attempt of somebody else's came to. (Found by `ouro-sim --seed 139`
/// and 929.)
#[test]
fn a_close_finds_the_space_that_came_back() {
    let mut refused = 0;
    for seed in 0..30 {
        let sim = Sim::new(seed);
        let open = || Db::open("/db", tiny(&sim).shards(1).owners(1)).expect("an opening");
        let db = open();
        let mut model = Model::new();
        let used = used_bytes(&sim);
        sim.set_faults(Faults::default().disk_bytes_max(used + seed * 4096));
        for i in 0..=255u8 {
            if let Err(error) = db.put(&[i], &[i; 1500]).wait() {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                refused += 1;
                break;
            }
            model.insert(vec![i], vec![i; 1500]);
        }
        sim.set_faults(Faults::default());
        db.close().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        drop(db);
        sim.power_cut();
        assert_same(&open(), &model);
        sim.kill();
    }
    assert!(refused > 20, "the disk was full {refused} times");
}

/// A segment that could not be made, nor what was left of it be removed, is not taken for the
/// one that took its place. (Found by `ouro-sim --seed 1407`.)
#[test]
fn of_two_segments_of_one_place_the_one_with_records_counts() {
    for seed in 0..400 {
        let sim = Sim::new(seed);
        let open = || Db::open("/db", tiny(&sim).shards(1).owners(1)).expect("an opening");
        let db = open();
        sim.set_faults(Faults::default().write_error_ppm(60_000).reorder(true));
        let mut model = Model::new();
        for i in 0..=255u8 {
            let (key, value) = ([i], [i; 700]);
            if db.put(&key, &value).durability(Durability::ProcessSafe).wait().is_err() {
                break;
            }
            model.insert(vec![i], value.to_vec());
        }
        sim.kill();
        sim.set_faults(Faults::default());
        let db = open();
        assert!(model.iter().all(|(k, v)| db.get(k).wait().unwrap().as_deref() == Some(v)));
        sim.kill();
    }
}

/// After a sync that failed, another one proves nothing: what an opening finds beyond the
/// last mark of a log is written once more. (Found by `ouro-sim --seed 4465` and 17001.)
#[test]
fn a_log_whose_sync_failed_is_written_anew() {
    let mut failed = 0;
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let open = || Db::open("/db", tiny(&sim).shards(1).owners(1)).expect("an opening");
        let db = open();
        // From some request on nothing works; before, much is acknowledged.
        sim.set_faults(Faults::default().fail_kth(1 + seed / 4, FaultKind::Io, true));
        let mut model = Model::new();
        for i in 0..24u8 {
            let (key, value) = ([i], [i; 700]);
            if db.put(&key, &value).durability(Durability::ProcessSafe).wait().is_err() {
                failed += 1;
                break;
            }
            model.insert(vec![i], vec![i; 700]);
            if i % 8 == 7 {
                sim.run_for(3_000_000_000);
            }
        }
        // The process ends, and the machine does not.
        sim.kill();
        sim.set_faults(Faults::default());
        let db = open();
        assert!(model.iter().all(|(k, v)| db.get(k).wait().unwrap().as_deref() == Some(v)));
        let found = db.scan(..).iter().map(|row| row.map(|(k, v)| (k.into_vec(), v.into_vec())));
        let found: Model = found.collect::<Result<_, _>>().expect("rows");
        sim.power_cut();
        assert_same(&open(), &found);
        sim.kill();
    }
    assert!(failed > 20, "the log failed {failed} times");
}
