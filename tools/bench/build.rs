//! Tells the binary which commit and which compiler made it. Both are for
//! reports only, so whatever cannot be found out is left out.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=OURO_COMMIT");
    let commit = std::env::var("OURO_COMMIT").ok().or_else(|| git(&["rev-parse", "HEAD"]));
    if let Some(commit) = commit {
        println!("cargo::rustc-env=OURO_COMMIT={commit}");
    }
    // The log of HEAD changes with every commit and every checkout. Without a
    // repository there is nothing to watch but this file.
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && std::fs::exists(&log).unwrap_or(false)
    {
        println!("cargo::rerun-if-changed={log}");
    }
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    if let Some(version) = first_line(Command::new(rustc).arg("--version")) {
        println!("cargo::rustc-env=OURO_RUSTC={version}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    first_line(Command::new("git").args(arguments))
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}
