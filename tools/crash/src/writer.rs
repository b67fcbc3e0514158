//! The clients of a worker: threads and tasks that write until they die, and
//! now and then read what they wrote.

use std::fs::File;
use std::io::Write;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ourodb::{Db, Durability, ErrorKind};

use crate::call::execute;
use crate::plant::Plant;
use crate::protocol::{Record, Step};
use crate::reads::History;
use crate::script::{Change, Operation, Script, Way, key_index};
use crate::settle::Values;
use crate::worker::Failure;

/// Of so many of a client's relaxed writes, a planted bug leaves out the last
/// one; or, if it is the other bug, all that come after. Other bugs show in one
/// of so many operations, too.
pub(crate) const PLANTED_EVERY: u64 = 10;

/// A client reads some keys that it wrote after one in so many operations, and
/// scans its keys after one in so many: seldom, as it is to be killed in writes.
const GET_EVERY: u64 = 16;
const GET_KEYS_MAX: usize = 2;
const SCAN_EVERY: u64 = 128;

/// How often the parent learns what the engine did meanwhile.
const TALLY_PAUSE: Duration = Duration::from_millis(2);

/// What all threads and tasks of a worker share.
pub(crate) struct Shared {
    pub(crate) db: Db,
    /// What the options say of writes.
    pub(crate) default: Durability,
    pub(crate) pipe: File,
    pub(crate) script: Script,
    /// How many each client does.
    pub(crate) operations: u64,
    /// Of each client, after each operation.
    pub(crate) pause: Duration,
    pub(crate) plant: Option<Plant>,
    /// By a planted bug, no relaxed write is made any more.
    pub(crate) forgets: AtomicBool,
    pub(crate) histories: Vec<History>,
    /// The keys of all clients, in order.
    pub(crate) keys: Vec<Vec<u8>>,
    /// What they held when the database was opened, by client.
    pub(crate) opened: Vec<Values>,
    /// The database is being closed, and says so to whoever uses it.
    pub(crate) closing: AtomicBool,
    pub(crate) gets: AtomicU64,
    pub(crate) scans: AtomicU64,
}

impl Shared {
    /// What becomes of work of a thread or task: if it ends by a failure that
    /// closing does not explain, it ends the process.
    pub(crate) fn ended(&self, result: Result<(), Failure>) {
        let Err(failure) = result else {
            return;
        };
        let closed = failure.kind() == Some(ErrorKind::Closed);
        if !closed || !self.closing.load(Ordering::SeqCst) {
            process::exit(i32::from(failure.report()));
        }
    }

    /// Whether reads beside the writes are judged.
    pub(crate) fn reads(&self) -> bool {
        self.plant.is_none_or(Plant::is_for_reads)
    }
}

