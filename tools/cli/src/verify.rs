//! `ouro verify`: what is wrong with a database, a line a fault, then what was
//! read.

use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use ourodb::{ErrorKind, Fault, Finding, Options};

use crate::escape::escaped;
use crate::failure::Failure;
use crate::install_interrupt;
use crate::interrupt::Interrupt;

/// Verifies the database in `dir`, and prints what comes of it.
pub(crate) fn verify(dir: &Path, options: &Options) -> Result<(), Failure> {
    // From the first finding on: who waits for the lock can be killed.
    let mut interrupt = None;
    let bar = ProgressBar::new(bytes_below(dir));
    if let Ok(style) = ProgressStyle::with_template("verifying [{bar:40}] {percent:>3}%") {
        bar.set_style(style.progress_chars("=> "));
    }
    // A newer version of the engine can judge what this one does not know.
    let mut is_damaged = false;
    let mut printed = Ok(());
    let verified = ourodb::verify(dir, options, |finding| {
        match finding {
            Finding::Fault(fault) => {
                is_damaged |= fault.kind() != ErrorKind::Unsupported;
                printed = bar.suspend(|| say(&line(fault)));
            }
            Finding::Orphan(file) => bar.suspend(|| {
                let file = escaped(file.as_os_str().as_bytes());
                eprintln!("ouro: note: {file}: nothing names this file, and it is not needed");
            }),
            Finding::Read(bytes) => bar.set_position(bytes),
            _ => {}
        }
        if interrupt.is_none() && printed.is_ok() {
            match install_interrupt() {
                Ok(installed) => interrupt = Some(installed),
                Err(failure) => printed = Err(failure),
            }
        }
        match interrupt.as_ref().is_some_and(Interrupt::requested) || printed.is_err() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.finish_and_clear();
    let verified = verified?;
    printed?;
    if let Some(interrupt) = interrupt.filter(|_| !verified.is_complete) {
        return Err(interrupt.failure());
    }
    say(&format!("{verified}\n"))?;
    match verified.faults {
        0 => Ok(()),
        faults => Err(Failure::Faults { faults, is_damaged }),
    }
}

/// A fault as one line, whatever the names and reasons hold.
pub(crate) fn line(fault: &Fault) -> String {
    let file = escaped(fault.file().as_os_str().as_bytes());
    format!("{file} offset {}: {}\n", fault.offset(), escaped(fault.reason().as_bytes()))
}

pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// Bytes of the files there, for the progress bar: what cannot be looked at
/// counts for nothing.
pub(crate) fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}
