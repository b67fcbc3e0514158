//! Figures and goals put together: medians, who is how many times better, and
//! whether that is what it was to be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use ouro_bench::failure::Failure;
use ouro_bench::machine::Machine;
use ouro_bench::report::Versions;
use ouro_bench::table::{duration, grouped};
use serde::{Deserialize, Serialize};

use super::contestant::Contestant;
use super::figures::Figures;
use super::plan::{Figure, Goal, ROWS, Row, groups, is_batched};
use super::{build, fio};

/// The format of results.
const FORMAT: u32 = 1;

/// All that was measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    format: u32,
    /// Whether it was cut short.
    pub partial: bool,
    /// When each part of it ended, in UTC.
    pub ended: Vec<String>,
    /// The commits it was built from.
    pub commits: Vec<String>,
    /// What was measured, by contestant.
    pub versions: BTreeMap<String, String>,
    /// Where it was measured, in a few words.
    pub machine: String,
    /// What was asked for.
    pub settings: Settings,
    /// In the order of measuring.
    pub samples: Vec<Sample>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as the flags of `all`")]
pub struct Settings {
    pub seconds: f64,
    pub warm_up: String,
    pub scale: f64,
    pub contestants: Vec<Contestant>,
}

/// What one contestant did in one step of one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    step: String,
    contestant: Contestant,
    round: u32,
    figures: Figures,
    /// Why there are none.
    failed: Option<String>,
}

impl Sample {
    /// One that was measured.
    #[must_use]
    pub fn new(step: &str, contestant: Contestant, round: u32, figures: Figures) -> Self {
        Self { step: step.to_owned(), contestant, round, figures, failed: None }
    }

    /// One that was not.
    #[must_use]
    pub fn failed(step: &str, contestant: Contestant, round: u32, failure: &Failure) -> Self {
        let failed = Some(failure.to_string());
        Self { failed, ..Self::new(step, contestant, round, Figures::default()) }
    }
}

impl Results {
    /// Of one `all`.
    #[must_use]
    pub fn new(settings: Settings, machine: &Machine, samples: Vec<Sample>, partial: bool) -> Self {
        let now = std::time::SystemTime::now();
        let cpus = machine.cpus.map(|cpus| format!("{cpus} cores"));
        let memory = machine.memory_bytes.map(|bytes| format!("{} GiB", bytes.div_ceil(1 << 30)));
        let disk = machine.device.clone().zip(machine.file_system.clone());
        let disk = disk.map(|(device, file_system)| format!("{file_system} on {device}"));
        let kernel = machine.kernel.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let parts = [machine.cpu.clone(), cpus, memory, disk, Some(kernel)];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        Self {
            format: FORMAT,
            partial,
            ended: vec![humantime::format_rfc3339_seconds(now).to_string()],
            commits: vec![Versions::THIS.commit.map_or("an unknown commit", short).to_owned()],
            versions: settings.contestants.iter().filter_map(|of| version(*of)).collect(),
            machine: parts.join(", "),
            settings,
            samples,
        }
    }

    /// Of files; what they have in common must go together.
    ///
    /// # Errors
    /// When one cannot be read, or is of something else.
    pub fn read(files: &[PathBuf]) -> Result<Self, Failure> {
        let mut all: Option<Self> = None;
        for path in files {
            let name = path.display();
            let text =
                fs::read_to_string(path).map_err(Failure::os(format!("cannot read {name}")))?;
            let found: Self = serde_json::from_str(&text).map_err(|error| {
                Failure::Usage(format!("{name} is no result of `ouro-compare all`: {error}"))
            })?;
            if found.format != FORMAT {
                let reason = format!("{name} has format {}, this tool {FORMAT}", found.format);
                return Err(Failure::Unsupported(reason));
            }
            let Some(all) = &mut all else {
                all = Some(found);
                continue;
            };
            let is_alike = |a: &Settings, b: &Settings| {
                (a.seconds, &a.warm_up, a.scale) == (b.seconds, &b.warm_up, b.scale)
            };
            let is_other = |(name, version): (&String, &String)| {
                all.versions.get(name).is_some_and(|known| known != version)
            };
            if found.machine != all.machine
                || !is_alike(&found.settings, &all.settings)
                || found.versions.iter().any(is_other)
            {
                return Err(Failure::Usage(format!(
                    "{name} was measured elsewhere, or otherwise, than {}",
                    files[0].display()
                )));
            }
            all.add(found);
        }
        all.ok_or_else(|| Failure::Usage("no results".to_owned()))
    }

