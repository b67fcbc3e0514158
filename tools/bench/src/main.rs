//! The binary: reads the command line, runs the command, turns its failure into
//! a message and an exit code.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use ouro_bench::cli::{Cli, Command};
use ouro_bench::failure::Failure;
use ouro_bench::{commands, output, quick};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGINT;
use signal_hook::flag;

fn main() -> ExitCode {
    raise_descriptor_limit();
    let cli = Cli::parse();
    // What the engine warns of, on stderr.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .init();
    if cfg!(debug_assertions) {
        output::warn("this is a debug build: its figures say little; use cargo run --release");
    }
    match interrupt_flag()
        .map_err(Failure::os("cannot listen for Ctrl-C"))
        .and_then(|interrupt| execute(&cli, &interrupt))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ouro-bench: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn execute(cli: &Cli, interrupt: &AtomicBool) -> Result<(), Failure> {
    match &cli.command {
        None => quick::run(&quick::Plan::new(cli.io), interrupt),
        Some(Command::Load(args)) => commands::load(args, None, interrupt).map(drop),
        Some(Command::Run(args)) => commands::run(args, interrupt).map(drop),
    }
}

/// The engine keeps a descriptor for each table, and the usual soft limit is
/// there for programs that use `select`.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Ignored on purpose: where the system refuses, the engine works within
    // the old limit, and says TooManyFiles clearly when it meets it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Set by the first Ctrl-C. The second one ends the process at once.
fn interrupt_flag() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&interrupted))?;
    flag::register(SIGINT, Arc::clone(&interrupted))?;
    Ok(interrupted)
}
