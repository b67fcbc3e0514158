//! Oneshots, events, the lock for tasks, and `join_all`.

use std::sync::Arc;

use super::{choose, explore, poll_and_drop};
use crate::base::sync::atomic::{AtomicUsize, Ordering};
use crate::base::sync::{Mutex, thread};
use crate::runtime::{AsyncMutex, Event, block_on, first_of, join_all, oneshot, yield_now};

#[test]
fn a_oneshot_gives_its_value_or_says_that_there_is_none() {
    explore(5000, || {
        let (sender, receiver) = oneshot::channel();
        let sends = choose(2) == 0;
        let sender = thread::spawn(move || {
            if sends {
                sender.send(7);
            }
        });
        let expected = if sends { Ok(7) } else { Err(oneshot::Gone) };
        assert_eq!(block_on(receiver), expected);
        sender.join().expect("no panic");
    });
}

#[test]
fn a_oneshot_that_nobody_waits_for_keeps_nothing() {
    explore(5000, || {
        let value = Arc::new(());
        let (mut sender, receiver) = oneshot::channel();
        let sent = Arc::clone(&value);
        let waits = choose(2) == 0;
        let sender = thread::spawn(move || {
            if waits {
                block_on(std::future::poll_fn(|cx| sender.poll_unwanted(cx)));
            }
            sender.send(sent);
        });
        // A poll leaves a waker there.
        let mut receiver = receiver;
        if !waits && choose(2) == 0 {
            poll_and_drop(&mut receiver);
        }
        drop(receiver);
        sender.join().expect("no panic");
        assert_eq!(Arc::strong_count(&value), 1);
    });
}

#[test]
fn an_event_wakes_whoever_looks_at_the_state_behind_it() {
    explore(5000, || {
        let shared = Arc::new((Event::default(), AtomicUsize::new(0)));
        let setters: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.1.fetch_add(1, Ordering::SeqCst);
                    shared.0.set();
                })
            })
            .collect();
        block_on(async {
            let (event, count) = &*shared;
            while count.load(Ordering::SeqCst) < 2 {
                if choose(3) == 0 {
                    // Somebody who waits as well, and goes away again.
                    first_of(event.wait(), yield_now()).await;
                } else {
                    event.wait().await;
                }
            }
        });
        setters.into_iter().for_each(|setter| setter.join().expect("no panic"));
    });
}

/// Several that wait for one event, and pass it on: the owner's jobs that lead
/// end in this way.
#[test]
fn consumers_that_raise_the_event_again_all_end() {
    explore(3000, || {
        let event = Arc::new(Event::default());
        let consumers: Vec<_> = (0..3)
            .map(|_| {
                let event = Arc::clone(&event);
                thread::spawn(move || {
                    block_on(event.wait());
                    event.set();
                })
            })
            .collect();
        event.set();
        consumers.into_iter().for_each(|consumer| consumer.join().expect("no panic"));
    });
}

#[test]
fn one_at_a_time_has_the_lock_for_tasks() {
    explore(3000, || {
        let shared = Arc::new((AsyncMutex::new(0), AtomicUsize::new(0)));
        let threads: Vec<_> = (0..3)
            .map(|number| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let (mutex, inside) = &*shared;
                    if number == 2 {
                        poll_and_drop(mutex.lock());
                    }
                    block_on(async {
                        let mut turn = mutex.lock().await;
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        let before = *turn;
                        yield_now().await;
                        *turn = before + 1;
                        inside.fetch_sub(1, Ordering::SeqCst);
                    });
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(block_on(async { *shared.0.lock().await }), 3);
    });
}

#[test]
fn all_parts_of_a_join_are_waited_for() {
    explore(3000, || {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::channel()).unzip();
        let senders = Arc::new(Mutex::new(senders));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let senders = Arc::clone(&senders);
                thread::spawn(move || {
                    loop {
                        let sender = senders.lock().pop();
                        match sender {
                            Some(sender) => sender.send(()),
                            None => return,
                        }
                    }
                })
            })
            .collect();
        assert_eq!(block_on(join_all(receivers)), [Ok(()); 3]);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
}
