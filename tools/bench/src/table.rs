//! The result of one command, as people read it in a terminal.

use std::fmt::Write;

use crate::cli::ClientKind;
use crate::report::{Latency, Measured, Report, why_partial};
use crate::schedule::Arrivals;
use crate::size::format_size;
use crate::workload::OpKind;

/// What a terminal shows of a line.
const LINE_CHARS_MAX: usize = 80;

/// The whole result as text.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let lines = [headline(report), setting(report), String::new(), table(&report.result)];
    for line in lines.into_iter().chain(summary(report)) {
        // Writing into a string cannot fail.
        let _infallible = writeln!(text, "{line}");
    }
    text
}

fn headline(report: &Report) -> String {
    let (config, result) = (&report.config, &report.result);
    let what = match (&config.workload, &config.description) {
        (Some(workload), Some(words)) => format!("run {workload}: {words}"),
        _ if result.records < config.records => {
            let all = counted(config.records, "record");
            format!("load: {} of {all}", grouped(result.records))
        }
        _ => format!("load: {}", counted(config.records, "record")),
    };
    let failed = report.failure.is_some();
    let why = why_partial(report.command, report.partial, failed, report.cut_short_in);
    let partial = why.map_or(String::new(), |why| format!(" (PARTIAL: {why})"));
    wrapped(&format!("{what}, {:.1} s{partial}", result.elapsed_s), " ")
}

fn setting(report: &Report) -> String {
    let (config, machine) = (&report.config, &report.machine);
    let poisson = if config.arrivals == Some(Arrivals::Poisson) { ", Poisson" } else { "" };
    let pace = match (config.rate_ops_per_s, &config.rate) {
        (Some(rate), _) => format!("open loop at {}/s{poisson}", grouped(rate)),
        (None, Some(rate)) => format!("open loop at {rate}{poisson}"),
        (None, None) if config.r#loop == "open" => "at the times of the trace".to_owned(),
        (None, None) => "closed loop".to_owned(),
    };
    let of_kind = |kind: &str| counted(config.clients as u64, &format!("{kind}client"));
    let clients = match config.client_kind {
        ClientKind::Thread => of_kind(""),
        kind => format!("{} of depth {}", of_kind(&format!("{} ", kind.name())), config.depth),
    };
    let compression = match config.compression {
        ourodb::Compression::None => String::new(),
        compression => format!("; {compression}"),
    };
    let unknown = || "unknown".to_owned();
    let facts = format!(
        "{clients}, {pace}; {}; {} of {} + {} bytes{compression}; memory {}; {} on {}",
        config.durability,
        counted(report.result.records, "record"),
        config.key_sizes,
        config.value_sizes,
        format_size(config.memory_bytes),
        machine.file_system.clone().unwrap_or_else(unknown),
        machine.device.clone().unwrap_or_else(unknown),
    );
    wrapped(&facts, "; ")
}

const COLUMNS: [&str; 9] =
    ["operation", "count", "ops/s", "p50", "p90", "p99", "p99.9", "p99.99", "max"];

fn table(result: &Measured) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    for (kind, operation) in &result.operations {
        // The whole name does not leave room for the numbers.
        let name = match kind {
            OpKind::ReadModifyWrite => "rmw",
            OpKind::DeleteRange => "del range",
            _ => kind.name(),
        };
        let numbers = [operation.ops, operation.ops_per_s.round() as u64].map(grouped);
        rows.push(row(name.to_owned(), numbers, operation.ops, &operation.latency_ns));
        if let Some(service) = &operation.service_ns {
            let blank = [String::new(), String::new()];
            rows.push(row("  sent".to_owned(), blank, operation.ops, service));
        }
    }
    aligned(&rows)
}

/// Rows as lines: the first column begins at the left, the others end at the
/// right.
#[must_use]
pub fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<_> =
        (0..N).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn row(
    name: String,
    [ops, rate]: [String; 2],
    count: u64,
    latency: &Latency,
) -> [String; COLUMNS.len()] {
    let time = |ns: u64| if count == 0 { "-".to_owned() } else { duration(ns as f64) };
    [
        name,
        ops,
        rate,
        time(latency.p50),
        time(latency.p90),
        time(latency.p99),
        time(latency.p99_9),
        time(latency.p99_99),
        time(latency.max),
    ]
}

