//! Values and keys as callers get them.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::value::Loaded;

/// Bytes of a value or a key, owned by the caller. Derefs to `[u8]`.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.put(b"key", b"value").wait()?;
/// let value: ourodb::Value = db.get(b"key").wait()?.expect("just written");
/// assert!(value.starts_with(b"val"));
/// let bytes: Vec<u8> = value.into_vec();
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone)]
pub struct Value(Bytes);

#[derive(Clone)]
enum Bytes {
    Own(Box<[u8]>),
    /// Shared with a memtable: a value above 4 KiB is not copied.
    Shared(Arc<[u8]>),
    /// As it was read from a value file.
    Loaded(Arc<Loaded>),
}

impl Value {
    pub(super) fn own(bytes: Box<[u8]>) -> Self {
        Self(Bytes::Own(bytes))
    }

    pub(super) fn shared(bytes: Arc<[u8]>) -> Self {
        Self(Bytes::Shared(bytes))
    }

    pub(super) fn loaded(loaded: Loaded) -> Self {
        match loaded {
            Loaded::Own(bytes) => Self::own(bytes),
            loaded @ Loaded::Buf(..) => Self(Bytes::Loaded(Arc::new(loaded))),
        }
    }

    /// The bytes as a vector.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// # db.put(b"key", b"value").wait()?;
    /// let bytes = db.get(b"key").wait()?.map(ourodb::Value::into_vec);
    /// assert_eq!(bytes, Some(b"value".to_vec()));
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Bytes::Own(bytes) => bytes.into_vec(),
            Bytes::Shared(bytes) => bytes.to_vec(),
            Bytes::Loaded(bytes) => bytes.to_vec(),
        }
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Own(bytes) => bytes,
            Bytes::Shared(bytes) => bytes,
            Bytes::Loaded(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Value> for Vec<u8> {
    fn from(value: Value) -> Self {
        value.into_vec()
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Value {}

impl PartialEq<[u8]> for Value {
    fn eq(&self, other: &[u8]) -> bool {
        self[..] == *other
    }
}

impl PartialEq<&[u8]> for Value {
    fn eq(&self, other: &&[u8]) -> bool {
        self[..] == **other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Value {
    fn eq(&self, other: &[u8; N]) -> bool {
        self[..] == *other
    }
}

impl fmt::Debug for Value {
    /// As a byte string.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}
