//! Ghosts: which blocks left the small queue not long ago.
//!
//! A ghost is a fingerprint and the time it came, counted in ghosts, in a table
//! of buckets (section 4.2 of the paper that [`super::s3fifo`] names). It is
//! there until as many others have come as the table is for; nothing has to
//! remove it. Chance may take a ghost away early, where a bucket is full of
//! younger ones, and rarely takes a block for another one; either costs no more
//! than a block in the wrong queue.

/// Ghosts in a bucket: a cache line.
const BUCKET: usize = 8;

/// Remembers the fingerprints that were put in last.
pub(super) struct Ghosts {
    buckets: Box<[[Ghost; BUCKET]]>,
    /// Ghosts put in so far, modulo 2^32.
    time: u32,
    /// How long a ghost is there.
    life: u32,
}

#[derive(Clone, Copy, Default)]
struct Ghost {
    /// Never 0, which is an empty place.
    fingerprint: u32,
    time: u32,
}

impl Ghosts {
    /// Bytes of memory for each ghost, at most.
    pub(super) const OVERHEAD_BYTES_MAX: usize = 3 * size_of::<Ghost>();

    /// Remembers the last `count`.
    pub(super) fn new(count: u32) -> Self {
        let count = count.max(1);
        // Half as much room again at least: buckets are not filled evenly.
        let buckets = (count as usize * 3 / 2).div_ceil(BUCKET).next_power_of_two();
        Self {
            buckets: vec![[Ghost::default(); BUCKET]; buckets].into_boxed_slice(),
            time: 0,
            life: count,
        }
    }

    /// Remembers the last `count` from now on, not more than it was made for.
    pub(super) fn remember(&mut self, count: u32) {
        self.life = count.max(1);
    }

    /// What is kept of a fingerprint.
    pub(super) fn shortened(fingerprint: u64) -> u32 {
        ((fingerprint >> 32) as u32).max(1)
    }

    fn bucket(&mut self, fingerprint: u32) -> &mut [Ghost; BUCKET] {
        let mask = self.buckets.len() - 1;
        // The fingerprint's bits are as good as random.
        &mut self.buckets[fingerprint as usize & mask]
    }

    /// Remembers a fingerprint.
    pub(super) fn put(&mut self, fingerprint: u32) {
        self.time = self.time.wrapping_add(1);
        let time = self.time;
        let bucket = self.bucket(fingerprint);
        // Itself, younger; else an empty place; else the oldest one's.
        let place = bucket.iter_mut().max_by_key(|ghost| {
            let is_same = ghost.fingerprint == fingerprint;
            (is_same, ghost.fingerprint == 0, time.wrapping_sub(ghost.time))
        });
        *place.expect("a bucket has places") = Ghost { fingerprint, time };
    }

    /// Whether it is remembered. Not any more, then.
    pub(super) fn take(&mut self, fingerprint: u32) -> bool {
        let (time, life) = (self.time, self.life);
        let bucket = self.bucket(fingerprint);
        let Some(ghost) = bucket.iter_mut().find(|ghost| ghost.fingerprint == fingerprint) else {
            return false;
        };
        let age = time.wrapping_sub(ghost.time);
        *ghost = Ghost::default();
        age < life
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(number: u32) -> u32 {
        Ghosts::shortened(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn the_last_ones_are_remembered_and_no_more() {
        let mut ghosts = Ghosts::new(1000);
        (0..5000).for_each(|number| ghosts.put(fingerprint(number)));
        let kept = (4000..5000).filter(|&number| ghosts.take(fingerprint(number))).count();
        assert!(kept > 950, "{kept} of the last 1000 are there");
        assert!((0..4000).all(|number| !ghosts.take(fingerprint(number))));
    }

    #[test]
    fn a_ghost_is_taken_once() {
        let mut ghosts = Ghosts::new(4);
        ghosts.put(7);
        ghosts.put(7);
        assert!(ghosts.take(7));
        assert!(!ghosts.take(7));
    }

    #[test]
    fn the_count_of_ghosts_may_wrap_around() {
        let mut ghosts = Ghosts::new(2);
        ghosts.time = u32::MAX - 1;
        (1..=3).for_each(|number| ghosts.put(number));
        assert_eq!([1, 2, 3].map(|number| ghosts.take(number)), [false, true, true]);
    }
}
