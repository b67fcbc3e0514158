//! Whole phases with real threads, on stores that do nothing or fail.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::distribution::{KeyChoice, RecordChooser};
use crate::inserts::RecordCounter;
use crate::keys::KeySizes;
use crate::script::Presence;
use crate::shape::Shape;
use crate::sizes::Sizes;
use crate::target::Rows;
use crate::workload::{BuiltIn, Mix, OpKind};

/// Has no value for any key; writes fail from the `fail_at`-th on.
struct NullStore {
    puts: AtomicU64,
    fail_at: u64,
    /// Set once this many puts were made.
    signal: Option<(u64, Arc<AtomicBool>)>,
}

impl NullStore {
    fn new(fail_at: u64) -> Self {
        Self { puts: AtomicU64::new(0), fail_at, signal: None }
    }
}

impl Handle for &NullStore {
    type Bytes = &'static [u8];

    fn get(&mut self, _key: &[u8]) -> Result<Option<&'static [u8]>, Failure> {
        Ok(None)
    }

    fn put(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), Failure> {
        let puts = self.puts.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some((at, flag)) = &self.signal
            && *at == puts
        {
            flag.store(true, Ordering::Relaxed);
        }
        if puts >= self.fail_at { Err(Failure::Other("full".to_owned())) } else { Ok(()) }
    }

    fn delete(&mut self, _key: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn scan(&mut self, _from: &[u8], _rows: usize, _found: &mut Rows) -> Result<(), Failure> {
        Ok(())
    }
}

const RECORDS: u64 = 1000;

fn data() -> Arc<Data> {
    Arc::new(Data::new(Shape::new(RECORDS, KeySizes::fixed(24), Sizes::Fixed(16), 1).unwrap()))
}

fn task(mix: Mix, inserts: Inserts) -> Task {
    let chooser = RecordChooser::new(KeyChoice::Uniform, RECORDS, false, 1 << 40, 1).unwrap();
    Task {
        mix,
        chooser,
        presence: Presence::Always,
        inserts,
        seed: 1,
        own: None,
        trace: None,
        last_keys: Arc::default(),
    }
}

fn loaders(clients: u64) -> Vec<(Task, Pace)> {
    (0..clients)
        .map(|client| (task(Mix::LOAD, Inserts::strided(client, clients, RECORDS)), Pace::Closed))
        .collect()
}

#[test]
fn a_load_ends_with_its_records() {
    let (store, interrupt) = (NullStore::new(u64::MAX), AtomicBool::new(false));
    let phase =
        Phase { clients: loaders(3), duration: None, interrupt: &interrupt, enough: &NEVER };
    let mut last = 0;
    let outcome =
        run(|| &store, &data(), phase, &mut |progress: Progress| last = progress.ops).unwrap();
    assert_eq!(outcome.recorder.count(OpKind::Insert), RECORDS);
    assert_eq!(outcome.acknowledged, RECORDS);
    assert!(outcome.exhausted && !outcome.interrupted && outcome.failure.is_none());
    assert!(outcome.elapsed > Duration::ZERO);
    assert_eq!(store.puts.into_inner(), RECORDS);
    assert!(last <= RECORDS);
}

#[test]
fn a_failed_write_ends_the_phase_and_what_came_before_is_kept() {
    let (store, interrupt) = (NullStore::new(601), AtomicBool::new(false));
    let phase =
        Phase { clients: loaders(3), duration: None, interrupt: &interrupt, enough: &NEVER };
    let outcome = run(|| &store, &data(), phase, &mut |_: Progress| ()).unwrap();
    assert_eq!(outcome.failure.unwrap().to_string(), "full");
    assert_eq!(outcome.recorder.total(), 600);
    // The slowest of three clients may be far behind, never ahead of the rest.
    assert!(outcome.acknowledged <= 602, "{}", outcome.acknowledged);
    assert!(outcome.elapsed > Duration::ZERO);
}

/// What came before the failure took as long as it took: not the whole of the phase, and where
/// no other client is left, not nothing.
#[test]
fn a_failed_write_ends_the_time_of_the_phase() {
    for pace in [Pace::Closed, Pace::evenly(1_000_000, 0, 1)] {
        let (store, interrupt) = (NullStore::new(50), AtomicBool::new(false));
        let counter = Arc::new(RecordCounter::new(RECORDS, 1 << 40));
        let clients = vec![(task(BuiltIn::Update.mix(), Inserts::Shared(counter)), pace)];
        let duration = Duration::from_secs(3600);
        let phase =
            Phase { clients, duration: Some(duration), interrupt: &interrupt, enough: &NEVER };
        let outcome = run(|| &store, &data(), phase, &mut |_: Progress| ()).unwrap();
        assert!(outcome.failure.is_some() && outcome.recorder.total() == 49);
        assert!(outcome.elapsed > Duration::ZERO && outcome.elapsed < duration, "{outcome:?}");
    }
}

