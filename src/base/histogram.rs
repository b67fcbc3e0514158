//! Histograms of nanoseconds that any number of threads add to at once.
//!
//! The buckets are those of an HdrHistogram with two significant digits: values
//! below 256 have one each, and every power of two above is divided into 128. So
//! what is counted here goes into such a histogram without further loss. They come
//! in chunks of one power of two, as most histograms need only some.

use std::sync::OnceLock;

use hdrhistogram::Histogram;

use super::sync::tally::{AtomicU64, Ordering};

/// Significant decimal digits: no value is off by more than a hundredth.
const DIGITS: u8 = 2;

/// Of each power of two.
const CHUNK_BUCKETS: usize = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 7;

/// Longer values count as the longest, 73 minutes.
const VALUE_BITS_MAX: u32 = 42;

/// One for the values below 128, and one for each power of two from there on.
const CHUNKS: usize = (VALUE_BITS_MAX - CHUNK_BITS + 1) as usize;

type Chunk = [AtomicU64; CHUNK_BUCKETS];

/// See the module's text.
#[derive(Debug)]
pub(crate) struct SharedHistogram {
    chunks: [OnceLock<Box<Chunk>>; CHUNKS],
}

fn empty_chunk() -> Box<Chunk> {
    Box::new(std::array::from_fn(|_| AtomicU64::new(0)))
}

/// The chunk of a value, and its bucket there.
fn place(value: u64) -> (usize, usize) {
    let value = value.min((1 << VALUE_BITS_MAX) - 1);
    let bits = u64::BITS - value.leading_zeros();
    let shift = bits.saturating_sub(CHUNK_BITS + 1);
    let index = ((shift as usize) << CHUNK_BITS) + (value >> shift) as usize;
    (index / CHUNK_BUCKETS, index % CHUNK_BUCKETS)
}

/// The least value of a bucket.
fn value_at(chunk: usize, bucket: usize) -> u64 {
    match chunk.checked_sub(1) {
        None => bucket as u64,
        Some(shift) => ((CHUNK_BUCKETS + bucket) as u64) << shift,
    }
}

impl SharedHistogram {
    /// One that allocates a chunk when the first value comes that belongs there.
    pub(crate) fn new() -> Self {
        Self { chunks: std::array::from_fn(|_| OnceLock::new()) }
    }

    /// One that has all its memory, 36 KiB, from the start.
    pub(crate) fn allocated() -> Self {
        Self { chunks: std::array::from_fn(|_| OnceLock::from(empty_chunk())) }
    }

    /// Counts a value.
    pub(crate) fn record(&self, value: u64) {
        let (chunk, bucket) = place(value);
        self.chunks[chunk].get_or_init(empty_chunk)[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// Adds what was counted so far to a histogram of [`empty`], each value
    /// `weight` times.
    pub(crate) fn add_to(&self, sum: &mut Histogram<u64>, weight: u64) {
        for (number, chunk) in self.chunks.iter().enumerate() {
            for (bucket, count) in
                chunk.get().into_iter().flat_map(|chunk| chunk.iter()).enumerate()
            {
                let count = count.load(Ordering::Relaxed).saturating_mul(weight);
                if count > 0 {
                    add(sum, value_at(number, bucket), count);
                }
            }
        }
    }
}

/// A histogram with the same buckets.
pub(crate) fn empty() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("two digits are among those there can be")
}

/// Adds a value to such a histogram, which grows as it must.
pub(crate) fn add(histogram: &mut Histogram<u64>, value: u64, count: u64) {
    histogram.record_n(value, count).expect("it grows to hold any value");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_the_hdr_histogram() {
        let mut values: Vec<u64> = (0..2000).collect();
        for bits in 11..VALUE_BITS_MAX {
            let power = 1u64 << bits;
            values.extend([power - 1, power, power + 1, power + power / 128 - 1, power / 2 * 3]);
        }
        values.push((1 << VALUE_BITS_MAX) - 1);
        let mut reference = empty();
        values.iter().for_each(|value| add(&mut reference, *value, 1));
        for &value in &values {
            let (chunk, bucket) = place(value);
            assert_eq!(value_at(chunk, bucket), reference.lowest_equivalent(value), "{value}");
        }
        for histogram in [SharedHistogram::new(), SharedHistogram::allocated()] {
            values.iter().for_each(|value| histogram.record(*value));
            let mut sum = empty();
            histogram.add_to(&mut sum, 1);
            assert_eq!(sum, reference);
        }
    }

    #[test]
    fn too_long_values_count_as_the_longest() {
        let histogram = SharedHistogram::new();
        histogram.record(u64::MAX);
        let mut sum = empty();
        histogram.add_to(&mut sum, 64);
        assert_eq!((sum.len(), sum.max()), (64, (1 << VALUE_BITS_MAX) - 1));
    }

    #[test]
    fn nothing_that_any_thread_records_is_lost() {
        let histogram = SharedHistogram::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|value| histogram.record(value)));
            }
        });
        let mut sum = empty();
        histogram.add_to(&mut sum, 1);
        assert_eq!((sum.len(), sum.count_at(77)), (40_000, 4));
    }
}
