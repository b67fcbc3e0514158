//! Where results go: tables to stdout, JSON to a file or to stdout, interval logs and pages to
//! files, progress to stderr if that is a terminal.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::OutputArgs;
use crate::failure::Failure;
use crate::report::Report;
use crate::runner::Progress;
use crate::{hlog, page, table};

/// Prints the results of a command.
pub struct Output {
    json: Option<PathBuf>,
    hlog: Option<PathBuf>,
    html: Option<PathBuf>,
    /// Files that were not there before.
    made: Vec<PathBuf>,
}

/// Of a command that has no result, no empty file is left either.
impl Drop for Output {
    fn drop(&mut self) {
        for path in &self.made {
            if fs::metadata(path).is_ok_and(|file| file.len() == 0) {
                // It may be gone already.
                let _unimportant = fs::remove_file(path);
            }
        }
    }
}

impl Output {
    /// Results go to stdout; with `json` also there, as JSON, and if that is
    /// `-`, tables go to stderr. A file that cannot be written is found out now,
    /// not after the measurement.
    pub fn new(args: &OutputArgs) -> Result<Self, Failure> {
        let OutputArgs { json, hlog, html } = args.clone();
        for (flag, path) in [("--hlog", &hlog), ("--html", &html)] {
            if path.as_deref() == Some(Path::new("-")) {
                let reason = format!("{flag} needs a file: only --json can go to stdout");
                return Err(Failure::Usage(reason));
            }
        }
        let mut output = Self { json, hlog, html, made: Vec::new() };
        let files = [output.json_file(), output.hlog.as_deref(), output.html.as_deref()];
        let [json, hlog, html] = files;
        for (one, other) in [(json, hlog), (json, html), (hlog, html)] {
            if let Some(path) = one.filter(|_| one == other) {
                let reason = format!("{} cannot be two kinds of results at once", path.display());
                return Err(Failure::Usage(reason));
            }
        }
        let files: Vec<PathBuf> = files.into_iter().flatten().map(Path::to_owned).collect();
        for path in files {
            let is_new = File::options().write(true).create_new(true).open(&path).is_ok();
            if is_new {
                output.made.push(path);
                continue;
            }
            File::options()
                .append(true)
                .create(true)
                .open(&path)
                .map_err(Failure::os(format!("cannot write {}", path.display())))?;
        }
        Ok(output)
    }

    fn json_file(&self) -> Option<&Path> {
        self.json.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// Prints the result of a load or a run, and writes the files that were asked for.
    pub fn report(&self, report: &Report) -> Result<(), Failure> {
        self.result(&table::render(report), report)?;
        if let Some(path) = &self.hlog {
            let fail = || Failure::os(format!("cannot write {}", path.display()));
            let started = UNIX_EPOCH + Duration::from_secs(report.started_unix_s);
            let file = File::create(path).map_err(fail())?;
            let mut file = BufWriter::new(file);
            hlog::write(&mut file, &page::title(report), started, &report.result.intervals)
                .and_then(|()| file.flush())
                .map_err(fail())?;
        }
        if let Some(path) = &self.html {
            fs::write(path, page::render(report)?)
                .map_err(Failure::os(format!("cannot write {}", path.display())))?;
        }
        Ok(())
    }

    /// Prints a result: as `text` for people, and as JSON if that was asked for.
    pub fn result(&self, text: &str, result: &impl Serialize) -> Result<(), Failure> {
        self.say(text)?;
        self.json(result)
    }

    /// Keeps a result that is not complete, if there is a file for it.
    pub fn so_far(&self, result: &impl Serialize) -> Result<(), Failure> {
        match self.json_file() {
            Some(_) => self.json(result),
            None => Ok(()),
        }
    }

    fn json(&self, result: &impl Serialize) -> Result<(), Failure> {
        let Some(json) = &self.json else {
            return Ok(());
        };
        let mut text = serde_json::to_string_pretty(result)
            .map_err(|error| Failure::Other(format!("cannot write the result: {error}")))?;
        text.push('\n');
        match self.json_file() {
            Some(path) => fs::write(path, text)
                .map_err(Failure::os(format!("cannot write {}", json.display()))),
            None => print(io::stdout(), &text),
        }
    }

    /// Prints text for people.
    pub fn say(&self, text: &str) -> Result<(), Failure> {
        if self.json.as_deref() == Some(Path::new("-")) {
            print(io::stderr(), text)
        } else {
            print(io::stdout(), text)
        }
    }
}

/// Prints a warning.
pub fn warn(text: &str) {
    eprintln!("warning: {text}");
}

/// Prints to a stream whose reader may be gone: then nobody misses it.
fn print(mut stream: impl Write, text: &str) -> Result<(), Failure> {
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::os("cannot print the result")(error))
        }
        _ => Ok(()),
    }
}

/// What is waited for without knowing how long, on a terminal.
pub struct Spinner {
    bar: ProgressBar,
    /// Dropped to end the thread that turns it, which there is if one can be had.
    turning: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Spinner {
    /// Turns until it is dropped.
    #[must_use]
    pub fn new(what: &'static str) -> Self {
        const TURN: Duration = Duration::from_millis(100);
        let spinner = ProgressBar::new_spinner().with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{msg} {spinner} {elapsed}") {
            spinner.set_style(style);
        }
        let (sender, ended) = mpsc::channel();
        let turn = {
            let spinner = spinner.clone();
            move || {
                while ended.recv_timeout(TURN) == Err(RecvTimeoutError::Timeout) {
                    spinner.tick();
                }
            }
        };
        // Without, it stands still. (indicatif's own panics.)
        let thread = thread::Builder::new().name("spinner".to_owned()).spawn(turn);
        let turning = thread.ok().map(|thread| (sender, thread));
        Self { bar: spinner, turning }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.turning.take() {
            drop(sender);
            // It does nothing that panics, and if it did there would be nothing to do.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

/// How far a phase has come, on a terminal.
pub struct Bar {
    bar: ProgressBar,
    /// The phase ends with its operations, not with its time.
    by_ops: bool,
    what: String,
}

impl Bar {
    /// A bar for a phase of so many operations or, without, milliseconds.
    #[must_use]
    pub fn new(what: String, ops: Option<u64>, millis: u64) -> Self {
        let bar = ProgressBar::new(ops.unwrap_or(millis));
        let style = ProgressStyle::with_template("{msg} [{bar:40}] {percent:>3}%");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, by_ops: ops.is_some(), what }
    }

    /// Shows the progress.
    pub fn update(&self, progress: Progress) {
        let Progress { elapsed, ops } = progress;
        self.bar.set_position(if self.by_ops { ops } else { elapsed.as_millis() as u64 });
        let rate = ops as f64 / elapsed.as_secs_f64().max(0.001);
        self.bar.set_message(format!("{}: {}/s", self.what, table::grouped(rate as u64)));
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_without_a_result_leaves_no_empty_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(dir.path().join(name));
        let args =
            OutputArgs { json: path("new.json"), hlog: path("old.hlog"), html: path("new.html") };
        fs::write(dir.path().join("old.hlog"), "").unwrap();
        let output = Output::new(&args).unwrap();
        assert!(dir.path().join("new.json").exists(), "it can be written");
        drop(output);
        let left = |name: &str| dir.path().join(name).exists();
        assert_eq!(["new.json", "old.hlog", "new.html"].map(left), [false, true, false]);
        let output = Output::new(&args).unwrap();
        output.result("", &1).unwrap();
        drop(output);
        assert_eq!(["new.json", "old.hlog", "new.html"].map(left), [true, true, false]);
    }
}
