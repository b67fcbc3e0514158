//! Buffers, pools, lent memory, and groups that are filled.

use std::task::Wake;

use super::*;

#[test]
fn buffers_are_aligned_and_return_to_their_pool() {
    let pool = BufferPool::new(2 * UNIT, 1);
    let mut a = pool.take();
    let b = pool.take();
    assert_eq!(a.as_ptr().align_offset(UNIT), 0);
    a[0] = 42;
    let address = a.as_ptr();
    drop(a);
    drop(b);
    let full = pool.places.iter().filter(|place| place.state.load(Ordering::SeqCst) == FULL);
    assert_eq!((pool.places.len(), full.count()), (1, 1));
    assert_eq!(pool.take().as_ptr(), address);
}

#[test]
fn registered_buffers_keep_their_places_and_others_are_not_kept() {
    let pool = BufferPool::new(UNIT, 2);
    let mut addresses = Vec::new();
    pool.fill_registered(|memories| {
        addresses.extend(memories.iter().map(|memory| memory.as_ptr()));
        true
    });
    for _ in 0..3 {
        let [first, second, third] = [(); 3].map(|()| pool.take());
        let known = [&first, &second].map(|buf| (buf.registered(), buf.as_ptr()));
        assert_eq!(known, [(Some(0), addresses[0]), (Some(1), addresses[1])]);
        assert_eq!(third.registered(), None);
        drop(third);
        drop(first);
        drop(second);
    }
    let pool = BufferPool::new(UNIT, 1);
    pool.fill_registered(|_| false);
    assert_eq!(pool.take().registered(), None);
}

struct Lends(Mutex<Vec<u32>>);

// SAFETY: it has no memory.
unsafe impl Lender for Lends {
    fn memory(&self) -> (NonNull<u8>, usize) {
        (NonNull::dangling(), 0)
    }

    fn take_back(&self, number: u32) {
        self.0.lock().push(number);
    }
}

#[test]
fn lent_memory_goes_back_once() {
    let mut memory = zeroed(2 * UNIT);
    let base = NonNull::new(memory.as_mut_ptr()).expect("it is somewhere");
    let lends = Arc::new(Lends(Mutex::default()));
    let lender = Arc::clone(&lends) as Arc<dyn Lender>;
    let lend = |number| {
        // SAFETY: the memory outlives every buffer over it here, of which
        // there is one at a time, and is not touched otherwise.
        unsafe { IoBuf::lent(base, 2 * UNIT, Arc::clone(&lender), number) }
    };
    let mut buf = lend(1);
    buf[UNIT] = 7;
    assert!(buf.is_lent() && buf.len() == 2 * UNIT);
    drop(buf);
    assert_eq!(*lends.0.lock(), [1]);
    let buf = lend(2);
    assert_eq!(buf[UNIT], 7);
    assert_eq!(buf.into_lent(&lender).ok(), Some(2));
    assert_eq!(*lends.0.lock(), [1], "who asked for it has it");

    let other = Arc::new(Lends(Mutex::default())) as Arc<dyn Lender>;
    let refused = lend(3).into_lent(&other).expect_err("another's");
    assert_eq!(refused.len(), 2 * UNIT);
    drop(refused);
    assert_eq!(*lends.0.lock(), [1, 3]);
    assert!(IoBuf::zeroed(UNIT).into_lent(&lender).is_err());
    assert_eq!(Arc::strong_count(&lends), 2, "buffers that are gone hold nobody");
}

#[test]
fn claims_are_disjoint_and_counted() {
    let group = Arc::new(GroupBuf::new(UNIT));
    std::thread::scope(|scope| {
        for i in 1..=4u8 {
            let group = &group;
            scope.spawn(move || {
                for _ in 0..100 {
                    let mut claim = group.claim(10).expect("room for 4000 bytes");
                    claim.fill(i);
                    claim.finish();
                }
            });
        }
    });
    assert!(group.claim(97).is_none());
    assert_eq!(group.seal(), 4000);
    assert!(group.claim(1).is_none());
    let bytes = group.filled_bytes(UNIT);
    for i in 1..=4u8 {
        assert_eq!(bytes.iter().filter(|&&b| b == i).count(), 1000);
    }
    assert!(bytes[..4000].chunks(10).all(|part| part.iter().all(|b| *b == part[0])));
}

