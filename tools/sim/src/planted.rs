//! Bugs planted in the engine, one after the other: each must be caught.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ourodb::planted::{Bug, plant};

use crate::manner::Manner;
use crate::{panics, world};

/// Each bug is caught within so many seeds.
const SEEDS: u64 = 1000;

/// The first seed that fails, or nearly the first, and how.
fn caught(manner: &Manner) -> Option<(u64, String)> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let (next, caught) = (AtomicU64::new(0), Mutex::new(None));
    let lock = || caught.lock().expect("nobody panics with it");
    let work = || {
        while lock().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return;
            }
            if let Err(wrong) = world::run(seed, manner) {
                lock().get_or_insert((seed, wrong));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..cores.get() {
            scope.spawn(work);
        }
    });
    caught.into_inner().expect("nobody panics with it")
}

#[test]
fn every_planted_bug_is_caught() {
    panics::catch();
    let manner = Manner { operations: 2000, without: Vec::new() };
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        plant(Some(bug));
        match caught(&manner) {
            Some((seed, wrong)) => println!("{bug:?}: seed {seed}: {wrong}"),
            None => missed.push(bug),
        }
    }
    plant(None);
    drop(std::panic::take_hook());
    assert_eq!(missed, [], "not caught within {SEEDS} seeds");
}
