//! What survives: sectors, lengths, names, and images of them.

use super::*;

#[test]
fn an_unsynced_write_is_kept_lost_or_torn() {
    let seen = outcomes(|sim| {
        let file = create_durably(sim, "f");
        put(sim, &file, 0, 1, Harden::Now);
        put(sim, &file, 0, 2, Harden::Later);
        sim.power_cut();
        bytes_of(sim, "f", 0)
    });
    assert_eq!(seen, [set([1]), set([2]), set([1, 2])].into());
}

#[test]
fn a_synced_write_is_kept() {
    let seen = outcomes(|sim| {
        let file = create_durably(sim, "f");
        put(sim, &file, 0, 1, Harden::Later);
        put(sim, &file, 1, 2, Harden::Later);
        sync(sim, &file);
        put(sim, &file, 2, 3, Harden::Later);
        sim.power_cut();
        (bytes_of(sim, "f", 0), bytes_of(sim, "f", 1))
    });
    assert_eq!(seen, [(set([1]), set([2]))].into());
}

#[test]
fn a_sync_covers_only_what_had_completed_before_it() {
    let seen = outcomes(|sim| {
        let file = create_durably(sim, "f");
        put(sim, &file, 0, 1, Harden::Now);
        let writing = sim.write(&file, 0, units(2, 1).into(), Harden::Later);
        let syncing = sim.sync(&file);
        sim.block_on(writing).1.unwrap();
        sim.block_on(syncing).unwrap();
        sim.power_cut();
        bytes_of(sim, "f", 0)
    });
    assert!(seen.contains(&set([1])) && seen.contains(&set([2])), "{seen:?}");
}

#[test]
fn a_write_through_hardens_its_own_bytes_only() {
    let seen = outcomes(|sim| {
        let file = create_durably(sim, "f");
        put(sim, &file, 0, 1, Harden::Later);
        put(sim, &file, 1, 2, Harden::Now);
        sim.power_cut();
        assert_eq!(sim.file_bytes(path("f")).unwrap().len(), 2 * UNIT);
        assert_eq!(bytes_of(sim, "f", 1), set([2]));
        bytes_of(sim, "f", 0)
    });
    assert_eq!(seen, [set([0]), set([1]), set([0, 1])].into());
}

#[test]
fn a_write_through_is_not_undone_by_an_older_write() {
    let seen = outcomes(|sim| {
        let file = create_durably(sim, "f");
        write(sim, &file, 0, units(1, 3), Harden::Later).unwrap();
        put(sim, &file, 1, 2, Harden::Now);
        sim.power_cut();
        bytes_of(sim, "f", 1)
    });
    assert_eq!(seen, [set([2])].into());
}

#[test]
fn of_two_pending_writes_either_may_survive() {
    let seen = outcomes(|sim| {
        let file = create_durably(sim, "f");
        put(sim, &file, 0, 0, Harden::Now);
        put(sim, &file, 0, 1, Harden::Later);
        put(sim, &file, 0, 2, Harden::Later);
        assert_eq!(bytes_of(sim, "f", 0), set([2]));
        sim.power_cut();
        bytes_of(sim, "f", 0)
    });
    for survivor in 0..3 {
        assert!(seen.contains(&set([survivor])), "{survivor} never: {seen:?}");
    }
}

#[test]
fn the_length_is_lost_apart_from_the_bytes() {
    let seen = outcomes(|sim| {
        let file = create_durably(sim, "f");
        put(sim, &file, 0, 1, Harden::Now);
        put(sim, &file, 1, 2, Harden::Later);
        sim.power_cut();
        (sim.file_bytes(path("f")).unwrap().len() / UNIT, bytes_of(sim, "f", 1))
    });
    for outcome in [(1, set([])), (2, set([0])), (2, set([2]))] {
        assert!(seen.contains(&outcome), "{outcome:?} never: {seen:?}");
    }
}

#[test]
fn names_are_lost_one_by_one_until_the_directory_is_synced() {
    let seen = outcomes(|sim| {
        let a = create(sim, "a");
        put(sim, &a, 0, 1, Harden::Now);
        create(sim, "b");
        sim.power_cut();
        names(sim)
    });
    assert_eq!(seen.len(), 4, "{seen:?}");

    let seen = outcomes(|sim| {
        create(sim, "a");
        create(sim, "b");
        sync_dir(sim, "");
        sim.power_cut();
        names(sim)
    });
    assert_eq!(seen, [vec!["a".into(), "b".into()]].into());
}

