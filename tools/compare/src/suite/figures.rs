//! What is kept of a measurement.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ouro_bench::failure::Failure;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::Figure;

/// The figures of one contestant in one step; those that it does not have are
/// absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in `Figure`")]
pub struct Figures {
    pub ops_per_s: Option<f64>,
    pub cpu_ns_per_op: Option<f64>,
    pub mean_ns: Option<f64>,
    pub p99_9_ns: Option<f64>,
    pub writes_per_s: Option<f64>,
    pub bytes_written_per_byte: Option<f64>,
    pub bytes_on_disk_per_byte: Option<f64>,
    pub writes_per_group: Option<f64>,
    pub flushes_per_group: Option<f64>,
    pub seconds: Option<f64>,
    /// Operations that were due and never sent: latencies are longer than they look.
    #[serde(default)]
    pub unsent_ops: u64,
    /// It was in no steady state, or its warm-up did not come to one.
    #[serde(default)]
    pub not_steady: bool,
    /// Operations ended noticeably later than they were due.
    #[serde(default)]
    pub is_behind: bool,
}

impl Figures {
    /// Those of a result of `load` or `run`. Latencies are those of reads where
    /// there are any, and else of the slowest kind of operation.
    #[must_use]
    pub fn of_report(report: &Value) -> Self {
        let result = &report["result"];
        let operations = result["operations"].as_object();
        let latency = |name: &str| {
            let of = |operation: &Value| operation["latency_ns"][name].as_f64();
            match operations.and_then(|all| all.get("read")) {
                Some(reads) => of(reads),
                None => operations?.values().filter_map(of).reduce(f64::max),
            }
        };
        let is_beside = report["config"]["workload"] == "read-while-writing";
        let update = is_beside.then(|| result["operations"]["update"]["ops_per_s"].as_f64());
        let device = &result["device"];
        let per_group = |count: &str| {
            let groups = device["durable_writes"].as_f64().filter(|groups| *groups > 0.0)?;
            Some(device[count].as_f64()? / groups)
        };
        Self {
            ops_per_s: result["ops_per_s"].as_f64(),
            cpu_ns_per_op: result["cpu_ns_per_op"].as_f64(),
            mean_ns: latency("mean"),
            p99_9_ns: latency("p99_9"),
            writes_per_s: update.flatten(),
            bytes_written_per_byte: result["bytes_written_per_byte_put"].as_f64(),
            bytes_on_disk_per_byte: None,
            writes_per_group: per_group("writes"),
            flushes_per_group: per_group("syncs"),
            seconds: result["elapsed_s"].as_f64(),
            unsent_ops: result["unsent_ops"].as_u64().unwrap_or_default(),
            not_steady: ["steady", "warm_up_steady"]
                .iter()
                .any(|of| result[of]["is_steady"] == false),
            is_behind: result["behind_s"].is_number(),
        }
    }

    /// The one that a row shows.
    #[must_use]
    pub fn get(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::OpsPerS => self.ops_per_s,
            Figure::CpuNsPerOp => self.cpu_ns_per_op,
            Figure::MeanNs => self.mean_ns,
            Figure::P999Ns if self.unsent_ops > 0 => Some(f64::INFINITY),
            Figure::P999Ns => self.p99_9_ns,
            Figure::WritesPerS => self.writes_per_s,
            Figure::BytesWrittenPerByte => self.bytes_written_per_byte,
            Figure::BytesOnDiskPerByte => self.bytes_on_disk_per_byte,
            Figure::WritesPerGroup => self.writes_per_group,
            Figure::FlushesPerGroup => self.flushes_per_group,
            Figure::Seconds => self.seconds,
        }
    }
}

/// Bytes that files below `dir` take on the disk.
///
/// # Errors
/// When something there cannot be read.
pub fn bytes_on_disk(dir: &Path) -> Result<u64, Failure> {
    const SECTOR_BYTES: u64 = 512;
    let mut bytes = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let fail = || Failure::os(format!("cannot read {}", dir.display()));
        for entry in fs::read_dir(&dir).map_err(fail())? {
            let entry = entry.map_err(fail())?;
            let metadata = entry.metadata().map_err(fail())?;
            bytes += metadata.blocks() * SECTOR_BYTES;
            if metadata.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_those_of_the_report() {
        let operation =
            |p99_9: u64| json!({"ops_per_s": p99_9, "latency_ns": {"mean": 2, "p99_9": p99_9}});
        let mut report = json!({
            "config": {"workload": "read-while-writing"},
            "result": {
                "ops_per_s": 50.0, "cpu_ns_per_op": 7.0, "elapsed_s": 3.0,
                "bytes_written_per_byte_put": 3.5,
                "device": {"writes": 30, "syncs": 10, "durable_writes": 20},
                "operations": {"read": operation(4), "update": operation(40)},
            },
        });
        let figures = Figures::of_report(&report);
        let expected = Figures {
            ops_per_s: Some(50.0),
            cpu_ns_per_op: Some(7.0),
            mean_ns: Some(2.0),
            p99_9_ns: Some(4.0),
            writes_per_s: Some(40.0),
            bytes_written_per_byte: Some(3.5),
            bytes_on_disk_per_byte: None,
            writes_per_group: Some(1.5),
            flushes_per_group: Some(0.5),
            seconds: Some(3.0),
            unsent_ops: 0,
            not_steady: false,
            is_behind: false,
        };
        assert_eq!(figures, expected);
        report["result"]["warm_up_steady"] = json!({"is_steady": false});
        report["result"]["behind_s"] = 0.5.into();
        let expected = Figures { not_steady: true, is_behind: true, ..expected };
        assert_eq!(Figures::of_report(&report), expected);
        report["config"]["workload"] = "d".into();
        report["result"]["device"]["durable_writes"] = Value::Null;
        report["result"]["operations"] = json!({"insert": operation(9), "scan": operation(8)});
        let figures = Figures::of_report(&report);
        assert_eq!((figures.p99_9_ns, figures.writes_per_s), (Some(9.0), None));
        assert_eq!(figures.writes_per_group, None);
    }

    #[test]
    fn files_of_all_depths_take_space() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let before = bytes_on_disk(dir.path()).unwrap();
        fs::write(inner.join("file"), vec![7; 1 << 20]).unwrap();
        fs::File::open(inner.join("file")).unwrap().sync_all().unwrap();
        assert_eq!(bytes_on_disk(dir.path()).unwrap() - before, 1 << 20);
        assert!(bytes_on_disk(&dir.path().join("absent")).is_err());
    }
}
