//! What several tests share.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;

use ourodb::{Db, IoBackend, Options, sim::Sim};

/// A pseudo-random sequence that is the same for ever (SplitMix64, G. Steele,
/// D. Lea, C. Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Tiny limits, so that rare paths run often.
pub fn tiny(sim: &Sim) -> Options {
    Options::default()
        .io(IoBackend::Sim(sim.clone()))
        .memtable_bytes(4096)
        .wal_segment_bytes(16 << 10)
        .cache_bytes(48 << 10)
}

/// Bytes of all files.
pub fn used_bytes(sim: &Sim) -> u64 {
    let bytes = |path: &PathBuf| sim.file_bytes(path).map_or(0, |bytes| bytes.len() as u64);
    sim.paths().iter().map(bytes).sum()
}

/// Polls a future that must wait, once.
pub fn begin<F: Future>(sim: &Sim, future: &mut Pin<Box<F>>) {
    sim.block_on(poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
}

pub type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Compares everything: every way of scanning, and a get of each key.
pub fn assert_same(db: &Db, model: &Model) {
    let forward: Model = db
        .scan(..)
        .iter()
        .map(|row| row.map(|(k, v)| (k.into_vec(), v.into_vec())))
        .collect::<Result<_, _>>()
        .expect("a forward scan");
    assert_eq!(forward.len(), model.len(), "rows of a forward scan");
    assert_eq!(&forward, model);
    let backward: Vec<_> = db
        .scan(..)
        .reverse()
        .iter()
        .map(|row| row.map(|(k, v)| (k.into_vec(), v.into_vec())))
        .collect::<Result<_, _>>()
        .expect("a backward scan");
    assert!(backward.iter().map(|(k, v)| (k, v)).eq(model.iter().rev()), "a backward scan");
    for (key, value) in model {
        assert_eq!(db.get(key).wait().expect("a get").as_deref(), Some(&value[..]));
    }
}

/// Puts and deletes, two hundred in all, of keys from `000` to `299`; values have
/// one of these lengths.
pub fn change_some(db: &Db, model: &mut Model, rng: &mut Rng, lens: &[usize]) {
    for _ in 0..200 {
        let key = format!("{:03}", rng.below(300)).into_bytes();
        if rng.one_in(3) {
            db.delete(&key).wait().expect("a delete");
            model.remove(&key);
        } else {
            let len = lens[rng.below(lens.len() as u64) as usize];
            let value = rng.bytes(len);
            db.put(&key, &value).wait().expect("a put");
            model.insert(key, value);
        }
    }
}
