//! `alternate`: engines measured in turn, so that what drifts on the machine
//! drifts for all of them.
//!
//! Each load and each run is this binary again, as a process of its own, with
//! the flags that were given here: its CPU time and its memory are one engine's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ArgMatches;
use clap::parser::ValueSource;
use ouro_bench::cli::ClientKind;
use ouro_bench::directory::read_shape;
use ouro_bench::failure::Failure;
use ouro_bench::machine::sync;
use ouro_bench::output::Output;
use ouro_bench::shape::Shape;
use ouro_bench::table::{aligned, duration, grouped};
use ouro_bench::workload::Workload;
use serde::Serialize;
use serde_json::Value;

use crate::child::{Telling, this_binary};
use crate::cli::{AlternateArgs, Engine, command};
use crate::suite::report::median;
use crate::turns::order;

/// The format of the result.
const FORMAT: u32 = 1;
/// Flags that differ between this command and the processes it starts.
const OWN_FLAGS: [&str; 9] =
    ["dir", "json", "hlog", "html", "overwrite", "clients", "direct", "compact", "load_batch"];

/// The result of all rounds.
#[derive(Debug, Serialize)]
struct Comparison {
    format: u32,
    rounds: u32,
    /// Whether it was cut short, or a run failed.
    partial: bool,
    medians: Vec<Medians>,
    runs: Vec<Run>,
}

/// What one process printed.
#[derive(Debug, Serialize)]
struct Run {
    round: u32,
    engine: String,
    report: Value,
}

/// One kind of operation of one engine: the median of each figure over its runs.
#[derive(Debug, PartialEq, Serialize)]
struct Medians {
    engine: String,
    /// `load` or `run`.
    command: String,
    operation: String,
    runs: usize,
    ops_per_s: f64,
    /// Of the whole process, for an operation of any kind.
    cpu_ns_per_op: f64,
    p50_ns: f64,
    p99_ns: f64,
    p99_9_ns: f64,
}

/// Runs all rounds and prints the medians. `given` are the flags as they were
/// given.
pub fn run(
    args: &AlternateArgs,
    given: &ArgMatches,
    interrupt: &AtomicBool,
) -> Result<(), Failure> {
    let kind = args.load.common.client_kind;
    if kind != ClientKind::Thread && args.engines.iter().any(|e| *e != Engine::OuroDb) {
        return Err(Failure::Usage(format!(
            "--client-kind {}: only OuroDB has operations to await; use --engines ourodb",
            kind.name()
        )));
    }
    if args.fresh.is_some() && args.extras.load_batch > 1 {
        let reason = "--load-batch is for loads of their own: with --fresh each run loads";
        return Err(Failure::Usage(reason.to_owned()));
    }
    let output = Output::new(&args.load.common.output)?;
    let mut runs = Vec::new();
    let measured = measure(args, given, interrupt, &mut runs);
    if measured.is_ok() || !runs.is_empty() {
        let medians = medians(&runs);
        let partial = measured.is_err();
        let text = render(args, partial, &medians);
        let comparison = Comparison { format: FORMAT, rounds: args.rounds, partial, medians, runs };
        output.result(&text, &comparison)?;
    }
    measured
}

/// Runs all rounds, until one fails.
fn measure(
    args: &AlternateArgs,
    given: &ArgMatches,
    interrupt: &AtomicBool,
    runs: &mut Vec<Run>,
) -> Result<(), Failure> {
    for round in 1..=args.rounds {
        for turn in order(args.engines.len(), round) {
            let engine = args.engines[turn];
            // What the one before left to be written is not this one's.
            sync();
            let mut measure = |name: &str, flags: Vec<OsString>| {
                if interrupt.load(Ordering::Relaxed) {
                    return Err(Failure::Interrupted);
                }
                eprintln!("\nround {round} of {}: {}: {name}", args.rounds, engine.name());
                let what = format!("{}: {name}", engine.name());
                let report = this_binary(&what, &flags, None, Telling::Shown)?;
                runs.push(Run { round, engine: engine.name(), report });
                Ok(())
            };
            if needs_load(args, engine, round)? {
                measure("load", load_flags(args, given, engine, round))?;
            }
            if args.workload.is_some() {
                measure("run", run_flags(args, given, engine))?;
            }
        }
    }
    Ok(())
}

fn directory(args: &AlternateArgs, engine: Engine) -> PathBuf {
    args.load.common.dir.join(engine.name())
}

/// Whether the workload changes the data.
fn writes(workload: &Workload) -> bool {
    workload.has(|kind| kind.puts() || kind.deletes())
}

