//! The mailbox alone.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{CountingWaker, poll_once};
use crate::base::error::ErrorKind;
use crate::runtime::mailbox::{Mailbox, Slot};
use crate::runtime::{Event, block_on};

type Received<M> = VecDeque<(M, Slot<M>)>;

fn receive<M>(mailbox: &Arc<Mailbox<M>>, waker: &CountingWaker) -> (Option<bool>, Received<M>) {
    let mut into = VecDeque::new();
    let received = poll_once(&mut poll_fn(|cx| mailbox.poll_receive(cx, &mut into)), waker);
    (received, into)
}

fn send<M>(mailbox: &Arc<Mailbox<M>>, message: M) {
    mailbox.try_reserve().unwrap().expect("a free slot").send(message);
}

#[test]
fn messages_arrive_in_order_and_wake_the_receiver_once() {
    let mailbox = Mailbox::new(4);
    let waker = CountingWaker::new();
    assert!(receive(&mailbox, &waker).0.is_none());
    send(&mailbox, 1);
    send(&mailbox, 2);
    assert_eq!(waker.count(), 1);
    let (received, messages) = receive(&mailbox, &waker);
    assert_eq!(received, Some(true));
    assert_eq!(messages.iter().map(|(message, _)| *message).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(mailbox.outstanding(), 2);
    drop(messages);
    assert_eq!(mailbox.outstanding(), 0);
    assert!(receive(&mailbox, &waker).0.is_none());
}

#[test]
fn a_slot_is_taken_from_the_reservation_to_the_end_of_the_request() {
    let mailbox = Mailbox::new(1);
    let waker = CountingWaker::new();
    let permit = mailbox.try_reserve().unwrap().expect("a free slot");
    assert!(mailbox.try_reserve().unwrap().is_none());
    drop(permit);
    send(&mailbox, ());
    assert!(mailbox.try_reserve().unwrap().is_none());
    let (_, mut messages) = receive(&mailbox, &waker);
    assert!(mailbox.try_reserve().unwrap().is_none());
    let (_, slot) = messages.pop_front().expect("a message");
    drop(slot);
    assert!(mailbox.try_reserve().unwrap().is_some());
}

#[test]
fn senders_are_served_in_the_order_in_which_they_came() {
    let mailbox = Mailbox::<()>::new(3);
    let kept = mailbox.try_reserve().unwrap().unwrap();
    let permits: Vec<_> = (0..2).map(|_| mailbox.try_reserve().unwrap().unwrap()).collect();
    let wakers: Vec<_> = (0..4).map(|_| CountingWaker::new()).collect();
    let mut waiting: Vec<_> = (0..4).map(|_| mailbox.reserve()).collect();
    let counts = || wakers.iter().map(CountingWaker::count).collect::<Vec<_>>();
    for _ in 0..3 {
        for (reserve, waker) in waiting.iter_mut().zip(&wakers) {
            assert!(poll_once(reserve, waker).is_none());
        }
    }
    let mut permits = permits.into_iter();
    drop(permits.next());
    assert_eq!(counts(), [1, 0, 0, 0]);
    // Nobody overtakes: neither one that waits nor one that comes now.
    assert!(poll_once(&mut waiting[1], &wakers[1]).is_none());
    assert!(mailbox.try_reserve().unwrap().is_none());
    assert!(poll_once(&mut mailbox.reserve(), &wakers[3]).is_none());
    // One that is woken but not polled does not hold up the next.
    drop(permits.next());
    assert_eq!(counts(), [1, 1, 0, 0]);
    let second = poll_once(&mut waiting[1], &wakers[1]).expect("its turn").unwrap();
    assert!(poll_once(&mut waiting[2], &wakers[2]).is_none());
    drop(second);
    assert_eq!(counts(), [1, 1, 1, 0]);
    let first = poll_once(&mut waiting[0], &wakers[0]).expect("its turn").unwrap();
    let third = poll_once(&mut waiting[2], &wakers[2]).expect("its turn").unwrap();
    assert!(poll_once(&mut waiting[3], &wakers[3]).is_none());
    drop((first, third));
    assert_eq!(counts(), [1, 1, 1, 1]);
    assert!(poll_once(&mut waiting[3], &wakers[3]).is_some());
    drop(kept);
    assert_eq!(mailbox.outstanding(), 0);
}

#[test]
fn senders_that_are_never_polled_do_not_hold_up_the_others() {
    let mailbox = Mailbox::<()>::new(2);
    let permits: Vec<_> = (0..2).map(|_| mailbox.try_reserve().unwrap().unwrap()).collect();
    let wakers: Vec<_> = (0..5).map(|_| CountingWaker::new()).collect();
    let mut waiting: Vec<_> = (0..5).map(|_| mailbox.reserve()).collect();
    for (reserve, waker) in waiting.iter_mut().zip(&wakers) {
        assert!(poll_once(reserve, waker).is_none());
    }
    drop(permits);
    assert!(wakers.iter().all(|waker| waker.count() > 0));
    // Those that are polled go on, as many at a time as there are slots.
    let third = poll_once(&mut waiting[2], &wakers[2]).expect("a free slot").unwrap();
    let fourth = poll_once(&mut waiting[3], &wakers[3]).expect("a free slot").unwrap();
    assert!(poll_once(&mut waiting[4], &wakers[4]).is_none());
    let count = wakers[4].count();
    drop(third);
    assert_eq!(wakers[4].count(), count + 1);
    let last = poll_once(&mut waiting[4], &wakers[4]).expect("its turn").unwrap();
    drop((fourth, last));
    // The others were woken once, and may come at any time.
    for at in [1, 0] {
        assert!(poll_once(&mut waiting[at], &wakers[at]).is_some());
    }
    assert_eq!(mailbox.outstanding(), 0);
}

#[test]
fn a_sender_that_comes_passes_those_that_are_never_polled() {
    let mailbox = Mailbox::<()>::new(2);
    let permits: Vec<_> = (0..2).map(|_| mailbox.try_reserve().unwrap().unwrap()).collect();
    let waker = CountingWaker::new();
    let mut waiting: Vec<_> = (0..2).map(|_| mailbox.reserve()).collect();
    for reserve in &mut waiting {
        assert!(poll_once(reserve, &waker).is_none());
    }
    drop(permits);
    assert_eq!(waker.count(), 2);
    let mut permits: Vec<_> = (0..2).map(|_| poll_once(&mut mailbox.reserve(), &waker)).collect();
    assert!(permits.iter().all(Option::is_some));
    // Those that were passed may come after all.
    assert!(poll_once(&mut waiting[0], &waker).is_none());
    let count = waker.count();
    permits.clear();
    assert_eq!(waker.count(), count + 1);
    assert!(waiting.iter_mut().all(|reserve| poll_once(reserve, &waker).is_some()));
    assert_eq!(mailbox.outstanding(), 0);
}

#[test]
fn a_waiter_that_goes_passes_its_wake_up_on() {
    let mailbox = Mailbox::<()>::new(2);
    let kept = mailbox.try_reserve().unwrap().unwrap();
    let permit = mailbox.try_reserve().unwrap().unwrap();
    let wakers: Vec<_> = (0..4).map(|_| CountingWaker::new()).collect();
    let mut waiting: Vec<_> = (0..4).map(|_| Some(mailbox.reserve())).collect();
    for (reserve, waker) in waiting.iter_mut().zip(&wakers) {
        assert!(poll_once(reserve.as_mut().expect("all wait"), waker).is_none());
    }
    let counts = || wakers.iter().map(CountingWaker::count).collect::<Vec<_>>();
    // Nobody was woken yet, so there is nothing to pass on.
    waiting[1] = None;
    assert_eq!(counts(), [0, 0, 0, 0]);
    drop(permit);
    assert_eq!(counts(), [1, 0, 0, 0]);
    waiting[0] = None;
    assert_eq!(counts(), [1, 0, 1, 0]);
    waiting[3] = None;
    assert_eq!(counts(), [1, 0, 1, 0]);
    assert!(poll_once(waiting[2].as_mut().expect("it waits"), &wakers[2]).is_some());
    // No trace of the others is left.
    drop(kept);
    assert!(mailbox.try_reserve().unwrap().is_some());
    drop(waiting);
    assert!(wakers.iter().all(|waker| waker.references() == 0));
}

#[test]
fn a_closed_mailbox_drops_what_is_queued_and_refuses_the_rest() {
    let mailbox = Mailbox::new(4);
    let (sender, receiver) = (CountingWaker::new(), CountingWaker::new());
    let value = Arc::new(());
    assert!(receive(&mailbox, &receiver).0.is_none());
    send(&mailbox, Arc::clone(&value));
    let (_, in_flight) = receive(&mailbox, &receiver);
    send(&mailbox, Arc::clone(&value));
    let permits: Vec<_> = (0..2).map(|_| mailbox.try_reserve().unwrap().unwrap()).collect();
    let mut reserve = mailbox.reserve();
    assert!(poll_once(&mut reserve, &sender).is_none());
    assert_eq!(Arc::strong_count(&value), 3);

    mailbox.close();
    assert_eq!(Arc::strong_count(&value), 2);
    assert_eq!(sender.count(), 1);
    let refused = poll_once(&mut reserve, &sender).expect("an answer");
    assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::Closed));
    assert_eq!(mailbox.try_reserve().err().map(|error| error.kind()), Some(ErrorKind::Closed));
    for permit in permits {
        permit.send(Arc::clone(&value));
    }
    assert_eq!(receive(&mailbox, &receiver).0, Some(false));
    assert_eq!((mailbox.outstanding(), Arc::strong_count(&value)), (1, 2));
    drop(in_flight);
    assert_eq!((mailbox.outstanding(), Arc::strong_count(&value)), (0, 1));
}

