//! Clients that are no threads, and what they need of a database.
//!
//! [`Asynchronous`] is what a [`Target`](crate::target::Target) is besides if
//! its operations can be awaited: it starts a client as a task of a runtime, or
//! beside the data of one owner. An [`AsyncClient`] is what it starts; an
//! [`AsyncHandle`] is what such a client has of the database, as a
//! [`Handle`](crate::target::Handle) is what a thread has.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::alarm::Alarms;
use crate::failure::Failure;
use crate::intervals::{ClientRecorder, Journal};
use crate::pacing::{Pace, Window};
use crate::pipeline::{self, PipelinedOperations, Timer};
use crate::runner::ClientReport;
use crate::script::{Operation, OwnKeys, Script};
use crate::target::Rows;
use crate::workload::OpKind;

/// A database whose operations can be awaited.
pub trait Asynchronous {
    /// How many owners it has.
    fn owners(&self) -> usize;

    /// The keys of one of them.
    fn own_keys(&self, owner: usize) -> OwnKeys;

    /// Starts a client as a task of the runtime.
    fn start_task(&self, runtime: &tokio::runtime::Handle, client: AsyncClient) -> Running<'_>;

    /// Starts a client on the thread of an owner.
    fn start_on_owner(&self, owner: usize, client: AsyncClient) -> Running<'_>;
}

/// A client that was started: its end, and what it brings home. It may begin
/// only when this is polled.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<ClientReport, Failure>> + 'a>>;

/// One operation's way to a database.
pub trait AsyncHandle: Clone {
    /// Values as the engine returns them, copied only if it cannot do without.
    type Bytes: AsRef<[u8]>;

    /// The value of `key`.
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Self::Bytes>, Failure>>;

    /// Writes `key`, over whatever it had.
    fn put(&self, key: &[u8], value: &[u8]) -> impl Future<Output = Result<(), Failure>>;

    /// Removes `key`, if it is there.
    fn delete(&self, key: &[u8]) -> impl Future<Output = Result<(), Failure>>;

    /// Removes all keys from `from` on, and before `end`.
    fn delete_range(&self, from: &[u8], end: &[u8]) -> impl Future<Output = Result<(), Failure>>;

    /// Adds the values of `keys` to `found`, in their order.
    fn multi_get(
        &self,
        keys: &[Vec<u8>],
        found: &mut Vec<Option<Self::Bytes>>,
    ) -> impl Future<Output = Result<(), Failure>>;

    /// Adds the first `limit` rows at or after the key `from` to `found`, in
    /// order.
    fn scan(
        &self,
        from: &[u8],
        limit: usize,
        found: &mut Rows,
    ) -> impl Future<Output = Result<(), Failure>>;
}

/// What the clients of a phase share.
pub struct Stage {
    /// Their clock, and what wakes them when an operation is due.
    pub alarms: Arc<Alarms>,
    /// The start, on that clock.
    pub start_ns: u64,
    /// The end, on that clock; `u64::MAX` for a phase that ends with its
    /// operations.
    pub end_ns: u64,
    /// Set when everybody is to stop.
    pub stop: AtomicBool,
    /// Where what they measured goes.
    pub journal: Arc<Journal>,
    /// Operations done, by client.
    pub progress: Vec<ClientProgress>,
}

/// A client's count of operations, on cache lines of its own.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct ClientProgress(pub AtomicU64);

/// Spawns what runs a client.
pub fn spawn_task<F>(runtime: &tokio::runtime::Handle, client: F) -> Running<'static>
where
    F: Future<Output = ClientReport> + Send + 'static,
{
    let task = runtime.spawn(client);
    Box::pin(async move {
        task.await.map_err(|error| match error.try_into_panic() {
            // A panic of a client is one of the program.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => Failure::Other(format!("a client was lost: {cancelled}")),
        })
    })
}

/// A client that is to be started.
pub struct AsyncClient {
    stage: Arc<Stage>,
    number: usize,
    script: Script,
    pace: Pace,
    depth: usize,
}

impl AsyncClient {
    /// The client of that number, with at most `depth` operations in flight.
    #[must_use]
    pub fn new(
        stage: &Arc<Stage>,
        number: usize,
        script: Script,
        pace: Pace,
        depth: usize,
    ) -> Self {
        Self { stage: Arc::clone(stage), number, script, pace, depth }
    }

    /// Runs it to its end, on the thread that polls.
    pub async fn run<H: AsyncHandle>(self, handle: H) -> ClientReport {
        let Self { stage, number, script, pace, depth } = self;
        let mut recorder =
            ClientRecorder::new(&stage.journal, number, script.task().mix.kinds(), &pace);
        recorder.begin(stage.start_ns);
        let window = Window { start_ns: stage.start_ns, end_ns: stage.end_ns, stop: &stage.stop };
        let mut operations = AsyncOperations { handle, script };
        let progress = &stage.progress[number].0;
        let finish = pipeline::drive(
            &*stage.alarms,
            &pace,
            window,
            depth,
            &mut operations,
            &mut recorder,
            progress,
        )
        .await;
        let ended_ns =
            finish.as_ref().map_or_else(|_| stage.alarms.now_ns(), |finish| finish.at_ns);
        let (faults, inserts, put_bytes) = operations.script.finish();
        ClientReport { finish, is_paced: pace.is_open(), ended_ns, faults, inserts, put_bytes }
    }
}

/// A script whose operations are awaited.
struct AsyncOperations<H> {
    handle: H,
    script: Script,
}

/// What belongs to one operation in flight.
struct Lane<H: AsyncHandle> {
    handle: H,
    op: Operation<H::Bytes>,
}

impl<H: AsyncHandle> PipelinedOperations for AsyncOperations<H> {
    type Lane = Lane<H>;
    type Error = Failure;

    fn lane(&self) -> Lane<H> {
        Lane { handle: self.handle.clone(), op: Operation::default() }
    }

    fn prepare(&mut self, lane: &mut Lane<H>) -> Option<OpKind> {
        self.script.prepare(&mut lane.op)
    }

    async fn execute(lane: &mut Lane<H>) -> Result<(), Failure> {
        let Lane { handle, op } = lane;
        match op.kind {
            OpKind::Read => op.got = handle.get(&op.key).await?,
            OpKind::Update | OpKind::Insert => handle.put(&op.key, &op.value).await?,
            OpKind::Scan => handle.scan(&op.key, op.rows_wanted, &mut op.rows).await?,
            OpKind::ReadModifyWrite => {
                op.got = handle.get(&op.key).await?;
                handle.put(&op.key, &op.value).await?;
            }
            OpKind::Delete => handle.delete(&op.key).await?,
            OpKind::DeleteRange => handle.delete_range(&op.key, &op.end).await?,
            OpKind::MultiGet => handle.multi_get(&op.keys, &mut op.found).await?,
        }
        Ok(())
    }

    fn verify(&mut self, lane: &mut Lane<H>) {
        self.script.verify(&mut lane.op);
    }
}
