//! `compare`: results side by side, and what can be told from them.
//!
//! Figures are given with the interval that they are in with the confidence that was asked
//! for, as far as the run itself says (`resample`); what machine and disk do from hour to
//! hour is not in it. A figure is better or worse if the interval of its ratio does not have 1
//! in it. That interval is wider than the one shown, as many figures are looked at and any of them
//! may be called so by chance: of so many figures each has so much less of what the confidence
//! leaves for mistakes (C. E. Bonferroni). Of results that are partial nothing is called so: what
//! was cut short did not end as the others did.

mod file;
mod resample;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::{CompareArgs, FailIf, OutputArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{aligned, duration, grouped};
use file::ResultFile;
use resample::{Figure, STEPS_MIN, Statistic};

/// The share of the resampled figures that intervals are taken from, at most: beyond it are too
/// few to tell.
const HELD_MAX: f64 = 0.99;

/// Of a kind of operation that was done so often, some are to be expected in another run.
const MANY: u64 = 100;

/// Seeds the resampling: the same files give the same answer.
const SEED: u64 = 0x636f_6d70_6172_6521;

/// What can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Than the first.
    Better,
    /// Than the first.
    Worse,
    /// The difference may be noise.
    CannotTell,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::CannotTell => "cannot tell",
        }
    }
}

/// What `--json` has of a comparison.
#[derive(Debug, Serialize)]
struct Comparison {
    format: u32,
    confidence: f64,
    first: String,
    others: Vec<Other>,
}

#[derive(Debug, Serialize)]
struct Other {
    file: String,
    /// What was asked for differently, or is otherwise.
    differences: Vec<String>,
    /// Which of both are partial, and why: then nothing can be told.
    partial: Vec<String>,
    /// Kinds of operations of which the first has some, and the other none.
    missing: Vec<String>,
    figures: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    figure: String,
    first: f64,
    first_interval: (f64, f64),
    other: f64,
    other_interval: (f64, f64),
    /// Of the other to the first.
    ratio: f64,
    ratio_interval: (f64, f64),
    verdict: Verdict,
}

/// Compares the first result with each of the others.
pub fn compare(args: &CompareArgs) -> Result<(), Failure> {
    let output = Output::new(&OutputArgs { json: args.json.clone(), ..OutputArgs::default() })?;
    let files = args.files.iter().map(|path| ResultFile::read(path));
    let files: Vec<ResultFile> = files.collect::<Result<_, _>>()?;
    let [first, others @ ..] = &files[..] else {
        return Err(Failure::Usage("name two results or more".to_owned()));
    };
    let resamples = first.run.resampled(SEED);
    let mut comparison = Comparison {
        format: 1,
        confidence: args.confidence,
        first: first.path.display().to_string(),
        others: Vec::new(),
    };
    let mut text = String::new();
    for (number, other) in others.iter().enumerate() {
        let seed = SEED + 1 + number as u64;
        let rows = rows(first, &resamples, other, seed, args.confidence, others.len());
        let compared = Other {
            file: other.path.display().to_string(),
            differences: differences(first, other),
            partial: partial(first, other),
            missing: missing(first, other),
            figures: rows,
        };
        text += &render(first, other, &compared, args.confidence);
        comparison.others.push(compared);
    }
    output.result(&text, &comparison)?;
    let verdicts = comparison.others.iter().flat_map(|other| &other.figures);
    let is_worse = verdicts.map(|row| row.verdict).any(|verdict| verdict == Verdict::Worse);
    let (before, of_others) = (&first.content.result, others.iter());
    // Whatever its figures say.
    let is_short = files.iter().any(|file| file.run.steps() < STEPS_MIN);
    let is_broken = of_others
        .map(|other| &other.content.result)
        .any(|of| of.wrong_reads > before.wrong_reads || of.unsent_ops > before.unsent_ops)
        || comparison.others.iter().any(|other| !other.missing.is_empty());
    let is_partial = |file: &ResultFile| file.why_partial().is_some();
    let is_cut_short = !is_partial(first) && others.iter().any(is_partial);
    match args.fail_if {
        Some(FailIf::Worse) if is_worse || is_broken || is_cut_short => Err(Failure::Worse),
        Some(FailIf::Worse) if is_partial(first) => Err(Failure::Usage(
            "--fail-if worse: nothing can be told beside a first result that is partial".to_owned(),
        )),
        Some(FailIf::Worse) if is_short => Err(Failure::Usage(format!(
            "--fail-if worse: nothing can be told from less than {STEPS_MIN} whole seconds"
        ))),
        _ => Ok(()),
    }
}

