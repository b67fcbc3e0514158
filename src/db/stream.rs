//! Scans as streams, for any runtime.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::{FusedStream, Stream};

use crate::base::error::{Error, Result};
use crate::db::{Db, Value};
use crate::shard::{Row, Scanner};

/// Rows that are fetched at one time: few at first, as most scans are short.
const ROWS_MIN: usize = 4;
const ROWS_MAX: usize = 64;
/// Bytes of rows that are fetched at one time, but for the last row.
const BYTES_MAX: usize = 64 << 10;

/// The rows of a scan, as a stream: pairs of key and value. After an error
/// there are no more. See [`Scan::stream`](crate::Scan::stream).
///
/// Versions that the scan may see are kept for as long as the stream lives.
///
/// ```
/// # use std::{future::poll_fn, pin::Pin};
/// use futures_core::Stream;
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.put(b"a", b"1").wait()?;
/// let mut rows = db.scan(..).stream();
/// # pollster::block_on(async {
/// let row = poll_fn(|cx| Pin::new(&mut rows).poll_next(cx)).await;
/// assert_eq!(row.expect("a row")?.0, *b"a");
/// # Ok::<(), ourodb::Error>(()) })?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "a stream does nothing until it is polled"]
pub struct ScanStream {
    db: Db,
    rows: VecDeque<Row>,
    batch: usize,
    left: usize,
    state: State,
}

enum State {
    /// Nothing is on its way.
    Idle(Scanner),
    Fetching(Pin<Box<dyn Future<Output = Fetched> + Send>>),
    /// There is nothing to come but this.
    Over(Option<Error>),
}

struct Fetched {
    scanner: Scanner,
    rows: VecDeque<Row>,
    end: Result<End>,
}

#[derive(PartialEq, Eq)]
enum End {
    /// There may be more rows.
    OfBatch,
    OfScan,
}

impl ScanStream {
    pub(super) fn new(db: Db, scanner: Scanner, limit: usize) -> Self {
        db.inner.note_awaited();
        Self {
            db,
            rows: VecDeque::new(),
            batch: ROWS_MIN,
            left: limit,
            state: State::Idle(scanner),
        }
    }

    /// Fetches the next rows.
    fn fetch(&mut self, scanner: Scanner) -> State {
        let rows_max = self.batch.min(self.left);
        self.batch = (self.batch * 2).min(ROWS_MAX);
        let inner = Arc::clone(&self.db.inner);
        State::Fetching(Box::pin(async move {
            let mut fetched = Fetched { scanner, rows: VecDeque::new(), end: Ok(End::OfBatch) };
            let mut bytes = 0;
            while fetched.rows.len() < rows_max && bytes < BYTES_MAX {
                match fetched.scanner.next(&inner.remotes).await {
                    Ok(true) => {
                        let row = fetched.scanner.take_row();
                        bytes += row.0.len() + row.1.len();
                        fetched.rows.push_back(row);
                    }
                    Ok(false) => {
                        fetched.end = Ok(End::OfScan);
                        break;
                    }
                    Err(error) => {
                        fetched.end = Err(error);
                        break;
                    }
                }
            }
            fetched
        }))
    }
}

impl Stream for ScanStream {
    type Item = Result<(Value, Value)>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.left == 0 {
                this.state = State::Over(None);
                return Poll::Ready(None);
            }
            if let Some((key, value)) = this.rows.pop_front() {
                this.left -= 1;
                return Poll::Ready(Some(Ok((Value::own(key), Value::loaded(value)))));
            }
            match std::mem::replace(&mut this.state, State::Over(None)) {
                State::Over(error) => return Poll::Ready(error.map(Err)),
                State::Idle(scanner) => this.state = this.fetch(scanner),
                State::Fetching(mut fetching) => match fetching.as_mut().poll(cx) {
                    Poll::Pending => {
                        this.state = State::Fetching(fetching);
                        return Poll::Pending;
                    }
                    Poll::Ready(Fetched { scanner, rows, end }) => {
                        this.rows = rows;
                        this.state = match end {
                            Ok(End::OfBatch) => State::Idle(scanner),
                            Ok(End::OfScan) => State::Over(None),
                            Err(error) => State::Over(Some(error)),
                        };
                    }
                },
            }
        }
    }
}

impl FusedStream for ScanStream {
    fn is_terminated(&self) -> bool {
        self.left == 0 || (self.rows.is_empty() && matches!(self.state, State::Over(None)))
    }
}

impl fmt::Debug for ScanStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanStream").finish_non_exhaustive()
    }
}