fn needs_load(args: &AlternateArgs, engine: Engine, round: u32) -> Result<bool, Failure> {
    if args.fresh.is_some() {
        return Ok(false);
    }
    if args.workload.as_ref().is_none_or(writes) || (round == 1 && args.load.overwrite) {
        return Ok(true);
    }
    let load = &args.load;
    let wanted = Shape::new(load.records, load.key_bytes, load.value_bytes, load.common.seed)
        .map_err(Failure::Usage)?;
    let (compression, compressible) = (load.compression, load.compressible);
    let wanted = Shape { compression, compressible, ..wanted };
    // Whatever else is there, the load refuses to replace.
    Ok(read_shape(&directory(args, engine)).ok() != Some(wanted))
}

fn load_flags(
    args: &AlternateArgs,
    given: &ArgMatches,
    engine: Engine,
    round: u32,
) -> Vec<OsString> {
    let clients = args.workload.as_ref().and(args.load_clients).unwrap_or(args.load.common.clients);
    let mut flags = child_flags("load", args, given, engine, clients);
    let load_batch = engine.applicable(args.extras).load_batch;
    if load_batch > 1 {
        flags.extend(["--load-batch".into(), load_batch.to_string().into()]);
    }
    // What an earlier round left is this command's own.
    if args.load.overwrite || round > 1 {
        flags.push("--overwrite".into());
    }
    flags
}

fn run_flags(args: &AlternateArgs, given: &ArgMatches, engine: Engine) -> Vec<OsString> {
    child_flags("run", args, given, engine, args.load.common.clients)
}

/// The flags of this command that the command `name` has too, as they were
/// given, and those that differ.
fn child_flags(
    name: &str,
    args: &AlternateArgs,
    given: &ArgMatches,
    engine: Engine,
    clients: usize,
) -> Vec<OsString> {
    let mut flags: Vec<OsString> =
        vec![name.into(), "--engine".into(), engine.name().into(), "--dir".into()];
    flags.push(directory(args, engine).into());
    flags.extend(["--clients".into(), clients.to_string().into()]);
    flags.extend(["--json".into(), "-".into()]);
    let extras = engine.applicable(args.extras);
    let extras = [("--direct", extras.direct), ("--compact", extras.compact)];
    flags.extend(extras.into_iter().filter(|(_, on)| *on).map(|(flag, _)| flag.into()));
    let command = command();
    let shared = command.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments);
    for flag in shared {
        let id = flag.get_id().as_str();
        let is_given = matches!(given.try_contains_id(id), Ok(true))
            && given.value_source(id) == Some(ValueSource::CommandLine);
        if !is_given || OWN_FLAGS.contains(&id) {
            continue;
        }
        for value in given.get_raw(id).into_iter().flatten() {
            flags.push(format!("--{}", flag.get_long().unwrap_or(id)).into());
            flags.push(value.to_owned());
        }
    }
    flags
}

/// Medians by command, engine and kind of operation: first the loads, then the
/// runs, engines in the order of the first round.
fn medians(runs: &[Run]) -> Vec<Medians> {
    let mut order: Vec<&str> = Vec::new();
    let mut samples: BTreeMap<(&str, usize, &str), Vec<[f64; 5]>> = BTreeMap::new();
    for run in runs {
        let place = order.iter().position(|engine| *engine == run.engine).unwrap_or_else(|| {
            order.push(&run.engine);
            order.len() - 1
        });
        let command = run.report["command"].as_str().unwrap_or_default();
        let result = &run.report["result"];
        let number = |value: &Value| value.as_f64().unwrap_or_default();
        for (kind, operation) in result["operations"].as_object().into_iter().flatten() {
            let latency = &operation["latency_ns"];
            samples.entry((command, place, kind)).or_default().push([
                number(&operation["ops_per_s"]),
                number(&result["cpu_ns_per_op"]),
                number(&latency["p50"]),
                number(&latency["p99"]),
                number(&latency["p99_9"]),
            ]);
        }
    }
    let medians = samples.into_iter().map(|((command, place, kind), samples)| {
        let [ops_per_s, cpu_ns_per_op, p50_ns, p99_ns, p99_9_ns] = std::array::from_fn(|i| {
            // There is one at least.
            median(samples.iter().map(|sample| sample[i]).collect()).unwrap_or_default()
        });
        Medians {
            engine: order[place].to_owned(),
            command: command.to_owned(),
            operation: kind.to_owned(),
            runs: samples.len(),
            ops_per_s,
            cpu_ns_per_op,
            p50_ns,
            p99_ns,
            p99_9_ns,
        }
    });
    medians.collect()
}

