//! Sorted numbers, searched with few cache misses.
//!
//! Above the numbers lie levels that hold every [`FANOUT`]th number of the one
//! below, as in a static B-tree: a plain binary search would miss the cache in
//! nearly every step, this in one or two groups of numbers at the bottom.

/// Numbers that are looked at together: two cache lines.
const FANOUT: usize = 16;

/// Sorted numbers.
pub(super) struct Heads {
    /// From the numbers themselves up to a level of one group.
    levels: Vec<Box<[u64]>>,
}

impl Heads {
    /// What the levels take beside a sixteenth and a bit of the numbers, at most:
    /// there are eight of them, for four billion numbers.
    pub(super) const BYTES_MORE: usize = 8 * (size_of::<Box<[u64]>>() + size_of::<u64>());

    /// `heads` must be sorted.
    pub(super) fn new(heads: Vec<u64>) -> Self {
        let mut levels = vec![heads.into_boxed_slice()];
        while let Some(below) = levels.last().filter(|level| level.len() > FANOUT) {
            // The last of each group: what is above it is in none before.
            let level = below.chunks(FANOUT).map(|group| group[group.len() - 1]).collect();
            levels.push(level);
        }
        Self { levels }
    }

    pub(super) fn len(&self) -> usize {
        self.levels[0].len()
    }

    /// How many are below `head`.
    pub(super) fn count_below(&self, head: u64) -> usize {
        let mut first = 0;
        for level in self.levels.iter().rev() {
            let group = &level[first..level.len().min(first + FANOUT)];
            let below = first + group.iter().filter(|&&other| other < head).count();
            if below == level.len() {
                return self.len();
            }
            first = below * FANOUT;
        }
        first / FANOUT
    }

    /// Where the run of numbers equal to `head` ends that starts at `first`.
    pub(super) fn end_of_run(&self, first: usize, head: u64) -> usize {
        if self.levels[0].get(first) != Some(&head) {
            return first;
        }
        head.checked_add(1).map_or(self.len(), |next| self.count_below(next))
    }

    /// Bytes in memory, behind this.
    pub(super) fn bytes(&self) -> usize {
        self.levels.iter().map(|level| size_of_val(level) + size_of_val(&level[..])).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_linear_search_finds() {
        for len in [1, 2, 15, 16, 17, 31, 255, 256, 257, 4095, 4096, 4097, 5000] {
            for same in [1, 3, 40] {
                let numbers: Vec<u64> = (0..len).map(|i| i / same * 10 + 5).collect();
                let heads = Heads::new(numbers.clone());
                assert_eq!(heads.len(), numbers.len());
                let ends = [0, u64::MAX];
                for head in numbers.iter().flat_map(|n| [n - 1, *n, n + 1]).chain(ends) {
                    let first = numbers.partition_point(|&other| other < head);
                    assert_eq!(heads.count_below(head), first, "{head} of {len}");
                    let end = numbers.partition_point(|&other| other <= head);
                    assert_eq!(heads.end_of_run(first, head), end, "{head} of {len}");
                }
            }
        }
        let high = Heads::new(vec![3, u64::MAX, u64::MAX]);
        assert_eq!((high.count_below(u64::MAX), high.end_of_run(1, u64::MAX)), (1, 3));
    }
}
