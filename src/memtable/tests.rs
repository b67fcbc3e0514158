//! The memtable against a `BTreeMap`, its accounting, and its recycling.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use super::arena::CHUNK_BYTES;
use super::node::{INNER_KEYS, Inner, LEAF_KEYS, Leaf};
use super::tree::Slab;
use super::*;
use crate::base::ids::{DbId, FileId};
use crate::base::limits::{INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX, round_up};
use crate::base::seq::{Kind, SEQ_MAX};
use crate::format::value::{Extent, ReferenceBuilder};
use crate::io::Pages;

/// xorshift64*, so that every run does the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    fn bytes(&mut self, alphabet: &[u8], len: usize) -> Vec<u8> {
        (0..len).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

type Slot = (Vec<u8>, Reverse<u64>);
type Model = BTreeMap<Slot, Vec<u8>>;

/// A memtable and what it must hold.
struct Pair {
    memtable: Memtable,
    model: Model,
    bytes_max: usize,
}

impl Pair {
    fn new() -> Self {
        Self {
            memtable: Memtable::new(&ArenaPool::new(64 << 20)),
            model: Model::new(),
            bytes_max: Memtable::USED_BYTES_BASE,
        }
    }

    fn put(&mut self, key: &[u8], tag: Tag, value: &[u8], shared: bool) {
        let slot = (key.to_vec(), Reverse(tag.to_u64()));
        if self.model.insert(slot, value.to_vec()).is_some() {
            panic!("the test made a key and tag twice");
        }
        let payload = if shared { Payload::Shared(value.into()) } else { Payload::Inline(value) };
        self.memtable.insert(key, tag, payload);
        self.bytes_max += Memtable::entry_bytes(key.len(), value.len());
    }

    /// The value says which entry it belongs to; some are shared.
    fn put_numbered(&mut self, key: &[u8], seq: SeqNo) {
        let kind = if seq.is_multiple_of(5) { Kind::Delete } else { Kind::Put };
        let value = format!("{seq}:{}", key.len()).into_bytes();
        self.put(key, Tag::new(seq, kind), &value, seq.is_multiple_of(7));
    }

    fn expect_same(&self) {
        self.expect_same_walks();
        self.expect_same_seeks();
        assert_eq!(self.memtable.len(), self.model.len());
        assert_eq!(self.memtable.is_empty(), self.model.is_empty());
        let seqs = || self.model.keys().map(|(_, Reverse(raw))| Tag::from_u64(*raw).seq());
        assert_eq!(self.memtable.seq_range(), seqs().min().zip(seqs().max()));
        assert!(self.memtable.used_bytes() <= self.bytes_max);
        assert!(self.memtable.used_bytes() <= self.memtable.memory_bytes());
    }

    fn expect_same_walks(&self) {
        let memtable = &self.memtable;
        let mut at = memtable.first();
        for wanted in &self.model {
            self.expect_entry(at, Some(wanted));
            at = memtable.next(at);
        }
        self.expect_entry(at, None);
        // It stays past the end, and finds back.
        self.expect_entry(memtable.next(at), None);
        self.expect_entry(memtable.prev(memtable.next(at)), self.model.iter().next_back());

        let mut at = memtable.last();
        for wanted in self.model.iter().rev() {
            self.expect_entry(at, Some(wanted));
            at = memtable.prev(at);
        }
        self.expect_entry(at, None);
        self.expect_entry(memtable.prev(at), None);
        self.expect_entry(memtable.next(memtable.prev(at)), self.model.iter().next());
    }

    /// Seeks at, just before and just after every entry, and to keys beside.
    fn expect_same_seeks(&self) {
        for (key, Reverse(raw)) in self.model.keys() {
            for raw in [*raw, raw.saturating_add(1), raw.saturating_sub(1)] {
                self.expect_same_seek(key, raw);
            }
            let seq = Tag::from_u64(*raw).seq();
            for bound in [0, seq - 1, seq, SEQ_MAX] {
                self.expect_same_get(key, bound);
            }
            let longer = [key, &[0][..]].concat();
            let other = [key, &[0xff; 9][..]].concat();
            let mut shorter = key.clone();
            shorter.pop();
            for key in [longer, other, shorter] {
                self.expect_same_seek(&key, u64::MAX);
                self.expect_same_seek(&key, 0);
                self.expect_same_get(&key, SEQ_MAX);
            }
        }
        self.expect_same_seek(b"", u64::MAX);
        self.expect_same_seek(&[0xff; 40], 0);
        self.expect_same_get(b"", SEQ_MAX);
    }

