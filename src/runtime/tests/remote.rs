//! Requests that cross threads to an owner, on real files.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use super::owner::{KINDS, Kind, Owner, executor};
use super::{CountingWaker, poll_once};
use crate::base::error::ErrorKind;
use crate::base::limits::UNIT;
use crate::io::{BufferPool, GroupBuf, Harden, Io, IoBuf, IoCounters, OpenMode, WriteBuf};
use crate::runtime::{Event, Job, Mailbox, Remote, block_on, run_on_owner, serve, yield_now};

fn filled(byte: u8) -> IoBuf {
    let mut buf = IoBuf::zeroed(UNIT);
    buf.fill(byte);
    buf
}

#[test]
fn its_futures_may_go_to_any_thread() {
    fn is_send<T: Send>(_: &T) {}
    fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let remote = Remote::new(Mailbox::new(1), Arc::default());
    is_shared(&remote);
    let (path, other) = (std::path::Path::new("a"), std::path::Path::new("b"));
    let file =
        crate::io::File::new(path, crate::io::Handle::Os(tempfile::tempfile().unwrap().into()));
    is_send(&remote.read(&file, 0, filled(0)));
    is_send(&remote.write(&file, 0, filled(0).into(), Harden::Now));
    is_send(&remote.sync(&file));
    is_send(&remote.open(path, OpenMode::Read));
    is_send(&remote.len(&file));
    is_send(&remote.list(path));
    is_send(&remote.create_dir(path));
    is_send(&remote.remove(path));
    is_send(&remote.rename(path, other));
    is_send(&remote.sync_dir(path));
    is_send(&remote.try_lock(path, true));
    is_send(&remote.sleep(1));
    is_send(&remote.reserve());
}

#[test]
fn every_call_does_on_the_owner_what_it_does_elsewhere() {
    for kind in KINDS {
        let owner = Owner::start(kind, 4);
        let io = &owner.remote;
        block_on(async {
            let (dir, file) = (owner.path("dir"), owner.path("dir/file"));
            io.create_dir(&dir).await.unwrap();
            let open = io.open(&file, OpenMode::CreateNew).await.unwrap();
            let again = io.open(&file, OpenMode::CreateNew).await.unwrap_err();
            assert!(again.to_string().contains("file"), "{again}");
            let (back, wrote) = io.write(&open, 0, filled(1).into(), Harden::Later).await;
            wrote.unwrap();
            assert_eq!(back.bytes(), &filled(1)[..]);
            let prefix = WriteBuf::Prefix(IoBuf::zeroed(2 * UNIT), UNIT);
            io.write(&open, UNIT as u64, prefix, Harden::Now).await.1.unwrap();
            let group = Arc::new(GroupBuf::new(UNIT));
            let mut claim = group.claim(UNIT).expect("room");
            claim.fill(3);
            claim.finish();
            group.seal();
            let permit = io.reserve().await.unwrap();
            let group = WriteBuf::Group(group, UNIT);
            io.post_write(permit, &open, 2 * UNIT as u64, group, Harden::Now).await.1.unwrap();
            io.sync(&open).await.unwrap();
            assert_eq!(io.len(&open).await.unwrap(), 3 * UNIT as u64);
            let (buf, read) = io.read(&open, 0, IoBuf::zeroed(4 * UNIT)).await;
            assert_eq!(read.unwrap(), 3 * UNIT);
            assert_eq!(buf.chunks(UNIT).map(|unit| unit[9]).collect::<Vec<_>>(), [1, 0, 3, 0]);
            let moved = owner.path("dir/moved");
            io.rename(&file, &moved).await.unwrap();
            io.sync_dir(&dir).await.unwrap();
            assert_eq!(io.list(&dir).await.unwrap(), ["moved"]);
            io.remove(&moved).await.unwrap();
            assert_eq!(io.list(&dir).await.unwrap(), [""; 0]);
            let lock = owner.path("lock");
            let held = io.try_lock(&lock, true).await.unwrap().expect("nobody has it");
            assert!(io.try_lock(&lock, true).await.unwrap().is_none());
            io.unlock(&held).unwrap();
            assert!(io.try_lock(&lock, true).await.unwrap().is_some());
            let before_ns = io.now_ns();
            io.sleep(1000).await;
            assert!(io.now_ns() >= before_ns + 1000);
            let mut random = [0; 16];
            io.random(&mut random);
            assert_ne!(random, [0; 16]);
        });
        let counts = io.counters().counts();
        assert_eq!((counts.reads, counts.writes, counts.syncs), (1, 3, 2), "{kind:?}");
        assert_eq!(owner.mailbox.outstanding(), 0);
    }
}

