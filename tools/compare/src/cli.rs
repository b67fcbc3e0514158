//! The command line: that of `ouro-bench`, and which engine it is for.

use std::time::Duration;

use clap::{Args, Command, CommandFactory, Parser, Subcommand, ValueEnum};
use ouro_bench::cli::{LoadArgs, RunArgs, WarmUp, parse_clients, parse_seconds};
use ouro_bench::distribution::KeyChoice;
use ouro_bench::failure::Failure;
use ouro_bench::schedule::Rate;
use ouro_bench::workload::{Workload, WorkloadParser};

#[cfg(feature = "rocksdb")]
use crate::engines::rocksdb;
use crate::engines::{batch, fjall};
use crate::suite::{AllArgs, MergeArgs};

/// Measures OuroDB, RocksDB, fjall, redb and LMDB with the same code
#[derive(Parser, Debug)]
#[command(name = "ouro-compare", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Commands,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Commands {
    /// Make a database of so many records and measure how long that takes
    Load {
        /// Which engine, and how.
        #[command(flatten)]
        engine: EngineArgs,
        /// Those of `ouro-bench load`.
        #[command(flatten)]
        args: LoadArgs,
    },
    /// Run a workload on a database that `load` made
    Run {
        /// Which engine, and how.
        #[command(flatten)]
        engine: EngineArgs,
        /// Those of `ouro-bench run`.
        #[command(flatten)]
        args: RunArgs,
    },
    /// Measure engines in turn, and print medians
    ///
    /// Each engine has its data in a directory of its name inside of --dir, and
    /// each load and each run is a process of its own. Without --workload it is
    /// loads that are measured. A workload that writes gets freshly loaded data
    /// in each round; one that only reads uses what is there if that has the
    /// right shape, and --overwrite loads it anew in the first round.
    Alternate(AlternateArgs),
    /// Measure everything that is compared, of all engines in turn, and write one
    /// report
    ///
    /// Loads, reads and mixes in the cache and beyond it, with the page cache within
    /// the same memory limit for all (which needs root), durable writes, and clean
    /// builds; with fio for what the disk can do. What it comes to is set against goals. With
    /// three rounds it takes hours: --groups takes a part, and `report` puts parts
    /// together.
    All(AllArgs),
    /// Put results of `all` together, as one report
    Report(MergeArgs),
}

/// Which engine is measured, and what only some engines can be asked for.
#[derive(Args, Debug, Clone, Copy)]
pub struct EngineArgs {
    /// What is measured
    #[arg(long, value_name = "E")]
    pub engine: Engine,
    /// How it is used.
    #[command(flatten)]
    pub extras: Extras,
}

/// What only some engines can be asked for.
#[derive(Args, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extras {
    /// RocksDB reads and writes tables past the page cache (OuroDB always does,
    /// the others never)
    #[arg(long)]
    pub direct: bool,
    /// Settling includes a compaction of everything (RocksDB, fjall)
    #[arg(long)]
    pub compact: bool,
    /// Loads commit so many puts in one transaction, for all clients together (redb,
    /// LMDB): what is measured then is no load of single writes
    #[arg(long, value_name = "N", default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub load_batch: u32,
}

impl Extras {
    /// Nothing that not every engine can be asked for.
    const NONE: Self = Self { direct: false, compact: false, load_batch: 1 };
}

/// The flags of `alternate`.
#[derive(Args, Debug, Clone)]
pub struct AlternateArgs {
    /// How often each engine has its turn
    #[arg(long, value_name = "N", default_value = "3")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Which engines
    #[arg(long, value_name = "E,…", value_delimiter = ',')]
    #[arg(value_enum, default_values_t = Engine::value_variants().iter().copied())]
    pub engines: Vec<Engine>,
    /// What the clients do; loads are measured without
    #[arg(long, value_name = "W", value_parser = WorkloadParser)]
    pub workload: Option<Workload>,
    /// Which records that is done to, in place of what the workload says: as ouro-bench has it
    #[arg(long, value_name = "D", requires = "workload")]
    pub distribution: Option<KeyChoice>,
    /// How long
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse_seconds)]
    pub seconds: Duration,
    /// The same clients work for so many seconds before, with other choices, so that
    /// caches fill: each run is a process of its own, and only what the page cache has
    /// outlives it
    #[arg(long, value_name = "S", requires = "workload")]
    pub warm_up: Option<WarmUp>,
    /// Operations a second of all clients together, due at instants of their own: as
    /// ouro-bench has it
    #[arg(long, value_name = "R")]
    pub rate: Option<Rate>,
    /// Have each run load so many records right before, and leave them where that
    /// left them
    #[arg(long, value_name = "N", requires = "workload")]
    pub fresh: Option<u64>,
    /// Clients that load the data of a workload [default: as many as run it]
    #[arg(long, value_name = "C", value_parser = parse_clients)]
    pub load_clients: Option<usize>,
    /// How engines are used that can be used so.
    #[command(flatten)]
    pub extras: Extras,
    /// Those of `load`.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// OuroDB
    #[value(name = "ourodb")]
    OuroDb,
    /// RocksDB
    #[cfg(feature = "rocksdb")]
    #[value(name = "rocksdb")]
    RocksDb,
    /// fjall
    Fjall,
    /// redb
    Redb,
    /// LMDB
    #[cfg(feature = "lmdb")]
    Lmdb,
}

