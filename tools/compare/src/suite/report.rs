//! Figures and goals put together: medians, who is how many times better, and
//! whether that is what it was to be.

use std::fs;
use std::path::PathBuf;

use ouro_bench::failure::Failure;
use ouro_bench::machine::Machine;
use ouro_bench::report::Versions;
use ouro_bench::table::{duration, grouped};
use serde::{Deserialize, Serialize};

use super::contestant::Contestant;
use super::figures::Figures;
use super::plan::{Figure, Goal, ROWS, Row};

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
    pub rounds: u32,
    pub seconds: f64,
    pub warm_up_s: f64,
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
                (a.seconds, a.warm_up_s, a.scale) == (b.seconds, b.warm_up_s, b.scale)
            };
            if found.machine != all.machine || !is_alike(&found.settings, &all.settings) {
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
        let rounds = self.settings.rounds;
        self.partial |= other.partial;
        self.ended.extend(other.ended);
        self.commits.extend(other.commits);
        self.commits.dedup();
        self.settings.rounds += other.settings.rounds;
        let known = &mut self.settings.contestants;
        known.extend(other.settings.contestants);
        known.sort();
        known.dedup();
        let samples = other.samples.into_iter();
        self.samples.extend(samples.map(|of| Sample { round: of.round + rounds, ..of }));
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

    fn judge(&self, row: &Row) -> Option<Judged> {
        let figure = row.figure;
        let ours = self.rounds(row.step, Contestant::OuroDb, figure);
        let value = self.median(row.step, Contestant::OuroDb, figure)?;
        let (against, wanted, wants_more) = match row.goal {
            Goal::TimesBest(factor) => (self.best_peer(row)?, factor, true),
            Goal::AtLeast(bound) => (Against::Bound, bound, true),
            Goal::AtMost(bound) => (Against::Bound, bound, false),
            Goal::ShareOfDisk(share, step) => (Against::Disk(step), share, true),
            Goal::TimesDisk(factor, step) => (Against::Disk(step), factor, false),
            Goal::DiskPlus(more, step) => (Against::MoreThanDisk(step), more, false),
        };
        let of_round = |round: u32, step: &str, contestant: Contestant| {
            let rounds = self.rounds(step, contestant, figure);
            rounds.into_iter().find(|(of, _)| *of == round).map(|(_, value)| value)
        };
        let compared = ours.iter().filter_map(|&(round, ours)| match against {
            Against::Bound => Some(ours),
            Against::Peer(peer) => Some(ours / of_round(round, row.peers, peer)?),
            Against::Disk(step) => Some(ours / of_round(round, step, Contestant::Fio)?),
            Against::MoreThanDisk(step) => Some(ours - of_round(round, step, Contestant::Fio)?),
        });
        let compared: Vec<f64> = compared.collect();
        let reached = median(compared.clone())?;
        let is_met = |value: f64| if wants_more { value >= wanted } else { value <= wanted };
        let met = compared.iter().filter(|value| is_met(**value)).count();
        let verdict = match met {
            0 => Verdict::Missed,
            all if all == compared.len() => Verdict::Met,
            _ => Verdict::CannotTell,
        };
        let low = compared.iter().copied().fold(f64::INFINITY, f64::min);
        let high = compared.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(Judged { value, against, wanted, wants_more, reached, low, high, verdict })
    }

    fn best_peer(&self, row: &Row) -> Option<Against> {
        let peers = self.settings.contestants.iter().filter(|contestant| contestant.is_judge());
        let figures =
            peers.filter_map(|peer| Some((*peer, self.median(row.peers, *peer, row.figure)?)));
        let best = figures.max_by(|(_, a), (_, b)| a.total_cmp(b));
        best.map(|(peer, _)| Against::Peer(peer))
    }
}

/// What a figure is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Against {
    /// With what it is to come to.
    Bound,
    /// The best LSM tree.
    Peer(Contestant),
    /// A multiple of what fio does in this step.
    Disk(&'static str),
    /// What is more than fio takes in this step.
    MoreThanDisk(&'static str),
}

/// What became of a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Reached in each round.
    Met,
    /// Reached in some rounds.
    CannotTell,
    /// Reached in none.
    Missed,
}

impl Verdict {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::CannotTell => "cannot tell",
            Self::Missed => "missed",
        }
    }
}

