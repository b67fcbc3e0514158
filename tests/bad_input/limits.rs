//! Processes that may not use io_uring, or open few files.

use std::path::Path;

use ourodb::{Db, ErrorKind, IoBackend, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use super::child::{drop_root, in_child, limit_open_files};
use super::{
    SAMPLE, assert_holds, close, eventually, image, key, options, put, refused, sample, value,
};

/// As containers do it.
fn forbid(call: libc::c_long) {
    let rules = [(call, Vec::new())].into();
    let (allow, forbid) = (SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32));
    let arch = std::env::consts::ARCH.try_into().expect("a known architecture");
    let filter = SeccompFilter::new(rules, allow, forbid, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    apply_filter(&program).expect("install the filter");
}

fn forbid_io_uring() {
    forbid(libc::SYS_io_uring_setup);
    let refused = io_uring::IoUring::new(1).map(drop).map_err(|error| error.raw_os_error());
    assert_eq!(refused, Err(Some(libc::EPERM)), "the filter does not bite");
}

#[test]
fn io_uring_forbidden() {
    in_child("limits::io_uring_forbidden", |place| {
        let (old, new) = (place.join("old"), place.join("new"));
        sample(&old);
        let before = image(&old);
        forbid_io_uring();
        let says = ["seccomp", "kernel.io_uring_disabled", "IoBackend::Blocking", "--io blocking"];
        for dir in [&old, &new] {
            let opened = Db::open(dir, options().io(IoBackend::Ring));
            refused(opened, ErrorKind::Unsupported, &says);
        }
        assert!(image(&old) == before, "something was changed");

        let blocking = || options().io(IoBackend::Blocking);
        let db = Db::open(&old, blocking()).expect("open");
        assert_holds(&db, SAMPLE);
        put(&db, 30..35);
        db.flush().wait().expect("flush");
        put(&db, 35..40);
        close(db);
        assert_holds(&Db::open(&old, blocking()).expect("open"), 0..40);

        let db = Db::open(&new, blocking().shards(4).owners(2)).expect("open");
        put(&db, 0..20);
        close(db);
        assert_holds(&Db::open(&new, blocking()).expect("open"), 0..20);
    });
}

#[test]
fn pinning_forbidden() {
    in_child("limits::pinning_forbidden", |place| {
        forbid(libc::SYS_sched_setaffinity);
        let all = rustix::thread::sched_getaffinity(None).expect("it may be read");
        let refused = rustix::thread::sched_setaffinity(None, &all);
        assert_eq!(refused, Err(rustix::io::Errno::PERM), "the filter does not bite");
        for io in [IoBackend::Ring, IoBackend::Blocking] {
            let db = Db::open(place, options().io(io).pin(true)).expect("open");
            put(&db, 0..5);
            db.flush().wait().expect("flush");
            assert_holds(&db, 0..5);
            close(db);
        }
    });
}

const SAYS: [&str; 2] = ["ulimit -n", "LimitNOFILE"];

/// The limit bites: so many files cannot be open at once.
fn assert_few_files(count: usize) {
    let opened: std::io::Result<Vec<_>> =
        (0..count).map(|_| std::fs::File::open("/dev/null")).collect();
    let error = opened.expect_err("the limit does not bite").raw_os_error();
    assert_eq!(error, Some(libc::EMFILE));
}

const NO_LIMIT: u64 = 1000;

#[test]
fn thirty_two_open_files() {
    in_child("limits::thirty_two_open_files", |place| {
        limit_open_files(32);
        assert_few_files(32);
        for (name, io) in [("ring", IoBackend::Ring), ("blocking", IoBackend::Blocking)] {
            let dir = place.join(name);
            let options = || options().io(io.clone());
            let db = Db::open(&dir, options()).expect("a small database needs few files");
            put(&db, 0..10);
            db.flush().wait().expect("flush");
            put(&db, 10..20);
            close(db);

            let db = Db::open(&dir, options()).expect("open");
            assert_holds(&db, 0..20);
            // A table a file, until there are too many.
            let mut count = 20;
            let failed = loop {
                put(&db, count..count + 1);
                count += 1;
                assert!(count < 60, "the limit does not bite");
                if let Err(error) = db.flush().wait() {
                    break error;
                }
            };
            refused::<()>(Err(failed), ErrorKind::TooManyFiles, &SAYS);
            put(&db, count..count + 5);
            assert_holds(&db, 0..count + 5);
            close(db);

            // An opening may need one file more, or one less.
            if let Err(error) = Db::open(&dir, options()) {
                refused::<()>(Err(error), ErrorKind::TooManyFiles, &SAYS);
            }
            limit_open_files(NO_LIMIT);
            assert_holds(&Db::open(&dir, options()).expect("open"), 0..count + 5);
            limit_open_files(32);
        }
    });
}

#[test]
fn many_tables_and_few_open_files() {
    in_child("limits::many_tables_and_few_open_files", |dir| {
        limit_open_files(NO_LIMIT);
        let options = || options().io(IoBackend::Blocking);
        let db = Db::open(dir, options()).expect("open");
        for i in 0..40 {
            put(&db, i..i + 1);
            db.flush().wait().expect("flush");
        }
        put(&db, 40..45);
        close(db);

        limit_open_files(32);
        assert_few_files(32);
        let before = image(dir);
        refused(Db::open(dir, options()), ErrorKind::TooManyFiles, &SAYS);
        assert!(image(dir) == before, "something was changed");
        limit_open_files(NO_LIMIT);
        assert_holds(&Db::open(dir, options()).expect("open"), 0..45);
    });
}

/// An opening may run out of descriptors at each point of its way. Each time it
/// says so, and the next one finds everything.
#[test]
fn an_opening_that_runs_out_of_files_anywhere() {
    in_child("limits::an_opening_that_runs_out_of_files_anywhere", |place| {
        for (name, io) in [("ring", IoBackend::Ring), ("blocking", IoBackend::Blocking)] {
            let dir = place.join(name);
            // Memtables so small that the replay has some to flush.
            let options = || Options::memtable_bytes(options().io(io.clone()), 4096);
            limit_open_files(NO_LIMIT);
            let db = Db::open(&dir, options().shards(3).owners(2)).expect("open");
            put(&db, 0..100);
            db.flush().wait().expect("flush");
            put(&db, 100..150);
            close(db);

            let mut refusals = 0;
            for limit in 3.. {
                assert!(limit < 100, "opening needs more files than it should");
                limit_open_files(limit);
                match Db::open(&dir, options().owners(2)) {
                    Err(error) => {
                        refused::<()>(Err(error), ErrorKind::TooManyFiles, &SAYS);
                        refusals += 1;
                    }
                    Ok(db) => {
                        limit_open_files(NO_LIMIT);
                        assert_holds(&db, 0..150);
                        break;
                    }
                }
            }
            assert!(refusals > 10, "the limit did not bite ({refusals} times)");
        }
    });
}

/// Background work is tried again now and then: this succeeds in the end.
fn resumes(what: &str, mut attempt: impl FnMut() -> ourodb::Result<()>) {
    eventually(what, || match attempt() {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::TooManyFiles, "{error}");
            false
        }
    });
}

