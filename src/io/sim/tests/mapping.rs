//! Mapped files: who sees stores, and what survives of them.

use super::*;
use crate::io::{GroupBuf, Mapping};

const PAGES: usize = 3;

/// A file of pages that hold ones, durably.
fn written(sim: &Sim) -> File {
    let file = create_durably(sim, "m");
    write(sim, &file, 0, units(1, PAGES), Harden::Now).unwrap();
    file
}

fn map(sim: &Sim, file: &File) -> Result<Arc<Mapping>> {
    sim.block_on(sim.map(file, PAGES * UNIT)).map(Arc::new)
}

/// Such a file, and a buffer over all of its mapping.
fn mapped(sim: &Sim) -> (File, GroupBuf) {
    let file = written(sim);
    let mapping = map(sim, &file).unwrap();
    (file, GroupBuf::mapped(&mapping, 0, PAGES * UNIT))
}

/// Stores into the next page.
fn store(group: &GroupBuf, byte: u8) {
    group.fill(UNIT, |_, bytes| bytes.fill(byte)).expect("room");
}

/// The bytes of each page, which are all the same, torn pages being none.
fn pages(sim: &Sim) -> Vec<u8> {
    let page = |unit| {
        let bytes = bytes_of(sim, "m", unit);
        assert_eq!(bytes.len(), 1, "page {unit} is torn: {bytes:?}");
        bytes.into_iter().next().unwrap()
    };
    (0..PAGES).map(page).collect()
}

/// The same, as a read sees them.
fn read(sim: &Sim, file: &File) -> Vec<u8> {
    let (buf, read) = sim.block_on(sim.read(file, 0, units(0, PAGES)));
    assert_eq!(read.unwrap(), PAGES * UNIT);
    buf.chunks(UNIT).map(|page| page[0]).collect()
}

/// All subsets of the pages, with `lost` or else `kept` in each.
fn subsets(lost: [u8; PAGES], kept: [u8; PAGES]) -> BTreeSet<Vec<u8>> {
    let choose =
        |subset: usize| (0..PAGES).map(|i| [lost, kept][subset >> i & 1][i]).collect::<Vec<u8>>();
    (0..1 << PAGES).map(choose).collect()
}

#[test]
fn stores_are_seen_at_once() {
    let sim = Sim::new(1);
    let (file, group) = mapped(&sim);
    assert_eq!(pages(&sim), [1, 1, 1]);
    store(&group, 2);
    assert_eq!(pages(&sim), [2, 1, 1]);
    assert_eq!(read(&sim, &file), [2, 1, 1]);
    store(&group, 3);
    assert_eq!(read(&sim, &file), [2, 3, 1]);
    // Stores made after a read was submitted, but before it completes.
    let reading = sim.read(&file, 0, units(0, PAGES));
    store(&group, 4);
    let (buf, _) = sim.block_on(reading);
    assert_eq!(buf[2 * UNIT], 4);
}

#[test]
fn a_kill_keeps_all_stores() {
    let seen = outcomes(|sim| {
        let (_file, group) = mapped(sim);
        store(&group, 2);
        store(&group, 3);
        sim.kill();
        let seen = pages(sim);
        let file = open(sim, "m");
        assert_eq!(read(sim, &file), seen);
        seen
    });
    assert_eq!(seen, [vec![2, 3, 1]].into());
}

#[test]
fn a_power_cut_keeps_any_subset_of_pages() {
    let seen = outcomes(|sim| {
        let (_file, group) = mapped(sim);
        (2..5).for_each(|byte| store(&group, byte));
        sim.power_cut();
        pages(sim)
    });
    assert_eq!(seen, subsets([1, 1, 1], [2, 3, 4]));
}

#[test]
fn what_a_kill_kept_is_not_durable() {
    let script = |sync_after: bool| {
        outcomes(|sim| {
            let (_file, group) = mapped(sim);
            (2..5).for_each(|byte| store(&group, byte));
            sim.kill();
            if sync_after {
                sync(sim, &open(sim, "m"));
            }
            sim.power_cut();
            pages(sim)
        })
    };
    assert_eq!(script(false), subsets([1, 1, 1], [2, 3, 4]));
    assert_eq!(script(true), [vec![2, 3, 4]].into());
}

#[test]
fn a_sync_makes_durable_what_was_stored_before() {
    let seen = outcomes(|sim| {
        let (file, group) = mapped(sim);
        store(&group, 2);
        let syncing = sim.sync(&file);
        store(&group, 3);
        sim.block_on(syncing).unwrap();
        store(&group, 4);
        sim.power_cut();
        pages(sim)
    });
    assert_eq!(seen, subsets([2, 1, 1], [2, 3, 4]));
}

