//! Scans of keys without values.
//!
//! These are the scans of rows, whose rows have no values: all below is their
//! other face.

use std::fmt;
use std::iter::FusedIterator;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::{FusedStream, Stream};

use crate::base::error::Result;
use crate::db::{Scan, ScanIter, ScanStream, Value};

/// A scan of keys that is to be done; see [`Scan::keys`]. It can be iterated
/// over as it is.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.put(b"a", b"1").wait()?;
/// db.put(b"b", b"2").wait()?;
/// let last = db.scan(..).keys().reverse().limit(1).iter().next().expect("a key")?;
/// assert_eq!(last, *b"b");
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "a scan does nothing until it is iterated over"]
#[derive(Debug)]
pub struct ScanKeys(Scan);

impl ScanKeys {
    pub(super) fn new(scan: Scan) -> Self {
        Self(scan)
    }

    /// Goes from the last key to the first.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// assert_eq!(db.scan(..).keys().reverse().iter().count(), 0);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn reverse(self) -> Self {
        Self(self.0.reverse())
    }

    /// Ends after this many keys.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// assert_eq!(db.scan(..).keys().limit(10).iter().count(), 0);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn limit(self, keys: usize) -> Self {
        Self(self.0.limit(keys))
    }

    /// Begins the scan: what the iterator sees is the database of this moment.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// let keys = db.scan(..).keys().iter();
    /// db.put(b"late", b"unseen").wait()?;
    /// assert_eq!(keys.count(), 0);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn iter(self) -> KeyIter {
        KeyIter(self.0.iter())
    }

    /// Begins the scan as a stream: what it sees is the database of this
    /// moment.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// let keys = db.scan(b"a"..b"b").keys().stream();
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    pub fn stream(self) -> KeyStream {
        KeyStream(self.0.stream())
    }
}

impl IntoIterator for ScanKeys {
    type Item = Result<Value>;
    type IntoIter = KeyIter;

    fn into_iter(self) -> KeyIter {
        self.iter()
    }
}

/// The keys of a scan. After an error there are no more.
///
/// Versions that the scan may see are kept for as long as the iterator lives.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.put(b"a", b"1").wait()?;
/// let mut keys = db.scan(..).keys().iter();
/// assert_eq!(keys.next().expect("a key")?, *b"a");
/// assert!(keys.next().is_none());
/// # Ok::<(), ourodb::Error>(())
/// ```
pub struct KeyIter(ScanIter);

impl Iterator for KeyIter {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next()?.map(|(key, _)| key))
    }
}

impl FusedIterator for KeyIter {}

impl fmt::Debug for KeyIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyIter").finish_non_exhaustive()
    }
}

/// The keys of a scan, as a stream. After an error there are no more. See
/// [`ScanKeys::stream`].
///
/// Versions that the scan may see are kept for as long as the stream lives.
///
/// ```
/// # use std::{future::poll_fn, pin::Pin};
/// use futures_core::Stream;
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.put(b"a", b"1").wait()?;
/// let mut keys = db.scan(..).keys().stream();
/// # pollster::block_on(async {
/// let key = poll_fn(|cx| Pin::new(&mut keys).poll_next(cx)).await;
/// assert_eq!(key.expect("a key")?, *b"a");
/// # Ok::<(), ourodb::Error>(()) })?;
/// # Ok::<(), ourodb::Error>(())
/// ```
#[must_use = "a stream does nothing until it is polled"]
pub struct KeyStream(ScanStream);

impl Stream for KeyStream {
    type Item = Result<Value>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|row| Some(row?.map(|(key, _)| key)))
    }
}

impl FusedStream for KeyStream {
    fn is_terminated(&self) -> bool {
        self.0.is_terminated()
    }
}

impl fmt::Debug for KeyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStream").finish_non_exhaustive()
    }
}
