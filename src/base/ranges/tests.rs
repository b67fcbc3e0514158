//! Fragments against a list of ranges.

use super::*;
use crate::base::seq::SEQ_MAX;

/// A linear congruential generator: every run of a test is the same.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }

    /// Short, and often a prefix of another one.
    fn key(&mut self) -> Vec<u8> {
        let len = self.below(4);
        (0..len).map(|_| [0, 1, b'k', 0xff][self.below(4) as usize]).collect()
    }
}

/// All keys that [`Random::key`] may give, and what is next to them.
fn keys() -> Vec<Vec<u8>> {
    let mut keys = vec![Vec::new()];
    for len in 0..4 {
        let longer: Vec<_> = keys.iter().filter(|key| key.len() == len).cloned().collect();
        for key in longer {
            keys.extend([0, 1, b'k', 0xff].map(|byte| [&key[..], &[byte]].concat()));
        }
    }
    keys
}

type Ranges = Vec<(Vec<u8>, Vec<u8>, SeqNo)>;

fn naive(ranges: &Ranges, key: &[u8], bound: SeqNo) -> Option<SeqNo> {
    let covers = |(start, end, seq): &&(Vec<u8>, Vec<u8>, SeqNo)| {
        *seq <= bound && **start <= *key && is_before(key, end)
    };
    ranges.iter().filter(covers).map(|(_, _, seq)| *seq).max()
}

fn random_ranges(random: &mut Random, count: u64) -> Ranges {
    let mut ranges = Ranges::new();
    for seq in 1..=count {
        let (a, b) = (random.key(), random.key());
        let (start, end) = if a <= b { (a, b) } else { (b, a) };
        if start < end || end.is_empty() {
            ranges.push((start, end, seq));
        }
    }
    // In any order.
    for i in (1..ranges.len()).rev() {
        ranges.swap(i, random.below(i as u64 + 1) as usize);
    }
    ranges
}

fn fragmented(ranges: &Ranges) -> RangeTombstones {
    let mut fragmented = RangeTombstones::default();
    for (start, end, seq) in ranges {
        fragmented.insert(start, end, *seq);
        let rebuilt = fragmented.fragments.iter().map(Fragment::bytes).sum::<usize>();
        assert_eq!(fragmented.bytes(), rebuilt);
    }
    // Checks that they are disjoint and in order, and that none is empty.
    assert!(fragmented.fragments.iter().all(|f| is_before(&f.start, &f.end)));
    RangeTombstones::new(fragmented.fragments.iter().cloned());
    fragmented
}

#[test]
fn fragments_say_what_the_ranges_do() {
    let mut random = Random(1);
    for _ in 0..300 {
        let count = random.below(12);
        let ranges = random_ranges(&mut random, count);
        let fragmented = fragmented(&ranges);
        for key in keys() {
            for bound in [0, 1, count / 2, count, SEQ_MAX] {
                let expected = naive(&ranges, &key, bound);
                assert_eq!(fragmented.newest(&key, bound), expected, "{key:?} {ranges:?}");
            }
            match fragmented.place(&key) {
                Place::In(f) => assert!(*f.start <= *key && is_before(&key, &f.end)),
                Place::Between(before, next) => {
                    assert!(before.is_none_or(|end| !is_before(&key, end)));
                    assert!(next.is_none_or(|start| *key < *start));
                }
            }
        }
        let seqs = || ranges.iter().map(|(_, _, seq)| *seq);
        assert_eq!(fragmented.seq_range(), seqs().min().zip(seqs().max()));
    }
}

#[test]
fn a_union_says_what_its_parts_do() {
    let mut random = Random(2);
    for _ in 0..300 {
        let ranges = random_ranges(&mut random, 12);
        let count = 1 + random.below(4) as usize;
        let mut parts = vec![Ranges::new(); count];
        for range in &ranges {
            parts[random.below(count as u64) as usize].push(range.clone());
        }
        let parts: Vec<_> = parts.iter().map(fragmented).collect();
        let union = RangeTombstones::union(&parts.iter().collect::<Vec<_>>());
        for key in keys() {
            for bound in 0..=12 {
                assert_eq!(union.newest(&key, bound), naive(&ranges, &key, bound), "{ranges:?}");
            }
        }
        assert_eq!(RangeTombstones::union(&[&union, &union]), union);
    }
    assert!(RangeTombstones::union(&[]).is_empty());
}