#[test]
fn a_cold_read_is_one_message_one_request_and_at_most_one_wake_up() {
    const READS: u64 = 200;
    for kind in KINDS {
        let owner = Owner::start(kind, 4);
        let file = owner.create("file");
        block_on(owner.remote.write(&file, 0, filled(7).into(), Harden::Later)).1.unwrap();
        let before = (owner.counts(), owner.remote.counters().counts());
        let mut buf = IoBuf::zeroed(UNIT);
        for _ in 0..READS {
            let (back, read) = block_on(owner.remote.read(&file, 0, buf));
            assert_eq!((read.unwrap(), back[0]), (UNIT, 7));
            buf = back;
        }
        let after = (owner.counts(), owner.remote.counters().counts());
        assert_eq!(after.0.messages - before.0.messages, READS);
        assert_eq!(after.1.reads - before.1.reads, READS);
        assert!(after.0.unparks - before.0.unparks <= READS, "{kind:?} {:?}", after.0);
        // One poll to receive it, one to submit it, one to complete it.
        assert!(after.0.polls - before.0.polls <= 3 * READS + 3, "{kind:?} {:?}", after.0);
        // At most one submits the request and waits, one waits for the next.
        assert!(after.0.sleeps - before.0.sleeps <= 2 * READS + 2, "{kind:?} {:?}", after.0);
    }
}

#[test]
fn a_message_unparks_an_owner_that_sleeps_and_no_other() {
    for kind in KINDS {
        let owner = Owner::start(kind, 4);
        owner.asleep(1);
        block_on(run_on_owner(&owner.mailbox, |_| async {})).unwrap();
        assert_eq!(owner.counts().unparks, 1, "{kind:?}");
        let file = owner.create("file");

        let (tell, told) = mpsc::channel();
        let (go, goes) = mpsc::channel::<()>();
        let busy = run_on_owner(&owner.mailbox, move |_| async move {
            tell.send(()).unwrap();
            goes.recv().unwrap();
        });
        let mut busy = pin!(busy);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(busy.as_mut().poll(&mut cx).is_pending());
        told.recv().unwrap();
        // It is awake now, and kept busy.
        let before = owner.counts();
        let mut len = pin!(owner.remote.len(&file));
        let mut sync = pin!(owner.remote.sync(&file));
        assert!(len.as_mut().poll(&mut cx).is_pending());
        assert!(sync.as_mut().poll(&mut cx).is_pending());
        assert_eq!(owner.counts().unparks, before.unparks, "{kind:?}");
        go.send(()).unwrap();
        block_on(async {
            busy.await.unwrap();
            len.await.unwrap();
            sync.await.unwrap();
        });
        assert_eq!(owner.counts().unparks, before.unparks, "{kind:?}");
    }
}

#[test]
fn a_future_may_be_dropped_at_every_poll() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let io_counters = Arc::<IoCounters>::default();
        let (mut executor, io) = executor(kind, dir.path(), &io_counters, 0);
        let mailbox = Mailbox::new(2);
        let remote = Remote::new(Arc::clone(&mailbox), io_counters);
        let serve = serve(Arc::clone(&mailbox), io, executor.spawner());
        let path = dir.path().join("file");
        let main = async move {
            let file = remote.open(&path, OpenMode::CreateNew).await.unwrap();
            let pool = BufferPool::new(UNIT, 1);
            for polls in 0..6 {
                let waker = CountingWaker::new();
                let mut futures = vec![
                    Box::pin(async {
                        let written = remote.write(&file, 0, pool.take().into(), Harden::Now).await;
                        written.1.unwrap();
                    }) as std::pin::Pin<Box<dyn Future<Output = ()> + '_>>,
                    Box::pin(async {
                        remote.read(&file, 0, pool.take()).await.1.map(drop).unwrap();
                    }),
                    Box::pin(async { remote.sync(&file).await.unwrap() }),
                    Box::pin(async { remote.len(&file).await.map(drop).unwrap() }),
                    // Far longer than the test: dropping it ends it.
                    Box::pin(remote.sleep(1_000_000_000_000)),
                ];
                for future in &mut futures {
                    let mut has_ended = false;
                    for _ in 0..polls {
                        has_ended = has_ended || poll_once(future, &waker).is_some();
                        yield_now().await;
                    }
                }
                drop(futures);
                while mailbox.outstanding() > 0 {
                    yield_now().await;
                }
                assert_eq!(waker.references(), 0, "{kind:?}, after {polls} polls");
            }
            // It still works.
            remote.write(&file, 0, filled(9).into(), Harden::Later).await.1.unwrap();
            let (buf, read) = remote.read(&file, 0, filled(0)).await;
            assert_eq!((read.unwrap(), buf[0]), (UNIT, 9));
            mailbox.close();
        };
        executor.run(vec![Job::new("main", main), Job::new("serve", serve)]).unwrap();
    }
}

