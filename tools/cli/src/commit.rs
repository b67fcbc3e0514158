//! Commits the rounds of an import, one after the other, and says on stdout
//! how many lines are safe after each.
//!
//! A round holds the rows of consecutive lines as one batch for each WAL
//! stream. All writes of a key go through one stream, and the batches of a
//! stream are committed in the order of their lines, so of rows with the same
//! key the last wins. The batches of one round are committed side by side.

use std::io::{self, Write};
use std::sync::mpsc::Receiver;
use std::thread;

use ourodb::{Batch, Db};

use crate::failure::Failure;

/// A batch is sealed at this size, if the engine takes as much: large enough
/// that the device's latency does not count, small enough that a few of them
/// do not either, in memory.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// What the log needs for a row beyond its key and value, at most.
const ROW_OVERHEAD_BYTES_MAX: usize = 64;

/// The rows of some lines, to be committed together.
pub(crate) struct Round {
    /// By WAL stream.
    batches: Vec<Batch>,
    /// Bytes of the keys and values of each, also of those that are not in the
    /// log.
    bytes: Vec<usize>,
    rows: u64,
    /// The number of the last line in it; bad lines count.
    line: u64,
}

impl Round {
    /// A round that begins after line number `line`.
    pub(crate) fn after(line: u64) -> Self {
        Self { batches: Vec::new(), bytes: Vec::new(), rows: 0, line }
    }

    /// Whether a row fits without sealing the round first.
    pub(crate) fn has_room(&self, db: &Db, key: &[u8], value: &[u8]) -> bool {
        let bytes = self.bytes.get(db.stream_of(key)).copied().unwrap_or(0);
        let row_bytes = key.len() + value.len() + ROW_OVERHEAD_BYTES_MAX;
        bytes == 0 || bytes + row_bytes <= BATCH_BYTES_MAX.min(db.batch_bytes_max())
    }

    pub(crate) fn put(&mut self, db: &Db, key: &[u8], value: &[u8]) {
        let stream = db.stream_of(key);
        if self.batches.len() <= stream {
            self.batches.resize_with(stream + 1, Batch::new);
            self.bytes.resize(stream + 1, 0);
        }
        self.batches[stream].put(key, value);
        self.bytes[stream] += key.len() + value.len() + ROW_OVERHEAD_BYTES_MAX;
        self.rows += 1;
    }

    /// Line number `line` is dealt with: its row is in, or it is bad.
    pub(crate) fn reach(&mut self, line: u64) {
        self.line = line;
    }

    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    fn commit(self, db: &Db) -> ourodb::Result<()> {
        let mut batches = self.batches.into_iter().filter(|batch| !batch.is_empty());
        let Some(first) = batches.next() else {
            return Ok(());
        };
        thread::scope(|scope| {
            let others: Vec<_> =
                batches.map(|batch| scope.spawn(|| db.write(batch).wait())).collect();
            let mut result = db.write(first).wait();
            for other in others {
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(other);
            }
            result
        })
    }
}

/// What an import has made safe.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Committed {
    /// All lines up to this number.
    pub(crate) lines: u64,
    pub(crate) rows: u64,
}

/// Commits what comes until the sender is dropped or a commit fails.
pub(crate) fn commit_all(db: &Db, rounds: &Receiver<Round>) -> (Committed, Result<(), Failure>) {
    let mut committed = Committed::default();
    for round in rounds {
        let after = Committed { lines: round.line, rows: committed.rows + round.rows };
        if let Err(error) = round.commit(db) {
            return (committed, Err(error.into()));
        }
        committed = after;
        if let Err(failure) = say(&format!("acknowledged {}\n", committed.lines)) {
            return (committed, Err(failure));
        }
    }
    (committed, Ok(()))
}

/// Prints to stdout at once. An import goes on when nobody listens any more.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}
