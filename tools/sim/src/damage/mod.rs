//! `ouro-sim damage`: every byte of a small database is damaged, and much else.
//!
//! `layouts` makes the databases, `harm` damages them, `judge` looks what becomes of
//! them, and `blocks` knows which keys depend on what.

mod blocks;
mod harm;
mod judge;
mod layouts;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::harm::{Harm, coarse, patterns};
use self::judge::{Verdict, judge};
use self::layouts::{Image, LAYOUTS, Layout};
use crate::interrupt::Interrupt;
use crate::sweep;

/// One run in so many writes on after the damage, if that is possible.
const GOES_ON_EACH: usize = 16;

/// Damages every byte of small databases, cuts their files, swaps their blocks
///
/// Each byte gets three other values; each file is cut, zeroed, and filled with what it
/// held once, from each sector on; blocks change places. Verification must name the
/// damage, and whatever the database answers then must be right or refused.
///
/// Exit codes: 0 nothing is wrong; 1 a run failed, with a `replay:` line; 2 usage.
#[derive(Debug, Args)]
pub(crate) struct Damage {
    /// The first N databases
    #[arg(long, value_name = "N", default_value_t = LAYOUTS.len(), value_parser = layouts_max)]
    layouts: usize,
    /// This database alone
    #[arg(long, value_name = "NAME", conflicts_with = "layouts", value_parser = layout_name)]
    layout: Option<&'static str>,
    /// Damage so many single bytes of each database, evenly chosen: 64KiB [default: all]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    bytes: Option<usize>,
    /// Damage this file alone
    #[arg(long, value_name = "PATH", requires = "layout")]
    file: Option<PathBuf>,
    /// Damage it in this way alone, as a replay: line says
    #[arg(long, value_name = "HOW", requires = "file")]
    harm: Option<Harm>,
    /// Go on after a run that failed
    #[arg(long)]
    keep_going: bool,
    /// Threads, each with a run at a time [default: one a core]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
}

fn layouts_max(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(layouts) if (1..=LAYOUTS.len()).contains(&layouts) => Ok(layouts),
        _ => Err(format!("a number from 1 to {} is wanted", LAYOUTS.len())),
    }
}

fn layout_name(text: &str) -> Result<&'static str, String> {
    let found = LAYOUTS.iter().find(|layout| layout.name == text);
    found.map(|layout| layout.name).ok_or_else(|| {
        let names: Vec<&str> = LAYOUTS.iter().map(|layout| layout.name).collect();
        format!("there is no such database; there are {}", names.join(", "))
    })
}

fn bytes(text: &str) -> Result<usize, String> {
    let (digits, factor) = match text {
        _ if text.ends_with("KiB") => (&text[..text.len() - 3], 1 << 10),
        _ if text.ends_with("MiB") => (&text[..text.len() - 3], 1 << 20),
        _ => (text, 1),
    };
    let number: Result<usize, _> = digits.parse();
    number.map(|n| n * factor).map_err(|_| format!("\"{text}\" is no size, such as 64KiB"))
}

/// One run.
struct Run {
    layout: usize,
    path: PathBuf,
    harm: Harm,
}

pub(crate) fn run(args: &Damage) -> ExitCode {
    let layouts: Vec<&Layout> = match args.layout {
        Some(name) => LAYOUTS.iter().filter(|layout| layout.name == name).collect(),
        None => LAYOUTS.iter().take(args.layouts).collect(),
    };
    let mut images = Vec::new();
    for layout in &layouts {
        match Image::make(layout) {
            Ok(image) => images.push(image),
            Err(wrong) => {
                println!("{}, with nothing damaged: {wrong}", layout.name);
                println!("replay: ouro-sim damage --layout {}", layout.name);
                return ExitCode::from(1);
            }
        }
    }
    let mut runs = Vec::new();
    for (layout, image) in images.iter().enumerate() {
        add(&mut runs, layout, image, args);
    }
    if runs.is_empty() {
        let paths: Vec<String> =
            images.iter().flat_map(Image::paths).map(|path| path.display().to_string()).collect();
        eprintln!("ouro-sim: there is no such file; there are {}", paths.join(", "));
        return ExitCode::from(2);
    }
    let interrupt = match Interrupt::install() {
        Ok(interrupt) => interrupt,
        Err(error) => return sweep::cannot_listen(&error),
    };
    let mut verdicts: BTreeMap<Verdict, u64> = BTreeMap::new();
    let mut failed = 0;
    sweep::each(
        runs.len(),
        args.jobs,
        &interrupt,
        |number| {
            let Run { layout, path, harm } = &runs[number];
            let goes_on = args.harm.is_some() || number % GOES_ON_EACH == 0;
            judge(&images[*layout], path, harm, goes_on)
        },
        |number, judged| {
            match judged {
                Ok(verdict) => *verdicts.entry(verdict).or_default() += 1,
                Err(wrong) => {
                    failed += 1;
                    let Run { layout, path, harm } = &runs[number];
                    let (name, path) = (layouts[*layout].name, path.display());
                    println!("{name}, {path} {harm}: {wrong}");
                    println!("replay: ouro-sim damage --layout {name} --file {path} --harm {harm}");
                }
            }
            failed == 0 || args.keep_going
        },
    );
    let count = |verdict| verdicts.get(&verdict).copied().unwrap_or(0);
    println!(
        "{} databases, {} runs, {failed} failed: {} refused, {} contained, {} harmless, {} the same \
         bytes",
        layouts.len(),
        verdicts.values().sum::<u64>() + failed,
        count(Verdict::Refused),
        count(Verdict::Contained),
        count(Verdict::Harmless),
        count(Verdict::Nothing)
    );
    sweep::exit_code(failed > 0, &interrupt)
}

/// All that is to be done to an image.
fn add(runs: &mut Vec<Run>, layout: usize, image: &Image, args: &Damage) {
    let total: usize = image.paths().filter_map(|path| image.bytes(path)).map(<[u8]>::len).sum();
    let wanted = args.bytes.unwrap_or(total).clamp(1, total);
    // The bytes before those of this file.
    let mut before = 0;
    for path in image.paths() {
        let bytes = image.bytes(path).unwrap_or_default();
        let mut push = |harm| runs.push(Run { layout, path: path.clone(), harm });
        if args.file.as_ref().is_none_or(|only| only == path) {
            match &args.harm {
                Some(harm) => push(harm.clone()),
                None => {
                    coarse(image, path).into_iter().for_each(&mut push);
                    for (at, &byte) in bytes.iter().enumerate() {
                        // As many of them as are wanted fall below it.
                        let is_wanted = |n: usize| n * wanted / total;
                        if is_wanted(before + at + 1) > is_wanted(before + at) {
                            let harms = patterns(at, byte).map(|to| Harm::Byte { at, to });
                            harms.into_iter().for_each(&mut push);
                        }
                    }
                }
            }
        }
        before += bytes.len();
    }
}
