//! Scans.

use std::fmt;
use std::iter::FusedIterator;

use crate::base::error::Result;
use crate::base::keys::KeyBounds;
use crate::db::{Db, ScanKeys, ScanStream, Value};
use crate::lsm::Direction;
use crate::shard::{ScanRange, Scanner};

/// A scan that is to be done; see [`Db::scan`]. It can be iterated over as it
/// is.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.put(b"a", b"1").wait()?;
/// db.put(b"b", b"2").wait()?;
/// let (key, _) = db.scan(..).reverse().limit(1).iter().next().expect("a row")?;
/// assert_eq!(key, *b"b");
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "a scan does nothing until it is iterated over"]
#[derive(Debug)]
pub struct Scan {
    db: Db,
    range: ScanRange,
}

impl Scan {
    pub(super) fn new(db: &Db, bounds: KeyBounds) -> Self {
        let range = ScanRange {
            bounds,
            direction: Direction::Forward,
            keys_only: false,
            rows_max: usize::MAX,
        };
        Self { db: db.clone(), range }
    }

    /// Goes from the last key to the first.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// assert_eq!(db.scan(..).reverse().iter().count(), 0);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn reverse(mut self) -> Self {
        self.range.direction = match self.range.direction {
            Direction::Forward => Direction::Backward,
            Direction::Backward => Direction::Forward,
        };
        self
    }

    /// Ends after this many rows. Whoever says so at once has them read at once, where
    /// they are not in memory: a scan without a limit reads little at first.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// assert_eq!(db.scan(..).limit(10).iter().count(), 0);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn limit(mut self, rows: usize) -> Self {
        self.range.rows_max = rows;
        self
    }

    /// A scan of the same keys that gives these alone: no value is copied, and no
    /// file of long values is read.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"a", b"1").wait()?;
    /// for key in db.scan(..).keys() {
    ///     assert_eq!(key?, *b"a");
    /// }
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn keys(mut self) -> ScanKeys {
        self.range.keys_only = true;
        ScanKeys::new(self)
    }

    /// Begins the scan: what the iterator sees is the database of this moment.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// let rows = db.scan(..).iter();
    /// db.put(b"late", b"unseen").wait()?;
    /// assert_eq!(rows.count(), 0);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn iter(self) -> ScanIter {
        let left = self.range.rows_max;
        let scanner = Scanner::new(&self.db.inner.engine, self.range);
        ScanIter { db: self.db, scanner, left }
    }

    /// Begins the scan as a stream: what it sees is the database of this
    /// moment.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// let rows = db.scan(b"a"..b"b").stream();
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn stream(self) -> ScanStream {
        let limit = self.range.rows_max;
        let scanner = Scanner::new(&self.db.inner.engine, self.range);
        ScanStream::new(self.db, scanner, limit)
    }
}

impl IntoIterator for Scan {
    type Item = Result<(Value, Value)>;
    type IntoIter = ScanIter;

    fn into_iter(self) -> ScanIter {
        self.iter()
    }
}

/// The rows of a scan: pairs of key and value. After an error there are no
/// more.
///
/// Versions that the scan may see are kept for as long as the iterator lives.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.put(b"a", b"1").wait()?;
/// let mut rows = db.scan(..).iter();
/// let (key, value) = rows.next().expect("one row")?;
/// assert_eq!((&key[..], &value[..]), (&b"a"[..], &b"1"[..]));
/// assert!(rows.next().is_none());
/// # Ok::<(), ourodb::Error>(())
/// ```
pub struct ScanIter {
    pub(super) db: Db,
    pub(super) scanner: Scanner,
    pub(super) left: usize,
}

impl ScanIter {
    /// Calls `visit` with the next row's key and value, where they lie: nothing is
    /// allocated or copied. What `visit` returned, or `None` when there are no more
    /// rows.
    ///
    /// # Errors
    /// Those of the iterator.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"a", b"red").wait()?;
    /// db.put(b"b", b"green").wait()?;
    /// let mut rows = db.scan(..).iter();
    /// let mut bytes = 0;
    /// while let Some(row) = rows.next_with(|key, value| key.len() + value.len()) {
    ///     bytes += row?;
    /// }
    /// assert_eq!(bytes, 10);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn next_with<R>(&mut self, visit: impl FnOnce(&[u8], &[u8]) -> R) -> Option<Result<R>> {
        self.advance(|scanner| {
            let (key, value) = scanner.row();
            visit(key, value)
        })
    }

    /// Moves to the next row, if there is one, and takes of it what is wanted.
    fn advance<R>(&mut self, take: impl FnOnce(&mut Scanner) -> R) -> Option<Result<R>> {
        self.left = self.left.checked_sub(1)?;
        let moved = self.db.inner.next_row(&mut self.scanner);
        self.moved(moved, take)
    }

    /// The scan has moved: takes what is wanted of the row that it is at.
    pub(super) fn moved<R>(
        &mut self,
        moved: Result<bool>,
        take: impl FnOnce(&mut Scanner) -> R,
    ) -> Option<Result<R>> {
        match moved {
            Ok(true) => Some(Ok(take(&mut self.scanner))),
            Ok(false) => None,
            Err(error) => {
                self.left = 0;
                Some(Err(error))
            }
        }
    }
}

/// The row that a scan is at, to be kept.
pub(super) fn take_row(scanner: &mut Scanner) -> (Value, Value) {
    let (key, value) = scanner.take_row();
    (Value::own(key), Value::loaded(value))
}

impl Iterator for ScanIter {
    type Item = Result<(Value, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance(take_row)
    }
}

impl FusedIterator for ScanIter {}

impl fmt::Debug for ScanIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanIter").finish_non_exhaustive()
    }
}
