//! Injected faults: those the engine never sees, and those it must.

use super::*;

#[test]
fn short_transfers_refusals_and_delays_are_invisible() {
    for seed in 0..SEEDS {
        let sim = Sim::new(seed);
        let faults = Faults::default().delay_ns(0..=1_000_000).reorder(true);
        sim.set_faults(faults.short_ppm(400_000).again_ppm(400_000));
        let file = create_durably(&sim, "f");
        let counts = sim.counters().counts();
        let mut buf = units(0, 4);
        buf.chunks_mut(512).enumerate().for_each(|(i, sector)| sector.fill(i as u8 + 1));
        let expected = buf.to_vec();
        write(&sim, &file, 1, buf, Harden::Now).unwrap();
        let (buf, read) = sim.block_on(sim.read(&file, UNIT_64, units(0, 5)));
        assert_eq!(read.unwrap(), 4 * UNIT, "the file ends there");
        assert_eq!(buf[..4 * UNIT], expected);
        assert!(buf[4 * UNIT..].iter().all(|&b| b == JUNK));
        let after = sim.counters().counts();
        assert_eq!((after.writes - counts.writes, after.reads - counts.reads), (1, 1));
        assert_eq!(after.write_bytes - counts.write_bytes, 4 * UNIT_64);
        sim.power_cut();
        assert_eq!(sim.file_bytes(path("f")).unwrap()[UNIT..], expected);
    }
}

/// Whether the second of two writes, made 40 us after the first, was the first
/// to complete.
fn overtakes(sim: &Sim) -> bool {
    let file = create(sim, "f");
    drop(sim.write(&file, 0, units(1, 1).into(), Harden::Later));
    sim.block_on(sim.sleep(40_000));
    sim.block_on(sim.write(&file, UNIT_64, units(1, 1).into(), Harden::Later)).1.unwrap();
    bytes_of(sim, "f", 0) == set([0])
}

#[test]
fn requests_overtake_each_other_only_when_told_to() {
    assert_eq!(outcomes(overtakes), [false].into());
    let reordering = |sim: &Sim| {
        sim.set_faults(Faults::default().reorder(true));
        overtakes(sim)
    };
    assert_eq!(outcomes(reordering), [false, true].into());
    let delaying = |sim: &Sim| {
        sim.set_faults(Faults::default().delay_ns(10_000..=100_000));
        overtakes(sim)
    };
    assert_eq!(outcomes(delaying), [false, true].into());
}

#[test]
fn even_a_machine_that_always_refuses_gives_way() {
    let always = 1_000_000;
    for faults in [Faults::default().short_ppm(always), Faults::default().again_ppm(always)] {
        let sim = Sim::new(3);
        sim.set_faults(faults);
        let file = create(&sim, "f");
        put(&sim, &file, 0, 1, Harden::Later);
        assert_eq!(bytes_of(&sim, "f", 0), set([1]));
        assert!(sim.faults_injected() > 0);
    }
}

#[test]
fn device_errors_are_visible() {
    let sim = Sim::new(1);
    let file = create_durably(&sim, "f");
    put(&sim, &file, 0, 1, Harden::Now);
    sim.set_faults(Faults::default().read_error_ppm(1_000_000));
    let (_, read) = sim.block_on(sim.read(&file, 0, units(0, 1)));
    let error = read.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("read f at offset 0"), "{error}");
    sync(&sim, &file);
    sim.set_faults(Faults::default().write_error_ppm(1_000_000));
    assert_eq!(kind(write(&sim, &file, 0, units(2, 1), Harden::Later)), ErrorKind::Io);
    assert_eq!(kind(sim.block_on(sim.sync(&file))), ErrorKind::Io);
    assert_eq!(kind(sim.block_on(sim.rename(path("f"), path("g")))), ErrorKind::Io);
    assert_eq!(names(&sim), ["f"]);
}

#[test]
fn a_failed_write_may_leave_a_part_behind() {
    let seen = outcomes(|sim| {
        let file = create_durably(sim, "f");
        put(sim, &file, 0, 1, Harden::Now);
        sim.set_faults(Faults::default().fail_kth(1, FaultKind::Io, false));
        write(sim, &file, 0, units(2, 1), Harden::Now).unwrap_err();
        bytes_of(sim, "f", 0)
    });
    assert_eq!(seen, [set([1]), set([2]), set([1, 2])].into());
}

