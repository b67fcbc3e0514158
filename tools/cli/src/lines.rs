//! The lines of an input of any size, in constant memory, by one reader that a
//! deadline or Ctrl-C can call back from a wait.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// How much is asked for at once.
const READ_BYTES: usize = 256 << 10;

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A line, without its newline; the last one of an input may lack it.
    Line(&'a [u8]),
    /// A line longer than any row can be, skipped.
    LineTooLong,
    /// No line arrived before the deadline.
    Deadline,
    /// Ctrl-C was pressed.
    Interrupted,
    /// The input has ended.
    End,
}

/// Reads lines from a file, a pipe or a terminal.
pub(crate) struct Lines {
    input: File,
    /// The path as given, or `stdin`.
    name: String,
    /// `buffer[start..end]` is read and not yet returned.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// No newline lies in `buffer[start..scanned]`.
    scanned: usize,
    /// The line at hand is too long; what is read of it is dropped.
    skipping: bool,
    ended: bool,
    line_bytes_max: usize,
}

impl Lines {
    /// Opens `path`, where `-` is stdin. Lines are of any length, unless
    /// [`Lines::limit`] says otherwise.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let (input, name) = if path.as_os_str() == "-" {
            (io::stdin().as_fd().try_clone_to_owned().map(File::from), "stdin".to_owned())
        } else {
            (File::open(path), path.display().to_string())
        };
        let input = input
            .and_then(|file| match file.metadata()?.is_dir() {
                true => Err(io::ErrorKind::IsADirectory.into()),
                false => Ok(file),
            })
            .map_err(|error| Failure::System(format!("cannot read {name}: {error}")))?;
        Ok(Self::new(input, name))
    }

    fn new(input: File, name: String) -> Self {
        let buffer = vec![0; READ_BYTES];
        Self {
            input,
            name,
            buffer,
            start: 0,
            end: 0,
            scanned: 0,
            skipping: false,
            ended: false,
            line_bytes_max: usize::MAX,
        }
    }

    /// Lines with more bytes are too long from now on.
    pub(crate) fn limit(&mut self, line_bytes_max: usize) {
        self.line_bytes_max = line_bytes_max;
    }

    /// What the input is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The next line. `deadline` and `interrupt` are looked at only when a read
    /// is due, so lines that were read come first.
    pub(crate) fn next(
        &mut self,
        deadline: Option<Instant>,
        interrupt: &Interrupt,
    ) -> Result<Event<'_>, Failure> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.scanned..self.end]) {
                let line = self.start..self.scanned + at;
                self.start = line.end + 1;
                self.scanned = self.start;
                if std::mem::take(&mut self.skipping) || line.len() > self.line_bytes_max {
                    return Ok(Event::LineTooLong);
                }
                return Ok(Event::Line(&self.buffer[line]));
            }
            self.scanned = self.end;
            if self.skipping || self.end - self.start > self.line_bytes_max {
                self.skipping = true;
                self.start = self.end;
            }
            if self.ended {
                let line = self.start..self.end;
                self.start = self.end;
                return Ok(if std::mem::take(&mut self.skipping) {
                    Event::LineTooLong
                } else if line.is_empty() {
                    Event::End
                } else {
                    Event::Line(&self.buffer[line])
                });
            }
            if interrupt.requested() {
                return Ok(Event::Interrupted);
            }
            if self.wait(deadline, interrupt).map_err(|error| self.failure(&error))? {
                self.read().map_err(|error| self.failure(&error))?;
            } else if !interrupt.requested() {
                return Ok(Event::Deadline);
            }
        }
    }

    fn failure(&self, error: &io::Error) -> Failure {
        Failure::System(format!("cannot read {}: {error}", self.name))
    }

    /// Whether a read would not wait; false after the deadline or Ctrl-C.
    fn wait(&self, deadline: Option<Instant>, interrupt: &Interrupt) -> io::Result<bool> {
        loop {
            let timeout = match deadline.map(|at| at.checked_duration_since(Instant::now())) {
                None => None,
                Some(None) => return Ok(false),
                Some(Some(left)) => Timespec::try_from(left).ok(),
            };
            let mut descriptors =
                [PollFd::new(&self.input, PollFlags::IN), PollFd::new(interrupt, PollFlags::IN)];
            match poll(&mut descriptors, timeout.as_ref()) {
                Ok(_) if !descriptors[1].revents().is_empty() => return Ok(false),
                Ok(_) if !descriptors[0].revents().is_empty() => return Ok(true),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.scanned -= self.start;
            self.start = 0;
        }
        if self.buffer.len() - self.end < READ_BYTES {
            self.buffer.resize(self.end + READ_BYTES, 0);
        }
        match self.input.read(&mut self.buffer[self.end..]) {
            Ok(bytes) => {
                self.end += bytes;
                self.ended = bytes == 0;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE_BYTES_MAX: usize = 1 << 20;
    use std::io::Write;

    fn events(input: &[u8]) -> Vec<Result<Vec<u8>, String>> {
        let (reader, mut writer) = io::pipe().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || writer.write_all(&input).unwrap());
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let mut lines = Lines::new(file, "test".to_owned());
        lines.limit(LINE_BYTES_MAX);
        let interrupt = Interrupt::install().unwrap();
        let mut events = Vec::new();
        loop {
            events.push(match lines.next(None, &interrupt).unwrap() {
                Event::End => break,
                Event::Line(line) => Ok(line.to_vec()),
                other => Err(format!("{other:?}")),
            });
        }
        feeder.join().unwrap();
        assert!(lines.buffer.len() <= LINE_BYTES_MAX + 2 * READ_BYTES);
        events
    }

    #[test]
    fn lines_end_with_a_newline_or_the_input() {
        assert_eq!(events(b""), []);
        assert_eq!(events(b"\n"), [Ok(vec![])]);
        assert_eq!(events(b"a\n\nb"), [Ok(b"a".to_vec()), Ok(vec![]), Ok(b"b".to_vec())]);
    }

    #[test]
    fn the_longest_line_fits_and_longer_ones_are_skipped() {
        let longest = vec![b'x'; LINE_BYTES_MAX];
        let too_long = vec![b'y'; LINE_BYTES_MAX + 1];
        let huge = vec![b'z'; 5 * LINE_BYTES_MAX];
        let input = [&longest[..], &too_long, &huge, b"a", &longest, &too_long].join(&b'\n');
        let skipped = || Err("LineTooLong".to_owned());
        assert_eq!(
            events(&input),
            [Ok(longest.clone()), skipped(), skipped(), Ok(b"a".to_vec()), Ok(longest), skipped()]
        );
    }

    #[test]
    fn a_deadline_ends_the_wait_and_keeps_what_was_read() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut lines =
            Lines::new(File::from(std::os::fd::OwnedFd::from(reader)), "test".to_owned());
        let interrupt = Interrupt::install().unwrap();
        writer.write_all(b"a\nb").unwrap();
        assert_eq!(lines.next(None, &interrupt).unwrap(), Event::Line(b"a"));
        let now = Some(Instant::now());
        assert_eq!(lines.next(now, &interrupt).unwrap(), Event::Deadline);
        writer.write_all(b"c\n").unwrap();
        assert_eq!(lines.next(None, &interrupt).unwrap(), Event::Line(b"bc"));
    }
}