fn rows(
    first: &ResultFile,
    of_first: &[BTreeMap<Figure, f64>],
    other: &ResultFile,
    seed: u64,
    confidence: f64,
    others: usize,
) -> Vec<Row> {
    let of_other = other.run.resampled(seed);
    let (one, two) = (first.run.figures(), other.run.figures());
    let both: Vec<&Figure> = one.keys().filter(|figure| two.contains_key(figure)).collect();
    let is_whole = partial(first, other).is_empty();
    let can_tell = is_whole && first.run.steps().min(other.run.steps()) >= STEPS_MIN;
    // Then it is what was asked for.
    let is_throughput_given = first.is_open() || other.is_open();
    let looked_at = (both.len() * others).max(1) as f64;
    let surely = 1.0 - (1.0 - confidence) / looked_at;
    let held = confidence.min(HELD_MAX);
    let wider = |confidence| [first, other].map(|file| file.run.widening(held, confidence));
    let [of_one, of_two] = wider(confidence);
    let [one_surely, two_surely] = wider(surely);
    let row = |figure: &Figure| {
        let (value, values) = figure_of(first, figure, one[figure], of_first);
        let (other_value, other_values) = figure_of(other, figure, two[figure], &of_other);
        let pairs = values.iter().zip(&other_values);
        let ratios: Vec<f64> = pairs.filter_map(|(one, other)| Some((*other)? / (*one)?)).collect();
        let ratio = other_value / value;
        let is_rate = *figure == Figure::Throughput;
        let verdict = match interval(ratio, ratios.clone(), held, one_surely.max(two_surely)) {
            _ if !can_tell || is_rate && is_throughput_given => Verdict::CannotTell,
            (low, _) if low > 1.0 && is_rate => Verdict::Better,
            (low, _) if low > 1.0 => Verdict::Worse,
            (_, high) if high < 1.0 && is_rate => Verdict::Worse,
            (_, high) if high < 1.0 => Verdict::Better,
            _ => Verdict::CannotTell,
        };
        let interval = |value, values, wider| interval(value, values, held, wider);
        Row {
            figure: name(figure),
            first: value,
            first_interval: interval(value, values.into_iter().flatten().collect(), of_one),
            other: other_value,
            other_interval: interval(
                other_value,
                other_values.into_iter().flatten().collect(),
                of_two,
            ),
            ratio,
            ratio_interval: interval(ratio, ratios, of_one.max(of_two)),
            verdict,
        }
    };
    both.into_iter().map(row).collect()
}

/// The kinds of operations of which the first run did many, and the other none.
fn missing(first: &ResultFile, other: &ResultFile) -> Vec<String> {
    let done = other.run.counts();
    let is_missing = |(kind, count): &(&str, u64)| {
        *count >= MANY && done.get(kind).is_none_or(|count| *count == 0)
    };
    let missing = first.run.counts().into_iter().filter(is_missing);
    missing.map(|(kind, _)| kind.to_owned()).collect()
}

/// Which of them are partial, and why.
fn partial(first: &ResultFile, other: &ResultFile) -> Vec<String> {
    let says = |file: &ResultFile| {
        Some(format!("{} is partial: {}", file.path.display(), file.why_partial()?))
    };
    [first, other].into_iter().filter_map(says).collect()
}

/// A figure of a run, and of those that were put together from its steps. Throughput is as the
/// report has it, where the last moments of the run count, too.
fn figure_of(
    file: &ResultFile,
    figure: &Figure,
    value: f64,
    resampled: &[BTreeMap<Figure, f64>],
) -> (f64, Vec<Option<f64>>) {
    let by = match figure {
        Figure::Throughput if value > 0.0 => file.content.result.ops_per_s / value,
        _ => 1.0,
    };
    let values = resampled.iter().map(|figures| Some(figures.get(figure)? * by));
    (value * by, values.collect())
}

