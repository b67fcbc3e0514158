//! `ouro salvage`: what is sound of a damaged database into a new one, a line for each
//! loss, then counts.
//!
//! The copy is made under a name that says it is incomplete, and gets its own when it is
//! whole: nobody takes a part for the whole, however the salvage ends.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use ourodb::{Fault, KeyBounds, Loss, Options, Salvaging};

use crate::escape::escaped;
use crate::failure::Failure;
use crate::install_interrupt;
use crate::interrupt::Interrupt;
use crate::verify::{bytes_below, line, say};

/// Behind the name of a copy that is not whole.
const INCOMPLETE: &str = ".incomplete";

/// Copies what is sound of the database in `dir` to `into`, and prints what is lost.
pub(crate) fn salvage(dir: &Path, into: &Path, options: &Options) -> Result<(), Failure> {
    let target = Target::new(dir, into)?;
    let copied = copy(dir, &target.incomplete, options);
    let losses = match copied {
        Ok(losses) => losses,
        Err(failure) => {
            if target.incomplete.exists() {
                let incomplete = shown(&target.incomplete);
                eprintln!("ouro: what was copied so far is in {incomplete}: remove it");
            }
            return Err(failure);
        }
    };
    target.give_name()?;
    match losses {
        0 => Ok(()),
        losses => Err(Failure::Losses { losses, into: shown(&target.whole) }),
    }
}

fn shown(path: &Path) -> String {
    escaped(path.as_os_str().as_bytes())
}

/// How many losses there were.
fn copy(dir: &Path, into: &Path, options: &Options) -> Result<u64, Failure> {
    // From the first event on: who waits for the lock can be killed.
    let mut interrupt = None;
    let bar = ProgressBar::new(bytes_below(dir));
    if let Ok(style) = ProgressStyle::with_template("salvaging [{bar:40}] {percent:>3}%") {
        bar.set_style(style.progress_chars("=> "));
    }
    let mut printed = Ok(());
    let salvaged = ourodb::salvage(dir, into, options, |event| {
        match event {
            Salvaging::Lost(loss) => printed = bar.suspend(|| say(&loss_line(loss))),
            Salvaging::Spared(fault) => bar.suspend(|| eprint!("ouro: note: {}", line(fault))),
            // Some log may be read more than once.
            Salvaging::Read(bytes) => bar.set_position(bytes.min(bar.length().unwrap_or(bytes))),
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
    let salvaged = salvaged?;
    printed?;
    if let Some(interrupt) = interrupt.filter(|_| !salvaged.is_complete) {
        return Err(interrupt.failure());
    }
    say(&format!("{salvaged}\n"))?;
    Ok(salvaged.losses)
}

/// A loss as one line.
fn loss_line(loss: &Loss) -> String {
    let fault: &Fault = loss.fault();
    let place = line(fault);
    format!("{}{}\n", place.trim_end_matches('\n'), loss.keys().map(keys).unwrap_or_default())
}

/// Which keys it is about.
fn keys((from, to): &KeyBounds) -> String {
    let key = |bound: &Bound<Box<[u8]>>| match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(escaped(key)),
        Bound::Unbounded => None,
    };
    match (key(from), key(to)) {
        (Some(from), Some(to)) if from == to => format!(": key {from}"),
        (Some(from), Some(to)) => format!(": keys from {from} to {to}"),
        (Some(from), None) => format!(": keys from {from} on"),
        (None, Some(to)) => format!(": keys up to {to}"),
        (None, None) => ": any key".to_owned(),
    }
}

/// Where the copy goes.
struct Target {
    whole: PathBuf,
    /// Where it is made.
    incomplete: PathBuf,
}

impl Target {
    /// Refuses what cannot be the place of a new database.
    fn new(dir: &Path, into: &Path) -> Result<Self, Failure> {
        let refused = |reason: &str| Err(Failure::Usage(format!("{} {reason}", shown(into))));
        if into.file_name().is_none() {
            return refused("is no name for a new directory");
        }
        // Renaming would not follow a link, and what is appended to a name must not follow a
        // slash.
        let whole = resolved(into);
        if fs::symlink_metadata(&whole).is_ok_and(|metadata| metadata.is_symlink()) {
            return refused("is a link to nothing; name a directory that is not there yet");
        }
        match fs::read_dir(&whole).map(|mut entries| entries.next().is_none()) {
            Ok(false) => {
                return refused("is not empty; name a directory that is not there yet");
            }
            Ok(true) if is_mount_point(&whole) => {
                return refused("is where a file system is mounted; name a directory in it");
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return refused("is not a directory");
            }
            _ => {}
        }
        if fs::canonicalize(dir).is_ok_and(|dir| whole != dir && whole.starts_with(dir)) {
            return refused("is in the damaged database, which is not to be written to");
        }
        let mut name = OsString::from(&whole);
        name.push(INCOMPLETE);
        let incomplete = PathBuf::from(name);
        if fs::symlink_metadata(&incomplete).is_ok() {
            let incomplete = shown(&incomplete);
            let reason = "is there, from a salvage that did not come to its end, or that is still \
                          running: if none is, remove it";
            return Err(Failure::Usage(format!("{incomplete} {reason}")));
        }
        Ok(Self { whole, incomplete })
    }

    /// The copy is whole: gives it its name, durably.
    fn give_name(&self) -> Result<(), Failure> {
        let parent = match self.whole.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let named =
            fs::rename(&self.incomplete, &self.whole).and_then(|()| File::open(parent)?.sync_all());
        named.map_err(|error| {
            let (from, to) = (shown(&self.incomplete), shown(&self.whole));
            Failure::System(format!(
                "the copy is whole, and cannot be renamed {from} to {to}: {error}"
            ))
        })
    }
}

/// The path without links and ways up, as far as it is there.
fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let real = |above: &Path| {
        let rest = absolute.strip_prefix(above).ok()?;
        let above = fs::canonicalize(above).ok()?;
        // Joining nothing would append a slash.
        Some(if rest.as_os_str().is_empty() { above } else { above.join(rest) })
    };
    absolute.ancestors().find_map(real).unwrap_or_else(|| absolute.clone())
}

fn is_mount_point(dir: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    device(dir) != device(&dir.join(".."))
}