#[test]
fn a_page_stored_into_twice_is_one_or_the_other() {
    let seen = outcomes(|sim| {
        let (file, mut group) = mapped(sim);
        store(&group, 2);
        sync(sim, &file);
        group.reset();
        store(&group, 3);
        sim.power_cut();
        pages(sim)
    });
    assert_eq!(seen, [vec![2, 1, 1], vec![3, 1, 1]].into());
}

/// The kernel writes back when it likes: what a page held in between may be what is left.
#[test]
fn a_power_cut_may_keep_what_a_page_held_in_between() {
    let seen = outcomes(|sim| {
        let (_file, mut group) = mapped(sim);
        let other = create_durably(sim, "other");
        for byte in 2..5 {
            group.reset();
            store(&group, byte);
            // Something else goes on meanwhile.
            for _ in 0..8 {
                put(sim, &other, 0, byte, Harden::Now);
            }
        }
        sim.power_cut();
        pages(sim)
    });
    let all: Vec<Vec<u8>> = (1..5).map(|byte| vec![byte, 1, 1]).collect();
    assert_eq!(seen, all.into_iter().collect());
}

#[test]
fn a_failed_sync_may_lose_stores_for_good() {
    let seen = outcomes(|sim| {
        let (file, group) = mapped(sim);
        store(&group, 2);
        sim.set_faults(Faults::default().fail_kth(1, FaultKind::Io, false));
        assert_eq!(kind(sim.block_on(sim.sync(&file))), ErrorKind::Io);
        sync(sim, &file);
        assert_eq!(pages(sim), [2, 1, 1], "the process sees them");
        sim.power_cut();
        pages(sim)
    });
    assert_eq!(seen, [vec![1, 1, 1], vec![2, 1, 1]].into());
}

#[test]
fn the_memory_of_a_dead_process_is_nobodys() {
    let sim = Sim::new(1);
    let (_file, old) = mapped(&sim);
    store(&old, 2);
    sim.kill();
    store(&old, 3);
    assert_eq!(pages(&sim), [2, 1, 1]);

    let file = open(&sim, "m");
    let mapping = map(&sim, &file).unwrap();
    let new = GroupBuf::mapped(&mapping, 0, UNIT);
    store(&old, 4);
    drop(old);
    new.fill(UNIT, |_, bytes| {
        assert_eq!(bytes, [2; UNIT]);
        bytes.fill(5);
    });
    assert_eq!(read(&sim, &file), [5, 1, 1]);
}

#[test]
fn an_unmapped_file_keeps_its_stores_and_is_written_again() {
    let seen = outcomes(|sim| {
        let (file, group) = mapped(sim);
        store(&group, 2);
        store(&group, 3);
        drop(group);
        assert_eq!(read(sim, &file), [2, 3, 1]);
        put(sim, &file, 0, 4, Harden::Now);
        assert_eq!(read(sim, &file), [4, 3, 1]);
        sim.power_cut();
        pages(sim)
    });
    assert_eq!(seen, [vec![4, 1, 1], vec![4, 3, 1]].into());
}

#[test]
fn a_mapping_keeps_a_removed_file() {
    let sim = Sim::new(1);
    let (file, group) = mapped(&sim);
    sim.block_on(sim.remove(path("m"))).unwrap();
    sync_dir(&sim, "");
    drop(file);
    assert_eq!(sim.shared.machine.lock().disk.inode_count(), 1);
    store(&group, 2);
    drop(group);
    assert_eq!(sim.shared.machine.lock().disk.inode_count(), 0);
}

#[test]
fn an_image_takes_stores_in_as_pending() {
    let image_of = |sim: &Sim| {
        let (_file, group) = mapped(sim);
        store(&group, 2);
        let image = sim.snapshot();
        store(&group, 3);
        image
    };
    let seen = outcomes(|sim| {
        let image = image_of(sim);
        sim.restore(&image);
        pages(sim)
    });
    assert_eq!(seen, [vec![2, 1, 1]].into());
    let seen = outcomes(|sim| {
        let image = image_of(sim);
        sim.restore(&image);
        sim.power_cut();
        pages(sim)
    });
    assert_eq!(seen, [vec![1, 1, 1], vec![2, 1, 1]].into());
}