#[test]
fn a_claim_dropped_unfilled_spoils_the_group() {
    let mut cx = Context::from_waker(Waker::noop());
    let mut group = Arc::new(GroupBuf::new(UNIT));
    let claim = group.claim(8).expect("room");
    group.seal();
    assert_eq!(group.poll_filled(&mut cx), Poll::Pending);
    drop(claim);
    assert_eq!(group.poll_filled(&mut cx), Poll::Ready(false));
    Arc::get_mut(&mut group).expect("nobody else has it").reset();
    group.claim(8).expect("room").finish();
    group.seal();
    assert_eq!(group.poll_filled(&mut cx), Poll::Ready(true));
}

#[test]
fn filling_in_place_is_a_claim() {
    let mut cx = Context::from_waker(Waker::noop());
    let group = GroupBuf::new(UNIT);
    assert_eq!(group.fill(8, |start, bytes| (start, bytes.fill(1))), Some((0, ())));
    assert_eq!(group.fill(8, |start, bytes| (start, bytes.len())), Some((8, 8)));
    assert_eq!(group.fill(UNIT - 15, |_, _| unreachable!("no room")), None::<()>);
    assert_eq!(group.claimed(), 16);
    assert_eq!(group.seal(), 16);
    assert_eq!(group.fill(8, |_, _| unreachable!("sealed")), None::<()>);
    assert_eq!(group.poll_filled(&mut cx), Poll::Ready(true));
    assert_eq!(group.filled_bytes(9), [1, 1, 1, 1, 1, 1, 1, 1, 0]);
}

#[test]
fn a_panic_while_filling_spoils_the_group() {
    let mut cx = Context::from_waker(Waker::noop());
    let group = GroupBuf::new(UNIT);
    let fill = || group.fill(8, |_, _| panic!("in the middle of a record"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(fill));
    assert!(panicked.is_err());
    group.seal();
    assert_eq!(group.poll_filled(&mut cx), Poll::Ready(false));
}

struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn the_last_of_claims_and_seal_wakes_the_writer() {
    for seal_last in [false, true] {
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let group = Arc::new(GroupBuf::new(UNIT));
        let claim = group.claim(8).expect("room");
        assert_eq!(group.poll_filled(&mut cx), Poll::Pending);
        let (first, last): (Box<dyn FnOnce()>, Box<dyn FnOnce()>) = {
            let finish = Box::new(move || claim.finish());
            let seal = Box::new(|| assert_eq!(group.seal(), 8));
            if seal_last { (finish, seal) } else { (seal, finish) }
        };
        first();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
        last();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert_eq!(group.poll_filled(&mut cx), Poll::Ready(true));
    }
}

#[test]
fn sealing_pads_with_zeroes() {
    let mut cx = Context::from_waker(Waker::noop());
    let mut group = Arc::new(GroupBuf::new(2 * UNIT));
    let claim = |group: &Arc<GroupBuf>, len, byte| {
        let mut claim = group.claim(len).expect("room");
        claim.fill(byte);
        claim
    };
    claim(&group, 2 * UNIT, 1).finish();
    assert_eq!(group.poll_filled(&mut cx), Poll::Pending, "not sealed");
    group.seal();
    assert_eq!(group.filled_bytes(2 * UNIT), [1; 2 * UNIT]);
    // Leaves stale bytes behind.
    Arc::get_mut(&mut group).expect("nobody else has it").reset();

    let outstanding = claim(&group, 100, 2);
    assert_eq!(group.seal(), 100);
    assert_eq!(group.poll_filled(&mut cx), Poll::Pending, "a claim is outstanding");
    outstanding.finish();
    assert_eq!(group.poll_filled(&mut cx), Poll::Ready(true));
    assert_eq!(group.seal(), 100, "sealing again changes nothing");
    let (records, padding) = group.filled_bytes(UNIT).split_at(100);
    assert_eq!((records, padding), (&[2; 100][..], &[0; UNIT - 100][..]));
}

#[test]
#[should_panic(expected = "4097 bytes go beyond the padding")]
fn stale_bytes_are_not_written() {
    let group = GroupBuf::new(2 * UNIT);
    group.fill(1, |_, bytes| bytes.fill(1));
    group.seal();
    group.filled_bytes(UNIT + 1);
}

#[test]
#[should_panic(expected = "still being filled")]
fn an_unfilled_group_is_not_written() {
    let group = Arc::new(GroupBuf::new(UNIT));
    let _claim = group.claim(1);
    group.seal();
    group.filled_bytes(1);
}
