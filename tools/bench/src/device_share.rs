//! What share of what the disk can do an engine makes of it: a run beside a result of
//! `ouro-bench device`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cli::{ClientKind, CommonArgs, DEVICE_VARIABLE, Io};
use crate::device::Operation;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::report::{Config, Measured};
use crate::result_file;

/// Groups of one log that are written at one time.
const GROUPS_PER_OWNER: usize = 2;

/// What is less is not worth a word.
const SHARE_MIN: f64 = 0.0005;

/// A result of `device`, as far as it matters here.
#[derive(Debug, Deserialize)]
pub struct Calibration {
    started: String,
    machine: Place,
    result: Tests,
}

#[derive(Debug, Deserialize)]
struct Place {
    device: Option<String>,
    file_system: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Tests {
    tests: Vec<Test>,
}

#[derive(Debug, Deserialize)]
struct Test {
    operation: Operation,
    io: Io,
    depth: usize,
    ops_per_s: f64,
    bytes_per_s: f64,
}

/// What a phase made of the disk.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceShare {
    /// When the disk was measured, in UTC.
    pub calibrated: String,
    /// Reads of any length, beside random ones of 4 KiB.
    pub reads_per_s: Option<Share>,
    /// Bytes read, beside sequential reads.
    pub bytes_read_per_s: Option<Share>,
    /// Bytes written, beside sequential writes.
    pub bytes_written_per_s: Option<Share>,
    /// Groups of the log that their own write made durable, beside durable writes of 4 KiB.
    pub durable_writes_per_s: Option<Share>,
}

/// One rate, and what the disk can do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// What the engine did.
    pub engine: f64,
    /// What the disk did without it.
    pub device: f64,
    /// The one divided by the other.
    pub share: f64,
    /// How requests reached the disk then.
    pub io: Io,
    /// How many were in flight then.
    pub depth: usize,
}

impl Calibration {
    /// Reads the one that was given, if so, and makes sure that it is of the database's disk.
    pub fn given(common: &CommonArgs) -> Result<Option<Self>, Failure> {
        let given = common.device.as_deref().filter(|path| !path.as_os_str().is_empty());
        let Some(path) = given else { return Ok(None) };
        let is_by_variable = std::env::var_os(DEVICE_VARIABLE).is_some_and(|value| value == *path);
        let calibration = Self::read(path, common).map_err(|failure| match is_by_variable {
            true => failure.because_of(DEVICE_VARIABLE),
            false => failure,
        });
        calibration.map(Some)
    }

    fn read(path: &Path, common: &CommonArgs) -> Result<Self, Failure> {
        let calibration: Self = result_file::read(path, &["device"], "`ouro-bench device`")?;
        // A load makes the directory later.
        let dir = common.dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
        calibration.check(path, &Machine::look(dir))?;
        Ok(calibration)
    }

    fn check(&self, path: &Path, here: &Machine) -> Result<(), Failure> {
        let Place { device, file_system } = &self.machine;
        if (device, file_system) == (&here.device, &here.file_system) {
            return Ok(());
        }
        let name = |device: &Option<String>, file_system: &Option<String>| {
            let known = |name: &Option<String>| name.clone().unwrap_or("unknown".to_owned());
            format!("{} on {}", known(file_system), known(device))
        };
        Err(Failure::Usage(format!(
            "{} was measured with {}, and the database is on {}: measure that with `ouro-bench \
             device`",
            path.display(),
            name(device, file_system),
            name(&here.device, &here.file_system)
        )))
    }

    /// What a phase made of the disk.
    #[must_use]
    pub fn share(&self, config: &Config, measured: &Measured) -> DeviceShare {
        let seconds = measured.elapsed_s + measured.settle_s.unwrap_or(0.0);
        let counted = measured.device;
        let in_flight = config.clients * config.depth;
        let groups = GROUPS_PER_OWNER * config.owners.unwrap_or(1);
        // Threads that wait do it themselves.
        let io = match config.client_kind {
            ClientKind::Thread => Io::Blocking,
            ClientKind::Task | ClientKind::Owner => config.io.unwrap_or(Io::Ring),
        };
        let requests = |count: Option<u64>, test: Option<&Test>| {
            Some(Share::new(count? as f64 / seconds, test?.ops_per_s, test?))
        };
        let bytes = |count: Option<u64>, test: Option<&Test>| {
            Some(Share::new(count? as f64 / seconds, test?.bytes_per_s, test?))
        };
        DeviceShare {
            calibrated: self.started.clone(),
            reads_per_s: requests(
                counted.and_then(|device| device.reads),
                self.at_depth(Operation::RandomRead, io, in_flight),
            ),
            bytes_read_per_s: bytes(
                counted.map(|device| device.bytes_read),
                self.fastest(Operation::SequentialRead),
            ),
            bytes_written_per_s: bytes(
                counted.map(|device| device.bytes_written),
                self.fastest(Operation::SequentialWrite),
            ),
            durable_writes_per_s: requests(
                counted.and_then(|device| device.durable_writes),
                self.at_depth(Operation::DurableWrite, io, in_flight.min(groups)),
            ),
        }
    }

    fn all(&self, operation: Operation) -> impl Iterator<Item = &Test> {
        self.result.tests.iter().filter(move |test| test.operation == operation)
    }

    /// The test at the greatest depth up to `depth`, or else the least; with the other I/O if
    /// this one was not measured.
    fn at_depth(&self, operation: Operation, io: Io, depth: usize) -> Option<&Test> {
        let order = |test: &&Test| {
            let fits = test.depth <= depth;
            // Of those that do not fit, the least.
            let closeness = if fits { test.depth as i64 } else { -(test.depth as i64) };
            (test.io == io, fits, closeness)
        };
        self.all(operation).max_by_key(order)
    }

