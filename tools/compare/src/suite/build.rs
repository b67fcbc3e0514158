//! How long it takes to build what depends on an engine and on nothing else.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use ouro_bench::failure::Failure;

use super::contestant::Contestant;
use super::figures::Figures;
use crate::child;

const MANIFEST: &str = include_str!("../../Cargo.toml");
/// Versions are those that this binary was built with.
const LOCK: &str = include_str!("../../Cargo.lock");
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Builds a program that depends on the engine, in `dir`, as `cargo build` does
/// for the first time; what is downloaded for it is there before.
///
/// # Errors
/// When cargo fails.
pub fn build(dir: &Path, contestant: Contestant) -> Result<Figures, Failure> {
    let fail = || Failure::os(format!("cannot write {}", dir.display()));
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(fail())?;
    }
    let built = build_in(dir, contestant);
    let removed = fs::remove_dir_all(dir).map_err(fail());
    let seconds = built?;
    removed?;
    Ok(Figures { seconds: Some(seconds), ..Figures::default() })
}

/// How many seconds it takes, in a directory that is made for it.
fn build_in(dir: &Path, contestant: Contestant) -> Result<f64, Failure> {
    let fail = || Failure::os(format!("cannot write {}", dir.display()));
    fs::create_dir_all(dir.join("src")).map_err(fail())?;
    fs::write(dir.join("src/main.rs"), "fn main() {}\n").map_err(fail())?;
    fs::write(dir.join("Cargo.toml"), manifest(contestant)).map_err(fail())?;
    fs::write(dir.join("Cargo.lock"), LOCK).map_err(fail())?;
    let cargo = |arguments: &[&str]| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let what = format!("cargo {} of what depends on {}", arguments[0], contestant.title());
        let mut command = Command::new(cargo);
        // From nothing: without what a cache would have of it.
        command.env_remove("RUSTC_WRAPPER").env_remove("CARGO_BUILD_RUSTC_WRAPPER");
        child::run(&what, command.args(arguments).current_dir(dir)).map(drop)
    };
    cargo(&["fetch"])?;
    let begin = Instant::now();
    cargo(&["build", "--target-dir", "target"])?;
    Ok(begin.elapsed().as_secs_f64())
}

/// The version of an engine's package that this binary has.
#[must_use]
pub fn version(contestant: Contestant) -> Option<&'static str> {
    let package = match contestant {
        Contestant::RocksDb | Contestant::RocksDbDirect => "librocksdb-sys",
        other => package(other),
    };
    let mut lines = LOCK.lines().skip_while(|line| *line != format!("name = {package:?}"));
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

fn manifest(contestant: Contestant) -> String {
    let dependency = match package(contestant) {
        "ourodb" => format!("ourodb = {{ path = {REPOSITORY:?} }}"),
        package => {
            // Features have the same names.
            let mut lines = MANIFEST.lines().skip_while(|line| *line != "[dependencies]");
            let line = lines.find(|line| line.starts_with(&format!("{package} = ")));
            line.unwrap_or_default().replace(", optional = true", "")
        }
    };
    format!(
        "[package]\nname = \"depends\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\n{dependency}\n\n[workspace]\n"
    )
}

fn package(contestant: Contestant) -> &'static str {
    match contestant {
        Contestant::OuroDb | Contestant::Fio => "ourodb",
        Contestant::RocksDb | Contestant::RocksDbDirect => "rocksdb",
        Contestant::Fjall => "fjall",
        Contestant::Redb => "redb",
        Contestant::Lmdb => "heed",
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_engine_has_a_version() {
        for contestant in Contestant::value_variants() {
            let version = version(*contestant).unwrap();
            assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{version}");
        }
    }

    #[test]
    fn every_engine_is_a_dependency() {
        for contestant in Contestant::value_variants() {
            let manifest = manifest(*contestant);
            let begin = format!("\n{} = {{ ", package(*contestant));
            let line = manifest.split_once(&begin);
            assert!(line.is_some() || manifest.contains(&begin.replace("{ ", "\"")), "{manifest}");
            assert!(!manifest.contains("optional"), "{manifest}");
        }
    }
}
