//! What the binaries around this library have in common: the process's limits,
//! signals, and the exit code.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use tracing::{Level, Metadata};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::failure::Failure;
use crate::output;

/// Runs a command, and turns its failure into a message, which begins with the
/// program's `name`, and an exit code. The flag it is given is set by Ctrl-C and
/// by SIGTERM.
pub fn main(name: &str, command: impl FnOnce(&AtomicBool) -> Result<(), Failure>) -> ExitCode {
    raise_descriptor_limit();
    // What the engine warns of, on stderr; but for writes that are held up, which is what is
    // measured.
    let is_told = |of: &Metadata<'_>| *of.level() <= Level::WARN && of.target() != HELD_UP;
    let warnings = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_target(false)
        .without_time()
        .with_filter(filter_fn(is_told));
    tracing_subscriber::registry().with(warnings).init();
    if cfg!(debug_assertions) {
        output::warn("this is a debug build: its figures say little; use cargo run --release");
    }
    let signal = Arc::new(AtomicUsize::new(0));
    let interrupt = interrupt_flag(&signal).map_err(Failure::os("cannot listen for signals"));
    match interrupt.and_then(|interrupt| command(&interrupt)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{name}: {failure}");
            if let Some(advice) = failure.advice() {
                eprintln!("{name}: {advice}");
            }
            let is_terminated = signal.load(Ordering::Relaxed) == SIGTERM as usize;
            match failure {
                Failure::Interrupted if is_terminated => ExitCode::from(TERMINATED),
                _ => ExitCode::from(failure.exit_code()),
            }
        }
    }
}

/// The target of the engine's events on writes that are held up.
const HELD_UP: &str = "ourodb::shard::held_up";

/// The exit code after SIGTERM: 128 and its number.
const TERMINATED: u8 = 143;

/// The engine keeps a descriptor for each table, and the usual soft limit is
/// there for programs that use `select`.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Ignored on purpose: where the system refuses, the engine works within
    // the old limit, and says TooManyFiles clearly when it meets it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Set by the first Ctrl-C or SIGTERM, and `signal` says by which. The second one
/// ends the process at once.
fn interrupt_flag(signal: &Arc<AtomicUsize>) -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for (number, code) in [(SIGINT, 130), (SIGTERM, TERMINATED)] {
        let code = i32::from(code);
        flag::register_conditional_shutdown(number, code, Arc::clone(&interrupted))?;
        flag::register_usize(number, Arc::clone(signal), number as usize)?;
        flag::register(number, Arc::clone(&interrupted))?;
    }
    // What exceeds the limit on the size of files (`ulimit -f`) fails then; the
    // system would end the process without a word.
    flag::register(SIGXFSZ, Arc::default())?;
    Ok(interrupted)
}
