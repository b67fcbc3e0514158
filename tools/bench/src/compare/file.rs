//! Result files, as [`report`](crate::report) writes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::resample::{Run, Second};
use crate::failure::Failure;
use crate::hlog;
use crate::report::why_partial;
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
    failure: Option<String>,
    cut_short_in: Option<String>,
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
    steady: Option<Steadiness>,
    warm_up_steady: Option<Steadiness>,
    pub(super) cpu_ns_per_op: Option<f64>,
    pub(super) bytes_written_per_byte_put: Option<f64>,
    pub(super) device_reads_per_get: Option<f64>,
    #[serde(default)]
    intervals: Vec<Interval>,
}

#[derive(Deserialize)]
struct Steadiness {
    is_steady: bool,
    reason: Option<String>,
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

impl Content {
    fn why_partial(&self) -> Option<String> {
        let (failed, cut_short_in) = (self.failure.is_some(), self.cut_short_in.as_deref());
        let why = why_partial(&self.command, self.partial, failed, cut_short_in)?;
        Some(match &self.failure {
            Some(failure) => format!("{why} ({failure})"),
            None => why,
        })
    }
}

impl ResultFile {
    /// Whether operations came at instants of their own: then its throughput is what was asked for.
    pub(super) fn is_open(&self) -> bool {
        self.content.config.get("loop").and_then(Value::as_str) == Some("open")
    }

    /// Why it is partial, if it is.
    pub(super) fn why_partial(&self) -> Option<String> {
        self.content.why_partial()
    }

    /// What says that it was not in a steady state, if something does.
    pub(super) fn unsteady(&self) -> Vec<String> {
        let reason = |of: &Option<Steadiness>| {
            let changing = of.as_ref().filter(|of| !of.is_steady)?;
            Some(changing.reason.clone().unwrap_or_default())
        };
        let result = &self.content.result;
        let warm_up = reason(&result.warm_up_steady)
            .map(|reason| format!("NOT STEADY when its warm-up ended: {reason}"));
        let run = reason(&result.steady).map(|reason| format!("NOT STEADY: {reason}"));
        warm_up.into_iter().chain(run).collect()
    }

    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let content: Content =
            result_file::read(path, &["load", "run"], "`ouro-bench load` or `run`")?;
        if let Some(why) = content.why_partial().filter(|_| content.result.intervals.is_empty()) {
            return Err(Failure::Usage(format!(
                "{shown} is partial and has nothing to compare: {why}"
            )));
        }
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
