//! Whole phases of tasks and owner clients, on a store of two owners that knows
//! how many operations are in flight.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Mutex;
use std::thread::ThreadId;

use super::*;
use crate::alarm::Alarms;
use crate::asynchronous::{AsyncHandle, spawn_task};
use crate::distribution::{KeyChoice, RecordChooser};
use crate::inserts::{Inserts, RecordCounter};
use crate::keys::KeySizes;
use crate::pacing::Pace;
use crate::runner::NEVER;
use crate::script::Presence;
use crate::script::Task;
use crate::shape::Shape;
use crate::sizes::Sizes;
use crate::target::Rows;
use crate::workload::{BuiltIn, Mix, OpKind};

const OWNERS: usize = 2;
const RECORDS: u64 = 1000;
/// How long an operation waits for others at most: then the gate opens, and the
/// test fails.
const PATIENCE_NS: u64 = 20_000_000_000;

/// A client's operations wait until so many of them are in flight.
struct Gate {
    depth: usize,
    state: Mutex<GateState>,
}

#[derive(Default)]
struct GateState {
    in_flight: usize,
    in_flight_max: usize,
    begun: u64,
    /// How often the gate was opened.
    rounds: u64,
    waiting: Vec<Waker>,
}

impl Gate {
    fn open(state: &mut GateState) {
        state.rounds += 1;
        state.waiting.drain(..).for_each(Waker::wake);
    }
}

/// Knows no key. Its operations pass the gates, each of which stays open after
/// so many.
struct NullStore {
    depth: usize,
    opens_after: u64,
    begun: std::sync::atomic::AtomicU64,
    fail_at: u64,
    panic_at: u64,
    interrupt_at: Option<(u64, Arc<AtomicBool>)>,
    gates: Mutex<Vec<Arc<Gate>>>,
    alarms: AlarmThread,
    /// Keys and the thread they came on.
    keys: Mutex<Vec<(Vec<u8>, ThreadId)>>,
}

#[derive(Clone)]
struct NullHandle {
    store: Arc<NullStore>,
    gate: Arc<Gate>,
    alarms: Arc<Alarms>,
}

impl NullHandle {
    fn new(store: &Arc<NullStore>) -> Self {
        let gate = Arc::new(Gate { depth: store.depth, state: Mutex::default() });
        store.gates.lock().unwrap().push(Arc::clone(&gate));
        let alarms = Arc::clone(store.alarms.alarms());
        Self { store: Arc::clone(store), gate, alarms }
    }

    async fn pass(&self, key: &[u8]) -> Result<(), Failure> {
        let number = self.store.begun.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some((at, interrupt)) = &self.store.interrupt_at
            && *at == number
        {
            interrupt.store(true, Ordering::Relaxed);
        }
        assert_ne!(number, self.store.panic_at, "no luck");
        self.store.keys.lock().unwrap().push((key.to_vec(), thread::current().id()));
        let until_ns = self.alarms.now_ns() + PATIENCE_NS;
        let mut round = None;
        poll_fn(|cx| {
            let mut state = self.gate.state.lock().unwrap();
            let round = *round.get_or_insert_with(|| {
                state.in_flight += 1;
                state.begun += 1;
                state.in_flight_max = state.in_flight_max.max(state.in_flight);
                state.rounds
            });
            let is_open = state.begun > self.store.opens_after || self.alarms.now_ns() >= until_ns;
            if is_open || state.in_flight >= self.gate.depth {
                Gate::open(&mut state);
            }
            if state.rounds > round {
                state.in_flight -= 1;
                return Poll::Ready(());
            }
            state.waiting.push(cx.waker().clone());
            self.alarms.wake_at(until_ns, cx.waker());
            Poll::Pending
        })
        .await;
        if number >= self.store.fail_at {
            return Err(Failure::Other("full".to_owned()));
        }
        Ok(())
    }
}

impl AsyncHandle for NullHandle {
    type Bytes = Vec<u8>;

    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        self.pass(key).await.map(|()| None)
    }

    async fn put(&self, key: &[u8], _value: &[u8]) -> Result<(), Failure> {
        self.pass(key).await
    }

    async fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        self.pass(key).await
    }

    async fn delete_range(&self, from: &[u8], _end: &[u8]) -> Result<(), Failure> {
        self.pass(from).await
    }

    async fn multi_get(
        &self,
        keys: &[Vec<u8>],
        found: &mut Vec<Option<Vec<u8>>>,
    ) -> Result<(), Failure> {
        found.extend(keys.iter().map(|_| None));
        self.pass(&keys[0]).await
    }

    async fn scan(&self, from: &[u8], _limit: usize, _found: &mut Rows) -> Result<(), Failure> {
        self.pass(from).await
    }
}