impl Engine {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What of `extras` this engine can be asked for.
    #[must_use]
    pub fn applicable(self, extras: Extras) -> Extras {
        let Extras { compact, load_batch, .. } = extras;
        match self {
            Self::OuroDb => Extras::NONE,
            #[cfg(feature = "rocksdb")]
            Self::RocksDb => Extras { direct: extras.direct, compact, ..Extras::NONE },
            Self::Fjall => Extras { compact, ..Extras::NONE },
            Self::Redb => Extras { load_batch, ..Extras::NONE },
            #[cfg(feature = "lmdb")]
            Self::Lmdb => Extras { load_batch, ..Extras::NONE },
        }
    }
}

impl EngineArgs {
    /// Refuses what this engine cannot be asked for.
    pub fn check(&self) -> Result<(), Failure> {
        if self.engine.applicable(self.extras) == self.extras {
            return Ok(());
        }
        let reason = "--direct is for RocksDB, --compact for RocksDB and fjall, --load-batch for \
                      redb and LMDB";
        Err(Failure::Usage(reason.to_owned()))
    }

    /// The same for a run, whose reads are of what its writes put there.
    pub fn check_run(&self) -> Result<(), Failure> {
        if self.extras.load_batch != Extras::NONE.load_batch {
            let reason = "--load-batch is for loads: a run commits each of its writes";
            return Err(Failure::Usage(reason.to_owned()));
        }
        self.check()
    }
}

#[cfg(feature = "rocksdb")]
impl From<Extras> for rocksdb::Settings {
    fn from(Extras { direct, compact, .. }: Extras) -> Self {
        Self { direct, compact }
    }
}

impl From<Extras> for fjall::Settings {
    fn from(Extras { compact, .. }: Extras) -> Self {
        Self { compact }
    }
}

impl From<Extras> for batch::Settings {
    fn from(Extras { load_batch, .. }: Extras) -> Self {
        Self { load_batch }
    }
}

/// The command line, with help that fits all engines.
#[must_use]
pub fn command() -> Command {
    let help = "What an acknowledged write survives: durable, the loss of power; process-safe, \
                the death of the process; relaxed:100ms (OuroDB only), the loss of power after \
                that time";
    let command = ["load", "run", "alternate"].into_iter().fold(Cli::command(), |command, name| {
        command.mut_subcommand(name, |sub| sub.mut_arg("durability", |arg| arg.help(help)))
    });
    // It is there to be refused with a reason.
    command.mut_subcommand("run", |sub| sub.mut_arg("load_batch", |arg| arg.hide(true)))
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        let words = line.split_whitespace();
        Cli::from_arg_matches(&command().try_get_matches_from(words)?)
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn extras_are_refused_where_they_mean_nothing() {
        for (flags, accepted) in [
            #[cfg(feature = "rocksdb")]
            ("--engine rocksdb --direct --compact", true),
            #[cfg(feature = "rocksdb")]
            ("--engine rocksdb --load-batch 2", false),
            ("--engine fjall --compact", true),
            ("--engine ourodb", true),
            ("--engine ourodb --load-batch 1", true),
            ("--engine redb --load-batch 2", true),
            #[cfg(feature = "lmdb")]
            ("--engine lmdb --load-batch 2", true),
            ("--engine fjall --direct", false),
            ("--engine fjall --load-batch 2", false),
            ("--engine ourodb --direct", false),
            ("--engine ourodb --compact", false),
            ("--engine ourodb --load-batch 2", false),
            ("--engine redb --compact", false),
            #[cfg(feature = "lmdb")]
            ("--engine lmdb --direct", false),
        ] {
            let Commands::Load { engine, .. } =
                parse(&format!("ouro-compare load --dir d {flags}")).unwrap().command
            else {
                panic!("{flags} is not a load");
            };
            assert_eq!(engine.check().is_ok(), accepted, "{flags}");
            let in_run = accepted && engine.extras.load_batch == 1;
            assert_eq!(engine.check_run().is_ok(), in_run, "{flags}");
        }
        assert!(parse("ouro-compare load --dir d --engine redb --load-batch 0").is_err());
    }

    #[test]
    fn engines_are_named_in_a_list() {
        let line = "ouro-compare alternate --dir d --engines fjall,ourodb";
        let Commands::Alternate(args) = parse(line).unwrap().command else {
            panic!("{line} does not alternate");
        };
        assert_eq!(args.engines, [Engine::Fjall, Engine::OuroDb]);
        let Commands::Alternate(args) = parse("ouro-compare alternate --dir d").unwrap().command
        else {
            panic!("it does not alternate");
        };
        assert_eq!(args.engines, Engine::value_variants());
        assert!(parse("ouro-compare alternate --dir d --engines leveldb").is_err());
        assert!(parse("ouro-compare alternate --dir d --rounds 0").is_err());
        assert!(parse("ouro-compare load --dir d").is_err());
    }
}