    fn fastest(&self, operation: Operation) -> Option<&Test> {
        self.all(operation).max_by(|one, other| one.bytes_per_s.total_cmp(&other.bytes_per_s))
    }
}

impl Share {
    fn new(engine: f64, device: f64, test: &Test) -> Self {
        Self { engine, device, share: engine / device, io: test.io, depth: test.depth }
    }

    fn percent(&self) -> String {
        let percent = 100.0 * self.share;
        let decimals = usize::from(percent < 9.95);
        format!("{percent:.decimals$} %")
    }
}

impl DeviceShare {
    /// As people read it. Of what hardly happened nothing is said.
    #[must_use]
    pub fn words(&self) -> String {
        let with_depth = |share: &Share, what: &str| {
            format!(
                "{} of its {what} at depth {} ({})",
                share.percent(),
                share.depth,
                share.io.name()
            )
        };
        let bandwidth = |share: &Share, what: &str| format!("{} of its {what}", share.percent());
        let happened = |share: &Option<Share>| share.filter(|share| share.share >= SHARE_MIN);
        let parts = [
            happened(&self.reads_per_s).map(|share| with_depth(&share, "reads/s")),
            happened(&self.bytes_read_per_s).map(|share| bandwidth(&share, "read bandwidth")),
            happened(&self.bytes_written_per_s).map(|share| bandwidth(&share, "write bandwidth")),
            happened(&self.durable_writes_per_s)
                .map(|share| with_depth(&share, "durable writes/s")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        match &parts[..] {
            [] => "what the disk can do was hardly needed".to_owned(),
            parts => format!("what the disk can do: {}", parts.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::large;
    use crate::target::Device;

    fn calibration() -> Calibration {
        let test = |operation: &str, io: &str, depth: u32, per_s: u32, request_bytes: u32| {
            serde_json::json!({
                "operation": operation, "io": io, "depth": depth,
                "ops_per_s": f64::from(per_s), "bytes_per_s": f64::from(per_s * request_bytes),
            })
        };
        let tests = [
            test("random-read", "ring", 1, 5_000, 4096),
            test("random-read", "ring", 16, 50_000, 4096),
            test("random-read", "blocking", 1, 4_000, 4096),
            test("random-read", "blocking", 8, 20_000, 4096),
            test("random-read", "blocking", 16, 40_000, 4096),
            test("sequential-read", "ring", 4, 1_000, 1 << 20),
            test("sequential-read", "blocking", 4, 1_200, 1 << 20),
            test("sequential-write", "ring", 4, 800, 1 << 20),
            test("durable-write", "ring", 4, 2_000, 4096),
        ];
        serde_json::from_value(serde_json::json!({
            "started": "2026-11-30T00:00:00Z",
            "machine": {"device": "vda", "file_system": "ext4"},
            "result": {"tests": tests},
        }))
        .unwrap()
    }

    #[test]
    fn shares_are_of_the_depth_and_io_that_fit() {
        let mut report = large("run", None);
        (report.config.clients, report.config.depth) = (10, 1);
        report.result.elapsed_s = 8.0;
        report.result.settle_s = Some(2.0);
        report.result.device = Some(Device {
            reads: Some(100_000),
            bytes_read: 1200 << 20,
            writes: Some(1),
            bytes_written: 4000 << 20,
            syncs: Some(0),
            durable_writes: Some(5_000),
        });
        let share = calibration().share(&report.config, &report.result);
        let reads = share.reads_per_s.unwrap();
        assert_eq!((reads.engine, reads.device, reads.share), (10_000.0, 20_000.0, 0.5));
        assert_eq!((reads.io, reads.depth), (Io::Blocking, 8));
        assert_eq!(share.bytes_read_per_s.unwrap().share, 0.1);
        assert_eq!(share.bytes_written_per_s.unwrap().share, 0.5);
        let durable = share.durable_writes_per_s.unwrap();
        assert_eq!((durable.share, durable.io, durable.depth), (0.25, Io::Ring, 4));
        assert_eq!(
            share.words(),
            "what the disk can do: 50 % of its reads/s at depth 8 (blocking), 10 % of its read \
             bandwidth, 50 % of its write bandwidth, 25 % of its durable writes/s at depth 4 (ring)"
        );

        report.config.client_kind = ClientKind::Task;
        report.config.io = Some(Io::Ring);
        let reads = calibration().share(&report.config, &report.result).reads_per_s.unwrap();
        assert_eq!((reads.io, reads.depth), (Io::Ring, 1));
        report.result.device = None;
        let nothing = calibration().share(&report.config, &report.result);
        assert!(nothing.reads_per_s.is_none() && nothing.bytes_written_per_s.is_none());
        assert_eq!(nothing.words(), "what the disk can do was hardly needed");
    }

    #[test]
    fn a_depth_that_was_not_measured_is_replaced_by_the_least() {
        let calibration = calibration();
        let depth = |io, depth| {
            let test = calibration.at_depth(Operation::DurableWrite, io, depth);
            test.map(|test| (test.io, test.depth))
        };
        assert_eq!(depth(Io::Blocking, 1), Some((Io::Ring, 4)));
        let none = Calibration { result: Tests { tests: Vec::new() }, ..calibration };
        assert!(none.at_depth(Operation::RandomRead, Io::Ring, 1).is_none());
    }
}
