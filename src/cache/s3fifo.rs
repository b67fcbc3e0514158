//! Eviction by S3-FIFO (J. Yang et al., "FIFO Queues are All You Need for Cache
//! Eviction", SOSP 2023, section 4, algorithm 1).
//!
//! A new block goes to a *small* queue, a tenth of the cache. If it was used
//! more than once when it comes to that queue's end, it moves to the *main*
//! queue; else it leaves, and only a *ghost* of it stays, as many as main holds
//! blocks. A block that comes again while its ghost is there goes to main at
//! once. At the end of main, a block that was used goes round once more for each
//! use, up to three. So a scan, whose blocks are used once, passes through the
//! small queue and leaves main alone.
//!
//! Three things differ from the paper. Queues are measured in frames, as blocks
//! may take several. A search for a victim passes over a bounded number of
//! blocks, as it goes on behind a lock. And a block that a compaction made of others that
//! were in use there goes to main at once.
#![allow(
    unreachable_pub,
    reason = "public only under the feature `bench-internals`, for benches/cache.rs"
)]

use super::ghosts::Ghosts;
use super::policy::{Frequencies, Policy};

/// Of so many frames one belongs to the small queue.
const SMALL_SHARE: u32 = 10;

/// With more uses than this, a block moves from small to main.
const PROMOTED_ABOVE: u8 = 1;

/// After this many blocks that were moved or sent round again, the next one
/// goes, however often it was used.
const PASSED_OVER_MAX: u32 = 128;

/// In place of a frame's number.
const NONE: u32 = 0;

/// Eviction by S3-FIFO.
pub struct S3Fifo {
    /// Of each frame, by its number; those of resident blocks' first frames
    /// count.
    nodes: Box<[Node]>,
    small: Queue,
    main: Queue,
    small_frames_max: u32,
    ghosts: Ghosts,
}

/// A resident block.
#[derive(Clone, Copy, Default)]
struct Node {
    /// Its neighbours in the queue, towards the newest and the oldest.
    newer: u32,
    older: u32,
    fingerprint: u32,
    units: u16,
    place: Place,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Nowhere,
    Small,
    Main,
}

/// A queue, linked through the nodes.
#[derive(Default)]
struct Queue {
    newest: u32,
    oldest: u32,
    frames: u32,
}

impl S3Fifo {
    /// Bytes of memory for each frame.
    pub const OVERHEAD_BYTES: usize = size_of::<Node>() + Ghosts::OVERHEAD_BYTES_MAX;

    /// For so many frames, numbered from 1 on, and for up to `frames_max` once it is
    /// resized.
    pub fn new(frames: u32, frames_max: u32) -> Self {
        let mut policy = Self {
            nodes: vec![Node::default(); frames_max as usize + 1].into_boxed_slice(),
            small: Queue::default(),
            main: Queue::default(),
            small_frames_max: 0,
            ghosts: Ghosts::new(frames_max - small_frames_max(frames_max)),
        };
        policy.resize(frames);
        policy
    }

    /// From now on the cache has so many frames.
    pub fn resize(&mut self, frames: u32) {
        self.small_frames_max = small_frames_max(frames);
        self.ghosts.remember(frames - self.small_frames_max);
    }

    fn queue(&mut self, place: Place) -> (&mut Queue, &mut [Node]) {
        match place {
            Place::Small => (&mut self.small, &mut self.nodes),
            Place::Main => (&mut self.main, &mut self.nodes),
            Place::Nowhere => panic!("the block is in no queue"),
        }
    }

    fn push(&mut self, place: Place, frame: u32) {
        let (queue, nodes) = self.queue(place);
        let node = &mut nodes[frame as usize];
        assert!(node.place == Place::Nowhere, "frame {frame} is in a queue");
        (node.place, node.newer, node.older) = (place, NONE, queue.newest);
        queue.frames += u32::from(node.units);
        match queue.newest {
            NONE => queue.oldest = frame,
            newest => nodes[newest as usize].newer = frame,
        }
        queue.newest = frame;
    }

    fn place(&mut self, place: Place, frame: u32, units: u32, fingerprint: u32) {
        let node = &mut self.nodes[frame as usize];
        node.units = units as u16;
        node.fingerprint = fingerprint;
        self.push(place, frame);
    }

    /// Takes it out of the queue it is in.
    fn unlink(&mut self, frame: u32) -> Node {
        let node = self.nodes[frame as usize];
        let (queue, nodes) = self.queue(node.place);
        queue.frames -= u32::from(node.units);
        match node.newer {
            NONE => queue.newest = node.older,
            newer => nodes[newer as usize].older = node.older,
        }
        match node.older {
            NONE => queue.oldest = node.newer,
            older => nodes[older as usize].newer = node.newer,
        }
        nodes[frame as usize].place = Place::Nowhere;
        node
    }
}

/// Frames of the small queue, where the cache has so many.
fn small_frames_max(frames: u32) -> u32 {
    (frames / SMALL_SHARE).clamp(1, frames)
}

impl Policy for S3Fifo {
    fn insert(&mut self, frame: u32, units: u32, fingerprint: u64) {
        let fingerprint = Ghosts::shortened(fingerprint);
        let place = if self.ghosts.take(fingerprint) { Place::Main } else { Place::Small };
        self.place(place, frame, units, fingerprint);
    }

    fn insert_proven(&mut self, frame: u32, units: u32, fingerprint: u64) {
        self.place(Place::Main, frame, units, Ghosts::shortened(fingerprint));
    }

