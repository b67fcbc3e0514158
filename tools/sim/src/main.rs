//! `ouro-sim`: runs the storage engine on a simulated machine, seed by seed.
//!
//! `plan` draws what a seed does; `world` runs it, life by life; `client` is what
//! works on the database meanwhile, `history` judges what is found. `panics`
//! catches what the engine's own checks say.

mod client;
mod damage;
mod fail;
mod history;
mod panics;
mod plan;
mod sweep;
mod world;

use std::num::NonZero;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::{Parser, Subcommand, ValueEnum};

use crate::world::Outcome;

/// Operations of a seed, if nobody says otherwise.
const OPERATIONS: u64 = 2000;

/// What a run leaves out, to find out what it takes to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Without {
    /// Requests that take their time
    Delay,
    /// Requests that complete in another order
    Reorder,
    /// Short transfers
    Short,
    /// Requests refused for now
    Again,
    /// Failing reads
    ReadError,
    /// Failing writes
    WriteError,
    /// Space that is not there now and then
    NoSpace,
    /// A disk that is full at some point
    FullDisk,
    /// Kills and losses of power
    Crash,
    /// Deletes of ranges
    DeleteRange,
    /// Scans
    Scan,
    /// Options that differ from opening to opening
    Vary,
    /// All clients but one
    Clients,
}

/// Runs OuroDB on a simulated machine, with faults, kills and losses of power
///
/// A seed decides everything: what goes wrong, what the clients do, and in which
/// order all of it happens. The same seed gives the same run.
///
/// Exit codes: 0 nothing is wrong; 1 a seed failed, with a `replay:` line; 2 usage.
#[derive(Debug, Parser)]
#[command(name = "ouro-sim", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    sweep: Option<Sweep>,
    /// The seeds from A on, and before B
    #[arg(long, value_name = "A..B", value_parser = seeds, default_value = "0..1000")]
    seeds: Range<u64>,
    /// This seed alone
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
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
}

/// What is tried out exhaustively, in place of seeds.
#[derive(Debug, Subcommand)]
enum Sweep {
    Fail(fail::Fail),
    Damage(damage::Damage),
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("two numbers are wanted, such as 0..1000")?;
    let number = |text: &str| text.parse().map_err(|_| format!("\"{text}\" is no number"));
    let seeds: Range<u64> = number(from)?..number(to)?;
    if seeds.is_empty() {
        return Err(format!("there are no seeds in {text}: the end comes behind the start"));
    }
    Ok(seeds)
}

/// What all seeds came to.
#[derive(Default)]
struct Total {
    seeds: u64,
    failed: u64,
    outcome: Outcome,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    panics::catch();
    if let Some(sweep) = &cli.sweep {
        return match sweep {
            Sweep::Fail(args) => fail::run(args),
            Sweep::Damage(args) => damage::run(args),
        };
    }
    let seeds = cli.seed.map_or(cli.seeds.clone(), |seed| seed..seed.saturating_add(1));
    let total = run(&cli, seeds);
    let Outcome { operations, openings, crashes, power_cuts, faults, trace } = total.outcome;
    println!(
        "{} seeds, {} failed: {operations} operations, {openings} openings, {crashes} crashes \
         ({power_cuts} of them losses of power), {faults} faults; trace {trace:016x}",
        total.seeds, total.failed
    );
    ExitCode::from(u8::from(total.failed > 0))
}

/// Runs the seeds, on all threads.
fn run(cli: &Cli, seeds: Range<u64>) -> Total {
    let cores = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let jobs = cli.jobs.unwrap_or(cores).get();
    let (next, total) = (AtomicU64::new(seeds.start), Mutex::new(Total::default()));
    let lock = || total.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) || (lock().failed > 0 && !cli.keep_going) {
                return;
            }
            let ran = world::run(seed, cli.operations, &cli.without);
            let mut total = lock();
            total.seeds += 1;
            match ran {
                Ok(outcome) => total.outcome.add(&outcome),
                Err(wrong) => {
                    total.failed += 1;
                    println!("seed {seed}: {wrong}\nreplay: ouro-sim {}", replay(cli, seed));
                }
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

/// The arguments that run this seed again.
fn replay(cli: &Cli, seed: u64) -> String {
    let mut arguments = format!("--seed {seed}");
    if cli.operations != OPERATIONS {
        arguments += &format!(" --operations {}", cli.operations);
    }
    let without = cli.without.iter().filter_map(ValueEnum::to_possible_value);
    let without: Vec<String> = without.map(|value| value.get_name().to_owned()).collect();
    if !without.is_empty() {
        arguments += &format!(" --without {}", without.join(","));
    }
    arguments
}