    fn expect_same_seek(&self, key: &[u8], raw: u64) {
        let at = self.memtable.lower_bound(key, Tag::from_u64(raw));
        let bound = (key.to_vec(), Reverse(raw));
        self.expect_entry(at, self.model.range(&bound..).next());
        let before = self.memtable.prev(at);
        self.expect_entry(before, self.model.range(..&bound).next_back());
    }

    fn expect_same_get(&self, key: &[u8], bound: SeqNo) {
        let from = (key.to_vec(), Reverse(Tag::visible_at(bound).to_u64()));
        let wanted = self.model.range(&from..).next().filter(|((found, _), _)| found == key);
        expect_equal(self.memtable.get(key, bound), wanted);
    }

    fn expect_entry(&self, at: Position, wanted: Option<(&Slot, &Vec<u8>)>) {
        expect_equal(self.memtable.entry(at), wanted);
    }
}

fn expect_equal(found: Option<Entry<'_>>, wanted: Option<(&Slot, &Vec<u8>)>) {
    let found = found.as_ref().map(|entry| (entry.key, entry.tag.to_u64(), &*entry.value));
    let wanted = wanted.map(|((key, Reverse(raw)), value)| (&key[..], *raw, &value[..]));
    // Not assert_eq: keys of 64 KiB do not belong on a screen.
    assert!(found == wanted, "the memtable has another entry than the model");
}

/// A pair with these keys in this order, one version each.
fn filled(keys: impl IntoIterator<Item = Vec<u8>>) -> Pair {
    let mut pair = Pair::new();
    for (seq, key) in (1..).zip(keys) {
        pair.put_numbered(&key, seq);
    }
    pair
}

fn user_key(number: u64) -> Vec<u8> {
    format!("user{number:020}").into_bytes()
}

#[test]
fn empty_memtable_has_no_entry() {
    let pair = Pair::new();
    pair.expect_same();
    assert_eq!(pair.memtable.used_bytes(), 0);
    assert_eq!(pair.memtable.memory_bytes(), size_of::<Memtable>());
}

#[test]
fn single_entries_are_found() {
    for key in [&b""[..], b"\0", b"k", b"a key of more than eight bytes"] {
        filled([key.to_vec()]).expect_same();
    }
}

#[test]
fn random_keys_of_a_small_alphabet() {
    // Short keys of few letters: they prefix one another, end in zero bytes,
    // and have equal heads.
    for seed in 1..=4 {
        let mut random = Random(seed);
        let mut pair = Pair::new();
        for seq in 1..=2500 {
            let len = random.below(14);
            let key = random.bytes(&[0, 1, b'a', 0xff], len);
            pair.put_numbered(&key, seq);
        }
        pair.expect_same();
    }
}

#[test]
fn keys_that_are_nothing_but_zero_bytes() {
    let mut keys: Vec<_> = (0..600).map(|len| vec![0; len]).collect();
    Random(9).shuffle(&mut keys);
    filled(keys).expect_same();
}

#[test]
fn keys_that_are_nothing_but_ones() {
    let mut keys: Vec<_> = (0..600).map(|len| vec![0xff; len]).collect();
    Random(10).shuffle(&mut keys);
    filled(keys).expect_same();
}

#[test]
fn numbers_behind_a_shared_prefix() {
    let mut random = Random(11);
    filled((0..6000).map(|_| user_key(random.next()))).expect_same();
}

#[test]
fn ascending_and_descending_keys() {
    filled((0..6000).map(user_key)).expect_same();
    filled((0..6000).rev().map(user_key)).expect_same();
}

