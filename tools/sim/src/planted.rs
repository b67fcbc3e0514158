//! Bugs planted in the engine, one after the other: each must be caught.

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use ourodb::planted::{Bug, plant};

use crate::manner::Manner;
use crate::world;

/// Plants bugs in the engine, one after the other, each of which must be caught
#[derive(Debug, Args)]
pub(crate) struct Planted {
    /// This bug alone
    #[arg(long, value_name = "NAME", value_parser = parse_bug)]
    bug: Option<Bug>,
    /// Each within so many seeds [default: those stated for it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    within: Option<u64>,
}

fn parse_bug(text: &str) -> Result<Bug, String> {
    let named = |bug: &Bug| format!("{bug:?}") == text;
    Bug::ALL.into_iter().find(named).ok_or_else(|| {
        let names: Vec<String> = Bug::ALL.iter().map(|bug| format!("{bug:?}")).collect();
        format!("it is one of {}", names.join(", "))
    })
}

/// The seeds within which a bug must be caught. Each change to engine or simulator makes of
/// every seed another run, so what counts is how many of them catch a bug: for the rare ones
/// one of 200, for the others one of 27 or more. With bounds of at least twelve times as many,
/// one of them slips once in 200,000 changes.
fn seeds(bug: Bug) -> u64 {
    match bug {
        Bug::MappedBufferReusedEarly | Bug::SyncRetried | Bug::FoundLogOnlySynced => 2500,
        _ => 400,
    }
}

pub(crate) fn run(planted: &Planted) -> ExitCode {
    let bugs = planted.bug.map_or_else(|| Bug::ALL.to_vec(), |bug| vec![bug]);
    let within = |bug| planted.within.unwrap_or_else(|| seeds(bug));
    let missed = missed(&bugs, within);
    println!("{} bugs planted, {} not caught", bugs.len(), missed.len());
    for bug in &missed {
        eprintln!("ouro-sim: {bug:?} was not caught within {} seeds", within(*bug));
    }
    ExitCode::from(u8::from(!missed.is_empty()))
}

/// Plants each of these, and says by which seed it was caught. Those that were not.
fn missed(bugs: &[Bug], within: impl Fn(Bug) -> u64) -> Vec<Bug> {
    let manner = Manner { operations: 2000, without: Vec::new() };
    let mut missed = Vec::new();
    for bug in bugs {
        plant(Some(*bug));
        let within = within(*bug);
        match caught(&manner, within) {
            Some((seed, wrong)) => {
                let short: String = wrong.chars().take(100).collect();
                println!("{bug:?}: seed {seed} of {within}: {short}");
            }
            None => missed.push(*bug),
        }
    }
    plant(None);
    missed
}

/// The first seed that fails, or nearly the first, and how.
fn caught(manner: &Manner, within: u64) -> Option<(u64, String)> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let (next, caught) = (AtomicU64::new(0), Mutex::new(None));
    let lock = || caught.lock().expect("nobody panics with it");
    let work = || {
        while lock().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= within {
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
