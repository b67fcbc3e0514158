//! `all`: every row of the comparison, measured in turn, as one report.
//!
//! [`plan`] says what is measured, and what each figure is to come to;
//! [`contestant`] who is. Each measurement is a process of its own: this binary's
//! `load` or `run`, [`fio`], or a [`build`]; [`figures`] is what is kept of it.
//! [`report`] puts figures and goals together, [`page`] shows that in a browser.

pub mod build;
pub mod contestant;
pub mod figures;
pub mod fio;
pub mod page;
pub mod plan;
pub mod report;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ouro_bench::cgroup::Cgroup;
use ouro_bench::cli::{ClientKind, WarmUp, parse_seconds};
use ouro_bench::failure::Failure;
use ouro_bench::machine::{Machine, free_bytes, sync};
use ouro_bench::output::{Output, warn};
use ouro_bench::table::{duration, grouped};

use crate::child::{Telling, this_binary};
use crate::turns::order;
use contestant::Contestant;
use figures::{Figures, bytes_on_disk};
use fio::Fio;
use plan::{Action, Group, RECORD_BYTES, Step, groups};
use report::{Results, Sample, Settings};

/// Rows that engines which commit row by row put into one commit, where nobody
/// judges the load.
const LOAD_BATCH: &str = "1000";
/// With less there is nothing to look at.
const SCALE_MIN: f64 = 0.001;

/// A directory with this file in it was made by this command, which may empty it.
const MARK: &str = "ouro-compare-all";
/// Where cgroups are mounted, if they are not.
const CGROUPS: &str = "cgroups";

/// The flags of `all`.
#[derive(Args, Debug, Clone)]
pub struct AllArgs {
    /// A directory for all data, new or of an earlier `all`; it takes some 15 GB
    #[arg(long, value_name = "D")]
    pub dir: PathBuf,
    /// How often each contestant has its turn
    #[arg(long, value_name = "N", default_value = "3")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// How long each workload runs
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse_seconds)]
    pub seconds: Duration,
    /// How long it runs before that, unmeasured, so that caches fill
    #[arg(long, value_name = "S", default_value = "10")]
    pub warm_up: WarmUp,
    /// Who takes part, beside OuroDB [default: all that this binary has, and fio if it is installed]
    #[arg(long, value_name = "C,…", value_delimiter = ',')]
    pub contestants: Option<Vec<Contestant>>,
    /// Which groups of rows: cached, loads, beyond, durable, build [default: all]
    #[arg(long, value_name = "G,…", value_delimiter = ',', value_parser = parse_group)]
    pub groups: Option<Vec<String>>,
    /// Multiply records and memory by this, for a first look: figures then say little
    #[arg(long, value_name = "F", default_value = "1", value_parser = parse_scale)]
    pub scale: f64,
    /// Where the report goes besides.
    #[command(flatten)]
    pub output: ReportArgs,
}

/// The flags of `report`.
#[derive(Args, Debug, Clone)]
pub struct MergeArgs {
    /// Results of `all --json`, of one machine
    #[arg(value_name = "RESULT.json", required = true)]
    pub files: Vec<PathBuf>,
    /// Where the report goes besides.
    #[command(flatten)]
    pub output: ReportArgs,
}

/// Where a report goes besides the terminal.
#[derive(Args, Debug, Clone, Default)]
pub struct ReportArgs {
    /// Write it as JSON to this file too; - is stdout (the table then goes to stderr)
    #[arg(long, value_name = "F")]
    pub json: Option<PathBuf>,
    /// Write it to this file as a page, which needs nothing else
    #[arg(long, value_name = "F")]
    pub html: Option<PathBuf>,
}

impl ReportArgs {
    fn open(&self) -> Result<Output, Failure> {
        let (json, html) = (self.json.clone(), self.html.clone());
        Output::new(&ouro_bench::cli::OutputArgs { json, hlog: None, html })
    }

    fn write(&self, output: &Output, results: &Results) -> Result<(), Failure> {
        output.result(&report::render(results), results)?;
        match &self.html {
            Some(path) => fs::write(path, page::render(results))
                .map_err(Failure::os(format!("cannot write {}", path.display()))),
            None => Ok(()),
        }
    }
}

fn parse_group(text: &str) -> Result<String, String> {
    let names: Vec<&str> = groups().iter().map(|group| group.name).collect();
    match names.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("one of {}", names.join(", "))),
    }
}

fn parse_scale(text: &str) -> Result<f64, String> {
    let scale = text.parse::<f64>().ok().filter(|scale| (SCALE_MIN..=1000.0).contains(scale));
    scale.ok_or_else(|| format!("a number from {SCALE_MIN} to 1000"))
}

