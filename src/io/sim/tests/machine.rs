//! Seeds, the scheduler, time, locks and files of one process.

use std::task::{Context, Wake, Waker};

use super::*;

#[test]
fn a_lock_has_one_holder() {
    let sim = Sim::new(1);
    let try_lock = || sim.block_on(sim.try_lock(path("LOCK"), true)).unwrap();
    let first = try_lock().expect("nobody has it");
    let clone = first.clone();
    drop(first);
    assert!(try_lock().is_none());
    drop(clone);
    let second = try_lock().expect("the holder is gone");
    sim.unlock(&second).unwrap();
    let third = try_lock().expect("it was given up");
    drop(second);
    assert!(try_lock().is_none(), "the third has it");
    drop(third);
    assert!(try_lock().is_some());
}

/// Writers that go on at random times, so that there is something to choose.
fn busy_script(sim: &Sim) -> u64 {
    let file = create_durably(sim, "f");
    for writer in 0..4u8 {
        let (io, file) = (sim.clone(), file.clone());
        sim.spawn(async move {
            for round in 0..5u64 {
                let unit = u64::from(writer) + 4 * round;
                let buf = units(writer, 1).into();
                io.write(&file, unit * UNIT_64, buf, Harden::Later).await.1.unwrap();
                io.sleep(u64::from(writer) * 1000).await;
            }
            io.sync(&file).await.unwrap();
        });
    }
    sim.block_on(sim.sleep(400_000));
    sim.power_cut();
    sim.trace_hash()
}

#[test]
fn a_seed_is_a_run() {
    let faults = Faults::default().delay_ns(0..=50_000).reorder(true).short_ppm(100_000);
    let run = |seed| {
        let sim = Sim::new(seed);
        sim.set_faults(faults.clone());
        (busy_script(&sim), sim.now_ns(), sim.file_bytes(path("f")))
    };
    assert_eq!(run(5), run(5));
    let hashes: BTreeSet<u64> = (0..SEEDS).map(|seed| run(seed).0).collect();
    assert_eq!(hashes.len() as u64, SEEDS);

    // The decisions differ too, not just the hash that the seed starts.
    let seen = outcomes(|sim| {
        sim.set_faults(faults.clone());
        busy_script(sim);
        sim.file_bytes(path("f"))
    });
    assert!(seen.len() > 20, "{}", seen.len());
}