#[test]
fn what_covers_a_span() {
    let mut random = Random(3);
    for _ in 0..300 {
        let ranges = random_ranges(&mut random, 6);
        let fragmented = fragmented(&ranges);
        let (a, b) = (random.key(), random.key());
        let (first, last) = if a <= b { (a, b) } else { (b, a) };
        // Every bound of a range is among these keys.
        let within = keys().into_iter().filter(|key| first <= *key && *key <= last);
        let within: Vec<_> = within.collect();
        for seq in 0..=6 {
            // The lowest bound at which everybody who sees that far sees a newer
            // delete of each key.
            let sees = |bound, key| naive(&ranges, key, bound).is_some_and(|deleted| deleted > seq);
            let all = |bound: &SeqNo| within.iter().all(|key| sees(*bound, key));
            let expected = (0..=6).find(all);
            let found = fragmented.covers(&first, &last, seq);
            assert_eq!(found, expected, "{first:?}..={last:?} above {seq} {ranges:?}");
        }
    }
}

#[test]
fn numbers_around_a_version() {
    let fragment = Fragment { start: [].into(), end: [].into(), seqs: vec![9, 5, 2] };
    assert_eq!([1, 2, 4, 8, 9].map(|bound| fragment.visible(bound).unwrap_or(0)), [0, 2, 2, 5, 9]);
    assert_eq!([1, 2, 5, 8, 9].map(|seq| fragment.above(seq).unwrap_or(0)), [2, 5, 9, 9, 0]);
}

#[test]
fn the_next_key() {
    assert_eq!(successor(b"").as_deref(), Some(&b"\0"[..]));
    assert_eq!(successor(b"ab").as_deref(), Some(&b"ab\0"[..]));
    let longest = [vec![7; KEY_BYTES_MAX - 2], vec![0xff; 2]].concat();
    let next = successor(&longest).expect("there are greater ones");
    assert_eq!(*next, *[vec![7; KEY_BYTES_MAX - 3], vec![8]].concat());
    assert_eq!(successor(&[0xff; KEY_BYTES_MAX]), None);
    assert_eq!(successor(&[0xff; 3]).as_deref(), Some(&[0xff, 0xff, 0xff, 0][..]));
}

#[test]
fn what_an_end_reaches() {
    let mut ends = keys();
    ends.sort();
    for pair in ends[1..].windows(2) {
        assert!(reach(&pair[0]) <= reach(&pair[1]));
    }
    for key in keys() {
        let end = successor(&key).expect("a short key");
        assert_eq!(*reach(&end), *key, "nothing is between a key and the next one");
    }
    assert_eq!(*reach(b""), [0xff; KEY_BYTES_MAX]);
}

#[test]
fn bounds_of_ranges() {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let of = |start: std::ops::Bound<&[u8]>, end: std::ops::Bound<&[u8]>| {
        let own = |bound: std::ops::Bound<&[u8]>| bound.map(Box::<[u8]>::from);
        normal(&(own(start), own(end))).map(|(start, end)| (start.to_vec(), end.to_vec()))
    };
    let some = |start: &[u8], end: &[u8]| Some((start.to_vec(), end.to_vec()));
    assert_eq!(of(Unbounded, Unbounded), some(b"", b""));
    assert_eq!(of(Included(b"a"), Excluded(b"b")), some(b"a", b"b"));
    assert_eq!(of(Excluded(b"a"), Included(b"b")), some(b"a\0", b"b\0"));
    assert_eq!(of(Included(b"a"), Included(b"a")), some(b"a", b"a\0"));
    assert_eq!(of(Excluded(b"a"), Excluded(b"a\0")), None);
    assert_eq!(of(Excluded(b"a"), Included(b"a\0")), some(b"a\0", b"a\0\0"));
    assert_eq!(of(Included(b"b"), Excluded(b"a")), None);
    assert_eq!(of(Included(b"b"), Excluded(b"b")), None);
    assert_eq!(of(Unbounded, Excluded(b"")), None);
    assert_eq!(of(Unbounded, Included(b"")), some(b"", b"\0"));
    let last = [0xff; KEY_BYTES_MAX];
    assert_eq!(of(Included(b"a"), Included(&last)), some(b"a", b""));
    assert_eq!(of(Excluded(&last), Unbounded), None);
    assert_eq!(of(Included(&last), Unbounded), some(&last, b""));
}