#[test]
fn full_nodes_split_at_every_place() {
    // Leaves full by an ascending run, as many as the root has children.
    let (leaf, leaves) = (LEAF_KEYS as u64, INNER_KEYS as u64 + 1);
    let middle = leaves / 2;
    for child in [0, 1, middle - 1, middle, middle + 1, leaves - 2, leaves - 1] {
        for slot in [0, 1, leaf / 2 - 1, leaf / 2, leaf / 2 + 1, leaf - 1] {
            let mut pair = filled((0..leaf * leaves).map(|i| user_key(2 * i)));
            let used = pair.memtable.used_bytes();
            pair.put_numbered(&user_key(2 * (child * leaf + slot) + 1), 1 << 20);
            assert!(pair.memtable.used_bytes() - used > size_of::<Leaf>() + 2 * size_of::<Inner>());
            pair.expect_same_walks();
            for around in 0..4 * leaf {
                let key = user_key((2 * child * leaf + around).saturating_sub(leaf));
                pair.expect_same_seek(&key, u64::MAX);
                pair.expect_same_get(&key, SEQ_MAX);
            }
        }
    }
}

#[test]
fn several_runs_at_once() {
    let run = |table: u64, number: u64| format!("table{table}/{number:016}").into_bytes();
    let keys = (0..6000).map(|i| {
        let (table, number) = (i % 4, i / 4);
        run(table, if table == 2 { 9999 - number } else { number })
    });
    filled(keys).expect_same();
}

#[test]
fn late_keys_without_the_shared_prefix() {
    // They shorten prefixes that leaves and inner nodes have settled on.
    let mut random = Random(12);
    let long = "a long prefix that all the keys of one kind have in common/".repeat(3);
    let mut keys: Vec<Vec<u8>> =
        (0..4000).map(|_| [long.as_bytes(), &random.next().to_be_bytes()].concat()).collect();
    for cut in (0..long.len()).rev() {
        for byte in [b'!', b'~'] {
            keys.push([&long.as_bytes()[..cut], &[byte]].concat());
        }
    }
    filled(keys).expect_same();
}

#[test]
fn many_versions_of_one_key_in_any_order() {
    let mut seqs: Vec<SeqNo> = (1..=3000).collect();
    for order in 0..3 {
        match order {
            0 => {}
            1 => seqs.reverse(),
            _ => Random(13).shuffle(&mut seqs),
        }
        let mut pair = Pair::new();
        for neighbour in [&b"counte"[..], b"counter\0", b"d", b""] {
            pair.put_numbered(neighbour, 5000 + neighbour.len() as u64);
        }
        for &seq in &seqs {
            pair.put_numbered(b"counter", seq);
        }
        pair.expect_same();
        for bound in 0..=3001 {
            pair.expect_same_get(b"counter", bound);
        }
    }
}

#[test]
fn put_and_delete_with_one_sequence_number_are_two_entries() {
    let mut pair = Pair::new();
    pair.put(b"k", Tag::new(3, Kind::Put), b"v", false);
    pair.put(b"k", Tag::new(3, Kind::Delete), b"", false);
    pair.expect_same();
}

#[test]
fn longest_keys_and_values() {
    let mut pair = Pair::new();
    let mut random = Random(14);
    for seq in 1..=150 {
        let mut key = vec![b'k'; KEY_BYTES_MAX - random.below(2)];
        let at = random.below(key.len());
        key[at] = random.next() as u8;
        let value_len = if seq % 3 == 0 { INLINE_VALUE_BYTES_MAX } else { 10 };
        let value = random.bytes(b"xyz", value_len);
        pair.put(&key, Tag::new(seq, Kind::Put), &value, seq % 2 == 0);
        pair.put_numbered(&user_key(seq), 1000 + seq);
    }
    pair.expect_same();
}

#[test]
#[should_panic(expected = "key is too long")]
fn key_above_the_limit_is_refused() {
    Pair::new().put_numbered(&vec![0; KEY_BYTES_MAX + 1], 1);
}

#[test]
#[should_panic(expected = "inline value is too long")]
fn inline_value_above_the_limit_is_refused() {
    Pair::new().put(b"k", Tag::new(1, Kind::Put), &vec![0; INLINE_VALUE_BYTES_MAX + 1], false);
}

#[test]
#[should_panic(expected = "outlived an insert")]
fn position_from_before_an_insert_is_refused() {
    let mut pair = filled([b"a".to_vec(), b"b".to_vec()]);
    let at = pair.memtable.first();
    pair.put_numbered(b"c", 3);
    pair.memtable.entry(at);
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "has this key with this tag already")]
fn same_key_and_tag_twice_is_refused() {
    let mut memtable = Memtable::new(&ArenaPool::new(0));
    for _ in 0..2 {
        memtable.insert(b"k", Tag::new(1, Kind::Put), Payload::Inline(b""));
    }
}

