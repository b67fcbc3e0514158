//! `ouro-bench` without a command: a first look at the engine, within a minute.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::cli::{
    ClientKind, CommonArgs, Io, KEY_BYTES, LoadArgs, OutputArgs, RunArgs, VALUE_BYTES,
};
use crate::commands;
use crate::directory::{Contents, PAGE, check_space, look};
use crate::engine::OuroDb;
use crate::failure::Failure;
use crate::keys::KeySizes;
use crate::output::Output;
use crate::session;
use crate::shape::Shape;
use crate::sizes::Sizes;
use crate::table::grouped;
use crate::values::COMPRESSIBLE;
use crate::workload::{BuiltIn, Workload};
use ourodb::{Compression, Durability};

/// How big the first look is.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the data goes.
    pub dir: PathBuf,
    /// How many records to load.
    pub records: u64,
    /// How long that may take: a slow disk gets fewer records.
    pub load: Duration,
    /// How long to run the workload.
    pub run: Duration,
    /// Clients of both.
    pub clients: usize,
    /// How the engine's owners do I/O.
    pub io: Io,
}

impl Plan {
    /// Ends within a minute, with some seconds to spare for settling.
    #[must_use]
    pub fn new(io: Io) -> Self {
        Self {
            dir: PathBuf::from("./ouro-bench-data"),
            records: 1_000_000,
            load: Duration::from_secs(38),
            run: Duration::from_secs(10),
            clients: 1,
            io,
        }
    }
}

/// As many of the records as the disk has room for, by halves, and for as much again that the
/// workload writes.
fn fitting(plan: &Plan, memory: u64) -> Result<u64, Failure> {
    let mut records = plan.records;
    loop {
        let (keys, values) = (KeySizes::fixed(KEY_BYTES), Sizes::Fixed(VALUE_BYTES));
        let shape = Shape::new(2 * records, keys, values, 0).map_err(Failure::Usage)?;
        match check_space::<OuroDb>(&plan.dir, &shape, memory) {
            Err(_) if records / 2 >= RECORDS_MIN => records /= 2,
            checked => return checked.map(|()| records),
        }
    }
}

/// With fewer there is nothing to see.
const RECORDS_MIN: u64 = 10_000;

/// Loads, runs YCSB B, and says what it does.
pub fn run(plan: &Plan, interrupt: &AtomicBool) -> Result<(), Failure> {
    let output = Output::new(&OutputArgs::default())?;
    let common = CommonArgs {
        dir: plan.dir.clone(),
        clients: plan.clients,
        client_kind: ClientKind::Thread,
        depth: 1,
        owners: None,
        spin: None,
        requests_max: None,
        memory: 256 << 20,
        durability: Durability::ProcessSafe,
        io: plan.io,
        lock_wait: Duration::from_secs(10),
        device: None,
        output: OutputArgs::default(),
        seed: 1,
    };
    let dir = plan.dir.display();
    let replacing = match look::<OuroDb>(&plan.dir)? {
        Contents::Ours(..) => " in place of an earlier load",
        Contents::Nothing | Contents::Foreign(_) => "",
    };
    let fitting = fitting(plan, common.memory)?;
    let records = grouped(fitting);
    let clients = if plan.clients == 1 { "one client" } else { "several clients" };
    output.say(&format!(
        "OuroDB: loading {records} records into {dir}{replacing}.\nKeys of 24 bytes, values of \
         400 (half of them random), {clients}.\nWhat is acknowledged survives the death of the \
         process, and after a second\na power failure.\n\n"
    ))?;
    if fitting < plan.records {
        let wanted = grouped(plan.records);
        output.say(&format!("There is no room on the disk for {wanted} records.\n\n"))?;
    }
    let load = LoadArgs {
        records: fitting,
        key_bytes: KeySizes::fixed(KEY_BYTES),
        value_bytes: Sizes::Fixed(VALUE_BYTES),
        compressible: COMPRESSIBLE,
        overwrite: true,
        shards: None,
        compression: Compression::None,
        common: common.clone(),
    };
    let loaded = commands::load::<OuroDb>(&load, &(), Some(plan.load), interrupt)?;
    if loaded.partial {
        output.say(&format!(
            "\nThat was all this disk could take in {:.0} s: {} records. Going on with those.\n",
            plan.load.as_secs_f64(),
            grouped(loaded.result.records)
        ))?;
    }
    let workload = Workload::from(BuiltIn::B);
    output.say(&format!(
        "\nNow {} for {:.0} s, {clients};\nevery value read is checked.\n\n",
        workload.description,
        plan.run.as_secs_f64()
    ))?;
    let page = plan.dir.join(PAGE);
    let with_page = OutputArgs { html: Some(page.clone()), ..OutputArgs::default() };
    let common = CommonArgs { output: with_page, ..common };
    let args = RunArgs::new(workload, plan.run, common);
    if let Err(failure) = session::run::<OuroDb>(&args, &(), interrupt) {
        if std::fs::metadata(&page).is_ok_and(|page| page.len() > 0) {
            output.say(&format!("\nWhat was measured until then: {}\n", page.display()))?;
        }
        return Err(failure);
    }
    let program = std::env::args().next().unwrap_or_else(|| "ouro-bench".to_owned());
    let io = match plan.io {
        Io::Ring => "",
        Io::Blocking => " --io blocking",
    };
    output.say(&format!(
        "\nThe data stays in {dir}. To go on with it:\n  {program} run --dir {dir} --workload \
         get-uniform --clients 8{io}\nAll there is: {program} --help\n\nThe result with charts, for a \
         browser: {}\n",
        page.display()
    ))
}
