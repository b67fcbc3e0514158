//! The directory of a database: what may be replaced there, and the marker
//! `ouro-bench.json` that says what is in it.
//!
//! This tool deletes nothing that it did not make: a directory is replaced only
//! if it holds the marker and, beside it, nothing but files named as the
//! engine's, and results, which stay. While it is replaced, this process has the lock on it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ourodb::Compression;

use crate::failure::Failure;
use crate::machine::free_bytes;
use crate::shape::{FORMAT, Shape};
use crate::size::format_size;
use crate::table::counted;
use crate::target::Target;

const MARKER: &str = "ouro-bench.json";
const MARKER_NEW: &str = "ouro-bench.json.new";
/// What `ouro-bench` without a command leaves beside the database.
pub const PAGE: &str = "ouro-bench-report.html";
const LOCK: &str = "LOCK";
/// What the log takes beside what it holds.
const LOG_BYTES: f64 = (16 << 20) as f64;

/// What is in a directory, as far as a load cares.
#[derive(Debug, PartialEq, Eq)]
pub enum Contents {
    /// Nothing, or there is no such directory.
    Nothing,
    /// A database that this tool made: its files, and then its subdirectories,
    /// each after the one it is in; without the lock and the marker.
    Ours(Vec<PathBuf>, Vec<PathBuf>),
    /// Something that this tool did not make; the words say what.
    Foreign(String),
}

/// Whether a path within a database's directory is that of its marker.
pub(crate) fn is_marker(inside: &Path) -> bool {
    [MARKER, MARKER_NEW].iter().any(|name| inside == Path::new(name))
}

/// Whether a file may be one of results, which are allowed beside the database.
pub(crate) fn is_result(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| ["json", "hlog", "html"].contains(&extension))
}

/// Looks at a directory, and changes nothing.
pub fn look<T: Target>(dir: &Path) -> Result<Contents, Failure> {
    let fail = |path: &Path| Failure::os(format!("cannot read {}", path.display()));
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => {
            return Err(Failure::Usage(format!("{} is not a directory", dir.display())));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::Nothing),
        Err(error) => return Err(fail(dir)(error)),
    }
    let (mut files, mut dirs, mut entries, mut marked) = (Vec::new(), Vec::new(), 0, false);
    let mut pending = vec![dir.to_path_buf()];
    while let Some(parent) = pending.pop() {
        let at_top = parent == dir;
        for entry in fs::read_dir(&parent).map_err(fail(&parent))? {
            let entry = entry.map_err(fail(&parent))?;
            let (path, name) = (entry.path(), entry.file_name());
            let inside = path.strip_prefix(dir).unwrap_or(&path);
            let kind = entry.file_type().map_err(fail(&path))?;
            if at_top && name == "lost+found" && kind.is_dir() {
                // The root of an ext4 file system has it from the start.
                continue;
            }
            entries += 1;
            if at_top && kind.is_file() && name == MARKER {
                marked = true;
            } else if at_top && kind.is_file() && (name == LOCK || name == MARKER_NEW) {
                // They stay.
            } else if at_top && kind.is_file() && name != PAGE && is_result(inside) {
                // It stays, too: it may be of the load that is replaced, to compare it with.
            } else if kind.is_dir() && T::owns(inside, true) {
                dirs.push(path.clone());
                pending.push(path);
            } else if kind.is_file() && (T::owns(inside, false) || (at_top && name == PAGE)) {
                files.push(path);
            } else {
                let foreign = format!("{} is not a file of the database", path.display());
                return Ok(Contents::Foreign(foreign));
            }
        }
    }
    Ok(match (entries, marked) {
        (0, _) => Contents::Nothing,
        (_, true) => Contents::Ours(files, dirs),
        (_, false) => Contents::Foreign(format!("there is no {MARKER} in it")),
    })
}

/// A directory that a load may use.
#[derive(Debug)]
pub struct Room {
    /// It was empty, or not there, when the load came.
    is_new: bool,
    dir: PathBuf,
    /// Directories that were made for it, each before the one it is in.
    made: Vec<PathBuf>,
}