#[test]
fn shared_values_are_not_copied() {
    let value: Arc<[u8]> = vec![7; 100_000].into();
    let mut memtable = Memtable::new(&ArenaPool::new(0));
    memtable.insert(b"k", Tag::new(1, Kind::Put), Payload::Shared(Arc::clone(&value)));
    let Some(Entry { value: ValueRef::Shared(found), .. }) = memtable.get(b"k", 1) else {
        panic!("a shared value came back as another form, or not at all");
    };
    assert!(Arc::ptr_eq(found, &value));
    drop(memtable);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn immutable_memtable_is_read_by_many_threads() {
    let pair = Arc::new(filled((0..2000).map(|i| user_key(i * 7919 % 2000))));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| pair.expect_same());
        }
    });
}

#[test]
fn small_memtable_uses_little() {
    // The engine's tests run with memtables of 4 KiB.
    let mut memtable = Memtable::new(&ArenaPool::new(0));
    for seq in 1..=20 {
        memtable.insert(&user_key(seq), Tag::new(seq, Kind::Put), Payload::Inline(&[1; 60]));
    }
    // 16 bytes of header and 24 of key; 60 of value make it up to 104.
    assert_eq!(memtable.used_bytes(), 20 * 104 + size_of::<Leaf>());
    assert!(memtable.used_bytes() < 4096);
}

/// The bytes of a vector that was pushed to once: its room is std's choice.
fn vec_bytes<T>(first: T) -> usize {
    let mut vec = Vec::new();
    vec.extend([first]);
    vec.capacity() * size_of::<T>()
}

#[test]
fn memory_is_counted_to_the_byte() {
    let mut memtable = Memtable::new(&ArenaPool::new(0));
    memtable.insert(b"first", Tag::new(1, Kind::Put), Payload::Inline(b"value"));
    let mut held = size_of::<Memtable>() + CHUNK_BYTES + Slab::<Leaf>::BYTES;
    held += vec_bytes::<Pages>(Pages::zeroed(1)) + vec_bytes::<Vec<Leaf>>(Vec::new());
    let mut used = 16 + 16 + size_of::<Leaf>();
    assert_eq!((memtable.memory_bytes(), memtable.used_bytes()), (held, used));

    // Two counters and 1001 bytes make 1017; an allocation is whole words.
    let value: Arc<[u8]> = vec![1; 1001].into();
    held += 1024 + vec_bytes(Arc::clone(&value));
    used += 32 + 1024 + size_of::<Arc<[u8]>>();
    memtable.insert(b"shared", Tag::new(2, Kind::Put), Payload::Shared(value));
    assert_eq!((memtable.memory_bytes(), memtable.used_bytes()), (held, used));

    // An entry with a chunk of its own: 16 + 2 + 65,536 bytes, in words, and in pages.
    held += 69_632;
    used += 65_560;
    memtable.insert(b"xl", Tag::new(3, Kind::Put), Payload::Inline(&[2; INLINE_VALUE_BYTES_MAX]));
    assert_eq!((memtable.memory_bytes(), memtable.used_bytes()), (held, used));

    // Enough for a second leaf and an inner node, in the chunk that is open.
    held += Slab::<Inner>::BYTES + vec_bytes::<Vec<Inner>>(Vec::new());
    used += 70 * 40 + size_of::<Leaf>() + size_of::<Inner>();
    for seq in 10..80 {
        memtable.insert(&user_key(seq), Tag::new(seq, Kind::Put), Payload::Inline(b""));
    }
    assert_eq!((memtable.memory_bytes(), memtable.used_bytes()), (held, used));
}

