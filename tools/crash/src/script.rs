//! What the clients do: every operation, and what it is to survive, follows from
//! (seed, cycle, client, number), from the cycle's mode, and from which keys
//! share a WAL stream.
//!
//! Each client writes only keys of its own, so at most one of its operations is
//! in flight, and what its keys hold does not depend on the other clients.

use std::ops::RangeInclusive;

use fastrand::Rng;
use ourodb::Durability;

use crate::durability::Mode;

/// Keys of each client. Few, so that each is overwritten often.
pub(crate) const KEYS_PER_CLIENT: usize = 96;

/// A batch has at most so many changes of values of at most so many bytes:
/// within what the engine takes in one batch.
const BATCH_CHANGES_MAX: usize = 12;
const BATCH_VALUE_BYTES_MAX: usize = 4096;
/// Now and then a value is up to this long: of these, a third are too long for
/// the log, and go into value files.
pub(crate) const LONG_VALUE_BYTES_MAX: usize = 96 << 10;

const KEY_BYTES_MAX: usize = KEY_HEAD_BYTES + LONG_KEY_TAIL_BYTES_MAX;
/// Two numbers of two digits, and two hyphens.
const KEY_HEAD_BYTES: usize = 6;
const LONG_KEY_TAIL_BYTES_MAX: usize = 2000;

/// What the log needs for a change beyond key and value, and for a record
/// beyond its changes, at most.
const LOG_OVERHEAD_BYTES_MAX: usize = 64;

/// The longest log record that an operation makes.
pub(crate) const RECORD_BYTES_MAX: usize = {
    let batch = BATCH_CHANGES_MAX * change_bytes_max(BATCH_VALUE_BYTES_MAX);
    // What is longer is not in the log.
    let single = change_bytes_max(64 << 10);
    LOG_OVERHEAD_BYTES_MAX + if batch > single { batch } else { single }
};

const fn change_bytes_max(value_bytes_max: usize) -> usize {
    KEY_BYTES_MAX + value_bytes_max + LOG_OVERHEAD_BYTES_MAX
}

/// Added to the number of a cycle: that of what is written before a close, and
/// of cycles on a throttled disk.
pub(crate) const CLOSING: u64 = 1 << 32;
pub(crate) const THROTTLED: u64 = 1 << 40;

/// Sets the choice of durabilities apart from that of operations.
const SALT: u64 = 0x6d6f_6465;
/// And these, how clients work, and what is read.
const WAY_SALT: u64 = 0x7761_7973;
const READ_SALT: u64 = 0x7265_6164;

/// Index of a key among those of all clients: in the order of their bytes.
pub(crate) fn key_index(client: usize, key: usize) -> usize {
    client * KEYS_PER_CLIENT + key
}

/// One key's new value, or its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Index among the client's keys.
    pub(crate) key: usize,
    pub(crate) value: Option<Vec<u8>>,
}

/// One call of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Single(Change),
    /// Atomic; all keys are of one WAL stream, and one may come twice.
    Batch(Vec<Change>),
    /// From one of the client's keys to another one, both included. Atomic in
    /// each WAL stream, and not over several.
    DeleteRange(RangeInclusive<usize>),
    /// Memtables to tables: changes no key.
    Flush,
    /// Tables to the deepest level: changes no key.
    Compact,
}

/// What an operation does to the keys of one WAL stream: wholly or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) stream: u16,
    pub(crate) changes: Vec<Change>,
}

impl Operation {
    /// What it does, by WAL stream; `streams` are those of the client's keys.
    pub(crate) fn parts(self, streams: &[u16]) -> Vec<Part> {
        let changes = match self {
            Self::Single(change) => vec![change],
            Self::Batch(changes) => changes,
            Self::DeleteRange(keys) => keys.map(|key| Change { key, value: None }).collect(),
            Self::Flush | Self::Compact => Vec::new(),
        };
        let mut parts: Vec<Part> = Vec::new();
        for change in changes {
            let stream = streams[change.key];
            match parts.iter_mut().find(|part| part.stream == stream) {
                Some(part) => part.changes.push(change),
                None => parts.push(Part { stream, changes: vec![change] }),
            }
        }
        parts
    }
}

/// How a client does its operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A thread that waits for each.
    Thread,
    /// A task, beside others on one thread, that awaits each.
    Task,
    /// A task whose operations run beside the data, on an owner's thread.
    Owner,
}