    fn victim(&mut self, frequencies: &impl Frequencies) -> Option<u32> {
        let mut passed_over = 0;
        loop {
            let from_small = self.small.frames >= self.small_frames_max || self.main.oldest == NONE;
            let frame = if from_small { self.small.oldest } else { self.main.oldest };
            if frame == NONE {
                return None;
            }
            let node = self.unlink(frame);
            let uses = frequencies.get(frame);
            let must_go = passed_over == PASSED_OVER_MAX;
            if from_small && (must_go || uses <= PROMOTED_ABOVE) {
                self.ghosts.put(node.fingerprint);
                return Some(frame);
            }
            if !from_small && (must_go || uses == 0) {
                return Some(frame);
            }
            frequencies.set(frame, if from_small { 0 } else { uses - 1 });
            self.push(Place::Main, frame);
            passed_over += 1;
        }
    }

    fn remove(&mut self, frame: u32) {
        self.unlink(frame);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    /// A cache of one-frame blocks that are known by numbers.
    struct Sim {
        policy: S3Fifo,
        uses: RefCell<BTreeMap<u32, u8>>,
        resident: BTreeMap<u64, u32>,
        free: Vec<u32>,
    }

    impl Frequencies for RefCell<BTreeMap<u32, u8>> {
        fn get(&self, frame: u32) -> u8 {
            self.borrow()[&frame]
        }

        fn set(&self, frame: u32, frequency: u8) {
            self.borrow_mut().insert(frame, frequency);
        }
    }

    impl Sim {
        fn new(frames: u32) -> Self {
            Self {
                policy: S3Fifo::new(frames, frames),
                uses: RefCell::default(),
                resident: BTreeMap::new(),
                free: (1..=frames).rev().collect(),
            }
        }

        /// Whether it was there.
        fn access(&mut self, block: u64) -> bool {
            if let Some(frame) = self.resident.get(&block) {
                let mut uses = self.uses.borrow_mut();
                let uses = uses.get_mut(frame).expect("resident");
                *uses = (*uses + 1).min(3);
                return true;
            }
            self.bring(block, S3Fifo::insert);
            false
        }

        fn bring(&mut self, block: u64, insert: fn(&mut S3Fifo, u32, u32, u64)) {
            if self.free.is_empty() {
                let victim = self.policy.victim(&self.uses).expect("the cache is full");
                self.resident.retain(|_, frame| *frame != victim);
                self.free.push(victim);
            }
            let frame = self.free.pop().expect("there is room");
            self.uses.borrow_mut().insert(frame, 0);
            let fingerprint = block.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            insert(&mut self.policy, frame, 1, fingerprint);
            self.resident.insert(block, frame);
        }

        fn access_all(&mut self, blocks: std::ops::Range<u64>) {
            for block in blocks {
                self.access(block);
            }
        }

        fn hold(&self, blocks: std::ops::Range<u64>) -> bool {
            blocks.into_iter().all(|block| self.resident.contains_key(&block))
        }
    }

    #[test]
    fn a_scan_leaves_what_is_used_alone() {
        let mut sim = Sim::new(100);
        for _ in 0..3 {
            sim.access_all(0..90);
        }
        sim.access_all(1000..5000);
        assert!(sim.hold(0..90));
        assert_eq!(sim.policy.main.frames, 90);
        assert_eq!(sim.policy.small.frames, 10);
    }

    #[test]
    fn what_is_proven_does_not_have_to_be_used_soon() {
        let mut sim = Sim::new(100);
        sim.access_all(0..100);
        sim.bring(7000, S3Fifo::insert);
        sim.bring(7001, S3Fifo::insert_proven);
        sim.access_all(1000..1500);
        assert!(!sim.hold(7000..7001));
        assert!(sim.hold(7001..7002));
    }

    #[test]
    fn what_comes_again_soon_goes_to_main() {
        let mut sim = Sim::new(100);
        sim.access_all(0..150);
        // All went through small; the ghosts of the first are there.
        assert!(!sim.hold(0..1));
        assert!(!sim.access(0));
        assert_eq!(sim.policy.main.frames, 1);
        // Longer ago than there are ghosts: as if it had never been there.
        sim.access_all(1000..1500);
        assert!(!sim.access(1));
        assert_eq!(sim.policy.main.frames, 1);
    }

    #[test]
    fn main_lets_go_of_what_is_not_used_any_more() {
        let mut sim = Sim::new(100);
        for base in [0, 1000] {
            for _ in 0..8 {
                sim.access_all(base..base + 80);
            }
        }
        assert!(sim.hold(1000..1080));
    }

    #[test]
    fn a_search_is_bounded_and_takes_the_last_one_then() {
        let mut sim = Sim::new(1000);
        for _ in 0..5 {
            sim.access_all(0..1000);
        }
        assert!(!sim.access(5000));
        // 128 were moved to main, and the next one went.
        assert_eq!(sim.policy.main.frames, PASSED_OVER_MAX);
        assert!(!sim.hold(128..129));
        assert!(sim.hold(0..128) && sim.hold(129..1000));
    }

    #[test]
    fn blocks_leave_from_anywhere_in_a_queue() {
        let mut policy = S3Fifo::new(10, 10);
        let none = RefCell::new((1..=10).map(|frame| (frame, 0)).collect::<BTreeMap<_, _>>());
        for (frame, units) in [(1, 2), (3, 1), (4, 4), (8, 1)] {
            policy.insert(frame, units, u64::from(frame) << 32);
        }
        assert_eq!(policy.small.frames, 8);
        policy.remove(3);
        policy.remove(8);
        assert_eq!(policy.victim(&none), Some(1));
        assert_eq!(policy.small.frames, 4);
        policy.remove(4);
        assert_eq!(policy.victim(&none), None);
        assert_eq!(policy.small.frames, 0);
    }
}
