//! The mailbox: senders, a receiver, those who give up, and its end.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;

use super::{choose, explore, poll_and_drop};
use crate::base::error::ErrorKind;
use crate::base::sync::atomic::{AtomicUsize, Ordering};
use crate::base::sync::thread;
use crate::runtime::{Mailbox, block_on};

const SLOTS: usize = 2;

/// Receives until the mailbox is closed; how many messages there were. Keeps
/// some of their slots for a while.
fn receive(mailbox: &Arc<Mailbox<usize>>, until: usize) -> usize {
    let (mut count, mut kept) = (0, Vec::new());
    while count < until {
        let mut batch = VecDeque::new();
        if !block_on(poll_fn(|cx| mailbox.poll_receive(cx, &mut batch))) {
            break;
        }
        assert!(batch.len() + kept.len() <= SLOTS, "more messages than slots");
        assert!(mailbox.outstanding() <= SLOTS);
        count += batch.len();
        kept.clear();
        if count < until && choose(2) == 0 {
            kept.extend(batch.into_iter().map(|(_, slot)| slot));
            // A slot that is kept until the next message comes would wait for
            // itself when both are.
            kept.truncate(SLOTS - 1);
        }
    }
    count
}

/// Everybody gets through, whoever gives up meanwhile: no wake-up is lost.
#[test]
fn every_message_arrives_through_few_slots() {
    const SENDERS: usize = 3;
    const EACH: usize = 2;
    explore(4000, || {
        let mailbox = Mailbox::new(SLOTS);
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || {
                    for number in 0..EACH {
                        match choose(4) {
                            // Gives up while it waits, or with a slot.
                            0 => poll_and_drop(mailbox.reserve()),
                            1 => drop(block_on(mailbox.reserve())),
                            _ => {}
                        }
                        let permit = block_on(mailbox.reserve()).expect("it is open");
                        permit.send(sender * EACH + number);
                    }
                })
            })
            .collect();
        assert_eq!(receive(&mailbox, SENDERS * EACH), SENDERS * EACH);
        senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
        assert_eq!(mailbox.outstanding(), 0);
    });
}

#[test]
fn closing_ends_the_waits_of_all() {
    explore(4000, || {
        let mailbox = Mailbox::new(SLOTS);
        let sent = Arc::new(AtomicUsize::new(0));
        let senders: Vec<_> = (0..3)
            .map(|number| {
                let (mailbox, sent) = (Arc::clone(&mailbox), Arc::clone(&sent));
                thread::spawn(move || {
                    for _ in 0..2 {
                        match block_on(mailbox.reserve()) {
                            Ok(permit) => {
                                sent.fetch_add(1, Ordering::SeqCst);
                                permit.send(number);
                            }
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Closed);
                                return;
                            }
                        }
                    }
                })
            })
            .collect();
        let receiver = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || receive(&mailbox, usize::MAX))
        };
        mailbox.close();
        senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
        assert!(receiver.join().expect("no panic") <= sent.load(Ordering::SeqCst));
        assert_eq!(mailbox.outstanding(), 0);
    });
}