#[test]
fn closing_wakes_a_receiver_that_waits() {
    let mailbox = Mailbox::<()>::new(1);
    let waker = CountingWaker::new();
    assert!(receive(&mailbox, &waker).0.is_none());
    mailbox.close();
    assert_eq!(waker.count(), 1);
}

#[test]
fn many_threads_send_through_few_slots() {
    const SENDERS: usize = 4;
    const EACH: usize = 5000;
    let mailbox = Mailbox::new(2);
    let most = AtomicUsize::new(0);
    let received = std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                for number in 0..EACH {
                    // Now and then, one gives up while it waits.
                    if number % 7 == 0 {
                        drop(poll_once(&mut mailbox.reserve(), &CountingWaker::new()));
                    }
                    block_on(mailbox.reserve()).unwrap().send(number);
                }
            });
        }
        let receives = scope.spawn(|| {
            let mut count = 0;
            while count < SENDERS * EACH {
                let mut batch = VecDeque::new();
                assert!(block_on(poll_fn(|cx| mailbox.poll_receive(cx, &mut batch))));
                count += batch.len();
                most.fetch_max(mailbox.outstanding(), Ordering::Relaxed);
            }
            count
        });
        receives.join().expect("no panic")
    });
    assert_eq!(received, SENDERS * EACH);
    assert_eq!(mailbox.outstanding(), 0);
    assert!((1..=2).contains(&most.into_inner()));
}

#[test]
fn reserving_works_beside_other_waits() {
    let mailbox = Mailbox::<()>::new(1);
    let permit = mailbox.try_reserve().unwrap().unwrap();
    let stop = Event::default();
    stop.set();
    block_on(crate::runtime::first_of(async { drop(mailbox.reserve().await) }, stop.wait()));
    drop(permit);
    assert!(mailbox.try_reserve().unwrap().is_some());
}