fn render(args: &AlternateArgs, partial: bool, medians: &[Medians]) -> String {
    let workload = args.workload.as_ref().map_or_else(|| "load".to_owned(), |of| of.name.clone());
    let clients = args.load.common.clients;
    let columns = ["engine", "command", "operation", "runs", "ops/s", "CPU/op", "p50", "p99"];
    let mut rows = vec![std::array::from_fn(|i| columns.get(i).unwrap_or(&"p99.9").to_string())];
    rows.extend(medians.iter().map(|of| {
        [
            of.engine.clone(),
            of.command.clone(),
            of.operation.clone(),
            of.runs.to_string(),
            grouped(of.ops_per_s.round() as u64),
            duration(of.cpu_ns_per_op),
            duration(of.p50_ns),
            duration(of.p99_ns),
            duration(of.p99_9_ns),
        ]
    }));
    let partial = if partial { " (PARTIAL: it was cut short)" } else { "" };
    format!("{workload}, clients: {clients}; medians{partial}\n{}\n", aligned::<9>(&rows))
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;
    use serde_json::json;

    use ouro_bench::workload::BuiltIn;

    use super::*;
    use crate::cli::{Cli, Commands};

    /// What `alternate` with these flags hands to its processes.
    fn flags(engine: Engine, line: &str) -> (String, String) {
        let line = format!("ouro-compare alternate --dir d {line}");
        let matches = command().try_get_matches_from(line.split_whitespace()).unwrap();
        let Commands::Alternate(args) = Cli::from_arg_matches(&matches).unwrap().command else {
            panic!("{line} does not alternate");
        };
        let (_, given) = matches.subcommand().unwrap();
        let joined = |flags: Vec<OsString>| flags.join(" ".as_ref()).into_string().unwrap();
        let load = load_flags(&args, given, engine, 1);
        (joined(load), joined(run_flags(&args, given, engine)))
    }

    #[test]
    fn each_process_gets_the_flags_it_has() {
        let begin = "--engine fjall --dir d/fjall --clients";
        assert_eq!(
            flags(Engine::Fjall, "--workload c"),
            (format!("load {begin} 1 --json -"), format!("run {begin} 1 --json - --workload c"))
        );
        let (load, run) = flags(
            Engine::Fjall,
            "--workload c --seconds 2 --warm-up 3 --rate 9 --records 7 --memory 64MiB --clients 8 \
             --load-clients 3 --overwrite --direct --compact --load-batch 5 --durability \
             process-safe --json x",
        );
        assert_eq!(
            load,
            format!(
                "load {begin} 3 --json - --compact --records 7 --memory 64MiB --durability \
                 process-safe --overwrite"
            )
        );
        assert_eq!(
            run,
            format!(
                "run {begin} 8 --json - --compact --workload c --seconds 2 --warm-up 3 --rate 9 \
                 --memory 64MiB --durability process-safe"
            )
        );
    }

    #[test]
    fn only_loads_get_a_batch() {
        let (load, run) = flags(Engine::Redb, "--workload c --compact --load-batch 5");
        assert_eq!(load, "load --engine redb --dir d/redb --clients 1 --json - --load-batch 5");
        assert_eq!(run, "run --engine redb --dir d/redb --clients 1 --json - --workload c");
    }

    #[test]
    fn only_reading_leaves_the_data_as_it_is() {
        for workload in [BuiltIn::C, BuiltIn::GetAbsent, BuiltIn::Scan] {
            assert!(!writes(&workload.into()), "{workload:?}");
        }
        for workload in [BuiltIn::A, BuiltIn::D, BuiltIn::ReadWhileWriting] {
            assert!(writes(&workload.into()), "{workload:?}");
        }
    }

    #[test]
    fn medians_are_taken_for_each_figure() {
        let run = |engine: &str, ops: u64, p99: u64| Run {
            round: 1,
            engine: engine.to_owned(),
            report: json!({"command": "run", "result": {"cpu_ns_per_op": 10.0, "operations": {
                "read": {"ops_per_s": ops, "latency_ns": {"p50": 1, "p99": p99, "p99_9": 9}}}}}),
        };
        let runs = [run("z", 1, 30), run("a", 8, 7), run("z", 3, 20), run("z", 2, 50)];
        let found = medians(&runs);
        let figures = found.iter().map(|m| (&*m.engine, m.runs, m.ops_per_s, m.p99_ns));
        let figures: Vec<_> = figures.collect();
        assert_eq!(figures, [("z", 3, 2.0, 30.0), ("a", 1, 8.0, 7.0)]);
        assert_eq!(found[0].command, "run");
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