#[test]
fn what_is_written_is_part_of_the_trace() {
    let run = |byte| {
        let sim = Sim::new(1);
        put(&sim, &create(&sim, "f"), 0, byte, Harden::Later);
        sim.trace_hash()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn opening_follows_its_mode() {
    let sim = Sim::new(1);
    let open = |name: &str, mode| sim.block_on(sim.open(path(name), mode));
    assert!(open("f", OpenMode::Read).is_err());
    assert!(open("d/f", OpenMode::CreateNew).is_err(), "there is no such directory");
    let file = open("f", OpenMode::CreateNew).unwrap();
    assert!(open("f", OpenMode::CreateNew).is_err());
    put(&sim, &file, 0, 1, Harden::Later);
    let read_only = open("f", OpenMode::Read).unwrap();
    assert_eq!(sim.block_on(sim.len(&read_only)).unwrap(), UNIT_64);
    assert_eq!(kind(write(&sim, &read_only, 0, units(2, 1), Harden::Later)), ErrorKind::Io);
    let (_, read) = sim.block_on(sim.read(&read_only, 8 * UNIT_64, units(0, 1)));
    assert_eq!(read.unwrap(), 0, "beyond the end");
}

#[test]
#[should_panic(expected = "deadlock: the future waits")]
fn a_deadlock_is_found() {
    let sim = Sim::new(1);
    sim.spawn(std::future::pending());
    sim.block_on(std::future::pending::<()>());
}

#[test]
#[should_panic(expected = "nobody may wait in a task")]
fn waiting_in_a_task_is_refused() {
    let sim = Sim::new(1);
    let inner = sim.clone();
    sim.block_on(async move { inner.block_on(inner.sleep(1)) });
}

#[test]
fn a_dropped_future_completes_its_request() {
    let sim = Sim::new(1);
    let file = create(&sim, "f");
    // Once before its first poll, once after.
    drop(sim.write(&file, 0, units(1, 1).into(), Harden::Later));
    let mut writing = Box::pin(sim.write(&file, UNIT_64, units(2, 1).into(), Harden::Later));
    sim.block_on(poll_fn(|cx| {
        assert!(writing.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    drop(writing);
    drop(file);
    sim.run_for(0);
    assert_eq!((bytes_of(&sim, "f", 0), bytes_of(&sim, "f", 1)), (set([1]), set([2])));
}

#[test]
fn sleepers_wake_at_their_time() {
    let sim = Sim::new(1);
    let woke_ns = Arc::new(AtomicU64::new(0));
    for nanos in [3_000_000, 1_000_000, 20_000_000] {
        let (io, woke_ns) = (sim.clone(), Arc::clone(&woke_ns));
        sim.spawn(async move {
            let start_ns = io.now_ns();
            io.sleep(nanos).await;
            let slept_ns = io.now_ns() - start_ns;
            assert!((nanos..nanos + 10_000).contains(&slept_ns), "{slept_ns} for {nanos}");
            woke_ns.store(nanos, Ordering::Relaxed);
        });
    }
    sim.run_for(1_500_000);
    assert_eq!((woke_ns.load(Ordering::Relaxed), sim.now_ns()), (1_000_000, 1_500_000));
    sim.run_for(5_000_000);
    assert_eq!((woke_ns.load(Ordering::Relaxed), sim.now_ns()), (3_000_000, 6_500_000));
    sim.block_on(sim.sleep(30_000_000));
    assert_eq!(woke_ns.load(Ordering::Relaxed), 20_000_000);
}

#[test]
fn timers_beyond_the_horizon_stay_although_requests_end_later() {
    let sim = Sim::new(1);
    let file = create(&sim, "f");
    let woken = Arc::new(AtomicU64::new(0));
    let (io, seen) = (sim.clone(), Arc::clone(&woken));
    sim.spawn(async move {
        io.sleep(50_000).await;
        seen.store(1, Ordering::Relaxed);
    });
    drop(sim.write(&file, 0, units(1, 1).into(), Harden::Later));
    let start_ns = sim.now_ns();
    sim.run_for(40_000);
    assert_eq!(bytes_of(&sim, "f", 0), set([1]));
    assert!(sim.now_ns() >= start_ns + 80_000);
    assert_eq!(woken.load(Ordering::Relaxed), 0);
    sim.run_for(0);
    assert_eq!(woken.load(Ordering::Relaxed), 1);
}

#[test]
fn a_dropped_sleep_leaves_no_timer() {
    struct Unheard;
    impl Wake for Unheard {
        fn wake(self: Arc<Self>) {}
    }
    let unheard = Arc::new(Unheard);
    let sim = Sim::new(1);
    let mut sleep = Box::pin(sim.sleep(1000));
    let waker = Waker::from(Arc::clone(&unheard));
    assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop((sleep, waker));
    assert_eq!(Arc::strong_count(&unheard), 1);
}

/// A task that polls for something to happen does not hold up time.
#[test]
fn spinning_takes_time() {
    let sim = Sim::new(1);
    let file = create(&sim, "f");
    let mut writing = pin!(sim.write(&file, 0, units(1, 1).into(), Harden::Later));
    sim.block_on(poll_fn(|cx| {
        cx.waker().wake_by_ref();
        writing.as_mut().poll(cx)
    }))
    .1
    .unwrap();
}

/// Uses the machine as it is dropped, as a database's handle may.
struct DropsLate(Sim, File, Arc<AtomicU64>);

impl Drop for DropsLate {
    fn drop(&mut self) {
        drop(self.0.sync(&self.1));
        let io = self.0.clone();
        self.0.spawn(async move { io.sleep(u64::MAX).await });
        self.2.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_crash_drops_every_task() {
    for crash in [Sim::power_cut, Sim::kill] {
        let sim = Sim::new(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let file = create_durably(&sim, "f");
        for _ in 0..2 {
            let held = DropsLate(sim.clone(), file.clone(), Arc::clone(&dropped));
            let io = sim.clone();
            sim.spawn(async move {
                let held = held;
                io.sleep(1_000_000).await;
                put(&held.0, &held.1, 0, 1, Harden::Now);
            });
        }
        sim.run_for(1000);
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        crash(&sim);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        sim.run_for(10_000_000);
        assert_eq!(sim.file_bytes(path("f")), Some(vec![]));
        drop(file);
        assert_eq!(Arc::strong_count(&sim.shared), 1, "something of the old process lives on");
    }
}

#[test]
fn a_task_may_crash_the_machine_it_runs_on() {
    let sim = Sim::new(1);
    let dropped = Arc::new(AtomicU64::new(0));
    let held = DropsLate(sim.clone(), create(&sim, "f"), Arc::clone(&dropped));
    sim.spawn(async move {
        held.0.kill();
        held.0.sleep(1).await;
        unreachable!("the task went on after its process ended");
    });
    sim.run_for(1000);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    // Of the task that was spawned late.
    sim.kill();
}

#[test]
fn randomness_comes_from_the_seed() {
    let draw = |seed| {
        let mut bytes = [0; 13];
        Sim::new(seed).random(&mut bytes);
        bytes
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    assert_ne!(draw(1)[8..], [0; 5]);
}

#[test]
fn listing_names_every_entry() {
    let seen = outcomes(|sim| {
        sim.block_on(async {
            sim.create_dir(path("d")).await?;
            for name in ["d/a", "d/b", "c"] {
                sim.open(path(name), OpenMode::CreateNew).await?;
            }
            let mut root = sim.list(path("")).await?;
            root.sort();
            assert_eq!(root, ["c", "d"]);
            sim.list(path("d")).await
        })
        .map_err(|error: Error| error.to_string())
        .unwrap()
    });
    assert_eq!(seen, [["a", "b"], ["b", "a"]].map(|names| names.map(String::from).to_vec()).into());
}