    /// Rounds of the other come after one's own.
    fn add(&mut self, other: Self) {
        self.partial |= other.partial;
        self.ended.extend(other.ended);
        for commit in other.commits {
            if !self.commits.contains(&commit) {
                self.commits.push(commit);
            }
        }
        self.versions.extend(other.versions);
        let known = &mut self.settings.contestants;
        known.extend(other.settings.contestants);
        known.sort();
        known.dedup();
        // What was measured together stays together: rounds of a group, not of a step, of which
        // a round that was cut short lacks some.
        let groups = groups();
        let group_of = |step: &str| {
            groups.iter().position(|group| group.steps.iter().any(|of| of.name == step))
        };
        let mut before = BTreeMap::new();
        for sample in &self.samples {
            let most = before.entry(group_of(&sample.step)).or_default();
            *most = sample.round.max(*most);
        }
        self.samples.extend(other.samples.into_iter().map(|of| {
            let round = of.round + before.get(&group_of(&of.step)).copied().unwrap_or_default();
            Sample { round, ..of }
        }));
    }

    /// How many rounds there are of each step.
    fn rounds_of_steps(&self) -> BTreeMap<&str, usize> {
        let mut rounds: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        for sample in &self.samples {
            rounds.entry(&sample.step).or_default().insert(sample.round);
        }
        rounds.into_iter().map(|(step, rounds)| (step, rounds.len())).collect()
    }