/// Puts results of several times together.
///
/// # Errors
/// When a file cannot be read, or they do not go together.
pub fn merge(args: &MergeArgs) -> Result<(), Failure> {
    let output = args.output.open()?;
    let results = Results::read(&args.files)?;
    args.output.write(&output, &results)
}

/// Measures everything, and writes the report. What fails is named in it, and
/// everything else is measured all the same.
///
/// # Errors
/// When it was called wrongly, was interrupted (after the report of what there is), or when
/// something has failed.
pub fn run(args: &AllArgs, interrupt: &AtomicBool) -> Result<(), Failure> {
    let output = args.output.open()?;
    let contestants = contestants(args)?;
    make_dir(&args.dir)?;
    let mut groups = groups();
    groups.retain(|group| {
        args.groups.as_ref().is_none_or(|of| of.iter().any(|name| name == group.name))
    });
    let settings = Settings {
        seconds: args.seconds.as_secs_f64(),
        warm_up: warm_up(args.warm_up),
        scale: args.scale,
        contestants: contestants.clone(),
    };
    check_space(args, &groups, &contestants)?;
    let machine = Machine::look(&args.dir);
    let results = |samples: &[Sample], partial| {
        Results::new(settings.clone(), &machine, samples.to_vec(), partial)
    };
    let mut suite = Suite { args, interrupt, contestants, samples: Vec::new() };
    // Of a run that was killed.
    suite.clean()?;
    // What is missing is said before hours of measuring.
    let cgroups: Vec<Option<Cgroup>> =
        groups.iter().map(|group| suite.cgroup(group)).collect::<Result<_, _>>()?;
    let measured = groups.iter().zip(&cgroups).try_for_each(|(group, cgroup)| {
        // Hours of measuring may be killed.
        let keep = |samples: &[Sample]| output.so_far(&results(samples, true));
        let measured = suite.measure(group, cgroup.as_ref(), keep);
        suite.clean().and(measured)
    });
    drop(cgroups);
    // It is there only if cgroups had to be mounted.
    let _ = fs::remove_dir(args.dir.join(CGROUPS));
    let results = results(&suite.samples, measured.is_err());
    args.output.write(&output, &results)?;
    measured?;
    match results.failures() {
        0 => Ok(()),
        failures => Err(Failure::Other(format!("{failures} measurements failed"))),
    }
}

/// Makes the directory, if it is not there, or takes that of an earlier `all`.
fn make_dir(dir: &Path) -> Result<(), Failure> {
    let name = dir.display();
    fs::create_dir_all(dir).map_err(Failure::os(format!("cannot create {name}")))?;
    let mark = dir.join(MARK);
    let mut entries = fs::read_dir(dir).map_err(Failure::os(format!("cannot read {name}")))?;
    if !mark.exists() && entries.next().is_some() {
        let reason =
            format!("{name} has something in it that is not of this tool: name another --dir");
        return Err(Failure::Usage(reason));
    }
    fs::write(&mark, "").map_err(Failure::os(format!("cannot write {}", mark.display())))
}

/// Refuses a disk that has no room for what is there at a time: a group's data, of everybody,
/// and what waits for compaction beside it.
fn check_space(
    args: &AllArgs,
    groups: &[Group],
    contestants: &[Contestant],
) -> Result<(), Failure> {
    const TIMES: f64 = 1.5;
    let bytes = groups.iter().map(|group| {
        let step = group.steps.first();
        let takes = |of: &&Contestant| step.is_some_and(|step| group.has(step, **of));
        let data = group.records as f64 * RECORD_BYTES as f64 * args.scale;
        data * TIMES * contestants.iter().filter(takes).count() as f64
    });
    let bytes = bytes.fold(0.0, f64::max);
    let dir = args.dir.display();
    // What cannot be found out, the loads find out.
    let Ok(Some(free)) = free_bytes(&args.dir) else { return Ok(()) };
    if bytes <= free as f64 {
        return Ok(());
    }
    let gib = |bytes: f64| format!("{:.1} GiB", bytes / (1_u64 << 30) as f64);
    let what = format!(
        "this takes about {} in {dir}, and {} are free: name another --dir, fewer --groups or \
         --contestants, or a --scale",
        gib(bytes),
        gib(free as f64)
    );
    Err(Failure::os(what)(io::ErrorKind::StorageFull.into()))
}