#[test]
fn looking_does_not_change_the_run() {
    let run = |byte: u8, looks: bool| {
        let sim = Sim::new(1);
        let (file, group) = mapped(&sim);
        store(&group, byte);
        if looks {
            assert_eq!(pages(&sim), [byte, 1, 1]);
            let _image = sim.snapshot();
        }
        store(&group, 3);
        sync(&sim, &file);
        store(&group, 4);
        sim.power_cut();
        (sim.trace_hash(), pages(&sim))
    };
    assert_eq!(run(2, false), run(2, false));
    assert_eq!(run(2, false), run(2, true));
    assert_ne!(run(2, false).0, run(5, false).0, "what is stored is part of the trace");
}

#[test]
fn damage_is_seen_in_memory() {
    let sim = Sim::new(1);
    let (file, mut group) = mapped(&sim);
    store(&group, 2);
    sim.overwrite(path("m"), UNIT_64, &[9; UNIT]);
    assert_eq!(read(&sim, &file), [2, 9, 1]);
    group.fill(UNIT, |_, bytes| assert_eq!(bytes, [9; UNIT]));
    group.reset();
    store(&group, 3);
    sim.kill();
    assert_eq!(pages(&sim), [3, 9, 1]);

    let seen = outcomes(|sim| {
        let (_file, group) = mapped(sim);
        store(&group, 2);
        sim.overwrite(path("m"), UNIT_64, &[9; UNIT]);
        sim.power_cut();
        pages(sim)
    });
    assert_eq!(seen, [vec![2, 9, 1]].into(), "durable, with all that was pending");
}

#[test]
#[should_panic(expected = "m is mapped")]
fn a_mapped_file_is_not_cut() {
    let sim = Sim::new(1);
    let (_file, _group) = mapped(&sim);
    sim.truncate(path("m"), 0);
}

#[test]
#[should_panic(expected = "m is mapped: store into the mapping instead")]
fn a_mapped_file_is_not_written_in_another_way() {
    let sim = Sim::new(1);
    let (file, _group) = mapped(&sim);
    put(&sim, &file, 0, 2, Harden::Later);
}

#[test]
#[should_panic(expected = "m is mapped: store into the mapping instead")]
fn a_file_is_not_written_while_it_is_being_mapped() {
    let sim = Sim::new(1);
    let file = written(&sim);
    let _mapping = sim.map(&file, PAGES * UNIT);
    put(&sim, &file, 0, 2, Harden::Later);
}

#[test]
#[should_panic(expected = "m is to be mapped while a write of it is in flight")]
fn a_file_is_not_mapped_while_it_is_written() {
    let sim = Sim::new(1);
    let file = written(&sim);
    let _writing = sim.write(&file, 0, units(2, 1).into(), Harden::Later);
    let _refused = map(&sim, &file);
}

#[test]
#[should_panic(expected = "m is mapped already")]
fn a_file_is_mapped_once() {
    let sim = Sim::new(1);
    let (file, _group) = mapped(&sim);
    let _refused = map(&sim, &file);
}

#[test]
fn mapping_fails_like_other_calls() {
    let sim = Sim::new(1);
    let file = written(&sim);
    for (fault, expected) in
        [(FaultKind::Io, ErrorKind::Io), (FaultKind::NoSpace, ErrorKind::NoSpace)]
    {
        sim.set_faults(Faults::default().fail_kth(1, fault, false));
        assert_eq!(kind(map(&sim, &file).map(drop)), expected);
        assert_eq!(sim.faults_injected(), 1);
    }
    let error = sim.block_on(sim.map(&file, 2 * PAGES * UNIT)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "it is not that long");
    let read_only = sim.block_on(sim.open(path("m"), OpenMode::Read)).unwrap();
    assert_eq!(kind(map(&sim, &read_only).map(drop)), ErrorKind::PermissionDenied);
    map(&sim, &file).unwrap();
    sim.kill();
    assert_eq!(kind(map(&sim, &file).map(drop)), ErrorKind::Io, "the machine was restarted");
}

#[test]
fn a_boot_ends_when_the_power_goes() {
    let sim = Sim::new(1);
    let mut ids = vec![sim.boot_id().unwrap()];
    let process = sim.process();
    assert_eq!(process.boot_id().unwrap(), ids[0]);
    let image = sim.snapshot();
    sim.kill();
    assert_eq!(sim.boot_id().unwrap(), ids[0]);
    assert!(process.boot_id().is_err(), "its process is over");
    for _ in 0..2 {
        sim.power_cut();
        ids.push(sim.boot_id().unwrap());
        sim.restore(&image);
        ids.push(sim.boot_id().unwrap());
    }
    // The disk in another machine, even one of the same seed.
    let other = Sim::new(1);
    assert_eq!(other.boot_id().unwrap(), ids[0], "a seed is a run");
    other.restore(&image);
    ids.push(other.boot_id().unwrap());
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}