fn nothing_can_be_opened(dir: &Path, io: &IoBackend) {
    limit_open_files(NO_LIMIT);
    let options = || options().io(io.clone()).memtable_bytes(256 << 10).wal_segment_bytes(64 << 10);
    let db = Db::open(dir, options()).expect("open");
    put(&db, 0..10);

    limit_open_files(3);
    assert_few_files(3);
    refused(db.flush().wait(), ErrorKind::TooManyFiles, &SAYS);
    assert_holds(&db, 0..10);

    // The log's segments, and then the memtables, fill up.
    let mut count = 10;
    let failed = loop {
        assert!(count < 10_000, "the limit does not bite");
        match db.put(&key(count), &value(count)).wait() {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    refused::<()>(Err(failed), ErrorKind::TooManyFiles, &SAYS);
    assert_holds(&db, 0..count);

    limit_open_files(NO_LIMIT);
    resumes("a put resumes", || db.put(&key(count), &value(count)).wait());
    resumes("a flush resumes", || db.flush().wait());
    assert!(db.stats().tables > 0);
    assert_holds(&db, 0..count + 1);
    close(db);
    assert_holds(&Db::open(dir, options()).expect("open"), 0..count + 1);
}

#[test]
fn no_more_threads() {
    in_child("limits::no_more_threads", |place| {
        drop_root();
        let dir = place.join("db");
        sample(&dir);
        let before = image(&dir);
        let limit = getrlimit(Resource::Nproc);
        let none = Rlimit { current: Some(0), ..limit };
        setrlimit(Resource::Nproc, none).expect("a limit");
        let thread = std::thread::Builder::new().spawn(|| ());
        assert!(thread.is_err(), "the limit does not bite");
        let says = ["ulimit -u", "TasksMax", "Options::owners, --owners"];
        refused(Db::open(&dir, options()), ErrorKind::Busy, &says);
        assert!(image(&dir) == before, "something was changed");
        setrlimit(Resource::Nproc, limit).expect("no limit");
        assert_holds(&Db::open(&dir, options()).expect("open"), SAMPLE);
    });
}

#[test]
fn an_open_database_that_can_open_no_more_files() {
    in_child("limits::an_open_database_that_can_open_no_more_files", |place| {
        nothing_can_be_opened(&place.join("ring"), &IoBackend::Ring);
        nothing_can_be_opened(&place.join("blocking"), &IoBackend::Blocking);
    });
}