#[test]
fn a_sync_of_a_directory_covers_only_what_had_completed_before_it() {
    let seen = outcomes(|sim| {
        let creating = sim.open(path("f"), OpenMode::CreateNew);
        let syncing = sim.sync_dir(path(""));
        sim.block_on(creating).unwrap();
        sim.block_on(syncing).unwrap();
        sim.power_cut();
        names(sim).len()
    });
    assert_eq!(seen, [0, 1].into());
}

#[test]
fn a_removed_file_may_come_back_with_its_contents() {
    let seen = outcomes(|sim| {
        let file = create_durably(sim, "f");
        put(sim, &file, 0, 1, Harden::Now);
        drop(file);
        sim.block_on(sim.remove(path("f"))).unwrap();
        assert!(sim.paths().is_empty());
        sim.power_cut();
        sim.file_bytes(path("f"))
    });
    assert_eq!(seen, [None, Some(vec![1; UNIT])].into());

    let seen = outcomes(|sim| {
        create_durably(sim, "f");
        sim.block_on(sim.remove(path("f"))).unwrap();
        sync_dir(sim, "");
        sim.power_cut();
        names(sim)
    });
    assert_eq!(seen, [vec![]].into());
}

#[test]
fn a_rename_is_kept_or_lost_as_a_whole() {
    let seen = outcomes(|sim| {
        put(sim, &create(sim, "old"), 0, 1, Harden::Now);
        put(sim, &create(sim, "new"), 0, 2, Harden::Now);
        sync_dir(sim, "");
        sim.block_on(sim.rename(path("new"), path("old"))).unwrap();
        sim.power_cut();
        (names(sim), bytes_of(sim, "old", 0))
    });
    let lost = (vec!["new".into(), "old".into()], set([1]));
    let kept = (vec!["old".into()], set([2]));
    assert_eq!(seen, [lost, kept].into());
}

#[test]
fn a_lost_directory_takes_its_files_along() {
    let seen = outcomes(|sim| {
        sim.block_on(sim.create_dir(path("/d"))).unwrap();
        sim.block_on(sim.create_dir(path("/d"))).expect("one that exists is fine");
        create(sim, "/d/f");
        sync_dir(sim, "/d");
        sim.power_cut();
        let listed = sim.block_on(sim.list(path("/d"))).ok();
        (names(sim), listed)
    });
    let kept = (vec!["/d/f".into()], Some(vec!["f".into()]));
    assert_eq!(seen, [(vec![], None), kept].into());
}

#[test]
fn a_kill_keeps_what_completed_but_makes_nothing_durable() {
    let seen = outcomes(|sim| {
        put(sim, &create(sim, "f"), 0, 1, Harden::Later);
        sim.kill();
        assert_eq!(bytes_of(sim, "f", 0), set([1]));
        sim.power_cut();
        sim.file_bytes(path("f"))
    });
    assert!(seen.len() > 3, "name, length and bytes may still be lost: {}", seen.len());
}

#[test]
fn requests_in_flight_take_effect_wholly_partly_or_not() {
    for cut in [false, true] {
        let seen = outcomes(|sim| {
            let file = create_durably(sim, "f");
            put(sim, &file, 0, 1, Harden::Now);
            let writing = sim.write(&file, 0, units(2, 1).into(), Harden::Now);
            let removing = sim.remove(path("f"));
            if cut {
                sim.power_cut();
            } else {
                sim.kill();
            }
            assert_eq!(kind(sim.block_on(writing).1), ErrorKind::Io);
            assert_eq!(kind(sim.block_on(removing)), ErrorKind::Io);
            sim.file_bytes(path("f")).map(|bytes| bytes.into_iter().collect::<BTreeSet<u8>>())
        });
        let all = [None, Some(set([1])), Some(set([2])), Some(set([1, 2]))];
        assert_eq!(seen, all.into());
    }
}

