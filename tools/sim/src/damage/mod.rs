//! `ouro-sim damage`: every byte of a small database is damaged, and much else.
//!
//! `layouts` makes the databases, `harm` damages them, `judge` looks what becomes of
//! them, `blocks` knows which keys depend on what, and `extents` what is
//! under one checksum.

mod blocks;
mod extents;
mod harm;
mod judge;
mod layouts;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::harm::{Harm, lengths, patterns, swaps, truncations};
use self::judge::{Verdict, judge};
use self::layouts::{Image, LAYOUTS, Layout};
use crate::interrupt::Interrupt;
use crate::sweep;

/// One run in so many writes on after the damage, if that is possible.
const GOES_ON_EACH: usize = 16;

/// Damages every byte of small databases, cuts their files, swaps their blocks
///
/// Each byte gets three other values; each file is cut, zeroed, and filled with what it
/// held once, from each byte on; blocks change places. Verification must name the
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
    /// Cut each database at so many lengths, evenly chosen, besides those at sectors and where
    /// anything begins or ends [default: an eighth of --bytes; all]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    lengths: Option<usize>,
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
    let cuts = args.lengths.or(args.bytes.map(|bytes| bytes / 8)).unwrap_or(total).clamp(1, total);
    // Whether this byte of all is one of so many that are evenly chosen.
    let is_one = |of: usize, at: usize| (at + 1) * of / total > at * of / total;
    // The bytes before those of this file.
    let mut before = 0;
    for path in image.paths() {
        let bytes = image.bytes(path).unwrap_or_default();
        let mut push = |harm| runs.push(Run { layout, path: path.clone(), harm });
        if args.file.as_ref().is_none_or(|only| only == path) {
            match &args.harm {
                Some(harm) => push(harm.clone()),
                None => {
                    swaps(image, path).into_iter().for_each(&mut push);
                    let always = lengths(image, path);
                    for (at, &byte) in bytes.iter().enumerate() {
                        if always.contains(&at) || is_one(cuts, before + at) {
                            truncations(at).into_iter().for_each(&mut push);
                        }
                        if is_one(wanted, before + at) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths at which a file of the first database is cut, and how often.
    fn cuts(bytes: Option<usize>) -> (Vec<usize>, usize) {
        let image = Image::make(&LAYOUTS[0]).expect("a sound engine");
        let path = image.paths().find(|path| path.ends_with("IDENTITY")).expect("one").clone();
        let args = Damage {
            layouts: 1,
            layout: None,
            bytes,
            lengths: None,
            file: Some(path.clone()),
            harm: None,
            keep_going: false,
            jobs: None,
        };
        let mut runs = Vec::new();
        add(&mut runs, 0, &image, &args);
        let cut = |run: &Run| match run.harm {
            Harm::Cut { len } => Some(len),
            _ => None,
        };
        (runs.iter().filter_map(cut).collect(), image.bytes(&path).expect("a file").len())
    }

    #[test]
    fn files_are_cut_at_every_length() {
        let (all, len) = cuts(None);
        assert_eq!(all, (0..len).collect::<Vec<_>>());
        let (some, _) = cuts(Some(8 << 10));
        for at in [0, 1, 512, harm::UNIT - 1, harm::UNIT, harm::UNIT + 1, len - 1] {
            assert!(some.contains(&at), "{at}");
        }
        assert!(some.len() < len / 20, "{}", some.len());
    }

    /// Value files are damaged in the first database, too.
    #[test]
    fn the_first_database_has_a_file_of_each_kind() {
        let image = Image::make(&LAYOUTS[0]).expect("a sound engine");
        for kind in ["IDENTITY", "MANIFEST", "sst", "val", "wal", "map"] {
            assert!(image.paths().any(|path| layouts::kind(path) == kind), "{kind}");
        }
    }
}