fn owner_of(key: &[u8]) -> usize {
    usize::from(key[key.len() - 1]) % OWNERS
}

impl Asynchronous for Arc<NullStore> {
    fn owners(&self) -> usize {
        OWNERS
    }

    fn own_keys(&self, owner: usize) -> OwnKeys {
        OwnKeys::new(owner, move |key| owner_of(key) == owner)
    }

    fn start_task(&self, runtime: &tokio::runtime::Handle, client: AsyncClient) -> Running<'_> {
        spawn_task(runtime, client.run(NullHandle::new(self)))
    }

    /// A thread for each client stands for the owner's.
    fn start_on_owner(&self, owner: usize, client: AsyncClient) -> Running<'_> {
        let handle = NullHandle::new(self);
        let thread = thread::spawn(move || block_on(client.run(handle)));
        let mut thread = Some(thread);
        Box::pin(poll_fn(move |_| {
            // The watching thread comes again before long.
            match thread.take_if(|thread| thread.is_finished()) {
                None => Poll::Pending,
                Some(ended) => Poll::Ready(
                    ended.join().map_err(|_| Failure::Other(format!("owner {owner} panicked"))),
                ),
            }
        }))
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn store(depth: usize, opens_after: u64) -> NullStore {
    NullStore {
        depth,
        opens_after,
        begun: Default::default(),
        fail_at: u64::MAX,
        panic_at: u64::MAX,
        interrupt_at: None,
        gates: Mutex::default(),
        alarms: AlarmThread::start().unwrap(),
        keys: Mutex::default(),
    }
}

fn task(mix: Mix, inserts: Inserts, own: Option<OwnKeys>) -> Task {
    let chooser = RecordChooser::new(KeyChoice::Uniform, RECORDS, false, 1 << 40, 1).unwrap();
    Task {
        mix,
        chooser,
        presence: Presence::Never,
        inserts,
        seed: 1,
        own,
        trace: None,
        last_keys: Arc::default(),
    }
}

/// Clients of one kind, dealt out to the owners.
fn clients(
    store: &Arc<NullStore>,
    on_owners: bool,
    count: usize,
    client: impl Fn(usize, Option<OwnKeys>) -> (Task, Pace),
) -> Vec<(Task, Pace)> {
    let own = |number| on_owners.then(|| store.own_keys(number % OWNERS));
    (0..count).map(|number| client(number, own(number))).collect()
}

fn run_phase(
    store: &Arc<NullStore>,
    depth: usize,
    clients: Vec<(Task, Pace)>,
    duration: Option<Duration>,
    interrupt: &AtomicBool,
) -> Outcome {
    let data =
        Arc::new(Data::new(Shape::new(RECORDS, KeySizes::fixed(24), Sizes::Fixed(16), 1).unwrap()));
    let phase = Phase { clients, duration, interrupt, enough: &NEVER };
    run(store, depth, &data, phase, &mut |_: Progress| ()).unwrap()
}

/// A load of each kind: every record once, and each client with its depth in
/// flight, no more.
#[test]
fn a_load_ends_with_its_records_and_had_its_depth_in_flight() {
    for (on_owners, count, depth) in
        [(false, 1, 1), (false, 1, 16), (false, 4, 5), (true, 2, 1), (true, 2, 16), (true, 5, 4)]
    {
        // Towards its end a client has not enough left to fill the gate.
        let store = Arc::new(store(depth, RECORDS / 10));
        let strided = |number: usize, own: Option<OwnKeys>| {
            let places = if own.is_some() { OWNERS } else { 1 };
            let on_place = (count - number % places).div_ceil(places);
            let inserts = Inserts::strided((number / places) as u64, on_place as u64, RECORDS);
            (task(Mix::LOAD, inserts, own), Pace::Closed)
        };
        let clients = clients(&store, on_owners, count, strided);
        let outcome = run_phase(&store, depth, clients, None, &AtomicBool::new(false));
        assert_eq!(outcome.recorder.count(OpKind::Insert), RECORDS);
        assert_eq!(outcome.acknowledged, RECORDS);
        assert!(outcome.exhausted && !outcome.interrupted && outcome.failure.is_none());
        for gate in store.gates.lock().unwrap().iter() {
            let GateState { in_flight, in_flight_max, .. } = *gate.state.lock().unwrap();
            assert_eq!((in_flight, in_flight_max), (0, depth), "{on_owners} {count}");
        }
        let mut keys = store.keys.lock().unwrap();
        keys.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        keys.dedup_by(|(one, _), (other, _)| one == other);
        assert_eq!(keys.len() as u64, RECORDS, "some record was put twice");
    }
}

