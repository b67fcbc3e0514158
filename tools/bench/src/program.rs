//! What the binaries around this library have in common: the process's limits,
//! Ctrl-C, and the exit code.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGINT;
use signal_hook::flag;

use crate::failure::Failure;
use crate::output;

/// Runs a command, and turns its failure into a message, which begins with the
/// program's `name`, and an exit code. The flag it is given is set by Ctrl-C.
pub fn main(name: &str, command: impl FnOnce(&AtomicBool) -> Result<(), Failure>) -> ExitCode {
    raise_descriptor_limit();
    // What the engine warns of, on stderr.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(io::stderr)
        .with_target(false)
        .without_time()
        .init();
    if cfg!(debug_assertions) {
        output::warn("this is a debug build: its figures say little; use cargo run --release");
    }
    let interrupt = interrupt_flag().map_err(Failure::os("cannot listen for Ctrl-C"));
    match interrupt.and_then(|interrupt| command(&interrupt)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{name}: {failure}");
            ExitCode::from(failure.exit_code())
        }
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