/// Starts clients, and a thread that tells the parent what the engine does.
/// Returns the threads of the clients.
pub(crate) fn start(shared: &Arc<Shared>, clients: u8) -> Result<Vec<JoinHandle<()>>, Failure> {
    let way = |client: &u8| shared.script.way(usize::from(*client));
    let (threads, tasks): (Vec<u8>, Vec<u8>) =
        (0..clients).partition(|client| way(client) == Way::Thread);
    let mut started = Vec::new();
    // A client that waits never gives way to another one.
    for clients in threads.into_iter().map(|client| vec![client]).chain([tasks]) {
        let shared = Arc::clone(shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        started.push(thread::spawn(move || {
            let tasks = clients.into_iter().map(|client| {
                let shared = Arc::clone(&shared);
                runtime.spawn(async move { shared.ended(shared.write(client).await) })
            });
            for task in tasks.collect::<Vec<_>>() {
                runtime.block_on(task).expect("no client panics");
            }
        }));
    }
    let shared = Arc::clone(shared);
    thread::spawn(move || shared.ended(shared.tally()));
    Ok(started)
}

impl Shared {
    async fn write(&self, client: u8) -> Result<(), Failure> {
        let (mut pipe, of_client) = (&self.pipe, usize::from(client));
        let (way, history) = (self.script.way(of_client), &self.histories[of_client]);
        for number in 0..self.operations {
            let operation = self.script.operation(of_client, number);
            let durability = self.script.durability(of_client, number);
            let record = |step| Record { step, client, number }.to_bytes();
            history.begin();
            pipe.write_all(&record(Step::Start))?;
            let early = self.plant == Some(Plant::AckBeforeWrite);
            if early {
                pipe.write_all(&record(Step::Done))?;
            }
            // A write says itself only what the options do not.
            let mut own = (durability != self.default).then_some(durability);
            if self.plant == Some(Plant::DurableAsProcessSafe) && durability == Durability::Durable
            {
                own = Some(Durability::ProcessSafe);
            }
            for operation in self.planted(&operation, durability, number) {
                execute(&self.db, way, of_client, &operation, own).await?;
            }
            if !early {
                pipe.write_all(&record(Step::Done))?;
            }
            let streams = &self.script.streams()[of_client];
            let parts = operation.parts(streams);
            let keys: Vec<usize> =
                parts.iter().flat_map(|part| &part.changes).map(|change| change.key).collect();
            history.acknowledge(parts);
            if self.reads() {
                self.read_own(of_client, number, &keys, way != Way::Thread).await?;
            }
            if !self.pause.is_zero() {
                tokio::time::sleep(self.pause).await;
            }
        }
        Ok(())
    }

    /// Now and then, what a client reads after an operation of its own.
    async fn read_own(
        &self,
        client: usize,
        number: u64,
        keys: &[usize],
        awaits: bool,
    ) -> Result<(), Failure> {
        if number % GET_EVERY == GET_EVERY - 1 {
            for key in keys.iter().take(GET_KEYS_MAX) {
                self.get(client, *key, awaits).await?;
            }
        }
        if number % SCAN_EVERY == SCAN_EVERY - 1 {
            let range = key_index(client, 0)..key_index(client + 1, 0);
            let mut random = self.script.read(client as u64, number);
            self.scan(range, &mut random, awaits).await?;
        }
        Ok(())
    }

    /// What is done for an operation: itself, but for planted bugs.
    fn planted(
        &self,
        operation: &Operation,
        durability: Durability,
        number: u64,
    ) -> Vec<Operation> {
        let itself = vec![operation.clone()];
        let is_due = number % PLANTED_EVERY == PLANTED_EVERY - 1;
        let is_relaxed = matches!(durability, Durability::Relaxed { .. });
        let singles = |changes: &[Change]| -> Vec<Operation> {
            changes.iter().cloned().map(Operation::Single).collect()
        };
        match (self.plant, operation) {
            (_, Operation::Flush | Operation::Compact) => itself,
            (Some(Plant::SkipRelaxed), _) if is_relaxed && is_due => Vec::new(),
            (Some(Plant::ForgetRelaxed), _) if is_relaxed => {
                if number >= PLANTED_EVERY {
                    self.forgets.store(true, Ordering::SeqCst);
                }
                // From one moment on for all clients: what is there is a prefix.
                if self.forgets.load(Ordering::SeqCst) { Vec::new() } else { itself }
            }
            (Some(Plant::SplitBatch), Operation::Batch(changes)) => singles(changes),
            (Some(Plant::CutBatch), Operation::Batch(changes)) => {
                vec![Operation::Batch(changes[..changes.len() - 1].to_vec())]
            }
            (Some(Plant::SkipDelete), Operation::Single(Change { value: None, .. })) => Vec::new(),
            (Some(Plant::SkipDeleteRange), Operation::DeleteRange(_)) => Vec::new(),
            (Some(Plant::CutDeleteRange), Operation::DeleteRange(keys)) => {
                let (first, last) = (*keys.start(), *keys.end());
                (first < last)
                    .then(|| Operation::DeleteRange(first..=last - 1))
                    .into_iter()
                    .collect()
            }
            (Some(Plant::SplitDeleteRange), Operation::DeleteRange(keys)) => {
                keys.clone().map(|key| Operation::Single(Change { key, value: None })).collect()
            }
            _ => itself,
        }
    }

    /// Tells the parent what the engine and the readers did, whenever that is
    /// more than before.
    fn tally(&self) -> Result<(), Failure> {
        let mut told = [0; 4];
        loop {
            let stats = self.db.stats();
            let counts = [
                (Step::Flushes, stats.flushes),
                (Step::Compactions, stats.compactions),
                (Step::Gets, self.gets.load(Ordering::Relaxed)),
                (Step::Scans, self.scans.load(Ordering::Relaxed)),
            ];
            for (told, (step, number)) in told.iter_mut().zip(counts) {
                if *told != number {
                    *told = number;
                    (&self.pipe).write_all(&Record { step, client: 0, number }.to_bytes())?;
                }
            }
            thread::sleep(TALLY_PAUSE);
        }
    }
}
