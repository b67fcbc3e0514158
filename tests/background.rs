//! Flushes beside the owners: on threads of the idle class, as an ordinary user
//! gets them; and without, where the kernel refuses that.

#[path = "common/child.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod child;

use std::path::Path;

use child::{drop_root, in_child};
use ourodb::{Db, IoBackend, Options, Stats};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// The threads of this process: their names, and whether they are of the class
/// SCHED_IDLE.
fn threads() -> Vec<(String, bool)> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the process's threads");
    let threads = tasks.filter_map(|entry| {
        // A thread may end meanwhile.
        let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        let (name, fields) = stat.split_once('(')?.1.rsplit_once(')')?;
        // Field 41 of proc_pid_stat(5); what follows the name starts with 3.
        let policy: i32 = fields.split_whitespace().nth(41 - 3)?.parse().ok()?;
        Some((name.to_owned(), policy == libc::SCHED_IDLE))
    });
    threads.collect()
}

/// Fills memtables until many have become tables, and looks at all that was
/// written.
fn fills_and_flushes(dir: &Path, io: IoBackend) -> (Stats, Vec<(String, bool)>) {
    const KEYS: u32 = 2000;
    let options = || Options::default().memtable_bytes(64 << 10).owners(2).io(io.clone());
    let db = Db::open(dir, options()).expect("an opening");
    for i in 0..KEYS {
        db.put(&i.to_be_bytes(), &[i as u8; 400]).wait().expect("a put");
    }
    // A table that nobody hurries: the writers are done.
    while db.stats().immutable_memtables > 0 {
        std::thread::yield_now();
    }
    db.flush().wait().expect("a flush");
    let (stats, threads) = (db.stats(), threads());
    db.close().expect("a close");
    let db = Db::open(dir, options()).expect("an opening");
    for i in 0..KEYS {
        let value = db.get(&i.to_be_bytes()).wait().expect("a get");
        assert_eq!(value.as_deref(), Some(&[i as u8; 400][..]));
    }
    assert!(stats.flushes > 8, "{stats}");
    (stats, threads)
}

const BACKENDS: [(&str, IoBackend); 2] =
    [("ring", IoBackend::Ring), ("plain", IoBackend::Blocking)];

#[test]
fn workers_of_an_ordinary_user_are_of_the_idle_class_and_end_with_the_database() {
    in_child(
        "workers_of_an_ordinary_user_are_of_the_idle_class_and_end_with_the_database",
        |dir| {
            drop_root();
            for (name, io) in BACKENDS {
                let (_, during) = fills_and_flushes(&dir.join(name), io);
                for worker in ["ouro-worker-0", "ouro-worker-1"] {
                    assert!(during.contains(&(worker.to_owned(), true)), "{during:?}");
                }
                let others = |(name, is_idle): &&(String, bool)| {
                    *is_idle && !name.starts_with("ouro-worker")
                };
                assert_eq!(during.iter().find(others), None, "only workers are");
                let after = threads();
                assert!(after.iter().all(|(name, _)| !name.starts_with("ouro-w")), "{after:?}");
            }
        },
    );
}

/// Makes the kernel refuse the call to this process.
fn forbid_scheduling() {
    let rules = [(libc::SYS_sched_setscheduler, Vec::new())].into();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into().expect("a known architecture");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    apply_filter(&program).expect("a filter for this thread and those it starts");
}

#[test]
fn owners_do_it_all_where_the_idle_class_is_refused() {
    in_child("owners_do_it_all_where_the_idle_class_is_refused", |dir| {
        drop_root();
        forbid_scheduling();
        for (name, io) in BACKENDS {
            let (stats, during) = fills_and_flushes(&dir.join(name), io);
            assert_eq!((stats.background_worker_slices, stats.background_moves), (0, 0));
            assert!(stats.background_owner_slices > 0);
            // The limit bites.
            assert!(during.iter().all(|(_, is_idle)| !is_idle), "{during:?}");
        }
    });
}