    /// Measurements that failed.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.samples.iter().filter(|sample| sample.failed.is_some()).count()
    }

    /// What failed, each once.
    pub fn failed(&self) -> impl Iterator<Item = (&str, Contestant, &str)> {
        let failed = self.samples.iter().filter_map(|sample| {
            Some((&*sample.step, sample.contestant, sample.failed.as_deref()?))
        });
        let mut seen = Vec::new();
        failed.filter(move |(step, contestant, _)| {
            let is_new = !seen.contains(&(*step, *contestant));
            seen.push((*step, *contestant));
            is_new
        })
    }

    /// A figure in each round.
    fn rounds(&self, step: &str, contestant: Contestant, figure: Figure) -> Vec<(u32, f64)> {
        let of = |sample: &Sample| {
            let is_it = sample.step == step && sample.contestant == contestant;
            Some((sample.round, sample.figures.get(figure).filter(|_| is_it)?))
        };
        self.samples.iter().filter_map(of).collect()
    }

    /// The median of a figure.
    #[must_use]
    pub fn median(&self, step: &str, contestant: Contestant, figure: Figure) -> Option<f64> {
        median(self.rounds(step, contestant, figure).into_iter().map(|(_, value)| value).collect())
    }

    /// The rows of which anything was measured, with what came out.
    pub fn judged(&self) -> impl Iterator<Item = (&'static Row, Judged)> {
        ROWS.iter().filter_map(|row| Some((row, self.judge(row)?)))
    }

    /// Those that are asked for, have a turn in the step of the row's peers, and set goals.
    fn judges(&self, row: &Row) -> Vec<Contestant> {
        let groups = groups();
        let has = |judge: Contestant| {
            groups.iter().any(|group| {
                let step = group.steps.iter().find(|step| step.name == row.peers);
                step.is_some_and(|step| group.has(step, judge))
            })
        };
        let all = self.settings.contestants.iter().copied();
        all.filter(|contestant| contestant.is_judge() && has(*contestant)).collect()
    }

    /// Contestants that were in no steady state, or behind what was due, with the step and what it
    /// was; each once.
    pub fn doubtful(&self) -> impl Iterator<Item = (&str, Contestant, &'static str)> {
        let all = self.samples.iter().flat_map(|sample| {
            let Figures { not_steady, is_behind, .. } = sample.figures;
            let found = [(not_steady, "not steady"), (is_behind, "behind")];
            let found = found.into_iter().filter(|(is_so, _)| *is_so);
            found.map(|(_, what)| (&*sample.step, sample.contestant, what))
        });
        let mut seen = Vec::new();
        all.filter(move |doubt| {
            let is_new = !seen.contains(doubt);
            seen.push(*doubt);
            is_new
        })
    }

    fn judge(&self, row: &Row) -> Option<Judged> {
        let figure = row.figure;
        let is_ours =
            |sample: &&Sample| sample.step == row.step && sample.contestant == Contestant::OuroDb;
        let ours: Vec<&Sample> = self.samples.iter().filter(is_ours).collect();
        let tried = ours.len();
        let judges = self.judges(row);
        let of_round = |round: u32, step: &str, contestant: Contestant| {
            let rounds = self.rounds(step, contestant, figure);
            rounds.into_iter().find(|(of, _)| *of == round).map(|(_, value)| value)
        };
        let best = |round: u32| {
            let each = judges.iter().filter_map(|judge| of_round(round, row.peers, *judge));
            each.reduce(f64::max)
        };
        // Who was not there in the end cannot be beaten, and might be the best.
        let is_spoilt = |round: u32| {
            let is_missing = |judge: &Contestant| of_round(round, row.peers, *judge).is_none();
            matches!(row.goal, Goal::TimesBest(_)) && judges.iter().any(is_missing)
        };
        let disk = |round: u32, step: &str| of_round(round, step, Contestant::Fio);
        let compare = |sample: &&Sample| -> Option<f64> {
            let (round, ours) = (sample.round, sample.figures.get(figure)?);
            if is_spoilt(round) {
                return None;
            }
            Some(match row.goal {
                Goal::AtLeast(_) | Goal::AtMost(_) => ours,
                Goal::TimesBest(_) => ours / best(round)?,
                Goal::ShareOfDisk(_, step) | Goal::TimesDisk(_, step) => ours / disk(round, step)?,
                Goal::DiskPlus(_, step) => ours - disk(round, step)?,
            })
        };
        let compared: Vec<f64> = ours.iter().filter_map(compare).collect();
        let is_met = |value: &&f64| match row.goal {
            Goal::TimesBest(least) | Goal::AtLeast(least) | Goal::ShareOfDisk(least, _) => {
                **value >= least
            }
            Goal::AtMost(most) | Goal::TimesDisk(most, _) | Goal::DiskPlus(most, _) => {
                **value <= most
            }
        };
        let failed = ours.iter().filter(|sample| sample.failed.is_some()).count();
        let verdict = match compared.iter().filter(is_met).count() {
            // Whoever would set the goal is not there.
            0 if compared.is_empty() && failed < tried => Verdict::NoGoal,
            0 => Verdict::Missed,
            met if met == tried => Verdict::Met,
            _ => Verdict::CannotTell,
        };
        (tried > 0).then_some(Judged { goal: row.goal, figure, compared, verdict })
    }
}

/// What became of a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Reached in each round.
    Met,
    /// Reached in some rounds.
    CannotTell,
    /// Reached in none, also as OuroDB failed.
    Missed,
    /// Nobody was there to set it.
    NoGoal,
}

impl Verdict {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::CannotTell => "cannot tell",
            Self::Missed => "missed",
            Self::NoGoal => "",
        }
    }
}

/// What came out of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    goal: Goal,
    figure: Figure,
    /// OuroDB's figure against the goal's, round by round.
    compared: Vec<f64>,
    /// What that means.
    pub verdict: Verdict,
}