fn summary(report: &Report) -> impl Iterator<Item = String> {
    let result = &report.result;
    let mut facts = vec![format!("{} ops/s", grouped(result.ops_per_s.round() as u64))];
    let mut fact = |value: Option<f64>, words: fn(f64) -> String| facts.extend(value.map(words));
    fact(result.cpu_ns_per_op, |ns| format!("{} of CPU per operation", duration(ns)));
    fact(result.bytes_written_per_byte_put, |x| format!("{x:.2} bytes written per byte put"));
    fact(result.device_reads_per_get, |x| format!("{x:.2} device reads per get"));
    fact(result.device_reads_per_scan, |x| format!("{x:.2} device reads per scan"));
    fact(result.settle_s, |s| format!("settled in {}", duration(s * 1e9)));
    let share = result.device_share.as_ref().map(|share| wrapped(&share.words(), ", "));
    let unsent = (result.unsent_ops > 0).then(|| {
        let unsent = counted(result.unsent_ops, "operation");
        match report.partial {
            false => format!(
                "OVERLOAD: {unsent} due and never sent; the percentiles are those of the others"
            ),
            true => format!("{unsent} due and not yet sent when it was cut short"),
        }
    });
    // What was never sent says it already.
    let behind = result.behind_s.filter(|_| unsent.is_none()).map(|seconds| {
        format!(
            "BEHIND: the last operations ended {} after the schedule did: the rate was not kept up \
             with, and the longer the run, the longer they wait",
            duration(seconds * 1e9)
        )
    });
    let inserted = result.operations.get(&OpKind::Insert).map_or(0, |of| of.ops);
    let beyond = (report.command == "load" && inserted > result.records).then(|| {
        format!(
            "{} more were loaded behind one that is missing, and do not count",
            counted(inserted - result.records, "record")
        )
    });
    let saturated = (result.saturated_ops > 0)
        .then(|| format!("{} operations took longer than an hour", grouped(result.saturated_ops)));
    let wrong = (result.wrong_reads > 0).then(|| {
        format!(
            "WRONG: {} returned something else than what was written; first: {}",
            counted(result.wrong_reads, "read"),
            result.first_wrong_read.as_deref().unwrap_or("unknown")
        )
    });
    let changing = result.steady.as_ref().filter(|steady| !steady.is_steady);
    let changing = changing
        .map(|steady| format!("NOT STEADY: {}", steady.reason.as_deref().unwrap_or_default()));
    let warm_up = result.warm_up_steady.as_ref().filter(|steady| !steady.is_steady);
    let warm_up = warm_up.map(|steady| {
        let reason = steady.reason.as_deref().unwrap_or_default();
        format!("NOT STEADY when the warm-up ended: {reason}")
    });
    let notes = unsent
        .into_iter()
        .chain(behind)
        .chain(beyond)
        .chain(saturated)
        .chain(warm_up)
        .chain(changing)
        .chain(wrong)
        .map(|note| wrapped(&note, " "));
    [String::new(), wrapped(&facts.join("; "), "; ")].into_iter().chain(share).chain(notes)
}

/// `text` with line breaks at some of its separators, so that no line is longer
/// than a terminal's, unless it holds no separator.
pub(crate) fn wrapped(text: &str, separator: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for piece in text.split_inclusive(separator) {
        // The space at the end of a line is not written.
        let chars = line.chars().count() + piece.trim_end().chars().count();
        if !line.is_empty() && chars > LINE_CHARS_MAX {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line.clear();
        }
        line.push_str(piece);
    }
    lines + &line
}

/// A duration with three digits and its unit: six characters up to an hour.
#[must_use]
pub fn duration(ns: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "us")];
    // What would be rounded up to 1000 belongs to the next unit.
    let found = units.into_iter().find(|(factor, _)| ns >= factor * 0.9995);
    let Some((factor, unit)) = found else {
        return format!("{ns:.0}ns");
    };
    let value = ns / factor;
    let decimals = match value {
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{unit}")
}