#[test]
fn entry_bytes_bounds_what_entries_use() {
    // The shortest entries, where nodes weigh most, in orders that split the
    // most: each `put` compares in the end.
    let key = |number: u32| number.to_be_bytes().to_vec();
    let orders: [Box<dyn Fn(u32) -> u32>; 5] = [
        Box::new(|i| i),
        Box::new(|i| 1_000_000 - i),
        // Up and down from the middle in turn.
        Box::new(|i| if i % 2 == 0 { 500_000 + i } else { 500_000 - i }),
        // Descending groups of ascending runs, each as long as a leaf and more.
        Box::new(|i| (1000 - i / 65) * 1000 + i % 65),
        // A run that fills a leaf, then down from the start of the next one.
        Box::new(|i| if i < 70 { i * 100_000 } else { 6_400_000 - i }),
    ];
    for order in orders {
        let pair = filled((0..20_000).map(|i| key(order(i))));
        assert!(pair.memtable.used_bytes() <= pair.bytes_max);
        pair.expect_same_walks();
    }
}

#[test]
fn ascending_runs_fill_their_leaves() {
    let entries = 50_000;
    let pool = ArenaPool::new(0);
    let mut memtable = Memtable::new(&pool);
    for seq in 1..=entries {
        memtable.insert(&user_key(seq), Tag::new(seq, Kind::Put), Payload::Inline(b""));
    }
    let node_bytes = memtable.used_bytes() - entries as usize * 40;
    let leaves = (entries as usize).div_ceil(LEAF_KEYS);
    assert!(node_bytes < (leaves + leaves / 16) * size_of::<Leaf>());
}

#[test]
fn dropped_memtable_gives_its_memory_to_the_next() {
    let pool = ArenaPool::new(64 << 20);
    let fill = || {
        let mut memtable = Memtable::new(&pool);
        for seq in 1..=5000 {
            memtable.insert(&user_key(seq), Tag::new(seq, Kind::Put), Payload::Inline(&[3; 300]));
        }
        // It has a chunk of its own, which the pool does not take.
        let long = Payload::Inline(&[4; INLINE_VALUE_BYTES_MAX]);
        memtable.insert(b"long", Tag::new(5001, Kind::Put), long);
        let entry = memtable.get(&user_key(77), SEQ_MAX).expect("it was inserted");
        assert_eq!(entry.value[..], [3; 300]);
        memtable
    };
    assert_eq!(pool.kept_bytes(), 0);
    drop(fill());
    let kept = pool.kept_bytes();
    // 344 bytes an entry, 762 of them in a chunk: 7 chunks, and the nodes.
    assert!(kept > 7 * CHUNK_BYTES && kept < 8 * CHUNK_BYTES, "{kept}");
    let second = fill();
    assert_eq!(pool.kept_bytes(), 0, "the second memtable takes all the first one gave");
    drop(second);
    assert_eq!(pool.kept_bytes(), kept, "and allocates nothing of its own");
}

#[test]
fn pool_keeps_no_more_than_its_limit() {
    for kept_bytes_max in [0, CHUNK_BYTES - 1, 3 * CHUNK_BYTES] {
        let pool = ArenaPool::new(kept_bytes_max);
        let memtables: Vec<_> = (0..3)
            .map(|_| {
                let mut memtable = Memtable::new(&pool);
                for seq in 1..=2000 {
                    let value = Payload::Inline(&[3; 300]);
                    memtable.insert(&user_key(seq), Tag::new(seq, Kind::Put), value);
                }
                memtable
            })
            .collect();
        drop(memtables);
        assert!(pool.kept_bytes() <= kept_bytes_max);
        assert!(pool.kept_bytes() >= kept_bytes_max.saturating_sub(CHUNK_BYTES));
    }
}

#[test]
fn memtables_are_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Memtable>();
    check::<ArenaPool>();
}

proptest! {
    #![proptest_config(Config {
        cases: 300,
        rng_seed: RngSeed::Fixed(0x5eed),
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn any_writes_match_the_model(
        writes in prop::collection::vec(
            (
                prop::collection::vec(prop::sample::select(vec![0, 1, b'z', 0xff]), 0..24),
                0..20_usize,
                any::<bool>(),
            ),
            0..400,
        ),
        order in any::<u64>(),
    ) {
        // Sequence numbers arrive out of order.
        let mut seqs: Vec<SeqNo> = (1..=writes.len() as SeqNo).collect();
        Random(order | 1).shuffle(&mut seqs);
        let mut pair = Pair::new();
        for (&seq, (key, value_len, shared)) in seqs.iter().zip(&writes) {
            pair.put(key, Tag::new(seq, Kind::Put), &vec![seq as u8; *value_len], *shared);
        }
        pair.expect_same();
    }
}