impl Judged {
    /// The goal, in words.
    #[must_use]
    pub fn goal(&self) -> String {
        match self.goal {
            Goal::AtLeast(bound) => format!("≥ {}", shown(self.figure, bound)),
            Goal::AtMost(bound) => format!("≤ {}", shown(self.figure, bound)),
            Goal::TimesBest(factor) => format!("≥ {factor}x the best LSM tree"),
            Goal::ShareOfDisk(share, _) => format!("≥ {share:.2}x fio"),
            Goal::TimesDisk(factor, _) => format!("≤ {factor:.2}x fio"),
            Goal::DiskPlus(more, _) => format!("≤ fio + {}", shown(self.figure, more)),
        }
    }

    /// What it came to, in words: the median, and the extremes of the rounds.
    #[must_use]
    pub fn outcome(&self) -> String {
        let show = |value: f64| match self.goal {
            Goal::AtLeast(_) | Goal::AtMost(_) => shown(self.figure, value),
            Goal::TimesBest(_) | Goal::ShareOfDisk(..) | Goal::TimesDisk(..) => {
                format!("{value:.2}x")
            }
            Goal::DiskPlus(..) if value < 0.0 => format!("-{}", shown(self.figure, -value)),
            Goal::DiskPlus(..) => format!("+{}", shown(self.figure, value)),
        };
        let low = self.compared.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.compared.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match median(self.compared.clone()) {
            None => String::new(),
            Some(middle) if low == high => show(middle),
            Some(middle) => format!("{} ({} to {})", show(middle), show(low), show(high)),
        }
    }
}

/// A figure, with its unit.
#[must_use]
pub fn shown(figure: Figure, value: f64) -> String {
    match figure {
        _ if value.is_infinite() => "not all sent".to_owned(),
        Figure::OpsPerS | Figure::WritesPerS => match value {
            large if large >= 1e6 => format!("{:.2} M/s", large / 1e6),
            large if large >= 1e5 => format!("{:.0} k/s", large / 1e3),
            large if large >= 1e3 => format!("{:.1} k/s", large / 1e3),
            small => format!("{}/s", grouped(small.round() as u64)),
        },
        Figure::CpuNsPerOp | Figure::MeanNs | Figure::P999Ns => duration(value),
        Figure::BytesWrittenPerByte
        | Figure::BytesOnDiskPerByte
        | Figure::WritesPerGroup
        | Figure::FlushesPerGroup => format!("{value:.2}"),
        Figure::Seconds => format!("{value:.0} s"),
    }
}

/// As much of a commit's name as tells it from others.
fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// The middle one, or the mean of the two in the middle; `None` of none.
#[must_use]
pub fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let low = *numbers.get(numbers.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(low, numbers[numbers.len() / 2]))
}

/// What the report says of how it was measured.
#[must_use]
pub fn set_up(results: &Results) -> String {
    let Settings { seconds, warm_up, scale, .. } = &results.settings;
    let rounds = results.rounds_of_steps();
    let (least, most) = (rounds.values().min(), rounds.values().max());
    let rounds = match (least.copied().unwrap_or_default(), most.copied().unwrap_or_default()) {
        (1, 1) => "figures of 1 round".to_owned(),
        (least, most) if least == most => format!("medians of {most} rounds"),
        (least, most) => format!("medians of {least} to {most} rounds"),
    };
    let versions = results.versions.iter().map(|(name, version)| format!("{name} {version}"));
    let scale = match *scale {
        1.0 => String::new(),
        scale => format!(", {scale} of the records and the memory"),
    };
    let partial = if results.partial { "; cut short" } else { "" };
    format!(
        "{}; {}; {rounds}, runs of {seconds} s after {warm_up} s of warming up{scale}; built from \
         {}; ended {}{partial}",
        results.machine,
        versions.collect::<Vec<_>>().join(", "),
        results.commits.join(", "),
        results.ended.join(", "),
    )
}

