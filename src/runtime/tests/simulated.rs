//! Requests to an owner on the simulated machine, where it is known what is
//! in flight.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::{CountingWaker, poll_once};
use crate::base::error::ErrorKind;
use crate::base::limits::UNIT;
use crate::io::sim::Sim;
use crate::io::{BufferPool, File, GroupBuf, Harden, Io, IoBuf, OpenMode, WriteBuf};
use crate::runtime::{LocalIo, Mailbox, Message, Remote, Spawner, run_on_owner, serve, yield_now};

/// Longer than any request.
const LONG_NS: u64 = 1_000_000_000;

struct Machine {
    sim: Sim,
    mailbox: Arc<Mailbox<Message>>,
    spawner: Spawner,
    remote: Remote,
    file: File,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its tasks hold the machine that holds them.
        self.sim.kill();
    }
}

impl Machine {
    /// Steps the machine until this many requests were submitted to it since
    /// its start, and no further: none of the last ones has completed.
    fn until_submitted(&self, requests: u64) {
        let submitted = || {
            let counts = self.sim.counters().counts();
            counts.reads + counts.writes
        };
        self.sim.block_on(async {
            while submitted() < requests {
                yield_now().await;
            }
        });
        assert_eq!(submitted(), requests);
    }
}

fn machine(slots: usize) -> Machine {
    let sim = Sim::new(7);
    let mailbox = Mailbox::new(slots);
    let spawner = Spawner::simulated(&sim);
    let io = LocalIo::from(sim.clone());
    spawner.spawn("serve", serve(Arc::clone(&mailbox), io, spawner.clone()));
    let remote = Remote::simulated(Arc::clone(&mailbox), sim.clone());
    let file = sim.block_on(remote.open(Path::new("/file"), OpenMode::CreateNew)).unwrap();
    let mut buf = IoBuf::zeroed(UNIT);
    buf.fill(3);
    sim.block_on(remote.write(&file, 0, buf.into(), Harden::Now)).1.unwrap();
    Machine { sim, mailbox, spawner, remote, file }
}

#[test]
fn a_future_may_be_dropped_at_every_poll() {
    let waker = CountingWaker::new();
    for slots in [1, 4] {
        let m = machine(slots);
        let pool = BufferPool::new(UNIT, 1);
        for polls in 0..4 {
            for steps in [0, 1, 2, 5, 1000] {
                let buf = pool.take();
                let address = buf.as_ptr();
                let mut read = Box::pin(m.remote.read(&m.file, 0, buf));
                let mut ended = None;
                for _ in 0..polls {
                    if ended.is_none() {
                        ended = poll_once(&mut read, &waker);
                    }
                    m.sim.block_on(async {
                        for _ in 0..steps {
                            yield_now().await;
                        }
                    });
                }
                drop((read, ended));
                m.sim.run_for(LONG_NS);
                assert_eq!(m.mailbox.outstanding(), 0, "after {polls} polls");
                assert_eq!(pool.take().as_ptr(), address, "after {polls} polls");
                assert_eq!(waker.references(), 0);
            }
        }
        let (buf, read) = m.sim.block_on(m.remote.read(&m.file, 0, pool.take()));
        assert_eq!((read.unwrap(), buf[0]), (UNIT, 3));
    }
}

#[test]
fn who_sleeps_holds_nobody_up() {
    let m = machine(1);
    let waker = CountingWaker::new();
    let mut sleeps = Box::pin(m.remote.sleep(1000 * LONG_NS));
    assert!(poll_once(&mut sleeps, &waker).is_none());
    let (buf, read) = m.sim.block_on(m.remote.read(&m.file, 0, IoBuf::zeroed(UNIT)));
    assert_eq!((read.unwrap(), buf[0]), (UNIT, 3));
    assert!(m.sim.now_ns() < LONG_NS && poll_once(&mut sleeps, &waker).is_none());
    m.sim.run_for(1000 * LONG_NS);
    assert!(poll_once(&mut sleeps, &waker).is_some());
}

#[test]
fn a_full_mailbox_holds_requests_back_until_one_completes() {
    let m = machine(2);
    let wakers: Vec<_> = (0..3).map(|_| CountingWaker::new()).collect();
    let mut reads: Vec<_> =
        (0..3).map(|_| Box::pin(m.remote.read(&m.file, 0, IoBuf::zeroed(UNIT)))).collect();
    let messages = m.spawner.counters().counts().messages;
    for (read, waker) in reads.iter_mut().zip(&wakers) {
        assert!(poll_once(read, waker).is_none());
    }
    m.until_submitted(3);
    assert_eq!(m.mailbox.outstanding(), 2);
    assert_eq!(m.spawner.counters().counts().messages, messages + 2);
    m.sim.run_for(LONG_NS);
    assert_eq!(wakers.iter().map(CountingWaker::count).collect::<Vec<_>>(), [1, 1, 1]);
    assert!(poll_once(&mut reads[2], &wakers[2]).is_none());
    m.sim.run_for(LONG_NS);
    for (mut read, waker) in reads.into_iter().zip(&wakers) {
        assert_eq!(poll_once(&mut read, waker).expect("ready").1.unwrap(), UNIT);
    }
    assert_eq!(m.mailbox.outstanding(), 0);
}

