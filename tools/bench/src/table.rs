//! The result of one command, as people read it in a terminal.

use std::fmt::Write;

use crate::report::{Measured, Operation, Report};
use crate::size::format_size;
use crate::workload::OpKind;

/// The whole result as text.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let lines = [headline(report), setting(report), String::new(), table(&report.result)];
    for line in lines.into_iter().chain(summary(&report.result)) {
        // Writing into a string cannot fail.
        let _infallible = writeln!(text, "{line}");
    }
    text
}

fn headline(report: &Report) -> String {
    let (config, result) = (&report.config, &report.result);
    let what = match config.workload {
        Some(workload) => format!("run {}: {}", workload.name(), workload.description()),
        None => format!("load: {} records", grouped(config.records)),
    };
    let partial = if report.partial { " (PARTIAL: it was cut short)" } else { "" };
    format!("{what}, {:.1} s{partial}", result.elapsed_s)
}

fn setting(report: &Report) -> String {
    let (config, machine) = (&report.config, &report.machine);
    let pace = match config.rate_ops_per_s {
        Some(rate) => format!("open loop at {}/s", grouped(rate)),
        None => "closed loop".to_owned(),
    };
    let plural = if config.clients == 1 { "" } else { "s" };
    let unknown = || "unknown".to_owned();
    format!(
        "{} client{plural}, {pace}; {} records of {} + {} bytes; memory {}; {} on {}",
        config.clients,
        grouped(report.result.records),
        config.key_bytes,
        config.value_bytes,
        format_size(config.memory_bytes),
        machine.file_system.clone().unwrap_or_else(unknown),
        machine.device.clone().unwrap_or_else(unknown),
    )
}

const COLUMNS: [&str; 9] =
    ["operation", "count", "ops/s", "p50", "p90", "p99", "p99.9", "p99.99", "max"];

fn table(result: &Measured) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(result.operations.iter().map(|(kind, operation)| row(*kind, operation)));
    let widths: Vec<_> = (0..COLUMNS.len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn row(kind: OpKind, operation: &Operation) -> [String; COLUMNS.len()] {
    let latency = operation.latency_ns;
    let time = |ns: u64| {
        if operation.ops == 0 { "-".to_owned() } else { duration(ns as f64) }
    };
    [
        kind.name().replace('_', "-"),
        grouped(operation.ops),
        grouped(operation.ops_per_s.round() as u64),
        time(latency.p50),
        time(latency.p90),
        time(latency.p99),
        time(latency.p99_9),
        time(latency.p99_99),
        time(latency.max),
    ]
}

fn summary(result: &Measured) -> impl Iterator<Item = String> {
    let mut facts = vec![format!("{} ops/s", grouped(result.ops_per_s.round() as u64))];
    let mut fact = |value: Option<f64>, words: fn(f64) -> String| facts.extend(value.map(words));
    fact(result.cpu_ns_per_op, |ns| format!("{} of CPU per operation", duration(ns)));
    fact(result.bytes_written_per_byte_put, |x| format!("{x:.2} bytes written per byte put"));
    fact(result.device_reads_per_get, |x| format!("{x:.2} device reads per get"));
    fact(result.device_reads_per_scan, |x| format!("{x:.2} device reads per scan"));
    fact(result.settle_s, |s| format!("settled in {}", duration(s * 1e9)));
    let unsent = (result.unsent_ops > 0).then(|| {
        format!(
            "OVERLOAD: {} operations were due and never sent; the percentiles are those of the \
             others",
            grouped(result.unsent_ops)
        )
    });
    let saturated = (result.saturated_ops > 0)
        .then(|| format!("{} operations took longer than an hour", grouped(result.saturated_ops)));
    let wrong = (result.wrong_reads > 0).then(|| {
        format!(
            "WRONG: {} reads returned something else than what was written; first: {}",
            grouped(result.wrong_reads),
            result.first_wrong_read.as_deref().unwrap_or("unknown")
        )
    });
    [String::new(), facts.join("; ")].into_iter().chain(unsent).chain(saturated).chain(wrong)
}

/// A duration with three digits and its unit.
#[must_use]
pub fn duration(ns: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "us")];
    // What would be rounded up to 1000 belongs to the next unit.
    let found = units.into_iter().find(|(factor, _)| ns >= factor * 0.9995);
    let Some((factor, unit)) = found else {
        return format!("{ns:.0} ns");
    };
    let value = ns / factor;
    let decimals = match value {
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// A number with commas between thousands.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let expected = [
            (0.0, "0 ns"),
            (999.0, "999 ns"),
            (1000.0, "1.00 us"),
            (9_994.0, "9.99 us"),
            (9_996.0, "10.0 us"),
            (99_960.0, "100 us"),
            (999_400.0, "999 us"),
            (999_600.0, "1.00 ms"),
            (12_345_678.0, "12.3 ms"),
            (1e9, "1.00 s"),
            (3.6e12, "3600 s"),
        ];
        for (ns, text) in expected {
            assert_eq!(duration(ns), text);
        }
    }

    #[test]
    fn thousands_are_grouped() {
        let expected = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (123_456, "123,456"),
            (1_234_567, "1,234,567"),
        ];
        for (number, text) in expected {
            assert_eq!(grouped(number), text);
        }
    }
}