#[test]
fn a_dropped_future_gives_its_buffer_and_slot_back_when_the_request_completes() {
    for kind in KINDS {
        let owner = Owner::start(kind, 1);
        let file = owner.create("file");
        let pool = BufferPool::new(UNIT, 1);
        let mut buf = pool.take();
        buf.fill(5);
        let address = buf.as_ptr();
        {
            let mut write = pin!(owner.remote.write(&file, 0, buf.into(), Harden::Now));
            // It may be over by then: whoever polls may be held up for long.
            drop(write.as_mut().poll(&mut Context::from_waker(Waker::noop())));
        }
        // With one slot, this waits for the request that nobody waits for.
        let (buf, read) = block_on(owner.remote.read(&file, 0, filled(0)));
        assert_eq!((read.unwrap(), buf[0]), (UNIT, 5), "{kind:?}");
        owner.is_done();
        assert_eq!(pool.take().as_ptr(), address);
    }
}

#[test]
fn many_requests_in_flight_pass_through_few_slots() {
    for kind in KINDS {
        let owner = Owner::start(kind, 3);
        let file = owner.create("file");
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let (owner, file) = (&owner, &file);
                scope.spawn(move || {
                    for round in 0..20u8 {
                        let (byte, at) = (thread * 32 + round, u64::from(thread) * UNIT as u64);
                        block_on(async {
                            let write =
                                owner.remote.write(file, at, filled(byte).into(), Harden::Later);
                            write.await.1.unwrap();
                            let (buf, read) = owner.remote.read(file, at, filled(0)).await;
                            assert_eq!((read.unwrap(), buf[0]), (UNIT, byte));
                        });
                        assert!(owner.mailbox.outstanding() <= 3);
                    }
                });
            }
        });
        assert_eq!(owner.mailbox.outstanding(), 0);
    }
}

#[test]
fn after_the_end_everything_says_closed_and_hands_buffers_back() {
    for kind in KINDS {
        let mut owner = Owner::start(kind, 2);
        let file = owner.create("file");
        assert!(owner.end());
        let io = &owner.remote;
        let buf = filled(1);
        let address = buf.as_ptr();
        let (buf, read) = block_on(io.read(&file, 0, buf));
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Closed);
        let (buf, wrote) = block_on(io.write(&file, 0, buf.into(), Harden::Now));
        assert_eq!(wrote.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(buf.bytes().as_ptr(), address);
        let path = owner.path("other");
        assert_eq!(block_on(io.sync(&file)).unwrap_err().kind(), ErrorKind::Closed);
        let opened = block_on(io.open(&path, OpenMode::CreateNew));
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::Closed);
        assert!(!path.exists());
        block_on(io.sleep(1_000_000_000_000));
        assert_eq!(owner.mailbox.outstanding(), 0);
    }
}

#[test]
fn an_owner_that_is_closed_first_completes_what_it_has_begun() {
    for kind in KINDS {
        for _ in 0..20 {
            let mut owner = Owner::start(kind, 2);
            let file = owner.create("file");
            let remote = owner.remote.clone();
            let before = owner.counts().messages;
            let mut write = pin!(remote.write(&file, 0, filled(4).into(), Harden::Now));
            let polled = write.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            while owner.counts().messages == before {
                std::thread::yield_now();
            }
            assert!(owner.end());
            let (buf, wrote) = match polled {
                // Whoever polls may be held up for longer than a write takes.
                Poll::Ready(written) => written,
                Poll::Pending => block_on(write),
            };
            wrote.unwrap();
            assert_eq!(buf.bytes()[0], 4, "{kind:?}");
            assert_eq!(owner.mailbox.outstanding(), 0);
        }
    }
}

#[test]
fn a_request_that_no_device_takes_panics_where_it_was_made() {
    let owner = Owner::start(Kind::Ring, 2);
    let file = owner.create("file");
    let read = std::panic::AssertUnwindSafe(|| block_on(owner.remote.read(&file, 5, filled(0))));
    assert!(std::panic::catch_unwind(read).is_err());
    assert_eq!(block_on(owner.remote.len(&file)).unwrap(), 0);
}

#[test]
fn an_owner_may_have_more_requests_than_its_io_takes_at_once() {
    const REQUESTS: usize = 1000;
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let (mut executor, io) = executor(kind, dir.path(), &Arc::default(), 0);
        let spawner = executor.spawner();
        let path = dir.path().join("file");
        let main = async move {
            let file = io.open(&path, OpenMode::CreateNew).await.unwrap();
            io.write(&file, 0, filled(1).into(), Harden::Later).await.1.unwrap();
            let done = Rc::new(Cell::new(0));
            let all = Rc::new(Event::default());
            for _ in 0..REQUESTS {
                let (io, file) = (io.clone(), file.clone());
                let (done, all) = (Rc::clone(&done), Rc::clone(&all));
                spawner.spawn("read", async move {
                    io.read(&file, 0, IoBuf::zeroed(UNIT)).await.1.unwrap();
                    done.set(done.get() + 1);
                    if done.get() == REQUESTS {
                        all.set();
                    }
                });
            }
            all.wait().await;
        };
        executor.run(vec![Job::new("main", main)]).unwrap();
    }
}
