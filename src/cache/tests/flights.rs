//! Flights, polled by hand.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::base::error::{Error, Result};
use crate::cache::{Flights, Follow, Join, Landing, Lead};

type Shared = Flights<(u64, u32), Arc<[u8]>>;
type Leader = Lead<(u64, u32), Arc<[u8]>>;
type Follower = Follow<(u64, u32), Arc<[u8]>>;

const KEY: (u64, u32) = (7, 1);

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn lead(flights: &Arc<Shared>) -> Leader {
    match flights.join(&KEY) {
        Join::Lead(lead) => lead,
        Join::Follow(_) => panic!("somebody else leads"),
    }
}

fn follow(flights: &Arc<Shared>) -> Follower {
    match flights.join(&KEY) {
        Join::Follow(follow) => follow,
        Join::Lead(_) => panic!("nobody leads"),
    }
}

fn poll(follow: &mut Follower, count: &Arc<Count>) -> Option<Landing<(u64, u32), Arc<[u8]>>> {
    let waker = Waker::from(Arc::clone(count));
    match Pin::new(follow).poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(landing) => Some(landing),
        Poll::Pending => None,
    }
}

fn read(landing: Option<Landing<(u64, u32), Arc<[u8]>>>) -> Result<Arc<[u8]>> {
    match landing {
        Some(Landing::Read(read)) => read,
        Some(Landing::Lead(_)) => panic!("it is to lead"),
        None => panic!("it is not ready"),
    }
}

#[test]
fn all_who_follow_get_what_the_leader_read() {
    let flights = Shared::new();
    let leader = lead(&flights);
    let mut followers: Vec<_> =
        (0..3).map(|_| (follow(&flights), Arc::<Count>::default())).collect();
    for (follower, count) in &mut followers[..2] {
        assert!(poll(follower, count).is_none());
    }
    // Another block is another flight.
    assert!(matches!(flights.join(&(7, 2)), Join::Lead(_)));
    leader.land(Ok(Arc::from(*b"block")));
    // Whoever comes now reads again.
    drop(lead(&flights));
    for (follower, count) in &mut followers {
        assert_eq!(*read(poll(follower, count)).expect("it was read"), *b"block");
    }
    assert_eq!(followers.iter().map(|(_, count)| count.get()).sum::<usize>(), 2);
    assert_eq!(flights.len(), 0);
}

#[test]
fn all_who_follow_get_the_error() {
    let flights = Shared::new();
    let leader = lead(&flights);
    let mut follower = follow(&flights);
    leader.land(Err(Error::closed()));
    let error = read(poll(&mut follower, &Arc::default())).expect_err("it failed");
    assert_eq!(error.kind(), Error::closed().kind());
    assert_eq!(flights.len(), 0);
}

#[test]
fn a_leader_that_is_dropped_hands_over_to_who_has_waited_longest() {
    let flights = Shared::new();
    let leader = lead(&flights);
    let counts = [(); 3].map(|()| Arc::<Count>::default());
    let mut followers = [(); 3].map(|()| follow(&flights));
    for (follower, count) in followers.iter_mut().zip(&counts) {
        assert!(poll(follower, count).is_none());
    }
    drop(leader);
    assert_eq!(counts.each_ref().map(|count| count.get()), [1, 0, 0]);
    // It goes away as well, before it was polled: the next one's turn.
    let [first, mut second, mut third] = followers;
    drop(first);
    assert_eq!(counts.each_ref().map(|count| count.get()), [1, 1, 0]);
    let Some(Landing::Lead(leader)) = poll(&mut second, &counts[1]) else {
        panic!("it is to lead");
    };
    assert!(poll(&mut third, &counts[2]).is_none());
    leader.land(Ok(Arc::from(*b"second")));
    assert_eq!(*read(poll(&mut third, &counts[2])).expect("read"), *b"second");
    assert_eq!(flights.len(), 0);
    // No waker was kept.
    assert!(counts.iter().all(|count| Arc::strong_count(count) == 1));
}

#[test]
fn who_joins_during_a_handover_leads() {
    let flights = Shared::new();
    let leader = lead(&flights);
    let (mut follower, count) = (follow(&flights), Arc::<Count>::default());
    assert!(poll(&mut follower, &count).is_none());
    drop(leader);
    let leader = lead(&flights);
    assert!(poll(&mut follower, &count).is_none());
    leader.land(Ok(Arc::from(*b"late")));
    assert_eq!(count.get(), 2);
    assert_eq!(*read(poll(&mut follower, &count)).expect("read"), *b"late");
    assert_eq!(flights.len(), 0);
}

#[test]
fn flights_that_everybody_left_are_forgotten() {
    let flights = Shared::new();
    let leader = lead(&flights);
    let (mut follower, count) = (follow(&flights), Arc::<Count>::default());
    assert!(poll(&mut follower, &count).is_none());
    drop(follower);
    assert_eq!(Arc::strong_count(&count), 1);
    drop(leader);
    assert_eq!(flights.len(), 0);

    // A result that nobody took.
    let block: Arc<[u8]> = Arc::from(*b"block");
    let leader = lead(&flights);
    let follower = follow(&flights);
    leader.land(Ok(Arc::clone(&block)));
    assert_eq!(Arc::strong_count(&block), 2);
    drop(follower);
    assert_eq!((flights.len(), Arc::strong_count(&block)), (0, 1));

    // A follower that leads, and gives up.
    let leader = lead(&flights);
    let mut follower = follow(&flights);
    drop(leader);
    assert!(matches!(poll(&mut follower, &count), Some(Landing::Lead(_))));
    assert_eq!(flights.len(), 0);
}
