//! `ouro import`: lines in, rows out to a thread that commits them while the
//! next ones are read.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ourodb::Db;

use crate::args::OnError;
use crate::commit::{Committed, Round, commit_all, say};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::lines::{Event, Lines};
use crate::rows::{Format, Row, line_bytes_max};

/// Rounds that wait for their commit, besides the one that is committed and
/// the one that is filled: the bound on memory.
const ROUNDS_WAITING_MAX: usize = 1;

/// A row waits at most about this long for its commit when the input is slow.
const ROUND_AGE_MAX: Duration = Duration::from_millis(200);

/// Imports all of `lines`, and ends with counts on stdout whatever happens.
pub(crate) fn import(
    db: &Db,
    lines: &mut Lines,
    format: Format,
    on_error: OnError,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    lines.limit(line_bytes_max(db.value_bytes_max()));
    let (sender, receiver) = sync_channel(ROUNDS_WAITING_MAX);
    let mut reader = Reader {
        db,
        lines,
        format,
        on_error,
        interrupt,
        rounds: sender,
        round: Round::after(0),
        deadline: None,
        lines_read: 0,
        lines_bad: 0,
    };
    let (lines_bad, read, committed, written) = thread::scope(|scope| {
        let committer = scope.spawn(move || commit_all(db, &receiver));
        let read = reader.read_all();
        let lines_bad = reader.lines_bad;
        drop(reader);
        let (committed, written) =
            committer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (lines_bad, read, committed, written)
    });
    let Committed { lines, rows } = committed;
    let (lines, rows) = (counted(lines, "line"), counted(rows, "row"));
    let bad = counted(lines_bad, "bad line");
    say(&format!("{lines} acknowledged, {rows} imported, {bad}\n"))?;
    written.and(read)
}

/// `1 line`, `2 lines`
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

struct Reader<'a> {
    db: &'a Db,
    lines: &'a mut Lines,
    format: Format,
    on_error: OnError,
    interrupt: &'a Interrupt,
    rounds: SyncSender<Round>,
    round: Round,
    /// When the round at hand is sent, full or not; none while it is empty.
    deadline: Option<Instant>,
    lines_read: u64,
    lines_bad: u64,
}

impl Reader<'_> {
    /// Reads to the end of the input, or to what forbids to go on. Rows that
    /// were read are sent in any case.
    fn read_all(&mut self) -> Result<(), Failure> {
        let read = self.read_lines();
        self.seal();
        read?;
        match self.lines_bad {
            0 => Ok(()),
            1 => Err(Failure::BadLines("1 bad line was skipped".to_owned())),
            bad => Err(Failure::BadLines(format!("{bad} bad lines were skipped"))),
        }
    }

    fn read_lines(&mut self) -> Result<(), Failure> {
        let mut row = Row::default();
        let value_bytes_max = self.db.value_bytes_max();
        loop {
            let parsed = match self.lines.next(self.deadline, self.interrupt)? {
                Event::Line(line) => row.parse(self.format, line, value_bytes_max),
                Event::LineTooLong => {
                    let limit = line_bytes_max(value_bytes_max);
                    Err(format!("a line above the limit of {limit} bytes"))
                }
                Event::Deadline => {
                    if !self.seal() {
                        return Ok(());
                    }
                    continue;
                }
                Event::Interrupted => return Err(self.interrupt.failure()),
                Event::End => return Ok(()),
            };
            self.lines_read += 1;
            match parsed {
                Ok(()) => {
                    if !self.round.has_room(self.db, &row.key, &row.value) && !self.seal() {
                        return Ok(());
                    }
                    self.round.put(self.db, &row.key, &row.value);
                }
                Err(reason) => self.bad_line(&reason)?,
            }
            self.round.reach(self.lines_read);
            self.deadline.get_or_insert_with(|| Instant::now() + ROUND_AGE_MAX);
        }
    }

    fn bad_line(&mut self, reason: &str) -> Result<(), Failure> {
        self.lines_bad += 1;
        let message = format!("{}: line {}: {reason}", self.lines.name(), self.lines_read);
        match self.on_error {
            OnError::Continue => {
                eprintln!("ouro: {message}");
                Ok(())
            }
            OnError::Stop => Err(Failure::BadLines(format!(
                "{message}; the lines before it are imported, it and those after it are not \
                 (--on-error continue skips bad lines)"
            ))),
        }
    }

    /// Sends the round at hand, if anything is in it. Returns false when
    /// nobody takes it any more: a commit failed, and the committer says how.
    fn seal(&mut self) -> bool {
        if self.deadline.take().is_none() {
            return true;
        }
        let next = Round::after(self.round.line());
        self.rounds.send(std::mem::replace(&mut self.round, next)).is_ok()
    }
}