#[test]
fn closing_completes_what_is_in_flight_and_hands_back_what_is_queued() {
    let m = machine(8);
    let waker = CountingWaker::new();
    let mut in_flight = Box::pin(m.remote.read(&m.file, 0, IoBuf::zeroed(UNIT)));
    assert!(poll_once(&mut in_flight, &waker).is_none());
    m.until_submitted(2);
    let (a, b) = (IoBuf::zeroed(UNIT), IoBuf::zeroed(UNIT));
    let addresses = (a.as_ptr(), b.as_ptr());
    let mut read = Box::pin(m.remote.read(&m.file, 0, a));
    let mut write = Box::pin(m.remote.write(&m.file, 0, b.into(), Harden::Now));
    let mut sync = Box::pin(m.remote.sync(&m.file));
    let mut len = Box::pin(m.remote.len(&m.file));
    assert!(poll_once(&mut read, &waker).is_none());
    assert!(poll_once(&mut write, &waker).is_none());
    assert!(poll_once(&mut sync, &waker).is_none());
    assert!(poll_once(&mut len, &waker).is_none());

    m.mailbox.close();
    let (buf, result) = poll_once(&mut read, &waker).expect("an answer");
    assert_eq!((result.unwrap_err().kind(), buf.as_ptr()), (ErrorKind::Closed, addresses.0));
    let (buf, result) = poll_once(&mut write, &waker).expect("an answer");
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(buf.bytes().as_ptr(), addresses.1);
    let result = poll_once(&mut sync, &waker).expect("an answer");
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Closed);
    let result = poll_once(&mut len, &waker).expect("an answer");
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Closed);

    m.sim.run_for(LONG_NS);
    let (buf, read) = poll_once(&mut in_flight, &waker).expect("ready");
    assert_eq!((read.unwrap(), buf[0]), (UNIT, 3));
    assert_eq!(m.mailbox.outstanding(), 0);
}

#[test]
fn an_owner_that_dies_leaves_an_answer_for_everybody() {
    let m = machine(8);
    let waker = CountingWaker::new();
    let mut read = Box::pin(m.remote.read(&m.file, 0, IoBuf::zeroed(2 * UNIT)));
    let prefix = WriteBuf::Prefix(IoBuf::zeroed(2 * UNIT), UNIT);
    let mut write = Box::pin(m.remote.write(&m.file, 0, prefix, Harden::Now));
    let group = Arc::new(GroupBuf::new(UNIT));
    group.claim(UNIT).expect("room").finish();
    group.seal();
    let shared = WriteBuf::Group(Arc::clone(&group), UNIT);
    let mut grouped = Box::pin(m.remote.write(&m.file, 0, shared, Harden::Now));
    let inside = Rc::new(());
    let held = Rc::clone(&inside);
    let mut call = Box::pin(run_on_owner(&m.mailbox, |_| async {
        let not_send = Rc::new(());
        std::future::pending::<()>().await;
        drop(not_send);
    }));
    m.spawner.spawn("other", async move {
        std::future::pending::<()>().await;
        drop(held);
    });
    assert!(poll_once(&mut read, &waker).is_none());
    assert!(poll_once(&mut write, &waker).is_none());
    assert!(poll_once(&mut grouped, &waker).is_none());
    assert!(poll_once(&mut call, &waker).is_none());
    m.until_submitted(4);
    m.sim.kill();
    assert_eq!(Rc::strong_count(&inside), 1);
    let (buf, result) = poll_once(&mut read, &waker).expect("an answer");
    assert_eq!((result.unwrap_err().kind(), buf.len()), (ErrorKind::Closed, 2 * UNIT));
    let (buf, result) = poll_once(&mut write, &waker).expect("an answer");
    assert_eq!((result.unwrap_err().kind(), buf.bytes().len()), (ErrorKind::Closed, UNIT));
    let (buf, result) = poll_once(&mut grouped, &waker).expect("an answer");
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Closed);
    assert!(matches!(buf, WriteBuf::Group(back, UNIT) if Arc::ptr_eq(&back, &group)));
    let result = poll_once(&mut call, &waker).expect("an answer");
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Closed);
    let (_, refused) = m.sim.block_on(m.remote.read(&m.file, 0, IoBuf::zeroed(UNIT)));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn closures_run_on_the_simulated_owner() {
    let m = machine(1);
    let file = m.file.clone();
    let read = m.sim.block_on(run_on_owner(&m.mailbox, |io| async move {
        let not_send = Rc::new(());
        yield_now().await;
        let (buf, read) = io.read(&file, 0, IoBuf::zeroed(UNIT)).await;
        drop(not_send);
        (buf[0], read.unwrap())
    }));
    assert_eq!(read.unwrap(), (3, UNIT));
    let before_ns = m.remote.now_ns();
    m.sim.block_on(m.remote.sleep(5_000_000));
    assert!(m.remote.now_ns() >= before_ns + 5_000_000);
}