/// The interval around `value` that holds this share of the values, with as many on either
/// side, made so many times longer. Factors count, not differences.
fn interval(value: f64, mut values: Vec<f64>, held: f64, wider: f64) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = values.len().saturating_sub(1);
        values.get((share * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
    };
    let outside = (1.0 - held) / 2.0;
    // Nothing times anything is nothing.
    let end = |end: f64| if value == 0.0 { 0.0 } else { value * (end / value).powf(wider) };
    (end(at(outside)), end(at(1.0 - outside)))
}

fn name(figure: &Figure) -> String {
    match figure {
        Figure::Throughput => "throughput".to_owned(),
        Figure::Latency(kind, Statistic::Mean) => format!("{kind} mean"),
        Figure::Latency(kind, Statistic::Quantile(quantile)) => {
            let percent = *quantile as f64 / 100.0;
            format!("{kind} p{percent}")
        }
    }
}

/// What makes results no equals: all of the set-up that differs.
fn differences(first: &ResultFile, other: &ResultFile) -> Vec<String> {
    let (one, two) = (&first.content, &other.content);
    let command = |content: &file::Content| {
        Map::from_iter([("command".to_owned(), Value::from(content.command.clone()))])
    };
    let parts = [
        (command(one), command(two)),
        (one.config.clone(), two.config.clone()),
        (one.machine.clone(), two.machine.clone()),
        (one.versions.clone(), two.versions.clone()),
    ];
    let mut found = Vec::new();
    for (one, two) in &parts {
        let keys: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
        for key in keys.into_iter().filter(|key| *key != "dir" && one.get(*key) != two.get(*key)) {
            let text = |map: &Map<String, Value>| match map.get(key) {
                None | Some(Value::Null) => "none".to_owned(),
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
            };
            found.push(format!("{key}: {} and {}", text(one), text(two)));
        }
    }
    found
}