/// What a client in the background still has to do is no backlog of the others, and its rate is
/// that of its own time.
#[test]
fn clients_in_the_background_have_their_own_time() {
    let report = |is_paced, ended_ns| ClientReport {
        finish: Ok(Finish { at_ns: ended_ns, unsent: 0, exhausted: false }),
        is_paced,
        ended_ns,
        faults: Faults::default(),
        inserts: Inserts::strided(0, 1, RECORDS),
        put_bytes: 0,
    };
    let add_up = |ended_ns: [u64; 2], duration_ns| {
        let [paced, unpaced] = ended_ns;
        let reports = vec![report(true, paced), report(false, unpaced)];
        let outcome = add_up(reports, Recorder::empty(), 100, duration_ns, false);
        let Outcome { elapsed, elapsed_paced, elapsed_unpaced, .. } = outcome;
        [elapsed, elapsed_paced, elapsed_unpaced].map(|elapsed| elapsed.as_nanos())
    };
    assert_eq!(add_up([900, 5100], Some(1000)), [5000, 1000, 5000]);
    assert_eq!(add_up([5100, 1200], Some(1000)), [5000, 5000, 1100]);
    assert_eq!(add_up([900, 600], None), [800, 800, 500]);
}

/// Two clients without end, one of which panics.
#[test]
#[should_panic(expected = "acknowledged twice")]
fn a_panic_ends_the_phase() {
    let (store, interrupt) = (NullStore::new(u64::MAX), AtomicBool::new(false));
    let counter = Arc::new(RecordCounter::new(RECORDS, 1 << 40));
    let spoilt = Arc::new(RecordCounter::new(RECORDS, 1 << 40));
    spoilt.acknowledge(RECORDS);
    let clients = vec![
        (task(BuiltIn::Update.mix(), Inserts::Shared(Arc::clone(&counter))), Pace::Closed),
        (task(Mix::LOAD, Inserts::Shared(spoilt)), Pace::Closed),
    ];
    let phase = Phase { clients, duration: None, interrupt: &interrupt, enough: &NEVER };
    let _never = run(|| &store, &data(), phase, &mut |_: Progress| ());
}

/// Clients end while others still insert: all inserts count in the end.
#[test]
fn inserts_of_the_last_client_to_end_count() {
    let (store, interrupt) = (NullStore::new(u64::MAX), AtomicBool::new(false));
    for _ in 0..20 {
        let counter = Arc::new(RecordCounter::new(RECORDS, 2 * RECORDS));
        let client = |_| (task(Mix::LOAD, Inserts::Shared(Arc::clone(&counter))), Pace::Closed);
        let clients = (0..4).map(client).collect();
        let phase = Phase { clients, duration: None, interrupt: &interrupt, enough: &NEVER };
        let outcome = run(|| &store, &data(), phase, &mut |_: Progress| ()).unwrap();
        assert_eq!(outcome.acknowledged, 2 * RECORDS);
    }
}

#[test]
fn an_interrupt_ends_the_phase() {
    let interrupt = Arc::new(AtomicBool::new(false));
    let signal = Some((50, Arc::clone(&interrupt)));
    let store = NullStore { signal, ..NullStore::new(u64::MAX) };
    let update = BuiltIn::Update.mix();
    let counter = Arc::new(RecordCounter::new(RECORDS, 1 << 40));
    let clients = vec![(task(update, Inserts::Shared(Arc::clone(&counter))), Pace::Closed)];
    let phase = Phase { clients, duration: None, interrupt: &interrupt, enough: &NEVER };
    let outcome = run(|| &store, &data(), phase, &mut |_: Progress| ()).unwrap();
    assert!(outcome.interrupted && !outcome.exhausted);
    assert!(outcome.recorder.total() >= 50);
    assert_eq!(outcome.acknowledged, RECORDS);
}

/// Two clients that share 200 operations a second for half a second, and read
/// records that the store does not have.
#[test]
fn the_open_loop_sends_what_is_due_and_faults_are_added_up() {
    let (store, interrupt) = (NullStore::new(u64::MAX), AtomicBool::new(false));
    let counter = Arc::new(RecordCounter::new(RECORDS, 1 << 40));
    let clients = (0..2)
        .map(|client| {
            let pace = Pace::evenly(200, client, 2);
            (task(BuiltIn::GetUniform.mix(), Inserts::Shared(Arc::clone(&counter))), pace)
        })
        .collect();
    let duration = Some(Duration::from_millis(500));
    let phase = Phase { clients, duration, interrupt: &interrupt, enough: &NEVER };
    let outcome = run(|| &store, &data(), phase, &mut |_: Progress| ()).unwrap();
    let sent = outcome.recorder.count(OpKind::Read);
    assert_eq!(sent + outcome.unsent, 100);
    assert_eq!(outcome.faults.count, sent);
    assert!(outcome.elapsed >= Duration::from_millis(500));
}
