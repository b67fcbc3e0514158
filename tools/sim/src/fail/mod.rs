//! `ouro-sim fail`: the k-th request of a script fails, for every k, in every way.
//!
//! `scripts` has what is done to the database, `play` does it and judges each
//! answer, `variant` says which requests fail and what that explains, `after` what
//! must hold when it is over.

mod after;
mod play;
mod scripts;
mod variant;

use std::num::NonZero;
use std::process::ExitCode;

use clap::Args;
use fastrand::Rng;
use ourodb::sim::{Faults, Sim};

pub(crate) use self::play::{DIR, Play, Played, Stop};
use self::scripts::{SCRIPTS, Script};
pub(crate) use self::variant::Variant;
use self::variant::{Fault, Kind};
use crate::interrupt::Interrupt;
use crate::sweep;

/// The seed of machines whose every request fails once.
const SEED: u64 = 1;

/// How many requests of a script can fail, in each way of [`Kind::ALL`].
type Requests = [u64; Kind::ALL.len()];

/// Fails the k-th request of scripts, for every k, in every way
///
/// Each request of a script fails in a run of its own: in the device, for want of
/// space, short, or refused for now; once, and with all those behind it. Nothing
/// acknowledged may be lost, errors are those that are promised, and the next opening
/// finds all in order.
///
/// Exit codes: 0 nothing is wrong; 1 a run failed, with a `replay:` line; 2 usage.
#[derive(Debug, Args)]
pub(crate) struct Fail {
    /// The first N scripts
    #[arg(long, value_name = "N", default_value_t = SCRIPTS.len(), conflicts_with = "script",
          value_parser = scripts_max)]
    scripts: usize,
    /// These scripts
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = script_name)]
    script: Vec<&'static str>,
    /// This request alone: the K-th of those that can fail so
    #[arg(long, value_name = "K", requires = "kind", value_parser = clap::value_parser!(u64).range(1..))]
    k: Option<u64>,
    /// This way to fail alone
    #[arg(long)]
    kind: Option<Kind>,
    /// With --k: all requests from that one on
    #[arg(long, requires = "k")]
    for_ever: bool,
    /// In place of every request: N samples of two that fail
    #[arg(long, value_name = "N", conflicts_with_all = ["k", "kind"])]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pairs: Option<u64>,
    /// The seed of the first sample; each other has the next
    #[arg(long, value_name = "S", requires = "pairs", default_value_t = 0)]
    seed: u64,
    /// Go on after a run that failed
    #[arg(long)]
    keep_going: bool,
    /// Threads, each with a run at a time [default: one a core]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
}

fn scripts_max(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(scripts) if (1..=SCRIPTS.len()).contains(&scripts) => Ok(scripts),
        _ => Err(format!("a number from 1 to {} is wanted", SCRIPTS.len())),
    }
}

fn script_name(text: &str) -> Result<&'static str, String> {
    let found = SCRIPTS.iter().find(|script| script.name == text);
    found.map(|script| script.name).ok_or_else(|| {
        let names: Vec<&str> = SCRIPTS.iter().map(|script| script.name).collect();
        format!("there is no such script; there are {}", names.join(", "))
    })
}

/// One run.
struct Run {
    script: &'static Script,
    seed: u64,
    variant: Variant,
    /// How the process ends.
    power_cut: bool,
    /// The arguments that do it again.
    replay: String,
}

impl Run {
    /// Plays the script, and judges what is left. How many faults there were.
    fn run(&self) -> Result<u64, String> {
        let sim = Sim::new(self.seed);
        sim.set_faults(self.variant.faults());
        let (names, options) = ((self.script.names)(), (self.script.options)());
        let mut play = Play::new(sim.clone(), names, options, self.variant.clone());
        let played = (self.script.run)(&mut play);
        let first = sim.injected().first().map(ToString::to_string);
        let judged = match played {
            Err(Stop::Wrong(wrong)) => Err(wrong),
            Err(Stop::Refused) | Ok(()) => after::judge(&mut play, self.power_cut),
        };
        // What is still under way ends with its process.
        sim.kill();
        judged.map_err(|wrong| match first {
            Some(first) => format!("{wrong} (the first fault was {first})"),
            None => wrong,
        })
    }
}