impl Room {
    /// Removes what was made, for a load that did not begin: the marker, and what
    /// the engine made before it failed. What cannot be removed stays.
    pub fn give_back<T: Target>(&self) {
        if !self.is_new {
            return;
        }
        // Nobody else has it open, or is about to.
        let Ok(_lock) = lock(&self.dir) else { return };
        let Ok(Contents::Ours(files, dirs)) = look::<T>(&self.dir) else { return };
        for name in [MARKER, LOCK] {
            let _ = fs::remove_file(self.dir.join(name));
        }
        for path in files {
            let _ = fs::remove_file(path);
        }
        for dir in dirs.iter().rev().chain(&self.made) {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Makes room for a load: creates the directory, or removes the database that
/// an earlier load left in it, if `overwrite` says so. Marks it as this tool's,
/// with `shape` and as a load that has not ended, before anything else.
///
/// Whoever has that database open keeps it.
pub fn make_room<T: Target>(dir: &Path, shape: &Shape, overwrite: bool) -> Result<Room, Failure> {
    let shown = dir.display();
    let mut room = Room { is_new: false, dir: dir.to_owned(), made: Vec::new() };
    let unfinished = Shape { records: 0, ..*shape };
    match look::<T>(dir)? {
        Contents::Nothing => {
            let missing = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty());
            let missing = missing.take_while(|dir| !dir.exists());
            (room.is_new, room.made) = (true, missing.map(Path::to_owned).collect());
            fs::create_dir_all(dir).map_err(Failure::os(format!("cannot create {shown}")))?;
            write_shape(dir, &unfinished)?;
            Ok(room)
        }
        Contents::Foreign(why) => Err(Failure::Usage(format!(
            "{shown} is not empty, and holds something that ouro-bench did not make: {why}. \
             Choose another directory, or remove that"
        ))),
        Contents::Ours(..) if !overwrite => Err(Failure::Usage(format!(
            "{shown} holds an earlier load. Replace it with --overwrite, or choose another \
             directory"
        ))),
        Contents::Ours(files, dirs) => {
            let _lock = lock(dir)?;
            // First, so that a removal cut short can be taken up again, and nobody
            // runs a workload on what it left.
            write_shape(dir, &unfinished)?;
            for path in files {
                fs::remove_file(&path)
                    .map_err(Failure::os(format!("cannot remove {}", path.display())))?;
            }
            for path in dirs.into_iter().rev() {
                fs::remove_dir(&path)
                    .map_err(Failure::os(format!("cannot remove {}", path.display())))?;
            }
            Ok(room)
        }
    }
}

/// Refuses a load that the disk has no room for, once the files of an earlier one are gone.
pub fn check_space<T: Target>(dir: &Path, shape: &Shape, memory: u64) -> Result<(), Failure> {
    let replaced = match look::<T>(dir)? {
        Contents::Ours(files, _) => files,
        Contents::Nothing | Contents::Foreign(_) => Vec::new(),
    };
    // What cannot be found out, the load finds out.
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let Ok(Some(free)) = free_bytes(there) else { return Ok(()) };
    let given_back = replaced.iter().filter_map(|path| fs::metadata(path).ok());
    let given_back: u64 = given_back.map(|file| file.len()).sum();
    let free = free.saturating_add(given_back);
    // What can be compressed counts in full if nothing says that it will be.
    let share = match shape.compression {
        Compression::None => 1.0,
        _ => 1.0 - shape.compressible * 0.9,
    };
    let bytes = shape.records as f64 * shape.record_bytes() as f64 * share;
    // Tables, and what waits for compaction beside them; the log of all that is not flushed, and
    // segments that are written ahead.
    let log = bytes.min(memory as f64 / 2.0) + LOG_BYTES;
    let wanted = (bytes * 1.2 + log) as u64;
    if wanted <= free {
        return Ok(());
    }
    let (wanted, free) = (format_size(wanted), format_size(free));
    let what = format!(
        "{} take about {wanted} in {}, and {free} are free: load fewer (load --records), or into a directory on another disk",
        counted(shape.records, "record"),
        dir.display()
    );
    Err(Failure::os(what)(io::ErrorKind::StorageFull.into()))
}

/// Takes the lock on a database's directory: the one that OuroDB takes. It is
/// held until the file is closed. Nobody waits for it here: who wants to tries again.
pub fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join(LOCK);
    let fail = || Failure::os(format!("cannot lock {}", path.display()));
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(fail())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(fail()(error)),
        Err(TryLockError::WouldBlock) => Err(Failure::Locked(format!(
            "another process has the database in {} open",
            dir.display()
        ))),
    }
}

/// Reads the marker of a loaded database.
pub fn read_shape(dir: &Path) -> Result<Shape, Failure> {
    let path = dir.join(MARKER);
    let shown = path.display();
    let bytes = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => {
            Failure::Usage(format!("{} is not a directory", dir.display()))
        }
        io::ErrorKind::NotFound => Failure::Usage(format!(
            "there is no {shown}: make a database first, with the command `load --dir {}`",
            dir.display()
        )),
        _ => Failure::os(format!("cannot read {shown}"))(error),
    })?;
    let not_ours = |why: &dyn std::fmt::Display| {
        Failure::Other(format!("{shown} does not say what was loaded: {why}; load anew"))
    };
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| not_ours(&e))?;
    let format = value.get("format").and_then(serde_json::Value::as_u64);
    if format.is_some_and(|format| format != u64::from(FORMAT)) {
        return Err(Failure::Unsupported(format!(
            "{shown} is of another format than this version of ouro-bench reads ({FORMAT}); load \
             anew, or use the version that loaded it"
        )));
    }
    let shape: Shape = serde_json::from_value(value).map_err(|e| not_ours(&e))?;
    if shape.records == 0 {
        return Err(Failure::Usage(format!(
            "the load of {} did not end; load again with --overwrite",
            dir.display()
        )));
    }
    if !(0.0..=1.0).contains(&shape.compressible) {
        return Err(not_ours(&"a share is from 0 to 1"));
    }
    Shape::new(shape.records, shape.keys(), shape.values(), shape.seed)
        .map(|checked| {
            let Shape { compression, compressible, is_traced, has_gaps, .. } = shape;
            Shape { compression, compressible, is_traced, has_gaps, ..checked }
        })
        .map_err(|e| not_ours(&e))
}

/// Writes the marker, in place of an earlier one, and makes it durable.
pub fn write_shape(dir: &Path, shape: &Shape) -> Result<(), Failure> {
    let (path, new) = (dir.join(MARKER), dir.join(MARKER_NEW));
    let write = || {
        let mut file = File::create(&new)?;
        serde_json::to_writer_pretty(&mut file, shape)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(Failure::os(format!("cannot write {}", path.display())))
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
