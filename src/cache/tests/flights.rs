//! Flights, polled by hand.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::base::error::{Error, Result};
use crate::cache::{Flights, Follow, Join, Lead};

type Shared = Flights<Arc<[u8]>>;
type Leader = Lead<Arc<[u8]>>;
type Follower = Follow<Arc<[u8]>>;

const BLOCK: u32 = 7;

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
    assert!(flights.follow(BLOCK).is_none());
    match flights.join(BLOCK) {
        Join::Lead(lead) => lead,
        Join::Follow(_) => panic!("somebody else leads"),
    }
}

fn follow(flights: &Arc<Shared>) -> Follower {
    assert!(flights.follow(BLOCK).is_some());
    match flights.join(BLOCK) {
        Join::Follow(follow) => follow,
        Join::Lead(_) => panic!("nobody leads"),
    }
}

/// What is ready: what was read, or that the leader is gone.
fn poll(follow: &mut Follower, count: &Arc<Count>) -> Option<Option<Result<Arc<[u8]>>>> {
    let waker = Waker::from(Arc::clone(count));
    match Pin::new(follow).poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(landed) => Some(landed),
        Poll::Pending => None,
    }
}

fn read(landed: Option<Option<Result<Arc<[u8]>>>>) -> Result<Arc<[u8]>> {
    landed.expect("it is ready").expect("it has landed")
}

#[test]
fn all_who_follow_get_what_the_leader_read() {
    let flights = Shared::new();
    let leader = lead(&flights);
    let mut followers: Vec<_> =
        (0..3).map(|_| (follow(&flights), Arc::<Count>::default())).collect();
    // Whoever leads may wait beside them.
    followers.push((leader.follow(), Arc::default()));
    for (follower, count) in &mut followers[..2] {
        assert!(poll(follower, count).is_none());
    }
    // Another block is another flight.
    assert!(matches!(flights.join(8), Join::Lead(_)));
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
fn without_its_leader_a_flight_is_lost_and_all_begin_anew() {
    let flights = Shared::new();
    let leader = lead(&flights);
    let counts = [(); 3].map(|()| Arc::<Count>::default());
    let mut followers = [(); 3].map(|()| follow(&flights));
    for (follower, count) in followers.iter_mut().zip(&counts) {
        assert!(poll(follower, count).is_none());
    }
    drop(leader);
    assert_eq!(counts.each_ref().map(|count| count.get()), [1, 1, 1]);
    let [mut first, mut second, third] = followers;
    assert!(matches!(poll(&mut first, &counts[0]), Some(None)));
    let leader = lead(&flights);
    assert!(matches!(poll(&mut second, &counts[1]), Some(None)));
    second = follow(&flights);
    leader.land(Ok(Arc::from(*b"second")));
    assert_eq!(*read(poll(&mut second, &counts[1])).expect("read"), *b"second");
    drop(third);
    assert_eq!(flights.len(), 0);
    // No waker was kept.
    assert!(counts.iter().all(|count| Arc::strong_count(count) == 1));
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
}
