//! The modules of the engine stand on floors, and import only from lower ones:
//! a path that begins with `crate::` (or climbs with `super::` out of its
//! module) and names a module of the same floor or above fails this test.
//! ARCHITECTURE.md tells what the floors are for.

#![allow(clippy::unwrap_used, reason = "a test panics")]

use std::fs;
use std::path::{Path, PathBuf};

const FLOORS: [&[&str]; 10] = [
    &["base"],
    &["format"],
    &["io"],
    &["runtime"],
    &["cache"],
    &["wal", "memtable", "sst", "value", "manifest"],
    &["lsm"],
    &["shard"],
    &["db"],
    // In the builds of fuzzers only.
    &["fuzz"],
];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

/// The text without comments and string literals' contents.
fn code(source: &str) -> String {
    let lines = source.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first segments of every `crate::…` path, also of braced groups:
/// `crate::{a::b, c}` names a and c.
fn crate_paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].chars().next_back().is_some_and(|c| is_ident(c) || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.push(std::mem::take(&mut name));
                        start = true;
                        continue;
                    }
                    _ => {}
                }
                if depth == 0 && start {
                    if is_ident(c) {
                        name.push(c);
                    } else if !name.is_empty() {
                        start = false;
                    }
                }
            }
            found.push(name);
        } else {
            found.push(rest.chars().take_while(|c| is_ident(*c)).collect());
        }
    }
    found
}

/// How many modules a `super::` path climbs at most, in this text.
fn climbs(code: &str) -> usize {
    let mut most = 0;
    for (at, _) in code.match_indices("super::") {
        let mut count = 1;
        let mut rest = &code[at + "super::".len()..];
        while let Some(after) = rest.strip_prefix("super::") {
            count += 1;
            rest = after;
        }
        most = most.max(count);
    }
    most
}

#[test]
fn modules_import_only_from_lower_floors() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut breaches = Vec::new();
    let mut checked = 0;
    for path in &files {
        let inside = path.strip_prefix(&src).unwrap();
        let mut parts: Vec<String> =
            inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if parts.len() == 1 {
            // lib.rs and what it re-exports stand above all floors.
            continue;
        }
        let own = parts.remove(0);
        let Some(own_floor) = floor(&own) else {
            breaches.push(format!("{}: {own} is on no floor", inside.display()));
            continue;
        };
        let text = code(&fs::read_to_string(path).unwrap());
        for name in crate_paths(&text) {
            checked += 1;
            let is_fine = name == own || floor(&name).is_some_and(|floor| floor < own_floor);
            // Items that lib.rs re-exports have no floor: the engine names
            // them by their modules. Only tests may use the public names.
            let is_test = inside.iter().any(|part| part.to_string_lossy().contains("test"))
                || text.contains("#[cfg(test)]") && name.starts_with(char::is_uppercase);
            if !is_fine && !is_test {
                breaches.push(format!("{}: {own} imports {name}", inside.display()));
            }
        }
        // Modules from here up to (not including) the crate: a file's own
        // module, and those that enclose it. An inline `mod` adds one.
        let is_mod = parts.last().is_some_and(|name| name == "mod.rs");
        let depth = parts.len() + 1 - usize::from(is_mod);
        let inline = usize::from(text.contains("mod tests {") || text.contains("mod simulated {"));
        if climbs(&text) >= depth + inline {
            breaches.push(format!("{}: a super:: path leaves {own}", inside.display()));
        }
    }
    assert!(checked > 100, "the test has lost sight of the sources");
    assert!(breaches.is_empty(), "imports against the floors:\n{}", breaches.join("\n"));
}

/// What threads meet by, which tests replace: only `base/sync.rs` names std's.
const REPLACED: [&str; 7] = [
    "std::sync::atomic",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::Condvar",
    "std::thread::park",
    "std::thread::current",
    "std::thread::Thread",
];

/// The text without what is compiled for tests alone, at its end.
fn without_tests(code: &str) -> &str {
    code.split("#[cfg(test)]\nmod ").next().unwrap_or_default()
}

#[test]
fn threads_meet_by_what_base_sync_names() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut breaches = Vec::new();
    for path in &files {
        let inside = path.strip_prefix(&src).unwrap();
        let is_test = inside.iter().any(|part| part.to_string_lossy().contains("test"));
        if is_test || inside == Path::new("base/sync.rs") {
            continue;
        }
        let text = code(&fs::read_to_string(path).unwrap());
        for name in REPLACED.iter().filter(|name| without_tests(&text).contains(**name)) {
            breaches.push(format!("{} names {name}: take it from base::sync", inside.display()));
        }
    }
    assert!(files.len() > 50, "the test has lost sight of the sources");
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_test_sees_what_it_is_for() {
    let paths = crate_paths("use crate::db::Db; x(crate::{io::{File, Io}, base}); $crate::db::x");
    assert_eq!(paths, ["db", "io", "base"]);
    assert_eq!(climbs("super::super::x; super::y"), 2);
    assert_eq!(code("a // crate::db\nb"), "a \nb");
    assert!(floor("db") > floor("shard"));
    assert_eq!(floor("wal"), floor("sst"));
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests { std::sync::Mutex }"), "a\n");
}
