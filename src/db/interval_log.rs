//! Interval logs: how latencies went over time, in the format of HdrHistogram's tools.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};

use crate::base::latency::Operation;
use crate::db::Db;
use crate::db::latencies::Latencies;

/// A log of latencies, interval by interval, in HdrHistogram's format (V2, compressed):
/// its tools for plotting and merging read it.
///
/// [`write`](Self::write) is to be called at each interval's end, for instance once a
/// second, from whatever thread. It appends a line for each [`Operation`] with the
/// operation's name as its tag. All values are nanoseconds, also the maximum in each
/// line. With the cargo feature `interval-log` only.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// let mut log = ourodb::IntervalLog::begin(&db, Vec::new()).expect("memory takes it");
/// db.put(b"key", b"value").wait()?;
/// log.write().expect("memory takes it");
/// let text = String::from_utf8(log.into_inner()).expect("it is text");
/// assert!(text.lines().any(|line| line.starts_with("Tag=put,0.0")));
/// # Ok::<(), ourodb::Error>(())
/// ```
pub struct IntervalLog<W> {
    db: Db,
    out: W,
    serializer: V2DeflateSerializer,
    began_ns: u64,
    /// Where the last interval ended.
    last_ns: u64,
    last: Latencies,
}

impl<W: Write> IntervalLog<W> {
    /// Begins a log, and with it the first interval: writes the header. The seconds in
    /// the lines count from now.
    ///
    /// # Errors
    /// Those of writing to `out`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// let log = ourodb::IntervalLog::begin(&db, Vec::new()).expect("memory takes it");
    /// assert!(log.into_inner().starts_with(b"#"));
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn begin(db: &Db, mut out: W) -> io::Result<Self> {
        let backend = &db.inner.backend;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(backend.calendar_s());
        let mut serializer = V2DeflateSerializer::new();
        IntervalLogWriterBuilder::new()
            .add_comment("[Latencies of OuroDB's operations, in nanoseconds]")
            .with_start_time(now)
            .with_base_time(now)
            .begin_log_with(&mut out, &mut serializer)?;
        let began_ns = backend.now_ns();
        let last = db.latencies();
        Ok(Self { db: db.clone(), out, serializer, began_ns, last_ns: began_ns, last })
    }

    /// Ends an interval, and writes a line for each operation. The next one begins.
    ///
    /// # Errors
    /// Those of writing to `out`: the interval is lost, and part of it may be in the log.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// let mut log = ourodb::IntervalLog::begin(&db, Vec::new()).expect("memory takes it");
    /// log.write().expect("memory takes it");
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn write(&mut self) -> io::Result<()> {
        let now_ns = self.db.inner.backend.now_ns();
        let now = self.db.latencies();
        let interval = now.since(&self.last);
        let start = Duration::from_nanos(self.last_ns - self.began_ns);
        let duration = Duration::from_nanos(now_ns - self.last_ns);
        (self.last, self.last_ns) = (now, now_ns);
        // The header was written when the log began.
        let mut lines = Vec::new();
        let writer = IntervalLogWriterBuilder::new();
        let mut writer = writer.begin_log_with(&mut lines, &mut self.serializer)?;
        for operation in Operation::ALL {
            let tag = Tag::new(operation.name());
            writer.write_histogram(interval.whole(operation), start, duration, tag).map_err(
                |error| match error {
                    IntervalLogWriterError::IoError(error) => error,
                    IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
                },
            )?;
        }
        self.out.write_all(&lines)?;
        self.out.flush()
    }

    /// What it was written to.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// let log = ourodb::IntervalLog::begin(&db, Vec::new()).expect("memory takes it");
    /// let text: Vec<u8> = log.into_inner();
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn into_inner(self) -> W {
        self.out
    }
}

impl<W> fmt::Debug for IntervalLog<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntervalLog").field("db", &self.db).finish_non_exhaustive()
    }
}