/// The name and version of a contestant; OuroDB's is the commit.
fn version(contestant: Contestant) -> Option<(String, String)> {
    let version = match contestant {
        Contestant::OuroDb => return None,
        Contestant::Fio => fio::version()?.trim_start_matches("fio-").to_owned(),
        peer => build::version(peer)?.to_owned(),
    };
    Some((contestant.title().to_owned(), version))
}

/// The figure that a row shows of fio, if the row is about that.
#[must_use]
pub fn disk_step(row: &Row) -> Option<&'static str> {
    match row.goal {
        Goal::ShareOfDisk(_, step) | Goal::TimesDisk(_, step) | Goal::DiskPlus(_, step) => {
            Some(step)
        }
        Goal::TimesBest(_) | Goal::AtLeast(_) | Goal::AtMost(_) => None,
    }
}

/// The figure of a contestant in a row.
#[must_use]
pub fn cell(results: &Results, row: &Row, contestant: Contestant) -> Option<f64> {
    let step = match contestant {
        Contestant::OuroDb => row.step,
        Contestant::Fio => disk_step(row)?,
        _ => row.peers,
    };
    // What is put into batches says nothing of single writes.
    let is_batched = contestant.is_loaded_in_batches() && is_batched(row.step);
    results.median(step, contestant, row.figure).filter(|_| !is_batched)
}

/// The report as a table that is aligned, and that Markdown knows.
#[must_use]
pub fn render(results: &Results) -> String {
    let contestants = &results.settings.contestants;
    let mut head = vec!["work".to_owned()];
    head.extend(contestants.iter().map(|contestant| contestant.title().to_owned()));
    head.extend(["goal", "reached", ""].map(str::to_owned));
    let mut rows = vec![head];
    for (row, judged) in results.judged() {
        let mut cells = vec![row.title.to_owned()];
        cells.extend(contestants.iter().map(|contestant| {
            cell(results, row, *contestant).map_or(String::new(), |value| shown(row.figure, value))
        }));
        cells.extend([judged.goal(), judged.outcome(), judged.verdict.name().to_owned()]);
        rows.push(cells);
    }
    let mut text = table(&rows);
    for (step, contestant, why) in results.failed() {
        text += &format!("\nfailed: {step}: {}: {why}", contestant.title());
    }
    for (step, contestant, what) in results.doubtful() {
        text += &format!("\n{what}: {step}: {}", contestant.title());
    }
    format!("{text}\n{}\n", set_up(results))
}

fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += &format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
        if at == 0 {
            let lines = widths.iter().map(|width| "-".repeat(*width));
            text += &format!("| {} |\n", lines.collect::<Vec<_>>().join(" | "));
        }
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn figures(ops_per_s: f64) -> Figures {
        Figures {
            ops_per_s: Some(ops_per_s),
            cpu_ns_per_op: Some(1e9 / ops_per_s),
            mean_ns: Some(1e9 / ops_per_s),
            p99_9_ns: Some(1e9),
            ..Figures::default()
        }
    }

    /// Results of some steps, with three contestants.
    pub(in super::super) fn results(samples: &[(&str, Contestant, u32, f64)]) -> Results {
        let settings = Settings {
            seconds: 5.0,
            warm_up: "2".to_owned(),
            scale: 1.0,
            contestants: vec![
                Contestant::RocksDb,
                Contestant::OuroDb,
                Contestant::Fjall,
                Contestant::Redb,
                Contestant::Fio,
            ],
        };
        let machine = Machine {
            kernel: "Linux 6.1 more".to_owned(),
            cpu: Some("a <processor>".to_owned()),
            cpus: Some(2),
            memory_bytes: Some(3 << 30),
            device: Some("vda".to_owned()),
            file_system: Some("ext4".to_owned()),
        };
        let samples = samples.iter().map(|&(step, contestant, round, ops_per_s)| {
            Sample::new(step, contestant, round, figures(ops_per_s))
        });
        Results::new(settings, &machine, samples.collect(), false)
    }

    fn verdict(results: &Results, title: &str) -> (String, Verdict) {
        let (_, judged) = results.judged().find(|(row, _)| row.title == title).unwrap();
        (judged.outcome(), judged.verdict)
    }

    #[test]
    fn ours_is_compared_with_the_best_of_each_round() {
        use Contestant::{Fjall, OuroDb, Redb, RocksDb};
        let load = "load 1";
        let title = "load 1 M, 1 client";
        let samples = |ours: [f64; 2]| {
            vec![
                (load, OuroDb, 1, ours[0]),
                (load, Fjall, 1, 100.0),
                (load, RocksDb, 1, 300.0),
                (load, Redb, 1, 1e6),
                (load, Fjall, 2, 200.0),
                (load, RocksDb, 2, 20.0),
                (load, OuroDb, 2, ours[1]),
            ]
        };
        let judge = |ours| verdict(&results(&samples(ours)), title);
        assert_eq!(judge([600.0, 600.0]), ("2.50x (2.00x to 3.00x)".to_owned(), Verdict::Met));
        assert_eq!(judge([599.0, 400.0]).1, Verdict::CannotTell);
        assert_eq!(judge([200.0, 300.0]).1, Verdict::Missed);

        // Without anybody who sets the goal there is none.
        let mut alone = samples([1.0, 2.0]);
        alone.retain(|(_, contestant, ..)| [OuroDb, Redb].contains(contestant));
        assert_eq!(verdict(&results(&alone), title), (String::new(), Verdict::NoGoal));

        // Who was not there in a round might have been the best in it.
        let mut without = samples([600.0, 600.0]);
        without.retain(|(_, contestant, round, _)| (*contestant, *round) != (RocksDb, 2));
        assert_eq!(verdict(&results(&without), title), ("2.00x".to_owned(), Verdict::CannotTell));

        // Who fails has not met it.
        let failed = |round| {
            let failure = Failure::Other("wrong reads".to_owned());
            Sample::failed(load, OuroDb, round, &failure)
        };
        let mut once = results(&samples([600.0, 600.0]));
        once.samples[0] = failed(1);
        assert_eq!(verdict(&once, title), ("3.00x".to_owned(), Verdict::CannotTell));
        once.samples[6] = failed(2);
        assert_eq!(verdict(&once, title), (String::new(), Verdict::Missed));

        // The better one of the first round failed: nobody has beaten it.
        let mut spoilt = results(&samples([600.0, 600.0]));
        let failure = Failure::Other("killed".to_owned());
        spoilt.samples[2] = Sample::failed(load, RocksDb, 1, &failure);
        assert_eq!(verdict(&spoilt, title), ("3.00x".to_owned(), Verdict::CannotTell));
        spoilt.samples[5] = Sample::failed(load, RocksDb, 2, &failure);
        assert_eq!(verdict(&spoilt, title), (String::new(), Verdict::NoGoal));
    }

    #[test]
    fn ours_is_compared_with_the_disk() {
        use Contestant::{Fio, OuroDb};
        let samples = [("uniform 16", OuroDb, 1, 960.0), ("fio psync 16", Fio, 1, 1000.0)];
        let found = results(&samples);
        let (outcome, judged) = verdict(&found, "get uniform, 512 MiB, 16 clients");
        assert_eq!((&*outcome, judged), ("0.96x", Verdict::Missed));
        let text = render(&found);
        let row = text.lines().find(|line| line.contains("get uniform, 512 MiB, 16")).unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[2..9], ["", "960/s", "", "", "1.0 k/s", "≥ 0.97x fio", "0.96x"]);
        // A round without the disk says nothing.
        let met = [("uniform 16", OuroDb, 1, 980.0), samples[1], ("uniform 16", OuroDb, 2, 980.0)];
        let outcome = verdict(&results(&met), "get uniform, 512 MiB, 16 clients");
        assert_eq!(outcome, ("0.98x".to_owned(), Verdict::CannotTell));
        // 1,041,667 ns to 1,000,000: more than 2 us.
        assert!(text.contains("+41.7us"), "{text}");
    }

    #[test]
    fn bounds_are_bounds() {
        use Contestant::OuroDb;
        let found = results(&[("absent", OuroDb, 1, 2.4e6), ("load 1", OuroDb, 1, 1e6)]);
        let outcome = verdict(&found, "get of absent keys, 1 client");
        assert_eq!(outcome, ("2.40 M/s".to_owned(), Verdict::Missed));
        let outcome = verdict(&found, "load 1 M, 1 client: CPU");
        assert_eq!(outcome, ("1.00us".to_owned(), Verdict::Met));
    }

    #[test]
    fn what_was_never_sent_is_late() {
        let step = "reads at 4000/s";
        let mut found = results(&[(step, Contestant::OuroDb, 1, 4000.0)]);
        found.samples[0].figures.p99_9_ns = Some(1e6);
        let title = "reads at 4,000/s beside a writer: p99.9";
        assert_eq!(verdict(&found, title), ("1.00ms".to_owned(), Verdict::Met));
        found.samples[0].figures.unsent_ops = 1;
        assert_eq!(verdict(&found, title), ("not all sent".to_owned(), Verdict::Missed));
    }

    #[test]
    fn results_of_several_times_are_put_together() {
        use Contestant::OuroDb;
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, results: &Results| {
            let path = dir.path().join(name);
            fs::write(&path, serde_json::to_string(results).unwrap()).unwrap();
            path
        };
        let one = write("one", &results(&[("absent", OuroDb, 1, 1.0)]));
        let two = write("two", &results(&[("absent", OuroDb, 1, 3.0)]));
        let both = Results::read(&[one.clone(), two]).unwrap();
        assert_eq!(both.median("absent", OuroDb, Figure::OpsPerS), Some(2.0));
        assert_eq!(both.samples[1].round, 2);
        assert!(set_up(&both).contains("medians of 2 rounds, runs of 5 s after 2 s"));
        // A round that was cut short: what follows of others stays together.
        let cut = write("cut", &results(&[("load 1", OuroDb, 1, 1.0), ("absent", OuroDb, 1, 1.0)]));
        let rest = write("rest", &results(&[("scan", OuroDb, 1, 7.0), ("absent", OuroDb, 1, 7.0)]));
        let both = Results::read(&[cut, rest]).unwrap();
        let rounds = both.samples.iter().map(|of| (&*of.step, of.round)).collect::<Vec<_>>();
        assert_eq!(rounds, [("load 1", 1), ("absent", 1), ("scan", 2), ("absent", 2)]);
        let mut other = results(&[]);
        other.settings.seconds = 1.0;
        let other = write("other", &other);
        assert_eq!(Results::read(&[one.clone(), other]).unwrap_err().exit_code(), 2);
        let mut newer = results(&[]);
        newer.format = 2;
        assert_eq!(Results::read(&[write("newer", &newer)]).unwrap_err().exit_code(), 6);
        fs::write(&one, "{}").unwrap();
        assert_eq!(Results::read(&[one]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn what_was_not_steady_is_said_once() {
        let mut found = results(&[("absent", Contestant::OuroDb, 1, 1.0); 2]);
        for sample in &mut found.samples {
            sample.figures.not_steady = true;
        }
        assert_eq!(render(&found).matches("not steady: absent: OuroDB").count(), 1);
    }

    #[test]
    fn what_failed_is_said_once() {
        let mut found = results(&[("absent", Contestant::OuroDb, 1, 1.0)]);
        let failure = Failure::Other("out of memory".to_owned());
        for round in 1..=2 {
            found.samples.push(Sample::failed("scan", Contestant::Redb, round, &failure));
        }
        assert_eq!(found.failures(), 2);
        assert_eq!(render(&found).matches("failed: scan: redb: out of memory").count(), 1);
    }
}