fn render(first: &ResultFile, other: &ResultFile, compared: &Other, confidence: f64) -> String {
    let mut lines = Vec::new();
    for (file, number) in [(first, "1"), (other, "2")] {
        let content = &file.content;
        let workload = content.config.get("workload").and_then(Value::as_str);
        let what = workload.map_or(content.command.clone(), |workload| format!("run {workload}"));
        let partial = if content.partial { ", PARTIAL" } else { "" };
        lines.push(format!(
            "{number}: {}, {what}, {}{partial}",
            file.path.display(),
            content.started
        ));
        let result = &content.result;
        if result.unsent_ops > 0 {
            lines
                .push(format!("   OVERLOAD: {} operations never sent", grouped(result.unsent_ops)));
        }
        if result.wrong_reads > 0 {
            lines.push(format!("   WRONG: {} reads returned something else", result.wrong_reads));
        }
    }
    if !compared.differences.is_empty() {
        lines.push("They differ in".to_owned());
        lines.extend(compared.differences.iter().map(|difference| format!("  {difference}")));
    }
    lines.push(String::new());
    let percent = |ratio: f64| match ratio {
        ..10.0 => format!("{:+.1}%", (ratio - 1.0) * 100.0),
        10.0..1e4 => format!("{ratio:.0} times"),
        _ => "any".to_owned(),
    };
    let steps = first.run.steps().min(other.run.steps());
    let can_tell = steps >= STEPS_MIN;
    let mut rows = vec![["", "1", "2", "change", "from", "to", ""].map(str::to_owned)];
    rows.extend(compared.figures.iter().map(|row| {
        let value = |value: f64| match row.figure == "throughput" {
            true => format!("{}/s", grouped(value.round() as u64)),
            false => duration(value),
        };
        let (low, high) = row.ratio_interval;
        let told = |text: String| if can_tell { text } else { String::new() };
        let [low, high] = [low, high].map(|end| told(percent(end)));
        let [one, two, change] = [value(row.first), value(row.other), percent(row.ratio)];
        [row.figure.clone(), one, two, change, low, high, told(row.verdict.name().to_owned())]
    }));
    let counts: [(&str, fn(&file::Measured) -> Option<f64>); 3] = [
        ("CPU per operation", |of| of.cpu_ns_per_op),
        ("bytes written per byte put", |of| of.bytes_written_per_byte_put),
        ("device reads per get", |of| of.device_reads_per_get),
    ];
    for (name, of) in counts {
        if let (Some(one), Some(two)) = (of(&first.content.result), of(&other.content.result)) {
            let value = |value| {
                if name.starts_with("CPU") { duration(value) } else { format!("{value:.2}") }
            };
            let change = if one > 0.0 { percent(two / one) } else { String::new() };
            let none = String::new;
            rows.push([name.to_owned(), value(one), value(two), change, none(), none(), none()]);
        }
    }
    lines.extend(aligned(&rows).lines().map(|line| line.trim_end().to_owned()));
    lines.push(String::new());
    for file in [first, other] {
        let notes = file.unsteady().into_iter();
        lines.extend(notes.map(|note| format!("{}: {note}", file.path.display())));
    }
    for kind in &compared.missing {
        lines.push(format!("{}: no {kind} ended, which is worse.", other.path.display()));
    }
    if !compared.partial.is_empty() {
        lines.push(format!(
            "Nothing is called better or worse, as {}.",
            compared.partial.join(", and ")
        ));
    }
    lines.push(if !can_tell {
        format!("Nothing can be told from {steps} seconds: measure for {STEPS_MIN} at least.")
    } else {
        format!(
            "From, to: where the change is with {} % confidence, by what varies within the runs;\n\
             better, worse: so much confidence that it is right of all figures together.",
            confidence * 100.0
        )
    });
    lines.push(String::new());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use resample::Run;
    use resample::tests::seconds;

    fn verdict(one: &Run, two: &Run, seed: u64) -> Verdict {
        let (ones, twos) = (one.resampled(seed), two.resampled(seed + 1));
        let figure = Figure::Latency("read".to_owned(), Statistic::Quantile(9_900));
        let ratios = ones.iter().zip(&twos).map(|(one, two)| two[&figure] / one[&figure]);
        let ratio = two.figures()[&figure] / one.figures()[&figure];
        let wider = one.widening(0.95, 0.95).max(two.widening(0.95, 0.95));
        match interval(ratio, ratios.collect(), 0.95, wider) {
            (low, _) if low > 1.0 => Verdict::Worse,
            (_, high) if high < 1.0 => Verdict::Better,
            _ => Verdict::CannotTell,
        }
    }

    /// Seconds that depend on each other must not make noise look like a difference. Of 40
    /// pairs of equals some 2 may, by their confidence, and in truth some more.
    #[test]
    fn equals_are_not_told_apart_and_others_are() {
        let run = |latency_ns, seed| Run::new(&seconds(60, 0.6, latency_ns, seed));
        let told = |latency_ns: f64, pairs: u64| {
            let pairs =
                (0..pairs).map(|n| verdict(&run(1e5, 2 * n), &run(latency_ns, 2 * n + 1), n));
            pairs.filter(|verdict| *verdict != Verdict::CannotTell).count()
        };
        let equals = told(1e5, 40);
        assert!(equals <= 6, "{equals} of 40 equals were told apart");
        let slower = told(1.2e5, 10);
        assert!(slower >= 9, "only {slower} of 10 that are 20 % slower were told");
    }

    #[test]
    fn an_interval_has_as_much_on_either_side() {
        let values: Vec<f64> = (0..=1000).rev().map(f64::from).collect();
        assert_eq!(interval(500.0, values.clone(), 0.9, 1.0), (50.0, 950.0));
        assert_eq!(interval(500.0, values, 0.99, 1.0), (5.0, 995.0));
        let (low, high) = interval(2.0, vec![1.0, 2.0, 4.0], 1.0, 2.0);
        assert_eq!((low, high), (0.5, 8.0));
    }
}
