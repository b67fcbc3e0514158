//! Many runs that depend on nothing but their number, on all cores.

use std::io;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::interrupt::Interrupt;
use crate::{panics, progress};

/// Does `work` for each number below `runs`, and hands what each comes to to `done`,
/// one at a time; a panic counts as what it says. Ends early when `done` says so, and when
/// it is interrupted.
pub(crate) fn each<T: Send>(
    runs: usize,
    jobs: Option<NonZero<usize>>,
    interrupt: &Interrupt,
    work: impl Fn(usize) -> Result<T, String> + Sync,
    done: impl FnMut(usize, Result<T, String>) -> bool + Send,
) {
    let cores = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let bar = progress::bar(runs as u64, "runs");
    let (next, stops, done) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(done));
    let one = || {
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= runs || stops.load(Ordering::Relaxed) || interrupt.requested() {
                return;
            }
            let ran = catch_unwind(AssertUnwindSafe(|| work(run)))
                .unwrap_or_else(|panic| Err(panics::describe(&*panic)));
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            // Only of what failed something is said.
            let goes_on = match ran {
                Ok(_) => done(run, ran),
                Err(_) => bar.suspend(|| done(run, ran)),
            };
            bar.inc(1);
            if !goes_on {
                stops.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.unwrap_or(cores).get() {
            scope.spawn(one);
        }
    });
    bar.finish_and_clear();
}

/// The exit code of a sweep.
pub(crate) fn exit_code(has_failed: bool, interrupt: &Interrupt) -> ExitCode {
    if interrupt.requested() {
        eprintln!("ouro-sim: interrupted: these are not all");
        return ExitCode::from(interrupt.exit_code());
    }
    ExitCode::from(u8::from(has_failed))
}

pub(crate) fn cannot_listen(error: &io::Error) -> ExitCode {
    eprintln!("ouro-sim: cannot listen for signals: {error}");
    ExitCode::from(7)
}
