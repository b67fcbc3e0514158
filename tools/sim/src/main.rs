//! `ouro-sim`: runs the storage engine on a simulated machine, seed by seed.
//!
//! `plan` draws what a seed does, of what its `manner` leaves it; `world` runs it, life by life; `client` is what
//! works on the database meanwhile, `history` judges what is found. `panics`
//! catches what the engine's own checks say. `seeds` runs many of them, `record`
//! adds up what was run, `shrink` makes a seed that fails smaller, and `interrupt`
//! ends a run early.

mod client;
mod history;
mod interrupt;
mod manner;
mod panics;
mod plan;
#[cfg(all(test, feature = "planted"))]
mod planted;
mod record;
mod seeds;
mod shrink;
mod world;

use std::process::ExitCode;

use clap::Parser;

/// Runs OuroDB on a simulated machine, with faults, kills and losses of power
///
/// A seed decides everything: what goes wrong, what the clients do, and in which
/// order all of it happens. The same seed gives the same run.
///
/// Exit codes: 0 nothing is wrong; 1 a seed failed, with a `replay:` line; 2 usage, or
/// a record that is none; 7 any other failure; 130 Ctrl-C; 143 SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "ouro-sim", version)]
struct Cli {
    #[command(flatten)]
    seeds: seeds::Arguments,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    panics::catch();
    ExitCode::from(seeds::run(&cli.seeds))
}
