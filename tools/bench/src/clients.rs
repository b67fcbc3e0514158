//! The clients of a command: how many, of which kind, what each does, and where.

use std::sync::Arc;
use std::time::Duration;

use crate::asynchronous::Asynchronous;
use crate::cli::{ClientKind, CommonArgs, RunArgs, Speed};
use crate::crowd;
use crate::distribution::{KeyChoice, RecordChooser};
use crate::failure::Failure;
use crate::inserts::{Inserts, RecordCounter};
use crate::pacing::Pace;
use crate::permutation::mix64;
use crate::runner::{self, Outcome, Phase, Watch};
use crate::schedule::Schedule;
use crate::script::{OwnKeys, Presence, Task};
use crate::shape::{Data, Shape};
use crate::target::Target;
use crate::trace::Part;
use crate::workload::{Mix, OpKind};

/// Operations in flight of all clients together: each has its buffers.
const IN_FLIGHT_MAX: usize = 1 << 16;
/// Requests at an owner, unless `--requests-max` says otherwise: the engine's
/// default.
const REQUESTS_MAX: usize = 1024;

/// Refuses what cannot be, before anything is touched.
pub fn check<T: Target>(common: &CommonArgs) -> Result<(), Failure> {
    let CommonArgs { client_kind, clients, depth, .. } = *common;
    let refused = match client_kind {
        ClientKind::Thread if depth > 1 => format!(
            "--depth {depth}: a thread waits for each of its operations and has 1 in flight; use \
             --client-kind task or owner"
        ),
        ClientKind::Task | ClientKind::Owner if T::ASYNCHRONOUS.is_none() => format!(
            "--client-kind {}: {} has no operations to await; its clients are threads",
            client_kind.name(),
            T::NAME
        ),
        _ if clients * depth > IN_FLIGHT_MAX => {
            format!("--clients times --depth must be at most {IN_FLIGHT_MAX}")
        }
        _ => return Ok(()),
    };
    Err(Failure::Usage(refused))
}

/// The places that clients are dealt out to: the owners, or one for all.
pub struct Places(Vec<Option<OwnKeys>>);

impl Places {
    /// Those of an open database.
    pub fn new<T: Target>(target: &T, common: &CommonArgs) -> Result<Self, Failure> {
        let Some(target) = asynchronous(target).filter(|_| common.client_kind == ClientKind::Owner)
        else {
            return Ok(Self(vec![None]));
        };
        let owners = target.owners();
        let on_each = common.clients.div_ceil(owners) + 1;
        let requests_max = common.requests_max.unwrap_or(REQUESTS_MAX);
        if 2 * on_each > requests_max {
            return Err(Failure::Usage(format!(
                "{} clients on {owners} owners: each takes one of the {requests_max} requests of \
                 its owner for itself, and half of them must be left; use fewer --clients or a \
                 higher --requests-max",
                common.clients
            )));
        }
        Ok(Self((0..owners).map(|owner| Some(target.own_keys(owner))).collect()))
    }

    /// The clients of a load: one in each place at least, so that every record
    /// is somebody's.
    #[must_use]
    pub fn load(&self, common: &CommonArgs, shape: &Shape) -> Vec<(Task, Pace)> {
        let places = self.0.len();
        let clients = common.clients.max(places);
        let client = |number: usize| {
            let place = number % places;
            let on_place = (clients - place).div_ceil(places);
            let inserts =
                Inserts::strided((number / places) as u64, on_place as u64, shape.records);
            let task = Task {
                mix: Mix::LOAD,
                chooser: RecordChooser::Uniform { records: shape.records },
                presence: Presence::Always,
                inserts,
                seed: client_seed(common.seed, number),
                own: self.0[place].clone(),
                trace: None,
                last_keys: Arc::default(),
            };
            (task, Pace::Closed)
        };
        (0..clients).map(client).collect()
    }

    /// Counters of records for a run, one for each place.
    #[must_use]
    pub fn counters(&self, data: &Data) -> Vec<Arc<RecordCounter>> {
        let counter = || Arc::new(RecordCounter::new(data.shape.records, data.keys.capacity()));
        self.0.iter().map(|_| counter()).collect()
    }

