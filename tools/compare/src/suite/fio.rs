//! What the disk does for fio: random reads of a file as large as the data.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ouro_bench::failure::Failure;
use serde_json::Value;

use super::figures::Figures;
use crate::child;

/// What it says of its version, if it can be run.
#[must_use]
pub fn version() -> Option<String> {
    let output = Command::new("fio").arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A file to read.
pub struct Fio {
    file: PathBuf,
    bytes: u64,
}

impl Fio {
    /// One of so many bytes in `dir`; made when it is first read.
    #[must_use]
    pub fn new(dir: &Path, bytes: u64) -> Self {
        Self { file: dir.join("file"), bytes: bytes.next_multiple_of(1 << 20) }
    }

    /// Reads 4 KiB at random places.
    ///
    /// # Errors
    /// When fio fails, or says something else than expected.
    pub fn read(
        &self,
        ioengine: &str,
        jobs: usize,
        depth: usize,
        seconds: f64,
    ) -> Result<Figures, Failure> {
        self.fill()?;
        let mut arguments = vec![
            "--name=read".to_owned(),
            "--rw=randread".to_owned(),
            "--bs=4k".to_owned(),
            "--direct=1".to_owned(),
            "--norandommap".to_owned(),
            // Other places each time.
            "--randrepeat=0".to_owned(),
            "--thread".to_owned(),
            "--group_reporting".to_owned(),
            "--time_based".to_owned(),
            format!("--size={}", self.bytes),
            format!("--runtime={}ms", (seconds * 1000.0) as u64),
            format!("--ioengine={ioengine}"),
            format!("--numjobs={jobs}"),
            format!("--iodepth={depth}"),
        ];
        if ioengine == "io_uring" {
            arguments.extend(["--fixedbufs".to_owned(), "--registerfiles".to_owned()]);
        }
        let output = Self::run(&self.file, &arguments)?;
        figures(&output, jobs)
            .ok_or_else(|| Failure::Other("fio printed something else than its result".to_owned()))
    }

    fn fill(&self) -> Result<(), Failure> {
        if fs::metadata(&self.file).is_ok_and(|file| file.len() == self.bytes) {
            return Ok(());
        }
        if let Some(dir) = self.file.parent() {
            fs::create_dir_all(dir)
                .map_err(Failure::os(format!("cannot create {}", dir.display())))?;
        }
        let fill = ["--name=fill", "--rw=write", "--bs=1m", "--direct=1", "--refill_buffers"];
        let mut arguments = fill.map(str::to_owned).to_vec();
        arguments.extend(["--end_fsync=1".to_owned(), format!("--size={}", self.bytes)]);
        // One that was not filled to its end has its length all the same.
        let unfinished = self.file.with_extension("tmp");
        Self::run(&unfinished, &arguments)?;
        fs::rename(&unfinished, &self.file)
            .map_err(Failure::os(format!("cannot rename {}", unfinished.display())))
    }

    fn run(path: &Path, arguments: &[String]) -> Result<Value, Failure> {
        let mut file = OsString::from("--filename=");
        file.push(path);
        let mut command = Command::new("fio");
        command.args(arguments).arg(file).arg("--output-format=json");
        let output = child::run("fio", &mut command)?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Failure::Other(format!("fio printed no result: {error}")))
    }
}

/// The CPU time that it states is a job's, on average, in percent.
fn figures(output: &Value, jobs: usize) -> Option<Figures> {
    let job = output["jobs"].get(0)?;
    let read = &job["read"];
    let ops_per_s = read["iops"].as_f64().filter(|rate| *rate > 0.0)?;
    let percent = job["usr_cpu"].as_f64()? + job["sys_cpu"].as_f64()?;
    Some(Figures {
        ops_per_s: Some(ops_per_s),
        cpu_ns_per_op: Some(percent / 100.0 * jobs as f64 / ops_per_s * 1e9),
        mean_ns: read["clat_ns"]["mean"].as_f64(),
        p99_9_ns: read["clat_ns"]["percentile"]["99.900000"].as_f64(),
        ..Figures::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn its_figures_are_those_of_all_jobs() {
        let output = json!({"jobs": [{
            "usr_cpu": 5.0, "sys_cpu": 20.0,
            "read": {"iops": 1000.0, "clat_ns": {
                "mean": 900.0, "percentile": {"99.900000": 5000}}},
        }]});
        let found = figures(&output, 4).unwrap();
        assert_eq!((found.ops_per_s, found.cpu_ns_per_op), (Some(1000.0), Some(1e6)));
        assert_eq!((found.mean_ns, found.p99_9_ns), (Some(900.0), Some(5000.0)));
        assert_eq!(figures(&json!({"jobs": []}), 1), None);
    }
}