/// What runs on a thread of an owner's are the keys of that owner, in the
/// proportions of the distribution.
#[test]
fn owner_clients_keep_to_the_keys_of_their_owner() {
    let interrupt = Arc::new(AtomicBool::new(false));
    let store = NullStore { interrupt_at: Some((100_000, Arc::clone(&interrupt))), ..store(1, 0) };
    let store = Arc::new(store);
    let counter = Arc::new(RecordCounter::new(RECORDS, 1 << 40));
    let mix = BuiltIn::C.mix();
    let clients = clients(&store, true, 2, |number, own| {
        let chooser = RecordChooser::new(mix.choice(), RECORDS, false, 1 << 40, 7).unwrap();
        let inserts = Inserts::Shared(Arc::clone(&counter));
        let seed = number as u64;
        (Task { chooser, seed, ..task(mix, inserts, own) }, Pace::Closed)
    });
    let outcome = run_phase(&store, 1, clients, None, &interrupt);
    assert!(outcome.interrupted && outcome.faults.count == 0);
    let keys = store.keys.lock().unwrap();
    assert_eq!(keys.len() as u64, outcome.recorder.total());
    let mut threads = [None; OWNERS];
    let mut popular = [0; OWNERS];
    let mut counts = std::collections::BTreeMap::new();
    for (key, thread) in keys.iter() {
        let owner = owner_of(key);
        assert_eq!(*threads[owner].get_or_insert(*thread), *thread, "a key of another owner's");
        *counts.entry(key).or_insert(0_u64) += 1;
        popular[owner] += 1;
    }
    assert_ne!(threads[0], threads[1]);
    // The shares within each owner, as drawn by a client of another kind.
    let data = Data::new(Shape::new(RECORDS, KeySizes::fixed(24), Sizes::Fixed(16), 1).unwrap());
    let mut chooser = RecordChooser::new(mix.choice(), RECORDS, false, 1 << 40, 7).unwrap();
    let (mut rng, mut key) = (fastrand::Rng::with_seed(99), Vec::new());
    let (mut all, mut own) = (std::collections::BTreeMap::new(), [0_u64; OWNERS]);
    for _ in 0..400_000 {
        data.keys.write(chooser.sample(&mut rng, RECORDS), &mut key);
        own[owner_of(&key)] += 1;
        *all.entry(key.clone()).or_insert(0_u64) += 1;
    }
    for (key, drawn) in all.iter().filter(|(_, drawn)| **drawn > 4_000) {
        let owner = owner_of(key);
        let expected = *drawn as f64 / own[owner] as f64;
        let found = counts[key] as f64 / f64::from(popular[owner]);
        assert!((found / expected - 1.0).abs() < 0.15, "{found} {expected}");
    }
}

/// Clients that share 200 operations a second for half a second, and read
/// records that the store does not have.
#[test]
fn the_open_loop_sends_what_is_due_and_faults_are_added_up() {
    for on_owners in [false, true] {
        let store = Arc::new(store(1, 0));
        let counter = Arc::new(RecordCounter::new(RECORDS, 1 << 40));
        let clients = clients(&store, on_owners, 2, |client, own| {
            let pace = Pace::evenly(200, client as u64, 2);
            let inserts = Inserts::Shared(Arc::clone(&counter));
            let task = task(BuiltIn::GetUniform.mix(), inserts, own);
            (Task { presence: Presence::Always, ..task }, pace)
        });
        let duration = Some(Duration::from_millis(500));
        let outcome = run_phase(&store, 4, clients, duration, &AtomicBool::new(false));
        let sent = outcome.recorder.count(OpKind::Read);
        assert_eq!(sent + outcome.unsent, 100);
        assert_eq!(outcome.faults.count, sent);
        assert!(outcome.elapsed >= Duration::from_millis(500));
    }
}