/// So many of something that a plain s makes several of.
#[must_use]
pub fn counted(number: u64, of: &str) -> String {
    format!("{} {of}{}", grouped(number), if number == 1 { "" } else { "s" })
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
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::Duration;

    use clap::ValueEnum;

    use super::*;
    use crate::cli::Io;
    use crate::device_share::{DeviceShare, Share};
    use crate::machine::Machine;
    use crate::report::{Config, Operation, Versions};
    use crate::steady::Steady;
    use crate::target::Device;
    use crate::workload::{BuiltIn, Workload};
    use ourodb::{Compression, Durability};

    #[test]
    fn durations_have_three_digits() {
        let expected = [
            (0.0, "0ns"),
            (999.0, "999ns"),
            (1000.0, "1.00us"),
            (9_994.0, "9.99us"),
            (9_996.0, "10.0us"),
            (99_960.0, "100us"),
            (999_400.0, "999us"),
            (999_600.0, "1.00ms"),
            (12_345_678.0, "12.3ms"),
            (1e9, "1.00s"),
            (3.6e12, "3600s"),
        ];
        for (ns, text) in expected {
            assert_eq!(duration(ns), text);
        }
    }

    /// The most that a minute at millions of operations a second can give.
    pub(crate) fn large(command: &'static str, workload: Option<BuiltIn>) -> Report {
        let workload = workload.map(Workload::from);
        let latency = Latency {
            mean: 9_987_654.3,
            min: 999,
            p50: 9_990,
            p90: 99_900,
            p99: 999_000,
            p99_9: 9_990_000,
            p99_99: 99_900_000,
            max: 59_900_000_000,
        };
        let operation = Operation {
            ops: 99_999_999,
            ops_per_s: 9_999_999.4,
            latency_ns: latency,
            service_ns: Some(latency),
            quantiles: Vec::new(),
            service_quantiles: None,
        };
        let share = Share { engine: 99.9, device: 1.0, share: 99.9, io: Io::Blocking, depth: 4096 };
        Report {
            format: 1,
            command,
            partial: true,
            failure: None,
            cut_short_in: None,
            started: "2026-11-20T12:00:00Z".to_owned(),
            started_unix_s: 1_795_176_000,
            versions: Versions::THIS,
            config: Config {
                engine: "ourodb",
                settings: serde_json::Value::Null,
                dir: "./ouro-bench-data".to_owned(),
                workload: workload.as_ref().map(|of| of.name.clone()),
                description: workload.as_ref().map(|of| of.description.clone()),
                percent: workload.as_ref().map(|of| of.mix.percent()).unwrap_or_default(),
                background: None,
                scan_rows_max: None,
                multi_get_keys: None,
                delete_range_rows: None,
                distribution: workload.map(|of| of.mix.choice().to_string()),
                records: 999_999_999,
                key_bytes: 24,
                key_sizes: "24".to_owned(),
                value_bytes: 65_536,
                value_sizes: "65536".to_owned(),
                compressible: 0.5,
                data_seed: 1,
                seed: 1,
                clients: 4096,
                client_kind: ClientKind::Thread,
                depth: 1,
                r#loop: "open",
                rate_ops_per_s: Some(1_000_000_000),
                rate: Some("1000000000".to_owned()),
                arrivals: Some(Arrivals::Poisson),
                seconds: Some(60.0),
                read_first: false,
                warm_up_s: None,
                owners: Some(2),
                spin_ns: Some(20_000),
                requests_max: Some(1024),
                shards: Some(64),
                memory_bytes: 256 << 20,
                durability: Durability::Relaxed { within: Duration::from_millis(99_999) },
                io: Some(Io::Blocking),
                compression: Compression::Zstd,
            },
            machine: Machine::look(Path::new("/")),
            result: Measured {
                elapsed_s: 59.9,
                settle_s: Some(59.9),
                ops: 99_999_999,
                ops_per_s: 9_999_999.4,
                unsent_ops: 999_999_999,
                behind_s: None,
                saturated_ops: 999_999_999,
                wrong_reads: 999_999_999,
                first_wrong_read: Some("record 999999998 has a wrong value".to_owned()),
                records: 999_999_999,
                cpu_ns: 59_900_000_000,
                cpu_ns_per_op: Some(59_900_000.0),
                put_bytes: 1 << 40,
                bytes_written_per_byte_put: Some(12.34),
                device_reads_per_get: Some(12.34),
                device_reads_per_scan: Some(123.45),
                device: Some(Device {
                    reads: Some(1),
                    bytes_read: 1,
                    writes: Some(1),
                    bytes_written: 1,
                    syncs: Some(1),
                    durable_writes: Some(1),
                }),
                device_share: Some(DeviceShare {
                    calibrated: "2026-11-20T12:00:00Z".to_owned(),
                    reads_per_s: Some(share),
                    bytes_read_per_s: Some(share),
                    bytes_written_per_s: Some(share),
                    durable_writes_per_s: Some(share),
                }),
                operations: OpKind::ALL.into_iter().map(|kind| (kind, operation.clone())).collect(),
                engine: BTreeMap::new(),
                steady: Some(Steady {
                    is_steady: false,
                    reason: Some("throughput went from 999999/s to 9999/s".to_owned()),
                }),
                warm_up_steady: Some(Steady {
                    is_steady: false,
                    reason: Some("the cache's hit rate went from 10 % to 99 %".to_owned()),
                }),
                find_max: None,
                intervals: Vec::new(),
            },
        }
    }

    #[test]
    fn no_line_is_longer_than_a_terminals() {
        let load = std::iter::once(large("load", None));
        let runs = BuiltIn::value_variants().iter().map(|of| large("run", Some(*of)));
        for report in load.chain(runs) {
            let text = render(&report);
            for line in text.lines() {
                assert!(line.chars().count() <= 80 && line.trim_end() == line, "{line:?}\n{text}");
            }
            // Nothing is lost at a line's end.
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for part in [
                "4,096 clients, open loop at 1,000,000,000/s, Poisson; relaxed:99999ms;",
                "records of 24 + 65536 bytes",
                "59.9ms of CPU per operation; 12.34 bytes written per byte put; 12.34 device",
                "99,999,999 9,999,999 9.99us 99.9us 999us 9.99ms 99.9ms 59.9s",
                "9990 % of its write bandwidth, 9990 % of its durable writes/s at depth 4096",
                "999,999,999 operations due and not yet sent when it was cut short",
            ] {
                assert!(words.contains(part), "{text}");
            }
        }
    }

    #[test]
    fn a_rate_that_was_not_kept_up_with_is_told() {
        let words = |unsent_ops, behind_s| {
            let mut report = large("run", None);
            report.partial = false;
            (report.result.unsent_ops, report.result.behind_s) = (unsent_ops, behind_s);
            render(&report).split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let behind = "BEHIND: the last operations ended 830ms after the schedule did";
        assert!(words(0, Some(0.83)).contains(behind), "{}", words(0, Some(0.83)));
        assert!(!words(0, None).contains("BEHIND"));
        let unsent = words(5, Some(1.0));
        assert!(unsent.contains("OVERLOAD") && !unsent.contains("BEHIND"), "{unsent}");
    }

    #[test]
    fn what_is_partial_says_where_it_ended() {
        let says = |command, failure: Option<&str>, cut_short_in| {
            let failure = failure.map(str::to_owned);
            let report = Report { failure, cut_short_in, ..large(command, None) };
            render(&report).split_whitespace().collect::<Vec<_>>().join(" ")
        };
        for (text, words) in [
            (says("load", None, Some("settling")), "(PARTIAL: it was cut short while settling)"),
            (says("load", Some("full"), Some("settling")), "(PARTIAL: it failed while settling)"),
            (says("load", Some("full"), None), "(PARTIAL: it failed)"),
            (
                says("run", Some("damaged"), Some("warming up")),
                "(PARTIAL: it failed while warming up, and nothing was measured)",
            ),
            (
                says("run", None, Some("settling")),
                "(PARTIAL: it was cut short while settling, and nothing was measured)",
            ),
            (says("run", None, None), "(PARTIAL: it was cut short)"),
        ] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn lines_break_at_separators_only() {
        let fact = |length: usize| "x".repeat(length);
        assert_eq!(wrapped("", "; "), "");
        assert_eq!(wrapped("one two; three", "; "), "one two; three");
        let (fits, long) = (format!("{}; {}", fact(39), fact(39)), fact(100));
        assert_eq!(wrapped(&fits, "; "), fits);
        let breaks = format!("{}; {}", fact(39), fact(40));
        assert_eq!(wrapped(&breaks, "; "), format!("{};\n{}", fact(39), fact(40)));
        assert_eq!(wrapped(&format!("a; {long}; b"), "; "), format!("a;\n{long};\nb"));
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
