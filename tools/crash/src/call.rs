//! An operation of a script as a call of the engine, done in each way there is.

use ourodb::{Batch, Compact, Db, Delete, DeleteRange, Durability, Flush, Put, Write};

use crate::script::{Change, Operation, Way, key_bytes};

/// Does an operation of a client, with a durability of its own unless it is the
/// one of the options.
pub(crate) async fn execute(
    db: &Db,
    way: Way,
    client: usize,
    operation: &Operation,
    own: Option<Durability>,
) -> ourodb::Result<()> {
    match way {
        Way::Thread => Call::of(db, &Bytes::of(client, operation), own).wait(),
        Way::Task => Call::of(db, &Bytes::of(client, operation), own).task().await,
        Way::Owner => {
            let bytes = Bytes::of(client, operation);
            let beside = bytes.first_key().to_vec();
            db.on_shard(&beside, move |shard| async move {
                let shard = match own {
                    Some(durability) => shard.with_durability(durability),
                    None => shard,
                };
                match &bytes {
                    Bytes::Put(key, value) => shard.put(key, value).await,
                    Bytes::Delete(key) => shard.delete(key).await,
                    Bytes::Batch(batch) => shard.write(batch).await,
                    other => Call::of(shard.db(), other, own).task().await,
                }
            })
            .await?
        }
    }
}

/// An operation with the bytes of its keys.
enum Bytes {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Batch(Batch),
    DeleteRange(Vec<u8>, Vec<u8>),
    Flush,
    Compact,
}

impl Bytes {
    fn of(client: usize, operation: &Operation) -> Self {
        match operation {
            Operation::Single(Change { key, value }) => match value {
                Some(value) => Self::Put(key_bytes(client, *key), value.clone()),
                None => Self::Delete(key_bytes(client, *key)),
            },
            Operation::Batch(changes) => {
                let mut batch = Batch::new();
                for change in changes {
                    let key = key_bytes(client, change.key);
                    match &change.value {
                        Some(value) => batch.put(&key, value),
                        None => batch.delete(&key),
                    };
                }
                Self::Batch(batch)
            }
            Operation::DeleteRange(keys) => {
                Self::DeleteRange(key_bytes(client, *keys.start()), key_bytes(client, *keys.end()))
            }
            Operation::Flush => Self::Flush,
            Operation::Compact => Self::Compact,
        }
    }

    /// A key whose owner may do it.
    fn first_key(&self) -> &[u8] {
        match self {
            Self::Put(key, _) | Self::Delete(key) | Self::DeleteRange(key, _) => key,
            Self::Batch(_) | Self::Flush | Self::Compact => b"",
        }
    }
}

/// What is to be waited for.
enum Call<'a> {
    Put(Put<'a>),
    Delete(Delete<'a>),
    Batch(Write<'a>),
    DeleteRange(DeleteRange<'a>),
    Flush(Flush<'a>),
    Compact(Compact<'a>),
}

impl<'a> Call<'a> {
    fn of(db: &'a Db, bytes: &'a Bytes, own: Option<Durability>) -> Self {
        match bytes {
            Bytes::Put(key, value) => {
                Self::Put(own.into_iter().fold(db.put(key, value), Put::durability))
            }
            Bytes::Delete(key) => {
                Self::Delete(own.into_iter().fold(db.delete(key), Delete::durability))
            }
            Bytes::Batch(batch) => {
                Self::Batch(own.into_iter().fold(db.write(batch.clone()), Write::durability))
            }
            Bytes::DeleteRange(first, last) => {
                let delete = db.delete_range(&first[..]..=&last[..]);
                Self::DeleteRange(own.into_iter().fold(delete, DeleteRange::durability))
            }
            Bytes::Flush => Self::Flush(db.flush()),
            Bytes::Compact => Self::Compact(db.compact(..)),
        }
    }

    fn wait(self) -> ourodb::Result<()> {
        match self {
            Self::Put(call) => call.wait(),
            Self::Delete(call) => call.wait(),
            Self::Batch(call) => call.wait(),
            Self::DeleteRange(call) => call.wait(),
            Self::Flush(call) => call.wait(),
            Self::Compact(call) => call.wait(),
        }
    }

    async fn task(self) -> ourodb::Result<()> {
        match self {
            Self::Put(call) => call.await,
            Self::Delete(call) => call.await,
            Self::Batch(call) => call.await,
            Self::DeleteRange(call) => call.await,
            Self::Flush(call) => call.await,
            Self::Compact(call) => call.await,
        }
    }
}
