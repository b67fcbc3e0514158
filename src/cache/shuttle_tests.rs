//! The cache under shuttle. What memory orderings would allow beyond the
//! interleavings of threads, the texts beside them have to show.

use std::sync::Arc;

use super::epoch::{Epochs, Retired};
use super::frames::{Frames, Links};
use super::tests::{cache, content};
use super::{Cache, CachedTable, Flights, Join, PartitionCache, PartitionShare};
use crate::base::limits::UNIT;
use crate::base::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use crate::base::sync::{Mutex, thread};
use crate::cache::regions::Regions;
use crate::runtime::shuttle_tests::{choose, explore, poll_and_drop};
use crate::runtime::{block_on, yield_now};

/// A link to one of a few numbers, which come and go.
struct Linked {
    epochs: Arc<Epochs>,
    link: AtomicU32,
    /// Readers that look at a number.
    readers: [AtomicUsize; 3],
    retired: Mutex<Retired>,
}

#[test]
fn no_number_comes_back_while_a_pin_that_saw_it_lives() {
    explore(3000, || {
        let linked = Arc::new(Linked {
            epochs: Epochs::new(),
            link: AtomicU32::new(1),
            readers: Default::default(),
            retired: Mutex::new(Retired::with_capacity(4)),
        });
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let linked = Arc::clone(&linked);
                thread::spawn(move || {
                    for _ in 0..2 {
                        let guard = linked.epochs.pin();
                        let nested = (choose(2) == 0).then(|| linked.epochs.pin());
                        let seen = linked.link.load(Ordering::SeqCst) as usize;
                        linked.readers[seen].fetch_add(1, Ordering::SeqCst);
                        drop(nested);
                        thread::yield_now();
                        linked.readers[seen].fetch_sub(1, Ordering::SeqCst);
                        drop(guard);
                    }
                })
            })
            .collect();
        let take_free = |back: &mut Vec<u32>| {
            linked.retired.lock().take_free(&linked.epochs, |number| {
                // A reader that came from an older link would be there still.
                assert_eq!(linked.readers[number as usize].load(Ordering::SeqCst), 0);
                back.push(number);
            });
        };
        let mut back = Vec::new();
        // Each number is linked once.
        for next in [2, 0] {
            let last = linked.link.swap(next, Ordering::SeqCst);
            linked.retired.lock().push(&linked.epochs, last);
            take_free(&mut back);
        }
        readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
        take_free(&mut back);
        assert_eq!(back, [1, 2]);
        assert_eq!(linked.epochs.threads(), 0);
    });
}

/// Looks a block up, and puts it in when it is not there.
fn use_block(table: &CachedTable, uid: u64, block: u32, bytes: usize) {
    let expected = content(uid, block, bytes);
    let guard = table.cache().epochs().pin();
    match table.get(&guard, block) {
        Some(hit) => {
            let parts = hit.parts();
            thread::yield_now();
            assert!(parts.eq(expected.chunks(UNIT)), "block {block} of table {uid}");
            if choose(2) == 0 {
                let held = hit.hold();
                drop(guard);
                thread::yield_now();
                let mut bytes = Vec::new();
                held.gather(&mut bytes);
                assert_eq!(bytes, expected, "held block {block} of table {uid}");
            }
        }
        None => {
            drop(guard);
            table.insert(block, &expected);
        }
    }
}