/// The WAL stream of each key, by client: known once the database is open.
pub(crate) type Streams = Vec<Vec<u16>>;

/// The operations of one cycle.
pub(crate) struct Script {
    seed: u64,
    cycle: u64,
    mode: Mode,
    streams: Streams,
    /// One in so many operations is a flush or a compaction; 0 for none.
    flush_every: u64,
}

/// Of the flushes, one in so many is a compaction instead.
const COMPACT_EVERY: u64 = 3;
const DELETE_RANGE_EVERY: u64 = 24;
/// Few ranges are longer than so many keys: they would leave little to lose.
const SHORT_RANGE_KEYS_MAX: usize = 6;

impl Script {
    pub(crate) fn new(seed: u64, cycle: u64, mode: Mode, streams: Streams) -> Self {
        let flush_every = [0, 64, 256][random(&[seed, cycle]).usize(..3)];
        Self { seed, cycle, mode, streams, flush_every }
    }

    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// How the client does its operations.
    pub(crate) fn way(&self, client: usize) -> Way {
        match random(&[self.seed, self.cycle, client as u64, WAY_SALT]).u8(..4) {
            // A thread that waits for a held back disk cannot die.
            0 | 1 if self.cycle < THROTTLED => Way::Thread,
            0 | 2 => Way::Task,
            _ => Way::Owner,
        }
    }

    /// What is drawn for one of a reader's reads.
    pub(crate) fn read(&self, reader: u64, number: u64) -> Rng {
        random(&[self.seed, self.cycle, reader, number, READ_SALT])
    }

    /// What the client's operation of this number is to survive.
    pub(crate) fn durability(&self, client: usize, number: u64) -> Durability {
        self.mode.draw(&mut random(&[self.seed, self.cycle, client as u64, number, SALT]))
    }

    pub(crate) fn operation(&self, client: usize, number: u64) -> Operation {
        let mut random = random(&[self.seed, self.cycle, client as u64, number]);
        if self.flush_every > 0 && random.u64(..self.flush_every) == 0 {
            return match random.u64(..COMPACT_EVERY) {
                0 => Operation::Compact,
                _ => Operation::Flush,
            };
        }
        let first = random.usize(..KEYS_PER_CLIENT);
        if random.u64(..DELETE_RANGE_EVERY) == 0 {
            let is_short = random.u8(..8) > 0;
            let keys_max = if is_short { SHORT_RANGE_KEYS_MAX } else { KEYS_PER_CLIENT };
            let last = first + random.usize(..keys_max);
            return Operation::DeleteRange(first..=last.min(KEYS_PER_CLIENT - 1));
        }
        if random.u8(..4) > 0 {
            let bytes_max = match random.u8(..64) {
                0 => LONG_VALUE_BYTES_MAX,
                1..=4 => 8192,
                _ => 512,
            };
            return Operation::Single(self.change(
                &mut random,
                client,
                number,
                first,
                bytes_max,
                0,
            ));
        }
        let streams = &self.streams[client];
        let together: Vec<usize> =
            (0..KEYS_PER_CLIENT).filter(|key| streams[*key] == streams[first]).collect();
        let changes = (0..random.usize(2..=BATCH_CHANGES_MAX)).map(|part| {
            let key = together[random.usize(..together.len())];
            self.change(&mut random, client, number, key, BATCH_VALUE_BYTES_MAX, part)
        });
        Operation::Batch(changes.collect())
    }

    fn change(
        &self,
        random: &mut Rng,
        client: usize,
        number: u64,
        key: usize,
        bytes_max: usize,
        part: usize,
    ) -> Change {
        if random.u8(..5) == 0 {
            return Change { key, value: None };
        }
        // The head says to a reader of a failure which write this was.
        let cycle = self.cycle;
        let mut value =
            format!("cycle {cycle} client {client} operation {number}.{part};").into_bytes();
        let length = random.usize(..=bytes_max);
        let head = value.len();
        value.resize(length, 0);
        if let Some(fill) = value.get_mut(head..) {
            random.fill(fill);
        }
        Change { key, value: Some(value) }
    }
}

