//! The targets without a fuzzer: what encoders make is taken, and so is what is
//! near it.

use super::{TARGETS, Target};

/// Changes that a fuzzer would try first.
fn changed(seed: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let step = seed.len().div_ceil(40).max(1);
    (0..seed.len()).step_by(step).flat_map(move |at| {
        let flipped = |pattern: u8| {
            let mut bytes = seed.to_vec();
            bytes[at] ^= pattern;
            bytes
        };
        let without = [&seed[..at], &seed[at + 1..]].concat();
        [flipped(1), flipped(0x80), flipped(0xff), without, seed[..at].to_vec()]
    })
}

fn run(target: &Target) {
    let seeds = (target.seeds)();
    for seed in &seeds {
        (target.run)(seed);
    }
    if target.name == "directory" {
        return;
    }
    for seed in seeds.iter().flat_map(|seed| changed(seed)) {
        (target.run)(&seed);
    }
    (target.run)(b"");
}

#[test]
fn each_target_takes_what_encoders_make_and_what_is_near_it() {
    for target in &TARGETS {
        run(target);
    }
}

#[test]
fn seeds_are_small_and_names_are_unique() {
    let mut all = 0;
    for target in &TARGETS {
        assert!(std::ptr::eq(super::target(target.name), target), "{}", target.name);
        let seeds = (target.seeds)();
        all += seeds.iter().map(Vec::len).sum::<usize>();
        assert!(target.name == "zstd" || !seeds.is_empty(), "{}", target.name);
    }
    assert!(all < 50_000, "{all} bytes");
}