/// Who takes part: OuroDB in any case, and first.
fn contestants(args: &AllArgs) -> Result<Vec<Contestant>, Failure> {
    let all = Contestant::value_variants().iter().copied();
    let Some(asked) = &args.contestants else {
        let has_fio = fio::version().is_some();
        if !has_fio {
            warn(
                "fio is not installed (Debian: apt-get install fio): rows about the disk have no goal",
            );
        }
        return Ok(all
            .filter(|of| of.is_built_in() && (*of != Contestant::Fio || has_fio))
            .collect());
    };
    for contestant in asked {
        if !contestant.is_built_in() {
            let name = contestant.name();
            let reason =
                format!("this binary was built without {name}: see tools/compare/README.md");
            return Err(Failure::Unsupported(reason));
        }
        if *contestant == Contestant::Fio && fio::version().is_none() {
            let reason = "fio is not installed (Debian: apt-get install fio)";
            return Err(Failure::Unsupported(reason.to_owned()));
        }
    }
    Ok(all.filter(|of| *of == Contestant::OuroDb || asked.contains(of)).collect())
}

struct Suite<'a> {
    args: &'a AllArgs,
    interrupt: &'a AtomicBool,
    contestants: Vec<Contestant>,
    samples: Vec<Sample>,
}

impl Suite<'_> {
    /// What limits the memory of the processes of a group, if anything does.
    fn cgroup(&self, group: &Group) -> Result<Option<Cgroup>, Failure> {
        // What a process takes besides does not grow with the data.
        let limit = group
            .limit_mib
            .map(|mib| self.scaled_bytes(group.memory_mib) + ((mib - group.memory_mib) << 20));
        limit.map(|bytes| Cgroup::new(bytes, &self.args.dir.join(CGROUPS))).transpose().map_err(
            |what| {
                Failure::Unsupported(format!(
                    "the rows \"{}\" need root, and a memory cgroup: {what}; --groups \
                     cached,loads,durable,build do without",
                    group.about
                ))
            },
        )
    }

    /// Measures all rounds of a group; `keep` is told after each of all that there is.
    fn measure(
        &mut self,
        group: &Group,
        cgroup: Option<&Cgroup>,
        keep: impl Fn(&[Sample]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        eprintln!("{}", group.about);
        for round in 1..=self.rounds(group) {
            for step in &group.steps {
                let mut contestants = self.contestants.clone();
                contestants.retain(|contestant| group.has(step, *contestant));
                if contestants.is_empty() {
                    continue;
                }
                for turn in order(contestants.len(), round) {
                    let contestant = contestants[turn];
                    // What the one before left to be written, and in memory, is not this one's.
                    sync();
                    cgroup.map_or(Ok(()), Cgroup::empty).map_err(Failure::Other)?;
                    if self.interrupt.load(Ordering::Relaxed) {
                        return Err(Failure::Interrupted);
                    }
                    let procs = cgroup.map(Cgroup::join);
                    self.take_turn(group, round, step, contestant, procs.as_deref())?;
                }
            }
            keep(&self.samples)?;
        }
        Ok(())
    }

    fn rounds(&self, group: &Group) -> u32 {
        // Minutes each, and of compilers there is not much noise.
        let is_build = group.steps.iter().any(|step| step.action == Action::Build);
        if is_build { 1 } else { self.args.rounds }
    }

    fn take_turn(
        &mut self,
        group: &Group,
        round: u32,
        step: &Step,
        contestant: Contestant,
        cgroup: Option<&Path>,
    ) -> Result<(), Failure> {
        let measured = self.measure_one(group, step, contestant, cgroup);
        let said = match &measured {
            Ok(figures) => told(figures),
            // However a program ends that got the signal, too.
            Err(_) if self.interrupt.load(Ordering::Relaxed) => return Err(Failure::Interrupted),
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(failure) => failure.to_string(),
        };
        eprintln!("  round {round}  {:16} {:14} {said}", step.name, contestant.title());
        self.samples.push(match measured {
            Ok(figures) => Sample::new(step.name, contestant, round, figures),
            Err(failure) => Sample::failed(step.name, contestant, round, &failure),
        });
        Ok(())
    }

    fn measure_one(
        &self,
        group: &Group,
        step: &Step,
        contestant: Contestant,
        cgroup: Option<&Path>,
    ) -> Result<Figures, Failure> {
        let dir = self.dir(contestant);
        match step.action {
            Action::Fio { ioengine, jobs, depth } => {
                let file = Fio::new(&dir, self.records(group) * RECORD_BYTES);
                file.read(ioengine, jobs, depth, self.args.seconds.as_secs_f64())
            }
            Action::Build => build::build(&dir, contestant),
            Action::Load { .. } | Action::Run { .. } => {
                let flags = self.flags(group, step, contestant);
                let what = format!("{}: {}", contestant.title(), step.name);
                let report = this_binary(&what, &flags, cgroup, Telling::Kept)?;
                let mut figures = Figures::of_report(&report);
                if matches!(step.action, Action::Load { .. }) {
                    let live = (self.records(group) * RECORD_BYTES) as f64;
                    figures.bytes_on_disk_per_byte = Some(bytes_on_disk(&dir)? as f64 / live);
                }
                Ok(figures)
            }
        }
    }

    /// The command line of one `load` or `run`.
    fn flags(&self, group: &Group, step: &Step, contestant: Contestant) -> Vec<OsString> {
        let records = self.records(group).to_string();
        let (name, clients) = match step.action {
            Action::Load { clients, .. } => ("load", clients),
            Action::Run { clients, kind, depth, .. } => ("run", spread(kind, clients, depth).0),
            Action::Fio { .. } | Action::Build => unreachable!("no command of this binary"),
        };
        let mut flags: Vec<OsString> = vec![name.into()];
        flags.extend(contestant.flags());
        flags.extend(["--dir".into(), self.dir(contestant).into_os_string()]);
        let mut add = |flag: &str, value: String| flags.extend([flag.into(), value.into()]);
        add("--json", "-".to_owned());
        add("--clients", clients.to_string());
        add("--memory", self.scaled_bytes(group.memory_mib).to_string());
        match step.action {
            Action::Load { batches, .. } => {
                add("--records", records);
                if batches && contestant.is_loaded_in_batches() {
                    add("--load-batch", LOAD_BATCH.to_owned());
                }
                flags.push("--overwrite".into());
            }
            Action::Run { workload, kind, depth, rate, durable, .. } => {
                add("--workload", workload.to_owned());
                add("--client-kind", kind.name().to_owned());
                add("--depth", spread(kind, clients, depth).1.to_string());
                add("--seconds", self.args.seconds.as_secs_f64().to_string());
                if let Some(rate) = rate {
                    add("--rate", rate.to_string());
                }
                if durable {
                    add("--durability", "durable".to_owned());
                    add("--fresh", records);
                } else {
                    add("--warm-up", warm_up(self.args.warm_up));
                    if group.limit_mib.is_none() {
                        // Where all is to be in memory, it is.
                        flags.push("--read-first".into());
                    }
                }
            }
            Action::Fio { .. } | Action::Build => {}
        }
        flags
    }

    fn dir(&self, contestant: Contestant) -> PathBuf {
        self.args.dir.join(contestant.name())
    }

    fn records(&self, group: &Group) -> u64 {
        ((group.records as f64 * self.args.scale) as u64).max(1)
    }

    fn scaled_bytes(&self, mib: u64) -> u64 {
        // Below this engines have too little to work with.
        const MIB_MIN: f64 = 64.0;
        ((mib as f64 * self.args.scale).max(MIB_MIN) as u64) << 20
    }

    /// Removes all data; what is below the mark is this tool's.
    fn clean(&self) -> Result<(), Failure> {
        for contestant in Contestant::value_variants() {
            let dir = self.dir(*contestant);
            if dir.exists() {
                fs::remove_dir_all(&dir)
                    .map_err(Failure::os(format!("cannot remove {}", dir.display())))?;
            }
        }
        Ok(())
    }
}

