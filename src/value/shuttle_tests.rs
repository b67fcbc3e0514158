//! Syncs of a value file under shuttle.

use std::path::Path;
use std::sync::Arc;

use super::growing::Growing;
use super::pin::{Pin, Queue, Waste};
use super::{Garbage, ValueWork};
use crate::base::error::{Error, ErrorKind};
use crate::base::ids::FileId;
use crate::base::limits::{UNIT, UNIT_U64};
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::thread;
use crate::io::{Harden, Io, IoBuf};
use crate::runtime::block_on;
use crate::runtime::shuttle_tests::{Disk, choose, explore, poll_and_drop};

const PATH: &str = "values";
const WRITERS: u64 = 3;

/// Writes a value and waits for it, or gives up; whether it is said to be
/// durable.
fn write(disk: &Disk, growing: &Arc<Growing>, queue: &Queue, at: u64) -> bool {
    let buf = IoBuf::zeroed(UNIT);
    let written = disk.write(&growing.file, at * UNIT_U64, buf.into(), Harden::Later);
    if block_on(written).1.is_err() {
        return false;
    }
    let number = growing.written();
    let may_sync = choose(2) == 0;
    let durable = growing.durable(disk, number, may_sync, queue);
    if !may_sync && choose(4) == 0 {
        poll_and_drop(durable);
        return false;
    }
    match block_on(durable) {
        Ok(()) => {
            let range = at * UNIT_U64..(at + 1) * UNIT_U64;
            assert!(disk.has(Path::new(PATH), range, true), "value {at} is not durable");
            true
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Closed), "{error}");
            false
        }
    }
}

/// What is said to be durable is; nobody waits for ever, also when syncs fail,
/// or the owner ends.
#[test]
fn values_that_are_called_durable_are() {
    explore(4000, || {
        let disk = Disk::new();
        match choose(4) {
            0 => disk.fail_after(choose(6)),
            1 => disk.fail_once_after(choose(6)),
            _ => {}
        }
        let growing = Growing::new(FileId::new(1, 1), disk.file(PATH));
        let work = ValueWork::default();
        let queue = Queue::new(&work);
        let device = {
            let disk = disk.clone();
            thread::spawn(move || disk.serve())
        };
        let stopping = Arc::new(AtomicBool::new(false));
        let owner = {
            let (disk, queue) = (disk.clone(), Arc::clone(&queue));
            let (stopping, work) = (Arc::clone(&stopping), work.clone());
            let growing = Arc::clone(&growing);
            thread::spawn(move || {
                block_on(async {
                    while !stopping.load(Ordering::SeqCst) {
                        for growing in queue.take_syncs() {
                            let _told: crate::base::error::Result<()> =
                                growing.sync_for_others(&disk).await;
                        }
                        work.syncs.wait().await;
                    }
                });
                queue.fail_syncs(&Error::closed());
                growing.fail(&Error::closed());
            })
        };
        let writers: Vec<_> = (0..WRITERS)
            .map(|at| {
                let (disk, growing) = (disk.clone(), Arc::clone(&growing));
                let queue = Arc::clone(&queue);
                thread::spawn(move || write(&disk, &growing, &queue, at))
            })
            .collect();
        let stop = || {
            stopping.store(true, Ordering::SeqCst);
            work.syncs.set();
        };
        let ends_early = choose(3) == 0;
        if ends_early {
            stop();
        }
        for writer in writers {
            writer.join().expect("no panic");
        }
        stop();
        owner.join().expect("no panic");
        disk.stop();
        device.join().expect("no panic");
    });
}

/// What a commit drops is released once, by whichever thread lets go last, and
/// not before all who may read it have.
#[test]
fn garbage_is_released_by_the_last_reader() {
    explore(4000, || {
        let queue = Queue::new(&ValueWork::default());
        let first = Pin::new(&queue);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (pin, queue) = (Arc::clone(&first), Arc::clone(&queue));
                thread::spawn(move || {
                    assert!(queue.take().is_empty(), "this reader may read it still");
                    drop(pin);
                })
            })
            .collect();
        let second = first.succeed(Garbage { extents: Vec::new(), below: 1 });
        let third = second.succeed(Garbage { extents: Vec::new(), below: 2 });
        drop(second);
        drop(first);
        for reader in readers {
            reader.join().expect("no panic");
        }
        let below = |waste| match waste {
            Waste::Garbage(garbage) => garbage.below,
            _ => unreachable!("there is no other"),
        };
        assert!(queue.take().into_iter().map(below).eq([1, 2]));
        drop(third);
    });
}