    /// The clients of a workload that lasts so long, those in the background last.
    /// Their choices follow from `seed`.
    pub fn run(
        &self,
        args: &RunArgs,
        seed: u64,
        data: &Data,
        counters: &[Arc<RecordCounter>],
        duration: Duration,
    ) -> Result<Vec<(Task, Pace)>, Failure> {
        let (clients, places) = (args.common.clients, self.0.len());
        let workload = args.chosen_workload();
        let Shape { records, seed: data_seed, has_gaps, .. } = data.shape;
        let deletes = has_gaps || workload.trace.is_some() || workload.has(OpKind::deletes);
        let scans = |kind| kind == OpKind::Scan;
        let last_keys: Arc<[Vec<u8>]> = match !deletes && workload.has(scans) {
            true => data.last_keys(workload.scan_rows_max()).into(),
            false => Arc::default(),
        };
        let part = |number: usize| {
            let place = number % places;
            let on_place = (clients - place).div_ceil(places);
            let of = ((number / places) as u64, on_place as u64);
            let keeps_to = |key: &[u8]| self.0[place].as_ref().is_none_or(|own| own.contains(key));
            workload.trace.as_ref().map(|trace| Part::new(trace, of, keeps_to))
        };
        let task = |mix: Mix, number: usize, place: usize| {
            let capacity = data.keys.capacity();
            let inserts = mix.kinds().any(|kind| kind == OpKind::Insert);
            let chooser = RecordChooser::new(mix.choice(), records, inserts, capacity, data_seed);
            let chooser = chooser.ok_or_else(|| {
                Failure::Usage(format!(
                    "there are no absent keys: all {records} keys of {} bytes are taken",
                    data.shape.key_bytes
                ))
            })?;
            Ok(Task {
                mix,
                chooser,
                presence: match mix.choice() {
                    KeyChoice::Absent => Presence::Never,
                    _ if deletes => Presence::Maybe,
                    _ => Presence::Always,
                },
                inserts: Inserts::Shared(Arc::clone(&counters[place])),
                seed: client_seed(seed, number),
                own: self.0[place].clone(),
                trace: None,
                last_keys: Arc::clone(&last_keys),
            })
        };
        let pace = |client: usize| match &args.rate {
            Some(rate) => {
                let of = (client as u64, clients as u64);
                let seed = mix64(client_seed(seed, client));
                Pace::Open(Schedule::new(rate, args.arrivals, duration, of, seed))
            }
            None => Pace::Closed,
        };
        let foreground = (0..clients).map(|number| {
            let task = Task { trace: part(number), ..task(workload.mix, number, number % places)? };
            let pace = match (&task.trace, args.speed) {
                (Some(part), Speed::Times(speed)) => {
                    Pace::Open(Schedule::given(part.dues_ns(speed)))
                }
                _ => pace(number),
            };
            Ok((task, pace))
        });
        let background = workload.background.into_iter().flat_map(|mix| {
            let task = &task;
            (0..places).map(move |place| Ok((task(mix, clients + place, place)?, Pace::Closed)))
        });
        foreground.chain(background).collect()
    }
}

/// Runs a phase with the kind of clients that was asked for.
pub fn run_phase<T: Target>(
    target: &T,
    common: &CommonArgs,
    data: &Arc<Data>,
    phase: Phase<'_>,
    watch: &mut impl Watch,
) -> Result<Outcome, Failure> {
    match asynchronous(target) {
        Some(target) if common.client_kind != ClientKind::Thread => {
            crowd::run(target, common.depth, data, phase, watch)
        }
        _ => runner::run(|| target.handle(), data, phase, watch)
            .map_err(Failure::no_threads("the clients")),
    }
}

fn asynchronous<T: Target>(target: &T) -> Option<&dyn Asynchronous> {
    T::ASYNCHRONOUS.map(|face| face(target))
}

/// Neighbouring seeds and clients get unrelated random numbers.
fn client_seed(seed: u64, client: usize) -> u64 {
    mix64(mix64(seed) ^ client as u64)
}