/// "Sync again until it works" loses data on real devices, and here; so it does where a
/// file system finds no place for what it was to write.
#[test]
fn a_sync_that_failed_is_not_made_good_by_another() {
    for kind in [FaultKind::Io, FaultKind::SyncNoSpace] {
        let seen = outcomes(|sim| {
            let file = create_durably(sim, "f");
            put(sim, &file, 0, 1, Harden::Now);
            put(sim, &file, 0, 2, Harden::Later);
            sim.set_faults(Faults::default().fail_kth(1, kind, false));
            sim.block_on(sim.sync(&file)).unwrap_err();
            sync(sim, &file);
            assert_eq!(bytes_of(sim, "f", 0), set([2]));
            sim.power_cut();
            bytes_of(sim, "f", 0)
        });
        assert_eq!(seen, [set([1]), set([2])].into(), "{kind:?}");
    }
}

#[test]
fn there_may_be_no_space_for_names_or_for_what_is_synced() {
    let sim = Sim::new(1);
    let file = create_durably(&sim, "f");
    put(&sim, &file, 0, 1, Harden::Now);
    let rename = || kind(sim.block_on(sim.rename(path("f"), path("g"))));
    sim.set_faults(Faults::default().no_space_ppm(1_000_000));
    assert_eq!(rename(), ErrorKind::NoSpace);
    sync_dir(&sim, "");
    sync(&sim, &file);
    sim.set_faults(Faults::default().sync_no_space_ppm(1_000_000));
    assert_eq!(kind(sim.block_on(sim.sync_dir(path("")))), ErrorKind::NoSpace);
    assert_eq!(kind(sim.block_on(sim.sync(&file))), ErrorKind::NoSpace);
    // What has its place is written and read.
    put(&sim, &file, 0, 2, Harden::Later);
    let (_, read) = sim.block_on(sim.read(&file, 0, units(0, 1)));
    assert_eq!(read.unwrap(), UNIT);
    assert_eq!(names(&sim), ["f"]);
}

#[test]
fn a_full_disk_refuses_growth_until_there_is_room() {
    let sim = Sim::new(1);
    sim.set_faults(Faults::default().disk_bytes_max(UNIT_64));
    let file = create(&sim, "f");
    put(&sim, &file, 1, 1, Harden::Later);
    assert_eq!(kind(write(&sim, &file, 2, units(1, 1), Harden::Later)), ErrorKind::NoSpace);
    let created = sim.block_on(sim.open(path("g"), OpenMode::CreateNew));
    assert_eq!(created.unwrap_err().kind(), ErrorKind::NoSpace);
    put(&sim, &file, 1, 2, Harden::Later);
    // Before it is a hole, which takes no space until it is filled.
    assert_eq!(kind(write(&sim, &file, 0, units(1, 1), Harden::Later)), ErrorKind::NoSpace);
    sim.block_on(sim.remove(path("f"))).unwrap();
    let created = sim.block_on(sim.open(path("g"), OpenMode::CreateNew));
    assert!(created.is_err(), "the removed file is still open");
    drop(file);
    put(&sim, &create(&sim, "g"), 0, 1, Harden::Later);
    sim.set_faults(Faults::default().disk_bytes_max(100 * UNIT_64));
    put(&sim, &open(&sim, "g"), 50, 1, Harden::Later);
}