#[test]
fn a_failed_write_ends_the_phase_and_what_came_before_is_kept() {
    for on_owners in [false, true] {
        let store = Arc::new(NullStore { fail_at: 601, ..store(1, 0) });
        let clients = clients(&store, on_owners, 2, |number, own| {
            let (first, step) = if on_owners { (0, 1) } else { (number as u64, 2) };
            (task(Mix::LOAD, Inserts::strided(first, step, RECORDS), own), Pace::Closed)
        });
        let hour = Duration::from_secs(3600);
        let outcome = run_phase(&store, 8, clients, Some(hour), &AtomicBool::new(false));
        assert!(outcome.elapsed > Duration::ZERO && outcome.elapsed < hour, "{outcome:?}");
        assert_eq!(outcome.failure.unwrap().to_string(), "full");
        assert_eq!(outcome.recorder.total(), 600);
        assert!(outcome.acknowledged <= 610, "{}", outcome.acknowledged);
    }
}

#[test]
fn an_interrupt_ends_the_phase() {
    for on_owners in [false, true] {
        let interrupt = Arc::new(AtomicBool::new(false));
        let interrupt_at = Some((50, Arc::clone(&interrupt)));
        let store = Arc::new(NullStore { interrupt_at, ..store(4, 50) });
        let counter = Arc::new(RecordCounter::new(RECORDS, 1 << 40));
        let clients = clients(&store, on_owners, 1, |_, own| {
            (task(BuiltIn::Update.mix(), Inserts::Shared(Arc::clone(&counter)), own), Pace::Closed)
        });
        let outcome = run_phase(&store, 4, clients, None, &interrupt);
        assert!(outcome.interrupted && !outcome.exhausted);
        assert!(outcome.recorder.total() >= 50);
        assert_eq!(outcome.acknowledged, RECORDS);
    }
}

/// A client on an owner that panics is a failure, and the others end; nothing
/// counts as inserted that may not be.
#[test]
fn a_client_that_is_lost_ends_the_phase() {
    let store = Arc::new(NullStore { panic_at: 500, ..store(1, 0) });
    let counter = Arc::new(RecordCounter::new(RECORDS, 1 << 40));
    let clients = clients(&store, true, 2, |number, own| {
        let inserts = match number {
            0 => Inserts::strided(3, 1, 1 << 30),
            _ => Inserts::Shared(Arc::clone(&counter)),
        };
        (task(Mix::LOAD, inserts, own), Pace::Closed)
    });
    let hour = Duration::from_secs(3600);
    let outcome = run_phase(&store, 2, clients, Some(hour), &AtomicBool::new(false));
    assert!(outcome.elapsed > Duration::ZERO && outcome.elapsed < hour, "{outcome:?}");
    assert!(outcome.failure.unwrap().to_string().contains("panicked"));
    assert_eq!(outcome.acknowledged, 3);
}

#[test]
#[should_panic(expected = "no luck")]
fn a_task_that_panics_ends_the_program() {
    let store = Arc::new(NullStore { panic_at: 500, ..store(1, 0) });
    let clients = clients(&store, false, 2, |number, own| {
        (task(Mix::LOAD, Inserts::strided(number as u64, 2, 1 << 30), own), Pace::Closed)
    });
    let _never = run_phase(&store, 2, clients, None, &AtomicBool::new(false));
}

#[test]
fn an_owner_without_keys_is_refused() {
    let store = Arc::new(store(1, 0));
    let counter = Arc::new(RecordCounter::new(1, 1 << 40));
    let data =
        Arc::new(Data::new(Shape::new(1, KeySizes::fixed(24), Sizes::Fixed(16), 1).unwrap()));
    let clients = clients(&store, true, 2, |_, own| {
        let chooser = RecordChooser::Uniform { records: 1 };
        let inserts = Inserts::Shared(Arc::clone(&counter));
        (Task { chooser, ..task(BuiltIn::C.mix(), inserts, own) }, Pace::Closed)
    });
    let interrupt = AtomicBool::new(false);
    let duration = Some(Duration::from_millis(1));
    let phase = Phase { clients, duration, interrupt: &interrupt, enough: &NEVER };
    let refused = run(&store, 1, &data, phase, &mut |_: Progress| ()).unwrap_err();
    assert!(refused.to_string().contains("belongs to owner"), "{refused}");
    assert_eq!(refused.exit_code(), 2);
}
