//! Clients of OuroDB that are no threads: tasks that await its operations, and
//! closures on its owners.

use std::future::poll_fn;
use std::pin::Pin;

use futures_core::Stream;
use ourodb::{Db, ScanStream, Shard, Value};

use super::OuroDb;
use crate::asynchronous::{AsyncClient, AsyncHandle, Asynchronous, Running, spawn_task};
use crate::failure::Failure;
use crate::script::OwnKeys;
use crate::target::Rows;

impl Asynchronous for OuroDb {
    fn owners(&self) -> usize {
        self.db.stats().owners
    }

    /// An owner's shards are those whose writes go to its stream.
    fn own_keys(&self, owner: usize) -> OwnKeys {
        let db = self.db.clone();
        OwnKeys::new(owner, move |key| db.stream_of(key) == owner)
    }

    fn start_task(&self, runtime: &tokio::runtime::Handle, client: AsyncClient) -> Running<'_> {
        spawn_task(runtime, client.run(TaskHandle(self.db.clone())))
    }

    fn start_on_owner(&self, owner: usize, client: AsyncClient) -> Running<'_> {
        // Every owner has a shard, and every shard one key in so many.
        let mut keys = (0_u64..).map(u64::to_be_bytes);
        let key = keys.find(|key| self.db.stream_of(key) == owner);
        let key = key.expect("some key belongs to every owner");
        let closure = self.db.on_shard(&key, |shard| client.run(OwnerHandle(shard)));
        Box::pin(async move {
            closure.await.map_err(|error| {
                Failure::Other(format!("a client was lost on owner {owner}: {error}"))
            })
        })
    }
}

/// What a task has of the database.
#[derive(Clone)]
struct TaskHandle(Db);

impl AsyncHandle for TaskHandle {
    type Bytes = Value;

    async fn get(&self, key: &[u8]) -> Result<Option<Value>, Failure> {
        self.0.get(key).await.map_err(Failure::engine("a get failed"))
    }

    async fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.0.put(key, value).await.map_err(Failure::engine("a put failed"))
    }

    async fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        self.0.delete(key).await.map_err(Failure::engine("a delete failed"))
    }

    async fn delete_range(&self, from: &[u8], end: &[u8]) -> Result<(), Failure> {
        delete_range(&self.0, from, end).await
    }

    async fn multi_get(
        &self,
        keys: &[Vec<u8>],
        found: &mut Vec<Option<Value>>,
    ) -> Result<(), Failure> {
        multi_get(&self.0, keys, found).await
    }

    async fn scan(&self, from: &[u8], limit: usize, found: &mut Rows) -> Result<(), Failure> {
        collect(self.0.scan(from..).limit(limit).stream(), found).await
    }
}

/// What a closure has of the database.
#[derive(Clone)]
struct OwnerHandle(Shard);

impl AsyncHandle for OwnerHandle {
    type Bytes = Value;

    async fn get(&self, key: &[u8]) -> Result<Option<Value>, Failure> {
        self.0.get(key).await.map_err(Failure::engine("a get failed"))
    }

    async fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.0.put(key, value).await.map_err(Failure::engine("a put failed"))
    }

    async fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        self.0.delete(key).await.map_err(Failure::engine("a delete failed"))
    }

    async fn delete_range(&self, from: &[u8], end: &[u8]) -> Result<(), Failure> {
        delete_range(self.0.db(), from, end).await
    }

    async fn multi_get(
        &self,
        keys: &[Vec<u8>],
        found: &mut Vec<Option<Value>>,
    ) -> Result<(), Failure> {
        multi_get(self.0.db(), keys, found).await
    }

    /// A scan asks all shards: most of its rows are other owners'.
    async fn scan(&self, from: &[u8], limit: usize, found: &mut Rows) -> Result<(), Failure> {
        collect(self.0.db().scan(from..).limit(limit).stream(), found).await
    }
}

async fn delete_range(db: &Db, from: &[u8], end: &[u8]) -> Result<(), Failure> {
    db.delete_range(from..end).await.map_err(Failure::engine("a delete of a range failed"))
}

async fn multi_get(
    db: &Db,
    keys: &[Vec<u8>],
    found: &mut Vec<Option<Value>>,
) -> Result<(), Failure> {
    let values = db.multi_get(keys).await;
    found.extend(values.map_err(Failure::engine("a get of several keys failed"))?);
    Ok(())
}

async fn collect(mut rows: ScanStream, found: &mut Rows) -> Result<(), Failure> {
    while let Some(row) = poll_fn(|cx| Pin::new(&mut rows).poll_next(cx)).await {
        let (key, value) = row.map_err(Failure::engine("a scan failed"))?;
        found.push(&key, &value);
    }
    Ok(())
}
