//! An owner that sleeps, and threads that wake its tasks.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;

use super::{choose, explore, poll_and_drop};
use crate::base::error::Result;
use crate::base::sync::atomic::{AtomicUsize, Ordering};
use crate::base::sync::thread;
use crate::io::blocking::Parking;
use crate::io::{Driver, Unpark};
use crate::runtime::{Event, Executor, Job, Mailbox, OwnerConfig, block_on, oneshot};

/// The driver of an owner without a ring, in a world where no time passes.
struct Timeless(Parking);

impl Driver for Timeless {
    fn turn(&self, may_sleep: bool, awake: &dyn Fn()) -> Result<()> {
        self.0.turn(may_sleep, awake)
    }

    fn has_work(&self, _now_ns: u64) -> bool {
        false
    }

    fn now_ns(&self) -> u64 {
        0
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        self.0.unparker()
    }
}

/// Runs jobs as an owner does, to their end.
fn own<F: Future<Output = ()> + 'static>(jobs: impl IntoIterator<Item = F>) {
    let (parking, _) = Parking::new(Arc::default());
    let config = OwnerConfig { spin_ns: 0, logs_stalls: false, is_pinned: false };
    let jobs = jobs.into_iter().map(|job| Job::new("job", job)).collect();
    Executor::new(Timeless(parking), config).run(jobs).expect("a driver that does not fail");
}

/// Two tasks, each woken by two threads: a wake-up that comes while the owner
/// falls asleep is not lost.
#[test]
fn a_task_is_polled_after_every_wake_up() {
    const TASKS: usize = 2;
    type State = (Event, AtomicUsize);
    explore(6000, || {
        let shared: Arc<[State; TASKS]> = Arc::default();
        let jobs = Arc::clone(&shared);
        let owner = thread::spawn(move || {
            own((0..TASKS).map(|task| {
                let shared = Arc::clone(&jobs);
                async move {
                    let (event, count) = &shared[task];
                    while count.load(Ordering::SeqCst) < 2 {
                        event.wait().await;
                    }
                }
            }));
        });
        let wakers: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    for (event, count) in shared.iter() {
                        count.fetch_add(1, Ordering::SeqCst);
                        event.set();
                    }
                })
            })
            .collect();
        wakers.into_iter().for_each(|waker| waker.join().expect("no panic"));
        owner.join().expect("no panic");
    });
}

/// Requests with answers, as of threads that use an owner's I/O: the tasks that
/// answer are started while the owner runs.
#[test]
fn requests_of_other_threads_are_answered() {
    explore(3000, || {
        let mailbox = Mailbox::<oneshot::Sender<usize>>::new(2);
        let served = Arc::clone(&mailbox);
        let owner = thread::spawn(move || {
            let (parking, _) = Parking::new(Arc::default());
            let config = OwnerConfig { spin_ns: 0, logs_stalls: false, is_pinned: false };
            let mut executor = Executor::new(Timeless(parking), config);
            let spawner = executor.spawner();
            let in_flight = Rc::new(Event::default());
            let serve = async move {
                let mut batch = VecDeque::new();
                while poll_fn(|cx| served.poll_receive(cx, &mut batch)).await {
                    for (reply, slot) in batch.drain(..) {
                        let ended = Rc::clone(&in_flight);
                        spawner.spawn("request", async move {
                            crate::runtime::yield_now().await;
                            drop(slot);
                            reply.send(7);
                            ended.set();
                        });
                    }
                }
                while served.outstanding() > 0 {
                    in_flight.wait().await;
                }
            };
            executor.run(vec![Job::new("serve", serve)]).expect("a driver that does not fail");
        });
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || {
                    if choose(3) == 0 {
                        poll_and_drop(mailbox.reserve());
                    }
                    let (reply, answer) = oneshot::channel();
                    block_on(mailbox.reserve()).expect("it is open").send(reply);
                    if choose(3) > 0 {
                        assert_eq!(block_on(answer), Ok(7));
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("no panic"));
        mailbox.close();
        owner.join().expect("no panic");
    });
}
