//! What the calling thread asks of the kernel: a filter ends the process at any
//! system call beside the few that a test allows.

#![allow(clippy::unwrap_used, reason = "a test panics")]

#[path = "common/child.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test uses its part")]
mod child;

use std::future::IntoFuture;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use child::in_child;
use ourodb::{Db, Durability, IoBackend, Options};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// From here on the calling thread may make these system calls, end, and wait
/// for a lock; any other one ends the process.
fn allow_only(calls: &[libc::c_long]) {
    let always = [
        // A lock that somebody else has at the moment.
        libc::SYS_futex,
        // The end of a thread.
        libc::SYS_exit,
        libc::SYS_munmap,
        libc::SYS_madvise,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
    ];
    let rules = always.iter().chain(calls).map(|&call| (call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let (kill, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
    let program: BpfProgram =
        SeccompFilter::new(rules, kill, allow, arch).unwrap().try_into().unwrap();
    apply_filter(&program).unwrap();
}

fn open(dir: &std::path::Path, io: IoBackend) -> Db {
    open_with(dir, Options::default().io(io))
}

fn open_with(dir: &std::path::Path, options: Options) -> Db {
    let options = options.shards(2).owners(1).memory(64 << 20);
    // So rarely that the owner is not woken for it.
    let durability = Durability::Relaxed { within: Duration::from_secs(3600) };
    let db = Db::open(dir, options.durability(durability)).unwrap();
    while db.stats().wal_map_bytes == 0 || db.stats().wal_segments < 2 {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    db
}

fn key(i: u64) -> [u8; 24] {
    let mut key = [b'k'; 24];
    key[..8].copy_from_slice(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

/// Runs `work` on a thread that may make only `calls`.
fn under(calls: &[libc::c_long], work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            allow_only(calls);
            work();
        });
    });
}

#[test]
fn the_filter_bites() {
    if child::be_child("the_filter_bites", |_| {
        under(&[], || drop(std::fs::File::open("/dev/null")));
    }) {
        return;
    }
    let dir = child::place();
    let finished = std::panic::catch_unwind(|| {
        child::Child::start("the_filter_bites", dir.path()).finish();
    });
    assert!(finished.is_err(), "a forbidden call went through");
}

fn memory(dir: &std::path::Path, io: IoBackend) {
    let db = open(dir, io);
    let write = |from: u64, to: u64| {
        for i in from..to {
            db.put(&key(i), &[7; 400]).wait().unwrap();
        }
    };
    let read = |from: u64, to: u64| {
        for i in from..to {
            let key = key(i);
            assert_eq!(db.get_with(&key, <[u8]>::len).wait().unwrap(), Some(400));
            let mut get = pin!(db.get_with(&key, <[u8]>::len).into_future());
            let polled = get.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Ready(Ok(Some(400)))));
        }
    };
    // The allocator, the thread's buffers, the memtable's first arena.
    write(0, 500);
    read(0, 500);
    let before = db.stats();
    under(&[libc::SYS_write], || {
        write(500, 600);
        read(400, 600);
    });
    let after = db.stats();
    assert_eq!(after.puts - before.puts, 100);
    // A wake-up is a write to an eventfd: one for each buffer that was filled,
    // here the one that the first puts have begun.
    assert!(after.owner_wakeups - before.owner_wakeups <= 1, "{before}\n{after}");

    // The same out of the cache.
    db.flush().wait().unwrap();
    for i in 0..600 {
        assert!(db.get(&key(i)).wait().unwrap().is_some());
    }
    under(&[], || read(0, 600));
}

#[test]
fn puts_and_hits_in_memory_make_none() {
    in_child("puts_and_hits_in_memory_make_none", |dir| memory(dir, IoBackend::Ring));
}

#[test]
fn nor_without_a_ring() {
    in_child("nor_without_a_ring", |dir| memory(dir, IoBackend::Blocking));
}

#[test]
fn a_cold_read_of_a_thread_is_one() {
    in_child("a_cold_read_of_a_thread_is_one", |dir| {
        let db = open_with(dir, Options::default().cache_bytes(0));
        for i in 0..300 {
            db.put(&key(i), &[7; 400]).wait().unwrap();
        }
        db.flush().wait().unwrap();
        for i in 0..300 {
            assert!(db.get(&key(i)).wait().unwrap().is_some());
        }
        let before = db.stats();
        under(&[libc::SYS_preadv2], || {
            for i in 0..200 {
                assert_eq!(db.get_with(&key(i), <[u8]>::len).wait().unwrap(), Some(400));
            }
        });
        let after = db.stats();
        assert_eq!(after.device_reads - before.device_reads, 200);
        assert_eq!(after.owner_wakeups, before.owner_wakeups);
        assert_eq!(after.owner_messages, before.owner_messages);
    });
}

#[test]
fn one_that_goes_into_the_cache_is_one_too() {
    in_child("one_that_goes_into_the_cache_is_one_too", |dir| {
        // Room for a few blocks only.
        let db = open_with(dir, Options::default().cache_bytes(64 << 10));
        for i in 0..600 {
            db.put(&key(i), &[7; 400]).wait().unwrap();
        }
        db.flush().wait().unwrap();
        let all = || {
            for i in 0..600 {
                assert_eq!(db.get_with(&key(i), <[u8]>::len).wait().unwrap(), Some(400));
            }
        };
        all();
        let before = db.stats();
        under(&[libc::SYS_preadv2], all);
        let after = db.stats();
        let reads = after.device_reads - before.device_reads;
        assert!(reads > 300, "{after}");
        assert_eq!(reads, after.cache_inserted - before.cache_inserted);
        assert_eq!(reads, after.cache_misses - before.cache_misses);
        assert_eq!(after.owner_wakeups, before.owner_wakeups);
        assert_eq!(after.owner_messages, before.owner_messages);
    });
}