pub(crate) fn run(args: &Fail) -> ExitCode {
    let scripts: Vec<&'static Script> = match args.script.is_empty() {
        true => SCRIPTS.iter().take(args.scripts).collect(),
        false => SCRIPTS.iter().filter(|script| args.script.contains(&script.name)).collect(),
    };
    let mut requests = Vec::new();
    for script in &scripts {
        match count(script) {
            Ok(counts) => requests.push(counts),
            Err(wrong) => {
                println!("{}, with no fault at all: {wrong}", script.name);
                println!("replay: ouro-sim fail --script {}", script.name);
                return ExitCode::from(1);
            }
        }
    }
    let runs: Vec<Run> = match args.pairs {
        Some(pairs) => {
            (0..pairs).map(|n| pair(&scripts, &requests, args.seed.wrapping_add(n))).collect()
        }
        None => every(args, &scripts, &requests),
    };
    if runs.is_empty() {
        eprintln!("ouro-sim: there is no such request: {}", counts(&scripts, &requests));
        return ExitCode::from(2);
    }
    let interrupt = match Interrupt::install() {
        Ok(interrupt) => interrupt,
        Err(error) => return sweep::cannot_listen(&error),
    };
    let (mut ran, mut failed, mut faults) = (0, 0, 0);
    sweep::each(
        runs.len(),
        args.jobs,
        &interrupt,
        |number| runs[number].run(),
        |number, judged| {
            ran += 1;
            match judged {
                Ok(count) => faults += count,
                Err(wrong) => {
                    failed += 1;
                    let run = &runs[number];
                    println!("{}: {wrong}\nreplay: ouro-sim fail {}", run.script.name, run.replay);
                }
            }
            failed == 0 || args.keep_going
        },
    );
    println!("{} scripts, {ran} runs, {failed} failed: {faults} faults", scripts.len());
    sweep::exit_code(failed > 0, &interrupt)
}