/// The bytes of a client's key: short ones, long ones, and the empty one.
pub(crate) fn key_bytes(client: usize, key: usize) -> Vec<u8> {
    if client == 0 && key == 0 {
        return Vec::new();
    }
    let mut random = random(&[client as u64, key as u64]);
    let mut bytes = format!("{client:02}-{key:02}-").into_bytes();
    let head = bytes.len();
    assert_eq!(head, KEY_HEAD_BYTES, "clients and keys have two digits");
    let length_max = if key.is_multiple_of(16) { LONG_KEY_TAIL_BYTES_MAX } else { 20 };
    bytes.resize(head + random.usize(..=length_max), 0);
    random.fill(&mut bytes[head..]);
    bytes
}

/// A generator seeded by all of `numbers`, in order.
pub(crate) fn random(numbers: &[u64]) -> Rng {
    let seed = numbers.iter().fold(0, |seed: u64, number| {
        // One step of SplitMix64 (Steele, Lea, Flood: Fast splittable
        // pseudorandom number generators), so that near seeds part at once.
        let mut mixed = (seed ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    });
    Rng::with_seed(seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn script(cycle: u64) -> Script {
        let streams = vec![(0..KEYS_PER_CLIENT).map(|key| (key % 3) as u16).collect(); 4];
        Script::new(9, cycle, Mode::Mixed, streams)
    }

    #[test]
    fn operations_follow_from_their_numbers() {
        let operations = |cycle| -> Vec<Operation> {
            (0..2000).map(|number| script(cycle).operation(1, number)).collect()
        };
        assert_eq!(operations(5), operations(5));
        assert_ne!(operations(5), operations(6));
        let durabilities = |cycle| -> Vec<Durability> {
            (0..100).map(|number| script(cycle).durability(1, number)).collect()
        };
        assert_eq!(durabilities(5), durabilities(5));
        assert_ne!(durabilities(5), durabilities(6));
    }

    #[test]
    fn a_batch_stays_within_one_stream_and_the_limits() {
        let mut batches = 0;
        for number in 0..2000 {
            let operation = script(3).operation(2, number);
            let Operation::Batch(changes) = &operation else {
                continue;
            };
            batches += 1;
            assert!((2..=BATCH_CHANGES_MAX).contains(&changes.len()));
            for change in changes {
                assert_eq!(change.key % 3, changes[0].key % 3);
                assert!(key_bytes(2, change.key).len() <= KEY_BYTES_MAX);
                assert!(change.value.as_ref().is_none_or(|v| v.len() <= BATCH_VALUE_BYTES_MAX));
            }
        }
        assert!((300..700).contains(&batches), "{batches} batches");
    }

    #[test]
    fn a_range_delete_has_a_part_for_each_stream_with_keys() {
        let script = script(3);
        let mut lengths = BTreeSet::new();
        for number in 0..5000 {
            let Operation::DeleteRange(keys) = script.operation(2, number) else {
                continue;
            };
            assert!(keys.start() <= keys.end() && *keys.end() < KEYS_PER_CLIENT);
            let parts = Operation::DeleteRange(keys.clone()).parts(&script.streams()[2]);
            let length = keys.clone().count();
            assert_eq!(parts.len(), length.min(3));
            let mut deleted: Vec<usize> = Vec::new();
            for Part { stream, changes } in parts {
                assert!(changes.iter().all(|change| change.key % 3 == usize::from(stream)));
                deleted.extend(changes.iter().map(|change| change.key));
                assert!(changes.iter().all(|change| change.value.is_none()));
            }
            deleted.sort_unstable();
            assert_eq!(deleted, keys.collect::<Vec<_>>());
            lengths.insert(length);
        }
        assert!(lengths.contains(&1) && lengths.last() > Some(&SHORT_RANGE_KEYS_MAX));
    }

    #[test]
    fn clients_work_in_all_ways() {
        for way in [Way::Thread, Way::Task, Way::Owner] {
            assert!((0..20).any(|cycle| script(cycle).way(0) == way), "{way:?}");
        }
    }

    #[test]
    fn no_two_keys_are_the_same() {
        let keys: BTreeSet<Vec<u8>> = (0..16)
            .flat_map(|client| (0..KEYS_PER_CLIENT).map(move |key| key_bytes(client, key)))
            .collect();
        assert_eq!(keys.len(), 16 * KEYS_PER_CLIENT);
    }
}
