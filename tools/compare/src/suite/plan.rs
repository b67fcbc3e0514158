//! What is measured, and what each figure is to come to.
//!
//! Groups are measured one after the other. In each round of a group the steps
//! follow one another, and in each step the contestants: what is compared was
//! measured within minutes. The steps of a group go on with the data that its
//! first step loaded; of YCSB that is A, B, C, F, D and E, one after the other.

use ouro_bench::cli::{ClientKind, KEY_BYTES, VALUE_BYTES};

use super::contestant::Contestant;

/// Bytes of keys and values of a record.
pub const RECORD_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;

/// What is done in a step; for how long, the command line says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Load the data of the group.
    Load {
        /// Clients that do.
        clients: usize,
        /// Engines that commit each row by itself put many into one commit here.
        batches: bool,
    },
    /// Run a workload.
    Run {
        /// By its name.
        workload: &'static str,
        /// How many clients.
        clients: usize,
        /// Which ones.
        kind: ClientKind,
        /// Operations each has in flight.
        depth: usize,
        /// Operations due a second; as fast as can be without.
        rate: Option<u32>,
        /// On few records, loaded right before, each write durable.
        durable: bool,
    },
    /// Random reads of 4 KiB by fio: the disk without an engine.
    Fio {
        /// Its I/O engine.
        ioengine: &'static str,
        /// Threads, each with one read at a time.
        jobs: usize,
        /// Reads in flight of one thread.
        depth: usize,
    },
    /// Build what depends on the engine and on nothing else, from nothing.
    Build,
}

/// One measurement, of all contestants that it is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Unique among all steps.
    pub name: &'static str,
    /// What is done.
    pub action: Action,
    /// It is OuroDB's alone: what others do not have.
    pub is_ours: bool,
}

/// Steps that go on with the same data.
#[derive(Debug, PartialEq)]
pub struct Group {
    /// As `--groups` has it.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Records of the data.
    pub records: u64,
    /// The memory budget of each engine.
    pub memory_mib: u64,
    /// What a memory cgroup lets each process have, with the page cache.
    pub limit_mib: Option<u64>,
    /// In their order.
    pub steps: Vec<Step>,
}

impl Group {
    /// Whether `contestant` has a turn in `step`.
    #[must_use]
    pub fn has(&self, step: &Step, contestant: Contestant) -> bool {
        match contestant {
            Contestant::Fio => matches!(step.action, Action::Fio { .. }),
            _ if matches!(step.action, Action::Fio { .. }) => false,
            Contestant::OuroDb => true,
            _ if step.is_ours => false,
            // Where all fits the cache, both are one.
            Contestant::RocksDbDirect => self.limit_mib.is_some(),
            _ => true,
        }
    }
}

/// What of a measurement a row shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Operations a second.
    OpsPerS,
    /// CPU time of the process for each operation.
    CpuNsPerOp,
    /// Mean latency.
    MeanNs,
    /// Latency of all but one of a thousand operations: of reads, if there are any.
    P999Ns,
    /// Writes a second beside reads.
    WritesPerS,
    /// Bytes written to the device for each byte put.
    BytesWrittenPerByte,
    /// Bytes on the disk for each byte of live data.
    BytesOnDiskPerByte,
    /// Device writes for each group of the log.
    WritesPerGroup,
    /// Flushes of the device for each group of the log.
    FlushesPerGroup,
    /// How long it took.
    Seconds,
}

