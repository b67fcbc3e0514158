//! Batches.

use crate::base::seq::Kind;
use crate::shard::log_bytes;

/// Writes that are applied together: all or nothing, seen at one moment. Of
/// two writes to one key the later one wins.
///
/// ```
/// use ourodb::Batch;
/// let mut batch = Batch::new();
/// batch.put(b"a", b"1").put(b"b", b"2").delete(b"c");
/// assert_eq!(batch.len(), 3);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Keys and values, one behind the other.
    bytes: Vec<u8>,
    writes: Vec<BatchWrite>,
    log_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct BatchWrite {
    kind: Kind,
    start: usize,
    key_len: usize,
    value_len: usize,
}

impl Batch {
    /// An empty batch.
    ///
    /// ```
    /// assert!(ourodb::Batch::new().is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put.
    ///
    /// ```
    /// let mut batch = ourodb::Batch::new();
    /// batch.put(b"key", b"value");
    /// ```
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> &mut Self {
        self.push(Kind::Put, key, value)
    }

    /// Adds a delete.
    ///
    /// ```
    /// let mut batch = ourodb::Batch::new();
    /// batch.delete(b"key");
    /// ```
    pub fn delete(&mut self, key: &[u8]) -> &mut Self {
        self.push(Kind::Delete, key, b"")
    }

    fn push(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.writes.push(BatchWrite { kind, start, key_len: key.len(), value_len: value.len() });
        self.log_bytes += log_bytes(kind, key, value);
        self
    }

    /// Writes in the batch.
    ///
    /// ```
    /// assert_eq!(ourodb::Batch::new().put(b"k", b"v").len(), 1);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether the batch has no writes.
    ///
    /// ```
    /// assert!(ourodb::Batch::new().is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// An upper bound on the bytes the batch takes in the log, to compare with
    /// [`Db::batch_bytes_max`](crate::Db::batch_bytes_max): keys, values, and
    /// at most 32 bytes a write. A value above 64 KiB is not in the log, and
    /// counts for 4,120 bytes at most.
    ///
    /// ```
    /// let mut batch = ourodb::Batch::new();
    /// batch.put(b"key", b"value");
    /// assert!((8..=8 + 32).contains(&batch.bytes()));
    /// ```
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.log_bytes
    }

    /// Empties the batch and keeps its memory.
    ///
    /// ```
    /// let mut batch = ourodb::Batch::new();
    /// batch.put(b"key", b"value").clear();
    /// assert!(batch.is_empty());
    /// ```
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.writes.clear();
        self.log_bytes = 0;
    }

    /// The writes: kind, key, value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Kind, &[u8], &[u8])> {
        self.writes.iter().map(|write| {
            let (key, rest) = self.bytes[write.start..].split_at(write.key_len);
            (write.kind, key, &rest[..write.value_len])
        })
    }
}
