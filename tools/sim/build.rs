//! Tells the binary what it runs: the commit, and a fingerprint of the engine's
//! source, by which long runs of the same engine add up. A commit is for records
//! only, and left out where there is none; it ends in `-dirty` where what is built is
//! not what was committed.

use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::process::Command;

use siphasher::sip::SipHasher13;

/// What the program is made of: of this directory not the record, which its runs
/// write to.
const BUILT: &[&str] = &[
    "../../src",
    "../../Cargo.toml",
    "../../Cargo.lock",
    "Cargo.toml",
    "build.rs",
    "src",
    ":(top,exclude)*.md",
];

fn main() {
    let engine = Path::new("../../src");
    let mut sources = Vec::new();
    collect(engine, &mut sources);
    sources.sort();
    let mut hasher = SipHasher13::new();
    for source in &sources {
        let text = std::fs::read(source).expect("a source file can be read");
        hasher.write(source.as_os_str().as_encoded_bytes());
        hasher.write_usize(text.len());
        hasher.write(&text);
    }
    println!("cargo::rustc-env=OURO_ENGINE={:016x}", hasher.finish());
    if let Some(commit) = git(&["rev-parse", "HEAD"]) {
        let changes =
            git(&[&["--no-optional-locks", "status", "--porcelain", "--"], BUILT].concat());
        let mark = if changes.is_some() { "-dirty" } else { "" };
        println!("cargo::rustc-env=OURO_COMMIT={commit}{mark}");
    }
    for path in BUILT.iter().filter(|path| !path.starts_with(':')) {
        println!("cargo::rerun-if-changed={path}");
    }
    // The log of HEAD changes with every commit and every checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && std::fs::exists(&log).unwrap_or(false)
    {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// The Rust files below a directory.
fn collect(dir: &Path, sources: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("the engine's source is there") {
        let path = entry.expect("its directories can be read").path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}
