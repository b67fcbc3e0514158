//! The little that a workload needs of a database.
//!
//! OuroDB itself; other engines, and the null engine that shows the generator's
//! own speed, can stand in its place.

use ourodb::Db;

/// A database under load. Calls return when the operation has ended.
pub trait Store: Sync {
    /// Keys and values as the database returns them.
    type Bytes: AsRef<[u8]>;
    /// Why an operation failed.
    type Error: Send;

    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Self::Bytes>, Self::Error>;

    /// Writes `key`, over whatever it had.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Self::Error>;

    /// Appends the first `rows` rows at or after the key `from` to `found`, in
    /// order.
    fn scan(
        &self,
        from: &[u8],
        rows: usize,
        found: &mut Vec<(Self::Bytes, Self::Bytes)>,
    ) -> Result<(), Self::Error>;
}

impl Store for Db {
    type Bytes = ourodb::Value;
    type Error = ourodb::Error;

    fn get(&self, key: &[u8]) -> Result<Option<Self::Bytes>, Self::Error> {
        Self::get(self, key).wait()
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Self::Error> {
        Self::put(self, key, value).wait()
    }

    fn scan(
        &self,
        from: &[u8],
        rows: usize,
        found: &mut Vec<(Self::Bytes, Self::Bytes)>,
    ) -> Result<(), Self::Error> {
        for row in Self::scan(self, from..).limit(rows).iter() {
            found.push(row?);
        }
        Ok(())
    }
}
