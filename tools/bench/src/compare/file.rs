//! Result files, as [`report`](crate::report) writes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::resample::{Run, Second};
use crate::failure::Failure;
use crate::hlog;
use crate::result_file;

/// A result, and what of it can be compared.
pub(super) struct ResultFile {
    pub(super) path: PathBuf,
    pub(super) content: Content,
    pub(super) run: Run,
}

#[derive(Deserialize)]
pub(super) struct Content {
    pub(super) command: String,
    pub(super) partial: bool,
    pub(super) started: String,
    pub(super) versions: Map<String, Value>,
    pub(super) config: Map<String, Value>,
    pub(super) machine: Map<String, Value>,
    pub(super) result: Measured,
}

#[derive(Deserialize)]
pub(super) struct Measured {
    pub(super) ops_per_s: f64,
    pub(super) unsent_ops: u64,
    pub(super) wrong_reads: u64,
    pub(super) cpu_ns_per_op: Option<f64>,
    pub(super) bytes_written_per_byte_put: Option<f64>,
    pub(super) device_reads_per_get: Option<f64>,
    #[serde(default)]
    intervals: Vec<Interval>,
}

#[derive(Deserialize)]
struct Interval {
    seconds: f64,
    operations: BTreeMap<String, IntervalOf>,
}

#[derive(Deserialize)]
struct IntervalOf {
    histogram: String,
}

impl ResultFile {
    /// Whether operations came at instants of their own: then its throughput is what was asked for.
    pub(super) fn is_open(&self) -> bool {
        self.content.config.get("loop").and_then(Value::as_str) == Some("open")
    }

    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let content: Content =
            result_file::read(path, &["load", "run"], "`ouro-bench load` or `run`")?;
        if content.result.intervals.is_empty() {
            return Err(Failure::Usage(format!(
                "{shown} does not say what happened in each second: measure again"
            )));
        }
        let unusable = |why: String| {
            Failure::Usage(format!("{shown} has a histogram that cannot be read: {why}"))
        };
        let second = |interval: &Interval| {
            let kinds = interval.operations.iter().map(|(kind, of)| {
                Ok((kind.clone(), hlog::decode(&of.histogram).map_err(unusable)?))
            });
            Ok((interval.seconds, kinds.collect::<Result<_, Failure>>()?))
        };
        let seconds: Result<Vec<Second>, Failure> =
            content.result.intervals.iter().map(second).collect();
        Ok(Self { path: path.to_owned(), run: Run::new(&seconds?), content })
    }
}