#[test]
fn readers_see_their_block_while_others_evict_it() {
    explore(5000, || {
        let cache = cache(3);
        let table = Arc::new(cache.register(1, 3));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (cache, table) = (Arc::clone(&cache), Arc::clone(&table));
                thread::spawn(move || {
                    for _ in 0..3 {
                        let block = choose(3) as u32;
                        use_block(&table, 1, block, UNIT * (1 + block as usize % 2));
                        if choose(8) == 0 {
                            // A table that comes and goes.
                            use_block(&cache.register(2, 1), 2, 0, UNIT);
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        // All frames come back.
        drop(table);
        assert_eq!(cache.stats().blocks, 0);
        assert!(cache.frames.take(3 * UNIT).is_some());
    });
}

#[test]
fn memory_comes_and_goes_under_readers() {
    explore(3000, || {
        let bytes = 4 * Cache::FRAME_BYTES + 2 * Cache::EXTRA_BYTES;
        let cache = Cache::new(&Epochs::new(), bytes, 2 * UNIT).expect("there is memory");
        let lasting = cache.frames.lasting();
        assert_eq!((lasting, cache.lendable_bytes()), (4, 2 * UNIT));
        let table = Arc::new(cache.register(1, 3));
        // The lasting frames are somebody else's.
        let others = cache.frames.take((lasting - 1) * UNIT);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let table = Arc::clone(&table);
                thread::spawn(move || {
                    for _ in 0..3 {
                        let block = choose(3) as u32;
                        use_block(&table, 1, block, UNIT * (1 + block as usize % 2));
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            match choose(3) {
                0 => assert!(cache.borrow() || cache.borrowed_bytes() == 2 * UNIT),
                1 => assert!(cache.recall(1) <= 1),
                _ => assert!(!cache.give_back() || cache.lent_bytes() > 0),
            }
            thread::yield_now();
        }
        readers.into_iter().for_each(|thread| thread.join().expect("no panic"));
        cache.recall(u32::MAX);
        assert!(!cache.give_back(), "nobody is there any more");
        assert_eq!(cache.lent_bytes(), 0);
        drop((table, others));
        assert_eq!(cache.stats().blocks, 0);
        assert!(cache.frames.take(lasting * UNIT).is_some());
    });
}

#[test]
fn a_block_is_published_and_retired_once() {
    explore(1000, || {
        let frames = Frames::new(2, Regions::new(2, 0), &Epochs::new()).expect("there is memory");
        let links = Arc::new(Links::new(&frames, 1, 1));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (frames, links) = (Arc::clone(&frames), Arc::clone(&links));
                thread::spawn(move || {
                    let published = match frames.take(UNIT) {
                        Some(buf) => links.publish(0, buf).0.is_some(),
                        None => false,
                    };
                    (usize::from(published), usize::from(links.unlink(0).is_some()))
                })
            })
            .collect();
        let (mut published, mut unlinked) = (0, 0);
        for thread in threads {
            let (ours, gone) = thread.join().expect("no panic");
            published += ours;
            unlinked += gone;
        }
        assert_eq!(published, unlinked);
        assert!(frames.take(2 * UNIT).is_some());
    });
}

#[test]
fn a_block_that_is_held_is_free_once_pins_and_holds_have_ended() {
    explore(3000, || {
        let frames = Frames::new(2, Regions::new(2, 0), &Epochs::new()).expect("there is memory");
        let links = Arc::new(Links::new(&frames, 1, 1));
        let mut buf = frames.take(UNIT).expect("free");
        buf.fill(&content(1, 0, UNIT));
        let (_, held) = links.publish(0, buf);
        let other = held.clone();
        let holders = [held, other].map(|held| {
            thread::spawn(move || {
                let own = (choose(2) == 0).then(|| held.clone());
                thread::yield_now();
                assert_eq!(held.whole(), Some(&content(1, 0, UNIT)[..]));
                drop(held);
                if let Some(own) = own {
                    assert_eq!(own.whole(), Some(&content(1, 0, UNIT)[..]));
                }
            })
        });
        links.unlink(0);
        // Whoever gets the frame writes it.
        for _ in 0..2 {
            if let Some(mut bufs) = frames.take(2 * UNIT) {
                bufs.fill(&[0xee; 2 * UNIT]);
            }
        }
        for holder in holders {
            holder.join().expect("no panic");
        }
        assert!(frames.take(2 * UNIT).is_some());
    });
}

#[test]
fn partitions_come_and_go_and_all_are_freed() {
    const BYTES: usize = 10;
    explore(3000, || {
        // There is room for two of three.
        let cache = PartitionCache::new(2 * BYTES);
        let table: Arc<PartitionShare<usize>> = Arc::new(cache.register(3));
        let all: Vec<Arc<usize>> = (0..3).map(Arc::new).collect();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (cache, table, all) = (Arc::clone(&cache), Arc::clone(&table), all.clone());
                thread::spawn(move || {
                    for _ in 0..3 {
                        let number = choose(3);
                        match table.get(number) {
                            Some(held) => {
                                thread::yield_now();
                                assert_eq!(*held, number);
                            }
                            None => table.insert(number, Arc::clone(&all[number]), BYTES),
                        }
                        match choose(6) {
                            0 => table.clear(),
                            // A table that comes and goes.
                            1 => cache.register(1).insert(0, Arc::clone(&all[0]), BYTES),
                            _ => {}
                        }
                        assert!(cache.stats().bytes <= 2 * BYTES as u64);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        let resident = (0..3).filter(|&number| table.contains(number)).count();
        let stats = cache.stats();
        assert_eq!((stats.partitions, stats.bytes), (resident as u64, (resident * BYTES) as u64));
        drop(table);
        assert_eq!((cache.stats().partitions, cache.stats().bytes), (0, 0));
        assert!(all.iter().all(|partition| Arc::strong_count(partition) == 1));
    });
}

#[test]
fn one_at_a_time_reads_a_block_and_all_get_it() {
    explore(3000, || {
        let flights = Flights::<Arc<u32>>::new();
        let reading = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3)
            .map(|number| {
                let (flights, reading) = (Arc::clone(&flights), Arc::clone(&reading));
                thread::spawn(move || {
                    let lead = loop {
                        let follow = match flights.join(7) {
                            Join::Lead(lead) => break lead,
                            Join::Follow(follow) => follow,
                        };
                        // Somebody who gives up.
                        if choose(4) == 0 {
                            poll_and_drop(follow);
                            return;
                        }
                        if let Some(read) = block_on(follow) {
                            assert_eq!(*read.expect("no read fails"), 7);
                            return;
                        }
                    };
                    assert_eq!(reading.fetch_add(1, Ordering::SeqCst), 0);
                    block_on(yield_now());
                    reading.fetch_sub(1, Ordering::SeqCst);
                    if number > 0 || choose(2) == 0 {
                        let own = lead.follow();
                        lead.land(Ok(Arc::new(7)));
                        assert!(matches!(block_on(own), Some(Ok(_))));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(flights.len(), 0);
    });
}