#[test]
fn range_tombstones_stand_beside_the_entries() {
    let mut memtable = Memtable::new(&ArenaPool::new(1 << 20));
    let delete = |memtable: &mut Memtable, start: &[u8], end: &[u8], seq| {
        memtable.insert(start, Tag::new(seq, Kind::RangeDelete), Payload::Inline(end));
    };
    let newest = |memtable: &Memtable, key: &[u8], bound| {
        memtable.get(key, bound).map(|entry| (entry.tag.seq(), entry.tag.kind().expect("known")))
    };
    delete(&mut memtable, b"b", b"d", 5);
    assert!(!memtable.is_empty() && memtable.entry(memtable.first()).is_none());
    assert_eq!(memtable.seq_range(), Some((5, 5)));
    let alone = memtable.used_bytes();
    assert!(alone > 0 && memtable.memory_bytes() > alone);
    memtable.insert(b"c", Tag::new(4, Kind::Put), Payload::Inline(b"old"));
    memtable.insert(b"c", Tag::new(6, Kind::Put), Payload::Inline(b"new"));
    memtable.insert(b"d", Tag::new(3, Kind::Put), Payload::Inline(b"apart"));
    assert_eq!(newest(&memtable, b"c", 4), Some((4, Kind::Put)));
    assert_eq!(newest(&memtable, b"c", 5), Some((5, Kind::RangeDelete)));
    assert_eq!(newest(&memtable, b"c", 9), Some((6, Kind::Put)));
    assert_eq!(newest(&memtable, b"bb", 9), Some((5, Kind::RangeDelete)));
    assert_eq!(newest(&memtable, b"bb", 4), None);
    assert_eq!(newest(&memtable, b"d", 9), Some((3, Kind::Put)));
    // A scan keeps what it took.
    let taken = Arc::clone(memtable.ranges());
    memtable.insert(b"", Tag::new(7, Kind::RangeDelete), Payload::Shared((*b"").into()));
    assert_eq!((taken.len(), memtable.ranges().len()), (1, 3));
    assert_eq!(newest(&memtable, b"zz", 9), Some((7, Kind::RangeDelete)));
    assert_eq!((memtable.seq_range(), memtable.len()), (Some((3, 7)), 3));
    assert!(!memtable.has_many_ranges());
    for seq in 10..10 + super::RANGES_MAX as SeqNo {
        delete(&mut memtable, &(2 * seq).to_be_bytes(), &(2 * seq + 1).to_be_bytes(), seq);
    }
    assert!(memtable.has_many_ranges());
}

#[test]
fn the_same_range_deleted_again_and_again_fills_a_memtable() {
    let mut memtable = Memtable::new(&ArenaPool::new(1 << 20));
    let mut deletes = 0;
    while !memtable.has_many_ranges() && deletes < 100_000 {
        deletes += 1;
        let tag = Tag::new(deletes, Kind::RangeDelete);
        memtable.insert(b"a", tag, Payload::Inline(b"b"));
    }
    assert_eq!((deletes, memtable.ranges().len()), (super::RANGE_NUMBERS_MAX as SeqNo, 1));
}

#[test]
fn what_is_referred_to_counts_however_long_the_reference_is() {
    let mut memtable = Memtable::new(&ArenaPool::new(1 << 20));
    let file = FileId::new(1, 1);
    let mut all = 0;
    for (seq, len) in [(1, 100_000), (2, 64 << 20)] {
        let extent = Extent { file, offset: 4096, bytes: round_up(len) as u64 };
        let mut builder = ReferenceBuilder::new(DbId([1; 16]), &extent, len);
        builder.add(&vec![0; len]);
        let reference = builder.finish();
        for (at, long) in [Payload::Inline(&reference), Payload::Shared((&reference[..]).into())]
            .into_iter()
            .enumerate()
        {
            memtable.insert(b"key", Tag::new(2 * seq + at as SeqNo, Kind::Indirect), long);
            all += len as u64;
        }
    }
    assert_eq!((memtable.light_entries(), memtable.referenced_bytes()), (4, all));
}
