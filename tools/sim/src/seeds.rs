//! `ouro-sim --seeds`: runs seeds on all cores, piece by piece, and says what came
//! of them.

use std::num::NonZero;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use crate::interrupt::Interrupt;
use crate::manner::{Manner, Without};
use crate::progress;
use crate::record::{Piece, Recorder};
use crate::shrink::shrink;
use crate::world::{self, Outcome};

/// Operations of a seed, if nobody says otherwise.
const OPERATIONS: u64 = 2000;
/// A piece of a run goes into the record after so long.
const PIECE: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The seeds from A on, and before B
    #[arg(long, value_name = "A..B", value_parser = seeds, default_value = "0..1000")]
    seeds: Range<u64>,
    /// This seed alone
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    #[arg(value_parser = clap::value_parser!(u64).range(..u64::MAX))]
    seed: Option<u64>,
    /// Operations of each seed
    #[arg(long, value_name = "N", default_value_t = OPERATIONS)]
    operations: u64,
    /// Leave these out, to see whether a seed fails without them
    #[arg(long, value_name = "WHAT,…", value_delimiter = ',')]
    without: Vec<Without>,
    /// Go on after a seed that failed
    #[arg(long)]
    keep_going: bool,
    /// Threads, each with a seed at a time [default: one a core]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Add what was run to this file, and skip what it says was run with the same
    /// engine: a run that was interrupted goes on
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    record: Option<PathBuf>,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("two numbers are wanted, such as 0..1000")?;
    let number = |text: &str| text.parse().map_err(|_| format!("\"{text}\" is no number"));
    let seeds: Range<u64> = number(from)?..number(to)?;
    if seeds.is_empty() {
        return Err(format!("there are no seeds in {text}: the end must be behind the start"));
    }
    Ok(seeds)
}

/// What seeds came to.
#[derive(Default)]
struct Total {
    seeds: u64,
    failed: Vec<u64>,
    outcome: Outcome,
}

impl Total {
    fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.failed.extend(&other.failed);
        self.outcome.add(&other.outcome);
    }
}

/// Runs the seeds and returns the exit code.
pub(crate) fn run(arguments: &Arguments) -> u8 {
    match try_run(arguments) {
        Ok(code) => code,
        Err((code, what)) => {
            eprintln!("ouro-sim: {what}");
            code
        }
    }
}

fn try_run(arguments: &Arguments) -> Result<u8, (u8, String)> {
    let seeds = arguments.seed.map_or(arguments.seeds.clone(), |seed| seed..seed.saturating_add(1));
    let manner = Manner { operations: arguments.operations, without: arguments.without.clone() };
    let mut recorder = match &arguments.record {
        Some(path) => Some(Recorder::open(path).map_err(|what| (2, what))?),
        None => None,
    };
    let ranges = match &recorder {
        Some(recorder) => recorder.missing(&manner, seeds.clone()),
        None => vec![seeds.clone()],
    };
    let left: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let skipped = seeds.end - seeds.start - left;
    if skipped > 0 {
        println!("{skipped} of these seeds are on record for this engine, and not run again");
    }
    let interrupt = Interrupt::install().map_err(|error| (7, error.to_string()))?;
    let bar = progress::bar(left, "seeds");
    let run = Run { arguments, manner: &manner, interrupt: &interrupt, bar: &bar };
    let mut total = Total::default();
    for range in ranges {
        let mut at = range.start;
        while at < range.end && !run.is_over(&total) {
            let start = Instant::now();
            let piece = run.piece(at..range.end);
            let done = at..at + piece.seeds;
            at = done.end;
            total.add(&piece);
            if let Some(recorder) = &mut recorder
                && !done.is_empty()
            {
                let took = start.elapsed().as_millis() as u64;
                let piece = Piece::new(&manner, done, piece.failed, took, &piece.outcome);
                recorder.add(piece).map_err(|what| (7, what))?;
            }
        }
    }
    bar.finish_and_clear();
    let Outcome { operations, openings, crashes, power_cuts, openings_cut, faults, trace, .. } =
        total.outcome;
    println!(
        "{} seed{}, {} failed: {operations} operations, {openings} openings, {crashes} crashes \
         ({power_cuts} of them losses of power, {openings_cut} while opening), {faults} faults; \
         trace {trace:016x}",
        total.seeds,
        if total.seeds == 1 { "" } else { "s" },
        total.failed.len()
    );
    let mut has_failed = !total.failed.is_empty();
    if let Some(recorder) = &recorder {
        let (ours, all, failed) = recorder.totals(&manner);
        println!(
            "on record: {ours} seeds of this engine, {} of them failed; {all} seeds of all engines",
            failed.len()
        );
        // Whoever asks for them again is told again.
        for seed in failed.iter().filter(|seed| seeds.contains(seed)) {
            if !total.failed.contains(seed) {
                println!("seed {seed} failed before\nreplay: ouro-sim {}", replay(*seed, &manner));
                has_failed = true;
            }
        }
    }
    if interrupt.requested() {
        return Err((interrupt.exit_code(), "interrupted".to_owned()));
    }
    Ok(u8::from(has_failed))
}

