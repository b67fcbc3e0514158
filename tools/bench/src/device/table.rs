//! The result of `device`, as people read it in a terminal.

use std::fmt::Write;

use super::{LARGE_BYTES, Report, SMALL_BYTES, Test};
use crate::size::format_size;
use crate::table::{aligned, duration, grouped};

const COLUMNS: [&str; 9] =
    ["operation", "io", "depth", "IOPS", "MiB/s", "p50", "p99", "p99.9", "CPU/op"];

/// The whole result as text.
pub(super) fn render(report: &Report) -> String {
    let (config, machine) = (&report.config, &report.machine);
    let unknown = || "unknown".to_owned();
    let partial = if report.partial { " (PARTIAL: it was cut short)" } else { "" };
    let mut text = format!(
        "device: {} on {}{partial}\na file of {}, {} s each; random and durable {}, sequential {}\n\n",
        machine.file_system.clone().unwrap_or_else(unknown),
        machine.device.clone().unwrap_or_else(unknown),
        format_size(config.file_bytes),
        config.seconds_per_test,
        format_size(SMALL_BYTES as u64),
        format_size(LARGE_BYTES as u64),
    );
    let header = COLUMNS.map(str::to_owned);
    let rows: Vec<_> = std::iter::once(header).chain(report.result.tests.iter().map(row)).collect();
    // Writing into a string cannot fail.
    let _infallible = writeln!(text, "{}", aligned(&rows));
    text
}

fn row(test: &Test) -> [String; COLUMNS.len()] {
    let latency = &test.latency_ns;
    let mib_per_s = test.bytes_per_s / f64::from(1 << 20);
    [
        test.operation.name().to_owned(),
        test.io.name().to_owned(),
        test.depth.to_string(),
        grouped(test.ops_per_s.round() as u64),
        grouped(mib_per_s.round() as u64),
        duration(latency.p50 as f64),
        duration(latency.p99 as f64),
        duration(latency.p99_9 as f64),
        duration(test.cpu_ns_per_op),
    ]
}