#[test]
fn files_of_an_earlier_boot_are_void() {
    let sim = Sim::new(1);
    let file = create_durably(&sim, "f");
    let lock = sim.block_on(sim.try_lock(path("LOCK"), true)).unwrap().expect("nobody has it");
    sim.kill();
    let error = write(&sim, &file, 0, units(1, 1), Harden::Now).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("the machine was restarted"), "{error}");
    assert!(sim.block_on(sim.len(&file)).is_err());
    assert!(sim.unlock(&lock).is_err());
    let taken = sim.block_on(sim.try_lock(path("LOCK"), true)).unwrap();
    assert!(taken.is_some());
    drop(lock);
    assert!(
        sim.block_on(sim.try_lock(path("LOCK"), true)).unwrap().is_none(),
        "dropped the new lock"
    );
}

#[test]
fn damage_is_durable_and_images_are_put_back() {
    let sim = Sim::new(1);
    let file = create_durably(&sim, "f");
    write(&sim, &file, 0, units(1, 2), Harden::Now).unwrap();
    put(&sim, &file, 1, 2, Harden::Later);
    let image = sim.snapshot();

    sim.overwrite(path("f"), UNIT_64 + 7, &[9]);
    sim.truncate(path("f"), UNIT_64 + 8);
    sim.power_cut();
    let bytes = sim.file_bytes(path("f")).unwrap();
    assert_eq!((bytes.len(), bytes[UNIT + 6], bytes[UNIT + 7]), (UNIT + 8, 2, 9));
    sim.remove_file(path("f"));
    sim.power_cut();
    assert!(sim.paths().is_empty());

    // What was pending in the image is pending again.
    let mut seen = BTreeSet::new();
    for _ in 0..SEEDS {
        sim.restore(&image);
        assert!(sim.block_on(sim.len(&file)).is_err(), "the file is of an earlier boot");
        assert_eq!(bytes_of(&sim, "f", 1), set([2]));
        sim.power_cut();
        assert_eq!(bytes_of(&sim, "f", 0), set([1]));
        seen.insert(bytes_of(&sim, "f", 1));
    }
    assert_eq!(seen, [set([1]), set([2]), set([1, 2])].into());
}

#[test]
fn a_file_that_is_cut_and_grows_again_reads_as_zeroes() {
    let sim = Sim::new(1);
    let file = create_durably(&sim, "f");
    write(&sim, &file, 0, units(1, 3), Harden::Now).unwrap();
    sim.truncate(path("f"), UNIT_64 + 100);
    put(&sim, &file, 4, 2, Harden::Now);
    let bytes = sim.file_bytes(path("f")).unwrap();
    let (kept, rest) = bytes.split_at(UNIT + 100);
    assert!(kept.iter().all(|&b| b == 1));
    assert!(rest[..3 * UNIT - 100].iter().all(|&b| b == 0));
    sim.kill();
    assert_eq!(sim.file_bytes(path("f")).unwrap(), bytes);
}

#[test]
fn a_removed_file_can_be_used_while_it_is_open() {
    let sim = Sim::new(1);
    let file = create_durably(&sim, "f");
    sim.block_on(sim.remove(path("f"))).unwrap();
    sync_dir(&sim, "");
    put(&sim, &file, 0, 1, Harden::Later);
    let (buf, read) = sim.block_on(sim.read(&file, 0, units(0, 1)));
    assert_eq!((read.unwrap(), buf[0]), (UNIT, 1));
}

/// Neither files nor what a power cut would need of them pile up.
#[test]
fn what_nothing_leads_to_is_freed() {
    let sim = Sim::new(1);
    let kept = |sim: &Sim| sim.shared.machine.lock().disk.inode_count();
    let file = create_durably(&sim, "f");
    sim.block_on(sim.remove(path("f"))).unwrap();
    sync_dir(&sim, "");
    assert_eq!(kept(&sim), 1, "it is open");
    drop(file);
    assert_eq!(kept(&sim), 0);
    create_durably(&sim, "g");
    sim.block_on(sim.remove(path("g"))).unwrap();
    assert_eq!(kept(&sim), 1, "a power cut may bring it back");
    sync_dir(&sim, "");
    assert_eq!(kept(&sim), 0);
}
