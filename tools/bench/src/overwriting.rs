//! What results must not be written over: the database, and what a run was given to read.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cli::OutputArgs;
use crate::directory::{is_marker, is_result};
use crate::failure::Failure;

/// Refuses results that would take the place of a file of the database in `dir`, or of one of
/// `inputs`, under whatever name.
///
/// # Errors
/// `Usage`, with the path.
pub fn check(args: &OutputArgs, dir: &Path, inputs: &[&Path]) -> Result<(), Failure> {
    let json = args.json.as_deref().filter(|path| *path != Path::new("-"));
    for path in [json, args.hlog.as_deref(), args.html.as_deref()].into_iter().flatten() {
        let shown = path.display();
        if inputs.iter().any(|input| are_same(path, input)) {
            return Err(Failure::Usage(format!(
                "{shown} is read by this command, and its result would take its place; name another \
                 file for the result"
            )));
        }
        if is_of_database(path, dir) {
            return Err(Failure::Usage(format!(
                "{shown} is a file of the database in {}, or has the name of one; name another file \
                 for the result",
                dir.display()
            )));
        }
    }
    Ok(())
}

/// Whether both are names of one file.
fn are_same(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

fn is_of_database(path: &Path, dir: &Path) -> bool {
    let Ok(dir) = dir.canonicalize() else { return false };
    let Some(path) = resolved(path) else { return false };
    let Ok(inside) = path.strip_prefix(&dir) else { return false };
    !is_result(inside) || is_marker(inside) || inside.components().count() > 1
}

/// The path without links, whether there is such a file or not.
fn resolved(path: &Path) -> Option<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return Some(path);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new(".")).canonicalize().ok()?;
    Some(parent.join(path.file_name()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn results_take_the_place_of_nothing_that_is_needed() {
        let place = tempfile::tempdir().unwrap();
        let db = place.path().join("db");
        fs::create_dir_all(db.join("wal")).unwrap();
        for name in ["IDENTITY", "ouro-bench.json", "wal/log"] {
            fs::write(db.join(name), "").unwrap();
        }
        let input = place.path().join("mix.toml");
        fs::write(&input, "").unwrap();
        let link = place.path().join("link");
        std::os::unix::fs::symlink(db.join("IDENTITY"), &link).unwrap();
        fs::hard_link(&input, place.path().join("other-name")).unwrap();
        let refused = |path: &Path| {
            let json = OutputArgs { json: Some(path.to_owned()), ..OutputArgs::default() };
            let html = OutputArgs { html: Some(path.to_owned()), ..OutputArgs::default() };
            let [json, html] = [json, html].map(|args| check(&args, &db, &[&input]).is_err());
            assert_eq!(json, html);
            json
        };
        for name in ["db/IDENTITY", "db/ouro-bench.json", "db/wal/log", "db/wal/a.json", "db/new"] {
            assert!(refused(&place.path().join(name)), "{name}");
        }
        assert!(refused(&link) && refused(&input) && refused(&place.path().join("other-name")));
        for name in ["new", "db/report.html", "db/a.json", "elsewhere/a.json"] {
            assert!(!refused(&place.path().join(name)), "{name}");
        }
        assert!(!refused(Path::new("-")));
    }
}
