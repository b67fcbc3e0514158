//! The binary: reads the command line, and runs the command on the engine it
//! names.

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::{ArgMatches, FromArgMatches};
use ouro_bench::engine::OuroDb;
use ouro_bench::failure::Failure;
use ouro_bench::{commands, program, session};
use ouro_compare::cli::{Cli, Commands, Engine, command};
use ouro_compare::engines::fjall::Fjall;
#[cfg(feature = "lmdb")]
use ouro_compare::engines::lmdb::Lmdb;
use ouro_compare::engines::redb::Redb;
#[cfg(feature = "rocksdb")]
use ouro_compare::engines::rocksdb::RocksDb;
use ouro_compare::{alternate, suite};

fn main() -> ExitCode {
    let matches = command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    program::main("ouro-compare", |interrupt| execute(&cli, &matches, interrupt))
}

fn execute(cli: &Cli, matches: &ArgMatches, interrupt: &AtomicBool) -> Result<(), Failure> {
    match &cli.command {
        Commands::Load { engine, args } => {
            engine.check()?;
            let extras = engine.extras;
            match engine.engine {
                Engine::OuroDb => commands::load::<OuroDb>(args, &(), None, interrupt),
                #[cfg(feature = "rocksdb")]
                Engine::RocksDb => commands::load::<RocksDb>(args, &extras.into(), None, interrupt),
                Engine::Fjall => commands::load::<Fjall>(args, &extras.into(), None, interrupt),
                Engine::Redb => commands::load::<Redb>(args, &extras.into(), None, interrupt),
                #[cfg(feature = "lmdb")]
                Engine::Lmdb => commands::load::<Lmdb>(args, &extras.into(), None, interrupt),
            }
            .map(drop)
        }
        Commands::Run { engine, args } => {
            engine.check_run()?;
            let extras = engine.extras;
            match engine.engine {
                Engine::OuroDb => session::run::<OuroDb>(args, &(), interrupt),
                #[cfg(feature = "rocksdb")]
                Engine::RocksDb => session::run::<RocksDb>(args, &extras.into(), interrupt),
                Engine::Fjall => session::run::<Fjall>(args, &extras.into(), interrupt),
                Engine::Redb => session::run::<Redb>(args, &extras.into(), interrupt),
                #[cfg(feature = "lmdb")]
                Engine::Lmdb => session::run::<Lmdb>(args, &extras.into(), interrupt),
            }
            .map(drop)
        }
        Commands::Alternate(args) => {
            let given = matches.subcommand().map(|(_, given)| given);
            alternate::run(args, given.unwrap_or(matches), interrupt)
        }
        Commands::All(args) => suite::run(args, interrupt),
        Commands::Report(args) => suite::merge(args),
    }
}