#[test]
fn what_is_punched_reads_as_zeroes_and_takes_no_space() {
    let sim = Sim::new(1);
    sim.set_faults(Faults::default().disk_bytes_max(3 * UNIT_64));
    let file = create_durably(&sim, "f");
    for unit in 0..3 {
        put(&sim, &file, unit, 7, Harden::Later);
    }
    sync(&sim, &file);
    assert_eq!(kind(write(&sim, &file, 3, units(1, 1), Harden::Later)), ErrorKind::NoSpace);
    sim.block_on(sim.punch(&file, UNIT_64, UNIT_64)).unwrap();
    let content = |unit| bytes_of(&sim, "f", unit).into_iter().collect::<Vec<_>>();
    assert_eq!([content(0), content(1), content(2)], [[7], [0], [7]]);
    put(&sim, &file, 3, 8, Harden::Later);
    assert_eq!(kind(write(&sim, &file, 1, units(1, 1), Harden::Later)), ErrorKind::NoSpace);
    // Its length stays, and it is durable only with a sync.
    sync(&sim, &file);
    sim.power_cut();
    assert_eq!([content(0), content(1), content(3)], [[7], [0], [8]]);
}

#[test]
fn what_is_cut_off_is_gone_and_takes_no_space() {
    let lengths = outcomes(|sim| {
        sim.set_faults(Faults::default().disk_bytes_max(3 * UNIT_64));
        let file = create_durably(sim, "f");
        for unit in 0..3 {
            put(sim, &file, unit, 7, Harden::Later);
        }
        sync(sim, &file);
        sim.block_on(sim.cut(&file, UNIT_64)).unwrap();
        assert_eq!(sim.block_on(sim.len(&file)).unwrap(), UNIT_64);
        // There is room again. What is extended later does not show what was there.
        put(sim, &file, 2, 8, Harden::Later);
        let content = |unit| bytes_of(sim, "f", unit).into_iter().collect::<Vec<_>>();
        assert_eq!([content(0), content(1), content(2)], [[7], [0], [8]]);
        sim.block_on(sim.cut(&file, 2 * UNIT_64)).unwrap();
        if sim.file_bytes(path("f")).is_some_and(|bytes| bytes[UNIT] == 0) {
            sync(sim, &file);
            sim.block_on(sim.cut(&file, UNIT_64)).unwrap();
        }
        sim.power_cut();
        sim.file_bytes(path("f")).unwrap().len() / UNIT
    });
    // The last cut is durable only with a sync, and the one before it was.
    assert_eq!(lengths, [1, 2].into());
}

#[test]
fn the_kth_request_fails_once_or_for_ever() {
    let run = |k, kind, for_ever| {
        let sim = Sim::new(9);
        let file = create(&sim, "f");
        sim.set_faults(Faults::default().fail_kth(k, kind, for_ever));
        let failed = (0..4)
            // Every other write extends the file.
            .map(|i| write(&sim, &file, i / 2, units(1, 1), Harden::Later).is_err())
            .collect::<Vec<bool>>();
        (failed, sim.faults_injected())
    };
    assert_eq!(run(2, FaultKind::Io, false), (vec![false, true, false, false], 1));
    assert_eq!(run(3, FaultKind::Io, true), (vec![false, false, true, true], 2));
    assert_eq!(run(5, FaultKind::Io, true), (vec![false; 4], 0));
    assert_eq!(run(2, FaultKind::NoSpace, false), (vec![false, false, true, false], 1));
    assert_eq!(run(1, FaultKind::NoSpace, true), (vec![true; 4], 4));
    assert_eq!(run(1, FaultKind::Short, true), (vec![false; 4], 4));
    assert_eq!(run(4, FaultKind::Again, true), (vec![false; 4], 1));
}

#[test]
fn several_requests_fail_each_in_its_way() {
    let sim = Sim::new(9);
    let file = create(&sim, "f");
    let never = u64::MAX;
    let faults = Faults::default()
        .fail_kth(2, FaultKind::Io, false)
        .fail_kth(2, FaultKind::NoSpace, false)
        .fail_kth(never, FaultKind::Short, false);
    sim.set_faults(faults);
    let failed = (0..5)
        .map(|i| write(&sim, &file, i / 2, units(1, 1), Harden::Later).is_err())
        .collect::<Vec<bool>>();
    // The third one extends the file, and so do those behind it, for it failed.
    assert_eq!(failed, [false, true, true, false, false]);
    assert_eq!(sim.requests_counted(), [5, 4, 5]);
    let kinds: Vec<FaultKind> = sim.injected().iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds, [FaultKind::Io, FaultKind::NoSpace]);
    assert_eq!(sim.injected()[0].to_string(), "Io: write f");
}