/// How many there are, in words.
fn counts(scripts: &[&'static Script], requests: &[Requests]) -> String {
    let of = |(script, counts): (&&Script, &Requests)| {
        let kinds = Kind::ALL.iter().zip(counts).map(|(kind, count)| format!("{count} {kind}"));
        format!("{} has {}", script.name, kinds.collect::<Vec<_>>().join(", "))
    };
    scripts.iter().zip(requests).map(of).collect::<Vec<_>>().join("; ")
}

/// How many requests of a script can fail in each way. Nothing fails.
fn count(script: &'static Script) -> Result<Requests, String> {
    let never = |faults: Faults, kind: Kind| faults.fail_kth(u64::MAX, kind.fault(), false);
    let sim = Sim::new(SEED);
    sim.set_faults(Kind::ALL.into_iter().fold(Faults::default(), never));
    let (names, options) = ((script.names)(), (script.options)());
    let mut play = Play::new(sim.clone(), names, options, Variant::default());
    let played = (script.run)(&mut play);
    let counted = sim.requests_counted();
    let judged = match played {
        Err(Stop::Wrong(wrong)) => Err(wrong),
        Err(Stop::Refused) => Err("the database does not open".to_owned()),
        Ok(()) => after::judge(&mut play, false).map(drop),
    };
    sim.kill();
    judged.map(|()| std::array::from_fn(|kind| counted[kind]))
}

/// Each request of the scripts, in each way, alone and with all behind it.
fn every(args: &Fail, scripts: &[&'static Script], requests: &[Requests]) -> Vec<Run> {
    let mut runs = Vec::new();
    for (script, counts) in scripts.iter().zip(requests) {
        for (kind, count) in Kind::ALL.into_iter().zip(counts) {
            if args.kind.is_some_and(|only| only != kind) {
                continue;
            }
            let (ks, for_ever) = match args.k {
                Some(k) => (k..=k.min(*count), &[args.for_ever][..]),
                None => (1..=*count, &[false, true][..]),
            };
            for k in ks {
                for &for_ever in for_ever {
                    let fault = Fault { k, kind, for_ever };
                    runs.push(Run {
                        script,
                        seed: SEED,
                        variant: Variant::of(fault),
                        power_cut: k % 2 == 0,
                        replay: format!("--script {} {fault}", script.name),
                    });
                }
            }
        }
    }
    runs
}

/// Two requests of one script fail, on a machine with this seed.
fn pair(scripts: &[&'static Script], requests: &[Requests], seed: u64) -> Run {
    let mut rng = Rng::with_seed(seed ^ 0x7061_6972);
    let at = (rng.u64(..) % scripts.len() as u64) as usize;
    let mut draw = || {
        let kind = rng.usize(..Kind::ALL.len());
        let k = 1 + rng.u64(..requests[at][kind].max(1));
        Fault { k, kind: Kind::ALL[kind], for_ever: false }
    };
    let mut faults = [draw(), draw()];
    faults.sort_by_key(|fault| fault.k);
    faults[1].for_ever = rng.u8(..4) == 0;
    Run {
        script: scripts[at],
        seed,
        variant: Variant { faults: faults.to_vec() },
        power_cut: rng.bool(),
        replay: format!("--script {} --pairs 1 --seed {seed}", scripts[at].name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Loss;

    fn script(name: &str) -> &'static Script {
        SCRIPTS.iter().find(|script| script.name == name).expect("a script")
    }

    fn play(script: &Script, variant: Variant) -> Play {
        Play::new(Sim::new(SEED), (script.names)(), (script.options)(), variant)
    }

    #[test]
    fn each_request_of_a_short_script_fails() {
        let script = script("new-database");
        let counts = count(script).expect("a sound engine");
        for (kind, count) in Kind::ALL.into_iter().zip(counts) {
            assert!(count > 5, "{kind:?} can befall {count} requests");
            for k in 1..=count {
                for for_ever in [false, true] {
                    let variant = Variant::of(Fault { k, kind, for_ever });
                    let run = Run {
                        script,
                        seed: SEED,
                        variant,
                        power_cut: k % 2 == 0,
                        replay: String::new(),
                    };
                    let faults = run.run().unwrap_or_else(|wrong| panic!("{kind:?} {k}: {wrong}"));
                    assert!(faults > 0, "{kind:?} {k}: nothing failed");
                }
            }
        }
    }

    /// What a shard's manifest said last was not durable yet when an opening had the root
    /// manifest state it; the loss of power took the one and not the other. (Pair 12238 of the
    /// script `batches`; the same as `ouro-sim --seed 10616`.)
    #[test]
    fn a_pair_that_found_something() {
        let scripts = [script("batches")];
        let run = pair(&scripts, &[count(scripts[0]).expect("a sound engine")], 12238);
        run.run().unwrap_or_else(|wrong| panic!("{wrong}"));
    }

    #[test]
    fn a_pair_is_the_same_each_time() {
        let scripts = [script("new-database")];
        let counts = [count(scripts[0]).expect("a sound engine")];
        for seed in 0..20 {
            let run = || pair(&scripts, &counts, seed).run().expect("a sound engine");
            assert_eq!(run(), run(), "seed {seed}");
        }
    }

    #[test]
    fn an_error_that_nothing_explains_is_seen() {
        let script = script("new-database");
        let mut play = play(script, Variant::default());
        play.sim.set_faults(Faults::default().disk_bytes_max(0));
        let played = (script.run)(&mut play);
        let Err(Stop::Wrong(wrong)) = played else { panic!("{played:?}") };
        assert!(wrong.contains("nothing explains") && wrong.contains("no space"), "{wrong}");
        play.sim.kill();
    }

    #[test]
    fn a_write_that_is_lost_is_seen() {
        let script = script("new-database");
        for power_cut in [false, true] {
            let mut play = play(script, Variant::default());
            play.open(1).expect("an opening");
            // It was acknowledged, and never written.
            let write =
                play.history.begin(&[(3, Some(b"lost"[..].into()))], ourodb::Durability::Durable);
            play.history.acknowledge(write, 0);
            if power_cut {
                play.power_cut();
            } else {
                play.kill();
            }
            let loss = play.loss;
            assert_eq!(matches!(loss, Loss::Power(_)), power_cut);
            let opened = play.open(1);
            let Err(Stop::Wrong(wrong)) = opened else { panic!("{opened:?}") };
            assert!(wrong.contains("key-03"), "{wrong}");
            play.sim.kill();
        }
    }
}