/// What a figure of OuroDB is to come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// So many times the figure of the best LSM tree.
    TimesBest(f64),
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
    /// At least this share of what fio does in the step of that name.
    ShareOfDisk(f64, &'static str),
    /// At most so many times what fio takes in the step of that name.
    TimesDisk(f64, &'static str),
    /// At most so much more than fio takes in the step of that name.
    DiskPlus(f64, &'static str),
}

/// A row of the report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The work, in words.
    pub title: &'static str,
    /// The step it shows.
    pub step: &'static str,
    /// The step whose peers OuroDB is judged by, if that is another.
    pub peers: &'static str,
    /// What of it.
    pub figure: Figure,
    /// What that is to come to.
    pub goal: Goal,
}

const fn load(name: &'static str, clients: usize, batches: bool) -> Step {
    Step { name, action: Action::Load { clients, batches }, is_ours: false }
}

const fn run(name: &'static str, workload: &'static str, clients: usize) -> Step {
    let (kind, depth) = (ClientKind::Thread, 1);
    let action = Action::Run { workload, clients, kind, depth, rate: None, durable: false };
    Step { name, action, is_ours: false }
}

const fn ours(
    name: &'static str,
    workload: &'static str,
    kind: ClientKind,
    clients: usize,
    depth: usize,
) -> Step {
    let action = Action::Run { workload, clients, kind, depth, rate: None, durable: false };
    Step { name, action, is_ours: true }
}

const fn durable(name: &'static str, clients: usize) -> Step {
    let (workload, kind, depth) = ("insert-only", ClientKind::Thread, 1);
    let action = Action::Run { workload, clients, kind, depth, rate: None, durable: true };
    Step { name, action, is_ours: false }
}

const fn fio(name: &'static str, ioengine: &'static str, jobs: usize, depth: usize) -> Step {
    Step { name, action: Action::Fio { ioengine, jobs, depth }, is_ours: false }
}

/// A load that is there for the steps behind it.
const FILL: &str = "fill";

/// Everything that can be measured.
#[must_use]
pub fn groups() -> Vec<Group> {
    let open_reads = Action::Run {
        workload: "read-while-writing",
        clients: 8,
        kind: ClientKind::Thread,
        depth: 1,
        rate: Some(4000),
        durable: false,
    };
    vec![
        Group {
            name: "cached",
            about: "1 M records, all in the cache",
            records: 1_000_000,
            // OuroDB's cache is a quarter of its budget, which memtables and filters are
            // part of.
            memory_mib: 2048,
            limit_mib: None,
            steps: vec![
                load(FILL, 1, true),
                run("zipfian 1", "get-zipfian", 1),
                ours("zipfian owner", "get-zipfian", ClientKind::Owner, 1, 1),
                run("zipfian 2", "get-zipfian", 2),
                run("zipfian 8", "get-zipfian", 8),
                run("zipfian 64", "get-zipfian", 64),
                run("absent", "get-absent", 1),
                run("scan", "scan", 1),
                run("a 2", "a", 2),
                run("a 8", "a", 8),
                run("a 64", "a", 64),
            ],
        },
        Group {
            name: "loads",
            about: "1 M records, loaded",
            records: 1_000_000,
            memory_mib: 1024,
            limit_mib: None,
            steps: vec![
                load("load 1", 1, false),
                load("load 2", 2, false),
                load("load 8", 8, false),
                load("load 64", 64, false),
            ],
        },
        Group {
            name: "beyond",
            about: "4 M records (1.7 GB), 512 MiB of memory with the page cache",
            records: 4_000_000,
            memory_mib: 432,
            limit_mib: Some(512),
            steps: vec![
                load("load beyond", 1, true),
                run("uniform 1", "get-uniform", 1),
                fio("fio psync 1", "psync", 1, 1),
                run("uniform 16", "get-uniform", 16),
                fio("fio psync 16", "psync", 16, 1),
                run("uniform 64", "get-uniform", 64),
                fio("fio psync 64", "psync", 64, 1),
                ours("uniform task 16", "get-uniform", ClientKind::Task, 2, 8),
                ours("uniform owner 16", "get-uniform", ClientKind::Owner, 2, 8),
                fio("fio ring 16", "io_uring", 1, 16),
                ours("uniform task 64", "get-uniform", ClientKind::Task, 2, 32),
                ours("uniform owner 64", "get-uniform", ClientKind::Owner, 2, 32),
                fio("fio ring 64", "io_uring", 1, 64),
                Step { name: "reads at 4000/s", action: open_reads, is_ours: false },
                run("beyond a", "a", 8),
                run("beyond b", "b", 8),
                run("beyond c", "c", 8),
                run("beyond f", "f", 8),
                run("beyond d", "d", 8),
                run("beyond e", "e", 8),
            ],
        },
        Group {
            name: "durable",
            about: "each write durable",
            records: 1000,
            memory_mib: 256,
            limit_mib: None,
            steps: vec![
                durable("durable 1", 1),
                durable("durable 16", 16),
                durable("durable 64", 64),
            ],
        },
        Group {
            name: "build",
            about: "a clean build of what depends on the engine alone, unoptimized",
            records: 0,
            memory_mib: 0,
            limit_mib: None,
            steps: vec![Step { name: "build", action: Action::Build, is_ours: false }],
        },
    ]
}

/// Whether rows are put into batches in this step.
#[must_use]
pub fn is_batched(step: &str) -> bool {
    let is_it =
        |of: &Step| of.name == step && matches!(of.action, Action::Load { batches: true, .. });
    groups().iter().flat_map(|group| &group.steps).any(is_it)
}

/// The report's rows.
pub const ROWS: &[Row] = {
    use Figure::*;
    use Goal::*;
    const fn row(title: &'static str, step: &'static str, figure: Figure, goal: Goal) -> Row {
        Row { title, step, peers: step, figure, goal }
    }
    &[
        row("load 1 M, 1 client", "load 1", OpsPerS, TimesBest(2.0)),
        row("load 1 M, 1 client: CPU", "load 1", CpuNsPerOp, AtMost(3000.0)),
        row("get zipfian, cached, 1 client", "zipfian 1", OpsPerS, TimesBest(3.0)),
        Row {
            title: "get zipfian, cached, on the owning core",
            step: "zipfian owner",
            peers: "zipfian 1",
            figure: OpsPerS,
            goal: TimesBest(4.0),
        },
        row("get zipfian, cached, 2 clients", "zipfian 2", OpsPerS, TimesBest(2.5)),
        row("get zipfian, cached, 8 clients", "zipfian 8", OpsPerS, TimesBest(2.5)),
        row("get zipfian, cached, 64 clients", "zipfian 64", OpsPerS, TimesBest(2.5)),
        row("load 1 M, 2 clients", "load 2", OpsPerS, TimesBest(3.0)),
        row("load 1 M, 8 clients", "load 8", OpsPerS, TimesBest(3.0)),
        row("load 1 M, 64 clients", "load 64", OpsPerS, TimesBest(3.0)),
        row("YCSB A, cached, 2 clients", "a 2", OpsPerS, TimesBest(3.0)),
        row("YCSB A, cached, 8 clients", "a 8", OpsPerS, TimesBest(3.0)),
        row("YCSB A, cached, 64 clients", "a 64", OpsPerS, TimesBest(3.0)),
        row("get of absent keys, 1 client", "absent", OpsPerS, AtLeast(2.5e6)),
        row("scan of 1 to 100 rows, cached", "scan", OpsPerS, TimesBest(2.0)),
        row(
            "get uniform, 512 MiB, 1 client: latency",
            "uniform 1",
            MeanNs,
            TimesDisk(1.1, "fio psync 1"),
        ),
        row(
            "get uniform, 512 MiB, 16 clients",
            "uniform 16",
            OpsPerS,
            ShareOfDisk(0.97, "fio psync 16"),
        ),
        row(
            "get uniform, 512 MiB, 16 clients: CPU",
            "uniform 16",
            CpuNsPerOp,
            DiskPlus(2000.0, "fio psync 16"),
        ),
        row(
            "get uniform, 512 MiB, 16 clients: p99.9",
            "uniform 16",
            P999Ns,
            TimesDisk(2.0, "fio psync 16"),
        ),
        row(
            "get uniform, 512 MiB, 64 clients",
            "uniform 64",
            OpsPerS,
            ShareOfDisk(0.97, "fio psync 64"),
        ),
        row(
            "get uniform, 512 MiB, 64 clients: CPU",
            "uniform 64",
            CpuNsPerOp,
            DiskPlus(2000.0, "fio psync 64"),
        ),
        row(
            "get uniform, 512 MiB, 64 clients: p99.9",
            "uniform 64",
            P999Ns,
            TimesDisk(2.0, "fio psync 64"),
        ),
        row(
            "get uniform, 512 MiB, 16 in flight of tasks",
            "uniform task 16",
            OpsPerS,
            ShareOfDisk(0.95, "fio ring 16"),
        ),
        row(
            "get uniform, 512 MiB, 16 on owners",
            "uniform owner 16",
            OpsPerS,
            ShareOfDisk(0.95, "fio ring 16"),
        ),
        row(
            "get uniform, 512 MiB, 64 in flight of tasks",
            "uniform task 64",
            OpsPerS,
            ShareOfDisk(0.95, "fio ring 64"),
        ),
        row(
            "get uniform, 512 MiB, 64 on owners",
            "uniform owner 64",
            OpsPerS,
            ShareOfDisk(0.95, "fio ring 64"),
        ),
        row("YCSB A, 512 MiB, 8 clients", "beyond a", OpsPerS, TimesBest(2.0)),
        row("YCSB B, 512 MiB, 8 clients", "beyond b", OpsPerS, TimesBest(2.0)),
        row("YCSB C, 512 MiB, 8 clients", "beyond c", OpsPerS, TimesBest(2.0)),
        row("YCSB D, 512 MiB, 8 clients", "beyond d", OpsPerS, TimesBest(2.0)),
        row("YCSB E, 512 MiB, 8 clients", "beyond e", OpsPerS, TimesBest(2.0)),
        row("YCSB F, 512 MiB, 8 clients", "beyond f", OpsPerS, TimesBest(2.0)),
        row("reads at 4,000/s beside a writer: p99.9", "reads at 4000/s", P999Ns, AtMost(2e6)),
        row("writes beside those reads", "reads at 4000/s", WritesPerS, TimesBest(1.0)),
        row("durable put, 1 client", "durable 1", OpsPerS, TimesBest(2.0)),
        row("durable put, 16 clients", "durable 16", OpsPerS, TimesBest(2.0)),
        row("durable put, 64 clients", "durable 64", OpsPerS, TimesBest(2.0)),
        row("device writes a group, 16 clients", "durable 16", WritesPerGroup, AtMost(1.05)),
        row("flushes a group, 16 clients", "durable 16", FlushesPerGroup, AtMost(1.05)),
        row(
            "bytes written per byte loaded, 1.7 GB",
            "load beyond",
            BytesWrittenPerByte,
            AtMost(3.5),
        ),
        row(
            "bytes on disk per byte of data, at rest",
            "load beyond",
            BytesOnDiskPerByte,
            AtMost(1.12),
        ),
        row("clean build of the dependency", "build", Seconds, AtMost(45.0)),
    ]
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ouro_bench::workload::WorkloadParser;

    use super::*;

    #[test]
    fn rows_show_steps_that_there_are() {
        let groups = groups();
        let steps: Vec<&Step> = groups.iter().flat_map(|group| &group.steps).collect();
        let names: BTreeSet<&str> = steps.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), steps.len(), "steps of one name");
        let mut shown = BTreeSet::new();
        for row in ROWS {
            let disk = match row.goal {
                Goal::ShareOfDisk(_, step) | Goal::TimesDisk(_, step) | Goal::DiskPlus(_, step) => {
                    step
                }
                Goal::TimesBest(_) | Goal::AtLeast(_) | Goal::AtMost(_) => row.step,
            };
            for step in [row.step, row.peers, disk] {
                assert!(names.contains(step), "{}: {step}", row.title);
                shown.insert(step);
            }
        }
        shown.insert(FILL);
        assert_eq!(shown, names, "steps that no row shows");
    }

    #[test]
    fn steps_run_workloads_that_there_are() {
        let command =
            clap::Command::new("test").arg(clap::Arg::new("workload").value_parser(WorkloadParser));
        for step in groups().iter().flat_map(|group| &group.steps) {
            if let Action::Run { workload, .. } = step.action {
                assert!(command.clone().try_get_matches_from(["test", workload]).is_ok());
            }
        }
    }
}