/// How many clients, and how deep. A client on an owner has the keys of that owner alone: where
/// several operations are in flight, there is one on each.
fn spread(kind: ClientKind, clients: usize, depth: usize) -> (usize, usize) {
    let in_flight = clients * depth;
    if kind != ClientKind::Owner || in_flight == 1 {
        return (clients, depth);
    }
    let owners = thread::available_parallelism().map_or(1, usize::from).min(in_flight);
    (owners, in_flight / owners)
}

/// As the flag has it.
fn warm_up(warm_up: WarmUp) -> String {
    match warm_up {
        WarmUp::Time(time) => time.as_secs_f64().to_string(),
        WarmUp::Steady(time) => format!("steady:{}", time.as_secs_f64()),
    }
}

/// What is said of a measurement as it ends.
fn told(figures: &Figures) -> String {
    let mut parts = Vec::new();
    match (figures.ops_per_s, figures.seconds) {
        (Some(rate), _) => parts.push(format!("{:>10}/s", grouped(rate.round() as u64))),
        (None, Some(seconds)) => parts.push(format!("{seconds:>10.1} s")),
        (None, None) => {}
    }
    if let Some(cpu) = figures.cpu_ns_per_op {
        parts.push(format!("CPU {}", duration(cpu)));
    }
    if let Some(p99_9) = figures.p99_9_ns {
        parts.push(format!("p99.9 {}", duration(p99_9)));
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests;