/// A run of many seeds.
struct Run<'a> {
    arguments: &'a Arguments,
    manner: &'a Manner,
    interrupt: &'a Interrupt,
    bar: &'a ProgressBar,
}

impl Run<'_> {
    /// Whether no more seeds are to be begun.
    fn is_over(&self, total: &Total) -> bool {
        self.interrupt.requested() || !(total.failed.is_empty() || self.arguments.keep_going)
    }

    /// Runs seeds, from the first on without a gap, until one fails or the time of a piece
    /// is up.
    fn piece(&self, seeds: Range<u64>) -> Total {
        let cores = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let jobs = self.arguments.jobs.unwrap_or(cores).get();
        let (next, total) = (AtomicU64::new(seeds.start), Mutex::new(Total::default()));
        let lock = || total.lock().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now();
        let take = || {
            if self.is_over(&lock()) || start.elapsed() > PIECE {
                return None;
            }
            let seed = next.fetch_add(1, Ordering::Relaxed);
            seeds.contains(&seed).then_some(seed)
        };
        let work = || {
            while let Some(seed) = take() {
                let ran = world::run(seed, self.manner);
                if let Err(wrong) = &ran {
                    self.failed(seed, wrong);
                }
                self.bar.inc(1);
                let mut total = lock();
                total.seeds += 1;
                match ran {
                    Ok(outcome) => total.outcome.add(&outcome),
                    Err(_) => total.failed.push(seed),
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(work);
            }
        });
        total.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what went wrong, how to see it again, and the least that it takes.
    fn failed(&self, seed: u64, wrong: &str) {
        let replay = replay(seed, self.manner);
        self.bar.suspend(|| println!("seed {seed}: {wrong}\nreplay: ouro-sim {replay}"));
        if self.arguments.seed.is_some() {
            return;
        }
        let fails =
            |manner: &Manner| !self.interrupt.requested() && world::run(seed, manner).is_err();
        let least = shrink(self.manner, Without::value_variants(), fails);
        if least != *self.manner {
            self.bar.suspend(|| println!("shrunk: ouro-sim {}", self::replay(seed, &least)));
        }
    }
}

/// The arguments that run this seed again.
fn replay(seed: u64, manner: &Manner) -> String {
    let mut arguments = format!("--seed {seed}");
    if manner.operations != OPERATIONS {
        arguments += &format!(" --operations {}", manner.operations);
    }
    let without = manner.without.iter().filter_map(ValueEnum::to_possible_value);
    let without: Vec<String> = without.map(|value| value.get_name().to_owned()).collect();
    if !without.is_empty() {
        arguments += &format!(" --without {}", without.join(","));
    }
    arguments
}
