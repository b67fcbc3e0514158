//! `ouro-sim`: runs the storage engine on a simulated machine, seed by seed.
//!
//! `plan` draws what a seed does, of what its `manner` leaves it; `world` runs it,
//! life by life; `client` is what works on the database meanwhile, `history` judges
//! what is found, and `space` what it takes in the end. `panics` catches what the
//! engine's own checks say. `seeds` runs many of them, `record` adds up what was run,
//! `shrink` makes a seed that fails smaller, and `interrupt` ends a run early.
//!
//! `fail` and `damage` leave nothing to chance: every request fails once, every byte
//! is damaged. `sweep` is what they have in common.

mod client;
mod damage;
mod fail;
mod history;
mod interrupt;
mod manner;
mod panics;
mod plan;
#[cfg(feature = "planted")]
mod planted;
mod progress;
mod record;
mod seeds;
mod shrink;
mod space;
mod sweep;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs OuroDB on a simulated machine, with faults, kills and losses of power
///
/// A seed decides everything: what goes wrong, what the clients do, and in which
/// order all of it happens. The same seed gives the same run.
///
/// Exit codes: 0 nothing is wrong; 1 a seed failed, with a `replay:` line; 2 usage, or
/// a record that is none; 7 any other failure; 130 Ctrl-C; 143 SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "ouro-sim", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    sweep: Option<Sweep>,
    #[command(flatten)]
    seeds: seeds::Arguments,
}

/// What is tried out exhaustively, in place of seeds.
#[derive(Debug, Subcommand)]
enum Sweep {
    Fail(fail::Fail),
    Damage(damage::Damage),
    #[cfg(feature = "planted")]
    Planted(planted::Planted),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    panics::catch();
    match &cli.sweep {
        Some(Sweep::Fail(arguments)) => fail::run(arguments),
        Some(Sweep::Damage(arguments)) => damage::run(arguments),
        #[cfg(feature = "planted")]
        Some(Sweep::Planted(arguments)) => planted::run(arguments),
        None => ExitCode::from(seeds::run(&cli.seeds)),
    }
}