/// A row and what came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// OuroDB's figure, the median.
    pub value: f64,
    /// What it is compared with.
    pub against: Against,
    wanted: f64,
    wants_more: bool,
    /// What the comparison came to, the median of the rounds, and the extremes.
    reached: f64,
    low: f64,
    high: f64,
    /// What that means.
    pub verdict: Verdict,
}

impl Judged {
    /// The goal, in words.
    #[must_use]
    pub fn goal(&self, figure: Figure) -> String {
        let sign = if self.wants_more { "≥" } else { "≤" };
        match self.against {
            Against::Bound => format!("{sign} {}", shown(figure, self.wanted)),
            Against::Peer(_) => format!("{sign} {}x the best LSM tree", self.wanted),
            Against::Disk(_) => format!("{sign} {:.2}x fio", self.wanted),
            Against::MoreThanDisk(_) => format!("{sign} fio + {}", shown(figure, self.wanted)),
        }
    }

    /// What it came to, in words: the median, and the extremes of the rounds.
    #[must_use]
    pub fn outcome(&self, figure: Figure) -> String {
        let show = |value: f64| match self.against {
            Against::Bound => shown(figure, value),
            Against::Peer(_) | Against::Disk(_) => format!("{value:.2}x"),
            Against::MoreThanDisk(_) => {
                format!("{}{}", if value < 0.0 { "-" } else { "+" }, shown(figure, value.abs()))
            }
        };
        match self.low.total_cmp(&self.high).is_eq() {
            true => show(self.reached),
            false => format!("{} ({} to {})", show(self.reached), show(self.low), show(self.high)),
        }
    }
}

/// A figure, with its unit.
#[must_use]
pub fn shown(figure: Figure, value: f64) -> String {
    match figure {
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
    let Settings { rounds, seconds, warm_up_s, scale, .. } = &results.settings;
    let scale = match *scale {
        1.0 => String::new(),
        scale => format!(", {scale} of the records and the memory"),
    };
    let partial = if results.partial { "; cut short" } else { "" };
    format!(
        "{}; {} of {rounds} rounds, runs of {seconds} s after {warm_up_s} s of warming up{scale}; \
         built from {}; ended {}{partial}",
        results.machine,
        if *rounds == 1 { "figures" } else { "medians" },
        results.commits.join(", "),
        results.ended.join(", "),
    )
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
    // What is put into batches for the others' sake says nothing of them.
    let is_batched = contestant.is_loaded_in_batches() && row.step == "load beyond";
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
        cells.extend([
            judged.goal(row.figure),
            judged.outcome(row.figure),
            judged.verdict.name().to_owned(),
        ]);
        rows.push(cells);
    }
    let mut text = table(&rows);
    for (step, contestant, why) in results.failed() {
        text += &format!("\nfailed: {step}: {}: {why}", contestant.title());
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
            rounds: 3,
            seconds: 5.0,
            warm_up_s: 2.0,
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
        let (row, judged) = results.judged().find(|(row, _)| row.title == title).unwrap();
        (judged.outcome(row.figure), judged.verdict)
    }

    #[test]
    fn ours_is_compared_with_the_best_peer_round_by_round() {
        use Contestant::{Fjall, OuroDb, Redb, RocksDb};
        let mut samples = Vec::new();
        for (round, ours, fjall, rocksdb) in
            [(1, 200.0, 100.0, 300.0), (2, 300.0, 100.0, 10.0), (3, 500.0, 200.0, 20.0)]
        {
            samples.extend([("load 1", OuroDb, round, ours), ("load 1", Fjall, round, fjall)]);
            samples.extend([("load 1", RocksDb, round, rocksdb), ("load 1", Redb, round, 1e6)]);
        }
        let found = results(&samples);
        let outcome = "2.50x (2.00x to 3.00x)".to_owned();
        assert_eq!(verdict(&found, "load 1 M, 1 client"), (outcome, Verdict::Met));
        samples[0].3 = 199.0;
        let (_, found) = verdict(&results(&samples), "load 1 M, 1 client");
        assert_eq!(found, Verdict::CannotTell);
        samples.retain(|(_, contestant, ..)| *contestant != Fjall);
        assert_eq!(verdict(&results(&samples), "load 1 M, 1 client").1, Verdict::CannotTell);
        samples.retain(|(_, contestant, ..)| [OuroDb, Redb].contains(contestant));
        assert!(results(&samples).judged().all(|(row, _)| row.title != "load 1 M, 1 client"));
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
        assert_eq!((both.samples[1].round, both.settings.rounds), (4, 6));
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
