//! The binary: reads the command line, and runs the command on OuroDB.

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use ouro_bench::cli::{Cli, Command};
use ouro_bench::engine::OuroDb;
use ouro_bench::failure::Failure;
use ouro_bench::{commands, compare, device, program, quick, session, soak};

fn main() -> ExitCode {
    let cli = Cli::parse();
    program::main("ouro-bench", |interrupt| execute(&cli, interrupt))
}

fn execute(cli: &Cli, interrupt: &AtomicBool) -> Result<(), Failure> {
    match &cli.command {
        None => {
            let plan = quick::Plan::new(cli.io);
            quick::run(&plan, interrupt).map_err(|failure| failure.in_dir(&plan.dir))
        }
        Some(Command::Load(args)) => commands::load::<OuroDb>(args, &(), None, interrupt)
            .map(drop)
            .map_err(|failure| failure.in_dir(&args.common.dir)),
        Some(Command::Run(args)) => session::run::<OuroDb>(args, &(), interrupt)
            .map(drop)
            .map_err(|failure| failure.in_dir(&args.common.dir)),
        Some(Command::Soak(args)) => {
            soak::soak(args, interrupt).map_err(|failure| failure.in_dir(&args.dir))
        }
        Some(Command::Device(args)) => device::device(args, interrupt),
        Some(Command::Compare(args)) => compare::compare(args),
    }
}
